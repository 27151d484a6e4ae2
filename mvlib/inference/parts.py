"""Files of results that are written batch by batch: JSON lines, Parquet, npy. Imports no torch."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, MissingPackageError
from .writers import Prediction, record

__all__ = ["JsonlPart", "NpyPart", "ParquetPart", "read_jsonl", "read_npy_blocks", "read_parquet_blocks", "read_rows",
           "require_parquet", "whole"]

_BLOCK_BYTES = 64 << 20  # of features in memory when files are joined


def require_parquet() -> Any:
    """The package pyarrow.

    Raises:
        MissingPackageError: It is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingPackageError("Parquet files need the package 'pyarrow': pip install pyarrow (or 'mvlib[train]'); "
                                  "--output NAME.npy does without") from None
    return pyarrow


@contextmanager
def whole(path: Path, advice: str = "remove it, and run the same command again") -> Iterator[None]:
    """Read a file of results; what cannot be read of it makes a DataError with what to do about it."""
    try:
        yield
    except (ValueError, OSError, EOFError, LookupError, TypeError) as error:  # pyarrow's, and json's, are ValueErrors
        reason = " ".join(str(error).split())
        raise DataError(f"{path} is damaged ({reason[:120]}): {advice}") from error


class JsonlPart:
    """Predictions, an object a line."""

    def __init__(self, path: Path) -> None:
        self.stream = open(path, "w", encoding="utf-8")

    def add(self, files: Sequence[str], output: Sequence[Sequence[Prediction]]) -> None:
        self.stream.writelines(json.dumps(record(name, predictions)) + "\n" for name, predictions in zip(files, output))

    def close(self) -> None:
        self.stream.close()


class ParquetPart:
    """Columns `file` and `embedding`, a list of fixed size; the shape of what is in it stands in the schema's metadata.

    Args:
        path: To be written.
        shape: Of the features of one image.
        dtype: "float32" or "float16".
        about: What else the metadata says.
    """

    def __init__(self, path: Path, shape: Sequence[int], dtype: str, about: Mapping[str, Any] | None = None) -> None:
        self.arrow = require_parquet()
        self.dtype = self.arrow.float16() if dtype == "float16" else self.arrow.float32()
        self.width = math.prod(shape)
        metadata = {"mvlib": json.dumps({**(about or {}), "shape": list(shape)})}
        self.schema = self.arrow.schema([("file", self.arrow.string()),
                                         ("embedding", self.arrow.list_(self.dtype, self.width))], metadata)
        self.writer = self.arrow.parquet.ParquetWriter(path, self.schema, compression="zstd", use_dictionary=False)
        self.waiting: list[tuple[list[str], np.ndarray]] = []
        self.bytes = 0

    def add(self, files: Sequence[str], output: np.ndarray) -> None:
        self.waiting.append(([_text(name) for name in files], output.reshape(len(files), -1)))
        self.bytes += output.nbytes
        if self.bytes >= _BLOCK_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self.waiting:
            return
        names = [name for files, _ in self.waiting for name in files]
        values = self.arrow.array(np.concatenate([rows for _, rows in self.waiting]).ravel(), self.dtype)
        lists = self.arrow.FixedSizeListArray.from_arrays(values, self.width)
        self.writer.write_table(self.arrow.Table.from_arrays([self.arrow.array(names), lists], schema=self.schema))
        self.waiting, self.bytes = [], 0

    def close(self) -> None:
        self._flush()
        self.writer.close()


def _text(name: str) -> str:
    """A name that is no UTF-8 as far as it goes: Parquet knows no other text."""
    return os.fsencode(name).decode("utf-8", "replace")


class NpyPart:
    """An array (images, ...) of which it is not known beforehand how many images it will have."""

    def __init__(self, path: Path, shape: Sequence[int], dtype: str) -> None:
        self.shape, self.dtype, self.count = tuple(shape), np.dtype(dtype), 0
        self.stream = open(path, "wb")
        self._write_header()

    def _write_header(self) -> None:
        """numpy leaves room in a header for the first axis to grow."""
        self.stream.seek(0)
        np.lib.format.write_array_header_1_0(self.stream, {
            "descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False,
            "shape": (self.count, *self.shape)})

    def add(self, files: Sequence[str], output: np.ndarray) -> None:
        self.stream.write(np.ascontiguousarray(output, self.dtype).data)
        self.count += len(output)

    def close(self) -> None:
        self._write_header()
        self.stream.close()


def read_npy_blocks(path: Path) -> Iterator[np.ndarray]:
    """An array file in blocks of its first axis."""
    with open(path, "rb") as stream:
        np.lib.format.read_magic(stream)
        (count, *shape), _, dtype = np.lib.format.read_array_header_1_0(stream)
        width = math.prod(shape)
        step = max(_BLOCK_BYTES // max(width * dtype.itemsize, 1), 1)
        for first in range(0, count, step):
            rows = min(step, count - first)
            yield np.fromfile(stream, dtype, rows * width).reshape(rows, *shape)


def read_parquet_blocks(path: Path, shape: Sequence[int]) -> Iterator[tuple[list[str], np.ndarray]]:
    """Names and features (images, ...) of a Parquet part, a few at a time."""
    file = require_parquet().parquet.ParquetFile(path)
    width = math.prod(shape)
    for batch in file.iter_batches(batch_size=max(_BLOCK_BYTES // max(4 * width, 1), 1)):
        values = batch.column("embedding").flatten().to_numpy(zero_copy_only=False)
        yield batch.column("file").to_pylist(), values.reshape(-1, *shape)


def read_rows(path: Path) -> Iterator[Any]:
    """What a part has of each image, one at a time, as `add` takes it of one."""
    if path.suffix == ".jsonl":
        for _, predictions in read_jsonl(path):
            yield [predictions]
        return
    if path.suffix == ".npy":
        blocks = read_npy_blocks(path)
    else:
        with whole(path):
            width = require_parquet().parquet.read_schema(path).field("embedding").type.list_size
        blocks = (rows for _, rows in read_parquet_blocks(path, (width,)))
    with whole(path):
        for rows in blocks:
            for number in range(len(rows)):
                yield rows[number:number + 1]


def read_jsonl(path: Path) -> Iterator[tuple[str, list[Prediction]]]:
    """Names and predictions of a part.

    Raises:
        DataError: It is damaged.
    """
    with whole(path), open(path, encoding="utf-8") as stream:
        for line in stream:
            item = json.loads(line)
            yield item["file"], [(one["index"], one["class"], one["probability"]) for one in item["predictions"]]
