"""DaViT: attention within windows, then attention among channels, in turn; convolutions tell positions.

- Ding et al., "DaViT: Dual Attention Vision Transformers", 2022, arXiv:2204.03645.
- Xiao et al., "Florence-2", 2023, arXiv:2311.06242: the image towers ("fl"), whose channels' attention scales with the
  number of positions.

Images may have any size: stem, downsampling and windows pad with zeros.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ..layers import attention
from ..layers.activations import ActLayer
from ..layers.drop import DropPath, drop_path_rates
from ..layers.helpers import placeable, to_2tuple
from ..layers.mlp import Mlp
from ..layers.norm import LayerNorm2d, NormLayer, get_norm_layer
from ..layers.pool import ClassifierHead, NormMlpClassifierHead
from ..layers.stage import Stage
from ..layers.weight_init import init_trunc_normal
from ..layers.window import pad_to_multiple, window_partition, window_reverse
from ..registry import register_model
from .base import Flow, ImageModel, Inits, KeyMap, Step

if TYPE_CHECKING:
    from ._variants.davit import *

__all__ = ["DaVit"]

torch.fx.wrap("pad_to_multiple")  # one node in a traced graph: what it does depends on the map's size

Norm = Callable[[int], nn.Module]


class ConvPosEnc(nn.Module):
    """A depthwise convolution beside a shortcut: what is where; key `proj`. Shapes: (B, dim, H, W) -> same."""

    @placeable
    def __init__(self, dim: int, k: int = 3, act: bool = False) -> None:
        super().__init__()
        self.proj = nn.Conv2d(dim, dim, k, padding=k // 2, groups=dim)
        self.act = nn.GELU() if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.act(self.proj(x))


def _pad(x: Tensor, sides: tuple[int, int]) -> Tensor:
    return pad_to_multiple(x.permute(0, 2, 3, 1), sides).permute(0, 3, 1, 2)


class Stem(nn.Module):
    """A 7x7 convolution, then a norm; keys `conv`, `norm`. Shapes: (B, in_chs, H, W) -> (B, out_chs, H / 4, W / 4).

    Raises:
        ValueError: The stride is not 4.
    """

    @placeable
    def __init__(
        self, in_chs: int = 3, out_chs: int = 96, stride: int | tuple[int, int] = 4, norm_layer: Norm = LayerNorm2d
    ) -> None:
        super().__init__()
        self.stride, self.in_chs, self.out_chs = to_2tuple(stride), in_chs, out_chs
        if self.stride[0] != 4:
            raise ValueError(f"the stem has a stride of 4, not {stride}")
        self.conv = nn.Conv2d(in_chs, out_chs, 7, stride=self.stride, padding=3)
        self.norm = norm_layer(out_chs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(_pad(x, self.stride)))


class Downsample(nn.Module):
    """A norm, then a convolution of stride 2; keys `norm`, `conv`. Shapes: (B, in_chs, H, W) -> (B, out_chs, H/2, W/2).
    """

    @placeable
    def __init__(self, in_chs: int, out_chs: int, kernel_size: int = 3, norm_layer: Norm = LayerNorm2d) -> None:
        super().__init__()
        self.in_chs, self.out_chs, self.even_k = in_chs, out_chs, kernel_size % 2 == 0
        self.norm = norm_layer(in_chs)
        self.conv = nn.Conv2d(in_chs, out_chs, kernel_size, stride=2, padding=0 if self.even_k else kernel_size // 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return self.conv(_pad(x, to_2tuple(self.conv.kernel_size)) if self.even_k else x)


class ChannelAttention(nn.Module):
    """Attention of channels to channels, in groups; keys `qkv`, `proj`. Shapes: (B, N, dim) -> same."""

    @placeable
    def __init__(self, dim: int, num_heads: int = 8, qkv_bias: bool = False) -> None:
        super().__init__()
        self.num_heads, self.scale = num_heads, (dim // num_heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(self.mix(q, k, v).transpose(1, 2).flatten(2))

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Each (B, heads, N, d); keys meet values, and queries are what is mixed."""
        attn = ((k * self.scale).transpose(-1, -2) @ v).softmax(dim=-1)
        return (attn @ q.transpose(-1, -2)).transpose(-1, -2)


class ChannelAttentionV2(ChannelAttention):
    """The same with the usual parts: queries meet keys, values are mixed; the more positions, the smaller the logits.

    `dynamic_scale`: The scale follows the number of positions, not that of a head's channels.
    """

    @placeable
    def __init__(self, dim: int, num_heads: int = 8, qkv_bias: bool = True, dynamic_scale: bool = True) -> None:
        super().__init__(dim, num_heads, qkv_bias)
        self.dynamic_scale = dynamic_scale

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scale = q.shape[2] ** -0.5 if self.dynamic_scale else self.scale
        attn = ((q * scale).transpose(-1, -2) @ k).softmax(dim=-1)
        return (attn @ v.transpose(-1, -2)).transpose(-1, -2)


class WindowAttention(attention.Attention):
    """Attention within windows; keys `qkv`, `proj`. Shapes: (B * windows, N, dim) -> same."""

    @placeable
    def __init__(self, dim: int, window_size: tuple[int, int], num_heads: int, qkv_bias: bool = True) -> None:
        super().__init__(dim, num_heads, qkv_bias=qkv_bias)
        self.window_size = window_size


class _Block(nn.Module):
    """Positions, attention, positions, MLP; keys `cpe1`, `norm1`, `attn`, `cpe2`, and with an MLP `norm2`, `mlp`.

    Shapes: (B, dim, H, W) -> same.
    """

    def __init__(
        self, dim: int, attn: nn.Module, mlp_ratio: float, drop_path: float, act_layer: ActLayer, norm_layer: Norm,
        ffn: bool, cpe_act: bool,
    ) -> None:
        super().__init__()
        self.ffn, self.cpe1 = ffn, ConvPosEnc(dim, act=cpe_act)
        self.norm1, self.attn, self.drop_path1 = norm_layer(dim), attn, DropPath(drop_path)
        self.cpe2 = ConvPosEnc(dim, act=cpe_act)
        self.norm2 = norm_layer(dim) if ffn else None
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=act_layer) if ffn else None
        self.drop_path2 = DropPath(drop_path) if ffn else None

    def mix(self, x: Tensor) -> Tensor:
        """Attention of a map (B, H, W, dim) -> same."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        x = self.cpe1(x).permute(0, 2, 3, 1)
        x = x + self.drop_path1(self.mix(self.norm1(x)))
        x = self.cpe2(x.permute(0, 3, 1, 2))
        if self.norm2 is None or self.mlp is None or self.drop_path2 is None:
            return x
        x = x.permute(0, 2, 3, 1)
        return (x + self.drop_path2(self.mlp(self.norm2(x)))).permute(0, 3, 1, 2)


class ChannelBlock(_Block):
    """A block whose channels attend. `ffn`: There is an MLP; `cpe_act`: an activation there; `v2`: as Florence's."""

    @placeable
    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float = 4.0, qkv_bias: bool = False, drop_path: float = 0.0,
        act_layer: ActLayer = nn.GELU, norm_layer: Norm = nn.LayerNorm, ffn: bool = True, cpe_act: bool = False,
        v2: bool = False,
    ) -> None:
        attn = (ChannelAttentionV2 if v2 else ChannelAttention)(dim, num_heads, qkv_bias)
        super().__init__(dim, attn, mlp_ratio, drop_path, act_layer, norm_layer, ffn, cpe_act)

    def mix(self, x: Tensor) -> Tensor:
        return self.attn(x.flatten(1, 2)).unflatten(1, x.shape[1:3])


class SpatialBlock(_Block):
    """A block whose positions attend, within windows; zeros fill up the last ones, and are attended to."""

    @placeable
    def __init__(
        self, dim: int, num_heads: int, window_size: int | tuple[int, int] = 7, mlp_ratio: float = 4.0,
        qkv_bias: bool = True, drop_path: float = 0.0, act_layer: ActLayer = nn.GELU,
        norm_layer: Norm = nn.LayerNorm, ffn: bool = True, cpe_act: bool = False,
    ) -> None:
        attn = WindowAttention(dim, to_2tuple(window_size), num_heads, qkv_bias)
        super().__init__(dim, attn, mlp_ratio, drop_path, act_layer, norm_layer, ffn, cpe_act)
        self.dim, self.num_heads, self.mlp_ratio, self.window_size = dim, num_heads, mlp_ratio, attn.window_size

    def mix(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        x = pad_to_multiple(x, self.window_size)
        rows, columns = x.shape[1:3]
        x = self.attn(window_partition(x, self.window_size).flatten(1, 2))
        return window_reverse(x, self.window_size, rows, columns)[:, :height, :width]


class DaVitStage(Stage):
    """Downsampling, where there is some, then blocks that are a block of each of `attn_types`; keys as `Stage`'s.

    Shapes: (B, in_chs, H, W) -> (B, out_chs, H / 2, W / 2), or the same without `downsample`.

    Args:
        attn_types: "spatial" and "channel", in this order or another.
        norm_layer, norm_layer_cl: Norm of the downsampling, and of the blocks, whose channels are last.
        named_blocks: The keys are "spatial_block" and "channel_block", not 0 and 1.
        channel_attn_v2: The channels attend as Florence's.

    Raises:
        ValueError: A type of attention is unknown.
    """

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, depth: int = 1, downsample: bool = True,
        attn_types: Sequence[str] = ("spatial", "channel"), num_heads: int = 3, window_size: int = 7,
        mlp_ratio: float = 4.0, qkv_bias: bool = True, drop_path_rates: Sequence[float] = (0, 0),
        norm_layer: Norm = LayerNorm2d, norm_layer_cl: Norm = nn.LayerNorm, ffn: bool = True, cpe_act: bool = False,
        down_kernel_size: int = 2, named_blocks: bool = False, channel_attn_v2: bool = False,
    ) -> None:
        super().__init__()
        kinds: dict[str, Callable[..., nn.Module]] = {
            "spatial": partial(SpatialBlock, window_size=window_size),
            "channel": partial(ChannelBlock, v2=channel_attn_v2)}
        if unknown := [kind for kind in attn_types if kind not in kinds]:
            raise ValueError(f"unknown attn_types '{unknown[0]}'; known: {', '.join(kinds)}")
        self.downsample = Downsample(in_chs, out_chs, down_kernel_size, norm_layer) if downsample else nn.Identity()
        self.blocks = nn.Sequential(*(
            nn.Sequential(OrderedDict(
                (f"{kind}_block" if named_blocks else str(place), kinds[kind](
                    out_chs, num_heads, mlp_ratio=mlp_ratio, qkv_bias=qkv_bias, drop_path=drop_path_rates[i],
                    norm_layer=norm_layer_cl, ffn=ffn, cpe_act=cpe_act))
                for place, kind in enumerate(attn_types)))
            for i in range(depth)))


class DaVit(ImageModel):
    """Stem, stages of dual attention, pooling, norm, classifier.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); the features have a stride of 32.

    Args:
        depths, embed_dims, num_heads: Blocks, channels and heads (groups of channels) of each stage.
        norm_layer, norm_layer_cl, norm_eps: Norm of maps, and of the blocks, whose channels are last; their epsilon.
        attn_types: Blocks of a pair: "spatial", "channel".
        ffn, cpe_act: Whether the blocks have MLPs, and the convolutions of positions activations.
        channel_attn_v2, named_blocks: As in Florence 2: attention of channels, keys.
        global_pool: "avg", "max", "avgmax" or "" for none; "catavgmax" too where `head_norm_first`.
        head_norm_first: Normalise before pooling instead of after.

    Raises:
        ValueError: An option has an unknown value, or not one for each stage.
    """

    head_path, feature_form, tap_norm, norm_path = "head", "flat", "last", "norm_pre"
    inits: ClassVar[Inits] = {nn.Linear: init_trunc_normal}

    def __init__(
        self, in_chans: int = 3, depths: Sequence[int] = (1, 1, 3, 1), embed_dims: Sequence[int] = (96, 192, 384, 768),
        num_heads: Sequence[int] = (3, 6, 12, 24), window_size: int = 7, mlp_ratio: float = 4, qkv_bias: bool = True,
        norm_layer: NormLayer = "layernorm2d", norm_layer_cl: NormLayer = "layernorm", norm_eps: float = 1e-5,
        attn_types: Sequence[str] = ("spatial", "channel"), ffn: bool = True, cpe_act: bool = False,
        down_kernel_size: int = 2, channel_attn_v2: bool = False, named_blocks: bool = False, drop_rate: float = 0.0,
        drop_path_rate: float = 0.0, num_classes: int = 1000, global_pool: str = "avg", head_norm_first: bool = False,
    ) -> None:
        super().__init__()
        if not len(depths) == len(embed_dims) == len(num_heads):
            raise ValueError("depths, embed_dims and num_heads have a number for each stage, not "
                             f"{len(depths)}, {len(embed_dims)} and {len(num_heads)}")
        self.num_classes, self.in_chans, self.num_features = num_classes, in_chans, embed_dims[-1]
        self.named_blocks = named_blocks
        norm, norm_last = (partial(get_norm_layer(name), eps=norm_eps) for name in (norm_layer, norm_layer_cl))
        self.stem = Stem(in_chans, embed_dims[0], norm_layer=norm)
        self.stages = nn.Sequential()
        self.flow = Flow(stem=[Step("stem")], stages=[], tail=[Step("norm_pre")])
        chs = embed_dims[0]
        for i, (dim, rates) in enumerate(zip(embed_dims, drop_path_rates(drop_path_rate, depths))):
            self.stages.append(DaVitStage(
                chs, dim, len(rates), i > 0, attn_types, num_heads[i], window_size, mlp_ratio, qkv_bias, rates, norm,
                norm_last, ffn, cpe_act, down_kernel_size, named_blocks, channel_attn_v2))
            self.flow.stages.append(Step(f"stages.{i}", dim, 4 * 2 ** i))
            chs = dim
        self.norm_pre = norm(chs) if head_norm_first else nn.Identity()
        self.head = ClassifierHead(chs, num_classes, global_pool, drop_rate) if head_norm_first else \
            NormMlpClassifierHead(chs, num_classes, None, global_pool, drop_rate, norm)
        self.head_hidden_size = self.head.num_features
        self.init_weights()

    @property
    def optional_parts(self) -> tuple[str, ...]:
        return ("head.norm",) if self.named_blocks else ()  # Florence's towers end in the last stage


_DEEP: dict[str, Any] = dict(depths=(1, 1, 9, 1))
_BASE, _LARGE, _HUGE, _GIANT = (
    dict(_DEEP, embed_dims=(dim, 2 * dim, 4 * dim, 8 * dim), num_heads=tuple(dim // 32 * 2 ** i for i in range(4)))
    for dim in (128, 192, 256, 384))
_FLORENCE = dict(window_size=12, down_kernel_size=3, channel_attn_v2=True, named_blocks=True)

register_model.variants(__name__, DaVit, {
    "davit_tiny": {},
    "davit_small": _DEEP,
    "davit_base": _BASE,
    "davit_large": _LARGE,
    "davit_huge": _HUGE,
    "davit_giant": (_GIANT, dict(depths=(1, 1, 12, 3))),
    "davit_base_fl": (_BASE, _FLORENCE, "The image tower of Florence-2-base."),
    "davit_huge_fl": (_HUGE, _FLORENCE, "The image tower of Florence-2-large."),
})


def _downsample(match: Any) -> str:
    return f"stages.{match[1]}.downsample." + ("conv." if match[0].endswith("proj.") else "")


_STEM = (r"^stages\.0\.downsample\.", "stem.")

DaVit.key_maps = (
    KeyMap.renaming(
        "authors", "patch_embeds.0.proj.weight", (r"^patch_embeds\.(\d)\.(?:proj\.)?", _downsample), _STEM,
        (r"^main_blocks\.(\d)\.", r"stages.\1.blocks."), (r"\.cpe\.0\.", ".cpe1."), (r"\.cpe\.1\.", ".cpe2."),
        (r"^head\.", "head.fc."), (r"^norms\.", "head.norm.")),
    KeyMap.renaming(  # the tower's part of all weights; what norm and function of a branch are called follows from it
        "florence2", "vision_tower.convs.0.proj.weight", (r"^convs\.(\d)\.(?:proj\.)?", _downsample), _STEM,
        (r"^blocks\.(\d)\.", r"stages.\1.blocks."), (r"\.(?:window|channel)_attn\.norm\.", ".norm1."),
        (r"\.(?:window|channel)_attn\.fn\.", ".attn."), (r"\.ffn\.norm\.", ".norm2."), (r"\.ffn\.fn\.net\.", ".mlp."),
        (r"\.conv([12])\.fn\.dw\.", r".cpe\1.proj."), prefix="vision_tower."),
)
