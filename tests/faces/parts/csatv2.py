from .case import Case

_MAP = [(2, 32, 9, 8)]

CASES = [
    Case("models.csatv2.Dct1d", (8,), {}, [(2, 8)]),
    Case("models.csatv2.Dct2d", (8, 3, False), {}, [(2, 8, 8)]),
    Case("models.csatv2.LearnableDct2d", (8,), dict(out_chs=16), [(2, 3, 16, 24)]),
    Case("models.csatv2.Block", (32,), dict(ls_init_value=0.1, drop_path=0.1), _MAP),
    Case("models.csatv2.SpatialTransformerBlock", (), {}, [(2, 1, 7, 7)]),
    Case("models.csatv2.SpatialAttention", (), {}, _MAP),
    Case("models.csatv2.TransformerBlock", (32, 16, 2, 8), dict(downsample=True, ls_init_value=0.1), _MAP),
]
