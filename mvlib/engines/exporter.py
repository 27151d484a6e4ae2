"""`mvlib.export`: a model as a folder that another library runs."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..devices import find_device
from ..errors import CheckpointError, ConfigError, ExportError
from ..names import closest
from .convert import convert
from .folder import FORMATS, PRECISIONS, EngineFolder, format_of_place, new_folder, write_description
from .quantize import check, quantize, summary
from .runtime import open_engine, require_for_export
from .subject import Outputs, Subject, examples, load

__all__ = ["ExportReport", "export"]

_logger = logging.getLogger("mvlib")
_BOUND = 1e-4  # of the largest output: what an engine in float32 may differ by
_GPU_BOUND = 5e-3  # on a GPU, where each of cuDNN's kernels rounds float32 to TF32 in its own way
_BATCHES = (1, 5)  # that outputs are compared on


@dataclass(frozen=True)
class ExportReport:
    """What `export` has done. `str(report)` says it in a few lines.

    Attributes:
        path: The folder.
        model: Name of what was exported.
        format, precision: As asked for.
        files: {name: bytes}.
        difference: Largest difference of outputs from torch's, over the largest output, on examples.
        measured: All that was found, as engine.json has it.
        seconds: What took how long: {"load": ..., "convert": ..., "check": ...}.
        notes: What else is worth knowing, a line each.
    """

    path: Path
    model: str
    format: str
    precision: str
    files: dict[str, int]
    difference: float
    measured: dict[str, Any]
    seconds: dict[str, float]
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        files = ", ".join(f"{name} {size / 2**20:.1f} MiB" for name, size in self.files.items() if size >= 1 << 16)
        took = ", ".join(f"{what} {seconds:.1f} s" for what, seconds in self.seconds.items())
        return "\n".join([f"{self.path}: {self.model} in {FORMATS[self.format].title}, {self.precision}",
                          f"  files  {files}",
                          f"  check  outputs {'in float32 ' if self.precision == 'int8' else ''}differ from torch's by "
                          f"{self.difference:.1e} of the largest",
                          *([f"  int8   {summary(self.measured)}"] if self.precision == "int8" else []),
                          f"  time   {took}", *(f"  note   {note}" for note in self.notes)])


def export(
    model: str | os.PathLike[str] | nn.Module,
    directory: str | os.PathLike[str],
    *,
    format: str | None = None,
    precision: str = "float32",
    checkpoint: str | os.PathLike[str] | None = None,
    img_size: int | Sequence[int] | None = None,
    dynamic_batch: bool = True,
    batch_size: int | None = None,
    dynamic_size: bool = False,
    features: str | None = None,
    out_indices: int | Sequence[int] | None = None,
    calibrate: str | os.PathLike[str] | Sequence[Any] | None = None,
    calibrate_count: int = 100,
    quantize_exclude: Sequence[str] = (),
    labels: str | os.PathLike[str] | None = None,
    least_agreement: float = 0.97,
    seed: int = 0,
    device: str | torch.device = "cpu",
    force: bool = False,
) -> ExportReport:
    """Write a model as an export: a folder that `mvlib predict --model FOLDER`, and other programs, run without torch.

    What the engine answers is compared with what torch does, on pictures and noise in batches of 1 and 5 (in those that
    it takes), and of other sizes where it takes any. The folder is there when all of it is.

    Args:
        model: A name, as `create_model` takes it, but that an architecture alone means its default weights; the folder
            of a repository ("RUN/export"); or a model that `create_model` has built, a classifier or
            `features_only`, on any device. It is not changed, and exported in float32.
        directory: The folder. One that exists is not written to, unless it is empty.
        format: "openvino", "onnx", "torch-export", "torchscript" or "aotinductor" (machine code); None for what the
            folder's name ends in (.ov, .onnx, .pt2), else "openvino".
        precision: "float32", or "int8": quantized after training, with pictures.
        checkpoint: Weights file instead of the published ones, for a name.
        img_size: Height and width of the images, in pixels, instead of the weights' own.
        dynamic_batch: Whether batches of any size are taken, or only of `batch_size`.
        batch_size: The only size of batches; 1 where `dynamic_batch` is false.
        dynamic_size: Whether images of any size are taken, if the model can.
        features: In the place of classes: "pooled", what the classifier reads; "tokens", the final features before
            pooling; "maps", what `features_only` gives; or the number or module of a level.
        out_indices: Which of the maps, as `create_model` takes it.
        calibrate: Pictures for int8: a folder, or a list of files.
        calibrate_count: How many of them are drawn.
        quantize_exclude: Parts of the model that stay float32.
        labels: A folder of pictures, one folder a class, that accuracy is measured on before and after.
        least_agreement: Share of pictures whose likeliest class has to stay the same in int8.
        seed: What the pictures are drawn by.
        device: What "aotinductor" compiles for: the kind of processor or GPU that is here.
        force: Replace an export that is there, and write one whose outputs differ too much.

    Raises:
        ConfigError: The arguments contradict each other or the model, the format cannot take the model, or the path is
            taken.
        ExportError: The engine does not answer as the model does.
        MissingPackageError: The format's library is not installed.
        UnknownNameError, WeightsError: Of `create_model`.
        OSError: The folder cannot be written, or the disk is full.
    """
    if format is not None and format not in FORMATS:
        raise ConfigError(f"unknown format '{format}'{closest(format, FORMATS) or '; known: ' + ', '.join(FORMATS)}")
    format = format_of_place(directory, format)
    if precision not in PRECISIONS:
        raise ConfigError(f"unknown precision '{precision}': an export is in {' or '.join(PRECISIONS)}")
    if batch_size is not None and batch_size < 1:
        raise ConfigError(f"batch_size is a number of images, not {batch_size}")
    if out_indices is not None and features not in (None, "maps"):
        raise ConfigError(f"out_indices chooses maps, and features='{features}' are none")
    if checkpoint is not None and isinstance(model, nn.Module):
        raise ConfigError("checkpoint goes with the name of a model; this model has weights")
    place_of_engine = find_device(device)
    if format != "aotinductor" and place_of_engine.type != "cpu":
        raise ConfigError(f"device='{device}' goes with the format aotinductor: what is exported as {format} is for "
                          f"any device that its library runs on")
    bound = _BOUND if place_of_engine.type == "cpu" else _GPU_BOUND
    require_for_export(format)
    if precision == "int8":
        check(format, calibrate)
    features = "maps" if out_indices is not None else features
    batches = (batch_size or 1,) if batch_size or not dynamic_batch else _BATCHES
    seconds: dict[str, float] = {}
    notes: list[str] = []
    with new_folder(directory, replace=force) as place, torch.no_grad(), _full_disk(place, directory):
        with _timed(seconds, "load"):
            module = model if isinstance(model, nn.Module) else load(model, checkpoint, img_size, dynamic_size)
            subject = Subject(module, img_size, features, out_indices, dynamic_size, place_of_engine)
            sizes = [subject.size, *(subject.other_sizes() if dynamic_size else ())]
            inputs = [examples(count, size, subject.data_config) for count in batches for size in sizes]
            inputs += [examples(batches[0], subject.size, subject.data_config, first) for first in (2, 3)]  # by value
            expected = [subject.answers(images) for images in inputs]
        if not all(np.isfinite(output).all() for outputs in expected for output in outputs):
            notes.append("its outputs in torch are not finite numbers: its weights are damaged, or too large for "
                         "float32")
            if not force:
                raise _refused(subject, format, notes[0])
        if shutil.disk_usage(place).free < subject.nbytes():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(directory))
        _logger.info("converting %s to %s", subject.name, FORMATS[format].title)
        with _timed(seconds, "convert"):
            example = examples(2 if batches is _BATCHES else batches[0], subject.size, subject.data_config)
            versions = convert(
                format, subject.run, torch.from_numpy(example).to(place_of_engine), place / FORMATS[format].file,
                batches is _BATCHES, dynamic_size=dynamic_size, names=subject.output_names(expected[0]),
                title=subject.name)
            folder = write_description(subject.describe(place, format, inputs, expected, versions))
        _logger.info("comparing its outputs with torch's")
        with _timed(seconds, "check"):
            difference = _difference(folder, inputs, expected, place_of_engine)
        if not difference <= bound:
            notes.append(f"outputs differ from torch's by {difference:.1e} of the largest, more than {bound:.0e}")
            if not force:
                raise _refused(subject, format, notes[-1])
        measured = {"difference": difference, "batches": list(batches), "sizes": [list(size) for size in sizes]}
        folder = replace(folder, measured=measured)
        if precision == "int8":
            _logger.info("calibrating and measuring int8")
            with _timed(seconds, "quantize"):
                folder = quantize(
                    folder, subject.run, calibrate, count=calibrate_count, exclude=quantize_exclude, labels=labels,
                    least_agreement=least_agreement, seed=seed, force=force)
        folder = write_description(folder)
        files = {path.name: path.stat().st_size for path in sorted(place.iterdir())}
    return ExportReport(Path(directory), folder.model, format, precision, files, difference, dict(folder.measured),
                        seconds, notes)


def _refused(subject: Subject, format: str, reason: str) -> ExportError:
    return ExportError(f"'{subject.name}' in {FORMATS[format].title}: {reason}; nothing was written (--force writes "
                       f"it all the same)")


def _difference(
    folder: EngineFolder, inputs: Sequence[np.ndarray], expected: Sequence[Outputs], device: torch.device
) -> float:
    """The largest difference of an engine's outputs from those expected, over the largest output; infinite where only
    one of the two is a number.

    Raises:
        ExportError: The engine fails, or gives other shapes.
    """
    engine = open_engine(folder, threads=torch.get_num_threads(), device=str(device))
    worst, title = 0.0, FORMATS[folder.format].title
    for images, wanted in zip(inputs, expected):
        shown = " x ".join(map(str, images.shape))
        try:
            found = engine(images)
        except Exception as error:  # the libraries' errors have no base of their own
            reason = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            raise ExportError(f"'{folder.model}' was converted to {title}, but fails on images of {shown}, so "
                              f"that the size of the example must have got into it: {reason[-1]}; fix the batch "
                              f"(--batch-size), leave out --dynamic-size, or take another format") from error
        for tensor, want, have in zip(folder.outputs, wanted, found, strict=True):
            if want.shape != have.shape:
                raise ExportError(f"'{folder.model}' was converted to {title}, but gives {tensor.name} of "
                                  f"{have.shape}, not {want.shape}, for images of {shown}")
            worst = max(worst, _relative(want, have))
    return worst


def _relative(want: np.ndarray, have: np.ndarray) -> float:
    numbers = np.isfinite(want)
    if not np.array_equal(numbers, np.isfinite(have)):
        return np.inf
    want, have = want[numbers], have[numbers]
    gap, largest = float(np.abs(want - have).max(initial=0.0)), float(np.abs(want).max(initial=0.0))
    return gap / largest if largest else gap


@contextmanager
def _timed(seconds: dict[str, float], what: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[what] = time.perf_counter() - started


@contextmanager
def _full_disk(place: Path, directory: str | os.PathLike[str]) -> Iterator[None]:
    """The libraries call a full disk many names, or none: an engine cut short fails its check."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            error.filename = os.fspath(directory)  # the name that its user knows
        raise
    except (ConfigError, CheckpointError, ExportError) as error:
        if shutil.disk_usage(place).free > 1 << 20:
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(directory)) from error
