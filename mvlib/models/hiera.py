"""Hiera: a pyramid of plain transformer blocks, whose first stages attend within units that pretraining masks whole.

Papers:
    Ryali et al., "Hiera: A Hierarchical Vision Transformer without the Bells-and-Whistles", 2023, arXiv:2306.00989.
    Bolya et al., "Window Attention is Bugged: How not to Interpolate Position Embeddings", 2023, arXiv:2311.05613.

Tokens are sorted such that those that a maximum joins stand a fixed distance apart, and those of a mask unit too: pools
and windows are views, of images as of videos, and of what masking left. Taps are sorted back. Kernels, strides and
units say by their length how many dimensions there are: (height, width), or (time, height, width).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.activations import ActLayer
from ..layers.attention import attend
from ..layers.classifier import ClNormMlpClassifierHead
from ..layers.config import use_fused_attn
from ..layers.drop import drop_path_rates
from ..layers.helpers import computed, placeable, to_2tuple
from ..layers.mlp import Mlp
from ..layers.norm import NormLayer, get_norm_layer
from ..layers.residual import ResidualBlock
from ..layers.weight_init import init_weight_jax, init_weight_vit, scale_output
from ..layers.window import check_map
from ..registry import register_model
from .base import Flow, ImageModel, Indices, KeyMap, Step, take_indices

if TYPE_CHECKING:
    from ._variants.hiera import *

__all__ = ["BlockPyramid", "Hiera"]

torch.fx.wrap("check_map")  # one node in a traced graph: what it does depends on the map's size

Sides = Sequence[int]


def conv_nd(n: int) -> type[nn.Module]:
    """The convolution of `n` dimensions, up to 3."""
    return (nn.Identity, nn.Conv1d, nn.Conv2d, nn.Conv3d)[n]


def get_resized_mask(target_size: Sides, mask: Tensor | None) -> Tensor | None:
    """A mask (B, 1, *its sides) in the size of what it is laid upon; None stays."""
    if mask is None or list(mask.shape[2:]) == list(target_size):
        return mask
    return F.interpolate(mask.float(), size=list(target_size))


def undo_windowing(x: Tensor, shape: Sides, mu_shape: Sides) -> Tensor:
    """The map that windows tile, one after another: (B, windows, *mu_shape, C) -> (B, *shape, C)."""
    dims = len(shape)
    x = x.reshape(x.shape[0], *(n // m for n, m in zip(shape, mu_shape)), *mu_shape, x.shape[-1])
    order = [axis for i in range(1, dims + 1) for axis in (i, i + dims)]
    return x.permute(0, *order, -1).reshape(x.shape[0], *shape, x.shape[-1])


class Unroll(nn.Module):
    """Sort tokens such that each pool of the schedule joins those at a fixed distance. Shapes: (B, N, C) -> same.

    Behind it, `x.view(B, 4, N // 4, C).amax(1)` is the first pool if it is 2 x 2, and so on.

    `input_size` and `patch_stride` give the map's sides, `unroll_schedule` the strides of the pools, first to last.
    """

    def __init__(self, input_size: Sides, patch_stride: Sides, unroll_schedule: Sequence[Sides]) -> None:
        super().__init__()
        self.size = [n // s for n, s in zip(input_size, patch_stride)]
        self.schedule = unroll_schedule

    def forward(self, x: Tensor) -> Tensor:
        pools, dims = len(self.schedule), len(self.size)
        shape: list[int] = []  # each side: the remaining positions, then those within the last pool, ..., the first
        for i, side in enumerate(self.size):
            within = [strides[i] for strides in reversed(self.schedule)]
            shape += [side // math.prod(within), *within]
        axes = [1 + i * (pools + 1) for i in range(dims)]
        order = [axis + 1 + k for k in reversed(range(pools)) for axis in axes] + axes
        parts = x.reshape(x.shape[0], *shape, x.shape[-1])  # unflatten would fix the batch of the older ONNX exporter,
        return parts.permute(0, *order, len(shape) + 1).reshape(x.shape)  # which knows no axis -1


class Reroll(nn.Module):
    """What undoes `Unroll` behind any block.

    `stage_ends` are the indices of the stages' last blocks, of which `q_pool` are followed by a pool.
    """

    def __init__(
        self, input_size: Sides, patch_stride: Sides, unroll_schedule: Sequence[Sides], stage_ends: Sides, q_pool: int
    ) -> None:
        super().__init__()
        self.size = [n // s for n, s in zip(input_size, patch_stride)]
        self.schedule: dict[int, tuple[Sequence[Sides], Sides]] = {}  # of a block: pools to come, and the map's sides
        for i in range(stage_ends[-1] + 1):
            done = sum(i > end for end in stage_ends[:q_pool])
            joined = [math.prod(strides) for strides in zip(*unroll_schedule[:done])] or [1] * len(self.size)
            self.schedule[i] = unroll_schedule[done:], [n // s for n, s in zip(self.size, joined)]

    def forward(self, x: Tensor, block_idx: int, mask: Tensor | None = None) -> Tensor:
        """Tokens (B, N, C) behind a block -> a map (B, *sides, C); with a mask (B, units, *sides of a unit, C)."""
        schedule, size = self.schedule[block_idx]
        pools, dims = len(schedule), len(size)
        unit = [math.prod(strides[i] for strides in schedule) for i in range(dims)]
        order = [1 + k * dims + i for i in range(dims) for k in reversed(range(pools))]
        x = x.unflatten(1, [*(s for strides in schedule for s in strides), -1])
        x = x.permute(0, 1 + pools * dims, *order, x.dim() - 1).reshape(x.shape[0], -1, *unit, x.shape[-1])
        return x if mask is not None else undo_windowing(x, size, unit)


class MaskUnitAttention(nn.Module):
    """Self-attention of unrolled tokens, of all or within mask units, whose queries may be pooled.

    Shapes: (B, N, dim) -> (B, N / q_stride, dim_out): a maximum joins `q_stride` queries, after which a unit, within
    which `use_mask_unit_attn` attends, has `window_size`.

    Raises:
        ValueError: The heads do not divide the channels.
    """

    @placeable
    def __init__(
        self, dim: int, dim_out: int, heads: int, q_stride: int = 1, window_size: int = 0,
        use_mask_unit_attn: bool = False,
    ) -> None:
        super().__init__()
        if dim_out % heads:
            raise ValueError(f"{dim_out} channels cannot be divided among {heads} heads")
        self.heads, self.q_stride, self.window_size = heads, q_stride, window_size
        self.use_mask_unit_attn, self.fused_attn = use_mask_unit_attn, use_fused_attn()
        self.qkv = nn.Linear(dim, 3 * dim_out)
        self.proj = nn.Linear(dim_out, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        batch, count, _ = x.shape
        units = count // (self.q_stride * self.window_size) if self.use_mask_unit_attn else 1
        qkv = self.qkv(x).reshape(batch, count // units, units, 3, self.heads, -1).permute(3, 0, 2, 4, 1, 5)
        q, k, v = qkv.flatten(2, 3).unbind(0)  # (B, units * heads, tokens of a unit, channels of a head)
        if self.q_stride > 1:
            q = q.unflatten(2, (self.q_stride, -1)).amax(2)
        x = attend(q, k, v, self.fused_attn).unflatten(1, (units, self.heads))
        return self.proj(x.permute(0, 3, 1, 2, 4).reshape(batch, -1, self.proj.in_features))


class HieraBlock(ResidualBlock):
    """Attention, which may pool and widen, then an MLP. Shapes: (B, N, dim) -> (B, N / q_stride, dim_out).

    `use_expand_proj` widens the shortcut by a linear layer; otherwise its mean does, beside its maximum.

    Raises:
        ValueError: Mean and maximum do not make `dim_out` channels.
    """

    @placeable
    def __init__(
        self, dim: int, dim_out: int, heads: int, mlp_ratio: float = 4.0, drop_path: float = 0.0,
        init_values: float | None = None, norm_layer: NormLayer = nn.LayerNorm, act_layer: ActLayer = nn.GELU,
        q_stride: int = 1, window_size: int = 0, use_expand_proj: bool = True, use_mask_unit_attn: bool = False,
    ) -> None:
        super().__init__()
        self.dim, self.dim_out, self.do_expand = dim, dim_out, dim != dim_out
        self.norm1 = nn.Identity()  # its place: state dicts begin with it
        self.proj = nn.Linear(dim, dim_out) if self.do_expand and use_expand_proj else None
        if self.do_expand and self.proj is None and dim_out != 2 * dim:
            raise ValueError(f"mean and maximum make {2 * dim} channels, not {dim_out}; set use_expand_proj=True")
        attn = MaskUnitAttention(dim, dim_out, heads, q_stride, window_size, use_mask_unit_attn)
        mlp = Mlp(dim_out, int(dim_out * mlp_ratio), act_layer=act_layer)
        self.add_branches(dim_out, get_norm_layer(norm_layer), attn, mlp, init_values, drop_path, dim)

    def skip(self, x: Tensor, normed: Tensor) -> Tensor:
        if not self.do_expand:
            return x
        joined = (x if self.proj is None else self.proj(normed)).unflatten(1, (self.attn.q_stride, -1))
        pooled = joined.amax(1)  # as the queries are
        return torch.cat((pooled, joined.mean(1)), dim=-1) if self.proj is None else pooled


class PatchEmbed(nn.Module):
    """Patches, overlapping, by a convolution of as many dimensions as kernel, stride and padding have values.

    Shapes: (B, dim_in, *sides) -> (B, N, dim_out), or (B, dim_out, *sides) without `reshape`.
    """

    @placeable
    def __init__(
        self, dim_in: int, dim_out: int, kernel: Sides, stride: Sides, padding: Sides, reshape: bool = True
    ) -> None:
        super().__init__()
        self.reshape = reshape
        conv: Any = conv_nd(len(kernel))
        self.proj = conv(dim_in, dim_out, tuple(kernel), tuple(stride), tuple(padding))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """What a mask (B, 1, *units) does not keep is black."""
        resized = get_resized_mask(x.shape[2:], mask)
        x = self.proj(x if resized is None else x * resized.bool())
        return x.flatten(2).transpose(1, 2) if self.reshape else x


class BlockPyramid(ImageModel):
    """What Hiera and SAM 2's HieraDet share: one sequence of blocks, whose stages are tapped at their ends.

    A constructor sets `blocks`, `stage_ends`, `fix_init`, `head_init_scale` and `weight_init_mode` ("", "jax", "skip").
    """

    head_path: ClassVar[str] = "head"
    default_out_indices: ClassVar[Indices] = 4
    global_pool = computed(attrgetter("head.pool_type"))
    stem: ClassVar[tuple[Step, ...]]
    blocks: Any  # a sequence of `HieraBlock`s, or what has their `dim_out`
    stage_ends: list[int]
    fix_init: bool
    head_init_scale: float

    def add_end(
        self, num_classes: int, global_pool: str, drop_rate: float, norm_layer: NormLayer, input_fmt: str
    ) -> None:
        """Make what follows the blocks, and the flow."""
        self.num_classes, self.num_features = num_classes, self.blocks[-1].dim_out
        self.head = ClNormMlpClassifierHead(
            self.num_features, num_classes, pool_type=global_pool, drop_rate=drop_rate, norm_layer=norm_layer,
            input_fmt=input_fmt)
        self.head_hidden_size = self.head.num_features
        self.flow = self._make_flow(coarse=True)

    def _make_flow(self, coarse: bool) -> Flow:
        stages = []
        for i, block in enumerate(self.blocks):
            is_tap, stage = not coarse or i in self.stage_ends, sum(i > end for end in self.stage_ends)
            stages.append(Step(f"blocks.{i}", *((block.dim_out, 4 * 2**stage) if is_tap else ())))
        return Flow(list(self.stem), stages)

    def tap(self, x: Tensor, coarse: bool, *args: Any, **shared: Any) -> Any:
        """`run_to_taps`, whose taps are the ends of stages, or unless `coarse` all blocks."""
        kept = self.flow
        if not coarse:
            self.flow = self._make_flow(coarse)
        try:
            return self.run_to_taps(x, *args, **shared)
        finally:
            self.flow = kept

    def prune_intermediate_layers(
        self, indices: Indices = 1, prune_norm: bool = False, prune_head: bool = True, coarse: bool = True
    ) -> list[int]:
        """As every model's, but the pooling stays; unless `coarse`, `indices` count blocks, and so does `feature_info`
        from now on."""
        if not coarse:
            self.flow = self._make_flow(coarse)
        pool_type = self.global_pool
        taken = super().prune_intermediate_layers(indices, prune_norm, prune_head)
        self.head.set_global_pool(pool_type)
        return taken

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return dict(stem=r"^(?:pos_embed|patch_embed)", blocks=[(r"^blocks\.(\d+)", None)])

    def no_weight_decay(self) -> set[str]:
        return {name for name in self._parameters if name.startswith("pos_embed")}

    def fix_init_weight(self) -> None:
        """Scale the blocks' output projections down with depth."""
        with torch.no_grad():
            for name, module in self.named_modules():
                scale_output(name, module)

    def init_module(self, name: str, module: nn.Module) -> None:
        super().init_module(name, module)
        if name and self.weight_init_mode != "skip":
            init = init_weight_jax if self.weight_init_mode == "jax" else init_weight_vit
            init(module, name, classifier_name="head.fc")
        if self.fix_init:
            scale_output(name, module)
        for parameter in module.parameters() if name == "head.fc" and isinstance(module, nn.Linear) else ():
            parameter.mul_(self.head_init_scale)

    def reset_parameters(self) -> None:
        """Initialise the position embeddings."""
        for parameter in self._parameters.values():
            if parameter is not None:
                nn.init.trunc_normal_(parameter, std=0.02)


class Hiera(BlockPyramid):
    """Hiera.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); features (B, N, num_features). Videos (B, in_chans, T, H, W).

    Args:
        img_size: Height and width, or time, height and width; a side.
        embed_dim, num_heads, dim_mul, head_mul: Channels and heads of the first stage, and their factors to the next.
        global_pool: "avg", "max", "avgmax" or "".
        stages: Blocks of each stage.
        q_pool, q_stride: How many stages are followed by a pool, and its strides.
        mask_unit_size, mask_unit_attn: Sides of a mask unit, in patches; whether a stage attends within units.
        use_expand_proj, init_values: As of `HieraBlock`.
        fix_init: Scale the blocks' outputs down with depth, initially.
        weight_init: Initial weights: "" (truncated normal), "jax", "skip" (torch's).
        patch_drop_rate: Share of mask units that are left out in training.
        head_init_scale: Factor on the initial classifier.
        sep_pos_embed: Position embeddings of time and place are separate, of videos.
        abs_win_pos_embed: A position embedding of `global_pos_size`, resampled, and one of a unit, repeated.

    Raises:
        ValueError: Units do not divide the image; there are not values for each stage, or no stage follows a pool.
    """

    img_size: Any  # as many sides as images have
    pos_embed: Any  # a parameter or None, as those below
    pos_embed_win: Any
    pos_embed_spatial: Any
    pos_embed_temporal: Any
    tap_layout: ClassVar[str] = "NLC"
    stem: ClassVar[tuple[Step, ...]] = (Step("embed", options=("mask",)),)

    def __init__(
        self, img_size: int | Sides = (224, 224), in_chans: int = 3, embed_dim: int = 96, num_heads: int = 1,
        num_classes: int = 1000, global_pool: str = "avg", stages: Sides = (2, 3, 16, 3), q_pool: int = 3,
        q_stride: Sides = (2, 2), mask_unit_size: Sides = (8, 8),
        mask_unit_attn: Sequence[bool] = (True, True, False, False), use_expand_proj: bool = True, dim_mul: float = 2.0,
        head_mul: float = 2.0, patch_kernel: Sides = (7, 7), patch_stride: Sides = (4, 4),
        patch_padding: Sides = (3, 3), mlp_ratio: float = 4.0, drop_path_rate: float = 0.0,
        init_values: float | None = None, fix_init: bool = True, weight_init: str = "",
        norm_layer: NormLayer = "LayerNorm", drop_rate: float = 0.0, patch_drop_rate: float = 0.0,
        head_init_scale: float = 0.001, sep_pos_embed: bool = False, abs_win_pos_embed: bool = False,
        global_pos_size: Sides = (14, 14),
    ) -> None:
        super().__init__()
        size, schedule = to_2tuple(img_size), [q_stride] * (len(stages) - 1)
        if q_pool >= len(stages):
            raise ValueError(f"q_pool={q_pool} pools need as many stages behind the first: there are {len(stages)}")
        if len(mask_unit_attn) < len(stages):
            raise ValueError(f"mask_unit_attn has {len(mask_unit_attn)} values for {len(stages)} stages")
        units = tuple(p * math.lcm(m, s ** len(schedule)) for p, m, s in zip(patch_stride, mask_unit_size, q_stride))
        if any(side % unit for side, unit in zip(size, units)):
            raise ValueError(f"img_size {size} is not a multiple of {units}, which mask units and pools divide")
        self.img_size, self.in_chans, self.weight_init_mode, self.fix_init = size, in_chans, weight_init, fix_init
        self.head_init_scale, self.patch_drop_rate = head_init_scale, patch_drop_rate
        self.tokens_spatial_shape = [n // s for n, s in zip(size, patch_stride)]
        self.mask_spatial_shape = [n // s for n, s in zip(self.tokens_spatial_shape, mask_unit_size)]
        self.mu_size = math.prod(mask_unit_size)
        self.stage_ends = [sum(stages[:i]) - 1 for i in range(1, len(stages) + 1)]
        shapes: dict[str, tuple[int, ...]] = {"pos_embed": (1, math.prod(self.tokens_spatial_shape), embed_dim)}
        if sep_pos_embed:
            frames, *area = self.tokens_spatial_shape
            shapes = {f"pos_embed_{name}": (1, count, embed_dim)
                      for name, count in (("spatial", math.prod(area)), ("temporal", frames))}
        elif abs_win_pos_embed:
            shapes = {"pos_embed": (1, embed_dim, *global_pos_size), "pos_embed_win": (1, embed_dim, *mask_unit_size)}
        for name in ("pos_embed", "pos_embed_win", "pos_embed_spatial", "pos_embed_temporal"):
            self.register_parameter(name, nn.Parameter(torch.empty(shapes[name])) if name in shapes else None)
        self.patch_embed = PatchEmbed(in_chans, embed_dim, patch_kernel, patch_stride, patch_padding)
        self.unroll = Unroll(size, patch_stride, schedule)
        self.reroll = Reroll(size, patch_stride, schedule, self.stage_ends, q_pool)
        self.blocks = nn.ModuleList()
        dim, unit, stride = embed_dim, self.mu_size, math.prod(q_stride)
        for i, rate in enumerate(drop_path_rates(drop_path_rate, sum(stages))):
            begun = sum(i > end for end in self.stage_ends)  # the stage; its first block pools and widens
            is_first, dim_out = i - 1 in self.stage_ends, dim
            pools = is_first and begun <= q_pool
            if is_first:
                dim_out, num_heads = int(dim * dim_mul), int(num_heads * head_mul)
                unit = unit // stride if pools else unit
            self.blocks.append(HieraBlock(  # a pool's attention is still the stage's before
                dim, dim_out, num_heads, mlp_ratio, rate, init_values, norm_layer, q_stride=stride if pools else 1,
                window_size=unit, use_expand_proj=use_expand_proj, use_mask_unit_attn=mask_unit_attn[begun - is_first]))
            dim = dim_out
        self.add_end(num_classes, global_pool, drop_rate, norm_layer, "NLC")
        self.init_weights()

    def no_weight_decay(self) -> set[str]:
        return super().no_weight_decay() - {"pos_embed_win"}

    # tokens

    def embed(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Image -> unrolled tokens (B, N, embed_dim), of the units that a mask (B, units) keeps."""
        if len(self.img_size) == 2:
            x = check_map(x, self.img_size, True)
        units = None if mask is None else mask.view(x.shape[0], 1, *self.mask_spatial_shape)
        x = self.unroll(self._pos_embed(self.patch_embed(x, units)))
        return x if mask is None else x[mask.repeat(1, self.mu_size)].view(x.shape[0], -1, x.shape[-1])

    def _pos_embed(self, x: Tensor) -> Tensor:
        if self.pos_embed_win is not None:
            repeated = self.pos_embed_win.tile(self.mask_spatial_shape)
            resized = F.interpolate(self.pos_embed, size=repeated.shape[-2:], mode="bicubic", antialias=True)
            return x + (resized + repeated).flatten(2).transpose(1, 2)
        if self.pos_embed is not None:
            return x + self.pos_embed
        return x + (self.pos_embed_temporal[:, :, None] + self.pos_embed_spatial[:, None]).flatten(1, 2)

    def get_random_mask(self, x: Tensor, mask_ratio: float) -> Tensor:
        """Which mask units of the images are kept, all but a share of `mask_ratio`: (B, units), boolean."""
        units = math.prod(self.mask_spatial_shape)
        order = torch.rand(x.shape[0], units, device=x.device).argsort(dim=1).argsort(dim=1)
        return order < int(units * (1 - mask_ratio))

    # forward

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Image -> logits; with a mask the features of what it keeps.

        Args:
            mask: (B, units), True for mask units to keep, of each image as many.
        """
        return self.forward_features(x, mask) if isinstance(mask, Tensor) else self.forward_image(x)

    def forward_image(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor, mask: Tensor | None = None, return_intermediates: bool = False) -> Any:
        """Tokens (B, N, num_features), unrolled; with `return_intermediates` maps of the stages, channels last, too.

        Raises:
            ValueError: A mask is given where patch dropout draws one.
        """
        if self.training and self.patch_drop_rate > 0:
            if mask is not None:
                raise ValueError("in training patch_drop_rate draws the mask; set it to 0 to give one")
            mask = self.get_random_mask(x, self.patch_drop_rate)
        if return_intermediates:
            return self.forward_intermediates(x, mask, output_fmt="NHWC")
        # What torch.fx puts in the place of a mask is no tensor: a traced model takes images alone.
        return self.run_flow(x, mask=mask) if isinstance(mask, Tensor) else self.run_flow(x)

    def forward_intermediates(  # type: ignore[override]  # timm's order, with the mask first
        self, x: Tensor, mask: Tensor | Indices = None, indices: Indices = None, norm: bool = False,
        stop_early: bool = True, output_fmt: str = "NCHW", intermediates_only: bool = False, coarse: bool = True, *,
        output_dict: bool = False,
    ) -> Any:
        """As every model's, by default of the ends of stages and without what follows the last that was asked for.

        Args:
            mask: As `forward` takes it; maps are then of units, "NHWC": (B, kept units, *sides of a unit, C). Or the
                `indices`, which other models have in its place.
            coarse: Otherwise `indices` count blocks.

        Raises:
            ValueError: An index is out of range, or the format cannot be given.
        """
        if mask is not None and not isinstance(mask, Tensor):
            mask, indices = None, mask
        known = ("NCHW", "NHWC") if mask is None and len(self.img_size) == 2 else ("NHWC",)
        if output_fmt not in known:
            raise ValueError(f"output_fmt {output_fmt!r} is not one of {', '.join(known)}")
        ends = [i for i in self.stage_ends if i < len(self.blocks)] if coarse else range(len(self.blocks))
        found = self.tap(x, coarse, indices, norm, stop_early, "NLC", intermediates_only, False, True,
                         **({} if mask is None else {"mask": mask}))
        maps = [self.reroll(tokens, ends[i], mask) for i, tokens in zip(
            take_indices(len(ends), indices), found["image_intermediates"])]
        maps = [x.permute(0, 3, 1, 2) for x in maps] if output_fmt == "NCHW" else maps
        found["image_intermediates"] = maps
        return found if output_dict else maps if intermediates_only else (found["image_features"], maps)

    def tap_grid(self, tap: Any, image_size: Any) -> None:
        """None: tokens are unrolled, and as maps only when `reroll` has sorted them."""


_TINY, _SMALL, _BASE = (dict(stages=stages) for stages in ((1, 2, 7, 2), (1, 2, 11, 2), (2, 3, 16, 3)))
_DEEP = dict(stages=(2, 6, 36, 4))
_ABSWIN = dict(abs_win_pos_embed=True, init_values=1e-5, weight_init="jax")

register_model.variants(__name__, Hiera, {
    "hiera_tiny_224": _TINY,
    "hiera_small_224": _SMALL,
    "hiera_base_224": _BASE,
    "hiera_base_plus_224": (_BASE, dict(embed_dim=112, num_heads=2)),
    "hiera_large_224": (_DEEP, dict(embed_dim=144, num_heads=2)),
    "hiera_huge_224": (_DEEP, dict(embed_dim=256, num_heads=4)),
    "hiera_small_abswin_256": (_SMALL, _ABSWIN, dict(global_pos_size=(16, 16), use_expand_proj=False)),
    "hiera_base_abswin_256": (_BASE, _ABSWIN),
})


# Meta's classifier is a projection, and the norm before it the model's, or the encoder's.
Hiera.key_maps = tuple(
    KeyMap.renaming("meta", key, (r"^head\.projection\.", "head.fc."), (r"^(?:encoder_)?norm\.", "head.norm."),
                    (r"^pos_embed_abs$", "pos_embed"))
    for key in ("norm.weight", "encoder_norm.weight"))
