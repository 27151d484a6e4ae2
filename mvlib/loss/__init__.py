"""Training losses. Names are resolved on first use."""

from __future__ import annotations

import importlib
from typing import Any

_NAMES = {
    "cross_entropy": ("JsdCrossEntropy", "LabelSmoothingCrossEntropy", "SoftTargetCrossEntropy"),
    "binary": ("BinaryCrossEntropy",),
    "asymmetric": ("AsymmetricLossMultiLabel", "AsymmetricLossSingleLabel"),
    "distillation": ("DistillationLoss",),
    "factory": ("create_loss",),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        if name in _NAMES:
            return importlib.import_module(f"{__name__}.{name}")
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_NAMES})
