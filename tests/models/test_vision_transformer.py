"""What is special to vision transformers: many options, sizes and foreign checkpoints. More is in tests/parity."""

import functools
import math
import re

import numpy
import pytest
import timm
import torch
import torchvision
from timm.layers import GluMlp as TimmGluMlp
from timm.layers import SwiGLU as TimmSwiGLU
from timm.models import beit as timm_beit
from timm.models import deit as timm_deit
from timm.models import vision_transformer as timm_vit
from torch import nn

import mvlib
from mvlib.layers.mlp import GluMlp, SwiGLU
from mvlib.layers.norm import LayerNorm
from mvlib.layers.patch_embed import PatchEmbed
from mvlib.loading import load_checkpoint, load_weights
from mvlib.models import deit, vision_transformer
from mvlib.models.tokens import TokenModel
from mvlib.models.vision_transformer import VisionTransformer
from mvlib.publish import save_for_hub
from tests.parity.harness import TOLERANCE, randomize, relative_difference

from . import pairs
from .pairs import assert_same, image

SMALL = dict(img_size=64, num_classes=7, embed_dim=32, depth=2, num_heads=4)
GRID = 4
POOLED = dict(class_token=False, global_pool="avg")
REGISTERS = dict(reg_tokens=3, no_embed_class=True)
MAP = dict(class_token=False, global_pool="map")

# Blocks and MLPs are classes: (ours, timm's), by name.
CLASSES = {
    name: (getattr(vision_transformer, name), getattr(timm_vit, name))
    for name in ("ResPostBlock", "ParallelScalingBlock", "DiffParallelScalingBlock", "ParallelThingsBlock")
}
CLASSES["swiglu"] = (SwiGLU, TimmSwiGLU)
CLASSES["packed"] = (functools.partial(GluMlp, gate_last=False), functools.partial(TimmGluMlp, gate_last=False))


def builder(side, model_class):
    """Builds a small model of ours (0) or timm's (1), which take their own classes."""
    return lambda **kwargs: model_class(**{
        key: CLASSES[value][side] if key in ("block_fn", "mlp_layer") else value
        for key, value in {**SMALL, **kwargs}.items()})


VIT = builder(1, timm_vit.VisionTransformer), builder(0, VisionTransformer)
DISTILLED = builder(1, timm_deit.VisionTransformerDistilled), builder(0, deit.VisionTransformerDistilled)


def pair(distilled=False, **kwargs):
    """Our model and timm's, with the same random weights."""
    return pairs.pair_of(*(DISTILLED if distilled else VIT), kwargs.get("img_size", 64), **kwargs)[:2]


def copied(state_dict):
    return {key: value.clone() for key, value in state_dict.items()}


def assert_equal_weights(model, expected):
    found = model.state_dict()
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


# options

@pytest.mark.parametrize("kwargs", [
    dict(),
    dict(patch_size=(8, 16), img_size=(32, 64)),
    dict(global_pool="max"),
    dict(global_pool="avgmax", reg_tokens=2),
    dict(global_pool="avg", pool_include_prefix=True),
    dict(global_pool="avg", fc_norm=False),
    dict(global_pool="token", fc_norm=True),
    dict(global_pool="", num_classes=0),
    dict(global_pool="prr"),
    dict(POOLED, global_pool="prr"),
    MAP,
    dict(global_pool="map", reg_tokens=2, pool_include_prefix=True),
    dict(num_classes=0),
    dict(final_norm=False),
    dict(pre_norm=True),
    dict(pos_embed="none"),
    dict(class_token=False, global_pool="avg", pos_embed=""),
    REGISTERS,
    dict(REGISTERS, class_token=False, global_pool="avg"),
    dict(reg_tokens=3),
    dict(qkv_bias=False, proj_bias=False),
    dict(qk_norm=True, init_values=1e-5, norm_layer="rmsnorm"),
    dict(scale_attn_norm=True, scale_mlp_norm=True),
    dict(embed_norm_layer="layernorm", act_layer="quick_gelu"),
    dict(mlp_layer="swiglu", mlp_ratio=2.5),
    dict(mlp_layer="packed", act_layer="silu"),
    dict(attn_layer="diff"),
    dict(attn_layer="diff", qk_norm=True, scale_attn_norm=True, norm_layer="rmsnorm"),
    dict(block_fn="ResPostBlock", init_values=0.1),
    dict(block_fn="ParallelThingsBlock", init_values=0.1),
    dict(block_fn="ParallelScalingBlock"),
    dict(block_fn="ParallelScalingBlock", qkv_bias=False, qk_norm=True, init_values=0.1),
    dict(block_fn="DiffParallelScalingBlock", qk_norm=True),
], ids=str)
def test_arguments_mean_what_they_mean_in_timm(kwargs):
    pairs.assert_same_models(*VIT, kwargs.get("img_size", 64), **kwargs)


@pytest.mark.parametrize("rates", [
    dict(pos_drop_rate=0.3), dict(proj_drop_rate=0.3), dict(drop_rate=0.3), dict(drop_path_rate=0.5),
], ids=str)
def test_dropout_is_where_timm_has_it(rates):
    """The same random numbers are drawn for the same tensors, so that outputs in training are equal too."""
    ours, theirs = pair(**rates, depth=3)
    outputs = []
    for model in (ours, theirs):
        torch.manual_seed(0)
        outputs.append(model.train()(image()))
    assert relative_difference(*outputs) < 1e-5
    assert not torch.equal(ours(image()), ours(image()))


def test_attention_dropout_drops_in_training_alone():
    ours, _ = pair(attn_drop_rate=0.5)
    assert torch.equal(ours(image()), ours(image()))
    assert not torch.equal(ours.train()(image()), ours(image()))


def test_patch_dropout_leaves_the_prefix_and_inference_alone():
    ours, theirs = pair(patch_drop_rate=0.5, reg_tokens=2)
    assert_same(ours, theirs, image())
    assert ours.train().forward_features(image()).shape == (2, 3 + GRID**2 // 2, 32)


@pytest.mark.parametrize("weight_init", ["", "jax", "jax_nlhb", "moco", "reset"])
@pytest.mark.parametrize("kwargs", [
    dict(fix_init=True),
    dict(block_fn="ResPostBlock", init_values=0.01),
    dict(mlp_layer="swiglu", reg_tokens=2),
    dict(block_fn="DiffParallelScalingBlock", init_values=0.01, qkv_bias=False),
    dict(MAP, init_values=0.01),
], ids=str)
def test_initial_weights_are_distributed_as_timms(kwargs, weight_init):
    pairs.assert_initialised_alike(*reversed(VIT), embed_dim=64, num_classes=50, weight_init=weight_init, **kwargs)


def test_distilled_initial_weights():
    torch.manual_seed(0)
    model = deit.VisionTransformerDistilled(**SMALL)
    for embedding in (model.dist_token, model.pos_embed, model.head_dist.weight):
        assert abs(embedding.std() - 0.02) < 0.01
    assert not model.head_dist.bias.any()


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(global_pool="mean"), "unknown global_pool 'mean'; known: '', 'avg', 'avgmax', 'max', 'token', 'map', 'prr'"),
    (dict(class_token=False), "global_pool 'token' needs a class token, which this model does not have"),
    (dict(weight_init="zeros"), "weight_init 'zeros' is not one of"),
    (dict(pos_embed="rotary"), "pos_embed 'rotary' is not one of '', 'none', 'learn'"),
    (dict(attn_layer="linear"), "unknown attn_layer 'linear'; known: '', 'attn', 'diff'"),
    (dict(num_heads=5), "32 channels cannot be divided among 5 heads"),
    (dict(patch_drop_rate=1.0), "a patch dropout of 1.0 leaves nothing"),
])
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        VisionTransformer(**{**SMALL, **kwargs})


def test_pooling_can_be_changed_but_attention_not_added():
    model, theirs = pair(**MAP)
    for m in (model, theirs):
        torch.manual_seed(0)
        m.reset_classifier(5, "avg")
    model.head.load_state_dict(theirs.head.state_dict())
    assert model.attn_pool is None
    assert_same(model, theirs, image())
    with pytest.raises(ValueError, match="attention pooling has weights: build the model with global_pool='map'"):
        model.reset_classifier(5, "map")
    with pytest.raises(ValueError, match="global_pool 'token' needs a class token"):
        model.reset_classifier(5, "token")


# features

@pytest.mark.parametrize("kwargs", [dict(), dict(REGISTERS), POOLED, dict(fc_norm=True)], ids=str)
@pytest.mark.parametrize("options", [
    dict(),
    dict(n=2, norm=True),
    dict(n=[0, 2], reshape=True),
    dict(n=(1,), return_prefix_tokens=True, reshape=True, norm=True),
], ids=str)
def test_intermediate_layers_equal_timms(kwargs, options):
    ours, theirs = pair(**kwargs, depth=3)
    with torch.inference_mode():
        found, expected = (m.get_intermediate_layers(image(), **options) for m in (ours, theirs))
    assert len(found) == len(expected)
    for a, b in zip(found, expected):
        assert isinstance(a, tuple) == isinstance(b, tuple)
        for left, right in zip(a, b) if isinstance(a, tuple) else [(a, b)]:
            assert relative_difference(left, right) < 1e-5


def test_intermediates_on_images_of_any_size():
    ours, theirs = pair(dynamic_img_size=True, dynamic_img_pad=True)
    with torch.inference_mode():
        found, expected = (m.forward_intermediates(image((50, 90))) for m in (ours, theirs))
    assert found[1][0].shape == (2, 32, 4, 6)
    assert relative_difference(found[0], expected[0]) < 1e-5
    for a, b in zip(found[1], expected[1]):
        assert relative_difference(a, b) < 1e-5


# sizes

@pytest.mark.parametrize("kwargs", [dict(), REGISTERS, dict(reg_tokens=2), POOLED, dict(pos_embed="none"),
                                    dict(distilled=True)], ids=str)
@pytest.mark.parametrize("pad", [False, True])
def test_dynamic_image_size(kwargs, pad):
    ours, theirs = pair(dynamic_img_size=True, dynamic_img_pad=pad, **kwargs)
    for size in (64, (48, 96), 128, *([(50, 71)] if pad else [])):
        assert_same(ours, theirs, image(size))


def test_image_of_another_size_is_refused():
    with pytest.raises(ValueError, match="96 x 64, its patches are made for 64 x 64; .*= or dynamic_img_size=True$"):
        VisionTransformer(**SMALL)(image((96, 64)))
    with pytest.raises(ValueError, match="the input is 60 x 64, which patches of 16 x 16 do not divide"):
        VisionTransformer(**SMALL, dynamic_img_size=True)(image((60, 64)))


@pytest.mark.parametrize("kwargs", [dict(), REGISTERS, POOLED, dict(dynamic_img_size=True)], ids=str)
@pytest.mark.parametrize("change", [
    dict(img_size=(96, 128)), dict(img_size=(32, 128)), dict(patch_size=8), dict(img_size=80, patch_size=(20, 10)),
], ids=str)
def test_set_input_size(kwargs, change):
    ours, theirs = pair(**kwargs)
    ours.pos_embed.requires_grad_(False)
    pairs.assert_same_resized(ours, theirs, **change)
    assert not ours.pos_embed.requires_grad


def test_set_input_size_is_remembered_for_saving(tmp_path):
    model = mvlib.create_model("vit_tiny_patch16_224", depth=1, num_classes=3).eval()
    model.set_input_size(img_size=(64, 128), patch_size=8)
    save_for_hub(model, tmp_path)
    again = mvlib.create_model(f"local-dir:{tmp_path}").eval()
    assert torch.equal(again(image((64, 128))), model(image((64, 128))))


@pytest.mark.parametrize(("distilled", "kwargs"), [(False, {}), (False, REGISTERS), (True, {})], ids=str)
@pytest.mark.parametrize("size", [
    dict(img_size=96), dict(img_size=(32, 80)), dict(patch_size=8), dict(img_size=96, patch_size=(24, 12)),
], ids=str)
def test_weights_of_another_size_are_resampled_as_in_timm(size, kwargs, distilled):
    _, source = pair(distilled, **kwargs)
    ours, theirs = pair(distilled, **kwargs, **size)
    expected = timm_vit.checkpoint_filter_fn(copied(source.state_dict()), theirs)
    pairs.assert_fitted(source.state_dict(), expected, ours, theirs)


@pytest.mark.parametrize("name", ["flexivit_small", "vit_base_patch16_radio_v3", "vit_huge_patch16_radio_v4"])
def test_families_that_resample_otherwise(name, monkeypatch):
    """timm decides by name what its filter gets; what it gives is what ours must hold."""
    filters = []
    build = timm_vit.build_model_with_cfg
    monkeypatch.setattr(timm_vit, "build_model_with_cfg", lambda *args, **kwargs: (
        filters.append(kwargs["pretrained_filter_fn"]), build(*args, **kwargs))[1])
    options = dict(embed_dim=32, num_heads=4, depth=1, num_classes=7)
    source, theirs = (timm.create_model(name, img_size=size, **options) for size in (160, 96))
    expected = filters[0](copied(source.state_dict()), theirs)
    ours = mvlib.create_model(name, img_size=96, device="meta", **options)
    load_weights(ours, source.state_dict())
    assert_equal_weights(ours, expected)
    bicubic = timm_vit.checkpoint_filter_fn(copied(source.state_dict()), theirs)
    assert not torch.allclose(bicubic["pos_embed"], expected["pos_embed"], atol=1e-4)


@pytest.mark.parametrize("size", [(64, 256), (112, 448), (64, 64)])  # the second has as many patches as 224 x 224
def test_own_weights_come_back_unchanged(size, tmp_path):
    model = mvlib.create_model("vit_tiny_patch16_224", img_size=size, depth=1, num_classes=3)
    save_for_hub(model, tmp_path)
    assert_equal_weights(mvlib.create_model(f"local-dir:{tmp_path}"), model.state_dict())
    if size == (112, 448):
        return  # a file alone does not tell such a grid from the architecture's own
    path = tmp_path / "model.safetensors"
    again = mvlib.create_model("vit_tiny_patch16_224", img_size=size, depth=1, num_classes=3, checkpoint_path=path)
    assert_equal_weights(again, model.state_dict())


def test_grid_of_a_repository_is_known(tmp_path):
    """112 x 448 has as many patches as 224 x 224: a square must not be assumed, and resampling must not be left out."""
    model = mvlib.create_model("vit_tiny_patch16_224", img_size=(112, 448), depth=1, num_classes=3)
    save_for_hub(model, tmp_path)
    ours = mvlib.create_model(f"local-dir:{tmp_path}", img_size=224)
    theirs = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, img_size=224)
    assert_equal_weights(ours, theirs.state_dict())
    assert not torch.equal(ours.pos_embed, model.pos_embed)


# foreign checkpoints: a timm model's weights, renamed as others name them, must come back as timm reads them

def renamed(state_dict, *pairs, prefix=""):
    out = {}
    for key, value in copied(state_dict).items():
        for pattern, replacement in pairs:
            key = re.sub(pattern, replacement, key)
        out[prefix + key] = value
    return out


def as_clip(weights, prefix="visual."):
    out = renamed(
        weights, (r"^patch_embed\.proj\.", "conv1."), ("^cls_token", "class_embedding"),
        ("^pos_embed", "positional_embedding"), (r"^norm_pre\.", "ln_pre."), (r"^norm\.", "ln_post."),
        (r"^blocks\.", "transformer.resblocks."), (r"\.norm(\d)\.", r".ln_\1."), (r"qkv\.", "in_proj_"),
        (r"attn\.proj\.", "attn.out_proj."), (r"mlp\.fc1\.", "mlp.c_fc."), (r"mlp\.fc2\.", "mlp.c_proj."),
        prefix=prefix)
    out[f"{prefix}class_embedding"] = out[f"{prefix}class_embedding"][0, 0]
    out[f"{prefix}positional_embedding"] = out[f"{prefix}positional_embedding"][0]
    out[f"{prefix}proj"] = out.pop(f"{prefix}head.weight").T
    del out[f"{prefix}head.bias"]
    text = prefix.removesuffix("visual.")
    return out | {f"{text}transformer.resblocks.0.ln_1.weight": torch.ones(3), f"{text}logit_scale": torch.ones(())}


def as_open_clip(weights, prefix="visual.trunk."):
    out = renamed(weights, prefix=prefix)
    if prefix == "visual.trunk.":
        out["visual.head.proj.weight"] = out.pop(f"{prefix}head.weight")
        del out[f"{prefix}head.bias"]
    return out | {prefix.replace("visual.trunk", "text") + "positional_embedding": torch.ones(2, 3)}


def as_dinov2(weights, prefix=""):
    out = renamed(weights, (r"mlp\.fc1\.", "mlp.w12."), (r"mlp\.fc2\.", "mlp.w3."), prefix=prefix)
    out[f"{prefix}mask_token"] = torch.zeros(1, 32)
    return out


def as_dinov2_with_registers(weights, prefix=""):
    out = renamed(weights, ("^reg_token$", "register_tokens"), prefix=prefix)
    out[f"{prefix}pos_embed"] = torch.cat([torch.full((1, 1, 32), 0.3), out[f"{prefix}pos_embed"]], dim=1)
    out[f"{prefix}mask_token"] = torch.zeros(1, 32)
    return out | ({"text_encoder.weight": torch.ones(2)} if prefix else {})


def as_aimv2(weights):
    return renamed(
        weights, (r"^patch_embed\.", "preprocessor.patchifier."), ("^pos_embed", "preprocessor.pos_embed"),
        (r"^norm\.", "trunk.post_trunk_norm."), (r"^blocks\.", "trunk.blocks."), (r"\.norm(\d)", r".norm_\1"),
        (r"fc1_g\.", "fc1."), (r"fc1_x\.", "fc3."))


def as_beit3(weights):
    out = {}
    for key, value in weights.items():
        if ".qkv." in key:
            for part, chunk in zip("qkv", value.chunk(3)):
                out[key.replace(".qkv.", f".{part}_proj.")] = chunk
        else:
            out[key] = value
    out = renamed(
        out, (r"^patch_embed\.", "vision_embed."), ("^cls_token", "vision_embed.cls_token"),
        (r"^blocks\.", "encoder.layers."), (r"\.norm1\.", ".self_attn_layer_norm.A."),
        (r"\.norm2\.", ".final_layer_norm.A."), (r"\.attn\.norm\.", ".self_attn.inner_attn_ln.A."),
        (r"\.attn\.proj\.", ".self_attn.out_proj.A."), (r"\.attn\.(.)_proj\.", r".self_attn.\1_proj.A."),
        (r"\.mlp\.norm\.", ".ffn.A.ffn_layernorm."), (r"\.mlp\.", ".ffn.A."))
    positions = torch.cat([torch.ones(2, 32), out.pop("pos_embed")[0]])
    heads = {key: out.pop(key) for key in list(out) if key.startswith(("head.", "fc_norm."))}
    other = {key.replace(".A.", ".B."): torch.ones(1) for key in out if ".A." in key}
    out = {f"beit3.{key}": value for key, value in {**out, **other}.items()}
    return out | heads | {"beit3.encoder.embed_positions.A.weight": positions,
                          "beit3.vision_embed.mask_token": torch.ones(1), "beit3.text_embed.weight": torch.ones(2)}


def as_radio(weights):
    prefix = "radio_model.model."
    out = renamed({k: v for k, v in weights.items() if k.startswith("blocks.")}, (r"\.gamma$", ".grandma"),
                  prefix=prefix)
    tokens = torch.cat([weights["cls_token"][0], weights["reg_token"][0]])
    positions = torch.randn(1, 8 * 8, 32, generator=torch.Generator().manual_seed(3))
    return out | {f"{prefix}patch_generator.embedder.weight": weights["patch_embed.proj.weight"].flatten(1),
                  f"{prefix}patch_generator.cls_token.token": tokens, f"{prefix}patch_generator.pos_embed": positions,
                  "radio_model.input_conditioner.norm_mean": torch.ones(3)}


AIMV2 = dict(POOLED, fc_norm=False, mlp_layer="swiglu", norm_layer="rmsnorm", qkv_bias=False, proj_bias=False,
             embed_norm_layer="rmsnorm", num_classes=0)
LAYOUTS = {  # name: (key map, model, the foreign weights from timm's)
    "clip": ("clip", dict(pre_norm=True), as_clip),
    "clip, wrapped": ("clip", dict(pre_norm=True), lambda w: as_clip(w, "module.visual.")),
    "open_clip": ("open_clip", MAP, as_open_clip),
    "open_clip, wrapped": ("open_clip", MAP, lambda w: as_open_clip(w, "module.visual.trunk.")),
    "dinov2": ("dinov2", dict(init_values=1e-5, mlp_layer="packed"), as_dinov2),
    "dinov2, registers": ("dinov2", dict(REGISTERS), as_dinov2_with_registers),
    "tipsv2": ("dinov2", dict(REGISTERS), lambda w: as_dinov2_with_registers(w, "vision_encoder.")),
    "aimv2": ("aimv2", AIMV2, as_aimv2),
    "beit3": ("beit3", dict(global_pool="avg", scale_attn_norm=True, scale_mlp_norm=True), as_beit3),
    "radio": ("radio", dict(REGISTERS, final_norm=False, init_values=1e-5, num_classes=0), as_radio),
    "radio, not square": ("radio", dict(REGISTERS, final_norm=False, num_classes=0, img_size=(32, 80)), as_radio),
    "deit3": (None, dict(init_values=1e-5), lambda w: renamed(w, (r"ls(\d)\.gamma", r"gamma_\1"))),
    "flattened patches": (None, {}, lambda w: w | {
        "patch_embed.proj.weight": w["patch_embed.proj.weight"].flatten(1),
        "pre_logits.fc.weight": torch.ones(2, 2)}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_foreign_layouts_are_read_as_in_timm(layout):
    key_map, kwargs, convert = LAYOUTS[layout]
    ours, theirs = pair(**kwargs)
    foreign = convert(theirs.state_dict())
    before = copied(foreign)
    assert next((m.name for m in ours.key_maps if m.matches(foreign)), None) == key_map
    options = dict(interpolation="bilinear", antialias=False) if key_map == "radio" else {}
    ours.resampling = {**ours.resampling, **options}
    expected = timm_vit.checkpoint_filter_fn(copied(foreign), theirs, adapt_layer_scale=True, **options)
    theirs.load_state_dict(expected)  # timm accepts it, so that the layout is a real one
    for parameter in ours.parameters():
        parameter.data.fill_(math.nan)
    load_weights(ours, foreign)
    assert_equal_weights(ours, theirs.state_dict())
    assert foreign.keys() == before.keys() and all(torch.equal(foreign[key], before[key]) for key in before)


def test_own_layout_is_not_mistaken_for_a_foreign_one():
    for kwargs in ({}, REGISTERS, MAP, AIMV2):
        ours, theirs = pair(**kwargs)
        assert not any(m.matches(theirs.state_dict()) for m in ours.key_maps)


def test_ijepa_keeps_its_encoder_in_a_wrapper(tmp_path):
    _, theirs = pair(**POOLED, num_classes=0)
    encoder = renamed(theirs.state_dict(), prefix="module.")
    torch.save({"encoder": encoder, "predictor": {"module.weight": torch.ones(1)}, "epoch": 3}, tmp_path / "ijepa.pth")
    ours, _ = pair(**POOLED, num_classes=0)
    load_checkpoint(ours, tmp_path / "ijepa.pth")
    assert_equal_weights(ours, theirs.state_dict())


@pytest.mark.parametrize("names", ["now", "before 0.13"])
def test_torchvision_gives_equal_outputs(names):
    theirs = torchvision.models.VisionTransformer(
        image_size=64, patch_size=16, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=128, num_classes=7)
    randomize(theirs, image())
    weights = theirs.state_dict()
    if names != "now":
        weights = renamed(weights, (r"mlp\.0\.", "mlp.linear_1."), (r"mlp\.3\.", "mlp.linear_2."))
    ours = VisionTransformer(**SMALL).eval()
    load_weights(ours, weights)
    assert_same(ours, theirs, image())


def as_jax(model, numbering, root="", stacked=False):
    """A model's weights as Flax arrays; `numbering` of a block's attention, MLP and second norm."""
    width, heads = model.embed_dim, model.blocks[0].attn.num_heads
    arrays = {}

    def put_norm(name, norm):
        arrays[f"{name}/scale"], arrays[f"{name}/bias"] = norm.weight, norm.bias

    def put_dense(name, layer):
        arrays[f"{name}/kernel"], arrays[f"{name}/bias"] = layer.weight.T, layer.bias

    def put_attention(name, weight, bias, parts, proj):
        for part, w, b in zip(parts, weight.chunk(len(parts)), bias.chunk(len(parts))):
            arrays[f"{name}/{part}/kernel"] = w.T.reshape(width, heads, -1)
            arrays[f"{name}/{part}/bias"] = b.reshape(heads, -1)
        arrays[f"{name}/out/kernel"] = proj.weight.T.reshape(heads, -1, width)
        arrays[f"{name}/out/bias"] = proj.bias

    arrays["embedding/kernel"] = model.patch_embed.proj.weight.permute(2, 3, 1, 0)
    arrays["embedding/bias"] = model.patch_embed.proj.bias
    arrays["pos_embedding" if numbering[0] == 0 else "Transformer/posembed_input/pos_embedding"] = model.pos_embed
    if model.cls_token is not None:
        arrays["cls"] = model.cls_token
    put_norm("Transformer/encoder_norm", model.norm)
    put_dense("head", model.head)
    for i, block in enumerate(model.blocks):
        name = f"Transformer/encoderblock_{i}"
        put_norm(f"{name}/LayerNorm_0", block.norm1)
        put_norm(f"{name}/LayerNorm_{numbering[2]}", block.norm2)
        put_attention(f"{name}/MultiHeadDotProductAttention_{numbering[0]}", block.attn.qkv.weight,
                      block.attn.qkv.bias, ("query", "key", "value"), block.attn.proj)
        put_dense(f"{name}/MlpBlock_{numbering[1]}/Dense_0", block.mlp.fc1)
        put_dense(f"{name}/MlpBlock_{numbering[1]}/Dense_1", block.mlp.fc2)
    if model.attn_pool is not None:
        pool, name = model.attn_pool, "MAPHead_0"
        arrays[f"{name}/probe"] = pool.latent
        put_attention(f"{name}/MultiHeadDotProductAttention_0", torch.cat([pool.q.weight, pool.kv.weight]),
                      torch.cat([pool.q.bias, pool.kv.bias]), ("query", "key", "value"), pool.proj)
        put_norm(f"{name}/LayerNorm_0", pool.norm)
        put_dense(f"{name}/MlpBlock_0/Dense_0", pool.mlp.fc1)
        put_dense(f"{name}/MlpBlock_0/Dense_1", pool.mlp.fc2)
    if stacked:
        first = "Transformer/encoderblock_0/"
        for rest in [key[len(first):] for key in arrays if key.startswith(first)]:
            blocks = [arrays.pop(f"Transformer/encoderblock_{i}/{rest}") for i in range(len(model.blocks))]
            arrays[f"Transformer/encoderblock/{rest}"] = torch.stack(blocks)
    return {root + key: value.detach().numpy().copy() for key, value in arrays.items()}


ORIGINAL, BIG_VISION = (1, 3, 2), (0, 0, 1)


@pytest.mark.parametrize("img_size", [64, 96, (32, 80)], ids=str)
@pytest.mark.parametrize(("kwargs", "numbering", "root", "stacked"), [
    ({}, ORIGINAL, "", False),
    ({}, ORIGINAL, "opt/target/", False),
    ({}, BIG_VISION, "params/", False),
    (MAP, BIG_VISION, "params/", True),
    (MAP, BIG_VISION, "params/img/", False),
])
def test_jax_arrays_are_read_as_in_timm(kwargs, numbering, root, stacked, img_size, tmp_path):
    _, source = pair(**kwargs)
    arrays = as_jax(source, numbering, root, stacked)
    if root == "params/img/":
        arrays |= {"params/txt/pos_embedding": numpy.ones((2, 3)), "params/t": numpy.ones(1)}
    numpy.savez(tmp_path / "weights.npz", **arrays)
    ours, theirs = pair(**kwargs, img_size=img_size)
    theirs.load_pretrained(str(tmp_path / "weights.npz"))
    load_checkpoint(ours, tmp_path / "weights.npz")
    assert_equal_weights(ours, theirs.state_dict())
    if img_size == 64:
        assert_equal_weights(ours, source.state_dict())


@pytest.mark.parametrize("change", [
    lambda arrays: {"pre_logits/kernel": numpy.ones((2, 2)), "pre_logits/bias": numpy.ones(2)},
    lambda arrays: {"head/kernel": arrays["head/kernel"][None, None]},
], ids=["not needed", "head of 1x1 convolution"])
def test_other_jax_arrays(change, tmp_path):
    _, source = pair()
    arrays = as_jax(source, ORIGINAL)
    numpy.savez(tmp_path / "weights.npz", **arrays | change(arrays))
    ours, _ = pair()
    load_checkpoint(ours, tmp_path / "weights.npz")
    assert_equal_weights(ours, source.state_dict())


def test_jax_arrays_of_a_deeper_model_are_an_error(tmp_path):
    _, source = pair(depth=3)
    numpy.savez(tmp_path / "weights.npz", **as_jax(source, ORIGINAL))
    with pytest.raises(mvlib.CheckpointError, match=r"(?s)unexpected \(12\): blocks\.2\."):
        load_checkpoint(VisionTransformer(**SMALL), tmp_path / "weights.npz")
    with pytest.raises(mvlib.CheckpointError, match=r"(?s)missing \(12\): blocks\.3\."):
        load_checkpoint(VisionTransformer(**{**SMALL, "depth": 4}), tmp_path / "weights.npz")


def test_attention_pooling_is_left_out_where_the_model_pools_otherwise():
    """timm loads SigLIP without its pooling too; ours takes the norm along, which stands behind the mean."""
    _, source = pair(**MAP)
    ours, _ = pair(**POOLED)
    load_weights(ours, source.state_dict())
    assert torch.equal(ours.fc_norm.weight, source.norm.weight)
    assert torch.equal(ours.blocks[1].mlp.fc2.weight, source.blocks[1].mlp.fc2.weight)
    with pytest.raises(mvlib.CheckpointError, match=r"(?s)missing \(13\): attn_pool\."):
        load_weights(pair(**MAP)[0], {k: v for k, v in source.state_dict().items() if "attn_pool" not in k})


# distilled

def test_distilled_training_gives_both_classifiers():
    ours, theirs = pair(distilled=True)
    for model in (ours, theirs):
        model.set_distilled_training()
    assert_same(ours, theirs, image())
    found, expected = ours.train()(image()), theirs.train()(image())
    assert isinstance(found, tuple)
    for a, b in zip(found, expected):
        assert relative_difference(a, b) < 1e-5
    torch.testing.assert_close(ours.eval()(image()), sum(found) / 2)


def test_distilled_classifiers_are_replaced_together():
    ours, _ = pair(distilled=True)
    ours.reset_classifier(3)
    assert ours.head.out_features == ours.head_dist.out_features == 3
    assert not torch.equal(ours.head.weight, ours.head_dist.weight)
    ours.reset_classifier(0)
    assert ours(image()).shape == (2, 32)


def test_distilled_models_pool_their_tokens_alone():
    with pytest.raises(ValueError, match="global_pool 'avg': a distilled model pools its two tokens alone"):
        deit.VisionTransformerDistilled(**SMALL, global_pool="avg")
    with pytest.raises(ValueError, match="a distilled model pools its two tokens alone"):
        pair(distilled=True)[0].reset_classifier(3, "avg")


# the base that other families stand on

class BiasedBlock(timm_beit.Block):
    def forward(self, x, bias):
        return super().forward(x, shared_rel_pos_bias=bias)


class Beit(TokenModel):
    """BEiT's flow, from timm's blocks."""

    fc_norm_name = "use_fc_norm"
    shared = ("bias",)

    def __init__(self, global_pool="avg", use_fc_norm=None):
        super().__init__()
        self.in_chans = 3
        self.add_tokens(PatchEmbed(64, embed_dim=32), 32, positions=False)
        self.rel_pos_bias = timm_beit.RelativePositionBias(self.patch_embed.grid_size, 4)
        self.blocks = torch.nn.Sequential(*(BiasedBlock(32, 4, qkv_bias=True) for _ in range(2)))
        self.add_head(LayerNorm, 7, global_pool, use_fc_norm)

    def share(self, x):
        return x, self.rel_pos_bias()


@pytest.mark.parametrize("pool", ["avg", "token"])
def test_blocks_share_what_a_family_gives_them(pool):
    ours = Beit(pool).eval()
    theirs = timm_beit.Beit(**SMALL, global_pool=pool, use_abs_pos_emb=False, use_shared_rel_pos_bias=True).eval()
    randomize(theirs, image())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    assert_same(ours, theirs, image())
    ours.set_grad_checkpointing()
    for model in (ours, theirs):
        model(image()).square().sum().backward()
    assert relative_difference(ours.rel_pos_bias.relative_position_bias_table.grad,
                               theirs.rel_pos_bias.relative_position_bias_table.grad) < 1e-4
    ours.set_global_pool("")
    assert ours.model_args == {"use_fc_norm": pool == "avg"}
    for model in (ours, theirs):
        model.prune_intermediate_layers([0], prune_norm=True)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert_same(ours, theirs, image())


# what is asked of masks, and by those who derive from the class


@pytest.mark.parametrize("name", [
    "vit_tiny_patch16_224", "vit_base_patch16_rpn_224", "vit_small_patch16_18x2_224", "vit_pwee_patch16_reg1_gap_256",
    "vit_dwee_patch16_reg1_gap_256", "vit_dpwee_patch16_reg1_gap_256"])
@torch.no_grad()
def test_masks_as_timms(name):
    ours, theirs, x = pairs.pair(name, 64, img_size=64, embed_dim=48, depth=2, num_heads=3)
    count = 16 + ours.num_prefix_tokens
    seen = torch.rand(count, count, generator=torch.Generator().manual_seed(0)) > 0.3
    for masks in (dict(attn_mask=seen), dict(attn_mask=seen.float() - 1), dict(is_causal=True)):
        logits, expected = ours(x, **masks), theirs(x, **masks)
        assert relative_difference(logits, expected) < TOLERANCE
        assert not torch.allclose(logits, ours(x))
        found, wanted = (m.forward_intermediates(x, [1], True, output_dict=True, **masks) for m in (ours, theirs))
        assert found.keys() == wanted.keys()
        for key, value in wanted.items():
            for own, other in zip(found[key], value, strict=True):
                assert relative_difference(own, other) < TOLERANCE
    with pytest.raises(ValueError, match="attn_mask and is_causal exclude each other"):
        ours(x, attn_mask=seen, is_causal=True)


def test_derived_classes_override_what_timms_do():
    """MAE's fine-tuning, DINO's and ToMe's: a subclass changes a part, all that is derived from it follows."""
    class Shifted(VisionTransformer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.scale = nn.Parameter(torch.tensor(2.0))
            self.fc_norm = nn.LayerNorm(self.embed_dim)
            del self.norm

        def _pos_embed(self, x):
            return super()._pos_embed(x) * self.scale

        def forward_features(self, x):
            x = self._pos_embed(self.patch_embed(x))
            for block in self.blocks:
                x = block(x)
            return self.fc_norm(x[:, 1:].mean(1))

        def forward_head(self, x, pre_logits=False):
            return x if pre_logits else self.head(x)

    class Hidden(VisionTransformer):
        def _pos_embed(self, x):
            return torch.zeros_like(super()._pos_embed(x))

    kwargs = dict(img_size=32, embed_dim=24, depth=1, num_heads=3, num_classes=5, qkv_bias=True,
                  norm_layer=functools.partial(nn.LayerNorm, eps=1e-6))
    x = image(32)
    model = Shifted(**kwargs)
    before = model(x)
    assert before.shape == (2, 5) and model.scale == 2
    with torch.no_grad():
        model.scale.zero_()
    assert not torch.allclose(model(x), before)
    model.init_weights("jax")  # what the class does not know of keeps its value
    assert model.scale == 0 and not model.head.weight.any()
    hidden = Hidden(**kwargs).eval()
    first, second = (hidden.forward_intermediates(x * factor, intermediates_only=True)[0] for factor in (1, 2))
    assert torch.equal(first, second)


def test_users_blocks_and_attention_know_no_masks():
    """Neither a mask nor `reset_parameters()` is asked of what a user gives."""
    class Gain(nn.Module):
        def __init__(self, dim, num_heads, **kwargs):
            super().__init__()
            self.gain = nn.Parameter(torch.full((dim,), 3.0))
            self.kwargs = kwargs

        def forward(self, x):
            return x * self.gain

    kwargs = dict(img_size=32, embed_dim=24, depth=2, num_heads=3, num_classes=5)
    model = VisionTransformer(**kwargs, block_fn=Gain)
    assert model(image(32)).shape == (2, 5) and (model.blocks[1].gain == 3).all()
    theirs = timm_vit.VisionTransformer(**kwargs, block_fn=Gain)
    assert set(theirs.blocks[0].kwargs) - {"device", "dtype"} == set(model.blocks[0].kwargs)
    for block in (model := VisionTransformer(**kwargs)).blocks:
        block.attn.forward = lambda x: x
    assert model(image(32)).shape == (2, 5)
    with torch.device("meta"):
        empty = VisionTransformer(**kwargs, block_fn=Gain)
    empty.to_empty(device="cpu")
    with pytest.raises(NotImplementedError, match="Gain at 'blocks.0' owns parameters, not reset_parameters"):
        empty.init_weights()


def test_constructor_and_initialisation_as_timms():
    model = VisionTransformer(32, 8, 1, 7, "avg", 24, 1, 3)
    assert model(torch.zeros(1, 1, 32, 32)).shape == (1, 7) and model.get_classifier(name_only=True) == "head"
    model.init_weights(mode="jax")
    assert not model.head.weight.any() and model.weight_init_mode == ""
    model.init_weights(mode="moco", needs_reset=False)
    assert model.head.weight.any()
    nn.init.zeros_(model.head.weight)
    model.head.apply(model._init_weights)
    assert model.head.weight.any() and model.head.weight.std() < 0.03
    model.norm_pre = nn.LayerNorm(24)
    nn.init.zeros_(model.norm_pre.weight)
    model.init_weights(needs_reset=False)
    assert not model.norm_pre.weight.any()
    before = model.blocks[0].mlp.fc2.weight.clone()
    model.fix_init_weight()
    assert torch.allclose(model.blocks[0].mlp.fc2.weight, before / 2 ** 0.5)
