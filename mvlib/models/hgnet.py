"""PP-HGNet and PP-HGNetV2: dense blocks of 3x3 convolutions for GPUs, the later ones depthwise with wide kernels.

PaddlePaddle, "PP-HGNet", PaddleClas 2.5, 2022 and 2023; distilled as in "Beyond Self-Supervision: A Simple Yet
Effective Network Distillation Alternative to Improve Backbones", 2021, arXiv:2103.05959. There is no paper of its own.

A block is VoVNet's: each layer reads the one before it, a 1x1 convolution reads them all. In V1 a channel attention
follows; V2 squeezes to half the width first, and in the small ones (b0 to b3) a scale and a shift, one number each,
follow every activation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import ConvNormAct, DropPath, Padding, Stage, drop_path_rates, init_kaiming, init_zero_bias, placeable
from ..layers.pool import Head, make_narrow_pool
from ..registry import register_model
from .base import Flow, ImageModel, Inits, Step

if TYPE_CHECKING:
    from ._variants.hgnet import *

__all__ = [
    "ClassifierHead", "ConvBNAct", "EseModule", "HighPerfGpuBlock", "HighPerfGpuNet", "HighPerfGpuStage",
    "LearnableAffineBlock", "LightConvBNAct", "StemV1", "StemV2", "model_cfgs",
]


class LearnableAffineBlock(nn.Module):
    """x * scale + bias, a number each for the whole map. Shapes: any -> same."""

    @placeable
    def __init__(self, scale_value: float = 1.0, bias_value: float = 0.0) -> None:
        super().__init__()
        self.values = scale_value, bias_value
        self.scale, self.bias = nn.Parameter(torch.empty(1)), nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for parameter, value in zip((self.scale, self.bias), self.values):
            nn.init.constant_(parameter, value)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x + self.bias


class ConvBNAct(ConvNormAct):
    """`ConvNormAct` with an affine map `lab` behind its activation, where both are asked for."""

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, kernel_size: int, stride: int = 1, groups: int = 1, padding: Padding = "",
        use_act: bool = True, use_lab: bool = False,
    ) -> None:
        super().__init__(in_chs, out_chs, kernel_size, stride, padding, groups=groups, apply_act=use_act)
        self.use_act, self.use_lab = use_act, use_lab
        self.lab = LearnableAffineBlock() if use_act and use_lab else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.lab(super().forward(x))


class LightConvBNAct(nn.Sequential):
    """A 1x1 convolution, then a depthwise one with the activation. Shapes: (B, in_chs, H, W) -> (B, out_chs, H, W)."""

    @placeable
    def __init__(self, in_chs: int, out_chs: int, kernel_size: int, groups: int = 1, use_lab: bool = False) -> None:
        super().__init__()
        self.conv1 = ConvBNAct(in_chs, out_chs, 1, use_act=False, use_lab=use_lab)
        self.conv2 = ConvBNAct(out_chs, out_chs, kernel_size, groups=out_chs, use_lab=use_lab)


class EseModule(nn.Module):
    """Channel attention of one projection, key `conv`, with a sigmoid. Shapes: (B, chs, H, W) -> same."""

    @placeable
    def __init__(self, chs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(chs, chs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv(x.mean((2, 3), keepdim=True)).sigmoid()


class StemV1(nn.Module):
    """3x3 convolutions, the first strided, and a max pool. Shapes: (B, first, H, W) -> (B, last, H / 4, W / 4)."""

    @placeable
    def __init__(self, stem_chs: Sequence[int]) -> None:
        super().__init__()
        self.stem = nn.Sequential(*(
            ConvBNAct(*chs, 3, stride=1 if i else 2) for i, chs in enumerate(zip(stem_chs, stem_chs[1:]))))
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.stem(x))


class StemV2(nn.Module):
    """A strided convolution; a pool beside two 2x2 convolutions; a strided and a 1x1 convolution of both.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / 4, W / 4). What has a 2x2 window reads a row and a column of zeros at
    the end.
    """

    @placeable
    def __init__(self, in_chs: int, mid_chs: int, out_chs: int, use_lab: bool = False) -> None:
        super().__init__()
        self.stem1 = ConvBNAct(in_chs, mid_chs, 3, stride=2, use_lab=use_lab)
        self.stem2a = ConvBNAct(mid_chs, mid_chs // 2, 2, use_lab=use_lab)
        self.stem2b = ConvBNAct(mid_chs // 2, mid_chs, 2, use_lab=use_lab)
        self.stem3 = ConvBNAct(2 * mid_chs, mid_chs, 3, stride=2, use_lab=use_lab)
        self.stem4 = ConvBNAct(mid_chs, out_chs, 1, use_lab=use_lab)
        self.pool = nn.MaxPool2d(2, stride=1, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(self.stem1(x), (0, 1, 0, 1))
        deep = self.stem2b(F.pad(self.stem2a(x), (0, 1, 0, 1)))
        return self.stem4(self.stem3(torch.cat([self.pool(x), deep], dim=1)))


class HighPerfGpuBlock(nn.Module):
    """Layers one after the other, and 1x1 convolutions that aggregate the input and all of their outputs.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H, W).

    Args:
        mid_chs, layer_num, kernel_size: Channels, number and kernel of the layers.
        residual: Add the input, of as many channels, to the output.
        light_block: Layers are `LightConvBNAct`.
        use_lab: Affine maps behind activations.
        agg: "se" for two convolutions, anything else for one with an `EseModule`.
    """

    @placeable
    def __init__(
        self, in_chs: int, mid_chs: int, out_chs: int, layer_num: int, kernel_size: int = 3, residual: bool = False,
        light_block: bool = False, use_lab: bool = False, agg: str = "ese", drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.residual = residual
        layer = LightConvBNAct if light_block else ConvBNAct
        self.layers = nn.ModuleList(
            layer(mid_chs if i else in_chs, mid_chs, kernel_size, use_lab=use_lab) for i in range(layer_num))
        total = in_chs + layer_num * mid_chs
        if agg == "se":
            self.aggregation = nn.Sequential(ConvBNAct(total, out_chs // 2, 1, use_lab=use_lab),
                                             ConvBNAct(out_chs // 2, out_chs, 1, use_lab=use_lab))
        else:
            self.aggregation = nn.Sequential(ConvBNAct(total, out_chs, 1, use_lab=use_lab), EseModule(out_chs))
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for layer in self.layers:
            maps.append(layer(maps[-1]))
        out = self.aggregation(torch.cat(maps, dim=1))
        return self.drop_path(out) + x if self.residual else out


class HighPerfGpuStage(Stage):
    """A strided depthwise convolution where `downsample`, then blocks, of which all but the first have shortcuts.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride). Arguments as `HighPerfGpuBlock`'s; `block_num`
    blocks, `drop_path` a rate or one for each.
    """

    @placeable
    def __init__(
        self, in_chs: int, mid_chs: int, out_chs: int, block_num: int, layer_num: int, downsample: bool = True,
        stride: int = 2, light_block: bool = False, kernel_size: int = 3, use_lab: bool = False, agg: str = "ese",
        drop_path: Sequence[float] | float = 0.0,
    ) -> None:
        super().__init__()
        rates = drop_path if isinstance(drop_path, Sequence) else [drop_path] * block_num
        self.downsample = ConvBNAct(in_chs, in_chs, 3, stride, in_chs, use_act=False) if downsample else nn.Identity()
        self.blocks = nn.Sequential(*(
            HighPerfGpuBlock(out_chs if i else in_chs, mid_chs, out_chs, layer_num, kernel_size, i > 0, light_block,
                             use_lab, agg, rate) for i, rate in enumerate(rates[:block_num])))


class ClassifierHead(Head):
    """Pooling, a 1x1 convolution to `hidden_size` (unless None) with ReLU, dropout, classifier; keys `last_conv`, `fc`.

    Shapes: (B, in_features, H, W) -> (B, num_classes), or (B, hidden_size) for 0 classes.

    Raises:
        ValueError: The pooling is unknown, changes the width, or is none and there are classes.
    """

    @placeable
    def __init__(
        self, in_features: int, num_classes: int, pool_type: str = "avg", drop_rate: float = 0.0,
        hidden_size: int | None = 2048, use_lab: bool = False,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.num_features = in_features if hidden_size is None else hidden_size
        self.set_global_pool(pool_type)
        self.last_conv: nn.Module = nn.Identity()
        if hidden_size is not None:
            self.last_conv = nn.Sequential(nn.Conv2d(in_features, hidden_size, 1, bias=False), nn.ReLU())
            if use_lab:
                self.last_conv.append(LearnableAffineBlock())
        self.drop = nn.Dropout(drop_rate)
        self.fc = self.make_classifier(num_classes)

    def set_global_pool(self, pool_type: str) -> None:
        self.global_pool = make_narrow_pool(pool_type).train(self.training)
        self.flatten = (nn.Flatten(1) if pool_type else nn.Identity()).train(self.training)

    def make_classifier(self, num_classes: int) -> nn.Module:
        if num_classes > 0 and not self.global_pool.pool_type:
            raise ValueError("a classifier needs pooling: num_classes is 0 where global_pool is ''")
        return super().make_classifier(num_classes)

    def cut(self, in_features: int) -> None:
        self.last_conv = nn.Identity().train(self.training)
        self.in_features = self.num_features = in_features

    def pool(self, x: Tensor) -> Tensor:
        return self.flatten(self.last_conv(self.global_pool(x)))


class HighPerfGpuNet(ImageModel):
    """A stem of stride 4, four stages, pooling, a hidden layer and a linear classifier.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features have a stride of 32.

    Args:
        cfg: "stem_type" ("v1" or "v2"), "stem_chs", and "stage1" to "stage4", each of them: channels of the input, the
            layers and the output, number of blocks, whether it downsamples, whether its layers are light, kernel size,
            layers of a block. See `model_cfgs`.
        global_pool: "avg", "max", "avgmax", or "" for none, without classes.
        head_hidden_size: Width of the hidden layer; None for none.
        use_lab: Affine maps behind activations.

    Raises:
        ValueError: An option has an unknown value.
    """

    head_path: ClassVar[str] = "head"
    feature_form: ClassVar[str] = "flat"
    inits: ClassVar[Inits] = {nn.Conv2d: init_kaiming, nn.Linear: init_zero_bias}

    def __init__(
        self, cfg: Mapping[str, Any], in_chans: int = 3, num_classes: int = 1000, global_pool: str = "avg",
        head_hidden_size: int | None = 2048, drop_rate: float = 0.0, drop_path_rate: float = 0.0, use_lab: bool = False,
    ) -> None:
        super().__init__()
        if cfg["stem_type"] not in ("v1", "v2"):
            raise ValueError(f"stem_type is 'v1' or 'v2', not {cfg['stem_type']!r}")
        is_v1 = cfg["stem_type"] == "v1"
        self.num_classes, self.in_chans, self.use_lab = num_classes, in_chans, use_lab
        *mid_chs, out_chs = cfg["stem_chs"]
        self.stem = StemV1([in_chans, *mid_chs, out_chs]) if is_v1 else StemV2(in_chans, mid_chs[0], out_chs, use_lab)
        self.flow = Flow(stem=[Step("stem")], stages=[])

        rows, reduction = [cfg[f"stage{i}"] for i in range(1, 5)], 4
        self.stages = nn.Sequential()
        rates = drop_path_rates(drop_path_rate, [row[3] for row in rows])
        for i, (row, drop_path) in enumerate(zip(rows, rates)):
            in_chs, mid_chs, self.num_features, block_num, downsample, light_block, kernel_size, layer_num = row
            self.stages.append(HighPerfGpuStage(
                in_chs, mid_chs, self.num_features, block_num, layer_num, downsample, 2, light_block, kernel_size,
                use_lab, "ese" if is_v1 else "se", drop_path))
            reduction *= 2 if downsample else 1
            self.flow.stages.append(Step(f"stages.{i}", self.num_features, reduction))

        self.head = ClassifierHead(self.num_features, num_classes, global_pool, drop_rate, head_hidden_size, use_lab)
        self.head_hidden_size = self.head.num_features
        self.init_weights()


def _config(stem_type: str, stem_chs: list[int], mid: Sequence[int], out: Sequence[int], blocks: Sequence[int],
            layers: int) -> dict[str, Any]:
    """A config: by stage, channels of layers and of the output, and blocks; V2 has light layers in its second half."""
    stages = {}
    for i, row in enumerate(zip((stem_chs[-1], *out), mid, out, blocks), start=1):
        is_light = stem_type == "v2" and i > 2
        stages[f"stage{i}"] = [*row, i > 1, is_light, 5 if is_light else 3, layers]
    return dict(stem_type=stem_type, stem_chs=stem_chs, **stages)


model_cfgs = {
    "hgnet_tiny": _config("v1", [48, 48, 96], (96, 128, 160, 192), (224, 448, 512, 768), (1, 1, 2, 1), 5),
    "hgnet_small": _config("v1", [64, 64, 128], (128, 160, 192, 224), (256, 512, 768, 1024), (1, 1, 2, 1), 6),
    "hgnet_base": _config("v1", [96, 96, 160], (192, 224, 256, 288), (320, 640, 960, 1280), (1, 2, 3, 2), 7),
    "hgnetv2_b0": _config("v2", [16, 16], (16, 32, 64, 128), (64, 256, 512, 1024), (1, 1, 2, 1), 3),
    "hgnetv2_b1": _config("v2", [24, 32], (32, 48, 96, 192), (64, 256, 512, 1024), (1, 1, 2, 1), 3),
    "hgnetv2_b2": _config("v2", [24, 32], (32, 64, 128, 256), (96, 384, 768, 1536), (1, 1, 3, 1), 4),
    "hgnetv2_b3": _config("v2", [24, 32], (32, 64, 128, 256), (128, 512, 1024, 2048), (1, 1, 3, 1), 5),
    "hgnetv2_b4": _config("v2", [32, 48], (48, 96, 192, 384), (128, 512, 1024, 2048), (1, 1, 3, 1), 6),
    "hgnetv2_b5": _config("v2", [32, 64], (64, 128, 256, 512), (128, 512, 1024, 2048), (1, 2, 5, 2), 6),
    "hgnetv2_b6": _config("v2", [48, 96], (96, 192, 384, 768), (192, 512, 1024, 2048), (2, 3, 6, 3), 6),
}
_WITH_LAB = ("hgnetv2_b0", "hgnetv2_b1", "hgnetv2_b2", "hgnetv2_b3")

register_model.variants(__name__, HighPerfGpuNet, {
    name: dict(cfg=cfg, use_lab=True) if name in _WITH_LAB else dict(cfg=cfg) for name, cfg in model_cfgs.items()})
