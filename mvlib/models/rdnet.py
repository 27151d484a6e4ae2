"""RDNet: DenseNet, revised by what ConvNeXt taught: each block's output stays for all that follow.

Kim et al., "DenseNets Reloaded: Paradigm Shift Beyond ResNets and ViTs", 2024, arXiv:2403.19588.

A dense stage is three blocks; between two of them a transition compresses the channels, some halve the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.activations import ActLayer, get_act_layer
from ..layers.channel_attention import EffectiveSEModule
from ..layers.drop import DropPath, drop_path_rates
from ..layers.helpers import placeable
from ..layers.norm import NormLayer, get_norm_layer
from ..layers.pool import ClassifierHead, NormMlpClassifierHead
from ..layers.weight_init import init_kaiming, init_zero_bias
from ..registry import register_model
from .base import Flow, ImageModel, Inits, KeyMap, Step
from .convnext import make_stem

if TYPE_CHECKING:
    from ._variants.rdnet import *

__all__ = ["RDNet"]


class Block(nn.Module):
    """Depthwise convolution, norm, MLP of 1x1 convolutions; key `layers`. (B, in_chs, H, W) -> (B, out_chs, H, W)."""

    @placeable
    def __init__(self, in_chs: int, inter_chs: int, out_chs: int, norm_layer: NormLayer, act_layer: ActLayer) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_chs, in_chs, 7, padding=3, groups=in_chs), get_norm_layer(norm_layer)(in_chs),
            nn.Conv2d(in_chs, inter_chs, 1), get_act_layer(act_layer)(), nn.Conv2d(inter_chs, out_chs, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class BlockESE(Block):
    """`Block` with channel attention at its end."""

    @placeable
    def __init__(self, in_chs: int, inter_chs: int, out_chs: int, norm_layer: NormLayer, act_layer: ActLayer) -> None:
        super().__init__(in_chs, inter_chs, out_chs, norm_layer, act_layer)
        self.layers.append(EffectiveSEModule(out_chs))


_BLOCKS = {"block": Block, "blockese": BlockESE}


class DenseBlock(nn.Module):
    """`growth_rate` new channels from all maps so far, scaled per channel (`gamma`).

    Shapes: maps (B, C, H, W) of `num_input_features` channels together -> (B, growth_rate, H, W).

    Args:
        bottleneck_width_ratio: Hidden width of the MLP, in input channels, rounded down to a multiple of 8.
        drop_path_rate, drop_rate: Stochastic depth, and dropout, of the new channels.
        rand_gather_step_prob, block_idx: Without effect, as in timm.
        block_type: "Block" or "BlockESE".
        ls_init_value: Initial value of the scale; 0 or None for no scale.

    Raises:
        ValueError: The type of block is another.
    """

    @placeable
    def __init__(
        self, num_input_features: int = 64, growth_rate: int = 64, bottleneck_width_ratio: float = 4.0,
        drop_path_rate: float = 0.0, drop_rate: float = 0.0, rand_gather_step_prob: float = 0.0, block_idx: int = 0,
        block_type: str = "Block", ls_init_value: float | None = 1e-6, norm_layer: NormLayer = nn.LayerNorm,
        act_layer: ActLayer = nn.GELU,
    ) -> None:
        super().__init__()
        block = _BLOCKS.get(block_type.lower().strip())
        if block is None:
            raise ValueError(f"unknown block_type '{block_type}'; known: 'Block', 'BlockESE'")
        self.drop_rate, self.ls_init_value = drop_rate, ls_init_value
        self.gamma = nn.Parameter(torch.empty(growth_rate)) if ls_init_value else None
        self.drop_path = DropPath(drop_path_rate)
        hidden = int(num_input_features * bottleneck_width_ratio / 8) * 8
        self.layers = block(num_input_features, hidden, growth_rate, norm_layer, act_layer)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.gamma is not None and self.ls_init_value is not None:
            nn.init.constant_(self.gamma, self.ls_init_value)

    def forward(self, x: list[Tensor]) -> Tensor:
        new = self.layers(torch.cat(x, dim=1))
        if self.gamma is not None:
            new = new * self.gamma.view(-1, 1, 1)
        new = self.drop_path(new)
        return F.dropout(new, self.drop_rate, self.training) if self.drop_rate > 0.0 else new


class DenseStage(nn.Sequential):
    """Blocks that each read the input and what all before them gave; keys `dense_block0`, ...

    Shapes: (B, num_input_features, H, W) -> (B, num_input_features + num_block * growth_rate, H, W).
    """

    @placeable
    def __init__(
        self, num_block: int, num_input_features: int, drop_path_rates: Sequence[float], growth_rate: int, **kwargs: Any
    ) -> None:
        super().__init__()
        for i in range(num_block):
            self.add_module(f"dense_block{i}", DenseBlock(
                num_input_features, growth_rate, drop_path_rate=drop_path_rates[i], block_idx=i, **kwargs))
            num_input_features += growth_rate
        self.num_out_features = num_input_features

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for block in self:
            maps.append(block(maps))
        return torch.cat(maps, dim=1)


class RDNet(ImageModel):
    """A stem, dense stages with transitions between them, and a head that pools, normalises and classifies.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features have a stride of 32 with a stem of stride 4.

    Args:
        global_pool: "avg", "max", "avgmax", "" for none; "catavgmax" too where `head_norm_first`.
        growth_rates, num_blocks_list, block_type: New channels of each block, blocks, and their type, by stage.
        is_downsample_block: Whether the transition in front of a stage halves the map.
        bottleneck_width_ratio, ls_init_value: As of `DenseBlock`.
        transition_compression_ratio: Share of the channels that a transition keeps.
        stem_type, patch_size, head_norm_first, conv_bias: As of `ConvNeXt`; the bias is the stem's.
        num_init_features: Channels of the stem.
        head_init_scale: Factor on the classifier's initial weights.
        norm_eps: The norms' epsilon; their own unless given.
        proj_drop_rate: Dropout of each block's new channels.

    Raises:
        ValueError: The lists are not of one length, or an option has an unknown value.
    """

    head_path: ClassVar[str] = "head"
    feature_form: ClassVar[str] = "flat"
    tap_norm: ClassVar[str] = "last"
    norm_path: ClassVar[str] = "norm_pre"
    inits: ClassVar[Inits] = {nn.Conv2d: partial(init_kaiming, mode="fan_in"), nn.Linear: init_zero_bias}

    def __init__(
        self, in_chans: int = 3, num_classes: int = 1000, global_pool: str = "avg",
        growth_rates: Sequence[int] = (64, 104, 128, 128, 128, 128, 224),
        num_blocks_list: Sequence[int] = (3, 3, 3, 3, 3, 3, 3),
        block_type: Sequence[str] = ("Block",) * 2 + ("BlockESE",) * 5,
        is_downsample_block: Sequence[bool | None] = (None, True, True, False, False, False, True),
        bottleneck_width_ratio: float = 4.0, transition_compression_ratio: float = 0.5,
        ls_init_value: float | None = 1e-6, stem_type: str = "patch", patch_size: int = 4, num_init_features: int = 64,
        head_init_scale: float = 1.0, head_norm_first: bool = False, conv_bias: bool = True,
        act_layer: ActLayer = "gelu", norm_layer: NormLayer = "layernorm2d", norm_eps: float | None = None,
        drop_rate: float = 0.0, proj_drop_rate: float = 0.0, drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        lengths = {len(each) for each in (growth_rates, num_blocks_list, is_downsample_block)}
        if len(lengths) != 1 or len(block_type) < max(lengths):
            raise ValueError("growth_rates, num_blocks_list, is_downsample_block and block_type have one value a stage")
        self.num_classes, self.in_chans, self.head_init_scale = num_classes, in_chans, head_init_scale
        norm = get_norm_layer(norm_layer) if norm_eps is None else partial(get_norm_layer(norm_layer), eps=norm_eps)
        chs, reduction = num_init_features, patch_size if stem_type == "patch" else 4
        self.stem = make_stem(stem_type, in_chans, chs, patch_size, conv_bias, act_layer, norm)
        self.growth_rates = tuple(growth_rates)
        self.dense_stages = nn.Sequential()
        self.flow = Flow(stem=[Step("stem")], stages=[], tail=[Step("norm_pre")])
        shrinks = [*is_downsample_block[1:], True]  # whether the map of a stage is its resolution's last
        for i, rates in enumerate(drop_path_rates(drop_path_rate, num_blocks_list)):
            layers: list[nn.Module] = []
            if i > 0:
                compressed, stride = int(chs * transition_compression_ratio / 8) * 8, 2 if is_downsample_block[i] else 1
                layers = [norm(chs), nn.Conv2d(chs, compressed, stride, stride)]
                chs, reduction = compressed, reduction * stride
            stage = DenseStage(
                len(rates), chs, rates, growth_rates[i], bottleneck_width_ratio=bottleneck_width_ratio,
                drop_rate=proj_drop_rate, ls_init_value=ls_init_value, block_type=block_type[i], norm_layer=norm,
                act_layer=act_layer)
            self.dense_stages.append(nn.Sequential(*layers, stage))
            chs = stage.num_out_features
            path = f"dense_stages.{i}"
            self.flow.stages.append(Step(path, chs, reduction) if shrinks[i] else Step(path))
        self.norm_pre = norm(chs) if head_norm_first else nn.Identity()
        self.add_head(ClassifierHead(chs, num_classes, global_pool, drop_rate) if head_norm_first else
                      NormMlpClassifierHead(chs, num_classes, None, global_pool, drop_rate, norm))

    def init_module(self, name: str, module: nn.Module) -> None:
        super().init_module(name, module)
        if isinstance(module, nn.Linear):
            module.weight.mul_(self.head_init_scale)

    def tap_facts(self, module: str) -> dict[str, Any]:
        """`growth_rate`: channels that each block of the tap's stage adds."""
        return {"growth_rate": self.growth_rates[int(module.rpartition(".")[2])]}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return dict(stem=r"^stem", blocks=r"^dense_stages\.(\d+)")


def _deep(stages: int, first: int, last: int, middle: int, second: int) -> dict[str, Any]:
    """Dense stages, all but four of `middle` growth; the map halves before the second, third and last but one."""
    return dict(
        growth_rates=(first, second, *(middle,) * (stages - 4), last, last), num_blocks_list=(3,) * stages,
        is_downsample_block=(None, True, True, *(False,) * (stages - 5), True, False),
        block_type=("Block",) * 2 + ("BlockESE",) * (stages - 2))


register_model.variants(__name__, RDNet, {
    "rdnet_tiny": {},
    "rdnet_small": dict(_deep(11, 64, 240, 128, 128), num_init_features=72),
    "rdnet_base": dict(_deep(11, 96, 336, 168, 128), num_init_features=120),
    "rdnet_large": dict(_deep(12, 128, 360, 256, 192), num_init_features=144),
})

RDNet.key_maps = (KeyMap.renaming("authors", "stem.stem.0.weight", (r"^stem\.stem\.", "stem.")),)
