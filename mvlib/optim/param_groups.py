"""Parameter groups: what takes weight decay, and learning rates that fall with the distance from the head.

A model may come in wrappers (DDP, FSDP, torch.compile, ...): names are those within.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from ..layers.helpers import named_parameters, plain_name, unwrap

__all__ = ["auto_group_layers", "group_parameters", "param_groups_layer_decay", "param_groups_weight_decay"]

Groups = list[dict[str, Any]]
_UNMATCHED = (math.inf,)
_WITH_PREVIOUS = 99999  # last number of a layer that is not one, but belongs to the layer before


def _matches(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _patterns(
    model: nn.Module, fallback_list: Collection[str], fallback_no_weight_decay: bool,
    no_weight_decay_list: Collection[str],
) -> tuple[set[str], set[str]]:
    """Patterns of what takes no decay and of what goes to the fallback, within the model's wrappers."""
    outside = "module." if model is not unwrap(model) else ""  # names may be given as they are there
    no_decay, fallback = ({plain_name(pattern).removeprefix(outside) for pattern in patterns}
                          for patterns in (no_weight_decay_list, fallback_list))
    return no_decay, fallback | (no_decay if fallback_no_weight_decay else set())


def param_groups_weight_decay(
    model: nn.Module,
    weight_decay: float = 1e-5,
    weight_decay_exclude_1d: bool = True,
    no_weight_decay_list: Collection[str] = (),
    fallback_list: Collection[str] = (),
    fallback_no_weight_decay: bool = False,
) -> Groups:
    """Sort a model's parameters into those with and those without weight decay. Frozen ones are left out.

    Args:
        model: The model.
        weight_decay: Of the parameters that take it.
        weight_decay_exclude_1d: Vectors, scalars and biases take none.
        no_weight_decay_list: Names or wildcards of further parameters that take none.
        fallback_list: Names or wildcards of parameters for a hybrid optimizer's fallback (Muon: AdamW).
        fallback_no_weight_decay: `no_weight_decay_list` goes to the fallback too.

    Returns:
        At most four groups: without and with decay, then the same two of the fallback, marked "use_fallback".
    """
    no_decay, fallback = _patterns(model, fallback_list, fallback_no_weight_decay, no_weight_decay_list)
    sorted_params: dict[tuple[bool, bool], list[nn.Parameter]] = {
        (is_fallback, decays): [] for is_fallback in (False, True) for decays in (False, True)}
    for name, p in named_parameters(model):
        if p.requires_grad:
            is_excluded = weight_decay_exclude_1d and (p.ndim <= 1 or name.endswith(".bias"))
            decays = bool(weight_decay) and not is_excluded and not _matches(name, no_decay)
            sorted_params[_matches(name, fallback), decays].append(p)
    return [
        {"params": params, "weight_decay": weight_decay if decays else 0.0,
         **({"use_fallback": True} if is_fallback else {})}
        for (is_fallback, decays), params in sorted_params.items() if params
    ]


def group_parameters(model: nn.Module, matcher: Mapping[str, Any] | Callable[[str], Any]) -> dict[str, int]:
    """Number of the layer that each parameter belongs to, counted from the image.

    Args:
        model: The model.
        matcher: What a model's `group_matcher()` gives: from a name to a pattern or to pairs of a pattern and a suffix
            of the layer's key. Entries come in order, then the numbers that the pattern's groups match, then the
            suffix; a suffix (99999,) joins the layer before. What matches nothing comes last. Or a function from a
            parameter's name to such a key.
    """
    return group_names((name for name, _ in named_parameters(model)), matcher)


def group_names(names: Iterable[str], matcher: Mapping[str, Any] | Callable[[str], Any]) -> dict[str, int]:
    """Number of the layer that each name belongs to; see `group_parameters`. Names whose key is None are left out."""
    key_of = matcher if callable(matcher) else _key_function(matcher)
    keys: dict[str, tuple[float, ...]] = {}
    for name in names:
        key = key_of(name)
        if key is not None:
            keys[name] = tuple(key) if isinstance(key, Collection) else (key,)
    layers: dict[tuple[float, ...], int] = {}
    layer = -1
    for key in sorted(set(keys.values())):
        if layer < 0 or key[-1] != _WITH_PREVIOUS:
            layer += 1
        layers[key] = layer
    return {name: layers[key] for name, key in keys.items()}


def _key_function(matcher: Mapping[str, Any]) -> Callable[[str], tuple[float, ...]]:
    rules = []
    for order, entry in enumerate(matcher.values()):
        if entry is not None:
            pairs = [(entry, None)] if isinstance(entry, str) else entry
            rules += [(re.compile(pattern), order, suffix or ()) for pattern, suffix in pairs]

    def key_of(name: str) -> tuple[float, ...]:
        for pattern, order, suffix in rules:
            if match := pattern.match(name):
                numbers = [float(number) for number in match.groups() if number is not None]
                return (order, *numbers, *suffix)
        return _UNMATCHED

    return key_of


def auto_group_layers(model: nn.Module, layers_per_group: int = 12, num_groups: int | None = None) -> dict[str, int]:
    """Layer numbers for a model that does not say: so many parameters a layer, in order, and the classifier last.

    Args:
        model: The model; `pretrained_cfg["classifier"]` names the classifier (a prefix or several). Without it all
            parameters are one layer.
        layers_per_group: Parameters a layer.
        num_groups: Layers before the classifier, in place of `layers_per_group`.
    """
    prefixes = dict(getattr(unwrap(model), "pretrained_cfg", None) or {}).get("classifier") or ""
    prefixes = (prefixes,) if isinstance(prefixes, str) else tuple(prefixes)
    names = [name for name, _ in named_parameters(model)]
    trunk = [name for name in names if not name.startswith(prefixes)]
    if num_groups is not None:
        layers_per_group = max(1, math.ceil(len(trunk) / num_groups))
    layers = {name: i // layers_per_group for i, name in enumerate(trunk)}
    head = math.ceil(len(trunk) / layers_per_group)
    return {name: layers.get(name, head) for name in names}


def param_groups_layer_decay(
    model: nn.Module,
    weight_decay: float = 0.05,
    no_weight_decay_list: Collection[str] = (),
    fallback_list: Collection[str] = (),
    fallback_no_weight_decay: bool = False,
    weight_decay_exclude_1d: bool = True,
    layer_decay: float = 0.75,
    min_scale: float = 0.0,
    no_opt_scale: float | None = None,
    verbose: bool = False,
) -> Groups:
    """Groups whose learning rate falls from layer to layer towards the image, as BEiT fine-tunes (https://arxiv.org/abs/2106.08254).

    Layers are those of `model.group_matcher()`, or of `auto_group_layers` for a model that has none. Each group holds
    its factor as "lr_scale", which the schedulers multiply the learning rate by.

    Args:
        model: The model.
        weight_decay: Of the parameters that take it: not vectors and scalars (with `weight_decay_exclude_1d`), nor
            those that `no_weight_decay_list` names.
        no_weight_decay_list: Names or wildcards.
        fallback_list: Names or wildcards of parameters for a hybrid optimizer's fallback.
        fallback_no_weight_decay: `no_weight_decay_list` goes to the fallback too.
        weight_decay_exclude_1d: Vectors and scalars take no weight decay.
        layer_decay: Factor from one layer to the one before it.
        min_scale: Least factor.
        no_opt_scale: A layer with a factor below this is frozen: its parameters' `requires_grad` is set to False.
        verbose: Log the groups.

    Returns:
        One group for each layer and kind, in the order in which the model has them. Frozen parameters are left out.
    """
    no_decay, fallback = _patterns(model, fallback_list, fallback_no_weight_decay, no_weight_decay_list)
    inner = unwrap(model)
    if hasattr(inner, "group_matcher"):
        layers = group_parameters(model, inner.group_matcher(coarse=False))
    else:
        layers = auto_group_layers(model)
    last = max(layers.values(), default=0)
    groups: dict[tuple[int, bool, bool], dict[str, Any]] = {}
    names: dict[tuple[int, bool, bool], list[str]] = {}
    for name, p in named_parameters(model):
        if not p.requires_grad:
            continue
        layer = layers.get(name, last)
        scale = max(min_scale, layer_decay ** (last - layer))
        if no_opt_scale and scale < no_opt_scale:
            p.requires_grad = False
            continue
        decays = not (weight_decay_exclude_1d and p.ndim <= 1) and not _matches(name, no_decay)
        key = layer, decays, _matches(name, fallback)
        if key not in groups:
            groups[key] = {"lr_scale": scale, "weight_decay": weight_decay if decays else 0.0, "params": []}
            if key[2]:
                groups[key]["use_fallback"] = True
        groups[key]["params"].append(p)
        names.setdefault(key, []).append(name)
    _report(last, groups, names, verbose)
    return list(groups.values())


def _report(last: int, groups: Mapping[Any, Mapping[str, Any]], names: Mapping[Any, list[str]], verbose: bool) -> None:
    if last == 0:
        import warnings

        warnings.warn("layer decay has no effect: all parameters are one layer. A model without group_matcher() needs "
                      "pretrained_cfg['classifier'] to be split", stacklevel=3)
    if verbose:
        import logging

        for key, group in groups.items():
            logging.getLogger(__name__).info("layer %d: lr_scale %.4g, weight_decay %g: %s", key[0], group["lr_scale"],
                                             group["weight_decay"], ", ".join(names[key]))
