"""timm's own scripts on timm's face: from one state, seed and folder of images they train, measure and write what they
do with timm.

    TIMM_SCRIPTS=pytorch-image-models pytest -m slow tests/clients/test_timm_scripts.py

The folder is a checkout of timm, or any other with its scripts in it.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

SEEDED = Path(__file__).with_name("seeded.py")
SCRIPTS = os.environ.get("TIMM_SCRIPTS")
pytestmark = [pytest.mark.slow,
              pytest.mark.skipif(not SCRIPTS, reason="TIMM_SCRIPTS names no folder with timm's scripts")]

TOLERANCE = 1e-3  # relative, of summary.csv: training on batch statistics makes much of the last bits
CLASSES = ("ant", "bee", "cat")
CONV = ["--model", "test_resnet", "--img-size", "64"]
VIT = ["--model", "test_vit", "--img-size", "64", "--model-kwargs", "img_size=64"]
OPTIONS = {
    "mixup and cutmix": [*CONV, "--mixup", "0.4", "--cutmix", "1.0"],
    "mixup without prefetcher, by sample": [*CONV, "--mixup", "0.4", "--mixup-mode", "elem", "--no-prefetcher"],
    "ema": [*CONV, "--model-ema", "--model-ema-decay", "0.9"],
    "channels last": [*CONV, "--channels-last"],
    "step": [*CONV, "--sched", "step", "--decay-epochs", "1"],
    "plateau": [*CONV, "--sched", "plateau", "--eval-metric", "loss", "--patience-epochs", "0"],
    "poly, by update": [*CONV, "--sched", "poly", "--sched-on-updates", "--grad-accum-steps", "2"],
    "layer decay": [*VIT, "--opt", "adamw", "--lr", "1e-3", "--layer-decay", "0.75"],
    "lamb": [*CONV, "--opt", "lamb", "--clip-grad", "1.0"],
    "lion": [*CONV, "--opt", "lion", "--lr", "1e-4", "--smoothing", "0"],
    "binary cross-entropy": [*CONV, "--bce-loss", "--bce-target-thresh", "0.2"],
}


def run(face: bool, script: str, *arguments: str | Path, folder: Path) -> str:
    """What timm's script prints, run in `folder` with the face in timm's place or with timm."""
    assert SCRIPTS
    path = Path(SCRIPTS).resolve() / script
    if not path.is_file():
        pytest.skip(f"no {script} in {SCRIPTS}")
    command = [sys.executable, *(["-m", "mvlib.timm"] if face else []), SEEDED, path, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True,
                          env=dict(os.environ, HF_HUB_OFFLINE="1", MVLIB_ENGINES="off", OMP_NUM_THREADS="1"))
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Three classes of eight JPEGs in `train` and in `validation`: coarse noise, in a class's colour."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for split in ("train", "validation"):
        for index, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for number in range(8):
                pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                pixels[..., index] = 220
                size = (64 + 8 * (number % 2), 64)
                image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
                image.save(folder / split / name / f"{number}.jpg")
    return folder


def initial(options: list[str], folder: Path) -> Path:
    """A state to start from, timm's."""
    import timm

    torch.manual_seed(0)
    size = {"img_size": 64} if "vit" in options[1] else {}
    torch.save(timm.create_model(options[1], num_classes=len(CLASSES), **size).state_dict(), folder / "initial.pth")
    return folder / "initial.pth"


def train(face: bool, images: Path, start: Path, options: list[str], folder: Path, *more: str | Path) -> Path:
    """The folder that train.py has filled: checkpoints, summary.csv."""
    folder.mkdir(exist_ok=True)
    run(face, "train.py", "--data-dir", images, "--device", "cpu", "--num-classes", str(len(CLASSES)), "-b", "4", "-j",
        "0", "--no-aug", "--lr", "1e-3", "--warmup-epochs", "1", "--log-interval", "1", "--epochs", "2",
        "--initial-checkpoint", start, "--output", folder, "--experiment", "run", *options, *more, folder=folder)
    return folder / "run"


def summary(folder: Path) -> list[dict[str, float]]:
    with open(folder / "summary.csv") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def assert_same(wanted: list[dict[str, float]], found: list[dict[str, float]]) -> None:
    assert [list(row) for row in found] == [list(row) for row in wanted] and wanted
    for row, other in zip(wanted, found, strict=True):
        assert other == pytest.approx(row, rel=TOLERANCE)


@pytest.mark.parametrize("name", OPTIONS)
def test_training_goes_as_with_timm(images, tmp_path, name):
    start = initial(OPTIONS[name], tmp_path)
    theirs, ours = (train(face, images, start, OPTIONS[name], tmp_path / str(face)) for face in (False, True))
    assert_same(summary(theirs), summary(ours))


@pytest.fixture(scope="module")
def runs(images, tmp_path_factory) -> dict[bool, Path]:
    """{face: what a run of two epochs with a moving average has left}."""
    folder = tmp_path_factory.mktemp("runs")
    start = initial(CONV, folder)
    return {face: train(face, images, start, [*CONV, "--model-ema"], folder / str(face)) for face in (False, True)}


@pytest.mark.parametrize("written", [False, True], ids=["timm's", "ours"])
def test_a_run_goes_on_from_either_side(images, runs, tmp_path, written):
    start = initial(CONV, tmp_path)
    options = [*CONV, "--model-ema", "--resume", str(runs[written] / "checkpoint-0.pth.tar")]
    theirs, ours = (train(face, images, start, options, tmp_path / str(face)) for face in (False, True))
    assert_same(summary(theirs), summary(ours))
    assert [row["epoch"] for row in summary(ours)] == [1]


def test_validation_says_what_timm_s_does(images, runs, tmp_path):
    for written in runs.values():
        measured = []
        for face in (False, True):
            run(face, "validate.py", images, "--model", "test_resnet", "--img-size", "64", "--num-classes", "3", "-j",
                "0", "--device", "cpu", "--checkpoint", written / "last.pth.tar", "-b", "5", "--use-ema",
                "--results-file", "measured.csv", folder=tmp_path)
            measured.append((tmp_path / "measured.csv").read_text())
        assert measured[0] == measured[1]
