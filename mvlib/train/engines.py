"""Validation and inference by engines: exports, and models that are converted for the occasion."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..data.config import resolve_data_config
from ..engines.folder import read_export
from ..engines.module import EngineModule, temporary_module
from ..engines.runtime import ENGINES
from ..errors import ConfigError
from ..optimization import optimize

__all__ = ["check_engine_options", "convert", "open_export"]

_logger = logging.getLogger("mvlib")
_EXAMPLE = 16  # images that a model is converted and timed with, at most


def open_export(name: str, checkpoint: str | None, args: argparse.Namespace) -> tuple[EngineModule, dict[str, Any]]:
    """An export as a model, and how its inputs are prepared: as it says, but for what the user names.

    Raises:
        ConfigError: It is no classifier, or an argument asks for something else than what was exported.
    """
    folder = read_export(name)
    if folder.features is not None:
        raise ConfigError(f"{folder.path} is an export of features ('{folder.features}'), which has no classes to "
                          f"measure: export {folder.made_of} without --features")
    channels = args.in_chans or (args.input_size[0] if args.input_size else None)
    fixed = {"--checkpoint": checkpoint, "--no-pretrained": not args.pretrained, "--gp": args.gp,
             "--model-kwargs": args.model_kwargs, "--num-classes": args.num_classes not in (None, folder.num_classes),
             "--in-chans": channels not in (None, folder.input.shape[1])}
    for option, asked in fixed.items():
        if asked:
            raise ConfigError(f"{folder.path} is an export, with its weights and its form: leave out {option}, or name "
                              f"the model that is meant")
    module = EngineModule(folder, precision=args.precision)
    if args.backend not in (None, "auto", module.backend):
        raise ConfigError(f"{folder.path} is an export for {module.backend}, which {args.backend} does not run: leave "
                          f"out --backend, or export {folder.made_of} with another --format")
    check_engine_options(args)
    wanted = {key: value for key, value in vars(args).items() if value not in (None, "")}
    config = resolve_data_config({**wanted, "in_chans": module.in_chans}, pretrained_cfg=module.data_config)
    _, _, *sides = folder.input.shape
    height, width = config["input_size"][1:]
    if any(isinstance(side, int) and side != asked for side, asked in zip(sides, (height, width))):
        raise ConfigError(f"{folder.path} takes images of {' x '.join(map(str, sides))}, not {height} x {width}: leave "
                          f"out --img-size, or export {folder.made_of} with it")
    return module, config


def check_engine_options(args: argparse.Namespace) -> None:
    """Refuse what is torch's alone beside an engine.

    Raises:
        ConfigError: It was asked for.
    """
    if args.backend != "auto" and args.device and args.device.partition(":")[0] != "cpu":
        raise ConfigError(f"engines run on the CPU, not on {args.device}: leave out --device, or take --backend torch")
    if args.amp:
        raise ConfigError("--amp is torch's, and an engine runs no torch: --precision bfloat16 says the type")
    if args.torchcompile:
        raise ConfigError("--torchcompile is torch's, and an engine is compiled already: give one of them")


def convert(
    model: nn.Module, config: Mapping[str, Any], args: argparse.Namespace, device: torch.device, dataset: Any
) -> nn.Module:
    """The model as an engine; by "auto" as whatever is fastest on the device.

    Raises:
        ConfigError, MissingPackageError: As of `optimize`, and of `mvlib.export` for int8.
    """
    if args.precision == "int8":
        return _quantize(model.eval().to("cpu"), config, args, dataset)
    if args.backend != "auto":
        device = torch.device("cpu")
    example = torch.empty(min(args.batch_size, _EXAMPLE), *config["input_size"], device=device).uniform_(-1, 1)
    module, report = optimize(model.eval().to(device), example, backend=args.backend, dtype=args.precision)
    for step in report.steps:
        if step.name == "engine":
            _logger.info("%s", step.note)
    return module


def _quantize(model: nn.Module, config: Mapping[str, Any], args: argparse.Namespace, dataset: Any) -> EngineModule:
    """The model in int8, calibrated on a folder, or on a sample of the data set."""
    from ..engines.exporter import export

    pictures = args.calibrate or _files(dataset)

    def make(place: Path) -> None:
        report = export(model, place, format=ENGINES["openvino" if args.backend == "auto" else args.backend],
                        precision="int8", img_size=config["input_size"][1:], calibrate=pictures,
                        force=True)  # how good it is, is what is to be measured
        _logger.info("int8 in %.1f s, calibrated on %d pictures: %.1f %% of the answers are those of float32",
                     sum(report.seconds.values()), report.measured["calibrated_on"], 100 * report.measured["agreement"])
        for note in report.notes:
            _logger.warning("%s", note)

    return temporary_module(make, model)


def _files(dataset: Any) -> list[str]:
    """Of a data set that is a folder of images."""
    names = [] if isinstance(dataset, torch.utils.data.IterableDataset) else dataset.filenames(absolute=True)
    if not names or not Path(names[0]).is_file():
        raise ConfigError("int8 is calibrated on image files, and this data set is none of such: name a folder of them "
                          "with --calibrate")
    return names
