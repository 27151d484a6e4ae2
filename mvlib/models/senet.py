"""SENet: residual blocks that weigh each channel by what all channels' means say.

Hu et al., "Squeeze-and-Excitation Networks", 2017, arXiv:1709.01507.
These are the ports of its authors' Caffe models; `resnet` has the same networks with more options. As in Caffe, the max
pool has no padding and rounds sizes up, and SE-ResNets' bottlenecks stride in their first convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from ..layers import channel_attention
from ..layers.helpers import placeable
from ..layers.weight_init import init_kaiming
from ..registry import register_model
from .base import Flow, ImageModel, Inits, Step

if TYPE_CHECKING:
    from ._variants.senet import *

__all__ = ["Bottleneck", "SEBottleneck", "SEModule", "SENet", "SEResNeXtBottleneck", "SEResNetBlock",
           "SEResNetBottleneck"]


class SEModule(channel_attention.SEModule):
    """Gates whose hidden layer has `channels / reduction` channels. Shapes: (B, channels, H, W) -> same."""

    @placeable
    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__(channels, rd_channels=channels // reduction)


class Bottleneck(nn.Module):
    """What the bottlenecks share: 1x1, 3x3 and 1x1 convolution, the gates `se_module`, and a shortcut.

    Shapes: (B, inplanes, H, W) -> (B, 4 * planes, H / stride, W / stride). A subclass adds the layers in its
    constructor, by `add_layers`, or its own of these names.

    Arguments of the subclasses:
        inplanes, planes: Channels of input, and of output divided by `expansion`.
        groups: Groups of the 3x3 convolution.
        reduction: By how much the gates' hidden layer is narrower than the output.
        stride: Of one convolution.
        downsample: Fits the shortcut to the output; None where it fits already.
    """

    expansion: ClassVar[int] = 4
    downsample: nn.Module | None

    def add_layers(
        self, inplanes: int, width1: int, width2: int, planes: int, groups: int, reduction: int,
        strides: tuple[int, int], downsample: nn.Module | None,
    ) -> None:
        """Add all of them; `strides` are of the first two convolutions, whose output has the two widths."""
        out_chs = planes * self.expansion
        self.conv1, self.bn1 = nn.Conv2d(inplanes, width1, 1, strides[0], bias=False), nn.BatchNorm2d(width1)
        self.conv2 = nn.Conv2d(width1, width2, 3, strides[1], padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width2)
        self.conv3, self.bn3 = nn.Conv2d(width2, out_chs, 1, bias=False), nn.BatchNorm2d(out_chs)
        self.relu, self.se_module = nn.ReLU(inplace=True), SEModule(out_chs, reduction)
        self.downsample, self.stride = downsample, max(strides)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.relu(self.bn1(self.conv1(x)))
        branch = self.relu(self.bn2(self.conv2(branch)))
        branch = self.se_module(self.bn3(self.conv3(branch)))
        branch += x if self.downsample is None else self.downsample(x)
        return self.relu(branch)


class SEBottleneck(Bottleneck):
    """`Bottleneck` whose inner convolutions have `2 * planes` and `4 * planes` channels; SENet-154's."""

    @placeable
    def __init__(
        self, inplanes: int, planes: int, groups: int, reduction: int, stride: int = 1,
        downsample: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.add_layers(inplanes, 2 * planes, 4 * planes, planes, groups, reduction, (1, stride), downsample)


class SEResNetBottleneck(Bottleneck):
    """`Bottleneck` whose inner convolutions have `planes` channels, the first of which strides; SE-ResNet's."""

    @placeable
    def __init__(
        self, inplanes: int, planes: int, groups: int, reduction: int, stride: int = 1,
        downsample: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.add_layers(inplanes, planes, planes, planes, groups, reduction, (stride, 1), downsample)


class SEResNeXtBottleneck(Bottleneck):
    """`Bottleneck` whose inner convolutions have `groups` groups of `planes * base_width / 64` channels."""

    @placeable
    def __init__(
        self, inplanes: int, planes: int, groups: int, reduction: int, stride: int = 1,
        downsample: nn.Module | None = None, base_width: int = 4,
    ) -> None:
        super().__init__()
        width = planes * base_width // 64 * groups
        self.add_layers(inplanes, width, width, planes, groups, reduction, (1, stride), downsample)


class SEResNetBlock(nn.Module):
    """Two 3x3 convolutions, the second of `groups` groups, gates, and a shortcut; arguments as for a `Bottleneck`.

    Shapes: (B, inplanes, H, W) -> (B, planes, H / stride, W / stride). There is an activation before the gates, too.
    """

    expansion: ClassVar[int] = 1

    @placeable
    def __init__(
        self, inplanes: int, planes: int, groups: int, reduction: int, stride: int = 1,
        downsample: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inplanes, planes, 3, stride, 1, bias=False), nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, groups=groups, bias=False)
        self.bn2, self.relu = nn.BatchNorm2d(planes), nn.ReLU(inplace=True)
        self.se_module = SEModule(planes, reduction)
        self.downsample, self.stride = downsample, stride

    def forward(self, x: Tensor) -> Tensor:
        branch = self.relu(self.bn1(self.conv1(x)))
        branch = self.se_module(self.relu(self.bn2(self.conv2(branch))))
        branch += x if self.downsample is None else self.downsample(x)
        return self.relu(branch)


class SENet(ImageModel):
    """Stem `layer0`, a max pool, stages `layer1` to `layer4` of residual blocks, pooling and a linear classifier.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features have a stride of 32.

    Args:
        block, groups, reduction: Class of the blocks, one of this module's, and arguments of it.
        layers: Blocks of each of four stages.
        inplanes: Channels of the stem.
        input_3x3: Three 3x3 convolutions as a stem in place of one of 7x7.
        downsample_kernel_size, downsample_padding: Of the shortcuts' convolutions, but for the first stage's.

    Raises:
        ValueError: There are not four stages, or the pooling is unknown.
    """

    classifier_path: ClassVar[str] = "last_linear"
    feature_form: ClassVar[str] = "list"
    inits: ClassVar[Inits] = {nn.Conv2d: init_kaiming}

    def __init__(
        self, block: type[Bottleneck | SEResNetBlock], layers: Sequence[int], groups: int = 1, reduction: int = 16,
        drop_rate: float = 0.2, in_chans: int = 3, inplanes: int = 64, input_3x3: bool = False,
        downsample_kernel_size: int = 1, downsample_padding: int = 0, num_classes: int = 1000, global_pool: str = "avg",
    ) -> None:
        super().__init__()
        if len(layers) != 4:
            raise ValueError(f"layers are the blocks of 4 stages, not of {len(layers)}")
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        self.layer0 = nn.Sequential()
        chs = in_chans
        for i, out_chs in enumerate((64, 64, inplanes) if input_3x3 else (inplanes,), start=1):
            kernel_size, stride = 3 if input_3x3 else 7, 2 if i == 1 else 1
            conv = nn.Conv2d(chs, out_chs, kernel_size, stride, padding=kernel_size // 2, bias=False)
            for name, layer in (("conv", conv), ("bn", nn.BatchNorm2d(out_chs)), ("relu", nn.ReLU(inplace=True))):
                self.layer0.add_module(f"{name}{i}", layer)
            chs = out_chs
        self.pool0 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.flow = Flow(stem=[Step("layer0", chs, 2), Step("pool0")], stages=[])
        for i, depth in enumerate(layers):
            planes, stride = 64 * 2**i, 2 if i else 1
            out_chs, downsample = planes * block.expansion, None
            if stride != 1 or chs != out_chs:
                kernel_size, padding = (downsample_kernel_size, downsample_padding) if i else (1, 0)
                downsample = nn.Sequential(
                    nn.Conv2d(chs, out_chs, kernel_size, stride, padding, bias=False), nn.BatchNorm2d(out_chs))
            self.add_module(f"layer{i + 1}", nn.Sequential(
                block(chs, planes, groups, reduction, stride, downsample),
                *(block(out_chs, planes, groups, reduction) for _ in range(depth - 1))))
            self.flow.stages.append(Step(f"layer{i + 1}", out_chs, 4 * 2**i))
            chs = out_chs
        self.add_classifier(chs, num_classes, global_pool)


_26, _50, _101, _152 = (2, 2, 2, 2), (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)

register_model.variants(__name__, SENet, {
    **{f"legacy_seresnet{depth}": dict(block=SEResNetBlock, layers=layers) for depth, layers in ((18, _26), (34, _50))},
    **{f"legacy_seresnet{depth}": dict(block=SEResNetBottleneck, layers=layers)
       for depth, layers in ((50, _50), (101, _101), (152, _152))},
    "legacy_senet154": dict(block=SEBottleneck, layers=_152, groups=64, inplanes=128, input_3x3=True,
                            downsample_kernel_size=3, downsample_padding=1),
    **{f"legacy_seresnext{depth}_32x4d": dict(block=SEResNeXtBottleneck, groups=32, layers=layers)
       for depth, layers in ((26, _26), (50, _50), (101, _101))},
})
