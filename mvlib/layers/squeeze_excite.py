"""Channel attention from a global squeeze: the mobile families' squeeze-and-excitation, and global context."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from .activations import ActLayer, get_act_layer
from .helpers import make_divisible
from .norm import LayerNorm2d

__all__ = ["GlobalContext", "SqueezeExcite"]


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation as EfficientNet and MobileNet have it; keys `conv_reduce`, `conv_expand`.

    The squeezed width is given, or `rd_ratio` times the input's; unlike in SE-ResNets it is no multiple of 8.
    Shapes: (B, C, H, W) -> same.
    Source: Hu et al., "Squeeze-and-Excitation Networks", 2018; widths as in the TensorFlow code of MnasNet.

    Args:
        in_chs: Channels.
        rd_ratio: Squeezed channels per channel.
        rd_channels: Squeezed channels.
        act_layer: Activation of the block, used after the squeeze.
        gate_layer: Activation that makes the gate.
        force_act_layer: Used instead of the block's activation.
        rd_round_fn: How the squeezed width is rounded; to the nearest integer unless given.
    """

    def __init__(
        self,
        in_chs: int,
        rd_ratio: float = 0.25,
        rd_channels: int | None = None,
        act_layer: ActLayer = nn.ReLU,
        gate_layer: ActLayer = nn.Sigmoid,
        force_act_layer: ActLayer = None,
        rd_round_fn: Callable[[float], int] | None = None,
    ) -> None:
        super().__init__()
        rd_channels = (rd_round_fn or round)(in_chs * rd_ratio) if rd_channels is None else rd_channels
        self.conv_reduce = nn.Conv2d(in_chs, rd_channels, 1)
        self.act1 = get_act_layer(force_act_layer or act_layer)(inplace=True)
        self.conv_expand = nn.Conv2d(rd_channels, in_chs, 1)
        self.gate = get_act_layer(gate_layer)()

    def forward(self, x: Tensor) -> Tensor:
        squeezed = x.mean((2, 3), keepdim=True)
        return x * self.gate(self.conv_expand(self.act1(self.conv_reduce(squeezed))))


class _ContextMlp(nn.Module):
    """The bottleneck of `GlobalContext`: two 1x1 convolutions around layer norm and activation."""

    def __init__(self, channels: int, hidden: int, act_layer: ActLayer) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.norm = LayerNorm2d(hidden)
        self.act = get_act_layer(act_layer)()
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.norm(self.fc1(x))))


class GlobalContext(nn.Module):
    """Channel attention from an attention-weighted mean over positions; keys `conv_attn`, `mlp_scale`, `mlp_add`.

    Shapes: (B, C, H, W) -> same.
    Source: Cao et al., "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond", 2019.

    Args:
        channels: Channels.
        use_attn: Weight the positions; otherwise take the plain mean.
        fuse_add: Add a projection of the context to the input.
        fuse_scale: Scale the input's channels by a gate from the context.
        rd_ratio: Squeezed channels per channel.
        rd_channels: Squeezed channels.
        rd_divisor: The squeezed width is rounded to a multiple of it.
        act_layer: Activation after the squeeze.
        gate_layer: Activation that makes the gate.
    """

    def __init__(
        self,
        channels: int,
        use_attn: bool = True,
        fuse_add: bool = False,
        fuse_scale: bool = True,
        rd_ratio: float = 1 / 8,
        rd_channels: int | None = None,
        rd_divisor: int = 1,
        act_layer: ActLayer = nn.ReLU,
        gate_layer: ActLayer = "sigmoid",
    ) -> None:
        super().__init__()
        hidden = rd_channels or make_divisible(channels * rd_ratio, rd_divisor, round_limit=0.0)
        self.conv_attn = nn.Conv2d(channels, 1, 1) if use_attn else None
        self.mlp_scale = _ContextMlp(channels, hidden, act_layer) if fuse_scale else None
        self.mlp_add = _ContextMlp(channels, hidden, act_layer) if fuse_add else None
        self.gate = get_act_layer(gate_layer)()

    def forward(self, x: Tensor) -> Tensor:
        if self.conv_attn is None:
            context = x.mean((2, 3), keepdim=True)
        else:
            weights = F.softmax(self.conv_attn(x).flatten(2), dim=-1)  # (B, 1, H * W)
            context = (x.flatten(2).unsqueeze(1) @ weights.unsqueeze(-1)).transpose(1, 2)
        if self.mlp_scale is not None:
            x = x * self.gate(self.mlp_scale(context))
        if self.mlp_add is not None:
            x = x + self.mlp_add(context)
        return x
