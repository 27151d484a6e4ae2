"""Bring your own attention: different attention by stage, strides that become dilation, other sizes."""

import pytest
import torch

from mvlib.layers import BottleneckAttn, HaloAttn, LambdaLayer
from mvlib.models.byobnet import ByoBlockCfg, ByobNet, interleave_blocks

from .pairs import assert_same_effect, build, image

HALO = dict(self_attn_layer="halo", self_attn_kwargs=dict(block_size=4, halo_size=1))
MIXED = (  # every kind; the first stage has the model's
    ByoBlockCfg("self_attn", 1, 32, s=1, br=0.5),
    interleave_blocks(("bottle", "self_attn"), 2, c=32, br=0.5, **HALO),
    interleave_blocks(("bottle", "self_attn"), 2, first=True, c=64, br=0.5, self_attn_layer="bottleneck",
                      self_attn_kwargs={}),
    ByoBlockCfg("self_attn", 1, 64, br=0.5, block_kwargs=dict(extra_conv=True, post_attn_na=False)),
)


@pytest.mark.parametrize(("name", "kwargs"), [
    ("lambda_resnet26t", dict(blocks=MIXED, img_size=64, self_attn_kwargs=dict(r=3))),
    ("halonet26t", dict(
        blocks=[ByoBlockCfg("self_attn", 1, 32, s=s, br=0.5) for s in (1, 2, 2, 2)], output_stride=8, **HALO)),
])
def test_arguments_have_timms_effect(name, kwargs):
    assert_same_effect(name, 64, **kwargs)


def test_each_stage_has_its_attention():
    with torch.device("meta"):
        model = build("lamhalobotnet50ts_256")
    found = [{type(block.self_attn) for block in stage if hasattr(block, "self_attn")} for stage in model.stages]
    assert found == [set(), {LambdaLayer}, {HaloAttn}, {BottleneckAttn}]


def test_attention_to_the_whole_map_is_for_one_size():
    blocks = (ByoBlockCfg("self_attn", 1, 32, br=0.5),) * 2
    with pytest.raises(ValueError, match="feat_size is needed"):
        ByobNet(blocks, self_attn_layer="bottleneck")
    model = build("botnet26t_256", blocks=blocks, img_size=64)
    with pytest.raises(ValueError, match="the input is 24 x 24, not 16 x 16"):
        model(image(96))
