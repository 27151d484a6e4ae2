"""Small functions that layers and models share."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from functools import wraps
from typing import Any, Generic, ParamSpec, TypeVar

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

__all__ = [
    "LayerType", "Module", "Sequential", "check_choice", "check_layer", "computed", "disable_compiler", "extend_tuple",
    "get_device_dtype", "is_exporting", "is_recording", "make_divisible", "meshgrid", "move_to_end", "named_parameters",
    "ndgrid", "nullwrap", "owns_meta", "placeable", "plain_name", "to_1tuple", "to_2tuple", "to_3tuple", "to_4tuple",
    "to_ntuple", "unwrap",
]

LayerType = str | Callable[..., nn.Module]
P = ParamSpec("P")
T = TypeVar("T")

_INSIDE = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_WRAPPERS = re.compile(rf"(?<![^.])(?:{'|'.join(_INSIDE)})\.")
_is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)  # older torch lacks it


disable_compiler = torch.compiler.disable  # timm's name


def is_exporting() -> bool:
    """Whether `torch.export` (ONNX's newer exporter, too) writes down what runs now."""
    return _is_exporting()


def is_recording() -> bool:
    """Whether `torch.jit.trace` (ONNX's older exporter, too) or `torch.export` writes down what runs now.

    What is written down has to serve other batches: nothing may follow from the batch's size then.
    """
    return torch.jit.is_tracing() or _is_exporting()


class computed(Generic[T]):
    """A property that gives way to what is assigned to its name: users' subclasses have an `img_size` of their own."""

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self.compute = compute
        self.__doc__ = compute.__doc__

    def __get__(self, instance: Any, owner: type | None = None) -> T:
        return self if instance is None else self.compute(instance)  # type: ignore[return-value]


def placeable(init: Callable[P, None]) -> Callable[P, None]:
    """Decorator of a layer's `__init__`, which then takes torch's keyword arguments `device` and `dtype`, too."""
    signature = inspect.signature(init)
    if "device" in signature.parameters:  # it takes them
        return init

    @wraps(init)
    def placed(self: nn.Module, *args: Any, device: Any = None, dtype: Any = None, **kwargs: Any) -> None:
        with nullcontext() if device is None else torch.device(device):
            init(self, *args, **kwargs)
        if dtype is not None:
            self.to(dtype)

    named, rest = [], []
    for parameter in signature.parameters.values():
        (rest if parameter.kind is parameter.VAR_KEYWORD else named).append(parameter)
    added = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in ("device", "dtype")]
    placed.__signature__ = signature.replace(parameters=[*named, *added, *rest])
    return placed


class Module(nn.Module):
    """An `nn.Module`, and what derives from it, whose constructor is `placeable`, without saying so."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = placeable(cls.__init__)  # type: ignore[method-assign]


class Sequential(Module, nn.Sequential):
    """The same of an `nn.Sequential`."""


def check_choice(option: str, value: Any, known: Iterable[Any]) -> None:
    """
    Raises:
        ValueError: The option's value is not among those known.
    """
    if value not in known:
        raise ValueError(f"unknown {option} {value!r}; known: {', '.join(map(repr, known))}")


def check_layer(layer: Any, kind: str) -> Any:
    """A class or function that makes a layer, as it is.

    Raises:
        ValueError: It is not one.
    """
    if not callable(layer):
        raise ValueError(f"{layer!r} is no {kind}: that is a name, a class or a function that makes one")
    return layer


def to_ntuple(n: int) -> Callable[[Any], tuple]:
    """A function that makes a tuple: an iterable (not a string) is converted, anything else is repeated `n` times."""

    def convert(x: Any) -> tuple:
        return tuple(x) if isinstance(x, Iterable) and not isinstance(x, str) else (x,) * n

    return convert


to_1tuple, to_2tuple, to_3tuple, to_4tuple = (to_ntuple(n) for n in (1, 2, 3, 4))  # pairs are (height, width)


def extend_tuple(x: Any, n: int) -> tuple[Any, ...]:
    """A tuple of `n`: of a longer one the first, a shorter one goes on with its last, a single value is repeated."""
    values = tuple(x) if isinstance(x, (tuple, list)) else (x,)
    return (values + values[-1:] * (n - len(values)))[:n]


def ndgrid(*tensors: Any) -> tuple[torch.Tensor, ...]:
    """Coordinates of a grid, each as a tensor of its shape, in the order of the dimensions: rows first."""
    return torch.meshgrid(*tensors, indexing="ij")


def meshgrid(*tensors: Any) -> tuple[torch.Tensor, ...]:
    """Coordinates of a grid in NumPy's order: columns first."""
    return torch.meshgrid(*tensors, indexing="xy")


def get_device_dtype(module: nn.Module, device: Any = None, dtype: Any = None) -> dict[str, Any]:
    """Keyword arguments `device` and `dtype` for a new part of a module: what is given, or its first parameter's."""
    like = next(module.parameters(), None)
    if like is not None:
        device, dtype = like.device if device is None else device, like.dtype if dtype is None else dtype
    return {"device": device, "dtype": dtype}


def nullwrap(fn: Any = None) -> Any:
    """A decorator and a context manager without effect."""
    return nullcontext() if fn is None else fn


def make_divisible(v: float, divisor: int = 8, min_value: int | None = None, round_limit: float = 0.9) -> int:
    """Round a channel count to a multiple of `divisor`, never losing more than 1 - `round_limit` of it.

    The rule of the MobileNet papers' TensorFlow code (`round_limit` 0.9); 0 disables the limit.
    """
    rounded = max(min_value or divisor, int(v + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < round_limit * v else rounded


def move_to_end(module: nn.Module, *names: str) -> None:
    """Let these submodules come last, in this order, in what lists a module's parts: parameters, state dict."""
    for name in names:
        module._modules[name] = module._modules.pop(name)


def owns_meta(module: nn.Module) -> bool:
    """Whether the module itself (not its children) holds a tensor on the meta device."""
    tensors = (*module._parameters.values(), *module._buffers.values())
    return any(t is not None and t.is_meta for t in tensors)


def unwrap(model: nn.Module) -> Any:
    """The model inside DistributedDataParallel, DataParallel, AveragedModel, FSDP and torch.compile, nested or not.

    Whoever asks a model for what only ours have (methods, `pretrained_cfg`) asks the one within: some wrappers pass the
    question on, and the answer's names are not those of their parameters; others do not.
    """
    wrappers = (nn.parallel.DistributedDataParallel, nn.DataParallel, AveragedModel)
    while True:
        if isinstance(model, wrappers):
            model = model.module
        elif inside := [model._modules[name] for name in _INSIDE if name in model._modules]:
            model = inside[0]
        else:
            return model


def plain_name(name: str) -> str:
    """A parameter's name without what torch.compile, FSDP and activation checkpointing put into it, anywhere."""
    return _WRAPPERS.sub("", name)


def named_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """A model's parameters under the names that they have within its wrappers."""
    within = {id(p): name for name, p in unwrap(model).named_parameters()}
    for name, p in model.named_parameters():
        yield plain_name(within.get(id(p), name)), p
