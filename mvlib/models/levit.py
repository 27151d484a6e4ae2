"""LeViT: a pyramid of attention, quick because each norm is a batch norm that goes into the layer before it.

Graham et al., "LeViT: a Vision Transformer in ConvNet's Clothing for Faster Inference", 2021, arXiv:2104.01136.

Convolutions shrink the image to a map; its tokens pass stages of blocks, and a block of attention whose queries are
every second row and column shrinks it from stage to stage. Biases of attention stand for positions. "conv" models have
1x1 convolutions on maps for linear layers on tokens: the same arithmetic on weights of another shape. All but the
larger of timm's own ("512", "d" for deep, "s8" for a stem of stride 8) have a second classifier, see `Distilled`.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ..layers import ActLayer, DropPath, OffsetBiases, PreNormBlock, Stage, get_act_layer, merge_norm
from ..layers.helpers import Module, Sequential, to_2tuple, to_ntuple
from ..layers.window import check_map
from ..registry import register_model
from .base import Flow, ImageModel, StateDict, Step, Tap
from .distilled import Distilled

if TYPE_CHECKING:
    from ._variants.levit import *

__all__ = [
    "Attention", "AttentionDownsample", "ConvNorm", "Downsample", "Levit", "LevitBlock", "LevitDistilled",
    "LevitDownsample", "LevitMlp", "LevitStage", "LinearNorm", "NormLinear", "Stem8", "Stem16",
]

torch.fx.wrap("check_map")  # one node in a traced graph: what it does depends on the map's size

Layer = Callable[..., nn.Module]
Size = tuple[int, int]


class Mergeable(Module):
    """A layer and its batch norm; `reparameterize()`, which timm calls `fuse`, gives one layer that does the same."""

    norm_first: ClassVar[bool] = False

    def reparameterize(self: Any) -> nn.Module:
        return merge_norm(copy.deepcopy(self.linear), self.bn, self.norm_first)

    fuse = reparameterize


class ConvNorm(Mergeable):
    """Convolution and batch norm, which `reparameterize()` merges; keys `linear`, `bn`. Shapes as `nn.Conv2d`."""

    def __init__(
        self, in_chs: int, out_chs: int, kernel_size: int = 1, stride: int = 1, padding: int = 0, dilation: int = 1,
        groups: int = 1, bn_weight_init: float = 1,
    ) -> None:
        super().__init__()
        self.linear = nn.Conv2d(in_chs, out_chs, kernel_size, stride, padding, dilation, groups, bias=False)
        self.bn = nn.BatchNorm2d(out_chs)
        nn.init.constant_(self.bn.weight, bn_weight_init)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.linear(x))


class LinearNorm(Mergeable):
    """Linear layer and batch norm, which `reparameterize()` merges; keys `linear`, `bn`. Shapes: (B, N, C) -> same."""

    def __init__(self, in_features: int, out_features: int, bn_weight_init: float = 1) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=False)
        self.bn = nn.BatchNorm1d(out_features)
        nn.init.constant_(self.bn.weight, bn_weight_init)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        return self.bn(x.flatten(0, 1)).view_as(x)


class NormLinear(Mergeable):
    """A classifier: batch norm, dropout, linear layer; `reparameterize()` makes a linear layer of them.

    Shapes: (B, in_features) -> (B, out_features). Keys `bn`, `linear`; `std` is that of the initial weights.
    """

    norm_first = True

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, std: float = 0.02, drop: float = 0.0
    ) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(in_features)
        self.drop = nn.Dropout(drop)
        self.linear = nn.Linear(in_features, out_features, bias=bias)
        nn.init.trunc_normal_(self.linear.weight, std=std)
        if bias:
            nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.drop(self.bn(x)))


class Stem16(Sequential):
    """Four strided convolutions, activations between them. Shapes: (B, in_chs, H, W) -> (B, out_chs, H / 16, W / 16).
    """

    stride: ClassVar[int] = 16

    def __init__(self, in_chs: int, out_chs: int, act_layer: Layer) -> None:
        super().__init__()
        count = self.stride.bit_length() - 1
        chs = [in_chs, *(out_chs // 2**i for i in reversed(range(count)))]
        for i in range(1, count + 1):
            if i > 1:
                self.add_module(f"act{i - 1}", act_layer())
            self.add_module(f"conv{i}", ConvNorm(chs[i - 1], chs[i], 3, stride=2, padding=1))


class Stem8(Stem16):
    """The same of three convolutions: (B, in_chs, H, W) -> (B, out_chs, H / 8, W / 8)."""

    stride: ClassVar[int] = 8


class Downsample(Module):
    """Every `stride`-th row and column of a grid of tokens, or means of 3x3 there. Shapes: (B, N, C) -> (B, fewer, C).
    """

    def __init__(self, stride: int, resolution: int | Size, use_pool: bool = False) -> None:
        super().__init__()
        self.stride, self.resolution = stride, to_2tuple(resolution)
        self.pool = nn.AvgPool2d(3, stride, padding=1, count_include_pad=False) if use_pool else None

    def forward(self, x: Tensor) -> Tensor:
        x = x.unflatten(1, self.resolution)
        if self.pool is not None:
            return self.pool(x.permute(0, 3, 1, 2)).flatten(2).transpose(1, 2)
        return x[:, ::self.stride, ::self.stride].flatten(1, 2)


class BiasedAttention(OffsetBiases):
    """Attention with a bias for each head and distance of query from key, in rows and in columns.

    Shapes: tokens (B, N, C), or a map (B, C, rows, columns) where `use_conv`, -> as many of `out_dim`. Values are
    `attn_ratio` times as wide as keys. A subclass's constructor adds what makes queries, keys and values.
    """

    def __init__(
        self, key_dim: int, num_heads: int, attn_ratio: float, stride: int, resolution: int | Size, use_conv: bool
    ) -> None:
        super().__init__()
        self.num_heads, self.key_dim, self.val_dim = num_heads, key_dim, int(attn_ratio * key_dim)
        self.key_attn_dim, self.val_attn_dim = num_heads * key_dim, num_heads * self.val_dim
        self.resolution, self.stride = to_2tuple(resolution), stride
        self.use_conv, self.scale = use_conv, key_dim**-0.5
        self.num_keys = self.resolution[0] * self.resolution[1]
        self.grid = -(-self.resolution[0] // stride), -(-self.resolution[1] // stride)  # of the queries

    @property
    def layer(self) -> type[Mergeable]:
        """What a projection is."""
        return ConvNorm if self.use_conv else LinearNorm

    def add_end(self, out_dim: int, act_layer: Layer, **options: Any) -> None:
        """Add the output's projection, for which `options` are, and the biases."""
        self.proj = nn.Sequential(OrderedDict(act=act_layer(), ln=self.layer(self.val_attn_dim, out_dim, **options)))
        self.add_offset_biases(self.num_heads, self.resolution, self.stride)

    def project(self, x: Tensor) -> Sequence[Tensor]:
        """Queries, keys and values of each head."""
        raise NotImplementedError(f"{type(self).__name__} has no `project`")

    def split_heads(self, x: Tensor) -> Tensor:
        """Tokens or a map -> (B, heads, N, channels of a head)."""
        if self.use_conv:
            return x.flatten(2).unflatten(1, (self.num_heads, -1)).transpose(2, 3)
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.project(check_map(x, self.resolution, True) if self.use_conv else x)
        attn = (q @ k.transpose(2, 3)).mul_(self.scale).add_(self.get_bias()).softmax(dim=-1)
        if self.use_conv:
            return self.proj((v.transpose(2, 3) @ attn.transpose(2, 3)).flatten(1, 2).unflatten(2, self.grid))
        return self.proj((attn @ v).transpose(1, 2).flatten(2))


class Attention(BiasedAttention):
    """Self-attention, see `BiasedAttention`; `out_dim` is `dim`."""

    def __init__(
        self, dim: int, key_dim: int, num_heads: int = 8, attn_ratio: float = 4.0, resolution: int | Size = 14,
        use_conv: bool = False, act_layer: Layer = nn.SiLU,
    ) -> None:
        super().__init__(key_dim, num_heads, attn_ratio, 1, resolution, use_conv)
        self.qkv = self.layer(dim, self.val_attn_dim + 2 * self.key_attn_dim)
        self.add_end(dim, act_layer, bn_weight_init=0)

    def project(self, x: Tensor) -> Sequence[Tensor]:
        return self.split_heads(self.qkv(x)).split((self.key_dim, self.key_dim, self.val_dim), dim=3)


class AttentionDownsample(BiasedAttention):
    """Attention whose queries are every `stride`-th row and column, of means of 3x3 with `use_pool`.

    Shapes: (B, N, in_dim) -> (B, about N / 4, out_dim).
    """

    def __init__(
        self, in_dim: int, out_dim: int, key_dim: int, num_heads: int = 8, attn_ratio: float = 2.0, stride: int = 2,
        resolution: int | Size = 14, use_conv: bool = False, use_pool: bool = False, act_layer: Layer = nn.SiLU,
    ) -> None:
        super().__init__(key_dim, num_heads, attn_ratio, stride, resolution, use_conv)
        side = 3 if use_pool else 1
        self.kv = self.layer(in_dim, self.val_attn_dim + self.key_attn_dim)
        down = nn.AvgPool2d(side, stride, padding=side // 2, count_include_pad=False) if use_conv else \
            Downsample(stride, self.resolution, use_pool)
        self.q = nn.Sequential(OrderedDict(down=down, ln=self.layer(in_dim, self.key_attn_dim)))
        self.add_end(out_dim, act_layer)

    def project(self, x: Tensor) -> Sequence[Tensor]:
        k, v = self.split_heads(self.kv(x)).split((self.key_dim, self.val_dim), dim=3)
        return self.split_heads(self.q(x)), k, v


class LevitMlp(Module):
    """Two layers with norms, an activation between them; keys `ln1`, `ln2`. Shapes: as `BiasedAttention`'s."""

    def __init__(
        self, in_features: int, hidden_features: int | None = None, out_features: int | None = None,
        use_conv: bool = False, act_layer: Layer = nn.SiLU, drop: float = 0.0,
    ) -> None:
        super().__init__()
        layer, hidden = ConvNorm if use_conv else LinearNorm, hidden_features or in_features
        self.ln1 = layer(in_features, hidden)
        self.act = act_layer()
        self.drop = nn.Dropout(drop)
        self.ln2 = layer(hidden, out_features or in_features, bn_weight_init=0)

    def forward(self, x: Tensor) -> Tensor:
        return self.ln2(self.drop(self.act(self.ln1(x))))


class LevitDownsample(Module):
    """Attention to fewer tokens, without a shortcut, and an MLP with one. Shapes: as `AttentionDownsample`'s."""

    def __init__(
        self, in_dim: int, out_dim: int, key_dim: int, num_heads: int = 8, attn_ratio: float = 4.0,
        mlp_ratio: float = 2.0, act_layer: Layer = nn.SiLU, attn_act_layer: Layer | None = None,
        resolution: int | Size = 14, use_conv: bool = False, use_pool: bool = False, drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.attn_downsample = AttentionDownsample(
            in_dim, out_dim, key_dim, num_heads, attn_ratio, resolution=resolution, use_conv=use_conv,
            use_pool=use_pool, act_layer=attn_act_layer or act_layer)
        self.mlp = LevitMlp(out_dim, int(out_dim * mlp_ratio), use_conv=use_conv, act_layer=act_layer)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attn_downsample(x)
        return x + self.drop_path(self.mlp(x))


class LevitBlock(PreNormBlock):
    """Attention and an MLP, each with a shortcut. Shapes: as `Attention`'s."""

    def __init__(
        self, dim: int, key_dim: int, num_heads: int = 8, attn_ratio: float = 4.0, mlp_ratio: float = 2.0,
        resolution: int | Size = 14, use_conv: bool = False, act_layer: Layer = nn.SiLU,
        attn_act_layer: Layer | None = None, drop_path: float = 0.0,
    ) -> None:
        attn = Attention(dim, key_dim, num_heads, attn_ratio, resolution, use_conv, attn_act_layer or act_layer)
        mlp = LevitMlp(dim, int(dim * mlp_ratio), use_conv=use_conv, act_layer=act_layer)
        super().__init__(dim, attn, mlp, nn.Identity, drop_path)  # norms are within


class LevitStage(Stage):
    """Blocks, behind downsampling from a grid of `resolution` where `downsample` says so: by any word but ""."""

    def __init__(
        self, in_dim: int, out_dim: int, key_dim: int, depth: int = 4, num_heads: int = 8, attn_ratio: float = 4.0,
        mlp_ratio: float = 4.0, act_layer: Layer = nn.SiLU, attn_act_layer: Layer | None = None,
        resolution: int | Size = 14, downsample: str = "", use_conv: bool = False, drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.downsample = nn.Identity()
        if downsample:
            self.downsample = LevitDownsample(
                in_dim, out_dim, key_dim, in_dim // key_dim, 4.0, 2.0, act_layer, attn_act_layer, resolution, use_conv,
                drop_path=drop_path)
            resolution = self.downsample.attn_downsample.grid
        elif in_dim != out_dim:
            raise ValueError(f"a stage without downsampling has out_dim {in_dim} as in_dim, not {out_dim}")
        self.blocks = nn.Sequential(*(
            LevitBlock(out_dim, key_dim, num_heads, attn_ratio, mlp_ratio, resolution, use_conv, act_layer,
                       attn_act_layer, drop_path) for _ in range(depth)))


_STEMS: dict[str, type[Stem16]] = {"s16": Stem16, "s8": Stem8}


class Levit(ImageModel):
    """Stem of strided convolutions, stages of attention, pooling and a classifier with a norm in front.

    Shapes: (B, in_chans, *img_size) -> (B, num_classes); features (B, N, embed_dim[-1]), or maps where `use_conv`.

    Args:
        img_size: Side of the images, or (height, width): positions are made for it.
        embed_dim, depth, num_heads, attn_ratio, mlp_ratio: Of each stage, the last four one number for all, too:
            channels, blocks, heads, channels of a head's values in `key_dim`, hidden channels of the MLPs per channel.
        key_dim: Channels of a head's queries and keys.
        stem_backbone, stem_stride: A stem of one's own, and its stride.
        stem_type: "s16" or "s8": the stem's stride, where there is no other.
        down_op: Whether later stages shrink: any word but "".
        attn_act_layer: Activation behind attention, as `act_layer` unless given.
        use_conv: Maps and 1x1 convolutions instead of tokens and linear layers.
        global_pool: "avg", or "" for none.
        drop_path_rate: Stochastic depth of all blocks.

    Raises:
        ValueError: An option has an unknown value, or not a number for each stage.
    """

    tap_layout: ClassVar[str] = "NLC"  # of a model of convolutions: "NCHW"
    dropout_paths: ClassVar[tuple[str, ...]] = ("head.drop", "head_dist.drop")
    pools: ClassVar[tuple[str, ...]] = ("avg", "")

    def __init__(
        self, img_size: int | Size = 224, in_chans: int = 3, num_classes: int = 1000, embed_dim: Sequence[int] = (192,),
        key_dim: int = 64, depth: Sequence[int] = (12,), num_heads: int | Sequence[int] = 3,
        attn_ratio: float | Sequence[float] = 2.0, mlp_ratio: float | Sequence[float] = 2.0,
        stem_backbone: nn.Module | None = None, stem_stride: int | None = None, stem_type: str = "s16",
        down_op: str = "subsample", act_layer: ActLayer = "hard_swish", attn_act_layer: ActLayer = None,
        use_conv: bool = False, global_pool: str = "avg", drop_rate: float = 0.0, drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if stem_type not in _STEMS:
            raise ValueError(f"unknown stem_type {stem_type!r}; known: {', '.join(map(repr, _STEMS))}")
        if (stem_backbone is None) != (stem_stride is None):
            raise ValueError("stem_backbone and stem_stride go together")
        self.img_size = to_2tuple(img_size)
        self.in_chans, self.use_conv, self.drop_rate, self.embed_dim = in_chans, use_conv, drop_rate, tuple(embed_dim)
        self.tap_layout = "NCHW" if use_conv else "NLC"  # type: ignore[misc]  # the class's is its default's
        self.feature_form = "flat" if use_conv else "getter"  # type: ignore[misc]
        act = get_act_layer(act_layer) or nn.Identity

        stem, reduction = stem_backbone, stem_stride or _STEMS[stem_type].stride
        self.stem = _STEMS[stem_type](in_chans, embed_dim[0], act) if stem is None else stem
        self.flow = Flow(stem=[Step("stem")] + ([] if use_conv else [Step("to_tokens")]), stages=[])

        self.grid = resolution = self.img_size[0] // reduction, self.img_size[1] // reduction
        numbers = [to_ntuple(len(embed_dim))(value) for value in (depth, num_heads, attn_ratio, mlp_ratio)]
        if any(len(values) != len(embed_dim) for values in numbers):
            raise ValueError(f"depth, num_heads, attn_ratio and mlp_ratio are one number or one for each of the "
                             f"{len(embed_dim)} stages of embed_dim")
        self.stages = nn.Sequential()
        for i, (dim, blocks, heads, attn, mlp) in enumerate(zip(embed_dim, *numbers)):
            self.stages.append(LevitStage(
                embed_dim[max(i - 1, 0)], dim, key_dim, blocks, heads, attn, mlp, act, get_act_layer(attn_act_layer),
                resolution, down_op if i > 0 else "", use_conv, drop_path_rate))
            if i > 0:
                resolution, reduction = (-(-resolution[0] // 2), -(-resolution[1] // 2)), 2 * reduction
            self.flow.stages.append(Step(f"stages.{i}", dim, reduction))
        self.add_classifier(embed_dim[-1], num_classes, global_pool)

    def to_tokens(self, x: Tensor) -> Tensor:
        return check_map(x, self.grid, True).flatten(2).transpose(1, 2)

    def tap_grid(self, tap: Tap, image_size: Sequence[int] | None) -> Size | None:
        if image_size is None:
            return None
        return -(-image_size[0] // tap.reduction), -(-image_size[1] // tap.reduction)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.pool(x)  # dropout is the classifier's
        return x if pre_logits else self.get_classifier()(x)

    def make_classifier(self, num_classes: int) -> nn.Module:
        return NormLinear(self.num_features, num_classes, drop=self.drop_rate) if num_classes > 0 else nn.Identity()

    def no_weight_decay(self) -> set[str]:
        return {name for name, _ in self.named_parameters() if name.endswith("attention_biases")}

    def fit_state_dict(self, state_dict: StateDict) -> StateDict:
        """Leave out the index of biases, which older files have and we compute."""
        return {key: value for key, value in state_dict.items() if not key.endswith("attention_bias_idxs")}

    def init_module(self, name: str, module: nn.Module) -> None:
        super().init_module(name, module)
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            if name.endswith((".attn.proj.ln.bn", ".mlp.ln2.bn")):  # branches begin with 0
                nn.init.zeros_(module.weight)
        elif isinstance(module, nn.Linear) and name.endswith(("head.linear", "head_dist.linear")):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)


class LevitDistilled(Distilled, Levit):  # type: ignore[misc]  # which returns a pair at times
    """A LeViT with a second classifier that learns from a teacher, see `Distilled`. Arguments as `Levit`'s."""


def _levit(distilled: bool = True, **kwargs: Any) -> Levit:
    """`distilled`: with a second classifier."""
    return (LevitDistilled if distilled else Levit)(**kwargs)


_128S = dict(embed_dim=(128, 256, 384), key_dim=16, num_heads=(4, 6, 8), depth=(2, 3, 4))
_128 = dict(embed_dim=(128, 256, 384), key_dim=16, num_heads=(4, 8, 12), depth=(4, 4, 4))
_192 = dict(embed_dim=(192, 288, 384), key_dim=32, num_heads=(3, 5, 6), depth=(4, 4, 4))
_256 = dict(embed_dim=(256, 384, 512), key_dim=32, num_heads=(4, 6, 8), depth=(4, 4, 4))
_384 = dict(embed_dim=(384, 512, 768), key_dim=32, num_heads=(6, 9, 12), depth=(4, 4, 4))
_512 = dict(embed_dim=(512, 768, 1024), key_dim=64, num_heads=(8, 12, 16), depth=(4, 4, 4))
_TIMM = dict(act_layer="silu", distilled=False)
_S8 = dict(act_layer="silu", stem_type="s8")
_ROWS: dict[str, tuple[dict[str, Any], ...]] = {
    "128s": (_128S,), "128": (_128,), "192": (_192,), "256": (_256,), "384": (_384,), "512": (_512, _TIMM),
    "256d": (_256, _TIMM, dict(depth=(4, 8, 6))),
    "512d": (_512, _TIMM, dict(embed_dim=(512, 640, 768), num_heads=(8, 10, 12), depth=(4, 8, 6))),
    "384_s8": (_384, _S8), "512_s8": (_512, _TIMM, _S8, dict(embed_dim=(512, 640, 896), num_heads=(8, 10, 14))),
}

register_model.variants(__name__, _levit, {
    f"levit{conv}_{name}": (*row, dict(use_conv=True)) if conv else row
    for conv in ("", "_conv") for name, row in _ROWS.items()
})
