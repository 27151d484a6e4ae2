"""RegNet."""

from torch import nn

from .case import Case, From

_BOTTLENECK, _PRE, _STAGE = (f"models.regnet.{name}" for name in ("Bottleneck", "PreBottleneck", "RegStage"))
_SHORTCUT = "models.regnet.create_shortcut"
_MAP = [(2, 8, 9, 9)]
_SQUARES = From("layers.DropBlock2d", drop_prob=0.1)

CASES = [
    Case(_BOTTLENECK, (8, 16), {}, _MAP),
    Case(_BOTTLENECK, (8, 16, 2), dict(group_size=4, bottle_ratio=0.5, act_layer="silu", drop_path_rate=0.1), _MAP),
    Case(_BOTTLENECK, (8, 8), dict(dilation=(1, 2), se_ratio=0.0, downsample="avg", linear_out=True,
                                   norm_layer=From("layers.GroupNormAct", group_size=4), drop_block=_SQUARES), _MAP),
    Case(_BOTTLENECK, (8, 16), dict(stride=2, downsample=None), _MAP),
    Case(_PRE, (8, 16), dict(stride=2, group_size=8), _MAP),
    Case(_PRE, (8, 8), dict(dilation=(2, 4), downsample="avg", act_layer=nn.SiLU), _MAP),
    Case(_STAGE, (2, 8, 16, 2, 1), dict(drop_path_rates=[0.0, 0.1], group_size=8, se_ratio=0.0), _MAP),
    Case(_STAGE, (3, 8, 16, 1, 4), dict(block_fn=From(_PRE), group_size=8), _MAP),
    Case(_STAGE, (2, 8, 16), dict(stride=1, dilation=2), _MAP),
    Case(_SHORTCUT, ("conv1x1", 8, 8, 1, 1), {}, _MAP),
    Case(_SHORTCUT, ("conv1x1", 8, 8, 3, 2), {}, _MAP),
    Case(_SHORTCUT, ("avg", 8, 12, 3, 2, (2, 2)), dict(preact=True), _MAP),
    Case(_SHORTCUT, ("", 8, 12, 1, 2)),
    Case("models.regnet.downsample_conv", (8, 12, 3), dict(dilation=2), _MAP),
    Case("models.regnet.downsample_conv", (8, 12, 3), dict(norm_layer=From("layers.LayerNorm2d")), _MAP),
    Case("models.regnet.downsample_avg", (8, 12), dict(stride=2), _MAP),
    Case("models.regnet.downsample_avg", (8, 12, 1, 1, 1, From("layers.LayerNorm2d")), {}, _MAP),
    Case("models.regnet.generate_regnet", (36.44, 24, 2.49, 13, 8)),
    Case("models.regnet.generate_regnet", (14.5, 48, 2.226, 28, 8), dict(quant=4)),
    *(Case("models.regnet.adjust_widths_groups_comp", ([24, 56, 72, 40], [1.0, 0.5, 1.0, 4.0], [8, 16, 16, 120], ratio))
      for ratio in (0.0, 0.9)),
    *(Case("models.regnet.quantize_float", (value, 8)) for value in (35.9, 36, 3)),
]
