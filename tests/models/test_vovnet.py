"""VoVNet: the other stem, and what it refuses."""

import pytest
import torch

from mvlib.models.vovnet import VovNet, ese_vovnet19b_slim_dw
from tests.parity import harness

NARROW = dict(stage_conv_chs=[8] * 4, stage_out_chs=[16] * 4, layer_per_block=1, block_per_stage=[1] * 4, num_classes=3)


def test_stem_of_stride_2_gives_timms_features():
    # Not its `forward_intermediates`, whose first map is not the one that its `feature_info` names.
    report = harness.compare("ese_vovnet19b_slim_dw", ("keys", "features", "gradients"), stem_stride=2)
    assert report.ok and len(report.passed) == 3, report.problems + report.notes


@pytest.mark.parametrize("stem_stride", [2, 4])
def test_maps_are_what_feature_info_says(stem_stride):
    model = VovNet((8, 16, 24), stem_stride=stem_stride, **NARROW).eval()
    with torch.no_grad():
        maps = model.forward_intermediates(torch.zeros(1, 3, 64, 64), intermediates_only=True)
    for info, x in zip(model.feature_info, maps, strict=True):
        assert x.shape == (1, info["num_chs"], 64 // info["reduction"], 64 // info["reduction"])


def test_separable_blocks_have_shortcuts_too():  # timm refuses those
    model = VovNet(depthwise=True, **{**NARROW, "block_per_stage": [1, 1, 1, 2]}).eval()
    first, second = model.stages[3].blocks
    x = torch.randn(1, 16, 4, 4)
    with torch.no_grad():
        second.conv_concat.bn.weight.zero_()
        assert torch.equal(second(x), x) and not torch.equal(first(x), x)


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(stem_chs=(64, 64)), "have 3, 4, 4 and 4 numbers, not 2, 4, 4, 4"),
    (dict(block_per_stage=(1, 1, 2)), "have 3, 4, 4 and 4 numbers, not 3, 4, 4, 3"),
    (dict(stem_stride=1), "stem_stride is 2 or 4, not 1"),
    (dict(output_stride=16), "output_stride is 32 for a VovNet, not 16"),
    (dict(attn="sse"), "unknown attention layer 'sse'; known: .*ese"),
])
def test_bad_arguments_are_reported(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ese_vovnet19b_slim_dw(**kwargs)
