"""Which order of dimensions in memory suits a model."""

from __future__ import annotations

from torch import nn

__all__ = ["is_convolutional"]


def is_convolutional(model: nn.Module) -> bool:
    """Whether convolutions do the work: they are quicker channels last, on CPUs and GPUs alike."""
    weights = [m.weight.numel() for m in model.modules() if isinstance(m, nn.Conv2d)]
    return 2 * sum(weights) > sum(p.numel() for p in model.parameters()) or len(weights) > 8
