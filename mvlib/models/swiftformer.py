"""SwiftFormer: attention whose queries are summed up, for each image, before they meet the keys.

Shaker et al., "SwiftFormer: Efficient Additive Attention for Transformer-based Real-time Mobile Vision Applications",
2023, arXiv:2303.15446. The last block of each stage attends, the others are convolutions. A second classifier learned
from a teacher, see `Distilled`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import stage
from ..layers.activations import ActLayer, get_act_layer
from ..layers.drop import DropPath, drop_path_rates
from ..layers.helpers import placeable, to_2tuple
from ..layers.norm import NormLayer, get_norm_layer
from ..layers.pool import GlobalPool2d
from ..layers.weight_init import init_trunc_normal
from ..registry import register_model
from .base import Flow, ImageModel, Inits, KeyMap, StateDict, Step, rename_keys
from .distilled import Distilled

if TYPE_CHECKING:
    from ._variants.swiftformer import *

__all__ = ["SwiftFormer"]


class LayerScale2d(nn.Module):
    """A learned factor per channel; key `gamma`, (dim, 1, 1). Shapes: (B, dim, H, W) -> same."""

    @placeable
    def __init__(self, dim: int, init_values: float = 1e-5, inplace: bool = False) -> None:
        super().__init__()
        self.init_values, self.inplace = init_values, inplace
        self.gamma = nn.Parameter(torch.empty(dim, 1, 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.gamma, self.init_values)

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(self.gamma) if self.inplace else x * self.gamma


class Embedding(nn.Module):
    """A strided convolution and a norm; keys `proj`, `norm`. Shapes: (B, in_chans, H, W) -> (B, embed_dim, H', W')."""

    @placeable
    def __init__(
        self, in_chans: int = 3, embed_dim: int = 768, patch_size: int = 16, stride: int = 16, padding: int = 0,
        norm_layer: NormLayer = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, embed_dim, to_2tuple(patch_size), to_2tuple(stride), to_2tuple(padding))
        self.norm = (get_norm_layer(norm_layer) or nn.Identity)(embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x))


class ConvEncoder(nn.Module):
    """Depthwise convolution, norm, MLP of 1x1 convolutions, scale, and a shortcut. Shapes: (B, dim, H, W) -> same."""

    @placeable
    def __init__(
        self, dim: int, hidden_dim: int = 64, kernel_size: int = 3, drop_path: float = 0.0,
        act_layer: ActLayer = nn.GELU, norm_layer: NormLayer = nn.BatchNorm2d, use_layer_scale: bool = True,
    ) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)
        self.norm = get_norm_layer(norm_layer)(dim)
        self.pwconv1 = nn.Conv2d(dim, hidden_dim, 1)
        self.act = get_act_layer(act_layer)()
        self.pwconv2 = nn.Conv2d(hidden_dim, dim, 1)
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()
        self.layer_scale = LayerScale2d(dim, 1) if use_layer_scale else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.act(self.pwconv1(self.norm(self.dwconv(x))))
        return x + self.drop_path(self.layer_scale(self.pwconv2(hidden)))


class LocalRepresentation(ConvEncoder):
    """A `ConvEncoder` that does not widen, in front of attention."""

    @placeable
    def __init__(
        self, dim: int, kernel_size: int = 3, drop_path: float = 0.0, use_layer_scale: bool = True,
        act_layer: ActLayer = nn.GELU, norm_layer: NormLayer = nn.BatchNorm2d,
    ) -> None:
        super().__init__(dim, dim, kernel_size, drop_path, act_layer, norm_layer, use_layer_scale)


class Mlp(nn.Module):
    """Norm, then two 1x1 convolutions around an activation, for maps (B, C, H, W)."""

    @placeable
    def __init__(
        self, in_features: int, hidden_features: int | None = None, out_features: int | None = None,
        act_layer: ActLayer = nn.GELU, norm_layer: NormLayer = nn.BatchNorm2d, drop: float = 0.0,
    ) -> None:
        super().__init__()
        hidden_features = hidden_features or in_features
        self.norm1 = get_norm_layer(norm_layer)(in_features)
        self.fc1 = nn.Conv2d(in_features, hidden_features, 1)
        self.act = get_act_layer(act_layer)()
        self.fc2 = nn.Conv2d(hidden_features, out_features or in_features, 1)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.fc1(self.norm1(x))))))


class EfficientAdditiveAttention(nn.Module):
    """Keys meet one query for each image, the sum of all, weighted by how each agrees with a learned direction.

    Shapes: (B, in_dims, H, W) -> (B, token_dim, H, W).
    """

    @placeable
    def __init__(self, in_dims: int = 512, token_dim: int = 256, num_heads: int = 1) -> None:
        super().__init__()
        width = token_dim * num_heads
        self.scale_factor = token_dim**-0.5
        self.to_query = nn.Linear(in_dims, width)
        self.to_key = nn.Linear(in_dims, width)
        self.w_g = nn.Parameter(torch.empty(width, 1))
        self.proj = nn.Linear(width, width)
        self.final = nn.Linear(width, token_dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.w_g)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        query = F.normalize(self.to_query(tokens), dim=-1)
        key = F.normalize(self.to_key(tokens), dim=-1)
        weights = F.normalize(query @ self.w_g * self.scale_factor, dim=1)
        total = (weights * query).sum(dim=1, keepdim=True)
        tokens = self.final(self.proj(total * key) + query)
        return tokens.transpose(1, 2).reshape(x.shape[0], -1, x.shape[2], x.shape[3])


class Block(nn.Module):
    """Local convolutions, additive attention, MLP; the last two beside shortcuts. Shapes: (B, dim, H, W) -> same."""

    @placeable
    def __init__(
        self, dim: int, mlp_ratio: float = 4.0, drop_rate: float = 0.0, drop_path: float = 0.0,
        act_layer: ActLayer = nn.GELU, norm_layer: NormLayer = nn.BatchNorm2d, use_layer_scale: bool = True,
        layer_scale_init_value: float = 1e-5,
    ) -> None:
        super().__init__()
        self.local_representation = LocalRepresentation(
            dim, use_layer_scale=use_layer_scale, act_layer=act_layer, norm_layer=norm_layer)
        self.attn = EfficientAdditiveAttention(dim, dim)
        self.linear = Mlp(dim, int(dim * mlp_ratio), act_layer=act_layer, norm_layer=norm_layer, drop=drop_rate)
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()
        self.layer_scale_1, self.layer_scale_2 = (
            LayerScale2d(dim, layer_scale_init_value) if use_layer_scale else nn.Identity() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.local_representation(x)
        x = x + self.drop_path(self.layer_scale_1(self.attn(x)))
        return x + self.drop_path(self.layer_scale_2(self.linear(x)))


class Stage(stage.Stage):
    """Stage `index` of those with `layers` blocks: the `downsample` that is given, convolutions, at last a `Block`."""

    @placeable
    def __init__(
        self, dim: int, index: int, layers: Sequence[int], mlp_ratio: float = 4.0, act_layer: ActLayer = nn.GELU,
        norm_layer: NormLayer = nn.BatchNorm2d, drop_rate: float = 0.0, drop_path_rate: float = 0.0,
        use_layer_scale: bool = True, layer_scale_init_value: float = 1e-5, downsample: nn.Module | None = None,
    ) -> None:
        super().__init__()
        *rates, last_rate = drop_path_rates(drop_path_rate, layers)[index]
        self.downsample = nn.Identity() if downsample is None else downsample
        self.blocks = nn.Sequential(
            *(ConvEncoder(dim, int(mlp_ratio * dim), 3, rate, act_layer, norm_layer, use_layer_scale)
              for rate in rates),
            Block(dim, mlp_ratio, drop_rate, last_rate, act_layer, norm_layer, use_layer_scale, layer_scale_init_value))


class SwiftFormer(Distilled):
    """Stem of stride 4, four stages, batch norm, pooling, and two linear classifiers.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); a pair of them in distilled training, see `Distilled`.

    Args:
        layers, embed_dims: Blocks and channels of each stage.
        mlp_ratios: Hidden width of the MLPs, in channels.
        downsamples: Whether a stage begins with a convolution of kernel `down_patch_size`, stride `down_stride` and
            padding `down_pad`.
        act_layer: Activation.
        num_classes, drop_rate, drop_path_rate, in_chans: As of every model.
        proj_drop_rate: Dropout in the MLPs behind attention.
        use_layer_scale, layer_scale_init_value: Scales on the branches; the latter of those behind attention.
        global_pool: "avg", "max", "avgmax", "catavgmax" or "" for none.
        output_stride: 32 alone.
        img_size: Without effect: images have any size.

    Raises:
        ValueError: `output_stride` is not 32, or the pooling is unknown.
    """

    feature_form: ClassVar[str] = "flat"
    tap_norm: ClassVar[str] = "last"
    inits: ClassVar[Inits] = {(nn.Linear, nn.Conv2d): init_trunc_normal}

    def __init__(
        self, layers: Sequence[int] = (3, 3, 6, 4), embed_dims: Sequence[int] = (48, 56, 112, 220),
        mlp_ratios: float = 4, downsamples: Sequence[bool] = (False, True, True, True), act_layer: ActLayer = nn.GELU,
        down_patch_size: int = 3, down_stride: int = 2, down_pad: int = 1, num_classes: int = 1000,
        drop_rate: float = 0.0, proj_drop_rate: float = 0.0, drop_path_rate: float = 0.0, use_layer_scale: bool = True,
        layer_scale_init_value: float = 1e-5, global_pool: str = "avg", output_stride: int = 32, in_chans: int = 3,
        img_size: int | tuple[int, int] | None = None,
    ) -> None:
        ImageModel.__init__(self)  # Distilled's is for classes whose classifier is made by then
        if output_stride != 32:
            raise ValueError(f"output_stride is 32 for a SwiftFormer, not {output_stride}")
        self.num_classes, self.in_chans = num_classes, in_chans
        chs = embed_dims[0]
        self.stem = nn.Sequential()
        for before, after in ((in_chans, chs // 2), (chs // 2, chs)):
            self.stem.extend([nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.ReLU()])
        self.stages = nn.Sequential()
        self.flow = Flow(stem=[Step("stem")], stages=[], tail=[Step("norm")])
        for i, (dim, shrinks) in enumerate(zip(embed_dims, downsamples)):
            downsample = Embedding(chs, dim, down_patch_size, down_stride, down_pad) if shrinks else None
            self.stages.append(Stage(
                dim, i, layers, mlp_ratios, act_layer, drop_rate=proj_drop_rate, drop_path_rate=drop_path_rate,
                use_layer_scale=use_layer_scale, layer_scale_init_value=layer_scale_init_value, downsample=downsample))
            self.flow.stages.append(Step(f"stages.{i}", dim, 4 * 2**i))
            chs = dim
        self.num_features = chs
        self.norm = nn.BatchNorm2d(chs)
        self.global_pool = GlobalPool2d(global_pool)
        self.head_hidden_size = chs * self.global_pool.out_factor
        self.head_drop = nn.Dropout(drop_rate)
        self.head = self.make_classifier(num_classes)
        self.head_dist = self.make_classifier(num_classes)
        self.init_weights()


register_model.variants(__name__, SwiftFormer, {
    "swiftformer_xs": {},
    "swiftformer_s": dict(layers=(3, 3, 9, 6), embed_dims=(48, 64, 168, 224)),
    "swiftformer_l1": dict(layers=(4, 3, 10, 5), embed_dims=(48, 96, 192, 384)),
    "swiftformer_l3": dict(layers=(4, 4, 12, 6), embed_dims=(64, 128, 320, 512)),
})


def _from_authors(state_dict: StateDict, model: nn.Module) -> StateDict:
    """The authors' stages and what lies between them are one list."""
    return rename_keys(
        state_dict, (r"^patch_embed\.", "stem."), (r"^dist_head\.", "head_dist."), (r"\.attn\.Proj\.", ".attn.proj."),
        (r"\.layer_scale(_[12])?$", r".layer_scale\1.gamma"),
        (r"^network\.(\d*[02468])\.", lambda match: f"stages.{int(match[1]) // 2}.blocks."),
        (r"^network\.(\d+)\.", lambda match: f"stages.{int(match[1]) // 2 + 1}.downsample."))


SwiftFormer.key_maps = (KeyMap("authors", lambda keys: "patch_embed.0.weight" in keys, _from_authors),)
