"""Inception-v3 (https://arxiv.org/abs/1512.00567); state-dict keys are torchvision's, which timm shares."""

from __future__ import annotations

from collections import namedtuple
from typing import TYPE_CHECKING, Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import ConvNormAct, placeable
from ..registry import register_model
from .base import Flow, Step
from .inception_blocks import AuxiliaryModel, ConvLayer, Mixed, unpadded_conv

__all__ = [
    "InceptionA", "InceptionAux", "InceptionB", "InceptionC", "InceptionD", "InceptionE", "InceptionOutputs",
    "InceptionV3",
]

InceptionOutputs = namedtuple("InceptionOutputs", ["logits", "aux_logits"])

if TYPE_CHECKING:
    from ._variants.inception_v3 import *

_WIDE, _TALL = (1, 7), (7, 1)


class InceptionA(Mixed):
    """The paper's figure 5: 5 x 5 and twice 3 x 3 beside each other."""

    @placeable
    def __init__(self, in_channels: int, pool_features: int, conv_block: ConvLayer | None = None) -> None:
        super().__init__(in_channels, [
            [("branch1x1", 64, 1)],
            [("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)],
            [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)],
            ["avg", ("branch_pool", pool_features, 1)],
        ], conv_block)


class InceptionB(Mixed):
    """From maps of 35 x 35 to 17 x 17."""

    @placeable
    def __init__(self, in_channels: int, conv_block: ConvLayer | None = None) -> None:
        super().__init__(in_channels, [
            [("branch3x3", 384, 3, 2)],
            [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3, 2)], ["max"],
        ], conv_block)


class InceptionC(Mixed):
    """The paper's figure 6: 7 x 7 taken apart into 1 x 7 and 7 x 1."""

    @placeable
    def __init__(self, in_channels: int, channels_7x7: int, conv_block: ConvLayer | None = None) -> None:
        super().__init__(in_channels, [
            [("branch1x1", 192, 1)],
            [("branch7x7_1", channels_7x7, 1), ("branch7x7_2", channels_7x7, _WIDE), ("branch7x7_3", 192, _TALL)],
            [("branch7x7dbl_1", channels_7x7, 1), ("branch7x7dbl_2", channels_7x7, _TALL),
             ("branch7x7dbl_3", channels_7x7, _WIDE), ("branch7x7dbl_4", channels_7x7, _TALL),
             ("branch7x7dbl_5", 192, _WIDE)],
            ["avg", ("branch_pool", 192, 1)],
        ], conv_block)


class InceptionD(Mixed):
    """From maps of 17 x 17 to 8 x 8."""

    @placeable
    def __init__(self, in_channels: int, conv_block: ConvLayer | None = None) -> None:
        super().__init__(in_channels, [
            [("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3, 2)],
            [("branch7x7x3_1", 192, 1), ("branch7x7x3_2", 192, _WIDE), ("branch7x7x3_3", 192, _TALL),
             ("branch7x7x3_4", 192, 3, 2)],
            ["max"],
        ], conv_block)


class InceptionE(Mixed):
    """The paper's figure 7: branches that fork into 1 x 3 and 3 x 1."""

    @placeable
    def __init__(self, in_channels: int, conv_block: ConvLayer | None = None) -> None:
        super().__init__(in_channels, [
            [("branch1x1", 320, 1)],
            [("branch3x3_1", 384, 1), [("branch3x3_2a", 384, (1, 3)), ("branch3x3_2b", 384, (3, 1))]],
            [("branch3x3dbl_1", 448, 1), ("branch3x3dbl_2", 384, 3),
             [("branch3x3dbl_3a", 384, (1, 3)), ("branch3x3dbl_3b", 384, (3, 1))]],
            ["avg", ("branch_pool", 192, 1)],
        ], conv_block)


class InceptionAux(nn.Module):
    """Classifier on the maps of 17 x 17, for training. Shapes: (B, in_channels, H, W) -> (B, num_classes).

    `conv_block` makes convolutions with norm and activation; `ConvNormAct` unless given. Where it does not pad, as in
    the model, H and W are at least 17.
    """

    @placeable
    def __init__(self, in_channels: int, num_classes: int, conv_block: ConvLayer | None = None) -> None:
        super().__init__()
        conv_block = conv_block or ConvNormAct
        self.conv0 = conv_block(in_channels, 128, kernel_size=1)
        self.conv1 = conv_block(128, 768, kernel_size=5)
        self.fc = nn.Linear(768, num_classes) if num_classes > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(self.conv0(F.avg_pool2d(x, 5, stride=3)))
        return self.fc(x.mean((2, 3)))


class InceptionV3(AuxiliaryModel):
    """A stem of convolutions, eleven blocks of parallel branches, a linear classifier.

    Shapes: (B, in_chans, H, W), H and W at least 75 -> (B, num_classes). Convolutions are not padded where they
    stride, so that the features of 299 x 299 pixels are 8 x 8. In training with `aux_logits`, which needs 299 pixels
    or so, the result is `InceptionOutputs(logits, aux_logits)`.

    Args:
        global_pool: "avg", "max", "avgmax", "catavgmax" or "" for none.
        aux_logits: Whether there is an auxiliary head, `AuxLogits`, which works in training alone.
        transform_input: Whether images arrive with ImageNet's normalisation and get that of mean and deviation 0.5.
        norm_layer, norm_eps, act_layer: Batch norm, by name or class, and its epsilon; activation, by name or class.

    Raises:
        ValueError: `transform_input` with other than 3 channels.

    Source: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2015.
    """

    aux_heads: ClassVar[dict[str, tuple[str, str]]] = {"Mixed_6e": ("AuxLogits", "AuxLogits.fc")}
    aux_chs: ClassVar[int] = 768

    def __init__(
        self, num_classes: int = 1000, in_chans: int = 3, drop_rate: float = 0.0, global_pool: str = "avg",
        aux_logits: bool = False, norm_layer: Any = "batchnorm2d", norm_eps: float = 1e-3, act_layer: Any = "relu",
        transform_input: bool = False,
    ) -> None:
        super().__init__(num_classes, in_chans, aux_logits, transform_input)
        conv = unpadded_conv(norm_layer, norm_eps, act_layer)

        self.Conv2d_1a_3x3 = conv(in_chans, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = conv(32, 32, 3)
        self.Conv2d_2b_3x3 = conv(32, 64, 3, padding=1)
        self.Pool1 = nn.MaxPool2d(3, stride=2)
        self.Conv2d_3b_1x1 = conv(64, 80, 1)
        self.Conv2d_4a_3x3 = conv(80, 192, 3)
        self.Pool2 = nn.MaxPool2d(3, stride=2)
        blocks = {
            "Mixed_5b": InceptionA(192, 32, conv), "Mixed_5c": InceptionA(256, 64, conv),
            "Mixed_5d": InceptionA(288, 64, conv), "Mixed_6a": InceptionB(288, conv),
            "Mixed_6b": InceptionC(768, 128, conv), "Mixed_6c": InceptionC(768, 160, conv),
            "Mixed_6d": InceptionC(768, 160, conv), "Mixed_6e": InceptionC(768, 192, conv),
            "Mixed_7a": InceptionD(768, conv), "Mixed_7b": InceptionE(1280, conv), "Mixed_7c": InceptionE(2048, conv)}
        for name, block in blocks.items():
            self.add_module(name, block)
        self.AuxLogits = InceptionAux(768, num_classes, conv) if aux_logits else None
        taps = {"Mixed_5d": 8, "Mixed_6e": 16, "Mixed_7c": 32}
        self.flow = Flow(
            stem=[Step("renormalize"), Step("Conv2d_1a_3x3"), Step("Conv2d_2a_3x3"), Step("Conv2d_2b_3x3", 64, 2)],
            stages=[Step("Pool1"), Step("Conv2d_3b_1x1"), Step("Conv2d_4a_3x3", 192, 4), Step("Pool2"),
                    *(Step(name, block.out_chs, taps[name]) if name in taps else Step(name)
                      for name, block in blocks.items())])
        self.num_features = 2048
        self.set_global_pool(global_pool)
        self.head_drop = nn.Dropout(drop_rate)
        self.fc = self.make_classifier(num_classes)
        self.init_weights()

    def outputs(self, logits: Tensor, auxiliary: list[Tensor]) -> InceptionOutputs:
        return InceptionOutputs(logits, *auxiliary)

    def init_module(self, name: str, module: nn.Module) -> None:
        super().init_module(name, module)
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.trunc_normal_(module.weight, std=0.001 if name == "AuxLogits.fc" else 0.1)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        mixed = [step.name for step in self.flow.stages if step.name.startswith("Mixed")]
        if self.AuxLogits is not None:
            mixed.insert(mixed.index("Mixed_6e") + 1, "AuxLogits")
        blocks = [(r"^Conv2d_[34]", (0,)), *((rf"^{name}\.", (i,)) for i, name in enumerate(mixed, 1))]
        return dict(stem=r"^Conv2d_[12]", blocks=blocks)


register_model.variants(__name__, InceptionV3, {"inception_v3": "Inception-v3 (Szegedy et al., 2015)."})
