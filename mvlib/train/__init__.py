"""Training: a loop that can be read, stopped and resumed. Names are resolved on first use."""

from __future__ import annotations

from ..lazy import attach

_NAMES = {
    "engine": ("StepOptions", "TrainState", "train_one_epoch", "validate"),
    "ema": ("ModelEma",),
    "checkpoint": ("CheckpointStore", "find_checkpoints", "newest_checkpoint", "read_checkpoint", "write_checkpoint"),
    "batchnorm": ("SplitBatchNorm2d", "convert_splitbn_model", "convert_sync_batchnorm", "distribute_bn"),
    "recipes": ("Recipe", "parse_train_arguments", "read_recipe"),
    "model": ("prepare_model",),
    "run": ("train",),
}

__getattr__, __dir__, __all__ = attach(__name__, _NAMES)
