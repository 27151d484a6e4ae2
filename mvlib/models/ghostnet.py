"""GhostNet: half of a layer's channels are made by a convolution, the other half from those, by a cheap one.

GhostNet (Han et al., "GhostNet: More Features from Cheap Operations", 2019, arXiv:1911.11907); V2, whose expansions are
gated by attention along rows and columns (Tang et al., "GhostNetV2: Enhance Cheap Operation with Long-Range Attention",
2022, arXiv:2211.12905); V3, the same with parallel branches while it is trained (Liu et al., "GhostNetV3: Exploring the
Training Strategies for Compact Models", 2024, arXiv:2404.11202), which `reparameterize()` merges.

The number is the width in hundredths. Initial weights are torch's own, as timm's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.branches import merge_branches, reparameterize, sum_branches
from ..layers.conv import conv_norm
from ..layers.helpers import make_divisible, placeable
from ..layers.pool import GlobalPool2d
from ..registry import register_model
from .base import Flow, KeyMap, StateDict, Step
from .efficientnet_blocks import ConvBnAct, PooledConvHead, SqueezeExcite

if TYPE_CHECKING:
    from ._variants.ghostnet import *

__all__ = ["GhostBottleneck", "GhostBottleneckV3", "GhostModule", "GhostModuleV2", "GhostModuleV3", "GhostNet"]

Layer = Callable[..., nn.Module]

_BRANCHES = 3  # of V3, of the same shape

_SqueezeExcite = partial(SqueezeExcite, gate_layer="hard_sigmoid", rd_round_fn=partial(make_divisible, divisor=4))


def _merge(branches: Iterable[Any]) -> nn.Conv2d:
    """One convolution for the sum of branches, the last of which has the largest kernel."""
    *_, last = branches
    return merge_branches(branches, like=last.conv)


class RowColumnAttention(nn.Sequential):
    """A gate for each value, from rows and columns of the input at half its size: V2's "DFC attention".

    Shapes: input (B, in_chs, H, W), values (B, out_chs, H', W') -> as the values.
    """

    def __init__(self, in_chs: int, out_chs: int, kernel_size: int = 1, stride: int = 1) -> None:
        depthwise = partial(conv_norm, out_chs, out_chs, groups=out_chs)
        super().__init__(*conv_norm(in_chs, out_chs, kernel_size, stride), *depthwise((1, 5)), *depthwise((5, 1)))

    def forward(self, x: Tensor, values: Tensor) -> Tensor:  # type: ignore[override]
        gate = F.avg_pool2d(x, 2)
        for layer in self:
            gate = layer(gate)
        return values * F.interpolate(gate.sigmoid(), size=values.shape[2:])


class GhostModule(nn.Module):
    """A convolution, a depthwise one of what that gives, and both outputs side by side.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride); keys `primary_conv`, `cheap_operation`.

    Args:
        kernel_size, stride: Of the first convolution.
        ratio: Channels of the output for each one that the first convolution makes.
        dw_size: Kernel of the depthwise convolution.
        act_layer: Activation behind both.
    """

    gated: ClassVar[bool] = False

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, kernel_size: int = 1, ratio: int = 2, dw_size: int = 3, stride: int = 1,
        act_layer: Layer = nn.ReLU,
    ) -> None:
        super().__init__()
        self.out_chs, chs = out_chs, math.ceil(out_chs / ratio)
        self.primary_conv = nn.Sequential(*conv_norm(in_chs, chs, kernel_size, stride, act_layer))
        self.cheap_operation = nn.Sequential(
            *conv_norm(chs, chs * (ratio - 1), dw_size, act_layer=act_layer, groups=chs))
        self.short_conv = RowColumnAttention(in_chs, out_chs, kernel_size, stride) if self.gated else None

    def forward(self, x: Tensor) -> Tensor:
        primary = self.primary_conv(x)
        out = torch.cat((primary, self.cheap_operation(primary)), dim=1)[:, :self.out_chs]
        return out if self.short_conv is None else self.short_conv(x, out)


class GhostModuleV2(GhostModule):
    """A `GhostModule` whose output is gated: `RowColumnAttention`, key `short_conv`. Shapes and arguments as there."""

    gated: ClassVar[bool] = True


class GhostModuleV3(nn.Module):
    """A `GhostModule` whose convolutions are sums of branches, each with a norm; `reparameterize()` makes each one.

    The depthwise one has the input, and a 1x1 convolution of it, among its branches. Shapes and arguments as
    `GhostModule`'s; it is gated as V2's with the `mode` "shortcut".
    """

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, kernel_size: int = 1, ratio: int = 2, dw_size: int = 3, stride: int = 1,
        act_layer: Layer = nn.ReLU, mode: str = "original",
    ) -> None:
        super().__init__()
        self.out_chs, chs = out_chs, math.ceil(out_chs / ratio)
        primary = partial(ConvBnAct, in_chs, chs, kernel_size, stride, pad_type=kernel_size // 2, act_layer=None)
        depthwise = partial(ConvBnAct, chs, chs * (ratio - 1), group_size=1, act_layer=None)
        self.primary_conv: nn.Module = nn.Identity()  # this and the next are what is merged
        self.cheap_operation: nn.Module = nn.Identity()
        self.primary_rpr_conv = nn.ModuleList(primary() for _ in range(_BRANCHES))
        self.primary_activation = act_layer(inplace=True)
        self.cheap_rpr_skip: nn.Module | None = nn.BatchNorm2d(chs)
        self.cheap_rpr_conv = nn.ModuleList(depthwise(dw_size, pad_type=dw_size // 2) for _ in range(_BRANCHES))
        self.cheap_rpr_scale: nn.Module | None = depthwise(1)
        self.cheap_activation = act_layer(inplace=True)
        self.short_conv = RowColumnAttention(in_chs, out_chs, kernel_size, stride) if mode == "shortcut" else None

    @property
    def is_reparameterized(self) -> bool:
        return self.cheap_rpr_skip is None

    @property
    def cheap_branches(self) -> list[Any]:
        return [self.cheap_rpr_scale, self.cheap_rpr_skip, *self.cheap_rpr_conv]

    def forward(self, x: Tensor) -> Tensor:
        if self.is_reparameterized:
            primary = self.primary_conv(x)
            cheap = self.cheap_operation(primary)
        else:
            primary = self.primary_activation(sum_branches(self.primary_rpr_conv, x))
            cheap = self.cheap_activation(sum_branches(self.cheap_branches, primary))
        out = torch.cat((primary, cheap), dim=1)[:, :self.out_chs]
        return out if self.short_conv is None else self.short_conv(x, out)

    def reparameterize(self) -> GhostModuleV3:
        if not self.is_reparameterized:
            self.primary_conv = nn.Sequential(_merge(self.primary_rpr_conv), self.primary_activation)
            self.cheap_operation = nn.Sequential(_merge(self.cheap_branches), self.cheap_activation)
            self.primary_rpr_conv, self.cheap_rpr_conv = nn.ModuleList(), nn.ModuleList()
            self.cheap_rpr_skip = self.cheap_rpr_scale = None
        return self


class Bottleneck(nn.Module):
    """Two ghost modules, between them a depthwise convolution where there is a stride, and a shortcut.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride).
    """

    conv_dw: nn.Module
    bn_dw: nn.Module

    def build(
        self, ghost1: nn.Module, ghost2: nn.Module, in_chs: int, mid_chs: int, out_chs: int, dw_kernel_size: int,
        stride: int, se_ratio: float | None,
    ) -> None:
        """Make all modules but the two ghost modules; arguments as `GhostBottleneck`'s."""
        self.stride = stride
        self.ghost1 = ghost1
        self.add_depthwise(mid_chs, dw_kernel_size, stride)
        self.se = _SqueezeExcite(mid_chs, rd_ratio=se_ratio) if se_ratio else nn.Identity()
        self.ghost2 = ghost2
        self.shortcut = nn.Sequential()
        if stride > 1 or in_chs != out_chs:
            self.shortcut.extend([
                *conv_norm(in_chs, in_chs, dw_kernel_size, stride, groups=in_chs), *conv_norm(in_chs, out_chs)])

    def add_depthwise(self, chs: int, kernel_size: int, stride: int) -> None:
        self.conv_dw, self.bn_dw = nn.Identity(), nn.Identity()
        if stride > 1:
            self.conv_dw, self.bn_dw = conv_norm(chs, chs, kernel_size, stride, groups=chs)

    def depthwise(self, x: Tensor) -> Tensor:
        return self.bn_dw(self.conv_dw(x))

    def forward(self, x: Tensor) -> Tensor:
        out = self.ghost2(self.se(self.depthwise(self.ghost1(x))))
        out += self.shortcut(x)
        return out


class GhostBottleneck(Bottleneck):
    """A ghost module that widens, where there is a stride a depthwise convolution, one that narrows, and a shortcut.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride).

    Args:
        mid_chs: Channels between the two modules.
        dw_kernel_size, stride: Of the depthwise convolution, and of the shortcut's.
        act_layer: Activation of the first module.
        se_ratio: Squeezed channels of a squeeze-and-excitation between the modules, in `mid_chs`; 0 for none.
        mode: The first module is gated unless this is "original".
    """

    @placeable
    def __init__(
        self, in_chs: int, mid_chs: int, out_chs: int, dw_kernel_size: int = 3, stride: int = 1,
        act_layer: Layer = nn.ReLU, se_ratio: float = 0.0, mode: str = "original",
    ) -> None:
        super().__init__()
        self.build(self.make_module(in_chs, mid_chs, act_layer, mode), self.make_module(mid_chs, out_chs, nn.Identity),
                   in_chs, mid_chs, out_chs, dw_kernel_size, stride, se_ratio)

    def make_module(self, in_chs: int, out_chs: int, act_layer: Layer, mode: str = "original") -> nn.Module:
        module = GhostModule if mode == "original" else GhostModuleV2
        return module(in_chs, out_chs, act_layer=act_layer)


class GhostBottleneckV3(GhostBottleneck):
    """A `GhostBottleneck` of branches, which `reparameterize()` merges, the modules' with its own.

    Shapes and arguments as `GhostBottleneck`'s; the first module is gated with the `mode` "shortcut".
    """

    def make_module(self, in_chs: int, out_chs: int, act_layer: Layer, mode: str = "original") -> nn.Module:
        return GhostModuleV3(in_chs, out_chs, act_layer=act_layer, mode=mode)

    def add_depthwise(self, chs: int, kernel_size: int, stride: int) -> None:
        self.conv_dw, self.bn_dw = nn.Identity(), nn.Identity()  # the first is what is merged
        branch = partial(ConvBnAct, chs, chs, stride=stride, group_size=1, act_layer=None)
        count = _BRANCHES if stride > 1 else 0
        self.dw_rpr_conv = nn.ModuleList(branch(kernel_size=kernel_size) for _ in range(count))
        self.dw_rpr_scale = branch(kernel_size=1) if count else nn.Identity()

    def depthwise(self, x: Tensor) -> Tensor:
        return self.conv_dw(sum_branches([self.dw_rpr_scale, *self.dw_rpr_conv], x))

    @property
    def is_reparameterized(self) -> bool:
        return isinstance(self.ghost1, GhostModuleV3) and self.ghost1.is_reparameterized

    def reparameterize(self) -> GhostBottleneckV3:
        reparameterize(self)  # what is within
        if len(self.dw_rpr_conv):
            self.conv_dw = _merge([self.dw_rpr_scale, *self.dw_rpr_conv])
            self.dw_rpr_conv, self.dw_rpr_scale = nn.ModuleList(), nn.Identity()
        return self


# Of each stage, its blocks: kernel size, channels between, channels, ratio of squeeze-and-excitation, stride.
_CFGS = (
    ((3, 16, 16, 0, 1),), ((3, 48, 24, 0, 2),), ((3, 72, 24, 0, 1),), ((5, 72, 40, 0.25, 2),), ((5, 120, 40, 0.25, 1),),
    ((3, 240, 80, 0, 2),),
    ((3, 200, 80, 0, 1), (3, 184, 80, 0, 1), (3, 184, 80, 0, 1), (3, 480, 112, 0.25, 1), (3, 672, 112, 0.25, 1)),
    ((5, 672, 160, 0.25, 2),), ((5, 960, 160, 0, 1), (5, 960, 160, 0.25, 1)) * 2,
)


class GhostBackbone(PooledConvHead):
    """What GhostNet and RepGhost share: a stem, stages of bottlenecks, a 1x1 convolution, and the head."""

    classifier_path: ClassVar[str] = "classifier"
    feature_form: ClassVar[str] = "flat"

    def build(
        self, block_of: Callable[[int], Layer], last_width: float, cfgs: Sequence[Sequence[Sequence[float]]],
        num_classes: int, width: float, in_chans: int, output_stride: int, global_pool: str, drop_rate: float,
    ) -> None:
        """Make all modules.

        Args:
            block_of: Place of a block -> what makes it, with `GhostBottleneck`'s arguments.
            last_width: Channels of the last convolution, in those between the last block's modules.
            others: As `GhostNet`'s.
        """
        if output_stride != 32:
            raise ValueError(f"output_stride is 32 for a {type(self).__name__}, not {output_stride}")
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        scaled = partial(make_divisible, divisor=4)

        chs = scaled(16 * width)
        self.conv_stem = nn.Conv2d(in_chans, chs, 3, stride=2, padding=1, bias=False)
        self.bn1, self.act1 = nn.BatchNorm2d(chs), nn.ReLU(inplace=True)
        self.flow = Flow(stem=[Step("conv_stem", chs, 2), Step("bn1"), Step("act1")], stages=[])
        self.blocks = nn.Sequential()
        count, reduction = 0, 2
        for i, cfg in enumerate(cfgs):
            stage = nn.Sequential()
            for kernel_size, mid, out, se_ratio, stride in cfg:
                out_chs = scaled(out * width)
                stage.append(block_of(count)(
                    chs, scaled(mid * width), out_chs, int(kernel_size), int(stride), se_ratio=se_ratio))
                chs, count = out_chs, count + 1
            self.blocks.append(stage)
            if stride > 1:
                reduction *= 2
                self.flow.stages += [*self.flow.neck, Step(f"blocks.{i}", chs, reduction)]
                self.flow.neck = []
            else:  # the neck's, unless a tap follows
                self.flow.neck.append(Step(f"blocks.{i}"))
        self.num_features = scaled(mid * width * last_width)
        self.flow.neck.append(Step(f"blocks.{len(self.blocks)}"))
        self.blocks.append(nn.Sequential(ConvBnAct(chs, self.num_features, 1)))

        self.head_hidden_size = 1280
        self.global_pool = GlobalPool2d(global_pool, flatten=False)
        self.conv_head = nn.Conv2d(self.num_features * self.global_pool.out_factor, self.head_hidden_size, 1)
        self.norm_head, self.act2 = nn.Identity(), nn.ReLU(inplace=True)
        self.classifier = self.make_classifier(num_classes)
        self.init_weights()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        matcher = super().group_matcher(coarse)
        return {**matcher, "blocks": [*matcher["blocks"], (r"^conv_head", (99999,))]}

    def convert_to_deploy(self) -> None:
        """Merge branches, in place: timm's name for `layers.reparameterize`."""
        reparameterize(self)


class GhostNet(GhostBackbone):
    """A stem convolution, stages of ghost bottlenecks, a 1x1 convolution, pooling, another one, a linear classifier.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features have a stride of 32, the classifier's input 1280
    channels.

    Args:
        cfgs: Of each stage, its blocks, and of each block: kernel size, channels between its modules, output channels,
            ratio of squeeze-and-excitation, stride.
        width: Factor on all channels, which are made multiples of 4; but on the classifier's input.
        output_stride: 32 alone.
        version: "v1"; "v2" with attention in all blocks but the first two; "v3" with that and branches.

    Raises:
        ValueError: An option has an unknown value.
    """

    def __init__(
        self, cfgs: Sequence[Sequence[Sequence[float]]] = _CFGS, num_classes: int = 1000, width: float = 1.0,
        in_chans: int = 3, output_stride: int = 32, global_pool: str = "avg", drop_rate: float = 0.2,
        version: str = "v1",
    ) -> None:
        super().__init__()
        if version not in ("v1", "v2", "v3"):
            raise ValueError(f"unknown version '{version}'; known: v1, v2, v3")
        bottleneck = GhostBottleneckV3 if version == "v3" else GhostBottleneck
        first = 2 if version != "v1" else math.inf  # of the blocks with attention
        self.build(lambda i: partial(bottleneck, mode="shortcut" if i >= first else "original"), 1,
                   cfgs, num_classes, width, in_chans, output_stride, global_pool, drop_rate)


register_model.variants(__name__, GhostNet, {
    "ghostnet_050": dict(width=0.5),
    "ghostnet_100": {},
    "ghostnet_130": dict(width=1.3),
    "ghostnetv2_100": dict(version="v2"),
    "ghostnetv2_130": dict(version="v2", width=1.3),
    "ghostnetv2_160": dict(version="v2", width=1.6),
    "ghostnetv3_050": dict(version="v3", width=0.5),
    "ghostnetv3_100": dict(version="v3"),
    "ghostnetv3_130": dict(version="v3", width=1.3),
    "ghostnetv3_160": dict(version="v3", width=1.6),
})


def _from_authors(state_dict: StateDict, model: nn.Module) -> StateDict:
    """The authors' V3 names the norms of its branches "bn"; a profiler's totals are in their files."""
    return {key.replace(".bn.", ".bn1."): value for key, value in state_dict.items() if "total_" not in key}


GhostNet.key_maps = (
    KeyMap("huawei", lambda keys: any(".bn." in key or "total_" in key for key in keys), _from_authors),
)
