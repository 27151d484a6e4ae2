"""Dual path networks: of a block's output one part is added to the path before it, the other is appended.

Chen et al., "Dual Path Networks", 2017, arXiv:1707.01629; the number in a name is the authors', but for dpn48b, timm's.
In the "b" models the two parts come of two convolutions.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ..layers.activations import ActLayer
from ..layers.conv import ConvNormAct, create_conv2d
from ..layers.helpers import check_choice, placeable
from ..layers.norm import BatchNormAct2d, NormLayer, get_norm_act_layer
from ..registry import register_model
from .base import Flow, ImageModel, Step

if TYPE_CHECKING:
    from ._variants.dpn import *

__all__ = ["DPN", "BnAct", "BnActConv2d", "DualPathBlock"]

Layer = Callable[..., nn.Module]

_EPS = 1e-3


class BnAct(nn.Module):
    """Norm and ReLU; key `bn`. Shapes: (B, in_chs, H, W) -> same."""

    @placeable
    def __init__(self, in_chs: int, norm_layer: Layer = BatchNormAct2d) -> None:
        super().__init__()
        self.bn = norm_layer(in_chs, eps=_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(x)


class BnActConv2d(BnAct):
    """Norm, ReLU and a convolution; keys `bn`, `conv`. (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride)."""

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, kernel_size: int, stride: int, groups: int = 1,
        norm_layer: Layer = BatchNormAct2d,
    ) -> None:
        super().__init__(in_chs, norm_layer)
        self.conv = create_conv2d(in_chs, out_chs, kernel_size, stride, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.bn(x))


class DualPathBlock(nn.Module):
    """Convolutions of 1x1, 3x3 in groups and 1x1, whose first channels are added and whose last are appended.

    Shapes: (B, in_chs, H, W) -> (B, num_1x1_c + D, H / stride, W / stride): the first `num_1x1_c` channels are the
    residual path, the others the dense one. D is that of the input and `inc`; 3 * `inc` where the shortcut is a
    projection, as in a `block_type` of "proj" and of "down", which has a stride of 2.

    Args:
        num_1x1_a, num_3x3_b, groups: Output channels of the first two convolutions, and groups of the second.
        b: Both parts of the output have a convolution of their own.

    Raises:
        ValueError: The type is unknown.
    """

    @placeable
    def __init__(
        self, in_chs: int, num_1x1_a: int, num_3x3_b: int, num_1x1_c: int, inc: int, groups: int,
        block_type: str = "normal", b: bool = False,
    ) -> None:
        super().__init__()
        check_choice("block_type", block_type, ("proj", "down", "normal"))
        self.chs, self.b, stride = num_1x1_c, b, 2 if block_type == "down" else 1
        self.project = f"c1x1_w_s{stride}" if block_type != "normal" else ""
        if self.project:
            self.add_module(self.project, BnActConv2d(in_chs, num_1x1_c + 2 * inc, 1, stride))
        self.c1x1_a = BnActConv2d(in_chs, num_1x1_a, 1, 1)
        self.c3x3_b = BnActConv2d(num_1x1_a, num_3x3_b, 3, stride, groups)
        if b:
            self.c1x1_c: nn.Module = BnAct(num_3x3_b)
            self.c1x1_c1, self.c1x1_c2 = create_conv2d(num_3x3_b, num_1x1_c, 1), create_conv2d(num_3x3_b, inc, 1)
        else:
            self.c1x1_c = BnActConv2d(num_3x3_b, num_1x1_c + inc, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = getattr(self, self.project)(x) if self.project else x
        x = self.c1x1_c(self.c3x3_b(self.c1x1_a(x)))
        added, appended = (self.c1x1_c1(x), self.c1x1_c2(x)) if self.b else (x[:, :self.chs], x[:, self.chs:])
        return torch.cat((shortcut[:, :self.chs] + added, shortcut[:, self.chs:], appended), dim=1)


class DPN(ImageModel):
    """A convolution and a max pool, stages of dual paths, norm, pooling, and a classifier of 1x1 convolution.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features have a stride of 32.

    Args:
        k_sec, inc_sec: Blocks of each stage, and channels that each of them appends.
        k_r, groups: Channels of the 3x3 convolutions in the first stage, doubled in each one behind, and their groups.
        small: A quarter of the residual path's channels, and a stem of 3x3 instead of 7x7.
        num_init_features: Channels of the stem.
        b: Blocks of the second kind, see `DualPathBlock`.
        norm_layer, act_layer: Of the stem and the last norm; blocks have batch norm and ReLU. `fc_act_layer` is unused.
    """

    classifier_path: ClassVar[str] = "classifier"
    conv_classifier: ClassVar[bool] = True
    feature_form: ClassVar[str] = "flat"
    tap_norm: ClassVar[str] = "last"
    norm_path: ClassVar[str] = "features.conv5_bn_ac"

    def __init__(
        self, k_sec: Sequence[int] = (3, 4, 20, 3), inc_sec: Sequence[int] = (16, 32, 24, 128), k_r: int = 96,
        groups: int = 32, num_classes: int = 1000, in_chans: int = 3, output_stride: int = 32, global_pool: str = "avg",
        small: bool = False, num_init_features: int = 64, b: bool = False, drop_rate: float = 0.0,
        norm_layer: NormLayer = "batchnorm2d", act_layer: ActLayer = "relu", fc_act_layer: ActLayer = "elu",
    ) -> None:
        super().__init__()
        if len(k_sec) != len(inc_sec):
            raise ValueError(f"k_sec and inc_sec have a number for each stage, not {len(k_sec)} and {len(inc_sec)}")
        if output_stride != 32:
            raise ValueError(f"output_stride is 32 for a DPN, not {output_stride}")
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        norm = partial(get_norm_act_layer(norm_layer, act_layer), eps=_EPS)
        stem = ConvNormAct(in_chans, num_init_features, 3 if small else 7, stride=2, norm_layer=norm)
        self.features = nn.Sequential(OrderedDict(conv1_1=stem, conv1_pool=nn.MaxPool2d(3, stride=2, padding=1)))
        chs, stages = num_init_features, [Step("features.conv1_pool")]
        for i, (depth, inc) in enumerate(zip(k_sec, inc_sec)):
            width, residual = k_r * 2**i, (64 if small else 256) * 2**i
            for j in range(depth):
                name, block_type = f"conv{i + 2}_{j + 1}", "normal" if j else "down" if i else "proj"
                self.features.add_module(name, DualPathBlock(chs, width, width, residual, inc, groups, block_type, b))
                chs = chs + inc if j else residual + 3 * inc
                stages.append(Step(f"features.{name}", *((chs, 4 * 2**i) if j == depth - 1 else ())))
        self.features.add_module("conv5_bn_ac", nn.Sequential(OrderedDict(bn=norm(chs, inplace=False))))
        self.flow = Flow([Step("features.conv1_1", num_init_features, 2)], stages, tail=[Step(self.norm_path)])
        self.add_classifier(chs, num_classes, global_pool)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        blocks = r"^features\.conv(\d+)" if coarse else r"^features\.conv(\d+)_(\d+)"
        return dict(stem=r"^features\.conv1", blocks=[(blocks, None), (r"^features\.conv5_bn_ac", (99999,))])


_SMALL = dict(small=True, num_init_features=10, k_r=128, k_sec=(3, 4, 12, 3), inc_sec=(16, 32, 32, 64))

register_model.variants(__name__, DPN, {
    "dpn48b": (_SMALL, dict(k_sec=(3, 4, 6, 3), b=True, act_layer="silu")),
    "dpn68": _SMALL,
    "dpn68b": (_SMALL, dict(b=True)),
    "dpn92": {},
    "dpn98": dict(num_init_features=96, k_r=160, groups=40, k_sec=(3, 6, 20, 3), inc_sec=(16, 32, 32, 128)),
    "dpn131": dict(num_init_features=128, k_r=160, groups=40, k_sec=(4, 8, 28, 3), inc_sec=(16, 32, 32, 128)),
    "dpn107": dict(num_init_features=128, k_r=200, groups=50, k_sec=(4, 8, 20, 3), inc_sec=(20, 64, 64, 128)),
})
