"""timm's builder of models, as repositories call it: `build_model_with_cfg(MyNet, "my_net", pretrained, **kwargs)`."""

from __future__ import annotations

import copy
import inspect
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from torch import nn

from ... import hub
from ...errors import WeightsError
from ...loading import load_weights, read_state_dict
from ...models.base import ImageModel
from ...models.pruning import prune_to_widths
from ...registry import is_model
from ...weights import WeightsConfig
from .features import extract_features
from .pretrained import PretrainedCfg, config_of, pretrained_cfg_of
from .registry import get_pretrained_cfg

__all__ = [
    "build_model_with_cfg", "load_custom_pretrained", "load_pretrained", "pretrained_cfg_for_features",
    "resolve_pretrained_cfg", "set_pretrained_check_hash", "set_pretrained_download_progress",
    "update_default_model_kwargs",
]

_logger = logging.getLogger("mvlib")
_show_progress = True

PathLike = str | os.PathLike[str]
Cfg = str | Mapping[str, Any] | PretrainedCfg | WeightsConfig
ModelT = TypeVar("ModelT", bound=nn.Module)


def set_pretrained_download_progress(enable: bool = True) -> None:
    """Whether `load_pretrained` shows a bar while it downloads."""
    global _show_progress
    _show_progress = enable


def set_pretrained_check_hash(enable: bool = True) -> None:
    """Without effect: a file whose checksum is known is always checked."""


def resolve_pretrained_cfg(
    variant: str, pretrained_cfg: Cfg | None = None, pretrained_cfg_overlay: Mapping[str, Any] | None = None
) -> PretrainedCfg:
    """The config of an architecture: what is given, or the registry's by its tag, with fields of the overlay.

    Raises:
        UnknownNameError: The tag is unknown.
    """
    if isinstance(pretrained_cfg, WeightsConfig):
        cfg = pretrained_cfg_of(pretrained_cfg)
    elif pretrained_cfg and not isinstance(pretrained_cfg, str):
        plain = dict(pretrained_cfg if isinstance(pretrained_cfg, Mapping) else vars(pretrained_cfg))
        state_dict = plain.pop("state_dict", None)
        cfg = pretrained_cfg_of(config_of(plain, plain.get("architecture") or variant))
        cfg.state_dict = state_dict
    else:
        name = f"{variant}.{pretrained_cfg}" if pretrained_cfg else variant
        found = get_pretrained_cfg(name) if is_model(variant) else None
        if found is None:
            _logger.warning("no config of weights is registered for '%s': timm's defaults are taken", name)
        cfg = found or PretrainedCfg()
    overlay = dict(pretrained_cfg_overlay or {})
    if not cfg.architecture:
        overlay.setdefault("architecture", variant)
    if any(overlay.get(key) for key in ("file", "url", "hf_hub_id", "hf_hub_filename")):
        overlay.setdefault("custom_load", False)  # it says what format the other file has
    for key, value in overlay.items():
        if not hasattr(cfg, key):
            raise TypeError(f"a config of weights has no field '{key}'")
        setattr(cfg, key, value)
    return cfg


def pretrained_cfg_for_features(pretrained_cfg: Mapping[str, Any]) -> dict[str, Any]:
    """A config's fields without those of the classifier."""
    return {key: copy.deepcopy(value) for key, value in pretrained_cfg.items()
            if key not in ("num_classes", "classifier", "global_pool")}


def load_pretrained(
    model: Any,
    pretrained_cfg: Mapping[str, Any] | PretrainedCfg | None = None,
    num_classes: int = 1000,
    in_chans: int = 3,
    filter_fn: Callable[..., Any] | None = None,
    strict: bool = True,
    cache_dir: PathLike | None = None,
) -> None:
    """Load the weights that a config describes into a model: any module, with timm's layout of tensors.

    Args:
        model: The model.
        pretrained_cfg: The config; the model's own unless given.
        num_classes: The model's classes: where the weights have others, the classifier is left as it is. 0 for none.
        in_chans: The model's input channels, to which the first convolution is adapted.
        filter_fn: `filter_fn(state_dict, model)`, or `filter_fn(state_dict)`, makes the state dict that is loaded.
        strict: Whether missing and unexpected keys are an error, beyond those of a classifier that is left out.
        cache_dir: Folder for downloads.

    Raises:
        WeightsError: No weights are known, they cannot be had, or they do not fit.
    """
    cfg = pretrained_cfg or getattr(model, "pretrained_cfg", None)
    if not cfg:
        raise WeightsError("there is no config of weights to load by; use pretrained=False for random ones")
    fields = dict(cfg) if isinstance(cfg, Mapping) else dict(vars(cfg))
    state_dict = fields.pop("state_dict", None)
    config = config_of(fields, fields.get("architecture") or type(model).__name__)
    origin = "the state dict in pretrained_cfg"
    if not state_dict:
        path, origin = _fetch(config, cache_dir)
        if config.custom_load and hasattr(model, "load_pretrained"):
            model.load_pretrained(path)
            return
        state_dict = read_state_dict(path)
    state_dict = dict(state_dict)
    if filter_fn is not None:
        state_dict = filter_fn(state_dict, model) if _takes_model(filter_fn) else filter_fn(state_dict)
    if not hasattr(model, "in_chans"):
        model.in_chans = in_chans
    other_head = num_classes != config.num_classes
    load_weights(model, state_dict, config=config, fit_head=other_head or bool(config.label_offset),
                 fit_input=in_chans != config.input_size[0], strict=strict and (not other_head or num_classes > 0),
                 origin=origin)


def _takes_model(filter_fn: Callable[..., Any]) -> bool:
    try:
        inspect.signature(filter_fn).bind(None, None)
    except TypeError:
        return False
    return True


def _fetch(config: WeightsConfig, cache_dir: PathLike | None) -> tuple[PathLike, str]:
    if not config.has_weights:
        raise WeightsError(f"no weights are known for '{config.architecture}'; use pretrained=False for random ones")
    _logger.info("loading '%s' from %s", config.name, config.sources[0])
    return hub.fetch_weights(config, cache_dir=cache_dir, progress=_show_progress)[0], config.name


def load_custom_pretrained(
    model: Any,
    pretrained_cfg: Mapping[str, Any] | PretrainedCfg | None = None,
    load_fn: Callable[..., Any] | None = None,
    cache_dir: PathLike | None = None,
) -> None:
    """Load a file of another format: by `load_fn(model, path)`, or the model's own `load_pretrained(path)`.

    Raises:
        WeightsError: No weights are known or they cannot be had, or nothing can read them.
    """
    cfg = pretrained_cfg or getattr(model, "pretrained_cfg", None) or {}
    fields = dict(cfg) if isinstance(cfg, Mapping) else dict(vars(cfg))
    path, origin = _fetch(config_of(fields, fields.get("architecture") or type(model).__name__), cache_dir)
    if load_fn is not None:
        load_fn(model, path)
    elif hasattr(model, "load_pretrained"):
        model.load_pretrained(path)
    else:
        raise WeightsError(f"{origin}: {type(model).__name__} has no load_pretrained to read its own format with")


def update_default_model_kwargs(
    pretrained_cfg: Mapping[str, Any], kwargs: dict[str, Any], kwargs_filter: Iterable[str] | None
) -> None:
    """Complete a model's arguments, in place, by a config: `num_classes`, `global_pool`, `in_chans`, and `img_size` of
    a model with a fixed one. Those that `kwargs_filter` names are taken out."""
    size = pretrained_cfg.get("input_size")
    implied = {key: pretrained_cfg.get(key) for key in ("num_classes", "global_pool")}
    if size is not None:
        fixed = pretrained_cfg.get("fixed_input_size")
        implied.update(in_chans=size[0], **({"img_size": tuple(size[-2:])} if fixed else {}))
    if (implied["num_classes"] or 0) < 0:
        del implied["num_classes"]
    for key, value in implied.items():
        if value is not None:
            kwargs.setdefault(key, value)
    for key in kwargs_filter or ():
        kwargs.pop(key, None)


def build_model_with_cfg(
    model_cls: type[ModelT] | Callable[..., ModelT],
    variant: str,
    pretrained: bool,
    pretrained_cfg: Cfg | None = None,
    pretrained_cfg_overlay: Mapping[str, Any] | None = None,
    model_cfg: Any = None,
    feature_cfg: Mapping[str, Any] | None = None,
    pretrained_strict: bool = True,
    pretrained_filter_fn: Callable[..., Any] | None = None,
    cache_dir: PathLike | None = None,
    kwargs_filter: Iterable[str] | None = None,
    pretrained_model_args: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Any:
    """A model from its class, with weights and as a feature extractor if that is asked for.

    Args:
        model_cls: Class or function that makes the model: ours, or any module with timm's layout of tensors.
        variant: Name of the architecture, by which the registry knows its weights.
        pretrained: Whether weights are loaded.
        pretrained_cfg: A tag, or a config of weights.
        pretrained_cfg_overlay: Fields of the config to replace.
        model_cfg: Passed to the class as `cfg`.
        feature_cfg: Of the feature extractor: `out_indices`, `feature_cls`, `flatten_sequential`, ...
        pretrained_strict, pretrained_filter_fn, cache_dir: `strict`, `filter_fn` and `cache_dir` of `load_pretrained`.
        kwargs_filter: Arguments that the class does not take.
        pretrained_model_args: Arguments of the model that the weights were trained as.
        **kwargs: The class's arguments, and `features_only`, `out_indices`, `feature_cls`, `pruned`. `num_classes`,
            `in_chans`, `global_pool`, and `img_size` of a model with a fixed one, are the config's unless given.
    """
    cfg = resolve_pretrained_cfg(variant, pretrained_cfg, pretrained_cfg_overlay).to_dict()
    pruned, features_only = kwargs.pop("pruned", False), kwargs.pop("features_only", False)
    feature_cfg = {"out_indices": (0, 1, 2, 3, 4), **(feature_cfg or {})}
    for key in ("out_indices", "feature_cls") if features_only else ():
        if key in kwargs:
            feature_cfg[key] = kwargs.pop(key)
    update_default_model_kwargs(cfg, kwargs, kwargs_filter)

    model: Any = model_cls(**kwargs) if model_cfg is None else model_cls(cfg=model_cfg, **kwargs)
    model.pretrained_cfg = model.default_cfg = cfg
    model.pretrained_model_args = dict(pretrained_model_args or {})
    if isinstance(model, ImageModel):
        config = config_of(dict(cfg, state_dict=None), variant)
        model.architecture, model.model_args, model.weights_config, model.base_weights = variant, kwargs, config, None
    if pruned:
        model = prune_to_widths(model, variant)
    if pretrained:
        classes = 0 if features_only else getattr(model, "num_classes", kwargs.get("num_classes", 1000))
        load_pretrained(model, cfg, classes, kwargs.get("in_chans", 3), pretrained_filter_fn, pretrained_strict,
                        cache_dir)
    if not features_only:
        return model
    features: Any = extract_features(model, **feature_cfg)
    features.pretrained_cfg = features.default_cfg = pretrained_cfg_for_features(cfg)
    return features
