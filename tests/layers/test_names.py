"""Layers by name, class or function: what can make none is an error that says so."""

import pytest
from torch import nn

from mvlib.layers.activations import get_act_layer
from mvlib.layers.attention import Attention
from mvlib.layers.blur_pool import create_aa
from mvlib.layers.channel_attention import get_attn
from mvlib.layers.norm import get_norm_act_layer, get_norm_layer
from mvlib.models.efficientnet_blocks import decode_arch_def
from mvlib.models.vision_transformer import ParallelScalingBlock


@pytest.mark.parametrize("get", [get_act_layer, get_norm_layer, get_norm_act_layer, get_attn, create_aa])
@pytest.mark.parametrize("layer", [3, [nn.ReLU]])
def test_no_layer(get, layer):
    with pytest.raises(ValueError, match="a name, a class or a function that makes one"):
        get(layer)


@pytest.mark.parametrize("get", [get_act_layer, get_norm_layer])
def test_classes_and_functions_are_layers(get):
    for layer in (nn.ReLU, lambda: nn.ReLU(), nn.ReLU()):
        assert get(layer) is layer
    assert get(None) is None


def test_a_function_makes_norm_and_activation():
    assert isinstance(get_norm_act_layer(lambda chs: nn.GroupNorm(1, chs))(8), nn.GroupNorm)


def test_an_error_of_a_downsampling_layer_is_its_own():
    class Blur(nn.Module):
        def __init__(self, channels, stride):
            raise TypeError("of the layer itself")

    with pytest.raises(TypeError, match="of the layer itself"):
        create_aa(Blur, 8)
    assert isinstance(create_aa(nn.AvgPool2d, 8), nn.AvgPool2d)


@pytest.mark.parametrize("option", ["qk_norm", "scale_norm"])
def test_attention_needs_a_norm(option):
    with pytest.raises(ValueError, match="need a norm_layer"):
        Attention(16, 2, **{option: True})
    Attention(16, 2, norm_layer=nn.LayerNorm, **{option: True})


def test_a_misspelt_block_option():
    with pytest.raises(TypeError, match="mlp_rato"):
        ParallelScalingBlock(16, 2, mlp_rato=2)
    ParallelScalingBlock(16, 2, scale_attn_norm=True, depth=3)


def test_a_stage_without_end():
    with pytest.raises(ValueError, match="a stage of 99999999999 blocks"):
        decode_arch_def([["ir_r99999999999_k3_s1_e1_c8"]])
