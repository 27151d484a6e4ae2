"""Results for the terminal and for files: tables, CSV, JSON, Markdown; units. Imports no torch."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from ..errors import ConfigError
from ..files import csv_writer, is_written_in_place, replacing
from ..names import closest_path

__all__ = ["check_output", "check_weights_output", "format_size", "format_table", "hang_up", "kind_of", "render",
           "write_text"]

_WEIGHTS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")  # endings of files of tensors
_KINDS = ("csv", "json", "md")


def format_table(rows: Sequence[Sequence[object]], header: Sequence[str] | None = None) -> str:
    """Columns padded to their widest cell; numbers stand to the right, a missing value is empty."""
    cells = [["" if cell is None else str(cell) for cell in row] for row in ([header] if header else []) + list(rows)]
    if not cells:
        return ""
    columns = list(zip(*cells))
    body = [column[1:] if header else column for column in columns]
    widths = [max(map(len, column)) for column in columns]
    right = [any(column) and all(_is_number(cell) for cell in column if cell) for column in body]
    lines = ["  ".join(cell.rjust(width) if flush else cell.ljust(width)
                       for cell, width, flush in zip(row, widths, right)).rstrip() for row in cells]
    return "\n".join(lines)


def _is_number(cell: str) -> bool:
    return cell.replace(".", "", 1).replace("-", "", 1).replace(",", "").rstrip(" %MGKiB").isdigit()


def format_size(count: float) -> str:
    """Bytes in the largest fitting binary unit: "98 MiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def kind_of(path: str | os.PathLike[str], kind: str | None = None) -> str:
    """The format of a results file: `kind`, or what its ending says.

    Raises:
        ConfigError: An unknown format.
    """
    kind = kind or Path(path).suffix.lstrip(".").lower()
    kind = "md" if kind == "markdown" else kind
    if kind not in _KINDS:
        raise ConfigError(f"results cannot be written as '{kind}'; known: {', '.join(_KINDS)}")
    return kind


def render(
    rows: Sequence[Mapping[str, Any]], columns: Iterable[str], kind: str, *, about: Mapping[str, Any] | None = None
) -> str:
    """Rows as text; columns in which no row has a value are left out.

    Args:
        rows: What was found, a mapping each.
        columns: Order of the columns; JSON keeps all that the rows have.
        kind: "table", "csv", "json" or "md".
        about: What holds for all rows. JSON is then {**about, "results": rows}; the others leave it to the caller.
    """
    columns = [column for column in columns if any(row.get(column) is not None for row in rows)]
    table = [[row.get(column) for column in columns] for row in rows]
    if kind == "json":
        found = [dict(row) for row in rows]
        return json.dumps({**about, "results": found} if about else found, indent=2) + "\n"
    if kind == "csv":
        stream = io.StringIO()
        csv_writer(stream).writerows([columns, *table])
        return stream.getvalue()
    if kind == "md":
        lines = [columns, ["---"] * len(columns), *table]
        return "".join(f"| {' | '.join(map(_markdown_cell, line))} |\n" for line in lines)
    return format_table(table, columns) + "\n"


def _markdown_cell(cell: object) -> str:
    return "" if cell is None else str(cell).replace("|", "\\|").replace("\n", " ")


def check_output(
    path: str | os.PathLike[str], endings: Sequence[str] = (), option: str = "--output", hint: str = ""
) -> None:
    """Refuse a file that could not be written once the work is done.

    Args:
        path: The file.
        endings: Those that its name may have, (".png", ...), whose case does not matter; none for any. A device or a
            pipe needs none.
        option: Which argument names it.
        hint: What to do about a wrong ending.

    Raises:
        ConfigError: Its ending is another, its folder is missing or read-only, it is a folder or read-only itself, or
            the disk is full.
    """
    target = Path(path)
    folder = target.parent
    try:
        special = is_written_in_place(target)
        if endings and not special and target.suffix.lower() not in endings:
            raise ConfigError(f"{option} writes {', '.join(endings)}, and '{path}' ends in none of them{hint}")
        if target.is_dir():
            reason = "it is a folder"
        elif not folder.is_dir():
            reason = f"there is no folder {folder}{closest_path(folder, files=False)}"
        elif not os.access(target if target.exists() else folder, os.W_OK):
            reason = "writing there is not permitted"
        elif shutil.disk_usage(folder).free == 0 and not special or target.is_char_device() and not _takes(target):
            reason = "there is no space left"
        else:
            return
    except (OSError, ValueError) as error:  # no name of a file: too long, with a NUL, beyond another file
        reason = getattr(error, "strerror", None) or str(error)
    raise ConfigError(f"{target} cannot be written: {reason}")


def check_weights_output(path: str | os.PathLike[str]) -> None:
    """Refuse a file of weights that could not be written, or in whose place a run is gone on with.

    Raises:
        ConfigError: See `check_output`; or it is a device or a pipe, or a checkpoint of training.
    """
    check_output(path, _WEIGHTS)
    if is_written_in_place(Path(path)):
        raise ConfigError(f"--output {path} is a device or a pipe: weights are written to a file, and read back")
    if os.path.exists(path):
        from ..loading import read_parts

        if "optimizer" in read_parts(path):
            raise ConfigError(f"--output {path} is a checkpoint of training, which a run is gone on with: name another "
                              f"file")


def _takes(device: Path) -> bool:
    """Whether a device takes a write, of nothing."""
    descriptor = os.open(device, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        os.write(descriptor, b"")
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def hang_up(stream: TextIO) -> None:
    """Let the reader of a pipe see its end; what is written from now on goes nowhere. For a program's own streams."""
    stream.flush()
    with contextlib.suppress(OSError, ValueError):  # a stream that is no file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
