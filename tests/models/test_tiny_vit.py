"""TinyViT: windows of maps of any size, and weights for other windows."""

import copy

import pytest
import torch

import mvlib

from .pairs import assert_same, assert_same_effect, pair

NARROW = dict(embed_dims=(8, 16, 16, 16), num_heads=(1, 2, 2, 2), depths=(1, 1, 1, 1), num_classes=10)


def test_arguments_have_timms_effect():
    assert_same_effect("tiny_vit_5m_224", 64, **NARROW, window_sizes=(7, 3, 8, 2), mlp_ratio=2.0, local_conv_size=5,
                       mbconv_expand_ratio=2.0, act_layer=torch.nn.ReLU)


def test_images_of_any_shape():
    """Windows do not divide their maps."""
    assert_same(*pair("tiny_vit_5m_224", (71, 101), **NARROW))


def test_weights_for_other_windows_are_resampled(tmp_path):
    """As timm does it, from a file with the index of biases, which the authors' have."""
    first, other = (dict(NARROW, window_sizes=sizes) for sizes in ((7, 7, 14, 7), (5, 9, 14, 3)))
    ours, theirs, x = pair("tiny_vit_5m_224", 64, **first)
    state = {**theirs.state_dict(), "stages.1.blocks.0.attn.attention_bias_idxs": torch.zeros(49, 49)}
    torch.save({"model": state}, tmp_path / "tiny_vit.pth")
    loaded = [library.create_model("tiny_vit_5m_224", checkpoint_path=str(tmp_path / "tiny_vit.pth"), **options)
              for library, options in ((mvlib, other), (mvlib, first))]
    from timm.models import tiny_vit
    expected = tiny_vit.TinyVit(**other)
    expected.load_state_dict(tiny_vit.checkpoint_filter_fn({"model": state}, expected))
    assert_same(loaded[0].eval(), expected.eval(), x)
    assert_same(loaded[1].eval(), ours, x)


def test_norms_are_merged():
    ours, _, x = pair("tiny_vit_5m_224", 64, **NARROW)
    merged = copy.deepcopy(ours)
    assert mvlib.layers.reparameterize(merged) == 17
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in merged.modules())
    assert_same(merged, ours, x)


@pytest.mark.parametrize(("arguments", "message"), [
    (dict(depths=(1, 1, 1)), "are a number for each stage"),
    (dict(window_sizes=(7, 0, 7, 7)), "window_size 0 is not positive"),
    (dict(num_heads=(1, 3, 2, 2)), "16 channels cannot be divided among 3 heads"),
])
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        mvlib.model_entrypoint("tiny_vit_5m_224")(**NARROW | arguments)


def test_a_stage_without_downsampling_keeps_its_channels():
    from mvlib.models.tiny_vit import TinyVitStage

    with pytest.raises(ValueError, match="a stage without downsample keeps its 8 channels, they cannot become 16"):
        TinyVitStage(8, 16, 1, 2, 7)
