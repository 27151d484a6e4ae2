"""ByobNet: branches that are merged, CLIP's files, stems and options that no architecture has."""

import re
from functools import partial

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.byobnet import _convert_openai_clip
from timm.utils import reparameterize_model
from torch import nn

import mvlib
from mvlib.layers import reparameterize
from mvlib.models.byobnet import ByoBlockCfg, ByobNet, interleave_blocks, register_block
from mvlib.models.byobnet_blocks import BasicBlock
from tests.parity import harness

from ..parity.representatives import REPRESENTATIVES
from .pairs import assert_same, assert_same_effect, build, image, pair

SMALL = REPRESENTATIVES["byobnet"]
STAGES = tuple(ByoBlockCfg("bottle", 1, 16 * i, s=min(i, 2), gs=8) for i in (1, 2, 3))


def from_file(name, state_dict, folder, **kwargs):
    save_file(state_dict, folder / "weights.safetensors")
    return build(name, **kwargs, checkpoint_path=folder / "weights.safetensors")


@pytest.mark.parametrize(("name", "kwargs"), [
    ("test_byobnet", dict(output_stride=8, stem_type="7x7", drop_block_rate=0.1)),
    ("test_byobnet", dict(blocks=[interleave_blocks(("dark", "edge"), 5, every=2, first=True, c=24, s=1), STAGES[2]],
                          stem_type="deep", stem_pool="max2", aa_layer="blur", head_type="mlp", downsample="")),
    ("test_byobnet", dict(blocks=STAGES, stem_type="", stem_pool="avg", stem_chs=(8, 16), norm_layer="groupnorm1",
                          num_features=40)),
    ("resnet50_clip", dict(**SMALL["resnet50_clip"], head_type="attn_rot", head_hidden_size=64, output_stride=16)),
    ("repvgg_d2se", dict(**SMALL["repvgg_d2se"], output_stride=8)),
])
def test_options_have_timms_effect(name, kwargs):
    assert_same_effect(name, **kwargs)


def test_intermediates_without_the_last_convolution():
    ours, theirs, x = pair("resnet51q", **SMALL["resnet51q"])
    for options in ({}, dict(stop_early=True, indices=[-1])):
        (final, maps), (expected_final, expected) = (
            model.forward_intermediates(x, exclude_final_conv=True, **options) for model in (ours, theirs))
        for own, other in zip([final, *maps], [expected_final, *expected], strict=True):
            torch.testing.assert_close(own, other)


@pytest.mark.parametrize("name", ["repvgg_d2se", "mobileone_s0"])
def test_branches_are_merged_and_merged_files_load(name, tmp_path):
    ours, theirs, x = pair(name, **SMALL[name], drop_block_rate=0.2, drop_path_rate=0.1)
    merged, report = mvlib.optimize(ours, x, compile="off")
    assert report["reparameterize"].done
    assert not any(isinstance(module, nn.BatchNorm2d) for module in merged.modules())
    assert harness.relative_difference(merged(x), ours(x)) < 1e-4

    weights = reparameterize_model(theirs).state_dict()
    loaded = from_file(name, weights, tmp_path, **SMALL[name])  # into branches
    assert loaded.state_dict().keys() == ours.state_dict().keys() and reparameterize(ours) == 6
    assert weights.keys() == ours.state_dict().keys()
    without = from_file(name, weights, tmp_path, **SMALL[name], block_kwargs=dict(inference_mode=True))
    with torch.inference_mode():
        for model in (loaded, ours, without):
            assert harness.relative_difference(model(x), theirs(x)) < 1e-5


ORIGINAL = {  # our names in those of the authors' repositories
    "repvgg_d2se": [(r"conv_kxk", "rbr_dense"), (r"conv_1x1", "rbr_1x1"), (r"identity", "rbr_identity"),
                    (r"attn.fc1", "se.down"), (r"attn.fc2", "se.up"), ("reparam_conv", "rbr_reparam")],
    "mobileone_s0": [(r"conv_kxk", "rbr_conv"), (r"conv_scale", "rbr_scale"), (r"identity", "rbr_skip")],
}


@pytest.mark.parametrize(("name", "is_merged"), [("repvgg_d2se", True), ("mobileone_s0", False)])
def test_the_authors_files(name, is_merged, tmp_path):
    ours, theirs, x = pair(name, **SMALL[name])
    if is_merged:
        reparameterize(ours)
    original = {}
    for key, value in ours.state_dict().items():
        key = re.sub(r"^stages\.(\d)", lambda match: f"stage{int(match[1]) + 1}", key)
        for pattern, word in [("^stem", "stage0"), (r"^head\.fc", "linear"), *ORIGINAL[name]]:
            key = re.sub(pattern, word, key)
        original[key] = value
    assert_same(from_file(name, original, tmp_path, **SMALL[name]), theirs, x)


@pytest.mark.parametrize(("name", "prefix"), [("resnet50_clip", "visual."), ("resnet50_clip_gap", "module.visual.")])
def test_clips_files(name, prefix, tmp_path):
    """A whole CLIP, as OpenAI and OpenCLIP save it."""
    tower, x = pair("resnet50_clip", **SMALL["resnet50_clip"])[0], image()
    clip = {"logit_scale": torch.ones(()), "positional_embedding": torch.rand(7, 4)}
    for key, value in tower.state_dict().items():
        key = re.sub(r"^stem\.conv(\d)\.(conv|bn)", r"\2\1", key)
        key = re.sub(r"^stages\.(\d)", lambda match: f"layer{int(match[1]) + 1}", key)
        key = re.sub(r"conv(\d)_\dx\d\.(conv|bn)|conv(2)_kxk\.(conv|bn)",
                     lambda match: f"{match[2] or match[4]}{match[1] or match[3]}", key)
        key = key.replace("shortcut.conv.conv", "downsample.0").replace("shortcut.conv.bn", "downsample.1")
        key = re.sub(r"^head\.([qkv])\.", r"attnpool.\1_proj.", key).replace("head.proj", "attnpool.c_proj")
        clip[prefix + key.replace("head.pos_embed", "attnpool.positional_embedding")] = value
    theirs = timm.create_model(name, **SMALL["resnet50_clip"]).eval()
    theirs.load_state_dict(_convert_openai_clip(clip, theirs, prefix))
    assert_same(from_file(name, clip, tmp_path, **SMALL["resnet50_clip"]), theirs, x)


def test_positions_for_images_of_another_size(tmp_path):
    ours = pair("resnet50_clip", **SMALL["resnet50_clip"])[0]
    other = from_file("resnet50_clip", ours.state_dict(), tmp_path, **{**SMALL["resnet50_clip"], "img_size": (96, 160)})
    assert other.head.feat_size == (3, 5) and other.img_size == (96, 160)
    assert_same(other, ours, image((96, 160)))


def test_own_blocks():
    register_block("own", partial(BasicBlock, linear_out=True))
    model = ByobNet([ByoBlockCfg("own", 2, 8, gs=lambda chs, i: chs // (i + 1)), ByoBlockCfg(BasicBlock, 1, 16)])
    first, second = model.stages[0]
    assert isinstance(first.act, nn.Identity) and first.conv2_kxk.conv.groups == 1 and second.conv2_kxk.conv.groups == 2
    assert isinstance(model.stages[1][0].act, nn.ReLU) and model(image()).shape == (2, 1000)


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(output_stride=4), "unknown output_stride 4; known: 8, 16, 32"),
    (dict(head_type="linear"), "unknown head_type 'linear'"),
    (dict(head_hidden_size=8), "head_hidden_size is for head_type 'mlp'"),
    (dict(head_type="attn_abs"), "img_size is needed: pooling by attention"),
    (dict(fixed_input_size=True), "img_size is needed: the model is made"),
    (dict(stem_type="5x5"), "unknown stem_type '5x5'"),
    (dict(stem_pool="blur"), "unknown stem_pool 'blur'; known: '', 'max'"),
    (dict(downsample="max"), "unknown downsample 'max'; known: 'conv1x1', 'avg', ''"),
    (dict(blocks=[ByoBlockCfg("bottel", 1, 8)]), "unknown type of block 'bottel'; known: basic, bottle"),
    (dict(blocks=[ByoBlockCfg("self_attn", 1, 8)]), "needs a self_attn_layer"),
    (dict(blocks=[ByoBlockCfg("basic", 1, 16, gs=5)]), "16 channels cannot be divided into groups of 5"),
    (dict(head_type="attn_rot", img_size=64, global_pool="avg"), "unknown global_pool 'avg'; known to pooling by"),
    (dict(head_type="attn_rot", img_size=64), "48 channels cannot be divided into heads"),
])
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        ByobNet(**{"blocks": STAGES, **kwargs})
