"""ConViT: attention by distance, a class token that comes between the blocks."""

import pytest
import timm
import torch

import mvlib
from mvlib.models.convit import GPSA, _offsets
from tests.parity import harness

from .pairs import assert_same, assert_same_effect, build, image, pair

NAME = "convit_tiny"
TINY = dict(depth=3, local_up_to_layer=2, embed_dim=8, img_size=64)


@pytest.mark.parametrize("kwargs", [
    dict(num_heads=2, qkv_bias=True, use_pos_embed=False, global_pool="avg", num_classes=3, in_chans=1),
    dict(patch_size=8, mlp_ratio=2.0, local_up_to_layer=0),
    dict(depth=1),  # no block is left for the class token
])
def test_arguments_have_timms_effect(kwargs):
    assert_same_effect(NAME, **{**TINY, **kwargs})


def test_attention_by_distance_is_the_softmax_over_all_places():
    """Of a grid that is no square, where timm's model fails."""
    attention = GPSA(8, 2, False, 0.0, 0.0).double().eval()
    torch.nn.init.constant_(attention.gating_param, 50.0)  # nothing by content
    torch.nn.init.normal_(attention.pos_proj.weight)
    place = torch.cartesian_prod(torch.arange(3.0), torch.arange(4.0)).double()
    dy, dx = (place - place[:, None]).unbind(2)
    logits = attention.pos_proj(torch.stack((dx, dy, dx**2 + dy**2), dim=2)).permute(2, 0, 1)
    x = torch.randn(2, 12, 8, dtype=torch.float64)
    v = attention.v(x).unflatten(2, (2, 4)).transpose(1, 2)
    expected = attention.proj((logits.softmax(dim=2) @ v).transpose(1, 2).flatten(2))
    for attention.fused_attn in (True, False):
        torch.testing.assert_close(attention(x, _offsets(x, 3), _offsets(x, 4)), expected)


def test_dropout_is_of_the_mixed_map():
    ours, theirs, x = pair(NAME, **TINY, attn_drop_rate=0.5)
    answers = []
    for model in (ours.train(), theirs.train()):
        torch.manual_seed(0)
        answers.append(model(x))
    assert harness.relative_difference(*answers) < harness.TOLERANCE


@pytest.mark.parametrize("heads", [4, 9])
def test_it_begins_as_a_convolution(heads):
    ours, theirs = (create(NAME, **TINY, num_heads=heads, locality_strength=0.5) for create in (
        build, timm.create_model))
    for block, other in zip(ours.blocks[:2], theirs.blocks):
        assert torch.equal(block.attn.pos_proj.weight, other.attn.pos_proj.weight)
        assert torch.equal(block.attn.v.weight, other.attn.v.weight)


def test_images_that_are_no_squares():
    model = build(NAME, **{**TINY, "img_size": (32, 64)})
    maps = model.forward_intermediates(image((32, 64)), intermediates_only=True)
    assert [tuple(m.shape) for m in maps] == [(2, 32, 2, 4)] * 3
    model.set_input_size((64, 48))
    assert model(image((64, 48))).shape == (2, 1000)


@pytest.mark.parametrize(("index", "prune_head"), [(1, True), (1, False), (2, True)])
def test_pruned_before_and_behind_the_class_token(index, prune_head):
    ours, theirs, x = pair(NAME, **TINY, global_pool="avg")
    for model in (ours, theirs):
        assert model.prune_intermediate_layers([index], prune_head=prune_head) == [index]
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert_same(ours, theirs, x)
    if index == 1:
        with pytest.raises(ValueError, match="global_pool 'token' needs a class token, which this model does not have"):
            ours.reset_classifier(3, "token")


def test_the_authors_files_load(tmp_path):
    _, theirs, x = pair(NAME, **TINY)
    torch.save({"model": theirs.state_dict(), "epoch": 299}, tmp_path / "convit_tiny.pth")
    ours = mvlib.create_model(NAME, pretrained=False, checkpoint_path=tmp_path / "convit_tiny.pth", **TINY).eval()
    assert_same(ours, theirs, x)
