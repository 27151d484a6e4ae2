"""EfficientNet's and MobileNet's blocks, their builder and feature extractors."""

from functools import partial

from torch import nn

from .case import Case, From

_BLOCKS, _BUILDER = "models._efficientnet_blocks", "models._efficientnet_builder"
_SE = From(f"{_BLOCKS}.SqueezeExcite", rd_ratio=0.5, gate_layer="hard_sigmoid")
_GROUPS = From("layers.GroupNormAct", num_groups=4)
_X = [(2, 8, 10, 10)]
_ARCH = [["ds_r1_k3_s1_e1_c16_se0.25"], ["er_r1_k3_s2_e2_c16"],
         ["ir_r2_k3.5_s2_e3_c24_se0.25_nsw", "ir_r1_k3_s1_e2_c24_cc2"],
         ["uir_r1_a3_k5_s2_e2_c32", "mqa_r1_k3_h4_s1_d8_v2_c32", "mha_r1_k3_h4_s1_d8_c32"], ["cn_r1_k1_s2_c40"]]
_STRIDED = [["cn_r1_k3_s2_c16_skip"], ["ir_r1_k3_s2_e2_c24"], ["uir_r2_a3_k3_s2_e2_c32"]]


def _decoded(arch, *args, **kwargs):
    return From(f"{_BUILDER}.decode_arch_def", arch, *args, **kwargs).made


CASES = [
    Case(f"{_BLOCKS}.SqueezeExcite", (8,), {}, _X),
    Case(f"{_BLOCKS}.SqueezeExcite", (8, 0.5), dict(force_act_layer=nn.SiLU, rd_round_fn=int), _X),
    Case(f"{_BLOCKS}.ConvBnAct", (8, 8, 3), dict(skip=True, group_size=4, drop_path_rate=0.1), _X),
    Case(f"{_BLOCKS}.ConvBnAct", (8, 12, 3, 2), dict(pad_type="same", aa_layer="blur"), _X),
    Case(f"{_BLOCKS}.DepthwiseSeparableConv", (8, 12), dict(stride=2, se_layer=_SE, pw_act=True), _X),
    Case(f"{_BLOCKS}.DepthwiseSeparableConv", (8, 32), dict(s2d=1, dilation=2), _X),
    Case(f"{_BLOCKS}.InvertedResidual", (8, 8), dict(exp_ratio=3.0, se_layer=_SE, act_layer=nn.SiLU), _X),
    Case(f"{_BLOCKS}.InvertedResidual", (8, 16, 5, 2, 1, 4), dict(exp_ratio=2.0, exp_kernel_size=[1, 1]), _X),
    Case(f"{_BLOCKS}.CondConvResidual", (8, 8), dict(num_experts=3, exp_ratio=2.0), _X, init=False),
    Case(f"{_BLOCKS}.EdgeResidual", (8, 8), dict(exp_ratio=2.0, force_in_chs=16, se_layer=_SE), _X),
    Case(f"{_BLOCKS}.EdgeResidual", (8, 12, 5, 2), dict(noskip=True, norm_layer=_GROUPS), _X),
    Case(f"{_BLOCKS}.UniversalInvertedResidual", (8, 8, 3, 5, 3), dict(exp_ratio=2.0, se_layer=_SE), _X),
    Case(f"{_BLOCKS}.UniversalInvertedResidual", (8, 16, 5, 0, 3, 2),
         dict(layer_scale_init_value=None, conv_kwargs=dict(bias=True), aa_layer="avg"), _X),
    Case(f"{_BLOCKS}.MobileAttention", (16, 16), dict(num_heads=None, key_dim=8), [(2, 16, 6, 6)]),
    Case(f"{_BLOCKS}.MobileAttention", (16, 24, 2), dict(use_cpe=True, use_bias=True, layer_scale_init_value=None),
         [(2, 16, 6, 6)]),
    Case(f"{_BLOCKS}.MobileAttention", (16, 16),
         dict(use_multi_query=True, query_strides=2, kv_stride=2, num_heads=2, key_dim=8, value_dim=12, noskip=True),
         [(2, 16, 8, 8)]),
    Case(f"{_BUILDER}.round_channels", (37, 1.4, 8), dict(round_limit=0.95)),
    Case(f"{_BUILDER}.round_channels", (37, 0)),
    Case("models.efficientnet.EfficientNetFeatures", (_decoded(_ARCH[:2]), (0, 1)), dict(stem_size=16),
         [(2, 3, 64, 64)]),
    Case("models.EfficientNetFeatures", (_decoded(_STRIDED, 1.5), (0, 2), "bottleneck", 4),
         dict(output_stride=8, pad_type="same", act_layer=nn.SiLU, se_layer="gc"), [(2, 4, 65, 65)]),
    Case("models.EfficientNetFeatures", (_decoded(_ARCH[:3]), (0, 1, 2), "expansion"), {}, [(2, 3, 32, 32)]),
    Case("models.mobilenetv3.MobileNetV3Features", (_decoded(_STRIDED), (1, 2, 3)), dict(layer_scale_init_value=0.1),
         [(2, 3, 64, 64)]),
    Case("models.MobileNetV3Features", (_decoded(_ARCH[:3]), (1, 2), "expansion"),
         dict(stem_size=24, round_chs_fn=partial(lambda channels, by: int(channels * by), by=1.5), act_layer=nn.SiLU),
         [(2, 3, 32, 32)]),
]
