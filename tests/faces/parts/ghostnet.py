from .case import Case, From

_MAP = [(2, 8, 12, 10)]
_CFGS = [[[3, 8, 8, 0, 1]], [[3, 24, 12, 0.25, 2], [5, 24, 12, 0, 1]], [[3, 32, 16, 0, 2]]]

CASES = [
    *(Case(f"models.ghostnet.GhostModule{version}", *rest) for version in ("", "V2", "V3") for rest in (
        ((8, 12), {}, _MAP),
        ((8, 12), dict(kernel_size=3, dw_size=5, stride=2, act_layer=From("layers.Swish")), _MAP))),
    *(Case(f"models.ghostnet.GhostModule{version}", (8, 11), dict(ratio=3), _MAP) for version in ("", "V2")),
    Case("models.ghostnet.GhostModuleV3", (8, 12, 3, 2, 3, 1), dict(mode="shortcut"), _MAP),
    *(Case(f"models.ghostnet.GhostBottleneck{version}", *rest) for version in ("", "V3") for rest in (
        ((8, 16, 8), {}, _MAP),
        ((8, 24, 12, 5, 2), dict(se_ratio=0.25, act_layer=From("layers.Swish")), _MAP),
        ((8, 16, 12), dict(mode="shortcut"), _MAP))),
    *(Case("models.ghostnet.GhostNet", (_CFGS,), dict(num_classes=7, version=version), [(1, 3, 64, 64)],
           other_defaults="cfgs") for version in ("v1", "v2", "v3")),
]
