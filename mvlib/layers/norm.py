"""Normalisation layers, and normalisation followed by an activation in one module."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from .activations import ActLayer, get_act_layer

__all__ = [
    "NORMS",
    "BatchNormAct2d",
    "LayerNorm",
    "LayerNorm2d",
    "NormLayer",
    "RmsNorm",
    "get_norm_act_layer",
    "get_norm_layer",
]

NormLayer = str | Callable[..., nn.Module] | None


class LayerNorm(nn.LayerNorm):
    """Layer norm over the last dimension with the vision transformers' eps of 1e-6. Shapes: (..., C) -> same."""

    def __init__(self, num_channels: int, eps: float = 1e-6, affine: bool = True) -> None:
        super().__init__(num_channels, eps=eps, elementwise_affine=affine)


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of a feature map. Shapes: (B, C, H, W) -> same."""

    def __init__(self, num_channels: int, eps: float = 1e-6, affine: bool = True) -> None:
        super().__init__(num_channels, eps=eps, elementwise_affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class RmsNorm(nn.RMSNorm):
    """Root-mean-square norm over the last dimension (Zhang and Sennrich, 2019). Shapes: (..., C) -> same."""

    def __init__(self, num_channels: int, eps: float = 1e-6, affine: bool = True) -> None:
        super().__init__(num_channels, eps=eps, elementwise_affine=affine)


class BatchNormAct2d(nn.BatchNorm2d):
    """Batch norm, then (dropout, if given, then) an activation; state-dict keys are those of batch norm alone.

    Shapes: (B, C, H, W) -> same.

    Args:
        num_features: Channels.
        apply_act: Whether to apply the activation at all.
        act_layer: Activation by name or class.
        act_kwargs: Keyword arguments for the activation.
        drop_layer: Optional module class applied between the two.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        apply_act: bool = True,
        act_layer: ActLayer = nn.ReLU,
        act_kwargs: dict | None = None,
        inplace: bool = True,
        drop_layer: Callable[[], nn.Module] | None = None,
    ) -> None:
        super().__init__(num_features, eps=eps, momentum=momentum, affine=affine,
                         track_running_stats=track_running_stats)
        self.drop = drop_layer() if drop_layer is not None else nn.Identity()
        act = get_act_layer(act_layer) if apply_act else None
        self.act = act(**{"inplace": inplace, **(act_kwargs or {})}) if act is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))


NORMS: dict[str, Callable[..., nn.Module]] = {
    "batchnorm": nn.BatchNorm2d,
    "batchnorm2d": nn.BatchNorm2d,
    "layernorm": LayerNorm,
    "layernorm2d": LayerNorm2d,
    "rmsnorm": RmsNorm,
}


def get_norm_layer(norm: NormLayer) -> Callable[..., nn.Module] | None:
    """The norm class for a name ("batchnorm2d", "layernorm", ...); a class, a partial or None is returned as it is.

    Raises:
        ValueError: The name is unknown; the message lists those that are known.
    """
    if norm is None or norm == "":
        return None
    if not isinstance(norm, str):
        return norm
    name = norm.lower().replace("_", "")
    if name not in NORMS:
        raise ValueError(f"unknown norm layer '{norm}'; known: {', '.join(sorted(NORMS))}")
    return NORMS[name]


def get_norm_act_layer(norm: NormLayer, act: ActLayer = None) -> Callable[..., nn.Module]:
    """A class (or partial) that normalises a feature map and then applies `act`.

    Batch norm, by name or class or partial, becomes `BatchNormAct2d` with the partial's arguments kept; a class that
    already applies an activation is returned with `act` bound.

    Raises:
        ValueError: There is no such combination.
    """
    norm = get_norm_layer(norm) or nn.BatchNorm2d
    kwargs: dict = {}
    if isinstance(norm, partial):
        norm, kwargs = norm.func, dict(norm.keywords)
    if norm is nn.BatchNorm2d:
        norm = BatchNormAct2d
    if not issubclass(norm, BatchNormAct2d):
        raise ValueError(f"no normalisation-and-activation layer for {norm.__name__}")
    if act is not None:
        kwargs.setdefault("act_layer", get_act_layer(act))
    return partial(norm, **kwargs)
