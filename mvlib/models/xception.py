"""Xception: depthwise and pointwise convolutions alone, in blocks with shortcuts.

Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", 2016, arXiv:1610.02357. The network of Keras,
with a symmetric padding, whose weights were ported by T. Standley and R. Cadene; `xception_aligned` has the later ones.
"""

from __future__ import annotations

import copy
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from ..layers.helpers import placeable
from ..layers.weight_init import init_kaiming
from ..registry import register_model
from .base import Flow, Inits, KeyMap, StateDict, Step
from .inner_taps import InnerTaps, inner_tap

if TYPE_CHECKING:
    from ._variants.xception import *

__all__ = ["Block", "SeparableConv2d", "Xception"]


class SeparableConv2d(nn.Sequential):
    """Depthwise convolution, then a 1x1 convolution; keys `conv1`, `pointwise`. Arguments are the first one's."""

    @placeable
    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1, padding: int = 0,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(
            in_channels, in_channels, kernel_size, stride, padding, dilation, groups=in_channels, bias=False)
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)


class Block(nn.Module):
    """Activation, separable convolution and norm, `reps` times; a max pool where there is a stride; and a shortcut.

    Shapes: (B, in_channels, H, W) -> (B, out_channels, H / strides, W / strides).

    `start_with_relu`: There is an activation in front of the first convolution; `grow_first`: that changes the number
    of channels, else the last does.
    """

    @placeable
    def __init__(
        self, in_channels: int, out_channels: int, reps: int, strides: int = 1, start_with_relu: bool = True,
        grow_first: bool = True,
    ) -> None:
        super().__init__()
        reshapes = out_channels != in_channels or strides != 1
        self.skip = nn.Conv2d(in_channels, out_channels, 1, strides, bias=False) if reshapes else nn.Identity()
        self.skipbn = nn.BatchNorm2d(out_channels) if reshapes else nn.Identity()
        chs = [in_channels, *[out_channels if grow_first else in_channels] * (reps - 1), out_channels]
        self.rep = nn.Sequential()
        for i in range(reps):
            if i > 0 or start_with_relu:
                self.rep.append(nn.ReLU(inplace=i > 0))  # the first one's input is the shortcut's, too
            self.rep.extend([SeparableConv2d(chs[i], chs[i + 1], 3, padding=1), nn.BatchNorm2d(chs[i + 1])])
        if strides != 1:
            self.rep.append(nn.MaxPool2d(3, strides, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(x, x, first=0)

    def begin(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.rep[0](x), x

    def finish(self, x: Tensor, skip: Tensor, first: int = 1) -> Tensor:
        for layer in islice(self.rep, first, None):
            x = layer(x)
        x += self.skipbn(self.skip(skip))
        return x

    def beginning(self) -> Block:
        block = copy.copy(self)
        block._modules = {"rep": self.rep[:1]}
        return block


class Xception(InnerTaps):
    """A stem of two convolutions without padding, twelve blocks, two separable convolutions and a linear classifier.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features have a stride of 32 and 2048 channels.
    """

    classifier_path: ClassVar[str] = "fc"
    feature_form: ClassVar[str] = "hook"
    inits: ClassVar[Inits] = {nn.Conv2d: init_kaiming}

    def __init__(
        self, num_classes: int = 1000, in_chans: int = 3, drop_rate: float = 0.0, global_pool: str = "avg"
    ) -> None:
        super().__init__()
        self.num_classes, self.in_chans, self.drop_rate, self.num_features = num_classes, in_chans, drop_rate, 2048
        self.conv1 = nn.Conv2d(in_chans, 32, 3, stride=2, bias=False)
        self.bn1, self.act1 = nn.BatchNorm2d(32), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(32, 64, 3, bias=False)
        self.bn2, self.act2 = nn.BatchNorm2d(64), nn.ReLU(inplace=True)
        self.flow = Flow(stem=[*map(Step, ("conv1", "bn1", "act1", "conv2", "bn2")), Step("act2", 64, 2)], stages=[])
        rows: list[tuple[Any, ...]] = [(64, 128, 2, 2, False), (128, 256, 2, 2), (256, 728, 2, 2)]
        rows += [*[(728, 728, 3)] * 8, (728, 1024, 2, 2, True, False)]
        taps = {"block2": (128, 4), "block3": (256, 8), "block12": (728, 16)}  # of the blocks' inputs, activated
        for i, row in enumerate(rows, start=1):
            name = f"block{i}"
            self.add_module(name, Block(*row))
            self.flow.stages += inner_tap(name, *taps[name], f"{name}.rep.0") if name in taps else [Step(name)]
        self.conv3 = SeparableConv2d(1024, 1536, 3, padding=1)
        self.bn3, self.act3 = nn.BatchNorm2d(1536), nn.ReLU(inplace=True)
        self.conv4 = SeparableConv2d(1536, self.num_features, 3, padding=1)
        self.bn4, self.act4 = nn.BatchNorm2d(self.num_features), nn.ReLU(inplace=True)
        self.flow.stages += [*map(Step, ("conv3", "bn3", "act3", "conv4", "bn4")), Step("act4", self.num_features, 32)]
        self.add_classifier(self.num_features, num_classes, global_pool)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return dict(stem=r"^(?:conv|bn)[12]", blocks=[(r"^block(\d+)", None), (r"^(?:conv|bn)[34]", (99,))])

    def fit_state_dict(self, state_dict: StateDict) -> StateDict:
        """Older files have pointwise kernels of two dimensions."""
        return {key: value[..., None, None] if "pointwise" in key and value.ndim == 2 else value
                for key, value in state_dict.items()}


register_model.variants(__name__, Xception, {"legacy_xception": {}})

Xception.key_maps = (
    KeyMap.renaming("cadene", "last_linear.weight", (r"^last_linear\.", "fc.")),
)
