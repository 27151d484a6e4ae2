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
from ..layers.helpers import Module, Sequential, to_2tuple
from ..layers.norm import NormLayer, get_norm_layer
from ..layers.weight_init import init_trunc_normal
from ..registry import register_model
from .base import Flow, ImageModel, Inits, KeyMap
from .distilled import Distilled
from .fastvit import LayerScale2d

if TYPE_CHECKING:
    from ._variants.swiftformer import *

__all__ = ["SwiftFormer"]


class Embedding(Sequential):
    """A strided convolution and a norm; keys `proj`, `norm`. Shapes: (B, in_chans, H, W) -> (B, embed_dim, H', W')."""

    def __init__(
        self, in_chans: int = 3, embed_dim: int = 768, patch_size: int = 16, stride: int = 16, padding: int = 0,
        norm_layer: NormLayer = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, embed_dim, to_2tuple(patch_size), to_2tuple(stride), to_2tuple(padding))
        self.norm = (get_norm_layer(norm_layer) or nn.Identity)(embed_dim)


class ConvEncoder(Module):
    """Depthwise convolution, norm, MLP of 1x1 convolutions, scale, and a shortcut. Shapes: (B, dim, H, W) -> same."""

    def __init__(
        self, dim: int, hidden_dim: int = 64, kernel_size: int = 3, drop_path: float = 0.0,
        act_layer: ActLayer = nn.GELU, norm_layer: NormLayer = nn.BatchNorm2d, use_layer_scale: bool = True,
    ) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)
        self.norm, self.act = get_norm_layer(norm_layer)(dim), get_act_layer(act_layer)()
        self.pwconv1, self.pwconv2 = nn.Conv2d(dim, hidden_dim, 1), nn.Conv2d(hidden_dim, dim, 1)
        self.drop_path = DropPath(drop_path)
        self.layer_scale = LayerScale2d(dim, 1) if use_layer_scale else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.act(self.pwconv1(self.norm(self.dwconv(x))))
        return x + self.drop_path(self.layer_scale(self.pwconv2(hidden)))


class LocalRepresentation(ConvEncoder):
    """A `ConvEncoder` that does not widen, in front of attention."""

    def __init__(
        self, dim: int, kernel_size: int = 3, drop_path: float = 0.0, use_layer_scale: bool = True,
        act_layer: ActLayer = nn.GELU, norm_layer: NormLayer = nn.BatchNorm2d,
    ) -> None:
        super().__init__(dim, dim, kernel_size, drop_path, act_layer, norm_layer, use_layer_scale)


class Mlp(Module):
    """Norm, then two 1x1 convolutions around an activation, for maps (B, C, H, W)."""

    def __init__(
        self, in_features: int, hidden_features: int | None = None, out_features: int | None = None,
        act_layer: ActLayer = nn.GELU, norm_layer: NormLayer = nn.BatchNorm2d, drop: float = 0.0,
    ) -> None:
        super().__init__()
        hidden_features = hidden_features or in_features
        self.norm1, self.act = get_norm_layer(norm_layer)(in_features), get_act_layer(act_layer)()
        self.fc1 = nn.Conv2d(in_features, hidden_features, 1)
        self.fc2, self.drop = nn.Conv2d(hidden_features, out_features or in_features, 1), nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.fc1(self.norm1(x))))))


class EfficientAdditiveAttention(Module):
    """Keys meet one query for each image, the sum of all, weighted by how each agrees with a learned direction."""

    def __init__(self, in_dims: int = 512, token_dim: int = 256, num_heads: int = 1) -> None:
        super().__init__()
        width = token_dim * num_heads
        self.scale_factor = token_dim**-0.5
        self.to_query, self.to_key = nn.Linear(in_dims, width), nn.Linear(in_dims, width)
        self.w_g = nn.Parameter(torch.empty(width, 1))
        self.proj, self.final = nn.Linear(width, width), nn.Linear(width, token_dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.w_g)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        query, key = F.normalize(self.to_query(tokens), dim=-1), F.normalize(self.to_key(tokens), dim=-1)
        weights = F.normalize(query @ self.w_g * self.scale_factor, dim=1)
        total = (weights * query).sum(dim=1, keepdim=True)
        tokens = self.final(self.proj(total * key) + query)
        return tokens.transpose(1, 2).reshape(x.shape[0], -1, x.shape[2], x.shape[3])


class Block(Module):
    """Local convolutions, additive attention, MLP; the last two beside shortcuts. Shapes: (B, dim, H, W) -> same."""

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
        self.drop_path = DropPath(drop_path)
        self.layer_scale_1, self.layer_scale_2 = (
            LayerScale2d(dim, layer_scale_init_value) if use_layer_scale else nn.Identity() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.local_representation(x)
        x = x + self.drop_path(self.layer_scale_1(self.attn(x)))
        return x + self.drop_path(self.layer_scale_2(self.linear(x)))


class Stage(stage.Stage):
    """Stage `index` of those with `layers` blocks: the `downsample` that is given, convolutions, at last a `Block`."""

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
        mlp_ratios, proj_drop_rate: Hidden width of the MLPs, in channels, and dropout in those behind attention.
        downsamples: Whether a stage begins with a convolution of kernel `down_patch_size`, stride `down_stride` and
            padding `down_pad`.
        use_layer_scale, layer_scale_init_value: Scales on the branches; the latter of those behind attention.
        global_pool: "avg", "max", "avgmax", "catavgmax" or "" for none.
        output_stride, img_size: 32 alone; without effect, images have any size.

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
        self.num_classes, self.in_chans, chs = num_classes, in_chans, embed_dims[0]
        self.stem = nn.Sequential()
        for before, after in ((in_chans, chs // 2), (chs // 2, chs)):
            self.stem.extend([nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.ReLU()])
        self.stages = nn.Sequential()
        for i, (dim, shrinks) in enumerate(zip(embed_dims, downsamples)):
            downsample = Embedding(chs, dim, down_patch_size, down_stride, down_pad) if shrinks else None
            self.stages.append(Stage(
                dim, i, layers, mlp_ratios, act_layer, drop_rate=proj_drop_rate, drop_path_rate=drop_path_rate,
                use_layer_scale=use_layer_scale, layer_scale_init_value=layer_scale_init_value, downsample=downsample))
            chs = dim
        self.flow = Flow.of_stages(embed_dims[:len(self.stages)], tail=["norm"])
        self.num_features, self.norm = chs, nn.BatchNorm2d(chs)
        self.set_global_pool(global_pool)
        self.head_drop = nn.Dropout(drop_rate)
        self.head, self.head_dist = self.make_classifier(num_classes), self.make_classifier(num_classes)
        self.init_weights()


register_model.variants(__name__, SwiftFormer, {
    "swiftformer_xs": {},
    "swiftformer_s": dict(layers=(3, 3, 9, 6), embed_dims=(48, 64, 168, 224)),
    "swiftformer_l1": dict(layers=(4, 3, 10, 5), embed_dims=(48, 96, 192, 384)),
    "swiftformer_l3": dict(layers=(4, 4, 12, 6), embed_dims=(64, 128, 320, 512)),
})


# The authors' stages and what lies between them are one list.
SwiftFormer.key_maps = (KeyMap.renaming(
    "authors", "patch_embed.0.weight", (r"^patch_embed\.", "stem."), (r"^dist_head\.", "head_dist."),
    (r"\.attn\.Proj\.", ".attn.proj."), (r"\.layer_scale(_[12])?$", r".layer_scale\1.gamma"),
    (r"^network\.(\d*[02468])\.", lambda match: f"stages.{int(match[1]) // 2}.blocks."),
    (r"^network\.(\d+)\.", lambda match: f"stages.{int(match[1]) // 2 + 1}.downsample.")),)
