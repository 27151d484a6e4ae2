"""MobileViT: inverted residuals, and blocks in which attention mixes what convolutions saw of each patch.

Mehta and Rastegari, "MobileViT: Light-weight, General-purpose, and Mobile-friendly Vision Transformer", 2021,
arXiv:2110.02178: positions at the same place of all patches attend to each other. V2, "Separable Self-attention for
Mobile Vision Transformers", 2022, arXiv:2206.02680, has attention of linear cost; its number is the width in
hundredths. Stems, stages and head are `ByobNet`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.conv import num_groups
from ..layers.drop import DropPath
from ..layers.helpers import Module, make_divisible, to_2tuple
from ..layers.mlp import ConvMlp
from ..layers.norm import GroupNorm1
from ..registry import register_model
from .byobnet import ByoBlockCfg, ByobNet
from .byobnet_blocks import LayerFn, register_block
from .vision_transformer import Block

if TYPE_CHECKING:
    from ._variants.mobilevit import *

__all__ = ["LinearSelfAttention", "LinearTransformerBlock", "MobileVitBlock", "MobileVitV2Block"]

Layer = Callable[..., nn.Module]


@torch.fx.wrap  # one node in a traced graph: what it does depends on the map's size
def resize_for_patches(x: Tensor, patch: tuple[int, int], align_corners: bool) -> Tensor:
    """A map, (B, C, H, W), resampled to the next size that patches divide; as it is where they do."""
    height, width = x.shape[2] + -x.shape[2] % patch[0], x.shape[3] + -x.shape[3] % patch[1]
    same = height == x.shape[2] and width == x.shape[3]
    return x if same else F.interpolate(x, size=(height, width), mode="bilinear", align_corners=align_corners)


@torch.fx.wrap  # as above
def resize_like(x: Tensor, like: Tensor) -> Tensor:
    """A map with rows and columns of another one."""
    size = like.shape[2:]
    return x if x.shape[2:] == size else F.interpolate(x, size=size, mode="bilinear", align_corners=False)


@torch.fx.wrap  # as above
def unfold_patches(x: Tensor, patch: tuple[int, int]) -> Tensor:
    """A map as positions in a patch and patches: (B, C, H, W) -> (B, C, ph * pw, patches)."""
    batch, chans, height, width = x.shape  # unflatten would fix the batch of the older ONNX exporter
    x = x.reshape(batch, chans, height // patch[0], patch[0], width // patch[1], patch[1])
    return x.permute(0, 1, 3, 5, 2, 4).reshape(batch, chans, patch[0] * patch[1], -1)


@torch.fx.wrap  # as above
def fold_patches(x: Tensor, patch: tuple[int, int], like: Tensor) -> Tensor:
    """What `unfold_patches` was given, of the size of a map: (B, C, ph * pw, patches) -> (B, C, H, W)."""
    x = x.unflatten(3, (like.shape[2] // patch[0], -1)).unflatten(2, patch)
    return x.permute(0, 1, 4, 2, 5, 3).flatten(4).flatten(2, 3)


class MobileVitBlock(Module):
    """Convolutions, transformer blocks over the patches, a convolution of both what came in and what these gave.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H, W). Maps that patches do not divide are resampled on the way.

    Args:
        bottle_ratio: Channels of the transformer per input channel, unless `transformer_dim` is given.
        mlp_ratio, num_heads, attn_drop, drop, drop_path_rate: Of the transformer's blocks.
        patch_size: Side of the patches, or (height, width).
        no_fusion: Without the last convolution.
    """

    def __init__(
        self, in_chs: int, out_chs: int | None = None, kernel_size: int = 3, stride: int = 1, bottle_ratio: float = 1.0,
        group_size: int | None = None, dilation: tuple[int, int] = (1, 1), mlp_ratio: float = 2.0,
        transformer_dim: int | None = None, transformer_depth: int = 2, patch_size: int | tuple[int, int] = 8,
        num_heads: int = 4, attn_drop: float = 0.0, drop: float = 0.0, no_fusion: bool = False,
        drop_path_rate: float = 0.0, layers: LayerFn | None = None, transformer_norm_layer: Layer = nn.LayerNorm,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        layers, out_chs = layers or LayerFn(), out_chs or in_chs
        dim = transformer_dim or make_divisible(bottle_ratio * in_chs)
        self.conv_kxk = layers.conv_norm_act(in_chs, in_chs, kernel_size, stride=stride, dilation=dilation[0],
                                             groups=num_groups(group_size, in_chs))
        self.conv_1x1 = nn.Conv2d(in_chs, dim, 1, bias=False)
        self.transformer = nn.Sequential(*(
            Block(dim, num_heads, mlp_ratio, qkv_bias=True, attn_drop=attn_drop, proj_drop=drop,
                  drop_path=drop_path_rate, act_layer=layers.act, norm_layer=transformer_norm_layer)
            for _ in range(transformer_depth)))
        self.norm, self.conv_proj = transformer_norm_layer(dim), layers.conv_norm_act(dim, out_chs, 1)
        self.conv_fusion = None if no_fusion else layers.conv_norm_act(in_chs + out_chs, out_chs, kernel_size)
        self.patch_size: tuple[int, int] = to_2tuple(patch_size)

    def forward(self, x: Tensor) -> Tensor:
        found = self.conv_1x1(self.conv_kxk(x))
        resized = resize_for_patches(found, self.patch_size, False)
        tokens = unfold_patches(resized, self.patch_size).permute(0, 2, 3, 1)  # (B, positions, patches, C)
        tokens = self.norm(self.transformer(tokens.flatten(0, 1)))
        tokens = tokens.unflatten(0, (-1, self.patch_size[0] * self.patch_size[1])).permute(0, 3, 1, 2)
        mixed = self.conv_proj(resize_like(fold_patches(tokens, self.patch_size, resized), found))
        return mixed if self.conv_fusion is None else self.conv_fusion(torch.cat((x, mixed), dim=1))


class LinearSelfAttention(Module):
    """A weighted mean of the keys scales all values. Shapes: (B, embed_dim, positions in a patch, patches) -> same."""

    def __init__(self, embed_dim: int, attn_drop: float = 0.0, proj_drop: float = 0.0, bias: bool = True) -> None:
        super().__init__()
        self.embed_dim, self.qkv_proj = embed_dim, nn.Conv2d(embed_dim, 1 + 2 * embed_dim, 1, bias=bias)
        self.out_proj = nn.Conv2d(embed_dim, embed_dim, 1, bias=bias)
        self.attn_drop, self.out_drop = nn.Dropout(attn_drop), nn.Dropout(proj_drop)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv_proj(x).split([1, self.embed_dim, self.embed_dim], dim=1)
        weights = self.attn_drop(query.softmax(dim=-1))
        context = (key * weights).sum(dim=-1, keepdim=True)
        return self.out_drop(self.out_proj(F.relu(value) * context))


class LinearTransformerBlock(Module):
    """Linear attention, then an MLP, each behind a norm and around a residual. Shapes: as `LinearSelfAttention`'s."""

    def __init__(
        self, embed_dim: int, mlp_ratio: float = 2.0, drop: float = 0.0, attn_drop: float = 0.0, drop_path: float = 0.0,
        act_layer: Layer | None = None, norm_layer: Layer | None = None,
    ) -> None:
        super().__init__()
        norm = norm_layer or GroupNorm1
        self.norm1, self.attn = norm(embed_dim), LinearSelfAttention(embed_dim, attn_drop, drop)
        self.norm2, hidden = norm(embed_dim), int(embed_dim * mlp_ratio)
        self.mlp = ConvMlp(embed_dim, hidden, act_layer=act_layer or nn.SiLU, drop=drop)
        self.drop_path1, self.drop_path2 = DropPath(drop_path), DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self.attn(self.norm1(x)))
        return x + self.drop_path2(self.mlp(self.norm2(x)))


class MobileVitV2Block(Module):
    """As `MobileVitBlock`, of linear attention and without fusion; a map that patches do not divide stays resampled."""

    def __init__(
        self, in_chs: int, out_chs: int | None = None, kernel_size: int = 3, bottle_ratio: float = 1.0,
        group_size: int | None = 1, dilation: tuple[int, int] = (1, 1), mlp_ratio: float = 2.0,
        transformer_dim: int | None = None, transformer_depth: int = 2, patch_size: int | tuple[int, int] = 8,
        attn_drop: float = 0.0, drop: float = 0.0, drop_path_rate: float = 0.0, layers: LayerFn | None = None,
        transformer_norm_layer: Layer = GroupNorm1, **kwargs: Any,
    ) -> None:
        super().__init__()
        layers, out_chs = layers or LayerFn(), out_chs or in_chs
        dim = transformer_dim or make_divisible(bottle_ratio * in_chs)
        self.conv_kxk = layers.conv_norm_act(in_chs, in_chs, kernel_size, dilation=dilation[0],
                                             groups=num_groups(group_size, in_chs))
        self.conv_1x1 = nn.Conv2d(in_chs, dim, 1, bias=False)
        self.transformer = nn.Sequential(*(
            LinearTransformerBlock(dim, mlp_ratio, drop, attn_drop, drop_path_rate, layers.act, transformer_norm_layer)
            for _ in range(transformer_depth)))
        self.norm, self.conv_proj = transformer_norm_layer(dim), layers.conv_norm_act(dim, out_chs, 1, apply_act=False)
        self.patch_size: tuple[int, int] = to_2tuple(patch_size)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_1x1(self.conv_kxk(resize_for_patches(x, self.patch_size, True)))
        mixed = self.norm(self.transformer(unfold_patches(x, self.patch_size)))
        return self.conv_proj(fold_patches(mixed, self.patch_size, x))


register_block("mobilevit", MobileVitBlock)
register_block("mobilevit2", MobileVitV2Block)


def _inverted(d: int, c: int, s: int, br: float) -> ByoBlockCfg:
    """Inverted residuals: bottlenecks that widen, depthwise, without an activation behind."""
    return ByoBlockCfg("bottle", d, c, s, 1, br, block_kwargs=dict(bottle_in=True, linear_out=True))


_COMMON = dict(stem_type="3x3", stem_pool="", downsample="", act_layer="silu")


def _v1(c: tuple[int, ...], dims: tuple[int, ...], num_features: int, br: float = 4.0) -> dict[str, Any]:
    """Channels of the five stages, and of the transformers in the last three."""
    blocks: list[Any] = [_inverted(1, c[0], 1, br), _inverted(3, c[1], 2, br)]
    for chs, dim, depth in zip(c[2:], dims, (2, 4, 3)):
        options = dict(transformer_dim=dim, transformer_depth=depth, patch_size=2)
        blocks.append((_inverted(1, chs, 2, br), ByoBlockCfg("mobilevit", 1, chs, 1, block_kwargs=options)))
    return dict(_COMMON, blocks=tuple(blocks), stem_chs=16, num_features=num_features)


def _v2(width: float) -> dict[str, Any]:
    c = [int(chs * width) for chs in (64, 128, 256, 384, 512)]
    blocks: list[Any] = [_inverted(1, c[0], 1, 2.0), _inverted(2, c[1], 2, 2.0)]
    for chs, depth in zip(c[2:], (2, 4, 3)):
        options = dict(transformer_depth=depth, patch_size=2)
        blocks.append((_inverted(1, chs, 2, 2.0), ByoBlockCfg("mobilevit2", 1, chs, 1, 1, 0.5, block_kwargs=options)))
    return dict(_COMMON, blocks=tuple(blocks), stem_chs=int(32 * width))


register_model.variants(__name__, ByobNet, {
    "mobilevit_xxs": _v1((16, 24, 48, 64, 80), (64, 80, 96), 320, br=2.0),
    "mobilevit_xs": _v1((32, 48, 64, 80, 96), (96, 120, 144), 384),
    "mobilevit_s": _v1((32, 64, 96, 128, 160), (144, 192, 240), 640),
    **{f"mobilevitv2_{width:03d}": _v2(width / 100) for width in (50, 75, 100, 125, 150, 175, 200)},
})
