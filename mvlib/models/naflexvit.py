"""NaFlex vision transformers: images of any size and aspect ratio, also many of them in one batch.

NaViT (https://arxiv.org/abs/2307.06304), FlexiViT (https://arxiv.org/abs/2212.08013), SigLIP 2's NaFlex
(https://arxiv.org/abs/2502.14786), RADIO (https://arxiv.org/abs/2312.06709).

A model takes images (B, C, H, W), or what `mvlib.data` makes of images of different sizes: patches (B, N, P * P * C),
their coordinates, and which of them are patches at all, the rest being padding. Positions are resampled to each image's
grid: learned, as a table for rows and one for columns, or rotary. Patches stand row by row, padding behind them.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..layers.activations import get_act_layer
from ..layers.attention_pool import AttentionPoolLatent
from ..layers.drop import PatchDropoutWithIndices, drop_path_rates
from ..layers.helpers import placeable, to_2tuple
from ..layers.mlp import Mlp, open_gate
from ..layers.norm import LayerNorm, NormLayer, get_norm_layer
from ..layers.patch_embed import PatchEmbedInterpolator, PatchGrid, fit_patches, resample_patch_embed
from ..layers.pool import global_pool_nlc
from ..layers.pos_embed import resample_grid
from ..layers.rope import apply_keep_indices_nlc
from ..registry import register_model
from .base import Indices, KeyMap, StateDict, Step, rename_keys
from .eva_blocks import EvaBlock, make_rope
from .tokens import SequenceModel, sized_by_name
from .vision_transformer import Block, VisionTransformer, has, jax_keys, radio_keys

if TYPE_CHECKING:
    from ._variants.naflexvit import *

__all__ = ["NaFlexVit", "NaFlexVitCfg"]

torch.fx.wrap("fit_patches")  # one node in a traced graph: what it does depends on the image's size

Grid = tuple[int, int]
_NAMES = ("patch_coord", "patch_valid", "attn_mask")


@dataclass
class NaFlexVitCfg:
    """What a model is made of; what is not listed is as of `VisionTransformer`.

    Attributes:
        scale_mlp_norm, scale_attn_inner_norm: Another norm inside feed-forward blocks and attention.
        num_kv_heads: Heads of keys and values, of all blocks or of each, where attention is rotary.
        use_key_only_attn_mask: Hide padding from all tokens, but do not hide all from padding: a smaller mask.
        pos_embed: "learned" (a grid), "factorized" (rows and columns), or "none".
        pos_embed_grid_size: Rows and columns of what is learned; what `img_size` comes to where None.
        pos_embed_interp_mode: How a grid is resampled, as `torch.nn.functional.interpolate` has it.
        pos_embed_ar_preserving: Resample to a square of the longer side, and take its corner.
        pos_embed_antialias, pos_embed_align_corners: As `interpolate` takes them, for grids.
        pos_embed_use_grid_sample: Read batches of patches from the table by `grid_sample`, without antialiasing.
        rope_type: Rotary embedding: "axial", "mixed", "dinov3", "mrope", or "" for none.
        rope_temperature, rope_ref_feat_shape, rope_grid_offset, rope_grid_indexing, rope_rotate_half: Of that.
        rope_shift_coords, rope_jitter_coords, rope_rescale_coords: Its random coordinates in training.
        rope_mrope_section: Turns of time, rows and columns, for "mrope".
        patchify_channels_last: Whether flat patches run over (height, width, channels) or (channels, height, width).
        fc_norm: Move the final norm behind the pooling; by default where `global_pool` is "avg".
        global_pool: "map" (attention from a learned query), "avg", "max", "avgmax" (over patches), "token", or "".
        attn_pool_num_heads, attn_pool_mlp_ratio: Of "map", if not the blocks'.
        embed_proj_type: Embed patches by a "linear" layer, or images by a "conv"olution, which takes no patches.
        input_norm_layer: Without effect, as in timm.
        embed_norm_layer: Norm of the embedded patches.
        attn_type: "standard", "eva" or "rope" attention; rotary where there is a `rope_type`.
        attn_gated: A gate for each channel of attention's output.
        swiglu_mlp, swiglu_align_to, qkv_fused, attn_only_layer_scale: See `EvaBlock`.
        enable_patch_interpolator: Take patches of other sizes, too, (B, N, height, width, C).
    """

    patch_size: int | tuple[int, int] = 16
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    scale_mlp_norm: bool = False
    num_kv_heads: int | tuple[int, ...] | None = None
    qkv_bias: bool = True
    qk_norm: bool = False
    proj_bias: bool = True
    attn_drop_rate: float = 0.0
    scale_attn_inner_norm: bool = False
    use_key_only_attn_mask: bool = False
    init_values: float | None = None
    drop_rate: float = 0.0
    pos_drop_rate: float = 0.0
    patch_drop_rate: float = 0.0
    proj_drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    class_token: bool = False
    reg_tokens: int = 0
    pos_embed: str = "learned"
    pos_embed_grid_size: tuple[int, int] | None = (16, 16)
    pos_embed_interp_mode: str = "bicubic"
    pos_embed_ar_preserving: bool = False
    pos_embed_antialias: bool = True
    pos_embed_align_corners: bool = False
    pos_embed_use_grid_sample: bool = False
    rope_type: str = ""
    rope_temperature: float = 10000.0
    rope_ref_feat_shape: tuple[int, int] | None = None
    rope_grid_offset: float = 0.0
    rope_grid_indexing: str = "ij"
    rope_rotate_half: bool = False
    rope_shift_coords: float | None = None
    rope_jitter_coords: float | None = None
    rope_rescale_coords: float | None = None
    rope_mrope_section: tuple[int, int, int] | None = None
    dynamic_img_pad: bool = False
    patchify_channels_last: bool = True
    pre_norm: bool = False
    final_norm: bool = True
    fc_norm: bool | None = None
    global_pool: str = "map"
    pool_include_prefix: bool = False
    attn_pool_num_heads: int | None = None
    attn_pool_mlp_ratio: float | None = None
    weight_init: str = ""
    fix_init: bool = True
    embed_proj_type: str = "linear"
    input_norm_layer: str | type[nn.Module] | None = None
    embed_norm_layer: str | type[nn.Module] | None = None
    norm_layer: str | type[nn.Module] | None = None
    act_layer: str | type[nn.Module] | None = None
    block_fn: Callable[..., nn.Module] | None = None
    mlp_layer: Callable[..., nn.Module] | None = None
    attn_layer: str | type[nn.Module] | None = None
    attn_type: str = "standard"
    attn_gated: bool = False
    swiglu_mlp: bool = False
    swiglu_align_to: int = 0
    qkv_fused: bool = True
    attn_only_layer_scale: bool = False
    enable_patch_interpolator: bool = False


# --- patches, grids, padding


def _uncompiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """What depends on the grids of a batch is not compiled, anew for each; torch's own decorator imports a compiler."""

    @wraps(function)
    def run(*args: Any) -> Tensor:
        return (torch.compiler.disable(function) if torch.compiler.is_compiling() else function)(*args)

    return run


def batch_patchify(x: Tensor, patch_size: Grid, pad: bool = True, channels_last: bool = True) -> tuple[Tensor, Grid]:
    """Images (B, C, H, W) cut into flat patches, row by row: (B, rows * columns, P * P * C), and (rows, columns).

    `pad`: With zeros below and to the right, where patches do not divide the image; otherwise that is a `ValueError`.
    `channels_last`: Whether a patch runs over (height, width, channels) or (channels, height, width).
    """
    x = fit_patches(x, None, patch_size, pad, False, False)
    height, width = patch_size
    rows, columns = x.shape[2] // height, x.shape[3] // width
    x = x.reshape(x.shape[0], x.shape[1], rows, height, columns, width)
    x = x.permute(0, 2, 4, 3, 5, 1) if channels_last else x.permute(0, 2, 4, 1, 3, 5)
    return x.flatten(3).flatten(1, 2), (rows, columns)


def take_patches(x: Any, names: Iterable[str], values: Iterable[Tensor | None]) -> tuple[Any, dict[str, Tensor]]:
    """The images or the patches, and what is given with them, by these names; a dict's own come first.

    A graph that torch.fx traces is of images: for all that a forward takes it has a symbol.

    Raises:
        ValueError: There are patches without coordinates.
    """
    given = {name: value for name, value in zip(names, values)
             if value is not None and not isinstance(value, torch.fx.Proxy)}
    if isinstance(x, dict):
        given.update((name, x[name]) for name in names if x.get(name) is not None)
        x = x["patches"]
    if "patch_coord" not in given and isinstance(x, Tensor) and x.ndim != 4:
        raise ValueError("patches need patch_coord, the row and column of each")
    return x, given


def calculate_naflex_grid_sizes(_coord: Tensor) -> list[Grid]:
    """Rows and columns of each image, from its patches' coordinates (B, N, 2)."""
    rows, columns = (_coord.amax(dim=1) + 1).T.tolist()
    return list(zip(map(int, rows), map(int, columns)))


def embed_grids(patch_coord: Tensor, embed: Callable[[Grid], Tensor]) -> Tensor:
    """What `embed` gives for each image's grid, (..., rows * columns, C), with zeros for padding: (B, ..., N, C)."""
    grids, count = calculate_naflex_grid_sizes(patch_coord), patch_coord.shape[1]
    index = {grid: i for i, grid in enumerate(dict.fromkeys(grids))}
    tables = [embed(grid) for grid in index]
    batch = torch.stack([F.pad(table, (0, 0, 0, count - table.shape[-2])) for table in tables])
    return batch[torch.tensor([index[grid] for grid in grids], device=batch.device)]


def create_attention_mask(
    patch_valid: Tensor | None, num_prefix_tokens: int = 0, symmetric: bool = True, q_len: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor | None:
    """What is added to attention's logits so that padding is not seen; None where there is none.

    Args:
        patch_valid: (B, N), True for patches.
        num_prefix_tokens: Tokens before them, always seen.
        symmetric: Padding sees nothing either: (B, 1, tokens, tokens). Otherwise the mask is of keys alone,
            (B, 1, q_len, tokens), for `q_len` queries; as many as tokens unless given.
    """
    if patch_valid is None:
        return None
    valid = F.pad(patch_valid.bool(), (num_prefix_tokens, 0), value=True)
    seen = valid[:, None, None, :]
    seen = seen & valid[:, None, :, None] if symmetric else seen.expand(-1, 1, q_len or valid.shape[1], -1)
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)


def global_pool_naflex(
    x: Tensor, patch_valid: Tensor | None = None, pool_type: str = "token", num_prefix_tokens: int = 1,
    reduce_include_prefix: bool = False,
) -> Tensor:
    """Tokens (B, N, C) -> (B, C), over those that are no padding; as they are where `pool_type` is ""."""
    if patch_valid is None or pool_type not in ("avg", "avgmax", "max"):
        return global_pool_nlc(x, pool_type, num_prefix_tokens, reduce_include_prefix)
    if reduce_include_prefix:
        patch_valid = F.pad(patch_valid.bool(), (num_prefix_tokens, 0), value=True)
    else:
        x = x[:, num_prefix_tokens:]
    valid = patch_valid.bool().unsqueeze(-1)
    mean = (x * valid).sum(dim=1) / valid.sum(dim=1).clamp(min=1) if pool_type != "max" else x[:, 0]
    if pool_type == "avg":
        return mean
    greatest = x.masked_fill(~valid, torch.finfo(x.dtype).min).amax(dim=1)
    return greatest if pool_type == "max" else 0.5 * (mean + greatest)


# --- positions


@torch.fx.wrap  # one node in a traced graph: what it does depends on the image's size
def _from_grid(
    table: Tensor, rows: int, columns: int, interpolation: str, ar_preserving: bool, antialias: bool,
    align_corners: bool,
) -> Tensor:
    """A learned grid (1, H, W, C) for another: (1, rows * columns, C)."""
    if table.shape[1] != rows or table.shape[2] != columns:
        size = [max(rows, columns), max(rows, columns)] if ar_preserving else [rows, columns]
        table = resample_grid(table, size, interpolation, antialias, align_corners)[:, :rows, :columns]
    return table.flatten(1, 2)


@torch.fx.wrap
def _from_sides(y: Tensor, x: Tensor, rows: int, columns: int, ar_preserving: bool) -> Tensor:
    """Learned rows (1, H, C) and columns (1, W, C) for another grid: (1, rows * columns, C)."""
    longer = max(rows, columns)
    y = _resample_side(y, longer if ar_preserving else rows)[:, :rows]
    x = _resample_side(x, longer if ar_preserving else columns)[:, :columns]
    return (y.unsqueeze(2) + x.unsqueeze(1)).flatten(1, 2)


def _resample_side(table: Tensor, length: int) -> Tensor:
    if table.shape[1] == length:
        return table
    resampled = F.interpolate(table.transpose(1, 2).float(), size=[length], mode="linear", align_corners=False)
    return resampled.transpose(1, 2).to(table.dtype)


def _read_at(table: Tensor, places: Tensor, mode: str, align_corners: bool) -> Tensor:
    """Values of a grid (1, H, W, C) at places (B, N, 2) of row and column from -1 to 1: (B, N, C)."""
    grid = table.permute(0, 3, 1, 2).expand(places.shape[0], -1, -1, -1).float()
    values = F.grid_sample(grid, places.flip(-1).unsqueeze(2), mode, "border", align_corners)
    return values.squeeze(-1).transpose(1, 2)


class NaFlexEmbeds(PatchGrid):
    """Images or patches to tokens with positions; keys `cls_token`, `reg_token`, `pos_embed` (or `pos_embed_y`,
    `pos_embed_x`), `norm_input`, `proj`, `norm`, as far as there are.

    Shapes: images (B, in_chans, H, W), or patches (B, N, P * P * in_chans) with coordinates -> (B, prefix + N,
    embed_dim), and (rows, columns) for images, None for patches.

    Args:
        default_img_size: What the position embedding is for where there is no `pos_embed_grid_size`.
        input_norm_layer: Norm of flat patches, or True for `norm_layer`; `proj_norm_layer`: of embedded ones.
        others: As of `NaFlexVitCfg`, some by shorter names.

    Raises:
        ValueError: Positions are learned for no grid, or a convolution shall have a norm of flat patches.
    """

    pos_embed: Tensor | None
    pos_embed_y: Tensor | None
    pos_embed_x: Tensor | None

    @placeable
    def __init__(
        self, patch_size: int | tuple[int, int] = 16, in_chans: int = 3, embed_dim: int = 768,
        proj_type: str | None = None, proj_bias: bool = True, class_token: bool = True, reg_tokens: int = 0,
        dynamic_img_pad: bool = False, default_img_size: int | tuple[int, int] | None = None,
        pos_embed: str = "learned", pos_embed_grid_size: tuple[int, int] | None = (14, 14),
        pos_embed_interp_mode: str = "bicubic", pos_embed_ar_preserving: bool = False, pos_embed_antialias: bool = True,
        pos_embed_align_corners: bool = False, pos_embed_use_grid_sample: bool = False,
        input_norm_layer: bool | NormLayer = None, proj_norm_layer: bool | NormLayer = None,
        norm_layer: NormLayer = None, pos_drop_rate: float = 0.0, enable_patch_interpolator: bool = False,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        self.patch_size = to_2tuple(patch_size)
        self.in_chans, self.embed_dim, self.channels_last = in_chans, embed_dim, channels_last
        self.has_class_token, self.num_reg_tokens = class_token, reg_tokens
        self.num_prefix_tokens = int(class_token) + reg_tokens
        self.dynamic_img_pad = dynamic_img_pad
        self.pos_embed_type = pos_embed if pos_embed in ("learned", "factorized") else "none"
        self.pos_embed_interp_mode, self.pos_embed_antialias = pos_embed_interp_mode, pos_embed_antialias
        self.pos_embed_ar_preserving, self.pos_embed_align_corners = pos_embed_ar_preserving, pos_embed_align_corners
        self.pos_embed_use_grid_sample = pos_embed_use_grid_sample
        self.is_linear = proj_type == "linear"
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim)) if class_token else None
        self.reg_token = nn.Parameter(torch.empty(1, reg_tokens, embed_dim)) if reg_tokens else None
        self._add_positions(pos_embed_grid_size, default_img_size)
        first, second = (norm_layer if norm is True else norm or None for norm in (input_norm_layer, proj_norm_layer))
        if True in (input_norm_layer, proj_norm_layer) and norm_layer is None:
            raise ValueError("input_norm_layer=True and proj_norm_layer=True stand for norm_layer, which is needed")
        if first and not self.is_linear:
            raise ValueError("a norm of flat patches (input_norm_layer) needs proj_type='linear'")
        numbers = math.prod(self.patch_size) * in_chans
        self.norm_input = cast(Any, first)(numbers) if first else None
        self.proj: Any = nn.Linear(numbers, embed_dim, bias=proj_bias) if self.is_linear else nn.Conv2d(
            in_chans, embed_dim, self.patch_size, self.patch_size, bias=proj_bias)
        self.enable_patch_interpolator = enable_patch_interpolator
        self.patch_interpolator = PatchEmbedInterpolator(
            self.patch_size, in_chans, embed_dim, pos_embed_interp_mode,
            channels_last=channels_last) if enable_patch_interpolator else None
        self.supports_patch_interpolation = enable_patch_interpolator and self.is_linear and self.norm_input is None
        self.norm = cast(Any, second)(embed_dim) if second else nn.Identity()
        self.pos_drop = nn.Dropout(pos_drop_rate)
        self.reset_parameters()

    def _add_positions(self, grid_size: Grid | None, img_size: int | Grid | None) -> None:
        self.default_img_size = to_2tuple(img_size) if grid_size is None and img_size is not None else None
        if self.default_img_size is not None:
            grid_size = cast(Grid, tuple(s // p for s, p in zip(self.default_img_size, self.patch_size)))
        self.pos_embed_grid_size = grid_size
        self.pos_embed = self.pos_embed_y = self.pos_embed_x = None
        if self.pos_embed_type == "none":
            return
        if grid_size is None:
            raise ValueError("learned positions need pos_embed_grid_size=(rows, columns), or an img_size")
        if self.pos_embed_type == "learned":
            self.pos_embed = nn.Parameter(torch.empty(1, *grid_size, self.embed_dim))
        else:
            self.pos_embed_y, self.pos_embed_x = (nn.Parameter(torch.empty(1, n, self.embed_dim)) for n in grid_size)

    def reset_parameters(self) -> None:
        for name, parameter in self._parameters.items():
            if parameter is not None:
                nn.init.normal_(parameter, std=1e-6 if name.endswith("_token") else 0.02)

    def prewarm_patch_interpolator(self, patch_sizes: Iterable[int | Grid]) -> None:
        """Compute now, where the weights are, what patches of these sizes need.

        Raises:
            RuntimeError: Only patches of one size are taken.
        """
        if self.patch_interpolator is None or not self.supports_patch_interpolation:
            raise RuntimeError("patches of other sizes need enable_patch_interpolator=True, and a linear embedding "
                               "without a norm before it")
        self.patch_interpolator.prewarm(patch_sizes, self.proj.weight.device)

    def feature_info(self, location: Any) -> dict[str, Any]:
        """Channels and stride, wherever."""
        return dict(num_chs=self.embed_dim, reduction=self.patch_size)

    def positions(self, rows: int, columns: int) -> Tensor:
        """What is added to the patches of a grid: (1, rows * columns, embed_dim)."""
        if self.pos_embed is None:
            y, x = cast(tuple[Tensor, Tensor], (self.pos_embed_y, self.pos_embed_x))
            return _from_sides(y, x, rows, columns, self.pos_embed_ar_preserving)
        return _from_grid(self.pos_embed, rows, columns, self.pos_embed_interp_mode, self.pos_embed_ar_preserving,
                          self.pos_embed_antialias, self.pos_embed_align_corners)

    def set_grid(self, rows: int, columns: int) -> None:
        """Learn positions for a grid of this shape from now on, which begin as those of the old one."""
        with torch.no_grad():
            if self.pos_embed is not None:
                table = self.positions(rows, columns).unflatten(1, (rows, columns))
                self.pos_embed = nn.Parameter(table, self.pos_embed.requires_grad)
            elif self.pos_embed_type == "factorized":
                if self.pos_embed_ar_preserving:
                    rows = columns = max(rows, columns)
                for name, length in (("pos_embed_y", rows), ("pos_embed_x", columns)):
                    side = getattr(self, name)
                    setattr(self, name, nn.Parameter(_resample_side(side, length), side.requires_grad))
        self.pos_embed_grid_size = (rows, columns)

    @_uncompiled
    def positions_at(self, patch_coord: Tensor) -> Tensor:
        """What is added to patches of these coordinates (B, N, 2), each image having a grid of its own."""
        if not self.pos_embed_use_grid_sample:
            return embed_grids(patch_coord, lambda grid: self.positions(*grid)[0])
        align_corners = self.pos_embed_align_corners and self.pos_embed is not None
        sides = patch_coord.amax(dim=1, keepdim=True) + 1
        if self.pos_embed_ar_preserving:
            sides = sides.amax(dim=2, keepdim=True)
        twice = 2.0 * patch_coord.float()
        places = (twice / (sides - 1).clamp(min=1) if align_corners else (twice + 1.0) / sides) - 1.0
        if self.pos_embed is not None:
            return _read_at(self.pos_embed, places, self.pos_embed_interp_mode, align_corners)
        tables = cast(Tensor, self.pos_embed_y).unsqueeze(2), cast(Tensor, self.pos_embed_x).unsqueeze(1)
        centred = torch.zeros_like(places[..., :1])
        y, x = torch.cat((places[..., :1], centred), -1), torch.cat((centred, places[..., 1:]), -1)
        return _read_at(tables[0], y, "bilinear", False) + _read_at(tables[1], x, "bilinear", False)

    def forward(
        self, x: Tensor, patch_coord: Tensor | None = None, patch_valid: Tensor | None = None
    ) -> tuple[Tensor, Grid | None]:
        """Patches may have their sides, (B, N, P, P, in_chans) or with the channels first, and other sides than the
        weights' where there is a patch interpolator.

        Raises:
            ValueError: The input is neither an image nor patches, or is not as the embedding takes it.
        """
        grid: Any = None
        if patch_coord is not None:
            if not self.is_linear or x.ndim not in (3, 5):
                raise ValueError(f"patches are (B, N, numbers) or (B, N, height, width, channels), not "
                                 f"{tuple(x.shape)}, for a model with embed_proj_type='linear'")
            x = self._embed(x)
        elif self.is_linear:
            x, grid = batch_patchify(x, self.patch_size, self.dynamic_img_pad, self.channels_last)
            x = self._embed(x)
        else:
            x = self.proj(fit_patches(x, None, self.patch_size, self.dynamic_img_pad, True, False))
            grid = x.shape[2], x.shape[3]
            x = x.flatten(2).transpose(1, 2)
        x = self.norm(x)
        if self.pos_embed_type != "none":
            positions = self.positions(*grid) if patch_coord is None else self.positions_at(patch_coord)
            x = x + positions.to(x.dtype)
        prefix = [token.expand(x.shape[0], -1, -1) for token in (self.cls_token, self.reg_token) if token is not None]
        return self.pos_drop(torch.cat((*prefix, x), dim=1) if prefix else x), grid

    def _embed(self, x: Tensor) -> Tensor:
        if self.patch_interpolator is not None and x.ndim == 5:
            if self.norm_input is not None:
                raise ValueError("patches of other sizes cannot have a norm before their embedding")
            size = tuple(x.shape[2:4] if self.channels_last else x.shape[3:5])
            return self.patch_interpolator(x, self.proj.weight, self.proj.bias, size)
        x = x.flatten(2)
        return self.proj(x if self.norm_input is None else self.norm_input(x))


# --- the model


def get_block_fn(cfg: NaFlexVitCfg, block_idx: int = 0) -> Callable[..., nn.Module]:
    """What makes the block of this index: EVA's where something needs it, else a vision transformer's."""
    has_rope, kv_heads = cfg.rope_type not in ("", "none"), cfg.num_kv_heads
    if (cfg.attn_type in ("eva", "rope") or has_rope or cfg.swiglu_mlp or cfg.attn_gated or cfg.attn_only_layer_scale
            or kv_heads is not None):
        return partial(
            EvaBlock, attn_type="rope" if cfg.attn_type == "standard" and has_rope else cfg.attn_type,
            swiglu_mlp=cfg.swiglu_mlp, swiglu_align_to=cfg.swiglu_align_to, scale_mlp=cfg.scale_mlp_norm,
            scale_attn_inner=cfg.scale_attn_inner_norm, qkv_fused=cfg.qkv_fused,
            num_kv_heads=kv_heads if kv_heads is None or isinstance(kv_heads, int) else kv_heads[block_idx],
            attn_only_layer_scale=cfg.attn_only_layer_scale, num_prefix_tokens=int(cfg.class_token) + cfg.reg_tokens,
            rotate_half=cfg.rope_rotate_half or cfg.rope_type == "mrope", gated_attn=cfg.attn_gated)
    own: dict[str, Any] = {}
    if cfg.scale_mlp_norm or cfg.scale_attn_inner_norm:
        own.update(scale_mlp_norm=cfg.scale_mlp_norm, scale_attn_norm=cfg.scale_attn_inner_norm)
    if cfg.attn_layer:
        own["attn_layer"] = cfg.attn_layer
    return partial(cfg.block_fn or Block, **own)


def _rotary(cfg: NaFlexVitCfg) -> nn.Module:
    """The rotary embedding; a `ValueError` where there is none of the name, or it lacks what it needs."""
    if cfg.rope_type not in ("axial", "dinov3", "mixed", "mrope"):
        raise ValueError(f"unknown rope_type {cfg.rope_type!r}; known: axial, dinov3, mixed, mrope")
    if cfg.rope_type == "mrope" and cfg.rope_mrope_section is None:
        raise ValueError("rope_type='mrope' needs rope_mrope_section=(time, rows, columns)")
    return make_rope(
        "cat" if cfg.rope_type == "axial" else cfg.rope_type, cfg.embed_dim, cfg.num_heads, cfg.depth,
        cfg.rope_ref_feat_shape, cfg.rope_grid_offset, cfg.rope_mrope_section, temperature=cfg.rope_temperature,
        grid_indexing=cfg.rope_grid_indexing, rotate_half=cfg.rope_rotate_half or cfg.rope_type == "mrope",
        shift_coords=cfg.rope_shift_coords, jitter_coords=cfg.rope_jitter_coords,
        rescale_coords=cfg.rope_rescale_coords)


class NaFlexVit(SequenceModel):
    """Vision transformer for images of any size and aspect ratio, alone or together in one batch.

    Shapes: (B, in_chans, H, W), or patches as `mvlib.data` makes them -> (B, num_classes); features are (B, prefix
    tokens + patches, embed_dim).

    Args:
        cfg: What the model is made of; further arguments replace fields of it.
        img_size: Side, or (height, width), of the images that positions are learned for where `pos_embed_grid_size` is
            None; any size is taken.
        options: Fields of `NaFlexVitCfg`.

    Raises:
        ValueError: An option has an unknown value, or one that does not fit another's.
        TypeError: An option is unknown.
    """

    pools: ClassVar[tuple[str, ...]] = (*SequenceModel.pools, "map")
    options = ("attn_mask",)
    resamples_positions = True  # in each pass

    def __init__(
        self, cfg: NaFlexVitCfg | None = None, in_chans: int = 3, num_classes: int = 1000,
        img_size: int | tuple[int, int] | None = None, **options: Any,
    ) -> None:
        super().__init__()
        unknown = options.keys() - {field.name for field in fields(NaFlexVitCfg)}
        if unknown:
            raise TypeError(f"NaFlexVit got an unexpected keyword argument '{min(unknown)}'")
        cfg = replace(cfg or NaFlexVitCfg(), **options)
        if cfg.pos_embed not in ("", "none", "learned", "factorized"):
            raise ValueError(f"pos_embed {cfg.pos_embed!r} is not one of 'learned', 'factorized', 'none', ''")
        kv_heads = cfg.num_kv_heads
        if kv_heads is not None and not isinstance(kv_heads, int) and len(kv_heads) != cfg.depth:
            raise ValueError(f"num_kv_heads has {len(kv_heads)} numbers for {cfg.depth} blocks")
        norm: Any = get_norm_layer(cfg.norm_layer) or LayerNorm
        act = get_act_layer(cfg.act_layer) or nn.GELU
        self.in_chans = in_chans
        self.num_features = self.head_hidden_size = self.embed_dim = cfg.embed_dim
        self.has_class_token, self.num_reg_tokens = cfg.class_token, cfg.reg_tokens
        self.num_prefix_tokens = int(cfg.class_token) + cfg.reg_tokens
        self.pool_include_prefix = cfg.pool_include_prefix
        self.use_key_only_attn_mask = cfg.use_key_only_attn_mask
        self.weight_init_mode, self.fix_init = cfg.weight_init, cfg.fix_init
        self.embeds = NaFlexEmbeds(
            cfg.patch_size, in_chans, cfg.embed_dim, cfg.embed_proj_type, not cfg.pre_norm, cfg.class_token,
            cfg.reg_tokens, cfg.dynamic_img_pad, img_size, cfg.pos_embed, cfg.pos_embed_grid_size,
            cfg.pos_embed_interp_mode, cfg.pos_embed_ar_preserving, cfg.pos_embed_antialias,
            cfg.pos_embed_align_corners, cfg.pos_embed_use_grid_sample,
            proj_norm_layer=get_norm_layer(cfg.embed_norm_layer), pos_drop_rate=cfg.pos_drop_rate,
            enable_patch_interpolator=cfg.enable_patch_interpolator, channels_last=cfg.patchify_channels_last)
        self.supports_patch_interpolation = self.embeds.supports_patch_interpolation
        self.norm_pre = norm(cfg.embed_dim) if cfg.pre_norm else nn.Identity()
        self.rope_is_mixed = self.one_each = cfg.rope_type == "mixed"
        self.rope: Any = _rotary(cfg) if cfg.rope_type not in ("", "none") else None
        if self.rope is not None:
            self.shared = tuple(f"rope_{i}" for i in range(cfg.depth)) if self.rope_is_mixed else ("rope",)
        self.patch_drop = PatchDropoutWithIndices(
            cfg.patch_drop_rate, self.num_prefix_tokens) if cfg.patch_drop_rate > 0 else None
        self.blocks = nn.Sequential(*(
            get_block_fn(cfg, i)(
                dim=cfg.embed_dim, num_heads=cfg.num_heads, mlp_ratio=cfg.mlp_ratio, qkv_bias=cfg.qkv_bias,
                qk_norm=cfg.qk_norm, proj_bias=cfg.proj_bias, init_values=cfg.init_values,
                proj_drop=cfg.proj_drop_rate, attn_drop=cfg.attn_drop_rate, drop_path=rate, norm_layer=norm,
                act_layer=act, mlp_layer=cfg.mlp_layer or Mlp, depth=i)
            for i, rate in enumerate(drop_path_rates(cfg.drop_path_rate, cfg.depth))))
        attn_pool = AttentionPoolLatent(
            cfg.embed_dim, num_heads=cfg.attn_pool_num_heads or cfg.num_heads,
            mlp_ratio=cfg.attn_pool_mlp_ratio or cfg.mlp_ratio, norm_layer=norm,
            act_layer=act) if cfg.global_pool == "map" else None
        fc_norm = cfg.global_pool == "avg" if cfg.fc_norm is None else cfg.fc_norm
        self.add_head(norm, num_classes, cfg.global_pool, fc_norm, cfg.final_norm, attn_pool, cfg.drop_rate)
        self.init_weights()

    def stem(self) -> tuple[list[Step], int]:
        given = ("patch_coord", "patch_valid", "attn_mask", "left")
        first = Step("_embed", gives=(*self.shared, "attn_mask"), options=given)
        return [first, Step("norm_pre")], cast(int, self.embeds.feat_ratio())

    def tap_grid(self, tap: Any, image_size: Any) -> Grid | None:
        return self.embeds.dynamic_feat_size(image_size)

    # forward

    def _embed(
        self, x: Tensor, patch_coord: Tensor | None = None, patch_valid: Tensor | None = None,
        attn_mask: Tensor | None = None, left: dict[str, Any] | None = None,
    ) -> tuple[Any, ...]:
        """Images or patches to tokens, rotary embeddings and a mask; `left` is told which patches dropout left."""
        x, grid = self.embeds(x, patch_coord, patch_valid)
        ropes = self._rotations(x, patch_coord, grid)
        if self.patch_drop is not None and self.training:
            x, kept = self.patch_drop(x)
            has_batch = patch_coord is not None
            patch_valid = None if patch_valid is None else patch_valid.gather(1, kept)
            ropes = [apply_keep_indices_nlc(x, rope, kept, has_batch) for rope in ropes]
            if not has_batch and not self.rope_is_mixed:
                ropes = [rope.unsqueeze(1) for rope in ropes]  # for all heads
        if attn_mask is None:
            only_keys = self.use_key_only_attn_mask
            attn_mask = create_attention_mask(
                patch_valid, self.num_prefix_tokens, not only_keys, 1 if only_keys else None, x.dtype)
        if left is not None:
            left["patch_valid"] = patch_valid
        return x, *ropes, attn_mask

    def _rotations(self, x: Tensor, patch_coord: Tensor | None, grid: Grid | None) -> list[Tensor]:
        """The rotary embedding, or that of each block, that broadcasts to (B, heads, patches, channels)."""
        if self.rope is None:
            return []
        embed = self.rope.get_embed(grid) if patch_coord is None else self._rotations_at(x, patch_coord)
        if not self.rope_is_mixed:
            return [embed]
        return [embed[i] if patch_coord is None else embed[:, i] for i in range(len(self.shared))]  # for torch.fx

    @_uncompiled
    def _rotations_at(self, x: Tensor, patch_coord: Tensor) -> Tensor:
        """The same for images of different grids: (B, blocks, heads, N, ...) if mixed, else (B, 1, N, ...)."""
        embed = embed_grids(patch_coord, lambda grid: self.rope.get_embed(grid, x.dtype))
        return embed if self.rope_is_mixed else embed.unsqueeze(1)

    def forward(
        self, x: Tensor | dict[str, Tensor], patch_coord: Tensor | None = None, patch_valid: Tensor | None = None,
        attn_mask: Tensor | None = None,
    ) -> Tensor:
        """Images, or patches, -> logits (B, num_classes), or features where `num_classes` is 0.

        Args:
            x: Images (B, in_chans, H, W); or patches (B, N, P * P * in_chans), or (B, N, P, P, in_chans); or a dict of
                those as "patches", and of what follows by its names.
            patch_coord, patch_valid: Row and column of each patch, (B, N, 2); which are no padding, (B, N).
            attn_mask: Who sees whom of all tokens, the prefix among them, instead of what `patch_valid` comes to.

        Raises:
            ValueError: There are patches without coordinates, or without `patch_valid`.
        """
        patches, given = take_patches(x, _NAMES, (patch_coord, patch_valid, attn_mask))
        if "patch_coord" in given and "patch_valid" not in given:
            raise ValueError("patches need patch_valid, which says which are patches and no padding")
        features = self.forward_features(patches, **given)
        return self.forward_head(**features) if isinstance(features, dict) else self.forward_head(features)

    def forward_image(self, x: Tensor) -> Tensor:
        return self.forward_head(self.run_flow(x))

    def forward_features(  # type: ignore[override]
        self, patches: Tensor, patch_coord: Tensor | None = None, patch_valid: Tensor | None = None,
        attn_mask: Tensor | None = None,
    ) -> Tensor | dict[str, Any]:
        """Final features (B, tokens, embed_dim); of patches with coordinates {"patches": these, "patch_valid": ...},
        without those that patch dropout took away."""
        patches, given = take_patches(patches, _NAMES, (patch_coord, patch_valid, attn_mask))
        left: dict[str, Any] = {}
        features: Tensor = self.run_flow(patches, **given, left=left)
        return {"patches": features, **left} if "patch_coord" in given else features

    def pool(self, x: Tensor, pool_type: str | None = None, patch_valid: Tensor | None = None) -> Tensor:
        """Tokens (B, N, embed_dim) -> (B, embed_dim), without padding; unchanged where there is no pooling."""
        if patch_valid is None:
            return super().pool(x, pool_type)
        if self.attn_pool is not None:
            prefix = self.num_prefix_tokens
            mask = create_attention_mask(
                patch_valid, prefix if self.pool_include_prefix else 0, False, 1, x.dtype)
            pooled: Tensor = self.attn_pool(x if self.pool_include_prefix else x[:, prefix:], attn_mask=mask)
            return pooled
        pool_type = self.global_pool if pool_type is None else pool_type
        return global_pool_naflex(x, patch_valid, pool_type, self.num_prefix_tokens, self.pool_include_prefix)

    def forward_head(self, patches: Tensor, pre_logits: bool = False, patch_valid: Tensor | None = None) -> Tensor:
        x: Tensor = self.head_drop(self.fc_norm(self.pool(patches, patch_valid=patch_valid)))
        return x if pre_logits else self.head(x)

    def forward_intermediates(  # type: ignore[override]  # timm's order, with prefix tokens first
        self, x: Tensor | dict[str, Tensor], indices: Indices = None, return_prefix_tokens: bool = False,
        norm: bool = False, stop_early: bool = False, output_fmt: str = "NCHW", intermediates_only: bool = False,
        output_dict: bool = False, patch_coord: Tensor | None = None, patch_valid: Tensor | None = None,
        attn_mask: Tensor | None = None,
    ) -> Any:
        """As every model's, of an image or of patches as `forward` takes them.

        Of patches, intermediates are "NLC", and `output_dict` adds "patch_valid", which says which of them are padding.

        Raises:
            ValueError: Patches are to become maps, or patch dropout takes some away and the answer could not say which.
        """
        patches, given = take_patches(x, _NAMES, (patch_coord, patch_valid, attn_mask))
        left: dict[str, Any] = {}
        if "patch_coord" in given:
            if output_fmt != "NLC":
                raise ValueError(f"patches of images of different sizes make no maps: output_fmt is 'NLC', not "
                                 f"{output_fmt!r}")
            if self.patch_drop is not None and self.training and not output_dict:
                raise ValueError("patch dropout takes patches away: output_dict=True says which were left")
        found = self.run_to_taps(
            patches, indices, norm, stop_early, output_fmt, intermediates_only, return_prefix_tokens, output_dict,
            **given, left=left)
        if output_dict and left["patch_valid"] is not None:
            found["patch_valid"] = left["patch_valid"]
        return found

    # training and weights

    def set_input_size(self, img_size: int | Grid) -> None:
        """Resample positions for images of this size, in place: once, and not in each pass. Other sizes are still
        taken."""
        self.embeds.set_grid(*self.embeds.dynamic_feat_size(to_2tuple(img_size)))
        self.note_arguments(pos_embed_grid_size=self.embeds.pos_embed_grid_size)

    def get_patch_size(self) -> Grid:
        """(height, width) of a patch: what loaders of patches ask for."""
        return self.embeds.patch_size

    def prewarm_patch_interpolator(self, patch_sizes: Iterable[int | Grid]) -> None:
        """As `NaFlexEmbeds`; before `torch.compile`, say."""
        self.embeds.prewarm_patch_interpolator(patch_sizes)

    def init_module(self, name: str, module: nn.Module) -> None:
        super().init_module(name, module)
        if self.weight_init_mode not in ("reset", "skip"):
            open_gate(self, name, module)

    def no_weight_decay(self) -> set[str]:
        own = {"embeds.pos_embed", "embeds.cls_token", "embeds.reg_token"}
        return own | (self.rope.no_weight_decay() if self.rope_is_mixed else set())

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return dict(stem=r"^embeds", blocks=[(r"^blocks\.(\d+)", None), (r"^norm", (99999,))])

    def fit_state_dict(self, state_dict: StateDict) -> StateDict:
        """Weights of a model that is pooled otherwise, or has a position embedding of another grid, as this one's."""
        fitted, embeds = super().fit_state_dict(state_dict), self.embeds
        table = fitted.get("embeds.pos_embed")
        if table is not None and embeds.pos_embed is not None and table.shape[1:3] != embeds.pos_embed.shape[1:3]:
            fitted["embeds.pos_embed"] = resample_grid(
                table, list(embeds.pos_embed.shape[1:3]), embeds.pos_embed_interp_mode, embeds.pos_embed_antialias)
        return fitted


def _spell_out(init: Callable[..., None]) -> inspect.Signature:
    """The signature with `options` spelled out, for callers who want to know what a model takes."""
    own = [p for p in inspect.signature(init).parameters.values() if p.kind is not p.VAR_KEYWORD]
    return inspect.Signature(own + [
        inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type)
        for field in fields(NaFlexVitCfg)])


NaFlexVit.__init__.__signature__ = _spell_out(NaFlexVit.__init__)  # type: ignore[attr-defined]

# --- the architectures

_SCALED = dict(init_values=1e-5)
_GAP = dict(global_pool="avg", fc_norm=True)
_REG4_GAP = dict(_GAP, reg_tokens=4)
_SO150M2 = dict(
    embed_dim=832, depth=21, num_heads=13, mlp_ratio=34 / 13, init_values=1e-5, qkv_bias=False, reg_tokens=1)
_SIGLIP = dict(act_layer="gelu_tanh", pos_embed_interp_mode="bilinear")
_SO400M = dict(embed_dim=1152, depth=27, num_heads=16)
# Positions for images of up to 2048 pixels; one class token a teacher, of which all but the first are registers.
_RADIO_POSITIONS = dict(
    pos_embed_grid_size=(128, 128), pos_embed_interp_mode="bilinear", pos_embed_ar_preserving=True,
    pos_embed_antialias=False)
_RADIO_V3, _RADIO_V4 = (
    dict(_RADIO_POSITIONS, class_token=True, global_pool="token", final_norm=False, reg_tokens=n) for n in (7, 9))
_CORNERS = dict(pos_embed_align_corners=True)
_KEPT_RATIO = dict(pos_embed_ar_preserving=True)

register_model.variants(__name__, NaFlexVit, sized_by_name({
    "naflexvit_base_patch16_gap": (_SCALED, _REG4_GAP),
    "naflexvit_base_patch16_par_gap": (_SCALED, _REG4_GAP, _KEPT_RATIO),
    "naflexvit_base_patch16_parfac_gap": (_SCALED, _REG4_GAP, _KEPT_RATIO, dict(pos_embed="factorized")),
    "naflexvit_base_patch16_map": (_SCALED, dict(reg_tokens=1)),
    "naflexvit_so150m2_patch16_reg1_gap": (_SO150M2, _GAP),
    "naflexvit_so150m2_patch16_reg1_map": _SO150M2,
    "naflexvit_base_patch16_siglip": _SIGLIP,
    "naflexvit_so400m_patch16_siglip": (_SIGLIP, _SO400M, dict(mlp_ratio=3.7362)),
    "naflexvit_base_patch16_radio_v3": (_RADIO_V3, _SCALED, _CORNERS),
    "naflexvit_large_patch16_radio_v3": (_RADIO_V3, _SCALED),
    "naflexvit_huge_patch16_radio_v3": (_RADIO_V3, _CORNERS),
    "naflexvit_giant_patch16_radio_v3": (_RADIO_V3, dict(embed_dim=1536, depth=40, num_heads=24)),
    "naflexvit_so400m_patch16_radio_v4": (_RADIO_V4, _SO400M, dict(mlp_ratio=4304 / 1152)),
    "naflexvit_huge_patch16_radio_v4": _RADIO_V4,
}))


# --- models of other families, for images of any size


def naflex_entrypoint(entrypoint: Callable[..., nn.Module]) -> Callable[..., NaFlexVit]:
    """What builds an architecture of vision transformers, or of EVA, as a `NaFlexVit`; its weights fit, too."""
    translators: dict[str, Any] = {"VisionTransformer": _classic_arguments, "Eva": _eva_arguments, "NaFlexVit": dict}
    translate = translators.get(getattr(entrypoint.__annotations__.get("return"), "__name__", ""))
    given = getattr(entrypoint, "arguments", {})
    if translate is None:
        raise ConfigError(f"use_naflex=True is for vision transformers and EVA; {entrypoint.__name__} is none")

    def build(use_naflex: bool = True, **kwargs: Any) -> NaFlexVit:
        return NaFlexVit(**translate({**given, **kwargs}))

    return build


def _classic_arguments(given: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a `VisionTransformer`, and perhaps of a `NaFlexVit` over them, as a `NaFlexVit` takes them."""
    taken = {name: value for name, value in given.items() if name not in ("no_embed_class", "dynamic_img_size")}
    resampling = taken.pop("resampling", None)
    own: dict[str, Any] = dict(img_size=224, pos_embed_grid_size=None, class_token=True, global_pool="token")
    if resampling is not None and "align_corners" in resampling:  # RADIO's, whose positions stay those of 2048 pixels
        own.update(_RADIO_POSITIONS, pos_embed_align_corners=resampling["align_corners"])
    if taken.get("pos_embed") == "learn":
        del taken["pos_embed"]
    own["scale_attn_inner_norm"] = taken.pop("scale_attn_norm", False)
    own.update(taken)
    if own.get("fc_norm") is None:
        own["fc_norm"] = own["global_pool"] in ("avg", "avgmax", "max")
    return own


_EVA_NAMES = {
    "num_reg_tokens": "reg_tokens", "use_pre_transformer_norm": "pre_norm", "ref_feat_shape": "rope_ref_feat_shape",
    "scale_mlp": "scale_mlp_norm", "scale_attn_inner": "scale_attn_inner_norm"}


def _eva_arguments(given: dict[str, Any]) -> dict[str, Any]:
    """The same of an `Eva`."""
    taken = {_EVA_NAMES.get(name, name): value for name, value in given.items()
             if name not in ("no_embed_class", "dynamic_img_size")}
    own: dict[str, Any] = dict(img_size=224, pos_embed_grid_size=None, class_token=True, global_pool="avg",
                               attn_type="eva")
    has_rope, is_mixed = taken.pop("use_rot_pos_emb", False), taken.pop("rope_mixed_mode", False)
    kind = taken.pop("rope_type", None)
    if has_rope and kind in (None, "", "none", "cat"):
        kind = "mixed" if is_mixed else "axial"
    own["rope_type"] = kind or "none"
    own["pos_embed"] = "learned" if taken.pop("use_abs_pos_emb", True) else "none"
    is_behind = taken.pop("fc_norm", taken.pop("use_fc_norm", None))
    is_behind = taken.get("global_pool", "avg") == "avg" if is_behind is None else is_behind
    is_before = taken.pop("use_post_transformer_norm", None)
    is_before = not is_behind if is_before is None else is_before
    own.update(fc_norm=is_behind, final_norm=is_before or is_behind, **taken)
    if own["final_norm"] and is_before and is_behind:
        raise ConfigError("use_naflex=True is not for an EVA with norms before and behind the pooling")
    return own


# --- foreign checkpoints


def _from_vit(state_dict: StateDict, model: Any, interpolation: str = "bicubic", antialias: bool = True) -> StateDict:
    """A vision transformer whose tokens, positions and patches are the model's own, or as `jax_keys` gives it."""
    embeds: Any = model.embeds
    deit3 = [] if isinstance(model.blocks[0], EvaBlock) else [(r"\bgamma_(\d)$", r"ls\1.gamma")]  # its layer scale
    out = rename_keys({key: value for key, value in state_dict.items() if "pre_logits" not in key}, *deit3,
                      (r"^patch_embed\.", "embeds."), (r"^(cls_token|reg_token|pos_embed)$", r"embeds.\1"))
    weight = out.get("embeds.proj.weight")
    if weight is not None:
        if weight.ndim == 2:  # of flat patches, channels last
            side = next((n for chans in (3, embeds.in_chans) for n in [math.isqrt(weight.shape[1] // chans)]
                         if n * n * chans == weight.shape[1]), 1)
            weight = weight.reshape(weight.shape[0], side, side, -1).permute(0, 3, 1, 2)
        weight = resample_patch_embed(weight, embeds.patch_size, interpolation, antialias)
        if embeds.is_linear:
            weight = (weight.permute(0, 2, 3, 1) if embeds.channels_last else weight).flatten(1)
        out["embeds.proj.weight"] = weight
    table = out.get("embeds.pos_embed")
    if table is not None and table.ndim == 3:
        out.update(_positions_as_grid(table, out))
    if embeds.cls_token is None:
        out.pop("embeds.cls_token", None)
    return out


def _by_way_of_vit(convert: Callable[..., StateDict], state_dict: StateDict, model: nn.Module) -> StateDict:
    return _from_vit(convert(state_dict, model), model)


def _positions_as_grid(table: Tensor, state_dict: StateDict) -> StateDict:
    """Positions (1, N, C) as a grid; those of class and register tokens are added to these."""
    if table.shape[0] != 1:  # (rows, columns, C)
        return {"embeds.pos_embed": table[None]}
    tokens = {key: state_dict[key] for key in ("embeds.cls_token", "embeds.reg_token") if key in state_dict}
    count = sum(token.shape[1] for token in tokens.values())
    if math.isqrt(table.shape[1]) ** 2 == table.shape[1]:
        count = 0
    side = math.isqrt(table.shape[1] - count)
    if side * side != table.shape[1] - count:
        return {}  # of another shape, which is refused
    found = {"embeds.pos_embed": table[:, count:].reshape(1, side, side, -1)}
    if count:
        own = table[:, :count].split([token.shape[1] for token in tokens.values()], dim=1)
        found.update((key, token + position) for (key, token), position in zip(tokens.items(), own))
    return found


NaFlexVit.key_maps = (
    KeyMap("radio", has("radio_model.model.patch_generator.embedder.weight"),
           lambda state_dict, model: _from_vit(radio_keys(state_dict), model)),
    KeyMap("jax", lambda keys: any(key.endswith("embedding/kernel") for key in keys),
           lambda state_dict, model: _from_vit(jax_keys(state_dict), model, "bilinear", False)),
    *(KeyMap(known.name, known.matches, partial(_by_way_of_vit, known.convert)) for known in VisionTransformer.key_maps
      if known.name not in ("radio", "jax")),
    KeyMap("vit", has("patch_embed.proj.weight"), _from_vit),
)
