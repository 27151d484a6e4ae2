"""ConvNeXt."""

from .case import Case, From

_BLOCK, _STAGE = "models.convnext.ConvNeXtBlock", "models.convnext.ConvNeXtStage"
_NORMS = dict(norm_layer=From("layers.LayerNorm2d"), norm_layer_cl=From("layers.LayerNorm", eps=1e-5))

CASES = [
    Case("models.convnext.Downsample", (8, 12), dict(stride=2), [(2, 8, 9, 9)]),
    Case("models.convnext.Downsample", (8, 8), dict(stride=2, dilation=2), [(2, 8, 9, 9)]),
    Case("models.convnext.Downsample", (8, 8), {}, [(2, 8, 9, 9)]),
    Case(_BLOCK, (8,), {}, [(2, 8, 9, 9)]),
    Case(_BLOCK, (8, 16, 3, 2), dict(mlp_ratio=2, act_layer="silu", use_grn=True), [(2, 8, 9, 9)]),
    Case(_BLOCK, (8,), dict(dilation=(1, 2), conv_mlp=True, conv_bias=False, ls_init_value=None), [(2, 8, 9, 9)]),
    Case(_BLOCK, (8,), dict(norm_layer=From("layers.RmsNorm", eps=1e-4), drop_path=0.1), [(2, 8, 9, 9)]),
    Case(_STAGE, (8, 12), dict(_NORMS, kernel_size=3, drop_path_rates=[0.0, 0.1]), [(2, 8, 9, 9)]),
    Case(_STAGE, (8, 8), dict(_NORMS, stride=1, depth=1, dilation=(1, 2), conv_mlp=True, use_grn=True), [(2, 8, 9, 9)]),
]
