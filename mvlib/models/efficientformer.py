"""EfficientFormer: pooling mixes maps, and attention the tokens of the last blocks.

Li et al., "EfficientFormer: Vision Transformers at MobileNet Speed", 2022, arXiv:2206.01191.

Blocks are MetaFormer's: a mixer and an MLP, each with scale and shortcut. The published models have learned from a
teacher, by a second classifier, see `Distilled`. Attention knows maps of 7 x 7: images are 224 x 224.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence, Sized
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ..layers.activations import ActLayer, get_act_layer
from ..layers.drop import DropPath, drop_path_rates
from ..layers.helpers import Module, Sequential, extend_tuple, to_2tuple
from ..layers.mlp import LayerScale, LayerScale2d, Mlp
from ..layers.norm import NormLayer, get_norm_layer
from ..layers.rel_pos import OffsetBiases
from ..layers.stage import Stage
from ..layers.weight_init import init_trunc_normal
from ..registry import register_model
from .base import Flow, Inits, KeyMap, StateDict, Step, Tap, rename_keys
from .distilled import Distilled

if TYPE_CHECKING:
    from ._variants.efficientformer import *

__all__ = ["EfficientFormer"]

Layer = Callable[..., nn.Module]

EfficientFormer_width = {"l1": (48, 96, 224, 448), "l3": (64, 128, 320, 512), "l7": (96, 192, 384, 768)}
EfficientFormer_depth = {"l1": (3, 2, 6, 4), "l3": (4, 4, 12, 6), "l7": (6, 6, 18, 8)}


class Attention(OffsetBiases):
    """Attention with a bias for each distance: (B, N, dim) -> same; ValueError where N is not that of `resolution`."""

    def __init__(
        self, dim: int = 384, key_dim: int = 32, num_heads: int = 8, attn_ratio: float = 4,
        resolution: int | tuple[int, int] = 7,
    ) -> None:
        super().__init__()
        self.num_heads, self.key_dim, self.val_dim = num_heads, key_dim, int(attn_ratio * key_dim)
        self.scale = key_dim**-0.5
        self.qkv = nn.Linear(dim, num_heads * (2 * key_dim + self.val_dim))
        self.proj = nn.Linear(num_heads * self.val_dim, dim)
        self.add_offset_biases(num_heads, resolution, persistent=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.qkv(_check_count(x, self.resolution)).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        q, k, v = x.split((self.key_dim, self.key_dim, self.val_dim), dim=3)
        attn = (q @ k.transpose(2, 3) * self.scale + self.get_bias()).softmax(dim=-1)
        return self.proj((attn @ v).transpose(1, 2).flatten(2))


@torch.fx.wrap  # one node in a traced graph: it depends on the number of tokens
def _check_count(x: Tensor, size: tuple[int, int]) -> Tensor:
    if x.shape[1] != size[0] * size[1]:
        raise ValueError(f"attention is made for {size[0]} x {size[1]} tokens, not {x.shape[1]}: images have sides of "
                         f"{32 * size[0]} and {32 * size[1]} pixels")
    return x


class Stem4(Sequential):
    """Two strided convolutions. Shapes: (B, in_chs, H, W) -> (B, out_chs, H / 4, W / 4)."""

    def __init__(
        self, in_chs: int, out_chs: int, act_layer: Layer = nn.ReLU, norm_layer: Layer = nn.BatchNorm2d
    ) -> None:
        super().__init__()
        self.stride = 4
        for i, (before, after) in enumerate(((in_chs, out_chs // 2), (out_chs // 2, out_chs)), 1):
            self.add_module(f"conv{i}", nn.Conv2d(before, after, 3, stride=2, padding=1))
            self.add_module(f"norm{i}", norm_layer(after))
            self.add_module(f"act{i}", act_layer())


class Downsample(Sequential):
    """A strided convolution and a norm. Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride)."""

    def __init__(
        self, in_chs: int, out_chs: int, kernel_size: int = 3, stride: int = 2, padding: int | None = None,
        norm_layer: Layer = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_chs, out_chs, kernel_size, stride, kernel_size // 2 if padding is None else padding)
        self.norm = norm_layer(out_chs)


class Flat(nn.Module):
    """A map as tokens. Shapes: (B, C, H, W) -> (B, H * W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2)


class Pooling(nn.Module):
    """What a mean over neighbours changes, PoolFormer's mixer. Shapes: (B, C, H, W) -> same."""

    def __init__(self, pool_size: int = 3) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(pool_size, stride=1, padding=pool_size // 2, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x) - x


class ConvMlpWithNorm(Module):
    """Two 1x1 convolutions, each with a norm. Shapes: (B, in_features, H, W) -> (B, out_features, H, W)."""

    def __init__(
        self, in_features: int, hidden_features: int | None = None, out_features: int | None = None,
        act_layer: Layer = nn.GELU, norm_layer: Layer | None = nn.BatchNorm2d, drop: float = 0.0,
    ) -> None:
        super().__init__()
        norm, out, hidden = norm_layer or nn.Identity, out_features or in_features, hidden_features or in_features
        self.fc1, self.norm1, self.act = nn.Conv2d(in_features, hidden, 1), norm(hidden), act_layer()
        self.fc2, self.norm2, self.drop = nn.Conv2d(hidden, out, 1), norm(out), nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.act(self.norm1(self.fc1(x))))
        return self.drop(self.norm2(self.fc2(x)))


class MetaBlock1d(Module):
    """Attention and an MLP, each with norm, scale and shortcut. Shapes: (B, 49, dim) -> same."""

    def __init__(
        self, dim: int, mlp_ratio: float = 4.0, act_layer: Layer = nn.GELU, norm_layer: Layer = nn.LayerNorm,
        proj_drop: float = 0.0, drop_path: float = 0.0, layer_scale_init_value: float = 1e-5,
    ) -> None:
        super().__init__()
        self.norm1, self.token_mixer = norm_layer(dim), Attention(dim)
        self.ls1, self.drop_path1 = LayerScale(dim, layer_scale_init_value), DropPath(drop_path)
        self.norm2, self.mlp = norm_layer(dim), Mlp(dim, int(dim * mlp_ratio), act_layer=act_layer, drop=proj_drop)
        self.ls2, self.drop_path2 = LayerScale(dim, layer_scale_init_value), DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self.ls1(self.token_mixer(self.norm1(x))))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


class MetaBlock2d(Module):
    """Pooling and an MLP, each with scale and shortcut. Shapes: (B, dim, H, W) -> same."""

    def __init__(
        self, dim: int, pool_size: int = 3, mlp_ratio: float = 4.0, act_layer: Layer = nn.GELU,
        norm_layer: Layer = nn.BatchNorm2d, proj_drop: float = 0.0, drop_path: float = 0.0,
        layer_scale_init_value: float = 1e-5,
    ) -> None:
        super().__init__()
        self.token_mixer = Pooling(pool_size)
        self.ls1, self.drop_path1 = LayerScale2d(dim, layer_scale_init_value), DropPath(drop_path)
        self.mlp = ConvMlpWithNorm(dim, int(dim * mlp_ratio), None, act_layer, norm_layer, proj_drop)
        self.ls2, self.drop_path2 = LayerScale2d(dim, layer_scale_init_value), DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self.ls1(self.token_mixer(x)))
        return x + self.drop_path2(self.ls2(self.mlp(x)))


class EfficientFormerStage(Stage):
    """Downsampling, and blocks of maps, the last `num_vit` of attention among tokens, which these take and give."""

    def __init__(
        self, dim: int, dim_out: int, depth: int, downsample: bool = True, num_vit: int = 1, pool_size: int = 3,
        mlp_ratio: float = 4.0, act_layer: Layer = nn.GELU, norm_layer: Layer = nn.BatchNorm2d,
        norm_layer_cl: Layer = nn.LayerNorm, proj_drop: float = 0.0, drop_path: float | Sequence[float] = 0.0,
        layer_scale_init_value: float = 1e-5,
    ) -> None:
        super().__init__()
        self.check_channels(dim, dim_out, downsample)
        self.downsample = Downsample(dim, dim_out, norm_layer=norm_layer) if downsample else nn.Identity()
        self.blocks = nn.Sequential()
        for i, rate in enumerate(extend_tuple(drop_path, depth)):
            if i == max(depth - num_vit, 0):
                self.blocks.append(Flat())
            end = (proj_drop, rate, layer_scale_init_value)
            self.blocks.append(MetaBlock1d(dim_out, mlp_ratio, act_layer, norm_layer_cl, *end) if i >= depth - num_vit
                               else MetaBlock2d(dim_out, pool_size, mlp_ratio, act_layer, norm_layer, *end))


class BaseEfficientFormer(Distilled):
    """What both versions have in common: stages of a stem, a norm, and two classifiers."""

    tap_norm: ClassVar[str] = "last"
    pools: ClassVar[tuple[str, ...]] = ("avg", "")
    inits: ClassVar[Inits] = {nn.Linear: init_trunc_normal}
    undecayed: ClassVar[str] = r"attention_biases$"

    def begin(self, num_classes: int, in_chans: int, global_pool: str, dims: Sequence[int], *others: Sized) -> None:
        """What the constructor of a version begins with; `others` have a value for each stage, too."""
        super(Distilled, self).__init__()  # not its own, which adds a classifier to a model that is complete
        if any(len(values) != len(dims) for values in others):
            raise ValueError(f"depths, embed_dims, downsamples and mlp_ratios are one for each stage, not {dims} and "
                             f"{', '.join(map(str, others))}")
        self.num_classes, self.in_chans, self.num_stages = num_classes, in_chans, len(dims)
        self.num_features = self.head_hidden_size = dims[-1]
        self.set_global_pool(global_pool)

    def end(self, norm: nn.Module, drop_rate: float, distillation: bool = True) -> None:
        """What it ends with."""
        self.norm, self.head_drop = norm, nn.Dropout(drop_rate)
        self.head = self.make_classifier(self.num_classes)
        self.register_module("head_dist", self.make_classifier(self.num_classes) if distillation else None)
        self.init_weights()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return dict(stem=r"^stem", blocks=[(r"^stages\.(\d+)", None), (r"^norm", (99999,))])


class EfficientFormer(BaseEfficientFormer):
    """A stem of stride 4, stages of pooling, the last with attention, and two classifiers.

    Shapes: (B, in_chans, 224, 224) -> (B, num_classes); features (B, 49, embed_dims[-1]), taps are maps.

    Args:
        depths, embed_dims: Blocks and channels of each stage.
        global_pool: "avg", or "" for none.
        downsamples: Whether a stage begins with downsampling; all but the first unless given.
        num_vit: Blocks of attention, the last ones of the last stage.
        mlp_ratios: Hidden channels of the MLPs per channel; `proj_drop_rate` is their dropout.
        pool_size: Side of the neighbourhood that is pooled.
        layer_scale_init_value: Initial value of the branches' scales.
        norm_layer, norm_layer_cl: Norm of maps, and of tokens.
        img_size: Taken as timm takes it, and without effect.

    Raises:
        ValueError: Unknown pooling, or not a number for each stage; from `forward`, images of another size.
    """

    def __init__(
        self, depths: Sequence[int] = (3, 2, 6, 4), embed_dims: Sequence[int] = (48, 96, 224, 448), in_chans: int = 3,
        num_classes: int = 1000, global_pool: str = "avg", downsamples: Sequence[bool] | None = None, num_vit: int = 0,
        mlp_ratios: float = 4, pool_size: int = 3, layer_scale_init_value: float = 1e-5, act_layer: ActLayer = nn.GELU,
        norm_layer: NormLayer = nn.BatchNorm2d, norm_layer_cl: NormLayer = nn.LayerNorm, drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0, drop_path_rate: float = 0.0, img_size: int | tuple[int, int] | None = None,
    ) -> None:
        downsamples = downsamples or (False,) + (True,) * (len(depths) - 1)
        self.begin(num_classes, in_chans, global_pool, embed_dims, depths, downsamples)
        act, norm, norm_cl = get_act_layer(act_layer), get_norm_layer(norm_layer), get_norm_layer(norm_layer_cl)
        self.stem = Stem4(in_chans, embed_dims[0], norm_layer=norm)
        self.stages = nn.Sequential(*(
            EfficientFormerStage(
                embed_dims[max(i - 1, 0)], embed_dims[i], depths[i], downsamples[i],
                num_vit if i == len(depths) - 1 else 0, pool_size, mlp_ratios, act, norm, norm_cl, proj_drop_rate,
                rates, layer_scale_init_value)
            for i, rates in enumerate(drop_path_rates(drop_path_rate, depths))))
        self.flow = Flow.of_stages(embed_dims, tail=["norm"] if num_vit else ["to_tokens", "norm"])
        self.end(norm_cl(embed_dims[-1]), drop_rate)

    def to_tokens(self, x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2)

    def pool(self, x: Tensor) -> Tensor:
        is_map = len(self.flow.stages) < self.num_stages and self.flow.tail[:1] != [Step("to_tokens")]  # pruned
        return x.mean(dim=(2, 3) if is_map else 1) if self.global_pool else x

    def tap_grid(self, tap: Tap, image_size: Sequence[int] | None) -> tuple[int, int] | None:
        return None if image_size is None else to_2tuple(-(-side // tap.reduction) for side in image_size)

    def _format_tap(self, x: Tensor, grid: tuple[int, int] | None, output_fmt: str, prefix: bool) -> Any:
        if x.dim() == 3 and grid is not None:  # of the last stage
            x = x.transpose(1, 2).unflatten(2, grid)
        return super()._format_tap(x, grid, output_fmt, prefix)


register_model.variants(__name__, EfficientFormer, {
    f"efficientformer_{size}": dict(
        depths=EfficientFormer_depth[size], embed_dims=EfficientFormer_width[size], num_vit=num_vit)
    for size, num_vit in (("l1", 1), ("l3", 4), ("l7", 8))
})


def split_network(state_dict: StateDict, names: dict[str, str]) -> StateDict:
    """Our keys for those of files in which blocks and downsampling, which has a `proj`, are one list, `network`.

    `names` are ours for parts of it that are no blocks; all end with a dot.
    """
    found = (re.match(r"network\.(\d+)\.proj\.", key) for key in state_dict)
    ends = sorted({int(match[1]) for match in found if match})

    def rename(match: re.Match[str]) -> str:
        return f"stages.{bisect_right(ends, int(match[1]))}." + names.get(match[2], f"blocks.{match[2]}")

    return rename_keys(state_dict, (rf"^network\.(\d+)\.({'|'.join(map(re.escape, names))}|\d+\.)", rename))


_STEM = {"0": "conv1", "1": "norm1", "3": "conv2", "4": "norm2"}


def _from_authors(state_dict: StateDict, model: nn.Module) -> StateDict:
    return rename_keys(
        split_network(state_dict, {"proj.": "downsample.conv.", "norm.": "downsample.norm."}),
        (r"^patch_embed\.(\d)\.", lambda match: f"stem.{_STEM[match[1]]}."), (r"layer_scale_(\d)", r"ls\1.gamma"),
        (r"^dist_head\.", "head_dist."))


EfficientFormer.key_maps = (KeyMap("authors", lambda keys: "patch_embed.0.weight" in keys, _from_authors),)
