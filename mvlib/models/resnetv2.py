"""Residual networks whose blocks begin with norm and activation, as Big Transfer (BiT) has them.

Kolesnikov et al., "Big Transfer (BiT): General Visual Representation Learning", 2019
(https://arxiv.org/abs/1912.11370): blocks of He et al., "Identity Mappings in Deep Residual Networks", 2016
(https://arxiv.org/abs/1603.05027), standardised kernels and group norm in place of batch norm. Beyer et al.,
"Knowledge distillation: A good teacher is patient and consistent", 2021 (https://arxiv.org/abs/2106.05237), trained
some of the weights. Models without "bit" are timm's: batch norm and plain convolutions, basic blocks in the small ones.
The convolutional part of hybrid vision transformers (https://arxiv.org/abs/2010.11929) has the norm behind each
convolution (`preact=False`) and TensorFlow's padding.

Bottlenecks stride in their 3x3 convolution, and the shortcut takes what norm and activation made of the input.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from ..layers.activations import ActLayer, get_act_layer
from ..layers.conv import create_conv2d
from ..layers.drop import DropPath, drop_path_rates
from ..layers.helpers import check_choice, make_divisible, move_to_end, placeable
from ..layers.norm import GroupNormAct, NormLayer, get_norm_act_layer
from ..layers.pool import ClassifierHead, ConvClassifier, MaxPool2dSame, shortcut_pool
from ..layers.stage import Stage, dilate_strides
from ..layers.std_conv import StdConv2d
from ..layers.weight_init import init_kaiming, init_normal
from ..registry import register_model
from .base import Flow, ImageModel, Inits, KeyMap, StateDict, Step, rename_keys

if TYPE_CHECKING:
    from ._variants.resnetv2 import *

__all__ = ["Bottleneck", "DownsampleAvg", "DownsampleConv", "PreActBasic", "PreActBottleneck", "ResNetStage",
           "ResNetV2", "create_resnetv2_stem", "is_stem_deep"]

Layer = Callable[..., nn.Module]

_STEM_TYPES = ("", "fixed", "same", "deep", "deep_fixed", "deep_same", "tiered")
_NORM = partial(GroupNormAct, num_groups=32)


class DownsampleConv(nn.Module):
    """What fits a shortcut to the output: a 1x1 convolution, and a norm unless the block's stand before convolutions.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride); keys `conv`, `norm`.

    Args:
        stride, dilation, first_dilation: Those of the block; dilation is without effect on a convolution.
        preact: There is no norm.
        conv_layer, norm_layer: A standardised convolution, and a norm of 32 groups with activation, which is made
            without, unless given.
    """

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, stride: int = 1, dilation: int = 1, first_dilation: int | None = None,
        preact: bool = True, conv_layer: Layer | None = None, norm_layer: Layer | None = None,
    ) -> None:
        super().__init__()
        self.conv = (conv_layer or StdConv2d)(in_chs, out_chs, 1, stride=stride)
        self.norm = nn.Identity() if preact else (norm_layer or _NORM)(out_chs, apply_act=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class DownsampleAvg(DownsampleConv):
    """The same behind an average pool that strides or, where a stride became `dilation`, keeps the size."""

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, stride: int = 1, dilation: int = 1, first_dilation: int | None = None,
        preact: bool = True, conv_layer: Layer | None = None, norm_layer: Layer | None = None,
    ) -> None:
        super().__init__(in_chs, out_chs, preact=preact, conv_layer=conv_layer, norm_layer=norm_layer)
        self.pool = shortcut_pool(stride, dilation)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.pool(x))


class _Block(nn.Module):
    last_norm: ClassVar[str]  # path of what has the branch begin with zeros, where its weight is 0

    def zero_init_last(self) -> None:
        """Let the block begin as its shortcut alone."""
        nn.init.zeros_(self.get_submodule(self.last_norm).get_parameter("weight"))


class PreActBasic(_Block):
    """Norm, activation and a 3x3 convolution, twice, beside a shortcut.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride).

    Args:
        out_chs: As many as the input's unless given.
        bottle_ratio: Channels between the convolutions per channel of the output.
        stride: Of the first 3x3 convolution.
        dilation, first_dilation: Of the 3x3 convolutions; of the first, where a stride before it became dilation.
        act_layer: Activation behind the sum; there is none where norms stand first.
        conv_layer, norm_layer: A standardised convolution, and a norm of 32 groups with activation, unless given.
        proj_layer: Makes the shortcut's projection, for a stage's first block; here where the shape changes.
    """

    last_norm: ClassVar[str] = "conv2"

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int | None = None, bottle_ratio: float = 1.0, stride: int = 1, dilation: int = 1,
        first_dilation: int | None = None, groups: int = 1, act_layer: Layer | None = None,
        conv_layer: Layer | None = None, norm_layer: Layer | None = None, proj_layer: Layer | None = None,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        conv, norm = conv_layer or StdConv2d, norm_layer or _NORM
        out_chs, first_dilation = out_chs or in_chs, first_dilation or dilation
        width = make_divisible(out_chs * bottle_ratio)
        fits = stride == 1 and dilation == first_dilation and in_chs == out_chs
        self.downsample = None if fits or proj_layer is None else proj_layer(
            in_chs, out_chs, stride=stride, dilation=dilation, first_dilation=first_dilation, preact=True,
            conv_layer=conv, norm_layer=norm)
        self.norm1 = norm(in_chs)
        self.conv1 = conv(in_chs, width, 3, stride=stride, dilation=first_dilation, groups=groups)
        self.norm2, self.conv2 = norm(width), conv(width, out_chs, 3, dilation=dilation, groups=groups)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0.0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        active = self.norm1(x)
        shortcut = x if self.downsample is None else self.downsample(active)
        return self.drop_path(self.conv2(self.norm2(self.conv1(active)))) + shortcut


class PreActBottleneck(_Block):
    """Convolutions of 1x1, 3x3 and 1x1, each behind norm and activation, beside a shortcut.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride). Arguments as for `PreActBasic`.
    """

    preact: ClassVar[bool] = True
    last_norm: ClassVar[str] = "conv3"

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int | None = None, bottle_ratio: float = 0.25, stride: int = 1, dilation: int = 1,
        first_dilation: int | None = None, groups: int = 1, act_layer: Layer | None = None,
        conv_layer: Layer | None = None, norm_layer: Layer | None = None, proj_layer: Layer | None = None,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        conv, norm = conv_layer or StdConv2d, norm_layer or _NORM
        out_chs, first_dilation = out_chs or in_chs, first_dilation or dilation
        width = make_divisible(out_chs * bottle_ratio)
        self.downsample = None if proj_layer is None else proj_layer(
            in_chs, out_chs, stride=stride, dilation=dilation, first_dilation=first_dilation, preact=self.preact,
            conv_layer=conv, norm_layer=norm)
        self.norm1, self.conv1 = norm(in_chs if self.preact else width), conv(in_chs, width, 1)
        self.norm2 = norm(width)
        self.conv2 = conv(width, width, 3, stride=stride, dilation=first_dilation, groups=groups)
        self.norm3 = norm(width) if self.preact else norm(out_chs, apply_act=False)
        self.conv3 = conv(width, out_chs, 1)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0.0 else nn.Identity()
        if not self.preact:
            self.act3 = (act_layer or nn.ReLU)(inplace=True)
            move_to_end(self, "norm1", "conv2", "norm2", "conv3", "norm3", "drop_path", "act3")

    def forward(self, x: Tensor) -> Tensor:
        active = self.norm1(x)
        shortcut = x if self.downsample is None else self.downsample(active)
        branch = self.conv2(self.norm2(self.conv1(active)))
        return self.drop_path(self.conv3(self.norm3(branch))) + shortcut


class Bottleneck(PreActBottleneck):
    """The same convolutions, each before its norm, and an activation behind the sum. Shapes and arguments as there."""

    preact: ClassVar[bool] = False
    last_norm: ClassVar[str] = "norm3"

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        branch = self.norm2(self.conv2(self.norm1(self.conv1(x))))
        return self.act3(self.drop_path(self.norm3(self.conv3(branch))) + shortcut)


class ResNetStage(Stage):
    """Blocks, the first of which strides and has the shortcut's projection; key `blocks`.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride).

    Args:
        stride, dilation: Of the first block; of the blocks, 2 or 4 in place of strides.
        depth, block_dpr: Number of blocks, and rate of each one's stochastic depth.
        avg_down: The projection is a `DownsampleAvg`.
        block_fn, block_kwargs: Class of the blocks, and further arguments of it, as the others are.
    """

    def __init__(
        self, in_chs: int, out_chs: int, stride: int, dilation: int, depth: int, bottle_ratio: float = 0.25,
        groups: int = 1, avg_down: bool = False, block_dpr: Sequence[float] | None = None,
        block_fn: Layer = PreActBottleneck, act_layer: Layer | None = None, conv_layer: Layer | None = None,
        norm_layer: Layer | None = None, **block_kwargs: Any,
    ) -> None:
        super().__init__()
        self.downsample = nn.Identity()  # the first block does it
        block = partial(block_fn, dilation=dilation, bottle_ratio=bottle_ratio, groups=groups, act_layer=act_layer,
                        conv_layer=conv_layer, norm_layer=norm_layer, **block_kwargs)
        rates = block_dpr or [0.0] * depth
        first = block(in_chs, out_chs, stride=stride, first_dilation=1 if dilation < 4 else 2,
                      proj_layer=DownsampleAvg if avg_down else DownsampleConv, drop_path_rate=rates[0])
        self.blocks = nn.Sequential(first, *(
            block(out_chs, out_chs, first_dilation=dilation, drop_path_rate=rate) for rate in rates[1:]))


def is_stem_deep(stem_type: str) -> bool:
    """Whether a stem of this type has three convolutions."""
    return "deep" in stem_type or "tiered" in stem_type


def create_resnetv2_stem(
    in_chs: int, out_chs: int = 64, stem_type: str = "", preact: bool = True, conv_layer: Layer = StdConv2d,
    norm_layer: Layer = _NORM,
) -> nn.Sequential:
    """Strided convolution and max pool (B, in_chs, H, W) -> (B, out_chs, H / 4, W / 4); `stem_type` as of `ResNetV2`.

    Keys `conv`, `norm`, or `conv1`, `norm1` to `conv3`, `norm3`; the last norm only where not `preact`.

    Raises:
        ValueError: The type is unknown.
    """
    check_choice("stem_type", stem_type, _STEM_TYPES)
    stem = nn.Sequential()
    if is_stem_deep(stem_type):
        widths = (out_chs * 3 // 8 if stem_type == "tiered" else out_chs // 2, out_chs // 2, out_chs)
        layers = [(str(i), 3, width) for i, width in enumerate(widths, start=1)]
    else:
        layers = [("", 7, out_chs)]
    for name, kernel_size, width in layers:
        stem.add_module(f"conv{name}", conv_layer(in_chs, width, kernel_size, stride=1 if name > "1" else 2))
        if not preact or name in ("1", "2"):
            stem.add_module(f"norm{name}", norm_layer(width))
        in_chs = width
    if stem_type.endswith("fixed"):  # TensorFlow's padding of an even size, for all
        stem.add_module("pad", nn.ConstantPad2d(1, 0.0))
    stem.add_module("pool", MaxPool2dSame(3, 2) if stem_type.endswith("same") else
                    nn.MaxPool2d(3, 2, padding=0 if stem_type.endswith("fixed") else 1))
    return stem


def _init(conv: nn.Conv2d) -> None:
    (init_normal if isinstance(conv, ConvClassifier) else init_kaiming)(conv)


class ResNetV2(ImageModel):
    """Stem, four stages of blocks, norm and activation, pooling and a linear classifier (a 1x1 convolution).

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features have a stride of `output_stride`. Without pooling the
    classifier gives a map.

    Args:
        layers, channels: Of each stage: blocks, channels of its output.
        width_factor: Factor on all channels.
        stem_chs: Channels of the stem.
        stem_type: "" for one 7x7 convolution, "deep" for three 3x3, "tiered" for three whose first is narrower; the max
            pool's padding is symmetric, zeros with "fixed" (BiT), TensorFlow's with "same": "deep_same".
        avg_down: Shortcuts shrink by an average pool before a 1x1 convolution (ResNet-D).
        preact: Norm and activation stand before the convolutions, and another behind the last stage.
        basic: Basic blocks in place of bottlenecks.
        bottle_ratio: Channels within the blocks per channel of their output.

    Raises:
        ValueError: An option has an unknown value, or basic blocks shall have their norms behind.
    """

    head_path: ClassVar[str] = "head"
    feature_form: ClassVar[str] = "flat"
    tap_norm: ClassVar[str] = "last"
    inits: ClassVar[Inits] = {nn.Conv2d: _init}

    def __init__(
        self, layers: Sequence[int], channels: Sequence[int] = (256, 512, 1024, 2048), num_classes: int = 1000,
        in_chans: int = 3, global_pool: str = "avg", output_stride: int = 32, width_factor: float = 1,
        stem_chs: int = 64, stem_type: str = "", avg_down: bool = False, preact: bool = True, basic: bool = False,
        bottle_ratio: float = 0.25, act_layer: ActLayer = nn.ReLU, norm_layer: NormLayer = _NORM,
        conv_layer: Layer = StdConv2d, drop_rate: float = 0.0, drop_path_rate: float = 0.0,
        zero_init_last: bool = False,
    ) -> None:
        super().__init__()
        if basic and not preact:
            raise ValueError("basic blocks begin with their norm: basic=True needs preact=True")
        self.num_classes, self.in_chans, self.zero_init_last = num_classes, in_chans, zero_init_last
        norm = get_norm_act_layer(norm_layer, act_layer)
        make_stage = partial(
            ResNetStage, bottle_ratio=bottle_ratio, avg_down=avg_down, act_layer=get_act_layer(act_layer),
            block_fn=PreActBasic if basic else PreActBottleneck if preact else Bottleneck, conv_layer=conv_layer,
            norm_layer=norm)
        chs = make_divisible(stem_chs * width_factor)
        self.stem = create_resnetv2_stem(in_chans, chs, stem_type, preact, conv_layer, norm)
        names = list(self.stem._modules)
        tap = [name for name in names if name.startswith(("conv", "norm"))][-1]
        self.flow = Flow(
            stem=[Step(f"stem.{name}", *((chs, 2) if name == tap else ())) for name in names], stages=[],
            tail=[Step("norm")])
        self.stages = nn.Sequential()
        strides = dilate_strides([1] + [2] * (len(layers) - 1), 4, output_stride)
        rows = zip(channels, drop_path_rates(drop_path_rate, list(layers)), strides)
        for i, (width, drop_path, (stride, _, dilation, reduction)) in enumerate(rows):
            out_chs = make_divisible(width * width_factor)
            self.stages.append(make_stage(chs, out_chs, stride, dilation, len(drop_path), block_dpr=drop_path))
            self.flow.stages.append(Step(f"stages.{i}", out_chs, reduction))
            chs = out_chs
        self.norm = norm(chs) if preact else nn.Identity()
        self.add_head(ClassifierHead(chs, num_classes, global_pool, drop_rate, use_conv=True))


# The architectures: what differs from the class's defaults
_18, _50, _101, _152 = (dict(layers=layers) for layers in ((2, 2, 2, 2), (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)))
_BIT = dict(stem_type="fixed", conv_layer=partial(StdConv2d, eps=1e-8))
_PLAIN = dict(conv_layer=create_conv2d, norm_layer="batchnorm2d")
_BASIC = dict(_PLAIN, channels=(64, 128, 256, 512), basic=True, bottle_ratio=1.0)
_D = dict(stem_type="deep", avg_down=True)

register_model.variants(__name__, ResNetV2, {
    **{f"resnetv2_{depth}x{factor}_bit": (layers, _BIT, dict(width_factor=factor)) for depth, layers, factor in (
        (50, _50, 1), (50, _50, 3), (101, _101, 1), (101, _101, 3), (152, _152, 2), (152, _152, 4))},
    **{f"resnetv2_{depth}{letter}": (layers, kind, stem)
       for depth, layers, kind in ((18, _18, _BASIC), (34, _50, _BASIC), (50, _50, _PLAIN), (101, _101, _PLAIN),
                                   (152, _152, _PLAIN))
       for letter, stem in (("", {}), ("d", _D))},
    "resnetv2_50t": (_50, _PLAIN, _D, dict(stem_type="tiered")),
    **{f"resnetv2_50d_{name}": (_50, _PLAIN, _D, dict(norm_layer=norm))
       for name, norm in (("gn", "groupnorm"), ("evos", "evonorms0"), ("frn", "frntlu"))},
})


def block_path(found: re.Match[str]) -> str:
    """Google's names count stages and blocks from 1."""
    return f"stages.{int(found[1]) - 1}.blocks.{int(found[2]) - 1}."


_BIT_NAMES: tuple[tuple[str, Any], ...] = (
    (r"^resnet/", ""), (r"^root_block/standardized_conv2d", "stem.conv"), (r"^group_norm", "norm"),
    (r"^head/conv2d", "head.fc"), (r"^block(\d+)/unit(\d+)/", block_path),
    (r"a/proj/standardized_conv2d", "downsample.conv"),
    (r"\b([abc])/standardized_conv2d", lambda found: f"conv{'abc'.index(found[1]) + 1}"),
    (r"\b([abc])/group_norm", lambda found: f"norm{'abc'.index(found[1]) + 1}"),
    (r"/(?:kernel|gamma)$", ".weight"), (r"/(?:bias|beta)$", ".bias"))


def _from_bit(state_dict: StateDict, model: nn.Module) -> StateDict:
    """BiT's arrays, as its .npz files name them: kernels are (height, width, in, out)."""
    return {key: value.permute(3, 2, 0, 1).contiguous() if value.ndim == 4 else value
            for key, value in rename_keys(state_dict, *_BIT_NAMES).items()}


ResNetV2.key_maps = (
    KeyMap("bit", lambda keys: any(key.endswith("root_block/standardized_conv2d/kernel") for key in keys), _from_bit),
)
