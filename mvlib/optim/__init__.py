"""Optimizers by name, the parameter groups they work on, and gradient clipping.

Names are resolved on first use: listing optimizers imports no torch.
"""

from __future__ import annotations

from ..lazy import attach

_NAMES = {
    "registry": (
        "OptimInfo", "get_optimizer_class", "get_optimizer_info", "list_optimizers", "register_alias",
        "register_optimizer",
    ),
    "factory": ("create_optimizer", "create_optimizer_v2", "optimizer_kwargs"),
    "param_groups": (
        "auto_group_layers", "group_parameters", "param_groups_layer_decay", "param_groups_weight_decay",
    ),
    "resume": ("resume_optimizer",),
    "clip": ("adaptive_clip_grad", "clip_grad", "model_parameters"),
    "batch": ("Batch", "BatchOptimizer"),
    "lookahead": ("Lookahead",),
    "momentum": ("Lars", "Lion", "MADGRAD", "RMSpropTF", "SGDP", "SGDW"),
    "adaptive": (
        "AdaBelief", "AdamP", "AdamWLegacy", "Adan", "Adopt", "LaProp", "Lamb", "Mars", "NAdamLegacy", "NAdamW",
        "NvNovoGrad", "RAdamLegacy",
    ),
    "adafactor": ("Adafactor", "AdafactorBigVision"),
    "second_order": ("Adahessian", "Kron"),
    "muon": ("Muon", "orthogonalize"),
}

__getattr__, __dir__, __all__ = attach(__name__, _NAMES, submodules=("each",))
