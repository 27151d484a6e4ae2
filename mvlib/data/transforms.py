"""Image transforms: timm's and torchvision's pipelines for inference, to the bit, and the same on uint8 tensors.

Names and arguments are timm's; those for training are in `train_transforms`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torchvision.transforms as torchvision_transforms
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import CenterCrop, Compose, InterpolationMode
from torchvision.transforms import functional as pil_functional
from torchvision.transforms.v2 import functional as F

from ..errors import BadImageError, ConfigError
from .geometry import Geometry, bounded, resized_size

__all__ = [
    "CenterCropOrPad", "MaybePILToTensor", "MaybeToTensor", "RandomCropOrPad", "RandomPad", "Resize", "ResizeKeepRatio",
    "ToNumpy", "ToTensor", "TrimBorder", "center_crop_or_pad", "crop_or_pad", "interp_mode_to_str",
    "reference_transform", "str_to_interp_mode", "str_to_pil_interp",
]

_MODES = {name: InterpolationMode(name) for name in ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")}
_RANDOM = (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC)

Picture = Image.Image | Tensor
Mode = Any  # an InterpolationMode, or a tuple of them
Fill = float | Sequence[float]


def str_to_interp_mode(mode_str: str) -> InterpolationMode:
    """torchvision's mode of "nearest", "bilinear", "bicubic", "box", "hamming" or "lanczos"; KeyError for others."""
    return _MODES[mode_str]


def str_to_pil_interp(mode_str: str) -> Image.Resampling:
    """PIL's filter of the same names."""
    return Image.Resampling[_MODES[mode_str].name]


def interp_mode_to_str(mode: InterpolationMode) -> str:
    return mode.value


def interpolation_mode(name: str) -> Mode:
    """The mode of a name, or those that "random" draws one of for each image."""
    if name != "random" and name not in _MODES:
        raise ConfigError(f"interpolation {name!r} is none of {', '.join(_MODES)}, random")
    return _RANDOM if name == "random" else _MODES[name]


def choose(mode: Mode) -> InterpolationMode:
    return random.choice(mode) if isinstance(mode, (list, tuple)) else mode


def describe_mode(mode: Mode) -> str:
    return " ".join(map(interp_mode_to_str, mode)) if isinstance(mode, (list, tuple)) else interp_mode_to_str(mode)


def reference_transform(geometry: Geometry, interpolation: str,
                        normalize: tuple[Sequence[float], Sequence[float]] | None, antialias: bool,
                        resize: Any = None, patchify: Any = None) -> Compose:
    """The transform of inference; `normalize` is (mean, std), or None for uint8 results.

    `resize` stands in the place of the geometry's resizing and cropping, `patchify` comes last.
    """
    steps: list[Any] = [TrimBorder(geometry.trim)] if geometry.trim else []
    final = to_result(normalize is not None, *(normalize or ((), ()))) + ([] if patchify is None else [patchify])
    if resize is not None:
        return Compose([*steps, resize, *final])
    if geometry.fit in ("shorter", "exact"):
        steps.append(Resize(geometry.resize, interpolation, antialias))
    else:
        longest = float(geometry.fit == "inside")
        steps.append(ResizeKeepRatio(geometry.resize, longest, interpolation, antialias=antialias))
    steps.append(CenterCropOrPad(geometry.crop, fill) if (fill := geometry.fill) else CenterCrop(geometry.crop))
    return Compose(steps + final)


def to_result(normalize: bool, mean: Sequence[float], std: Sequence[float]) -> list[Any]:
    """The steps from an image to a normalised tensor, or to one of uint8."""
    if not normalize:
        return [MaybePILToTensor()]
    return [MaybeToTensor(scale=True), torchvision_transforms.Normalize(torch.tensor(mean), torch.tensor(std))]


class Resize(torchvision_transforms.Resize):  # type: ignore[misc]
    """Resize: the shorter side to `size`, an int, or to (height, width). uint8 tensors as PIL images.

    Args:
        size: In pixels.
        interpolation: As in `create_transform`.
        antialias: Whether tensors are antialiased.
    """

    def __init__(self, size: int | Sequence[int], interpolation: str = "bilinear", antialias: bool = True) -> None:
        size = size[0] if not isinstance(size, int) and len(size) == 1 else size
        super().__init__(size, interpolation_mode(interpolation), antialias=antialias)

    def forward(self, image: Picture) -> Picture:
        return resized(image, self.output_size(*F.get_size(image)), choose(self.interpolation), self.antialias)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) that an image of `height` and `width` gets; BadImageError if it would not fit into memory."""
        return resized_size(self.size, "shorter" if isinstance(self.size, int) else "exact", height, width)

    def __repr__(self) -> str:
        return (f"{type(self).__name__}(size={self.size}, interpolation={describe_mode(self.interpolation)}, "
                f"max_size=None, antialias={self.antialias})")


class ResizeKeepRatio:
    """Resize with the aspect ratio kept, so that (height, width) `size` is covered, or the image lies inside it.

    Args:
        size: In pixels, of a square if an int.
        longest: 0 to cover `size`, 1 to lie inside, or what is between.
        interpolation: As in `create_transform`.
        random_scale_prob: Share of images that are made larger or smaller by a factor out of `random_scale_range`.
        random_scale_area: Whether the factor is the share of the result's area that fills `size`; else of its sides.
        random_aspect_prob: Share of images whose width over height is changed by a factor out of
            `random_aspect_range`.
        antialias: Whether tensors are antialiased.
        as_tensor: Give a uint8 tensor, by torch, which is sooner: see `train_transforms.resized_crop`.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        longest: float = 0.0,
        interpolation: str = "bilinear",
        random_scale_prob: float = 0.0,
        random_scale_range: tuple[float, float] = (0.85, 1.05),
        random_scale_area: bool = False,
        random_aspect_prob: float = 0.0,
        random_aspect_range: tuple[float, float] = (0.9, 1.11),
        *,
        antialias: bool = True,
        as_tensor: bool = False,
    ) -> None:
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        self.interpolation = interpolation_mode(interpolation)
        self.longest = float(longest)
        self.random_scale_prob = random_scale_prob
        self.random_scale_range = random_scale_range
        self.random_scale_area = random_scale_area
        self.random_aspect_prob = random_aspect_prob
        self.random_aspect_range = random_aspect_range
        self.antialias = antialias
        self.as_tensor = as_tensor

    @staticmethod
    def get_params(
        img: Picture,
        target_size: Sequence[int],
        longest: float,
        random_scale_prob: float = 0.0,
        random_scale_range: tuple[float, float] = (1.0, 1.33),
        random_scale_area: bool = False,
        random_aspect_prob: float = 0.0,
        random_aspect_range: tuple[float, float] = (0.9, 1.11),
    ) -> list[int]:
        """[height, width] of what an image becomes, drawn from Python's `random`."""
        height, width = F.get_size(img)
        zoom, stretch = 1.0, 1.0
        if random_scale_prob > 0 and random.random() < random_scale_prob:
            zoom = random.uniform(*random_scale_range)
            if random_scale_area:
                zoom = 1 / math.sqrt(zoom)
        if random_aspect_prob > 0 and random.random() < random_aspect_prob:
            stretch = math.sqrt(math.exp(random.uniform(*map(math.log, random_aspect_range))))
        ratios = height / target_size[0], width / target_size[1]
        ratio = max(ratios) * longest + min(ratios) * (1 - longest)
        return [max(round(height * (zoom / stretch) / ratio), 1), max(round(width * (zoom * stretch) / ratio), 1)]

    def __call__(self, img: Picture) -> Picture:
        size = self.get_params(
            img, self.size, self.longest, self.random_scale_prob, self.random_scale_range, self.random_scale_area,
            self.random_aspect_prob, self.random_aspect_range)
        height, width = F.get_size(img)
        new, mode = bounded(size, height, width), choose(self.interpolation)
        if self.as_tensor:
            from .train_transforms import resized_crop

            return resized_crop(img, (0, 0, height, width), new, mode)
        return resized(img, new, mode, self.antialias)

    def __repr__(self) -> str:
        ranges = {name: f"({low:.3f}, {high:.3f})" for name, (low, high) in (
            ("scale", self.random_scale_range), ("aspect", self.random_aspect_range))}
        return (f"{type(self).__name__}(size={self.size}, interpolation={describe_mode(self.interpolation)}, "
                f"longest={self.longest:.3f}, random_scale_prob={self.random_scale_prob:.3f}, "
                f"random_scale_range={ranges['scale']}, random_aspect_prob={self.random_aspect_prob:.3f}, "
                f"random_aspect_range={ranges['aspect']})")


def resized(image: Picture, size: Sequence[int], mode: InterpolationMode, antialias: bool = True) -> Picture:
    """An image resized to (height, width); uint8 tensors get PIL's values, within one step."""
    size = list(size)
    if not isinstance(image, Tensor):
        return F.resize(image, size, mode)
    if mode == InterpolationMode.BILINEAR or not antialias and mode == InterpolationMode.BICUBIC:
        return F.resize(image, size, mode, antialias=antialias)
    return _resize_by_pil(image, size, mode)


def _resize_by_pil(image: Tensor, size: list[int], interpolation: InterpolationMode) -> Tensor:
    """Resize each plane with PIL: torch has not all its filters, and its bicubic one strays from PIL's.

    Bicubic results overshoot and are clipped after each of the two passes, whose order depends on PIL's version: on
    sharp edges torch's differs by up to 31 steps, on photographs by 2.
    """
    planes = [Image.fromarray(plane) for plane in image.cpu().flatten(0, -3).numpy()]
    results = torch.cat([F.pil_to_tensor(F.resize(plane, size, interpolation)) for plane in planes])
    return results.reshape(*image.shape[:-2], *size).to(image.device)


def crop_or_pad(img: Picture, top: int, left: int, height: int, width: int, fill: Fill = 0,
                padding_mode: str = "constant") -> Picture:
    """Cut a box out of an image, which may reach beyond its edges; what lies there is padded as by torchvision."""
    have_height, have_width = F.get_size(img)
    sides = (-left, -top, left + width - have_width, top + height - have_height)
    border = [max(min(side, most), 0) for side, most in zip(sides, (width, height) * 2)]
    if any(border):
        img = F.pad(img, border, fill=fill, padding_mode=padding_mode)
    return F.crop(img, max(top, 0), max(left, 0), height, width)


def center_crop_or_pad(img: Picture, output_size: int | Sequence[int], fill: Fill = 0,
                       padding_mode: str = "constant") -> Picture:
    """Cut (height, width) out of the middle; where the image is smaller, there is a border around it."""
    size = _pair(output_size)
    missing = [max(want - have, 0) for want, have in zip(size, F.get_size(img))]
    if any(missing):  # the odd pixel goes to the right and below
        (above, below), (before, after) = ((pixels // 2, (pixels + 1) // 2) for pixels in missing)
        img = F.pad(img, [before, above, after, below], fill=fill, padding_mode=padding_mode)
    return F.center_crop(img, list(size))


class CenterCropOrPad(nn.Module):
    """`center_crop_or_pad` to `size`."""

    def __init__(self, size: int | Sequence[int], fill: Fill = 0, padding_mode: str = "constant") -> None:
        super().__init__()
        self.size = _pair(size)
        self.fill = fill
        self.padding_mode = padding_mode

    def forward(self, img: Picture) -> Picture:
        return center_crop_or_pad(img, self.size, self.fill, self.padding_mode)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(size={self.size})"


class RandomCropOrPad(CenterCropOrPad):
    """The same at a random place, drawn from Python's `random`."""

    @staticmethod
    def get_params(img: Picture, size: Sequence[int]) -> tuple[int, int]:
        """(top, left) of the box; negative where the image is smaller than it."""
        spare = [have - want for have, want in zip(F.get_size(img), size)]
        top, left = (int(math.copysign(random.randint(0, abs(pixels)), pixels)) for pixels in spare)
        return top, left

    def forward(self, img: Picture) -> Picture:
        return crop_or_pad(img, *self.get_params(img, self.size), *self.size, self.fill, self.padding_mode)


class RandomPad:
    """Surround an image that is smaller than (height, width) `input_size`; it lies at a random place."""

    def __init__(self, input_size: Sequence[int], fill: Fill = 0) -> None:
        self.input_size = input_size
        self.fill = fill

    @staticmethod
    def get_params(img: Picture, input_size: Sequence[int]) -> tuple[int, int, int, int]:
        """Pixels to add: left, above, right, below."""
        height, width = F.get_size(img)
        missing_w, missing_h = max(input_size[1] - width, 0), max(input_size[0] - height, 0)
        left, above = random.randint(0, missing_w), random.randint(0, missing_h)
        return left, above, missing_w - left, missing_h - above

    def __call__(self, img: Picture) -> Picture:
        return F.pad(img, list(self.get_params(img, self.input_size)), fill=self.fill)


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    pair = (size, size) if isinstance(size, int) else tuple(size) * (2 if len(size) == 1 else 1)
    if len(pair) != 2:
        raise ConfigError(f"size {size!r} is neither a side of a square nor (height, width)")
    return pair


class TrimBorder(nn.Module):
    """Cut `border_size` pixels off each edge."""

    def __init__(self, border_size: int) -> None:
        super().__init__()
        self.border_size = border_size

    def forward(self, img: Picture) -> Picture:
        height, width = F.get_size(img)
        border = self.border_size
        if min(height, width) <= 2 * border:
            raise BadImageError(f"{width} x {height} pixels are too few to cut {border} off each edge")
        return F.crop(img, border, border, height - 2 * border, width - 2 * border)

    def extra_repr(self) -> str:
        return str(self.border_size)


class MaybeToTensor(torchvision_transforms.ToTensor):  # type: ignore[misc]
    """PIL image or array (height, width, channels) to a float32 tensor (channels, height, width) in [0, 1].

    Tensors stay as they are, but for those of uint8 where `scale` says so.
    """

    def __init__(self, scale: bool = False) -> None:
        super().__init__()
        self.scale = scale

    def __call__(self, pic: Any) -> Tensor:
        if isinstance(pic, Tensor):
            return pic / 255 if self.scale and pic.dtype == torch.uint8 else pic
        return pil_functional.to_tensor(pic)


class MaybePILToTensor:
    """PIL image to a tensor (channels, height, width) of its own type; tensors stay as they are."""

    def __call__(self, pic: Any) -> Tensor:
        return pic if isinstance(pic, Tensor) else F.pil_to_tensor(pic)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class ToTensor:
    """PIL image to a tensor (channels, height, width) of `dtype`, whose values stay as they are: 0 to 255."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype

    def __call__(self, pil_img: Image.Image) -> Tensor:
        return F.pil_to_tensor(pil_img).to(self.dtype)


class ToNumpy:
    """PIL image to a uint8 array (channels, height, width)."""

    def __call__(self, pil_img: Image.Image) -> np.ndarray:
        pixels = np.array(pil_img, np.uint8)
        return pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels[None]
