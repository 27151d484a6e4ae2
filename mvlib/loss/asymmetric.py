"""Asymmetric focal losses (ASL, arXiv 2009.14119): easy negatives count for less than easy positives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from .binary import as_buffer
from .cross_entropy import check_smoothing, in_float32
from .reduction import check_reduction, reduce

__all__ = ["AsymmetricLossMultiLabel", "AsymmetricLossSingleLabel"]


class AsymmetricLossMultiLabel(nn.Module):
    """Binary cross-entropy whose terms are weighted by how wrong the prediction is. Computed in float32.

    Args:
        gamma_neg: Exponent of that weight for negatives.
        gamma_pos: The same for positives.
        clip: Probability that is forgiven on negatives; None or 0 for none.
        eps: Least probability whose logarithm is taken.
        disable_torch_grad_focal_loss: No gradient through the weights.
        smoothing: Label smoothing, towards 0.5.
        reduction: "batchmean" (sum over classes, mean over images), "sum" (the paper's), "mean" or "none".
        weight: Weight of each class, (classes,).
        pos_weight: Weight of the positive term, one number or one a class.

    Raises:
        ConfigError: `smoothing` is not in [0, 1), or `reduction` is unknown.
    """

    def __init__(
        self, gamma_neg: float = 4, gamma_pos: float = 1, clip: float | None = 0.05, eps: float = 1e-8,
        disable_torch_grad_focal_loss: bool = False, smoothing: float = 0.0, reduction: str = "batchmean",
        weight: torch.Tensor | None = None, pos_weight: torch.Tensor | Sequence[float] | float | None = None,
    ) -> None:
        super().__init__()
        self.gamma_neg, self.gamma_pos = gamma_neg, gamma_pos
        self.clip = clip or 0.0
        self.eps = eps
        self.disable_torch_grad_focal_loss = disable_torch_grad_focal_loss
        self.smoothing = check_smoothing(smoothing)
        self.reduction = check_reduction(reduction, batchmean=True)
        self.register_buffer("weight", as_buffer(weight))
        self.register_buffer("pos_weight", as_buffer(pos_weight))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Loss of logits (N, classes) and targets in [0, 1] of the same shape."""
        y = y.float() * (1 - self.smoothing) + self.smoothing / 2
        present = x.float().sigmoid()
        absent = (1 - present + self.clip).clamp(max=1)
        positive = y * present.clamp(min=self.eps).log()
        if self.pos_weight is not None:
            positive = positive * self.pos_weight
        loss = -(positive + (1 - y) * absent.clamp(min=self.eps).log())
        if self.gamma_neg > 0 or self.gamma_pos > 0:
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.disable_torch_grad_focal_loss):
                loss_weight = _focus(present, absent, y, self.gamma_pos, self.gamma_neg)
            loss = loss * loss_weight
        if self.weight is not None:
            loss = loss * self.weight
        return reduce(loss, self.reduction)


class AsymmetricLossSingleLabel(nn.Module):
    """The same weights on a softmax cross-entropy. Computed in float32.

    Args:
        gamma_pos: Exponent of the weight of the label's class.
        gamma_neg: The same for the other classes, which count through label smoothing.
        eps: Label smoothing.
        reduction: "mean", "sum" or "none".

    Raises:
        ConfigError: `eps` is not in [0, 1), or `reduction` is unknown.
    """

    def __init__(self, gamma_pos: float = 1, gamma_neg: float = 4, eps: float = 0.1, reduction: str = "mean") -> None:
        super().__init__()
        self.gamma_pos, self.gamma_neg = gamma_pos, gamma_neg
        self.eps = check_smoothing(eps)
        self.reduction = check_reduction(reduction)

    def forward(self, inputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of logits (N, classes) and labels (N,)."""
        log_probabilities = in_float32(inputs).log_softmax(-1)
        label = F.one_hot(target.long(), inputs.shape[-1]).to(log_probabilities.dtype)
        present = log_probabilities.exp()
        loss_weight = _focus(present, 1 - present, label, self.gamma_pos, self.gamma_neg)
        smoothed = label * (1 - self.eps) + self.eps / inputs.shape[-1]
        return reduce(-(smoothed * log_probabilities * loss_weight).sum(-1), self.reduction)


def _focus(
    present: torch.Tensor, absent: torch.Tensor, target: torch.Tensor, gamma_pos: float, gamma_neg: float
) -> torch.Tensor:
    """How far the probability of what is right is from 1, to the power of the target's gamma."""
    right = present * target + absent * (1 - target)
    wrong = (1 - right).clamp(min=1e-8)  # at 0 a gamma below 1 has no finite gradient
    return wrong ** (gamma_pos * target + gamma_neg * (1 - target))
