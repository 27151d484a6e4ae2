"""MobileNetV3 and its relatives: EfficientNet's blocks under a head that pools before its last convolution.

MobileNetV3 (https://arxiv.org/abs/1905.02244), FBNetV3 (https://arxiv.org/abs/2006.02049),
PP-LCNet (https://arxiv.org/abs/2109.15099), MobileNetV4 (https://arxiv.org/abs/2404.10518).

Block strings are explained in efficientnet_blocks. Names that begin with "tf_" pad as TensorFlow does and have its
batch-norm epsilon, for weights trained there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn

from ..layers import GlobalPool2d
from ..layers.helpers import make_divisible
from ..registry import register_model
from .base import KeyMap, StateDict
from .efficientnet_blocks import Layers, MobileModel, PooledConvHead, SqueezeExcite, arch, rename_in_order, scaled

if TYPE_CHECKING:
    from ._variants.mobilenetv3 import *

__all__ = ["MobileNetV3"]


class MobileNetV3(PooledConvHead, MobileModel):
    """Stem convolution, stages of mobile blocks, pooling, a pointwise head convolution and a linear classifier.

    Shapes: (B, in_chans, H, W) -> (B, num_classes). The head convolution works on the pooled features: without classes
    the model returns its output, (B, num_features), and without pooling (B, num_features, H / 32, W / 32).

    Args:
        head_bias: Whether the head convolution has a bias.
        head_norm: Follow it by a norm, which takes the bias's place (MobileNetV4).
        **kwargs: See `MobileModel`.
    """

    def __init__(
        self, block_args: Sequence[Sequence[str | Mapping[str, Any]]], num_classes: int = 1000, in_chans: int = 3,
        stem_size: int = 16, *, se_from_exp: bool = True, head_bias: bool = True, head_norm: bool = False,
        **kwargs: Any,
    ) -> None:
        self.head_bias, self.head_norm = head_bias, head_norm  # for `make_head`, which the base's constructor calls
        super().__init__(block_args, num_classes, in_chans=in_chans, stem_size=stem_size, se_from_exp=se_from_exp,
                         **kwargs)

    def make_head(self, num_features: int, global_pool: str, layers: Layers) -> None:
        self.global_pool = GlobalPool2d(global_pool, flatten=False)
        pooled_chs = self.num_features * self.global_pool.out_factor
        self.conv_head = layers.conv(pooled_chs, num_features, bias=self.head_bias and not self.head_norm)
        self.norm_head = layers.norm_act(num_features) if self.head_norm else nn.Identity()
        self.act2 = nn.Identity() if self.head_norm else layers.act_layer(inplace=True)
        self.head_hidden_size = num_features


# --- the architectures: block strings, and what else differs from the class's defaults

V3_SE = partial(SqueezeExcite, gate_layer="hard_sigmoid", force_act_layer="relu", rd_round_fn=make_divisible)

_V3_LARGE = dict(act_layer="hard_swish", se_layer=V3_SE, block_args=arch(
    "ds_r1_k3_s1_e1_c16_nre", "ir_r1_k3_s2_e4_c24_nre ir_r1_k3_s1_e3_c24_nre", "ir_r3_k5_s2_e3_c40_se0.25_nre",
    "ir_r1_k3_s2_e6_c80 ir_r1_k3_s1_e2.5_c80 ir_r2_k3_s1_e2.3_c80", "ir_r2_k3_s1_e6_c112_se0.25",
    "ir_r3_k5_s2_e6_c160_se0.25", "cn_r1_k1_s1_c960"))
_V3_LARGE_MINIMAL = dict(block_args=arch(
    "ds_r1_k3_s1_e1_c16", "ir_r1_k3_s2_e4_c24 ir_r1_k3_s1_e3_c24", "ir_r3_k3_s2_e3_c40",
    "ir_r1_k3_s2_e6_c80 ir_r1_k3_s1_e2.5_c80 ir_r2_k3_s1_e2.3_c80", "ir_r2_k3_s1_e6_c112", "ir_r3_k3_s2_e6_c160",
    "cn_r1_k1_s1_c960"))
_V3_SMALL = dict(act_layer="hard_swish", se_layer=V3_SE, num_features=1024, block_args=arch(
    "ds_r1_k3_s2_e1_c16_se0.25_nre", "ir_r1_k3_s2_e4.5_c24_nre ir_r1_k3_s1_e3.67_c24_nre",
    "ir_r1_k5_s2_e4_c40_se0.25 ir_r2_k5_s1_e6_c40_se0.25", "ir_r2_k5_s1_e3_c48_se0.25", "ir_r3_k5_s2_e6_c96_se0.25",
    "cn_r1_k1_s1_c576"))
_V3_SMALL_MINIMAL = dict(num_features=1024, block_args=arch(
    "ds_r1_k3_s2_e1_c16", "ir_r1_k3_s2_e4.5_c24 ir_r1_k3_s1_e3.67_c24", "ir_r1_k3_s2_e4_c40 ir_r2_k3_s1_e6_c40",
    "ir_r2_k3_s1_e3_c48", "ir_r3_k3_s2_e6_c96", "cn_r1_k1_s1_c576"))
# The first reading of the paper: the attention's activation is the block's, its width is not rounded to eights.
_V3_RW = dict(_V3_LARGE, se_layer=partial(SqueezeExcite, gate_layer="hard_sigmoid"), head_bias=False, bn_eps=1e-3,
              block_args=(("ds_r1_k3_s1_e1_c16_nre_noskip",), *_V3_LARGE["block_args"][1:]))
_TF = dict(pad_type="same", bn_eps=1e-3)
_TORCHVISION = dict(bn_eps=1e-3, bn_momentum=0.01, drop_rate=0.2)

_FBNETV3 = dict(
    act_layer="hard_swish", num_features=1984, head_bias=False, channel_round_limit=0.95, se_from_exp=False,
    se_layer=partial(SqueezeExcite, gate_layer="hard_sigmoid", rd_round_fn=partial(make_divisible, round_limit=0.95)))
_FBNETV3_B = dict(_FBNETV3, stem_size=16, block_args=arch(
    "ds_r2_k3_s1_e1_c16", "ir_r1_k5_s2_e4_c24 ir_r3_k5_s1_e2_c24",
    "ir_r1_k5_s2_e5_c40_se0.25 ir_r4_k5_s1_e3_c40_se0.25", "ir_r1_k5_s2_e5_c72 ir_r4_k3_s1_e3_c72",
    "ir_r1_k3_s1_e5_c120_se0.25 ir_r5_k5_s1_e3_c120_se0.25",
    "ir_r1_k3_s2_e6_c184_se0.25 ir_r5_k5_s1_e4_c184_se0.25 ir_r1_k5_s1_e6_c224_se0.25", "cn_r1_k1_s1_c1344"))
_FBNETV3_D = dict(_FBNETV3, stem_size=24, block_args=arch(
    "ds_r2_k3_s1_e1_c16", "ir_r1_k3_s2_e5_c24 ir_r5_k3_s1_e2_c24",
    "ir_r1_k5_s2_e4_c40_se0.25 ir_r4_k3_s1_e3_c40_se0.25", "ir_r1_k3_s2_e5_c72 ir_r4_k3_s1_e3_c72",
    "ir_r1_k3_s1_e5_c128_se0.25 ir_r6_k5_s1_e3_c128_se0.25",
    "ir_r1_k3_s2_e6_c208_se0.25 ir_r5_k5_s1_e5_c208_se0.25 ir_r1_k5_s1_e6_c240_se0.25", "cn_r1_k1_s1_c1440"))
_FBNETV3_G = dict(_FBNETV3, stem_size=32, block_args=arch(
    "ds_r3_k3_s1_e1_c24", "ir_r1_k5_s2_e4_c40 ir_r4_k5_s1_e2_c40",
    "ir_r1_k5_s2_e4_c56_se0.25 ir_r4_k5_s1_e3_c56_se0.25", "ir_r1_k5_s2_e5_c104 ir_r4_k3_s1_e3_c104",
    "ir_r1_k3_s1_e5_c160_se0.25 ir_r8_k5_s1_e3_c160_se0.25",
    "ir_r1_k3_s2_e6_c264_se0.25 ir_r6_k5_s1_e5_c264_se0.25 ir_r2_k5_s1_e6_c288_se0.25", "cn_r1_k1_s1_c1728"))

_LCNET = dict(
    act_layer="hard_swish", se_layer=partial(SqueezeExcite, gate_layer="hard_sigmoid", force_act_layer="relu"),
    block_args=arch(
        "dsa_r1_k3_s1_c32", "dsa_r2_k3_s2_c64", "dsa_r2_k3_s2_c128", "dsa_r1_k3_s2_c256 dsa_r1_k5_s1_c256",
        "dsa_r4_k5_s1_c256", "dsa_r2_k5_s2_c512_se0.25"))

_V4, _FIX = dict(head_norm=True), dict(fix_stem=True)
_V4_HYBRID = dict(_V4, layer_scale_init_value=1e-5)
_V4_CONV_SMALL = dict(_V4, stem_size=32, block_args=arch(
    "cn_r1_k3_s2_e1_c32 cn_r1_k1_s1_e1_c32", "cn_r1_k3_s2_e1_c96 cn_r1_k1_s1_e1_c64",
    "uir_r1_a5_k5_s2_e3_c96 uir_r4_a0_k3_s1_e2_c96 uir_r1_a3_k0_s1_e4_c96",
    "uir_r1_a3_k3_s2_e6_c128 uir_r1_a5_k5_s1_e4_c128 uir_r1_a0_k5_s1_e4_c128 uir_r1_a0_k5_s1_e3_c128 "
    "uir_r2_a0_k3_s1_e4_c128", "cn_r1_k1_s1_c960"))
_V4_CONV_MEDIUM = dict(_V4, stem_size=32, block_args=arch(
    "er_r1_k3_s2_e4_c48", "uir_r1_a3_k5_s2_e4_c80 uir_r1_a3_k3_s1_e2_c80",
    "uir_r1_a3_k5_s2_e6_c160 uir_r2_a3_k3_s1_e4_c160 uir_r1_a3_k5_s1_e4_c160 uir_r1_a3_k3_s1_e4_c160 "
    "uir_r1_a3_k0_s1_e4_c160 uir_r1_a0_k0_s1_e2_c160 uir_r1_a3_k0_s1_e4_c160",
    "uir_r1_a5_k5_s2_e6_c256 uir_r1_a5_k5_s1_e4_c256 uir_r2_a3_k5_s1_e4_c256 uir_r1_a0_k0_s1_e4_c256 "
    "uir_r1_a3_k0_s1_e4_c256 uir_r1_a3_k5_s1_e2_c256 uir_r1_a5_k5_s1_e4_c256 uir_r2_a0_k0_s1_e4_c256 "
    "uir_r1_a5_k0_s1_e2_c256", "cn_r1_k1_s1_c960"))
_V4_CONV_LARGE = dict(_V4, stem_size=24, block_args=arch(
    "er_r1_k3_s2_e4_c48", "uir_r1_a3_k5_s2_e4_c96 uir_r1_a3_k3_s1_e4_c96",
    "uir_r1_a3_k5_s2_e4_c192 uir_r3_a3_k3_s1_e4_c192 uir_r1_a3_k5_s1_e4_c192 uir_r5_a5_k3_s1_e4_c192 "
    "uir_r1_a3_k0_s1_e4_c192",
    "uir_r4_a5_k5_s2_e4_c512 uir_r1_a5_k0_s1_e4_c512 uir_r1_a5_k3_s1_e4_c512 uir_r2_a5_k0_s1_e4_c512 "
    "uir_r1_a5_k3_s1_e4_c512 uir_r1_a5_k5_s1_e4_c512 uir_r3_a5_k0_s1_e4_c512", "cn_r1_k1_s1_c960"))
_V4_HYBRID_MEDIUM = dict(_V4_HYBRID, stem_size=32, block_args=arch(
    "er_r1_k3_s2_e4_c48", "uir_r1_a3_k5_s2_e4_c80 uir_r1_a3_k3_s1_e2_c80",
    "uir_r1_a3_k5_s2_e6_c160 uir_r1_a0_k0_s1_e2_c160 uir_r1_a3_k3_s1_e4_c160 uir_r1_a3_k5_s1_e4_c160" +
    " mqa_r1_k3_h4_s1_v2_d64_c160 uir_r1_a3_k3_s1_e4_c160 mqa_r1_k3_h4_s1_v2_d64_c160 uir_r1_a3_k0_s1_e4_c160" * 2,
    "uir_r1_a5_k5_s2_e6_c256 uir_r1_a5_k5_s1_e4_c256 uir_r2_a3_k5_s1_e4_c256 uir_r1_a0_k0_s1_e2_c256 "
    "uir_r1_a3_k5_s1_e2_c256 uir_r1_a0_k0_s1_e2_c256 uir_r1_a0_k0_s1_e4_c256 mqa_r1_k3_h4_s1_d64_c256 "
    "uir_r1_a3_k0_s1_e4_c256 mqa_r1_k3_h4_s1_d64_c256 uir_r1_a5_k5_s1_e4_c256" +
    " mqa_r1_k3_h4_s1_d64_c256 uir_r1_a5_k0_s1_e4_c256" * 2, "cn_r1_k1_s1_c960"))
_V4_HYBRID_LARGE = dict(_V4_HYBRID, stem_size=24, act_layer="gelu", block_args=arch(
    "er_r1_k3_s2_e4_c48", "uir_r1_a3_k5_s2_e4_c96 uir_r1_a3_k3_s1_e4_c96",
    "uir_r1_a3_k5_s2_e4_c192 uir_r3_a3_k3_s1_e4_c192 uir_r1_a3_k5_s1_e4_c192 uir_r2_a5_k3_s1_e4_c192" +
    " mqa_r1_k3_h8_s1_v2_d48_c192 uir_r1_a5_k3_s1_e4_c192" * 3 +
    " mqa_r1_k3_h8_s1_v2_d48_c192 uir_r1_a3_k0_s1_e4_c192",
    "uir_r4_a5_k5_s2_e4_c512 uir_r1_a5_k0_s1_e4_c512 uir_r1_a5_k3_s1_e4_c512 uir_r2_a5_k0_s1_e4_c512 "
    "uir_r1_a5_k3_s1_e4_c512 uir_r1_a5_k5_s1_e4_c512" + " mqa_r1_k3_h8_s1_d64_c512 uir_r1_a5_k0_s1_e4_c512" * 4,
    "cn_r1_k1_s1_c960"))

register_model.variants(__name__, MobileNetV3, {
    "mobilenetv3_large_075": ("MobileNetV3-Large, 0.75 times the channels.", _V3_LARGE, scaled(0.75)),
    "mobilenetv3_large_100": ("MobileNetV3-Large (Howard et al., 2019).", _V3_LARGE),
    "mobilenetv3_large_150d": ("MobileNetV3-Large, 1.5 times the channels and 1.2 times the depth; timm's own scaling.",
        _V3_LARGE, scaled(1.5, 1.2)),
    "mobilenetv3_small_050": ("MobileNetV3-Small, half the channels but the stem's.", _V3_SMALL, scaled(0.5), _FIX),
    "mobilenetv3_small_075": ("MobileNetV3-Small, 0.75 times the channels.", _V3_SMALL, scaled(0.75)),
    "mobilenetv3_small_100": ("MobileNetV3-Small.", _V3_SMALL),
    "mobilenetv3_rw": ("MobileNetV3-Large as timm first read the paper: other attention, no bias in the head.", _V3_RW),
    "mobilenet_v3_large": ("torchvision's MobileNetV3-Large: batch norm's epsilon 1e-3 and momentum 0.01, dropout 0.2.",
        _V3_LARGE, _TORCHVISION),
    "mobilenet_v3_small": ("torchvision's MobileNetV3-Small: batch norm's epsilon 1e-3 and momentum 0.01, dropout 0.2.",
        _V3_SMALL, _TORCHVISION),
    "tf_mobilenetv3_large_075": ("`mobilenetv3_large_075` as trained in TensorFlow.", _V3_LARGE, _TF, scaled(0.75)),
    "tf_mobilenetv3_large_100": ("`mobilenetv3_large_100` as trained in TensorFlow.", _V3_LARGE, _TF),
    "tf_mobilenetv3_large_minimal_100": ("MobileNetV3-Large, 3x3 kernels and ReLU only, no attention; TensorFlow's.",
        _V3_LARGE_MINIMAL, _TF),
    "tf_mobilenetv3_small_075": ("`mobilenetv3_small_075` as trained in TensorFlow.", _V3_SMALL, _TF, scaled(0.75)),
    "tf_mobilenetv3_small_100": ("`mobilenetv3_small_100` as trained in TensorFlow.", _V3_SMALL, _TF),
    "tf_mobilenetv3_small_minimal_100": ("MobileNetV3-Small, 3x3 kernels and ReLU only, no attention; TensorFlow's.",
        _V3_SMALL_MINIMAL, _TF),
    "fbnetv3_b": ("FBNetV3-B (Dai et al., 2020).", _FBNETV3_B),
    "fbnetv3_d": ("FBNetV3-D.", _FBNETV3_D),
    "fbnetv3_g": ("FBNetV3-G.", _FBNETV3_G),
    "lcnet_035": ("PP-LCNet (Cui et al., 2021), 0.35 times the channels.", _LCNET, scaled(0.35)),
    "lcnet_050": ("PP-LCNet, half the channels.", _LCNET, scaled(0.5)),
    "lcnet_075": ("PP-LCNet, 0.75 times the channels.", _LCNET, scaled(0.75)),
    "lcnet_100": ("PP-LCNet.", _LCNET),
    "lcnet_150": ("PP-LCNet, 1.5 times the channels.", _LCNET, scaled(1.5)),
    "mobilenetv4_conv_small_035": ("MobileNetV4-Conv-Small, 0.35 times the channels but the stem's.",
        _V4_CONV_SMALL, scaled(0.35), _FIX),
    "mobilenetv4_conv_small_050": ("MobileNetV4-Conv-Small, half the channels but the stem's.",
        _V4_CONV_SMALL, scaled(0.5), _FIX),
    "mobilenetv4_conv_small": ("MobileNetV4-Conv-Small (Qin et al., 2024).", _V4_CONV_SMALL),
    "mobilenetv4_conv_medium": ("MobileNetV4-Conv-Medium.", _V4_CONV_MEDIUM),
    "mobilenetv4_conv_large": ("MobileNetV4-Conv-Large.", _V4_CONV_LARGE),
    "mobilenetv4_hybrid_medium": ("MobileNetV4-Hybrid-Medium: multi-query attention, too.", _V4_HYBRID_MEDIUM),
    "mobilenetv4_hybrid_large": ("MobileNetV4-Hybrid-Large.", _V4_HYBRID_LARGE),
    "mobilenetv4_conv_aa_medium": ("MobileNetV4-Conv-Medium that downsamples by average pooling.",
        _V4_CONV_MEDIUM, dict(aa_layer="avg")),
    "mobilenetv4_conv_blur_medium": ("MobileNetV4-Conv-Medium that blurs as it downsamples.",
        _V4_CONV_MEDIUM, dict(aa_layer="blurpc")),
    "mobilenetv4_conv_aa_large": ("MobileNetV4-Conv-Large that downsamples by average pooling.",
        _V4_CONV_LARGE, dict(aa_layer="avg")),
    "mobilenetv4_hybrid_medium_075": ("MobileNetV4-Hybrid-Medium, 0.75 times the channels but the stem's.",
        _V4_HYBRID_MEDIUM, scaled(0.75), _FIX),
    "mobilenetv4_hybrid_large_075": ("MobileNetV4-Hybrid-Large, 0.75 times the channels but the stem's.",
        _V4_HYBRID_LARGE, scaled(0.75), _FIX),
})


def _from_torchvision(state_dict: StateDict, model: nn.Module) -> StateDict:
    """torchvision's layers stand in our order under other names; its head convolution is a linear layer."""
    renamed = rename_in_order(state_dict, model, head="classifier.3")
    weight = renamed.get("conv_head.weight")
    if weight is not None and weight.ndim == 2:
        renamed["conv_head.weight"] = weight[:, :, None, None]
    return renamed


MobileNetV3.key_maps = (
    KeyMap("torchvision", lambda keys: "classifier.3.weight" in keys and "features.1.block.0.0.weight" in keys,
           _from_torchvision),
)
