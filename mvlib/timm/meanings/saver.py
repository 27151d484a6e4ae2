"""timm.utils.checkpoint_saver: the checkpoints that timm's scripts write, in files that both sides read.

`mvlib.train.checkpoint.CheckpointStore` is the one that `mvlib train` uses; a file is written by its rules here, too:
a name always holds a whole checkpoint.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...train.checkpoint import link, write_checkpoint
from .inspection import get_state_dict, unwrap_model

__all__ = ["CheckpointSaver", "load_checkpoint_metadata"]

_logger = logging.getLogger("mvlib")


def load_checkpoint_metadata(checkpoint_path: str | os.PathLike[str]) -> Any:
    """Read a training checkpoint for what is not tensors: those stay on the disk until they are looked at."""
    import argparse

    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(checkpoint_path, map_location="cpu", weights_only=True, mmap=True)


class CheckpointSaver:
    """Keeps the best checkpoints of a run, the last, and recovery points within an epoch.

    `checkpoint_dir` gets {checkpoint_prefix}-{epoch}.pth.tar for the `max_history` best, and last.pth.tar and
    model_best.pth.tar; `recovery_dir` gets the last two {recovery_prefix}-{epoch}-{batch}.pth.tar.

    Args:
        model: Whose weights to save.
        optimizer: Saved with them.
        args: The script's arguments, saved too; `args.model` is the name in the file.
        model_ema: A moving average, saved as `state_dict_ema`.
        amp_scaler: A scaler with `state_dict_key`.
        checkpoint_prefix, recovery_prefix: How names begin.
        checkpoint_dir, recovery_dir: Folders, which exist.
        decreasing: Whether less is better.
        max_history: How many to keep.
        unwrap_fn: From a model in wrappers to the model.
        task: A `TrainingTask`, which says what to save in place of `model` and `model_ema`.

    Attributes:
        checkpoint_files: (path, metric) of those that are kept, the best first, then those without a metric.
        best_epoch, best_metric: The best so far.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, args: Any = None, model_ema: Any = None,
        amp_scaler: Any = None, checkpoint_prefix: str = "checkpoint", recovery_prefix: str = "recovery",
        checkpoint_dir: str = "", recovery_dir: str = "", decreasing: bool = False, max_history: int = 10,
        unwrap_fn: Callable[[Any], nn.Module] = unwrap_model, task: Any = None,
    ) -> None:
        if max_history < 1:
            raise ValueError(f"CheckpointSaver keeps 1 checkpoint or more, not {max_history}")
        self.model = model
        self.task = task
        self.optimizer = optimizer
        self.args = args
        self.model_ema = model_ema
        self.amp_scaler = amp_scaler
        self.checkpoint_files: list[tuple[str, float | None]] = []
        self.best_epoch: int | None = None
        self.best_metric: float | None = None
        self.curr_recovery_file = ""
        self.prev_recovery_file = ""
        self.checkpoint_dir = checkpoint_dir
        self.recovery_dir = recovery_dir
        self.save_prefix = checkpoint_prefix
        self.recovery_prefix = recovery_prefix
        self.extension = ".pth.tar"
        self.decreasing = decreasing
        self.max_history = max_history
        self.unwrap_fn = unwrap_fn

    def save_checkpoint(self, epoch: int, metric: float | None = None) -> tuple[float | None, int | None]:
        """Save the end of an epoch as last.pth.tar and, where it is among the best, under its number.

        Without a metric it counts as newer than others without one, and as worse than all that have one.

        Returns:
            The best metric and its epoch, None and None before the first metric.
        """
        last = self._path("last")
        self._write(last, epoch, metric)
        full = len(self.checkpoint_files) >= self.max_history
        if not full or self._beats(metric, self.checkpoint_files[-1][1], even=True):
            while len(self.checkpoint_files) >= self.max_history:
                _remove(self.checkpoint_files.pop()[0])
            numbered = self._path(f"{self.save_prefix}-{epoch}")
            link(Path(last), Path(numbered))
            if self._track(numbered, epoch, metric):
                link(Path(last), Path(self._path("model_best")))
            _logger.info("Current checkpoints:\n%s", "\n".join(f"  {path}: {kept}" for path, kept in
                                                              self.checkpoint_files))
        return self.best_metric, self.best_epoch

    def save_milestone(self, completed_epochs: int) -> str:
        """Keep last.pth.tar as milestone-N.pth.tar, which no better one displaces; returns its path."""
        path = self._path(f"milestone-{completed_epochs}")
        link(Path(self._path("last")), Path(path))
        return path

    def save_recovery(self, epoch: int, batch_idx: int = 0) -> None:
        """Save a point within an epoch; the one before the last goes."""
        name = f"{self.recovery_prefix}-{epoch}-{batch_idx}{self.extension}"
        path = os.path.join(self.recovery_dir, name)
        self._write(path, epoch, None)
        if os.path.exists(self.prev_recovery_file) and self.prev_recovery_file != path:
            _remove(self.prev_recovery_file)
        self.prev_recovery_file, self.curr_recovery_file = self.curr_recovery_file, path

    def find_recovery(self) -> str:
        """The first recovery point of the folder by name, "" where there is none."""
        found = sorted(str(path) for path in Path(self.recovery_dir).glob(f"{self.recovery_prefix}*{self.extension}"))
        return found[0] if found else ""

    def state_dict(self, epoch: int | None = None, metric: float | None = None) -> dict[str, Any]:
        """What `load_state_dict` needs in a new process, as a part of the checkpoint of `epoch`, which has `metric`."""
        return {"checkpoint_files": [(os.path.basename(path), value) for path, value in self.checkpoint_files],
                "best_epoch": self.best_epoch, "best_metric": self.best_metric, "pending": (epoch, metric)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on with the files that a run before has left in `checkpoint_dir`, as far as they are still there."""
        files = ((os.path.join(self.checkpoint_dir, name), metric) for name, metric in state_dict["checkpoint_files"])
        self.checkpoint_files = [(path, metric) for path, metric in files if os.path.exists(path)]
        self.best_epoch, self.best_metric = state_dict["best_epoch"], state_dict["best_metric"]
        epoch, metric = state_dict.get("pending", (None, None))
        path = self._path(f"{self.save_prefix}-{epoch}")
        if epoch is not None and os.path.exists(path) and path not in dict(self.checkpoint_files):
            self._track(path, epoch, metric)

    def load_state_dict_from_checkpoint(self, checkpoint_path: str) -> bool:
        """`load_state_dict` with what a checkpoint holds; False, with a warning, where it holds nothing of the kind."""
        state = load_checkpoint_metadata(checkpoint_path)
        if not isinstance(state, dict) or "saver" not in state:
            _logger.warning("%s says nothing of the run's other checkpoints: the ranking starts anew", checkpoint_path)
            return False
        self.load_state_dict(state["saver"])
        return True

    def _path(self, name: str) -> str:
        return os.path.join(self.checkpoint_dir, name + self.extension)

    def _beats(self, metric: float | None, other: float | None, even: bool = False) -> bool:
        """Whether a metric is better than another; what has none is beaten by all, `even` by what has none itself."""
        if metric is None or other is None:
            return other is None and (even or metric is not None)
        return metric < other if self.decreasing else metric > other

    def _track(self, path: str, epoch: int, metric: float | None) -> bool:
        """Put a file into the ranking; whether it is the best so far."""
        ranked = [file for file in self.checkpoint_files if file[1] is not None]
        unranked = [file for file in self.checkpoint_files if file[1] is None]
        if metric is None:
            unranked.insert(0, (path, None))
        else:
            place = next((i for i, (_, other) in enumerate(ranked) if self._beats(metric, other)), len(ranked))
            ranked.insert(place, (path, metric))
        self.checkpoint_files = ranked + unranked
        is_best = metric is not None and self._beats(metric, self.best_metric)
        if is_best:
            self.best_epoch, self.best_metric = epoch, metric
        return is_best

    def _write(self, path: str, epoch: int, metric: float | None) -> None:
        state: dict[str, Any] = {
            "epoch": epoch, "arch": type(self.model).__name__.lower(), "optimizer": self.optimizer.state_dict(),
            "version": 2,  # `epoch` is the one just done, not the next
            "saver": self.state_dict(epoch, metric),
        }
        if self.args is not None:
            state.update(arch=self.args.model, args=self.args)
        if self.amp_scaler is not None:
            state[self.amp_scaler.state_dict_key] = self.amp_scaler.state_dict()
        if self.task is not None:
            for ema in (False, True):
                state.update(self.task.get_checkpoint_state(ema=ema, unwrap_fn=self.unwrap_fn))
        else:
            state["state_dict"] = get_state_dict(self.model, self.unwrap_fn)
            if self.model_ema is not None:
                state["state_dict_ema"] = get_state_dict(self.model_ema, self.unwrap_fn)
        if metric is not None:
            state["metric"] = metric
        write_checkpoint(state, Path(path))


def _remove(path: str) -> None:
    try:
        os.remove(path)
    except OSError as error:
        _logger.error("%s, which is no longer among the best, cannot be removed: %s", path, error.strerror)
