"""Engines as a program opens and calls them."""

import numpy as np
import pytest

import mvlib
from mvlib.engines import open_engine, read_export
from mvlib.inference import Settings, open_session


def test_an_engine_is_opened_by_its_path(exports):
    images = np.random.default_rng(0).integers(0, 256, (2, 160, 160, 3), np.uint8)
    (found,), (expected,) = (open_engine(place)(images) for place in (
        str(exports / "classifier.ov"), read_export(exports / "classifier.ov")))
    np.testing.assert_array_equal(found, expected)
    assert found.shape == (2, 7) and found.dtype == np.float32
    np.testing.assert_allclose(open_session(Settings(model=str(exports / "classifier.ov")))(images), found, atol=1e-4)
    with pytest.raises(mvlib.ConfigError, match="there is no folder nowhere.ov"):
        open_engine("nowhere.ov")


@pytest.mark.parametrize(("shape", "dtype", "said"), [
    ((160, 160, 3), np.uint8, "takes uint8 images of batch x 160 x 160 x 3, not 160 x 160 x 3: a batch dimension is "
                              "missing; pass images[None]"),
    ((3, 160, 160), np.float32, "takes normalised float32 images of batch x 3 x 160 x 160, not 3 x 160 x 160: a batch "
                                "dimension is missing"),
    ((1, 3, 160, 160), np.uint8, "not 1 x 3 x 160 x 160: uint8 images have their channels last"),
    ((1, 160, 160, 3), np.float32, "not 1 x 160 x 160 x 3: uint8 images have their channels last, float32 ones first"),
    ((1, 128, 160, 3), np.uint8, "not 1 x 128 x 160 x 3: export it with --img-size or a dynamic size"),
    ((1, 1, 160, 160, 3), np.uint8, "not 1 x 1 x 160 x 160 x 3$"),
    ((1, 3, 160, 160), np.float64, "takes images of uint8, or normalised ones of float32, not of float64"),
])
def test_images_that_it_does_not_take(exports, shape, dtype, said):
    engine = open_engine(exports / "classifier.ov")
    with pytest.raises(mvlib.ConfigError, match=said.replace("[", r"\[")):
        engine(np.zeros(shape, dtype))


def test_a_list_of_images_is_no_array(exports):
    with pytest.raises(mvlib.ConfigError, match=r"as an array of numpy's, not as a list: pass numpy.stack\(images\)"):
        open_engine(exports / "classifier.ov")([np.zeros((160, 160, 3), np.uint8)])


@pytest.mark.parametrize("kind", [(np.uint8, (2, 160, 160, 3)), (np.float32, (2, 3, 160, 160))])
def test_no_images_have_no_answers(exports, kind):
    dtype, shape = kind
    engine, images = open_engine(exports / "classifier.ov"), np.ones(shape, dtype)
    before, = engine(images)
    assert engine(images[:0])[0].shape == (0, 7)
    np.testing.assert_array_equal(engine(images)[0], before)


@pytest.mark.parametrize("format", ["openvino", pytest.param("torch-export", marks=pytest.mark.slow)])
def test_images_too_small_for_an_engine_of_any_size(format, tmp_path):
    model = mvlib.create_model("test_resnet", num_classes=3, pretrained=False).eval()
    mvlib.export(model, tmp_path / "out", format=format, img_size=96, dynamic_size=True)
    engine = open_engine(tmp_path / "out")
    for images in (np.zeros((2, 3, 8, 8), np.float32), np.zeros((2, 8, 8, 3), np.uint8)):
        with pytest.raises(mvlib.ConfigError, match="out does not take images of 8 x 8 pixels: "):
            engine(images)
    assert engine(np.zeros((2, 3, 64, 80), np.float32))[0].shape == (2, 3)


def test_create_model_says_how_an_export_is_opened(exports):
    with pytest.raises(mvlib.ConfigError, match="mvlib.inference.open_session or mvlib.engines.open_engine"):
        mvlib.create_model(f"{exports}/classifier.ov/")


@pytest.mark.sample(2)
@pytest.mark.parametrize(("name", "format", "made"), [
    ("a.onnx", None, "onnx"), ("a.pt2", None, "torch-export"), ("a.ov", None, "openvino"), ("a", None, "openvino"),
    ("a.x", "torchscript", "torchscript"),
])
def test_the_format_follows_from_the_name(tmp_path, name, format, made):
    pytest.importorskip("onnxscript")
    model = mvlib.create_model("test_resnet", num_classes=3, pretrained=False).eval()
    report = mvlib.export(model, tmp_path / name, format=format, img_size=32)
    assert report.format == made == read_export(tmp_path / name).format
    with pytest.raises(mvlib.ConfigError, match="ends in .onnx, which is for ONNX, and the format is torchscript"):
        mvlib.export(model, tmp_path / "b.onnx", format="torchscript")
