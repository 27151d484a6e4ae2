"""The blocks of the Inception networks, of Xception and of the searched cells."""

from torch import nn

from .case import Case, From

_CONV = dict(conv_block=From("layers.ConvNormAct", padding=0, norm_kwargs=dict(eps=1e-3)))
_V3, _V4, _RESNET, _ALIGNED = (f"models.{name}" for name in (
    "inception_v3", "inception_v4", "inception_resnet_v2", "xception_aligned"))
_PADS = dict(pad_type="same")
_X = [(2, 8, 9, 9)]


def _map(chs, side=9):
    return [(2, chs, side, side)]


CASES = [
    Case(f"{_V3}.InceptionA", (8, 6), {}, _X),
    Case(f"{_V3}.InceptionA", (8, 6), _CONV, _X),
    Case(f"{_V3}.InceptionB", (8,), _CONV, _X),
    Case(f"{_V3}.InceptionC", (8, 12), {}, _X),
    Case(f"{_V3}.InceptionD", (8,), _CONV, _X),
    Case(f"{_V3}.InceptionE", (8,), {}, _X),
    Case(f"{_V3}.InceptionAux", (8, 5), {}, _map(8, 17)),
    Case(f"{_V3}.InceptionAux", (8, 5), _CONV, _map(8, 17), init=False),
    Case(f"{_V4}.Mixed3a", (), _CONV, _map(64)),
    Case(f"{_V4}.Mixed4a", (), {}, _map(160)),
    Case(f"{_V4}.Mixed4a", (), _CONV, _map(160)),
    Case(f"{_V4}.Mixed5a", (), _CONV, _map(192)),
    Case(f"{_V4}.InceptionA", (), {}, _map(384, 5)),
    Case(f"{_V4}.ReductionA", (), _CONV, _map(384, 5)),
    Case(f"{_V4}.InceptionB", (), _CONV, _map(1024, 5)),
    Case(f"{_V4}.ReductionB", (), _CONV, _map(1024, 5)),
    Case(f"{_V4}.InceptionC", (), {}, _map(1536, 5)),
    Case(f"{_RESNET}.Mixed_5b", (), {}, _map(192, 5)),
    Case(f"{_RESNET}.Block35", (0.17,), _CONV, _map(320, 5)),
    Case(f"{_RESNET}.Mixed_6a", (), _CONV, _map(320, 5)),
    Case(f"{_RESNET}.Block17", (), {}, _map(1088, 5)),
    Case(f"{_RESNET}.Mixed_7a", (), _CONV, _map(1088, 5)),
    Case(f"{_RESNET}.Block8", (0.2,), {}, _map(2080, 5)),
    Case(f"{_RESNET}.Block8", (), dict(_CONV, no_relu=True), _map(2080, 5)),
    Case("models.xception.SeparableConv2d", (8, 12), {}, _X),
    Case("models.xception.SeparableConv2d", (8, 12, 3, 2, 2, 2), {}, _X),
    Case("models.xception.Block", (8, 12, 2, 2, False), {}, _X),
    Case("models.xception.Block", (8, 12, 3), dict(grow_first=False), _X),
    Case("models.xception.Block", (8, 8, 3), {}, _X),
    Case(f"{_ALIGNED}.SeparableConv2d", (8, 12), {}, _X),
    Case(f"{_ALIGNED}.SeparableConv2d", (8, 12, 5, 2, 1, "same", None), {}, _X),
    Case(f"{_ALIGNED}.PreSeparableConv2d", (8, 12), dict(act_layer=nn.SiLU), _X),
    Case(f"{_ALIGNED}.PreSeparableConv2d", (8, 12, 5, 2, 1, "same"), dict(first_act=False), _X),
    Case(f"{_ALIGNED}.XceptionModule", (8, (8, 12, 16)), dict(stride=2, norm_layer=nn.BatchNorm2d, **_PADS), _X),
    Case(f"{_ALIGNED}.XceptionModule", (8, 8, 1, 2), dict(
        start_with_relu=False, norm_layer=nn.BatchNorm2d, drop_path=From("layers.DropPath", 0.1).made), _X),
    Case(f"{_ALIGNED}.XceptionModule", (8, 12), dict(no_skip=True, norm_layer=nn.BatchNorm2d), _X),
    Case(f"{_ALIGNED}.PreXceptionModule", (8, 12, 2), dict(norm_layer=nn.BatchNorm2d, **_PADS), _X),
    Case(f"{_ALIGNED}.PreXceptionModule", (8, 8), dict(no_skip=True, norm_layer=nn.BatchNorm2d), _X),
    *(Case(f"models.{family}.{name}", args, {pad: "same"}, _X) for family, pads in (
        ("nasnet", "pad_type"), ("pnasnet", "padding")) for name, args, pad in (
        ("ActConvBn", (8, 12, 1), "padding"), ("SeparableConv2d", (8, 12, 5, 2), "padding"),
        ("BranchSeparables", (8, 12, 5, 2), pads))),
    Case("models.nasnet.ActConvBn", (8, 12, 3, 2), {}, _X),
    Case("models.nasnet.BranchSeparables", (8, 12, 7), dict(stem_cell=True), _X),
    Case("models.pnasnet.BranchSeparables", (8, 12, 3, 1, True), {}, _X),
    Case("models.pnasnet.FactorizedReduction", (8, 12), {}, _map(8, 10)),
]
