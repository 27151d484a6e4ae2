"""torchvision's own classes under its own names: built by its code, filled by our loader.

A builder of `mvlib.models` that torchvision has, called for weights that torchvision publishes or for none, ends here.
Without weights the model is torchvision's to the bit. With weights it is built on the meta device, and the verified,
mapped file becomes its parameters. Beside torchvision's attributes such a model has those by which ours say what they
are (`structure`, `architecture`, `pretrained_cfg`, `weights_config`, `base_weights`, ...), and its `load_state_dict`
takes the state dict of our architecture, too.
"""

from __future__ import annotations

import functools
import importlib
import logging
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from . import hub, registry
from .arguments import arguments_of, model_class
from .enums import WeightsEnum
from .factory import Empty, build_empty, describe_inputs
from .loading import load_weights, read_state_dict
from .models.base import KeyMap, StateDict
from .torchvision_modules import real
from .weights import WeightsConfig

__all__ = ["build", "note_classes"]

_logger = logging.getLogger("mvlib")

AUXILIARY = ("aux1", "aux2", "AuxLogits")  # heads that only training uses
_AUX_WARNING = "the auxiliary heads of the published GoogLeNet are not trained: train them before they are of use"


def build(
    builder: str, weights: WeightsEnum | None, default: WeightsConfig | None, progress: bool = True, **kwargs: Any
) -> nn.Module:
    """torchvision's model.

    Args:
        builder: Name of its builder.
        weights: Published by torchvision; None initialises the model as torchvision does.
        default: What `pretrained_cfg` says of a model without weights.
        progress: Show a bar while weights are downloaded.
        **kwargs: Of torchvision's builder. Of those that its weights imply there, another `num_classes` gets a new head
            and another `image_size` fitted positions; auxiliary heads are built if they are asked for.

    Raises:
        TypeError, ValueError: What torchvision raises for these arguments.
        WeightsError: The weights cannot be had, are damaged, or do not fit.
    """
    make = functools.partial(_make, builder)
    if weights is None:
        model = make(**kwargs)
        _describe(model, builder, default or WeightsConfig(), kwargs)
        return model
    config = weights._config()
    arguments = {**_implied(builder, config), **kwargs}
    rows = arguments.get("num_classes", 1000)
    is_new_head = rows != (config.num_classes or 1000)
    if any(map(callable, arguments.values())):  # a stranger's layers may compute with what they hold
        model = make(**arguments)
    else:
        with _ButHead(rows if is_new_head else None):
            model = make(**arguments)
    _describe(model, builder, config, kwargs)
    if not nn.Linear(1, 1).weight.is_meta:  # else the caller's context asks for models without values
        _load(model, config, progress, is_new_head)
    model.base_weights = config
    if arguments.get("aux_logits") and "googlenet" in builder:
        warnings.warn(_AUX_WARNING, UserWarning, stacklevel=registry.caller_level())
    return model


def _make(builder: str, **kwargs: Any) -> Any:
    try:
        return real("torchvision.models").get_model_builder(builder)(weights=None, **kwargs)
    except TypeError as error:
        architecture = registry.resolve_name(builder)[0]
        ours = next((key for key in arguments_of(registry.load_entrypoint(architecture)) or ()
                     if str(error).endswith(f"got an unexpected keyword argument '{key}'")), None)
        if ours is None:
            raise
        raise TypeError(f"torchvision's {error}; mvlib.create_model('{architecture}', {ours}=...) takes it") from None


def _implied(builder: str, config: WeightsConfig) -> dict[str, Any]:
    """torchvision's arguments that follow from weights."""
    if builder.startswith("vit_"):
        return {"image_size": config.input_size[-1]}
    if builder.startswith("maxvit_"):
        return {"input_size": tuple(config.input_size[1:])}
    if "googlenet" in builder or "inception" in builder:
        return {"transform_input": True, "aux_logits": builder == "inception_v3", "init_weights": False}
    return {}


class _ButHead(Empty):
    """Leaves out layers of `rows` rows, a new head's number of classes."""

    makers = Empty.makers | {torch.full, torch.rand, torch.randn}

    def __init__(self, rows: int | None) -> None:
        super().__init__()
        self.rows = rows

    def takes(self, size: Any) -> bool:
        return self.rows is None or (size if isinstance(size, int) else next(iter(size), None)) != self.rows


def _load(model: Any, config: WeightsConfig, progress: bool, is_new_head: bool) -> None:
    _logger.info("loading '%s' from %s", config.name, config.sources[0])
    path, is_mappable = hub.fetch_weights(config, progress=progress)
    default = torch.get_default_device()  # the caller's `with torch.device(...)`
    device = default if default.type != "cpu" else None
    absent = tuple(f"{name}." for name in AUXILIARY if getattr(model, name, 0) is None)
    with torch.device("cpu") if device is not None else nullcontext():  # weights are fitted where values are
        state_dict = {key: value for key, value in read_state_dict(path, mmap=is_mappable).items()
                      if not key.startswith(absent)}
        if model.img_size is not None and "encoder.pos_embedding" in state_dict:
            state_dict = _fit_positions(model, state_dict)
        own = config.replace(key_map="torchvision", classifier=None, first_conv=None)  # what it says holds for ours
        load_weights(model, state_dict, config=own, device=device, origin=config.name, fit_head=is_new_head,
                     consume=True)
        if device is not None:
            model.to(device)


def _fit_positions(model: Any, state_dict: StateDict) -> StateDict:
    module = real("torchvision.models.vision_transformer")
    return module.interpolate_embeddings(model.image_size, model.patch_size, state_dict)


# what the model says of itself

def _describe(model: Any, builder: str, config: WeightsConfig, kwargs: Mapping[str, Any]) -> None:
    architecture = registry.resolve_name(builder)[0]
    model.structure = "torchvision"
    model.architecture = architecture
    model.model_args = dict(config.model_args)
    model.in_chans = 3
    size = getattr(model, "image_size", None) or kwargs.get("input_size")
    model.img_size = (size, size) if isinstance(size, int) else size and tuple(size)
    model.weights_config = config if config.architecture else config.replace(architecture=architecture)
    model.pretrained_cfg = model.default_cfg = describe_inputs(model, model.weights_config).to_dict()
    model.base_weights = None
    note_classes(model)
    model.key_maps = _key_maps(architecture)
    if model.key_maps:
        model.register_load_state_dict_pre_hook(_adapt)


def note_classes(model: Any) -> None:
    """Note the classifier that the model has now, which users replace: `classifier_paths`, `num_classes` and
    `num_features`."""
    heads = (model, *(getattr(model, name, None) for name in AUXILIARY))
    layers = [[name for name, module in head.named_modules(prefix=prefix)
               if getattr(module, "weight", None) is not None]
              for prefix, head in zip(("", *AUXILIARY), heads) if head is not None]
    model.classifier_paths = tuple(paths[-1] for paths in layers)
    weight = model.get_submodule(model.classifier_paths[0]).weight
    model.num_classes, model.num_features = weight.shape[:2]


# between torchvision's layout and ours

def _key_maps(architecture: str) -> tuple[KeyMap, ...]:
    """Of a model of torchvision's: what reads the state dict of our architecture, where the keys are others."""
    family = registry.get_module(architecture)
    if family == "densenet":  # the same keys, but the published files are older
        return importlib.import_module("mvlib.models.densenet").DenseNet.key_maps
    if family not in _OTHER_KEYS:
        return ()
    is_ours = functools.partial(_is_ours, architecture)
    return (KeyMap("mvlib", is_ours, functools.partial(_from_ours, architecture)),)


_OTHER_KEYS = ("convnext", "efficientnet", "maxxvit", "mobilenetv3", "regnet", "swin_transformer",
               "swin_transformer_v2", "vgg", "vision_transformer")


@functools.cache
def _our_keys(architecture: str) -> frozenset[str]:
    return frozenset(build_empty(architecture, {}).state_dict())


def _to_ours(architecture: str) -> KeyMap:
    """The family's key map from torchvision's layout."""
    family: Any = model_class(registry.load_entrypoint(architecture))
    return next(key_map for key_map in family.key_maps if key_map.name == "torchvision")


def _is_ours(architecture: str, keys: Mapping[str, Any]) -> bool:
    if _to_ours(architecture).matches(keys):
        return False
    return sum(key in _our_keys(architecture) for key in keys) > len(keys) / 2


def _from_ours(architecture: str, state_dict: StateDict, model: nn.Module) -> StateDict:
    """Our state dict in torchvision's layout.

    The key map from torchvision's layout to ours makes views: what is written to these, is read in torchvision's.
    """
    own = model.state_dict()
    theirs = {key: torch.zeros_like(value, device="cpu") for key, value in own.items()}
    places = {value.untyped_storage().data_ptr(): key for key, value in theirs.items()}
    views = _to_ours(architecture).convert(dict(theirs), build_empty(architecture, {}))
    converted: StateDict = {}
    sources = {places[view.untyped_storage().data_ptr()] for view in views.values()}
    missing = set()
    for name, view in views.items():
        source = places[view.untyped_storage().data_ptr()]
        if name not in state_dict:
            missing.add(source)
        elif state_dict[name].shape == view.shape:
            view.copy_(state_dict[name])
            converted.setdefault(source, theirs[source])
        else:  # which is an error to say, and not to hide
            converted[source] = state_dict[name]
    for key, value in own.items():  # an index that our models compute
        if key not in sources:
            converted[key] = value
    converted.update((name, value) for name, value in state_dict.items() if name not in views)
    return {key: value for key, value in converted.items() if key not in missing}


def _adapt(module: Any, state_dict: StateDict, prefix: str, *_: Any) -> None:
    """What `load_state_dict` of such a model does first, by itself or as a part of another."""
    given = {key[len(prefix):]: value for key, value in state_dict.items() if key.startswith(prefix)}
    key_map = next((candidate for candidate in module.key_maps if candidate.matches(given)), None)
    if key_map is not None and not given.keys() <= module.state_dict().keys():
        for key in given:
            del state_dict[prefix + key]
        state_dict.update((prefix + key, value) for key, value in key_map.apply(given, module).items())


