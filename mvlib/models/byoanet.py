"""Bring your own attention: ResNets in which self-attention stands for some of the 3x3 convolutions.

Bottleneck transformers "botnet" (Srinivas et al., "Bottleneck Transformers for Visual Recognition", 2021,
https://arxiv.org/abs/2101.11605) attend to the whole map, and are made for images of one size. "halonet" (Vaswani et
al., "Scaling Local Self-Attention for Parameter Efficient Visual Backbones", 2021, https://arxiv.org/abs/2103.12731)
attends within blocks and a halo around them, which divide the maps. "lambda" (Bello, "LambdaNetworks: Modeling
Long-Range Interactions Without Attention", 2021, https://arxiv.org/abs/2102.08602) has linear maps in place of
attention. All but HaloNet-H1, which is the paper's, are timm's own: stems of three 3x3 convolutions ("t"), SiLU ("s"),
channel attention in the other blocks ("se", "eca"), and "rpt" with a table of relative positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..registry import register_model
from .byobnet import ByoBlockCfg, ByobNet, Stage, interleave_blocks

if TYPE_CHECKING:
    from ._variants.byoanet import *

_ALL = range(99)


def _stages(
    depths: Sequence[int], attn: Sequence[Sequence[int]], c: Sequence[int] = (256, 512, 1024, 2048),
    s: Sequence[int] = (1, 2, 2, 2), gs: int = 0, br: Sequence[float] = (0.25, 0.25, 0.25, 0.25),
    own: Sequence[dict[str, Any]] = ({}, {}, {}, {}),
) -> dict[str, Any]:
    """`blocks`: a stage each, where `attn` says which blocks have self-attention and `own` what else is the stage's."""
    return dict(blocks=tuple(
        _stage(depth, places, c=chs, s=stride, gs=gs, br=ratio, **options)
        for depth, places, chs, stride, ratio, options in zip(depths, attn, c, s, br, own)))


def _stage(depth: int, places: Sequence[int], **options: Any) -> Stage:
    if not places or places is _ALL:
        return ByoBlockCfg("self_attn" if places else "bottle", depth, **options)
    return interleave_blocks(("bottle", "self_attn"), depth, places, **options)


def _own(layer: str, **kwargs: Any) -> dict[str, Any]:
    return dict(self_attn_layer=layer, self_attn_kwargs=kwargs)


_26, _33 = (2, 2, 2, 2), (2, 3, 3, 2)
_LATE = ((), (), (1,), _ALL)
_R26, _X26 = _stages(_26, _LATE), _stages(_26, _LATE, gs=16)
_R33 = dict(_stages(_33, ((), (2,), (2,), _ALL), (256, 512, 1024, 1536), br=(0.25, 0.25, 0.25, 0.333)),
            stem_pool="", num_features=1280, attn_layer="se")
_50, _FEW, _MORE = (3, 4, 6, 3), ((), (3,), (1, 3, 5), (1,)), ((), (1, 3), (1, 3, 5), (1,))
_R50 = _stages(_50, _FEW)
_HALO50 = _stages(_50, _FEW, own=({}, _own("halo", block_size=8, halo_size=3, num_heads=4), {}, {}))
_LAMHALOBOT, _HALO2BOT = (
    _stages(_50, _MORE, own=({}, first, _own("halo", halo_size=3), _own("bottleneck")))
    for first in (_own("lambda", r=13), _own("halo", halo_size=3)))
_H1 = _stages((3, 3, 10, 3), (_ALL,) * 4, (64, 128, 256, 512), br=(1.0,) * 4)
_Z = _stages((2, 6, 12, 2), ((), (), (3, 7, 11), _ALL), (48, 96, 192, 288), (2, 2, 2, 2), 16, (3, 3, 3, 3))

_T = dict(stem_chs=64, stem_type="tiered")
_TS = dict(_T, act_layer="silu")
_256 = dict(img_size=256)
_BOT, _BOT16 = (dict(_own("bottleneck", **kwargs), **_256, fixed_input_size=True) for kwargs in ({}, dict(dim_head=16)))
_HALO2, _HALO3 = (_own("halo", block_size=8, halo_size=halo) for halo in (2, 3))

register_model.variants(__name__, ByobNet, {
    "botnet26t_256": (_R26, _T, _BOT),
    "sebotnet33ts_256": (_R33, _TS, _BOT, dict(fixed_input_size=False)),
    "botnet50ts_256": (_R50, _TS, _BOT),
    "eca_botnext26ts_256": (_X26, _TS, _BOT16, dict(attn_layer="eca")),
    "halonet_h1": (_H1, _HALO3, dict(stem_chs=64, stem_type="7x7")),
    "halonet26t": (_R26, _T, _HALO2),
    "sehalonet33ts": (_R33, _TS, _HALO3),
    "halonet50ts": (_HALO50, _TS, _HALO3),
    "eca_halonext26ts": (_X26, _TS, _own("halo", block_size=8, halo_size=2, dim_head=16), dict(attn_layer="eca")),
    "lambda_resnet26t": (_R26, _T, _own("lambda", r=9)),
    "lambda_resnet50ts": (_R50, _TS, _own("lambda", r=9)),
    "lambda_resnet26rpt_256": (_R26, _T, _own("lambda", r=None), _256),
    "haloregnetz_b": (_Z, _own("halo", block_size=7, halo_size=2, qk_ratio=0.33), dict(
        stem_pool="", downsample="", num_features=1536, act_layer="silu", attn_layer="se",
        attn_kwargs=dict(rd_ratio=0.25), block_kwargs=dict(bottle_in=True, linear_out=True))),
    "lamhalobotnet50ts_256": (_LAMHALOBOT, _TS, _256, dict(stem_pool="")),
    "halo2botnet50ts_256": (_HALO2BOT, _TS, _256, dict(stem_pool="")),
})
