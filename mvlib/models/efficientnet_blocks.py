"""The blocks of EfficientNet and its relatives, and the notation in which their architectures are written.

A stage is a list of block strings, "ir_r2_k3_s2_e6_c24_se0.25": the kind of block, then options in any order,

    r    repeats                              se   width of the squeeze-and-excitation, as a share of the block's input
    k    kernel size, "3" or mixed "3.5.7"    n    activation: nre, nr6, nhs, nsw, nmi
    s    stride of the first repeat           cc   number of experts (conditional convolution)
    e    expansion ratio                      gs   group size of the spatial convolution, 1 is depthwise
    c    output channels                      fc   channels that the expansion is computed from, instead of the input's
    a, p kernel sizes of the first and last   d    ir, ds: begin a space-to-depth region; attention: channels of a head
         convolution of the block             h, v attention: heads, stride of keys and values
    skip, noskip  force a residual connection, or forbid it

The notation comes from the TensorFlow code of MnasNet (Tan et al., 2019) and was extended by timm.
`decode_arch_def` reads it, `MobileModel` makes a network of it.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..layers.activations import ActLayer, get_act_layer
from ..layers.attention2d import Attention2d, MultiQueryAttention2d
from ..layers.blur_pool import AaLayer, create_aa
from ..layers.channel_attention import GlobalContext
from ..layers.conv import CondConv2d, ConvNormAct, KernelSize, create_conv2d, num_groups
from ..layers.drop import DropPath
from ..layers.helpers import check_layer, make_divisible, placeable
from ..layers.mlp import LayerScale2d
from ..layers.norm import NormLayer, get_norm_act_layer, get_norm_layer
from ..layers.padding import Padding
from ..layers.pool import GlobalPool2d
from .base import Flow, ImageModel, StateDict, Step

__all__ = [
    "BlockSpec",
    "CondConvResidual",
    "ConvBnAct",
    "DepthwiseSeparableConv",
    "EdgeResidual",
    "InvertedResidual",
    "MobileAttention",
    "MobileInit",
    "MobileModel",
    "PooledConvHead",
    "SqueezeExcite",
    "UniversalInvertedResidual",
    "decode_arch_def",
    "layer_position",
    "rename_in_order",
    "round_channels",
    "scaled",
]

SeLayer = str | Callable[..., nn.Module] | None


# --- the notation


@dataclass(frozen=True)
class BlockSpec:
    """One block: what a block string says of it. None leaves the choice to the kind of block or to the model."""

    kind: str
    out_chs: int
    stride: int
    kernel_size: KernelSize
    start_kernel_size: KernelSize | None = None
    end_kernel_size: KernelSize | None = None
    exp_ratio: float = 1.0
    se_ratio: float = 0.0
    skip: bool | None = None
    act: str | None = None
    num_experts: int = 0
    group_size: int | None = None
    force_in_chs: int = 0
    space_to_depth: bool = False
    num_heads: int = 0
    head_dim: int = 0
    kv_stride: int = 1


def _parse_kernel_size(text: str) -> KernelSize:
    return int(text) if text.isdigit() else [int(size) for size in text.split(".")]


_OPTIONS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "r": ("repeats", int),
    "k": ("kernel_size", _parse_kernel_size),
    "a": ("start_kernel_size", _parse_kernel_size),
    "p": ("end_kernel_size", _parse_kernel_size),
    "s": ("stride", int),
    "e": ("exp_ratio", float),
    "c": ("out_chs", int),
    "se": ("se_ratio", float),
    "cc": ("num_experts", int),
    "gs": ("group_size", int),
    "fc": ("force_in_chs", int),
    "h": ("num_heads", int),
    "v": ("kv_stride", int),
}
_ACTS = {"nre": "relu", "nr6": "relu6", "nhs": "hard_swish", "nsw": "silu", "nmi": "mish"}
_NEEDED = {
    "cn": "rksc", "ds": "rksc", "dsa": "rksc", "ir": "rksce", "er": "rksce", "uir": "rksce",
    "mha": "rkscdh", "mqa": "rkscdh",
}
_ATTENTION = ("mha", "mqa")
_MAX_BLOCKS = 10_000  # of a stage: they are written out in memory


def decode_block(text: str) -> tuple[BlockSpec, int]:
    """Read one block string: the block, and how often it is repeated.

    Raises:
        ValueError: The kind of block or an option is unknown, or an option that the kind needs is missing.
    """
    kind, *options = text.split("_")
    if kind not in _NEEDED:
        raise ValueError(f"unknown block '{kind}' in '{text}'; known: {', '.join(_NEEDED)}")
    fields: dict[str, Any] = {}
    seen = set()
    for option in options:
        match = re.fullmatch(r"([a-z]+?)(\d[\d.]*)", option)
        letter = match[1] if match else ""
        seen.add(letter)
        try:
            if option in ("skip", "noskip"):
                fields["skip"] = option == "skip"
            elif option in _ACTS:
                fields["act"] = _ACTS[option]
            elif letter == "d":
                fields |= {"head_dim": int(match[2])} if kind in _ATTENTION else {"space_to_depth": int(match[2]) > 0}
            else:
                name, parse = _OPTIONS[letter]
                fields[name] = parse(match[2])
        except (KeyError, ValueError):
            raise ValueError(f"cannot read the option '{option}' in the block string '{text}'") from None
    missing = [letter for letter in _NEEDED[kind] if letter not in seen]
    if missing:
        raise ValueError(f"the block string '{text}' lacks the option{'s' * (len(missing) > 1)} {', '.join(missing)}")
    repeats = fields.pop("repeats")
    return BlockSpec(kind=kind, **fields), repeats


def decode_arch_def(
    arch_def: Sequence[Sequence[str | BlockSpec]],
    depth_multiplier: float | Sequence[float] = 1.0,
    depth_trunc: str = "ceil",
    experts_multiplier: int = 1,
    fix_first_last: bool = False,
    group_size: int | None = None,
) -> list[list[BlockSpec]]:
    """The blocks of each stage, repeats written out and scaled.

    Args:
        arch_def: Block strings (or blocks) of each stage.
        depth_multiplier: Factor on the number of blocks of a stage, or one factor for each stage.
        depth_trunc: "ceil" or "round" what the factor gives.
        experts_multiplier: Factor on the number of experts.
        fix_first_last: Leave the depth of the first and the last stage.
        group_size: Group size of blocks that name none.

    Raises:
        ValueError: A block string cannot be read, there are not as many depth multipliers as stages, or a stage has
            more blocks than any network.
    """
    multipliers = [depth_multiplier] * len(arch_def) if isinstance(depth_multiplier, (int, float)) \
        else list(depth_multiplier)
    if len(multipliers) != len(arch_def):
        raise ValueError(f"{len(multipliers)} depth multipliers do not fit {len(arch_def)} stages")
    if fix_first_last:
        multipliers[0] = multipliers[-1] = 1.0
    stages = []
    for blocks, multiplier in zip(arch_def, multipliers):
        decoded = [(block, 1) if isinstance(block, BlockSpec) else decode_block(block) for block in blocks]
        repeats = _scale_repeats([count for _, count in decoded], multiplier, depth_trunc)
        if sum(repeats) > _MAX_BLOCKS:
            raise ValueError(f"a stage of {sum(repeats)} blocks")
        stage = []
        for (spec, _), count in zip(decoded, repeats):
            spec = replace(spec, num_experts=spec.num_experts * experts_multiplier,
                           group_size=group_size if spec.group_size is None else spec.group_size)
            stage += [spec] * count
        stages.append(stage)
    return stages


def _scale_repeats(repeats: list[int], multiplier: float, trunc: str) -> list[int]:
    """Scale a stage's total depth and share it out from the last block to the first, which grows least."""
    total = sum(repeats)
    scaled = max(1, round(total * multiplier)) if trunc == "round" else math.ceil(total * multiplier)
    result = []
    for count in reversed(repeats):
        share = max(1, round(count / total * scaled))
        result.append(share)
        total -= count
        scaled -= share
    return result[::-1]


def round_channels(
    channels: float, multiplier: float = 1.0, divisor: int = 8, channel_min: int | None = None, round_limit: float = 0.9
) -> int:
    """Scaled channel count, rounded to a multiple of `divisor`; see `make_divisible` for the other two."""
    return make_divisible(channels * multiplier, divisor, channel_min, round_limit)


def scaled(channels: float, depth: float = 1.0) -> dict[str, Any]:
    """The arguments of a `MobileModel` that is an architecture times these factors."""
    return dict(channel_multiplier=channels, depth_multiplier=depth)


# --- the blocks


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

    @placeable
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


_SE_LAYERS = {"se": SqueezeExcite, "gc": GlobalContext}


class _Residual(nn.Module):
    """A block that adds its input to what `body` makes of it, where their shapes agree."""

    def __init__(self, has_skip: bool, drop_path_rate: float) -> None:
        super().__init__()
        self.has_skip = has_skip
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate else nn.Identity()

    def body(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return self.drop_path(y) + x if self.has_skip else y


class ConvBnAct(_Residual):
    """A convolution, norm and activation ("cn"). Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride).

    The arguments that all blocks share:

    Args:
        in_chs: Channels of the input.
        out_chs: Channels of the output.
        stride: Stride of the spatial convolution.
        dilation: Its dilation.
        group_size: Its group size: 0 is dense, 1 depthwise.
        pad_type: Its padding, see `resolve_padding`.
        skip: Whether to add the input where the shapes allow it.
        act_layer: Activation.
        norm_layer: Norm.
        aa_layer: Anti-aliased downsampling that takes over the stride.
        se_layer: Channel attention, a class that is given channels and `act_layer`.
        drop_path_rate: Stochastic depth.
    """

    @placeable
    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        kernel_size: KernelSize,
        stride: int = 1,
        dilation: int = 1,
        group_size: int = 0,
        pad_type: Padding = "",
        skip: bool = False,
        act_layer: ActLayer = nn.ReLU,
        norm_layer: NormLayer = nn.BatchNorm2d,
        aa_layer: AaLayer = None,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__(skip and stride == 1 and in_chs == out_chs, drop_path_rate)
        norm_act = get_norm_act_layer(norm_layer, act_layer)
        blurs = aa_layer is not None and stride > 1
        self.conv = create_conv2d(in_chs, out_chs, kernel_size, stride=1 if blurs else stride, dilation=dilation,
                                  groups=num_groups(group_size, in_chs), padding=pad_type)
        self.bn1 = norm_act(out_chs, inplace=True)
        self.aa = create_aa(aa_layer, channels=out_chs, stride=stride, enable=blurs)

    def body(self, x: Tensor) -> Tensor:
        return self.aa(self.bn1(self.conv(x)))


class DepthwiseSeparableConv(_Residual):
    """Depthwise, then pointwise convolution: MobileNetV1's block and the inverted residual without expansion ("ds").

    Shapes and arguments as for `ConvBnAct`, besides:

    Args:
        dw_kernel_size: Kernel of the depthwise convolution.
        noskip: Never add the input; else, where the shapes allow it.
        pw_kernel_size: Kernel of the pointwise convolution.
        pw_act: Apply the activation after the pointwise convolution too ("dsa").
        s2d: 1 to start with a space-to-depth convolution, which halves the kernel as it halves the resolution.
    """

    @placeable
    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        dw_kernel_size: KernelSize = 3,
        stride: int = 1,
        dilation: int = 1,
        group_size: int = 1,
        pad_type: Padding = "",
        noskip: bool = False,
        pw_kernel_size: KernelSize = 1,
        pw_act: bool = False,
        s2d: int = 0,
        act_layer: ActLayer = nn.ReLU,
        norm_layer: NormLayer = nn.BatchNorm2d,
        aa_layer: AaLayer = None,
        se_layer: SeLayer = None,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__(not noskip and stride == 1 and in_chs == out_chs, drop_path_rate)
        norm_act = get_norm_act_layer(norm_layer, act_layer)
        dw_padding = pad_type
        if s2d == 1:
            self.conv_s2d, self.bn_s2d = _space_to_depth(in_chs, norm_act)
            in_chs, dw_kernel_size, dw_padding, aa_layer = 4 * in_chs, *_halve_kernel(dw_kernel_size, pad_type), None
        else:
            self.conv_s2d = self.bn_s2d = None
        blurs = aa_layer is not None and stride > 1
        self.conv_dw = create_conv2d(in_chs, in_chs, dw_kernel_size, stride=1 if blurs else stride, dilation=dilation,
                                     groups=num_groups(group_size, in_chs), padding=dw_padding)
        self.bn1 = norm_act(in_chs, inplace=True)
        self.aa = create_aa(aa_layer, channels=in_chs, stride=stride, enable=blurs)
        self.se = se_layer(in_chs, act_layer=act_layer) if se_layer else nn.Identity()
        self.conv_pw = create_conv2d(in_chs, out_chs, pw_kernel_size, padding=pad_type)
        self.bn2 = norm_act(out_chs, inplace=True, apply_act=pw_act)

    def body(self, x: Tensor) -> Tensor:
        if self.conv_s2d is not None:
            x = self.bn_s2d(self.conv_s2d(x))
        x = self.se(self.aa(self.bn1(self.conv_dw(x))))
        return self.bn2(self.conv_pw(x))


class InvertedResidual(_Residual):
    """Pointwise expansion, depthwise convolution, linear pointwise projection: MBConv ("ir").

    Shapes and arguments as for `DepthwiseSeparableConv`, besides:

    Args:
        exp_ratio: Channels of the expansion per input channel.
        exp_kernel_size: Kernel of the expansion.
        conv_kwargs: Further arguments of the three convolutions (`num_experts`, see `CondConvResidual`).

    Source: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018.
    """

    @placeable
    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        dw_kernel_size: KernelSize = 3,
        stride: int = 1,
        dilation: int = 1,
        group_size: int = 1,
        pad_type: Padding = "",
        noskip: bool = False,
        exp_ratio: float = 1.0,
        exp_kernel_size: KernelSize = 1,
        pw_kernel_size: KernelSize = 1,
        s2d: int = 0,
        act_layer: ActLayer = nn.ReLU,
        norm_layer: NormLayer = nn.BatchNorm2d,
        aa_layer: AaLayer = None,
        se_layer: SeLayer = None,
        conv_kwargs: Mapping[str, Any] | None = None,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__(not noskip and stride == 1 and in_chs == out_chs, drop_path_rate)
        norm_act = get_norm_act_layer(norm_layer, act_layer)
        conv: Callable[..., nn.Module] = partial(create_conv2d, **(conv_kwargs or {}))
        dw_padding = pad_type
        if s2d == 1:
            self.conv_s2d, self.bn_s2d = _space_to_depth(in_chs, norm_act)
            in_chs, dw_kernel_size, dw_padding, aa_layer = 4 * in_chs, *_halve_kernel(dw_kernel_size, pad_type), None
        else:
            self.conv_s2d = self.bn_s2d = None
        blurs = aa_layer is not None and stride > 1
        mid_chs = make_divisible(in_chs * exp_ratio)
        self.conv_pw = conv(in_chs, mid_chs, exp_kernel_size, padding=pad_type)
        self.bn1 = norm_act(mid_chs, inplace=True)
        self.conv_dw = conv(mid_chs, mid_chs, dw_kernel_size, stride=1 if blurs else stride, dilation=dilation,
                            groups=num_groups(group_size, mid_chs), padding=dw_padding)
        self.bn2 = norm_act(mid_chs, inplace=True)
        self.aa = create_aa(aa_layer, channels=mid_chs, stride=stride, enable=blurs)
        self.se = se_layer(mid_chs, act_layer=act_layer) if se_layer else nn.Identity()
        self.conv_pwl = conv(mid_chs, out_chs, pw_kernel_size, padding=pad_type)
        self.bn3 = norm_act(out_chs, apply_act=False)

    def body(self, x: Tensor) -> Tensor:
        if self.conv_s2d is not None:
            x = self.bn_s2d(self.conv_s2d(x))
        x = self.bn1(self.conv_pw(x))
        x = self.se(self.aa(self.bn2(self.conv_dw(x))))
        return self.bn3(self.conv_pwl(x))


class CondConvResidual(InvertedResidual):
    """An inverted residual whose kernels are mixed, for each image, from `num_experts` kernels.

    Source: Yang et al., "CondConv: Conditionally Parameterized Convolutions for Efficient Inference", 2019.
    """

    @placeable
    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        dw_kernel_size: KernelSize = 3,
        stride: int = 1,
        dilation: int = 1,
        group_size: int = 1,
        pad_type: Padding = "",
        noskip: bool = False,
        exp_ratio: float = 1.0,
        exp_kernel_size: KernelSize = 1,
        pw_kernel_size: KernelSize = 1,
        act_layer: ActLayer = nn.ReLU,
        norm_layer: NormLayer = nn.BatchNorm2d,
        aa_layer: AaLayer = None,
        se_layer: SeLayer = None,
        num_experts: int = 1,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__(
            in_chs, out_chs, dw_kernel_size, stride, dilation, group_size, pad_type, noskip, exp_ratio, exp_kernel_size,
            pw_kernel_size, act_layer=act_layer, norm_layer=norm_layer, aa_layer=aa_layer, se_layer=se_layer,
            conv_kwargs=dict(num_experts=num_experts), drop_path_rate=drop_path_rate)
        self.routing_fn = nn.Linear(in_chs, num_experts)

    def body(self, x: Tensor) -> Tensor:
        routing = torch.sigmoid(self.routing_fn(x.mean((2, 3))))
        x = self.bn1(self.conv_pw(x, routing))
        x = self.se(self.aa(self.bn2(self.conv_dw(x, routing))))
        return self.bn3(self.conv_pwl(x, routing))


class EdgeResidual(_Residual):
    """Expansion by a full convolution, then linear pointwise projection: Fused-MBConv ("er").

    Shapes and arguments as for `InvertedResidual`, besides:

    Args:
        force_in_chs: Compute the expansion from this many channels instead of the input's.

    Source: Gupta and Akin, "Accelerator-aware Neural Network Design using AutoML" (EfficientNet-EdgeTPU), 2020.
    """

    @placeable
    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        exp_kernel_size: KernelSize = 3,
        stride: int = 1,
        dilation: int = 1,
        group_size: int = 0,
        pad_type: Padding = "",
        force_in_chs: int = 0,
        noskip: bool = False,
        exp_ratio: float = 1.0,
        pw_kernel_size: KernelSize = 1,
        act_layer: ActLayer = nn.ReLU,
        norm_layer: NormLayer = nn.BatchNorm2d,
        aa_layer: AaLayer = None,
        se_layer: SeLayer = None,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__(not noskip and stride == 1 and in_chs == out_chs, drop_path_rate)
        norm_act = get_norm_act_layer(norm_layer, act_layer)
        blurs = aa_layer is not None and stride > 1
        mid_chs = make_divisible((force_in_chs or in_chs) * exp_ratio)
        self.conv_exp = create_conv2d(in_chs, mid_chs, exp_kernel_size, stride=1 if blurs else stride,
                                      dilation=dilation, groups=num_groups(group_size, mid_chs), padding=pad_type)
        self.bn1 = norm_act(mid_chs, inplace=True)
        self.aa = create_aa(aa_layer, channels=mid_chs, stride=stride, enable=blurs)
        self.se = se_layer(mid_chs, act_layer=act_layer) if se_layer else nn.Identity()
        self.conv_pwl = create_conv2d(mid_chs, out_chs, pw_kernel_size, padding=pad_type)
        self.bn2 = norm_act(out_chs, apply_act=False)

    def body(self, x: Tensor) -> Tensor:
        x = self.se(self.aa(self.bn1(self.conv_exp(x))))
        return self.bn2(self.conv_pwl(x))


class UniversalInvertedResidual(_Residual):
    """Inverted residual with up to three optional depthwise convolutions ("uir").

    They stand before the expansion, between expansion and projection, and after the projection; the stride belongs to
    the middle one, else the first, else the last. Shapes and arguments as for `InvertedResidual`, besides:

    Args:
        dw_kernel_size_start: Kernel of the first depthwise convolution, 0 for none; likewise `mid` and `end`.
        layer_scale_init_value: Initial value of a scale on the branch, None for none.

    Raises:
        ValueError: There is a stride and nothing that could have it.

    Source: Qin et al., "MobileNetV4: Universal Models for the Mobile Ecosystem", 2024.
    """

    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        dw_kernel_size_start: KernelSize = 0,
        dw_kernel_size_mid: KernelSize = 3,
        dw_kernel_size_end: KernelSize = 0,
        stride: int = 1,
        dilation: int = 1,
        group_size: int = 1,
        pad_type: Padding = "",
        noskip: bool = False,
        exp_ratio: float = 1.0,
        act_layer: ActLayer = nn.ReLU,
        norm_layer: NormLayer = nn.BatchNorm2d,
        aa_layer: AaLayer = None,
        se_layer: SeLayer = None,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float | None = 1e-5,
    ) -> None:
        super().__init__(not noskip and stride == 1 and in_chs == out_chs, drop_path_rate)
        kernels = {"mid": dw_kernel_size_mid, "start": dw_kernel_size_start, "end": dw_kernel_size_end}
        strided = next((place for place, kernel in kernels.items() if kernel), None)
        if stride > 1 and strided is None:
            raise ValueError("a universal inverted residual with a stride needs a depthwise convolution")
        conv = partial(ConvNormAct, padding=pad_type, act_layer=act_layer, norm_layer=norm_layer)

        def depthwise(place: str, chs: int, apply_act: bool) -> nn.Module:
            if not kernels[place]:
                return nn.Identity()
            return conv(chs, chs, kernels[place], stride=stride if place == strided else 1, dilation=dilation,
                        groups=num_groups(group_size, chs), apply_act=apply_act, aa_layer=aa_layer)

        mid_chs = make_divisible(in_chs * exp_ratio)
        self.dw_start = depthwise("start", in_chs, apply_act=False)
        self.pw_exp = conv(in_chs, mid_chs, 1)
        self.dw_mid = depthwise("mid", mid_chs, apply_act=True)
        self.se = se_layer(mid_chs, act_layer=act_layer) if se_layer else nn.Identity()
        self.pw_proj = conv(mid_chs, out_chs, 1, apply_act=False)
        self.dw_end = depthwise("end", out_chs, apply_act=False)
        self.layer_scale = _layer_scale(out_chs, layer_scale_init_value)

    def body(self, x: Tensor) -> Tensor:
        x = self.dw_mid(self.pw_exp(self.dw_start(x)))
        x = self.dw_end(self.pw_proj(self.se(x)))
        return self.layer_scale(x)


class MobileAttention(_Residual):
    """Norm and attention over the positions of the feature map ("mha", "mqa" with one key and value for all heads).

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H, W). Source: Qin et al., "MobileNetV4", 2024.

    Args:
        num_heads: Heads.
        key_dim: Channels of a key; multi-query attention only, else in_chs / num_heads.
        value_dim: Channels of a value, likewise.
        use_multi_query: Share one key and one value among the heads.
        kv_stride: Stride of a depthwise convolution on keys and values; multi-query attention only.
        dw_kernel_size: Kernel of that convolution.
        attn_drop: Dropout of the attention weights.
        proj_drop: Dropout of the attention's output.
        layer_scale_init_value: Initial value of a scale on the branch, None for none.
        use_bias: Whether the projections of multi-head attention have a bias.
    """

    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        stride: int = 1,
        dw_kernel_size: KernelSize = 3,
        dilation: int = 1,
        pad_type: Padding = "",
        num_heads: int = 8,
        key_dim: int = 64,
        value_dim: int = 64,
        use_multi_query: bool = False,
        kv_stride: int = 1,
        noskip: bool = False,
        act_layer: ActLayer = nn.ReLU,
        norm_layer: NormLayer = nn.BatchNorm2d,
        drop_path_rate: float = 0.0,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        layer_scale_init_value: float | None = 1e-5,
        use_bias: bool = False,
    ) -> None:
        super().__init__(not noskip and stride == 1 and in_chs == out_chs, drop_path_rate)
        self.norm = get_norm_act_layer(norm_layer, act_layer)(in_chs, apply_act=False)
        if use_multi_query:
            self.attn = MultiQueryAttention2d(
                in_chs, out_chs, num_heads, key_dim, value_dim, kv_stride=kv_stride, dw_kernel_size=dw_kernel_size,
                dilation=dilation, padding=pad_type, attn_drop=attn_drop, proj_drop=proj_drop, norm_layer=norm_layer)
        else:
            self.attn = Attention2d(in_chs, out_chs, num_heads, use_bias, attn_drop=attn_drop, proj_drop=proj_drop)
        self.layer_scale = _layer_scale(out_chs, layer_scale_init_value)

    def body(self, x: Tensor) -> Tensor:
        return self.layer_scale(self.attn(self.norm(x)))


def _space_to_depth(in_chs: int, norm_act: Callable[..., nn.Module]) -> tuple[nn.Module, nn.Module]:
    """A strided 2x2 convolution to four times the channels, and its norm; EfficientNet-X (Li et al., 2021)."""
    return create_conv2d(in_chs, 4 * in_chs, 2, stride=2, padding="same"), norm_act(4 * in_chs)


def _halve_kernel(kernel_size: int, padding: Padding) -> tuple[int, Padding]:
    half = (kernel_size + 1) // 2
    return half, "same" if half == 2 else padding


def _layer_scale(chs: int, init_value: float | None) -> nn.Module:
    return nn.Identity() if init_value is None else LayerScale2d(chs, init_value)


# --- from specs to modules


@dataclass(frozen=True)
class _Placed:
    """A block and what its place in the network decides."""

    spec: BlockSpec
    stride: int
    dilation: int
    s2d: int  # 0 outside a space-to-depth region, 1 where it begins, 2 within it


def _place_blocks(
    stages: list[list[BlockSpec]], output_stride: int
) -> tuple[list[list[_Placed]], list[int | None], bool]:
    """Decide strides, dilations and space-to-depth of all blocks; the stem has a stride of 2 already.

    Returns:
        The placed blocks; of each stage its reduction if it is a tap, the last stage of its resolution, else None; and
        whether the stem is a tap.
    """
    reduction, dilation, s2d = 2, 1, 0
    placed, taps = [], []
    for i, stage in enumerate(stages):
        blocks = []
        for j, spec in enumerate(stage):
            stride = spec.stride if j == 0 else 1
            if spec.space_to_depth and s2d == 0:
                s2d = 1
                reduction *= 2
            elif s2d == 2 and stride == 2:  # the region's end: the stride was taken where it began
                stride, s2d = 1, 0
                spec = replace(spec, exp_ratio=spec.exp_ratio / 4)
            next_dilation = dilation
            if reduction * stride > output_stride:
                stride, next_dilation = 1, dilation * stride
            reduction *= stride
            blocks.append(_Placed(spec, stride, dilation, s2d))
            dilation = next_dilation
            in_region = s2d > 0
            s2d = 2 if s2d else 0
        placed.append(blocks)
        is_last = i == len(stages) - 1
        is_tap = is_last or (stages[i + 1][0].stride > 1 and not in_region)
        taps.append(reduction if is_tap else None)
    first = stages[0][0]
    return placed, taps, first.stride > 1 or first.space_to_depth


def _make_block(
    placed: _Placed,
    in_chs: int,
    out_chs: int,
    *,
    round_chs: Callable[[float], int],
    act_layer: ActLayer,
    aa_layer: AaLayer,
    se_layer: SeLayer,
    se_from_exp: bool,
    layer_scale_init_value: float | None,
    **shared: Any,
) -> nn.Module:
    spec, s2d = placed.spec, placed.s2d
    start, end = spec.start_kernel_size, spec.end_kernel_size
    noskip = spec.skip is False
    style: dict[str, Any] = dict(in_chs=in_chs, out_chs=out_chs, stride=placed.stride, dilation=placed.dilation,
                                 act_layer=spec.act or act_layer, **shared)
    if spec.kind not in _ATTENTION:
        style["aa_layer"] = aa_layer
        if spec.group_size is not None:
            style["group_size"] = spec.group_size
    if spec.se_ratio:
        ratio = spec.se_ratio if se_from_exp else spec.se_ratio / spec.exp_ratio
        style["se_layer"] = _bind_ratio(se_layer, ratio / 4 if s2d == 1 else ratio)
    if spec.kind in ("uir", *_ATTENTION):
        style["layer_scale_init_value"] = layer_scale_init_value
    if spec.kind == "cn":
        return ConvBnAct(kernel_size=spec.kernel_size, skip=spec.skip is True, **style)
    if spec.kind in ("ds", "dsa"):
        pw_act = spec.kind == "dsa"
        return DepthwiseSeparableConv(dw_kernel_size=spec.kernel_size, pw_kernel_size=end or 1, pw_act=pw_act, s2d=s2d,
                                      noskip=noskip or pw_act, **style)
    if spec.kind == "ir":
        experts: dict[str, Any] = {"num_experts": spec.num_experts} if spec.num_experts else {"s2d": s2d}
        block = CondConvResidual if spec.num_experts else InvertedResidual
        return block(dw_kernel_size=spec.kernel_size, exp_kernel_size=start or 1, pw_kernel_size=end or 1,
                     exp_ratio=spec.exp_ratio, noskip=noskip, **experts, **style)
    if spec.kind == "er":
        force_in_chs = round_chs(spec.force_in_chs) if spec.force_in_chs else 0
        return EdgeResidual(exp_kernel_size=spec.kernel_size, pw_kernel_size=end or 1, exp_ratio=spec.exp_ratio,
                            force_in_chs=force_in_chs, noskip=noskip, **style)
    if spec.kind == "uir":
        return UniversalInvertedResidual(dw_kernel_size_start=start or 0, dw_kernel_size_mid=spec.kernel_size,
                                         dw_kernel_size_end=end or 0, exp_ratio=spec.exp_ratio, noskip=noskip, **style)
    return MobileAttention(dw_kernel_size=spec.kernel_size, num_heads=spec.num_heads, key_dim=spec.head_dim,
                           value_dim=spec.head_dim, kv_stride=spec.kv_stride, use_multi_query=spec.kind == "mqa",
                           noskip=noskip, **style)


def _bind_ratio(se_layer: SeLayer, ratio: float) -> Callable[..., nn.Module]:
    """The attention class with its squeeze ratio, if it has one."""
    if isinstance(se_layer, str):
        if se_layer not in _SE_LAYERS:
            raise ValueError(f"unknown se_layer '{se_layer}'; known: {', '.join(_SE_LAYERS)}, or a class")
        se_layer = _SE_LAYERS[se_layer]
    check_layer(se_layer, "se_layer")
    takes_ratio = "rd_ratio" in inspect.signature(se_layer).parameters
    return partial(se_layer, rd_ratio=ratio) if takes_ratio else se_layer


# --- the network


class MobileInit(ImageModel):
    """A model whose convolutions and linear layers begin as in the TensorFlow code of these families.

    Convolutions: normal with variance 2 / fan-out, groups accounted for. Linear layers: uniform with bound
    1 / sqrt(outputs), or 1 / sqrt(inputs + outputs) for routing. The projections of multi-query attention: Xavier.
    """

    def init_module(self, name: str, module: nn.Module) -> None:
        if isinstance(module, CondConv2d):
            module.init_experts(lambda kernel: _init_fan_out(kernel, module.groups))
        elif isinstance(module, nn.Conv2d):
            if _XAVIER.search(f".{name}"):
                nn.init.xavier_uniform_(module.weight)
            else:
                _init_fan_out(module.weight, module.groups)
        elif isinstance(module, nn.Linear):
            fan = module.out_features + (module.in_features if "routing_fn" in name else 0)
            nn.init.uniform_(module.weight, -1 / math.sqrt(fan), 1 / math.sqrt(fan))
        else:
            super().init_module(name, module)
            return
        if module.bias is not None:
            nn.init.zeros_(module.bias)


_XAVIER = re.compile(r"\.attn\.(query|key|value|output)\.(proj|down_conv)$")


def _init_fan_out(kernel: Tensor, groups: int) -> None:
    out_chs, _, height, width = kernel.shape
    nn.init.normal_(kernel, 0.0, math.sqrt(2.0 / (out_chs * height * width // groups)))


class MobileModel(MobileInit):
    """Stem convolution, stages of mobile blocks, a head that a family makes in `make_head`, and a linear classifier.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features have a stride of `output_stride`.

    Args:
        block_args: Block strings of each stage, or blocks decoded already.
        num_classes: Classes; 0 for the classifier's input.
        num_features: Channels of the head convolution; 0 for none, in families that can do without.
        in_chans: Channels of the image.
        stem_size: Channels of the stem.
        stem_kernel_size: Kernel of the stem.
        fix_stem: Do not scale the stem.
        output_stride: 8, 16 or 32; strides beyond it become dilation.
        pad_type: "" for symmetric padding, "same" for TensorFlow's.
        act_layer: Activation of blocks that name none; ReLU if None.
        norm_layer: Norm; batch norm if None.
        aa_layer: Anti-aliased downsampling instead of strided convolutions: "blur", "blurpc", "avg" or a class.
        se_layer: Channel attention of blocks that have a ratio: a class, "gc" for global context, or None for
            squeeze-and-excitation.
        round_chs_fn: Scales and rounds a number of channels, in place of the three arguments for that below.
        drop_rate: Dropout before the classifier.
        drop_path_rate: Stochastic depth of the last block; earlier ones have proportionally less.
        global_pool: "avg", "max", "avgmax", "catavgmax" or "" for none.
        bn_eps: The norm's epsilon, its own default if None. TensorFlow's is 1e-3.
        bn_momentum: Batch norm's momentum, its own default if None.
        se_from_exp: These ratios refer to the expanded channels, not to the block's input.
        channel_multiplier: Factor on all channel counts; on the head convolution's where `head_scaling` says so.
        channel_divisor: Scaled channel counts are multiples of it.
        channel_round_limit: Smallest share of a channel count that rounding leaves.
        head_scaling: "fixed" head convolution, "scale" it with the channels, or let it only "grow".
        depth_multiplier: Factor on the number of blocks, or one for each stage.
        depth_trunc: Whether scaled depths are rounded up ("ceil") or to the nearest integer ("round").
        fix_first_last: Do not scale the depths of the first and the last stage.
        experts_multiplier: Factor on the number of experts of conditional convolutions.
        group_size: Group size of the spatial convolutions of blocks that name none.
        layer_scale_init_value: Initial layer scale of "uir" and attention blocks, None for none.

    Raises:
        ValueError: A block string cannot be read, or an option has an unknown value.
    """

    classifier_path: ClassVar[str] = "classifier"
    feature_form: ClassVar[str] = "body"

    def __init__(
        self,
        block_args: Sequence[Sequence[str | BlockSpec]],
        num_classes: int = 1000,
        num_features: int = 1280,
        in_chans: int = 3,
        stem_size: int = 32,
        stem_kernel_size: int = 3,
        fix_stem: bool = False,
        output_stride: int = 32,
        pad_type: Padding = "",
        act_layer: ActLayer = None,
        norm_layer: NormLayer = None,
        aa_layer: AaLayer = None,
        se_layer: SeLayer = None,
        round_chs_fn: Callable[..., int] | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        global_pool: str = "avg",
        bn_eps: float | None = None,
        bn_momentum: float | None = None,
        se_from_exp: bool = False,
        channel_multiplier: float = 1.0,
        channel_divisor: int = 8,
        channel_round_limit: float = 0.9,
        head_scaling: str = "fixed",
        depth_multiplier: float | Sequence[float] = 1.0,
        depth_trunc: str = "ceil",
        fix_first_last: bool = False,
        experts_multiplier: int = 1,
        group_size: int | None = None,
        layer_scale_init_value: float | None = None,
    ) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride is 8, 16 or 32, not {output_stride}")
        if head_scaling not in _HEAD_SCALING:
            raise ValueError(f"unknown head_scaling '{head_scaling}'; known: {', '.join(_HEAD_SCALING)}")
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.drop_rate = drop_rate
        round_chs = round_chs_fn or partial(
            round_channels, multiplier=channel_multiplier, divisor=channel_divisor, round_limit=channel_round_limit)
        bn_args = {key: value for key, value in (("eps", bn_eps), ("momentum", bn_momentum)) if value is not None}
        act_layer = get_act_layer(act_layer or "relu")
        norm_layer = partial(get_norm_layer(norm_layer) or nn.BatchNorm2d, **bn_args)
        norm_act = get_norm_act_layer(norm_layer, act_layer)

        chs = stem_size if fix_stem else round_chs(stem_size)
        self.conv_stem = create_conv2d(in_chans, chs, stem_kernel_size, stride=2, padding=pad_type)
        self.bn1 = norm_act(chs, inplace=True)
        stages, taps, stem_is_tap = _place_blocks(decode_arch_def(
            block_args, depth_multiplier, depth_trunc, experts_multiplier, fix_first_last, group_size), output_stride)
        self.flow = Flow(stem=[Step("conv_stem"), Step("bn1", chs, 2) if stem_is_tap else Step("bn1")], stages=[])
        make_block = partial(
            _make_block, round_chs=round_chs, pad_type=pad_type, act_layer=act_layer, norm_layer=norm_layer,
            aa_layer=aa_layer, se_layer=se_layer or SqueezeExcite, se_from_exp=se_from_exp,
            layer_scale_init_value=layer_scale_init_value)
        self.blocks = nn.Sequential()
        index, total = 0, sum(map(len, stages))
        for i, (stage, reduction) in enumerate(zip(stages, taps)):
            blocks = nn.Sequential()
            for placed in stage:
                out_chs = round_chs(placed.spec.out_chs) * (4 if placed.s2d else 1)
                blocks.append(make_block(placed, chs, out_chs, drop_path_rate=drop_path_rate * index / total))
                chs, index = out_chs, index + 1
            self.blocks.append(blocks)
            self.flow.stages.append(Step(f"blocks.{i}") if reduction is None else Step(f"blocks.{i}", chs, reduction))

        self.num_features = chs
        if num_features > 0 and head_scaling != "fixed":
            least = num_features if head_scaling == "grow" else 0
            num_features = max(least, round_chs(num_features))
        self.make_head(num_features, global_pool, partial(create_conv2d, kernel_size=1, padding=pad_type), norm_act,
                       act_layer)
        self.classifier = self.make_classifier(num_classes)
        self.init_weights()

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """One dict a tap, as every model's, and `stage`: the number of its stage, counted from 1; the stem's is 0."""
        return [{**info, "stage": int(info["module"].partition(".")[2] or -1) + 1} for info in super().feature_info]

    def make_head(
        self,
        num_features: int,
        global_pool: str,
        conv: Callable[..., nn.Module],
        norm_act: Callable[..., nn.Module],
        act_layer: Callable[..., nn.Module],
    ) -> None:
        """Make what stands between the stages, whose width is `self.num_features`, and the classifier.

        Called by the constructor. Sets `global_pool`, `head_hidden_size` (the classifier's width) and, where a
        convolution comes before the pooling, `num_features`.

        Args:
            num_features: Channels of the head convolution.
            global_pool: Kind of pooling.
            conv: (in_chs, out_chs) -> a pointwise convolution, with the model's padding.
            norm_act: (channels) -> the model's norm and activation.
            act_layer: The activation alone.
        """
        raise NotImplementedError


_HEAD_SCALING = ("fixed", "scale", "grow")


class PooledConvHead(ImageModel):
    """A head that pools first: `global_pool`, then `conv_head`, `norm_head` and `act2` on what is left, one position.

    To be mixed into a model, which makes the four. Without classes it gives what `act2` does.
    """

    hidden_paths: ClassVar[tuple[str, ...]] = ("conv_head", "norm_head", "act2")

    global_pool: GlobalPool2d
    conv_head: Any
    norm_head: nn.Module
    act2: nn.Module

    def pool(self, x: Tensor) -> Tensor:
        x = self.act2(self.norm_head(self.conv_head(self.global_pool(x))))
        return x.flatten(1) if self.global_pool.pool_type else x

    def set_global_pool(self, pool_type: str) -> None:
        """Change the pooling, in place.

        Raises:
            ValueError: The pooling is unknown, or its width does not fit the head convolution.
        """
        pool = GlobalPool2d(pool_type, flatten=False)
        width = self.num_features * pool.out_factor
        if isinstance(self.conv_head, nn.Identity):
            self.head_hidden_size = width
        elif width != self.conv_head.in_channels:
            raise ValueError(f"global_pool '{pool_type}' gives {width} channels, and the head convolution takes "
                             f"{self.conv_head.in_channels}; give it when the model is built")
        self.global_pool = pool


# --- foreign checkpoints


def layer_position(path: str) -> list[tuple[int, int, str]]:
    """Sorts paths of layers by the numbers in them: "features.2.0" before "features.10.0"."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in path.split(".")]


def rename_in_order(
    state_dict: StateDict, model: nn.Module, head: str, order: Callable[[str], Any] = layer_position
) -> StateDict:
    """Give the layers of a foreign state dict our names, one after the other; for networks that run in one order.

    A checkpoint of another architecture keeps the names for which we have no layer, and shapes that do not fit: loading
    reports both.

    Args:
        state_dict: The foreign state dict.
        model: Our model; its layers stand in the order in which they run, but for the classifier.
        head: Path of the foreign classifier.
        order: Sorts the paths of the foreign layers into the order in which they run.
    """
    theirs = sorted({key.rpartition(".")[0] for key in state_dict} - {head}, key=order)
    ours = dict.fromkeys(key.rpartition(".")[0] for key in model.state_dict())
    ours.pop(model.classifier_path, None)
    names = {head: model.classifier_path, **dict(zip(theirs, ours))}
    renamed = {}
    for key, value in state_dict.items():
        path, _, leaf = key.rpartition(".")
        renamed[f"{names.get(path, path)}.{leaf}"] = value
    return renamed
