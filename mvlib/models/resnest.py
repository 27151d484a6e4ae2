"""ResNeSt: the 3x3 convolution of a bottleneck is split, and the splits are summed with shares that the image decides.

Zhang et al., "ResNeSt: Split-Attention Networks", 2020, arXiv:2004.08955.
"d" and "e" are a deep stem of 32 and 64 channels and average-pooled shortcuts; "4s2x40d" 4 splits of 2 groups, 40
channels wide in the first stage. The papers' names have no letter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..layers.blur_pool import AaLayer
from ..layers.channel_attention import AttnLayer
from ..layers.feature_attention import SplitAttn
from ..layers.helpers import placeable
from ..registry import register_model
from .resnet import Bottleneck, Layer, ResNet

if TYPE_CHECKING:
    from ._variants.resnest import *

__all__ = ["ResNestBottleneck"]


class ResNestBottleneck(Bottleneck):
    """`Bottleneck` whose 3x3 convolution is a `SplitAttn`, with norm and activation of its own. Shapes as there.

    Args:
        radix: Splits; 0 for the plain convolution.
        avd: Strides are average pools, behind the 3x3 convolution or before it (`avd_first`).
        is_first: There is a pool where the stride is 1, too.
        reduce_first, attn_layer, aa_layer: Not to be had here: 1, None and None.
        others: `Bottleneck`'s. Stochastic depth drops the branch; in timm, what the shortcut's convolution reads.

    Raises:
        ValueError: One of those three is given.
    """

    @placeable
    def __init__(
        self, inplanes: int, planes: int, stride: int = 1, downsample: nn.Module | None = None, radix: int = 1,
        cardinality: int = 1, base_width: int = 64, avd: bool = False, avd_first: bool = False, is_first: bool = False,
        reduce_first: int = 1, dilation: int = 1, first_dilation: int | None = None, act_layer: Layer = nn.ReLU,
        norm_layer: Layer = nn.BatchNorm2d, attn_layer: AttnLayer = None, aa_layer: AaLayer = None,
        drop_block: Layer | None = None, drop_path: nn.Module | None = None,
    ) -> None:
        for name, value, none in (("reduce_first", reduce_first, 1), ("attn_layer", attn_layer, None),
                                  ("aa_layer", aa_layer, None)):
            if value != none:
                raise ValueError(f"a ResNestBottleneck takes no {name}, not {value!r}")
        pools = avd and (stride > 1 or is_first)
        conv_stride = 1 if pools else stride
        super().__init__(
            inplanes, planes, conv_stride, downsample, cardinality, base_width, reduce_first, dilation, first_dilation,
            act_layer, norm_layer, drop_block=drop_block, drop_path=drop_path)
        self.radix = radix
        if radix:
            width, dilation = planes * base_width // 64 * cardinality, first_dilation or dilation
            self.conv2 = SplitAttn(width, width, 3, conv_stride, dilation, dilation, cardinality, radix=radix,
                                   norm_layer=norm_layer, drop_layer=drop_block)
            self.bn2, self.drop_block, self.act2 = nn.Identity(), nn.Identity(), nn.Identity()
        self.avd_first = nn.AvgPool2d(3, stride, padding=1) if pools and avd_first else nn.Identity()
        self.avd_last = nn.AvgPool2d(3, stride, padding=1) if pools and not avd_first else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        branch = self.avd_first(self.act1(self.bn1(self.conv1(x))))
        branch = self.avd_last(self.act2(self.drop_block(self.bn2(self.conv2(branch)))))
        return self.act3(self.add_shortcut(self.bn3(self.conv3(branch)), x))


_D, _E = (dict(block=ResNestBottleneck, stem_type="deep", stem_width=width, avg_down=True,
               block_args=dict(radix=2, avd=True)) for width in (32, 64))


def _splits(radix: int, groups: int, width: int) -> dict[str, Any]:
    return dict(layers=(3, 4, 6, 3), cardinality=groups, base_width=width,
                block_args=dict(radix=radix, avd=True, avd_first=True))


register_model.variants(__name__, ResNet, {
    **{f"resnest{name}": (_D if "d" in name else _E, dict(layers=layers)) for name, layers in {
        "14d": (1, 1, 1, 1), "26d": (2, 2, 2, 2), "50d": (3, 4, 6, 3), "101e": (3, 4, 23, 3), "200e": (3, 24, 36, 3),
        "269e": (3, 30, 48, 8)}.items()},
    "resnest50d_4s2x40d": (_D, _splits(4, 2, 40)),
    "resnest50d_1s4x24d": (_D, _splits(1, 4, 24)),
})
