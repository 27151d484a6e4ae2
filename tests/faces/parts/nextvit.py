from .case import Case

_MAP = [(2, 32, 9, 8)]

CASES = [
    Case("models.nextvit.ConvNormAct", (32, 16), dict(stride=2, groups=4), _MAP),
    Case("models.nextvit.PatchEmbed", (32, 16), dict(stride=2), _MAP),
    Case("models.nextvit.ConvAttention", (32, 8), {}, _MAP),
    Case("models.nextvit.NextConvBlock", (32, 64), dict(stride=2), _MAP),
    Case("models.nextvit.EfficientAttention", (32,), dict(head_dim=8, sr_ratio=2, out_dim=16), [(2, 12, 32)]),
    Case("models.nextvit.NextTransformerBlock", (32, 128, 0.1), dict(stride=2, sr_ratio=2), [(2, 32, 8, 8)]),
]
