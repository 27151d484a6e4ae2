"""BEiT (https://arxiv.org/abs/2106.08254) and BEiT v2 (https://arxiv.org/abs/2208.06366).

A vision transformer that learns to fill in masked patches, as tokens of a discrete VAE or of a teacher. Beside ViT:
attention knows the offset of two patches by a learned bias, in each block or one for all; keys have no bias; patches
are pooled by mean. The masking token of pretraining is not here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ..layers.activations import ActLayer
from ..layers.attention import KeylessBias
from ..layers.drop import DropPath, drop_path_rates
from ..layers.helpers import placeable
from ..layers.mlp import Mlp, SwiGLU
from ..layers.norm import LayerNorm, NormLayer, get_norm_layer
from ..layers.patch_embed import PatchEmbed
from ..layers.rel_pos import RelPosTable
from ..registry import register_model
from .eva_blocks import EvaAttention
from .tokens import TokenModel, sized_by_name

if TYPE_CHECKING:
    from ._variants.beit import *

__all__ = ["Beit"]

Grid = tuple[int, int]


class Attention(RelPosTable, EvaAttention):
    """EVA's attention with a bias for the offset of query from key; N is a class token and the window.

    Shapes: (B, N, dim) -> same. Keys `q_bias`, `v_bias`, `relative_position_bias_table`, `qkv`, `proj`.

    Args:
        qkv_bias_separate: Add the bias behind the linear layer rather than in it.
        window_size: Rows and columns of the patches; no bias of this block's own where None.
    """

    window_size: Any

    @placeable
    def __init__(
        self, dim: int, num_heads: int = 8, qkv_bias: bool = False, qkv_bias_separate: bool = False,
        attn_drop: float = 0.0, proj_drop: float = 0.0, window_size: Grid | None = None,
        attn_head_dim: int | None = None,
    ) -> None:
        super().__init__(
            dim, num_heads, qkv_bias, qkv_bias_separate=qkv_bias_separate, attn_drop=attn_drop, proj_drop=proj_drop,
            attn_head_dim=attn_head_dim, scale_norm=False)
        if window_size:
            self.add_rel_pos_table(window_size, num_heads, prefix_tokens=1)
        else:
            self.window_size = self.relative_position_bias_table = self.relative_position_index = None  # type: ignore
        self.reset_parameters()
        if self.relative_position_index is None or not self.relative_position_index.is_meta:
            self.init_non_persistent_buffers()

    def reset_parameters(self) -> None:
        self.reset_keyless_bias()
        if getattr(self, "relative_position_bias_table", None) is not None:
            nn.init.zeros_(self.relative_position_bias_table)

    def init_non_persistent_buffers(self) -> None:
        KeylessBias.init_non_persistent_buffers(self)
        if getattr(self, "window_size", None) is not None:
            RelPosTable.init_non_persistent_buffers(self)

    def set_window_size(self, window_size: Any) -> None:
        if self.window_size is not None:
            super().set_window_size(window_size)

    def forward(self, x: Tensor, shared_rel_pos_bias: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """`shared_rel_pos_bias` (heads, N, N) is added to this block's own."""
        bias = shared_rel_pos_bias
        if self.relative_position_bias_table is not None:
            bias = self.get_bias() if bias is None else self.get_bias() + bias
        return EvaAttention.forward(self, x, attn_mask=bias)


class Block(nn.Module):
    """Attention, then a feed-forward block, each behind a norm and around a residual. Shapes: (B, N, dim) -> same.

    `scale_mlp`: Another norm inside the feed-forward block; `swiglu_mlp`: a gated one; `window_size`: see `Attention`.
    """

    @placeable
    def __init__(
        self, dim: int, num_heads: int, qkv_bias: bool = False, mlp_ratio: float = 4.0, scale_mlp: bool = False,
        swiglu_mlp: bool = False, proj_drop: float = 0.0, attn_drop: float = 0.0, drop_path: float = 0.0,
        init_values: float | None = None, act_layer: ActLayer = nn.GELU, norm_layer: NormLayer = LayerNorm,
        window_size: Grid | None = None, attn_head_dim: int | None = None,
    ) -> None:
        super().__init__()
        norm = get_norm_layer(norm_layer) or LayerNorm
        inner: dict[str, Any] = dict(norm_layer=norm if scale_mlp else None, drop=proj_drop)
        self.norm1 = norm(dim)
        self.attn = Attention(dim, num_heads, qkv_bias, attn_drop=attn_drop, proj_drop=proj_drop,
                              window_size=window_size, attn_head_dim=attn_head_dim)
        self.drop_path1 = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()
        self.norm2 = norm(dim)
        hidden = int(dim * mlp_ratio)
        self.mlp = SwiGLU(dim, hidden, **inner) if swiglu_mlp else Mlp(dim, hidden, act_layer=act_layer, **inner)
        self.drop_path2 = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()
        self.init_values = init_values
        self.gamma_1 = nn.Parameter(torch.empty(dim)) if init_values else None
        self.gamma_2 = nn.Parameter(torch.empty(dim)) if init_values else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for gamma in (self.gamma_1, self.gamma_2):
            if gamma is not None:
                nn.init.constant_(gamma, self.init_values or 0.0)

    def forward(self, x: Tensor, shared_rel_pos_bias: Tensor | None = None) -> Tensor:
        y = self.attn(self.norm1(x), shared_rel_pos_bias)
        x = x + self.drop_path1(y if self.gamma_1 is None else self.gamma_1 * y)
        y = self.mlp(self.norm2(x))
        return x + self.drop_path2(y if self.gamma_2 is None else self.gamma_2 * y)


class RelativePositionBias(RelPosTable):
    """A bias for the offset of query from key, for all blocks: () -> (num_heads, N, N), a class token in front."""

    @placeable
    def __init__(self, window_size: Grid, num_heads: int) -> None:
        super().__init__()
        self.add_rel_pos_table(window_size, num_heads, prefix_tokens=1)
        if not self.relative_position_index.is_meta:
            self.reset_parameters()
            self.init_non_persistent_buffers()

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.relative_position_bias_table)

    def forward(self) -> Tensor:
        return self.get_bias()[0]


class Beit(TokenModel):
    """BEiT. Shapes: (B, in_chans, H, W) -> (B, num_classes); features are (B, 1 + patches, embed_dim).

    Args:
        qkv_bias: Whether queries and values have a bias.
        swiglu_mlp, scale_mlp: As `Block` takes them.
        use_abs_pos_emb: A learned position embedding.
        use_rel_pos_bias: Each block has a bias for offsets; use_shared_rel_pos_bias: there is one for all blocks.
        use_fc_norm: The final norm stands behind the pooling; by default where patches are pooled.
        others: As `SequenceModel` explains them.

    Raises:
        ValueError: The pooling is unknown.
    """

    pools: ClassVar[tuple[str, ...]] = ("", "avg", "token")
    fc_norm_name: ClassVar[str] = "use_fc_norm"
    token_std: ClassVar[float] = 0.02
    fix_init = True

    def __init__(
        self, img_size: int | Grid = 224, patch_size: int | Grid = 16, in_chans: int = 3, num_classes: int = 1000,
        global_pool: str = "avg", embed_dim: int = 768, depth: int = 12, num_heads: int = 12, qkv_bias: bool = True,
        mlp_ratio: float = 4.0, swiglu_mlp: bool = False, scale_mlp: bool = False, drop_rate: float = 0.0,
        pos_drop_rate: float = 0.0, proj_drop_rate: float = 0.0, attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0, norm_layer: NormLayer = LayerNorm, init_values: float | None = None,
        use_abs_pos_emb: bool = True, use_rel_pos_bias: bool = False, use_shared_rel_pos_bias: bool = False,
        head_init_scale: float = 0.001, use_fc_norm: bool | None = None,
    ) -> None:
        super().__init__()
        norm = get_norm_layer(norm_layer) or LayerNorm
        self.in_chans, self.head_init_scale = in_chans, head_init_scale
        patch_embed = PatchEmbed(img_size=img_size, patch_size=patch_size, in_chans=in_chans, embed_dim=embed_dim)
        grid: Any = patch_embed.grid_size
        self.add_tokens(patch_embed, embed_dim, positions=use_abs_pos_emb, pos_drop_rate=pos_drop_rate)
        self.rel_pos_bias = RelativePositionBias(grid, num_heads) if use_shared_rel_pos_bias else None
        if use_shared_rel_pos_bias:
            self.shared = ("shared_rel_pos_bias",)
        self.blocks = nn.Sequential(*(
            Block(embed_dim, num_heads, qkv_bias, mlp_ratio, scale_mlp, swiglu_mlp, proj_drop_rate, attn_drop_rate,
                  rate, init_values, norm_layer=norm, window_size=grid if use_rel_pos_bias else None)
            for rate in drop_path_rates(drop_path_rate, depth)))
        self.add_head(norm, num_classes, global_pool, use_fc_norm, drop_rate=drop_rate)
        self.init_weights()

    def share(self, x: Tensor) -> tuple[Tensor, ...]:
        assert self.rel_pos_bias is not None  # or nothing is shared
        return x, self.rel_pos_bias()

    def no_weight_decay(self) -> set[str]:
        tables = {name for name, _ in self.named_parameters() if name.endswith("relative_position_bias_table")}
        return {"pos_embed", "cls_token", *tables}


_BIASES = dict(use_abs_pos_emb=False, use_rel_pos_bias=True, init_values=1e-5)

register_model.variants(__name__, Beit, sized_by_name({
    "beit_base_patch16_224 beit_base_patch16_384": (_BIASES, dict(init_values=0.1)),
    "beit_large_patch16_224 beit_large_patch16_384 beit_large_patch16_512": _BIASES,
    "beitv2_base_patch16_224 beitv2_large_patch16_224": _BIASES,
}))
