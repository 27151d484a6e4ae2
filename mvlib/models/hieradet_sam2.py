"""HieraDet: Hiera as the image encoder of SAM 2, for images of any size: windows, and a few blocks of the whole map.

Papers:
    Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024, arXiv:2408.00714.
    Ryali et al., "Hiera: A Hierarchical Vision Transformer without the Bells-and-Whistles", 2023, arXiv:2306.00989.

Maps are channels-last. As in timm, SAM 2's neck is not here: the maps that it takes are the features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.activations import ActLayer
from ..layers.attention import attend
from ..layers.config import use_fused_attn
from ..layers.drop import drop_path_rates
from ..layers.helpers import placeable, to_2tuple
from ..layers.mlp import Mlp
from ..layers.norm import NormLayer, get_norm_layer
from ..layers.patch_embed import PatchEmbed
from ..layers.residual import ResidualBlock
from ..layers.window import pad_to_multiple, window_partition, window_reverse
from ..registry import register_model
from .base import Indices, KeyMap, StateDict, Step, rename_keys
from .hiera import BlockPyramid

if TYPE_CHECKING:
    from ._variants.hieradet_sam2 import *

__all__ = ["HieraDet"]

torch.fx.wrap("pad_to_multiple")  # one node in a traced graph: what it does depends on the map's size

Size = tuple[int, int]


def window_unpartition(windows: Tensor, window_size: Size, hw: Size) -> Tensor:
    """Windows (B * windows, wh, ww, C) as the map (B, H, W, C) of `hw` that they are of."""
    return window_reverse(windows, window_size, hw[0], hw[1])


@torch.fx.wrap  # one node in a traced graph: it depends on the map's size
def _repeats(rows: int, columns: int, window: Size) -> Size:
    """How many windows go into a map.

    Raises:
        ValueError: It is not a whole number.
    """
    if rows % window[0] or columns % window[1]:
        raise ValueError(f"the input gives {rows} x {columns} patches, not multiples of {window[0]} x {window[1]}; "
                         f"resize the images")
    return rows // window[0], columns // window[1]


class MultiScaleAttention(nn.Module):
    """Self-attention of a map, whose queries a pool may make fewer. Shapes: (B, H, W, dim) -> (B, H', W', dim_out).

    Raises:
        ValueError: The heads do not divide the channels.
    """

    @placeable
    def __init__(self, dim: int, dim_out: int, num_heads: int, q_pool: nn.Module | None = None) -> None:
        super().__init__()
        if dim_out % num_heads:
            raise ValueError(f"{dim_out} channels cannot be divided among {num_heads} heads")
        self.num_heads, self.fused_attn, self.q_pool = num_heads, use_fused_attn(), q_pool
        self.qkv = nn.Linear(dim, 3 * dim_out)
        self.proj = nn.Linear(dim_out, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        if self.q_pool is not None:
            q = self.q_pool(q.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        grid = q.shape[1:3]
        q, k, v = (t.flatten(1, 2).unflatten(2, (self.num_heads, -1)).transpose(1, 2) for t in (q, k, v))
        x = attend(q, k, v, self.fused_attn)
        return self.proj(x.transpose(1, 2).flatten(2).unflatten(1, grid))


class MultiScaleBlock(ResidualBlock):
    """Attention within windows or in the whole map, then an MLP. Shapes: (B, H, W, dim) -> (B, H', W', dim_out).

    Args:
        q_stride: Strides of a pool of queries and shortcut, where the number of channels changes; none unless given.
        window_size: Side of the windows; 0 for the whole map.
        init_values: Initial layer scale; none unless given.

    Raises:
        ValueError: The heads do not divide the channels.
    """

    @placeable
    def __init__(
        self, dim: int, dim_out: int, num_heads: int, mlp_ratio: float = 4.0, q_stride: Size | None = None,
        norm_layer: NormLayer = "LayerNorm", act_layer: ActLayer = "GELU", window_size: int = 0,
        init_values: float | None = None, drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.dim, self.dim_out, self.q_stride, self.window_size = dim, dim_out, q_stride, to_2tuple(window_size)
        self.proj = nn.Linear(dim, dim_out) if dim != dim_out else nn.Identity()
        self.pool, q_pool = (nn.MaxPool2d(q_stride, q_stride) if q_stride else None for _ in range(2))
        attn = MultiScaleAttention(dim, dim_out, num_heads, q_pool)
        mlp = Mlp(dim_out, int(dim_out * mlp_ratio), act_layer=act_layer)
        self.add_branches(dim_out, get_norm_layer(norm_layer), attn, mlp, init_values, drop_path, dim)

    def skip(self, x: Tensor, normed: Tensor) -> Tensor:
        if self.dim == self.dim_out:
            return x
        x = self.proj(normed)
        return x if self.pool is None else self.pool(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    def attend(self, x: Tensor) -> Tensor:
        if not any(self.window_size):
            return self.attn(x)
        (height, width), window, (down, across) = x.shape[1:3], self.window_size, self.q_stride or (1, 1)
        x = pad_to_multiple(x, window)
        rows, columns = x.shape[1] // down, x.shape[2] // across
        x = self.attn(window_partition(x, window))
        x = window_unpartition(x, (window[0] // down, window[1] // across), (rows, columns))
        return x[:, :height // down, :width // across]


class HieraPatchEmbed(nn.Module):
    """Patches that may overlap. Shapes: (B, in_chans, H, W) -> (B, rows, columns, embed_dim)."""

    @placeable
    def __init__(
        self, kernel_size: int | Size = (7, 7), stride: int | Size = (4, 4), padding: str | int | Size = (3, 3),
        in_chans: int = 3, embed_dim: int = 768,
    ) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).permute(0, 2, 3, 1)


class HieraDet(BlockPyramid):
    """HieraDet.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); features (B, H / 32, W / 32, num_features). Images have any size
    whose patches the first stage's windows divide.

    Args:
        global_pool: "avg", "max", "avgmax" or "".
        patch_size: Sides of patches that do not overlap, instead of those of kernel, stride and padding.
        stages, window_spec: Blocks, and side of the windows, of each stage.
        global_pos_size: Rows and columns of the position embedding, which is resampled.
        global_att_blocks: Indices of blocks that attend in the whole map.
        init_values: Initial layer scale; none unless given.
        Others: As `Hiera`'s.

    Raises:
        ValueError: Windows are not one for each stage, more pools than stages behind the first; from `forward`, windows
            do not divide the patches.
    """

    tap_layout = output_fmt = "NHWC"  # the latter is timm's name of it
    stem: ClassVar[tuple[Step, ...]] = (Step("patch_embed"), Step("_pos_embed"))

    def __init__(
        self, in_chans: int = 3, num_classes: int = 1000, global_pool: str = "avg", embed_dim: int = 96,
        num_heads: int = 1, patch_kernel: Size = (7, 7), patch_stride: Size = (4, 4), patch_padding: Size = (3, 3),
        patch_size: Size | None = None, q_pool: int = 3, q_stride: Size = (2, 2), stages: Sequence[int] = (2, 3, 16, 3),
        dim_mul: float = 2.0, head_mul: float = 2.0, global_pos_size: Size = (7, 7),
        window_spec: Sequence[int] = (8, 4, 14, 7), global_att_blocks: Sequence[int] | None = (12, 16, 20),
        init_values: float | None = None, weight_init: str = "", fix_init: bool = True, head_init_scale: float = 0.001,
        drop_rate: float = 0.0, drop_path_rate: float = 0.0, norm_layer: NormLayer = "LayerNorm",
        act_layer: ActLayer = "GELU",
    ) -> None:
        super().__init__()
        if len(window_spec) != len(stages):
            raise ValueError(f"window_spec has {len(window_spec)} values for the {len(stages)} stages")
        if not 0 <= q_pool < len(stages):
            raise ValueError(f"q_pool={q_pool} pools need as many stages behind the first: there are {len(stages)}")
        self.in_chans, self.weight_init_mode, self.fix_init = in_chans, weight_init, fix_init
        self.head_init_scale, self.window_size = head_init_scale, to_2tuple(window_spec[0])
        self.stage_ends = [sum(stages[:i]) - 1 for i in range(1, len(stages) + 1)]
        self.pos_embed = nn.Parameter(torch.empty(1, embed_dim, *global_pos_size))
        self.pos_embed_window = nn.Parameter(torch.empty(1, embed_dim, *self.window_size))
        self.patch_embed = HieraPatchEmbed(patch_kernel, patch_stride, patch_padding, in_chans, embed_dim) \
            if patch_size is None else PatchEmbed(
                None, patch_size, in_chans, embed_dim, output_fmt="NHWC", dynamic_img_pad=True)
        self.blocks = nn.Sequential()
        for i, rate in enumerate(drop_path_rates(drop_path_rate, sum(stages))):
            is_first, stage, dim = i - 1 in self.stage_ends, sum(i > end for end in self.stage_ends), embed_dim
            if is_first:  # of its stage: it widens, and may pool, in windows of the stage before
                embed_dim, num_heads = int(dim * dim_mul), int(num_heads * head_mul)
            self.blocks.append(MultiScaleBlock(
                dim, embed_dim, num_heads, q_stride=q_stride if is_first and stage <= q_pool else None,
                norm_layer=norm_layer, act_layer=act_layer, init_values=init_values, drop_path=rate,
                window_size=0 if i in (global_att_blocks or ()) else window_spec[stage - is_first]))
        self.add_end(num_classes, global_pool, drop_rate, norm_layer, "NHWC")
        self.init_weights()

    def _pos_embed(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[1:3]
        resized = F.interpolate(self.pos_embed, size=(rows, columns), mode="bicubic")
        repeated = self.pos_embed_window.tile(_repeats(rows, columns, self.window_size))
        return x + (resized + repeated).permute(0, 2, 3, 1)

    def forward_intermediates(  # type: ignore[override]
        self, x: Tensor, indices: Indices = None, norm: bool = False, stop_early: bool = True, output_fmt: str = "NCHW",
        intermediates_only: bool = False, coarse: bool = True, *, output_dict: bool = False,
    ) -> Any:
        """As `Hiera`'s: of the ends of stages, or unless `coarse` of blocks."""
        return self.tap(x, coarse, indices, norm, stop_early, output_fmt, intermediates_only, False, output_dict)

    @property
    def optional_parts(self) -> tuple[str, ...]:
        return ("head",)  # SAM 2 classifies nothing


_SMALL = dict(stages=(1, 2, 11, 2), global_att_blocks=(7, 10, 13))
_WINDOWS = dict(window_spec=(8, 4, 16, 8))

register_model.variants(__name__, HieraDet, {
    "sam2_hiera_tiny": dict(stages=(1, 2, 7, 2), global_att_blocks=(5, 7, 9)),
    "sam2_hiera_small": _SMALL,
    "sam2_hiera_base_plus": dict(embed_dim=112, num_heads=2, global_pos_size=(14, 14)),
    "sam2_hiera_large": dict(
        _WINDOWS, embed_dim=144, num_heads=2, stages=(2, 6, 36, 4), global_att_blocks=(23, 33, 43)),
    "hieradet_small": (_SMALL, _WINDOWS, dict(init_values=1e-5)),
})


META_NAMES = ((r"\.mlp\.layers\.0\.", ".mlp.fc1."), (r"\.mlp\.layers\.1\.", ".mlp.fc2."))


def _from_meta(state_dict: StateDict, model: nn.Module) -> StateDict:
    """Of a whole SAM 2 its image encoder's trunk, whose MLPs are lists of layers."""
    trunk = "image_encoder.trunk."
    prefix = trunk if any(key.startswith(trunk) for key in state_dict) else ""
    return rename_keys(state_dict, *META_NAMES, prefix=prefix)


HieraDet.key_maps = (
    KeyMap("meta", lambda keys: any(key.endswith("blocks.0.mlp.layers.0.weight") for key in keys), _from_meta),
)
