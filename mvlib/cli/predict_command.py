"""`mvlib predict`: photographs to classes."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadImageError, ConfigError

if TYPE_CHECKING:
    import torch

DEFAULT_MODEL = "tf_efficientnet_lite0.pip_in1k"  # its weights come from the package index, so no hub is needed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", metavar="INPUT",
                        help="image files, folders (searched recursively), or - for a list of files on standard input")
    parser.add_argument("--model", help=f"name of the model (default: the checkpoint's, or {DEFAULT_MODEL})")
    parser.add_argument("--checkpoint", metavar="FILE",
                        help="weights to load instead of the published ones; a training checkpoint brings its model, "
                             "preprocessing and class names")
    parser.add_argument("--topk", type=_positive, default=5, help="classes to report (default: %(default)s)")
    parser.add_argument("--format", choices=("table", "json", "jsonl", "csv"), default="table")
    parser.add_argument("--batch-size", type=_positive, default=16, help="images at once (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="where the model runs (default: %(default)s)")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a positive number")
    return value


def run(arguments: argparse.Namespace) -> int:
    import warnings

    import torch
    from PIL import Image

    from ..data import create_transform, find_images

    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # open_image refuses such a file with a reason
    files = list(find_images(_expand_inputs(arguments.inputs)))
    if not files:
        raise ConfigError(f"no images in {', '.join(arguments.inputs)}")
    model, data_config, names = _load(arguments)
    transform = create_transform(**data_config)
    writer = _WRITERS[arguments.format](min(arguments.topk, model.num_classes))
    failures: list[tuple[Path, str]] = []
    with torch.inference_mode():
        for paths, images in _batches(_progress(files), transform, arguments.batch_size, failures):
            probabilities = model(images.to(arguments.device)).float().softmax(dim=-1)
            values, indices = probabilities.topk(min(arguments.topk, model.num_classes))
            for path, row_values, row_indices in zip(paths, values.tolist(), indices.tolist()):
                writer.write(path, [(index, names[index], value) for index, value in zip(row_indices, row_values)])
    writer.close()
    for path, reason in failures:
        print(f"mvlib: not read: {path}: {reason}", file=sys.stderr)
    if failures:
        print(f"mvlib: {len(failures)} of {len(files)} images could not be read", file=sys.stderr)
    return 1 if failures else 0


def _load(arguments: argparse.Namespace) -> tuple[Any, dict[str, Any], list[str]]:
    """The model, how its inputs are prepared, and what its classes are called."""
    from ..data import resolve_data_config
    from ..factory import create_model
    from ..loading import read_training_facts

    facts = read_training_facts(arguments.checkpoint) if arguments.checkpoint else {}
    name = arguments.model or facts.get("arch") or DEFAULT_MODEL
    own = facts if facts.get("arch") == name else {}
    built = {key: tuple(value) if isinstance(value, list) else value
             for key, value in (own.get("model_args") or {}).items()}
    if own.get("num_classes"):
        built["num_classes"] = own["num_classes"]
    model = create_model(name, pretrained=not arguments.checkpoint, checkpoint_path=arguments.checkpoint,
                         device=arguments.device, **built).eval()
    if model.num_classes < 1:
        raise ConfigError(f"'{name}' has no classes to predict: its weights are for features")
    config = resolve_data_config(model=model, use_test_size=False)
    config.update({key: tuple(value) if isinstance(value, list) else value
                   for key, value in (own.get("data_config") or {}).items()})
    names = [str(label) for label in own.get("classes") or ()]
    return model, config, names if len(names) == model.num_classes else class_names_of(model)


def _expand_inputs(inputs: Iterable[str]) -> Iterator[str]:
    for item in inputs:
        if item == "-":
            yield from filter(None, (line.rstrip("\r\n") for line in sys.stdin))
        else:
            yield item


def _progress(files: list[Path]) -> Iterable[Path]:
    from tqdm import tqdm

    return tqdm(files, unit="image", disable=None)  # None: shown on a terminal alone


def _batches(
    files: Iterable[Path], transform: Any, batch_size: int, failures: list[tuple[Path, str]]
) -> Iterator[tuple[list[Path], torch.Tensor]]:
    import torch

    from ..data import open_image

    paths, images = [], []
    for path in files:
        try:
            images.append(transform(open_image(path)))
            paths.append(path)
        except (BadImageError, OSError) as error:
            failures.append((path, str(error).removeprefix(f"{path}: ")))
        if len(paths) == batch_size:
            yield paths, torch.stack(images)
            paths, images = [], []
    if paths:
        yield paths, torch.stack(images)


def class_names_of(model: Any) -> list[str]:
    """What a model's outputs are called, as far as its weights know."""
    from ..data.labels import class_names

    config = model.weights_config
    if config.label_names and len(config.label_names) == model.num_classes:
        descriptions = config.label_descriptions or {}
        return [descriptions.get(name, name) for name in config.label_names]
    if config.label_set:
        try:
            names = class_names(config.label_set)
        except ValueError:  # a label set whose names nobody ships: numbers are all there is
            names = []
        if len(names) == model.num_classes:
            return names
    return [f"class {index}" for index in range(model.num_classes)]


class _Table:
    def __init__(self, topk: int) -> None:
        self.first = True

    def write(self, path: Path, predictions: list[tuple[int, str, float]]) -> None:
        from tqdm import tqdm

        lines = [f"{path}"] + [f"  {value:7.2%}  {name}" for _, name, value in predictions]
        tqdm.write("\n".join(lines) if self.first else "\n" + "\n".join(lines))
        self.first = False

    def close(self) -> None:
        pass


def _record(path: Path, predictions: list[tuple[int, str, float]]) -> dict[str, Any]:
    return {"file": str(path), "predictions": [
        {"index": index, "class": name, "probability": round(value, 6)} for index, name, value in predictions]}


class _JsonLines:
    def __init__(self, topk: int) -> None:
        pass

    def write(self, path: Path, predictions: list[tuple[int, str, float]]) -> None:
        print(json.dumps(_record(path, predictions)), flush=True)

    def close(self) -> None:
        pass


class _Json:
    def __init__(self, topk: int) -> None:
        self.records: list[dict[str, Any]] = []

    def write(self, path: Path, predictions: list[tuple[int, str, float]]) -> None:
        self.records.append(_record(path, predictions))

    def close(self) -> None:
        print(json.dumps(self.records, indent=2))


class _Csv:
    def __init__(self, topk: int) -> None:
        self.writer = csv.writer(sys.stdout, lineterminator="\n")
        self.writer.writerow(["file", "rank", "index", "class", "probability"])

    def write(self, path: Path, predictions: list[tuple[int, str, float]]) -> None:
        for rank, (index, name, value) in enumerate(predictions, start=1):
            self.writer.writerow([path, rank, index, name, f"{value:.6f}"])

    def close(self) -> None:
        pass


_WRITERS = {"table": _Table, "json": _Json, "jsonl": _JsonLines, "csv": _Csv}
