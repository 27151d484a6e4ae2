"""Checkpoints made into weights: averaged, cleaned."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..errors import CheckpointError, ConfigError
from ..loading import read_state_dict, read_training_facts
from ..publish import is_plain
from .checkpoint import rank, read_checkpoint

__all__ = ["average_checkpoints", "choose_checkpoints", "clean_checkpoint", "common_facts", "write_weights"]

# What is true of a model whatever its weights; files that differ in the first four are of different models.
_OF_THE_MODEL = ("arch", "num_classes", "classes", "model_args", "label_set", "data_config", "license", "base")


def choose_checkpoints(
    folder: str | os.PathLike[str],
    pattern: str = "*.pth.tar",
    count: int = 10,
    decreasing: bool | None = None,
    use_ema: bool = True,
) -> list[Path]:
    """The best checkpoints of a run's folder, by the metric that they hold, of equals the later; each file once,
    whatever its names.

    Args:
        folder: The folder.
        pattern: Which files.
        count: How many at most.
        decreasing: Whether less is better; seen from the run's `eval_metric` unless given.
        use_ema: Whether a checkpoint stands for the average that it holds, or for the weights beside it.

    Raises:
        ConfigError: No file matches, or none holds a metric.
    """
    files = {path.stat().st_ino: path for path in sorted(Path(folder).glob(pattern), reverse=True) if path.is_file()}
    if not files:
        raise ConfigError(f"no checkpoints in {folder} match '{pattern}'")
    ranked = []
    for path in files.values():
        data = read_checkpoint(path)
        if data.get("metric") is not None:
            saved = data.get("args") or {}
            metric = (saved if isinstance(saved, dict) else vars(saved)).get("eval_metric")
            less = decreasing if decreasing is not None else metric == "loss"
            last = data["history"][-1] if not use_ema and data.get("history") else {}
            value = last.get(f"eval_{metric}", data["metric"])
            ranked.append((*rank(value, data.get("epoch", 0), less), path))
    if not ranked:
        raise ConfigError(f"no checkpoint in {folder} holds a metric to rank it by; average them all with --no-sort")
    return [path for *_, path in sorted(ranked)[:count]]


def average_checkpoints(paths: Sequence[str | os.PathLike[str]], use_ema: bool = True) -> dict[str, Tensor]:
    """The mean of several files' weights, summed in float64; integers are the first file's.

    Raises:
        ConfigError: There are none.
        CheckpointError: A file is damaged, or is not of the same model.
    """
    if not paths:
        raise ConfigError("there are no checkpoints to average")
    common_facts(paths)
    total: dict[str, Tensor] = {}
    types: dict[str, torch.dtype] = {}
    for path in paths:
        state = read_state_dict(path, use_ema)
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
    """The weights of a training checkpoint alone, without wrappers' prefixes and training's further batch norms.

    Raises:
        CheckpointError: The file is damaged or holds no tensors.
    """
    state = read_state_dict(path, use_ema)
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
        ConfigError: It exists.
        CheckpointError: What was written is not what was to be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp{path.suffix}")
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
    with open(temporary, "xb") as stream:
        mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)  # of any new file
    try:
        if path.suffix == ".safetensors":
            about = {"mvlib": json.dumps(facts)} if facts else {}
            save_file(tensors, temporary, metadata={"format": "pt", **about})
        else:
            with open(temporary, "wb") as stream:  # a file's name would be in it, and so in its hash
                torch.save({**facts, "state_dict": tensors} if facts else tensors, stream)
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
            digest = hashlib.file_digest(stream, "sha256").hexdigest() if hasattr(hashlib, "file_digest") \
                else hashlib.sha256(stream.read()).hexdigest()
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


def _equal(one: dict[str, Any], other: Iterable[str]) -> bool:
    return all(torch.equal(one[key], other[key]) for key in other)
