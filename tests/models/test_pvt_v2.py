"""PVT v2: arguments, and the authors' files."""

import pytest
import torch

import mvlib
from mvlib.models.pvt_v2 import OverlapPatchEmbed, PyramidVisionTransformerStage

from .pairs import assert_same, assert_same_effect, build, pair

NARROW = dict(embed_dims=(16, 16, 20, 32), depths=(1, 2, 1, 1))


@pytest.mark.parametrize("options", [
    dict(num_heads=2, sr_ratios=2, mlp_ratios=2, qkv_bias=False),
    dict(linear=True, in_chans=1, num_classes=0, global_pool="", norm_layer=torch.nn.LayerNorm),
])
def test_arguments_have_timms_effect(options):
    assert_same_effect("pvt_v2_b0", (64, 96), **NARROW, **options)


def test_the_authors_files_load(tmp_path):
    ours, _, x = pair("pvt_v2_b0", **NARROW)
    theirs = {}
    for key, value in ours.state_dict().items():
        kind, _, rest = key.partition(".")
        if kind == "patch_embed":
            key = f"patch_embed1.{rest}"
        elif kind == "stages":
            stage, part, rest = rest.split(".", 2)
            number = int(stage) + 1
            key = {"downsample": f"patch_embed{number}.{rest}", "norm": f"norm{number}.{rest}",
                   "blocks": f"block{number}.{rest}"}[part]
        theirs[key.replace(".dwconv.", ".dwconv.dwconv.")] = value
    assert "block2.1.mlp.dwconv.dwconv.weight" in theirs and "patch_embed4.norm.bias" in theirs
    torch.save(theirs, tmp_path / "pvt_v2_b0.pth")
    assert_same(build("pvt_v2_b0", checkpoint_path=tmp_path / "pvt_v2_b0.pth", **NARROW), ours, x)


@pytest.mark.parametrize(("arguments", "message"), [
    (dict(num_heads=3), "32 channels cannot be divided among 3 heads"),
    (dict(sr_ratios=(8, 4)), "sr_ratios has 2 values for the 4 stages of depths"),
    (dict(global_pool="max"), "unknown global_pool 'max'; known: 'avg', ''"),
])
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        mvlib.model_entrypoint("pvt_v2_b0")(**arguments)


def test_bad_parts():
    with pytest.raises(ValueError, match=r"patches of \(4, 4\) do not overlap: they have to exceed stride=4"):
        OverlapPatchEmbed(4)
    with pytest.raises(ValueError, match="a stage without downsample cannot turn 8 channels into 16"):
        PyramidVisionTransformerStage(8, 16, 1, downsample=False)
