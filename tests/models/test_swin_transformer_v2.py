"""Swin V2: what differs from Swin in windows, positions and foreign checkpoints."""

import pytest
import timm
import torch

from mvlib.loading import load_weights
from mvlib.models.swin_transformer_v2 import SwinTransformerV2

from . import pairs
from .pairs import assert_same, image

TIMMS = timm.models.swin_transformer_v2.SwinTransformerV2
SMALL = dict(img_size=64, embed_dim=48, depths=(2, 2), num_heads=(2, 4), window_size=8, num_classes=10,
             pretrained_window_sizes=(0, 0))


def pair(**kwargs):
    """Our model and timm's, with the same random weights."""
    return pairs.pair_of(TIMMS, SwinTransformerV2, kwargs.get("img_size", 64), **{**SMALL, **kwargs})[:2]


@pytest.mark.parametrize("arguments", [
    {}, {"window_size": 4}, {"window_size": 6}, {"img_size": 72}, {"window_size": (8, 4)}, {"qkv_bias": False},
    {"pretrained_window_sizes": (6, 3)}, {"always_partition": True, "window_size": 12}, {"act_layer": "relu"},
], ids=str)
def test_arguments_have_timms_effect(arguments):
    pairs.assert_same_models(TIMMS, SwinTransformerV2, arguments.get("img_size", 64), **{**SMALL, **arguments})


@torch.inference_mode()
def test_sizes_change_in_place_and_in_forward():
    ours, theirs = pair()
    for model in (ours, theirs):
        model.set_input_size(img_size=96)
    assert [b.window_size for b in ours.layers[0].blocks] == [b.window_size for b in theirs.layers[0].blocks]
    assert_same(ours, theirs, image(96))
    with pytest.raises(ValueError, match=r"window_size \(8, 8, 8\) is not a positive size"):
        ours.set_input_size(window_size=(8, 8, 8))
    ours, theirs = pair(dynamic_img_size=True)
    assert_same(ours, theirs, image(80))


@torch.inference_mode()
def test_weights_go_over_to_another_window_unchanged():
    ours, _ = pair()
    other = SwinTransformerV2(**{**SMALL, "img_size": 96, "window_size": 12})
    load_weights(other, ours.state_dict())
    assert torch.equal(other.state_dict()["layers.0.blocks.0.attn.logit_scale"],
                       ours.state_dict()["layers.0.blocks.0.attn.logit_scale"])
    assert other(image(96)).isfinite().all()


def test_microsofts_layout():
    ours, _ = pair()
    foreign = {}
    for key, value in ours.state_dict().items():
        key = key.replace("layers.1.downsample", "layers.0.downsample").replace("head.fc.", "head.")
        foreign[key] = value
    foreign["layers.0.blocks.1.attn_mask"] = torch.zeros(1)
    foreign["layers.0.blocks.0.attn.relative_coords_table"] = torch.zeros(1)
    other = SwinTransformerV2(**SMALL)
    load_weights(other, foreign)
    assert all(torch.equal(a, b) for a, b in zip(other.state_dict().values(), ours.state_dict().values()))
