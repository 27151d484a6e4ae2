"""Vision transformers that keep one resolution from the patches to the head.

ViT (https://arxiv.org/abs/2010.11929), AugReg (https://arxiv.org/abs/2106.10270), DeiT (https://arxiv.org/abs/2012.12877),
DINO (https://arxiv.org/abs/2104.14294), DINOv2 (https://arxiv.org/abs/2304.07193) and its registers
(https://arxiv.org/abs/2309.16588), MAE (https://arxiv.org/abs/2111.06377), CLIP (https://arxiv.org/abs/2103.00020),
SigLIP (https://arxiv.org/abs/2303.15343), FlexiViT (https://arxiv.org/abs/2212.08013),
ViT-22B's parallel blocks (https://arxiv.org/abs/2302.05442), AIMv2 (https://arxiv.org/abs/2411.14402),
BEiT-3 (https://arxiv.org/abs/2208.10442), RADIO (https://arxiv.org/abs/2312.06709).

A model is: patch embedding, class and register tokens, position embedding, blocks, norm, pooling, classifier. What the
variants change of it are the arguments of one class.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor, nn

from ..layers.activations import ActLayer, get_act_layer
from ..layers.attention import Attention, DiffAttention, DifferentialWeights, attend, self_mask
from ..layers.attention_pool import AttentionPoolLatent, AttentionPoolPrr
from ..layers.config import use_fused_attn
from ..layers.drop import DropPath, drop_path_rates
from ..layers.helpers import move_to_end
from ..layers.mlp import GluMlp, LayerScale, Mlp, SwiGLU, open_gate
from ..layers.norm import LayerNorm, NormLayer, RmsNorm, get_norm_layer
from ..layers.patch_embed import PatchEmbed
from ..layers.pos_embed import resample_grid
from ..registry import register_model
from .base import KeyMap, StateDict, rename_keys
from .tokens import SIZES, MaskedTokenModel, masks_given, sized_by_name

if TYPE_CHECKING:
    from ._variants.vision_transformer import *

__all__ = ["Block", "VisionTransformer"]

torch.fx.wrap("self_mask")

ATTN_LAYERS = {"": Attention, "attn": Attention, "diff": DiffAttention}


# --- blocks


def _attention(attn_layer: str | Callable[..., nn.Module], dim: int, depth: int, **kwargs: Any) -> nn.Module:
    if isinstance(attn_layer, str):
        if attn_layer not in ATTN_LAYERS:
            raise ValueError(f"unknown attn_layer {attn_layer!r}; known: {', '.join(map(repr, ATTN_LAYERS))}")
        attn_layer = ATTN_LAYERS[attn_layer]
    if isinstance(attn_layer, type) and issubclass(attn_layer, DiffAttention):
        kwargs["depth"] = depth
    return attn_layer(dim, **kwargs)


def _end(dim: int, init_values: float | None, drop_path: float) -> tuple[nn.Module, nn.Module]:
    """Layer scale and stochastic depth of a branch."""
    return (LayerScale(dim, init_values) if init_values else nn.Identity(),
            DropPath(drop_path) if drop_path > 0.0 else nn.Identity())


class Block(nn.Module):
    """Attention, then a feed-forward block, each behind a norm and around a residual. Shapes: (B, N, dim) -> same.

    `scale_attn_norm`, `scale_mlp_norm`: Another norm inside either. `depth`: Index of the block.
    """

    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float = 4.0, qkv_bias: bool = False, qk_norm: bool = False,
        scale_attn_norm: bool = False, scale_mlp_norm: bool = False, proj_bias: bool = True, proj_drop: float = 0.0,
        attn_drop: float = 0.0, init_values: float | None = None, drop_path: float = 0.0, act_layer: ActLayer = nn.GELU,
        norm_layer: NormLayer = LayerNorm, mlp_layer: Callable[..., nn.Module] = Mlp,
        attn_layer: str | Callable[..., nn.Module] = "", depth: int = 0,
    ) -> None:
        super().__init__()
        self.norm1 = norm_layer(dim)
        self.attn = _attention(
            attn_layer, dim, depth, num_heads=num_heads, qkv_bias=qkv_bias, qk_norm=qk_norm,
            scale_norm=scale_attn_norm, proj_bias=proj_bias, attn_drop=attn_drop, proj_drop=proj_drop,
            norm_layer=norm_layer)
        self.ls1, self.drop_path1 = _end(dim, init_values, drop_path)
        self.norm2 = norm_layer(dim)
        self.mlp = mlp_layer(
            dim, int(dim * mlp_ratio), act_layer=act_layer, norm_layer=norm_layer if scale_mlp_norm else None,
            bias=proj_bias, drop=proj_drop)
        self.ls2, self.drop_path2 = _end(dim, init_values, drop_path)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """The mask as `Attention` takes it, which gets it only if there is one."""
        x = x + self.drop_path1(self.ls1(self.attn(self.norm1(x), **masks_given(attn_mask, is_causal))))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


class ResPostBlock(Block):
    """A block whose norms follow attention and feed-forward block; `init_values` is their initial weight."""

    def __init__(self, dim: int, num_heads: int, *args: Any, init_values: float | None = None, **kwargs: Any) -> None:
        super().__init__(dim, num_heads, *args, init_values=None, **kwargs)  # type: ignore[misc]
        self.init_values = self.norm_weight = init_values
        move_to_end(self, "norm1", "drop_path1", "mlp", "norm2", "drop_path2")
        for norm in (self.norm1, self.norm2):
            if init_values is not None and not norm.weight.is_meta:
                nn.init.constant_(norm.weight, init_values)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        x = x + self.drop_path1(self.norm1(self.attn(x, **masks_given(attn_mask, is_causal))))
        return x + self.drop_path2(self.norm2(self.mlp(x)))


class ParallelThingsBlock(nn.Module):
    """Pairs of attentions, then pairs of feed-forward blocks, side by side (https://arxiv.org/abs/2203.09795)."""

    def __init__(self, dim: int, num_heads: int, num_parallel: int = 2, **kwargs: Any) -> None:
        super().__init__()
        blocks = [Block(dim, num_heads, **kwargs) for _ in range(num_parallel)]
        self.attns = nn.ModuleList(nn.Sequential(OrderedDict(
            norm=b.norm1, attn=b.attn, ls=b.ls1, drop_path=b.drop_path1)) for b in blocks)
        self.ffns = nn.ModuleList(nn.Sequential(OrderedDict(
            norm=b.norm2, mlp=b.mlp, ls=b.ls2, drop_path=b.drop_path2)) for b in blocks)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        masks = masks_given(attn_mask, is_causal)
        branches = [self._masked(attn, x, masks) if masks else attn(x) for attn in self.attns]
        x = x + torch.stack(branches).sum(dim=0)
        return x + torch.stack([ffn(x) for ffn in self.ffns]).sum(dim=0)

    @staticmethod
    def _masked(branch: Any, x: Tensor, masks: dict[str, Any]) -> Any:
        return branch.drop_path(branch.ls(branch.attn(branch.norm(x), **masks)))


class ParallelScalingBlock(nn.Module):
    """Attention and feed-forward block side by side, with one joint input projection (ViT-22B).

    Shapes: (B, N, dim) -> same. `Block`'s arguments of norms inside, of other attentions and feed-forward blocks, and
    `depth`, do not apply. `fuse_out_proj`: A joint output projection, too, key `out_proj`, instead of `attn_out_proj`,
    `mlp_out_proj`.
    """

    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float = 4.0, qkv_bias: bool = False, qk_norm: bool = False,
        scale_attn_norm: bool = False, scale_mlp_norm: bool = False, proj_bias: bool = True, proj_drop: float = 0.0,
        attn_drop: float = 0.0, init_values: float | None = None, drop_path: float = 0.0, act_layer: ActLayer = nn.GELU,
        norm_layer: NormLayer = LayerNorm, mlp_layer: Callable[..., nn.Module] = Mlp,
        attn_layer: str | type[nn.Module] = "", depth: int = 0, fuse_out_proj: bool = False,
        head_dim: int | None = None,
    ) -> None:
        super().__init__()
        hidden = int(mlp_ratio * dim)
        self.num_heads, self.in_split, self.fused_attn = num_heads, [hidden, dim, dim, dim], use_fused_attn()
        self.head_dim = head_dim = head_dim or dim // num_heads
        self.scale = head_dim ** -0.5
        self.in_norm = norm_layer(dim)
        self.in_proj = nn.Linear(dim, hidden + 3 * dim, bias=qkv_bias)
        self.mlp_bias = None if qkv_bias else nn.Parameter(torch.empty(hidden))
        self.q_norm = norm_layer(head_dim) if qk_norm else nn.Identity()
        self.k_norm = norm_layer(head_dim) if qk_norm else nn.Identity()
        self.attn_drop, self.mlp_drop = nn.Dropout(attn_drop), nn.Dropout(proj_drop)
        self.mlp_act = get_act_layer(act_layer)()
        self.out_proj = nn.Linear(dim + hidden, dim, bias=proj_bias) if fuse_out_proj else None
        self.attn_out_proj = None if fuse_out_proj else nn.Linear(dim, dim, bias=proj_bias)
        self.mlp_out_proj = None if fuse_out_proj else nn.Linear(hidden, dim, bias=proj_bias)
        self.ls = LayerScale(dim, init_values) if init_values is not None else nn.Identity()
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.mlp_bias is not None:
            nn.init.zeros_(self.mlp_bias)

    def attention(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = (t.unflatten(2, (self.num_heads, -1)) for t in (q, k, v))
        q, k = self.q_norm(q).transpose(1, 2), self.k_norm(k).transpose(1, 2)
        return attend(q, k, v.transpose(1, 2), self.fused_attn, self.attn_drop, mask).transpose(1, 2).flatten(2)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        hidden, q, k, v = self.in_proj(self.in_norm(x)).split(self.in_split, dim=-1)
        if self.mlp_bias is not None:
            hidden = hidden + self.mlp_bias
        attended = self.attention(q, k, v, self_mask(x, attn_mask, is_causal))
        hidden = self.mlp_drop(self.mlp_act(hidden))
        y = self.attn_out_proj(attended) + self.mlp_out_proj(hidden) if self.out_proj is None else \
            self.out_proj(torch.cat((attended, hidden), dim=-1))
        return x + self.drop_path(self.ls(y))


class DiffParallelScalingBlock(ParallelScalingBlock, DifferentialWeights):
    """A parallel block with differential attention."""

    def __init__(self, dim: int, num_heads: int, *, depth: int = 0, **kwargs: Any) -> None:
        head_dim = dim // num_heads // 2
        super().__init__(dim, num_heads, fuse_out_proj=True, head_dim=head_dim, **kwargs)
        self.add_differential_weights(head_dim, depth)
        move_to_end(self, "out_proj", "ls", "drop_path")

    def reset_parameters(self) -> None:
        ParallelScalingBlock.reset_parameters(self)
        DifferentialWeights.reset_parameters(self)

    def attention(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        return self.attend(q, k, v, mask)


# --- the model


class VisionTransformer(MaskedTokenModel):
    """Vision transformer.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); features are (B, prefix tokens + patches, embed_dim).

    Args:
        global_pool: "prr" (attention without parameters), too.
        qkv_bias, proj_bias: Whether the blocks' linear layers have a bias.
        qk_norm: Normalise queries and keys.
        scale_attn_norm, scale_mlp_norm: Further norms inside the blocks (BEiT-3).
        pos_embed: "learn", or "" for no position embedding.
        reg_tokens: Number of register tokens.
        pre_norm: Norm before the first block (CLIP); the patch embedding has no bias then.
        final_norm: Norm after the last block.
        fc_norm: Move the final norm behind the pooling; by default where patches are pooled by mean or maximum.
        pool_include_prefix: Pool over prefix tokens too.
        embed_norm_layer: Norm in the patch embedding.
        embed_layer, norm_layer, act_layer, block_fn, mlp_layer, attn_layer: What the model is made of.
        resampling: How weights of another size are resampled, see `fit_sizes`; bicubic and antialiased unless given.
        others: As `SequenceModel` explains them.

    Raises:
        ValueError: An option has an unknown value, or token pooling is asked for without a class token.
    """

    pools: ClassVar[tuple[str, ...]] = (*MaskedTokenModel.pools, "map", "prr")

    def __init__(
        self, img_size: int | tuple[int, int] = 224, patch_size: int | tuple[int, int] = 16, in_chans: int = 3,
        num_classes: int = 1000, global_pool: str = "token", embed_dim: int = 768, depth: int = 12, num_heads: int = 12,
        mlp_ratio: float = 4.0, qkv_bias: bool = True, qk_norm: bool = False, scale_attn_norm: bool = False,
        scale_mlp_norm: bool = False, proj_bias: bool = True, init_values: float | None = None,
        class_token: bool = True, pos_embed: str = "learn", no_embed_class: bool = False, reg_tokens: int = 0,
        pre_norm: bool = False, final_norm: bool = True, fc_norm: bool | None = None, pool_include_prefix: bool = False,
        dynamic_img_size: bool = False, dynamic_img_pad: bool = False, drop_rate: float = 0.0,
        pos_drop_rate: float = 0.0, patch_drop_rate: float = 0.0, proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0, drop_path_rate: float = 0.0, weight_init: str = "", fix_init: bool = False,
        embed_layer: Callable[..., nn.Module] = PatchEmbed, embed_norm_layer: NormLayer = None,
        norm_layer: NormLayer = None, act_layer: ActLayer = None, block_fn: type[nn.Module] = Block,
        mlp_layer: Callable[..., nn.Module] = Mlp, attn_layer: str | type[nn.Module] = "",
        resampling: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        norm = get_norm_layer(norm_layer) or LayerNorm
        act = get_act_layer(act_layer) or nn.GELU
        self.in_chans, self.dynamic_img_size = in_chans, dynamic_img_size
        self.weight_init_mode, self.fix_init = weight_init, fix_init
        self.resampling = resampling or self.resampling
        self.pool_include_prefix = pool_include_prefix or global_pool == "prr"
        if pos_embed not in ("", "none", "learn"):
            raise ValueError(f"pos_embed {pos_embed!r} is not one of '', 'none', 'learn'")
        patch_embed: Any = embed_layer(
            img_size=img_size, patch_size=patch_size, in_chans=in_chans, embed_dim=embed_dim, bias=not pre_norm,
            norm_layer=get_norm_layer(embed_norm_layer), output_fmt="NHWC" if dynamic_img_size else "NLC",
            strict_img_size=not dynamic_img_size, dynamic_img_pad=dynamic_img_pad)
        patch_embed.may_be_dynamic = True
        self.add_tokens(
            patch_embed, embed_dim, class_token, reg_tokens, pos_embed == "learn", no_embed_class, pos_drop_rate,
            patch_drop_rate)
        if pre_norm:
            self.norm_pre = norm(embed_dim)
        self.blocks = nn.Sequential(*(
            block_fn(
                dim=embed_dim, num_heads=num_heads, mlp_ratio=mlp_ratio, qkv_bias=qkv_bias, qk_norm=qk_norm,
                scale_attn_norm=scale_attn_norm, scale_mlp_norm=scale_mlp_norm, proj_bias=proj_bias,
                init_values=init_values, proj_drop=proj_drop_rate, attn_drop=attn_drop_rate, drop_path=rate,
                norm_layer=norm, act_layer=act, mlp_layer=mlp_layer, attn_layer=attn_layer, depth=i)
            for i, rate in enumerate(drop_path_rates(drop_path_rate, depth))))
        attn_pool: nn.Module | None = None
        if global_pool == "map":
            attn_pool = AttentionPoolLatent(
                embed_dim, num_heads=num_heads, mlp_ratio=mlp_ratio, norm_layer=norm, act_layer=act)
        elif global_pool == "prr":
            attn_pool = AttentionPoolPrr(embed_dim, num_heads, "token" if class_token else "avg")
        self.add_head(norm, num_classes, global_pool, fc_norm, final_norm, attn_pool, drop_rate)
        self.init_weights()

    def get_intermediate_layers(
        self, x: Tensor, n: int | Sequence[int] = 1, reshape: bool = False, return_prefix_tokens: bool = False,
        norm: bool = False, attn_mask: Tensor | None = None,
    ) -> list[Any]:
        """DINO's name for `forward_intermediates`: outputs of the last `n` blocks, or of those named.

        `reshape`: (B, C, rows, columns) instead of (B, N, C).
        """
        return cast(list[Any], self.forward_intermediates(
            x, n, return_prefix_tokens, norm, output_fmt="NCHW" if reshape else "NLC", intermediates_only=True,
            attn_mask=attn_mask))

    def init_module(self, name: str, module: nn.Module) -> None:
        super().init_module(name, module)
        if self.weight_init_mode not in ("reset", "skip"):
            open_gate(self, name, module)

    def fit_state_dict(self, state_dict: StateDict) -> StateDict:
        # "pre_logits" is a layer of the first ViT's pretraining, without use in a classifier; gamma_1 and gamma_2 are
        # DeiT-III's names of layer scale.
        return super().fit_state_dict({re.sub(r"\bgamma_(\d)$", r"ls\1.gamma", key): value
                                       for key, value in state_dict.items() if "pre_logits" not in key})


# --- the architectures: presets, and what else differs from the class's defaults

_BILINEAR = dict(interpolation="bilinear", antialias=False)  # how Google's JAX code, FlexiViT and RADIO resample

# sizes
_MEDIUM_DEEP = dict(SIZES["medium"], depth=20)
_BASE_PLUS = dict(embed_dim=896, depth=12, num_heads=14)
_SO150M = dict(embed_dim=896, depth=18, num_heads=14, mlp_ratio=2.572)
_SO150M2 = dict(embed_dim=832, depth=21, num_heads=13, mlp_ratio=34 / 13)
_SO400M = dict(embed_dim=1152, depth=27, num_heads=16, mlp_ratio=3.7362)
_GIANT = dict(embed_dim=1408, depth=40, num_heads=16, mlp_ratio=48 / 11)
_GIGANTIC = dict(embed_dim=1664, depth=48, num_heads=16, mlp_ratio=64 / 13)
_GIANT_DINO = dict(
    embed_dim=1536, depth=40, num_heads=24, mlp_ratio=2.66667 * 2, mlp_layer=partial(GluMlp, gate_last=False),
    act_layer=nn.SiLU)
_GIANT_OPT = dict(embed_dim=1536, depth=40, num_heads=16)
_WEE = dict(embed_dim=256, depth=14, num_heads=4, init_values=1e-5, mlp_ratio=5)
_WEE_DEEP = dict(_WEE, depth=16)
_LITTLE = dict(embed_dim=320, depth=14, num_heads=5, init_values=1e-5, mlp_ratio=5.6)

# kinds
_SCALED = dict(init_values=1e-5)
_NO_CLASS = dict(class_token=False, global_pool="avg")
_GAP = dict(_NO_CLASS, fc_norm=False)
_SCALED_GAP = dict(_GAP, qkv_bias=False, init_values=1e-6)
_MAP = dict(class_token=False, global_pool="map")
_REG1, _REG4 = (dict(reg_tokens=count, no_embed_class=True) for count in (1, 4))
_REG1_GAP, _REG4_GAP = {**_NO_CLASS, **_REG1}, {**_NO_CLASS, **_REG4}
_SO150M2_GAP = dict(_NO_CLASS, init_values=1e-5, qkv_bias=False, reg_tokens=1)
_CLIP = dict(pre_norm=True, norm_layer=partial(LayerNorm, eps=1e-5))
_QUICK, _TANH = dict(act_layer="quick_gelu"), dict(act_layer="gelu_tanh")
_XP = dict(
    pre_norm=True, no_embed_class=True, norm_layer=RmsNorm, block_fn=ParallelScalingBlock, qkv_bias=False, qk_norm=True)
_FLEXI = dict(img_size=240, no_embed_class=True, resampling=_BILINEAR)
_DINOV2 = dict(img_size=518, init_values=1e-5)
_TIPS = dict(img_size=448, init_values=1.0, **_REG1)
_AIMV2 = dict(
    _GAP, depth=24, qkv_bias=False, proj_bias=False, act_layer="silu", mlp_layer=SwiGLU,
    norm_layer=partial(RmsNorm, eps=1e-5), embed_norm_layer=partial(RmsNorm, eps=1e-5))
_AIM_LARGE = dict(_AIMV2, embed_dim=1024, num_heads=8, mlp_ratio=2.75)
_AIM_HUGE = dict(_AIMV2, embed_dim=1536, num_heads=12, mlp_ratio=2.6667)
_AIM_1B = dict(_AIMV2, embed_dim=2048, num_heads=16, mlp_ratio=2.75)
_AIM_3B = dict(_AIMV2, embed_dim=3072, num_heads=24, mlp_ratio=2.6667)
_BEIT3 = dict(
    scale_attn_norm=True, scale_mlp_norm=True, global_pool="avg", norm_layer=partial(LayerNorm, eps=1e-5))
_BEIT3_GIANT = dict(_BEIT3, embed_dim=1408, depth=40, num_heads=16, mlp_ratio=4.3637)
_RADIO = dict(
    img_size=512, no_embed_class=True, final_norm=False, resampling={**_BILINEAR, "align_corners": False})
_RADIO_CORNERS = dict(_RADIO, resampling={**_BILINEAR, "align_corners": True})
_TEST = dict(embed_dim=64, depth=6, num_heads=2, mlp_ratio=3, dynamic_img_size=True)
_TEST_GAP = dict(_TEST, **_NO_CLASS, reg_tokens=1, init_values=1e-5)

register_model.variants(__name__, VisionTransformer, sized_by_name({
    "vit_tiny_patch16_224 vit_tiny_patch16_384 vit_small_patch32_224 vit_small_patch32_384 vit_small_patch16_224 "
    "vit_small_patch16_384 vit_small_patch8_224 vit_base_patch32_224 vit_base_patch32_384 vit_base_patch16_224 "
    "vit_base_patch16_384 vit_base_patch8_224 vit_large_patch32_224 vit_large_patch32_384 vit_large_patch16_224 "
    "vit_large_patch16_384 vit_large_patch14_224 vit_huge_patch14_224": {},
    "vit_giant_patch14_224": _GIANT,
    "vit_gigantic_patch14_224": _GIGANTIC,
    "vit_base_patch16_224_miil": dict(qkv_bias=False),
    "vit_medium_patch16_gap_240 vit_medium_patch16_gap_256 vit_medium_patch16_gap_384 "
    "vit_betwixt_patch16_gap_256": _SCALED_GAP,
    "vit_base_patch16_gap_224": (_GAP, dict(num_heads=16)),
    "vit_huge_patch14_gap_224 vit_huge_patch16_gap_448 vit_base_patch16_siglip_gap_224 "
    "vit_base_patch16_siglip_gap_256 vit_base_patch16_siglip_gap_384 vit_base_patch16_siglip_gap_512 "
    "vit_large_patch16_siglip_gap_256 vit_large_patch16_siglip_gap_384": _GAP,
    "vit_giant_patch16_gap_224": (_GIANT, _GAP),
    "vit_xsmall_patch16_clip_224": (_CLIP, dict(embed_dim=256, depth=10, num_heads=4)),
    "vit_medium_patch32_clip_224 vit_medium_patch16_clip_224 vit_betwixt_patch32_clip_224 vit_base_patch32_clip_224 "
    "vit_base_patch32_clip_256 vit_base_patch32_clip_384 vit_base_patch32_clip_448 vit_base_patch16_clip_224 "
    "vit_base_patch16_clip_384 vit_large_patch14_clip_224 vit_large_patch14_clip_336 vit_huge_patch14_clip_224 "
    "vit_huge_patch14_clip_336 vit_huge_patch14_clip_378": _CLIP,
    "vit_base_patch16_plus_clip_240": (_BASE_PLUS, _CLIP),
    "vit_giant_patch14_clip_224": (_GIANT, _CLIP),
    "vit_gigantic_patch14_clip_224 vit_gigantic_patch14_clip_378": (_GIGANTIC, _CLIP),
    "vit_base_patch32_clip_quickgelu_224 vit_base_patch16_clip_quickgelu_224 vit_large_patch14_clip_quickgelu_224 "
    "vit_large_patch14_clip_quickgelu_336 vit_huge_patch14_clip_quickgelu_224 vit_huge_patch14_clip_quickgelu_378": (
        _CLIP, _QUICK),
    "vit_gigantic_patch14_clip_quickgelu_224": (_GIGANTIC, _CLIP, _QUICK),
    "vit_base_patch32_plus_256 vit_base_patch16_plus_240": (_BASE_PLUS, _SCALED),
    "vit_base_patch16_rpn_224": (_SCALED, _NO_CLASS, dict(qkv_bias=False, block_fn=ResPostBlock)),
    "vit_small_patch16_36x1_224": (_SCALED, dict(depth=36)),
    "vit_small_patch16_18x2_224 vit_base_patch16_18x2_224": (_SCALED, dict(depth=18, block_fn=ParallelThingsBlock)),
    "eva_large_patch14_196 eva_large_patch14_336": dict(global_pool="avg"),
    "flexivit_small flexivit_base flexivit_large": _FLEXI,
    "vit_base_patch16_xp_224 vit_large_patch14_xp_224 vit_huge_patch14_xp_224": _XP,
    "vit_small_patch14_dinov2 vit_base_patch14_dinov2 vit_large_patch14_dinov2": _DINOV2,
    "vit_giant_patch14_dinov2": (_GIANT_DINO, _DINOV2),
    "vit_small_patch14_reg4_dinov2 vit_base_patch14_reg4_dinov2 vit_large_patch14_reg4_dinov2": (_DINOV2, _REG4),
    "vit_giant_patch14_reg4_dinov2": (_GIANT_DINO, _DINOV2, _REG4),
    "vit_base_patch14_reg1_tipsv2 vit_large_patch14_reg1_tipsv2": _TIPS,
    "vit_so400m_patch14_reg1_tipsv2": (_SO400M, _TIPS),
    "vit_giant_patch14_reg1_tipsv2": (_GIANT_DINO, _TIPS),
    "vit_base_patch32_siglip_256 vit_large_patch16_siglip_512": (_MAP, _TANH),
    "vit_base_patch16_siglip_224 vit_base_patch16_siglip_256 vit_base_patch16_siglip_384 vit_base_patch16_siglip_512 "
    "vit_large_patch16_siglip_256 vit_large_patch16_siglip_384": _MAP,
    "vit_so400m_patch14_siglip_224 vit_so400m_patch14_siglip_378 vit_so400m_patch14_siglip_384": (_SO400M, _MAP),
    "vit_so400m_patch16_siglip_256 vit_so400m_patch16_siglip_384 vit_so400m_patch16_siglip_512": (_SO400M, _MAP, _TANH),
    "vit_giantopt_patch16_siglip_256 vit_giantopt_patch16_siglip_384": (_GIANT_OPT, _MAP, _TANH),
    "vit_base_patch32_siglip_gap_256 vit_large_patch16_siglip_gap_512": (_GAP, _TANH),
    "vit_so400m_patch14_siglip_gap_224 vit_so400m_patch14_siglip_gap_378 vit_so400m_patch14_siglip_gap_384 "
    "vit_so400m_patch14_siglip_gap_448 vit_so400m_patch14_siglip_gap_896": (_SO400M, _GAP),
    "vit_so400m_patch16_siglip_gap_256 vit_so400m_patch16_siglip_gap_384 vit_so400m_patch16_siglip_gap_512": (
        _SO400M, _GAP, _TANH),
    "vit_giantopt_patch16_siglip_gap_256 vit_giantopt_patch16_siglip_gap_384": (_GIANT_OPT, _GAP, _TANH),
    "vit_wee_patch16_reg1_gap_256": (_WEE, _REG1_GAP),
    "vit_dwee_patch16_reg1_gap_256": (_WEE, _REG1_GAP, dict(attn_layer="diff")),
    "vit_pwee_patch16_reg1_gap_256": (_WEE_DEEP, _REG1_GAP, dict(block_fn=ParallelScalingBlock)),
    "vit_dpwee_patch16_reg1_gap_256": (_WEE_DEEP, _REG1_GAP, dict(block_fn=DiffParallelScalingBlock)),
    "vit_little_patch16_reg1_gap_256": (_LITTLE, _REG1_GAP),
    "vit_dlittle_patch16_reg1_gap_256": (_LITTLE, _REG1_GAP, dict(attn_layer="diff")),
    "vit_little_patch16_reg4_gap_256": (_LITTLE, _REG4_GAP),
    "vit_medium_patch16_reg1_gap_256 vit_betwixt_patch16_reg1_gap_256": (_REG1_GAP, _SCALED),
    "vit_medium_patch16_reg4_gap_256 vit_betwixt_patch16_reg4_gap_256 vit_betwixt_patch16_reg4_gap_384": (
        _REG4_GAP, _SCALED),
    "vit_mediumd_patch16_reg4_gap_256 vit_mediumd_patch16_reg4_gap_384": (_MEDIUM_DEEP, _REG4_GAP, _SCALED),
    "vit_base_patch16_reg4_gap_256": _REG4_GAP,
    "vit_so150m_patch16_reg4_map_256": (_SO150M, _MAP, dict(reg_tokens=4)),
    "vit_so150m_patch16_reg4_gap_256 vit_so150m_patch16_reg4_gap_384": (_SO150M, _GAP, dict(reg_tokens=4)),
    "vit_so150m2_patch16_reg1_gap_256 vit_so150m2_patch16_reg1_gap_384 vit_so150m2_patch16_reg1_gap_448": (
        _SO150M2, _SO150M2_GAP),
    "vit_intern300m_patch14_448": (  # 448 is for its weights alone
        SIZES["large"], dict(img_size=224, init_values=0.1, final_norm=False, dynamic_img_size=True)),
    "aimv2_large_patch14_224 aimv2_large_patch14_336 aimv2_large_patch14_448": _AIM_LARGE,
    "aimv2_huge_patch14_224 aimv2_huge_patch14_336 aimv2_huge_patch14_448": _AIM_HUGE,
    "aimv2_1b_patch14_224 aimv2_1b_patch14_336 aimv2_1b_patch14_448": _AIM_1B,
    "aimv2_3b_patch14_224 aimv2_3b_patch14_336 aimv2_3b_patch14_448": _AIM_3B,
    "test_vit": _TEST,
    "test_vit2": (_TEST_GAP, dict(depth=8)),
    "test_vit3": (_MAP, _SCALED, dict(
        img_size=160, embed_dim=96, depth=9, num_heads=3, mlp_ratio=2, reg_tokens=1, pool_include_prefix=True)),
    "test_vit4": (_TEST_GAP, dict(embed_dim=96, depth=9, num_heads=3, norm_layer="rmsnorm")),
    "beit3_base_patch16_224 beit3_large_patch16_224": _BEIT3,
    "beit3_giant_patch14_224 beit3_giant_patch14_336": _BEIT3_GIANT,
    "vit_base_patch16_radio_v3": (_RADIO_CORNERS, _SCALED, dict(reg_tokens=7)),
    "vit_large_patch16_radio_v3": (_RADIO, _SCALED, dict(reg_tokens=7)),
    "vit_huge_patch16_radio_v3": (_RADIO_CORNERS, dict(reg_tokens=7)),
    "vit_giant_patch16_radio_v3": (_RADIO, dict(embed_dim=1536, depth=40, num_heads=24, reg_tokens=7)),
    "vit_so400m_patch16_radio_v4": (_SO400M, _RADIO, dict(reg_tokens=9)),
    "vit_huge_patch16_radio_v4": (_RADIO, dict(reg_tokens=9)),
}))


# --- foreign checkpoints


def _from_clip(state_dict: StateDict, model: nn.Module) -> StateDict:
    return clip_keys(state_dict, "module.visual." if "module.visual.class_embedding" in state_dict else "visual.")


def clip_keys(state_dict: StateDict, prefix: str) -> StateDict:
    """OpenAI's and OpenCLIP's own image tower; its projection becomes a classifier without bias."""
    out = rename_keys(
        state_dict, (r"^conv1\.", "patch_embed.proj."), (r"^class_embedding$", "cls_token"),
        (r"^positional_embedding$", "pos_embed"), (r"^ln_pre\.", "norm_pre."), (r"^ln_post\.", "norm."),
        (r"^transformer\.resblocks\.", "blocks."), (r"\.ln_(\d)\.", r".norm\1."), (r"\.attn\.in_proj_", ".attn.qkv."),
        (r"\.attn\.out_proj\.", ".attn.proj."), (r"\.mlp\.c_fc\.", ".mlp.fc1."), (r"\.mlp\.c_proj\.", ".mlp.fc2."),
        prefix=prefix)
    if "cls_token" in out:
        out["cls_token"] = out["cls_token"].reshape(1, 1, -1)
    out["pos_embed"] = out["pos_embed"][None]
    return out if "proj" not in out else out | as_classifier(out.pop("proj").T)


def as_classifier(projection: Tensor) -> StateDict:
    """A classifier without bias: the projection (out, in) of an image tower."""
    return {"head.weight": projection, "head.bias": torch.zeros(projection.shape[0])}


def from_open_clip_trunk(state_dict: StateDict, model: nn.Module) -> StateDict:
    """OpenCLIP around a tower of timm's."""
    wrapper = "module." if any(key.startswith("module.") for key in state_dict) else ""
    out = rename_keys(state_dict, prefix=f"{wrapper}visual.trunk.")
    projection = state_dict.get("visual.head.proj.weight")
    is_wanted = projection is not None and isinstance(model.get_classifier(), nn.Linear)
    return out | as_classifier(projection) if is_wanted else out  # type: ignore[arg-type]


def _from_dinov2(state_dict: StateDict, model: nn.Module) -> StateDict:
    """DINOv2's, and TIPSv2's image encoder: with registers, the class token takes up its position embedding."""
    prefix = "vision_encoder." if "vision_encoder.mask_token" in state_dict else ""
    out = rename_keys(state_dict, (r"\.mlp\.w12\.", ".mlp.fc1."), (r"\.mlp\.w3\.", ".mlp.fc2."), prefix=prefix)
    del out["mask_token"]
    registers = out.pop("register_tokens", None)
    if registers is not None:
        out["reg_token"] = registers
        out["cls_token"] = out["cls_token"] + out["pos_embed"][:, :1]
        out["pos_embed"] = out["pos_embed"][:, 1:]
    return out


def _from_beit3(state_dict: StateDict, model: nn.Module) -> StateDict:
    """BEiT-3's image part: the vision experts of its encoder, with separate projections joined."""
    renamed = rename_keys(
        state_dict, (r"^vision_embed\.proj\.", "patch_embed.proj."), (r"^vision_embed\.cls_token$", "cls_token"),
        (r"^encoder\.embed_positions\.A\.weight$", "pos_embed"), (r"^encoder\.layer_norm\.A\.", "norm."),
        (r"^encoder\.layers\.", "blocks."), (r"\.self_attn_layer_norm\.A\.", ".norm1."),
        (r"\.final_layer_norm\.A\.", ".norm2."), (r"\.self_attn\.inner_attn_ln\.A\.", ".attn.norm."),
        (r"\.self_attn\.out_proj\.A\.", ".attn.proj."), (r"\.self_attn\.([qkv])_proj\.A\.", r".attn.\1."),
        (r"\.ffn\.A\.ffn_layernorm\.", ".mlp.norm."), (r"\.ffn\.A\.", ".mlp."), prefix="beit3.")
    out = {key: value for key, value in renamed.items()
           if ".B." not in key and not key.startswith(("text_embed", "vision_embed"))}
    for key in [key for key in out if ".attn.q." in key]:
        out[key.replace(".q.", ".qkv.")] = torch.cat([out.pop(key.replace(".q.", f".{part}.")) for part in "qkv"])
    if "pos_embed" in out:  # two entries before the class token's belong to the text's padding
        out["pos_embed"] = out["pos_embed"][2:][None]
    if "norm.weight" in out and isinstance(model.norm, nn.Identity):
        for kind in ("weight", "bias"):
            out[f"fc_norm.{kind}"] = out.pop(f"norm.{kind}")
    return out | {key: value for key, value in state_dict.items() if key.startswith(("head.", "fc_norm."))}


def _from_radio(state_dict: StateDict, model: nn.Module) -> StateDict:
    """RADIO's backbone; its grid of 128 x 128 positions is resampled to the model's as RADIO does itself."""
    out = radio_keys(state_dict)
    rows, columns = model.patch_embed.grid_size
    grid = resample_grid(out["pos_embed"], (max(rows, columns),) * 2, **model.resampling)
    return {**out, "pos_embed": grid[:, :rows, :columns]}


def radio_keys(state_dict: StateDict) -> StateDict:
    """RADIO's backbone as a vision transformer's, with the position embedding as a grid, (1, 128, 128, C)."""
    out = rename_keys(state_dict, (r"\.grandma$", ".gamma"), prefix="radio_model.model.")
    weight = out.pop("patch_generator.embedder.weight")
    side = math.isqrt(weight.shape[1] // 3)
    tokens = out.pop("patch_generator.cls_token.token")
    positions = out.pop("patch_generator.pos_embed")
    out = {key: value for key, value in out.items() if key.startswith("blocks.")}
    out["patch_embed.proj.weight"] = weight.reshape(-1, 3, side, side)
    out["patch_embed.proj.bias"] = torch.zeros(weight.shape[0])
    out["cls_token"], out["reg_token"] = tokens[None, :1], tokens[None, 1:]
    old = math.isqrt(positions.shape[1])
    out["pos_embed"] = positions.reshape(1, old, old, -1)
    return out


def _from_jax(state_dict: StateDict, model: nn.Module) -> StateDict:
    """big_vision's and vision_transformer's arrays, as their .npz files name them; bilinear at another size."""
    out = jax_keys(state_dict)
    if model.cls_token is None:
        out.pop("cls_token", None)
    return model.fit_sizes(out, **_BILINEAR)


def jax_keys(state_dict: StateDict) -> StateDict:
    """big_vision's and vision_transformer's arrays, as their .npz files name them, with our keys and layouts."""
    marker = "embedding/kernel"
    root = min((key for key in state_dict if key.endswith(marker)), key=len)[:-len(marker)]
    arrays = {key[len(root):]: value for key, value in state_dict.items() if key.startswith(root)}
    for key in [key for key in arrays if key.startswith("Transformer/encoderblock/")]:  # all blocks in one array
        for index, value in enumerate(arrays.pop(key).unbind()):
            arrays[key.replace("encoderblock", f"encoderblock_{index}")] = value
    arrays = {key: _from_jax_array(key, value) for key, value in arrays.items()}
    renamed = rename_keys(
        arrays, (r"^embedding/", "patch_embed.proj/"), (r"^cls$", "cls_token"),
        (r"^(?:Transformer/posembed_input/)?pos_embedding$", "pos_embed"), (r"^Transformer/encoder_norm/", "norm/"),
        (r"^Transformer/encoderblock_(\d+)/", r"blocks.\1."), (r"^MAPHead_0/probe$", "attn_pool.latent"),
        (r"^MAPHead_0/MultiHeadDotProductAttention_0/", "attn_pool."), (r"^MAPHead_0/LayerNorm_0/", "attn_pool.norm/"),
        (r"^MAPHead_0/", "attn_pool."), (r"MultiHeadDotProductAttention_\d/", "attn."),
        (r"MlpBlock_\d/Dense_0/", "mlp.fc1/"),  # Flax numbers submodules by their kind, or all together
        (r"MlpBlock_\d/Dense_1/", "mlp.fc2/"), (r"LayerNorm_0/", "norm1/"), (r"LayerNorm_\d/", "norm2/"),
        (r"\bout/", "proj/"), (r"/(?:kernel|scale)$", ".weight"), (r"/bias$", ".bias"))
    own = ("patch_embed.", "cls_token", "pos_embed", "blocks.", "norm.", "attn_pool.", "head.")  # not a text tower's
    out = {key: value for key, value in renamed.items() if key.startswith(own)}
    for key in [key for key in out if ".query." in key]:
        parts = [out.pop(key.replace(".query.", f".{part}.")) for part in ("query", "key", "value")]
        if key.startswith("attn_pool."):
            out[key.replace(".query.", ".q.")] = parts.pop(0)
        out[key.replace(".query.", ".kv." if len(parts) == 2 else ".qkv.")] = torch.cat(parts)
    return out


def _from_jax_array(name: str, value: Tensor) -> Tensor:
    """One of Flax's arrays in torch's layout: outputs first, heads joined."""
    layer, _, kind = name.rpartition("/")
    if kind in ("bias", "scale"):
        return value.flatten()
    if kind != "kernel":
        return value
    if value.ndim == 4:  # a convolution: (height, width, in, out), where a classifier may be one of 1 x 1 too
        value = value.permute(3, 2, 0, 1)
        return (value.flatten(1) if layer == "head" else value).contiguous()
    heads_first = layer.endswith("/out")
    return (value.flatten(0, 1) if heads_first and value.ndim == 3 else value.flatten(1)).T.contiguous()


def has(*keys: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda state_dict: any(key in state_dict for key in keys)


def begins(*prefixes: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda state_dict: any(key.startswith(prefixes) for key in state_dict)


VisionTransformer.key_maps = (
    KeyMap.renaming(
        "torchvision", "encoder.pos_embedding", (r"^conv_proj\.", "patch_embed.proj."), (r"^class_token$", "cls_token"),
        (r"^encoder\.pos_embedding$", "pos_embed"), (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
        (r"\.ln_(\d)\.", r".norm\1."), (r"\.self_attention\.in_proj_", ".attn.qkv."),
        (r"\.self_attention\.out_proj\.", ".attn.proj."), (r"\.mlp\.(?:0|linear_1)\.", ".mlp.fc1."),
        (r"\.mlp\.(?:3|linear_2)\.", ".mlp.fc2."), (r"^encoder\.ln\.", "norm."), (r"^heads\.(?:head|0)\.", "head.")),
    KeyMap("clip", has("visual.class_embedding", "module.visual.class_embedding"), _from_clip),
    KeyMap("open_clip", begins("visual.trunk.", "module.visual.trunk."), from_open_clip_trunk),
    KeyMap("dinov2", has("mask_token", "vision_encoder.mask_token"), _from_dinov2),
    KeyMap("beit3", begins("beit3."), _from_beit3),
    KeyMap.renaming(
        "aimv2", "preprocessor.patchifier.proj.weight", (r"^preprocessor\.patchifier\.", "patch_embed."),
        (r"^preprocessor\.pos_embed", "pos_embed"), (r"^trunk\.", ""), (r"^post_trunk_norm\.", "norm."),
        (r"norm_(\d)", r"norm\1"), (r"\.mlp\.fc1\.", ".mlp.fc1_g."), (r"\.mlp\.fc3\.", ".mlp.fc1_x.")),
    KeyMap("radio", begins("radio_model.model."), _from_radio),
    KeyMap("jax", lambda keys: any(key.endswith("embedding/kernel") for key in keys), _from_jax),
)
