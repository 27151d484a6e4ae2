"""What a classifier's outputs are called. Imports no torch."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any

__all__ = ["class_names", "known_names"]


@functools.cache
def _imagenet_1k() -> tuple[str, ...]:
    """torchvision's names, read from its file of them alone: the package itself would import torch."""
    package = importlib.util.find_spec("torchvision")
    path = Path(package.submodule_search_locations[0], "models", "_meta.py")
    spec = importlib.util.spec_from_file_location("_torchvision_meta", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return tuple(module._IMAGENET_CATEGORIES)


_LABEL_SETS = {"imagenet-1k": _imagenet_1k}


def class_names(label_set: str) -> list[str]:
    """Names of the classes of a label set, in the order of the outputs.

    Args:
        label_set: `WeightsConfig.label_set`; "imagenet-1k" gives torchvision's names of its 1000 classes.

    Raises:
        ValueError: The names of this label set are not shipped; the message lists those that are.
    """
    if label_set not in _LABEL_SETS:
        raise ValueError(f"no class names for label set '{label_set}'; known: {', '.join(_LABEL_SETS)}")
    return list(_LABEL_SETS[label_set]())


def known_names(config: Any, num_classes: int) -> list[str] | None:
    """The names that so many outputs have by a `WeightsConfig`; None where nobody ships them."""
    if config.label_names and len(config.label_names) == num_classes:
        return list(config.label_names)
    if config.label_set in _LABEL_SETS:
        names = class_names(config.label_set)
        return names if len(names) == num_classes else None
    return None
