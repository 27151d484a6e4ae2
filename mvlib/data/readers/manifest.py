"""Images that a table lists, with their labels."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from typing import Any

from ...errors import ConfigError, DataError
from ...names import closest_path
from .base import Names, Reader, require_package
from .class_map import ClassMap, drop_unmapped, index_labels, load_class_map
from .fields import IMAGE_FIELDS, LABEL_FIELDS, find_field
from .splits import find_split, synonyms

__all__ = ["ManifestReader", "read_table"]

_SUFFIXES = (".csv", ".tsv", ".parquet")


class ManifestReader(Reader):
    """Images of a .csv, .tsv or .parquet file with a column of paths and one of labels, in the file's order.

    Columns are found by name: path, file, filename or image; label, class or target. A column `split`, if there is
    one, says which rows are of the split. Paths are relative to the file's folder. Labels are numbers, or names of
    classes, which are numbered in natural order, over all splits.

    Args:
        path: The file, or a folder with one for the split ("train.csv").
        split: Of the rows.
        class_map: See `load_class_map`; rows of other classes are left out.
        input_key, target_key: Other names of the two columns.

    Raises:
        ConfigError: A column is not there, or no row is of the split.
        DataError: There are no rows, or one has no path or no label.
        MissingPackageError: Parquet without pyarrow.
    """

    def __init__(self, path: str | os.PathLike[str], split: str = "train", class_map: ClassMap | None = None,
                 input_key: str | None = None, target_key: str | None = None) -> None:
        path = self.name = _find(os.fspath(path), split)
        self.root = os.path.dirname(path)
        columns = read_table(path)
        paths = columns[find_field(input_key, IMAGE_FIELDS, columns, "path", path)]
        values = columns[find_field(target_key, LABEL_FIELDS, columns, "label", path)]
        if not paths:
            raise DataError(f"{path} has no rows")
        for number, (file, value) in enumerate(zip(paths, values), 1):
            if not file or value is None or value == "":
                raise DataError(f"{path}: row {number} has no {'label' if file else 'path'}"
                                f"{f' ({file})' if file else ''}")
        labels, self.class_to_idx = index_labels(values, load_class_map(class_map, self.root))
        rows = _rows_of(path, columns, split)
        kept = [rows[i] for i in drop_unmapped(path, labels[rows])]
        self._paths = Names(paths[i] for i in kept)
        self._targets = labels[kept]

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[str, int]:
        return os.path.join(self.root, self._paths[index]), int(self._targets[index])

    def targets(self) -> Sequence[int]:
        return self._targets

    def _path(self, index: int) -> str:
        return self._paths[index]


def _find(path: str, split: str) -> str:
    if not os.path.isdir(path):
        if not path.lower().endswith(_SUFFIXES):
            raise ConfigError(f"{path}: a manifest ends in {', '.join(_SUFFIXES)}")
        if not os.path.isfile(path):
            raise DataError(f"{path} does not exist{closest_path(path)}")
        return path
    names = [name + suffix for name in synonyms(split) for suffix in _SUFFIXES]
    found = next((name for name in names if os.path.isfile(os.path.join(path, name))), None)
    if found is None:
        raise DataError(f"{path} has no manifest of the split '{split}': none of {', '.join(names)}")
    return os.path.join(path, found)


def read_table(path: str) -> dict[str, list[Any]]:
    """The columns of a .csv, .tsv or .parquet file by name.

    Raises:
        DataError: It cannot be read.
        MissingPackageError: Parquet without pyarrow.
    """
    if path.lower().endswith(".parquet"):
        parquet = require_package("pyarrow.parquet", os.path.basename(path), "pyarrow")
        try:
            return parquet.read_table(path).to_pydict()
        except (OSError, ValueError) as error:  # pyarrow's errors are either
            raise DataError(f"{path} cannot be read: {error}") from error
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            head = stream.readline()
            stream.seek(0)
            delimiter = "\t" if path.lower().endswith(".tsv") else max(",;\t", key=head.count)
            table = csv.DictReader(stream, delimiter=delimiter)
            columns: dict[str, list[Any]] = {name: [] for name in table.fieldnames or ()}
            for row in table:
                for name, column in columns.items():
                    column.append((row[name] or "").strip())
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    return columns


def _rows_of(path: str, columns: dict[str, list[Any]], split: str) -> list[int]:
    """Numbers of the rows of a split; of all rows where there is no column of that name."""
    column = next((name for name in columns if name.strip().lower() == "split"), None)
    if column is None:
        return list(range(len(next(iter(columns.values())))))
    known = sorted({str(value) for value in columns[column]})
    wanted = find_split(split, known)
    if wanted is None:
        raise ConfigError(f"{path} has no rows of the split '{split}'; its splits are {', '.join(known)}")
    return [number for number, value in enumerate(columns[column]) if str(value) == wanted]
