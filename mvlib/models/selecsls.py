"""SelecSLS: blocks that join what their 3x3 convolutions wrote with the output of their stage's first block.

Mehta et al., "XNect: Real-time Multi-Person 3D Motion Capture with a Single RGB Camera", 2019, arXiv:1907.00837.
The number counts convolutions; "b" narrows the head's last one instead of widening it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ..layers.helpers import placeable
from ..layers.padding import get_padding
from ..layers.weight_init import init_kaiming
from ..registry import register_model
from .base import Flow, ImageModel, Indices, Inits, Step

if TYPE_CHECKING:
    from ._variants.selecsls import *

__all__ = ["SelecSls", "SelecSlsBlock", "SelectSeq", "conv_bn"]


def conv_bn(
    in_chs: int, out_chs: int, k: int = 3, stride: int = 1, padding: int | None = None, dilation: int = 1,
    device: Any = None, dtype: Any = None,
) -> nn.Sequential:
    """A convolution of kernel size `k`, batch norm and ReLU; padded to keep the size unless `padding` is given."""
    padding = get_padding(k, stride, dilation) if padding is None else padding
    conv = nn.Conv2d(in_chs, out_chs, k, stride, padding, dilation, bias=False, device=device, dtype=dtype)
    return nn.Sequential(conv, nn.BatchNorm2d(out_chs, device=device, dtype=dtype), nn.ReLU(inplace=True))


class SelectSeq(nn.Module):
    """One of several maps, or all of them side by side, where the mode is not "index"."""

    def __init__(self, mode: str = "index", index: int = 0) -> None:
        super().__init__()
        self.mode, self.index = mode, index

    def forward(self, x: Sequence[Tensor]) -> Tensor:
        return x[self.index] if self.mode == "index" else torch.cat(list(x), dim=1)


class SelecSlsBlock(nn.Module):
    """Three 3x3 convolutions one after the other, with 1x1 between, and a 1x1 convolution of them all and of a skip.

    Shapes: (B, in_chs, H, W), skip (B, skip_chs, H, W) -> (B, out_chs, H / stride, W / stride), skip; as a list, if
    the two come as one. A stage's first block (`is_first`) takes no skip, but gives its output as that. The first 3x3
    convolution has `mid_chs` channels, `stride` and `dilation`; the others have half as many channels.
    """

    @placeable
    def __init__(
        self, in_chs: int, skip_chs: int, mid_chs: int, out_chs: int, is_first: bool, stride: int, dilation: int = 1
    ) -> None:
        super().__init__()
        self.is_first, self.stride = is_first, stride
        self.conv1 = conv_bn(in_chs, mid_chs, 3, stride, dilation=dilation)
        self.conv2 = conv_bn(mid_chs, mid_chs, 1)
        self.conv3 = conv_bn(mid_chs, mid_chs // 2, 3)
        self.conv4 = conv_bn(mid_chs // 2, mid_chs, 1)
        self.conv5 = conv_bn(mid_chs, mid_chs // 2, 3)
        self.conv6 = conv_bn(2 * mid_chs + (0 if is_first else skip_chs), out_chs, 1)

    def forward(self, x: Tensor | Sequence[Tensor], *skip: Tensor) -> list[Tensor]:
        if isinstance(x, (list, tuple)):  # not "no tensor": a graph is traced with neither
            x, skip = x[0], tuple(x[1:])
        first = self.conv1(x)
        second = self.conv3(self.conv2(first))
        third = self.conv5(self.conv4(second))
        if self.is_first:
            out = self.conv6(torch.cat([first, second, third], dim=1))
            return [out, out]
        return [self.conv6(torch.cat([first, second, third, *skip], dim=1)), *skip]


class SelecSls(ImageModel):
    """A convolution, stages of blocks that share a skip, a head of convolutions, pooling and a linear classifier.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features have a stride of 64.

    Args:
        features: Of each stage: channels of its blocks' first convolutions, of its output, and the number of blocks.
        head: Output channels of the head's convolutions; each second one, from the first on, strides.
        last_kernel_size: Kernel of the last of them; the others are 3x3.
    """

    classifier_path: ClassVar[str] = "fc"
    feature_form: ClassVar[str] = "flat"
    default_out_indices: ClassVar[Indices] = (0, 1, 2, 3, 4)
    inits: ClassVar[Inits] = {nn.Conv2d: init_kaiming}

    def __init__(
        self, features: Sequence[tuple[int, int, int]], head: Sequence[int], last_kernel_size: int = 1,
        num_classes: int = 1000, in_chans: int = 3, drop_rate: float = 0.0, global_pool: str = "avg",
    ) -> None:
        super().__init__()
        self.num_classes, self.in_chans = num_classes, in_chans
        chs, reduction = 32, 2
        self.stem = conv_bn(in_chans, chs, stride=2)
        self.flow = Flow(stem=[Step("stem", chs, reduction, module="stem.2")], stages=[])
        self.features = nn.Sequential()
        for mid_chs, last_chs, depth in features:
            reduction *= 2
            for i in range(depth):
                step = Step(f"features.{len(self.features)}", takes=("skip",) if i else (), gives=("skip",))
                out_chs = mid_chs if i < depth - 1 else last_chs
                self.features.append(SelecSlsBlock(chs, mid_chs, mid_chs, out_chs, i == 0, stride=1 if i else 2))
                self.flow.stages.append(step)
                chs = out_chs
            self.flow.stages[-1] = replace(step, chs=chs, reduction=reduction)
        self.head = nn.Sequential()
        for i, out_chs in enumerate(head):
            kernel_size, stride = last_kernel_size if i == len(head) - 1 else 3, 1 if i % 2 else 2
            self.head.append(conv_bn(chs, out_chs, kernel_size, stride))
            reduction *= stride
            self.flow.stages.append(Step(f"head.{i}", out_chs, reduction) if i % 2 else Step(f"head.{i}"))
            chs = out_chs
        self.add_classifier(chs, num_classes, global_pool, nn.Dropout(drop_rate))

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return dict(stem=r"^stem", blocks=r"^features\.(\d+)", blocks_head=r"^head")


_42 = ((64, 128, 2), (144, 288, 2), (304, 480, 2))
_60 = ((64, 128, 2), (128, 288, 3), (288, 416, 4))
_84 = ((64, 144, 2), (144, 304, 5), (304, 512, 6))

register_model.variants(__name__, SelecSls, {
    "selecsls42": dict(features=_42, head=(960, 1024, 1024, 1280)),
    "selecsls42b": dict(features=_42, head=(960, 1024, 1280, 1024)),
    "selecsls60": dict(features=_60, head=(756, 1024, 1024, 1280)),
    "selecsls60b": dict(features=_60, head=(756, 1024, 1280, 1024)),
    "selecsls84": dict(features=_84, head=(960, 1024, 1024, 1280), last_kernel_size=3),
})
