"""ResNet and its relatives: one class of stem, four stages of residual blocks, pooling and a linear classifier.

ResNet (https://arxiv.org/abs/1512.03385), Wide ResNet (https://arxiv.org/abs/1605.07146), ResNeXt
(https://arxiv.org/abs/1611.05431), SE-ResNet and SENet (https://arxiv.org/abs/1709.01507), group norm
(https://arxiv.org/abs/1803.08494), ResNet-C and -D (https://arxiv.org/abs/1812.01187), blurred downsampling
(https://arxiv.org/abs/1904.11486), ECA-Net (https://arxiv.org/abs/1910.03151), pruned ECA-Nets
(https://arxiv.org/abs/2002.08258), ResNet-RS (https://arxiv.org/abs/2103.07579).

The letters after a depth say how the stem begins and how shortcuts shrink:

    none  one 7x7 convolution of 64 channels; shortcuts are strided 1x1 convolutions
    c     three 3x3 convolutions of 32, 32, 64 channels
    s     three 3x3 convolutions of 64, 64, 128 channels
    d     as c; shortcuts take an average pool, then a 1x1 convolution
    t     as d, with 24, 32, 64 channels

Before it, "aa" is for strides that become an average pool behind the convolution (anti-aliasing), "blur" for a binomial
filter there, "eca" and "se" for channel attention; "32x4d" behind it says groups and their channels. Bottlenecks stride
in their 3x3 convolution (torchvision's "V1.5"), not in the first 1x1 of the paper.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from ..layers.activations import ActLayer, get_act_layer
from ..layers.blur_pool import AaLayer, create_aa
from ..layers.channel_attention import AttnLayer, SEModule, create_attn
from ..layers.drop import DropBlock2d, DropPath, drop_path_rates
from ..layers.helpers import check_choice, placeable, to_ntuple
from ..layers.norm import NormLayer, get_norm_layer
from ..layers.padding import get_padding
from ..layers.pool import shortcut_pool
from ..layers.stage import dilate_strides
from ..layers.weight_init import init_kaiming
from ..registry import register_model
from .base import Flow, ImageModel, Inits, Step
from .pruning import prune_to_widths

if TYPE_CHECKING:
    from ._variants.resnet import *

__all__ = ["BasicBlock", "Bottleneck", "ResNet", "ResidualBlock", "downsample_avg", "downsample_conv", "drop_blocks",
           "make_blocks"]

Layer = Callable[..., nn.Module]

_STEM_TYPES = ("", "deep", "deep_tiered")


class ResidualBlock(nn.Module):
    """What the blocks of a `ResNet` share: how their branch ends, and that it is added to the shortcut."""

    expansion: ClassVar[int] = 4  # output channels for each of `planes`
    last_norm: ClassVar[str] = "bn3"  # path of the norm that closes the branch

    def add_end(
        self, out_chs: int, attn_layer: AttnLayer, drop_path: nn.Module | None, downsample: nn.Module | None,
        stride: int, dilation: int, **act: nn.Module
    ) -> None:
        """Add `se`, the last activation under the name that the block has for it, `downsample` and `drop_path`; what a
        block has not is None, as code that walks over blocks expects it.
        """
        self.stride, self.dilation = stride, dilation
        self.se = create_attn(attn_layer, out_chs)
        for name, module in act.items():
            self.add_module(name, module)
        self.downsample, self.drop_path = downsample, drop_path

    def zero_init_last(self) -> None:
        """Let the block begin as an identity: the scale of the branch's last norm becomes 0."""
        weight = getattr(self.get_submodule(self.last_norm), "weight", None)
        if weight is not None:
            nn.init.zeros_(weight)

    def add_shortcut(self, branch: Tensor, x: Tensor) -> Tensor:
        """The block's output, but for the activation; `x` is its input."""
        if self.se is not None:
            branch = self.se(branch)
        if self.drop_path is not None:
            branch = self.drop_path(branch)
        branch += x if self.downsample is None else self.downsample(x)
        return branch


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions and a shortcut. Shapes: (B, inplanes, H, W) -> (B, planes, H / stride, W / stride).

    Args:
        inplanes, planes: Channels of input, and of output divided by `expansion`.
        stride: Of the first 3x3 convolution, or of the anti-aliasing behind it.
        downsample: Fits the shortcut to the output; None where it fits already.
        cardinality, base_width: Groups of the 3x3 convolution, and their channels where `planes` is 64; 1 and 64 here.
        reduce_first: Divides the output channels of the first convolution.
        dilation, first_dilation: Of the 3x3 convolutions; of the first, where a stride before it became dilation.
        drop_block: Makes a module that drops squares of the inner feature map.
        drop_path: Drops the branch in training, at random.

    Raises:
        ValueError: A basic block shall have groups or another width.
    """

    expansion: ClassVar[int] = 1
    last_norm: ClassVar[str] = "bn2"
    act2: nn.Module

    @placeable
    def __init__(
        self, inplanes: int, planes: int, stride: int = 1, downsample: nn.Module | None = None, cardinality: int = 1,
        base_width: int = 64, reduce_first: int = 1, dilation: int = 1, first_dilation: int | None = None,
        act_layer: Layer = nn.ReLU, norm_layer: Layer = nn.BatchNorm2d, attn_layer: AttnLayer = None,
        aa_layer: AaLayer = None, drop_block: Layer | None = None, drop_path: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if cardinality != 1 or base_width != 64:
            raise ValueError(f"a BasicBlock has one group and base_width 64, not {cardinality} and {base_width}")
        width, first_dilation = planes // reduce_first, first_dilation or dilation
        use_aa = aa_layer is not None and (stride == 2 or first_dilation != dilation)
        self.conv1, self.bn1 = _conv3x3(inplanes, width, 1 if use_aa else stride, first_dilation), norm_layer(width)
        self.drop_block = drop_block() if drop_block is not None else nn.Identity()
        self.act1 = act_layer(inplace=True)
        self.aa = create_aa(aa_layer, width, stride, enable=use_aa)
        self.conv2, self.bn2 = _conv3x3(width, planes, dilation=dilation), norm_layer(planes)
        self.add_end(planes, attn_layer, drop_path, downsample, stride, dilation, act2=act_layer(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        branch = self.aa(self.act1(self.drop_block(self.bn1(self.conv1(x)))))
        return self.act2(self.add_shortcut(self.bn2(self.conv2(branch)), x))


class Bottleneck(ResidualBlock):
    """A 1x1 convolution that narrows, a 3x3, a 1x1 that widens to four times `planes`, and a shortcut.

    Shapes: (B, inplanes, H, W) -> (B, 4 * planes, H / stride, W / stride). Arguments as for `BasicBlock`; the 3x3
    convolution has `cardinality` groups of `base_width * planes / 64` channels.
    """

    act3: nn.Module

    @placeable
    def __init__(
        self, inplanes: int, planes: int, stride: int = 1, downsample: nn.Module | None = None, cardinality: int = 1,
        base_width: int = 64, reduce_first: int = 1, dilation: int = 1, first_dilation: int | None = None,
        act_layer: Layer = nn.ReLU, norm_layer: Layer = nn.BatchNorm2d, attn_layer: AttnLayer = None,
        aa_layer: AaLayer = None, drop_block: Layer | None = None, drop_path: nn.Module | None = None,
    ) -> None:
        super().__init__()
        width, out_chs = planes * base_width // 64 * cardinality, planes * self.expansion
        first_width, first_dilation = width // reduce_first, first_dilation or dilation
        use_aa = aa_layer is not None and (stride == 2 or first_dilation != dilation)
        self.conv1, self.bn1 = nn.Conv2d(inplanes, first_width, 1, bias=False), norm_layer(first_width)
        self.act1 = act_layer(inplace=True)
        self.conv2: nn.Module = _conv3x3(first_width, width, 1 if use_aa else stride, first_dilation, cardinality)
        self.bn2 = norm_layer(width)
        self.drop_block = drop_block() if drop_block is not None else nn.Identity()
        self.act2 = act_layer(inplace=True)
        self.aa = create_aa(aa_layer, width, stride, enable=use_aa)
        self.conv3, self.bn3 = nn.Conv2d(width, out_chs, 1, bias=False), norm_layer(out_chs)
        self.add_end(out_chs, attn_layer, drop_path, downsample, stride, dilation, act3=act_layer(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        branch = self.act1(self.bn1(self.conv1(x)))
        branch = self.aa(self.act2(self.drop_block(self.bn2(self.conv2(branch)))))
        return self.act3(self.add_shortcut(self.bn3(self.conv3(branch)), x))


Block = type[ResidualBlock]


def _conv3x3(in_chs: int, out_chs: int, stride: int = 1, dilation: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_chs, out_chs, 3, stride, padding=dilation, dilation=dilation, groups=groups, bias=False)


def downsample_conv(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, dilation: int = 1,
    first_dilation: int | None = None, norm_layer: Layer | None = None,
) -> nn.Sequential:
    """A shortcut that changes shape by a convolution; arguments as of the stage's first block."""
    first_dilation = first_dilation or dilation
    if (stride == 1 and dilation == 1) or kernel_size == 1:
        kernel_size = first_dilation = 1
    padding = get_padding(kernel_size, stride, first_dilation)
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, first_dilation, bias=False)
    return nn.Sequential(conv, (norm_layer or nn.BatchNorm2d)(out_channels))


def downsample_avg(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, dilation: int = 1,
    first_dilation: int | None = None, norm_layer: Layer | None = None,
) -> nn.Sequential:
    """A shortcut that shrinks by an average pool before a 1x1 convolution; arguments as of the other."""
    conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    return nn.Sequential(shortcut_pool(stride, dilation), conv, (norm_layer or nn.BatchNorm2d)(out_channels))


def _stem(
    stem_type: str, in_chs: int, width: int, out_chs: int, norm_layer: Layer, act_layer: Layer
) -> nn.Conv2d | nn.Sequential:
    if not stem_type:
        return nn.Conv2d(in_chs, out_chs, 7, stride=2, padding=3, bias=False)
    first = width // 4 * 3 if stem_type == "deep_tiered" else width
    return nn.Sequential(
        _conv3x3(in_chs, first, stride=2), norm_layer(first), act_layer(inplace=True),
        _conv3x3(first, width), norm_layer(width), act_layer(inplace=True),
        _conv3x3(width, out_chs))


def _stem_pool(is_conv: bool, chs: int, aa_layer: AaLayer, norm_layer: Layer, act_layer: Layer) -> nn.Module:
    aa = [create_aa(aa_layer, chs, stride=2)] if aa_layer else []
    if is_conv:
        return nn.Sequential(_conv3x3(chs, chs, stride=1 if aa else 2), *aa, norm_layer(chs), act_layer(inplace=True))
    if not aa:
        return nn.MaxPool2d(3, stride=2, padding=1)
    return aa[0] if isinstance(aa[0], nn.AvgPool2d) else nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), *aa)


def drop_blocks(drop_prob: float = 0.0) -> list[Layer | None]:
    """DropBlock for the last two of four stages; feature maps halve from one to the other, and so do the squares."""
    if not drop_prob:
        return [None] * 4
    squares = partial(DropBlock2d, drop_prob)
    return [None, None, partial(squares, block_size=5, gamma_scale=0.25), partial(squares, block_size=3)]


def make_blocks(
    block_fns: Sequence[Layer], channels: Sequence[int], block_repeats: Sequence[int], inplanes: int,
    reduce_first: int = 1, output_stride: int = 32, down_kernel_size: int = 1, avg_down: bool = False,
    drop_block_rate: float = 0.0, drop_path_rate: float = 0.0, **kwargs: Any,
) -> tuple[list[tuple[str, nn.Sequential]], list[dict[str, Any]]]:
    """Names ("layer1") and stages of a `ResNet`, in pairs; and a dict each of `num_chs`, `reduction` and `module`.

    Args:
        block_fns: Makes the blocks of each stage, and has `expansion`: called with what `BasicBlock` takes.
        channels, block_repeats: Channels of each stage's blocks, before their expansion, and their number.
        inplanes: Channels of the stem, whose stride is 4.
        reduce_first, output_stride, down_kernel_size, avg_down, drop_block_rate, drop_path_rate: As of `ResNet`.
        kwargs: Further arguments of the blocks.
    """
    stages, info = [], []
    strides = dilate_strides([1] + [2] * (len(channels) - 1), 4, output_stride)
    drop_paths = drop_path_rates(drop_path_rate, block_repeats)
    rows = zip(block_fns, channels, drop_paths, drop_blocks(drop_block_rate), strides)
    for i, (make_block, planes, rates, drop_block, (stride, first_dilation, dilation, reduction)) in enumerate(rows):
        out_chs = planes * make_block.expansion  # type: ignore[attr-defined]
        downsample: nn.Module | None = None
        if stride != 1 or inplanes != out_chs:
            downsample = (downsample_avg if avg_down else downsample_conv)(
                inplanes, out_chs, down_kernel_size, stride, dilation, first_dilation, kwargs.get("norm_layer"))
        blocks = []
        for rate in rates:
            blocks.append(make_block(
                inplanes, planes, stride, downsample, first_dilation=first_dilation,
                drop_path=DropPath(rate) if rate > 0.0 else None, reduce_first=reduce_first, dilation=dilation,
                drop_block=drop_block, **kwargs))
            inplanes, stride, downsample, first_dilation = out_chs, 1, None, dilation
        stages.append((f"layer{i + 1}", nn.Sequential(*blocks)))
        info.append(dict(num_chs=out_chs, reduction=reduction, module=f"layer{i + 1}"))
    return stages, info


class ResNet(ImageModel):
    """Stem, stages `layer1` to `layer4` of residual blocks, pooling and a linear classifier.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features have a stride of `output_stride`.

    Args:
        block: `BasicBlock`, `Bottleneck` or what takes their arguments, and has `expansion`; or one for each stage.
        layers: Blocks of each stage.
        cardinality, base_width: Groups of the bottlenecks' 3x3 convolution (ResNeXt), and channels of such a group in
            the first stage.
        stem_width: Channels of a deep stem; its last convolution has twice as many.
        stem_type: "" for one 7x7 convolution, "deep" for three 3x3, "deep_tiered" for three whose first is narrower.
        replace_stem_pool: A strided 3x3 convolution in place of the stem's max pool (ResNet-RS).
        block_reduce_first: Divides the output channels of each block's first convolution (SENet).
        down_kernel_size: Kernel of the shortcuts' convolutions (SENet: 3), where they are not pooled.
        avg_down: Shortcuts shrink by an average pool before a 1x1 convolution (ResNet-D).
        channels: Channels of each stage's blocks, before their expansion.
        drop_block_rate: Share of activations that is dropped in squares, in the last two stages.
        block_args: Further arguments of the blocks: `attn_layer` ("se", "eca", ... or a class).

    Raises:
        ValueError: An option has an unknown value.
    """

    classifier_path: ClassVar[str] = "fc"
    feature_form: ClassVar[str] = "list"
    inits: ClassVar[Inits] = {nn.Conv2d: init_kaiming}

    def __init__(
        self, block: Block | Sequence[Block], layers: Sequence[int], num_classes: int = 1000, in_chans: int = 3,
        output_stride: int = 32, global_pool: str = "avg", cardinality: int = 1, base_width: int = 64,
        stem_width: int = 64, stem_type: str = "", replace_stem_pool: bool = False, block_reduce_first: int = 1,
        down_kernel_size: int = 1, avg_down: bool = False, channels: Sequence[int] = (64, 128, 256, 512),
        act_layer: ActLayer = nn.ReLU, norm_layer: NormLayer = nn.BatchNorm2d, aa_layer: AaLayer = None,
        drop_rate: float = 0.0, drop_path_rate: float = 0.0, drop_block_rate: float = 0.0, zero_init_last: bool = True,
        block_args: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_choice("stem_type", stem_type, _STEM_TYPES)
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        self.zero_init_last = zero_init_last
        act_layer, norm_layer = get_act_layer(act_layer) or nn.Identity, get_norm_layer(norm_layer) or nn.BatchNorm2d
        chs = stem_width * 2 if stem_type else 64
        self.conv1 = _stem(stem_type, in_chans, stem_width, chs, norm_layer, act_layer)
        self.bn1, self.act1 = norm_layer(chs), act_layer(inplace=True)
        self.maxpool = _stem_pool(replace_stem_pool, chs, aa_layer, norm_layer, act_layer)
        self.flow = Flow(stem=[Step("conv1"), Step("bn1"), Step("act1", chs, reduction=2), Step("maxpool")], stages=[])
        stages, info = make_blocks(
            to_ntuple(len(channels))(block), channels, layers, chs, block_reduce_first, output_stride, down_kernel_size,
            avg_down, drop_block_rate, drop_path_rate, cardinality=cardinality, base_width=base_width,
            act_layer=act_layer, norm_layer=norm_layer, aa_layer=aa_layer, **(block_args or {}))
        for (name, stage), tap in zip(stages, info):
            self.add_module(name, stage)
            self.flow.stages.append(Step(name, tap["num_chs"], tap["reduction"]))
        self.add_classifier(info[-1]["num_chs"], num_classes, global_pool)

    def init_weights(self, zero_init_last: bool | None = None) -> None:
        """Initialise all weights; `zero_init_last` as the model was built unless given."""
        built = self.zero_init_last
        self.zero_init_last = built if zero_init_last is None else zero_init_last
        super().init_weights()
        for block in self.modules() if self.zero_init_last else ():
            if callable(zero := getattr(block, "zero_init_last", None)):  # a user's, too
                zero()
        self.zero_init_last = built


# The architectures: what differs from the class's defaults
_LAYERS = {
    10: (1, 1, 1, 1), 14: (1, 1, 1, 1), 18: (2, 2, 2, 2), 26: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3),
    101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3), 269: (3, 30, 48, 8)}
_C = dict(stem_type="deep", stem_width=32)
_D = dict(_C, avg_down=True)
_LETTERS = {"": {}, "c": _C, "s": dict(_C, stem_width=64), "d": _D, "t": dict(_D, stem_type="deep_tiered")}
_STRIDES = {"": {}, "aa": dict(aa_layer="avg"), "blur": dict(aa_layer="blur")}
_NAME = re.compile(r"(eca|se|)resnex?t(aa|blur|)(\d+)([cdst]?)(?:_(\d+)x(\d+)d)?")
_ECA, _WIDE = dict(block_args=dict(attn_layer="eca")), dict(base_width=128)
_RS = dict(_D, block=Bottleneck, replace_stem_pool=True,
           block_args=dict(attn_layer=partial(SEModule, rd_ratio=0.25)))


def _spell(name: str, **more: Any) -> dict[str, Any]:
    """What the letters and numbers of a name mean."""
    attn, strides, depth, letter, groups, width = _NAME.fullmatch(name).groups()  # type: ignore[union-attr]
    row = dict(_LETTERS[letter], block=BasicBlock if depth in ("10", "18", "34") else Bottleneck,
               layers=_LAYERS[int(depth)], **_STRIDES[strides])
    if groups:
        row.update(cardinality=int(groups), base_width=int(width))
    if attn:
        row.update(block_args=dict(attn_layer=attn))
    return dict(row, **more)


register_model.variants(__name__, ResNet, {
    **{name: _spell(name) for name in (
        "resnet10t resnet14t resnet18d resnet34d resnet26 resnet26t resnet26d resnet50c resnet50d resnet50s resnet50t "
        "resnet101c resnet101d resnet101s resnet152c resnet152d resnet152s resnet200 resnet200d resnext50d_32x4d "
        "resnext101_32x4d resnext101_32x16d resnext101_32x32d ecaresnet26t ecaresnet50d ecaresnet50t ecaresnet101d "
        "ecaresnet200d ecaresnet269d ecaresnext26t_32x4d ecaresnext50t_32x4d seresnet18 seresnet34 seresnet50 "
        "seresnet50t seresnet101 seresnet152 seresnet152d seresnet200d seresnet269d seresnext26d_32x4d "
        "seresnext26t_32x4d seresnext50_32x4d seresnext101_32x4d seresnext101_32x8d seresnext101d_32x8d "
        "seresnext101_64x4d resnetblur18 resnetblur50 resnetblur50d resnetblur101d resnetaa34d resnetaa50 resnetaa50d "
        "resnetaa101d seresnetaa50d seresnextaa101d_32x8d").split()},
    **{f"resnet{depth}": (_spell(f"resnet{depth}"), f"ResNet-{depth}; torchvision's.")
       for depth in (18, 34, 50, 101, 152)},
    **{f"resnext{size}": (_spell(f"resnext{size}"), f"ResNeXt-{size.replace('_', ' ')}; torchvision's.")
       for size in ("50_32x4d", "101_32x8d", "101_64x4d")},
    **{f"wide_resnet{depth}_2": (_spell(f"resnet{depth}"), _WIDE, "Inner convolutions twice as wide; torchvision's.")
       for depth in (50, 101)},
    "resnet50_gn": _spell("resnet50", norm_layer="groupnorm"),
    "ecaresnetlight": (_spell("resnet50"), _ECA, dict(layers=(1, 1, 11, 3), stem_width=32, avg_down=True)),
    "senet154": _spell("seresnext152s_64x4d", down_kernel_size=3, block_reduce_first=2),
    "seresnextaa201d_32x8d": _spell("seresnextaa101d_32x8d", layers=(3, 24, 36, 4), stem_width=64),
    **{f"resnetrs{depth}": (_RS, dict(layers=layers)) for depth, layers in (
        (50, _LAYERS[50]), (101, _LAYERS[101]), (152, _LAYERS[152]), (200, _LAYERS[200]), (270, (4, 29, 53, 4)),
        (350, (4, 36, 72, 4)), (420, (4, 44, 87, 4)))},
    "test_resnet": (_D, dict(stem_width=16, channels=(32, 48, 48, 96), layers=(1, 1, 1, 1),
                             block=(BasicBlock, BasicBlock, Bottleneck, BasicBlock))),
})


@register_model
def ecaresnet50d_pruned(**kwargs: Any) -> ResNet:
    """ECA-ResNet-50-D, pruned layer by layer to 20M parameters."""
    return prune_to_widths(ResNet(**{**_spell("ecaresnet50d"), **kwargs}), "ecaresnet50d_pruned")


@register_model
def ecaresnet101d_pruned(**kwargs: Any) -> ResNet:
    """ECA-ResNet-101-D, pruned layer by layer to 25M parameters."""
    return prune_to_widths(ResNet(**{**_spell("ecaresnet101d"), **kwargs}), "ecaresnet101d_pruned")
