"""Swin Transformer V2: Swin with cosine attention, positions from a small network, and norms at the branches' ends.

Paper: Liu et al., "Swin Transformer V2: Scaling Up Capacity and Resolution", 2021, arXiv:2111.09883.

The bias of a relative position is computed from its log-spaced coordinates, so that weights go over to other windows
without a table to resample. Everything else is Swin's, see swin_transformer.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import get_norm_layer, to_2tuple
from ..layers.activations import ActLayer
from ..layers.helpers import move_to_end, placeable
from ..layers.norm import NormLayer
from ..layers.patch_embed import PatchEmbed
from ..layers.rel_pos import gen_relative_log_coords, gen_relative_position_index
from ..layers.weight_init import init_vit_module
from ..registry import register_model
from . import swin_transformer
from .base import KeyMap, StateDict, rename_keys
from .swin_transformer import SIZES, Size, SwinTransformerBlock, SwinTransformerStage, WindowPyramid, WindowSize

if TYPE_CHECKING:
    from ._variants.swin_transformer_v2 import *

__all__ = ["SwinTransformerV2"]

_MAX_SCALE = 100.0  # of the cosine of query and key
_MAX_BIAS = 16.0


class WindowAttention(swin_transformer.WindowAttention):
    """Self-attention inside windows by the cosine of query and key, with a computed bias for relative positions.

    Shapes: (B * windows, wh * ww, dim) -> same. Keys `logit_scale`, `cpb_mlp`, `qkv`, `q_bias`, `v_bias`, `proj`.

    Args:
        qkv_bias_separate: How timm adds the bias, after the product; what comes of it is the same.
        pretrained_window_size: Window that the coordinates are measured by; 0 for the window itself.
        Others: As Swin's own.
    """

    def __init__(
        self, dim: int, window_size: int | Size, num_heads: int, qkv_bias: bool = True, qkv_bias_separate: bool = False,
        attn_drop: float = 0.0, proj_drop: float = 0.0, pretrained_window_size: int | Size = 0,
    ) -> None:
        nn.Module.__init__(self)  # Swin's own has a table of biases
        self.num_heads, self.qkv_bias_separate = num_heads, qkv_bias_separate
        self.pretrained_window_size = to_2tuple(pretrained_window_size)
        self.cpb_mlp = nn.Sequential(nn.Linear(2, 512), nn.ReLU(inplace=True), nn.Linear(512, num_heads, bias=False))
        self.add_projections(dim, dim, False, attn_drop, proj_drop)
        self.add_scales((num_heads, 1, 1), window_size, dim if qkv_bias else None)

    def add_scales(self, shape: tuple[int, ...], window_size: int | Size, bias: int | None) -> None:
        """Make scales and positions, and biases of so many channels."""
        self.window_size = to_2tuple(window_size)
        self.logit_scale = nn.Parameter(torch.empty(shape))
        self.q_bias, self.v_bias = (nn.Parameter(torch.empty(bias)) if bias else None for _ in range(2))
        self._register_positions(torch.empty(0).device)  # which torch 2.5 says of a context, too
        if not self.logit_scale.is_meta:
            self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.logit_scale, math.log(10))
        for bias in (self.q_bias, self.v_bias):
            if bias is not None:
                nn.init.zeros_(bias)

    def init_non_persistent_buffers(self) -> None:
        self._register_positions(next(self.buffers()).device)

    def _register_positions(self, device: torch.device) -> None:
        (height, width), dtype = self.window_size, self.logit_scale.dtype
        if device.type == "meta":  # shapes alone: to compute there imports torch's compiler
            table = torch.empty(1, 2 * height - 1, 2 * width - 1, 2, dtype=dtype, device=device)
            index = torch.empty((height * width,) * 2, dtype=torch.long, device=device)
        else:
            table = gen_relative_log_coords(
                self.window_size, self.pretrained_window_size, device=device, dtype=dtype).unsqueeze(0)
            index = gen_relative_position_index(self.window_size, device=device)
        self.register_buffer("relative_coords_table", table, persistent=False)
        self.register_buffer("relative_position_index", index, persistent=False)

    def set_window_size(self, window_size: Size) -> None:
        """Change the window; the weights stay as they are."""
        if window_size != self.window_size:
            self.window_size = window_size
            self.init_non_persistent_buffers()

    def get_bias(self) -> Tensor:
        table = self.cpb_mlp(self.relative_coords_table).flatten(0, 2)
        return _MAX_BIAS * torch.sigmoid(table[self.relative_position_index].permute(2, 0, 1).unsqueeze(0).contiguous())

    def project(self, x: Tensor) -> Tensor:
        if self.q_bias is None:
            return self.qkv(x)
        bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))  # the key's would change nothing
        if torch.jit.is_scripting() or isinstance(self.qkv, nn.Linear):  # type: ignore[attr-defined]
            return F.linear(x, self.qkv.weight, bias)
        return self.qkv(x) + bias  # see KeylessBias

    def scale_query_key(self, q: Tensor, k: Tensor, windows: int) -> tuple[Tensor, Tensor, float]:
        scale = self.logit_scale.view(-1, 1, 1).clamp(max=math.log(_MAX_SCALE)).exp().repeat(windows, 1, 1)
        return F.normalize(q, dim=-1) * scale, F.normalize(k, dim=-1), 1.0


class SwinTransformerV2Block(SwinTransformerBlock):
    """Window attention, then an MLP, each with its norm at the end of the residual branch; else as Swin's block."""

    attn_layer = WindowAttention

    def __init__(
        self, dim: int, input_resolution: Size, num_heads: int, window_size: int | Size = 7, shift_size: int | Size = 0,
        always_partition: bool = False, dynamic_mask: bool = False, mlp_ratio: float = 4.0, qkv_bias: bool = True,
        proj_drop: float = 0.0, attn_drop: float = 0.0, drop_path: float = 0.0, act_layer: ActLayer = "gelu",
        norm_layer: NormLayer = nn.LayerNorm, pretrained_window_size: int | Size = 0, fixed_window: bool = False,
    ) -> None:
        super().__init__(
            dim, input_resolution, num_heads, None, window_size, shift_size, always_partition, dynamic_mask, mlp_ratio,
            qkv_bias, proj_drop, attn_drop, drop_path, act_layer, norm_layer, fixed_window,
            pretrained_window_size=pretrained_window_size)
        move_to_end(self, "norm1", "drop_path1", "mlp", "norm2", "drop_path2")

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self.norm1(self.attend(x)))
        return x + self.drop_path2(self.norm2(self.mlp(x)))


class PatchMerging(swin_transformer.PatchMerging):
    """Halve the resolution: 2 x 2 tokens are concatenated, projected and normalised. Shapes as Swin's own."""

    def __init__(self, dim: int, out_dim: int | None = None, norm_layer: NormLayer = nn.LayerNorm) -> None:
        super().__init__(dim, out_dim, norm_layer)
        move_to_end(self, "norm")
        self.norm = get_norm_layer(norm_layer)(out_dim or 2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.reduction(self.gather(x)))


class SwinTransformerV2Stage(SwinTransformerStage):
    """Patch merging where `downsample` says so, then blocks of which every second one shifts its windows.

    Arguments as of `SwinTransformerStage` and the blocks; `output_nchw` is without effect, as in timm.
    """

    block_layer = SwinTransformerV2Block
    merging_layer = PatchMerging

    @placeable
    def __init__(
        self, dim: int, out_dim: int, input_resolution: Size, depth: int, num_heads: int, window_size: int | Size,
        always_partition: bool = False, dynamic_mask: bool = False, downsample: bool = False, mlp_ratio: float = 4.0,
        qkv_bias: bool = True, proj_drop: float = 0.0, attn_drop: float = 0.0, drop_path: Sequence[float] | float = 0.0,
        act_layer: ActLayer = "gelu", norm_layer: NormLayer = nn.LayerNorm, pretrained_window_size: int | Size = 0,
        output_nchw: bool = False, fixed_window: bool = False,
    ) -> None:
        super().__init__(
            dim, out_dim, input_resolution, depth, downsample, num_heads, None, window_size, always_partition,
            dynamic_mask, mlp_ratio, qkv_bias, proj_drop, attn_drop, drop_path, norm_layer, act_layer=act_layer,
            pretrained_window_size=pretrained_window_size, fixed_window=fixed_window)
        self.output_nchw = output_nchw


class SwinTransformerV2(WindowPyramid):
    """Swin Transformer V2.

    Image (B, in_chans, H, W) -> logits (B, num_classes); features (B, H', W', num_features).

    Args:
        qkv_bias: Whether the query and value projections have a bias.
        act_layer: Activation of the MLPs, by name or class.
        pretrained_window_sizes: Windows that each stage was pretrained with, 0 where they are its own.
        Others: As `SwinTransformer`'s.

    Raises:
        ValueError: The window sizes are not one for each stage, or not positive.
    """

    undecayed = "cpb_mlp|logit_scale"

    def __init__(
        self, img_size: int | Size = 224, patch_size: int | Size = 4, in_chans: int = 3, num_classes: int = 1000,
        global_pool: str = "avg", embed_dim: int = 96, depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24), window_size: WindowSize = 7, always_partition: bool = False,
        strict_img_size: bool = True, dynamic_img_size: bool = False, mlp_ratio: float = 4.0, qkv_bias: bool = True,
        drop_rate: float = 0.0, proj_drop_rate: float = 0.0, attn_drop_rate: float = 0.0, drop_path_rate: float = 0.1,
        act_layer: ActLayer = "gelu", norm_layer: NormLayer = nn.LayerNorm,
        pretrained_window_sizes: Sequence[int | Size] = (0, 0, 0, 0), dynamic_img_pad: bool = False,
        fixed_windows: bool = False,
    ) -> None:
        super().__init__()
        norm_layer = get_norm_layer(norm_layer)

        def make_stage(i: int, dim: int, size: Size, window: Size, rates: list[float]) -> SwinTransformerStage:
            return SwinTransformerV2Stage(
                dim, embed_dim * 2**i, size, depths[i], num_heads[i], window, always_partition, self.dynamic_img_size,
                i > 0, mlp_ratio, qkv_bias, proj_drop_rate, attn_drop_rate, rates, act_layer, norm_layer,
                pretrained_window_sizes[i], fixed_window=fixed_windows)

        patch_embed = self.make_patch_embed(
            PatchEmbed, img_size, in_chans, strict_img_size, dynamic_img_size, dynamic_img_pad, fixed_windows,
            patch_size=patch_size, embed_dim=embed_dim, norm_layer=norm_layer)
        self.assemble(
            patch_embed, embed_dim, depths, swin_transformer.resolve_stage_window_sizes(window_size, len(depths)),
            num_classes, global_pool, drop_rate, drop_path_rate, make_stage, norm_layer)
        self.init_weights()

    def init_module(self, name: str, module: nn.Module) -> None:
        super().init_module(name, module)
        init_vit_module(name, module)
        if ".blocks." in name and name.endswith((".norm1", ".norm2")):  # each branch begins as nothing
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)


# --- the architectures: "window8_256" has windows of 8 x 8, for images of 256 pixels; "12to16" had others at first

_SWIN_T, _SWIN_S, _SWIN_B, _SWIN_L = SIZES
_FROM_192 = dict(pretrained_window_sizes=(12, 12, 12, 6))
_8, _12, _16, _24 = (dict(window_size=size) for size in (8, 12, 16, 24))

register_model.variants(__name__, SwinTransformerV2, {
    "swinv2_tiny_window8_256": (_SWIN_T, _8),
    "swinv2_tiny_window16_256": (_SWIN_T, _16),
    "swinv2_small_window8_256": (_SWIN_S, _8),
    "swinv2_small_window16_256": (_SWIN_S, _16),
    "swinv2_base_window8_256": (_SWIN_B, _8),
    "swinv2_base_window16_256": (_SWIN_B, _16),
    "swinv2_base_window12_192": (_SWIN_B, _12),
    "swinv2_base_window12to16_192to256": (_SWIN_B, _FROM_192, _16),
    "swinv2_base_window12to24_192to384": (_SWIN_B, _FROM_192, _24),
    "swinv2_large_window12_192": (_SWIN_L, _12),
    "swinv2_large_window12to16_192to256": (_SWIN_L, _FROM_192, _16),
    "swinv2_large_window12to24_192to384": (_SWIN_L, _FROM_192, _24),
})


def _from_torchvision(state_dict: StateDict, model: nn.Module) -> StateDict:
    """As Swin's; one bias for query, key and value becomes two, and the key's, which torchvision zeroes, goes."""
    converted = rename_keys(state_dict, *swin_transformer.TORCHVISION_NAMES,
                            without="relative_position_index$|relative_coords_table$")
    for key in [key for key in converted if key.endswith(".attn.qkv.bias")]:
        path = key.removesuffix("qkv.bias")
        converted[f"{path}q_bias"], _, converted[f"{path}v_bias"] = converted.pop(key).chunk(3)
    return converted


SwinTransformerV2.key_maps = (swin_transformer.MICROSOFT, KeyMap(
    "torchvision", lambda keys: "features.1.0.attn.logit_scale" in keys, _from_torchvision))
