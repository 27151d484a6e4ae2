"""PolyLoss (arXiv 2204.12511): cross-entropy with another weight of its first term, 1 - p."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import ConfigError
from .cross_entropy import check_smoothing, in_float32
from .reduction import check_reduction, reduce

__all__ = ["PolyBinaryCrossEntropy", "PolyCrossEntropy"]


class PolyCrossEntropy(nn.Module):
    """Cross-entropy + epsilon * (1 - p), p the probability of what is right. Computed in float32.

    Args:
        epsilon: Weight of the added term; 0 is cross-entropy.
        smoothing: Label smoothing of labels; distributions are taken as they are.
        reduction: "mean", "sum" or "none" over the images.

    Raises:
        ConfigError: `smoothing` is not in [0, 1), or `reduction` is unknown.
    """

    def __init__(self, epsilon: float = 2.0, smoothing: float = 0.0, reduction: str = "mean") -> None:
        super().__init__()
        self.epsilon = epsilon
        self.smoothing = check_smoothing(smoothing)
        self.reduction = check_reduction(reduction)

    def forward(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of logits (N, classes) and labels (N,) or distributions (N, classes)."""
        log_probabilities = in_float32(x).log_softmax(-1)
        if target.shape != x.shape:
            target = F.one_hot(target.long(), x.shape[-1]) * (1 - self.smoothing) + self.smoothing / x.shape[-1]
        target = target.to(log_probabilities.dtype)
        right = (target * log_probabilities.exp()).sum(-1)
        return reduce(self.epsilon * (1 - right) - (target * log_probabilities).sum(-1), self.reduction)


class PolyBinaryCrossEntropy(nn.Module):
    """The same for classes that are questions of their own, with a focal weight. Computed in float32.

    A class costs ((1 - p) ** gamma * binary cross-entropy + epsilon * (1 - p) ** (gamma + 1)).

    Args:
        epsilon: Weight of the added term.
        gamma: Exponent of the focal weight; 0 for none.
        alpha: Weight of positives, of negatives 1 - alpha; None for 1 each.
        smoothing: Label smoothing, towards 0.5.
        reduction: "mean", "batchmean" (sum over classes, mean over images), "sum" or "none".

    Raises:
        ConfigError: An argument is out of its range, or `reduction` is unknown.
    """

    def __init__(
        self, epsilon: float = 2.0, gamma: float = 0.0, alpha: float | None = None, smoothing: float = 0.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        if alpha is not None and not 0 <= alpha <= 1:
            raise ConfigError(f"the weight of positives is from 0 to 1, not {alpha}")
        self.epsilon, self.gamma, self.alpha = epsilon, gamma, alpha
        self.smoothing = check_smoothing(smoothing)
        self.reduction = check_reduction(reduction, batchmean=True)

    def forward(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of logits (N, classes) and targets in [0, 1] of the same shape."""
        x = in_float32(x)
        target = target.to(x.dtype) * (1 - self.smoothing) + self.smoothing / 2
        present = x.sigmoid()
        wrong = 1 - (target * present + (1 - target) * (1 - present))
        loss = F.binary_cross_entropy_with_logits(x, target, reduction="none") + self.epsilon * wrong
        if self.gamma:
            loss = loss * wrong ** self.gamma
        if self.alpha is not None:
            loss = loss * (target * self.alpha + (1 - target) * (1 - self.alpha))
        return reduce(loss, self.reduction)
