from .case import Case

_MAP = [(2, 32, 9, 8)]

CASES = [
    Case("models.cpubone.LinearLayer", (32, 16), dict(use_bias=False), [(2, 32)]),
    Case("models.cpubone.ConvLayer", (32, 16, 2), {}, _MAP),
    Case("models.cpubone.ConvLayer", (32, 16, 2, 2), {}, _MAP),
    Case("models.cpubone.MBConv", (32, 16), dict(expand_groups=4, stride=2), _MAP),
    Case("models.cpubone.FusedMBConv", (32, 16), dict(expand_groups=4), _MAP),
    Case("models.cpubone.ConvAttention", (32,),
        dict(att_stride=2, small_kernels=True, upsample_mode="nearest", fuse_out_proj=True), _MAP),
    Case("models.cpubone.CPUBoneBlock", (32,), dict(att_stride=2, small_kernels=True), _MAP),
    Case("models.cpubone.ClsHead", (32, [24, 16], 3), {}, _MAP),
    Case("models.cpubone.get_same_padding", (2, 1)),
]
