"""CaiT: deep vision transformers in which a class token comes late and only reads.

Touvron et al., "Going deeper with Image Transformers", 2021, arXiv:2103.17239; talking heads of Shazeer et al.,
"Talking-Heads Attention", 2020, arXiv:2003.02436. Patches attend to each other alone, with their branches scaled by
channel; then the class token attends to them, which change no more. "xxs", "xs", "s", "m": 192, 288, 384, 768
channels; the numbers are depth and image size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ..layers import ActLayer, Mlp, PatchEmbed, PreNormBlock, get_act_layer, run_blocks
from ..layers.attention import HeadsAttention, attention_logits
from ..layers.norm import LayerNorm, NormLayer, get_norm_layer
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


class TalkingHeadAttn(HeadsAttention):
    """Attention whose heads are mixed before and after the softmax. Shapes: (B, N, dim) -> same."""

    def add_parts(self) -> None:
        self.proj_l, self.proj_w = (HeadsLinear(self.num_heads, self.num_heads) for _ in range(2))

    def mix(self, q: Tensor, k: Tensor, v: Tensor, *shared: Any) -> Tensor:
        return self.attn_drop(self.proj_w(self.proj_l(attention_logits(q, k)).softmax(dim=-1))) @ v


class ClassAttn(HeadsAttention):
    """The class token attends to all tokens. Shapes: (B, N, dim) -> (B, 1, dim). Keys as `inputs` has them, `proj`."""

    inputs: ClassVar[Mapping[str, int]] = {"q": 1, "k": 1, "v": 1}

    def project(self, x: Tensor) -> tuple[Tensor, ...]:
        q, k, v = (getattr(self, name) for name in self.inputs)
        return *self.split_heads(q(x[:, :1])), *self.split_heads(k(x)), *self.split_heads(v(x))


class LayerScaleBlock(PreNormBlock):
    """Attention and an MLP, each with norm, scale, which begins as `init_values`, and residual.

    `attn_block` makes the attention, by `TalkingHeadAttn`'s arguments, `mlp_block` the MLP, by those of `Mlp`.
    """

    one_drop_path = True

    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float = 4.0, qkv_bias: bool = False, proj_drop: float = 0.0,
        attn_drop: float = 0.0, drop_path: float = 0.0, act_layer: Layer = nn.GELU, norm_layer: Layer = nn.LayerNorm,
        attn_block: Layer = TalkingHeadAttn, mlp_block: Layer = Mlp, init_values: float = 1e-4,
    ) -> None:
        attn = attn_block(dim, num_heads=num_heads, qkv_bias=qkv_bias, attn_drop=attn_drop, proj_drop=proj_drop)
        mlp = mlp_block(in_features=dim, hidden_features=int(dim * mlp_ratio), act_layer=act_layer, drop=proj_drop)
        super().__init__(dim, attn, mlp, norm_layer, drop_path)
        self.init_values = init_values
        self.gamma_1, self.gamma_2 = (nn.Parameter(torch.empty(dim)) for _ in range(2))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for gamma in (self.gamma_1, self.gamma_2):
            nn.init.constant_(gamma, self.init_values)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self.gamma_1 * self.attn(self.norm1(x)))
        return x + self.drop_path2(self.gamma_2 * self.mlp(self.norm2(x)))


class LayerScaleBlockClassAttn(LayerScaleBlock):
    """The same for a class token, which reads the patches: (B, N, dim) and itself (B, 1, dim) -> (B, 1, dim)."""

    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float = 4.0, qkv_bias: bool = False, proj_drop: float = 0.0,
        attn_drop: float = 0.0, drop_path: float = 0.0, act_layer: Layer = nn.GELU, norm_layer: Layer = nn.LayerNorm,
        attn_block: Layer = ClassAttn, mlp_block: Layer = Mlp, init_values: float = 1e-4,
    ) -> None:
        super().__init__(dim, num_heads, mlp_ratio, qkv_bias, proj_drop, attn_drop, drop_path, act_layer, norm_layer,
                         attn_block, mlp_block, init_values)

    def forward(self, x: Tensor, x_cls: Tensor) -> Tensor:  # type: ignore[override]
        x_cls = x_cls + self.drop_path1(self.gamma_1 * self.attn(self.norm1(torch.cat((x_cls, x), dim=1))))
        return x_cls + self.drop_path2(self.gamma_2 * self.mlp(self.norm2(x_cls)))


class Cait(TokenModel):
    """Patches with positions, blocks of talking heads, blocks in which a class token reads, norm, classifier.

    Shapes: (B, in_chans, *img_size) -> (B, num_classes); features (B, 1 + N, embed_dim), taps without class token.

    Args:
        global_pool: "token" (the class token), "avg" (over patches), or "" for none.
        drop_path_rate, proj_drop_rate, attn_drop_rate: Of the blocks without class token, the same in all.
        block_layers, block_layers_token, patch_layer: Make the blocks without and with class token, and the patches.
        norm_layer, act_layer, attn_block, mlp_block, mlp_ratio, depth: Of the blocks without class token, and
        attn_block_token_only, mlp_block_token_only, mlp_ratio_token_only, depth_token_only: of those with one.
        init_values: Initial scale of the branches.

    Raises:
        ValueError: The pooling is unknown.
    """

    tap_prefix: ClassVar[bool] = False
    pools: ClassVar[tuple[str, ...]] = ("", "avg", "token")
    fc_norm_name: ClassVar[str] = ""
    token_std: ClassVar[float] = 0.02
    cls_token: Any  # None where the head was cut
    blocks_token_only: Any  # as well

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
        readers = [partial(block, x) for block in self.blocks_token_only]
        token = run_blocks(readers, self.cls_token.expand(x.shape[0], -1, -1), recompute=self.grad_checkpointing)
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


_XXS = dict(embed_dim=192, num_heads=4, init_values=1e-5, depth=24)
_XS = dict(embed_dim=288, num_heads=6, init_values=1e-5, depth=24)
_S = dict(embed_dim=384, num_heads=8, init_values=1e-5, depth=24)
_M = dict(embed_dim=768, num_heads=16, init_values=1e-6)
_36, _384 = dict(depth=36), dict(img_size=384)

register_model.variants(__name__, Cait, {
    "cait_xxs24_224": _XXS, "cait_xxs24_384": (_XXS, _384),
    "cait_xxs36_224": (_XXS, _36), "cait_xxs36_384": (_XXS, _36, _384),
    "cait_xs24_384": (_XS, _384),
    "cait_s24_224": _S, "cait_s24_384": (_S, _384), "cait_s36_384": (_S, _36, _384, dict(init_values=1e-6)),
    "cait_m36_384": (_M, _36, _384), "cait_m48_448": (_M, dict(depth=48, img_size=448)),
})
