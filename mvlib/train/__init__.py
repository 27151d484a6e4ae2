"""Training: a loop that can be read, stopped and resumed. Names are resolved on first use."""

from __future__ import annotations

from ..lazy import attach

_NAMES = {
    "engine": (
        "NonFiniteLossError", "StepOptions", "StopTraining", "TrainState", "train_one_epoch", "validate",
    ),
    "ema": ("ModelEma",),
    "checkpoint": ("CheckpointStore", "find_checkpoints", "newest_checkpoint", "read_checkpoint", "write_checkpoint"),
    "batchnorm": (
        "SplitBatchNorm2d", "SyncBatchNormAct", "convert_splitbn_model", "convert_sync_batchnorm", "distribute_bn",
    ),
    "messages": ("messages_on_terminal",),
    "distributed": ("World", "broadcast_object", "init_world", "is_parallel", "mean_over_ranks", "sum_over_ranks"),
    "precision": ("autocast_for", "keep_slow_convolutions_in_float32"),
    "arguments": ("Option", "add_options", "find_option", "finish_arguments"),
    "recipes": ("Recipe", "add_train_arguments", "parse_train_arguments", "read_recipe"),
    "model": ("average_model", "build_model", "prepare_model", "wrap_model"),
    "report": ("Report", "draw_curves", "write_text"),
    "run": ("train",),
    "pictures": ("Pictures", "read_pictures"),
    "fine_tuning": ("FineTuned", "finetune"),
    "averaging": (
        "RankedCheckpoint", "average_checkpoints", "choose_checkpoints", "clean_checkpoint", "common_facts",
        "list_checkpoints", "rank_checkpoints", "write_weights",
    ),
    "evaluation": ("evaluate", "expand_models", "fold_batch_norms", "infer", "read_label_lists", "write_results"),
}

__getattr__, __dir__, __all__ = attach(__name__, _NAMES, submodules=("engines",))
