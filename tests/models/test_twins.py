"""Twins: windows and maps of any size."""

import pytest
import torch

import mvlib

from .pairs import assert_same, assert_same_effect, build, pair

NARROW = dict(img_size=64, embed_dims=(16, 16, 32, 32), num_heads=(2, 2, 2, 2), depths=(2, 1, 1, 1))


@pytest.mark.parametrize(("name", "options"), [
    ("twins_svt_small", dict(global_pool="", num_classes=0)),
    ("twins_svt_small", dict(wss=(7, 1, 5, 3), mlp_ratios=(2, 2, 2, 2), sr_ratios=(4, 1, 2, 1))),
    ("twins_pcpvt_small", dict(patch_size=4, in_chans=1)),
])
def test_arguments_have_timms_effect(name, options):
    assert_same_effect(name, 64, **NARROW, **options)


@pytest.mark.parametrize("size", [(71, 101), (160, 64)])
def test_images_of_any_shape(size):
    """Windows do not divide their maps, nor patches them."""
    assert_same(*pair("twins_svt_small", size, **NARROW))


def test_final_features_are_tokens_and_those_of_a_pass_that_stops_are_a_map():
    ours, theirs, x = pair("twins_svt_small", **NARROW)
    for model in (ours, theirs):
        model.prune_intermediate_layers([1], prune_head=False)
    with torch.inference_mode():
        assert ours.forward_intermediates(x, [0], stop_early=True)[0].shape == (2, 16, 16, 16)
        features = ours.forward_features(x)
        assert features.shape == (2, 64, 16)
        torch.testing.assert_close(features, theirs.forward_features(x))


def test_the_authors_files_load(tmp_path):
    """Theirs have our names in another order: what a subclass made anew comes last."""
    ours, _, x = pair("twins_svt_small", **NARROW)
    state_dict = ours.state_dict()
    order = sorted(state_dict, key=lambda key: ("patch_embeds", "norm", "head", "pos_block", "blocks").index(
        key.partition(".")[0]))
    torch.save({"model": {key: state_dict[key] for key in order}}, tmp_path / "alt_gvt_small.pth")
    loaded = build("twins_svt_small", checkpoint_path=tmp_path / "alt_gvt_small.pth", **NARROW)
    assert_same(loaded, ours, x)


@pytest.mark.parametrize(("arguments", "message"), [
    (dict(img_size=(224, 240)), r"img_size \(224, 240\) is not a multiple of 32"),
    (dict(num_heads=(3, 4, 8, 16)), "64 channels cannot be divided among 3 heads"),
    (dict(wss=(7, 7)), "wss has 2 values for the 4 stages of depths"),
    (dict(global_pool="max"), "unknown global_pool 'max'; known: 'avg', ''"),
])
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        mvlib.model_entrypoint("twins_svt_small")(**arguments)
