"""Self-attention of the vision transformers."""

from __future__ import annotations

import math
import os

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .helpers import placeable
from .norm import NormLayer, RmsNorm, get_norm_layer

__all__ = [
    "Attention", "DiffAttention", "DifferentialWeights", "attend", "attention_logits", "causal_mask", "self_mask",
    "set_fused_attn", "use_fused_attn",
]


def _fused_level(text: str) -> int:
    if text not in ("0", "1", "2"):
        raise ValueError(f"the environment variable TIMM_FUSED_ATTN is 0 (off), 1 or 2 (on), not {text!r}")
    return int(text)


_fused = _fused_level(os.environ.get("TIMM_FUSED_ATTN", "1"))  # 2 takes in what is experimental; nothing here is


def use_fused_attn(experimental: bool = False) -> bool:
    """Whether attention that is built now uses torch's fused kernel."""
    return _fused > (1 if experimental else 0)


def set_fused_attn(enable: bool = True, experimental: bool = False) -> None:
    """Choose, for models that are built from now on, between torch's fused kernel and plain matrix products.

    Plain ones show each attention map to hooks on the attention's `attn_drop` (Swin's `softmax`, too). A model that is
    built already is switched module by module: `block.attn.fused_attn = False`. The environment variable
    TIMM_FUSED_ATTN (0, 1 or 2) says what is so at first.
    """
    global _fused
    _fused = (2 if experimental else 1) if enable else 0


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    fused: bool,
    drop: nn.Dropout | None = None,
    mask: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Attention of queries (B, heads, N, d) to keys (B, heads, M, d), with values (B, heads, M, e) -> (B, heads, N, e).

    Args:
        fused: By torch's fused kernel, which never holds the map; otherwise `drop` is called with it.
        drop: Dropout of the map.
        mask: Added to the logits, or (boolean) True for the pairs that see each other.
        scale: Factor on the logits; d ** -0.5 unless given.
    """
    if fused:
        rate = drop.p if drop is not None and drop.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=rate, scale=scale)
    attn = attention_logits(q, k, mask, scale).softmax(dim=-1)
    return (attn if drop is None else drop(attn)) @ v


def attention_logits(q: Tensor, k: Tensor, mask: Tensor | None = None, scale: float | None = None) -> Tensor:
    """What the softmax of attention takes: (B, heads, N, M). Arguments as `attend`."""
    logits = (q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.transpose(-2, -1)
    return logits if mask is None else _add_mask(logits, mask)


@torch.fx.wrap  # one node in a traced graph: a mask may be None there, too
def _add_mask(logits: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return logits
    return logits.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else logits + mask


def causal_mask(count: int, device: torch.device) -> Tensor:
    """Who sees whom where each token sees itself and those before it: (count, count), boolean."""
    return torch.ones(count, count, dtype=torch.bool, device=device).tril()


@torch.fx.wrap  # one node in a traced graph: it depends on the arguments
def self_mask(x: Tensor, mask: Tensor | None, is_causal: bool) -> Tensor | None:
    """The mask of attention among tokens (B, N, C): `mask`, or the causal one.

    Raises:
        ValueError: Both are asked for.
    """
    if is_causal and mask is not None:
        raise ValueError("attn_mask and is_causal exclude each other")
    return causal_mask(x.shape[1], x.device) if is_causal else mask


class Attention(nn.Module):
    """Multi-head self-attention; keys `qkv`, `q_norm`, `k_norm`, `norm`, `gate` (where asked for), `proj`.

    Shapes: (B, N, dim) -> (B, N, dim_out).

    Args:
        attn_head_dim: Channels of a head; `dim` / `num_heads` unless given.
        dim_out: Channels of the output; `dim` unless given.
        qkv_bias: Whether queries, keys and values (and gates) have a bias.
        qk_norm: Normalise queries and keys per head (Dehghani et al., 2023).
        scale_norm: Normalise the attention's output before its projection.
        proj_bias: Whether the projection has a bias.
        gated: Multiply the output by a gate for each channel, computed from the input.
        attn_drop: Dropout of attention weights.
        proj_drop: Dropout of the output.
        norm_layer: Norm for `qk_norm` and `scale_norm`.

    Raises:
        ValueError: The heads do not divide the channels, or there is no norm for an option that needs one.
    """

    @placeable
    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        attn_head_dim: int | None = None,
        dim_out: int | None = None,
        qkv_bias: bool = False,
        qk_norm: bool = False,
        scale_norm: bool = False,
        proj_bias: bool = True,
        gated: bool = False,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        norm_layer: NormLayer = None,
    ) -> None:
        super().__init__()
        if attn_head_dim is None and dim % num_heads:
            raise ValueError(f"{dim} channels cannot be divided among {num_heads} heads")
        norm = get_norm_layer(norm_layer)
        if norm is None and (qk_norm or scale_norm):
            raise ValueError("qk_norm and scale_norm need a norm_layer, such as nn.LayerNorm")
        self.num_heads = num_heads
        self.head_dim = attn_head_dim or dim // num_heads
        self.attn_dim = num_heads * self.head_dim
        self.scale = self.head_dim ** -0.5
        self.fused_attn = use_fused_attn()
        self.qkv = nn.Linear(dim, 3 * self.attn_dim, bias=qkv_bias)
        self.q_norm = norm(self.head_dim) if qk_norm else nn.Identity()
        self.k_norm = norm(self.head_dim) if qk_norm else nn.Identity()
        self.attn_drop = nn.Dropout(attn_drop)
        self.norm = norm(self.attn_dim) if scale_norm else nn.Identity()
        self.gate = nn.Linear(dim, self.attn_dim, bias=qkv_bias) if gated else None
        self.proj = nn.Linear(self.attn_dim, dim_out or dim, bias=proj_bias)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """`is_causal` instead of a mask lets each token see itself and those before it."""
        batch, count, _ = x.shape
        gate = None if self.gate is None else self.gate(x).sigmoid()
        q, k, v = self.qkv(x).reshape(batch, count, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        mask = self_mask(x, attn_mask, is_causal)
        x = attend(self.q_norm(q), self.k_norm(k), v, self.fused_attn, self.attn_drop, mask, self.scale)
        x = self.norm(x.transpose(1, 2).reshape(batch, count, self.attn_dim))
        return self.proj_drop(self.proj(x if gate is None else x * gate))


class DifferentialWeights(nn.Module):
    """The learned part of differential attention: how much of the second map is subtracted, and a norm.

    To be derived from, by what has `q_norm`, `k_norm` and `attn_drop`: keys `lambda_q1`, `lambda_k1`, `lambda_q2`,
    `lambda_k2` (or only `lambda_a`, `lambda_b`), `sub_norm` stand in the attention.
    Source: Ye et al., "Differential Transformer", 2024.
    """

    def add_differential_weights(self, head_dim: int, depth: int, dual_lambda: bool = False) -> None:
        """Register parameters for heads of `head_dim` in the block at `depth` (from 0); `dual_lambda`: two numbers."""
        self.head_dim = head_dim
        self.lambdas = ("lambda_a", "lambda_b") if dual_lambda else ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2")
        for name in self.lambdas:
            setattr(self, name, nn.Parameter(torch.empty(() if dual_lambda else head_dim, dtype=torch.float32)))
        self.fused_attn = use_fused_attn()
        self.sub_norm = RmsNorm(2 * head_dim, eps=1e-5)
        self.lambda_init = 0.8 - 0.6 * math.exp(-0.3 * depth)

    def reset_parameters(self) -> None:
        for name in self.lambdas:
            parameter = getattr(self, name)
            nn.init.normal_(parameter, std=0.1) if parameter.ndim else nn.init.zeros_(parameter)

    def share(self) -> Tensor:
        """How much of the second map is subtracted."""
        if len(self.lambdas) == 2:
            first, second = self.lambda_a, self.lambda_b
        else:
            first, second = (self.lambda_q1 * self.lambda_k1).sum(-1), (self.lambda_q2 * self.lambda_k2).sum(-1)
        return torch.exp(first.float()) - torch.exp(second.float()) + self.lambda_init

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """One attention map minus a learned share of another. Shapes: three of (B, N, dim) -> (B, N, dim)."""
        batch, count, dim = q.shape
        heads = dim // (2 * self.head_dim)
        q = self.q_norm(q.reshape(batch, count, 2 * heads, self.head_dim).transpose(1, 2))
        k = self.k_norm(k.reshape(batch, count, 2 * heads, self.head_dim).transpose(1, 2))
        v = v.reshape(batch, count, heads, 2 * self.head_dim).transpose(1, 2)
        share = self.share().type_as(q)
        if self.fused_attn:
            (q1, q2), (k1, k2) = (t.unflatten(1, (heads, 2)).unbind(2) for t in (q, k))
            first, second = (attend(*pair, v, True, self.attn_drop, mask) for pair in ((q1, k1), (q2, k2)))
            x = first - share * second
        else:
            attn = self.attn_drop(attention_logits(q, k, mask).softmax(dim=-1))  # the maps of both, in turns
            first, second = attn.unflatten(1, (heads, 2)).unbind(2)
            x = (first - share * second) @ v
        return (self.sub_norm(x) * (1 - self.lambda_init)).transpose(1, 2).reshape(batch, count, dim)


class DiffAttention(DifferentialWeights):
    """Self-attention as the difference of two attention maps, each with half of a head's queries and keys.

    Shapes: (B, N, dim) -> (B, N, dim). Arguments as `Attention`, and those of `add_differential_weights`.
    """

    @placeable
    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        qkv_bias: bool = False,
        qk_norm: bool = False,
        scale_norm: bool = False,
        proj_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        norm_layer: NormLayer = None,
        depth: int = 0,
        dual_lambda: bool = False,
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
        self.add_differential_weights(head_dim, depth, dual_lambda)
        self.reset_parameters()

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=2)
        mask = self_mask(x, attn_mask, is_causal)
        return self.proj_drop(self.proj(self.norm(self.attend(q, k, v, mask))))
