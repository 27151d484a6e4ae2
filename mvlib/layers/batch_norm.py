"""Batch norms that are something else in training: one a view, one over all processes, or fixed; and conversions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .activations import ActLayer
from .helpers import placeable
from .norm import NORMS, BatchNormAct2d, make_act

__all__ = [
    "FrozenBatchNormAct2d", "InplaceAbn", "SplitBatchNorm2d", "SyncBatchNormAct", "convert_splitbn_model",
    "convert_sync_batchnorm", "freeze_batch_norm_2d", "inplace_abn", "inplace_abn_sync", "unfreeze_batch_norm_2d",
]

Model = TypeVar("Model", bound=nn.Module)


class _BatchNormThenAct(nn.Module):
    """What follows in a norm that activates too; nothing in one that does not."""

    drop: nn.Module
    act: nn.Module

    def follow(self, source: nn.Module) -> None:
        self.drop = getattr(source, "drop", None) or nn.Identity()
        self.act = getattr(source, "act", None) or nn.Identity()

    def finish(self, x: Tensor) -> Tensor:
        return self.act(self.drop(x)) if "act" in self._modules else x


class SplitBatchNorm2d(nn.BatchNorm2d, _BatchNormThenAct):
    """A batch norm for each augmentation split of a batch (Xie et al., "Adversarial examples improve image
    recognition", 2020, generalised): the first, whose statistics evaluation uses, for the clean images.

    In training the batch (S * B, C, H, W) holds the splits one after the other. The further norms' keys are
    `aux_bn.0.weight` and so on. Arguments as `nn.BatchNorm2d`, and:

    Args:
        num_splits: S, at least 2.
    """

    @placeable
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        num_splits: int = 2,
    ) -> None:
        if num_splits < 2:
            raise ValueError(f"a batch cannot be split in {num_splits}")
        super().__init__(num_features, eps, momentum, affine, track_running_stats)
        self.num_splits = num_splits
        self.aux_bn = nn.ModuleList(
            nn.BatchNorm2d(num_features, eps, momentum, affine, track_running_stats) for _ in range(num_splits - 1))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return self.finish(super().forward(x))
        count = len(self.aux_bn) + 1
        if x.shape[0] % count:
            raise ValueError(f"a batch of {x.shape[0]} does not divide into {count} augmentation splits")
        first, *others = x.chunk(count)
        parts = [super().forward(first), *(norm(part) for norm, part in zip(self.aux_bn, others))]
        return self.finish(torch.cat(parts))


class SyncBatchNormAct(nn.SyncBatchNorm, _BatchNormThenAct):
    """Batch norm over all processes, then what followed the norm that it replaces."""

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(super().forward(x))


class FrozenBatchNormAct2d(_BatchNormThenAct):
    """`BatchNormAct2d` whose weights and statistics are buffers that training does not change.

    Shapes: (B, C, H, W) -> same; keys `weight`, `bias`, `running_mean`, `running_var`. A state dict of a batch norm
    fits: its count of batches is not used.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    @placeable
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        apply_act: bool = True,
        act_layer: ActLayer = nn.ReLU,
        act_kwargs: dict[str, Any] | None = None,
        inplace: bool = True,
        drop_layer: Callable[[], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.drop = drop_layer() if drop_layer is not None else nn.Identity()
        self.act = make_act(apply_act, act_layer, act_kwargs, inplace)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        state_dict.pop(f"{prefix}num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return self.finish(x * scale.view(-1, 1, 1) + shift.view(-1, 1, 1))

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.eps}"


def _replace(model: Model, kind: Any, make: Callable[[Any], nn.Module]) -> Model:
    if isinstance(model, kind):
        return make(model)  # type: ignore[return-value]
    for name, child in model.named_children():
        setattr(model, name, _replace(child, kind, make))
    return model


def _arguments(norm: Any) -> dict[str, Any]:
    return {name: getattr(norm, name) for name in ("eps", "momentum", "affine", "track_running_stats")}


def convert_splitbn_model(module: Model, num_splits: int = 2) -> Model:
    """Give each augmentation split a batch norm of its own, in place; an activation behind it stays. Returns the model.

    The norm's weights and statistics become those of all.
    """

    def split(norm: nn.BatchNorm2d) -> nn.Module:
        own = norm.state_dict()
        made = SplitBatchNorm2d(norm.num_features, num_splits=num_splits, **_arguments(norm))
        made.to(next((value.device for value in own.values()), None))
        for part in (made, *made.aux_bn):
            part.load_state_dict({key: own[key] for key in own if "." not in key}, strict=part is not made)
        if "act" in norm._modules:
            made.follow(norm)
        return made.train(norm.training)

    return _replace(module, nn.BatchNorm2d, split)


def convert_sync_batchnorm(module: Model, process_group: Any = None) -> Model:
    """Batch norms over all processes (of GPUs: torch has none for CPUs), in place. Returns the model.

    torch's own converter loses the activation of `BatchNormAct2d`; this one keeps it. The group is all processes unless
    given.
    """

    def synchronise(norm: _BatchNorm) -> nn.Module:
        kind = SyncBatchNormAct if "act" in norm._modules else nn.SyncBatchNorm
        made = kind(norm.num_features, process_group=process_group, **_arguments(norm))
        if norm.affine:
            made.weight, made.bias = norm.weight, norm.bias
        made.running_mean, made.running_var = norm.running_mean, norm.running_var
        made.num_batches_tracked = norm.num_batches_tracked
        if isinstance(made, SyncBatchNormAct):
            made.follow(norm)
        return made.train(norm.training)

    return _replace(module, _BatchNorm, synchronise)


def freeze_batch_norm_2d(module: Model) -> Model:
    """Fix all batch norms of maps: weights and statistics become buffers, in place. Returns the model.

    They become torchvision's `FrozenBatchNorm2d`, those that activate `FrozenBatchNormAct2d`.
    """
    from torchvision.ops import FrozenBatchNorm2d

    def freeze(norm: Any) -> nn.Module:
        acts = "act" in norm._modules
        frozen: Any = (FrozenBatchNormAct2d if acts else FrozenBatchNorm2d)(norm.num_features, eps=norm.eps)
        frozen.num_features, frozen.affine = norm.num_features, norm.affine
        return _take_over(frozen, norm)

    return _replace(module, (nn.BatchNorm2d, nn.SyncBatchNorm), freeze)


def unfreeze_batch_norm_2d(module: Model) -> Model:
    """Undo `freeze_batch_norm_2d`, in place. Returns the model."""
    from torchvision.ops import FrozenBatchNorm2d

    def unfreeze(norm: Any) -> nn.Module:
        acts = isinstance(norm, FrozenBatchNormAct2d)
        made = (BatchNormAct2d if acts else nn.BatchNorm2d)(
            norm.weight.shape[0], eps=norm.eps, affine=getattr(norm, "affine", True))
        return _take_over(made, norm)

    return _replace(module, (FrozenBatchNormAct2d, FrozenBatchNorm2d), unfreeze)


@torch.no_grad()
def _take_over(made: Any, norm: Any) -> Any:
    """Give a norm the values of another, where they are, and what follows it."""
    made.to(norm.running_mean.device, norm.running_mean.dtype)
    for name in ("weight", "bias", "running_mean", "running_var"):
        if getattr(made, name) is not None and getattr(norm, name) is not None:
            getattr(made, name).copy_(getattr(norm, name))
    if "act" in norm._modules:
        made.drop, made.act = norm.drop, norm.act
    return made.train(norm.training)


def inplace_abn(*args: Any, **kwargs: Any) -> Any:
    """The function of the package inplace_abn: batch norm and activation that keep one map for both.

    Raises:
        ImportError: The package is not there.
    """
    return _of_package("inplace_abn")(*args, **kwargs)


def inplace_abn_sync(*args: Any, **kwargs: Any) -> Any:
    """`inplace_abn` over all processes."""
    return _of_package("inplace_abn_sync")(*args, **kwargs)


def _of_package(name: str) -> Callable[..., Any]:
    try:
        from inplace_abn import functions  # type: ignore[import-not-found]
    except ImportError as error:
        raise ImportError("InplaceAbn needs the package inplace_abn, which is built from its sources "
                          "(github.com/mapillary/inplace_abn); or take BatchNormAct2d") from error
    return getattr(functions, name)


class InplaceAbn(nn.Module):
    """Batch norm and activation by the package inplace_abn; keys as `nn.BatchNorm2d` without the count of batches.

    Source: Rota Bulo et al., "In-Place Activated BatchNorm for Memory-Optimized Training of DNNs", 2018.

    Args:
        act_layer: "leaky_relu", "elu" or "identity", or the class of one.
        act_param: Slope of the leaky ReLU, or alpha of the ELU.
        drop_layer: Without effect, as in timm.

    Raises:
        ValueError: The activation is another one.
    """

    weight: Any
    bias: Any
    running_mean: Tensor
    running_var: Tensor

    @placeable
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        apply_act: bool = True,
        act_layer: ActLayer = "leaky_relu",
        act_param: float = 0.01,
        drop_layer: Callable[[], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        names: dict[Any, str] = {nn.ELU: "elu", nn.LeakyReLU: "leaky_relu", nn.Identity: "identity", None: "identity",
                                 "": "identity"}
        act = names.get(act_layer, act_layer) if apply_act else "identity"
        if act not in names.values():
            raise ValueError(f"act_layer {act_layer!r} of InplaceAbn is not leaky_relu, elu or identity")
        self.num_features = num_features
        self.eps, self.momentum, self.affine = eps, momentum, affine
        self.act_name, self.act_param = act, act_param
        for name in ("weight", "bias"):
            self.register_parameter(name, nn.Parameter(torch.empty(num_features)) if affine else None)
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.running_mean)
        nn.init.ones_(self.running_var)
        if self.affine:
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        out = inplace_abn(x, self.weight, self.bias, self.running_mean, self.running_var, self.training, self.momentum,
                          self.eps, self.act_name, self.act_param)
        return out[0] if isinstance(out, tuple) else out


NORMS.update(iabn=InplaceAbn, inplaceabn=InplaceAbn)
