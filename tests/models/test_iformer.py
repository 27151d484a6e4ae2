"""iFormer: windows, merged norms, the authors' files, and what is refused."""

import copy

import pytest
import torch
from timm.models import iformer as theirs_module
from torch import nn

from mvlib.models.iformer import SHMA

from .pairs import assert_same, assert_same_effect, build, pair

SMALL = dict(dims=(8, 16, 24, 32), depths=(1, 1, 5, 3), attn_groups=(0, 0, 1, 1), layer_scale_init_value=0.5)


@pytest.mark.parametrize("kwargs", [
    dict(depths=(2, 1, 6, 4), attn_groups=(0, 0, 2, 1), attn_ratio=2, act_layer=nn.ReLU, in_chans=1),
    dict(distillation=True, drop_rate=0.1), dict(num_classes=0, global_pool="", layer_scale_init_value=0),
], ids=str)
def test_arguments_have_timms_effect(kwargs):
    assert_same_effect("iformer_t", **{**SMALL, **kwargs})


def test_windows():
    theirs, ours = theirs_module.SHMA(8, window_size=4).eval(), SHMA(8, window_size=4).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 8, 10, 7)
    torch.testing.assert_close(ours(x), theirs(x))


def test_merged_it_gives_the_same():
    ours, theirs, x = pair("iformer_m_distilled", **SMALL)
    merged = copy.deepcopy(ours).fuse()
    assert not any(isinstance(m, (nn.BatchNorm2d, nn.BatchNorm1d)) for m in merged.modules())
    assert_same(merged, theirs, x)


def test_the_authors_files_load(tmp_path):
    _, theirs, x = pair("iformer_m_distilled", **SMALL)
    original = {}
    for key, value in theirs.state_dict().items():
        for ours, authors in (
                ("head.head_dist.", "classifier.classifier_dist."), ("head.head.", "classifier.classifier."),
                ("stem.conv1.", "downsample_layers.0.0."), ("stem.conv2.", "downsample_layers.0.2.conv_exp_bn1."),
                ("stem.conv3.", "downsample_layers.0.2.conv_pwl_bn2."), (".module.", ".m."),
                (".mixer.", ".token_channel_mixer.")):
            key = key.replace(ours, authors)
        parts = key.split(".")
        if parts[0] == "stages":
            parts = ["downsample_layers", parts[1], "0", *parts[3:]] if parts[2] == "downsample" else \
                ["stages", parts[1], parts[3], "block", *parts[4:]]
        original[".".join(parts)] = value
    assert "stages.2.1.block.cpe.m.c.weight" in original and "downsample_layers.1.0.c.weight" in original
    torch.save({"model": original}, tmp_path / "iformer.pth")
    assert_same(build("iformer_m_distilled", checkpoint_path=tmp_path / "iformer.pth", **SMALL), theirs, x)


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(depths=(1, 1, 2, 3)), "1 groups of attention have 3 blocks, and depth is 2"),
    (dict(depths=(1, 1)), "attn_groups and attn_head_dim_reduction have one value a stage"),
])
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build("iformer_t", **{**SMALL, **kwargs})
