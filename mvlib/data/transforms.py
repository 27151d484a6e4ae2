"""Image transforms: timm's and torchvision's pipelines for inference, to the bit, and the same on uint8 tensors.

Those for training are in `train_transforms`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as pil_functional
from torchvision.transforms.v2 import Compose
from torchvision.transforms.v2 import functional as F

from ..errors import BadImageError
from .geometry import Geometry, Size, resized_size

__all__ = ["CenterCrop", "Normalize", "Resize", "ToTensor", "TrimBorder", "reference_transform"]

_INTERPOLATIONS = {name: (InterpolationMode(name),)
                   for name in ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")}
_INTERPOLATIONS["random"] = (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC)


def reference_transform(geometry: Geometry, interpolation: str,
                        normalize: tuple[Sequence[float], Sequence[float]] | None, antialias: bool) -> Compose:
    """The transform of inference; `normalize` is (mean, std), or None for uint8 results."""
    steps: list[nn.Module] = [TrimBorder(geometry.trim)] if geometry.trim else []
    steps += [Resize(geometry.resize, geometry.fit, interpolation, antialias),
              CenterCrop(geometry.crop, list(geometry.fill) if geometry.fill else 0)]
    return Compose(steps + to_result(normalize is not None, *(normalize or ((), ()))))


def to_result(normalize: bool, mean: Sequence[float], std: Sequence[float]) -> list[nn.Module]:
    """The steps from an image to a normalised tensor, or to one of uint8."""
    return [ToTensor(), Normalize(mean, std)] if normalize else [ToTensor(scale=False)]


class Resize(nn.Module):
    """Resize to `size`, in one of the four ways of `fit`.

    Args:
        size, fit: See `geometry.resized_size`.
        interpolation: As in `create_transform`.
        antialias: Whether tensors are antialiased.
    """

    def __init__(self, size: Size, fit: str, interpolation: str = "bilinear", antialias: bool = True) -> None:
        super().__init__()
        self.size = size
        self.fit = fit
        self.interpolation = interpolation
        self.antialias = antialias

    def forward(self, image: Image.Image | Tensor) -> Image.Image | Tensor:
        size = self.output_size(*F.get_size(image))
        choices = _INTERPOLATIONS[self.interpolation]
        interpolation = random.choice(choices) if len(choices) > 1 else choices[0]
        if not isinstance(image, Tensor):
            return F.resize(image, size, interpolation)
        if interpolation == InterpolationMode.BILINEAR or self._aliased(interpolation):
            return F.resize(image, size, interpolation, antialias=self.antialias)
        return _resize_by_pil(image, size, interpolation)

    def _aliased(self, interpolation: InterpolationMode) -> bool:
        return not self.antialias and interpolation == InterpolationMode.BICUBIC

    def output_size(self, height: int, width: int) -> list[int]:
        """(height, width) that an image of `height` and `width` gets; BadImageError if it would not fit into memory."""
        return list(resized_size(self.size, self.fit, height, width))

    def extra_repr(self) -> str:
        antialias = "" if self.antialias else ", antialias=False"
        return f"{self.size}, fit={self.fit}, interpolation={self.interpolation}{antialias}"


def _resize_by_pil(image: Tensor, size: list[int], interpolation: InterpolationMode) -> Tensor:
    """Resize each plane with PIL: torch has not all its filters, and its bicubic one strays from PIL's.

    Bicubic results overshoot and are clipped after each of the two passes, whose order depends on PIL's version: on
    sharp edges torch's differs by up to 31 steps, on photographs by 2.
    """
    planes = [Image.fromarray(plane) for plane in image.cpu().flatten(0, -3).numpy()]
    resized = torch.cat([F.pil_to_tensor(F.resize(plane, size, interpolation)) for plane in planes])
    return resized.reshape(*image.shape[:-2], *size).to(image.device)


class CenterCrop(nn.Module):
    """Cut (height, width) out of the middle; where the image is smaller, put a border of colour `fill` around it."""

    def __init__(self, size: tuple[int, int], fill: int | Sequence[int] = 0) -> None:
        super().__init__()
        self.size = size
        self.fill = fill

    def forward(self, image: Image.Image | Tensor) -> Image.Image | Tensor:
        missing_h, missing_w = (max(want - have, 0) for want, have in zip(self.size, F.get_size(image)))
        if missing_h or missing_w:  # the odd pixel goes to the right and below
            border = [missing_w // 2, missing_h // 2, (missing_w + 1) // 2, (missing_h + 1) // 2]
            image = F.pad(image, border, fill=self.fill)
        return F.center_crop(image, list(self.size))

    def extra_repr(self) -> str:
        return f"{self.size}" + (f", fill={self.fill}" if self.fill else "")


class TrimBorder(nn.Module):
    """Cut `pixels` off each edge."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.pixels = pixels

    def forward(self, image: Image.Image | Tensor) -> Image.Image | Tensor:
        height, width = F.get_size(image)
        if min(height, width) <= 2 * self.pixels:
            raise BadImageError(f"{width} x {height} pixels are too few to cut {self.pixels} off each edge")
        return F.crop(image, self.pixels, self.pixels, height - 2 * self.pixels, width - 2 * self.pixels)

    def extra_repr(self) -> str:
        return str(self.pixels)


class ToTensor(nn.Module):
    """PIL image to tensor (channels, height, width); with `scale` to float32 in [0, 1], uint8 tensors as well."""

    def __init__(self, scale: bool = True) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, image: Image.Image | Tensor) -> Tensor:
        if isinstance(image, Tensor):
            return image / 255 if self.scale and image.dtype == torch.uint8 else image
        return pil_functional.to_tensor(image) if self.scale else F.pil_to_tensor(image)

    def extra_repr(self) -> str:
        return "" if self.scale else "scale=False"


class Normalize(nn.Module):
    """(image - mean) / std, one value a channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.mean = tuple(mean)
        self.std = tuple(std)

    def forward(self, image: Tensor) -> Tensor:
        return F.normalize(image, list(self.mean), list(self.std))

    def extra_repr(self) -> str:
        return f"mean={self.mean}, std={self.std}"
