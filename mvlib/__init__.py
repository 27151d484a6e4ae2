"""mvlib: image models by name.

    import mvlib
    mvlib.list_models("*resne*t*")
    model = mvlib.create_model("resnet50.imagenet1k_v2")
    transform = mvlib.create_transform(**mvlib.resolve_data_config(model=model))

Names are resolved on first use, so that importing mvlib, listing and looking weights up import no torch.
"""

from __future__ import annotations

from .lazy import attach

__version__ = "0.1.0"

_NAMES = {
    "registry": (
        "get_arch_name", "get_arch_pretrained_cfgs", "get_deprecated_models", "get_pretrained_cfg",
        "get_pretrained_cfg_value", "is_model", "is_model_in_modules", "is_model_pretrained", "list_models",
        "list_modules", "list_pretrained", "model_entrypoint", "register_catalog", "register_model",
        "register_model_deprecations", "split_model_name_tag",
    ),
    "names": ("parse_model_name",),
    "errors": (
        "BadImageError", "CheckpointError", "ChecksumError", "ConfigError", "DataError", "DownloadError",
        "ExportError", "MissingPackageError", "MvlibError", "NoAnswerError", "NotCachedError", "UnknownNameError",
        "WeightsError",
    ),
    "weights": ("WeightsConfig",),
    "query": ("search",),
    "builders": ("get_model", "get_model_builder", "get_model_weights"),
    "enums": ("Weights", "WeightsEnum", "get_weight"),
    "factory": ("create_model",),
    "loading": ("load_checkpoint", "read_state_dict"),
    "publish": ("push_to_hub", "save_for_hub"),
    "benchmark": ("benchmark_models",),
    "compare": ("compare_models",),
    "optimization": ("optimize",),
    "engines.exporter": ("ExportReport", "export"),
    "features": ("FeatureExtractor",),
    "models.base": ("ImageModel",),
    "data": ("create_dataset", "create_loader", "create_transform", "resolve_data_config", "resolve_model_data_config"),
    "optim": ("create_optimizer_v2", "list_optimizers"),
    "scheduler": ("create_scheduler_v2",),
}
_SUBMODULES = ("catalog", "hub", "inference", "layers", "loss", "timm", "train")  # beyond those that _NAMES names

__getattr__, __dir__, __all__ = attach(__name__, _NAMES, _SUBMODULES)
__all__ += ["__version__"]
