"""Losses of images with several labels that look at more than one class at a time. All are computed in float32."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import ConfigError
from .cross_entropy import check_smoothing, in_float32
from .reduction import check_reduction, reduce

__all__ = ["DistributionBalancedLoss", "TwoWayLoss", "ZlprLoss"]


class ZlprLoss(nn.Module):
    """log(1 + sum of exp(negatives)) + log(1 + sum of exp(-positives)), the mean over images (arXiv 2208.02955).

    Positives are pushed above 0 and negatives below, however many classes there are.
    """

    def forward(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of logits (N, classes) and targets of the same shape, of which those above 0.5 are positives."""
        x, positive = in_float32(x), target > 0.5
        signed = torch.stack([x.masked_fill(positive, -torch.inf), (-x).masked_fill(~positive, -torch.inf)])
        return F.pad(signed, (0, 1)).logsumexp(-1).sum(0).mean()  # the logit that is added is the 1


class TwoWayLoss(nn.Module):
    """The least positive logit against the greatest negative one, softly: over classes, and over images (Kobayashi,
    CVPR 2023). Images and classes without a positive do not count.

    Args:
        tp: Temperature of the positives.
        tn: Temperature of the negatives.

    Raises:
        ConfigError: A temperature is not above 0.
    """

    def __init__(self, tp: float = 4.0, tn: float = 1.0) -> None:
        super().__init__()
        if not (tp > 0 and tn > 0):
            raise ConfigError(f"temperatures are above 0, not {tp} and {tn}")
        self.tp, self.tn = tp, tn

    def forward(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of logits (N, classes) and targets of the same shape, of which those above 0.5 are positives."""
        x, positive = in_float32(x), target > 0.5
        positives = (-x / self.tp).masked_fill(~positive, -1e4)  # as good as -inf, with a gradient where all are
        negatives = (x / self.tn).masked_fill(positive, -1e4)
        loss = x.new_zeros(())
        for dim in (0, 1):
            margins = F.softplus(negatives.logsumexp(dim) * self.tn + positives.logsumexp(dim) * self.tp)
            counts = positive.any(dim)
            loss = loss + margins[counts].sum() / counts.sum().clamp(min=1)
        return loss


class DistributionBalancedLoss(nn.Module):
    """Binary cross-entropy for classes of very different frequency (Wu et al., ECCV 2020, arXiv 2007.09654).

    A class of an image is weighted by map_alpha + sigmoid(map_beta * (ratio - map_mu)), ratio being its own sampling
    probability over that of the image, which other labels sample too. Logits are shifted by the class's prior, and
    those of negatives are scaled, so that rare classes are not pushed down without end. A focal weight comes last.

    Args:
        class_counts: Positives of each class among the training images, (classes,).
        num_samples: Number of those images.
        map_alpha, map_beta, map_mu: Of the weight above.
        neg_scale: Scale of negatives' logits.
        init_bias: Share of the prior's logit by which logits are shifted.
        focal_gamma: Exponent of the focal weight; 0 for none.
        focal_balance: Factor that goes with it.
        smoothing: Label smoothing, towards 0.5.
        reduction: "mean", "batchmean" (sum over classes, mean over images), "sum" or "none".

    Raises:
        ConfigError: Counts and images do not agree, or an argument is out of its range.
    """

    freq_inv: torch.Tensor
    logit_bias: torch.Tensor

    def __init__(
        self, class_counts: torch.Tensor | Sequence[float], num_samples: int, map_alpha: float = 0.1,
        map_beta: float = 10.0, map_mu: float = 0.2, neg_scale: float = 2.0, init_bias: float = 0.05,
        focal_gamma: float = 2.0, focal_balance: float = 2.0, smoothing: float = 0.0, reduction: str = "mean",
    ) -> None:
        super().__init__()
        counts = torch.as_tensor(class_counts, dtype=torch.float32)
        if counts.ndim != 1 or not len(counts):
            raise ConfigError(f"counts are one number a class, not of the shape {tuple(counts.shape)}")
        if num_samples < 2 or counts.min() < 0 or counts.max() > num_samples:
            raise ConfigError(f"counts are from 0 to the number of images, 2 or more; not {counts.min():g} to "
                              f"{counts.max():g} of {num_samples}")
        if not neg_scale > 0:
            raise ConfigError(f"the scale of negatives is above 0, not {neg_scale}")
        self.map_alpha, self.map_beta, self.map_mu = map_alpha, map_beta, map_mu
        self.neg_scale = neg_scale
        self.focal_gamma, self.focal_balance = focal_gamma, focal_balance
        self.smoothing = check_smoothing(smoothing)
        self.reduction = check_reduction(reduction, batchmean=True)
        counts = counts.clamp(1, num_samples - 1)  # never and always would be infinite
        self.register_buffer("freq_inv", 1 / counts)
        self.register_buffer("logit_bias", -(num_samples / counts - 1).log() * init_bias / neg_scale)

    def forward(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of logits (N, classes) and targets in [0, 1] of the same shape."""
        logits = in_float32(x) + self.logit_bias
        target = target.to(logits.dtype)
        of_image = (target * self.freq_inv).sum(-1, keepdim=True)
        ratio = self.freq_inv / of_image.clamp(min=torch.finfo(logits.dtype).tiny)
        class_weight = self.map_alpha + (self.map_beta * (ratio - self.map_mu)).sigmoid()
        target = target * (1 - self.smoothing) + self.smoothing / 2
        positive = self._term(-logits)
        negative = self._term(logits * self.neg_scale) / self.neg_scale
        return reduce(class_weight * (target * positive + (1 - target) * negative), self.reduction)

    def _term(self, wrong: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of a class, from the logit of the wrong answer."""
        loss = F.softplus(wrong)
        return loss * wrong.sigmoid() ** self.focal_gamma * self.focal_balance if self.focal_gamma > 0 else loss
