"""Initial weights of vision transformers."""

from __future__ import annotations

import math

from torch import Tensor, nn

__all__ = ["VIT_INITS", "init_vit_module", "lecun_normal_"]

VIT_INITS = ("", "jax", "jax_nlhb", "moco", "reset", "skip")

_TRUNCATED_STD = 0.87962566103423978  # of a standard normal that is cut off at two deviations


def lecun_normal_(weight: Tensor) -> None:
    """Truncated normal with the variance 1 / fan_in, in place; JAX's default."""
    fan_in = weight[0].numel()
    std = fan_in**-0.5 / _TRUNCATED_STD
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def init_vit_module(name: str, module: nn.Module, scheme: str = "", num_classes: int = 0) -> None:
    """Refine what torch's own initialisation gave a linear layer or a convolution; others are left as they are.

    Args:
        name: The module's path in the model; one that begins with "head" is a classifier.
        module: The module.
        scheme: "": linear layers from a truncated normal with deviation 0.02. "jax": big_vision's, Xavier for linear
            layers, LeCun for convolutions, a classifier of zeros; "jax_nlhb": the same, the classifier's bias such that
            all classes are equally likely under independent sigmoids. "moco": MoCo v3's, Xavier with query, key and
            value taken one by one. "reset", "skip": torch's own.
        num_classes: For "jax_nlhb".

    Raises:
        ValueError: The scheme is unknown.
    """
    if scheme not in VIT_INITS:
        raise ValueError(f"weight_init {scheme!r} is not one of {', '.join(map(repr, VIT_INITS))}")
    is_linear, is_conv = isinstance(module, nn.Linear), isinstance(module, nn.Conv2d)
    if scheme in ("reset", "skip") or not (is_linear or (is_conv and scheme.startswith("jax"))):
        return
    bias = 0.0
    if is_conv:
        lecun_normal_(module.weight)
    elif not scheme:
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif scheme.startswith("jax") and name.startswith("head"):
        nn.init.zeros_(module.weight)
        bias = -math.log(num_classes) if scheme == "jax_nlhb" else 0.0
    elif scheme == "moco" and "qkv" in name:
        bound = math.sqrt(6 / (module.out_features // 3 + module.in_features))
        nn.init.uniform_(module.weight, -bound, bound)
    else:
        nn.init.xavier_uniform_(module.weight)
    if module.bias is None:
        return
    if is_linear and scheme.startswith("jax") and "mlp" in name:
        nn.init.normal_(module.bias, std=1e-6)
    else:
        nn.init.constant_(module.bias, bias)
