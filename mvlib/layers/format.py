"""Layouts of feature maps and token sequences, by name."""

from __future__ import annotations

from enum import Enum

from torch import Tensor

__all__ = ["Format", "FormatT", "get_channel_dim", "get_spatial_dim", "nchw_to", "nhwc_to"]


class Format(str, Enum):
    """Order of dimensions: batch N, channels C, rows H and columns W, or positions L."""

    NCHW = "NCHW"
    NHWC = "NHWC"
    NCL = "NCL"
    NLC = "NLC"


FormatT = str | Format


def get_spatial_dim(fmt: FormatT) -> tuple[int, ...]:
    """The dimensions of positions: (2, 3) for "NCHW"."""
    return tuple(i for i, name in enumerate(Format(fmt).value) if name in "HWL")


def get_channel_dim(fmt: FormatT) -> int:
    """The dimension of channels: 1 for "NCHW"."""
    return Format(fmt).value.index("C")


def nchw_to(x: Tensor, fmt: FormatT) -> Tensor:
    """A map (B, C, H, W) in another layout."""
    if fmt == Format.NHWC:
        return x.permute(0, 2, 3, 1)
    if fmt == Format.NLC:
        return x.flatten(2).transpose(1, 2)
    return x.flatten(2) if fmt == Format.NCL else x


def nhwc_to(x: Tensor, fmt: FormatT) -> Tensor:
    """A map (B, H, W, C) in another layout."""
    if fmt == Format.NCHW:
        return x.permute(0, 3, 1, 2)
    if fmt == Format.NLC:
        return x.flatten(1, 2)
    return x.flatten(1, 2).transpose(1, 2) if fmt == Format.NCL else x
