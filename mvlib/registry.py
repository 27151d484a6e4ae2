"""The one registry of models: ours, known through the generated index, and the user's own. Imports no torch.

`catalog/index.json` (written by scripts/build_index.py) says which family module defines which architecture and which
tags have weights, so that listing imports no family; a family's module is imported when one of its models is first
built, and its catalog is read, from a copy in JSON, when the details of its weights are first asked for.
"""

from __future__ import annotations

import fnmatch
import importlib
import json
import os
import sys
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, overload

from .errors import ConfigError, UnknownNameError
from .names import closest, missing_folder, natural_key, split_model_name_tag, weights_file
from .tasks import CLASSIFICATION, find_task, refuse

if TYPE_CHECKING:
    from .weights import WeightsConfig

__all__ = [
    "builder_facts",
    "check_is_classifier",
    "count_models",
    "get_arch_name",
    "get_arch_pretrained_cfgs",
    "get_arch_tags",
    "get_deprecated_models",
    "get_module",
    "get_pretrained_cfg",
    "get_pretrained_cfg_value",
    "is_model",
    "is_model_in_modules",
    "is_model_pretrained",
    "list_builders",
    "list_models",
    "list_modules",
    "list_pretrained",
    "match_models",
    "model_entrypoint",
    "register_catalog",
    "register_model",
    "register_model_deprecations",
    "resolve_name",
    "split_model_name_tag",
    "task_of",
    "torchvision_arguments",
    "torchvision_builder",
]

CATALOG_DIR = os.path.join(os.path.dirname(__file__), "catalog")
_FAMILY_PACKAGE = "mvlib.models."

Entrypoint = TypeVar("Entrypoint", bound=Callable[..., Any])
Target = TypeVar("Target", str, str | None)
Names = str | Iterable[str]
Part = Mapping[str, Any] | str
Row = Part | Sequence[Part]


class _Run:
    """One execution of a module's code."""

    __slots__ = ("file", "module", "spec")

    def __init__(self, module_globals: Mapping[str, Any]) -> None:
        self.module, self.file = module_globals.get("__name__"), module_globals.get("__file__")
        spec = module_globals.get("__spec__")  # each import and each importlib.reload makes a new one
        self.spec = spec and weakref.ref(spec)

    def repeats(self, other: _Run | None) -> bool:
        """Whether this is another execution of the same file: reloaded after a change, or imported anew."""
        if other is None or self.spec is None or (self.module, self.file) != (other.module, other.file):
            return False
        return other.spec is None or self.spec() is not other.spec()


class _Entry:
    """What the registry knows of one architecture."""

    __slots__ = ("added", "configs", "entrypoint", "module", "name", "place", "published", "run", "tags",
                 "task")

    def __init__(
        self, name: str, module: str, tags: Iterable[str] = (), weightless: Iterable[str] = (),
        task: str = CLASSIFICATION,
    ) -> None:
        self.name = name
        self.task = task
        self.module = module  # short name of the module, as timm lists it
        self.tags = list(tags)  # the default first; "" for one that has no name
        self.published = set(self.tags).difference(weightless)
        self.configs: dict[str, WeightsConfig] | None = None  # read from the family's catalog when first needed
        self.entrypoint: Callable[..., Any] | None = None
        self.place: str | None = None  # where the entrypoint is defined
        self.run: _Run | None = None  # what has registered it
        self.added: dict[str, _Run] = {}  # tags from catalogs, and what has registered these

    def set_configs(self, configs: dict[str, WeightsConfig]) -> None:
        self.configs = configs
        self.tags = list(configs)
        self.published = {tag for tag, config in configs.items() if config.has_weights}
        self.task = next((config.task for config in configs.values()), self.task)

    @property
    def listed(self) -> list[str]:
        return [f"{self.name}.{tag}" if tag else self.name for tag in self.tags] or [self.name]

    @property
    def pretrained(self) -> list[str]:
        names = [f"{self.name}.{tag}" if tag else self.name for tag in self.published]
        return [*names, self.name] if self.tags and self.tags[0] in self.published else names


class _Registry:
    def __init__(self) -> None:
        self.clear()
        self.read_index()

    def clear(self) -> None:
        self.entries: dict[str, _Entry] = {}
        self.aliases: dict[str, str] = {}
        self.deprecated: dict[str, str | None] = {}
        self.deprecated_by_module: dict[str, dict[str, str | None]] = {}
        self.builders: dict[str, dict[str, Any]] = {}  # torchvision's
        self.builder_of: dict[str, str] = {}  # architecture -> torchvision's builder
        self.catalogs: dict[str, dict[str, Any]] = {}

    def read_index(self) -> None:
        try:
            with open(os.path.join(CATALOG_DIR, "index.json"), encoding="utf-8") as stream:
                index = json.load(stream)
        except FileNotFoundError:  # a source tree whose index has not been built yet
            return
        for module, family in index.items():
            weightless, tasks = family["weightless"], family.get("tasks", {})
            for name, tags in family["models"].items():
                self.entries[name] = _Entry(name, module, tags, weightless.get(name, ()),
                                            tasks.get(name, CLASSIFICATION))
            self.aliases.update(family["aliases"])
            self.deprecate(module, family["deprecated"])
            self.builders.update(family.get("builders", {}))
        for name in self.builders:
            self.builder_of[self.aliases.get(name, name).partition(".")[0]] = name

    def deprecate(self, module: str, names: Mapping[str, str | None]) -> None:
        self.deprecated.update(names)
        if names:
            self.deprecated_by_module.setdefault(module, {}).update(names)

    def forget(self, name: str) -> None:
        """Remove an alias or a deprecated name."""
        self.aliases.pop(name, None)
        self.deprecated.pop(name, None)
        for names in self.deprecated_by_module.values():
            names.pop(name, None)

    def configs(self, entry: _Entry) -> dict[str, WeightsConfig]:
        if entry.configs is None:
            from .weights import as_configs

            entry.configs = as_configs(entry.name, self.catalog(entry.module).get(entry.name, {}))
        return entry.configs

    def catalog(self, module: str) -> dict[str, Any]:
        """{architecture: {tag: fields}} of a family of ours."""
        if module not in self.catalogs:
            from .weights import read_entries

            path = os.path.join(CATALOG_DIR, f"{module}.json")
            self.catalogs[module] = read_entries(path)[0] if os.path.exists(path) else {}
        return self.catalogs[module]


_registry = _Registry()


class _RegisterModel:
    """Decorator: make a function that builds a model known by its name. In a module that is reloaded, the new one wins.

        @register_model
        def my_net(**kwargs) -> MyNet:
            return MyNet(**kwargs)

        @register_model(weights={"in1k": {"sources": ["file:/weights/my_net.safetensors"], "crop_pct": 0.95}})
        def my_other_net(**kwargs) -> MyNet: ...

    `register_model.variants` registers many that differ in their arguments.

    Args:
        fn: The entrypoint: takes the architecture's keyword arguments, returns the model, touches no weights.
        weights: {tag: fields of a `WeightsConfig`} or configs; the first is the default.
        name: Name to register under instead of the function's.
        override: Replace a model that has the name already, with its weights.

    Returns:
        The function, unchanged.

    Raises:
        ConfigError: The name is taken (the message names both places), cannot name a model, `fn` is no function, or
            `weights` are no configs; nothing is registered then.
    """

    @overload
    def __call__(
        self, fn: Entrypoint, *, weights: Mapping[str, Any] | Iterable[WeightsConfig] | None = ...,
        name: str | None = ..., override: bool = ...,
    ) -> Entrypoint: ...
    @overload
    def __call__(
        self, fn: None = ..., *, weights: Mapping[str, Any] | Iterable[WeightsConfig] | None = ...,
        name: str | None = ..., override: bool = ...,
    ) -> Callable[[Entrypoint], Entrypoint]: ...
    def __call__(
        self,
        fn: Entrypoint | None = None,
        *,
        weights: Mapping[str, Any] | Iterable[WeightsConfig] | None = None,
        name: str | None = None,
        override: bool = False,
    ) -> Any:
        if fn is None:
            return lambda function: self(function, weights=weights, name=name, override=override)
        _register(fn, weights, name, override)
        return fn

    def variants(
        self, module: str, maker: Callable[..., Any], table: Mapping[str, Row], *, override: bool = False
    ) -> None:
        """Register an architecture for each row of a table; each becomes a function of the module. (But those of ours
        that have a torchvision builder's name: this is the builder, in a family's module as in `mvlib.models`.)

            _R50, _D = dict(layers=(3, 4, 6, 3)), dict(stem_type="deep", avg_down=True)

            register_model.variants(__name__, ResNet, {
                "resnet50": _R50,
                "resnet50d": (_R50, _D),
                "resnet50x": (_R50, _D, dict(stem_width=48), "A deep stem, wider than usual."),
            })

        Args:
            module: `__name__` of the module.
            maker: What is called with a row's arguments, those of the caller over them: the class, or a function that
                passes what it does not know to the class that its annotation says it returns.
            table: {name: row}. A row is the arguments by which the architecture differs from the maker's defaults, or
                several such presets, merged left to right. A text among them comes first in the function's docstring.
            override: As of `register_model`.

        Raises:
            ConfigError: A row is made of something else, or has an argument that the maker does not take: no row is
                registered then. Or as of `register_model`: the rows before that one stay.
        """
        from .arguments import arguments_of, summarize

        if not hasattr(maker, "__qualname__"):
            raise ConfigError(f"register_model.variants takes a class or a function that makes models, not {maker!r}")
        if module not in sys.modules:
            raise ConfigError(f"register_model.variants takes the __name__ of its module, not {module!r}")
        known = arguments_of(maker)
        caller = sys._getframe(1)
        entrypoints = []
        for name, row in table.items():
            own, doc = _merged(name, row)
            for key in own:
                if known is not None and key not in known:
                    raise ConfigError(f"the row '{name}' has the argument {key!r}, which {maker.__name__} does not "
                                      f"know{closest(key, known) or '.'} It takes: {', '.join(sorted(known))}")
            fn = _bound(maker, own)
            fn.__code__ = fn.__code__.replace(  # for tracebacks, and for messages that say where a model is registered
                co_name=name, co_filename=caller.f_code.co_filename, co_firstlineno=caller.f_lineno)
            is_theirs = module.startswith(_FAMILY_PACKAGE) and name in _registry.builders
            fn.__name__, fn.__qualname__ = name, f"_{name}" if is_theirs else name  # where pickle finds it
            fn.__module__ = module
            fn.arguments = own
            fn.__doc__ = f"{doc}{maker.__name__}, {summarize(own) or 'as it is by default'}."
            if isinstance(maker, type):
                fn.__annotations__ = {"return": maker}
            else:
                fn.__annotations__ = {key: value for key, value in maker.__annotations__.items() if key == "return"}
                fn.__wrapped__ = maker
            entrypoints.append(fn)
        for fn in entrypoints:
            _register(fn, override=override)
            setattr(sys.modules[module], fn.__qualname__, fn)


def _register(
    fn: Callable[..., Any],
    weights: Mapping[str, Any] | Iterable[WeightsConfig] | None = None,
    name: str | None = None,
    override: bool = False,
) -> None:
    if not hasattr(fn, "__qualname__"):
        raise ConfigError(f"register_model takes a function or a class, not {fn!r}; write a function that calls it")
    name = name or fn.__name__
    if not name or any(c in name for c in ".:/\\@*?[] "):
        raise ConfigError(f"'{name}' cannot name a model: it would be read as a tag, a path, a source or a wildcard")
    configs = None
    if weights is not None:
        from .weights import as_configs

        configs = as_configs(name, weights)
    place, run = _place(fn), _Run(getattr(sys.modules.get(fn.__module__), "__dict__", {}))
    entry = _registry.entries.get(name)
    is_ours = fn.__module__.startswith(_FAMILY_PACKAGE)
    module = fn.__module__.rpartition(".")[2]
    again = entry is not None and run.repeats(entry.run)
    added = {tag: (entry.configs[tag], entry.added[tag]) for tag in entry.added
             if entry.configs and tag in entry.configs} if entry is not None and again else {}
    if entry is not None and (entry.place != place or again):
        if is_ours and (entry.place is None and entry.module == module or again):
            entry.entrypoint, entry.place, entry.run = fn, place, run  # the family of an indexed name is being imported
            return
        if is_ours and entry.place is not None and not entry.place.startswith(_FAMILY_PACKAGE):
            return  # a user overrode the name before the family was imported: theirs stays
        if not override and not again and not _is_interactive(fn, entry):
            raise ConfigError(f"the model name '{name}' is registered twice: by {_entry_place(entry)} and by {place}; "
                              f"choose another name, or register with override=True")
        entry = None
    if entry is None:
        for names in (_registry.deprecated, _registry.aliases):
            if name in names and not override:
                raise ConfigError(f"the model name '{name}' is taken: it stands for '{names[name]}'; choose another "
                                  f"name, or register {place} with override=True")
        _registry.forget(name)
        entry = _registry.entries[name] = _Entry(name, module)
        if not is_ours:
            entry.configs = {}
    entry.entrypoint, entry.place, entry.run = fn, place, run
    if configs is not None or added:
        kept = {tag: config for tag, (config, _) in added.items() if tag not in (configs or {})}
        entry.set_configs(_joined(configs or {}, kept))
        entry.added = {tag: added[tag][1] for tag in kept}


def _bound(maker: Callable[..., Any], own: Mapping[str, Any]) -> Any:
    return lambda **kwargs: maker(**{**own, **kwargs})


def _merged(name: str, row: Row) -> tuple[dict[str, Any], str]:
    """A row's arguments; and its description, if it has one, as a docstring begins with it."""
    own: dict[str, Any] = {}
    doc = ""
    for part in row if isinstance(row, (tuple, list)) else (row,):
        if isinstance(part, Mapping):
            own.update(part)
        elif isinstance(part, str) and not doc:
            doc = f"{part}\n\n    "
        else:
            raise ConfigError(f"the row '{name}' is made of mappings of arguments and a text at most, not of {part!r}")
    return own, doc


register_model = _RegisterModel()


def register_catalog(path: str | os.PathLike[str]) -> list[str]:
    """Register the weights in a YAML catalog of the user's, for architectures that are registered already.

    Tags are added to an architecture's own; the first tag of an architecture that has no weights becomes its default.
    `first_conv` and `classifier` need not be said: they are those of the architecture's default.

    Returns:
        Names of the weights that were added.

    Raises:
        ConfigError: The file is not a catalog, or a tag exists already; nothing is registered then.
        UnknownNameError: An architecture is not registered, or an alias stands for none.
    """
    from .weights import load_catalog

    catalog, run = load_catalog(path), _Run(sys._getframe(1).f_globals)
    merged = [(_find(name), _merge(_find(name), added, path, run)) for name, added in catalog.configs.items()]
    aliases = {name: _target(name, target) for name, target in catalog.aliases.items()}
    deprecated = {name: _target(name, target) for name, target in catalog.deprecated.items()}
    for entry, configs in merged:
        entry.set_configs(configs)
        entry.added.update(dict.fromkeys(catalog.configs[entry.name], run))
    _registry.aliases.update(aliases)
    _registry.deprecate(os.path.basename(path).partition(".")[0], deprecated)
    return [config.name for config in catalog]


def _merge(
    entry: _Entry, added: dict[str, WeightsConfig], path: str | os.PathLike[str], run: _Run
) -> dict[str, WeightsConfig]:
    """An architecture's configs with a catalog's added; these take the names of its layers from those."""
    configs = {tag: config for tag, config in _registry.configs(entry).items() if not run.repeats(entry.added.get(tag))}
    for tag in added:
        if tag in configs and (tag or configs[tag].has_weights):
            raise ConfigError(f"{path}: '{entry.name}.{tag}' is registered already, by {_entry_place(entry)}")
    if configs:
        default = next(iter(configs.values()))
        added = {tag: config.replace(first_conv=config.first_conv or default.first_conv,
                                     classifier=config.classifier or default.classifier)
                 for tag, config in added.items()}
    return _joined(configs, added)


def _joined(configs: dict[str, WeightsConfig], added: dict[str, WeightsConfig]) -> dict[str, WeightsConfig]:
    """Configs of both; the first, which is the default, has weights if one of them has."""
    keep = {tag: config for tag, config in configs.items() if tag or config.has_weights}
    has_weights = any(config.has_weights for config in keep.values())
    return {**keep, **added} if has_weights else {**added, **keep}


def _target(name: str, target: Target) -> Target:
    """What a new alias or deprecated name stands for, followed to the end."""
    if name in _registry.entries:
        raise ConfigError(f"'{name}' cannot stand for '{target}': it is registered, by "
                          f"{_entry_place(_registry.entries[name])}")
    if target is None:
        return None
    architecture, tag = _follow(target, warn=False)
    return f"{_find(architecture).name}.{tag}" if tag else _find(architecture).name


def register_model_deprecations(module_name: str, deprecation_map: Mapping[str, str | None]) -> None:
    """Make old names stand for current ones, with a warning when they are used.

    Args:
        module_name: `__name__` of the module that has the current models.
        deprecation_map: {old name: "architecture" or "architecture.tag", or None for a model that is gone}.

    Raises:
        ConfigError: An old name is the name of a registered model.
        UnknownNameError: An architecture that a name shall stand for is not registered.
    """
    names = {name: _target(name, target) for name, target in deprecation_map.items()}
    _registry.deprecate(module_name.rpartition(".")[2], names)


def list_models(
    filter: Names = "",
    module: Names = "",
    pretrained: bool = False,
    exclude_filters: Names = "",
    name_matches_cfg: bool = False,
    include_tags: bool | None = None,
    task: str | None = None,
) -> list[str]:
    """Names of models, in natural order. Aliases and deprecated names are not listed.

    Args:
        filter: fnmatch pattern or patterns. Where tags are included, a pattern without a tag matches all tags.
        module: Limit to these modules ("resnet").
        pretrained: Only names that have weights.
        exclude_filters: Patterns to leave out again.
        name_matches_cfg: Only names that have a weights config.
        include_tags: List architecture.tag; None includes them where `pretrained` is set.
        task: Only models of this task ("classification", "detection", "segmentation", ...: `tasks.TASKS`).

    Raises:
        UnknownNameError: A module is unknown.
        ConfigError: The task is unknown.
    """
    include, exclude, modules = _as_list(filter), _as_list(exclude_filters), _as_list(module)
    for unknown in set(modules).difference(list_modules()) if modules else ():
        raise UnknownNameError(f"no module '{unknown}' has models{closest(unknown, list_modules())}")
    include_tags = pretrained if include_tags is None else include_tags
    task = task and find_task(task)
    entries = [e for e in _registry.entries.values()
               if (not modules or e.module in modules) and (not task or e.task == task)]
    names = {name for e in entries for name in (e.listed if include_tags else (e.name,))}
    if include_tags:
        include, exclude = _expand_tags(include), _expand_tags(exclude)
    if include:
        names = {name for pattern in include for name in fnmatch.filter(names, pattern)}
    for pattern in exclude:
        names.difference_update(fnmatch.filter(names, pattern))
    if pretrained:
        names &= {name for e in entries for name in e.pretrained}
    if name_matches_cfg:
        names &= {name for e in entries if e.tags for name in (*e.listed, e.name)}
    return sorted(names, key=natural_key)


def list_pretrained(filter: Names = "", exclude_filters: Names = "") -> list[str]:
    """Names, with tags, of all weights; see `list_models`."""
    return list_models(filter, pretrained=True, exclude_filters=exclude_filters, include_tags=True)


def match_models(names: Names, pretrained: bool = False, what: str = "this") -> list[str]:
    """Classifiers by the names that are asked for, wildcards among them replaced by what they match; each name once.

    Args:
        names: Names, wildcards, and folders of exports; a wildcard with a dot ("resnet50.*") matches tags, one without
            architectures.
        pretrained: Whether wildcards match only what has weights.
        what: Who asks, for an error's message.

    Raises:
        UnknownNameError: A name is unknown or of no registered model, or a wildcard matches nothing.
        ConfigError: A name is a model's of another task, or a wildcard matches such models alone.
    """
    from .engines.folder import is_export

    found: dict[str, None] = {}
    for name in _as_list(names):
        if is_export(name):
            found[name] = None
        elif any(character in name for character in "*?["):
            matches = list_models(name, pretrained=pretrained, include_tags="." in name, task=CLASSIFICATION)
            if not matches:
                for other in list_models(name):
                    check_is_classifier(other, what)
                kind = "model with weights" if pretrained else "model"
                raise UnknownNameError(f"no {kind} matches '{name}'{closest(name.strip('*'), _registry.entries)}")
            found.update(dict.fromkeys(matches))
        else:
            resolve_name(name)
            check_is_classifier(name, what)
            found[name] = None
    return list(found)


def count_models() -> int:
    """How many architectures are registered."""
    return len(_registry.entries)


def list_modules(task: str | None = None) -> list[str]:
    """Names of the modules that have models, of a task if one is named.

    Raises:
        ConfigError: The task is unknown.
    """
    if task:
        task = find_task(task)
        return sorted({entry.module for entry in _registry.entries.values() if entry.task == task})
    return sorted({entry.module for entry in _registry.entries.values()} | set(_registry.deprecated_by_module))


def get_deprecated_models(module: str = "") -> dict[str, str | None]:
    """Deprecated names and what they stand for (None: gone), of all modules or of one."""
    return dict(_registry.deprecated_by_module.get(module, {}) if module else _registry.deprecated)


def list_builders(task: str | None = None) -> list[str]:
    """Names of torchvision's builders, sorted: "resnet50", "vit_b_16", "quantized_resnet50", ...; of a task if one is
    named.

    Raises:
        ConfigError: The task is unknown.
    """
    task = task and find_task(task)
    return sorted(name for name in _registry.builders if not task or task_of(name) == task)


def torchvision_builder(model_name: str) -> str | None:
    """torchvision's builder of a model: the name itself, or torchvision's name of the same architecture."""
    if model_name in _registry.builders:
        return model_name
    return _registry.builder_of.get(_follow(model_name, warn=False)[0])


def torchvision_arguments(architecture: str) -> dict[str, Any]:
    """By which arguments, beside its defaults, an architecture is torchvision's model; none where it has no such."""
    if not is_model(architecture):
        return {}
    configs = get_arch_pretrained_cfgs(architecture).values()
    return dict(next((config.model_args for config in configs if config.preprocessing == "torchvision"), {}))


def builder_facts(builder: str) -> dict[str, Any]:
    """What is known of one of torchvision's builders.

    Returns:
        `weights`, the name of its Enum.
    """
    return _registry.builders[builder]


def get_arch_tags(model_name: str) -> list[str]:
    """Tags of an architecture that have weights, the default first if it has some; "" for weights without a tag."""
    entry = _find(_follow(model_name, warn=False)[0])
    return [tag for tag in entry.tags if tag in entry.published]


def get_arch_name(model_name: str) -> str:
    """The architecture in a model name, without its tag."""
    return split_model_name_tag(model_name)[0]


def is_model(model_name: str) -> bool:
    """Whether the architecture is registered; the tag is ignored, aliases and deprecated names count."""
    architecture = get_arch_name(model_name)
    return architecture in _registry.entries or architecture in _registry.aliases or \
        architecture in _registry.deprecated


def is_model_in_modules(model_name: str, module_names: Names) -> bool:
    """Whether the architecture is defined in one of these modules; aliases and deprecated names count."""
    entry = _registry.entries.get(_follow(model_name, warn=False)[0])
    return entry is not None and entry.module in _as_list(module_names)


def get_module(model_name: str) -> str:
    """Short name of the module that defines the architecture.

    Raises:
        UnknownNameError: The architecture is unknown.
    """
    return _find(_follow(model_name, warn=False)[0]).module


def task_of(model_name: str) -> str:
    """What a model is for: "classification", "detection", ... (`tasks.TASKS`).

    Raises:
        UnknownNameError: The architecture is unknown.
    """
    return _find(_follow(model_name, warn=False)[0]).task


def check_is_classifier(model_name: str, what: str) -> None:
    """Refuse a model that does not classify images.

    Args:
        model_name: A name of the registry; of a repository, nothing is known before it is loaded.
        what: Who takes classifiers alone, for the message.

    Raises:
        UnknownNameError: The architecture is unknown.
        ConfigError: The model is for another task; the message says how it is used.
    """
    task = CLASSIFICATION if ":" in model_name else task_of(model_name)
    if task != CLASSIFICATION:
        refuse(model_name, task, what)


def is_model_pretrained(model_name: str) -> bool:
    """Whether weights are published under this name (of an architecture: under its default tag)."""
    architecture, tag = _follow(model_name, warn=False)
    entry = _registry.entries.get(architecture)
    if entry is None or not entry.tags:
        return False
    return (tag or entry.tags[0]) in entry.published


def resolve_name(model_name: str) -> tuple[str, str]:
    """The current (architecture, tag) of a registry name, aliases and deprecations followed; tag "" if none is named.

    Warns:
        FutureWarning: The name is deprecated; the warning says what to write instead.

    Raises:
        UnknownNameError: The architecture or the tag is unknown, or the model is gone.
    """
    architecture, tag = _follow(model_name)
    is_unknown = architecture not in _registry.entries
    if is_unknown and (reason := weights_file(model_name) or missing_folder(model_name)):  # NAME.ov
        raise UnknownNameError(reason)
    entry = _find(architecture)
    if tag and tag not in entry.tags:
        if reason := weights_file(model_name):
            raise UnknownNameError(reason)
        _raise_unknown_tag(entry, tag)
    return architecture, tag


def model_entrypoint(model_name: str, module_filter: str | None = None) -> Callable[..., Any]:
    """The function that builds the architecture.

    A family that has not been imported stays so: a stand-in is returned that imports it when it is called (or when
    its `__wrapped__` is read, as `inspect.signature` does).

    Raises:
        UnknownNameError: The architecture is unknown, or not in the module `module_filter`.
    """
    entry = _find(_follow(model_name)[0])
    if module_filter and entry.module != module_filter:
        raise UnknownNameError(f"the model '{model_name}' is not in the module '{module_filter}'; "
                               f"it is in '{entry.module}'")
    return entry.entrypoint or _LazyEntrypoint(entry)


def load_entrypoint(model_name: str) -> Callable[..., Any]:
    """The function itself that builds the architecture; imports its family.

    Raises:
        UnknownNameError: The architecture is unknown, or the index is wrong about it.
    """
    return _load(_find(_follow(model_name)[0]))


def _load(entry: _Entry) -> Callable[..., Any]:
    if entry.entrypoint is None and entry.task != CLASSIFICATION:
        from .builders import get_builder

        return get_builder(entry.name)
    if entry.entrypoint is None:
        importlib.import_module(_FAMILY_PACKAGE + entry.module)
        if entry.entrypoint is None:
            raise UnknownNameError(f"the index lists '{entry.name}' in '{entry.module}', which does not define it; run "
                                   f"scripts/build_index.py")
    return entry.entrypoint


def is_ours(model_name: str) -> bool:
    """Whether mvlib itself defines the architecture: not the user, who may have put another in its place.

    Raises:
        UnknownNameError: The architecture is unknown.
    """
    place = _find(_follow(model_name, warn=False)[0]).place
    return place is None or place.startswith(_FAMILY_PACKAGE)


class _LazyEntrypoint:
    """Stands for an entrypoint whose family has not been imported."""

    def __init__(self, entry: _Entry) -> None:
        self._entry = entry
        self.__name__ = self.__qualname__ = entry.name
        self.__module__ = _FAMILY_PACKAGE + entry.module

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        return _load(self._entry)

    def __call__(self, **kwargs: Any) -> Any:
        return _load(self._entry)(**kwargs)

    def __repr__(self) -> str:
        return f"<entrypoint {self.__module__}.{self.__name__}>"


@overload
def get_pretrained_cfg(model_name: str, allow_unregistered: Literal[False]) -> WeightsConfig: ...
@overload
def get_pretrained_cfg(model_name: str, allow_unregistered: bool = ...) -> WeightsConfig | None: ...
def get_pretrained_cfg(model_name: str, allow_unregistered: bool = True) -> WeightsConfig | None:
    """The weights config of a name; of an architecture, its default.

    Args:
        model_name: "resnet50" or "resnet50.a1_in1k".
        allow_unregistered: Return None, instead of raising, where the architecture has no config.

    Raises:
        UnknownNameError: The tag is unknown, or there is no config and that is not allowed.
    """
    architecture, tag = _follow(model_name)
    entry = _registry.entries.get(architecture)
    configs = _registry.configs(entry) if entry is not None else {}
    if entry is not None and configs:
        tag = tag or next(iter(configs))
        if tag not in configs:
            _raise_unknown_tag(entry, tag)
        return configs[tag]
    if allow_unregistered:
        return None
    if entry is None:
        _find(architecture)
    raise UnknownNameError(f"no weights config is registered for the architecture '{architecture}'")


def get_pretrained_cfg_value(model_name: str, cfg_key: str) -> Any:
    """One field of a name's weights config, None where there is no such field.

    Raises:
        UnknownNameError: The name has no config.
    """
    return getattr(get_pretrained_cfg(model_name, allow_unregistered=False), cfg_key, None)


def get_arch_pretrained_cfgs(model_name: str) -> dict[str, WeightsConfig]:
    """All weights configs of an architecture by name with tag; empty where it is unknown."""
    entry = _registry.entries.get(_follow(model_name, warn=False)[0])
    return {config.name: config for config in _registry.configs(entry).values()} if entry else {}


def _follow(model_name: str, warn: bool = True) -> tuple[str, str]:
    """(architecture, tag) after aliases and deprecations; a tag in the name wins over that of the old name's target."""
    architecture, tag = split_model_name_tag(model_name)
    if architecture in _registry.entries:
        return architecture, tag
    if architecture in _registry.deprecated:
        current = _registry.deprecated[architecture]
        if current is None:
            if not warn:
                return architecture, tag
            raise UnknownNameError(f"the model '{architecture}' was removed and nothing takes its place")
        if warn:
            warnings.warn(f"the model name '{architecture}' is deprecated; write '{current}' instead", FutureWarning,
                          stacklevel=caller_level())
    elif architecture in _registry.aliases:
        current = _registry.aliases[architecture]
    else:
        return architecture, tag
    target, target_tag = _follow(current, warn)
    return target, tag or target_tag


def _find(architecture: str) -> _Entry:
    entry = _registry.entries.get(architecture)
    if entry is None:
        known = (*_registry.entries, *_registry.aliases)
        raise UnknownNameError(f"unknown architecture '{architecture}'"
                               f"{closest(architecture, known) or '; list_models() has all that are known'}")
    return entry


def _raise_unknown_tag(entry: _Entry, tag: str) -> NoReturn:
    known = [t for t in entry.tags if t]
    if not known:
        raise UnknownNameError(f"unknown tag '{tag}' of the architecture '{entry.name}': it has no tags")
    hint = closest(tag, known) or f"; known tags: {', '.join(known)}"
    raise UnknownNameError(f"unknown tag '{tag}' of the architecture '{entry.name}'{hint}")


def _as_list(value: Names) -> list[str]:
    if not value:
        return []
    return [value] if isinstance(value, str) else list(value)


def _expand_tags(patterns: list[str]) -> list[str]:
    expanded = []
    for pattern in patterns:
        architecture, tag = split_model_name_tag(pattern)
        expanded += [pattern] if tag else [f"{architecture}.*", pattern]
    return expanded


def _place(fn: Callable[..., Any]) -> str:
    code = getattr(fn, "__code__", None)
    where = f" ({code.co_filename}:{code.co_firstlineno})" if code else ""
    return f"{fn.__module__}.{fn.__qualname__}{where}"


def _is_interactive(fn: Callable[..., Any], entry: _Entry) -> bool:
    """Whether a function of the same name is typed in again, in a notebook or at a prompt."""
    is_prompt = fn.__module__ == "__main__" and not hasattr(sys.modules["__main__"], "__file__")
    return is_prompt and (entry.place or "").partition(" ")[0] == f"__main__.{fn.__qualname__}"


def _entry_place(entry: _Entry) -> str:
    return entry.place or f"{_FAMILY_PACKAGE}{entry.module}.{entry.name} (mvlib)"


def caller_level() -> int:
    """`stacklevel` of the nearest frame outside mvlib and torch, so that a warning points at the user's line."""
    level = 1
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith(("mvlib", "torch.")):
        level, frame = level + 1, frame.f_back
    return level
