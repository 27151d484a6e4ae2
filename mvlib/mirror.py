"""torchvision's builders for other tasks than classification over our weights: its own classes and code, our Enums,
caches and loading.

A function of torchvision's finds what it needs in the namespace of its module. Here it is made anew over a namespace in
which the Enums of weights are ours, so that the weights come from our catalog and by our loader; in which the builders
of backbones are `mvlib.models`'s; and in which everything else (classes, helpers) is torchvision's own object. With
weights, the model is built without values, which the file then brings.
"""

from __future__ import annotations

import functools
import inspect
import logging
import sys
import types
import typing
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, Optional

import torch
from torch import nn

from . import hub, registry
from .builders import get_builder, get_model_weights, handle_legacy_interface
from .enums import Weights, WeightsEnum, describe, find_enum, member_name
from .factory import Empty
from .loading import load_by_itself, read_state_dict
from .torchvision_modules import real
from .weights import WeightsConfig

__all__ = ["build", "builder", "builder_parameters", "is_mirrored", "namespace"]

_logger = logging.getLogger("mvlib")

_THEIRS = "torchvision.models"
_PACKAGES = tuple(f"{_THEIRS}.{name}." for name in ("detection", "optical_flow", "segmentation", "video"))
_api = real(f"{_THEIRS}._api")
_warnings = types.SimpleNamespace(  # of the functions made anew: it points at the line of the user's
    warn=lambda message, *_, **__: warnings.warn(message, UserWarning, stacklevel=registry.caller_level()))


def is_mirrored(module: str) -> bool:
    """Whether functions of this module of torchvision's are made anew."""
    return module.startswith(_PACKAGES)


@functools.cache
def namespace(module: str) -> dict[str, Any]:
    """The names of a module of torchvision's ("torchvision.models.detection.faster_rcnn"), over our weights.

    Raises:
        ModuleNotFoundError: torchvision has no such module.
    """
    names = dict(vars(real(module)))
    ours: set[str] = set()
    for name, value in list(names.items()):
        made = _ours(value, module, names, ours)
        if made is not value:
            names[name] = made
            ours.add(name)
    names["__name__"] = _home(module)
    return names


def _home(module: str) -> str:
    return module if module.startswith("mvlib.") else f"mvlib.{module.removeprefix('torchvision.')}"


def _ours(value: Any, module: str, names: dict[str, Any], ours: set[str]) -> Any:
    """What takes the place of a value in a module; `ours` are names in it whose values are ours already."""
    if value is warnings:
        return _warnings
    if isinstance(value, types.ModuleType):
        is_of_backbones = value.__name__.startswith(f"{_THEIRS}.") and not hasattr(value, "__path__")
        builders = {key: made for key, old in vars(value).items() if (made := _our_builder(old)) is not old}
        return types.SimpleNamespace(**{**vars(value), **builders}) if is_of_backbones else value
    if isinstance(value, type):
        if value in (_api.WeightsEnum, _api.Weights):
            return WeightsEnum if value is _api.WeightsEnum else Weights
        return (find_enum(value.__name__) or value) if issubclass(value, _api.WeightsEnum) else value
    if value is _api._get_enum_from_fn:
        return get_model_weights
    if not isinstance(value, types.FunctionType):
        return value
    if value.__module__ != module:
        return namespace(value.__module__).get(value.__name__, value) if is_mirrored(value.__module__) else \
            _our_builder(value)
    old_arguments = _old_arguments(value)
    if old_arguments is None:
        return _over(value, names) if _names_in(value.__code__) & ours else value
    made = _over(inspect.unwrap(value), names)
    if value is _api.BUILTIN_MODELS.get(value.__name__):
        made = _with_our_weights(made)
    return handle_legacy_interface(**{
        key: (old, _over(default, names) if inspect.isfunction(default) else _member(default))
        for key, (old, default) in old_arguments.items()})(made)


def _our_builder(value: Any) -> Any:
    """Our builder for torchvision's; other values as they are."""
    name = getattr(value, "__name__", "")
    is_builder = isinstance(value, types.FunctionType) and value is _api.BUILTIN_MODELS.get(name)
    return get_builder(name) if is_builder and registry.is_model(name) else value


def _old_arguments(function: Callable[..., Any]) -> Mapping[str, tuple[str, Any]] | None:
    """{argument: (what it was called once, the weights that true meant)} of a function that takes old calls, too."""
    inner = getattr(function, "__wrapped__", None)
    found: Mapping[str, tuple[str, Any]] | None = inspect.getclosurevars(inner).nonlocals.get("weights") \
        if inspect.isfunction(inner) else None
    return found


def _names_in(code: types.CodeType) -> set[str]:
    """Names that a function's code looks up, the functions within it, too."""
    inner = (_names_in(part) for part in code.co_consts if isinstance(part, types.CodeType))
    return set(code.co_names).union(*inner)


def _over(function: Any, names: dict[str, Any]) -> Any:
    """The function over another namespace; defaults and annotations that are Enums of weights are ours."""
    made = types.FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
    made.__kwdefaults__ = {key: _member(value) for key, value in (function.__kwdefaults__ or {}).items()}
    made.__annotations__ = {key: _annotation(value) for key, value in function.__annotations__.items()}
    made.__doc__, made.__qualname__, made.__module__ = \
        function.__doc__, function.__qualname__, _home(function.__module__)
    return made


def _member(value: Any) -> Any:
    """Our member of weights for torchvision's; other values as they are."""
    enum = find_enum(type(value).__name__) if isinstance(value, _api.WeightsEnum) else None
    return value if enum is None else enum[value.name]


def _annotation(value: Any) -> Any:
    enums = [part for part in typing.get_args(value) if isinstance(part, type) and issubclass(part, _api.WeightsEnum)]
    return Optional[find_enum(enums[0].__name__) or enums[0]] if enums else value  # noqa: UP045


# builders

def builder(name: str) -> Callable[..., nn.Module]:
    """torchvision's builder of this name, over our weights.

    Raises:
        KeyError: It has none.
    """
    found: Callable[..., nn.Module] = namespace(_api.BUILTIN_MODELS[name].__module__)[name]
    return found


def builder_parameters(name: str) -> dict[str, inspect.Parameter]:
    """What a builder takes beside weights: its own arguments, and those that it passes on to its class."""
    signature = inspect.signature(builder(name))
    parameters = dict(signature.parameters)
    if registry.task_of(name) != "segmentation":  # whose builders pass nothing on
        parameters = {**inspect.signature(signature.return_annotation.__init__).parameters, **parameters}
    return {key: value for key, value in parameters.items() if value.kind in (value.KEYWORD_ONLY,
            value.POSITIONAL_OR_KEYWORD) and key not in ("self", "backbone", "weights", "progress")}


def _with_our_weights(function: Any) -> Callable[..., nn.Module]:
    """A builder that loads weights by our loader."""
    enum = get_model_weights(function)

    @functools.wraps(function)
    def build_model(**arguments: Any) -> nn.Module:
        weights = enum.verify(arguments.get("weights"))
        if weights is None:
            return _describe(function(**arguments), enum.DEFAULT._config(), arguments)
        config = weights._config()
        progress = arguments.get("progress", True)

        def fill(model: nn.Module) -> None:
            _logger.info("loading '%s' from %s", config.name, config.sources[0])
            path, is_mappable = hub.fetch_weights(config, progress=progress)
            load_by_itself(model, read_state_dict(path, mmap=is_mappable), config=config, origin=config.name)

        model = _describe(_built(function, enum, weights.name, weights.meta, fill, arguments), config, arguments)
        model.base_weights = config
        return model

    return build_model


def build(
    name: str, config: WeightsConfig, fill: Callable[[nn.Module], None] | None, arguments: Mapping[str, Any],
    is_whole: bool = True,
) -> Any:
    """A model by the name of its builder, its values from anywhere.

    Args:
        name: The builder's name.
        config: What is known of the weights.
        fill: Gives the model that is built its values. None: it is initialised, by torchvision's rules.
        arguments: The builder's; `num_classes` and `num_keypoints` may be others than the weights have.
        is_whole: Whether `fill` gives all values. If not, the model is initialised before.
    """
    function = inspect.unwrap(builder(name))
    if fill is None:
        return _describe(function(**arguments), config, arguments)
    meta = dict(describe(config))
    for key, argument, count in (("categories", "num_classes", config.num_classes),
                                 ("keypoint_names", "num_keypoints", len(config.keypoint_names or ()))):
        meta[key] = range(arguments.get(argument) or count)  # their number is all that a builder asks for
    member = member_name(config) if config.tag else "NONE"
    model = _built(function, get_model_weights(function), member, meta, fill, arguments, is_whole)
    return _describe(model, config, arguments)


def _describe(model: Any, config: WeightsConfig, arguments: Mapping[str, Any]) -> Any:
    """The model, with what ours say of themselves, as far as it is true of this one."""
    own = {key: value for key, value in arguments.items() if key not in ("weights", "progress", "weights_backbone")}
    model.structure = "torchvision"
    model.architecture, model.model_args = config.architecture, own
    model.weights_config, model.base_weights = config, None
    model.pretrained_cfg = model.default_cfg = config.to_dict()
    return model


def _built(
    function: Any, enum: type[WeightsEnum], member: str, meta: Mapping[str, Any], fill: Callable[[nn.Module], None],
    arguments: Mapping[str, Any], is_whole: bool = True,
) -> nn.Module:
    empty = _Until()

    def fill_in_full(model: nn.Module) -> None:
        empty.is_on = False
        fill(model)

    weights = _Given(member, meta, fill_in_full)
    made = _over(function, {**function.__globals__, enum.__name__: weights})
    with empty if is_whole else nullcontext():
        model: nn.Module = made(**{**arguments, "weights": weights})
    device = torch.get_default_device()
    return model if device.type == "cpu" else model.to(device)


class _Given:
    """Stands for an Enum of weights and for the member that is asked for, while a builder of torchvision's runs."""

    def __init__(self, name: str, meta: Mapping[str, Any], fill: Callable[[nn.Module], None]) -> None:
        self.name, self.meta, self._fill = name, meta, fill

    def __getattr__(self, name: str) -> _Given | None:
        if not name.isupper():
            raise AttributeError(name)
        return self if name == self.name else None  # another member: what holds for that one does not for this

    def verify(self, weights: Any) -> Any:
        return weights

    def get_state_dict(self, *_: Any, **__: Any) -> dict[str, Any]:
        """Fills the model that the caller has built, whatever it then loads into it: it gets that model's own values,
        which torch recognises as being there already."""
        model = sys._getframe(1).f_locals["model"]
        self._fill(model)
        state_dict: dict[str, Any] = model.state_dict(keep_vars=True)
        return state_dict


class _Until(Empty):
    """As long as it is on."""

    is_on = True

    def takes(self, size: Any) -> bool:
        return self.is_on
