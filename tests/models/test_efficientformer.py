"""EdgeNeXt, EfficientFormer V1 and V2: what sizes they know, distillation, and the authors' files."""

import re

import pytest
import torch

import mvlib
from mvlib.models.edgenext import SplitTransposeBlock
from mvlib.models.efficientformer import EfficientFormerStage
from mvlib.models.efficientformer_v2 import EfficientFormerV2Stage

from .pairs import assert_same, assert_same_effect, build, pair

EDGE = dict(dims=(8, 16, 24, 32), depths=(1, 2, 1, 1), heads=(2, 2, 2, 2))
V1 = dict(depths=(1, 1, 1, 3), embed_dims=(8, 16, 16, 32))
V2 = dict(depths=(1, 1, 1, 2), embed_dims=(8, 16, 16, 24), num_vit=1)


@pytest.mark.parametrize(("name", "size", "options"), [
    ("edgenext_xx_small", 64, dict(EDGE, head_norm_first=True, conv_bias=False, expand_ratio=2, head_init_scale=0.1)),
    ("edgenext_xx_small", 64, dict(EDGE, d2_scales=(2, 3, 4, 2), use_pos_emb=(True, False, True, True),
                                   global_block_counts=(1, 0, 1, 1), kernel_sizes=(3, 3, 5, 5))),
    ("efficientformer_l1", 224, dict(V1, num_vit=2, pool_size=5, mlp_ratios=2, act_layer=torch.nn.ReLU)),
    ("efficientformerv2_s0", 96, dict(V2, img_size=96, distillation=False, layer_scale_init_value=None, norm_eps=0.1)),
    ("efficientformerv2_s0", (96, 64), dict(V2, img_size=(96, 64), mlp_ratios=(1, 2, 3, (1, 2)))),
])
def test_arguments_have_timms_effect(name, size, options):
    assert_same_effect(name, size, **options)


def test_edgenext_takes_images_of_any_shape():
    assert_same(*pair("edgenext_xx_small", (71, 101), **EDGE))


@pytest.mark.parametrize(("name", "size", "options"), [
    ("efficientformer_l1", 224, V1), ("efficientformerv2_s0", 64, dict(V2, img_size=64)),
])
def test_a_pair_of_logits_in_training_that_is_distilled(name, size, options):
    ours, theirs, x = pair(name, size, num_classes=7, **options)
    for model in (ours, theirs):
        model.set_distilled_training()
        model.eval()
        assert model(x).shape == (2, 7)
        model.train()
    assert [logits.shape for logits in ours(x)] == [logits.shape for logits in theirs(x)] == [(2, 7)] * 2


def test_efficientformer_without_attention_pools_its_map():
    model = build("efficientformer_l1", num_vit=0, num_classes=7, **V1)
    with torch.inference_mode():
        x = torch.randn(2, 3, 64, 96)
        assert model.eval()(x).shape == (2, 7) and model.forward_features(x).shape == (2, 6, 32)
        assert model.forward_intermediates(x, intermediates_only=True)[-1].shape == (2, 32, 2, 3)


def test_efficientformers_authors_files_load(tmp_path):
    ours, _, x = pair("efficientformer_l1", 224, num_vit=2, **V1)
    index, renamed = {"downsample": lambda stage: 2 * stage - 1, "blocks": lambda stage: 2 * stage}, {}
    for key, value in ours.state_dict().items():
        match = re.match(r"stages\.(\d)\.(downsample|blocks)\.(.*)", key)
        if match:
            part = match[3].replace("conv.", "proj.") if match[2] == "downsample" else match[3]
            key = f"network.{index[match[2]](int(match[1]))}.{part}"
        key = re.sub(r"\bls(\d)\.gamma", r"layer_scale_\1", key.replace("head_dist.", "dist_head."))
        for number, name in enumerate(("conv1", "norm1", "", "conv2", "norm2")):
            key = key.replace(f"stem.{name}." if name else "\n", f"patch_embed.{number}.")
        renamed[key] = value
    torch.save({"model": renamed}, tmp_path / "efficientformer.pth")
    assert_same(build("efficientformer_l1", checkpoint_path=tmp_path / "efficientformer.pth", num_vit=2, **V1), ours, x)


def test_edgenexts_authors_files_load(tmp_path):
    ours, _, x = pair("edgenext_xx_small", 64, **EDGE)
    renamed = {}
    for key, value in ours.state_dict().items():
        for pattern, theirs in ((r"^stem\.", "downsample_layers.0."), (r"conv_dw", "dwconv"),
                                (r"^stages\.(\d)\.downsample", r"downsample_layers.\1"),
                                (r"^stages\.(\d)\.blocks", r"stages.\1"),
                                (r"mlp\.fc(\d)", r"pwconv\1"), (r"^head\.fc", "head"), (r"^head\.norm", "norm")):
            key = re.sub(pattern, theirs, key)
        renamed[key] = value.clone()
    renamed["stages.1.1.pos_embd.token_projection.weight"].squeeze_()  # a linear layer's
    torch.save({"model": renamed}, tmp_path / "edgenext.pth")
    assert_same(build("edgenext_xx_small", checkpoint_path=tmp_path / "edgenext.pth", **EDGE), ours, x)


@pytest.mark.parametrize(("name", "arguments", "message"), [
    ("edgenext_xx_small", dict(stem_type="deep"), "unknown stem_type 'deep'; known: 'patch', 'overlap'"),
    ("edgenext_xx_small", dict(heads=(4, 4)), "are one for each of the 4 stages"),
    ("efficientformer_l1", dict(depths=(1, 1)), "are one for each stage"),
    ("efficientformer_l1", dict(global_pool="max"), "unknown global_pool 'max'; known: 'avg', ''"),
    ("efficientformerv2_s0", dict(depths=(1, 1)), "are one for each stage"),
    ("efficientformerv2_s0", dict(global_pool="max"), "unknown global_pool 'max'; known: 'avg', ''"),
])
def test_bad_arguments(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        mvlib.model_entrypoint(name)(**arguments)


@pytest.mark.parametrize(("name", "options", "message"), [
    ("efficientformer_l1", V1, "attention is made for 7 x 7 tokens, not 4: images have sides of 224 and 224 pixels"),
    ("efficientformerv2_s0", V2, "the input is 4 x 4, not 14 x 14; resize the images, or build the model with img_s"),
])
def test_images_of_another_size(name, options, message):
    with pytest.raises(ValueError, match=message):
        build(name, **options)(torch.zeros(1, 3, 64, 64))


def test_bad_parts():
    with pytest.raises(ValueError, match="channels are split into 2 groups or more, not num_scales=1"):
        SplitTransposeBlock(8)
    for stage in (EfficientFormerStage, EfficientFormerV2Stage):
        with pytest.raises(ValueError, match="a stage without downsample keeps its 8 channels, they cannot become 16"):
            stage(8, 16, 1, downsample=False)
