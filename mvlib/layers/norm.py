"""Normalisation layers, and normalisation followed by an activation in one module."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .activations import ActLayer, create_act_layer
from .fast_norm import (
    fast_group_norm,
    fast_layer_norm,
    fast_rms_norm,
    fast_rms_norm2d,
    fast_simple_norm,
    is_fast_norm,
    rms_norm,
    rms_norm2d,
    simple_norm,
)
from .helpers import check_layer, placeable

__all__ = [
    "NORMS", "NORM_ACTS", "BatchNormAct2d", "FilterResponseNormAct2d", "FilterResponseNormTlu2d", "GroupNorm",
    "GroupNorm1", "GroupNorm1Act", "GroupNormAct", "LayerNorm", "LayerNorm2d", "LayerNorm2dFp32", "LayerNormAct",
    "LayerNormAct2d", "LayerNormAct2dFp32", "LayerNormActFp32", "LayerNormFp32", "NormAct", "NormLayer", "RmsNorm",
    "RmsNorm2d", "RmsNorm2dFp32", "RmsNormAct", "RmsNormAct2d", "RmsNormAct2dFp32", "RmsNormActFp32", "RmsNormFp32",
    "SimpleNorm", "SimpleNorm2d", "SimpleNorm2dFp32", "SimpleNormFp32", "create_norm_act_layer", "create_norm_layer",
    "get_norm_act_layer", "get_norm_layer", "inv_instance_rms",
]

NormLayer = str | Callable[..., nn.Module] | None


class LayerNorm(nn.LayerNorm):
    """Layer norm over the last dimension with the vision transformers' eps of 1e-6. Shapes: (..., C) -> same."""

    @placeable
    def __init__(self, num_channels: int, eps: float = 1e-6, affine: bool = True) -> None:
        super().__init__(num_channels, eps=eps, elementwise_affine=affine)
        self._fast_norm = is_fast_norm()

    def forward(self, x: Tensor) -> Tensor:
        return self.normalise(x, self.weight, self.bias)

    def normalise(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        norm: Callable[..., Tensor] = fast_layer_norm if self._fast_norm else F.layer_norm
        return norm(x, self.normalized_shape, weight, bias, self.eps)


class LayerNorm2d(LayerNorm):
    """Layer norm over the channels of a feature map. Shapes: (B, C, H, W) -> same."""

    def normalise(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        return super().normalise(x.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)


class RmsNorm(nn.RMSNorm):
    """Root-mean-square norm over the last dimension (Zhang and Sennrich, 2019). Shapes: (..., C) -> same."""

    eps: float

    @placeable
    def __init__(self, channels: int, eps: float = 1e-6, affine: bool = True) -> None:
        super().__init__(channels, eps=eps, elementwise_affine=affine)
        self._fast_norm = is_fast_norm()

    def forward(self, x: Tensor) -> Tensor:
        return self.normalise(x, self.weight)

    def normalise(self, x: Tensor, weight: Tensor | None, bias: None = None) -> Tensor:
        if torch.jit.is_tracing():  # ONNX's older exporter does not know the kernel
            return rms_norm(x, self.normalized_shape, weight, self.eps)
        norm: Callable[..., Tensor] = fast_rms_norm if self._fast_norm else F.rms_norm
        return norm(x, self.normalized_shape, weight, self.eps)


class RmsNorm2d(RmsNorm):
    """Root-mean-square norm over the channels of a feature map. Shapes: (B, C, H, W) -> same."""

    def normalise(self, x: Tensor, weight: Tensor | None, bias: None = None) -> Tensor:
        # Not the fused kernel: it wants channels last, and the copies cost more than it gains.
        norm = fast_rms_norm2d if self._fast_norm else rms_norm2d
        return norm(x, self.normalized_shape, weight, self.eps)


class SimpleNorm(RmsNorm):
    """Division by the standard deviation of the last dimension, the mean kept. Shapes: (..., C) -> same."""

    def normalise(self, x: Tensor, weight: Tensor | None, bias: None = None) -> Tensor:
        norm = fast_simple_norm if self._fast_norm else simple_norm
        return norm(x, self.normalized_shape, weight, self.eps)


class SimpleNorm2d(SimpleNorm):
    """`SimpleNorm` over the channels of a feature map. Shapes: (B, C, H, W) -> same."""

    def normalise(self, x: Tensor, weight: Tensor | None, bias: None = None) -> Tensor:
        return super().normalise(x.permute(0, 2, 3, 1), weight).permute(0, 3, 1, 2)


class _InFloat32(nn.Module):
    """Mixed into a norm: it computes in float32, whatever the types of input and weights, and returns the input's."""

    normalise: Callable[..., Tensor]

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = (None if p is None else p.float() for p in (self.weight, getattr(self, "bias", None)))
        return self.normalise(x.float(), weight, bias).to(x.dtype)


class LayerNormFp32(_InFloat32, LayerNorm):
    """`LayerNorm` in float32."""


class LayerNorm2dFp32(_InFloat32, LayerNorm2d):
    """`LayerNorm2d` in float32."""


class RmsNormFp32(_InFloat32, RmsNorm):
    """`RmsNorm` in float32."""


class RmsNorm2dFp32(_InFloat32, RmsNorm2d):
    """`RmsNorm2d` in float32."""


class SimpleNormFp32(_InFloat32, SimpleNorm):
    """`SimpleNorm` in float32."""


class SimpleNorm2dFp32(_InFloat32, SimpleNorm2d):
    """`SimpleNorm2d` in float32."""


class _GroupNorm(nn.GroupNorm):
    """Group norm that may stay in autocast's type."""

    def __init__(self, num_channels: int, num_groups: int, eps: float, affine: bool) -> None:
        super().__init__(num_groups, num_channels, eps=eps, affine=affine)
        self._fast_norm = is_fast_norm()

    def forward(self, x: Tensor) -> Tensor:
        norm = fast_group_norm if self._fast_norm else F.group_norm
        return norm(x, self.num_groups, self.weight, self.bias, self.eps)


class GroupNorm(_GroupNorm):
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
        super().__init__(num_channels, count_groups(num_channels, num_groups, group_size), eps, affine)


class GroupNorm1(_GroupNorm):
    """Group norm with one group: over channels and positions. Shapes: (B, C, ...) -> same."""

    @placeable
    def __init__(self, num_channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__(num_channels, 1, eps, affine)


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
        self.act = make_act(apply_act, act_layer, act_kwargs, inplace)

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


class LayerNormActFp32(LayerNormAct, LayerNormFp32):
    """`LayerNormAct` whose norm computes in float32."""


class LayerNormAct2dFp32(LayerNormAct2d, LayerNorm2dFp32):
    """`LayerNormAct2d` whose norm computes in float32."""


class RmsNormActFp32(RmsNormAct, RmsNormFp32):
    """`RmsNormAct` whose norm computes in float32."""


class RmsNormAct2dFp32(RmsNormAct2d, RmsNorm2dFp32):
    """`RmsNormAct2d` whose norm computes in float32."""


def _inv_rms(x: Tensor, eps: float) -> Tensor:
    return torch.rsqrt(x.float().square().mean((2, 3), keepdim=True) + eps).to(x.dtype)


def inv_instance_rms(x: Tensor, eps: float = 1e-5) -> Tensor:
    """One over each channel's root mean square over the positions, for each position: (B, C, H, W) -> same."""
    return _inv_rms(x, eps).expand(x.shape)


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
        self.act = make_act(apply_act, act_layer, None, bool(inplace))

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        scale = _inv_rms(x, self.eps)
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


def count_groups(num_channels: int, num_groups: int, group_size: int | None) -> int:
    if group_size:
        num_groups = num_channels // group_size
    if num_groups == 0 or num_channels % num_groups or (group_size and num_groups * group_size != num_channels):
        divisor = f"groups of {group_size}" if group_size else f"{num_groups} groups"
        raise ValueError(f"{num_channels} channels cannot be divided into {divisor}")
    return num_groups


def make_act(apply_act: bool, act_layer: ActLayer, act_kwargs: dict | None, inplace: bool) -> nn.Module:
    act = create_act_layer(act_layer, **{"inplace": inplace, **(act_kwargs or {})}) if apply_act else None
    return nn.Identity() if act is None else act


# Open tables: whoever has another norm adds it, by name, or with the class that normalises and activates.
NORMS: dict[str, Callable[..., nn.Module]] = {
    "batchnorm": nn.BatchNorm2d,
    "batchnorm1d": nn.BatchNorm1d,
    "batchnorm2d": nn.BatchNorm2d,
    "frn": FilterResponseNormAct2d,
    "frntlu": FilterResponseNormTlu2d,
    "groupnorm": GroupNorm,
    "groupnorm1": GroupNorm1,
    "layernorm": LayerNorm,
    "layernorm2d": LayerNorm2d,
    "layernorm2dfp32": LayerNorm2dFp32,
    "layernormfp32": LayerNormFp32,
    "rmsnorm": RmsNorm,
    "rmsnorm2d": RmsNorm2d,
    "rmsnorm2dfp32": RmsNorm2dFp32,
    "rmsnormfp32": RmsNormFp32,
    "simplenorm": SimpleNorm,
    "simplenorm2d": SimpleNorm2d,
    "simplenorm2dfp32": SimpleNorm2dFp32,
    "simplenormfp32": SimpleNormFp32,
}
NORM_ACTS: dict[Callable[..., nn.Module], Callable[..., nn.Module]] = {
    nn.BatchNorm2d: BatchNormAct2d,
    GroupNorm: GroupNormAct,
    GroupNorm1: GroupNorm1Act,
    LayerNorm: LayerNormAct,
    LayerNorm2d: LayerNormAct2d,
    LayerNorm2dFp32: LayerNormAct2dFp32,
    LayerNormFp32: LayerNormActFp32,
    RmsNorm: RmsNormAct,
    RmsNorm2d: RmsNormAct2d,
    RmsNorm2dFp32: RmsNormAct2dFp32,
    RmsNormFp32: RmsNormActFp32,
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
    if name == "frozenbatchnorm2d":
        from torchvision.ops import FrozenBatchNorm2d

        return FrozenBatchNorm2d
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
        if not takes or ("act_layer" in takes and not getattr(norm, "has_own_act", False)):
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
