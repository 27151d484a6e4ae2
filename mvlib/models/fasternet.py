"""FasterNet: 3x3 convolutions of a quarter of the channels, and 1x1 convolutions that spread what they find.

Chen et al., "Run, Don't Walk: Chasing Higher FLOPS for Faster Neural Networks", 2023, arXiv:2303.03667.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ..layers import ActLayer, ScaledBlock, Stage, get_act_layer, init_trunc_normal, placeable, scaled, to_1tuple
from ..layers.drop import DropPath, drop_path_rates
from ..layers.norm import NormLayer, get_norm_layer
from ..layers.pool import make_narrow_pool
from ..registry import register_model
from .base import Flow, Inits, Step
from .efficientnet_blocks import PooledConvHead

if TYPE_CHECKING:
    from ._variants.fasternet import *

__all__ = ["FasterNet"]

_RELU = partial(nn.ReLU, inplace=True)


class Partial_conv3(nn.Module):
    """A 3x3 convolution of the first `dim // n_div` channels; the others pass. Shapes: (B, dim, H, W) -> same.

    `forward` is "split_cat" or "slicing", which are two ways to the same in timm and one here.

    Raises:
        ValueError: It is another.
    """

    @placeable
    def __init__(self, dim: int, n_div: int, forward: str = "split_cat") -> None:
        super().__init__()
        if forward not in ("split_cat", "slicing"):
            raise ValueError(f"pconv_fw_type is 'split_cat' or 'slicing', not {forward!r}")
        self.dim_conv3 = dim // n_div
        self.dim_untouched = dim - self.dim_conv3
        self.partial_conv3 = nn.Conv2d(self.dim_conv3, self.dim_conv3, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        convolved, same = x.split([self.dim_conv3, self.dim_untouched], dim=1)
        return torch.cat((self.partial_conv3(convolved), same), dim=1)


class MLPBlock(ScaledBlock):
    """`Partial_conv3` and an MLP, scaled unless by 0, beside a shortcut; (B, dim, H, W) -> same."""

    @placeable
    def __init__(
        self, dim: int, n_div: int, mlp_ratio: float, drop_path: float, layer_scale_init_value: float,
        act_layer: ActLayer = _RELU, norm_layer: NormLayer = nn.BatchNorm2d, pconv_fw_type: str = "split_cat",
    ) -> None:
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.mlp = nn.Sequential(
            nn.Conv2d(dim, hidden, 1, bias=False), get_norm_layer(norm_layer)(hidden), get_act_layer(act_layer)(),
            nn.Conv2d(hidden, dim, 1, bias=False))
        self.spatial_mixing = Partial_conv3(dim, n_div, pconv_fw_type)
        self.add_scales(layer_scale_init_value if layer_scale_init_value > 0 else None, dim, "layer_scale")
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(scaled(self.mlp(self.spatial_mixing(x)), self.layer_scale))


class PatchEmbed(nn.Module):
    """Patches of the image to vectors: a strided convolution and a norm; keys `proj`, `norm`."""

    @placeable
    def __init__(
        self, in_chans: int, embed_dim: int, patch_size: int | tuple[int, int] = 4,
        norm_layer: NormLayer = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, embed_dim, patch_size, patch_size, bias=False)
        self.norm = get_norm_layer(norm_layer)(embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x))


class PatchMerging(nn.Sequential):
    """The same between stages, for twice as many channels; keys `reduction`, `norm`."""

    @placeable
    def __init__(self, dim: int, patch_size: int | tuple[int, int] = 2, norm_layer: NormLayer = nn.BatchNorm2d) -> None:
        super().__init__()
        self.reduction = nn.Conv2d(dim, 2 * dim, patch_size, patch_size, bias=False)
        self.norm = get_norm_layer(norm_layer)(2 * dim)


class Block(Stage):
    """A stage: `PatchMerging` to `dim` channels where `use_merge`, then `depth` blocks; keys `blocks`, `downsample`.

    `drop_path` has a rate for each block; the other arguments are `MLPBlock`'s.
    """

    @placeable
    def __init__(
        self, dim: int, depth: int, n_div: int, mlp_ratio: float, drop_path: Sequence[float],
        layer_scale_init_value: float, act_layer: ActLayer = _RELU, norm_layer: NormLayer = nn.BatchNorm2d,
        pconv_fw_type: str = "split_cat", use_merge: bool = True, merge_size: int | tuple[int, int] = 2,
    ) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(
            MLPBlock(dim, n_div, mlp_ratio, drop_path[i], layer_scale_init_value, act_layer, norm_layer, pconv_fw_type)
            for i in range(depth)))
        self.downsample = PatchMerging(dim // 2, merge_size, norm_layer) if use_merge else nn.Identity()


class FasterNet(PooledConvHead):
    """Patches, stages of partial convolutions, pooling, a convolution of what is pooled, a linear classifier.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features have a stride of 32 with four stages.

    Args:
        global_pool: "avg", "max", "avgmax", or "" for none.
        embed_dim: Channels of the first stage; each further one has twice as many.
        depths: Blocks of each stage.
        mlp_ratio: Hidden width of the MLPs, in channels.
        n_div: One part of so many of the channels is convolved.
        patch_size, merge_size: Strides of the patches, and between stages.
        patch_norm: A norm behind the patches' embedding.
        feature_dim: Channels of the head's convolution.
        layer_scale_init_value: Initial value of the branches' scale; 0 for none.
        act_layer, norm_layer: Activation, and norm of feature maps.
        pconv_fw_type: As of `Partial_conv3`.
    """

    classifier_path: ClassVar[str] = "classifier"
    feature_form: ClassVar[str] = "flat"
    inits: ClassVar[Inits] = {(nn.Linear, nn.Conv2d): init_trunc_normal}

    def __init__(
        self, in_chans: int = 3, num_classes: int = 1000, global_pool: str = "avg", embed_dim: int = 96,
        depths: int | Sequence[int] = (1, 2, 8, 2), mlp_ratio: float = 2.0, n_div: int = 4,
        patch_size: int | tuple[int, int] = 4, merge_size: int | tuple[int, int] = 2, patch_norm: bool = True,
        feature_dim: int = 1280, drop_rate: float = 0.0, drop_path_rate: float = 0.1,
        layer_scale_init_value: float = 0.0, act_layer: ActLayer = _RELU, norm_layer: NormLayer = nn.BatchNorm2d,
        pconv_fw_type: str = "split_cat",
    ) -> None:
        super().__init__()
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        self.patch_embed = PatchEmbed(in_chans, embed_dim, patch_size, norm_layer if patch_norm else nn.Identity)
        self.stages = nn.Sequential()
        self.flow = Flow(stem=[Step("patch_embed")], stages=[])
        chs = embed_dim
        for i, rates in enumerate(drop_path_rates(drop_path_rate, to_1tuple(depths))):
            chs = embed_dim * 2**i
            self.stages.append(Block(
                chs, len(rates), n_div, mlp_ratio, rates, layer_scale_init_value, act_layer, norm_layer, pconv_fw_type,
                i > 0, merge_size))
            self.flow.stages.append(Step(f"stages.{i}", chs, 4 * 2**i))
        self.num_features, self.head_hidden_size = chs, feature_dim
        self.global_pool = make_narrow_pool(global_pool)
        self.conv_head = nn.Conv2d(chs, feature_dim, 1, bias=False)
        self.norm_head = nn.Identity()
        self.act2 = get_act_layer(act_layer)()
        self.classifier = self.make_classifier(num_classes)
        self.init_weights()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        matcher = super().group_matcher(coarse)
        return matcher if coarse else {**matcher, "blocks": [*matcher["blocks"], (r"^conv_head", (99999,))]}


register_model.variants(__name__, FasterNet, {
    "fasternet_t0": dict(embed_dim=40, drop_path_rate=0.0, act_layer="gelu"),
    "fasternet_t1": dict(embed_dim=64, drop_path_rate=0.02, act_layer="gelu"),
    "fasternet_t2": dict(drop_path_rate=0.05),
    "fasternet_s": dict(embed_dim=128, depths=(1, 2, 13, 2)),
    "fasternet_m": dict(embed_dim=144, depths=(3, 4, 18, 3), drop_path_rate=0.2),
    "fasternet_l": dict(embed_dim=192, depths=(3, 4, 18, 3), drop_path_rate=0.3),
})
