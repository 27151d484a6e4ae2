"""Colours on terminals, by the rules that Python's own tools follow. Imports no torch."""

from __future__ import annotations

import os
import sys
from typing import TextIO

__all__ = ["BOLD", "BOLD_RED", "CYAN", "paint", "wants_colours"]

BOLD, BOLD_RED, CYAN = "1", "1;31", "36"


def wants_colours(stream: TextIO) -> bool:
    """Whether what is written to a stream should have colours.

    NO_COLOR turns them off, FORCE_COLOR on, where they are set and not empty (the first wins); else a terminal has
    them, unless TERM is "dumb" or it is an old console of Windows.
    """
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    if os.environ.get("TERM") == "dumb" or sys.platform == "win32" and "WT_SESSION" not in os.environ:
        return False
    try:
        return stream.isatty()
    except (AttributeError, ValueError):  # a stand-in; a stream that is closed
        return False


def paint(text: str, style: str) -> str:
    """The text between the escapes of a style, such as `BOLD`."""
    return f"\033[{style}m{text}\033[0m"
