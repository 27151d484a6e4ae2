"""Batch norm in training on several processes: the same statistics everywhere."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..layers.batch_norm import SplitBatchNorm2d, SyncBatchNormAct, convert_splitbn_model, convert_sync_batchnorm
from .distributed import is_parallel, mean_over_ranks

__all__ = ["SplitBatchNorm2d", "SyncBatchNormAct", "convert_splitbn_model", "convert_sync_batchnorm", "distribute_bn"]


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
