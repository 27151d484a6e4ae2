"""Residual networks without norms: what norms do for the signal's variance is done by scales that are known before.

NF-ResNet and NF-RegNet (https://arxiv.org/abs/2101.08692), NFNet (https://arxiv.org/abs/2102.06171); the light "l" and
"eca" models are timm's.

A block adds `alpha` times its branch to its input, so the variance grows by `alpha` squared from block to block; the
branch reads its input divided by the standard deviation that this makes (`beta`). Kernels are standardised and scaled
so that convolutions keep the variance, and by `gamma` for what the activation takes from it. DeepMind's models ("dm")
have that factor in the activations, TensorFlow's padding, and a learned scale on each branch that is 0 at first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ..layers.activations import ActLayer, get_act_layer
from ..layers.channel_attention import AttnLayer, get_attn
from ..layers.drop import DropPath, drop_path_rates
from ..layers.helpers import check_choice, make_divisible, placeable
from ..layers.pool import ClassifierHead, shortcut_pool
from ..layers.stage import dilate_strides
from ..layers.std_conv import ScaledStdConv2d, ScaledStdConv2dSame
from ..layers.weight_init import init_zero_bias
from ..registry import register_model
from .base import Flow, ImageModel, Inits, Step

if TYPE_CHECKING:
    from ._variants.nfnet import *

__all__ = ["DownsampleAvg", "GammaAct", "NormFreeBlock", "NormFreeNet", "act_with_gamma", "create_stem"]

Layer = Callable[..., nn.Module]

_STEM_TYPES = ("", "deep", "deep_tiered", "deep_quad", "3x3", "7x7", "deep_pool", "3x3_pool", "7x7_pool")

# One over the standard deviation of an activation of normal noise, as DeepMind measured it.
_GAMMAS = {
    "identity": 1.0, "celu": 1.270926833152771, "elu": 1.2716004848480225, "gelu": 1.7015043497085571,
    "leaky_relu": 1.70590341091156, "relu": 1.7139588594436646, "relu6": 1.7131484746932983,
    "selu": 1.0008515119552612, "sigmoid": 4.803835391998291, "silu": 1.7881293296813965, "tanh": 1.5939117670059204,
}


class GammaAct(nn.Module):
    """An activation, scaled so that it keeps the variance of normal noise. Shapes: any -> same."""

    def __init__(self, act_type: ActLayer = "relu", gamma: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.act_fn = get_act_layer(act_type)(inplace=inplace)
        self.gamma, self.inplace = gamma, inplace

    def forward(self, x: Tensor) -> Tensor:
        return self.act_fn(x) * self.gamma


def act_with_gamma(act_type: ActLayer, gamma: float = 1.0) -> Layer:
    """What makes a `GammaAct` of this activation and scale."""
    return partial(GammaAct, act_type, gamma)


class DownsampleAvg(nn.Module):
    """Average pooling, which with a dilation keeps the size, and a 1x1 convolution; key `conv`.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride). `first_dilation` is without effect.
    """

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, stride: int = 1, dilation: int = 1, first_dilation: int | None = None,
        conv_layer: Layer = ScaledStdConv2d,
    ) -> None:
        super().__init__()
        self.pool = shortcut_pool(stride, dilation)
        self.conv = conv_layer(in_chs, out_chs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.pool(x))


class NormFreeBlock(nn.Module):
    """Activations before convolutions of 1x1, 3x3 (one or two) and 1x1, whose sum is scaled, beside a shortcut.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride).

    Args:
        out_chs: As many as the input's unless given.
        stride: Of the (first) 3x3 convolution.
        dilation, first_dilation: Of the 3x3 convolutions; of the first, where a stride before it became dilation.
        alpha, beta: Scales of the branch and of its input; the shortcut has the latter too where it changes shape.
        bottle_ratio: Channels of the 3x3 convolutions per channel of the output, or of the input where `reg`.
        group_size, ch_div: Channels of their groups, None for one group; what divides their channels.
        reg: As a RegNet: attention behind the 3x3 convolutions instead of the last.
        extra_conv: Two 3x3 convolutions.
        skipinit: A learned scale of the branch, 0 at first; the last convolution is initialised to 0 otherwise.
        attn_layer, attn_gain: Makes channel attention; scale behind it, since it halves what passes.
    """

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int | None = None, stride: int = 1, dilation: int = 1,
        first_dilation: int | None = None, alpha: float = 1.0, beta: float = 1.0, bottle_ratio: float = 0.25,
        group_size: int | None = None, ch_div: int = 1, reg: bool = True, extra_conv: bool = False,
        skipinit: bool = False, attn_layer: Layer | None = None, attn_gain: float = 2.0, act_layer: Layer | None = None,
        conv_layer: Layer = ScaledStdConv2d, drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        out_chs, first_dilation, act_layer = out_chs or in_chs, first_dilation or dilation, act_layer or nn.ReLU
        width = make_divisible((in_chs if reg else out_chs) * bottle_ratio, ch_div)
        groups = width // group_size if group_size else 1
        if group_size and group_size % ch_div == 0:
            width = group_size * groups
        self.alpha, self.beta, self.attn_gain = alpha, beta, attn_gain

        changes_shape = in_chs != out_chs or stride != 1 or dilation != first_dilation
        self.downsample = DownsampleAvg(
            in_chs, out_chs, stride, dilation, first_dilation, conv_layer) if changes_shape else None
        self.act1 = act_layer()
        self.conv1 = conv_layer(in_chs, width, 1)
        self.act2 = act_layer(inplace=True)
        self.conv2 = conv_layer(width, width, 3, stride=stride, dilation=first_dilation, groups=groups)
        self.act2b = act_layer(inplace=True) if extra_conv else None
        self.conv2b = conv_layer(width, width, 3, dilation=dilation, groups=groups) if extra_conv else None
        self.attn = attn_layer(width) if attn_layer is not None and reg else None
        self.act3 = act_layer()
        self.conv3 = conv_layer(width, out_chs, 1, gain_init=1.0 if skipinit else 0.0)
        self.attn_last = attn_layer(out_chs) if attn_layer is not None and not reg else None
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0.0 else nn.Identity()
        self.skipinit_gain = nn.Parameter(torch.empty(())) if skipinit else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.skipinit_gain is not None:
            nn.init.zeros_(self.skipinit_gain)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.act1(x) * self.beta
        shortcut = x if self.downsample is None else self.downsample(branch)
        branch = self.conv2(self.act2(self.conv1(branch)))
        if self.conv2b is not None:
            branch = self.conv2b(self.act2b(branch))
        if self.attn is not None:
            branch = self.attn(branch) * self.attn_gain
        branch = self.conv3(self.act3(branch))
        if self.attn_last is not None:
            branch = self.attn_last(branch) * self.attn_gain
        branch = self.drop_path(branch)
        if self.skipinit_gain is not None:
            branch = branch * self.skipinit_gain
        return torch.add(shortcut, branch, alpha=self.alpha)


def create_stem(
    in_chs: int, out_chs: int, stem_type: str = "", conv_layer: Layer | None = None, act_layer: Layer | None = None,
    preact_feature: bool = True, device: Any = None, dtype: Any = None,
) -> tuple[nn.Sequential, int, dict[str, Any]]:
    """Convolutions `conv1`, ... with activations `act2`, ... between them, or one `conv`; then perhaps a pool.

    Args:
        stem_type: See `NormFreeNet`; "" is "7x7".
        conv_layer, act_layer: A scaled and standardised convolution, and ReLU, unless given.
        preact_feature: Without effect: the feature is always taken before its activation.

    Returns:
        The stem, its stride, and `num_chs`, `reduction` and `module` of its feature of stride 2.

    Raises:
        ValueError: The type is unknown.
    """
    check_choice("stem_type", stem_type, _STEM_TYPES)
    place = {name: value for name, value in (("device", device), ("dtype", dtype)) if value is not None}
    conv: Layer = partial(conv_layer or ScaledStdConv2d, **place)
    act: Layer = act_layer or nn.ReLU
    stem, stride, tap = nn.Sequential(), 2, "conv"
    if "deep" in stem_type:
        eighths = (1, 2, 4, 8) if "quad" in stem_type else (3, 4, 8) if "tiered" in stem_type else (4, 4, 8)
        for i, eighth in enumerate(eighths, start=1):
            if i > 1:  # the last activation's input is a feature
                stem.add_module(f"act{i}", act(inplace=i < len(eighths)))
            chs = out_chs * eighth // 8
            stem.add_module(f"conv{i}", conv(in_chs, chs, 3, stride=2 if i in (1, 4) else 1))
            in_chs = chs
        stride, tap = (4, "conv3") if "quad" in stem_type else (2, "conv2")
    else:
        stem.add_module("conv", conv(in_chs, out_chs, 3 if "3x3" in stem_type else 7, stride=2))
    if "pool" in stem_type:
        stem.add_module("pool", nn.MaxPool2d(3, stride=2, padding=1))
        stride = 4
    num_chs = out_chs if tap == "conv" else out_chs // 2
    return stem, stride, dict(num_chs=num_chs, reduction=2, module=f"stem.{tap}")


class NormFreeNet(ImageModel):
    """Stem, four stages of blocks, a 1x1 convolution (where asked for), activation, pooling and a linear classifier.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features have a stride of `output_stride`.

    Args:
        depths, channels: Of each stage: blocks and their channels.
        stem_type: "3x3" or "7x7" for one convolution, "deep" for three 3x3, "deep_tiered" for three whose first is
            narrower, "deep_quad" for four; a max pool follows where "_pool" is added, but to the last two.
        stem_chs: Channels of the stem; those of the first stage unless given.
        attn_layer, attn_kwargs, attn_gain: Channel attention: "se", "eca", ... or a class; arguments of it; scale
            behind it.
        width_factor: Factor on all channels, which are multiples of `ch_div`.
        alpha, bottle_ratio, group_size, reg, extra_conv, skipinit: As of `NormFreeBlock`.
        num_features: Channels of the convolution behind the last stage; 0 for none.
        gamma_in_act, std_conv_eps: Activations are scaled instead of kernels; what is added to the kernels' variance.
        same_padding: TensorFlow's padding.
        zero_init_fc: The classifier begins with zeros.

    Raises:
        ValueError: An option has an unknown value, or the activation is one whose effect on the variance is unknown.
    """

    head_path: ClassVar[str] = "head"
    feature_form: ClassVar[str] = "flat"
    inits: ClassVar[Inits] = {(nn.Conv2d, nn.Linear): init_zero_bias}

    def __init__(
        self, depths: Sequence[int], channels: Sequence[int], alpha: float = 0.2, stem_type: str = "3x3",
        stem_chs: int | None = None, group_size: int | None = None, attn_layer: AttnLayer = None,
        attn_kwargs: Mapping[str, Any] | None = None, attn_gain: float = 2.0, width_factor: float = 1.0,
        bottle_ratio: float = 0.5, num_features: int = 0, ch_div: int = 8, reg: bool = False, extra_conv: bool = False,
        gamma_in_act: bool = False, same_padding: bool = False, std_conv_eps: float = 1e-5, skipinit: bool = False,
        zero_init_fc: bool = False, act_layer: str = "silu", num_classes: int = 1000, in_chans: int = 3,
        output_stride: int = 32, global_pool: str = "avg", drop_rate: float = 0.0, drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        check_choice("output_stride", output_stride, (8, 16, 32))
        check_choice("act_layer", act_layer, _GAMMAS)
        self.num_classes, self.in_chans, self.zero_init_fc = num_classes, in_chans, zero_init_fc
        act, gamma = get_act_layer(act_layer), _GAMMAS[act_layer]
        conv = partial(ScaledStdConv2dSame if same_padding else ScaledStdConv2d, eps=std_conv_eps)
        act, conv = (act_with_gamma(act_layer, gamma), conv) if gamma_in_act else (act, partial(conv, gamma=gamma))
        attn = partial(get_attn(attn_layer), **(attn_kwargs or {})) if attn_layer else None
        chs = make_divisible((stem_chs or channels[0]) * width_factor, ch_div)
        self.stem, reduction, feature = create_stem(in_chans, chs, stem_type, conv, act)
        self.flow = Flow(stages=[], stem=[
            Step(name, *((feature["num_chs"], 2) if name == feature["module"] else ()))
            for name in (f"stem.{layer}" for layer in self.stem._modules)])
        variance = 1.0
        self.stages = nn.Sequential()
        strides = [1 if reduction > 2 else 2] + [2] * (len(channels) - 1)
        rows = zip(channels, drop_path_rates(drop_path_rate, list(depths)),
                   dilate_strides(strides, reduction, output_stride))
        for i, (width, rates, (stride, first_dilation, dilation, reduction)) in enumerate(rows):
            out_chs = make_divisible(width * width_factor, ch_div)
            blocks = []
            for j, rate in enumerate(rates):
                blocks.append(NormFreeBlock(
                    chs, out_chs, stride, dilation, first_dilation, alpha, beta=variance**-0.5,
                    bottle_ratio=1.0 if reg and i == j == 0 else bottle_ratio, group_size=group_size, ch_div=ch_div,
                    reg=reg, extra_conv=extra_conv, skipinit=skipinit, attn_layer=attn, attn_gain=attn_gain,
                    act_layer=act, conv_layer=conv, drop_path_rate=rate))
                variance = (1.0 if j == 0 else variance) + alpha**2  # a stage's first shortcut is scaled, too
                chs, stride, first_dilation = out_chs, 1, dilation
            self.stages.append(nn.Sequential(*blocks))
            self.flow.stages.append(Step(f"stages.{i}", chs, reduction))
        self.final_conv = nn.Identity()
        if num_features:
            width = make_divisible(num_features * width_factor, ch_div)
            self.final_conv, chs = conv(chs, width, 1), width
            self.flow.stages[-1:] = [Step(f"stages.{i}"), Step("final_conv", chs, reduction)]
        self.final_act, self.flow.tail = act(), [Step("final_act")]
        self.add_head(ClassifierHead(chs, num_classes, global_pool, drop_rate))

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        blocks = r"^stages\.(\d+)" if coarse else r"^stages\.(\d+)\.(\d+)"
        return dict(stem=r"^stem", blocks=[(blocks, None), (r"^final_conv", (99999,))])

    def init_module(self, name: str, module: nn.Module) -> None:
        super().init_module(name, module)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.0 if self.zero_init_fc else 0.01)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")


# The architectures: what differs from the class's defaults
_DEPTHS = [(n, 2 * n, 6 * n, 3 * n) for n in range(1, 9)]  # of F0 to F7
_F = dict(channels=(256, 512, 1536, 1536), stem_type="deep_quad", stem_chs=128, group_size=128, extra_conv=True,
          num_features=3072, act_layer="gelu", attn_layer="se", attn_kwargs=dict(rd_ratio=0.5))
_DM = dict(_F, gamma_in_act=True, same_padding=True, skipinit=True)
_L = dict(_F, group_size=64, bottle_ratio=0.25, act_layer="silu", attn_kwargs=dict(rd_ratio=0.25, rd_divisor=8))
_TEST = dict(depths=(1, 1, 1, 1), channels=(32, 64, 96, 128), group_size=8, num_features=192)
_ECA = dict(attn_layer="eca", attn_kwargs=None)
_SE = dict(attn_layer="se", attn_kwargs=dict(rd_ratio=1 / 16))
_RESNET = dict(channels=(256, 512, 1024, 2048), stem_type="7x7_pool", stem_chs=64, bottle_ratio=0.25, act_layer="relu")
_REGNET = dict(group_size=8, width_factor=0.75, bottle_ratio=2.25, reg=True, attn_layer="se",
               attn_kwargs=dict(rd_ratio=0.5))


def _regnet(*depths: int, channels: Sequence[int] = (48, 104, 208, 440)) -> dict[str, Any]:
    return dict(_REGNET, depths=depths, channels=channels, num_features=1280 * channels[-1] // 440)


register_model.variants(__name__, NormFreeNet, {
    **{f"dm_nfnet_f{i}": (_DM, dict(depths=depths)) for i, depths in enumerate(_DEPTHS[:7])},
    **{f"nfnet_f{i}": (_F, dict(depths=depths)) for i, depths in enumerate(_DEPTHS)},
    "nfnet_l0": (_L, dict(depths=_DEPTHS[0], num_features=2304)),
    "eca_nfnet_l0": (_L, _ECA, dict(depths=_DEPTHS[0], num_features=2304)),
    **{f"eca_nfnet_l{i}": (_L, _ECA, dict(depths=_DEPTHS[i])) for i in (1, 2, 3)},
    "nf_regnet_b0": _regnet(1, 3, 6, 6),
    "nf_regnet_b1": _regnet(2, 4, 7, 7),
    "nf_regnet_b2": _regnet(2, 4, 8, 8, channels=(56, 112, 232, 488)),
    "nf_regnet_b3": _regnet(2, 5, 9, 9, channels=(56, 128, 248, 528)),
    "nf_regnet_b4": _regnet(2, 6, 11, 11, channels=(64, 144, 288, 616)),
    "nf_regnet_b5": _regnet(3, 7, 14, 14, channels=(80, 168, 336, 704)),
    **{f"nf_{kind}resnet{depth}": (_RESNET, attn, dict(depths=depths))
       for kind, attn in (("", {}), ("se", _SE), ("eca", _ECA))
       for depth, depths in ((26, (2, 2, 2, 2)), (50, (3, 4, 6, 3)), (101, (3, 4, 23, 3)))},
    "test_nfnet": (_L, _TEST),
})
