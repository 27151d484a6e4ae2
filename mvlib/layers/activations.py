"""Activations by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .helpers import check_layer, placeable

__all__ = [
    "ACTIVATIONS", "GELU", "ActLayer", "GELUTanh", "HardMish", "HardSigmoid", "HardSwish", "Mish", "PReLU", "QuickGELU",
    "Sigmoid", "Swish", "Tanh", "create_act_layer", "get_act_layer",
]

ActLayer = str | Callable[..., nn.Module] | None


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), the approximation of GELU that OpenAI's CLIP was trained with."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class GELU(nn.GELU):
    """Exact GELU; accepts (and ignores) `inplace`, so that it can stand wherever a ReLU can."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()


class GELUTanh(nn.GELU):
    """GELU in its tanh approximation (JAX's default)."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(approximate="tanh")


class Sigmoid(nn.Sigmoid):
    """Sigmoid that accepts (and ignores) `inplace`."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()


class Tanh(nn.Tanh):
    """Tanh that accepts (and ignores) `inplace`."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()


class HardMish(nn.Module):
    """0.5 x * clamp(x + 2, 0, 2), a piecewise approximation of Mish."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x * (x + 2).clamp(min=0, max=2)


class PReLU(nn.PReLU):
    """PReLU with one slope of 0.25 that accepts (and ignores) `inplace`."""

    @placeable
    def __init__(self, num_parameters: int = 1, init: float = 0.25, inplace: bool = False) -> None:
        super().__init__(num_parameters, init)


Swish, Mish, HardSigmoid, HardSwish = nn.SiLU, nn.Mish, nn.Hardsigmoid, nn.Hardswish  # timm's names

ACTIVATIONS: dict[str, Callable[..., nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "celu": nn.CELU,
    "selu": nn.SELU,
    "prelu": PReLU,
    "silu": nn.SiLU,
    "swish": nn.SiLU,
    "mish": nn.Mish,
    "gelu": GELU,
    "gelu_tanh": GELUTanh,
    "quick_gelu": QuickGELU,
    "sigmoid": Sigmoid,
    "tanh": Tanh,
    "hard_sigmoid": nn.Hardsigmoid,
    "hard_swish": nn.Hardswish,
    "hard_mish": HardMish,
    "identity": nn.Identity,
}


def get_act_layer(name: ActLayer = "relu") -> Callable[..., nn.Module] | Any:  # None for none
    """The activation class for a name ("relu", "silu", ...); a class, a partial or None is returned as it is.

    Raises:
        ValueError: The name is unknown; the message lists those that are known. Or it can make no layer.
    """
    if name is None or name is False or name == "":
        return None
    if not isinstance(name, str):
        return check_layer(name, "activation")
    key = name.lower().replace("hardswish", "hard_swish").replace("hardsigmoid", "hard_sigmoid")
    if key not in ACTIVATIONS:
        raise ValueError(f"unknown activation '{name}'; known: {', '.join(sorted(ACTIVATIONS))}")
    return ACTIVATIONS[key]


def create_act_layer(name: ActLayer, inplace: bool | None = None, **kwargs: Any) -> nn.Module | None:
    """An activation; `inplace` is for those that know it. None for none."""
    layer = get_act_layer(name)
    if layer is None:
        return None
    if inplace is not None and "inplace" in inspect.signature(layer).parameters:
        kwargs["inplace"] = inplace
    return layer(**kwargs)
