"""CrossViT: two transformers for patches of two sizes, whose class tokens visit each other's patches.

Chen et al., "CrossViT: Cross-Attention Multi-Scale Vision Transformer for Image Classification", 2021,
arXiv:2103.14899. Names end with the image's side (the authors' models of 224 and 384 take images of 240 and 408: the
branch of large patches sees them smaller); "dagger" models have convolutions for the patch embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import layers
from ..layers import ActLayer, DropPath, NormLayer, drop_path_rates, get_act_layer, get_norm_layer
from ..layers.helpers import Module, computed, placeable, to_2tuple
from ..layers.weight_init import init_trunc_normal, trunc_normal_
from ..registry import register_model
from .base import Flow, ImageModel, Indices, Inits, KeyMap, Step, Tap, take_indices
from .cait import ClassAttn
from .vision_transformer import Block

if TYPE_CHECKING:
    from ._variants.crossvit import *

__all__ = ["CrossAttention", "CrossAttentionBlock", "CrossVit", "MultiScaleBlock", "PatchEmbed", "scale_image"]

Size = tuple[int, int]
_STEPS = {12: ((4, 7), (3, 3), (1, 3)), 16: ((4, 7), (2, 3), (2, 3))}  # patch size: strides and kernels of convolutions


class PatchEmbed(layers.PatchEmbed):
    """Patches to tokens, by one convolution or, with `multi_conv` for patches of 12 or 16 pixels, by three; key `proj`.

    Shapes: (B, in_chans, *img_size) -> (B, num_patches, embed_dim).
    """

    @placeable
    def __init__(
        self, img_size: int | Size = 224, patch_size: int = 16, in_chans: int = 3, embed_dim: int = 768,
        multi_conv: bool = False,
    ) -> None:
        super().__init__(img_size, patch_size, in_chans, embed_dim)
        if not multi_conv:
            return
        if self.patch_size[0] not in _STEPS:
            raise ValueError(f"multi_conv is for patches of 12 and 16 pixels, not {self.patch_size[0]}")
        chs = [in_chans, embed_dim // 4, embed_dim // 2, embed_dim]
        self.proj: Any = nn.Sequential()
        for i, (stride, kernel) in enumerate(_STEPS[self.patch_size[0]]):
            padding = 0 if stride == kernel else kernel // 2
            self.proj.extend([nn.Conv2d(chs[i], chs[i + 1], kernel, stride, padding), nn.ReLU(inplace=True)])
        del self.proj[-1]


class CrossAttention(ClassAttn):
    """The first token attends to all. Shapes: (B, N, dim) -> (B, 1, dim). Keys `wq`, `wk`, `wv`, `proj`."""

    inputs: ClassVar[Mapping[str, int]] = {"wq": 1, "wk": 1, "wv": 1}


class CrossAttentionBlock(Module):
    """`CrossAttention` with a norm and a shortcut: (B, N, dim) -> (B, 1, dim). As in timm, without an MLP."""

    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float = 4.0, qkv_bias: bool = False, proj_drop: float = 0.0,
        attn_drop: float = 0.0, drop_path: float = 0.0, act_layer: ActLayer = nn.GELU,
        norm_layer: NormLayer = nn.LayerNorm,
    ) -> None:
        super().__init__()
        self.norm1 = get_norm_layer(norm_layer)(dim)
        self.attn = CrossAttention(dim, num_heads, qkv_bias, attn_drop, proj_drop)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :1] + self.drop_path(self.attn(self.norm1(x)))


class MultiScaleBlock(Module):
    """Blocks of each branch; then its class token attends to the next branch's patches, in their width.

    Shapes: tokens of each branch (B, 1 + N, C), in a list -> same.

    Args:
        dim, num_heads, mlp_ratio: Of each branch; `patches` are without effect.
        depth: Blocks of each branch, and then how often the class tokens attend, at least once.
        drop_path: Rate of each block.
        act_layer: Activation between the norms and projections to the other branch's width and back.
    """

    def __init__(
        self, dim: Sequence[int], patches: Sequence[int], depth: Sequence[int], num_heads: Sequence[int],
        mlp_ratio: Sequence[float], qkv_bias: bool = False, proj_drop: float = 0.0, attn_drop: float = 0.0,
        drop_path: Sequence[float] = (0.0,), act_layer: ActLayer = nn.GELU, norm_layer: NormLayer = nn.LayerNorm,
    ) -> None:
        super().__init__()
        norm, act, self.num_branches = get_norm_layer(norm_layer), get_act_layer(act_layer), len(dim)
        same: dict[str, Any] = dict(qkv_bias=qkv_bias, proj_drop=proj_drop, attn_drop=attn_drop, norm_layer=norm)
        others = [*dim[1:], dim[0]]
        self.blocks = nn.ModuleList(nn.Sequential(*(
            Block(dim[i], num_heads[i], mlp_ratio[i], drop_path=rate, **same) for rate in drop_path[:depth[i]]))
            for i in range(len(dim)) if depth[i])
        self.projs = nn.ModuleList(nn.Sequential(norm(a), act(), nn.Linear(a, b)) for a, b in zip(dim, others))
        self.fusion = nn.ModuleList()
        for i, other in enumerate(others):
            visits = [CrossAttentionBlock(other, num_heads[(i + 1) % len(dim)], mlp_ratio[i], drop_path=drop_path[-1],
                                          **same) for _ in range(depth[-1] or 1)]
            self.fusion.append(nn.Sequential(*visits) if depth[-1] else visits[0])
        self.revert_projs = nn.ModuleList(nn.Sequential(norm(b), act(), nn.Linear(b, a)) for a, b in zip(dim, others))

    def forward(self, xs: list[Tensor]) -> list[Tensor]:
        xs = [block(x) for block, x in zip(self.blocks, xs)]
        tokens = [proj(x[:, :1]) for proj, x in zip(self.projs, xs)]
        outs = []
        for i, (fusion, revert) in enumerate(zip(self.fusion, self.revert_projs)):
            other = xs[(i + 1) % self.num_branches]
            token = fusion(torch.cat((tokens[i], other[:, 1:]), dim=1))
            outs.append(torch.cat((revert(token[:, :1]), xs[i][:, 1:]), dim=1))
        return outs


class _Each(nn.ModuleList):
    """A layer for each branch."""

    def forward(self, xs: list[Tensor]) -> list[Tensor]:
        return [layer(x) for layer, x in zip(self, xs)]


@torch.fx.wrap  # one node in a traced graph: what it does depends on the image's size
def scale_image(x: Tensor, ss: Size, crop_scale: bool = False) -> Tensor:
    """Images (B, C, H, W) of `ss` rows and columns, by bicubic interpolation, or their middle if `crop_scale`."""
    height, width = x.shape[-2:]
    if height == ss[0] and width == ss[1]:
        return x
    if crop_scale and ss[0] <= height and ss[1] <= width:
        top, left = int(round((height - ss[0]) / 2)), int(round((width - ss[1]) / 2))
        return x[:, :, top:top + ss[0], left:left + ss[1]]
    return F.interpolate(x, size=ss, mode="bicubic", align_corners=False)


class CrossVit(ImageModel):
    """Two branches of tokens, blocks of both, a norm, and the mean of two classifiers.

    Shapes: (B, in_chans, H, W), scaled to each branch's size -> (B, num_classes); features are a list of (B, 1 + N, C).
    Taps are the first branch's after each block, then the second's.

    Args:
        img_scale: Factor on `img_size`, of each branch; as with `patch_size`, `embed_dim`, `num_heads`, `mlp_ratio`.
        depth: Of each block: blocks within for each branch, and the class tokens' visits, see `MultiScaleBlock`.
        multi_conv: Patch embedding by three convolutions.
        crop_scale: Cut images for a smaller branch rather than scale them.
        global_pool: "token" (class tokens), "avg" (over patches), or "" for none.

    Raises:
        ValueError: The pooling is unknown, or an image of a branch cannot be divided into patches.
    """

    classifier_path: ClassVar[tuple[str, ...]] = ("head.0", "head.1")
    tap_layout: ClassVar[str] = "NLC"
    tap_norm: ClassVar[str] = "all"
    pools: ClassVar[tuple[str, ...]] = ("token", "avg", "")
    inits: ClassVar[Inits] = {nn.Linear: init_trunc_normal}
    num_prefix_tokens = 1

    def __init__(
        self, img_size: int | Size = 224, img_scale: Sequence[float] = (1.0, 1.0), patch_size: Sequence[int] = (8, 16),
        in_chans: int = 3, num_classes: int = 1000, embed_dim: Sequence[int] = (192, 384),
        depth: Sequence[Sequence[int]] = ((1, 3, 1), (1, 3, 1), (1, 3, 1)), num_heads: Sequence[int] = (6, 12),
        mlp_ratio: Sequence[float] = (2.0, 2.0, 4.0), multi_conv: bool = False, crop_scale: bool = False,
        qkv_bias: bool = True, drop_rate: float = 0.0, pos_drop_rate: float = 0.0, proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0, drop_path_rate: float = 0.0, norm_layer: NormLayer = "layernorm",
        global_pool: str = "token",
    ) -> None:
        super().__init__()
        self.num_classes, self.in_chans, self.crop_scale = num_classes, in_chans, crop_scale
        self.img_size, self.embed_dim = to_2tuple(img_size), tuple(embed_dim)
        self.num_features = self.head_hidden_size = sum(embed_dim)
        self.set_global_pool(global_pool)
        self.patch_embed = nn.ModuleList()
        for i, (scale, patch, dim) in enumerate(zip(img_scale, patch_size, embed_dim)):
            size = int(self.img_size[0] * scale), int(self.img_size[1] * scale)
            if size[0] % patch or size[1] % patch:
                raise ValueError(f"images of {size[0]}x{size[1]} pixels cannot be divided into patches of {patch}; "
                                 f"they have img_size times img_scale")
            embed: Any = PatchEmbed(size, patch, in_chans, dim, multi_conv)
            setattr(self, f"pos_embed_{i}", nn.Parameter(torch.empty(1, 1 + embed.num_patches, dim)))
            setattr(self, f"cls_token_{i}", nn.Parameter(torch.empty(1, 1, dim)))
            self.patch_embed.append(embed)
        self.pos_drop = nn.Dropout(pos_drop_rate)
        self.strides = tuple(round(patch / scale) for patch, scale in zip(patch_size, img_scale))
        self.num_feature_blocks = len(depth)
        self.flow = Flow(stem=[Step("embed")], stages=[], tail=[Step("norm")])
        rates, start = drop_path_rates(drop_path_rate, sum(sum(row[-2:]) for row in depth)), 0
        self.blocks = nn.ModuleList()
        for i, row in enumerate(depth):
            stop = start + max(row[:-1]) + row[-1]
            self.blocks.append(MultiScaleBlock(
                embed_dim, (), row, num_heads, mlp_ratio, qkv_bias, proj_drop_rate, attn_drop_rate, rates[start:stop],
                norm_layer=norm_layer))
            self.flow.stages.append(Step(f"blocks.{i}", self.embed_dim, self.strides))
            start = stop
        self.default_out_indices = (len(depth) - 1, 2 * len(depth) - 1)  # type: ignore[misc]  # by depth
        self.norm = _Each(get_norm_layer(norm_layer)(dim) for dim in embed_dim)
        self.head_drop = nn.Dropout(drop_rate)
        self.head = nn.ModuleList(self.make_classifier_at(f"head.{i}", num_classes) for i in range(len(embed_dim)))
        self.init_weights()

    def reset_parameters(self) -> None:
        for parameter in self.parameters(recurse=False):
            trunc_normal_(parameter, std=0.02)

    def embed(self, x: Tensor) -> list[Tensor]:
        """Image -> tokens of each branch, with positions."""
        xs = []
        for i in range(len(self.patch_embed)):
            embed: Any = self.patch_embed[i]
            tokens = embed(scale_image(x, embed.img_size, self.crop_scale))
            first = getattr(self, f"cls_token_{i}").expand(tokens.shape[0], -1, -1)
            xs.append(self.pos_drop(torch.cat((first, tokens), dim=1) + getattr(self, f"pos_embed_{i}")))
        return xs

    # taps: the flow's are a branch each of a block, the model's all of a branch, then all of the next

    def _order(self) -> list[int]:
        """Of each of the model's taps, its place among the flow's; those of pruned blocks keep their numbers."""
        branches = len(self.embed_dim)
        return [i * branches + b for b in range(branches) for i in range(self.num_feature_blocks)]

    @computed
    def feature_info(self) -> list[dict[str, Any]]:
        places = [divmod(place, len(self.embed_dim)) for place in self._order()]
        return [dict(num_chs=self.embed_dim[b], reduction=self.strides[b], module=f"blocks.{block}", index=i)
                for i, (block, b) in enumerate(places)]

    def run_to_taps(self, x: Tensor, indices: Indices, *args: Any, **shared: Any) -> Any:
        order = self._order()
        places = [order[i] for i in take_indices(len(order), indices)]
        found = super().run_to_taps(x, places, *args, **shared)  # in the order of the flow
        arrange = [sorted(places).index(place) for place in places]
        if isinstance(found, dict):
            lists = [key for key in found if key.startswith("image_intermediates")]
            return {**found, **{key: [found[key][i] for i in arrange] for key in lists}}
        if isinstance(found, tuple):
            return found[0], [found[1][i] for i in arrange]
        return [found[i] for i in arrange]

    def prune_intermediate_layers(
        self, indices: Indices = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        order = self._order()
        taken = take_indices(len(order), indices)
        super().prune_intermediate_layers([order[i] for i in taken], prune_norm, prune_head)
        return taken

    def tap_grid(self, tap: Tap, image_size: Sequence[int] | None) -> Size:
        grid: Size = self.patch_embed[tap.part or 0].grid_size  # type: ignore[assignment]
        return grid

    def norm_tap(self, x: Tensor, index: int) -> Tensor:
        return self.norm[index % len(self.patch_embed)](x)

    # head

    def make_classifier_at(self, path: str, num_classes: int) -> nn.Module:
        dim = self.embed_dim[int(path.rpartition(".")[2])]
        return nn.Linear(dim, num_classes) if num_classes > 0 else nn.Identity()

    def get_classifier(self, name_only: bool = False) -> Any:
        """The classifiers, a list with one for each branch; or the path of the first, which stands for none, too."""
        return super().get_classifier(name_only) if name_only or not self.num_classes else self.head

    def _pooled(self, xs: list[Tensor]) -> list[Tensor]:
        return [x[:, 1:].mean(dim=1) if self.global_pool == "avg" else x[:, 0] for x in xs]

    def pool(self, x: Any) -> Any:
        """Tokens of the branches -> (B, head_hidden_size); unchanged where there is no pooling."""
        return torch.cat(self._pooled(x), dim=1) if self.global_pool else x

    def forward_head(self, xs: Any, pre_logits: bool = False) -> Any:
        """Tokens of the branches -> logits, or what is pooled of them, side by side, where `pre_logits`."""
        if not self.global_pool:
            return xs
        xs = [self.head_drop(pooled) for pooled in self._pooled(xs)]
        if pre_logits or isinstance(self.head[0], nn.Identity):
            return torch.cat(xs, dim=1)
        return torch.stack([head(pooled) for head, pooled in zip(self.head, xs)]).mean(dim=0)

    def no_weight_decay(self) -> set[str]:
        return set(self._parameters)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return dict(stem=r"^cls_token|pos_embed|patch_embed", blocks=[(r"^blocks\.(\d+)", None), (r"^norm", (99999,))])


def _sizes(dim: int, heads: int, depth: int, ratio: int) -> dict[str, Any]:
    return dict(img_size=240, img_scale=(1.0, 224 / 240), patch_size=(12, 16), embed_dim=(dim, 2 * dim),
                depth=((1, depth, 0),) * 3, num_heads=(heads, heads), mlp_ratio=(ratio, ratio, 1))


_9, _15, _18 = _sizes(128, 4, 3, 3), _sizes(192, 6, 5, 3), _sizes(224, 7, 6, 3)
_DAGGER = dict(multi_conv=True)
_408 = dict(_DAGGER, img_size=408, img_scale=(1.0, 384 / 408))

register_model.variants(__name__, CrossVit, {
    "crossvit_tiny_240": _sizes(96, 3, 4, 4), "crossvit_small_240": _sizes(192, 6, 4, 4),
    "crossvit_base_240": _sizes(384, 12, 4, 4),
    "crossvit_9_240": _9, "crossvit_9_dagger_240": (_9, _DAGGER),
    "crossvit_15_240": _15, "crossvit_15_dagger_240": (_15, _DAGGER), "crossvit_15_dagger_408": (_15, _408),
    "crossvit_18_240": _18, "crossvit_18_dagger_240": (_18, _DAGGER), "crossvit_18_dagger_408": (_18, _408),
})

CrossVit.key_maps = (  # the authors' lists of parameters
    KeyMap.renaming("ibm", "pos_embed.0", (r"^(pos_embed|cls_token)\.", r"\1_")),)
