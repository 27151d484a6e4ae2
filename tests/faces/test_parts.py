"""timm's blocks and functions by timm's paths: the same arguments, state dict, initial values and outputs as timm's."""

import importlib
import inspect
import pkgutil
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from tests.parity import harness

from . import parts
from .parts.case import leaves, named

CASES = [case for info in pkgutil.iter_modules(parts.__path__) if info.name != "case"
         for case in importlib.import_module(f"{parts.__name__}.{info.name}").CASES]
ROOTS = ("mvlib.timm", "timm")
PLACES = ("device", "dtype")


@pytest.mark.sample(3)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.path.removeprefix("models."))
def test_it_is_timms(case):
    results = []
    for root in ROOTS:
        torch.manual_seed(0)
        results.append(case.result(root))
    if isinstance(results[1], nn.Module) and case.inputs is not None:
        compare_modules(*results, case)
    else:
        assert isinstance(results[0], nn.Module) == isinstance(results[1], nn.Module)
        compare(*results)


def compare_modules(ours, theirs, case):
    report, inputs = harness.Report(case.path), case.made_inputs()
    harness._compare_layouts(report, "", harness._layout(ours), harness._layout(theirs))
    if case.init:
        harness.check_init(report, ours, theirs)
    assert report.problems == []
    harness.randomize(theirs, inputs)
    ours.load_state_dict(theirs.state_dict())
    ours.eval(), theirs.eval()  # some of timm's return None
    with torch.inference_mode():
        compare(ours(*inputs), theirs(*inputs))


def compare(ours, theirs):
    for own, other in zip(leaves(ours), leaves(theirs), strict=True):
        if isinstance(other, Tensor):
            assert own.shape == other.shape and own.dtype == other.dtype
            assert harness.relative_difference(own, other) < harness.TOLERANCE
        elif isinstance(other, nn.Module):
            assert type(own).__name__ == type(other).__name__
        else:
            assert default(own) == default(other)


@pytest.mark.parametrize("path", sorted({case.path for case in CASES}))
def test_signature_is_timms(path):
    """Arguments, their order and defaults; those of torch for places are keywords here."""
    ours, theirs = (inspect.signature(named(root, path)).parameters for root in ROOTS)
    excused = {name for case in CASES if case.path == path for name in case.other_defaults.split()}
    wanted = [p for p in theirs.values() if p.name not in PLACES and p.kind is not p.VAR_KEYWORD]
    found = [p for p in ours.values() if p.name not in PLACES and p.kind is not p.VAR_KEYWORD][:len(wanted)]
    assert [p.name for p in found] == [p.name for p in wanted]
    assert all(name in ours for name in PLACES if name in theirs)
    others = [p.name for p, expected in zip(found, wanted) if default(p.default) != default(expected.default)]
    assert sorted(others) == sorted(excused)


def default(value):
    """What can be compared of two libraries' values: their classes and functions by name."""
    if isinstance(value, partial):
        return default(value.func), leaves(value.args), leaves(value.keywords)
    return getattr(value, "__name__", value)
