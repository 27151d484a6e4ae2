"""Pooling of tokens by attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .activations import ActLayer
from .attention import attend, use_fused_attn
from .mlp import Mlp
from .norm import NormLayer, get_norm_layer

__all__ = ["AttentionPoolLatent", "AttentionPoolPrr"]


class AttentionPoolLatent(nn.Module):
    """Pool tokens by cross-attention from one learned query, followed by a feed-forward block ("map" pooling).

    Shapes: (B, N, dim) -> (B, dim). Keys `latent`, `q`, `kv`, `proj`, `norm`, `mlp`.
    Source: Zhai et al., "Scaling Vision Transformers", 2022 (MAP head).
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        mlp_ratio: float = 4.0,
        norm_layer: NormLayer = None,
        act_layer: ActLayer = nn.GELU,
    ) -> None:
        super().__init__()
        norm = get_norm_layer(norm_layer)
        self.num_heads = num_heads
        self.fused_attn = use_fused_attn()
        self.latent = nn.Parameter(torch.empty(1, 1, dim))
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm = norm(dim) if norm is not None else nn.Identity()
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=act_layer)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        std = self.latent.shape[-1] ** -0.5
        nn.init.trunc_normal_(self.latent, std=std, a=-2 * std, b=2 * std)

    def forward(self, x: Tensor) -> Tensor:
        batch, count, dim = x.shape
        q = self.q(self.latent.expand(batch, -1, -1)).reshape(batch, 1, self.num_heads, -1).transpose(1, 2)
        k, v = self.kv(x).reshape(batch, count, 2, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        x = attend(q, k, v, self.fused_attn).transpose(1, 2).reshape(batch, 1, dim)
        x = self.proj(x)
        return (x + self.mlp(self.norm(x)))[:, 0]


class AttentionPoolPrr(nn.Module):
    """Refine tokens by self-attention without parameters, then take the class token or the mean ("prr" pooling).

    Shapes: (B, N, dim) -> (B, dim). No keys.
    """

    def __init__(self, dim: int, num_heads: int = 8, pool_type: str = "token") -> None:
        super().__init__()
        self.num_heads = num_heads
        self.fused_attn = use_fused_attn()
        self.pool_type = pool_type

    def forward(self, x: Tensor) -> Tensor:
        heads = x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        x = attend(heads, heads, heads, self.fused_attn).transpose(1, 2).flatten(2)
        return x[:, 0] if self.pool_type == "token" else x.mean(dim=1)
