"""HRNet: maps of several resolutions side by side, which exchange what they know after every module.

Wang et al., "Deep High-Resolution Representation Learning for Visual Recognition", 2019, arXiv:1908.07919.
The number in a name is the width of the finest map; each coarser one is twice as wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from ..layers.helpers import check_choice, placeable
from ..layers.weight_init import init_kaiming
from ..registry import register_model
from .base import Flow, ImageModel, Indices, Inits, StateDict, Step
from .resnet import BasicBlock, Block, Bottleneck

if TYPE_CHECKING:
    from ._variants.hrnet import *

__all__ = ["HighResolutionModule", "HighResolutionNet"]

Maps = list[Tensor]
_HEAD_CHS = (32, 64, 128, 256)
_BODY = ("conv2", "bn2", "act2", "layer1", "transition1", "stage2", "transition2", "stage3", "transition3")


def _conv_norm(
    in_chs: int, out_chs: int, kernel_size: int = 3, stride: int = 1, act: bool = True, bias: bool = False
) -> nn.Sequential:
    layers = nn.Sequential(
        nn.Conv2d(in_chs, out_chs, kernel_size, stride, kernel_size // 2, bias=bias), nn.BatchNorm2d(out_chs))
    return layers.append(nn.ReLU()) if act else layers


def _blocks(block: Block, in_chs: int, planes: int, depth: int) -> nn.Sequential:
    out_chs = planes * block.expansion
    downsample = _conv_norm(in_chs, out_chs, 1, act=False) if in_chs != out_chs else None
    return nn.Sequential(
        block(in_chs, planes, downsample=downsample), *(block(out_chs, planes) for _ in range(depth - 1)))


class HighResolutionModule(nn.Module):
    """Blocks on each map, then each map becomes the sum of all, resized; a single map is not resized.

    Shapes: maps of `num_in_chs` channels, each of half the size of the one before -> as many, of `num_channels` times
    the blocks' expansion; without `multi_scale_output` the finest alone.

    Args:
        num_branches: Maps.
        block_types: Class of the blocks.
        num_blocks, num_in_chs, num_channels: Of each map: blocks, channels, channels of the blocks.
        fuse_method: How maps are joined; they are summed, whatever this is.

    Raises:
        ValueError: There is not a number for each map.
    """

    @placeable
    def __init__(
        self, num_branches: int, block_types: Block, num_blocks: Sequence[int], num_in_chs: Sequence[int],
        num_channels: Sequence[int], fuse_method: str, multi_scale_output: bool = True,
    ) -> None:
        super().__init__()
        for name, numbers in (("num_blocks", num_blocks), ("num_channels", num_channels), ("num_in_chs", num_in_chs)):
            if len(numbers) != num_branches:
                raise ValueError(f"{name} has a number for each of {num_branches} branches, not {len(numbers)}")
        self.num_branches, self.fuse_method, self.multi_scale_output = num_branches, fuse_method, multi_scale_output
        self.branches = Branches(map(partial(_blocks, block_types), num_in_chs, num_channels, num_blocks))
        self.num_in_chs = chs = [c * block_types.expansion for c in num_channels]
        every = range(num_branches)
        self.fuse_layers: Any = nn.Identity() if num_branches == 1 else nn.ModuleList(
            nn.ModuleList(self._resize(chs, source, target) for source in every)
            for target in (every if multi_scale_output else [0]))
        self.fuse_act = nn.ReLU()

    @staticmethod
    def _resize(chs: Sequence[int], source: int, target: int) -> nn.Module:
        if source == target:
            return nn.Identity()
        if source > target:
            up = _conv_norm(chs[source], chs[target], 1, act=False)
            return up.append(nn.Upsample(scale_factor=2 ** (source - target), mode="nearest"))
        return nn.Sequential(*(
            _conv_norm(chs[source], chs[target] if i == target else chs[source], stride=2, act=i != target)
            for i in range(source + 1, target + 1)))

    def get_num_in_chs(self) -> list[int]:
        """Channels of each map of the output."""
        return self.num_in_chs

    def forward(self, x: Maps) -> Maps:
        maps = self.branches(x)
        if self.num_branches == 1:
            return maps
        return [self.fuse_act(sum(resize(x) for resize, x in zip(row, maps))) for row in self.fuse_layers]


class Split(nn.ModuleList):
    """One map -> a map of each layer."""

    def forward(self, x: Tensor) -> Maps:
        return [layer(x) for layer in self]


class Extend(nn.ModuleList):
    """Maps -> the same and a coarser one, which the last layer makes of the coarsest."""

    def forward(self, maps: Maps) -> Maps:
        return [*maps, self[-1](maps[-1])]


class Branches(nn.ModuleList):
    """Each map through a layer of its own."""

    def forward(self, maps: Maps) -> Maps:
        return [layer(x) for layer, x in zip(self, maps)]


class Join(nn.ModuleList):
    """Maps -> one as the coarsest: from fine to coarse, each layer halves the sum so far."""

    def forward(self, maps: Maps) -> Tensor:
        x, *coarser = maps
        for halve, y in zip(self, coarser):
            x = y + halve(x)
        return x


class HighResolutionNet(ImageModel):
    """A stem, `layer1`, three stages of 2, 3 and 4 resolutions, and a head that joins them from fine to coarse.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); features have a stride of 32, taps strides of 2 to 32.

    Args:
        width: Channels of the finest map.
        modules: How often each of the stages exchanges.
        first: Width and depth of `layer1`.
        depth: Blocks of a branch between two exchanges.
        head_conv_bias: Whether the head's convolutions have biases.
        head: "classification", or "" for none: the model gives a list of the maps of all resolutions, and
            `num_classes` is 0.

    Raises:
        ValueError: The head is unknown.
    """

    classifier_path: ClassVar[str] = "classifier"
    feature_form: ClassVar[str] = "body"
    inits: ClassVar[Inits] = {nn.Conv2d: init_kaiming}

    def __init__(
        self, width: int = 18, modules: Sequence[int] = (1, 4, 3), first: tuple[int, int] = (64, 4), depth: int = 4,
        head_conv_bias: bool = True, num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg",
        drop_rate: float = 0.0, head: str = "classification",
    ) -> None:
        super().__init__()
        check_choice("head", head, ("classification", ""))
        self.in_chans, self.head = in_chans, head
        self.conv1, self.bn1 = _conv_norm(in_chans, 64, stride=2, act=False)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2, self.bn2 = _conv_norm(64, 64, stride=2, act=False)
        self.act2 = nn.ReLU(inplace=True)
        self.layer1 = _blocks(Bottleneck, 64, *first)
        chs: list[int] = [first[0] * Bottleneck.expansion]
        for stage, count in enumerate(modules, start=1):
            wanted = [width * 2**i for i in range(stage + 1)]
            fitted = [nn.Identity() if have == want else _conv_norm(have, want) for have, want in zip(chs, wanted)]
            coarser = nn.Sequential(_conv_norm(chs[-1], wanted[-1], stride=2))
            self.add_module(f"transition{stage}", (Split if stage == 1 else Extend)([*fitted, coarser]))
            self.add_module(f"stage{stage + 1}", nn.Sequential(*(
                HighResolutionModule(len(wanted), BasicBlock, [depth] * len(wanted), wanted, wanted, "SUM")
                for _ in range(count))))
            chs = wanted
        self.flow = Flow(
            stem=[Step("conv1"), Step("bn1"), Step("act1", 64, 2, module="stem")], stages=[*map(Step, _BODY)])
        taps: dict[str, Any] = dict(reduction=(4, 8, 16, 32), module=tuple(f"stage{i}" for i in range(1, 5)))
        if head:
            out_chs = tuple(c * Bottleneck.expansion for c in _HEAD_CHS)
            self.incre_modules = Branches(_blocks(Bottleneck, c, planes, 1) for c, planes in zip(chs, _HEAD_CHS))
            self.downsamp_modules = Join(
                _conv_norm(a, b, stride=2, bias=head_conv_bias) for a, b in zip(out_chs, out_chs[1:]))
            self.num_classes, self.drop_rate = num_classes, drop_rate
            self.final_layer = _conv_norm(out_chs[-1], 2048, 1, bias=head_conv_bias)
            self.flow.stages += [Step("stage4"), Step("incre_modules", out_chs, **taps)]
            self.flow.neck = [Step("downsamp_modules"), Step("final_layer")]
            self.add_classifier(2048, num_classes, global_pool)
        else:
            self.flow.stages.append(Step("stage4", tuple(chs), **taps))
            self.num_features = self.head_hidden_size = 256
            self.num_classes, self.global_pool, self.classifier = 0, nn.Identity(), nn.Identity()
            self.init_weights()

    def prune_intermediate_layers(
        self, indices: Indices = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        taken = super().prune_intermediate_layers(indices, prune_norm, prune_head)
        if self.head and (count := max(taken)):  # the maps come together; what widens the coarser ones goes
            *before, last = self.flow.stages
            chs, reduction, module = zip(*((tap.chs, tap.reduction, tap.module) for tap in last.taps[:count]))
            self.flow.stages = [*before, replace(last, chs=chs, reduction=reduction, module=module)]
            del self.incre_modules[count:]
        return taken

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        blocks = r"^(?:layer|stage|transition)(\d+)" if coarse else [
            (r"^layer(\d+)\.(\d+)", None), (r"^stage(\d+)\.(\d+)", None), (r"^transition(\d+)", (99999,))]
        return dict(stem=r"^conv[12]|bn[12]", blocks=blocks)

    def fit_state_dict(self, state_dict: StateDict) -> StateDict:
        """Of a head that is left out, a file's tensors are not needed."""
        left_out = () if self.head else ("incre_modules", "downsamp_modules", "final_layer", "classifier")
        return {key: value for key, value in state_dict.items() if key.partition(".")[0] not in left_out}


register_model.variants(__name__, HighResolutionNet, {
    "hrnet_w18_small": dict(width=16, modules=(1, 1, 1), first=(32, 1), depth=2),
    "hrnet_w18_small_v2": dict(modules=(1, 3, 2), first=(64, 2), depth=2),
    **{f"hrnet_w{width}": dict(width=width) for width in (18, 30, 32, 40, 44, 48, 64)},
    **{f"hrnet_w{width}_ssld": dict(width=width, head_conv_bias=False) for width in (18, 48)},
})
