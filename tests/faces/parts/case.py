"""A case: what to take by timm's path, and what to give it."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """Arguments for a class or function of timm.

    Args:
        path: Of it, below timm: "models.convnext.ConvNeXtBlock".
        args, kwargs: Its arguments; a `From` among them stands for each library's own.
        inputs: Of the module that it makes: shapes, or a function that makes the inputs (a tuple); none where the
            results are compared themselves.
        other_defaults: Arguments whose default is written otherwise here, and means the same ("gelu", nn.GELU).
        init: Whether initial values are of the same distributions.
    """

    path: str
    args: Sequence[Any] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    inputs: Sequence[tuple[int, ...]] | Callable[[], tuple[Any, ...]] | None = None
    other_defaults: str = ""
    init: bool = True

    def made_inputs(self) -> tuple[Any, ...]:
        if callable(self.inputs):
            torch.manual_seed(1)
            return self.inputs()
        generator = torch.Generator().manual_seed(1)
        return tuple(torch.randn(shape, generator=generator) for shape in self.inputs or ())

    def result(self, root: str) -> Any:
        """What the library of that name makes of the arguments."""
        return named(root, self.path)(*resolved(root, tuple(self.args)), **resolved(root, self.kwargs))


class From:
    """A thing of either library by timm's path, with some arguments given; `.made` is what it makes of them."""

    def __init__(self, path: str, *args: Any, **kwargs: Any) -> None:
        self.path, self.args, self.kwargs, self.is_called = path, args, kwargs, False

    @property
    def made(self) -> From:
        other = From(self.path, *self.args, **self.kwargs)
        other.is_called = True
        return other


def named(root: str, path: str) -> Any:
    """`timm` or `mvlib.timm`'s thing of a path."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(f"{root}.{module}".rstrip(".")), name)


def resolved(root: str, value: Any) -> Any:
    """A value in which each `From` is what the library has there."""
    if isinstance(value, From):
        found = named(root, value.path)
        args, kwargs = resolved(root, value.args), resolved(root, value.kwargs)
        if value.is_called:
            return found(*args, **kwargs)
        return partial(found, *args, **kwargs) if args or kwargs else found
    if isinstance(value, dict):
        return {key: resolved(root, item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(resolved(root, item) for item in value)
    return value.clone() if isinstance(value, Tensor) else value


def leaves(value: Any) -> list[Any]:
    """Tensors and plain values of a result, in order."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in (key, *leaves(item))]
    if isinstance(value, (tuple, list)):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]
