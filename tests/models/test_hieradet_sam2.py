"""HieraDet: windows and maps of any size, taps of every block, and Meta's files of SAM 2."""

import pytest
import timm
import torch
from mvlib.timm.models.hieradet_sam2 import checkpoint_filter_fn

import mvlib
from tests.parity import harness

from .pairs import assert_same, assert_same_effect, build, image, pair

NARROW = dict(stages=(1, 1, 2, 1), embed_dim=16, window_spec=(8, 4, 6, 3), global_att_blocks=(3,), num_classes=7)


@pytest.mark.parametrize("options", [
    dict(q_pool=2, dim_mul=1.5, num_heads=2, head_mul=1.0, embed_dim=32, init_values=0.5, global_pool="max"),
    dict(patch_size=(8, 8), global_att_blocks=None, act_layer="relu", global_pos_size=(3, 5)),
    dict(num_classes=0, in_chans=1, patch_kernel=(3, 5), patch_padding=(1, 2)),
])
def test_arguments_have_timms_effect(options):
    assert_same_effect("sam2_hiera_tiny", (64, 128), **{**NARROW, **options})


@pytest.mark.parametrize("size", [(160, 96), (62, 93)])
def test_images_of_any_size(size):
    assert_same(*pair("hieradet_small", size, **NARROW))


def test_an_image_whose_patches_windows_do_not_divide():
    with pytest.raises(ValueError, match="the input gives 18 x 16 patches, not multiples of 8 x 8; resize the images"):
        build("hieradet_small", **NARROW)(image((72, 64)))


def test_every_block_can_be_tapped_and_cut():
    ours, theirs, x = pair("sam2_hiera_tiny", **NARROW)
    with torch.inference_mode():
        (own, taps), (other, expected) = (model.forward_intermediates(x, 3, coarse=False) for model in (ours, theirs))
        assert len(taps) == 3
        for found, wanted in zip([own, *taps], [other, *expected], strict=True):
            assert harness.relative_difference(found, wanted) < harness.TOLERANCE
        for model in (ours, theirs):
            assert model.prune_intermediate_layers([2], coarse=False) == [2]
        assert harness.relative_difference(ours(x), theirs(x)) < harness.TOLERANCE


@pytest.mark.parametrize("prefix", ["", "image_encoder.trunk."])
def test_metas_files_load(tmp_path, prefix):
    """Of the whole SAM 2, or of the encoder alone; the norm of the head is ours."""
    options = {**NARROW, "num_classes": 0}
    ours, _, x = pair("sam2_hiera_tiny", **options)
    theirs = {prefix + key.replace("mlp.fc1", "mlp.layers.0").replace("mlp.fc2", "mlp.layers.1"): value
              for key, value in ours.state_dict().items() if not key.startswith("head.")}
    if prefix:
        theirs["image_encoder.neck.convs.0.conv.weight"] = torch.zeros(1)
    torch.save({"model": theirs}, tmp_path / "sam2_hiera_tiny.pt")
    loaded = build("sam2_hiera_tiny", checkpoint_path=tmp_path / "sam2_hiera_tiny.pt", **options)
    with torch.inference_mode():
        assert torch.equal(loaded.forward_features(x), ours.forward_features(x))
    found = checkpoint_filter_fn({"model": theirs}, prefix=prefix)
    expected = timm.models.hieradet_sam2.checkpoint_filter_fn({"model": theirs}, prefix=prefix)
    assert [*found] == [*expected] and all(torch.equal(found[key], expected[key]) for key in found)


@pytest.mark.parametrize(("arguments", "message"), [
    (dict(window_spec=(8, 4)), "window_spec has 2 values for the 4 stages"),
    (dict(q_pool=4), "q_pool=4 pools need as many stages behind the first: there are 4"),
    (dict(num_heads=5), "96 channels cannot be divided among 5 heads"),
])
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        mvlib.model_entrypoint("sam2_hiera_tiny")(**arguments)
