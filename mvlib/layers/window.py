"""Windows of a feature map: cutting, putting together again, relative positions inside, the shifted windows' mask."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["relative_position_index", "shifted_window_mask", "window_partition", "window_reverse"]

Size = tuple[int, int]


def window_partition(x: Tensor, window: Size) -> Tensor:
    """Cut a map into windows that do not overlap, row by row.

    Shapes: (B, H, W, C) -> (B * windows, wh * ww, C); the window's sides wh and ww must divide H and W.
    """
    batch, height, width, chans = x.shape
    x = x.view(batch, height // window[0], window[0], width // window[1], window[1], chans)
    return x.transpose(2, 3).reshape(-1, window[0] * window[1], chans)


def window_reverse(windows: Tensor, window: Size, grid: Size) -> Tensor:
    """Put the windows of a map of `grid` (H, W) together again.

    Shapes: (B * windows, wh * ww, C) -> (B, H, W, C).
    """
    (height, width), chans = grid, windows.shape[-1]
    x = windows.view(-1, height // window[0], width // window[1], window[0], window[1], chans)
    return x.transpose(2, 3).reshape(-1, height, width, chans)


def relative_position_index(window: Size, device: torch.device | None = None) -> Tensor:
    """Row of a relative-bias table for each pair of positions in a window.

    The table has one row for each offset: (2 wh - 1) * (2 ww - 1), ordered by vertical, then by horizontal offset.

    Returns:
        Integers (wh * ww, wh * ww); [i, j] is the row for query i and key j.
    """
    height, width = window
    position = torch.arange(height * width, device=device)
    row, column = position // width, position % width
    dy = row[:, None] - row + height - 1
    dx = column[:, None] - column + width - 1
    return dy * (2 * width - 1) + dx


def shifted_window_mask(
    grid: list[int], window: Size, shift: Size, device: torch.device | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """Attention mask of the windows of a map that was rolled by `shift`: who was not a neighbour before stays unseen.

    Args:
        grid: Rows and columns of the map (any pair), multiples of the window's sides.
        window: Rows and columns of a window.
        shift: How far the map was rolled up and to the left; 0 where it was not.

    Returns:
        (windows, wh * ww, wh * ww): 0 for a pair that sees each other, -100 for one that does not.
    """
    rows, columns = _origin(grid[0], window[0], shift[0], device), _origin(grid[1], window[1], shift[1], device)
    origin = (rows[:, None] * 3 + columns)[None, :, :, None]
    origin = window_partition(origin, window).squeeze(-1)  # (windows, wh * ww)
    apart = origin[:, None, :] != origin[:, :, None]
    return torch.zeros(apart.shape, dtype=dtype, device=device).masked_fill(apart, -100.0)  # Swin's value


def _origin(size: int, window: int, shift: int, device: torch.device | None) -> Tensor:
    """Which part of the map each row (or column) came from: the body, the last window, or wrapped round."""
    position = torch.arange(size, device=device)
    if not shift:
        return torch.zeros_like(position)
    return (position >= size - window).long() + (position >= size - shift).long()
