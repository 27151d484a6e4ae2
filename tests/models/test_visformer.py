"""Visformer: options of timm's, positions that go with their stage."""

import pytest
import torch

import mvlib
from mvlib.layers import get_norm_layer
from mvlib.models.visformer import Visformer

from .pairs import assert_same, assert_same_effect, build, pair

SMALL = dict(embed_dim=48, depth=(1, 1, 1), img_size=64)


@pytest.mark.parametrize("kwargs", [
    dict(img_size=(64, 96), init_channels=None, depth=4, attn_stage="110", global_pool="catavgmax", in_chans=5),
    dict(use_pos_embed=False, group=1, spatial_conv="111", embed_norm=None, norm_layer=torch.nn.Identity),
    dict(vit_stem=True, depth=(0, 2, 0), mlp_ratio=2.0, num_classes=0),
], ids=str)
def test_arguments_have_timms_effect(kwargs):
    kwargs = {**SMALL, **kwargs}
    assert_same_effect("visformer_tiny", kwargs["img_size"], **kwargs)


def test_positions_go_with_their_stage():
    model = mvlib.create_model("visformer_tiny", pretrained=False, **SMALL)
    model.prune_intermediate_layers([0, 1])
    assert {name[:10] for name, _ in model.named_parameters() if "pos" in name} == {"pos_embed1", "pos_embed2"}
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, 48, 4, 4)


@pytest.mark.parametrize(("kind", "inner"), [("batchnorm2d", "bn"), ("layernorm2d", "ln")])
def test_the_authors_files_load(tmp_path, kind, inner):
    """In them, a norm is a module within another."""
    kwargs = dict(SMALL, norm_layer=get_norm_layer(kind), embed_norm=get_norm_layer(kind))
    _, theirs, x = pair("visformer_tiny", **kwargs)
    norms = {name for name, module in theirs.named_modules() if "Norm2d" in type(module).__name__}
    original = {}
    for key, value in theirs.state_dict().items():
        path, _, leaf = key.rpartition(".")
        original[f"{path}.{inner if path != 'stem.1' else 'bn'}.{leaf}" if path in norms else key] = value
    assert f"norm.{inner}.weight" in original and "stem.1.bn.running_mean" in original
    torch.save(original, tmp_path / "visformer.pth")
    assert_same(build("visformer_tiny", checkpoint_path=tmp_path / "visformer.pth", **kwargs), theirs, x)


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(attn_stage="11"), "attn_stage is three digits, each 0 or 1, not '11'"),
    (dict(spatial_conv="012"), "spatial_conv is three digits, each 0 or 1, not '012'"),
    (dict(depth=(1, 2)), r"depth is one number or one for each of the 3 stages, not \(1, 2\)"),
])
def test_bad_arguments(kwargs, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        Visformer(**kwargs)
