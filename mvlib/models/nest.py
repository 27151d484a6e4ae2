"""NesT: transformers within the blocks of an image, which a convolution and a pooling merge four to one.

Zhang et al., "Nested Hierarchical Transformer: Towards Accurate, Data-Efficient and Interpretable Visual
Understanding", 2021, arXiv:2105.12723.

"jx" models have the padding of the authors' JAX code, which their weights need.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ..layers import HeadsAttention, Mlp, PatchEmbed, PreNormBlock, create_conv2d, resample_grid, run_blocks
from ..layers.activations import ActLayer, get_act_layer
from ..layers.drop import drop_path_rates
from ..layers.helpers import Module, to_2tuple, to_ntuple
from ..layers.norm import LayerNorm, NormLayer, get_norm_layer
from ..layers.pool import GlobalPool2d, MaxPool2dSame
from ..layers.weight_init import init_trunc_normal
from ..layers.window import window_partition, window_reverse
from ..registry import register_model
from .base import Flow, ImageModel, Inits, StateDict, Step

if TYPE_CHECKING:
    from ._variants.nest import *

__all__ = ["Nest"]


class Attention(HeadsAttention):
    """Self-attention within blocks of an image, the heads' outputs interleaved. Shapes: (B, blocks, N, dim) -> same."""

    def forward(self, x: Tensor) -> Tensor:
        attended = self.mix(*self.project(x.flatten(0, 1)))
        return self.proj_drop(self.proj(attended.permute(0, 2, 3, 1).flatten(2))).view_as(x)


class TransformerLayer(PreNormBlock):
    """A vision transformer's block within blocks of an image. Shapes: (B, blocks, N, dim) -> same."""

    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float = 4.0, qkv_bias: bool = False, proj_drop: float = 0.0,
        attn_drop: float = 0.0, drop_path: float = 0.0, act_layer: ActLayer = nn.GELU,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
    ) -> None:
        super().__init__(dim, Attention(dim, num_heads, qkv_bias, attn_drop, proj_drop),
                         Mlp(dim, int(dim * mlp_ratio), act_layer=act_layer, drop=proj_drop), norm_layer, drop_path)


class ConvPool(Module):
    """Convolution, norm and max pooling, which let blocks see each other.

    Shapes: (B, in_channels, H, W) -> (B, out_channels, H / 2, W / 2). `pad_type` "same" is TensorFlow's padding.
    """

    def __init__(
        self, in_channels: int, out_channels: int, norm_layer: Callable[[int], nn.Module], pad_type: str = ""
    ) -> None:
        super().__init__()
        self.conv = create_conv2d(in_channels, out_channels, 3, padding=pad_type, bias=True)
        self.norm = norm_layer(out_channels)
        self.pool = MaxPool2dSame(3, 2) if pad_type == "same" else nn.MaxPool2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.norm(self.conv(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


def blockify(x: Tensor, block_size: int) -> Tensor:
    """Cut a map into square blocks of a side, row by row: (B, H, W, C) -> (B, blocks, block_size**2, C)."""
    return window_partition(x, (block_size, block_size)).flatten(1, 2).unflatten(0, (x.shape[0], -1))


def deblockify(x: Tensor, block_size: int) -> Tensor:
    """Put the blocks of a square map together again: (B, blocks, block_size**2, C) -> (B, H, W, C)."""
    side = math.isqrt(x.shape[1]) * block_size
    return window_reverse(x, (block_size, block_size), side, side)


def resize_pos_embed(posemb: Tensor, posemb_new: Tensor) -> Tensor:
    """Positions in square blocks of a square image, (1, blocks, N, C), interpolated to the shape of others."""
    blocks, size = posemb_new.shape[1:3]
    side = math.isqrt(blocks * size)
    grid = deblockify(posemb, math.isqrt(posemb.shape[2]))
    return blockify(resample_grid(grid, [side, side], antialias=False, align_corners=False), math.isqrt(size))


class NestLevel(nn.Module):
    """Pooling, but in the first level, and transformer layers within `blocks` x `blocks` blocks of `block_size` tokens.

    Shapes: (B, H, W, in) -> (B, H', W', dim); H' and W' are `blocks` * `block_size`, H and W twice as much.
    """

    grad_checkpointing: bool = False

    def __init__(self, pool: nn.Module, dim: int, blocks: int, block_size: int, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.window, self.grid = (block_size, block_size), (blocks * block_size, blocks * block_size)
        self.pos_embed = nn.Parameter(torch.empty(1, blocks**2, block_size**2, dim))
        self.pool = pool
        self.transformer_encoder = nn.Sequential(*layers)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        batch, (blocks, size) = x.shape[0], self.pos_embed.shape[1:3]
        x = self.pool(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = window_partition(x, self.window).view(batch, blocks, size, -1) + self.pos_embed
        x = run_blocks(self.transformer_encoder, x, recompute=self.grad_checkpointing)
        return window_reverse(x, self.window, *self.grid).view(batch, *self.grid, -1)


class Nest(ImageModel):
    """Patches, levels of blocks, each level with a quarter as many as the one before, down to one; a classifier.

    Shapes: (B, in_chans, img_size, img_size) -> (B, num_classes); features (B, embed_dims[-1], H, W).

    Args:
        img_size: Side of the images, or (height, width), which are the same.
        num_levels: Levels, for each of which `embed_dims`, `num_heads` and `depths` have a number, or one for all.
        pad_type: "" or "same", TensorFlow's padding between the levels.
        weight_init: "", or "nlhb": the classifier's bias is such that all classes are equally likely.
        global_pool: "avg", "max", "avgmax", "catavgmax", or "" for none.

    Raises:
        ValueError: The image is not square, or patches and blocks do not divide it; there is not a number for each
            level; an option has an unknown value.
    """

    tap_layout: ClassVar[str] = "NHWC"
    tap_norm: ClassVar[str] = "last"
    feature_form: ClassVar[str] = "flat"
    inits: ClassVar[Inits] = {(nn.Linear, nn.Conv2d): init_trunc_normal}

    def __init__(
        self, img_size: int | tuple[int, int] = 224, in_chans: int = 3, patch_size: int = 4, num_levels: int = 3,
        embed_dims: int | Sequence[int] = (128, 256, 512), num_heads: int | Sequence[int] = (4, 8, 16),
        depths: int | Sequence[int] = (2, 2, 20), num_classes: int = 1000, mlp_ratio: float = 4.0,
        qkv_bias: bool = True, drop_rate: float = 0.0, proj_drop_rate: float = 0.0, attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.5, norm_layer: NormLayer = None, act_layer: ActLayer = None, pad_type: str = "",
        weight_init: str = "", global_pool: str = "avg",
    ) -> None:
        super().__init__()
        dims, heads, depths = (to_ntuple(num_levels)(value) for value in (embed_dims, num_heads, depths))
        if not len(dims) == len(heads) == len(depths) == num_levels:
            raise ValueError(f"embed_dims, num_heads and depths are one number or {num_levels}, one for each level")
        for option, value, known in (("pad_type", pad_type, "same"), ("weight_init", weight_init, "nlhb")):
            if value not in ("", known):
                raise ValueError(f"unknown {option} {value!r}; known: '', {known!r}")
        self.img_size, blocks = to_2tuple(img_size), 2 ** (num_levels - 1)
        side, other = self.img_size
        if side != other or side % (patch_size * blocks):
            raise ValueError(f"img_size {self.img_size} is not a square with sides that are multiples of "
                             f"{patch_size * blocks}, for {blocks} blocks of patches of {patch_size}")
        norm, act = get_norm_layer(norm_layer) or LayerNorm, get_act_layer(act_layer) or nn.GELU
        self.in_chans, self.weight_init_mode = in_chans, weight_init
        self.patch_embed = PatchEmbed(img_size, patch_size, in_chans, dims[0], output_fmt="NHWC")
        self.levels = nn.Sequential()
        for i, rates in enumerate(drop_path_rates(drop_path_rate, depths)):
            layers = [TransformerLayer(dims[i], heads[i], mlp_ratio, qkv_bias, proj_drop_rate, attn_drop_rate, rate,
                                       act, norm) for rate in rates]
            pool = ConvPool(dims[i - 1], dims[i], norm, pad_type) if i else nn.Identity()
            self.levels.append(NestLevel(pool, dims[i], blocks // 2**i, side // patch_size // blocks, layers))
        self.norm = norm(dims[-1])
        self.flow = Flow(
            stem=[Step("patch_embed")],
            stages=[Step(f"levels.{i}", dim, patch_size * 2**i) for i, dim in enumerate(dims)],
            tail=[Step("norm"), Step("early_features")])
        self.add_classifier(dims[-1], num_classes, global_pool, nn.Dropout(drop_rate))

    def early_features(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)

    def set_global_pool(self, pool_type: str) -> None:
        self.global_pool = GlobalPool2d(pool_type)  # of features as they are returned, not as the taps'
        self.head_hidden_size = self.num_features * self.global_pool.out_factor

    def no_weight_decay(self) -> set[str]:
        return {"levels.*.pos_embed"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        level = r"^levels\.(\d+)"
        blocks = [(level, None)] if coarse else [(rf"{level}\.transformer_encoder\.(\d+)", None), (level, (0,))]
        return dict(stem=r"^patch_embed", blocks=[*blocks, (r"^norm", (99999,))])

    def init_module(self, name: str, module: nn.Module) -> None:
        super().init_module(name, module)
        if name == "head" and self.weight_init_mode == "nlhb" and isinstance(module, nn.Linear):
            nn.init.constant_(module.bias, -math.log(self.num_classes))

    def fit_state_dict(self, state_dict: StateDict) -> StateDict:
        """Resample position embeddings for another image size."""
        fitted = dict(state_dict)
        for name, level in self.named_modules():
            key = f"{name}.pos_embed"
            if key in fitted and isinstance(level, NestLevel) and fitted[key].shape != level.pos_embed.shape:
                fitted[key] = resize_pos_embed(fitted[key], level.pos_embed)
        return fitted


_SMALL = dict(embed_dims=(96, 192, 384), num_heads=(3, 6, 12))
_TINY = dict(_SMALL, depths=(2, 2, 8))
_JX = dict(pad_type="same")

register_model.variants(__name__, Nest, {
    "nest_base": {}, "nest_small": _SMALL, "nest_tiny": _TINY,
    "nest_base_jx": _JX, "nest_small_jx": (_SMALL, _JX), "nest_tiny_jx": (_TINY, _JX),
})
