"""CSPNet: options that no architecture has, and what they refuse."""

import re
from functools import partial

import pytest
import torch

from mvlib.layers import BlurPool2d
from mvlib.models.cspnet import CspNet, darknet17
from tests.parity import harness

from .pairs import assert_same_models, build

STAGES = dict(stem_out_chs=32, depth=(1, 2), out_chs=(16, 32), stage_type="csp", block_type="bottle", block_ratio=0.5)


@pytest.mark.parametrize("kwargs", [
    dict(stem_stride=4, stem_out_chs=(8, 12, 16), attn_layer="ese"),
    dict(stem_stride=4, stem_pool="max", stem_padding="same", aa_layer=BlurPool2d, block_ratio=(0.5, 0.25),
         expand_ratio=(1.0, 0.5), bottle_ratio=0.5, attn_layer=("eca", None)),
    dict(stage_type=("dark", "cs3"), block_type=("bottle", "edge"), block_ratio=(1.0, 0.5), avg_down=(True, False),
         down_growth=True, groups=(1, 2), attn_layer="se", attn_kwargs=dict(rd_ratio=0.25), norm_layer="groupnorm1"),
    dict(stem_stride=1, depth=(1, 1, 1, 1), out_chs=(8, 8, 16, 16), stride=(4, 2), expand_ratio=2.0, output_stride=8,
         cross_linear=(True, False), block_type="dark", act_layer="relu", block_ratio=1.0),
    dict(output_stride=16, stage_type="cs3", depth=(1, 1, 1, 1), out_chs=(8, 8, 16, 16), global_pool="catavgmax"),
])
def test_options_have_timms_effect(kwargs):
    builders = partial(harness.build_timm, "cs3darknet_s"), partial(build, "cs3darknet_s")
    assert_same_models(*builders, 70, **{**STAGES, **kwargs})


def test_branches_begin_with_zero_unless_asked_otherwise():
    with torch.no_grad():
        for zero in (True, False):
            block = darknet17(zero_init_last=zero, stem_out_chs=8, out_chs=(8,) * 5).stages[0].blocks[0].eval()
            x = harness.random_image(8, 8)
            assert torch.equal(block(x), x) == zero


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(output_stride=4), "unknown output_stride 4; known: 8, 16, 32"),
    (dict(stem_stride=3), "unknown stem_stride 3; known: 1, 2, 4"),
    (dict(stem_pool="max"), "unknown stem_pool 'max'; known: ''"),
    (dict(stage_type=("csp", "cs4")), "unknown stage_type 'cs4'; known: 'csp', 'cs3', 'dark'"),
    (dict(block_type="basic"), "unknown block_type 'basic'; known: 'bottle', 'dark', 'edge'"),
    (dict(depth=(1, 1)), "depth and out_chs have a number for each stage, not 2 and 4"),
    (dict(expand_ratio=1.0), "block_ratio 1.0 is not half of expand_ratio 1.0"),
    (dict(stage_type="dark", block_ratio=0.5), "block_ratio is 1 for a stage without a second path, not 0.5"),
    (dict(attn_layer="sse"), "unknown attention layer 'sse'"),
])
def test_bad_arguments_are_named(kwargs, message):
    with torch.device("meta"), pytest.raises(ValueError, match=re.escape(message)):
        CspNet(**{"expand_ratio": 2.0, **kwargs})
