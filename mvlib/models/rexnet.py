"""ReXNet: inverted residuals whose channels grow by as much from each block to the next.

Han et al., "Rethinking Channel Dimensions for Efficient Model Design", 2020, arXiv:2007.00992. The number is the width
in hundredths; timm's "r" models have channels rounded to multiples of 8 or 16.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from ..layers.activations import ActLayer, get_act_layer
from ..layers.channel_attention import SEModule
from ..layers.conv import ConvNormAct
from ..layers.drop import DropPath, drop_path_rates
from ..layers.helpers import make_divisible
from ..layers.pool import ClassifierHead
from ..layers.stage import dilate_strides
from ..registry import register_model
from .base import Flow, Step
from .efficientnet_blocks import MobileInit

if TYPE_CHECKING:
    from ._variants.rexnet import *

__all__ = ["LinearBottleneck", "RexNet"]

_DEPTHS, _STRIDES = (1, 2, 2, 3, 3, 5), (1, 2, 2, 2, 1, 2)  # of the stages, whose first block has the stride


class LinearBottleneck(nn.Module):
    """1x1 convolution that expands, depthwise convolution, 1x1 convolution that ends in a norm.

    The input is added to as many channels of the output, where that has its size and no fewer channels.
    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride).

    Args:
        stride, dilation: Of the depthwise convolution.
        exp_ratio: Expanded channels per input channel; 1 for no expansion.
        se_ratio: Squeezed channels of a squeeze-and-excitation per expanded channel; 0 for none.
        ch_div: Expanded and squeezed channels are multiples of it.
        act_layer: Activation behind the expansion.
        dw_act_layer: Activation behind the depthwise convolution, or the squeeze-and-excitation.
        use_shortcut: Add the input where the shapes allow it.
    """

    def __init__(
        self, in_chs: int, out_chs: int, stride: int, dilation: int = 1, exp_ratio: float = 1.0, se_ratio: float = 0.0,
        ch_div: int = 1, act_layer: ActLayer = "swish", dw_act_layer: ActLayer = "relu6", drop_path: float = 0.0,
        use_shortcut: bool = True,
    ) -> None:
        super().__init__()
        self.in_channels, self.use_shortcut = in_chs, use_shortcut and stride == 1 and in_chs <= out_chs
        dw_chs = in_chs
        self.conv_exp: nn.Module = nn.Identity()
        if exp_ratio != 1.0:
            dw_chs = make_divisible(round(in_chs * exp_ratio), ch_div)
            self.conv_exp = ConvNormAct(in_chs, dw_chs, act_layer=act_layer)
        self.conv_dw = ConvNormAct(dw_chs, dw_chs, 3, stride, dilation=dilation, groups=dw_chs, apply_act=False)
        self.se: nn.Module = nn.Identity()
        if se_ratio > 0.0:
            rd_channels = make_divisible(int(dw_chs * se_ratio), ch_div)
            self.se = SEModule(dw_chs, rd_channels=rd_channels, norm_layer="batchnorm2d")
        self.act_dw = get_act_layer(dw_act_layer)(inplace=True)
        self.conv_pwl = ConvNormAct(dw_chs, out_chs, 1, apply_act=False)
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv_pwl(self.act_dw(self.se(self.conv_dw(self.conv_exp(x)))))
        if not self.use_shortcut:
            return out
        out = self.drop_path(out)
        return torch.cat((out[:, :self.in_channels] + x, out[:, self.in_channels:]), dim=1)


class RexNet(MobileInit):
    """A stem convolution, inverted residuals of growing width, a 1x1 convolution, pooling and a linear classifier.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features have a stride of `output_stride`.

    Args:
        initial_chs, final_chs: Channels of the first block, and what is added to these on the way through all blocks.
        width_mult: Factor on all channels; one below 1 leaves those of stem and first block.
        depth_mult: Factor on the number of blocks of each stage, which is rounded up.
        se_ratio: Ratio of the squeeze-and-excitations, which the first two stages do without.
        ch_div: Channels are multiples of it.
        dw_act_layer: Activation behind depthwise convolutions.

    Raises:
        ValueError: An option has an unknown value.
    """

    head_path: ClassVar[str] = "head"
    feature_form: ClassVar[str] = "flat"

    def __init__(
        self, in_chans: int = 3, num_classes: int = 1000, global_pool: str = "avg", output_stride: int = 32,
        initial_chs: int = 16, final_chs: int = 180, width_mult: float = 1.0, depth_mult: float = 1.0,
        se_ratio: float = 1 / 12, ch_div: int = 1, act_layer: ActLayer = "swish", dw_act_layer: ActLayer = "relu6",
        drop_rate: float = 0.2, drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_classes, self.in_chans = num_classes, in_chans
        scaled = partial(make_divisible, divisor=ch_div)

        chs = scaled(round(32 * max(width_mult, 1.0)))
        self.stem = ConvNormAct(in_chans, chs, 3, stride=2, act_layer=act_layer)
        self.flow = Flow(stem=[Step("stem")], stages=[])
        depths = [math.ceil(depth * depth_mult) for depth in _DEPTHS]
        stages = [stage for stage, depth in enumerate(depths) for _ in range(depth)]
        strides = [stride if i == 0 else 1 for depth, stride in zip(depths, _STRIDES) for i in range(depth)]
        rows = zip(stages, dilate_strides(strides, 2, output_stride), drop_path_rates(drop_path_rate, len(stages)))
        self.features = nn.Sequential()
        width = initial_chs / min(width_mult, 1.0)  # before it is scaled
        for i, (stage, (stride, dilation, next_dilation, reduction), rate) in enumerate(rows):
            out_chs = scaled(round(width * width_mult))
            self.features.append(LinearBottleneck(
                chs, out_chs, stride, dilation, exp_ratio=6.0 if stage > 0 else 1.0,
                se_ratio=se_ratio if stage > 1 else 0.0, ch_div=ch_div, act_layer=act_layer, dw_act_layer=dw_act_layer,
                drop_path=rate, use_shortcut=dilation == next_dilation))
            chs, width = out_chs, width + final_chs / len(stages)
            is_tap = i == len(stages) - 1 or strides[i + 1] > 1  # the last block of its resolution
            self.flow.stages.append(Step(f"features.{i}", *((chs, reduction) if is_tap else ())))
        self.num_features = scaled(1280 * width_mult)
        self.flow.neck.append(Step(f"features.{len(stages)}"))
        self.features.append(ConvNormAct(chs, self.num_features, act_layer=act_layer))
        self.head = ClassifierHead(self.num_features, num_classes, global_pool, drop_rate)
        self.head_hidden_size = self.head.num_features
        self.init_weights()


_R = dict(ch_div=8)

register_model.variants(__name__, RexNet, {
    "rexnet_100": {},
    "rexnet_130": dict(width_mult=1.3),
    "rexnet_150": dict(width_mult=1.5),
    "rexnet_200": dict(width_mult=2.0),
    "rexnet_300": dict(width_mult=3.0),
    "rexnetr_100": _R,
    "rexnetr_130": (_R, dict(width_mult=1.3)),
    "rexnetr_150": (_R, dict(width_mult=1.5)),
    "rexnetr_200": (_R, dict(width_mult=2.0)),
    "rexnetr_300": dict(width_mult=3.0, ch_div=16),
})
