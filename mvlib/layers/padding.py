"""Padding of convolutions and pools: PyTorch's symmetric one, and TensorFlow's "same"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .helpers import to_2tuple

__all__ = [
    "IntPair", "PadType", "Padding", "get_padding", "get_padding_value", "get_same_padding", "is_static_pad",
    "pad_same", "pad_same_arg", "resolve_padding",
]

IntPair = int | tuple[int, int]
Padding = str | int | tuple[int, int]
PadType = Padding  # timm's name


def get_padding(kernel_size: Any, stride: Any = 1, dilation: Any = 1, **_: Any) -> Any:
    """Zeros on either side with which an odd kernel gives size / stride: a number, or [rows, columns] for pairs."""
    if any(isinstance(value, (tuple, list)) for value in (kernel_size, stride, dilation)):
        return [get_padding(*window) for window in _windows(kernel_size, stride, dilation)]
    return (stride - 1 + dilation * (kernel_size - 1)) // 2


def get_same_padding(x: Any, kernel_size: int, stride: int, dilation: int) -> Any:
    """Zeros on both sides together with which a window over `x` pixels gives ceil(x / stride).

    Both sides share them, the end gets an odd one. `x` may be a tensor of several sizes.
    """
    span = (kernel_size - 1) * dilation
    total = span - (x - 1) % stride  # windows that leave gaps may need none
    return total.clamp(min=0) if isinstance(total, Tensor) else max(total, 0)


def is_static_pad(kernel_size: Any, stride: Any = 1, dilation: Any = 1, **_: Any) -> bool:
    """Whether "same" padding is symmetric and the same for all sizes of the input."""
    return all(s == 1 and d * (k - 1) % 2 == 0 for k, s, d in _windows(kernel_size, stride, dilation))


def _windows(kernel_size: Any, stride: Any, dilation: Any) -> list[tuple[int, int, int]]:
    """(kernel, stride, dilation) of rows, then of columns."""
    return list(zip(to_2tuple(kernel_size), to_2tuple(stride), to_2tuple(dilation)))


def pad_same_arg(
    input_size: Sequence[int], kernel_size: Sequence[int], stride: Sequence[int], dilation: Sequence[int] = (1, 1)
) -> list[int]:
    """What `pad_same` gives to `F.pad` for an input of (height, width): [left, right, top, bottom]."""
    amounts: list[int] = []
    for size, *window in zip(input_size, kernel_size, stride, dilation):
        total = get_same_padding(size, *window)
        amounts = [total // 2, total - total // 2, *amounts]  # F.pad counts from the last dimension
    return amounts


def pad_same(
    x: Tensor, kernel_size: int | Sequence[int], stride: int | Sequence[int], dilation: int | Sequence[int] = 1,
    value: float = 0.0,
) -> Tensor:
    """Pad as TensorFlow does for padding "same", so that a window operation gives ceil(size / stride).

    An odd amount puts the extra row below and the extra column on the right.

    Shapes: (B, C, H, W) -> (B, C, H', W').
    """
    return _pad_same(x, to_2tuple(kernel_size), to_2tuple(stride), to_2tuple(dilation), value)


@torch.fx.wrap  # one node in a traced graph: the amount depends on the input's size
def _pad_same(
    x: Tensor, kernel_size: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int], value: float
) -> Tensor:
    amounts: list[int] = []
    # TorchScript, where it optimizes, loses a tensor that is asked for in the loop.
    sizes: list[int] = x.shape[-2:]  # type: ignore[assignment]
    for i in range(2):
        span = (kernel_size[i] - 1) * dilation[i]
        total = span - (sizes[i] - 1) % stride[i]
        if span + 1 < stride[i]:  # windows that leave gaps may need no padding
            total = max(total, 0)
        amounts = [total // 2, total - total // 2] + amounts  # F.pad counts from the last dimension
    return F.pad(x, amounts, value=value)


def resolve_padding(
    padding: Padding, kernel_size: IntPair, stride: IntPair = 1, dilation: IntPair = 1
) -> tuple[tuple[int, int], bool]:
    """Padding as (height, width), and whether it depends on the input's size so that `pad_same` has to do it.

    Args:
        padding: Rows and columns; or "" for PyTorch's symmetric padding, "same" for TensorFlow's, "valid" for none.

    Raises:
        ValueError: The padding has another name.
    """
    if not isinstance(padding, str):
        return to_2tuple(padding), False
    name = padding.lower()
    if name not in ("", "same", "valid"):
        raise ValueError(f"unknown padding '{padding}'; known: 'same', 'valid', '' (symmetric), or numbers")
    is_dynamic = name == "same" and not is_static_pad(kernel_size, stride, dilation)
    if is_dynamic or name == "valid":
        return (0, 0), is_dynamic
    return to_2tuple(get_padding(kernel_size, stride, dilation)), False


def get_padding_value(padding: Any, kernel_size: Any, **window: Any) -> tuple[Any, bool]:
    """`resolve_padding` as timm's callers know it: numbers come back as they are, and a number where one will do."""
    if not isinstance(padding, str):
        return padding, False
    amount, is_dynamic = resolve_padding(
        padding, kernel_size, window.get("stride", 1), window.get("dilation", 1))
    return (amount[0] if amount[0] == amount[1] else list(amount)), is_dynamic
