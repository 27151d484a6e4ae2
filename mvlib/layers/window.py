"""Windows of a feature map: cutting and putting together again; and maps that have to have a size."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["check_map", "pad_to_multiple", "window_partition", "window_reverse"]

Size = tuple[int, int]


def check_map(x: Tensor, size: tuple[int, int], is_exact: bool) -> Tensor:
    """The map (B, C, H, W) as it is.

    Raises:
        ValueError: It has not that size, or unless `is_exact` not a multiple of it.
    """
    rows, columns = x.shape[-2:]
    height, width = size
    fits = rows == height and columns == width if is_exact else rows % height == 0 and columns % width == 0
    if not fits:
        multiples, remedy = ("", ", or build the model with img_size=") if is_exact else ("multiples of ", "")
        raise ValueError(
            f"the input is {rows} x {columns}, not {multiples}{height} x {width}; resize the images{remedy}")
    return x


def pad_to_multiple(x: Tensor, sides: tuple[int, int]) -> Tensor:
    """Zeros below and on the right, so that `sides` divide the map; (B, H, W, C) -> (B, H', W', C)."""
    below, right = -x.shape[1] % sides[0], -x.shape[2] % sides[1]
    return F.pad(x, [0, 0, 0, right, 0, below]) if below > 0 or right > 0 else x


def window_partition(x: Tensor, window_size: Size) -> Tensor:
    """Cut a map into windows that do not overlap, row by row.

    Shapes: (B, H, W, C) -> (B * windows, wh, ww, C); the window's sides wh and ww must divide H and W.
    """
    batch, height, width, chans = x.shape
    x = x.view(batch, height // window_size[0], window_size[0], width // window_size[1], window_size[1], chans)
    return x.transpose(2, 3).reshape(-1, window_size[0], window_size[1], chans)


def window_reverse(windows: Tensor, window_size: Size, H: int, W: int) -> Tensor:
    """Put the windows of a map of H rows and W columns together again.

    Shapes: (B * windows, wh, ww, C), or both sides in one, -> (B, H, W, C).
    """
    chans = windows.shape[-1]
    x = windows.view(-1, H // window_size[0], W // window_size[1], window_size[0], window_size[1], chans)
    return x.transpose(2, 3).reshape(-1, H, W, chans)
