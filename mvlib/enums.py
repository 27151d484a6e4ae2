"""torchvision's view of weights: an Enum for every model, made from the catalog. Imports no torch.

    weights = ResNet50_Weights.IMAGENET1K_V2        the config resnet50.imagenet1k_v2
    weights.url, weights.meta["categories"], weights.transforms(), weights.get_state_dict()

An Enum's members are an architecture's tags in upper case. Its name is torchvision's where torchvision has the model
(`ViT_B_16_Weights`), otherwise the architecture's name with capitals (`Vit_Base_Patch16_Clip_224_Weights`). DEFAULT is
torchvision's choice there, the architecture's default tag elsewhere.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import math
import os
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, EnumMeta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from . import registry
from .costs import costs_of
from .errors import UnknownNameError
from .names import closest
from .tasks import CLASSIFICATION, TASKS
from .weights import WeightsConfig

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Weights", "WeightsEnum", "enum_name", "enum_names", "find_enum", "get_weight", "weights_enum"]

_HOME = "mvlib.models"  # where an Enum is found by pickle, and by people
_QUANTIZED = "quantized_"
_SUFFIXES = ("_QuantizedWeights", "_Weights")


@dataclass
class Weights:
    """What a member of a `WeightsEnum` holds, as torchvision has it.

    Attributes:
        url: Where the file lies.
        transforms: A callable that makes the preprocessing; its arguments can be replaced.
        meta: What else is known: `categories`, `num_params`, `recipe`, `_metrics`, ...
    """

    url: str | None
    transforms: Callable[..., Any]
    meta: dict[str, Any]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Weights):
            return NotImplemented
        ours, theirs = ((t.func, t.args, t.keywords) if isinstance(t, partial) else t
                        for t in (self.transforms, other.transforms))  # two equal partials do not compare equal
        return (self.url, ours, self.meta) == (other.url, theirs, other.meta)


class CatalogWeights(Weights):
    """`Weights` from a catalog's config; the meta data is put together when it is first read."""

    def __init__(self, config: WeightsConfig) -> None:
        self.config = config

    def __eq__(self, other: object) -> bool:
        return self.config == other.config if isinstance(other, CatalogWeights) else super().__eq__(other)

    def __repr__(self) -> str:
        return repr(self.config).replace("WeightsConfig", "Weights", 1)

    @property
    def url(self) -> str | None:
        """The first source, where a browser finds it."""
        source = next(iter(self.config.sources), None)
        if source is None or not source.startswith("hf-hub:"):
            return source
        repository, _, revision = source.removeprefix("hf-hub:").partition("@")
        filename = self.config.filename or "model.safetensors"
        return f"{_hub_endpoint()}/{repository}/resolve/{revision or 'main'}/{filename}"

    @cached_property
    def transforms(self) -> Callable[..., Any]:
        if self.config.task != CLASSIFICATION:
            return partial(task_preset, TASKS[self.config.task].preset, **task_preset_arguments(self.config))
        return partial(image_classification, **preset_arguments(self.config))

    @cached_property
    def meta(self) -> dict[str, Any]:
        return _Meta(describe(self.config), self.config.input_size[1:])


class _Meta(dict[str, Any]):
    """`meta`, which knows the prototype's "size", too: (height, width) of the images in pixels."""

    def __init__(self, known: dict[str, Any], size: tuple[int, ...]) -> None:
        super().__init__(known)
        self._size = size

    def __missing__(self, key: str) -> Any:
        if key != "size":
            raise KeyError(key)
        warnings.warn("meta['size'] is of torchvision's prototype; a member's transforms() know the size, and "
                      "meta['min_size'] is the smallest", DeprecationWarning, stacklevel=registry.caller_level())
        return self._size

    def __reduce__(self) -> tuple[Any, ...]:
        return _Meta, (dict(self), self._size)


def _hub_endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


class _WeightsMeta(EnumMeta):
    """Finds members by the names of torchvision's prototype, too: `ImageNet1K_V1`, `default`."""

    if not TYPE_CHECKING:  # which would take any name for a member's
        def __getattr__(cls, name: str) -> Any:
            if name.startswith("_") or (current := _prototype_name(name, cls.__members__)) is None:
                raise AttributeError(f"{cls.__name__} has no weights '{name}'"
                                     f"{closest(name, cls.__members__) if not name.startswith('_') else ''}", name=name,
                                     obj=cls)
            return cls._current(name, current)


def _prototype_name(name: str, members: Iterable[str]) -> str | None:
    """The member's name that torchvision's prototype spelt so."""
    plain = name.replace("_", "").upper()
    return next((member for member in members if member.replace("_", "") == plain), None)


class WeightsEnum(Enum, metaclass=_WeightsMeta):
    """Base of all Enums of weights; the values are `Weights`."""

    _value_: Weights
    DEFAULT: Self

    @classmethod
    def verify(cls, obj: Any) -> Self | None:
        """The member that `obj` is or names ("IMAGENET1K_V2", "ResNet50_Weights.IMAGENET1K_V2", "DEFAULT").

        torchvision's own member of the same Enum is taken too; None stays None.

        Raises:
            TypeError: `obj` is of another model.
            KeyError: No member has this name.
        """
        if obj is None or isinstance(obj, cls):
            return obj
        if isinstance(obj, str):
            return cls._find(obj)
        theirs = type(obj)
        is_alike = isinstance(obj, Enum) and theirs.__name__ == cls.__name__
        if is_alike and theirs.__module__.startswith("torchvision."):
            return cls[obj.name]
        raise TypeError(f"these weights are of another model: expected {cls.__name__} but received "
                        f"{theirs.__name__}{f'.{obj.name}' if isinstance(obj, Enum) else ''}")

    @classmethod
    def _find(cls, name: str) -> Self:
        member = name.removeprefix(f"{cls.__name__}.")
        if member in cls.__members__:
            return cls[member]
        enum, _, rest = member.rpartition(".")
        if enum.endswith(_SUFFIXES) and find_enum(enum) is not cls:
            raise TypeError(f"these weights are of another model: expected {cls.__name__} but received {name}")
        current = _prototype_name(rest, cls.__members__)
        if current is not None:
            return cls._current(rest, current)
        hint = closest(rest, cls.__members__) or f"; known: {', '.join(cls.__members__) or 'none, it has no weights'}"
        if "/" in name or name.endswith((".pth", ".pt", ".safetensors")):
            rest, hint = name, "; a file is loaded by mvlib.load_checkpoint(model, path)"
        raise _UnknownMember(f"{cls.__name__} has no weights '{rest}'{hint}")

    @classmethod
    def _current(cls, old: str, name: str) -> Self:
        warnings.warn(f"{cls.__name__}.{old} is how torchvision's prototype spelt it; write {cls.__name__}.{name}",
                      DeprecationWarning, stacklevel=registry.caller_level())
        return cls[name]

    def get_state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Fetch the file and read its tensors, in the file's own layout; memory-mapped from a cache.

        The models' `load_state_dict` takes that layout.

        Args:
            progress: Show a bar while downloading (True).
            check_hash: Accepted for torchvision's sake: what can be verified always is.
            model_dir: Folder for the download instead of the usual cache.
            map_location: Device to move the tensors to.

        Raises:
            WeightsError: The file cannot be had, or is damaged.
        """
        names = ("model_dir", "map_location", "progress", "check_hash", "file_name", "weights_only")
        options = {**dict(zip(names, args)), **kwargs}
        unknown = sorted(set(options) - set(names))
        if unknown:
            raise TypeError(f"get_state_dict does not know the argument '{unknown[0]}'{closest(unknown[0], names)}")
        from . import hub
        from .loading import read_state_dict

        config = self._config()
        path, is_mappable = hub.fetch_weights(
            config, filename=options.get("file_name"), cache_dir=options.get("model_dir"),
            progress=options.get("progress", True))
        tensors = read_state_dict(path, mmap=is_mappable)
        device = options.get("map_location")
        return tensors if device is None else {key: tensor.to(device) for key, tensor in tensors.items()}

    def _config(self) -> WeightsConfig:
        """The config of these weights; made from the URL for an Enum that a user wrote by hand."""
        value = self.value
        return value.config if isinstance(value, CatalogWeights) else WeightsConfig(sources=(value.url,))

    @property
    def url(self) -> str:
        """Where the file lies."""
        return self.value.url

    @property
    def transforms(self) -> Callable[..., Any]:
        """Makes the preprocessing: `weights.transforms()`, or `weights.transforms(crop_size=400, resize_size=400)`."""
        return self.value.transforms

    @property
    def meta(self) -> dict[str, Any]:
        """What is known of the weights."""
        return self.value.meta

    def __repr__(self) -> str:
        return f"{type(self).__name__}.{self._name_}"

    def __reduce_ex__(self, protocol: int) -> tuple[Any, ...]:
        return getattr, (type(self), self._name_)


class _UnknownMember(UnknownNameError, KeyError):
    def __str__(self) -> str:
        return str(self.args[0])


def image_classification(**arguments: Any) -> Any:
    """`mvlib.data.presets.ImageClassification`, imported when it is first made."""
    from .data.presets import ImageClassification

    return ImageClassification(**arguments)


def task_preset(name: str, **arguments: Any) -> Any:
    """A preset of torchvision's for another task, imported when it is first made."""
    from torchvision.transforms import InterpolationMode, _presets

    if "interpolation" in arguments:
        arguments["interpolation"] = InterpolationMode(arguments["interpolation"])
    return getattr(_presets, name)(**arguments)


def task_preset_arguments(config: WeightsConfig) -> dict[str, Any]:
    """Arguments of torchvision's preset that prepares inputs for these weights."""
    if config.resize_size is None:  # they have none
        return {}
    arguments = dict(resize_size=config.resize_size, mean=config.mean, std=config.std,
                     interpolation=config.interpolation)
    return {**arguments, "crop_size": config.input_size[1:]} if config.task == "video_classification" else \
        {**arguments, "antialias": config.antialias}


def preset_arguments(config: WeightsConfig) -> dict[str, Any]:
    """Arguments of `ImageClassification` that prepare images for these weights."""
    size = config.input_size[1:]
    crop = size[0] if size[0] == size[1] else size
    if config.resize_size is not None:
        resize = config.resize_size
    else:
        sides = tuple(math.floor(side / config.crop_pct) for side in size)
        resize = sides[0] if sides[0] == sides[1] else sides
    arguments = dict(crop_size=crop, resize_size=resize, mean=config.mean, std=config.std,
                     interpolation=config.interpolation, antialias=config.antialias)
    return arguments if config.crop_mode == "center" else {**arguments, "crop_mode": config.crop_mode}


def describe(config: WeightsConfig) -> dict[str, Any]:
    """torchvision's `meta` of a weights config; a key is there if its value is known."""
    costs = costs_of(config)
    size = config.input_size if config.fixed_input_size else config.min_input_size
    facts = {
        "categories": _categories(config),
        "num_params": config.num_params or costs.get("params"),
        "keypoint_names": config.keypoint_names and list(config.keypoint_names),
        "min_size": size and tuple(size[1:]),
        "min_temporal_size": config.min_temporal_size,
        "recipe": config.recipe or config.origin_url,
        "license": _their_license(config) if config.preprocessing == "torchvision" else config.license,
        "backend": config.backend,
        "unquantized": config.unquantized and weights_of(config.unquantized),
        "_metrics": {data: dict(row) for data, row in config.metrics.items()} or _unknown_metrics(config),
        "_ops": config.gmacs or costs.get("gmacs"),
        "_file_size": config.file_size,
        "_docs": config.docs or config.description,
    }
    is_theirs = config.preprocessing == "torchvision" and config.task == CLASSIFICATION
    always = ("categories",) if is_theirs else ()
    return {key: value for key, value in facts.items() if value is not None or key in always}


def _unknown_metrics(config: WeightsConfig) -> dict[str, dict[str, float]] | None:
    """torchvision's weights that cannot classify have no accuracy: not a number."""
    return {"ImageNet-1K": {"acc@1": math.nan, "acc@5": math.nan}} if config.preprocessing == "torchvision" else None


def _their_license(config: WeightsConfig) -> str | None:
    """torchvision names a licence where it is not its own, by its address."""
    return None if config.license in (None, "bsd-3-clause") else f"{config.origin_url}/blob/main/LICENSE"


def _categories(config: WeightsConfig) -> list[str] | None:
    from .data.labels import class_names

    if config.label_names:
        return list(config.label_names)
    return class_names(config.label_set) if config.label_set == "imagenet-1k" else None


# from names to Enums

def enum_name(model: str) -> str:
    """Name of the Enum of a model's weights, torchvision's where torchvision has the model."""
    builder = registry.torchvision_builder(model)
    if builder is not None:
        return registry.builder_facts(builder)["weights"]
    suffix = _SUFFIXES[0] if model.startswith(_QUANTIZED) else _SUFFIXES[1]
    return "_".join(part.capitalize() for part in model.removeprefix(_QUANTIZED).split("_")) + suffix


def enum_names(task: str | None = None) -> list[str]:
    """Names of all Enums (of a task): a model that torchvision knows under another name has one under both."""
    models = {name for name in registry.list_models(task=task) if registry.get_arch_tags(name)}
    own = {_plain_enum_name(name) if registry.torchvision_builder(name) != name else enum_name(name)
           for name in models}
    return sorted(own | {registry.builder_facts(builder)["weights"] for builder in registry.list_builders(task)})


def _plain_enum_name(model: str) -> str:
    return "_".join(part.capitalize() for part in model.split("_")) + _SUFFIXES[1]


def find_enum(name: str) -> type[WeightsEnum] | None:
    """The Enum of this name, None where there is none. Names are exact, capitals too."""
    suffix = next((s for s in _SUFFIXES if name.endswith(s)), None)
    if suffix is None:
        return None
    model = (_QUANTIZED if suffix == _SUFFIXES[0] else "") + name.removesuffix(suffix).lower()
    if not registry.is_model(model) or model in registry.get_deprecated_models():
        return None
    if name not in (enum_name(model), _plain_enum_name(model)):
        return None
    return weights_enum(model)


def weights_enum(model: str) -> type[WeightsEnum]:
    """The Enum of the weights of an architecture, or of one of torchvision's builders.

    Raises:
        UnknownNameError: The model is unknown.
    """
    architecture, _ = registry.resolve_name(model)
    return _make_enum(enum_name(model), tuple(registry.get_arch_pretrained_cfgs(architecture).values()),
                      registry.torchvision_builder(model) is not None)


@functools.cache
def _make_enum(name: str, configs: tuple[WeightsConfig, ...], is_torchvision: bool) -> type[WeightsEnum]:
    members = [(member_name(config), CatalogWeights(config)) for config in configs if config.has_weights]
    if members:
        default = next((m for m in members if m[1].config.preprocessing == "torchvision"), members[0]) \
            if is_torchvision else members[0]
        members = sorted(members, key=_order) + [("DEFAULT", default[1])]
    home = _HOME if not configs or configs[0].task == CLASSIFICATION else \
        f"{_HOME}.{registry.get_module(str(configs[0].architecture))}"
    enum = WeightsEnum(name, members, module=home, qualname=name)
    enum.__doc__ = f"Weights of {configs[0].architecture}: {', '.join(enum.__members__)}." if configs else \
        "No weights are published for this model."
    return enum


def member_name(config: WeightsConfig) -> str:
    """A tag as a member's name: "a1_in1k" -> "A1_IN1K"."""
    name = "".join(c if c.isalnum() else "_" for c in (config.tag or "untagged")).upper()
    return f"_{name}" if name[0].isdigit() else name


def _order(member: tuple[str, CatalogWeights]) -> tuple[Any, ...]:
    """torchvision's first, in its order: V1, V2, then what was trained on more."""
    name, weights = member
    theirs = weights.config.preprocessing == "torchvision"
    if weights.config.task != CLASSIFICATION:
        return ("LEGACY" not in name, len(name), name)
    return (0, "SWAG" in name or "FEATURES" in name, name) if theirs else (1, False, "")


def weights_of(name: str) -> WeightsEnum:
    """The member of weights that a registry name names ("resnet50.imagenet1k_v2")."""
    config = registry.get_pretrained_cfg(name, allow_unregistered=False)
    return weights_enum(name.partition(".")[0])[member_name(config)]


def get_weight(name: str) -> WeightsEnum:
    """The weights of a full name, "ResNet50_Weights.IMAGENET1K_V2".

    Raises:
        ValueError: The name has another form, or no model has such an Enum.
        KeyError: The Enum has no such member.
    """
    enum, dot, member = name.partition(".")
    if not dot or not member or "." in member:
        raise ValueError(f"invalid weight name '{name}'; it has the form ResNet50_Weights.IMAGENET1K_V2")
    found = find_enum(enum) or _hand_written(enum)
    if found is None:
        raise ValueError(f"no model has weights called '{enum}'{closest(enum, enum_names())}")
    return found._find(member)


def _hand_written(name: str) -> type[WeightsEnum] | None:
    """An Enum that somebody put into `mvlib.models`, or that a builder registered as torchvision's are takes."""
    from .builders import get_model_weights, registered

    found = getattr(importlib.import_module(_HOME), name, None)
    if isinstance(found, type) and issubclass(found, WeightsEnum):
        return found
    takes_weights = (builder for builder in registered.values() if "weights" in inspect.signature(builder).parameters)
    return next((enum for enum in map(get_model_weights, takes_weights) if enum.__name__ == name), None)
