"""Transforms for training: random crops, flips, colours and policies, with timm's draws from the same seeds."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision import transforms as torchvision_transforms
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, RandomHorizontalFlip, RandomVerticalFlip
from torchvision.transforms.v2 import functional as F

from ..errors import ConfigError
from .augment import to_array, to_pil
from .auto_augment import AugMixAugment, AutoAugment, RandAugment, create_policy
from .images import open_image
from .jpeg import Source, decode_scaled, read_jpeg
from .random_erasing import TORCHVISION_ERASING, RandomErasing
from .torch_jpeg import decode_jpeg
from .transforms import (
    CenterCropOrPad,
    MaybePILToTensor,
    MaybeToTensor,
    Mode,
    Picture,
    RandomCropOrPad,
    Resize,
    ResizeKeepRatio,
    choose,
    describe_mode,
    interpolation_mode,
    resized,
    to_result,
)

__all__ = ["RandomResizedCropAndInterpolation", "ToPIL", "TrainTransform", "create_train_transform"]

TRAIN_CROP_MODES = ("rrc", "rkrc", "rkrr")
_TORCH_MODES = {InterpolationMode.BILINEAR: "bilinear", InterpolationMode.BICUBIC: "bicubic"}
_ATTEMPTS = 10  # to find a crop within the image

Box = tuple[int, int, int, int]


def create_train_transform(
    size: tuple[int, int],
    train_crop_mode: str | None,
    scale: tuple[float, float] | None,
    ratio: tuple[float, float] | None,
    hflip: float,
    vflip: float,
    color_jitter: float | Sequence[float] | None,
    color_jitter_prob: float | None,
    grayscale_prob: float,
    gaussian_blur_prob: float,
    auto_augment: str | None,
    interpolation: str,
    mean: Sequence[float],
    std: Sequence[float],
    re_prob: float,
    re_mode: str,
    re_count: int,
    re_num_splits: int,
    normalize: bool,
    separate: bool,
    preprocessing: str,
    force_color_jitter: bool = False,
    crop: Callable[[Any], Any] | None = None,
    patchify: Callable[[Any], Any] | None = None,
    exact: bool = False,
) -> TrainTransform | tuple[TrainTransform, Compose, Compose]:
    """The transform of images for training; arguments are those of `create_transform`.

    With `separate` its three parts: the first and the second from PIL image to PIL image, the third to the tensor.
    `crop` is what crops in the place of `train_crop_mode`, `patchify` what comes last.
    """
    if preprocessing == "torchvision":
        color_jitter = None
    geometry = _geometry(size, train_crop_mode, scale, ratio, interpolation, exact) if crop is None else [crop]
    geometry += [flip(p) for flip, p in ((RandomHorizontalFlip, hflip), (RandomVerticalFlip, vflip)) if p > 0]
    colours: list[Callable[[Any], Any]] = []
    if auto_augment:
        colours.append(_policy(auto_augment, size, interpolation, mean, preprocessing))
    if color_jitter is not None and (not auto_augment or force_color_jitter or "3a" in auto_augment):
        colours.append(_maybe(torchvision_transforms.ColorJitter(*_jitter_factors(color_jitter)), color_jitter_prob))
    if grayscale_prob:
        colours.append(torchvision_transforms.RandomGrayscale(p=grayscale_prob))
    if gaussian_blur_prob:
        colours.append(_maybe(torchvision_transforms.GaussianBlur(kernel_size=23), gaussian_blur_prob))

    final: list[Callable[[Any], Any]] = to_result(normalize, mean, std)
    if normalize and re_prob > 0:
        limits = TORCHVISION_ERASING if preprocessing == "torchvision" else {}
        final.append(RandomErasing(re_prob, mode=re_mode, max_count=re_count, num_splits=re_num_splits, **limits))
    final += [] if patchify is None else [patchify]
    if separate:
        return TrainTransform([*geometry, ToPIL()]), Compose(colours), Compose(final)
    return TrainTransform([*geometry, *colours, *final])


def create_plain_train_transform(size: int | tuple[int, int], interpolation: str, final: list[Any]) -> Compose:
    """Training without augmentation: timm resizes the shorter side for an int, and both for a pair, then crops."""
    interpolation = "bilinear" if interpolation == "random" else interpolation
    pair = (size, size) if isinstance(size, int) else size
    return Compose([Resize(size, interpolation), CenterCrop(pair), *final])


def _geometry(size: tuple[int, int], mode: str | None, scale: tuple[float, float] | None,
              ratio: tuple[float, float] | None, interpolation: str, exact: bool) -> list[Callable[[Any], Any]]:
    mode = mode or "rrc"
    if mode not in TRAIN_CROP_MODES:
        raise ConfigError(f"train_crop_mode {mode!r} is none of {', '.join(TRAIN_CROP_MODES)}")
    if mode == "rrc":
        return [RandomResizedCropAndInterpolation(size, scale or (0.08, 1.0), ratio or (3 / 4, 4 / 3), interpolation,
                                                  as_tensor=not exact)]
    resize = ResizeKeepRatio(
        size, interpolation=interpolation, random_scale_prob=0.5, random_scale_range=scale or (0.8, 1.0),
        random_scale_area=True, random_aspect_prob=0.5, random_aspect_range=ratio or (0.9, 1 / 0.9),
        as_tensor=not exact)
    return [resize, (RandomCropOrPad if mode == "rkrr" else CenterCropOrPad)(size, padding_mode="reflect")]


def _policy(config: str, size: tuple[int, int], interpolation: str, mean: Sequence[float],
            preprocessing: str) -> Callable[[Any], Any]:
    hparams: dict[str, Any] = {"translate_const": int(min(size) * 0.45),
                               "img_mean": tuple(min(255, round(255 * value)) for value in mean)}
    if interpolation != "random":
        hparams["interpolation"] = Image.Resampling[interpolation.upper()]
    if config.startswith("augmix"):
        hparams["translate_pct"] = 0.3
    return create_policy(config, hparams, "bilinear" if interpolation == "random" else interpolation, preprocessing)


def _jitter_factors(color_jitter: float | Sequence[float]) -> Sequence[float]:
    """Of brightness, contrast, saturation, and maybe hue."""
    if not isinstance(color_jitter, (list, tuple)):
        return (float(color_jitter),) * 3
    if len(color_jitter) not in (3, 4):
        raise ConfigError(f"color_jitter takes one factor, or three or four (brightness, contrast, saturation, hue), "
                          f"got {len(color_jitter)}")
    return color_jitter


def _maybe(transform: nn.Module, probability: float | None) -> nn.Module:
    return transform if probability is None else torchvision_transforms.RandomApply([transform], p=probability)


# Steps of ours that take uint8 tensors and give the pixels that they give of PIL images.
_TAKE_TENSORS = (RandomHorizontalFlip, RandomVerticalFlip, ResizeKeepRatio, CenterCropOrPad, AutoAugment, RandAugment,
                 AugMixAugment)
_CONVERSIONS = (MaybePILToTensor, MaybeToTensor)


class TrainTransform(Compose):
    """Steps one after the other, the first of which crops.

    The crop gives a uint8 tensor, unless it is exact, which our steps take sooner than a PIL image. Any other step that
    comes before the conversion to the result is given a PIL image, as all are in timm; steps can be replaced and
    inserted.
    """

    def __call__(self, img: Picture) -> Any:
        return _run(self.transforms, img)

    def from_file(self, source: Source) -> Any:
        """The same as `self(open_image(source))`, sooner where the file is a JPEG.

        Large crops are an exception, see `RandomResizedCropAndInterpolation.decode_gap`.

        Args:
            source: As of `open_image`.

        Raises:
            BadImageError: As `open_image`.
        """
        crop, *rest = self.transforms
        if isinstance(crop, RandomResizedCropAndInterpolation) and crop.as_tensor:
            return _run(rest, crop.from_file(source))
        return self(open_image(source))


def _run(steps: Sequence[Callable[[Any], Any]], image: Picture) -> Any:
    is_image = True
    for step in steps:
        is_image = is_image and not isinstance(step, _CONVERSIONS)
        if is_image and isinstance(image, Tensor) and not isinstance(step, _TAKE_TENSORS):
            image = to_pil(image) if image.dtype == torch.uint8 else image
        image = step(image)
    return image


class RandomResizedCropAndInterpolation:
    """Cut out a box of random area and aspect ratio, and resize it.

    Args:
        size: (height, width) of the result, or the side of a square.
        scale: Range of the box's share of the image's area.
        ratio: Range of its width over its height, drawn uniformly on a logarithmic scale.
        interpolation: As in `create_transform`.
        as_tensor: Give a uint8 tensor, by torch, which is sooner: see `resized_crop`.
        decode_gap: With `as_tensor`, a JPEG is decoded at 1/2, 1/4 or 1/8 of its size where the box is still at least
            so many times as large as the result. That takes 10 to 50% less time; with 2, photographs differ by 0.3
            steps of 255 on average and by 6 at most, after the box has been rounded to whole pixels. Infinity for
            never.
    """

    def __init__(self, size: int | Sequence[int], scale: tuple[float, float] = (0.08, 1.0),
                 ratio: tuple[float, float] = (3 / 4, 4 / 3), interpolation: str = "bilinear", *,
                 as_tensor: bool = False, decode_gap: float = 2.0) -> None:
        if not 0 < scale[0] <= scale[1] or not 0 < ratio[0] <= ratio[1]:
            raise ConfigError(f"scale {scale} and ratio {ratio} are to be ranges (least, greatest) above 0")
        self.size = (size, size) if isinstance(size, int) else (size[0], size[1])
        self.scale = scale
        self.ratio = ratio
        self.interpolation: Mode = interpolation_mode(interpolation)
        self.as_tensor = as_tensor
        self.decode_gap = decode_gap

    @staticmethod
    def get_params(img: Picture, scale: Sequence[float], ratio: Sequence[float]) -> Box:
        """(top, left, height, width) of a box in an image."""
        height, width = F.get_size(img)
        return _draw_box(height, width, scale, ratio)

    def draw(self, height: int, width: int) -> Box:
        """(top, left, height, width) of the box in an image of `height` and `width` pixels."""
        return _draw_box(height, width, self.scale, self.ratio)

    def __call__(self, img: Picture) -> Picture:
        box = self.get_params(img, self.scale, self.ratio)
        if self.as_tensor:
            return self._resize(img, box)
        return resized(F.crop(img, *box), self.size, choose(self.interpolation))

    def from_file(self, source: Source) -> Tensor:
        """The uint8 tensor of a file, as `TrainTransform.from_file`."""
        jpeg = read_jpeg(source)
        if jpeg is None or not jpeg[1].is_upright:
            image = open_image(source)
            return self._resize(image, self.draw(image.height, image.width))
        data, header = jpeg
        box = self.draw(header.height, header.width)
        shrink = self._shrink(box)
        try:
            if shrink > 1:
                return self._resize(decode_scaled(data, shrink), tuple(pixels // shrink for pixels in box))
            image = decode_jpeg(data, header).permute(2, 0, 1)
        except (OSError, RuntimeError):  # damaged, which PIL may overlook
            image = open_image(source)
        return self._resize(image, box)

    def _shrink(self, box: Box) -> int:
        """1, 2, 4 or 8: what leaves the box large enough when the image is as many times smaller."""
        spare = min(have / want for have, want in zip(box[2:], self.size)) / self.decode_gap
        return next((shrink for shrink in (8, 4, 2) if spare >= shrink), 1)

    def _resize(self, image: Picture, box: Box) -> Tensor:
        return resized_crop(image, box, self.size, choose(self.interpolation))

    def __repr__(self) -> str:
        scale, ratio = (tuple(round(value, 4) for value in values) for values in (self.scale, self.ratio))
        return (f"{type(self).__name__}(size={self.size}, scale={scale}, ratio={ratio}, "
                f"interpolation={describe_mode(self.interpolation)})")


def _draw_box(height: int, width: int, scale: Sequence[float], ratio: Sequence[float]) -> Box:
    """Where ten draws do not fit into the image: its centre, with an aspect ratio within the range."""
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(_ATTEMPTS):
        area = random.uniform(*scale) * (height * width)
        aspect = math.exp(random.uniform(low, high))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return random.randint(0, height - h), random.randint(0, width - w), h, w
    w = min(width, max(round(height * max(ratio)), 1))
    h = min(height, max(round(width / min(ratio)), 1))
    return (height - h) // 2, (width - w) // 2, h, w


def resized_crop(image: Picture, box: Box, size: tuple[int, int], interpolation: InterpolationMode) -> Tensor:
    """Resize `box` (top, left, height, width) of an image to `size`: uint8 (channels, *size), in memory last channels.

    Bilinear and bicubic by torch, several times as fast as PIL: bilinear results are within one step of 255 of PIL's;
    bicubic ones on photographs too, but for one value in 50,000 (overshoots at edges, by up to 5 steps).
    """
    top, left, height, width = box
    if isinstance(image, Tensor):
        image = image[..., top:top + height, left:left + width]
    else:
        image = image.crop((left, top, left + width, top + height))
    if interpolation not in _TORCH_MODES:
        image = F.resize(image, list(size), interpolation)
    if not isinstance(image, Tensor):
        image = _to_tensor(image)
    if interpolation not in _TORCH_MODES:
        return image
    pixels = image.permute(1, 2, 0)[None].permute(0, 3, 1, 2)  # so that torch sees that channels are last
    return interpolate(pixels, size, mode=_TORCH_MODES[interpolation], antialias=True)[0]


def _to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(to_array(image)).permute(2, 0, 1)


class ToPIL(nn.Module):
    """uint8 tensor (1 or 3 channels, height, width) to PIL image."""

    def forward(self, image: Picture) -> Image.Image:
        return to_pil(image)
