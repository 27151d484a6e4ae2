"""`mvlib compare`."""

import csv
import json
import sys

import pytest
import torch
from PIL import Image
from torch import nn

import mvlib
from mvlib.benchmark import describe_machine, machine_line
from mvlib.cli import main


def run(capsys, *arguments):
    status = main(["compare", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


QUICK = ("--seconds", 0.02)


class Colour(nn.Module):
    """Tells red (1) from blue (0) images, and is small."""

    in_chans, num_classes = 3, 2

    def __init__(self, sign=1.0):
        super().__init__()
        self.fc = nn.Linear(3, 2, bias=False)
        with torch.no_grad():
            self.fc.weight.copy_(sign * torch.tensor([[-1.0, 0.0, 1.0], [1.0, 0.0, -1.0]]))

    def forward(self, x):
        return self.fc(x.mean((2, 3)))


@pytest.fixture
def colours(fresh_registry, tmp_path):
    """A data set of red and blue images, one of them among the others, and two models with weights for it."""
    for folder, colour, count in (("blue", (0, 0, 255), 3), ("red", (255, 0, 0), 4), ("red", (0, 0, 200), 1)):
        path = tmp_path / "photos" / "validation" / folder
        path.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.new("RGB", (40, 32), colour).save(path / f"{colour[2]}_{i}.png")
    for name, sign in (("colour", 1.0), ("wrong_colour", -1.0)):
        torch.save(Colour(sign).state_dict(), tmp_path / f"{name}.pth")
        weights = {"photos": {"sources": [f"file:{tmp_path / name}.pth"], "num_classes": 2, "crop_pct": 1.0,
                              "input_size": [3, 32, 32]}}
        mvlib.register_model(lambda **kwargs: Colour(0.0), name=name, weights=weights)
    return tmp_path / "photos"


def test_the_table(capsys):
    status, out, err = run(capsys, "alexnet", "squeezenet1_1", "efficientnet_b0.imagenet1k_v1", *QUICK)
    lines = out.splitlines()
    assert status == 0
    assert lines[0].split() == ["model", "top-1", "err", "top-5", "err", "CPU", "ms", "MiB", "M", "params", "GMACs",
                                "px", "front"]
    assert [line.split()[0] for line in lines[1:4]] == ["efficientnet_b0.imagenet1k_v1", "squeezenet1_1", "alexnet"]
    assert lines[3].split()[1:3] == ["43.48", "20.93"] and lines[3].split()[4:8] == ["233.1", "61.10", "0.71", "224"]
    assert lines[1].split()[-1] == "*"  # nothing has a lower error
    assert machine_line(describe_machine()) in out
    assert "Errors: published, ImageNet-1K. Times: median, one image at a time, float32. Sizes: weights file." in out
    assert "alexnet.imagenet1k_v1, inference, eager, float32, cpu, batch 1: " in err


def test_a_model_without_metrics_is_listed_with_a_note(fresh_registry, capsys, tmp_path):
    mvlib.register_model(lambda **kwargs: Colour(), name="mine")
    page = tmp_path / "report.html"
    status, out, _ = run(capsys, "mine", "squeezenet1_1", "--html", page, *QUICK)
    lines = out.splitlines()
    assert status == 0
    assert lines[1].split()[0] == "squeezenet1_1"
    assert lines[2].startswith("mine  ") and len(lines[2].split()) == 6  # name, time, size, parameters, GMACs, pixels
    assert "mine: no published weights" in lines
    assert "Not in the chart, for want of an error or a time: mine." in page.read_text()


def test_formats(capsys, tmp_path):
    out = run(capsys, "squeezenet1_0", "squeezenet1_1", "--format", "json", "--sort", "model",
              "--results-file", tmp_path / "results.csv", *QUICK)[1]
    found = json.loads(out)
    assert found["machine"] == describe_machine()
    assert [row["model"] for row in found["results"]] == ["squeezenet1_0", "squeezenet1_1"]
    assert found["results"][0]["weights"] == "squeezenet1_0.imagenet1k_v1"
    with open(tmp_path / "results.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["top1_err"]) for row in rows] == [41.908, 41.822]
    assert float(rows[0]["cpu_ms"]) == found["results"][0]["cpu_ms"]
    out = run(capsys, "squeezenet1_1", "--format", "markdown", *QUICK)[1]
    assert "| model | top1_err | top5_err | cpu_ms |" in out


def test_chart_and_page(capsys, tmp_path):
    picture, page = tmp_path / "bubble.png", tmp_path / "report.html"
    names = ("alexnet", "squeezenet1_*", "shufflenet_v2_x1_0")
    status, *_ = run(capsys, *names, "--plot", picture, "--html", page, *QUICK)
    assert status == 0
    with Image.open(picture) as image:
        assert image.format == "PNG" and min(image.size) > 900
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 22)}
    assert any(blue > red + 100 for red, _, blue in colours)  # the front
    text = page.read_text()
    assert text.startswith("<!DOCTYPE html>") and all(name in text for name in ("alexnet", "shufflenet_v2_x1_0"))
    run(capsys, "alexnet", "--plot", tmp_path / "bubble.svg", *QUICK)
    assert "<svg" in (tmp_path / "bubble.svg").read_text()


def test_errors_measured_on_a_data_set(colours, capsys, hub):
    status, out, err = run(capsys, "colour", "wrong_colour", "resnet18.tv_in1k", "--data", colours, "--workers", 0,
                           "--format", "json", *QUICK)
    rows = {row["model"]: row for row in json.loads(out)["results"]}
    assert status == 0
    assert (rows["colour"]["top1_err"], rows["wrong_colour"]["top1_err"]) == (12.5, 87.5)
    assert rows["resnet18.tv_in1k"]["top1_err"] is None  # the hub has no such weights
    assert rows["resnet18.tv_in1k"]["note"].startswith("not measured: ") and rows["resnet18.tv_in1k"]["cpu_ms"] > 0
    assert "colour: top-1 error 12.50 %" in err
    assert "Errors: measured on photos." in run(capsys, "colour", "--data", colours, "--workers", 0, *QUICK)[1]


@pytest.mark.parametrize(("arguments", "text"), [
    (["resnet5o"], "mvlib: unknown architecture 'resnet5o'; did you mean 'resnet50'"),
    (["alexnet", "resnet50.a1"], "mvlib: unknown tag 'a1' of the architecture 'resnet50'"),
    (["nothing_*"], "mvlib: no model with weights matches 'nothing_*'"),
    (["alexnet", "--plot", "{tmp}/none/bubble.png"],
     "mvlib: {tmp}/none/bubble.png cannot be written: there is no folder {tmp}/none"),
    (["alexnet", "--html", "{tmp}/folder"], "mvlib: {tmp}/folder cannot be written: it is a folder"),
    (["alexnet", "--results-file", "{tmp}/none/x.csv"], "cannot be written: there is no folder {tmp}/none"),
    (["alexnet", "--results-file", "{tmp}/x.txt"], "mvlib: results cannot be written as 'txt'; known: csv, json, md"),
    (["alexnet", "--data", "{tmp}/none"], "mvlib: --data: there is no folder {tmp}/none"),
    (["alexnet", "--plot", "{tmp}/x.jpg"], "mvlib: --plot draws .png, .svg, .pdf, and '{tmp}/x.jpg' ends in none of"),
])
def test_bad_input(arguments, text, capsys, tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr("mvlib.compare._time", None)  # refused before the work begins
    status, out, err = run(capsys, *(argument.replace("{tmp}", str(tmp_path)) for argument in arguments))
    assert (status, out) == (2, "")
    assert text.replace("{tmp}", str(tmp_path)) in err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpu_times_need_a_gpu(capsys):
    status, _, err = run(capsys, "alexnet", "--plot-time", "gpu")
    assert (status, err) == (2, "mvlib: --plot-time gpu needs a GPU, and torch finds none\n")


def test_a_chart_needs_matplotlib(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    monkeypatch.setattr("mvlib.compare._time", None)
    status, _, err = run(capsys, "alexnet", "--plot", tmp_path / "x.png")
    assert (status, err) == (2, "mvlib: --plot needs the package 'matplotlib': pip install matplotlib (or pip install "
                                "'mvlib[plot]')\n")
