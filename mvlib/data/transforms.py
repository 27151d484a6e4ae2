"""Image transforms: timm's and torchvision's pipelines for inference, to the bit, and the same on uint8 tensors.

Those for training are in `train_transforms`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as pil_functional
from torchvision.transforms.v2 import Compose
from torchvision.transforms.v2 import functional as F

from ..errors import BadImageError
from .constants import DEFAULT_CROP_MODE, DEFAULT_CROP_PCT, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

__all__ = ["CenterCrop", "Normalize", "Resize", "ToTensor", "TrimBorder", "create_transform"]

CROP_MODES = ("center", "squash", "border")
_INTERPOLATIONS = {name: (InterpolationMode(name),)
                   for name in ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")}
_INTERPOLATIONS["random"] = (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC)
_MAX_PIXELS = 2 ** 28  # of a resized image: one of 1 x 30000 pixels would become 224 x 6720000

Size = int | tuple[int, int]


def create_transform(
    input_size: int | Sequence[int] = 224,
    is_training: bool = False,
    no_aug: bool = False,
    train_crop_mode: str | None = None,
    scale: tuple[float, float] | None = None,
    ratio: tuple[float, float] | None = None,
    hflip: float = 0.5,
    vflip: float = 0.0,
    color_jitter: float | tuple[float, ...] = 0.4,
    color_jitter_prob: float | None = None,
    grayscale_prob: float = 0.0,
    gaussian_blur_prob: float = 0.0,
    auto_augment: str | None = None,
    interpolation: str = "bilinear",
    mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
    std: Sequence[float] = IMAGENET_DEFAULT_STD,
    re_prob: float = 0.0,
    re_mode: str = "const",
    re_count: int = 1,
    re_num_splits: int = 0,
    crop_pct: float | None = None,
    crop_mode: str | None = None,
    crop_border_pixels: int | None = None,
    tf_preprocessing: bool = False,
    use_prefetcher: bool = False,
    normalize: bool = True,
    separate: bool = False,
    naflex: bool = False,
    patch_size: Size = 16,
    max_seq_len: int = 576,
    patchify: bool = False,
    patchify_channels_last: bool = True,
    patchify_flatten: bool = True,
    *,
    preprocessing: str = "timm",
    resize_size: int | Sequence[int] | None = None,
    antialias: bool = True,
) -> Compose | tuple[Compose, Compose, Compose]:
    """The transform from an image to what a model reads; `create_transform(**resolve_data_config(model=model))`.

    For inference the result on PIL images equals timm's, or torchvision's, to the bit. uint8 tensors (..., channels,
    height, width) are taken too, and differ from it by at most one step of 8 bits before normalisation. Float tensors
    are taken as intensities that are scaled already.

    For training, random draws are distributed as timm's, or torchvision's; they come from Python's `random`, but for
    colour jitter, greyscale, blur and torchvision's policies, which draw from torch. uint8 results are last channels
    in memory.

    Arguments have timm's names and order.

    Args:
        input_size: Size of the result: side of a square, (height, width) or (channels, height, width), in pixels.
        is_training: Whether images are cropped and altered at random. What follows up to `auto_augment`, and the
            `re_*`, is ignored otherwise; `crop_*` are ignored in training.
        no_aug: Train on images that are resized and cropped in the centre.
        train_crop_mode: "rrc" (also None): a box of random area and aspect ratio, resized; "rkrc" and "rkrr": resized
            with nearly the right aspect ratio, and cut out of the middle, or at random.
        scale, ratio: Ranges of the crop's share of the image and of its aspect ratio; None for (0.08, 1) and
            (3/4, 4/3) with "rrc", (0.8, 1) and (0.9, 1/0.9) with the others.
        hflip, vflip: Probabilities of mirroring.
        color_jitter: Largest change of brightness, contrast and saturation; or one for each of them, and maybe of
            hue. Not applied along with `auto_augment` other than 3-Augment, nor in torchvision's preprocessing.
        color_jitter_prob, grayscale_prob, gaussian_blur_prob: Probabilities; of colour jitter None for always.
        auto_augment: Policy such as "rand-m9-mstd0.5-inc1", "augmix-m5-w4-d2", "original-mstd0.5", "3a", "ta_wide";
            see `auto_augment.create_policy`.
        interpolation: "nearest", "bilinear", "bicubic", "box", "hamming" or "lanczos"; "random" draws bilinear or
            bicubic for each image (from Python's `random`). Tensors gain speed with bilinear alone; the others go
            by way of PIL.
        mean, std: One value a channel, of intensities in [0, 1].
        re_prob, re_mode, re_count, re_num_splits: Of `RandomErasing`, which is applied to normalised results only.
        crop_pct: Share of the resized image's side that the crop keeps; above 1 there is a border. None for 0.875.
        crop_mode: "center" (also None): aspect ratio kept, the shorter side fits, the centre is cut out; "squash":
            aspect ratio given up, so that nothing but 1 - `crop_pct` is lost; "border": the longer side fits, the rest
            is filled with `mean`.
        crop_border_pixels: Pixels to cut off each edge before anything else.
        use_prefetcher: Whether the result stays uint8, for a loader that normalises on the device.
        normalize: Whether the result is float and normalised, otherwise it stays uint8.
        separate: Whether to give the three parts of augmentation by splits: geometry, policy, conversion to a tensor.
        preprocessing: "timm", or "torchvision", which takes `resize_size` in the place of `crop_pct` and always crops
            the centre.
        resize_size: Of torchvision: the shorter side after resizing, in pixels; or (height, width) that the resized
            image has to cover.
        antialias: Whether tensors are antialiased by bilinear and bicubic when made smaller, as PIL images always
            are.

    Raises:
        ValueError: A crop mode, interpolation, preprocessing, size or policy that does not exist, or `separate`, which
            splits augmentation only. Those of training are `ConfigError`.
        NotImplementedError: What is made for NaFlex models or TensorFlow's preprocessing.
    """
    _refuse(separate=separate and (no_aug or not is_training), naflex=naflex, patchify=patchify,
            tf_preprocessing=tf_preprocessing and use_prefetcher)
    size = _pair(input_size, "input_size")
    _check_choice("interpolation", interpolation, _INTERPOLATIONS)
    _check_choice("preprocessing", preprocessing, ("timm", "torchvision"))
    if is_training:
        from .train_transforms import create_plain_train_transform, create_train_transform

        if no_aug:
            return create_plain_train_transform(input_size if isinstance(input_size, int) else size, interpolation,
                                                _to_result(normalize and not use_prefetcher, mean, std))
        return create_train_transform(
            size, train_crop_mode, scale, ratio, hflip, vflip, color_jitter, color_jitter_prob, grayscale_prob,
            gaussian_blur_prob, auto_augment, interpolation, mean, std, re_prob, re_mode, re_count, re_num_splits,
            normalize and not use_prefetcher, separate, preprocessing)
    crop_mode = crop_mode or DEFAULT_CROP_MODE
    _check_choice("crop_mode", crop_mode, CROP_MODES)

    steps: list[nn.Module] = [TrimBorder(crop_border_pixels)] if crop_border_pixels else []
    if preprocessing == "torchvision":
        if crop_mode != "center" or not resize_size:
            raise ValueError("torchvision's preprocessing needs resize_size, and crop_mode 'center'")
        to = _pair(resize_size, "resize_size")
        steps += [Resize(*_shorter_side(to), interpolation, antialias), CenterCrop(size)]
    else:
        to = tuple(math.floor(side / (crop_pct or DEFAULT_CROP_PCT)) for side in size)
        if crop_mode == "squash":
            steps += [Resize(to, "exact", interpolation, antialias), CenterCrop(size)]
        elif crop_mode == "border":
            fill = [round(255 * value) for value in mean]
            steps += [Resize(to, "inside", interpolation, antialias), CenterCrop(size, fill)]
        else:
            steps += [Resize(*_shorter_side(to), interpolation, antialias), CenterCrop(size)]
    return Compose(steps + _to_result(normalize and not use_prefetcher, mean, std))


def _to_result(normalize: bool, mean: Sequence[float], std: Sequence[float]) -> list[nn.Module]:
    return [ToTensor(), Normalize(mean, std)] if normalize else [ToTensor(scale=False)]


def _refuse(separate: bool, **features: bool) -> None:
    if separate:
        raise ValueError("separate=True splits transforms for training; there is nothing to split here")
    for name, asked in features.items():
        if asked:
            raise NotImplementedError(f"{name}=True is not supported")


def _check_choice(name: str, value: Any, choices: Sequence[str] | dict[str, Any]) -> None:
    if value not in choices:
        raise ValueError(f"{name} {value!r} is none of {', '.join(choices)}")


def _pair(size: int | Sequence[int], name: str) -> tuple[int, int]:
    """(height, width)."""
    height, width = (size, size) if isinstance(size, int) else tuple(size)[-2:] if len(size) > 1 else (size[0], size[0])
    if height < 1 or width < 1:
        raise ValueError(f"{name} {size!r} is not a size in pixels")
    return height, width


def _shorter_side(size: tuple[int, int]) -> tuple[Size, str]:
    """Size and fit that keep the aspect ratio and cover `size`.

    For a square both fits ask for the same, but timm and torchvision round differently.
    """
    return (size[0], "shorter") if size[0] == size[1] else (size, "cover")


class Resize(nn.Module):
    """Resize to `size`, in one of four ways.

    Args:
        size: Pixels; an int for "shorter", else (height, width).
        fit: "shorter": the shorter side becomes `size` (torchvision's rounding); "cover" and "inside": the smallest
            image of the same aspect ratio that covers `size`, and the largest inside it (timm's rounding); "exact":
            `size` itself.
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
        """(height, width) that an image of `height` and `width` gets.

        Raises:
            BadImageError: The image is so narrow that it would not fit into memory.
        """
        if self.fit == "exact":
            return list(self.size)
        if self.fit == "shorter":
            longer = int(self.size * max(height, width) / min(height, width))
            size = [longer, self.size] if width <= height else [self.size, longer]
        else:
            ratios = height / self.size[0], width / self.size[1]
            ratio = min(ratios) if self.fit == "cover" else max(ratios)
            size = [max(round(height / ratio), 1), max(round(width / ratio), 1)]
        if size[0] * size[1] > _MAX_PIXELS:
            raise BadImageError(f"too narrow to be resized: {width} x {height} pixels would become "
                                f"{size[1]} x {size[0]}")
        return size

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
