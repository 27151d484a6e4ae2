"""Twins: a pyramid of attention among few keys of the whole map (PCPVT), or in turns with attention in windows (SVT).

Chu et al., "Twins: Revisiting the Design of Spatial Attention in Vision Transformers", 2021, arXiv:2104.13840; the
convolution that tells positions is of Chu et al., "Conditional Positional Encodings for Vision Transformers", 2021,
arXiv:2102.10882. Within a stage maps are channels-last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from .. import layers
from ..layers import ActLayer, HeadsAttention, Mlp, PatchEmbedWithSize, PreNormBlock, drop_path_rates
from ..layers.helpers import Module, placeable, to_2tuple
from ..layers.norm import LayerNorm, NormLayer, get_norm_layer
from ..layers.weight_init import init_fan_out, init_trunc_normal
from ..layers.window import pad_to_multiple, window_partition, window_reverse
from ..registry import register_model
from .base import Flow, ImageModel, Indices, Inits, Step

if TYPE_CHECKING:
    from ._variants.twins import *

__all__ = ["Twins"]

torch.fx.wrap("pad_to_multiple")  # one node in a traced graph: what it does depends on the map's size


class OnMap(Module):
    """A layer of maps. Shapes: (B, H, W, C) -> same; or tokens (B, N, C) of a map of `size`, (H, W) -> same."""

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        return self.on_map(x) if size is None else self.on_map(x.unflatten(1, size)).flatten(1, 2)

    def on_map(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class LocallyGroupedAttn(OnMap, HeadsAttention):
    """Self-attention within windows of `ws` x `ws`, at least 2 x 2; zeros fill up the last ones."""

    def __init__(
        self, dim: int, num_heads: int = 8, attn_drop: float = 0.0, proj_drop: float = 0.0, ws: int = 1
    ) -> None:
        if ws == 1:
            raise ValueError("windows have sides of 2 or more, not ws=1")
        super().__init__(dim, num_heads, True, attn_drop, proj_drop)
        self.window = (ws, ws)

    def on_map(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        x = pad_to_multiple(x, self.window)
        rows, columns = x.shape[1:3]
        x = self.mix(*self.project(window_partition(x, self.window).flatten(1, 2))).transpose(1, 2).flatten(2)
        return self.proj_drop(self.proj(window_reverse(x, self.window, rows, columns)[:, :height, :width]))


class GlobalSubSampleAttn(OnMap, HeadsAttention):
    """Attention to a map that a convolution makes `sr_ratio` times smaller."""

    inputs: ClassVar[Mapping[str, int]] = {"q": 1, "kv": 2}
    q: Any
    kv: Any

    def __init__(
        self, dim: int, num_heads: int = 8, attn_drop: float = 0.0, proj_drop: float = 0.0, sr_ratio: int = 1,
        qkv_bias: bool = True,
    ) -> None:
        super().__init__(dim, num_heads, qkv_bias, attn_drop, proj_drop)
        self.sr = nn.Conv2d(dim, dim, sr_ratio, stride=sr_ratio) if sr_ratio > 1 else nn.Identity()
        self.norm = nn.LayerNorm(dim) if sr_ratio > 1 else nn.Identity()

    def on_map(self, x: Tensor) -> Tensor:
        q, kv = self.q(x).flatten(1, 2), self.kv(self.reduce(x)).flatten(1, 2)
        mixed = self.mix(*self.split_heads(q), *self.split_heads(kv, 2)).transpose(1, 2).flatten(2)
        return self.proj_drop(self.proj(mixed)).view_as(x)

    def reduce(self, x: Tensor) -> Tensor:
        """The map that is attended to, of one (B, H, W, C)."""
        return self.norm(self.sr(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class Block(OnMap, PreNormBlock):
    """Attention in windows of side `ws`, which must be given (1: to all, made `sr_ratio` times smaller); an MLP."""

    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float = 4.0, proj_drop: float = 0.0, attn_drop: float = 0.0,
        drop_path: float = 0.0, act_layer: ActLayer = nn.GELU, norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
        sr_ratio: int = 1, ws: int | None = None,
    ) -> None:
        if ws is None:
            raise ValueError("a block of Twins needs ws: the side of its windows, or 1 for none")
        attn = GlobalSubSampleAttn(dim, num_heads, attn_drop, proj_drop, sr_ratio) if ws == 1 else \
            LocallyGroupedAttn(dim, num_heads, attn_drop, proj_drop, ws)
        super().__init__(
            dim, attn, Mlp(dim, int(dim * mlp_ratio), act_layer=act_layer, drop=proj_drop), norm_layer, drop_path)

    on_map = PreNormBlock.forward


class PosConv(OnMap):
    """Depthwise 3x3 convolution, added unless it has a stride; zeros at the border tell where tokens are.

    Shapes: (B, H, W, in_chans) -> (B, H / stride, W / stride, embed_dim), or tokens as any `OnMap`.
    """

    def __init__(self, in_chans: int, embed_dim: int = 768, stride: int = 1) -> None:
        super().__init__()
        self.proj = nn.Sequential(nn.Conv2d(in_chans, embed_dim, 3, stride, padding=1, groups=embed_dim))
        self.stride = stride

    def on_map(self, x: Tensor) -> Tensor:
        encoding = self.proj(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x + encoding if self.stride == 1 else encoding


class PatchEmbed(PatchEmbedWithSize):
    """Patches of images and a layer norm of them. Shapes: (B, in_chans, H, W) -> (B, N, embed_dim), (rows, columns)."""

    @placeable
    def __init__(
        self, img_size: int | Sequence[int] = 224, patch_size: int | Sequence[int] = 16, in_chans: int = 3,
        embed_dim: int = 768,
    ) -> None:
        super().__init__(img_size, patch_size, in_chans, embed_dim, nn.LayerNorm)


class Twins(ImageModel):
    """Four stages, each of a patch embedding and blocks, the first of which is followed by `PosConv`.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); features (B, N, embed_dims[-1]), taps are maps.

    Args:
        img_size: Side, or (height, width), in pixels; images may have other sizes.
        patch_size: Side of the first patches; those between stages are 2 x 2.
        global_pool: "avg", or "" for none.
        embed_dims, num_heads, mlp_ratios, depths, sr_ratios: Of each stage: channels, heads, hidden channels of the
            MLPs per channel, blocks, and how many times smaller the map of keys is.
        wss: Side of the windows that every second block, from the first, attends in; 1 or None for the whole map.

    Raises:
        ValueError: Patches do not divide the image, or heads the channels; not a number a stage; unknown pooling.
    """

    tap_layout: ClassVar[str] = "NHWC"
    tap_norm: ClassVar[str] = "last"
    default_out_indices: ClassVar[Indices] = 4
    pools: ClassVar[tuple[str, ...]] = ("avg", "")
    inits: ClassVar[Inits] = {nn.Linear: init_trunc_normal, nn.Conv2d: init_fan_out}

    def __init__(
        self, img_size: int | tuple[int, int] = 224, patch_size: int = 4, in_chans: int = 3, num_classes: int = 1000,
        global_pool: str = "avg", embed_dims: Sequence[int] = (64, 128, 256, 512),
        num_heads: Sequence[int] = (1, 2, 4, 8), mlp_ratios: Sequence[float] = (4, 4, 4, 4),
        depths: Sequence[int] = (3, 4, 6, 3), sr_ratios: Sequence[int] = (8, 4, 2, 1), wss: Sequence[int] | None = None,
        drop_rate: float = 0.0, pos_drop_rate: float = 0.0, proj_drop_rate: float = 0.0, attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0, norm_layer: NormLayer = None,
    ) -> None:
        super().__init__()
        wss, norm = wss or (1,) * len(depths), get_norm_layer(norm_layer) or LayerNorm
        by_stage = dict(embed_dims=embed_dims, num_heads=num_heads, mlp_ratios=mlp_ratios, sr_ratios=sr_ratios, wss=wss)
        for name, values in by_stage.items():
            if len(values) != len(depths):
                raise ValueError(f"{name} has {len(values)} values for the {len(depths)} stages of depths")
        self.img_size, stride = to_2tuple(img_size), patch_size * 2 ** (len(depths) - 1)
        if any(side % stride for side in self.img_size):
            raise ValueError(f"img_size {self.img_size} is not a multiple of {stride}, the stride of the last stage")
        self.in_chans = in_chans
        self.patch_embeds, self.pos_drops, self.blocks = (nn.ModuleList() for _ in range(3))
        self.pos_block = nn.ModuleList(PosConv(dim, dim) for dim in embed_dims)

        steps: list[Step] = []
        rates = drop_path_rates(drop_path_rate, depths)
        rows = zip((in_chans, *embed_dims), embed_dims, num_heads, mlp_ratios, sr_ratios, wss, rates)
        for i, (chs, dim, heads, mlp_ratio, sr_ratio, ws, drop_paths) in enumerate(rows):
            self.patch_embeds += [layers.PatchEmbed(
                None, 2 if i else patch_size, chs, dim, nn.LayerNorm, output_fmt="NHWC")]
            self.pos_drops += [nn.Dropout(pos_drop_rate)]
            self.blocks.append(nn.ModuleList(
                Block(dim, heads, mlp_ratio, proj_drop_rate, attn_drop_rate, rate, norm_layer=norm, sr_ratio=sr_ratio,
                      ws=1 if j % 2 else ws)
                for j, rate in enumerate(drop_paths)))
            blocks = [f"blocks.{i}.{j}" for j in range(len(drop_paths))]  # a tap of theirs timm calls block.i
            names = ["to_map", f"patch_embeds.{i}", f"pos_drops.{i}", blocks[0], f"pos_block.{i}", *blocks[1:]]
            steps += [*map(Step, names[:-1]), Step(names[-1], dim, patch_size * 2**i, module=f"block.{i}")]
        self.flow = Flow(stem=steps[1:3], stages=steps[3:], tail=[Step("norm"), Step("to_tokens")])
        self.norm = norm(embed_dims[-1])
        self.add_classifier(embed_dims[-1], num_classes, global_pool, nn.Dropout(drop_rate))

    def to_map(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)

    def to_tokens(self, x: Tensor) -> Tensor:
        return x.flatten(1, 2)

    early_features = to_map  # which is what timm gives

    def no_weight_decay(self) -> set[str]:
        return {"pos_block.*"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        of_stages = r"^(?:blocks|patch_embeds|pos_block)\.(\d+)"
        blocks = [(of_stages, None)] if coarse else [(r"^blocks\.(\d+)\.(\d+)", None), (of_stages, (0,))]
        return dict(stem=r"^patch_embeds\.0", blocks=[*blocks, (r"^norm", (99999,))])


_PCPVT = dict(embed_dims=(64, 128, 320, 512), num_heads=(1, 2, 5, 8), mlp_ratios=(8, 8, 4, 4))
_SVT = dict(wss=(7, 7, 7, 7))

register_model.variants(__name__, Twins, {
    "twins_pcpvt_small": (_PCPVT, dict(depths=(3, 4, 6, 3))),
    "twins_pcpvt_base": (_PCPVT, dict(depths=(3, 4, 18, 3))),
    "twins_pcpvt_large": (_PCPVT, dict(depths=(3, 8, 27, 3))),
    "twins_svt_small": (_SVT, dict(num_heads=(2, 4, 8, 16), depths=(2, 2, 10, 4))),
    "twins_svt_base": (_SVT, dict(embed_dims=(96, 192, 384, 768), num_heads=(3, 6, 12, 24), depths=(2, 2, 18, 2))),
    "twins_svt_large": (_SVT, dict(embed_dims=(128, 256, 512, 1024), num_heads=(4, 8, 16, 32), depths=(2, 2, 18, 2))),
})
