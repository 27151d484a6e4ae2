#!/usr/bin/env python
"""Write what type checkers and editors read of names that exist only at run time: .pyi files beside the code.

    python scripts/build_stubs.py              write them; after a change of a family, a catalog or a lazy package
    python scripts/build_stubs.py --check      write nothing; say what is stale, exit 1 if anything

A package that resolves its names on first use gets an `__init__.pyi`; that of mvlib.models has every architecture's
builder and Enum of weights. The entrypoints of a family that `register_model.variants` makes go to
models/_variants/FAMILY.pyi, which the family imports for type checkers alone:

    if TYPE_CHECKING:
        from ._variants.FAMILY import *
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import pkgutil
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torchvision

import mvlib.models
from mvlib import enums, lazy, registry
from mvlib.tasks import CLASSIFICATION

HEADER = ("# Written by scripts/build_stubs.py.", "# ruff: noqa")
PACKAGE = Path(mvlib.__file__).parent
VARIANTS = PACKAGE / "models" / "_variants"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if a stub is stale")
    args = parser.parse_args()
    wanted = build()
    unread = [*unread_variants(wanted), *unlisted_families()]
    present = {path: path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.pyi")}
    if args.check:
        stale = [f"{path.relative_to(PACKAGE.parent)} {problem}; run scripts/build_stubs.py"
                 for path, problem in differences(present, wanted)]
        print(*unread, *stale, sep="\n") if unread or stale else print(f"{len(wanted)} stubs are up to date")
        return int(bool(unread or stale))
    for path in present.keys() - wanted.keys():
        path.unlink()
    for path, text in wanted.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    print(*unread, f"{len(wanted)} stubs, {sum(map(len, wanted.values())) / 1e3:.0f} kB", sep="\n")
    return int(bool(unread))


def build() -> dict[Path, str]:
    """All stubs, by their files."""
    families = {name: importlib.import_module(f"mvlib.models.{name}") for name in registry.list_modules(CLASSIFICATION)}
    stubs = {Path(package.__file__).with_suffix(".pyi"): lazy_package(package) for package in lazy_packages()}
    stubs[PACKAGE / "models" / "__init__.pyi"] = models(families)
    stubs.update((VARIANTS / f"{name}.pyi", variants(name, family)) for name, family in families.items())
    made = ((path, list(lines)) for path, lines in stubs.items())
    return {path: "\n".join((*HEADER, *lines, "")) for path, lines in made if lines}


def differences(present: dict[Path, str], wanted: dict[Path, str]) -> Iterator[tuple[Path, str]]:
    """Which stubs are not as they should be, and why."""
    for path in sorted({*present, *wanted}):
        if path not in wanted:
            yield path, "describes nothing"
        elif path not in present:
            yield path, "is missing"
        elif present[path] != wanted[path]:
            old, new = (text[path].splitlines() for text in (present, wanted))
            line = next((line for line in (*new, *old) if (line in new) != (line in old)), "the order of lines")
            yield path, f"is stale ({line[:100].strip()})"


def unread_variants(wanted: dict[Path, str]) -> Iterator[str]:
    """Families that do not import the stub of their variants."""
    for path in wanted:
        line = f"from ._variants.{path.stem} import *"
        if path.parent == VARIANTS and line not in (VARIANTS.parent / f"{path.stem}.py").read_text(encoding="utf-8"):
            yield f"mvlib/models/{path.stem}.py hides its variants from type checkers: `if TYPE_CHECKING:` {line}"


def unlisted_families() -> Iterator[str]:
    """Families of whose models no class is found in mvlib.models."""
    package = mvlib.models
    for family in registry.list_modules(CLASSIFICATION):
        classes = {model_class(name) for name in registry.list_models(module=family)}
        homes = {package._HOME.get(cls.__name__) for cls in classes}
        if not homes & {package._THEIRS, *(home_of(cls) for cls in classes)} and family not in package._SUBMODULES:
            yield f"mvlib/models/__init__.py has no class of mvlib/models/{family}.py: add it to _NAMES"


# lazy packages

def lazy_packages() -> Iterator[ModuleType]:
    """Packages whose `__getattr__` is made by `lazy.attach`."""
    names = [package.name for package in pkgutil.walk_packages(mvlib.__path__, "mvlib.") if package.ispkg]
    for package in map(importlib.import_module, ["mvlib", *names]):
        if getattr(getattr(package, "__getattr__", None), "__module__", None) == lazy.__name__:
            yield package


def lazy_package(package: ModuleType) -> Iterator[str]:
    found = inspect.getclosurevars(package.__getattr__).nonlocals
    home, modules = found["home"], found["modules"]
    by_module = defaultdict(list)
    for name, module in home.items():
        by_module[module].append(name)
    yield f"from . import {', '.join(exported(modules))}"
    for module, names in sorted(by_module.items()):
        yield f"from .{module} import {', '.join(sorted(names))}"
    for name in package.__all__:
        if name not in home:
            yield f"{name}: {type(getattr(package, name)).__name__}"
    yield f"__all__ = {package.__all__}"


# models

def models(families: Iterable[str]) -> Iterator[str]:
    """The stub of mvlib.models: what its `__getattr__` finds."""
    package = mvlib.models
    builders = sorted({*registry.list_models(task=CLASSIFICATION), *registry.list_builders(CLASSIFICATION)})
    classes = {name: built_class(name) for name in builders}
    by_module = defaultdict(set)
    for name, module in package._HOME.items():
        by_module[module].add(f"{name} as {name}")
    returned = {cls: cls.__name__ if getattr(package, cls.__name__, None) is cls else
                f"_{cls.__module__.partition('.')[0]}_{cls.__name__}" for cls in classes.values()}
    for cls, alias in returned.items():
        if alias not in package._HOME:
            by_module[home_of(cls)].add(f"{cls.__name__} as {alias}")
    yield "from typing import Any"
    yield f"from . import {', '.join(exported({*families, *package._SUBMODULES}.difference(builders)))}"
    for module, names in sorted(by_module.items()):
        yield f"from {module} import {', '.join(sorted(names))}"
    known = enums.enum_names(CLASSIFICATION)
    for name in known:
        yield from enum(name, enums.find_enum(name))
    for name, cls in classes.items():
        yield builder(name, returned[cls], known)


def enum(name: str, made: type[enums.WeightsEnum]) -> Iterator[str]:
    if name != made.__name__:
        yield f"{name} = {made.__name__}"
        return
    yield f"class {name}(WeightsEnum):"
    yield "    " + ("; ".join(f"{member.name} = ..." for member in made) or "...")
    for other, member in made.__members__.items():
        if other != member.name:
            yield f"    {other} = {member.name}"


def builder(name: str, returned: str, known: Iterable[str]) -> str:
    parameters = []
    for parameter in inspect.signature(getattr(mvlib.models, name)).parameters.values():
        if parameter.name == "weights":
            accepted = [t.__name__ for t in parameter.annotation.__args__ if t.__name__ in known]
            parameters.append(f"weights: {' | '.join((*accepted, 'str', 'None')) if accepted else 'None'} = ...")
        elif parameter.kind is parameter.KEYWORD_ONLY:
            parameters.append(f"{parameter.name}: bool = ...")
    return f"def {name}(*, {', '.join(parameters)}, **kwargs: Any) -> {returned}: ..."


def variants(name: str, family: ModuleType) -> Iterator[str]:
    """The stub of a family's entrypoints that its source does not define one by one, and of torchvision's names."""
    written = {node.name for node in ast.parse(inspect.getsource(family)).body if isinstance(node, ast.FunctionDef)}
    made = {entrypoint: model_class(entrypoint) for entrypoint in registry.list_models(module=name)
            if entrypoint not in {*written, *registry.list_builders()}}
    if name not in mvlib.models._SUBMODULES:
        theirs = {builder for builder in registry.list_builders() if registry.get_module(builder) == name}
        yield from (f"from .. import {each}" for each in exported({*theirs, *map(enums.enum_name, theirs)}))
    if not made:
        return
    yield "from typing import Any"
    for module, cls in sorted({(family_of(cls), cls.__name__) for cls in made.values()}):
        yield f"from ..{module} import {cls} as _{cls}"
    for entrypoint, cls in made.items():
        yield f"def {entrypoint}(**kwargs: Any) -> _{cls.__name__}: ..."


def model_class(name: str) -> type[Any]:
    """The class that a builder's annotation names."""
    return get_type_hints(mvlib.model_entrypoint(registry.resolve_name(name)[0]))["return"]


def built_class(name: str) -> type[Any]:
    """The class that a builder of mvlib.models builds, as a rule: torchvision's, where the name is its."""
    if name in registry.list_builders():
        return get_type_hints(torchvision.models.get_model_builder(name))["return"]
    return model_class(name)


def home_of(cls: type[Any]) -> str:
    return cls.__module__ if cls.__module__.startswith("torchvision.") else f".{family_of(cls)}"


def family_of(cls: type[Any]) -> str:
    return cls.__module__.removeprefix("mvlib.models.")


def exported(names: Iterable[str]) -> list[str]:
    return [f"{name} as {name}" for name in sorted(names)]


if __name__ == "__main__":
    sys.exit(main())
