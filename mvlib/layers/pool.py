"""Global pooling and the classifier head of convolutional and hierarchical models."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["POOL_TYPES", "ClassifierHead", "GlobalPool2d"]

POOL_TYPES = ("avg", "max", "avgmax", "catavgmax", "")
_SPATIAL_DIMS = {"NCHW": (2, 3), "NHWC": (1, 2)}


class GlobalPool2d(nn.Module):
    """Pool a feature map to one vector.

    Shapes: (B, C, H, W) or (B, H, W, C) -> (B, C), or (B, 2C) for "catavgmax". Unflattened output keeps the spatial
    dimensions with size 1. The empty pool type passes the map through.

    Args:
        pool_type: "avg", "max", "avgmax" (their mean), "catavgmax" (both), or "" for none.
        flatten: Drop the pooled dimensions.
        layout: "NCHW" or "NHWC".

    Raises:
        ValueError: The pool type is unknown.
    """

    def __init__(self, pool_type: str = "avg", flatten: bool = True, layout: str = "NCHW") -> None:
        super().__init__()
        pool_type = (pool_type or "").removeprefix("fast")
        if pool_type not in POOL_TYPES:
            raise ValueError(f"unknown global_pool '{pool_type}'; known: {', '.join(repr(p) for p in POOL_TYPES)}")
        self.pool_type = pool_type
        self.flatten = flatten
        self.layout = layout

    @property
    def out_factor(self) -> int:
        """Output channels per input channel."""
        return 2 if self.pool_type == "catavgmax" else 1

    def forward(self, x: Tensor) -> Tensor:
        if not self.pool_type:
            return x
        dims, keep = _SPATIAL_DIMS[self.layout], not self.flatten
        if self.pool_type == "avg":
            return x.mean(dims, keepdim=keep)
        if self.pool_type == "max":
            return x.amax(dims, keepdim=keep)
        avg, peak = x.mean(dims, keepdim=keep), x.amax(dims, keepdim=keep)
        if self.pool_type == "avgmax":
            return 0.5 * avg + 0.5 * peak
        return torch.cat((avg, peak), dim=1 if self.flatten or self.layout == "NCHW" else -1)

    def extra_repr(self) -> str:
        return f"pool_type={self.pool_type!r}, flatten={self.flatten}, layout={self.layout!r}"


class ClassifierHead(nn.Module):
    """Global pooling, dropout and a linear classifier as one module; keys `fc.weight`, `fc.bias`.

    Shapes: feature map in `layout` -> (B, num_classes), or the pooled features where `num_classes` is 0.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        pool_type: str = "avg",
        drop_rate: float = 0.0,
        layout: str = "NCHW",
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.global_pool = GlobalPool2d(pool_type, layout=layout)
        self.num_features = in_features * self.global_pool.out_factor
        self.drop = nn.Dropout(drop_rate)
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes > 0 else nn.Identity()

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.drop(self.global_pool(x))
        return x if pre_logits else self.fc(x)
