"""CspNet."""

from torch import nn

from .case import Case, From

_BLOCKS = tuple(f"models.cspnet.{name}" for name in ("BottleneckBlock", "DarkBlock", "EdgeBlock"))
_CROSS, _CROSS3, _DARK, _STEM = (
    f"models.cspnet.{name}" for name in ("CrossStage", "CrossStage3", "DarkStage", "create_csp_stem"))
_MAP = [(2, 8, 10, 10)]
_LAYERS = dict(act_layer=nn.SiLU, norm_layer=nn.BatchNorm2d)
_SE, _SQUARES = From("layers.SEModule", rd_ratio=0.5), From("layers.DropBlock2d", drop_prob=0.1)


CASES = [
    *(Case(path, (8, 8), {}, _MAP) for path in _BLOCKS),
    *(Case(path, (8, 8, 2, 1.5, 4), dict(_LAYERS, attn_layer=_SE, drop_block=_SQUARES, drop_path=0.1), _MAP)
      for path in _BLOCKS),
    Case(_BLOCKS[0], (8, 8), dict(attn_last=True, attn_layer=From("layers.SEModule")), _MAP),
    Case(_CROSS, (8, 16, 2, 1, 2), dict(_LAYERS, expand_ratio=2.0, block_dpr=[0.0, 0.1]), _MAP),
    Case(_CROSS, (8, 16, 1, 2, 1), dict(_LAYERS, block_ratio=0.5, first_dilation=1, down_growth=True, groups=4,
                                        attn_layer=_SE), _MAP),
    Case(_CROSS, (8, 8, 2, 1, 1), dict(_LAYERS, expand_ratio=2.0, avg_down=True, cross_linear=True), _MAP),
    Case(_CROSS, (8, 16, 1, 1, 1), dict(_LAYERS, expand_ratio=2.0, block_fn=From(_BLOCKS[1])), _MAP),
    Case(_CROSS3, (8, 16, 2, 1, 2), dict(_LAYERS, block_ratio=0.5, bottle_ratio=0.5, block_fn=From(_BLOCKS[2])), _MAP),
    Case(_CROSS3, (8, 16, 2, 1, 1), dict(_LAYERS, block_ratio=0.5, aa_layer=From("layers.BlurPool2d")), _MAP),
    Case(_DARK, (8, 16, 2, 1, 2), dict(_LAYERS, bottle_ratio=0.5, block_dpr=[0.0, 0.1]), _MAP),
    Case(_DARK, (8, 16, 1, 2, 1), dict(_LAYERS, block_fn=From(_BLOCKS[1]), first_dilation=1), _MAP),
    Case(_DARK, (8, 16, 2, 1, 1), dict(_LAYERS, avg_down=True), _MAP),
    Case(_STEM),
    Case(_STEM, (3, (8, 8, 16), 3, 4)),
    Case(_STEM, (1, (8, 16), 7, 4, "max", 2, nn.SiLU)),
    Case(_STEM, (), dict(out_chs=8, stride=4, pool="max", aa_layer=From("layers.BlurPool2d"))),
]
