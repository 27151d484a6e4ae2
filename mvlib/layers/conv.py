"""Convolutions of the mobile families: TensorFlow's padding, mixed kernels, conditional kernels, conv-norm-act."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .activations import ActLayer
from .blur_pool import AaLayer, create_aa
from .helpers import is_recording, placeable, to_2tuple
from .norm import NormLayer, get_norm_act_layer
from .padding import IntPair, Padding, pad_same, resolve_padding

__all__ = [
    "CondConv2d", "Conv2dSame", "ConvBnAct", "ConvNormAct", "KernelSize", "MixedConv2d", "SeparableConv2d",
    "SeparableConvNormAct", "conv2d_same", "conv_norm", "create_conv2d", "create_conv2d_pad",
    "get_condconv_initializer", "num_groups",
]

KernelSize = int | tuple[int, int] | list[int]  # a list is one kernel size for each group of channels


class Conv2dSame(nn.Conv2d):
    """Convolution with TensorFlow's "same" padding, for strides and kernels where that depends on the input's size.

    Shapes: (B, C, H, W) -> (B, C', ceil(H / stride), ceil(W / stride)).
    """

    def forward(self, x: Tensor) -> Tensor:
        x = pad_same(x, self.kernel_size, self.stride, self.dilation)  # a traced weight's shape would be no numbers
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def conv2d_same(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, ...] = (1, 1),
    padding: int | tuple[int, ...] = (0, 0),
    dilation: int | tuple[int, ...] = (1, 1),
    groups: int = 1,
) -> Tensor:
    """What `Conv2dSame` does; `padding` is without effect."""
    x = pad_same(x, weight.shape[-2:], stride, dilation)
    return F.conv2d(x, weight, bias, stride, 0, dilation, groups)


class MixedConv2d(nn.ModuleDict):
    """Convolution whose channels are split into groups with kernels of different sizes; keys `0`, `1`, ...

    Shapes: (B, C, H, W) -> (B, C', H', W'). Both channel counts are split evenly, the rest goes to the first group.
    Source: Tan and Le, "MixConv: Mixed Depthwise Convolutional Kernels", 2019.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | list[int] = 3,
        stride: IntPair = 1,
        padding: Padding = "",
        dilation: IntPair = 1,
        depthwise: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        kernel_size = kernel_size if isinstance(kernel_size, list) else [kernel_size]
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.splits = _split_evenly(in_channels, len(kernel_size))
        for i, (kernel, ins, outs) in enumerate(
            zip(kernel_size, self.splits, _split_evenly(out_channels, len(kernel_size)))
        ):
            self[str(i)] = create_conv2d(ins, outs, kernel, stride=stride, padding=padding, dilation=dilation,
                                         groups=ins if depthwise else 1, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.split(x, self.splits, dim=1)
        return torch.cat([conv(parts[i]) for i, conv in enumerate(self.values())], dim=1)


def _split_evenly(total: int, count: int) -> list[int]:
    share = total // count
    return [total - share * (count - 1)] + [share] * (count - 1)


class CondConv2d(nn.Module):
    """Convolution whose kernel is, for each image, a weighted sum of expert kernels.

    Shapes: x (B, C, H, W), routing_weights (B, num_experts) -> (B, C', H', W'); the key `weight` holds the flattened
    kernels (num_experts, C' * C / groups * kh * kw), `bias` (num_experts, C').
    Source: Yang et al., "CondConv: Conditionally Parameterized Convolutions for Efficient Inference", 2019.
    """

    @placeable
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair = 3,
        stride: IntPair = 1,
        padding: Padding = "",
        dilation: IntPair = 1,
        groups: int = 1,
        bias: bool = False,
        num_experts: int = 4,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = to_2tuple(kernel_size)
        self.stride = to_2tuple(stride)
        self.dilation = to_2tuple(dilation)
        self.padding, self.pads_input = resolve_padding(padding, kernel_size, stride, dilation)
        self.groups = groups
        self.num_experts = num_experts
        self.expert_shape = (out_channels, in_channels // groups, *self.kernel_size)
        self.weight = nn.Parameter(torch.empty(num_experts, math.prod(self.expert_shape)))
        self.bias = nn.Parameter(torch.empty(num_experts, out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        bound = 1 / math.sqrt(math.prod(self.expert_shape[1:]))
        self.init_experts(lambda kernel: nn.init.kaiming_uniform_(kernel, a=math.sqrt(5)))
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def init_experts(self, init: Callable[[Tensor], object]) -> None:
        """Apply an in-place initialiser to each expert's kernel, seen in its own shape (C', C / groups, kh, kw)."""
        with torch.no_grad():
            for expert in self.weight:
                init(expert.view(self.expert_shape))

    def forward(self, x: Tensor, routing_weights: Tensor) -> Tensor:
        if self.pads_input:
            x = pad_same(x, self.kernel_size, self.stride, self.dilation)
        kernels = routing_weights @ self.weight
        bias = routing_weights @ self.bias if self.bias is not None else None
        if is_recording():  # a convolution's groups are written down as a number
            x = self._multiply_patches(x, kernels)
            return x if bias is None else x + bias[:, :, None, None]
        batch, chans, height, width = x.shape
        # The batch becomes groups of one image, so that every image meets its own kernel.
        x = x.reshape(1, batch * chans, height, width)
        kernels = kernels.reshape(batch * self.out_channels, *self.expert_shape[1:])
        bias = None if bias is None else bias.reshape(-1)
        x = F.conv2d(x, kernels, bias, self.stride, self.padding, self.dilation, self.groups * batch)
        return x.reshape(batch, self.out_channels, x.shape[-2], x.shape[-1])

    def _multiply_patches(self, x: Tensor, kernels: Tensor) -> Tensor:
        """The convolution as a product with each patch: x (B, C, H, W), kernels (B, C' * C / groups * kh * kw)."""
        side = self.kernel_size[0]
        rows = (x.shape[2] + 2 * self.padding[0] - self.dilation[0] * (side - 1) - 1) // self.stride[0] + 1
        patches = F.unfold(x, self.kernel_size, self.dilation, self.padding, self.stride)
        patches = patches.unflatten(1, (self.groups, -1))  # (B, groups, C / groups * kh * kw, H' * W')
        kernels = kernels.unflatten(1, (self.groups, self.out_channels // self.groups, -1))
        return (kernels @ patches).flatten(1, 2).unflatten(2, (rows, -1))

    def extra_repr(self) -> str:
        return (f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
                f"groups={self.groups}, num_experts={self.num_experts}")


def create_conv2d(
    in_channels: int,
    out_channels: int,
    kernel_size: KernelSize,
    stride: IntPair = 1,
    padding: Padding = "",
    dilation: IntPair = 1,
    groups: int = 1,
    bias: bool = False,
    depthwise: bool = False,
    num_experts: int = 0,
    **kwargs: Any,
) -> nn.Module:
    """The convolution that the arguments ask for: plain, TensorFlow-padded, mixed or conditional.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: One size, (height, width), or a list of sizes for groups of channels (`MixedConv2d`).
        padding: See `resolve_padding`.
        groups: Groups; `depthwise` sets them to `in_channels`.
        num_experts: Kernels of a `CondConv2d`; 0 for an ordinary convolution.
        kwargs: Further arguments of the convolution: `device`, `dtype`, `padding_mode`.

    Raises:
        ValueError: A mixed convolution is asked to have experts, or groups other than none and depthwise.
    """
    groups = in_channels if depthwise else groups
    if isinstance(kernel_size, list):
        if num_experts or groups not in (1, in_channels):
            raise ValueError("a mixed convolution is plain or depthwise, and has no experts")
        return MixedConv2d(in_channels, out_channels, kernel_size, stride, padding, dilation,
                           depthwise=groups == in_channels, bias=bias, **kwargs)
    if num_experts:
        return CondConv2d(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, num_experts, **kwargs)
    amount, depends_on_input = resolve_padding(padding, kernel_size, stride, dilation)
    conv = Conv2dSame if depends_on_input else nn.Conv2d
    return conv(in_channels, out_channels, kernel_size, stride, amount, dilation, groups, bias, **kwargs)


def create_conv2d_pad(in_chs: int, out_chs: int, kernel_size: IntPair, **kwargs: Any) -> nn.Module:
    """`create_conv2d` for one plain convolution; all other arguments by name."""
    return create_conv2d(in_chs, out_chs, kernel_size, **kwargs)


def get_condconv_initializer(
    initializer: Callable[[Tensor], object], num_experts: int, expert_shape: tuple[int, ...]
) -> Callable[[Tensor], None]:
    """A function that initialises the `weight` of a `CondConv2d` in place, each expert's kernel by `initializer`.

    Raises:
        ValueError: From the function, the weight is not (num_experts, product of `expert_shape`).
    """

    def initialise(weight: Tensor) -> None:
        if weight.shape != (num_experts, math.prod(expert_shape)):
            raise ValueError(f"a weight of {tuple(weight.shape)} is not for {num_experts} experts of {expert_shape}")
        for expert in weight:
            initializer(expert.view(expert_shape))

    return initialise


def num_groups(group_size: int | None, channels: int) -> int:
    """Groups of a convolution: none for a group size of 0 or None, depthwise for 1.

    Raises:
        ValueError: The group size does not divide the channels.
    """
    if not group_size:
        return 1
    if channels % group_size:
        raise ValueError(f"{channels} channels cannot be divided into groups of {group_size}")
    return channels // group_size


def conv_norm(
    in_chs: int, out_chs: int, kernel_size: KernelSize = 1, stride: int = 1,
    act_layer: Callable[..., nn.Module] | None = None, **kwargs: Any,
) -> list[nn.Module]:
    """What an `nn.Sequential` takes: a convolution (`create_conv2d`), a batch norm and, unless None, an activation."""
    layers = [create_conv2d(in_chs, out_chs, kernel_size, stride, **kwargs), nn.BatchNorm2d(out_chs)]
    return layers if act_layer is None else [*layers, act_layer(inplace=True)]


class ConvNormAct(nn.Module):
    """Convolution, norm and activation, and anti-aliased downsampling; keys `conv`, `bn`, `aa`.

    Shapes: (B, C, H, W) -> (B, C', H', W').

    Args:
        apply_norm: Whether there is a norm (and then an activation) at all.
        apply_act: Whether there is an activation.
        aa_layer: Takes over the stride, see `create_aa`.
        drop_layer: Optional module class between norm and activation.
        conv_kwargs, norm_kwargs, act_kwargs: Further arguments of the three.
    """

    @placeable
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: KernelSize = 1,
        stride: int = 1,
        padding: Padding = "",
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        apply_norm: bool = True,
        apply_act: bool = True,
        norm_layer: NormLayer = nn.BatchNorm2d,
        act_layer: ActLayer = nn.ReLU,
        aa_layer: AaLayer = None,
        drop_layer: Callable[[], nn.Module] | None = None,
        conv_kwargs: dict[str, Any] | None = None,
        norm_kwargs: dict[str, Any] | None = None,
        act_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        blurs = aa_layer is not None and stride > 1
        self.conv = create_conv2d(in_channels, out_channels, kernel_size, stride=1 if blurs else stride,
                                  padding=padding, dilation=dilation, groups=groups, bias=bias, **(conv_kwargs or {}))
        if apply_norm:
            extra = dict(norm_kwargs or {})
            extra |= {"drop_layer": drop_layer} if drop_layer else {}
            extra |= {"act_kwargs": act_kwargs} if act_kwargs else {}
            self.bn = get_norm_act_layer(norm_layer, act_layer)(out_channels, apply_act=apply_act, **extra)
        else:
            self.bn = drop_layer() if drop_layer else nn.Identity()
        self.aa = create_aa(aa_layer, channels=out_channels, stride=stride, enable=blurs)

    @property
    def in_channels(self) -> int:
        return self.conv.in_channels

    @property
    def out_channels(self) -> int:
        return self.conv.out_channels

    def forward(self, x: Tensor) -> Tensor:
        return self.aa(self.bn(self.conv(x)))


ConvBnAct = ConvNormAct  # timm's other name


class SeparableConv2d(nn.Module):
    """Depthwise convolution, then a pointwise one; keys `conv_dw`, `conv_pw`.

    Shapes: (B, C, H, W) -> (B, C', H / stride, W / stride).

    Args:
        padding: Of both, see `resolve_padding`.
        bias: Whether the pointwise convolution has a bias.
        channel_multiplier: Channels between the two, per input channel.
        pw_kernel_size: Kernel of the second, which is pointwise for 1.
    """

    @placeable
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: KernelSize = 3,
        stride: int = 1,
        dilation: int = 1,
        padding: Padding = "",
        bias: bool = False,
        channel_multiplier: float = 1.0,
        pw_kernel_size: int = 1,
    ) -> None:
        super().__init__()
        hidden = int(in_channels * channel_multiplier)
        self.conv_dw: Any = create_conv2d(in_channels, hidden, kernel_size, stride, padding, dilation, depthwise=True)
        self.conv_pw: Any = create_conv2d(hidden, out_channels, pw_kernel_size, padding=padding, bias=bias)

    @property
    def in_channels(self) -> int:
        return self.conv_dw.in_channels

    @property
    def out_channels(self) -> int:
        return self.conv_pw.out_channels

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_pw(self.conv_dw(x))


class SeparableConvNormAct(SeparableConv2d):
    """`SeparableConv2d`, then norm and activation; keys `conv_dw`, `conv_pw`, `bn`.

    Shapes and arguments as there, and:

    Args:
        norm_layer, act_layer, apply_act, drop_layer: As `ConvNormAct`.
    """

    @placeable
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: KernelSize = 3,
        stride: int = 1,
        dilation: int = 1,
        padding: Padding = "",
        bias: bool = False,
        channel_multiplier: float = 1.0,
        pw_kernel_size: int = 1,
        norm_layer: NormLayer = nn.BatchNorm2d,
        act_layer: ActLayer = nn.ReLU,
        apply_act: bool = True,
        drop_layer: Callable[[], nn.Module] | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, dilation, padding, bias, channel_multiplier,
                         pw_kernel_size)
        dropped = {"drop_layer": drop_layer} if drop_layer is not None else {}
        self.bn = get_norm_act_layer(norm_layer, act_layer)(out_channels, apply_act=apply_act, **dropped)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(super().forward(x))
