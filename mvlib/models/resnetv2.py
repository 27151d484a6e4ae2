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
from ..layers.helpers import make_divisible, move_to_end
from ..layers.norm import GroupNormAct, NormLayer, get_norm_act_layer
from ..layers.pool import ClassifierHead, MaxPool2dSame, shortcut_pool
from ..layers.stage import Stage
from ..layers.std_conv import StdConv2d
from ..registry import register_model
from .base import Flow, ImageModel, KeyMap, StateDict, Step

if TYPE_CHECKING:
    from ._variants.resnetv2 import *

__all__ = ["Bottleneck", "PreActBasic", "PreActBottleneck", "ResNetV2", "create_resnetv2_stem"]

Layer = Callable[..., nn.Module]

_STEM_TYPES = ("", "fixed", "same", "deep", "deep_fixed", "deep_same", "tiered")
_NORM = partial(GroupNormAct, num_groups=32)


# --- blocks


class Downsample(nn.Module):
    """What fits a shortcut to the output: (average pooling and) a 1x1 convolution, and a norm where one is given.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride); keys `conv`, `norm`.
    """

    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        stride: int,
        dilation: int,
        conv_layer: Layer,
        norm_layer: Layer | None = None,
        avg_down: bool = False,
    ) -> None:
        super().__init__()
        self.pool = shortcut_pool(stride, dilation) if avg_down else nn.Identity()
        self.conv = conv_layer(in_chs, out_chs, 1, stride=1 if avg_down else stride)
        self.norm = norm_layer(out_chs, apply_act=False) if norm_layer is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(self.pool(x)))


class PreActBasic(nn.Module):
    """Norm, activation and a 3x3 convolution, twice, beside a shortcut.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride).

    Args:
        in_chs: Input channels.
        out_chs: Output channels.
        bottle_ratio: Channels between the convolutions per channel of the output.
        stride: Of the first 3x3 convolution.
        dilation: Of the 3x3 convolutions.
        first_dilation: Of the first of them, where a strided stage before was dilated instead.
        proj_layer: Makes the shortcut's `Downsample`, for a stage's first block; here where the shape changes.
        conv_layer: Convolution.
        norm_layer: Norm with activation.
        drop_path: Rate of stochastic depth.
    """

    last: ClassVar[str] = "conv2"  # has the branch begin with zeros, where its weight is 0

    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        bottle_ratio: float = 1.0,
        stride: int = 1,
        dilation: int = 1,
        first_dilation: int | None = None,
        proj_layer: Layer | None = None,
        conv_layer: Layer = StdConv2d,
        norm_layer: Layer = _NORM,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        first_dilation = first_dilation or dilation
        width = make_divisible(out_chs * bottle_ratio)
        fits = stride == 1 and dilation == first_dilation and in_chs == out_chs
        self.downsample = None if fits or proj_layer is None else proj_layer(in_chs, out_chs, stride, dilation)
        self.norm1 = norm_layer(in_chs)
        self.conv1 = conv_layer(in_chs, width, 3, stride=stride, dilation=first_dilation)
        self.norm2 = norm_layer(width)
        self.conv2 = conv_layer(width, out_chs, 3, dilation=dilation)
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        active = self.norm1(x)
        shortcut = x if self.downsample is None else self.downsample(active)
        return self.drop_path(self.conv2(self.norm2(self.conv1(active)))) + shortcut


class PreActBottleneck(nn.Module):
    """Convolutions of 1x1, 3x3 and 1x1, each behind norm and activation, beside a shortcut.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride). Arguments as for `PreActBasic`.
    """

    last: ClassVar[str] = "conv3"

    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        bottle_ratio: float = 0.25,
        stride: int = 1,
        dilation: int = 1,
        first_dilation: int | None = None,
        proj_layer: Layer | None = None,
        conv_layer: Layer = StdConv2d,
        norm_layer: Layer = _NORM,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        width = make_divisible(out_chs * bottle_ratio)
        self.downsample = None if proj_layer is None else proj_layer(in_chs, out_chs, stride, dilation)
        self.norm1 = norm_layer(in_chs)
        self.conv1 = conv_layer(in_chs, width, 1)
        self.norm2 = norm_layer(width)
        self.conv2 = conv_layer(width, width, 3, stride=stride, dilation=first_dilation or dilation)
        self.norm3 = norm_layer(width)
        self.conv3 = conv_layer(width, out_chs, 1)
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        active = self.norm1(x)
        shortcut = x if self.downsample is None else self.downsample(active)
        branch = self.conv2(self.norm2(self.conv1(active)))
        return self.drop_path(self.conv3(self.norm3(branch))) + shortcut


class Bottleneck(PreActBottleneck):
    """The same convolutions, each before its norm, and an activation behind the sum. Shapes and arguments as there."""

    last: ClassVar[str] = "norm3"

    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        proj_layer: Layer | None = None,
        act_layer: Layer = nn.ReLU,
        norm_layer: Layer = _NORM,
        **kwargs: Any,
    ) -> None:
        proj_layer = proj_layer and partial(proj_layer, norm_layer=norm_layer)
        super().__init__(in_chs, out_chs, proj_layer=proj_layer, norm_layer=norm_layer, **kwargs)
        self.norm1 = norm_layer(self.conv1.out_channels)
        self.norm3 = norm_layer(out_chs, apply_act=False)
        self.act3 = act_layer(inplace=True)
        move_to_end(self, "norm1", "conv2", "norm2", "conv3", "norm3")

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        branch = self.norm2(self.conv2(self.norm1(self.conv1(x))))
        return self.act3(self.drop_path(self.norm3(self.conv3(branch))) + shortcut)


class ResNetStage(Stage):
    """Blocks, the first of which strides and has the shortcut's `Downsample`; key `blocks`.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride).
    """

    def __init__(
        self,
        block: Layer,
        in_chs: int,
        out_chs: int,
        stride: int,
        dilation: int,
        first_dilation: int,
        drop_path: Sequence[float],
        proj_layer: Layer,
    ) -> None:
        super().__init__()
        self.downsample = nn.Identity()  # the first block does it
        self.blocks = nn.Sequential(*(
            block(out_chs, out_chs, dilation=dilation, drop_path=rate) if i else
            block(in_chs, out_chs, stride=stride, dilation=dilation, first_dilation=first_dilation,
                  proj_layer=proj_layer, drop_path=rate)
            for i, rate in enumerate(drop_path)))


# --- the model


def create_resnetv2_stem(
    in_chs: int,
    out_chs: int = 64,
    stem_type: str = "",
    preact: bool = True,
    conv_layer: Layer = StdConv2d,
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
    if stem_type.startswith(("deep", "tiered")):
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
        num_classes: Classes; 0 for pooled features.
        in_chans: Channels of the image.
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
        drop_rate: Dropout before the classifier.
        drop_path_rate: Stochastic depth of the last block; earlier ones have proportionally less.
        zero_init_last: Blocks begin as identities: the last weight of their branch is initialised to 0.

    Raises:
        ValueError: An option has an unknown value, or basic blocks shall have their norms behind.
    """

    head_path: ClassVar[str] = "head"
    feature_form: ClassVar[str] = "flat"
    tap_norm: ClassVar[str] = "last"

    def __init__(
        self,
        layers: Sequence[int],
        channels: Sequence[int] = (256, 512, 1024, 2048),
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        output_stride: int = 32,
        width_factor: float = 1,
        stem_chs: int = 64,
        stem_type: str = "",
        avg_down: bool = False,
        preact: bool = True,
        basic: bool = False,
        bottle_ratio: float = 0.25,
        act_layer: ActLayer = nn.ReLU,
        norm_layer: NormLayer = _NORM,
        conv_layer: Layer = StdConv2d,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        zero_init_last: bool = False,
    ) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride is 8, 16 or 32, not {output_stride}")
        if basic and not preact:
            raise ValueError("basic blocks begin with their norm: basic=True needs preact=True")
        self.num_classes, self.in_chans, self.zero_init_last = num_classes, in_chans, zero_init_last
        norm = get_norm_act_layer(norm_layer, act_layer)
        kind = PreActBasic if basic else PreActBottleneck if preact else \
            partial(Bottleneck, act_layer=get_act_layer(act_layer))
        block = partial(kind, bottle_ratio=bottle_ratio, conv_layer=conv_layer, norm_layer=norm)
        proj = partial(Downsample, conv_layer=conv_layer, avg_down=avg_down)

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
            stride, first_dilation = 1 if i == 0 else 2, dilation
            if reduction >= output_stride:
                stride, dilation = 1, dilation * stride
            reduction *= stride
            out_chs = make_divisible(width * width_factor)
            self.stages.append(ResNetStage(block, chs, out_chs, stride, dilation, first_dilation, drop_path, proj))
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
