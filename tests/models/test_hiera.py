"""Hiera: masks, videos, taps of every block, and Meta's files."""

import pytest
import timm
import torch

import mvlib
from tests.parity import harness

from .pairs import assert_same, assert_same_effect, build, image, pair

NARROW = dict(img_size=64, stages=(1, 1, 2, 1), embed_dim=24)
VIDEO = dict(img_size=(4, 32, 32), stages=(1, 1, 1), q_pool=2, q_stride=(1, 2, 2), mask_unit_size=(1, 4, 4),
             mask_unit_attn=(True, True, False), patch_kernel=(3, 7, 7), patch_stride=(2, 4, 4),
             patch_padding=(1, 3, 3), embed_dim=24, sep_pos_embed=True)


@pytest.mark.parametrize("options", [
    dict(q_pool=2, mask_unit_attn=(True, False, True, False), patch_stride=(2, 4), img_size=(32, 128)),
    dict(embed_dim=32, dim_mul=1.5, head_mul=1.0, num_heads=2, init_values=0.5, global_pool="avgmax", mlp_ratio=2.0),
    dict(abs_win_pos_embed=True, global_pos_size=(5, 7), use_expand_proj=False, num_classes=0),
])
def test_arguments_have_timms_effect(options):
    options = {**NARROW, **options}
    assert_same_effect("hiera_tiny_224", options["img_size"], **options)


def test_masked_units():
    """Features and maps of what is kept, in each order of arguments that timm's callers use."""
    ours, theirs, x = pair("hiera_tiny_224", **NARROW)
    mask = torch.tensor([[True, False, False, True], [False, True, True, False]])
    with torch.inference_mode():
        assert harness.relative_difference(ours(x, mask), theirs(x, mask=mask)) < harness.TOLERANCE
        assert ours(x, mask).shape == (2, 2, 192)
        results = [model.forward_features(x, mask, return_intermediates=True) for model in (ours, theirs)]
        for own, other in zip(results[0][1], results[1][1], strict=True):
            assert harness.relative_difference(own, other) < harness.TOLERANCE
        taps = [model.forward_intermediates(x, mask, [0, 2], output_fmt="NHWC", intermediates_only=True)
                for model in (ours, theirs)]
        assert all(torch.allclose(own, other, atol=1e-5) for own, other in zip(*taps, strict=True))
    with pytest.raises(ValueError, match="output_fmt 'NCHW' is not one of NHWC"):
        ours.forward_intermediates(x, mask)


def test_videos():
    x = torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    theirs, ours = timm.models.hiera.Hiera(**VIDEO).eval(), mvlib.models.Hiera(**VIDEO).eval()
    harness.randomize(theirs, x)
    ours.load_state_dict(theirs.state_dict())
    assert [*ours.state_dict()] == [*theirs.state_dict()]
    assert_same(ours, theirs, x)
    taps = [model.forward_intermediates(x, output_fmt="NHWC", intermediates_only=True) for model in (ours, theirs)]
    assert [tap.shape for tap in taps[0]] == [(2, 2, 8, 8, 24), (2, 2, 4, 4, 48), (2, 2, 2, 2, 96)]
    for own, other in zip(*taps, strict=True):
        assert harness.relative_difference(own, other) < harness.TOLERANCE


@pytest.mark.parametrize("indices", [None, 2, [0, 3, -1]])
def test_every_block_can_be_tapped_and_cut(indices):
    ours, theirs, x = pair("hiera_tiny_224", **NARROW)
    with torch.inference_mode():
        results = [model.forward_intermediates(x, indices=indices, coarse=False) for model in (ours, theirs)]
        for (own, _), (other, _) in zip(*([(final, None), *((tap, None) for tap in taps)] for final, taps in results),
                                        strict=True):
            assert harness.relative_difference(own, other) < harness.TOLERANCE
        assert len(ours.feature_info) == 4  # as before
        taken = [model.prune_intermediate_layers(indices, coarse=False) for model in (ours, theirs)]
        assert taken[0] == taken[1] and len(ours.blocks) == len(theirs.blocks)
        assert harness.relative_difference(ours(x), theirs(x)) < harness.TOLERANCE


def test_units_are_dropped_in_training():
    model = mvlib.create_model("hiera_tiny_224", pretrained=False, patch_drop_rate=0.75, **NARROW)
    x = image()
    assert model.forward_features(x).shape == (2, 1, 192)  # one unit of four
    mask = model.get_random_mask(x, 0.25)
    assert mask.sum(1).tolist() == [3, 3]
    with pytest.raises(ValueError, match="in training patch_drop_rate draws the mask; set it to 0 to give one"):
        model(x, mask)
    assert model.eval().forward_features(x).shape == (2, 4, 192)


def test_metas_files_load(tmp_path):
    ours, _, x = pair("hiera_tiny_224", **NARROW)
    names = {"head.fc.weight": "head.projection.weight", "head.fc.bias": "head.projection.bias",
             "head.norm.weight": "norm.weight", "head.norm.bias": "norm.bias"}
    theirs = {names.get(key, key): value for key, value in ours.state_dict().items()}
    torch.save({"model_state": theirs}, tmp_path / "hiera_tiny_224.pth")
    assert_same(build("hiera_tiny_224", checkpoint_path=tmp_path / "hiera_tiny_224.pth", **NARROW), ours, x)


@pytest.mark.parametrize(("arguments", "message"), [
    (dict(img_size=100), r"img_size \(100, 100\) is not a multiple of \(32, 32\), which mask units and pools divide"),
    (dict(q_pool=4), "q_pool=4 pools need as many stages behind the first: there are 4"),
    (dict(mask_unit_attn=(True, False)), "mask_unit_attn has 2 values for 4 stages"),
    (dict(num_heads=5), "96 channels cannot be divided among 5 heads"),
    (dict(use_expand_proj=False, dim_mul=3.0), "mean and maximum make 192 channels, not 288; set use_expand_proj=True"),
])
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        mvlib.model_entrypoint("hiera_tiny_224")(**arguments)


def test_an_image_of_another_size():
    with pytest.raises(ValueError, match="the input is 96 x 64, not 64 x 64; resize the images"):
        build("hiera_tiny_224", **NARROW)(image((96, 64)))
