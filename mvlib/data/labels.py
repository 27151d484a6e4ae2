"""What a classifier's outputs are called."""

from __future__ import annotations

__all__ = ["class_names"]


def _imagenet_1k() -> list[str]:
    from torchvision.models._meta import _IMAGENET_CATEGORIES  # late, because it imports torch

    return list(_IMAGENET_CATEGORIES)


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
    return _LABEL_SETS[label_set]()
