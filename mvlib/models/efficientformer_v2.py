"""EfficientFormerV2: convolutions mix maps, and attention the last stages', of half the size in the third.

Li et al., "Rethinking Vision Transformers for MobileNet Size and Speed", 2022, arXiv:2212.08059.

An MLP has a depthwise convolution in its middle. Attention is of maps, with biases for distances, and heads that talk
to one another. The published models have learned from a teacher, by a second classifier, see `Distilled`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ..layers.activations import ActLayer, get_act_layer
from ..layers.conv import ConvNormAct, create_conv2d
from ..layers.drop import DropPath, drop_path_rates
from ..layers.helpers import Module, Sequential, to_2tuple, to_ntuple
from ..layers.mlp import LayerScale2d
from ..layers.norm import NormLayer, create_norm_layer, get_norm_layer
from ..layers.rel_pos import OffsetBiases
from ..layers.stage import Stage
from ..layers.window import check_map
from ..registry import register_model
from .base import Flow, Step
from .efficientformer import BaseEfficientFormer

if TYPE_CHECKING:
    from ._variants.efficientformer_v2 import *

__all__ = ["EfficientFormerV2"]

Layer = Callable[..., nn.Module]
Size = int | tuple[int, int]

torch.fx.wrap("check_map")  # one node in a traced graph: what it does depends on the map's size

EfficientFormer_width = {
    "L": (40, 80, 192, 384), "S2": (32, 64, 144, 288), "S1": (32, 48, 120, 224), "S0": (32, 48, 96, 176)}
EfficientFormer_depth = {"L": (5, 5, 15, 10), "S2": (4, 4, 12, 8), "S1": (3, 3, 9, 6), "S0": (2, 2, 6, 4)}
EfficientFormer_expansion_ratios = {  # of stages, or of each block
    "L": (4, 4, (4,) * 4 + (3,) * 7 + (4,) * 4, (4,) * 3 + (3,) * 4 + (4,) * 3),
    "S2": (4, 4, (4,) * 2 + (3,) * 6 + (4,) * 4, (4,) * 2 + (3,) * 4 + (4,) * 2),
    "S1": (4, 4, (4,) * 2 + (3,) * 4 + (4,) * 3, (4,) * 2 + (3,) * 2 + (4,) * 2),
    "S0": (4, 4, (4,) + (3,) * 3 + (4,) * 2, (4, 3, 3, 4)),
}


class ConvNorm(Sequential):
    """A convolution and a norm; keys `conv`, `bn`. Shapes: (B, in_channels, H, W) -> (B, out_channels, H', W')."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Size = 1, stride: Size = 1, padding: Size | str = "",
        dilation: int = 1, groups: int = 1, bias: bool = True, norm_layer: NormLayer = "batchnorm2d",
        norm_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.conv = create_conv2d(in_channels, out_channels, kernel_size, stride=stride, padding=padding,
                                  dilation=dilation, groups=groups, bias=bias)
        self.bn = create_norm_layer(norm_layer, out_channels, **(norm_kwargs or {}))


class Attention2d(OffsetBiases):
    """Attention of a map, whose heads are mixed before and after the softmax, plus a convolution of the values.

    Shapes: (B, dim, *resolution) -> same, else a ValueError; with `stride` the map is that many times smaller within.
    """

    def __init__(
        self, dim: int = 384, key_dim: int = 32, num_heads: int = 8, attn_ratio: float = 4, resolution: Size = 7,
        act_layer: Layer = nn.GELU, stride: int | None = None,
    ) -> None:
        super().__init__()
        self.map_size, self.num_heads, self.scale = to_2tuple(resolution), num_heads, key_dim**-0.5
        keys, values = key_dim * num_heads, int(attn_ratio * key_dim) * num_heads
        self.stride_conv = ConvNorm(dim, dim, 3, stride, groups=dim) if stride else None
        self.upsample = nn.Upsample(scale_factor=stride, mode="bilinear") if stride else None
        self.q, self.k, self.v = (ConvNorm(dim, width) for width in (keys, keys, values))
        self.v_local = ConvNorm(values, values, 3, groups=values)
        self.talking_head1, self.talking_head2 = (nn.Conv2d(num_heads, num_heads, 1) for _ in range(2))
        self.act, self.proj = act_layer(), ConvNorm(values, dim)
        self.add_offset_biases(num_heads, _half(self.map_size, stride or 1))

    def forward(self, x: Tensor) -> Tensor:
        x = check_map(x, self.map_size, True)
        if self.stride_conv is not None:
            x = self.stride_conv(x)
        values = self.v(x)
        q, k, v = (_heads(part, self.num_heads) for part in (self.q(x), self.k(x), values))
        attn = self.talking_head1(q.transpose(2, 3) @ k * self.scale + self.get_bias()).softmax(dim=-1)
        x = v @ self.talking_head2(attn).transpose(2, 3)
        x = x.flatten(1, 2).unflatten(2, self.resolution) + self.v_local(values)
        if self.upsample is not None:
            x = self.upsample(x)
        return self.proj(self.act(x))


def _heads(x: Tensor, count: int) -> Tensor:
    """A map's channels by heads: (B, C, H, W) -> (B, heads, C / heads, H * W)."""
    return x.flatten(2).unflatten(1, (count, -1))


def _half(size: tuple[int, int], stride: int = 2) -> tuple[int, int]:
    return math.ceil(size[0] / stride), math.ceil(size[1] / stride)


class LocalGlobalQuery(Module):
    """Queries of every second pixel and what is around it: (B, in_dim, H, W) -> (B, out_dim, H / 2, W / 2)."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(1, 2, 0)
        self.local = nn.Conv2d(in_dim, in_dim, 3, stride=2, padding=1, groups=in_dim)
        self.proj = ConvNorm(in_dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.local(x) + self.pool(x))


class Attention2dDownsample(OffsetBiases):
    """Attention of queries half as dense: (B, dim, *resolution), else a ValueError -> (B, out_dim, half of each)."""

    def __init__(
        self, dim: int = 384, key_dim: int = 16, num_heads: int = 8, attn_ratio: float = 4, resolution: Size = 7,
        out_dim: int | None = None, act_layer: Layer = nn.GELU,
    ) -> None:
        super().__init__()
        keys, values = key_dim * num_heads, int(attn_ratio * key_dim) * num_heads
        self.num_heads, self.scale, self.resolution2 = num_heads, key_dim**-0.5, _half(to_2tuple(resolution))
        self.q = LocalGlobalQuery(dim, keys)
        self.k, self.v = ConvNorm(dim, keys), ConvNorm(dim, values)
        self.v_local = ConvNorm(values, values, 3, stride=2, groups=values)
        self.act, self.proj = act_layer(), ConvNorm(values, out_dim or dim)
        self.add_offset_biases(num_heads, resolution, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x = check_map(x, self.resolution, True)
        values = self.v(x)
        q, k, v = (_heads(part, self.num_heads) for part in (self.q(x), self.k(x), values))
        attn = (q.transpose(2, 3) @ k * self.scale + self.get_bias()).softmax(dim=-1)
        x = (v @ attn.transpose(2, 3)).flatten(1, 2).unflatten(2, self.resolution2)
        return self.proj(self.act(x + self.v_local(values)))


class Downsample(Module):
    """A strided convolution, and attention beside it where `use_attn`: (B, C, *resolution) -> (B, C', half)."""

    def __init__(
        self, in_chs: int, out_chs: int, kernel_size: Size = 3, stride: Size = 2, padding: Size = 1,
        resolution: Size = 7, use_attn: bool = False, act_layer: Layer = nn.GELU,
        norm_layer: Layer | None = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        self.conv = ConvNorm(in_chs, out_chs, to_2tuple(kernel_size), to_2tuple(stride), to_2tuple(padding),
                             norm_layer=norm_layer or nn.Identity)
        self.attn = Attention2dDownsample(in_chs, out_dim=out_chs, resolution=resolution, act_layer=act_layer) \
            if use_attn else None

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) if self.attn is None else self.attn(x) + self.conv(x)


class ConvMlpWithNorm(Sequential):
    """Two 1x1 convolutions with norms, a depthwise one between them where `mid_conv`. Shapes: (B, C, H, W) -> same."""

    def __init__(
        self, in_features: int, hidden_features: int | None = None, out_features: int | None = None,
        act_layer: Layer = nn.GELU, norm_layer: Layer = nn.BatchNorm2d, drop: float = 0.0, mid_conv: bool = False,
    ) -> None:
        super().__init__()
        width = hidden_features or in_features
        common: dict[str, Any] = dict(bias=True, norm_layer=norm_layer, act_layer=act_layer)
        self.fc1 = ConvNormAct(in_features, width, 1, **common)
        self.mid = ConvNormAct(width, width, 3, groups=width, **common) if mid_conv else nn.Identity()
        self.drop1 = nn.Dropout(drop)
        self.fc2 = ConvNorm(width, out_features or in_features, norm_layer=norm_layer)
        self.drop2 = nn.Dropout(drop)


class EfficientFormerV2Block(Module):
    """Attention where `use_attn`, and an MLP, each with scale and shortcut. Shapes: (B, dim, *resolution) -> same."""

    def __init__(
        self, dim: int, mlp_ratio: float = 4.0, act_layer: Layer = nn.GELU, norm_layer: Layer = nn.BatchNorm2d,
        proj_drop: float = 0.0, drop_path: float = 0.0, layer_scale_init_value: float | None = 1e-5,
        resolution: Size = 7, stride: int | None = None, use_attn: bool = True,
    ) -> None:
        super().__init__()

        def scale() -> nn.Module:
            return nn.Identity() if layer_scale_init_value is None else LayerScale2d(dim, layer_scale_init_value)

        self.token_mixer = Attention2d(dim, resolution=resolution, act_layer=act_layer, stride=stride) \
            if use_attn else None
        self.ls1 = scale() if use_attn else None
        self.drop_path1 = DropPath(drop_path) if use_attn else None
        self.mlp = ConvMlpWithNorm(dim, int(dim * mlp_ratio), None, act_layer, norm_layer, proj_drop, mid_conv=True)
        self.ls2, self.drop_path2 = scale(), DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        if self.token_mixer is not None and self.ls1 is not None and self.drop_path1 is not None:
            x = x + self.drop_path1(self.ls1(self.token_mixer(x)))
        return x + self.drop_path2(self.ls2(self.mlp(x)))


class Stem4(Sequential):
    """Two strided convolutions. Shapes: (B, in_chs, H, W) -> (B, out_chs, H / 4, W / 4)."""

    def __init__(
        self, in_chs: int, out_chs: int, act_layer: Layer = nn.GELU, norm_layer: Layer = nn.BatchNorm2d
    ) -> None:
        super().__init__()
        self.stride = 4
        common: dict[str, Any] = dict(stride=2, padding=1, bias=True, norm_layer=norm_layer, act_layer=act_layer)
        self.conv1 = ConvNormAct(in_chs, out_chs // 2, 3, **common)
        self.conv2 = ConvNormAct(out_chs // 2, out_chs, 3, **common)


class EfficientFormerV2Stage(Stage):
    """Downsampling and blocks, the last `num_vit` with attention where `block_use_attn`. Shapes as `Downsample`'s."""

    def __init__(
        self, dim: int, dim_out: int, depth: int, resolution: Size = 7, downsample: bool = True,
        block_stride: int | None = None, downsample_use_attn: bool = False, block_use_attn: bool = False,
        num_vit: int = 1, mlp_ratio: float | Sequence[float] = 4.0, proj_drop: float = 0.0,
        drop_path: float | Sequence[float] = 0.0, layer_scale_init_value: float | None = 1e-5,
        act_layer: Layer = nn.GELU, norm_layer: Layer = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        self.check_channels(dim, dim_out, downsample)
        size = to_2tuple(resolution)
        self.downsample = Downsample(dim, dim_out, resolution=size, use_attn=downsample_use_attn, act_layer=act_layer,
                                     norm_layer=norm_layer) if downsample else nn.Identity()
        ratios, rates = to_ntuple(depth)(mlp_ratio), to_ntuple(depth)(drop_path)
        self.blocks = nn.Sequential(*(
            EfficientFormerV2Block(
                dim_out, ratios[i], act_layer, norm_layer, proj_drop, rates[i], layer_scale_init_value,
                _half(size) if downsample else size, block_stride, block_use_attn and i >= depth - num_vit)
            for i in range(depth)))


class EfficientFormerV2(BaseEfficientFormer):
    """A stem of stride 4, four stages, and two classifiers.

    Shapes: (B, in_chans, *img_size) -> (B, num_classes); features (B, embed_dims[-1], H / 32, W / 32).

    Args:
        depths, embed_dims: Blocks and channels of each stage.
        img_size: Side of the images, or (height, width): biases are made for it.
        global_pool: "avg", or "" for none.
        downsamples: Whether a stage begins with downsampling; all but the first unless given.
        mlp_ratios: Hidden channels of the MLPs per channel, of all, of each stage, or of each block of it;
            `proj_drop_rate` is their dropout.
        layer_scale_init_value: Initial value of the branches' scales; None for no scales.
        num_vit: Blocks with attention, the last ones of the third and of each later stage.
        distillation: Whether there is a second classifier, that learns from a teacher.

    Raises:
        ValueError: Unknown pooling, or not a number for each stage; from `forward`, images of another size.
    """

    feature_form: ClassVar[str] = "flat"

    def __init__(
        self, depths: Sequence[int], in_chans: int = 3, img_size: Size = 224, global_pool: str = "avg",
        embed_dims: Sequence[int] | None = None, downsamples: Sequence[bool] | None = None,
        mlp_ratios: float | Sequence[Any] = 4, norm_layer: NormLayer = "batchnorm2d", norm_eps: float = 1e-5,
        act_layer: ActLayer = "gelu", num_classes: int = 1000, drop_rate: float = 0.0, proj_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0, layer_scale_init_value: float | None = 1e-5, num_vit: int = 0,
        distillation: bool = True,
    ) -> None:
        dims, count = embed_dims or (), len(depths)
        downsamples, ratios = downsamples or (False,) + (True,) * (count - 1), to_ntuple(count)(mlp_ratios)
        self.begin(num_classes, in_chans, global_pool, dims, depths, downsamples, ratios)
        self.img_size = to_2tuple(img_size)
        norm, act = partial(get_norm_layer(norm_layer), eps=norm_eps), get_act_layer(act_layer)
        self.stem = Stem4(in_chans, dims[0], act, norm)
        self.stages = nn.Sequential()
        self.flow = Flow(stem=[Step("stem")], stages=[], tail=[Step("norm")])
        reduction = 4
        for i, rates in enumerate(drop_path_rates(drop_path_rate, depths)):
            self.stages.append(EfficientFormerV2Stage(
                dims[max(i - 1, 0)], dims[i], depths[i], _half(to_2tuple(img_size), reduction), downsamples[i],
                2 if i == 2 else None, i >= 3, i >= 2, num_vit, ratios[i], proj_drop_rate, rates,
                layer_scale_init_value, act, norm))
            reduction *= 2 if downsamples[i] else 1
            self.flow.stages.append(Step(f"stages.{i}", dims[i], reduction))
        self.end(norm(dims[-1]), drop_rate, distillation)
        if not distillation:
            self.classifier_path = "head"  # type: ignore[assignment,misc]  # the class's are of both


register_model.variants(__name__, EfficientFormerV2, {
    f"efficientformerv2_{size.lower()}": dict(
        depths=EfficientFormer_depth[size], embed_dims=EfficientFormer_width[size], num_vit=num_vit,
        mlp_ratios=EfficientFormer_expansion_ratios[size], drop_path_rate=rate)
    for size, num_vit, rate in (("S0", 2, 0.0), ("S1", 2, 0.0), ("S2", 4, 0.02), ("L", 6, 0.1))
})
