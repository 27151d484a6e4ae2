"""NesT: arguments that timm's entrypoints do not take, image sizes, initial weights."""

from functools import partial

import pytest
import torch
from timm.models.nest import Nest as TimmNest
from timm.models.nest import resize_pos_embed

import mvlib

from .pairs import assert_initialised_alike, assert_same_models, build

NARROW = dict(img_size=32, embed_dims=32, num_heads=2, depths=1)
build_nest = partial(build, "nest_tiny")


@pytest.mark.parametrize("options", [
    dict(num_levels=2, embed_dims=(16, 32), num_heads=(1, 2), depths=(1, 2), qkv_bias=False, global_pool="catavgmax"),
    dict(img_size=48, patch_size=2, pad_type="same", num_classes=0, global_pool=""),
])
def test_arguments_have_timms_effect(options):
    options = {**NARROW, **options}
    arguments = {key: value for key, value in options.items() if key != "patch_size"}  # timm's taps say 4
    assert_same_models(partial(TimmNest, **arguments), partial(build_nest, **arguments), options["img_size"])


def test_positions_are_resampled_for_another_image_size():
    small, large = build_nest(**NARROW), build_nest(**{**NARROW, "img_size": 80})
    large.load_state_dict(small.state_dict())
    for old, new in zip(small.levels, large.levels, strict=True):
        torch.testing.assert_close(new.pos_embed, resize_pos_embed(old.pos_embed, new.pos_embed))
    with pytest.raises(ValueError, match="the input is 32 x 32, its patches are made for 80 x 80"):
        large(torch.zeros(1, 3, 32, 32))


def test_initial_weights_with_equally_likely_classes():
    assert_initialised_alike(build_nest, TimmNest, **NARROW, weight_init="nlhb")


@pytest.mark.parametrize(("arguments", "message"), [
    (dict(img_size=(64, 32)), r"img_size \(64, 32\) is not a square"),
    (dict(img_size=36), "sides that are multiples of 16, for 4 blocks of patches of 4"),
    (dict(depths=(2, 2)), "embed_dims, num_heads and depths are one number or 3, one for each level"),
    (dict(pad_type="valid"), "unknown pad_type 'valid'; known: '', 'same'"),
    (dict(weight_init="jax"), "unknown weight_init 'jax'; known: '', 'nlhb'"),
])
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        mvlib.model_entrypoint("nest_tiny")(**arguments)
