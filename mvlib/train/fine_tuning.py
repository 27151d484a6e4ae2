"""Fine-tuning on a person's own pictures: a data set and a few wishes -> arguments of `mvlib train`, the run, what came
of it.

Nothing is trained here: `plan` chooses the arguments, `train` does as they say, and the same line given to
`mvlib train` gives the same weights. What the defaults are worth is measured by benchmarks/finetune.py.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import logging
import math
import os
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.readers.splits import TRAIN_SPLITS
from ..engines.folder import CONFIG_FILE, file_digest, full_name
from ..errors import ConfigError
from ..files import csv_text, read_text
from ..threads import fitting_workers
from .arguments import DIALECTS, OPTIONS, find_option, finish_arguments
from .messages import messages_on_terminal
from .pictures import Pictures, read_pictures
from .recipes import ARGUMENTS_FILE, checked_value, parse_train_arguments, read_recipe

__all__ = ["DEFAULT_MODEL", "FineTuned", "Plan", "command_line", "finetune", "plan", "resume", "run_plan", "say"]

_logger = logging.getLogger("mvlib")

DEFAULT_MODEL = "tf_efficientnet_lite0.pip_in1k"  # whose weights a package of the index brings
OUTPUT = "output/finetune"
TABLE_FILE, CLASSES_FILE, PREDICTIONS_FILE = "pictures.csv", "classes.json", "predictions.csv"
DIGEST_FILE = "pictures.sha256"  # of what was in them, which the table does not say

# Updates of the weights for up to 128 pictures of up to 4 classes; more with the square root of either. With fewer,
# what is new is not learned yet; more bring little.
UPDATES, OF_IMAGES, OF_CLASSES = 200, 128, 4
EPOCHS = (3, 40)
BATCHES = (32, 16, 8)  # those of a large GPU come before
BATCHES_PER_EPOCH = 6  # at least: statistics and averages want several
# Of AdamW. The first is measured (benchmarks/finetune.py); models without batch norms are fine-tuned with rates of this
# size in the papers that introduce them (DeiT, Swin, ConvNeXt).
LR, LR_OTHERWISE = 1e-3, 1e-4
_OF_A_PLACE = ("data_dir", "class_map", "output", "experiment", "start_epoch")  # which a run that goes on has
REPEATS = 4  # at most, of a small class's pictures in an epoch
# Memory of a step in float32: about so many bytes for each activation that the catalog counts, of an image (measured:
# 5 of a ViT, 14 of a small EfficientNet), and so many for each parameter with its gradient and AdamW's state.
BYTES_PER_ACTIVATION, BYTES_PER_PARAMETER = 10, 16


@dataclass
class Plan:
    """A run that is about to begin, or to go on.

    Attributes:
        args: All arguments of `train`.
        folder: The run's.
        pictures: What it is trained on; None where a run goes on, whose table says it.
        table: CSV of the pictures, as `train` reads it.
        notes: What the user should know, a line each.
        digest: Of what is in the pictures and in a file of weights that it begins with, which the arguments do not say.
    """

    args: argparse.Namespace
    folder: Path
    table: str
    pictures: Pictures | None = None
    notes: list[str] = field(default_factory=list)
    digest: str = ""

    @property
    def command(self) -> str:
        """The line of `mvlib train` that gives the same run, or goes on with it."""
        if self.args.resume:
            saved = finish_arguments(read_recipe(self.folder / ARGUMENTS_FILE).arguments, "timm")
            # No flag says None: it is what follows from others (lr, from lr_base).
            same = {key: value for key, value in vars(self.args).items() if value is None or key in _OF_A_PLACE}
            changed = command_line(self.args, {**vars(saved), **same})
            return shlex.join(["mvlib", "train", "--resume", str(self.folder), *changed])
        return shlex.join(["mvlib", "train", self.args.data_dir, *command_line(self.args)])

    def write(self) -> None:
        """Write what the line reads: the table, and the class names where it needs them; and a digest."""
        from ..files import replacing

        self.folder.mkdir(parents=True, exist_ok=True)
        classes = self.pictures.class_map() if self.pictures else None
        digest = f"{self.digest}\n" if self.pictures else None
        for name, text in ((TABLE_FILE, self.table), (CLASSES_FILE, classes), (DIGEST_FILE, digest)):
            if text is not None:
                with replacing(self.folder / name) as path:
                    path.write_text(text, encoding="utf-8")


@dataclass
class FineTuned:
    """What came of fine-tuning.

    Attributes:
        folder: Of the run: checkpoints, summary.csv, curves.png, predictions.csv.
        command: The line of `mvlib train` that it stands for.
        status: 0 where it is complete, 75 where a signal stopped it: called again, it goes on.
        accuracy: {split: percent of the pictures that are told right}, of the best epoch's weights.
        confusion: {split: {(class, class it was taken for): pictures}}, right ones included.
    """

    folder: Path
    command: str
    status: int = 0
    accuracy: dict[str, float] = field(default_factory=dict)
    confusion: dict[str, Counter[tuple[str, str]]] = field(default_factory=dict)

    @property
    def export(self) -> Path:
        """The best weights, as a repository: `create_model(f"local-dir:{export}")`."""
        return self.folder / "export"

    def summary(self) -> str:
        """Accuracy by class and the worst confusions, and what to do next, for people."""
        lines = [line for split in self.confusion for line in _describe(split, self.confusion[split])]
        lines += [f"picture by picture, mistakes first: {self.folder / PREDICTIONS_FILE}"]
        if (self.folder / "curves.png").exists():
            lines += [f"curves: {self.folder / 'curves.png'}"]
        return "\n".join([*lines, "next:", f"  mvlib predict --model {shlex.quote(str(self.export))} photo.jpg"])


def finetune(
    data: str | os.PathLike[str], model: str | None = None, *, output: str | os.PathLike[str] = OUTPUT,
    experiment: str = "", **arguments: Any,
) -> FineTuned:
    """Fine-tune published weights on a folder of pictures, with defaults that are fitted to it.

    Called again with the same arguments on the same pictures, it goes on where it was interrupted.

    Args:
        data: A folder with a folder a class (a fixed fifth of each class is validated on), one with such folders for
            training and validation, or a table; see `read_pictures`.
        model: Name of a model, whose published weights are taken if there are some; `DEFAULT_MODEL` unless given.
        output: Folder of runs.
        experiment: Name of the run's folder in it; the data's name, with a number where that is taken, unless given.
        arguments: Of `mvlib train`, by timm's names or torchvision's; they go before the defaults.

    Raises:
        ConfigError, DataError, WeightsError, ...: What cannot be used, and why.
    """
    given = {}
    for key, value in arguments.items():
        option, _ = find_option(key)
        given[option.dest] = checked_value("finetune", option, value)
    given.update({"model": model} if model else {})
    with messages_on_terminal():
        found = plan(data, {**given, "output": os.fspath(output), "experiment": experiment})
        say(found)
    if not found.args.resume:
        found.write()
    return run_plan(found)


# the plan


def plan(data: str | os.PathLike[str], given: Mapping[str, Any]) -> Plan:
    """Look at the pictures and choose the arguments of training.

    Args:
        data: See `finetune`.
        given: What the user wants, by the names of `OPTIONS`.

    Raises:
        ConfigError: The experiment that is named holds another run; or arguments contradict each other.
        DataError: The pictures cannot be used.
    """
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        raise ConfigError("finetune is one process: --dry-run prints the line of 'mvlib train' that torchrun can start")
    if taken := next((key for key in ("dataset", "data_dir", "class_map", "resume", "train_split", "val_split")
                      if given.get(key)), None):
        raise ConfigError(f"--{taken.replace('_', '-')} goes with mvlib train: finetune takes the folder of pictures")
    given = {key: value for key, value in given.items() if key not in ("output", "experiment") or value}
    pictures = read_pictures(data)
    notes = list(pictures.notes)
    if given.get("num_classes") not in (None, len(pictures.classes)):
        raise ConfigError(f"--num-classes {given['num_classes']}, and {pictures.root} has {len(pictures.classes)} "
                          f"classes: leave it out")
    repeats = _repeats(pictures, notes)
    table = pictures.table(repeats)
    images = sum(count * repeats[label] for label, count in pictures.counts("train").items())
    if given.get("model"):
        given["model"] = full_name(given["model"])
    values = {**_defaults(images, pictures.classes, given, notes), **given}
    output = values.pop("output", OUTPUT)
    digest = " ".join([pictures.digest, *_weights_digest(values)])
    folder, args = _place(Path(output), given.get("experiment"), pictures, table, digest, values, notes)
    return Plan(args, folder, table, pictures, notes, digest)


def _weights_digest(values: Mapping[str, Any]) -> Iterator[str]:
    """SHA-256 of the weights on this disk that a run begins with."""
    from ..names import parse_model_name

    source, place, _ = parse_model_name(values["model"])
    paths = [values.get(key) for key in ("pretrained_path", "initial_checkpoint")]
    folder = Path(os.path.expanduser(place)) if source == "local-dir" else None
    files = [Path(os.path.expanduser(path)) for path in paths if path]
    files += sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin")) \
        if folder and folder.is_dir() else []
    for file in files:
        if file.is_file():
            with open(file, "rb") as stream:
                yield file_digest(stream)


def _repeats(pictures: Pictures, notes: list[str]) -> dict[str, int]:
    """How often an epoch takes the pictures of each class: small classes more than once.

    The square root of how much smaller than the largest a class is, which is between leaving it to be overlooked and
    learning its few pictures by heart.
    """
    counts = pictures.counts("train")
    most = max(counts.values())
    repeats = {name: min(REPEATS, max(1, round(math.sqrt(most / count)))) for name, count in counts.items()}
    if more := sorted((name for name in repeats if repeats[name] > 1), key=lambda name: counts[name]):
        shown = ", ".join(f"'{name}' ({counts[name]}) {repeats[name]} times" for name in more[:5])
        notes.append(f"the largest class has {most} training pictures, and others fewer: an epoch takes those of "
                     f"{shown}{f' and of {len(more) - 5} more' if len(more) > 5 else ''}")
    return repeats


def _defaults(
    images: int, classes: Sequence[str], given: Mapping[str, Any], notes: list[str]
) -> dict[str, Any]:
    """The arguments that suit so many training pictures, as far as the user has not said others."""
    name = given.get("model") or DEFAULT_MODEL
    begins = any(given.get(key) for key in ("pretrained_path", "initial_checkpoint", "weights"))
    values: dict[str, Any] = {"model": name, "pretrained": not begins and _has_weights(name)}
    if not values["pretrained"] and not begins:
        notes.append(f"no weights are published for {name}: it begins at random, for which few pictures do not suffice")
    batch_size = given.get("batch_size") or _batch_size(images, {**values, **given})
    values["batch_size"] = batch_size
    wanted = UPDATES * math.sqrt(max(images / OF_IMAGES, len(classes) / OF_CLASSES, 1))
    updates = max(images // (batch_size * given.get("grad_accum_steps", 1)), 1)
    epochs = given.get("epochs") or min(max(round(wanted / updates), EPOCHS[0]), EPOCHS[1])
    values.update(
        epochs=epochs, warmup_epochs=min(epochs // 4, 1), sched_on_updates=True,
        scale=[0.5, 1.0], color_jitter=0.2, smoothing=0.1,
        use_multi_epochs_loader=True, workers=fitting_workers(OPTIONS["workers"].default), checkpoint_hist=1)
    if not begins and not _knows(name, classes):
        # A new classifier of few classes begins with large weights, whose gradients undo what the others have learned.
        values["head_init_scale"] = 0.0
    if not given.get("opt"):
        values.update(opt="adamw", weight_decay=0.01)
        if given.get("lr_base") is None:
            values["lr"] = LR if _has_batch_norm(name) else LR_OTHERWISE
    return values


def _has_weights(name: str) -> bool:
    from ..names import parse_model_name
    from ..registry import is_model_pretrained

    return parse_model_name(name).source is not None or is_model_pretrained(name)


def _knows(name: str, classes: Sequence[str]) -> bool:
    """Whether a model is a repository on disk whose classifier is of these classes, and can be learned further."""
    from ..names import parse_model_name

    source, place, _ = parse_model_name(name)
    if source != "local-dir":
        return False
    try:
        names = json.loads(read_text(os.path.join(os.path.expanduser(place), CONFIG_FILE))).get("label_names")
    except (OSError, ValueError):
        return False  # whoever loads it says so
    return names is not None and set(names) == set(classes)


def _has_batch_norm(name: str) -> bool:
    """Whether an architecture normalises by batches; False where it is not known before it is fetched."""
    from torch.nn.modules.batchnorm import _BatchNorm

    from ..factory import build_empty
    from ..names import parse_model_name
    from ..registry import resolve_name

    source, place, _ = parse_model_name(name)
    if source == "local-dir":
        try:
            name = json.loads(read_text(os.path.join(os.path.expanduser(place), CONFIG_FILE)))["architecture"]
        except (OSError, ValueError, KeyError):
            return False
    elif source is not None:
        return False
    return any(isinstance(module, _BatchNorm) for module in build_empty(resolve_name(name)[0], {}).modules())


def _batch_size(images: int, values: Mapping[str, Any]) -> int:
    """The largest batch of which an epoch has several, and that memory holds."""
    import torch

    fits = _fitting(values)
    sizes = (128, 64, *BATCHES) if torch.cuda.is_available() else BATCHES
    wanted = next((size for size in sizes if images >= size * BATCHES_PER_EPOCH), min(images, BATCHES[-1]))
    while wanted > 1 and wanted > fits:
        wanted //= 2
    return wanted


def _memory() -> float:
    """Bytes of the device that trains: all of it, so that the same command is the same run whatever else is running."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 0


def _fitting(values: Mapping[str, Any]) -> float:
    """Images of a batch that memory holds, about; without end where the model or the memory is not known."""
    from ..costs import read_stats, sides
    from ..names import parse_model_name
    from ..registry import resolve_name

    memory = _memory()
    if not memory or parse_model_name(values["model"]).source is not None:
        return math.inf
    costs = read_stats().get(values["model"]) or read_stats().get(resolve_name(values["model"])[0])
    if not costs:
        return math.inf
    height, width = sides(costs["size"])
    side = values.get("img_size") or math.sqrt(height * width)
    image = costs["activations"] * 1e6 * BYTES_PER_ACTIVATION * side * side / (height * width)
    return (0.6 * memory - costs["params"] * BYTES_PER_PARAMETER) / image


def _place(
    output: Path, name: str | None, pictures: Pictures, table: str, digest: str, values: Mapping[str, Any],
    notes: list[str],
) -> tuple[Path, argparse.Namespace]:
    """The run's folder, and its arguments there: the first that is free, or holds the same run, finished or not.

    Raises:
        ConfigError: The one that is named holds another run.
    """
    number, taken = 1, ""
    root = pictures.root.resolve()
    root = root.parent if root.name.lower() in TRAIN_SPLITS else root
    stem = name or "".join(c if c.isalnum() or c in "-_." else "-" for c in root.stem) or "run"
    while True:
        folder = output / (stem if number == 1 else f"{stem}-{number}")
        own = {"data_dir": str(folder / TABLE_FILE), "output": str(output), "experiment": name or folder.name}
        if pictures.class_map():
            own["class_map"] = str(folder / CLASSES_FILE)
        args = finish_arguments({**values, **own}, "timm")
        args.config = None
        difference = None if name and _is_planned(folder) else _difference(folder, table, digest, args)
        if difference is None:
            if (folder / ARGUMENTS_FILE).exists():
                args.resume = str(folder)
            elif taken:
                notes.append(f"{taken}: this one's folder is {folder}")
            return folder, args
        taken = f"{folder} holds another run ({difference})"
        if name:
            raise ConfigError(f"{taken}: --experiment NAME begins a new one")
        number += 1


def _is_planned(folder: Path) -> bool:
    """Whether a folder holds what `write` writes, and no run has begun in it."""
    return folder.is_dir() and {path.name for path in folder.iterdir()} <= {TABLE_FILE, CLASSES_FILE, DIGEST_FILE}


def _difference(folder: Path, table: str, digest: str, args: argparse.Namespace) -> str | None:
    """What a run that a folder holds has otherwise; None where it holds none, or the same."""
    if (folder / TABLE_FILE).exists() and read_text(folder / TABLE_FILE, newline="") != table:
        return "of other pictures"
    if (folder / DIGEST_FILE).exists():
        before, *weights = read_text(folder / DIGEST_FILE).split() or [""]
        pictures, *begins_with = digest.split()
        if before != pictures:
            return "of the pictures as they were before"
        if weights and weights != begins_with:
            return "begun with other weights of the same name"
    if not (folder / ARGUMENTS_FILE).exists():
        return "a folder without " + TABLE_FILE if folder.exists() and not (folder / TABLE_FILE).exists() and \
            any(folder.iterdir()) else None
    saved = read_recipe(folder / ARGUMENTS_FILE).arguments
    for key, value in vars(args).items():
        if key in OPTIONS and key not in ("resume", "workers", "device", "data_dir", "output", "experiment",
                                            "class_map") and \
                saved.get(key) != value and not (key == "lr" and value is None):  # which follows from lr_base
            return f"--{key.replace('_', '-')} {saved.get(key)}, not {value}"
    return None


def resume(folder: str | os.PathLike[str], given: Mapping[str, Any]) -> Plan:
    """Go on with the run of a folder.

    Raises:
        ConfigError: It is none of `finetune`.
        FileNotFoundError: It is not there.
    """
    folder = Path(folder)
    args = parse_train_arguments(namespace=argparse.Namespace(
        **{**given, "resume": str(folder)}, data=None, config=None, dialect=None, foreign_flags=()))
    if not (folder / TABLE_FILE).is_file():
        raise ConfigError(f"{folder} is no run of finetune: it holds no {TABLE_FILE}; 'mvlib train --resume {folder}' "
                          f"goes on with one of train")
    args.data_dir = str(folder / TABLE_FILE)
    args.class_map = str(folder / CLASSES_FILE) if (folder / CLASSES_FILE).exists() else ""
    args.output, args.experiment = str(folder.parent), folder.name
    return Plan(args, folder, read_text(folder / TABLE_FILE, newline=""))


def command_line(args: argparse.Namespace, known: Mapping[str, Any] | None = None) -> list[str]:
    """The flags of `mvlib train` that give these arguments: what is not timm's default, or not as it is known."""
    known = DIALECTS["timm"] if known is None else known
    words: list[str] = []
    for name, option in OPTIONS.items():
        value = getattr(args, name)
        if value == known[name] or name in ("data_dir", "resume"):
            continue
        flag = next((flag for flag in option.flags if flag not in option.foreign), option.flags[0])
        if flag in option.foreign:
            words += ["--dialect", "timm"] if "--dialect" not in words else []
        if value is True:
            words.append(flag)
        elif value is False:
            words.append(f"--no-{flag[2:]}")
        elif isinstance(value, dict):
            words += [flag, *(f"{key}={item!r}" for key, item in value.items())]
        elif isinstance(value, (list, tuple)):
            words += [flag, *map(str, value)]
        else:
            words.append(f"{flag}={value}" if str(value).startswith("-") else flag)
            words += [] if str(value).startswith("-") else [str(value)]
    return words


# the run and its result


def say(found: Plan) -> None:
    for note in found.notes:
        _logger.warning("%s", note)
    if found.pictures is not None:
        counts = {split: len(rows) for split, rows in found.pictures.splits.items()}
        divided = ", a fixed fifth of each class" if found.pictures.is_divided else ""
        _logger.info("%d classes; pictures: %s", len(found.pictures.classes), ", ".join(
            f"{count} for {split}{divided if split == 'validation' else ''}" for split, count in counts.items()))


def run_plan(found: Plan) -> FineTuned:
    """Train, measure, and write which pictures are told wrong.

    Raises:
        ConfigError, DataError, NonFiniteLossError, ...: See `train`.
    """
    from .run import train

    result = FineTuned(found.folder, found.command)
    result.status = train(found.args)
    if result.status or not (result.export / "config.json").exists():
        return result
    rows = _predictions(found, result.export)
    for split in dict.fromkeys(row["split"] for row in rows):
        result.confusion[split] = Counter((row["label"], row["predicted"]) for row in rows if row["split"] == split)
        result.accuracy[split] = _accuracy(result.confusion[split])
    from ..cli.output import write_text

    write_text(found.folder / PREDICTIONS_FILE, csv_text(
        ("path", "split", "label", "predicted", "probability"),
        sorted(rows, key=lambda row: row["label"] == row["predicted"])))
    return result


def _predictions(found: Plan, export: Path) -> list[dict[str, Any]]:
    """The likeliest class of each picture that was not trained on."""
    from ..cli.inference_command import add_arguments
    from ..cli.validate_command import complete
    from .evaluation import infer

    table = [row for row in csv.DictReader(io.StringIO(found.table)) if row["split"] != "train"]
    rows = []
    for split in dict.fromkeys(row["split"] for row in table):
        labels = {row["path"]: row["label"] for row in table if row["split"] == split}
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        args = found.args
        flags = [args.data_dir, "--model", f"local-dir:{export}", "--split", split, "--fullname", "--workers", "0",
                 "--batch-size", str(args.validation_batch_size or args.batch_size)]
        flags += ["--class-map", args.class_map] if args.class_map else []
        flags += ["--device", args.device] if args.device else []
        for path, _, probabilities, names in infer(complete(parser.parse_args(flags), several=False))[2]:
            rows.append({"path": path, "split": split, "label": labels[path], "predicted": names[0],
                         "probability": round(probabilities[0], 4)})
    return rows


def _accuracy(confusion: Counter[tuple[str, str]]) -> float:
    return 100 * sum(count for (label, told), count in confusion.items() if label == told) / max(confusion.total(), 1)


def _describe(split: str, confusion: Counter[tuple[str, str]], most: int = 10) -> list[str]:
    from ..cli.output import format_table

    totals: Counter[str] = Counter()
    for (label, _), count in confusion.items():
        totals[label] += count
    shares = {label: confusion[label, label] / total for label, total in totals.items()}
    worst = sorted(shares, key=lambda label: shares[label])[:most]
    shown = [label for label in shares if label in worst]
    right = sum(confusion[label, label] for label in totals)
    mean = sum(shares.values()) / len(shares)
    total = confusion.total()
    lines = [f"{split}: {right} of {total} pictures are told right, {100 * right / total:.1f}%; the mean of the "
             f"classes is {100 * mean:.1f}%" + (f"; the worst {most}:" if len(shares) > most else "")]
    lines += ["  " + line for line in format_table(
        [(label, f"{100 * shares[label]:.1f}%", f"{confusion[label, label]} of {totals[label]}")
         for label in shown]).splitlines()]
    wrong = [(pair, count) for pair, count in confusion.most_common() if pair[0] != pair[1]][:3]
    if wrong:
        lines.append("  most often: " + "; ".join(f"'{label}' taken for '{told}' {_times(count)}"
                                                  for (label, told), count in wrong))
    return lines


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
