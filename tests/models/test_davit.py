"""DaViT: options of timm's, images of any size, the files of its authors and of Florence 2."""

import re

import pytest
import torch

import mvlib
from mvlib.models.davit import ChannelAttentionV2, DaVit, SpatialBlock, Stem

from .pairs import assert_same, assert_same_effect, build, pair

SMALL = dict(depths=(1, 1, 2, 1), embed_dims=(8, 16, 24, 32), num_heads=(1, 2, 3, 4))


@pytest.mark.parametrize(("size", "kwargs"), [
    ((50, 75), dict(window_size=5, cpe_act=True, qkv_bias=False, global_pool="max", num_classes=0)),
    (61, dict(down_kernel_size=3, head_norm_first=True, global_pool="catavgmax", in_chans=4)),
    (61, dict(down_kernel_size=4, attn_types=("channel", "spatial"), named_blocks=True, channel_attn_v2=True)),
    (64, dict(attn_types=("channel",), ffn=False)),
], ids=str)
def test_arguments_have_timms_effect(size, kwargs):
    assert_same_effect("davit_tiny", size, **{**SMALL, **kwargs})


def test_windows_without_mlps():
    """timm's block cannot run so."""
    block = SpatialBlock(8, 2, window_size=3, ffn=False).eval()
    x = torch.randn(2, 8, 3, 3)
    expected = block.cpe1(x)
    attended = block.attn(block.norm1(expected.flatten(2).transpose(1, 2)))
    expected = block.cpe2(expected + attended.transpose(1, 2).unflatten(2, (3, 3)))
    torch.testing.assert_close(block(x), expected)


def test_the_pyramid():
    model = mvlib.create_model("davit_base_fl", pretrained=False, features_only=True, out_indices=(0, 2), **SMALL)
    assert [tuple(x.shape) for x in model(torch.randn(1, 3, 96, 64))] == [(1, 8, 24, 16), (1, 24, 6, 4)]


def test_the_scale_of_channels_attention_follows_the_positions_or_not():
    x = torch.randn(2, 9, 8)
    dynamic, fixed = (ChannelAttentionV2(8, 2, dynamic_scale=dynamic) for dynamic in (True, False))
    fixed.load_state_dict(dynamic.state_dict())
    q = fixed.qkv.weight[:8]
    with torch.no_grad():
        expected = dynamic(x)
        for part in (q, fixed.qkv.bias[:8]):
            part.mul_(4 ** 0.5 / 9 ** 0.5)  # 4 channels a head, 9 positions
        torch.testing.assert_close(fixed(x), expected)


def test_the_authors_files_load(tmp_path):
    _, theirs, x = pair("davit_tiny", **SMALL)
    original = {}
    for key, value in theirs.state_dict().items():
        key = re.sub(r"^stages\.(\d)\.downsample\.", r"patch_embeds.\1.", key.replace("stem.", "stages.0.downsample."))
        key = re.sub(r"^stages\.(\d)\.blocks\.", r"main_blocks.\1.", key)
        key = re.sub(r"\.cpe(\d)\.", lambda m: f".cpe.{int(m[1]) - 1}.", key)
        key = key.replace(".conv.", ".proj.") if key.startswith("patch") else key
        original[key.replace("head.fc.", "head.").replace("head.norm.", "norms.")] = value
    assert {"patch_embeds.0.proj.weight", "patch_embeds.1.norm.bias", "main_blocks.2.1.0.cpe.1.proj.bias",
            "norms.weight", "head.bias"} <= original.keys()
    torch.save({"state_dict": original}, tmp_path / "davit.pth")
    assert_same(build("davit_tiny", checkpoint_path=tmp_path / "davit.pth", **SMALL), theirs, x)


def test_florences_tower_loads_from_the_whole_model(tmp_path, caplog):
    """It has no norm behind the last stage: timm's, and ours, is then a fresh one."""
    kwargs = dict(SMALL, window_size=4, num_classes=0)
    _, theirs, x = pair("davit_base_fl", **kwargs)
    original = {"language_model.model.shared.weight": torch.ones(3, 4), "image_projection": torch.ones(2, 2)}
    for key, value in theirs.state_dict().items():
        if key.startswith("head.norm"):
            torch.nn.init.constant_(theirs.get_parameter(key), float(key.endswith("weight")))
            continue
        kind = "window" if "spatial" in key else "channel"
        key = re.sub(r"^stages\.(\d)\.downsample\.", r"convs.\1.", key.replace("stem.", "stages.0.downsample."))
        key = key.replace(".conv.", ".proj.") if key.startswith("convs") else key
        key = re.sub(r"^stages\.(\d)\.blocks\.", r"blocks.\1.", key)
        key = re.sub(r"\.cpe(\d)\.proj\.", r".conv\1.fn.dw.", key)
        key = key.replace(".norm1.", f".{kind}_attn.norm.").replace(".attn.", f".{kind}_attn.fn.")
        original["vision_tower." + key.replace(".norm2.", ".ffn.norm.").replace(".mlp.", ".ffn.fn.net.")] = value
    assert {"vision_tower.blocks.2.0.spatial_block.window_attn.fn.qkv.weight", "vision_tower.convs.1.proj.bias",
            "vision_tower.blocks.0.0.channel_block.ffn.fn.net.fc2.bias",
            "vision_tower.blocks.3.0.channel_block.conv1.fn.dw.weight"} <= original.keys()
    torch.save(original, tmp_path / "florence.bin")
    assert_same(build("davit_base_fl", checkpoint_path=tmp_path / "florence.bin", **kwargs), theirs, x)
    assert "there is no 'head.norm'" in caplog.text


def test_other_files_need_the_norm(tmp_path):
    model = build("davit_tiny", **SMALL)
    torch.save({k: v for k, v in model.state_dict().items() if "head.norm" not in k}, tmp_path / "davit.pth")
    with pytest.raises(mvlib.errors.CheckpointError, match=r"head\.norm"):
        build("davit_tiny", checkpoint_path=tmp_path / "davit.pth", **SMALL)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: DaVit(depths=(1, 1)), "depths, embed_dims and num_heads have a number for each stage, not 2, 4 and 4"),
    (lambda: DaVit(attn_types=("spatial", "temporal")), "unknown attn_types 'temporal'; known: spatial, channel"),
    (lambda: Stem(stride=2), "the stem has a stride of 4, not 2"),
])
def test_bad_arguments(make, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        make()
