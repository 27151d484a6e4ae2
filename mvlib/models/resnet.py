"""Residual networks: a stem, four stages of blocks, a classifier.

ResNet (https://arxiv.org/abs/1512.03385), ResNeXt (https://arxiv.org/abs/1611.05431), Wide ResNet
(https://arxiv.org/abs/1605.07146), SE-Net (https://arxiv.org/abs/1709.01507), the C, D, S, T stems and shortcuts of
"Bag of Tricks" (https://arxiv.org/abs/1812.01187), ECA-Net (https://arxiv.org/abs/1910.03151), anti-aliasing
(https://arxiv.org/abs/1904.11486), ResNet-RS (https://arxiv.org/abs/2103.07579).

Letters behind the depth say what stands in place of the first 7x7 convolution and of the strided shortcut:

    none, b   one 7x7 convolution of 64 channels
    c         three 3x3 convolutions of 32, 32, 64 channels
    d         as c; shortcuts average before a 1x1 convolution
    s         three 3x3 convolutions of 64, 64, 128 channels
    t         three 3x3 convolutions of 24, 32, 64 channels; shortcuts as d
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.activations import ActLayer, get_act_layer
from ..layers.blur_pool import AaLayer, BlurPool2d, create_aa
from ..layers.channel_attention import AttnLayer, SEModule, create_attn
from ..layers.drop import DropBlock2d, DropPath, drop_path_rates
from ..layers.helpers import to_ntuple
from ..layers.norm import NormLayer, get_norm_layer
from ..layers.pool import GlobalPool2d
from ..registry import register_model
from .base import Flow, ImageModel, Step
from .pruning import prune_channels

__all__ = ["BasicBlock", "Bottleneck", "ResNet"]


# --- blocks


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut. Shapes: (B, in_chs, H, W) -> (B, planes, H / stride, W / stride).

    Args:
        in_chs: Channels of the input.
        planes: Channels inside; `expansion` times as many leave the block.
        stride: Downsampling factor.
        downsample: Module for the shortcut, where shapes differ.
        reduce_first: Divisor of the first convolution's channels.
        dilation: Dilation; `first_dilation` that of the convolution which downsamples in an undilated network.
        attn_layer: Channel attention at the end of the branch.
        aa_layer: Anti-aliased downsampling.
        drop_block: DropBlock's arguments, or None.
        drop_path: Stochastic depth.
    """

    expansion: ClassVar[int] = 1

    def __init__(
        self,
        in_chs: int,
        planes: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        cardinality: int = 1,
        base_width: int = 64,
        reduce_first: int = 1,
        dilation: int = 1,
        first_dilation: int | None = None,
        act_layer: type[nn.Module] = nn.ReLU,
        norm_layer: type[nn.Module] = nn.BatchNorm2d,
        attn_layer: AttnLayer = None,
        aa_layer: AaLayer = None,
        drop_block: Mapping[str, Any] | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if cardinality != 1 or base_width != 64:
            raise ValueError("a BasicBlock has neither groups nor another width; use Bottleneck")
        width = planes // reduce_first
        first_dilation = first_dilation or dilation
        blurs = aa_layer is not None and (stride == 2 or first_dilation != dilation)
        self.conv1 = nn.Conv2d(in_chs, width, 3, stride=1 if blurs else stride, padding=first_dilation,
                               dilation=first_dilation, bias=False)
        self.bn1 = norm_layer(width)
        self.drop_block = DropBlock2d(**drop_block) if drop_block else nn.Identity()
        self.act1 = act_layer(inplace=True)
        self.aa = create_aa(aa_layer, channels=width, stride=stride, enable=blurs)
        self.conv2 = nn.Conv2d(width, planes, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = norm_layer(planes)
        self.se = create_attn(attn_layer, planes)
        self.act2 = act_layer(inplace=True)
        self.downsample = downsample
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else None

    @property
    def last_norm(self) -> nn.Module:
        return self.bn2

    def forward(self, x: Tensor) -> Tensor:
        y = self.aa(self.act1(self.drop_block(self.bn1(self.conv1(x)))))
        y = self.bn2(self.conv2(y))
        return self.act2(_join(self, x, y))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a shortcut; the stride is the 3x3's. Arguments as `BasicBlock`.

    Args:
        cardinality: Groups of the 3x3 convolution.
        base_width: Channels of each group per 64 planes.
    """

    expansion: ClassVar[int] = 4

    def __init__(
        self,
        in_chs: int,
        planes: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        cardinality: int = 1,
        base_width: int = 64,
        reduce_first: int = 1,
        dilation: int = 1,
        first_dilation: int | None = None,
        act_layer: type[nn.Module] = nn.ReLU,
        norm_layer: type[nn.Module] = nn.BatchNorm2d,
        attn_layer: AttnLayer = None,
        aa_layer: AaLayer = None,
        drop_block: Mapping[str, Any] | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        width = planes * base_width // 64 * cardinality
        out_chs = planes * self.expansion
        first_dilation = first_dilation or dilation
        blurs = aa_layer is not None and (stride == 2 or first_dilation != dilation)
        self.conv1 = nn.Conv2d(in_chs, width // reduce_first, 1, bias=False)
        self.bn1 = norm_layer(width // reduce_first)
        self.act1 = act_layer(inplace=True)
        self.conv2 = nn.Conv2d(width // reduce_first, width, 3, stride=1 if blurs else stride, padding=first_dilation,
                               dilation=first_dilation, groups=cardinality, bias=False)
        self.bn2 = norm_layer(width)
        self.drop_block = DropBlock2d(**drop_block) if drop_block else nn.Identity()
        self.act2 = act_layer(inplace=True)
        self.aa = create_aa(aa_layer, channels=width, stride=stride, enable=blurs)
        self.conv3 = nn.Conv2d(width, out_chs, 1, bias=False)
        self.bn3 = norm_layer(out_chs)
        self.se = create_attn(attn_layer, out_chs)
        self.act3 = act_layer(inplace=True)
        self.downsample = downsample
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else None

    @property
    def last_norm(self) -> nn.Module:
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:
        y = self.act1(self.bn1(self.conv1(x)))
        y = self.aa(self.act2(self.drop_block(self.bn2(self.conv2(y)))))
        y = self.bn3(self.conv3(y))
        return self.act3(_join(self, x, y))


def _join(block: BasicBlock | Bottleneck, x: Tensor, y: Tensor) -> Tensor:
    """The end of both blocks: attention and stochastic depth on the branch, then the shortcut."""
    if block.se is not None:
        y = block.se(y)
    if block.drop_path is not None:
        y = block.drop_path(y)
    y += x if block.downsample is None else block.downsample(x)
    return y


class _AvgPool2dSame(nn.AvgPool2d):
    """Average pooling that keeps the size, padded below and to the right: a dilated network's shortcut."""

    def forward(self, x: Tensor) -> Tensor:
        right, below = (self.kernel_size - 1 - (size - 1) % self.stride for size in (x.shape[-1], x.shape[-2]))
        x = F.pad(x, (right // 2, right - right // 2, below // 2, below - below // 2))
        return F.avg_pool2d(x, self.kernel_size, self.stride, 0, self.ceil_mode, self.count_include_pad)


def _conv_shortcut(
    in_chs: int, out_chs: int, kernel_size: int, stride: int, dilation: int, first_dilation: int,
    norm_layer: type[nn.Module],
) -> nn.Module:
    kernel_size = 1 if stride == 1 and dilation == 1 else kernel_size
    first_dilation = first_dilation if kernel_size > 1 else 1
    padding = (stride - 1 + first_dilation * (kernel_size - 1)) // 2
    return nn.Sequential(
        nn.Conv2d(in_chs, out_chs, kernel_size, stride=stride, padding=padding, dilation=first_dilation, bias=False),
        norm_layer(out_chs))


def _avg_shortcut(in_chs: int, out_chs: int, stride: int, dilation: int, norm_layer: type[nn.Module]) -> nn.Module:
    pool: nn.Module = nn.Identity()
    if stride != 1 or dilation != 1:
        pool_stride = stride if dilation == 1 else 1
        pool_class = _AvgPool2dSame if pool_stride == 1 and dilation > 1 else nn.AvgPool2d
        pool = pool_class(2, pool_stride, ceil_mode=True, count_include_pad=False)
    return nn.Sequential(pool, nn.Conv2d(in_chs, out_chs, 1, bias=False), norm_layer(out_chs))


# --- the model


class ResNet(ImageModel):
    """Residual network.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features have a stride of `output_stride`.

    Args:
        block: Class of the blocks, or one for each stage.
        layers: Blocks in each stage.
        num_classes: Classes; 0 for pooled features.
        in_chans: Channels of the image.
        output_stride: 8, 16 or 32; strides beyond it become dilation.
        global_pool: "avg", "max", "avgmax", "catavgmax" or "" for none.
        cardinality: Groups of the 3x3 convolutions.
        base_width: Channels of each group per 64 planes.
        stem_width: Channels of the stem's convolutions.
        stem_type: "" for one 7x7 convolution, "deep" for three 3x3, "deep_tiered" for three that widen.
        replace_stem_pool: A strided 3x3 convolution in place of the stem's max pooling.
        block_reduce_first: Divisor of the first channels in each block.
        down_kernel_size: Kernel of the shortcuts that downsample.
        avg_down: Shortcuts average, then convolve.
        channels: Planes of each stage.
        act_layer, norm_layer, aa_layer: Activation, norm, anti-aliased downsampling.
        drop_rate: Dropout before the classifier.
        drop_path_rate: Stochastic depth of the last block; earlier ones have proportionally less.
        drop_block_rate: DropBlock in the last two stages.
        zero_init_last: Begin with blocks that are identities.
        block_args: Further arguments of the blocks, e.g. {"attn_layer": "se"}.

    Raises:
        ValueError: An option has an unknown value.
    """

    classifier_path: ClassVar[str] = "fc"

    def __init__(
        self,
        block: type[nn.Module] | Sequence[type[nn.Module]],
        layers: Sequence[int],
        num_classes: int = 1000,
        in_chans: int = 3,
        output_stride: int = 32,
        global_pool: str = "avg",
        cardinality: int = 1,
        base_width: int = 64,
        stem_width: int = 64,
        stem_type: str = "",
        replace_stem_pool: bool = False,
        block_reduce_first: int = 1,
        down_kernel_size: int = 1,
        avg_down: bool = False,
        channels: Sequence[int] = (64, 128, 256, 512),
        act_layer: ActLayer = nn.ReLU,
        norm_layer: NormLayer = nn.BatchNorm2d,
        aa_layer: AaLayer = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        drop_block_rate: float = 0.0,
        zero_init_last: bool = True,
        block_args: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride is 8, 16 or 32, not {output_stride}")
        if stem_type not in ("", "deep", "deep_tiered"):
            raise ValueError(f"unknown stem_type '{stem_type}'; known: '', 'deep', 'deep_tiered'")
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.drop_rate = drop_rate
        self.zero_init_last = zero_init_last
        act, norm = get_act_layer(act_layer), get_norm_layer(norm_layer)

        chs = self._make_stem(stem_type, stem_width, act, norm)
        self.maxpool = _stem_pool(chs, replace_stem_pool, aa_layer, act, norm)
        stem = [Step("conv1"), Step("bn1"), Step("act1", chs=chs, reduction=2), Step("maxpool")]

        blocks = to_ntuple(block, len(layers))
        rates = drop_path_rates(drop_path_rate, layers)
        stages, stride, dilation = [], 4, 1
        for index, (block_class, planes) in enumerate(zip(blocks, channels)):
            step = 1 if index == 0 else 2
            first_dilation = dilation
            if stride >= output_stride:
                dilation, step = dilation * step, 1
            stride *= step
            out_chs = planes * block_class.expansion
            shortcut = None
            if step != 1 or chs != out_chs:
                shortcut = _avg_shortcut(chs, out_chs, step, dilation, norm) if avg_down else \
                    _conv_shortcut(chs, out_chs, down_kernel_size, step, dilation, first_dilation, norm)
            shared = dict(
                cardinality=cardinality, base_width=base_width, reduce_first=block_reduce_first, dilation=dilation,
                act_layer=act, norm_layer=norm, aa_layer=aa_layer, drop_block=_drop_block(drop_block_rate, index),
                **(block_args or {}))
            modules = [block_class(chs, planes, step, shortcut, first_dilation=first_dilation,
                                   drop_path=rates[index][0], **shared)]
            modules += [block_class(out_chs, planes, first_dilation=dilation, drop_path=rate, **shared)
                        for rate in rates[index][1:]]
            name, chs = f"layer{index + 1}", out_chs
            self.add_module(name, nn.Sequential(*modules))
            stages.append(Step(name, chs=chs, reduction=stride))

        self.num_features = chs
        self.global_pool = GlobalPool2d(global_pool)
        self.head_hidden_size = chs * self.global_pool.out_factor
        self.fc = self.make_classifier(num_classes)
        self.flow = Flow(stem, stages)
        self.init_weights()

    def _make_stem(self, stem_type: str, width: int, act: type[nn.Module], norm: type[nn.Module]) -> int:
        """Register the convolutions before the pooling; returns their channels."""
        if stem_type:
            first, second = (3 * (width // 4), width) if "tiered" in stem_type else (width, width)
            chs = 2 * width
            self.conv1 = nn.Sequential(
                nn.Conv2d(self.in_chans, first, 3, stride=2, padding=1, bias=False), norm(first), act(inplace=True),
                nn.Conv2d(first, second, 3, padding=1, bias=False), norm(second), act(inplace=True),
                nn.Conv2d(second, chs, 3, padding=1, bias=False))
        else:
            chs = 64
            self.conv1 = nn.Conv2d(self.in_chans, chs, 7, stride=2, padding=3, bias=False)
        self.bn1 = norm(chs)
        self.act1 = act(inplace=True)
        return chs

    def init_weights(self, only: Any = None) -> None:
        super().init_weights(only)
        if only is None and self.zero_init_last and not self.bn1.weight.is_meta:
            for module in self.modules():
                if isinstance(module, (BasicBlock, Bottleneck)):
                    nn.init.zeros_(module.last_norm.weight)

    def init_module(self, name: str, module: nn.Module) -> None:
        super().init_module(name, module)
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _stem_pool(
    chs: int, is_conv: bool, aa_layer: AaLayer, act: type[nn.Module], norm: type[nn.Module]
) -> nn.Module:
    """What halves the resolution after the stem's convolutions."""
    if is_conv:
        conv = nn.Conv2d(chs, chs, 3, stride=2 if aa_layer is None else 1, padding=1, bias=False)
        blur = [] if aa_layer is None else [create_aa(aa_layer, channels=chs, stride=2)]
        return nn.Sequential(conv, *blur, norm(chs), act(inplace=True))
    if aa_layer is None:
        return nn.MaxPool2d(3, stride=2, padding=1)
    blur = create_aa(aa_layer, channels=chs, stride=2)
    if isinstance(blur, nn.AvgPool2d):
        return blur
    return nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), blur)


def _drop_block(rate: float, stage: int) -> dict[str, Any] | None:
    """DropBlock's arguments in a stage (ResNet with DropBlock, as AutoAugment's authors trained it)."""
    if not rate or stage < 2:
        return None
    return dict(drop_prob=rate, **(dict(block_size=5, gamma_scale=0.25) if stage == 2 else dict(block_size=3)))


# --- the architectures


def _resnet(kwargs: Mapping[str, Any], block: Any, layers: Sequence[int], *presets: Mapping[str, Any],
            **own: Any) -> ResNet:
    """A model from its blocks, presets, an architecture's own arguments and the caller's; later ones win."""
    arguments: dict[str, Any] = dict(block=block, layers=layers)
    for part in (*presets, own, kwargs):
        arguments.update(part)
    return ResNet(**arguments)


_C = dict(stem_width=32, stem_type="deep")
_D = dict(stem_width=32, stem_type="deep", avg_down=True)
_S = dict(stem_width=64, stem_type="deep")
_T = dict(stem_width=32, stem_type="deep_tiered", avg_down=True)
_SE = dict(block_args=dict(attn_layer="se"))
_ECA = dict(block_args=dict(attn_layer="eca"))
_BLUR = dict(aa_layer=BlurPool2d)
_AVG = dict(aa_layer=nn.AvgPool2d)
_RS = dict(stem_width=32, stem_type="deep", replace_stem_pool=True, avg_down=True,
           block_args=dict(attn_layer=partial(SEModule, rd_ratio=0.25)))
_32X4D = dict(cardinality=32, base_width=4)
_32X8D = dict(cardinality=32, base_width=8)
_64X4D = dict(cardinality=64, base_width=4)


@register_model
def resnet10t(**kwargs: Any) -> ResNet:
    """ResNet-10-T."""
    return _resnet(kwargs, BasicBlock, (1, 1, 1, 1), _T)


@register_model
def resnet14t(**kwargs: Any) -> ResNet:
    """ResNet-14-T."""
    return _resnet(kwargs, Bottleneck, (1, 1, 1, 1), _T)


@register_model
def resnet18(**kwargs: Any) -> ResNet:
    """ResNet-18."""
    return _resnet(kwargs, BasicBlock, (2, 2, 2, 2))


@register_model
def resnet18d(**kwargs: Any) -> ResNet:
    """ResNet-18-D."""
    return _resnet(kwargs, BasicBlock, (2, 2, 2, 2), _D)


@register_model
def resnet34(**kwargs: Any) -> ResNet:
    """ResNet-34."""
    return _resnet(kwargs, BasicBlock, (3, 4, 6, 3))


@register_model
def resnet34d(**kwargs: Any) -> ResNet:
    """ResNet-34-D."""
    return _resnet(kwargs, BasicBlock, (3, 4, 6, 3), _D)


@register_model
def resnet26(**kwargs: Any) -> ResNet:
    """ResNet-26."""
    return _resnet(kwargs, Bottleneck, (2, 2, 2, 2))


@register_model
def resnet26t(**kwargs: Any) -> ResNet:
    """ResNet-26-T."""
    return _resnet(kwargs, Bottleneck, (2, 2, 2, 2), _T)


@register_model
def resnet26d(**kwargs: Any) -> ResNet:
    """ResNet-26-D."""
    return _resnet(kwargs, Bottleneck, (2, 2, 2, 2), _D)


@register_model
def resnet50(**kwargs: Any) -> ResNet:
    """ResNet-50."""
    return _resnet(kwargs, Bottleneck, (3, 4, 6, 3))


@register_model
def resnet50c(**kwargs: Any) -> ResNet:
    """ResNet-50-C."""
    return _resnet(kwargs, Bottleneck, (3, 4, 6, 3), _C)


@register_model
def resnet50d(**kwargs: Any) -> ResNet:
    """ResNet-50-D."""
    return _resnet(kwargs, Bottleneck, (3, 4, 6, 3), _D)


@register_model
def resnet50s(**kwargs: Any) -> ResNet:
    """ResNet-50-S."""
    return _resnet(kwargs, Bottleneck, (3, 4, 6, 3), _S)


@register_model
def resnet50t(**kwargs: Any) -> ResNet:
    """ResNet-50-T."""
    return _resnet(kwargs, Bottleneck, (3, 4, 6, 3), _T)


@register_model
def resnet101(**kwargs: Any) -> ResNet:
    """ResNet-101."""
    return _resnet(kwargs, Bottleneck, (3, 4, 23, 3))


@register_model
def resnet101c(**kwargs: Any) -> ResNet:
    """ResNet-101-C."""
    return _resnet(kwargs, Bottleneck, (3, 4, 23, 3), _C)


@register_model
def resnet101d(**kwargs: Any) -> ResNet:
    """ResNet-101-D."""
    return _resnet(kwargs, Bottleneck, (3, 4, 23, 3), _D)


@register_model
def resnet101s(**kwargs: Any) -> ResNet:
    """ResNet-101-S."""
    return _resnet(kwargs, Bottleneck, (3, 4, 23, 3), _S)


@register_model
def resnet152(**kwargs: Any) -> ResNet:
    """ResNet-152."""
    return _resnet(kwargs, Bottleneck, (3, 8, 36, 3))


@register_model
def resnet152c(**kwargs: Any) -> ResNet:
    """ResNet-152-C."""
    return _resnet(kwargs, Bottleneck, (3, 8, 36, 3), _C)


@register_model
def resnet152d(**kwargs: Any) -> ResNet:
    """ResNet-152-D."""
    return _resnet(kwargs, Bottleneck, (3, 8, 36, 3), _D)


@register_model
def resnet152s(**kwargs: Any) -> ResNet:
    """ResNet-152-S."""
    return _resnet(kwargs, Bottleneck, (3, 8, 36, 3), _S)


@register_model
def resnet200(**kwargs: Any) -> ResNet:
    """ResNet-200."""
    return _resnet(kwargs, Bottleneck, (3, 24, 36, 3))


@register_model
def resnet200d(**kwargs: Any) -> ResNet:
    """ResNet-200-D."""
    return _resnet(kwargs, Bottleneck, (3, 24, 36, 3), _D)


@register_model
def wide_resnet50_2(**kwargs: Any) -> ResNet:
    """Wide ResNet-50: twice as wide inside the blocks."""
    return _resnet(kwargs, Bottleneck, (3, 4, 6, 3), base_width=128)


@register_model
def wide_resnet101_2(**kwargs: Any) -> ResNet:
    """Wide ResNet-101: twice as wide inside the blocks."""
    return _resnet(kwargs, Bottleneck, (3, 4, 23, 3), base_width=128)


@register_model
def resnet50_gn(**kwargs: Any) -> ResNet:
    """ResNet-50: group norm."""
    return _resnet(kwargs, Bottleneck, (3, 4, 6, 3), norm_layer="groupnorm")


@register_model
def resnext50_32x4d(**kwargs: Any) -> ResNet:
    """ResNeXt-50: 32 groups of 4 channels."""
    return _resnet(kwargs, Bottleneck, (3, 4, 6, 3), _32X4D)


@register_model
def resnext50d_32x4d(**kwargs: Any) -> ResNet:
    """ResNeXt-50-D: 32 groups of 4 channels."""
    return _resnet(kwargs, Bottleneck, (3, 4, 6, 3), _D, _32X4D)


@register_model
def resnext101_32x4d(**kwargs: Any) -> ResNet:
    """ResNeXt-101: 32 groups of 4 channels."""
    return _resnet(kwargs, Bottleneck, (3, 4, 23, 3), _32X4D)


@register_model
def resnext101_32x8d(**kwargs: Any) -> ResNet:
    """ResNeXt-101: 32 groups of 8 channels."""
    return _resnet(kwargs, Bottleneck, (3, 4, 23, 3), _32X8D)


@register_model
def resnext101_32x16d(**kwargs: Any) -> ResNet:
    """ResNeXt-101: 32 groups of 16 channels."""
    return _resnet(kwargs, Bottleneck, (3, 4, 23, 3), cardinality=32, base_width=16)


@register_model
def resnext101_32x32d(**kwargs: Any) -> ResNet:
    """ResNeXt-101: 32 groups of 32 channels."""
    return _resnet(kwargs, Bottleneck, (3, 4, 23, 3), cardinality=32, base_width=32)


@register_model
def resnext101_64x4d(**kwargs: Any) -> ResNet:
    """ResNeXt-101: 64 groups of 4 channels."""
    return _resnet(kwargs, Bottleneck, (3, 4, 23, 3), _64X4D)


@register_model
def ecaresnet26t(**kwargs: Any) -> ResNet:
    """ECA-ResNet-26-T."""
    return _resnet(kwargs, Bottleneck, (2, 2, 2, 2), _T, _ECA)


@register_model
def ecaresnet50d(**kwargs: Any) -> ResNet:
    """ECA-ResNet-50-D."""
    return _resnet(kwargs, Bottleneck, (3, 4, 6, 3), _D, _ECA)


@register_model
def ecaresnet50d_pruned(**kwargs: Any) -> ResNet:
    """ECA-ResNet-50-D: pruned."""
    return prune_channels(_resnet(kwargs, Bottleneck, (3, 4, 6, 3), _D, _ECA), "ecaresnet50d_pruned")


@register_model
def ecaresnet50t(**kwargs: Any) -> ResNet:
    """ECA-ResNet-50-T."""
    return _resnet(kwargs, Bottleneck, (3, 4, 6, 3), _T, _ECA)


@register_model
def ecaresnetlight(**kwargs: Any) -> ResNet:
    """ECA-ResNet: few blocks in the early stages."""
    return _resnet(kwargs, Bottleneck, (1, 1, 11, 3), _ECA, stem_width=32, avg_down=True)


@register_model
def ecaresnet101d(**kwargs: Any) -> ResNet:
    """ECA-ResNet-101-D."""
    return _resnet(kwargs, Bottleneck, (3, 4, 23, 3), _D, _ECA)


@register_model
def ecaresnet101d_pruned(**kwargs: Any) -> ResNet:
    """ECA-ResNet-101-D: pruned."""
    return prune_channels(_resnet(kwargs, Bottleneck, (3, 4, 23, 3), _D, _ECA), "ecaresnet101d_pruned")


@register_model
def ecaresnet200d(**kwargs: Any) -> ResNet:
    """ECA-ResNet-200-D."""
    return _resnet(kwargs, Bottleneck, (3, 24, 36, 3), _D, _ECA)


@register_model
def ecaresnet269d(**kwargs: Any) -> ResNet:
    """ECA-ResNet-269-D."""
    return _resnet(kwargs, Bottleneck, (3, 30, 48, 8), _D, _ECA)


@register_model
def ecaresnext26t_32x4d(**kwargs: Any) -> ResNet:
    """ECA-ResNeXt-26-T: 32 groups of 4 channels."""
    return _resnet(kwargs, Bottleneck, (2, 2, 2, 2), _T, _32X4D, _ECA)


@register_model
def ecaresnext50t_32x4d(**kwargs: Any) -> ResNet:
    """ECA-ResNeXt-50-T: 32 groups of 4 channels."""
    return _resnet(kwargs, Bottleneck, (3, 4, 6, 3), _T, _32X4D, _ECA)


@register_model
def seresnet18(**kwargs: Any) -> ResNet:
    """SE-ResNet-18."""
    return _resnet(kwargs, BasicBlock, (2, 2, 2, 2), _SE)


@register_model
def seresnet34(**kwargs: Any) -> ResNet:
    """SE-ResNet-34."""
    return _resnet(kwargs, BasicBlock, (3, 4, 6, 3), _SE)


@register_model
def seresnet50(**kwargs: Any) -> ResNet:
    """SE-ResNet-50."""
    return _resnet(kwargs, Bottleneck, (3, 4, 6, 3), _SE)


@register_model
def seresnet50t(**kwargs: Any) -> ResNet:
    """SE-ResNet-50-T."""
    return _resnet(kwargs, Bottleneck, (3, 4, 6, 3), _T, _SE)


@register_model
def seresnet101(**kwargs: Any) -> ResNet:
    """SE-ResNet-101."""
    return _resnet(kwargs, Bottleneck, (3, 4, 23, 3), _SE)


@register_model
def seresnet152(**kwargs: Any) -> ResNet:
    """SE-ResNet-152."""
    return _resnet(kwargs, Bottleneck, (3, 8, 36, 3), _SE)


@register_model
def seresnet152d(**kwargs: Any) -> ResNet:
    """SE-ResNet-152-D."""
    return _resnet(kwargs, Bottleneck, (3, 8, 36, 3), _D, _SE)


@register_model
def seresnet200d(**kwargs: Any) -> ResNet:
    """SE-ResNet-200-D."""
    return _resnet(kwargs, Bottleneck, (3, 24, 36, 3), _D, _SE)


@register_model
def seresnet269d(**kwargs: Any) -> ResNet:
    """SE-ResNet-269-D."""
    return _resnet(kwargs, Bottleneck, (3, 30, 48, 8), _D, _SE)


@register_model
def seresnext26d_32x4d(**kwargs: Any) -> ResNet:
    """SE-ResNeXt-26-D: 32 groups of 4 channels."""
    return _resnet(kwargs, Bottleneck, (2, 2, 2, 2), _D, _32X4D, _SE)


@register_model
def seresnext26t_32x4d(**kwargs: Any) -> ResNet:
    """SE-ResNeXt-26-T: 32 groups of 4 channels."""
    return _resnet(kwargs, Bottleneck, (2, 2, 2, 2), _T, _32X4D, _SE)


@register_model
def seresnext50_32x4d(**kwargs: Any) -> ResNet:
    """SE-ResNeXt-50: 32 groups of 4 channels."""
    return _resnet(kwargs, Bottleneck, (3, 4, 6, 3), _32X4D, _SE)


@register_model
def seresnext101_32x4d(**kwargs: Any) -> ResNet:
    """SE-ResNeXt-101: 32 groups of 4 channels."""
    return _resnet(kwargs, Bottleneck, (3, 4, 23, 3), _32X4D, _SE)


@register_model
def seresnext101_32x8d(**kwargs: Any) -> ResNet:
    """SE-ResNeXt-101: 32 groups of 8 channels."""
    return _resnet(kwargs, Bottleneck, (3, 4, 23, 3), _32X8D, _SE)


@register_model
def seresnext101d_32x8d(**kwargs: Any) -> ResNet:
    """SE-ResNeXt-101-D: 32 groups of 8 channels."""
    return _resnet(kwargs, Bottleneck, (3, 4, 23, 3), _D, _32X8D, _SE)


@register_model
def seresnext101_64x4d(**kwargs: Any) -> ResNet:
    """SE-ResNeXt-101: 64 groups of 4 channels."""
    return _resnet(kwargs, Bottleneck, (3, 4, 23, 3), _64X4D, _SE)


@register_model
def senet154(**kwargs: Any) -> ResNet:
    """SENet-154."""
    return _resnet(kwargs, Bottleneck, (3, 8, 36, 3), _64X4D, _SE, stem_type="deep", down_kernel_size=3,
                   block_reduce_first=2)


@register_model
def resnetblur18(**kwargs: Any) -> ResNet:
    """ResNet-18: blurred downsampling."""
    return _resnet(kwargs, BasicBlock, (2, 2, 2, 2), _BLUR)


@register_model
def resnetblur50(**kwargs: Any) -> ResNet:
    """ResNet-50: blurred downsampling."""
    return _resnet(kwargs, Bottleneck, (3, 4, 6, 3), _BLUR)


@register_model
def resnetblur50d(**kwargs: Any) -> ResNet:
    """ResNet-50-D: blurred downsampling."""
    return _resnet(kwargs, Bottleneck, (3, 4, 6, 3), _D, _BLUR)


@register_model
def resnetblur101d(**kwargs: Any) -> ResNet:
    """ResNet-101-D: blurred downsampling."""
    return _resnet(kwargs, Bottleneck, (3, 4, 23, 3), _D, _BLUR)


@register_model
def resnetaa34d(**kwargs: Any) -> ResNet:
    """ResNet-34-D: averaged downsampling."""
    return _resnet(kwargs, BasicBlock, (3, 4, 6, 3), _D, _AVG)


@register_model
def resnetaa50(**kwargs: Any) -> ResNet:
    """ResNet-50: averaged downsampling."""
    return _resnet(kwargs, Bottleneck, (3, 4, 6, 3), _AVG)


@register_model
def resnetaa50d(**kwargs: Any) -> ResNet:
    """ResNet-50-D: averaged downsampling."""
    return _resnet(kwargs, Bottleneck, (3, 4, 6, 3), _D, _AVG)


@register_model
def resnetaa101d(**kwargs: Any) -> ResNet:
    """ResNet-101-D: averaged downsampling."""
    return _resnet(kwargs, Bottleneck, (3, 4, 23, 3), _D, _AVG)


@register_model
def seresnetaa50d(**kwargs: Any) -> ResNet:
    """SE-ResNet-50-D: averaged downsampling."""
    return _resnet(kwargs, Bottleneck, (3, 4, 6, 3), _D, _SE, _AVG)


@register_model
def seresnextaa101d_32x8d(**kwargs: Any) -> ResNet:
    """SE-ResNeXt-101-D: averaged downsampling, 32 groups of 8 channels."""
    return _resnet(kwargs, Bottleneck, (3, 4, 23, 3), _D, _32X8D, _SE, _AVG)


@register_model
def seresnextaa201d_32x8d(**kwargs: Any) -> ResNet:
    """SE-ResNeXt-201-D: averaged downsampling, 32 groups of 8 channels."""
    return _resnet(kwargs, Bottleneck, (3, 24, 36, 4), _S, _32X8D, _SE, _AVG, avg_down=True)


@register_model
def resnetrs50(**kwargs: Any) -> ResNet:
    """ResNet-RS-50."""
    return _resnet(kwargs, Bottleneck, (3, 4, 6, 3), _RS)


@register_model
def resnetrs101(**kwargs: Any) -> ResNet:
    """ResNet-RS-101."""
    return _resnet(kwargs, Bottleneck, (3, 4, 23, 3), _RS)


@register_model
def resnetrs152(**kwargs: Any) -> ResNet:
    """ResNet-RS-152."""
    return _resnet(kwargs, Bottleneck, (3, 8, 36, 3), _RS)


@register_model
def resnetrs200(**kwargs: Any) -> ResNet:
    """ResNet-RS-200."""
    return _resnet(kwargs, Bottleneck, (3, 24, 36, 3), _RS)


@register_model
def resnetrs270(**kwargs: Any) -> ResNet:
    """ResNet-RS-270."""
    return _resnet(kwargs, Bottleneck, (4, 29, 53, 4), _RS)


@register_model
def resnetrs350(**kwargs: Any) -> ResNet:
    """ResNet-RS-350."""
    return _resnet(kwargs, Bottleneck, (4, 36, 72, 4), _RS)


@register_model
def resnetrs420(**kwargs: Any) -> ResNet:
    """ResNet-RS-420."""
    return _resnet(kwargs, Bottleneck, (4, 44, 87, 4), _RS)


@register_model
def test_resnet(**kwargs: Any) -> ResNet:
    """A tiny ResNet for tests."""
    blocks = (BasicBlock, BasicBlock, Bottleneck, BasicBlock)
    return _resnet(kwargs, blocks, (1, 1, 1, 1), _D, stem_width=16, channels=(32, 48, 48, 96))
