"""VOLO."""

from torch import nn

from .case import Case, From

_VOLO, _MAP = "models.volo.", [(2, 9, 6, 16)]

CASES = [
    Case(_VOLO + "OutlookAttention", (16, 4), {}, _MAP),
    Case(_VOLO + "OutlookAttention", (16, 4, 5, 2, 2, True), {}, _MAP),
    Case(_VOLO + "Outlooker", (16, 3, 1), {}, _MAP),
    Case(_VOLO + "Outlooker", (16, 3, 1, 2, 4, 2, 0.1, 0.1, nn.SiLU, nn.RMSNorm, True), {}, _MAP),
    Case(_VOLO + "Attention", (16,), {}, _MAP),
    Case(_VOLO + "Attention", (16, 4, True), {}, _MAP),
    Case(_VOLO + "Transformer", (16, 4), {}, _MAP),
    Case(_VOLO + "Transformer", (16, 4, 2, True, 0.1, 0.1, nn.SiLU, nn.RMSNorm), {}, _MAP),
    Case(_VOLO + "ClassAttention", (16,), {}, [(2, 7, 16)]),
    Case(_VOLO + "ClassAttention", (16, 4, 3, True), {}, [(2, 7, 16)]),
    Case(_VOLO + "ClassBlock", (16, 4), {}, [(2, 7, 16)]),
    Case(_VOLO + "get_block", ("ca",), dict(dim=16, num_heads=4, head_dim=3, mlp_ratio=2, qkv_bias=True), [(2, 7, 16)]),
    Case(_VOLO + "PatchEmbed", (32,), dict(hidden_dim=3, embed_dim=8), [(2, 3, 32, 32)]),
    Case(_VOLO + "PatchEmbed", (32, True, 2, 4, 3, 8, 12), {}, [(2, 3, 32, 32)]),
    Case(_VOLO + "Downsample", (16, 24), {}, _MAP),
    Case(_VOLO + "outlooker_blocks", (From(_VOLO + "Outlooker"), 1, 16, [1, 2, 1], 4), dict(drop_path_rate=0.2), _MAP),
    Case(_VOLO + "transformer_blocks", (From(_VOLO + "Transformer"), 1, 16, [1, 2, 1], 4), dict(drop_path_rate=0.2),
         _MAP),
]
