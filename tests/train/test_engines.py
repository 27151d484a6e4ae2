"""Validation and inference by engines: what torch measures, whatever the batches; and what cannot be."""

import copy
import csv
import json
import re
import shutil

import pytest
import torch
from PIL import Image

import mvlib
from mvlib.cli import main
from mvlib.optimization import pipeline
from mvlib.train import evaluation

from .conftest import NAMES

pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def model(digits):
    """test_resnet for four classes, whose answers differ from image to image."""
    torch.manual_seed(3)
    model = mvlib.create_model("test_resnet", pretrained=False, num_classes=4).eval().requires_grad_(False)
    dataset = mvlib.create_dataset("", root=digits, split="validation", transform=mvlib.create_transform(
        **{**mvlib.resolve_data_config(model=model), "input_size": (3, 32, 32)}))
    model.fc.weight.mul_(30)
    model.fc.bias.sub_(model(torch.stack([image for image, _ in dataset])).mean(0))
    return model


def save(model, folder, names):
    mvlib.save_for_hub(model, folder, label_names=names, data_config={"input_size": (3, 32, 32)})
    return f"local-dir:{folder}"


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    return save(model, tmp_path_factory.mktemp("saved"), sorted(NAMES))


@pytest.fixture(scope="module")
def exports(saved, tmp_path_factory):
    """The folder of exports: for any batch, for one image at once, of features."""
    folder = tmp_path_factory.mktemp("exports")
    for name, options in {"any": {}, "one": {"dynamic_batch": False}, "features": {"features": "pooled"}}.items():
        mvlib.export(saved, folder / name, **options)
    return folder


@pytest.fixture
def validate(digits, tmp_path):
    def validate(*flags):
        out = tmp_path / "r.json"
        assert main(["validate", str(digits), "-j", "0", "--results-file", str(out), *map(str, flags)]) == 0
        row, = json.loads(out.read_text())
        return row

    return validate


def compared(row):
    return {key: row[key] for key in ("top1", "top5", "images", "img_size", "interpolation", "crop_pct")}


@pytest.fixture
def expected(validate, saved):
    return validate("--model", saved)


def test_a_model_is_measured_as_by_torch(validate, saved, expected):
    assert (expected["backend"], expected["precision"]) == ("torch", "float32")
    row = validate("--model", saved, "--backend", "openvino", "-b", "7")
    assert compared(row) == compared(expected) and row["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    assert (row["backend"], row["precision"], row["batch_size"]) == ("openvino", "float32", 7)
    assert row["param_count"] == expected["param_count"]


@pytest.mark.parametrize("name", ["any", "one"])
def test_an_export_is_measured_as_its_model(validate, exports, expected, name):
    row = validate("--model", exports / name, "-b", "7", "--img-size", "32")
    assert compared(row) == compared(expected) and row["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    assert (row["model"], row["backend"]) == (str(exports / name), "openvino")
    assert compared(validate("--model", f"local-dir:{exports / name}", "--backend", "auto")) == compared(expected)


def test_images_that_cannot_be_read_do_not_matter(digits, saved, tmp_path):
    shutil.copytree(digits / "validation", tmp_path / "data" / "validation")
    for name in ("one", "two"):
        (tmp_path / "data" / "validation" / name / "16.png").write_bytes(b"no image")
    rows = []
    for backend in ("torch", "openvino"):
        out = tmp_path / f"{backend}.json"
        assert main(["validate", str(tmp_path / "data"), "-j", "0", "--model", saved, "-b", "6", "--backend", backend,
                     "--results-file", str(out)]) == 0
        rows += json.loads(out.read_text())
    assert compared(rows[0]) == compared(rows[1]) and rows[0]["images"] == 18


def test_labels_are_matched_by_the_export_s_names(digits, validate, model, tmp_path, expected, capsys):
    order = [2, 0, 3, 1]
    other = copy.deepcopy(model)
    other.fc.weight.copy_(model.fc.weight[order])
    other.fc.bias.copy_(model.fc.bias[order])
    mvlib.export(save(other, tmp_path / "saved", [sorted(NAMES)[i] for i in order]), tmp_path / "export")
    row = validate("--model", tmp_path / "export")
    assert compared(row) == compared(expected) and row["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    mvlib.export(save(other, tmp_path / "alien", ["a", "b", "c", "d"]), tmp_path / "other")
    assert main(["validate", str(digits), "-j", "0", "--model", str(tmp_path / "other")]) == 2
    assert "the model's classes are not the data set's: only the model has 'a', 'b'" in capsys.readouterr().err


def test_inference(digits, saved, exports, tmp_path):
    rows = []
    for number, flags in enumerate((["--model", saved],
                                    ["--model", str(exports / "any")],
                                    ["--model", saved, "--backend",
                                     "openvino"])):
        out = tmp_path / f"{number}.csv"
        assert main(["inference", str(digits), "-j", "0", "-b", "7", *flags, "--label-type", "name", "--results-file",
                     str(out)]) == 0
        rows.append(list(csv.DictReader(open(out))))
    assert len(rows[0]) == 20 and len({row["index"] for row in rows[0]}) > 1
    for found in rows[1:]:
        assert [(row["filename"], row["index"]) for row in found] == \
            [(row["filename"], row["index"]) for row in rows[0]]
        assert [float(row["prob"]) for row in found] == pytest.approx([float(row["prob"]) for row in rows[0]], rel=1e-3)
    assert {row["label"] for row in rows[1]} <= set(NAMES)


def test_auto_goes_on_with_torch_and_says_why(validate, saved, expected, monkeypatch, capsys):
    monkeypatch.setenv("MVLIB_ENGINES", "on")
    monkeypatch.setattr(pipeline, "is_installed", lambda package: False)
    row = validate("--model", saved, "--backend", "auto")
    assert compared(row) == compared(expected) and row["backend"] == "torch"
    assert "no library for it is installed: pip install 'mvlib[openvino]'" in capsys.readouterr().err


def test_a_missing_package(digits, monkeypatch, capsys):
    monkeypatch.setattr("mvlib.engines.runtime.is_installed", lambda package: False)
    assert main(["validate", str(digits), "--model", "test_resnet", "--backend", "onnxruntime"]) != 0
    assert "pip install 'mvlib[onnx]'" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "flags", "text"), [
    ("any", ["--checkpoint", __file__], "is an export, with its weights and its form: leave out --checkpoint"),
    ("any", ["--no-pretrained"], "leave out --no-pretrained"),
    ("any", ["--num-classes", "5"], "leave out --num-classes"),
    ("any", ["--in-chans", "1"], "leave out --in-chans"),
    ("any", ["--model-kwargs", "stem_type=deep"], "leave out --model-kwargs"),
    ("any", ["--img-size", "64"], "takes images of 32 x 32, not 64 x 64: leave out --img-size, or export"),
    ("any", ["--backend", "torch"], "is an export for openvino, which torch does not run"),
    ("any", ["--backend", "onnxruntime"], "is an export for openvino, which onnxruntime does not run"),
    ("any", ["--amp"], "--amp is torch's, and an engine runs no torch: --precision bfloat16"),
    ("any", ["--torchcompile"], "--torchcompile is torch's"),
    ("any", ["--device", "cuda"], "engines run on the CPU, not on cuda"),
    ("any", ["--precision", "int8"], "is an export in float32, and cannot compute in int8"),
    ("features", [], "is an export of features .'pooled'., which has no classes to measure"),
])
def test_what_an_export_cannot(digits, saved, exports, monkeypatch, capsys, name, flags, text):
    monkeypatch.setattr(evaluation, "find_device", lambda name: torch.device(name or "cpu"))
    assert main(["validate", str(digits), "-j", "0", "--model", str(exports / name), *flags]) == 2
    assert re.search(text, capsys.readouterr().err)


@pytest.mark.parametrize(("flags", "text"), [
    (["--precision", "bfloat16"],
     "--precision bfloat16 is computed by engines: give --backend openvino, or with torch --amp"),
    (["--precision", "int8"], "--precision int8 is computed by engines: give --backend openvino\n"),
    (["--backend", "openvino", "--calibrate", "."], "--calibrate goes with --precision int8 of a model"),
    (["--backend", "openvino", "--precision", "int8", "--calibrate", "nowhere"], "there is no folder nowhere"),
    (["--backend", "openvino", "--amp"], "--amp is torch's"),
    (["--backend", "openvino", "--device", "meta"], "engines run on the CPU, not on meta"),
])
def test_what_a_model_cannot(digits, saved, capsys, flags, text):
    assert main(["validate", str(digits), "-j", "0", "--model", saved,
                 *flags]) == 2
    assert text in capsys.readouterr().err


def test_an_export_of_other_classes(digits, tmp_path, capsys):
    model = mvlib.create_model("test_resnet", pretrained=False, num_classes=5)
    mvlib.export(model, tmp_path / "export")
    assert main(["validate", str(digits), "-j", "0", "--model", str(tmp_path / "export")]) == 2
    assert "test_resnet has 5 classes and the data set 4" in capsys.readouterr().err


def test_grey_images(tmp_path):
    for label in ("a", "b"):
        path = tmp_path / "data" / "validation" / label / "1.png"
        path.parent.mkdir(parents=True)
        Image.new("L", (40, 40), 40 if label == "a" else 200).save(path)
    model = mvlib.create_model("test_resnet", pretrained=False, num_classes=2, in_chans=1)
    mvlib.export(model, tmp_path / "export")
    out = tmp_path / "r.json"
    assert main(["validate", str(tmp_path / "data"), "-j", "0", "--model", str(tmp_path / "export"), "--results-file",
                 str(out)]) == 0
    assert json.loads(out.read_text())[0]["images"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], pytest.param(["--calibrate", "TRAIN"], marks=pytest.mark.slow)])
def test_int8(digits, validate, saved, expected, capsys, flags):
    pytest.importorskip("nncf")
    flags = [str(digits / "train") if flag == "TRAIN" else flag for flag in flags]
    row = validate("--model", saved, "--backend", "openvino", "--precision", "int8", *flags)
    assert (row["backend"], row["precision"], row["images"]) == ("openvino", "int8", 20)
    assert 1e-4 < abs(row["loss"] - expected["loss"]) < 0.1 * expected["loss"]
    count = int(re.search(r"calibrated on (\d+) pictures", capsys.readouterr().err)[1])
    assert count == 20 if not flags else count > 20
