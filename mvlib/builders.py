"""torchvision's way to a model: `resnet50(weights=ResNet50_Weights.DEFAULT)`, and its functions around that.

A builder is made from the registry for every architecture, and for every name that torchvision has for one. Those of
torchvision's names build torchvision's own classes (`torchvision_models.build`), unless the weights are not
torchvision's; all others end in `create_model`. Imports no torch before a model is built.
"""

from __future__ import annotations

import fnmatch
import functools
import inspect
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from types import ModuleType
from typing import TYPE_CHECKING, Any, Optional, TypeVar, Union, cast

from . import registry
from .enums import WeightsEnum, weights_enum
from .names import closest
from .tasks import CLASSIFICATION

if TYPE_CHECKING:
    from torch import nn

__all__ = ["get_builder", "get_model", "get_model_builder", "get_model_weights", "handle_legacy_interface",
           "kwonly_to_pos_or_kw", "list_models", "register_model"]

Entrypoint = TypeVar("Entrypoint", bound=Callable[..., Any])

_HOME = "mvlib.models"
_QUANTIZED = "quantized_"


@functools.cache
def get_builder(name: str) -> Callable[..., nn.Module]:
    """The builder of an architecture, or of a name that torchvision has for one.

    Raises:
        UnknownNameError: The model is unknown.
    """
    if registry.task_of(name) != CLASSIFICATION and registry.is_ours(name):
        from .mirror import builder as made

        return made(name)
    enums: tuple[type[WeightsEnum], ...] = (weights_enum(name),)
    if name.startswith(_QUANTIZED) and registry.is_model(name.removeprefix(_QUANTIZED)):
        enums += (weights_enum(name.removeprefix(_QUANTIZED)),)
    switches: tuple[str, ...] = ("quantize",) if len(enums) > 1 else ()

    def enum_for(arguments: Mapping[str, Any]) -> type[WeightsEnum]:
        return enums[1] if switches and not arguments.get("quantize", False) else enums[0]

    def builder(**kwargs: Any) -> nn.Module:
        return _build(name, enum_for(kwargs), **kwargs)

    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter("weights", kind, default=None, annotation=Optional[Union[enums]]),  # noqa: UP007, UP045
        inspect.Parameter("progress", kind, default=True, annotation=bool),
        *(inspect.Parameter(switch, kind, default=False, annotation=bool) for switch in switches),
        inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD, annotation=Any),
    ]
    builder.__signature__ = inspect.Signature(parameters)
    builder.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    builder.__name__ = builder.__qualname__ = name
    builder.__module__ = _HOME
    builder.__doc__ = _document(name, enums)
    return handle_legacy_interface(weights=("pretrained", lambda kwargs: _first_published(enum_for(kwargs))))(builder)


def _document(name: str, enums: tuple[type[WeightsEnum], ...]) -> str:
    architecture, _ = registry.resolve_name(name)
    members = [(enum, member) for enum in enums for member in enum.__members__]
    quantize = "        quantize: Build the int8 model; it runs on the CPU and cannot be trained.\n" \
        if len(enums) > 1 else ""
    if name in registry.list_builders():
        others = [f"{enum.__name__}.{key}" for enum, key in members if not _is_torchvisions(enum[key])]
        about = f"Build torchvision's {name}."
        if others:
            about += (f"\n\n    Weights that torchvision does not have build the same network of mvlib's, the "
                      f"architecture {architecture}: what\n    create_model builds, with its arguments and its names "
                      f"of layers. They are {', '.join(others)}.\n    `model.structure` says which one a model is.")
        arguments = "torchvision's"
    else:
        same = f", the architecture {architecture}" if architecture != name else ""
        about = f"Build {name}{same}, of the family mvlib.models.{registry.get_module(name)}."
        arguments = "The architecture's"
    listed = "\n".join(f"            {enum.__name__}: {', '.join(enum.__members__) or 'nothing is published'}."
                       for enum in enums)
    return (f"{about}\n\n"
            f"    Args:\n"
            f"        weights: A member, its name, \"DEFAULT\", or None for a model that is initialised at random.\n"
            f"{listed}\n"
            f"        progress: Show a bar while weights are downloaded.\n{quantize}"
            f"        **kwargs: {arguments} arguments; another `num_classes` than the weights' gets a new head.\n\n"
            f"    Raises:\n"
            f"        TypeError: The weights are of another model.\n"
            f"        KeyError: The weights have no such name.\n    ")


# old calls

Default = Union[WeightsEnum, None, Callable[[dict[str, Any]], Optional[WeightsEnum]]]  # noqa: UP007, UP045


def handle_legacy_interface(**weights: tuple[str, Default]) -> Callable[[Entrypoint], Entrypoint]:
    """Let a builder take the calls of before its `weights`: arguments by position, and `pretrained=True`.

    Args:
        **weights: {parameter: (its old name, the member that a true value of the old one stood for)}; or a function of
            the call's arguments that gives the member.

    Raises:
        TypeError: By the builder, when it is called: both names are given, or too many or wrong arguments.
        ValueError: Likewise: a true value stands for nothing.
    """
    def decorate(builder: Entrypoint) -> Entrypoint:
        @kwonly_to_pos_or_kw
        @functools.wraps(builder)
        def with_old_names(*args: Any, **kwargs: Any) -> Any:
            for parameter, (old, default) in weights.items():
                kwargs = _new_style(builder.__name__, parameter, old, default, kwargs)
            return builder(*args, **kwargs)

        return cast(Entrypoint, with_old_names)

    return decorate


def kwonly_to_pos_or_kw(fn: Entrypoint) -> Entrypoint:
    """Let a function take its keyword-only arguments by position, too, with a warning.

    Raises:
        TypeError: It has none.
    """
    parameters = inspect.signature(fn).parameters.values()
    positional = tuple(parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY)
    if not positional:
        raise TypeError(f"{fn.__name__}() has no keyword-only argument")
    first = sum(parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
                for parameter in parameters)

    @functools.wraps(fn)
    def by_position_too(*args: Any, **kwargs: Any) -> Any:
        return fn(*args[:first], **_by_keyword(fn.__name__, positional, args[first:], kwargs))

    return cast(Entrypoint, by_position_too)


def _by_keyword(
    name: str, positional: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Keyword arguments, with those that were given by position as callers once could."""
    if not args:
        return kwargs
    if len(args) > len(positional):
        raise TypeError(f"{name}() takes at most {len(positional)} positional arguments ({', '.join(positional)}) but "
                        f"{len(args)} were given")
    given = dict(zip(positional, args))
    twice = next((key for key in given if key in kwargs), None)
    if twice:
        raise TypeError(f"{name}() got two values for the argument '{twice}'")
    names = " and ".join(f"'{key}'" for key in given)
    _warn(f"Using {names} as positional parameter(s) is deprecated: write {name}({next(iter(given))}=...), and so on")
    return {**given, **kwargs}


def _new_style(name: str, parameter: str, old: str, default: Default, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The old parameter, or a truth value as the new one, becomes the weights that it once stood for."""
    weights = kwargs.get(parameter)
    is_old_value = not (weights is None or isinstance(weights, (Enum, str)))
    if old not in kwargs and not is_old_value:
        return kwargs
    if old in kwargs and parameter in kwargs:
        raise TypeError(f"{name}() got both '{parameter}' and '{old}', which mean the same; leave '{old}' out")
    kwargs = dict(kwargs)
    is_pretrained = kwargs.pop(parameter if is_old_value else old)
    if isinstance(is_pretrained, (list, tuple, dict, type)) or callable(is_pretrained):
        raise TypeError(f"{name}() expected weights, a member of its Enum or the name of one, as '{parameter}' but "
                        f"received {is_pretrained!r}")
    member: Any = default
    if not is_pretrained:
        member = None
    elif callable(default):
        member = default({**kwargs, old: is_pretrained})
    if is_pretrained and not isinstance(member, Enum):
        raise ValueError(f"no weights are published for '{name}'")
    if not is_old_value:
        _warn(f"The parameter '{old}' is deprecated, please use '{parameter}' instead")
    newest = f", and `{parameter}={type(member).__name__}.DEFAULT` gives the most up-to-date weights" \
        if member is not None else ""
    _warn(f"Arguments other than a weight enum or `None` for '{parameter}' are deprecated; this call is equivalent to "
          f"passing `{parameter}={member!r}`{newest}")
    return {**kwargs, parameter: member}


def _first_published(enum: type[WeightsEnum]) -> WeightsEnum | None:
    """What `pretrained=True` once meant in torchvision: the first version."""
    first = next((member for member in enum if member.name.startswith("IMAGENET1K_") and member.name.endswith("_V1")
                  and "SWAG" not in member.name), None)
    return first or enum.__members__.get("DEFAULT")


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=registry.caller_level())


# building

def _build(
    name: str, enum: type[WeightsEnum], weights: Any = None, progress: bool = True, **kwargs: Any
) -> nn.Module:
    member = enum.verify(weights)
    is_theirs = name in registry.list_builders() and registry.is_ours(name) and not kwargs.get("quantize")
    if is_theirs and (member is None or _is_torchvisions(member)):
        from .torchvision_models import build

        return build(name, member, enum.DEFAULT._config() if len(enum) else None, progress, **kwargs)
    from .factory import create_model

    architecture, _ = registry.resolve_name(name)
    if member is None:
        return create_model(architecture, pretrained=False, **kwargs)
    return create_model(architecture, pretrained=True, pretrained_cfg=member._config(), progress=progress, **kwargs)


def _is_torchvisions(member: WeightsEnum) -> bool:
    """Whether torchvision publishes these weights, for a class of its own."""
    return member._config().preprocessing == "torchvision"


# torchvision's functions

registered: dict[str, Callable[..., nn.Module]] = {}  # builders of users', as torchvision's `register_model` takes them


def register_model(name: str | None = None) -> Callable[[Entrypoint], Entrypoint]:
    """Decorator, torchvision's: make a builder, which takes `weights` and `progress`, known to `get_model` and others.

    For an architecture, a function that takes no weights, `mvlib.register_model` is better: it makes the builder.

    Args:
        name: Name to register under instead of the function's.

    Raises:
        ValueError: The name is taken by a builder of torchvision's, or was registered so already.
    """
    def decorate(builder: Entrypoint) -> Entrypoint:
        key = name or builder.__name__
        if key in registered or key in registry.list_builders():
            raise ValueError(f"a builder is registered under the name '{key}' already: choose another name")
        registered[key] = builder
        return builder

    return decorate


def get_model_builder(name: str) -> Callable[..., nn.Module]:
    """The builder of a model's name; capitals do not matter.

    Raises:
        ValueError: The model is unknown.
    """
    lower = name.lower()
    if lower in registered:
        return registered[lower]
    if "." in lower or not registry.is_model(lower):
        known = {*registry.list_models(), *registry.list_builders(), *registered}
        hint = "; a builder's name has no tag, create_model takes one" if registry.is_model(lower) else ""
        raise ValueError(f"unknown model '{name}'{hint or closest(lower, known)}")
    return get_builder(lower)


def get_model(name: str, **config: Any) -> nn.Module:
    """Build a model by the name of its builder; `config` are the builder's arguments.

    Raises:
        ValueError: The model is unknown.
    """
    return get_model_builder(name)(**config)


def get_model_weights(name: Callable[..., Any] | str) -> type[WeightsEnum]:
    """The Enum of a model's weights, from a name or a builder.

    Raises:
        ValueError: The model is unknown, or the function takes no weights.
    """
    builder = get_model_builder(name) if isinstance(name, str) else name
    try:
        parameter = inspect.signature(builder).parameters.get("weights")
    except (TypeError, ValueError):
        parameter = None
    if parameter is None:
        raise ValueError(f"{getattr(name, '__name__', name)!r} is no model builder: it takes no weights")
    candidates = (parameter.annotation, *getattr(parameter.annotation, "__args__", ()))
    enum = next((c for c in candidates if isinstance(c, type) and issubclass(c, Enum)), None)
    if enum is None:
        raise ValueError(f"the annotation of {builder.__name__}'s weights, {parameter.annotation!r}, names no Enum")
    return enum


def list_models(
    module: ModuleType | None = None,
    include: Iterable[str] | str | None = None,
    exclude: Iterable[str] | str | None = None,
) -> list[str]:
    """Names of builders, sorted: all architectures, and the names that torchvision has for them.

    Args:
        module: `mvlib.models` for classifiers but the quantized ones, `mvlib.models.quantization` for these,
            `mvlib.models.detection` (`.segmentation`, `.video`, `.optical_flow`), or a family.
        include: fnmatch pattern or patterns; a name that matches one of them is listed.
        exclude: Patterns to leave out again.
    """
    if module is not None and not isinstance(module, ModuleType):
        raise TypeError(f"module {module!r} is not a module; a pattern goes to include=, and mvlib.list_models takes "
                        f"timm's arguments")
    names = {*registry.list_models(), *registry.list_builders(), *registered}
    if module is not None:
        names = {name for name in names if _is_in(name, module.__name__)}
    if include:
        patterns = [include] if isinstance(include, str) else include
        names = {name for pattern in patterns for name in fnmatch.filter(names, pattern)}
    for pattern in [exclude] if isinstance(exclude, str) else exclude or ():
        names.difference_update(fnmatch.filter(names, pattern))
    return sorted(names)


def _is_in(name: str, module: str) -> bool:
    """Whether a builder is of a module: of the package that has its family, or of the family."""
    if name in registered and not registry.is_model(name):
        return registered[name].__module__.rpartition(".")[0] == module
    family = registry.get_module(name)
    is_apart = family == "quantization" or registry.task_of(name) != CLASSIFICATION
    places = [f"{_HOME}.{family}", *([] if is_apart else [_HOME])]
    return re.sub(r"^(mvlib\.)?torchvision\.models\b", _HOME, module) in places
