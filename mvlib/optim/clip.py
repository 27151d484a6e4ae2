"""Gradient clipping."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..layers.helpers import unwrap
from ..names import closest

__all__ = ["adaptive_clip_grad", "clip_grad", "model_parameters", "unitwise_norm"]

_MODES = ("norm", "value", "agc")


def clip_grad(
    parameters: Tensor | Iterable[Tensor], value: float, mode: str = "norm", norm_type: float = 2.0
) -> Tensor | None:
    """Clip gradients in place.

    Args:
        parameters: Whose gradients; `model_parameters` leaves out the classifier, as "agc" should.
        value: The bound: of the norm of all together ("norm"), of each element ("value"), or of a unit's gradient
            relative to its weight ("agc").
        mode: "norm", "value" or "agc".
        norm_type: Order of the norm.

    Returns:
        The norm before clipping, a scalar tensor, for "norm"; else None.

    Raises:
        ConfigError: An unknown mode.
    """
    if mode == "norm":
        return nn.utils.clip_grad_norm_(parameters, value, norm_type=norm_type)
    if mode == "value":
        nn.utils.clip_grad_value_(parameters, value)
    elif mode == "agc":
        adaptive_clip_grad(parameters, value, norm_type=norm_type)
    else:
        raise ConfigError(f"unknown clip mode '{mode}', not one of {', '.join(_MODES)}{closest(mode, _MODES)}")
    return None


@torch.no_grad()
def adaptive_clip_grad(
    parameters: Tensor | Iterable[Tensor], clip_factor: float = 0.01, eps: float = 1e-3, norm_type: float = 2.0
) -> None:
    """Bound the gradient of each output unit by its weight's norm (Brock et al. 2021, https://arxiv.org/abs/2102.06171).

    Args:
        parameters: Whose gradients to clip, in place.
        clip_factor: Largest ratio of the two norms.
        eps: Least norm of a weight, so that one of zeros can still learn.
        norm_type: Order of the norms.
    """
    for p in [parameters] if isinstance(parameters, Tensor) else parameters:
        if p.grad is not None:
            bound = unitwise_norm(p, norm_type).clamp(min=eps) * clip_factor
            size = unitwise_norm(p.grad, norm_type)
            p.grad.mul_(torch.where(size < bound, 1.0, bound / size.clamp(min=1e-6)))


def unitwise_norm(x: Tensor, norm_type: float = 2.0) -> Tensor:
    """One norm an output unit (the first dimension), shaped to broadcast; of a vector or scalar, one."""
    dims = tuple(range(1, x.ndim)) or None
    return torch.linalg.vector_norm(x, norm_type, dim=dims, keepdim=x.ndim > 1)


def model_parameters(model: nn.Module, exclude_head: bool = False) -> list[nn.Parameter]:
    """A model's parameters, without its classifiers' if `exclude_head`.

    A model that does not name its classifier (`classifier_paths` or `get_classifier()`) loses its last two parameters,
    as timm does for every model.
    """
    params = list(model.parameters())
    if not exclude_head:
        return params
    heads = _classifiers(model)
    if heads is None:
        return params[:-2]
    excluded = {id(p) for head in heads for p in head.parameters()}
    return [p for p in params if id(p) not in excluded]


def _classifiers(model: nn.Module) -> list[nn.Module] | None:
    model = unwrap(model)
    if hasattr(model, "classifier_paths"):
        return [model.get_submodule(path) for path in model.classifier_paths]
    if hasattr(model, "get_classifier"):
        head = model.get_classifier()
        return list(head) if isinstance(head, tuple) else [head]
    return None
