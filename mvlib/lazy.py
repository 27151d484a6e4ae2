"""Packages whose names are resolved on first use, so that importing one costs nothing. Imports no torch."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

__all__ = ["attach"]


def attach(
    package: str, names: Mapping[str, Iterable[str]], submodules: Iterable[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """The `__getattr__`, `__dir__` and `__all__` of a package.

    Args:
        package: Its `__name__`.
        names: {module of the package: public names that it has}; the modules are attributes, too.
        submodules: Further modules that are attributes.
    """
    home = {name: module for module, public in names.items() for name in public}
    modules = {*(module.partition(".")[0] for module in names), *submodules}

    def getattr_(name: str) -> Any:
        if name in home:
            value = getattr(importlib.import_module(f"{package}.{home[name]}"), name)
            setattr(sys.modules[package], name, value)  # found without this function the next time
            return value
        if name in modules:
            return importlib.import_module(f"{package}.{name}")
        raise AttributeError(f"module '{package}' has no attribute '{name}'")

    def dir_() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home, *modules})

    return getattr_, dir_, sorted(home)
