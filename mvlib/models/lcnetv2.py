"""PP-LCNetV2: depthwise-separable blocks for CPUs, whose wide depthwise convolutions are branches while it trains.

PaddlePaddle, "PP-LCNetV2", PaddleClas 2.5, 2022; distilled as in arXiv:2103.05959. There is no paper of its own; the
first PP-LCNet (`lcnet_*`) is among the MobileNetV3s. Attention and shortcuts are few: each is in one stage alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from ..layers.activations import ActLayer, create_act_layer
from ..layers.branches import merge_branches, sum_branches
from ..layers.channel_attention import SqueezeExcite
from ..layers.conv import ConvNormAct, create_conv2d
from ..layers.helpers import make_divisible, placeable
from ..layers.norm import NormLayer
from ..layers.pool import GlobalPool2d
from ..layers.weight_init import init_kaiming, init_zero_bias
from ..registry import register_model
from .base import Flow, Inits, Step
from .efficientnet_blocks import PooledConvHead

if TYPE_CHECKING:
    from ._variants.lcnetv2 import *

__all__ = ["LCNetV2", "RepDepthwiseSeparable"]


class RepDepthwiseSeparable(nn.Module):
    """A depthwise convolution, attention, one pointwise convolution or two.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride). Keys `dw_conv`, or `dw_conv_list` for branches,
    which `reparameterize()` makes one convolution `dw_conv`; `se`, `pw_conv`.

    Args:
        stride, dw_kernel_size: Of the depthwise convolution.
        split_pw: Two pointwise convolutions, the first to `pw_ratio` of `out_chs`.
        use_rep: Branches with all odd kernels up to `dw_kernel_size`; 1x1 only where the stride is 1.
        use_se: Squeeze-and-excitation to `se_ratio` of `in_chs`.
        use_shortcut: Add the input, where the shapes allow it.
        inference_mode: Branches are merged already.
    """

    dw_conv: Any
    dw_conv_list: Any

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, stride: int = 1, dw_kernel_size: int = 3, split_pw: bool = False,
        use_rep: bool = False, use_se: bool = False, use_shortcut: bool = False, pw_ratio: float = 0.5,
        se_ratio: float = 0.25, act_layer: ActLayer = nn.ReLU, norm_layer: NormLayer = nn.BatchNorm2d,
        inference_mode: bool = False,
    ) -> None:
        super().__init__()
        self.use_shortcut = use_shortcut and stride == 1 and in_chs == out_chs
        conv = partial(ConvNormAct, act_layer=act_layer, norm_layer=norm_layer)
        depthwise = partial(conv, in_chs, in_chs, stride=stride, groups=in_chs)
        self.dw_conv = self.dw_conv_list = None
        if not use_rep:
            self.dw_conv = depthwise(dw_kernel_size)
        elif inference_mode:
            self.dw_conv = create_conv2d(in_chs, in_chs, dw_kernel_size, stride, groups=in_chs, bias=True)
        else:
            self.dw_conv_list = nn.ModuleList(
                depthwise(k, apply_act=False) for k in range(dw_kernel_size, 0, -2) if k > 1 or stride == 1)
        self.dw_act: Any = create_act_layer(act_layer, inplace=True) if use_rep else nn.Identity()
        self.se = SqueezeExcite(in_chs, rd_channels=int(in_chs * se_ratio), act_layer=act_layer) if use_se else \
            nn.Identity()
        mid = int(out_chs * pw_ratio)
        self.pw_conv = nn.Sequential(conv(in_chs, mid), conv(mid, out_chs)) if split_pw else conv(in_chs, out_chs)

    def forward(self, x: Tensor) -> Tensor:
        out = self.dw_conv(x) if self.dw_conv_list is None else sum_branches(self.dw_conv_list, x)
        out = self.pw_conv(self.se(self.dw_act(out)))
        return out + x if self.use_shortcut else out

    @property
    def is_reparameterized(self) -> bool:
        return self.dw_conv_list is None

    def reparameterize(self) -> RepDepthwiseSeparable:
        """Merge the branches, in place; running statistics are taken as they are. Returns the block."""
        if self.dw_conv_list is not None:
            self.dw_conv = merge_branches(self.dw_conv_list, like=self.dw_conv_list[0].conv)
            self.dw_conv_list = None
        return self


_STAGES: tuple[tuple[int, dict[str, Any]], ...] = (  # channels, and the blocks' arguments
    (128, {}), (256, {}),
    (512, dict(dw_kernel_size=5, split_pw=True, use_rep=True, use_se=True)),
    (1024, dict(dw_kernel_size=5, use_rep=True, use_shortcut=True)),
)


class LCNetV2(PooledConvHead):
    """A stem convolution and a block, four stages, pooling, a 1x1 convolution and a linear classifier.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features have a stride of 32.

    Args:
        scale: Factor on all channels but the head's.
        depths: Blocks of each stage.
        global_pool: "avg", "max", "avgmax" or "" for none.
        head_hidden_size: Channels of the head's convolution; none for None.
        inference_mode: Branches are merged already.

    Raises:
        ValueError: The pooling is unknown, or changes the width.
    """

    classifier_path: ClassVar[str] = "classifier"
    feature_form: ClassVar[str] = "flat"
    hidden_paths: ClassVar[tuple[str, ...]] = ("conv_head", "act2")
    inits: ClassVar[Inits] = {nn.Conv2d: init_kaiming, (nn.Conv2d, nn.Linear): init_zero_bias}

    def __init__(
        self, scale: float = 1.0, depths: Sequence[int] = (2, 2, 6, 2), in_chans: int = 3, num_classes: int = 1000,
        global_pool: str = "avg", head_hidden_size: int | None = 1280, act_layer: ActLayer = "relu",
        norm_layer: NormLayer = "batchnorm2d", drop_rate: float = 0.0, inference_mode: bool = False,
    ) -> None:
        super().__init__()
        self.in_chans, self.num_classes, self.drop_rate = in_chans, num_classes, drop_rate
        layers: dict[str, Any] = dict(act_layer=act_layer, norm_layer=norm_layer)
        stem_chs, chs = make_divisible(32 * scale), make_divisible(64 * scale)
        self.stem = nn.Sequential(
            ConvNormAct(in_chans, stem_chs, 3, stride=2, **layers), RepDepthwiseSeparable(stem_chs, chs, **layers))
        self.flow = Flow(stem=[Step("stem.0"), Step("stem.1")], stages=[])
        self.stages = nn.Sequential()
        for i, ((width, kwargs), depth) in enumerate(zip(_STAGES, depths)):
            stage, out_chs = nn.Sequential(), make_divisible(width * scale)
            for j in range(depth):
                stage.append(RepDepthwiseSeparable(
                    out_chs if j else chs, out_chs, 1 if j else 2, inference_mode=inference_mode, **kwargs, **layers))
            self.stages.append(stage)
            chs = out_chs
            self.flow.stages.append(Step(f"stages.{i}", chs, 4 * 2**i))

        self.num_features, self.head_hidden_size = chs, head_hidden_size or chs
        self.norm_head = nn.Identity()
        self.conv_head = nn.Conv2d(chs, head_hidden_size, 1, bias=False) if head_hidden_size else nn.Identity()
        self.act2: Any = create_act_layer(act_layer, inplace=True) if head_hidden_size else nn.Identity()
        self.set_global_pool(global_pool)
        self.classifier = self.make_classifier(num_classes)
        self.init_weights()

    def set_global_pool(self, pool_type: str) -> None:
        if GlobalPool2d(pool_type).out_factor != 1:
            raise ValueError(f"global_pool '{pool_type}' changes the width, which this head does not fit")
        super().set_global_pool(pool_type)


register_model.variants(__name__, LCNetV2, {
    "lcnetv2_small": dict(scale=0.75, depths=(2, 2, 4, 2)),
    "lcnetv2_base": {},
    "lcnetv2_large": dict(scale=1.25, depths=(2, 2, 8, 2)),
})
