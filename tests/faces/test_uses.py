"""Short scripts, one a kind of use, written as their users write them for timm and torchvision: run as they are with
the faces in their place, they say what they say there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ..clients.test_clients import TOLERANCE, differences

FOLDER = Path(__file__).with_name("uses")
HELPERS = {"all_of_them", "common", "models_under_test"}
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in HELPERS)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """[what each script says with the faces, and what with timm and torchvision]: two processes for all of them."""
    found = []
    for start in (["-m", "mvlib.timm"], []):
        folder = tmp_path_factory.mktemp("uses")
        command = [sys.executable, *start, FOLDER / "all_of_them.py", "results.pt", *SCRIPTS]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300,
                       env=dict(os.environ, OMP_NUM_THREADS="1"))
        found.append(torch.load(folder / "results.pt", weights_only=False))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_says_what_it_says_with_timm_and_torchvision(script, results):
    here, there = (found[script] for found in results)
    assert not isinstance(there, str), there
    assert not isinstance(here, str), here
    wrong = {where: value for where, value in differences(there, here).items() if not value <= TOLERANCE}
    assert not wrong


@pytest.mark.slow
def test_the_scripts_ran_with_the_faces(results):
    assert [found["module"] for found in results] == ["mvlib.timm", "timm"]
