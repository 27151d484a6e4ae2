from torch import nn

from .case import Case, From

_MAP = [(2, 16, 10, 8)]
_ACT = From("models.nfnet.act_with_gamma", "silu", 1.7881).made
_STEMS = ("", "deep", "deep_tiered", "deep_quad", "3x3", "7x7", "deep_pool", "3x3_pool", "7x7_pool")

CASES = [
    Case("models.nfnet.GammaAct", (), {}, _MAP),
    Case("models.nfnet.GammaAct", ("gelu", 1.7, True), {}, _MAP),
    Case("models.nfnet.DownsampleAvg", (16, 24, 2), {}, _MAP),
    Case("models.nfnet.DownsampleAvg", (16, 24), dict(dilation=2, conv_layer=From("layers.StdConv2d")), _MAP),
    Case("models.nfnet.NormFreeBlock", (16,), dict(act_layer=nn.ReLU), _MAP),
    Case("models.nfnet.NormFreeBlock", (16, 24, 2), dict(
        act_layer=_ACT, alpha=0.2, beta=0.9, bottle_ratio=0.5, group_size=4, reg=False, extra_conv=True, skipinit=True,
        attn_layer=From("layers.EcaModule"), attn_gain=1.5), _MAP),
    Case("models.nfnet.NormFreeBlock", (16, 16, 1, 2, 1), dict(
        act_layer=nn.SiLU, ch_div=8, attn_layer=From("layers.SEModule"), conv_layer=From("layers.ScaledStdConv2dSame")),
        _MAP),
    *(Case("models.nfnet.create_stem", (3, 32, stem_type, From("layers.ScaledStdConv2d"), _ACT))
      for stem_type in _STEMS),
]
