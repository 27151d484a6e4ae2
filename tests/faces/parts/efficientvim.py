"""EfficientViM."""

from functools import partial

from torch import nn

from .case import Case, From

_VIM = "models.efficientvim."
_MAP, _TOKENS = [(2, 8, 9, 9)], [(2, 8, 15)]

CASES = [
    Case(_VIM + "ConvLayer1d", (8, 12), {}, _TOKENS),
    Case(_VIM + "ConvLayer1d", (8, 12, 5, 2, 1, 2, 4, None, None), {}, _TOKENS),
    Case(_VIM + "ConvLayer2d", (8, 12), {}, _MAP),
    Case(_VIM + "ConvLayer2d", (8, 12, 3, 2, 1, 2, 4, partial(nn.BatchNorm2d, eps=0.1), nn.SiLU, 0.5), {}, _MAP),
    Case(_VIM + "Stem", (3, 16), {}, [(2, 3, 64, 64)]),
    Case(_VIM + "FFN", (8, 12), {}, _MAP),
    Case(_VIM + "PatchMerging", (8, 12, 2.0), {}, _MAP),
    Case(_VIM + "HSMSSD", (8, 2.0, 5, (1.0, 2.0)), {}, [(2, 8, 5, 3)]),
    Case(_VIM + "EfficientViMBlock", (8, 2.0, 2.0, 5, 0.1), {}, [(2, 8, 5, 3)]),
    Case(_VIM + "EfficientViMStage", (8, 12, 2, 2.0, From(_VIM + "PatchMerging"), 1.0, 5, [0.0, 0.1]), {}, _MAP),
    Case(_VIM + "EfficientViMStage", (8, 12, 1), {}, _MAP),
]
