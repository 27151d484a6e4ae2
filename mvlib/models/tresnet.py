"""TResNet: a ResNet arranged for throughput: images are folded into channels, and only deep stages have bottlenecks.

Ridnik et al., "TResNet: High Performance GPU-Dedicated Architecture", 2020, arXiv:2003.13630; weights of ImageNet-21k:
Ridnik et al., "ImageNet-21K Pretraining for the Masses", 2021, arXiv:2104.10972.
Batch norms with leaky rectifiers stand for the paper's in-place activated ones; the authors' files are converted.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from ..layers.blur_pool import AaLayer, BlurPool2d
from ..layers.channel_attention import SEModule
from ..layers.conv import ConvNormAct
from ..layers.drop import DropPath, drop_path_rates
from ..layers.helpers import placeable
from ..layers.pool import ClassifierHead, shortcut_pool
from ..layers.space_to_depth import SpaceToDepth
from ..registry import register_model
from .base import Flow, ImageModel, Indices, KeyMap, StateDict, Step

if TYPE_CHECKING:
    from ._variants.tresnet import *

__all__ = ["BasicBlock", "Bottleneck", "TResNet"]

Layer = Callable[..., nn.Module]

_ACT = partial(nn.LeakyReLU, negative_slope=1e-3)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with squeeze-and-excitation behind them (unless not `use_se`), and a shortcut.

    Shapes: (B, inplanes, H, W) -> (B, planes, H / stride, W / stride).

    Args:
        inplanes, planes: Channels of input, and of output divided by `expansion`.
        stride: Of the first 3x3 convolution, or of the anti-aliasing behind it.
        downsample: Fits the shortcut to the output; None where it fits already.
    """

    expansion: ClassVar[int] = 1
    last_norm: ClassVar[str] = "conv2.bn"

    @placeable
    def __init__(
        self, inplanes: int, planes: int, stride: int = 1, downsample: nn.Module | None = None, use_se: bool = True,
        aa_layer: AaLayer = None, drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.downsample, self.stride = downsample, stride
        self.conv1 = ConvNormAct(inplanes, planes, 3, stride, act_layer=_ACT, aa_layer=aa_layer)
        self.conv2 = ConvNormAct(planes, planes, 3, apply_act=False)
        self.se = SEModule(planes, rd_channels=max(planes // 4, 64)) if use_se else nn.Identity()
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0.0 else nn.Identity()
        self.act = nn.ReLU(inplace=True)

    def branch(self, x: Tensor) -> Tensor:
        return self.se(self.conv2(self.conv1(x)))

    def forward(self, x: Tensor) -> Tensor:
        branch = self.drop_path(self.branch(x))
        branch += x if self.downsample is None else self.downsample(x)
        return self.act(branch)


class Bottleneck(BasicBlock):
    """A 1x1 convolution, a 3x3 with squeeze-and-excitation behind it, a 1x1 to four times `planes`, and a shortcut.

    Shapes: (B, inplanes, H, W) -> (B, 4 * planes, H / stride, W / stride). Arguments as for `BasicBlock`; `act_layer`
    is behind the first two convolutions.
    """

    expansion: ClassVar[int] = 4
    last_norm: ClassVar[str] = "conv3.bn"

    @placeable
    def __init__(
        self, inplanes: int, planes: int, stride: int = 1, downsample: nn.Module | None = None, use_se: bool = True,
        act_layer: Layer | None = None, aa_layer: AaLayer = None, drop_path_rate: float = 0.0,
    ) -> None:
        nn.Module.__init__(self)
        self.downsample, self.stride, act_layer = downsample, stride, act_layer or _ACT
        self.conv1 = ConvNormAct(inplanes, planes, 1, act_layer=act_layer)
        self.conv2 = ConvNormAct(planes, planes, 3, stride, act_layer=act_layer, aa_layer=aa_layer)
        self.se = SEModule(planes, rd_channels=max(planes // 2, 64)) if use_se else nn.Identity()
        self.conv3 = ConvNormAct(planes, planes * self.expansion, 1, apply_act=False)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0.0 else nn.Identity()
        self.act = nn.ReLU(inplace=True)

    def branch(self, x: Tensor) -> Tensor:
        return self.conv3(self.se(self.conv2(self.conv1(x))))


class TResNet(ImageModel):
    """Pixels to channels, a 3x3 convolution, stages `layer1`, `layer2`, ... of residual blocks, and a classifier head.

    Shapes: (B, in_chans, H, W), sides being multiples of 4, -> (B, num_classes); the features have a stride of 32.

    Args:
        layers: Blocks of each stage.
        width_factor: Factor on the channels, which are 64 in the first stage.
        v2: Bottlenecks in the first two stages, too; channels are rounded down to multiples of 8.
        global_pool: "avg" ("fast"), "max", "avgmax", "catavgmax" or "" for none.

    Raises:
        ValueError: The pooling is unknown; from `forward`, a side is not a multiple of 4.
    """

    head_path: ClassVar[str] = "head"
    feature_form: ClassVar[str] = "flat"
    default_out_indices: ClassVar[Indices] = (1, 2, 3, 4)

    def __init__(
        self, layers: Sequence[int], in_chans: int = 3, num_classes: int = 1000, width_factor: float = 1.0,
        v2: bool = False, global_pool: str = "fast", drop_rate: float = 0.0, drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_classes, self.in_chans, self.zero_init_last = num_classes, in_chans, True
        width = int(64 * width_factor)
        chs = width = width // 8 * 8 if v2 else width
        conv1 = ConvNormAct(in_chans * 16, width, 3, act_layer="leaky_relu")
        self.body = nn.Sequential(OrderedDict(s2d=SpaceToDepth(), conv1=conv1))
        self.flow = Flow(stem=[Step("body.s2d"), Step("body.conv1", width, 4)], stages=[])
        for i, rates in enumerate(drop_path_rates(drop_path_rate, layers)):
            stage = nn.Sequential()
            for j, rate in enumerate(rates):
                stride = 2 if i > 0 and j == 0 else 1
                block, planes = Bottleneck if v2 or i > 1 else BasicBlock, width * 2**i
                out_chs, downsample = planes * block.expansion, None
                if stride != 1 or chs != out_chs:
                    pool = [shortcut_pool(stride)] if stride != 1 else []
                    downsample = nn.Sequential(*pool, ConvNormAct(chs, out_chs, apply_act=False))
                stage.append(block(
                    chs, planes, stride, downsample, use_se=i < 3, aa_layer=BlurPool2d, drop_path_rate=rate))
                chs = out_chs
            self.body.add_module(f"layer{i + 1}", stage)
            self.flow.stages.append(Step(f"body.layer{i + 1}", chs, 4 * 2**i))
        self.add_head(ClassifierHead(chs, num_classes, global_pool, drop_rate))

    def init_module(self, name: str, module: nn.Module) -> None:
        super().init_module(name, module)
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="leaky_relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)


register_model.variants(__name__, TResNet, {
    "tresnet_m": dict(layers=(3, 4, 11, 3)),
    "tresnet_l": dict(layers=(4, 5, 18, 3), width_factor=1.2),
    "tresnet_xl": dict(layers=(4, 5, 24, 3), width_factor=1.3),
    "tresnet_v2_l": dict(layers=(3, 4, 23, 3), v2=True),
})


# Foreign checkpoints
_LAYER = re.compile(r"(conv\d|downsample\.\d)\.(?:0\.)?([01])\.")  # 0: a convolution, 1: its norm, before the blur


def _from_inplace_abn(state_dict: StateDict, model: nn.Module) -> StateDict:
    """The authors' files are of norms that activate in place: they take a scale's absolute value, and a little more."""
    converted = {_LAYER.sub(lambda m: f"{m[1]}.{('conv', 'bn')[int(m[2])]}.", key): value
                 for key, value in state_dict.items()}
    return {key: value.abs() + 1e-5 if key.endswith("bn.weight") else value for key, value in converted.items()}


TResNet.key_maps = (KeyMap("inplace-abn", lambda keys: "body.conv1.0.weight" in keys, _from_inplace_abn),)
