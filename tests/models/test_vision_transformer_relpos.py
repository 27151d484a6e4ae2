"""What is peculiar to vision transformers with relative positions: tables of biases of other sizes."""

import pytest
import timm
import torch
from timm.models.vision_transformer_relpos import checkpoint_filter_fn

import mvlib
from mvlib.models.vision_transformer_relpos import RelPosAttention

TINY = dict(depth=1, embed_dim=48, num_heads=3, rel_pos_type="bias", class_token=True)


def test_tables_of_another_size_are_resampled_as_timm_does():
    name = "vit_relpos_small_patch16_224"
    source = timm.create_model(name, img_size=64, **TINY).state_dict()
    theirs = timm.create_model(name, img_size=(96, 64), **TINY)
    theirs.load_state_dict(checkpoint_filter_fn(source, theirs))
    ours = mvlib.create_model(name, img_size=(96, 64), **TINY)
    ours.load_state_dict(ours.fit_state_dict(source))
    x = torch.rand(1, 3, 96, 64)
    assert ours.state_dict()["blocks.0.attn.rel_pos.relative_position_bias_table"].shape == (11 * 7 + 3, 3)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=1e-5, atol=1e-6)


def test_heads_that_do_not_divide_the_channels():
    with pytest.raises(ValueError, match="^50 channels cannot be divided among 3 heads$"):
        RelPosAttention(50, num_heads=3)
