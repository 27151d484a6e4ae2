"""Swin, ConViT, CoaT, VGG, and the stem of hybrid vision transformers."""

import torch
from torch import nn

from .case import Case, From

_SWIN, _V2, _CONVIT, _COAT = (
    f"models.{name}." for name in ("swin_transformer", "swin_transformer_v2", "convit", "coat"))
_SIZE = (5, 3)
_CRPE = From(_COAT + "ConvRelPosEnc", 2, 8, {3: 2, 5: 3, 7: 3}).made
_CPE = From(_COAT + "ConvPosEnc", 16).made
_SIZES = [(8, 8), (4, 4), (2, 2), (1, 1)]


def _sized():
    return torch.randn(2, 16, 16), _SIZE


def _heads():
    return torch.randn(2, 8, 16, 2), torch.randn(2, 8, 16, 2), _SIZE


def _scales():
    return *(torch.randn(2, 1 + h * w, 16) for h, w in _SIZES), _SIZES


CASES = [
    Case(_SWIN + "resolve_stage_window_sizes", (7, 3)),
    Case(_SWIN + "resolve_stage_window_sizes", ((7, 5), 3)),
    Case(_SWIN + "resolve_stage_window_sizes", ((7, (7, 5), 4), 3)),
    Case(_SWIN + "resolve_stage_window_ratios", (8, 3)),
    Case(_SWIN + "resolve_stage_window_ratios", ((8, 4, 2), 3)),
    Case(_SWIN + "resolve_window_args", (7, 8, 2)),
    Case(_SWIN + "resolve_window_args", (None, 8, 2)),
    Case(_SWIN + "resolve_window_args", (None, None, 2)),
    Case(_SWIN + "window_sizes_from_ratio", ((56, 28), (8, 64), 2)),
    Case(_SWIN + "calc_stage_window_sizes", ((56, 28), ((7, 7), (14, 7)), (28, 28))),
    Case(_SWIN + "calc_stage_window_sizes", ((56, 28), ((7, 7), (14, 7)), (28, 28), 5)),
    Case(_SWIN + "calc_stage_window_sizes", ((56, 28), ((7, 7), (14, 7)), (28, 28), None, 8)),
    Case(_V2 + "SwinTransformerV2Stage", (16, 16, (8, 8), 2, 2, 4), {}, [(2, 8, 8, 16)]),
    Case(_V2 + "SwinTransformerV2Stage", (16, 32, (8, 8), 2, 4, (4, 2)), dict(
        downsample=True, act_layer="relu", drop_path=[0.0, 0.1], pretrained_window_size=6), [(2, 8, 8, 16)]),
    Case(_CONVIT + "GPSA", (16,), {}, [(2, 9, 16)]),
    Case(_CONVIT + "GPSA", (16, 4, True, 0.1, 0.1, 2.0), {}, [(2, 9, 16)]),
    Case(_CONVIT + "MHSA", (16,), {}, [(2, 7, 16)]),
    Case(_CONVIT + "MHSA", (16, 4, True), {}, [(2, 7, 16)]),
    Case(_CONVIT + "Block", (16, 4), {}, [(2, 9, 16)]),
    Case(_CONVIT + "Block", (16, 4, 2, True), dict(use_gpsa=False, act_layer=nn.ReLU, drop_path=0.1), [(2, 9, 16)]),
    Case("models.ConVit", (), dict(
        img_size=32, embed_dim=4, depth=2, num_heads=4, local_up_to_layer=1, num_classes=5,
        hybrid_backbone=From("models.vision_transformer_hybrid.ConvStem").made), [(2, 3, 32, 32)],
         other_defaults="norm_layer"),
    Case(_COAT + "insert_cls", (torch.ones(2, 3, 4), torch.zeros(1, 1, 4))),
    Case(_COAT + "remove_cls", (torch.arange(24.0).view(2, 3, 4),)),
    Case(_COAT + "ConvPosEnc", (16,), {}, _sized),
    Case(_COAT + "ConvPosEnc", (16, 5), {}, _sized),
    Case(_COAT + "ConvRelPosEnc", (2, 8, 3), {}, _heads),
    Case(_COAT + "ConvRelPosEnc", (2, 8, {3: 2, 5: 3, 7: 3}), {}, _heads),
    Case(_COAT + "FactorAttnConvRelPosEnc", (16,), dict(shared_crpe=_CRPE), _sized),
    Case(_COAT + "SerialBlock", (16, 8, 2, True), dict(
        shared_cpe=_CPE, shared_crpe=_CRPE, act_layer=nn.ReLU, drop_path=0.1), _sized),
    Case(_COAT + "ParallelBlock", ((8, 16, 16, 16), 8, (4, 2, 2, 2)), dict(shared_crpes=[_CRPE] * 4), _scales),
    Case("models.vgg.ConvMlp", (8, 12, 3, 2.0, 0.1), {}, [(2, 8, 5, 4)]),
    Case("models.vgg.ConvMlp", (8, 12), dict(act_layer=nn.SiLU), [(2, 8, 5, 4)]),
    Case("models.vision_transformer_hybrid.ConvStem", (), {}, [(2, 3, 32, 32)]),
    Case("models.vision_transformer_hybrid.ConvStem", (4, 2, (8, 12), (4, 3), (4, 1), (0, "same")),
         dict(act_layer=nn.GELU), [(2, 4, 32, 32)]),
]
