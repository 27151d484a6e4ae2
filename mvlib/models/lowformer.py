"""LowFormer: attention at a lower resolution than its stage's, between convolutions that hardware likes.

Nottebaum et al., "LowFormer: Hardware Efficient Design for Convolutional Transformer Backbones", 2024,
arXiv:2409.03460; the "e" models, some without attention or its MLPs, "Beyond MACs: Hardware Efficient Architecture
Design for Vision Backbones", 2026, arXiv:2603.26551.

A strided depthwise convolution projects the map, a transposed convolution brings what attention makes of it back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from ..layers.activations import ActLayer, get_act_layer
from ..layers.attention import attend
from ..layers.config import use_fused_attn
from ..layers.drop import DropPath, drop_path_rates
from ..layers.helpers import Module, Sequential
from ..layers.norm import GroupNorm1, NormLayer, get_norm_layer
from ..layers.pool import make_narrow_pool
from ..layers.weight_init import init_trunc_normal
from ..registry import register_model
from .base import Flow, ImageModel, Inits, KeyMap, Step

if TYPE_CHECKING:
    from ._variants.lowformer import *

__all__ = ["LowFormer"]

Layer = Callable[..., nn.Module]


class ResidualBlock(nn.Module):
    """The sum of `main`, which may be dropped, and `shortcut`; `main` alone where that is None."""

    def __init__(self, main: nn.Module, shortcut: nn.Module | None = None, drop_path: float = 0.0) -> None:
        super().__init__()
        self.main, self.shortcut, self.drop_path = main, shortcut, DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x) if self.shortcut is None else self.drop_path(self.main(x)) + self.shortcut(x)


class ConvLayer(Sequential):
    """Convolution, and norm and activation, those that are given; keys `conv`, `norm`. Shapes as `nn.Conv2d`."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, groups: int = 1,
        use_bias: bool = False, norm_layer: NormLayer = nn.BatchNorm2d, act_layer: ActLayer = nn.ReLU,
    ) -> None:
        super().__init__()
        norm, act = get_norm_layer(norm_layer), get_act_layer(act_layer)
        self.conv: Any = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=use_bias)
        self.norm = norm(out_channels) if norm is not None else nn.Identity()
        self.act = act() if act is not None else nn.Identity()


class MBConv(Sequential):
    """1x1, depthwise and 1x1 convolution, a norm behind the last alone; `expand_groups` of both 1x1 convolutions."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1,
        mid_channels: int | None = None, expand_ratio: float = 6, expand_groups: int = 1, use_bias: bool = False,
        norm_layer: NormLayer = nn.BatchNorm2d, act_layer: ActLayer = nn.ReLU6,
    ) -> None:
        super().__init__()
        mid = mid_channels or round(in_channels * expand_ratio)
        self.inverted_conv = ConvLayer(in_channels, mid, 1, 1, expand_groups, use_bias, None, act_layer)
        self.depth_conv = ConvLayer(mid, mid, kernel_size, stride, mid, use_bias, None, act_layer)
        self.point_conv = ConvLayer(mid, out_channels, 1, 1, expand_groups, False, norm_layer, None)


class FusedMBConv(Sequential):
    """`MBConv` with one convolution, of `expand_groups` groups, for its first two, and a norm behind both."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1,
        mid_channels: int | None = None, expand_ratio: float = 6, expand_groups: int = 1, use_bias: bool = False,
        norm_layer: NormLayer = nn.BatchNorm2d, act_layer: ActLayer = nn.ReLU6,
    ) -> None:
        super().__init__()
        mid = mid_channels or round(in_channels * expand_ratio)
        self.spatial_conv = ConvLayer(
            in_channels, mid, kernel_size, stride, expand_groups, use_bias, norm_layer, act_layer)
        self.point_conv = ConvLayer(mid, out_channels, 1, 1, 1, False, norm_layer, None)


class ConvAttention(Module):
    """Attention of a map that a strided depthwise convolution made smaller, and a transposed one to the map's size.

    Shapes: (B, input_dim, H, W) -> same. Heads have about 30 channels in the map's, `head_dim_mul` times as many in
    attention; with `fuse_out_proj` the transposed convolution is the projection, too, otherwise it is depthwise.
    """

    def __init__(
        self, input_dim: int, head_dim_mul: float = 0.5, att_stride: int = 4, att_kernel: int = 7,
        fuse_out_proj: bool = False,
    ) -> None:
        super().__init__()
        self.num_heads = int(max(1, (input_dim * head_dim_mul) // 30))
        self.head_dim = int((input_dim // self.num_heads) * head_dim_mul)
        self.fused_attn, dim = use_fused_attn(), self.head_dim * self.num_heads
        self.conv_proj = ConvLayer(input_dim, input_dim, att_kernel, att_stride, input_dim, act_layer=None)
        self.pwise = nn.Conv2d(input_dim, 3 * dim, 1, bias=False)
        self.o_proj = nn.Identity() if fuse_out_proj else nn.Conv2d(dim, input_dim, 1)
        kernel, padding = (3, 1) if att_stride == 1 else (2 * att_stride, att_stride // 2)
        ins, groups = (dim, 1) if fuse_out_proj else (input_dim, input_dim)
        self.upsampling: nn.Module = nn.ConvTranspose2d(ins, input_dim, kernel, att_stride, padding, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = self.pwise(self.conv_proj(x))
        rows = x.shape[-2]
        q, k, v = x.flatten(2).unflatten(1, (self.num_heads, -1)).transpose(2, 3).chunk(3, dim=3)
        x = attend(q, k, v, self.fused_attn).transpose(2, 3).flatten(1, 2).unflatten(2, (rows, -1))
        return self.upsampling(self.o_proj(x))[..., :height, :width]


class LowFormerBlock(Sequential):
    """`ConvAttention`, an MLP and a mobile convolution, those that are asked for, with shortcuts.

    Shapes: (B, in_channels, H, W) -> same. The convolution is fused where `fused_conv` and of less than 256 channels.
    """

    def __init__(
        self, in_channels: int, expand_ratio: float = 4, norm_layer: NormLayer = nn.BatchNorm2d,
        act_layer: ActLayer = nn.Hardswish, fused_conv: bool = False, expand_groups: int = 1, attn: bool = True,
        attn_mlp: bool = True, attn_mlp_ratio: int = 4, att_stride: int = 1, proj_drop: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.attn: nn.Module = nn.Identity()
        self.mlp: nn.Module = nn.Identity()
        if attn:
            attention: nn.Module = ConvAttention(
                in_channels, att_stride=att_stride, att_kernel=5 if att_stride > 1 else 3, fuse_out_proj=fused_conv)
            if attn_mlp:
                attention = nn.Sequential(GroupNorm1(in_channels), attention)
            self.attn = ResidualBlock(attention, nn.Identity(), drop_path)
        if attn_mlp:
            self.mlp = make_mlp(in_channels, attn_mlp_ratio, proj_drop, drop_path)
        conv = FusedMBConv if fused_conv and in_channels < 256 else MBConv
        self.local = ResidualBlock(conv(
            in_channels, in_channels, expand_ratio=expand_ratio, expand_groups=expand_groups, use_bias=True,
            norm_layer=norm_layer, act_layer=act_layer), nn.Identity(), drop_path)


def make_mlp(dim: int, ratio: int, drop: float, drop_path: float) -> ResidualBlock:
    """A norm and two 1x1 convolutions, with a shortcut."""
    return ResidualBlock(nn.Sequential(
        GroupNorm1(dim), nn.Conv2d(dim, dim * ratio, 1), nn.GELU(), nn.Conv2d(dim * ratio, dim, 1), nn.Dropout(drop)),
        nn.Identity(), drop_path)


class LowFormerLike(ImageModel):
    """What LowFormer and CPUBone have in common: a stem, two stages of convolutions, two of blocks with attention."""

    def add_body(
        self, stem: nn.Module, width_list: Sequence[int], depth_list: Sequence[int], drop_path_rate: float,
        stem_ratio: float, expand_ratio: float, down_ratios: Sequence[float] | None, conv: Layer, down: Layer,
        block: Layer,
    ) -> None:
        """Add stem, stages and flow.

        `conv` makes a convolution, of channels before and behind it, stride, expansion and stochastic depth, `down` the
        first of a stage with attention; `block` makes one with attention, of channels, its stride, stochastic depth.
        """
        chs, *widths = width_list
        ratios = down_ratios or [expand_ratio] * len(widths)
        if len(ratios) != len(widths):
            raise ValueError(f"downsample_expand_ratios has one for each of {len(widths)} stages, not {len(ratios)}")
        rates = drop_path_rates(drop_path_rate, list(depth_list))
        self.stem = nn.Sequential(stem, *(conv(chs, chs, 1, stem_ratio, rate) for rate in rates[0]))
        self.flow = Flow(stem=[Step("stem")], stages=[])
        self.stages, reduction = nn.Sequential(), 2
        for i, (width, drop_path, ratio) in enumerate(zip(widths, rates[1:], ratios)):
            stage = nn.Sequential()
            if i < 2:
                for j, rate in enumerate(drop_path):
                    stage.append(conv(width if j else chs, width, 1 if j else 2, expand_ratio if j else ratio, rate))
            else:
                stage.append(down(chs, width, 2, ratio, 0.0))
                stage.extend(block(width, 2 if i == 2 else 1, rate) for rate in drop_path)
            if len(stage):
                chs, reduction = width, 2 * reduction
            self.stages.append(stage)
            self.flow.stages.append(Step(f"stages.{i}", chs, reduction))
        self.num_features = chs


class LowFormer(LowFormerLike):
    """A stem of stride 2, stages of convolutions and of `LowFormerBlock`s, pooling and a head of three layers.

    Shapes: (B, in_chans, H, W) -> (B, num_classes). Without pooling the head is applied to each position.

    Args:
        width_list: Channels of stem and stages.
        depth_list: Blocks of stem and stages; a stage of convolutions without any does not downsample.
        global_pool: "avg", "max", "avgmax" or "" for none.
        head_widths: Channels of the head's convolution, and of its hidden layer.
        proj_drop_rate: Dropout at the end of MLPs.
        expand_ratio, stem_expand_ratio: Of mobile convolutions, and of the stem's.
        fused_conv: Fused mobile convolutions; the attention's projection is in its upsampling.
        attn, attn_mlp, attn_mlp_ratio: Whether blocks have attention, and MLPs, and their hidden width.
        downsample_expand_ratios: Of each stage's first; as `expand_ratio` unless given.
        expand_groups: Groups of the mobile convolutions' expansion.

    Raises:
        ValueError: The pooling is unknown or changes the width, or there is not a ratio for each stage.
    """

    classifier_path: ClassVar[str] = "classifier"
    feature_form: ClassVar[str] = "flat"
    hidden_paths: ClassVar[tuple[str, ...]] = ("in_conv", "pre_classifier")
    inits: ClassVar[Inits] = {nn.Linear: init_trunc_normal}

    def __init__(
        self, width_list: Sequence[int], depth_list: Sequence[int], in_chans: int = 3, num_classes: int = 1000,
        global_pool: str = "avg", head_widths: Sequence[int] = (1536, 1600), drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0, drop_path_rate: float = 0.0, expand_ratio: float = 4,
        norm_layer: NormLayer = "batchnorm2d", act_layer: ActLayer = "hard_swish", fused_conv: bool = True,
        attn: bool = True, attn_mlp: bool = True, attn_mlp_ratio: int = 4, stem_expand_ratio: float = 2,
        downsample_expand_ratios: Sequence[float] | None = None, expand_groups: int = 1,
    ) -> None:
        super().__init__()
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        layers: dict[str, Any] = dict(norm_layer=norm_layer, act_layer=act_layer)

        def conv(in_chs: int, out_chs: int, stride: int, ratio: float, drop_path: float) -> ResidualBlock:
            block = (FusedMBConv if fused_conv else MBConv)(
                in_chs, out_chs, stride=stride, expand_ratio=ratio, expand_groups=expand_groups, **layers)
            return ResidualBlock(block, nn.Identity() if stride == 1 else None, drop_path)

        def make_block(width: int, stride: int, drop_path: float) -> LowFormerBlock:
            return LowFormerBlock(
                width, expand_ratio, norm_layer, act_layer, fused_conv, expand_groups, attn, attn_mlp, attn_mlp_ratio,
                stride, proj_drop_rate, drop_path)

        self.add_body(
            ConvLayer(in_chans, width_list[0], stride=2, **layers), width_list, depth_list, drop_path_rate,
            stem_expand_ratio, expand_ratio, downsample_expand_ratios, conv, conv, make_block)
        self.head_hidden_size = head_widths[1]
        self.set_global_pool(global_pool)
        self.in_conv = ConvLayer(self.num_features, head_widths[0], 1, **layers)
        self.pre_classifier = nn.Sequential(
            nn.Linear(head_widths[0], head_widths[1], bias=False), nn.LayerNorm(head_widths[1]),
            get_act_layer(act_layer)())
        self.classifier = self.make_classifier(num_classes)
        self.init_weights()

    def set_global_pool(self, pool_type: str) -> None:
        self.global_pool = make_narrow_pool(pool_type, flatten=True)

    def pool(self, x: Tensor) -> Tensor:
        x = self.global_pool(self.in_conv(x))
        return self.pre_classifier(x if self.global_pool.pool_type else x.permute(0, 2, 3, 1))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Final features -> logits, or the classifier's input where `pre_logits`; maps of them without pooling."""
        x = super().forward_head(x, pre_logits)
        return x if self.global_pool.pool_type else x.permute(0, 3, 1, 2).contiguous()


def _sizes(width: int, *depths: int) -> dict[str, Any]:
    return dict(width_list=[width * 2**i for i in range(5)], depth_list=list(depths))


_HEAD, _6 = dict(head_widths=(2304, 2560)), dict(downsample_expand_ratios=(6, 6, 6, 6))
_HUGE, _EDGE = dict(stem_expand_ratio=4), dict(attn=False, attn_mlp=False)

register_model.variants(__name__, LowFormer, {
    "lowformer_b0": _sizes(16, 0, 1, 1, 3, 4),
    "lowformer_b1": (_sizes(16, 0, 1, 1, 5, 5), _6),
    "lowformer_b15": (_sizes(20, 0, 1, 1, 6, 6), _6, _HEAD),
    "lowformer_b2": (_sizes(24, 0, 1, 1, 6, 6), _6, _HEAD),
    "lowformer_b3": (_sizes(32, 1, 2, 3, 6, 6), _6, _HUGE),
    "lowformer_e1": (_sizes(20, 0, 1, 1, 4, 4), _6, _HEAD, _EDGE),
    "lowformer_e2": (_sizes(32, 1, 2, 3, 4, 4), _6, _HUGE, _EDGE),
    "lowformer_e3": (_sizes(32, 1, 2, 3, 6, 6), _6, _HUGE, dict(attn_mlp=False)),
})


# In the authors' layout lists are "op_list", and a block is the "total" of context and convolution.
AUTHORS_NAMES = (
    (r"^backbone\.input_stem\.", "stem."), (r"^backbone\.stages\.", "stages."), (r"\.op_list\.", "."),
    (r"\.conv_proj\.0\.", ".conv_proj.conv."), (r"\.conv_proj\.1\.", ".conv_proj.norm."), (r"\.pwise\.0\.", ".pwise."))
LowFormer.key_maps = (KeyMap.renaming(
    "lowformer", "backbone.input_stem.op_list.0.conv.weight", (r"^head\.opseq\.", "head."),
    (r"^head\.op_list\.0\.", "in_conv."), (r"^head\.op_list\.2\.linear\.", "pre_classifier.0."),
    (r"^head\.op_list\.2\.norm\.", "pre_classifier.1."), (r"^head\.op_list\.3\.linear\.", "classifier."),
    *AUTHORS_NAMES, (r"\.total\.0\.0\.", ".attn."), (r"\.total\.0\.1\.", ".mlp."), (r"\.total\.0\.", ".attn."),
    (r"\.total\.1\.", ".local.")),)
