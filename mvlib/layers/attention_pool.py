"""Pooling of tokens by attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .activations import ActLayer
from .attention import attend
from .config import use_fused_attn
from .helpers import placeable
from .mlp import Mlp
from .norm import NormLayer, get_norm_layer
from .weight_init import trunc_normal_tf_

__all__ = ["AttentionPoolLatent", "AttentionPoolPrr"]


class AttentionPoolLatent(nn.Module):
    """Pool tokens by cross-attention from learned queries, followed by a feed-forward block ("map" pooling).

    Shapes: (B, N, in_features) -> (B, out_features). Keys `pos_embed`, `latent`, `q`, `kv`, `q_norm`, `k_norm`, `proj`,
    `norm`, `mlp`, as far as asked for.
    Source: Zhai et al., "Scaling Vision Transformers", 2022 (MAP head).

    Args:
        out_features: Channels of the output; `in_features` unless given, 0 for the attention's (no `proj`, no `mlp`).
        embed_dim: Channels of the attention; `in_features` unless given.
        feat_size: Number of tokens, for `pos_embed`.
        qkv_bias: Whether queries, keys and values have a bias.
        q_proj: Project the learned queries; otherwise they are the queries.
        qk_norm: Normalise queries and keys per head.
        latent_len: Number of learned queries.
        latent_dim: Their channels; `embed_dim` unless given.
        pos_embed: "abs" adds a learned position to each token.
        pool_type: Of several queries' outputs take the first ("token"), the mean ("avg") or all ("").
        norm_layer: Norm of the feed-forward block, and for `qk_norm` (layer norm if None).
        drop: Dropout after the projection.
    """

    @placeable
    def __init__(
        self,
        in_features: int,
        out_features: int | None = None,
        embed_dim: int | None = None,
        num_heads: int = 8,
        feat_size: int | None = None,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        q_proj: bool = True,
        qk_norm: bool = False,
        latent_len: int = 1,
        latent_dim: int | None = None,
        pos_embed: str = "",
        pool_type: str = "token",
        norm_layer: NormLayer = None,
        act_layer: ActLayer = nn.GELU,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        norm = get_norm_layer(norm_layer)
        embed_dim = embed_dim or in_features
        latent_dim = latent_dim or embed_dim
        out_features = in_features if out_features is None else out_features
        if not q_proj and latent_dim != embed_dim:
            raise ValueError(f"without q_proj, latent_dim ({latent_dim}) must be embed_dim ({embed_dim})")
        if embed_dim % num_heads:
            raise ValueError(f"{embed_dim} channels cannot be divided among {num_heads} heads")
        self.num_heads, self.head_dim = num_heads, embed_dim // num_heads
        self.latent_dim, self.latent_len, self.feat_size = latent_dim, latent_len, feat_size
        self.scale = self.head_dim**-0.5
        self.pool = pool_type
        self.fused_attn = use_fused_attn()
        self.pos_embed = nn.Parameter(torch.empty(feat_size, in_features)) if pos_embed == "abs" else None
        self.latent = nn.Parameter(torch.empty(1, latent_len, latent_dim))
        self.q = nn.Linear(latent_dim, embed_dim, bias=qkv_bias) if q_proj else nn.Identity()
        self.kv = nn.Linear(embed_dim, 2 * embed_dim, bias=qkv_bias)
        head_norm = (norm or nn.LayerNorm) if qk_norm else nn.Identity
        self.q_norm, self.k_norm = head_norm(self.head_dim), head_norm(self.head_dim)
        self.proj = nn.Linear(embed_dim, out_features) if out_features else nn.Identity()
        self.proj_drop = nn.Dropout(drop)
        self.norm = norm(out_features) if norm is not None and out_features else nn.Identity()
        self.mlp = Mlp(out_features, int(out_features * mlp_ratio), act_layer=act_layer) if out_features else None
        self.out_features = out_features or embed_dim
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for learned in (self.latent,) if self.pos_embed is None else (self.pos_embed, self.latent):
            trunc_normal_tf_(learned, std=learned.shape[-1] ** -0.5)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        batch, count, _ = x.shape
        if self.pos_embed is not None:
            x = x + self.pos_embed.to(x.dtype)
        q = self.q(self.latent.expand(batch, -1, -1)).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        k, v = self.kv(x).reshape(batch, count, 2, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        x = attend(self.q_norm(q), self.k_norm(k), v, self.fused_attn, None, attn_mask, self.scale)
        x = x.transpose(1, 2).flatten(2)
        x = self.proj_drop(self.proj(x))
        if self.mlp is not None:
            x = x + self.mlp(self.norm(x))
        if self.pool == "token":
            return x[:, 0]
        return x.mean(dim=1) if self.pool == "avg" else x


class AttentionPoolPrr(nn.Module):
    """Refine tokens by self-attention without weights, then take the class token or the mean ("prr" pooling).

    Shapes: (B, N, dim) -> (B, dim). Keys `pre_norm`, `post_norm`, where asked for: norms before and after attention.
    """

    @placeable
    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        pool_type: str = "token",
        pre_norm: bool = False,
        post_norm: bool = False,
        norm_layer: NormLayer = None,
    ) -> None:
        super().__init__()
        norm = get_norm_layer(norm_layer) or nn.LayerNorm
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.scale = self.head_dim**-0.5
        self.fused_attn = use_fused_attn()
        self.pool = pool_type
        self.out_features = dim
        self.pre_norm = norm(dim) if pre_norm else nn.Identity()
        self.post_norm = norm(dim) if post_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        heads = self.pre_norm(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        x = self.post_norm(attend(heads, heads, heads, self.fused_attn, scale=self.scale).transpose(1, 2).flatten(2))
        return x[:, 0] if self.pool == "token" else x.mean(dim=1)
