"""Training: a loop that can be read, stopped and resumed. Names are resolved on first use."""

from __future__ import annotations

import importlib
from typing import Any

_NAMES = {
    "engine": ("StepOptions", "TrainState", "train_one_epoch", "validate"),
    "ema": ("ModelEma",),
    "checkpoint": ("CheckpointStore", "find_checkpoints", "newest_checkpoint", "read_checkpoint", "write_checkpoint"),
    "batchnorm": ("SplitBatchNorm2d", "convert_splitbn_model", "convert_sync_batchnorm", "distribute_bn"),
    "recipes": ("Recipe", "parse_train_arguments", "read_recipe"),
    "model": ("prepare_model",),
    "run": ("train",),
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
