"""Inception-ResNet-v2: Inception's branches, behind which a convolution and a shortcut stand.

Szegedy et al., "Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning", 2016,
arXiv:1602.07261. The stem, and the block before the first shortcuts, are nearly Inception-v3's, as in Google's code and
other than in the paper.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..layers import placeable
from ..registry import register_model
from .base import Flow, ImageModel, Step
from .inception_blocks import ConvLayer, FixedMixed, unpadded_conv

__all__ = ["Block8", "Block17", "Block35", "InceptionResnetV2", "Mixed_5b", "Mixed_6a", "Mixed_7a"]


class ResidualMixed(FixedMixed):
    """A 1x1 convolution of what branches give, times `scale`, beside a shortcut; ReLU. (B, chs, H, W) -> same."""

    @placeable
    def __init__(self, scale: float = 1.0, conv_block: ConvLayer | None = None) -> None:
        super().__init__(conv_block)
        self.scale = scale
        chs, _ = self.table
        self.conv2d = nn.Conv2d(self.out_chs, chs, 1)
        self.act: nn.Module = nn.ReLU(inplace=True)
        self.out_chs = chs

    def forward(self, x: Tensor) -> Tensor:
        return self.act(torch.add(x, self.conv2d(super().forward(x)), alpha=self.scale))


class Mixed_5b(FixedMixed):
    """To the channels of the maps of 35 x 35."""

    table = 192, [[(96, 1)], [(48, 1), (64, 5)], [(64, 1), (96, 3), (96, 3)], ["inner", (64, 1)]]


class Block35(ResidualMixed):
    """The paper's figure 16, Inception-ResNet-A."""

    table = 320, [[(32, 1)], [(32, 1), (32, 3)], [(32, 1), (48, 3), (64, 3)]]


class Mixed_6a(FixedMixed):
    """From maps of 35 x 35 to 17 x 17: figure 7, Reduction-A."""

    table = 320, [[(384, 3, 2)], [(256, 1), (256, 3), (384, 3, 2)], ["max"]]


class Block17(ResidualMixed):
    """Figure 17, Inception-ResNet-B."""

    table = 1088, [[(192, 1)], [(128, 1), (160, (1, 7)), (192, (7, 1))]]


class Mixed_7a(FixedMixed):
    """From maps of 17 x 17 to 8 x 8: figure 18, Reduction-B."""

    table = 1088, [[(256, 1), (384, 3, 2)], [(256, 1), (288, 3, 2)], [(256, 1), (288, 3), (320, 3, 2)], ["max"]]


class Block8(ResidualMixed):
    """Figure 19, Inception-ResNet-C; the last one has no ReLU at its end."""

    table = 2080, [[(192, 1)], [(192, 1), (224, (1, 3)), (256, (3, 1))]]

    @placeable
    def __init__(self, scale: float = 1.0, no_relu: bool = False, conv_block: ConvLayer | None = None) -> None:
        super().__init__(scale, conv_block)
        self.act = nn.Identity() if no_relu else self.act


class InceptionResnetV2(ImageModel):
    """A stem, 43 blocks of parallel branches, a convolution, a linear classifier; the rest as `InceptionV4`."""

    classifier_path: ClassVar[str] = "classif"
    feature_form: ClassVar[str] = "list"

    def __init__(
        self, num_classes: int = 1000, in_chans: int = 3, drop_rate: float = 0.0, output_stride: int = 32,
        global_pool: str = "avg", norm_layer: Any = "batchnorm2d", norm_eps: float = 1e-3, act_layer: Any = "relu",
    ) -> None:
        super().__init__()
        if output_stride != 32:
            raise ValueError(f"output_stride is 32 for an Inception, not {output_stride}")
        self.num_classes, self.in_chans, self.num_features = num_classes, in_chans, 1536
        conv = unpadded_conv(norm_layer, norm_eps, act_layer)
        self.conv2d_1a = conv(in_chans, 32, 3, stride=2)
        self.conv2d_2a = conv(32, 32, 3)
        self.conv2d_2b = conv(32, 64, 3, padding=1)
        self.maxpool_3a = nn.MaxPool2d(3, stride=2)
        self.conv2d_3b = conv(64, 80, 1)
        self.conv2d_4a = conv(80, 192, 3)
        self.maxpool_5a = nn.MaxPool2d(3, stride=2)
        self.mixed_5b = Mixed_5b(conv)
        self.repeat = nn.Sequential(*(Block35(0.17, conv) for _ in range(10)))
        self.mixed_6a = Mixed_6a(conv)
        self.repeat_1 = nn.Sequential(*(Block17(0.1, conv) for _ in range(20)))
        self.mixed_7a = Mixed_7a(conv)
        self.repeat_2 = nn.Sequential(*(Block8(0.2, conv_block=conv) for _ in range(9)))
        self.block8 = Block8(no_relu=True, conv_block=conv)
        self.conv2d_7b = conv(2080, self.num_features, 1)
        self.flow = Flow(
            stem=[Step("conv2d_1a"), Step("conv2d_2a"), Step("conv2d_2b", 64, 2)],
            stages=[Step("maxpool_3a"), Step("conv2d_3b"), Step("conv2d_4a", 192, 4), Step("maxpool_5a"),
                    Step("mixed_5b"), Step("repeat", 320, 8), Step("mixed_6a"), Step("repeat_1", 1088, 16),
                    Step("mixed_7a"), Step("repeat_2"), Step("block8"), Step("conv2d_7b", self.num_features, 32)])
        self.set_global_pool(global_pool)
        self.head_drop = nn.Dropout(drop_rate)
        self.classif = self.make_classifier(num_classes)
        self.init_weights()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        grids = {"grid_35": ("mixed_5b", "repeat"), "grid_17": ("mixed_6a", "repeat_1"),
                 "grid_8": ("mixed_7a", "repeat_2")}
        blocks = {grid: [(rf"^{first}\.", (-1,)), (rf"^{rest}\.(\d+)", None)] for grid, (first, rest) in grids.items()}
        return dict(stem=r"^conv2d_[12]", convs=r"^conv2d_[34]", **blocks, last=r"^block8|^conv2d_7b")


@register_model
def inception_resnet_v2(**kwargs: Any) -> InceptionResnetV2:
    """Inception-ResNet-v2 (Szegedy et al., 2016)."""
    return InceptionResnetV2(**kwargs)
