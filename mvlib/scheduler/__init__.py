"""Learning rate schedules. Names are resolved on first use: a schedule is arithmetic and imports no torch."""

from __future__ import annotations

import importlib
from typing import Any

_NAMES = {
    "schedules": ("Cosine", "Exponential", "MultiStep", "Poly", "Schedule", "Step", "Tanh", "WarmupStableDecay"),
    "factory": (
        "create_schedule", "create_scheduler", "create_scheduler_v2", "list_schedulers", "scale_learning_rate",
        "scheduler_kwargs",
    ),
    "scheduler": (
        "CosineLRScheduler", "MultiStepLRScheduler", "PlateauLRScheduler", "PolyLRScheduler", "Scheduler",
        "StepLRScheduler", "TanhLRScheduler", "WSDLRScheduler",
    ),
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
