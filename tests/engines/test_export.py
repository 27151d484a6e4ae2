"""mvlib.export: what the folder says, what the engine answers, and what is refused."""

import json
import logging
import os
import shutil
import subprocess
import sys
from collections import namedtuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import mvlib
from mvlib.engines import open_engine, read_export
from mvlib.engines.convert import convert
from mvlib.engines.folder import FORMATS
from mvlib.inference import Settings, open_session

from ..cli.command import here

LITE0 = "tf_efficientnet_lite0.pip_in1k"
COMPARED = [pytest.param(format, marks=() if format in ("openvino", "torchscript") else pytest.mark.slow)
            for format in FORMATS if format != "aotinductor"]  # which takes a compiler, and minutes


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return mvlib.create_model("test_resnet", pretrained=False, num_classes=7).eval()


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    return mvlib.create_model("test_vit2", pretrained=False, num_classes=7, img_size=64).eval()


def answers(path, images):
    return open_engine(read_export(path))(images)


def normalized(path, count, size, seed=0):
    """The same images as uint8 and as the model takes them."""
    config = read_export(path).data_config
    raw = np.random.default_rng(seed).integers(0, 256, (count, *size, config["input_size"][0]), np.uint8)
    ready = (raw / np.float32(255) - np.float32(config["mean"])) / np.float32(config["std"])
    return raw, np.ascontiguousarray(ready.transpose(0, 3, 1, 2), np.float32)


def expect(model, images):
    with torch.no_grad():
        outputs = model(torch.from_numpy(images))
    return [value.numpy() for value in ([outputs] if isinstance(outputs, torch.Tensor) else outputs)]


class Clamped(nn.Module):
    """One value within two pairs of bounds that are buffers, as in Gemma 4's encoder."""

    def __init__(self):
        super().__init__()
        for name, value in (("low", -1.0), ("high", 1.0), ("lower", -2.0), ("higher", 0.5)):
            self.register_buffer(name, torch.tensor(value))

    def forward(self, x):
        return x.clamp(self.low, self.high) + 3 * x.clamp(self.lower, self.higher)


@pytest.mark.slow
def test_onnx_of_what_is_clamped_twice(tmp_path):
    import onnxruntime

    images = torch.linspace(-3, 3, 8).reshape(2, 4)
    convert("onnx", Clamped(), images, tmp_path / "model.onnx")
    found, = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {"images": images.numpy()})
    assert np.allclose(found, Clamped()(images), atol=1e-6)


@pytest.mark.parametrize("format", COMPARED)
@pytest.mark.parametrize("kind", ["resnet", pytest.param("vit", marks=pytest.mark.slow)])
def test_formats(format, kind, request, tmp_path):
    model = request.getfixturevalue(kind)
    report = mvlib.export(model, tmp_path / "out", format=format)
    size = model.pretrained_cfg["input_size"][1:]
    for count in (1, 3):
        raw, images = normalized(tmp_path / "out", count, size)
        wanted = expect(model, images)[0]
        for given in (images, raw):
            found, = answers(tmp_path / "out", given)
            assert found.shape == (count, 7) and np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()
    assert report.difference <= 1e-4 and report.seconds.keys() == {"load", "convert", "check"}
    assert report.files == {path.name: path.stat().st_size for path in (tmp_path / "out").iterdir()}
    assert report.files.keys() >= {"config.json", "engine.json", FORMATS[format].file}
    assert f"{tmp_path / 'out'}: " in str(report) and "outputs differ from torch's by" in str(report)
    said = read_export(tmp_path / "out")
    assert said.measured == {"difference": report.difference, "batches": [1, 5], "sizes": [list(size)]}
    assert said.versions["mvlib"] == mvlib.__version__ and said.versions["torch"] == torch.__version__
    assert said.model == kind.replace("resnet", "test_resnet").replace("vit", "test_vit2")  # no published weights'


@pytest.mark.slow
def test_published_weights(tmp_path):
    """By name: what a repository's config.json says, stands there."""
    report = mvlib.export(LITE0, tmp_path / "out")
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert report.model == LITE0 and config["architecture"] == "tf_efficientnet_lite0"
    assert len(config["label_names"]) == 1000 and "tabby" in " ".join(config["label_names"])
    weights = mvlib.get_pretrained_cfg(LITE0)
    assert config["pretrained_cfg"]["license"] == weights.license
    assert config["mvlib"]["base_model"]["name"] == LITE0 and config["mvlib"]["base_model"]["source"]
    assert config["pretrained_cfg"]["input_size"] == list(weights.input_size)


def test_size_and_batch(resnet, tmp_path):
    mvlib.export(resnet, tmp_path / "fixed", img_size=(64, 96), batch_size=3)
    said = read_export(tmp_path / "fixed")
    assert said.input.shape == (3, 3, 64, 96) and said.outputs[0].shape == (3, 7)
    assert said.config["pretrained_cfg"]["input_size"] == [3, 64, 96] == list(said.data_config["input_size"])
    raw, images = normalized(tmp_path / "fixed", 3, (64, 96))
    np.testing.assert_allclose(answers(tmp_path / "fixed", raw)[0], expect(resnet, images)[0], atol=1e-4)
    with pytest.raises(mvlib.ConfigError, match="images of 3 x 3 x 64 x 96, not 2 x 3 x 64 x 96"):
        answers(tmp_path / "fixed", images[:2])
    assert read_export(mvlib.export(resnet, tmp_path / "one", dynamic_batch=False).path).input.shape[0] == 1


@pytest.fixture(scope="module")
def small(resnet, tmp_path_factory):
    return mvlib.export(resnet, tmp_path_factory.mktemp("small") / "out", img_size=32).path


@pytest.mark.parametrize("keys, value", [
    (["data_config", "mean"], [0.1, 0.2, 0.3]), (["data_config", "std", 1], 1.0), (["data_config", "crop_pct"], None),
    (["input", "shape", 0], -1), (["outputs"], []), (["files"], {}), (["facts"], None), (["num_classes"], "x"),
    (["measured"], {"difference": 0.0}),
], ids=str)
def test_a_description_that_was_edited_is_refused(keys, value, small, tmp_path):
    path = shutil.copytree(small, tmp_path / "out") / "engine.json"
    data = said = json.loads(path.read_text())
    for key in keys[:-1]:
        data = data[key]
    data[keys[-1]] = value
    path.write_text(json.dumps(said))
    with pytest.raises(mvlib.ConfigError, match="engine.json was changed after the export"):
        read_export(path.parent)


@pytest.mark.sample(2)
@pytest.mark.parametrize("format", ["openvino", "onnx", "torchscript"])
def test_a_batch_that_is_not_full_is_filled(format, resnet, tmp_path):
    mvlib.export(resnet, tmp_path / "out", format=format, batch_size=3)
    for number in range(5):
        Image.new("RGB", (200, 180), (40 * number, 90, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "4.png").write_bytes(b"no picture")
    done = here("predict", *sorted(tmp_path.glob("*.png")), "--model", tmp_path / "out", "--format", "jsonl")
    assert done.stderr.endswith("mvlib: 1 of 5 images could not be read\n")
    found = [json.loads(line)["predictions"][0]["probability"] for line in done.stdout.splitlines() if "pred" in line]
    images = [Image.open(tmp_path / f"{number}.png") for number in range(4)]
    transform = mvlib.create_transform(**mvlib.resolve_data_config(model=resnet))
    with torch.no_grad():
        expected = resnet(torch.stack([transform(image) for image in images])).softmax(-1).max(-1)[0]
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["openvino", "torchscript"])
def test_any_size(format, tmp_path):
    """TensorFlow's padding depends on the size."""
    model = mvlib.create_model("tf_mobilenetv3_small_minimal_100", pretrained=False, num_classes=5).eval()
    mvlib.export(model, tmp_path / "out", format=format, dynamic_size=True, img_size=64)
    assert read_export(tmp_path / "out").input.shape == ("batch", 3, "height", "width")
    for size in ((64, 64), (65, 50), (97, 128)):
        raw, images = normalized(tmp_path / "out", 2, size)
        np.testing.assert_allclose(answers(tmp_path / "out", raw)[0], expect(model, images)[0], atol=1e-4)


def test_positions_are_resampled_once(vit, tmp_path):
    mvlib.export(vit, tmp_path / "out", img_size=96)
    _, images = normalized(tmp_path / "out", 2, (96, 96))
    np.testing.assert_allclose(answers(tmp_path / "out", images)[0], expect(vit, images)[0], atol=1e-4)
    assert vit.img_size == (64, 64)


@pytest.mark.slow
def test_features(resnet, vit, tmp_path):
    places = iter(tmp_path / str(number) for number in range(9))
    _, images = normalized(mvlib.export(resnet, tmp_path / "classifier").path, 2, (160, 160))

    def export(model, **kwargs):
        report = mvlib.export(model, next(places), **kwargs)
        return read_export(report.path), answers(report.path, images if model is not vit else images[..., :64, :64])

    said, (pooled,) = export(resnet, features="pooled")
    assert said.features == "pooled" and said.outputs[0].name == "features"
    with torch.no_grad():
        x = torch.from_numpy(images)
        features = resnet.forward_features(x)
        np.testing.assert_allclose(pooled, resnet.forward_head(features, pre_logits=True), atol=1e-4)
        np.testing.assert_allclose(export(resnet, features="tokens")[1][0], features, atol=1e-4)
        levels = resnet.forward_intermediates(x, intermediates_only=True)
        said, (level,) = export(resnet, features="-2")
        np.testing.assert_allclose(level, levels[-2], atol=1e-4)
        assert said.features == resnet.feature_info[-2]["module"]
        said, maps = export(resnet, out_indices=(1, 3))
        assert said.features == "maps" and [output.name for output in said.outputs] == ["level1", "level3"]
        for found, index in zip(maps, (1, 3), strict=True):
            np.testing.assert_allclose(found, levels[index], atol=1e-4)
        extractor = mvlib.create_model("test_resnet", pretrained=False, features_only=True, feature_cls="dict").eval()
        said, maps = export(extractor)
        assert len(said.outputs) == len(maps) == 5
        for found, wanted in zip(maps, extractor(x).values(), strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-4)
        said, (tokens,) = export(vit, features="tokens")
        np.testing.assert_allclose(tokens, vit.forward_features(x[..., :64, :64]), atol=1e-4)
    headless = mvlib.create_model("test_resnet", pretrained=False, num_classes=0)
    assert export(headless)[0].features == "pooled"


def test_a_model_that_is_in_use_stays_as_it_is(tmp_path):
    model = mvlib.create_model("test_efficientnet", pretrained=False).bfloat16().train()
    model.set_grad_checkpointing()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    mvlib.export(model, tmp_path / "out", img_size=64)
    assert model.training and model.grad_checkpointing
    assert all(parameter.requires_grad and parameter.dtype == torch.bfloat16 for parameter in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    _, images = normalized(tmp_path / "out", 2, (64, 64))
    wanted = expect(model.eval().float(), images)[0]
    np.testing.assert_allclose(answers(tmp_path / "out", images)[0], wanted, atol=1e-4 * np.abs(wanted).max())


def test_a_repository(tmp_path):
    model = mvlib.create_model("test_resnet", pretrained=False, num_classes=2)
    mvlib.save_for_hub(model, tmp_path / "run/export", label_names=["cat", "dog"], license="mit")
    report = mvlib.export(tmp_path / "run/export", tmp_path / "out", img_size=64)
    said = read_export(report.path)
    assert said.class_names == ["cat", "dog"] and said.config["pretrained_cfg"]["license"] == "mit"
    with pytest.raises(mvlib.ConfigError, match="is an export, which"):
        mvlib.export(tmp_path / "out", tmp_path / "other")


# what the check has to find: conversions that go through, and answer otherwise


def changed(model, forward):
    """The model with another forward."""
    copy = mvlib.create_model("test_resnet", pretrained=False, num_classes=7).eval()
    copy.load_state_dict(model.state_dict())
    copy.__class__ = type("Changed", (type(copy),), {"forward": forward})
    return copy


def of_this_batch(self, x):
    return self.forward_head(self.forward_features(x)) + torch.zeros(int(x.shape[0]), 1)


def by_value(self, x):
    logits = self.forward_head(self.forward_features(x))
    return logits if x.mean() > 0 else -logits


@torch.library.custom_op("mvlib_tests::strange", mutates_args=())
def strange(x: torch.Tensor) -> torch.Tensor:
    return x.clone()


@strange.register_fake
def _(x):
    return torch.empty_like(x)


def with_strange_operation(self, x):
    return strange(self.forward_head(self.forward_features(x)))


@pytest.mark.sample(2)
@pytest.mark.parametrize("forward, format, text", [
    (of_this_batch, "openvino", "but gives logits of \\(2, 7\\), not \\(1, 7\\), for images of 1 x 3 x 64 x 64"),
    (of_this_batch, "onnx", "cannot be converted to ONNX: the model fixes the batch of its images while it runs"),
    (by_value, "openvino", "outputs differ from torch's by 2.0e\\+00 of the largest, more than 1e-04; nothing was wri"),
    (by_value, "torch-export", "cannot be converted to torch.export: Could not guard on data-dependent expression"),
    (with_strange_operation, "openvino", "OpenVINO: it does not know the operation mvlib_tests::strange; other form"),
    (with_strange_operation, "onnx", "ONNX: it does not know the operation mvlib_tests::strange; other formats may"),
    (with_strange_operation, "torchscript", "TorchScript: it does not know the operation mvlib_tests::strange"),
], ids=lambda value: getattr(value, "__name__", None))
def test_wrong_engines_are_refused(forward, format, text, resnet, tmp_path):
    with pytest.raises((mvlib.ConfigError, mvlib.ExportError), match=f"^'test_resnet' .*{text}"):
        mvlib.export(changed(resnet, forward), tmp_path / "out", format=format, img_size=64)
    assert not list(tmp_path.iterdir())
    assert logging.getLogger().level == logging.WARNING  # OpenVINO would leave ERROR, and warnings unsaid


def test_force(resnet, tmp_path):
    report = mvlib.export(changed(resnet, by_value), tmp_path / "out", img_size=64, force=True)
    assert report.difference > 1 and "more than 1e-04" in str(report)
    assert read_export(tmp_path / "out").measured["difference"] == report.difference
    with pytest.raises(mvlib.ConfigError, match="out exists already; --force replaces it"):
        mvlib.export(resnet, tmp_path / "out", img_size=64)
    assert mvlib.export(resnet, tmp_path / "out", img_size=64, force=True).difference < 1e-4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").touch()
    with pytest.raises(mvlib.ConfigError, match="mine exists already and is no export: take another place"):
        mvlib.export(resnet, tmp_path / "mine", force=True)


def quantized(model):
    return mvlib.create_model("quantized_mobilenet_v2", pretrained=False)


@pytest.mark.parametrize("make, arguments, text", [
    (None, dict(format="onxx"), "unknown format 'onxx'; did you mean 'onnx'\\?"),
    (None, dict(precision="float8"), "unknown precision 'float8': an export is in float32 or int8"),
    (None, dict(batch_size=0), "batch_size is a number of images, not 0"),
    (None, dict(features="12"), "'test_resnet' has no level '12'; it has 0 \\("),
    (None, dict(features="pooled", out_indices=2), "out_indices chooses maps, and features='pooled' are none"),
    (None, dict(checkpoint="w.pt"), "checkpoint goes with the name of a model; this model has weights"),
    (lambda model: torch.nn.Flatten(), {}, "Flatten is no model that create_model built"),
    (lambda model: "test_byobnet.nothing", {}, "test_byobnet"),
    (lambda model: "no_such_model", {}, "unknown architecture 'no_such_model'"),
    (quantized, {}, "is quantized by torch, and other libraries do not read its weights"),
    (lambda model: mvlib.create_model("test_resnet", pretrained=False, device="meta"), {}, "is on the meta device"),
    (lambda model: mvlib.optimize(model, torch.zeros(1, 3, 64, 64), backend="torch")[0], {}, "what mvlib.optimize "),
    (lambda model: mvlib.create_model("deit_tiny_patch16_224", pretrained=False, depth=1), dict(img_size=96),
     "was built for images of 224 x 224, not of 96 x 96: export it by its name, or build it with img_size=\\(96, 9"),
    (lambda model: mvlib.create_model("deit_tiny_patch16_224", pretrained=False, depth=1), dict(dynamic_size=True),
     "'deit_tiny_patch16_224' does not take images of any size: .*224"),
    (lambda model: mvlib.create_model("test_resnet", pretrained=False, features_only=True), dict(features="pooled"),
     "'test_resnet' was built with features_only, and gives maps, not 'pooled': build it without"),
])
def test_bad_input(make, arguments, text, resnet, tmp_path):
    model = make(resnet) if make else resnet
    with pytest.raises(mvlib.MvlibError, match=text):
        mvlib.export(model, tmp_path / "out", **arguments)
    assert not list(tmp_path.iterdir())


def test_a_full_disk(resnet, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: namedtuple("Usage", "total used free")(1, 1, 0))
    with pytest.raises(OSError, match="No space left on device: '.*out'"):
        mvlib.export(resnet, tmp_path / "out", img_size=64)
    assert not list(tmp_path.iterdir())


def test_a_missing_package(resnet, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxscript" else True)
    with pytest.raises(mvlib.MissingPackageError, match="needs the package 'onnxscript', .*pip install 'mvlib\\[onnx"):
        mvlib.export(resnet, tmp_path / "out", format="onnx")
    done = here("export", LITE0, "--format", "onnx", "--output", tmp_path / "out")
    assert done.returncode == 2 and "onnxscript" in done.stderr
    assert not list(tmp_path.iterdir())


# the command


@pytest.mark.slow
def test_command(tmp_path, monkeypatch):
    done = here("export", LITE0, "--output", tmp_path / "out", "--img-size", 96)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{tmp_path / 'out'}: {LITE0} in OpenVINO, float32\n")
    page = here("info", tmp_path / "out")
    for word in (LITE0, "openvino", "float32", "96", "1000 classes", "e-0"):
        assert word in page.stdout, page
    said = json.loads(here("info", tmp_path / "out", "--json").stdout)
    assert said["format"] == "openvino" and said["versions"]["torch"] == torch.__version__
    monkeypatch.setattr("mvlib.engines.exporter._BOUND", 0.0)
    done = here("export", LITE0, "--output", tmp_path / "other", "--img-size", 96)
    assert done.returncode == 1 and "more than 0e+00; nothing was written" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    done = here("export", LITE0, "--output", tmp_path / "other", "--img-size", 96, "--force")
    assert done.returncode == 0 and "note   outputs differ" in done.stdout


def test_a_training_checkpoint_says_its_model(tmp_path):
    weights = mvlib.create_model("test_resnet").state_dict()
    torch.save({"arch": "test_resnet", "state_dict": weights}, tmp_path / "last.pth.tar")
    done = here("export", "--checkpoint", tmp_path / "last.pth.tar", "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    torch.save(weights, tmp_path / "weights.pth")
    done = here("export", "--checkpoint", tmp_path / "weights.pth", "--output", tmp_path / "other")
    assert done.returncode == 2
    assert done.stderr == f"mvlib: {tmp_path / 'weights.pth'} does not say what model it is of: name the MODEL, too\n"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_answers_that_are_no_numbers_are_refused(value, tmp_path):
    model = mvlib.create_model("test_resnet", pretrained=False, num_classes=7).eval()
    with torch.no_grad():
        model.fc.bias[3] = value
    with pytest.raises(mvlib.ExportError, match="its outputs in torch are not finite numbers: its weights are damaged"):
        mvlib.export(model, tmp_path / "out", img_size=64)
    assert not list(tmp_path.iterdir())
    report = mvlib.export(model, tmp_path / "out", img_size=64, force=True)
    assert "note   its outputs in torch are not finite numbers" in str(report)


@pytest.mark.parametrize("replace", [False, True])
def test_of_two_exports_at_once_the_second_is_refused(replace, resnet, tmp_path):
    """Unless it may replace what is there."""
    with pytest.MonkeyPatch.context() as patch:
        def meanwhile(*arguments, **more):
            patch.undo()
            mvlib.export(resnet, tmp_path / "out", img_size=64)
            return convert(*arguments, **more)

        patch.setattr("mvlib.engines.exporter.convert", meanwhile)
        if replace:
            mvlib.export(resnet, tmp_path / "out", img_size=32, force=True)
        else:
            with pytest.raises(mvlib.ConfigError, match="out exists already; --force replaces it"):
                mvlib.export(resnet, tmp_path / "out", img_size=32)
    assert read_export(tmp_path / "out").input.shape[2:] == ((32, 32) if replace else (64, 64))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_weights_of_a_file_do_not_have_the_name_of_published_ones(tmp_path):
    torch.save(mvlib.create_model("test_resnet", pretrained=False).state_dict(), tmp_path / "mine.pth")
    report = mvlib.export("test_resnet", tmp_path / "out", checkpoint=tmp_path / "mine.pth", img_size=64)
    assert report.model == read_export(tmp_path / "out").model == "test_resnet"
    settings = Settings(model="test_resnet", checkpoint=str(tmp_path / "mine.pth"), backend="torch")
    assert open_session(settings).name == "test_resnet"


@pytest.mark.parametrize("arguments, text", [
    (["resnet5"], "unknown architecture 'resnet5'; did you mean"),
    (["quantized_resnet18.nothing"], "quantized_resnet18"),
    ([LITE0, "--format", "openvno"], "'openvno' is unknown; did you mean 'openvino'?"),
    ([LITE0, "--level", "2", "--features", "pooled"], "--features and --level are two choices"),
    ([LITE0, "--out-indices", "2", "--features", "pooled"], "--out-indices goes with --features maps"),
    ([LITE0, "--calibrate", "."], "--calibrate, --labels and --quantize-exclude go with --precision int8"),
    ([LITE0, "--precision", "int8"], "int8 is calibrated on pictures like those that the model will see: --calibrate"),
    ([LITE0, "--precision", "int8", "--calibrate", "nowhere"], "--calibrate: there is no folder nowhere"),
    ([LITE0, "--precision", "int8", "--calibrate", ".", "--labels", "nowhere"], "--labels: there is no folder nowhere"),
    ([], "name the MODEL, or a training run's --checkpoint, which says its own"),
    (["run/one"], "run/one is a folder, but neither an export nor a repository; run/one/export is one"),
    (["run/two"], "run/two is a folder, but neither an export nor a repository\n"),
    (["run/two/weights.pt"], "run/two/weights.pt is a file, not the name of a model: weights are read by --checkpoint"),
    ([LITE0, "--checkpoint", "nowhere.pt"], "--checkpoint nowhere.pt cannot be read: there is no such file"),
    ([LITE0, "--output", "file/out"], "file is a file"),
    ([LITE0, "--output", "."], "exists already and is no export: take another place"),
])
def test_command_refuses_before_anything_is_loaded(arguments, text, tmp_path):
    code = """if True:
        import sys, mvlib.cli
        try:
            status = mvlib.cli.main(sys.argv[1:])
        except SystemExit as exit:
            status = exit.code
        assert "torch" not in sys.modules, "torch"
        sys.exit(status)
    """
    (tmp_path / "file").touch()
    for name in ("run/one/export/config.json", "run/two/weights.pt"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    output = [] if "--output" in arguments else ["--output", "out"]
    done = subprocess.run([sys.executable, "-c", code, "export", *arguments, *output], capture_output=True, text=True,
                          cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert done.returncode == 2 and text in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_create_model_refuses_an_export(resnet, tmp_path):
    mvlib.export(resnet, tmp_path / "out", img_size=64)
    for name in (f"local-dir:{tmp_path / 'out'}", str(tmp_path / "out")):
        with pytest.raises(mvlib.ConfigError, match="is an export, which .* name the model that it was made from, 'te"):
            mvlib.create_model(name)
