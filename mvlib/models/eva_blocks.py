"""The block of EVA-02 (https://arxiv.org/abs/2303.11331) and what came of it: DINOv3, Perception Encoder, ROPE-ViT.

Rotary positions, gated feed-forward blocks, norms within them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..layers.activations import ActLayer
from ..layers.attention import AttentionRope, KeylessBias
from ..layers.drop import DropPath
from ..layers.helpers import move_to_end, placeable, to_2tuple
from ..layers.mlp import GluMlp, Mlp, SwiGLU
from ..layers.norm import LayerNorm, NormLayer
from ..layers.rope import create_rope_embed

__all__ = ["EvaAttention", "EvaBlock", "EvaBlockPostNorm", "make_rope"]


class EvaAttention(AttentionRope, KeylessBias):
    """`AttentionRope` whose keys have no bias; keys `q_bias`, `v_bias` beside a `qkv` without.

    Shapes: (B, N, dim) -> same. `qkv_bias_separate`: Add the bias behind the linear layer rather than in it.
    """

    @placeable
    def __init__(
        self, dim: int, num_heads: int = 8, qkv_bias: bool = True, qkv_fused: bool = True,
        qkv_bias_separate: bool = False, num_prefix_tokens: int = 1, attn_drop: float = 0.0, proj_drop: float = 0.0,
        attn_head_dim: int | None = None, norm_layer: NormLayer = None, qk_norm: bool = False, scale_norm: bool = True,
        rotate_half: bool = False, gated: bool = False,
    ) -> None:
        super().__init__(
            dim, num_heads, None, qkv_bias, qkv_fused, num_prefix_tokens, attn_drop, proj_drop, attn_head_dim,
            norm_layer, qk_norm, scale_norm, rotate_half=rotate_half, gated=gated)
        self.add_keyless_bias(self.attn_dim if qkv_bias and qkv_fused else None, qkv_bias_separate)
        if qkv_fused:
            self.qkv = nn.Linear(dim, 3 * self.attn_dim, bias=False)
        else:
            self.k_proj = nn.Linear(dim, self.attn_dim, bias=False)
        self.reset_parameters()
        self.init_non_persistent_buffers()

    def reset_parameters(self) -> None:
        self.reset_keyless_bias()

    def project(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.q_bias is None:
            return super().project(x)
        q, k, v = self.project_qkv(x).chunk(3, dim=-1)
        return q, k, v


class EvaBlock(nn.Module):
    """Attention, then a feed-forward block, each behind a norm and around a residual. Shapes: (B, N, dim) -> same.

    Args:
        swiglu_mlp: A gated feed-forward block, whose hidden channels are rounded up to a multiple of `swiglu_align_to`.
        scale_mlp, scale_attn_inner: Another norm inside feed-forward block and attention.
        attn_type: "eva", or "rope" for `AttentionRope`, which alone knows `num_kv_heads`.
        qkv_fused, num_prefix_tokens, rotate_half, gated_attn, num_kv_heads: As `AttentionRope` takes them.
        attn_only_layer_scale: No layer scale for the feed-forward block.
        others: Arguments of other blocks, without effect.

    Raises:
        ValueError: "eva" attention is to have fewer heads of keys and values, or as `AttentionRope`.
    """

    @placeable
    def __init__(
        self, dim: int, num_heads: int, qkv_bias: bool = True, qkv_fused: bool = True, mlp_ratio: float = 4.0,
        swiglu_mlp: bool = False, swiglu_align_to: int = 0, scale_mlp: bool = False, scale_attn_inner: bool = False,
        num_prefix_tokens: int = 1, attn_type: str = "eva", rotate_half: bool = False, gated_attn: bool = False,
        qk_norm: bool = False, num_kv_heads: int | None = None, proj_drop: float = 0.0, attn_drop: float = 0.0,
        drop_path: float = 0.0, init_values: float | None = None, attn_only_layer_scale: bool = False,
        act_layer: ActLayer = nn.GELU, norm_layer: NormLayer = LayerNorm, attn_head_dim: int | None = None,
        **others: Any,
    ) -> None:
        super().__init__()
        norm: Any = norm_layer
        if attn_type != "rope" and num_kv_heads not in (None, num_heads):
            raise ValueError(f"{num_kv_heads} heads of keys and values for {num_heads} of queries need "
                             f"attn_type='rope', not {attn_type!r}")
        common: dict[str, Any] = dict(
            num_heads=num_heads, qkv_bias=qkv_bias, qkv_fused=qkv_fused, num_prefix_tokens=num_prefix_tokens,
            attn_drop=attn_drop, proj_drop=proj_drop, attn_head_dim=attn_head_dim, norm_layer=norm, qk_norm=qk_norm,
            scale_norm=scale_attn_inner, rotate_half=rotate_half, gated=gated_attn)
        self.norm1 = norm(dim)
        self.attn = AttentionRope(dim, num_kv_heads=num_kv_heads, **common) if attn_type == "rope" else \
            EvaAttention(dim, **common)
        self.init_values = init_values
        self.gamma_1 = nn.Parameter(torch.empty(dim)) if init_values is not None else None
        self.drop_path1 = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()
        self.norm2 = norm(dim)
        hidden, inner_norm = int(dim * mlp_ratio), norm if scale_mlp else None
        self.mlp: nn.Module
        if not swiglu_mlp:
            self.mlp = Mlp(dim, hidden, act_layer=act_layer, norm_layer=inner_norm, drop=proj_drop)
        elif scale_mlp or swiglu_align_to:
            self.mlp = SwiGLU(dim, hidden, norm_layer=inner_norm, drop=proj_drop, align_to=swiglu_align_to)
        else:  # gate and values in one layer
            self.mlp = GluMlp(dim, 2 * hidden, act_layer=nn.SiLU, gate_last=False, drop=proj_drop)
        is_scaled = init_values is not None and not attn_only_layer_scale
        self.gamma_2 = nn.Parameter(torch.empty(dim)) if is_scaled else None
        self.drop_path2 = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for gamma in (self.gamma_1, self.gamma_2):
            if gamma is not None and self.init_values is not None:
                nn.init.constant_(gamma, self.init_values)

    def forward(
        self, x: Tensor, rope: Tensor | None = None, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """`rope` and the mask as `AttentionRope` takes them."""
        y = self.attn(self.norm1(x), rope, attn_mask, is_causal)
        x = x + self.drop_path1(y if self.gamma_1 is None else self.gamma_1 * y)
        y = self.mlp(self.norm2(x))
        return x + self.drop_path2(y if self.gamma_2 is None else self.gamma_2 * y)


class EvaBlockPostNorm(EvaBlock):
    """A block whose norms follow attention and feed-forward block; it has no layer scale.

    `EvaBlock`'s arguments of layer scale, `qk_norm` and `num_kv_heads` are without effect, and `swiglu_align_to`
    without `scale_mlp`.
    """

    @placeable
    def __init__(self, dim: int, num_heads: int, norm_layer: NormLayer = nn.LayerNorm, **kwargs: Any) -> None:
        kwargs.update(init_values=None, qk_norm=False, num_kv_heads=None)
        if not kwargs.get("scale_mlp"):
            kwargs["swiglu_align_to"] = 0
        super().__init__(dim, num_heads, norm_layer=norm_layer, **kwargs)
        move_to_end(self, "norm1", "drop_path1", "mlp", "norm2", "drop_path2")

    def forward(
        self, x: Tensor, rope: Tensor | None = None, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        x = x + self.drop_path1(self.norm1(self.attn(x, rope, attn_mask, is_causal)))
        return x + self.drop_path2(self.norm2(self.mlp(x)))


def make_rope(
    kind: str, dim: int, num_heads: int, depth: int, ref_feat_shape: int | tuple[int, int] | None, grid_offset: float,
    mrope_section: tuple[int, int, int] | None, **common: Any,
) -> nn.Module:
    """`create_rope_embed` of the kinds that models of these blocks take, each with what concerns it."""
    own: dict[str, dict[str, Any]] = {
        "cat": dict(grid_offset=grid_offset, in_pixels=False,
                    ref_feat_shape=None if ref_feat_shape is None else to_2tuple(ref_feat_shape)),
        "dinov3": dict(grid_offset=grid_offset), "mixed": dict(depth=depth),
        "mrope": {} if mrope_section is None else dict(mrope_section=mrope_section)}
    if kind not in own:
        raise ValueError(f"unknown rope_type {kind!r}; known: {', '.join(own)}")
    return create_rope_embed(kind, dim, num_heads, **common, **own[kind])
