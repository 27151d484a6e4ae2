"""Files that are there when all of them is, or not at all. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["replacing", "sync"]


@contextmanager
def replacing(path: str | os.PathLike[str], durable: bool = False) -> Iterator[Path]:
    """A path to write to, ".NAME.PID.tmp" beside the file: at the end it becomes the file, after an error it goes.

    Args:
        path: The file.
        durable: Whether it has to outlast a power failure.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        if durable:
            sync(temporary)
        os.replace(temporary, target)
        if durable:
            with suppress(OSError):  # systems that cannot open a folder see to its names themselves
                sync(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have what was written to a file, or what is in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)  # Windows syncs what is open for writing
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
