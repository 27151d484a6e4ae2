"""ConViT: a vision transformer whose early attention can begin as a convolution.

d'Ascoli et al., "ConViT: Improving Vision Transformers with Soft Convolutional Inductive Biases", 2021,
arXiv:2103.10697. A gate for each head mixes attention by content with attention by distance alone. The latter's logits
are a quadratic of the distance, w0 dx + w1 dy + w2 (dx^2 + dy^2), so that its map is the product of one over rows and
one over columns, and is used as these two: nothing of it is as large as tokens x tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import HybridEmbed, LayerNorm, Mlp, NormLayer, PatchEmbed, PreNormBlock, drop_path_rates, get_norm_layer
from ..layers.attention import HeadsAttention, attend, attention_logits
from ..registry import register_model
from .base import Indices, Step, take_indices
from .tokens import TokenModel

if TYPE_CHECKING:
    from ._variants.convit import *

__all__ = ["GPSA", "MHSA", "Block", "ConVit"]


@torch.fx.wrap  # one node in a traced graph: it makes a tensor where, and as, `like` is stored
def _offsets(like: Tensor, count: int) -> Tensor:
    """From each of `count` places in a row to each: distance and its square, (count, count, 2)."""
    place = torch.arange(count, device=like.device, dtype=like.dtype)
    distance = place - place[:, None]
    return torch.stack((distance, distance.square()), dim=2)


class GPSA(HeadsAttention):
    """Gated positional self-attention: by content and by distance, mixed by a gate for each head.

    Shapes: tokens (B, H * W, dim), offsets of rows (H, H, 2) and columns (W, W, 2), see `_offsets` -> (B, H * W, dim).
    Without offsets, tokens are those of a square. `locality_strength` is for who initialises it.
    """

    inputs: ClassVar[Mapping[str, int]] = {"qk": 2, "v": 1}

    def __init__(
        self, dim: int, num_heads: int = 8, qkv_bias: bool = False, attn_drop: float = 0.0, proj_drop: float = 0.0,
        locality_strength: float = 1.0,
    ) -> None:
        super().__init__(dim, num_heads, qkv_bias, attn_drop, proj_drop)
        self.dim, self.locality_strength = dim, locality_strength
        self.pos_proj = nn.Linear(3, num_heads)  # of column distance, row distance, squared distance
        self.gating_param = nn.Parameter(torch.empty(num_heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.ones_(self.gating_param)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, *shared: Any) -> Tensor:
        rows, columns = shared or (_offsets(v, math.isqrt(v.shape[2])),) * 2
        gate = self.gating_param.sigmoid()[:, None, None]
        # The projection of a sum is split among its parts; the bias, which is in both, changes no softmax.
        rows = self.pos_proj(F.pad(rows, (1, 0))).permute(2, 0, 1).softmax(dim=-1)  # (heads, H, H)
        columns = torch.stack((columns[:, :, 0], torch.zeros_like(columns[:, :, 0]), columns[:, :, 1]), dim=2)
        columns = self.pos_proj(columns).permute(2, 0, 1).softmax(dim=-1)
        if self.fused_attn and not (self.training and self.attn_drop.p > 0.0):  # dropout is of the mixed map
            content = attend(q, k, v, True)
            grid = v.unflatten(2, (rows.shape[1], columns.shape[1]))
            position = columns[:, None] @ (rows @ grid.flatten(3)).view_as(grid)
            return content + gate * (position.flatten(2, 3) - content)
        content = attention_logits(q, k).softmax(dim=-1)
        position = (rows[:, :, None, :, None] * columns[:, None, :, None]).flatten(3).flatten(1, 2)
        return self.attn_drop(content + gate * (position - content)) @ v


class MHSA(HeadsAttention):
    """Plain attention, with the arguments of `GPSA`. Shapes: (B, N, dim) -> same."""


class Block(PreNormBlock):
    """`GPSA`, or without `use_gpsa` `MHSA`, and an MLP. Shapes: (B, N, dim), and what attention takes -> first."""

    one_drop_path = True

    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float = 4.0, qkv_bias: bool = False, proj_drop: float = 0.0,
        attn_drop: float = 0.0, drop_path: float = 0.0, act_layer: Callable[..., nn.Module] = nn.GELU,
        norm_layer: Callable[..., nn.Module] = LayerNorm, use_gpsa: bool = True, locality_strength: float = 1.0,
    ) -> None:
        attention = partial(GPSA, locality_strength=locality_strength) if use_gpsa else MHSA
        super().__init__(dim, attention(dim, num_heads, qkv_bias, attn_drop, proj_drop),
                         Mlp(dim, int(dim * mlp_ratio), act_layer=act_layer, drop=proj_drop), norm_layer, drop_path)
        self.use_gpsa = use_gpsa


class ConVit(TokenModel):
    """Patches with positions, blocks of gated attention, a class token, blocks of plain attention, norm, classifier.

    Shapes: (B, in_chans, *img_size) -> (B, num_classes); features (B, 1 + N, channels), taps without class token.

    Args:
        global_pool: "token" (the class token), "avg" (over patches), or "" for none.
        embed_dim: Channels of a head.
        hybrid_backbone: A network whose map is cut into patches of 1x1; the image's own patches unless given.
        local_up_to_layer: Blocks of gated attention; the class token comes behind them.
        locality_strength: How narrow their initial attention by distance is.
        use_pos_embed: Whether there is a position embedding.

    Raises:
        ValueError: The pooling is unknown.
    """

    tap_prefix: ClassVar[bool] = False
    pools: ClassVar[tuple[str, ...]] = ("", "avg", "token")
    fc_norm_name: ClassVar[str] = ""
    token_std: ClassVar[float] = 0.02
    shared: tuple[str, ...] = ("rows", "columns")
    cls_token: Any  # None where the model was cut before it

    def __init__(
        self, img_size: int | tuple[int, int] = 224, patch_size: int | tuple[int, int] = 16, in_chans: int = 3,
        num_classes: int = 1000, global_pool: str = "token", embed_dim: int = 768, depth: int = 12, num_heads: int = 12,
        mlp_ratio: float = 4.0, qkv_bias: bool = False, drop_rate: float = 0.0, pos_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0, attn_drop_rate: float = 0.0, drop_path_rate: float = 0.0,
        hybrid_backbone: nn.Module | None = None, norm_layer: NormLayer = None, local_up_to_layer: int = 3,
        locality_strength: float = 1.0, use_pos_embed: bool = True,
    ) -> None:
        super().__init__()
        norm, dim = get_norm_layer(norm_layer) or LayerNorm, embed_dim * num_heads
        self.in_chans, self.local_up_to_layer, self.locality_strength = in_chans, local_up_to_layer, locality_strength
        embed = PatchEmbed(img_size, patch_size, in_chans, dim) if hybrid_backbone is None else \
            HybridEmbed(hybrid_backbone, img_size, in_chans=in_chans, embed_dim=dim)
        self.add_tokens(embed, dim, positions=use_pos_embed, no_embed_class=True, pos_drop_rate=pos_drop_rate)
        self.blocks = nn.Sequential(*(
            Block(dim, num_heads, mlp_ratio, qkv_bias, proj_drop_rate, attn_drop_rate, rate, norm_layer=norm,
                  use_gpsa=i < local_up_to_layer, locality_strength=locality_strength)
            for i, rate in enumerate(drop_path_rates(drop_path_rate, depth))))
        self.add_head(norm, num_classes, global_pool, fc_norm=False, drop_rate=drop_rate)
        late = [replace(step, takes=()) for step in self.flow.stages[local_up_to_layer:]]
        self.flow.stages[local_up_to_layer:] = [Step("add_class_token"), *late] if late else []
        self.init_weights()

    def prefix_tokens(self) -> list[Tensor]:
        return []  # the class token is put there by `add_class_token`

    def share(self, x: Tensor) -> tuple[Tensor, ...]:
        return x, *(_offsets(x, count) for count in self.patch_embed.grid_size)

    def add_class_token(self, x: Tensor) -> Tensor:
        return torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1)

    def _format_tap(self, x: Tensor, grid: Any, output_fmt: str, prefix: bool) -> Any:
        return super()._format_tap(x[:, -math.prod(grid):], grid, output_fmt, prefix)  # the class token may be there

    def prune_intermediate_layers(
        self, indices: Indices = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        if max(take_indices(len(self.flow.taps), indices)) < self.local_up_to_layer:  # nothing is left behind the token
            self.cls_token, self.has_class_token, self.num_prefix_tokens = None, False, 0
            prune_head = prune_head or self.global_pool == "token"
        return super().prune_intermediate_layers(indices, prune_norm, prune_head)

    def init_module(self, name: str, module: nn.Module) -> None:
        """Gated attention begins as a convolution: each head looks one place of a square kernel away."""
        super().init_module(name, module)
        if isinstance(module, nn.Linear) and name.endswith(".attn.v"):
            nn.init.eye_(module.weight)
        elif isinstance(module, nn.Linear) and name.endswith(".attn.pos_proj"):
            side = math.isqrt(len(module.weight))
            place = 2 * torch.arange(side, device=module.weight.device) - (side - 1.0)
            columns, rows = place.repeat_interleave(side), place.repeat(side)
            module.weight[:side**2] = torch.stack((columns, rows, -torch.ones_like(rows)), dim=1)
            module.weight.mul_(self.locality_strength)


register_model.variants(__name__, ConVit, {
    name: dict(local_up_to_layer=10, embed_dim=48, num_heads=heads)
    for name, heads in {"convit_tiny": 4, "convit_small": 9, "convit_base": 16}.items()
})
