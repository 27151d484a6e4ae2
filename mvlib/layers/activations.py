"""Activations by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .helpers import check_layer, placeable

__all__ = [
    "ACTIVATIONS", "ACT_FUNCTIONS", "GELU", "ActLayer", "GELUTanh", "HardMish", "HardSigmoid", "HardSwish", "Mish",
    "PReLU", "QuickGELU", "Sigmoid", "Swish", "Tanh", "create_act_layer", "gelu", "gelu_tanh", "get_act_fn",
    "get_act_layer", "hard_mish", "hard_sigmoid", "hard_swish", "mish", "quick_gelu", "sigmoid", "swish", "tanh",
]

ActLayer = str | Callable[..., nn.Module] | None

# functions; `inplace` is for those that can, the others ignore it


def swish(x: Tensor, inplace: bool = False) -> Tensor:
    """x * sigmoid(x), torch's SiLU."""
    return F.silu(x, inplace)


def mish(x: Tensor, inplace: bool = False) -> Tensor:
    """x * tanh(log(1 + exp(x)))."""
    return F.mish(x, inplace)


def hard_sigmoid(x: Tensor, inplace: bool = False) -> Tensor:
    """clamp(x + 3, 0, 6) / 6, a piecewise approximation of the sigmoid."""
    return F.hardsigmoid(x, inplace)


def hard_swish(x: Tensor, inplace: bool = False) -> Tensor:
    """x * clamp(x + 3, 0, 6) / 6, a piecewise approximation of the SiLU."""
    return F.hardswish(x, inplace)


def sigmoid(x: Tensor, inplace: bool = False) -> Tensor:
    """1 / (1 + exp(-x))."""
    return x.sigmoid_() if inplace else x.sigmoid()


def tanh(x: Tensor, inplace: bool = False) -> Tensor:
    """Hyperbolic tangent."""
    return x.tanh_() if inplace else x.tanh()


def hard_mish(x: Tensor, inplace: bool = False) -> Tensor:
    """0.5 x * clamp(x + 2, 0, 2), a piecewise approximation of Mish."""
    gate = (x + 2).clamp(min=0, max=2)
    return x.mul_(0.5 * gate) if inplace else 0.5 * x * gate


def gelu(x: Tensor, inplace: bool = False) -> Tensor:
    """Exact GELU."""
    return F.gelu(x)


def gelu_tanh(x: Tensor, inplace: bool = False) -> Tensor:
    """GELU in its tanh approximation (JAX's default)."""
    return F.gelu(x, approximate="tanh")


def quick_gelu(x: Tensor, inplace: bool = False) -> Tensor:
    """x * sigmoid(1.702 x), the approximation of GELU that OpenAI's CLIP was trained with."""
    return x * torch.sigmoid(1.702 * x)


# modules


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), the approximation of GELU that OpenAI's CLIP was trained with."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return quick_gelu(x)


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
        return hard_mish(x)


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
ACT_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "celu": F.celu,
    "selu": F.selu,
    "silu": swish,
    "swish": swish,
    "mish": mish,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "quick_gelu": quick_gelu,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "hard_sigmoid": hard_sigmoid,
    "hard_swish": hard_swish,
    "hard_mish": hard_mish,
}


def _find(name: str, table: dict[str, Any]) -> Any:
    key = name.lower().replace("hardswish", "hard_swish").replace("hardsigmoid", "hard_sigmoid")
    if key not in table:
        raise ValueError(f"unknown activation '{name}'; known: {', '.join(sorted(table))}")
    return table[key]


def get_act_fn(name: str | Callable[..., Tensor] | None = "relu") -> Callable[..., Tensor] | None:
    """The activation as a function, for a name; a function is returned as it is, and None for none.

    Raises:
        ValueError: The name is unknown; the message lists those that are known.
    """
    if not name:
        return None
    return _find(name, ACT_FUNCTIONS) if isinstance(name, str) else name


def get_act_layer(name: ActLayer = "relu") -> Callable[..., nn.Module] | Any:  # None for none
    """The activation class for a name ("relu", "silu", ...); a class, a partial or None is returned as it is.

    Raises:
        ValueError: The name is unknown; the message lists those that are known. Or it can make no layer.
    """
    if name is None or name is False or name == "":
        return None
    if not isinstance(name, str):
        return check_layer(name, "activation")
    return _find(name, ACTIVATIONS)


def create_act_layer(name: ActLayer, inplace: bool | None = None, **kwargs: Any) -> nn.Module | None:
    """An activation; `inplace` is for those that know it. None for none."""
    layer = get_act_layer(name)
    if layer is None:
        return None
    if inplace is not None and "inplace" in inspect.signature(layer).parameters:
        kwargs["inplace"] = inplace
    return layer(**kwargs)
