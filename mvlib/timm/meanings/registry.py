"""timm's registry: the same models, registered and described as timm does it. Imports no torch."""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ... import registry
from ...names import split_model_name_tag
from ...registry import get_deprecated_models, is_ours, task_of
from ...tasks import CLASSIFICATION
from .entrypoints import entrypoint
from .pretrained import DefaultCfg, PretrainedCfg, config_of, pretrained_cfg_of

__all__ = [
    "foreign_entrypoint", "generate_default_cfgs", "get_arch_pretrained_cfgs", "get_pretrained_cfg",
    "get_pretrained_cfg_value", "hidden", "is_model", "list_models", "list_modules", "list_pretrained",
    "model_entrypoint", "register_model", "register_model_deprecations",
]

Names = str | Iterable[str]

hidden: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {}  # ours that a user's replaced, and their weights
_foreign: dict[str, Callable[..., Any]] = {}  # registered here: they take what timm passes to an entrypoint


def register_model(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function that builds a model, `def my_net(pretrained=False, **kwargs)`, known by its name.

    Its module's `default_cfgs` describe its weights, and its name joins the module's `__all__`. `create_model` calls it
    with `pretrained`, `pretrained_cfg`, `pretrained_cfg_overlay`, `cache_dir` and the caller's arguments.

    Warns:
        UserWarning: The name was taken; this function has it now.
    """
    name, module = fn.__name__, sys.modules[fn.__module__]
    _export(module, name)
    if registry.is_model(name) and _foreign.get(name) is not fn:
        warnings.warn(f"{fn.__module__}.{name} takes the place of the model '{name}' that was registered before; "
                      f"choose another name if that is not meant", stacklevel=2)
        if registry.is_ours(name) and name not in get_deprecated_models():
            hidden[name] = registry.load_entrypoint(name), registry.get_arch_pretrained_cfgs(name)
    default = getattr(module, "default_cfgs", {}).get(name)
    if isinstance(default, Mapping):  # of old: the fields of one config
        default = DefaultCfg(cfgs={"": PretrainedCfg(**default)})
        default.tags.append("")
    weights = {} if default is None else {tag: _completed(default.cfgs[tag], name, tag) for tag in default.tags}
    registry.register_model(fn, weights=weights, override=True)
    _foreign[name] = fn
    return fn


def _export(module: Any, name: str) -> None:
    if not hasattr(module, "__all__"):
        module.__all__ = []
    if name not in module.__all__:
        module.__all__.append(name)


def _completed(cfg: PretrainedCfg, name: str, tag: str) -> Any:
    if cfg.hf_hub_id == "timm/":
        cfg = dataclasses.replace(cfg, hf_hub_id=f"timm/{name}.{tag}" if tag else f"timm/{name}")
    return config_of(dataclasses.replace(cfg, architecture=name, tag=tag or None), name)


def foreign_entrypoint(model_name: str) -> Callable[..., Any] | None:
    """The function of an architecture that takes what timm passes to entrypoints; None where ours builds it."""
    name = split_model_name_tag(model_name)[0]
    fn = _foreign.get(name)
    if fn is None or not registry.is_model(name):
        return None
    return fn if registry.load_entrypoint(name) is fn else None  # mvlib.register_model may have put another there


def generate_default_cfgs(cfgs: Mapping[str, Any]) -> dict[str, DefaultCfg]:
    """{"architecture" or "architecture.tag": config or its fields} as {architecture: `DefaultCfg`}.

    The default is the first with weights, unless weights without a tag come later, or a tag that ends with "*".
    """
    found: dict[str, DefaultCfg] = defaultdict(DefaultCfg)
    chosen = set()
    for key, value in cfgs.items():
        cfg = PretrainedCfg(**value) if isinstance(value, Mapping) else value
        name, tag = split_model_name_tag(key)
        default = found[name]
        is_first = bool(cfg.has_weights) and not default.is_pretrained
        if (cfg.has_weights and not tag) or (tag.endswith("*") and name not in chosen):
            chosen.add(name)
            is_first = True
        tag = tag.strip("*")
        (default.tags.appendleft if is_first else default.tags.append)(tag)
        default.is_pretrained = default.is_pretrained or bool(cfg.has_weights)
        default.cfgs[tag] = cfg
    return found


def register_model_deprecations(module_name: str, deprecation_map: Mapping[str, str | None]) -> None:
    """Make old names stand for current ones, {old: "architecture" or "architecture.tag", or None: gone}.

    Each becomes a function of the module, which warns.
    """
    module = sys.modules[module_name]
    registry.register_model_deprecations(module_name, deprecation_map)
    for name in deprecation_map:
        if hasattr(module, "__all__"):
            _export(module, name)
        setattr(module, name, entrypoint(name))


def model_entrypoint(model_name: str, module_filter: str | None = None) -> Callable[..., Any]:
    """The function that builds an architecture, `fn(pretrained=False, **kwargs)`.

    Raises:
        UnknownNameError: The architecture is unknown, or not in the module `module_filter`.
    """
    current = registry.model_entrypoint(model_name, module_filter)
    name = split_model_name_tag(model_name)[0]
    if name in get_deprecated_models() or is_ours(name):
        return entrypoint(name)
    return current


def is_model(model_name: str) -> bool:
    """Whether a name is that of an image classifier, with or without a tag; old names count."""
    return registry.is_model(model_name) and (
        get_deprecated_models().get(split_model_name_tag(model_name)[0], "") is None or
        task_of(model_name) == CLASSIFICATION)


def list_modules() -> list[str]:
    """Names of the modules that have image classifiers."""
    return registry.list_modules(CLASSIFICATION)


def list_models(
    filter: Names = "",
    module: Names = "",
    pretrained: bool = False,
    exclude_filters: Names = "",
    name_matches_cfg: bool = False,
    include_tags: bool | None = None,
) -> list[str]:
    """Names of models, as `mvlib.list_models` has them, but for the int8 ones, which are torchvision's and cannot be
    trained; a module that has none lists none."""
    known = set(list_modules())
    modules = [name for name in ([module] if isinstance(module, str) else module or ()) if name]
    wanted = [name for name in modules if name in known]
    if modules and not wanted:
        return []
    int8 = [name for name in registry.list_models(module="quantization") if registry.is_ours(name)]
    exclude = [exclude_filters] if isinstance(exclude_filters, str) else exclude_filters or ()
    exclude = [*(pattern for pattern in exclude if pattern), *int8]
    return registry.list_models(filter, wanted, pretrained, exclude, name_matches_cfg, include_tags,
                                task=CLASSIFICATION)


def list_pretrained(filter: Names = "", exclude_filters: Names = "") -> list[str]:
    """Names, with tags, of all weights."""
    return list_models(filter, pretrained=True, exclude_filters=exclude_filters, include_tags=True)


def get_pretrained_cfg(model_name: str, allow_unregistered: bool = True) -> PretrainedCfg | None:
    """The config of a name, of an architecture its default, as a copy that may be changed.

    Raises:
        UnknownNameError: The tag is unknown, or there is no config and that is not allowed.
    """
    if allow_unregistered and not registry.is_model(model_name):
        return None
    config = registry.get_pretrained_cfg(model_name, allow_unregistered)
    return None if config is None else pretrained_cfg_of(config)


def get_pretrained_cfg_value(model_name: str, cfg_key: str) -> Any:
    """One field of a name's config, None where there is no such field.

    Raises:
        UnknownNameError: The name has no config.
    """
    return getattr(get_pretrained_cfg(model_name, allow_unregistered=False), cfg_key, None)


def get_arch_pretrained_cfgs(model_name: str) -> dict[str, PretrainedCfg]:
    """All configs of an architecture by name with tag; empty where it is unknown."""
    return {name: pretrained_cfg_of(config) for name, config in registry.get_arch_pretrained_cfgs(model_name).items()}
