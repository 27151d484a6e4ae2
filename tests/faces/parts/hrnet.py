import torch
from torch import nn

from .case import Case, From

_BASIC, _BOTTLE = From("models.resnet.BasicBlock"), From("models.resnet.Bottleneck")

_SMALL = dict(stem_width=64, **{f"stage{i}": dict(
    num_modules=1, num_branches=i, block_type="BASIC" if i > 1 else "BOTTLENECK", num_blocks=(1,) * i,
    num_channels=[8 * 2**j for j in range(i)], fuse_method="SUM") for i in range(1, 5)})


def _maps(*chs):
    return lambda: ([torch.randn(2, c, 16 >> i, 8 >> i) for i, c in enumerate(chs)],)


CASES = [
    Case("models.hrnet.HighResolutionModule", (3, _BASIC, (1, 2, 1), [4, 8, 16], (4, 8, 16), "SUM"), {},
         _maps(4, 8, 16)),
    Case("models.hrnet.HighResolutionModule", (3, _BOTTLE, (1, 1, 1), [4, 8, 16], (1, 2, 4), "SUM"),
         dict(multi_scale_output=False), _maps(4, 8, 16)),
    Case("models.hrnet.HighResolutionModule", (1, _BASIC, (2,), [4], (8,), "SUM"), {}, _maps(4)),
    *(Case("models.hrnet.HighResolutionNetFeatures", (_SMALL,), dict(in_chans=1, **kwargs), [(1, 1, 64, 64)])
      for kwargs in ({}, dict(feature_location="", out_indices=(0, 2)))),
    Case("models.hrnet.HighResolutionNet", (_SMALL,), dict(head=""), [(1, 3, 64, 64)]),
    Case("models.hrnet.SequentialList", (nn.ReLU(), nn.Flatten()), {}, [(2, 3, 4)]),
]
