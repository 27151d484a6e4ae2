"""EfficientNet and MobileNetV3 as feature extractors by their blocks, as timm's classes for that take them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from ...features import FeatureExtractor
from ...layers.activations import ActLayer
from ...layers.blur_pool import AaLayer
from ...layers.helpers import placeable
from ...layers.norm import NormLayer
from ...layers.padding import Padding
from ...models.efficientnet import EfficientNet
from ...models.efficientnet_blocks import MobileModel, round_channels
from ...models.mobilenetv3 import MobileNetV3
from .features import FeatureHooks

__all__ = ["EfficientNetFeatures", "MobileNetV3Features"]

BlockDefs = Sequence[Sequence[str | Mapping[str, Any]]]


class _MobileFeatures(FeatureExtractor):
    """Image (B, in_chans, H, W) -> list of feature maps in order of depth; keys `conv_stem`, `bn1`, `blocks`.

    Args of the classes below: as their models', and

        out_indices: Which features.
        feature_location: "bottleneck", a stage's output, or "expansion", what the last block's projection takes.

    Raises:
        ValueError: An option has an unknown value, or an index is out of range.
    """

    def __init__(self, model: MobileModel, out_indices: int | Sequence[int], feature_location: str) -> None:
        if feature_location not in ("bottleneck", "expansion"):
            raise ValueError(f"unknown feature_location '{feature_location}'; known: bottleneck, expansion")
        super().__init__(model, out_indices)
        self.feature_hooks = None
        if feature_location == "expansion":
            blocks: Any = model.blocks
            for tap in self.feature_info.info:
                if tap["stage"]:  # the stem's stays
                    stage = tap["stage"] - 1
                    info = blocks[stage][-1].feature_info(feature_location)
                    tap.update(info, module=f"blocks.{stage}.{len(blocks[stage]) - 1}.{info['module']}")
            self.feature_hooks = FeatureHooks(self.feature_info.get_dicts(), self.named_modules())

    def forward(self, x: Tensor) -> Any:
        features = super().forward(x)
        return features if self.feature_hooks is None else list(self.feature_hooks.get_output(x.device).values())


class EfficientNetFeatures(_MobileFeatures):
    """Features of an `EfficientNet`; see its base class."""

    @placeable
    def __init__(
        self,
        block_args: BlockDefs,
        out_indices: int | Sequence[int] = (0, 1, 2, 3, 4),
        feature_location: str = "bottleneck",
        in_chans: int = 3,
        stem_size: int = 32,
        stem_kernel_size: int = 3,
        fix_stem: bool = False,
        output_stride: int = 32,
        pad_type: Padding = "",
        act_layer: ActLayer = None,
        norm_layer: NormLayer = None,
        aa_layer: AaLayer = None,
        se_layer: Any = None,
        round_chs_fn: Callable[..., int] = round_channels,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        model = EfficientNet(
            block_args, 0, 0, in_chans, stem_size, stem_kernel_size, fix_stem, output_stride, pad_type, act_layer,
            norm_layer, aa_layer, se_layer, round_chs_fn, drop_rate, drop_path_rate)
        super().__init__(model, out_indices, feature_location)


class MobileNetV3Features(_MobileFeatures):
    """Features of a `MobileNetV3`; see its base class."""

    @placeable
    def __init__(
        self,
        block_args: BlockDefs,
        out_indices: int | Sequence[int] = (0, 1, 2, 3, 4),
        feature_location: str = "bottleneck",
        in_chans: int = 3,
        stem_size: int = 16,
        fix_stem: bool = False,
        output_stride: int = 32,
        pad_type: Padding = "",
        round_chs_fn: Callable[..., int] = round_channels,
        se_from_exp: bool = True,
        act_layer: ActLayer = None,
        norm_layer: NormLayer = None,
        aa_layer: AaLayer = None,
        se_layer: Any = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float | None = None,
    ) -> None:
        model = MobileNetV3(
            block_args, 0, in_chans, stem_size, num_features=8, fix_stem=fix_stem, output_stride=output_stride,
            pad_type=pad_type, round_chs_fn=round_chs_fn, se_from_exp=se_from_exp, act_layer=act_layer,
            norm_layer=norm_layer, aa_layer=aa_layer, se_layer=se_layer, drop_rate=drop_rate,
            drop_path_rate=drop_path_rate, layer_scale_init_value=layer_scale_init_value)
        super().__init__(model, out_indices, feature_location)
