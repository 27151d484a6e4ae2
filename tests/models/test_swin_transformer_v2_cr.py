"""Swin Transformer V2 by Reich: windows and their sizes, norms, files of the first release."""

import pytest
import timm
import torch

import mvlib
from mvlib.models.swin_transformer_v2_cr import WindowMultiHeadAttention
from tests.parity import harness

from .pairs import assert_initialised_alike, assert_same, assert_same_effect, assert_same_resized, build, image, pair

NARROW = dict(img_size=64, depths=(1, 2, 1), embed_dim=24, num_heads=(3, 3, 6))


@pytest.mark.parametrize("options", [
    dict(window_size=((3, 5), 4, (4, 2)), always_partition=True, mlp_ratio=2.0),
    dict(window_ratio=(4, 8, 2), extra_norm_period=2, extra_norm_stage=True, global_pool="catavgmax"),
    dict(dynamic_img_size=True, window_size=5, init_values=None, in_chans=1),
])
def test_arguments_have_timms_effect(options):
    assert_same_effect("swinv2_cr_tiny_224", **{**NARROW, **options})


def test_images_of_any_size():
    assert_same(*pair("swinv2_cr_tiny_224", (72, 104), dynamic_img_size=True, window_size=5, **NARROW))


@pytest.mark.parametrize("change", [
    dict(img_size=(96, 128)), dict(window_size=(3, 5)), dict(img_size=96, window_ratio=4, always_partition=True)])
def test_sizes_change(change):
    ours, theirs, _ = pair("swinv2_cr_tiny_224", **NARROW)
    assert_same_resized(ours, theirs, **change)


@pytest.mark.parametrize("scheme", ["", "reset"])
def test_initial_weights(scheme):
    assert_initialised_alike(mvlib.models.SwinTransformerV2Cr, timm.models.SwinTransformerV2Cr, weight_init=scheme,
                             **{**NARROW, "embed_dim": 48, "num_heads": (24, 48, 96)})


def test_the_bias_of_an_attention_is_timms():
    """By itself, as users import it."""
    theirs = timm.models.swin_transformer_v2_cr.WindowMultiHeadAttention(12, 3, (3, 5)).eval()
    ours = WindowMultiHeadAttention(12, 3, (3, 5)).eval()
    ours.load_state_dict(theirs.state_dict())
    assert torch.equal(ours.relative_coordinates_log, theirs.relative_coordinates_log)
    x, mask = torch.randn(4, 15, 12), torch.randn(2, 15, 15)
    with torch.inference_mode():
        assert harness.relative_difference(ours(x, mask), theirs(x, mask)) < harness.TOLERANCE


def test_files_of_the_first_release_load(tmp_path):
    ours, _, x = pair("swinv2_cr_tiny_224", **NARROW)
    theirs = {key.replace("logit_scale", "tau").replace("head.fc.", "head."):
              (-value).exp() if key.endswith("logit_scale") else value for key, value in ours.state_dict().items()}
    assert "head.weight" in theirs and "stages.0.blocks.0.attn.tau" in theirs
    torch.save({"state_dict": theirs}, tmp_path / "swin_v2_cr.pth")
    assert_same(build("swinv2_cr_tiny_224", checkpoint_path=tmp_path / "swin_v2_cr.pth", **NARROW), ours, x)


@pytest.mark.parametrize(("arguments", "message"), [
    (dict(num_heads=(5, 6, 12, 24)), "96 channels cannot be divided among 5 heads"),
    (dict(window_ratio=0), "window_ratio 0 is not a positive integer for each of 4 stages"),
    (dict(window_size=(7, 7, 7)), r"window_size \(7, 7, 7\) is not a positive size, or \(rows, columns\), for"),
])
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        mvlib.model_entrypoint("swinv2_cr_tiny_224")(**arguments)


def test_an_image_of_another_size():
    with pytest.raises(ValueError, match="the input is 96 x 64, its patches are made for 64 x 64"):
        build("swinv2_cr_tiny_224", **NARROW)(image((96, 64)))
