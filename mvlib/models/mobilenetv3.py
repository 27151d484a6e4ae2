"""MobileNetV3 and its relatives: EfficientNet's blocks under a head that pools before its last convolution.

MobileNetV3 (https://arxiv.org/abs/1905.02244), FBNetV3 (https://arxiv.org/abs/2006.02049),
PP-LCNet (https://arxiv.org/abs/2109.15099), MobileNetV4 (https://arxiv.org/abs/2404.10518).

Block strings are explained in efficientnet_blocks. Names that begin with "tf_" pad as TensorFlow does and have its
batch-norm epsilon, for weights trained there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from torch import Tensor, nn

from ..layers import GlobalPool2d
from ..layers.activations import ActLayer, get_act_layer
from ..layers.blur_pool import AaLayer
from ..layers.conv import Padding, create_conv2d
from ..layers.norm import NormLayer, get_norm_act_layer, get_norm_layer
from ..registry import register_model
from .base import Flow, ImageModel, KeyMap, StateDict, Step
from .efficientnet_blocks import (
    BlockSpec,
    SeLayer,
    SqueezeExcite,
    build_stages,
    decode_arch_def,
    init_mobile_module,
    layer_position,
    rename_in_order,
    round_channels,
)

__all__ = ["MobileNetV3"]


class MobileNetV3(ImageModel):
    """Stem convolution, stages of mobile blocks, pooling, a pointwise head convolution and a linear classifier.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features have a stride of `output_stride`. The head convolution
    works on the pooled features: without classes the model returns its output, (B, num_features), and without pooling
    (B, num_features, H / 32, W / 32).

    Args:
        block_args: Block strings of each stage, see efficientnet_blocks; or blocks decoded already.
        num_classes: Classes; 0 for the head convolution's output.
        in_chans: Channels of the image.
        stem_size: Channels of the stem.
        fix_stem: Do not scale the stem.
        num_features: Channels of the head convolution.
        head_bias: Whether it has a bias.
        head_norm: Follow it by a norm, which takes the bias's place (MobileNetV4).
        output_stride: 8, 16 or 32; strides beyond it become dilation.
        pad_type: "" for symmetric padding, "same" for TensorFlow's.
        act_layer: Activation; ReLU if None.
        norm_layer: Norm; batch norm if None.
        bn_eps: The norm's epsilon, its own default if None. TensorFlow's is 1e-3.
        bn_momentum: Batch norm's momentum, its own default if None.
        aa_layer: Anti-aliased downsampling instead of strided convolutions: "blur", "blurpc", "avg" or a class.
        se_layer: Channel attention: a class, "gc" for global context, or None for squeeze-and-excitation.
        se_from_exp: The attention's ratios refer to the expanded channels, not to the block's input.
        channel_multiplier: Factor on all channel counts but the head convolution's.
        channel_divisor: Scaled channel counts are multiples of it.
        channel_round_limit: Smallest share of a channel count that rounding leaves.
        depth_multiplier: Factor on the number of blocks, or one for each stage.
        group_size: Group size of the blocks' spatial convolutions.
        drop_rate: Dropout before the classifier.
        drop_path_rate: Stochastic depth of the last block; earlier ones have proportionally less.
        layer_scale_init_value: Initial layer scale of "uir" and attention blocks, None for none.
        global_pool: "avg", "max", "avgmax", "catavgmax" or "" for none.

    Raises:
        ValueError: A block string cannot be read, or an option has an unknown value.
    """

    classifier_path: ClassVar[str] = "classifier"
    hidden_paths: ClassVar[tuple[str, ...]] = ("conv_head", "norm_head", "act2")

    def __init__(
        self,
        block_args: Sequence[Sequence[str | BlockSpec]],
        num_classes: int = 1000,
        in_chans: int = 3,
        stem_size: int = 16,
        fix_stem: bool = False,
        num_features: int = 1280,
        head_bias: bool = True,
        head_norm: bool = False,
        output_stride: int = 32,
        pad_type: Padding = "",
        act_layer: ActLayer = None,
        norm_layer: NormLayer = None,
        bn_eps: float | None = None,
        bn_momentum: float | None = None,
        aa_layer: AaLayer = None,
        se_layer: SeLayer = None,
        se_from_exp: bool = True,
        channel_multiplier: float = 1.0,
        channel_divisor: int = 8,
        channel_round_limit: float = 0.9,
        depth_multiplier: float | Sequence[float] = 1.0,
        group_size: int | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float | None = None,
        global_pool: str = "avg",
    ) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride is 8, 16 or 32, not {output_stride}")
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.drop_rate = drop_rate
        round_chs = partial(round_channels, multiplier=channel_multiplier, divisor=channel_divisor,
                            round_limit=channel_round_limit)
        norm_kwargs = {key: value for key, value in (("eps", bn_eps), ("momentum", bn_momentum)) if value is not None}
        act_layer = get_act_layer(act_layer or "relu")
        norm_layer = partial(get_norm_layer(norm_layer) or nn.BatchNorm2d, **norm_kwargs)
        norm_act = get_norm_act_layer(norm_layer, act_layer)

        stem_chs = stem_size if fix_stem else round_chs(stem_size)
        self.conv_stem = create_conv2d(in_chans, stem_chs, 3, stride=2, padding=pad_type)
        self.bn1 = norm_act(stem_chs, inplace=True)
        self.blocks, stem, stages, self.num_features = build_stages(
            stem_chs, decode_arch_def(block_args, depth_multiplier, group_size=group_size),
            output_stride=output_stride, pad_type=pad_type, round_chs_fn=round_chs, se_from_exp=se_from_exp,
            act_layer=act_layer, norm_layer=norm_layer, aa_layer=aa_layer, se_layer=se_layer or SqueezeExcite,
            drop_path_rate=drop_path_rate, layer_scale_init_value=layer_scale_init_value)
        self.flow = Flow(stem=[Step("conv_stem"), stem], stages=stages)

        self.global_pool = GlobalPool2d(global_pool, flatten=False)
        pooled_chs = self.num_features * self.global_pool.out_factor
        self.conv_head = create_conv2d(pooled_chs, num_features, 1, padding=pad_type, bias=head_bias and not head_norm)
        self.norm_head = norm_act(num_features) if head_norm else nn.Identity()
        self.act2 = nn.Identity() if head_norm else act_layer(inplace=True)
        self.head_hidden_size = num_features
        self.classifier = self.make_classifier(num_classes)
        self.init_weights()

    def pool(self, x: Tensor) -> Tensor:
        x = self.act2(self.norm_head(self.conv_head(self.global_pool(x))))
        return x.flatten(1) if self.global_pool.pool_type else x

    def set_global_pool(self, pool_type: str) -> None:
        """Change the pooling, in place.

        Raises:
            ValueError: The pooling is unknown, or its width does not fit the head convolution.
        """
        pool = GlobalPool2d(pool_type, flatten=False)
        width = self.num_features * pool.out_factor
        if isinstance(self.conv_head, nn.Identity):
            self.head_hidden_size = width
        elif width != self.conv_head.in_channels:
            raise ValueError(f"global_pool '{pool_type}' gives {width} channels, and the head convolution takes "
                             f"{self.conv_head.in_channels}; give it when the model is built")
        self.global_pool = pool

    def init_module(self, name: str, module: nn.Module) -> None:
        if not init_mobile_module(name, module):
            super().init_module(name, module)


# --- the architectures: block strings, and what else differs from the class's defaults

_V3_SE = partial(SqueezeExcite, gate_layer="hard_sigmoid", force_act_layer="relu", rd_round_fn=round_channels)

_V3_LARGE = dict(act_layer="hard_swish", se_layer=_V3_SE, block_args=(
    ("ds_r1_k3_s1_e1_c16_nre",),
    ("ir_r1_k3_s2_e4_c24_nre", "ir_r1_k3_s1_e3_c24_nre"),
    ("ir_r3_k5_s2_e3_c40_se0.25_nre",),
    ("ir_r1_k3_s2_e6_c80", "ir_r1_k3_s1_e2.5_c80", "ir_r2_k3_s1_e2.3_c80"),
    ("ir_r2_k3_s1_e6_c112_se0.25",),
    ("ir_r3_k5_s2_e6_c160_se0.25",),
    ("cn_r1_k1_s1_c960",),
))

_V3_LARGE_MINIMAL = dict(block_args=(
    ("ds_r1_k3_s1_e1_c16",),
    ("ir_r1_k3_s2_e4_c24", "ir_r1_k3_s1_e3_c24"),
    ("ir_r3_k3_s2_e3_c40",),
    ("ir_r1_k3_s2_e6_c80", "ir_r1_k3_s1_e2.5_c80", "ir_r2_k3_s1_e2.3_c80"),
    ("ir_r2_k3_s1_e6_c112",),
    ("ir_r3_k3_s2_e6_c160",),
    ("cn_r1_k1_s1_c960",),
))

_V3_SMALL = dict(act_layer="hard_swish", se_layer=_V3_SE, num_features=1024, block_args=(
    ("ds_r1_k3_s2_e1_c16_se0.25_nre",),
    ("ir_r1_k3_s2_e4.5_c24_nre", "ir_r1_k3_s1_e3.67_c24_nre"),
    ("ir_r1_k5_s2_e4_c40_se0.25", "ir_r2_k5_s1_e6_c40_se0.25"),
    ("ir_r2_k5_s1_e3_c48_se0.25",),
    ("ir_r3_k5_s2_e6_c96_se0.25",),
    ("cn_r1_k1_s1_c576",),
))

_V3_SMALL_MINIMAL = dict(num_features=1024, block_args=(
    ("ds_r1_k3_s2_e1_c16",),
    ("ir_r1_k3_s2_e4.5_c24", "ir_r1_k3_s1_e3.67_c24"),
    ("ir_r1_k3_s2_e4_c40", "ir_r2_k3_s1_e6_c40"),
    ("ir_r2_k3_s1_e3_c48",),
    ("ir_r3_k3_s2_e6_c96",),
    ("cn_r1_k1_s1_c576",),
))

# The first reading of the paper: the attention's activation is the block's, its width is not rounded to eights.
_V3_RW = dict(_V3_LARGE, se_layer=partial(SqueezeExcite, gate_layer="hard_sigmoid"), head_bias=False, bn_eps=1e-3,
              block_args=(("ds_r1_k3_s1_e1_c16_nre_noskip",), *_V3_LARGE["block_args"][1:]))

_TF = dict(pad_type="same", bn_eps=1e-3)
_TORCHVISION = dict(bn_eps=1e-3, bn_momentum=0.01, drop_rate=0.2)

_FBNETV3 = dict(
    act_layer="hard_swish", num_features=1984, head_bias=False, channel_round_limit=0.95, se_from_exp=False,
    se_layer=partial(SqueezeExcite, gate_layer="hard_sigmoid", rd_round_fn=partial(round_channels, round_limit=0.95)))

_FBNETV3_B = dict(_FBNETV3, stem_size=16, block_args=(
    ("ds_r2_k3_s1_e1_c16",),
    ("ir_r1_k5_s2_e4_c24", "ir_r3_k5_s1_e2_c24"),
    ("ir_r1_k5_s2_e5_c40_se0.25", "ir_r4_k5_s1_e3_c40_se0.25"),
    ("ir_r1_k5_s2_e5_c72", "ir_r4_k3_s1_e3_c72"),
    ("ir_r1_k3_s1_e5_c120_se0.25", "ir_r5_k5_s1_e3_c120_se0.25"),
    ("ir_r1_k3_s2_e6_c184_se0.25", "ir_r5_k5_s1_e4_c184_se0.25", "ir_r1_k5_s1_e6_c224_se0.25"),
    ("cn_r1_k1_s1_c1344",),
))

_FBNETV3_D = dict(_FBNETV3, stem_size=24, block_args=(
    ("ds_r2_k3_s1_e1_c16",),
    ("ir_r1_k3_s2_e5_c24", "ir_r5_k3_s1_e2_c24"),
    ("ir_r1_k5_s2_e4_c40_se0.25", "ir_r4_k3_s1_e3_c40_se0.25"),
    ("ir_r1_k3_s2_e5_c72", "ir_r4_k3_s1_e3_c72"),
    ("ir_r1_k3_s1_e5_c128_se0.25", "ir_r6_k5_s1_e3_c128_se0.25"),
    ("ir_r1_k3_s2_e6_c208_se0.25", "ir_r5_k5_s1_e5_c208_se0.25", "ir_r1_k5_s1_e6_c240_se0.25"),
    ("cn_r1_k1_s1_c1440",),
))

_FBNETV3_G = dict(_FBNETV3, stem_size=32, block_args=(
    ("ds_r3_k3_s1_e1_c24",),
    ("ir_r1_k5_s2_e4_c40", "ir_r4_k5_s1_e2_c40"),
    ("ir_r1_k5_s2_e4_c56_se0.25", "ir_r4_k5_s1_e3_c56_se0.25"),
    ("ir_r1_k5_s2_e5_c104", "ir_r4_k3_s1_e3_c104"),
    ("ir_r1_k3_s1_e5_c160_se0.25", "ir_r8_k5_s1_e3_c160_se0.25"),
    ("ir_r1_k3_s2_e6_c264_se0.25", "ir_r6_k5_s1_e5_c264_se0.25", "ir_r2_k5_s1_e6_c288_se0.25"),
    ("cn_r1_k1_s1_c1728",),
))

_LCNET = dict(
    act_layer="hard_swish",
    se_layer=partial(SqueezeExcite, gate_layer="hard_sigmoid", force_act_layer="relu"),
    block_args=(
        ("dsa_r1_k3_s1_c32",),
        ("dsa_r2_k3_s2_c64",),
        ("dsa_r2_k3_s2_c128",),
        ("dsa_r1_k3_s2_c256", "dsa_r1_k5_s1_c256"),
        ("dsa_r4_k5_s1_c256",),
        ("dsa_r2_k5_s2_c512_se0.25",),
    ))

_V4 = dict(head_norm=True)
_V4_HYBRID = dict(_V4, layer_scale_init_value=1e-5)
_V4_075 = dict(channel_multiplier=0.75, fix_stem=True)
_V4_LAST = ("cn_r1_k1_s1_c960",)

_V4_CONV_SMALL = dict(_V4, stem_size=32, block_args=(
    ("cn_r1_k3_s2_e1_c32", "cn_r1_k1_s1_e1_c32"),
    ("cn_r1_k3_s2_e1_c96", "cn_r1_k1_s1_e1_c64"),
    ("uir_r1_a5_k5_s2_e3_c96", "uir_r4_a0_k3_s1_e2_c96", "uir_r1_a3_k0_s1_e4_c96"),
    ("uir_r1_a3_k3_s2_e6_c128", "uir_r1_a5_k5_s1_e4_c128", "uir_r1_a0_k5_s1_e4_c128", "uir_r1_a0_k5_s1_e3_c128",
     "uir_r2_a0_k3_s1_e4_c128"),
    _V4_LAST,
))

_V4_CONV_MEDIUM = dict(_V4, stem_size=32, block_args=(
    ("er_r1_k3_s2_e4_c48",),
    ("uir_r1_a3_k5_s2_e4_c80", "uir_r1_a3_k3_s1_e2_c80"),
    ("uir_r1_a3_k5_s2_e6_c160", "uir_r2_a3_k3_s1_e4_c160", "uir_r1_a3_k5_s1_e4_c160", "uir_r1_a3_k3_s1_e4_c160",
     "uir_r1_a3_k0_s1_e4_c160", "uir_r1_a0_k0_s1_e2_c160", "uir_r1_a3_k0_s1_e4_c160"),
    ("uir_r1_a5_k5_s2_e6_c256", "uir_r1_a5_k5_s1_e4_c256", "uir_r2_a3_k5_s1_e4_c256", "uir_r1_a0_k0_s1_e4_c256",
     "uir_r1_a3_k0_s1_e4_c256", "uir_r1_a3_k5_s1_e2_c256", "uir_r1_a5_k5_s1_e4_c256", "uir_r2_a0_k0_s1_e4_c256",
     "uir_r1_a5_k0_s1_e2_c256"),
    _V4_LAST,
))

_V4_CONV_LARGE = dict(_V4, stem_size=24, block_args=(
    ("er_r1_k3_s2_e4_c48",),
    ("uir_r1_a3_k5_s2_e4_c96", "uir_r1_a3_k3_s1_e4_c96"),
    ("uir_r1_a3_k5_s2_e4_c192", "uir_r3_a3_k3_s1_e4_c192", "uir_r1_a3_k5_s1_e4_c192", "uir_r5_a5_k3_s1_e4_c192",
     "uir_r1_a3_k0_s1_e4_c192"),
    ("uir_r4_a5_k5_s2_e4_c512", "uir_r1_a5_k0_s1_e4_c512", "uir_r1_a5_k3_s1_e4_c512", "uir_r2_a5_k0_s1_e4_c512",
     "uir_r1_a5_k3_s1_e4_c512", "uir_r1_a5_k5_s1_e4_c512", "uir_r3_a5_k0_s1_e4_c512"),
    _V4_LAST,
))

_V4_HYBRID_MEDIUM = dict(_V4_HYBRID, stem_size=32, block_args=(
    ("er_r1_k3_s2_e4_c48",),
    ("uir_r1_a3_k5_s2_e4_c80", "uir_r1_a3_k3_s1_e2_c80"),
    ("uir_r1_a3_k5_s2_e6_c160", "uir_r1_a0_k0_s1_e2_c160", "uir_r1_a3_k3_s1_e4_c160", "uir_r1_a3_k5_s1_e4_c160",
     *("mqa_r1_k3_h4_s1_v2_d64_c160", "uir_r1_a3_k3_s1_e4_c160",
       "mqa_r1_k3_h4_s1_v2_d64_c160", "uir_r1_a3_k0_s1_e4_c160") * 2),
    ("uir_r1_a5_k5_s2_e6_c256", "uir_r1_a5_k5_s1_e4_c256", "uir_r2_a3_k5_s1_e4_c256", "uir_r1_a0_k0_s1_e2_c256",
     "uir_r1_a3_k5_s1_e2_c256", "uir_r1_a0_k0_s1_e2_c256", "uir_r1_a0_k0_s1_e4_c256",
     "mqa_r1_k3_h4_s1_d64_c256", "uir_r1_a3_k0_s1_e4_c256", "mqa_r1_k3_h4_s1_d64_c256", "uir_r1_a5_k5_s1_e4_c256",
     *("mqa_r1_k3_h4_s1_d64_c256", "uir_r1_a5_k0_s1_e4_c256") * 2),
    _V4_LAST,
))

_V4_HYBRID_LARGE = dict(_V4_HYBRID, stem_size=24, act_layer="gelu", block_args=(
    ("er_r1_k3_s2_e4_c48",),
    ("uir_r1_a3_k5_s2_e4_c96", "uir_r1_a3_k3_s1_e4_c96"),
    ("uir_r1_a3_k5_s2_e4_c192", "uir_r3_a3_k3_s1_e4_c192", "uir_r1_a3_k5_s1_e4_c192", "uir_r2_a5_k3_s1_e4_c192",
     *("mqa_r1_k3_h8_s1_v2_d48_c192", "uir_r1_a5_k3_s1_e4_c192") * 3,
     "mqa_r1_k3_h8_s1_v2_d48_c192", "uir_r1_a3_k0_s1_e4_c192"),
    ("uir_r4_a5_k5_s2_e4_c512", "uir_r1_a5_k0_s1_e4_c512", "uir_r1_a5_k3_s1_e4_c512", "uir_r2_a5_k0_s1_e4_c512",
     "uir_r1_a5_k3_s1_e4_c512", "uir_r1_a5_k5_s1_e4_c512",
     *("mqa_r1_k3_h8_s1_d64_c512", "uir_r1_a5_k0_s1_e4_c512") * 4),
    _V4_LAST,
))


def _build(*parts: Mapping[str, Any], **given: Any) -> MobileNetV3:
    """The model that the parts describe, each refining those before it, `given` by the user last."""
    arguments: dict[str, Any] = {}
    for part in parts:
        arguments |= part
    return MobileNetV3(**{**arguments, **given})


# --- entrypoints


@register_model
def mobilenetv3_large_075(**kwargs: Any) -> MobileNetV3:
    """MobileNetV3-Large (Howard et al., 2019), 0.75 times the channels."""
    return _build(_V3_LARGE, dict(channel_multiplier=0.75), **kwargs)


@register_model
def mobilenetv3_large_100(**kwargs: Any) -> MobileNetV3:
    """MobileNetV3-Large."""
    return _build(_V3_LARGE, **kwargs)


@register_model
def mobilenetv3_large_150d(**kwargs: Any) -> MobileNetV3:
    """MobileNetV3-Large, 1.5 times the channels and 1.2 times the depth; timm's own scaling."""
    return _build(_V3_LARGE, dict(channel_multiplier=1.5, depth_multiplier=1.2), **kwargs)


@register_model
def mobilenetv3_small_050(**kwargs: Any) -> MobileNetV3:
    """MobileNetV3-Small, half the channels but the stem's."""
    return _build(_V3_SMALL, dict(channel_multiplier=0.5, fix_stem=True), **kwargs)


@register_model
def mobilenetv3_small_075(**kwargs: Any) -> MobileNetV3:
    """MobileNetV3-Small, 0.75 times the channels."""
    return _build(_V3_SMALL, dict(channel_multiplier=0.75), **kwargs)


@register_model
def mobilenetv3_small_100(**kwargs: Any) -> MobileNetV3:
    """MobileNetV3-Small."""
    return _build(_V3_SMALL, **kwargs)


@register_model
def mobilenetv3_rw(**kwargs: Any) -> MobileNetV3:
    """MobileNetV3-Large as timm first read the paper: other attention, no bias in the head."""
    return _build(_V3_RW, **kwargs)


@register_model
def mobilenet_v3_large(**kwargs: Any) -> MobileNetV3:
    """torchvision's MobileNetV3-Large: batch norm's epsilon 1e-3 and momentum 0.01, dropout 0.2."""
    return _build(_V3_LARGE, _TORCHVISION, **kwargs)


@register_model
def mobilenet_v3_small(**kwargs: Any) -> MobileNetV3:
    """torchvision's MobileNetV3-Small: batch norm's epsilon 1e-3 and momentum 0.01, dropout 0.2."""
    return _build(_V3_SMALL, _TORCHVISION, **kwargs)


@register_model
def tf_mobilenetv3_large_075(**kwargs: Any) -> MobileNetV3:
    """MobileNetV3-Large, 0.75 times the channels, as trained in TensorFlow."""
    return _build(_V3_LARGE, _TF, dict(channel_multiplier=0.75), **kwargs)


@register_model
def tf_mobilenetv3_large_100(**kwargs: Any) -> MobileNetV3:
    """MobileNetV3-Large as trained in TensorFlow."""
    return _build(_V3_LARGE, _TF, **kwargs)


@register_model
def tf_mobilenetv3_large_minimal_100(**kwargs: Any) -> MobileNetV3:
    """MobileNetV3-Large, 3x3 kernels and ReLU only, no attention; TensorFlow's."""
    return _build(_V3_LARGE_MINIMAL, _TF, **kwargs)


@register_model
def tf_mobilenetv3_small_075(**kwargs: Any) -> MobileNetV3:
    """MobileNetV3-Small, 0.75 times the channels, as trained in TensorFlow."""
    return _build(_V3_SMALL, _TF, dict(channel_multiplier=0.75), **kwargs)


@register_model
def tf_mobilenetv3_small_100(**kwargs: Any) -> MobileNetV3:
    """MobileNetV3-Small as trained in TensorFlow."""
    return _build(_V3_SMALL, _TF, **kwargs)


@register_model
def tf_mobilenetv3_small_minimal_100(**kwargs: Any) -> MobileNetV3:
    """MobileNetV3-Small, 3x3 kernels and ReLU only, no attention; TensorFlow's."""
    return _build(_V3_SMALL_MINIMAL, _TF, **kwargs)


@register_model
def fbnetv3_b(**kwargs: Any) -> MobileNetV3:
    """FBNetV3-B (Dai et al., 2020)."""
    return _build(_FBNETV3_B, **kwargs)


@register_model
def fbnetv3_d(**kwargs: Any) -> MobileNetV3:
    """FBNetV3-D."""
    return _build(_FBNETV3_D, **kwargs)


@register_model
def fbnetv3_g(**kwargs: Any) -> MobileNetV3:
    """FBNetV3-G."""
    return _build(_FBNETV3_G, **kwargs)


@register_model
def lcnet_035(**kwargs: Any) -> MobileNetV3:
    """PP-LCNet (Cui et al., 2021), 0.35 times the channels."""
    return _build(_LCNET, dict(channel_multiplier=0.35), **kwargs)


@register_model
def lcnet_050(**kwargs: Any) -> MobileNetV3:
    """PP-LCNet, half the channels."""
    return _build(_LCNET, dict(channel_multiplier=0.5), **kwargs)


@register_model
def lcnet_075(**kwargs: Any) -> MobileNetV3:
    """PP-LCNet, 0.75 times the channels."""
    return _build(_LCNET, dict(channel_multiplier=0.75), **kwargs)


@register_model
def lcnet_100(**kwargs: Any) -> MobileNetV3:
    """PP-LCNet."""
    return _build(_LCNET, **kwargs)


@register_model
def lcnet_150(**kwargs: Any) -> MobileNetV3:
    """PP-LCNet, 1.5 times the channels."""
    return _build(_LCNET, dict(channel_multiplier=1.5), **kwargs)


@register_model
def mobilenetv4_conv_small_035(**kwargs: Any) -> MobileNetV3:
    """MobileNetV4-Conv-Small (Qin et al., 2024), 0.35 times the channels but the stem's."""
    return _build(_V4_CONV_SMALL, dict(channel_multiplier=0.35, fix_stem=True), **kwargs)


@register_model
def mobilenetv4_conv_small_050(**kwargs: Any) -> MobileNetV3:
    """MobileNetV4-Conv-Small, half the channels but the stem's."""
    return _build(_V4_CONV_SMALL, dict(channel_multiplier=0.5, fix_stem=True), **kwargs)


@register_model
def mobilenetv4_conv_small(**kwargs: Any) -> MobileNetV3:
    """MobileNetV4-Conv-Small."""
    return _build(_V4_CONV_SMALL, **kwargs)


@register_model
def mobilenetv4_conv_medium(**kwargs: Any) -> MobileNetV3:
    """MobileNetV4-Conv-Medium."""
    return _build(_V4_CONV_MEDIUM, **kwargs)


@register_model
def mobilenetv4_conv_large(**kwargs: Any) -> MobileNetV3:
    """MobileNetV4-Conv-Large."""
    return _build(_V4_CONV_LARGE, **kwargs)


@register_model
def mobilenetv4_hybrid_medium(**kwargs: Any) -> MobileNetV3:
    """MobileNetV4-Hybrid-Medium: multi-query attention in the two deep stages."""
    return _build(_V4_HYBRID_MEDIUM, **kwargs)


@register_model
def mobilenetv4_hybrid_large(**kwargs: Any) -> MobileNetV3:
    """MobileNetV4-Hybrid-Large."""
    return _build(_V4_HYBRID_LARGE, **kwargs)


@register_model
def mobilenetv4_conv_aa_medium(**kwargs: Any) -> MobileNetV3:
    """MobileNetV4-Conv-Medium that downsamples by average pooling."""
    return _build(_V4_CONV_MEDIUM, dict(aa_layer="avg"), **kwargs)


@register_model
def mobilenetv4_conv_blur_medium(**kwargs: Any) -> MobileNetV3:
    """MobileNetV4-Conv-Medium that blurs as it downsamples."""
    return _build(_V4_CONV_MEDIUM, dict(aa_layer="blurpc"), **kwargs)


@register_model
def mobilenetv4_conv_aa_large(**kwargs: Any) -> MobileNetV3:
    """MobileNetV4-Conv-Large that downsamples by average pooling."""
    return _build(_V4_CONV_LARGE, dict(aa_layer="avg"), **kwargs)


@register_model
def mobilenetv4_hybrid_medium_075(**kwargs: Any) -> MobileNetV3:
    """MobileNetV4-Hybrid-Medium, 0.75 times the channels but the stem's."""
    return _build(_V4_HYBRID_MEDIUM, _V4_075, **kwargs)


@register_model
def mobilenetv4_hybrid_large_075(**kwargs: Any) -> MobileNetV3:
    """MobileNetV4-Hybrid-Large, 0.75 times the channels but the stem's."""
    return _build(_V4_HYBRID_LARGE, _V4_075, **kwargs)


# --- foreign checkpoints


def _from_torchvision(state_dict: StateDict, model: nn.Module) -> StateDict:
    """torchvision's layers stand in our order under other names; its head convolution is a linear layer."""
    renamed = rename_in_order(state_dict, model, head="classifier.3",
                              order=lambda path: (path.startswith("classifier"), layer_position(path)))
    weight = renamed.get("conv_head.weight")
    if weight is not None and weight.ndim == 2:
        renamed["conv_head.weight"] = weight[:, :, None, None]
    return renamed


MobileNetV3.key_maps = (
    KeyMap(
        "torchvision",
        lambda keys: "classifier.3.weight" in keys and "features.1.block.0.0.weight" in keys,
        _from_torchvision,
    ),
)
