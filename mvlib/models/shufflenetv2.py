"""ShuffleNetV2 (https://arxiv.org/abs/1807.11164); state-dict keys are torchvision's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from ..layers.conv import conv_norm
from ..layers.stage import dilate_strides
from ..registry import register_model
from .base import Flow, ImageModel, Step

if TYPE_CHECKING:
    from ._variants.shufflenetv2 import *

__all__ = ["ShuffleNetV2"]


def shuffle_channels(x: Tensor, groups: int = 2) -> Tensor:
    """Interleave the channels of `groups` equal parts. Shapes: (B, C, H, W) -> same."""
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


class ShuffleBlock(nn.Module):
    """Two branches that each give half of the output's channels, which are then shuffled.

    Within a stage the first branch passes half of the input on; the first block of a stage, which changes the number
    of channels, gives all of the input to both. Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride).
    """

    def __init__(self, in_chs: int, out_chs: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        chs, self.splits = out_chs // 2, stride == 1 and in_chs == out_chs
        spatial = dict(kernel_size=3, stride=stride, dilation=dilation)
        self.branch1 = nn.Sequential()
        if not self.splits:
            self.branch1.extend([
                *conv_norm(in_chs, in_chs, groups=in_chs, **spatial), *conv_norm(in_chs, chs, act_layer=nn.ReLU)])
        self.branch2 = nn.Sequential(
            *conv_norm(chs if self.splits else in_chs, chs, act_layer=nn.ReLU),
            *conv_norm(chs, chs, groups=chs, **spatial), *conv_norm(chs, chs, act_layer=nn.ReLU))

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=1) if self.splits else (x, x)
        return shuffle_channels(torch.cat((self.branch1(left), self.branch2(right)), dim=1))


class ShuffleNetV2(ImageModel):
    """A stem convolution and max pool, three stages of shuffle blocks, a pointwise convolution, a linear classifier.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features have a stride of `output_stride`.

    Args:
        layers: Blocks of the three stages.
        channels: Channels of the stem, of the three stages and of the last convolution.

    Raises:
        ValueError: There are not three stages and five channel counts, or an option has an unknown value.

    Source: Ma et al., "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design", 2018.
    """

    classifier_path: ClassVar[str] = "fc"

    def __init__(
        self, layers: Sequence[int] = (4, 8, 4), channels: Sequence[int] = (24, 116, 232, 464, 1024),
        num_classes: int = 1000, in_chans: int = 3, output_stride: int = 32, drop_rate: float = 0.0,
        global_pool: str = "avg",
    ) -> None:
        super().__init__()
        if len(layers) != 3 or len(channels) != 5:
            raise ValueError(f"ShuffleNetV2 has 3 stages and 5 channel counts, not {len(layers)} and {len(channels)}")
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        chs, *stage_chs, num_features = channels
        self.conv1 = nn.Sequential(*conv_norm(in_chans, chs, 3, 2, nn.ReLU))
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.flow = Flow(stem=[Step("conv1", chs, 2), Step("maxpool", chs, 4)], stages=[], neck=[Step("conv5")])
        rows = zip(layers, stage_chs, dilate_strides((2, 2, 2), 4, output_stride))
        for i, (depth, out_chs, (stride, dilation, next_dilation, reduction)) in enumerate(rows, start=2):
            self.add_module(f"stage{i}", nn.Sequential(ShuffleBlock(chs, out_chs, stride, dilation), *(
                ShuffleBlock(out_chs, out_chs, dilation=next_dilation) for _ in range(depth - 1))))
            self.flow.stages.append(Step(f"stage{i}", out_chs, reduction))
            chs = out_chs
        self.conv5 = nn.Sequential(*conv_norm(chs, num_features, act_layer=nn.ReLU))
        self.add_classifier(num_features, num_classes, global_pool)


register_model.variants(__name__, ShuffleNetV2, {
    "shufflenet_v2_x0_5": dict(channels=(24, 48, 96, 192, 1024)),
    "shufflenet_v2_x1_0": {},
    "shufflenet_v2_x1_5": dict(channels=(24, 176, 352, 704, 1024)),
    "shufflenet_v2_x2_0": dict(channels=(24, 244, 488, 976, 2048)),
})
