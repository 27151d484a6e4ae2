from .case import Case

_TOKENS = [(2, 10, 32)]

CASES = [
    Case("models.crossvit.PatchEmbed", (24, 12, 3, 16, True), {}, [(2, 3, 24, 24)]),
    Case("models.crossvit.PatchEmbed", ((16, 32), 8), {}, [(2, 3, 16, 32)]),
    Case("models.crossvit.CrossAttention", (32, 4), dict(qkv_bias=True), _TOKENS),
    Case("models.crossvit.CrossAttentionBlock", (32, 4), dict(drop_path=0.1), _TOKENS),
]
