"""Published and trained models measured on a data set: accuracy, loss, speed."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..cli.checks import expand_models
from ..cli.output import kind_of, render, write_text
from ..costs import costs_of
from ..data.config import image_mode, resolve_data_config
from ..data.dataset_factory import create_dataset
from ..data.loader import create_loader
from ..data.readers import match_classes
from ..devices import find_device
from ..engines.folder import is_export
from ..engines.module import EngineModule
from ..errors import ConfigError, DataError, MvlibError
from ..factory import known_arguments
from ..files import read_text
from ..inference.model import class_names_of, known_class_names, load_model
from ..inference.pipeline import NO_ANSWER
from ..loading import read_training_facts
from ..memory import is_out_of_memory
from ..optimization import OptimizedModel
from ..optimization.folding import fold_batch_norms
from ..threads import fitting_workers
from . import naflex
from .engine import logits_of
from .engines import check_engine_options, convert, open_export
from .model import prepare_model
from .precision import autocast_for

__all__ = ["evaluate", "expand_models", "fold_batch_norms", "infer", "read_label_lists", "write_results"]

_logger = logging.getLogger("mvlib")
COLUMNS = ("model", "top1", "top1_err", "top5", "top5_err", "loss", "images", "images_per_second", "param_count",
           "img_size", "crop_pct", "interpolation", "batch_size", "backend", "precision", "error")
_NO_NUMBERS = ("'{}' gives NaN or infinity for every image: its weights are damaged, or its numbers too large for the "
               "precision")
_NO_CLASS = -2  # no image's


def read_label_lists(path: str, names: Sequence[str]) -> list[set[int]]:
    """The labels that count as right for each image; an empty set leaves it out.

    Args:
        path: JSON: {file name: [labels]}, or a list with one list an image in the order of ImageNet's validation
            files (Beyer et al., "Are we done with ImageNet?", 2020: real.json).
        names: File names of the data set's images.

    Raises:
        ConfigError: Not such a file, or an image that it does not know.
    """
    try:
        data = json.loads(read_text(path))
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from None
    if isinstance(data, list):
        data = {f"ILSVRC2012_val_{number:08d}": labels for number, labels in enumerate(data, start=1)}
    if not isinstance(data, dict) or not all(
            isinstance(labels, list) and all(isinstance(label, int) for label in labels) for labels in data.values()):
        raise ConfigError(f"{path} does not give a list of labels, which are numbers, for each image")
    known = {**{Path(name).stem: labels for name, labels in data.items()}, **data}
    keys = [name if name in data else Path(name).stem for name in names]
    missing = [name for name, key in zip(names, keys) if key not in known]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ConfigError(f"{path} has no labels for {missing[0]}{more}")
    return [set(known[key]) for key in keys]


def evaluate(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure each model that the arguments name; one that fails has an `error` and does not stop the others."""
    device, autocast = _place(args)
    dataset = _dataset(args)
    rows = []
    models = expand_models(args.model, args.checkpoint, args.pretrained)
    for name, checkpoint in models:
        label = checkpoint if checkpoint and len(models) > 1 else name or checkpoint
        try:
            rows.append({"model": label, **_measure(name, checkpoint, dataset, args, device, autocast)})
            _logger.info("%s: top-1 %.3f, top-5 %.3f, %.1f images/s", label, rows[-1]["top1"], rows[-1]["top5"],
                         rows[-1]["images_per_second"])
        except (MvlibError, OSError) as error:
            if len(models) == 1:
                raise
            _logger.error("%s: %s", label, error)
            rows.append({"model": label, "error": str(error).splitlines()[0]})
        if args.results_file:
            write_results(rows, args.results_file, args.results_format)
    return rows


def _place(args: argparse.Namespace) -> tuple[torch.device, Callable[[], Any]]:
    """Where torch runs models, and in what context."""
    if args.backend not in (None, "torch"):
        check_engine_options(args)
    device = find_device(args.device)
    if not args.amp or is_export(args.model or ""):  # which refuses --amp on any processor
        return device, contextlib.nullcontext
    return device, autocast_for(device, args.amp_dtype, args.force)[0]


def infer(
    args: argparse.Namespace,
) -> tuple[str, dict[str, Any], list[tuple[str, list[int], list[float], list[str]]], int]:
    """The likeliest classes of each image of a data set.

    Returns:
        The architecture, the data config, (file name, classes, outputs, class names) for each image that can be
        read and that the model has finite outputs for, in the data set's order, and how many others there are.

    Raises:
        DataError: There are others alone.
    """
    device, autocast = _place(args)
    dataset = _dataset(args)
    model, config = _load(args.model, args.checkpoint, args)
    names = class_names_of(model)
    dataset.input_img_mode = image_mode(config["input_size"][0], args.input_img_mode)
    architecture = model.architecture
    model, device = _ready(model, config, args, device, dataset)
    dataset.target_transform = None
    loader = _loader(_Numbered(dataset), config, args.batch_size, args, device, model)
    found, unanswered = [], []
    with torch.inference_mode():
        for images, numbers in loader:
            outputs = logits_of(model, images, autocast)
            good = outputs.amax(-1).isfinite()
            numbers = numbers.to(good.device)
            unanswered += [dataset.filename(number) for number in numbers[~good].tolist()]
            outputs, numbers = outputs[good], numbers[good]
            if args.output_type == "prob":
                outputs = outputs.softmax(-1)
            values, indices = outputs.topk(min(args.topk, outputs.shape[1]))
            for number, row, best in zip(numbers.tolist(), values.tolist(), indices.tolist()):
                name = dataset.filename(number, absolute=True) if args.fullname else dataset.filename(number)
                found.append((name, best, row, [names[index] for index in best]))
    for sample, reason in loader.bad_samples:
        _logger.warning("not read: %s: %s", sample, reason)
    if unanswered and not found:
        raise DataError(_NO_NUMBERS.format(architecture))
    for sample in unanswered:
        _logger.warning("%s: %sthe model gives NaN or infinity for it", sample, NO_ANSWER)
    return architecture, config, found, len(loader.bad_samples) + len(unanswered)


class _Numbered:
    """A data set whose targets are the numbers of its samples."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.dataset[index][0], index

    def __getattr__(self, name: str) -> Any:
        if name == "dataset":
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "dataset":
            super().__setattr__(name, value)
        else:
            setattr(self.dataset, name, value)


def _dataset(args: argparse.Namespace) -> Any:
    keys = {key: value for key in ("input_key", "target_key") if (value := getattr(args, key))}
    return create_dataset(
        args.dataset, root=args.data_dir, split=args.split, is_training=False, class_map=args.class_map,
        num_samples=args.num_samples, download=args.dataset_download, batch_size=args.batch_size, **keys)


def _loader(
    dataset: Any, config: Mapping[str, Any], batch_size: int, args: argparse.Namespace, device: torch.device,
    model: nn.Module,
) -> Any:
    if args.naflex_loader:
        return naflex.eval_loader(args, dataset, config, model, batch_size=batch_size, device=device)
    special = {key: config[key] for key in ("preprocessing", "resize_size", "antialias") if key in config}
    return create_loader(
        dataset, input_size=config["input_size"], batch_size=batch_size, is_training=False,
        interpolation=config["interpolation"], mean=config["mean"], std=config["std"],
        num_workers=fitting_workers(args.workers),
        crop_pct=config["crop_pct"], crop_mode=config["crop_mode"], pin_memory=args.pin_mem or None, device=device,
        use_prefetcher=not args.no_prefetcher, max_bad=args.max_bad_samples, backend=args.preprocess, **special)


def _measure(
    name: str, checkpoint: str | None, dataset: Any, args: argparse.Namespace, device: torch.device,
    autocast: Callable[[], Any],
) -> dict[str, Any]:
    model, config = _load(name, checkpoint, args)
    valid = _classes(model, dataset, args)
    dataset.input_img_mode = image_mode(config["input_size"][0], args.input_img_mode)
    params = _count_parameters(model)
    model, device = _ready(model, config, args, device, dataset)
    answers = read_label_lists(args.real_labels, dataset.filenames()) if args.real_labels else None
    batch_size = args.batch_size
    while True:
        try:
            sums, seconds, bad = _run(model, dataset, config, batch_size, args, device, autocast, valid, answers)
            break
        except (MemoryError, RuntimeError) as error:
            if batch_size == 1 or not is_out_of_memory(error):
                raise
        batch_size //= 2
        if device.type == "cuda":
            torch.cuda.empty_cache()
        _logger.warning("out of memory: on with batches of %d", batch_size)
    if not sums["images"]:
        raise ConfigError("no image could be measured")
    for sample, reason in bad:
        _logger.warning("not read: %s: %s", sample, reason)
    if sums["unanswered"] == sums["seen"]:
        raise DataError(_NO_NUMBERS.format(name or checkpoint))
    if sums["unanswered"]:
        _logger.warning("the model gives NaN or infinity for %d of %d images, which count as wrong, and not in the "
                        "loss", sums["unanswered"], sums["seen"])
    top1, top5 = (100 * sums[key] / sums["images"] for key in ("top1", "top5"))
    return {
        "top1": round(top1, 4), "top1_err": round(100 - top1, 4), "top5": round(top5, 4),
        "top5_err": round(100 - top5, 4), "loss": round(sums["loss"] / max(sums["losses"], 1), 5),
        "images": int(sums["images"]), "images_per_second": round(sums["seen"] / seconds, 2),
        "param_count": params and round(params / 1e6, 2), "img_size": config["input_size"][-1],
        "crop_pct": round(config["crop_pct"], 4), "interpolation": config["interpolation"], "batch_size": batch_size,
        **_how(model, args),
    }


def _count_parameters(model: nn.Module) -> int | None:
    """Of an export, as far as they are known of its architecture."""
    if isinstance(model, EngineModule):
        return costs_of(model.weights_config).get("params")
    return sum(parameter.numel() for parameter in model.parameters())


def _ready(
    model: nn.Module, config: Mapping[str, Any], args: argparse.Namespace, device: torch.device, dataset: Any
) -> tuple[nn.Module, torch.device]:
    """A loaded model made fast, and where it runs."""
    if not isinstance(model, EngineModule) and args.backend not in (None, "torch"):
        model = convert(model, config, args, device, dataset)
        if not isinstance(model, EngineModule):
            return model, device
    if isinstance(model, EngineModule):
        return model, torch.device("cpu")
    model = prepare_model(model.eval(), device, args.channels_last, args.amp)
    if getattr(args, "fold_bn", True):
        fold_batch_norms(model, torch.zeros(2, *config["input_size"], device=device).uniform_(-1, 1))
    if args.torchcompile:
        model = torch.compile(model, backend=args.torchcompile)
    return model, device


def _how(model: nn.Module, args: argparse.Namespace) -> dict[str, str]:
    if isinstance(model, EngineModule):
        return {"backend": model.backend, "precision": model.precision}
    precision = "mixed" if args.amp else "int8" if getattr(model, "is_quantized", False) else \
        model.report.dtype if isinstance(model, OptimizedModel) else "float32"
    return {"backend": "torch", "precision": precision}


def _load(name: str, checkpoint: str | None, args: argparse.Namespace) -> tuple[nn.Module, dict[str, Any]]:
    """The model and how its inputs are prepared: as the weights or the checkpoint say, but for what the user names."""
    if name and is_export(name):
        return open_export(name, checkpoint, args)
    facts = read_training_facts(checkpoint) if checkpoint is not None else {}
    name = name or facts.get("arch", "")
    if not name:
        raise ConfigError(f"{checkpoint} does not say of which model it is; name it with --model")
    given = {"num_classes": args.num_classes, "global_pool": args.gp,
             "in_chans": args.in_chans or (args.input_size[0] if args.input_size else None), **args.model_kwargs}
    side = args.input_size[1:] if args.input_size else args.img_size
    if side and "img_size" in (known_arguments(name) or ()):
        given["img_size"] = side
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    model = load_model(name, checkpoint, what="validate", pretrained=args.pretrained and checkpoint is None, **given)
    wanted = {key: value for key, value in vars(args).items() if value not in (None, "")}
    config = resolve_data_config({**wanted, "in_chans": model.in_chans}, model=model,
                                 use_test_size=not args.use_train_size)
    return model, config


def _classes(model: nn.Module, dataset: Any, args: argparse.Namespace) -> Tensor | None:
    """The model's outputs that the data set's labels stand for; None where the numbers are the same.

    Raises:
        ConfigError: Their classes are not the same.
    """
    valid = _valid_labels(args.valid_labels, model.num_classes) if args.valid_labels else None
    classes, outputs = dataset.classes, model.num_classes if valid is None else len(valid)
    advice = "--valid-labels names the model's outputs that are meant, --class-map the data set's labels"
    if classes is not None and len(classes) != outputs:
        raise ConfigError(f"{model.architecture} has {outputs} classes and the data set {len(classes)}; {advice}")
    if valid is not None:
        return valid
    label_set = None if model.weights_config.label_names else model.weights_config.label_set
    try:
        order = match_classes(classes, known_class_names(model), label_set)
    except ConfigError as error:
        if args.class_map:  # the user has said what the numbers are
            return None
        raise ConfigError(f"{error}; {advice}") from None
    if order is None:
        return None
    _logger.info("the model has the data set's classes in another order: they are compared by name")
    return torch.tensor(order)


def _valid_labels(path: str, outputs: int) -> Tensor:
    """The model's outputs that count, in the order of the data set's labels."""
    words = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    try:
        labels = [int(word) for word in words]
    except ValueError:
        raise ConfigError(f"{path}: a line is not the number of an output") from None
    if not labels or min(labels) < 0 or max(labels) >= outputs:
        raise ConfigError(f"{path}: outputs are numbered from 0 to {outputs - 1}")
    return torch.tensor(labels)


@torch.inference_mode()
def _run(
    model: nn.Module, dataset: Any, config: Mapping[str, Any], batch_size: int, args: argparse.Namespace,
    device: torch.device, autocast: Callable[[], Any], valid: Tensor | None, answers: list[set[int]] | None,
) -> tuple[dict[str, float], float, list[tuple[str, str]]]:
    from tqdm import tqdm

    loader = _loader(dataset, config, batch_size, args, device, model)
    sums = dict.fromkeys(("top1", "top5", "loss", "losses", "images", "seen", "unanswered"), 0.0)
    pending: list[Tensor] = []
    started = time.perf_counter()
    guesses: list[Tensor] = []
    for images, targets in tqdm(loader, unit="batch", disable=None, leave=False):
        targets = targets.to(device, non_blocking=True)
        outputs = logits_of(model, images, autocast)
        if valid is not None:
            outputs = outputs[:, valid.to(device)]
        good = outputs.amax(-1).isfinite()
        best = outputs.topk(min(5, outputs.shape[1])).indices.where(good[:, None], _NO_CLASS)
        sums["seen"] += len(targets)
        unanswered = (~good).sum().item()
        sums["unanswered"] += unanswered
        if answers is not None:
            guesses.append(best.cpu())
        else:
            hits = best == targets[:, None]
            pending.append(torch.stack([hits[:, 0].sum(), hits.sum()]))
        if unanswered:
            outputs, targets = outputs[good], targets[good]
        # Loss over labels that the model has no output for (-1: a data set without labels) is left out.
        sums["loss"] += nn.functional.cross_entropy(outputs, targets, reduction="sum", ignore_index=-1).item()
        sums["losses"] += len(targets)
    seconds = time.perf_counter() - started
    bad = loader.bad_samples
    if answers is not None:
        if bad:
            raise ConfigError(f"--real-labels need every image, and {bad[0][0]} cannot be read: {bad[0][1]}")
        for guess, right in zip(torch.cat(guesses).tolist(), answers):
            if right:
                sums["images"] += 1
                sums["top1"] += guess[0] in right
                sums["top5"] += bool(right.intersection(guess))
    elif pending:
        sums["top1"], sums["top5"] = torch.stack(pending).sum(0).tolist()
        sums["images"] = sums["seen"]
    return sums, seconds, bad


def write_results(rows: Sequence[Mapping[str, Any]], path: str | None, kind: str | None = None) -> None:
    """Write results as CSV, JSON or a Markdown table, by the file's ending unless `kind` says; to the terminal if
    there is no path.

    Raises:
        ConfigError: An unknown format.
    """
    if path:
        write_text(Path(path), render(rows, COLUMNS, kind_of(path, kind)))
    else:
        print(render(rows, COLUMNS, "table"), end="")
