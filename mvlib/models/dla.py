"""Deep layer aggregation: each stage is a tree of blocks, and a root at each node joins what lies below it.

Yu et al., "Deep Layer Aggregation", 2017, arXiv:1707.06484. The `res2net` and `res2next` models have the blocks of Gao
et al., "Res2Net: A New Multi-scale Backbone Architecture", 2019, arXiv:1904.01169.

The number in a name counts the layers with weights; "x" models have grouped convolutions, "_c" models are compact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ..layers.conv import create_conv2d
from ..layers.pool import GlobalPool2d
from ..registry import register_model
from .base import Flow, ImageModel, Indices, StateDict, Step

if TYPE_CHECKING:
    from ._variants.dla import *

__all__ = ["DLA", "DlaBasic", "DlaBottle2neck", "DlaBottleneck", "DlaRoot", "DlaTree"]


def _conv_norm(in_chs: int, out_chs: int, kernel_size: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [create_conv2d(in_chs, out_chs, kernel_size, stride, groups=groups), nn.BatchNorm2d(out_chs)]


class DlaBasic(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is the input unless given.

    Shapes: x (B, in_chs, H, W), shortcut (B, out_chs, H / stride, W / stride) -> as the shortcut.
    """

    def __init__(self, in_chs: int, out_chs: int, stride: int = 1, cardinality: int = 1, base_width: int = 64) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.conv1, self.bn1 = _conv_norm(in_chs, out_chs, 3, stride)
        self.conv2, self.bn2 = _conv_norm(out_chs, out_chs, 3)

    def branch(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        out = self.branch(x)
        out += x if shortcut is None else shortcut
        return self.relu(out)


class DlaBottleneck(DlaBasic):
    """Convolutions of 1x1, 3x3 (in `cardinality` groups) and 1x1 beside the shortcut.

    The middle one has half of the output's channels, times `base_width` / 64 in each group.
    """

    parts: ClassVar[int] = 1

    def __init__(self, in_chs: int, out_chs: int, stride: int = 1, cardinality: int = 1, base_width: int = 64) -> None:
        nn.Module.__init__(self)
        self.relu = nn.ReLU(inplace=True)
        self.width = math.floor(out_chs * base_width / 64) * cardinality // 2
        wide = self.width * self.parts
        self.conv1, self.bn1 = _conv_norm(in_chs, wide, 1)
        self.add_middle(stride, cardinality)
        self.conv3, self.bn3 = _conv_norm(wide, out_chs, 1)

    def add_middle(self, stride: int, groups: int) -> None:
        self.conv2, self.bn2 = _conv_norm(self.width, self.width, 3, stride, groups)

    def middle(self, x: Tensor) -> Tensor:
        return self.relu(self.bn2(self.conv2(x)))

    def branch(self, x: Tensor) -> Tensor:
        return self.bn3(self.conv3(self.middle(self.relu(self.bn1(self.conv1(x))))))


class DlaBottle2neck(DlaBottleneck):
    """A bottleneck in whose middle three of four parts have a 3x3 convolution each, which reads the result before it.

    With a stride each convolution reads its part alone, and the last part is averaged.
    """

    parts = 4

    def add_middle(self, stride: int, groups: int) -> None:
        pairs = (_conv_norm(self.width, self.width, 3, stride, groups) for _ in range(self.parts - 1))
        self.convs, self.bns = map(nn.ModuleList, zip(*pairs))
        self.pool = nn.AvgPool2d(3, stride, padding=1) if stride > 1 else None

    def middle(self, x: Tensor) -> Tensor:
        parts = x.split(self.width, dim=1)
        done: list[Tensor] = []
        for i, (conv, norm) in enumerate(zip(self.convs, self.bns)):
            part = parts[i] if i == 0 or self.pool is not None else done[-1] + parts[i]
            done.append(self.relu(norm(conv(part))))
        last = parts[self.parts - 1]
        return torch.cat((*done, last if self.pool is None else self.pool(last)), dim=1)


_BLOCKS = {"basic": DlaBasic, "bottleneck": DlaBottleneck, "bottle2neck": DlaBottle2neck}


class DlaRoot(nn.Module):
    """A 1x1 convolution of all that is joined, with a shortcut from the first where asked for. -> (B, out_chs, H, W)"""

    def __init__(self, in_chs: int, out_chs: int, shortcut: bool) -> None:
        super().__init__()
        self.conv, self.bn = _conv_norm(in_chs, out_chs, 1)
        self.relu, self.shortcut = nn.ReLU(inplace=True), shortcut

    def forward(self, *children: Tensor) -> Tensor:
        x = self.bn(self.conv(torch.cat(children, dim=1)))
        if self.shortcut:
            x += children[0]
        return self.relu(x)


class DlaTree(nn.Module):
    """Two blocks and their root; or two trees, the second of which has the root for all.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride).

    The root reads the two blocks, `root_chs` channels of what else belongs to it and, with `level_root`, the (pooled)
    input; `root_shortcut` adds the second block to it.
    """

    def __init__(
        self, levels: int, block: type[DlaBasic], in_chs: int, out_chs: int, stride: int = 1, level_root: bool = False,
        root_chs: int = 0, root_shortcut: bool = False, **block_args: Any,
    ) -> None:
        super().__init__()
        self.level_root, self.is_leaf = level_root, levels == 1
        root_chs += in_chs if level_root else 0
        self.downsample = nn.MaxPool2d(stride) if stride > 1 else nn.Identity()
        self.project: nn.Module = nn.Identity()
        if self.is_leaf:
            if in_chs != out_chs:
                self.project = nn.Sequential(*_conv_norm(in_chs, out_chs, 1))
            self.tree1 = block(in_chs, out_chs, stride, **block_args)
            self.tree2 = block(out_chs, out_chs, **block_args)
            self.root = DlaRoot(2 * out_chs + root_chs, out_chs, root_shortcut)
        else:
            make: Any = partial(DlaTree, levels - 1, block, root_shortcut=root_shortcut, **block_args)
            self.tree1 = make(in_chs, out_chs, stride)
            self.tree2 = make(out_chs, out_chs, root_chs=root_chs + out_chs)

    def forward(self, x: Tensor, pooled: Tensor | None = None, children: tuple[Tensor, ...] = ()) -> Tensor:
        """`pooled` is the input of the output's size, where that is known; `children` are for the root."""
        pooled = self.downsample(x) if pooled is None else pooled
        if self.level_root:
            children = (*children, pooled)
        first = self.tree1(x, self.project(pooled))
        if self.is_leaf:
            return self.root(self.tree2(first), first, *children)
        return self.tree2(first, children=(*children, first))


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
        block: "basic", "bottleneck" or "bottle2neck".
        shortcut_root: Shortcuts around the roots.

    Raises:
        ValueError: There are not six levels, or an option has an unknown value.
    """

    classifier_path: ClassVar[str] = "fc"
    conv_classifier: ClassVar[bool] = True
    feature_form: ClassVar[str] = "list"
    default_out_indices: ClassVar[Indices] = (1, 2, 3, 4, 5)

    def __init__(
        self,
        levels: Sequence[int],
        channels: Sequence[int],
        output_stride: int = 32,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        cardinality: int = 1,
        base_width: int = 64,
        block: str = "bottle2neck",
        shortcut_root: bool = False,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if len(levels) != 6 or len(channels) != 6:
            raise ValueError(f"levels and channels have a number for each of 6, not {len(levels)} and {len(channels)}")
        if output_stride != 32:
            raise ValueError(f"output_stride is 32 for a DLA, not {output_stride}")
        if block not in _BLOCKS:
            raise ValueError(f"unknown block {block!r}; known: {', '.join(_BLOCKS)}")
        self.num_classes, self.in_chans = num_classes, in_chans
        self.base_layer = _convs(in_chans, channels[0], kernel_size=7)
        self.flow = Flow(stem=[Step("base_layer")], stages=[])
        for i, (depth, chs, out_chs) in enumerate(zip(levels, (channels[0], *channels), channels)):
            self.add_module(f"level{i}", _convs(chs, out_chs, stride=i + 1, depth=depth) if i < 2 else DlaTree(
                depth, _BLOCKS[block], chs, out_chs, 2, level_root=i > 2, root_shortcut=shortcut_root,
                cardinality=cardinality, base_width=base_width))
            self.flow.stages.append(Step(f"level{i}", out_chs, 2**i))

        self.num_features = channels[-1]
        self.global_pool, self.head_drop = GlobalPool2d(global_pool), nn.Dropout(drop_rate)
        self.head_hidden_size = self.num_features * self.global_pool.out_factor
        self.fc = self.make_classifier(num_classes)
        self.init_weights()

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
