"""Initial weights of vision transformers."""

from __future__ import annotations

import math
import re
from typing import Any, Literal

import torch
from torch import Tensor, nn

__all__ = [
    "VIT_INITS", "fan_out_normal_", "init_fan_out", "init_kaiming", "init_normal", "init_trunc_normal",
    "init_trunc_weight", "init_vit_module", "init_weight_jax", "init_weight_vit", "init_zero_bias", "is_meta_device",
    "lecun_normal_", "scale_output", "trunc_normal_", "trunc_normal_tf_", "variance_scaling_",
]

VIT_INITS = ("", "jax", "jax_nlhb", "moco", "reset", "skip")

_TRUNCATED_STD = 0.87962566103423978  # of a standard normal that is cut off at two deviations


trunc_normal_ = nn.init.trunc_normal_  # cut off at a and b


def trunc_normal_tf_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0) -> Tensor:
    """Truncated normal, in place; cut off, as in TensorFlow and JAX, at `a` and `b` deviations from the mean."""
    return nn.init.trunc_normal_(tensor, mean, std, mean + a * std, mean + b * std)


def variance_scaling_(
    tensor: Tensor, scale: float = 1.0, mode: str = "fan_in", distribution: str = "normal"
) -> Tensor:
    """Values, in place, whose variance is `scale` / fan; the fan is "fan_in", "fan_out" or "fan_avg" of a weight.

    Raises:
        ValueError: The distribution is not "truncated_normal", "normal" or "uniform", or the mode is unknown.
    """
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(tensor)
    fans = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}
    if mode not in fans:
        raise ValueError(f"mode {mode!r} is not one of {', '.join(fans)}")
    std = math.sqrt(scale / fans[mode])
    if distribution == "truncated_normal":
        return trunc_normal_tf_(tensor, std=std / _TRUNCATED_STD)
    if distribution == "normal":
        return nn.init.normal_(tensor, std=std)
    if distribution == "uniform":
        return nn.init.uniform_(tensor, -math.sqrt(3) * std, math.sqrt(3) * std)
    raise ValueError(f"distribution {distribution!r} is not one of truncated_normal, normal, uniform")


def lecun_normal_(tensor: Tensor) -> Tensor:
    """Truncated normal with the variance 1 / fan_in, in place; JAX's default."""
    return variance_scaling_(tensor, distribution="truncated_normal")


def fan_out_normal_(kernel: Tensor, groups: int = 1) -> Tensor:
    """A kernel (out, in / groups, height, width) for values that keep their variance backwards, in place: the deviation
    is (2 / fan)^0.5, the fan what each input of a group goes to."""
    fan_out = kernel[:, 0].numel() // groups
    return nn.init.normal_(kernel, std=math.sqrt(2 / fan_out))


def is_meta_device(device: Any = None) -> bool:
    """Whether tensors that are made on `device`, or where None by default, have no values."""
    return (torch.get_default_device() if device is None else torch.device(device)).type == "meta"


def init_weight_vit(
    module: nn.Module, name: str, init_bias: float = 0.02, head_bias: float = 0.0, classifier_name: str = "head"
) -> None:
    """Initialise a linear layer or a convolution of a model, as NaFlex vision transformers do, or call `init_weights`.

    Args:
        module: The module.
        name: Its path in the model.
        init_bias: Value of linear layers' biases.
        head_bias: Value of the classifier's biases, whose weights are zeros.
        classifier_name: What the classifier's path begins with.
    """
    if not isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        _ask(module)
    elif name.startswith(classifier_name):
        _zero(module, head_bias)
    else:
        nn.init.trunc_normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.constant_(module.bias, init_bias)


def init_weight_jax(
    module: nn.Module, name: str, head_bias: float = 0.0, classifier_name: str = "head"
) -> None:
    """`init_vit_module` with the scheme "jax" and a bias for the classifier; or call `init_weights`."""
    if isinstance(module, nn.Conv2d):
        lecun_normal_(module.weight)
    elif not isinstance(module, nn.Linear):
        return _ask(module)
    elif name.startswith(classifier_name):
        return _zero(module, head_bias)
    else:
        nn.init.xavier_uniform_(module.weight)
    if module.bias is None:
        return None
    if isinstance(module, nn.Linear) and "mlp" in name:
        nn.init.normal_(module.bias, std=1e-6)
    else:
        nn.init.zeros_(module.bias)
    return None


def _zero(module: nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d, bias: float) -> None:
    nn.init.zeros_(module.weight)
    if module.bias is not None:
        nn.init.constant_(module.bias, bias)


def _ask(module: Any) -> None:
    if hasattr(module, "init_weights"):
        module.init_weights()


def init_zero_bias(module: nn.Linear | nn.Conv2d) -> None:
    """A bias of zeros, if there is one; the weight is left as it is."""
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def init_trunc_normal(module: nn.Linear | nn.Conv2d, std: float = 0.02) -> None:
    """A weight from a truncated normal, a bias of zeros."""
    init_trunc_weight(module, std)
    init_zero_bias(module)


def init_trunc_weight(module: nn.Linear | nn.Conv2d, std: float = 0.02) -> None:
    """A weight from a truncated normal; a bias is left as it is."""
    nn.init.trunc_normal_(module.weight, std=std)


def init_normal(module: nn.Linear | nn.Conv2d, std: float = 0.01) -> None:
    """A weight from a normal, a bias of zeros."""
    nn.init.normal_(module.weight, std=std)
    init_zero_bias(module)


def init_fan_out(module: nn.Conv2d) -> None:
    """A weight by `fan_out_normal_`, a bias of zeros."""
    fan_out_normal_(module.weight, module.groups)
    init_zero_bias(module)


def init_kaiming(module: nn.Conv2d, mode: Literal["fan_in", "fan_out"] = "fan_out") -> None:
    """A weight from He's normal that keeps the variance of gradients ("fan_in": of values); a bias is left as it is."""
    nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")


def scale_output(name: str, module: nn.Module) -> None:
    """Scale the output projections of a model's `blocks` down with depth (BEiT); other modules stay."""
    block = re.fullmatch(r"blocks\.(\d+)\.(?:attn\.proj|mlp\.fc2|attn_out_proj|mlp_out_proj)", name)
    if block and isinstance(module, nn.Linear):
        module.weight.div_(math.sqrt(2.0 * (int(block[1]) + 1)))


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
    if scheme in ("reset", "skip") or not isinstance(module, (nn.Linear, nn.Conv2d)):
        return
    is_linear, bias = isinstance(module, nn.Linear), 0.0
    if isinstance(module, nn.Conv2d):
        if not scheme.startswith("jax"):
            return
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
