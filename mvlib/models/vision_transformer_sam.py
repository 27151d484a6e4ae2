"""The vision transformer that is the image encoder of SAM: attention in windows, and in the whole map in a few blocks.

Papers:
    Li et al., "Exploring Plain Vision Transformer Backbones for Object Detection", 2022, arXiv:2203.16527.
    Kirillov et al., "Segment Anything", 2023, arXiv:2304.02643.

Maps are channels-last. Attention knows the offset of query from key by learned vectors, of rows and of columns, whose
products with the query are added to the logits. A neck of two convolutions makes the map that SAM's decoder takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ..layers.activations import ActLayer, get_act_layer
from ..layers.attention import attend
from ..layers.config import use_fused_attn
from ..layers.drop import drop_path_rates
from ..layers.helpers import computed, placeable, to_2tuple
from ..layers.mlp import Mlp
from ..layers.norm import LayerNorm, LayerNorm2d, NormLayer, get_norm_layer
from ..layers.patch_embed import PatchEmbed, resample_patch_embed
from ..layers.pool import ClassifierHead, NormMlpClassifierHead
from ..layers.pos_embed import resample_abs_pos_embed_nhwc
from ..layers.rel_pos import decomposed_bias, gen_axis_index, resize_offset_vectors
from ..layers.residual import ResidualBlock
from ..layers.rope import RotaryEmbeddingCat, apply_rot_embed_cat
from ..layers.window import pad_to_multiple, window_reverse
from ..layers.window import window_partition as cut_windows
from ..registry import register_model
from .base import Flow, ImageModel, Indices, KeyMap, StateDict, Step, take_indices

if TYPE_CHECKING:
    from ._variants.vision_transformer_sam import *

__all__ = ["VisionTransformerSAM"]

# one node each in a traced graph: what they do depends on the map's size
torch.fx.wrap("pad_to_multiple")
torch.fx.wrap("resample_abs_pos_embed_nhwc")

Size = tuple[int, int]
_MAP_EMBED = partial(PatchEmbed, output_fmt="NHWC", strict_img_size=False)


@torch.fx.wrap  # one node in a traced graph: it depends on the map's size
def get_rel_pos(q_size: int, k_size: int, rel_pos: Tensor) -> Tensor:
    """The vector for each query and key along one side of the map, (q_size, k_size, C); the shorter side is stretched.

    `rel_pos` are vectors (L, C) of the offsets, interpolated unless L is that of the longer side.
    """
    index = gen_axis_index(q_size, k_size, rel_pos.device)
    return resize_offset_vectors(rel_pos, 2 * max(q_size, k_size) - 1)[index]


def get_decomposed_rel_pos_bias(q: Tensor, rel_pos_h: Tensor, rel_pos_w: Tensor, q_size: Size, k_size: Size) -> Tensor:
    """What is added to the logits (B, queries, keys) of queries (B, rows * columns, C), see `decomposed_bias`.

    `q_size` and `k_size` are the maps of queries and keys; vectors of vertical and horizontal offsets are as
    `get_rel_pos` takes them.
    """
    rows, columns = get_rel_pos(q_size[0], k_size[0], rel_pos_h), get_rel_pos(q_size[1], k_size[1], rel_pos_w)
    return decomposed_bias(q.unflatten(1, (q_size[0], q_size[1])), rows, columns)


def window_partition(x: Tensor, window_size: int) -> tuple[Tensor, Size]:
    """The windows of a map (B, H, W, C), padded as needed: (B * windows, size, size, C); and the padded size."""
    x = pad_to_multiple(x, (window_size, window_size))
    return cut_windows(x, (window_size, window_size)), (x.shape[1], x.shape[2])


def window_unpartition(windows: Tensor, window_size: int, hw: Size, pad_hw: Size | None = None) -> Tensor:
    """The map (B, H, W, C) of size `hw` whose windows these are, after padding to `pad_hw`."""
    rows, columns = hw if pad_hw is None else pad_hw
    return window_reverse(windows, (window_size, window_size), rows, columns)[:, :hw[0], :hw[1]]


class Attention(nn.Module):
    """Self-attention of a map. Shapes: (B, H, W, dim) -> same.

    Args:
        qk_norm: Normalise queries and keys.
        use_rel_pos: Logits know the offset of query from key; keys `rel_pos_h`, `rel_pos_w`.
        input_size: Rows and columns that the offsets are learned for; those of other maps are interpolated.
        rope: Rotary embedding of queries and keys, in place of offsets.

    Raises:
        ValueError: The heads do not divide the channels, or offsets lack a size or meet a rotary embedding.
    """

    @placeable
    def __init__(
        self, dim: int, num_heads: int = 8, qkv_bias: bool = True, qk_norm: bool = False, attn_drop: float = 0.0,
        proj_drop: float = 0.0, norm_layer: NormLayer = nn.LayerNorm, use_rel_pos: bool = False,
        input_size: Size | None = None, rope: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"{dim} channels cannot be divided among {num_heads} heads")
        if use_rel_pos and (input_size is None or rope is not None):
            raise ValueError("use_rel_pos needs input_size, and no rotary embedding beside it")
        norm: Any = get_norm_layer(norm_layer)
        self.num_heads, self.head_dim, self.fused_attn = num_heads, dim // num_heads, use_fused_attn()
        self.scale, self.use_rel_pos = self.head_dim ** -0.5, use_rel_pos
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.q_norm, self.k_norm = (norm(self.head_dim) if qk_norm else nn.Identity() for _ in range(2))
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)
        if input_size is not None and use_rel_pos:
            self.rel_pos_h, self.rel_pos_w = (
                nn.Parameter(torch.empty(2 * side - 1, self.head_dim)) for side in input_size)
        self.rope: Any = rope
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for vectors in self._parameters.values():
            if vectors is not None:
                nn.init.zeros_(vectors)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[1], x.shape[2]
        q, k, v = self.qkv(x).flatten(1, 2).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        q, k = self.q_norm(q), self.k_norm(k)
        bias: Tensor | None = None
        if self.use_rel_pos:
            bias = get_decomposed_rel_pos_bias(
                q.flatten(0, 1), self.rel_pos_h, self.rel_pos_w, (rows, columns), (rows, columns))
            bias = bias.unflatten(0, (-1, self.num_heads))
        elif self.rope is not None:
            rope = self.rope.get_embed()
            q, k = apply_rot_embed_cat(q, rope).type_as(v), apply_rot_embed_cat(k, rope).type_as(v)
        x = attend(q, k, v, self.fused_attn, self.attn_drop, bias)
        x = x.transpose(1, 2).flatten(2)
        return self.proj_drop(self.proj(x)).unflatten(1, (rows, columns))


class Block(ResidualBlock):
    """Attention in windows or the whole map, then a feed-forward block. Shapes: (B, H, W, dim) -> same.

    Args:
        init_values: Initial layer scale; none where 0 or None.
        window_size: Side of the windows; 0 for the whole map, of `input_size`.
        Others: As `Attention` takes them.
    """

    @placeable
    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float = 4.0, qkv_bias: bool = True, qk_norm: bool = False,
        proj_drop: float = 0.0, attn_drop: float = 0.0, init_values: float | None = None, drop_path: float = 0.0,
        act_layer: ActLayer = nn.GELU, norm_layer: NormLayer = nn.LayerNorm, mlp_layer: Callable[..., nn.Module] = Mlp,
        use_rel_pos: bool = False, window_size: int = 0, input_size: Size | None = None, rope: nn.Module | None = None,
    ) -> None:
        super().__init__()
        norm: Any = get_norm_layer(norm_layer)
        self.window_size, size = window_size, (window_size, window_size) if window_size else input_size
        attn = Attention(dim, num_heads, qkv_bias, qk_norm, attn_drop, proj_drop, norm, use_rel_pos, size, rope)
        mlp = mlp_layer(dim, int(dim * mlp_ratio), act_layer=act_layer, drop=proj_drop)
        self.add_branches(dim, norm, attn, mlp, init_values or None, drop_path)

    def attend(self, x: Tensor) -> Tensor:
        if not self.window_size:
            return self.attn(x)
        windows, padded = window_partition(x, self.window_size)
        return window_unpartition(self.attn(windows), self.window_size, (x.shape[1], x.shape[2]), padded)


class VisionTransformerSAM(ImageModel):
    """SAM's image encoder.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); features are (B, num_features, rows, columns). Images have any size
    that patches divide: position embedding and offsets are resampled.

    Args:
        img_size: Side, or (height, width), in pixels, that position embedding and offsets are learned for.
        pre_norm: Norm before the first block; the patch embedding has no bias then.
        pos_drop_rate: Dropout after the position embedding.
        patch_drop_rate: Has to be 0: windows need all patches.
        weight_init: Without effect, as in timm.
        embed_layer, norm_layer, act_layer, block_fn, mlp_layer: What the model is made of.
        use_abs_pos, use_rel_pos, use_rope: Position embedding, offsets, rotary embeddings.
        global_attn_indexes: Indices of the blocks that attend in the whole map.
        neck_chans: Channels of the neck; without it a norm stands in its place.
        head_hidden_size: Hidden channels of a head with a norm, which then stands for that in the neck's place.
        ref_feat_shape: Grids, of the whole map and of a window, that rotary positions are counted in.
        Others: As `Block` takes them.

    Raises:
        ValueError: Offsets and rotary embeddings are both asked for, or patches are to be dropped.
    """

    head_path, norm_path, tap_layout, tap_norm = "head", "neck", "NHWC", "all"
    default_out_indices: ClassVar[Indices] = 3
    patch_embed: Any  # a `PatchEmbed`, or what has its attributes
    img_size = computed(attrgetter("patch_embed.img_size"))
    global_pool = computed(attrgetter("head.global_pool.pool_type"))

    def __init__(
        self, img_size: int | Size = 1024, patch_size: int | Size = 16, in_chans: int = 3, num_classes: int = 768,
        embed_dim: int = 768, depth: int = 12, num_heads: int = 12, mlp_ratio: float = 4.0, qkv_bias: bool = True,
        qk_norm: bool = False, init_values: float | None = None, pre_norm: bool = False, drop_rate: float = 0.0,
        pos_drop_rate: float = 0.0, patch_drop_rate: float = 0.0, proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0, drop_path_rate: float = 0.0, weight_init: str = "",
        embed_layer: Callable[..., nn.Module] = _MAP_EMBED, norm_layer: NormLayer = nn.LayerNorm,
        act_layer: ActLayer = nn.GELU, block_fn: type[nn.Module] = Block, mlp_layer: Callable[..., nn.Module] = Mlp,
        use_abs_pos: bool = True, use_rel_pos: bool = False, use_rope: bool = False, window_size: int = 14,
        global_attn_indexes: Sequence[int] = (), neck_chans: int | None = 256, global_pool: str = "avg",
        head_hidden_size: int | None = None, ref_feat_shape: Any = None,
    ) -> None:
        super().__init__()
        if use_rope and use_rel_pos:
            raise ValueError("use_rope and use_rel_pos exclude each other")
        if patch_drop_rate:
            raise ValueError(f"windows need all patches: patch_drop_rate has to be 0, not {patch_drop_rate}")
        norm: Any = get_norm_layer(norm_layer) or partial(LayerNorm, eps=1e-6)
        self.in_chans, self.num_classes, self.embed_dim = in_chans, num_classes, embed_dim
        patch_embed: Any = embed_layer(
            img_size=img_size, patch_size=patch_size, in_chans=in_chans, embed_dim=embed_dim, bias=not pre_norm)
        self.patch_embed, grid = patch_embed, patch_embed.grid_size
        self.pos_embed = nn.Parameter(torch.empty(1, *grid, embed_dim)) if use_abs_pos else None
        self.pos_drop = nn.Dropout(pos_drop_rate)
        self.norm_pre = norm(embed_dim) if pre_norm else nn.Identity()
        ropes: list[nn.Module | None] = [None, None]
        if use_rope:
            references = [None if ref_feat_shape is None else to_2tuple(shape) for shape in ref_feat_shape or (0, 0)]
            ropes = [RotaryEmbeddingCat(embed_dim // num_heads, in_pixels=False, feat_shape=shape, ref_feat_shape=ref)
                     for shape, ref in zip((grid, to_2tuple(window_size)), references)]
        self.rope_global, self.rope_window = ropes
        self.blocks = nn.Sequential(*(
            block_fn(
                dim=embed_dim, num_heads=num_heads, mlp_ratio=mlp_ratio, qkv_bias=qkv_bias, qk_norm=qk_norm,
                init_values=init_values, proj_drop=proj_drop_rate, attn_drop=attn_drop_rate, drop_path=rate,
                norm_layer=norm, act_layer=get_act_layer(act_layer) or nn.GELU, mlp_layer=mlp_layer,
                use_rel_pos=use_rel_pos, input_size=grid, window_size=0 if i in global_attn_indexes else window_size,
                rope=self.rope_global if i in global_attn_indexes else self.rope_window)
            for i, rate in enumerate(drop_path_rates(drop_path_rate, depth))))
        self.num_features = neck_chans or embed_dim
        self.neck: nn.Module = nn.Identity() if head_hidden_size else LayerNorm2d(embed_dim)
        if neck_chans:
            self.neck = nn.Sequential(
                nn.Conv2d(embed_dim, neck_chans, 1, bias=False), LayerNorm2d(neck_chans),
                nn.Conv2d(neck_chans, neck_chans, 3, padding=1, bias=False), LayerNorm2d(neck_chans))
        kind = partial(NormMlpClassifierHead, hidden_size=head_hidden_size) if head_hidden_size else ClassifierHead
        self.head = kind(self.num_features, num_classes, pool_type=global_pool, drop_rate=drop_rate)
        self.head_hidden_size = self.head.num_features
        self.flow = Flow(
            stem=[Step("patch_embed"), Step("_pos_embed"), Step("norm_pre")],
            stages=[Step(f"blocks.{i}", embed_dim, patch_embed.feat_ratio()) for i in range(depth)],
            tail=[Step("channels_first"), Step("neck")])
        self.init_weights()

    def _pos_embed(self, x: Tensor) -> Tensor:
        if self.pos_embed is not None:
            x = x + resample_abs_pos_embed_nhwc(self.pos_embed, x.shape[1:3])  # type: ignore[arg-type]
        return self.pos_drop(x)

    def tap_facts(self, module: str) -> dict[str, Any]:
        """`num_chs_norm`: channels behind the neck, or the norm in its place."""
        return {"num_chs_norm": self.num_features}

    def channels_first(self, x: Tensor) -> Tensor:
        """What the blocks give, as the neck takes it: (B, H, W, C) -> (B, C, H, W)."""
        return x.permute(0, 3, 1, 2)

    def norm_tap(self, x: Tensor, index: int) -> Tensor:
        return self.neck(self.channels_first(x)).permute(0, 2, 3, 1)

    def prune_intermediate_layers(
        self, indices: Indices = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """As every model's; the neck is the norm, and the head goes with it where it has other channels."""
        take_indices(len(self.blocks), indices)
        if prune_norm:
            prune_head = prune_head or self.num_features != self.embed_dim
            self.num_features = self.embed_dim
        return super().prune_intermediate_layers(indices, prune_norm, prune_head)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return dict(stem=r"^pos_embed|patch_embed", blocks=[(r"^blocks\.(\d+)", None), (r"^norm", (99999,))])

    def no_weight_decay(self) -> set[str]:
        return {"pos_embed", "dist_token"}

    def reset_parameters(self) -> None:
        """Initialise the position embedding."""
        if self.pos_embed is not None:
            nn.init.zeros_(self.pos_embed)

    def fit_state_dict(self, state_dict: StateDict) -> StateDict:
        """Patches, position embedding and offsets of other sizes as this model's; timm takes its own size alone."""
        own, fitted = self.state_dict(), dict(state_dict)
        for key in own.keys() & fitted.keys():
            if key.endswith(("attn.rel_pos_h", "attn.rel_pos_w")):
                fitted[key] = resize_offset_vectors(fitted[key], len(own[key]))
            elif key == "pos_embed":
                fitted[key] = resample_abs_pos_embed_nhwc(fitted[key], list(own[key].shape[1:3]))
            elif key == "patch_embed.proj.weight":
                fitted[key] = resample_patch_embed(fitted[key], self.patch_embed.patch_size)
        return fitted


_SAM = dict(use_rel_pos=True)
_BASE = dict(_SAM, global_attn_indexes=(2, 5, 8, 11))

register_model.variants(__name__, VisionTransformerSAM, {
    "samvit_base_patch16": _BASE,
    "samvit_large_patch16": dict(_SAM, embed_dim=1024, depth=24, num_heads=16, global_attn_indexes=(5, 11, 17, 23)),
    "samvit_huge_patch16": dict(_SAM, embed_dim=1280, depth=32, num_heads=16, global_attn_indexes=(7, 15, 23, 31)),
    "samvit_base_patch16_224": (_BASE, dict(img_size=224, use_abs_pos=False, neck_chans=None)),
})

VisionTransformerSAM.key_maps = (KeyMap.renaming(  # of a whole SAM its image encoder
    "meta", "image_encoder.patch_embed.proj.weight", (r"\.mlp\.lin", ".mlp.fc"), prefix="image_encoder."),)
