"""int8: what it is calibrated on, what is left in float32, and what is said of its agreement with float32."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

import mvlib
from mvlib.engines import quantize
from mvlib.engines.calibration import LEAST, draw, find_labels, read
from mvlib.engines.exporter import export
from mvlib.engines.folder import read_export
from mvlib.engines.runtime import open_engine
from mvlib.errors import ConfigError, DataError, ExportError, MissingPackageError

pytest.importorskip("nncf")
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")


def take_crops(folder: Path, count: int, size: int = 96) -> Path:
    """Pictures cut out of photographs, in folders of their names."""
    rng = np.random.default_rng(0)
    for number in range(count):
        name = PHOTOGRAPHS[number % len(PHOTOGRAPHS)]
        pixels = getattr(skimage.data, name)()
        top, left = (rng.integers(0, side - 200) for side in pixels.shape[:2])
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[top:top + 200, left:left + 200]).resize((size, size)).save(
            folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return take_crops(tmp_path_factory.mktemp("photos"), 60)


def fitted(name: str, photos: Path) -> torch.nn.Module:
    """A model that tells the photographs from each other: the mean features of each are its classifier."""
    torch.manual_seed(0)
    model = mvlib.create_model(name, pretrained=False, num_classes=len(PHOTOGRAPHS)).eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # as trained ones are: OpenVINO drops what adds nothing
            module.bias.data.normal_(0, 0.1)
    paths, labels = zip(*find_labels(photos, len(PHOTOGRAPHS)).items())
    images = torch.from_numpy(read(paths, mvlib.data.resolve_data_config(model=model)).images).permute(0, 3, 1, 2)
    images = images / 127.5 - 1
    features = model.forward_head(model.forward_features(images), pre_logits=True)
    targets = torch.nn.functional.one_hot(torch.tensor(labels)).float()
    centred = features - features.mean(0)
    solved = torch.linalg.solve(centred.T @ centred + len(images) * centred.var() * torch.eye(centred.shape[1]),
                                centred.T @ (targets - targets.mean(0)))
    head = model.get_classifier()
    head.weight.data.copy_(solved.T)
    head.bias.data.copy_(-features.mean(0) @ solved)
    return model


@pytest.fixture(scope="module")
def int8(photos, tmp_path_factory):
    path = tmp_path_factory.mktemp("int8") / "engine"
    export(fitted("test_resnet", photos), path, precision="int8", calibrate=photos, least_agreement=0.5)
    return read_export(path)


@pytest.mark.slow
def test_weights_are_bytes_and_the_outputs_nearly_those_of_torch(int8, photos):
    assert int8.precision == "int8" and "nncf" in int8.versions
    model = fitted("test_resnet", photos)
    weights = sum(p.numel() for p in model.parameters())
    assert (int8.path / "model.bin").stat().st_size < 2 * weights
    images = read(draw(photos, 40, 1)[0], int8.data_config).images
    with torch.inference_mode():
        expected = model(mvlib.data.Normalizer(int8.data_config["mean"], int8.data_config["std"], 3, "cpu",
                                               torch.float32)(torch.from_numpy(images).permute(0, 3, 1, 2)))
    found = open_engine(int8)(images)[0]
    assert 0 < np.abs(expected.numpy() - found).max() < 0.2 * expected.abs().max()


def test_agreement_is_measured_on_pictures_that_were_held_out(int8):
    measured = int8.measured
    assert (measured["held_out"], measured["calibrated_on"], measured["labelled"]) == (20, 40, 20)
    assert measured["agreement"] >= 0.5
    # every picture on which they disagree may be right in one of the two
    assert abs(measured["top1_float32"] - measured["top1_int8"]) <= 1 - measured["agreement"] + 1e-9
    assert measured["top1_float32"] > 0.4  # of four classes


def test_the_report_says_what_was_measured():
    measured = {"agreement": 0.975, "held_out": 40, "calibrated_on": 80, "float32_layers": ["conv1", "conv2"],
                "top1_float32": 0.8, "top1_int8": 0.775, "labelled": 40}
    assert quantize.summary(measured) == (
        "97.5% agreement with float32 on 40 pictures that were held out; calibrated on 80; top-1 80.0% -> 77.5% of 40; "
        "2 layers stay in float32")


@pytest.mark.slow
def test_the_same_pictures_in_any_order_make_the_same_engine(int8, photos, tmp_path):
    paths = sorted(photos.rglob("*.png"), key=lambda path: path.name[::-1])
    export(fitted("test_resnet", photos), tmp_path / "again", precision="int8", calibrate=paths, least_agreement=0.5)
    assert read_export(tmp_path / "again").files["model.bin"] == int8.files["model.bin"]


def test_the_sample_is_of_the_seed(photos):
    first, held = draw(photos, 10, 0)
    assert len(first) == 10 and len(held) == 20 and not set(first) & set(held)
    assert draw(photos, 10, 0) == (first, held) and draw(photos, 10, 1)[0] != first
    assert draw(sorted(photos.rglob("*.png"))[:30], 100, 0)[1] == []  # too few to spare any


def float32_layers(folder) -> set[str]:
    """Names of the layers whose weights are not bytes."""
    import openvino

    found = set()
    for op in openvino.Core().read_model(folder.engine_file).get_ops():
        if op.get_type_name() not in ("Convolution", "MatMul"):
            continue
        given = op.input_value(0).get_node()
        while given.get_type_name() in ("Reshape", "Squeeze"):  # of the pooled features
            given = given.input_value(0).get_node()
        if given.get_type_name() != "FakeQuantize":
            found.add(op.get_friendly_name())
    return found


@pytest.mark.slow
def test_modules_and_types_can_be_left_in_float32(int8, photos, tmp_path):
    model = fitted("test_resnet", photos)
    export(model, tmp_path / "kept", precision="int8", calibrate=photos, least_agreement=0.5,
           quantize_exclude=["layer4", "matmul", "layer3.*.conv2"])
    kept = read_export(tmp_path / "kept")
    count = sum(isinstance(module, torch.nn.Conv2d) for module in model.layer4.modules()) + len(model.layer3) + 1
    assert len(float32_layers(kept)) - len(float32_layers(int8)) == count
    assert (kept.path / "model.bin").stat().st_size > (int8.path / "model.bin").stat().st_size


def test_a_pattern_that_means_nothing_is_refused(photos, tmp_path):
    with pytest.raises(ConfigError) as info:
        export(fitted("test_resnet", photos), tmp_path / "x", precision="int8", calibrate=photos,
               quantize_exclude=["layer5"])
    assert str(info.value).startswith("--quantize-exclude: 'layer5' is neither a module of the model nor a type of its "
                                      "operations; did you mean 'layer")
    assert not (tmp_path / "x").exists()


def test_unreadable_pictures_are_named_and_left_out(photos, tmp_path, caplog):
    folder = Path(shutil.copytree(photos, tmp_path / "photos"))
    (folder / "chelsea" / "bad.png").write_bytes(b"no picture")
    config = mvlib.data.resolve_data_config({"input_size": (3, 64, 64)})
    pictures = read(sorted(map(str, folder.rglob("*.png"))), config)
    assert len(pictures) == 60 and pictures.images.shape == (60, 64, 64, 3)
    assert "not read: " in caplog.text and "bad.png: not an image in a format that PIL reads" in caplog.text


def refusal(tmp_path, calibrate, error=ConfigError, **kwargs) -> str:
    model = mvlib.create_model("test_resnet", num_classes=4)
    with pytest.raises(error) as info:
        export(model, tmp_path / "engine", precision="int8", calibrate=calibrate, **kwargs)
    assert not (tmp_path / "engine").exists()
    return str(info.value)


def test_too_few_pictures_are_refused(photos, tmp_path):
    empty, bad = tmp_path / "empty", tmp_path / "bad"
    empty.mkdir()
    bad.mkdir()
    for number in range(LEAST):
        (bad / f"{number}.png").write_bytes(b"no picture")
    hint = "name a folder of pictures like those that the model will see, with --calibrate"
    assert refusal(tmp_path, empty) == f"int8 is calibrated on 16 pictures or more, and {empty} has 0: {hint}"
    assert refusal(tmp_path, list(photos.rglob("*.png"))[:9]) == \
        f"int8 is calibrated on 16 pictures or more, and what is given has 9: {hint}"
    assert refusal(tmp_path, bad) == "int8 is calibrated on 16 pictures or more, and of 16 only 0 could be read"
    assert refusal(tmp_path, None) == ("int8 is calibrated on pictures like those that the model will see: name a "
                                       "folder of them, with --calibrate")


def test_other_formats_are_refused(photos, tmp_path):
    assert refusal(tmp_path, photos, format="torchscript") == \
        "int8 is made in OpenVINO's format alone, not in 'torchscript': --format openvino"


def test_without_nncf_it_says_how_to_get_it(photos, tmp_path, monkeypatch):
    find = __import__("importlib.util").util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "nncf" else find(name))
    assert refusal(tmp_path, photos, MissingPackageError) == \
        "this needs the package 'nncf', which is not installed: pip install 'mvlib[openvino]'"


def test_labels_that_do_not_fit_are_refused(photos, tmp_path):
    other = tmp_path / "other"
    for name in ("ant", "bee", "cat"):
        shutil.copytree(photos / "chelsea", other / name)
    assert refusal(tmp_path, photos, labels=other) == (f"{other} has 3 class folders, and the model 4 classes: "
                                                       f"accuracy is measured on a folder for each, with its name")
    assert refusal(tmp_path, photos, DataError, labels=photos / "chelsea").endswith("has no class folders")


@pytest.mark.slow
@pytest.mark.parametrize("shares", [(0.5, 0.98), (0.5, 0.6, 0.6)], ids=["reached", "never reached"])
def test_where_they_agree_too_rarely_the_first_layers_stay_in_float32(photos, tmp_path, monkeypatch, shares):
    attempts = iter(shares)
    monkeypatch.setattr(quantize, "_agreement", lambda *_: next(attempts))
    monkeypatch.setattr(quantize, "_ATTEMPTS", ((0, False), (2, False), (6, False)))
    report = export(fitted("test_resnet", photos), tmp_path / "engine", precision="int8", calibrate=photos, force=True)
    assert report.measured["float32_layers"] == ["conv1.0", "conv1.3"] and report.measured["agreement"] == shares[1]
    assert next(attempts, None) is None


def test_less_agreement_than_asked_for_is_refused(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(quantize, "_ATTEMPTS", ((0, False),))
    text = refusal(tmp_path, photos, ExportError, least_agreement=1.01)
    assert text.startswith("int8 and float32 give the same class on ")
    assert text.endswith("% of 20 pictures, less than 101%: leave layers in float32 with --quantize-exclude, calibrate "
                         "on more pictures, or take the export all the same with --force")


@pytest.mark.slow
def test_an_attention_model_and_features(photos, tmp_path):
    export(mvlib.create_model("test_vit", num_classes=4), tmp_path / "vit", precision="int8", calibrate=photos,
           features="pooled", least_agreement=0.9, quantize_exclude=["blocks.0.mlp"])
    folder = read_export(tmp_path / "vit")
    assert 0.9 <= folder.measured["agreement"] < 1 and "top1_int8" not in folder.measured
    assert json.loads((tmp_path / "vit" / "engine.json").read_text())["precision"] == "int8"


@pytest.mark.slow
def test_real_weights_on_real_photographs(tmp_path, monkeypatch):
    monkeypatch.setattr(quantize, "_ATTEMPTS", ((2, True),))
    photos = take_crops(tmp_path / "photos", 48, size=256)
    report = export("tf_efficientnet_lite0.pip_in1k", tmp_path / "lite0", precision="int8", calibrate=photos,
                    least_agreement=0.8)
    left = report.measured["float32_layers"]
    assert report.measured["held_out"] == 16 and left[:2] == ["conv_stem", "blocks.0.0.conv_dw"]
    assert len(left) == 17 and all(name.endswith("conv_dw") for name in left[1:])
    assert report.files["model.bin"] < 6e6  # of 4.65 million weights
    assert 0 < report.measured["difference"] < 0.3
