"""Optimizers by name, the parameter groups they work on, and gradient clipping.

Names are resolved on first use: listing optimizers imports no torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_NAMES = {
    "registry": (
        "OptimInfo", "get_optimizer_class", "get_optimizer_info", "list_optimizers", "register_optimizer",
    ),
    "factory": ("create_optimizer", "create_optimizer_v2", "optimizer_kwargs"),
    "param_groups": (
        "auto_group_layers", "group_parameters", "param_groups_layer_decay", "param_groups_weight_decay",
    ),
    "clip": ("adaptive_clip_grad", "clip_grad", "model_parameters"),
    "lookahead": ("Lookahead",),
    "momentum": ("Lars", "Lion", "MADGRAD", "RMSpropTF", "SGDP", "SGDW"),
    "adaptive": (
        "AdamP", "AdamWLegacy", "Adan", "Adopt", "LaProp", "Lamb", "Mars", "NAdamLegacy", "NAdamW", "NvNovoGrad",
        "RAdamLegacy",
    ),
    "adafactor": ("Adafactor", "AdafactorBigVision"),
    "second_order": ("Adahessian", "Kron"),
    "muon": ("Muon",),
    "third_party": ("AdaBelief",),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_NAMES})
