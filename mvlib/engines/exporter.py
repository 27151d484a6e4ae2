"""`mvlib.export`: a model as a folder that another library runs."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..data.config import resolve_data_config
from ..errors import ConfigError
from ..factory import create_model
from ..features import FeatureExtractor
from ..inference.features import Features
from ..inference.model import digest_of, name_of
from ..layers.helpers import unwrap
from ..publish import hub_config
from .convert import convert
from .folder import FORMATS, EngineFolder, Tensor, new_folder, write_description
from .runtime import open_engine

__all__ = ["ExportReport", "export"]

_BOUND = 1e-4  # of the largest output: what an engine in float32 may differ by
_BATCHES = (1, 5)  # that outputs are compared on


@dataclass(frozen=True)
class ExportReport:
    """What `export` has done.

    Attributes:
        path: The folder.
        format, precision: As asked for.
        files: {name: bytes}.
        difference: Largest difference of outputs from torch's, over the largest output, on examples.
        seconds: What took how long: {"convert": ..., "check": ...}.
        notes: What else is worth knowing, a line each.
    """

    path: Path
    format: str
    precision: str
    files: dict[str, int]
    difference: float
    seconds: dict[str, float]
    notes: list[str] = field(default_factory=list)


def export(
    model: str | nn.Module,
    directory: str | os.PathLike[str],
    *,
    format: str = "openvino",
    precision: str = "float32",
    img_size: int | Sequence[int] | None = None,
    dynamic_batch: bool = True,
    batch_size: int | None = None,
    dynamic_size: bool = False,
    features: str | None = None,
    out_indices: int | Sequence[int] | None = None,
    calibrate: str | os.PathLike[str] | Sequence[Any] | None = None,
    calibrate_count: int = 300,
    quantize_exclude: Sequence[str] = (),
    labels: str | os.PathLike[str] | None = None,
    least_agreement: float = 0.97,
    seed: int = 0,
    force: bool = False,
) -> ExportReport:
    """Write a model as an export: a folder that `mvlib predict --model FOLDER` and others run without torch."""
    if format not in FORMATS:
        raise ConfigError(f"unknown format '{format}'; known: {', '.join(FORMATS)}")
    if isinstance(model, str):
        model = create_model(model)
    whole = unwrap(model).eval()
    classifier = whole.model if isinstance(whole, FeatureExtractor) else whole
    run: nn.Module = Features(classifier, features) if features else whole
    config = hub_config(classifier)
    data_config = resolve_data_config(model=classifier)
    size = tuple(data_config["input_size"])
    seconds = {}
    with new_folder(directory, replace=force) as place, torch.no_grad():
        example = torch.randn(2 if dynamic_batch else 1, *size)
        expected = _as_list(run(example))
        started = time.perf_counter()
        names = ["logits"] if len(expected) == 1 and not features else [f"features{i}" for i in range(len(expected))]
        versions = convert(format, run, example, place / FORMATS[format], dynamic_batch, names=names)
        seconds["convert"] = time.perf_counter() - started
        batch: int | str = "batch" if dynamic_batch else 1
        folder = write_description(EngineFolder(
            path=place, format=format, model=name_of(classifier), weights=digest_of(classifier), precision="float32",
            features=features, num_classes=classifier.num_classes, data_config=data_config,
            input=Tensor("images", (batch, *size)),
            outputs=tuple(Tensor(name, (batch, *value.shape[1:])) for name, value in zip(names, expected)),
            versions=versions, config=config))
        started = time.perf_counter()
        difference = max(_difference(run, folder, count) for count in (_BATCHES if dynamic_batch else (1,)))
        seconds["check"] = time.perf_counter() - started
        if difference > _BOUND and not force:
            raise ConfigError(f"outputs differ by {difference:.1e} of the largest, more than {_BOUND:.0e}; --force "
                              f"writes the export all the same")
        folder = replace(folder, measured={"difference": difference})
        if precision == "int8":
            started = time.perf_counter()
            # Takes the staged export in float32, whose engine files it replaces; gives it as int8, measured.
            folder = importlib.import_module(f"{__package__}.quantize").quantize(
                folder, run, calibrate, count=calibrate_count, exclude=quantize_exclude, labels=labels,
                least_agreement=least_agreement, seed=seed, force=force)
            seconds["quantize"] = time.perf_counter() - started
        write_description(folder)
        files = {path.name: path.stat().st_size for path in sorted(place.iterdir())}
    return ExportReport(Path(directory), format, precision, files, difference, seconds)


def _as_list(outputs: Any) -> list[torch.Tensor]:
    return [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)


def _difference(run: Callable[[torch.Tensor], Any], folder: EngineFolder, count: int) -> float:
    images = torch.randn(count, *folder.data_config["input_size"], generator=torch.Generator().manual_seed(count))
    found = open_engine(folder)(images.numpy())
    pairs = zip(_as_list(run(images)), found)
    return max(float(np.abs(want.numpy() - have).max() / np.abs(want.numpy()).max()) for want, have in pairs)
