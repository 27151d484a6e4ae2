"""Which loss a set of training flags means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..errors import ConfigError
from ..names import closest
from .asymmetric import AsymmetricLossMultiLabel, AsymmetricLossSingleLabel
from .binary import BinaryCrossEntropy, as_buffer
from .cross_entropy import JsdCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy, check_smoothing
from .multi_label import DistributionBalancedLoss, TwoWayLoss, ZlprLoss
from .poly import PolyBinaryCrossEntropy, PolyCrossEntropy

__all__ = ["LOSS_TYPES", "MULTI_LABEL_LOSS_TYPES", "create_classification_loss", "create_loss"]

LOSS_TYPES = ("ce", "bce", "asl", "poly", "jsd", "twoway", "zlpr", "db")
MULTI_LABEL_LOSS_TYPES = ("bce", "asl", "poly", "twoway", "zlpr", "db")

Weight = torch.Tensor | float | Sequence[float]


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
    return create_classification_loss(
        "jsd" if jsd else "bce" if bce_loss else "ce", smoothing=smoothing, soft_targets=mixup_active,
        pos_weight=bce_pos_weight, bce_target_thresh=bce_target_thresh, bce_sum=bce_sum, jsd_splits=num_splits)


def create_classification_loss(
    loss_type: str | None = None,
    multi_label: bool = False,
    smoothing: float = 0.0,
    soft_targets: bool = False,
    class_weight: Weight | None = None,
    pos_weight: Weight | None = None,
    bce_target_thresh: float | None = None,
    bce_sum: bool = False,
    asl_gamma_pos: float = 1.0,
    asl_gamma_neg: float = 4.0,
    asl_clip: float | None = 0.05,
    asl_reduction: str = "batchmean",
    poly_epsilon: float = 2.0,
    poly_gamma: float = 0.0,
    poly_alpha: float | None = None,
    jsd_splits: int = 0,
    twoway_tp: float = 4.0,
    twoway_tn: float = 1.0,
    class_counts: torch.Tensor | Sequence[float] | None = None,
    num_samples: int | None = None,
    db_neg_scale: float = 2.0,
    db_init_bias: float = 0.05,
    db_focal_gamma: float = 2.0,
) -> nn.Module:
    """A training loss by name.

    Args:
        loss_type: "ce" (cross-entropy), "bce" (binary), "asl" (asymmetric), "poly", "jsd" (between augmentation
            splits), "twoway", "zlpr", "db" (distribution-balanced); None for "bce" with several labels, else "ce".
        multi_label: Targets are labels of their own, (N, classes); for `MULTI_LABEL_LOSS_TYPES`.
        smoothing: Label smoothing; mixed targets are smoothed already.
        soft_targets: Targets come mixed, as distributions.
        class_weight, pos_weight: Weights of classes and of their positives, of "bce" and "asl" for several labels.
        bce_target_thresh, bce_sum: `target_threshold` and `sum_classes` of `BinaryCrossEntropy`.
        asl_gamma_pos, asl_gamma_neg, asl_clip, asl_reduction: Arguments of the asymmetric losses; one label has
            neither a clip nor a choice of reduction.
        poly_epsilon, poly_gamma, poly_alpha: Arguments of the poly losses; one label has the first alone.
        jsd_splits: Augmentation splits of a batch.
        twoway_tp, twoway_tn: Temperatures of `TwoWayLoss`.
        class_counts, num_samples, db_neg_scale, db_init_bias, db_focal_gamma: Arguments of `DistributionBalancedLoss`.

    Raises:
        ConfigError: Arguments contradict each other or are out of their range.
    """
    kind = loss_type or ("bce" if multi_label else "ce")
    if kind not in LOSS_TYPES:
        raise ConfigError(f"unknown loss '{kind}'{closest(kind, LOSS_TYPES)}; known: {', '.join(LOSS_TYPES)}")
    if multi_label and kind not in MULTI_LABEL_LOSS_TYPES:
        raise ConfigError(f"loss '{kind}' is for one label an image; for several: {', '.join(MULTI_LABEL_LOSS_TYPES)}")
    if not multi_label and kind in ("twoway", "zlpr", "db"):
        raise ConfigError(f"loss '{kind}' is for several labels an image")
    weighted = kind == "bce" or kind == "asl" and multi_label
    single_asl, single_poly = kind == "asl" and not multi_label, kind == "poly" and not multi_label
    for refused, message in (
        (not weighted and not (class_weight is None and pos_weight is None),
         "weights of classes and positives go with bce, and with asl for several labels"),
        (kind != "bce" and (bce_target_thresh is not None or bce_sum), "a target threshold and a sum go with bce"),
        (kind != "db" and not (class_counts is None and num_samples is None), "counts of classes go with db"),
        (kind == "db" and (class_counts is None or num_samples is None), "db needs class_counts and num_samples"),
        (kind == "jsd" and jsd_splits < 2, "jsd needs jsd_splits of 2 or more"),
        (kind in ("twoway", "zlpr") and (soft_targets or smoothing), "it needs targets neither mixed nor smoothed"),
        (single_asl and soft_targets, "asl for one label needs targets that are not mixed"),
        (single_asl and asl_reduction != "batchmean", "asl for one label has no other reduction than 'batchmean'"),
        (single_poly and (poly_gamma or poly_alpha is not None), "poly_gamma and poly_alpha are for several labels"),
    ):
        if refused:
            raise ConfigError(f"loss '{kind}': {message}")
    left = 0.0 if soft_targets else smoothing  # what mixing has not smoothed
    weights: dict[str, Any] = {"weight": as_buffer(class_weight), "pos_weight": as_buffer(pos_weight)}
    if kind == "ce":
        if soft_targets:
            return SoftTargetCrossEntropy()
        return LabelSmoothingCrossEntropy(smoothing) if smoothing else nn.CrossEntropyLoss()
    if kind == "bce":
        return BinaryCrossEntropy(left, bce_target_thresh, sum_classes=bce_sum, smooth_dense=multi_label, **weights)
    if kind == "asl" and multi_label:
        return AsymmetricLossMultiLabel(
            asl_gamma_neg, asl_gamma_pos, asl_clip, smoothing=left, reduction=asl_reduction, **weights)
    if kind == "asl":
        return AsymmetricLossSingleLabel(asl_gamma_pos, asl_gamma_neg, eps=smoothing)
    if kind == "poly" and multi_label:
        return PolyBinaryCrossEntropy(poly_epsilon, poly_gamma, poly_alpha, left)
    if kind == "poly":
        return PolyCrossEntropy(poly_epsilon, left)
    if kind == "jsd":
        return JsdCrossEntropy(jsd_splits, smoothing=smoothing)
    if kind == "twoway":
        return TwoWayLoss(twoway_tp, twoway_tn)
    if kind == "zlpr":
        return ZlprLoss()
    assert class_counts is not None and num_samples is not None  # checked above
    return DistributionBalancedLoss(
        class_counts, num_samples, neg_scale=db_neg_scale, init_bias=db_init_bias, focal_gamma=db_focal_gamma,
        smoothing=left)
