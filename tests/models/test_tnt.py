"""TNT: images that patches do not divide, the authors' files, other sizes, and what it refuses."""

import pytest
import torch
from timm.models.tnt import checkpoint_filter_fn

from mvlib.loading import load_weights
from mvlib.models.tnt import _NAMES, TNT

from .pairs import assert_same, assert_same_effect, build, pair

SMALL = dict(depth=2, embed_dim=24, inner_dim=8, num_heads_inner=2, num_heads_outer=3)
BOTH = pytest.mark.parametrize("name", ["tnt_s_patch16_224", "tnt_s_legacy_patch16_224"])


@pytest.mark.parametrize(("name", "stride"), [("tnt_s_patch16_224", 5), ("tnt_s_legacy_patch16_224", 4)])
def test_arguments_have_timms_effect(name, stride):
    assert_same_effect(name, (72, 50), img_size=(72, 50), patch_size=(16, 12), first_stride=stride, qkv_bias=True,
                       mlp_ratio=2.5, global_pool="avg", in_chans=2, **SMALL)


def authors(state_dict, flat):
    """The layout of the authors' file: other names, pixels' positions as tokens, a tensor that nothing reads."""
    names = {ours: theirs for theirs, ours in _NAMES.items()}
    renamed = {".".join(names.get(part, part) if part != "mlp" else "outer_mlp" for part in key.split(".")): value
               for key, value in state_dict.items()}
    if flat:
        renamed["inner_pos"] = renamed["inner_pos"].flatten(2).transpose(1, 2)
    return {"outer_tokens": torch.zeros(1, 16, 24), **renamed}


@BOTH
def test_the_authors_file(name, tmp_path):
    _, theirs, x = pair(name, 64, img_size=64, **SMALL)
    file = authors(theirs.state_dict(), flat="legacy" not in name)
    assert {"outer_pos", "inner_pos", "patch_embed.proj.weight", "blocks.1.inner_attn.qk.weight"} < file.keys()
    assert checkpoint_filter_fn(dict(file), theirs).keys() == theirs.state_dict().keys()
    torch.save({"state_dict": file}, tmp_path / "tnt.pth.tar")
    assert_same(build(name, checkpoint_path=tmp_path / "tnt.pth.tar", img_size=64, **SMALL), theirs, x)


def test_positions_of_another_size_are_resampled():
    _, source, _ = pair("tnt_s_patch16_224", 64, img_size=64, **SMALL)
    ours, theirs, x = pair("tnt_s_patch16_224", 96, img_size=96, **SMALL)
    theirs.load_state_dict(checkpoint_filter_fn(source.state_dict(), theirs))
    load_weights(ours, source.state_dict())
    assert_same(ours, theirs, x)
    ours.load_state_dict(authors(source.state_dict(), flat=True))
    assert_same(ours, theirs, x)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="unknown global_pool 'max'; known: '', 'token', 'avg'"):
        TNT(**SMALL, global_pool="max")
    with pytest.raises(ValueError, match="24 channels cannot be divided among 5 heads"):
        TNT(**{**SMALL, "num_heads_outer": 5})
    with pytest.raises(ValueError, match="the input is 64 x 64, its patches are made for 32 x 32"):
        TNT(**SMALL, img_size=32)(torch.zeros(1, 3, 64, 64))
    with pytest.raises(NotImplementedError, match="built for one size"):
        TNT(**SMALL, img_size=32).set_input_size(64)
