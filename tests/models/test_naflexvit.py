"""NaFlex: batches of images of different sizes, beside timm's model; padding; files of other layouts."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from timm.models import naflexvit as theirs
from timm.models.vision_transformer import _load_weights

import mvlib
from mvlib.errors import ConfigError
from mvlib.loading import adapt_input_conv
from mvlib.models import naflexvit as ours
from mvlib.models.naflexvit import NaFlexVit, NaFlexVitCfg

NAME, PLAIN = "naflexvit_base_patch16_gap", "naflexvit_base_patch16_siglip"
TINY = dict(depth=2, embed_dim=48, num_heads=3, patch_size=4, num_classes=5, pos_embed_grid_size=(5, 4))
GRIDS = ((2, 5), (4, 3), (1, 1), (2, 5))
ROPE = dict(pos_embed="none", class_token=True)
CASES = {
    "learned": {},
    "same grid": dict(pos_embed_grid_size=(4, 3)),
    "square": dict(pos_embed_ar_preserving=True, pos_embed_interp_mode="bilinear", pos_embed_antialias=False,
                   pos_embed_align_corners=True),
    "factorized": dict(pos_embed="factorized"),
    "factorized square": dict(pos_embed="factorized", pos_embed_ar_preserving=True),
    "grid_sample": dict(pos_embed_use_grid_sample=True),
    "grid_sample corners": dict(pos_embed_use_grid_sample=True, pos_embed_align_corners=True,
                                pos_embed_ar_preserving=True, pos_embed_interp_mode="bilinear"),
    "grid_sample factorized": dict(pos_embed_use_grid_sample=True, pos_embed="factorized"),
    "grid_sample factorized square": dict(
        pos_embed_use_grid_sample=True, pos_embed="factorized", pos_embed_ar_preserving=True),
    "map": dict(global_pool="map", reg_tokens=2),
    "map with prefix": dict(global_pool="map", pool_include_prefix=True, attn_pool_num_heads=2),
    "max": dict(global_pool="max"),
    "avgmax": dict(global_pool="avgmax", pool_include_prefix=True, fc_norm=True),
    "token": dict(global_pool="token", class_token=True, use_key_only_attn_mask=True),
    "unpooled": dict(global_pool="", pre_norm=True, final_norm=False, reg_tokens=0),
    "axial": dict(ROPE, rope_type="axial", rope_ref_feat_shape=(3, 4), rope_grid_offset=1.0, swiglu_mlp=True),
    "axial halves": dict(ROPE, rope_type="axial", rope_rotate_half=True, scale_mlp_norm=True, swiglu_mlp=True),
    "mixed": dict(ROPE, rope_type="mixed", rope_temperature=10.0, attn_gated=True),
    "dinov3": dict(ROPE, rope_type="dinov3", rope_temperature=100.0, num_kv_heads=1, qkv_fused=False,
                   attn_only_layer_scale=True),
    "mrope": dict(ROPE, rope_type="mrope", rope_mrope_section=(2, 3, 3), num_kv_heads=(1, 3), qkv_fused=False),
    "eva": dict(attn_type="eva", swiglu_mlp=True, swiglu_align_to=32, scale_attn_inner_norm=True, qk_norm=True),
    "eva unfused": dict(attn_type="eva", qkv_fused=False, init_values=None),
    "differential": dict(attn_layer="diff", num_heads=4, scale_mlp_norm=True, norm_layer="rmsnorm", act_layer="relu"),
    "channels first": dict(patchify_channels_last=False, embed_norm_layer="layernorm"),
}


def pair(**options):
    """timm's model and ours with the same, random weights, in evaluation."""
    torch.manual_seed(0)
    options = {**TINY, "global_pool": "avg", "reg_tokens": 1, "init_values": 0.3, **options}
    model = timm.create_model(NAME, **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    own = mvlib.create_model(NAME, pretrained=False, **options).eval()
    assert list(own.state_dict()) == list(model.state_dict())
    own.load_state_dict(model.state_dict())
    return own, model


def batch(grids=GRIDS, length=13, numbers=48, seed=1):
    """Patches of images of these grids, padded to `length` with numbers that would show."""
    generator = torch.Generator().manual_seed(seed)
    patches = torch.randn(len(grids), length, numbers, generator=generator)
    coord, valid = torch.zeros(len(grids), length, 2, dtype=torch.long), torch.zeros(len(grids), length).bool()
    for i, (rows, columns) in enumerate(grids):
        coord[i, :rows * columns] = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
        valid[i, :rows * columns] = True
    return {"patches": patches, "patch_coord": coord, "patch_valid": valid}


def difference(ours, theirs):
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
@torch.no_grad()
def test_patches_and_images_as_timm(options):
    own, model = pair(**options)
    given = batch()
    features, expected = (m.forward_features(**given)["patches"] for m in (own, model))
    real = torch.nn.functional.pad(given["patch_valid"], (own.num_prefix_tokens, 0), value=True)
    assert difference(features[real], expected[real]) < 1e-5
    expected = model(given)
    seen = real if options.get("global_pool") == "" else slice(None)
    assert difference(own(given)[seen], expected[seen]) < 1e-5
    assert difference(own(**{"x" if k == "patches" else k: v for k, v in given.items()})[seen], expected[seen]) < 1e-5
    image = torch.randn(2, 3, 12, 20)
    assert difference(own(image), model(image)) < 1e-5


@pytest.mark.parametrize("name", ["learned", "factorized", "grid_sample", "map", "avgmax", "token", "axial", "mixed",
                                  "dinov3", "mrope", "eva", "differential"])
@torch.no_grad()
def test_padding_changes_nothing(name):
    own, _ = pair(**CASES[name])
    given = batch()
    together = own(given)
    for i, (rows, columns) in enumerate(GRIDS):
        alone = {key: value[i:i + 1, :rows * columns] for key, value in given.items()}
        assert difference(own(alone)[0], together[i]) < 1e-5
        image = alone["patches"].reshape(rows, columns, 4, 4, 3).permute(4, 0, 2, 1, 3).reshape(1, 3, rows * 4, -1)
        if "grid_sample" not in name:  # which does not antialias, as images do
            assert difference(own(image)[0], together[i]) < 1e-5


@pytest.mark.parametrize("channels_last", [True, False])
def test_patches_of_other_sizes(channels_last):
    own, model = pair(enable_patch_interpolator=True, patchify_channels_last=channels_last)
    given = batch(numbers=6 * 5 * 3)
    given["patches"] = given["patches"].reshape(4, 13, *((6, 5, 3) if channels_last else (3, 6, 5)))
    own.prewarm_patch_interpolator([(6, 5), 4])
    (own(given).square().sum()).backward()
    with torch.no_grad():
        assert difference(own(given), model(given)) < 1e-5
        same = {**given, "patches": given["patches"].flatten(2)[..., :48].reshape(
            4, 13, *((4, 4, 3) if channels_last else (3, 4, 4)))}
        assert torch.equal(own(same), own({**same, "patches": same["patches"].flatten(2)}))
    assert own.embeds.proj.weight.grad.abs().max() > 0
    with pytest.raises(RuntimeError, match="enable_patch_interpolator=True"):
        pair()[0].prewarm_patch_interpolator([8])


@pytest.mark.parametrize("form", [{}, {"output_dict": True}, {"norm": True, "indices": [0]},
                                  {"return_prefix_tokens": True}, {"intermediates_only": True}])
@torch.no_grad()
def test_intermediates_of_patches(form):
    own, model = pair(reg_tokens=2)
    given = batch()
    valid = given["patch_valid"]
    found, expected = (m.forward_intermediates(given, output_fmt="NLC", **form) for m in (own, model))
    if form.get("output_dict"):
        assert found.keys() == expected.keys() and torch.equal(found["patch_valid"], valid)
        found, expected = found["image_intermediates"], expected["image_intermediates"]
    elif not form.get("intermediates_only"):
        found, expected = found[1], expected[1]
    for a, b in zip(found, expected, strict=True):
        if isinstance(a, tuple):
            assert difference(a[1], b[1]) < 1e-5
            a, b = a[0], b[0]
        assert difference(a[valid], b[valid]) < 1e-5


@pytest.mark.parametrize("rope_type", ["", "axial", "mixed"])
def test_patch_dropout_keeps_what_belongs_together(rope_type):
    """Padding stays padding, positions stay with their patches: alike for all that is kept, nothing but the count."""
    own, _ = pair(patch_drop_rate=0.5, rope_type=rope_type)
    own.train()
    given = batch(length=12)
    torch.manual_seed(3)
    left = own.forward_features(**given)
    assert left["patches"].shape[1] == 1 + 6 and left["patch_valid"].shape == (4, 6)
    torch.manual_seed(3)
    kept = torch.randn(4, 12).argsort(dim=1)[:, :6]
    chosen = {key: value.gather(1, kept.reshape(4, 6, *[1] * (value.ndim - 2)).expand(-1, -1, *value.shape[2:]))
              for key, value in given.items()}
    assert torch.equal(left["patch_valid"], chosen["patch_valid"])
    x = own.embeds(**{"x" if key == "patches" else key: value for key, value in given.items()})[0]
    order = torch.cat((torch.zeros(4, 1, dtype=torch.long), kept + 1), dim=1)
    x = x.gather(1, order.unsqueeze(-1).expand(-1, -1, 48))
    ropes = [r.expand(4, -1, -1, -1).gather(2, kept[:, None, :, None].expand(-1, r.shape[1], -1, r.shape[3]))
             for r in own._rotations(own.embeds(given["patches"], given["patch_coord"])[0], given["patch_coord"], None)]
    mask = ours.create_attention_mask(chosen["patch_valid"], 1)
    for i, block in enumerate(own.blocks):
        rope = (ropes[i if rope_type == "mixed" else 0],) if ropes else ()
        x = block(x, *rope, attn_mask=mask)
    assert difference(left["patches"], own.norm(x)) < 1e-5
    images = own(torch.randn(2, 3, 12, 16))
    assert images.shape == (2, 5) and images.isfinite().all()


def test_checkpointing_and_gradients():
    own, model = pair(rope_type="mixed", reg_tokens=1)
    given = batch()
    gradients = []
    for m, recompute in ((model, False), (own, False), (own, True)):
        m.set_grad_checkpointing(recompute)
        m.zero_grad()
        m(given).square().sum().backward()
        gradients.append({name: p.grad for name, p in m.named_parameters()})
    for name, expected in gradients[0].items():
        assert difference(gradients[1][name], expected) < 1e-4, name
        assert difference(gradients[2][name], expected) < 1e-4, name


@torch.no_grad()
def test_functions_as_timms():
    valid = batch()["patch_valid"]
    for symmetric, q_len, prefix in ((True, None, 2), (False, None, 0), (False, 1, 3)):
        arguments = (valid, prefix, symmetric, q_len)
        assert torch.equal(ours.create_attention_mask(*arguments), theirs.create_attention_mask(*arguments))
    assert ours.create_attention_mask(None) is None
    x = torch.randn(2, 3, 9, 13)
    for pad, last in ((True, True), (True, False)):
        found, expected = (m.batch_patchify(x, (4, 5), pad, last) for m in (ours, theirs))
        assert torch.equal(found[0], expected[0]) and tuple(found[1]) == expected[1]
    coord = batch()["patch_coord"]
    assert ours.calculate_naflex_grid_sizes(coord) == theirs.calculate_naflex_grid_sizes(coord) == list(GRIDS)
    tokens = torch.randn(4, 15, 6)
    for pool in ("avg", "max", "avgmax", "token", ""):
        for include in (False, True):
            arguments = (tokens, valid, pool, 2, include)
            assert torch.allclose(ours.global_pool_naflex(*arguments), theirs.global_pool_naflex(*arguments))


@pytest.mark.parametrize("arguments, error, text", [
    (dict(rope_type="spiral"), ValueError, "unknown rope_type 'spiral'; known: axial, dinov3, mixed, mrope"),
    (dict(rope_type="mrope"), ValueError, "rope_mrope_section=(time, rows, columns)"),
    (dict(pos_embed="rope"), ValueError, "pos_embed 'rope' is not one of"),
    (dict(num_kv_heads=(1,)), ValueError, "num_kv_heads has 1 numbers for 2 blocks"),
    (dict(num_kv_heads=1, attn_type="eva"), ValueError, "need attn_type='rope'"),
    (dict(global_pool="token"), ValueError, "needs a class token"),
    (dict(pos_embed_grid_size=None), ValueError, "learned positions need pos_embed_grid_size"),
    (dict(wings=2), TypeError, "unexpected keyword argument 'wings'"),
])
def test_what_the_constructor_refuses(arguments, error, text):
    with pytest.raises(error) as caught:
        NaFlexVit(NaFlexVitCfg(depth=2, embed_dim=48, num_heads=3), **arguments)
    assert text in str(caught.value)


@pytest.mark.parametrize("given, text", [
    (lambda b: dict(b, patch_coord=None), "patches need patch_coord"),
    (lambda b: dict(b, patch_valid=None), "patches need patch_valid"),
    (lambda b: dict(b, patches=b["patches"][..., None]), "patches are (B, N, numbers)"),
    (lambda b: torch.randn(1, 3, 9, 12), "patches of 4 x 4 do not divide"),
])
def test_inputs_that_are_refused(given, text):
    with pytest.raises(ValueError) as caught:
        pair()[0](given(batch()))
    assert text in str(caught.value)
    with pytest.raises(ValueError, match="make no maps: output_fmt is 'NLC'"):
        pair()[0].forward_intermediates(batch())


def test_config_and_arguments():
    """A config alone, arguments over it, and the model's own record of what it is made of."""
    cfg = NaFlexVitCfg(depth=1, embed_dim=24, num_heads=2, global_pool="avg")
    model = NaFlexVit(cfg, num_classes=3, depth=2)
    assert len(model.blocks) == 2 and model.get_patch_size() == (16, 16) and cfg.depth == 1
    model = mvlib.create_model(NAME, pretrained=False, **TINY)
    assert mvlib.create_model(NAME, pretrained=False, **model.model_args).embed_dim == 48
    with torch.no_grad():  # an image's size is what positions are learned for, if nothing else says so
        model = NaFlexVit(cfg, img_size=64, pos_embed_grid_size=None)
    assert model.embeds.pos_embed.shape == (1, 4, 4, 24)


@pytest.mark.parametrize("source", ["vit_tiny_patch16_224", "vit_base_patch16_siglip_224"])
@torch.no_grad()
def test_weights_of_a_vision_transformer(source, tmp_path):
    """A ViT's own file gives the ViT's answers, where positions of the prefix are added to its tokens."""
    size = dict(depth=2, embed_dim=48, num_heads=3, img_size=64, num_classes=5)
    vit = mvlib.create_model(source, pretrained=False, **size).eval()
    for parameter in vit.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    torch.save(vit.state_dict(), tmp_path / "vit.pth")
    is_map = "siglip" in source
    model = mvlib.create_model(
        PLAIN, pretrained=False, checkpoint_path=tmp_path / "vit.pth", depth=2, embed_dim=48, num_heads=3,
        num_classes=5, act_layer="gelu", class_token=not is_map, fc_norm=False,
        global_pool="map" if is_map else "token", pos_embed_grid_size=(4, 4)).eval()
    x = torch.randn(2, 3, 64, 64)
    assert difference(model(x), vit(x)) < 1e-5


@pytest.mark.parametrize("layout", ["linear", "conv", "channels first"])
@torch.no_grad()
def test_weights_of_big_vision(layout, tmp_path):
    """SigLIP 2's arrays: a dense embedding of flat patches, positions as a grid of rows and columns."""
    options = dict(depth=1, embed_dim=12, num_heads=2, patch_size=4, pos_embed_grid_size=(3, 3), mlp_ratio=2,
                   embed_proj_type="conv" if layout == "conv" else "linear",
                   patchify_channels_last=layout != "channels first")
    rng, width, heads = np.random.default_rng(0), 12, 2
    block = "params/img/Transformer/encoderblock_0/"
    shapes = {
        "params/img/embedding/kernel": (48, width), "params/img/embedding/bias": (width,),
        "params/img/pos_embedding": (3, 3, width),
        **{f"params/img/Transformer/encoder_norm/{k}": (width,) for k in ("scale", "bias")},
    }
    for at, norm in ((block, ("LayerNorm_0", "LayerNorm_1")), ("params/img/MAPHead_0/", ("LayerNorm_0",))):
        shapes.update({f"{at}{n}/{k}": (width,) for n in norm for k in ("scale", "bias")})
        attention, mlp = f"{at}MultiHeadDotProductAttention_0/", f"{at}MlpBlock_0/"
        for part in ("query", "key", "value"):
            shapes.update({f"{attention}{part}/kernel": (width, heads, 6), f"{attention}{part}/bias": (heads, 6)})
        shapes.update({f"{attention}out/kernel": (heads, 6, width), f"{attention}out/bias": (width,)})
        shapes.update({f"{mlp}Dense_0/kernel": (width, 24), f"{mlp}Dense_0/bias": (24,),
                       f"{mlp}Dense_1/kernel": (24, width), f"{mlp}Dense_1/bias": (width,)})
    shapes["params/img/MAPHead_0/probe"] = (1, 1, width)
    path = tmp_path / "siglip2.npz"
    np.savez(path, **{name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()})
    model = timm.create_model(PLAIN, **options).eval()
    _load_weights(model, str(path))
    own = mvlib.create_model(PLAIN, pretrained=False, checkpoint_path=path, **options).eval()
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in own.state_dict().items())
    x = torch.randn(1, 3, 12, 8)
    assert difference(own(x), model(x)) < 1e-5


@torch.no_grad()
def test_weights_of_radio(tmp_path):
    """RADIO's backbone: its linear embedding, tokens of its teachers, positions of a square grid."""
    vit = mvlib.create_model("naflexvit_base_patch16_radio_v3", pretrained=False, depth=1, embed_dim=12, num_heads=2,
                             pos_embed_grid_size=(4, 4))
    file = {"patch_generator.embedder.weight": torch.randn(12, 768), "patch_generator.cls_token.token":
            torch.randn(8, 12), "patch_generator.pos_embed": torch.randn(1, 16, 12)}
    file.update((key.replace("gamma", "grandma"), torch.randn_like(value)) for key, value in vit.state_dict().items()
                if key.startswith("blocks."))
    file = {f"radio_model.model.{key}": value for key, value in file.items()}
    torch.save(file, tmp_path / "radio.pth")
    model = timm.create_model("naflexvit_base_patch16_radio_v3", depth=1, embed_dim=12, num_heads=2,
                              pos_embed_grid_size=(4, 4))
    model.load_state_dict(theirs.checkpoint_filter_fn(dict(file), model))
    vit.load_state_dict(file)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in vit.state_dict().items())


@pytest.mark.parametrize("in_chans", [1, 4])
@pytest.mark.parametrize("channels_last", [True, False])
@torch.no_grad()
def test_input_channels_are_adapted(in_chans, channels_last, tmp_path):
    """A flat embedding is fitted as a convolution's weight would be."""
    options = dict(depth=1, embed_dim=12, num_heads=2, patch_size=4, patchify_channels_last=channels_last)
    whole = mvlib.create_model(NAME, pretrained=False, **options).eval()
    torch.save(whole.state_dict(), tmp_path / "whole.pth")
    fitted = mvlib.create_model(
        NAME, pretrained=False, checkpoint_path=tmp_path / "whole.pth", in_chans=in_chans, **options).eval()
    order = (12, 4, 4, -1) if channels_last else (12, -1, 4, 4)
    found, before = (m.embeds.proj.weight.reshape(order) for m in (fitted, whole))
    found, before = (w.permute(0, 3, 1, 2) if channels_last else w for w in (found, before))
    assert torch.equal(found, adapt_input_conv(in_chans, before))


CLASSIC = {
    "vit_tiny_patch16_224": {}, "vit_base_patch16_clip_224": {}, "vit_base_patch16_siglip_224": {},
    "vit_base_patch14_reg4_dinov2": {}, "vit_base_patch16_radio_v3": {}, "vit_large_patch16_radio_v3": {},
    "vit_dwee_patch16_reg1_gap_256": dict(num_heads=4), "beit3_base_patch16_224": {}, "aimv2_large_patch14_224": {},
    "vit_medium_patch16_reg4_gap_256": dict(rope_type="axial", global_pool="max"),
}


@pytest.mark.parametrize("name, options", CLASSIC.items(), ids=CLASSIC)
@torch.no_grad()
def test_vision_transformers_with_patches(name, options, tmp_path):
    """use_naflex=True gives timm's model; a checkpoint of the plain model fits, and gives its answers."""
    options = dict(depth=1, embed_dim=48, num_heads=3, num_classes=5) | options
    model = timm.create_model(name, use_naflex=True, **options).eval()
    own = mvlib.create_model(name, pretrained=False, use_naflex=True, **options).eval()
    assert isinstance(own, NaFlexVit) and list(own.state_dict()) == list(model.state_dict())
    own.load_state_dict(model.state_dict())
    side = own.get_patch_size()[0]
    image = torch.randn(1, 3, side * 4, side * 5)
    assert difference(own(image), model(image)) < 1e-5
    again = mvlib.create_model(name, pretrained=False, **own.model_args)
    assert list(again.state_dict()) == list(own.state_dict())
    if "radio" in name or "rope_type" in options:  # the plain one has other positions
        return
    plain = mvlib.create_model(name, pretrained=False, **options).eval()
    torch.save(plain.state_dict(), tmp_path / "plain.pth")
    own = mvlib.create_model(name, checkpoint_path=tmp_path / "plain.pth", use_naflex=True, **options).eval()
    image = torch.randn(1, 3, *plain.img_size)
    assert difference(own(image), plain(image)) < 1e-5


@pytest.mark.parametrize("name, options", [
    ("eva02_tiny_patch14_224", {}), ("eva_giant_patch14_224", {}), ("vit_base_patch16_rope_mixed_224", {}),
    ("vit_base_patch16_rope_reg1_gap_256", {}), ("vit_pe_core_tiny_patch16_384", {}),
    ("vit_small_patch16_dinov3", {}), ("vit_base_patch16_rope_ape_224", {}), ("eva02_base_patch16_clip_224", {}),
])
@torch.no_grad()
def test_evas_with_patches(name, options, monkeypatch):
    """What timm's entrypoint gives an Eva becomes timm's NaFlexVit."""
    given = {}
    create = theirs._create_naflexvit_from_eva

    def note(variant, pretrained=False, **kwargs):
        given.update(kwargs)
        return create(variant, pretrained, **kwargs)

    monkeypatch.setattr(theirs, "_create_naflexvit_from_eva", note)
    model = timm.create_model(name, use_naflex=True, depth=2, embed_dim=48, num_heads=3, num_classes=5).eval()
    given = {key: value for key, value in given.items() if not key.startswith("pretrained") and value is not None}
    given.setdefault("img_size", model.embeds.default_img_size)
    own = NaFlexVit(**ours._eva_arguments(given)).eval()
    assert list(own.state_dict()) == list(model.state_dict())
    own.load_state_dict(model.state_dict())
    side = own.get_patch_size()[0]
    image = torch.randn(1, 3, side * 4, side * 5)
    assert difference(own(image), model(image)) < 1e-5


@pytest.mark.parametrize("name", ["learned", "square", "factorized", "factorized square", "axial"])
@torch.no_grad()
def test_positions_for_one_size(name):
    """An image of that size has the answer it had; the arguments build the model that there is now."""
    own, _ = pair(**CASES[name])
    own = mvlib.create_model(NAME, pretrained=False, **own.model_args).eval()
    image = torch.randn(1, 3, 12, 32)
    before = own(image)
    own.set_input_size((12, 32))
    assert difference(own(image), before) < 1e-5
    assert own.embeds.pos_embed_grid_size == ((8, 8) if name == "factorized square" else (3, 8))
    again = mvlib.create_model(NAME, pretrained=False, **own.model_args)
    again.load_state_dict(own.state_dict())


def test_naflex_by_timms_name():
    from mvlib.timm import create_model

    options = dict(depth=1, embed_dim=48, num_heads=3)
    assert type(create_model("vit_tiny_patch16_224", use_naflex=False, **options)).__name__ == "VisionTransformer"
    model = create_model("vit_tiny_patch16_224", use_naflex=True, rope_type="axial", features_only=True, **options)
    assert [tuple(m.shape) for m in model(torch.randn(1, 3, 32, 48))] == [(1, 48, 2, 3)]
    with pytest.raises(TypeError, match="got an unexpected keyword argument 'rope_type'"):
        create_model("vit_tiny_patch16_224", use_naflex=False, rope_type="axial", **options)


def test_other_families_take_no_patches():
    with pytest.raises(ConfigError, match="use_naflex=True is for vision transformers and EVA; resnet18 is none"):
        mvlib.create_model("resnet18", pretrained=False, use_naflex=True)
    with pytest.raises(ConfigError, match="norms before and behind the pooling"):
        ours._eva_arguments(dict(use_fc_norm=True, use_post_transformer_norm=True))
    with pytest.raises(ConfigError, match="does not know the argument 'wings'"):
        mvlib.create_model("vit_tiny_patch16_224", pretrained=False, use_naflex=True, wings=2)
