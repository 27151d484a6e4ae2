"""What is special to EVA's family: rotary positions, options, sizes, and the authors' layouts of weights."""

import re

import pytest
import timm
import torch
from timm.models import eva as timm_eva

import mvlib
from mvlib.loading import load_checkpoint, load_weights
from mvlib.models.eva import Eva
from tests.parity import harness

from . import pairs
from .pairs import assert_same, image

SMALL = dict(img_size=64, num_classes=7, embed_dim=32, depth=2, num_heads=2)
ROTARY = dict(use_rot_pos_emb=True)
DINOV3 = dict(ROTARY, rope_type="dinov3", rope_temperature=100, rope_rotate_half=True, use_abs_pos_emb=False,
              num_reg_tokens=4, use_fc_norm=False, init_values=0.1)
MIXED = dict(ROTARY, rope_type="mixed", rope_temperature=10.0, rope_grid_indexing="xy", attn_type="rope")
KINDS = {"cat": dict(ROTARY, ref_feat_shape=3, rope_grid_offset=1.0), "mixed": MIXED, "dinov3": DINOV3,
         "mrope": dict(ROTARY, rope_type="mrope", rope_mrope_section=(2, 3, 3)), "none": {}}


def ours(**kwargs):
    return Eva(**{**SMALL, **kwargs})


def theirs(**kwargs):
    return timm_eva.Eva(**{**SMALL, **kwargs})


def pair(size=64, **kwargs):
    return pairs.pair_of(theirs, ours, size, **kwargs)


@pytest.mark.parametrize("kwargs", [
    dict(KINDS["mrope"]),
    dict(KINDS["cat"], use_post_norm=True, swiglu_mlp=True, scale_mlp=True, scale_attn_inner=True),
    dict(use_fc_norm=True, use_post_transformer_norm=True, global_pool="max"),
    dict(use_fc_norm=False, use_post_transformer_norm=False, num_reg_tokens=2, no_embed_class=True),
    dict(MIXED, use_pre_transformer_norm=True, global_pool="map", num_reg_tokens=1, attn_pool_num_heads=4),
    dict(DINOV3, attn_type="rope", qkv_fused=False, num_kv_heads=(1, 2), qk_norm=True, attn_only_layer_scale=True),
    dict(global_pool="", num_classes=0, img_size=(32, 64), patch_size=(8, 16)),
], ids=str)
def test_arguments_mean_what_they_mean_in_timm(kwargs):
    pairs.assert_same_models(theirs, ours, kwargs.get("img_size", 64), **kwargs)


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_any_size(kind):
    own, other, _ = pair(**KINDS[kind], dynamic_img_size=True, dynamic_img_pad=True)
    for size in (64, (96, 40)):
        assert_same(own, other, image(size))
        found, expected = (model.forward_intermediates(image(size), intermediates_only=True) for model in (own, other))
        assert [t.shape for t in found] == [t.shape for t in expected]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", [dict(img_size=(32, 96)), dict(patch_size=8)], ids=str)
def test_input_size_is_changed_as_in_timm(kind, change):
    own, other, _ = pair(**KINDS[kind])
    pairs.assert_same_resized(own, other, **change)


@pytest.mark.parametrize("kind", ["cat", "mixed", "dinov3"])
def test_patch_dropout_keeps_the_rotation_of_what_is_kept(kind):
    own, other, x = pair(**KINDS[kind], patch_drop_rate=0.5, drop_path_rate=0.3, proj_drop_rate=0.2)
    outputs = []
    for model in (own.train(), other.train()):
        torch.manual_seed(0)
        outputs.append(model(x))
    assert harness.relative_difference(*outputs) < 1e-5


def test_random_coordinates_in_training_are_timms():
    own, other, x = pair(**DINOV3, dynamic_img_size=True, rope_rescale_coords=2.0, rope_shift_coords=0.3)
    assert torch.equal(own(x), own(x))
    outputs = []
    for model in (own.train(), other.train()):
        torch.manual_seed(0)
        outputs.append(model(x))
    assert harness.relative_difference(*outputs) < 1e-5
    assert not torch.equal(own(x), own(x))


def test_masks_are_those_of_timm():
    own, other, x = pair(**DINOV3)
    mask = torch.rand(21, 21, generator=torch.Generator().manual_seed(0)) > 0.5
    mask.fill_diagonal_(True)
    for options in (dict(attn_mask=mask), dict(is_causal=True)):
        assert harness.relative_difference(own(x, **options), other(x, **options)) < 1e-5
        assert not torch.allclose(own(x, **options), own(x))


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(ROTARY, rope_type="base"), "unknown rope_type 'base'; known: cat, dinov3, mixed, mrope"),
    (dict(num_kv_heads=(2,)), "num_kv_heads has 1 numbers for 2 blocks"),
    (dict(num_kv_heads=1), "1 heads of keys and values for 2 of queries need attn_type='rope', not 'eva'"),
    (dict(use_post_norm=True, qk_norm=True),
     "qk_norm, num_kv_heads and attn_only_layer_scale are not for use_post_norm=True"),
    (dict(class_token=False, global_pool="token"),
     "global_pool 'token' needs a class token, which this model does not have"),
], ids=str)
def test_what_the_constructor_refuses(kwargs, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ours(**kwargs)


# the authors' layouts

SWIGLU = dict(swiglu_mlp=True, scale_mlp=True, qkv_fused=False, scale_attn_inner=True)


def as_eva(state_dict):
    """EVA-02's: with the tables of its rotary embedding, and what its pretraining adds."""
    names = (("mlp.fc1_g", "mlp.w1"), ("mlp.fc1_x", "mlp.w2"), ("mlp.fc2", "mlp.w3"), ("mlp.norm", "mlp.ffn_ln"),
             ("attn.norm", "attn.inner_attn_ln"), ("q_proj.bias", "q_bias"), ("v_proj.bias", "v_bias"))
    return {**renamed(state_dict, *names), "rope.freqs_cos": torch.ones(16, 16), "blocks.0.attn.rope.freqs_sin":
            torch.ones(16, 16)}


def as_pretrained(state_dict):
    out = renamed(as_eva(state_dict), ("fc_norm.", "norm."))
    return {**out, "mask_token": torch.ones(1, 1, 32), "lm_head.weight": torch.ones(9, 32),
            "lm_head.bias": torch.ones(9)}


def renamed(state_dict, *pairs):
    out = {}
    for key, value in state_dict.items():
        for new, old in pairs:
            key = key.replace(new, old)
        out[key] = value
    return out


def prefixed(state_dict, prefix):
    return {**{f"{prefix}{key}": value for key, value in state_dict.items()}, "text.token_embedding.weight":
            torch.ones(2, 2), "logit_scale": torch.ones(())}


def as_dinov3(state_dict):
    out = renamed(state_dict, ("gamma_1", "ls1.gamma"), ("gamma_2", "ls2.gamma"), ("reg_token", "storage_tokens"),
                  ("mlp.fc1_g", "mlp.w1"), ("mlp.fc1_x", "mlp.w2"), ("fc2", "w3" if "blocks.0.mlp.fc1_g.weight" in
                                                                    state_dict else "fc2"))
    for key in [key for key in out if key.endswith(".q_bias")]:
        q, v = out.pop(key), out.pop(key.replace("q_bias", "v_bias"))
        out[key.replace("q_bias", "qkv.bias")] = torch.cat((q, torch.full_like(q, torch.nan), v))
        out[key.replace("q_bias", "qkv.bias_mask")] = torch.ones(3 * len(q))
    return {**out, "mask_token": torch.ones(1, 32), "rope_embed.periods": torch.ones(4), "local_cls_norm.weight":
            torch.ones(32), "projectors.0.weight": torch.ones(2, 2)}


def as_sapiens2(state_dict):
    out = renamed(state_dict, ("mlp.fc1", "ffn.w12"), ("mlp.fc2", "ffn.w3"), ("q_proj", "wq"), ("k_proj", "wk"),
                  ("v_proj", "wv"), ("gamma_1", "attn.gamma.weight"), (".norm1", ".ln1"), (".norm2", ".ln2"),
                  ("patch_embed.proj", "patch_embed.projection"), ("reg_token", "storage_tokens"))
    out = {re.sub(r"^norm\.", "ln1.", key): value for key, value in out.items()}
    return {**out, "mask_token": torch.ones(1, 32), "rope_embed.periods": torch.ones(4)}


def as_pe(state_dict):
    out = dict(state_dict)
    for kind in ("weight", "bias"):
        if f"attn_pool.q.{kind}" in out:
            joint = torch.cat((out.pop(f"attn_pool.q.{kind}"), out.pop(f"attn_pool.kv.{kind}")))
            out[f"attn_pool.attn.in_proj_{kind}"] = joint
    out = renamed(out, ("attn.qkv.", "attn.in_proj_"), ("attn_pool.proj", "attn_pool.attn.out_proj"),
                  ("attn.proj", "attn.out_proj"), ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"),
                  ("attn_pool.norm", "attn_pool.layernorm"), ("attn_pool.latent", "attn_pool.probe"),
                  ("gamma_", "ls_"), ("blocks.", "transformer.resblocks."), ("patch_embed.proj", "conv1"),
                  ("norm_pre", "ln_pre"))
    out = {re.sub(r"(ls_\d)$", r"\1.gamma", re.sub(r"\.norm(\d)", r".ln_\1", re.sub(r"^norm\.", "ln_post.", key))): v
           for key, v in out.items()}
    if "cls_token" in out:
        out["class_embedding"] = out.pop("cls_token")[0, 0]
    out["positional_embedding"] = out.pop("pos_embed")[0]
    if "head.weight" in out:
        out["proj"] = out.pop("head.weight").T
        del out["head.bias"]
    return out


PE = dict(ROTARY, attn_type="rope", use_pre_transformer_norm=True, rope_grid_indexing="xy")
PE_CORE = dict(PE, global_pool="map", attn_pool_num_heads=4)
LAYOUTS = {
    "eva": (as_eva, dict(KINDS["cat"], **SWIGLU)),
    "fused": (lambda weights: renamed(weights, ("mlp.fc1", "mlp.w12"), ("mlp.fc2", "mlp.w3")),
              dict(ROTARY, swiglu_mlp=True)),
    "pretrained": (as_pretrained, dict(KINDS["cat"], **SWIGLU)),
    "eva_clip": (lambda weights: prefixed(as_eva(weights), "visual."), dict(KINDS["cat"], **SWIGLU)),
    "open_clip": (lambda weights: prefixed(weights, "visual.trunk."), dict(KINDS["cat"], **SWIGLU)),
    "dinov3": (as_dinov3, dict(DINOV3, num_classes=0)),
    "dinov3_gated": (as_dinov3, dict(DINOV3, num_classes=0, swiglu_mlp=True, swiglu_align_to=8)),
    "sapiens2": (as_sapiens2, dict(DINOV3, num_classes=0, attn_type="rope", qkv_fused=False, num_kv_heads=(2, 1),
                                   qk_norm=True, swiglu_mlp=True, attn_only_layer_scale=True)),
    "pe": (lambda weights: prefixed(as_pe(weights), "visual."), PE_CORE),
    "pe_alone": (as_pe, dict(PE, class_token=False, num_classes=0, init_values=0.1, use_post_transformer_norm=False,
                             use_fc_norm=False)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_in_their_authors_layouts(layout, tmp_path):
    convert, kwargs = LAYOUTS[layout]
    _, other, x = pair(**kwargs)
    if "pe" in layout and kwargs.get("num_classes") != 0:
        torch.nn.init.zeros_(other.head.bias)
    torch.save(convert(other.state_dict()), tmp_path / "theirs.pth")
    own = ours(**kwargs).eval()
    load_checkpoint(own, tmp_path / "theirs.pth")
    assert own.state_dict().keys() == other.state_dict().keys()
    for key, value in other.state_dict().items():
        assert torch.equal(own.state_dict()[key], value), key
    assert_same(own, other, x)
    checked = theirs(**kwargs)
    expected = timm_eva.checkpoint_filter_fn(torch.load(tmp_path / "theirs.pth"), checked)  # the file is timm's, too
    checked.load_state_dict(expected)


def test_biases_that_the_model_lacks_are_warned_of():
    _, other, _ = pair(**DINOV3, num_classes=0)
    weights = as_dinov3(other.state_dict())
    with pytest.warns(UserWarning, match="^these weights have biases of queries and values, and the model has none"):
        load_weights(ours(**DINOV3, num_classes=0, qkv_bias=False), weights)


@pytest.mark.parametrize("kwargs", [
    KINDS["cat"], dict(KINDS["cat"], num_reg_tokens=2), dict(MIXED, no_embed_class=True), dict(PE_CORE),
], ids=str)
def test_weights_of_another_size_are_resampled_as_timm_does(kwargs):
    _, source, _ = pair(**kwargs)
    size = dict(img_size=96, patch_size=8)
    own, other = ours(**kwargs, **size), theirs(**kwargs, **size)
    expected = timm_eva.checkpoint_filter_fn(source.state_dict(), other)
    pairs.assert_fitted(source.state_dict(), expected, own, other)


def test_rotary_embedding_stays_exact_in_half_precision():
    model = mvlib.create_model("vit_tiny_patch16_dinov3_qkvb", pretrained=False, depth=1).to(torch.bfloat16)
    other = timm.create_model("vit_tiny_patch16_dinov3_qkvb", depth=1)
    assert torch.equal(model.rope.get_embed((16, 16)), other.rope.get_embed((16, 16)))

