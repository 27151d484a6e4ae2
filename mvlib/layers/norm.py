"""Normalisation layers, and normalisation followed by an activation in one module."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .activations import ActLayer, get_act_layer
from .helpers import check_layer

__all__ = [
    "NORMS",
    "BatchNormAct2d",
    "EvoNorm2dS0",
    "GroupNorm",
    "GroupNormAct",
    "LayerNorm",
    "LayerNorm2d",
    "LayerNormAct2d",
    "NormLayer",
    "RmsNorm",
    "RmsNorm2d",
    "SimpleNorm",
    "SimpleNorm2d",
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

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_tracing():  # ONNX's older exporter does not know the kernel
            x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)
            return x if self.weight is None else x * self.weight
        return super().forward(x)


class RmsNorm2d(RmsNorm):
    """Root-mean-square norm over the channels of a feature map. Shapes: (B, C, H, W) -> same."""

    def forward(self, x: Tensor) -> Tensor:
        # Written out: the fused kernel wants channels last, and the copies cost more than it gains.
        x = x * torch.rsqrt(x.square().mean(1, keepdim=True) + self.eps)
        return x if self.weight is None else x * self.weight.view(-1, 1, 1)


class SimpleNorm(RmsNorm):
    """Division by the standard deviation of the last dimension, the mean kept. Shapes: (..., C) -> same."""

    def forward(self, x: Tensor) -> Tensor:
        x = x * torch.rsqrt(x.var(-1, keepdim=True) + self.eps)
        return x if self.weight is None else x * self.weight


class SimpleNorm2d(RmsNorm):
    """`SimpleNorm` over the channels of a feature map. Shapes: (B, C, H, W) -> same."""

    def forward(self, x: Tensor) -> Tensor:
        x = x * torch.rsqrt(x.var(1, keepdim=True) + self.eps)
        return x if self.weight is None else x * self.weight.view(-1, 1, 1)


class GroupNorm(nn.GroupNorm):
    """Group norm whose first argument is the channel count, as for all norms here. Shapes: (B, C, H, W) -> same.

    Args:
        num_channels: Channels.
        num_groups: Groups.
        group_size: Channels in a group; decides instead of `num_groups`.

    Raises:
        ValueError: The groups do not divide the channels.
    """

    def __init__(
        self,
        num_channels: int,
        num_groups: int = 32,
        eps: float = 1e-5,
        affine: bool = True,
        group_size: int | None = None,
    ) -> None:
        super().__init__(_count_groups(num_channels, num_groups, group_size), num_channels, eps=eps, affine=affine)


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
        act_layer: ActLayer = nn.ReLU,
        apply_act: bool = True,
        inplace: bool = True,
        act_kwargs: dict | None = None,
        drop_layer: Callable[[], nn.Module] | None = None,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        super().__init__(num_features, eps=eps, momentum=momentum, affine=affine,
                         track_running_stats=track_running_stats)
        self.drop = drop_layer() if drop_layer is not None else nn.Identity()
        self.act = _make_act(apply_act, act_layer, act_kwargs, inplace)

    def forward(self, x: Tensor) -> Tensor:
        # Not super().forward: its check of the input's rank cannot be traced by torch.fx.
        momentum = self.momentum
        if self.training and self.num_batches_tracked is not None:
            momentum = _count_batch(x, self.num_batches_tracked, momentum)
        use_batch_stats = self.training or self.running_mean is None
        x = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, use_batch_stats,
                         0.0 if momentum is None else momentum, self.eps)
        return self.act(self.drop(x))


@torch.fx.wrap  # one node in a traced graph, for which x is there: counting changes a buffer
def _count_batch(x: Tensor, batches: Tensor, momentum: float | None) -> float:
    """Count a batch. Returns its share in the running statistics: `momentum`, or that of all batches where None."""
    batches.add_(1)
    return 1.0 / float(batches) if momentum is None else momentum


class GroupNormAct(GroupNorm):
    """Group norm, then an activation; keys of group norm alone, arguments of both. Shapes: (B, C, H, W) -> same."""

    def __init__(
        self,
        num_channels: int,
        num_groups: int = 32,
        eps: float = 1e-5,
        affine: bool = True,
        group_size: int | None = None,
        apply_act: bool = True,
        act_layer: ActLayer = nn.ReLU,
        act_kwargs: dict | None = None,
        inplace: bool = True,
        drop_layer: Callable[[], nn.Module] | None = None,
    ) -> None:
        super().__init__(num_channels, num_groups, eps, affine, group_size)
        self.drop = drop_layer() if drop_layer is not None else nn.Identity()
        self.act = _make_act(apply_act, act_layer, act_kwargs, inplace)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))


class LayerNormAct2d(LayerNorm2d):
    """Layer norm over channels, then an activation; keys of layer norm alone. Shapes: (B, C, H, W) -> same."""

    def __init__(
        self,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        apply_act: bool = True,
        act_layer: ActLayer = nn.ReLU,
        act_kwargs: dict | None = None,
        inplace: bool = True,
        drop_layer: Callable[[], nn.Module] | None = None,
    ) -> None:
        super().__init__(num_channels, eps, affine)
        self.drop = drop_layer() if drop_layer is not None else nn.Identity()
        self.act = _make_act(apply_act, act_layer, act_kwargs, inplace)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))


class EvoNorm2dS0(nn.Module):
    """EvoNorm-S0: x * sigmoid(v * x) / group std, then scale and shift; norm and activation at once.

    Without `apply_act` only scale and shift remain. Shapes: (B, C, H, W) -> same; keys `weight`, `bias`, `v`.
    Source: Liu et al., "Evolving Normalization-Activation Layers", 2020.

    Raises:
        ValueError: The groups do not divide the channels.
    """

    def __init__(
        self,
        num_channels: int,
        groups: int = 32,
        group_size: int | None = None,
        apply_act: bool = True,
        eps: float = 1e-5,
        inplace: bool = False,
    ) -> None:
        super().__init__()
        self.groups = _count_groups(num_channels, groups, group_size)
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(num_channels))
        self.bias = nn.Parameter(torch.empty(num_channels))
        self.v = nn.Parameter(torch.empty(num_channels)) if apply_act else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)
        if self.v is not None:
            nn.init.ones_(self.v)

    def forward(self, x: Tensor) -> Tensor:
        if self.v is not None:
            grouped = x.float().unflatten(1, (self.groups, -1))
            std = (grouped.var((2, 3, 4), unbiased=False, keepdim=True) + self.eps).sqrt().to(x.dtype)
            gated = x * torch.sigmoid(x * self.v.view(1, -1, 1, 1))
            x = (gated.unflatten(1, (self.groups, -1)) / std).flatten(1, 2)
        return x * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


def _count_groups(num_channels: int, num_groups: int, group_size: int | None) -> int:
    if group_size:
        num_groups = num_channels // group_size
    if num_groups == 0 or num_channels % num_groups or (group_size and num_groups * group_size != num_channels):
        divisor = f"groups of {group_size}" if group_size else f"{num_groups} groups"
        raise ValueError(f"{num_channels} channels cannot be divided into {divisor}")
    return num_groups


def _make_act(apply_act: bool, act_layer: ActLayer, act_kwargs: dict | None, inplace: bool) -> nn.Module:
    act = get_act_layer(act_layer) if apply_act else None
    return act(**{"inplace": inplace, **(act_kwargs or {})}) if act is not None else nn.Identity()


NORMS: dict[str, Callable[..., nn.Module]] = {
    "batchnorm": nn.BatchNorm2d,
    "batchnorm2d": nn.BatchNorm2d,
    "evonorms0": EvoNorm2dS0,
    "groupnorm": GroupNorm,
    "layernorm": LayerNorm,
    "layernorm2d": LayerNorm2d,
    "rmsnorm": RmsNorm,
    "rmsnorm2d": RmsNorm2d,
    "simplenorm": SimpleNorm,
    "simplenorm2d": SimpleNorm2d,
}


def get_norm_layer(norm: NormLayer) -> Callable[..., nn.Module] | None:
    """The norm class for a name ("batchnorm2d", "layernorm", ...); a class, a partial or None is returned as it is.

    Raises:
        ValueError: The name is unknown; the message lists those that are known. Or it can make no layer.
    """
    if norm is None or norm == "":
        return None
    if not isinstance(norm, str):
        return check_layer(norm, "norm")
    name = norm.lower().replace("_", "")
    if name not in NORMS:
        raise ValueError(f"unknown norm layer '{norm}'; known: {', '.join(sorted(NORMS))}")
    return NORMS[name]


_NORM_ACTS: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm2d: BatchNormAct2d,
    GroupNorm: GroupNormAct,
    LayerNorm2d: LayerNormAct2d,
}


def get_norm_act_layer(norm: NormLayer, act: ActLayer = None) -> Callable[..., nn.Module]:
    """A class (or partial) that normalises a feature map and then applies `act`.

    A norm, by name or class or partial, becomes the class that also activates, with the partial's arguments kept; a
    class that activates already is returned with `act` bound. An EvoNorm has an activation of its own; a function is
    taken to make layers that have.

    Raises:
        ValueError: There is no such combination.
    """
    norm = get_norm_layer(norm) or nn.BatchNorm2d
    kwargs: dict = {}
    if isinstance(norm, partial):
        norm, kwargs = get_norm_layer(norm.func), dict(norm.keywords)
    if not isinstance(norm, type):
        return partial(norm, **kwargs)
    norm = _NORM_ACTS.get(norm, norm)
    if issubclass(norm, tuple(_NORM_ACTS.values())):
        if act is not None:
            kwargs.setdefault("act_layer", get_act_layer(act))
    elif not issubclass(norm, EvoNorm2dS0):
        raise ValueError(f"no normalisation-and-activation layer for {norm.__name__}")
    return partial(norm, **kwargs)
