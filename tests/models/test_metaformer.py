"""MetaFormers: arguments of token mixers, logits as maps, the authors' files of both papers."""

import re

import pytest
import torch

import mvlib
from mvlib.models.metaformer import MetaFormer, SepConv

from .pairs import assert_same, assert_same_effect, build, pair

SMALL = dict(depths=(1, 1, 1, 1), dims=(8, 16, 24, 32))


@pytest.mark.parametrize(("name", "kwargs"), [
    ("caformer_s18", dict(head_dim=4, expansion_ratio=1.5, qkv_bias=True, global_pool="max", num_classes=0)),
    ("caformer_s18", dict(head_dim=16, num_heads=1, dims=(8, 16, 16, 16), use_mlp_head=False, in_chans=4)),
    ("poolformer_s12", dict(pool_size=5, depths=(2, 1), dims=(8, 12), res_scale_init_values=0.7)),
    ("convformer_s18", dict(mlp_bias=True, layer_scale_init_values=(0.1, None, 0.3, None), kernel_size=3, padding=1)),
], ids=str)
def test_arguments_have_timms_effect(name, kwargs):
    if kwargs.get("dims") == (8, 16, 16, 16):  # timm says that the third stage has a stride of 16
        ours, theirs, x = pair(name, **{**SMALL, **kwargs})
        assert_same(ours, theirs, x)
        assert [info["reduction"] for info in ours.feature_info] == [4, 8, 8, 8]
        assert ours.forward_features(x).shape[-2:] == (8, 8)
    else:
        assert_same_effect(name, **{**SMALL, **kwargs})


@pytest.mark.parametrize("name", ["poolformer_s12", "caformer_s18"])
def test_logits_without_pooling_are_a_map(name):
    model = mvlib.create_model(name, pretrained=False, num_classes=5, **SMALL).eval()
    x = torch.randn(2, 3, 64, 64)
    position = model.head.fc(model.head.norm(model.forward_features(x))[:, :, 1, 0])
    model.set_global_pool("")
    logits = model(x)
    assert logits.shape == (2, 5, 2, 2)
    torch.testing.assert_close(logits[:, :, 1, 0], position)


def test_poolformers_file_loads(tmp_path):
    _, theirs, x = pair("poolformer_s12", **SMALL)
    original = {}
    for key, value in theirs.state_dict().items():
        key = re.sub(r"^stages\.(\d)\.blocks\.", lambda m: f"network.{2 * int(m[1])}.", key)
        key = re.sub(r"^stages\.(\d)\.downsample\.conv", lambda m: f"network.{2 * int(m[1]) - 1}.proj", key)
        key = re.sub(r"layer_scale(\d)\.scale", r"layer_scale_\1", key).replace("stem.conv", "patch_embed.proj")
        original[key.replace("head.fc.", "head.").replace("head.norm.", "norm.")] = value
    assert {"network.5.proj.bias", "network.6.0.layer_scale_2", "norm.weight", "head.weight"} <= original.keys()
    torch.save(original, tmp_path / "poolformer.pth.tar")
    assert_same(build("poolformer_s12", checkpoint_path=tmp_path / "poolformer.pth.tar", **SMALL), theirs, x)


def test_the_baselines_files_load(tmp_path):
    """Whose MLPs and pointwise convolutions are linear layers."""
    _, theirs, x = pair("caformer_s18", **SMALL, head_dim=8)
    original = {}
    for key, value in theirs.state_dict().items():
        norm = "post_norm" if key.startswith("stem") else "pre_norm"
        key = re.sub(r"^stages\.(\d)\.downsample", r"downsample_layers.\1", key.replace("stem", "downsample_layers.0"))
        key = key.replace(".norm.", f".{norm}.") if key.startswith("downsample") else key.replace(".blocks.", ".")
        is_linear = value.ndim == 4 and value.shape[2:] == (1, 1) and "dwconv" not in key
        key = key.replace("head.fc.", "head.") if key.startswith("head.fc.") else key.replace("head.norm.", "norm.")
        original[key] = value.flatten(1) if is_linear else value
    assert original["stages.0.0.mlp.fc1.weight"].shape == (32, 8)
    assert {"downsample_layers.0.post_norm.weight", "downsample_layers.3.pre_norm.weight", "head.fc1.bias",
            "head.norm.bias", "norm.weight", "stages.2.0.token_mixer.qkv.weight"} <= original.keys()
    torch.save(original, tmp_path / "caformer.pth")
    assert_same(build("caformer_s18", checkpoint_path=tmp_path / "caformer.pth", **SMALL, head_dim=8), theirs, x)


@pytest.mark.parametrize(("kwargs", "error", "message"), [
    (dict(dims=(8, 16)), ValueError, "dims has 2 values, not one for each of 4 stages"),
    (dict(drop_path=0.1), TypeError, "unexpected argument 'drop_path'; beside its own it takes those of its token "
                                     "mixers: pool_size$"),
    (dict(token_mixers=SepConv, head_dim=3), TypeError, "unexpected argument 'head_dim'.* act1_layer, act2_layer, "),
])
def test_bad_arguments(kwargs, error, message):
    with torch.device("meta"), pytest.raises(error, match=message):
        MetaFormer(**kwargs)
