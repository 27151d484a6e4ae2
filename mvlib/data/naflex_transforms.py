"""Images as sequences of patches: resized and cropped so that a sequence has room for them, and cut into patches.

NaViT (https://arxiv.org/abs/2307.06304), FlexiViT (https://arxiv.org/abs/2212.08013), SigLIP 2's NaFlex
(https://arxiv.org/abs/2502.14786). Results and random draws are timm's, from the same seeds. Sizes are (height, width).
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from ..errors import BadImageError, ConfigError
from .transforms import (
    Fill,
    Mode,
    Picture,
    center_crop_or_pad,
    choose,
    crop_or_pad,
    describe_mode,
    interpolation_mode,
)

__all__ = [
    "CenterCropToSequence", "Patchify", "RandomCropToSequence", "RandomResizedCropToSequence",
    "ResizeKeepRatioToSequence", "ResizeToSequence", "get_image_size_for_seq", "patchify_image",
]

Size = int | Sequence[int]
_LARGEST = 100.0  # times that an image may be enlarged


def patch_sides(patch_size: Size) -> tuple[int, int]:
    """(height, width) of a patch.

    Raises:
        ConfigError: They are not two, or not positive.
    """
    sides = (patch_size, patch_size) if isinstance(patch_size, int) else tuple(patch_size)
    if len(sides) != 2 or min(sides) < 1:
        raise ConfigError(f"patch_size {patch_size!r} is neither a side of a square nor (height, width), in pixels")
    return sides[0], sides[1]


def _whole_patches(height: float, width: float, patch: tuple[int, int]) -> tuple[float, float]:
    return patch[0] * math.ceil(height / patch[0]), patch[1] * math.ceil(width / patch[1])


def _count(size: Sequence[int], patch: tuple[int, int]) -> int:
    return (size[0] // patch[0]) * (size[1] // patch[1])


def get_image_size_for_seq(
    image_hw: Sequence[int],
    patch_size: Size = 16,
    max_seq_len: int = 1024,
    divisible_by_patch: bool = True,
    max_ratio: float | None = None,
    eps: float = 1e-5,
) -> tuple[float, tuple[int, int]]:
    """The greatest factor on an image's sides at which its patches fit into a sequence, and the size that it gives.

    Args:
        image_hw: Of the image.
        patch_size: Side, or (height, width).
        max_seq_len: Patches that there is room for.
        divisible_by_patch: Whether sides are rounded up to whole patches.
        max_ratio: Greatest factor.
        eps: How exactly the factor is found.

    Raises:
        ConfigError: The patch has no size, or there is no room.
        BadImageError: The image is so large, or so small, that no factor was found.
    """
    patch = patch_sides(patch_size)
    if max_seq_len < 1:
        raise ConfigError(f"max_seq_len {max_seq_len} has room for no patch")

    def scaled(ratio: float) -> tuple[int, int]:
        height, width = image_hw[0] * ratio, image_hw[1] * ratio
        if divisible_by_patch:
            height, width = _whole_patches(height, width, patch)
        return int(max(height, patch[0])), int(max(width, patch[1]))

    fits, too_large = eps / 10.0, _LARGEST
    while too_large - fits >= eps:
        middle = (fits + too_large) / 2.0
        if _count(scaled(middle), patch) <= max_seq_len:
            fits = middle
        else:
            too_large = middle
    ratio = fits if max_ratio is None else min(fits, max_ratio)
    if not eps < ratio < _LARGEST:
        raise BadImageError(f"{image_hw[1]} x {image_hw[0]} pixels cannot be scaled to {max_seq_len} patches of "
                            f"{patch[1]} x {patch[0]}")
    return ratio, scaled(ratio)


def _mode(interpolation: Any) -> Mode:
    return interpolation_mode(interpolation) if isinstance(interpolation, str) else interpolation


def _size(image: Picture) -> tuple[int, int]:
    _, height, width = F.get_dimensions(image)
    return height, width


class ResizeToSequence(nn.Module):
    """Resize, the aspect ratio kept but for whole patches, to the largest size whose patches fit into a sequence.

    Args:
        patch_size, max_seq_len, divisible_by_patch, max_ratio: See `get_image_size_for_seq`.
        interpolation: As in `create_transform`; or torchvision's mode, or several, one of which is drawn.
    """

    def __init__(
        self,
        patch_size: Size,
        max_seq_len: int = 1024,
        divisible_by_patch: bool = True,
        max_ratio: float | None = None,
        interpolation: str | InterpolationMode | Sequence[InterpolationMode] = "bicubic",
    ) -> None:
        super().__init__()
        self.patch_size, self.max_seq_len = patch_size, max_seq_len
        self.divisible_by_patch, self.max_ratio = divisible_by_patch, max_ratio
        self.interpolation = _mode(interpolation)

    def forward(self, img: Picture) -> Picture:
        _, size = get_image_size_for_seq(
            _size(img), self.patch_size, self.max_seq_len, self.divisible_by_patch, self.max_ratio)
        return F.resize(img, list(size), choose(self.interpolation), antialias=True)

    def extra_repr(self) -> str:
        return (f"patch_size={self.patch_size}, max_seq_len={self.max_seq_len}, max_ratio={self.max_ratio}, "
                f"interpolation={describe_mode(self.interpolation)}")


class ResizeKeepRatioToSequence(nn.Module):
    """Resize to what fits into a sequence, with random changes of size and aspect ratio.

    Args:
        patch_size, divisible_by_patch, max_ratio: See `get_image_size_for_seq`.
        max_sequence_len: Its `max_seq_len`.
        longest: Of the two factors that whole patches give, 0 takes the lesser, 1 the greater, or what is between.
        interpolation: As in `create_transform`.
        random_*: As of `ResizeKeepRatio`.
    """

    def __init__(
        self,
        patch_size: Size = 16,
        max_sequence_len: int = 1024,
        divisible_by_patch: bool = True,
        longest: float = 0.0,
        interpolation: str = "bilinear",
        random_scale_prob: float = 0.0,
        random_scale_range: tuple[float, float] = (0.85, 1.05),
        random_scale_area: bool = False,
        random_aspect_prob: float = 0.0,
        random_aspect_range: tuple[float, float] = (0.9, 1.11),
        max_ratio: float | None = None,
    ) -> None:
        super().__init__()
        self.patch_size, self.max_sequence_len = patch_size, max_sequence_len
        self.divisible_by_patch, self.max_ratio = divisible_by_patch, max_ratio
        self.longest = float(longest)
        self.interpolation = _mode(interpolation)
        self.random_scale_prob, self.random_scale_range = random_scale_prob, random_scale_range
        self.random_scale_area = random_scale_area
        self.random_aspect_prob, self.random_aspect_range = random_aspect_prob, random_aspect_range

    @staticmethod
    def get_params(
        img: Picture,
        patch_size: Size,
        max_sequence_len: int,
        divisible_by_patch: bool,
        longest: float,
        random_scale_prob: float = 0.0,
        random_scale_range: tuple[float, float] = (1.0, 1.33),
        random_scale_area: bool = False,
        random_aspect_prob: float = 0.0,
        random_aspect_range: tuple[float, float] = (0.9, 1.11),
        max_ratio: float | None = None,
    ) -> list[int]:
        """[height, width] of what an image becomes, drawn from Python's `random`."""
        height, width = _size(img)
        _, feasible = get_image_size_for_seq(
            (height, width), patch_size, max_sequence_len, divisible_by_patch, max_ratio)
        ratios = feasible[0] / height, feasible[1] / width
        ratio = max(ratios) * longest + min(ratios) * (1.0 - longest)
        zoom, stretch = 1.0, 1.0
        if random_scale_prob > 0 and random.random() < random_scale_prob:
            zoom = random.uniform(*random_scale_range)
            zoom = 1.0 / math.sqrt(zoom) if random_scale_area else zoom
        if random_aspect_prob > 0 and random.random() < random_aspect_prob:
            stretch = math.sqrt(math.exp(random.uniform(*map(math.log, random_aspect_range))))
        patch = patch_sides(patch_size)
        wanted = round(height * ratio * (zoom / stretch)), round(width * ratio * (zoom * stretch))
        size: tuple[float, float] = max(wanted[0], patch[0]), max(wanted[1], patch[1])
        for shrink in (False, True):
            if shrink:
                count = _count([int(side) for side in size], patch)
                if count <= max_sequence_len:
                    break
                back = math.sqrt(max_sequence_len / count)
                size = int(size[0] * back), int(size[1] * back)
            if divisible_by_patch:
                size = _whole_patches(*size, patch)
        return [int(size[0]), int(size[1])]

    def forward(self, img: Picture) -> Picture:
        size = self.get_params(
            img, self.patch_size, self.max_sequence_len, self.divisible_by_patch, self.longest, self.random_scale_prob,
            self.random_scale_range, self.random_scale_area, self.random_aspect_prob, self.random_aspect_range,
            self.max_ratio)
        return F.resize(img, size, choose(self.interpolation))

    def extra_repr(self) -> str:
        return (f"patch_size={self.patch_size}, max_sequence_len={self.max_sequence_len}, longest={self.longest:.3f}, "
                f"random_scale_prob={self.random_scale_prob:.3f}, random_aspect_prob={self.random_aspect_prob:.3f}")


class CenterCropToSequence(nn.Module):
    """Cut the middle out of an image, or surround it, so that its patches fit into a sequence.

    Args:
        patch_size, max_seq_len, divisible_by_patch: See `get_image_size_for_seq`.
        fill, padding_mode: Of what surrounds it, as of `center_crop_or_pad`.
    """

    def __init__(
        self, patch_size: Size, max_seq_len: int, divisible_by_patch: bool = True, fill: Fill = 0,
        padding_mode: str = "constant",
    ) -> None:
        super().__init__()
        self.patch_size, self.max_seq_len, self.divisible_by_patch = patch_size, max_seq_len, divisible_by_patch
        self.fill, self.padding_mode = fill, padding_mode

    def forward(self, img: Picture) -> Picture:
        _, size = get_image_size_for_seq(_size(img), self.patch_size, self.max_seq_len, self.divisible_by_patch)
        return center_crop_or_pad(img, size, self.fill, self.padding_mode)


class RandomCropToSequence(nn.Module):
    """The same at a random place, never enlarging. Arguments as there; `max_sequence_len` is its `max_seq_len`."""

    def __init__(
        self, patch_size: Size, max_sequence_len: int, divisible_by_patch: bool = True, fill: Fill = 0,
        padding_mode: str = "constant",
    ) -> None:
        super().__init__()
        self.patch_size, self.max_sequence_len = patch_size, max_sequence_len
        self.divisible_by_patch = divisible_by_patch
        self.fill, self.padding_mode = fill, padding_mode

    @staticmethod
    def get_params(img: Picture, target_size: Sequence[int]) -> tuple[int, int]:
        """(top, left) of the box; negative where the image is smaller than it."""
        spare = [have - want for have, want in zip(_size(img), target_size)]
        top, left = (int(math.copysign(random.randint(0, abs(pixels)), pixels)) if pixels else 0 for pixels in spare)
        return top, left

    def forward(self, img: Picture) -> Picture:
        _, size = get_image_size_for_seq(
            _size(img), self.patch_size, self.max_sequence_len, self.divisible_by_patch, max_ratio=1.0)
        return crop_or_pad(img, *self.get_params(img, size), *size, self.fill, self.padding_mode)

    def extra_repr(self) -> str:
        return (f"patch_size={self.patch_size}, max_sequence_len={self.max_sequence_len}, "
                f"divisible_by_patch={self.divisible_by_patch}")


def _ordered(name: str, values: Any) -> tuple[float, float]:
    if not isinstance(values, Sequence) or len(values) != 2:
        raise ConfigError(f"{name} {values!r} is not a range (least, greatest)")
    if values[0] > values[1]:
        warnings.warn(f"{name} {values!r} is a range the wrong way round; it is turned", stacklevel=3)
    return min(values), max(values)


class RandomResizedCropToSequence(nn.Module):
    """Cut out a box of random area and aspect ratio, and resize it to what fits into a sequence.

    Args:
        patch_size, max_seq_len, divisible_by_patch, max_ratio: See `get_image_size_for_seq`.
        scale: Range of the box's share of the image's area.
        ratio: Range of its aspect ratio, as a share of the image's, drawn uniformly on a logarithmic scale.
        interpolation: As of `ResizeToSequence`.
        final_scale_range: Range of a factor, of at most 1, on the sides of the result; None for 1.
        attempts: Draws until a box lies within the image, which is taken whole otherwise.

    Raises:
        ConfigError: A range is none, or the patch has no size.
    """

    def __init__(
        self,
        patch_size: Size = 16,
        max_seq_len: int = 1024,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (0.8, 1.25),
        interpolation: str | InterpolationMode | Sequence[InterpolationMode] = "bicubic",
        divisible_by_patch: bool = True,
        max_ratio: float | None = None,
        final_scale_range: tuple[float, float] | None = None,
        attempts: int = 10,
    ) -> None:
        super().__init__()
        self.patch_h, self.patch_w = patch_sides(patch_size)
        self.max_seq_len, self.divisible_by_patch, self.max_ratio = max_seq_len, divisible_by_patch, max_ratio
        self.scale, self.ratio = _ordered("scale", scale), _ordered("ratio", ratio)
        self.final_scale_range = None
        if final_scale_range is not None:
            self.final_scale_range = _ordered("final_scale_range", final_scale_range)
        self.interpolation, self.attempts = _mode(interpolation), attempts

    @staticmethod
    def get_params(
        img: Picture,
        scale: Sequence[float],
        ratio: Sequence[float],
        crop_attempts: int = 10,
        patch_h: int = 16,
        patch_w: int = 16,
        max_seq_len: int = 1024,
        divisible_by_patch: bool = True,
        max_ratio: float | None = None,
        final_scale_range: Sequence[float] | None = None,
        interpolation: Mode = (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC),
    ) -> tuple[tuple[int, int, int, int], tuple[int, int], InterpolationMode]:
        """(top, left, height, width) of the box, the size that it gets, and how; drawn from Python's `random`."""
        patch, image = (patch_h, patch_w), _size(img)
        top, left, height, width = _draw_box(*image, scale, ratio, crop_attempts)
        factor, size = get_image_size_for_seq((height, width), patch, max_seq_len, divisible_by_patch, max_ratio)
        if final_scale_range is not None:
            factor *= min(max(random.uniform(*final_scale_range), 0.0), 1.0)
            sides: tuple[float, float] = height * factor, width * factor
            sides = _whole_patches(*sides, patch) if divisible_by_patch else (round(sides[0]), round(sides[1]))
            smaller = int(max(sides[0], patch_h)), int(max(sides[1], patch_w))
            size = smaller if _count(smaller, patch) <= max_seq_len else size
        return (top, left, height, width), size, choose(interpolation)

    def forward(self, img: Picture) -> Picture:
        box, size, mode = self.get_params(
            img, self.scale, self.ratio, self.attempts, self.patch_h, self.patch_w, self.max_seq_len,
            self.divisible_by_patch, self.max_ratio, self.final_scale_range, self.interpolation)
        return F.resized_crop(img, *box, list(size), mode, antialias=True)

    def extra_repr(self) -> str:
        return (f"patch_size=({self.patch_h}, {self.patch_w}), max_seq_len={self.max_seq_len}, scale={self.scale}, "
                f"ratio={self.ratio}, interpolation={describe_mode(self.interpolation)}, max_ratio={self.max_ratio}, "
                f"final_scale_range={self.final_scale_range}, attempts={self.attempts}")


def _draw_box(
    height: int, width: int, scale: Sequence[float], ratio: Sequence[float], attempts: int
) -> tuple[int, int, int, int]:
    """Where no draw fits into the image: what of it has an aspect ratio within the range."""
    aspect = width / height
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(attempts):
        area = height * width * random.uniform(*scale)
        wanted = aspect * math.exp(random.uniform(low, high))
        h, w = round(math.sqrt(area / wanted)), round(math.sqrt(area * wanted))
        if 0 < w <= width and 0 < h <= height:
            return random.randint(0, height - h), random.randint(0, width - w), h, w
    h, w = height, width
    if ratio[0] > 1:
        h = max(min(round(width / (aspect * ratio[0])), height), 1)
    elif ratio[1] < 1:
        w = max(min(round(height * (aspect * ratio[1])), width), 1)
    return (height - h) // 2, (width - w) // 2, h, w


def patchify_image(
    img: Tensor,
    patch_size: Sequence[int],
    pad: bool = True,
    include_info: bool = True,
    flatten_patches: bool = True,
    channels_last: bool = True,
) -> Any:
    """Cut an image (C, H, W) into patches, row by row.

    Args:
        patch_size: (height, width).
        pad: Pad the image to whole patches, with zeros below and to the right.
        include_info: Give coordinates and validity, too.
        flatten_patches: Patches are (N, numbers); otherwise (N, height, width, C), or with the channels first.
        channels_last: Whether a patch runs over (height, width, channels) or (channels, height, width).

    Returns:
        Patches; with `include_info` also row and column of each, (N, 2), and that each is one, (N,).

    Raises:
        ConfigError: Patches do not divide the image, and it may not be padded.
    """
    height, width = patch_size
    below, right = -img.shape[1] % height, -img.shape[2] % width
    if (below or right) and not pad:
        raise ConfigError(f"patches of {width} x {height} do not divide an image of {img.shape[2]} x {img.shape[1]}; "
                          f"pad=True pads it")
    if below or right:
        img = nn.functional.pad(img, (0, right, 0, below))
    rows, columns = img.shape[1] // height, img.shape[2] // width
    cut = img.reshape(img.shape[0], rows, height, columns, width)
    cut = cut.permute(1, 3, 2, 4, 0) if channels_last else cut.permute(1, 3, 0, 2, 4)
    patches = cut.flatten(0, 1).flatten(1) if flatten_patches else cut.flatten(0, 1)
    if not include_info:
        return patches
    coord = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    return patches, coord, torch.ones(rows * columns, dtype=torch.bool)


class Patchify(nn.Module):
    """An image to what `patchify_image` makes of it, as a dict: "patches", "patch_coord", "patch_valid".

    Images are tensors (C, H, W), or of PIL, which become floats in [0, 1].
    """

    def __init__(self, patch_size: Size, flatten_patches: bool = True, channels_last: bool = True) -> None:
        super().__init__()
        self.patch_size = patch_sides(patch_size)
        self.flatten_patches, self.channels_last = flatten_patches, channels_last

    def forward(self, img: Picture) -> dict[str, Tensor]:
        image = img if isinstance(img, Tensor) else F.to_tensor(img)
        found = patchify_image(
            image, self.patch_size, flatten_patches=self.flatten_patches, channels_last=self.channels_last)
        return dict(zip(("patches", "patch_coord", "patch_valid"), found))

    def extra_repr(self) -> str:
        return f"patch_size={self.patch_size}, flatten_patches={self.flatten_patches}"
