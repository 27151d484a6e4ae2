"""Cross-entropy with smoothed labels, with soft targets, and with a divergence between augmentation splits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import ConfigError

__all__ = ["JsdCrossEntropy", "LabelSmoothingCrossEntropy", "SoftTargetCrossEntropy", "check_smoothing", "in_float32"]


class LabelSmoothingCrossEntropy(nn.Module):
    """Cross-entropy against 1 - `smoothing` on the label and `smoothing` spread over all classes (arXiv 1512.00567).

    Raises:
        ConfigError: `smoothing` is not in [0, 1).
    """

    def __init__(self, smoothing: float = 0.1) -> None:
        super().__init__()
        self.smoothing = check_smoothing(smoothing)

    def forward(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Mean loss of logits (N, classes) and labels (N,)."""
        return F.cross_entropy(x, target, label_smoothing=self.smoothing)


class SoftTargetCrossEntropy(nn.Module):
    """Cross-entropy against a distribution over the classes, such as mixup gives."""

    def forward(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Mean loss of logits (..., classes) and probabilities of the same shape."""
        dtype = torch.promote_types(x.dtype, target.dtype)  # F.cross_entropy wants one
        return F.cross_entropy(x.flatten(0, -2).to(dtype), target.flatten(0, -2).to(dtype))


class JsdCrossEntropy(nn.Module):
    """Cross-entropy on clean images plus the Jensen-Shannon divergence between all splits (AugMix, arXiv 1912.02781).

    A batch is `num_splits` parts of equal size in a row: the clean images, then the same images augmented.

    Args:
        num_splits: Parts of a batch.
        alpha: Weight of the divergence.
        smoothing: Label smoothing of the cross-entropy, None for none.

    Raises:
        ConfigError: Fewer than two splits, or `smoothing` is not in [0, 1).
    """

    def __init__(self, num_splits: int = 3, alpha: float = 12, smoothing: float | None = 0.1) -> None:
        super().__init__()
        if num_splits < 2:
            raise ConfigError(f"JsdCrossEntropy compares 2 or more splits, not {num_splits}")
        self.num_splits = num_splits
        self.alpha = alpha
        self.cross_entropy_loss = nn.CrossEntropyLoss(label_smoothing=check_smoothing(smoothing or 0.0))

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of logits (splits * N, classes) and labels, of which the first N count."""
        if len(output) % self.num_splits:
            raise ConfigError(f"a batch of {len(output)} does not divide into {self.num_splits} splits")
        logits = in_float32(output).unflatten(0, (self.num_splits, -1))
        count = logits.shape[1]
        log_probabilities = logits.log_softmax(-1)
        # The floor keeps the divergence finite where every split rules a class out.
        log_mixture = log_probabilities.exp().mean(0).clamp(1e-7, 1).log().expand_as(log_probabilities)
        divergence = F.kl_div(log_mixture, log_probabilities, reduction="sum", log_target=True) / len(output)
        return self.cross_entropy_loss(logits[0], target[:count]) + self.alpha * divergence


def in_float32(x: torch.Tensor) -> torch.Tensor:
    """Logits of half precision in float32: autocast on the CPU does not see to it in every function."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def check_smoothing(smoothing: float) -> float:
    """`smoothing`, which must lie in [0, 1)."""
    if not 0 <= smoothing < 1:
        raise ConfigError(f"label smoothing is from 0 to below 1, not {smoothing}")
    return smoothing
