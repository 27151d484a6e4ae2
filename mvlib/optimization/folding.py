"""Batch norms folded into the layers beside them: the same outputs, less work. For inference."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..layers.branches import merge_norm
from .wiring import Snapshot, adjacent, parents_of, relative_difference, replace

__all__ = ["fold_batch_norms"]

_TOLERANCE = 1e-3  # of the largest output: float32 loses 1e-6 to 1e-5, a wrong pair all
_LAYERS = (nn.Conv2d, nn.Linear)
_NORMS = (nn.BatchNorm2d, nn.BatchNorm1d)


@torch.inference_mode()
def fold_batch_norms(model: nn.Module, images: Tensor, tolerance: float = _TOLERANCE) -> int:
    """Fold, in place, each batch norm into the convolution or linear layer whose outputs, or inputs, it alone scales.

    Which norm reads which layer is seen in a pass over `images`. Activations that belong to a norm stay. A norm that
    stands before a layer is folded where that is exact: no activation between them, no padding. If the outputs change
    by more than rounding (a convolution that makes its weights anew in each pass, for instance), all is put back.

    Args:
        model: In evaluation mode; its parameters are replaced.
        images: A batch (B, C, H, W) of whatever the model takes.
        tolerance: Largest change of an output, as a part of the largest output, that counts as rounding.

    Returns:
        How many were folded.
    """
    behind = [(layer, norm) for layer, norm in adjacent(model, images, _LAYERS, _NORMS) if _is_fixed(norm)]
    taken = {id(module) for pair in behind for module in pair}
    before = [(norm, layer) for norm, layer in adjacent(model, images, _NORMS, _LAYERS)
              if id(norm) not in taken and _is_fixed(norm) and _reads_no_padding(layer) and not _rest(norm)]
    if not behind and not before:
        return 0
    expected = model(images)
    snapshot, places = Snapshot(model), parents_of(model)
    for layer, norm in behind:
        merge_norm(layer, norm)
        _remove(places, norm)
    for norm, layer in before:
        merge_norm(layer, norm, before=True)
        _remove(places, norm)
    if relative_difference(model(images), expected) <= tolerance:
        return len(behind) + len(before)
    snapshot.restore()
    return 0


def _is_fixed(norm: nn.Module) -> bool:
    return norm.track_running_stats and norm.running_mean is not None


def _reads_no_padding(layer: nn.Module) -> bool:
    """Whether each output is a sum over all of its inputs; the norm would have to make the padding's zeros, too."""
    if isinstance(layer, nn.Linear):
        return True
    return type(layer) is nn.Conv2d and layer.groups == 1 and layer.padding in ((0, 0), "valid")


def _rest(norm: nn.Module) -> list[nn.Module]:
    """What a norm does besides: dropout, activation."""
    return [part for part in (getattr(norm, "drop", None), getattr(norm, "act", None))
            if part is not None and not isinstance(part, nn.Identity)]


def _remove(places: dict[int, list[tuple[nn.Module, str]]], norm: nn.Module) -> None:
    rest = _rest(norm)
    replace(places[id(norm)], nn.Identity() if not rest else rest[0] if len(rest) == 1 else nn.Sequential(*rest))

