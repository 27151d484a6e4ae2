"""Training checkpoints that survive whatever kills the run.

A file is written beside its place, flushed to the disk and renamed, so that a name always holds a whole checkpoint:
the old one or the new one. It is read with torch's tensors-only unpickler, after its checksums are verified.
"""

from __future__ import annotations

import logging
import math
import os
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError
from ..files import replacing
from ..names import closest_path

__all__ = ["CheckpointStore", "check_sums", "find_checkpoints", "link", "newest_checkpoint", "read_checkpoint",
           "write_checkpoint"]

_logger = logging.getLogger("mvlib")

SUFFIX = ".pth.tar"  # timm's
_NAMES = re.compile(r"(?:checkpoint-(\d+)|recovery-(\d+)-(\d+))\.pth\.tar")
_TEMPORARY = ".tmp"


def write_checkpoint(data: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint so that `path` holds either what it held or all of `data`, whenever the process dies.

    Raises:
        OSError: The disk is full, or the folder cannot be written. The unfinished file is removed.
    """
    try:
        with replacing(path, durable=True) as temporary, open(temporary, "wb") as stream:
            torch.save(dict(data), stream)
    except RuntimeError as error:  # torch's writer, when the stream under it fails
        raise OSError(f"{path} cannot be written: {str(error).splitlines()[0]}") from error


def link(source: Path, name: Path) -> None:
    """Let `name` be a second name of `source`, in one step."""
    with replacing(name) as temporary:
        temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:  # a file system without hard links
            temporary.write_bytes(source.read_bytes())


def check_sums(path: Path) -> None:
    """Compare the checksums of a file of torch's zip format with what is in it, which loading does not.

    Raises:
        CheckpointError: One is wrong.
        zipfile.BadZipFile: It is no such file.
    """
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged:
        raise CheckpointError(f"{path} is damaged: the checksum of {damaged} is wrong")


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a training checkpoint of ours or of timm's; nothing in it is run.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is cut off, altered, or not a training checkpoint.
    """
    import argparse

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}{closest_path(path)}")
    try:
        check_sums(path)
        with torch.serialization.safe_globals([argparse.Namespace]):
            data = torch.load(path, map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, EOFError, RuntimeError, pickle.UnpicklingError, ValueError, KeyError, OSError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} is not a whole checkpoint: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(data, dict) or not isinstance(data.get("state_dict"), dict):
        raise CheckpointError(f"{path} is not a training checkpoint: it has no 'state_dict'")
    return data


def _position(path: Path) -> tuple[int, int] | None:
    """(epoch, batch) at which a run goes on from a file, as its name says; None for other files."""
    match = _NAMES.fullmatch(path.name)
    if match is None:
        return None
    return (int(match[1]) + 1, 0) if match[1] else (int(match[2]), int(match[3]))


def find_checkpoints(folder: Path) -> list[Path]:
    """The numbered checkpoints of a run's folder, the newest first, then last.pth.tar where there is no other."""
    numbered = [path for path in folder.glob(f"*{SUFFIX}") if _position(path)]
    last = folder / f"last{SUFFIX}"
    return sorted(numbered, key=_position, reverse=True) or ([last] if last.exists() else [])


def newest_checkpoint(where: str | os.PathLike[str]) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint to go on from: that of a file, or the newest whole one of a folder.

    A damaged one is passed over, with a warning, for the one before it.

    Raises:
        FileNotFoundError: There is neither a file nor a folder of this name.
        CheckpointError: All that there are are damaged.
    """
    where = Path(where)
    if not where.exists():
        raise FileNotFoundError(f"there is no checkpoint {where}{closest_path(where)}")
    candidates = find_checkpoints(where) if where.is_dir() else [where, *_before(where)]
    failures = []
    for path in candidates:
        try:
            data = read_checkpoint(path)
        except CheckpointError as error:
            failures.append(str(error))
            _logger.warning("%s", error)
            continue
        if failures:
            _logger.warning("going on from the checkpoint before it, %s", path)
        return path, data
    if failures:
        raise CheckpointError(f"no checkpoint in {where if where.is_dir() else where.parent} is whole: {failures[0]}")
    return None


def _before(path: Path) -> Iterator[Path]:
    """The other checkpoints of a file's folder that are no newer than it, the newest first."""
    here = _position(path)
    for other in find_checkpoints(path.parent):
        if not _same_file(other, path) and (here is None or _position(other) is None or _position(other) < here):
            yield other


def _same_file(one: Path, other: Path) -> bool:
    return one == other or (one.exists() and other.exists() and os.path.samefile(one, other))


def rank(metric: float, epoch: int, decreasing: bool) -> tuple[float, int]:
    """What sorts checkpoints, the best first: of equals the later, which has settled; NaN last."""
    value = metric if decreasing else -metric
    return (math.inf if math.isnan(value) else value), -epoch


def ranked_model(row: Mapping[str, Any]) -> str:
    """Which of an epoch's models is ranked, kept as the best, and exported: "ema" where there is an average."""
    return "ema" if "ema_top1" in row else "eval"


class CheckpointStore:
    """The checkpoints of a run's folder: the best K, the last, and recovery points within an epoch.

    checkpoint-E.pth.tar is the end of epoch E; last.pth.tar and model_best.pth.tar are second names of two of them;
    recovery-E-B.pth.tar was taken before batch B of epoch E.

    Args:
        folder: The run's folder.
        keep: How many checkpoints of epochs to keep, besides the last two: those with the best metric.
        decreasing: Whether less is better.
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int = 10, decreasing: bool = False) -> None:
        self.folder = Path(folder)
        self.keep = keep
        self.decreasing = decreasing
        self.metrics: dict[int, float] = {}
        for left_over in self.folder.glob(f"*{_TEMPORARY}"):
            left_over.unlink(missing_ok=True)

    def state_dict(self) -> dict[str, Any]:
        return {"metrics": dict(self.metrics)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.metrics = {int(epoch): value for epoch, value in state["metrics"].items()}

    @property
    def best_epoch(self) -> int | None:
        return self._ranked()[0] if self.metrics else None

    def best(self) -> tuple[int, Path] | None:
        """The best epoch whose checkpoint is there, and that."""
        found = ((epoch, self.folder / f"checkpoint-{epoch}{SUFFIX}") for epoch in self._ranked())
        return next(((epoch, path) for epoch, path in found if path.exists()), None)

    def newest(self) -> Path | None:
        """The newest checkpoint, whole or not."""
        return next(iter(find_checkpoints(self.folder)), None)

    def save_epoch(self, data: Mapping[str, Any], epoch: int, metric: float) -> Path | None:
        """Save the end of an epoch, drop what is no longer among the best; returns the file, None where it failed."""
        self.metrics[epoch] = metric
        path = self.folder / f"checkpoint-{epoch}{SUFFIX}"
        if not self._write({**data, "store": self.state_dict()}, path):
            del self.metrics[epoch]
            return None
        link(path, self.folder / f"last{SUFFIX}")
        if self.best_epoch == epoch:
            link(path, self.folder / f"model_best{SUFFIX}")
        kept = {*self._ranked()[:self.keep], epoch, epoch - 1}  # the one before stands in for a damaged one
        for other in find_checkpoints(self.folder):
            match = _NAMES.fullmatch(other.name)
            if match and (match[2] or int(match[1]) not in kept):
                other.unlink(missing_ok=True)
        self.metrics = {number: value for number, value in self.metrics.items() if number in kept}
        return path

    def save_recovery(self, data: Mapping[str, Any], epoch: int, batch: int) -> Path | None:
        """Save a point within an epoch; the one before the last such is dropped. None where it failed."""
        path = self.folder / f"recovery-{epoch}-{batch}{SUFFIX}"
        if not self._write({**data, "store": self.state_dict()}, path):
            return None
        for old in [p for p in find_checkpoints(self.folder) if p.name.startswith("recovery-")][2:]:
            old.unlink(missing_ok=True)
        return path

    def _ranked(self) -> list[int]:
        return sorted(self.metrics, key=lambda epoch: rank(self.metrics[epoch], epoch, self.decreasing))

    def _write(self, data: Mapping[str, Any], path: Path) -> bool:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_checkpoint(data, path)
        except OSError as error:
            newest = self.newest()
            _logger.error("%s was not saved: %s; the last good checkpoint is %s", path.name, error.strerror or error,
                          newest if newest else "none yet")
            return False
        return True
