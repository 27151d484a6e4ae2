"""AlexNet with one column of convolutions (https://arxiv.org/abs/1404.5997); state-dict keys are torchvision's.

It is the network of 2012 (https://papers.nips.cc/paper/4824) without its second column and its response norms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from ..layers.pool import SelectAdaptivePool2d
from ..registry import register_model
from .base import Flow, ImageModel, Indices, Step

if TYPE_CHECKING:
    from ._variants.alexnet import *

__all__ = ["AlexNet"]

_HIDDEN_CHS = 4096
_GRID = 6  # side of the final map of a 224x224 image
_POOL_TYPES = ("avg", "max", "avgmax", "")


class GridPool(SelectAdaptivePool2d):
    """Pool a feature map: (B, C, H, W) -> (B, C, side, side); unchanged where `pool_type` is "".

    Raises:
        ValueError: The pooling is unknown.
    """

    def __init__(self, side: int, pool_type: str = "avg") -> None:
        if pool_type not in _POOL_TYPES:
            raise ValueError(f"global_pool '{pool_type}' is not one of {', '.join(map(repr, _POOL_TYPES))}")
        super().__init__(side, pool_type)


class AlexNet(ImageModel):
    """Five convolutions, pooling to 6x6, two hidden layers and a linear classifier.

    Shapes: (B, in_chans, H, W) -> (B, num_classes), H and W at least 63; the features (B, 256, h, w) have a stride of
    32 and come before the hidden layers. The taps are the last activation before each max pool (strides 4, 8, 16), and
    the last max pool; their sides are a little below H / stride, because the pools and the stem have less padding than
    that needs.

    Args:
        num_classes: Classes; 0 for the output of the hidden layers (B, 4096).
        drop_rate: Dropout before each hidden layer.
        global_pool: How the features become a 6x6 map: "avg", "max", "avgmax"; "" leaves out the hidden layers, and
            goes with `num_classes` 0 alone.

    Raises:
        ValueError: The pooling is unknown, or there are classes but no pooling.

    Source: Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014.
    """

    classifier_path: ClassVar[str] = "classifier.6"
    dropout_paths: ClassVar[tuple[str, ...]] = ("classifier.0", "classifier.3")
    pool_path: ClassVar[str] = "avgpool"

    def __init__(
        self, num_classes: int = 1000, in_chans: int = 3, drop_rate: float = 0.5, global_pool: str = "avg"
    ) -> None:
        super().__init__()
        self.num_classes, self.in_chans = num_classes, in_chans
        self.features = nn.Sequential(
            nn.Conv2d(in_chans, 64, 11, stride=4, padding=2), nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2))
        self.flow = Flow(stem=[], stages=[
            Step("features[0:2]", 64, 4, module="features.1"), Step("features[2:5]", 192, 8, module="features.4"),
            Step("features[5:12]", 256, 16, module="features.11"),
            Step("features[12:13]", 256, 32, module="features.12")])
        self.num_features = 256
        self.grid, self.hidden_chs = _GRID, _HIDDEN_CHS
        self.set_global_pool(global_pool)
        self.classifier = nn.Sequential(
            nn.Dropout(drop_rate), nn.Linear(256 * _GRID**2, _HIDDEN_CHS), nn.ReLU(inplace=True),
            nn.Dropout(drop_rate), nn.Linear(_HIDDEN_CHS, _HIDDEN_CHS), nn.ReLU(inplace=True),
            self.make_classifier(num_classes))
        self.init_weights()

    def pool(self, x: Tensor) -> Tensor:
        return self.forward_head(x, pre_logits=True)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Final features -> logits, or the classifier's input where `pre_logits`; the features where none is pooled."""
        x = self.avgpool(x)
        if not self.avgpool.pool_type:
            return x
        *hidden, classifier = self.classifier
        x = x.flatten(1)
        for layer in hidden:
            x = layer(x)
        return x if pre_logits else classifier(x)

    def set_global_pool(self, pool_type: str) -> None:
        if not pool_type and self.num_classes > 0:
            raise ValueError(f"global_pool '' goes with num_classes=0: without pooling there are no hidden layers, and "
                             f"{self.num_classes} classes cannot be scored")
        self.avgpool = GridPool(self.grid, pool_type)
        self.head_hidden_size = self.hidden_chs if pool_type else self.num_features

    def prune_intermediate_layers(
        self, indices: Indices = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        depth = len(self.flow.stages)
        taken = super().prune_intermediate_layers(indices, prune_norm, prune_head)
        if prune_head or len(self.flow.stages) < depth:
            for i in (1, 4):  # the hidden layers; a new classifier takes pooled features
                self.classifier[i] = nn.Identity()
            self.grid, self.hidden_chs = 1, self.num_features
        return taken


register_model.variants(__name__, AlexNet, {"alexnet": "AlexNet in one column (Krizhevsky, 2014)."})
