"""EdgeNeXt: ConvNeXt's blocks, and at the end of stages one that splits channels and attends across them.

Maaz et al., "EdgeNeXt: Efficiently Amalgamated CNN-Transformer Architecture for Mobile Vision Applications", 2022,
arXiv:2206.10589. The attention is XCiT's, of channels to channels. "rw" is timm's, with an overlapping stem.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ..layers.activations import ActLayer, get_act_layer
from ..layers.conv import create_conv2d
from ..layers.drop import DropPath, drop_path_rates
from ..layers.mlp import Mlp, ScaledBlock
from ..layers.norm import LayerNorm2d
from ..layers.pool import ClassifierHead, NormMlpClassifierHead
from ..layers.stage import Stage
from ..layers.weight_init import init_zero_bias, trunc_normal_tf_
from ..registry import register_model
from . import xcit
from .base import Flow, ImageModel, KeyMap, StateDict

if TYPE_CHECKING:
    from ._variants.edgenext import *

__all__ = ["EdgeNeXt"]

Layer = Callable[..., nn.Module]
_LayerNorm = partial(nn.LayerNorm, eps=1e-6)


class PositionalEncodingFourier(xcit.PositionalEncodingFourier):
    """Sines and cosines of rows and columns, projected: the sizes (B, H, W) -> (B, dim, H, W)."""

    def forward(self, shape: tuple[int, int, int]) -> Tensor:  # type: ignore[override]
        return super().forward(*shape)


class CrossCovarianceAttn(xcit.XCA):
    """XCiT's attention of channels to channels. Shapes: (B, N, dim) -> same."""

    def no_weight_decay(self) -> set[str]:
        return {"temperature"}


def _scale(x: Tensor, gamma: Any) -> Tensor:
    return x if gamma is None else gamma * x


class ConvBlock(ScaledBlock):
    """Depthwise convolution, norm and MLP; the shortcut is of what is convolved, where that has another shape."""

    def __init__(
        self, dim: int, dim_out: int | None = None, kernel_size: int = 7, stride: int = 1, conv_bias: bool = True,
        expand_ratio: float = 4, ls_init_value: float = 1e-6, norm_layer: Layer = _LayerNorm,
        act_layer: Layer = nn.GELU, drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        out = dim_out or dim
        self.shortcut_after_dw = stride > 1 or dim != out
        self.conv_dw = create_conv2d(dim, out, kernel_size, stride=stride, depthwise=True, bias=conv_bias)
        self.norm, self.mlp = norm_layer(out), Mlp(out, int(expand_ratio * out), act_layer=act_layer)
        self.add_scales(ls_init_value if ls_init_value > 0 else None, out, "gamma")
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        convolved = self.conv_dw(x)
        branch = _scale(self.mlp(self.norm(convolved.permute(0, 2, 3, 1))), self.gamma).permute(0, 3, 1, 2)
        return (convolved if self.shortcut_after_dw else x) + self.drop_path(branch)


class SplitTransposeBlock(ScaledBlock):
    """Groups of channels, convolved in turn (Res2Net), attention across channels, MLP: (B, dim, H, W) -> same."""

    def __init__(
        self, dim: int, num_scales: int = 1, num_heads: int = 8, expand_ratio: float = 4, use_pos_emb: bool = True,
        conv_bias: bool = True, qkv_bias: bool = True, ls_init_value: float = 1e-6, norm_layer: Layer = _LayerNorm,
        act_layer: Layer = nn.GELU, drop_path: float = 0.0, attn_drop: float = 0.0, proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        if num_scales < 2:
            raise ValueError(f"channels are split into 2 groups or more, not num_scales={num_scales}")
        self.width, self.num_scales = math.ceil(dim / num_scales), num_scales - 1
        self.convs = nn.ModuleList([
            create_conv2d(self.width, self.width, 3, depthwise=True, bias=conv_bias) for _ in range(self.num_scales)])
        self.pos_embd = PositionalEncodingFourier(dim=dim) if use_pos_emb else None
        self.norm_xca = norm_layer(dim)
        self.xca = CrossCovarianceAttn(dim, num_heads, qkv_bias, attn_drop, proj_drop)
        self.norm, self.mlp = norm_layer(dim, eps=1e-6), Mlp(dim, int(expand_ratio * dim), act_layer=act_layer)
        self.add_scales(ls_init_value if ls_init_value > 0 else None, dim, "gamma_xca", "gamma")
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        groups = x.chunk(len(self.convs) + 1, dim=1)
        mixed: list[Tensor] = []
        for i, conv in enumerate(self.convs):
            mixed.append(conv(mixed[-1] + groups[i] if mixed else groups[i]))
        tokens = torch.cat((*mixed, groups[-1]), dim=1).flatten(2).transpose(1, 2)
        if self.pos_embd is not None:
            tokens = tokens + self.pos_embd((batch, height, width)).flatten(2).transpose(1, 2)
        tokens = tokens + self.drop_path(_scale(self.xca(self.norm_xca(tokens)), self.gamma_xca))
        branch = self.drop_path(_scale(self.mlp(self.norm(tokens)), self.gamma))
        return x + branch.transpose(1, 2).reshape(batch, -1, height, width)


class EdgeNeXtStage(Stage):
    """Downsampling, unless the first block does it, `ConvBlock`s, and `num_global_blocks` of the other kind."""

    def __init__(
        self, in_chs: int, out_chs: int, stride: int = 2, depth: int = 2, num_global_blocks: int = 1,
        num_heads: int = 4, scales: int = 2, kernel_size: int = 7, expand_ratio: float = 4, use_pos_emb: bool = False,
        downsample_block: bool = False, conv_bias: bool = True, ls_init_value: float = 1.0,
        drop_path_rates: Sequence[float] | None = None, norm_layer: Layer = LayerNorm2d,
        norm_layer_cl: Layer = _LayerNorm, act_layer: Layer = nn.GELU,
    ) -> None:
        super().__init__()
        self.downsample = nn.Identity()
        if stride > 1 and not downsample_block:
            self.downsample = nn.Sequential(norm_layer(in_chs), nn.Conv2d(in_chs, out_chs, 2, stride=2, bias=conv_bias))
            in_chs = out_chs
        self.blocks = nn.Sequential()
        for i, rate in enumerate((drop_path_rates or (0.0,) * depth)[:depth]):
            common: dict[str, Any] = dict(
                conv_bias=conv_bias, expand_ratio=expand_ratio, ls_init_value=ls_init_value, drop_path=rate,
                norm_layer=norm_layer_cl, act_layer=act_layer)
            self.blocks.append(ConvBlock(
                in_chs, out_chs, kernel_size, stride if downsample_block and i == 0 else 1, **common,
            ) if i < depth - num_global_blocks else SplitTransposeBlock(
                in_chs, scales, num_heads, use_pos_emb=use_pos_emb, **common))
            in_chs = out_chs


class EdgeNeXt(ImageModel):
    """A stem of stride 4, four stages, and ConvNeXt's head.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); features (B, dims[-1], H / 32, W / 32).

    Args:
        global_pool: "avg", "max", "avgmax", or "" for none; "catavgmax" too where `head_norm_first`.
        dims, depths: Channels and blocks of each stage.
        global_block_counts: How many of a stage's blocks, the last ones, attend.
        kernel_sizes, heads, d2_scales, use_pos_emb: Side of the depthwise kernels, attention heads, groups of channels,
            and whether positions are added, of each stage.
        ls_init_value: Initial value of the branches' scales; they have none unless it is positive.
        head_init_scale: Factor on the head's initial weights.
        expand_ratio: Hidden channels of the MLPs per channel.
        downsample_block: The first block of a stage downsamples.
        stem_type: "patch" (4 x 4) or "overlap" (9 x 9).
        head_norm_first: Normalise before pooling instead of after.

    Raises:
        ValueError: Unknown stem or pooling, not a number for each stage, or one group of channels.
    """

    head_path: ClassVar[str] = "head"
    feature_form: ClassVar[str] = "flat"
    tap_norm: ClassVar[str] = "last"
    norm_path: ClassVar[str] = "norm_pre"

    def __init__(
        self, in_chans: int = 3, num_classes: int = 1000, global_pool: str = "avg",
        dims: Sequence[int] = (24, 48, 88, 168), depths: Sequence[int] = (3, 3, 9, 3),
        global_block_counts: Sequence[int] = (0, 1, 1, 1), kernel_sizes: Sequence[int] = (3, 5, 7, 9),
        heads: Sequence[int] = (8, 8, 8, 8), d2_scales: Sequence[int] = (2, 2, 3, 4),
        use_pos_emb: Sequence[bool] = (False, True, False, False), ls_init_value: float = 1e-6,
        head_init_scale: float = 1.0, expand_ratio: float = 4, downsample_block: bool = False, conv_bias: bool = True,
        stem_type: str = "patch", head_norm_first: bool = False, act_layer: ActLayer = nn.GELU,
        drop_path_rate: float = 0.0, drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if stem_type not in ("patch", "overlap"):
            raise ValueError(f"unknown stem_type {stem_type!r}; known: 'patch', 'overlap'")
        each = (dims, depths, global_block_counts, kernel_sizes, heads, d2_scales, use_pos_emb)
        if any(len(values) != 4 for values in each):
            raise ValueError("dims, depths, global_block_counts, kernel_sizes, heads, d2_scales and use_pos_emb are "
                             "one for each of the 4 stages")
        self.num_classes, self.in_chans, self.head_init_scale = num_classes, in_chans, head_init_scale
        norm, act = partial(LayerNorm2d, eps=1e-6), get_act_layer(act_layer)
        side, padding = (4, 0) if stem_type == "patch" else (9, 4)
        self.stem = nn.Sequential(nn.Conv2d(in_chans, dims[0], side, 4, padding, bias=conv_bias), norm(dims[0]))
        self.stages = nn.Sequential(*(
            EdgeNeXtStage(
                dims[max(i - 1, 0)], dims[i], 2 if i else 1, depths[i], global_block_counts[i], heads[i], d2_scales[i],
                kernel_sizes[i], expand_ratio, use_pos_emb[i], downsample_block, conv_bias, ls_init_value, rates, norm,
                _LayerNorm, act)
            for i, rates in enumerate(drop_path_rates(drop_path_rate, depths))))
        self.flow = Flow.of_stages(dims, tail=["norm_pre"])
        self.num_features = dims[-1]
        self.norm_pre = norm(dims[-1]) if head_norm_first else nn.Identity()
        self.head = ClassifierHead(dims[-1], num_classes, global_pool, drop_rate) if head_norm_first else \
            NormMlpClassifierHead(dims[-1], num_classes, None, global_pool, drop_rate, norm)
        self.init_weights()

    def init_module(self, name: str, module: nn.Module) -> None:
        super().init_module(name, module)
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            scale = self.head_init_scale if isinstance(module, nn.Linear) and name.startswith("head.") else 1.0
            trunc_normal_tf_(module.weight, std=0.02).mul_(scale)
            init_zero_bias(module)

    def fit_state_dict(self, state_dict: StateDict) -> StateDict:
        """Linear layers of other code that are 1x1 convolutions here, or the reverse."""
        own = self.state_dict()
        return {key: value.reshape(own[key].shape) if key in own and own[key].numel() == value.numel() else value
                for key, value in state_dict.items()}


register_model.variants(__name__, EdgeNeXt, {
    "edgenext_xx_small": dict(depths=(2, 2, 6, 2), heads=(4, 4, 4, 4)),
    "edgenext_x_small": dict(dims=(32, 64, 100, 192), heads=(4, 4, 4, 4)),
    "edgenext_small": dict(dims=(48, 96, 160, 304)),
    "edgenext_base": dict(dims=(80, 160, 288, 584)),
    "edgenext_small_rw": dict(dims=(48, 96, 192, 384), downsample_block=True, conv_bias=False, stem_type="overlap"),
})


EdgeNeXt.key_maps = (KeyMap.renaming(  # ConvNeXt's names
    "authors", "downsample_layers.0.0.weight", (r"^downsample_layers\.0\.", "stem."),
    (r"^downsample_layers\.(\d+)\.", r"stages.\1.downsample."), (r"^stages\.(\d+)\.(\d+)\.", r"stages.\1.blocks.\2."),
    (r"\.dwconv\.", ".conv_dw."), (r"\.pwconv(\d)\.", r".mlp.fc\1."), (r"^head\.", "head.fc."),
    (r"^norm\.", "head.norm.")),)
