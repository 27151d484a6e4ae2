from .case import Case

_MOBILEVIT, _MAP = "models.mobilevit.", [(2, 16, 10, 7)]
_FEW = dict(transformer_dim=32, transformer_depth=1, patch_size=2)

CASES = [
    Case(_MOBILEVIT + "MobileVitBlock", (16,), _FEW, _MAP),
    Case(_MOBILEVIT + "MobileVitBlock", (16, 24, 5), dict(_FEW, no_fusion=True, num_heads=2, patch_size=(2, 4)), _MAP),
    Case(_MOBILEVIT + "MobileVitBlock", (16,), dict(
        transformer_depth=1, bottle_ratio=0.5, group_size=1, stride=2, no_fusion=True), _MAP),
    Case(_MOBILEVIT + "MobileVitV2Block", (16,), _FEW, _MAP),
    Case(_MOBILEVIT + "MobileVitV2Block", (16, 24, 5), dict(_FEW, patch_size=(2, 4), group_size=None), _MAP),
    Case(_MOBILEVIT + "LinearTransformerBlock", (16,), {}, [(2, 16, 4, 9)]),
    Case(_MOBILEVIT + "LinearSelfAttention", (16,), dict(bias=False), [(2, 16, 4, 9)]),
]
