"""A script, a module or a text run as `__main__` with a face installed: `python -m mvlib.timm train.py ...`.

A process that is spawned (workers of a DataLoader, say) imports its parent's `__main__` anew by the name in its
`__spec__`. That name says all here: "mvlib.timm./home/me/train%2Epy", found by the face's finder, installs the face and
runs the script, in the child and by `python -m` as well. Imports no torch.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import os
import sys
from collections.abc import Sequence
from functools import partial
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType, TracebackType
from typing import Any, NoReturn

from .names import closest

__all__ = ["find_main", "run"]

USAGE = """usage: python -m {face} [-m module | -c text | script.py] [arguments ...]

Run somebody else's code with mvlib in {library}'s place: its `import {library}` finds {face}.
With several processes: torchrun --nproc-per-node 2 -m {face} train.py ..."""


def _install(face: str) -> None:
    importlib.import_module(face).install()


class _Main:
    """Loader of what is run as `__main__`."""

    def __init__(self, face: str, path: str, loader: Any = None, name: str = "") -> None:
        self.face, self.path, self.loader, self.name = face, path, loader, name

    def get_code(self, fullname: str) -> CodeType | None:
        _install(self.face)
        if self.loader is not None:
            code: CodeType | None = self.loader.get_code(self.name)
            return code
        folder = os.path.dirname(os.path.realpath(self.path))
        if folder not in sys.path and not getattr(sys.flags, "safe_path", False):
            sys.path.insert(0, folder)
        with io.open_code(self.path) as stream:
            return compile(stream.read(), self.path, "exec", dont_inherit=True)

    def get_source(self, fullname: str) -> str | None:  # for tracebacks
        if self.loader is not None:
            source: str | None = self.loader.get_source(self.name)
            return source
        return importlib.util.decode_source(io.open_code(self.path).read())

    def get_filename(self, fullname: str) -> str:
        return self.path


class _MainSpec(ModuleSpec):
    """Spec of what is run as `__main__`, whose package is not that of its name."""

    package = ""

    @property
    def parent(self) -> str:
        return self.package


def _quoted(name: str) -> str:
    return name.replace("%", "%25").replace(".", "%2E")


def _script_spec(face: str, path: str) -> ModuleSpec:
    path = os.path.abspath(path)
    return _MainSpec(f"{face}.{_quoted(path)}", _Main(face, path), origin=path)  # type: ignore[arg-type]


def _module_spec(face: str, module: str) -> ModuleSpec | None:
    _install(face)  # the module's packages are imported to find it
    try:
        found = importlib.util.find_spec(module)
        if found is not None and found.submodule_search_locations is not None:
            module = f"{module}.__main__"
            found = importlib.util.find_spec(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # something that the module's package imports
        found = None
    if found is None or not hasattr(found.loader, "get_code"):
        return None
    main = _Main(face, found.origin or module, found.loader, module)
    spec = _MainSpec(f"{face}.-m {_quoted(module)}", main, origin=found.origin)  # type: ignore[arg-type]
    spec.package = module.rpartition(".")[0]
    return spec


def find_main(face: str, below: str) -> ModuleSpec | None:
    """The spec of what another process runs as `__main__`, by the part of its name after "mvlib.timm."."""
    name = below.replace("%2E", ".").replace("%25", "%")
    if name.startswith("-m "):
        return _module_spec(face, name[3:])
    return _script_spec(face, name) if os.path.isabs(name) else None


def run(face: str, arguments: Sequence[str]) -> int | None:
    """Run what the arguments name, as python itself takes them; its exceptions and its exit are passed on.

    Args:
        face: The package whose `install()` puts it in a library's place ("mvlib.timm").
        arguments: Of the command line.

    Returns:
        The exit status where there is nothing to run.
    """
    what, *rest = arguments or ("",)
    if what in ("", "-h", "--help"):
        print(USAGE.format(face=face, library=face.rpartition(".")[2]), file=sys.stdout if what else sys.stderr)
        return 0 if what else 2
    spec, code = None, None
    script_folder = None
    if what in ("-m", "-c"):
        if not rest:
            _refuse(face, f"{what} wants {'the name of a module' if what == '-m' else 'a text'} after it")
        named, *rest = rest
        if what == "-c":
            code, script_folder = compile(named, "<string>", "exec", dont_inherit=True), ""
        else:
            spec = _module_spec(face, named)
            if spec is None:
                _refuse(face, f"there is no module '{named}' that could be run")
            what = spec.origin or named
    elif what.startswith("-"):
        _refuse(face, f"does not know the option {what}; the options of python stand before -m, those of the script "
                      f"after it")
    else:
        if not os.path.isfile(what):
            _refuse(face, _missing(what))
        with open(what, "rb") as stream:
            if b"\0" in stream.read():
                _refuse(face, f"'{what}' is no script: it holds bytes that no text has")
        spec = _script_spec(face, what)
        script_folder = os.path.dirname(os.path.realpath(what))
    if script_folder is not None and not getattr(sys.flags, "safe_path", False):
        sys.path[0] = script_folder
    sys.argv = [what, *rest]
    if spec is not None:
        assert spec.loader is not None
        code = spec.loader.get_code(spec.name)  # type: ignore[attr-defined]
    _install(face)
    main = ModuleType("__main__")
    main.__spec__ = spec
    main.__package__ = None if spec is None else spec.parent or None
    main.__dict__["__builtins__"] = __builtins__
    if spec is not None:
        main.__file__, main.__loader__ = spec.origin, spec.loader
    sys.modules["__main__"] = main
    sys.excepthook = partial(_print_exception, face)
    assert code is not None
    exec(code, main.__dict__)
    return None


def _missing(script: str) -> str:
    folder = os.path.dirname(script) or "."
    if os.path.isdir(script):
        return f"'{script}' is a folder; name the script in it"
    if not os.path.isdir(folder):
        return f"there is no script '{script}': no folder '{folder}'"
    scripts = [name for name in os.listdir(folder) if name.endswith(".py")]
    return f"there is no script '{script}'{closest(os.path.basename(script), scripts)}"


def _refuse(face: str, text: str) -> NoReturn:
    print(f"python -m {face}: {text}", file=sys.stderr)
    sys.exit(2)


def _print_exception(
    face: str, kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """As python prints it, from the script's own first line on."""
    folder = os.path.dirname(str(sys.modules[face].__file__))
    runners = {"<frozen runpy>", __file__, os.path.join(folder, "__main__.py")}
    inner = trace
    while inner is not None and inner.tb_frame.f_code.co_filename in runners:
        inner = inner.tb_next
    sys.__excepthook__(kind, error.with_traceback(inner or trace), inner or trace)
