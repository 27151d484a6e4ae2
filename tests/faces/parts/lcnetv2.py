from .case import Case

_MAP = [(2, 32, 9, 8)]

CASES = [
    Case("models.lcnetv2.RepDepthwiseSeparable", (32, 32),
        dict(use_rep=True, dw_kernel_size=5, use_se=True, split_pw=True, use_shortcut=True), _MAP),
    Case("models.lcnetv2.RepDepthwiseSeparable", (32, 16, 2), dict(use_rep=True, inference_mode=True), _MAP),
]
