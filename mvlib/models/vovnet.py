"""VoVNet: inside a block, each convolution reads the one before it, and one convolution reads them all, once.

VoVNet (https://arxiv.org/abs/1904.09730); V2 ("b"), with shortcuts and a channel attention of one projection ("ese"),
of CenterMask (https://arxiv.org/abs/1911.06667). The depthwise models ("dw") are of the authors' detectors
(https://github.com/youngwanLEE/vovnet-detectron2); those with "eca" and EvoNorm ("evos") are timm's.

The number counts the layers with weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ..layers.activations import ActLayer
from ..layers.channel_attention import AttnLayer, create_attn
from ..layers.conv import ConvNormAct, SeparableConvNormAct
from ..layers.drop import DropPath, drop_path_rates
from ..layers.helpers import placeable
from ..layers.norm import BatchNormAct2d, NormLayer
from ..layers.pool import ClassifierHead
from ..layers.stage import Stage
from ..layers.weight_init import init_kaiming, init_zero_bias
from ..registry import register_model
from .base import Flow, ImageModel, Inits, Step

if TYPE_CHECKING:
    from ._variants.vovnet import *

__all__ = ["OsaBlock", "OsaStage", "SequentialAppendList", "VovNet"]


class SequentialAppendList(nn.Sequential):
    """Layers one after the other, each of which adds its output to a list, in place.

    Shapes: x, maps of the list (B, *, H, W) -> all maps of the list side by side.
    """

    def forward(self, x: Tensor, concat_list: list[Tensor]) -> Tensor:  # type: ignore[override]
        for layer in self:
            x = layer(x)
            concat_list.append(x)
        return torch.cat(concat_list, dim=1)


class OsaBlock(nn.Module):
    """One-shot aggregation: 3x3 convolutions one after the other, and a 1x1 convolution of the input and all of them.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H, W).

    Args:
        mid_chs, layer_per_block: Channels of each 3x3 convolution, and their number.
        residual: Add the input to the output, which has as many channels.
        depthwise: Separable convolutions, after a 1x1 convolution to their width where the input has another.
        attn: Channel attention of the output.
        drop_path: Drops the branch in training, at random; without a shortcut, too, as in timm.
    """

    @placeable
    def __init__(
        self, in_chs: int, mid_chs: int, out_chs: int, layer_per_block: int, residual: bool = False,
        depthwise: bool = False, attn: AttnLayer = "", norm_layer: NormLayer = BatchNormAct2d,
        act_layer: ActLayer = nn.ReLU, drop_path: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.residual, self.depthwise = residual, depthwise
        layer_args: dict[str, Any] = dict(norm_layer=norm_layer, act_layer=act_layer)
        conv: Callable[..., nn.Module] = SeparableConvNormAct if depthwise else ConvNormAct
        chs = mid_chs if depthwise else in_chs
        self.conv_reduction = ConvNormAct(in_chs, chs, 1, **layer_args) if chs != in_chs else nn.Identity()
        self.conv_mid = SequentialAppendList(*(
            conv(mid_chs if i else chs, mid_chs, 3, **layer_args) for i in range(layer_per_block)))
        self.conv_concat = ConvNormAct(in_chs + layer_per_block * mid_chs, out_chs, 1, **layer_args)
        self.attn = create_attn(attn, out_chs) or nn.Identity()
        self.drop_path = drop_path if drop_path is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv_concat(self.conv_mid(self.conv_reduction(x), [x]))
        out = self.drop_path(self.attn(out))
        return out + x if self.residual else out


class OsaStage(Stage):
    """A max pool, then blocks: those behind the first may have shortcuts, the last one has the attention; key `blocks`.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H // 2, W // 2), or of the same size without `downsample`. Arguments, but
    for the number and the rates of the blocks, as of `OsaBlock`.
    """

    @placeable
    def __init__(
        self, in_chs: int, mid_chs: int, out_chs: int, block_per_stage: int, layer_per_block: int,
        downsample: bool = True, residual: bool = True, depthwise: bool = False, attn: AttnLayer = "ese",
        norm_layer: NormLayer = BatchNormAct2d, act_layer: ActLayer = nn.ReLU,
        drop_path_rates: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.downsample = nn.MaxPool2d(3, stride=2, ceil_mode=True) if downsample else nn.Identity()
        self.blocks = nn.Sequential()
        for i, rate in enumerate(drop_path_rates or [0.0] * block_per_stage):
            self.blocks.append(OsaBlock(
                out_chs if i else in_chs, mid_chs, out_chs, layer_per_block, residual and i > 0, depthwise,
                attn if i == block_per_stage - 1 else "", norm_layer, act_layer,
                DropPath(rate) if rate > 0.0 else None))


class VovNet(ImageModel):
    """Three stem convolutions, four stages of one-shot aggregation, pooling and a linear classifier.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features have a stride of 32, `output_stride` is that alone.

    Args:
        stem_chs: Channels of the stem's convolutions.
        stage_conv_chs, stage_out_chs, block_per_stage: Of each stage: channels of the 3x3 convolutions and of the
            output, blocks.
        layer_per_block: 3x3 convolutions of each block.
        residual, attn: Shortcuts around the blocks, but for each stage's first; channel attention at its end.
        depthwise: Separable 3x3 convolutions, but for the first.
        stem_stride: 4, or 2 with a max pool before the first stage.

    Raises:
        ValueError: The channels and blocks are not those of three convolutions and four stages, or an option has an
            unknown value.
    """

    head_path: ClassVar[str] = "head"
    feature_form: ClassVar[str] = "flat"
    inits: ClassVar[Inits] = {nn.Conv2d: init_kaiming, nn.Linear: init_zero_bias}

    def __init__(
        self, stem_chs: Sequence[int] = (64, 64, 128), stage_conv_chs: Sequence[int] = (128, 160, 192, 224),
        stage_out_chs: Sequence[int] = (256, 512, 768, 1024), block_per_stage: Sequence[int] = (1, 1, 2, 2),
        layer_per_block: int = 5, residual: bool = True, depthwise: bool = False, attn: AttnLayer = "ese",
        stem_stride: int = 4, num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg",
        output_stride: int = 32, norm_layer: NormLayer = "batchnorm2d", act_layer: ActLayer = "relu",
        drop_rate: float = 0.0, drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        lengths = [len(value) for value in (stem_chs, stage_conv_chs, stage_out_chs, block_per_stage)]
        if lengths != [3, 4, 4, 4]:
            raise ValueError("stem_chs, stage_conv_chs, stage_out_chs and block_per_stage have 3, 4, 4 and 4 numbers, "
                             f"not {', '.join(map(str, lengths))}")
        if stem_stride not in (2, 4):
            raise ValueError(f"stem_stride is 2 or 4, not {stem_stride}")
        if output_stride != 32:
            raise ValueError(f"output_stride is 32 for a VovNet, not {output_stride}")
        self.num_classes, self.in_chans = num_classes, in_chans
        layer_args: dict[str, Any] = dict(norm_layer=norm_layer, act_layer=act_layer)
        conv: Callable[..., nn.Module] = SeparableConvNormAct if depthwise else ConvNormAct
        self.stem = nn.Sequential(
            ConvNormAct(in_chans, stem_chs[0], 3, stride=2, **layer_args),
            conv(stem_chs[0], stem_chs[1], 3, **layer_args),
            conv(stem_chs[1], stem_chs[2], 3, stride=stem_stride // 2, **layer_args))
        self.flow = Flow(stem=[Step("stem.0"), Step("stem.1"), Step("stem.2")], stages=[])
        tap = 1 if stem_stride == 4 else 2  # the last map of stride 2
        self.flow.stem[tap] = Step(f"stem.{tap}", stem_chs[tap], 2)
        self.stages = nn.Sequential()
        chs, reduction = stem_chs[-1], stem_stride
        rates = drop_path_rates(drop_path_rate, list(block_per_stage))
        for i, (mid_chs, out_chs, drop_path) in enumerate(zip(stage_conv_chs, stage_out_chs, rates)):
            downsample = i > 0 or stem_stride == 2
            self.stages.append(OsaStage(
                chs, mid_chs, out_chs, len(drop_path), layer_per_block, downsample, residual, depthwise, attn,
                drop_path_rates=drop_path, **layer_args))
            reduction *= 2 if downsample else 1
            self.flow.stages.append(Step(f"stages.{i}", out_chs, reduction))
            chs = out_chs
        self.add_head(ClassifierHead(chs, num_classes, global_pool, drop_rate))


_V1 = dict(residual=False, attn="")
_19 = dict(block_per_stage=(1, 1, 1, 1), layer_per_block=3)
_57, _99 = dict(block_per_stage=(1, 1, 4, 3)), dict(block_per_stage=(1, 3, 9, 3))
_SLIM = dict(stage_conv_chs=(64, 80, 96, 112), stage_out_chs=(112, 256, 384, 512))
_DW = dict(stem_chs=(64, 64, 64), depthwise=True)

register_model.variants(__name__, VovNet, {
    "vovnet39a": _V1,
    "vovnet57a": (_57, _V1),
    "ese_vovnet19b_slim_dw": (_19, _SLIM, _DW),
    "ese_vovnet19b_dw": (_19, _DW),
    "ese_vovnet19b_slim": (_19, _SLIM),
    "ese_vovnet39b": {},
    "ese_vovnet57b": _57,
    "ese_vovnet99b": _99,
    "eca_vovnet39b": dict(attn="eca"),
    "ese_vovnet39b_evos": dict(norm_layer="evonorms0"),
})
