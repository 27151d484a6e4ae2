"""torchvision's modules as mvlib has them: its own, with our builders, Enums and functions in the place of theirs.

`mvlib.torchvision.models.resnet` is such a module: `BasicBlock` in it is torchvision's, `resnet50` and
`ResNet50_Weights` are ours. `mvlib.torchvision.transforms` and whatever else is not in `torchvision.models` is
torchvision's module itself. `mvlib.models` takes from there what it has not: `mvlib.models.mobilenetv2`, and
`conv1x1` in `mvlib.models.resnet`. Imports no torch before the first of them is made.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterable, Sequence
from enum import EnumMeta
from importlib.machinery import ModuleSpec, PathFinder
from types import FunctionType, ModuleType
from typing import Any

from . import builders, enums, registry

__all__ = ["attribute", "install", "is_installed", "list_models", "real"]

FACE = "mvlib.torchvision"
_MODELS = "torchvision.models"
_BODY = "mvlib.models"
_OWN = {"__name__", "__loader__", "__spec__", "__package__", "__path__", "__cached__"}
_originals: dict[str, ModuleType] = {}  # torchvision's modules for which the face's stand in sys.modules


def real(name: str) -> ModuleType:
    """A module of torchvision's itself ("torchvision.models.resnet"), whatever stands for it in `sys.modules`."""
    return _originals.get(name) or importlib.import_module(name)


def attribute(module: str, name: str) -> Any:
    """What a family's module of ours ("resnet") has by torchvision's name: builders and Enums of its architectures, and
    whatever torchvision's module of the same name has and ours has not.

    Raises:
        AttributeError: It has no such thing.
    """
    for builder in registry.list_builders():
        if name in (builder, registry.builder_facts(builder)["weights"]) and registry.get_module(builder) == module:
            return getattr(importlib.import_module(_BODY), name)
    full = f"{_MODELS}.{module}"
    if not name.startswith("__") and importlib.util.find_spec(full) is not None:
        face = importlib.import_module(f"mvlib.{full}")
        if hasattr(face, name):
            return getattr(face, name)
    raise AttributeError(f"module '{_BODY}.{module}' has no attribute '{name}'")


def list_models(
    module: ModuleType | None = None,
    include: Iterable[str] | str | None = None,
    exclude: Iterable[str] | str | None = None,
) -> list[str]:
    """Names of torchvision's builders, and of those registered as torchvision's are; see `builders.list_models`."""
    known = {*registry.list_builders(), *builders.registered}
    return [name for name in builders.list_models(module, include, exclude) if name in known]


# modules

class _Finder:
    """Finds modules of `mvlib.torchvision`, and below `mvlib.models` those that only torchvision has."""

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        package, _, name = fullname.partition(".models.")
        if fullname.startswith(f"{FACE}."):
            theirs = fullname.removeprefix("mvlib.")
            if not all(map(str.isidentifier, theirs.split("."))):  # no module's name, but a script's
                from .running import find_main

                return find_main(FACE, fullname.removeprefix(f"{FACE}."))
        elif package == "mvlib":
            own = PathFinder.find_spec(fullname, path)
            if own is not None:
                return own
            theirs = f"{_MODELS}.{name}"
        elif _originals and fullname.startswith("torchvision."):  # parts of torchvision that are imported late
            return PathFinder.find_spec(fullname, real(fullname.rpartition(".")[0]).__path__)
        else:
            return None
        spec = _find(theirs)
        if spec is None:
            return None
        is_package = spec.submodule_search_locations is not None
        return ModuleSpec(fullname, self, is_package=is_package, origin="mvlib")  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        if name.startswith(f"{_BODY}."):
            package = sys.modules[name.rpartition(".")[0]]
            if type(package) is ModuleType:  # a family of ours
                package.__class__ = _Module
            sys.modules[name] = importlib.import_module(FACE + name.removeprefix("mvlib"))
        elif not f"{name}.".startswith(f"{FACE}.models."):
            sys.modules[name] = real(name.removeprefix("mvlib."))
        else:
            _fill(module, real(name.removeprefix("mvlib.")))


def _find(name: str) -> ModuleSpec | None:
    try:
        return real(name).__spec__
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            return None
        raise


class _Module(ModuleType):
    """Importing a module of it sets this as an attribute; where a builder has the name (s3d), the builder stays."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and callable(getattr(self, name, None))):
            super().__setattr__(name, value)


def _fill(module: ModuleType, theirs: ModuleType) -> None:
    """Make a module of the face: torchvision's names, ours for what they mean."""
    below = f"{theirs.__name__}."
    for name in [*_originals, *sys.modules]:  # first, since a builder of the same name hides a module
        if name.startswith(below):
            importlib.import_module(f"mvlib.{name}")
    stand_ins = _stand_ins()
    for key, value in vars(theirs).items():
        if key not in _OWN:
            setattr(module, key, _ours(value, stand_ins))
    setattr(module, "__getattr__", functools.partial(getattr, theirs))  # noqa: B010
    module.__class__ = _Module


def _ours(value: Any, stand_ins: dict[int, Any]) -> Any:
    if isinstance(value, ModuleType):
        is_face = f"{value.__name__}.".startswith(f"{_MODELS}.")
        return importlib.import_module(f"mvlib.{value.__name__}") if is_face else value
    if isinstance(value, FunctionType) and f"{value.__module__}.".startswith(f"{_MODELS}."):
        from . import mirror

        if mirror.is_mirrored(value.__module__):
            return mirror.namespace(value.__module__).get(value.__name__, value)
    if isinstance(value, EnumMeta):
        return stand_ins.get(id(value)) or enums.find_enum(value.__name__) or value
    return stand_ins.get(id(value), value)


@functools.cache
def _stand_ins() -> dict[int, Any]:
    """What stands for which of torchvision's builders, classes and functions."""
    api, utils = real(f"{_MODELS}._api"), real(f"{_MODELS}._utils")
    ours: dict[int, Any] = {
        id(getattr(module, name)): value for module, names in (
            (api, {"Weights": enums.Weights, "WeightsEnum": enums.WeightsEnum, "get_weight": enums.get_weight,
                   "get_model": builders.get_model, "get_model_builder": builders.get_model_builder,
                   "get_model_weights": builders.get_model_weights, "list_models": list_models,
                   "_get_enum_from_fn": builders.get_model_weights, "register_model": builders.register_model}),
            (utils, {"handle_legacy_interface": builders.handle_legacy_interface,
                     "kwonly_to_pos_or_kw": builders.kwonly_to_pos_or_kw}),
        ) for name, value in names.items()}
    known = set(registry.list_builders())
    for name, builder in api.BUILTIN_MODELS.items():
        if name in known:
            ours[id(builder)] = builders.registered.setdefault(name, builders.get_builder(name))
    ours[id(api.BUILTIN_MODELS)] = builders.registered
    return ours


# `import torchvision`

def install() -> None:
    """Make `import torchvision` find the face, in this process: its modules but `torchvision.models` are torchvision's
    own, and so are the classes of its models. To install it twice does nothing."""
    if _originals:
        return
    package = importlib.import_module(_MODELS)
    for module in pkgutil.walk_packages(package.__path__, f"{_MODELS}."):
        importlib.import_module(module.name)
    faces = {name: importlib.import_module(f"mvlib.{name}") for name in sys.modules.copy()
             if name == "torchvision" or f"{name}.".startswith(f"{_MODELS}.")}
    _originals.update({name: sys.modules[name] for name in faces})
    sys.modules.update(faces)
    face, own = faces["torchvision"], real("torchvision")  # whoever looks for files of the package finds its folder
    face.__spec__, face.__file__ = own.__spec__, own.__file__


def is_installed() -> bool:
    """Whether `import torchvision` finds the face."""
    return bool(_originals)


if not any(type(finder).__name__ == "_Finder" and type(finder).__module__ == __name__ for finder in sys.meta_path):
    sys.meta_path.insert(0, _Finder())
