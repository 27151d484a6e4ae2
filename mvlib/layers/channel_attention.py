"""Channel attention of residual networks: a gate for each channel, computed from the channels' means."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from .activations import ActLayer, get_act_layer
from .helpers import check_layer, make_divisible
from .norm import NormLayer, get_norm_layer
from .squeeze_excite import GlobalContext

__all__ = ["AttnLayer", "CecaModule", "EcaModule", "EffectiveSEModule", "SEModule", "create_attn", "get_attn"]

AttnLayer = str | bool | Callable[..., nn.Module] | None


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
        self.act = get_act_layer(act_layer)(inplace=True)
        self.fc2 = nn.Conv2d(hidden, channels, 1, bias=bias)
        self.gate = get_act_layer(gate_layer)()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.act(self.bn(self.fc1(_squeeze(x, self.add_maxpool))))
        return x * self.gate(self.fc2(hidden))


class EffectiveSEModule(nn.Module):
    """Squeeze-and-excitation with one projection that keeps the width; key `fc`.

    Shapes: (B, C, H, W) -> same.
    Source: Lee and Park, "CenterMask: Real-Time Anchor-Free Instance Segmentation", 2020.

    Args:
        channels: Channels.
        add_maxpool: Squeeze to the mean of average and maximum instead of the average.
        gate_layer: Activation that makes the gate.
    """

    def __init__(self, channels: int, add_maxpool: bool = False, gate_layer: ActLayer = "hard_sigmoid") -> None:
        super().__init__()
        self.add_maxpool = add_maxpool
        self.fc = nn.Conv2d(channels, channels, 1)
        self.gate = get_act_layer(gate_layer)()

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
        gate_layer: Activation that makes the gate.

    Raises:
        ValueError: The kernel size is even.
    """

    padding_mode = "zeros"

    def __init__(
        self,
        channels: int | None = None,
        kernel_size: int = 3,
        gamma: float = 2,
        beta: float = 1,
        gate_layer: ActLayer = "sigmoid",
    ) -> None:
        super().__init__()
        if channels is not None:
            taps = int(abs(math.log2(channels) + beta) / gamma)
            kernel_size = max(taps + 1 - taps % 2, 3)
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, to have a centre; it is {kernel_size}")
        self.conv = nn.Conv1d(1, 1, kernel_size, padding=kernel_size // 2, padding_mode=self.padding_mode, bias=False)
        self.gate = get_act_layer(gate_layer)()

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3)).unsqueeze(1)  # (B, 1, C): the channels are the convolution's positions
        gates = self.gate(self.conv(means))
        return x * gates.squeeze(1)[:, :, None, None]


class CecaModule(EcaModule):
    """`EcaModule` in which the first channel and the last are neighbours."""

    padding_mode = "circular"


_ATTN_LAYERS: dict[str, Callable[..., nn.Module]] = {
    "se": SEModule,
    "ese": EffectiveSEModule,
    "eca": EcaModule,
    "ceca": CecaModule,
    "gc": GlobalContext,
    "gca": partial(GlobalContext, fuse_add=True, fuse_scale=False),
}


def get_attn(attn_layer: AttnLayer) -> Callable[..., nn.Module] | None:
    """The attention class for a name ("se", "eca", ...); True means "se", a class or partial is returned as it is.

    Raises:
        ValueError: The name is unknown; the message lists those that are known. Or it can make no layer.
    """
    if not attn_layer:
        return None
    if attn_layer is True:
        return SEModule
    if not isinstance(attn_layer, str):
        return check_layer(attn_layer, "attention layer")
    if attn_layer.lower() not in _ATTN_LAYERS:
        raise ValueError(f"unknown attention layer '{attn_layer}'; known: {', '.join(sorted(_ATTN_LAYERS))}")
    return _ATTN_LAYERS[attn_layer.lower()]


def create_attn(attn_layer: AttnLayer, channels: int) -> nn.Module:
    """The attention that `get_attn` finds, for `channels`; an identity where there is none."""
    attn = get_attn(attn_layer)
    return attn(channels) if attn is not None else nn.Identity()
