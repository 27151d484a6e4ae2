"""Optimizers that other packages bring, under timm's argument names."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer

__all__ = ["AdaBelief"]


def AdaBelief(
    params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-16,
    weight_decay: float = 0.0, amsgrad: bool = False, decoupled_decay: bool = True, fixed_decay: bool = False,
    rectify: bool = True, degenerated_to_sgd: bool = True, foreach: bool | None = None,
) -> Optimizer:
    """pytorch-optimizer's AdaBelief (https://arxiv.org/abs/2010.07468).

    It counts steps by group where timm counts by parameter, which shows only where a parameter misses gradients;
    adds coupled weight decay to the gradients in place; and takes `amsgrad` into the rectified update too.

    Args:
        fixed_decay: Weight decay does not scale with the learning rate.
        rectify: Rectify the variance as RAdam does.
        degenerated_to_sgd: Take plain momentum steps while the variance is not known well enough to rectify.

    Raises:
        ImportError: pytorch-optimizer is not installed.
    """
    from pytorch_optimizer import AdaBelief

    return AdaBelief(
        params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, ams_bound=amsgrad,
        weight_decouple=decoupled_decay, fixed_decay=fixed_decay, rectify=rectify,
        degenerated_to_sgd=degenerated_to_sgd, foreach=foreach)
