import torch
from torch import nn

from .case import Case, From

_BASIC, _BOTTLE = From("models.resnet.BasicBlock"), From("models.resnet.Bottleneck")


def _maps(*chs):
    return lambda: ([torch.randn(2, c, 16 >> i, 8 >> i) for i, c in enumerate(chs)],)


CASES = [
    Case("models.hrnet.HighResolutionModule", (3, _BASIC, (1, 2, 1), [4, 8, 16], (4, 8, 16), "SUM"), {},
         _maps(4, 8, 16)),
    Case("models.hrnet.HighResolutionModule", (3, _BOTTLE, (1, 1, 1), [4, 8, 16], (1, 2, 4), "SUM"),
         dict(multi_scale_output=False), _maps(4, 8, 16)),
    Case("models.hrnet.HighResolutionModule", (1, _BASIC, (2,), [4], (8,), "SUM"), {}, _maps(4)),
    Case("models.hrnet.SequentialList", (nn.ReLU(), nn.Flatten()), {}, [(2, 3, 4)]),
]
