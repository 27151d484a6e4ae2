"""TinyViT, and the EfficientViTs of MIT and Microsoft."""

from functools import partial

from torch import nn

from .case import Case, From

_TINY, _MIT, _MSRA = "models.tiny_vit.", "models.efficientvit_mit.", "models.efficientvit_msra."
_MAP, _CL = [(2, 8, 9, 9)], [(2, 9, 6, 8)]
_LAYERS = (partial(nn.BatchNorm2d, eps=0.1), nn.Hardswish)

CASES = [
    Case(_TINY + "ConvNorm", (8, 12, 3, 2, 1, 1, 4, 0.5), {}, _MAP),
    Case(_TINY + "PatchEmbed", (8, 16, nn.ReLU), {}, _MAP),
    Case(_TINY + "MBConv", (8, 8, 2.0, nn.ReLU, 0.1), {}, _MAP),
    Case(_TINY + "PatchMerging", (8, 12, nn.ReLU), {}, _MAP),
    Case(_TINY + "ConvLayer", (8, 2, nn.ReLU), dict(drop_path=[0.0, 0.1], conv_expand_ratio=2.0), _MAP),
    Case(_TINY + "ConvLayer", (8, 1, nn.ReLU, 0.2), {}, _MAP),
    Case(_TINY + "NormMlp", (8,), {}, [(2, 5, 8)]),
    Case(_TINY + "NormMlp", (8, 12, 6, From("layers.RmsNorm"), nn.ReLU, 0.1), {}, [(2, 5, 8)]),
    Case(_TINY + "Attention", (8, 4, 3, 2, (5, 3)), {}, [(2, 15, 8)]),
    Case(_TINY + "TinyVitBlock", (8, 2, 4), {}, _CL),
    Case(_TINY + "TinyVitBlock", (8, 2, 6, 2.0, 0.1, 0.1, 5, nn.ReLU), {}, [(2, 6, 6, 8)]),
    Case(_TINY + "TinyVitStage", (8, 12, 2, 3, 4), dict(downsample=From(_TINY + "PatchMerging"), drop_path=[0.0, 0.1]),
         _MAP),
    Case(_TINY + "TinyVitStage", (8, 8, 1, 2, 3), dict(drop_path=0.1), _MAP),
    Case(_MIT + "val2list", ([1, 2],)),
    Case(_MIT + "val2list", (None, 3)),
    Case(_MIT + "val2tuple", ((1, 2, 3), 5)),
    Case(_MIT + "val2tuple", ((1, 2, 3), 5, 1)),
    Case(_MIT + "val2tuple", ((1, 2), 1)),
    Case(_MIT + "val2tuple", ((), 2)),
    Case(_MIT + "get_same_padding", ((3, 5),)),
    Case(_MIT + "ConvNormAct", (8, 12), {}, _MAP),
    Case(_MIT + "ConvNormAct", (8, 12, 5, 2, 2, 4, True, 0.1, None, None), {}, _MAP),
    Case(_MIT + "DSConv", (8, 12, 5, 2, (True, False), (None, nn.BatchNorm2d), (nn.ReLU, nn.ReLU)), {}, _MAP),
    Case(_MIT + "ConvBlock", (8, 12, 3, 1, None, 2.0, True, nn.BatchNorm2d), {}, _MAP),
    Case(_MIT + "MBConv", (8, 12, 3, 2, None, 1.3), {}, _MAP),
    Case(_MIT + "MBConv", (8, 12, 3, 2, 20, 2, True, (None, nn.BatchNorm2d), (nn.ReLU, None)), {}, _MAP),
    Case(_MIT + "FusedMBConv", (8, 12, 3, 2, None, 2, 4), {}, _MAP),
    Case(_MIT + "LiteMLA", (16, 12), {}, [(2, 16, 5, 3)]),
    Case(_MIT + "LiteMLA", (16, 12, 3), dict(scales=(3, 5), use_bias=True, kernel_func=nn.ReLU6, eps=0.1),
         [(2, 16, 5, 3)]),
    Case(_MIT + "ResidualBlock", (nn.ReLU(), nn.Identity(), nn.Sigmoid()), {}, _MAP),
    Case(_MIT + "ResidualBlock", (nn.ReLU(),), {}, _MAP),
    Case(_MIT + "EfficientVitBlock", (16, 2.0, 8, 2, *_LAYERS), {}, [(2, 16, 5, 3)]),
    *(Case(_MIT + "build_local_block", (8, 12, 2, ratio, *_LAYERS, few, kind), {}, _MAP)
      for ratio in (1, 3) for few in (True, False) for kind in ("default", "large")),
    Case(_MIT + "Stem", (8, 12, 2, *_LAYERS, "large"), {}, _MAP),
    Case(_MIT + "EfficientVitStage", (8, 16, 2, *_LAYERS, 3, 8, True), {}, _MAP),
    Case(_MIT + "EfficientVitStage", (8, 16, 2, *_LAYERS, 3, 8), {}, _MAP),
    *(Case(_MIT + "EfficientVitLargeStage", (8, 16, 1, *_LAYERS, 8, *flags), {}, _MAP)
      for flags in ((True, True), (False, True), (False, False))),
    Case(_MIT + "ClassifierHead", (8, (12, 16), 5, 0.1, *_LAYERS), dict(pool_type="max", norm_eps=0.1), _MAP),
    Case(_MIT + "ClassifierHead", (8, (12, 16), 0), dict(act_layer=None), _MAP),
    Case(_MSRA + "ConvNorm", (8, 12, 3, 2, 1, 1, 4, 0.5), {}, _MAP),
    Case(_MSRA + "NormLinear", (60, 70, False, 0.1, 0.2), {}, [(4, 60)]),
    Case(_MSRA + "PatchMerging", (8, 12), {}, _MAP),
    Case(_MSRA + "ResidualDrop", (nn.ReLU(), 0.1), {}, _MAP),
    Case(_MSRA + "ConvMlp", (8, 12), {}, _MAP),
    Case(_MSRA + "CascadedGroupAttention", (32, 4, 2), dict(resolution=5), [(2, 32, 5, 5)]),
    Case(_MSRA + "CascadedGroupAttention", (24, 4, 2, 3, 5, (3, 5)), {}, [(2, 24, 5, 5)]),
    Case(_MSRA + "LocalWindowAttention", (24, 4, 2, 3, 9, 4), {}, [(2, 24, 9, 6)]),
    Case(_MSRA + "LocalWindowAttention", (32, 4, 2), dict(resolution=5), [(2, 32, 5, 5)]),
    Case(_MSRA + "EfficientVitBlock", (24, 4, 2, 3, 9, 4, [3, 5]), {}, [(2, 24, 9, 9)]),
    Case(_MSRA + "EfficientVitBlock", (64, 4, 4), dict(resolution=9), [(2, 64, 9, 9)]),
    Case(_MSRA + "EfficientVitStage", (8, 32, 4, ("subsample", 2), 2), dict(resolution=9, depth=2), _MAP),
    Case(_MSRA + "EfficientVitStage", (32, 32, 4), dict(num_heads=2, resolution=9), [(2, 32, 9, 9)]),
    Case(_MSRA + "PatchEmbedding", (3, 16), {}, [(2, 3, 32, 32)]),
]
