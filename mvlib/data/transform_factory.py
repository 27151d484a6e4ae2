"""`create_transform`. torchvision, whose import takes as long as torch's, is imported by the pipelines that need it."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from .geometry import CROP_MODES, as_pair, eval_geometry

if TYPE_CHECKING:
    from torchvision.transforms import Compose

    from .fast import FastTransform

__all__ = ["create_transform"]

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos", "random")

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
    backend: str = "reference",
    decode: str = "full",
    force_color_jitter: bool = False,
    exact: bool = False,
) -> Compose | FastTransform | tuple[Compose, Compose, Compose]:
    """The transform from an image to what a model reads; `create_transform(**resolve_data_config(model=model))`.

    For inference the result on PIL images equals timm's, or torchvision's, to the bit. uint8 tensors (..., channels,
    height, width) are taken too, and differ from it by at most one step of 8 bits before normalisation. Float tensors
    are taken as intensities that are scaled already.

    For training, random draws are timm's from the same seeds: crops, operations' arguments and erased boxes from
    Python's `random`, the choice of operations from numpy, the rest from torch. Pixels are PIL's to within one step of
    8 bits ("bilinear"), see `train_transforms.resized_crop`, and policies can make more of that; with `exact` they are
    PIL's. uint8 results are last channels in memory.

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
        backend: Of inference: "reference", or "fast", which decodes and resizes by torch, several times sooner, and
            differs by at most one step of 8 bits; see `fast.FastTransform`.
        decode: Of the fast backend: "full", or "scaled", which decodes large JPEGs at 1/2, 1/4 or 1/8 of their size
            where that is at least twice the size they are resized to, and resizes by torch's 8-bit kernels wherever
            images shrink. Values differ more then.
        force_color_jitter: Apply colour jitter along with any `auto_augment`.
        exact: Of training: crops are resized by PIL, to timm's pixels, and not by torch, which is sooner.
        naflex: Images keep their aspect ratio and get the largest size whose patches fit into a sequence; in training a
            box of random area and nearly the image's aspect ratio does. `input_size` counts for policies alone.
        patch_size, max_seq_len: Side, or (height, width), of a patch, and patches of a sequence.
        patchify: Whether the result is cut into patches, see `Patchify`; `patchify_channels_last` and (in evaluation)
            `patchify_flatten` say how.

    Raises:
        ValueError: A crop mode, interpolation, preprocessing, size or policy that does not exist, or `separate`, which
            splits augmentation only. Those of training are `ConfigError`.
        NotImplementedError: TensorFlow's preprocessing, or patches out of the fast backend or torchvision's pipeline.
    """
    _refuse(separate=separate and (no_aug or not is_training), tf_preprocessing=tf_preprocessing and use_prefetcher)
    if (naflex or patchify) and (backend, preprocessing) != ("reference", "timm"):
        raise NotImplementedError(f"patches are made by backend='reference' and preprocessing='timm', not by "
                                  f"{backend!r} and {preprocessing!r}")
    size = as_pair(input_size, "input_size")
    _check_choice("interpolation", interpolation, INTERPOLATIONS)
    _check_choice("preprocessing", preprocessing, ("timm", "torchvision"))
    _check_choice("backend", backend, ("reference", "fast"))
    _check_choice("decode", decode, ("full", "scaled"))
    normalize = normalize and not use_prefetcher
    if is_training and no_aug and naflex:
        is_training, interpolation = False, "bilinear" if interpolation == "random" else interpolation
    crop: Any = None
    cut: Any = None
    if naflex or patchify:
        from .naflex_transforms import Patchify, RandomResizedCropToSequence, ResizeToSequence

        if patchify:
            cut = Patchify(patch_size, patchify_flatten or is_training, patchify_channels_last)
        if naflex and is_training:
            crop = RandomResizedCropToSequence(
                patch_size, max_seq_len, scale or (0.08, 1.0), ratio or (3 / 4, 4 / 3), interpolation)
        elif naflex:
            crop = ResizeToSequence(patch_size, max_seq_len, interpolation=interpolation)
    if is_training:
        from .train_transforms import create_plain_train_transform, create_train_transform
        from .transforms import to_result

        if no_aug:
            return create_plain_train_transform(input_size if isinstance(input_size, int) else size, interpolation,
                                                to_result(normalize, mean, std))
        return create_train_transform(
            size, train_crop_mode, scale, ratio, hflip, vflip, color_jitter, color_jitter_prob, grayscale_prob,
            gaussian_blur_prob, auto_augment, interpolation, mean, std, re_prob, re_mode, re_count, re_num_splits,
            normalize, separate, preprocessing, force_color_jitter, crop, cut, exact)
    _check_choice("crop_mode", crop_mode or CROP_MODES[0], CROP_MODES)
    geometry = eval_geometry(size, crop_pct, crop_mode, crop_border_pixels or 0, mean, preprocessing, resize_size)
    if backend == "fast":
        from .fast import FastTransform

        return FastTransform(geometry, interpolation, (mean, std) if normalize else None, decode, antialias)
    from .transforms import reference_transform

    return reference_transform(geometry, interpolation, (mean, std) if normalize else None, antialias, crop, cut)


def _refuse(separate: bool, **features: bool) -> None:
    if separate:
        raise ValueError("separate=True splits transforms for training; there is nothing to split here")
    for name, asked in features.items():
        if asked:
            raise NotImplementedError(f"{name}=True is not supported")


def _check_choice(name: str, value: Any, choices: Container[str]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} {value!r} is none of {', '.join(choices)}")
