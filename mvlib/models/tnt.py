"""Transformer in Transformer: within a patch, tokens of a few pixels attend to one another, and tell the patch's token.

Han et al., "Transformer in Transformer", 2021, arXiv:2103.00112. The legacy model is that of the first release: patches
are cut out of the embedded image instead of being embedded one by one, and projections have fewer norms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import DropPath, HeadsAttention, Mlp, NormLayer, PatchEmbed, drop_path_rates, get_norm_layer, placeable
from ..registry import register_model
from .base import KeyMap, StateDict, Step
from .tokens import TokenModel

if TYPE_CHECKING:
    from ._variants.tnt import *

__all__ = ["TNT"]

Layer = Callable[[int], nn.Module]
Size = int | Sequence[int]


class Attention(HeadsAttention):
    """Self-attention with weights `qk` and `v`; queries and keys have `hidden_dim` channels in all.

    Shapes: (B, N, dim) -> same.
    """

    inputs: ClassVar[Mapping[str, int]] = {"qk": 2, "v": 1}

    def __init__(
        self, dim: int, hidden_dim: int, num_heads: int = 8, qkv_bias: bool = False, attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__(dim, num_heads, qkv_bias, attn_drop, proj_drop)
        if hidden_dim % num_heads:
            raise ValueError(f"{hidden_dim} channels cannot be divided among {num_heads} heads")
        if hidden_dim != dim:
            self.qk = nn.Linear(dim, 2 * hidden_dim, bias=qkv_bias)


class Block(nn.Module):
    """An inner transformer block on each patch's pixels; their projection is added to the patch; an outer block.

    Shapes: patches (B, 1 + N, dim_out), pixels (B * N, P, dim) -> the same two; the first token is no patch.

    `num_pixel` is P. In a `legacy` block the projection has one norm, of each pixel, instead of one on each side.
    """

    def __init__(
        self, dim: int, dim_out: int, num_pixel: int, num_heads_in: int, num_heads_out: int, mlp_ratio: float,
        qkv_bias: bool, proj_drop: float, attn_drop: float, drop_path: float, norm_layer: Layer, legacy: bool,
    ) -> None:
        super().__init__()
        self.norm_in = norm_layer(dim)
        self.attn_in = Attention(dim, dim, num_heads_in, qkv_bias, attn_drop, proj_drop)
        self.norm_mlp_in = norm_layer(dim)
        self.mlp_in = Mlp(dim, 4 * dim, drop=proj_drop)
        self.legacy = legacy
        self.norm1_proj = norm_layer(dim if legacy else dim * num_pixel)
        self.proj = nn.Linear(dim * num_pixel, dim_out, bias=legacy)
        self.norm2_proj = nn.Identity() if legacy else norm_layer(dim_out)
        self.norm_out = norm_layer(dim_out)
        self.attn_out = Attention(dim_out, dim_out, num_heads_out, qkv_bias, attn_drop, proj_drop)
        self.drop_path = DropPath(drop_path)
        self.norm_mlp = norm_layer(dim_out)
        self.mlp = Mlp(dim_out, int(dim_out * mlp_ratio), drop=proj_drop)

    def forward(self, patches: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        pixels = pixels + self.drop_path(self.attn_in(self.norm_in(pixels)))
        pixels = pixels + self.drop_path(self.mlp_in(self.norm_mlp_in(pixels)))
        message = self.norm1_proj(pixels) if self.legacy else pixels
        message = message.reshape(patches.shape[0], -1, self.proj.in_features)
        message = self.norm2_proj(self.proj(message if self.legacy else self.norm1_proj(message)))
        patches = patches + F.pad(message, (0, 0, 1, 0))  # nothing for the class token
        patches = patches + self.drop_path(self.attn_out(self.norm_out(patches)))
        return patches + self.drop_path(self.mlp(self.norm_mlp(patches))), pixels


class PixelEmbed(PatchEmbed):
    """Pixels of each patch by a 7x7 convolution, and their positions; key `proj`.

    The convolution sees each patch alone, or (`legacy`) all of the image.
    Shapes: (B, in_chans, H, W) and positions (1, in_dim, h, w) -> (B * N, h * w, in_dim).
    """

    grid_size: Any  # never None: the image's size is given
    num_patches: Any

    @placeable
    def __init__(
        self, img_size: Size = 224, patch_size: Size = 16, in_chans: int = 3, in_dim: int = 48, stride: int = 4,
        legacy: bool = False,
    ) -> None:
        super().__init__(img_size, patch_size, in_chans, in_dim)
        self.proj = nn.Conv2d(in_chans, in_dim, 7, stride, padding=3)
        self.legacy = legacy
        self.inner_size = [math.ceil(side / stride) for side in self.patch_size]  # h, w

    def forward(self, x: Tensor, pixel_pos: Tensor) -> Tensor:  # type: ignore[override]
        return (super().forward(x) + pixel_pos).flatten(2).transpose(1, 2)

    def _embed(self, x: Tensor) -> Tensor:
        return self._cut(self.proj(x), self.inner_size) if self.legacy else self.proj(self._cut(x, self.patch_size))

    def _cut(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """A map (B, C, H, W) -> its patches (B * N, C, *size); what is left over below and on the right is left out."""
        (rows, columns), (height, width) = self.grid_size, size
        x = x[:, :, :rows * height, :columns * width].unflatten(2, (rows, height)).unflatten(4, (columns, width))
        return x.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


class TNT(TokenModel):
    """Embedding, blocks for patches and their pixels, norm, pooling and a linear classifier.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features are (B, 1 + N, embed_dim).

    Args:
        img_size: Side, or (height, width), of images in pixels; others are refused.
        global_pool: "token" (the class token), "avg" (patches), or "" for none.
        embed_dim, inner_dim, num_heads_outer, num_heads_inner: Channels and heads of patches and of pixels.
        mlp_ratio: Hidden channels of the outer MLPs per channel; the inner ones have 4.
        first_stride: Stride of pixels.
        legacy: As the first release.

    Raises:
        ValueError: The pooling is unknown, or heads do not divide channels; from `forward`, the image has another size.
    """

    pools: ClassVar[tuple[str, ...]] = ("", "token", "avg")
    fc_norm_name: ClassVar[str] = ""
    cls_token: nn.Parameter

    def __init__(
        self, img_size: Size = 224, patch_size: Size = 16, in_chans: int = 3, num_classes: int = 1000,
        global_pool: str = "token", embed_dim: int = 768, inner_dim: int = 48, depth: int = 12,
        num_heads_inner: int = 4, num_heads_outer: int = 12, mlp_ratio: float = 4.0, qkv_bias: bool = False,
        drop_rate: float = 0.0, pos_drop_rate: float = 0.0, proj_drop_rate: float = 0.0, attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0, norm_layer: NormLayer = nn.LayerNorm, first_stride: int = 4, legacy: bool = False,
    ) -> None:
        super().__init__()
        norm = get_norm_layer(norm_layer)
        self.in_chans = in_chans
        self.num_features = self.head_hidden_size = self.embed_dim = embed_dim
        self.has_class_token, self.num_prefix_tokens, self.no_embed_class = True, 1, False
        self.pixel_embed = PixelEmbed(img_size, patch_size, in_chans, inner_dim, first_stride, legacy)
        count = math.prod(self.pixel_embed.inner_size)
        self.norm1_proj = norm(count * inner_dim)
        self.proj = nn.Linear(count * inner_dim, embed_dim)
        self.norm2_proj = norm(embed_dim)
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.patch_pos = nn.Parameter(torch.empty(1, self.pixel_embed.num_patches + 1, embed_dim))
        self.pixel_pos = nn.Parameter(torch.empty(1, inner_dim, *self.pixel_embed.inner_size))
        self.pos_drop = nn.Dropout(pos_drop_rate)
        self.blocks = nn.Sequential(*(
            Block(inner_dim, embed_dim, count, num_heads_inner, num_heads_outer, mlp_ratio, qkv_bias, proj_drop_rate,
                  attn_drop_rate, rate, norm, legacy) for rate in drop_path_rates(drop_path_rate, depth)))
        self.shared = ("pixels",)
        self.add_head(norm, num_classes, global_pool, fc_norm=False, drop_rate=drop_rate)
        self.flow.stem = [Step("embed", gives=self.shared)]
        self.flow.stages = [replace(step, gives=self.shared) for step in self.flow.stages]
        self.init_weights()

    @property
    def patch_embed(self) -> PixelEmbed:
        return self.pixel_embed

    def embed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Image (B, in_chans, H, W) -> class token and patches (B, 1 + N, embed_dim), pixels (B * N, P, inner_dim)."""
        pixels = self.pixel_embed(x, self.pixel_pos).contiguous()
        patches = pixels.unflatten(0, (-1, self.pixel_embed.num_patches)).flatten(2)
        patches = self.norm2_proj(self.proj(self.norm1_proj(patches)))
        patches = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), patches), dim=1) + self.patch_pos
        return self.pos_drop(patches), pixels

    def set_input_size(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("a TNT is built for one size: give img_size when it is created")

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        stem = r"^cls_token|patch_pos|pixel_pos|pixel_embed|norm[12]_proj|proj"
        return dict(stem=stem, blocks=[(r"^blocks\.(\d+)", None), (r"^norm", (99999,))])

    def no_weight_decay(self) -> set[str]:
        return {"patch_pos", "pixel_pos", "cls_token"}

    def reset_parameters(self) -> None:
        for parameter in (self.cls_token, self.patch_pos, self.pixel_pos):
            nn.init.trunc_normal_(parameter, std=0.02)

    def fit_state_dict(self, state_dict: StateDict) -> StateDict:
        """Positions of another grid are resampled; the authors' files have a tensor that nothing reads."""
        fitted = {key: value for key, value in state_dict.items() if key != "outer_tokens"}
        if "patch_pos" in fitted:
            old = self._source_grid(fitted["patch_pos"].shape[1] - 1, self.pixel_embed.patch_size)
            if old is not None and old != self.pixel_embed.grid_size:
                fitted["patch_pos"] = self.resample_positions(fitted["patch_pos"], self.pixel_embed.grid_size, old)
        return fitted


_S = dict(embed_dim=384, inner_dim=24, num_heads_outer=6)

register_model.variants(__name__, TNT, {
    "tnt_s_legacy_patch16_224": (_S, dict(legacy=True)),
    "tnt_s_patch16_224": _S,
    "tnt_b_patch16_224": dict(embed_dim=640, inner_dim=40, num_heads_outer=10),
})


# --- foreign checkpoints: the authors' names

_NAMES = {
    "outer_pos": "patch_pos", "inner_pos": "pixel_pos", "patch_embed": "pixel_embed", "proj_norm1": "norm1_proj",
    "proj_norm2": "norm2_proj", "inner_norm1": "norm_in", "inner_attn": "attn_in", "inner_norm2": "norm_mlp_in",
    "inner_mlp": "mlp_in", "outer_norm1": "norm_out", "outer_attn": "attn_out", "outer_norm2": "norm_mlp",
    "outer_mlp": "mlp",
}


def _from_authors(state_dict: StateDict, model: Any) -> StateDict:
    renamed = {".".join(_NAMES.get(part, part) for part in key.split(".")): value for key, value in state_dict.items()}
    positions = renamed.get("pixel_pos")
    if positions is not None and positions.ndim == 3:  # (1, P, inner_dim)
        renamed["pixel_pos"] = positions.transpose(1, 2).reshape(model.pixel_pos.shape)
    return renamed


TNT.key_maps = (KeyMap("authors", lambda keys: "outer_pos" in keys, _from_authors),)
