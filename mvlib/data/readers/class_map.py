"""Which label a class name stands for."""

from __future__ import annotations

import csv
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import ConfigError, DataError
from ...names import natural_key

__all__ = [
    "NO_LABEL", "UNMAPPED", "ClassMap", "Labelled", "drop_unmapped", "index_classes", "index_labels", "is_number",
    "label_by_folder", "load_class_map", "map_label",
]

NO_LABEL = -1  # of a sample without a class
UNMAPPED = -2  # label of a class that a class map does not have

_logger = logging.getLogger("mvlib")

ClassMap = Mapping[str, int] | str | os.PathLike[str]

_FORMATS = (".txt", ".json", ".yaml", ".yml", ".csv")


def load_class_map(map_or_filename: ClassMap | None, root: str | os.PathLike[str] = "") -> dict[Any, int] | None:
    """Labels of class names, from a dict or a file.

    A .txt file has a class a line, in the order of the labels; .json and .yaml have a list of names or a mapping from
    name to label; .csv has a name and a label a line, with or without a head line.

    Args:
        map_or_filename: The dict, or the file's path, which is also looked for in the folder `root`. None and "" give
            None.

    Raises:
        ConfigError: The file is not there, is empty, names a class twice, or has another format.
    """
    if map_or_filename is None or map_or_filename == "":
        return None
    if isinstance(map_or_filename, Mapping):
        return _checked(dict(map_or_filename), "the dict")
    path = Path(map_or_filename)
    if not path.is_file():
        path = Path(root) / map_or_filename
    suffix = path.suffix.lower()
    if suffix in (".pkl", ".pickle"):
        raise ConfigError(f"class map {map_or_filename}: a pickle can run code when it is read; write the same as "
                          "a .json file, {name: label}")
    if suffix not in _FORMATS:
        raise ConfigError(f"class map {map_or_filename}: format {suffix or 'without extension'} is none of "
                          f"{', '.join(_FORMATS)}")
    if not path.is_file():
        raise ConfigError(f"class map {map_or_filename} is not a file, here or in {root or 'the current folder'}")
    try:
        return _checked(_read(path, suffix), str(path))
    except ConfigError:
        raise
    except (ValueError, OSError) as error:  # json's, csv's and unicode's errors are ValueErrors
        raise ConfigError(f"class map {path} cannot be read: {error}") from error


def _read(path: Path, suffix: str) -> Mapping[Any, int] | Sequence[Any]:
    text = path.read_text(encoding="utf-8-sig")
    if suffix == ".txt":
        return [line.strip() for line in text.rstrip().splitlines()]
    if suffix == ".json":
        return json.loads(text)
    if suffix == ".csv":
        return _from_rows([row for row in csv.reader(text.splitlines()) if row])
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def _from_rows(rows: list[list[str]]) -> Mapping[str, int] | list[str]:
    if all(len(row) == 1 for row in rows):
        return [row[0].strip() for row in rows]
    if rows and not is_number(rows[0][1].strip()):
        rows = rows[1:]
    names = [row[0].strip() for row in rows]
    _no_name_twice(names)
    return {name: int(row[1]) for name, row in zip(names, rows)}


def _no_name_twice(names: Sequence[Any]) -> None:
    seen: set[Any] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"class '{name}' is named twice")
        seen.add(name)


def _checked(found: Any, where: str) -> dict[Any, int]:
    if isinstance(found, list):
        names = [str(name) for name in found]
        try:
            _no_name_twice(names)
        except ValueError as error:
            raise ConfigError(f"class map {where}: {error}") from error
        found = {name: index for index, name in enumerate(names)}
    if not isinstance(found, dict):
        raise ConfigError(f"class map {where} is neither a list of names nor a mapping from name to label")
    if not found:
        raise ConfigError(f"class map {where} is empty")
    for name, index in found.items():
        if isinstance(index, bool) or not isinstance(index, (int, np.integer)) or index < 0:
            raise ConfigError(f"class map {where}: the label of '{name}' is {index!r}, not a number from 0 on")
    return {name: int(index) for name, index in found.items()}


def index_classes(names: Iterable[str]) -> dict[str, int]:
    """Labels of classes in natural order, as timm gives them; where that leaves a tie, by code point."""
    return {name: index for index, name in enumerate(sorted(set(names), key=lambda name: (natural_key(name), name)))}


def index_labels(
    values: Sequence[Any], class_to_idx: Mapping[Any, int] | None
) -> tuple[np.ndarray, dict[str, int] | None]:
    """Labels from what a file says: class names, or numbers.

    Args:
        values: Of each sample, as text or int.
        class_to_idx: A class map; a sample of a class that it lacks gets UNMAPPED.

    Returns:
        (labels, class_to_idx): the latter None if the values are numbers.

    Raises:
        DataError: A number is below -1, which is that of samples without a class.
    """
    distinct = dict.fromkeys(values)
    numbers = all(is_number(value) for value in distinct)
    if class_to_idx is not None:
        lookup = {value: map_label(value, class_to_idx) for value in distinct}
        if numbers and set(lookup.values()) == {UNMAPPED}:  # the map names labels, and does not change them
            lookup = _as_numbers(distinct)
    elif numbers:
        lookup = _as_numbers(distinct)
    else:
        class_to_idx = index_classes(str(value) for value in distinct)
        lookup = {value: class_to_idx[str(value)] for value in distinct}
    return np.array([lookup[value] for value in values], np.int64), None if class_to_idx is None else dict(class_to_idx)


def is_number(value: Any) -> bool:
    """Whether what a file says of a sample is the number of a class, not its name: a whole number, or text
    of the digits 0 to 9 ("+1" and "1_000", which `int` takes, too, are names)."""
    if isinstance(value, str):
        return re.fullmatch("-?[0-9]+", value) is not None
    try:
        return int(value) == float(value)
    except (TypeError, ValueError):
        return False


def _as_numbers(values: Iterable[Any]) -> dict[Any, int]:
    numbers = {value: int(value) for value in values}
    if below := sorted(number for number in numbers.values() if number < NO_LABEL):
        raise DataError(f"label {below[0]} is not the number of a class, which begin at 0, nor -1, for none: a class "
                        f"map can say what it stands for")
    return numbers


def map_label(value: Any, class_to_idx: Mapping[Any, int], source_names: Sequence[str] | None = None) -> int:
    """Label by a class map of a value, or of its name in the source, or of its text; UNMAPPED where it has none."""
    if value in class_to_idx:
        return class_to_idx[value]
    if source_names is not None and isinstance(value, (int, np.integer)) and 0 <= value < len(source_names):
        value = source_names[value]
    return class_to_idx.get(value, class_to_idx.get(str(value), UNMAPPED))


class Labelled(NamedTuple):
    """Which samples have a class, and which.

    Attributes:
        kept: Numbers of the samples, ascending.
        labels: Of those kept, -1 where there are no classes at all.
        class_to_idx: None where there are none.
    """

    kept: np.ndarray
    labels: np.ndarray
    class_to_idx: dict[str, int] | None


def label_by_folder(name: str, paths: Sequence[str], classes: Sequence[str], class_to_idx: dict[str, int] | None,
                    empty: Sequence[str] = (), need_classes: bool = False) -> Labelled:
    """Labels of samples by the names of their folders.

    Args:
        name: Of the data set, for messages; `paths` likewise.
        classes: Of each sample, "" for one that lies in no class folder.
        class_to_idx: A class map, None to number the classes in natural order.
        empty: Classes without samples.
        need_classes: Whether samples may do without.

    Raises:
        DataError: No sample has a class, and one is needed.
    """
    names = set(classes)
    if names == {""}:
        if need_classes or class_to_idx is not None:
            raise DataError(f"{name} has no class folders: its images lie in it directly (first: {paths[0]}), and "
                            f"should lie in {name}/CLASS/{paths[0]}")
        return Labelled(np.arange(len(paths)), np.full(len(paths), NO_LABEL), None)
    if "" in names:
        loose = [path for path, found in zip(paths, classes) if not found]
        _logger.warning("%s: left out %d images that lie in no class folder, such as %s", name, len(loose), loose[0])
        names.remove("")
    if class_to_idx is None:
        class_to_idx = index_classes([*names, *empty])
        if without := [found for found in class_to_idx if found not in names]:
            _logger.warning("%s: no images of %s; labels are numbered as if there were", name, _listed(without))
    else:
        _compare(name, classes, class_to_idx)
    kept = np.array([i for i, found in enumerate(classes) if found in class_to_idx and found], np.int64)
    return Labelled(kept, np.array([class_to_idx[classes[i]] for i in kept], np.int64), class_to_idx)


def _compare(name: str, classes: Sequence[str], class_to_idx: Mapping[str, int]) -> None:
    """Say what a class map and the data have not in common."""
    counts = Counter(found for found in classes if found)
    unknown = [found for found in counts if found not in class_to_idx]
    if len(unknown) == len(counts):
        raise DataError(f"{name}: the class map has none of the classes {_listed(unknown)}; it has "
                        f"{_listed(class_to_idx)}")
    if unknown:
        _logger.warning("%s: left out %d images of %s, which the class map does not have", name,
                        sum(counts[found] for found in unknown), _listed(unknown))
    if without := [found for found in class_to_idx if found not in counts]:
        _logger.warning("%s: no images of %s", name, _listed(without))


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(f"'{name}'" for name in names[:5]) + more


def drop_unmapped(name: str, labels: np.ndarray) -> np.ndarray:
    """Numbers of the samples that the class map knows; a warning counts the others.

    Raises:
        DataError: There is none.
    """
    kept = np.flatnonzero(labels != UNMAPPED)
    if len(labels) and not len(kept):
        raise DataError(f"{name}: the class map has the class of none of {len(labels)} samples")
    if len(kept) < len(labels):
        _logger.warning("%s: left out %d samples of classes that the class map does not have", name,
                        len(labels) - len(kept))
    return kept
