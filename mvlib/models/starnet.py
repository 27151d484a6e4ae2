"""StarNet: the product of two linear layers is the nonlinearity.

Ma et al., "Rewrite the Stars", 2024, arXiv:2403.19967. Element-wise multiplication ("star") of two projections maps
into an implicit space of very many dimensions, so that a network of few channels does. No layer scale, no attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from ..layers import ActLayer, DropPath, drop_path_rates, get_act_layer, init_trunc_weight, init_zero_bias, placeable
from ..registry import register_model
from .base import Flow, ImageModel, Inits, Step

if TYPE_CHECKING:
    from ._variants.starnet import *

__all__ = ["StarNet"]


class ConvBN(nn.Sequential):
    """Convolution with a bias and, unless declined, batch norm; keys `conv`, `bn`. Shapes as `nn.Conv2d`."""

    @placeable
    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1, padding: int = 0,
        with_bn: bool = True, **kwargs: Any,
    ) -> None:
        super().__init__()
        self.add_module("conv", nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, **kwargs))
        if with_bn:
            self.add_module("bn", nn.BatchNorm2d(out_channels))


class Block(nn.Module):
    """x + dwconv2(g(act(f1(y)) * f2(y))) where y = dwconv(x); factors of `mlp_ratio` * dim. (B, dim, H, W) -> same."""

    @placeable
    def __init__(self, dim: int, mlp_ratio: int = 3, drop_path: float = 0.0, act_layer: ActLayer = nn.ReLU6) -> None:
        super().__init__()
        self.dwconv = ConvBN(dim, dim, 7, padding=3, groups=dim)
        self.f1 = ConvBN(dim, mlp_ratio * dim, with_bn=False)
        self.f2 = ConvBN(dim, mlp_ratio * dim, with_bn=False)
        self.g = ConvBN(mlp_ratio * dim, dim)
        self.dwconv2 = ConvBN(dim, dim, 7, padding=3, with_bn=False, groups=dim)
        self.act = get_act_layer(act_layer)()
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.dwconv(x)
        star = self.act(self.f1(mixed)) * self.f2(mixed)
        return x + self.drop_path(self.dwconv2(self.g(star)))


class StarNet(ImageModel):
    """A strided convolution, stages that begin with another one, batch norm, pooling and a linear classifier.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features have a stride of 32 with four stages.

    Args:
        base_dim: Channels of the first stage; each further one has twice as many.
        depths: Blocks of each stage.
        mlp_ratio: Channels of the star's factors, in those of the stage.
        global_pool: "avg", "max", "avgmax", "catavgmax" or "" for none.
        output_stride: 32 alone.

    Raises:
        ValueError: `output_stride` is not 32, or the pooling is unknown.
    """

    feature_form: ClassVar[str] = "flat"
    tap_norm: ClassVar[str] = "last"
    inits: ClassVar[Inits] = {(nn.Conv2d, nn.Linear): init_trunc_weight, nn.Linear: init_zero_bias}

    def __init__(
        self, base_dim: int = 32, depths: Sequence[int] = (3, 3, 12, 5), mlp_ratio: int = 4, drop_rate: float = 0.0,
        drop_path_rate: float = 0.0, act_layer: ActLayer = nn.ReLU6, num_classes: int = 1000, in_chans: int = 3,
        global_pool: str = "avg", output_stride: int = 32,
    ) -> None:
        super().__init__()
        if output_stride != 32:
            raise ValueError(f"output_stride is 32 for a StarNet, not {output_stride}")
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        chs = 32
        self.stem = nn.Sequential(ConvBN(in_chans, chs, 3, 2, 1), get_act_layer(act_layer)())
        self.stages = nn.Sequential()
        self.flow = Flow(stem=[Step("stem")], stages=[], tail=[Step("norm")])
        for i, rates in enumerate(drop_path_rates(drop_path_rate, depths)):
            dim = base_dim * 2**i
            self.stages.append(nn.Sequential(
                ConvBN(chs, dim, 3, 2, 1), *(Block(dim, mlp_ratio, rate, act_layer) for rate in rates)))
            self.flow.stages.append(Step(f"stages.{i}", dim, 4 * 2**i))
            chs = dim
        self.num_features = chs
        self.norm = nn.BatchNorm2d(chs)
        self.set_global_pool(global_pool)
        self.head = self.make_classifier(num_classes)
        self.init_weights()


register_model.variants(__name__, StarNet, {
    "starnet_s1": dict(base_dim=24, depths=(2, 2, 8, 3)),
    "starnet_s2": dict(base_dim=32, depths=(1, 2, 6, 2)),
    "starnet_s3": dict(base_dim=32, depths=(2, 2, 8, 4)),
    "starnet_s4": dict(base_dim=32, depths=(3, 3, 12, 5)),
    "starnet_s050": dict(base_dim=16, depths=(1, 1, 3, 1), mlp_ratio=3),
    "starnet_s100": dict(base_dim=20, depths=(1, 2, 4, 1)),
    "starnet_s150": dict(base_dim=24, depths=(1, 2, 4, 2), mlp_ratio=3),
})
