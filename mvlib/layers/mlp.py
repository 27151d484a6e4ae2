"""The transformer's feed-forward block, and the scale on a residual branch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .activations import ActLayer, get_act_layer
from .helpers import Module, placeable, to_2tuple
from .norm import NormLayer, get_norm_layer

__all__ = [
    "ConvMlp", "GatedMlp", "GluMlp", "LayerScale", "LayerScale2d", "Linear", "Mlp", "ScaledBlock", "SwiGLU",
    "SwiGLUPacked", "scaled",
]


def _linear(use_conv: bool) -> Callable[..., nn.Module]:
    return partial(nn.Conv2d, kernel_size=1) if use_conv else nn.Linear


class Linear(nn.Linear):
    """A linear layer that, scripted, takes inputs of another type than its weights', as autocast gives them."""

    def forward(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            bias = self.bias.to(dtype=input.dtype) if self.bias is not None else None
            return F.linear(input, self.weight.to(dtype=input.dtype), bias=bias)
        return F.linear(input, self.weight, self.bias)


class Mlp(nn.Module):
    """Two linear layers around an activation; keys `fc1`, `norm` (if given), `fc2`.

    Shapes: (..., in_features) -> (..., out_features); (B, in_features, H, W) -> (B, out_features, H, W) for `use_conv`.

    Args:
        bias: One bool, or one for each linear layer.
        drop: One dropout probability, or one after each linear layer.
        norm_layer: Optional norm between the activation and the second linear layer.
        use_conv: 1x1 convolutions as linear layers.
    """

    @placeable
    def __init__(
        self,
        in_features: int,
        hidden_features: int | None = None,
        out_features: int | None = None,
        act_layer: ActLayer = nn.GELU,
        norm_layer: NormLayer = None,
        bias: bool | tuple[bool, bool] = True,
        drop: float | tuple[float, float] = 0.0,
        use_conv: bool = False,
    ) -> None:
        super().__init__()
        linear = _linear(use_conv)
        hidden_features = hidden_features or in_features
        bias1, bias2 = to_2tuple(bias)
        drop1, drop2 = to_2tuple(drop)
        norm = get_norm_layer(norm_layer)
        self.fc1 = linear(in_features, hidden_features, bias=bias1)
        self.act = get_act_layer(act_layer)()
        self.drop1 = nn.Dropout(drop1)
        self.norm = norm(hidden_features) if norm is not None else nn.Identity()
        self.fc2 = linear(hidden_features, out_features or in_features, bias=bias2)
        self.drop2 = nn.Dropout(drop2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.drop1(self.act(self.fc1(x))))
        return self.drop2(self.fc2(x))


class ConvMlp(nn.Module):
    """Two 1x1 convolutions around an activation, an `Mlp` for feature maps; keys `fc1`, `norm` (if given), `fc2`.

    Shapes: (B, in_features, H, W) -> (B, out_features, H, W).

    Args:
        bias: One bool, or one for each convolution.
        drop: Dropout probability after the activation.
        norm_layer: Optional norm between the first convolution and the activation.
    """

    @placeable
    def __init__(
        self,
        in_features: int,
        hidden_features: int | None = None,
        out_features: int | None = None,
        act_layer: ActLayer = nn.ReLU,
        norm_layer: NormLayer = None,
        bias: bool | tuple[bool, bool] = True,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        hidden_features = hidden_features or in_features
        bias1, bias2 = to_2tuple(bias)
        norm = get_norm_layer(norm_layer)
        self.fc1 = nn.Conv2d(in_features, hidden_features, 1, bias=bias1)
        self.norm = norm(hidden_features) if norm is not None else nn.Identity()
        self.act = get_act_layer(act_layer)()
        self.drop = nn.Dropout(drop)
        self.fc2 = nn.Conv2d(hidden_features, out_features or in_features, 1, bias=bias2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.drop(self.act(self.norm(self.fc1(x)))))


class GluMlp(nn.Module):
    """Feed-forward block whose first layer gives values and gates side by side; keys `fc1`, `norm`, `fc2`.

    Shapes as `Mlp`; `hidden_features` counts both halves.
    Source: Shazeer, "GLU Variants Improve Transformer", 2020; with SiLU gates in front, DINOv2's packed SwiGLU.

    Args:
        gate_last: Whether the second half gates the first; otherwise the first gates the second.
    """

    @placeable
    def __init__(
        self,
        in_features: int,
        hidden_features: int | None = None,
        out_features: int | None = None,
        act_layer: ActLayer = nn.Sigmoid,
        norm_layer: NormLayer = None,
        bias: bool | tuple[bool, bool] = True,
        drop: float | tuple[float, float] = 0.0,
        use_conv: bool = False,
        gate_last: bool = True,
    ) -> None:
        super().__init__()
        linear = _linear(use_conv)
        hidden_features = hidden_features or in_features
        bias1, bias2 = to_2tuple(bias)
        drop1, drop2 = to_2tuple(drop)
        norm = get_norm_layer(norm_layer)
        self.gate_last = gate_last
        self.chunk_dim = 1 if use_conv else -1
        self.fc1 = linear(in_features, hidden_features, bias=bias1)
        self.act = get_act_layer(act_layer)()
        self.drop1 = nn.Dropout(drop1)
        self.norm = norm(hidden_features // 2) if norm is not None else nn.Identity()
        self.fc2 = linear(hidden_features // 2, out_features or in_features, bias=bias2)
        self.drop2 = nn.Dropout(drop2)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.fc1(x).chunk(2, dim=self.chunk_dim)
        x = first * self.act(second) if self.gate_last else self.act(first) * second
        return self.drop2(self.fc2(self.norm(self.drop1(x))))


SwiGLUPacked = partial(GluMlp, act_layer=nn.SiLU, gate_last=False)


class SwiGLU(nn.Module):
    """Feed-forward block with separate layers for gates and values; keys `fc1_g`, `fc1_x`, `norm`, `fc2`.

    Shapes: (..., in_features) -> (..., out_features). The hidden channels are rounded up to a multiple of `align_to`.
    """

    @placeable
    def __init__(
        self,
        in_features: int,
        hidden_features: int | None = None,
        out_features: int | None = None,
        act_layer: ActLayer = nn.SiLU,
        norm_layer: NormLayer = None,
        bias: bool | tuple[bool, bool] = True,
        drop: float | tuple[float, float] = 0.0,
        align_to: int = 0,
    ) -> None:
        super().__init__()
        hidden_features = hidden_features or in_features
        hidden_features += -hidden_features % align_to if align_to else 0
        bias1, bias2 = to_2tuple(bias)
        drop1, drop2 = to_2tuple(drop)
        norm = get_norm_layer(norm_layer)
        self.fc1_g = nn.Linear(in_features, hidden_features, bias=bias1)
        self.fc1_x = nn.Linear(in_features, hidden_features, bias=bias1)
        self.act = get_act_layer(act_layer)()
        self.drop1 = nn.Dropout(drop1)
        self.norm = norm(hidden_features) if norm is not None else nn.Identity()
        self.fc2 = nn.Linear(hidden_features, out_features or in_features, bias=bias2)
        self.drop2 = nn.Dropout(drop2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop1(self.act(self.fc1_g(x)) * self.fc1_x(x))
        return self.drop2(self.fc2(self.norm(x)))


class GatedMlp(nn.Module):
    """`Mlp` with a gate behind the activation; keys `fc1`, `gate` and `norm` (if given), `fc2`.

    Shapes as `Mlp`. Source: Liu et al., "Pay Attention to MLPs", 2021, arXiv:2105.08050.

    Args:
        gate_layer: Makes what takes the hidden channels, whose number it is given, and returns half of them.
    """

    @placeable
    def __init__(
        self,
        in_features: int,
        hidden_features: int | None = None,
        out_features: int | None = None,
        act_layer: ActLayer = nn.GELU,
        norm_layer: NormLayer = None,
        gate_layer: Callable[[int], nn.Module] | None = None,
        bias: bool | tuple[bool, bool] = True,
        drop: float | tuple[float, float] = 0.0,
    ) -> None:
        super().__init__()
        hidden_features = hidden_features or in_features
        bias1, bias2 = to_2tuple(bias)
        drop1, drop2 = to_2tuple(drop)
        norm = get_norm_layer(norm_layer)
        self.fc1 = nn.Linear(in_features, hidden_features, bias=bias1)
        self.act = get_act_layer(act_layer)()
        self.drop1 = nn.Dropout(drop1)
        self.gate = nn.Identity() if gate_layer is None else gate_layer(hidden_features)
        hidden_features //= 1 if gate_layer is None else 2
        self.norm = norm(hidden_features) if norm is not None else nn.Identity()
        self.fc2 = nn.Linear(hidden_features, out_features or in_features, bias=bias2)
        self.drop2 = nn.Dropout(drop2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.gate(self.drop1(self.act(self.fc1(x))))
        return self.drop2(self.fc2(self.norm(x)))


class LayerScale(Module):
    """A learned factor per channel on a residual branch; key `gamma`. Shapes: (..., C) -> same.

    Source: Touvron et al., "Going deeper with Image Transformers", 2021.
    """

    @placeable
    def __init__(self, dim: int, init_values: float = 1e-5, inplace: bool = False) -> None:
        super().__init__()
        self.init_values = init_values
        self.inplace = inplace
        self.gamma = nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.gamma, self.init_values)

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(self.gamma) if self.inplace else x * self.gamma


class LayerScale2d(LayerScale):
    """`LayerScale` over the channels of a feature map; key `gamma`. Shapes: (B, C, H, W) -> same."""

    def forward(self, x: Tensor) -> Tensor:
        gamma = self.gamma.view(1, -1, 1, 1)
        return x.mul_(gamma) if self.inplace else x * gamma


class ScaledBlock(Module):
    """A block that owns the scales of its residual branches, where `LayerScale` would give them longer keys.

    Its scales are all the parameters that it owns itself.
    """

    def add_scales(self, init_value: float | None, dim: int, *names: str) -> None:
        """Add scales of these names, (dim,) each; None where there is no initial value."""
        self.ls_init_value: Any = init_value
        for name in names:
            setattr(self, name, None if init_value is None else nn.Parameter(torch.empty(dim)))
        ScaledBlock.reset_parameters(self)

    def reset_parameters(self) -> None:
        for scale in self._parameters.values():
            if scale is not None:
                nn.init.constant_(scale, self.ls_init_value)


def scaled(x: Tensor, scale: Any) -> Tensor:
    """A branch (B, C, H, W), times its scale (C,) where there is one."""
    return x if scale is None else x * scale.view(-1, 1, 1)


@torch.no_grad()
def open_gate(model: nn.Module, path: str, layer: Any) -> None:
    """Initialise `layer`, which a model has at `path`, where it is the gate of a gated MLP: gates begin open."""
    above, _, leaf = path.rpartition(".")
    if leaf == "fc1" and isinstance(model.get_submodule(above), GluMlp):
        init_open(layer, layer.weight.shape[0] // 2)
    elif leaf == "fc1_g" and isinstance(model.get_submodule(above), SwiGLU):
        init_open(layer)


@torch.no_grad()
def init_open(layer: Any, first: int = 0) -> None:
    """Weights near 0 and biases of 1, from output `first` on."""
    nn.init.normal_(layer.weight[first:], std=1e-6)
    if layer.bias is not None:
        nn.init.ones_(layer.bias[first:])
