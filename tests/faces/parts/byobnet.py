"""ByobNet."""

from torch import nn

from .case import Case, From

_MAP = [(2, 8, 12, 12)]
_BASIC, _BOTTLE, _DARK, _EDGE, _SELF, _REP, _ONE = (f"models.byobnet.{name}" for name in (
    "BasicBlock", "BottleneckBlock", "DarkBlock", "EdgeBlock", "SelfAttnBlock", "RepVggBlock", "MobileOneBlock"))
_FN, _SHORTCUT, _STEM = (f"models.byobnet.{name}" for name in ("LayerFn", "create_shortcut", "Stem"))
_LAYERS = dict(layers=From(_FN, act=nn.SiLU, attn=From("layers.SEModule", rd_ratio=0.5),
                           conv_norm_act=From("layers.ConvNormAct", act_layer="silu")).made)
_HALO = dict(layers=From(_FN, self_attn=From("layers.halo_attn.HaloAttn", block_size=4, halo_size=1, dim_head=8)).made)
_SQUARES = From("layers.DropBlock2d", drop_prob=0.1)
_DROPS = dict(drop_block=_SQUARES, drop_path_rate=0.1)
_BOTTLE_CFG, _REP_CFG = (From("models.byobnet.ByoBlockCfg", kind, d, 8).made for kind, d in (("bottle", 2), ("rep", 1)))

CASES = [
    *(Case(path, (8, 16), dict(stride=2), _MAP) for path in (_BASIC, _BOTTLE, _DARK, _EDGE, _REP, _ONE)),
    Case(_BASIC, (8, 16, 3, 2, (1, 1), 4, 0.5), dict(_DROPS, **_LAYERS), _MAP),
    *(Case(path, (8, 16, 5, 1, (1, 2), 0.5, 4, "conv1x1", True, True), _LAYERS, _MAP)
      for path in (_BOTTLE, _DARK, _EDGE)),
    *(Case(path, (8, 8), dict(_LAYERS, attn_last=False, downsample="", linear_out=True, **_DROPS), _MAP)
      for path in (_BASIC, _BOTTLE, _DARK, _EDGE)),
    Case(_BOTTLE, (8, 16), dict(extra_conv=True, bottle_in=True, bottle_ratio=2.0, downsample=""), _MAP),
    Case(_SELF, (8, 16), dict(_HALO, bottle_ratio=2.0, stride=2), _MAP),
    Case(_SELF, (8, 8), dict(_HALO, bottle_ratio=1.0, bottle_in=True, post_attn_na=False, linear_out=True), _MAP),
    Case(_SELF, (8, 16), dict(_HALO, extra_conv=True, group_size=4, feat_size=None, **_DROPS), _MAP),
    Case(_REP, (8, 8), dict(_LAYERS, group_size=4, **_DROPS), _MAP),
    Case(_ONE, (8, 8, 5), dict(_LAYERS, group_size=1, num_conv_branches=2, drop_path_rate=0.1), _MAP),
    Case(_ONE, (8, 16, 1), dict(inference_mode=True), _MAP),
    Case("models.byobnet.DownsampleAvg", (8, 16), {}, _MAP),
    Case("models.byobnet.DownsampleAvg", (8, 16, 2, 1, True), _LAYERS, _MAP),
    Case("models.byobnet.DownsampleAvg", (8, 16, 1, 2), {}, _MAP),
    *(Case(_SHORTCUT, (kind, 8, 16, 2, (1, 1)), dict(_LAYERS, apply_act=False), _MAP) for kind in ("avg", "conv1x1")),
    Case(_SHORTCUT, ("avg", 8, 8, 1, (2, 2)), _LAYERS, _MAP),
    Case(_SHORTCUT, ("", 8, 16, 2, (1, 1)), _LAYERS),
    Case("models.byobnet.create_block", ("bottle",), dict(in_chs=8, out_chs=16), _MAP),
    Case(_STEM, (3, 16), {}, [(2, 3, 16, 16)]),
    Case(_STEM, (3, (8, 12, 16)), dict(pool=""), [(2, 3, 16, 16)]),
    Case(_STEM, (3, 16, 5, 4, "avg2", 4, 2), _LAYERS, [(2, 3, 16, 16)]),
    Case(_STEM, (3, 16, 3, 2, "", 2), dict(chs_decay=1.0), [(2, 3, 16, 16)]),
    *(Case("models.byobnet.create_byob_stem", (3, 16, kind, pool)) for kind, pool in (
        ("", ""), ("7x7", "maxpool"), ("deep", ""), ("tiered", "avg"), ("quad", ""), ("quad2", "max2"), ("rep", ""),
        ("one", ""))),
    Case("models.byobnet.create_byob_stem", (3, (8, 16)), dict(pool_type="", feat_prefix="a")),
    Case("models.byobnet.drop_blocks", (0.1, 5, 3)),
    Case("models.byobnet.drop_blocks"),
    Case("models.byobnet.expand_blocks_cfg", ((_BOTTLE_CFG, _REP_CFG),)),
    Case("models.byobnet.expand_blocks_cfg", (_BOTTLE_CFG,)),
    Case("models.byobnet.interleave_blocks", (("bottle", "self_attn"), 5, 2, True), dict(c=8)),
    Case("models.byobnet.reduce_feat_size", ((17, 12), 4)),
    Case("models.byobnet.reduce_feat_size", (None,)),
]
