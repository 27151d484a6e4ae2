"""GhostNet: versions and options, branches that become one convolution, files of the authors' V3."""

import copy
from functools import partial

import pytest
import torch
from safetensors.torch import save_file
from timm.models import ghostnet as timms
from torch.testing import assert_close

import mvlib
from mvlib.layers import reparameterize
from mvlib.models.ghostnet import GhostModuleV3, GhostNet
from tests.parity import harness

from .pairs import assert_same_models, pair_of

CFGS = (((3, 16, 16, 0, 1),), ((3, 48, 24, 0, 2),), ((5, 72, 40, 0.25, 2), (5, 120, 40, 0.25, 1)), ((3, 64, 48, 0, 1),))
BUILD_TIMM, BUILD_OURS = partial(timms.GhostNet, CFGS), partial(GhostNet, CFGS)


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
def test_arguments_have_timms_effect(version):
    assert_same_models(BUILD_TIMM, BUILD_OURS, (70, 90), version=version, width=1.3, in_chans=5, global_pool="avgmax")


def test_branches_are_merged_as_timm_merges_them():
    model, theirs, x = pair_of(BUILD_TIMM, BUILD_OURS, version="v3")
    expected, merged = model(x), copy.deepcopy(model)
    assert reparameterize(merged) == 5
    assert sum(isinstance(module, GhostModuleV3) and module.is_reparameterized for module in merged.modules()) == 10
    assert harness.relative_difference(merged(x), expected) < 1e-5
    assert reparameterize(merged) == 0 and not merged.training
    theirs.convert_to_deploy()
    assert_close(dict(merged.state_dict()), dict(theirs.state_dict()), rtol=1e-4, atol=1e-5)

    optimized, report = mvlib.optimize(model, x, compile="off")
    assert report["reparameterize"].done and harness.relative_difference(optimized(x), expected) < 1e-4
    assert torch.equal(model(x), expected)
    model.convert_to_deploy()
    assert torch.equal(model(x), merged(x))


def test_the_authors_files(tmp_path):
    """They name the branches' norms otherwise, and hold a profiler's counts."""
    source = mvlib.create_model("ghostnetv3_050", pretrained=False).state_dict()
    file = {key.replace(".bn1.", ".bn.") if "_rpr_" in key else key: value for key, value in source.items()}
    assert "blocks.1.0.dw_rpr_conv.0.bn.weight" in file and "blocks.9.0.bn1.weight" in file
    file |= {"total_ops": torch.zeros(1), "blocks.0.0.ghost1.total_params": torch.zeros(1)}
    assert timms.checkpoint_filter_fn(file, None).keys() == source.keys()
    save_file(file, tmp_path / "huawei.safetensors")
    model = mvlib.create_model("ghostnetv3_050", pretrained=False, checkpoint_path=tmp_path / "huawei.safetensors")
    assert_close(dict(model.state_dict()), dict(source), rtol=0, atol=0)


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(output_stride=16), "output_stride is 32 for a GhostNet, not 16"),
    (dict(version="v4"), "unknown version 'v4'; known: v1, v2, v3"),
])
def test_bad_arguments_are_named(kwargs, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        GhostNet(**kwargs)
