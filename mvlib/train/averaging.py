"""Checkpoints made into weights: averaged, cleaned."""

from __future__ import annotations

import json
import logging
import math
import os
import secrets
import stat
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ..engines.folder import file_digest
from ..errors import CheckpointError, ConfigError, MvlibError
from ..files import is_written_in_place
from ..loading import EMA_KEYS, read_parts, read_state_dict, read_training_facts
from ..publish import is_plain
from .checkpoint import check_sums, rank, read_checkpoint

__all__ = ["RankedCheckpoint", "average_checkpoints", "choose_checkpoints", "clean_checkpoint", "common_facts",
           "list_checkpoints", "rank_checkpoints", "write_weights"]

_logger = logging.getLogger("mvlib")

# What is true of a model whatever its weights; files that differ in the first four are of different models.
_OF_THE_MODEL = ("arch", "num_classes", "classes", "model_args", "label_set", "data_config", "license", "base")


@dataclass(frozen=True)
class RankedCheckpoint:
    """A checkpoint of a run.

    Attributes:
        path: The file.
        epoch: The epoch, from 0, at whose end it was written.
        metric: What it is ranked by.
        value: Of the metric.
    """

    path: Path
    epoch: int
    metric: str
    value: float

    def __str__(self) -> str:
        return f"{self.path} (epoch {self.epoch}, {self.metric} {self.value:.6g})"


def list_checkpoints(folder: str | os.PathLike[str], pattern: str = "*.pth.tar") -> list[Path]:
    """The files of a run's folder, each once, whatever its names.

    Raises:
        ConfigError: No file matches, or the pattern is none.
    """
    try:
        found = sorted(Path(folder).glob(pattern), reverse=True)
    except (ValueError, NotImplementedError) as error:
        raise ConfigError(f"'{pattern}' is no pattern of files in a folder: {error}") from None
    files = {((known := path.stat()).st_dev, known.st_ino): path for path in found if path.is_file()}
    if not files:
        raise ConfigError(f"no checkpoints in {folder} match '{pattern}'")
    return sorted(files.values())


def rank_checkpoints(
    folder: str | os.PathLike[str], pattern: str = "*.pth.tar", count: int = 10, decreasing: bool | None = None,
    use_ema: bool = True,
) -> list[RankedCheckpoint]:
    """The best checkpoints of a run's folder, by the metric that they hold, of equals the later; each file once,
    whatever its names. Those whose metric is NaN are left out, with a warning.

    Args:
        folder: The folder.
        pattern: Which files.
        count: How many at most.
        decreasing: Whether less is better; seen from the run's `eval_metric` unless given.
        use_ema: Whether a checkpoint stands for the average that it holds, or for the weights beside it.

    Raises:
        ConfigError: No file matches, or none holds a metric.
        CheckpointError: A file is damaged.
    """
    ranked = []
    for path in list_checkpoints(folder, pattern):
        data = read_checkpoint(path)
        if data.get("metric") is None:
            continue
        saved = data.get("args") or {}
        metric = (saved if isinstance(saved, dict) else vars(saved)).get("eval_metric")
        last = data["history"][-1] if data.get("history") else {}
        value = data["metric"] if use_ema else last.get(f"eval_{metric}", data["metric"])
        if math.isnan(value):
            _logger.warning("%s is left out: its metric is NaN", path)
            continue
        order = rank(value, data.get("epoch", 0), decreasing if decreasing is not None else metric == "loss")
        found = RankedCheckpoint(path, last.get("epoch", data.get("epoch", 0)), metric or "metric", value)
        ranked.append((*order, found))
    if not ranked:
        raise ConfigError(f"no checkpoint in {folder} holds a metric to rank it by; average them all with --no-sort")
    return [found for *_, found in sorted(ranked, key=lambda row: row[:-1])[:count]]


def choose_checkpoints(
    folder: str | os.PathLike[str], pattern: str = "*.pth.tar", count: int = 10, decreasing: bool | None = None,
    use_ema: bool = True,
) -> list[Path]:
    """The files of `rank_checkpoints`, which takes the same arguments and raises the same errors."""
    return [found.path for found in rank_checkpoints(folder, pattern, count, decreasing, use_ema)]


def average_checkpoints(paths: Sequence[str | os.PathLike[str]], use_ema: bool = True) -> dict[str, Tensor]:
    """The mean of several files' weights, summed in float64; integers are the first file's.

    Raises:
        ConfigError: There are none.
        CheckpointError: A file is damaged, holds NaN, is not of the same model, or alone has an average to take.
    """
    if not paths:
        raise ConfigError("there are no checkpoints to average")
    common_facts(paths)
    parts = [(path, found) for path in paths if use_ema and (found := read_parts(path))]
    with_average, without = ([path for path, found in parts if bool(found.intersection(EMA_KEYS)) is has_average]
                             for has_average in (True, False))
    if with_average and without:
        raise CheckpointError(f"{with_average[0]} holds an average of the weights, and {without[0]} none: "
                              f"--no-use-ema takes the weights themselves of all")
    total: dict[str, Tensor] = {}
    types: dict[str, torch.dtype] = {}
    for path in paths:
        state = _read_whole(path, use_ema)
        if bad := _with_nan(state):
            raise CheckpointError(f"{path} holds NaN, in '{bad}': a mean with it is NaN")
        if not total:
            types = {key: value.dtype for key, value in state.items()}
            total = {key: value.double() if value.is_floating_point() else value.clone()
                     for key, value in state.items()}
            continue
        shapes = {key: value.shape for key, value in state.items()}
        if shapes != {key: value.shape for key, value in total.items()}:
            raise CheckpointError(f"{path} is not of the same model as {paths[0]}")
        for key, value in state.items():
            if value.is_floating_point():
                total[key] += value.double()
    return {key: (value / len(paths)).to(types[key]) if types[key].is_floating_point else value
            for key, value in total.items()}


def _read_whole(path: str | os.PathLike[str], use_ema: bool) -> dict[str, Tensor]:
    """A file's tensors, after its checksums where it has some."""
    if Path(path).suffix != ".npz" and zipfile.is_zipfile(path):
        check_sums(Path(path))
    return read_state_dict(path, use_ema)


def _with_nan(state: Mapping[str, Tensor]) -> str:
    """The first tensor that holds NaN, if one does."""
    return next((key for key, value in state.items() if value.is_floating_point() and value.isnan().any()), "")


def common_facts(paths: Sequence[str | os.PathLike[str]]) -> dict[str, Any]:
    """What files say of the model that they are all of, for `write_weights`: the first's words.

    Raises:
        CheckpointError: A file is damaged, or they say that they are of different models.
    """
    facts: dict[str, Any] = {}
    for path in paths:
        found = {key: json.loads(json.dumps(value)) for key, value in read_training_facts(path).items()
                 if key in _OF_THE_MODEL and is_plain(value)}  # not another program's objects
        for key in _OF_THE_MODEL[:4]:
            if facts and found and facts.get(key) != found.get(key):
                raise CheckpointError(f"{path} is not of the same model as {paths[0]}: '{key}' is {found.get(key)!r}, "
                                      f"and not {facts.get(key)!r}")
        facts = facts or found
    return facts


def clean_checkpoint(
    path: str | os.PathLike[str], use_ema: bool = True, keep_aux_bn: bool = False
) -> dict[str, Tensor]:
    """The weights of a training checkpoint alone, without wrappers' prefixes and training's further batch norms; with
    a warning where they hold NaN.

    Raises:
        CheckpointError: The file is damaged or holds no tensors.
    """
    state = _read_whole(path, use_ema)
    if bad := _with_nan(state):
        _logger.warning("%s holds NaN, in '%s'", path, bad)
    return {key: value for key, value in state.items() if keep_aux_bn or ".aux_bn." not in key}


def write_weights(
    state: dict[str, Tensor],
    path: str | os.PathLike[str],
    add_hash: bool = False,
    overwrite: bool = True,
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Write weights whole or not at all, as safetensors or, by another ending, torch's format; read back and compared.

    With facts of their model, safetensors have them in their metadata, and torch's format is a dict of them and the
    "state_dict": commands and `create_model(..., checkpoint_path=...)` then need to be told nothing more.

    Args:
        state: The tensors.
        path: Where to.
        add_hash: Put "-" and the first eight hexadecimal digits of the file's SHA-256 before the ending, which torch's
            and our downloads then verify.
        overwrite: Whether a file that is there may be replaced.
        facts: As `common_facts` gives them.

    Returns:
        The file.

    Raises:
        ConfigError: It exists, or is a device or a pipe.
        CheckpointError: What was written is not what was to be written.
        OSError: It cannot be written. What is at `path` stays.
    """
    path = Path(path)
    if is_written_in_place(path):
        raise ConfigError(f"{path} is a device or a pipe: weights are written to a file, and read back")
    try:
        return _write_weights(state, path, add_hash, overwrite, facts)
    except MvlibError:
        raise
    except (RuntimeError, SafetensorError) as error:  # what writes, when the stream under it fails
        raise OSError(f"{path} cannot be written: {str(error).splitlines()[0]}") from error
    except OSError as error:
        error.filename = str(path)  # the name that its user knows
        raise


def _write_weights(
    state: Mapping[str, Tensor], path: Path, add_hash: bool, overwrite: bool, facts: Mapping[str, Any] | None
) -> Path:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp{path.suffix}")
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
    with open(temporary, "xb") as stream:
        mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)  # of any new file
    try:
        if path.suffix.lower() == ".safetensors":
            about = {"mvlib": json.dumps(facts)} if facts else {}
            save_file(tensors, temporary, metadata={"format": "pt", **about})
        else:
            with open(temporary, "wb") as stream:  # a file's name would be in it, and so in its hash
                torch.save({**facts, "state_dict": tensors} if facts else tensors, stream)
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
            digest = file_digest(stream)
        again = read_state_dict(temporary, mmap=True)
        if again.keys() != tensors.keys() or not _equal(again, tensors):
            raise CheckpointError(f"{path} does not hold what was written to it; is the disk sound?")
        if add_hash:
            path = path.with_name(f"{path.stem}-{digest[:8]}{path.suffix}")
        if path.exists() and not overwrite:
            raise ConfigError(f"{path} exists")
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether tensors are the same to the bit, NaN included."""
    return all(one[key].dtype == value.dtype and one[key].shape == value.shape and
               torch.equal(*(tensor.reshape(-1).view(torch.uint8) for tensor in (one[key], value)))
               for key, value in other.items())
