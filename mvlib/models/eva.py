"""Vision transformers with rotary positions: EVA and EVA-02, and what builds on them.

EVA (https://arxiv.org/abs/2211.07636), EVA-CLIP (https://arxiv.org/abs/2303.15389), EVA-02
(https://arxiv.org/abs/2303.11331), RoPE-ViT (axial and mixed, https://arxiv.org/abs/2403.13298), Perception Encoder
(https://arxiv.org/abs/2504.13181), DINOv3 (https://arxiv.org/abs/2508.10104), Sapiens2
(https://arxiv.org/abs/2604.21681), LingBot-Vision (https://arxiv.org/abs/2607.05247), and timm's own with registers.

A model is: patch embedding, class and register tokens, learned positions (or none), blocks that turn queries and keys
by the rows and columns of their patches, norm, pooling, classifier. EVA itself has learned positions alone.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from .. import registry
from ..layers.attention_pool import AttentionPoolLatent
from ..layers.drop import PatchDropoutWithIndices, drop_path_rates
from ..layers.norm import LayerNorm, NormLayer, RmsNorm, get_norm_layer
from ..layers.patch_embed import PatchEmbed
from ..layers.rope import apply_keep_indices_nlc
from ..registry import register_model
from .base import KeyMap, StateDict, Step, rename_keys
from .eva_blocks import EvaBlock, EvaBlockPostNorm, make_rope
from .tokens import SIZES, MaskedTokenModel, sized_by_name
from .vision_transformer import begins, clip_keys, from_open_clip_trunk, has

if TYPE_CHECKING:
    from ._variants.eva import *

__all__ = ["Eva"]


class Eva(MaskedTokenModel):
    """Vision transformer with learned or rotary positions, or both.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); features are (B, prefix tokens + patches, embed_dim).

    Args:
        global_pool: "map" pools the prefix, too.
        num_kv_heads: Heads of keys and values, or those of each block; needs `attn_type` "rope" and no `qkv_fused`.
        qkv_bias, qkv_fused, qk_norm, swiglu_mlp, swiglu_align_to, scale_mlp, scale_attn_inner, attn_type,
            attn_only_layer_scale: See `EvaBlock`.
        norm_layer: Norm of the blocks and of the final features.
        num_reg_tokens: Number of register tokens.
        use_abs_pos_emb, use_rot_pos_emb: Whether positions are learned, and rotary.
        rope_type: "cat" (rows and columns), "mixed" (learned), "dinov3", or "mrope", see `create_rope_embed`.
        rope_grid_offset, rope_grid_indexing, rope_temperature, rope_rotate_half, rope_shift_coords,
            rope_jitter_coords, rope_rescale_coords, rope_mrope_section, ref_feat_shape: Of that.
        use_post_norm: Blocks whose norms follow attention and feed-forward block.
        use_pre_transformer_norm: Norm before the first block; the patch embedding has no bias then.
        use_post_transformer_norm: Norm after the last block; by default where there is no `use_fc_norm`.
        use_fc_norm: Norm behind the pooling; by default where patches are pooled by mean.
        attn_pool_num_heads, attn_pool_mlp_ratio: Of the pooling by attention; the blocks' unless given.
        others: As `SequenceModel` explains them.

    Raises:
        ValueError: An option has an unknown value, or one that does not fit another's.
    """

    pools: ClassVar[tuple[str, ...]] = (*MaskedTokenModel.pools, "map")
    fc_norm_name: ClassVar[str] = "use_fc_norm"
    token_std: ClassVar[float] = 0.02
    fix_init = True

    def __init__(
        self, img_size: int | tuple[int, int] = 224, patch_size: int | tuple[int, int] = 16, in_chans: int = 3,
        num_classes: int = 1000, global_pool: str = "avg", embed_dim: int = 768, depth: int = 12, num_heads: int = 12,
        num_kv_heads: int | Sequence[int] | None = None, qkv_bias: bool = True, qkv_fused: bool = True,
        qk_norm: bool = False, mlp_ratio: float = 4.0, swiglu_mlp: bool = False, swiglu_align_to: int = 0,
        scale_mlp: bool = False, scale_attn_inner: bool = False, attn_type: str = "eva", drop_rate: float = 0.0,
        pos_drop_rate: float = 0.0, patch_drop_rate: float = 0.0, proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0, drop_path_rate: float = 0.0, norm_layer: NormLayer = LayerNorm,
        init_values: float | None = None, attn_only_layer_scale: bool = False, class_token: bool = True,
        num_reg_tokens: int = 0, no_embed_class: bool = False, use_abs_pos_emb: bool = True,
        use_rot_pos_emb: bool = False, rope_type: str | None = "cat", rope_grid_offset: float = 0.0,
        rope_grid_indexing: str = "ij", rope_temperature: float = 10000.0, rope_rotate_half: bool = False,
        rope_shift_coords: float | None = None, rope_jitter_coords: float | None = None,
        rope_rescale_coords: float | None = None, rope_mrope_section: tuple[int, int, int] | None = None,
        use_post_norm: bool = False, use_pre_transformer_norm: bool = False,
        use_post_transformer_norm: bool | None = None, use_fc_norm: bool | None = None,
        attn_pool_num_heads: int | None = None, attn_pool_mlp_ratio: float | None = None,
        dynamic_img_size: bool = False, dynamic_img_pad: bool = False,
        ref_feat_shape: int | tuple[int, int] | None = None, head_init_scale: float = 0.001,
    ) -> None:
        super().__init__()
        norm = get_norm_layer(norm_layer) or LayerNorm
        rotate_half = rope_rotate_half or rope_type == "mrope"
        self.in_chans, self.dynamic_img_size, self.head_init_scale = in_chans, dynamic_img_size, head_init_scale
        patch_embed = PatchEmbed(
            img_size, patch_size, in_chans, embed_dim, bias=not use_pre_transformer_norm,
            output_fmt="NHWC" if dynamic_img_size else "NLC", strict_img_size=not dynamic_img_size,
            dynamic_img_pad=dynamic_img_pad)
        patch_embed.may_be_dynamic = True
        self.add_tokens(
            patch_embed, embed_dim, class_token, num_reg_tokens, use_abs_pos_emb, no_embed_class, pos_drop_rate)
        self.patch_drop = PatchDropoutWithIndices(  # type: ignore[assignment]
            patch_drop_rate, self.num_prefix_tokens) if patch_drop_rate > 0 else None
        self.rope_mixed = self.one_each = use_rot_pos_emb and rope_type == "mixed"
        self.rope: Any = make_rope(
            str(rope_type), embed_dim, num_heads, depth, ref_feat_shape, rope_grid_offset, rope_mrope_section,
            temperature=rope_temperature, feat_shape=None if dynamic_img_size else patch_embed.grid_size,
            grid_indexing=rope_grid_indexing, rotate_half=rotate_half, shift_coords=rope_shift_coords,
            jitter_coords=rope_jitter_coords, rescale_coords=rope_rescale_coords) if use_rot_pos_emb else None
        self.shared = tuple(f"rope_{i}" for i in range(depth)) if self.rope_mixed else ("rope",)
        del self.norm_pre  # it follows the rotary embedding
        self.norm_pre = norm(embed_dim) if use_pre_transformer_norm else nn.Identity()
        kv_heads = num_kv_heads if isinstance(num_kv_heads, Sequence) else (num_kv_heads,) * depth
        if len(kv_heads) != depth:
            raise ValueError(f"num_kv_heads has {len(kv_heads)} numbers for {depth} blocks")
        if use_post_norm and (qk_norm or attn_only_layer_scale or any(heads is not None for heads in kv_heads)):
            raise ValueError("qk_norm, num_kv_heads and attn_only_layer_scale are not for use_post_norm=True")
        self.blocks = nn.ModuleList(
            (EvaBlockPostNorm if use_post_norm else EvaBlock)(
                embed_dim, num_heads, qkv_bias=qkv_bias, qkv_fused=qkv_fused, mlp_ratio=mlp_ratio,
                swiglu_mlp=swiglu_mlp, swiglu_align_to=swiglu_align_to, scale_mlp=scale_mlp,
                scale_attn_inner=scale_attn_inner, num_prefix_tokens=self.num_prefix_tokens, attn_type=attn_type,
                rotate_half=rotate_half, qk_norm=qk_norm, num_kv_heads=heads, proj_drop=proj_drop_rate,
                attn_drop=attn_drop_rate, drop_path=rate, init_values=init_values,
                attn_only_layer_scale=attn_only_layer_scale, norm_layer=norm)
            for heads, rate in zip(kv_heads, drop_path_rates(drop_path_rate, depth)))
        attn_pool = AttentionPoolLatent(
            embed_dim, num_heads=attn_pool_num_heads or num_heads, mlp_ratio=attn_pool_mlp_ratio or mlp_ratio,
            norm_layer=norm) if global_pool == "map" else None
        fc_norm = global_pool == "avg" if use_fc_norm is None else use_fc_norm
        final_norm = not fc_norm if use_post_transformer_norm is None else use_post_transformer_norm
        self.add_head(norm, num_classes, global_pool, fc_norm, final_norm or fc_norm, attn_pool, drop_rate)
        if final_norm and fc_norm:
            self.norm = norm(embed_dim)
        self.init_weights()

    def stem(self) -> tuple[list[Step], int]:
        each = [Step("_of_each_block", takes=("rope",), gives=self.shared)] if self.rope_mixed else []
        steps = [Step("patch_embed"), Step("_pos_embed", gives=("rope",)), *each, Step("norm_pre")]
        return steps, super().stem()[1]

    def _pos_embed(self, x: Tensor) -> Any:
        """Patches -> tokens with prefix and position, and their rotary embedding; None where there is none.

        That broadcasts to (B, heads, patches, 2 * channels); "mixed" ones are of each block, (depth, ...).
        """
        rope = None
        if self.rope is not None:
            grid = (x.shape[1], x.shape[2]) if self.dynamic_img_size else self.patch_embed.grid_size
            is_ready = self.rope.feat_shape is not None and not self.dynamic_img_size
            rope = self.rope.get_embed(None if is_ready else grid)
        x = super()._pos_embed(x)
        if self.patch_drop is not None:
            x, kept = self.patch_drop(x)
            if rope is not None and kept is not None:
                rope = apply_keep_indices_nlc(x, rope, kept)
                rope = rope.transpose(0, 1) if self.rope_mixed else rope.unsqueeze(1)
        return x, rope

    def _of_each_block(self, x: Tensor, rope: Tensor) -> tuple[Tensor, ...]:
        return x, *(rope[i] for i in range(len(self.shared)))

    def pool(self, x: Tensor, pool_type: str | None = None) -> Tensor:
        """Tokens (B, N, embed_dim) -> (B, embed_dim); attention is to the prefix, too."""
        return super().pool(x, pool_type) if self.attn_pool is None else self.attn_pool(x)

    def set_input_size(
        self, img_size: int | tuple[int, int] | None = None, patch_size: int | tuple[int, int] | None = None
    ) -> None:
        super().set_input_size(img_size, patch_size)
        if hasattr(self.rope, "update_feat_shape"):
            self.rope.update_feat_shape(self.patch_embed.grid_size)

    def no_weight_decay(self) -> set[str]:
        return {"pos_embed", "cls_token", "reg_token"} | ({"rope.freqs"} if self.rope_mixed else set())

    def init_weights(self, needs_reset: bool = True) -> None:  # type: ignore[override]  # there is one scheme
        super().init_weights(needs_reset=needs_reset)

    def fit_state_dict(self, state_dict: StateDict) -> StateDict:
        """As every token model's, without the tables of rotary embeddings, which are computed."""
        return super().fit_state_dict({
            key: value for key, value in state_dict.items()
            if "rope" not in key or (key == "rope.freqs" and self.rope_mixed)})


# --- the architectures: presets, and what else differs from the class's defaults

_GIANT = dict(embed_dim=1408, depth=40, num_heads=16, mlp_ratio=6144 / 1408)
_ROTARY = dict(use_rot_pos_emb=True, ref_feat_shape=(16, 16))
_EVA02 = dict(_ROTARY, mlp_ratio=4 * 2 / 3, swiglu_mlp=True)
_EVA02_NORMED = dict(_EVA02, qkv_fused=False, scale_mlp=True)
_CLIP = dict(_EVA02_NORMED, scale_attn_inner=True, global_pool="token")
_REG1_GAP = dict(_ROTARY, init_values=1e-5, class_token=False, num_reg_tokens=1, use_abs_pos_emb=False)

_PE = dict(
    attn_type="rope", use_pre_transformer_norm=True, use_rot_pos_emb=True, rope_grid_indexing="xy",
    norm_layer=partial(LayerNorm, eps=1e-5))
_PE_CLASS = dict(_PE, rope_grid_offset=1.0)
_PE_GIGANTIC = dict(
    _PE, embed_dim=1536, depth=50, num_heads=16, mlp_ratio=8960 / 1536, class_token=False, ref_feat_shape=(32, 32))
_PE_CORE = dict(global_pool="map", attn_pool_num_heads=8, attn_pool_mlp_ratio=4.0)
_PE_CORE_CLASS = dict(_PE_CLASS, **_PE_CORE, ref_feat_shape=(24, 24))
_PE_MAPS = dict(use_post_transformer_norm=False, use_fc_norm=False, ref_feat_shape=(32, 32))
_LANG = dict(_PE_MAPS, init_values=0.1)

_ROPE_VIT = dict(
    attn_type="rope", init_values=1e-5, global_pool="token", use_rot_pos_emb=True, rope_grid_indexing="xy")
_POSITIONS: dict[str, dict[str, Any]] = {
    "": dict(use_abs_pos_emb=False), "_ape": dict(no_embed_class=True)}  # rotary, or learned ones, too
_TURNS: dict[str, dict[str, Any]] = {
    "": dict(rope_temperature=100.0), "_mixed": dict(rope_temperature=10.0, rope_type="mixed")}

_DINO = dict(
    dynamic_img_size=True, rope_type="dinov3", rope_temperature=100, rope_rotate_half=True, use_rot_pos_emb=True,
    use_abs_pos_emb=False, use_fc_norm=False)
_DINOV3 = dict(_DINO, img_size=256, init_values=1e-5, num_reg_tokens=4, norm_layer=partial(LayerNorm, eps=1e-5))
_NO_BIAS = dict(qkv_bias=False)
_GATED = dict(swiglu_mlp=True, swiglu_align_to=8)
_DINOV3_SIZES: dict[str, dict[str, Any]] = {
    "small": {}, "small_plus": _GATED, "base": {}, "large": {}, "huge_plus": dict(_GATED, num_heads=20)}
_LINGBOT = dict(_DINOV3, img_size=512, global_pool="token")


def _sapiens2(embed_dim: int, depth: int, num_heads: int) -> dict[str, Any]:
    """Blocks between the first and the last eight have half as many heads of keys and values."""
    kv_heads = tuple(num_heads // 2 if 8 <= i < depth - 8 else num_heads for i in range(depth))
    return dict(
        _DINO, img_size=(1024, 768), embed_dim=embed_dim, depth=depth, num_heads=num_heads, num_kv_heads=kv_heads,
        attn_type="rope", qkv_fused=False, qk_norm=True, global_pool="token", swiglu_mlp=True, init_values=1.0,
        attn_only_layer_scale=True, rope_rescale_coords=2.0, num_reg_tokens=8, norm_layer=partial(RmsNorm, eps=1e-6))


register_model.variants(__name__, Eva, sized_by_name({
    "eva_giant_patch14_224 eva_giant_patch14_336 eva_giant_patch14_560": _GIANT,
    "eva_giant_patch14_clip_224": (_GIANT, dict(global_pool="token")),
    "eva02_tiny_patch14_224 eva02_tiny_patch14_336 eva02_small_patch14_224 eva02_small_patch14_336": _EVA02,
    "eva02_base_patch14_224 eva02_base_patch14_448 eva02_large_patch14_224 eva02_large_patch14_448": _EVA02_NORMED,
    "eva02_base_patch16_clip_224 eva02_large_patch14_clip_224 eva02_large_patch14_clip_336": _CLIP,
    "eva02_enormous_patch14_clip_224": dict(
        embed_dim=1792, depth=64, num_heads=16, mlp_ratio=15360 / 1792, use_post_norm=True, global_pool="token"),
    "vit_medium_patch16_rope_reg1_gap_256 vit_base_patch16_rope_reg1_gap_256": _REG1_GAP,
    "vit_mediumd_patch16_rope_reg1_gap_256": (SIZES["medium"], _REG1_GAP, _NO_BIAS, dict(depth=20)),
    "vit_betwixt_patch16_rope_reg4_gap_256": (_REG1_GAP, dict(num_reg_tokens=4)),
    "vit_pe_core_tiny_patch16_384 vit_pe_core_small_patch16_384 vit_pe_core_large_patch14_336": _PE_CORE_CLASS,
    "vit_pe_core_base_patch16_224": (_PE_CORE_CLASS, dict(ref_feat_shape=(14, 14))),
    "vit_pe_core_gigantic_patch14_448": (_PE_GIGANTIC, _PE_CORE),
    "vit_pe_lang_large_patch14_448": (_PE_CLASS, _LANG, dict(depth=23)),
    "vit_pe_lang_gigantic_patch14_448": (_PE_GIGANTIC, _LANG, dict(depth=47)),
    "vit_pe_spatial_tiny_patch16_512 vit_pe_spatial_small_patch16_512 vit_pe_spatial_base_patch16_512 "
    "vit_pe_spatial_large_patch14_448": (_PE_CLASS, _PE_MAPS),
    "vit_pe_spatial_gigantic_patch14_448": (_PE_GIGANTIC, _LANG),
    **{f"vit_{size}_patch16_rope{turn}{position}_224": (_ROPE_VIT, _TURNS[turn], _POSITIONS[position])
       for size in ("small", "base", "large") for turn in _TURNS for position in _POSITIONS},
    "vit_base_patch16_rope_224": (_ROPE_VIT, _TURNS[""], _POSITIONS[""], dict(use_fc_norm=False)),
    "vit_tiny_patch16_dinov3_qkvb": _DINOV3,
    **{f"vit_{size}_patch16_dinov3{suffix}": (_DINOV3, mlp, bias)
       for size, mlp in _DINOV3_SIZES.items() for suffix, bias in (("", _NO_BIAS), ("_qkvb", {}))},
    "vit_7b_patch16_dinov3": (_DINOV3, _NO_BIAS, dict(
        embed_dim=4096, depth=40, num_heads=32, mlp_ratio=2, swiglu_mlp=True, swiglu_align_to=64)),
    "vit_small_patch16_lingbot vit_base_patch16_lingbot vit_large_patch16_lingbot": _LINGBOT,
    "vit_giant_patch16_lingbot": (
        _LINGBOT, _GATED, _NO_BIAS, dict(embed_dim=1536, depth=40, num_heads=24, mlp_ratio=4 * 2 / 3)),
    "vit_base_patch16_sapiens2": _sapiens2(768, 12, 12),
    "vit_large_patch16_sapiens2": _sapiens2(1024, 24, 16),
    "vit_huge_patch16_sapiens2": _sapiens2(1280, 32, 16),
    "vit_giant_patch16_sapiens2": _sapiens2(1536, 40, 24),
    "vit_5b_patch16_sapiens2": _sapiens2(2432, 56, 32),
}))


# --- foreign checkpoints

_MLPS = ((r"\.ffn\.", ".mlp."), (r"\.mlp\.w12\.", ".mlp.fc1."), (r"\.mlp\.w1\.", ".mlp.fc1_g."),
         (r"\.mlp\.w2\.", ".mlp.fc1_x."), (r"\.mlp\.w3\.", ".mlp.fc2."), (r"\.mlp\.ffn_ln\.", ".mlp.norm."))
_PE_PREFIXES = ("visual.", "", "module.visual.", "module.")


def _without(state_dict: StateDict, pattern: str) -> StateDict:
    return {key: value for key, value in state_dict.items() if not re.search(pattern, key)}


def _from_eva(state_dict: StateDict, model: nn.Module) -> StateDict:
    """EVA's and EVA-02's own, before and after fine-tuning, and EVA-CLIP's image tower."""
    prefix = "visual." if "visual.pos_embed" in state_dict else ""
    out = rename_keys(state_dict, *_MLPS, (r"\.attn\.inner_attn_ln\.", ".attn.norm."), prefix=prefix)
    if "blocks.0.attn.q_proj.weight" in out:
        out = rename_keys(out, (r"\.attn\.([qv])_bias$", r".attn.\1_proj.bias"))
    return _without(out, r"^(?:mask_token|lm_head\..*)$")


def _from_open_clip(state_dict: StateDict, model: nn.Module) -> StateDict:
    return _from_eva(from_open_clip_trunk(state_dict, model), model)


def _from_pe(state_dict: StateDict, model: nn.Module) -> StateDict:
    """Perception Encoder, alone or beside its text tower."""
    prefix = next(prefix for prefix in _PE_PREFIXES if f"{prefix}conv1.weight" in state_dict)
    out = rename_keys(
        clip_keys(state_dict, prefix), (r"\.ls_(\d)\.gamma$", r".gamma_\1"), (r"^attn_pool\.attn\.", "attn_pool."),
        (r"^attn_pool\.layernorm\.", "attn_pool.norm."), (r"^attn_pool\.probe$", "attn_pool.latent"))
    for kind in ("weight", "bias"):
        joint = out.pop(f"attn_pool.qkv.{kind}", None)
        if joint is not None:
            q, k, v = joint.chunk(3)
            out[f"attn_pool.q.{kind}"], out[f"attn_pool.kv.{kind}"] = q, torch.cat((k, v))
    return out


def _from_dinov3(state_dict: StateDict, model: nn.Module) -> StateDict:
    """DINOv3's, EUPE's and LingBot-Vision's: the keys' bias, which their attention masks, is not taken over."""
    own = _without(state_dict, r"\.bias_mask$|^(?:mask_token|local_cls_norm|projectors)")
    out = rename_keys(own, *_MLPS, (r"\.ls([12])\.gamma$", r".gamma_\1"), (r"^storage_tokens$", "reg_token"))
    lost = False
    for key in [key for key in out if key.endswith(".qkv.bias")]:
        q, _, v = out.pop(key).chunk(3)
        if model.get_submodule(key.removesuffix(".qkv.bias")).q_bias is None:
            lost = lost or bool(q.any() or v.any())
        else:
            out[key.replace("qkv.bias", "q_bias")], out[key.replace("qkv.bias", "v_bias")] = q, v
    if lost:
        warnings.warn("these weights have biases of queries and values, and the model has none: outputs differ; build "
                      "it with qkv_bias=True", UserWarning, stacklevel=registry.caller_level())
    return out


def _from_sapiens2(state_dict: StateDict, model: nn.Module) -> StateDict:
    return rename_keys(
        _without(state_dict, r"^mask_token$"), *_MLPS, (r"^storage_tokens$", "reg_token"),
        (r"^patch_embed\.projection\.", "patch_embed.proj."), (r"\.attn\.w([qkv])\.", r".attn.\1_proj."),
        (r"\.attn\.gamma\.weight$", ".gamma_1"), (r"\.ln([12])\.", r".norm\1."), (r"^ln1\.", "norm."))


_of_eva = has("visual.pos_embed", "mask_token", "lm_head.weight", "blocks.0.mlp.w1.weight", "blocks.0.mlp.w12.weight",
              "blocks.0.mlp.ffn_ln.weight", "blocks.0.attn.inner_attn_ln.weight")
_LOOSE_BIASES = ("blocks.0.attn.q_proj.weight", "blocks.0.attn.q_bias")

Eva.key_maps = (
    KeyMap("pe", has(*(f"{prefix}conv1.weight" for prefix in _PE_PREFIXES)), _from_pe),
    KeyMap("open_clip", begins("visual.trunk.", "module.visual.trunk."), _from_open_clip),
    KeyMap("sapiens2", has("blocks.0.ffn.w12.weight"), _from_sapiens2),
    KeyMap("dinov3", has("storage_tokens"), _from_dinov3),
    KeyMap("eva", lambda keys: _of_eva(keys) or all(key in keys for key in _LOOSE_BIASES), _from_eva),
)
