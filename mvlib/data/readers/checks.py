"""Whether data sets fit each other, and a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import DataError

__all__ = ["check_labels", "check_same_classes"]


def check_same_classes(train: Any, validation: Any) -> None:
    """Check that two data sets give the same label to the same class. Those without class names are not compared.

    Raises:
        DataError: They do not; names the classes that one of them lacks.
    """
    ours, theirs = train.classes, validation.classes
    if ours is None or theirs is None or list(ours) == list(theirs):
        return
    problems = [f"{_listed(found)} only in {where}" for found, where in (
        ([name for name in ours if name not in set(theirs)], f"training ({train.name})"),
        ([name for name in theirs if name not in set(ours)], f"validation ({validation.name})")) if found]
    if not problems:
        shared = min(len(ours), len(theirs))
        label = next((i for i in range(shared) if ours[i] != theirs[i]), shared)
        problems = [f"label {label} is {_name(ours, label)} in training and {_name(theirs, label)} in validation"]
    raise DataError(f"training has {len(ours)} classes and validation {len(theirs)}, and they differ: "
                    f"{'; '.join(problems)}. A class map gives both the same labels")


def check_labels(dataset: Any, num_classes: int) -> None:
    """Check that all labels are in 0 .. num_classes - 1, where they can be had without reading images.

    Lists of labels (several a sample) are checked one by one.

    Raises:
        DataError: One is not; names the first such sample.
    """
    targets = dataset.targets()
    if targets is None:
        return
    if isinstance(targets, np.ndarray) and targets.ndim == 1:
        wrong = np.flatnonzero((targets < 0) | (targets >= num_classes))
        first = int(wrong[0]) if len(wrong) else None
    else:
        first = next((i for i, target in enumerate(targets) if not _fits(target, num_classes)), None)
    if first is None:
        return
    target = targets[first]
    name = dataset.filename(first)
    if target is None or (np.ndim(target) == 0 and target == -1):
        raise DataError(f"{dataset.name}: sample {name} has no label")
    classes = dataset.classes
    known = f" (the data set has {len(classes)} classes)" if classes is not None else ""
    raise DataError(f"{dataset.name}: sample {name} has label {target}, which is not in 0 .. {num_classes - 1}, the "
                    f"labels of num_classes={num_classes}{known}")


def _fits(target: Any, num_classes: int) -> bool:
    values = target if isinstance(target, (list, tuple, np.ndarray)) else [target]
    return all(value is not None and 0 <= value < num_classes for value in values)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(f"'{name}'" for name in names[:5]) + more


def _name(names: Sequence[str], index: int) -> str:
    return f"'{names[index]}'" if index < len(names) else "missing"
