"""EfficientFormer: pooling mixes maps, and attention the tokens of the last blocks.

Li et al., "EfficientFormer: Vision Transformers at MobileNet Speed", 2022, arXiv:2206.01191.

Blocks are MetaFormer's: a mixer and an MLP, each with scale and shortcut. The published models have learned from a
teacher, by a second classifier, see `Distilled`. Attention knows maps of 7 x 7: images are 224 x 224.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ..layers.activations import ActLayer, get_act_layer
from ..layers.drop import DropPath, drop_path_rates
from ..layers.helpers import placeable, to_2tuple
from ..layers.mlp import LayerScale, LayerScale2d, Mlp
from ..layers.norm import NormLayer, get_norm_layer
from ..layers.rel_pos import OffsetBiases
from ..layers.stage import Stage
from ..layers.weight_init import init_trunc_normal
from ..registry import register_model
from .base import Flow, Inits, KeyMap, StateDict, Step, Tap
from .distilled import Distilled

if TYPE_CHECKING:
    from ._variants.efficientformer import *

__all__ = ["EfficientFormer"]

Layer = Callable[..., nn.Module]

EfficientFormer_width = {"l1": (48, 96, 224, 448), "l3": (64, 128, 320, 512), "l7": (96, 192, 384, 768)}
EfficientFormer_depth = {"l1": (3, 2, 6, 4), "l3": (4, 4, 12, 6), "l7": (6, 6, 18, 8)}


class Attention(OffsetBiases):
    """Attention with a bias for each distance. Shapes: (B, N, dim) -> same, N tokens on a map of `resolution`.

    Raises:
        ValueError: There are more or fewer tokens.
    """

    @placeable
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


class Stem4(nn.Sequential):
    """Two strided convolutions. Shapes: (B, in_chs, H, W) -> (B, out_chs, H / 4, W / 4)."""

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, act_layer: Layer = nn.ReLU, norm_layer: Layer = nn.BatchNorm2d
    ) -> None:
        super().__init__()
        self.stride = 4
        for i, (before, after) in enumerate(((in_chs, out_chs // 2), (out_chs // 2, out_chs)), 1):
            self.add_module(f"conv{i}", nn.Conv2d(before, after, 3, stride=2, padding=1))
            self.add_module(f"norm{i}", norm_layer(after))
            self.add_module(f"act{i}", act_layer())


class Downsample(nn.Module):
    """A strided convolution and a norm. Shapes: (B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride)."""

    @placeable
    def __init__(
        self, in_chs: int, out_chs: int, kernel_size: int = 3, stride: int = 2, padding: int | None = None,
        norm_layer: Layer = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_chs, out_chs, kernel_size, stride, kernel_size // 2 if padding is None else padding)
        self.norm = norm_layer(out_chs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


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


class ConvMlpWithNorm(nn.Module):
    """Two 1x1 convolutions, each with a norm. Shapes: (B, in_features, H, W) -> (B, out_features, H, W)."""

    @placeable
    def __init__(
        self, in_features: int, hidden_features: int | None = None, out_features: int | None = None,
        act_layer: Layer = nn.GELU, norm_layer: Layer | None = nn.BatchNorm2d, drop: float = 0.0,
    ) -> None:
        super().__init__()
        out_features, hidden_features = out_features or in_features, hidden_features or in_features
        self.fc1 = nn.Conv2d(in_features, hidden_features, 1)
        self.norm1 = norm_layer(hidden_features) if norm_layer else nn.Identity()
        self.act = act_layer()
        self.fc2 = nn.Conv2d(hidden_features, out_features, 1)
        self.norm2 = norm_layer(out_features) if norm_layer else nn.Identity()
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.act(self.norm1(self.fc1(x))))
        return self.drop(self.norm2(self.fc2(x)))


class MetaBlock1d(nn.Module):
    """Attention and an MLP, each with norm, scale and shortcut. Shapes: (B, 49, dim) -> same."""

    @placeable
    def __init__(
        self, dim: int, mlp_ratio: float = 4.0, act_layer: Layer = nn.GELU, norm_layer: Layer = nn.LayerNorm,
        proj_drop: float = 0.0, drop_path: float = 0.0, layer_scale_init_value: float = 1e-5,
    ) -> None:
        super().__init__()
        self.norm1 = norm_layer(dim)
        self.token_mixer = Attention(dim)
        self.ls1, self.drop_path1 = LayerScale(dim, layer_scale_init_value), DropPath(drop_path)
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=act_layer, drop=proj_drop)
        self.ls2, self.drop_path2 = LayerScale(dim, layer_scale_init_value), DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self.ls1(self.token_mixer(self.norm1(x))))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


class MetaBlock2d(nn.Module):
    """Pooling and an MLP, each with scale and shortcut. Shapes: (B, dim, H, W) -> same."""

    @placeable
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
    """Downsampling and blocks, the last `num_vit` of them of attention: those take and give tokens.

    Shapes: (B, dim, H, W) -> (B, dim_out, H / 2, W / 2), or (B, H / 2 * W / 2, dim_out).
    """

    @placeable
    def __init__(
        self, dim: int, dim_out: int, depth: int, downsample: bool = True, num_vit: int = 1, pool_size: int = 3,
        mlp_ratio: float = 4.0, act_layer: Layer = nn.GELU, norm_layer: Layer = nn.BatchNorm2d,
        norm_layer_cl: Layer = nn.LayerNorm, proj_drop: float = 0.0, drop_path: float | Sequence[float] = 0.0,
        layer_scale_init_value: float = 1e-5,
    ) -> None:
        super().__init__()
        if dim != dim_out and not downsample:
            raise ValueError(f"a stage without downsample keeps its {dim} channels, they cannot become {dim_out}")
        self.downsample = Downsample(dim, dim_out, norm_layer=norm_layer) if downsample else nn.Identity()
        rates = drop_path if isinstance(drop_path, Sequence) else (drop_path,) * depth
        self.blocks = nn.Sequential()
        for i, rate in enumerate(rates[:depth]):
            if i == max(depth - num_vit, 0):
                self.blocks.append(Flat())
            end = (proj_drop, rate, layer_scale_init_value)
            self.blocks.append(MetaBlock1d(dim_out, mlp_ratio, act_layer, norm_layer_cl, *end) if i >= depth - num_vit
                               else MetaBlock2d(dim_out, pool_size, mlp_ratio, act_layer, norm_layer, *end))


class EfficientFormer(Distilled):
    """A stem of stride 4, stages of pooling, the last with attention, and two classifiers.

    Shapes: (B, in_chans, 224, 224) -> (B, num_classes); features (B, 49, embed_dims[-1]), taps are maps.

    Args:
        depths, embed_dims: Blocks and channels of each stage.
        global_pool: "avg", or "" for none.
        downsamples: Whether a stage begins with downsampling; all but the first unless given.
        num_vit: Blocks of attention, the last ones of the last stage.
        mlp_ratios: Hidden channels of the MLPs per channel.
        pool_size: Side of the neighbourhood that is pooled.
        layer_scale_init_value: Initial value of the branches' scales.
        act_layer, norm_layer, norm_layer_cl: Activation, norm of maps, norm of tokens.
        drop_rate: Dropout before the classifiers.
        proj_drop_rate: Dropout in the MLPs.
        img_size: Taken as timm takes it, and without effect.

    Raises:
        ValueError: Unknown pooling, or not a number for each stage; from `forward`, images of another size.
    """

    tap_norm: ClassVar[str] = "last"
    pools: ClassVar[tuple[str, ...]] = ("avg", "")
    inits: ClassVar[Inits] = {nn.Linear: init_trunc_normal}

    def __init__(
        self, depths: Sequence[int] = (3, 2, 6, 4), embed_dims: Sequence[int] = (48, 96, 224, 448), in_chans: int = 3,
        num_classes: int = 1000, global_pool: str = "avg", downsamples: Sequence[bool] | None = None, num_vit: int = 0,
        mlp_ratios: float = 4, pool_size: int = 3, layer_scale_init_value: float = 1e-5, act_layer: ActLayer = nn.GELU,
        norm_layer: NormLayer = nn.BatchNorm2d, norm_layer_cl: NormLayer = nn.LayerNorm, drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0, drop_path_rate: float = 0.0, img_size: int | tuple[int, int] | None = None,
    ) -> None:
        super(Distilled, self).__init__()  # not its own, which adds a classifier to a model that is complete
        downsamples = downsamples or (False,) + (True,) * (len(depths) - 1)
        if not len(depths) == len(embed_dims) == len(downsamples):
            raise ValueError(f"depths {depths}, embed_dims {embed_dims} and downsamples are one for each stage")
        self.num_classes, self.in_chans, self.num_stages = num_classes, in_chans, len(depths)
        self.num_features = self.head_hidden_size = embed_dims[-1]
        self.set_global_pool(global_pool)
        act, norm, norm_cl = get_act_layer(act_layer), get_norm_layer(norm_layer), get_norm_layer(norm_layer_cl)
        self.stem = Stem4(in_chans, embed_dims[0], norm_layer=norm)
        self.stages = nn.Sequential()
        self.flow = Flow(stem=[Step("stem")], stages=[], tail=[Step("norm")])
        for i, rates in enumerate(drop_path_rates(drop_path_rate, depths)):
            is_last = i == len(depths) - 1
            self.stages.append(EfficientFormerStage(
                embed_dims[max(i - 1, 0)], embed_dims[i], depths[i], downsamples[i], num_vit if is_last else 0,
                pool_size, mlp_ratios, act, norm, norm_cl, proj_drop_rate, rates, layer_scale_init_value))
            self.flow.stages.append(Step(f"stages.{i}", embed_dims[i], 4 * 2**i))
        if num_vit == 0:
            self.flow.tail.insert(0, Step("to_tokens"))
        self.norm = norm_cl(embed_dims[-1])
        self.head_drop = nn.Dropout(drop_rate)
        self.head = self.make_classifier(num_classes)
        self.head_dist = self.make_classifier(num_classes)
        self.init_weights()

    def to_tokens(self, x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2)

    def pool(self, x: Tensor) -> Tensor:
        if not self.global_pool:
            return x
        return x.mean(dim=1) if len(self.flow.stages) == self.num_stages else x.mean(dim=(2, 3))  # pruned: it is a map

    def tap_grid(self, tap: Tap, image_size: Sequence[int] | None) -> tuple[int, int] | None:
        return None if image_size is None else to_2tuple(-(-side // tap.reduction) for side in image_size)

    def _format_tap(self, x: Tensor, grid: tuple[int, int] | None, output_fmt: str, prefix: bool) -> Any:
        if x.dim() == 3 and grid is not None:  # of the last stage
            x = x.transpose(1, 2).unflatten(2, grid)
        return super()._format_tap(x, grid, output_fmt, prefix)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return dict(stem=r"^stem", blocks=[(r"^stages\.(\d+)", None), (r"^norm", (99999,))])

    def no_weight_decay(self) -> set[str]:
        return {name for name, _ in self.named_parameters() if name.endswith("attention_biases")}


register_model.variants(__name__, EfficientFormer, {
    f"efficientformer_{size}": dict(
        depths=EfficientFormer_depth[size], embed_dims=EfficientFormer_width[size], num_vit=num_vit)
    for size, num_vit in (("l1", 1), ("l3", 4), ("l7", 8))
})


def _from_authors(state_dict: StateDict, model: nn.Module) -> StateDict:
    """Theirs have blocks and downsampling in one list."""
    found = (re.match(r"network\.(\d+)\.proj\.weight", key) for key in state_dict)
    downsampling = sorted(int(match[1]) for match in found if match)

    def rename(key: str) -> str:
        match = re.match(r"network\.(\d+)\.(.*)", key)
        if match:
            stage = sum(index <= int(match[1]) for index in downsampling)
            part = match[2]
            for theirs, ours in ((r"^proj\.", "downsample.conv."), (r"^norm\.", "downsample.norm."),
                                 (r"^(\d)", r"blocks.\1")):
                part = re.sub(theirs, ours, part)
            key = f"stages.{stage}.{part}"
        for theirs, ours in (("0", "conv1"), ("1", "norm1"), ("3", "conv2"), ("4", "norm2")):
            key = key.replace(f"patch_embed.{theirs}.", f"stem.{ours}.")
        return re.sub(r"layer_scale_(\d)", r"ls\1.gamma", key).replace("dist_head.", "head_dist.")

    return {rename(key): value for key, value in state_dict.items()}


EfficientFormer.key_maps = (KeyMap("authors", lambda keys: "patch_embed.0.weight" in keys, _from_authors),)
