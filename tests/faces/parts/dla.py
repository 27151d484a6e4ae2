import torch

from .case import Case, From

_MAP = [(2, 16, 12, 8)]
_BLOCKS = [From(f"models.dla.{name}") for name in ("DlaBasic", "DlaBottleneck", "DlaBottle2neck")]
_MAPS = ([torch.ones(2, 8, 4, 4), torch.arange(4.0).expand(2, 12, 4, 4)],)

CASES = [
    *(Case(f"models.dla.{name}", (16, 16), {}, _MAP) for name in ("DlaBasic", "DlaBottleneck")),
    Case("models.dla.DlaBasic", (16, 24), dict(stride=2, dilation=2, scale=3), [*_MAP, (2, 24, 6, 4)]),
    *(Case(f"models.dla.{name}", (16, 32), dict(stride=stride, dilation=2, cardinality=2, base_width=32, **kwargs),
           [*_MAP, (2, 32, 12 // stride, 8 // stride)])
      for name, kwargs in (("DlaBottleneck", {}), ("DlaBottle2neck", dict(scale=3)), ("DlaBottle2neck", dict(scale=1)))
      for stride in (1, 2)),
    Case("models.dla.DlaBottle2neck", (16, 64), {}, [*_MAP, (2, 64, 12, 8)]),
    *(Case("models.dla.DlaRoot", (20, 8, kernel_size, shortcut), {}, lambda: _MAPS)
      for kernel_size, shortcut in ((1, True), (3, False))),
    *(Case("models.dla.DlaTree", (levels, block, 16, 32), dict(stride=2, level_root=True, cardinality=2), _MAP)
      for levels in (1, 2) for block in _BLOCKS),
    Case("models.dla.DlaTree", (3, _BLOCKS[0], 16, 16), dict(dilation=2, root_shortcut=True, base_width=32), _MAP),
    Case("models.dla.DlaTree", (1, _BLOCKS[1], 16, 16), dict(root_dim=40), lambda: (
        torch.ones(2, 16, 4, 4), None, [torch.ones(2, 8, 4, 4)])),
    *(Case("models.dla.DLA", ((1, 1, 1, 2, 1, 1), (4, 4, 8, 16, 32, 64)), dict(block=block, cardinality=2),
           [(1, 3, 64, 64)]) for block in _BLOCKS),
]
