"""Position embeddings, resampled to other sizes."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["resample_abs_pos_embed", "resample_abs_pos_embed_nhwc", "resample_grid"]


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
    posemb: Tensor,
    new_size: list[int],
    old_size: list[int] | None = None,
    num_prefix_tokens: int = 1,
    interpolation: str = "bicubic",
    antialias: bool = True,
    verbose: bool = False,
    align_corners: bool | None = None,
) -> Tensor:
    """Interpolate a learned position embedding to another patch grid; prefix tokens keep theirs.

    Args:
        posemb: (1, num_prefix_tokens + old rows * old columns, C).
        new_size: (rows, columns) wanted.
        old_size: (rows, columns) there are; a square grid unless given.
        num_prefix_tokens: Leading entries that belong to no patch.
        interpolation, antialias, align_corners: As `torch.nn.functional.interpolate` takes them.
        verbose: Without effect; timm's callers give it.

    Returns:
        (1, num_prefix_tokens + new rows * new columns, C).
    """
    if old_size is None:
        side = int(math.sqrt(posemb.shape[1] - num_prefix_tokens))
        old_size = [side, side]
    if old_size[0] == new_size[0] and old_size[1] == new_size[1]:
        return posemb
    prefix, patches = posemb[:, :num_prefix_tokens], posemb[:, num_prefix_tokens:]
    grid = patches.reshape(1, old_size[0], old_size[1], -1)
    patches = resample_grid(grid, new_size, interpolation, antialias, align_corners).flatten(1, 2)
    return torch.cat((prefix, patches), dim=1) if num_prefix_tokens > 0 else patches


def resample_abs_pos_embed_nhwc(
    posemb: Tensor, new_size: list[int], interpolation: str = "bicubic", antialias: bool = True, verbose: bool = False
) -> Tensor:
    """`resample_grid`, or the embedding itself where it fits; `verbose` is without effect."""
    if posemb.shape[-3] == new_size[0] and posemb.shape[-2] == new_size[1]:
        return posemb
    return resample_grid(posemb, new_size, interpolation, antialias)
