from .case import Case

_MAP = [(2, 32, 9, 8)]

CASES = [
    Case("models.cspnext.SPPBottleneck", (32, 12), {}, _MAP),
    Case("models.cspnext.DepthwiseSeparableConv", (32, 12, 5), dict(padding=2), _MAP),
    Case("models.cspnext.CspNextBlock", (32, 32), dict(dilation=2, drop_path=0.1), _MAP),
    Case("models.cspnext.CspNextLayer", (32, 16), dict(num_blocks=2, channel_attention=True), _MAP),
]
