"""Learning rate schedules. Names are resolved on first use: a schedule is arithmetic and imports no torch."""

from __future__ import annotations

from ..lazy import attach

_NAMES = {
    "schedules": ("Cosine", "Exponential", "MultiStep", "Poly", "Schedule", "Step", "Tanh", "WarmupStableDecay"),
    "factory": (
        "create_schedule", "create_scheduler", "create_scheduler_v2", "list_schedulers", "scale_learning_rate",
        "scheduler_kwargs",
    ),
    "scheduler": (
        "CosineLRScheduler", "ExponentialLRScheduler", "MultiStepLRScheduler", "PlateauLRScheduler", "PolyLRScheduler",
        "Scheduler", "StepLRScheduler", "TanhLRScheduler", "WSDLRScheduler",
    ),
}

__getattr__, __dir__, __all__ = attach(__name__, _NAMES)
