"""InceptionNeXt: timm's options, and pooling that its head does not take."""

import pytest
from timm.models.inception_next import InceptionDWConv2d
from torch import nn

from .pairs import assert_same_effect, build

SMALL = dict(depths=(1, 1, 2, 1), dims=(16, 24, 32, 40))


@pytest.mark.parametrize("kwargs", [
    dict(output_stride=8, global_pool="catavgmax", in_chans=1),
    dict(output_stride=16, mlp_ratios=2, act_layer=nn.ReLU, ls_init_value=None, num_classes=0, drop_rate=0.1),
    dict(depths=(1, 2), dims=(24, 40), token_mixers=[InceptionDWConv2d] * 2),
], ids=str)
def test_arguments_have_timms_effect(kwargs):
    assert_same_effect("inception_next_atto", **{**SMALL, **kwargs})


def test_other_pooling():
    with pytest.raises(ValueError, match="the head takes vectors: global_pool cannot be ''"):
        build("inception_next_atto", global_pool="", **SMALL)
    model = build("inception_next_atto", **SMALL)
    with pytest.raises(ValueError, match="global_pool 'catavgmax' gives 80 channels, and the hidden layer takes 40"):
        model.reset_classifier(3, "catavgmax")
    model.reset_classifier(3, "catavgmax", reset_other=True)
    assert model.get_classifier() is model.head.fc2 and model.head.fc2.in_features == model.head_hidden_size == 80


def test_bad_stride():
    with pytest.raises(ValueError, match="output_stride is 8, 16 or 32, not 4"):
        build("inception_next_atto", output_stride=4)
