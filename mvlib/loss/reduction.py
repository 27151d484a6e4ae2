"""From the losses of single images or classes to one number."""

from __future__ import annotations

import torch

from ..errors import ConfigError

__all__ = ["check_reduction", "reduce"]


def check_reduction(reduction: str, batchmean: bool = False) -> str:
    """`reduction`, which must be "mean", "sum", "none" or, if allowed, "batchmean"."""
    known = ("batchmean", "sum", "mean", "none") if batchmean else ("mean", "sum", "none")
    if reduction not in known:
        raise ConfigError(f"unknown reduction '{reduction}'; known: {', '.join(known)}")
    return reduction


def reduce(loss: torch.Tensor, reduction: str) -> torch.Tensor:
    """The mean or sum of all, the sum over classes averaged over images ("batchmean"), or all as they are ("none")."""
    if reduction == "batchmean":
        return loss.sum() / len(loss)
    return loss if reduction == "none" else loss.sum() if reduction == "sum" else loss.mean()
