"""Position embeddings and relative-position bias tables, resampled to other sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["resample_abs_pos_embed", "resample_grid", "resize_rel_pos_bias_table"]

Size = Sequence[int]


def resample_grid(
    grid_BHWC: Tensor,
    new_size: list[int],
    interpolation: str = "bicubic",
    antialias: bool = True,
    align_corners: bool | None = None,
) -> Tensor:
    """Interpolate a grid of vectors. Shapes: (B, H, W, C) -> (B, *new_size, C), in the grid's own type.

    TorchScript reads this function and the next: sizes are called lists, and may be any sequence.
    """
    values = grid_BHWC.float().permute(0, 3, 1, 2)
    values = F.interpolate(
        values, size=new_size, mode=interpolation, antialias=antialias, align_corners=align_corners)
    return values.permute(0, 2, 3, 1).to(grid_BHWC.dtype)


def resample_abs_pos_embed(
    pos_embed: Tensor,
    new_size: list[int],
    old_size: list[int] | None = None,
    num_prefix_tokens: int = 1,
    interpolation: str = "bicubic",
    antialias: bool = True,
    align_corners: bool | None = None,
) -> Tensor:
    """Interpolate a learned position embedding to another patch grid; prefix tokens keep theirs.

    Args:
        pos_embed: (1, num_prefix_tokens + old rows * old columns, C).
        new_size: (rows, columns) wanted.
        old_size: (rows, columns) there are; a square grid unless given.
        num_prefix_tokens: Leading entries that belong to no patch.
        interpolation, antialias, align_corners: As `torch.nn.functional.interpolate` takes them.

    Returns:
        (1, num_prefix_tokens + new rows * new columns, C).
    """
    if old_size is None:
        side = int(math.sqrt(pos_embed.shape[1] - num_prefix_tokens))
        old_size = [side, side]
    if old_size[0] == new_size[0] and old_size[1] == new_size[1]:
        return pos_embed
    prefix, patches = pos_embed[:, :num_prefix_tokens], pos_embed[:, num_prefix_tokens:]
    grid = patches.reshape(1, old_size[0], old_size[1], -1)
    patches = resample_grid(grid, new_size, interpolation, antialias, align_corners).flatten(1, 2)
    return torch.cat((prefix, patches), dim=1) if num_prefix_tokens > 0 else patches


def resize_rel_pos_bias_table(table: Tensor, new_window: Size, old_window: Size | None = None) -> Tensor:
    """Interpolate a relative-position bias table to another window.

    Near offsets matter more than far ones: the table's offsets are taken to lie at geometrically growing distances
    whose range is that of the new window, and the new window's offsets are interpolated linearly between them (BEiT's
    scheme, with timm's linear interpolation in place of a cubic one).

    Args:
        table: ((2 * rows - 1) * (2 * columns - 1), heads).
        new_window: (rows, columns) wanted.
        old_window: (rows, columns) there are; a square window unless given, or the new one if a square cannot be.

    Returns:
        The table of the new window, (new offsets, heads).

    Raises:
        ValueError: The table fits no square window and none is given.
    """
    new_size = tuple(2 * n - 1 for n in new_window)
    count, heads = table.shape
    if old_window is not None:
        old_size = tuple(2 * n - 1 for n in old_window)
    else:
        side = math.isqrt(count)
        if side * side == count:
            old_size = (side, side)
        elif count == math.prod(new_size):
            old_size = new_size
        else:
            raise ValueError(f"a bias table of {count} offsets belongs to no square window; its window must be given")
    if old_size == new_size:
        return table
    if table.is_meta:
        return table.new_empty((math.prod(new_size), heads))
    grid = table.float().reshape(*old_size, heads)
    for dim in (0, 1):
        grid = _interpolate(grid, dim, _geometric_positions(old_size[dim], new_size[dim]), new_size[dim])
    return grid.reshape(-1, heads).to(table.dtype)


def _geometric_positions(old: int, new: int) -> Tensor:
    """Positions, symmetric around 0, of `old` offsets whose steps grow geometrically to reach about `new` // 2."""
    half, reach = old // 2, new // 2
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        ratio = (low + high) / 2
        if (1 - ratio**half) / (1 - ratio) > reach:
            high = ratio
        else:
            low = ratio
    distances, distance = [], 1.0
    for step in range(1, half + 1):
        distances.append(distance)
        distance += ratio**step
    return torch.tensor([*(-d for d in reversed(distances)), 0.0, *distances], dtype=torch.float32)


def _interpolate(grid: Tensor, dim: int, positions: Tensor, new: int) -> Tensor:
    """Linear interpolation along `dim` from `positions` to the integers around 0; beyond the ends, the end's value."""
    positions = positions.to(grid.device)
    targets = torch.arange(new, dtype=torch.float32, device=grid.device) - new // 2
    right = torch.bucketize(targets, positions).clamp(max=len(positions) - 1)
    left = (right - 1).clamp(min=0)
    to_left = (targets - positions[left]).clamp(min=0)
    to_right = (positions[right] - targets).clamp(min=0)
    at_point = (to_left == 0) & (to_right == 0)
    to_left, to_right = (torch.where(at_point, torch.ones_like(d), d) for d in (to_left, to_right))
    shape = [1] * grid.ndim
    shape[dim] = -1
    weighted = grid.index_select(dim, left) * to_right.view(shape) + grid.index_select(dim, right) * to_left.view(shape)
    return weighted / (to_left + to_right).view(shape)
