"""How the inputs of a set of weights are prepared. Imports neither torch nor PIL."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ConfigError
from ..tasks import CLASSIFICATION, refuse
from .constants import DEFAULT_CROP_MODE, DEFAULT_CROP_PCT, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from .geometry import check_crop_pct

__all__ = ["image_mode", "per_channel", "resolve_data_config", "resolve_model_data_config"]

_logger = logging.getLogger(__name__)

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def image_mode(channels: int, asked: str | None = None) -> str:
    """PIL's mode of the images that a model of so many channels takes: L, LA, RGB or RGBA, or the one `asked` for.

    Raises:
        ConfigError: No mode has so many channels, or the one that is asked for has not.
    """
    if asked:
        from PIL import ImageMode

        try:
            bands = len(ImageMode.getmode(asked).bands)
        except KeyError:
            raise ConfigError(f"PIL has no image mode '{asked}'; a model of {channels} channels takes "
                              f"{_MODES.get(channels, 'none of its modes')}") from None
        if bands != channels:
            raise ConfigError(f"images of mode {asked} have {bands} channels, and the model takes {channels}: build it "
                              f"with in_chans={bands} (--in-chans {bands}), or ask for "
                              f"{_MODES.get(channels, 'another mode')}")
        return asked
    if channels not in _MODES:
        known = ", ".join(f"{mode} {count}" for count, mode in _MODES.items())
        raise ConfigError(f"the model takes {channels} channels, and no image file has so many ({known}): give it "
                          f"tensors of your own in Python, or build it with another in_chans (--in-chans)")
    return _MODES[channels]


def per_channel(values: float | Sequence[float], channels: int) -> tuple[float, ...]:
    """One value a channel; where there are more or fewer, their average serves all, as in timm."""
    values = (values,) if isinstance(values, (int, float)) else tuple(values)
    return values if len(values) == channels else (sum(values) / len(values),) * channels


def resolve_data_config(
    args: Mapping[str, Any] | None = None,
    pretrained_cfg: Any = None,
    model: Any = None,
    use_test_size: bool = False,
    verbose: bool = False,
) -> dict[str, Any]:
    """Arguments of `create_transform` for a model or its weights, by timm's rules.

    Each value is the first that is given of: `args`, `pretrained_cfg` (if empty, the model's), ImageNet's usual one.

    Weights whose `preprocessing` is "torchvision" give `preprocessing` and `resize_size` (pixels of the shorter side)
    besides timm's keys, and `antialias` where it is not True. They keep the ratio of resize to crop: with another
    size, `resize_size` grows or shrinks in proportion (a pair (height, width) if the new size is not square); an
    explicit `crop_pct` sets it to floor(size / crop_pct), as timm computes it; an explicit `crop_mode` other than
    "center", which torchvision does not have, leaves torchvision's pipeline for timm's at the same ratio.

    Args:
        args: What a user asks for: `input_size` (channels, height, width) or `img_size` (pixels of a square) with
            `in_chans` or `chans`; `interpolation`, `mean` and `std` (one number, or one a channel), `crop_pct`,
            `crop_mode`. Other keys and None are ignored, so the parsed arguments of a script can be given.
        pretrained_cfg: A dict, or an object with `to_dict()` such as `WeightsConfig`.
        model: A model with `pretrained_cfg`.
        use_test_size: Whether `test_input_size` and `test_crop_pct` are preferred where the weights have them.
        verbose: Whether the result is logged.

    Returns:
        `input_size`, `interpolation`, `mean`, `std`, `crop_pct` and `crop_mode`.

    Raises:
        ValueError: Nothing is given to resolve, a size, mean or std has the wrong form, or the model does not classify
            images.
    """
    if not (model is not None or args or pretrained_cfg):
        raise ValueError("a data config comes from a model, args or a pretrained_cfg, and none of them is given")
    args = {key: value for key, value in (args or {}).items() if value is not None}
    if hasattr(model, "modules"):  # a torch module, perhaps in a wrapper
        from ..layers.helpers import unwrap

        model = unwrap(model)
    weights = _as_dict(pretrained_cfg) or _as_dict(getattr(model, "pretrained_cfg", None))
    if weights.get("task", CLASSIFICATION) != CLASSIFICATION:
        refuse(weights["architecture"], weights["task"], "resolve_data_config")
    test = {key: weights.get(f"test_{key}") for key in ("input_size", "crop_pct")} if use_test_size else {}

    input_size, channels = _input_size(args, test.get("input_size") or weights.get("input_size"))
    config = {
        "input_size": input_size,
        "interpolation": args.get("interpolation") or weights.get("interpolation") or "bicubic",
        "mean": _per_channel(args, weights, "mean", channels, IMAGENET_DEFAULT_MEAN),
        "std": _per_channel(args, weights, "std", channels, IMAGENET_DEFAULT_STD),
        "crop_pct": args.get("crop_pct") or test.get("crop_pct") or weights.get("crop_pct") or DEFAULT_CROP_PCT,
        "crop_mode": args.get("crop_mode") or weights.get("crop_mode") or DEFAULT_CROP_MODE,
    }
    check_crop_pct(config["crop_pct"])
    if weights.get("preprocessing") == "torchvision" and weights.get("resize_size"):
        config.update(_torchvision_resize(config, weights, args.get("crop_pct") or test.get("crop_pct")))
    if verbose:
        _logger.info("inputs are prepared so: %s", ", ".join(f"{key} {value}" for key, value in config.items()))
    return config


def resolve_model_data_config(
    model: Any,
    args: Mapping[str, Any] | None = None,
    pretrained_cfg: Any = None,
    use_test_size: bool = False,
    verbose: bool = False,
) -> dict[str, Any]:
    """`resolve_data_config` with the model first."""
    return resolve_data_config(args, pretrained_cfg, model, use_test_size, verbose)


def _as_dict(config: Any) -> Mapping[str, Any]:
    return config.to_dict() if hasattr(config, "to_dict") else config or {}


def _input_size(args: Mapping[str, Any], published: Any) -> tuple[Any, int]:
    """The input size, and how many channels a mean has to have.

    As in timm, `in_chans` counts for the size only where the size is not the weights' own.
    """
    channels = args.get("in_chans", args.get("chans", 3))
    if "input_size" in args:
        size = args["input_size"]
        if not isinstance(size, (tuple, list)) or len(size) != 3:
            raise ValueError(f"input_size {size!r} is not (channels, height, width)")
        return tuple(size), size[0]
    if "img_size" in args:
        if not isinstance(args["img_size"], int):
            raise ValueError(f"img_size {args['img_size']!r} is not the side of a square, in pixels; "
                             "input_size takes (channels, height, width)")
        return (channels, args["img_size"], args["img_size"]), channels
    return (channels, 224, 224) if published is None else published, channels


def _per_channel(args: Mapping[str, Any], weights: Mapping[str, Any], key: str, channels: int, default: Any) -> Any:
    if key not in args:
        return weights.get(key) or default
    values = tuple(args[key])
    if len(values) not in (1, channels):
        raise ValueError(f"{key} {values} has {len(values)} values for {channels} channels")
    return per_channel(values, channels)


def _torchvision_resize(
    config: Mapping[str, Any], weights: Mapping[str, Any], explicit_crop_pct: float | None
) -> dict[str, Any]:
    """What torchvision's pipeline needs beside timm's keys; nothing where timm's pipeline has to take over."""
    if config["crop_mode"] != "center":
        return {}
    size, published, resize = config["input_size"][-2:], weights["input_size"][-2:], weights["resize_size"]
    if explicit_crop_pct:
        sides = [math.floor(side / explicit_crop_pct) for side in size]
    else:
        resize = (resize, resize) if isinstance(resize, int) else (resize[0], resize[-1])
        sides = [round(side * to / old) for side, to, old in zip(size, resize, published)]
    own = {"preprocessing": "torchvision", "resize_size": sides[0] if sides[0] == sides[1] else tuple(sides)}
    return own if weights.get("antialias", True) else {**own, "antialias": False}
