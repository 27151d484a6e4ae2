"""Pyramid Vision Transformer v2: attention to a smaller map of keys, in four stages of overlapping patches.

Wang et al., "PVT v2: Improved Baselines with Pyramid Vision Transformer", 2021, arXiv:2106.13797.

There is no position embedding: zeros at the borders of the patches' convolutions, and of those within the MLPs, tell
where tokens are. Keys and values come from a map that a convolution shrinks or, in the linear form, a pool to 7 x 7.
Within a stage maps are channels-last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from ..layers import ActLayer, PreNormBlock, Stage, drop_path_rates, get_act_layer, init_fan_out, init_trunc_normal
from ..layers.helpers import Module, to_2tuple, to_ntuple
from ..layers.norm import LayerNorm, NormLayer, get_norm_layer
from ..registry import register_model
from .base import Flow, ImageModel, Inits, KeyMap, Step
from .twins import GlobalSubSampleAttn, OnMap

if TYPE_CHECKING:
    from ._variants.pvt_v2 import *

__all__ = ["PyramidVisionTransformerV2"]


class MlpWithDepthwiseConv(OnMap):
    """An MLP with a depthwise 3x3 convolution before its activation, and with `extra_relu` a ReLU before that."""

    def __init__(
        self, in_features: int, hidden_features: int | None = None, out_features: int | None = None,
        act_layer: ActLayer = nn.GELU, drop: float = 0.0, extra_relu: bool = False,
    ) -> None:
        super().__init__()
        hidden = hidden_features or in_features
        self.fc1 = nn.Linear(in_features, hidden)
        self.relu = nn.ReLU() if extra_relu else nn.Identity()
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.act = get_act_layer(act_layer)()
        self.fc2 = nn.Linear(hidden, out_features or in_features)
        self.drop = nn.Dropout(drop)

    def on_map(self, x: Tensor) -> Tensor:
        x = self.dwconv(self.relu(self.fc1(x)).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.drop(self.fc2(self.drop(self.act(x))))


class Attention(GlobalSubSampleAttn):
    """Attention to a map made `sr_ratio` times smaller by a convolution; with `linear_attn` to one of 7 x 7, pooled."""

    def __init__(
        self, dim: int, num_heads: int = 8, sr_ratio: int = 1, linear_attn: bool = False, qkv_bias: bool = True,
        attn_drop: float = 0.0, proj_drop: float = 0.0,
    ) -> None:
        super().__init__(dim, num_heads, attn_drop, proj_drop, 1 if linear_attn else sr_ratio, qkv_bias)
        if linear_attn:
            self.sr, self.norm = nn.Conv2d(dim, dim, 1), nn.LayerNorm(dim)
        self.pool = nn.AdaptiveAvgPool2d(7) if linear_attn else nn.Identity()
        self.act = nn.GELU() if linear_attn else nn.Identity()

    def reduce(self, x: Tensor) -> Tensor:
        x = self.sr(self.pool(x.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
        return self.act(self.norm(x))


class Block(OnMap, PreNormBlock):
    """Attention, then an MLP, each with norm and residual. Arguments as of its parts."""

    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float = 4.0, sr_ratio: int = 1, linear_attn: bool = False,
        qkv_bias: bool = False, proj_drop: float = 0.0, attn_drop: float = 0.0, drop_path: float = 0.0,
        act_layer: ActLayer = nn.GELU, norm_layer: Callable[[int], nn.Module] = LayerNorm,
    ) -> None:
        attn = Attention(dim, num_heads, sr_ratio, linear_attn, qkv_bias, attn_drop, proj_drop)
        mlp = MlpWithDepthwiseConv(
            dim, int(dim * mlp_ratio), act_layer=act_layer, drop=proj_drop, extra_relu=linear_attn)
        super().__init__(dim, attn, mlp, norm_layer, drop_path)

    on_map = PreNormBlock.forward


class OverlapPatchEmbed(Module):
    """Patches that overlap, normalised. Shapes: (B, in_chans, H, W) -> (B, H / stride, W / stride, embed_dim)."""

    def __init__(
        self, patch_size: int | tuple[int, int] = 7, stride: int = 4, in_chans: int = 3, embed_dim: int = 768
    ) -> None:
        super().__init__()
        self.patch_size = to_2tuple(patch_size)
        if max(self.patch_size) <= stride:
            raise ValueError(f"patches of {self.patch_size} do not overlap: they have to exceed stride={stride}")
        self.proj = nn.Conv2d(in_chans, embed_dim, self.patch_size, stride, tuple(n // 2 for n in self.patch_size))
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class PyramidVisionTransformerStage(Stage):
    """Patches of a map with `downsample`, without which channels stay the same; then blocks and a norm.

    Shapes: (B, dim, H, W), or (B, H, W, dim) without `downsample`, -> (B, dim_out, H', W').
    """

    def __init__(
        self, dim: int, dim_out: int, depth: int, downsample: bool = True, num_heads: int = 8, sr_ratio: int = 1,
        linear_attn: bool = False, mlp_ratio: float = 4.0, qkv_bias: bool = True, proj_drop: float = 0.0,
        attn_drop: float = 0.0, drop_path: Sequence[float] | float = 0.0,
        norm_layer: Callable[[int], nn.Module] = LayerNorm,
    ) -> None:
        super().__init__()
        if not downsample and dim != dim_out:
            raise ValueError(f"a stage without downsample cannot turn {dim} channels into {dim_out}")
        self.downsample = OverlapPatchEmbed(3, 2, dim, dim_out) if downsample else nn.Identity()
        self.blocks = nn.Sequential(*(
            Block(dim_out, num_heads, mlp_ratio, sr_ratio, linear_attn, qkv_bias, proj_drop, attn_drop, rate,
                  norm_layer=norm_layer) for rate in to_ntuple(depth)(drop_path)))
        self.norm = norm_layer(dim_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(super().forward(x)).permute(0, 3, 1, 2).contiguous()


class PyramidVisionTransformerV2(ImageModel):
    """Pyramid Vision Transformer v2.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); features (B, embed_dims[-1], H / 32, W / 32). Images have any size.

    Args:
        global_pool: "avg", or "" for none.
        depths, embed_dims, num_heads, mlp_ratios, sr_ratios: Of each stage: blocks, channels, heads, hidden channels of
            the MLPs per channel, and how many times smaller the map of keys is; the last three one for all, too.
        linear: Keys and values come from a map of 7 x 7, whatever the image's size.

    Raises:
        ValueError: The heads do not divide the channels; not a number a stage; unknown pooling.
    """

    feature_form = "flat"
    pools: ClassVar[tuple[str, ...]] = ("avg", "")
    inits: ClassVar[Inits] = {nn.Linear: init_trunc_normal, nn.Conv2d: init_fan_out}

    def __init__(
        self, in_chans: int = 3, num_classes: int = 1000, global_pool: str = "avg",
        depths: Sequence[int] = (3, 4, 6, 3), embed_dims: Sequence[int] = (64, 128, 256, 512),
        num_heads: int | Sequence[int] = (1, 2, 4, 8), sr_ratios: int | Sequence[int] = (8, 4, 2, 1),
        mlp_ratios: float | Sequence[float] = (8.0, 8.0, 4.0, 4.0), qkv_bias: bool = True, linear: bool = False,
        drop_rate: float = 0.0, proj_drop_rate: float = 0.0, attn_drop_rate: float = 0.0, drop_path_rate: float = 0.0,
        norm_layer: NormLayer = LayerNorm,
    ) -> None:
        super().__init__()
        count, norm = len(depths), get_norm_layer(norm_layer)
        by_stage = dict(embed_dims=tuple(embed_dims), **{
            name: to_ntuple(count)(values)
            for name, values in dict(num_heads=num_heads, sr_ratios=sr_ratios, mlp_ratios=mlp_ratios).items()})
        for name, values in by_stage.items():
            if len(values) != count:
                raise ValueError(f"{name} has {len(values)} values for the {count} stages of depths")
        self.in_chans, self.depths = in_chans, depths
        self.patch_embed = OverlapPatchEmbed(7, 4, in_chans, embed_dims[0])
        dims, rates = (embed_dims[0], *embed_dims), drop_path_rates(drop_path_rate, depths)
        self.stages = nn.Sequential(*(
            PyramidVisionTransformerStage(
                dims[i], dim, depths[i], i > 0, heads, sr_ratio, linear, mlp_ratio, qkv_bias, proj_drop_rate,
                attn_drop_rate, rates[i], norm)
            for i, (dim, heads, sr_ratio, mlp_ratio) in enumerate(zip(*by_stage.values()))))
        self.flow = Flow(
            stem=[Step("patch_embed")],
            stages=[Step(f"stages.{i}", dim, 4 * 2**i) for i, dim in enumerate(embed_dims)])
        self.add_classifier(embed_dims[-1], num_classes, global_pool, nn.Dropout(drop_rate))

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return dict(stem=r"^patch_embed", blocks=r"^stages\.(\d+)")


_B0 = dict(depths=(2, 2, 2, 2), embed_dims=(32, 64, 160, 256), num_heads=(1, 2, 5, 8))
_WIDE = dict(embed_dims=(64, 128, 320, 512), num_heads=(1, 2, 5, 8))

register_model.variants(__name__, PyramidVisionTransformerV2, {
    "pvt_v2_b0": _B0,
    "pvt_v2_b1": (_B0, _WIDE),
    "pvt_v2_b2": _WIDE,
    "pvt_v2_b3": (_WIDE, dict(depths=(3, 4, 18, 3))),
    "pvt_v2_b4": (_WIDE, dict(depths=(3, 8, 27, 3))),
    "pvt_v2_b5": (_WIDE, dict(depths=(3, 6, 40, 3), mlp_ratios=(4, 4, 4, 4))),
    "pvt_v2_b2_li": (_WIDE, dict(linear=True)),
})


def _stage(end: str) -> Callable[[Any], str]:
    return lambda match: f"stages.{int(match[1]) - 1}.{end}"


PyramidVisionTransformerV2.key_maps = (KeyMap.renaming(  # the authors count stages from 1
    "pvt", "patch_embed1.proj.weight", (r"^patch_embed1\.", "patch_embed."),
    (r"^patch_embed(\d)\.", _stage("downsample.")), (r"^block(\d)\.", _stage("blocks.")),
    (r"^norm(\d)\.", _stage("norm.")), (r"\.dwconv\.dwconv\.", ".dwconv.")),)
