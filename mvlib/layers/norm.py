"""Normalisation layers, and normalisation followed by an activation in one module."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .activations import ActLayer, get_act_layer
from .helpers import check_layer, placeable

__all__ = [
    "NORMS", "NORM_ACTS", "BatchNormAct2d", "EvoNorm2dS0", "EvoNorm2dS0a", "FilterResponseNormAct2d",
    "FilterResponseNormTlu2d", "GroupNorm", "GroupNorm1", "GroupNorm1Act", "GroupNormAct", "LayerNorm", "LayerNorm2d",
    "LayerNormAct", "LayerNormAct2d", "NormAct", "NormLayer", "RmsNorm", "RmsNorm2d", "RmsNormAct", "RmsNormAct2d",
    "SimpleNorm", "SimpleNorm2d", "create_norm_act_layer", "create_norm_layer", "get_norm_act_layer",
    "get_norm_layer",
]

NormLayer = str | Callable[..., nn.Module] | None


class LayerNorm(nn.LayerNorm):
    """Layer norm over the last dimension with the vision transformers' eps of 1e-6. Shapes: (..., C) -> same."""

    @placeable
    def __init__(self, num_channels: int, eps: float = 1e-6, affine: bool = True) -> None:
        super().__init__(num_channels, eps=eps, elementwise_affine=affine)


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of a feature map. Shapes: (B, C, H, W) -> same."""

    @placeable
    def __init__(self, num_channels: int, eps: float = 1e-6, affine: bool = True) -> None:
        super().__init__(num_channels, eps=eps, elementwise_affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class RmsNorm(nn.RMSNorm):
    """Root-mean-square norm over the last dimension (Zhang and Sennrich, 2019). Shapes: (..., C) -> same."""

    @placeable
    def __init__(self, channels: int, eps: float = 1e-6, affine: bool = True) -> None:
        super().__init__(channels, eps=eps, elementwise_affine=affine)

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

    @placeable
    def __init__(
        self,
        num_channels: int,
        num_groups: int = 32,
        eps: float = 1e-5,
        affine: bool = True,
        group_size: int | None = None,
    ) -> None:
        super().__init__(_count_groups(num_channels, num_groups, group_size), num_channels, eps=eps, affine=affine)


class GroupNorm1(nn.GroupNorm):
    """Group norm with one group: over channels and positions. Shapes: (B, C, ...) -> same."""

    @placeable
    def __init__(self, num_channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__(1, num_channels, eps=eps, affine=affine)


class NormAct(nn.Module):
    """A norm, then (dropout, if given, then) an activation, with the keys of the norm alone; to be mixed into a norm.

    `class MyNormAct(NormAct, MyNorm)` takes `MyNorm`'s arguments and these:

    Args:
        apply_act: Whether to apply the activation at all.
        act_layer: Activation by name or class.
        act_kwargs: Keyword arguments for the activation.
        inplace: Whether the activation changes the norm's output.
        drop_layer: Optional module class applied between the two.
    """

    def __init__(
        self,
        *args: Any,
        apply_act: bool = True,
        act_layer: ActLayer = nn.ReLU,
        act_kwargs: dict | None = None,
        inplace: bool = True,
        drop_layer: Callable[[], nn.Module] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.drop = drop_layer() if drop_layer is not None else nn.Identity()
        self.act = _make_act(apply_act, act_layer, act_kwargs, inplace)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))

    def __reduce__(self) -> tuple:
        """What `get_norm_act_layer` made of a norm has no name to be found by."""
        norm = type(self).__mro__[2]
        return (_empty, (norm if type(self) is _made.get(norm) else type(self),), self.__dict__)


def _empty(kind: type[nn.Module]) -> nn.Module:
    kind = kind if issubclass(kind, NormAct) else _with_act(kind)
    return kind.__new__(kind)


class BatchNormAct2d(NormAct, nn.BatchNorm2d):
    """Batch norm, then an activation; arguments of both. Shapes: (B, C, H, W) -> same."""

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


class GroupNormAct(NormAct, GroupNorm):
    """Group norm, then an activation; arguments of both. Shapes: (B, C, H, W) -> same."""


class GroupNorm1Act(NormAct, GroupNorm1):
    """Group norm with one group, then an activation; arguments of both. Shapes: (B, C, H, W) -> same."""


class LayerNormAct(NormAct, LayerNorm):
    """Layer norm over the last dimension, then an activation; arguments of both. Shapes: (..., C) -> same."""

    def __init__(self, num_channels: int, eps: float = 1e-5, affine: bool = True, **kwargs: Any) -> None:
        super().__init__(num_channels, eps, affine, **kwargs)


class LayerNormAct2d(NormAct, LayerNorm2d):
    """Layer norm over channels, then an activation; arguments of both. Shapes: (B, C, H, W) -> same."""

    def __init__(self, num_channels: int, eps: float = 1e-5, affine: bool = True, **kwargs: Any) -> None:
        super().__init__(num_channels, eps, affine, **kwargs)


class RmsNormAct(NormAct, RmsNorm):
    """Root-mean-square norm, then an activation; arguments of both. Shapes: (..., C) -> same."""

    def __init__(self, num_channels: int, eps: float = 1e-6, affine: bool = True, **kwargs: Any) -> None:
        super().__init__(num_channels, eps, affine, **kwargs)


class RmsNormAct2d(NormAct, RmsNorm2d):
    """Root-mean-square norm over channels, then an activation; arguments of both. Shapes: (B, C, H, W) -> same."""

    def __init__(self, num_channels: int, eps: float = 1e-6, affine: bool = True, **kwargs: Any) -> None:
        super().__init__(num_channels, eps, affine, **kwargs)


class EvoNorm2dS0(nn.Module):
    """EvoNorm-S0: x * sigmoid(v * x) / group std, then scale and shift; norm and activation at once.

    Without `apply_act` only scale and shift remain; other arguments of norms that activate are ignored.
    Shapes: (B, C, H, W) -> same; keys `weight`, `bias`, `v`.
    Source: Liu et al., "Evolving Normalization-Activation Layers", 2020.

    Raises:
        ValueError: The groups do not divide the channels.
    """

    always_divides = False

    @placeable
    def __init__(
        self,
        num_features: int,
        groups: int = 32,
        group_size: int | None = None,
        apply_act: bool = True,
        eps: float = 1e-5,
        **_: Any,
    ) -> None:
        super().__init__()
        self.groups = _count_groups(num_features, groups, group_size)
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(num_features))
        self.bias = nn.Parameter(torch.empty(num_features))
        self.v = nn.Parameter(torch.empty(num_features)) if apply_act else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)
        if self.v is not None:
            nn.init.ones_(self.v)

    def forward(self, x: Tensor) -> Tensor:
        if self.v is not None or self.always_divides:
            grouped = x.float().unflatten(1, (self.groups, -1))
            std = (grouped.var((2, 3, 4), unbiased=False, keepdim=True) + self.eps).sqrt().to(x.dtype)
            gated = x if self.v is None else x * torch.sigmoid(x * self.v.view(1, -1, 1, 1))
            x = (gated.unflatten(1, (self.groups, -1)) / std).flatten(1, 2)
        return x * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


class EvoNorm2dS0a(EvoNorm2dS0):
    """`EvoNorm2dS0` that divides by the group's deviation without `apply_act`, too, and has a larger `eps`."""

    always_divides = True

    @placeable
    def __init__(
        self, num_features: int, groups: int = 32, group_size: int | None = None, apply_act: bool = True,
        eps: float = 1e-3, **_: Any,
    ) -> None:
        super().__init__(num_features, groups, group_size, apply_act, eps)


class FilterResponseNormAct2d(nn.Module):
    """Division of each channel by its root mean square, then scale, shift and activation; `rms` is without effect.

    Shapes: (B, C, H, W) -> same; keys `weight`, `bias`.
    Source: Singh and Krishnan, "Filter Response Normalization Layer: Eliminating Batch Dependence in the Training of
    Deep Neural Networks", 2019.
    """

    @placeable
    def __init__(
        self,
        num_features: int,
        apply_act: bool = True,
        act_layer: ActLayer = nn.ReLU,
        inplace: bool | None = None,
        rms: bool = True,
        eps: float = 1e-5,
        **_: Any,
    ) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.act = _make_act(apply_act, act_layer, None, bool(inplace))

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.rsqrt(x.float().square().mean((2, 3), keepdim=True) + self.eps).to(x.dtype)
        return self.act(torch.addcmul(self.bias.view(-1, 1, 1), x, scale * self.weight.view(-1, 1, 1)))


class FilterResponseNormTlu2d(FilterResponseNormAct2d):
    """`FilterResponseNormAct2d` whose activation is the paper's, the maximum of x and a learned threshold `tau`."""

    @placeable
    def __init__(
        self, num_features: int, apply_act: bool = True, eps: float = 1e-5, rms: bool = True, **_: Any
    ) -> None:
        super().__init__(num_features, apply_act=False, eps=eps)
        self.tau = nn.Parameter(torch.zeros(num_features)) if apply_act else None

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.tau is not None:
            nn.init.zeros_(self.tau)

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return x if self.tau is None else torch.maximum(x, self.tau.view(-1, 1, 1))


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


# Open tables: whoever has another norm adds it, by name, or with the class that normalises and activates.
NORMS: dict[str, Callable[..., nn.Module]] = {
    "batchnorm": nn.BatchNorm2d,
    "batchnorm1d": nn.BatchNorm1d,
    "batchnorm2d": nn.BatchNorm2d,
    "evonorms0": EvoNorm2dS0,
    "evonorms0a": EvoNorm2dS0a,
    "frn": FilterResponseNormAct2d,
    "frntlu": FilterResponseNormTlu2d,
    "groupnorm": GroupNorm,
    "groupnorm1": GroupNorm1,
    "layernorm": LayerNorm,
    "layernorm2d": LayerNorm2d,
    "rmsnorm": RmsNorm,
    "rmsnorm2d": RmsNorm2d,
    "simplenorm": SimpleNorm,
    "simplenorm2d": SimpleNorm2d,
}
NORM_ACTS: dict[Callable[..., nn.Module], Callable[..., nn.Module]] = {
    nn.BatchNorm2d: BatchNormAct2d,
    GroupNorm: GroupNormAct,
    GroupNorm1: GroupNorm1Act,
    LayerNorm: LayerNormAct,
    LayerNorm2d: LayerNormAct2d,
    RmsNorm: RmsNormAct,
    RmsNorm2d: RmsNormAct2d,
}
_made: dict[type[nn.Module], type[nn.Module]] = {}  # what `_with_act` made of norms that nobody registered


def get_norm_layer(norm_layer: NormLayer) -> Callable[..., nn.Module] | Any:  # None for None
    """The norm class for a name ("batchnorm2d", "layernorm", ...); a class, a partial or None is returned as it is.

    Raises:
        ValueError: The name is unknown; the message lists those that are known. Or it can make no layer.
    """
    if norm_layer is None or norm_layer == "":
        return None
    if not isinstance(norm_layer, str):
        return check_layer(norm_layer, "norm")
    name = norm_layer.lower().replace("_", "")
    if name not in NORMS:
        raise ValueError(f"unknown norm layer '{norm_layer}'; known: {', '.join(sorted(NORMS))}")
    return NORMS[name]


def get_norm_act_layer(norm_layer: NormLayer, act_layer: ActLayer = None) -> Callable[..., nn.Module] | Any:
    """A class (or partial) that normalises a feature map and then applies `act_layer` (none: nothing); None for None.

    A norm, by name, class or partial, becomes the class that also activates: that of `NORM_ACTS`, or one made from it
    (`NormAct`), with the norm's keys; a partial's arguments are kept. A class that takes `apply_act` activates already,
    and gets `act_layer` if it takes that, too (an EvoNorm has an activation of its own). A function is taken to make
    layers that activate.

    Raises:
        ValueError: The name is unknown, or it can make no layer.
    """
    if isinstance(norm_layer, str):
        norm_layer = norm_layer.split("-")[0]
    norm, kwargs = get_norm_layer(norm_layer), {}
    if isinstance(norm, partial):
        norm, kwargs = get_norm_layer(norm.func), dict(norm.keywords)
    if norm is None:
        return None
    if isinstance(norm, type):
        norm = NORM_ACTS.get(norm, norm)
        takes = () if issubclass(norm, NormAct) else inspect.signature(norm).parameters
        if takes and "apply_act" not in takes:
            norm, takes = _with_act(norm), ()
        if not takes or "act_layer" in takes:
            kwargs.setdefault("act_layer", act_layer)
    return partial(norm, **kwargs) if kwargs else norm


def _with_act(norm: type[nn.Module]) -> type[nn.Module]:
    if norm not in _made:
        _made[norm] = type(f"{norm.__name__}Act", (NormAct, norm), {"__module__": norm.__module__})
    return _made[norm]


def create_norm_layer(layer_name: NormLayer, num_features: int, **kwargs: Any) -> nn.Module:
    """The norm that `get_norm_layer` finds, for `num_features` channels."""
    return get_norm_layer(layer_name)(num_features, **kwargs)


def create_norm_act_layer(
    layer_name: NormLayer, num_features: int, act_layer: ActLayer = None, apply_act: bool = True, **kwargs: Any
) -> nn.Module:
    """The norm with activation that `get_norm_act_layer` finds, for `num_features` channels."""
    return get_norm_act_layer(layer_name, act_layer)(num_features, apply_act=apply_act, **kwargs)
