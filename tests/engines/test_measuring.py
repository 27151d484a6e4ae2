"""`mvlib benchmark` and `mvlib compare` of engines: which rows there are, and of what they say they are."""

import csv
import json

import pytest
from PIL import Image

import mvlib
from mvlib.benchmark import benchmark_models
from mvlib.cli import main
from mvlib.compare import compare_models
from mvlib.errors import ConfigError

pytest.importorskip("openvino")
QUICK = dict(seconds=0.05, batch_sizes=(1, 2))


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    model = mvlib.create_model("test_resnet", pretrained=False, num_classes=4)
    folder = tmp_path_factory.mktemp("exports") / "resnet.ov"
    mvlib.export(model, folder)
    return str(folder)


def test_backends_of_a_model():
    found = benchmark_models("test_resnet", backends=("torch", "openvino"), img_size=64, **QUICK)
    assert [(row.task, row.mode, row.backend, row.batch_size) for row in found] == [
        ("inference", "eager", "torch", 1), ("inference", "eager", "torch", 2),
        ("inference", "optimized", "openvino", 1), ("inference", "optimized", "openvino", 2),
        ("training", "eager", "torch", 2)]
    assert all(row.error is None and row.latency_ms > 0 for row in found)
    assert "test_resnet, inference, openvino, float32, cpu, batch 1: " in str(found[2])
    assert found[0].peak_memory_mib and found[2].peak_memory_mib is None


def test_an_export_is_timed_as_it_is(export):
    found = benchmark_models([export, "test_resnet"], precisions=("float32",), **QUICK)
    own = [row for row in found if row.model == export]
    assert [(row.task, row.backend, row.precision, row.img_size, row.batch_size, row.error) for row in own] == [
        ("inference", "openvino", "float32", 160, batch_size, None) for batch_size in (1, 2)]
    row, _ = benchmark_models(export, img_size=64, **QUICK)
    assert "images of batch x 3 x 160 x 160, not" in row.error
    with pytest.raises(ConfigError, match="there is nothing to measure"):
        benchmark_models(export, tasks=("training",), **QUICK)


def test_auto_says_what_it_came_to(monkeypatch):
    monkeypatch.setenv("MVLIB_ENGINES", "on")
    monkeypatch.setattr("mvlib.optimization.pipeline.is_installed", lambda package: False)
    row, _ = benchmark_models("test_resnet", tasks=("inference",), backends=("auto",), img_size=64, **QUICK)
    assert (row.mode, row.backend, row.error) == ("optimized", "torch", None)


def test_an_unknown_backend():
    with pytest.raises(ConfigError, match="unknown backend 'tensorrt'; known: auto, torch, openvino, onnxruntime"):
        benchmark_models("test_resnet", backends=("tensorrt",), **QUICK)


def test_the_command(export, tmp_path, capsys):
    out = tmp_path / "r.csv"
    assert main(["benchmark", export, "test_resnet", "--bench", "inference", "--backend", "torch", "--backend",
                 "openvino", "-b", "1", "--seconds", "0.05", "--results-file", str(out)]) == 0
    rows = list(csv.DictReader(open(out)))
    assert [(row["model"], row["backend"]) for row in rows] == [
        (export, "openvino"), ("test_resnet", "torch"), ("test_resnet", "openvino")]
    assert "backend" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["benchmark", "compare"])
def test_a_missing_package(command, monkeypatch, capsys):
    monkeypatch.setattr("mvlib.engines.runtime.is_installed", lambda package: False)
    assert main([command, "test_resnet", "--backend", "onnxruntime"]) != 0
    assert "pip install 'mvlib[onnx]'" in capsys.readouterr().err


def test_compare(export, monkeypatch):
    asked = []

    def measure(names, *, backends, **options):
        asked.append((list(names), backends))
        return []

    monkeypatch.setattr("mvlib.benchmark.benchmark_models", measure)
    own, other = compare_models([export, "test_resnet"], backend="openvino", devices=["cpu"], sort="model")
    assert asked == [([export, "test_resnet.r160_in1k"], ("openvino",))]
    assert (own.model, own.weights, own.size_from, own.img_size) == (export, export, "exported", 160)
    assert own.top1_err is None and own.note == "exported in float32: errors are measured with --data"
    assert other.note == "no published ImageNet-1K accuracy"


def test_compare_measures_an_export(export, tmp_path, capsys):
    for label in range(4):
        path = tmp_path / "data" / "validation" / str(label) / "1.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (40, 40), (60 * label, 20, 90)).save(path)
    out = tmp_path / "r.json"
    assert main(["compare", export, "--data", str(tmp_path / "data"), "-j", "0", "--seconds", "0.05",
                 "--results-file", str(out)]) == 0
    row, = json.loads(out.read_text())["results"]
    assert row["top1_err"] in (0, 25, 50, 75, 100) and row["cpu_ms"] > 0
