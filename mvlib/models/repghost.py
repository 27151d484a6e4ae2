"""RepGhost: GhostNet's cheap features are added, not put beside, so that each module becomes two convolutions.

Chen et al., "RepGhost: A Hardware-Efficient Ghost Module via Re-parameterization", 2022, arXiv:2211.06088.

While it is trained, the input of a depthwise convolution is added to its output, behind a batch norm; `mvlib.optimize`
(or `reparameterize()`) merges both. Stem, stages and head are GhostNet's. The number is the width in hundredths.
Initial weights are torch's own, as timm's.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..layers.branches import merge_branches, one_branch, reparameterize, spread_merged, sum_branches
from ..layers.conv import conv_norm
from ..layers.helpers import placeable
from ..registry import register_model
from .base import KeyMap, StateDict
from .ghostnet import Bottleneck, GhostBackbone

if TYPE_CHECKING:
    from ._variants.repghost import *

__all__ = ["RepGhostBottleneck", "RepGhostModule", "RepGhostNet", "repghost_model_convert"]

Layer = Callable[..., nn.Module]


class RepGhostModule(nn.Module):
    """A convolution, then the sum of a depthwise convolution of what that gives and of that itself, each with a norm.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride). Keys `primary_conv`, `fusion_bn`,
    `cheap_operation`. `reparameterize()` makes one convolution of the sum, in the place of `cheap_operation`.

    Args:
        kernel_size, stride: Of the first convolution.
        dw_size: Kernel of the depthwise convolution.
        relu: Whether there are activations, behind the first convolution and behind the sum.
        reparam: Whether the depthwise convolution's input is added.
    """

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, kernel_size: int = 1, dw_size: int = 3, stride: int = 1, relu: bool = True,
        reparam: bool = True,
    ) -> None:
        super().__init__()
        self.out_chs = out_chs
        self.primary_conv = nn.Sequential(
            *conv_norm(in_chs, out_chs, kernel_size, stride), nn.ReLU(inplace=True) if relu else nn.Identity())
        self.fusion_conv = nn.Sequential(*[nn.Identity()] * reparam)  # timm's, without effect
        self.fusion_bn = nn.Sequential(*[nn.BatchNorm2d(out_chs) for _ in range(reparam)])
        self.cheap_operation: nn.Module = nn.Sequential(*conv_norm(out_chs, out_chs, dw_size, groups=out_chs))
        self.relu = nn.ReLU() if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(sum_branches([self.cheap_operation, *self.fusion_bn], self.primary_conv(x)))

    @property
    def is_reparameterized(self) -> bool:
        return isinstance(self.cheap_operation, nn.Conv2d)

    def reparameterize(self) -> RepGhostModule:
        if isinstance(self.cheap_operation, nn.Sequential):
            branches, conv = [self.cheap_operation, *self.fusion_bn], self.cheap_operation[0]
            assert isinstance(conv, nn.Conv2d)
            self.cheap_operation = merge_branches(branches, like=conv)
            self.fusion_conv, self.fusion_bn = nn.Sequential(), nn.Sequential()
        return self

    switch_to_deploy = reparameterize
    merged_path = "cheap_operation"

    def spread(self, weight: Tensor, bias: Tensor) -> StateDict:
        """For `spread_merged`."""
        conv, norm = "cheap_operation.0", "cheap_operation.1"
        return one_branch(self, ("fusion_bn", "cheap_operation"), conv, norm, weight, bias)


class RepGhostBottleneck(Bottleneck):
    """A ghost module that widens, a strided depthwise convolution, one that narrows, and a shortcut.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride). Arguments as of `GhostBottleneck`, `reparam` as
    of `RepGhostModule`; `act_layer` is without effect, as in timm.
    """

    @placeable
    def __init__(
        self, in_chs: int, mid_chs: int, out_chs: int, dw_kernel_size: int = 3, stride: int = 1,
        act_layer: Layer = nn.ReLU, se_ratio: float = 0.0, reparam: bool = True,
    ) -> None:
        super().__init__()
        module = partial(RepGhostModule, reparam=reparam)
        self.build(module(in_chs, mid_chs), module(mid_chs, out_chs, relu=False),
                   in_chs, mid_chs, out_chs, dw_kernel_size, stride, se_ratio)


# Of each stage, its blocks: kernel size, channels between, channels, ratio of squeeze-and-excitation, stride.
_CFGS = (
    ((3, 8, 16, 0, 1),), ((3, 24, 24, 0, 2),), ((3, 36, 24, 0, 1),), ((5, 36, 40, 0.25, 2),), ((5, 60, 40, 0.25, 1),),
    ((3, 120, 80, 0, 2),),
    ((3, 100, 80, 0, 1), (3, 120, 80, 0, 1), (3, 120, 80, 0, 1), (3, 240, 112, 0.25, 1), (3, 336, 112, 0.25, 1)),
    ((5, 336, 160, 0.25, 2),), ((5, 480, 160, 0, 1), (5, 480, 160, 0.25, 1)) * 2,
)


class RepGhostNet(GhostBackbone):
    """GhostNet's stem and head, stages of RepGhost bottlenecks.

    Shapes, arguments and errors as `GhostNet`'s; `reparam`, whether modules have branches: without them they are not
    what the merged ones are.
    """

    def __init__(
        self, cfgs: Sequence[Sequence[Sequence[float]]] = _CFGS, num_classes: int = 1000, width: float = 1.0,
        in_chans: int = 3, output_stride: int = 32, global_pool: str = "avg", drop_rate: float = 0.2,
        reparam: bool = True,
    ) -> None:
        super().__init__()
        self.build(lambda i: partial(RepGhostBottleneck, reparam=reparam), 2,
                   cfgs, num_classes, width, in_chans, output_stride, global_pool, drop_rate)


def repghost_model_convert(
    model: nn.Module, save_path: str | os.PathLike[str] | None = None, do_copy: bool = True
) -> nn.Module:
    """A model whose branches are merged, a copy where `do_copy`; its state dict is saved to `save_path`, if given."""
    model = copy.deepcopy(model) if do_copy else model
    reparameterize(model)
    if save_path is not None:
        torch.save(model.state_dict(), save_path)
    return model


register_model.variants(__name__, RepGhostNet, {
    "repghostnet_050": dict(width=0.5),
    "repghostnet_058": dict(width=0.58),
    "repghostnet_080": dict(width=0.8),
    "repghostnet_100": {},
    "repghostnet_111": dict(width=1.11),
    "repghostnet_130": dict(width=1.3),
    "repghostnet_150": dict(width=1.5),
    "repghostnet_200": dict(width=2.0),
})

RepGhostNet.key_maps = (
    KeyMap("merged", lambda keys: any(key.endswith(".cheap_operation.weight") for key in keys), spread_merged),
)
