"""FasterNet: timm's options, and what is refused."""

import pytest
from torch import nn

from .pairs import assert_same_effect, build

SMALL = dict(embed_dim=16, depths=(1, 1, 2, 1), feature_dim=64)


@pytest.mark.parametrize("kwargs", [
    dict(layer_scale_init_value=0.5, pconv_fw_type="slicing", patch_norm=False, global_pool="max", in_chans=1),
    dict(n_div=2, mlp_ratio=3.0, patch_size=2, act_layer=nn.SiLU, num_classes=0),
    dict(depths=(1, 2), global_pool="", num_classes=0),
], ids=str)
def test_arguments_have_timms_effect(kwargs):
    assert_same_effect("fasternet_t0", **{**SMALL, **kwargs})


def test_the_scale_begins_with_its_value():
    assert build("fasternet_t0", layer_scale_init_value=0.5, **SMALL).stages[0].blocks[0].layer_scale.unique() == 0.5


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(pconv_fw_type="cat"), "pconv_fw_type is 'split_cat' or 'slicing', not 'cat'"),
    (dict(global_pool="catavgmax"), "global_pool 'catavgmax' changes the width"),
])
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build("fasternet_t0", **kwargs)
