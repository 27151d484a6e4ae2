"""NASNet-A: two cells found by reinforcement learning on small images, stacked for large ones.

Zoph et al., "Learning Transferable Architectures for Scalable Image Recognition", 2017, arXiv:1707.07012.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..registry import register_model
from .nas_blocks import ActConvBn, Cell, CellNet, StemCell, Sums, factorized_paths, join_paths

if TYPE_CHECKING:
    from ._variants.nasnet import *

__all__ = ["NASNetALarge"]

_NORMAL: Sums = (
    (("x", "sep5"), ("prev", "sep3")), (("prev", "sep5"), ("prev", "sep3")), (("x", "avg"), ("prev", "")),
    (("prev", "avg"), ("prev", "avg")), (("x", "sep3"), ("x", "")))
_REDUCTION: Sums = (
    (("x", "sep5"), ("prev", "sep7")), (("x", "max"), ("prev", "sep7")), (("x", "avg"), ("prev", "sep5")),
    ((1, ""), (0, "avg")), ((0, "sep3"), ("x", "max")))


class NasCell(Cell):
    """The paper's figure 4: a normal or a reduction cell. `keeps_prev`: The next cell gets this one's second input, not
    its first.

    Shapes: (B, x_chs, H, W) of the cell before and (B, prev_chs, H, W) of the one before that -> the output, and what
    the next cell gets of an earlier one.
    """

    def __init__(
        self, x_chs: int, prev_chs: int, chs: int, reduces: bool, shrinks_prev: bool, keeps_prev: bool, pad_type: str
    ) -> None:
        super().__init__()
        self.shrinks_prev, self.keeps_prev = shrinks_prev, keeps_prev
        if not shrinks_prev:
            self.conv_prev_1x1 = ActConvBn(prev_chs, chs, 1)
        self.conv_1x1 = ActConvBn(x_chs, chs, 1)
        if shrinks_prev:
            self.act = nn.ReLU()
            self.path_1, self.path_2, self.final_path_bn = factorized_paths(prev_chs, chs)
        sums, outputs = (_REDUCTION, (1, 2, 3, 4)) if reduces else (_NORMAL, ("prev", 0, 1, 2, 3, 4))
        self.add_branches(sums, outputs, chs, chs, 2 if reduces else 1, pad_type)

    def forward(self, x: Tensor, prev: Tensor) -> tuple[Tensor, Tensor]:
        left = join_paths(self.act(prev), self.path_1, self.path_2, self.final_path_bn) if self.shrinks_prev else \
            self.conv_prev_1x1(prev)
        return self.combine(self.conv_1x1(x), left), prev if self.keeps_prev else x


class NASNetALarge(CellNet):
    """A convolution, two reduction cells, three times six normal cells with reduction cells between, a classifier.

    Shapes as `CellNet`'s.

    Args:
        stem_size: Channels of the first convolution.
        channel_multiplier: By which the channels of the stem's cells grow.
        num_features: Channels of the last cell's output, 24 times those of the first cells' sums.
        pad_type: See `Cell`.

    Raises:
        ValueError: An option has an unknown value.
    """

    def __init__(
        self, num_classes: int = 1000, in_chans: int = 3, stem_size: int = 96, channel_multiplier: int = 2,
        num_features: int = 4032, output_stride: int = 32, drop_rate: float = 0.0, global_pool: str = "avg",
        pad_type: str = "same",
    ) -> None:
        super().__init__()
        self.begin(num_classes, in_chans, output_stride, "conv0", stem_size)
        chs, outputs = num_features // 24, (1, 2, 3, 4)
        stem = StemCell(stem_size, chs // channel_multiplier**2, _REDUCTION, outputs, pad_type)
        self.add_cell("cell_stem_0", stem)
        self.add_tap(stem.out_chs, 4, "cell_stem_1")
        cell = NasCell(stem.out_chs, stem_size, chs // channel_multiplier, True, True, False, pad_type)
        self.add_cell("cell_stem_1", cell)
        prev_chs, x_chs = stem.out_chs, cell.out_chs
        for stage in range(3):
            if stage:
                self.add_tap(x_chs, 4 * 2**stage, f"reduction_cell_{stage - 1}")
                cell = NasCell(x_chs, prev_chs, chs, True, False, True, pad_type)
                self.add_cell(f"reduction_cell_{stage - 1}", cell)
                x_chs = cell.out_chs
            for i in range(6):
                cell = NasCell(x_chs, prev_chs, chs, False, i == 0, False, pad_type)
                self.add_cell(f"cell_{6 * stage + i}", cell)
                prev_chs, x_chs = x_chs, cell.out_chs
            chs *= 2
        self.finish(x_chs, global_pool, drop_rate)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        blocks = [(r"^cell_(\d+)", None), (r"^reduction_cell_0", (6,)), (r"^reduction_cell_1", (12,))]
        return dict(stem=r"^conv0|cell_stem_[01]", blocks=blocks)


register_model.variants(__name__, NASNetALarge, {"nasnetalarge": ({}, "NASNet-A, 6 @ 4032 (Zoph et al., 2017).")})
