"""Every family in the formats of other libraries: the same outputs, in batches of 1 and 5.

`python -m tests.engines.test_export_families [FAMILY ...]` prints a table of them.
"""

import copy
import sys
import tempfile
from pathlib import Path

import pytest
import torch

import mvlib
from mvlib.engines.subject import examples

from ..parity.harness import randomize
from ..parity.representatives import FIRST, REPRESENTATIVES

SOME = ("efficientnet",)  # in the default run, besides those of test_export.py
WRITTEN = ("openvino", "onnx")


def build(family):
    """A small model with random weights, none of which is without effect, and the size of its images."""
    name = FIRST[family]
    model = mvlib.create_model(name, pretrained=False, **REPRESENTATIVES[family][name])
    channels, *size = model.pretrained_cfg["input_size"]
    small = [min(side, 128) for side in size]
    if not model.img_size and takes(model, [channels, *small]):
        size = small
    # Norms take their statistics from what the outputs are compared on: elsewhere such a model multiplies rounding.
    images = examples(10, size, {**model.pretrained_cfg, "input_size": (channels, *size)})
    randomize(model, torch.from_numpy(images))
    return model, size


def takes(model, shape):
    """Whether images may have that size: patches may not divide it, attention be made for another."""
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(2, *shape))
    except ValueError:
        return False
    return True


@pytest.mark.sample(2)
@pytest.mark.parametrize("format", WRITTEN)
@pytest.mark.parametrize("family", [
    pytest.param(family, marks=() if family in SOME else pytest.mark.slow) for family in FIRST])
def test_same_outputs(family, format, tmp_path):
    model, size = build(family)
    report = mvlib.export(model, tmp_path / "out", format=format, img_size=size, force=True)
    assert report.difference <= 1e-4 or report.difference <= 4 * rounding(model, size), report
    assert report.measured["batches"] == [1, 5]


@torch.no_grad()
def rounding(model, size):
    """How far torch's own outputs in float32 are from those in float64: random weights multiply it."""
    images = torch.from_numpy(examples(5, size, model.pretrained_cfg))
    outputs, exact = model(images), copy.deepcopy(model).double()(images.double())
    return ((outputs - exact).abs().max() / exact.abs().max()).item()


def main(families):
    for family in families or FIRST:
        model, size = build(family)
        cells = []
        for format in WRITTEN:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    report = mvlib.export(model, Path(folder, "out"), format=format, img_size=size)
                    cells.append(f"{report.difference:.1e} {report.seconds['convert']:5.1f} s")
                except mvlib.MvlibError as error:
                    cells.append(str(error))
        print(f"{family:28}{FIRST[family]:36}{'  '.join(cells)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
