"""`timm.data`: loaders that are torch's, data sets that pass over unreadable images, operations by timm's arguments."""

from __future__ import annotations

import inspect
import logging
import multiprocessing
import os
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, IterableDataset
from torchvision.datasets.folder import default_loader

from ... import data
from ...data import augment
from ...data.auto_augment import AUTO_AUGMENT_POLICIES, OPERATIONS, Operation
from ...data.geometry import as_pair
from ...data.loader import image_size
from ...data.naflex_loader import naflex_transforms
from ...data.readers.torchvision_reader import TorchvisionReader, as_path
from ...data.torch_loader import PrefetchLoader, create_torch_loader, seed_worker
from ...errors import BadImageError, ConfigError
from .inputs import get_model_input_config

__all__ = ["LEVEL_TO_ARG", "NAME_TO_OP", "FastCollateMixup", "ImageDataset", "Mixup", "create_dataset", "create_loader",
           "create_naflex_loader", "create_transform"]

_logger = logging.getLogger("mvlib")

_ERROR_RETRY = int(os.environ.get("TIMM_DATASET_MAX_RETRIES") or 10)


class ImageDataset(data.ImageDataset):
    """mvlib's, whose unreadable samples are replaced by the next ones, with a warning: up to 10 in a row, or as many
    as TIMM_DATASET_MAX_RETRIES says."""

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        for _ in range(_ERROR_RETRY):
            try:
                return super().__getitem__(index)
            except BadImageError as error:
                _logger.warning("left out an unreadable sample: %s", error)
                index = (index + 1) % len(self)
        raise RuntimeError(f"{_ERROR_RETRY} unreadable samples in a row")


def create_dataset(*args: Any, **kwargs: Any) -> Any:
    """`mvlib.data.create_dataset`; for torch/ torchvision's data set itself."""
    dataset = data.create_dataset(*args, **kwargs)
    if not isinstance(dataset, data.ImageDataset):
        return dataset
    if isinstance(dataset.reader, TorchvisionReader):
        theirs = dataset.reader.dataset
        theirs.transform, theirs.target_transform = dataset.transform, dataset.target_transform
        if getattr(theirs, "loader", None) is as_path:
            theirs.loader = default_loader
        return theirs
    return ImageDataset(reader=dataset.reader, load_bytes=dataset.load_bytes, input_img_mode=dataset.input_img_mode,
                        transform=dataset.transform, target_transform=dataset.target_transform,
                        additional_features=dataset.additional_features)


create_dataset.__signature__ = inspect.signature(data.create_dataset)  # type: ignore[attr-defined]


def create_transform(*args: Any, **kwargs: Any) -> Any:
    """`mvlib.data.create_transform` whose crops for training are timm's to the bit, unless `exact=False` is given."""
    return data.create_transform(*args, **{"exact": True, **kwargs})


create_transform.__signature__ = inspect.signature(data.create_transform)  # type: ignore[attr-defined]


class Mixup(data.Mixup):
    """mvlib's, which refuses batches of an odd size in every mode: their middle image would stay as it is.

    Raises:
        AssertionError: When it is called with such a batch.
    """

    def __call__(self, images: torch.Tensor, target: torch.Tensor, rng: Any = None) -> Any:
        if len(images) % 2:
            raise AssertionError("Batch size should be even when using this")
        return super().__call__(images, target, rng)


class FastCollateMixup(data.FastCollateMixup, Mixup):
    """The same while collating."""


_OURS = inspect.signature(data.create_loader)
_TIMMS = _OURS.replace(return_annotation=DataLoader | PrefetchLoader, parameters=[
    parameter.replace(default=False) if parameter.name == "pin_memory" else parameter
    for parameter in _OURS.parameters.values() if parameter.kind is not parameter.KEYWORD_ONLY])
_OF_TRANSFORM = set(inspect.signature(data.create_transform).parameters) & set(_TIMMS.parameters)
_OF_LOADER = set(inspect.signature(create_torch_loader).parameters) & set(_TIMMS.parameters)
_OF_ERASING = ("re_prob", "re_mode", "re_count")


def create_loader(*args: Any, **kwargs: Any) -> DataLoader[Any] | PrefetchLoader:
    """`mvlib.data.create_loader` with timm's result: torch's DataLoader, or a `PrefetchLoader` around it."""
    given = _TIMMS.bind(*args, **kwargs)
    given.apply_defaults()
    options = given.arguments
    splits, sizes, is_training = options["num_aug_splits"], options["input_size_choices"], options["is_training"]
    size, mean = options["input_size"], options["mean"]
    channels = size[0] if isinstance(size, (tuple, list)) and len(size) == 3 else len(mean)
    re_num_splits = (splits or 2) if options["re_split"] else 0

    def transform(size: Any) -> Any:
        of_transform = {name: options[name] for name in _OF_TRANSFORM}
        return create_transform(**{**of_transform, "input_size": size}, re_num_splits=re_num_splits,
                                     separate=splits > 0)

    dataset, make_batch_sampler = options["dataset"], None
    if sizes is None:
        dataset.transform = transform(size)
    else:
        if not is_training or splits or options["use_multi_epochs_loader"]:
            raise ConfigError("input_size_choices need is_training=True, and go with neither num_aug_splits nor "
                              "use_multi_epochs_loader")
        transforms = [transform(image_size(size, channels)) for size in sizes]
        dataset.transform = None
        dataset = data.ScheduledTransformDataset(dataset, transforms)
        make_batch_sampler = _schedule(options, len(transforms))
    loader = create_torch_loader(**{name: options[name] for name in _OF_LOADER} | {"dataset": dataset},
                                 make_batch_sampler=make_batch_sampler)
    if not options["use_prefetcher"]:
        return loader
    of_erasing = {name: options[name] for name in _OF_ERASING} if is_training and not options["no_aug"] else {}
    return PrefetchLoader(loader, mean, options["std"], channels, options["device"], options["img_dtype"],
                          options["fp16"], **of_erasing, re_num_splits=re_num_splits)


create_loader.__signature__ = _TIMMS  # type: ignore[attr-defined]


def _schedule(options: Mapping[str, Any], choices: int) -> Callable[[Any], Any]:
    batch_sizes = options["batch_size_choices"] or [options["batch_size"]] * choices
    if len(batch_sizes) != choices:
        raise ConfigError(f"{len(batch_sizes)} batch_size_choices for {choices} input_size_choices")
    return lambda sampler: data.ScheduledBatchSampler(
        sampler, batch_sizes, options["batch_choice_weights"], options["batch_choice_seed"],
        num_batches=options["num_batches"], choice_schedule=options["batch_choice_schedule"],
        schedule_epochs=options["batch_schedule_epochs"], schedule_spread=options["batch_schedule_spread"],
        schedule_random_mix=options["batch_schedule_random_mix"])


_NAFLEX = inspect.signature(data.create_naflex_loader)
_DEFAULTS = {"pin_memory": True, "device": torch.device("cuda"), "rank": 0, "world_size": 1}
_TIMMS_NAFLEX = _NAFLEX.replace(return_annotation=DataLoader | data.NaFlexPrefetchLoader, parameters=[
    parameter.replace(default=_DEFAULTS.get(parameter.name, parameter.default))
    for parameter in _NAFLEX.parameters.values() if parameter.kind is not parameter.KEYWORD_ONLY])


def create_naflex_loader(*args: Any, **kwargs: Any) -> DataLoader[Any] | data.NaFlexPrefetchLoader:
    """`mvlib.data.create_naflex_loader` with timm's result: torch's DataLoader, a `NaFlexPrefetchLoader` around it."""
    given = _TIMMS_NAFLEX.bind(*args, **kwargs)
    given.apply_defaults()
    options = given.arguments
    dataset, is_training, last = options["dataset"], options["is_training"], options["patchify_channels_last"]
    make, workers = naflex_transforms(options), options["num_workers"]
    common = dict(num_workers=workers, pin_memory=options["pin_memory"],
                  persistent_workers=options["persistent_workers"] and workers > 0)
    if is_training and isinstance(dataset, IterableDataset):
        raise ConfigError("patches need a data set whose samples have numbers, and this one is a stream")
    if is_training and options["num_aug_repeats"]:
        raise ConfigError(f"num_aug_repeats={options['num_aug_repeats']} and batches of patches do not go together")
    if is_training:
        wrapped = data.NaFlexMapDatasetWrapper(
            dataset, options["patch_size"], options["patch_size_choices"], options["patch_size_choice_probs"],
            options["train_seq_lens"], options["batch_size"] * max(options["train_seq_lens"]), make,
            options["mixup_fn"], options["seed"], True, options["distributed"], options["rank"],
            options["world_size"], options["epoch"], patchify_channels_last=last)
        loader = DataLoader(wrapped, batch_size=None, worker_init_fn=partial(
            seed_worker, worker_seeding=options["worker_seeding"]), **common)
    else:
        length = options["max_seq_len"]
        dataset.transform = make(max_seq_len=length, patch_size=options["patch_size"] or 16, patchify=True)
        sampler = data.OrderedDistributedSampler(dataset) if options["distributed"] and not isinstance(
            dataset, IterableDataset) else None
        loader = DataLoader(dataset, options["batch_size"], sampler=sampler, collate_fn=data.NaFlexCollator(length),
                            **common)
    if not options["use_prefetcher"]:
        return loader
    of_erasing = {name: options[name] for name in _OF_ERASING} if is_training and not options["no_aug"] else {}
    return data.NaFlexPrefetchLoader(
        loader, options["mean"], options["std"], options["channels"], torch.device(options["device"]),
        options["img_dtype"], **of_erasing, patchify_channels_last=last)


create_naflex_loader.__signature__ = _TIMMS_NAFLEX  # type: ignore[attr-defined]


# Operations of policies. timm's take a PIL image, what the operation needs, and keywords `resample` and `fillcolor`.

def _by_timms_signature(name: str, operation: Operation) -> Callable[..., Image.Image]:
    def apply(img: Image.Image, *args: Any, resample: Any = Image.Resampling.BICUBIC,
              fillcolor: Any = None, **_: Any) -> Image.Image:
        if operation.moves:
            resample = random.choice(resample) if isinstance(resample, (list, tuple)) else resample
            fill = (0,) * len(img.getbands()) if fillcolor is None else fillcolor
            args = (*args, resample, (fill,) if isinstance(fill, (int, float)) else fill)
        picture = img if operation.pil else augment.to_array(img)
        return augment.to_pil(operation.apply(picture, *args))

    apply.__name__ = apply.__qualname__ = name
    return apply


_FUNCTIONS = {
    "auto_contrast": "AutoContrast", "brightness": "Brightness", "color": "Color", "contrast": "Contrast",
    "desaturate": "Desaturate", "equalize": "Equalize", "gaussian_blur": "GaussianBlur",
    "gaussian_blur_rand": "GaussianBlurRand", "invert": "Invert", "posterize": "Posterize", "rotate": "Rotate",
    "sharpness": "Sharpness", "shear_x": "ShearX", "shear_y": "ShearY", "solarize": "Solarize",
    "solarize_add": "SolarizeAdd", "translate_x_abs": "TranslateX", "translate_x_rel": "TranslateXRel",
    "translate_y_abs": "TranslateY", "translate_y_rel": "TranslateYRel",
}
_BY_NAME = {ours: _by_timms_signature(theirs, OPERATIONS[ours]) for theirs, ours in _FUNCTIONS.items()}
_POLICY = "auto_augment_policy_"


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        return _BY_NAME[_FUNCTIONS[name]]
    if name.removeprefix(_POLICY) in AUTO_AUGMENT_POLICIES and name.startswith(_POLICY):
        return partial(data.auto_augment_policy, name.removeprefix(_POLICY))
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def _argument(operation: Operation) -> Callable[[float, Mapping[str, Any]], tuple[float, ...]] | None:
    draw = operation.argument
    return None if draw is None else lambda level, hparams: (draw(level, {"translate_pct": 0.45, **hparams}),)


# To look at: what AugmentOp does stands in OPERATIONS.
NAME_TO_OP = MappingProxyType({
    name: _BY_NAME[next(plain for plain in (name, name.removesuffix("Increasing"), name.removesuffix("Original"))
                        if plain in _BY_NAME)] for name in OPERATIONS})
LEVEL_TO_ARG = MappingProxyType({name: _argument(operation) for name, operation in OPERATIONS.items()})


# Parts of create_transform.

Size = int | tuple[int, int]
Floats = Sequence[float]


def transforms_noaug_train(
    img_size: Size = 224, interpolation: str = "bilinear", mean: Floats = data.IMAGENET_DEFAULT_MEAN,
    std: Floats = data.IMAGENET_DEFAULT_STD, use_prefetcher: bool = False, normalize: bool = True,
) -> Any:
    return create_transform(img_size, True, True, interpolation=interpolation, mean=mean, std=std,
                            use_prefetcher=use_prefetcher, normalize=normalize)


def transforms_imagenet_train(
    img_size: Size = 224, scale: tuple[float, float] | None = None, ratio: tuple[float, float] | None = None,
    train_crop_mode: str | None = None, hflip: float = 0.5, vflip: float = 0.0,
    color_jitter: float | tuple[float, ...] = 0.4, color_jitter_prob: float | None = None,
    force_color_jitter: bool = False, grayscale_prob: float = 0.0, gaussian_blur_prob: float = 0.0,
    auto_augment: str | None = None, interpolation: str = "random", mean: Floats = data.IMAGENET_DEFAULT_MEAN,
    std: Floats = data.IMAGENET_DEFAULT_STD, re_prob: float = 0.0, re_mode: str = "const", re_count: int = 1,
    re_num_splits: int = 0, use_prefetcher: bool = False, normalize: bool = True, separate: bool = False, **naflex: Any,
) -> Any:
    return create_transform(
        img_size, True, False, train_crop_mode, scale, ratio, hflip, vflip, color_jitter, color_jitter_prob,
        grayscale_prob, gaussian_blur_prob, auto_augment, interpolation, mean, std, re_prob, re_mode, re_count,
        re_num_splits, use_prefetcher=use_prefetcher, normalize=normalize, separate=separate,
        force_color_jitter=force_color_jitter, **naflex)


def transforms_imagenet_eval(
    img_size: Size = 224, crop_pct: float | None = None, crop_mode: str | None = None,
    crop_border_pixels: int | None = None, interpolation: str = "bilinear", mean: Floats = data.IMAGENET_DEFAULT_MEAN,
    std: Floats = data.IMAGENET_DEFAULT_STD, use_prefetcher: bool = False, normalize: bool = True, **naflex: Any,
) -> Any:
    return create_transform(
        img_size, crop_pct=crop_pct, crop_mode=crop_mode, crop_border_pixels=crop_border_pixels, mean=mean, std=std,
        interpolation=interpolation, use_prefetcher=use_prefetcher, normalize=normalize, **naflex)


def resolve_input_data_config(model: nn.Module, args: Mapping[str, Any] | None = None, pretrained_cfg: Any = None,
                              use_test_size: bool = False, verbose: bool = False) -> dict[str, Any]:
    """`resolve_data_config` for the channels and the size that a model has now.

    Raises:
        ConfigError: `args` contradict each other, or what the model takes.
    """
    args = {key: value for key, value in (args or {}).items() if value is not None}
    config = pretrained_cfg if pretrained_cfg is not None else getattr(model, "pretrained_cfg", {})
    config = config.to_dict() if hasattr(config, "to_dict") else config
    takes = get_model_input_config(model)
    channels, *size = takes["input_size"]
    build = dict(args.get("model_kwargs") or {})
    if not takes["fixed_input_size"] and {"img_size", "input_size"} & set(args):
        build.pop("img_size", None)  # what the model was built with is no request
    whole: Sequence[Any] = args.get("input_size") or (None, None, None)
    asked_channels = _asked("number of channels", whole[0], args.get("in_chans"), args.get("chans"),
                            build.get("in_chans"))
    sizes: list[Any] = [whole[1:] if whole[0] else None, args.get("img_size"), build.get("img_size")]
    asked_size = _asked("image size", *(as_pair(size, "img_size") for size in sizes if size is not None))
    if asked_channels not in (None, channels):
        raise ConfigError(f"{asked_channels} channels are asked for, and the model takes {channels}")
    if takes["fixed_input_size"]:
        if asked_size not in (None, tuple(size)):
            raise ConfigError(f"images of {asked_size} are asked for, and the model takes those of {tuple(size)}")
    elif asked_size is not None:
        size = list(asked_size)
    else:
        size = ((use_test_size and config.get("test_input_size")) or config.get("input_size") or size)[-2:]
    resolved = {**args, "input_size": (channels, *size), "in_chans": channels}
    for key, default in (("mean", data.IMAGENET_DEFAULT_MEAN), ("std", data.IMAGENET_DEFAULT_STD)):
        values = args.get(key)
        if values is None:  # those of the weights are made to fit, those that are asked for have to
            values = data.per_channel(config.get(key) or default, channels)
        resolved[key] = (values,) if isinstance(values, (int, float)) else tuple(values)
    return data.resolve_data_config(resolved, config, model, use_test_size, verbose)


def _asked(what: str, *given: Any) -> Any:
    """The one value of several that say the same; None where there is none."""
    values = {value for value in given if value is not None}
    if len(values) > 1:
        raise ConfigError(f"different values of the {what} are asked for: {', '.join(map(str, sorted(values)))}")
    return next(iter(values), None)


class SharedCount:
    """A number that processes share, handed to them when they are started."""

    def __init__(self, epoch: int = 0) -> None:
        self.shared_epoch = multiprocessing.Value("i", epoch)

    @property
    def value(self) -> int:
        return self.shared_epoch.value

    @value.setter
    def value(self, epoch: int) -> None:
        self.shared_epoch.value = epoch


def adapt_to_chs(x: float | Floats, n: int) -> tuple[float, ...]:
    """One value a channel: the average of all where there are more or fewer."""
    return data.per_channel(x, n)
