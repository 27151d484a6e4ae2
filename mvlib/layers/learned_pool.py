"""Pooling with parameters, of maps and of sequences: log-sum-exp, and attention of the mean; and the median's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import attend
from .config import use_fused_attn
from .helpers import placeable, to_2tuple, to_4tuple
from .norm import NormLayer, get_norm_layer

__all__ = ["LsePlus1d", "LsePlus2d", "MedianPool2d", "SimPool1d", "SimPool2d"]


class LsePlus1d(nn.Module):
    """The logarithm of the mean of exponentials, between mean (small `r`) and maximum (large `r`); key `r`.

    Shapes: (B, N, C) -> (B, C).

    Args:
        r: Factor on the values before they are exponents.
        r_learnable: Whether training changes it.
    """

    @placeable
    def __init__(self, r: float = 10.0, r_learnable: bool = True) -> None:
        super().__init__()
        self.initial = r
        if r_learnable:
            self.r = nn.Parameter(torch.tensor(r))
        else:
            self.register_buffer("r", torch.tensor(r))

    def reset_parameters(self) -> None:
        nn.init.constant_(self.r, self.initial)

    def forward(self, x: Tensor) -> Tensor:
        peak = x.amax(1, keepdim=True)  # taken out, so that nothing overflows
        return (peak + (self.r * (x - peak)).exp().mean(1, keepdim=True).log() / self.r).squeeze(1)


class LsePlus2d(LsePlus1d):
    """`LsePlus1d` of a map: (B, C, H, W) -> (B, C), or (B, C, 1, 1) unless `flatten`."""

    @placeable
    def __init__(self, r: float = 10.0, r_learnable: bool = True, flatten: bool = True) -> None:
        super().__init__(r, r_learnable)
        self.flatten = flatten

    def forward(self, x: Tensor) -> Tensor:
        pooled = super().forward(x.flatten(2).transpose(1, 2))
        return pooled if self.flatten else pooled[:, :, None, None]


class SimPool1d(nn.Module):
    """The mean asks all tokens, by attention; their normalised values are what is pooled. Keys `norm`, `q`, `k`.

    Shapes: (B, N, dim) -> (B, dim). Keys `q_norm`, `k_norm` where asked for.
    Source: Psomas et al., "Keep It SimPool: Who Said Supervised Transformers Suffer from Attention Deficit?", 2023.

    Args:
        dim: Channels.
        num_heads: Heads, which divide them.
        qkv_bias: Whether queries and keys have a bias.
        qk_norm: Normalise queries and keys per head.
        gamma: Exponent of a power mean of the values.
        norm_layer: Norm of the tokens, and of queries and keys; `nn.LayerNorm` unless given.

    Raises:
        ValueError: The heads do not divide the channels.
    """

    @placeable
    def __init__(
        self,
        dim: int,
        num_heads: int = 1,
        qkv_bias: bool = False,
        qk_norm: bool = False,
        gamma: float | None = None,
        norm_layer: NormLayer = None,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"{dim} channels cannot be divided among {num_heads} heads")
        norm = get_norm_layer(norm_layer) or nn.LayerNorm
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.scale = self.head_dim**-0.5
        self.gamma = gamma
        self.fused_attn = use_fused_attn()
        self.norm = norm(dim)
        self.q, self.k = (nn.Linear(dim, dim, bias=qkv_bias) for _ in range(2))
        self.q_norm, self.k_norm = (norm(self.head_dim) if qk_norm else nn.Identity() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        values = self.norm(x)
        q, k, v = (t.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
                   for t in (self.q(x.mean(1, keepdim=True)), self.k(values), values))
        if self.gamma is not None:
            v = (v - v.amin(2, keepdim=True) + 1e-6) ** self.gamma
        pooled = attend(self.q_norm(q), self.k_norm(k), v, self.fused_attn, scale=self.scale)
        pooled = pooled if self.gamma is None else pooled ** (1 / self.gamma)
        return pooled.transpose(1, 2).flatten(1)


class SimPool2d(SimPool1d):
    """`SimPool1d` of a map: (B, dim, H, W) -> (B, dim)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(2).transpose(1, 2))


class MedianPool2d(nn.Module):
    """The median of each window; borders are mirrored. Shapes: (B, C, H, W) -> (B, C, H', W').

    Args:
        kernel_size, stride: Of the window: a number, or one for rows and one for columns.
        padding: Pixels left, right, above and below.
        same: Pad such that H' is ceil(H / stride), instead.
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int] = 3,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int, int, int] = 0,
        same: bool = False,
    ) -> None:
        super().__init__()
        self.k, self.stride = to_2tuple(kernel_size), to_2tuple(stride)
        self.padding = to_4tuple(padding)
        self.same = same

    def _amounts(self, x: Tensor) -> tuple[int, ...]:
        if not self.same:
            return self.padding
        amounts: tuple[int, ...] = ()
        for size, kernel, stride in zip(x.shape[2:], self.k, self.stride):
            total = max(kernel - (size % stride or stride), 0)
            amounts = (total // 2, total - total // 2, *amounts)  # F.pad counts from the last dimension
        return amounts

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, self._amounts(x), mode="reflect")
        windows = x.unfold(2, self.k[0], self.stride[0]).unfold(3, self.k[1], self.stride[1])
        return windows.flatten(4).median(dim=4).values
