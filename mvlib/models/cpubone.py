"""CPUBone: LowFormer's blocks with fewer, grouped and smaller convolutions, for devices that run little in parallel.

Nottebaum et al., "CPUBone: Efficient Vision Backbone Design for Devices with Low Parallelization Capabilities", 2026,
arXiv:2603.26425. In stages with attention kernels are 2x2, padded above and to the left where they do not stride, and
what attention makes of the smaller map is repeated, not convolved. Rows "bfrobust" and "dwnorm" have norms behind all
convolutions of a block's last part, or behind all but its first, which makes training in bfloat16 stable.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.activations import ActLayer, get_act_layer
from ..layers.helpers import Sequential
from ..layers.norm import GroupNorm1, NormLayer, get_norm_layer
from ..layers.pool import GlobalPool2d, Head
from ..registry import register_model
from . import lowformer
from .base import KeyMap, StateDict, rename_keys
from .lowformer import ResidualBlock

if TYPE_CHECKING:
    from ._variants.cpubone import *

__all__ = ["CPUBone"]

_NORMS = {"proj": (False, False, True), "depth_proj": (False, True, True), "all": (True, True, True)}


def _check(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(f"{name} is one of {', '.join(map(repr, known))}, not {value!r}")


def get_same_padding(kernel_size: int, stride: int = 1) -> int:
    """Padding of an odd kernel; of one of 2 none where the stride is 2, else -1: above and left; else a ValueError."""
    if kernel_size == 2:
        return 0 if stride == 2 else -1
    if kernel_size % 2 == 0:
        raise ValueError(f"kernel_size is odd or 2, not {kernel_size}")
    return kernel_size // 2


class LinearLayer(Sequential):
    """Dropout, linear layer, norm and activation, those that are given; keys `linear`, `norm`."""

    def __init__(
        self, in_features: int, out_features: int, use_bias: bool = True, dropout: float = 0.0,
        norm_layer: NormLayer = None, act_layer: ActLayer = None,
    ) -> None:
        super().__init__()
        norm, act = get_norm_layer(norm_layer), get_act_layer(act_layer)
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()
        self.linear = nn.Linear(in_features, out_features, use_bias)
        self.norm = norm(out_features) if norm is not None else nn.Identity()
        self.act = act() if act is not None else nn.Identity()


class ConvLayer(lowformer.ConvLayer):
    """LowFormer's, where kernels may be 2x2 (`get_same_padding`); the key is `conv.1` for such that do not stride."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, groups: int = 1,
        use_bias: bool = False, norm_layer: NormLayer = nn.BatchNorm2d, act_layer: ActLayer = nn.ReLU,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, groups, use_bias, norm_layer, act_layer)
        padding = get_same_padding(kernel_size, stride)
        conv = self.conv
        conv.padding = (max(padding, 0),) * 2
        if padding < 0:
            self.conv = nn.Sequential(nn.ZeroPad2d((1, 0, 1, 0)), conv)


class MBConv(Sequential):
    """1x1, depthwise and 1x1 convolution, each with its own bias, norm and activation or none; else as LowFormer's."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1,
        mid_channels: int | None = None, expand_ratio: float = 6, expand_groups: int = 1,
        use_bias: Sequence[bool] = (False, False, False),
        norm_layer: Sequence[NormLayer] = (nn.BatchNorm2d, nn.BatchNorm2d, nn.BatchNorm2d),
        act_layer: Sequence[ActLayer] = (nn.ReLU6, nn.ReLU6, None),
    ) -> None:
        super().__init__()
        mid = mid_channels or round(in_channels * expand_ratio)
        first, second, third = zip(use_bias, norm_layer, act_layer)
        self.inverted_conv = ConvLayer(in_channels, mid, 1, 1, expand_groups, *first)
        self.depth_conv = ConvLayer(mid, mid, kernel_size, stride, mid, *second)
        self.point_conv = ConvLayer(mid, out_channels, 1, 1, 1, *third)


class FusedMBConv(Sequential):
    """`MBConv` with one convolution, of `expand_groups` groups, for its first two."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1,
        mid_channels: int | None = None, expand_ratio: float = 6, expand_groups: int = 1,
        use_bias: Sequence[bool] = (False, False), norm_layer: Sequence[NormLayer] = (nn.BatchNorm2d, nn.BatchNorm2d),
        act_layer: Sequence[ActLayer] = (nn.ReLU6, None),
    ) -> None:
        super().__init__()
        mid = mid_channels or round(in_channels * expand_ratio)
        first, second = zip(use_bias, norm_layer, act_layer)
        self.spatial_conv = ConvLayer(in_channels, mid, kernel_size, stride, expand_groups, *first)
        self.point_conv = ConvLayer(mid, out_channels, 1, 1, 1, *second)


@torch.fx.wrap  # it depends on the map's size
def _pad_to_multiple(x: Tensor, divisor: int) -> Tensor:
    below, right = -x.shape[-2] % divisor, -x.shape[-1] % divisor
    return F.pad(x, (0, right, 0, below)) if below or right else x


class ConvAttention(lowformer.ConvAttention):
    """LowFormer's; `small_kernels`: 2x2 ones; `upsample_mode`: "transpose" to convolve, "nearest" to repeat."""

    def __init__(
        self, input_dim: int, head_dim_mul: float = 1.0, att_stride: int = 4, att_kernel: int = 7,
        fuse_out_proj: bool = False, small_kernels: bool = False, upsample_mode: str = "transpose",
    ) -> None:
        super().__init__(input_dim, head_dim_mul, att_stride, att_kernel, fuse_out_proj)
        _check("upsample_mode", upsample_mode, ("transpose", "nearest"))
        self.divisor = att_stride if small_kernels else 1
        self.conv_proj = ConvLayer(
            input_dim, input_dim, 2 if small_kernels else att_kernel, att_stride, input_dim, act_layer=None)
        if upsample_mode == "nearest":
            repeat = nn.Upsample(scale_factor=att_stride, mode="nearest") if att_stride > 1 else nn.Identity()
            dim = self.head_dim * self.num_heads
            self.upsampling = nn.Sequential(*[nn.Conv2d(dim, input_dim, 1)] * fuse_out_proj, repeat)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        return super().forward(_pad_to_multiple(x, self.divisor))[..., :height, :width]


class CPUBoneBlock(Sequential):
    """`ConvAttention`, an MLP and a mobile convolution, with shortcuts. Shapes: (B, in_channels, H, W) -> same.

    The convolution is fused where `fused_conv` and there are less than 256 channels; otherwise `local_mbconv_norm`
    says where its norms are: "proj", "depth_proj" or "all".
    """

    def __init__(
        self, in_channels: int, expand_ratio: float = 4, norm_layer: NormLayer = nn.BatchNorm2d,
        act_layer: ActLayer = nn.Hardswish, fused_conv: bool = False, expand_groups: int = 1, att_stride: int = 1,
        mlp_ratio: int = 4, small_kernels: bool = False, attn_upsample: str = "transpose", proj_drop: float = 0.1,
        drop_path: float = 0.0, local_mbconv_norm: str = "proj",
    ) -> None:
        super().__init__()
        _check("local_mbconv_norm", local_mbconv_norm, tuple(_NORMS))
        attention = ConvAttention(
            in_channels, 0.5, att_stride, 5 if att_stride > 1 else 3, fused_conv, small_kernels, attn_upsample)
        same: dict[str, Any] = dict(
            kernel_size=2 if small_kernels else 3, expand_ratio=expand_ratio, expand_groups=expand_groups)
        if fused_conv and in_channels < 256:
            conv: nn.Module = FusedMBConv(
                in_channels, in_channels, use_bias=(True, False), norm_layer=(norm_layer,) * 2,
                act_layer=(act_layer, None), **same)
        else:
            normed = _NORMS[local_mbconv_norm]
            conv = MBConv(
                in_channels, in_channels, use_bias=[not has for has in normed], act_layer=(act_layer, act_layer, None),
                norm_layer=[norm_layer if has else None for has in normed], **same)
        self.total = nn.Sequential(
            nn.Sequential(ResidualBlock(nn.Sequential(GroupNorm1(in_channels), attention), nn.Identity(), drop_path),
                          lowformer.make_mlp(in_channels, mlp_ratio, proj_drop, drop_path)),
            ResidualBlock(conv, nn.Identity(), drop_path))


class ClsHead(Head):
    """1x1 convolution, pooling ("avg", or "" for none, else a ValueError), hidden layer, dropout, classifier.

    Shapes: (B, in_channels, H, W) -> (B, num_classes); without pooling each position has its logits.
    """

    def __init__(
        self, in_channels: int, width_list: Sequence[int], num_classes: int = 1000, global_pool: str = "avg",
        dropout: float = 0.0, norm_layer: NormLayer = nn.BatchNorm2d, act_layer: ActLayer = nn.Hardswish,
    ) -> None:
        super().__init__()
        self.in_features, self.num_features = in_channels, width_list[-1]
        self.in_conv: nn.Module = ConvLayer(in_channels, width_list[0], 1, norm_layer=norm_layer, act_layer=act_layer)
        self.set_global_pool(global_pool)
        self.pre_classifier: nn.Module = LinearLayer(
            width_list[0], width_list[1], False, norm_layer=nn.LayerNorm, act_layer=act_layer)
        self.drop = nn.Dropout(dropout)
        self.classifier = self.make_classifier(num_classes)

    def set_global_pool(self, pool_type: str) -> None:
        _check("global_pool", pool_type, ("avg", ""))
        self.global_pool = GlobalPool2d(pool_type).train(self.training)

    def make_classifier(self, num_classes: int) -> nn.Module:
        return LinearLayer(self.num_features, num_classes) if num_classes > 0 else nn.Identity()

    def set_classifier(self, classifier: nn.Module) -> None:
        self.classifier = classifier

    def cut(self, in_features: int) -> None:
        self.in_conv, self.pre_classifier = (nn.Identity().train(self.training) for _ in range(2))
        self.in_features = self.num_features = in_features

    def pool(self, x: Tensor) -> Tensor:
        x = self.global_pool(self.in_conv(x))
        return self.pre_classifier(x if self.global_pool.pool_type else x.permute(0, 2, 3, 1))

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.drop(self.pool(x))
        x = x if pre_logits else self.classifier(x)
        return x if self.global_pool.pool_type else x.permute(0, 3, 1, 2).contiguous()


class CPUBone(lowformer.LowFormerLike):
    """A stem of stride 2, stages of convolutions and of `CPUBoneBlock`s, and a head of three layers.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); arguments as `lowformer.LowFormer`'s, and:

    Args:
        global_pool: "avg", or "" for none.
        fused_downsample: Fused convolutions at the beginning of the stages with attention; `fused_conv` elsewhere.
        small_kernels: 2x2 kernels in those stages.
        attn_upsample, local_mbconv_norm: See `ConvAttention` and `CPUBoneBlock`.

    Raises:
        ValueError: An option has an unknown value, or there is not a ratio for each stage.
    """

    head_path: ClassVar[str] = "head"
    classifier_path: ClassVar[str | tuple[str, ...]] = "head.classifier"
    feature_form: ClassVar[str] = "flat"

    def __init__(
        self, width_list: Sequence[int], depth_list: Sequence[int], in_chans: int = 3, num_classes: int = 1000,
        global_pool: str = "avg", head_widths: Sequence[int] = (1536, 1600), drop_rate: float = 0.0,
        proj_drop_rate: float = 0.1, drop_path_rate: float = 0.0, expand_ratio: float = 4,
        norm_layer: NormLayer = "batchnorm2d", act_layer: ActLayer = "hard_swish", fused_conv: bool = False,
        fused_downsample: bool = False, attn_mlp_ratio: int = 2, stem_expand_ratio: float = 2,
        downsample_expand_ratios: Sequence[float] | None = None, expand_groups: int = 1, small_kernels: bool = False,
        attn_upsample: str = "transpose", local_mbconv_norm: str = "proj",
    ) -> None:
        super().__init__()
        self.num_classes, self.in_chans, self.local_mbconv_norm = num_classes, in_chans, local_mbconv_norm
        layers: dict[str, Any] = dict(norm_layer=norm_layer, act_layer=act_layer)

        def conv(
            in_chs: int, out_chs: int, stride: int, ratio: float, rate: float, fused: bool = fused_conv
        ) -> ResidualBlock:
            same: dict[str, Any] = dict(stride=stride, expand_ratio=ratio, expand_groups=expand_groups)
            norms, acts = (norm_layer,) * 2, (act_layer, None)
            block = FusedMBConv(in_chs, out_chs, norm_layer=norms, act_layer=acts, **same) if fused else MBConv(
                in_chs, out_chs, norm_layer=(None, None, norm_layer), act_layer=(act_layer, *acts), **same)
            return ResidualBlock(block, nn.Identity() if stride == 1 else None, rate)

        def make_block(width: int, stride: int, drop_path: float) -> nn.Module:
            return CPUBoneBlock(
                width, expand_ratio, norm_layer, act_layer, fused_conv, expand_groups, stride, attn_mlp_ratio,
                small_kernels, attn_upsample, proj_drop_rate, drop_path, local_mbconv_norm)

        self.add_body(
            ConvLayer(in_chans, width_list[0], stride=2, **layers), width_list, depth_list, drop_path_rate,
            stem_expand_ratio, expand_ratio, downsample_expand_ratios, conv, partial(conv, fused=fused_downsample),
            make_block)
        self.head = ClsHead(self.num_features, head_widths, num_classes, global_pool, drop_rate, **layers)
        self.init_weights()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """As the base's, a layer a stage either way."""
        return super().group_matcher(coarse=True)


def _sizes(width: int, *depths: int, **kwargs: Any) -> dict[str, Any]:
    return dict(
        width_list=[width * 2**i for i in range(5)], depth_list=list(depths), fused_conv=True, fused_downsample=True,
        attn_mlp_ratio=4, expand_groups=2, small_kernels=True, attn_upsample="nearest", **kwargs)


_ALL, _DEPTH = dict(local_mbconv_norm="all"), dict(local_mbconv_norm="depth_proj")
_HEAD, _6 = dict(head_widths=(2304, 2560)), dict(downsample_expand_ratios=(6, 6, 6, 6))

register_model.variants(__name__, CPUBone, {
    "cpubone_nano": _sizes(12, 0, 1, 1, 1, 2),
    "cpubone_t0": _sizes(12, 0, 1, 1, 2, 3),
    "cpubone_s0": _sizes(14, 0, 1, 1, 2, 3),
    "cpubone_b0_bfrobust": (_sizes(16, 0, 1, 1, 3, 4), _ALL),
    "cpubone_b1_bfrobust": (_sizes(16, 0, 1, 1, 5, 5), _6, _ALL),
    "cpubone_b1_dwnorm": (_sizes(16, 0, 1, 1, 5, 5), _6, _DEPTH),
    "cpubone_b2_bfrobust": (_sizes(20, 0, 1, 1, 6, 6, drop_path_rate=0.1), _6, _HEAD, _ALL),
    "cpubone_b2pt5_dwnorm": (_sizes(24, 0, 1, 1, 6, 6), _6, _HEAD, _DEPTH),
    "cpubone_b3": (_sizes(32, 1, 2, 3, 6, 6, stem_expand_ratio=4), _6),
})


def remap_legacy_state_dict(state_dict: StateDict) -> StateDict:
    """A state dict in the authors' layout, where lists are "op_list", with our keys."""
    return rename_keys(
        state_dict, (r"^head\.op_list\.0\.", "head.in_conv."), (r"^head\.op_list\.2\.", "head.pre_classifier."),
        (r"^head\.op_list\.3\.", "head.classifier."), *lowformer.AUTHORS_NAMES)


def _from_authors(state_dict: StateDict, model: nn.Module) -> StateDict:
    """The authors' convolutions have biases in front of norms, too: there they are a part of the norm's mean."""
    renamed = remap_legacy_state_dict(state_dict)
    if getattr(model, "local_mbconv_norm", "") == "all":
        for key in [key for key in renamed if re.search(r"\.(inverted|depth)_conv\.conv\.(1\.)?bias$", key)]:
            mean, bias = re.sub(r"\.conv\.(1\.)?bias$", ".norm.running_mean", key), renamed.pop(key)
            if mean in renamed:
                renamed[mean] = renamed[mean] - bias
    return renamed


CPUBone.key_maps = (
    KeyMap("cpubone", lambda keys: any(key.startswith("backbone.input_stem.") for key in keys), _from_authors),)
