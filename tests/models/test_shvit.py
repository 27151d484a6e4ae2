"""SHViT: norms that go into layers, stages by type, and the classifier within the head."""

import copy

import pytest
import torch
from torch import nn

import mvlib
from mvlib.layers.branches import reparameterize

from .pairs import assert_same, assert_same_effect, build, pair

SMALL = dict(embed_dim=(16, 24, 32), partial_dim=(8, 8, 12), depth=(1, 1, 1))


@pytest.mark.parametrize("kwargs", [
    dict(types=("s", "i", "s"), qk_dim=(8, 4, 12), act_layer=nn.GELU, norm_layer=nn.BatchNorm2d, in_chans=1),
    dict(embed_dim=(16, 16, 32), global_pool="max", drop_rate=0.1, num_classes=5),
], ids=str)
def test_arguments_have_timms_effect(kwargs):
    assert_same_effect("shvit_s1", **{**SMALL, **kwargs})


def test_merged_it_gives_the_same_of_fewer_layers():
    ours, theirs, x = pair("shvit_s1", **SMALL)
    for merge in (lambda model: model.fuse(), lambda model: (reparameterize(model), model)[1]):
        merged = merge(copy.deepcopy(ours))
        assert not any(isinstance(m, (nn.BatchNorm2d, nn.BatchNorm1d)) for m in merged.modules())
        assert isinstance(merged.get_classifier(), nn.Linear) and merged.get_classifier(name_only=True) == "head"
        assert_same(merged, theirs, x)
        assert merged.state_dict().keys() == copy.deepcopy(theirs).fuse().state_dict().keys()


def test_branches_begin_silent_on_the_meta_device_too():
    model = mvlib.create_model("shvit_s1", pretrained=False, **SMALL)
    with torch.device("meta"):
        later = mvlib.create_model("shvit_s1", pretrained=False, **SMALL)
    later.to_empty(device="cpu").init_weights()
    for each in (model, later):
        block = each.stages[1].blocks[0]
        assert not block.conv.m.bn.weight.any() and not block.mixer.m.proj[1].bn.weight.any()
        assert block.ffn.m.pw1.bn.weight.all() and each.stages[1].downsample[0].m.bn.weight.all()


def test_the_classifier_is_the_heads_linear_layer():
    model = build("shvit_s1", **SMALL)
    assert model.get_classifier() is model.head.l and model.get_classifier(name_only=True) == "head.l"
    model.reset_classifier(7)
    assert model.get_classifier().out_features == 7 and model.head.l.weight.std() < 0.03


def test_bad_pooling():
    with pytest.raises(ValueError, match="global_pool 'catavgmax' changes the width"):
        build("shvit_s1", global_pool="catavgmax", **SMALL)
    with pytest.raises(ValueError, match="global_pool 'catavgmax' changes the width"):
        build("shvit_s1", **SMALL).reset_classifier(3, "catavgmax")
