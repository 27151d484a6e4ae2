from torch import nn

from .case import Case, From

_MAP = [(2, 32, 10, 8)]
_BN = dict(conv_layer=From("layers.create_conv2d"), norm_layer=From("layers.BatchNormAct2d"))
_DOWN = [From(f"models.resnetv2.Downsample{name}") for name in ("Conv", "Avg")]

CASES = [
    *(Case(f"models.resnetv2.{name}", (32,), dict(bottle_ratio=1.0, groups=4), _MAP)
      for name in ("PreActBasic", "PreActBottleneck", "Bottleneck")),
    *(Case(f"models.resnetv2.{name}", (32, 48), dict(_BN, stride=2, proj_layer=down, act_layer=nn.SiLU), _MAP)
      for name in ("PreActBasic", "PreActBottleneck", "Bottleneck") for down in _DOWN),
    *(Case(f"models.resnetv2.Downsample{name}", (32, 16), dict(_BN, dilation=dilation, preact=False), _MAP)
      for name in ("Conv", "Avg") for dilation in (1, 2)),
    Case("models.resnetv2.PreActBasic", (32, 32), dict(_BN, dilation=2, first_dilation=1, proj_layer=_DOWN[1]), _MAP),
    *(Case("models.resnetv2.ResNetStage", (32, 48, stride, dilation, 2), dict(_BN, **kwargs), _MAP)
      for stride, dilation, kwargs in (
          (2, 1, {}), (1, 2, dict(avg_down=True, groups=2)),
          (1, 4, dict(block_fn=From("models.resnetv2.Bottleneck"), bottle_ratio=0.5, block_dpr=[0.0, 0.1])))),
    *(Case("models.resnetv2.is_stem_deep", (stem_type,)) for stem_type in ("", "fixed", "deep_same", "tiered")),
    *(Case("models.resnetv2.ResNetV2", ((1, 2, 1, 1), (32, 64, 64, 96)),
           dict(_BN, stem_chs=32, num_classes=7, **kwargs), [(1, 3, 64, 64)])
      for kwargs in (dict(output_stride=8, avg_down=True), dict(preact=False, stem_type="tiered", act_layer=nn.SiLU))),
]
