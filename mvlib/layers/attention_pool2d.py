"""Pooling of feature maps by attention, as heads of models."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .attention import attend
from .config import use_fused_attn
from .helpers import placeable, to_2tuple
from .pool import Head
from .pos_embed import resample_abs_pos_embed
from .rope import apply_rot_embed_cat, create_rope_embed
from .weight_init import trunc_normal_

__all__ = ["AttentionPool2d", "RotAttentionPool2d"]


class _AttentionPool2d(Head):
    """What both have: a token for the whole map, its mean or a learned one, attends to itself and to all positions.

    Only what asks is computed: the token, or the positions.
    """

    cls_token: nn.Parameter | None

    def set_up(
        self, in_features: int, out_features: int | None, embed_dim: int | None, head_dim: int | None,
        num_heads: int | None, qkv_bias: bool, qkv_separate: bool, pool_type: str, class_token: bool, drop_rate: float,
    ) -> None:
        self.in_features, self.embed_dim = in_features, embed_dim or in_features
        self.set_global_pool(pool_type)
        divisor = num_heads or head_dim or 64
        if self.embed_dim % divisor:
            raise ValueError(f"{self.embed_dim} channels cannot be divided into heads: {num_heads=}, {head_dim=}")
        self.num_heads = num_heads or self.embed_dim // divisor
        self.head_dim = self.embed_dim // self.num_heads
        self.scale = self.head_dim**-0.5
        self.fused_attn = use_fused_attn()
        self.cls_token = nn.Parameter(torch.empty(1, self.embed_dim)) if class_token else None
        self.q: Any = None
        self.k: Any = None
        self.v: Any = None
        self.qkv: Any = None
        if qkv_separate:
            self.q, self.k, self.v = (nn.Linear(in_features, self.embed_dim, bias=qkv_bias) for _ in range(3))
        else:
            self.qkv = nn.Linear(in_features, 3 * self.embed_dim, bias=qkv_bias)
        self.drop = nn.Dropout(drop_rate)
        self.proj = self.make_classifier(in_features if out_features is None else out_features)

    @property
    def num_features(self) -> int:  # type: ignore[override]
        return self.embed_dim

    @property
    def out_features(self) -> int:
        """Channels of the output."""
        return self.proj.out_features if isinstance(self.proj, nn.Linear) else self.embed_dim

    def reset_parameters(self) -> None:
        std = self.in_features**-0.5
        for layer in (self.q, self.k, self.v, self.qkv):
            if layer is not None:
                trunc_normal_(layer.weight, std=std)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        if self.cls_token is not None:
            nn.init.zeros_(self.cls_token)

    def set_global_pool(self, pool_type: str) -> None:
        if pool_type.lower() not in ("token", ""):
            raise ValueError(f"unknown global_pool '{pool_type}'; known to pooling by attention: 'token', ''")
        self.pool_type = pool_type.lower()

    def reset(self, num_classes: int | None = None, *args: Any, **kwargs: Any) -> None:
        super().reset(num_classes, *args, **kwargs)

    def set_classifier(self, classifier: nn.Module) -> None:
        self.proj = classifier

    def cut(self, in_features: int) -> None:
        """Nothing: the attention is made for the final features."""

    def pool(self, x: Tensor) -> Tensor:
        return _arrange(self._attend(x), x, self.pool_type)

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        tokens = self.drop(self._attend(x))
        return _arrange(tokens if pre_logits else self.proj(tokens), x, self.pool_type)

    def _attend(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) -> the token (B, 1, embed_dim), or without pooling the positions (B, H * W, embed_dim)."""
        positions = x.flatten(2).transpose(1, 2)
        token = positions.mean(1, keepdim=True)
        if self.cls_token is not None:
            token = self.cls_token.expand_as(token)
        tokens = self.add_positions(torch.cat((token, positions), dim=1), x)
        wanted = tokens[:, :1] if self.pool_type else tokens[:, 1:]
        if self.qkv is None:
            q, k, v = self.q(wanted), self.k(tokens), self.v(tokens)
        else:
            q, k, v = self.qkv(tokens).chunk(3, dim=-1)
            q = q[:, :1] if self.pool_type else q[:, 1:]
        q, k, v = (t.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for t in (q, k, v))
        q, k = self.turn(q, k, x)
        return attend(q, k, v, self.fused_attn, scale=self.scale).transpose(1, 2).flatten(2)

    def add_positions(self, tokens: Tensor, x: Tensor) -> Tensor:
        """Tokens of a map -> tokens that know their places."""
        return tokens

    def turn(self, q: Tensor, k: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys (B, heads, N, head_dim) -> the same, turned according to their places in the map."""
        return q, k


def _arrange(tokens: Tensor, x: Tensor, pool_type: str) -> Tensor:
    """The token as a vector, or the positions in the shape of the map `x`."""
    return tokens[:, 0] if pool_type else tokens.transpose(1, 2).unflatten(2, x.shape[-2:])


class AttentionPool2d(_AttentionPool2d):
    """Pool a map by attention with learned positions, then project; keys `pos_embed`, `q`, `k`, `v` or `qkv`, `proj`.

    Shapes: (B, in_features, H, W) -> (B, out_features), or without pooling (B, out_features, H, W). A map of another
    size than `feat_size` gets resampled positions.
    Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021.

    Args:
        in_features: Channels of the map.
        feat_size: Rows and columns that there are positions for.
        out_features: Channels of the output; `in_features` unless given, 0 for the attention's (no `proj`).
        embed_dim: Channels of the attention; `in_features` unless given.
        head_dim: Channels of a head.
        num_heads: Heads; decides instead of `head_dim`.
        qkv_bias: Whether queries, keys and values have a bias.
        qkv_separate: Whether each of them has a layer of its own.
        pool_type: "token", or "" for a map of all positions.
        class_token: A learned token (key `cls_token`) instead of the map's mean.
        drop_rate: Dropout before the projection.

    Raises:
        ValueError: The pooling is unknown, or the heads do not divide the channels.
    """

    @placeable
    def __init__(
        self,
        in_features: int,
        feat_size: int | tuple[int, int] = 7,
        out_features: int | None = None,
        embed_dim: int | None = None,
        head_dim: int | None = 64,
        num_heads: int | None = None,
        qkv_bias: bool = True,
        qkv_separate: bool = False,
        pool_type: str = "token",
        class_token: bool = False,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.set_up(in_features, out_features, embed_dim, head_dim, num_heads, qkv_bias, qkv_separate, pool_type,
                    class_token, drop_rate)
        self.feat_size: tuple[int, int] = to_2tuple(feat_size)
        self.pos_embed = nn.Parameter(torch.empty(self.feat_size[0] * self.feat_size[1] + 1, in_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        trunc_normal_(self.pos_embed, std=self.in_features**-0.5)

    def add_positions(self, tokens: Tensor, x: Tensor) -> Tensor:
        return tokens + _positions(self.pos_embed, self.feat_size, x)


@torch.fx.wrap  # one node in a traced graph: whether it resamples depends on the map's size
def _positions(pos_embed: Tensor, feat_size: tuple[int, int], x: Tensor) -> Tensor:
    return resample_abs_pos_embed(pos_embed.unsqueeze(0), list(x.shape[-2:]), list(feat_size), num_prefix_tokens=1)


class RotAttentionPool2d(_AttentionPool2d):
    """`AttentionPool2d` with rotary positions, which need no parameters; maps may have any size.

    Shapes and arguments as there, and:

    Args:
        ref_feat_size: Rows and columns that positions are scaled to.
        rope_type: Kind of rotary embedding, see `create_rope_embed`: "cat" or "base".
    """

    @placeable
    def __init__(
        self,
        in_features: int,
        out_features: int | None = None,
        ref_feat_size: int | tuple[int, int] = 7,
        embed_dim: int | None = None,
        head_dim: int | None = 64,
        num_heads: int | None = None,
        qkv_bias: bool = True,
        qkv_separate: bool = False,
        pool_type: str = "token",
        class_token: bool = False,
        drop_rate: float = 0.0,
        rope_type: str = "cat",
    ) -> None:
        super().__init__()
        self.set_up(in_features, out_features, embed_dim, head_dim, num_heads, qkv_bias, qkv_separate, pool_type,
                    class_token, drop_rate)
        self.pos_embed: Any = create_rope_embed(
            rope_type, self.embed_dim, self.num_heads, in_pixels=False, ref_feat_shape=to_2tuple(ref_feat_size))
        self.reset_parameters()

    def turn(self, q: Tensor, k: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        embed = self.pos_embed.get_embed(x.shape[-2:])
        embed = embed if isinstance(embed, Tensor) else torch.cat(embed, dim=-1)
        k = torch.cat((k[:, :, :1], apply_rot_embed_cat(k[:, :, 1:], embed)), dim=2)
        return (q if self.pool_type else apply_rot_embed_cat(q, embed)), k
