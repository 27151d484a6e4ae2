"""Deep layer aggregation: each stage is a tree of blocks, and a root at each node joins what lies below it.

Yu et al., "Deep Layer Aggregation", 2017, arXiv:1707.06484. The `res2net` and `res2next` models have the blocks of Gao
et al., "Res2Net: A New Multi-scale Backbone Architecture", 2019, arXiv:1904.01169.

The number in a name counts the layers with weights; "x" models have grouped convolutions, "_c" models are compact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ..layers.conv import create_conv2d
from ..layers.helpers import placeable
from ..registry import register_model
from .base import Flow, ImageModel, Indices, StateDict, Step
from .res2net import convolve_splits

if TYPE_CHECKING:
    from ._variants.dla import *

__all__ = ["DLA", "DlaBasic", "DlaBottle2neck", "DlaBottleneck", "DlaRoot", "DlaTree"]


def _conv_norm(in_chs: int, out_chs: int, kernel_size: int, stride: int = 1, **kwargs: Any) -> list[nn.Module]:
    return [create_conv2d(in_chs, out_chs, kernel_size, stride, **kwargs), nn.BatchNorm2d(out_chs)]


class DlaBasic(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is the input unless given.

    Shapes: x (B, inplanes, H, W), shortcut (B, planes, H / stride, W / stride) -> as the shortcut. What a bottleneck
    takes further has no effect, here and in `forward`, where a tree's children may come along.
    """

    @placeable
    def __init__(self, inplanes: int, planes: int, stride: int = 1, dilation: int = 1, **_: Any) -> None:
        super().__init__()
        self.stride, self.relu = stride, nn.ReLU(inplace=True)
        self.conv1, self.bn1 = _conv_norm(inplanes, planes, 3, stride, dilation=dilation)
        self.conv2, self.bn2 = _conv_norm(planes, planes, 3, dilation=dilation)

    def branch(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))

    def forward(self, x: Tensor, shortcut: Tensor | None = None, children: list[Tensor] | None = None) -> Tensor:
        out = self.branch(x)
        out += x if shortcut is None else shortcut
        return self.relu(out)


class DlaBottleneck(DlaBasic):
    """Convolutions of 1x1, 3x3 (in `cardinality` groups) and 1x1 beside the shortcut.

    The middle one has half of the output's channels, times `base_width` / 64 in each group.
    """

    expansion: ClassVar[int] = 2

    @placeable
    def __init__(
        self, inplanes: int, outplanes: int, stride: int = 1, dilation: int = 1, cardinality: int = 1,
        base_width: int = 64,
    ) -> None:
        nn.Module.__init__(self)
        self.stride, self.relu = stride, nn.ReLU(inplace=True)
        width = self.middle_width(outplanes, cardinality, base_width)
        self.conv1, self.bn1 = _conv_norm(inplanes, width, 1)
        self.conv2, self.bn2 = _conv_norm(width, width, 3, stride, dilation=dilation, groups=cardinality)
        self.conv3, self.bn3 = _conv_norm(width, outplanes, 1)

    def middle_width(self, out_chs: int, groups: int, base_width: int) -> int:
        return math.floor(out_chs * base_width / 64) * groups // self.expansion

    def middle(self, x: Tensor) -> Tensor:
        return self.relu(self.bn2(self.conv2(x)))

    def branch(self, x: Tensor) -> Tensor:
        return self.bn3(self.conv3(self.middle(self.relu(self.bn1(self.conv1(x))))))


class DlaBottle2neck(DlaBottleneck):
    """A bottleneck in whose middle (`convolve_splits`) all of `scale` parts but the last have a 3x3 convolution each.

    It reads the result before it, too; with a stride its part alone, and the last part is averaged.
    """

    @placeable
    def __init__(
        self, inplanes: int, outplanes: int, stride: int = 1, dilation: int = 1, scale: int = 4, cardinality: int = 8,
        base_width: int = 4,
    ) -> None:
        nn.Module.__init__(self)
        self.stride, self.scale, self.is_first, self.relu = stride, scale, stride > 1, nn.ReLU(inplace=True)
        self.width = width = self.middle_width(outplanes, cardinality, base_width)
        self.conv1, self.bn1 = _conv_norm(inplanes, width * scale, 1)
        pairs = (_conv_norm(width, width, 3, stride, dilation=dilation, groups=cardinality)
                 for _ in range(max(1, scale - 1)))
        self.convs, self.bns = map(nn.ModuleList, zip(*pairs))
        self.pool = nn.AvgPool2d(3, stride, padding=1) if self.is_first else None
        self.conv3, self.bn3 = _conv_norm(width * scale, outplanes, 1)

    def middle(self, x: Tensor) -> Tensor:
        return convolve_splits(self, x)


_BLOCKS = {"basic": DlaBasic, "bottleneck": DlaBottleneck, "bottle2neck": DlaBottle2neck}


class DlaRoot(nn.Module):
    """A 1x1 convolution of all that is joined, with a shortcut from the first where asked for.

    Shapes: maps (B, C, H, W), of `in_channels` together -> (B, out_channels, H, W); a `kernel_size` of 1 keeps H and W,
    one of 3 adds a rim, as timm's.
    """

    @placeable
    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, shortcut: bool) -> None:
        super().__init__()
        self.conv, self.bn = _conv_norm(in_channels, out_channels, 1, padding=(kernel_size - 1) // 2)
        self.relu, self.shortcut = nn.ReLU(inplace=True), shortcut

    def forward(self, x_children: Sequence[Tensor]) -> Tensor:
        x = self.bn(self.conv(torch.cat(list(x_children), dim=1)))
        if self.shortcut:
            x += x_children[0]
        return self.relu(x)


class DlaTree(nn.Module):
    """Two blocks and their root; or two trees, the second of which has the root for all.

    Shapes: (B, in_channels, H, W) -> (B, out_channels, H / stride, W / stride).

    Args:
        levels: Depth: 1 for two blocks.
        block, dilation, cardinality, base_width: One of this module's, and its arguments.
        stride: Of the first block, and of the pool before its shortcut.
        level_root: The root reads the (pooled) input, too.
        root_dim: Channels that the root reads, but for that; 0 for the two blocks' alone.
        root_kernel_size: See `DlaRoot`.
        root_shortcut: The second block is added to the root.
    """

    @placeable
    def __init__(
        self, levels: int, block: Callable[..., nn.Module], in_channels: int, out_channels: int, stride: int = 1,
        dilation: int = 1, cardinality: int = 1, base_width: int = 64, level_root: bool = False, root_dim: int = 0,
        root_kernel_size: int = 1, root_shortcut: bool = False,
    ) -> None:
        super().__init__()
        self.level_root, self.levels = level_root, levels
        self.root_dim = root_dim = (root_dim or 2 * out_channels) + (in_channels if level_root else 0)
        self.downsample = nn.MaxPool2d(stride) if stride > 1 else nn.Identity()
        self.project: nn.Module = nn.Identity()
        self.root: nn.Module | None = None
        block_args = dict(dilation=dilation, cardinality=cardinality, base_width=base_width)
        if levels == 1:
            if in_channels != out_channels:
                self.project = nn.Sequential(*_conv_norm(in_channels, out_channels, 1))
            self.tree1 = block(in_channels, out_channels, stride, **block_args)
            self.tree2 = block(out_channels, out_channels, 1, **block_args)
            self.root = DlaRoot(root_dim, out_channels, root_kernel_size, root_shortcut)
        else:
            make: Any = partial(DlaTree, levels - 1, block, root_kernel_size=root_kernel_size,
                                root_shortcut=root_shortcut, **block_args)
            self.tree1 = make(in_channels, out_channels, stride)
            self.tree2 = make(out_channels, out_channels, root_dim=root_dim + out_channels)

    def forward(self, x: Tensor, shortcut: Tensor | None = None, children: Sequence[Tensor] = ()) -> Tensor:
        """`shortcut` is the pooled input, where that is known; `children` are for the root."""
        pooled = self.downsample(x) if shortcut is None else shortcut
        children = [*(children or ()), *([pooled] if self.level_root else [])]
        first = self.tree1(x, self.project(pooled))
        if self.root is not None:
            return self.root([self.tree2(first), first, *children])
        return self.tree2(first, None, [*children, first])


def _convs(in_chs: int, out_chs: int, kernel_size: int = 3, stride: int = 1, depth: int = 1) -> nn.Sequential:
    return nn.Sequential(*(layer for i in range(depth) for layer in (
        *_conv_norm(out_chs if i else in_chs, out_chs, kernel_size, 1 if i else stride), nn.ReLU(inplace=True))))


class DLA(ImageModel):
    """A convolution, two levels of convolutions, four of trees, pooling and a classifier that is a 1x1 convolution.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features have a stride of 32, those of `level0` one of 1.

    Args:
        levels: Convolutions of the first two levels, depths of the other four's trees.
        channels: Channels of each level.
        cardinality, base_width: Groups of the blocks' 3x3 convolutions and their width, see `DlaBottleneck`.
        block: A class of blocks, or "basic", "bottleneck" or "bottle2neck".
        shortcut_root: Shortcuts around the roots.

    Raises:
        ValueError: There are not six levels, or an option has an unknown value.
    """

    classifier_path: ClassVar[str] = "fc"
    conv_classifier: ClassVar[bool] = True
    feature_form: ClassVar[str] = "list"
    default_out_indices: ClassVar[Indices] = (1, 2, 3, 4, 5)

    def __init__(
        self, levels: Sequence[int], channels: Sequence[int], output_stride: int = 32, num_classes: int = 1000,
        in_chans: int = 3, global_pool: str = "avg", cardinality: int = 1, base_width: int = 64,
        block: str | Callable[..., nn.Module] = DlaBottle2neck, shortcut_root: bool = False, drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if len(levels) != 6 or len(channels) != 6:
            raise ValueError(f"levels and channels have a number for each of 6, not {len(levels)} and {len(channels)}")
        if output_stride != 32:
            raise ValueError(f"output_stride is 32 for a DLA, not {output_stride}")
        if isinstance(block, str):
            if block not in _BLOCKS:
                raise ValueError(f"unknown block {block!r}; known: {', '.join(_BLOCKS)}")
            block = _BLOCKS[block]
        self.num_classes, self.in_chans = num_classes, in_chans
        self.base_layer = _convs(in_chans, channels[0], kernel_size=7)
        self.flow = Flow(stem=[Step("base_layer")], stages=[])
        for i, (depth, chs, out_chs) in enumerate(zip(levels, (channels[0], *channels), channels)):
            self.add_module(f"level{i}", _convs(chs, out_chs, stride=i + 1, depth=depth) if i < 2 else DlaTree(
                depth, block, chs, out_chs, 2, level_root=i > 2, root_shortcut=shortcut_root,
                cardinality=cardinality, base_width=base_width))
            self.flow.stages.append(Step(f"level{i}", out_chs, 2**i))
        self.add_classifier(channels[-1], num_classes, global_pool, nn.Dropout(drop_rate))

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        blocks = r"^level(\d+)" if coarse else [
            (r"^level(\d+)\.tree(\d+)", None), (r"^level(\d+)\.root", (2,)), (r"^level(\d+)", (1,))]
        return dict(stem=r"^base_layer", blocks=blocks)

    def init_module(self, name: str, module: nn.Module) -> None:
        super().init_module(name, module)
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=math.sqrt(2 / (math.prod(module.kernel_size) * module.out_channels)))

    def fit_state_dict(self, state_dict: StateDict) -> StateDict:
        """The authors' trees of trees have projections that nothing reads."""
        own = self.state_dict()
        return {key: value for key, value in state_dict.items() if ".project." not in key or key in own}


_WIDE, _COMPACT = (dict(channels=(16, 32, *widths)) for widths in ((128, 256, 512, 1024), (64, 64, 128, 256)))
_BOTTLE = dict(block="bottleneck")
_X, _X2 = dict(cardinality=32, base_width=4), dict(cardinality=64, base_width=4)
_34, _60 = dict(levels=(1, 1, 1, 2, 2, 1)), dict(levels=(1, 1, 1, 2, 3, 1))
_102, _169 = (dict(levels=levels, shortcut_root=True) for levels in ((1, 1, 1, 3, 4, 1), (1, 1, 2, 3, 5, 1)))

register_model.variants(__name__, DLA, {
    "dla60_res2net": (_60, _WIDE, dict(base_width=28)),
    "dla60_res2next": (_60, _WIDE, dict(cardinality=8, base_width=4)),
    "dla34": (_34, dict(channels=(16, 32, 64, 128, 256, 512), block="basic")),
    "dla46_c": (_34, _COMPACT, _BOTTLE),
    "dla46x_c": (_34, _COMPACT, _BOTTLE, _X),
    "dla60x_c": (_60, _COMPACT, _BOTTLE, _X),
    "dla60": (_60, _WIDE, _BOTTLE),
    "dla60x": (_60, _WIDE, _BOTTLE, _X),
    "dla102": (_102, _WIDE, _BOTTLE),
    "dla102x": (_102, _WIDE, _BOTTLE, _X),
    "dla102x2": (_102, _WIDE, _BOTTLE, _X2),
    "dla169": (_169, _WIDE, _BOTTLE),
})
