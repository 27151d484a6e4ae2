from torch import nn

from .case import Case, From

_MAP = [(2, 16, 9, 8)]

CASES = [
    Case("models.senet.SEModule", (16, 4), {}, _MAP),
    *(Case(f"models.senet.{name}", (16, 16, 2, 4, 2, nn.Conv2d(16, 64, 1, 2)), {}, _MAP)
      for name in ("SEBottleneck", "SEResNetBottleneck", "SEResNeXtBottleneck")),
    Case("models.senet.SEResNeXtBottleneck", (16, 4, 2, 4), dict(base_width=24), _MAP),
    Case("models.senet.SEResNetBlock", (16, 16, 2, 4), {}, _MAP),
    Case("models.senet.SEResNetBlock", (16, 24, 2, 4, 2, nn.Conv2d(16, 24, 1, 2)), {}, _MAP),
    Case("models.senet.SENet", (From("models.senet.SEResNetBlock"), (1, 1, 1, 1), 1, 16), dict(num_classes=7),
         [(1, 3, 64, 64)], other_defaults="groups reduction"),
]
