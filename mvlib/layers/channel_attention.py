"""Channel attention of residual networks: a gate for each channel, computed from the channels' means."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .activations import ActLayer, create_act_layer
from .helpers import check_layer, make_divisible, placeable
from .mlp import ConvMlp
from .norm import LayerNorm2d, NormLayer, get_norm_layer

__all__ = [
    "ATTN_LAYERS", "AttnLayer", "CecaModule", "CircularEfficientChannelAttn", "EcaModule", "EffectiveSEModule",
    "EffectiveSqueezeExcite", "EfficientChannelAttn", "GlobalContext", "SEModule", "SqueezeExcite", "SqueezeExciteCl",
    "create_attn", "get_attn",
]

AttnLayer = str | bool | Callable[..., nn.Module] | None


def _act(act_layer: ActLayer, inplace: bool | None = None) -> nn.Module:
    act = create_act_layer(act_layer, inplace)
    return nn.Identity() if act is None else act


class SEModule(nn.Module):
    """Squeeze-and-excitation as SE-ResNets have it; keys `fc1`, `bn` (where there is a norm), `fc2`.

    Shapes: (B, C, H, W) -> same.
    Source: Hu et al., "Squeeze-and-Excitation Networks", 2018.

    Args:
        channels: Channels.
        rd_ratio: Squeezed channels per channel.
        rd_channels: Squeezed channels; decides instead of `rd_ratio`.
        rd_divisor: The squeezed width is rounded to a multiple of it.
        add_maxpool: Squeeze to the mean of average and maximum instead of the average.
        bias: Whether the two projections have biases.
        act_layer: Activation after the squeeze.
        norm_layer: Norm before that activation.
        gate_layer: Activation that makes the gate.
    """

    @placeable
    def __init__(
        self,
        channels: int,
        rd_ratio: float = 1 / 16,
        rd_channels: int | None = None,
        rd_divisor: int = 8,
        add_maxpool: bool = False,
        bias: bool = True,
        act_layer: ActLayer = nn.ReLU,
        norm_layer: NormLayer = None,
        gate_layer: ActLayer = "sigmoid",
    ) -> None:
        super().__init__()
        hidden = rd_channels or make_divisible(channels * rd_ratio, rd_divisor, round_limit=0.0)
        norm = get_norm_layer(norm_layer) or nn.Identity
        self.add_maxpool = add_maxpool
        self.fc1 = nn.Conv2d(channels, hidden, 1, bias=bias)
        self.bn = norm(hidden)
        self.act = _act(act_layer, inplace=True)
        self.fc2 = nn.Conv2d(hidden, channels, 1, bias=bias)
        self.gate = _act(gate_layer)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.act(self.bn(self.fc1(_squeeze(x, self.add_maxpool))))
        return x * self.gate(self.fc2(hidden))


class SqueezeExciteCl(nn.Module):
    """`SEModule` for channels that come last; keys `fc1`, `fc2`. Shapes: (B, H, W, C) -> same; arguments as there."""

    @placeable
    def __init__(
        self,
        channels: int,
        rd_ratio: float = 1 / 16,
        rd_channels: int | None = None,
        rd_divisor: int = 8,
        bias: bool = True,
        act_layer: ActLayer = nn.ReLU,
        gate_layer: ActLayer = "sigmoid",
    ) -> None:
        super().__init__()
        hidden = rd_channels or make_divisible(channels * rd_ratio, rd_divisor, round_limit=0.0)
        self.fc1 = nn.Linear(channels, hidden, bias=bias)
        self.act = _act(act_layer, inplace=True)
        self.fc2 = nn.Linear(hidden, channels, bias=bias)
        self.gate = _act(gate_layer)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.fc2(self.act(self.fc1(x.mean((1, 2), keepdim=True)))))


class EffectiveSEModule(nn.Module):
    """Squeeze-and-excitation with one projection that keeps the width; key `fc`.

    Shapes: (B, C, H, W) -> same.
    Source: Lee and Park, "CenterMask: Real-Time Anchor-Free Instance Segmentation", 2020.

    Args:
        channels: Channels.
        add_maxpool: Squeeze to the mean of average and maximum instead of the average.
        gate_layer: Activation that makes the gate.
    """

    @placeable
    def __init__(self, channels: int, add_maxpool: bool = False, gate_layer: ActLayer = "hard_sigmoid") -> None:
        super().__init__()
        self.add_maxpool = add_maxpool
        self.fc = nn.Conv2d(channels, channels, 1)
        self.gate = _act(gate_layer)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.fc(_squeeze(x, self.add_maxpool)))


def _squeeze(x: Tensor, add_maxpool: bool) -> Tensor:
    mean = x.mean((2, 3), keepdim=True)
    return 0.5 * mean + 0.5 * x.amax((2, 3), keepdim=True) if add_maxpool else mean


class EcaModule(nn.Module):
    """Efficient channel attention: a gate from each channel's neighbours in order of index; key `conv`.

    The neighbourhood grows with the logarithm of the width: `conv` has (log2(C) + beta) / gamma taps, made odd and at
    least 3.
    Shapes: (B, C, H, W) -> same.
    Source: Wang et al., "ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks", 2020.

    Args:
        channels: Channels; None to take `kernel_size`.
        kernel_size: Taps where `channels` is None; odd.
        gamma, beta: How the taps grow with the width.
        act_layer: Activation between the two convolutions of `use_mlp`.
        gate_layer: Activation that makes the gate.
        rd_ratio, rd_channels, rd_divisor: Width between those two.
        use_mlp: Two convolutions, the first with one tap; key `conv2` for the second.

    Raises:
        ValueError: The kernel size is even.
    """

    padding_mode = "zeros"

    @placeable
    def __init__(
        self,
        channels: int | None = None,
        kernel_size: int = 3,
        gamma: float = 2,
        beta: float = 1,
        act_layer: ActLayer = None,
        gate_layer: ActLayer = "sigmoid",
        rd_ratio: float = 1 / 8,
        rd_channels: int | None = None,
        rd_divisor: int = 8,
        use_mlp: bool = False,
    ) -> None:
        super().__init__()
        if channels is not None:
            taps = int(abs(math.log2(channels) + beta) / gamma)
            kernel_size = max(taps + 1 - taps % 2, 3)
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, to have a centre; it is {kernel_size}")
        conv = partial(nn.Conv1d, kernel_size=kernel_size, padding=kernel_size // 2, padding_mode=self.padding_mode)
        self.act = self.conv2 = None
        if use_mlp:
            hidden = rd_channels or make_divisible(channels * rd_ratio, rd_divisor)
            self.conv = nn.Conv1d(1, hidden, 1)
            self.act = _act(act_layer or nn.ReLU)
            self.conv2 = conv(hidden, 1)
        else:
            self.conv = conv(1, 1, bias=self.padding_mode == "circular" and act_layer is not None)  # timm's rule
        self.gate = _act(gate_layer)

    def forward(self, x: Tensor) -> Tensor:
        gates = self.conv(x.mean((2, 3)).unsqueeze(1))  # (B, 1, C): the channels are the convolution's positions
        if self.conv2 is not None:
            gates = self.conv2(self.act(gates))
        gates = self.gate(gates)
        return x * gates.squeeze(1)[:, :, None, None]


class CecaModule(EcaModule):
    """`EcaModule` in which the first channel and the last are neighbours."""

    padding_mode = "circular"


class GlobalContext(nn.Module):
    """Channel attention from an attention-weighted mean over positions; keys `conv_attn`, `mlp_scale`, `mlp_add`.

    Shapes: (B, C, H, W) -> same.
    Source: Cao et al., "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond", 2019.

    Args:
        channels: Channels.
        use_attn: Weight the positions; otherwise take the plain mean.
        fuse_add: Add a projection of the context to the input.
        fuse_scale: Scale the input's channels by a gate from the context.
        init_last_zero: Without effect, as in timm: the projection that is added begins with zeros anyway.
        rd_ratio: Squeezed channels per channel.
        rd_channels: Squeezed channels.
        rd_divisor: The squeezed width is rounded to a multiple of it.
        act_layer: Activation after the squeeze.
        gate_layer: Activation that makes the gate.
    """

    @placeable
    def __init__(
        self,
        channels: int,
        use_attn: bool = True,
        fuse_add: bool = False,
        fuse_scale: bool = True,
        init_last_zero: bool = False,
        rd_ratio: float = 1 / 8,
        rd_channels: int | None = None,
        rd_divisor: int = 1,
        act_layer: ActLayer = nn.ReLU,
        gate_layer: ActLayer = "sigmoid",
    ) -> None:
        super().__init__()
        hidden = rd_channels or make_divisible(channels * rd_ratio, rd_divisor, round_limit=0.0)
        self.conv_attn = nn.Conv2d(channels, 1, 1) if use_attn else None
        mlp = partial(ConvMlp, channels, hidden, act_layer=act_layer, norm_layer=LayerNorm2d)
        self.mlp_add = mlp() if fuse_add else None
        self.mlp_scale = mlp() if fuse_scale else None
        self.gate = _act(gate_layer)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.conv_attn is not None:
            nn.init.kaiming_normal_(self.conv_attn.weight, nonlinearity="relu")
        if self.mlp_add is not None:
            nn.init.zeros_(self.mlp_add.fc2.weight)

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


# timm's other names
SqueezeExcite, EffectiveSqueezeExcite = SEModule, EffectiveSEModule
EfficientChannelAttn, CircularEfficientChannelAttn = EcaModule, CecaModule

# An open table: families and users add theirs, whose first argument is the channels.
ATTN_LAYERS: dict[str, Callable[..., nn.Module]] = {
    "se": SEModule,
    "ese": EffectiveSEModule,
    "eca": EcaModule,
    "ecam": partial(EcaModule, use_mlp=True),
    "ceca": CecaModule,
    "gc": GlobalContext,
    "gca": partial(GlobalContext, fuse_add=True, fuse_scale=False),
}


def get_attn(attn_type: AttnLayer) -> Callable[..., nn.Module] | None:
    """The attention class for a name ("se", "eca", ...); True means "se", a class or partial is returned as it is.

    Raises:
        ValueError: The name is unknown; the message lists those that are known. Or it can make no layer.
    """
    if not attn_type:
        return None
    if attn_type is True:
        return SEModule
    if not isinstance(attn_type, str):
        return check_layer(attn_type, "attention layer")
    if attn_type.lower() not in ATTN_LAYERS:
        raise ValueError(f"unknown attention layer '{attn_type}'; known: {', '.join(sorted(ATTN_LAYERS))}")
    return ATTN_LAYERS[attn_type.lower()]


def create_attn(attn_type: AttnLayer, channels: int, **kwargs: Any) -> nn.Module | None:
    """The attention that `get_attn` finds, for `channels`; `kwargs` are its further arguments. None for none."""
    attn = get_attn(attn_type)
    return None if attn is None else attn(channels, **kwargs)
