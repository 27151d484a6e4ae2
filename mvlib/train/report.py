"""What a person sees of a run: a progress bar, summary.csv, args.yaml, curves.png; TensorBoard and Weights & Biases."""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist
import yaml

from ..charts import LINES, line_panels, need_matplotlib, save_figure
from ..cli.output import write_text
from ..errors import MissingPackageError
from ..files import csv_text
from .checkpoint import rank, ranked_model
from .distributed import is_parallel
from .engine import Progress, TrainState
from .recipes import ARGUMENTS_FILE

__all__ = ["Report", "draw_curves", "write_text"]

_logger = logging.getLogger("mvlib")


def draw_curves(
    history: Sequence[Mapping[str, Any]], path: Path, title: str = "Training", subtitle: str = ""
) -> None:
    """Loss, accuracy and learning rate over the epochs, as a PNG.

    Args:
        history: Rows of summary.csv.
        path: Of the picture.
        title, subtitle: What is trained; of which run.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    need_matplotlib("curves.png")
    panels = (("loss", (("train_loss", "training"), ("eval_loss", "validation"), ("ema_loss", "validation, average"))),
              ("accuracy (%)", (("eval_top1", "top-1"), ("eval_top5", "top-5"), ("ema_top1", "top-1, average"))),
              ("learning rate", (("lr", "learning rate"),)))
    training, validation, average, other = LINES
    colours = {"top-1": validation, "top-5": other, "top-1, average": average, "learning rate": training}
    save_figure(line_panels(title, [
        (y, {label: points for column, label in lines if (points := _points(history, column))})
        for y, lines in panels], subtitle=subtitle, colours=colours), path)


def describe_run(history: Sequence[Mapping[str, Any]], name: str, data: str, metric: str = "top1") -> str:
    """A line on a run: its name, its data, and the best that it has come to by `metric` (top1, top5, loss)."""
    found = {epoch: value for epoch, value in (
        (row["epoch"], row.get(f"{ranked_model(row)}_{metric}")) for row in history)
        if value is not None and math.isfinite(value)}
    best = ""
    if found:
        epoch = min(found, key=lambda epoch: rank(found[epoch], epoch, metric == "loss"))
        figure = f"loss {found[epoch]:.4g}" if metric == "loss" else f"top-{metric[3:]} {found[epoch]:.2f}%"
        best = f"; best {figure} at epoch {epoch}"
    return f"run {name} on {data}{best}"


def _points(history: Sequence[Mapping[str, Any]], column: str) -> list[tuple[int, float]]:
    """What is known of a column, by epoch."""
    return [(row["epoch"], row[column]) for row in history
            if row.get(column) is not None and math.isfinite(row[column])]


class Report:
    """Reports on a run; on all processes but the first it is silent.

    Args:
        folder: The run's folder.
        args: Its arguments.
        is_main: Whether this process is the one that reports.
        epochs: Epochs of the run.
    """

    def __init__(self, folder: Path, args: argparse.Namespace, is_main: bool, epochs: int) -> None:
        self.folder, self.args, self.is_main, self.epochs = folder, args, is_main, epochs
        self._bar: Any = None
        self._can_draw = True
        self._tensorboard = self._wandb = None
        if not is_main:
            return
        values = {key: value for key, value in vars(args).items() if key != "config"}
        write_text(folder / ARGUMENTS_FILE, yaml.safe_dump(values, default_flow_style=False))
        if args.log_tensorboard:
            self._tensorboard = _tensorboard(folder)
        if args.log_wandb:
            self._wandb = _wandb(args, values)

    def start_epoch(self, epoch: int, batches: int, first: int) -> None:
        if not self.is_main:
            return
        from tqdm import tqdm

        self._bar = tqdm(total=batches, initial=first, desc=f"epoch {epoch + 1}/{self.epochs}", unit="batch",
                         disable=None, leave=False, dynamic_ncols=True)

    def update(self, state: TrainState, progress: Progress) -> None:
        if not self.is_main:
            return
        if self._bar is not None and not self._bar.disable:
            self._bar.n = progress.batch
            self._bar.set_postfix_str(f"loss {progress.loss:.3f}, lr {state.learning_rate:.2e}, "
                                      f"{progress.images_per_second:.0f} images/s")
        if progress.batch % self.args.log_interval == 0:
            if self._bar is None or self._bar.disable:
                _logger.info(
                    "epoch %d, batch %d/%d: loss %.4f (mean %.4f), lr %.3e, %.1f images/s, %.0f%% of the time for "
                    "data, %s to the epoch's end", state.epoch, progress.batch, progress.batches, progress.loss,
                    state.mean_loss, state.learning_rate, progress.images_per_second, 100 * progress.data_share,
                    _remaining(progress))
            if self.args.save_images:
                _save_images(progress.images, self.folder / f"train-batch-{progress.batch}.jpg")
            if self._tensorboard is not None:
                self._tensorboard.add_scalar("step/loss", progress.loss, state.updates)
                self._tensorboard.add_scalar("step/lr", state.learning_rate, state.updates)

    def end_epoch(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Say and write what the last epoch came to."""
        if not self.is_main:
            return
        if self._bar is not None:
            self._bar.close()
        row = history[-1]
        _logger.info("epoch %d: %s", row["epoch"], ", ".join(
            f"{key} {value:.4g}" for key, value in row.items() if key != "epoch" and value is not None))
        self.write_summary(history)
        numbers = {key: value for key, value in row.items() if isinstance(value, (int, float))}
        if self._tensorboard is not None:
            for key, value in numbers.items():
                self._tensorboard.add_scalar(f"epoch/{key}", value, row["epoch"])
            self._tensorboard.flush()
        if self._wandb is not None:
            self._wandb.log(numbers, step=row["epoch"])

    def write_summary(self, history: Sequence[Mapping[str, Any]]) -> None:
        """summary.csv and curves.png, anew."""
        columns = list(dict.fromkeys(key for row in history for key in row))
        try:
            write_text(self.folder / "summary.csv", csv_text(columns, history))
            if self._can_draw:
                draw_curves(history, self.folder / "curves.png", f"Training of {self.args.model}",
                            describe_run(history, self.folder.resolve().name,
                                         self.args.dataset or Path(self.args.data_dir or "").name,
                                         self.args.eval_metric))
        except MissingPackageError as error:
            self._can_draw = False
            _logger.info("%s", error)
        except OSError as error:  # a full disk must not end the training
            _logger.error("summary.csv and curves.png were not written: %s", error)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish()


def _remaining(progress: Progress) -> str:
    size = dist.get_world_size() if is_parallel() else 1
    seconds = (progress.batches - progress.batch) * progress.count * size / max(progress.images_per_second, 1e-9)
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"


def _save_images(images: Any, path: Path) -> None:
    from torchvision.utils import save_image

    save_image(images.float(), path, padding=0, normalize=True)


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingPackageError("--log-tensorboard needs the package 'tensorboard': pip install tensorboard") \
            from None
    return SummaryWriter(folder / "tensorboard")


def _wandb(args: argparse.Namespace, values: Mapping[str, Any]) -> Any:
    try:
        import wandb
    except ImportError:
        raise MissingPackageError("--log-wandb needs the package 'wandb': pip install wandb") from None
    return wandb.init(project=args.wandb_project, name=args.experiment or None, tags=args.wandb_tags or None,
                      config=dict(values), resume="allow" if args.resume else None)
