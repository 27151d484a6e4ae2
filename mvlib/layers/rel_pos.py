"""Biases of attention for relative positions: their index, tables and modules, resized to other windows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .helpers import Module, placeable, to_2tuple
from .mlp import Mlp

__all__ = [
    "OffsetBiases", "RelPosBias", "RelPosBiasTf", "RelPosMlp", "RelPosTable", "decomposed_bias", "fit_offset_biases",
    "gen_axis_index", "gen_offset_index", "gen_relative_log_coords", "gen_relative_position_index",
    "resize_offset_vectors", "resize_rel_pos_bias_table", "resize_rel_pos_bias_table_levit",
    "resize_rel_pos_bias_table_simple",
]

Size = Sequence[int]


def gen_relative_position_index(
    q_size: Size, k_size: Size | None = None, class_token: bool = False, device: torch.device | None = None
) -> Tensor:
    """Row of a bias table for each pair of positions in a window of `q_size` (rows wh, columns ww).

    The table has a row for each offset: (2 wh - 1) * (2 ww - 1), ordered by vertical, then by horizontal offset; and
    with a class token three more: from it to others, from others to it, to itself.

    Returns:
        Integers (N, N), N = wh * ww (+ 1, in front); [i, j] is the row for query i and key j.

    Raises:
        ValueError: Queries and keys of different sizes are asked for.
    """
    if k_size is not None and tuple(k_size) != tuple(q_size):
        raise ValueError(f"queries {tuple(q_size)} and keys {tuple(k_size)} of different sizes are not supported")
    height, width = q_size
    position = torch.arange(height * width, device=device)
    row, column = position // width, position % width
    dy = row[:, None] - row + height - 1
    dx = column[:, None] - column + width - 1
    index = dy * (2 * width - 1) + dx
    if class_token:
        count = (2 * height - 1) * (2 * width - 1)
        index = F.pad(index, [1, 0, 1, 0])
        index[0], index[:, 0], index[0, 0] = count, count + 1, count + 2
    return index


def gen_offset_index(size: Size, stride: int = 1, device: torch.device | None = None) -> Tensor:
    """Column of LeViT's table of biases, which know an offset's size but not its sign, for each query and key.

    Args:
        size: Rows and columns of the keys' map.
        stride: Queries are every `stride`-th position of each side.

    Returns:
        Integers (queries, rows * columns), below rows * columns: vertical distance * columns + horizontal distance.
    """
    rows, columns = (torch.arange(n, device=device) for n in size)
    dy, dx = ((side[::stride, None] - side).abs() for side in (rows, columns))
    return (dy[:, None, :, None] * size[1] + dx[None, :, None, :]).flatten(0, 1).flatten(1)


def gen_relative_log_coords(
    win_size: Size,
    pretrained_win_size: Size = (0, 0),
    mode: str = "swin",
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Vertical and horizontal offsets in a window on a logarithmic scale.

    Args:
        win_size: Rows and columns, wh and ww.
        pretrained_win_size: Of the window whose farthest offset is 1; 0 for the window itself ("swin" alone).
        mode: "swin": log2(1 + 8 x) / 3 of offsets x relative to the farthest; "cr": log(1 + x) of offsets in positions.

    Returns:
        (2 wh - 1, 2 ww - 1, 2).
    """
    if mode not in ("swin", "cr"):
        raise ValueError(f"mode {mode!r} is not one of swin, cr")
    sides = [torch.arange(1 - n, n, device=device, dtype=torch.float32) for n in win_size]
    if mode == "swin":
        reference = pretrained_win_size if pretrained_win_size[0] > 0 else win_size
        sides = [side / max(n - 1, 1) * 8 for side, n in zip(sides, reference)]
    coords = torch.stack(torch.meshgrid(*sides, indexing="ij"), dim=-1)
    log = torch.log2(1.0 + coords.abs()) / math.log2(8) if mode == "swin" else torch.log(1.0 + coords.abs())
    return (coords.sign() * log).to(dtype)


def gen_axis_index(queries: int, keys: int, device: torch.device | None = None) -> Tensor:
    """Row of a table of 2 * max(queries, keys) - 1 offsets for each query and key along one side of a map.

    Those that are fewer stand further apart. Returns integers (queries, keys).
    """
    q_step, k_step = max(keys / queries, 1.0), max(queries / keys, 1.0)
    query = torch.arange(queries, dtype=torch.float32, device=device)[:, None] * q_step
    key = torch.arange(keys, dtype=torch.float32, device=device) * k_step
    return (query - key + (keys - 1) * k_step).long()


def decomposed_bias(q: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """What MViTv2 adds to logits: the products of queries with the vectors of their offsets from keys.

    Shapes: `q` (B, h, w, C), `rows` (h, keys' rows, C), `columns` (w, keys' columns, C) -> (B, queries, keys).
    """
    down, across = torch.einsum("bhwc,hkc->bhwk", q, rows), torch.einsum("bhwc,wkc->bhwk", q, columns)
    return (down.unsqueeze(-1) + across.unsqueeze(-2)).flatten(3).flatten(1, 2)


def resize_offset_vectors(vectors: Tensor, count: int) -> Tensor:
    """Vectors of `count` offsets along a side, between those there are: (L, C) -> (count, C)."""
    if len(vectors) == count:
        return vectors
    return F.interpolate(vectors.T.unsqueeze(0), size=count, mode="linear")[0].T


# tables and modules


class OffsetBiases(Module):
    """A bias for each head and each distance of query from key, in rows and in columns; key `attention_biases` (LeViT).

    To be derived from, by an attention whose constructor calls `add_offset_biases`.
    """

    attention_bias_idxs: Tensor

    def add_offset_biases(
        self, num_heads: int, resolution: int | Size, stride: int = 1, persistent: bool = False
    ) -> None:
        """Register biases and index for keys on a map of rows and columns, and queries on every `stride`-th of them.

        `persistent`: the index is in state dicts.
        """
        self.resolution, self.bias_stride = to_2tuple(resolution), stride
        keys = math.prod(self.resolution)
        queries = math.prod(-(-side // stride) for side in self.resolution)
        self.attention_biases = nn.Parameter(torch.empty(num_heads, keys))
        index = torch.empty(queries, keys, dtype=torch.long)
        self.register_buffer("attention_bias_idxs", index, persistent=persistent)
        if not index.is_meta:  # parameters may be on the meta device, and buffers in memory
            self.init_non_persistent_buffers()
        OffsetBiases.reset_parameters(self)

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.attention_biases)

    def init_non_persistent_buffers(self) -> None:
        index = gen_offset_index(self.resolution, self.bias_stride, device=self.attention_bias_idxs.device)
        self.attention_bias_idxs = index  # stays the buffer that it is, in state dicts or not

    def get_bias(self) -> Tensor:
        """(num_heads, queries, keys), to be added to the logits."""
        # `index_select` takes a fifth of the time of indexing.
        bias = self.attention_biases.index_select(1, self.attention_bias_idxs.flatten())
        return bias.unflatten(1, (-1, self.attention_biases.shape[1]))

    def set_resolution(self, resolution: int | Size) -> None:
        """Change the map; the biases, which have to be those of a square map, are resampled."""
        resolution, old = to_2tuple(resolution), self.attention_biases
        if resolution == self.resolution:
            return
        fitted = resize_rel_pos_bias_table_levit(old.detach().T, (math.prod(resolution), old.shape[0])).T.contiguous()
        self.attention_biases = nn.Parameter(fitted, requires_grad=old.requires_grad)
        self.resolution = resolution
        self.init_non_persistent_buffers()


def fit_offset_biases(state_dict: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict whose `OffsetBiases` of other square maps are resampled to those of `own`, without their index."""
    fitted = {key: value for key, value in state_dict.items() if not key.endswith("attention_bias_idxs")}
    for key, value in fitted.items():
        if key.endswith("attention_biases") and key in own and value.shape != own[key].shape:
            fitted[key] = resize_rel_pos_bias_table_levit(value.T, own[key].shape[::-1]).T.contiguous()
    return fitted


class RelPosTable(nn.Module):
    """A bias for each head and each offset of query from key in a window, learned; key `relative_position_bias_table`.

    To be derived from, by an attention or a module of its own, which calls `add_rel_pos_table`, and `reset_parameters`
    and `init_non_persistent_buffers` at the end, unless it is on the meta device.
    """

    prefix_tokens = 0

    def add_rel_pos_table(self, window_size: int | Size, num_heads: int, prefix_tokens: int = 0) -> None:
        """Register table and index for a window of rows and columns (wh, ww), after a class token or none."""
        if prefix_tokens > 1:
            raise ValueError(f"biases know one prefix token, not {prefix_tokens}")
        self.window_size = to_2tuple(window_size)
        self.num_heads = num_heads
        self.prefix_tokens = prefix_tokens
        self.relative_position_bias_table = nn.Parameter(torch.empty(self.table_shape()))
        count = math.prod(self.window_size) + prefix_tokens
        self.register_buffer("relative_position_index", torch.empty(count, count, dtype=torch.long), persistent=False)

    @property
    def window_area(self) -> int:
        """Positions of the window; 0 where there is none."""
        return math.prod(self.window_size or (0,))

    def table_shape(self) -> tuple[int, ...]:
        return math.prod(_offsets(self.window_size)) + 3 * self.prefix_tokens, self.num_heads

    def reset_parameters(self) -> None:
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def init_non_persistent_buffers(self) -> None:
        index = gen_relative_position_index(
            self.window_size, class_token=self.prefix_tokens > 0, device=self.relative_position_index.device)
        self.register_buffer("relative_position_index", index, persistent=False)

    def set_window_size(self, window_size: int | Size) -> None:
        """Change the window; the table is resampled."""
        window_size = to_2tuple(window_size)
        if window_size == self.window_size:
            return
        old, self.window_size = self.window_size, window_size
        table = self.relative_position_bias_table
        resized = self.fit_table(table.detach(), old)
        self.relative_position_bias_table = nn.Parameter(resized, requires_grad=table.requires_grad)
        self.init_non_persistent_buffers()

    def fit_table(self, table: Tensor, old_window: Size | None = None) -> Tensor:
        """The table of another window (see `resize_rel_pos_bias_table`), resampled for this one."""
        return resize_rel_pos_bias_table(table, self.window_size, self.table_shape(), old_window)

    def get_bias(self) -> Tensor:
        """(1, num_heads, N, N), to be added to the logits [query, key]; N is wh * ww and the prefix."""
        bias = self.relative_position_bias_table[self.relative_position_index]
        return bias.permute(2, 0, 1).unsqueeze(0).contiguous()


class RelPosBias(RelPosTable):
    """`RelPosTable` as a module: logits (B, num_heads, N, N) -> the same with the bias.

    Args:
        window_size: Rows and columns of the window.
        num_heads: Heads.
        prefix_tokens: 1 where a class token stands in front.
    """

    @placeable
    def __init__(self, window_size: Size, num_heads: int, prefix_tokens: int = 0) -> None:
        super().__init__()
        self.add_rel_pos_table(window_size, num_heads, prefix_tokens)
        if not self.relative_position_index.is_meta:
            self.reset_parameters()
            self.init_non_persistent_buffers()

    def forward(self, attn: Tensor, shared_rel_pos: Tensor | None = None) -> Tensor:
        return attn + self.get_bias()


class RelPosBiasTf(RelPosBias):
    """`RelPosBias` in the layout of MaxViT's TensorFlow code: (num_heads, rows, columns), offsets of key from query."""

    @property
    def window_area(self) -> int:
        """Positions of the window."""
        return math.prod(self.window_size)

    def table_shape(self) -> tuple[int, ...]:
        return self.num_heads, *_offsets(self.window_size)

    def reset_parameters(self) -> None:
        nn.init.normal_(self.relative_position_bias_table, std=0.02)

    def get_bias(self) -> Tensor:
        return self.relative_position_bias_table.flatten(1)[:, self.relative_position_index.T].unsqueeze(0)


class RelPosMlp(nn.Module):
    """The bias for each head and offset from a small MLP on the logarithms of the offset; keys `mlp.fc1`, `mlp.fc2`.

    Logits (B, num_heads, N, N) -> the same with the bias.
    Source: Liu et al., "Swin Transformer V2", 2022; mode "cr" without its normalisation and limit.

    Args:
        window_size: Rows and columns of the window.
        num_heads: Heads.
        hidden_dim: Hidden channels of the MLP.
        prefix_tokens: Tokens in front, which have no bias.
        mode: "cr" or "swin", see `gen_relative_log_coords`; "swin" limits the bias to 16.
        pretrained_window_size: See there.
    """

    @placeable
    def __init__(
        self,
        window_size: Size,
        num_heads: int = 8,
        hidden_dim: int = 128,
        prefix_tokens: int = 0,
        mode: str = "cr",
        pretrained_window_size: Size = (0, 0),
    ) -> None:
        super().__init__()
        self.window_size = to_2tuple(window_size)
        self.num_heads = num_heads
        self.prefix_tokens = prefix_tokens
        self.mode = mode
        self.pretrained_window_size = pretrained_window_size
        self.mlp = Mlp(2, hidden_dim, num_heads, act_layer=nn.ReLU, bias=(True, mode != "swin"), drop=(0.125, 0.0))
        area = self.window_area
        self.register_buffer("relative_position_index", torch.empty(area, area, dtype=torch.long), persistent=False)
        self.register_buffer("rel_coords_log", torch.empty(*_offsets(self.window_size), 2), persistent=False)
        if not self.rel_coords_log.is_meta:
            self.init_non_persistent_buffers()

    @property
    def window_area(self) -> int:
        """Positions of the window."""
        return math.prod(self.window_size)

    def init_non_persistent_buffers(self) -> None:
        like = self.rel_coords_log
        index = gen_relative_position_index(self.window_size, device=like.device)
        coords = gen_relative_log_coords(
            self.window_size, self.pretrained_window_size, self.mode, like.device, like.dtype)
        self.register_buffer("relative_position_index", index, persistent=False)
        self.register_buffer("rel_coords_log", coords, persistent=False)

    def set_window_size(self, window_size: int | Size) -> None:
        """Change the window; the weights stay."""
        self.window_size = to_2tuple(window_size)
        self.init_non_persistent_buffers()

    def get_bias(self) -> Tensor:
        """(1, num_heads, N, N), to be added to the logits [query, key]."""
        table = self.mlp(self.rel_coords_log).flatten(0, 1)
        bias = table[self.relative_position_index].permute(2, 0, 1)
        if self.mode == "swin":
            bias = 16 * bias.sigmoid()
        if self.prefix_tokens:
            bias = F.pad(bias, [self.prefix_tokens, 0, self.prefix_tokens, 0])
        return bias.unsqueeze(0).contiguous()

    def forward(self, attn: Tensor, shared_rel_pos: Tensor | None = None) -> Tensor:
        return attn + self.get_bias()


def _offsets(window: Size) -> tuple[int, ...]:
    """How many different vertical and horizontal offsets there are between two positions of a window."""
    return tuple(2 * n - 1 for n in window)


# other windows


def resize_rel_pos_bias_table(
    rel_pos_bias: Tensor, new_window_size: Size, new_bias_shape: Sequence[int], old_window_size: Size | None = None
) -> Tensor:
    """Interpolate a table of biases to another window.

    Near offsets matter more than far ones: the table's offsets are taken to lie at geometrically growing distances
    whose range is that of the new window, and the new window's offsets are interpolated linearly between them (BEiT's
    scheme, with timm's linear interpolation in place of a cubic one).

    Args:
        rel_pos_bias: (offsets + rows for a class token, heads), or (heads, 2 wh - 1, 2 ww - 1).
        new_window_size: (wh, ww) wanted.
        new_bias_shape: Shape of the new table: it says how many rows belong to a class token; they are kept.
        old_window_size: The window there is; a square one unless given, or the new one if a square cannot be.

    Returns:
        The table of the new window, of `new_bias_shape`.

    Raises:
        ValueError: The table fits no square window and none is given.
    """
    new_size = _offsets(new_window_size)
    if rel_pos_bias.ndim == 3:
        heads, *old_size = rel_pos_bias.shape
        if tuple(old_size) == new_size:
            return rel_pos_bias
        flat = resize_rel_pos_bias_table(rel_pos_bias.flatten(1).T, new_window_size, (math.prod(new_size), heads),
                                         [(n + 1) // 2 for n in old_size])
        return flat.T.reshape(new_bias_shape)
    table, extra, count = _split_extra(rel_pos_bias, new_size, new_bias_shape)
    if old_window_size is not None:
        old_size = _offsets(old_window_size)
    else:
        side = math.isqrt(count)
        if side * side == count:
            old_size = (side, side)
        elif count == math.prod(new_size):
            old_size = new_size
        else:
            raise ValueError(f"a bias table of {count} offsets belongs to no square window; its window must be given")
    if old_size == new_size:
        return rel_pos_bias
    if rel_pos_bias.is_meta:
        return rel_pos_bias.new_empty(tuple(new_bias_shape))
    grid = table.float().reshape(*old_size, -1)
    for dim in (0, 1):
        grid = _interpolate(grid, dim, _geometric_positions(old_size[dim], new_size[dim]), new_size[dim])
    return torch.cat((grid.flatten(0, 1).to(rel_pos_bias.dtype), extra))


def resize_rel_pos_bias_table_simple(
    rel_pos_bias: Tensor, new_window_size: Size, new_bias_shape: Sequence[int]
) -> Tensor:
    """`resize_rel_pos_bias_table` by plain bicubic interpolation, of tables of square windows or three dimensions."""
    new_size = _offsets(new_window_size)
    if rel_pos_bias.ndim == 3:
        return _resize_maps(rel_pos_bias, new_size, align_corners=False)
    table, extra, count = _split_extra(rel_pos_bias, new_size, new_bias_shape)
    side = math.isqrt(count)
    resized = _resize_maps(table.T.unflatten(1, (side, side)), new_size, align_corners=False)
    return torch.cat((resized.flatten(1).T, extra))


def resize_rel_pos_bias_table_levit(
    position_bias_table: Tensor, new_size: Sequence[int], interpolation: str = "bicubic", antialias: bool = True
) -> Tensor:
    """Interpolate a table (offsets, heads) of a square map to `new_size`, another number of offsets and the heads."""
    old, new = (math.isqrt(count) for count in (position_bias_table.shape[0], new_size[0]))
    maps = position_bias_table.float().T.unflatten(1, (old, old))
    maps = _resize_maps(maps, (new, new), mode=interpolation, antialias=antialias)
    return maps.flatten(1).T.to(position_bias_table.dtype)


def _resize_maps(maps: Tensor, size: Size, mode: str = "bicubic", **kwargs: bool) -> Tensor:
    if tuple(maps.shape[1:]) == tuple(size):
        return maps
    return F.interpolate(maps.unsqueeze(0), size=tuple(size), mode=mode, **kwargs).squeeze(0)


def _split_extra(table: Tensor, new_size: Size, new_shape: Sequence[int]) -> tuple[Tensor, Tensor, int]:
    """The table's rows for offsets, those for a class token, and how many rows there are for offsets."""
    count = table.shape[0] - (new_shape[0] - math.prod(new_size))
    return table[:count], table[count:], count


def _geometric_positions(old: int, new: int) -> Tensor:
    """Positions, symmetric around 0, of `old` offsets whose steps grow geometrically to reach about `new` // 2."""
    half, reach = old // 2, new // 2
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        ratio = (low + high) / 2
        if (1 - ratio**half) / (1 - ratio) > reach:
            high = ratio
        else:
            low = ratio
    distances, distance = [], 1.0
    for step in range(1, half + 1):
        distances.append(distance)
        distance += ratio**step
    return torch.tensor([*(-d for d in reversed(distances)), 0.0, *distances], dtype=torch.float32)


def _interpolate(grid: Tensor, dim: int, positions: Tensor, new: int) -> Tensor:
    """Linear interpolation along `dim` from `positions` to the integers around 0; beyond the ends, the end's value."""
    positions = positions.to(grid.device)
    targets = torch.arange(new, dtype=torch.float32, device=grid.device) - new // 2
    right = torch.bucketize(targets, positions).clamp(max=len(positions) - 1)
    left = (right - 1).clamp(min=0)
    to_left = (targets - positions[left]).clamp(min=0)
    to_right = (positions[right] - targets).clamp(min=0)
    at_point = (to_left == 0) & (to_right == 0)
    to_left, to_right = (torch.where(at_point, torch.ones_like(d), d) for d in (to_left, to_right))
    shape = [1] * grid.ndim
    shape[dim] = -1
    weighted = grid.index_select(dim, left) * to_right.view(shape) + grid.index_select(dim, right) * to_left.view(shape)
    return weighted / (to_left + to_right).view(shape)
