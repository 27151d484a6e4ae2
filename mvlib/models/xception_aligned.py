"""Aligned Xception: Xception deeper, its max pools strided convolutions, as DeepLab has it.

Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation", 2018,
arXiv:1802.02611; after Chollet, "Xception", 2016, arXiv:1610.02357. The number counts the convolutions; the models with
a "p" are timm's, with norm and activation in front of the convolutions.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from ..layers.activations import ActLayer, get_act_layer
from ..layers.conv import ConvNormAct, create_conv2d
from ..layers.drop import DropPath, drop_path_rates
from ..layers.helpers import placeable, to_3tuple
from ..layers.norm import NormLayer, create_norm_act_layer
from ..layers.padding import Padding
from ..layers.pool import ClassifierHead
from ..layers.stage import dilate_strides
from ..registry import register_model
from .base import Flow, Step
from .inner_taps import InnerTaps, inner_tap

if TYPE_CHECKING:
    from ._variants.xception_aligned import *

__all__ = ["PreSeparableConv2d", "PreXceptionModule", "SeparableConv2d", "XceptionAligned", "XceptionModule"]


class SeparableConv2d(nn.Sequential):
    """Depthwise and 1x1 convolution, each with norm and (unless None) activation; keys `conv_dw`, `bn_dw`, `conv_pw`,
    `bn_pw`. Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride)."""

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, kernel_size: int = 3, stride: int = 1, dilation: int = 1,
        padding: Padding = "", act_layer: ActLayer = nn.ReLU, norm_layer: NormLayer = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        self.conv_dw = create_conv2d(in_chs, in_chs, kernel_size, stride, padding, dilation, depthwise=True)
        self.bn_dw = create_norm_act_layer(norm_layer, in_chs, act_layer)
        self.conv_pw = create_conv2d(in_chs, out_chs, 1)
        self.bn_pw = create_norm_act_layer(norm_layer, out_chs, act_layer)


class PreSeparableConv2d(nn.Sequential):
    """Norm and activation (where `first_act`), then depthwise and 1x1 convolution; keys `norm`, `conv_dw`, `conv_pw`.
    Shapes as above."""

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, kernel_size: int = 3, stride: int = 1, dilation: int = 1,
        padding: Padding = "", act_layer: ActLayer = nn.ReLU, norm_layer: NormLayer = nn.BatchNorm2d,
        first_act: bool = True,
    ) -> None:
        super().__init__()
        if first_act:
            self.norm = create_norm_act_layer(norm_layer, in_chs, act_layer)
        self.conv_dw = create_conv2d(in_chs, in_chs, kernel_size, stride, padding, dilation, depthwise=True)
        self.conv_pw = create_conv2d(in_chs, out_chs, 1)


class _Module(nn.Module):
    """Three separable convolutions, the last of which has the stride, and a shortcut; see the two classes below.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride).

    Args:
        out_chs: Channels of each convolution's output, one number or three.
        stride, dilation, pad_type: Of the last convolution and the shortcut; of the depthwise convolutions.
        no_skip: No shortcut.
        norm_layer: Norm; batch norm unless given.
        drop_path: Stochastic depth, a layer.
    """

    def __init__(
        self, in_chs: int, out_chs: int | Sequence[int], stride: int, no_skip: bool, drop_path: nn.Module | None
    ) -> None:
        super().__init__()
        self.out_chs, self.no_skip = to_3tuple(out_chs), no_skip
        self.has_conv = not no_skip and (self.out_chs[-1] != in_chs or stride != 1)
        self.shortcut: nn.Module = nn.Identity()
        self.norm: nn.Module = nn.Identity()
        self.stack = nn.Sequential()
        self.drop_path = drop_path or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(*self.begin(x))

    def begin(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the last convolution takes, and what the shortcut takes."""
        x = skip = self.norm(x)
        for name, layer in self.stack.named_children():
            x = layer(x) if name != "conv3" else x
        return x, skip

    def finish(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.stack[-1](x)
        return x if self.no_skip else self.drop_path(x) + self.shortcut(skip)

    def beginning(self) -> _Module:
        block = copy.copy(self)
        block._modules = {"norm": self.norm, "stack": self.stack[:-1]}
        return block


class XceptionModule(_Module):
    """Norm and activation behind the convolutions. Shapes and arguments as above; `start_with_relu`: an activation in
    front of each separable convolution, instead of two within."""

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int | Sequence[int], stride: int = 1, dilation: int = 1, pad_type: Padding = "",
        start_with_relu: bool = True, no_skip: bool = False, act_layer: ActLayer = nn.ReLU,
        norm_layer: NormLayer = None, drop_path: nn.Module | None = None,
    ) -> None:
        super().__init__(in_chs, out_chs, stride, no_skip, drop_path)
        norm_layer = norm_layer or nn.BatchNorm2d
        if self.has_conv:
            self.shortcut = ConvNormAct(in_chs, self.out_chs[-1], 1, stride, norm_layer=norm_layer, apply_act=False)
        for i, chs in enumerate(self.out_chs):
            if start_with_relu:
                self.stack.add_module(f"act{i + 1}", get_act_layer(act_layer)(inplace=i > 0))
            self.stack.add_module(f"conv{i + 1}", SeparableConv2d(
                in_chs, chs, 3, stride if i == 2 else 1, dilation, pad_type, None if start_with_relu else act_layer,
                norm_layer))
            in_chs = chs


class PreXceptionModule(_Module):
    """Norm and activation in front of the convolutions; the shortcut begins behind the first. Else as above."""

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int | Sequence[int], stride: int = 1, dilation: int = 1, pad_type: Padding = "",
        no_skip: bool = False, act_layer: ActLayer = nn.ReLU, norm_layer: NormLayer = None,
        drop_path: nn.Module | None = None,
    ) -> None:
        super().__init__(in_chs, out_chs, stride, no_skip, drop_path)
        norm_layer = norm_layer or nn.BatchNorm2d
        if self.has_conv:
            self.shortcut = create_conv2d(in_chs, self.out_chs[-1], 1, stride)
        self.norm = create_norm_act_layer(norm_layer, in_chs, act_layer)
        for i, chs in enumerate(self.out_chs):
            self.stack.add_module(f"conv{i + 1}", PreSeparableConv2d(
                in_chs, chs, 3, stride if i == 2 else 1, dilation, pad_type, act_layer, norm_layer, first_act=i > 0))
            in_chs = chs


class XceptionAligned(InnerTaps):
    """A stem of two convolutions, blocks, pooling and a linear classifier.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features have a stride of `output_stride`.

    Args:
        block_cfg: Of each block, arguments of its class (`XceptionModule`, or `PreXceptionModule` for `preact`):
            `in_chs`, `out_chs`, `stride` and others.
        preact: Norm and activation in front of the convolutions.

    Raises:
        ValueError: An option has an unknown value.
    """

    head_path: ClassVar[str] = "head"
    feature_form: ClassVar[str] = "flat"

    def __init__(
        self, block_cfg: Sequence[Mapping[str, Any]], num_classes: int = 1000, in_chans: int = 3,
        output_stride: int = 32, preact: bool = False, act_layer: ActLayer = "relu",
        norm_layer: NormLayer = "batchnorm2d", drop_rate: float = 0.0, drop_path_rate: float = 0.0,
        global_pool: str = "avg",
    ) -> None:
        super().__init__()
        self.num_classes, self.in_chans = num_classes, in_chans
        layer_args: dict[str, Any] = dict(act_layer=act_layer, norm_layer=norm_layer)
        self.stem = nn.Sequential(
            ConvNormAct(in_chans, 32, 3, stride=2, **layer_args),
            create_conv2d(32, 64, 3) if preact else ConvNormAct(32, 64, 3, **layer_args))
        self.flow = Flow(stem=[Step("stem")], stages=[], tail=[Step("act")])
        self.blocks = nn.Sequential()
        strides = dilate_strides([cfg["stride"] for cfg in block_cfg], 2, output_stride)
        rates = drop_path_rates(drop_path_rate, len(block_cfg))
        before = 2
        for i, (cfg, (stride, dilation, _, reduction), rate) in enumerate(zip(block_cfg, strides, rates)):
            tap = to_3tuple(cfg["out_chs"])[1], before, f"blocks.{i}.stack.{'conv2' if preact else 'act3'}"
            self.flow.stages += inner_tap(f"blocks.{i}", *tap) if cfg["stride"] > 1 else [Step(f"blocks.{i}")]
            self.blocks.append((PreXceptionModule if preact else XceptionModule)(**{
                **cfg, "stride": stride, "dilation": dilation, **layer_args,
                "drop_path": DropPath(rate) if rate > 0.0 else None}))
            before = reduction
        self.num_features = to_3tuple(cfg["out_chs"])[-1]
        self.flow.stages[-1] = replace(self.flow.stages[-1], chs=self.num_features, reduction=reduction)
        self.act = get_act_layer(act_layer)() if preact else nn.Identity()
        self.head = ClassifierHead(self.num_features, num_classes, global_pool, drop_rate)
        self.head_hidden_size = self.head.num_features
        self.init_weights()

    def steps_after(self, position: int) -> list[Step]:
        """As timm, end the block that the tap is in."""
        return [step for step in self.flow.body[position + 1:position + 2] if step.method == "finish"]


_ENTRY = ((128, 2), (256, 2), (728, 2))


def _blocks(middle: int, entry: Sequence[tuple[int, int]] = _ENTRY, preact: bool = False) -> dict[str, Any]:
    """Entry flow of blocks of these channels and strides, `middle` blocks that change nothing, exit flow."""
    last = {} if preact else dict(start_with_relu=False)
    return dict(preact=preact, block_cfg=[
        *(dict(in_chs=a, out_chs=b, stride=stride) for (a, _), (b, stride) in zip([(64, 1), *entry], entry)),
        *[dict(in_chs=728, out_chs=728, stride=1)] * middle,
        dict(in_chs=728, out_chs=(728, 1024, 1024), stride=2),
        dict(in_chs=1024, out_chs=(1536, 1536, 2048), stride=1, no_skip=True, **last)])


_EPS = dict(norm_layer=partial(nn.BatchNorm2d, eps=1e-3))  # TensorFlow's

register_model.variants(__name__, XceptionAligned, {
    "xception41": (_blocks(8), _EPS),
    "xception65": (_blocks(16), _EPS),
    "xception71": (_blocks(16, ((128, 2), (256, 1), (256, 2), (728, 1), (728, 2))), _EPS),
    "xception41p": _blocks(8, preact=True),
    "xception65p": (_blocks(16, preact=True), _EPS),
})
