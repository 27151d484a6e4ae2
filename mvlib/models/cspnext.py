"""CSPNeXt: RTMDet's backbone, cross-stage partial layers of blocks with 5x5 depthwise convolutions.

Lyu et al., "RTMDet: An Empirical Study of Designing Real-Time Object Detectors", 2022, arXiv:2212.07784. The paper
gives it no name; OpenMMLab's code, whose weights these are, does. (Another "CSPNeXt", a token hybrid of 2024, has
nothing to do with it.)

Of the map, one half of the channels goes through a stage's blocks, the other around them; channel attention weighs the
two. The last stage pools with windows of three sizes first, and its blocks have no shortcuts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ..layers import ActLayer, ClassifierHead, ConvNormAct, EffectiveSEModule, NormLayer, placeable
from ..layers.drop import DropPath, drop_path_rates
from ..registry import register_model
from .base import Flow, ImageModel, KeyMap, Step, rename_keys

if TYPE_CHECKING:
    from ._variants.cspnext import *

__all__ = ["CspNext", "CspNextBlock", "CspNextLayer", "DepthwiseSeparableConv", "SPPBottleneck"]


class SPPBottleneck(nn.Module):
    """Half the channels, beside their maxima in windows of several sizes. Shapes: (B, in, H, W) -> (B, out, H, W)."""

    @placeable
    def __init__(
        self, in_channels: int, out_channels: int, kernel_sizes: Sequence[int] = (5, 9, 13),
        norm_layer: NormLayer = nn.BatchNorm2d, act_layer: ActLayer = nn.SiLU,
    ) -> None:
        super().__init__()
        layers: dict[str, Any] = dict(norm_layer=norm_layer, act_layer=act_layer)
        mid_channels = in_channels // 2
        self.conv1 = ConvNormAct(in_channels, mid_channels, 1, **layers)
        self.poolings = nn.ModuleList(nn.MaxPool2d(k, stride=1, padding=k // 2) for k in kernel_sizes)
        self.conv2 = ConvNormAct(mid_channels * (len(kernel_sizes) + 1), out_channels, 1, **layers)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        return self.conv2(torch.cat([x, *(pool(x) for pool in self.poolings)], dim=1))


class DepthwiseSeparableConv(nn.Sequential):
    """Depthwise and pointwise convolution, with norm and activation each. Shapes: (B, in, H, W) -> (B, out, H', W')."""

    @placeable
    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, padding: int = 0, dilation: int = 1,
        norm_layer: NormLayer = nn.BatchNorm2d, act_layer: ActLayer = nn.SiLU,
    ) -> None:
        super().__init__()
        layers: dict[str, Any] = dict(norm_layer=norm_layer, act_layer=act_layer)
        self.depthwise_conv = ConvNormAct(in_channels, in_channels, kernel_size, padding=padding, dilation=dilation,
                                          groups=in_channels, **layers)
        self.pointwise_conv = ConvNormAct(in_channels, out_channels, 1, **layers)


class CspNextBlock(nn.Module):
    """A 3x3 and a depthwise-separable convolution; a shortcut if `add_identity`. (B, in, H, W) -> (B, out, H, W)."""

    @placeable
    def __init__(
        self, in_channels: int, out_channels: int, add_identity: bool = True, kernel_size: int = 5, dilation: int = 1,
        drop_path: float = 0.0, norm_layer: NormLayer = nn.BatchNorm2d, act_layer: ActLayer = nn.SiLU,
    ) -> None:
        super().__init__()
        layers: dict[str, Any] = dict(dilation=dilation, norm_layer=norm_layer, act_layer=act_layer)
        self.conv1 = ConvNormAct(in_channels, out_channels, 3, padding=dilation, **layers)
        self.conv2 = DepthwiseSeparableConv(
            out_channels, out_channels, kernel_size, padding=dilation * (kernel_size // 2), **layers)
        self.add_identity = add_identity and in_channels == out_channels
        self.drop_path = DropPath(drop_path) if drop_path and self.add_identity else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(self.conv1(x))
        return self.drop_path(out) + x if self.add_identity else out


class CspNextLayer(nn.Module):
    """Two narrow 1x1 convolutions, blocks behind one of them, and what both give put together.

    Shapes: (B, in_channels, H, W) -> (B, out_channels, H, W).

    Args:
        expand_ratio: Channels of each half, in `out_channels`.
        add_identity, dilation, drop_path_rates: Of the blocks: whether they have shortcuts; stochastic depth of each.
        channel_attention: Attention of the two halves before the last convolution.
    """

    @placeable
    def __init__(
        self, in_channels: int, out_channels: int, expand_ratio: float = 0.5, num_blocks: int = 1,
        add_identity: bool = True, channel_attention: bool = False, dilation: int = 1,
        drop_path_rates: Sequence[float] | None = None, norm_layer: NormLayer = nn.BatchNorm2d,
        act_layer: ActLayer = nn.SiLU,
    ) -> None:
        super().__init__()
        layers: dict[str, Any] = dict(norm_layer=norm_layer, act_layer=act_layer)
        chs, rates = int(out_channels * expand_ratio), drop_path_rates or [0.0] * num_blocks
        self.short_conv = ConvNormAct(in_channels, chs, 1, **layers)
        self.main_conv = ConvNormAct(in_channels, chs, 1, **layers)
        self.blocks = nn.ModuleList(
            CspNextBlock(chs, chs, add_identity, dilation=dilation, drop_path=rate, **layers)
            for rate in rates[:num_blocks])
        self.attention = EffectiveSEModule(2 * chs) if channel_attention else nn.Identity()
        self.final_conv = ConvNormAct(2 * chs, out_channels, 1, **layers)

    def forward(self, x: Tensor) -> Tensor:
        short, main = self.short_conv(x), self.main_conv(x)
        for block in self.blocks:
            main = block(main)
        return self.final_conv(self.attention(torch.cat([main, short], dim=1)))


class CspNext(ImageModel):
    """Three stem convolutions, stages of a strided convolution and a `CspNextLayer`, pooling and a classifier.

    Shapes: (B, in_chans, H, W) -> (B, num_classes). RTMDet's own detectors have batch norms with eps=0.001 and
    momentum=0.03, the classifiers torch's.

    Args:
        global_pool: "avg", "max", "avgmax", "catavgmax" or "" for none.
        output_stride: 32, 16 or 8; strides beyond become dilation.
        drop_path_rate: Stochastic depth of the last block with a shortcut; earlier ones have proportionally less.
        depths, channels: Blocks and channels of each stage.
        deepen_factor, widen_factor: Factors on `depths` and `channels`.
        expand_ratio: Channels of each half of a stage, in the stage's.
        channel_attention: Whether there is any.
        norm_layer, act_layer: Of all convolutions.

    Raises:
        ValueError: An option has an unknown value, or `depths` and `channels` are of different lengths.
    """

    head_path: ClassVar[str] = "head"

    def __init__(
        self, in_chans: int = 3, num_classes: int = 1000, global_pool: str = "avg", output_stride: int = 32,
        drop_rate: float = 0.0, drop_path_rate: float = 0.0, depths: Sequence[int] = (3, 6, 6, 3),
        channels: Sequence[int] = (128, 256, 512, 1024), deepen_factor: float = 1.0, widen_factor: float = 1.0,
        expand_ratio: float = 0.5, channel_attention: bool = True, norm_layer: NormLayer = "batchnorm2d",
        act_layer: ActLayer = "silu",
    ) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride is 8, 16 or 32, not {output_stride}")
        if len(depths) != len(channels):
            raise ValueError(f"depths and channels have a number for each stage, not {len(depths)} and {len(channels)}")
        self.num_classes, self.in_chans = num_classes, in_chans
        layers: dict[str, Any] = dict(norm_layer=norm_layer, act_layer=act_layer)
        depths = [max(round(depth * deepen_factor), 1) for depth in depths]
        channels = [int(chs * widen_factor) for chs in channels]

        chs = max(channels[0] // 2, 1)
        half_chs = max(chs // 2, 1)
        self.stem = nn.Sequential(
            ConvNormAct(in_chans, half_chs, 3, stride=2, **layers), ConvNormAct(half_chs, half_chs, 3, **layers),
            ConvNormAct(half_chs, chs, 3, **layers))
        self.flow = Flow(stem=[Step("stem", chs, 2)], stages=[])
        self.stages = nn.Sequential()
        rates = [*drop_path_rates(drop_path_rate, depths[:-1]), None]  # the last stage has no shortcuts
        reduction, dilation = 2, 1
        for i, (out_chs, depth, drop_path) in enumerate(zip(channels, depths, rates)):
            first_dilation, stride, is_last = dilation, 2, i == len(channels) - 1
            if 2 * reduction > output_stride:
                stride, dilation = 1, 2 * dilation
            reduction *= stride
            stage = nn.Sequential(ConvNormAct(chs, out_chs, 3, stride, first_dilation, first_dilation, **layers))
            if is_last:
                stage.append(SPPBottleneck(out_chs, out_chs, **layers))
            stage.append(CspNextLayer(
                out_chs, out_chs, expand_ratio, depth, not is_last, channel_attention, dilation, drop_path, **layers))
            self.stages.append(stage)
            self.flow.stages.append(Step(f"stages.{i}", out_chs, reduction))
            chs = out_chs

        self.num_features = chs
        self.head = ClassifierHead(chs, num_classes, global_pool, drop_rate)
        self.head_hidden_size = self.head.num_features
        self.init_weights()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """As the base's; a stage's convolutions and its blocks are layers, what ends it goes with its last block."""
        blocks: Any = r"^stages\.(\d+)" if coarse else [
            (r"^stages\.(\d+)\.\d+\.blocks\.(\d+)", None),
            (r"^stages\.(\d+)\.\d+\.(?:attention|final_conv)", (99999,)), (r"^stages\.(\d+)", (0,))]
        return dict(stem=r"^stem", blocks=blocks)


register_model.variants(__name__, CspNext, {
    "cspnext_tiny": dict(deepen_factor=0.167, widen_factor=0.375),
    "cspnext_s": dict(deepen_factor=0.33, widen_factor=0.5),
    "cspnext_m": dict(deepen_factor=0.67, widen_factor=0.75),
    "cspnext_l": {},
    "cspnext_x": dict(deepen_factor=1.33, widen_factor=1.25),
})


# Stages are "stage1" to "stage4", in a detector or classifier below "backbone"; the rest of that has no place.
CspNext.key_maps = (KeyMap(
    "openmmlab", lambda keys: any(key.removeprefix("backbone.").startswith("stage1.") for key in keys),
    lambda state_dict, _: rename_keys(
        state_dict, (r"^backbone\.", ""), (r"^stage(\d+)\.", lambda m: f"stages.{int(m[1]) - 1}."))),)
