"""EfficientViT of MIT: attention without a softmax, linear in the number of pixels, in the last two stages.

Cai et al., "EfficientViT: Lightweight Multi-Scale Attention for High-Resolution Dense Prediction", 2022,
arXiv:2205.14756. "b" models have depthwise, "l" models full 3x3 convolutions in what is early, and tanh's GELU.

A block attends (`LiteMLA`), then mixes neighbours in an inverted bottleneck, each with a shortcut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ..layers.activations import ActLayer, GELUTanh, get_act_layer
from ..layers.conv import create_conv2d
from ..layers.helpers import Module, Sequential
from ..layers.norm import NormLayer, get_norm_layer
from ..layers.pool import GlobalPool2d, Head
from ..layers.stage import BlockStage
from ..registry import register_model
from .base import Flow, ImageModel

if TYPE_CHECKING:
    from ._variants.efficientvit_mit import *

__all__ = ["EfficientVit", "EfficientVitLarge"]

Layer = Callable[..., nn.Module]
Each = Layer | None | tuple[Layer | None, ...]  # of all layers of a block, or of each
Biases = bool | tuple[bool, ...]  # the same


def val2list(x: Any, repeat_time: int = 1) -> list[Any]:
    """A list or tuple as a list; anything else `repeat_time` times."""
    return list(x) if isinstance(x, (list, tuple)) else [x] * repeat_time


def val2tuple(x: Any, min_len: int = 1, idx_repeat: int = -1) -> tuple[Any, ...]:
    """A tuple of at least `min_len`: the item at `idx_repeat` is repeated in front of itself."""
    values = val2list(x)
    more = min_len - len(values) if values else 0
    return (*values[:idx_repeat], *values[idx_repeat:][:1] * more, *values[idx_repeat:])


def get_same_padding(kernel_size: Any) -> Any:
    """Padding that keeps a map's size, for a kernel's side or each of them; ValueError for an even one."""
    if isinstance(kernel_size, tuple):
        return tuple(get_same_padding(side) for side in kernel_size)
    if kernel_size % 2 == 0:
        raise ValueError(f"kernels have odd sides, not {kernel_size}")
    return kernel_size // 2


class ConvNormAct(Sequential):
    """Dropout, convolution, norm and activation; keys `conv`, `norm`. Shapes: (B, C, H, W) -> (B, C', H', W')."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int] = 3, stride: int = 1,
        dilation: int = 1, groups: int = 1, bias: bool = False, dropout: float = 0.0,
        norm_layer: Layer | None = nn.BatchNorm2d, act_layer: Layer | None = nn.ReLU,
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.conv = create_conv2d(in_channels, out_channels, kernel_size, stride=stride, dilation=dilation,
                                  groups=groups, bias=bias)
        self.norm = norm_layer(out_channels) if norm_layer else nn.Identity()
        self.act = act_layer(inplace=True) if act_layer else nn.Identity()


def _options(count: int, use_bias: Biases, norm_layer: Each, act_layer: Each) -> list[dict[str, Any]]:
    """Arguments of each of a block's layers; the last of a tuple is that of all that follow."""
    values = zip(*(val2tuple(value, count) for value in (use_bias, norm_layer, act_layer)))
    return [dict(bias=bias, norm_layer=norm, act_layer=act) for bias, norm, act in values]


class DSConv(Sequential):
    """Depthwise and 1x1 convolution. Shapes: (B, in_channels, H, W) -> (B, out_channels, H / stride, W / stride)."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, use_bias: Biases = False,
        norm_layer: Each = nn.BatchNorm2d, act_layer: Each = (nn.ReLU6, None),
    ) -> None:
        super().__init__()
        first, last = _options(2, use_bias, norm_layer, act_layer)
        self.depth_conv = ConvNormAct(in_channels, in_channels, kernel_size, stride, groups=in_channels, **first)
        self.point_conv = ConvNormAct(in_channels, out_channels, 1, **last)


class ConvBlock(Sequential):
    """Two convolutions with `kernel_size`. Shapes as `DSConv`'s."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1,
        mid_channels: int | None = None, expand_ratio: float = 1, use_bias: Biases = False,
        norm_layer: Each = nn.BatchNorm2d, act_layer: Each = (nn.ReLU6, None),
    ) -> None:
        super().__init__()
        first, last = _options(2, use_bias, norm_layer, act_layer)
        mid = mid_channels or round(in_channels * expand_ratio)
        self.conv1 = ConvNormAct(in_channels, mid, kernel_size, stride, **first)
        self.conv2 = ConvNormAct(mid, out_channels, kernel_size, **last)


class MBConv(Sequential):
    """Inverted bottleneck: wider, depthwise, narrower. Shapes as `DSConv`'s."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1,
        mid_channels: int | None = None, expand_ratio: float = 6, use_bias: Biases = False,
        norm_layer: Each = nn.BatchNorm2d, act_layer: Each = (nn.ReLU6, nn.ReLU6, None),
    ) -> None:
        super().__init__()
        first, middle, last = _options(3, use_bias, norm_layer, act_layer)
        mid = mid_channels or round(in_channels * expand_ratio)
        self.inverted_conv = ConvNormAct(in_channels, mid, 1, **first)
        self.depth_conv = ConvNormAct(mid, mid, kernel_size, stride, groups=mid, **middle)
        self.point_conv = ConvNormAct(mid, out_channels, 1, **last)


class FusedMBConv(Sequential):
    """Inverted bottleneck whose first two convolutions are one. Shapes as `DSConv`'s."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1,
        mid_channels: int | None = None, expand_ratio: float = 6, groups: int = 1, use_bias: Biases = False,
        norm_layer: Each = nn.BatchNorm2d, act_layer: Each = (nn.ReLU6, None),
    ) -> None:
        super().__init__()
        first, last = _options(2, use_bias, norm_layer, act_layer)
        mid = mid_channels or round(in_channels * expand_ratio)
        self.spatial_conv = ConvNormAct(in_channels, mid, kernel_size, stride, groups=groups, **first)
        self.point_conv = ConvNormAct(mid, out_channels, 1, **last)


class LiteMLA(Module):
    """Multi-scale linear attention: queries, keys and values of each pixel, and of its surroundings at each scale.

    Shapes: (B, in_channels, H, W) -> (B, out_channels, H, W).

    Args:
        heads, dim: Heads of each scale, `heads_ratio` times `in_channels` / `dim` unless given, and their channels.
        use_bias, norm_layer, act_layer: Of the convolutions for qkv and for the output; a pair, or one for both.
        kernel_func: What makes queries and keys positive.
        scales: Sides of the surroundings, odd numbers, else a ValueError.
        eps: Added to what the output is divided by.
    """

    def __init__(
        self, in_channels: int, out_channels: int, heads: int | None = None, heads_ratio: float = 1.0, dim: int = 8,
        use_bias: Biases = False, norm_layer: Each = (None, nn.BatchNorm2d), act_layer: Each = (None, None),
        kernel_func: Layer = nn.ReLU, scales: tuple[int, ...] = (5,), eps: float = 1e-5,
    ) -> None:
        super().__init__()
        heads = heads or int(in_channels // dim * heads_ratio)
        first, last = _options(2, use_bias, norm_layer, act_layer)
        width, bias = 3 * heads * dim, first["bias"]
        self.dim, self.eps, self.qkv = dim, eps, ConvNormAct(in_channels, width, 1, **first)
        self.aggreg = nn.ModuleList([
            nn.Sequential(nn.Conv2d(width, width, scale, padding=get_same_padding(scale), groups=width, bias=bias),
                          nn.Conv2d(width, width, 1, groups=3 * heads, bias=bias))
            for scale in scales])
        self.kernel_func = kernel_func(inplace=False)
        self.proj = ConvNormAct(heads * dim * (1 + len(scales)), out_channels, 1, **last)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x)
        heads = torch.cat([qkv, *(scale(qkv) for scale in self.aggreg)], dim=1).flatten(2)
        q, k, v = heads.unflatten(1, (-1, 3 * self.dim)).chunk(3, dim=2)  # (B, heads of all scales, dim, H * W)
        x = attend_linearly(self.kernel_func(q), self.kernel_func(k), v, self.eps)
        return self.proj(x.reshape(-1, x.shape[1] * x.shape[2], qkv.shape[2], qkv.shape[3]))


@torch.fx.wrap  # one node in a traced graph: it leaves autocast
def attend_linearly(q: Tensor, k: Tensor, v: Tensor, eps: float) -> Tensor:
    """Attention with weights q * k, not negative, over their sum, in float32 at least; all (B, heads, d, N) -> same."""
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        with torch.autocast(v.device.type if v.device.type != "meta" else "cpu", enabled=False):
            return _divide_sums(q.float(), k.float(), v.float(), eps).to(v.dtype)
    return _divide_sums(q.float(), k.float(), v.float(), eps).to(v.dtype)


def _divide_sums(q: Tensor, k: Tensor, v: Tensor, eps: float) -> Tensor:
    return v @ k.transpose(2, 3) @ q / (k.sum(dim=3).unsqueeze(2) @ q + eps)


class ResidualBlock(nn.Module):
    """A branch and, unless it is None, a shortcut; keys `pre_norm`, `main`, `shortcut`."""

    def __init__(self, main: nn.Module, shortcut: nn.Module | None = None, pre_norm: nn.Module | None = None) -> None:
        super().__init__()
        self.pre_norm = nn.Identity() if pre_norm is None else pre_norm
        self.main, self.shortcut = main, shortcut

    def forward(self, x: Tensor) -> Tensor:
        branch = self.main(self.pre_norm(x))
        return branch if self.shortcut is None else branch + self.shortcut(x)


class EfficientVitBlock(Sequential):
    """Attention, then an inverted bottleneck, each with a shortcut. Shapes: (B, in_channels, H, W) -> same."""

    def __init__(
        self, in_channels: int, heads_ratio: float = 1.0, head_dim: int = 32, expand_ratio: float = 4,
        norm_layer: Layer = nn.BatchNorm2d, act_layer: Layer = nn.Hardswish,
    ) -> None:
        super().__init__()
        mla = LiteMLA(in_channels, in_channels, heads_ratio=heads_ratio, dim=head_dim, norm_layer=(None, norm_layer))
        self.context_module = ResidualBlock(mla, nn.Identity())
        self.local_module = ResidualBlock(build_local_block(
            in_channels, in_channels, 1, expand_ratio, norm_layer, act_layer, fewer_norm=True), nn.Identity())


def build_local_block(
    in_channels: int, out_channels: int, stride: int, expand_ratio: float, norm_layer: Layer, act_layer: Layer,
    fewer_norm: bool = False, block_type: str = "default", device: Any = None, dtype: Any = None,
) -> nn.Module:
    """A block of convolutions: depthwise ones ("default"), or full ones ("large", "fused"); else a ValueError.

    With `expand_ratio` 1 it has two layers; `fewer_norm`: biases in place of norms, but for the last layer.
    """
    if block_type not in ("default", "large", "fused"):
        raise ValueError(f"unknown block_type {block_type!r}; known: 'default', 'large', 'fused'")
    is_full, is_flat = block_type != "default", expand_ratio == 1
    kind: Any = (ConvBlock if is_full else DSConv) if is_flat else (FusedMBConv if is_full else MBConv)
    more: dict[str, Any] = {} if is_flat else dict(expand_ratio=expand_ratio)
    inner = 2 if kind is MBConv else 1  # layers before the last
    return kind(in_channels, out_channels, stride=stride, use_bias=(True,) * inner + (False,) if fewer_norm else False,
                norm_layer=(None,) * inner + (norm_layer,) if fewer_norm else norm_layer,
                act_layer=(act_layer,) * inner + (None,), device=device, dtype=dtype, **more)


class Stem(Sequential):
    """A strided convolution and `depth` blocks. Shapes: (B, in_chs, H, W) -> (B, out_chs, H / 2, W / 2)."""

    def __init__(
        self, in_chs: int, out_chs: int, depth: int, norm_layer: Layer, act_layer: Layer, block_type: str = "default"
    ) -> None:
        super().__init__()
        self.stride = 2
        self.in_conv = ConvNormAct(in_chs, out_chs, 3, 2, norm_layer=norm_layer, act_layer=act_layer)
        for i in range(depth):
            block = build_local_block(out_chs, out_chs, 1, 1, norm_layer, act_layer, block_type=block_type)
            self.add_module(f"res{i}", ResidualBlock(block, nn.Identity()))


class EfficientVitStage(BlockStage):
    """A strided block, then others: of convolutions, or `EfficientVitBlock`. Shapes: (B, C, H, W) -> half the size."""

    def __init__(
        self, in_chs: int, out_chs: int, depth: int, norm_layer: Layer, act_layer: Layer, expand_ratio: float,
        head_dim: int, vit_stage: bool = False,
    ) -> None:
        super().__init__()
        layers: tuple[Layer, Layer] = (norm_layer, act_layer)
        first = ResidualBlock(build_local_block(in_chs, out_chs, 2, expand_ratio, *layers, fewer_norm=vit_stage))
        self.blocks = nn.Sequential(first, *(
            EfficientVitBlock(out_chs, 1.0, head_dim, expand_ratio, *layers) for _ in range(depth)
        ) if vit_stage else (
            ResidualBlock(build_local_block(out_chs, out_chs, 1, expand_ratio, *layers), nn.Identity())
            for _ in range(depth - 1)))


class EfficientVitLargeStage(BlockStage):
    """As `EfficientVitStage`, of the "l" models; with `fewer_norm` convolutions are depthwise."""

    def __init__(
        self, in_chs: int, out_chs: int, depth: int, norm_layer: Layer, act_layer: Layer, head_dim: int,
        vit_stage: bool = False, fewer_norm: bool = False,
    ) -> None:
        super().__init__()
        layers: tuple[Layer, Layer] = (norm_layer, act_layer)
        kind = "default" if fewer_norm else "fused"
        first = ResidualBlock(build_local_block(
            in_chs, out_chs, 2, 24 if vit_stage else 16, *layers, fewer_norm=vit_stage or fewer_norm, block_type=kind))
        self.blocks = nn.Sequential(first, *(
            EfficientVitBlock(out_chs, 1.0, head_dim, 6, *layers) if vit_stage else
            ResidualBlock(build_local_block(out_chs, out_chs, 1, 4, *layers, fewer_norm, kind), nn.Identity())
            for _ in range(depth)))


class ClassifierHead(Head):
    """A 1x1 convolution, pooling that keeps channels, a hidden layer, both of `widths`, and the classifier.

    Shapes: (B, in_channels, H, W) -> (B, num_classes). Raises ValueError for no or another pooling.
    """

    def __init__(
        self, in_channels: int, widths: Sequence[int], num_classes: int = 1000, dropout: float = 0.0,
        norm_layer: Layer = nn.BatchNorm2d, act_layer: Layer | None = nn.Hardswish, pool_type: str = "avg",
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.widths, self.in_features, self.num_features = widths, in_channels, widths[-1]
        self.in_conv: nn.Module = ConvNormAct(in_channels, widths[0], 1, norm_layer=norm_layer, act_layer=act_layer)
        self.set_global_pool(pool_type)
        self.classifier = nn.Sequential(
            nn.Linear(widths[0], widths[1], bias=False), nn.LayerNorm(widths[1], eps=norm_eps),
            act_layer(inplace=True) if act_layer else nn.Identity(), nn.Dropout(dropout),
            self.make_classifier(num_classes))

    def pool(self, x: Tensor) -> Tensor:
        x = self.global_pool(self.in_conv(x))
        for i in range(3):
            x = self.classifier[i](x)
        return x

    def set_classifier(self, classifier: nn.Module) -> None:
        self.classifier[4] = classifier

    def set_global_pool(self, pool_type: str) -> None:
        pool = GlobalPool2d(pool_type)
        if not pool_type or pool.out_factor != 1:
            raise ValueError(f"this head's hidden layer needs pooling that keeps the width, not {pool_type!r}")
        self.global_pool = pool.train(self.training)

    def cut(self, in_features: int) -> None:
        self.in_conv = nn.Identity()
        for i in range(3):
            self.classifier[i] = nn.Identity()
        self.in_features = self.num_features = in_features

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.classifier[3](self.pool(x))
        return x if pre_logits else self.classifier[4](x)


class _EfficientVit(ImageModel):
    """What both have in common."""

    head_path: ClassVar[str] = "head"
    classifier_path: ClassVar[str | tuple[str, ...]] = "head.classifier.4"
    dropout_paths: ClassVar[tuple[str, ...]] = ("head.classifier.3",)
    feature_form: ClassVar[str] = "flat"
    pruned_pool: ClassVar[str | None] = None

    def assemble(
        self, in_chans: int, num_classes: int, widths: Sequence[int], depths: Sequence[int],
        head_widths: Sequence[int], make_stem: Layer, make_stage: Layer, **head: Any,
    ) -> None:
        """Add all; `make_stage` takes a stage's number, channels before it and of it, and its depth."""
        if len(widths) != len(depths) or len(widths) < 2 or len(head_widths) != 2:
            raise ValueError(f"widths {tuple(widths)} and depths {tuple(depths)} are a number for the stem and for "
                             f"each stage, head_widths {tuple(head_widths)} are two numbers")
        self.num_classes, self.in_chans, self.num_features = num_classes, in_chans, widths[-1]
        self.stem = make_stem(in_chans, widths[0], depths[0])
        self.stages = nn.Sequential(*(
            make_stage(i, widths[i], widths[i + 1], depth) for i, depth in enumerate(depths[1:])))
        self.flow = Flow.of_stages(widths[1:])
        self.head = ClassifierHead(widths[-1], head_widths, num_classes, **head)
        self.init_weights()


class EfficientVit(_EfficientVit):
    """A stem, two stages of convolutions and two of attention, and a head with a hidden layer: the "b" models.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); features (B, widths[-1], H / 32, W / 32).

    Args:
        widths, depths: Channels and blocks of the stem and of each stage.
        head_dim: Channels of an attention head.
        expand_ratio: Hidden channels of the blocks per channel.
        global_pool: "avg", "max" or "avgmax".
        head_widths: Channels of the head's convolution and of its hidden layer.

    Raises:
        ValueError: Not a number for each stage, or what `ClassifierHead` refuses.
    """

    def __init__(
        self, in_chans: int = 3, widths: Sequence[int] = (), depths: Sequence[int] = (), head_dim: int = 32,
        expand_ratio: float = 4, norm_layer: NormLayer = nn.BatchNorm2d, act_layer: ActLayer = nn.Hardswish,
        global_pool: str = "avg", head_widths: Sequence[int] = (), drop_rate: float = 0.0, num_classes: int = 1000,
    ) -> None:
        super().__init__()
        layers: dict[str, Any] = dict(norm_layer=get_norm_layer(norm_layer), act_layer=get_act_layer(act_layer))

        def stage(index: int, in_chs: int, out_chs: int, depth: int) -> nn.Module:
            return EfficientVitStage(
                in_chs, out_chs, depth, **layers, expand_ratio=expand_ratio, head_dim=head_dim, vit_stage=index >= 2)

        self.assemble(in_chans, num_classes, widths, depths, head_widths, partial(Stem, **layers), stage,
                      dropout=drop_rate, pool_type=global_pool)


class EfficientVitLarge(_EfficientVit):
    """The "l" models: one stage attends, the last; else as `EfficientVit`. `norm_eps`: not of the norm of `in_conv`."""

    def __init__(
        self, in_chans: int = 3, widths: Sequence[int] = (), depths: Sequence[int] = (), head_dim: int = 32,
        norm_layer: NormLayer = nn.BatchNorm2d, act_layer: ActLayer = GELUTanh, global_pool: str = "avg",
        head_widths: Sequence[int] = (), drop_rate: float = 0.0, num_classes: int = 1000, norm_eps: float = 1e-7,
    ) -> None:
        super().__init__()
        self.norm_eps, act = norm_eps, get_act_layer(act_layer)
        layers: dict[str, Any] = dict(norm_layer=partial(get_norm_layer(norm_layer), eps=norm_eps), act_layer=act)

        def stage(index: int, in_chs: int, out_chs: int, depth: int) -> nn.Module:
            return EfficientVitLargeStage(
                in_chs, out_chs, depth, **layers, head_dim=head_dim, vit_stage=index >= 3, fewer_norm=index >= 2)

        self.assemble(in_chans, num_classes, widths, depths, head_widths, partial(Stem, **layers, block_type="large"),
                      stage, dropout=drop_rate, act_layer=act, pool_type=global_pool, norm_eps=norm_eps)


_32, _64 = (dict(widths=tuple(width * 2**i for i in range(5))) for width in (32, 64))
_WIDE = dict(head_widths=(2304, 2560))

register_model.variants(__name__, EfficientVit, {
    "efficientvit_b0": dict(widths=(8, 16, 32, 64, 128), depths=(1, 2, 2, 2, 2), head_dim=16, head_widths=(1024, 1280)),
    "efficientvit_b1": dict(widths=(16, 32, 64, 128, 256), depths=(1, 2, 3, 3, 4), head_dim=16,
                            head_widths=(1536, 1600)),
    "efficientvit_b2": (_WIDE, dict(widths=(24, 48, 96, 192, 384), depths=(1, 3, 4, 4, 6))),
    "efficientvit_b3": (_WIDE, _32, dict(depths=(1, 4, 6, 6, 9))),
})
register_model.variants(__name__, EfficientVitLarge, {
    "efficientvit_l1": (_32, dict(depths=(1, 1, 1, 6, 6), head_widths=(3072, 3200))),
    "efficientvit_l2": (_32, dict(depths=(1, 2, 2, 8, 8), head_widths=(3072, 3200))),
    "efficientvit_l3": (_64, dict(depths=(1, 2, 2, 8, 8), head_widths=(6144, 6400))),
})
