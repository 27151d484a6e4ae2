from torch import nn

from .case import Case, From

_MAP = [(2, 16, 10, 8)]
_BLUR = From("layers.BlurPool2d")

CASES = [
    *(Case(f"models.tresnet.{name}", (16, 16), dict(downsample=nn.Conv2d(16, 16 * expansion, 1)), _MAP)
      for name, expansion in (("BasicBlock", 1), ("Bottleneck", 4))),
    *(Case(f"models.tresnet.{name}", (16, 24, 2, nn.Conv2d(16, 24 * expansion, 1, 2), use_se), dict(aa_layer=aa), _MAP)
      for name, expansion in (("BasicBlock", 1), ("Bottleneck", 4)) for use_se, aa in ((True, _BLUR), (False, None))),
    Case("models.tresnet.Bottleneck", (16, 4), dict(act_layer=nn.SiLU), _MAP),
    *(Case("models.tresnet.TResNet", ((1, 2, 1, 1),), dict(width_factor=0.25, v2=v2, num_classes=7), [(1, 3, 64, 64)])
      for v2 in (False, True)),
]
