"""The transform of inference on torch's decoder and `resample`: the reference's result, sooner."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import BadImageError
from ..memory import reuse_freed_memory
from .geometry import Geometry, crop_span, jpeg_shrink, resized_size
from .images import open_image
from .jpeg import Source, decode_scaled, read_jpeg
from .resample import FILTERS, resample
from .torch_jpeg import decode_jpeg

if TYPE_CHECKING:
    from torchvision.transforms import Compose

__all__ = ["FastTransform"]

_RANDOM = ("bilinear", "bicubic")


class FastTransform:
    """From an image file, PIL image or uint8 tensor (channels, height, width) to a model's input.

    Values differ by at most one step of 8 bits from what the reference transform makes of the PIL image; see
    `resample` for how large images are an exception in theory. What it cannot do, nearest neighbours for one, it hands
    to the reference. May be called from several threads.

    Args:
        geometry: Of resizing and cropping.
        interpolation: As in `create_transform`.
        normalize: (mean, std), or None for uint8 results.
        decode: As in `create_transform`.
        antialias: Of the reference, for tensors.
    """

    def __init__(self, geometry: Geometry, interpolation: str = "bilinear",
                 normalize: tuple[Sequence[float], Sequence[float]] | None = None, decode: str = "full",
                 antialias: bool = True) -> None:
        self.geometry = geometry
        self.interpolation = interpolation
        self.normalize = normalize
        self.decode = decode
        self.antialias = antialias

    @cached_property
    def reference(self) -> Compose:
        """The same by PIL and torchvision, which is imported when this is first asked for."""
        from .transforms import reference_transform

        return reference_transform(self.geometry, self.interpolation, self.normalize, self.antialias)

    def from_file(self, source: Source) -> Tensor:
        """As `self(open_image(source))`, sooner where the file is a JPEG.

        Has the process keep memory that it frees (`reuse_freed_memory`): pages for a large photograph, were they to be
        had from the kernel anew, would take as long as its decoding.

        Args:
            source: As of `open_image`.

        Raises:
            BadImageError: As `open_image`, or the image is too narrow or too small.
        """
        reuse_freed_memory()
        jpeg = read_jpeg(source)
        if jpeg is None:
            return self(open_image(source))
        data, header = jpeg
        size = header.upright_size
        try:
            shrink = jpeg_shrink(self.geometry, *size) if self.decode == "scaled" else 1
            pixels = _as_tensor(decode_scaled(data, shrink)) if shrink > 1 else decode_jpeg(data, header)
        except (OSError, RuntimeError):  # damaged: PIL says how, or overlooks it
            return self(open_image(source))
        return self._transform(pixels, size)

    def __call__(self, image: Image.Image | Tensor) -> Tensor:
        if isinstance(image, Image.Image):
            if image.mode not in ("RGB", "L"):
                return self.reference(image)
            image = _as_tensor(image)
        elif image.dtype == torch.uint8 and image.ndim == 3 and image.device.type == "cpu" and self.antialias:
            image = image.permute(1, 2, 0)
        else:
            return self.reference(image)
        return self._transform(image, image.shape[:2])

    def _transform(self, pixels: Tensor, size: Sequence[int]) -> Tensor:
        """Of uint8 (height, width, channels), which stands for an image of (height, width) `size`."""
        name = random.choice(_RANDOM) if self.interpolation == "random" else self.interpolation
        if name not in FILTERS:
            return self.reference(_as_image(pixels))
        if trim := self.geometry.trim:
            if min(size) <= 2 * trim:
                raise BadImageError(f"{size[1]} x {size[0]} pixels are too few to cut {trim} off each edge")
            pixels, size = pixels[trim:-trim, trim:-trim], [side - 2 * trim for side in size]
        resized = resized_size(self.geometry.resize, self.geometry.fit, *size)
        spans = [crop_span(have, want) for have, want in zip(resized, self.geometry.crop)]
        (top, bottom, above), (left, right, before) = spans
        window = resample(pixels, resized, name, (top, left, bottom, right), exact=self.decode == "full")
        if tuple(window.shape[1:]) != tuple(self.geometry.crop):
            window = self._bordered(window, above, before)
        return self._finish(window)

    def _bordered(self, window: Tensor, above: int, before: int) -> Tensor:
        channels, height, width = window.shape
        fill = torch.tensor(self.geometry.fill, dtype=window.dtype).view(-1, 1, 1)
        image = fill.expand(channels, *self.geometry.crop).clone()
        image[:, above:above + height, before:before + width] = window
        return image

    def _finish(self, pixels: Tensor) -> Tensor:
        if self.normalize is None:
            return pixels.to(torch.uint8).contiguous()
        result = torch.empty(pixels.shape)
        return torch.mul(pixels.float(), self._factor, out=result).add_(self._shift)

    @cached_property
    def _factor(self) -> Tensor:
        return 1 / (255 * torch.tensor(self.normalize[1]).view(-1, 1, 1))

    @cached_property
    def _shift(self) -> Tensor:
        return -torch.tensor(self.normalize[0]).view(-1, 1, 1) / torch.tensor(self.normalize[1]).view(-1, 1, 1)

    def __repr__(self) -> str:
        return f"FastTransform({self.geometry}, {self.interpolation}, normalize={self.normalize}, decode={self.decode})"


def _as_tensor(image: Image.Image) -> Tensor:
    pixels = torch.from_numpy(np.array(image))
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _as_image(pixels: Tensor) -> Image.Image:
    return Image.fromarray((pixels[..., 0] if pixels.shape[2] == 1 else pixels).numpy())
