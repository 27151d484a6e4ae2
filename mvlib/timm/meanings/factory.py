"""timm's `create_model`, and what goes with it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NoReturn

from torch import nn

from ... import factory, hub
from ...arguments import arguments_of
from ...errors import UnknownNameError
from ...layers.config import set_layer_config
from ...loading import load_weights
from ...names import closest, split_model_name_tag
from ...names import parse_model_name as parse
from ...registry import resolve_name
from ...weights import WeightsConfig
from .builder import resolve_pretrained_cfg
from .checkpoints import load_checkpoint
from .pretrained import PretrainedCfg, config_of
from .registry import foreign_entrypoint, is_model, list_models
from .repositories import load_model_config_from_hf, load_model_config_from_path

__all__ = ["create_model", "parse_model_name", "resolve_model_input_args", "safe_model_name"]

Cfg = str | Mapping[str, Any] | PretrainedCfg | WeightsConfig
PathLike = str | os.PathLike[str]

_OF_CREATE_MODEL = ("features_only", "out_indices", "feature_cls", "output_fmt", "device", "dtype", "mmap", "progress")


def create_model(
    model_name: str,
    pretrained: bool = False,
    pretrained_cfg: Cfg | None = None,
    pretrained_cfg_overlay: Mapping[str, Any] | None = None,
    checkpoint_path: PathLike | None = None,
    cache_dir: PathLike | None = None,
    scriptable: bool | None = None,
    exportable: bool | None = None,
    no_jit: bool | None = None,
    **kwargs: Any,
) -> nn.Module:
    """A model by its name, random unless `pretrained` is true, whatever tag the name has.

    Args:
        model_name: "resnet50", "resnet50.a1_in1k", "hf-hub:owner/name[@revision]" or "local-dir:/path".
        pretrained: Whether weights are loaded: those of the tag, the architecture's default ones, or the repository's.
        pretrained_cfg: A tag, which goes before that of the name, or a config of weights.
        pretrained_cfg_overlay: Fields of the config to replace; `state_dict` may give the tensors themselves.
        checkpoint_path: Load this file into the model; "" is none.
        cache_dir: Folder for downloads instead of the usual caches.
        scriptable, exportable, no_jit: `timm.layers.set_layer_config` while the model is built.
        **kwargs: The architecture's own arguments, those that are None left out; and `features_only`, `out_indices`,
            `feature_cls`, `device`, `dtype`.

    Raises:
        TypeError: The architecture does not know an argument.
        RuntimeError: The architecture or the tag is unknown, or there are no such weights.
        ValueError: The name has an unknown prefix, or looks like a path; or an argument has a value that cannot be.
    """
    kwargs = {key: value for key, value in kwargs.items() if value is not None}
    with set_layer_config(scriptable=scriptable, exportable=exportable, no_jit=no_jit):
        return _create(model_name, pretrained, pretrained_cfg, pretrained_cfg_overlay, checkpoint_path, cache_dir,
                       kwargs)


def _create(
    model_name: str,
    pretrained: bool,
    pretrained_cfg: Cfg | None,
    pretrained_cfg_overlay: Mapping[str, Any] | None,
    checkpoint_path: PathLike | None,
    cache_dir: PathLike | None,
    kwargs: dict[str, Any],
) -> nn.Module:
    source, name = parse_model_name(model_name)
    if source is None:
        name, tag = split_model_name_tag(name)
        architecture = name
        if is_model(name):  # of an old name, the current one
            architecture, implied = resolve_name(name)
            tag = tag or implied
        pretrained_cfg = pretrained_cfg or tag or None
    else:
        if pretrained_cfg:
            raise ValueError(f"'{model_name}' brings its own config; pretrained_cfg contradicts it")
        architecture = str(hub.fetch_config(f"{source}:{name}", cache_dir=cache_dir).get("architecture", ""))
    if not is_model(architecture):
        raise UnknownNameError(f"Unknown model ({architecture}){closest(architecture, list_models())}")

    foreign = foreign_entrypoint(architecture)
    if foreign is not None:
        if source is not None:
            pretrained_cfg, _, arguments = _read_config(source, name, cache_dir)
            kwargs = {"pretrained_model_args": arguments, **arguments, **kwargs}
        model: Any = foreign(pretrained=pretrained, pretrained_cfg=pretrained_cfg,
                             pretrained_cfg_overlay=pretrained_cfg_overlay, cache_dir=cache_dir, **kwargs)
        if hasattr(model, "state_dict") and not hasattr(model, "model_args"):  # what builds it again
            model.model_args = {key: value for key, value in kwargs.items()
                                if key not in ("device", "dtype", "pretrained_model_args")}
        if checkpoint_path:
            load_checkpoint(model, checkpoint_path)
        return model

    kwargs.pop("pretrained_model_args", None)  # our models read a checkpoint's sizes from its tensors
    if not kwargs.get("use_naflex", True):
        del kwargs["use_naflex"]
    known = arguments_of(factory.entrypoint_of(architecture, kwargs))
    if architecture.startswith("hrnet") and kwargs.get("features_only") and "feature_location" in kwargs:
        from .hrnet import hrnet_head

        kwargs["head"] = hrnet_head(kwargs.pop("feature_location"))
    for key in kwargs if known is not None else ():
        if known is not None and key not in known and key not in _OF_CREATE_MODEL:
            _refuse_argument(architecture, key, known)
    feature_cls = kwargs.pop("feature_cls", None)
    wrap = isinstance(feature_cls, type) and kwargs.pop("features_only", False)
    indices = kwargs.pop("out_indices", None) if wrap else None
    overlay, state_dict = _without_tensors(pretrained_cfg_overlay)
    if isinstance(pretrained_cfg, str) or pretrained_cfg is None:
        if source is None:
            model_name = f"{architecture}.{pretrained_cfg}" if pretrained_cfg else architecture
        cfg = None
    else:
        fields = pretrained_cfg if isinstance(pretrained_cfg, WeightsConfig | Mapping) else vars(pretrained_cfg)
        if not isinstance(fields, WeightsConfig):
            fields, own_tensors = _without_tensors(fields)
            state_dict = state_dict or own_tensors
        cfg, model_name = config_of(fields or {}, architecture), architecture
    model = factory.create_model(
        model_name, bool(pretrained) and not state_dict, cfg, overlay or None, checkpoint_path or None, cache_dir,
        feature_cls=feature_cls if isinstance(feature_cls, str) else None, **kwargs)
    if pretrained and state_dict:
        load_weights(model, dict(state_dict), config=getattr(model, "weights_config", cfg), fit_head=True,
                     fit_input="in_chans" in kwargs, origin="the state dict in pretrained_cfg")
    if wrap:
        return feature_cls(model, **({} if indices is None else {"out_indices": indices}))
    return model


def _read_config(source: str, name: str, cache_dir: PathLike | None) -> tuple[dict[str, Any], str, dict[str, Any]]:
    if source == "hf-hub":
        return load_model_config_from_hf(name, cache_dir)
    return load_model_config_from_path(name)


def _without_tensors(fields: Mapping[str, Any] | None) -> tuple[dict[str, Any], Any]:
    """A config's fields without `state_dict` and what only timm reads; and the state dict."""
    kept = dict(fields or {})
    state_dict = kept.pop("state_dict", None)
    return kept, state_dict


def _refuse_argument(architecture: str, key: str, known: Mapping[str, Any]) -> NoReturn:
    raise TypeError(f"'{architecture}' got an unexpected keyword argument '{key}'"
                    f"{closest(key, (*known, *_OF_CREATE_MODEL)) or '.'} It takes: {', '.join(sorted(known))}")


def parse_model_name(model_name: str) -> tuple[str | None, str]:
    """(source, what stands behind it): ("hf-hub", "owner/name"); or (None, "resnet50.a1_in1k").

    Raises:
        ValueError: The prefix is unknown or nothing follows it, or the name looks like a path but has none.
    """
    try:
        source, name, _ = parse(model_name)
    except UnknownNameError as error:
        raise ValueError(str(error)) from None
    return source, model_name if source is None else name


def safe_model_name(model_name: str, remove_source: bool = True) -> str:
    """A name with "_" for all that is no letter or digit, for use in a file's name."""
    if remove_source:
        model_name = parse_model_name(model_name)[1]
    return "".join(c if c.isalnum() else "_" for c in model_name).rstrip("_")


def resolve_model_input_args(
    model_name: str, args: Mapping[str, Any] | None = None, **model_kwargs: Any
) -> dict[str, Any]:
    """Arguments of `create_model` that make a model for the inputs which a script's options ask for.

    Args:
        model_name: The model.
        args: Options: `input_size` (channels, height, width), `in_chans` or `chans`, `img_size`.
        **model_kwargs: Further arguments of `create_model`, which must not contradict them.

    Returns:
        `model_name` (the architecture), `pretrained_cfg` (a dict) and the arguments: those of a repository, those
        given, and `in_chans` and `img_size` where they are asked for (the latter of models that need it).

    Raises:
        ValueError: Options or arguments contradict each other.
    """
    args = args or {}
    kwargs = {key: value for key, value in model_kwargs.items() if value is not None}
    overlay = kwargs.pop("pretrained_cfg_overlay", None)
    source, name = parse_model_name(model_name)
    given = kwargs.pop("pretrained_cfg", None)
    if source is None:
        name, tag = split_model_name_tag(name)
        given = given or tag or None
    else:
        given, name, arguments = _read_config(source, name, kwargs.get("cache_dir"))
        kwargs = {**({"pretrained_model_args": arguments} if arguments else {}), **arguments, **kwargs}
    if not is_model(name):
        raise UnknownNameError(f"Unknown model ({name}){closest(name, list_models())}")
    cfg = resolve_pretrained_cfg(name, given, overlay).to_dict()

    size = args.get("input_size")
    asked = [args.get("in_chans"), args.get("chans"), model_kwargs.get("in_chans"), size and size[0]]
    chans = _one("channels", [number for number in asked if number is not None])
    sides = [_square(side) for side in (args.get("img_size"), size and tuple(size)[1:]) if side is not None]
    side = _one("image size", sides)
    if chans is not None:
        kwargs["in_chans"] = chans
    explicit, is_fixed = model_kwargs.get("img_size"), cfg.get("fixed_input_size", False)
    if side is not None and explicit is not None and is_fixed and _square(explicit) != side and \
            not kwargs.get("dynamic_img_size") and kwargs.get("strict_img_size", True):
        raise ValueError(f"the options ask for images of {side}, the model's arguments for img_size={explicit}")
    if side is not None and explicit is None and (is_fixed or "img_size" in kwargs):
        kwargs["img_size"] = side
    return {"model_name": name, "pretrained_cfg": cfg, **kwargs}


def _square(size: Any) -> tuple[int, int]:
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or min(sides) <= 0:
        raise ValueError(f"an image size is a number or (height, width), not {size}")
    return sides


def _one(what: str, values: list[Any]) -> Any:
    if len(set(values)) > 1:
        raise ValueError(f"options and arguments ask for different {what}: {', '.join(map(str, values))}")
    return values[0] if values else None
