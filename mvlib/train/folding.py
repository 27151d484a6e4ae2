"""Batch norms folded into the convolutions before them: the same outputs, less work. For inference."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["fold_batch_norms"]

_TOLERANCE = 1e-3  # of the largest output: float32 loses 1e-6 to 1e-5, a wrong pair all


@torch.inference_mode()
def fold_batch_norms(model: nn.Module, images: Tensor) -> int:
    """Fold, in place, each batch norm that follows one convolution, and nothing else, into that convolution.

    Which norm reads which convolution is seen in a pass over `images`. Activations that belong to a norm stay. If the
    outputs change by more than rounding (a convolution that makes its weights anew in each pass, for instance), all is
    put back.

    Args:
        model: In evaluation mode; its parameters are changed.
        images: A batch (B, C, H, W) of whatever the model takes.

    Returns:
        How many were folded.
    """
    pairs = _pairs(model, images)
    if not pairs:
        return 0
    expected = _tensor(model(images)).float()
    parents = {id(child): (parent, name) for parent in model.modules() for name, child in parent.named_children()}
    undo = []
    for conv, norm in pairs:
        undo.append((conv, conv.weight, conv.bias, *parents[id(norm)], norm))
        scale = torch.rsqrt(norm.running_var + norm.eps) * (1 if norm.weight is None else norm.weight)
        shift = (0 if norm.bias is None else norm.bias) - norm.running_mean * scale
        bias = shift if conv.bias is None else shift + conv.bias * scale
        weight = (conv.weight * scale.view(-1, 1, 1, 1)).to(memory_format=_format(conv.weight))
        conv.weight, conv.bias = nn.Parameter(weight, requires_grad=False), nn.Parameter(bias, requires_grad=False)
        parent, name = parents[id(norm)]
        rest = [part for part in (getattr(norm, "drop", None), getattr(norm, "act", None))
                if part is not None and not isinstance(part, nn.Identity)]
        setattr(parent, name, nn.Identity() if not rest else rest[0] if len(rest) == 1 else nn.Sequential(*rest))
    found = _tensor(model(images)).float()
    if (found - expected).abs().max() <= _TOLERANCE * expected.abs().max().clamp(min=1e-6):
        return len(pairs)
    for conv, weight, bias, parent, name, norm in undo:
        conv.weight, conv.bias = weight, bias
        setattr(parent, name, norm)
    return 0


def _pairs(model: nn.Module, images: Tensor) -> list[tuple[nn.Conv2d, _BatchNorm]]:
    """Convolutions and the norms that read them, each of which ran once."""
    produced: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    pairs: list[tuple[nn.Conv2d, _BatchNorm]] = []
    runs: dict[int, int] = {}

    def after(conv: nn.Module, inputs: tuple, output: Tensor) -> None:
        runs[id(conv)] = runs.get(id(conv), 0) + 1
        produced[id(output)] = conv, output  # held, so that no other tensor takes its id

    def before(norm: nn.Module, inputs: tuple) -> None:
        runs[id(norm)] = runs.get(id(norm), 0) + 1
        conv, output = produced.pop(id(inputs[0]), (None, None))
        if conv is not None and norm.track_running_stats and norm.running_mean is not None:
            pairs.append((conv, norm))

    handles = [module.register_forward_hook(after) if isinstance(module, nn.Conv2d)
               else module.register_forward_pre_hook(before)
               for module in model.modules() if isinstance(module, (nn.Conv2d, nn.BatchNorm2d))]
    try:
        model(images)
    finally:
        for handle in handles:
            handle.remove()
    return [pair for pair in pairs if all(runs[id(module)] == 1 for module in pair)]


def _format(weight: Tensor) -> torch.memory_format:
    last = weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def _tensor(outputs: Tensor | tuple[Tensor, ...]) -> Tensor:
    return outputs if isinstance(outputs, Tensor) else outputs[0]
