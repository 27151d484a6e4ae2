"""RepGhost: options, branches that become one convolution, files with and without branches."""

import copy
from functools import partial

import pytest
import torch
from timm.models import repghost as timms
from torch.testing import assert_close

import mvlib
from mvlib.layers import reparameterize
from mvlib.loading import load_weights
from mvlib.models.repghost import RepGhostModule, RepGhostNet, repghost_model_convert
from tests.parity import harness

from .pairs import assert_same_models, pair_of

CFGS = (((3, 8, 16, 0, 1),), ((3, 24, 24, 0, 2),), ((5, 36, 40, 0.25, 2), (5, 60, 40, 0.25, 1)), ((3, 64, 48, 0, 1),))
BUILD_TIMM, BUILD_OURS = partial(timms.RepGhostNet, CFGS), partial(RepGhostNet, CFGS)


@pytest.mark.parametrize("reparam", [True, False])
def test_arguments_have_timms_effect(reparam):
    assert_same_models(BUILD_TIMM, BUILD_OURS, (70, 90), reparam=reparam, width=1.3, in_chans=5, global_pool="max")


def test_branches_are_merged_as_timm_merges_them():
    model, theirs, x = pair_of(BUILD_TIMM, BUILD_OURS)
    expected, merged = model(x), copy.deepcopy(model)
    assert reparameterize(merged) == 10 == sum(isinstance(m, RepGhostModule) for m in model.modules())
    assert harness.relative_difference(merged(x), expected) < 1e-5
    assert reparameterize(merged) == 0 and not merged.training
    theirs.convert_to_deploy()
    assert_close(dict(merged.state_dict()), dict(theirs.state_dict()), rtol=1e-4, atol=1e-5)

    optimized, report = mvlib.optimize(model, x, compile="off")
    assert report["reparameterize"].done and harness.relative_difference(optimized(x), expected) < 1e-4
    assert torch.equal(model(x), expected)


def test_converting_copies_and_saves(tmp_path):
    model, _, x = pair_of(BUILD_TIMM, BUILD_OURS)
    keys = model.state_dict().keys()
    merged = repghost_model_convert(model, tmp_path / "merged.pth")
    assert model.state_dict().keys() == keys
    assert_close(torch.load(tmp_path / "merged.pth"), merged.state_dict(), rtol=0, atol=0)
    assert repghost_model_convert(model, do_copy=False) is model and torch.equal(model(x), merged(x))


def test_files_of_merged_models_fit_models_with_branches():
    model, _, x = pair_of(BUILD_TIMM, BUILD_OURS)
    merged = repghost_model_convert(model)
    fresh, fresh_merged = BUILD_OURS().eval(), repghost_model_convert(BUILD_OURS().eval())
    for loaded in (fresh, fresh_merged):
        load_weights(loaded, dict(merged.state_dict()))
        assert harness.relative_difference(loaded(x), model(x)) < 1e-5


def test_bad_arguments_are_named():
    with torch.device("meta"), pytest.raises(ValueError, match="output_stride is 32 for a RepGhostNet, not 16"):
        RepGhostNet(output_stride=16)
