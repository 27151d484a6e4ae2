"""BEiT's parts."""

import torch

from .case import Case


def _tokens_and_bias():
    return torch.randn(2, 17, 32), torch.randn(4, 17, 17)


CASES = [
    Case("models.beit.Attention", (32, 4), dict(qkv_bias=True, window_size=(4, 4)), _tokens_and_bias),
    Case("models.beit.Attention", (32, 4), dict(qkv_bias=True, qkv_bias_separate=True), [(2, 5, 32)]),
    Case("models.beit.Block", (32, 4), dict(qkv_bias=True, init_values=0.1, window_size=(4, 4)), _tokens_and_bias),
    Case("models.beit.Block", (32, 4), dict(swiglu_mlp=True, scale_mlp=True), [(2, 5, 32)]),
    Case("models.beit.RelativePositionBias", ((3, 5), 4), inputs=tuple),
    Case("models.beit.gen_relative_position_index", ((3, 5),)),
]
