"""Positions become channels, and channels positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .window import check_map

__all__ = ["DepthToSpace", "SpaceToDepth"]

torch.fx.wrap("check_map")  # one node in a traced graph: what it does depends on the map's size


class SpaceToDepth(nn.Module):
    """Squares of pixels become channels: (B, C, H, W) -> (B, bs**2 * C, H / bs, W / bs); a pixel's channels adjoin."""

    def __init__(self, block_size: int = 4) -> None:
        super().__init__()
        self.bs = block_size

    def forward(self, x: Tensor) -> Tensor:
        size = self.bs
        x = check_map(x, (size, size), False).unflatten(3, (-1, size)).unflatten(2, (-1, size))
        return x.permute(0, 3, 5, 1, 2, 4).flatten(1, 3)  # from (B, C, H / bs, bs, W / bs, bs)


class DepthToSpace(nn.Module):
    """What undoes `SpaceToDepth`: (B, bs**2 * C, H, W) -> (B, C, H * bs, W * bs)."""

    def __init__(self, block_size: int) -> None:
        super().__init__()
        self.bs = block_size

    def forward(self, x: Tensor) -> Tensor:
        x = x.unflatten(1, (self.bs, self.bs, -1))  # (B, bs, bs, C, H, W)
        return x.permute(0, 3, 4, 1, 5, 2).flatten(4, 5).flatten(2, 3)
