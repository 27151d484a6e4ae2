"""Tables and units for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["format_size", "format_table"]


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
