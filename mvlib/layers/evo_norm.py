"""EvoNorms: normalisation and activation found by search, at once; over the batch (B) or over groups (S).

Source: Liu et al., "Evolving Normalization-Activation Layers", 2020.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .activations import ActLayer, create_act_layer
from .helpers import placeable
from .norm import NORMS, count_groups

__all__ = [
    "EvoNorm2dB0", "EvoNorm2dB1", "EvoNorm2dB2", "EvoNorm2dS0", "EvoNorm2dS0a", "EvoNorm2dS1", "EvoNorm2dS1a",
    "EvoNorm2dS2", "EvoNorm2dS2a", "group_rms", "group_std", "instance_rms", "instance_std", "manual_var",
]


def manual_var(x: Tensor, dim: int | tuple[int, ...], diff_sqm: bool = False) -> Tensor:
    """The (biased) variance over dimensions that are kept; with `diff_sqm` as mean square minus squared mean."""
    mean = x.mean(dim, keepdim=True)
    if diff_sqm:
        return (x.square().mean(dim, keepdim=True) - mean.square()).clamp(min=0)
    return (x - mean).square().mean(dim, keepdim=True)


def instance_std(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Deviation of each channel over the positions of an image, for each position: (B, C, H, W) -> same."""
    return _root(x.float().var((2, 3), unbiased=False, keepdim=True), eps, x).expand(x.shape)


def instance_rms(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Root mean square of each channel over the positions of an image, for each position: (B, C, H, W) -> same."""
    return _root(x.float().square().mean((2, 3), keepdim=True), eps, x).expand(x.shape)


def group_std(x: Tensor, groups: int = 32, eps: float = 1e-5, flatten: bool = False) -> Tensor:
    """Deviation of each group of channels of an image, for each position: (B, C, H, W) -> same.

    `flatten` is without effect; timm's callers give it.
    """
    grouped = x.unflatten(1, (groups, -1))
    return _root(grouped.float().var((2, 3, 4), unbiased=False, keepdim=True), eps, x).expand_as(grouped).flatten(1, 2)


def group_rms(x: Tensor, groups: int = 32, eps: float = 1e-5) -> Tensor:
    """Root mean square of each group of channels of an image, for each position: (B, C, H, W) -> same."""
    grouped = x.unflatten(1, (groups, -1))
    return _root(grouped.float().square().mean((2, 3, 4), keepdim=True), eps, x).expand_as(grouped).flatten(1, 2)


def _root(variance: Tensor, eps: float, like: Tensor) -> Tensor:
    return (variance + eps).sqrt().to(like.dtype)


class _EvoNorm(nn.Module):
    """What all share: scale and shift at the end; keys `weight`, `bias`. Shapes: (B, C, H, W) -> same.

    Without `apply_act` scale and shift alone remain, and the division where it is always done.
    """

    always_divides = False
    has_own_act = True  # which `get_norm_act_layer` leaves it

    def __init__(self, num_features: int, apply_act: bool, eps: float) -> None:
        super().__init__()
        self.apply_act = apply_act
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def activate(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        if self.apply_act or self.always_divides:
            x = self.activate(x)
        return x * self.weight.to(x.dtype).view(-1, 1, 1) + self.bias.to(x.dtype).view(-1, 1, 1)


class _EvoNormB(_EvoNorm):
    """Division by the batch's deviation or by something of the image's own, whichever is larger.

    The buffer `running_var` stands for the batch in evaluation. Other arguments of norms that activate are ignored.
    """

    running_var: Tensor

    @placeable
    def __init__(
        self, num_features: int, apply_act: bool = True, momentum: float = 0.1, eps: float = 1e-5, **_: Any
    ) -> None:
        super().__init__(num_features, apply_act, eps)
        self.momentum = momentum
        self.register_buffer("running_var", torch.ones(num_features))

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.ones_(self.running_var)

    def image_scale(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def activate(self, x: Tensor) -> Tensor:
        variance = self.running_var
        if self.training:
            variance = x.float().var((0, 2, 3), unbiased=False)
            count = x.numel() / x.shape[1]
            share = self.momentum * count / (count - 1)
            self.running_var.mul_(1 - self.momentum).add_(variance.detach().to(self.running_var.dtype) * share)
        return x / torch.maximum(_root(variance, self.eps, x).view(-1, 1, 1), self.image_scale(x))


class EvoNorm2dB0(_EvoNormB):
    """EvoNorm-B0: x / max(batch std, v * x + instance std); its own key is `v`."""

    @placeable
    def __init__(
        self, num_features: int, apply_act: bool = True, momentum: float = 0.1, eps: float = 1e-3, **_: Any
    ) -> None:
        super().__init__(num_features, apply_act, momentum, eps)
        self.v: Any = nn.Parameter(torch.ones(num_features)) if apply_act else None

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.v is not None:
            nn.init.ones_(self.v)

    def image_scale(self, x: Tensor) -> Tensor:
        return x * self.v.to(x.dtype).view(-1, 1, 1) + instance_std(x, self.eps)


class EvoNorm2dB1(_EvoNormB):
    """EvoNorm-B1: x / max(batch std, (x + 1) * instance root mean square)."""

    def image_scale(self, x: Tensor) -> Tensor:
        return (x + 1) * instance_rms(x, self.eps)


class EvoNorm2dB2(_EvoNormB):
    """EvoNorm-B2: x / max(batch std, instance root mean square - x)."""

    def image_scale(self, x: Tensor) -> Tensor:
        return instance_rms(x, self.eps) - x


class EvoNorm2dS0(_EvoNorm):
    """EvoNorm-S0: x * sigmoid(v * x) / group std, then scale and shift; its own key is `v`.

    Other arguments of norms that activate are ignored.

    Raises:
        ValueError: The groups do not divide the channels.
    """

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
        super().__init__(num_features, apply_act, eps)
        self.groups = count_groups(num_features, groups, group_size)
        self.v: Any = nn.Parameter(torch.ones(num_features)) if apply_act else None

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.v is not None:
            nn.init.ones_(self.v)

    def activate(self, x: Tensor) -> Tensor:
        gated = x if self.v is None else x * torch.sigmoid(x * self.v.to(x.dtype).view(-1, 1, 1))
        return gated / group_std(x, self.groups, self.eps)


class EvoNorm2dS0a(EvoNorm2dS0):
    """`EvoNorm2dS0` that divides by the group's deviation without `apply_act`, too, and has a larger `eps`."""

    always_divides = True

    @placeable
    def __init__(
        self, num_features: int, groups: int = 32, group_size: int | None = None, apply_act: bool = True,
        eps: float = 1e-3, **_: Any,
    ) -> None:
        super().__init__(num_features, groups, group_size, apply_act, eps)


class EvoNorm2dS1(_EvoNorm):
    """An activation, divided by the deviation of the group before it; then scale and shift.

    Raises:
        ValueError: The groups do not divide the channels, or the activation is unknown.
    """

    @placeable
    def __init__(
        self,
        num_features: int,
        groups: int = 32,
        group_size: int | None = None,
        apply_act: bool = True,
        act_layer: ActLayer = None,
        eps: float = 1e-5,
        **_: Any,
    ) -> None:
        super().__init__(num_features, apply_act, eps)
        self.groups = count_groups(num_features, groups, group_size)
        self.act: Any = create_act_layer(act_layer or nn.SiLU) if apply_act else nn.Identity()

    def group_scale(self, x: Tensor) -> Tensor:
        return group_std(x, self.groups, self.eps)

    def activate(self, x: Tensor) -> Tensor:
        return self.act(x) / self.group_scale(x)


class EvoNorm2dS2(EvoNorm2dS1):
    """`EvoNorm2dS1` with the group's root mean square in the place of its deviation."""

    def group_scale(self, x: Tensor) -> Tensor:
        return group_rms(x, self.groups, self.eps)


class EvoNorm2dS1a(EvoNorm2dS1):
    """`EvoNorm2dS1` that divides without `apply_act`, too, and has a larger `eps`."""

    always_divides = True

    @placeable
    def __init__(
        self, num_features: int, groups: int = 32, group_size: int | None = None, apply_act: bool = True,
        act_layer: ActLayer = None, eps: float = 1e-3, **_: Any,
    ) -> None:
        super().__init__(num_features, groups, group_size, apply_act, act_layer, eps)


class EvoNorm2dS2a(EvoNorm2dS2):
    """`EvoNorm2dS2` that divides without `apply_act`, too, and has a larger `eps`."""

    always_divides = True

    @placeable
    def __init__(
        self, num_features: int, groups: int = 32, group_size: int | None = None, apply_act: bool = True,
        act_layer: ActLayer = None, eps: float = 1e-3, **_: Any,
    ) -> None:
        super().__init__(num_features, groups, group_size, apply_act, act_layer, eps)


NORMS.update(
    evonormb0=EvoNorm2dB0, evonormb1=EvoNorm2dB1, evonormb2=EvoNorm2dB2, evonorms0=EvoNorm2dS0, evonorms0a=EvoNorm2dS0a,
    evonorms1=EvoNorm2dS1, evonorms1a=EvoNorm2dS1a, evonorms2=EvoNorm2dS2, evonorms2a=EvoNorm2dS2a)
