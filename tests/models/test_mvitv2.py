"""MViT v2: what timm's config says, Meta's files, and positions of other sizes."""

import pytest
import timm
import torch

import mvlib
from mvlib.loading import load_weights

from .pairs import assert_same_models, build, image, pair_of

THEIRS = timm.models.mvitv2
NARROW = dict(depths=(1, 2, 1), embed_dim=16, stride_q=((1, 1), (2, 2), (2, 2)))


def theirs(img_size=64, **fields):
    return THEIRS.MultiScaleVit(THEIRS.MultiScaleVitCfg(**{**NARROW, **fields}), img_size=img_size)


def ours(img_size=64, **fields):
    return mvlib.models.MultiScaleVit(img_size, **{**NARROW, **fields})


@pytest.mark.parametrize("fields", [
    dict(use_cls_token=True, use_abs_pos=True, mlp_ratio=2.0),
    dict(expand_attn=False, residual_pooling=False, qkv_bias=False, stride_kv=((4, 4), (2, 2), (1, 1))),
    dict(mode="max", rel_pos_type="", img_size=(64, 96), embed_dim=(8, 16, 24), num_heads=(1, 2, 3)),
    dict(mode="avg", kernel_qkv=(1, 1), stride_kv_adaptive=(1, 1)),
])
def test_a_config_has_timms_effect(fields):
    assert_same_models(theirs, ours, fields.get("img_size", 64), **fields)


@pytest.mark.parametrize("expand_attn", [True, False])
def test_metas_files_load(expand_attn):
    model, _, _ = pair_of(theirs, ours, expand_attn=expand_attn)
    state_dict, foreign = model.state_dict(), {}
    first = {"0": 0, "1": 1, "2": 3}
    for key, value in state_dict.items():
        if key.startswith("stages."):
            _, stage, _, block, rest = key.split(".", 4)
            key = f"blocks.{first[stage] + int(block)}.{rest}"
        for name in ("shortcut_proj_attn", "shortcut_proj_mlp"):
            key = key.replace(f".{name}.", ".proj.")
        foreign[key.replace("head.fc", "head.projection")] = value
    other = ours(expand_attn=expand_attn)
    load_weights(other, {"model_state": foreign}.get("model_state"))
    assert all(torch.equal(value, state_dict[key]) for key, value in other.state_dict().items())
    expected = THEIRS.checkpoint_filter_fn({"model_state": dict(foreign)}, theirs(expand_attn=expand_attn))
    assert {key: value.shape for key, value in expected.items()} == {k: v.shape for k, v in state_dict.items()}


def test_positions_of_another_size():
    small, large = ours(64), theirs(96)
    expected = THEIRS.checkpoint_filter_fn(dict(small.state_dict()), large)
    fitted = ours(96).fit_state_dict(small.state_dict())
    for key, value in expected.items():
        torch.testing.assert_close(fitted[key], value, msg=key)


@pytest.mark.parametrize(("arguments", "message"), [
    (dict(num_heads=5), "96 channels cannot be divided among 5 heads"),
    (dict(mode="mean"), "mode 'mean' is not one of conv, avg, max"),
    (dict(pool_first=True), "pool_first=True is of no published model, and fails in timm: leave it out"),
    (dict(img_size=(64, 96)), "relative positions need a square map, not 16 x 24"),
    (dict(stride_kv=((1, 1),)), "stride_kv has 1 values for the 4 stages of depths"),
    (dict(global_pool="max"), "unknown global_pool 'max'; known: 'avg', 'token', ''"),
    (dict(global_pool="token"), "global_pool 'token' needs a class token"),
])
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        mvlib.model_entrypoint("mvitv2_tiny")(**arguments)


def test_taps_of_tokens_have_the_class_token():
    model = build("mvitv2_small_cls", img_size=64, num_classes=0)
    tokens = model.forward_intermediates(image(), [0, -1], output_fmt="NLC", intermediates_only=True)
    assert [tuple(each.shape) for each in tokens] == [(2, 257, 96), (2, 5, 768)]


def test_images_larger_than_its_positions_are_refused():
    model = mvlib.create_model("mvitv2_tiny", img_size=64, depths=(1, 1, 1, 1))
    with pytest.raises(ValueError, match="16 x 24 is larger than its positions, which are made for 16; build the model "
                                         "with img_size="):
        model(torch.zeros(1, 3, 64, 96))
