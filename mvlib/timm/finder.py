"""How timm's modules come about that are no files here: made from the tables, their names found on first use.

Imports no torch.
"""

from __future__ import annotations

import importlib
import opcode
import sys
import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from .. import registry
from ..names import closest
from ..tasks import CLASSIFICATION
from . import tables

__all__ = ["FaceModule", "Finder", "directory", "get", "install", "is_installed", "names"]

FACE = __package__  # "mvlib.timm"
_ENTRYPOINTS = f"{FACE}.meanings.entrypoints"


@cache
def _families() -> frozenset[str]:
    return frozenset(registry.list_modules(CLASSIFICATION))


@cache
def names(path: str) -> dict[str, tuple[str, str]]:
    """What a module of the face has: {name: (our module, the name there)}; entrypoints, too."""
    found = dict(tables.names(path))
    family = path.removeprefix("models").lstrip(".") if path.startswith("models") else "-"
    if not family or family in _families():
        current = [name for name in registry.list_models(module=family, task=CLASSIFICATION) if registry.is_ours(name)]
        for name in (*current, *registry.get_deprecated_models(family)):
            found.setdefault(name, (_ENTRYPOINTS, name))
    return found


def exists(path: str) -> bool:
    """Whether the face has a module of this path."""
    return path in tables.paths() or path.startswith("models.") and path.removeprefix("models.") in _families()


def _modules(path: str) -> set[str]:
    return {*tables.children(path), *(_families() if path == "models" else ())}


def get(path: str, name: str) -> Any:
    """The value of a name of a module of the face.

    Raises:
        AttributeError: There is none; the message says why, or what is close. An ImportError where it is imported by
            `from ... import name`, which would not pass the message on.
    """
    target = names(path).get(name) or _borrowed(path, name)
    if target is not None:
        module, ours = target
        return getattr(importlib.import_module(module), ours)
    if name in _modules(path):
        return importlib.import_module(f"{FACE}.{path}.{name}" if path else f"{FACE}.{name}")
    where = f"{FACE}.{path}".rstrip(".")
    full = f"{path}.{name}".lstrip(".")
    reason = tables.absent(full) or tables.absent(path)
    text = f"{where} has no '{name}'" + (f": {reason}" if reason else closest(name, directory(path)))
    if not name.startswith("__") and _is_imported():
        raise ImportError(text, name=where)
    raise AttributeError(text)


def _is_imported() -> bool:
    """Whether the code that asked for an attribute of a module is a `from ... import`."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__") in (__name__, FACE):
        frame = frame.f_back
    return frame.f_code.co_code[frame.f_lasti] == opcode.opmap["IMPORT_FROM"]


def _borrowed(path: str, name: str) -> tuple[str, str] | None:
    """What a module does not define but, in timm, imports: from its package; a family, from layers above all."""
    package, _, module = path.partition(".")
    if not module or name in _modules(path) or tables.absent(f"{path}.{name}"):
        return None
    sources: tuple[str, ...] = (package,)
    if package == "models":
        if module not in _families() and not module.startswith("_"):
            return None
        sources = (*tables.models.IMPORTED.get(module, ()), *tables.models.BORROWED)
    return next((names(other)[name] for other in sources if name in names(other)), None)


def directory(path: str) -> list[str]:
    """Public names and modules of a module of the face."""
    return sorted({*(name for name in names(path) if not name.startswith("_")), *_modules(path)})


class FaceModule(ModuleType):
    """A module of the face, whose names are found on first use."""

    def __init__(self, name: str) -> None:
        super().__init__(name, doc=f"timm's names of {name.removeprefix('mvlib.')}, as mvlib has them.")
        self.__dict__["_path"] = name.removeprefix(f"{FACE}.")

    def __getattr__(self, name: str) -> Any:
        path = self.__dict__["_path"]
        if name == "__all__":
            value: Any = [key for key in names(path) if not key.startswith("_")]
        else:
            value = get(path, name)
        if f"{path}.{name}" not in tables.core.LIVE:
            self.__dict__[name] = value
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        # The import of timm.layers.create_conv2d must not hide the function of that name in timm.layers.
        path = self.__dict__["_path"]
        is_submodule = isinstance(value, FaceModule) and value.__name__ == f"{self.__name__}.{name}"
        if is_submodule and name in names(path):
            return
        super().__setattr__(name, value)
        # Who replaces a function of a module, not of a package, means that module's code: it is where the table says.
        target = tables.names(path).get(name)
        if target is not None and not _modules(path) and path not in tables.core.REDIRECTS:
            setattr(importlib.import_module(target[0]), target[1], value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *directory(self.__dict__["_path"])})


class Finder:
    """Finds `mvlib.timm.*` in the tables and, once the face is installed, `timm.*` there."""

    def __init__(self) -> None:
        self.is_installed = False

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        if fullname.startswith(f"{FACE}."):
            below = fullname.removeprefix(f"{FACE}.")
            if exists(below):
                is_package = bool(_modules(below)) or below in tables.PACKAGES
                return ModuleSpec(fullname, self, is_package=is_package, origin="mvlib")  # type: ignore[arg-type]
            reason = tables.absent(below)
            if reason is not None:
                raise ModuleNotFoundError(f"{FACE} has no '{below}': {reason}", name=fullname)
            if not below.isidentifier():  # no module's name
                from ..running import find_main

                return find_main(FACE, below)
        elif self.is_installed and fullname.startswith("timm."):
            return ModuleSpec(fullname, self, origin="mvlib")  # type: ignore[arg-type]
        return None

    def find_distributions(self, context: Any = None) -> Iterator[Any]:
        """What `importlib.metadata.version("timm")` reads: many check it before they import."""
        if self.is_installed and getattr(context, "name", None) in (None, "timm"):
            from .distribution import FaceDistribution

            yield FaceDistribution()

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return FaceModule(spec.name) if spec.name.startswith(f"{FACE}.") else None

    def exec_module(self, module: ModuleType) -> None:
        if not isinstance(module, FaceModule):  # timm.x is mvlib.timm.x itself
            name = module.__name__
            try:
                sys.modules[name] = importlib.import_module(f"mvlib.{name}")
            except ModuleNotFoundError as error:
                if error.name != f"mvlib.{name}" or str(error).startswith(FACE):
                    raise
                package, _, last = name.rpartition(".")
                hint = closest(last, _modules(package.removeprefix("timm").lstrip(".")))
                text = f"No module named '{name}' (mvlib stands for timm){hint}"
                raise ModuleNotFoundError(text, name=name) from None
            return
        path = module.__name__.removeprefix(f"{FACE}.")
        if path in tables.core.WARNS:
            warnings.warn(f"Importing from timm.{path} is deprecated, please import via {tables.core.WARNS[path]}",
                          FutureWarning, stacklevel=_import_level())


def _import_level() -> int:
    """`stacklevel` of the line that imports, beyond the machinery of imports and this file."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and ("importlib" in frame.f_code.co_filename or
                                        frame.f_globals.get("__name__") in (__name__, FACE)):
        level += "importlib._bootstrap" not in frame.f_code.co_filename  # which warnings does not count
        frame = frame.f_back
    return level


_finder = Finder()
if not any(type(finder).__name__ == Finder.__name__ and type(finder).__module__ == __name__
           for finder in sys.meta_path):
    sys.meta_path.insert(0, _finder)


def install() -> None:
    """Make `import timm` find this face, in this process.

    Modules are the very ones of `mvlib.timm`. To install it twice does nothing.

    Raises:
        ImportError: timm itself has been imported already: what holds its functions would go on using them.
    """
    face = sys.modules[FACE]
    present = sys.modules.get("timm")
    if present is not None and present is not face:
        where = getattr(present, "__file__", None) or "no file"
        raise ImportError(f"timm itself is imported already ({where}); call mvlib.timm.install() before anything that "
                          f"imports timm, or run the script with `python -m mvlib.timm`", name="timm")
    sys.modules["timm"] = face
    for name, module in list(sys.modules.items()):  # what is imported already
        if name.startswith(f"{FACE}.") and isinstance(module, FaceModule):
            sys.modules[name.removeprefix("mvlib.")] = module
    _finder.is_installed = True


def is_installed() -> bool:
    """Whether `import timm` finds this face."""
    return _finder.is_installed
