"""TinyViT: convolutions at first, then attention within windows, small enough to be taught by a large model.

Wu et al., "TinyViT: Fast Pretraining Distillation for Small Vision Transformers", 2022, arXiv:2207.10666.

The first stage is of inverted bottlenecks; in the others, blocks attend within windows, with a bias for each distance
(LeViT's), and mix neighbours by a depthwise convolution. Images can have any size: zeros fill up the last windows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from ..layers.activations import ActLayer, get_act_layer
from ..layers.attention import attend
from ..layers.branches import ConvNormPair
from ..layers.config import use_fused_attn
from ..layers.drop import DropPath, drop_path_rates
from ..layers.helpers import Module, Sequential, extend_tuple
from ..layers.norm import LayerNorm2d
from ..layers.pool import NormMlpClassifierHead
from ..layers.rel_pos import OffsetBiases, fit_offset_biases
from ..layers.stage import BlockStage, Stage, run_blocks
from ..layers.weight_init import init_trunc_normal
from ..layers.window import pad_to_multiple, window_partition, window_reverse
from ..registry import register_model
from . import repvit
from .base import Flow, ImageModel, Inits, StateDict

if TYPE_CHECKING:
    from ._variants.tiny_vit import *

__all__ = ["TinyVit"]

Layer = Callable[..., nn.Module]

torch.fx.wrap("pad_to_multiple")  # one node in a traced graph: what it does depends on the map's size


class ConvNorm(ConvNormPair):
    """A convolution and a batch norm, see `ConvNormPair`; keys `conv`, `bn`. Shapes as `nn.Conv2d`."""

    def __init__(
        self, in_chs: int, out_chs: int, ks: int = 1, stride: int = 1, pad: int = 0, dilation: int = 1,
        groups: int = 1, bn_weight_init: float = 1,
    ) -> None:
        super().__init__(in_chs, out_chs, ks, stride, pad, dilation, groups, bn_weight_init)


class PatchEmbed(repvit.RepVitStem):
    """RepViT's stem, of this module's convolutions."""

    conv_norm: ClassVar[type[ConvNormPair]] = ConvNorm


class MBConv(Module):
    """Inverted bottleneck; its last activation follows the shortcut. Shapes: (B, in_chs, H, W) -> same."""

    def __init__(self, in_chs: int, out_chs: int, expand_ratio: float, act_layer: Layer, drop_path: float) -> None:
        super().__init__()
        mid_chs = int(in_chs * expand_ratio)
        self.conv1, self.act1 = ConvNorm(in_chs, mid_chs), act_layer()
        self.conv2, self.act2 = ConvNorm(mid_chs, mid_chs, 3, 1, 1, groups=mid_chs), act_layer()
        self.conv3, self.act3 = ConvNorm(mid_chs, out_chs, bn_weight_init=0.0), act_layer()
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.conv3(self.act2(self.conv2(self.act1(self.conv1(x)))))
        return self.act3(x + self.drop_path(branch))


class PatchMerging(Sequential):
    """Half the rows and columns, and other channels. Shapes: (B, dim, H, W) -> (B, out_dim, H / 2, W / 2)."""

    def __init__(self, dim: int, out_dim: int, act_layer: Layer) -> None:
        super().__init__()
        self.conv1, self.act1 = ConvNorm(dim, out_dim), act_layer()
        self.conv2, self.act2 = ConvNorm(out_dim, out_dim, 3, 2, 1, groups=out_dim), act_layer()
        self.conv3 = ConvNorm(out_dim, out_dim)


class ConvLayer(BlockStage):
    """The first stage: `MBConv` blocks. Shapes: (B, dim, H, W) -> same."""

    def __init__(
        self, dim: int, depth: int, act_layer: Layer, drop_path: float | Sequence[float] = 0.0,
        conv_expand_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(
            MBConv(dim, dim, conv_expand_ratio, act_layer, rate) for rate in extend_tuple(drop_path, depth)))


class NormMlp(Sequential):
    """A norm and an MLP; keys `norm`, `fc1`, `fc2`. Shapes: (..., in_features) -> (..., out_features)."""

    def __init__(
        self, in_features: int, hidden_features: int | None = None, out_features: int | None = None,
        norm_layer: Layer = nn.LayerNorm, act_layer: Layer = nn.GELU, drop: float = 0.0,
    ) -> None:
        super().__init__()
        hidden_features = hidden_features or in_features
        self.norm = norm_layer(in_features)
        self.fc1, self.act, self.drop1 = nn.Linear(in_features, hidden_features), act_layer(), nn.Dropout(drop)
        self.fc2, self.drop2 = nn.Linear(hidden_features, out_features or in_features), nn.Dropout(drop)


class Attention(OffsetBiases):
    """Norm, and attention with a bias for each distance. Shapes: (B, rows * columns of `resolution`, dim) -> same."""

    def __init__(
        self, dim: int, key_dim: int, num_heads: int = 8, attn_ratio: float = 4, resolution: tuple[int, int] = (14, 14)
    ) -> None:
        super().__init__()
        self.num_heads, self.key_dim, self.val_dim = num_heads, key_dim, int(attn_ratio * key_dim)
        self.fused_attn = use_fused_attn()
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, num_heads * (self.val_dim + 2 * key_dim))
        self.proj = nn.Linear(num_heads * self.val_dim, dim)
        self.add_offset_biases(num_heads, resolution)

    def forward(self, x: Tensor) -> Tensor:
        x = self.qkv(self.norm(x)).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        q, k, v = x.split((self.key_dim, self.key_dim, self.val_dim), dim=3)
        return self.proj(attend(q, k, v, self.fused_attn, mask=self.get_bias()).transpose(1, 2).flatten(2))


class TinyVitBlock(Module):
    """Attention within windows, a depthwise convolution of the map, an MLP. Shapes: (B, H, W, dim) -> same.

    Raises ValueError for windows without rows, or heads that do not divide the channels.
    """

    def __init__(
        self, dim: int, num_heads: int, window_size: int = 7, mlp_ratio: float = 4.0, drop: float = 0.0,
        drop_path: float = 0.0, local_conv_size: int = 3, act_layer: Layer = nn.GELU,
    ) -> None:
        super().__init__()
        if window_size <= 0 or dim % num_heads:
            raise ValueError(f"window_size {window_size} is not positive" if window_size <= 0 else
                             f"{dim} channels cannot be divided among {num_heads} heads")
        self.window = (window_size, window_size)
        self.attn = Attention(dim, dim // num_heads, num_heads, attn_ratio=1, resolution=self.window)
        self.drop_path1 = DropPath(drop_path)
        self.mlp = NormMlp(dim, int(dim * mlp_ratio), act_layer=act_layer, drop=drop)
        self.drop_path2 = DropPath(drop_path)
        self.local_conv = ConvNorm(dim, dim, local_conv_size, 1, local_conv_size // 2, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        padded = pad_to_multiple(x, self.window)
        windows = self.attn(window_partition(padded, self.window).flatten(1, 2))
        attended = window_reverse(windows, self.window, padded.shape[1], padded.shape[2])[:, :height, :width]
        x = x + self.drop_path1(attended)
        x = self.local_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x + self.drop_path2(self.mlp(x))


class TinyVitStage(Stage):
    """Merging of patches, unless `downsample` is None, and blocks. Shapes: (B, dim, H, W) -> (B, out_dim, H/2, W/2)."""

    def __init__(
        self, dim: int, out_dim: int, depth: int, num_heads: int, window_size: int, mlp_ratio: float = 4.0,
        drop: float = 0.0, drop_path: float | Sequence[float] = 0.0, downsample: Layer | None = None,
        local_conv_size: int = 3, act_layer: Layer = nn.GELU,
    ) -> None:
        super().__init__()
        self.check_channels(dim, out_dim, downsample)
        self.downsample = downsample(dim=dim, out_dim=out_dim, act_layer=act_layer) if downsample else nn.Identity()
        self.blocks = nn.Sequential(*(
            TinyVitBlock(out_dim, num_heads, window_size, mlp_ratio, drop, rate, local_conv_size, act_layer)
            for rate in extend_tuple(drop_path, depth)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x).permute(0, 2, 3, 1)
        return run_blocks(self.blocks, x, recompute=self.grad_checkpointing).permute(0, 3, 1, 2)


class OffsetBiased(ImageModel):
    """What models have in common whose attention has `OffsetBiases` of windows."""

    undecayed: ClassVar[str] = r"attention_biases$"

    def fit_state_dict(self, state_dict: StateDict) -> StateDict:
        """Resample the biases of other windows, and leave out the index of biases, which we compute."""
        return fit_offset_biases(state_dict, self.state_dict())


class TinyVit(OffsetBiased):
    """A stem of stride 4, a stage of convolutions, stages of attention in windows, and a head with a norm.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); features (B, embed_dims[-1], H / 32, W / 32).

    Args:
        global_pool: "avg", "max", "avgmax", or "" for none.
        embed_dims, depths: Channels and blocks of each stage.
        num_heads, window_sizes: Heads and side of the windows, of each stage; the first has none.
        mlp_ratio, mbconv_expand_ratio: Hidden channels of the MLPs, and of the first stage's blocks, per channel.
        proj_drop_rate: Dropout in the MLPs.
        use_checkpoint: Gradient checkpointing from the beginning.
        local_conv_size: Side of the blocks' depthwise kernels.

    Raises:
        ValueError: Unknown pooling, not a number for each stage, or what `TinyVitBlock` refuses.
    """

    head_path: ClassVar[str] = "head"
    feature_form: ClassVar[str] = "flat"
    inits: ClassVar[Inits] = {nn.Linear: init_trunc_normal}

    def __init__(
        self, in_chans: int = 3, num_classes: int = 1000, global_pool: str = "avg",
        embed_dims: Sequence[int] = (96, 192, 384, 768), depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24), window_sizes: Sequence[int] = (7, 7, 14, 7), mlp_ratio: float = 4.0,
        drop_rate: float = 0.0, proj_drop_rate: float = 0.0, drop_path_rate: float = 0.1, use_checkpoint: bool = False,
        mbconv_expand_ratio: float = 4.0, local_conv_size: int = 3, act_layer: ActLayer = nn.GELU,
    ) -> None:
        super().__init__()
        if not len(embed_dims) == len(depths) == len(num_heads) == len(window_sizes):
            raise ValueError(f"embed_dims {embed_dims}, depths {depths}, num_heads {num_heads} and window_sizes "
                             f"{window_sizes} are a number for each stage")
        act = get_act_layer(act_layer)
        self.num_classes, self.in_chans, self.num_features = num_classes, in_chans, embed_dims[-1]
        self.patch_embed = PatchEmbed(in_chans, embed_dims[0], act)
        self.stages = nn.Sequential()
        for i, rates in enumerate(drop_path_rates(drop_path_rate, depths)):
            self.stages.append(TinyVitStage(
                embed_dims[i - 1], embed_dims[i], depths[i], num_heads[i], window_sizes[i], mlp_ratio, proj_drop_rate,
                rates, PatchMerging, local_conv_size, act,
            ) if i else ConvLayer(embed_dims[0], depths[0], act, rates, mbconv_expand_ratio))
        self.flow = Flow.of_stages(embed_dims, stem="patch_embed")
        self.head = NormMlpClassifierHead(self.num_features, num_classes, pool_type=global_pool, drop_rate=drop_rate,
                                          norm_layer=partial(LayerNorm2d, eps=1e-5))
        self.init_weights()
        if use_checkpoint:
            self.set_grad_checkpointing()

_21M = dict(embed_dims=(96, 192, 384, 576), num_heads=(3, 6, 12, 18))

register_model.variants(__name__, TinyVit, {
    "tiny_vit_5m_224": dict(embed_dims=(64, 128, 160, 320), num_heads=(2, 4, 5, 10), drop_path_rate=0.0),
    "tiny_vit_11m_224": dict(embed_dims=(64, 128, 256, 448), num_heads=(2, 4, 8, 14)),
    "tiny_vit_21m_224": (_21M, dict(drop_path_rate=0.2)),
    "tiny_vit_21m_384": (_21M, dict(window_sizes=(12, 12, 24, 12))),
    "tiny_vit_21m_512": (_21M, dict(window_sizes=(16, 16, 32, 16))),
})
