"""FocalNet: options of timm's, the authors' files."""

import re

import pytest
import torch

from mvlib.models.focalnet import Downsample, FocalModulation, FocalNetStage

from .pairs import assert_same, assert_same_effect, build, pair

SMALL = dict(depths=(1, 1, 2, 1), embed_dim=8)


@pytest.mark.parametrize("kwargs", [
    dict(normalize_modulator=True, focal_levels=(1, 2, 3, 4), focal_windows=(3, 5, 3, 1), global_pool="catavgmax"),
    dict(use_post_norm_in_modulation=True, layerscale_value=0.5, head_hidden_size=12, global_pool="max", in_chans=4),
    dict(use_overlap_down=True, mlp_ratio=2.0, num_classes=0, norm_layer=torch.nn.BatchNorm2d),
], ids=str)
def test_arguments_have_timms_effect(kwargs):
    assert_same_effect("focalnet_tiny_srf", (64, 96), **SMALL, **kwargs)


def test_without_levels_the_whole_map_modulates():
    layer = FocalModulation(8, focal_window=3, focal_level=0)
    x = torch.randn(2, 8, 5, 4)
    query, context, gate = layer.f(x).split([8, 8, 1], dim=1)
    whole = torch.nn.functional.gelu(context.mean((2, 3), keepdim=True)) * gate
    torch.testing.assert_close(layer(x), layer.proj(query * layer.h(whole)))


@pytest.mark.parametrize(("name", "post"), [("focalnet_tiny_srf", ""), ("focalnet_huge_fl3", "_post")])
def test_the_authors_files_load(tmp_path, name, post):
    """Whose pointwise layers are linear, and whose norms have one name wherever they stand."""
    kwargs = dict(SMALL, layerscale_value=0.1, num_classes=10)
    _, theirs, x = pair(name, **kwargs)
    original = {}
    for key, value in theirs.state_dict().items():
        key = key.replace("stem.", "patch_embed.").replace("_post.", ".").replace("modulation.norm.", "modulation.ln.")
        key = re.sub(r"^layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", key)
        key = re.sub(r"\.ls(\d)\.gamma", r".gamma_\1", key).replace("head.fc.", "head.")
        is_linear = any(f".{part}." in key for part in ("f", "fc1", "fc2"))
        original[key] = value.flatten(1) if is_linear and value.ndim == 4 else value
    assert original["layers.0.blocks.0.modulation.f.weight"].ndim == 2
    assert {"layers.0.downsample.proj.weight", "layers.2.blocks.1.gamma_2", "layers.0.blocks.0.norm1.weight",
            "norm.weight", "head.weight"} <= original.keys()
    assert ("layers.0.blocks.0.modulation.ln.weight" in original) == bool(post)
    torch.save({"model": original}, tmp_path / "focalnet.pth")
    assert_same(build(name, checkpoint_path=tmp_path / "focalnet.pth", **kwargs), theirs, x)


def test_one_rate_for_all_blocks():
    stage = FocalNetStage(8, 8, 2, downsample=False, drop_path=0.3)
    assert [block.drop_path1.drop_prob for block in stage.blocks] == [0.3, 0.3]


def test_bad_arguments():
    with pytest.raises(ValueError, match="overlapping convolutions have a stride of 2 or 4, not 8"):
        Downsample(3, 8, stride=8, overlap=True)
