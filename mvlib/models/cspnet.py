"""Cross stage partial networks: a stage's blocks see half of its channels; the other half passes them by.

CSPResNet, CSPResNeXt and CSPDarkNet: Wang et al., "CSPNet: A New Backbone that can Enhance Learning Capability of CNN",
2019, arXiv:1911.11929. DarkNet (`darknet*`), without the second path: Redmon and Farhadi, "YOLOv3: An Incremental
Improvement", 2018, arXiv:1804.02767. The `cs3*` models have the stages of YOLOv5 and YOLOX, with one convolution less.

As in timm, one 1x1 convolution makes both halves; in the paper's networks each path has its own, and some first stages
are split unevenly. The number in a name counts the layers with weights; s, m, l, x are YOLO's sizes; "focus" models
have a stem of one 6x6 convolution.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ..layers.activations import ActLayer, create_act_layer
from ..layers.blur_pool import AaLayer, create_aa
from ..layers.channel_attention import AttnLayer, get_attn
from ..layers.conv import ConvNormAct
from ..layers.drop import DropPath, drop_path_rates
from ..layers.helpers import make_divisible
from ..layers.norm import NormLayer
from ..layers.pool import ClassifierHead
from ..layers.stage import run_blocks
from ..registry import register_model
from .base import Flow, ImageModel, Indices, Step

if TYPE_CHECKING:
    from ._variants.cspnet import *

__all__ = ["BottleneckBlock", "CrossStage", "CrossStage3", "CspNet", "DarkBlock", "DarkStage", "EdgeBlock"]

Layer = Callable[..., nn.Module]


# --- blocks


class BottleneckBlock(nn.Module):
    """ResNet's bottleneck: convolutions of 1x1, 3x3 and 1x1, whose sum with the input is activated.

    Shapes: (B, chs, H, W) -> same.

    Args:
        chs: Channels of input and output.
        bottle_ratio: Channels within per channel of the output.
        dilation, groups: Of the 3x3 convolution.
        attn: Makes the channel attention behind it from a number of channels.
        drop_path: Rate of stochastic depth.
        act_layer, norm_layer: Activation and norm behind the convolutions.
    """

    last_conv: ClassVar[str] = "conv3"

    def __init__(
        self,
        chs: int,
        bottle_ratio: float,
        dilation: int = 1,
        groups: int = 1,
        attn: Layer = nn.Identity,
        drop_path: float = 0.0,
        act_layer: ActLayer = nn.ReLU,
        norm_layer: NormLayer = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        width = round(chs * bottle_ratio)
        conv = partial(ConvNormAct, act_layer=act_layer, norm_layer=norm_layer)
        self.conv1 = conv(chs, width, 1)
        self.conv2 = conv(width, width, 3, dilation=dilation, groups=groups)
        self.attn2 = attn(width)
        self.conv3 = conv(width, chs, 1, apply_act=False)
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()
        self.act3 = create_act_layer(act_layer, inplace=True) or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        branch = self.conv3(self.attn2(self.conv2(self.conv1(x))))
        return self.act3(self.drop_path(branch) + x)


class DarkBlock(nn.Module):
    """DarkNet's block: convolutions of 1x1 and 3x3, both activated, and a shortcut. Shapes and arguments as above."""

    spatial_first: ClassVar[bool] = False
    last_conv: ClassVar[str] = "conv2"

    def __init__(
        self,
        chs: int,
        bottle_ratio: float,
        dilation: int = 1,
        groups: int = 1,
        attn: Layer = nn.Identity,
        drop_path: float = 0.0,
        **layer_args: Any,
    ) -> None:
        super().__init__()
        width = round(chs * bottle_ratio)
        pointwise: Layer = partial(ConvNormAct, kernel_size=1, **layer_args)
        spatial: Layer = partial(ConvNormAct, kernel_size=3, dilation=dilation, groups=groups, **layer_args)
        first, second = (spatial, pointwise) if self.spatial_first else (pointwise, spatial)
        self.conv1 = first(chs, width)
        self.attn = attn(width)
        self.conv2 = second(width, chs)
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.drop_path(self.conv2(self.attn(self.conv1(x)))) + x


class EdgeBlock(DarkBlock):
    """A `DarkBlock` whose 3x3 convolution comes first, as in EfficientNet's fused blocks."""

    spatial_first = True


_BLOCKS = {"bottle": BottleneckBlock, "dark": DarkBlock, "edge": EdgeBlock}


# --- stages


def _downsample(
    in_chs: int, out_chs: int, stride: int, dilation: int, groups: int, avg: bool, aa_layer: AaLayer, **layer_args: Any
) -> nn.Module:
    if avg:
        pool = nn.AvgPool2d(2) if stride == 2 else nn.Identity()
        return nn.Sequential(pool, ConvNormAct(in_chs, out_chs, 1, groups=groups, **layer_args))
    return ConvNormAct(in_chs, out_chs, 3, stride, "", dilation, groups, aa_layer=aa_layer, **layer_args)


class CrossStage(nn.Module):
    """Downsampling, a 1x1 convolution, blocks on the second half of its channels, and a convolution that joins both.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride).

    Args:
        in_chs: Channels of the input.
        out_chs: Channels of the output.
        blocks: Makes each block from its channels.
        stride: Of the downsampling, which is left out where it changes neither size nor dilation.
        dilation: Of the downsampling and of the blocks.
        layer_args: `norm_layer` and `act_layer` of the convolutions. What is not here is as in `CspNet`.

    Raises:
        ValueError: The ratios do not give the blocks half of the channels.
    """

    grad_checkpointing: bool = False
    has_transition: ClassVar[bool] = True  # a convolution behind the blocks

    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        blocks: Sequence[Layer],
        stride: int = 1,
        dilation: tuple[int, int] = (1, 1),
        groups: int = 1,
        block_ratio: float = 1.0,
        expand_ratio: float = 1.0,
        avg_down: bool = False,
        down_growth: bool = False,
        cross_linear: bool = False,
        aa_layer: AaLayer = None,
        **layer_args: Any,
    ) -> None:
        super().__init__()
        self.width = width = round(out_chs * block_ratio)
        if width != round(out_chs * expand_ratio) // 2:
            raise ValueError(f"block_ratio {block_ratio} is not half of expand_ratio {expand_ratio}, of two paths")
        conv: Layer = partial(ConvNormAct, kernel_size=1, **layer_args)
        down_chs: int = in_chs
        self.conv_down: nn.Module = nn.Identity()
        if stride != 1 or dilation[0] != dilation[1]:
            down_chs = out_chs if down_growth or avg_down else in_chs
            self.conv_down = _downsample(
                in_chs, down_chs, stride, dilation[0], groups, avg_down, aa_layer, **layer_args)
        self.conv_exp = conv(down_chs, 2 * width, apply_act=not cross_linear)
        self.blocks = nn.Sequential(*(block(width) for block in blocks))
        if self.has_transition:
            self.conv_transition_b = conv(width, width)
        self.conv_transition = conv(2 * width, out_chs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_exp(self.conv_down(x))
        passed, x = x[:, :self.width], x[:, self.width:]
        x = run_blocks(self.blocks, x, recompute=self.grad_checkpointing)
        return self.conv_transition(torch.cat((passed, self.conv_transition_b(x)), dim=1))


class CrossStage3(CrossStage):
    """The same with blocks on the first half, and no convolution between them and the one that joins the halves."""

    has_transition = False

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_exp(self.conv_down(x))
        x, passed = x[:, :self.width], x[:, self.width:]
        x = run_blocks(self.blocks, x, recompute=self.grad_checkpointing)
        return self.conv_transition(torch.cat((x, passed), dim=1))


class DarkStage(nn.Sequential):
    """Downsampling, then blocks on all channels. Shapes and arguments as of `CrossStage`, as far as it takes them."""

    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        blocks: Sequence[Layer],
        stride: int = 1,
        dilation: tuple[int, int] = (1, 1),
        groups: int = 1,
        block_ratio: float = 1.0,
        avg_down: bool = False,
        aa_layer: AaLayer = None,
        **layer_args: Any,
    ) -> None:
        if block_ratio != 1.0:
            raise ValueError(f"block_ratio is 1 for a stage without a second path, not {block_ratio}")
        super().__init__()
        self.conv_down = _downsample(in_chs, out_chs, stride, dilation[0], groups, avg_down, aa_layer, **layer_args)
        self.blocks = nn.Sequential(*(block(out_chs) for block in blocks))


_STAGES = {"csp": CrossStage, "cs3": CrossStage3, "dark": DarkStage}


# --- the model


def _attention(attn_layer: AttnLayer, attn_kwargs: Mapping[str, Any] | None, act_layer: ActLayer) -> Layer:
    """What makes channel attention with the model's activation, where it has one; an identity for none."""
    layer = get_attn(attn_layer)
    if layer is None:
        return nn.Identity
    own = dict(act_layer=act_layer) if "act_layer" in inspect.signature(layer).parameters else {}
    return partial(layer, **own, **(attn_kwargs or {}))


def _by_stage(count: int, **options: Any) -> list[dict[str, Any]]:
    """Each stage's options; the last value stands for the stages that have none of their own."""
    values = {key: value if isinstance(value, (tuple, list)) else [value] for key, value in options.items()}
    return [{key: value[min(i, len(value) - 1)] for key, value in values.items()} for i in range(count)]


class CspNet(ImageModel):
    """Stem convolutions, stages (as a rule of two paths each), pooling and a linear classifier.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features have a stride of `output_stride`.

    Args:
        stem_out_chs: Channels of each of the stem's convolutions.
        stem_stride: 1, 2 (the first convolution) or 4 (and the last, or the pool).
        stem_kernel_size: Their kernel.
        stem_padding: The first one's padding: rows and columns, or a name, see `layers.resolve_padding`.
        stem_pool: "max" for a max pool at the stem's end, "" for none.
        depth: Blocks of each stage. The arguments from here to `down_growth` may be one value, or one for each stage,
            the last standing for those that are missing.
        out_chs: Channels of each stage's output.
        stride: Of each stage.
        groups: Of its 3x3 convolutions.
        block_ratio: Channels of a block per channel of the stage's output.
        bottle_ratio: Channels within a block per channel of its output.
        avg_down: Downsample by an average pool and a 1x1 convolution.
        attn_layer: Channel attention in the blocks: "se", "eca", ... or a class.
        attn_kwargs: Further arguments of it.
        stage_type: "csp", "cs3" (see `CrossStage3`) or "dark" (one path).
        block_type: "bottle", "dark" or "edge".
        expand_ratio: Channels of both paths per channel of the output.
        cross_linear: The convolution that makes the paths carries no activation.
        down_growth: The downsampling has as many channels as the stage's output.
        act_layer: Activation.
        norm_layer: Norm.
        aa_layer: Anti-aliased downsampling behind convolutions of stride 1: "avg", "blur", "blurpc" or a class.
        num_classes: Classes; 0 for pooled features.
        in_chans: Channels of the image.
        output_stride: 8, 16 or 32; strides beyond it become dilation.
        global_pool: "avg", "max", "avgmax", "catavgmax" or "" for none.
        drop_rate: Dropout before the classifier.
        drop_path_rate: Stochastic depth of the last block; earlier ones have proportionally less.
        zero_init_last: Blocks begin as identities: the scale of their last norm is initialised to 0.

    Raises:
        ValueError: An option has an unknown value, or a stage's ratios do not fit each other.
    """

    head_path: ClassVar[str] = "head"
    feature_form: ClassVar[str] = "flat"
    default_out_indices: Indices = None  # type: ignore[misc]  # a model's own

    def __init__(
        self,
        stem_out_chs: int | Sequence[int] = 32,
        stem_stride: int = 2,
        stem_kernel_size: int = 3,
        stem_padding: int | str = "",
        stem_pool: str = "",
        depth: Sequence[int] = (3, 3, 5, 2),
        out_chs: Sequence[int] = (128, 256, 512, 1024),
        stride: int | Sequence[int] = 2,
        groups: int | Sequence[int] = 1,
        block_ratio: float | Sequence[float] = 1.0,
        bottle_ratio: float | Sequence[float] = 1.0,
        avg_down: bool | Sequence[bool] = False,
        attn_layer: AttnLayer | Sequence[AttnLayer] = None,
        attn_kwargs: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        stage_type: str | Sequence[str] = "csp",
        block_type: str | Sequence[str] = "bottle",
        expand_ratio: float | Sequence[float] = 1.0,
        cross_linear: bool | Sequence[bool] = False,
        down_growth: bool | Sequence[bool] = False,
        act_layer: ActLayer = "leaky_relu",
        norm_layer: NormLayer = "batchnorm",
        aa_layer: AaLayer = None,
        num_classes: int = 1000,
        in_chans: int = 3,
        output_stride: int = 32,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        zero_init_last: bool = True,
    ) -> None:
        super().__init__()
        stages = _by_stage(
            len(depth), stage_type=stage_type, block_type=block_type, stride=stride, groups=groups,
            block_ratio=block_ratio, bottle_ratio=bottle_ratio, avg_down=avg_down, attn_layer=attn_layer,
            attn_kwargs=attn_kwargs, expand_ratio=expand_ratio, cross_linear=cross_linear, down_growth=down_growth)
        options = [("output_stride", output_stride, (8, 16, 32)), ("stem_stride", stem_stride, (1, 2, 4)),
                   ("stem_pool", stem_pool or "", ("", "max") if stem_stride == 4 else ("",)),
                   *(("stage_type", stage["stage_type"], tuple(_STAGES)) for stage in stages),
                   *(("block_type", stage["block_type"], tuple(_BLOCKS)) for stage in stages)]
        for option, value, known in options:
            if value not in known:
                raise ValueError(f"unknown {option} {value!r}; known: {', '.join(map(repr, known))}")
        if len(out_chs) != len(depth):
            raise ValueError(f"depth and out_chs have a number for each stage, not {len(depth)} and {len(out_chs)}")
        self.num_classes, self.in_chans, self.zero_init_last = num_classes, in_chans, zero_init_last
        layer_args: dict[str, Any] = dict(act_layer=act_layer, norm_layer=norm_layer)

        self.stem = nn.Sequential()
        chs, reduction, dilation = in_chans, 1, 1
        taps: dict[int, tuple[str, int]] = {}  # of each size the last convolution, or the pool; and channels
        widths = [stem_out_chs] if isinstance(stem_out_chs, int) else list(stem_out_chs)
        for i, width in enumerate(widths, start=1):
            strided = stem_stride > 1 if i == 1 else i == len(widths) and stem_stride == 4 and not stem_pool
            self.stem.add_module(f"conv{i}", ConvNormAct(
                chs, width, stem_kernel_size, 2 if strided else 1, stem_padding if i == 1 else "", **layer_args))
            chs, reduction = width, reduction * 2 if strided else reduction
            taps[reduction] = f"conv{i}", chs
        if stem_pool:
            self.stem.add_module("pool", nn.MaxPool2d(3, stride=1 if aa_layer else 2, padding=1))
            if aa_layer:
                self.stem.add_module("aa", create_aa(aa_layer, chs, stride=2))
            reduction *= 2
            taps[reduction] = "aa" if aa_layer else "pool", chs
        if stages[0]["stride"] == 1:  # the first stage gives a map of that size
            del taps[reduction]
        named = {name: (width, size) for size, (name, width) in taps.items()}
        self.flow = Flow(stages=[], stem=[Step(f"stem.{name}", *named.get(name, ())) for name in self.stem._modules])

        self.stages = nn.Sequential()
        for i, (own, rates) in enumerate(zip(stages, drop_path_rates(drop_path_rate, list(depth)))):
            if reduction >= output_stride and own["stride"] > 1:
                dilation, own["stride"] = dilation * own["stride"], 1
            reduction *= own["stride"]
            attn = _attention(own.pop("attn_layer"), own.pop("attn_kwargs"), act_layer)
            make_block = partial(_BLOCKS[own.pop("block_type")], bottle_ratio=own.pop("bottle_ratio"),
                                 dilation=dilation, groups=own["groups"], attn=attn, **layer_args)
            make_stage = _STAGES[own.pop("stage_type")]
            takes = inspect.signature(make_stage).parameters  # one path has fewer options
            self.stages.append(make_stage(
                chs, out_chs[i], [partial(make_block, drop_path=rate) for rate in rates],
                dilation=(1 if dilation <= 2 else 2, dilation), aa_layer=aa_layer,
                **{key: value for key, value in own.items() if key in takes}, **layer_args))
            chs = out_chs[i]
            self.flow.stages.append(Step(f"stages.{i}", chs, reduction))

        self.num_features = chs
        self.head = ClassifierHead(chs, num_classes, global_pool, drop_rate)
        self.head_hidden_size = self.head.num_features
        self.init_weights()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        blocks = r"^stages\.(\d+)" if coarse else [
            (r"^stages\.(\d+)\.blocks\.(\d+)", None), (r"^stages\.(\d+)\..*transition", (99999,)),
            (r"^stages\.(\d+)", (0,))]
        return dict(stem=r"^stem", blocks=blocks)

    def init_module(self, name: str, module: nn.Module) -> None:
        super().init_module(name, module)
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            nn.init.zeros_(module.bias)
        path, _, conv = name.removesuffix(".bn").rpartition(".")
        is_last = name.endswith(".bn") and conv == getattr(self.get_submodule(path), "last_conv", None)
        if self.zero_init_last and is_last and isinstance(weight := getattr(module, "weight", None), Tensor):
            nn.init.zeros_(weight)


# --- the architectures: what differs from the class's defaults

_RESNET = dict(stem_out_chs=64, stem_kernel_size=7, stem_stride=4, stem_pool="max", stride=(1, 2), cross_linear=True)
_D = dict(stem_out_chs=(32, 32, 64), stem_kernel_size=3)
_50, _21 = dict(expand_ratio=2.0, bottle_ratio=0.5), dict(depth=(1, 1, 1, 2, 2))
_WIDE = dict(out_chs=(256, 512, 1024, 2048), block_ratio=0.5)
_53 = dict(stem_stride=1, depth=(1, 2, 8, 8, 4), out_chs=(64, 128, 256, 512, 1024), block_type="dark")
_DARK = dict(_53, bottle_ratio=0.5, stage_type="dark")
_SE, _SE4 = dict(attn_layer="se"), dict(attn_layer="se", attn_kwargs=dict(rd_ratio=0.25))
_EDGE = dict(block_type="edge", bottle_ratio=1.5)


def _cs3(width: float = 1.0, depth: float = 1.0, focus: bool = False) -> dict[str, Any]:
    chs = [make_divisible(c * width) for c in (32, 64, 128, 256, 512, 1024)]
    stem = dict(stem_out_chs=chs[1], stem_kernel_size=6, stem_padding=2) if focus else dict(stem_out_chs=chs[:2])
    return dict(stem, out_chs=chs[2:], depth=[int(d * depth) for d in (3, 6, 9, 3)], block_ratio=0.5,
                stage_type="cs3", block_type="dark", act_layer="silu")


_SIZES = {"s": (0.5, 0.5), "m": (0.75, 0.67), "l": (1.0, 1.0), "x": (1.25, 1.33)}  # width and depth
_L, _X = _cs3(*_SIZES["l"]), _cs3(*_SIZES["x"])


def _first_five(**kwargs: Any) -> CspNet:
    model = CspNet(**kwargs)
    model.default_out_indices = range(5)  # timm's slip: the last of its six is left out
    return model


register_model.variants(__name__, CspNet, {
    "cspresnet50": (_RESNET, _50),
    "cspresnet50d": (_RESNET, _50, _D),
    "cspresnet50w": (_RESNET, _WIDE, _D, dict(bottle_ratio=0.25)),
    "cspresnext50": (_RESNET, _WIDE, dict(groups=32)),
    "cspdarknet53": (_53, dict(expand_ratio=(2.0, 1.0), bottle_ratio=(0.5, 1.0), block_ratio=(1.0, 0.5),
                               down_growth=True)),
    "darknet17": (_DARK, dict(depth=(1, 1, 1, 1, 1))),
    "darknet21": (_DARK, _21),
    "darknet53": _DARK,
    "darknetaa53": (_DARK, dict(avg_down=True)),
    **{f"cs3darknet_{size}": _cs3(*factors) for size, factors in _SIZES.items()},
    **{f"cs3darknet_focus_{size}": _cs3(*factors, focus=True) for size, factors in _SIZES.items()},
    "cs3sedarknet_l": (_L, _SE4),
    "cs3sedarknet_x": (_X, _SE),
    "cs3sedarknet_xdw": (_WIDE, _SE, dict(stem_out_chs=(32, 64), depth=(3, 6, 12, 4), groups=(1, 1, 256, 512),
                                          bottle_ratio=0.5, act_layer="silu")),
    "cs3edgenet_x": (_X, _EDGE),
    "cs3se_edgenet_x": (_X, _EDGE, _SE4),
})
register_model.variants(__name__, _first_five, {"sedarknet21": (_DARK, _21, _SE)})
