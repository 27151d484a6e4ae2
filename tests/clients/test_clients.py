"""Other people's packages on timm's face: the same weights and inputs give what they give on timm, and what either
saves the other reads.

    pip install 'mvlib[test,clients]' && pytest -m slow tests/clients
"""

from __future__ import annotations

import importlib.util
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.slow

TOLERANCE = 1e-5  # of the largest value
CLIENTS = {"anomalib": "anomalib", "effdet": "effdet", "fastai": "fastai", "grad_cam": "pytorch_grad_cam",
           "lightly": "lightly", "open_clip": "open_clip", "smp": "segmentation_models_pytorch",
           "transformers": "transformers"}


def run(client: str, face: bool, write: Path, read: Path | None = None) -> dict[str, Any]:
    """The answers of a client's script, with the face in timm's place or with timm."""
    script = Path(__file__).with_name(f"use_{client}.py")
    command = [sys.executable, *(["-m", "mvlib.timm"] if face else []), script, write, *([read] if read else [])]
    done = subprocess.run(command, cwd=write.parent, capture_output=True, text=True,
                          env=dict(os.environ, HF_HUB_OFFLINE="1", MVLIB_ENGINES="off", OMP_NUM_THREADS="1"))
    assert done.returncode == 0, done.stderr[-4000:]
    found = torch.load(write / "answers.pt", weights_only=False)
    assert found["timm"] == ("mvlib.timm" if face else "timm")
    return found


def differences(a: Any, b: Any, at: str = "") -> dict[str, float]:
    """{where: the largest difference there, of the largest value}; infinite where a value or the structure is
    another."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if a.shape != b.shape or a.dtype != b.dtype:
            return {at: math.inf}
        if torch.equal(a, b):
            return {at: 0.0}
        if not a.is_floating_point() or not (torch.isfinite(a).all() and torch.isfinite(b).all()):
            return {at: math.inf}
        return {at: float((a.double() - b.double()).abs().max() / a.double().abs().max())}
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return {where: value for key in a for where, value in differences(a[key], b[key], f"{at}.{key}").items()}
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        return differences(dict(enumerate(a)), dict(enumerate(b)), at)
    return {at: 0.0 if a == b else math.inf}


def difference(a: Any, b: Any) -> float:
    return max(differences(a, b).values(), default=0.0)


def compare(client: str, folder: Path) -> dict[str, float | str]:
    """{case: the largest difference of both exchanges, or how it failed}: timm's files read here, and ours there."""
    theirs = run(client, False, folder / "timm")
    ours = run(client, True, folder / "face", folder / "timm")
    back = run(client, False, folder / "back", folder / "face")
    found: dict[str, float | str] = {}
    for name, wanted in theirs["answers"].items():
        answers = [wanted, ours["answers"][name], back["answers"][name]]
        failures = [answer for answer in answers if isinstance(answer, str)]
        found[name] = failures[0] if failures else max(difference(wanted, answer) for answer in answers[1:])
    return found


@pytest.mark.parametrize("client", CLIENTS)
def test_client_answers_as_on_timm_and_files_are_exchanged(client, tmp_path):
    if importlib.util.find_spec(CLIENTS[client]) is None:
        pytest.skip(f"{CLIENTS[client]} is not installed: pip install 'mvlib[clients]'")
    found = compare(client, tmp_path)
    assert found
    for name, result in found.items():
        print(f"{client} {name}: {result}")
    wrong = {name: result for name, result in found.items()
             if isinstance(result, str) or not result <= TOLERANCE}
    assert not wrong, "\n\n".join(f"{name}: {result}" for name, result in wrong.items())


def test_a_difference_is_seen():
    one = {"a": [torch.ones(3), 1]}
    assert difference(one, {"a": [torch.ones(3), 1]}) == 0
    assert difference(one, {"a": [torch.tensor([1, 1, 1.5]), 1]}) == 0.5
    for other in ({"a": [torch.ones(3), 2]}, {"b": [torch.ones(3), 1]}, {"a": [torch.ones(4), 1]},
                  {"a": [torch.ones(3)]}, {"a": [torch.ones(3) * math.nan, 1]}):
        assert difference(one, other) == math.inf
