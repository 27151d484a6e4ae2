"""The blocks of transformers in stages: NesT, PiT, TNT, Twins, Visformer."""

import torch
from torch import nn

from .case import Case

_TWINS, _VIS, _NEST = "models.twins", "models.visformer", "models.nest"
_MAP = [(2, 8, 6, 6)]


def _tokens(height, width, chs=8):
    return lambda: (torch.randn(2, height * width, chs), (height, width))


def _positions(blocks, size):
    return torch.linspace(-1, 1, blocks * size * 4).view(1, blocks, size, 4)


CASES = [
    Case(f"{_TWINS}.LocallyGroupedAttn", (8, 2), dict(ws=3), _tokens(7, 5)),
    Case(f"{_TWINS}.GlobalSubSampleAttn", (8,), {}, _tokens(4, 6)),
    Case(f"{_TWINS}.GlobalSubSampleAttn", (8, 2), dict(sr_ratio=2), _tokens(4, 6)),
    Case(f"{_TWINS}.Block", (8, 2, 2.0), dict(ws=1, sr_ratio=2, act_layer=nn.ReLU), _tokens(4, 6)),
    Case(f"{_TWINS}.Block", (8, 4), dict(ws=2, drop_path=0.1), _tokens(5, 6)),
    Case(f"{_TWINS}.PosConv", (8, 8), {}, _tokens(4, 6)),
    Case(f"{_TWINS}.PosConv", (8, 8, 2), {}, _tokens(4, 6)),
    Case(f"{_TWINS}.PatchEmbed", (32, 4, 2, 8), {}, [(2, 2, 32, 24)]),
    Case(f"{_VIS}.SpatialMlp", (8,), dict(drop=(0.1, 0.2)), _MAP),
    Case(f"{_VIS}.SpatialMlp", (8, 16, 12, nn.ReLU), dict(group=4, spatial_conv=True), _MAP),
    Case(f"{_VIS}.SpatialMlp", (12,), dict(group=1, spatial_conv=True), [(2, 12, 6, 6)]),
    Case(f"{_VIS}.Attention", (8,), {}, _MAP),
    Case(f"{_VIS}.Attention", (8, 2, 0.5), {}, _MAP),
    Case(f"{_VIS}.Block", (8, 2), {}, _MAP),
    Case(f"{_VIS}.Block", (8, 2, 0.5, 2.0), dict(
        norm_layer=nn.BatchNorm2d, act_layer=nn.ReLU, group=2, attn_disabled=True, spatial_conv=True), _MAP),
    Case(f"{_NEST}.Attention", (8,), dict(qkv_bias=True), [(2, 4, 9, 8)]),
    Case(f"{_NEST}.TransformerLayer", (8, 2, 2.0), dict(drop_path=0.1), [(2, 4, 9, 8)]),
    Case(f"{_NEST}.ConvPool", (8, 12, nn.LayerNorm), {}, _MAP),
    Case(f"{_NEST}.ConvPool", (8, 12, nn.LayerNorm, "same"), {}, _MAP),
    Case(f"{_NEST}.blockify", (torch.arange(96.0).view(1, 6, 8, 2), 2)),
    Case(f"{_NEST}.deblockify", (torch.arange(144.0).view(2, 4, 9, 2), 3)),
    Case(f"{_NEST}.resize_pos_embed", (_positions(4, 9), torch.empty(1, 16, 4, 4))),
    Case("models.pit.ConvEmbedding", (3, 8, 32, 8, 4), {}, [(2, 3, 32, 32)]),
    Case("models.pit.ConvEmbedding", (3, 8), dict(patch_size=7, stride=3, padding=2), [(2, 3, 20, 20)]),
    Case("models.tnt.Attention", (8, 16, 4), dict(qkv_bias=True), [(2, 5, 8)]),
    Case("models.tnt.Attention", (8, 8), {}, [(2, 5, 8)]),
    *(Case("models.tnt.PixelEmbed", (32, 8, 3, 6), dict(stride=2, legacy=legacy), [(2, 3, 32, 32), (1, 6, 4, 4)])
      for legacy in (False, True)),
]
