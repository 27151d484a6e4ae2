from .case import Case, From

_MAP = [(2, 20, 9, 8)]

CASES = [
    Case("models.dpn.BnAct", (20,), {}, _MAP),
    Case("models.dpn.BnAct", (20,), dict(norm_layer=From("layers.EvoNorm2dB0")), _MAP),
    Case("models.dpn.BnActConv2d", (20, 12, 3, 2), dict(groups=4), _MAP),
    *(Case("models.dpn.DualPathBlock", (20, 8, 12, 16, 4, 4), dict(block_type=block_type, b=b), _MAP)
      for block_type in ("normal", "proj", "down") for b in (False, True)),
    Case("models.dpn.DPN", ((1, 2, 1, 1), (4, 4, 8, 8), 16, 4), dict(num_classes=7, small=True, num_init_features=8),
         [(1, 3, 64, 64)]),
]
