"""Weights of classes, from how often they occur or as they are written down."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..errors import ConfigError
from ..names import closest

__all__ = [
    "CLASS_WEIGHT_METHODS", "CLASS_WEIGHT_METHOD_KINDS", "compute_class_weights", "load_class_stats",
    "load_class_weights", "resolve_class_weights",
]

CLASS_WEIGHT_METHOD_KINDS = {"neg_pos": "pos_weight", "inv_freq": "class_weight", "effective_num": "class_weight"}
"""{method: the argument of a loss that its weights are for}."""

CLASS_WEIGHT_METHODS = tuple(CLASS_WEIGHT_METHOD_KINDS)

Weights = str | float | Sequence[float] | torch.Tensor


def compute_class_weights(
    pos_counts: torch.Tensor | Sequence[float], num_samples: int, method: str = "neg_pos", power: float = 1.0,
    beta: float = 0.999, max_weight: float | None = None,
) -> tuple[str, torch.Tensor]:
    """Weights of classes from how often they occur; a class that never does counts as occurring once.

    Args:
        pos_counts: Images of each class, (classes,).
        num_samples: Images in all.
        method: "neg_pos", (negatives / positives) ** power; "inv_freq", (images / positives) ** power, of mean 1;
            "effective_num", (1 - beta) / (1 - beta ** positives), of mean 1 (arXiv 1901.05555).
        power: Exponent; 0.5 is milder.
        beta: Of "effective_num".
        max_weight: Greatest weight.

    Returns:
        The argument of a loss that they are for, "pos_weight" or "class_weight", and float32 weights (classes,).

    Raises:
        ConfigError: Counts and images do not agree, or an argument is unknown or out of its range.
    """
    counts = _check_counts(torch.as_tensor(pos_counts, dtype=torch.float64), num_samples, "class weights")
    if method not in CLASS_WEIGHT_METHOD_KINDS:
        raise ConfigError(f"unknown method of class weights '{method}'{closest(method, CLASS_WEIGHT_METHODS)}; known: "
                          f"{', '.join(CLASS_WEIGHT_METHODS)}")
    if method == "effective_num" and not 0 < beta < 1:
        raise ConfigError(f"beta of class weights lies between 0 and 1, not at {beta}")
    counts = counts.clamp(min=1)
    if method == "neg_pos":
        weights = ((num_samples - counts).clamp(min=0) / counts) ** power
    else:
        weights = (num_samples / counts) ** power if method == "inv_freq" else (1 - beta) / (1 - beta ** counts)
        weights = weights / weights.mean()
    return CLASS_WEIGHT_METHOD_KINDS[method], (weights if max_weight is None else weights.clamp(max=max_weight)).float()


def load_class_stats(path: str | os.PathLike[str] | None) -> tuple[torch.Tensor, int] | None:
    """Counts of classes, float32 (classes,), and the number of images, from a JSON file with "pos_counts" and
    "num_samples"; None without a path.

    Raises:
        ConfigError: The file holds something else.
    """
    if not path:
        return None
    stats = json.loads(Path(path).read_text())
    if not isinstance(stats, dict) or not {"pos_counts", "num_samples"} <= stats.keys():
        raise ConfigError(f"{path} holds no statistics of classes: it needs 'pos_counts' and 'num_samples'")
    num_samples = int(stats["num_samples"])
    return _check_counts(torch.as_tensor(stats["pos_counts"], dtype=torch.float32), num_samples, path), num_samples


def _check_counts(counts: torch.Tensor, num_samples: int, where: Any) -> torch.Tensor:
    if counts.ndim != 1 or not len(counts):
        raise ConfigError(f"{where}: counts are one number a class, not of the shape {tuple(counts.shape)}")
    if num_samples < 1 or counts.min() < 0 or counts.max() > num_samples:
        raise ConfigError(f"{where}: counts are from 0 to the number of images, not {counts.min():g} to "
                          f"{counts.max():g} of {num_samples}")
    return counts


def load_class_weights(value: Weights | None, key: str = "class_weight") -> float | torch.Tensor | None:
    """Weights as they are written: a number, numbers with commas or spaces between them, or a file of those.

    Args:
        value: Weights, or the path of a text file of numbers or a .json with a list, or a dict that has it as `key`.
            None and "" are none.
        key: The entry to read.

    Returns:
        One weight for all classes, or float32 weights (classes,).

    Raises:
        ConfigError: What is written are no weights from 0 on, or the file has none of this kind.
    """
    if value is None or isinstance(value, str) and not value.strip():
        return None
    found: Any = value
    if isinstance(value, str) and os.path.isfile(value):
        text = Path(value).read_text()
        found = json.loads(text) if value.endswith(".json") else text
        if isinstance(found, dict):
            if key not in found:
                raise ConfigError(f"{value} has no '{key}', only {', '.join(sorted(found))}; weights that are meant "
                                  f"for another argument of a loss go there")
            found = found[key]
    try:
        if isinstance(found, str):
            found = [float(number) for number in found.replace(",", " ").split()]
        if isinstance(found, bool):
            raise TypeError
        weights = torch.as_tensor(found, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):
        raise ConfigError(f"'{value}' are no weights: neither numbers nor a file of them") from None
    if weights.ndim > 1 or not weights.numel():
        raise ConfigError(f"weights are one number or one a class, not of the shape {tuple(weights.shape)}")
    if not (weights.isfinite().all() and (weights >= 0).all()):
        raise ConfigError(f"weights are finite numbers from 0 on, not {weights.tolist()}")
    return weights.item() if weights.numel() == 1 else weights


def resolve_class_weights(
    value: Weights | None, kind: str = "class_weight", class_stats: tuple[torch.Tensor, int] | None = None,
    power: float = 1.0, beta: float = 0.999, max_weight: float | None = None,
) -> float | torch.Tensor | None:
    """Weights by the name of a method, or as they are written.

    Args:
        value: One of `CLASS_WEIGHT_METHODS`, or what `load_class_weights` takes.
        kind: The argument of a loss that they are for, "class_weight" or "pos_weight".
        class_stats: What `load_class_stats` gives; a method needs it.
        power, beta, max_weight: Of `compute_class_weights`.

    Raises:
        ConfigError: As those; or the method gives weights of the other kind.
    """
    method = value.strip() if isinstance(value, str) else None
    if method not in CLASS_WEIGHT_METHOD_KINDS:
        return load_class_weights(value, kind)
    if CLASS_WEIGHT_METHOD_KINDS[method] != kind:
        fitting = ", ".join(name for name, other in CLASS_WEIGHT_METHOD_KINDS.items() if other == kind)
        raise ConfigError(f"method '{method}' gives {CLASS_WEIGHT_METHOD_KINDS[method]}, not {kind}, which {fitting} "
                          f"give")
    if class_stats is None:
        raise ConfigError(f"method '{method}' needs statistics of the classes, as load_class_stats gives them")
    return compute_class_weights(*class_stats, method=method, power=power, beta=beta, max_weight=max_weight)[1]
