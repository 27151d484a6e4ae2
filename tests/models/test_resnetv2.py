"""ResNet V2: options, initial weights, BiT's arrays."""

from functools import partial

import numpy
import pytest
import timm
import torch
from torch import nn

import mvlib
from mvlib.layers import StdConv2d
from mvlib.models.resnetv2 import ResNetV2

from .pairs import assert_initialised_alike, assert_same_effect, build, pair

SMALL = dict(layers=(1, 2, 1, 1), channels=(128, 256, 256, 256))
BIT = dict(channels=(128, 128, 128, 128))  # timm's function fixes the depths
BASIC = dict(layers=(1, 1, 1, 1), channels=(32, 64, 64, 64))


@pytest.mark.parametrize(("name", "kwargs"), [
    ("resnetv2_50x1_bit", dict(BIT, output_stride=8, global_pool="catavgmax", in_chans=5)),
    ("resnetv2_50", dict(SMALL, preact=False, act_layer="silu", avg_down=True, conv_layer=StdConv2d)),
    ("resnetv2_50", dict(SMALL, global_pool="", num_classes=7)),
    ("resnetv2_50", dict(SMALL, preact=False, stem_type="deep_same", norm_layer="groupnorm")),
    ("resnetv2_50d", dict(SMALL, output_stride=16, stem_type="deep_fixed", act_layer="gelu")),
    ("resnetv2_18", dict(BASIC, width_factor=2, stem_chs=24, output_stride=8, avg_down=True)),
    ("resnetv2_18", dict(BASIC, width_factor=1.5)),
    ("resnetv2_18d", dict(BASIC, output_stride=16, stem_type="same", norm_layer="frn", act_layer="silu")),
])
def test_arguments_have_timms_effect(name, kwargs):
    assert_same_effect(name, 70, **kwargs)


@pytest.mark.parametrize(("name", "kwargs", "last"), [
    ("resnetv2_18", BASIC, "conv2"), ("resnetv2_50", SMALL, "conv3"),
    ("resnetv2_50", dict(SMALL, preact=False), "norm3"),
])
def test_blocks_begin_as_identities_where_asked_for(name, kwargs, last):
    kwargs = dict(kwargs, zero_init_last=True, num_classes=500)
    assert_initialised_alike(partial(build, name), partial(timm.create_model, name), **kwargs)
    weights = [weight for key, weight in build(name, **kwargs).named_parameters() if key.endswith(f"{last}.weight")]
    assert len(weights) == sum(kwargs["layers"]) and not any(weight.any() for weight in weights)


@pytest.mark.parametrize("in_chans", [3, 1])
def test_bits_arrays_are_read_as_in_timm(in_chans, tmp_path):
    theirs = pair("resnetv2_50x1_bit", **BIT)[1]
    arrays = {"resnet/root_block/standardized_conv2d/kernel": theirs.stem.conv.weight,
              "resnet/group_norm/gamma": theirs.norm.weight, "resnet/group_norm/beta": theirs.norm.bias,
              "resnet/head/conv2d/kernel": theirs.head.fc.weight, "resnet/head/conv2d/bias": theirs.head.fc.bias}
    for i, stage in enumerate(theirs.stages, start=1):
        for j, block in enumerate(stage.blocks, start=1):
            unit = f"resnet/block{i}/unit{j:02d}"
            for number, letter in enumerate("abc", start=1):
                conv, norm = block.get_submodule(f"conv{number}"), block.get_submodule(f"norm{number}")
                arrays[f"{unit}/{letter}/standardized_conv2d/kernel"] = conv.weight
                arrays[f"{unit}/{letter}/group_norm/gamma"] = norm.weight
                arrays[f"{unit}/{letter}/group_norm/beta"] = norm.bias
            if block.downsample is not None:
                arrays[f"{unit}/a/proj/standardized_conv2d/kernel"] = block.downsample.conv.weight
    path = tmp_path / "bit.npz"
    numpy.savez(path, **{key: (value.permute(2, 3, 1, 0) if value.ndim == 4 else value).detach().numpy()
                         for key, value in arrays.items()})
    theirs = pair("resnetv2_50x1_bit", in_chans=in_chans, **BIT)[1]
    theirs.load_pretrained(str(path))
    source = dict(pretrained=True, pretrained_cfg_overlay=dict(file=path)) if in_chans == 1 else \
        dict(checkpoint_path=path)
    ours = mvlib.create_model("resnetv2_50x1_bit", in_chans=in_chans, **source, **BIT)
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value, msg=key)


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(output_stride=4), "output_stride is 8, 16 or 32, not 4"),
    (dict(stem_type="quad"), "unknown stem_type 'quad'; known: '', 'fixed'"),
    (dict(basic=True, preact=False), "basic=True needs preact=True"),
    (dict(norm_layer="own"), "unknown norm layer 'own'"),
])
def test_bad_arguments_are_named(kwargs, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        ResNetV2(layers=(1, 1), channels=(32, 32), **kwargs)


def test_without_classes_the_head_has_no_convolution():
    model = build("resnetv2_18", **BASIC, num_classes=0)
    assert isinstance(model.head.fc, nn.Identity) and model(torch.randn(2, 3, 32, 32)).shape == (2, 64)
