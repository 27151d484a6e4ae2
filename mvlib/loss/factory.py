"""Which loss a set of training flags means."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ..errors import ConfigError
from .binary import BinaryCrossEntropy
from .cross_entropy import JsdCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy, check_smoothing

__all__ = ["create_loss"]


def create_loss(
    jsd: bool = False,
    mixup_active: bool = False,
    smoothing: float = 0.1,
    bce_loss: bool = False,
    bce_target_thresh: float | None = None,
    bce_sum: bool = False,
    bce_pos_weight: float | Sequence[float] | None = None,
    num_splits: int = 0,
) -> nn.Module:
    """The training loss that timm's training script would take.

    Args:
        jsd: Jensen-Shannon divergence between augmentation splits.
        mixup_active: Targets come mixed, as distributions that are smoothed already.
        smoothing: Label smoothing.
        bce_loss: Binary cross-entropy; without smoothing and mixup too, where old releases of timm forgot it.
        bce_target_thresh: Its targets above this count as 1.
        bce_sum: It is summed over the classes.
        bce_pos_weight: Its weight of positive targets.
        num_splits: Augmentation splits of a batch.

    Raises:
        ConfigError: Flags contradict each other or are out of their range.
    """
    check_smoothing(smoothing)
    if jsd and num_splits < 2:
        raise ConfigError("--jsd-loss compares augmentation splits and needs --aug-splits 2 or more")
    if jsd and mixup_active:
        raise ConfigError("--jsd-loss needs labels that are not mixed: leave --mixup and --cutmix out")
    if jsd and bce_loss:
        raise ConfigError("--jsd-loss and --bce-loss contradict each other")
    if not bce_loss and (bce_target_thresh is not None or bce_sum or bce_pos_weight is not None):
        raise ConfigError("--bce-target-thresh, --bce-sum and --bce-pos-weight need --bce-loss")
    if jsd:
        return JsdCrossEntropy(num_splits=num_splits, smoothing=smoothing)
    if bce_loss:
        return BinaryCrossEntropy(
            smoothing=0.0 if mixup_active else smoothing, target_threshold=bce_target_thresh, sum_classes=bce_sum,
            pos_weight=bce_pos_weight)
    if mixup_active:
        return SoftTargetCrossEntropy()
    return LabelSmoothingCrossEntropy(smoothing) if smoothing else nn.CrossEntropyLoss()
