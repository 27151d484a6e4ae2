"""Every public name of the installed timm is in its face, as the same kind of thing, or its absence has a reason."""

import ast
import importlib
import inspect
import pkgutil
import typing
import warnings
from functools import cache
from types import ModuleType

import pytest
import timm as real

from mvlib.timm import finder, tables
from mvlib.timm.finder import exists, get, names


@cache
def modules():
    """{path below timm: module}, all that timm has."""
    found = {"": real}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for info in pkgutil.walk_packages(real.__path__, "timm."):
            try:
                found[info.name.removeprefix("timm.")] = importlib.import_module(info.name)
            except ImportError:  # it needs a package that is not installed
                found[info.name.removeprefix("timm.")] = None
    return found


@cache
def public(path):
    """{name: value} of what a module of timm offers: what it says, or what it defines (a package: or imports)."""
    module = modules()[path]
    if hasattr(module, "__all__"):
        offered = module.__all__
    else:
        offered = {name for node in ast.parse(inspect.getsource(module)).body for name in _bound(node, module)}
    found = {name: getattr(module, name) for name in offered if not name.startswith("_")}
    return {name: value for name, value in found.items() if not isinstance(value, ModuleType)}


def _bound(node, module):
    """Names that a statement of a module binds, without what is imported from elsewhere."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [target.id for target in targets if isinstance(target, ast.Name)]
    if not hasattr(module, "__path__") or not isinstance(node, ast.ImportFrom) or \
            not (node.level or (node.module or "").startswith("timm")):
        return []
    if node.names[0].name == "*":
        source = importlib.import_module("." * node.level + (node.module or ""), module.__name__)
        return getattr(source, "__all__", [name for name in vars(source) if not name.startswith("_")])
    return [alias.asname or alias.name for alias in node.names]


def is_of_a_family_to_come(path, value):
    """Whether a name belongs to a model module that mvlib does not have yet."""
    home = getattr(value, "__module__", None) or ""
    homes = (f"timm.{path}", home)
    return any(name.startswith("timm.models.") and not exists(name.removeprefix("timm.")) for name in homes)


def is_excused(path, name):
    if tables.absent(path) or tables.absent(f"{path}.{name}".lstrip(".")):
        return True
    current = real.models.get_deprecated_models().get(name, name)
    if current is not None and path.startswith("models") and real.is_model(current):
        home = real.model_entrypoint(current).__module__
        return is_of_a_family_to_come(path, real.model_entrypoint(current)) or not exists(home.removeprefix("timm."))
    return is_of_a_family_to_come(path, public(path)[name])


PATHS = [path for path, module in modules().items() if module is not None and
         (exists(path) or not path.startswith("models.") or path.startswith("models._"))]


@pytest.mark.parametrize("path", PATHS)
def test_every_name_is_there_or_its_absence_has_a_reason(path):
    assert exists(path) or path == "" or tables.absent(path), f"there is no mvlib.timm.{path}"
    there = names(path) if exists(path) or not path else {}
    missing = sorted(name for name in public(path) if name not in there and not is_excused(path, name))
    assert missing == []


@pytest.mark.parametrize("path", [path for path in PATHS if hasattr(modules()[path], "__path__")])
def test_a_module_is_a_module_and_a_name_is_none(path):
    """`timm.layers.create_conv2d` is a function, though there is a module of that name; `inplace_abn` is the module."""
    package = importlib.import_module(f"mvlib.timm.{path}".rstrip("."))
    for name, theirs in vars(modules()[path]).items():
        is_module = isinstance(theirs, ModuleType) and theirs.__name__ == f"{modules()[path].__name__}.{name}"
        if not name.startswith("__") and hasattr(package, name) and (is_module or not isinstance(theirs, ModuleType)):
            assert isinstance(getattr(package, name), ModuleType) == is_module, name


THERE = [path for path in PATHS if exists(path) or not path]


def test_what_a_module_imports_is_had_from_it():
    """`from timm.models.deit import VisionTransformer`, `from timm.data.loader import RandomErasing`."""
    missing = []
    for path in THERE:
        module = importlib.import_module(f"mvlib.timm.{path}".rstrip("."))
        if hasattr(module, "__path__") or path.startswith("data.readers."):
            continue
        for name, value in vars(modules()[path]).items():
            home = (getattr(value, "__module__", None) or "").removeprefix("timm.")
            if home in THERE and home != path and name in names(home) and not hasattr(module, name):
                missing.append(f"{path}.{name}")
    assert sorted(missing) == ["data.model_config.get_model_input_config", "utils.model.BatchNormAct2d",
                               "utils.model.SyncBatchNormAct"]
    assert importlib.import_module("mvlib.timm.models.deit").VisionTransformer is \
        importlib.import_module("mvlib.timm.models.vision_transformer").VisionTransformer


@pytest.mark.parametrize("path", THERE)
def test_names_are_what_they_are_in_timm(path):
    """A class is a class, a function can be called, and both take timm's arguments by their names."""
    assert [entry for entry in otherwise(path) if entry not in OTHERWISE] == []


def test_what_is_otherwise_is_so():
    found = {entry for path in THERE for entry in otherwise(path)}
    assert sorted(OTHERWISE.keys() - found) == []


@cache
def otherwise(path):
    """What the names of a module are not, or do not take, that timm's are or take."""
    found = []
    for name, theirs in public(path).items():
        target = names(path).get(name)
        if target is None or target[0] == finder._ENTRYPOINTS or typing.get_origin(theirs) is not None:
            continue
        ours = get(path, name)
        if inspect.isclass(theirs) and not inspect.isclass(ours):
            found.append(f"{name} is no class")
        elif callable(theirs) and not callable(ours):
            found.append(f"{name} cannot be called")
        elif callable(theirs):
            found += [f"{name}({parameter}=)" for parameter in sorted(parameters(theirs) - parameters(ours, theirs))]
    return found


_GRAPHS = "its steps are not captured in CUDA graphs, nor differentiated through"
OTHERWISE = {  # why what we have is of another kind, or takes other arguments
    "ReaderHfds(download=)": "a data set is always got, if it is not there",
    "ReaderHfds(target_format=)": "target_transform=MultiLabelTarget(...) makes vectors of the classes of a sample",
    "ReaderImageInTar(cache_tarfiles=)": "tars are read in place",
    "ReaderImageInTar(cache_tarinfo=)": "the index is always kept in mvlib's cache",
    **{f"{name}({how}=)": _GRAPHS for name, how in (
        ("AdamWLegacy", "capturable"), ("Adopt", "capturable"), ("Adopt", "differentiable"), ("Muon", "capturable"),
        ("NAdamW", "capturable"), ("SGDW", "differentiable"))},
    "Muon(adamw_lr=)": "deprecated in timm; fallback_lr_scale says it",
    "Muon(verbose=)": "the groups tell which parameters fall back",
    "CoaT(out_features=)": "forward_intermediates gives features",
    "CoaT(return_interm_layers=)": "forward_intermediates gives features",
    "FastVit(fork_feat=)": "features_only=True gives features",
    "PoolingVisionTransformer(distilled=)": "PoolingVisionTransformerDistilled is a class of its own",
    "Twins(block_cls=)": "window sizes say which blocks attend within windows",
}


def parameters(function, of=None):
    """Names of a callable's parameters; those of another that it takes by **kwargs count, too."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return set()
    own = {p.name for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return own | parameters(of) if of and any(p.kind is p.VAR_KEYWORD for p in found) else own


def test_what_is_absent_is_so_and_timm_has_it():
    for full, reason in tables.absences().items():
        assert reason and not reason.endswith("."), full
        path, _, name = full.rpartition(".")
        if full in modules():
            assert not exists(full), f"{full} is there"
            continue
        assert path in modules() and hasattr(modules()[path], name), f"timm has no {full}"
        assert name not in names(path), f"{full} is there"


def test_every_row_of_the_tables_leads_somewhere():
    lost = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in tables.paths():
            for name, target in tables.names(path).items():
                try:
                    get(path, name)
                except (AttributeError, ImportError) as error:
                    lost.append(f"{path}.{name} -> {'.'.join(target)}: {error}")
    assert lost == []
