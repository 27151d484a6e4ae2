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
from ..layers.helpers import check_choice, make_divisible, placeable
from ..layers.norm import NormLayer
from ..layers.pool import ClassifierHead
from ..layers.stage import run_blocks
from ..layers.weight_init import init_kaiming, init_normal, init_zero_bias
from ..registry import register_model
from .base import Flow, ImageModel, Indices, Inits, Step

if TYPE_CHECKING:
    from ._variants.cspnet import *

__all__ = ["BottleneckBlock", "CrossStage", "CrossStage3", "CspNet", "DarkBlock", "DarkStage", "EdgeBlock",
           "create_csp_stem"]

Layer = Callable[..., nn.Module]


def _attention(attn_layer: Layer | None, chs: int, act_layer: ActLayer) -> nn.Module:
    """Channel attention with the block's activation, where it has one; an identity for none."""
    if attn_layer is None:
        return nn.Identity()
    takes_act = "act_layer" in inspect.signature(attn_layer).parameters
    return attn_layer(chs, act_layer=act_layer) if takes_act else attn_layer(chs)


class BottleneckBlock(nn.Module):
    """ResNet's bottleneck: convolutions of 1x1, 3x3 and 1x1, whose sum with the input is activated.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H, W); the two are the same.

    Args:
        dilation, groups: Of the 3x3 convolution.
        bottle_ratio: Channels within per channel of the output.
        attn_last: Attention behind the last convolution instead of the 3x3 one; of this block alone.
        attn_layer: Makes channel attention from a number of channels, and an activation where it takes one.
        drop_block: Makes a module that drops squares behind the 3x3 convolution.
        drop_path: Rate of stochastic depth.
    """

    last_norm: ClassVar[str] = "conv3.bn"

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, dilation: int = 1, bottle_ratio: float = 0.25, groups: int = 1,
        act_layer: ActLayer = nn.ReLU, norm_layer: NormLayer = nn.BatchNorm2d, attn_last: bool = False,
        attn_layer: Layer | None = None, drop_block: Layer | None = None, drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        width = round(out_chs * bottle_ratio)
        conv = partial(ConvNormAct, act_layer=act_layer, norm_layer=norm_layer)
        self.conv1 = conv(in_chs, width, 1)
        self.conv2 = conv(width, width, 3, dilation=dilation, groups=groups, drop_layer=drop_block)
        self.attn2 = _attention(None if attn_last else attn_layer, width, act_layer)
        self.conv3 = conv(width, out_chs, 1, apply_act=False)
        self.attn3 = _attention(attn_layer if attn_last else None, out_chs, act_layer)
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()
        self.act3 = create_act_layer(act_layer, inplace=True) or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        branch = self.attn3(self.conv3(self.attn2(self.conv2(self.conv1(x)))))
        return self.act3(self.drop_path(branch) + x)


class DarkBlock(nn.Module):
    """DarkNet's block: convolutions of 1x1 and 3x3, both activated, and a shortcut. Shapes and arguments as above."""

    spatial_first: ClassVar[bool] = False
    last_norm: ClassVar[str] = "conv2.bn"

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, dilation: int = 1, bottle_ratio: float = 0.5, groups: int = 1,
        act_layer: ActLayer = nn.ReLU, norm_layer: NormLayer = nn.BatchNorm2d, attn_layer: Layer | None = None,
        drop_block: Layer | None = None, drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        width = round(out_chs * bottle_ratio)
        pointwise: Layer = partial(ConvNormAct, kernel_size=1, act_layer=act_layer, norm_layer=norm_layer)
        spatial: Layer = partial(pointwise, kernel_size=3, dilation=dilation, groups=groups, drop_layer=drop_block)
        first, second = (spatial, pointwise) if self.spatial_first else (pointwise, spatial)
        self.conv1, self.attn = first(in_chs, width), _attention(attn_layer, width, act_layer)
        self.conv2 = second(width, out_chs)
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.drop_path(self.conv2(self.attn(self.conv1(x)))) + x


class EdgeBlock(DarkBlock):
    """A `DarkBlock` whose 3x3 convolution comes first, as in EfficientNet's fused blocks."""

    spatial_first = True


_BLOCKS = {"bottle": BottleneckBlock, "dark": DarkBlock, "edge": EdgeBlock}


def _downsample(
    in_chs: int, out_chs: int, stride: int, dilation: int, groups: int, avg: bool, aa_layer: AaLayer, **layer_args: Any
) -> nn.Module:
    if avg:
        pool = nn.AvgPool2d(2) if stride == 2 else nn.Identity()
        return nn.Sequential(pool, ConvNormAct(in_chs, out_chs, 1, groups=groups, **layer_args))
    return ConvNormAct(in_chs, out_chs, 3, stride, "", dilation, groups, aa_layer=aa_layer, **layer_args)


def _make_blocks(
    chs: int, depth: int, block_fn: Layer, block_dpr: Sequence[float] | None, **block_kwargs: Any
) -> nn.Sequential:
    rates = [0.0] * depth if block_dpr is None else block_dpr
    return nn.Sequential(*(block_fn(chs, chs, drop_path=rate, **block_kwargs) for rate in rates[:depth]))


class CrossStage(nn.Module):
    """Downsampling, a 1x1 convolution, blocks on the second half of its channels, and a convolution that joins both.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride).

    Args:
        stride: Of the downsampling, which is left out where it changes neither size nor dilation.
        dilation, first_dilation: Of the blocks; of the downsampling, the blocks' unless given.
        depth, block_dpr: Number of blocks, and rate of stochastic depth of each.
        block_fn, block_kwargs: Makes a block; its further arguments, of which `act_layer` and `norm_layer` are the
            other convolutions', too, as `aa_layer` is the downsampling's. What is not here is as in `CspNet`.

    Raises:
        ValueError: The ratios do not give the blocks half of the channels.
    """

    grad_checkpointing: bool = False
    has_transition: ClassVar[bool] = True  # a convolution behind the blocks

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, stride: int, dilation: int, depth: int, block_ratio: float = 1.0,
        bottle_ratio: float = 1.0, expand_ratio: float = 1.0, groups: int = 1, first_dilation: int | None = None,
        avg_down: bool = False, down_growth: bool = False, cross_linear: bool = False,
        block_dpr: Sequence[float] | None = None, block_fn: Layer = BottleneckBlock, *, aa_layer: AaLayer = None,
        **block_kwargs: Any,
    ) -> None:
        super().__init__()
        self.width = width = round(out_chs * block_ratio)
        if width != round(out_chs * expand_ratio) // 2:
            raise ValueError(f"block_ratio {block_ratio} is not half of expand_ratio {expand_ratio}, of two paths")
        layer_args: dict[str, Any] = {key: block_kwargs.get(key) for key in ("act_layer", "norm_layer")}  # or none
        first_dilation = first_dilation or dilation
        conv: Layer = partial(ConvNormAct, kernel_size=1, **layer_args)
        shrinks = stride != 1 or first_dilation != dilation
        down_chs = out_chs if shrinks and (down_growth or avg_down) else in_chs
        self.conv_down = _downsample(in_chs, down_chs, stride, first_dilation, groups, avg_down, aa_layer,
                                     **layer_args) if shrinks else nn.Identity()
        self.conv_exp = conv(down_chs, 2 * width, apply_act=not cross_linear)
        self.blocks = _make_blocks(width, depth, block_fn, block_dpr, dilation=dilation, bottle_ratio=bottle_ratio,
                                   groups=groups, **block_kwargs)
        if self.has_transition:
            self.conv_transition_b = conv(width, width)
        self.conv_transition = conv(2 * width, out_chs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_exp(self.conv_down(x))
        return self.conv_transition(torch.cat(self.transform(x[:, :self.width], x[:, self.width:]), dim=1))

    def transform(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        second = run_blocks(self.blocks, second, recompute=self.grad_checkpointing)
        return first, self.conv_transition_b(second)


class CrossStage3(CrossStage):
    """The same with blocks on the first half, and no convolution between them and the one that joins the halves."""

    has_transition = False

    def transform(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        return run_blocks(self.blocks, first, recompute=self.grad_checkpointing), second


class DarkStage(nn.Sequential):
    """Downsampling, then blocks on all channels. Shapes and arguments as of `CrossStage`, as far as it takes them."""

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, stride: int, dilation: int, depth: int, block_ratio: float = 1.0,
        bottle_ratio: float = 1.0, groups: int = 1, first_dilation: int | None = None, avg_down: bool = False,
        block_fn: Layer = BottleneckBlock, block_dpr: Sequence[float] | None = None, *, aa_layer: AaLayer = None,
        **block_kwargs: Any,
    ) -> None:
        if block_ratio != 1.0:
            raise ValueError(f"block_ratio is 1 for a stage without a second path, not {block_ratio}")
        super().__init__()
        self.conv_down = _downsample(in_chs, out_chs, stride, first_dilation or dilation, groups, avg_down, aa_layer,
                                     act_layer=block_kwargs.get("act_layer"), norm_layer=block_kwargs.get("norm_layer"))
        self.blocks = _make_blocks(out_chs, depth, block_fn, block_dpr, dilation=dilation, bottle_ratio=bottle_ratio,
                                   groups=groups, **block_kwargs)


_STAGES = {"csp": CrossStage, "cs3": CrossStage3, "dark": DarkStage}


def create_csp_stem(
    in_chans: int = 3, out_chs: int | Sequence[int] = 32, kernel_size: int = 3, stride: int = 2, pool: str | None = "",
    padding: int | str = "", act_layer: ActLayer = nn.ReLU, norm_layer: NormLayer = nn.BatchNorm2d,
    aa_layer: AaLayer = None, device: Any = None, dtype: Any = None,
) -> tuple[nn.Sequential, list[dict[str, Any]]]:
    """A stem, and what it offers as features: of each size the last map, as `feature_info` has it.

    Args:
        out_chs, kernel_size: Channels of each of its convolutions; their kernel.
        stride: 1, 2 (the first convolution) or 4 (and the last, or the pool).
        pool: "max" for a max pool at its end, of stride 4; "" for none.
        padding: The first convolution's, see `layers.resolve_padding`.

    Raises:
        ValueError: An option has an unknown value.
    """
    check_choice("stem_stride", stride, (1, 2, 4))
    check_choice("stem_pool", pool or "", ("", "max") if stride == 4 else ("",))
    places = dict(device=device, dtype=dtype)
    stem, chs, reduction = nn.Sequential(), in_chans, 1
    taps: dict[int, dict[str, Any]] = {}  # by size
    widths = [out_chs] if isinstance(out_chs, int) else list(out_chs)
    for i, width in enumerate(widths, start=1):
        strided = stride > 1 if i == 1 else i == len(widths) and stride == 4 and not pool
        stem.add_module(f"conv{i}", ConvNormAct(
            chs, width, kernel_size, 2 if strided else 1, padding if i == 1 else "", act_layer=act_layer,
            norm_layer=norm_layer, **places))
        chs, reduction = width, reduction * 2 if strided else reduction
        taps[reduction] = dict(num_chs=chs, reduction=reduction, module=f"stem.conv{i}")
    if pool:
        stem.add_module("pool", nn.MaxPool2d(3, stride=1 if aa_layer else 2, padding=1))
        if aa_layer:
            stem.add_module("aa", create_aa(aa_layer, chs, stride=2, **places))
        reduction *= 2
        taps[reduction] = dict(num_chs=chs, reduction=reduction, module="stem.aa" if aa_layer else "stem.pool")
    return stem, list(taps.values())


def _by_stage(count: int, **options: Any) -> list[dict[str, Any]]:
    """Each stage's options; the last value stands for the stages that have none of their own."""
    values = {key: value if isinstance(value, (tuple, list)) else [value] for key, value in options.items()}
    return [{key: value[min(i, len(value) - 1)] for key, value in values.items()} for i in range(count)]


class CspNet(ImageModel):
    """Stem convolutions, stages (as a rule of two paths each), pooling and a linear classifier.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features have a stride of `output_stride`.

    Args:
        stem_out_chs, stem_stride, stem_kernel_size, stem_padding, stem_pool: As of `create_csp_stem`.
        depth: Blocks of each stage. The arguments from here to `down_growth` may be one value, or one for each stage,
            the last standing for those that are missing.
        out_chs, stride: Channels of each stage's output; stride of each stage.
        groups: Of its 3x3 convolutions.
        block_ratio, bottle_ratio: Channels of a block per channel of the stage's output; within it, of its own output.
        avg_down: Downsample by an average pool and a 1x1 convolution.
        attn_layer, attn_kwargs: Channel attention in the blocks, "se", "eca", ... or a class; further arguments of it.
        stage_type, block_type: "csp", "cs3" (see `CrossStage3`) or "dark" (one path); "bottle", "dark" or "edge".
        expand_ratio: Channels of both paths per channel of the output.
        cross_linear: The convolution that makes the paths carries no activation.
        down_growth: The downsampling has as many channels as the stage's output.

    Raises:
        ValueError: An option has an unknown value, or a stage's ratios do not fit each other.
    """

    head_path: ClassVar[str] = "head"
    feature_form: ClassVar[str] = "flat"
    default_out_indices: Indices = None  # type: ignore[misc]  # a model's own
    inits: ClassVar[Inits] = {
        nn.Conv2d: init_kaiming, nn.Linear: init_normal, (nn.Conv2d, nn.Linear): init_zero_bias}

    def __init__(
        self, stem_out_chs: int | Sequence[int] = 32, stem_stride: int = 2, stem_kernel_size: int = 3,
        stem_padding: int | str = "", stem_pool: str = "", depth: Sequence[int] = (3, 3, 5, 2),
        out_chs: Sequence[int] = (128, 256, 512, 1024), stride: int | Sequence[int] = 2,
        groups: int | Sequence[int] = 1, block_ratio: float | Sequence[float] = 1.0,
        bottle_ratio: float | Sequence[float] = 1.0, avg_down: bool | Sequence[bool] = False,
        attn_layer: AttnLayer | Sequence[AttnLayer] = None,
        attn_kwargs: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        stage_type: str | Sequence[str] = "csp", block_type: str | Sequence[str] = "bottle",
        expand_ratio: float | Sequence[float] = 1.0, cross_linear: bool | Sequence[bool] = False,
        down_growth: bool | Sequence[bool] = False, act_layer: ActLayer = "leaky_relu",
        norm_layer: NormLayer = "batchnorm", aa_layer: AaLayer = None, num_classes: int = 1000, in_chans: int = 3,
        output_stride: int = 32, global_pool: str = "avg", drop_rate: float = 0.0, drop_path_rate: float = 0.0,
        zero_init_last: bool = True,
    ) -> None:
        super().__init__()
        stages = _by_stage(
            len(depth), stage_type=stage_type, block_type=block_type, stride=stride, groups=groups,
            block_ratio=block_ratio, bottle_ratio=bottle_ratio, avg_down=avg_down, attn_layer=attn_layer,
            attn_kwargs=attn_kwargs, expand_ratio=expand_ratio, cross_linear=cross_linear, down_growth=down_growth)
        check_choice("output_stride", output_stride, (8, 16, 32))
        for option, known in (("stage_type", _STAGES), ("block_type", _BLOCKS)):
            for stage in stages:
                check_choice(option, stage[option], known)
        if len(out_chs) != len(depth):
            raise ValueError(f"depth and out_chs have a number for each stage, not {len(depth)} and {len(out_chs)}")
        self.num_classes, self.in_chans, self.zero_init_last = num_classes, in_chans, zero_init_last
        layer_args: dict[str, Any] = dict(act_layer=act_layer, norm_layer=norm_layer)
        self.stem, taps = create_csp_stem(in_chans, stem_out_chs, stem_kernel_size, stem_stride, stem_pool,
                                          stem_padding, aa_layer=aa_layer, **layer_args)
        chs, reduction, dilation = taps[-1]["num_chs"], taps[-1]["reduction"], 1
        if stages[0]["stride"] == 1:  # the first stage gives a map of that size
            taps.pop()
        named = {tap["module"]: (tap["num_chs"], tap["reduction"]) for tap in taps}
        self.flow = Flow(stages=[], stem=[
            Step(f"stem.{name}", *named.get(f"stem.{name}", ())) for name in self.stem._modules])
        self.stages = nn.Sequential()
        for i, (own, rates) in enumerate(zip(stages, drop_path_rates(drop_path_rate, list(depth)))):
            if reduction >= output_stride and own["stride"] > 1:
                dilation, own["stride"] = dilation * own["stride"], 1
            reduction *= own["stride"]
            attn, attn_kwargs = get_attn(own.pop("attn_layer")), own.pop("attn_kwargs") or {}
            make_stage = _STAGES[own.pop("stage_type")]
            if make_stage is DarkStage:  # one path has fewer options
                for key in ("expand_ratio", "cross_linear", "down_growth"):
                    del own[key]
            self.stages.append(make_stage(
                chs, out_chs[i], dilation=dilation, first_dilation=1 if dilation <= 2 else 2, depth=depth[i],
                block_fn=_BLOCKS[own.pop("block_type")], block_dpr=rates, aa_layer=aa_layer,
                attn_layer=attn and partial(attn, **attn_kwargs), **own, **layer_args))
            chs = out_chs[i]
            self.flow.stages.append(Step(f"stages.{i}", chs, reduction))
        self.add_head(ClassifierHead(chs, num_classes, global_pool, drop_rate))

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        blocks = r"^stages\.(\d+)" if coarse else [
            (r"^stages\.(\d+)\.blocks\.(\d+)", None), (r"^stages\.(\d+)\..*transition", (99999,)),
            (r"^stages\.(\d+)", (0,))]
        return dict(stem=r"^stem", blocks=blocks)


# The architectures: what differs from the class's defaults
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
