"""ViTamin: a vision transformer behind two stages of convolutions (https://arxiv.org/abs/2404.02132).

The stages are inverted bottlenecks with layer norm and a depthwise convolution, at strides 4 and 8; the transformer, at
stride 16, has gated feed-forward blocks with a norm of their own, and pools patches by mean.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..layers.activations import ActLayer, create_act_layer
from ..layers.drop import DropPath
from ..layers.helpers import make_divisible, placeable
from ..layers.norm import LayerNorm2d, NormLayer, get_norm_act_layer, get_norm_layer
from ..layers.weight_init import fan_out_normal_, init_zero_bias
from ..registry import register_model
from .tokens import sized_by_name
from .vision_transformer_hybrid import HybridVisionTransformer

if TYPE_CHECKING:
    from ._variants.vitamin import *

__all__ = ["ViTamin"]


@dataclass
class VitConvCfg:
    """timm's description of the convolutions' blocks; as there, without effect."""

    expand_ratio: float = 4.0
    expand_output: bool = True
    kernel_size: int = 3
    group_size: int = 1
    pre_norm_act: bool = False
    stride_mode: str = "dw"
    pool_type: str = "avg2"
    downsample_pool_type: str = "avg2"
    act_layer: str = "gelu"
    norm_layer: str = ""
    norm_eps: float = 1e-5
    down_shortcut: bool | None = True
    mlp: str = "mlp"


@dataclass
class VitCfg:
    """Channels and blocks of the two stages of convolutions, and of the transformer (whose depth is an argument).

    `conv_cfg` and `head_type` are without effect, as in timm.
    """

    embed_dim: tuple[int, ...] = (96, 192, 384, 768)
    depths: tuple[int, ...] = (2, 3, 5, 2)
    stem_width: int = 64
    conv_cfg: VitConvCfg = field(default_factory=VitConvCfg)
    head_type: str = ""


class Stem(nn.Module):
    """Two convolutions, norm and activation between them. Shapes: (B, in_chs, H, W) -> (B, out_chs, H / 2, W / 2)."""

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, act_layer: ActLayer = "gelu", norm_layer: NormLayer = "layernorm2d",
        norm_eps: float = 1e-6, bias: bool = True,
    ) -> None:
        super().__init__()
        self.out_chs = out_chs
        self.conv1 = nn.Conv2d(in_chs, out_chs, 3, 2, 1, bias=bias)
        self.norm1 = get_norm_act_layer(norm_layer, act_layer)(out_chs, eps=norm_eps)
        self.conv2 = nn.Conv2d(out_chs, out_chs, 3, 1, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.norm1(self.conv1(x)))


class Downsample2d(nn.Module):
    """Mean of 3 x 3 positions, then other channels. Shapes: (B, dim, H, W) -> (B, dim_out, H / 2, W / 2).

    `pool_type` is without effect, as in timm.
    """

    @placeable
    def __init__(self, dim: int, dim_out: int, pool_type: str = "avg2", bias: bool = True) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(3, 2, 1, count_include_pad=False)
        self.expand = nn.Conv2d(dim, dim_out, 1, bias=bias) if dim != dim_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.expand(self.pool(x))


class StridedConv(nn.Module):
    """A norm, then a convolution with a stride. Shapes: (B, in_chans, H, W) -> (B, embed_dim, H / 2, W / 2)."""

    @placeable
    def __init__(
        self, kernel_size: int = 3, stride: int = 2, padding: int = 1, in_chans: int = 3, embed_dim: int = 768
    ) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size, stride, padding)
        self.norm = LayerNorm2d(in_chans, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.norm(x))


class MbConvLNBlock(nn.Module):
    """An inverted bottleneck behind a layer norm, around a shortcut. Shapes: (B, in_chs, H, W) -> (B, out_chs, H', W').

    `stride`: Of the depthwise convolution; with 2 the shortcut is pooled. `expand_ratio`: Hidden channels for each of
    `out_chs`.
    """

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, stride: int = 1, drop_path: float = 0.0, kernel_size: int = 3,
        norm_layer: NormLayer = "layernorm2d", norm_eps: float = 1e-6, act_layer: ActLayer = "gelu",
        expand_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        self.stride, self.in_chs, self.out_chs = stride, in_chs, out_chs
        hidden = make_divisible(out_chs * expand_ratio)
        self.shortcut = Downsample2d(in_chs, out_chs) if stride == 2 else \
            nn.Conv2d(in_chs, out_chs, 1) if in_chs != out_chs else nn.Identity()
        self.pre_norm = get_norm_act_layer(norm_layer, act_layer)(in_chs, eps=norm_eps, apply_act=False)
        self.conv1_1x1 = nn.Conv2d(in_chs, hidden, 1)
        self.act1: Any = create_act_layer(act_layer, inplace=True)
        self.conv2_kxk = nn.Conv2d(hidden, hidden, kernel_size, stride, kernel_size // 2, groups=hidden)
        self.act2: Any = create_act_layer(act_layer, inplace=True)
        self.conv3_1x1 = nn.Conv2d(hidden, out_chs, 1)
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.act1(self.conv1_1x1(self.pre_norm(x)))
        return self.drop_path(self.conv3_1x1(self.act2(self.conv2_kxk(y)))) + self.shortcut(x)


class MbConvStages(nn.Module):
    """The convolutions: (B, in_chans, H, W) -> (B, cfg.embed_dim[2], H / 16, W / 16). `img_size` is without effect."""

    @placeable
    def __init__(self, cfg: VitCfg, img_size: int | tuple[int, int] = 224, in_chans: int = 3) -> None:
        super().__init__()
        self.stem = Stem(in_chans, cfg.stem_width)
        self.num_stages, self.stages, before = len(cfg.embed_dim), nn.Sequential(), cfg.stem_width
        for dim, depth in zip(cfg.embed_dim[:2], cfg.depths):
            self.stages.append(nn.Sequential(*(
                MbConvLNBlock(dim if i else before, dim, stride=1 if i else 2) for i in range(depth))))
            before = dim
        self.pool = StridedConv(in_chans=before, embed_dim=cfg.embed_dim[2])

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.stages(self.stem(x)))


class GeGluMlp(nn.Module):
    """A norm, then a gated feed-forward block: act(w0 x) * w1 x, then w2. Shapes: (..., in_features) -> same."""

    @placeable
    def __init__(
        self, in_features: int, hidden_features: int, act_layer: ActLayer = "gelu", norm_layer: NormLayer = None,
        bias: bool = True, drop: float = 0.0,
    ) -> None:
        super().__init__()
        norm: Any = get_norm_layer(norm_layer or "layernorm")
        self.norm = norm(in_features, eps=1e-6)
        self.w0 = nn.Linear(in_features, hidden_features, bias=bias)
        self.act: Any = create_act_layer(act_layer)
        self.w1 = nn.Linear(in_features, hidden_features, bias=bias)
        self.drop1 = nn.Dropout(drop)
        self.w2 = nn.Linear(hidden_features, in_features, bias=bias)
        self.drop2 = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return self.drop2(self.w2(self.drop1(self.act(self.w0(x)) * self.w1(x))))


class ViTamin(HybridVisionTransformer):
    """ViTamin. Shapes and arguments as `VisionTransformer`'s, and `embed_cfg`, whose `embed_dim[2]` is `embed_dim`."""

    def __init__(self, embed_cfg: VitCfg, **kwargs: Any) -> None:
        super().__init__(partial(_convolutions, embed_cfg), embed_args=dict(proj=False), **kwargs)

    def init_module(self, name: str, module: nn.Module) -> None:
        super().init_module(name, module)
        if isinstance(module, nn.Conv2d) and re.match(r"patch_embed\.backbone\.(?:stem|stages)\.", name):
            if ".stem." in name or self.weight_init_mode not in ("reset", "skip"):  # timm's stem whatever the scheme
                fan_out_normal_(module.weight, module.groups)
                init_zero_bias(module)


def _convolutions(cfg: VitCfg, in_chans: int) -> nn.Module:
    return MbConvStages(cfg, in_chans=in_chans)


def _preset(dims: tuple[int, int, int], depth: int, num_heads: int, **others: Any) -> dict[str, Any]:
    cfg = VitCfg(dims, (2, 4, 1), dims[0], VitConvCfg(norm_layer="layernorm2d", norm_eps=1e-6), "1d")
    return dict(embed_cfg=cfg, embed_dim=dims[2], depth=depth, num_heads=num_heads, mlp_layer=GeGluMlp, mlp_ratio=2.0,
                class_token=False, global_pool="avg", **others)


_LARGE = _preset((160, 320, 1024), 31, 16)
_XLARGE = _preset((192, 384, 1152), 32, 16, pos_embed="none")

register_model.variants(__name__, ViTamin, sized_by_name({
    "vitamin_small_224": _preset((64, 128, 384), 14, 6),
    "vitamin_base_224": _preset((128, 256, 768), 14, 12),
    "vitamin_large_224 vitamin_large_256 vitamin_large_336 vitamin_large_384": _LARGE,
    "vitamin_large2_224 vitamin_large2_256 vitamin_large2_336 vitamin_large2_384": _LARGE,
    "vitamin_xlarge_256 vitamin_xlarge_336 vitamin_xlarge_384": _XLARGE,
}))
