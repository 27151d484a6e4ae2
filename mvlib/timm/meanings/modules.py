"""timm's walks over modules: applying, naming, grouping, recomputing, fusing."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.utils import checkpoint as torch_checkpoint

from ... import loading
from ...errors import CheckpointError
from ...layers.branches import reparameterize
from ...models.pruning import prune_to_widths
from ...optim.param_groups import group_names

__all__ = [
    "adapt_input_conv", "adapt_model_from_file", "adapt_model_from_string", "checkpoint", "checkpoint_seq",
    "extract_layer", "flatten_modules", "group_modules", "group_parameters", "group_with_matcher",
    "model_parameters", "named_apply", "named_modules", "named_modules_with_params",
    "reinit_non_persistent_buffers", "reparameterize_model", "set_layer",
]

Named = Iterator[tuple[str, nn.Module]]


def model_parameters(model: nn.Module, exclude_head: bool = False) -> Iterable[nn.Parameter]:
    """A model's parameters, without the last two of them (a classifier's weight and bias) if they are excluded."""
    return list(model.parameters())[:-2] if exclude_head else model.parameters()


def named_modules(module: nn.Module, name: str = "", depth_first: bool = True, include_root: bool = False) -> Named:
    """(path, module) of all modules below one, each after its children, or before them.

    A module that stands in two places comes twice.
    """
    if include_root and not depth_first:
        yield name, module
    for key, child in module.named_children():
        yield from named_modules(child, f"{name}.{key}" if name else key, depth_first, include_root=True)
    if include_root and depth_first:
        yield name, module


def named_apply(
    fn: Callable[..., Any], module: nn.Module, name: str = "", depth_first: bool = True, include_root: bool = False
) -> nn.Module:
    """Call `fn(module=..., name=...)` for all modules below one, in the order of `named_modules`."""
    if include_root and not depth_first:
        fn(module=module, name=name)
    for key, child in module.named_children():  # as they are when their turn comes: fn may replace them
        named_apply(fn, child, f"{name}.{key}" if name else key, depth_first, include_root=True)
    if include_root and depth_first:
        fn(module=module, name=name)
    return module


def named_modules_with_params(
    module: nn.Module, name: str = "", depth_first: bool = True, include_root: bool = False
) -> Named:
    """Those of `named_modules` that own parameters."""
    return ((path, found) for path, found in named_modules(module, name, depth_first, include_root)
            if found._parameters)


def group_with_matcher(
    named_objects: Iterable[tuple[str, Any]], group_matcher: Any, return_values: bool = False, reverse: bool = False
) -> dict[Any, Any]:
    """Objects by layer, from the first, as a model's `group_matcher()` tells layers apart.

    Args:
        named_objects: (name, object).
        group_matcher: {group: pattern, or (pattern, suffix) several times}, or a function of a name.
        return_values: Group the objects instead of their names.
        reverse: Return {name: layer} instead.

    Returns:
        {layer: [names or objects]}.
    """
    objects = dict(named_objects)
    layers = group_names(objects, group_matcher)
    names = sorted(layers, key=lambda name: layers[name])
    if reverse:
        return {name: layers[name] for name in names}
    groups = defaultdict(list)
    for name in names:
        groups[layers[name]].append(objects[name] if return_values else name)
    return groups


def group_parameters(
    module: nn.Module, group_matcher: Any, return_values: bool = False, reverse: bool = False
) -> dict[Any, Any]:
    """`group_with_matcher` of a module's parameters."""
    return group_with_matcher(module.named_parameters(), group_matcher, return_values, reverse)


def group_modules(
    module: nn.Module, group_matcher: Any, return_values: bool = False, reverse: bool = False
) -> dict[Any, Any]:
    """`group_with_matcher` of the modules that own parameters."""
    return group_with_matcher(named_modules_with_params(module), group_matcher, return_values, reverse)


def flatten_modules(
    named_modules: Iterable[tuple[str, nn.Module]],
    depth: int = 1,
    prefix: str | tuple[str, ...] = "",
    module_types: str | tuple[type[nn.Module], ...] = "sequential",
) -> Iterator[tuple[Any, nn.Module]]:
    """Modules with the children of containers among them in the containers' place, to a depth.

    Args:
        named_modules: (name, module).
        depth: How deep containers are opened.
        prefix: What names begin with; of a tuple, names are tuples.
        module_types: Containers: "sequential", "container" (lists and dicts, too), or their classes.
    """
    if isinstance(module_types, str):
        lists = (nn.ModuleList, nn.ModuleDict) if module_types == "container" else ()
        module_types = (nn.Sequential, *lists)
    for name, module in named_modules:
        if depth and isinstance(module, module_types):
            inner: Any = (name,) if isinstance(prefix, tuple) else name
            yield from flatten_modules(module.named_children(), depth - 1, inner, module_types)
        elif isinstance(prefix, tuple):
            yield (*prefix, name), module
        else:
            yield f"{prefix}.{name}" if prefix else name, module


def checkpoint(function: Callable[..., Any], *args: Any, use_reentrant: bool | None = None, **kwargs: Any) -> Any:
    """`torch.utils.checkpoint.checkpoint`, without re-entrance unless it is asked for."""
    return torch_checkpoint.checkpoint(function, *args, use_reentrant=bool(use_reentrant), **kwargs)


def checkpoint_seq(
    functions: Iterable[Callable[..., Any]],
    x: Any,
    every: int = 1,
    flatten: bool = False,
    skip_last: bool = False,
    use_reentrant: bool | None = None,
) -> Any:
    """Run functions one after the other, each recomputed in the backward pass instead of kept.

    Args:
        functions: Modules or functions, or an nn.Sequential of them.
        x: What the first one takes.
        every: How many are recomputed together.
        flatten: The functions are sequences themselves: run their items.
        skip_last: Keep what the last one computes.
        use_reentrant: As of `torch.utils.checkpoint.checkpoint`.
    """
    nested: Any = functions
    steps: Sequence[Callable[..., Any]] = tuple(chain.from_iterable(nested) if flatten else functions)
    end = len(steps) - 1 if skip_last else len(steps)

    def run(part: Sequence[Callable[..., Any]], value: Any) -> Any:
        for step in part:
            value = step(value)
        return value

    for start in range(0, end, every):
        x = checkpoint(run, steps[start:min(start + every, end)], x, use_reentrant=use_reentrant)
    return run(steps[end:], x)


def adapt_input_conv(in_chans: int, conv_weight: torch.Tensor, base_chans: int = 3) -> torch.Tensor:
    """A first convolution's weight for another number of channels; see `mvlib.loading.adapt_input_conv`.

    Raises:
        NotImplementedError: The weight's form cannot be adapted.
    """
    if in_chans < 1 or base_chans < 1:
        raise ValueError(f"numbers of channels are positive, not {in_chans} and {base_chans}")
    if conv_weight.ndim != 4:
        raise NotImplementedError(f"a weight with {conv_weight.ndim} dimensions is not a 2d convolution's")
    try:
        return loading.adapt_input_conv(in_chans, conv_weight, base_chans)
    except CheckpointError as error:
        raise NotImplementedError(str(error)) from None


def extract_layer(model: nn.Module, layer: str) -> Any:
    """The module at a path, with or without the "module." of DataParallel."""
    model = getattr(model, "module", model)
    return model.get_submodule(layer.removeprefix("module."))


def set_layer(model: nn.Module, layer: str, val: nn.Module) -> None:
    """Put a module at a path, with or without the "module." of DataParallel."""
    parent, _, name = layer.removeprefix("module.").rpartition(".")
    setattr(extract_layer(model, parent), name, val)


def adapt_model_from_file(parent_module: Any, model_variant: str) -> nn.Module:
    """A copy of a model, narrowed to the widths of a pruned architecture; see `mvlib.models.pruning`.

    Both are in eval mode then.
    """
    narrowed: nn.Module = prune_to_widths(copy.deepcopy(parent_module.eval()), model_variant)
    return narrowed


def adapt_model_from_string(parent_module: Any, model_string: str) -> nn.Module:
    """`adapt_model_from_file` by the shapes of all weights, in the form "conv1.weight:[32, 3, 3, 3]***bn1.weight:[32]".

    Raises:
        ValueError: A layer is missing in the string, or is none that can be narrowed.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for part in model_string.split("***"):
        key, _, shape = part.partition(":")
        shapes[key] = tuple(int(side) for side in shape.strip("[] ").split(",") if side.strip())
    widths: dict[str, tuple[int, ...]] = {}
    classifier: dict[str, tuple[int, ...]] = {}
    stems = getattr(parent_module, "pretrained_cfg", {}).get("first_conv") or ()
    stems = (stems,) if isinstance(stems, str) else stems
    for path, module in parent_module.named_modules():
        if not isinstance(module, (nn.Conv2d, nn.BatchNorm2d, nn.Linear)):
            continue
        if f"{path}.weight" not in shapes:
            raise ValueError(f"the string of widths lacks the layer '{path}'")
        size = shapes[f"{path}.weight"]
        if path in parent_module.classifier_paths:
            classifier[path] = size[1:]
        elif isinstance(module, nn.Conv2d) and module.groups == 1 and path not in stems:
            widths[path] = size[:2]
        else:
            widths[path] = size[:1]
    narrowed: nn.Module = prune_to_widths(copy.deepcopy(parent_module.eval()), "the string", {**widths, **classifier})
    return narrowed


def reinit_non_persistent_buffers(model: nn.Module) -> list[str]:
    """Compute anew the buffers that no state dict has; the names of the modules that own some, "(root)" the model's."""
    owners: dict[str, Any] = {name: module for name, module in model.named_modules()
                              if hasattr(module, "init_non_persistent_buffers")}
    for module in owners.values():
        module.init_non_persistent_buffers()
    return [name or "(root)" for name in owners]


def reparameterize_model(model: nn.Module, inplace: bool = False) -> nn.Module:
    """The model with each module fused that knows how: by `fuse`, `reparameterize` or `switch_to_deploy`.

    Args:
        model: The model.
        inplace: Change the model itself instead of a copy.
    """
    model = model if inplace else copy.deepcopy(model)
    reparameterize(model)
    return model
