"""Convolutions whose kernels are standardised in each pass: mean 0, variance 1 over the weights of each kernel.

They stand where a network has no batch norm. Weights do not change in inference: `reparameterize()` makes a plain
convolution of the standardised ones.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .conv import Conv2dSame
from .helpers import placeable
from .padding import IntPair, Padding, pad_same, resolve_padding

__all__ = ["ScaledStdConv2d", "ScaledStdConv2dSame", "StdConv2d", "StdConv2dSame"]


class StdConv2d(nn.Conv2d):
    """Convolution with standardised kernels; keys as `nn.Conv2d`. Shapes: (B, C, H, W) -> (B, C', H', W').

    Source: Qiao et al., "Micro-Batch Training with Batch-Channel Normalization and Weight Standardization", 2019.

    Args:
        padding: See `resolve_padding`; None for the class's default, which is symmetric.
        eps: Added to a kernel's variance.
    """

    default_padding: ClassVar[str] = ""

    @placeable
    def __init__(
        self,
        in_channel: int,
        out_channels: int,
        kernel_size: IntPair,
        stride: IntPair = 1,
        padding: Padding | None = None,
        dilation: IntPair = 1,
        groups: int = 1,
        bias: bool = False,
        eps: float = 1e-6,
    ) -> None:
        padding = self.default_padding if padding is None else padding
        amount, same_pad = resolve_padding(padding, kernel_size, stride, dilation)
        super().__init__(in_channel, out_channels, kernel_size, stride, amount, dilation, groups, bias)
        self.same_pad = same_pad
        self.eps = eps

    def kernel_scale(self) -> Tensor | None:
        """What each standardised kernel is multiplied by (C',), if anything."""
        return None

    def standardised(self) -> Tensor:
        """The kernels that the convolution is done with."""
        # torch's group norm is several times as fast as its batch norm and layer norm, which would do, too.
        kernels = F.group_norm(self.weight.reshape(1, self.out_channels, -1), self.out_channels, self.kernel_scale(),
                               eps=self.eps)
        return kernels.reshape(self.weight.shape)

    def forward(self, x: Tensor) -> Tensor:
        if self.same_pad:
            x = pad_same(x, self.kernel_size, self.stride, self.dilation)
        return F.conv2d(x, self.standardised(), self.bias, self.stride, self.padding, self.dilation, self.groups)

    @torch.no_grad()
    def reparameterize(self) -> nn.Conv2d:
        """A plain convolution with the kernels as they are now."""
        conv = (Conv2dSame if self.same_pad else nn.Conv2d)(
            self.in_channels, self.out_channels, self.kernel_size, self.stride, self.padding, self.dilation,
            self.groups, device="meta")
        conv.weight, conv.bias = nn.Parameter(self.standardised(), requires_grad=False), self.bias
        return conv.train(self.training)


class StdConv2dSame(StdConv2d):
    """`StdConv2d` with TensorFlow's "same" padding, unless another is given."""

    default_padding = "same"


class ScaledStdConv2d(StdConv2d):
    """`StdConv2d` whose standardised kernels are scaled to keep the variance of what passes; its own key is `gain`.

    Source: Brock et al., "Characterizing signal propagation to close the performance gap in unnormalized ResNets",
    2021.

    Args:
        gamma: What the activation before it takes from the standard deviation of its input.
        gain_init: Initial value of each kernel's learned scale.
    """

    @placeable
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair,
        stride: IntPair = 1,
        padding: Padding | None = None,
        dilation: IntPair = 1,
        groups: int = 1,
        bias: bool = True,
        gamma: float = 1.0,
        eps: float = 1e-6,
        gain_init: float = 1.0,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, eps)
        self.scale = gamma / math.sqrt(in_channels // groups * math.prod(self.kernel_size))
        self.gain_init = gain_init
        self.gain = nn.Parameter(torch.full((out_channels, 1, 1, 1), gain_init))

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if "gain" in self._parameters:  # torch's constructor asks before there is one
            nn.init.constant_(self.gain, self.gain_init)

    def kernel_scale(self) -> Tensor:
        return (self.gain * self.scale).flatten()


class ScaledStdConv2dSame(ScaledStdConv2d):
    """`ScaledStdConv2d` with TensorFlow's "same" padding, unless another is given."""

    default_padding = "same"
