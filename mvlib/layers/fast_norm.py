"""Norms as functions; the fast ones stay in autocast's type, where torch would compute in float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "fast_group_norm", "fast_layer_norm", "fast_rms_norm", "fast_rms_norm2d", "fast_simple_norm", "get_autocast_dtype",
    "is_autocast_enabled", "is_fast_norm", "rms_norm", "rms_norm2d", "set_fast_norm", "simple_norm",
]

_fast = False


def is_fast_norm() -> bool:
    """Whether norms that are built now are fast."""
    return _fast


def set_fast_norm(enable: bool = True) -> None:
    """Let the norms of `mvlib.layers` that are built from now on stay in autocast's type.

    They are quicker under autocast, less exact, and otherwise the same.
    """
    global _fast
    _fast = enable


def get_autocast_dtype(device: str = "cuda") -> torch.dtype:
    """The type that autocast computes in on a kind of device."""
    return torch.get_autocast_dtype(device)


def is_autocast_enabled(device: str = "cuda") -> bool:
    """Whether autocast is on for a kind of device."""
    return torch.is_autocast_enabled(device)


def rms_norm(x: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """Divide by the root mean square of the last dimensions, which have `normalized_shape`; (..., C) -> same."""
    dims = tuple(range(-len(normalized_shape), 0))
    return _scale(x * torch.rsqrt(x.square().mean(dims, keepdim=True) + eps), weight)


def rms_norm2d(x: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """`rms_norm` over the channels of a map; (B, C, H, W) -> same."""
    x = x * torch.rsqrt(x.square().mean(1, keepdim=True) + eps)
    return _scale(x, None if weight is None else weight.view(-1, 1, 1))


def simple_norm(x: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """Divide by the standard deviation of the last dimensions, the mean kept; (..., C) -> same."""
    dims = tuple(range(-len(normalized_shape), 0))
    return _scale(x * torch.rsqrt(x.var(dims, keepdim=True) + eps), weight)


def _scale(x: Tensor, weight: Tensor | None) -> Tensor:
    return x if weight is None else x * weight


def fast_group_norm(
    x: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """`F.group_norm` in autocast's type."""
    return _in_autocast_type(lambda x, weight, bias: F.group_norm(x, num_groups, weight, bias, eps), x, weight, bias)


def fast_layer_norm(
    x: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """`F.layer_norm` in autocast's type."""
    shape = list(normalized_shape)
    return _in_autocast_type(lambda x, weight, bias: F.layer_norm(x, shape, weight, bias, eps), x, weight, bias)


def fast_rms_norm(
    x: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """`rms_norm` in autocast's type."""
    shape = list(normalized_shape)
    return _in_autocast_type(lambda x, weight: F.rms_norm(x, shape, weight, eps), x, weight)


def fast_rms_norm2d(
    x: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """`rms_norm2d` in autocast's type."""
    return _in_autocast_type(lambda x, weight: rms_norm2d(x, normalized_shape, weight, eps), x, weight)


def fast_simple_norm(
    x: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """`simple_norm` in autocast's type."""
    return _in_autocast_type(lambda x, weight: simple_norm(x, normalized_shape, weight, eps), x, weight)


def _in_autocast_type(norm: Callable[..., Tensor], x: Tensor, *parameters: Tensor | None) -> Tensor:
    kind = x.device.type
    if not is_autocast_enabled(kind):
        return norm(x, *parameters)
    dtype = get_autocast_dtype(kind)
    with torch.autocast(kind, enabled=False):
        return norm(x.to(dtype), *(None if p is None else p.to(dtype) for p in parameters))
