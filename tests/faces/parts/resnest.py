from torch import nn

from .case import Case, From

_MAP = [(2, 32, 9, 8)]

CASES = [
    Case("models.resnest.ResNestBottleneck", (32, 8), {}, _MAP),
    Case("models.resnest.ResNestBottleneck", (32, 8), dict(radix=0, cardinality=2, dilation=2, first_dilation=1), _MAP),
    *(Case("models.resnest.ResNestBottleneck", (32, 16, 2, nn.Conv2d(32, 64, 1, 2), 2), dict(avd=True, **kwargs), _MAP)
      for kwargs in ({}, dict(avd_first=True, act_layer=nn.SiLU, cardinality=2, base_width=40))),
    Case("models.resnest.ResNestBottleneck", (32, 8),
         dict(avd=True, is_first=True, norm_layer=From("layers.GroupNorm1"), drop_path=nn.Identity()), _MAP),
]
