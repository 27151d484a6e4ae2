"""Swin Transformer: self-attention in windows that shift from block to block, on a pyramid of feature maps.

Papers:
    Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", 2021, arXiv:2103.14030.
    Chen et al., "Searching the Search Space of Vision Transformer" (AutoFormerV2, S3), 2021, arXiv:2111.14725.

A block attends inside windows of 7 x 7 tokens (12 x 12 at 384 pixels); every second block rolls the map by half a
window first, so that windows exchange information. Between stages, 2 x 2 tokens are merged into one. Feature maps are
channels-last, (B, H, W, C), throughout.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..layers import ClassifierHead, Mlp, ResidualBlock, drop_path_rates, get_norm_layer, to_2tuple, to_ntuple
from ..layers.activations import ActLayer
from ..layers.attention import attend, attention_logits
from ..layers.config import use_fused_attn
from ..layers.helpers import computed, is_recording
from ..layers.norm import NormLayer
from ..layers.patch_embed import PatchEmbed, resample_patch_embed
from ..layers.rel_pos import RelPosTable
from ..layers.stage import Stage
from ..layers.weight_init import init_vit_module
from ..layers.window import pad_to_multiple, window_partition, window_reverse
from ..registry import register_model
from .base import Flow, ImageModel, KeyMap, StateDict, Step

if TYPE_CHECKING:
    from ._variants.swin_transformer import *

__all__ = [
    "PatchMerging", "SwinTransformer", "SwinTransformerBlock", "SwinTransformerStage", "WindowAttention",
    "WindowPyramid",
]

torch.fx.wrap("pad_to_multiple")  # one node in a traced graph: what it does depends on the map's size

Size = tuple[int, int]
WindowSize = int | Sequence[int | Sequence[int]]


class WindowAttention(RelPosTable):
    """Multi-head self-attention inside windows, with a learned bias for each relative position.

    Shapes: (B * windows, wh * ww, dim) -> same. Keys `qkv`, `proj`, `relative_position_bias_table`. `head_dim` are the
    channels of a head, `dim` / `num_heads` unless given.
    """

    def __init__(
        self, dim: int, num_heads: int, head_dim: int | None = None, window_size: int | Size = 7, qkv_bias: bool = True,
        attn_drop: float = 0.0, proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.add_rel_pos_table(window_size, num_heads)
        head_dim = head_dim or dim // num_heads
        self.scale = head_dim ** -0.5
        self.add_projections(dim, num_heads * head_dim, qkv_bias, attn_drop, proj_drop)
        if not self.relative_position_index.is_meta:
            self.reset_parameters()
            self.init_non_persistent_buffers()

    def add_projections(self, dim: int, attn_dim: int, qkv_bias: bool, attn_drop: float, proj_drop: float) -> None:
        """Make all but the biases; query, key and value have `attn_dim` channels."""
        self.dim, self.fused_attn = dim, use_fused_attn()
        self.qkv = nn.Linear(dim, 3 * attn_dim, bias=qkv_bias)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(attn_dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)
        self.softmax = nn.Softmax(dim=-1)

    def project(self, x: Tensor) -> Tensor:
        """Query, key and value of each head, one after another: (..., dim) -> (..., 3 * attention channels)."""
        return self.qkv(x)

    def scale_query_key(self, q: Tensor, k: Tensor, windows: int) -> tuple[Tensor, Tensor, float]:
        """Query and key (N, windows * num_heads, area, head_dim), and the scale of their product."""
        return q, k, self.scale

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`mask` (windows, wh * ww, wh * ww) is added to the logits of each image's windows."""
        total, area, _ = x.shape
        bias, windows = self.get_bias(), 1
        if mask is not None:
            bias = bias + mask.unsqueeze(1)  # (windows, num_heads, area, area)
            windows = _joined_windows(total, mask.shape[0])
        qkv = self.project(x).view(-1, windows, area, 3, self.num_heads, self.qkv.out_features // 3 // self.num_heads)
        q, k, v = qkv.permute(3, 0, 1, 4, 2, 5).flatten(2, 3).unbind(0)  # (total / windows, windows * num_heads, ...)
        q, k, scale = self.scale_query_key(q, k, windows)
        bias = bias.view(-1, windows * self.num_heads, area, area)
        if self.fused_attn and not (_has_hooks(self.softmax) or _has_hooks(self.attn_drop)):
            x = attend(q, k, v, True, self.attn_drop, bias, scale)
        else:
            logits = attention_logits(q, k, bias, scale)
            attn = self.attn_drop(self.softmax(logits.view(-1, self.num_heads, area, area)))  # (total, num_heads, ...)
            x = attn.view_as(logits) @ v
        if is_recording():
            # ONNX export traces and decomposes attention to different memory layouts where the mask is computed from a
            # parameter, and a reshape that is a view in one is none in the other.
            x = x.clone(memory_format=torch.contiguous_format)
        x = x.unflatten(1, (windows, self.num_heads)).transpose(2, 3).reshape(total, area, -1)
        return self.proj_drop(self.proj(x))


def _has_hooks(module: nn.Module) -> bool:
    """Whether anybody watches the module. In timm, Swin's attention is plain, and hooks see it unasked."""
    return any((module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks))


@torch.fx.wrap  # one node in a traced graph: it depends on the batch's size
def _joined_windows(total: int, windows: int) -> int:
    """How many windows share a dimension with the heads: all, or 1 where all belong to one image.

    A mask is for each window and head but common to all images: joined, it broadcasts instead of being repeated for
    each image. A single image's windows can be a batch instead, which saves a copy of queries, keys and values.
    """
    if not torch.jit.is_scripting():
        if is_recording():
            return windows
    return 1 if total == windows else windows


@torch.fx.wrap  # one node in a traced graph: what it does depends on the map's size
def shifted_window_mask(
    grid: list[int], window: Size, shift: Size, device: torch.device | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """Attention mask of the windows of a map that was rolled by `shift`: who was not a neighbour before stays unseen.

    `grid` are the rows and columns of the map (any pair), multiples of the window's sides; `shift` says how far it was
    rolled up and to the left, 0 where it was not.

    Returns:
        (windows, wh * ww, wh * ww): 0 for a pair that sees each other, -100 for one that does not.
    """
    rows, columns = _origin(grid[0], window[0], shift[0], device), _origin(grid[1], window[1], shift[1], device)
    origin = (rows[:, None] * 3 + columns)[None, :, :, None]
    origin = window_partition(origin, window).flatten(1)  # (windows, wh * ww)
    apart = origin[:, None, :] != origin[:, :, None]
    return torch.zeros(apart.shape, dtype=dtype, device=device).masked_fill(apart, -100.0)  # Swin's value


def _origin(size: int, window: int, shift: int, device: torch.device | None) -> Tensor:
    """Which part of the map each row (or column) came from: the body, the last window, or wrapped round."""
    position = torch.arange(size, device=device)
    if not shift:
        return torch.zeros_like(position)
    return (position >= size - window).long() + (position >= size - shift).long()


class SwinTransformerBlock(ResidualBlock):
    """Window attention, then an MLP. Shapes: (B, H, W, dim) -> same.

    A window that is larger than the map shrinks to the map, and does not shift along that side then.

    Args:
        input_resolution: Rows and columns of the map that windows and mask are made for.
        window_size, shift_size: Rows and columns of a window, and how far the map is rolled before it is cut into them.
        always_partition: Keep window and shift where the map is smaller; the map is padded.
        dynamic_mask: Compute the mask of shifted windows for the map at hand in each forward pass.
        fixed_window: Keep the window; pad before the map is rolled, and roll it along sides of several windows alone.
        attn_kwargs: Further arguments of the attention.
    """

    attn_layer: type[WindowAttention] = WindowAttention

    def __init__(
        self, dim: int, input_resolution: Size, num_heads: int = 4, head_dim: int | None = None,
        window_size: int | Size = 7, shift_size: int | Size = 0, always_partition: bool = False,
        dynamic_mask: bool = False, mlp_ratio: float = 4.0, qkv_bias: bool = True, proj_drop: float = 0.0,
        attn_drop: float = 0.0, drop_path: float = 0.0, act_layer: ActLayer = nn.GELU,
        norm_layer: NormLayer = nn.LayerNorm, fixed_window: bool = False, **attn_kwargs: Any,
    ) -> None:
        super().__init__()
        attn_kwargs |= {} if head_dim is None else {"head_dim": head_dim}
        self.dim, self.num_heads, self.mlp_ratio = dim, num_heads, mlp_ratio
        self.input_resolution, self.target_shift_size = input_resolution, to_2tuple(shift_size)
        self.always_partition, self.fixed_window, self.dynamic_mask = always_partition, fixed_window, dynamic_mask
        self.window_size, self.shift_size = self._fit_window(to_2tuple(window_size), self.target_shift_size)
        attn = self.attn_layer(dim=dim, num_heads=num_heads, window_size=self.window_size, qkv_bias=qkv_bias,
                               attn_drop=attn_drop, proj_drop=proj_drop, **attn_kwargs)
        mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=act_layer, drop=proj_drop)
        self.add_branches(dim, get_norm_layer(norm_layer), attn, mlp, drop_path=drop_path)
        self.register_buffer("attn_mask", None, persistent=False)
        self.init_non_persistent_buffers()

    @property
    def window_area(self) -> int:
        """Tokens of a window."""
        return math.prod(self.window_size)

    def _fit_window(self, window: Size, shift: Size) -> tuple[Size, Size]:
        if self.always_partition or self.fixed_window:
            return window, shift
        window = tuple(min(w, size) for w, size in zip(window, self.input_resolution))
        shift = tuple(0 if size <= w else s for s, w, size in zip(shift, window, self.input_resolution))
        return window, shift

    def init_non_persistent_buffers(self) -> None:
        old = next(self.attn.buffers()) if self.attn_mask is None else self.attn_mask
        device, dtype, mask = old.device, self.norm1.weight.dtype, None
        if any(self.shift_size) and not self.dynamic_mask:
            counts = [math.ceil(size / w) for size, w in zip(self.input_resolution, self.window_size)]
            grid, area = tuple(n * w for n, w in zip(counts, self.window_size)), math.prod(self.window_size)
            if device.type == "meta":  # its shape alone: computing there imports torch's compiler, for seconds
                mask = torch.empty(math.prod(counts), area, area, device=device, dtype=dtype)
            else:
                mask = shifted_window_mask(grid, self.window_size, self.shift_size, device, dtype)
        self.register_buffer("attn_mask", mask, persistent=False)

    def set_input_size(self, feat_size: Size, window_size: Size, always_partition: bool | None = None) -> None:
        """Change the map's size and the window; a block that shifts does so by half the new window."""
        self.input_resolution = feat_size
        if always_partition is not None:
            self.always_partition = always_partition
        shift = tuple(w // 2 for w in window_size) if any(self.target_shift_size) else (0, 0)
        self.window_size, self.shift_size = self._fit_window(window_size, shift)
        self.attn.set_window_size(self.window_size)
        self.init_non_persistent_buffers()

    def attend(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        is_shifted, shift = any(self.shift_size), self.shift_size
        if self.fixed_window:
            x = pad_to_multiple(x, self.window_size)
            shift = _needed_shift(shift, self.window_size, x.shape[1], x.shape[2])
        if is_shifted:
            x = torch.roll(x, (-shift[0], -shift[1]), dims=(1, 2))
        x = pad_to_multiple(x, self.window_size)
        grid = x.shape[1:3]
        mask = shifted_window_mask(grid, self.window_size, shift, x.device, x.dtype) \
            if is_shifted and self.dynamic_mask else self.attn_mask
        x = self.attn(window_partition(x, self.window_size).flatten(1, 2), mask)
        x = window_reverse(x, self.window_size, grid[0], grid[1])
        if not self.fixed_window:
            x = x[:, :height, :width]
        x = torch.roll(x, shift, dims=(1, 2)) if is_shifted else x
        return x[:, :height, :width] if self.fixed_window else x


@torch.fx.wrap  # one node in a traced graph: it depends on the map's size
def _needed_shift(shift: Size, window: Size, height: int, width: int) -> Size:
    """0 for a side of one window, which has nothing to exchange with others."""
    return shift[0] if height > window[0] else 0, shift[1] if width > window[1] else 0


class PatchMerging(nn.Module):
    """Halve the resolution: 2 x 2 tokens are concatenated, normalised and projected.

    Shapes: (B, H, W, dim) -> (B, ceil(H / 2), ceil(W / 2), out_dim), twice `dim` unless given.
    """

    def __init__(self, dim: int, out_dim: int | None = None, norm_layer: NormLayer = nn.LayerNorm) -> None:
        super().__init__()
        self.dim, self.out_dim = dim, out_dim or 2 * dim
        self.norm = get_norm_layer(norm_layer)(4 * dim)
        self.reduction = nn.Linear(4 * dim, self.out_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.reduction(self.norm(self.gather(x)))

    @staticmethod
    def gather(x: Tensor) -> Tensor:
        """Four tokens as one: (B, H, W, dim) -> (B, ceil(H / 2), ceil(W / 2), 4 * dim), column by column."""
        x = pad_to_multiple(x, (2, 2))
        batch, height, width, _ = x.shape
        return x.reshape(batch, height // 2, 2, width // 2, 2, -1).permute(0, 1, 3, 4, 2, 5).flatten(3)


class SwinTransformerStage(Stage):
    """Patch merging (but in the first stage), then blocks of which every second one shifts its windows.

    Shapes: (B, H, W, dim) -> (B, H', W', out_dim); H' is ceil(H / 2) with `downsample`, else H.

    `input_resolution` are the rows and columns of the input. Other arguments, and `block_kwargs`, are as the blocks
    take them; every second one shifts by half a window.
    """

    block_layer: type[SwinTransformerBlock] = SwinTransformerBlock
    merging_layer: type[PatchMerging] = PatchMerging

    def __init__(
        self, dim: int, out_dim: int, input_resolution: Size, depth: int, downsample: bool = True, num_heads: int = 4,
        head_dim: int | None = None, window_size: int | Size = 7, always_partition: bool = False,
        dynamic_mask: bool = False, mlp_ratio: float = 4.0, qkv_bias: bool = True, proj_drop: float = 0.0,
        attn_drop: float = 0.0, drop_path: Sequence[float] | float = 0.0, norm_layer: NormLayer = nn.LayerNorm,
        **block_kwargs: Any,
    ) -> None:
        super().__init__()
        self.dim, self.depth, self.input_resolution = dim, depth, input_resolution
        self.downsample = self.merging_layer(dim, out_dim, norm_layer) if downsample else nn.Identity()
        window = to_2tuple(window_size)
        half = tuple(w // 2 for w in window)
        block_kwargs |= {} if head_dim is None else {"head_dim": head_dim}
        self.blocks = nn.Sequential(*(
            self.block_layer(
                out_dim, self.output_resolution, num_heads, window_size=window, shift_size=half if i % 2 else 0,
                always_partition=always_partition, dynamic_mask=dynamic_mask, mlp_ratio=mlp_ratio, qkv_bias=qkv_bias,
                proj_drop=proj_drop, attn_drop=attn_drop, drop_path=rate, norm_layer=norm_layer, **block_kwargs)
            for i, rate in enumerate(to_ntuple(depth)(drop_path))))

    @property
    def output_resolution(self) -> Size:
        """Rows and columns of the output."""
        is_merging, size = isinstance(self.downsample, PatchMerging), self.input_resolution
        return tuple((side + 1) // 2 for side in size) if is_merging else size

    def set_input_size(self, feat_size: Size, window_size: Size, always_partition: bool | None = None) -> None:
        """Change the size of the stage's input and the window."""
        self.input_resolution = feat_size
        for block in self.blocks:
            block.set_input_size(self.output_resolution, window_size, always_partition)


class WindowPyramid(ImageModel):
    """What the Swin transformers share: a pyramid of stages with windowed attention, and how its sizes are changed.

    Image (B, in_chans, H, W) -> logits (B, num_classes); features (B, H', W', num_features).
    """

    stages_name, fixed_windows = "layers", False
    head_path, feature_form, tap_norm = "head", "flat", "last"
    tap_layout = feature_layout = output_fmt = "NHWC"  # the last is timm's name of it
    img_size = computed(attrgetter("patch_embed.img_size"))
    global_pool = computed(attrgetter("head.global_pool.pool_type"))

    def make_patch_embed(
        self, embed_layer: Callable[..., nn.Module], img_size: int | Size, in_chans: int, strict_img_size: bool,
        dynamic_img_size: bool, dynamic_img_pad: bool, fixed_windows: bool, **kwargs: Any,
    ) -> nn.Module:
        """The patch embedding."""
        self.in_chans, self.fixed_windows = in_chans, fixed_windows
        self.dynamic_img_size = dynamic_img_size or dynamic_img_pad or fixed_windows or not strict_img_size
        if dynamic_img_pad or fixed_windows:  # other patch embeddings may not know of it
            kwargs["dynamic_img_pad" if dynamic_img_pad else "cut_remainder"] = True
        patch_embed: Any = embed_layer(img_size=img_size, in_chans=in_chans, output_fmt="NHWC",
                                       strict_img_size=not self.dynamic_img_size, **kwargs)
        patch_embed.may_be_dynamic = True
        return patch_embed

    def assemble(
        self, patch_embed: nn.Module, embed_dim: int, depths: Sequence[int], windows: Sequence[Size], num_classes: int,
        global_pool: str, drop_rate: float, drop_path_rate: float, make_stage: Callable[..., SwinTransformerStage],
        norm_layer: Callable[[int], nn.Module] | None = None,
    ) -> None:
        """Make the parts, from the patch embedding on, with a window for each stage.

        `make_stage` takes a stage's number, channels and size of its input, its window and rates of stochastic depth.
        """
        dims = [embed_dim * 2**i for i in range(len(depths))]
        self.num_classes, self.num_layers, self.embed_dim = num_classes, len(depths), embed_dim
        self.num_features, self.patch_embed = dims[-1], patch_embed
        self._ref_grid, self._ref_windows = tuple(patch_embed.grid_size), windows  # what windows are scaled from
        self.add_module(self.stages_name, nn.Sequential(*(
            make_stage(i, dims[max(i - 1, 0)], stage_input(self._ref_grid, i), window, rates)
            for i, (window, rates) in enumerate(zip(windows, drop_path_rates(drop_path_rate, depths))))))
        if norm_layer is not None:
            self.norm = norm_layer(self.num_features)
        self.head = ClassifierHead(self.num_features, num_classes, global_pool, drop_rate, input_fmt=self.tap_layout)
        self.head_hidden_size = self.head.num_features
        self.flow = self._make_flow(dims)

    def _make_flow(self, dims: Sequence[int]) -> Flow:
        patch = max(to_2tuple(self.patch_embed.patch_size))
        stages = [Step(f"{self.stages_name}.{i}", chs=chs, reduction=patch * 2**i) for i, chs in enumerate(dims)]
        return Flow([Step("patch_embed")], stages, tail=[Step("norm")] if "norm" in self._modules else [])

    def set_input_size(
        self, img_size: int | Size | None = None, patch_size: int | Size | None = None,
        window_size: WindowSize | None = None, window_ratio: int | Sequence[int] | None = None,
        always_partition: bool | None = None,
    ) -> None:
        """Change the image's size, the patch's and the windows', in place; weights that depend on them are resampled.

        Args:
            img_size, patch_size: Height and width of the image, side of a patch; unchanged if None.
            window_size: As in the constructor. Unless it or `window_ratio` is given, each stage's window keeps its
                proportion to the patch grid, and fixed windows stay as they are.
            window_ratio: Sides of the patch grid per side of a window, for all stages or each.
            always_partition: Keep windows and shifts where a map is smaller than the window; unchanged if None.

        Raises:
            ValueError: Window sizes or ratios are not one for each stage, or not positive; nothing is changed then.
        """
        stages: Any = self._modules[self.stages_name]
        count = len(stages)
        explicit, ratios = resolve_window_args(window_size, window_ratio, count)
        if img_size is not None or patch_size is not None:
            self.patch_embed.set_input_size(img_size=img_size, patch_size=patch_size)
            self.flow.stages = self._make_flow([step.chs for step in self.flow.stages]).stages
        grid = tuple(self.patch_embed.grid_size)
        if ratios is not None:
            explicit = window_sizes_from_ratio(grid, ratios, count)
        if explicit is not None:
            self._ref_grid, self._ref_windows = grid, explicit
        windows = list(self._ref_windows[:count])
        if not self.fixed_windows:
            windows = list(calc_stage_window_sizes(grid, windows, self._ref_grid))
        for i, stage in enumerate(stages):
            stage.set_input_size(stage_input(grid, i), windows[i], always_partition)
        changed = dict(img_size=self.patch_embed.img_size, patch_size=patch_size, window_size=windows,
                       always_partition=always_partition)
        self.note_arguments(**{key: value for key, value in changed.items() if value is not None})

    def fit_state_dict(self, state_dict: StateDict) -> StateDict:
        """Resample bias tables for other windows, and the patch embedding for another patch size."""
        modules, fitted = dict(self.named_modules()), {}
        for key, value in state_dict.items():
            path, _, leaf = key.rpartition(".")
            if leaf in ("relative_position_index", "relative_coords_table", "attn_mask"):
                continue  # we compute them
            if key == "patch_embed.proj.weight":
                value = resample_patch_embed(value, self.patch_embed.patch_size)
            elif leaf == "relative_position_bias_table" and isinstance(modules.get(path), WindowAttention):
                value = modules[path].fit_table(value)
            fitted[key] = value
        return fitted


class SwinTransformer(WindowPyramid):
    """Swin Transformer.

    Image (B, in_chans, H, W) -> logits (B, num_classes); features (B, H', W', num_features).

    Args:
        img_size, patch_size: Height and width of the image, side of a patch, in pixels.
        global_pool: "avg", "max", "avgmax", "catavgmax" or "".
        embed_dim: Channels of the first stage; each further stage doubles them.
        depths, num_heads: Blocks and heads of each stage.
        head_dim: Channels of a head, for all stages or each; channels / heads unless given.
        window_size: Side of a window or (rows, columns), for all stages, or one for each; in tokens. Two integers are
            rows and columns.
        always_partition: Keep windows and shifts where a map is smaller than the window.
        strict_img_size: Refuse images of another size.
        dynamic_img_size: Take images of any size that patches divide; the same as `strict_img_size=False`.
        mlp_ratio: Hidden channels of an MLP per channel, for all stages or each.
        proj_drop_rate, attn_drop_rate: Dropout of the outputs of attention and MLP, and of the attention weights.
        embed_layer, norm_layer: Patch embedding; norm everywhere.
        weight_init: Initial weights: "" (truncated normal), "jax", "jax_nlhb", "moco", or "reset" and "skip" (torch's).
        dynamic_img_pad: Pad images to a multiple of the patch size; takes images of any size.
        fixed_windows: Take images of any size as torchvision does: windows keep their size, a side that is one window
            is not shifted, and pixels at the end that are less than a patch are left out.

    Raises:
        ValueError: The window sizes are not one for each stage, or not positive; `weight_init` is unknown.
    """

    undecayed = "relative_position_bias_table"

    def __init__(
        self, img_size: int | Size = 224, patch_size: int | Size = 4, in_chans: int = 3, num_classes: int = 1000,
        global_pool: str = "avg", embed_dim: int = 96, depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24), head_dim: int | Sequence[int] | None = None,
        window_size: WindowSize = 7, always_partition: bool = False, strict_img_size: bool = True,
        dynamic_img_size: bool = False, mlp_ratio: float | Sequence[float] = 4.0, qkv_bias: bool = True,
        drop_rate: float = 0.0, proj_drop_rate: float = 0.0, attn_drop_rate: float = 0.0, drop_path_rate: float = 0.1,
        embed_layer: Callable[..., nn.Module] = PatchEmbed, norm_layer: NormLayer = nn.LayerNorm, weight_init: str = "",
        dynamic_img_pad: bool = False, fixed_windows: bool = False,
    ) -> None:
        super().__init__()
        norm_layer, count, self.weight_init_mode = get_norm_layer(norm_layer), len(depths), weight_init
        head_dims, ratios = to_ntuple(count)(head_dim), to_ntuple(count)(mlp_ratio)

        def make_stage(i: int, dim: int, size: Size, window: Size, rates: list[float]) -> SwinTransformerStage:
            return SwinTransformerStage(
                dim, embed_dim * 2**i, size, depths[i], i > 0, num_heads[i], head_dims[i], window, always_partition,
                self.dynamic_img_size, ratios[i], qkv_bias, proj_drop_rate, attn_drop_rate, rates, norm_layer,
                fixed_window=fixed_windows)

        patch_embed = self.make_patch_embed(
            embed_layer, img_size, in_chans, strict_img_size, dynamic_img_size, dynamic_img_pad, fixed_windows,
            patch_size=patch_size, embed_dim=embed_dim, norm_layer=norm_layer)
        self.assemble(patch_embed, embed_dim, depths, resolve_stage_window_sizes(window_size, count), num_classes,
                      global_pool, drop_rate, drop_path_rate, make_stage, norm_layer)
        self.init_weights()

    def init_module(self, name: str, module: nn.Module) -> None:
        super().init_module(name, module)
        init_vit_module(name, module, self.weight_init_mode, self.num_classes)

    def init_weights(self, mode: str = "", needs_reset: bool = True) -> None:
        """As every model's; `mode` is another scheme for this once, see `init_vit_module`."""
        self._init_as(mode, needs_reset)


def stage_input(grid: Size, stage: int) -> Size:
    """Rows and columns of a stage's input, before its patch merging."""
    scale = 2 ** max(stage - 1, 0)
    return tuple(math.ceil(side / scale) for side in grid)


def resolve_stage_window_sizes(window_size: WindowSize, num_stages: int) -> tuple[Size, ...]:
    """One (rows, columns) for each stage, of one for all or one for each; two integers are rows and columns for all.

    Raises:
        ValueError: They are not positive, or not one for each stage.
    """
    is_pair = isinstance(window_size, Sequence) and len(window_size) == 2 and not isinstance(window_size[0], Sequence)
    sizes = (window_size,) * num_stages if is_pair or not isinstance(window_size, Sequence) else tuple(window_size)
    windows = tuple(to_2tuple(size) for size in sizes)
    if len(windows) != num_stages or any(len(window) != 2 or min(window) < 1 for window in windows):
        raise ValueError(f"window_size {window_size!r} is not a positive size, or (rows, columns), for each of "
                         f"{num_stages} stages")
    return windows


def resolve_stage_window_ratios(window_ratio: int | Sequence[int], num_stages: int) -> tuple[int, ...]:
    """One ratio of patch grid to window for each stage.

    Raises:
        ValueError: They are not positive, or not one for each stage.
    """
    ratios = to_ntuple(num_stages)(window_ratio)
    if len(ratios) != num_stages or min(ratios) < 1:
        raise ValueError(f"window_ratio {window_ratio!r} is not a positive integer for each of {num_stages} stages")
    return ratios


def resolve_window_args(
    window_size: WindowSize | None, window_ratio: int | Sequence[int] | None, num_stages: int
) -> tuple[tuple[Size, ...] | None, tuple[int, ...] | None]:
    """Sizes for each stage if they are given, else ratios if those are; the other, or both, None. Raises as the two."""
    if window_size is not None:
        return resolve_stage_window_sizes(window_size, num_stages), None
    return None, None if window_ratio is None else resolve_stage_window_ratios(window_ratio, num_stages)


def window_sizes_from_ratio(grid_size: Size, window_ratio: int | Sequence[int], num_stages: int) -> tuple[Size, ...]:
    """The patch grid, as it is before any merging, divided by each stage's ratio; one token at least."""
    ratios = resolve_stage_window_ratios(window_ratio, num_stages)
    return tuple((max(1, grid_size[0] // ratio), max(1, grid_size[1] // ratio)) for ratio in ratios)


def calc_stage_window_sizes(
    grid_size: Size, ref_window_sizes: Sequence[Size], ref_grid_size: Size, window_size: WindowSize | None = None,
    window_ratio: int | Sequence[int] | None = None,
) -> tuple[Size, ...]:
    """Windows for another patch grid: those given, or by ratio, or as large a part of it as `ref_window_sizes` were."""
    if window_size is not None:
        return resolve_stage_window_sizes(window_size, len(ref_window_sizes))
    if window_ratio is not None:
        return window_sizes_from_ratio(grid_size, window_ratio, len(ref_window_sizes))
    (rows, columns), (old_rows, old_columns) = grid_size, ref_grid_size
    return tuple((max(1, height * rows // old_rows), max(1, width * columns // old_columns))
                 for height, width in ref_window_sizes)


SIZES = [dict(embed_dim=dim, depths=(2, 2, depth, 2), num_heads=tuple(dim // 32 * 2**i for i in range(4)))
         for dim, depth in ((96, 6), (96, 18), (128, 18), (192, 18))]
_SWIN_T, _SWIN_S, _SWIN_B, _SWIN_L = SIZES

# Windows of 12 x 12 are for images of 384 pixels; S3's are what a search found.
register_model.variants(__name__, SwinTransformer, {
    "swin_tiny_patch4_window7_224": _SWIN_T,
    "swin_small_patch4_window7_224": _SWIN_S,
    "swin_base_patch4_window7_224": _SWIN_B,
    "swin_base_patch4_window12_384": (_SWIN_B, dict(window_size=12)),
    "swin_large_patch4_window7_224": _SWIN_L,
    "swin_large_patch4_window12_384": (_SWIN_L, dict(window_size=12)),
    "swin_s3_tiny_224": (_SWIN_T, dict(window_size=(7, 7, 14, 7))),
    "swin_s3_small_224": (_SWIN_S, dict(window_size=(14, 14, 14, 7))),
    "swin_s3_base_224": (_SWIN_T, dict(depths=(2, 2, 30, 2), window_size=(7, 7, 14, 7))),
})


# Microsoft's layout ends a stage with patch merging, ours begins the next with it; the classifier is `head`.
MICROSOFT = KeyMap.renaming(
    "microsoft", "layers.0.downsample.reduction.weight", (r"^head\.(?!fc\.)", "head.fc."),
    (r"^layers\.(\d+)\.downsample", lambda match: f"layers.{int(match[1]) + 1}.downsample"))


def _torchvision_stage(match: re.Match[str]) -> str:
    stage, is_stage = divmod(int(match[1]), 2)
    return f"layers.{stage}.{'blocks' if is_stage else 'downsample'}."


# torchvision's `features` alternate: patch embedding, then stages (odd) and merging (even).
TORCHVISION_NAMES: tuple[tuple[str, Any], ...] = (
    (r"^features\.0\.0\.", "patch_embed.proj."), (r"^features\.0\.2\.", "patch_embed.norm."),
    (r"^features\.(\d+)\.", _torchvision_stage), (r"\.mlp\.0\.", ".mlp.fc1."), (r"\.mlp\.3\.", ".mlp.fc2."),
    (r"^head\.", "head.fc."))

SwinTransformer.key_maps = (MICROSOFT, KeyMap.renaming(
    "torchvision", "features.1.0.attn.qkv.weight", *TORCHVISION_NAMES, without="relative_position_index$"))
