"""Binary cross-entropy: every class is a question of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from .cross_entropy import check_smoothing
from .reduction import check_reduction

__all__ = ["BinaryCrossEntropy", "as_buffer"]


class BinaryCrossEntropy(nn.Module):
    """Binary cross-entropy on logits, from labels or dense targets (ResNet strikes back, arXiv 2110.00476).

    Args:
        smoothing: Label smoothing of labels, over all classes; dense targets are taken as they are.
        target_threshold: Targets above this count as 1, others as 0; None keeps them soft.
        weight: Weight of each class, (classes,).
        reduction: "mean", "sum" or "none".
        sum_classes: Sum over the classes and average over the images, whatever `reduction` says.
        pos_weight: Weight of the positive term, one number or one a class.
        smooth_dense: Dense targets are smoothed too, towards 0.5.

    Raises:
        ConfigError: `smoothing` is not in [0, 1), or `reduction` is unknown.
    """

    def __init__(
        self, smoothing: float = 0.1, target_threshold: float | None = None, weight: torch.Tensor | None = None,
        reduction: str = "mean", sum_classes: bool = False,
        pos_weight: torch.Tensor | Sequence[float] | float | None = None, smooth_dense: bool = False,
    ) -> None:
        super().__init__()
        self.smoothing = check_smoothing(smoothing)
        self.target_threshold = target_threshold
        reduction = check_reduction(reduction)
        self.reduction = "none" if sum_classes else reduction
        self.sum_classes = sum_classes
        self.smooth_dense = smooth_dense
        self.register_buffer("weight", as_buffer(weight))
        self.register_buffer("pos_weight", as_buffer(pos_weight))

    def forward(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of logits (N, classes) and labels (N,) or targets (N, classes)."""
        if target.shape != x.shape:
            target = F.one_hot(target.long().flatten(), x.shape[-1]).to(x.dtype)
            target = target * (1 - self.smoothing) + self.smoothing / x.shape[-1]
        elif self.smooth_dense:
            target = target * (1 - self.smoothing) + self.smoothing / 2
        if self.target_threshold is not None:
            target = target > self.target_threshold
        if not target.is_floating_point():
            target = target.to(x.dtype)
        loss = F.binary_cross_entropy_with_logits(
            x, target, self.weight, pos_weight=self.pos_weight, reduction=self.reduction)
        return loss.sum(-1).mean() if self.sum_classes else loss


def as_buffer(value: torch.Tensor | Sequence[float] | float | None) -> torch.Tensor | None:
    """A weight as a float tensor."""
    if value is None or isinstance(value, torch.Tensor):
        return value
    return torch.tensor(value, dtype=torch.float32)
