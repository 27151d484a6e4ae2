"""Vision transformers without position embedding: attention knows the offset of query from key.

ViT (https://arxiv.org/abs/2010.11929) with a bias from a small network on the logarithm of the offset, as in Swin V2
(https://arxiv.org/abs/2111.09883), or from a table, as in Swin and BEiT; in each block, or one for all. There is no
class token by default: patches are pooled by mean. "rpn" in a name: norms follow attention and feed-forward block.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from ..layers.activations import ActLayer, get_act_layer
from ..layers.attention import attend
from ..layers.config import use_fused_attn
from ..layers.drop import DropPath, drop_path_rates
from ..layers.helpers import move_to_end, placeable
from ..layers.mlp import LayerScale, Mlp
from ..layers.norm import LayerNorm, NormLayer, get_norm_layer
from ..layers.patch_embed import PatchEmbed
from ..layers.rel_pos import RelPosBias, RelPosMlp, RelPosTable
from ..registry import register_model
from .base import StateDict
from .tokens import TokenModel

if TYPE_CHECKING:
    from ._variants.vision_transformer_relpos import *

__all__ = ["VisionTransformerRelPos"]

Bias = Callable[..., nn.Module]


class RelPosAttention(nn.Module):
    """Self-attention with a bias for the offset of query from key. Shapes: (B, N, dim) -> same.

    Args:
        qk_norm: Normalise queries and keys.
        rel_pos_cls: Makes the bias from `num_heads`; none of this block's own where None.

    Raises:
        ValueError: The heads do not divide the channels.
    """

    @placeable
    def __init__(
        self, dim: int, num_heads: int = 8, qkv_bias: bool = False, qk_norm: bool = False,
        rel_pos_cls: Bias | None = None, attn_drop: float = 0.0, proj_drop: float = 0.0,
        norm_layer: NormLayer = LayerNorm,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"{dim} channels cannot be divided among {num_heads} heads")
        norm: Any = get_norm_layer(norm_layer)
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.scale = self.head_dim ** -0.5
        self.fused_attn = use_fused_attn()
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.q_norm = norm(self.head_dim) if qk_norm else nn.Identity()
        self.k_norm = norm(self.head_dim) if qk_norm else nn.Identity()
        self.rel_pos: Any = rel_pos_cls(num_heads=num_heads) if rel_pos_cls else None
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, shared_rel_pos: Tensor | None = None) -> Tensor:
        """`shared_rel_pos` (1, heads, N, N) stands for a bias of this block's own, where there is none."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        bias = shared_rel_pos
        if self.rel_pos is not None:
            bias = self.rel_pos.get_bias()
        x = attend(self.q_norm(q), self.k_norm(k), v, self.fused_attn, self.attn_drop, bias)
        return self.proj_drop(self.proj(x.transpose(1, 2).flatten(2)))


class RelPosBlock(nn.Module):
    """Attention, then a feed-forward block, each behind a norm and around a residual. Shapes: (B, N, dim) -> same.

    Args:
        mlp_ratio: Hidden channels of the feed-forward block per channel.
        rel_pos_cls: As `RelPosAttention` takes it.
        init_values: Initial layer scale; none where 0 or None.
    """

    @placeable
    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float = 4.0, qkv_bias: bool = False, qk_norm: bool = False,
        rel_pos_cls: Bias | None = None, init_values: float | None = None, proj_drop: float = 0.0,
        attn_drop: float = 0.0, drop_path: float = 0.0, act_layer: ActLayer = nn.GELU,
        norm_layer: NormLayer = LayerNorm,
    ) -> None:
        super().__init__()
        norm: Any = get_norm_layer(norm_layer)
        self.norm1 = norm(dim)
        self.attn = RelPosAttention(dim, num_heads, qkv_bias, qk_norm, rel_pos_cls, attn_drop, proj_drop, norm)
        self.ls1 = LayerScale(dim, init_values) if init_values else nn.Identity()
        self.drop_path1 = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()
        self.norm2 = norm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=act_layer, drop=proj_drop)
        self.ls2 = LayerScale(dim, init_values) if init_values else nn.Identity()
        self.drop_path2 = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()

    def forward(self, x: Tensor, shared_rel_pos: Tensor | None = None) -> Tensor:
        x = x + self.drop_path1(self.ls1(self.attn(self.norm1(x), shared_rel_pos)))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


class ResPostRelPosBlock(RelPosBlock):
    """A block whose norms follow attention and feed-forward block; `init_values` is their initial weight."""

    def __init__(self, dim: int, num_heads: int, *args: Any, init_values: float | None = None, **kwargs: Any) -> None:
        super().__init__(dim, num_heads, *args, init_values=None, **kwargs)  # type: ignore[misc]
        self.init_values = init_values
        del self.ls1, self.ls2
        move_to_end(self, "norm1", "drop_path1", "mlp", "norm2", "drop_path2")
        if init_values is not None and not self.norm1.weight.is_meta:
            for norm in (self.norm1, self.norm2):
                nn.init.constant_(norm.weight, init_values)

    def forward(self, x: Tensor, shared_rel_pos: Tensor | None = None) -> Tensor:
        x = x + self.drop_path1(self.norm1(self.attn(x, shared_rel_pos)))
        return x + self.drop_path2(self.norm2(self.mlp(x)))


class VisionTransformerRelPos(TokenModel):
    """Vision transformer with biases for offsets.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); features are (B, class token + patches, embed_dim).

    Args:
        img_size: Side, or (height, width), in pixels; biases are of this size.
        patch_size: Side, or (height, width), of a patch.
        global_pool: "avg" over patches, "token" for the class token, or "" for none.
        embed_dim, depth, num_heads: Channels of a token, blocks, attention heads.
        mlp_ratio, qkv_bias, qk_norm, init_values: As `RelPosBlock` takes them.
        class_token: Whether there is a class token.
        fc_norm: The final norm stands behind the pooling.
        rel_pos_type: "mlp" and "mlp-swin" for a network on logarithms of offsets (see `RelPosMlp`), else a table.
        rel_pos_dim: Hidden channels of the network.
        shared_rel_pos: One bias for all blocks.
        drop_rate, proj_drop_rate, attn_drop_rate: Dropout before the classifier and in the blocks.
        weight_init: Initial weights, see `init_vit_module`.
        fix_init: Scale the blocks' output projections down with depth.
        embed_layer, norm_layer, act_layer, block_fn: What the model is made of.

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
        bias: Bias = partial(RelPosBias, window_size=patch_embed.grid_size, prefix_tokens=int(class_token))
        if rel_pos_type.startswith("mlp"):
            width: dict[str, Any] = dict(hidden_dim=rel_pos_dim) if rel_pos_dim else {}
            bias = partial(RelPosMlp, window_size=patch_embed.grid_size, prefix_tokens=int(class_token),
                           mode="swin" if "swin" in rel_pos_type else "cr", **width)
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

    def init_module(self, name: str, module: nn.Module) -> None:
        super().init_module(name, module)
        block = re.fullmatch(r"blocks\.(\d+)\.norm[12]", name)
        owner: Any = self.blocks[int(block[1])] if block else None
        if isinstance(owner, ResPostRelPosBlock) and owner.init_values is not None:
            nn.init.constant_(module.weight, owner.init_values)  # type: ignore[arg-type]

    def no_weight_decay(self) -> set[str]:
        return {"cls_token"}

    def set_input_size(
        self, img_size: int | tuple[int, int] | None = None, patch_size: int | tuple[int, int] | None = None
    ) -> None:
        """Change image and patch size, in place; biases are resampled, networks' weights stay."""
        super().set_input_size(img_size, patch_size)
        for module in self.modules():
            if isinstance(module, (RelPosMlp, RelPosTable)):
                module.set_window_size(self.patch_embed.grid_size)

    def fit_state_dict(self, state_dict: StateDict) -> StateDict:
        """Tables of biases of other sizes as this model's."""
        owners = {name: module for name, module in self.named_modules() if isinstance(module, RelPosTable)}
        fitted = super().fit_state_dict(state_dict)
        for name, owner in owners.items():
            key = f"{name}.relative_position_bias_table"
            if key in fitted:
                fitted[key] = owner.fit_table(fitted[key])
        return fitted


_SMALL = dict(embed_dim=384, num_heads=6, qkv_bias=False)
_MEDIUM = dict(embed_dim=512, num_heads=8, qkv_bias=False)
_BASE = dict(qkv_bias=False)
_PLUS = dict(embed_dim=896, num_heads=14)
_FC = dict(fc_norm=True)
_TOKEN = dict(class_token=True, global_pool="token")
_POST = dict(block_fn=ResPostRelPosBlock)

register_model.variants(__name__, VisionTransformerRelPos, {
    "vit_relpos_base_patch32_plus_rpn_256": (_PLUS, _POST, dict(img_size=256, patch_size=32)),
    "vit_relpos_base_patch16_plus_240": (_PLUS, dict(img_size=240)),
    "vit_relpos_small_patch16_224": (_SMALL, _FC),
    "vit_relpos_medium_patch16_224": (_MEDIUM, _FC),
    "vit_relpos_base_patch16_224": (_BASE, _FC),
    "vit_srelpos_small_patch16_224": (_SMALL, dict(rel_pos_dim=384, shared_rel_pos=True)),
    "vit_srelpos_medium_patch16_224": (_MEDIUM, dict(rel_pos_dim=512, shared_rel_pos=True)),
    "vit_relpos_medium_patch16_cls_224": (_MEDIUM, _TOKEN, dict(rel_pos_dim=256)),
    "vit_relpos_base_patch16_cls_224": (_BASE, _TOKEN),
    "vit_relpos_base_patch16_clsgap_224": (_BASE, _FC, dict(class_token=True)),
    "vit_relpos_small_patch16_rpn_224": (_SMALL, _POST),
    "vit_relpos_medium_patch16_rpn_224": (_MEDIUM, _POST),
    "vit_relpos_base_patch16_rpn_224": (_BASE, _POST),
    "test_vit_relpos": (_FC, dict(
        img_size=160, embed_dim=96, depth=9, num_heads=3, mlp_ratio=2, qkv_bias=False)),
})
