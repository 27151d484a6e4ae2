"""Batch norm in training: one a view, one over all processes, and the same statistics everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .distributed import is_parallel, mean_over_ranks

__all__ = ["SplitBatchNorm2d", "SyncBatchNormAct", "convert_splitbn_model", "convert_sync_batchnorm", "distribute_bn"]

Model = TypeVar("Model", bound=nn.Module)


class _BatchNormThenAct(nn.Module):
    """What follows in a norm that activates too; nothing in one that does not."""

    drop: nn.Module
    act: nn.Module

    def follow(self, source: nn.Module) -> None:
        self.drop = getattr(source, "drop", None) or nn.Identity()
        self.act = getattr(source, "act", None) or nn.Identity()

    def finish(self, x: Tensor) -> Tensor:
        return self.act(self.drop(x))


class SplitBatchNorm2d(nn.BatchNorm2d, _BatchNormThenAct):
    """A batch norm for each augmentation split of a batch (Xie et al., "Adversarial examples improve image
    recognition", 2020, generalised): the first, whose statistics evaluation uses, for the clean images.

    In training the batch (S * B, C, H, W) holds the splits one after the other. The further norms' keys are
    `aux_bn.0.weight` and so on, as timm's; an activation that followed the norm still does.

    Args:
        source: The batch norm to split; its weights and statistics become those of all.
        num_splits: S, at least 2.
    """

    def __init__(self, source: nn.BatchNorm2d, num_splits: int = 2) -> None:
        if num_splits < 2:
            raise ValueError(f"a batch cannot be split in {num_splits}")
        super().__init__(source.num_features, source.eps, source.momentum, source.affine, source.track_running_stats,
                         device=next(iter(source.state_dict().values())).device)
        own = source.state_dict()
        self.load_state_dict({key: own[key] for key in self.state_dict()})
        self.aux_bn = nn.ModuleList(
            nn.BatchNorm2d(source.num_features, source.eps, source.momentum, source.affine, source.track_running_stats,
                           device=self.running_mean.device) for _ in range(num_splits - 1))
        for norm in self.aux_bn:
            norm.load_state_dict({key: own[key] for key in norm.state_dict()})
        self.follow(source)
        self.train(source.training)

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

    def __init__(self, source: nn.BatchNorm2d) -> None:
        super().__init__(source.num_features, source.eps, source.momentum, source.affine, source.track_running_stats)
        if source.affine:
            self.weight, self.bias = source.weight, source.bias
        self.running_mean, self.running_var = source.running_mean, source.running_var
        self.num_batches_tracked = source.num_batches_tracked
        self.follow(source)
        self.train(source.training)

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(super().forward(x))


def _replace(model: Model, kind: Any, make: Callable[[Any], nn.Module]) -> Model:
    if isinstance(model, kind):
        return make(model)
    for name, child in model.named_children():
        setattr(model, name, _replace(child, kind, make))
    return model


def convert_splitbn_model(model: Model, num_splits: int = 2) -> Model:
    """Give each augmentation split a batch norm of its own, in place. Returns the model."""
    return _replace(model, nn.BatchNorm2d, lambda norm: SplitBatchNorm2d(norm, num_splits))


def convert_sync_batchnorm(model: Model) -> Model:
    """Batch norms over all processes (of GPUs: torch has none for CPUs), in place. Returns the model.

    torch's own converter loses the activation of `BatchNormAct2d`; this one keeps it.
    """
    return _replace(model, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), SyncBatchNormAct)


@torch.no_grad()
def distribute_bn(model: nn.Module, reduce: bool = True) -> None:
    """Give all processes the same running statistics: their mean, or those of the first."""
    if not is_parallel():
        return
    buffers = [buffer for module in model.modules() if isinstance(module, _BatchNorm)
               for buffer in (module.running_mean, module.running_var) if buffer is not None]
    if reduce:
        mean_over_ranks(buffers)
    else:
        for buffer in buffers:
            dist.broadcast(buffer, src=0)
