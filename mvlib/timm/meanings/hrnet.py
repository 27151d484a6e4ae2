"""HRNet as a feature extractor by its config, as timm's class for that takes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...features import FeatureExtractor
from ...models.resnet import BasicBlock, Block, Bottleneck
from . import configs

__all__ = ["HighResolutionNetFeatures", "block_types_dict", "hrnet_head"]

block_types_dict: dict[str, Block] = {"BASIC": BasicBlock, "BOTTLENECK": Bottleneck}


def hrnet_head(feature_location: str) -> str:
    """The head of a model whose features are taken here: "incre", widened maps, or "", those of the last stage.

    Raises:
        ValueError: It is neither.
    """
    if feature_location not in ("incre", ""):
        raise ValueError(f"unknown feature_location {feature_location!r}; known: 'incre', ''")
    return "classification" if feature_location else ""


class HighResolutionNetFeatures(FeatureExtractor):
    """Image (B, in_chans, H, W) -> list of feature maps in order of depth: the stem's, and one of each resolution.

    Args:
        cfg: A config of `cfg_cls`; `kwargs` replace its entries.
        in_chans: Channels of the image.
        num_classes, global_pool, drop_rate: Without effect: there is no classifier.
        output_stride: 32 alone.
        feature_location: "incre" for widened maps, "" for those of the last stage.
        out_indices: Which features.

    Raises:
        ValueError: An option has an unknown value, or an index is out of range.
    """

    def __init__(
        self,
        cfg: Mapping[str, Any],
        in_chans: int = 3,
        num_classes: int = 1000,
        output_stride: int = 32,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        feature_location: str = "incre",
        out_indices: int | Sequence[int] = (0, 1, 2, 3, 4),
        **kwargs: Any,
    ) -> None:
        model = configs.HighResolutionNet(
            cfg, in_chans, num_classes=0, output_stride=output_stride, head=hrnet_head(feature_location), **kwargs)
        super().__init__(model, out_indices)
