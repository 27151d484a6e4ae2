"""Inception-v4: the Inception network of more blocks, each of one shape for its size of maps.

Szegedy et al., "Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning", 2016,
arXiv:1602.07261.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from ..layers import ConvNormAct, placeable
from ..registry import register_model
from .base import Flow, ImageModel, Step
from .inception_blocks import ConvLayer, FixedMixed, unpadded_conv

__all__ = [
    "InceptionA", "InceptionB", "InceptionC", "InceptionV4", "Mixed3a", "Mixed4a", "Mixed5a", "ReductionA",
    "ReductionB",
]

_WIDE, _TALL = (1, 7), (7, 1)


class _Mixed(FixedMixed):
    @placeable
    def __init__(self, conv_block: ConvLayer = ConvNormAct) -> None:
        super().__init__(conv_block)


class Mixed3a(_Mixed):
    """The first fork of the stem, the paper's figure 3."""

    table = 64, [["max"], [("conv", 96, 3, 2)]]


class Mixed4a(_Mixed):
    """The second, whose branches shrink maps at the border."""

    table = 160, [[(64, 1), (96, 3, 1)], [(64, 1), (64, _WIDE), (64, _TALL), (96, 3, 1)]]


class Mixed5a(_Mixed):
    """The third: from maps of 71 x 71 to 35 x 35."""

    table = 192, [[("conv", 192, 3, 2)], ["max"]]


class InceptionA(_Mixed):
    """The paper's figure 4, Inception-A."""

    table = 384, [[(96, 1)], [(64, 1), (96, 3)], [(64, 1), (96, 3), (96, 3)], ["inner", (96, 1)]]


class ReductionA(_Mixed):
    """From maps of 35 x 35 to 17 x 17: figure 7, Reduction-A."""

    table = 384, [[(384, 3, 2)], [(192, 1), (224, 3), (256, 3, 2)], ["max"]]


class InceptionB(_Mixed):
    """Figure 5, Inception-B."""

    table = 1024, [
        [(384, 1)],
        [(192, 1), (224, _WIDE), (256, _TALL)],
        [(192, 1), (192, _TALL), (224, _WIDE), (224, _TALL), (256, _WIDE)],
        ["inner", (128, 1)],
    ]


class ReductionB(_Mixed):
    """From maps of 17 x 17 to 8 x 8: figure 8, Reduction-B."""

    table = 1024, [[(192, 1), (192, 3, 2)], [(256, 1), (256, _WIDE), (320, _TALL), (320, 3, 2)], ["max"]]


class InceptionC(_Mixed):
    """Figure 6, Inception-C: branches that fork into 1 x 3 and 3 x 1."""

    table = 1536, [
        [(256, 1)],
        [("branch1_0", 384, 1), [("branch1_1a", 256, (1, 3)), ("branch1_1b", 256, (3, 1))]],
        [("branch2_0", 384, 1), ("branch2_1", 448, (3, 1)), ("branch2_2", 512, (1, 3)),
         [("branch2_3a", 256, (1, 3)), ("branch2_3b", 256, (3, 1))]],
        ["inner", (256, 1)],
    ]


class InceptionV4(ImageModel):
    """A stem of convolutions, nineteen blocks of parallel branches, a linear classifier.

    Shapes: (B, in_chans, H, W), H and W at least 75 -> (B, num_classes). Convolutions are not padded where they
    stride, so that the features of 299 x 299 pixels are 8 x 8.

    Args:
        output_stride: 32 alone.
        drop_rate: Dropout before the classifier; the paper's is 0.2.
        global_pool: "avg", "max", "avgmax", "catavgmax" or "" for none.
        norm_layer, norm_eps, act_layer: Batch norm, by name or class, and its epsilon; activation, by name or class.

    Raises:
        ValueError: An option has an unknown value.
    """

    classifier_path: ClassVar[str] = "last_linear"
    feature_form: ClassVar[str] = "flat"

    def __init__(
        self, num_classes: int = 1000, in_chans: int = 3, output_stride: int = 32, drop_rate: float = 0.0,
        global_pool: str = "avg", norm_layer: Any = "batchnorm2d", norm_eps: float = 1e-3, act_layer: Any = "relu",
    ) -> None:
        super().__init__()
        if output_stride != 32:
            raise ValueError(f"output_stride is 32 for an Inception, not {output_stride}")
        self.num_classes, self.in_chans, self.num_features = num_classes, in_chans, 1536
        conv = unpadded_conv(norm_layer, norm_eps, act_layer)
        self.features = nn.Sequential(
            conv(in_chans, 32, 3, stride=2), conv(32, 32, 3), conv(32, 64, 3, padding=1),
            Mixed3a(conv), Mixed4a(conv), Mixed5a(conv),
            *(InceptionA(conv) for _ in range(4)), ReductionA(conv),
            *(InceptionB(conv) for _ in range(7)), ReductionB(conv),
            *(InceptionC(conv) for _ in range(3)))
        taps = {2: (64, 2), 3: (160, 4), 9: (384, 8), 17: (1024, 16), 21: (1536, 32)}
        steps = [Step(f"features.{i}", *taps.get(i, ())) for i in range(len(self.features))]
        self.flow = Flow(stem=steps[:3], stages=steps[3:])
        self.set_global_pool(global_pool)
        self.head_drop = nn.Dropout(drop_rate)
        self.last_linear = self.make_classifier(num_classes)
        self.init_weights()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return dict(stem=r"^features\.[012]\.", blocks=r"^features\.(\d+)")


@register_model
def inception_v4(**kwargs: Any) -> InceptionV4:
    """Inception-v4 (Szegedy et al., 2016)."""
    return InceptionV4(**kwargs)
