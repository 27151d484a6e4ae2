"""Global response normalisation."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from .activations import ActLayer, get_act_layer
from .helpers import placeable, to_2tuple

__all__ = ["GlobalResponseNorm", "GlobalResponseNormMlp"]


class GlobalResponseNorm(nn.Module):
    """Scale each channel by its norm over the image, relative to the mean of all channels' norms.

    Shapes: (B, H, W, dim) -> same, or (B, dim, H, W) -> same where not `channels_last`; keys `weight`, `bias`.
    Initialised to the identity.
    Source: Woo et al., "ConvNeXt V2: Co-designing and Scaling ConvNets with Masked Autoencoders", 2023.
    """

    @placeable
    def __init__(self, dim: int, eps: float = 1e-6, channels_last: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.spatial_dims, self.channel_dim = ((1, 2), 3) if channels_last else ((2, 3), 1)
        self.shape = (-1,) if channels_last else (-1, 1, 1)
        self.weight = nn.Parameter(torch.empty(dim))
        self.bias = nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        norms = x.norm(p=2, dim=self.spatial_dims, keepdim=True)
        response = norms / (norms.mean(self.channel_dim, keepdim=True) + self.eps)
        # The shortcut is in the scale, so that the map is read once: x + (weight * response * x + bias).
        return torch.addcmul(self.bias.view(self.shape), x, 1 + self.weight.view(self.shape) * response)


class GlobalResponseNormMlp(nn.Module):
    """An `Mlp` with global response normalisation behind the activation; keys `fc1`, `grn`, `fc2`.

    Shapes: (B, H, W, in_features) -> (B, H, W, out_features); channels first where `use_conv`, whose layers are 1x1
    convolutions.
    """

    @placeable
    def __init__(
        self,
        in_features: int,
        hidden_features: int | None = None,
        out_features: int | None = None,
        act_layer: ActLayer = nn.GELU,
        bias: bool | tuple[bool, bool] = True,
        drop: float | tuple[float, float] = 0.0,
        use_conv: bool = False,
    ) -> None:
        super().__init__()
        hidden_features = hidden_features or in_features
        bias1, bias2 = to_2tuple(bias)
        drop1, drop2 = to_2tuple(drop)
        linear = partial(nn.Conv2d, kernel_size=1) if use_conv else nn.Linear
        self.fc1 = linear(in_features, hidden_features, bias=bias1)
        self.act = get_act_layer(act_layer)()
        self.drop1 = nn.Dropout(drop1)
        self.grn = GlobalResponseNorm(hidden_features, channels_last=not use_conv)
        self.fc2 = linear(hidden_features, out_features or in_features, bias=bias2)
        self.drop2 = nn.Dropout(drop2)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop2(self.fc2(self.grn(self.drop1(self.act(self.fc1(x))))))
