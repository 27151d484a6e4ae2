"""PiT: a vision transformer that pools its tokens between stages, as convolutional networks do.

Heo et al., "Rethinking Spatial Dimensions of Vision Transformers", 2021, arXiv:2103.16302.
"distilled" models have a second token, and a second classifier on it, that learn from a teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ..layers import LayerNorm, Module, check_map, drop_path_rates, resample_grid, to_2tuple
from ..registry import register_model
from .base import Flow, ImageModel, KeyMap, StateDict, Step
from .distilled import Distilled
from .vision_transformer import Block

if TYPE_CHECKING:
    from ._variants.pit import *

__all__ = ["PoolingVisionTransformer", "PoolingVisionTransformerDistilled"]

Grid = tuple[int, int]

torch.fx.wrap("check_map")  # one node in a traced graph: what it does depends on the map's size


class ConvEmbedding(Module):
    """Overlapping patches of an image; key `conv`. Shapes: (B, in_channels, H, W) -> (B, out_channels, *grid_size)."""

    def __init__(
        self, in_channels: int, out_channels: int, img_size: int | Grid = 224, patch_size: int = 16, stride: int = 8,
        padding: int = 0,
    ) -> None:
        super().__init__()
        self.img_size, self.patch_size = to_2tuple(img_size), to_2tuple(patch_size)
        self.grid_size: Grid = to_2tuple(
            (side + 2 * padding - patch) // stride + 1 for side, patch in zip(self.img_size, self.patch_size))
        self.height, self.width = self.grid_size
        self.conv = nn.Conv2d(in_channels, out_channels, patch_size, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Pooling(nn.Module):
    """A strided depthwise convolution of patches, and a linear layer for the `prefix` tokens in front of them.

    Shapes: (B, prefix + N, in_dim) and the patches' grid -> (B, prefix + about N / 4, dim) and theirs.
    """

    def __init__(self, in_dim: int, dim: int, prefix: int) -> None:
        super().__init__()
        self.prefix = prefix
        self.conv = nn.Conv2d(in_dim, dim, 3, stride=2, padding=1, groups=in_dim)
        self.fc = nn.Linear(in_dim, dim)

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        prefix, x = x[:, :self.prefix], x[:, self.prefix:]
        x = self.conv(x.transpose(1, 2).reshape(x.shape[0], -1, grid[0], grid[1]))
        return torch.cat((self.fc(prefix), x.flatten(2).transpose(1, 2)), dim=1), (x.shape[2], x.shape[3])


class PoolingVisionTransformer(ImageModel):
    """Overlapping patches, stages of blocks with pooling between them, and a classifier on the class token.

    Shapes: (B, in_chans, *img_size) -> (B, num_classes); features are the class token, (B, 1, num_features), taps maps.

    Args:
        img_size: Side of the images, or (height, width): positions are made for it.
        patch_size, stride: Side of a patch, and distance from one to the next.
        stem_type: "overlap", the only one that there is.
        base_dims, depth, heads: Of each stage: channels of a head, blocks, attention heads.
        global_pool: "token" (the class token), or "" for none.

    Raises:
        ValueError: Unknown pooling or stem, not a number for each stage, or an image that is smaller than a patch; from
            `forward`, images of another size.
    """

    tap_layout: ClassVar[str] = "NLC"
    feature_form: ClassVar[str] = "hook"
    pools: ClassVar[tuple[str, ...]] = ("token", "")
    num_prefix_tokens: int = 1

    def __init__(
        self, img_size: int | Grid = 224, patch_size: int = 16, stride: int = 8, stem_type: str = "overlap",
        base_dims: Sequence[int] = (48, 48, 48), depth: Sequence[int] = (2, 6, 4), heads: Sequence[int] = (2, 4, 8),
        mlp_ratio: float = 4.0, num_classes: int = 1000, in_chans: int = 3, global_pool: str = "token",
        drop_rate: float = 0.0, pos_drop_rate: float = 0.0, proj_drop_rate: float = 0.0, attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.img_size = to_2tuple(img_size)
        if stem_type != "overlap":
            raise ValueError(f"unknown stem_type {stem_type!r}; known: 'overlap'")
        if not len(base_dims) == len(depth) == len(heads):
            raise ValueError(f"base_dims {base_dims}, depth {depth} and heads {heads} are a number for each stage")
        if min(self.img_size) < patch_size:
            raise ValueError(f"an image of {self.img_size} is smaller than a patch of {patch_size}")
        dims = [dim * count for dim, count in zip(base_dims, heads)]
        self.in_chans, self.embed_dim = in_chans, dims[-1]
        self.patch_embed = ConvEmbedding(in_chans, dims[0], img_size, patch_size, stride)
        self.grid_size = self.patch_embed.grid_size
        self.pos_embed = nn.Parameter(torch.empty(1, dims[0], *self.grid_size))
        self.cls_token = nn.Parameter(torch.empty(1, self.num_prefix_tokens, dims[0]))
        self.pos_drop = nn.Dropout(pos_drop_rate)
        self.transformers = nn.Sequential()
        self.flow = Flow(
            stem=[Step("patch_embed"), Step("to_tokens", gives=("grid",))], stages=[],
            tail=[Step("early_features")], neck=[Step("norm")])  # the norm is of what the classifier takes alone
        for i, rates in enumerate(drop_path_rates(drop_path_rate, depth)):
            stage = nn.ModuleDict()
            if i:
                stage["pool"] = Pooling(dims[i - 1], dims[i], self.num_prefix_tokens)
                self.flow.stages.append(Step(f"transformers.{i}.pool", takes=("grid",), gives=("grid",)))
            stage["blocks"] = nn.Sequential(*(
                Block(dims[i], heads[i], mlp_ratio, qkv_bias=True, proj_drop=proj_drop_rate, attn_drop=attn_drop_rate,
                      drop_path=rate) for rate in rates))
            self.flow.stages.append(
                Step(f"transformers.{i}.blocks", dims[i], stride * 2**i, module=f"transformers.{i}"))
            self.transformers.append(stage)
        self.norm = LayerNorm(dims[-1])
        self.add_classifier(dims[-1], num_classes, global_pool, nn.Dropout(drop_rate))

    def to_tokens(self, x: Tensor) -> tuple[Tensor, Grid]:
        """Patches with positions behind the class token: (B, 1 + N, C), and their grid."""
        tokens = self.pos_drop(check_map(x, self.grid_size, True) + self.pos_embed).flatten(2).transpose(1, 2)
        return torch.cat((self.cls_token.expand(x.shape[0], -1, -1), tokens), dim=1), (x.shape[2], x.shape[3])

    def early_features(self, x: Tensor) -> Tensor:
        return x[:, :self.num_prefix_tokens]

    def pool(self, x: Tensor) -> Tensor:
        return x.mean(dim=1) if self.global_pool else x  # of two tokens, where there is one for distillation

    def no_weight_decay(self) -> set[str]:
        return {"pos_embed", "cls_token"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        stage = r"^transformers\.(\d+)"
        blocks = [(stage, None)] if coarse else [(rf"{stage}\.blocks\.(\d+)", None), (rf"{stage}\.pool", (0,))]
        return dict(stem=r"^(?:patch_embed|pos_embed|cls_token)", blocks=[*blocks, (r"^norm", (99999,))])

    def reset_parameters(self) -> None:
        for embedding in (self.pos_embed, self.cls_token):
            nn.init.trunc_normal_(embedding, std=0.02)

    def fit_state_dict(self, state_dict: StateDict) -> StateDict:
        """Resample the position embedding for another image size."""
        fitted, size = dict(state_dict), list(self.pos_embed.shape[2:])
        if "pos_embed" in fitted and list(fitted["pos_embed"].shape[2:]) != size:
            fitted["pos_embed"] = resample_grid(fitted["pos_embed"].permute(0, 2, 3, 1), size).permute(0, 3, 1, 2)
        return fitted


class PoolingVisionTransformerDistilled(Distilled, PoolingVisionTransformer):
    """A PiT with a second token, and a second classifier on it, see `Distilled`. Arguments as its base's."""

    num_prefix_tokens: int = 2

    def classifier_inputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.head_drop(x[:, 0]), self.head_drop(x[:, 1])


def _pit(distilled: bool = False, **kwargs: Any) -> PoolingVisionTransformer:
    """`distilled`: with a second token and classifier."""
    return (PoolingVisionTransformerDistilled if distilled else PoolingVisionTransformer)(**kwargs)


_SIZES: dict[str, dict[str, Any]] = {
    "b": dict(patch_size=14, stride=7, base_dims=(64, 64, 64), depth=(3, 6, 4), heads=(4, 8, 16)),
    "s": dict(heads=(3, 6, 12)), "xs": {}, "ti": dict(base_dims=(32, 32, 32)),
}

register_model.variants(__name__, _pit, {
    **{f"pit_{size}_224": row for size, row in _SIZES.items()},
    **{f"pit_{size}_distilled_224": (row, dict(distilled=True)) for size, row in _SIZES.items()},
})

PoolingVisionTransformer.key_maps = (  # the authors' pooling stands beside the stages, ours begins the next one
    KeyMap.renaming("naver", "pools.0.conv.weight",
                    (r"^pools\.(\d+)", lambda match: f"transformers.{int(match[1]) + 1}.pool")),)
