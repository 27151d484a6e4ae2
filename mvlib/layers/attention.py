"""Self-attention of the vision transformers."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .norm import NormLayer, RmsNorm, get_norm_layer

__all__ = ["Attention", "DiffAttention", "DifferentialWeights"]


class Attention(nn.Module):
    """Multi-head self-attention; keys `qkv`, `q_norm`, `k_norm`, `norm`, `proj`.

    Shapes: (B, N, dim) -> (B, N, dim).

    Args:
        qkv_bias: Whether queries, keys and values have a bias.
        qk_norm: Normalise queries and keys per head (Dehghani et al., 2023).
        scale_norm: Normalise the attention's output before its projection.
        proj_bias: Whether the projection has a bias.
        attn_drop: Dropout of attention weights.
        proj_drop: Dropout of the output.
        norm_layer: Norm for the two options above.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        qkv_bias: bool = False,
        proj_bias: bool = True,
        qk_norm: bool = False,
        scale_norm: bool = False,
        norm_layer: NormLayer = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"{dim} channels cannot be divided among {num_heads} heads")
        norm = get_norm_layer(norm_layer)
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.q_norm = norm(self.head_dim) if qk_norm else nn.Identity()
        self.k_norm = norm(self.head_dim) if qk_norm else nn.Identity()
        self.attn_drop = nn.Dropout(attn_drop)
        self.norm = norm(dim) if scale_norm else nn.Identity()
        self.proj = nn.Linear(dim, dim, bias=proj_bias)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        batch, count, dim = x.shape
        q, k, v = self.qkv(x).reshape(batch, count, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        x = F.scaled_dot_product_attention(
            self.q_norm(q), self.k_norm(k), v, attn_mask=attn_mask,
            dropout_p=self.attn_drop.p if self.training else 0.0)
        x = x.transpose(1, 2).reshape(batch, count, dim)
        return self.proj_drop(self.proj(self.norm(x)))


class DifferentialWeights(nn.Module):
    """The learned part of differential attention: how much of the second map is subtracted, and a norm.

    To be derived from: keys `lambda_q1`, `lambda_k1`, `lambda_q2`, `lambda_k2`, `sub_norm` stand in the attention.
    Source: Ye et al., "Differential Transformer", 2024.
    """

    def add_differential_weights(self, head_dim: int, depth: int) -> None:
        """Register parameters for heads of `head_dim` in the block at `depth` (from 0)."""
        self.head_dim = head_dim
        for name in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"):
            setattr(self, name, nn.Parameter(torch.empty(head_dim, dtype=torch.float32)))
        self.sub_norm = RmsNorm(2 * head_dim, eps=1e-5)
        self.lambda_init = 0.8 - 0.6 * math.exp(-0.3 * depth)

    def reset_parameters(self) -> None:
        for parameter in (self.lambda_q1, self.lambda_k1, self.lambda_q2, self.lambda_k2):
            nn.init.normal_(parameter, std=0.1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, q_norm: nn.Module, k_norm: nn.Module, drop: float) -> Tensor:
        """One attention map minus a learned share of another. Shapes: three of (B, N, dim) -> (B, N, dim)."""
        batch, count, dim = q.shape
        heads = dim // (2 * self.head_dim)
        q = q_norm(q.reshape(batch, count, 2 * heads, self.head_dim).transpose(1, 2))
        k = k_norm(k.reshape(batch, count, 2 * heads, self.head_dim).transpose(1, 2))
        v = v.reshape(batch, count, heads, 2 * self.head_dim).transpose(1, 2)
        q1, q2 = q.reshape(batch, heads, 2, count, self.head_dim).unbind(2)
        k1, k2 = k.reshape(batch, heads, 2, count, self.head_dim).unbind(2)
        first = F.scaled_dot_product_attention(q1, k1, v, dropout_p=drop)
        second = F.scaled_dot_product_attention(q2, k2, v, dropout_p=drop)
        share = (torch.exp((self.lambda_q1 * self.lambda_k1).sum(-1).float())
                 - torch.exp((self.lambda_q2 * self.lambda_k2).sum(-1).float()) + self.lambda_init)
        x = self.sub_norm(first - share.type_as(q) * second) * (1 - self.lambda_init)
        return x.transpose(1, 2).reshape(batch, count, dim)


class DiffAttention(DifferentialWeights):
    """Self-attention as the difference of two attention maps, each with half of a head's queries and keys.

    Shapes: (B, N, dim) -> (B, N, dim). Arguments as `Attention`, and `depth`, the index of the block.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        qkv_bias: bool = False,
        proj_bias: bool = True,
        qk_norm: bool = False,
        scale_norm: bool = False,
        norm_layer: NormLayer = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        depth: int = 0,
    ) -> None:
        super().__init__()
        norm = get_norm_layer(norm_layer) or RmsNorm
        head_dim = dim // num_heads // 2
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.q_norm = norm(head_dim) if qk_norm else nn.Identity()
        self.k_norm = norm(head_dim) if qk_norm else nn.Identity()
        self.attn_drop = nn.Dropout(attn_drop)
        self.norm = norm(dim) if scale_norm else nn.Identity()
        self.proj = nn.Linear(dim, dim, bias=proj_bias)
        self.proj_drop = nn.Dropout(proj_drop)
        self.add_differential_weights(head_dim, depth)
        self.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=2)
        x = self.attend(q, k, v, self.q_norm, self.k_norm, self.attn_drop.p if self.training else 0.0)
        return self.proj_drop(self.proj(self.norm(x)))
