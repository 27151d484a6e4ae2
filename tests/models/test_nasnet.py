"""NASNet, made narrow, and PNASNet's cells beside timm's; the whole networks are compared in slow tests."""

import pytest
import torch
from timm.models import nasnet as their_nasnet
from timm.models import pnasnet as their_pnasnet
from torch import nn

import mvlib
from mvlib.models.nas_blocks import StemCell
from mvlib.models.nasnet import NASNetALarge
from mvlib.models.pnasnet import PnasCell, cell_sums
from tests.parity import harness

from .pairs import assert_same, image, pair_of

NARROW = dict(stem_size=8, num_features=192)


@pytest.mark.parametrize("kwargs", [{}, dict(pad_type="", num_classes=0, global_pool="catavgmax", in_chans=5)], ids=str)
def test_a_narrow_nasnet_is_timms(kwargs):
    ours, theirs, x = pair_of(their_nasnet.NASNetALarge, NASNetALarge, 45, **NARROW, **kwargs)
    assert_same(ours, theirs, x)
    with torch.inference_mode():
        for own, other in zip(*(model.forward_intermediates(x, intermediates_only=True) for model in (ours, theirs))):
            assert harness.relative_difference(own, other) < harness.TOLERANCE
        for indices in ([0], [1, 2]):
            final, maps = ours.forward_intermediates(x, indices, stop_early=True)
            assert torch.equal(final, maps[-1]) and len(maps) == len(indices)
    assert [tap["num_chs"] for tap in ours.feature_info] == [8, 8, 48, 96, 192]


def test_a_pruned_one_ends_with_its_tap():
    model = NASNetALarge(**NARROW).eval()
    x = image(45)
    expected = model.forward_intermediates(x, [2], intermediates_only=True)[0]
    model.prune_intermediate_layers([2])
    assert model.num_features == 48 and torch.equal(model(x), expected)
    assert not any("reduction" in name for name, _ in model.named_parameters())


class Pair(nn.Module):
    """A cell of two inputs as a module of one, the second being half or all of the first."""

    def __init__(self, cell, shrinks, order):
        super().__init__()
        self.cell, self.shrinks, self.order = cell, shrinks, order

    def forward(self, prev):
        inputs = (nn.functional.max_pool2d(prev, 2, ceil_mode=True) if self.shrinks else prev, prev)
        out = self.cell(*inputs[::self.order])
        return out[0] if isinstance(out, tuple) else out


@pytest.mark.parametrize(("reduces", "shrinks", "pad_type"), [
    (False, False, "same"), (True, True, ""), (True, False, "same")])
def test_pnasnets_cells_are_timms(reduces, shrinks, pad_type):
    theirs = Pair(their_pnasnet.Cell(6, 8, 6, 8, pad_type, reduces, shrinks), shrinks, -1)
    ours = Pair(PnasCell(6, 6, 8, reduces, shrinks, pad_type), shrinks, 1).eval()
    x = image(17, chans=6)
    harness.randomize(theirs, x)
    ours.load_state_dict(theirs.state_dict())
    assert_same(ours, theirs, x)


def test_pnasnets_stem_cell_is_timms():
    theirs = their_pnasnet.CellStem0(6, 8, 6, 8, "same")
    ours = StemCell(6, 8, cell_sums("maxconv", "conv"), range(5), "same").eval()
    x = image(17, chans=6)
    harness.randomize(theirs, x)
    ours.load_state_dict(theirs.state_dict())
    with torch.inference_mode():
        out, prev = ours(x)
        assert prev is x and harness.relative_difference(out, theirs(x)) < harness.TOLERANCE


@pytest.mark.parametrize("name", ["nasnetalarge", "pnasnet5large"])
def test_their_stride_is_32(name):
    with pytest.raises(ValueError, match="output_stride is 32 for a network of cells, not 8"):
        mvlib.model_entrypoint(name)(output_stride=8)
