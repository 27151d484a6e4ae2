"""Attention by strips: a gate for each channel and position from the means of the position's row and its column."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .activations import ActLayer, create_act_layer
from .channel_attention import ATTN_LAYERS
from .helpers import make_divisible, placeable
from .norm import GroupNorm1

__all__ = ["CoordAttn", "EfficientLocalAttn", "SimpleCoordAttn", "StripAttn"]

Norm = Callable[..., nn.Module] | None


class _StripAttn(nn.Module):
    """The gate, and the map that is kept beside it. Shapes: (B, C, H, W) -> same."""

    def __init__(self, gate_layer: ActLayer, has_skip: bool) -> None:
        super().__init__()
        self.has_skip = has_skip
        self.gate = create_act_layer(gate_layer) or nn.Identity()

    def finish(self, x: Tensor, *gates: Tensor) -> Tensor:
        out = x
        for gate in gates:
            out = out * gate
        return out + x if self.has_skip else out


def _strips(x: Tensor) -> tuple[Tensor, Tensor]:
    """Means of rows (B, C, H, 1) and of columns (B, C, 1, W)."""
    return x.mean(3, keepdim=True), x.mean(2, keepdim=True)


def _width(channels: int, rd_ratio: float, rd_channels: int | None, rd_divisor: int, se_factor: float) -> int:
    return rd_channels or make_divisible(channels * rd_ratio * se_factor, rd_divisor, round_limit=0.0)


class CoordAttn(_StripAttn):
    """Coordinate attention; keys `conv1`, `bn1`, `conv_h`, `conv_w`.

    Shapes: (B, C, H, W) -> same.
    Source: Hou et al., "Coordinate Attention for Efficient Mobile Network Design", 2021.

    Args:
        channels: Channels.
        rd_ratio, rd_channels, rd_divisor: Squeezed channels, see `SEModule`.
        se_factor: Factor on `rd_ratio`, for about the parameters of squeeze-and-excitation.
        bias: Whether the convolutions have biases.
        act_layer, norm_layer: Of the squeezed strips.
        gate_layer: Activation that makes the gates.
        has_skip: Add the input to the output.
    """

    @placeable
    def __init__(
        self,
        channels: int,
        rd_ratio: float = 1 / 16,
        rd_channels: int | None = None,
        rd_divisor: int = 8,
        se_factor: float = 2 / 3,
        bias: bool = False,
        act_layer: Callable[..., nn.Module] = nn.Hardswish,
        norm_layer: Norm = nn.BatchNorm2d,
        gate_layer: ActLayer = "sigmoid",
        has_skip: bool = False,
    ) -> None:
        super().__init__(gate_layer, has_skip)
        hidden = _width(channels, rd_ratio, rd_channels, rd_divisor, se_factor)
        self.conv1 = nn.Conv2d(channels, hidden, 1, bias=bias)
        self.bn1 = norm_layer(hidden) if norm_layer is not None else nn.Identity()
        self.act = act_layer()
        self.conv_h, self.conv_w = (nn.Conv2d(hidden, channels, 1, bias=bias) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = _strips(x)
        both = self.act(self.bn1(self.conv1(torch.cat((rows, columns.transpose(2, 3)), dim=2))))
        rows, columns = both.split(list(x.shape[2:]), dim=2)
        return self.finish(x, self.gate(self.conv_w(columns.transpose(2, 3))), self.gate(self.conv_h(rows)))


class SimpleCoordAttn(_StripAttn):
    """`CoordAttn` without a norm, by linear layers, and with one gate of the sum; keys `fc1`, `fc_h`, `fc_w`."""

    @placeable
    def __init__(
        self,
        channels: int,
        rd_ratio: float = 0.25,
        rd_channels: int | None = None,
        rd_divisor: int = 8,
        se_factor: float = 2 / 3,
        bias: bool = True,
        act_layer: Callable[..., nn.Module] = nn.SiLU,
        gate_layer: ActLayer = "sigmoid",
        has_skip: bool = False,
    ) -> None:
        super().__init__(gate_layer, has_skip)
        hidden = _width(channels, rd_ratio, rd_channels, rd_divisor, se_factor)
        self.fc1 = nn.Linear(channels, hidden, bias=bias)
        self.act = act_layer()
        self.fc_h, self.fc_w = (nn.Linear(hidden, channels, bias=bias) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (self.act(self.fc1(x.mean(dim).transpose(1, 2))) for dim in (3, 2))
        rows, columns = self.fc_h(rows).transpose(1, 2), self.fc_w(columns).transpose(1, 2)
        return self.finish(x, self.gate(rows.unsqueeze(3) + columns.unsqueeze(2)))


def _along(channels: int, kernel_size: int, bias: bool) -> tuple[nn.Conv2d, nn.Conv2d]:
    """Depthwise convolutions along rows' and along columns' means."""
    side = kernel_size // 2
    return (nn.Conv2d(channels, channels, (kernel_size, 1), padding=(side, 0), groups=channels, bias=bias),
            nn.Conv2d(channels, channels, (1, kernel_size), padding=(0, side), groups=channels, bias=bias))


class EfficientLocalAttn(_StripAttn):
    """Strips through depthwise convolutions; keys `conv_h`, `conv_w`, `norm_h`, `norm_w`.

    Shapes: (B, C, H, W) -> same.
    Source: Xu and Wan, "ELA: Efficient Local Attention for Deep Convolutional Neural Networks", 2024.

    Args:
        channels: Channels.
        kernel_size: Taps of the convolutions.
        bias: Whether they have biases.
        act_layer, norm_layer: Behind them.
        gate_layer: Activation that makes the gates.
        has_skip: Add the input to the output.
    """

    @placeable
    def __init__(
        self,
        channels: int,
        kernel_size: int = 7,
        bias: bool = False,
        act_layer: Callable[..., nn.Module] = nn.SiLU,
        gate_layer: ActLayer = "sigmoid",
        norm_layer: Norm = GroupNorm1,
        has_skip: bool = False,
    ) -> None:
        super().__init__(gate_layer, has_skip)
        self.conv_h, self.conv_w = _along(channels, kernel_size, bias)
        self.norm_h, self.norm_w = (
            norm_layer(channels) if norm_layer is not None else nn.Identity() for _ in range(2))
        self.act = act_layer()

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = _strips(x)
        rows, columns = self.act(self.norm_h(self.conv_h(rows))), self.act(self.norm_w(self.conv_w(columns)))
        return self.finish(x, self.gate(rows), self.gate(columns))


class StripAttn(_StripAttn):
    """A gate of the sum of row's and column's mean, refined by depthwise convolutions; keys `conv_h`, `conv_w`.

    Shapes: (B, C, H, W) -> same. Arguments as `EfficientLocalAttn`, others are ignored; without `use_conv` there is no
    parameter.
    """

    @placeable
    def __init__(
        self,
        channels: int,
        use_conv: bool = True,
        kernel_size: int = 3,
        bias: bool = False,
        gate_layer: ActLayer = "sigmoid",
        has_skip: bool = False,
        **_: Any,
    ) -> None:
        super().__init__(gate_layer, has_skip)
        self.use_conv = use_conv
        self.conv_h: nn.Module
        self.conv_w: nn.Module
        self.conv_h, self.conv_w = _along(channels, kernel_size, bias) if use_conv else (nn.Identity(), nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = _strips(x)
        return self.finish(x, self.gate(self.conv_h(rows) + self.conv_w(columns)))


ATTN_LAYERS.update(coord=CoordAttn, scoord=SimpleCoordAttn, ela=EfficientLocalAttn, strip=StripAttn)
