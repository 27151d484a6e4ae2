"""ReXNet: widths, depths and strides that no architecture has."""

import pytest
import torch
from timm.models.rexnet import RexNet as TimmRexNet

from mvlib.models.rexnet import RexNet

from .pairs import assert_same_models


@pytest.mark.parametrize("kwargs", [
    dict(width_mult=0.7, ch_div=4, output_stride=16, initial_chs=20, final_chs=111, global_pool="catavgmax"),
    dict(depth_mult=0.3, output_stride=8, se_ratio=0.25, act_layer="gelu", dw_act_layer="hard_swish", in_chans=4),
])
def test_arguments_have_timms_effect(kwargs):
    assert_same_models(TimmRexNet, RexNet, (70, 90), num_classes=6, **kwargs)


def test_an_unknown_output_stride_is_named():
    with torch.device("meta"), pytest.raises(ValueError, match="output_stride is 8, 16 or 32, not 64"):
        RexNet(output_stride=64)
