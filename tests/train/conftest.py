"""A small set of real images, and runs of `mvlib train` on it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from mvlib.cli import main

NAMES = ("zero", "one", "two", "three")


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """Four classes of handwritten digits: train/ with 16 of each, validation/ with 5."""
    folder = tmp_path_factory.mktemp("digits")
    data = load_digits()
    for label, name in enumerate(NAMES):
        for number, index in enumerate(np.flatnonzero(data.target == label)[:21]):
            path = folder / ("train" if number < 16 else "validation") / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray((data.images[index] * 15.9).astype(np.uint8)).resize((24, 24))
            image.convert("RGB").save(path)
    return folder


QUICK = ("--model test_resnet --img-size 32 -b 8 --epochs 2 --lr 0.02 --warmup-epochs 0 -j 0 --no-export "
         "--log-interval 1").split()


@pytest.fixture
def start(digits, tmp_path):
    """Start `mvlib train` in a process of its own; the run's folder is tmp_path / experiment."""
    started = []

    def start(*flags: str, experiment: str = "run", data: Path = digits, launcher: tuple[str, ...] = (),
              environment: dict | None = None, **options) -> subprocess.Popen:
        script = [str(Path(__file__).parents[2] / "scripts" / "train.py")] if launcher else ["-m", "mvlib", "train"]
        command = [sys.executable, *launcher, *script, str(data), *QUICK, "--output", str(tmp_path), "--experiment",
                   experiment, *flags]
        threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **(environment or {})}
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                        env={**os.environ, **threads}, **options))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()  # torchrun ends its processes, too
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture
def run(start):
    """`start`, and wait: (exit status, what was printed)."""
    def run(*flags: str, **options) -> tuple[int, str]:
        process = start(*flags, **options)
        text, _ = process.communicate(timeout=600)
        return process.returncode, text

    return run


@pytest.fixture
def run_here(digits, tmp_path, capsys):
    """The same in this process, several seconds faster."""
    def run_here(*flags: str, experiment: str = "run", data: Path = digits) -> tuple[int, str]:
        status = main(["train", str(data), *QUICK, "--output", str(tmp_path), "--experiment", experiment, *flags])
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return run_here
