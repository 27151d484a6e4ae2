"""Files that are there when all of them is, or not at all. Imports no torch."""

from __future__ import annotations

import csv
import errno
import io
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from .errors import ConfigError

__all__ = ["csv_text", "csv_writer", "is_written_in_place", "locked", "read_text", "replacing", "sync"]

_ABANDONED = 24 * 3600  # seconds since anything was written to a temporary file whose process must be dead


@contextmanager
def replacing(path: str | os.PathLike[str], durable: bool = False) -> Iterator[Path]:
    """A path to write to, ".NAME.RANDOM.tmp" beside the file: at the end it becomes the file, after an error it goes.

    Each call has a file of its own, so that threads, processes and machines that share a disk may write the same file
    at once: one of them is the last, and the file is whole. Its permissions are those of any new file. What processes
    that were killed have left of the file goes a day later. A device or a pipe is written as it is.

    Args:
        path: The file.
        durable: Whether it has to outlast a power failure.

    Raises:
        OSError: The folder is missing or cannot be written, or the path is a folder.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if is_written_in_place(target):
        yield target
        return
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    try:
        with open(temporary, "xb") as stream:
            made = os.fstat(stream.fileno())
    except OSError as error:
        error.filename = str(target)  # the name that its user knows
        raise
    try:
        _remove_abandoned(target, made.st_mtime)
        yield temporary
        if stat.S_IMODE(os.stat(temporary).st_mode) != stat.S_IMODE(made.st_mode):
            os.chmod(temporary, stat.S_IMODE(made.st_mode))  # safetensors puts a file for its owner alone in the place
        if durable:
            sync(temporary)
        os.replace(temporary, target)
        if durable:
            with suppress(OSError):  # systems that cannot open a folder see to its names themselves
                sync(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def is_written_in_place(path: Path) -> bool:
    """Whether a path is a device, a pipe or a process's open file (/dev/stdout), which a rename would put an end to."""
    parent = os.path.realpath(path.parent)
    return path.exists() and not path.is_file() or parent == "/dev" or f"{parent}/".startswith("/proc/")


def _remove_abandoned(target: Path, now: float) -> None:
    """Remove temporaries of a file by the disk's own clock, `now`."""
    with suppress(OSError):  # not permitted to look, or another was faster
        with os.scandir(target.parent) as entries:
            left = [entry for entry in entries
                    if entry.name.startswith(f".{target.name}.") and entry.name.endswith(".tmp")]
        for entry in left:
            if now - entry.stat().st_mtime > _ABANDONED:
                os.unlink(entry.path)


class _Lines:
    """A stream that ends what csv writes, a row at a time, in "\\n" alone."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, row: str) -> int:
        return self.stream.write(row.removesuffix("\r\n") + "\n")


def csv_writer(stream: TextIO) -> Any:
    """A `csv.writer` of rows that end in "\\n" and are read back as they were: csv itself quotes a "\\r" in a cell, in
    older Pythons, only where its rows end in one.

    Args:
        stream: Opened with newline="", or in memory.
    """
    return csv.writer(_Lines(stream), lineterminator="\r\n")


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """CSV with a head line of rows by name; a cell that a row lacks is empty."""
    text = io.StringIO()
    writer = csv_writer(text)
    writer.writerow(columns)
    writer.writerows([row.get(column) for column in columns] for row in rows)
    return text.getvalue()


def read_text(path: str | os.PathLike[str], newline: str | None = None) -> str:
    """What is in a text file.

    Args:
        path: The file.
        newline: As `open` takes it: "" for the ends of lines as they are, None for "\\n" in their place.

    Raises:
        ConfigError: It is no text in UTF-8.
        OSError: It cannot be read.
    """
    try:
        with open(path, encoding="utf-8", newline=newline) as stream:
            return stream.read()
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not a text file (in UTF-8)") from None


def sync(path: Path) -> None:
    """Have what was written to a file, or what is in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)  # Windows syncs what is open for writing
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: str | os.PathLike[str], wait: bool = True) -> Iterator[None]:
    """One process (and thread) at a time; a lock goes with its process, however that ends.

    The lock's file goes with the last of them: who gets a lock on a file that is not in its place any more, asks again.

    Args:
        path: The lock's file, made here.
        wait: Whether to wait for another that has it.

    Raises:
        BlockingIOError: Another has it, and `wait` is false.
        OSError: The file cannot be made.
    """
    path = Path(path)
    try:
        import fcntl
    except ImportError:  # Windows, whose files cannot be deleted under those who wait for them
        from filelock import FileLock, Timeout

        try:
            with FileLock(path, timeout=-1 if wait else 0):
                yield
        except Timeout:
            raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK), str(path)) from None
        return
    while True:
        with open(path, "ab") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                is_in_place = os.path.samestat(os.fstat(stream.fileno()), path.stat())
            except FileNotFoundError:
                is_in_place = False
            if is_in_place:
                try:
                    yield
                finally:
                    path.unlink(missing_ok=True)
                return
