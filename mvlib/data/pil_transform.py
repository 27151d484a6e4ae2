"""The transform of inference by PIL alone, for models that run without torch. Imports no torch."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from ..memory import reuse_freed_memory
from .config import image_mode, per_channel
from .geometry import Geometry, as_pair, crop_span, eval_geometry, jpeg_shrink, resized_size, takes_rows_first
from .images import open_image
from .jpeg import Source, decode_scaled, read_jpeg

__all__ = ["PILTransform"]

_FILTERS = {name: Image.Resampling[name.upper()]
            for name in ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")}
_RANDOM = ("bilinear", "bicubic")
_STEADY = ("bilinear", "bicubic", "hamming", "lanczos")  # change little where what they are laid over is moved a little
_LARGE = 2  # times the size that an image gets


class PILTransform:
    """From an image file to uint8 pixels (height, width, channels), all that a model wants but normalisation.

    The values are those of the reference transform, to the bit. Of images that become less than half as large, only the
    pixels of the crop are computed, in half the time: PIL takes their place in float32, and one value in some thousands
    differs by one step of 8 bits. May be called from several threads.

    Args:
        config: Of `resolve_data_config`.
        decode: "full"; "scaled" for JPEGs decoded at 1/2, 1/4 or 1/8 where twice the size is left; "reference" for the
            reference's values of large images, too.
    """

    def __init__(self, config: Mapping[str, Any], decode: str = "full") -> None:
        self.mode = image_mode(config["input_size"][0])
        self.geometry: Geometry = eval_geometry(
            as_pair(config["input_size"], "input_size"), config.get("crop_pct"), config.get("crop_mode"), 0,
            config["mean"], config.get("preprocessing", "timm"), config.get("resize_size"))
        self.interpolation = config["interpolation"]
        self.decode = decode

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.geometry}, {self.interpolation}, {self.mode}, decode={self.decode})"

    def from_file(self, source: Source) -> np.ndarray:
        """Read a file. Has the process keep memory that it frees, as `FastTransform.from_file` does.

        Args:
            source: As of `open_image`.

        Raises:
            BadImageError: As `open_image`, or the image is too narrow.
        """
        reuse_freed_memory()
        jpeg = read_jpeg(source) if self.mode == "RGB" else None
        if jpeg is not None:
            data, header = jpeg
            shrink = jpeg_shrink(self.geometry, *header.upright_size) if self.decode == "scaled" else 1
            try:
                return self._transform(decode_scaled(data, shrink), header.upright_size)
            except OSError:  # damaged: the reference says how, or overlooks it
                pass
        return self(open_image(source, self.mode))

    def __call__(self, image: Image.Image) -> np.ndarray:
        """Of an image in the model's mode."""
        return self._transform(image, (image.height, image.width))

    def _transform(self, image: Image.Image, size: tuple[int, int]) -> np.ndarray:
        """Of an image that stands for one of (height, width) `size`."""
        geometry = self.geometry
        height, width = resized_size(geometry.resize, geometry.fit, *size)
        (top, bottom, above), (left, right, before) = map(crop_span, (height, width), geometry.crop)
        name = random.choice(_RANDOM) if self.interpolation == "random" else self.interpolation
        crop = bottom - top, right - left
        if name in _STEADY and self.decode != "reference" and _is_large(image, (height, width), crop):
            across, down = image.width / width, image.height / height
            image = image.resize(crop[::-1], _FILTERS[name], (left * across, top * down, right * across, bottom * down))
        else:
            image = image if image.size == (width, height) else image.resize((width, height), _FILTERS[name])
            image = image.crop((left, top, right, bottom))
        pixels = np.asarray(image)
        pixels = pixels if pixels.ndim == 3 else pixels[..., None]
        return pixels if pixels.shape[:2] == tuple(geometry.crop) else self._bordered(pixels, above, before)

    def _bordered(self, pixels: np.ndarray, above: int, before: int) -> np.ndarray:
        height, width, channels = pixels.shape
        fill = self.geometry.fill
        image = np.empty((*self.geometry.crop, channels), np.uint8)
        image[...] = per_channel(fill, channels) if fill else 0
        image[above:above + height, before:before + width] = pixels
        return image


def _is_large(image: Image.Image, size: tuple[int, int], crop: tuple[int, int]) -> bool:
    """Whether it becomes so much smaller that a crop of it can be resized alone; not where PIL would take the two axes
    in another order, which sharp edges show."""
    height, width = size
    return image.height >= _LARGE * height and image.width >= _LARGE * width and \
        takes_rows_first(image.height, image.width, *size) == takes_rows_first(image.height, image.width, *crop)
