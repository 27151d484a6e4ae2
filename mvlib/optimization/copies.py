"""Copies of models that may be changed, whoever shares their tensors."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

__all__ = ["convert_tensors", "settle_weights", "shared_copy", "why_quantized"]


def why_quantized(model: nn.Module) -> str | None:
    """Why a model counts as quantized, if it does."""
    for module in model.modules():
        if ".quantized" in type(module).__module__ and "torch" in type(module).__module__:
            return f"quantized ({type(module).__name__})"
    if any(type(p) not in (nn.Parameter, Tensor) or p.is_quantized for p in model.parameters()):
        return "its parameters are no plain tensors"
    return None


def shared_copy(model: nn.Module) -> nn.Module:
    """A copy of the modules that shares the tensors: parameters are others, on the same storage, without gradients."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    for buffer in model.buffers():
        memo[id(buffer)] = buffer.detach()
    for module in model.modules():  # weights that a hook computes from others
        memo.update((id(value), value.detach()) for value in vars(module).values() if isinstance(value, Tensor))
    return copy.deepcopy(model, memo)


def settle_weights(model: nn.Module) -> None:
    """Make plain parameters of weights that are computed anew in each pass (weight norm, pruning, ...), in place."""
    module: Any
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):  # torch undoes it in the class, which is the original's, too
            values = {name: getattr(module, name).detach() for name in module.parametrizations}
            module.__class__ = parametrize.type_before_parametrizations(module)
            del module.parametrizations
            for name, value in values.items():
                module.register_parameter(name, nn.Parameter(value, requires_grad=False))
        for key, hook in list(module._forward_pre_hooks.items()):
            if isinstance(hook, (WeightNorm, SpectralNorm, BasePruningMethod)):
                hook.remove(module)
                del module._forward_pre_hooks[key]


def convert_tensors(model: nn.Module, dtype: torch.dtype, device: torch.device | str | None = None) -> None:
    """Floating parameters and buffers in another type, and all of them on another device, replaced, not changed: others
    may share them."""
    module: Any
    for module in model.modules():
        for values in (module._parameters, module._buffers):
            for name, value in values.items():
                if value is not None:
                    new = value.detach().to(device=device, dtype=dtype if value.is_floating_point() else None)
                    values[name] = nn.Parameter(new, requires_grad=False) if isinstance(value, nn.Parameter) else new
