"""CaiT: talking heads, and a class token that comes late."""

import pytest
import torch

import mvlib

from .pairs import assert_same, assert_same_effect, pair

NAME = "cait_xxs24_224"
TINY = dict(depth=2, embed_dim=32, img_size=64)


@pytest.mark.parametrize("kwargs", [
    dict(img_size=(64, 96), patch_size=8, global_pool="avg", num_classes=3, in_chans=1),
    dict(qkv_bias=False, mlp_ratio=2.0, depth_token_only=1, mlp_ratio_token_only=1.5, num_heads=2),
    dict(depth=1, depth_token_only=0),
])
def test_arguments_have_timms_effect(kwargs):
    assert_same_effect(NAME, kwargs.get("img_size", 64), **{**TINY, **kwargs})


def test_without_head_there_is_no_class_token():
    ours, theirs, x = pair(NAME, **TINY)
    for model in (ours, theirs):
        assert model.prune_intermediate_layers([0]) == [0]
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert_same(ours, theirs, x)
    with pytest.raises(ValueError, match="global_pool 'token' needs a class token, which this model does not have"):
        ours.reset_classifier(3, "token")


def test_a_pooling_that_was_changed_is_written_down(tmp_path):
    ours, _, x = pair(NAME, **TINY)
    ours.reset_classifier(5, "avg")
    mvlib.save_for_hub(ours, tmp_path)
    again = mvlib.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert again.global_pool == "avg"
    assert_same(again, ours, x)


def test_the_authors_files_load(tmp_path):
    """They are of parallel training: {"model": {"module.blocks.0...": ...}}."""
    ours, theirs, x = pair(NAME, **TINY)
    file = {"model": {f"module.{key}": value for key, value in theirs.state_dict().items()}, "epoch": 400}
    torch.save(file, tmp_path / "XXS24_224.pth")
    loaded = mvlib.create_model(NAME, pretrained=False, checkpoint_path=tmp_path / "XXS24_224.pth", **TINY).eval()
    assert_same(loaded, theirs, x)


def test_bad_arguments():
    with pytest.raises(ValueError, match="unknown global_pool 'max'; known: '', 'avg', 'token'"):
        mvlib.model_entrypoint(NAME)(global_pool="max", **TINY)
