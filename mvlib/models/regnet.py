"""RegNet: residual bottlenecks whose widths follow from four numbers.

RegNet X and Y (https://arxiv.org/abs/2003.13678), Z (https://arxiv.org/abs/2103.06877), the Y models that SEER trained
without labels (https://arxiv.org/abs/2103.01988) and SWAG on hashtags (https://arxiv.org/abs/2201.08371).

Block `i` of `depth` is `w0 + wa * i` channels wide; that is rounded to a power of `wm` times `w0`, then to a multiple
of 8, and blocks of one width make a stage. The number in a name is the compute of an image of 224 pixels in hundreds
of millions of multiply-adds. The letter:

    x  ResNeXt's bottleneck; its 3x3 convolution has groups of `group_size` channels
    y  as x, with squeeze-and-excitation between the second convolution and the third
    z  as y, with inverted bottlenecks four times as wide as their output, which carries no activation; no shortcut
       where the shape changes
    v  as y, with norm and activation before each convolution instead of behind it
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from ..layers.activations import ActLayer, get_act_layer
from ..layers.channel_attention import SEModule
from ..layers.conv import ConvNormAct, create_conv2d
from ..layers.drop import DropPath, drop_path_rates
from ..layers.helpers import check_choice, make_divisible, placeable
from ..layers.norm import GroupNormAct, NormLayer, get_norm_act_layer
from ..layers.pool import ClassifierHead, shortcut_pool
from ..layers.stage import dilate_strides
from ..layers.weight_init import init_fan_out, init_normal
from ..registry import register_model
from .base import Flow, ImageModel, Inits, KeyMap, StateDict, Step

if TYPE_CHECKING:
    from ._variants.regnet import *

__all__ = ["Bottleneck", "PreBottleneck", "RegNet", "RegStage", "adjust_widths_groups_comp", "create_shortcut",
           "downsample_avg", "downsample_conv", "generate_regnet", "quantize_float"]

Layer = Callable[..., nn.Module]

_SHORTCUTS = ("conv1x1", "avg", "", None)


def generate_regnet(
    width_slope: float, width_initial: int, width_mult: float, depth: int, group_size: int, quant: int = 8
) -> tuple[list[int], int, list[int]]:
    """Quantised widths of `depth` blocks, the number of stages, `group_size` for each (the paper's equations 2 to 4).

    Args:
        width_slope: By how much a block is wider than the one before it.
        width_initial: Width of the first block, a multiple of `quant`, as all are.
        width_mult: Ratio of the widths of two stages.

    Raises:
        ValueError: The numbers make no widths.
    """
    if width_slope < 0 or width_initial <= 0 or width_mult <= 1 or width_initial % quant:
        raise ValueError(f"RegNet needs wa >= 0, wm > 1 and w0 a multiple of {quant}, not wa={width_slope}, "
                         f"wm={width_mult}, w0={width_initial}")
    exponents = [round(math.log((width_initial + width_slope * i) / width_initial) / math.log(width_mult))
                 for i in range(depth)]
    widths = [quantize_float(width_initial * width_mult**exponent, quant) for exponent in exponents]
    return widths, len(set(widths)), [group_size] * len(set(widths))


def quantize_float(f: float, q: int) -> int:
    """The multiple of `q` that is nearest to `f`; the even one half of the way."""
    return round(f / q) * q


def adjust_widths_groups_comp(
    widths: Sequence[int], bottle_ratios: Sequence[float], groups: Sequence[int], min_ratio: float = 0.0
) -> tuple[list[int], list[int]]:
    """Widths of stages and channels of their groups, changed so that groups divide the bottlenecks.

    A bottleneck, of so many times the width, is rounded to the nearest multiple of a group, which is no larger than it;
    upwards where less than `min_ratio` of it would stay.
    """
    inner = [int(width * ratio) for width, ratio in zip(widths, bottle_ratios)]
    groups = [min(group, chs) for group, chs in zip(groups, inner)]
    fit = partial(make_divisible, round_limit=min_ratio) if min_ratio else quantize_float
    fitted = [fit(chs, group) for chs, group in zip(inner, groups)]
    return [int(chs / ratio) for chs, ratio in zip(fitted, bottle_ratios)], groups


def downsample_conv(
    in_chs: int, out_chs: int, kernel_size: int = 1, stride: int = 1, dilation: int = 1, norm_layer: NormLayer = None,
    preact: bool = False, device: Any = None, dtype: Any = None,
) -> nn.Module:
    """A shortcut's convolution, with a norm (batch norm unless given) but for `preact`; 1x1 where it changes no size.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride).
    """
    if stride == dilation == 1:
        kernel_size = 1
    conv: Layer = create_conv2d if preact else partial(
        ConvNormAct, norm_layer=norm_layer or nn.BatchNorm2d, apply_act=False)
    return conv(in_chs, out_chs, kernel_size, stride=stride, dilation=dilation if kernel_size > 1 else 1,
                device=device, dtype=dtype)


def downsample_avg(
    in_chs: int, out_chs: int, kernel_size: int = 1, stride: int = 1, dilation: int = 1, norm_layer: NormLayer = None,
    preact: bool = False, device: Any = None, dtype: Any = None,
) -> nn.Sequential:
    """Average pooling and a 1x1 convolution, whatever `kernel_size` is. Shapes and arguments as `downsample_conv`."""
    conv = downsample_conv(in_chs, out_chs, norm_layer=norm_layer, preact=preact, device=device, dtype=dtype)
    return nn.Sequential(shortcut_pool(stride, dilation), conv)


def create_shortcut(
    downsample_type: str | None, in_chs: int, out_chs: int, kernel_size: int, stride: int,
    dilation: tuple[int, int] = (1, 1), norm_layer: NormLayer = None, preact: bool = False, device: Any = None,
    dtype: Any = None,
) -> nn.Module | None:
    """What a block's input passes on its way to the output; None where the shapes differ and there is no such way.

    Raises:
        ValueError: The type is unknown.
    """
    check_choice("downsample", downsample_type, _SHORTCUTS)
    if in_chs == out_chs and stride == 1 and dilation[0] == dilation[1]:
        return nn.Identity()
    if not downsample_type:
        return None
    make = downsample_avg if downsample_type == "avg" else downsample_conv
    return make(in_chs, out_chs, kernel_size, stride, dilation[0], norm_layer, preact, device, dtype)


class Bottleneck(nn.Module):
    """A 1x1 convolution, a grouped 3x3, squeeze-and-excitation, a 1x1, and a shortcut; norms behind convolutions.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride).

    Args:
        stride: Of the 3x3 convolution.
        dilation: Of the 3x3 convolution, and of those in the following blocks of the stage.
        bottle_ratio: Channels of the 3x3 convolution per output channel.
        group_size: Channels of its groups.
        se_ratio: Channels of the squeeze per input channel; 0 for no squeeze-and-excitation.
        downsample: How the shortcut changes shape: "conv1x1", "avg" (average pool, then 1x1 convolution), or None for
            no shortcut where it would have to.
        linear_out: No activation behind the sum.
        drop_block: Makes a module that drops squares behind the 3x3 convolution.
        drop_path_rate: Rate of stochastic depth.
    """

    preact: ClassVar[bool] = False
    last_norm: ClassVar[str] = "conv3.bn"
    conv1: nn.Module
    conv2: nn.Module
    conv3: nn.Module

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, stride: int = 1, dilation: tuple[int, int] = (1, 1), bottle_ratio: float = 1.0,
        group_size: int = 1, se_ratio: float = 0.25, downsample: str | None = "conv1x1", linear_out: bool = False,
        act_layer: ActLayer = nn.ReLU, norm_layer: NormLayer = nn.BatchNorm2d, drop_block: Layer | None = None,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        inner = round(out_chs * bottle_ratio)
        middle = dict(stride=stride, dilation=dilation[0], groups=inner // group_size)
        se = SEModule(inner, rd_channels=round(in_chs * se_ratio), act_layer=act_layer) if se_ratio else nn.Identity()
        self.add_branch(in_chs, inner, out_chs, middle, se, norm_layer, act_layer, linear_out, drop_block)
        self.downsample = create_shortcut(downsample, in_chs, out_chs, 1, stride, dilation, norm_layer, self.preact)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0.0 else nn.Identity()

    def add_branch(
        self, in_chs: int, inner: int, out_chs: int, middle: dict[str, Any], se: nn.Module, norm_layer: NormLayer,
        act_layer: ActLayer, linear_out: bool, drop_block: Layer | None,
    ) -> None:
        conv = partial(ConvNormAct, norm_layer=norm_layer, act_layer=act_layer)
        self.conv1 = conv(in_chs, inner, 1)
        self.conv2 = conv(inner, inner, 3, drop_layer=drop_block, **middle)
        self.se = se  # unlike elsewhere, the squeeze is measured by the channels that enter the block
        self.conv3 = conv(inner, out_chs, 1, apply_act=False)
        self.act3 = nn.Identity() if linear_out else get_act_layer(act_layer)(inplace=True)

    def add_shortcut(self, branch: Tensor, x: Tensor) -> Tensor:
        if self.downsample is not None:
            branch = self.drop_path(branch)
            branch += self.downsample(x)
        return branch

    def forward(self, x: Tensor) -> Tensor:
        return self.act3(self.add_shortcut(self.conv3(self.se(self.conv2(self.conv1(x)))), x))


class PreBottleneck(Bottleneck):
    """A `Bottleneck` with norm and activation before each convolution; the shortcut begins behind the first of them.

    The output carries no activation, whatever `linear_out` is, and no squares are dropped.
    """

    preact: ClassVar[bool] = True

    def add_branch(
        self, in_chs: int, inner: int, out_chs: int, middle: dict[str, Any], se: nn.Module, norm_layer: NormLayer,
        act_layer: ActLayer, linear_out: bool, drop_block: Layer | None,
    ) -> None:
        norm_act = get_norm_act_layer(norm_layer, act_layer)
        self.norm1, self.conv1 = norm_act(in_chs), create_conv2d(in_chs, inner, 1)
        self.norm2, self.conv2 = norm_act(inner), create_conv2d(inner, inner, 3, **middle)
        self.se = se
        self.norm3, self.conv3 = norm_act(inner), create_conv2d(inner, out_chs, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x)
        branch = self.se(self.conv2(self.norm2(self.conv1(x))))
        return self.add_shortcut(self.conv3(self.norm3(branch)), x)


class RegStage(nn.Sequential):
    """Blocks of one width, `b1`, `b2`, ...; the first has the stride, and half of a dilation of more than 2, else none.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride). `block_fn` makes a block, of which the further
    arguments are; `drop_path_rates` has a number for each.
    """

    def __init__(
        self, depth: int, in_chs: int, out_chs: int, stride: int, dilation: int,
        drop_path_rates: Sequence[float] | None = None, block_fn: Layer = Bottleneck, **block_kwargs: Any,
    ) -> None:
        super().__init__()
        first_dilation = 1 if dilation <= 2 else 2
        for i in range(depth):
            rate = drop_path_rates[i] if drop_path_rates is not None else 0.0
            self.add_module(f"b{i + 1}", block_fn(
                in_chs, out_chs, stride=stride, dilation=(first_dilation, dilation), drop_path_rate=rate,
                **block_kwargs))
            in_chs, stride, first_dilation = out_chs, 1, dilation


class RegNet(ImageModel):
    """Stem convolution, stages `s1` to `s4` of bottlenecks `b1`, `b2`, ..., pooling and a linear classifier.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features have a stride of `output_stride`.

    Args:
        depth: Blocks.
        w0, wa, wm: First width, slope and ratio of widths, see `generate_regnet`.
        group_size, bottle_ratio, se_ratio, downsample: As of `Bottleneck`.
        group_min_ratio: The share of a width that must stay when it is made a multiple of the groups; 0 for no limit.
            torchvision has 0.9.
        stem_width: Channels of the stem.
        linear_out: Blocks end without an activation; there is one behind the last stage.
        preact: Norms and activations before convolutions (RegNetV).
        num_features: Channels of a 1x1 convolution behind the last stage; 0 for none.

    Raises:
        ValueError: An option has an unknown value, or the widths do not make four stages.
    """

    head_path: ClassVar[str] = "head"
    feature_form: ClassVar[str] = "list"
    inits: ClassVar[Inits] = {nn.Conv2d: init_fan_out, nn.Linear: init_normal}

    def __init__(
        self, depth: int = 21, w0: int = 80, wa: float = 42.63, wm: float = 2.66, group_size: int = 24,
        bottle_ratio: float = 1.0, se_ratio: float = 0.0, group_min_ratio: float = 0.0, stem_width: int = 32,
        downsample: str | None = "conv1x1", linear_out: bool = False, preact: bool = False, num_features: int = 0,
        act_layer: ActLayer = "relu", norm_layer: NormLayer = "batchnorm", num_classes: int = 1000, in_chans: int = 3,
        output_stride: int = 32, global_pool: str = "avg", drop_rate: float = 0.0, drop_path_rate: float = 0.0,
        zero_init_last: bool = True,
    ) -> None:
        super().__init__()
        widths, count, groups = generate_regnet(wa, w0, wm, depth, group_size)
        if count != 4:
            raise ValueError(f"RegNet has 4 stages, but depth={depth}, w0={w0}, wa={wa}, wm={wm} make {count}")
        depths = Counter(widths)  # of stages, from narrow to wide
        widths, groups = adjust_widths_groups_comp(list(depths), [bottle_ratio] * count, groups, group_min_ratio)
        self.num_classes, self.in_chans, self.zero_init_last = num_classes, in_chans, zero_init_last
        conv = partial(ConvNormAct, norm_layer=norm_layer, act_layer=act_layer)
        self.stem = (create_conv2d if preact else conv)(in_chans, stem_width, 3, stride=2)
        self.flow = Flow(stem=[Step("stem", stem_width, reduction=2)], stages=[])
        make_stage = partial(
            RegStage, block_fn=PreBottleneck if preact else Bottleneck, bottle_ratio=bottle_ratio, se_ratio=se_ratio,
            downsample=downsample, linear_out=linear_out, act_layer=act_layer, norm_layer=norm_layer)
        chs = stem_width
        rates = drop_path_rates(drop_path_rate, list(depths.values()))
        rows = zip(widths, groups, rates, dilate_strides((2,) * 4, 2, output_stride))
        for i, (out_chs, group, stage_rates, (stride, _, dilation, reduction)) in enumerate(rows, start=1):
            self.add_module(f"s{i}", make_stage(
                len(stage_rates), chs, out_chs, stride, dilation, stage_rates, group_size=group))
            self.flow.stages.append(Step(f"s{i}", out_chs, reduction))
            chs = out_chs
        self.final_conv: nn.Module = nn.Identity()
        if num_features:
            self.final_conv = conv(chs, num_features, 1)
            self.flow.neck = [Step("final_conv")]
        elif linear_out or preact:
            self.final_conv = get_act_layer(act_layer)()
            self.flow.tail = [Step("final_conv")]
        self.add_head(ClassifierHead(num_features or chs, num_classes, global_pool, drop_rate))

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return dict(stem=r"^stem", blocks=[(r"^s(\d+)" if coarse else r"^s(\d+)\.b(\d+)", None)])


# The architectures: the figures of the widths (depth, w0, wa, wm, group_size), and what else differs
_X = {
    "002": (13, 24, 36.44, 2.49, 8), "004": (22, 24, 24.48, 2.54, 16), "006": (16, 48, 36.97, 2.24, 24),
    "008": (16, 56, 35.73, 2.28, 16), "016": (18, 80, 34.01, 2.25, 24), "032": (25, 88, 26.31, 2.25, 48),
    "040": (23, 96, 38.65, 2.43, 40), "064": (17, 184, 60.83, 2.07, 56), "080": (23, 80, 49.56, 2.88, 120),
    "120": (19, 168, 73.36, 2.37, 112), "160": (22, 216, 55.59, 2.1, 128), "320": (23, 320, 69.86, 2.0, 168)}
_Y = {
    "002": (13, 24, 36.44, 2.49, 8), "004": (16, 48, 27.89, 2.09, 8), "006": (15, 48, 32.54, 2.32, 16),
    "008": (14, 56, 38.84, 2.4, 16), "016": (27, 48, 20.71, 2.65, 24), "032": (21, 80, 42.63, 2.66, 24),
    "040": (22, 96, 31.41, 2.24, 64), "064": (25, 112, 33.22, 2.27, 72), "080": (17, 192, 76.82, 2.19, 56),
    "120": (19, 168, 73.36, 2.37, 112), "160": (18, 200, 106.23, 2.48, 112), "320": (20, 232, 115.89, 2.53, 232)}
_SEER = {"640": (20, 352, 147.48, 2.4, 328), "2560": (27, 640, 230.83, 2.53, 373)}


def _size(depth: int, w0: int, wa: float, wm: float, group_size: int, **more: Any) -> dict[str, Any]:
    return dict(depth=depth, w0=w0, wa=wa, wm=wm, group_size=group_size, **more)


_SE: dict[str, Any] = dict(se_ratio=0.25)
_TORCHVISION = dict(group_min_ratio=0.9)
_Z = dict(_SE, bottle_ratio=4.0, downsample=None, linear_out=True, act_layer="silu", zero_init_last=False)
_V = dict(_SE, preact=True, act_layer="silu")

register_model.variants(__name__, RegNet, {
    **{f"regnetx_{name}": _size(*figures) for name, figures in _X.items()},
    "regnetx_004_tv": (_size(*_X["004"]), _TORCHVISION, "Widths rounded as torchvision's regnet_x_400mf."),
    **{f"regnety_{name}": (_size(*figures), _SE) for name, figures in _Y.items()},
    "regnety_008_tv": (_size(*_Y["008"]), _SE, _TORCHVISION, "Widths rounded as torchvision's regnet_y_800mf."),
    "regnety_040_sgn": _size(*_Y["040"], **_SE, act_layer="silu", norm_layer=partial(GroupNormAct, group_size=16)),
    "regnety_080_tv": (_size(*_Y["080"]), _SE, _TORCHVISION, "Widths rounded as torchvision's regnet_y_8gf."),
    **{f"regnety_{name}": (_size(*figures), _SE, "SEER's.") for name, figures in _SEER.items()},
    "regnety_1280": (_size(27, 456, 160.83, 2.52, 264), _SE, "SEER's, and torchvision's regnet_y_128gf."),
    "regnetv_040": (_size(*_Y["040"]), _V),
    "regnetv_064": (_size(*_Y["064"]), _V, dict(downsample="avg")),
    "regnetz_005": (_size(21, 16, 10.7, 2.51, 4), _Z, dict(num_features=1024), "By ClassyVision's figures."),
    "regnetz_040": (_size(28, 48, 14.5, 2.226, 8), _Z, "By ClassyVision's figures."),
    "regnetz_040_h": (_size(28, 48, 14.5, 2.226, 8), _Z, dict(num_features=1536)),
})


# Foreign checkpoints: the same network in torchvision's words and in those of ClassyVision and VISSL (SEER)
_BLOCK = re.compile(r"(?:trunk_output\.block\d+|_feature_blocks\.res\d+)\.block(\d+)-(\d+)\.(.+)\.(\w+)")
_LAYERS = {
    "f.a.0": "conv1.conv", "f.a.1": "conv1.bn", "f.b.0": "conv2.conv", "f.b.1": "conv2.bn",
    "f.se.fc1": "se.fc1", "f.se.fc2": "se.fc2", "f.se.excitation.0": "se.fc1", "f.se.excitation.2": "se.fc2",
    "f.c": "conv3.conv", "f.c.0": "conv3.conv", "f.c.1": "conv3.bn", "f.final_bn": "conv3.bn",
    "proj": "downsample.conv", "proj.0": "downsample.conv", "proj.1": "downsample.bn", "bn": "downsample.bn",
}
_OTHERS = {
    "stem.0": "stem.conv", "_feature_blocks.conv1.stem.0": "stem.conv", "fc": "head.fc", "0.clf.0": "head.fc",
    "stem.1": "stem.bn", "_feature_blocks.conv1.stem.1": "stem.bn"}


def _rename(key: str) -> str:
    block = _BLOCK.fullmatch(key)
    if block is not None:
        stage, index, layer, leaf = block.groups()
        return f"s{stage}.b{int(index) + 1}.{_LAYERS.get(layer, layer)}.{leaf}"
    layer, _, leaf = key.rpartition(".")
    return f"{_OTHERS.get(layer, layer)}.{leaf}"


def _from_classy(state_dict: Any, model: nn.Module) -> StateDict:
    """A training checkpoint, or its trunk and heads as one state dict; what only pre-training needs is left out."""
    if "classy_state_dict" in state_dict:
        state_dict = state_dict["classy_state_dict"]["base_model"]["model"]
    if "trunk" in state_dict:
        state_dict = {**state_dict["trunk"], **state_dict.get("heads", {})}
    plain = {re.sub(r"^(?:trunk|heads)\.", "", key): value for key, value in state_dict.items()}
    return {_rename(key): value for key, value in plain.items()
            if "projection_head" not in key and "prototypes" not in key}


RegNet.key_maps = (
    KeyMap("torchvision", lambda keys: "stem.0.weight" in keys and "fc.weight" in keys,
           lambda state_dict, model: {_rename(key): value for key, value in state_dict.items()}),
    KeyMap("classy", lambda keys: "classy_state_dict" in keys or "trunk" in keys or
           any(key.endswith("_feature_blocks.conv1.stem.0.weight") for key in keys), _from_classy),
)
