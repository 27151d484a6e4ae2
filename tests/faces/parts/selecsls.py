import torch

from .case import Case, From

_MAPS = [torch.arange(24.0).view(2, 3, 4), torch.ones(2, 1, 4)]

CASES = [
    Case("models.selecsls.conv_bn", (8, 12), {}, [(2, 8, 9, 8)]),
    Case("models.selecsls.conv_bn", (8, 12, 5, 2), dict(dilation=2), [(2, 8, 9, 8)]),
    Case("models.selecsls.conv_bn", (8, 12, 3), dict(padding=0), [(2, 8, 9, 8)]),
    Case("models.selecsls.SelecSlsBlock", (8, 0, 12, 16, True, 2), {}, [(2, 8, 9, 8)]),
    Case("models.selecsls.SelecSlsBlock", (8, 6, 12, 16, False, 1, 2), {},
         lambda: ([torch.randn(2, 8, 9, 8), torch.randn(2, 6, 9, 8)],)),
    Case("models.selecsls.SequentialList", (
        From("models.selecsls.SelecSlsBlock", 8, 0, 8, 16, True, 2).made,
        From("models.selecsls.SelecSlsBlock", 16, 16, 8, 12, False, 1).made), {}, [(2, 8, 9, 8)]),
    *(Case("models.selecsls.SelectSeq", args, {}, lambda: (_MAPS,)) for args in ((), ("index", 1), ("cat",))),
]
