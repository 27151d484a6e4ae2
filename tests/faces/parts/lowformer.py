from .case import Case

_MAP = [(2, 32, 9, 8)]

CASES = [
    Case("models.lowformer.ConvLayer", (32, 16), dict(stride=2, use_bias=True, norm_layer=None), _MAP),
    Case("models.lowformer.MBConv", (32, 16), dict(expand_groups=4, stride=2), _MAP),
    Case("models.lowformer.FusedMBConv", (32, 16), dict(expand_groups=4, use_bias=True), _MAP),
    Case("models.lowformer.ConvAttention", (32,), dict(att_stride=2, att_kernel=5), _MAP),
    Case("models.lowformer.LowFormerBlock", (32,), dict(fused_conv=True, att_stride=2, drop_path=0.1), _MAP),
]
