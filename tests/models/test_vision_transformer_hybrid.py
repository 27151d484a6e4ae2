"""Hybrid vision transformers: sizes, initial weights, Google's arrays, MobileCLIP's keys."""

import re
from functools import partial

import numpy
import pytest
import timm
import torch
from torch import nn

import mvlib
from mvlib.layers import HybridEmbed

from .pairs import assert_initialised_alike, assert_same, assert_same_effect, assert_same_resized, build, image, pair
from .test_vision_transformer import ORIGINAL, as_jax

TINY = dict(img_size=64, depth=2, embed_dim=48, num_heads=3)
STEM, R26, MCI = "vit_tiny_r_s16_p8_224", "vit_small_r26_s32_224", "vit_base_mci_224"


@pytest.mark.parametrize(("name", "kwargs", "size"), [
    (STEM, dict(TINY, in_chans=1, global_pool="avg", reg_tokens=2), 64),
    (STEM, dict(TINY, img_size=(96, 64), patch_size=4, class_token=False, global_pool="avg"), (96, 64)),
    (STEM, dict(TINY, dynamic_img_size=True), (96, 64)),
    (STEM, dict(TINY, img_size=72, dynamic_img_size=True, dynamic_img_pad=True), 72),
    pytest.param(R26, dict(TINY, dynamic_img_size=True), 96, marks=pytest.mark.slow),
])
def test_arguments_have_timms_effect(name, kwargs, size):
    assert_same_effect(name, size, **kwargs)


@torch.inference_mode()
def test_images_whose_features_are_rounded_up():
    """timm's intermediates assume that they are rounded down."""
    ours, theirs, x = pair(STEM, (70, 102), **TINY, patch_size=2, dynamic_img_size=True)
    assert_same(ours, theirs, x)
    feature, = ours.forward_intermediates(x, 1, intermediates_only=True)
    assert feature.shape == (2, 48, 9, 13)
    assert torch.equal(feature.flatten(2), ours.forward_intermediates(
        x, 1, intermediates_only=True, output_fmt="NLC")[0].transpose(1, 2))


@pytest.mark.parametrize(("name", "change"), [
    (STEM, dict(img_size=96)), (STEM, dict(img_size=(32, 64), patch_size=4)), (MCI, dict(img_size=48)),
])
def test_size_is_changed_as_in_timm(name, change):
    kwargs = dict(TINY) if name == STEM else dict(img_size=64, depth=1)
    assert_same_resized(*pair(name, **kwargs)[:2], **change)


@pytest.mark.parametrize(("name", "kwargs"), [
    (R26, TINY), (STEM, dict(TINY, weight_init="jax")),
    pytest.param("vit_small_resnet50d_s16_224", TINY, marks=pytest.mark.slow),
])
def test_initial_weights_are_distributed_as_timms(name, kwargs):
    assert_initialised_alike(partial(build, name), partial(timm.create_model, name), **kwargs)


def arrays_of(model):
    """As google-research/vision_transformer writes a hybrid: kernels (height, width, in, out), norms (1, 1, 1, C)."""
    arrays, backbone = as_jax(model, ORIGINAL), model.patch_embed.backbone

    def put(name, module):
        if isinstance(module, nn.Conv2d):
            arrays[f"{name}/kernel"] = module.weight.permute(2, 3, 1, 0).detach().numpy()
        else:
            arrays[f"{name}/scale"] = module.weight.view(1, 1, 1, -1).detach().numpy()
            arrays[f"{name}/bias"] = module.bias.view(1, 1, 1, -1).detach().numpy()

    stem = getattr(backbone, "stem", backbone)
    put("conv_root", stem.conv)
    put("gn_root", stem.norm)
    for i, stage in enumerate(getattr(backbone, "stages", ()), start=1):
        for j, block in enumerate(stage.blocks, start=1):
            for number in (1, 2, 3):
                put(f"block{i}/unit{j}/conv{number}", block.get_submodule(f"conv{number}"))
                put(f"block{i}/unit{j}/gn{number}", block.get_submodule(f"norm{number}"))
            if block.downsample is not None:
                put(f"block{i}/unit{j}/conv_proj", block.downsample.conv)
                put(f"block{i}/unit{j}/gn_proj", block.downsample.norm)
    return arrays


@pytest.mark.parametrize("name", [STEM, R26])
def test_googles_arrays_are_read_as_in_timm(name, tmp_path):
    source = pair(name, **TINY)[1]
    numpy.savez(tmp_path / "hybrid.npz", **arrays_of(source))
    larger = dict(TINY, img_size=96)
    theirs = timm.create_model(name, **larger).eval()
    theirs.load_pretrained(str(tmp_path / "hybrid.npz"))
    ours = mvlib.create_model(name, checkpoint_path=tmp_path / "hybrid.npz", **larger).eval()
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value, rtol=1e-4, atol=1e-5, msg=key)
    assert_same(ours, theirs, image(96))


def test_mobileclips_image_tower(tmp_path):
    kwargs = dict(depth=1, num_classes=8)
    source = pair(MCI, 224, **kwargs)[1]
    names = ((r"^patch_embed\.backbone\.(\d)\.conv", r"patch_emb.\1.block.conv"), (r"^blocks\.", "transformer."),
             (r"^patch_embed\.backbone\.(\d)\.bn", r"patch_emb.\1.block.norm"),
             (r"^norm\.", "post_transformer_norm."),
             (r"\.norm1\.", ".pre_norm_mha.0."), (r"\.attn\.qkv\.", ".pre_norm_mha.1.qkv_proj."),
             (r"\.attn\.proj\.", ".pre_norm_mha.1.out_proj."), (r"\.norm2\.", ".pre_norm_ffn.0."),
             (r"\.mlp\.fc1\.", ".pre_norm_ffn.1."), (r"\.mlp\.fc2\.", ".pre_norm_ffn.4."),
             (r"^pos_embed$", "pos_embed.pos_embed.pos_embed"))
    weights = {"text_encoder.logit_scale": torch.ones(())}
    for key, value in source.state_dict().items():
        for pattern, replacement in names:
            key = re.sub(pattern, replacement, key)
        weights[f"image_encoder.model.{key}"] = value[None] if key.startswith("pos_embed") else value
    del weights["image_encoder.model.head.bias"]
    weights["image_encoder.model.classifier.proj"] = weights.pop("image_encoder.model.head.weight").T.contiguous()
    torch.save(weights, tmp_path / "mobileclip.pt")
    theirs = timm.create_model(MCI, **kwargs).eval()
    theirs.load_state_dict(timm.models.vision_transformer_hybrid.checkpoint_filter_fn(dict(weights), theirs))
    ours = mvlib.create_model(MCI, checkpoint_path=tmp_path / "mobileclip.pt", **kwargs).eval()
    assert_same(ours, theirs, image(224))


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(img_size=48), r"feature map of \(12, 12\), which patches of \(8, 8\) do not divide"),
    (dict(proj=False), r"64 channels in patches of \(8, 8\) cannot become embed_dim 48"),
])
def test_bad_sizes_are_named(kwargs, message):
    backbone = build(STEM, **TINY).patch_embed.backbone
    with pytest.raises(ValueError, match=message):
        HybridEmbed(backbone, **{"img_size": 64, "patch_size": 8, "embed_dim": 48, **kwargs})


def test_images_and_patches_of_another_size_are_refused():
    model = build(MCI, img_size=64, depth=1)
    with pytest.raises(ValueError, match="the input is 80 x 80, its patches are made for 64 x 64"):
        model(image(80))
    with pytest.raises(ValueError, match="patch_size cannot be changed: there are no patch weights"):
        model.set_input_size(patch_size=2)


def test_the_size_of_the_feature_map_can_be_given():
    backbone = build(STEM, **TINY).patch_embed.backbone
    embed = HybridEmbed(backbone, img_size=64, patch_size=8, feature_size=16, feature_ratio=4, embed_dim=48).eval()
    assert embed.grid_size == (2, 2) and embed.feat_ratio(as_scalar=False) == (32, 32)
    assert embed(image()).shape == (2, 4, 48)
