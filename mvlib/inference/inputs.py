"""What a command is asked to read: files, folders, URLs and lists of them, as a stream. Imports no torch."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TextIO, TypeVar

from ..data.images import find_images
from ..errors import ConfigError

__all__ = ["Input", "Url", "WebRules", "as_input", "batched", "count_inputs", "list_inputs"]

T = TypeVar("T")


class Url(str):
    """Where a picture is on the web; `inference.web` says what can be fetched."""

    __slots__ = ()


@dataclass(frozen=True)
class WebRules:
    """What may be fetched.

    Attributes:
        max_bytes: The largest file.
        allow_local: Whether addresses of this machine and of private networks may be connected to.
    """

    max_bytes: int = 50_000_000
    allow_local: bool = False


Input = Path | Url
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def as_input(name: str) -> Input:
    """A file's path, or what is written as a URL."""
    return Url(name) if _URL.match(name) else Path(name)


def list_inputs(inputs: Sequence[str], files_from: str | None = None) -> Iterator[Input]:
    """Image files and URLs, found as they are asked for.

    Args:
        inputs: Files, folders, URLs, or "-" for a list on standard input.
        files_from: A file that lists further ones, a name a line.

    Raises:
        ConfigError: There is not one, or the list cannot be read.
    """
    files = _find(_names(inputs, _open(files_from) if files_from else None))
    first = next(files, None)
    if first is None:
        raise ConfigError(f"no images in {', '.join([*inputs, *([files_from] if files_from else [])])}")
    return chain([first], files)


def _find(names: Iterable[str]) -> Iterator[Input]:
    for item in map(as_input, names):
        if isinstance(item, Url):
            yield item
        else:
            yield from find_images(item)


def _open(path: str) -> TextIO:
    try:
        stream = open(path, encoding="utf-8", errors="surrogateescape")
        if b"\0" in stream.buffer.peek(1):
            raise ConfigError(f"the list {path} cannot be read: it is not a text file")
    except OSError as error:
        raise ConfigError(f"the list {path} cannot be read: {error.strerror}") from None
    return stream


def _names(inputs: Sequence[str], listed: TextIO | None) -> Iterator[str]:
    for item in inputs:
        if item == "-":
            yield from _lines(sys.stdin)
        else:
            yield item
    if listed is not None:
        with listed:
            yield from _lines(listed)


def _lines(stream: Iterable[str]) -> Iterator[str]:
    return filter(None, (line.rstrip("\r\n") for line in stream))


def count_inputs(inputs: Sequence[str], files_from: str | None = None) -> int | None:
    """How many images there are, where that is known without a search."""
    if files_from or "-" in inputs or any(os.path.isdir(item) for item in inputs):
        return None
    return len(inputs)


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last maybe shorter."""
    items = iter(items)
    while batch := list(islice(items, size)):
        yield batch
