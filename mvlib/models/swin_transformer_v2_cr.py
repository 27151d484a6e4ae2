"""Swin Transformer V2 as Christoph Reich built it from the paper, before the authors' code appeared.

Paper: Liu et al., "Swin Transformer V2: Scaling Up Capacity and Resolution", 2021, arXiv:2111.09883.

What differs from swin_transformer_v2.py: windows are a share of the image; the bias of two positions comes from plain
logarithms of their offset and is not bounded; patches are merged as in Swin; the main branch has norms, too, and the
last is the network's; the norms of the branches begin at 0. Between stages maps are (B, C, H, W).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .. import layers
from ..layers import Mlp, get_norm_layer, to_2tuple, to_ntuple
from ..layers.helpers import move_to_end, placeable
from ..layers.norm import NormLayer
from ..layers.rel_pos import gen_relative_log_coords, gen_relative_position_index
from ..layers.stage import Stage
from ..layers.weight_init import init_vit_module
from ..registry import register_model
from . import swin_transformer
from .base import KeyMap, StateDict, rename_keys
from .swin_transformer import SIZES, Size, SwinTransformerStage, WindowPyramid, WindowSize
from .swin_transformer_v2 import SwinTransformerV2Block, WindowAttention

if TYPE_CHECKING:
    from ._variants.swin_transformer_v2_cr import *

__all__ = ["SwinTransformerV2Cr"]


def bchw_to_bhwc(x: Tensor) -> Tensor:
    """A map with its channels last."""
    return x.permute(0, 2, 3, 1)


def bhwc_to_bchw(x: Tensor) -> Tensor:
    """A map with its channels first."""
    return x.permute(0, 3, 1, 2)


def init_weights_swin(module: nn.Module, name: str = "", needs_reset: bool = True) -> None:
    """Initialise one layer: Xavier, query, key and value by themselves, a classifier of zeros; others by themselves.

    `name` is the module's path; `needs_reset`: call `reset_parameters` of what is no linear layer.
    """
    layer: Any = module
    if isinstance(module, nn.Linear):
        init_vit_module(name, module, "moco")
        if "head" in name and "qkv" not in name:
            nn.init.zeros_(module.weight)
    elif hasattr(module, "init_weights"):
        layer.init_weights()
    elif needs_reset and hasattr(module, "reset_parameters"):
        layer.reset_parameters()


class WindowMultiHeadAttention(WindowAttention):
    """Self-attention inside windows by the cosine of query and key, with a bias that a network computes for each pair.

    Shapes: (B * windows, wh * ww, dim) -> same. Keys `logit_scale`, `qkv`, `proj`, `meta_mlp`; the network has
    `meta_hidden_dim` hidden channels. `sequential_attn` is without effect here and elsewhere, as in timm.

    Raises:
        ValueError: The heads do not divide the channels.
    """

    relative_coordinates_log: Tensor

    @placeable
    def __init__(
        self, dim: int, num_heads: int, window_size: int | Size, drop_attn: float = 0.0, drop_proj: float = 0.0,
        meta_hidden_dim: int = 384, sequential_attn: bool = False,
    ) -> None:
        nn.Module.__init__(self)
        if dim % num_heads:
            raise ValueError(f"{dim} channels cannot be divided among {num_heads} heads")
        self.in_features, self.num_heads, self.sequential_attn = dim, num_heads, sequential_attn
        self.add_projections(dim, dim, True, drop_attn, drop_proj)
        self.meta_mlp = Mlp(2, meta_hidden_dim, num_heads, act_layer=nn.ReLU, drop=(0.125, 0.0))
        self.add_scales((num_heads,), window_size, None)

    def _register_positions(self, device: torch.device) -> None:
        area, dtype = math.prod(self.window_size), self.logit_scale.dtype
        if device.type == "meta":
            coords = torch.empty(area * area, 2, dtype=dtype, device=device)
        else:
            table = gen_relative_log_coords(self.window_size, mode="cr", device=device, dtype=dtype).flatten(0, 1)
            coords = table[gen_relative_position_index(self.window_size, device=device).flatten()]
        self.register_buffer("relative_coordinates_log", coords, persistent=False)

    def get_bias(self) -> Tensor:
        area = math.prod(self.window_size)
        return self.meta_mlp(self.relative_coordinates_log).t().contiguous().view(1, self.num_heads, area, area)


def _make_attention(qkv_bias: bool, attn_drop: float, proj_drop: float, **kwargs: Any) -> WindowMultiHeadAttention:
    """The attention, of the arguments that Swin's blocks give."""
    return WindowMultiHeadAttention(drop_attn=attn_drop, drop_proj=proj_drop, **kwargs)


class SwinTransformerV2CrBlock(SwinTransformerV2Block):
    """Window attention and an MLP, each with its norm at the end of the branch. Shapes: (B, H, W, dim) -> same.

    Not as Swin's: `shift_size`, not 0 for a block that rolls the map, by half a window; `init_values`, the initial
    scale of the branches' norms, 1 if None; `extra_norm`, a norm of the main branch, at the end.
    """

    attn_layer: Any = staticmethod(_make_attention)

    @placeable
    def __init__(
        self, dim: int, num_heads: int, feat_size: Size, window_size: int | Size, shift_size: int | Size = (0, 0),
        always_partition: bool = False, dynamic_mask: bool = False, mlp_ratio: float = 4.0,
        init_values: float | None = 0.0, proj_drop: float = 0.0, drop_attn: float = 0.0, drop_path: float = 0.0,
        extra_norm: bool = False, sequential_attn: bool = False, norm_layer: NormLayer = nn.LayerNorm,
    ) -> None:
        window = to_2tuple(window_size)
        shift = (window[0] // 2, window[1] // 2) if any(to_2tuple(shift_size)) else (0, 0)
        super(SwinTransformerV2Block, self).__init__(
            dim, feat_size, num_heads, None, window, shift, always_partition, dynamic_mask, mlp_ratio,
            proj_drop=proj_drop, attn_drop=drop_attn, drop_path=drop_path, norm_layer=norm_layer,
            sequential_attn=sequential_attn)
        move_to_end(self, "norm1", "drop_path1", "mlp", "norm2", "drop_path2")
        self.norm3, self.init_values = get_norm_layer(norm_layer)(dim) if extra_norm else nn.Identity(), init_values
        self.scale_norms()

    def scale_norms(self) -> None:
        """Give the norms of the branches their initial scale."""
        norm: Any
        for norm in (self.norm1, self.norm2):
            if self.init_values is not None:
                nn.init.constant_(norm.weight, self.init_values)

    @property
    def feat_size(self) -> Size:
        return self.input_resolution

    def forward(self, x: Tensor) -> Tensor:
        return self.norm3(super().forward(x))


class PatchMerging(swin_transformer.PatchMerging):
    """Swin's, to twice the channels. Shapes: (B, H, W, dim) -> (B, ceil(H / 2), ceil(W / 2), 2 * dim)."""

    @placeable
    def __init__(self, dim: int, norm_layer: NormLayer = nn.LayerNorm) -> None:
        super().__init__(dim, 2 * dim, norm_layer)


class PatchEmbed(layers.PatchEmbed):
    """Patches, normalised. Shapes: (B, in_chans, H, W) -> (B, embed_dim, rows, columns)."""

    @placeable
    def __init__(
        self, img_size: int | Size = 224, patch_size: int | Size = 16, in_chans: int = 3, embed_dim: int = 768,
        norm_layer: NormLayer = None, strict_img_size: bool = True,
    ) -> None:
        super().__init__(img_size, patch_size, in_chans, embed_dim, get_norm_layer(norm_layer), output_fmt="NHWC",
                         strict_img_size=strict_img_size)
        self.may_be_dynamic = True

    def forward(self, x: Tensor) -> Tensor:
        return bhwc_to_bchw(super().forward(x))


class SwinTransformerV2CrStage(SwinTransformerStage):
    """Patch merging with `downscale`, then blocks of which every second one shifts its windows.

    Shapes: (B, embed_dim, H, W) -> same, or (B, 2 * embed_dim, ceil(H / 2), ceil(W / 2)) with `downscale`.

    `feat_size` are the input's rows and columns. Every `extra_norm_period`-th block ends with a norm of the main
    branch, none if 0, and the last one with `extra_norm_stage`.
    """

    @placeable
    def __init__(
        self, embed_dim: int, depth: int, downscale: bool, num_heads: int, feat_size: Size, window_size: Size,
        always_partition: bool = False, dynamic_mask: bool = False, mlp_ratio: float = 4.0,
        init_values: float | None = 0.0, proj_drop: float = 0.0, drop_attn: float = 0.0,
        drop_path: Sequence[float] | float = 0.0, norm_layer: NormLayer = nn.LayerNorm, extra_norm_period: int = 0,
        extra_norm_stage: bool = False, sequential_attn: bool = False,
    ) -> None:
        Stage.__init__(self)
        self.downscale, self.input_resolution = downscale, feat_size
        self.downsample = PatchMerging(embed_dim, norm_layer) if downscale else nn.Identity()
        dim, period = embed_dim * 2 if downscale else embed_dim, extra_norm_period or depth + 1
        ends = {*range(period, depth + 1, period), *((depth,) if extra_norm_stage else ())}
        self.blocks = nn.Sequential(*(
            SwinTransformerV2CrBlock(
                dim, num_heads, self.output_resolution, window_size, i % 2, always_partition, dynamic_mask, mlp_ratio,
                init_values, proj_drop, drop_attn, rate, i + 1 in ends, sequential_attn, norm_layer)
            for i, rate in enumerate(to_ntuple(depth)(drop_path))))

    @property
    def feat_size(self) -> Size:
        """Rows and columns of the output."""
        return self.output_resolution

    def forward(self, x: Tensor) -> Tensor:
        return bhwc_to_bchw(super().forward(bchw_to_bhwc(x)))


class SwinTransformerV2Cr(WindowPyramid):
    """Swin Transformer V2, by Reich.

    Shapes: (B, in_chans, H, W) -> (B, num_classes); features (B, num_features, H / 32, W / 32).

    Args:
        window_size: Side of a window or (rows, columns), for all stages, or one for each; goes before `window_ratio`.
        window_ratio: How many windows a side of the patch grid is, for all stages or each.
        init_values: Initial scale of the branches' norms; 1 if None.
        extra_norm_period, extra_norm_stage: See the stage; the last stage always ends with a norm.
        weight_init: Initial weights: "reset", "skip" (torch's), or "" (Xavier, a classifier of zeros).
        Others: As `SwinTransformer`'s.

    Raises:
        ValueError: Windows are not one for each stage, or not positive; the heads do not divide the channels.
    """

    stages_name = "stages"
    tap_layout = feature_layout = output_fmt = "NCHW"
    tap_norm = "none"

    def __init__(
        self, img_size: int | Size = (224, 224), patch_size: int = 4, window_size: WindowSize | None = None,
        window_ratio: int | Sequence[int] = 8, always_partition: bool = False, strict_img_size: bool = True,
        dynamic_img_size: bool = False, in_chans: int = 3, num_classes: int = 1000, embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2), num_heads: Sequence[int] = (3, 6, 12, 24), mlp_ratio: float = 4.0,
        init_values: float | None = 0.0, drop_rate: float = 0.0, proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0, drop_path_rate: float = 0.0, norm_layer: NormLayer = nn.LayerNorm,
        extra_norm_period: int = 0, extra_norm_stage: bool = False, sequential_attn: bool = False,
        global_pool: str = "avg", weight_init: str = "reset",
    ) -> None:
        super().__init__()
        count, self.in_chans, self.weight_init_mode = len(depths), in_chans, weight_init
        self.dynamic_img_size = dynamic_img_size or not strict_img_size
        patch_embed = PatchEmbed(
            img_size, patch_size, in_chans, embed_dim, norm_layer, strict_img_size=not self.dynamic_img_size)
        grid: Any = patch_embed.grid_size
        windows = swin_transformer.window_sizes_from_ratio(grid, window_ratio, count) if window_size is None else \
            swin_transformer.resolve_stage_window_sizes(window_size, count)

        def make_stage(i: int, dim: int, size: Size, window: Size, rates: list[float]) -> SwinTransformerStage:
            return SwinTransformerV2CrStage(
                dim, depths[i], i > 0, num_heads[i], size, window, always_partition, self.dynamic_img_size, mlp_ratio,
                init_values, proj_drop_rate, attn_drop_rate, rates, norm_layer, extra_norm_period,
                extra_norm_stage or i == count - 1, sequential_attn)

        self.assemble(patch_embed, embed_dim, depths, windows, num_classes, global_pool, drop_rate, drop_path_rate,
                      make_stage)
        self.init_weights()

    def set_input_size(  # type: ignore[override]  # timm's order
        self, img_size: int | Size | None = None, window_size: WindowSize | None = None,
        window_ratio: int | Sequence[int] | None = None, always_partition: bool | None = None,
        patch_size: int | Size | None = None,
    ) -> None:
        """As Swin's."""
        super().set_input_size(img_size, patch_size, window_size, window_ratio, always_partition)

    def init_module(self, name: str, module: nn.Module) -> None:
        super().init_module(name, module)
        if self.weight_init_mode not in ("reset", "skip") and isinstance(module, nn.Linear):
            init_weights_swin(module, name)
        if name.endswith(".norm2"):  # both are initialised now
            block: Any = self.get_submodule(name.removesuffix(".norm2"))
            block.scale_norms()


_TINY, _SMALL, _BASE, _LARGE = SIZES
_HUGE = dict(embed_dim=352, depths=(2, 2, 18, 2), num_heads=(8, 16, 32, 64), extra_norm_period=6)
_GIANT = dict(embed_dim=512, depths=(2, 2, 42, 2), num_heads=(16, 32, 64, 128), extra_norm_period=6)
_NS = dict(extra_norm_stage=True)

register_model.variants(__name__, SwinTransformerV2Cr, {  # "ns": a norm at each stage's end
    **{f"swinv2_cr_{name}_{size}": row for name, row in dict(
        tiny=_TINY, small=_SMALL, base=_BASE, large=_LARGE, giant=_GIANT).items() for size in (224, 384)},
    "swinv2_cr_huge_224": _HUGE,
    "swinv2_cr_huge_384": (_HUGE, dict(num_heads=(11, 22, 44, 88))),
    "swinv2_cr_tiny_ns_224": (_TINY, _NS),
    "swinv2_cr_small_ns_224": (_SMALL, _NS),
    "swinv2_cr_small_ns_256": (_SMALL, _NS),
    "swinv2_cr_base_ns_224": (_BASE, _NS),
})


def _from_first_release(state_dict: StateDict, model: nn.Module) -> StateDict:
    """At first the classifier was the head itself, and a scale was kept as its inverse."""
    scaled = {key: torch.log(1 / value) if key.endswith(".tau") else value for key, value in state_dict.items()}
    return rename_keys(scaled, (r"\.tau$", ".logit_scale"), (r"^head\.(?!fc\.)", "head.fc."))


SwinTransformerV2Cr.key_maps = (KeyMap(
    "first_release", lambda keys: "head.weight" in keys or any(key.endswith(".attn.tau") for key in keys),
    _from_first_release),)
