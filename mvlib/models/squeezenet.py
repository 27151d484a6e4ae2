"""SqueezeNet (https://arxiv.org/abs/1602.07360) in its versions 1.0 and 1.1; state-dict keys are torchvision's.

The classifier is a convolution: it scores every position, and the scores are pooled.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from ..layers import GlobalPool2d
from ..registry import register_model
from .base import Flow, ImageModel, Inits, Step

if TYPE_CHECKING:
    from ._variants.squeezenet import *

__all__ = ["SqueezeNet"]


class Fire(nn.Module):
    """A 1x1 convolution, then 1x1 and 3x3 side by side. Shapes: (B, in_chs, H, W) -> (B, 2 * expand_chs, H, W)."""

    def __init__(self, in_chs: int, squeeze_chs: int, expand_chs: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(in_chs, squeeze_chs, 1)
        self.expand1x1 = nn.Conv2d(squeeze_chs, expand_chs, 1)
        self.expand3x3 = nn.Conv2d(squeeze_chs, expand_chs, 3, padding=1)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.squeeze(x))
        return self.act(torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1))


# Squeezed and (one branch's) expanded channels of the eight fire modules.
_FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
# Channels and kernel of the stem, and the fire modules that follow each of the three max pools.
_VERSIONS = {"1_0": (96, 7, (3, 4, 1)), "1_1": (64, 3, (2, 2, 4))}


def _init_uniform(conv: nn.Conv2d) -> None:
    nn.init.kaiming_uniform_(conv.weight)
    nn.init.zeros_(conv.bias)


class SqueezeNet(ImageModel):
    """A stem convolution, eight fire modules between three max pools, and a convolution as classifier.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features (B, 512, h, w) have a stride of 16 and no padding
    before the stem, so that h and w are a little below H / 16 and W / 16. Without pooling the model returns a map of
    scores (B, num_classes, h, w); without classes, or before them (`pre_logits`), the pooled features (B, 512).

    Args:
        version: "1_0", or "1_1", which pools earlier and needs 2.4 times less computation.
        global_pool: "avg", "max", "avgmax" or "" for none; pools scores, not features.

    Raises:
        ValueError: The version or the pooling is unknown.

    Source: Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size", 2016.
    """

    classifier_path: ClassVar[str] = "classifier.1"
    dropout_paths: ClassVar[tuple[str, ...]] = ("classifier.0",)
    pool_path: ClassVar[str] = "classifier.3"
    inits: ClassVar[Inits] = {nn.Conv2d: _init_uniform}

    def __init__(
        self, version: str = "1_0", num_classes: int = 1000, in_chans: int = 3, drop_rate: float = 0.5,
        global_pool: str = "avg",
    ) -> None:
        super().__init__()
        if version not in _VERSIONS:
            raise ValueError(f"unknown SqueezeNet version '{version}'; known: {', '.join(_VERSIONS)}")
        self.num_classes, self.in_chans = num_classes, in_chans
        chs, kernel_size, counts = _VERSIONS[version]
        self.features = nn.Sequential(nn.Conv2d(in_chans, chs, kernel_size, stride=2), nn.ReLU(inplace=True))
        self.flow = Flow(stem=[Step("features.0"), Step("features.1", chs, 2)], stages=[])
        fires = iter(_FIRES)
        for i, count in enumerate(counts):
            self.features.append(nn.MaxPool2d(3, stride=2, ceil_mode=True))
            for squeeze_chs, expand_chs in islice(fires, count):
                self.features.append(Fire(chs, squeeze_chs, expand_chs))
                chs = 2 * expand_chs
            last = len(self.features) - 1
            self.flow.stages += [*(Step(f"features.{j}") for j in range(last - count, last)),
                                 Step(f"features.{last}", chs, 4 * 2**i)]
        self.num_features = self.head_hidden_size = chs
        self.classifier = nn.Sequential(
            nn.Dropout(drop_rate), self.make_classifier(num_classes), nn.ReLU(), _make_pool(global_pool))
        self.init_weights()

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Final features -> logits, or the features as the classifier takes them, pooled, where `pre_logits`."""
        dropout, _, _, pool = self.classifier
        return pool(dropout(x)) if pre_logits else self.classifier(x)

    def make_classifier(self, num_classes: int) -> nn.Module:
        return nn.Conv2d(self.head_hidden_size, num_classes, 1) if num_classes > 0 else nn.Identity()

    def set_global_pool(self, pool_type: str) -> None:
        self.classifier[3] = _make_pool(pool_type)
        self.head_hidden_size = self.num_features

    def init_module(self, name: str, module: nn.Module) -> None:
        super().init_module(name, module)
        if name == self.classifier_path and isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.01)


def _make_pool(pool_type: str) -> GlobalPool2d:
    pool = GlobalPool2d(pool_type)
    if pool.out_factor != 1:
        raise ValueError(f"global_pool '{pool_type}' would give several scores a class; known: avg, max, avgmax, ''")
    return pool


register_model.variants(__name__, SqueezeNet, {
    "squeezenet1_0": (dict(version="1_0"), "The paper's."),
    "squeezenet1_1": (dict(version="1_1"), "The authors' revision, with 2.4 times less computation."),
})
