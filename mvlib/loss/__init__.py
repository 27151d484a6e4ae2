"""Training losses. Names are resolved on first use."""

from __future__ import annotations

from ..lazy import attach

_NAMES = {
    "cross_entropy": ("JsdCrossEntropy", "LabelSmoothingCrossEntropy", "SoftTargetCrossEntropy"),
    "binary": ("BinaryCrossEntropy",),
    "asymmetric": ("AsymmetricLossMultiLabel", "AsymmetricLossSingleLabel"),
    "distillation": ("DistillationLoss",),
    "poly": ("PolyBinaryCrossEntropy", "PolyCrossEntropy"),
    "multi_label": ("DistributionBalancedLoss", "TwoWayLoss", "ZlprLoss"),
    "class_weights": (
        "CLASS_WEIGHT_METHODS", "CLASS_WEIGHT_METHOD_KINDS", "compute_class_weights", "load_class_stats",
        "load_class_weights", "resolve_class_weights",
    ),
    "factory": ("LOSS_TYPES", "MULTI_LABEL_LOSS_TYPES", "create_classification_loss", "create_loss"),
}

__getattr__, __dir__, __all__ = attach(__name__, _NAMES)
