"""Branches that become one convolution for inference: the protocol, and RepVGG's block.

A module with branches has a method `reparameterize()`, which merges them in place and returns the module that takes its
place (as a rule itself), or None for itself. Whoever wants a model without branches calls the function of that name.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .activations import ActLayer, get_act_layer
from .conv import ConvNormAct

__all__ = ["RepVggBlock", "norm_as_scale_and_shift", "reparameterize"]


def reparameterize(model: nn.Module) -> int:
    """Merge, in place, the branches of every module within that offers it; the outputs stay.

    Modules of other libraries that name the method `fuse` or `switch_to_deploy` are asked by that name.

    Returns:
        How many modules had branches.
    """
    count = 0
    for name, child in list(model.named_children()):
        method = next((found for key in ("reparameterize", "fuse", "switch_to_deploy")
                       if callable(found := getattr(child, key, None))), None)
        if method is None:
            count += reparameterize(child)
            continue
        if getattr(child, "is_reparameterized", False):
            continue
        merged = method()
        if isinstance(merged, nn.Module) and merged is not child:
            model._modules[name] = merged
        count += 1
    return count


def norm_as_scale_and_shift(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """What a batch norm does in evaluation: x * scale + shift, a number per channel each."""
    scale = torch.rsqrt(norm.running_var + norm.eps) * (1 if norm.weight is None else norm.weight)
    return scale, (0 if norm.bias is None else norm.bias) - norm.running_mean * scale


class RepVggBlock(nn.Module):
    """The sum of a k x k convolution, a 1 x 1 convolution and the input, each with its batch norm; then an activation.

    `reparameterize()` merges the three. Shapes: (B, C, H, W) -> (B, C', H', W'). Keys `identity` (where shapes allow),
    `conv_kxk`, `conv_1x1`; `reparam_conv` once merged. Source: Ding et al., "RepVGG: Making VGG-style ConvNets Great
    Again", 2021.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        act_layer: ActLayer = nn.ReLU,
    ) -> None:
        super().__init__()
        keeps_shape = in_channels == out_channels and stride == 1
        same = dict(stride=stride, groups=groups, apply_act=False)
        self.identity = nn.BatchNorm2d(out_channels) if keeps_shape else None
        self.conv_kxk = ConvNormAct(in_channels, out_channels, kernel_size, dilation=dilation, **same)
        self.conv_1x1 = ConvNormAct(in_channels, out_channels, 1, **same)
        self.act = get_act_layer(act_layer)()
        self.reparam_conv: nn.Conv2d | None = None

    @property
    def is_reparameterized(self) -> bool:
        return self.reparam_conv is not None

    def forward(self, x: Tensor) -> Tensor:
        if self.reparam_conv is not None:
            return self.act(self.reparam_conv(x))
        total = self.conv_kxk(x) + self.conv_1x1(x)
        return self.act(total if self.identity is None else total + self.identity(x))

    @torch.no_grad()
    def reparameterize(self) -> RepVggBlock:
        """Merge the branches, in place; running statistics are taken as they are. Returns the block."""
        if self.reparam_conv is not None:
            return self
        main = self.conv_kxk.conv
        weight, bias = _merged(main.weight, self.conv_kxk.bn)
        kernels = [(self.conv_1x1.conv.weight, self.conv_1x1.bn)]
        if self.identity is not None:
            kernels.append((_identity_kernel(main), self.identity))
        for kernel, norm in kernels:
            scaled, shift = _merged(kernel, norm)
            weight, bias = weight + F.pad(scaled, _rim(main.kernel_size)), bias + shift
        merged = nn.Conv2d(main.in_channels, main.out_channels, main.kernel_size, main.stride, main.padding,
                           main.dilation, main.groups, device="meta")
        merged.weight, merged.bias = nn.Parameter(weight, requires_grad=False), nn.Parameter(bias, requires_grad=False)
        self.reparam_conv = merged.train(self.training)
        self.identity = self.conv_kxk = self.conv_1x1 = None
        return self


def _merged(weight: Tensor, norm: nn.Module) -> tuple[Tensor, Tensor]:
    scale, shift = norm_as_scale_and_shift(norm)
    return weight * scale.view(-1, 1, 1, 1), shift


def _identity_kernel(conv: nn.Conv2d) -> Tensor:
    """The 1 x 1 kernel that gives its input, for the groups of `conv`."""
    width = conv.in_channels // conv.groups
    return torch.eye(width).repeat(conv.groups, 1).view(-1, width, 1, 1).to(conv.weight)


def _rim(kernel_size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Zeros around a 1 x 1 kernel (left, right, above, below) that make it so large."""
    height, width = kernel_size
    return width // 2, width // 2, height // 2, height // 2
