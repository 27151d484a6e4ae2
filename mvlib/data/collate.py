"""Samples to batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate, get_worker_info

from ..errors import ConfigError

__all__ = ["fast_collate"]


def fast_collate(batch: Sequence[tuple[Any, ...]]) -> tuple[Tensor, Tensor]:
    """Collate samples (image, target) whose images are uint8 tensors or arrays (channels, height, width).

    Returns:
        Images (batch, channels, height, width), uint8, whose memory is channels_last; and targets, int64 where each is
        one number (-1 for None). Samples whose images are tuples of splits give the first of every sample, then the
        second of every sample, and so on, and as many repetitions of the targets.

    Raises:
        ConfigError: The images are not uint8, or differ in size.
    """
    images, targets = [sample[0] for sample in batch], batch_targets([sample[1] for sample in batch])
    if isinstance(images[0], (tuple, list)):
        targets = targets.repeat(len(images[0]), *[1] * (targets.ndim - 1))
        images = [image for split in zip(*images) for image in split]
    images = [torch.from_numpy(image) if isinstance(image, np.ndarray) else image for image in images]
    _check(images)
    channels, height, width = images[0].shape
    collated = _empty(len(images), height, width, channels).permute(0, 3, 1, 2)
    for row, image in zip(collated, images):
        row.copy_(image)
    return collated, targets


def batch_targets(targets: list[Any]) -> Tensor:
    targets = [-1 if target is None else target for target in targets]
    if isinstance(targets[0], int):
        return torch.tensor(targets)
    batched = default_collate(targets)
    return batched.long() if batched.ndim == 1 else batched


def _check(images: list[Any]) -> None:
    for image in images:
        if not isinstance(image, Tensor) or image.dtype != torch.uint8 or image.ndim != 3:
            got = f"{image.dtype} of shape {tuple(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
            raise ConfigError(f"batches are made of uint8 tensors (channels, height, width), got {got}; "
                              "use_prefetcher=False takes images as they are")
        if image.shape != images[0].shape:
            raise ConfigError("images of one batch differ in shape: "
                              f"{tuple(images[0].shape)} and {tuple(image.shape)}")


def _empty(*shape: int) -> Tensor:
    """A uint8 tensor; in a worker, in memory that is shared with the main process already."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=torch.uint8)
    storage = torch.UntypedStorage._new_shared(int(np.prod(shape)))
    return torch.empty(0, dtype=torch.uint8).set_(storage, 0, shape)
