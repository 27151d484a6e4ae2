"""LowFormer: attention at a lower resolution than its stage's, between convolutions that hardware likes.

Nottebaum et al., "LowFormer: Hardware Efficient Design for Convolutional Transformer Backbones", 2024,
arXiv:2409.03460; the "e" models, some without attention or its MLPs, "Beyond MACs: Hardware Efficient Architecture
Design for Vision Backbones", 2026, arXiv:2603.26551.

A strided depthwise convolution projects the map, a transposed convolution brings what attention makes of it back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from ..layers.activations import ActLayer, get_act_layer
from ..layers.attention import attend
from ..layers.config import use_fused_attn
from ..layers.drop import DropPath, drop_path_rates
from ..layers.helpers import placeable
from ..layers.norm import GroupNorm1, NormLayer, get_norm_layer
from ..layers.pool import GlobalPool2d
from ..layers.weight_init import init_trunc_normal
from ..registry import register_model
from .base import Flow, ImageModel, Inits, KeyMap, StateDict, Step, rename_keys

if TYPE_CHECKING:
    from ._variants.lowformer import *

__all__ = ["ConvAttention", "ConvLayer", "FusedMBConv", "LowFormer", "LowFormerBlock", "MBConv", "ResidualBlock"]


class ResidualBlock(nn.Module):
    """The sum of `main`, which may be dropped, and `shortcut`; `main` alone where that is None."""

    def __init__(self, main: nn.Module, shortcut: nn.Module | None = None, drop_path: float = 0.0) -> None:
        super().__init__()
        self.main, self.shortcut = main, shortcut
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x) if self.shortcut is None else self.drop_path(self.main(x)) + self.shortcut(x)


class ConvLayer(nn.Module):
    """Convolution, norm and activation, those that are given; keys `conv`, `norm`.

    Shapes: (B, in_channels, H, W) -> (B, out_channels, H / stride, W / stride).
    """

    @placeable
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

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


class MBConv(nn.Module):
    """1x1, depthwise and 1x1 convolution; a norm behind the last alone, activations behind the others.

    Shapes: (B, in_channels, H, W) -> (B, out_channels, H / stride, W / stride). `expand_groups` of both 1x1
    convolutions; `mid_channels` channels between, or `expand_ratio` of the input's.
    """

    @placeable
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

    def forward(self, x: Tensor) -> Tensor:
        return self.point_conv(self.depth_conv(self.inverted_conv(x)))


class FusedMBConv(nn.Module):
    """`MBConv` with one convolution, of `expand_groups` groups, for its first two, and a norm behind both."""

    @placeable
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

    def forward(self, x: Tensor) -> Tensor:
        return self.point_conv(self.spatial_conv(x))


class ConvAttention(nn.Module):
    """Attention of a map that a strided depthwise convolution made smaller, and a transposed one to the map's size.

    Shapes: (B, input_dim, H, W) -> same.

    Args:
        input_dim: Channels.
        head_dim_mul: Channels of all heads, in `input_dim`; heads have about 30 in the map's.
        att_stride, att_kernel: Of the depthwise convolution.
        fuse_out_proj: The transposed convolution is the projection, too; otherwise it is depthwise.
    """

    @placeable
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


class LowFormerBlock(nn.Module):
    """`ConvAttention`, an MLP and a mobile convolution, those that are asked for, with shortcuts.

    Shapes: (B, in_channels, H, W) -> same. `expand_ratio` and `expand_groups` are the convolution's, which is fused
    where `fused_conv` and there are less than 256 channels; `att_stride` the attention's.
    """

    @placeable
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
            hidden = in_channels * attn_mlp_ratio
            self.mlp = ResidualBlock(nn.Sequential(
                GroupNorm1(in_channels), nn.Conv2d(in_channels, hidden, 1), nn.GELU(),
                nn.Conv2d(hidden, in_channels, 1), nn.Dropout(proj_drop)), nn.Identity(), drop_path)
        conv = FusedMBConv if fused_conv and in_channels < 256 else MBConv
        self.local = ResidualBlock(conv(
            in_channels, in_channels, expand_ratio=expand_ratio, expand_groups=expand_groups, use_bias=True,
            norm_layer=norm_layer, act_layer=act_layer), nn.Identity(), drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return self.local(self.mlp(self.attn(x)))


class LowFormer(ImageModel):
    """A stem of stride 2, two stages of convolutions, two of `LowFormerBlock`s, pooling and a head of three layers.

    Shapes: (B, in_chans, H, W) -> (B, num_classes). Without pooling the head is applied to each position.

    Args:
        width_list: Channels of stem and stages.
        depth_list: Blocks of stem and stages; a stage of convolutions without any does not downsample.
        global_pool: "avg", "max", "avgmax" or "" for none.
        head_widths: Channels of the head's convolution, and of its hidden layer.
        proj_drop_rate: Dropout at the end of MLPs.
        expand_ratio: Of mobile convolutions.
        norm_layer, act_layer: Of all convolutions.
        fused_conv: Fused mobile convolutions; the attention's projection is in its upsampling.
        attn, attn_mlp: Whether blocks have attention, and MLPs.
        attn_mlp_ratio: Hidden width of the MLPs.
        stem_expand_ratio: Of the stem's mobile convolutions.
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
        chs, *widths = width_list
        ratios = downsample_expand_ratios or [expand_ratio] * len(widths)
        if len(ratios) != len(widths):
            raise ValueError(f"downsample_expand_ratios has one for each of {len(widths)} stages, not {len(ratios)}")

        def conv(in_chs: int, out_chs: int, stride: int, ratio: float, drop_path: float = 0.0) -> ResidualBlock:
            block = (FusedMBConv if fused_conv else MBConv)(
                in_chs, out_chs, stride=stride, expand_ratio=ratio, expand_groups=expand_groups, **layers)
            return ResidualBlock(block, nn.Identity() if stride == 1 else None, drop_path)

        rates = drop_path_rates(drop_path_rate, list(depth_list))
        self.stem = nn.Sequential(ConvLayer(in_chans, chs, stride=2, **layers))
        self.stem.extend(conv(chs, chs, 1, stem_expand_ratio, rate) for rate in rates[0])
        self.flow = Flow(stem=[Step("stem")], stages=[])
        self.stages, reduction = nn.Sequential(), 2
        for i, (width, drop_path, ratio) in enumerate(zip(widths, rates[1:], ratios)):
            stage = nn.Sequential()
            if i < 2:
                for j, rate in enumerate(drop_path):
                    stage.append(conv(width if j else chs, width, 1 if j else 2, expand_ratio if j else ratio, rate))
            else:
                stage.append(conv(chs, width, 2, ratio))
                stage.extend(LowFormerBlock(
                    width, expand_ratio, fused_conv=fused_conv, expand_groups=expand_groups, attn=attn,
                    attn_mlp=attn_mlp, attn_mlp_ratio=attn_mlp_ratio, att_stride=2 if i == 2 else 1,
                    proj_drop=proj_drop_rate, drop_path=rate, **layers) for rate in drop_path)
            if len(stage):
                chs, reduction = width, 2 * reduction
            self.stages.append(stage)
            self.flow.stages.append(Step(f"stages.{i}", chs, reduction))

        self.num_features, self.head_hidden_size = chs, head_widths[1]
        self.set_global_pool(global_pool)
        self.in_conv = ConvLayer(chs, head_widths[0], 1, **layers)
        self.pre_classifier = nn.Sequential(
            nn.Linear(head_widths[0], head_widths[1], bias=False), nn.LayerNorm(head_widths[1]),
            get_act_layer(act_layer)())
        self.classifier = self.make_classifier(num_classes)
        self.init_weights()

    def set_global_pool(self, pool_type: str) -> None:
        pool = GlobalPool2d(pool_type)
        if pool.out_factor != 1:
            raise ValueError(f"global_pool '{pool_type}' changes the width, which the layers in this head do not fit")
        self.global_pool = pool

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


# --- foreign checkpoints


def _from_authors(state_dict: StateDict, model: nn.Module) -> StateDict:
    """In the authors' layout lists are "op_list", and a block is the "total" of context and convolution."""
    return rename_keys(
        state_dict, (r"^backbone\.input_stem\.", "stem."), (r"^backbone\.stages\.", "stages."),
        (r"^head\.opseq\.", "head."), (r"^head\.op_list\.0\.", "in_conv."),
        (r"^head\.op_list\.2\.linear\.", "pre_classifier.0."), (r"^head\.op_list\.2\.norm\.", "pre_classifier.1."),
        (r"^head\.op_list\.3\.linear\.", "classifier."), (r"\.op_list\.", "."), (r"\.total\.0\.0\.", ".attn."),
        (r"\.total\.0\.1\.", ".mlp."), (r"\.total\.0\.", ".attn."), (r"\.total\.1\.", ".local."),
        (r"\.conv_proj\.0\.", ".conv_proj.conv."), (r"\.conv_proj\.1\.", ".conv_proj.norm."),
        (r"\.pwise\.0\.", ".pwise."))


LowFormer.key_maps = (
    KeyMap("lowformer", lambda keys: any(key.startswith("backbone.input_stem.") for key in keys), _from_authors),
)
