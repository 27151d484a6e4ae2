"""Where timm's names live here. Pure data, one module a region; imports no torch.

Each module has

    NAMES = {
        "layers.blur_pool": {"mvlib.layers.blur_pool": "BlurPool2d create_aa"},
        "layers.drop": {"mvlib.layers.drop": "DropPath drop_block_fast_2d=drop_block_2d"},
    }
    ABSENT = {"why they are not there": {"data.tf_preprocessing": "", "layers.evo_norm": "a_name another"}}

NAMES is {path below timm: {our module: its names, "theirs=ours" where they differ}}; the path of timm itself is "".
ABSENT is {reason: {path below timm: the names that are not there, "" for the whole module}}.
A path stands in as many tables as have names for it.

Not written down, because it follows:

- A package of PACKAGES has the public names of its modules: `layers.DropPath` is `layers.drop.DropPath`. Where two
  modules mean different things by a name, the package has none of them, unless NAMES says which. A name of
  MODULES is the module there.
- `models`, and the module of each family, has an entrypoint for each of our architectures and their deprecated names.
- A path of `core.REDIRECTS` has the names of another path, and warns as timm does.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cache

from . import core, data, layers, models, training

__all__ = ["PACKAGES", "Target", "absences", "absent", "children", "names", "paths"]

Target = tuple[str, str]
"""A module of ours, and the name there."""

MODULES = ("layers.inplace_abn",)
PACKAGES = ("data", "data.readers", "layers", "loss", "optim", "scheduler", "task", "utils")

_TABLES = (core, models, layers, data, training)


@cache
def _written() -> dict[str, dict[str, Target]]:
    found: dict[str, dict[str, Target]] = defaultdict(dict)
    for table in _TABLES:
        for path, modules in table.NAMES.items():
            for module, row in modules.items():
                for name in row.split():
                    theirs, _, ours = name.partition("=")
                    found[path][theirs] = (module, ours or theirs)
    return dict(found)


@cache
def paths() -> frozenset[str]:
    """All modules and packages that the tables name, "" among them."""
    named = {*_written(), *PACKAGES, *core.REDIRECTS}
    return frozenset(path.rsplit(".", depth)[0] if depth else path
                     for path in named for depth in range(path.count(".") + 1)) | {""}


def children(path: str) -> list[str]:
    """Names of the modules of a package."""
    start = f"{path}." if path else ""
    return sorted(other[len(start):] for other in paths()
                  if other and other.startswith(start) and "." not in other[len(start):])


@cache
def names(path: str) -> dict[str, Target]:
    """What a module has by the tables: {name: where it is}."""
    if path in core.REDIRECTS:
        return names(core.REDIRECTS[path])
    found = dict(_written().get(path, {}))
    if path in PACKAGES:
        derived: dict[str, set[Target]] = defaultdict(set)
        for child in children(path):
            if f"{path}.{child}" in core.REDIRECTS:
                continue
            for name, target in names(f"{path}.{child}").items():
                if not name.startswith("_") and f"{path}.{name}" not in MODULES and target[0] != core.FLAGS:
                    derived[name].add(target)
        found.update((name, min(targets)) for name, targets in derived.items()
                     if len(targets) == 1 and name not in found)
    return found


@cache
def absences() -> dict[str, str]:
    """{path of a module, or of a name of one, that is not there: why}."""
    return {f"{path}.{name}".rstrip("."): reason for table in _TABLES for reason, modules in table.ABSENT.items()
            for path, names in modules.items() for name in names.split() or [""]}


def absent(path: str) -> str | None:
    """Why a module, or a name of one, is not there; None where the tables give no reason."""
    return absences().get(path)
