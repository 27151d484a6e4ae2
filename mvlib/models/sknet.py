"""SKNet: residual blocks in which the image decides, channel by channel, how large a kernel counts.

Li et al., "Selective Kernel Networks", 2019, arXiv:1903.06586.
But for `skresnext50_32x4d`, the paper's SKNet-50, each kernel reads a share of the channels: that is timm's.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from ..layers.blur_pool import AaLayer
from ..layers.channel_attention import AttnLayer
from ..layers.conv import ConvNormAct
from ..layers.feature_attention import SelectiveKernel
from ..registry import register_model
from .resnet import Layer, ResidualBlock, ResNet

if TYPE_CHECKING:
    from ._variants.sknet import *

__all__ = ["SelectiveKernelBasic", "SelectiveKernelBottleneck"]


class SelectiveKernelBottleneck(ResidualBlock):
    """`Bottleneck` whose 3x3 convolution is a `SelectiveKernel`, which takes `sk_kwargs`. Shapes and the rest as there.
    """

    last_norm: ClassVar[str] = "conv3.bn"
    act: nn.Module

    def __init__(
        self, inplanes: int, planes: int, stride: int = 1, downsample: nn.Module | None = None, cardinality: int = 1,
        base_width: int = 64, sk_kwargs: Mapping[str, Any] | None = None, reduce_first: int = 1, dilation: int = 1,
        first_dilation: int | None = None, act_layer: Layer = nn.ReLU, norm_layer: Layer = nn.BatchNorm2d,
        attn_layer: AttnLayer = None, aa_layer: AaLayer = None, drop_block: Layer | None = None,
        drop_path: nn.Module | None = None,
    ) -> None:
        super().__init__()
        conv = partial(ConvNormAct, act_layer=act_layer, norm_layer=norm_layer)
        select = partial(SelectiveKernel, stride=stride, dilation=first_dilation or dilation, act_layer=act_layer,
                         norm_layer=norm_layer, aa_layer=aa_layer, drop_layer=drop_block, **(sk_kwargs or {}))
        self.add_convs(conv, select, inplanes, planes, cardinality, base_width, reduce_first, dilation)
        self.add_end(planes * self.expansion, attn_layer, drop_path, downsample, stride, dilation,
                     act=act_layer(inplace=True))

    def add_convs(
        self, conv: Layer, select: Layer, inplanes: int, planes: int, cardinality: int, base_width: int,
        reduce_first: int, dilation: int,
    ) -> None:
        width, out_chs = planes * base_width // 64 * cardinality, planes * self.expansion
        self.conv1 = conv(inplanes, width // reduce_first, 1)
        self.conv2 = select(width // reduce_first, width, groups=cardinality)
        self.conv3 = conv(width, out_chs, 1, apply_act=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.add_shortcut(self.conv3(self.conv2(self.conv1(x))), x))


class SelectiveKernelBasic(SelectiveKernelBottleneck):
    """`BasicBlock` whose first convolution is a `SelectiveKernel`. Shapes as there, arguments as above."""

    expansion: ClassVar[int] = 1
    last_norm: ClassVar[str] = "conv2.bn"

    def add_convs(
        self, conv: Layer, select: Layer, inplanes: int, planes: int, cardinality: int, base_width: int,
        reduce_first: int, dilation: int,
    ) -> None:
        if cardinality != 1 or base_width != 64:
            raise ValueError(f"a basic block has one group and base_width 64, not {cardinality} and {base_width}")
        self.conv1 = select(inplanes, planes // reduce_first)
        self.conv2 = conv(planes // reduce_first, planes, 3, dilation=dilation, apply_act=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.add_shortcut(self.conv2(self.conv1(x)), x))


def _selective(**kwargs: Any) -> dict[str, Any]:
    return dict(layers=(3, 4, 6, 3), block_args=dict(sk_kwargs=kwargs), zero_init_last=False)


_BASIC = dict(_selective(rd_ratio=1 / 8, rd_divisor=16), block=SelectiveKernelBasic)
_50 = dict(_selective(), block=SelectiveKernelBottleneck)

register_model.variants(__name__, ResNet, {
    "skresnet18": (_BASIC, dict(layers=(2, 2, 2, 2))),
    "skresnet34": _BASIC,
    "skresnet50": _50,
    "skresnet50d": (_50, dict(stem_type="deep", stem_width=32, avg_down=True)),
    "skresnext50_32x4d": (_50, _selective(rd_divisor=32, split_input=False), dict(cardinality=32, base_width=4)),
})
