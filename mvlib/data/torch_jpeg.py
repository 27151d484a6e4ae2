"""JPEG files straight to tensors. torchvision's decoder is used without importing torchvision, which takes seconds."""

from __future__ import annotations

import glob
import importlib.util
import os
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .jpeg import JpegHeader, decode_scaled

__all__ = ["decode_jpeg"]

_RGB = 3  # torchvision.io.ImageReadMode.RGB


def decode_jpeg(data: bytearray, header: JpegHeader) -> Tensor:
    """uint8 RGB pixels (height, width, 3), upright.

    Raises:
        RuntimeError, OSError: The file is damaged.
    """
    if _load_decoder():
        pixels = torch.ops.image.decode_jpeg(torch.frombuffer(data, dtype=torch.uint8), _RGB).permute(1, 2, 0)
        return _upright(pixels, header.orientation)
    return torch.from_numpy(np.array(decode_scaled(data, 1)))


def _upright(pixels: Tensor, orientation: int) -> Tensor:
    """As `images.turn_upright`, of (height, width, channels)."""
    if orientation >= 5:
        pixels = pixels.transpose(0, 1)
    axes = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}.get(orientation)
    return pixels.flip(axes) if axes else pixels


@lru_cache(maxsize=1)
def _load_decoder() -> bool:
    """Whether torchvision's decoder can be had; it comes in a library beside the package."""
    if _has_decoder():
        return True
    spec = importlib.util.find_spec("torchvision")
    for path in _libraries(spec.submodule_search_locations or () if spec else ()):
        try:
            torch.ops.load_library(path)
        except OSError:
            continue
        if _has_decoder():
            return True
    return False


def _libraries(folders: Iterable[str]) -> list[str]:
    return [path for folder in folders for pattern in ("image*.so", "image*.pyd", "image*.dylib")
            for path in sorted(glob.glob(os.path.join(glob.escape(folder), pattern)))]


def _has_decoder() -> bool:
    return hasattr(torch.ops.image, "decode_jpeg")
