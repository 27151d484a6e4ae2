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
from ..layers.helpers import make_divisible, move_to_end, placeable
from ..layers.norm import GroupNormAct, NormLayer, get_norm_act_layer
from ..layers.pool import ClassifierHead, MaxPool2dSame, shortcut_pool
from ..layers.stage import Stage
from ..layers.std_conv import StdConv2d
from ..registry import register_model
from .base import Flow, ImageModel, KeyMap, StateDict, Step

if TYPE_CHECKING:
    from ._variants.resnetv2 import *

__all__ = [
    "Bottleneck", "DownsampleAvg", "DownsampleConv", "PreActBasic", "PreActBottleneck", "ResNetStage", "ResNetV2",
    "create_resnetv2_stem", "is_stem_deep",
]

Layer = Callable[..., nn.Module]

_STEM_TYPES = ("", "fixed", "same", "deep", "deep_fixed", "deep_same", "tiered")
_NORM = partial(GroupNormAct, num_groups=32)


# --- blocks


class DownsampleConv(nn.Module):
    """What fits a shortcut to the output: a 1x1 convolution, and a norm unless the block's stand before convolutions.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride); keys `conv`, `norm`.

    Args:
        in_chs: Input channels.
        out_chs: Output channels.
        stride: Stride of the block.
        dilation, first_dilation: Those of the block; without effect on a convolution.
        preact: There is no norm.
        conv_layer: Convolution; standardised unless given.
        norm_layer: Norm with activation, which is made without; of 32 groups unless given.
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


class PreActBasic(nn.Module):
    """Norm, activation and a 3x3 convolution, twice, beside a shortcut.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride).

    Args:
        in_chs: Input channels.
        out_chs: Output channels; as many unless given.
        bottle_ratio: Channels between the convolutions per channel of the output.
        stride: Of the first 3x3 convolution.
        dilation: Of the 3x3 convolutions.
        first_dilation: Of the first of them, where a strided stage before was dilated instead.
        groups: Of the 3x3 convolutions.
        act_layer: Activation behind the sum; there is none where norms stand first.
        conv_layer: Convolution; standardised unless given.
        norm_layer: Norm with activation; of 32 groups unless given.
        proj_layer: Makes the shortcut's projection, for a stage's first block; here where the shape changes.
        drop_path_rate: Rate of stochastic depth.
    """

    last: ClassVar[str] = "conv2"  # has the branch begin with zeros, where its weight is 0

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
        self.norm2 = norm(width)
        self.conv2 = conv(width, out_chs, 3, dilation=dilation, groups=groups)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0.0 else nn.Identity()

    def zero_init_last(self) -> None:
        """Let the block begin as its shortcut alone."""
        nn.init.zeros_(self.conv2.get_parameter("weight"))

    def forward(self, x: Tensor) -> Tensor:
        active = self.norm1(x)
        shortcut = x if self.downsample is None else self.downsample(active)
        return self.drop_path(self.conv2(self.norm2(self.conv1(active)))) + shortcut


class PreActBottleneck(nn.Module):
    """Convolutions of 1x1, 3x3 and 1x1, each behind norm and activation, beside a shortcut.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride). Arguments as for `PreActBasic`.
    """

    preact: ClassVar[bool] = True
    last: ClassVar[str] = "conv3"

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
        self.norm1 = norm(in_chs if self.preact else width)
        self.conv1 = conv(in_chs, width, 1)
        self.norm2 = norm(width)
        self.conv2 = conv(width, width, 3, stride=stride, dilation=first_dilation, groups=groups)
        self.norm3 = norm(width) if self.preact else norm(out_chs, apply_act=False)
        self.conv3 = conv(width, out_chs, 1)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0.0 else nn.Identity()
        if not self.preact:
            self.act3 = (act_layer or nn.ReLU)(inplace=True)
            move_to_end(self, "norm1", "conv2", "norm2", "conv3", "norm3", "drop_path", "act3")

    def zero_init_last(self) -> None:
        """Let the block begin as its shortcut alone."""
        nn.init.zeros_(self.get_submodule(self.last).get_parameter("weight"))

    def forward(self, x: Tensor) -> Tensor:
        active = self.norm1(x)
        shortcut = x if self.downsample is None else self.downsample(active)
        branch = self.conv2(self.norm2(self.conv1(active)))
        return self.drop_path(self.conv3(self.norm3(branch))) + shortcut


class Bottleneck(PreActBottleneck):
    """The same convolutions, each before its norm, and an activation behind the sum. Shapes and arguments as there."""

    preact: ClassVar[bool] = False
    last: ClassVar[str] = "norm3"

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        branch = self.norm2(self.conv2(self.norm1(self.conv1(x))))
        return self.act3(self.drop_path(self.norm3(self.conv3(branch))) + shortcut)


class ResNetStage(Stage):
    """Blocks, the first of which strides and has the shortcut's projection; key `blocks`.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride).

    Args:
        in_chs: Input channels.
        out_chs: Output channels.
        stride: Of the first block.
        dilation: Of the blocks; 2 or 4 in place of strides.
        depth: Number of blocks.
        avg_down: The projection is a `DownsampleAvg`.
        block_dpr: Rate of each block's stochastic depth.
        block_fn: Class of the blocks.
        block_kwargs: The others are further arguments of the blocks.
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


# --- the model


def is_stem_deep(stem_type: str) -> bool:
    """Whether a stem of this type has three convolutions."""
    return "deep" in stem_type or "tiered" in stem_type


def create_resnetv2_stem(
    in_chs: int, out_chs: int = 64, stem_type: str = "", preact: bool = True, conv_layer: Layer = StdConv2d,
    norm_layer: Layer = _NORM,
) -> nn.Sequential:
    """Strided convolution and max pool (B, in_chs, H, W) -> (B, out_chs, H / 4, W / 4); see `ResNetV2`.

    Keys `conv`, `norm`, or `conv1`, `norm1` to `conv3`, `norm3`; the last norm only where not `preact`.

    Raises:
        ValueError: The type is unknown.
    """
    if stem_type not in _STEM_TYPES:
        raise ValueError(f"unknown stem_type {stem_type!r}; known: {', '.join(map(repr, _STEM_TYPES))}")
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
    pool = MaxPool2dSame(3, 2) if stem_type.endswith("same") else \
        nn.MaxPool2d(3, 2, padding=0 if stem_type.endswith("fixed") else 1)
    stem.add_module("pool", pool)
    return stem


class ResNetV2(ImageModel):
    """Stem, four stages of blocks, norm and activation, pooling and a linear classifier (a 1x1 convolution).

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features have a stride of `output_stride`.

    Args:
        layers: Blocks of each stage.
        channels: Channels of each stage's output.
        global_pool: "avg", "max", "avgmax", "catavgmax" or "" for none: the classifier then gives a map.
        output_stride: 8, 16 or 32; strides beyond it become dilation.
        width_factor: Factor on all channels.
        stem_chs: Channels of the stem.
        stem_type: "" for one 7x7 convolution, "deep" for three 3x3, "tiered" for three whose first is narrower; the max
            pool's padding is symmetric, zeros with "fixed" (BiT), TensorFlow's with "same": "deep_same".
        avg_down: Shortcuts shrink by an average pool before a 1x1 convolution (ResNet-D).
        preact: Norm and activation stand before the convolutions, and another behind the last stage.
        basic: Basic blocks in place of bottlenecks.
        bottle_ratio: Channels within the blocks per channel of their output.
        act_layer: Activation.
        norm_layer: Norm.
        conv_layer: Convolution.
        zero_init_last: Blocks begin as identities: the last weight of their branch is initialised to 0.

    Raises:
        ValueError: An option has an unknown value, or basic blocks shall have their norms behind.
    """

    head_path: ClassVar[str] = "head"
    feature_form: ClassVar[str] = "flat"
    tap_norm: ClassVar[str] = "last"

    def __init__(
        self, layers: Sequence[int], channels: Sequence[int] = (256, 512, 1024, 2048), num_classes: int = 1000,
        in_chans: int = 3, global_pool: str = "avg", output_stride: int = 32, width_factor: float = 1,
        stem_chs: int = 64, stem_type: str = "", avg_down: bool = False, preact: bool = True, basic: bool = False,
        bottle_ratio: float = 0.25, act_layer: ActLayer = nn.ReLU, norm_layer: NormLayer = _NORM,
        conv_layer: Layer = StdConv2d, drop_rate: float = 0.0, drop_path_rate: float = 0.0,
        zero_init_last: bool = False,
    ) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride is 8, 16 or 32, not {output_stride}")
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
        reduction, dilation = 4, 1
        rates = drop_path_rates(drop_path_rate, list(layers))
        for i, (width, drop_path) in enumerate(zip(channels, rates)):
            stride = 1 if i == 0 else 2
            if reduction >= output_stride:
                stride, dilation = 1, dilation * stride
            reduction *= stride
            out_chs = make_divisible(width * width_factor)
            self.stages.append(make_stage(chs, out_chs, stride, dilation, len(drop_path), block_dpr=drop_path))
            self.flow.stages.append(Step(f"stages.{i}", out_chs, reduction))
            chs = out_chs

        self.num_features = chs
        self.norm = norm(chs) if preact else nn.Identity()
        self.head = ClassifierHead(chs, num_classes, global_pool, drop_rate, use_conv=True)
        self.head_hidden_size = self.head.num_features
        self.init_weights()

    def init_module(self, name: str, module: nn.Module) -> None:
        super().init_module(name, module)
        if isinstance(module, nn.Conv2d) and name == "head.fc":
            nn.init.normal_(module.weight, std=0.01)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.zeros_(module.bias)
        path, _, last = name.rpartition(".")
        if self.zero_init_last and getattr(self.get_submodule(path), "last", None) == last:
            nn.init.zeros_(module.get_parameter("weight"))


# --- the architectures: what differs from the class's defaults

_18, _34, _50, _101, _152 = (dict(layers=layers) for layers in (
    (2, 2, 2, 2), (3, 4, 6, 3), (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)))
_BIT = dict(stem_type="fixed", conv_layer=partial(StdConv2d, eps=1e-8))
_PLAIN = dict(conv_layer=create_conv2d, norm_layer="batchnorm2d")
_BASIC = dict(_PLAIN, channels=(64, 128, 256, 512), basic=True, bottle_ratio=1.0)
_D = dict(stem_type="deep", avg_down=True)

register_model.variants(__name__, ResNetV2, {
    "resnetv2_50x1_bit": (_50, _BIT),
    "resnetv2_50x3_bit": (_50, _BIT, dict(width_factor=3)),
    "resnetv2_101x1_bit": (_101, _BIT),
    "resnetv2_101x3_bit": (_101, _BIT, dict(width_factor=3)),
    "resnetv2_152x2_bit": (_152, _BIT, dict(width_factor=2)),
    "resnetv2_152x4_bit": (_152, _BIT, dict(width_factor=4)),
    "resnetv2_18": (_18, _BASIC),
    "resnetv2_18d": (_18, _BASIC, _D),
    "resnetv2_34": (_34, _BASIC),
    "resnetv2_34d": (_34, _BASIC, _D),
    "resnetv2_50": (_50, _PLAIN),
    "resnetv2_50d": (_50, _PLAIN, _D),
    "resnetv2_50t": (_50, _PLAIN, _D, dict(stem_type="tiered")),
    "resnetv2_101": (_101, _PLAIN),
    "resnetv2_101d": (_101, _PLAIN, _D),
    "resnetv2_152": (_152, _PLAIN),
    "resnetv2_152d": (_152, _PLAIN, _D),
    "resnetv2_50d_gn": (_50, _PLAIN, _D, dict(norm_layer="groupnorm")),
    "resnetv2_50d_evos": (_50, _PLAIN, _D, dict(norm_layer="evonorms0")),
    "resnetv2_50d_frn": (_50, _PLAIN, _D, dict(norm_layer="frntlu")),
})


# --- foreign checkpoints


def block_path(found: re.Match[str]) -> str:
    """Google's names count stages and blocks from 1."""
    return f"stages.{int(found[1]) - 1}.blocks.{int(found[2]) - 1}."


_BIT_NAMES: tuple[tuple[str, Any], ...] = (
    (r"^resnet/", ""),
    (r"^root_block/standardized_conv2d", "stem.conv"),
    (r"^group_norm", "norm"),
    (r"^head/conv2d", "head.fc"),
    (r"^block(\d+)/unit(\d+)/", block_path),
    (r"a/proj/standardized_conv2d", "downsample.conv"),
    (r"\b([abc])/standardized_conv2d", lambda found: f"conv{'abc'.index(found[1]) + 1}"),
    (r"\b([abc])/group_norm", lambda found: f"norm{'abc'.index(found[1]) + 1}"),
    (r"/(?:kernel|gamma)$", ".weight"),
    (r"/(?:bias|beta)$", ".bias"),
)


def _from_bit(state_dict: StateDict, model: nn.Module) -> StateDict:
    """BiT's arrays, as its .npz files name them: kernels are (height, width, in, out)."""
    out = {}
    for key, value in state_dict.items():
        for pattern, replacement in _BIT_NAMES:
            key = re.sub(pattern, replacement, key)
        out[key] = value.permute(3, 2, 0, 1).contiguous() if value.ndim == 4 else value
    return out


ResNetV2.key_maps = (
    KeyMap("bit", lambda keys: any(key.endswith("root_block/standardized_conv2d/kernel") for key in keys), _from_bit),
)
