"""Res2Net: inside a block, the channels are split, and each 3x3 convolution also reads what the one before it wrote.

Gao et al., "Res2Net: A New Multi-scale Backbone Architecture", 2019, arXiv:1904.01169.
"26w_4s" is a width of 26 channels in the first stage and 4 splits; "d" the stem and shortcuts of ResNet-D; "next"
groups, as in ResNeXt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..layers.channel_attention import AttnLayer
from ..registry import register_model
from .resnet import Layer, ResidualBlock, ResNet

if TYPE_CHECKING:
    from ._variants.res2net import *

__all__ = ["Bottle2neck"]


class Bottle2neck(ResidualBlock):
    """`Bottleneck` with a 3x3 convolution for each of `scale` splits but the last, which goes on as it is.

    Shapes: (B, inplanes, H, W) -> (B, 4 * planes, H / stride, W / stride). A split has `base_width * planes / 64`
    channels for each of `cardinality` groups. Where a stage begins, the splits do not read one another, and the last
    one is averaged. What other blocks take besides has no effect, as in timm.
    """

    relu: nn.Module

    def __init__(
        self, inplanes: int, planes: int, stride: int = 1, downsample: nn.Module | None = None, cardinality: int = 1,
        base_width: int = 26, scale: int = 4, dilation: int = 1, first_dilation: int | None = None,
        act_layer: Layer = nn.ReLU, norm_layer: Layer = nn.BatchNorm2d, attn_layer: AttnLayer = None,
        drop_block: Layer | None = None, drop_path: nn.Module | None = None, **_: Any,
    ) -> None:
        super().__init__()
        if scale < 1:
            raise ValueError(f"scale is 1 or more, not {scale}")
        width, count, dilation = planes * base_width // 64 * cardinality, max(scale - 1, 1), first_dilation or dilation
        out_chs, self.scale, self.width = planes * self.expansion, scale, width
        self.is_first = stride > 1 or downsample is not None
        self.conv1 = nn.Conv2d(inplanes, width * scale, 1, bias=False)
        self.bn1 = norm_layer(width * scale)
        self.convs = nn.ModuleList(
            nn.Conv2d(width, width, 3, stride, dilation, dilation, cardinality, bias=False) for _ in range(count))
        self.bns = nn.ModuleList(norm_layer(width) for _ in range(count))
        self.drop_block = drop_block() if drop_block is not None else nn.Identity()
        self.pool = nn.AvgPool2d(3, stride, padding=1) if self.is_first else nn.Identity()
        self.conv3, self.bn3 = nn.Conv2d(width * scale, out_chs, 1, bias=False), norm_layer(out_chs)
        self.add_end(out_chs, attn_layer, drop_path, downsample, stride, dilation, relu=act_layer(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        branch = self.drop_block(convolve_splits(self, self.relu(self.bn1(self.conv1(x)))))
        return self.relu(self.add_shortcut(self.bn3(self.conv3(branch)), x))


def convolve_splits(block: Any, x: Tensor) -> Tensor:
    """The middle of a block with `scale`, `convs`, `bns`, `relu`, `pool`: splits that read one another, unless
    `is_first`; the last one is pooled. Shapes: (B, scale * width, H, W) -> (B, scale * width, H / stride, W / stride).
    """
    splits = x.chunk(block.scale, dim=1)
    outs: list[Tensor] = []
    for i, (conv, bn) in enumerate(zip(block.convs, block.bns)):
        split = splits[i] if i == 0 or block.is_first else splits[i] + outs[-1]
        outs.append(block.relu(bn(conv(split))))
    if block.scale > 1:
        outs.append(splits[-1] if block.pool is None else block.pool(splits[-1]))
    return torch.cat(outs, dim=1)


_50, _101 = (dict(block=Bottle2neck, layers=layers, base_width=26) for layers in ((3, 4, 6, 3), (3, 4, 23, 3)))
_D = dict(stem_type="deep", stem_width=32, avg_down=True)

register_model.variants(__name__, ResNet, {
    "res2net50_26w_4s": _50,
    "res2net101_26w_4s": _101,
    **{f"res2net50_{width}w_{scale}s": (_50, dict(base_width=width, block_args=dict(scale=scale)))
       for width, scale in ((26, 6), (26, 8), (48, 2), (14, 8))},
    "res2next50": (_50, dict(base_width=4, cardinality=8)),
    "res2net50d": (_50, _D),
    "res2net101d": (_101, _D),
})
