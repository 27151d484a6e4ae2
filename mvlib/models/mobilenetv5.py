"""MobileNetV5: the image encoder of Gemma 3n, MobileNetV4's blocks under RMS norms, and a fusion of two scales.

There is no paper of its own; the blocks are those of Qin et al., "MobileNetV4: Universal Models for the Mobile
Ecosystem", 2024, arXiv:2404.10518, in block strings that efficientnet_blocks explains.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import GlobalPool2d
from ..layers.activations import ActLayer
from ..layers.conv import ConvNormAct
from ..layers.helpers import placeable, to_2tuple
from ..layers.norm import NormLayer, RmsNorm2d, get_norm_layer
from ..layers.padding import Padding
from ..registry import register_model
from .base import Flow, KeyMap, Step, take_indices
from .efficientnet_blocks import Layers, MobileModel, PooledConvHead, UniversalInvertedResidual, arch

if TYPE_CHECKING:
    from ._variants.mobilenetv5 import *

__all__ = ["MobileNetV5", "MobileNetV5Encoder"]

_GELU = partial(nn.GELU, approximate="tanh")


@torch.fx.wrap  # one node in a traced graph, as the next: what they do depends on the maps' sizes
def _concatenate(maps: list[Tensor], mode: str) -> Tensor:
    """Maps (B, C_i, H_i, W_i) as one (B, sum of C_i, H, W) of the first's size, to which smaller ones are resized."""
    height, width = maps[0].shape[2], maps[0].shape[3]
    return torch.cat([
        F.interpolate(x, size=[height, width], mode=mode) if x.shape[2] < height or x.shape[3] < width else x
        for x in maps], dim=1)


@torch.fx.wrap
def _resize(x: Tensor, height: int, width: int) -> Tensor:
    """A map at this size: means of whole patches where it is a multiple of it, else interpolated."""
    rows, columns = x.shape[2] // height, x.shape[3] // width
    if rows * height != x.shape[2] or columns * width != x.shape[3]:
        return F.interpolate(x, size=[height, width], mode="bilinear")
    return x if rows == 1 and columns == 1 else F.avg_pool2d(x, [rows, columns])


class MobileNetV5MultiScaleFusionAdapter(nn.Module):
    """Maps of several scales become one of a fixed size: an inverted residual of all of them, and a norm.

    Shapes: a list of (B, C_i, H_i, W_i), the largest first -> (B, out_chs, *output_resolution).

    Args:
        in_chs: Channels of the maps, of each or of all together.
        output_resolution: Rows and columns of the result, one number for a square.
        expansion_ratio: Channels within the inverted residual per channel of the maps.
        interpolation_mode: How smaller maps are resized to the first's size.
        layer_scale_init_value, act_layer, norm_layer: As `MobileNetV5`'s.
        noskip: Without a shortcut, which there could be where channels stay as they are.
    """

    @placeable
    def __init__(
        self, in_chs: int | Sequence[int], out_chs: int, output_resolution: int | tuple[int, int],
        expansion_ratio: float = 2.0, interpolation_mode: str = "nearest", layer_scale_init_value: float | None = None,
        noskip: bool = True, act_layer: ActLayer = None, norm_layer: NormLayer = None,
    ) -> None:
        super().__init__()
        norm: Any = get_norm_layer(norm_layer) or RmsNorm2d
        self.in_channels = in_chs if isinstance(in_chs, int) else sum(in_chs)
        self.out_channels, self.output_resolution = out_chs, to_2tuple(output_resolution)
        self.interpolation_mode = interpolation_mode
        self.ffn = UniversalInvertedResidual(
            self.in_channels, out_chs, dw_kernel_size_mid=0, exp_ratio=expansion_ratio, act_layer=act_layer or _GELU,
            norm_layer=norm, noskip=noskip, layer_scale_init_value=layer_scale_init_value)
        self.norm = norm(out_chs)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        x = self.ffn(_concatenate(inputs, self.interpolation_mode))
        height, width = self.output_resolution
        return self.norm(_resize(x, height, width))


class MobileNetV5(PooledConvHead, MobileModel):
    """Stem, stages of mobile blocks, the fusion of some stages' maps, pooling and a linear classifier.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); features (B, num_features, *msfa_output_resolution) whatever the
    image's size, or the last stage's without the fusion: a head convolution, behind the pooling, then takes its place.

    Args:
        stem_bias: Whether the stem's convolution has a bias.
        fix_stem: Do not scale the stem; by default where `channel_multiplier` is under 1.
        num_features: Channels of the fusion, or of the head convolution.
        use_msfa: Whether there is the fusion.
        msfa_indices: Which features it takes, as `forward_intermediates` counts them; negative from the end.
        msfa_output_resolution: Rows and columns of what it gives.
        act_layer, norm_layer: GELU (tanh) and RMS norm unless given.
        **kwargs: See `MobileModel`.

    Raises:
        ValueError: An index is out of range, or `MobileModel` refuses an argument.
    """

    feature_form: ClassVar[str] = "getter"
    stem_paths: ClassVar[tuple[str, ...]] = ("conv_stem",)

    def __init__(
        self, block_args: Sequence[Sequence[str | Mapping[str, Any]]], num_classes: int = 1000, in_chans: int = 3,
        stem_size: int = 16, stem_bias: bool = True, fix_stem: bool | None = None, num_features: int = 2048,
        pad_type: Padding = "", use_msfa: bool = True, msfa_indices: Sequence[int] = (-2, -1),
        msfa_output_resolution: int | tuple[int, int] = 16, act_layer: ActLayer = None, norm_layer: NormLayer = None,
        se_from_exp: bool = True, channel_multiplier: float = 1.0, **kwargs: Any,
    ) -> None:
        if kwargs.get("output_stride", 32) != 32:
            raise ValueError(f"output_stride is 32 for a MobileNetV5, not {kwargs['output_stride']}")
        act_layer, norm_layer = act_layer or _GELU, norm_layer or RmsNorm2d
        # for `make_stem` and `make_head`, which the base's constructor calls
        self.stem_bias, self.use_msfa, self.msfa_indices = stem_bias, use_msfa, tuple(msfa_indices)
        self.msfa_output_resolution = msfa_output_resolution
        self.make_msfa = partial(MobileNetV5MultiScaleFusionAdapter, output_resolution=msfa_output_resolution,
                                 act_layer=act_layer, norm_layer=norm_layer)
        super().__init__(
            block_args, num_classes, num_features, in_chans, stem_size, pad_type=pad_type, se_from_exp=se_from_exp,
            fix_stem=channel_multiplier < 1.0 if fix_stem is None else fix_stem, act_layer=act_layer,
            norm_layer=norm_layer, channel_multiplier=channel_multiplier, **kwargs)

    def make_stem(self, in_chans: int, chs: int, kernel_size: int, layers: Layers) -> None:
        self.conv_stem = ConvNormAct(in_chans, chs, kernel_size, 2, layers.pad_type, bias=self.stem_bias,
                                     norm_layer=layers.norm_layer, act_layer=layers.act_layer)

    def make_head(self, num_features: int, global_pool: str, layers: Layers) -> None:
        self.conv_head = self.norm_head = self.act2 = nn.Identity()
        self.global_pool = GlobalPool2d(global_pool, flatten=False)
        self.head_hidden_size = num_features
        if not self.use_msfa:
            self.conv_head = layers.conv(self.num_features * self.global_pool.out_factor, num_features)
            self.norm_head = layers.norm_act(num_features)
            return
        taps = self.flow.taps
        self.msfa_indices = tuple(take_indices(len(taps), self.msfa_indices))
        fused = [taps[i] for i in self.msfa_indices]
        self.msfa = self.make_msfa([tap.chs for tap in fused], num_features)
        self.num_features = num_features
        self.head_hidden_size = num_features * self.global_pool.out_factor
        keeps = {tap.step: [Step("_keep", gives=(tap.module,))] for tap in fused if tap != taps[-1]}
        kept = tuple(step.gives[0] for step, in keeps.values())
        stem, stages = ([one for step in steps for one in (step, *keeps.get(step, ()))]
                        for steps in (self.flow.stem, self.flow.stages))
        self.flow = Flow(stem, stages, neck=[Step("_collect", takes=kept), Step("msfa")])

    def _keep(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x

    def _collect(self, x: Tensor, *kept: Tensor) -> list[Tensor]:
        """The maps to fuse: those kept on the way and, where that is one of them, the last."""
        return [*kept, x][:len(self.msfa_indices)]

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """As every model's; the fusion goes with the classifier."""
        return dict(stem=r"^conv_stem", blocks=r"^blocks\.(\d+)" if coarse else r"^blocks\.(\d+)\.(\d+)")


class MobileNetV5Encoder(MobileNetV5):
    """MobileNetV5 without pooling and classifier, as Gemma 3n has it.

    Shapes: (B, in_chans, H, W) -> (B, 2048, *msfa_output_resolution).

    Args:
        num_classes, global_pool: Without effect, with a warning: there is no classifier, and no pooling before it.
        **kwargs: See `MobileNetV5`; `use_msfa` and `num_features` are not for choice.
    """

    def __init__(
        self, block_args: Sequence[Sequence[str | Mapping[str, Any]]], in_chans: int = 3, stem_size: int = 64, *,
        num_classes: int = 0, global_pool: str = "", **kwargs: Any,
    ) -> None:
        if num_classes or global_pool:
            warnings.warn("a MobileNetV5Encoder has no pooling and no classifier: num_classes and global_pool have no "
                          "effect; 'mobilenetv5_300m' has them", UserWarning, stacklevel=2)
        super().__init__(block_args, 0, in_chans, stem_size, global_pool="", **kwargs)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The features as they are: there is no head.

        Raises:
            NotImplementedError: Always, as in timm; `forward` and `forward_features` give the features.
        """
        raise NotImplementedError("a MobileNetV5Encoder has no head; forward_features gives its features")

    def forward(self, x: Tensor) -> Tensor:
        """Image (B, in_chans, H, W) -> features (B, 2048, *msfa_output_resolution)."""
        return self.forward_features(x)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None, reset_other: bool = False) -> None:
        """As every model's, of 0 classes and no pooling.

        Raises:
            ValueError: Classes, or a pooling, are asked for.
        """
        if num_classes or global_pool:
            raise ValueError("a MobileNetV5Encoder has no pooling and no classifier; 'mobilenetv5_300m' has them")
        super().reset_classifier(0, global_pool, reset_other)


def _encoder(chs: tuple[int, int], more: str, heads: tuple[str, str], repeats: tuple[int, int]) -> dict[str, Any]:
    """Arguments of a network whose third and fourth stage have these channels; `more` blocks of the third, then
    multi-query attention of these heads and a feed-forward block, in turns, so often."""
    attentive = [f" mqa_r1_k3_{mqa}_c{width} uir_r1_a0_k0_s1_e2_c{width}" * count
                 for mqa, width, count in zip(heads, chs, repeats)]
    c2, c3 = chs
    return dict(stem_size=64, layer_scale_init_value=1e-5, block_args=arch(
        "er_r1_k3_s2_e4_c128 er_r2_k3_s1_e4_c128",
        "uir_r1_a3_k5_s2_e6_c256" + " uir_r1_a5_k0_s1_e4_c256 uir_r1_a3_k0_s1_e4_c256" * 2,
        f"uir_r1_a5_k5_s2_e6_c{c2} {more}_c{c2} uir_r1_a0_k0_s1_e1_c{c2}{attentive[0]}",
        f"uir_r1_a5_k5_s2_e6_c{c3}{attentive[1]}"))


_BASE = _encoder((512, 1024), "uir_r2_a5_k0_s1_e4", ("h8_s2_d64", "h16_s1_d64"), (6, 7))
_300M = _encoder((640, 1280), "uir_r7_a5_k0_s1_e4", ("h12_v2_s1_d64", "h16_s1_d96"), (14, 19))

register_model.variants(__name__, MobileNetV5, {
    "mobilenetv5_300m": ("Gemma 3n's encoder, with pooling and a classifier.", _300M),
    "mobilenetv5_base": ("A smaller one; nobody has published weights.", _BASE),
})
register_model.variants(__name__, MobileNetV5Encoder, {
    "mobilenetv5_300m_enc": ("Gemma 3n's encoder, which pads as TensorFlow does.", _300M, dict(pad_type="same")),
})

MobileNetV5.key_maps = (
    KeyMap.renaming("gemma3n", "model.vision_tower.timm_model.conv_stem.conv.weight",
                    prefix="model.vision_tower.timm_model."),
)
