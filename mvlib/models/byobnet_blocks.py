"""The blocks and stems of which `byobnet` and `byoanet` are built.

A block is made by name (`create_block`), of layers that the model chooses (`LayerFn`); `register_block` adds others,
which take the arguments of `ResidualBlock` up to `drop_path_rate`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from ..layers.branches import BranchedBlock
from ..layers.conv import ConvNormAct, create_conv2d, num_groups
from ..layers.drop import DropPath
from ..layers.helpers import make_divisible
from ..layers.norm import BatchNormAct2d
from ..layers.padding import get_padding
from ..layers.pool import shortcut_pool
from .base import Step

__all__ = [
    "BasicBlock", "BottleneckBlock", "DarkBlock", "EdgeBlock", "LayerFn", "MobileOneBlock", "RepVggBlock",
    "ResidualBlock", "SelfAttnBlock", "create_block", "create_byob_stem", "register_block",
]

Layer = Callable[..., Any]

_DOWNSAMPLES = ("conv1x1", "avg", "")
_STEM_TYPES = ("", "3x3", "7x7", "deep", "tiered", "quad", "quad2", "rep", "one")
_POOLS: dict[str, Layer] = {  # of stems
    "max": lambda: nn.MaxPool2d(3, stride=2, padding=1), "avg": lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "max2": lambda: nn.MaxPool2d(2), "avg2": lambda: nn.AvgPool2d(2)}
_POOLS.update(maxpool=_POOLS["max"], avgpool=_POOLS["avg"])


@dataclass(frozen=True)
class LayerFn:
    """What makes the layers of a block.

    Attributes:
        conv_norm_act: A `ConvNormAct`.
        norm_act: A norm with activation, of so many channels.
        act: An activation.
        attn: Channel attention, of so many channels; None for none.
        self_attn: Attention between positions, (channels, stride=, feat_size=).
    """

    conv_norm_act: Layer = ConvNormAct
    norm_act: Layer = BatchNormAct2d
    act: Layer = nn.ReLU
    attn: Layer | None = None
    self_attn: Layer | None = None


# --- residual blocks


@dataclass(frozen=True)
class Plan:
    """Numbers and layers of which a residual block makes its branch.

    Attributes:
        in_chs, mid_chs, out_chs: Channels before, within and behind the branch.
        kernel_size: Of the k x k convolutions.
        stride: Of the first of them.
        dilation: Of the first, and of those behind it.
        groups: Of those that have `mid_chs` channels.
        drop_layer: Drops squares of a map; None for nothing.
        feat_size: Rows and columns of the input, where they are fixed.
    """

    in_chs: int
    mid_chs: int
    out_chs: int
    kernel_size: int
    stride: int
    dilation: tuple[int, int]
    groups: int
    layers: LayerFn
    drop_layer: Layer | None
    feat_size: tuple[int, int] | None

    def conv(self, in_chs: int, out_chs: int, kernel_size: int = 1, **kwargs: Any) -> nn.Module:
        return self.layers.conv_norm_act(in_chs, out_chs, kernel_size, **kwargs)

    def strided(self, in_chs: int, out_chs: int, **kwargs: Any) -> nn.Module:
        """The k x k convolution with the block's stride."""
        return self.conv(in_chs, out_chs, self.kernel_size, stride=self.stride, dilation=self.dilation[0], **kwargs)

    def kxk(self, in_chs: int, out_chs: int, **kwargs: Any) -> nn.Module:
        """A k x k convolution behind it."""
        return self.conv(in_chs, out_chs, self.kernel_size, dilation=self.dilation[1], **kwargs)

    def attn(self, chs: int, enable: bool) -> nn.Module | None:
        return self.layers.attn(chs) if enable and self.layers.attn is not None else None


Branch = dict[str, nn.Module | None]  # layers one after the other; None for one that is left out


class ResidualBlock(nn.Module):
    """A branch of layers beside a shortcut, and an activation of their sum; subclasses say what the branch is.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride).

    Args:
        in_chs: Input channels.
        out_chs: Output channels.
        kernel_size: Side of the branch's larger kernels.
        stride: Stride.
        dilation: Of the first k x k convolution, and of those behind it.
        group_size: Channels in the groups of k x k convolutions; 1 for depthwise ones, 0 or None for one group.
        bottle_ratio: Channels within the branch per output channel.
        downsample: How the shortcut changes shape: "conv1x1", "avg" (average pool, then 1x1 convolution), or "" for no
            shortcut where it would have to.
        linear_out: No activation behind the sum.
        bottle_in: `bottle_ratio` is per input channel.
        layers: What makes the layers.
        drop_block: Makes a module that drops squares within the branch.
        drop_path_rate: Rate of stochastic depth.
        feat_size: Rows and columns of the input, for self-attention that is made for them.
        options: The branch's own: `attn_last` (channel attention at its end instead of within), `extra_conv` (a k x k
            convolution more), `post_attn_na` (norm and activation behind self-attention).

    Raises:
        ValueError: The shortcut is unknown, or groups do not divide channels.
    """

    last_conv: ClassVar[str]  # of the branch

    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: tuple[int, int] = (1, 1),
        group_size: int | None = None,
        bottle_ratio: float = 1.0,
        downsample: str = "avg",
        linear_out: bool = False,
        bottle_in: bool = False,
        layers: LayerFn = LayerFn(),
        drop_block: Layer | None = None,
        drop_path_rate: float = 0.0,
        feat_size: tuple[int, int] | None = None,
        **options: bool,
    ) -> None:
        super().__init__()
        mid_chs = make_divisible((in_chs if bottle_in else out_chs) * bottle_ratio)
        plan = Plan(in_chs, mid_chs, out_chs, kernel_size, stride, dilation, num_groups(group_size, mid_chs), layers,
                    drop_block, feat_size)
        self.shortcut = create_shortcut(downsample, in_chs, out_chs, stride, dilation, layers)
        self.branch: list[str] = []
        for name, layer in self.plan_branch(plan, **options).items():
            if layer is not None:
                self.add_module(name, layer)
                self.branch.append(name)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0.0 else nn.Identity()
        self.act = nn.Identity() if linear_out else layers.act(inplace=True)

    def plan_branch(self, plan: Plan) -> Branch:
        raise NotImplementedError

    def init_weights(self, zero_init_last: bool = False) -> None:
        """What is initialised otherwise than in its own right: the last scale, to 0 where asked for, and attention."""
        scale = getattr(getattr(self, self.last_conv).bn, "weight", None)
        if zero_init_last and self.shortcut is not None and scale is not None:
            nn.init.zeros_(scale)
        for layer in (getattr(self, name) for name in self.branch if "attn" in name):
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        branch = x
        for name in self.branch:
            branch = getattr(self, name)(branch)
        branch = self.drop_path(branch)
        if self.shortcut is not None:
            branch += self.shortcut(x)
        return self.act(branch)


class DownsampleAvg(nn.Module):
    """Average pooling and a 1x1 convolution with batch norm, whatever the model's norm is; key `conv`.

    Shapes: (B, C, H, W) -> (B, C', H / stride, W / stride).
    """

    def __init__(self, in_chs: int, out_chs: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.pool = shortcut_pool(stride, dilation)
        self.conv = ConvNormAct(in_chs, out_chs, 1, apply_act=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.pool(x))


def create_shortcut(
    downsample: str, in_chs: int, out_chs: int, stride: int, dilation: tuple[int, int], layers: LayerFn
) -> nn.Module | None:
    """What a block's input passes on its way to the output; None where the shapes differ and there is no such way."""
    if downsample not in _DOWNSAMPLES:
        raise ValueError(f"unknown downsample {downsample!r}; known: {', '.join(map(repr, _DOWNSAMPLES))}")
    if in_chs == out_chs and stride == 1 and dilation[0] == dilation[1]:
        return nn.Identity()
    if downsample == "avg":
        return DownsampleAvg(in_chs, out_chs, stride, dilation[0])
    return layers.conv_norm_act(in_chs, out_chs, 1, stride=stride, dilation=dilation[0], apply_act=False) \
        if downsample else None


class BasicBlock(ResidualBlock):
    """ResNet's basic block: k x k, k x k. Arguments of `ResidualBlock`."""

    last_conv = "conv2_kxk"

    def plan_branch(self, plan: Plan, attn_last: bool = True) -> Branch:
        return dict(
            conv1_kxk=plan.strided(plan.in_chs, plan.mid_chs),
            attn=plan.attn(plan.mid_chs, not attn_last),
            conv2_kxk=plan.kxk(plan.mid_chs, plan.out_chs, groups=plan.groups, drop_layer=plan.drop_layer,
                               apply_act=False),
            attn_last=plan.attn(plan.out_chs, attn_last))


class BottleneckBlock(ResidualBlock):
    """ResNet's bottleneck: 1x1, k x k (two where `extra_conv`), 1x1. Arguments of `ResidualBlock`."""

    last_conv = "conv3_1x1"

    def plan_branch(self, plan: Plan, attn_last: bool = False, extra_conv: bool = False) -> Branch:
        mid_chs, groups = plan.mid_chs, plan.groups
        return dict(
            conv1_1x1=plan.conv(plan.in_chs, mid_chs),
            conv2_kxk=plan.strided(mid_chs, mid_chs, groups=groups, drop_layer=plan.drop_layer),
            conv2b_kxk=plan.kxk(mid_chs, mid_chs, groups=groups) if extra_conv else None,
            attn=plan.attn(mid_chs, not attn_last),
            conv3_1x1=plan.conv(mid_chs, plan.out_chs, apply_act=False),
            attn_last=plan.attn(plan.out_chs, attn_last))


class DarkBlock(ResidualBlock):
    """DarkNet's block: 1x1, k x k. Arguments of `ResidualBlock`."""

    last_conv = "conv2_kxk"

    def plan_branch(self, plan: Plan, attn_last: bool = True) -> Branch:
        return dict(
            conv1_1x1=plan.conv(plan.in_chs, plan.mid_chs),
            attn=plan.attn(plan.mid_chs, not attn_last),
            conv2_kxk=plan.strided(plan.mid_chs, plan.out_chs, groups=plan.groups, drop_layer=plan.drop_layer,
                                   apply_act=False),
            attn_last=plan.attn(plan.out_chs, attn_last))


class EdgeBlock(ResidualBlock):
    """An EfficientNet's edge residual with an activation at its end: k x k, 1x1. Arguments of `ResidualBlock`."""

    last_conv = "conv2_1x1"

    def plan_branch(self, plan: Plan, attn_last: bool = False) -> Branch:
        return dict(
            conv1_kxk=plan.strided(plan.in_chs, plan.mid_chs, groups=plan.groups, drop_layer=plan.drop_layer),
            attn=plan.attn(plan.mid_chs, not attn_last),
            conv2_1x1=plan.conv(plan.mid_chs, plan.out_chs, apply_act=False),
            attn_last=plan.attn(plan.out_chs, attn_last))


class SelfAttnBlock(ResidualBlock):
    """A bottleneck of self-attention: 1x1, k x k (where `extra_conv`), attention, 1x1. Arguments of `ResidualBlock`."""

    last_conv = "conv3_1x1"

    def plan_branch(self, plan: Plan, extra_conv: bool = False, post_attn_na: bool = True) -> Branch:
        if plan.layers.self_attn is None:
            raise ValueError("a block of self-attention needs a self_attn_layer, its own or the model's")
        mid_chs, stride = plan.mid_chs, 1 if extra_conv else plan.stride
        size = {} if plan.feat_size is None else dict(feat_size=plan.feat_size)
        return dict(
            conv1_1x1=plan.conv(plan.in_chs, mid_chs),
            conv2_kxk=plan.strided(mid_chs, mid_chs, groups=plan.groups, drop_layer=plan.drop_layer)
            if extra_conv else None,
            self_attn=plan.layers.self_attn(mid_chs, stride=stride, **size),
            post_attn=plan.layers.norm_act(mid_chs) if post_attn_na else None,
            conv3_1x1=plan.conv(mid_chs, plan.out_chs, apply_act=False))


# --- blocks of branches that become one convolution


class ByoBranchedBlock(BranchedBlock):
    """A `BranchedBlock` made as the other blocks are.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride).

    Args:
        in_chs, out_chs, kernel_size, stride, dilation, group_size, layers, drop_block: As of `ResidualBlock`.
        bottle_ratio, downsample: Without effect.
        drop_path_rate: Stochastic depth of the convolutions, where the input is a branch, too.
        inference_mode: The one convolution that the branches would become; timm's has no padding.
        options: The branches' own.
    """

    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: tuple[int, int] = (1, 1),
        group_size: int | None = None,
        bottle_ratio: float = 1.0,
        downsample: str = "",
        layers: LayerFn = LayerFn(),
        drop_block: Layer | None = None,
        drop_path_rate: float = 0.0,
        inference_mode: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        groups = num_groups(group_size, in_chs)
        if inference_mode:
            padding = get_padding(kernel_size, stride, dilation[0])
            self.reparam_conv = nn.Conv2d(in_chs, out_chs, kernel_size, stride, padding, dilation[0], groups)
        else:
            if in_chs == out_chs and stride == 1 and dilation[0] == dilation[1]:
                self.identity = layers.norm_act(out_chs, apply_act=False)
                self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0.0 else None

            def conv(kernel_size: int, **kwargs: Any) -> nn.Module:
                return layers.conv_norm_act(
                    in_chs, out_chs, kernel_size, stride=stride, groups=groups, apply_act=False, **kwargs)

            self.add_branches(conv, kernel_size, dilation[0], drop_block, **options)
        if layers.attn is not None:
            self.attn = layers.attn(out_chs)
        self.act = layers.act(inplace=True)

    def add_branches(self, conv: Layer, kernel_size: int, dilation: int, drop_block: Layer | None) -> None:
        raise NotImplementedError

    def init_weights(self, zero_init_last: bool = False) -> None:
        """Nothing besides what each module does."""


class RepVggBlock(ByoBranchedBlock):
    """RepVGG's block: k x k, 1 x 1 and the input. Arguments of `ByoBranchedBlock`."""

    branch_names: ClassVar[tuple[str, ...]] = ("conv_1x1", "conv_kxk")

    def add_branches(self, conv: Layer, kernel_size: int, dilation: int, drop_block: Layer | None) -> None:
        self.conv_kxk = conv(kernel_size, dilation=dilation, drop_layer=drop_block)
        self.conv_1x1 = conv(1)

    def init_weights(self, zero_init_last: bool = False) -> None:
        """Norms begin with random values, and attention as it says."""
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 0.1, 0.1)
                nn.init.normal_(module.bias, 0.0, 0.1)
        reset: Any = getattr(self.attn, "reset_parameters", None)
        if reset is not None:
            reset()


class MobileOneBlock(ByoBranchedBlock):
    """MobileOne's block: k x k, `num_conv_branches` times, 1 x 1 ("scale", where k > 1) and the input.

    Arguments of `ByoBranchedBlock`. Its convolutions are never dilated, nor are squares of theirs dropped.
    """

    branch_names: ClassVar[tuple[str, ...]] = ("conv_scale", "conv_kxk")

    def add_branches(
        self, conv: Layer, kernel_size: int, dilation: int, drop_block: Layer | None, num_conv_branches: int = 1
    ) -> None:
        self.conv_kxk = nn.ModuleList(conv(kernel_size) for _ in range(num_conv_branches))
        self.conv_scale = conv(1) if kernel_size > 1 else None


# --- blocks by name

_BLOCKS: dict[str, Layer] = dict(
    basic=BasicBlock, bottle=BottleneckBlock, dark=DarkBlock, edge=EdgeBlock, rep=RepVggBlock, one=MobileOneBlock,
    self_attn=SelfAttnBlock)


def register_block(block_type: str, block_fn: Layer) -> None:
    """Make a block known under a name, for `ByoBlockCfg.type`."""
    _BLOCKS[block_type] = block_fn


def create_block(block: str | Layer, **kwargs: Any) -> nn.Module:
    """A block by name, or what a class or function makes; `kwargs` as of `ResidualBlock`.

    Raises:
        ValueError: The name is unknown.
    """
    if not isinstance(block, str):
        return block(**kwargs)
    if block not in _BLOCKS:
        raise ValueError(f"unknown type of block {block!r}; known: {', '.join(_BLOCKS)}")
    return _BLOCKS[block](**kwargs)


# --- stems


def create_byob_stem(
    in_chs: int, out_chs: int | Sequence[int], stem_type: str = "", pool_type: str | None = "",
    layers: LayerFn = LayerFn(),
) -> tuple[nn.Module, list[Step], int, int]:
    """A stem, its steps, its channels and its stride, 2 or 4.

    One module of stride 2, or `conv1`, `conv2`, ... and `pool` of stride 4; the last map of stride 2 can be taken as a
    feature then.

    Args:
        in_chs: Channels of the image.
        out_chs: Channels of the stem, or of each of its convolutions.
        stem_type: "3x3" (also "") or "7x7" for one convolution, "deep" for three 3x3 of one width, "tiered" for three
            that widen, "quad" for four that double, "quad2" for the same with norms and activations behind the last
            two alone; "rep" or "one" for a `RepVggBlock` or a `MobileOneBlock`.
        pool_type: "max", "avg" ("maxpool", "avgpool"), "max2", "avg2" for a kernel of 2; "" for none: the last of
            several convolutions has a stride then.

    Raises:
        ValueError: The type or the pool is unknown.
    """
    pool_type = (pool_type or "").lower()
    for option, value, known in (("stem_type", stem_type, _STEM_TYPES), ("stem_pool", pool_type, ("", *_POOLS))):
        if value not in known:
            raise ValueError(f"unknown {option} {value!r}; known: {', '.join(map(repr, known))}")
    widths = _stem_widths(stem_type, out_chs)
    if stem_type in ("rep", "one"):
        block: nn.Module = create_block(stem_type, in_chs=in_chs, out_chs=widths[-1], stride=2, layers=layers)
        return block, [Step("stem")], widths[-1], 2
    kernel_size, count = 7 if stem_type == "7x7" else 3, len(widths)
    if count == 1 and not pool_type:
        return layers.conv_norm_act(in_chs, widths[0], kernel_size, stride=2), [Step("stem")], widths[0], 2

    stem, steps = nn.Sequential(), []
    for i, chs in enumerate(widths, start=1):
        conv = create_conv2d if stem_type == "quad2" and i <= count - 2 else layers.conv_norm_act
        stride = 2 if i == 1 or (i == count and not pool_type) else 1
        stem.add_module(f"conv{i}", conv(in_chs, chs, kernel_size, stride=stride))
        steps.append(Step(f"stem.conv{i}"))
        in_chs = chs
    if pool_type:
        stem.add_module("pool", _POOLS[pool_type]())
        steps.append(Step("stem.pool"))
    steps[-2] = Step(steps[-2].name, widths[-1 if pool_type else -2], 2)
    return stem, steps, widths[-1], 4


def _stem_widths(stem_type: str, out_chs: int | Sequence[int]) -> list[int]:
    """Channels of each convolution of a stem."""
    if not isinstance(out_chs, int):
        return list(out_chs)
    if "quad" in stem_type:
        return [round(out_chs * 0.5**i) for i in (3, 2, 1, 0)]
    tiers = {"tiered": [3 * out_chs // 8, out_chs // 2, out_chs], "deep": [out_chs] * 3}
    return tiers.get(stem_type, [out_chs])
