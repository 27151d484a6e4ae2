"""Cases of `tests/faces/test_parts.py`: timm's blocks, stages and functions by timm's paths; CASES of each module.

    from .case import Case, From

    CASES = [
        Case("models.convnext.ConvNeXtBlock", (8, 12), dict(kernel_size=3, act_layer="silu"), [(2, 8, 9, 9)]),
        Case("models.convnext.ConvNeXtBlock", (8,), dict(norm_layer=From("layers.RmsNorm")), [(2, 8, 9, 9)]),
        Case("models.regnet.RegNet", (From("models.regnet.RegNetCfg", w0=8, depth=2).made,), {}, [(2, 3, 64, 64)]),
        Case("models.maxxvit.grid_partition", (torch.arange(64.0).view(1, 4, 4, 4), (2, 2))),  # a function of tensors
    ]
"""
