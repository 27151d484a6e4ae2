"""Training losses. Names are resolved on first use."""

from __future__ import annotations

from ..lazy import attach

_NAMES = {
    "cross_entropy": ("JsdCrossEntropy", "LabelSmoothingCrossEntropy", "SoftTargetCrossEntropy"),
    "binary": ("BinaryCrossEntropy",),
    "asymmetric": ("AsymmetricLossMultiLabel", "AsymmetricLossSingleLabel"),
    "distillation": ("DistillationLoss",),
    "factory": ("create_loss",),
}

__getattr__, __dir__, __all__ = attach(__name__, _NAMES)
