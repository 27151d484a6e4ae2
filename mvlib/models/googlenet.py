"""GoogLeNet, the first Inception network (https://arxiv.org/abs/1409.4842); state-dict keys are torchvision's."""

from __future__ import annotations

from collections import namedtuple
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.weight_init import init_trunc_weight
from ..registry import register_model
from .base import Flow, Inits, Step
from .inception_blocks import AuxiliaryModel, unpadded_conv

__all__ = ["GoogLeNet", "GoogLeNetOutputs"]

GoogLeNetOutputs = namedtuple("GoogLeNetOutputs", ["logits", "aux_logits2", "aux_logits1"])

if TYPE_CHECKING:
    from ._variants.googlenet import *

_conv = unpadded_conv()

# Channels of the branches 1 x 1; 3 x 3, before and after; 5 x 5, before and after; pool. A number: a max pool's side.
_BODY: dict[str, tuple[int, ...] | int] = {
    "inception3a": (64, 96, 128, 16, 32, 32),
    "inception3b": (128, 128, 192, 32, 96, 64),
    "maxpool3": 3,
    "inception4a": (192, 96, 208, 16, 48, 64),
    "inception4b": (160, 112, 224, 24, 64, 64),
    "inception4c": (128, 128, 256, 24, 64, 64),
    "inception4d": (112, 144, 288, 32, 64, 64),
    "inception4e": (256, 160, 320, 32, 128, 128),
    "maxpool4": 2,
    "inception5a": (256, 160, 320, 32, 128, 128),
    "inception5b": (384, 192, 384, 48, 128, 128),
}
_TAPS = {"inception3b": 8, "inception4e": 16, "inception5b": 32}


class Inception(nn.Module):
    """Four branches side by side. Shapes: (B, in_chs, H, W) -> (B, chs[0] + chs[2] + chs[4] + chs[5], H, W).

    The paper's branch of 5 x 5 has 3 x 3 here: torchvision's weights were trained so.
    """

    def __init__(self, in_chs: int, chs: tuple[int, ...]) -> None:
        super().__init__()
        self.branch1 = _conv(in_chs, chs[0])
        self.branch2 = nn.Sequential(_conv(in_chs, chs[1]), _conv(chs[1], chs[2], 3, padding=1))
        self.branch3 = nn.Sequential(_conv(in_chs, chs[3]), _conv(chs[3], chs[4], 3, padding=1))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), _conv(in_chs, chs[5]))
        self.out_chs = chs[0] + chs[2] + chs[4] + chs[5]

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], dim=1)


class AuxiliaryHead(nn.Module):
    """Classifier in the middle of the network, for training. Shapes: (B, in_chs, H, W) -> (B, num_classes)."""

    def __init__(self, in_chs: int, num_classes: int, drop_rate: float) -> None:
        super().__init__()
        self.conv = _conv(in_chs, 128)
        self.fc1 = nn.Linear(128 * 4 * 4, 1024)
        self.dropout = nn.Dropout(drop_rate)
        self.fc2 = nn.Linear(1024, num_classes) if num_classes > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(F.adaptive_avg_pool2d(x, (4, 4))).flatten(1)
        return self.fc2(self.dropout(F.relu(self.fc1(x))))


class GoogLeNet(AuxiliaryModel):
    """A stem of three convolutions, nine blocks of parallel branches, a linear classifier.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features have a stride of 32. In training with `aux_logits`
    the result is `GoogLeNetOutputs(logits, aux_logits2, aux_logits1)`.

    Args:
        aux_drop_rate: Dropout in the auxiliary heads.
        global_pool: "avg", "max", "avgmax", "catavgmax" or "" for none.
        aux_logits: Whether there are two auxiliary heads, `aux1` and `aux2`, which work in training alone.
        transform_input: Whether images arrive with ImageNet's normalisation and get that of mean and deviation 0.5.

    Raises:
        ValueError: `transform_input` with other than 3 channels.

    Source: Szegedy et al., "Going Deeper with Convolutions", 2014; with batch norm, as torchvision has it.
    """

    aux_heads = {"inception4a": ("aux1", "aux1.fc2"), "inception4d": ("aux2", "aux2.fc2")}
    aux_chs: ClassVar[int] = 1024
    inits: ClassVar[Inits] = {(nn.Conv2d, nn.Linear): partial(init_trunc_weight, std=0.01)}

    def __init__(
        self, num_classes: int = 1000, in_chans: int = 3, drop_rate: float = 0.2, aux_drop_rate: float = 0.7,
        global_pool: str = "avg", aux_logits: bool = False, transform_input: bool = False,
    ) -> None:
        super().__init__(num_classes, in_chans, aux_logits, transform_input)
        self.drop_rate = drop_rate
        self.conv1 = _conv(in_chans, 64, 7, stride=2, padding=3)
        self.maxpool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.conv2 = _conv(64, 64)
        self.conv3 = _conv(64, 192, 3, padding=1)
        self.maxpool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.flow = Flow(
            stem=[Step("renormalize"), Step("conv1", 64, 2)],
            stages=[Step("maxpool1"), Step("conv2"), Step("conv3", 192, 4), Step("maxpool2")])
        chs, aux_chs = 192, []
        for name, spec in _BODY.items():
            self.add_module(name, nn.MaxPool2d(spec, stride=2, ceil_mode=True) if isinstance(spec, int) else
                            Inception(chs, spec))
            chs = getattr(getattr(self, name), "out_chs", chs)
            self.flow.stages.append(Step(name, chs, _TAPS[name]) if name in _TAPS else Step(name))
            aux_chs += [chs] if name in self.aux_heads else []
        self.aux1, self.aux2 = (
            AuxiliaryHead(chs, num_classes, aux_drop_rate) if aux_logits else None for chs in aux_chs)
        self.num_features = chs
        self.set_global_pool(global_pool)
        self.fc = self.make_classifier(num_classes)
        self.init_weights()

    def outputs(self, logits: Tensor, auxiliary: list[Tensor]) -> GoogLeNetOutputs:
        return GoogLeNetOutputs(logits, *reversed(auxiliary))

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        blocks = [name for name in _BODY if name.startswith("inception")]
        return dict(stem=r"^conv\d", blocks=[(rf"^{name}\.", (i,)) for i, name in enumerate(blocks)])


register_model.variants(
    __name__, GoogLeNet, {"googlenet": "GoogLeNet (Szegedy et al., 2014) with batch norm, torchvision's."})
