from .case import Case

_REPGHOST, _MAP = "models.repghost.", [(2, 8, 12, 10)]
_CFGS = [[[3, 8, 8, 0, 1]], [[3, 24, 12, 0.25, 2], [5, 24, 12, 0, 1]], [[3, 32, 16, 0, 2]]]

CASES = [
    *(Case(_REPGHOST + "RepGhostModule", *rest, _MAP) for rest in (
        ((8, 12), {}), ((8, 12, 3, 5, 2, False), {}), ((8, 12), dict(reparam=False)))),
    *(Case(_REPGHOST + "RepGhostBottleneck", *rest, _MAP) for rest in (
        ((8, 16, 8), {}), ((8, 24, 12, 5, 2), dict(se_ratio=0.25)), ((8, 16, 12), dict(reparam=False)))),
    Case("models.RepGhostNet", (_CFGS,), dict(num_classes=7), [(1, 3, 64, 64)], other_defaults="cfgs"),
]
