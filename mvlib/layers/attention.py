"""Self-attention of the vision transformers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import use_fused_attn
from .helpers import Module, move_to_end, placeable
from .norm import NormLayer, RmsNorm, get_norm_layer
from .rope import apply_rot_embed_cat

__all__ = [
    "Attention", "AttentionRope", "DiffAttention", "DifferentialWeights", "HeadsAttention", "KeylessBias", "attend",
    "attention_logits", "causal_mask", "maybe_add_mask", "resolve_self_attn_mask", "self_mask",
]


_is_exporting = getattr(torch.compiler, "is_exporting", lambda: False)  # torch 2.7


def attend(
    q: Tensor, k: Tensor, v: Tensor, fused: bool, drop: nn.Dropout | None = None, mask: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Attention of queries (B, heads, N, d) to keys (B, heads, M, d), with values (B, heads, M, e) -> (B, heads, N, e).

    Args:
        fused: By torch's fused kernel, which never holds the map; otherwise `drop` is called with it.
        drop: Dropout of the map.
        mask: Added to the logits, or (boolean) True for the pairs that see each other.
        scale: Factor on the logits; d ** -0.5 unless given.
    """
    if fused and not (_is_exporting() and mask is not None and mask.requires_grad):  # of which ONNX's exporter fails
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


@torch.fx.wrap
def maybe_add_mask(scores: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    """The logits, plus a mask where there is one."""
    return scores if attn_mask is None else scores + attn_mask


@torch.fx.wrap
def resolve_self_attn_mask(
    seq_len: int, attn: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
) -> Tensor | None:
    """What is added to logits `attn` (..., seq_len, seq_len), for masks as torch's fused kernel takes them.

    A boolean mask is True for the pairs that see each other. `is_causal` decides instead of a mask.
    """
    mask = causal_mask(seq_len, attn.device) if is_causal else attn_mask
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=attn.dtype).masked_fill(~mask, -math.inf)


class HeadsAttention(Module):
    """Base class of attentions that differ in their projections (`inputs`, `project`) or in how they mix tokens.

    Keys: those of `inputs`, `proj`. Shapes: (B, N, dim) -> same.

    Class attributes:
        inputs: The linear layers that make queries, keys and values, with their outputs per channel of the heads.

    Args:
        head_dim: Channels of a head; `dim` / `num_heads` unless given.

    Raises:
        ValueError: The heads do not divide the channels.
    """

    inputs: ClassVar[Mapping[str, int]] = {"qkv": 3}

    def __init__(
        self, dim: int, num_heads: int = 8, qkv_bias: bool = False, attn_drop: float = 0.0, proj_drop: float = 0.0,
        head_dim: int | None = None,
    ) -> None:
        super().__init__()
        if head_dim is None and dim % num_heads:
            raise ValueError(f"{dim} channels cannot be divided among {num_heads} heads")
        self.num_heads, self.head_dim, self.fused_attn = num_heads, head_dim or dim // num_heads, use_fused_attn()
        self.scale, width = self.head_dim ** -0.5, num_heads * self.head_dim
        for name, parts in self.inputs.items():
            self.add_module(name, nn.Linear(dim, parts * width, bias=qkv_bias))
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(width, dim)
        self.proj_drop = nn.Dropout(proj_drop)
        self.add_parts()

    def add_parts(self) -> None:
        """Add what a subclass has besides; the end of the constructor."""

    def split_heads(self, x: Tensor, parts: int = 1) -> tuple[Tensor, ...]:
        """(B, N, parts * channels of all heads) -> the parts, each (B, heads, N, channels of a head)."""
        heads = x.unflatten(2, (parts, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return tuple(heads[i] for i in range(parts))

    def project(self, x: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values, each (B, heads, N, channels of a head)."""
        made = [self.split_heads(getattr(self, name)(x), parts) for name, parts in self.inputs.items()]
        return tuple(part for parts in made for part in parts)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, *shared: Any) -> Tensor:
        """What the projections give, and what is shared with the attention, -> (B, heads, N, channels of a head)."""
        return attend(q, k, v, self.fused_attn, self.attn_drop)

    def forward(self, x: Tensor, *shared: Any) -> Tensor:
        x = self.mix(*self.project(x), *shared)
        return self.proj_drop(self.proj(x.transpose(1, 2).flatten(2)))


class KeylessBias(nn.Module):
    """A bias for queries and values, none for keys (BEiT): `q_bias`, `v_bias` beside a linear layer `qkv` without.

    To be derived from, by an attention that makes `qkv`, calls `add_keyless_bias`, and initialises what is its own.
    """

    qkv: Any
    k_bias: Tensor | None

    def add_keyless_bias(self, dim: int | None, separate: bool = False) -> None:
        """Register biases of `dim` channels, or none; `separate` adds them behind the layer rather than in it."""
        self.qkv_bias_separate = separate
        self.q_bias = None if dim is None else nn.Parameter(torch.empty(dim))
        self.register_buffer("k_bias", None if dim is None else torch.empty(dim), persistent=False)
        self.v_bias = None if dim is None else nn.Parameter(torch.empty(dim))

    def reset_keyless_bias(self) -> None:
        for bias in (self.q_bias, self.v_bias):
            if bias is not None:
                nn.init.zeros_(bias)

    def init_non_persistent_buffers(self) -> None:
        if self.k_bias is not None:
            self.k_bias.zero_()

    def project_qkv(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., 3 * channels): queries, keys, values."""
        if self.q_bias is None:
            return self.qkv(x)
        bias = torch.cat((self.q_bias, self.k_bias, self.v_bias))  # type: ignore[arg-type]
        is_plain = torch.jit.is_scripting() or isinstance(self.qkv, nn.Linear)  # type: ignore[attr-defined]
        if is_plain and not self.qkv_bias_separate:
            return F.linear(x, self.qkv.weight, bias)
        return self.qkv(x) + bias  # what stands in for a layer (packed, int8, with an adapter) is called


class Attention(Module):
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
        self, dim: int, num_heads: int = 8, attn_head_dim: int | None = None, dim_out: int | None = None,
        qkv_bias: bool = False, qk_norm: bool = False, scale_norm: bool = False, proj_bias: bool = True,
        gated: bool = False, attn_drop: float = 0.0, proj_drop: float = 0.0, norm_layer: NormLayer = None,
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
        self.qkv: Any = nn.Linear(dim, 3 * self.attn_dim, bias=qkv_bias)
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


class AttentionRope(Attention):
    """`Attention` with rotary positions, and with fewer heads for keys and values where asked for.

    Shapes: (B, N, dim) -> (B, N, dim_out). Keys as `Attention`; `q_proj`, `k_proj`, `v_proj` in the place of `qkv`
    unless `qkv_fused`. Arguments as there, and:

    Args:
        qkv_fused: One linear layer for queries, keys and values.
        num_prefix_tokens: Leading tokens that have no position.
        rotate_half: How the pairs lie that are turned, see `apply_rot_embed`.
        num_kv_heads: Heads of keys and values, each for as many heads of queries; `num_heads` unless given.

    Raises:
        ValueError: The heads do not divide the channels or each other, there is no norm for an option that needs one,
            or one linear layer is to give heads of different numbers.
    """

    @placeable
    def __init__(
        self, dim: int, num_heads: int = 8, dim_out: int | None = None, qkv_bias: bool = True, qkv_fused: bool = True,
        num_prefix_tokens: int = 1, attn_drop: float = 0.0, proj_drop: float = 0.0, attn_head_dim: int | None = None,
        norm_layer: NormLayer = None, qk_norm: bool = False, scale_norm: bool = False, proj_bias: bool = True,
        rotate_half: bool = False, gated: bool = False, num_kv_heads: int | None = None,
    ) -> None:
        super().__init__(dim, num_heads, attn_head_dim, dim_out, qkv_bias, qk_norm, scale_norm, proj_bias, gated,
                         attn_drop, proj_drop, norm_layer)
        self.num_kv_heads = num_kv_heads or num_heads
        if num_heads % self.num_kv_heads or (qkv_fused and self.num_kv_heads != num_heads):
            raise ValueError(f"{self.num_kv_heads} heads of keys and values are not for {num_heads} heads of queries"
                             f"{' in one layer; set qkv_fused=False' if qkv_fused else ''}")
        self.num_kv_groups = num_heads // self.num_kv_heads
        self.kv_dim = self.head_dim * self.num_kv_heads
        self.num_prefix_tokens = num_prefix_tokens
        self.rotate_half = rotate_half
        self.q_proj: Any = None
        self.k_proj: Any = None
        self.v_proj: Any = None
        if not qkv_fused:
            others = list(self._modules)[1:]
            self.qkv = None
            self.q_proj = nn.Linear(dim, self.attn_dim, bias=qkv_bias)
            self.k_proj, self.v_proj = (nn.Linear(dim, self.kv_dim, bias=qkv_bias) for _ in range(2))
            move_to_end(self, *others)

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        rope: Tensor | None = None,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """`rope` is an embedding as `apply_rot_embed_cat` takes it, for the tokens behind the prefix."""
        gate = None if self.gate is None else self.gate(x).sigmoid()
        q, k, v = (t.unflatten(2, (-1, self.head_dim)).transpose(1, 2) for t in self.project(x))  # (B, heads, N, d)
        q, k = self.q_norm(q), self.k_norm(k)
        if rope is not None:
            q, k = (self._turn(t, rope).type_as(v) for t in (q, k))
        if self.num_kv_groups > 1:
            k, v = (t.repeat_interleave(self.num_kv_groups, dim=1) for t in (k, v))
        mask = self_mask(x, attn_mask, is_causal)
        x = attend(q, k, v, self.fused_attn, self.attn_drop, mask, self.scale)
        x = self.norm(x.transpose(1, 2).flatten(2))
        return self.proj_drop(self.proj(x if gate is None else x * gate))

    def project(self, x: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values of all heads, (B, N, heads * head_dim) each."""
        if self.q_proj is None:
            q, k, v = self.qkv(x).chunk(3, dim=-1)  # torch.fx follows names, no iteration
            return q, k, v
        return self.q_proj(x), self.k_proj(x), self.v_proj(x)

    def _turn(self, x: Tensor, rope: Tensor) -> Tensor:
        prefix, patches = x[:, :, :self.num_prefix_tokens], x[:, :, self.num_prefix_tokens:]
        return torch.cat((prefix, apply_rot_embed_cat(patches, rope, self.rotate_half)), dim=2)


class DifferentialWeights(nn.Module):
    """The learned part of differential attention: how much of the second map is subtracted, and a norm.

    To be derived from, by what has `q_norm`, `k_norm` and `attn_drop`: keys `lambda_q1`, `lambda_k1`, `lambda_q2`,
    `lambda_k2` (or only `lambda_a`, `lambda_b`), `sub_norm` stand in the attention.
    Source: Ye et al., "Differential Transformer", 2024.
    """

    lambdas: tuple[str, ...] = ()

    def add_differential_weights(self, head_dim: int, depth: int, dual_lambda: bool = False) -> None:
        """Register parameters for heads of `head_dim` in the block at `depth` (from 0); `dual_lambda`: two numbers."""
        self.head_dim, self.scale = head_dim, head_dim**-0.5
        numbers, vectors = ("lambda_a", "lambda_b"), ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2")
        self.lambdas = numbers if dual_lambda else vectors
        for name in self.lambdas:
            setattr(self, name, nn.Parameter(torch.empty(() if dual_lambda else head_dim, dtype=torch.float32)))
        for name in vectors if dual_lambda else numbers:
            setattr(self, name, None)
        self.dual_lambda = dual_lambda
        self.fused_attn = use_fused_attn()
        self.sub_norm = RmsNorm(2 * head_dim, eps=1e-5)
        self.lambda_init = 0.8 - 0.6 * math.exp(-0.3 * depth)
        DifferentialWeights.reset_parameters(self)

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
            pairs = ((q1, k1), (q2, k2))
            first, second = (attend(*pair, v, True, self.attn_drop, mask, self.scale) for pair in pairs)
            x = first - share * second
        else:
            attn = self.attn_drop(attention_logits(q, k, mask, self.scale).softmax(dim=-1))  # both, in turns
            first, second = attn.unflatten(1, (heads, 2)).unbind(2)
            x = (first - share * second) @ v
        return (self.sub_norm(x) * (1 - self.lambda_init)).transpose(1, 2).reshape(batch, count, dim)


class DiffAttention(DifferentialWeights):
    """Self-attention as the difference of two attention maps, each with half of a head's queries and keys.

    Shapes: (B, N, dim) -> (B, N, dim). Arguments as `Attention`, and those of `add_differential_weights`.
    """

    @placeable
    def __init__(
        self, dim: int, num_heads: int = 8, qkv_bias: bool = False, qk_norm: bool = False, scale_norm: bool = False,
        proj_bias: bool = True, attn_drop: float = 0.0, proj_drop: float = 0.0, norm_layer: NormLayer = None,
        depth: int = 0, dual_lambda: bool = False,
    ) -> None:
        super().__init__()
        norm = get_norm_layer(norm_layer) or RmsNorm
        self.num_heads, head_dim = num_heads, dim // num_heads // 2
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.q_norm = norm(head_dim) if qk_norm else nn.Identity()
        self.k_norm = norm(head_dim) if qk_norm else nn.Identity()
        self.attn_drop = nn.Dropout(attn_drop)
        self.norm = norm(dim) if scale_norm else nn.Identity()
        self.proj = nn.Linear(dim, dim, bias=proj_bias)
        self.proj_drop = nn.Dropout(proj_drop)
        self.add_differential_weights(head_dim, depth, dual_lambda)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=2)
        mask = self_mask(x, attn_mask, is_causal)
        return self.proj_drop(self.proj(self.norm(self.attend(q, k, v, mask))))
