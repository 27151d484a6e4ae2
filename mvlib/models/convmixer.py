"""ConvMixer: patches, then depthwise convolutions that mix positions and 1x1 convolutions that mix channels.

Trockman and Kolter, "Patches Are All You Need?", 2022, arXiv:2201.09792.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from ..layers import ActLayer, get_act_layer, run_blocks
from ..registry import register_model
from .base import Flow, ImageModel, Indices, Step

if TYPE_CHECKING:
    from ._variants.convmixer import *

__all__ = ["ConvMixer"]


class Residual(nn.Module):
    """A function beside a shortcut; key `fn`. Shapes: as of `fn`, which keeps its input's."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(x) + x


class _Block(nn.Sequential):
    """Depthwise convolution beside a shortcut, then a 1x1 one, each activated and normed. (B, dim, H, W) -> same."""

    grad_checkpointing: bool = False

    def __init__(self, dim: int, kernel_size: int, act: Callable[[], nn.Module]) -> None:
        depthwise = nn.Conv2d(dim, dim, kernel_size, groups=dim, padding="same")
        super().__init__(
            Residual(nn.Sequential(depthwise, act(), nn.BatchNorm2d(dim))),
            nn.Conv2d(dim, dim, 1), act(), nn.BatchNorm2d(dim))

    def forward(self, x: Tensor) -> Tensor:
        layers: Callable[[Tensor], Tensor] = super().forward
        return run_blocks([layers], x, recompute=True) if self.grad_checkpointing else layers(x)


class ConvMixer(ImageModel):
    """Patches, blocks that keep their size, pooling and a linear classifier.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features are (B, dim, H // patch_size, W // patch_size).

    Args:
        dim, depth: Channels and blocks.
        kernel_size: Of the depthwise convolutions.
        patch_size: Size and stride of the patches.
        global_pool: "avg", "max", "avgmax", "catavgmax" or "" for none.

    Raises:
        ValueError: The pooling or the activation is unknown.
    """

    default_out_indices: ClassVar[Indices] = 3
    tap_norm: ClassVar[str] = "all"  # the head fits every tap

    def __init__(
        self, dim: int, depth: int, kernel_size: int = 9, patch_size: int = 7, in_chans: int = 3,
        num_classes: int = 1000, global_pool: str = "avg", drop_rate: float = 0.0, act_layer: ActLayer = nn.GELU,
    ) -> None:
        super().__init__()
        self.num_classes, self.in_chans, self.num_features = num_classes, in_chans, dim
        act = get_act_layer(act_layer)
        self.stem = nn.Sequential(nn.Conv2d(in_chans, dim, patch_size, stride=patch_size), act(), nn.BatchNorm2d(dim))
        self.blocks = nn.Sequential(*(_Block(dim, kernel_size, act) for _ in range(depth)))
        self.flow = Flow(stem=[Step("stem")], stages=[Step(f"blocks.{i}", dim, patch_size) for i in range(depth)])
        self.set_global_pool(global_pool)
        self.head_drop = nn.Dropout(drop_rate)
        self.head = self.make_classifier(num_classes)
        self.init_weights()

    def norm_tap(self, x: Tensor, index: int) -> Tensor:
        return x  # blocks end in norms

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return super().group_matcher(coarse=True)  # a block's layers are one group, however fine


register_model.variants(__name__, ConvMixer, {
    "convmixer_1536_20": dict(dim=1536, depth=20),
    "convmixer_768_32": dict(dim=768, depth=32, kernel_size=7, act_layer=nn.ReLU),
    "convmixer_1024_20_ks9_p14": dict(dim=1024, depth=20, patch_size=14),
})
