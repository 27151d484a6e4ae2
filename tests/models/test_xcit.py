"""XCiT: tokens that know their grid, a class token that comes late."""

import pytest
import timm
import torch

import mvlib

TINY = dict(depth=2, embed_dim=64, num_heads=4)


def pair(**kwargs):
    theirs = timm.create_model("xcit_nano_12_p16_224", **TINY, **kwargs).eval()
    ours = mvlib.create_model("xcit_nano_12_p16_224", pretrained=False, **TINY, **kwargs).eval()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


@pytest.mark.parametrize("options", [{}, dict(use_pos_embed=False), dict(tokens_norm=True, global_pool="avg")])
def test_images_of_any_shape(options):
    theirs, ours = pair(**options)
    image = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(ours(image), theirs(image))
        final, maps = ours.forward_intermediates(image)
        assert [tuple(m.shape) for m in maps] == [(2, 64, 4, 6)] * 2 and final.shape == (2, 25, 64)


def test_without_head_there_is_no_class_token():
    theirs, ours = pair()
    for model in (theirs, ours):
        model.prune_intermediate_layers([0])
    assert list(ours.state_dict()) == list(theirs.state_dict())
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(ours(image), theirs(image))
    with pytest.raises(ValueError, match="global_pool 'token' needs the class token, which was cut off with the head"):
        ours.reset_classifier(3, "token")


def test_the_authors_files_load():
    _, ours = pair()
    foreign = {}
    for key, value in ours.state_dict().items():
        if key.startswith("cls_attn_blocks") and any(f".{name}." in key for name in "qkv"):
            continue
        foreign[key.replace("pos_embed.", "pos_embeder.")] = value
    for i, block in enumerate(ours.cls_attn_blocks):
        for leaf in ("weight", "bias"):
            parts = [getattr(getattr(block.attn, name), leaf) for name in "qkv"]
            foreign[f"cls_attn_blocks.{i}.attn.qkv.{leaf}"] = torch.cat(parts)
    fresh = mvlib.create_model("xcit_nano_12_p16_224", pretrained=False, **TINY)
    fresh.load_state_dict(foreign)
    for key, value in ours.state_dict().items():
        assert torch.equal(fresh.state_dict()[key], value)


@pytest.mark.parametrize(("arguments", "message"), [
    (dict(patch_size=32), "patch_size is 8 or 16, not 32"), (dict(global_pool="max"), "unknown global_pool 'max'"),
])
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        mvlib.model_entrypoint("xcit_nano_12_p16_224")(**arguments)
