"""Activations by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .helpers import check_layer

__all__ = ["ACTIVATIONS", "ActLayer", "GELUTanh", "QuickGELU", "get_act_layer"]

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

    def __init__(self, num_parameters: int = 1, init: float = 0.25, inplace: bool = False) -> None:
        super().__init__(num_parameters, init)


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


def get_act_layer(act: ActLayer) -> Callable[..., nn.Module] | None:
    """The activation class for a name ("relu", "silu", ...); a class, a partial or None is returned as it is.

    Raises:
        ValueError: The name is unknown; the message lists those that are known. Or it can make no layer.
    """
    if act is None or act is False or act == "":
        return None
    if not isinstance(act, str):
        return check_layer(act, "activation")
    name = act.lower().replace("hardswish", "hard_swish").replace("hardsigmoid", "hard_sigmoid")
    if name not in ACTIVATIONS:
        raise ValueError(f"unknown activation '{act}'; known: {', '.join(sorted(ACTIVATIONS))}")
    return ACTIVATIONS[name]
