"""The pictures that an engine is calibrated on, and those that it is then measured on. Imports no torch."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.images import find_images
from ..data.pil_transform import PILTransform
from ..data.readers import match_classes
from ..data.readers.folder import FolderReader
from ..errors import BadImageError, ConfigError, DataError
from ..threads import cpu_count

__all__ = ["LEAST", "Pictures", "draw", "find_labels", "read"]

LEAST = 16  # pictures without which the ranges of activations are a matter of luck
MOST_HELD_OUT = 200
_logger = logging.getLogger("mvlib")

Source = str | os.PathLike[str]


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures as a model wants them, but for normalisation.

    Attributes:
        paths: Of those that could be read.
        images: uint8 (n, height, width, channels).
    """

    paths: Sequence[str]
    images: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)


def draw(
    calibrate: Source | Iterable[Source], count: int, seed: int, labelled: Source | None = None
) -> tuple[list[str], list[str]]:
    """Paths of a sample to calibrate on, and of others to measure on, `MOST_HELD_OUT` at most.

    The others are drawn from `labelled`; without it, a third of the pictures is held out, if that makes as many as
    `LEAST`. The samples are the same for the same seed and files, in whatever order these come.

    Args:
        calibrate: Folders and files.
        count: Pictures to calibrate on, at most.

    Raises:
        ConfigError: There are fewer than `LEAST`.
    """
    calibrate = [calibrate] if isinstance(calibrate, (str, os.PathLike)) else list(calibrate)
    paths = _shuffled(calibrate, seed)
    if len(paths) < LEAST:
        where = os.fspath(calibrate[0]) if len(calibrate) == 1 else "what is given"
        raise ConfigError(f"int8 is calibrated on {LEAST} pictures or more, and {where} has {len(paths)}: name a "
                          f"folder of pictures like those that the model will see, with --calibrate")
    if labelled is not None:
        sample = paths[:count]
        return sample, [path for path in _shuffled([labelled], seed) if path not in set(sample)][:MOST_HELD_OUT]
    held = min(len(paths) // 3, MOST_HELD_OUT)
    held = held if held >= LEAST else 0
    return paths[held:held + count], paths[:held]


def _shuffled(sources: Iterable[Source], seed: int) -> list[str]:
    paths = sorted({os.fspath(path) for path in find_images(sources)})
    random.Random(seed).shuffle(paths)
    return paths


def read(paths: Sequence[str], data_config: Mapping[str, Any]) -> Pictures:
    """Read pictures as the weights want them; those that cannot be read are named in the log and left out."""
    transform = PILTransform(data_config)

    def attempt(path: str) -> np.ndarray | None:
        try:
            return transform.from_file(Path(path))
        except (BadImageError, OSError) as error:
            _logger.warning("not read: %s: %s", path, str(error).removeprefix(f"{path}: "))
            return None

    with ThreadPoolExecutor(cpu_count()) as pool:
        found = [(path, image) for path, image in zip(paths, pool.map(attempt, paths)) if image is not None]
    channels, height, width = data_config["input_size"]
    images = np.stack([image for _, image in found]) if found else np.empty((0, height, width, channels), np.uint8)
    return Pictures([path for path, _ in found], images)


def find_labels(
    folder: Source, num_classes: int, names: Sequence[Sequence[str]] = (), label_set: str | None = None
) -> dict[str, int]:
    """The model's output that each picture of a folder of class folders should have the most of.

    Args:
        num_classes, names, label_set: Of the model; see `match_classes`.

    Returns:
        {path: output}

    Raises:
        ConfigError: The folders are not the model's classes.
        DataError: There are no class folders, or no pictures.
    """
    reader = FolderReader(folder)
    if reader.class_to_idx is None:
        raise DataError(f"{os.fspath(folder)} has no class folders")
    classes = sorted(reader.class_to_idx, key=reader.class_to_idx.__getitem__)
    if len(classes) != num_classes:
        raise ConfigError(f"{os.fspath(folder)} has {len(classes)} class folders, and the model {num_classes} classes: "
                          f"accuracy is measured on a folder for each, with its name")
    order = match_classes(classes, names, label_set)
    samples = ((path, target) for path, target, *_ in map(reader.__getitem__, range(len(reader))) if target is not None)
    return {os.fspath(Path(path)): order[target] if order else target for path, target in samples}
