"""CaiT: deep vision transformers in which a class token comes late and only reads.

Touvron et al., "Going deeper with Image Transformers", 2021, arXiv:2103.17239; talking heads of Shazeer et al.,
"Talking-Heads Attention", 2020, arXiv:2003.02436. Patches attend to each other alone, with their branches scaled by
channel; then the class token attends to them, which change no more. "xxs", "xs", "s", "m": 192, 288, 384, 768
channels; the numbers are depth and image size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ..layers.activations import ActLayer, get_act_layer
from ..layers.attention import attend, attention_logits
from ..layers.config import use_fused_attn
from ..layers.drop import DropPath
from ..layers.helpers import placeable
from ..layers.mlp import Mlp
from ..layers.norm import LayerNorm, NormLayer, get_norm_layer
from ..layers.patch_embed import PatchEmbed
from ..layers.stage import run_blocks
from ..registry import register_model
from .base import Step
from .tokens import TokenModel

if TYPE_CHECKING:
    from ._variants.cait import *

__all__ = ["Cait", "ClassAttn", "LayerScaleBlock", "LayerScaleBlockClassAttn", "TalkingHeadAttn"]

Layer = Callable[..., nn.Module]


class HeadsLinear(nn.Linear):
    """A linear layer over the heads of attention maps. Shapes: (B, in_features, N, M) -> (B, out_features, N, M)."""

    def forward(self, attn: Tensor) -> Tensor:
        mixed = torch.baddbmm(self.bias[:, None], self.weight.expand(attn.shape[0], -1, -1), attn.flatten(2))
        return mixed.unflatten(2, attn.shape[2:])


class TalkingHeadAttn(nn.Module):
    """Attention whose heads are mixed before and after the softmax. Shapes: (B, N, dim) -> same."""

    @placeable
    def __init__(
        self, dim: int, num_heads: int = 8, qkv_bias: bool = False, attn_drop: float = 0.0, proj_drop: float = 0.0
    ) -> None:
        super().__init__()
        self.num_heads, self.scale = num_heads, (dim // num_heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(dim, dim)
        self.proj_l, self.proj_w = HeadsLinear(num_heads, num_heads), HeadsLinear(num_heads, num_heads)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        attn = self.proj_w(self.proj_l(attention_logits(q, k, scale=self.scale)).softmax(dim=-1))
        return self.proj_drop(self.proj((self.attn_drop(attn) @ v).transpose(1, 2).flatten(2)))


class ClassAttn(nn.Module):
    """The class token attends to all tokens. Shapes: (B, N, dim) -> (B, 1, dim)."""

    @placeable
    def __init__(
        self, dim: int, num_heads: int = 8, qkv_bias: bool = False, attn_drop: float = 0.0, proj_drop: float = 0.0
    ) -> None:
        super().__init__()
        self.num_heads, self.scale, self.fused_attn = num_heads, (dim // num_heads) ** -0.5, use_fused_attn()
        self.q, self.k, self.v = (nn.Linear(dim, dim, bias=qkv_bias) for _ in range(3))
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
                   for t in (self.q(x[:, :1]), self.k(x), self.v(x)))
        x = attend(q, k, v, self.fused_attn, self.attn_drop, scale=self.scale)
        return self.proj_drop(self.proj(x.transpose(1, 2).flatten(2)))


class LayerScaleBlock(nn.Module):
    """Attention and an MLP, each with norm, scale and residual. Shapes: (B, N, dim) -> same.

    Args:
        dim: Channels of a token.
        num_heads: Attention heads.
        mlp_ratio: Hidden channels of the MLP per channel.
        qkv_bias: Whether projections to queries, keys and values have a bias.
        proj_drop, attn_drop, drop_path: Rates of dropout and of stochastic depth.
        act_layer, norm_layer: What it is made of.
        attn_block: Makes the attention, by the arguments of `TalkingHeadAttn`.
        mlp_block: Makes the MLP, by those of `Mlp`.
        init_values: Initial scale of the branches.
    """

    @placeable
    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float = 4.0, qkv_bias: bool = False, proj_drop: float = 0.0,
        attn_drop: float = 0.0, drop_path: float = 0.0, act_layer: Layer = nn.GELU, norm_layer: Layer = nn.LayerNorm,
        attn_block: Layer = TalkingHeadAttn, mlp_block: Layer = Mlp, init_values: float = 1e-4,
    ) -> None:
        super().__init__()
        self.init_values = init_values
        self.norm1 = norm_layer(dim)
        self.attn = attn_block(dim, num_heads=num_heads, qkv_bias=qkv_bias, attn_drop=attn_drop, proj_drop=proj_drop)
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()
        self.norm2 = norm_layer(dim)
        self.mlp = mlp_block(
            in_features=dim, hidden_features=int(dim * mlp_ratio), act_layer=act_layer, drop=proj_drop)
        self.gamma_1, self.gamma_2 = (nn.Parameter(torch.empty(dim)) for _ in range(2))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for gamma in (self.gamma_1, self.gamma_2):
            nn.init.constant_(gamma, self.init_values)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.gamma_1 * self.attn(self.norm1(x)))
        return x + self.drop_path(self.gamma_2 * self.mlp(self.norm2(x)))


class LayerScaleBlockClassAttn(LayerScaleBlock):
    """The same for a class token, which attends to itself and the patches.

    Shapes: patches (B, N, dim), class token (B, 1, dim) -> (B, 1, dim). Arguments as `LayerScaleBlock`'s.
    """

    @placeable
    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float = 4.0, qkv_bias: bool = False, proj_drop: float = 0.0,
        attn_drop: float = 0.0, drop_path: float = 0.0, act_layer: Layer = nn.GELU, norm_layer: Layer = nn.LayerNorm,
        attn_block: Layer = ClassAttn, mlp_block: Layer = Mlp, init_values: float = 1e-4,
    ) -> None:
        super().__init__(dim, num_heads, mlp_ratio, qkv_bias, proj_drop, attn_drop, drop_path, act_layer, norm_layer,
                         attn_block, mlp_block, init_values)

    def forward(self, x: Tensor, x_cls: Tensor) -> Tensor:  # type: ignore[override]
        x_cls = x_cls + self.drop_path(self.gamma_1 * self.attn(self.norm1(torch.cat((x_cls, x), dim=1))))
        return x_cls + self.drop_path(self.gamma_2 * self.mlp(self.norm2(x_cls)))


class Cait(TokenModel):
    """Patches with positions, blocks of talking heads, blocks in which a class token reads, norm, classifier.

    Shapes: (B, in_chans, *img_size) -> (B, num_classes); features (B, 1 + N, embed_dim), taps without class token.

    Args:
        img_size: Side, or (height, width), in pixels; it determines the position embedding.
        patch_size: Side, or (height, width), of a patch.
        global_pool: "token" (the class token), "avg" (over patches), or "" for none.
        embed_dim: Channels of a token.
        depth: Blocks without class token.
        num_heads: Attention heads.
        mlp_ratio: Hidden channels of their MLPs per channel.
        qkv_bias: Whether projections to queries, keys and values have a bias.
        pos_drop_rate: Dropout behind the position embedding.
        proj_drop_rate, attn_drop_rate: Dropout in the blocks without class token.
        drop_path_rate: Stochastic depth of these blocks, the same in all.
        block_layers, block_layers_token: Make the blocks without and with class token.
        patch_layer: Makes the patch embedding.
        norm_layer, act_layer, attn_block, mlp_block: What the blocks without class token are made of.
        init_values: Initial scale of the branches.
        attn_block_token_only, mlp_block_token_only: What the blocks with a class token are made of.
        depth_token_only: Blocks with a class token.
        mlp_ratio_token_only: Hidden channels of their MLPs per channel.

    Raises:
        ValueError: The pooling is unknown.
    """

    tap_prefix: ClassVar[bool] = False
    pools: ClassVar[tuple[str, ...]] = ("", "avg", "token")
    fc_norm_name: ClassVar[str] = ""
    token_std: ClassVar[float] = 0.02
    cls_token: Any  # None where the head was cut, as
    blocks_token_only: Any

    def __init__(
        self, img_size: int | tuple[int, int] = 224, patch_size: int | tuple[int, int] = 16, in_chans: int = 3,
        num_classes: int = 1000, global_pool: str = "token", embed_dim: int = 768, depth: int = 12, num_heads: int = 12,
        mlp_ratio: float = 4.0, qkv_bias: bool = True, drop_rate: float = 0.0, pos_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0, attn_drop_rate: float = 0.0, drop_path_rate: float = 0.0,
        block_layers: Layer = LayerScaleBlock, block_layers_token: Layer = LayerScaleBlockClassAttn,
        patch_layer: Layer = PatchEmbed, norm_layer: NormLayer = None, act_layer: ActLayer = None,
        attn_block: Layer = TalkingHeadAttn, mlp_block: Layer = Mlp, init_values: float = 1e-4,
        attn_block_token_only: Layer = ClassAttn, mlp_block_token_only: Layer = Mlp, depth_token_only: int = 2,
        mlp_ratio_token_only: float = 4.0,
    ) -> None:
        super().__init__()
        norm = get_norm_layer(norm_layer) or LayerNorm
        common = dict(dim=embed_dim, num_heads=num_heads, qkv_bias=qkv_bias, norm_layer=norm,
                      act_layer=get_act_layer(act_layer) or nn.GELU, init_values=init_values)
        self.in_chans = in_chans
        embed = patch_layer(img_size=img_size, patch_size=patch_size, in_chans=in_chans, embed_dim=embed_dim)
        self.add_tokens(embed, embed_dim, no_embed_class=True, pos_drop_rate=pos_drop_rate)
        self.blocks = nn.Sequential(*(
            block_layers(**common, mlp_ratio=mlp_ratio, proj_drop=proj_drop_rate, attn_drop=attn_drop_rate,
                         drop_path=drop_path_rate, attn_block=attn_block, mlp_block=mlp_block)
            for _ in range(depth)))
        self.blocks_token_only = nn.ModuleList(
            block_layers_token(**common, mlp_ratio=mlp_ratio_token_only, attn_block=attn_block_token_only,
                               mlp_block=mlp_block_token_only)
            for _ in range(depth_token_only))
        self.add_head(norm, num_classes, global_pool, fc_norm=False, drop_rate=drop_rate)
        self.flow.tail.insert(0, Step("attend_to_class"))
        self.init_weights()

    def prefix_tokens(self) -> list[Tensor]:
        return []  # the class token is put there by `attend_to_class`

    def attend_to_class(self, x: Tensor) -> Tensor:
        """Let the class token read the patches (B, N, embed_dim), and put it before them."""
        token = self.cls_token.expand(x.shape[0], -1, -1)
        readers = [partial(block, x) for block in self.blocks_token_only]
        token = run_blocks(readers, token, recompute=self.grad_checkpointing)
        return torch.cat((token, x), dim=1)

    def cut_head(self) -> None:
        super().cut_head()
        self.cls_token = self.blocks_token_only = None
        self.has_class_token, self.num_prefix_tokens = False, 0
        self.flow.tail = [step for step in self.flow.tail if step.name == self.norm_path]

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """As timm has it, blocks with a class token are in the layers of the last blocks without."""
        late = self.blocks_token_only or ()
        first = len(self.blocks) - len(late)
        readers = [(rf"^blocks_token_only\.{i}\.", (first + i,)) for i in range(len(late))]
        return dict(stem=r"^(?:cls_token|pos_embed|patch_embed)",
                    blocks=[(r"^blocks\.(\d+)", None), *readers, (r"^norm\.", (99999,))])


_XXS = dict(embed_dim=192, num_heads=4, init_values=1e-5)
_XS = dict(embed_dim=288, num_heads=6, init_values=1e-5)
_S = dict(embed_dim=384, num_heads=8, init_values=1e-5)
_M = dict(embed_dim=768, num_heads=16, init_values=1e-6)

register_model.variants(__name__, Cait, {
    "cait_xxs24_224": (_XXS, dict(depth=24)),
    "cait_xxs24_384": (_XXS, dict(depth=24, img_size=384)),
    "cait_xxs36_224": (_XXS, dict(depth=36)),
    "cait_xxs36_384": (_XXS, dict(depth=36, img_size=384)),
    "cait_xs24_384": (_XS, dict(depth=24, img_size=384)),
    "cait_s24_224": (_S, dict(depth=24)),
    "cait_s24_384": (_S, dict(depth=24, img_size=384)),
    "cait_s36_384": (_S, dict(depth=36, img_size=384, init_values=1e-6)),
    "cait_m36_384": (_M, dict(depth=36, img_size=384)),
    "cait_m48_448": (_M, dict(depth=48, img_size=448)),
})
