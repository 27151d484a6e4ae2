"""Predictions as text: a table for people, JSON, JSON lines and CSV. One image after the other; no torch."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from ..errors import ConfigError
from ..files import csv_writer, replacing

__all__ = ["ENDINGS", "WRITERS", "Prediction", "check_format", "format_of", "open_output", "record"]

Prediction = tuple[int, str, float]  # number and name of a class, probability


def record(path: Path | str, predictions: Sequence[Prediction]) -> dict[str, Any]:
    """One image as JSON has it."""
    return {"file": str(path), "predictions": [
        {"index": index, "class": name, "probability": round(value, 6)} for index, name, value in predictions]}


class Table:
    """The file, and below it a line for each class."""

    def __init__(self, stream: TextIO, print_line: Callable[[str], None] | None = None) -> None:
        self.print_line = print_line or (lambda line: print(line, file=stream))
        self.first = True

    def write(self, path: Path | str, predictions: Sequence[Prediction]) -> None:
        lines = [f"{path}"] + [f"  {value:7.2%}  {name}" for _, name, value in predictions]
        self.print_line("\n".join(lines) if self.first else "\n" + "\n".join(lines))
        self.first = False

    def close(self) -> None:
        pass


class JsonLines:
    """An object a line, out as soon as it is known."""

    def __init__(self, stream: TextIO, print_line: Callable[[str], None] | None = None) -> None:
        self.stream = stream

    def write(self, path: Path | str, predictions: Sequence[Prediction]) -> None:
        print(json.dumps(record(path, predictions)), file=self.stream, flush=True)

    def close(self) -> None:
        pass


class Json:
    """One list of objects, written as they come."""

    def __init__(self, stream: TextIO, print_line: Callable[[str], None] | None = None) -> None:
        self.stream = stream
        self.count = 0

    def write(self, path: Path | str, predictions: Sequence[Prediction]) -> None:
        text = json.dumps(record(path, predictions), indent=2).replace("\n", "\n  ")
        self.stream.write(f"{',' if self.count else '['}\n  {text}")
        self.count += 1

    def close(self) -> None:
        self.stream.write("\n]\n" if self.count else "[]\n")


class Csv:
    """A line for each class of each image."""

    HEADER = ("file", "rank", "index", "class", "probability")

    def __init__(self, stream: TextIO, print_line: Callable[[str], None] | None = None) -> None:
        self.writer = csv_writer(stream)
        self.writer.writerow(self.HEADER)

    def write(self, path: Path | str, predictions: Sequence[Prediction]) -> None:
        self.writer.writerows((path, rank, index, name, f"{value:.6f}")
                              for rank, (index, name, value) in enumerate(predictions, start=1))

    def close(self) -> None:
        pass


WRITERS = {"table": Table, "json": Json, "jsonl": JsonLines, "csv": Csv}
ENDINGS = (".json", ".jsonl", ".csv", ".txt")


def format_of(path: str | os.PathLike[str]) -> str:
    """The format that a file's ending names (one of `ENDINGS`); "table" of .txt and where there is none."""
    kind = Path(path).suffix.lstrip(".").lower()
    return kind if kind in WRITERS else "table"


def check_format(path: str | os.PathLike[str], format: str) -> None:
    """Refuse a file whose ending names another format than it gets.

    Raises:
        ConfigError: So it is.
    """
    ending = Path(path).suffix.lower()
    if ending in ENDINGS and format_of(path) != format:
        raise ConfigError(f"--format {format} and --output {path}: the ending {ending} is for {format_of(path)}; leave "
                          f"out --format, or name another file")


@contextmanager
def open_output(path: str | os.PathLike[str]) -> Iterator[TextIO]:
    """A text file that is there when all of it is; a device or a pipe is written as it is."""
    with replacing(path) as temporary, \
            open(temporary, "w", encoding="utf-8", newline="", errors="surrogateescape") as stream:
        yield stream
