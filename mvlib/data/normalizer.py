"""Normalisation of whole batches, on the device that holds them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from .config import per_channel

__all__ = ["Normalizer"]

_logger = logging.getLogger("mvlib")


class Normalizer:
    """uint8 images (batch, channels, height, width) to (image - mean) / std, on the images' device.

    Args:
        mean, std: One value a channel, of intensities in [0, 1]. Where there are more or fewer than `channels`, their
            average serves all, as in timm.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], channels: int, device: torch.device,
                 dtype: torch.dtype) -> None:
        for values in (mean, std):
            if isinstance(values, Sequence) and len(values) not in (1, channels):
                _logger.warning("mean or std of %d channels, images have %d: all take the average %.4f",
                                len(values), channels, per_channel(values, channels)[0])
        mean, std = (per_channel(values, channels) for values in (mean, std))
        self.mean = torch.tensor([255 * value for value in mean], device=device)
        self.std = torch.tensor([255 * value for value in std], device=device)
        self.dtype = dtype

    def __call__(self, images: Tensor) -> Tensor:
        batch, channels, height, width = images.shape
        if not images.is_contiguous(memory_format=torch.channels_last):
            mean, std = (values.view(-1, 1, 1) for values in (self.mean, self.std))
            return images.float().sub_(mean).div_(std).to(self.dtype)
        # As rows of whole lines: three channels a time would be too short for vector instructions.
        lines = images.permute(0, 2, 3, 1).reshape(batch * height, width * channels)
        lines = lines.float().sub_(self.mean.repeat(width)).div_(self.std.repeat(width))
        return lines.to(self.dtype).view(batch, height, width, channels).permute(0, 3, 1, 2)
