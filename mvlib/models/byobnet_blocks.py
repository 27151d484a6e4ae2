"""The blocks and stems of which `byobnet` and `byoanet` are built.

A block is made by name (`create_block`), of layers that the model chooses (`LayerFn`); `register_block` adds others,
which take the arguments of `ResidualBlock` up to `drop_path_rate`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from torch import Tensor, nn

from ..layers.branches import BranchedBlock
from ..layers.conv import ConvNormAct, create_conv2d, num_groups
from ..layers.drop import DropPath
from ..layers.helpers import check_choice, make_divisible, placeable
from ..layers.norm import BatchNormAct2d
from ..layers.padding import get_padding
from ..layers.pool import shortcut_pool

__all__ = ["BasicBlock", "BottleneckBlock", "DarkBlock", "EdgeBlock", "LayerFn", "MobileOneBlock", "RepVggBlock",
           "ResidualBlock", "SelfAttnBlock", "Stem", "create_block", "create_byob_stem", "register_block"]

Layer = Callable[..., Any]

_DOWNSAMPLES = ("conv1x1", "avg", "")
_STEM_TYPES = ("", "3x3", "7x7", "deep", "tiered", "quad", "quad2", "rep", "one")
_POOLS: dict[str, Layer] = {  # of stems
    "max": lambda: nn.MaxPool2d(3, stride=2, padding=1), "avg": lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "max2": lambda: nn.MaxPool2d(2), "avg2": lambda: nn.AvgPool2d(2)}
_POOLS.update(maxpool=_POOLS["max"], avgpool=_POOLS["avg"])


@dataclass
class LayerFn:
    """What makes the layers of a block."""

    conv_norm_act: Layer = ConvNormAct
    norm_act: Layer = BatchNormAct2d  # of so many channels
    act: Layer = nn.ReLU
    attn: Layer | None = None  # channel attention, of so many channels
    self_attn: Layer | None = None  # attention between positions, (channels, stride=, feat_size=)


class Plan:
    """Numbers and layers of which a residual block makes its branch, of `mid_chs` channels within."""

    def __init__(
        self, in_chs: int, out_chs: int, kernel_size: int, stride: int, dilation: tuple[int, int],
        group_size: int | None, bottle_ratio: float, layers: LayerFn | None, bottle_in: bool = False,
    ) -> None:
        self.in_chs, self.out_chs, self.kernel_size, self.stride = in_chs, out_chs, kernel_size, stride
        self.dilation, self.layers = dilation, layers or LayerFn()
        self.mid_chs = make_divisible((in_chs if bottle_in else out_chs) * bottle_ratio)
        self.groups = num_groups(group_size, self.mid_chs)

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


class ResidualBlock(nn.Module):
    """A branch of layers beside a shortcut, and an activation of their sum; subclasses say what the branch is.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride).

    Arguments of the subclasses, as far as they have them:
        kernel_size: Side of the branch's larger kernels.
        dilation: Of the first k x k convolution, which has the stride, and of those behind it.
        bottle_ratio: Channels within the branch per output channel, per input channel where `bottle_in`.
        group_size: Channels in the groups of k x k convolutions; 1 for depthwise ones, 0 or None for one group.
        downsample: How the shortcut changes shape: "conv1x1", "avg" (average pool, then 1x1 convolution), or "" for no
            shortcut where it would have to.
        attn_last: Channel attention at the branch's end instead of within.
        linear_out: No activation behind the sum.
        extra_conv: A k x k convolution more.
        post_attn_na: Norm and activation behind self-attention.
        feat_size: Rows and columns of the input, for self-attention that is made for them.
        layers: What makes the layers.
        drop_block: Makes a module that drops squares within the branch.

    Raises:
        ValueError: The shortcut is unknown, or groups do not divide channels.
    """

    def __init__(
        self, plan: Plan, downsample: str, linear_out: bool, drop_path_rate: float, **branch: nn.Module | None
    ) -> None:
        """`branch` are its layers, one after the other; None for one that is left out."""
        super().__init__()
        self.shortcut = create_shortcut(
            downsample, plan.in_chs, plan.out_chs, plan.stride, plan.dilation, plan.layers, apply_act=False)
        self.branch = [name for name, layer in branch.items() if layer is not None]
        self.last_conv = [name for name in self.branch if name.startswith("conv")][-1]
        for name in self.branch:
            self.add_module(name, branch[name])
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0.0 else nn.Identity()
        self.act = nn.Identity() if linear_out else plan.layers.act(inplace=True)

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
    """Average pooling and a 1x1 convolution; key `conv`. Shapes: (B, C, H, W) -> (B, C', H / stride, W / stride)."""

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, stride: int = 1, dilation: int = 1, apply_act: bool = False,
        layers: LayerFn | None = None,
    ) -> None:
        super().__init__()
        self.pool = shortcut_pool(stride, dilation)
        self.conv = (layers or LayerFn()).conv_norm_act(in_chs, out_chs, 1, apply_act=apply_act)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.pool(x))


def create_shortcut(
    downsample_type: str, in_chs: int, out_chs: int, stride: int, dilation: tuple[int, int], layers: LayerFn,
    **kwargs: Any,
) -> nn.Module | None:
    """What a block's input passes on its way to the output; None where the shapes differ and there is no such way.

    After average pooling there is batch norm, whatever the norm of `layers` is.
    """
    check_choice("downsample", downsample_type, _DOWNSAMPLES)
    if in_chs == out_chs and stride == 1 and dilation[0] == dilation[1]:
        return nn.Identity()
    if downsample_type == "avg":
        return DownsampleAvg(in_chs, out_chs, stride, dilation[0], **kwargs)
    return layers.conv_norm_act(in_chs, out_chs, 1, stride=stride, dilation=dilation[0], **kwargs) \
        if downsample_type else None


class BasicBlock(ResidualBlock):
    """ResNet's basic block: k x k, k x k. Arguments of `ResidualBlock`."""

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, kernel_size: int = 3, stride: int = 1, dilation: tuple[int, int] = (1, 1),
        group_size: int | None = None, bottle_ratio: float = 1.0, downsample: str = "avg", attn_last: bool = True,
        linear_out: bool = False, layers: LayerFn | None = None, drop_block: Layer | None = None,
        drop_path_rate: float = 0.0,
    ) -> None:
        plan = Plan(in_chs, out_chs, kernel_size, stride, dilation, group_size, bottle_ratio, layers)
        super().__init__(
            plan, downsample, linear_out, drop_path_rate,
            conv1_kxk=plan.strided(in_chs, plan.mid_chs), attn=plan.attn(plan.mid_chs, not attn_last),
            conv2_kxk=plan.kxk(plan.mid_chs, out_chs, groups=plan.groups, drop_layer=drop_block, apply_act=False),
            attn_last=plan.attn(out_chs, attn_last))


class BottleneckBlock(ResidualBlock):
    """ResNet's bottleneck: 1x1, k x k (two where `extra_conv`), 1x1. Arguments of `ResidualBlock`."""

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, kernel_size: int = 3, stride: int = 1, dilation: tuple[int, int] = (1, 1),
        bottle_ratio: float = 1.0, group_size: int | None = None, downsample: str = "avg", attn_last: bool = False,
        linear_out: bool = False, extra_conv: bool = False, bottle_in: bool = False, layers: LayerFn | None = None,
        drop_block: Layer | None = None, drop_path_rate: float = 0.0,
    ) -> None:
        plan = Plan(in_chs, out_chs, kernel_size, stride, dilation, group_size, bottle_ratio, layers, bottle_in)
        mid_chs, groups = plan.mid_chs, plan.groups
        super().__init__(
            plan, downsample, linear_out, drop_path_rate, conv1_1x1=plan.conv(in_chs, mid_chs),
            conv2_kxk=plan.strided(mid_chs, mid_chs, groups=groups, drop_layer=drop_block),
            conv2b_kxk=plan.kxk(mid_chs, mid_chs, groups=groups) if extra_conv else None,
            attn=plan.attn(mid_chs, not attn_last), conv3_1x1=plan.conv(mid_chs, out_chs, apply_act=False),
            attn_last=plan.attn(out_chs, attn_last))


class DarkBlock(ResidualBlock):
    """DarkNet's block: 1x1, k x k. Arguments of `ResidualBlock`."""

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, kernel_size: int = 3, stride: int = 1, dilation: tuple[int, int] = (1, 1),
        bottle_ratio: float = 1.0, group_size: int | None = None, downsample: str = "avg", attn_last: bool = True,
        linear_out: bool = False, layers: LayerFn | None = None, drop_block: Layer | None = None,
        drop_path_rate: float = 0.0,
    ) -> None:
        plan = Plan(in_chs, out_chs, kernel_size, stride, dilation, group_size, bottle_ratio, layers)
        super().__init__(
            plan, downsample, linear_out, drop_path_rate,
            conv1_1x1=plan.conv(in_chs, plan.mid_chs), attn=plan.attn(plan.mid_chs, not attn_last),
            conv2_kxk=plan.strided(plan.mid_chs, out_chs, groups=plan.groups, drop_layer=drop_block, apply_act=False),
            attn_last=plan.attn(out_chs, attn_last))


class EdgeBlock(ResidualBlock):
    """An EfficientNet's edge residual with an activation at its end: k x k, 1x1. Arguments of `ResidualBlock`."""

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, kernel_size: int = 3, stride: int = 1, dilation: tuple[int, int] = (1, 1),
        bottle_ratio: float = 1.0, group_size: int | None = None, downsample: str = "avg", attn_last: bool = False,
        linear_out: bool = False, layers: LayerFn | None = None, drop_block: Layer | None = None,
        drop_path_rate: float = 0.0,
    ) -> None:
        plan = Plan(in_chs, out_chs, kernel_size, stride, dilation, group_size, bottle_ratio, layers)
        super().__init__(
            plan, downsample, linear_out, drop_path_rate,
            conv1_kxk=plan.strided(in_chs, plan.mid_chs, groups=plan.groups, drop_layer=drop_block),
            attn=plan.attn(plan.mid_chs, not attn_last), conv2_1x1=plan.conv(plan.mid_chs, out_chs, apply_act=False),
            attn_last=plan.attn(out_chs, attn_last))


class SelfAttnBlock(ResidualBlock):
    """A bottleneck of self-attention: 1x1, k x k (where `extra_conv`), attention, 1x1. Arguments of `ResidualBlock`."""

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, kernel_size: int = 3, stride: int = 1, dilation: tuple[int, int] = (1, 1),
        bottle_ratio: float = 1.0, group_size: int | None = None, downsample: str = "avg", extra_conv: bool = False,
        linear_out: bool = False, bottle_in: bool = False, post_attn_na: bool = True,
        feat_size: tuple[int, int] | None = None, layers: LayerFn | None = None, drop_block: Layer | None = None,
        drop_path_rate: float = 0.0,
    ) -> None:
        if layers is None or layers.self_attn is None:
            raise ValueError("a block of self-attention needs a self_attn_layer, its own or the model's")
        plan = Plan(in_chs, out_chs, kernel_size, stride, dilation, group_size, bottle_ratio, layers, bottle_in)
        mid_chs, size = plan.mid_chs, {} if feat_size is None else dict(feat_size=feat_size)
        super().__init__(
            plan, downsample, linear_out, drop_path_rate, conv1_1x1=plan.conv(in_chs, mid_chs),
            conv2_kxk=plan.strided(mid_chs, mid_chs, groups=plan.groups, drop_layer=drop_block) if extra_conv else None,
            self_attn=layers.self_attn(mid_chs, stride=1 if extra_conv else stride, **size),
            post_attn=layers.norm_act(mid_chs) if post_attn_na else None,
            conv3_1x1=plan.conv(mid_chs, out_chs, apply_act=False))


class ByoBranchedBlock(BranchedBlock):
    """A `BranchedBlock` made as the other blocks are. Shapes, arguments of the subclasses as of `ResidualBlock`, and:

    Args:
        bottle_ratio, downsample: Without effect.
        drop_path_rate: Stochastic depth of the convolutions, where the input is a branch, too.
        inference_mode: The one convolution that the branches would become; timm's has no padding.
        num_conv_branches: So many k x k convolutions.
    """

    def __init__(
        self, in_chs: int, out_chs: int, kernel_size: int, stride: int, dilation: tuple[int, int],
        group_size: int | None, layers: LayerFn | None, drop_path_rate: float, inference_mode: bool, *options: Any,
    ) -> None:
        super().__init__()
        layers, groups = layers or LayerFn(), num_groups(group_size, in_chs)
        if inference_mode:
            padding = get_padding(kernel_size, stride, dilation[0])
            self.reparam_conv = nn.Conv2d(in_chs, out_chs, kernel_size, stride, padding, dilation[0], groups)
        else:
            if in_chs == out_chs and stride == 1 and dilation[0] == dilation[1]:
                self.identity = layers.norm_act(out_chs, apply_act=False)
                self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0.0 else None
            conv = partial(layers.conv_norm_act, in_chs, out_chs, stride=stride, groups=groups, apply_act=False)
            self.add_convs(conv, kernel_size, *options)
        if layers.attn is not None:
            self.attn = layers.attn(out_chs)
        self.act = layers.act(inplace=True)

    def add_convs(self, conv: Layer, kernel_size: int, *options: Any) -> None:
        """Add the branches; `conv` makes one of a kernel size."""
        raise NotImplementedError

    def init_weights(self, zero_init_last: bool = False) -> None:
        """Nothing besides what each module does."""


class RepVggBlock(ByoBranchedBlock):
    """RepVGG's block: k x k, 1 x 1 and the input. Arguments of `ByoBranchedBlock`."""

    branch_names: ClassVar[tuple[str, ...]] = ("conv_1x1", "conv_kxk")

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, kernel_size: int = 3, stride: int = 1, dilation: tuple[int, int] = (1, 1),
        bottle_ratio: float = 1.0, group_size: int | None = None, downsample: str = "", layers: LayerFn | None = None,
        drop_block: Layer | None = None, drop_path_rate: float = 0.0, inference_mode: bool = False,
    ) -> None:
        super().__init__(in_chs, out_chs, kernel_size, stride, dilation, group_size, layers, drop_path_rate,
                         inference_mode, dict(dilation=dilation[0], drop_layer=drop_block))

    def add_convs(self, conv: Layer, kernel_size: int, kxk: dict[str, Any]) -> None:
        self.conv_kxk = conv(kernel_size, **kxk)
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

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, kernel_size: int = 3, stride: int = 1, dilation: tuple[int, int] = (1, 1),
        bottle_ratio: float = 1.0, group_size: int | None = None, downsample: str = "", inference_mode: bool = False,
        num_conv_branches: int = 1, layers: LayerFn | None = None, drop_block: Layer | None = None,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__(in_chs, out_chs, kernel_size, stride, dilation, group_size, layers, drop_path_rate,
                         inference_mode, num_conv_branches)

    def add_convs(self, conv: Layer, kernel_size: int, count: int) -> None:
        self.conv_kxk = nn.ModuleList(conv(kernel_size) for _ in range(count))
        self.conv_scale = conv(1) if kernel_size > 1 else None


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


class Stem(nn.Sequential):
    """Convolutions `conv1`, `conv2`, ..., and perhaps a `pool`. Shapes: (B, in_chs, H, W) -> (B, C, H / stride, ...).

    Args:
        out_chs: Channels of the last convolution, or of each.
        stride: 4, or 2 without a pool: the first convolution has 2, the pool or the last convolution the rest.
        pool: "max", "avg" ("maxpool", "avgpool"), "max2", "avg2" for a kernel of 2; "" for none.
        num_rep: Convolutions, where `out_chs` is one number.
        num_act: So many of the last have norm and activation; all unless given.
        chs_decay: Channels of a convolution per channel of the next.
        layers: What makes them.

    `feature_info` says what can be taken as a feature: the last map of stride 2, and the output.

    Raises:
        ValueError: The pool is unknown, or does not go with the stride.
    """

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int | Sequence[int], kernel_size: int = 3, stride: int = 4,
        pool: str | None = "maxpool", num_rep: int = 3, num_act: int | None = None, chs_decay: float = 0.5,
        layers: LayerFn | None = None,
    ) -> None:
        super().__init__()
        layers, pool = layers or LayerFn(), (pool or "").lower()
        check_choice("stem_pool", pool, ("", *_POOLS))
        widths = [round(out_chs * chs_decay**i) for i in reversed(range(num_rep))] if isinstance(out_chs, int) \
            else list(out_chs)
        count = len(widths)
        if stride != 4 and (stride != 2 or pool) or count == 1 and stride == 4 and not pool:
            raise ValueError(f"a stem of {count} convolutions, pool {pool!r}, has no stride of {stride}")
        self.stride, self.last_feat_idx = stride, None if stride == 2 else count - 1 if pool else count - 2
        for i, chs in enumerate(widths, start=1):
            conv = create_conv2d if num_act is not None and i <= count - num_act else layers.conv_norm_act
            strides = i == 1 or i == count and stride == 4 and not pool
            self.add_module(f"conv{i}", conv(in_chs, chs, kernel_size, stride=2 if strides else 1))
            in_chs = chs
        if pool:
            self.add_module("pool", _POOLS[pool]())
        names = list(self._modules)
        self.feature_info = [dict(num_chs=in_chs, reduction=stride, module=names[-1], stage=0)]
        if self.last_feat_idx is not None:
            self.feature_info.insert(0, dict(num_chs=widths[self.last_feat_idx], reduction=2,
                                             module=names[self.last_feat_idx], stage=0))

    def forward_intermediates(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The output, and the last map of stride 2 where that is another one."""
        intermediate = None
        for i, layer in enumerate(self):
            x = layer(x)
            if i == self.last_feat_idx:
                intermediate = x
        return x, intermediate


def create_byob_stem(
    in_chs: int, out_chs: int | Sequence[int], stem_type: str = "", pool_type: str | None = "",
    feat_prefix: str = "stem", layers: LayerFn | None = None, device: Any = None, dtype: Any = None,
) -> tuple[nn.Module, list[dict[str, Any]]]:
    """A stem of stride 2 or 4, and what it offers as features, as `feature_info` has it.

    Args:
        out_chs: Channels of the stem, or of each of its convolutions.
        stem_type: "3x3" (also "") or "7x7" for one convolution, "deep" for three 3x3 of one width, "tiered" for three
            that widen, "quad" for four that double, "quad2" for the same with norms and activations behind the last
            two alone; "rep" or "one" for a `RepVggBlock` or a `MobileOneBlock`.
        pool_type: See `Stem`; without one, the last of several convolutions has a stride.
        feat_prefix: The stem's name.

    Raises:
        ValueError: The type or the pool is unknown.
    """
    check_choice("stem_type", stem_type, _STEM_TYPES)
    layers = layers or LayerFn()
    more: dict[str, Any] = dict(pool=pool_type, layers=layers)
    make: Layer = Stem
    if stem_type in ("rep", "one"):
        make, more = _BLOCKS[stem_type], dict(stride=2, layers=layers)
    elif "quad" in stem_type:
        more.update(num_rep=4, num_act=2 if stem_type == "quad2" else None)
    elif stem_type == "deep":
        more.update(num_rep=3, chs_decay=1.0)
    elif stem_type == "tiered":
        out_chs = (3 * out_chs // 8, out_chs // 2, out_chs) if isinstance(out_chs, int) else out_chs
    else:
        kernel_size = 7 if stem_type == "7x7" else 3
        if pool_type or not isinstance(out_chs, int) and len(out_chs) > 1:
            more.update(kernel_size=kernel_size, num_rep=1)
        else:
            make, more = layers.conv_norm_act, dict(kernel_size=kernel_size, stride=2)
    if make is not Stem and not isinstance(out_chs, int):
        out_chs = out_chs[-1]
    more.update((key, value) for key, value in dict(device=device, dtype=dtype).items() if value is not None)
    stem: nn.Module = make(in_chs, out_chs, **more)
    if not isinstance(stem, Stem):
        return stem, [dict(num_chs=out_chs, reduction=2, module=feat_prefix, stage=0)]
    return stem, [{**row, "module": f"{feat_prefix}.{row['module']}"} for row in stem.feature_info]
