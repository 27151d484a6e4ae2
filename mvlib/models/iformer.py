"""iFormer: convolutions, and at low resolution single-head attention whose output is gated.

Zheng, "iFormer: Integrating ConvNet and Transformer for Mobile Application", 2025, arXiv:2501.15369. Attention comes in
groups of three blocks: a depthwise convolution for positions, attention, and an MLP. The head is RepViT's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ..layers.activations import ActLayer, get_act_layer
from ..layers.attention import attend
from ..layers.branches import Fusable, merge_branches
from ..layers.config import use_fused_attn
from ..layers.drop import DropPath, drop_path_rates
from ..layers.helpers import Module, Sequential
from ..layers.stage import Stage
from ..layers.weight_init import init_trunc_normal
from ..layers.window import pad_to_multiple, window_partition, window_reverse
from ..registry import register_model
from . import repvit
from .base import Flow, ImageModel, Inits, KeyMap

if TYPE_CHECKING:
    from ._variants.iformer import *

__all__ = ["IFormer"]

torch.fx.wrap("pad_to_multiple")  # one node in a traced graph: what it does depends on the map's size


class ConvNorm(repvit.ConvNorm):
    """RepViT's, by the names of arguments that timm has here."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1, padding: int = 0,
        groups: int = 1, bn_weight_init: float = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, 1, groups, bn_weight_init)


class SHMA(Module):
    """Single-head modulation attention: what it gives is gated by the position's own channels, then projected.

    Shapes: (B, dim, H, W) -> same. Values and gates have `ratio` * `dim` channels, queries and keys a
    `head_dim_reduction_ratio`-th of `dim`; positions attend in windows of `window_size`, 0 for the map.
    """

    def __init__(self, dim: int, ratio: float = 1, head_dim_reduction_ratio: int = 2, window_size: int = 0) -> None:
        super().__init__()
        hidden, width = int(dim * ratio), dim // head_dim_reduction_ratio
        self.scale, self.fused_attn, self.window_size = width**-0.5, use_fused_attn(), window_size
        self.q, self.k, self.v_gate = (ConvNorm(dim, chs) for chs in (width, width, 2 * hidden))
        self.gate_act, self.attn_drop = nn.Sigmoid(), nn.Dropout(0.0)
        self.proj = ConvNorm(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        if not self.window_size:
            return self.mix(x)
        rows, columns = x.shape[-2:]
        side = self.window_size, self.window_size
        padded = pad_to_multiple(x.permute(0, 2, 3, 1), side)
        windows = self.mix(window_partition(padded, side).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        whole = window_reverse(windows, side, padded.shape[1], padded.shape[2])
        return whole.permute(0, 3, 1, 2)[:, :, :rows, :columns]

    def mix(self, x: Tensor) -> Tensor:
        values, gates = self.gate_act(self.v_gate(x)).chunk(2, dim=1)
        q, k, v = (each.flatten(2).transpose(1, 2).unsqueeze(1) for each in (self.q(x), self.k(x), values))
        mixed = attend(q, k, v, self.fused_attn, self.attn_drop, None, self.scale)
        return self.proj(mixed.squeeze(1).transpose(1, 2).reshape(values.shape) * gates)


class Residual(Module):
    """x + gamma * module(x); a scale (1, dim, 1, 1) only where `layer_scale_init_value` and `dim` are given."""

    def __init__(
        self, module: nn.Module, drop_path: float = 0.0, layer_scale_init_value: float = 0, dim: int | None = None
    ) -> None:
        super().__init__()
        self.module, self.layer_scale_init_value = module, layer_scale_init_value
        self.drop_path = DropPath(drop_path)
        is_scaled = layer_scale_init_value > 0 and dim is not None
        self.gamma = nn.Parameter(torch.empty(1, dim, 1, 1)) if is_scaled else None  # type: ignore[arg-type]
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.gamma is not None:
            nn.init.constant_(self.gamma, self.layer_scale_init_value)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.drop_path(self.module(x))
        return x + (branch if self.gamma is None else self.gamma * branch)


class SHMABlock(Sequential):
    """`SHMA` beside a shortcut; key `mixer`, as of the next two. Shapes: (B, dim, H, W) -> same."""

    def __init__(
        self, dim: int, ratio: float = 1, head_dim_reduction_ratio: int = 2, drop_path: float = 0.0,
        layer_scale_init_value: float = 1e-6,
    ) -> None:
        super().__init__()
        self.mixer = Residual(SHMA(dim, ratio, head_dim_reduction_ratio), drop_path, layer_scale_init_value, dim)


class FFN(Sequential):
    """Two 1x1 convolutions beside a shortcut, `ratio` times as wide between them."""

    def __init__(
        self, dim: int, ratio: int = 4, drop_path: float = 0.0, layer_scale_init_value: float = 1e-6,
        act_layer: ActLayer = nn.GELU,
    ) -> None:
        super().__init__()
        layers = nn.Sequential(ConvNorm(dim, ratio * dim), get_act_layer(act_layer)(), ConvNorm(ratio * dim, dim))
        self.mixer = Residual(layers, drop_path, layer_scale_init_value, dim)


class ConvBlock(Sequential):
    """A depthwise convolution and two of 1x1 beside a shortcut, `ratio` times as wide between them."""

    def __init__(
        self, dim: int, kernel_size: int = 7, ratio: int = 4, drop_path: float = 0.0,
        layer_scale_init_value: float = 1e-6, act_layer: ActLayer = nn.GELU,
    ) -> None:
        super().__init__()
        layers = nn.Sequential(
            ConvNorm(dim, dim, kernel_size, 1, kernel_size // 2, groups=dim), ConvNorm(dim, ratio * dim),
            get_act_layer(act_layer)(), ConvNorm(ratio * dim, dim))
        self.mixer = Residual(layers, drop_path, layer_scale_init_value, dim)


class RepCPE(Fusable, Sequential):
    """Positions, by a depthwise convolution beside a shortcut, which `reparameterize()` makes one; key `cpe`."""

    def __init__(self, dim: int, kernel_size: int = 7) -> None:
        super().__init__()
        self.cpe = Residual(ConvNorm(dim, dim, kernel_size, 1, kernel_size // 2, groups=dim))

    def reparameterize(self) -> nn.Conv2d:
        conv: Any = self.cpe.module
        return merge_branches([conv, nn.Identity()], like=conv.layer)


class StageBlock(Stage):
    """A strided convolution where the width changes; convolution blocks, attention in threes, a convolution block."""

    def __init__(
        self, in_dim: int, dim: int, depth: int, num_attn: int, hdrr: int, conv_ratio: int, ffn_ratio: int,
        attn_ratio: float, drop_path_rates: Sequence[float], layer_scale_init_value: float, act_layer: ActLayer,
    ) -> None:
        super().__init__()
        if depth < 3 * num_attn:
            raise ValueError(f"{num_attn} groups of attention have {3 * num_attn} blocks, and depth is {depth}")
        self.downsample = nn.Identity() if in_dim == dim else ConvNorm(in_dim, dim, 3, 2, 1)
        after = 1 if num_attn > 0 and depth > 3 * num_attn else 0
        before = depth - 3 * num_attn - after
        self.blocks = nn.Sequential()
        for i, rate in enumerate(drop_path_rates[:depth]):
            place = (i - before) % 3 if 0 <= i - before < 3 * num_attn else None
            self.blocks.append(
                RepCPE(dim, 3) if place == 0 else
                SHMABlock(dim, attn_ratio, hdrr, rate, layer_scale_init_value) if place == 1 else
                FFN(dim, ffn_ratio, rate, layer_scale_init_value, act_layer) if place == 2 else
                ConvBlock(dim, 7, conv_ratio, rate, layer_scale_init_value, act_layer))


class Stem(Module):
    """Two 5x5 convolutions of stride 2 and one of 1x1. Shapes: (B, in_chans, H, W) -> (B, out_chs, H / 4, W / 4)."""

    def __init__(self, in_chans: int, out_chs: int, act_layer: ActLayer = nn.GELU) -> None:
        super().__init__()
        half, act = out_chs // 2, get_act_layer(act_layer)
        self.conv1, self.act1 = ConvNorm(in_chans, half, 5, 2, 2), act()
        self.conv2, self.act2 = ConvNorm(half, 4 * half, 5, 2, 2), act()
        self.conv3 = ConvNorm(4 * half, out_chs)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(self.act2(self.conv2(self.act1(self.conv1(x)))))


class IFormer(repvit.RepVit):
    """As `RepVit`; the features have a stride of 32 with four stages.

    Args:
        global_pool: "avg", or "" for none.
        dims, depths: Channels and blocks of each stage.
        attn_groups: Groups of attention, of three blocks, in each stage.
        attn_head_dim_reduction: Channels per channel of queries and keys, by stage.
        conv_ratio, ffn_ratio, attn_ratio: Width within convolution blocks, MLPs and attention, in channels.
        layer_scale_init_value: Initial value of the branches' scale; 0 for none.
        distillation: Whether there is a second classifier.

    Raises:
        ValueError: The lists are not of one length, or an option has an unknown value.
    """

    inits: ClassVar[Inits] = {(nn.Linear, nn.Conv2d): init_trunc_normal}

    def __init__(
        self, in_chans: int = 3, num_classes: int = 1000, global_pool: str = "avg",
        dims: Sequence[int] = (32, 64, 128, 256), depths: Sequence[int] = (2, 2, 16, 6),
        attn_groups: Sequence[int] = (0, 0, 3, 2), attn_head_dim_reduction: Sequence[int] = (0, 0, 2, 4),
        conv_ratio: int = 3, ffn_ratio: int = 2, attn_ratio: float = 1, drop_rate: float = 0.0,
        drop_path_rate: float = 0.0, layer_scale_init_value: float = 0.0, act_layer: ActLayer = nn.GELU,
        distillation: bool = False,
    ) -> None:
        ImageModel.__init__(self)
        if len({len(each) for each in (dims, depths, attn_groups, attn_head_dim_reduction)}) != 1:
            raise ValueError("dims, depths, attn_groups and attn_head_dim_reduction have one value a stage")
        self.num_classes, self.in_chans = num_classes, in_chans
        self.set_global_pool(global_pool)
        self.stem: Any = Stem(in_chans, dims[0], act_layer)
        self.stages = nn.Sequential(*(
            StageBlock(
                dims[max(i - 1, 0)], dims[i], depths[i], attn_groups[i], attn_head_dim_reduction[i], conv_ratio,
                ffn_ratio, attn_ratio, rates, layer_scale_init_value, act_layer)
            for i, rates in enumerate(drop_path_rates(drop_path_rate, depths))))
        self.flow = Flow.of_stages(dims)
        self.num_features = self.head_hidden_size = dims[-1]
        self.head_drop = nn.Dropout(drop_rate)
        self.set_head(distillation)
        self.init_weights()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        matcher = super().group_matcher(coarse)
        return matcher if coarse else {**matcher, "blocks": [*matcher["blocks"], (r"^head", (99999,))]}


_WIDE = dict(conv_ratio=4, ffn_ratio=3)
_M = dict(_WIDE, dims=(48, 96, 192, 384), depths=(2, 2, 22, 6), attn_groups=(0, 0, 4, 2))
_L = dict(_WIDE, dims=(48, 96, 256, 384), depths=(2, 2, 33, 6), attn_groups=(0, 0, 8, 2))
_L2 = dict(_WIDE, dims=(64, 128, 256, 512), depths=(3, 3, 46, 9), attn_groups=(0, 0, 11, 3))
_TWO = dict(distillation=True)

register_model.variants(__name__, IFormer, {
    "iformer_t": {},
    "iformer_s": dict(_WIDE, dims=(32, 64, 176, 320), depths=(2, 2, 19, 6)),
    "iformer_m": _M,
    "iformer_l": _L,
    "iformer_l2": _L2,
    "iformer_h": dict(
        dims=(96, 192, 384, 768), depths=(5, 5, 60, 18), attn_groups=(0, 0, 15, 6),
        attn_head_dim_reduction=(0, 0, 1, 1), conv_ratio=4, ffn_ratio=4, layer_scale_init_value=1e-6),
    "iformer_m_distilled": (_M, _TWO),
    "iformer_l_distilled": (_L, _TWO),
    "iformer_l2_distilled": (_L2, _TWO),
})


IFormer.key_maps = (KeyMap.renaming(
    "authors", "downsample_layers.0.0.c.weight", (r"^classifier\.classifier_dist\.", "head.head_dist."),
    (r"^classifier\.(classifier\.)?", "head.head."), (r"^downsample_layers\.0\.0\.", "stem.conv1."),
    (r"^downsample_layers\.0\.2\.conv_exp_bn1\.", "stem.conv2."),
    (r"^downsample_layers\.0\.2\.conv_pwl_bn2\.", "stem.conv3."),
    (r"^downsample_layers\.(\d+)\.(0\.)?", r"stages.\1.downsample."),
    (r"^stages\.(\d+)\.(\d+)\.(block\.)?", r"stages.\1.blocks.\2."),
    (r"(token_)?channel_mixer", "mixer"), (r"\.m\.", ".module.")),)
