"""InceptionNeXt: ConvNeXt whose large depthwise kernels are split, over channels, into a square and two bands.

Yu et al., "InceptionNeXt: When Inception Meets ConvNeXt", 2023, arXiv:2303.16900.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from ..layers import GlobalPool2d, Head, Stage, create_conv2d, init_trunc_normal, placeable, to_ntuple
from ..layers.activations import ActLayer, get_act_layer
from ..layers.drop import DropPath, drop_path_rates
from ..layers.mlp import ConvMlp, ScaledBlock, scaled
from ..layers.norm import LayerNorm, NormLayer, get_norm_layer
from ..registry import register_model
from .base import Flow, ImageModel, Inits, Step
from .convnext import make_downsample

if TYPE_CHECKING:
    from ._variants.inception_next import *

__all__ = ["MetaNeXt"]

Layer = Callable[..., nn.Module]


class InceptionDWConv2d(nn.Module):
    """Depthwise kernels over parts of the channels: none, a square, a horizontal and a vertical band.

    Shapes: (B, in_chs, H, W) -> same; each of the three kernels takes `branch_ratio` of the channels.
    """

    @placeable
    def __init__(
        self, in_chs: int, square_kernel_size: int = 3, band_kernel_size: int = 11, branch_ratio: float = 0.125,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        chs = int(in_chs * branch_ratio)
        conv = partial(create_conv2d, chs, chs, dilation=dilation, depthwise=True, bias=True)
        self.dwconv_hw = conv(square_kernel_size)
        self.dwconv_w = conv((1, band_kernel_size))
        self.dwconv_h = conv((band_kernel_size, 1))
        self.split_indexes = (in_chs - 3 * chs, chs, chs, chs)

    def forward(self, x: Tensor) -> Tensor:
        same, square, row, column = x.split(self.split_indexes, dim=1)
        return torch.cat((same, self.dwconv_hw(square), self.dwconv_w(row), self.dwconv_h(column)), dim=1)


class MlpClassifierHead(Head):
    """Pooling, hidden layer, activation, norm, dropout, classifier; keys `fc1`, `norm`, `fc2`.

    Shapes: (B, in_features, H, W) -> (B, num_classes).

    Raises:
        ValueError: There is no pooling, or a new one changes the width, which the hidden layer does not fit.
    """

    @placeable
    def __init__(
        self, in_features: int, num_classes: int = 1000, pool_type: str = "avg", mlp_ratio: float = 3,
        act_layer: ActLayer = nn.GELU, norm_layer: NormLayer = LayerNorm, drop: float = 0.0, bias: bool = True,
    ) -> None:
        super().__init__()
        self.in_features, self.use_bias = in_features, bias
        self.fc1: nn.Module = nn.Identity()
        self.set_global_pool(pool_type)
        width, self.num_features = self.num_features, int(mlp_ratio * in_features)
        self.fc1 = nn.Linear(width, self.num_features, bias=bias)
        self.act = get_act_layer(act_layer)()
        self.norm = get_norm_layer(norm_layer)(self.num_features)
        self.fc2 = self.make_classifier(num_classes)
        self.drop = nn.Dropout(drop)

    @property
    def fc(self) -> nn.Module:  # type: ignore[override]
        return self.fc2

    def set_classifier(self, classifier: nn.Module) -> None:
        self.fc2 = classifier

    def make_classifier(self, num_classes: int) -> nn.Module:
        return nn.Linear(self.num_features, num_classes, bias=self.use_bias) if num_classes > 0 else nn.Identity()

    def set_global_pool(self, pool_type: str) -> None:
        if not pool_type:
            raise ValueError("the head takes vectors: global_pool cannot be ''")
        pool = GlobalPool2d(pool_type)
        width = self.in_features * pool.out_factor
        if isinstance(self.fc1, nn.Identity):
            self.num_features = width
        elif width != self.fc1.in_features:
            raise ValueError(f"global_pool '{pool_type}' gives {width} channels, and the hidden layer takes "
                             f"{self.fc1.in_features}; give it when the model is built")
        self.global_pool = pool.train(self.training)

    def cut(self, in_features: int) -> None:
        self.fc1, self.act, self.norm = (nn.Identity().train(self.training) for _ in range(3))
        self.in_features, self.num_features = in_features, in_features * self.global_pool.out_factor

    def pool(self, x: Tensor) -> Tensor:
        return self.norm(self.act(self.fc1(self.global_pool(x))))


class MetaNeXtBlock(ScaledBlock):
    """Token mixer, norm and MLP of 1x1 convolutions, scaled per channel (`gamma`), beside a shortcut.

    Shapes: (B, dim, H, W) -> same. `token_mixer`, `norm_layer` and `mlp_layer` make layers for `dim` channels.
    """

    @placeable
    def __init__(
        self, dim: int, dilation: int = 1, token_mixer: Layer = InceptionDWConv2d,
        norm_layer: NormLayer = nn.BatchNorm2d, mlp_layer: Layer = ConvMlp, mlp_ratio: float = 4,
        act_layer: ActLayer = nn.GELU, ls_init_value: float | None = 1e-6, drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.token_mixer = token_mixer(dim, dilation=dilation)
        self.norm = get_norm_layer(norm_layer)(dim)
        self.mlp = mlp_layer(dim, int(mlp_ratio * dim), act_layer=get_act_layer(act_layer))
        self.add_scales(ls_init_value or None, dim, "gamma")
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.drop_path(scaled(self.mlp(self.norm(self.token_mixer(x))), self.gamma)) + x


class MetaNeXtStage(Stage):
    """Norm and a strided convolution, where there is a stride, then blocks; arguments as `MetaNeXtBlock`'s.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride). `dilation` is that of the convolution and that of
    the blocks; they differ in the first stage whose stride became dilation.
    """

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, stride: int = 2, depth: int = 2, dilation: tuple[int, int] = (1, 1),
        drop_path_rates: Sequence[float] | None = None, ls_init_value: float | None = 1.0,
        token_mixer: Layer = InceptionDWConv2d, act_layer: ActLayer = nn.GELU, norm_layer: NormLayer = None,
        mlp_ratio: float = 4,
    ) -> None:
        super().__init__()
        self.downsample = make_downsample(in_chs, out_chs, stride, dilation, get_norm_layer(norm_layer), bias=True)
        self.blocks = nn.Sequential(*(
            MetaNeXtBlock(out_chs, dilation[1], token_mixer, norm_layer, ConvMlp, mlp_ratio, act_layer, ls_init_value,
                          rate)
            for rate in (drop_path_rates or [0.0] * depth)[:depth]))


class MetaNeXt(ImageModel):
    """A stem of stride 4, four stages, and a head with a hidden layer.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features have a stride of `output_stride`.

    Args:
        global_pool: "avg", "max", "avgmax" or "catavgmax"; the head takes vectors.
        output_stride: 8, 16 or 32: later strides become dilation.
        depths, dims: Blocks and channels of each stage.
        token_mixers: What mixes positions: (dim, dilation=...) -> a module; one, or one for each stage.
        norm_layer, act_layer: Norm of feature maps; activation of the blocks.
        mlp_ratios: Hidden width of the MLPs in channels, one number or one a stage.
        ls_init_value: Initial value of the residual branches' scale; None for no scale.

    Raises:
        ValueError: An option has an unknown value.
    """

    head_path: ClassVar[str] = "head"
    classifier_path: ClassVar[str] = "head.fc2"
    feature_form: ClassVar[str] = "flat"
    pruned_pool: ClassVar[str] = "avg"
    inits: ClassVar[Inits] = {(nn.Conv2d, nn.Linear): init_trunc_normal}

    def __init__(
        self, in_chans: int = 3, num_classes: int = 1000, global_pool: str = "avg", output_stride: int = 32,
        depths: Sequence[int] = (3, 3, 9, 3), dims: Sequence[int] = (96, 192, 384, 768),
        token_mixers: Layer | Sequence[Layer] = InceptionDWConv2d, norm_layer: NormLayer = nn.BatchNorm2d,
        act_layer: ActLayer = nn.GELU, mlp_ratios: float | Sequence[float] = (4, 4, 4, 3), drop_rate: float = 0.0,
        drop_path_rate: float = 0.0, ls_init_value: float | None = 1e-6,
    ) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride is 8, 16 or 32, not {output_stride}")
        self.num_classes, self.in_chans = num_classes, in_chans
        chs, reduction, dilation = dims[0], 4, 1
        self.stem = nn.Sequential(nn.Conv2d(in_chans, chs, 4, stride=4), get_norm_layer(norm_layer)(chs))
        self.stages = nn.Sequential()
        self.flow = Flow(stem=[Step("stem")], stages=[])
        each, rates = to_ntuple(len(depths)), drop_path_rates(drop_path_rate, depths)
        for i, row in enumerate(zip(dims, depths, rates, each(token_mixers), each(mlp_ratios))):
            dim, depth, drop_path, mixer, mlp_ratio = row
            stride = 2 if i > 0 else 1
            if reduction * stride > output_stride:
                stride, dilation = 1, 2 * dilation
            reduction *= stride
            self.stages.append(MetaNeXtStage(
                chs, dim, stride, depth, (1 if dilation <= 2 else 2, dilation), drop_path, ls_init_value, mixer,
                act_layer, norm_layer, mlp_ratio))
            self.flow.stages.append(Step(f"stages.{i}", dim, reduction))
            chs = dim
        self.num_features = chs
        self.head = MlpClassifierHead(chs, num_classes, global_pool, drop=drop_rate)
        self.head_hidden_size = self.head.num_features
        self.init_weights()


_ATTO_MIXER = partial(InceptionDWConv2d, band_kernel_size=9, branch_ratio=0.25)

register_model.variants(__name__, MetaNeXt, {
    "inception_next_atto": dict(depths=(2, 2, 6, 2), dims=(40, 80, 160, 320), token_mixers=_ATTO_MIXER),
    "inception_next_tiny": {},
    "inception_next_small": dict(depths=(3, 3, 27, 3)),
    "inception_next_base": dict(depths=(3, 3, 27, 3), dims=(128, 256, 512, 1024)),
})
