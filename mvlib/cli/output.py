"""Results for the terminal and for files: tables, CSV, JSON, Markdown; units. Imports no torch."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..files import replacing

__all__ = ["check_output", "format_size", "format_table", "kind_of", "render", "write_text"]

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
        csv.writer(stream, lineterminator="\n").writerows([columns, *table])
        return stream.getvalue()
    if kind == "md":
        lines = [columns, ["---"] * len(columns), *table]
        return "".join(f"| {' | '.join(map(_markdown_cell, line))} |\n" for line in lines)
    return format_table(table, columns) + "\n"


def _markdown_cell(cell: object) -> str:
    return "" if cell is None else str(cell).replace("|", "\\|").replace("\n", " ")


def check_output(path: str | os.PathLike[str]) -> None:
    """Refuse a file that could not be written once the work is done.

    Raises:
        ConfigError: Its folder is missing or read-only, or it is a folder or read-only itself.
    """
    target = Path(path)
    folder = target.parent
    if target.is_dir():
        reason = "it is a folder"
    elif not folder.is_dir():
        reason = f"there is no folder {folder}"
    elif not os.access(target if target.exists() else folder, os.W_OK):
        reason = "writing there is not permitted"
    else:
        return
    raise ConfigError(f"{target} cannot be written: {reason}")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
