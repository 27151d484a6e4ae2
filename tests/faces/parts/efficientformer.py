"""EdgeNeXt, EfficientFormer and its second version."""

from functools import partial

from torch import nn

from .case import Case

_EDGE, _V1, _V2 = "models.edgenext.", "models.efficientformer.", "models.efficientformer_v2."
_MAP, _TOKENS = [(2, 8, 9, 9)], [(2, 49, 8)]
_NORM = partial(nn.BatchNorm2d, eps=0.1)

CASES = [
    Case(_EDGE + "PositionalEncodingFourier", (4, 8, 100.0), {}, lambda: ((2, 5, 3),)),
    Case(_EDGE + "ConvBlock", (8,), {}, _MAP),
    Case(_EDGE + "ConvBlock", (8, 16, 5, 2, False, 2, 0.1), dict(act_layer=nn.ReLU), _MAP),
    Case(_EDGE + "ConvBlock", (8, 8, 3), dict(ls_init_value=0), _MAP),
    Case(_EDGE + "CrossCovarianceAttn", (8, 2, True, 0.1, 0.1), {}, [(2, 5, 8)]),
    Case(_EDGE + "SplitTransposeBlock", (8, 2, 2), {}, _MAP),
    Case(_EDGE + "SplitTransposeBlock", (10, 4, 2, 2, False, False, False, 0.1), dict(act_layer=nn.ReLU),
         [(2, 10, 5, 3)]),
    Case(_EDGE + "EdgeNeXtStage", (8, 16), dict(drop_path_rates=[0.0, 0.1]), _MAP),
    Case(_EDGE + "EdgeNeXtStage", (8, 16, 2, 3, 2, 2, 3, 5, 2, True, True, False, 0.1),
         dict(drop_path_rates=[0.0, 0.0, 0.1]), _MAP),
    Case(_V1 + "Attention", (8, 4, 3, 2, (5, 3)), {}, [(2, 15, 8)]),
    Case(_V1 + "Stem4", (3, 8), {}, [(2, 3, 9, 9)]),
    Case(_V1 + "Stem4", (3, 8, nn.GELU, _NORM), {}, [(2, 3, 9, 9)]),
    Case(_V1 + "Downsample", (8, 12), {}, _MAP),
    Case(_V1 + "Downsample", (8, 12, 5, 3, 0, _NORM), {}, _MAP),
    Case(_V1 + "Flat", (), {}, _MAP),
    Case(_V1 + "Pooling", (5,), {}, _MAP),
    Case(_V1 + "ConvMlpWithNorm", (8, 12, 6, nn.ReLU, None, 0.1), {}, _MAP),
    Case(_V1 + "ConvMlpWithNorm", (8,), {}, _MAP),
    Case(_V1 + "MetaBlock1d", (8, 2, nn.ReLU, nn.LayerNorm, 0.1, 0.1, 0.1), {}, _TOKENS),
    Case(_V1 + "MetaBlock2d", (8, 5, 2, nn.ReLU, _NORM, 0.1, 0.1, 0.1), {}, _MAP),
    Case(_V1 + "EfficientFormerStage", (8, 12, 3), dict(num_vit=2, drop_path=[0, 0.1, 0.1]), [(2, 8, 14, 14)]),
    Case(_V1 + "EfficientFormerStage", (8, 8, 2), dict(downsample=False, num_vit=0, drop_path=[0, 0.1]), _MAP),
    Case(_V1 + "EfficientFormerStage", (8, 12, 1), dict(num_vit=3, drop_path=[0.1]), [(2, 8, 14, 14)]),
    Case(_V2 + "ConvNorm", (8, 12), {}, _MAP),
    Case(_V2 + "ConvNorm", (8, 12, 3, 2, 0, 2, 4, False, "groupnorm1", dict(eps=0.1)), {}, _MAP),
    Case(_V2 + "Attention2d", (8, 4, 2, 3, (5, 3)), {}, [(2, 8, 5, 3)]),
    Case(_V2 + "Attention2d", (8, 4, 2, 3, (6, 4), nn.ReLU, 2), {}, [(2, 8, 6, 4)]),
    Case(_V2 + "LocalGlobalQuery", (8, 12), {}, _MAP),
    Case(_V2 + "Attention2dDownsample", (8, 4, 2, 3, (5, 3), 12, nn.ReLU), {}, [(2, 8, 5, 3)]),
    Case(_V2 + "Attention2dDownsample", (8,), {}, [(2, 8, 7, 7)]),
    Case(_V2 + "Downsample", (8, 12), dict(resolution=9, use_attn=True, norm_layer=_NORM), _MAP),
    Case(_V2 + "Downsample", (8, 12, 5, 3, 0), dict(norm_layer=nn.BatchNorm2d), _MAP),
    Case(_V2 + "ConvMlpWithNorm", (8, 12, 6, nn.ReLU, _NORM, 0.1, True), {}, _MAP),
    Case(_V2 + "EfficientFormerV2Block", (8, 2, nn.ReLU, _NORM, 0.1, 0.1, None, 9), {}, _MAP),
    Case(_V2 + "EfficientFormerV2Block", (8,), dict(use_attn=False), _MAP),
    Case(_V2 + "Stem4", (3, 8, nn.ReLU, _NORM), {}, [(2, 3, 9, 9)]),
    Case(_V2 + "EfficientFormerV2Stage", (8, 12, 3, 9), dict(
        downsample_use_attn=True, block_use_attn=True, num_vit=2, mlp_ratio=(1, 2, 3), drop_path=[0, 0, 0.1]), _MAP),
    Case(_V2 + "EfficientFormerV2Stage", (8, 8, 1, 8, False, 2), dict(block_use_attn=True, drop_path=[0.1]),
         [(2, 8, 8, 8)]),
]
