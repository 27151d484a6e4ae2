"""What NASNet and PNASNet share: cells, whose connections were searched for, and a network of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.conv import ConvNormAct, create_conv2d
from ..layers.helpers import placeable
from ..layers.padding import Padding
from ..layers.pool import create_pool2d
from .base import Flow, ImageModel, Step

__all__ = [
    "ActConvBn", "BranchSeparables", "Cell", "CellNet", "SeparableConv2d", "StemCell", "factorized_paths", "join_paths",
]

Source = int | str  # "x", "prev", or the number of an earlier sum
Branch = tuple[Source, str]
Sums = Sequence[tuple[Branch, Branch]]

_SIDES = ("left", "right")
_Norm = partial(nn.BatchNorm2d, eps=1e-3)


class ActConvBn(nn.Sequential):
    """ReLU, convolution, batch norm; keys `conv`, `bn`. Shapes: (B, C, H, W) -> (B, C', H / stride, W / stride)."""

    @placeable
    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: Padding = ""
    ) -> None:
        super().__init__()
        self.act = nn.ReLU()
        self.conv = create_conv2d(in_channels, out_channels, kernel_size, stride, padding)
        self.bn = _Norm(out_channels)


class SeparableConv2d(nn.Sequential):
    """Depthwise and pointwise convolution; keys `depthwise_conv2d`, `pointwise_conv2d`."""

    @placeable
    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int, padding: Padding = ""
    ) -> None:
        super().__init__()
        self.depthwise_conv2d = create_conv2d(in_channels, in_channels, kernel_size, stride, padding, depthwise=True)
        self.pointwise_conv2d = nn.Conv2d(in_channels, out_channels, 1, bias=False)


class BranchSeparables(nn.Sequential):
    """Twice ReLU, separable convolution, batch norm; the first convolution has the stride.

    Shapes: (B, in_channels, H, W) -> (B, out_channels, H / stride, W / stride). In a `stem_cell` the first convolution
    changes the number of channels, else the second.
    """

    @placeable
    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, pad_type: Padding = "",
        stem_cell: bool = False,
    ) -> None:
        super().__init__()
        chs = out_channels if stem_cell else in_channels
        self.act_1 = nn.ReLU()
        self.separable_1 = SeparableConv2d(in_channels, chs, kernel_size, stride, pad_type)
        self.bn_sep_1 = _Norm(chs)
        self.act_2 = nn.ReLU(inplace=True)
        self.separable_2 = SeparableConv2d(chs, out_channels, kernel_size, 1, pad_type)
        self.bn_sep_2 = _Norm(out_channels)


def factorized_paths(in_chs: int, out_chs: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Two 1x1 convolutions of every other pixel, the second shifted by one, and the norm of both; see `join_paths`."""
    path_1, path_2 = (nn.Sequential(OrderedDict(
        **shift, avgpool=nn.AvgPool2d(1, stride=2), conv=nn.Conv2d(in_chs, out_chs // 2, 1, bias=False)))
        for shift in ({}, dict(pad=nn.ZeroPad2d((-1, 1, -1, 1)))))
    return path_1, path_2, _Norm(2 * (out_chs // 2))


def join_paths(x: Tensor, path_1: nn.Module, path_2: nn.Module, norm: nn.Module) -> Tensor:
    """(B, in_chs, H, W) -> (B, out_chs, H / 2, W / 2)."""
    return norm(torch.cat((path_1(x), path_2(x)), dim=1))


def _operation(name: str, in_chs: int, out_chs: int, stride: int, pad_type: str) -> nn.Module:
    if name.startswith("sep"):
        return BranchSeparables(in_chs, out_chs, int(name[-1]), stride, pad_type, stem_cell=True)
    if name == "conv":
        return ActConvBn(in_chs, out_chs, 1, stride)
    if name == "avg":
        return create_pool2d("avg", 3, stride, padding=pad_type, count_include_pad=False)
    pool = create_pool2d("max", 3, stride, padding=pad_type)
    return pool if name == "max" else nn.Sequential(OrderedDict(
        max_pool=pool, conv=nn.Conv2d(in_chs, out_chs, 1, bias=False), bn=_Norm(out_chs)))


class Cell(nn.Module):
    """Sums of two branches each, concatenated; keys `comb_iter_0_left`, `comb_iter_0_right`, ...

    A branch is a source, "x", "prev" or the number of an earlier sum, and an operation on it: "sep3", "sep5", "sep7"
    (`BranchSeparables` of that kernel), "max", "avg" (pools of 3x3), "conv" (`ActConvBn`), "maxconv" (a pool and a 1x1
    convolution), or "" for none. The same pool of the same source is computed once.

    Args of the cells of both families:
        x_chs, prev_chs: Channels of what the cell before gives, and the one before that.
        chs: Channels of each sum.
        reduces: Whether it is a reduction cell, which halves the size.
        shrinks_prev: Whether "prev" is twice as large.
        pad_type: "same" for TensorFlow's padding, "" for PyTorch's.
    """

    sums: Sums
    outputs: Sequence[Source]

    def add_branches(
        self, sums: Sums, outputs: Sequence[Source], prev_chs: int, chs: int, stride: int, pad_type: str
    ) -> None:
        """Make the branches, and those that read "x" or "prev" of this stride; `outputs` are what is concatenated."""
        self.sums, self.outputs = sums, outputs
        self.out_chs = len(outputs) * chs
        for i, pair in enumerate(sums):
            for side, (source, operation) in zip(_SIDES, pair):
                if operation:
                    self.add_module(f"comb_iter_{i}_{side}", _operation(
                        operation, prev_chs if source == "prev" else chs, chs,
                        1 if isinstance(source, int) else stride, pad_type))

    def combine(self, x: Tensor, prev: Tensor) -> Tensor:
        """(B, chs, H, W), (B, prev_chs, H, W) -> (B, out_chs, H / stride, W / stride)."""
        done: dict[Branch, Any] = {("x", ""): x, ("prev", ""): prev}
        for i, pair in enumerate(self.sums):
            terms = []
            for side, (source, operation) in zip(_SIDES, pair):
                term = done.get((source, operation))
                if term is None:
                    term = self.get_submodule(f"comb_iter_{i}_{side}")(done[source, ""])
                    if operation in ("max", "avg"):
                        done[source, operation] = term
                terms.append(term)
            done[i, ""] = terms[0] + terms[1]
        return torch.cat([done[source, ""] for source in self.outputs], dim=1)


class StemCell(Cell):
    """A network's first cell, whose "prev" is its own input.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / 2, W / 2), and the input.
    """

    def __init__(self, in_chs: int, chs: int, sums: Sums, outputs: Sequence[Source], pad_type: str) -> None:
        super().__init__()
        self.conv_1x1 = ActConvBn(in_chs, chs, 1)
        self.add_branches(sums, outputs, in_chs, chs, 2, pad_type)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.combine(self.conv_1x1(x), x), x


class CellNet(ImageModel):
    """Base class of networks of cells that read what the two cells before gave.

    A family's constructor calls `begin`, adds its cells with `add_cell`, and ends with `finish`.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features have a stride of 32, and `output_stride` is no other.
    """

    classifier_path: ClassVar[str] = "last_linear"
    feature_form: ClassVar[str] = "hook"

    def begin(self, num_classes: int, in_chans: int, output_stride: int, conv: str, stem_size: int) -> None:
        """Make the first convolution, under the name `conv`."""
        if output_stride != 32:
            raise ValueError(f"output_stride is 32 for a network of cells, not {output_stride}")
        self.num_classes, self.in_chans = num_classes, in_chans
        self.add_module(conv, ConvNormAct(in_chans, stem_size, 3, 2, padding=0, norm_layer=_Norm, apply_act=False))
        self.flow = Flow(stem=[Step(conv, stem_size, 2)], stages=[])

    def add_cell(self, name: str, cell: nn.Module) -> None:
        """Add a cell; it and what the next one gets of the cell before are its outputs."""
        self.add_module(name, cell)
        self.flow.stages.append(Step(name, takes=("prev",) if self.flow.stages else (), gives=("prev",)))

    def add_tap(self, chs: int, reduction: int, reader: str) -> None:
        """Make a tap of the last cell's output, as all that read it activate it: the cell `reader` and the next one."""
        self.flow.stages.append(Step("activate", chs, reduction, f"{reader}.conv_1x1.act"))

    def activate(self, x: Tensor) -> Tensor:
        return F.relu(x)

    def finish(self, num_features: int, global_pool: str, drop_rate: float) -> None:
        """Make the last activation and the head."""
        self.act = nn.ReLU(inplace=True)
        self.flow.stages.append(Step("act", num_features, 32))
        self.add_classifier(num_features, self.num_classes, global_pool, nn.Dropout(drop_rate))
