"""LeViT."""

from torch import nn

from .case import Case, From

_LEVIT = "models.levit."
_ON_MAP, _TOKENS, _MAP = dict(resolution=(5, 3), use_conv=True), [(2, 15, 16)], [(2, 16, 5, 3)]

CASES = [
    Case(_LEVIT + "ConvNorm", (8, 12, 3, 2, 1, 1, 4, 0.5), {}, [(2, 8, 9, 9)]),
    Case(_LEVIT + "ConvNorm", (8, 12), {}, [(2, 8, 9, 9)]),
    Case(_LEVIT + "LinearNorm", (16, 12, 0), {}, _TOKENS),
    Case(_LEVIT + "NormLinear", (60, 70), {}, [(4, 60)]),
    Case(_LEVIT + "NormLinear", (60, 70, False, 0.1, 0.2), {}, [(4, 60)]),
    Case(_LEVIT + "Stem8", (3, 16, nn.SiLU), {}, [(2, 3, 32, 32)]),
    Case(_LEVIT + "Stem16", (3, 16, nn.ReLU), {}, [(2, 3, 32, 32)]),
    Case(_LEVIT + "Downsample", (2, (5, 3)), {}, _TOKENS),
    Case(_LEVIT + "Downsample", (2, (5, 3), True), {}, _TOKENS),
    Case(_LEVIT + "Attention", (16, 4), dict(resolution=(5, 3)), _TOKENS),
    Case(_LEVIT + "Attention", (16, 4, 2, 2.0), dict(_ON_MAP, act_layer=nn.ReLU), _MAP),
    Case(_LEVIT + "AttentionDownsample", (16, 24, 4), dict(resolution=(5, 3), use_pool=True), _TOKENS),
    Case(_LEVIT + "AttentionDownsample", (16, 24, 4, 2, 3.0), _ON_MAP, _MAP),
    Case(_LEVIT + "AttentionDownsample", (16, 24, 4), dict(_ON_MAP, use_pool=True, stride=3), _MAP),
    Case(_LEVIT + "LevitMlp", (16,), {}, _TOKENS),
    Case(_LEVIT + "LevitMlp", (16, 32, 8, True, nn.ReLU, 0.1), {}, _MAP),
    Case(_LEVIT + "LevitDownsample", (16, 24, 4), dict(resolution=(5, 3)), _TOKENS),
    Case(_LEVIT + "LevitDownsample", (16, 24, 4), dict(_ON_MAP, use_pool=True, attn_act_layer=nn.ReLU), _MAP),
    Case(_LEVIT + "LevitBlock", (16, 4), dict(resolution=(5, 3), drop_path=0.1), _TOKENS),
    Case(_LEVIT + "LevitBlock", (16, 4, 2, 2.0, 3.0), dict(_ON_MAP, attn_act_layer=nn.ReLU), _MAP),
    Case(_LEVIT + "LevitStage", (16, 24, 4, 2, 2), dict(resolution=(5, 3), downsample="subsample"), _TOKENS),
    Case(_LEVIT + "LevitStage", (16, 16, 4, 1), _ON_MAP, _MAP),
    Case("models.Levit", (), dict(
        img_size=32, embed_dim=(16, 24), key_dim=4, depth=(1, 1), num_heads=2, num_classes=7, stem_stride=8,
        stem_backbone=From(_LEVIT + "Stem8", 3, 16, nn.SiLU).made), [(2, 3, 32, 32)], other_defaults="num_heads"),
]
