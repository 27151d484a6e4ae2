"""Next-ViT: convolution blocks, and at the end of stages a block that mixes attention and convolutions, for deployment.

Li et al., "Next-ViT: Next Generation Vision Transformer for Efficient Deployment in Realistic Industrial Scenarios",
2022, arXiv:2207.05501. All norms are batch norms; those in front of linear layers go into them by `reparameterize()`.

In the third stage every fifth block is one with attention; it attends to means of `sr_ratio` ** 2 tokens that follow
one another, row by row: not of squares.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ..layers.activations import ActLayer, get_act_layer
from ..layers.attention import attend
from ..layers.branches import merge_norm
from ..layers.config import use_fused_attn
from ..layers.drop import DropPath, drop_path_rates
from ..layers.helpers import Module, Sequential, extend_tuple, make_divisible
from ..layers.mlp import ConvMlp
from ..layers.norm import NormLayer, get_norm_layer
from ..layers.pool import ClassifierHead, shortcut_pool
from ..layers.stage import Stage
from ..layers.weight_init import init_trunc_normal
from ..registry import register_model
from .base import Flow, ImageModel, Inits, KeyMap, StateDict, Step
from .efficientnet_blocks import rename_in_order

if TYPE_CHECKING:
    from ._variants.nextvit import *

__all__ = ["NextViT"]


def merge_pre_bn(module: nn.Module, pre_bn_1: nn.Module, pre_bn_2: nn.Module | None = None) -> None:
    """Make the batch norms in front of a linear layer or 1x1 convolution, the second behind the first, a part of it."""
    for norm in (pre_bn_2, pre_bn_1):
        if norm is not None:
            merge_norm(module, norm, before=True)


class ConvNormAct(Sequential):
    """Convolution padded by 1, norm, activation; keys `conv`, `norm`: (B, in_chs, H, W) -> (B, out_chs, ...)."""

    def __init__(
        self, in_chs: int, out_chs: int, kernel_size: int = 3, stride: int = 1, groups: int = 1,
        norm_layer: NormLayer = nn.BatchNorm2d, act_layer: ActLayer = nn.ReLU,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_chs, out_chs, kernel_size, stride, 1, groups=groups, bias=False)
        self.norm, self.act = get_norm_layer(norm_layer)(out_chs), get_act_layer(act_layer)()


class PatchEmbed(Sequential):
    """2x2 average pool where `stride` is 2, 1x1 convolution, norm; nothing where neither stride nor width changes."""

    def __init__(self, in_chs: int, out_chs: int, stride: int = 1, norm_layer: NormLayer = nn.BatchNorm2d) -> None:
        super().__init__()
        self.pool = shortcut_pool(stride)
        changes = stride == 2 or in_chs != out_chs
        self.conv = nn.Conv2d(in_chs, out_chs, 1, bias=False) if changes else nn.Identity()
        self.norm = get_norm_layer(norm_layer)(out_chs) if changes else nn.Identity()


class ConvAttention(Sequential):
    """Multi-head convolutional attention: a 3x3 convolution, a group a head, and a 1x1: (B, C, H, W) -> same."""

    def __init__(
        self, out_chs: int, head_dim: int, norm_layer: NormLayer = nn.BatchNorm2d, act_layer: ActLayer = nn.ReLU
    ) -> None:
        super().__init__()
        self.group_conv3x3 = nn.Conv2d(out_chs, out_chs, 3, padding=1, groups=out_chs // head_dim, bias=False)
        self.norm, self.act = get_norm_layer(norm_layer)(out_chs), get_act_layer(act_layer)()
        self.projection = nn.Conv2d(out_chs, out_chs, 1, bias=False)


class NextConvBlock(Module):
    """`PatchEmbed`, convolutional attention, whose heads have to divide the channels, and an MLP, with shortcuts."""

    is_reparameterized: bool = False

    def __init__(
        self, in_chs: int, out_chs: int, stride: int = 1, drop_path: float = 0.0, drop: float = 0.0, head_dim: int = 32,
        mlp_ratio: float = 3.0, norm_layer: NormLayer = nn.BatchNorm2d, act_layer: ActLayer = nn.ReLU,
    ) -> None:
        super().__init__()
        if out_chs % head_dim:
            raise ValueError(f"{out_chs} channels cannot be divided into heads of {head_dim}")
        self.patch_embed = PatchEmbed(in_chs, out_chs, stride, norm_layer)
        self.mhca, self.attn_drop_path = ConvAttention(out_chs, head_dim, norm_layer, act_layer), DropPath(drop_path)
        self.norm = get_norm_layer(norm_layer)(out_chs)
        self.mlp = ConvMlp(out_chs, int(out_chs * mlp_ratio), act_layer=act_layer, drop=drop)
        self.mlp_drop_path = DropPath(drop_path)

    def reparameterize(self) -> NextConvBlock:
        """Merge the MLP's norm, in place. Returns the block."""
        if not self.is_reparameterized:
            merge_pre_bn(self.mlp.fc1, self.norm)
            self.norm, self.is_reparameterized = nn.Identity(), True
        return self

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        x = x + self.attn_drop_path(self.mhca(x))
        return x + self.mlp_drop_path(self.mlp(self.norm(x)))


class EfficientAttention(Module):
    """Attention to means of `sr_ratio` ** 2 tokens each, which have a norm then: (B, N, dim) -> (B, N, out_dim)."""

    def __init__(
        self, dim: int, out_dim: int | None = None, head_dim: int = 32, qkv_bias: bool = True, attn_drop: float = 0.0,
        proj_drop: float = 0.0, sr_ratio: int = 1, norm_layer: NormLayer = nn.BatchNorm1d,
    ) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.fused_attn = dim // head_dim, head_dim, use_fused_attn()
        self.q, self.k, self.v = (nn.Linear(dim, dim, bias=qkv_bias) for _ in range(3))
        self.proj = nn.Linear(dim, out_dim or dim)
        self.attn_drop, self.proj_drop = nn.Dropout(attn_drop), nn.Dropout(proj_drop)
        self.sr = nn.AvgPool1d(sr_ratio**2, sr_ratio**2) if sr_ratio > 1 else None
        self.norm = get_norm_layer(norm_layer)(dim) if sr_ratio > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        q = self._split_heads(self.q(x))
        if self.sr is not None and self.norm is not None:
            x = self.norm(self.sr(x.transpose(1, 2))).transpose(1, 2)
        k, v = self._split_heads(self.k(x)), self._split_heads(self.v(x))
        x = attend(q, k, v, self.fused_attn, self.attn_drop)
        return self.proj_drop(self.proj(x.transpose(1, 2).flatten(2)))

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.num_heads, self.head_dim)).transpose(1, 2)


class NextTransformerBlock(Module):
    """Attention in `mix_block_ratio` of the channels, convolutional attention of it in the rest, an MLP of both."""

    is_reparameterized: bool = False

    def __init__(
        self, in_chs: int, out_chs: int, drop_path: float, stride: int = 1, sr_ratio: int = 1, mlp_ratio: float = 2,
        head_dim: int = 32, mix_block_ratio: float = 0.75, attn_drop: float = 0.0, drop: float = 0.0,
        norm_layer: NormLayer = nn.BatchNorm2d, act_layer: ActLayer = nn.ReLU,
    ) -> None:
        super().__init__()
        norm = get_norm_layer(norm_layer)
        attn_chs = make_divisible(int(out_chs * mix_block_ratio), 32)
        conv_chs = out_chs - attn_chs
        self.patch_embed, self.norm1 = PatchEmbed(in_chs, attn_chs, stride), norm(attn_chs)
        self.e_mhsa = EfficientAttention(
            attn_chs, head_dim=head_dim, sr_ratio=sr_ratio, attn_drop=attn_drop, proj_drop=drop)
        self.mhsa_drop_path = DropPath(drop_path * mix_block_ratio)
        self.projection = PatchEmbed(attn_chs, conv_chs, norm_layer=norm_layer)
        self.mhca = ConvAttention(conv_chs, head_dim, norm_layer, act_layer)
        self.mhca_drop_path = DropPath(drop_path * (1 - mix_block_ratio))
        self.norm2 = norm(out_chs)
        self.mlp = ConvMlp(out_chs, int(out_chs * mlp_ratio), act_layer=act_layer, drop=drop)
        self.mlp_drop_path = DropPath(drop_path)

    def reparameterize(self) -> NextTransformerBlock:
        """Merge the norms in front of linear layers, in place; means of tokens do not mind. Returns the block."""
        if not self.is_reparameterized:
            attn = self.e_mhsa
            merge_pre_bn(attn.q, self.norm1)
            for layer in (attn.k, attn.v):
                merge_pre_bn(layer, self.norm1, attn.norm)
            attn.norm = None if attn.norm is None else nn.Identity()
            merge_pre_bn(self.mlp.fc1, self.norm2)
            self.norm1, self.norm2, self.is_reparameterized = nn.Identity(), nn.Identity(), True
        return self

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        out = self.e_mhsa(self.norm1(x).flatten(2).transpose(1, 2))
        x = x + self.mhsa_drop_path(out).transpose(1, 2).reshape(x.shape)
        out = self.projection(x)
        out = out + self.mhca_drop_path(self.mhca(out))
        x = torch.cat([x, out], dim=1)
        return x + self.mlp_drop_path(self.mlp(self.norm2(x)))


class NextStage(Stage):
    """Blocks of `block_types`, with the channels of `block_chs`; the first one has the stride."""

    def __init__(
        self, in_chs: int, block_chs: Sequence[int], block_types: Sequence[Any], stride: int = 2, sr_ratio: int = 1,
        mix_block_ratio: float = 1.0, drop: float = 0.0, attn_drop: float = 0.0,
        drop_path: float | Sequence[float] = 0.0, head_dim: int = 32, norm_layer: NormLayer = nn.BatchNorm2d,
        act_layer: ActLayer = nn.ReLU,
    ) -> None:
        super().__init__()
        rates = extend_tuple(drop_path, len(block_types))
        self.downsample, self.blocks = nn.Identity(), nn.Sequential()
        for i, (kind, out_chs, rate) in enumerate(zip(block_types, block_chs, rates)):
            attention = dict(sr_ratio=sr_ratio, mix_block_ratio=mix_block_ratio, attn_drop=attn_drop)
            self.blocks.append(kind(
                in_chs, out_chs, stride=1 if i else stride, drop_path=rate, drop=drop, head_dim=head_dim,
                norm_layer=norm_layer, act_layer=act_layer, **(attention if kind is NextTransformerBlock else {})))
            in_chs = out_chs


_CHANNELS = ((96, 96), (192, 256), (384, 512), (768, 1024))  # of a stage's blocks without attention, and with it


class NextViT(ImageModel):
    """Four stem convolutions, four stages, a norm, pooling and a linear classifier.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features have a stride of 32.

    Args:
        global_pool: "avg", "max", "avgmax", "catavgmax" or "" for none.
        stem_chs: Channels of the stem: of the first, the second, and the last two convolutions.
        depths, strides: Blocks and stride of each stage; the third has a multiple of 5 blocks.
        sr_ratios: Square root of the tokens that attention takes for one, by stage.
        attn_drop_rate, proj_drop_rate: Dropout of attention maps; behind attention and in the MLPs.
        head_dim: Channels of a head.
        mix_block_ratio: Part of the channels that attention has.
        act_layer: Activation; ReLU unless given.
    """

    head_path: ClassVar[str] = "head"
    feature_form: ClassVar[str] = "flat"
    tap_norm: ClassVar[str] = "last"
    inits: ClassVar[Inits] = {(nn.Linear, nn.Conv2d): init_trunc_normal}

    def __init__(
        self, in_chans: int = 3, num_classes: int = 1000, global_pool: str = "avg",
        stem_chs: Sequence[int] = (64, 32, 64), depths: Sequence[int] = (3, 4, 10, 3),
        strides: Sequence[int] = (1, 2, 2, 2), sr_ratios: Sequence[int] = (8, 4, 2, 1), drop_path_rate: float = 0.1,
        attn_drop_rate: float = 0.0, drop_rate: float = 0.0, proj_drop_rate: float = 0.0, head_dim: int = 32,
        mix_block_ratio: float = 0.75, norm_layer: NormLayer = "batchnorm2d", act_layer: ActLayer = None,
    ) -> None:
        super().__init__()
        self.num_classes, self.in_chans = num_classes, in_chans
        layers: dict[str, Any] = dict(norm_layer=get_norm_layer(norm_layer), act_layer=act_layer or "relu")
        chs = [in_chans, *stem_chs, stem_chs[2]]
        self.stem = nn.Sequential(*(
            ConvNormAct(chs[i], chs[i + 1], stride=2 if i in (0, 3) else 1, **layers) for i in range(4)))
        self.flow = Flow(stem=[Step(f"stem.{i}") for i in range(4)], stages=[], tail=[Step("norm")])
        self.stages = nn.Sequential()
        in_chs, reduction = stem_chs[2], 4
        rates = drop_path_rates(drop_path_rate, list(depths))
        for i, (widths, depth, stride, sr_ratio) in enumerate(zip(_CHANNELS, depths, strides, sr_ratios)):
            depth, period = (depth // 5 * 5, 5) if i == 2 else (depth, depth)
            attends = [i > 0 and j % period == period - 1 for j in range(depth)]
            self.stages.append(NextStage(
                in_chs, [widths[mixes] for mixes in attends],
                [NextTransformerBlock if mixes else NextConvBlock for mixes in attends], stride, sr_ratio,
                mix_block_ratio, proj_drop_rate, attn_drop_rate, rates[i], head_dim, **layers))
            in_chs, reduction = widths[1], reduction * stride
            self.flow.stages.append(Step(f"stages.{i}", in_chs, reduction))
        self.num_features, self.norm = in_chs, layers["norm_layer"](in_chs)
        self.head = ClassifierHead(in_chs, num_classes, global_pool, drop_rate)
        self.init_weights()


register_model.variants(__name__, NextViT, {
    "nextvit_small": {},
    "nextvit_base": dict(depths=(3, 4, 20, 3), drop_path_rate=0.2),
    "nextvit_large": dict(depths=(3, 4, 30, 3), drop_path_rate=0.2),
})


def _from_authors(state_dict: StateDict, model: nn.Module) -> StateDict:
    """The authors' layers stand in our order under other names."""
    theirs = list(dict.fromkeys(key.rpartition(".")[0] for key in state_dict))
    return rename_in_order(state_dict, model, head="proj_head.0", order=theirs.index)


NextViT.key_maps = (KeyMap("bytedance", lambda keys: "features.0.mlp.conv1.weight" in keys, _from_authors),)
