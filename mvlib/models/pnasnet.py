"""PNASNet-5: one cell, found by a search that goes from simple to complex ones.

Liu et al., "Progressive Neural Architecture Search", 2017, arXiv:1712.00559.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..layers.helpers import placeable
from ..layers.padding import Padding
from ..registry import register_model
from . import nas_blocks
from .nas_blocks import ActConvBn, Cell, CellNet, StemCell, Sums, factorized_paths, join_paths

if TYPE_CHECKING:
    from ._variants.pnasnet import *

__all__ = ["BranchSeparables", "FactorizedReduction", "PNASNet5Large"]

_OUTPUTS = (0, 1, 2, 3, 4)


def cell_sums(first: str, last: str) -> Sums:
    """The paper's figure 1, right; `first` acts on the first sum's second "prev", `last` on the last one's "x"."""
    return (
        (("prev", "sep5"), ("prev", first)), (("x", "sep7"), ("x", "max")), (("x", "sep5"), ("x", "sep3")),
        ((2, "sep3"), ("x", "max")), (("prev", "sep3"), ("x", last)))


class FactorizedReduction(nn.Module):
    """ReLU, then half the size by two 1x1 convolutions; of those `padding` may be "same" or "", which mean nothing.

    Shapes: (B, in_channels, H, W) -> (B, out_channels, H / 2, W / 2).
    """

    @placeable
    def __init__(self, in_channels: int, out_channels: int, padding: str = "") -> None:
        super().__init__()
        self.act = nn.ReLU()
        self.path_1, self.path_2, self.final_path_bn = factorized_paths(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return join_paths(self.act(x), self.path_1, self.path_2, self.final_path_bn)


class BranchSeparables(nas_blocks.BranchSeparables):
    """The same, its arguments in the order that they have in timm for this family."""

    @placeable
    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, stem_cell: bool = False,
        padding: Padding = "",
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, stem_cell)


class PnasCell(Cell):
    """The cell; in a reduction cell, what reads the inputs has a stride of 2.

    Shapes: (B, x_chs, H, W) of the cell before and (B, prev_chs, H, W) of the one before that -> the output, and the
    first input.
    """

    def __init__(self, x_chs: int, prev_chs: int, chs: int, reduces: bool, shrinks_prev: bool, pad_type: str) -> None:
        super().__init__()
        self.conv_prev_1x1 = FactorizedReduction(prev_chs, chs) if shrinks_prev else ActConvBn(prev_chs, chs, 1)
        self.conv_1x1 = ActConvBn(x_chs, chs, 1)
        sums = cell_sums("max", "conv" if reduces else "")
        self.add_branches(sums, _OUTPUTS, chs, chs, 2 if reduces else 1, pad_type)

    def forward(self, x: Tensor, prev: Tensor) -> tuple[Tensor, Tensor]:
        return self.combine(self.conv_1x1(x), self.conv_prev_1x1(prev)), x


class PNASNet5Large(CellNet):
    """A convolution, two reduction cells, twelve cells, of which two are reduction cells, a classifier.

    Shapes as `CellNet`'s; `pad_type` as `Cell`'s.

    Raises:
        ValueError: An option has an unknown value.
    """

    def __init__(
        self, num_classes: int = 1000, in_chans: int = 3, output_stride: int = 32, drop_rate: float = 0.0,
        global_pool: str = "avg", pad_type: str = "",
    ) -> None:
        super().__init__()
        self.begin(num_classes, in_chans, output_stride, "conv_0", 96)
        prev_chs, chs = 96, 54
        stem = StemCell(prev_chs, chs, cell_sums("maxconv", "conv"), _OUTPUTS, pad_type)
        self.add_cell("cell_stem_0", stem)
        x_chs, reduction, shrinks_prev = stem.out_chs, 4, True
        for name in ("cell_stem_1", *(f"cell_{i}" for i in range(12))):
            reduces = name in ("cell_stem_1", "cell_4", "cell_8")
            if reduces:
                self.add_tap(x_chs, reduction, name)
                reduction *= 2
            if reduces or name == "cell_0":
                chs *= 2
            cell = PnasCell(x_chs, prev_chs, chs, reduces, shrinks_prev, pad_type)
            self.add_cell(name, cell)
            prev_chs, x_chs, shrinks_prev = x_chs, cell.out_chs, reduces
        self.finish(x_chs, global_pool, drop_rate)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return dict(stem=r"^conv_0|cell_stem_[01]", blocks=r"^cell_(\d+)")


register_model.variants(__name__, PNASNet5Large, {
    "pnasnet5large": (dict(pad_type="same"), "PNASNet-5 (Liu et al., 2017)."),
})
