"""Augmentation policies by timm's strings: AutoAugment, RandAugment, AugMix and 3-Augment.

    original, originalr, v0, v0r   AutoAugment (https://arxiv.org/abs/1805.09501); v0 is that of TPU EfficientNet
    3a                             3-Augment of DeiT III (https://arxiv.org/abs/2204.07118)
    rand-m9-n3-mstd0.5-inc1        RandAugment (https://arxiv.org/abs/1909.13719)
    augmix-m5-w4-d2                AugMix (https://arxiv.org/abs/1912.02781)
    ta_wide, ra, imagenet          torchvision's TrivialAugmentWide, RandAugment and AutoAugment

They take and give PIL images, and uint8 tensors (channels, height, width). Every operation gives timm's pixels for the
same argument, and everything is drawn as timm draws it: operations and mixtures from numpy, the rest from Python's
`random`. torchvision's policies take PIL images and draw from torch.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..errors import ConfigError
from ..names import closest
from . import augment
from .augment import Picture

__all__ = [
    "AUTO_AUGMENT_POLICIES", "OPERATIONS", "AugMixAugment", "AugmentOp", "AutoAugment", "RandAugment",
    "augment_and_mix_transform", "augmix_ops", "auto_augment_policy", "auto_augment_transform", "create_policy",
    "rand_augment_choices", "rand_augment_ops", "rand_augment_transform",
]

_MAX_LEVEL = 10.0  # a magnitude of 10 is the far end of an operation's range
_RANDOM_INTERPOLATION = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
_HPARAMS = {"translate_const": 250, "translate_pct": 0.45, "img_mean": (128, 128, 128),
            "interpolation": _RANDOM_INTERPOLATION, "magnitude_std": 0, "magnitude_max": None}

Hparams = Mapping[str, Any]
Policy = Callable[[Any], Any]


# From a level (0..10, or up to `magnitude_max`) to an operation's argument.

def _either_sign(value: float) -> float:
    return -value if random.random() > 0.5 else value


def _signed(greatest: float) -> Callable[[float, Hparams], float]:
    return lambda level, hparams: _either_sign(level / _MAX_LEVEL * greatest)


def _between(low: float, high: float) -> Callable[[float, Hparams], float]:
    return lambda level, hparams: max(low, min(high, low + (high - low) * (level / _MAX_LEVEL)))


def _enhancement(level: float, hparams: Hparams) -> float:
    return level / _MAX_LEVEL * 1.8 + 0.1


def _enhancement_increasing(level: float, hparams: Hparams) -> float:
    return max(0.1, 1.0 + _either_sign(level / _MAX_LEVEL * 0.9))  # 1 changes nothing


def _pixels(level: float, hparams: Hparams) -> float:
    return _either_sign(level / _MAX_LEVEL * float(hparams["translate_const"]))


def _share(level: float, hparams: Hparams) -> float:
    return _either_sign(level / _MAX_LEVEL * hparams["translate_pct"])


def _steps(level: float, greatest: int) -> int:
    return int(level / _MAX_LEVEL * greatest)


def _blur_randomly(image: Image.Image, factor: float) -> Image.Image:
    return augment.blur(image, random.uniform(0.1, 2.0 * factor))


class Operation(NamedTuple):
    """What an operation does.

    Attributes:
        apply: (image) -> image; (image, argument) where there is an argument, and (image, argument, resample, fill)
            where it moves pixels.
        argument: (level, hparams) -> argument.
        moves: Whether it moves pixels.
        pil: Whether it takes and gives a PIL image, otherwise a uint8 array (height, width, channels).
    """

    apply: Callable[..., Picture]
    argument: Callable[[float, Hparams], float] | None = None
    moves: bool = False
    pil: bool = False


# The published implementations differ in which way posterizing and solarizing grow with the level.
OPERATIONS = {
    "AutoContrast": Operation(augment.auto_contrast, pil=True),
    "Equalize": Operation(augment.equalize, pil=True),
    "Invert": Operation(augment.invert),
    "Rotate": Operation(augment.rotate, _signed(30.0), moves=True, pil=True),
    "Posterize": Operation(augment.posterize, lambda level, _: _steps(level, 4)),
    "PosterizeIncreasing": Operation(augment.posterize, lambda level, _: 4 - _steps(level, 4)),
    "PosterizeOriginal": Operation(augment.posterize, lambda level, _: 4 + _steps(level, 4)),
    "Solarize": Operation(augment.solarize, lambda level, _: min(256, _steps(level, 256))),
    "SolarizeIncreasing": Operation(augment.solarize, lambda level, _: 256 - min(256, _steps(level, 256))),
    "SolarizeAdd": Operation(augment.solarize_add, lambda level, _: min(128, _steps(level, 110))),
    "Color": Operation(augment.color, _enhancement, pil=True),
    "ColorIncreasing": Operation(augment.color, _enhancement_increasing, pil=True),
    "Contrast": Operation(augment.contrast, _enhancement),
    "ContrastIncreasing": Operation(augment.contrast, _enhancement_increasing),
    "Brightness": Operation(augment.brightness, _enhancement),
    "BrightnessIncreasing": Operation(augment.brightness, _enhancement_increasing),
    "Sharpness": Operation(augment.sharpness, _enhancement),
    "SharpnessIncreasing": Operation(augment.sharpness, _enhancement_increasing),
    "ShearX": Operation(augment.shear_x, _signed(0.3), moves=True),
    "ShearY": Operation(augment.shear_y, _signed(0.3), moves=True),
    "TranslateX": Operation(augment.translate_x, _pixels, moves=True),
    "TranslateY": Operation(augment.translate_y, _pixels, moves=True),
    "TranslateXRel": Operation(augment.translate_x_rel, _share, moves=True),
    "TranslateYRel": Operation(augment.translate_y_rel, _share, moves=True),
    "Desaturate": Operation(augment.desaturate, _between(0.5, 1.0), pil=True),
    "GaussianBlur": Operation(augment.blur, _between(0.1, 2.0), pil=True),
    "GaussianBlurRand": Operation(_blur_randomly, _between(0.0, 1.0), pil=True),
}


class AugmentOp:
    """An operation that is applied with a probability, at a magnitude with noise.

    Args:
        name: Of `OPERATIONS`.
        prob: That it is applied.
        magnitude: Level, 0 to 10.
        hparams: "magnitude_std": standard deviation of the level (infinite: uniform from 0 to `magnitude`);
            "magnitude_max": highest level in the place of 10; "img_mean": colour (0..255 a channel) of what moves in
            from outside the image; "interpolation": of PIL, or several to choose from; "translate_const",
            "translate_pct": greatest translation in pixels, and in shares of the image's side.

    Raises:
        ConfigError: The operation does not exist.
    """

    def __init__(self, name: str, prob: float = 0.5, magnitude: float = 10, hparams: Hparams | None = None) -> None:
        if name not in OPERATIONS:
            raise ConfigError(f"unknown augmentation operation '{name}'{closest(name, OPERATIONS)}")
        self.name = name
        self.prob = prob
        self.magnitude = magnitude
        self.hparams = {**_HPARAMS, **(hparams or {})}
        self.magnitude_std = self.hparams["magnitude_std"]
        self.magnitude_max = self.hparams["magnitude_max"]

    def __call__(self, image: Any) -> Any:
        """Apply it to a PIL image or a uint8 tensor (channels, height, width)."""
        return _apply([self], image)

    def apply(self, image: Picture) -> Picture:
        """Apply it to a PIL image or an array, and give whichever it is quicker on."""
        if self.prob < 1.0 and random.random() > self.prob:
            return image
        operation = OPERATIONS[self.name]
        level = self._draw_level()
        image = augment.to_pil(image) if operation.pil else augment.to_array(image)
        if operation.argument is None:
            return operation.apply(image)
        argument = operation.argument(level, self.hparams)
        if operation.moves:
            return operation.apply(image, argument, self._draw_interpolation(), self.hparams["img_mean"])
        return operation.apply(image, argument)

    def _draw_level(self) -> float:
        level = self.magnitude
        if self.magnitude_std == float("inf"):
            level = random.uniform(0, level)
        elif self.magnitude_std > 0:
            level = random.gauss(level, self.magnitude_std)
        return max(0.0, min(level, self.magnitude_max or _MAX_LEVEL))

    def _draw_interpolation(self) -> int:
        interpolation = self.hparams["interpolation"]
        return random.choice(interpolation) if isinstance(interpolation, (list, tuple)) else interpolation

    def __repr__(self) -> str:
        highest = "" if self.magnitude_max is None else f", mmax={self.magnitude_max}"
        return (f"{type(self).__name__}(name={self.name}, p={self.prob}, m={self.magnitude}, "
                f"mstd={self.magnitude_std}{highest})")


def _apply(operations: Iterable[Policy], image: Any) -> Any:
    """The operations one after the other, on a PIL image or a uint8 tensor (channels, height, width)."""
    result = start = image if isinstance(image, Image.Image) else augment.to_array(image)
    for operation in operations:
        if isinstance(operation, AugmentOp):
            result = operation.apply(result)
        else:
            result = operation(augment.to_pil(result))
    return image if result is start else augment.like(result, image)


# A line is a pair of operations, each with its probability and level.
_ORIGINAL = """
    PosterizeOriginal 0.4 8, Rotate 0.6 9
    Solarize 0.6 5, AutoContrast 0.6 5
    Equalize 0.8 8, Equalize 0.6 3
    PosterizeOriginal 0.6 7, PosterizeOriginal 0.6 6
    Equalize 0.4 7, Solarize 0.2 4
    Equalize 0.4 4, Rotate 0.8 8
    Solarize 0.6 3, Equalize 0.6 7
    PosterizeOriginal 0.8 5, Equalize 1.0 2
    Rotate 0.2 3, Solarize 0.6 8
    Equalize 0.6 8, PosterizeOriginal 0.4 6
    Rotate 0.8 8, Color 0.4 0
    Rotate 0.4 9, Equalize 0.6 2
    Equalize 0.0 7, Equalize 0.8 8
    Invert 0.6 4, Equalize 1.0 8
    Color 0.6 4, Contrast 1.0 8
    Rotate 0.8 8, Color 1.0 2
    Color 0.8 8, Solarize 0.8 7
    Sharpness 0.4 7, Invert 0.6 8
    ShearX 0.6 5, Equalize 1.0 9
    Color 0.4 0, Equalize 0.6 3
    Equalize 0.4 7, Solarize 0.2 4
    Solarize 0.6 5, AutoContrast 0.6 5
    Invert 0.6 4, Equalize 1.0 8
    Color 0.6 4, Contrast 1.0 8
    Equalize 0.8 8, Equalize 0.6 3
"""
_V0 = """
    Equalize 0.8 1, ShearY 0.8 4
    Color 0.4 9, Equalize 0.6 3
    Color 0.4 1, Rotate 0.6 8
    Solarize 0.8 3, Equalize 0.4 7
    Solarize 0.4 2, Solarize 0.6 2
    Color 0.2 0, Equalize 0.8 8
    Equalize 0.4 8, SolarizeAdd 0.8 3
    ShearX 0.2 9, Rotate 0.6 8
    Color 0.6 1, Equalize 1.0 2
    Invert 0.4 9, Rotate 0.6 0
    Equalize 1.0 9, ShearY 0.6 3
    Color 0.4 7, Equalize 0.6 0
    Posterize 0.4 6, AutoContrast 0.4 7
    Solarize 0.6 8, Color 0.6 9
    Solarize 0.2 4, Rotate 0.8 9
    Rotate 1.0 7, TranslateYRel 0.8 9
    ShearX 0.0 0, Solarize 0.8 4
    ShearY 0.8 0, Color 0.6 4
    Color 1.0 0, Rotate 0.6 2
    Equalize 0.8 4, Equalize 0.0 8
    Equalize 1.0 4, AutoContrast 0.6 2
    ShearY 0.4 7, SolarizeAdd 0.6 7
    Posterize 0.8 2, Solarize 0.6 10
    Solarize 0.6 8, Equalize 0.6 1
    Color 0.8 6, Rotate 0.4 5
"""
_3A = """
    Solarize 1.0 5
    Desaturate 1.0 10
    GaussianBlurRand 1.0 10
"""
# "r": posterizing as in Google's research implementation, where a higher level keeps fewer bits.
AUTO_AUGMENT_POLICIES = {
    "original": _ORIGINAL,
    "originalr": _ORIGINAL.replace("PosterizeOriginal", "PosterizeIncreasing"),
    "v0": _V0,
    "v0r": _V0.replace("Posterize", "PosterizeIncreasing"),
    "3a": _3A,
}


def auto_augment_policy(name: str = "v0", hparams: Hparams | None = None) -> list[list[AugmentOp]]:
    """The sub-policies of an AutoAugment policy, each a list of operations that follow one another.

    Raises:
        ConfigError: There is no policy of this name.
    """
    if name not in AUTO_AUGMENT_POLICIES:
        raise ConfigError(f"unknown AutoAugment policy '{name}'{closest(name, AUTO_AUGMENT_POLICIES)}; "
                          f"policies: {', '.join(AUTO_AUGMENT_POLICIES)}")
    lines = AUTO_AUGMENT_POLICIES[name].strip().splitlines()
    policy = [[part.split() for part in line.split(",")] for line in lines]
    return [[AugmentOp(operation, float(prob), int(level), hparams) for operation, prob, level in line]
            for line in policy]


class AutoAugment:
    """One of the sub-policies of `policy` for each image."""

    def __init__(self, policy: Sequence[Sequence[AugmentOp]]) -> None:
        self.policy = policy

    def __call__(self, image: Any) -> Any:
        return _apply(random.choice(self.policy), image)

    def __repr__(self) -> str:
        return _lines(f"{type(self).__name__}(policy=", ("[" + ", ".join(map(str, operations)) + "]"
                                                         for operations in self.policy))


_RAND_OPERATIONS = ("AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize", "SolarizeAdd", "Color",
                    "Contrast", "Brightness", "Sharpness", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")
_HAS_INCREASING = ("Posterize", "Solarize", "Color", "Contrast", "Brightness", "Sharpness")
_RAND_INCREASING = tuple(name + "Increasing" if name in _HAS_INCREASING else name for name in _RAND_OPERATIONS)
_AUGMIX_OPERATIONS = ("AutoContrast", "ColorIncreasing", "ContrastIncreasing", "BrightnessIncreasing",
                      "SharpnessIncreasing", "Equalize", "Rotate", "PosterizeIncreasing", "SolarizeIncreasing",
                      "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")

_RAND_SETS = {
    "weights": {
        "Rotate": 3, "ShearX": 2, "ShearY": 2, "TranslateXRel": 1, "TranslateYRel": 1, "ColorIncreasing": 0.25,
        "SharpnessIncreasing": 0.25, "AutoContrast": 0.25, "SolarizeIncreasing": 0.05, "SolarizeAdd": 0.05,
        "ContrastIncreasing": 0.05, "BrightnessIncreasing": 0.05, "Equalize": 0.05, "PosterizeIncreasing": 0.05,
        "Invert": 0.05,
    },
    "3aw": {
        "SolarizeIncreasing": 6, "Desaturate": 6, "GaussianBlur": 6, "Rotate": 3, "ShearX": 2, "ShearY": 2,
        "PosterizeIncreasing": 1, "AutoContrast": 1, "ColorIncreasing": 1, "SharpnessIncreasing": 1,
        "ContrastIncreasing": 1, "BrightnessIncreasing": 1, "Equalize": 1, "Invert": 1,
    },
    "3a": ("SolarizeIncreasing", "Desaturate", "GaussianBlur"),
}
# "w0" of timm before 0.9, which later releases refuse: weights in the order of _RAND_OPERATIONS.
_RAND_WEIGHTS_0 = (0.025, 0.005, 0.0, 0.3, 0.0, 0.005, 0.005, 0.025, 0.005, 0.005, 0.025, 0.2, 0.2, 0.1, 0.1)

Operations = Mapping[str, float] | Sequence[str]


def rand_augment_choices(name: str, increasing: bool = True) -> Operations:
    """Operations of RandAugment's set `name` ("weights", "3a", "3aw"), with their weights if they have some.

    Any other name gives the paper's set, as in timm; `increasing` takes the variants whose effect grows with the level.
    """
    return _RAND_SETS.get(name, _RAND_INCREASING if increasing else _RAND_OPERATIONS)


def rand_augment_ops(magnitude: float = 10, prob: float = 0.5, hparams: Hparams | None = None,
                     transforms: Operations | None = None) -> list[AugmentOp]:
    """One `AugmentOp` for each name of `transforms`, None for the paper's set."""
    return [AugmentOp(name, prob, magnitude, hparams) for name in transforms or _RAND_OPERATIONS]


class RandAugment:
    """`num_layers` operations for each image, one after the other.

    Args:
        ops: To choose from.
        num_layers: How many to choose: with replacement, but without where there are weights.
        choice_weights: Of the operations.

    Raises:
        ConfigError: More are to be chosen than there are operations of any weight.
    """

    def __init__(self, ops: Sequence[Policy], num_layers: int = 2,
                 choice_weights: Sequence[float] | None = None) -> None:
        self.ops = list(ops)
        self.num_layers = num_layers
        self.choice_weights = None
        if choice_weights is not None:
            weights = np.array(choice_weights, np.float64)
            if num_layers > (weighted := np.count_nonzero(weights)):
                raise ConfigError(f"RandAugment cannot choose {num_layers} of {weighted} weighted operations")
            self.choice_weights = weights / weights.sum()

    def __call__(self, image: Any) -> Any:
        weights = self.choice_weights
        return _apply(_choose(self.ops, self.num_layers, weights is None, weights), image)

    def __repr__(self) -> str:
        return _lines(f"{type(self).__name__}(n={self.num_layers}, ops=", self.ops)


def _choose(ops: Sequence[Policy], count: int, replace: bool = True, weights: np.ndarray | None = None) -> list[Policy]:
    return [ops[number] for number in np.random.choice(len(ops), count, replace, weights)]


def augmix_ops(magnitude: float = 10, hparams: Hparams | None = None,
               transforms: Operations | None = None) -> list[AugmentOp]:
    """One `AugmentOp` that is always applied for each name of `transforms`, None for AugMix's set."""
    return [AugmentOp(name, 1.0, magnitude, hparams) for name in transforms or _AUGMIX_OPERATIONS]


class AugMixAugment:
    """A mixture of the image and of `width` chains of operations on it, with random weights.

    Args:
        ops: To choose from, with replacement.
        alpha: Of the Dirichlet and beta distributions of the weights.
        width: Chains.
        depth: Operations in a chain, 1 to 3 at random if not positive.
        blended: Whether the chains are blended into 8-bit images one by one, which rounds after each.
    """

    def __init__(self, ops: Sequence[Policy], alpha: float = 1.0, width: int = 3, depth: int = -1,
                 blended: bool = False) -> None:
        self.ops = list(ops)
        self.alpha = alpha
        self.width = width
        self.depth = depth
        self.blended = blended

    def __call__(self, image: Any) -> Any:
        weights = np.float32(np.random.dirichlet([self.alpha] * self.width))
        share = np.float32(np.random.beta(self.alpha, self.alpha))
        pixels = augment.to_array(image)
        return augment.like((self._blend if self.blended else self._mix)(pixels, weights, share), image)

    def _mix(self, pixels: np.ndarray, weights: np.ndarray, share: float) -> np.ndarray:
        mixed = np.zeros(pixels.shape, dtype=np.float32)
        for weight in weights:
            mixed += weight * self._chain(pixels)
        return augment.blend(pixels, mixed.clip(0, 255).astype(np.uint8), share)

    def _blend(self, pixels: np.ndarray, weights: np.ndarray, share: float) -> np.ndarray:
        # What is blended in later dims what came before: only the last chain gets its own weight, the others more.
        shares, rest = [], 1.0
        for weight in (weights * share)[::-1]:
            shares.append(weight / rest)
            rest *= 1 - shares[-1]
        blended = pixels
        for own in reversed(shares):
            blended = augment.blend(blended, self._chain(pixels), own)
        return blended

    def _chain(self, pixels: np.ndarray) -> np.ndarray:
        depth = self.depth if self.depth > 0 else np.random.randint(1, 4)
        return _apply(_choose(self.ops, depth), pixels)

    def __repr__(self) -> str:
        head = f"{type(self).__name__}(alpha={self.alpha}, width={self.width}, depth={self.depth}, ops="
        return _lines(head, self.ops)


def _lines(head: str, items: Any) -> str:
    return "\n\t".join([head, *map(str, items)]) + ")"


# Strings of policies: a name and sections such as "m9", joined by "-".

def _switch(value: str) -> bool:
    return bool(int(value))


def _read_sections(config: str, kinds: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    """The sections after the name, as {key: value}; `kinds` says which keys there are and how values are read.

    Raises:
        ConfigError: A section that is not in `kinds`, or whose value is not a number.
    """
    values: dict[str, Any] = {}
    known = f"sections: {', '.join(kinds)}, each with its value" if kinds else "it takes none"
    for section in config.split("-")[1:]:
        if "t" in kinds and section.startswith("t"):
            values["t"] = section[1:]
            continue
        key, value = re.fullmatch(r"([^\d]*)(.*)", section).groups()
        if key not in kinds:
            raise ConfigError(f"unknown section '{section}' in augmentation '{config}'{closest(key, kinds)}; {known}")
        try:
            values[key] = kinds[key](value)
        except ValueError:
            raise ConfigError(f"section '{section}' of augmentation '{config}' needs a number after '{key}'") from None
    return values


def _with(hparams: Hparams | None, **values: Any) -> dict[str, Any]:
    """`hparams`, and what of `values` they do not say."""
    return {**{name: value for name, value in values.items() if value is not None}, **(hparams or {})}


def auto_augment_transform(config_str: str, hparams: Hparams | None = None) -> AutoAugment:
    """AutoAugment by a string such as "original-mstd0.5".

    Args:
        config_str: A name of `AUTO_AUGMENT_POLICIES`, and "mstd": standard deviation of the magnitudes.
        hparams: Of `AugmentOp`; they go before what the string says.

    Raises:
        ConfigError: The string cannot be read.
    """
    values = _read_sections(config_str, {"mstd": float})
    return AutoAugment(auto_augment_policy(config_str.split("-")[0], _with(hparams, magnitude_std=values.get("mstd"))))


def rand_augment_transform(config_str: str, hparams: Hparams | None = None,
                           transforms: str | Operations | None = None) -> RandAugment:
    """RandAugment by a string such as "rand-m9-n3-mstd0.5-inc1".

    Args:
        config_str: "rand", and any of "m": magnitude (10); "n": operations an image (2); "p": probability of each
            (0.5); "mstd": standard deviation of the magnitude (0; above 100 the magnitude is uniform from 0);
            "mmax": highest magnitude (10); "inc": 1 for operations whose effect grows with the magnitude (0);
            "t": set of operations ("weights", "3a", "3aw"); "w0": the weights of timm before 0.9.
        hparams: Of `AugmentOp`; they go before what the string says.
        transforms: Set of operations, names of them, or names with weights, in the place of "t".

    Raises:
        ConfigError: The string cannot be read.
    """
    values = _read_sections(config_str, {"m": int, "n": int, "p": float, "mstd": float, "mmax": int, "inc": _switch,
                                         "t": str, "w": int})
    std = values.get("mstd")
    hparams = _with(hparams, magnitude_std=float("inf") if std and std > 100 else std,
                    magnitude_max=values.get("mmax"))
    increasing = values.get("inc", False)
    if transforms is None and (name := values.get("t")) is not None:
        if name not in _RAND_SETS:
            raise ConfigError(f"unknown set of operations '{name}' in augmentation '{config_str}'"
                              f"{closest(name, _RAND_SETS)}; sets: {', '.join(_RAND_SETS)}")
        transforms = name
    if not isinstance(transforms, (Mapping, Sequence)) or isinstance(transforms, str):
        transforms = rand_augment_choices(transforms or "", increasing)
    weights = list(transforms.values()) if isinstance(transforms, Mapping) else None
    if "w" in values:
        if values["w"] or transforms not in (_RAND_OPERATIONS, _RAND_INCREASING):
            raise ConfigError(f"augmentation '{config_str}': there are weights w0 only, of the sets without 't'")
        weights = _RAND_WEIGHTS_0
    ops = rand_augment_ops(values.get("m", _MAX_LEVEL), values.get("p", 0.5), hparams, list(transforms))
    return RandAugment(ops, values.get("n", 2), weights)


def augment_and_mix_transform(config_str: str, hparams: Hparams | None = None) -> AugMixAugment:
    """AugMix by a string such as "augmix-m5-w4-d2".

    Args:
        config_str: "augmix", and any of "m": severity (3); "w": chains (3); "d": operations in a chain (-1: 1 to 3);
            "a": alpha of the weights' distributions (1); "b": 1 to blend chains one by one (0); "mstd": standard
            deviation of the severity (infinite: uniform from 0).
        hparams: Of `AugmentOp`; they go before what the string says.

    Raises:
        ConfigError: The string cannot be read.
    """
    values = _read_sections(config_str, {"m": int, "w": int, "d": int, "a": float, "b": _switch, "mstd": float})
    hparams = _with(hparams, magnitude_std=values.get("mstd", float("inf")))
    return AugMixAugment(augmix_ops(values.get("m", 3), hparams), values.get("a", 1.0), values.get("w", 3),
                         values.get("d", -1), values.get("b", False))


def _torchvision_policy(name: str, values: Mapping[str, int], interpolation: str) -> Policy:
    """A policy of torchvision's reference training, by its name for `--auto-augment`."""
    from torchvision.transforms import v2

    keywords = {"interpolation": v2.InterpolationMode(interpolation)}
    if name == "ta_wide":
        return v2.TrivialAugmentWide(**keywords)
    if name == "ra":
        return v2.RandAugment(magnitude=values.get("m", 9), **keywords)
    if name == "augmix":
        return v2.AugMix(severity=values.get("m", 3), **keywords)
    return v2.AutoAugment(v2.AutoAugmentPolicy("imagenet" if name == "autoaugment" else name), **keywords)


# Names of torchvision's policies, with the sections that they take.
_TORCHVISION = {"ta_wide": {}, "ra": {"m": int}, "augmix": {"m": int}, "autoaugment": {}, "imagenet": {}, "cifar10": {},
                "svhn": {}}


def create_policy(config_str: str, hparams: Hparams | None = None, interpolation: str = "bilinear",
                  preprocessing: str = "timm") -> Policy:
    """The policy that `--auto-augment` names, from PIL image to PIL image.

    Args:
        config_str: As `rand_augment_transform`, `augment_and_mix_transform` and `auto_augment_transform` take it; or
            torchvision's "ta_wide", "ra" (with "m": magnitude, 9), "autoaugment" or "imagenet", "cifar10", "svhn".
        hparams: Of `AugmentOp`.
        interpolation: Of torchvision's policies, "nearest" or "bilinear" or "bicubic".
        preprocessing: "torchvision" if "augmix" means torchvision's (with "m": severity, 3), else timm's.

    Raises:
        ConfigError: The string cannot be read.
    """
    name = config_str.split("-")[0]
    if name == "augmix" and preprocessing != "torchvision":
        return augment_and_mix_transform(config_str, hparams)
    if name in _TORCHVISION:
        return _torchvision_policy(name, _read_sections(config_str, _TORCHVISION[name]), interpolation)
    if name == "rand":
        return rand_augment_transform(config_str, hparams)
    if name in AUTO_AUGMENT_POLICIES:
        return auto_augment_transform(config_str, hparams)
    known = ["rand", *AUTO_AUGMENT_POLICIES, *_TORCHVISION]
    raise ConfigError(f"unknown augmentation '{config_str}'{closest(name, known)}; "
                      f"names, to which sections such as -m9 are added: {', '.join(known)}")
