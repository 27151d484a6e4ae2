"""Where the pixels of a model's input come from: sizes and offsets of resizing and cropping, as timm and torchvision
round them. Imports neither torch nor torchvision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import BadImageError, ConfigError
from .constants import DEFAULT_CROP_MODE, DEFAULT_CROP_PCT

__all__ = ["CROP_MODES", "Geometry", "as_pair", "bounded", "check_crop_pct", "crop_span", "eval_geometry",
           "jpeg_shrink", "resized_size", "takes_rows_first"]

CROP_MODES = ("center", "squash", "border")
_SPARE = 2  # a JPEG decoded at a scale is at least so many times as large as what it is resized to
_MAX_PIXELS = 2 ** 28  # of a resized image: one of 1 x 30000 pixels would become 224 x 6720000

Size = int | tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """Cut `trim` pixels off each edge, resize, and cut (height, width) `crop` out of the middle.

    Attributes:
        resize, fit: See `resized_size`.
        fill: Colour of the border where the resized image is smaller than `crop`: one value, or one a channel.
    """

    resize: Size
    fit: str
    crop: tuple[int, int]
    trim: int = 0
    fill: int | tuple[int, ...] = 0


def eval_geometry(
    size: tuple[int, int], crop_pct: float | None, crop_mode: str | None, trim: int, mean: Sequence[float],
    preprocessing: str, resize_size: int | Sequence[int] | None,
) -> Geometry:
    """The geometry of inference; arguments are those of `create_transform`, `size` is (height, width).

    Raises:
        ConfigError: `crop_pct` cannot be one.
    """
    check_crop_pct(crop_pct)
    crop_mode = crop_mode or DEFAULT_CROP_MODE
    if preprocessing == "torchvision":
        if crop_mode != "center" or not resize_size:
            raise ValueError("torchvision's preprocessing needs resize_size, and crop_mode 'center'")
        return Geometry(*_shorter_side(as_pair(resize_size, "resize_size")), size, trim)
    to = tuple(math.floor(side / (crop_pct or DEFAULT_CROP_PCT)) for side in size)
    if crop_mode == "squash":
        return Geometry(to, "exact", size, trim)
    if crop_mode == "border":
        return Geometry(to, "inside", size, trim, tuple(round(255 * value) for value in mean))
    return Geometry(*_shorter_side(to), size, trim)


def check_crop_pct(crop_pct: float | None) -> None:
    """Refuse a share of the image that is none; 0 and None stand for the default, as timm has it.

    Raises:
        ConfigError: It is negative, infinite or no number.
    """
    if crop_pct and not 0 < crop_pct < math.inf:
        raise ConfigError(f"crop_pct {crop_pct} is not a share of the image")


def as_pair(size: int | Sequence[int], name: str) -> tuple[int, int]:
    """(height, width) of a square's side, (height, width) or (channels, height, width)."""
    height, width = (size, size) if isinstance(size, int) else tuple(size)[-2:] if len(size) > 1 else (size[0], size[0])
    if height < 1 or width < 1:
        raise ValueError(f"{name} {size!r} is not a size in pixels")
    return height, width


def _shorter_side(size: tuple[int, int]) -> tuple[Size, str]:
    """Size and fit that keep the aspect ratio and cover `size`.

    For a square both fits ask for the same, but timm and torchvision round differently.
    """
    return (size[0], "shorter") if size[0] == size[1] else (size, "cover")


def resized_size(size: Size, fit: str, height: int, width: int) -> tuple[int, int]:
    """(height, width) that an image of `height` and `width` gets.

    Args:
        size: Pixels; an int for "shorter", else (height, width).
        fit: "shorter": the shorter side becomes `size` (torchvision's rounding); "cover" and "inside": the smallest
            image of the same aspect ratio that covers `size`, and the largest inside it (timm's rounding); "exact":
            `size` itself.

    Raises:
        BadImageError: The image is so narrow that it would not fit into memory.
    """
    if fit == "exact":
        return size
    if fit == "shorter":
        longer = int(size * max(height, width) / min(height, width))
        new = (longer, size) if width <= height else (size, longer)
    else:
        ratios = height / size[0], width / size[1]
        ratio = min(ratios) if fit == "cover" else max(ratios)
        new = max(round(height / ratio), 1), max(round(width / ratio), 1)
    return bounded(new, height, width)


def bounded(new: Sequence[Any], height: int, width: int) -> tuple[int, int]:
    """(height, width) `new`; BadImageError if an image of `height` and `width` would not fit into memory as such."""
    if new[0] * new[1] > _MAX_PIXELS:
        raise BadImageError(f"too narrow to be resized: {width} x {height} pixels would become {new[1]} x {new[0]}")
    return new[0], new[1]


def crop_span(have: int, want: int) -> tuple[int, int, int]:
    """First and last of the pixels that a crop of the middle keeps, and the border before them (torchvision's)."""
    if have < want:
        return 0, have, (want - have) // 2
    first = int(round((have - want) / 2.0))
    return first, first + want, 0


def jpeg_shrink(geometry: Geometry, height: int, width: int) -> int:
    """1, 2, 4 or 8: how many times smaller a JPEG of that size is decoded where that is wanted."""
    if geometry.trim:
        return 1
    new = resized_size(geometry.resize, geometry.fit, height, width)
    spare = min(height / new[0], width / new[1]) / _SPARE
    return next((shrink for shrink in (8, 4, 2) if spare >= shrink), 1)


def takes_rows_first(height: int, width: int, new_height: int, new_width: int) -> bool:
    """Whether PIL (from 13 on) resizes the vertical axis before the horizontal one."""
    return new_height < height and height - new_height > 2 * (width - new_width)
