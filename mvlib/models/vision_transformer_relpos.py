"""Vision transformers without position embedding: attention knows the offset of query from key.

ViT (https://arxiv.org/abs/2010.11929) with a bias from a small network on the logarithm of the offset, as in Swin V2
(https://arxiv.org/abs/2111.09883), or from a table, as in Swin and BEiT; in each block, or one for all. There is no
class token by default: patches are pooled by mean. "rpn" in a name: norms follow attention and feed-forward block.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from ..layers.activations import ActLayer, get_act_layer
from ..layers.attention import Attention
from ..layers.drop import drop_path_rates
from ..layers.helpers import move_to_end, placeable
from ..layers.norm import LayerNorm, NormLayer, get_norm_layer
from ..layers.patch_embed import PatchEmbed
from ..layers.rel_pos import RelPosBias, RelPosMlp
from ..registry import register_model
from .tokens import TokenModel, sized_by_name
from .vision_transformer import Block, ResPostBlock

if TYPE_CHECKING:
    from ._variants.vision_transformer_relpos import *

__all__ = ["VisionTransformerRelPos"]

Bias = Callable[..., nn.Module]


class RelPosAttention(Attention):
    """Self-attention with a bias for the offset of query from key. Shapes: (B, N, dim) -> same.

    `rel_pos_cls`: Makes the bias from `num_heads`; none of this block's own where None. Others: As of `Attention`.
    """

    @placeable
    def __init__(
        self, dim: int, num_heads: int = 8, qkv_bias: bool = False, qk_norm: bool = False,
        rel_pos_cls: Bias | None = None, attn_drop: float = 0.0, proj_drop: float = 0.0,
        norm_layer: NormLayer = LayerNorm, **others: Any,
    ) -> None:
        super().__init__(dim, num_heads, qkv_bias=qkv_bias, qk_norm=qk_norm, attn_drop=attn_drop, proj_drop=proj_drop,
                         norm_layer=norm_layer, **others)
        self.rel_pos: Any = rel_pos_cls(num_heads=num_heads) if rel_pos_cls else None
        move_to_end(self, "attn_drop", "norm", "proj", "proj_drop")

    def forward(self, x: Tensor, shared_rel_pos: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """`shared_rel_pos` (1, heads, N, N) stands for a bias of this block's own, where there is none."""
        return super().forward(x, shared_rel_pos if self.rel_pos is None else self.rel_pos.get_bias())


class RelPosBlock(Block):
    """A vision transformer's block whose attention has a bias for offsets. Shapes: (B, N, dim) -> same."""

    @placeable
    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float = 4.0, qkv_bias: bool = False, qk_norm: bool = False,
        rel_pos_cls: Bias | None = None, init_values: float | None = None, proj_drop: float = 0.0,
        attn_drop: float = 0.0, drop_path: float = 0.0, act_layer: ActLayer = nn.GELU,
        norm_layer: NormLayer = LayerNorm,
    ) -> None:
        super().__init__(
            dim, num_heads, mlp_ratio, qkv_bias, qk_norm, proj_drop=proj_drop, attn_drop=attn_drop,
            init_values=init_values, drop_path=drop_path, act_layer=act_layer, norm_layer=get_norm_layer(norm_layer),
            attn_layer=partial(RelPosAttention, rel_pos_cls=rel_pos_cls))

    def forward(self, x: Tensor, shared_rel_pos: Tensor | None = None) -> Tensor:  # type: ignore[override]
        x = x + self.drop_path1(self.ls1(self.attn(self.norm1(x), shared_rel_pos)))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


class ResPostRelPosBlock(ResPostBlock, RelPosBlock):
    """A block whose norms follow attention and feed-forward block; `init_values` is their initial weight."""

    def forward(self, x: Tensor, shared_rel_pos: Tensor | None = None) -> Tensor:  # type: ignore[override]
        x = x + self.drop_path1(self.norm1(self.attn(x, shared_rel_pos)))
        return x + self.drop_path2(self.norm2(self.mlp(x)))


class VisionTransformerRelPos(TokenModel):
    """Vision transformer with biases for offsets.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); features are (B, class token + patches, embed_dim).

    Args:
        qkv_bias, qk_norm: As `RelPosAttention` takes them.
        fc_norm: The final norm stands behind the pooling.
        rel_pos_type: "mlp" and "mlp-swin" for a network on logarithms of offsets (see `RelPosMlp`), else a table.
        rel_pos_dim: Hidden channels of the network.
        shared_rel_pos: One bias for all blocks.
        embed_layer, norm_layer, act_layer, block_fn: What the model is made of.
        others: As `SequenceModel` explains them.

    Raises:
        ValueError: The pooling is unknown, or needs a class token that is not there.
    """

    pools: ClassVar[tuple[str, ...]] = ("", "avg", "token")

    def __init__(
        self, img_size: int | tuple[int, int] = 224, patch_size: int | tuple[int, int] = 16, in_chans: int = 3,
        num_classes: int = 1000, global_pool: str = "avg", embed_dim: int = 768, depth: int = 12, num_heads: int = 12,
        mlp_ratio: float = 4.0, qkv_bias: bool = True, qk_norm: bool = False, init_values: float | None = 1e-6,
        class_token: bool = False, fc_norm: bool = False, rel_pos_type: str = "mlp", rel_pos_dim: int | None = None,
        shared_rel_pos: bool = False, drop_rate: float = 0.0, proj_drop_rate: float = 0.0, attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0, weight_init: str = "reset", fix_init: bool = False,
        embed_layer: Callable[..., nn.Module] = PatchEmbed, norm_layer: NormLayer = None, act_layer: ActLayer = None,
        block_fn: type[nn.Module] = RelPosBlock,
    ) -> None:
        super().__init__()
        norm = get_norm_layer(norm_layer) or partial(LayerNorm, eps=1e-6)
        self.in_chans, self.weight_init_mode, self.fix_init = in_chans, weight_init, fix_init
        patch_embed: Any = embed_layer(
            img_size=img_size, patch_size=patch_size, in_chans=in_chans, embed_dim=embed_dim)
        self.add_tokens(patch_embed, embed_dim, class_token, positions=False)
        own: dict[str, Any] = dict(hidden_dim=rel_pos_dim) if rel_pos_dim else {}
        kind = partial(RelPosMlp, mode="swin" if "swin" in rel_pos_type else "cr", **own) if \
            rel_pos_type.startswith("mlp") else RelPosBias
        bias: Bias = partial(kind, window_size=patch_embed.grid_size, prefix_tokens=int(class_token))
        self.shared_rel_pos: Any = bias(num_heads=num_heads) if shared_rel_pos else None
        if shared_rel_pos:
            self.shared = ("shared_rel_pos",)
        self.blocks = nn.ModuleList(
            block_fn(dim=embed_dim, num_heads=num_heads, mlp_ratio=mlp_ratio, qkv_bias=qkv_bias, qk_norm=qk_norm,
                     rel_pos_cls=None if shared_rel_pos else bias, init_values=init_values, proj_drop=proj_drop_rate,
                     attn_drop=attn_drop_rate, drop_path=rate, norm_layer=norm,
                     act_layer=get_act_layer(act_layer) or nn.GELU)
            for rate in drop_path_rates(drop_path_rate, depth))
        self.add_head(norm, num_classes, global_pool, fc_norm, drop_rate=drop_rate)
        self.init_weights()

    def share(self, x: Tensor) -> tuple[Tensor, ...]:
        return x, self.shared_rel_pos.get_bias()

    def no_weight_decay(self) -> set[str]:
        return {"cls_token"}


_NO_BIAS = dict(qkv_bias=False)
_PLUS = dict(embed_dim=896, num_heads=14)
_FC = dict(fc_norm=True)
_TOKEN = dict(class_token=True, global_pool="token")
_POST = dict(block_fn=ResPostRelPosBlock)

register_model.variants(__name__, VisionTransformerRelPos, sized_by_name({
    "vit_relpos_base_patch32_plus_rpn_256": (_PLUS, _POST),
    "vit_relpos_base_patch16_plus_240": _PLUS,
    "vit_relpos_small_patch16_224 vit_relpos_medium_patch16_224 vit_relpos_base_patch16_224": (_NO_BIAS, _FC),
    "vit_srelpos_small_patch16_224": (_NO_BIAS, dict(rel_pos_dim=384, shared_rel_pos=True)),
    "vit_srelpos_medium_patch16_224": (_NO_BIAS, dict(rel_pos_dim=512, shared_rel_pos=True)),
    "vit_relpos_medium_patch16_cls_224": (_NO_BIAS, _TOKEN, dict(rel_pos_dim=256)),
    "vit_relpos_base_patch16_cls_224": (_NO_BIAS, _TOKEN),
    "vit_relpos_base_patch16_clsgap_224": (_NO_BIAS, _FC, dict(class_token=True)),
    "vit_relpos_small_patch16_rpn_224 vit_relpos_medium_patch16_rpn_224 vit_relpos_base_patch16_rpn_224": (
        _NO_BIAS, _POST),
    "test_vit_relpos": (_FC, dict(img_size=160, embed_dim=96, depth=9, num_heads=3, mlp_ratio=2, qkv_bias=False)),
}))
