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
`decode_arch_def` reads it, `EfficientNetBuilder` makes blocks of it, `MobileModel` a network.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ..layers.activations import ActLayer, get_act_layer
from ..layers.attention2d import Attention2d, MultiQueryAttention2d
from ..layers.blur_pool import AaLayer, create_aa
from ..layers.channel_attention import get_attn
from ..layers.conv import CondConv2d, ConvNormAct, KernelSize, create_conv2d, num_groups
from ..layers.drop import DropPath
from ..layers.helpers import make_divisible, placeable, to_2tuple
from ..layers.mlp import LayerScale2d
from ..layers.norm import NormLayer, get_norm_act_layer, get_norm_layer
from ..layers.padding import Padding
from ..layers.pool import GlobalPool2d
from ..layers.weight_init import fan_out_normal_
from .base import Flow, ImageModel, StateDict, Step

__all__ = [
    "BlockArgs", "CondConvResidual", "ConvBnAct", "DepthwiseSeparableConv", "EdgeResidual", "EfficientNetBuilder",
    "InvertedResidual", "Layers", "MobileAttention", "MobileInit", "MobileModel", "PooledConvHead", "SqueezeExcite",
    "UniversalInvertedResidual", "arch", "decode_arch_def", "efficientnet_init_weights", "init_mobile_layer",
    "rename_in_order", "round_channels", "scaled",
]

SeLayer = str | Callable[..., nn.Module] | None


# --- the notation


BlockArgs = list[list[dict[str, Any]]]
"""Of each stage, of each block its kind ("block_type"), channels, stride, and the arguments of its class."""


def _parse_kernel_size(text: str) -> KernelSize:
    return int(text) if text.isdigit() else [int(size) for size in text.split(".")]


_OPTIONS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("k", "a", "p"), _parse_kernel_size), **dict.fromkeys(("e", "se"), float),
    **dict.fromkeys(("r", "s", "c", "cc", "gs", "fc", "d", "h", "v"), int)}
_UNLESS_GIVEN = {"a": 1, "p": 1, "se": 0.0, "fc": 0, "d": 0, "v": 1}
_ACTS = {"nre": "relu", "nr6": "relu6", "nhs": "hard_swish", "nsw": "silu", "nmi": "mish"}
_SEPARABLE = dict(dw_kernel_size="k", pw_kernel_size="p", se_ratio="se", s2d="d")
_ATTENTION = dict(dw_kernel_size="k", num_heads="h", key_dim="d", value_dim="d", kv_stride="v")
_ARGUMENTS: dict[str, dict[str, str]] = {  # of a kind of block: which option says them
    "cn": dict(kernel_size="k"),
    "ds": _SEPARABLE,
    "dsa": _SEPARABLE,
    "ir": dict(_SEPARABLE, exp_kernel_size="a", exp_ratio="e", num_experts="cc"),
    "er": dict(exp_kernel_size="k", pw_kernel_size="p", exp_ratio="e", se_ratio="se", force_in_chs="fc"),
    "uir": dict(dw_kernel_size_start="a", dw_kernel_size_mid="k", dw_kernel_size_end="p", exp_ratio="e", se_ratio="se"),
    "mha": _ATTENTION,
    "mqa": _ATTENTION,
}
_NEEDED = {**dict.fromkeys(("cn", "ds", "dsa"), "rksc"), **dict.fromkeys(("ir", "er", "uir"), "rksce"),
           **dict.fromkeys(("mha", "mqa"), "rkscdh")}
_MAX_BLOCKS = 10_000  # of a stage: they are written out in memory


def decode_block(text: str) -> tuple[dict[str, Any], int]:
    """Read one block string: the block's arguments, and how often it is repeated.

    Raises:
        ValueError: The kind of block or an option is unknown, or an option that the kind needs is missing.
    """
    kind, *words = text.split("_")
    if kind not in _NEEDED:
        raise ValueError(f"unknown block '{kind}' in '{text}'; known: {', '.join(_NEEDED)}")
    options: dict[str, Any] = {}
    skip, act = None, None
    for word in words:
        match = re.fullmatch(r"([a-z]+?)(\d[\d.]*)", word)
        try:
            if word in ("skip", "noskip"):
                skip = word == "skip"
            elif word in _ACTS:
                act = get_act_layer(_ACTS[word])
            else:
                letter = match[1] if match else ""
                options[letter] = _OPTIONS[letter](match[2] if match else "")
        except (KeyError, ValueError):
            raise ValueError(f"cannot read the option '{word}' in the block string '{text}'") from None
    missing = [letter for letter in _NEEDED[kind] if letter not in options]
    if missing:
        raise ValueError(f"the block string '{text}' lacks the option{'s' * (len(missing) > 1)} {', '.join(missing)}")
    block: dict[str, Any] = dict(block_type=kind, out_chs=options["c"], stride=options["s"], act_layer=act)
    unless_given = dict(_UNLESS_GIVEN, a=0, p=0) if kind == "uir" else _UNLESS_GIVEN  # 0 is no convolution
    given = {**unless_given, **options}
    block |= {argument: given[option] for argument, option in _ARGUMENTS[kind].items() if option in given}
    block |= dict(skip=skip is True) if kind == "cn" else dict(noskip=skip is False or kind == "dsa")
    if "s2d" in block:
        block["s2d"] = block["s2d"] > 0
    if kind in ("ds", "dsa"):
        block["pw_act"] = kind == "dsa"
    if "gs" in options:
        block["group_size"] = options["gs"]
    return block, options["r"]


def decode_arch_def(
    arch_def: Sequence[Sequence[str | Mapping[str, Any]]], depth_multiplier: float | Sequence[float] = 1.0,
    depth_trunc: str = "ceil", experts_multiplier: int = 1, fix_first_last: bool = False, group_size: int | None = None,
) -> BlockArgs:
    """The blocks of each stage, repeats written out and scaled.

    Args:
        arch_def: Block strings of each stage, or what has been decoded of them.
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
    stages: BlockArgs = []
    for blocks, multiplier in zip(arch_def, multipliers):
        decoded = [decode_block(block) if isinstance(block, str) else (dict(block), 1) for block in blocks]
        repeats = _scale_repeats([count for _, count in decoded], multiplier, depth_trunc)
        if sum(repeats) > _MAX_BLOCKS:
            raise ValueError(f"a stage of {sum(repeats)} blocks")
        stage = []
        for (block, _), count in zip(decoded, repeats):
            if "num_experts" in block:
                block["num_experts"] *= experts_multiplier
            if group_size is not None:
                block.setdefault("group_size", group_size)
            stage += [dict(block) for _ in range(count)]
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
    """Scaled channel count, rounded to a multiple of `divisor`; see `make_divisible` for the other two.

    A `multiplier` of 0 leaves it as it is.
    """
    if not multiplier:
        return channels  # type: ignore[return-value]
    return make_divisible(channels * multiplier, divisor, channel_min, round_limit)


def arch(*stages: str) -> tuple[tuple[str, ...], ...]:
    """What `decode_arch_def` reads, of texts of block strings, a text each stage."""
    return tuple(tuple(stage.split()) for stage in stages)


def scaled(channels: float, depth: float | Sequence[float] = 1.0) -> dict[str, Any]:
    """The arguments of a `MobileModel` that is an architecture times these factors."""
    return dict(channel_multiplier=channels, depth_multiplier=depth)


# --- the blocks


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation as EfficientNet and MobileNet have it; keys `conv_reduce`, `conv_expand`.

    Shapes: (B, C, H, W) -> same.
    Source: Hu et al., "Squeeze-and-Excitation Networks", 2018; widths as in the TensorFlow code of MnasNet.

    Args:
        rd_ratio, rd_channels: Squeezed channels per channel, or their number.
        act_layer, gate_layer: The block's activation, used after the squeeze; that which makes the gate.
        force_act_layer: Used instead of the block's activation.
        rd_round_fn: How the squeezed width is rounded; to the nearest integer unless given.
    """

    @placeable
    def __init__(
        self, in_chs: int, rd_ratio: float = 0.25, rd_channels: int | None = None, act_layer: ActLayer = nn.ReLU,
        gate_layer: ActLayer = nn.Sigmoid, force_act_layer: ActLayer = None,
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


class _Residual(nn.Module):
    """A block that adds its input to what `body` makes of it, where their shapes agree, unless `noskip`.

    `projection` is the path of its last convolution but for depthwise ones. Some begin with a space-to-depth
    convolution, which belongs to the body.
    """

    projection: ClassVar[str] = "conv_pwl"

    def __init__(self, in_chs: int, out_chs: int, stride: int, noskip: bool, drop_path_rate: float) -> None:
        super().__init__()
        self.has_skip = not noskip and stride == 1 and in_chs == out_chs
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate else nn.Identity()
        self.conv_s2d: nn.Module | None = None
        self.bn_s2d: nn.Module | None = None

    def feature_info(self, location: str) -> dict[str, Any]:
        """Where a tap of the block is, and its channels: its output; for "expansion", what the projection takes."""
        conv: Any = self.get_submodule(self.projection)
        if location == "expansion":
            return dict(module=self.projection, hook_type="forward_pre", num_chs=conv.in_channels)
        return dict(module="", num_chs=conv.out_channels)

    def add_space_to_depth(
        self, in_chs: int, kernel_size: int, padding: Padding, norm_act: Callable[..., nn.Module]
    ) -> tuple[int, int, Padding]:
        """Add a strided 2x2 convolution to four times the channels, and its norm; EfficientNet-X (Li et al., 2021).

        Returns:
            Channels, kernel size and padding of the spatial convolution behind it, whose kernel is halved with the map.
        """
        self.conv_s2d = create_conv2d(in_chs, 4 * in_chs, 2, stride=2, padding="same")
        self.bn_s2d = norm_act(4 * in_chs)
        half = (kernel_size + 1) // 2
        return 4 * in_chs, half, "same" if half == 2 else padding

    def body(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x if self.conv_s2d is None or self.bn_s2d is None else self.bn_s2d(self.conv_s2d(x)))
        return self.drop_path(y) + x if self.has_skip else y


def _spatial(
    in_chs: int, out_chs: int, kernel_size: KernelSize, stride: int, dilation: int, groups: int, padding: Padding,
    norm_layer: NormLayer, act_layer: ActLayer, aa_layer: AaLayer, se_layer: SeLayer = None,
    conv: Callable[..., nn.Module] = create_conv2d,
) -> tuple[Any, Any, Any, Any]:
    """A block's spatial convolution, its norm and activation, the downsampling that takes over its stride, and channel
    attention."""
    blurs = aa_layer is not None and stride > 1
    return (
        conv(in_chs, out_chs, kernel_size, stride=1 if blurs else stride, dilation=dilation, groups=groups,
             padding=padding),
        get_norm_act_layer(norm_layer, act_layer)(out_chs, inplace=True),
        create_aa(aa_layer, channels=out_chs, stride=stride, enable=blurs),
        _attention(se_layer, out_chs, act_layer))


def _attention(se_layer: Any, chs: int, act_layer: ActLayer) -> nn.Module:
    attn: nn.Module = se_layer(chs, act_layer=act_layer) if se_layer else nn.Identity()
    return attn


class ConvBnAct(_Residual):
    """A convolution, norm and activation ("cn"). Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride).

    The arguments that all blocks share:

    Args:
        stride, dilation, group_size, pad_type: Of the spatial convolution; group size 0 is dense, 1 depthwise.
        skip: Whether to add the input where the shapes allow it.
        aa_layer: Anti-aliased downsampling that takes over the stride.
        se_layer: Channel attention, a class that is given channels and `act_layer`.
        drop_path_rate: Stochastic depth.
    """

    projection: ClassVar[str] = "conv"

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, kernel_size: KernelSize, stride: int = 1, dilation: int = 1,
        group_size: int = 0, pad_type: Padding = "", skip: bool = False, act_layer: ActLayer = nn.ReLU,
        norm_layer: NormLayer = nn.BatchNorm2d, aa_layer: AaLayer = None, drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__(in_chs, out_chs, stride, not skip, drop_path_rate)
        self.conv, self.bn1, self.aa, _ = _spatial(
            in_chs, out_chs, kernel_size, stride, dilation, num_groups(group_size, in_chs), pad_type, norm_layer,
            act_layer, aa_layer)

    def feature_info(self, location: str) -> dict[str, Any]:
        info = super().feature_info("")
        return {**info, "module": "bn1", "hook_type": "forward"} if location == "expansion" else info

    def body(self, x: Tensor) -> Tensor:
        return self.aa(self.bn1(self.conv(x)))


class DepthwiseSeparableConv(_Residual):
    """Depthwise, then pointwise convolution: MobileNetV1's block and the inverted residual without expansion ("ds").

    Shapes and arguments as for `ConvBnAct`, besides:

    Args:
        dw_kernel_size, pw_kernel_size: Kernels of the depthwise and the pointwise convolution.
        noskip: Never add the input; else, where the shapes allow it.
        pw_act: Apply the activation after the pointwise convolution too ("dsa").
        s2d: 1 to start with a space-to-depth convolution, which halves the kernel as it halves the resolution.
    """

    projection: ClassVar[str] = "conv_pw"

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, dw_kernel_size: KernelSize = 3, stride: int = 1, dilation: int = 1,
        group_size: int = 1, pad_type: Padding = "", noskip: bool = False, pw_kernel_size: KernelSize = 1,
        pw_act: bool = False, s2d: int = 0, act_layer: ActLayer = nn.ReLU, norm_layer: NormLayer = nn.BatchNorm2d,
        aa_layer: AaLayer = None, se_layer: SeLayer = None, drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__(in_chs, out_chs, stride, noskip, drop_path_rate)
        norm_act, dw_padding = get_norm_act_layer(norm_layer, act_layer), pad_type
        if s2d == 1:
            in_chs, dw_kernel_size, dw_padding = self.add_space_to_depth(in_chs, dw_kernel_size, pad_type, norm_act)
            aa_layer = None
        self.conv_dw, self.bn1, self.aa, self.se = _spatial(
            in_chs, in_chs, dw_kernel_size, stride, dilation, num_groups(group_size, in_chs), dw_padding, norm_layer,
            act_layer, aa_layer, se_layer)
        self.conv_pw = create_conv2d(in_chs, out_chs, pw_kernel_size, padding=pad_type)
        self.bn2 = norm_act(out_chs, inplace=True, apply_act=pw_act)

    def body(self, x: Tensor) -> Tensor:
        x = self.se(self.aa(self.bn1(self.conv_dw(x))))
        return self.bn2(self.conv_pw(x))


class InvertedResidual(_Residual):
    """Pointwise expansion, depthwise convolution, linear pointwise projection: MBConv ("ir").

    Shapes and arguments as for `DepthwiseSeparableConv`, besides:

    Args:
        exp_ratio, exp_kernel_size: Channels of the expansion per input channel, and its kernel.
        conv_kwargs: Further arguments of the three convolutions (`num_experts`, see `CondConvResidual`).

    Source: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018.
    """

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, dw_kernel_size: KernelSize = 3, stride: int = 1, dilation: int = 1,
        group_size: int = 1, pad_type: Padding = "", noskip: bool = False, exp_ratio: float = 1.0,
        exp_kernel_size: KernelSize = 1, pw_kernel_size: KernelSize = 1, s2d: int = 0, act_layer: ActLayer = nn.ReLU,
        norm_layer: NormLayer = nn.BatchNorm2d, aa_layer: AaLayer = None, se_layer: SeLayer = None,
        conv_kwargs: Mapping[str, Any] | None = None, drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__(in_chs, out_chs, stride, noskip, drop_path_rate)
        norm_act, dw_padding = get_norm_act_layer(norm_layer, act_layer), pad_type
        conv: Callable[..., nn.Module] = partial(create_conv2d, **(conv_kwargs or {}))
        if s2d == 1:
            in_chs, dw_kernel_size, dw_padding = self.add_space_to_depth(in_chs, dw_kernel_size, pad_type, norm_act)
            aa_layer = None
        mid_chs = make_divisible(in_chs * exp_ratio)
        self.conv_pw = conv(in_chs, mid_chs, exp_kernel_size, padding=pad_type)
        self.bn1 = norm_act(mid_chs, inplace=True)
        self.conv_dw, self.bn2, self.aa, self.se = _spatial(
            mid_chs, mid_chs, dw_kernel_size, stride, dilation, num_groups(group_size, mid_chs), dw_padding, norm_layer,
            act_layer, aa_layer, se_layer, conv)
        self.conv_pwl = conv(mid_chs, out_chs, pw_kernel_size, padding=pad_type)
        self.bn3 = norm_act(out_chs, apply_act=False)

    def body(self, x: Tensor, *routing: Tensor) -> Tensor:
        x = self.bn1(self.conv_pw(x, *routing))
        x = self.se(self.aa(self.bn2(self.conv_dw(x, *routing))))
        return self.bn3(self.conv_pwl(x, *routing))


class CondConvResidual(InvertedResidual):
    """An inverted residual whose kernels are mixed, for each image, from `num_experts` kernels.

    Source: Yang et al., "CondConv: Conditionally Parameterized Convolutions for Efficient Inference", 2019.
    """

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, dw_kernel_size: KernelSize = 3, stride: int = 1, dilation: int = 1,
        group_size: int = 1, pad_type: Padding = "", noskip: bool = False, exp_ratio: float = 1.0,
        exp_kernel_size: KernelSize = 1, pw_kernel_size: KernelSize = 1, act_layer: ActLayer = nn.ReLU,
        norm_layer: NormLayer = nn.BatchNorm2d, aa_layer: AaLayer = None, se_layer: SeLayer = None,
        num_experts: int = 0, drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__(
            in_chs, out_chs, dw_kernel_size, stride, dilation, group_size, pad_type, noskip, exp_ratio, exp_kernel_size,
            pw_kernel_size, act_layer=act_layer, norm_layer=norm_layer, aa_layer=aa_layer, se_layer=se_layer,
            conv_kwargs=dict(num_experts=num_experts), drop_path_rate=drop_path_rate)
        self.routing_fn = nn.Linear(in_chs, num_experts)

    def body(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().body(x, torch.sigmoid(self.routing_fn(x.mean((2, 3)))))


class EdgeResidual(_Residual):
    """Expansion by a full convolution, then linear pointwise projection: Fused-MBConv ("er").

    Shapes and arguments as for `InvertedResidual`; `force_in_chs`, where it is not 0, is what the expansion is computed
    from instead of the input's channels.
    Source: Gupta and Akin, "Accelerator-aware Neural Network Design using AutoML" (EfficientNet-EdgeTPU), 2020.
    """

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, exp_kernel_size: KernelSize = 3, stride: int = 1, dilation: int = 1,
        group_size: int = 0, pad_type: Padding = "", force_in_chs: int = 0, noskip: bool = False,
        exp_ratio: float = 1.0, pw_kernel_size: KernelSize = 1, act_layer: ActLayer = nn.ReLU,
        norm_layer: NormLayer = nn.BatchNorm2d, aa_layer: AaLayer = None, se_layer: SeLayer = None,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__(in_chs, out_chs, stride, noskip, drop_path_rate)
        mid_chs = make_divisible((force_in_chs or in_chs) * exp_ratio)
        self.conv_exp, self.bn1, self.aa, self.se = _spatial(
            in_chs, mid_chs, exp_kernel_size, stride, dilation, num_groups(group_size, mid_chs), pad_type, norm_layer,
            act_layer, aa_layer, se_layer)
        self.conv_pwl = create_conv2d(mid_chs, out_chs, pw_kernel_size, padding=pad_type)
        self.bn2 = get_norm_act_layer(norm_layer, act_layer)(out_chs, apply_act=False)

    def body(self, x: Tensor) -> Tensor:
        x = self.se(self.aa(self.bn1(self.conv_exp(x))))
        return self.bn2(self.conv_pwl(x))


class UniversalInvertedResidual(_Residual):
    """Inverted residual with up to three optional depthwise convolutions ("uir").

    They stand before the expansion, between expansion and projection, and after the projection; the stride belongs to
    the middle one, else the first, else the last. Shapes and arguments as for `InvertedResidual`, besides:

    Args:
        dw_kernel_size_start, dw_kernel_size_mid, dw_kernel_size_end: Kernels of the three, 0 for none.
        conv_kwargs: Further arguments of `ConvNormAct`.
        layer_scale_init_value: Initial value of a scale on the branch, None for none.

    Raises:
        ValueError: There is a stride and nothing that could have it.

    Source: Qin et al., "MobileNetV4: Universal Models for the Mobile Ecosystem", 2024.
    """

    projection: ClassVar[str] = "pw_proj.conv"

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, dw_kernel_size_start: KernelSize = 0, dw_kernel_size_mid: KernelSize = 3,
        dw_kernel_size_end: KernelSize = 0, stride: int = 1, dilation: int = 1, group_size: int = 1,
        pad_type: Padding = "", noskip: bool = False, exp_ratio: float = 1.0, act_layer: ActLayer = nn.ReLU,
        norm_layer: NormLayer = nn.BatchNorm2d, aa_layer: AaLayer = None, se_layer: SeLayer = None,
        conv_kwargs: Mapping[str, Any] | None = None, drop_path_rate: float = 0.0,
        layer_scale_init_value: float | None = 1e-5,
    ) -> None:
        super().__init__(in_chs, out_chs, stride, noskip, drop_path_rate)
        kernels = {"mid": dw_kernel_size_mid, "start": dw_kernel_size_start, "end": dw_kernel_size_end}
        strided = next((place for place, kernel in kernels.items() if kernel), None)
        if stride > 1 and strided is None:
            raise ValueError("a universal inverted residual with a stride needs a depthwise convolution")
        conv: Callable[..., nn.Module] = partial(
            ConvNormAct, padding=pad_type, act_layer=act_layer, norm_layer=norm_layer, **(conv_kwargs or {}))

        def depthwise(place: str, chs: int, apply_act: bool) -> nn.Module:
            if not kernels[place]:
                return nn.Identity()
            return conv(chs, chs, kernels[place], stride=stride if place == strided else 1, dilation=dilation,
                        groups=num_groups(group_size, chs), apply_act=apply_act, aa_layer=aa_layer)

        mid_chs = make_divisible(in_chs * exp_ratio)
        self.dw_start = depthwise("start", in_chs, apply_act=False)
        self.pw_exp = conv(in_chs, mid_chs, 1)
        self.dw_mid = depthwise("mid", mid_chs, apply_act=True)
        self.se = _attention(se_layer, mid_chs, act_layer)
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
        stride: Other than 1 it forbids the shortcut; nothing is strided by it.
        group_size, aa_layer: Without effect: all blocks are given them.
        num_heads: Heads; None for as many as there are keys in the channels.
        use_multi_query: Share one key and one value among the heads.
        key_dim, value_dim: Channels of a key and a value; multi-query attention only, else in_chs / num_heads.
        query_strides: At which queries are pooled, vertical and horizontal; multi-query attention only.
        kv_stride, dw_kernel_size: Of a depthwise convolution on keys and values; multi-query attention only.
        use_cpe, cpe_dw_kernel_size: Add a depthwise convolution of the input to it, which tells positions; its kernel.
        attn_drop, proj_drop: Dropout of the attention weights and of the attention's output.
        layer_scale_init_value: Initial value of a scale on the branch, None for none.
        use_bias: Whether the projections of multi-head attention have a bias.

    Raises:
        ValueError: `num_heads` is None, and a key's channels do not divide the input's.
    """

    projection: ClassVar[str] = "attn.proj"

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, stride: int = 1, dw_kernel_size: KernelSize = 3, dilation: int = 1,
        group_size: int = 1, pad_type: Padding = "", num_heads: int | None = 8, key_dim: int = 64, value_dim: int = 64,
        use_multi_query: bool = False, query_strides: int | tuple[int, int] = (1, 1), kv_stride: int = 1,
        cpe_dw_kernel_size: KernelSize = 3, noskip: bool = False, act_layer: ActLayer = nn.ReLU,
        norm_layer: NormLayer = nn.BatchNorm2d, aa_layer: AaLayer = None, drop_path_rate: float = 0.0,
        attn_drop: float = 0.0, proj_drop: float = 0.0, layer_scale_init_value: float | None = 1e-5,
        use_bias: bool = False, use_cpe: bool = False,
    ) -> None:
        super().__init__(in_chs, out_chs, stride, noskip, drop_path_rate)
        if num_heads is None:
            if in_chs % key_dim:
                raise ValueError(f"{in_chs} channels cannot be divided into heads of {key_dim}; give num_heads")
            num_heads = in_chs // key_dim
        self.conv_cpe_dw = create_conv2d(in_chs, in_chs, cpe_dw_kernel_size, dilation=dilation, depthwise=True,
                                         bias=True) if use_cpe else None
        self.norm = get_norm_act_layer(norm_layer, act_layer)(in_chs, apply_act=False)
        if use_multi_query:
            self.projection = "attn.output.proj"
            self.attn: nn.Module = MultiQueryAttention2d(
                in_chs, out_chs, num_heads, key_dim, value_dim, query_strides=to_2tuple(query_strides),
                kv_stride=kv_stride, dw_kernel_size=dw_kernel_size, dilation=dilation, padding=pad_type,
                attn_drop=attn_drop, proj_drop=proj_drop, norm_layer=norm_layer)
        else:
            self.attn = Attention2d(in_chs, out_chs, num_heads, use_bias, attn_drop=attn_drop, proj_drop=proj_drop)
        self.layer_scale = _layer_scale(out_chs, layer_scale_init_value)

    def body(self, x: Tensor) -> Tensor:
        return self.layer_scale(self.attn(self.norm(x)))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if self.conv_cpe_dw is None else x + self.conv_cpe_dw(x))


def _layer_scale(chs: int, init_value: float | None) -> nn.Module:
    return nn.Identity() if init_value is None else LayerScale2d(chs, init_value)


# --- from what is decoded to modules

_BLOCKS: dict[str, Callable[..., nn.Module]] = {
    "cn": ConvBnAct, "ds": DepthwiseSeparableConv, "dsa": DepthwiseSeparableConv, "ir": InvertedResidual,
    "er": EdgeResidual, "uir": UniversalInvertedResidual, "mha": MobileAttention, "mqa": MobileAttention,
}
_LOCATIONS = ("", "bottleneck", "expansion")


class EfficientNetBuilder:
    """Makes a network's stages of blocks, which it gives strides, dilations and stochastic depth by their places.

    Args:
        pad_type, norm_layer, aa_layer: Of the blocks.
        round_chs_fn: Scales and rounds a number of channels.
        se_from_exp: The ratios of channel attention refer to the expanded channels, not to the block's input.
        act_layer: Activation of blocks that name none.
        se_layer: Channel attention of blocks that have a ratio, as `get_attn` takes it; None for none.
        layer_scale_init_value: Initial layer scale of "uir" and attention blocks, None for none.
        feature_location: Where taps are: "" or "bottleneck", a stage's output; "expansion", what the projection of its
            last block takes.
        device, dtype: Of the blocks' tensors.

    Attributes:
        in_chs: Channels of the last block's output.
        features: Of each tap a dict: `module`, `num_chs`, `reduction` and `stage`, counted from 1; the stem's is 0.

    Raises:
        ValueError: An option has an unknown value; from a call, a kind of block is unknown, or it names no activation
            and there is none for all.
    """

    def __init__(
        self, output_stride: int = 32, pad_type: Padding = "", round_chs_fn: Callable[..., int] = round_channels,
        se_from_exp: bool = False, act_layer: ActLayer = None, norm_layer: NormLayer = None, aa_layer: AaLayer = None,
        se_layer: SeLayer = None, drop_path_rate: float = 0.0, layer_scale_init_value: float | None = None,
        feature_location: str = "", device: Any = None, dtype: Any = None,
    ) -> None:
        if feature_location not in _LOCATIONS:
            raise ValueError(f"unknown feature_location '{feature_location}'; known: bottleneck, expansion")
        self.output_stride, self.drop_path_rate, self.feature_location = output_stride, drop_path_rate, feature_location
        self.round_chs_fn, self.se_from_exp, self.se_layer = round_chs_fn, se_from_exp, get_attn(se_layer)
        self.se_has_ratio = self.se_layer is not None and _takes(self.se_layer, "rd_ratio")
        self.act_layer, self.layer_scale_init_value = act_layer, layer_scale_init_value
        self.shared: dict[str, Any] = dict(pad_type=pad_type, norm_layer=norm_layer)
        given = dict(aa_layer=aa_layer, device=device, dtype=dtype)
        self.shared |= {name: value for name, value in given.items() if value is not None}
        self.in_chs = 0
        self.features: list[dict[str, Any]] = []

    def __call__(self, in_chs: int, model_block_args: Sequence[Sequence[Mapping[str, Any]]]) -> list[nn.Sequential]:
        """The stages behind a stem of `in_chs` channels and stride 2, of what `decode_arch_def` gives."""
        self.in_chs, self.features = in_chs, []
        reduction, dilation, s2d = 2, 1, 0  # s2d: 0 outside a space-to-depth region, 1 where it begins, 2 within it
        first = model_block_args[0][0]
        if first["stride"] > 1 or first.get("s2d"):
            self.features.append(dict(module="bn1", num_chs=in_chs, stage=0, reduction=reduction))
        stages: list[nn.Sequential] = []
        index, total = 0, sum(map(len, model_block_args))
        for i, stage in enumerate(model_block_args):
            blocks: list[Any] = []
            for j, given in enumerate(stage):
                block = dict(given)
                stride = block["stride"] if j == 0 else 1
                if block.pop("s2d", False) and s2d == 0:
                    s2d = 1
                    reduction *= 2
                elif s2d == 2 and stride == 2:  # the region's end: the stride was taken where it began
                    stride, s2d = 1, 0
                    block["exp_ratio"] /= 4
                next_dilation = dilation
                if reduction * stride > self.output_stride:
                    stride, next_dilation = 1, dilation * stride
                reduction *= stride
                block |= dict(stride=stride, dilation=dilation, drop_path_rate=self.drop_path_rate * index / total)
                blocks.append(self._make_block(block, s2d))
                dilation, index, in_region = next_dilation, index + 1, s2d > 0
                s2d = 2 if s2d else 0
            stages.append(nn.Sequential(*blocks))
            if i + 1 == len(model_block_args) or (model_block_args[i + 1][0]["stride"] > 1 and not in_region):
                info = blocks[-1].feature_info(self.feature_location)
                inner = f".{len(blocks) - 1}.{info['module']}" if info["module"] else ""
                self.features.append({**info, "module": f"blocks.{i}{inner}", "stage": i + 1, "reduction": reduction})
        return stages

    def _make_block(self, block: dict[str, Any], s2d: int) -> nn.Module:
        kind = block.pop("block_type")
        if kind not in _BLOCKS:
            raise ValueError(f"unknown block '{kind}'; known: {', '.join(_BLOCKS)}")
        block |= dict(self.shared, in_chs=self.in_chs, act_layer=block.get("act_layer") or self.act_layer,
                      out_chs=self.round_chs_fn(block["out_chs"]) * (4 if s2d else 1))
        if block["act_layer"] is None:
            raise ValueError("a block names no activation: give act_layer")
        if s2d:
            block["s2d"] = s2d
        if block.get("force_in_chs"):
            block["force_in_chs"] = self.round_chs_fn(block["force_in_chs"])
        ratio = block.pop("se_ratio", 0.0)
        if ratio and self.se_layer is not None:
            ratio = ratio if self.se_from_exp else ratio / block.get("exp_ratio", 1.0)
            kwargs = dict(rd_ratio=ratio / 4 if s2d == 1 else ratio) if self.se_has_ratio else {}
            block["se_layer"] = partial(self.se_layer, **kwargs)
        if kind in ("uir", "mha", "mqa"):
            block["layer_scale_init_value"] = self.layer_scale_init_value
        if kind == "mqa":
            block["use_multi_query"] = True
        self.in_chs = block["out_chs"]
        if block.get("num_experts"):
            return CondConvResidual(**block)
        block.pop("num_experts", None)
        return _BLOCKS[kind](**block)


def _takes(layer: Callable[..., Any], name: str) -> bool:
    parameters = inspect.signature(layer).parameters
    return name in parameters or any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())


# --- the network


class MobileInit(ImageModel):
    """A model whose convolutions and linear layers begin as in the TensorFlow code of these families.

    Convolutions: normal with variance 2 / fan-out, groups accounted for. Linear layers: uniform with bound
    1 / sqrt(outputs), or 1 / sqrt(inputs + outputs) for routing. The projections of multi-query attention: Xavier.
    """

    def init_module(self, name: str, module: nn.Module) -> None:
        if isinstance(module, (CondConv2d, nn.Conv2d, nn.Linear)):
            init_mobile_layer(module, name)
        else:
            super().init_module(name, module)


_XAVIER = re.compile(r"\.attn\.(query|key|value|output)\.(proj|down_conv)$")


def init_mobile_layer(module: nn.Module, name: str = "") -> None:
    """Initialise one layer as `MobileInit` says; what is no convolution, linear layer or batch norm stays."""
    if isinstance(module, CondConv2d):
        module.init_experts(lambda kernel: fan_out_normal_(kernel, module.groups))
    elif isinstance(module, nn.Conv2d):
        if _XAVIER.search(f".{name}"):
            nn.init.xavier_uniform_(module.weight)
        else:
            fan_out_normal_(module.weight, module.groups)
    elif isinstance(module, nn.Linear):
        fan = module.out_features + (module.in_features if "routing_fn" in name else 0)
        nn.init.uniform_(module.weight, -1 / math.sqrt(fan), 1 / math.sqrt(fan))
    elif isinstance(module, nn.BatchNorm2d) and module.affine:
        nn.init.ones_(module.weight)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def efficientnet_init_weights(model: nn.Module, init_fn: Callable[[nn.Module, str], Any] | None = None) -> None:
    """Initialise a model of these blocks.

    Modules that have `init_weights` do that in the end, inner ones first, but not the model itself.
    `init_fn`: (module, its path) -> None, in place of `init_mobile_layer`.
    """
    modules = dict(model.named_modules())
    for name, module in modules.items():
        (init_fn or init_mobile_layer)(module, name)
    for name, module in reversed(modules.items()):
        if name and hasattr(module, "init_weights"):
            module.init_weights()


class Layers(NamedTuple):
    """What a model's layers have in common: padding of convolutions, norm, activation."""

    pad_type: Padding
    norm_layer: Callable[..., nn.Module]
    act_layer: Callable[..., nn.Module]

    def conv(self, in_chs: int, out_chs: int, kernel_size: int = 1, **kwargs: Any) -> nn.Module:
        return create_conv2d(in_chs, out_chs, kernel_size, padding=self.pad_type, **kwargs)

    def norm_act(self, chs: int, **kwargs: Any) -> nn.Module:
        norm: nn.Module = get_norm_act_layer(self.norm_layer, self.act_layer)(chs, **kwargs)
        return norm


class MobileModel(MobileInit):
    """Stem convolution, stages of mobile blocks, a head that a family makes in `make_head`, and a linear classifier.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features have a stride of `output_stride`.

    Args:
        block_args: Block strings of each stage, or what `decode_arch_def` made of them.
        num_features: Channels of the head convolution; 0 for none, in families that can do without.
        stem_size, stem_kernel_size: Channels and kernel of the stem.
        fix_stem: Do not scale the stem.
        pad_type: "" for symmetric padding, "same" for TensorFlow's.
        act_layer, norm_layer: Activation of blocks that name none, and norm; ReLU and batch norm if None.
        se_layer: Channel attention of blocks that have a ratio, by class or name ("gc" for global context); None for
            `SqueezeExcite`.
        round_chs_fn: Scales and rounds a number of channels, in place of the three arguments for that below.
        bn_eps, bn_momentum: The norm's epsilon (TensorFlow's is 1e-3) and momentum, its own defaults if None.
        se_from_exp: These ratios refer to the expanded channels, not to the block's input.
        channel_multiplier: Factor on all channel counts; on the head convolution's where `head_scaling` says so.
        channel_divisor, channel_round_limit: Scaled counts are multiples of it, and no smaller than this share.
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
    stem_paths: ClassVar[tuple[str, ...]] = ("conv_stem", "bn1")  # what `make_stem` makes

    def __init__(
        self, block_args: Sequence[Sequence[str | Mapping[str, Any]]], num_classes: int = 1000,
        num_features: int = 1280, in_chans: int = 3, stem_size: int = 32, stem_kernel_size: int = 3,
        fix_stem: bool = False, output_stride: int = 32, pad_type: Padding = "", act_layer: ActLayer = None,
        norm_layer: NormLayer = None, aa_layer: AaLayer = None, se_layer: SeLayer = None,
        round_chs_fn: Callable[..., int] | None = None, drop_rate: float = 0.0, drop_path_rate: float = 0.0,
        global_pool: str = "avg", bn_eps: float | None = None, bn_momentum: float | None = None,
        se_from_exp: bool = False, channel_multiplier: float = 1.0, channel_divisor: int = 8,
        channel_round_limit: float = 0.9, head_scaling: str = "fixed", depth_multiplier: float | Sequence[float] = 1.0,
        depth_trunc: str = "ceil", fix_first_last: bool = False, experts_multiplier: int = 1,
        group_size: int | None = None, layer_scale_init_value: float | None = None,
    ) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride is 8, 16 or 32, not {output_stride}")
        if head_scaling not in _HEAD_SCALING:
            raise ValueError(f"unknown head_scaling '{head_scaling}'; known: {', '.join(_HEAD_SCALING)}")
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        round_chs = round_chs_fn or partial(
            round_channels, multiplier=channel_multiplier, divisor=channel_divisor, round_limit=channel_round_limit)
        bn_args = {key: value for key, value in (("eps", bn_eps), ("momentum", bn_momentum)) if value is not None}
        layers = Layers(pad_type, partial(get_norm_layer(norm_layer) or nn.BatchNorm2d, **bn_args),
                        get_act_layer(act_layer or "relu"))
        chs = stem_size if fix_stem else round_chs(stem_size)
        self.make_stem(in_chans, chs, stem_kernel_size, layers)
        builder = EfficientNetBuilder(
            output_stride, pad_type, round_chs, se_from_exp, layers.act_layer, layers.norm_layer, aa_layer,
            se_layer or SqueezeExcite, drop_path_rate, layer_scale_init_value)
        self.blocks = nn.Sequential(*builder(chs, decode_arch_def(
            block_args, depth_multiplier, depth_trunc, experts_multiplier, fix_first_last, group_size)))
        taps = {tap["stage"]: (tap["num_chs"], tap["reduction"]) for tap in builder.features}
        *stem, last = self.stem_paths
        chs, reduction = taps.get(0, (None, None))
        self.flow = Flow(stem=[*map(Step, stem), Step(last, chs, reduction, "bn1")],  # timm's name, even of no module
                         stages=[Step(f"blocks.{i}", *taps.get(i + 1, ())) for i in range(len(self.blocks))])
        self.num_features = builder.in_chs
        if num_features > 0 and head_scaling != "fixed":
            num_features = max(num_features if head_scaling == "grow" else 0, round_chs(num_features))
        self.make_head(num_features, global_pool, layers)
        self.classifier = self.make_classifier(num_classes)
        self.init_weights()

    def tap_facts(self, module: str) -> dict[str, Any]:
        """`stage`: the number of the tap's stage, counted from 1; the stem's is 0."""
        return {"stage": int(module.partition(".")[2] or -1) + 1}

    def make_stem(self, in_chans: int, chs: int, kernel_size: int, layers: Layers) -> None:
        """Make what gives, of the image, `chs` channels with a stride of 2. Called by the constructor."""
        self.conv_stem: nn.Module = layers.conv(in_chans, chs, kernel_size, stride=2)
        self.bn1 = layers.norm_act(chs, inplace=True)

    def make_head(self, num_features: int, global_pool: str, layers: Layers) -> None:
        """Make what stands between the stages, whose width is `self.num_features`, and the classifier.

        Called by the constructor. Sets `global_pool`, `head_hidden_size` (the classifier's width) and, where a
        convolution to `num_features` channels comes before the pooling, `self.num_features`.
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


def _position(path: str) -> list[tuple[int, int, str]]:
    """Sorts paths of layers by the numbers in them, "features.2.0" before "features.10.0", and a classifier last."""
    return [(int(path.startswith("classifier")), 0, ""), *(
        (0, int(part), "") if part.isdigit() else (1, 0, part) for part in path.split("."))]


def rename_in_order(
    state_dict: StateDict, model: nn.Module, head: str, order: Callable[[str], Any] = _position
) -> StateDict:
    """Give the layers of a foreign state dict our names, one after the other; for networks that run in one order.

    A checkpoint of another architecture keeps the names for which we have no layer, and shapes that do not fit: loading
    reports both. Ours stand in the order in which they run, but for the classifier.

    Args:
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
