"""MambaOut: the gated convolution that is left of Mamba's block without its state-space model.

Yu and Wang, "MambaOut: Do We Really Need Mamba for Vision?", 2024, arXiv:2405.07992. Maps have their channels last. The
"rw" models are timm's: no norm within the stem, norms before the downsampling, a scale, and a head with one norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ..layers import ActLayer, ClNormMlpClassifierHead, LayerScale, Stage, get_act_layer, init_trunc_normal
from ..layers.drop import DropPath, drop_path_rates
from ..layers.helpers import placeable, to_1tuple, to_ntuple
from ..layers.norm import LayerNorm, NormLayer, get_norm_layer
from ..registry import register_model
from .base import Flow, ImageModel, Inits, KeyMap, Step

if TYPE_CHECKING:
    from ._variants.mambaout import *

__all__ = ["MambaOut"]


def _on_channels_first(conv: nn.Module, x: Tensor) -> Tensor:
    return conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Stem(nn.Module):
    """Two strided convolutions, a norm (between only where `mid_norm`). (B, C, H, W) -> (B, H / 4, W / 4, C')."""

    @placeable
    def __init__(
        self, in_chs: int = 3, out_chs: int = 96, mid_norm: bool = True, act_layer: ActLayer = nn.GELU,
        norm_layer: NormLayer = LayerNorm,
    ) -> None:
        super().__init__()
        norm = get_norm_layer(norm_layer)
        self.conv1 = nn.Conv2d(in_chs, out_chs // 2, 3, stride=2, padding=1)
        self.norm1 = norm(out_chs // 2) if mid_norm else None
        self.act = get_act_layer(act_layer)()
        self.conv2 = nn.Conv2d(out_chs // 2, out_chs, 3, stride=2, padding=1)
        self.norm2 = norm(out_chs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        if self.norm1 is not None:
            x = self.norm1(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.norm2(self.conv2(self.act(x)).permute(0, 2, 3, 1))


class Downsample(nn.Module):
    """A convolution of stride 2, then a norm. Shapes: (B, H, W, in_chs) -> (B, H / 2, W / 2, out_chs)."""

    @placeable
    def __init__(self, in_chs: int = 96, out_chs: int = 198, norm_layer: NormLayer = LayerNorm) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_chs, out_chs, 3, stride=2, padding=1)
        self.norm = get_norm_layer(norm_layer)(out_chs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(_on_channels_first(self.conv, x))


class DownsampleNormFirst(nn.Module):
    """Norm, then a convolution of stride 2. Shapes as `Downsample`."""

    @placeable
    def __init__(self, in_chs: int = 96, out_chs: int = 198, norm_layer: NormLayer = LayerNorm) -> None:
        super().__init__()
        self.norm = get_norm_layer(norm_layer)(in_chs)
        self.conv = nn.Conv2d(in_chs, out_chs, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return _on_channels_first(self.conv, self.norm(x))


class MlpHead(ClNormMlpClassifierHead):
    """`ClNormMlpClassifierHead` with a norm behind the hidden layer, too; key `pre_logits.norm`.

    `mlp_ratio` is the hidden width in features, None for no hidden layer; the pooling is "avg" or "".
    """

    @placeable
    def __init__(
        self, in_features: int, num_classes: int = 1000, pool_type: str = "avg", act_layer: ActLayer = nn.GELU,
        mlp_ratio: float | None = 4, norm_layer: NormLayer = LayerNorm, drop_rate: float = 0.0, bias: bool = True,
    ) -> None:
        hidden_size = None if mlp_ratio is None else int(mlp_ratio * in_features)
        super().__init__(in_features, num_classes, hidden_size, pool_type, drop_rate, norm_layer, act_layer)
        if hidden_size:
            self.pre_logits.add_module("norm", get_norm_layer(norm_layer)(hidden_size))
        if not bias and num_classes > 0:
            self.fc = nn.Linear(self.num_features, num_classes, bias=False)

    def set_global_pool(self, pool_type: str) -> None:
        if pool_type not in ("avg", ""):
            raise ValueError(f"unknown global_pool '{pool_type}'; known: 'avg', ''")
        super().set_global_pool(pool_type)


class GatedConvBlock(nn.Module):
    """Norm and a gated unit, part of whose values went through a depthwise convolution, beside a shortcut.

    Shapes: (B, H, W, dim) -> same.

    Args:
        expansion_ratio, conv_ratio: Width of gates and of values, and of the values that are convolved, in `dim`.
        ls_init_value: None for no scale on the branch; else it begins with 1e-5, as timm's, whatever the value.
        norm_layer, act_layer: Norm of channels; activation of the gates.
    """

    @placeable
    def __init__(
        self, dim: int, expansion_ratio: float = 8 / 3, kernel_size: int = 7, conv_ratio: float = 1.0,
        ls_init_value: float | None = None, norm_layer: NormLayer = LayerNorm, act_layer: ActLayer = nn.GELU,
        drop_path: float = 0.0, **_: Any,
    ) -> None:
        super().__init__()
        hidden, chs = int(expansion_ratio * dim), int(conv_ratio * dim)
        self.norm = get_norm_layer(norm_layer)(dim)
        self.fc1 = nn.Linear(dim, hidden * 2)
        self.act = get_act_layer(act_layer)()
        self.split_indices = (hidden, hidden - chs, chs)
        self.conv = nn.Conv2d(chs, chs, kernel_size, padding=kernel_size // 2, groups=chs)
        self.fc2 = nn.Linear(hidden, dim)
        self.ls = nn.Identity() if ls_init_value is None else LayerScale(dim)
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        gates, values, mixed = self.fc1(self.norm(x)).split(self.split_indices, dim=-1)
        values = torch.cat((values, _on_channels_first(self.conv, mixed)), dim=-1)
        return self.drop_path(self.ls(self.fc2(self.act(gates) * values))) + x


_DOWNSAMPLE = {"conv": Downsample, "conv_nf": DownsampleNormFirst}


class MambaOutStage(Stage):
    """Downsampling ("conv", "conv_nf" with its norm first, or "" for none), then blocks; arguments as `GatedConvBlock`.

    Shapes: (B, H, W, dim) -> (B, H / 2, W / 2, dim_out). `drop_path` is one rate, or one for each block.

    Raises:
        ValueError: The width changes without downsampling.
    """

    @placeable
    def __init__(
        self, dim: int, dim_out: int | None = None, depth: int = 4, expansion_ratio: float = 8 / 3,
        kernel_size: int = 7, conv_ratio: float = 1.0, downsample: str = "", ls_init_value: float | None = None,
        norm_layer: NormLayer = LayerNorm, act_layer: ActLayer = nn.GELU, drop_path: float | Sequence[float] = 0.0,
    ) -> None:
        super().__init__()
        dim_out = dim_out or dim
        if downsample not in _DOWNSAMPLE and dim != dim_out:
            raise ValueError(f"downsample {downsample!r} cannot change {dim} channels to {dim_out}: it is one of "
                             f"{', '.join(_DOWNSAMPLE)}")
        make = _DOWNSAMPLE.get(downsample)
        self.downsample = make(dim, dim_out, norm_layer) if make is not None else nn.Identity()
        self.blocks = nn.Sequential(*(
            GatedConvBlock(
                dim_out, expansion_ratio, kernel_size, conv_ratio, ls_init_value, norm_layer, act_layer, rate)
            for rate in to_ntuple(depth)(drop_path)[:depth]))


class MambaOut(ImageModel):
    """A stem of stride 4, stages of gated convolutions, and a head with a hidden layer.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); features (B, H / 32, W / 32, dims[-1]).

    Args:
        global_pool: "avg" or ""; with `head_fn` "norm_mlp" "max" and "avgmax", too.
        depths, dims: Blocks and channels of each stage.
        norm_layer, act_layer, conv_ratio, expansion_ratio, kernel_size, ls_init_value: As of `GatedConvBlock`.
        stem_mid_norm: A norm between the stem's convolutions.
        downsample: Between stages, "conv" or "conv_nf".
        head_fn: "default" for `MlpHead`, else a head without the second norm.
    """

    head_path: ClassVar[str] = "head"
    feature_form: ClassVar[str] = "flat"
    tap_layout: ClassVar[str] = "NHWC"
    feature_layout: ClassVar[str] = "NHWC"
    output_fmt: ClassVar[str] = "NHWC"  # timm's name of the layout of features
    inits: ClassVar[Inits] = {(nn.Conv2d, nn.Linear): init_trunc_normal}

    def __init__(
        self, in_chans: int = 3, num_classes: int = 1000, global_pool: str = "avg",
        depths: Sequence[int] = (3, 3, 9, 3), dims: Sequence[int] = (96, 192, 384, 576),
        norm_layer: NormLayer = LayerNorm, act_layer: ActLayer = nn.GELU, conv_ratio: float = 1.0,
        expansion_ratio: float = 8 / 3, kernel_size: int = 7, stem_mid_norm: bool = True,
        ls_init_value: float | None = None, downsample: str = "conv", drop_path_rate: float = 0.0,
        drop_rate: float = 0.0, head_fn: str = "default",
    ) -> None:
        super().__init__()
        self.num_classes, self.in_chans = num_classes, in_chans
        depths, dims = to_1tuple(depths), to_1tuple(dims)
        self.stem = Stem(in_chans, dims[0], stem_mid_norm, act_layer, norm_layer)
        self.stages = nn.Sequential()
        self.flow = Flow(stem=[Step("stem")], stages=[])
        chs = dims[0]
        for i, (dim, rates) in enumerate(zip(dims, drop_path_rates(drop_path_rate, depths))):
            self.stages.append(MambaOutStage(
                chs, dim, len(rates), expansion_ratio, kernel_size, conv_ratio, downsample if i > 0 else "",
                ls_init_value, norm_layer, act_layer, rates))
            self.flow.stages.append(Step(f"stages.{i}", dim, 4 * 2**i))
            chs = dim
        self.num_features = chs
        self.head = MlpHead(chs, num_classes, global_pool, norm_layer=norm_layer, drop_rate=drop_rate) \
            if head_fn == "default" else ClNormMlpClassifierHead(
                chs, num_classes, 4 * chs, global_pool, drop_rate, norm_layer)
        self.head_hidden_size = self.head.num_features
        self.init_weights()


_SMALL_DEPTHS, _TALL_DEPTHS = dict(depths=(3, 4, 27, 3)), dict(depths=(3, 4, 30, 3))
_FEMTO, _BASE = dict(dims=(48, 96, 192, 288)), dict(dims=(128, 256, 512, 768))
_RW = dict(stem_mid_norm=False, downsample="conv_nf", ls_init_value=1e-6, head_fn="norm_mlp")
_WIDE = dict(expansion_ratio=3.0, conv_ratio=1.5, act_layer="silu")

register_model.variants(__name__, MambaOut, {
    "mambaout_femto": _FEMTO,
    "mambaout_kobe": (_FEMTO, dict(depths=(3, 3, 15, 3)), "24 blocks, in memory of Kobe Bryant."),
    "mambaout_tiny": {},
    "mambaout_small": _SMALL_DEPTHS,
    "mambaout_base": (_SMALL_DEPTHS, _BASE),
    "mambaout_small_rw": (_SMALL_DEPTHS, _RW),
    "mambaout_base_short_rw": (_BASE, _RW, dict(depths=(3, 3, 25, 3), expansion_ratio=3.0, conv_ratio=1.25)),
    "mambaout_base_tall_rw": (_TALL_DEPTHS, _BASE, _RW, dict(expansion_ratio=2.5, conv_ratio=1.25)),
    "mambaout_base_wide_rw": (_SMALL_DEPTHS, _BASE, _RW, _WIDE),
    "mambaout_base_plus_rw": (_TALL_DEPTHS, _BASE, _RW, _WIDE),
    "test_mambaout": (_RW, dict(depths=(1, 1, 3, 1), dims=(16, 32, 48, 64), expansion_ratio=3, act_layer="silu",
                                ls_init_value=1e-4)),
})


# The authors' downsampling stands beside the stages, and their norm before the head.
MambaOut.key_maps = (KeyMap.renaming(
    "authors", "downsample_layers.0.conv1.weight", (r"^head\.fc1\.", "head.pre_logits.fc."),
    (r"^head\.norm\.", "head.pre_logits.norm."), (r"^head\.fc2\.", "head.fc."), (r"^norm\.", "head.norm."),
    (r"^downsample_layers\.0\.", "stem."), (r"^stages\.(\d+)\.(\d+)", r"stages.\1.blocks.\2"),
    (r"^downsample_layers\.(\d+)", r"stages.\1.downsample")),)
