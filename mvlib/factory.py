"""`create_model`: from a name and arguments to a model with its weights."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast, overload

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from . import hub
from .arguments import Parameter, accepts, arguments_of, check_plain, model_class, shorten, shorten_error
from .engines.folder import refuse_export
from .errors import ConfigError, UnknownNameError, WeightsError
from .features import FeatureExtractor
from .loading import (
    base_of_checkpoint,
    load_by_itself,
    load_weights,
    materialize,
    read_state_dict,
    read_training_facts,
)
from .models.base import ImageModel
from .names import closest, parse_model_name
from .precisions import precision_name
from .registry import check_is_classifier, get_pretrained_cfg, is_model, is_ours, load_entrypoint, resolve_name, task_of
from .tasks import CLASSIFICATION
from .weights import INPUT_FIELDS, OWN_FIELDS, WeightsConfig

__all__ = ["build_empty", "create_model", "describe_inputs", "known_arguments"]

_logger = logging.getLogger("mvlib")

# Of models that somebody's config.json describes: several times what the largest published ones have.
_MAX_CALLS = 50_000  # of torch, while one is built
_MAX_PARAMETERS = 20_000_000_000


@dataclass(frozen=True)
class _Request:
    """What a model name and `pretrained_cfg` come to; `where` is the repository or file that says so, if one does."""

    architecture: str
    config: WeightsConfig | None
    names_weights: bool
    arguments: Mapping[str, Any]
    where: str | None = None
    newer: str | None = None  # the source's newer revision, which replaces the cached one when all of it is here


@overload
def create_model(
    model_name: str, pretrained: bool | None = ...,
    pretrained_cfg: str | Mapping[str, Any] | WeightsConfig | None = ...,
    pretrained_cfg_overlay: Mapping[str, Any] | None = ..., checkpoint_path: str | os.PathLike[str] | None = ...,
    cache_dir: str | os.PathLike[str] | None = ..., scriptable: bool | None = ..., exportable: bool | None = ...,
    no_jit: bool | None = ..., *, features_only: Literal[False] = ..., device: torch.device | str | None = ...,
    dtype: torch.dtype | str | None = ..., mmap: bool | None = ..., progress: bool = ..., **kwargs: Any,
) -> ImageModel: ...
@overload
def create_model(
    model_name: str, pretrained: bool | None = ...,
    pretrained_cfg: str | Mapping[str, Any] | WeightsConfig | None = ...,
    pretrained_cfg_overlay: Mapping[str, Any] | None = ..., checkpoint_path: str | os.PathLike[str] | None = ...,
    cache_dir: str | os.PathLike[str] | None = ..., scriptable: bool | None = ..., exportable: bool | None = ...,
    no_jit: bool | None = ..., *, features_only: Literal[True], out_indices: int | Sequence[int] | None = ...,
    feature_cls: str | None = ..., output_fmt: str | None = ..., device: torch.device | str | None = ...,
    dtype: torch.dtype | str | None = ..., mmap: bool | None = ..., progress: bool = ..., **kwargs: Any,
) -> FeatureExtractor: ...
@overload
def create_model(
    model_name: str, pretrained: bool | None = ..., *, features_only: bool, **kwargs: Any
) -> ImageModel | FeatureExtractor: ...
def create_model(
    model_name: str,
    pretrained: bool | None = None,
    pretrained_cfg: str | Mapping[str, Any] | WeightsConfig | None = None,
    pretrained_cfg_overlay: Mapping[str, Any] | None = None,
    checkpoint_path: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    scriptable: bool | None = None,
    exportable: bool | None = None,
    no_jit: bool | None = None,
    *,
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    feature_cls: str | None = None,
    output_fmt: str | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    mmap: bool | None = None,
    progress: bool = True,
    **kwargs: Any,
) -> ImageModel | FeatureExtractor:
    """Build a model by name.

    A name with a tag, a hub repository or a local folder names weights, so they are loaded; an architecture alone is
    initialised at random unless `pretrained` is true. Models for other tasks than classification (detection, ...:
    `list_models(task=...)`) are torchvision's own; without weights of the whole, those of a backbone are loaded where
    `weights_backbone` names some, and a `num_classes` that the weights do not have leaves new heads at random.

    Args:
        model_name: "resnet50", "resnet50.a1_in1k", "hf-hub:owner/name[@revision]" or "local-dir:/path". Of a cached
            "hf-hub:" name, the hub is asked for a newer revision, for at most two seconds.
        pretrained: True loads weights (an architecture's default ones), False never does, None goes by the name.
        pretrained_cfg: A tag, or a config of weights that the registry does not have (timm's, too).
        pretrained_cfg_overlay: Fields of the config to replace.
        checkpoint_path: Load this file instead of published weights. What a training checkpoint of this architecture
            says of its model (arguments, classes, preprocessing) holds where the caller says nothing.
        cache_dir: Folder for downloads instead of the usual caches.
        scriptable, exportable, no_jit: Accepted for timm's sake: `torch.jit.script` compiles, and exporters take, every
            model here as it is.
        features_only: Return a `FeatureExtractor` instead of a classifier.
        out_indices: With `features_only`: which features; an int takes the last n.
        feature_cls: With `features_only`: "dict" returns {index as text: features}, else it is a list; "getter", "hook"
            and "fx" give the state dict timm's keys of that name, see `FeatureExtractor`.
        output_fmt: With `features_only`: "NCHW", "NHWC" or "NLC".
        device: Where the model is built; weights are read straight to it. Unless given, the caller's
            `with torch.device(...)` decides: on "meta" a model has no values, until `to_empty`, `load_state_dict`, and
            `init_non_persistent_buffers()` of each module that has it, give it some.
        dtype: Floating-point type of its parameters, or a usual name of one ("bfloat16", "fp16", ...).
        mmap: Whether the weights are mapped, so that memory is taken and the disk read as they are used, or read into
            memory of the model's own. None maps files in the caches of downloads and in installed packages, which are
            replaced and never written to in place, and reads `checkpoint_path`, "local-dir:", "file:" and whatever
            else may be written to while the model lives: of a mapped file, the model would change or the process die.
        progress: Show a bar while weights are downloaded (on a terminal alone).
        **kwargs: The architecture's own arguments (`num_classes`, `in_chans`, `img_size`, `drop_path_rate`,
            `global_pool`, ...); those that are None are left out. `use_naflex=True` builds a vision transformer, or an
            EVA, as a `NaFlexVit`, for images of any aspect ratio; it takes that class's arguments, too.

    Returns:
        The model, with `weights_config`, `pretrained_cfg` (the same as a dict, as timm has it, but with the channels
        and the image size that this model takes), `base_weights` (the config of the weights that it began with, None
        for random ones), `architecture` and `model_args`.

    Raises:
        UnknownNameError: The architecture, tag or source is unknown.
        ConfigError: Arguments contradict each other, or the architecture does not know one of them or takes other
            values for it; or a repository's config.json says what no model can be built by.
        WeightsError: The weights cannot be had, are damaged, or do not fit.
    """
    if isinstance(model_name, str):
        refuse_export(model_name)
    request = _resolve(model_name, pretrained_cfg, pretrained_cfg_overlay, cache_dir)
    base = None
    if checkpoint_path == "":  # timm's default
        checkpoint_path = None
    if checkpoint_path is not None:
        facts = read_training_facts(checkpoint_path)
        if "model_args" in facts and _is_of(facts, request.architecture):
            request = _from_checkpoint(request, facts, str(checkpoint_path))
            base = request.config
        else:
            base = base_of_checkpoint(request.config or WeightsConfig(architecture=request.architecture), {})
    precision: torch.dtype | None = getattr(torch, precision_name(dtype)) if isinstance(dtype, str) else dtype
    if out_indices is not None and not features_only:
        raise ConfigError("out_indices goes with features_only=True")
    if not accepts(int | Sequence[int] | None, out_indices):
        raise ConfigError(f"out_indices is an int or several, not {shorten(out_indices)}")
    extract = partial(FeatureExtractor, out_indices=out_indices, output_fmt=output_fmt, feature_cls=feature_cls)
    given = {key: value for key, value in kwargs.items() if value is not None}
    wants_weights = pretrained if pretrained is not None else request.names_weights
    if task_of(request.architecture) != CLASSIFICATION and is_ours(request.architecture):
        if features_only:
            check_is_classifier(request.architecture, "features_only=True")
        read = None
        if checkpoint_path is not None:
            read = partial(read_state_dict, checkpoint_path, mmap=bool(mmap))
        elif wants_weights:
            read = partial(_read_published, request, model_name, cache_dir, progress, mmap)
        other = _for_other_task(request, given, read, str(checkpoint_path) if checkpoint_path is not None else None)
        other.base_weights = base if checkpoint_path is not None else request.config if wants_weights else None
        other.to(device=device, dtype=precision)
        return cast(ImageModel, other)  # a user calls it as its task has it
    entrypoint = entrypoint_of(request.architecture, {**request.arguments, **given})
    if not given.get("use_naflex", True):
        del given["use_naflex"]
    if given.get("use_naflex") and request.config is not None:
        request = dataclasses.replace(request, config=request.config.replace(first_conv="embeds.proj"))
    known = arguments_of(entrypoint)
    is_for_weights = wants_weights or request.names_weights or checkpoint_path is not None or pretrained_cfg is not None
    arguments = _arguments(request, given, known, is_for_weights)

    stays_empty = device is None and nn.Linear(1, 1).weight.is_meta  # the caller's context says so, also accelerate's
    model = _build(request, entrypoint, arguments, given, stays_empty)
    if not isinstance(model, nn.Module):
        raise ConfigError(f"what is registered as '{request.architecture}' returned {shorten(model)}, not a model")
    if features_only and not hasattr(model, "forward_intermediates"):
        raise ConfigError(f"'{request.architecture}' cannot give features: its model, {type(model).__name__}, has no "
                          f"forward_intermediates; a class derived from mvlib.ImageModel has")
    config = request.config
    for key, value in (("num_classes", config and config.num_classes), ("in_chans", config and config.input_size[0])):
        value = arguments.get(key, value)
        if value is not None and not hasattr(model, key):  # a user's plain module need not say it
            setattr(model, key, value)
    model.architecture = request.architecture
    model.model_args = arguments
    model.weights_config = config or WeightsConfig(architecture=request.architecture)
    model.pretrained_cfg = model.default_cfg = describe_inputs(model, model.weights_config).to_dict()

    default = torch.get_default_device()
    if device is None and default.type != "cpu":  # the caller's `with torch.device(...)`
        device = default
    model.base_weights = base
    built: nn.Module = model
    if features_only and checkpoint_path is not None and feature_cls != "fx":  # the file may be such an extractor's
        built = extract(model)
    with torch.device("cpu") if default.type != "cpu" else nullcontext():  # weights are fitted where values are
        if checkpoint_path is not None:
            _load(built, config, checkpoint_path, bool(mmap), device, precision, str(checkpoint_path), False, given)
        elif wants_weights:
            path, is_mappable = _fetch(request, model_name, cache_dir, progress)
            _load(model, config, path, is_mappable if mmap is None else mmap, device, precision,
                  model.weights_config.name, True, given)
            model.base_weights = config
        elif _is_on_meta(model) and not stays_empty and torch.device(device or "cpu").type != "meta":
            materialize(model, device, precision)
        if device is not None or precision is not None:
            built.to(device=device, dtype=precision)
    if not features_only:
        return model
    features = built if isinstance(built, FeatureExtractor) else extract(model)
    features.pretrained_cfg = features.default_cfg = model.pretrained_cfg
    return features


def _read_published(
    request: _Request, model_name: str, cache_dir: str | os.PathLike[str] | None, progress: bool, mmap: bool | None
) -> dict[str, torch.Tensor]:
    path, is_mappable = _fetch(request, model_name, cache_dir, progress)
    return read_state_dict(path, mmap=is_mappable if mmap is None else mmap)


def _for_other_task(
    request: _Request, given: dict[str, Any], read: Callable[[], dict[str, torch.Tensor]] | None, file: str | None
) -> Any:
    """A model of torchvision's that does not classify images, with the weights that `read` reads, from a user's `file`
    or published."""
    from . import mirror

    name = request.architecture
    known = mirror.builder_parameters(name)
    for key in given:
        if key not in known:
            raise _unknown_argument(name, key, known)
    default = get_pretrained_cfg(name, allow_unregistered=False)
    config = request.config or default
    if config.task != default.task:  # fields of the caller's, which do not say it
        config = config.replace(task=default.task, classifier=config.classifier or default.classifier)
    arguments = {key: value for key, value in {**request.arguments, **given}.items() if key in known}
    if "weights_backbone" in known:
        arguments.setdefault("weights_backbone", None)
    is_new_head = given.get("num_classes", config.num_classes) != config.num_classes or \
        given.get("num_keypoints", len(config.keypoint_names or ())) != len(config.keypoint_names or ())

    def fill(model: nn.Module) -> None:
        if read is not None:
            load_by_itself(model, read(), config=config, fit_head=is_new_head, origin=file or config.name)

    weights = config.replace(tag=None) if file else config  # what a tag means, a file of the user's need not
    return mirror.build(name, weights, read and fill, arguments, is_whole=not is_new_head)


def _resolve(
    model_name: str,
    pretrained_cfg: str | Mapping[str, Any] | WeightsConfig | None,
    overlay: Mapping[str, Any] | None,
    cache_dir: str | os.PathLike[str] | None,
) -> _Request:
    name = parse_model_name(model_name)
    if name.source is not None:
        if pretrained_cfg is not None:
            raise ConfigError(f"'{model_name}' brings its own config; pretrained_cfg contradicts it (use "
                              f"pretrained_cfg_overlay to replace single fields)")
        request = _from_repository(name.source, name.id, cache_dir)
    else:
        architecture, tag = resolve_name(model_name)
        config = _registered_config(model_name, architecture, tag, pretrained_cfg)
        request = _Request(architecture, config, bool(name.tag) and bool(config and config.has_weights), {})
    if overlay:
        config = request.config or WeightsConfig(architecture=request.architecture)
        changed = WeightsConfig.from_dict({**config.to_dict(remove_null=False), "sources": config.sources, "url": None,
                                           "hf_hub_id": None, "file": None, "model_args": config.model_args,
                                           "metrics": config.metrics,
                                           **_located(_mapping("pretrained_cfg_overlay", overlay))})
        request = dataclasses.replace(request, config=changed,
                                      newer=request.newer if changed.sources == config.sources else None)
    return request


def _mapping(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name} is a dict of a config's fields, not {shorten(value)}")
    return value


def _located(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Config fields in which a location, if there is one, replaces all that were known."""
    locations = {"url", "file", "hf_hub_id", "sources"}
    return {**fields, "sources": fields.get("sources", ())} if locations & set(fields) else dict(fields)


def _registered_config(
    model_name: str, architecture: str, tag: str, pretrained_cfg: str | Mapping[str, Any] | WeightsConfig | None
) -> WeightsConfig | None:
    if isinstance(pretrained_cfg, str) and pretrained_cfg:
        other_tag = pretrained_cfg.rpartition(".")[2] if pretrained_cfg.startswith(architecture) else pretrained_cfg
        if tag and tag != other_tag:
            raise ConfigError(f"the name '{model_name}' and pretrained_cfg='{pretrained_cfg}' name different weights; "
                              f"give one of them")
        tag = resolve_name(f"{architecture}.{other_tag}")[1]
    elif pretrained_cfg:
        config = pretrained_cfg
        if not isinstance(config, WeightsConfig):
            fields = vars(config) if dataclasses.is_dataclass(config) else config  # timm's PretrainedCfg is one
            config = WeightsConfig.from_dict(_mapping("pretrained_cfg", fields), strict=False)
        return config.replace(architecture=architecture)
    return get_pretrained_cfg(f"{architecture}.{tag}" if tag else architecture)


def _from_repository(source: str, location: str, cache_dir: str | os.PathLike[str] | None) -> _Request:
    """Architecture, config and arguments from a repository's config.json; what it says is not trusted."""
    where = f"{source}:{location}"
    newer = hub.find_newer(where, cache_dir=cache_dir)
    data = hub.fetch_config(newer or where, cache_dir=cache_dir)
    fields = dict(data["pretrained_cfg"]) if isinstance(data.get("pretrained_cfg"), dict) else dict(data)
    architecture = data.get("architecture", fields.get("architecture"))
    if not isinstance(architecture, str):
        raise ConfigError(f"{where}: config.json names no 'architecture'; it is not a timm-style repository")
    if not is_model(architecture):
        raise UnknownNameError(f"{where}: config.json names the unknown architecture {architecture[:80]!r}")
    architecture, _ = resolve_name(architecture.partition(".")[0])
    for key in ("num_classes", "label_names", "label_descriptions"):
        if data.get(key) is not None:
            fields[key] = data[key]
    filename = fields.get("hf_hub_filename")
    # The repository alone is the source: a location inside its config could point anywhere.
    for key in ("url", "file", "hf_hub_id", "hf_hub_filename", "source", "sources", "state_dict", "sha256", "key_map"):
        fields.pop(key, None)
    own = data.get("mvlib")
    if isinstance(own, dict):
        fields.update({key: own[key] for key in OWN_FIELDS if key in own})
    fields.update(architecture=architecture, sources=(where,), filename=filename, task=task_of(architecture))
    known = get_pretrained_cfg(architecture)
    for key in ("first_conv", "classifier"):
        if known is not None:
            fields.setdefault(key, getattr(known, key))
    arguments = data.get("model_args") or {}
    if not isinstance(arguments, dict):
        raise ConfigError(f"{where}: model_args in config.json is not an object")
    for key, value in (*arguments.items(), ("num_classes", fields.get("num_classes"))):
        expected = check_plain(key, value)
        if expected:
            raise _bad_field(f"{where}: config.json", key, value, f"a repository can give {expected}")
    if isinstance(fields.get("label_names"), dict):
        fields["label_names"] = _names_by_class(fields["label_names"], fields.get("num_classes"), where)
    if isinstance(arguments.get("in_chans"), int) and isinstance(fields.get("input_size"), (list, tuple)):
        fields["input_size"] = (arguments["in_chans"], *fields["input_size"][1:])
    try:
        config = WeightsConfig.from_dict(fields, strict=False)
    except ConfigError as error:
        raise ConfigError(f"{where}: config.json: {error}") from None
    return _Request(architecture, config, True, {k: v for k, v in arguments.items() if v is not None},
                    f"{where}: config.json", newer)


def _names_by_class(names: Mapping[str, Any], num_classes: Any, where: str) -> tuple[Any, ...]:
    """Class names from {class: name}, whose order tells nothing; classes without one are numbered."""
    count = num_classes if isinstance(num_classes, int) and num_classes > 0 else len(names)
    by_class = {int(key): name for key, name in names.items() if re.fullmatch(r"[0-9]{1,7}", key)}
    if len(by_class) < len(names) or max(by_class, default=0) >= count:
        raise ConfigError(f"{where}: config.json: the keys of label_names are not numbers of the model's classes")
    return tuple(by_class.get(i, f"class {i}") for i in range(count))


def _is_of(facts: Mapping[str, Any], architecture: str) -> bool:
    name = facts.get("arch", "").partition(".")[0]
    return name == architecture or is_model(name) and resolve_name(name)[0] == architecture


def _from_checkpoint(request: _Request, facts: Mapping[str, Any], where: str) -> _Request:
    """The request with what a checkpoint says of its model, which is not trusted."""
    arguments = {key: value for key, value in {**facts["model_args"], "num_classes": facts.get("num_classes")}.items()
                 if value is not None}
    for key, value in arguments.items():
        expected = check_plain(key, value)
        if expected:
            raise _bad_field(where, key, value, f"a checkpoint can give {expected}")
        arguments[key] = tuple(value) if isinstance(value, list) else value
    inputs = {key: tuple(value) if isinstance(value, list) else value
              for key, value in facts.get("data_config", {}).items() if key in INPUT_FIELDS}
    if inputs:  # they are all of them
        inputs = {"preprocessing": "timm", "resize_size": None, "antialias": True, **inputs}
    config = request.config or WeightsConfig(architecture=request.architecture)
    try:
        config = base_of_checkpoint(config, facts).with_inputs(**inputs)
    except ConfigError as error:
        raise ConfigError(f"{where}: what it says of its model cannot be: {error}") from None
    return dataclasses.replace(request, config=config, arguments={**request.arguments, **arguments}, where=where)


def _bad_field(where: str | None, key: str, value: Any, why: str) -> ConfigError:
    return ConfigError(f"{where} asks for {key}={shorten(value)}: {why}")


def known_arguments(model_name: str) -> Collection[str] | None:
    """Names of the arguments that a model's architecture takes, a repository's too; None where its signature does not
    tell."""
    return arguments_of(load_entrypoint(_resolve(model_name, None, None, None).architecture))


def entrypoint_of(architecture: str, arguments: Mapping[str, Any]) -> Callable[..., Any]:
    """What builds an architecture; as a `NaFlexVit` where the arguments say `use_naflex`."""
    entrypoint = load_entrypoint(architecture)
    if not arguments.get("use_naflex"):
        return entrypoint
    from .models.naflexvit import naflex_entrypoint

    return naflex_entrypoint(entrypoint)


def build_empty(architecture: str, arguments: Mapping[str, Any]) -> ImageModel:
    """A model on the meta device, from those of the arguments that the architecture takes."""
    entrypoint = entrypoint_of(architecture, arguments)
    known = arguments_of(entrypoint)
    return _construct(entrypoint, {k: v for k, v in arguments.items() if known is None or k in known})


def _arguments(
    request: _Request, given: dict[str, Any], known: dict[str, Parameter] | None, is_for_weights: bool
) -> dict[str, Any]:
    """The architecture's arguments: the caller's, then the repository's, then what the weights config implies.

    What the default weights need beside the architecture (an epsilon, another normalisation) holds for them alone.
    """
    if known is not None:
        _check_arguments(request, given, known)
    config = request.config
    implied: dict[str, Any] = {}
    if config is not None:
        implied = dict(config.model_args) if is_for_weights else {}
        if config.num_classes >= 0:
            implied["num_classes"] = config.num_classes
        implied["in_chans"] = config.input_size[0]
        if config.fixed_input_size:
            implied["img_size"] = config.input_size[1:]
        if known is None:  # what the weights do not say is the model's own default
            plain = WeightsConfig()
            for key, value in (("num_classes", plain.num_classes), ("in_chans", plain.input_size[0])):
                if key not in config.model_args and implied.get(key) == value:
                    del implied[key]
    implied.update(request.arguments)
    if known is not None:
        implied = {key: value for key, value in implied.items() if key in known}
    return {**implied, **given}


def _check_arguments(request: _Request, given: Mapping[str, Any], known: Mapping[str, Parameter]) -> None:
    for key, value in given.items():
        if key not in known:
            raise _unknown_argument(request.architecture, key, known)
        expected = known[key].problem(value) if known[key].is_ours or key in ("num_classes", "in_chans") else None
        if expected:
            raise ConfigError(f"'{request.architecture}' wants {key} to be {expected}, not {shorten(value)}")
    for key, value in request.arguments.items():
        expected = known[key].problem(value) if key in known and key not in given else None
        if expected:
            raise _bad_field(request.where, key, value, f"'{request.architecture}' wants {expected}")


def _unknown_argument(architecture: str, key: str, known: Iterable[str]) -> ConfigError:
    said = f"'{architecture}' does not know the argument {key!r}"
    if key == "weights":  # torchvision's
        config = get_pretrained_cfg(architecture)
        named = f", create_model('{config.name}') those of a tag" if config is not None and config.tag else ""
        return ConfigError(f"{said}: pretrained=True loads the default weights{named}, and "
                           f"mvlib.models.get_model('{architecture}', weights=...) takes torchvision's Enums")
    return ConfigError(f"{said}{closest(key, known) or '.'} It takes: {', '.join(sorted(known))}")


class _Budget(TorchFunctionMode):
    """Ends the building of a model without end."""

    def __init__(self) -> None:
        super().__init__()
        self.left = _MAX_CALLS

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("the model has too many layers")
        return func(*args, **kwargs or {})


class NoValues(TorchFunctionMode):
    """Fills no tensor on the meta device: the first number drawn there imports torch's compiler, in a second."""

    filling = frozenset({
        "normal_", "uniform_", "trunc_normal_", "erfinv_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_",
        "xavier_normal_", "orthogonal_", "constant_", "fill_", "zero_", "zeros_", "ones_", "mul_", "add_", "clamp_"})

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in self.filling:
            target = args[0] if args else kwargs.get("tensor")
            if isinstance(target, torch.Tensor) and target.is_meta:
                return target
        return func(*args, **kwargs)


class Empty(NoValues):
    """Makes on the meta device the tensors whose values come later, around code that is not ours. What is made from
    values (anchors, indices) is made as ever."""

    makers: frozenset[Any] = frozenset({torch.empty, torch.zeros, torch.ones})

    def takes(self, size: Any) -> bool:
        """Whether to make a tensor of this size, or of this number of rows, there."""
        return True

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in self.makers and kwargs.get("device") is None and self.takes(args[0] if args else kwargs["size"]):
            kwargs = {**kwargs, "device": "meta"}
        return super().__torch_function__(func, types, args, kwargs)


def _construct(
    entrypoint: Callable[..., ImageModel], arguments: Mapping[str, Any], as_it_is: bool = False
) -> ImageModel:
    """Build on the meta device what is ours throughout; a user's code gives values where it builds, and keeps them."""
    if as_it_is or not _is_ours_throughout(entrypoint, arguments):
        return entrypoint(**arguments)
    with torch.device("meta"), NoValues():
        model = entrypoint(**arguments)
    kinds = {type(module) for module in model.modules()}
    return model if all(map(_is_ours, kinds)) else entrypoint(**arguments)


def _is_ours_throughout(entrypoint: Callable[..., nn.Module], arguments: Mapping[str, Any]) -> bool:
    """Whether a model keeps our contract, and no code of a user's takes part in building it."""
    made = model_class(entrypoint)
    return issubclass(made or object, ImageModel) and \
        all(map(_is_ours, (entrypoint, made, *filter(callable, arguments.values()))))


def _is_ours(made_by: Any) -> bool:
    """Whether a class or function is mvlib's or torch's, whose modules can be given their values later."""
    made_by = made_by.func if isinstance(made_by, partial) else made_by
    return str(getattr(made_by, "__module__", "")).partition(".")[0] in ("mvlib", "torch")


def _build(
    request: _Request,
    entrypoint: Callable[..., ImageModel],
    arguments: dict[str, Any],
    given: Mapping[str, Any],
    as_it_is: bool,
) -> ImageModel:
    """The model; where a stranger's arguments make none, an error says which of them is to blame."""
    if request.where is None:
        return _construct(entrypoint, arguments, as_it_is)

    def attempt(arguments: Mapping[str, Any]) -> ImageModel | Exception:
        try:
            with budget:
                model = _construct(entrypoint, arguments, as_it_is)
        except Exception as error:  # whatever a constructor says of what a stranger wrote
            return error
        count = sum(p.numel() for p in model.parameters())
        return model if count <= _MAX_PARAMETERS else ValueError(f"the model has {count} parameters")

    budget = _Budget()
    result = attempt(arguments)
    budget.left = _MAX_CALLS  # of all the attempts below
    if isinstance(result, nn.Module):
        return result
    theirs = {key: value for key, value in arguments.items() if key not in given}
    is_cheap = _is_ours_throughout(entrypoint, arguments)
    if given and is_cheap and isinstance(attempt(theirs), nn.Module):
        raise result  # the repository's own arguments are fine
    reason = f"'{request.architecture}' cannot be built so: {shorten_error(result)}"
    for key, value in theirs.items() if is_cheap else ():
        if isinstance(attempt({k: v for k, v in arguments.items() if k != key}), nn.Module):
            raise _bad_field(request.where, key, value, reason) from result
    raise ConfigError(f"{request.where} asks for {shorten(theirs)}: {reason}") from result


def describe_inputs(model: nn.Module, config: WeightsConfig) -> WeightsConfig:
    """The config with the channels and the image size that the model takes, where it was built for others."""
    size = getattr(model, "img_size", None) or config.input_size[1:]
    input_size = (getattr(model, "in_chans", config.input_size[0]), *size)
    if input_size == config.input_size and input_size[0] == len(config.mean) == len(config.std):
        return config
    return config.with_inputs(input_size=input_size)


def _is_on_meta(model: nn.Module) -> bool:
    return any(p.is_meta for p in model.parameters())


def _fetch(
    request: _Request, model_name: str, cache_dir: str | os.PathLike[str] | None, progress: bool
) -> tuple[os.PathLike[str], bool]:
    config = request.config
    if config is None or not config.has_weights:
        raise WeightsError(f"no weights are published for '{model_name}'; create it with pretrained=False, or see "
                           f"list_models('{request.architecture}.*', pretrained=True)")
    _logger.info("loading '%s' from %s", config.name, config.sources[0])
    if request.newer is None:
        return hub.fetch_weights(config, cache_dir=cache_dir, progress=progress)
    found = hub.fetch_weights(config.replace(sources=(request.newer,)), cache_dir=cache_dir, progress=progress)
    hub.keep_newer(config.sources[0], request.newer, cache_dir=cache_dir)
    return found


def _load(
    model: nn.Module,
    config: WeightsConfig | None,
    path: str | os.PathLike[str],
    mmap: bool,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
    origin: str,
    is_published: bool,
    given: Mapping[str, Any],
) -> None:
    if not is_published and config is not None:  # a file of the user's: the config says where its head is, not more
        config = config.replace(key_map=None, label_offset=None)
    # A head is replaced where the weights are known to have another one, or where the caller asked for another.
    fit_head = "num_classes" in given or bool(is_published and config and config.num_classes != model.num_classes)
    load_weights(
        model, read_state_dict(path, mmap=mmap), config=config, device=device, dtype=dtype, origin=origin,
        fit_head=fit_head or bool(config and config.label_offset), fit_input="in_chans" in given, consume=True,
    )
