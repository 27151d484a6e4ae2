"""EfficientViT of Microsoft: heads of attention that follow one another, between cheap layers.

Liu et al., "EfficientViT: Memory Efficient Vision Transformer with Cascaded Group Attention", 2023, arXiv:2305.07027.

A block is a depthwise convolution, an MLP, attention within windows, a convolution and an MLP, each with a shortcut.
Every head attends with channels of its own, to which what the head before gave is added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ..layers.channel_attention import SqueezeExcite
from ..layers.drop import drop_path
from ..layers.helpers import Module, Sequential, to_2tuple
from ..layers.rel_pos import OffsetBiases
from ..layers.stage import Stage
from ..layers.weight_init import init_trunc_normal
from ..layers.window import pad_to_multiple, window_partition, window_reverse
from ..registry import register_model
from .base import Flow, Inits, Step
from .levit import NormLinear
from .tiny_vit import ConvNorm, OffsetBiased

if TYPE_CHECKING:
    from ._variants.efficientvit_msra import *

__all__ = ["EfficientVitMsra"]

torch.fx.wrap("drop_path")
torch.fx.wrap("pad_to_multiple")  # one node in a traced graph: what it does depends on the map's size


class PatchMerging(Sequential):
    """Inverted bottleneck of stride 2. Shapes: (B, dim, H, W) -> (B, out_dim, H / 2, W / 2)."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.conv1, self.act = ConvNorm(dim, 4 * dim), nn.ReLU()
        self.conv2, self.act2 = ConvNorm(4 * dim, 4 * dim, 3, 2, 1, groups=4 * dim), nn.ReLU()
        self.se, self.conv3 = SqueezeExcite(4 * dim, 0.25), ConvNorm(4 * dim, out_dim)


class ResidualDrop(nn.Module):
    """A module `m` with a shortcut, and stochastic depth at the rate `drop`."""

    def __init__(self, m: nn.Module, drop: float = 0.0) -> None:
        super().__init__()
        self.m, self.drop = m, drop

    def forward(self, x: Tensor) -> Tensor:
        return x + drop_path(self.m(x), self.drop, self.training)


class ConvMlp(Sequential):
    """Two 1x1 convolutions with norms, `h` channels between them; keys `pw1`, `pw2`. Shapes: (B, ed, H, W) -> same."""

    def __init__(self, ed: int, h: int) -> None:
        super().__init__()
        self.pw1, self.act, self.pw2 = ConvNorm(ed, h), nn.ReLU(), ConvNorm(h, ed, bn_weight_init=0)


def _mix(dim: int, bn_weight_init: float = 1.0) -> tuple[ResidualDrop, ResidualDrop]:
    """Depthwise convolution and MLP."""
    conv = ConvNorm(dim, dim, 3, 1, 1, groups=dim, bn_weight_init=bn_weight_init)
    return ResidualDrop(conv), ResidualDrop(ConvMlp(dim, 2 * dim))


class CascadedGroupAttention(OffsetBiases):
    """Attention whose heads follow one another: each reads a group of channels and what the one before it gave.

    Shapes: (B, dim, *resolution) -> same. `kernels`: sides of depthwise convolutions of each head's queries.
    """

    def __init__(
        self, dim: int, key_dim: int, num_heads: int = 8, attn_ratio: float = 4, resolution: int = 14,
        kernels: Sequence[int] = (5, 5, 5, 5),
    ) -> None:
        super().__init__()
        if len(kernels) < num_heads:
            raise ValueError(f"kernels {tuple(kernels)} are a number for each of the {num_heads} heads")
        self.key_dim, self.val_dim, self.scale = key_dim, int(attn_ratio * key_dim), key_dim**-0.5
        if num_heads > 1 and num_heads * self.val_dim != dim:
            raise ValueError(
                f"{num_heads} heads that give {self.val_dim} channels each cannot read {dim} in groups of as many")
        self.qkvs = nn.ModuleList([ConvNorm(dim // num_heads, 2 * key_dim + self.val_dim) for _ in range(num_heads)])
        self.dws = nn.ModuleList([
            ConvNorm(key_dim, key_dim, side, 1, side // 2, groups=key_dim) for side in kernels[:num_heads]])
        self.proj = nn.Sequential(nn.ReLU(), ConvNorm(self.val_dim * num_heads, dim, bn_weight_init=0))
        self.add_offset_biases(num_heads, resolution)

    def forward(self, x: Tensor) -> Tensor:
        bias, groups = self.get_bias(), x.chunk(len(self.qkvs), dim=1)
        found: list[Tensor] = []
        for i, (qkv, dws) in enumerate(zip(self.qkvs, self.dws)):
            head = groups[i] + found[-1] if found else groups[i]
            q, k, v = qkv(head).split((self.key_dim, self.key_dim, self.val_dim), dim=1)
            logits = (dws(q).flatten(2) * self.scale).transpose(1, 2) @ k.flatten(2)
            weights = (logits + bias[i]).softmax(dim=-1)
            found.append((v.flatten(2) @ weights.transpose(1, 2)).unflatten(2, self.resolution))
        return self.proj(torch.cat(found, dim=1))


class LocalWindowAttention(Module):
    """`CascadedGroupAttention` within windows, no larger than `resolution`, the map's; zeros fill up the last ones."""

    def __init__(
        self, dim: int, key_dim: int, num_heads: int = 8, attn_ratio: float = 4, resolution: int = 14,
        window_resolution: int = 7, kernels: Sequence[int] = (5, 5, 5, 5),
    ) -> None:
        super().__init__()
        if window_resolution <= 0:
            raise ValueError(f"window_resolution {window_resolution} is not positive")
        self.resolution, self.window_resolution = resolution, window_resolution
        self.attn = CascadedGroupAttention(
            dim, key_dim, num_heads, attn_ratio, min(window_resolution, resolution), kernels)

    def set_input_size(self, resolution: int) -> None:
        """Change the map's size, and with it the window's where it is the smaller one; biases are resampled."""
        self.resolution = resolution
        self.attn.set_resolution(min(self.window_resolution, resolution))

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        padded, window = pad_to_multiple(x.permute(0, 2, 3, 1), self.attn.resolution), self.attn.resolution
        windows = self.attn(window_partition(padded, window).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = window_reverse(windows, window, padded.shape[1], padded.shape[2])[:, :height, :width]
        return x.permute(0, 3, 1, 2)


class EfficientVitBlock(Sequential):
    """Convolution, MLP, attention, convolution, MLP. Shapes: (B, dim, H, W) -> same."""

    def __init__(
        self, dim: int, key_dim: int, num_heads: int = 8, attn_ratio: float = 4, resolution: int = 14,
        window_resolution: int = 7, kernels: Sequence[int] = [5, 5, 5, 5],
    ) -> None:
        super().__init__()
        self.dw0, self.ffn0 = _mix(dim, 0.0)
        self.mixer = ResidualDrop(LocalWindowAttention(
            dim, key_dim, num_heads, attn_ratio, resolution, window_resolution, kernels))
        self.dw1, self.ffn1 = _mix(dim, 0.0)


class EfficientVitStage(Stage):
    """Merging of patches between cheap layers, and blocks. Shapes: (B, in_dim, H, W) -> (B, out_dim, H / 2, W / 2).

    `downsample` is ("subsample", 2), or ("", 1) for none; `resolution` is the side of the map before it.
    """

    def __init__(
        self, in_dim: int, out_dim: int, key_dim: int, downsample: tuple[str, int] = ("", 1), num_heads: int = 8,
        attn_ratio: float = 4, resolution: int = 14, window_resolution: int = 7,
        kernels: Sequence[int] = [5, 5, 5, 5], depth: int = 1,
    ) -> None:
        super().__init__()
        self.downsample, self.stride = nn.Identity(), 1
        shrinks = downsample[0] == "subsample"
        self.check_channels(in_dim, out_dim, shrinks)
        if shrinks:
            self.downsample, self.stride = nn.Sequential(), downsample[1]
            self.downsample.add_module("res1", nn.Sequential(*_mix(in_dim)))
            self.downsample.add_module("patchmerge", PatchMerging(in_dim, out_dim))
            self.downsample.add_module("res2", nn.Sequential(*_mix(out_dim)))
        self.resolution = (resolution - 1) // self.stride + 1
        self.blocks = nn.Sequential(*(
            EfficientVitBlock(out_dim, key_dim, num_heads, attn_ratio, self.resolution, window_resolution, kernels)
            for _ in range(depth)))

    def set_input_size(self, resolution: int) -> None:
        """Change the size of the map before downsampling."""
        self.resolution = (resolution - 1) // self.stride + 1
        block: Any
        for block in self.blocks:
            block.mixer.m.set_input_size(self.resolution)


class PatchEmbedding(Sequential):
    """Four strided convolutions. Shapes: (B, in_chans, H, W) -> (B, dim, H / 16, W / 16)."""

    patch_size: ClassVar[int] = 16

    def __init__(self, in_chans: int, dim: int) -> None:
        super().__init__()
        widths = [in_chans, dim // 8, dim // 4, dim // 2, dim]
        for i in range(1, 5):
            self.add_module(f"conv{i}", ConvNorm(widths[i - 1], widths[i], 3, 2, 1))
            if i < 4:
                self.add_module(f"relu{i}", nn.ReLU())


class EfficientVitMsra(OffsetBiased):
    """A stem of stride 16, three stages, and a classifier with a norm in front.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); features (B, embed_dim[-1], H / 64, W / 64).

    Args:
        img_size: Side of the images, or (height, width); windows are no larger than the maps of its shorter side.
            Images can have other sizes.
        embed_dim, key_dim, depth, num_heads, window_size: Channels, channels of a head's keys, blocks, heads and side
            of the windows, of each stage.
        kernels: Side of the depthwise kernel of each head's queries.
        down_ops: What a stage begins with: ("subsample", 2), or ("", 1).
        global_pool: "avg", "max", "avgmax", "catavgmax", or "" for none, without a classifier.

    Raises:
        ValueError: Unknown pooling, a classifier without pooling, or not a number for each stage or head.
    """

    feature_form: ClassVar[str] = "flat"
    dropout_paths: ClassVar[tuple[str, ...]] = ("head.drop",)
    inits: ClassVar[Inits] = {nn.Linear: init_trunc_normal}

    def __init__(
        self, img_size: int | tuple[int, int] = 224, in_chans: int = 3, num_classes: int = 1000,
        embed_dim: Sequence[int] = (64, 128, 192), key_dim: Sequence[int] = (16, 16, 16),
        depth: Sequence[int] = (1, 2, 3), num_heads: Sequence[int] = (4, 4, 4), window_size: Sequence[int] = (7, 7, 7),
        kernels: Sequence[int] = (5, 5, 5, 5),
        down_ops: Sequence[tuple[str, int]] = (("", 1), ("subsample", 2), ("subsample", 2)), global_pool: str = "avg",
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if len({len(each) for each in (embed_dim, key_dim, depth, num_heads, window_size, down_ops)}) > 1:
            raise ValueError("embed_dim, key_dim, depth, num_heads, window_size and down_ops are one for each stage")
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        self.img_size = to_2tuple(img_size)
        self.patch_embed = PatchEmbedding(in_chans, embed_dim[0])
        reduction = self.patch_embed.patch_size
        resolution = min(to_2tuple(img_size)) // reduction
        self.stages = nn.Sequential()
        self.flow = Flow(stem=[Step("patch_embed")], stages=[])
        for i, (dim, key, down) in enumerate(zip(embed_dim, key_dim, down_ops)):
            stage = EfficientVitStage(
                embed_dim[max(i - 1, 0)], dim, key, down, num_heads[i], dim / (key * num_heads[i]), resolution,
                window_size[i], kernels, depth[i])
            self.stages.append(stage)
            resolution, reduction = stage.resolution, reduction * (stage.stride if i else 1)
            self.flow.stages.append(Step(f"stages.{i}", dim, reduction))
        self.num_features = embed_dim[-1]
        self.set_global_pool(global_pool)
        self.head = self.make_classifier(num_classes)
        self.init_weights()

    def set_input_size(self, img_size: int | tuple[int, int] | None = None) -> None:
        """Change the image's size, in place; biases of windows that shrink or grow with it are resampled."""
        size = to_2tuple(self.img_size if img_size is None else img_size)
        resolution, self.img_size = min(size) // self.patch_embed.patch_size, size
        stage: Any
        for stage in self.stages:
            stage.set_input_size(resolution)
            resolution = stage.resolution
        self.note_arguments(img_size=size)

    def make_classifier(self, num_classes: int) -> nn.Module:
        if num_classes > 0 and not self._at(self.pool_path).pool_type:
            raise ValueError("a classifier needs pooled features: global_pool '' goes with num_classes=0")
        return NormLinear(self.head_hidden_size, num_classes, drop=self.drop_rate) if num_classes > 0 else nn.Identity()

    def get_classifier(self, name_only: bool = False) -> Any:
        classifier = super().get_classifier(name_only)
        return classifier.linear if isinstance(classifier, NormLinear) else classifier

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.pool(x)  # dropout is the classifier's
        return x if pre_logits else self.head(x)


_7533 = dict(kernels=(7, 5, 3, 3))

register_model.variants(__name__, EfficientVitMsra, {
    "efficientvit_m0": {},
    "efficientvit_m1": (_7533, dict(embed_dim=(128, 144, 192), num_heads=(2, 3, 3))),
    "efficientvit_m2": (_7533, dict(embed_dim=(128, 192, 224), num_heads=(4, 3, 2))),
    "efficientvit_m3": dict(embed_dim=(128, 240, 320), num_heads=(4, 3, 4)),
    "efficientvit_m4": (_7533, dict(embed_dim=(128, 256, 384))),
    "efficientvit_m5": (_7533, dict(embed_dim=(192, 288, 384), depth=(1, 3, 4), num_heads=(3, 3, 4))),
})
