"""torchvision's way to a model: `resnet50(weights=ResNet50_Weights.DEFAULT)`, and its functions around that.

A builder is made from the registry for every architecture, and for every name that torchvision has for one. It takes
torchvision's arguments, old ones too, and ends in `create_model`. Imports no torch before a model is built.
"""

from __future__ import annotations

import fnmatch
import functools
import inspect
import warnings
from collections.abc import Callable, Iterable
from enum import Enum
from types import ModuleType
from typing import TYPE_CHECKING, Any, Optional, Union

from . import registry
from .enums import WeightsEnum, weights_enum
from .names import closest

if TYPE_CHECKING:
    from torch import nn

__all__ = ["get_builder", "get_model", "get_model_builder", "get_model_weights", "list_models"]

_HOME = "mvlib.models"
_QUANTIZED = "quantized_"
# torchvision's arguments under the names that they have here.
_RENAMED = {
    "attention_dropout": "attn_drop_rate",
    "dropout": "drop_rate",
    "dropout_aux": "aux_drop_rate",
    "groups": "cardinality",
    "hidden_dim": "embed_dim",
    "image_size": "img_size",
    "layer_scale": "ls_init_value",
    "num_layers": "depth",
    "stochastic_depth_prob": "drop_path_rate",
    "width_per_group": "base_width",
    "zero_init_residual": "zero_init_last",
}
_WITHOUT_EFFECT = ("init_weights",)  # what weights do not fill is always initialised, and nothing else


@functools.cache
def get_builder(name: str) -> Callable[..., nn.Module]:
    """The builder of an architecture, or of a name that torchvision has for one.

    Raises:
        UnknownNameError: The model is unknown.
    """
    enums: tuple[type[WeightsEnum], ...] = (weights_enum(name),)
    if name.startswith(_QUANTIZED) and registry.is_model(name.removeprefix(_QUANTIZED)):
        enums += (weights_enum(name.removeprefix(_QUANTIZED)),)
    switches: tuple[str, ...] = ("quantize",) if len(enums) > 1 else ()
    positional = ("weights", "progress", *switches)

    def builder(*args: Any, **kwargs: Any) -> nn.Module:
        kwargs = _positional_too(name, positional, args, kwargs)
        quantize = bool(switches) and kwargs.get("quantize", False)
        enum = enums[1] if switches and not quantize else enums[0]
        return _build(name, enum, **_new_style(name, enum, kwargs))

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
    return builder


def _document(name: str, enums: tuple[type[WeightsEnum], ...]) -> str:
    architecture, _ = registry.resolve_name(name)
    same = f", the architecture {architecture}" if architecture != name else ""
    listed = "\n".join(f"            {enum.__name__}: {', '.join(enum.__members__) or 'nothing is published'}."
                       for enum in enums)
    quantize = "        quantize: Build the int8 model; it runs on the CPU and cannot be trained.\n" \
        if len(enums) > 1 else ""
    return (f"Build {name}{same}, of the family mvlib.models.{registry.get_module(name)}.\n\n"
            f"    Args:\n"
            f"        weights: A member, its name, \"DEFAULT\", or None for a model that is initialised at random.\n"
            f"{listed}\n"
            f"        progress: Show a bar while weights are downloaded.\n{quantize}"
            f"        **kwargs: The architecture's arguments; another `num_classes` than the weights' gets a new "
            f"head.\n\n"
            f"    Raises:\n"
            f"        TypeError: The weights are of another model.\n"
            f"        KeyError: The weights have no such name.\n    ")


# old calls

def _positional_too(
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


def _new_style(name: str, enum: type[WeightsEnum], kwargs: dict[str, Any]) -> dict[str, Any]:
    """`pretrained`, or a truth value as `weights`, becomes the weights that it once stood for."""
    weights = kwargs.get("weights")
    is_old_weights = not (weights is None or isinstance(weights, (Enum, str)))
    if "pretrained" not in kwargs and not is_old_weights:
        return kwargs
    if "pretrained" in kwargs and "weights" in kwargs:
        raise TypeError(f"{name}() got both 'weights' and 'pretrained', which mean the same; leave 'pretrained' out")
    kwargs = dict(kwargs)
    is_pretrained = kwargs.pop("weights") if is_old_weights else kwargs.pop("pretrained")
    if isinstance(is_pretrained, (list, tuple, dict, type)) or callable(is_pretrained):
        raise TypeError(f"{name}() expected a member of {enum.__name__} as weights but received {is_pretrained!r}")
    if is_pretrained and not len(enum):
        raise ValueError(f"no weights are published for '{name}'")
    member = (enum.__members__.get(_first_published(enum)) or enum.DEFAULT) if is_pretrained else None
    if not is_old_weights:
        _warn("The parameter 'pretrained' is deprecated, please use 'weights' instead")
    newest = f", and `weights={enum.__name__}.DEFAULT` gives the most up-to-date weights" if member is not None else ""
    _warn(f"Arguments other than a weight enum or `None` for 'weights' are deprecated; this call is equivalent to "
          f"passing `weights={'None' if member is None else repr(member)}`{newest}")
    return {**kwargs, "weights": member}


def _first_published(enum: type[WeightsEnum]) -> str:
    """What `pretrained=True` once meant in torchvision: the first version."""
    return next((member for member in enum.__members__ if member.startswith("IMAGENET1K_") and member.endswith("_V1")
                 and "SWAG" not in member), "DEFAULT")


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=registry.caller_level())


# building

def _build(
    name: str, enum: type[WeightsEnum], weights: Any = None, progress: bool = True, **kwargs: Any
) -> nn.Module:
    from .factory import create_model

    member = enum.verify(weights)
    architecture, _ = registry.resolve_name(name)
    facts = registry.builder_facts(name) if name in registry.list_builders() else {}
    arguments = dict(facts.get("arguments", {}))
    if member is None:
        arguments.update(facts.get("untrained", {}))
    arguments.update(_own_arguments(architecture, kwargs, facts.get("renamed", {})))
    if member is None:
        return create_model(architecture, pretrained=False, **arguments)
    return create_model(architecture, pretrained=True, pretrained_cfg=member._config(), progress=progress, **arguments)


def _own_arguments(architecture: str, given: dict[str, Any], renamed: dict[str, str]) -> dict[str, Any]:
    """Arguments of torchvision's in the architecture's own terms."""
    from .factory import known_arguments

    known = known_arguments(architecture)
    arguments = {}
    for key, value in given.items():
        key = renamed.get(key, key)
        is_foreign = known is not None and key not in known
        if is_foreign and key in _WITHOUT_EFFECT:
            continue
        if is_foreign and key == "replace_stride_with_dilation":
            arguments["output_stride"] = 32 if value is None else _output_stride(value)
        elif is_foreign and key == "dilated":
            arguments["output_stride"] = 16 if value else 32
        elif is_foreign and _RENAMED.get(key) in known:
            arguments[_RENAMED[key]] = value
        else:
            arguments[key] = value
    return arguments


def _output_stride(dilated: Iterable[bool]) -> int:
    strides = {(False, False, False): 32, (False, False, True): 16, (False, True, True): 8}
    stages = tuple(map(bool, dilated))
    if stages not in strides:
        raise ValueError(f"replace_stride_with_dilation {list(stages)} is none of "
                         f"{', '.join(str(list(known)) for known in strides)}")
    return strides[stages]


# torchvision's functions

def get_model_builder(name: str) -> Callable[..., nn.Module]:
    """The builder of a model's name; capitals do not matter.

    Raises:
        ValueError: The model is unknown.
    """
    lower = name.lower()
    if "." in lower or not registry.is_model(lower):
        known = {*registry.list_models(), *registry.list_builders()}
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
        module: `mvlib.models` for all but the quantized ones, `mvlib.models.quantization` for these, or a family.
        include: fnmatch pattern or patterns; a name that matches one of them is listed.
        exclude: Patterns to leave out again.
    """
    if module is not None and not isinstance(module, ModuleType):
        raise TypeError(f"module {module!r} is not a module; a pattern goes to include=, and mvlib.list_models takes "
                        f"timm's arguments")
    names = {*registry.list_models(), *registry.list_builders()}
    if module is not None:
        names = {name for name in names if _is_in(name, module.__name__)}
    if include:
        patterns = [include] if isinstance(include, str) else include
        names = {name for pattern in patterns for name in fnmatch.filter(names, pattern)}
    for pattern in [exclude] if isinstance(exclude, str) else exclude or ():
        names.difference_update(fnmatch.filter(names, pattern))
    return sorted(names)


def _is_in(name: str, module: str) -> bool:
    family = registry.get_module(name)
    return module in (_HOME if family != "quantization" else None, f"{_HOME}.{family}")


