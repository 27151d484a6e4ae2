"""From image files to what a model reads. Names are resolved on first use: reading a config imports no torch."""

from __future__ import annotations

import importlib
from typing import Any

_NAMES = {
    "config": ("resolve_data_config", "resolve_model_data_config"),
    "transforms": ("create_transform",),
    "images": ("find_images", "open_image"),
    "labels": ("class_names",),
    "constants": (
        "DEFAULT_CROP_MODE", "DEFAULT_CROP_PCT", "IMAGENET_DEFAULT_MEAN", "IMAGENET_DEFAULT_STD", "IMAGENET_DPN_MEAN",
        "IMAGENET_DPN_STD", "IMAGENET_INCEPTION_MEAN", "IMAGENET_INCEPTION_STD", "OPENAI_CLIP_MEAN", "OPENAI_CLIP_STD",
    ),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_NAMES})
