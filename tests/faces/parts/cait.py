"""CaiT and XCiT."""

import torch
from torch import nn

from .case import Case, From

_CAIT, _XCIT = "models.cait.", "models.xcit."
_ATTN = dict(num_heads=4, qkv_bias=True)
_EMBED = _XCIT + "ConvPatchEmbed"


def _tokens(count, dim):
    return torch.randn(2, count, dim)


CASES = [
    Case(_CAIT + "ClassAttn", (16,), {}, [(2, 7, 16)]),
    Case(_CAIT + "ClassAttn", (16, 4, True), {}, [(2, 7, 16)]),
    Case(_CAIT + "TalkingHeadAttn", (16, 4, True), {}, [(2, 7, 16)]),
    Case(_CAIT + "LayerScaleBlock", (16, 4), {}, [(2, 7, 16)]),
    Case(_CAIT + "LayerScaleBlock", (16,), dict(
        _ATTN, mlp_ratio=2, norm_layer=From("layers.RmsNorm"), act_layer=nn.SiLU, init_values=0.1,
        attn_block=From("layers.Attention", qk_norm=True, norm_layer=nn.LayerNorm), mlp_block=From("layers.GluMlp")),
         [(2, 7, 16)]),
    Case(_CAIT + "LayerScaleBlockClassAttn", (16, 4), {}, [(2, 7, 16), (2, 1, 16)]),
    Case("models.Cait", (), dict(
        img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=4, depth_token_only=1, num_classes=5,
        block_layers=From(_CAIT + "LayerScaleBlock", drop_path=0.1), patch_layer=From("layers.PatchEmbed", bias=False),
        block_layers_token=From(_CAIT + "LayerScaleBlockClassAttn"), mlp_block=From("layers.GluMlp"),
        attn_block=From("layers.Attention"), mlp_block_token_only=From("layers.SwiGLU"),
        attn_block_token_only=From(_CAIT + "ClassAttn")), [(2, 3, 32, 32)], other_defaults="act_layer norm_layer"),
    Case(_XCIT + "PositionalEncodingFourier", (), {}, lambda: (2, 5, 3)),
    Case(_XCIT + "PositionalEncodingFourier", (8, 12, 100.0), {}, lambda: (2, 5, 3)),
    Case(_XCIT + "conv3x3", (3, 8, 2), {}, [(2, 3, 9, 9)]),
    Case(_EMBED, (64, 16, 3, 32), {}, [(2, 3, 64, 32)]),
    Case(_EMBED, (), dict(patch_size=8, embed_dim=16, act_layer=nn.ReLU), [(2, 3, 32, 32)]),
    Case(_XCIT + "LPI", (16,), {}, lambda: (_tokens(15, 16), 5, 3)),
    Case(_XCIT + "LPI", (16, None, nn.ReLU, 5), {}, lambda: (_tokens(15, 16), 5, 3)),
    Case(_XCIT + "XCA", (16,), {}, [(2, 7, 16)]),
    Case(_XCIT + "XCA", (16, 4, True), {}, [(2, 7, 16)]),
    Case(_XCIT + "XCABlock", (16, 4), {}, lambda: (_tokens(15, 16), 5, 3)),
    Case(_XCIT + "XCABlock", (16, 4, 2, True, 0.1, 0.1, 0.1, nn.ReLU, nn.LayerNorm, 1e-3), {},
         lambda: (_tokens(15, 16), 5, 3)),
    Case(_XCIT + "ClassAttentionBlock", (16, 4), {}, [(2, 7, 16)]),
    Case(_XCIT + "ClassAttentionBlock", (16, 4), dict(eta=None, tokens_norm=True, drop_path=0.1), [(2, 7, 16)]),
]
