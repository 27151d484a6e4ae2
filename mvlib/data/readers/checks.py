"""Whether data sets fit each other, and a model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import ConfigError, DataError

__all__ = ["Relabel", "check_labels", "check_same_classes", "match_classes"]

_SYNSET = re.compile(r"n\d{8}")


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


def match_classes(
    classes: Sequence[str] | None, names: Sequence[Sequence[str]], label_set: str | None = None
) -> list[int] | None:
    """The output of a model that each label of a data set stands for, by their names.

    Names are the same if they differ in case, spaces and underscores alone. Numbers 0, 1, ... name the outputs. Of a
    public label set, names vary from one list to the next: half of them at their places will do, and so will sorted
    WordNet numbers (n01440764), the order in which all of ImageNet's sets are numbered.

    Args:
        classes: The data set's, by label; None where it names none.
        names: What the outputs are called; several lists where each has several names; none where that is not known.
        label_set: The public label set that the names are of, if they are not somebody's own.

    Returns:
        An output for each label, or None where the numbers are the same, or nothing can be compared.

    Raises:
        ConfigError: The classes are others; the message lists those of both.
    """
    if not classes or not names:
        return None
    for reading in (str, _plain):
        theirs = [reading(name) for name in classes]
        for ours in ([reading(name) for name in known] for known in names):
            if ours == theirs:
                return None
            if len(set(ours)) == len(ours) == len(theirs) and set(ours) == set(theirs):
                return [ours.index(name) for name in theirs]
    ours = [_plain(name) for name in names[0]]
    if len(ours) == len(theirs) and _are_numbered(theirs, ours, label_set):
        return None
    only = [("the model", [name for name, plain in zip(names[0], ours) if plain not in set(theirs)]),
            ("the data set", [name for name, plain in zip(classes, theirs) if plain not in set(ours)])]
    raise ConfigError("the model's classes are not the data set's: " +
                      ("; ".join(f"only {where} has {_listed(found)}" for where, found in only if found) or
                       "the same names stand for several of them"))


def _plain(name: Any) -> str:
    return " ".join(str(name).casefold().replace("_", " ").split())


def _are_numbered(theirs: Sequence[str], ours: Sequence[str], label_set: str | None) -> bool:
    if list(theirs) == [str(number) for number in range(len(theirs))]:
        return True
    if label_set is None:
        return False
    if all(map(_SYNSET.fullmatch, theirs)):
        return list(theirs) == sorted(theirs)
    firsts = zip((name.partition(",")[0] for name in theirs), (name.partition(",")[0] for name in ours))
    return 2 * sum(one == other for one, other in firsts) >= len(theirs)


class Relabel:
    """A data set's `target_transform` that puts a model's numbers in the place of the data set's own.

    Args:
        order: For each label of the data set, the model's output; see `match_classes`.
    """

    def __init__(self, order: Sequence[int]) -> None:
        self.order = list(order)

    def __call__(self, target: Any) -> Any:
        if isinstance(target, (list, tuple, np.ndarray)):
            return [self(item) for item in target]
        return self.order[target] if target >= 0 else target


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
