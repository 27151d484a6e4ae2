"""GCViT: options of timm's, its blocks' reductions, initial weights, sizes that do not fit."""

import pytest
import timm
import torch

from mvlib.models.gcvit import Downsample2d, FeatureBlock, GlobalContextVit
from tests.parity import harness

from .pairs import assert_same_effect, build

SMALL = dict(depths=(1, 2, 1, 2), embed_dim=8, num_heads=(1, 2, 2, 4), img_size=64)


@pytest.mark.parametrize(("size", "kwargs"), [
    ((64, 96), dict(img_size=(64, 96), global_pool="catavgmax", qkv_bias=False, in_chans=4)),
    (64, dict(window_size=(4, 4, 2, 2), layer_scale=0.5, act_layer="relu", norm_eps=1e-3, num_classes=0)),
    (64, dict(window_ratio=(16, 32, 16, 32), mlp_ratio=2, global_pool="max", norm_layer="batchnorm2d")),
], ids=str)
def test_arguments_have_timms_effect(size, kwargs):
    assert_same_effect("gcvit_xxtiny", size, **{**SMALL, **kwargs})


@pytest.mark.parametrize(("block", "args", "kwargs"), [
    (Downsample2d, (8,), dict(reduction="max")),
    (Downsample2d, (8,), dict(reduction="avg", norm_layer=None)),
    (FeatureBlock, (8, 2), dict(reduction="avg")),
    (FeatureBlock, (8, 0), {}),
], ids=str)
def test_reductions_are_timms(block, args, kwargs):
    theirs = getattr(timm.models.gcvit, block.__name__)(*args, **kwargs)
    ours = block(*args, **kwargs)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 8, 12, 16)
    assert harness.relative_difference(ours(x), theirs(x)) < harness.TOLERANCE


def test_initial_weights():
    model = build("gcvit_xxtiny", weight_init="vit", **SMALL)
    block = model.stages[3].blocks[1]
    assert 0 < block.mlp.fc1.bias.abs().max() < 1e-5 and not block.attn.proj.bias.any()
    bound = (6 / (64 + 128)) ** 0.5
    assert 0.9 * bound < block.attn.qkv.weight.abs().max() <= bound
    other = build("gcvit_xxtiny", weight_init="normal", **SMALL).stages[3].blocks[1]
    assert other.mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.05) and not other.mlp.fc1.bias.any()


@pytest.mark.parametrize(("make", "message"), [
    (lambda: GlobalContextVit(img_size=200), "a map of 50 x 50 is no windows of 6 x 6 or does not halve to one; "),
    (lambda: GlobalContextVit(img_size=72), "a map of 18 x 18 is no windows of 2 x 2 or does not halve to one; "),
    (lambda: GlobalContextVit(img_size=16), "a map of 4 x 4 is no windows of 0 x 0 or does not halve to one; "),
    (lambda: build("gcvit_xxtiny", **SMALL)(torch.ones(1, 3, 96, 96)), "the input is 96 x 96, not 64 x 64; resize"),
    (lambda: Downsample2d(8, 16, "max"), "no reduction 'max' from 8 to 16 channels; take 'conv'"),
    (lambda: Downsample2d(8, reduction="min"), "no reduction 'min' from 8 to 8 channels; take 'conv'"),
])
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
