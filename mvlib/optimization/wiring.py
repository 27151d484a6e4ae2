"""Which module reads which, and changes to a model's modules that can be taken back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

__all__ = ["Snapshot", "adjacent", "parents_of", "record_calls", "relative_difference", "replace"]


class Snapshot:
    """The modules, parameters and buffers of a model as they are now, to go back to.

    Holds references, no copies: it takes back what was replaced, not what was changed in place.
    """

    def __init__(self, model: nn.Module) -> None:
        self._saved: list[tuple[dict[str, Any], dict[str, Any]]] = [
            (own, dict(own)) for module in model.modules()
            for own in (module._modules, module._parameters, module._buffers)]

    def restore(self) -> None:
        for own, saved in self._saved:  # the same dicts: a feature extractor and its model share one
            own.clear()
            own.update(saved)


def relative_difference(found: Any, expected: Any) -> float:
    """Largest difference of any output, as a part of that output's largest value; infinite where they do not compare.

    Takes a tensor, or any nest of tuples, lists and dicts of them.
    """
    pairs = list(zip(_tensors(found), _tensors(expected), strict=True))
    worst = 0.0
    for own, other in pairs:
        if own.shape != other.shape:
            return float("inf")
        if not other.numel():
            continue
        own, other = own.float(), other.float()
        difference = ((own - other).abs().max() / other.abs().max().clamp(min=1e-12)).item()
        worst = max(worst, difference if difference == difference else float("inf"))
    return worst


def _tensors(outputs: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]


def parents_of(model: nn.Module) -> dict[int, list[tuple[nn.Module, str]]]:
    """{id of a module: where it stands}; more than one place where it is shared."""
    places: dict[int, list[tuple[nn.Module, str]]] = {}
    for parent in model.modules():
        for name, child in parent._modules.items():
            if child is not None:
                places.setdefault(id(child), []).append((parent, name))
    return places


def replace(places: Iterable[tuple[nn.Module, str]], module: nn.Module) -> None:
    for parent, name in places:
        parent._modules[name] = module.train(parent.training)


@torch.inference_mode()
def record_calls(
    model: nn.Module, images: Tensor, kinds: tuple[type, ...], note: Callable[[nn.Module, Tensor, Tensor], None]
) -> None:
    """Run the model once and call `note(module, input, output)` after each module of these kinds."""
    def after(module: nn.Module, inputs: tuple, output: Any) -> None:
        if inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
            note(module, inputs[0], output)

    with _hooks(model, kinds, None, after):
        model(images)


@contextlib.contextmanager
def _hooks(
    model: nn.Module, kinds: tuple[type, ...], before: Callable | None, after: Callable
) -> Iterator[None]:
    handles = []
    for module in model.modules():
        if isinstance(module, kinds):
            handles.append(module.register_forward_hook(after))
            if before is not None:
                handles.append(module.register_forward_pre_hook(before))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def adjacent(
    model: nn.Module, images: Tensor, firsts: tuple[type, ...], seconds: tuple[type, ...]
) -> list[tuple[nn.Module, nn.Module]]:
    """Pairs of modules of which the second reads what the first gives; each ran once in a pass over `images`.

    A pair says nothing of others that may read the same tensor: compare outputs after a change.
    """
    given: dict[int, tuple[nn.Module, Tensor, int]] = {}
    pairs: list[tuple[nn.Module, nn.Module]] = []
    runs: dict[int, int] = {}

    def before(module: nn.Module, inputs: tuple) -> None:
        runs[id(module)] = runs.get(id(module), 0) + 1
        if isinstance(module, seconds) and inputs and id(inputs[0]) in given:
            first, tensor, version = given.pop(id(inputs[0]))
            if tensor._version == version:  # nothing was added in place, as residual blocks do
                pairs.append((first, module))

    def after(module: nn.Module, inputs: tuple, output: Any) -> None:
        if isinstance(module, firsts) and isinstance(output, Tensor) and not output.is_inference():
            given[id(output)] = module, output, output._version  # held, so that no other tensor takes its id

    with torch.inference_mode(False), torch.no_grad(), _hooks(model, firsts + seconds, before, after):
        model(images.clone())
    return [pair for pair in pairs if all(runs[id(module)] == 1 for module in pair)]
