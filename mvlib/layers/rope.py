"""Positions as waves: sine-cosine and Fourier embeddings of a grid, and rotary embeddings of queries and keys.

A rotary embedding turns each pair of a head's channels by an angle that grows with the position: rows, columns, or a
learned mixture of both. It is made once for a grid, (N, 2 * dim): sines, then cosines; and applied in each block by
`apply_rot_embed_cat`. Pairs are neighbours (0 with 1, 2 with 3, ...) or, with `rotate_half`, halves (0 with dim / 2).

Source: Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021; in two dimensions as EVA-02,
DINOv3 (centred coordinates, shifted and stretched in training) and Heo et al., 2024 (mixed, learned).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .helpers import placeable

__all__ = [
    "FourierEmbed", "RotaryEmbedding", "RotaryEmbeddingCat", "RotaryEmbeddingDinoV3", "RotaryEmbeddingMRope",
    "RotaryEmbeddingMixed", "apply_keep_indices_nlc", "apply_rot_embed", "apply_rot_embed_cat", "apply_rot_embed_list",
    "build_fourier_pos_embed", "build_rotary_pos_embed", "build_sincos2d_pos_embed", "create_rope_embed", "freq_bands",
    "get_mixed_freqs", "get_mixed_grid", "init_random_2d_freqs", "make_coords_dinov3", "pixel_freq_bands",
    "rope_rotate_half", "rot", "swap_shape_xy",
]

Size = Sequence[int]
Device = torch.device | str | None


def pixel_freq_bands(
    num_bands: int, max_freq: float = 224.0, linear_bands: bool = True, device: Device = None
) -> Tensor:
    """Angular frequencies (num_bands,) from pi to pi * `max_freq` / 2, evenly spaced, or their logarithms are."""
    if linear_bands:
        bands = torch.linspace(1.0, max_freq / 2, num_bands, dtype=torch.float32, device=device)
    else:
        bands = 2 ** torch.linspace(0, math.log2(max_freq) - 1, num_bands, dtype=torch.float32, device=device)
    return bands * torch.pi


def freq_bands(num_bands: int, temperature: float = 10000.0, step: int = 2, device: Device = None) -> Tensor:
    """Frequencies that fall geometrically from 1 towards 1 / `temperature`, every `step`-th of `num_bands`."""
    exponents = torch.arange(0, num_bands, step, dtype=torch.int64, device=device).float() / num_bands
    return 1.0 / temperature**exponents


def build_sincos2d_pos_embed(
    feat_shape: Size,
    dim: int = 64,
    temperature: float = 10000.0,
    reverse_coord: bool = False,
    interleave_sin_cos: bool = False,
    device: Device = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The fixed embedding (rows * columns, dim) of a grid's positions: sines and cosines of rows, then of columns.

    Args:
        feat_shape: Rows and columns.
        dim: Channels, a multiple of 4.
        temperature: See `freq_bands`.
        reverse_coord: Columns first, as the grid's shape and as the coordinate.
        interleave_sin_cos: Sine and cosine of each frequency side by side.
    """
    if dim % 4:
        raise ValueError(f"a sine-cosine embedding has a multiple of 4 channels, not {dim}")
    shape = feat_shape[::-1] if reverse_coord else feat_shape
    grid = _grid(list(shape), device=device).flatten(0, -2)  # type: ignore[arg-type]  # or its name
    angles = grid.unsqueeze(-1) * freq_bands(dim // 4, temperature, 1, device)
    return torch.stack((angles.sin(), angles.cos()), dim=2 if interleave_sin_cos else 1).flatten(1).to(dtype)


def swap_shape_xy(seq: Size) -> list[int]:
    """A shape with its first two numbers exchanged."""
    return [*seq[1::-1], *seq[2:]]


@torch.fx.wrap  # one node in a traced graph: it depends on the map's size
def _grid(
    feat_shape: list[int],
    grid_type: str = "index",
    ref_feat_shape: list[int] | None = None,
    grid_offset: float = 0.0,
    grid_indexing: str = "ij",
    normalize_coords: str = "separate",
    device: torch.device | None = None,
) -> Tensor:
    """Coordinates of a grid's positions, (*feat_shape, dimensions), float32; see `build_fourier_pos_embed`.

    TorchScript reads this function: shapes may be any sequences, and the device a name.
    """
    order = list(range(len(feat_shape)))
    if grid_indexing == "xy":
        order = [1, 0] + order[2:]
    common = {"separate": 0, "min": min(feat_shape), "max": max(feat_shape)}[normalize_coords]
    sides = []
    for i in order:
        n = feat_shape[i]
        if grid_type == "pixel":
            side = torch.linspace(-1.0, 1.0, n, dtype=torch.float32, device=device)
        elif grid_type == "centered":
            side = torch.arange(0.5, n, dtype=torch.float32, device=device) + grid_offset
            side = side / float(n if common == 0 else common)
        elif grid_type == "index":
            side = torch.arange(n, dtype=torch.float32, device=device) + grid_offset
        else:
            raise ValueError("grid_type '" + grid_type + "' is not one of index, pixel, centered")
        if ref_feat_shape is not None:
            side = side / n * ref_feat_shape[i]
        sides.append(side)
    grid = torch.stack(torch.meshgrid(sides, indexing=grid_indexing), dim=-1)
    return 2.0 * grid - 1.0 if grid_type == "centered" else grid


def _augment(coords: Tensor, shift: float | None, jitter: float | None, rescale: float | None) -> Tensor:
    """Move and stretch all coordinates (..., dimensions) alike, at random; in DINOv3's order."""
    if shift is not None:
        coords = coords + coords.new_empty(coords.shape[-1]).uniform_(-shift, shift)
    if jitter is not None:
        coords = coords * coords.new_empty(coords.shape[-1]).uniform_(-math.log(jitter), math.log(jitter)).exp()
    if rescale is not None:
        coords = coords * coords.new_empty(1).uniform_(-math.log(rescale), math.log(rescale)).exp()
    return coords


def build_fourier_pos_embed(
    feat_shape: Size,
    bands: Tensor | None = None,
    num_bands: int = 64,
    max_res: int = 224,
    temperature: float = 10000.0,
    linear_bands: bool = False,
    include_grid: bool = False,
    in_pixels: bool = True,
    ref_feat_shape: Size | None = None,
    grid_offset: float = 0.0,
    grid_indexing: str = "ij",
    device: Device = None,
    dtype: torch.dtype | None = torch.float32,
    grid_type: str | None = None,
    normalize_coords: str = "separate",
    shift_coords: float | None = None,
    jitter_coords: float | None = None,
    rescale_coords: float | None = None,
) -> list[Tensor]:
    """Sines and cosines of a grid's coordinates times some frequencies.

    Args:
        feat_shape: Rows and columns.
        bands: Frequencies; made of the next arguments unless given.
        num_bands: Their number.
        max_res, linear_bands: See `pixel_freq_bands`, for `in_pixels`.
        temperature: See `freq_bands`, otherwise.
        include_grid: The coordinates, too, in front.
        in_pixels: Coordinates from -1 to 1 and frequencies of pixels; otherwise positions, from 0.
        ref_feat_shape: Shape of the grid whose range of coordinates the grid gets.
        grid_offset: Added to positions.
        grid_indexing: "ij": rows first in the last dimension but one; "xy": columns.
        device, dtype: Of the result.
        grid_type: "pixel" or "index" instead of what `in_pixels` says; or "centered": middles of patches, from -1 to 1.
        normalize_coords: The side from -1 to 1, if centred: "separate" for each, "min" or "max" for one.
        shift_coords: Random shift of all coordinates of up to this, for rows and for columns.
        jitter_coords: Random factor between 1 / this and this, for rows and for columns.
        rescale_coords: Random factor between 1 / this and this, for both.

    Returns:
        [sines, cosines], each (*feat_shape, dimensions, num_bands), after the coordinates (*feat_shape, dimensions, 1).
    """
    if bands is None:
        bands = _bands(num_bands, in_pixels, max_res, temperature, linear_bands, device)
    reference = None if ref_feat_shape is None else list(ref_feat_shape)
    grid_type = grid_type or ("pixel" if in_pixels else "index")
    grid = _grid(list(feat_shape), grid_type, reference, grid_offset, grid_indexing, normalize_coords,
                 bands.device if device is None else device)  # type: ignore[arg-type]  # or its name
    grid = _augment(grid, shift_coords, jitter_coords, rescale_coords).unsqueeze(-1)
    angles = grid * bands
    waves = [wave.to(bands.dtype if dtype is None else dtype) for wave in (angles.sin(), angles.cos())]
    return [grid, *waves] if include_grid else waves


def _bands(
    count: int, in_pixels: bool, max_res: int, temperature: float, linear_bands: bool, device: Device = None
) -> Tensor:
    if in_pixels:
        return pixel_freq_bands(count, float(max_res), linear_bands, device)
    return freq_bands(count, float(temperature), 1, device)


def build_rotary_pos_embed(
    feat_shape: Size,
    bands: Tensor | None = None,
    dim: int = 64,
    max_res: int = 224,
    temperature: float = 10000.0,
    linear_bands: bool = False,
    in_pixels: bool = True,
    ref_feat_shape: Size | None = None,
    grid_offset: float = 0.0,
    grid_indexing: str = "ij",
    rotate_half: bool = False,
    device: Device = None,
    dtype: torch.dtype | None = torch.float32,
    grid_type: str | None = None,
    normalize_coords: str = "separate",
    shift_coords: float | None = None,
    jitter_coords: float | None = None,
    rescale_coords: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Sines and cosines, each (N, dim), that turn the pairs of `dim` channels at each of N positions.

    Arguments as `build_fourier_pos_embed`; `dim` is four times the number of frequencies in two dimensions.
    """
    waves = build_fourier_pos_embed(
        feat_shape, bands, dim // 4, max_res, temperature, linear_bands, False, in_pixels, ref_feat_shape, grid_offset,
        grid_indexing, device, dtype, grid_type, normalize_coords, shift_coords, jitter_coords, rescale_coords)
    sin, cos = (_for_pairs(wave.flatten(-2).flatten(0, -2), rotate_half) for wave in waves)
    return sin, cos


def _for_pairs(x: Tensor, rotate_half: bool) -> Tensor:
    """A value a pair (..., dim / 2) -> the same for both channels of the pair (..., dim)."""
    # The older ONNX exporter gets the shape of repeat_interleave wrong.
    return torch.cat((x, x), dim=-1) if rotate_half else torch.stack((x, x), dim=-1).flatten(-2)


def rot(x: Tensor) -> Tensor:
    """Pairs of neighbours (a, b) of x (..., dim), turned by a right angle: (-b, a)."""
    return torch.stack((-x[..., 1::2], x[..., ::2]), dim=-1).flatten(-2)


def rope_rotate_half(x: Tensor) -> Tensor:
    """`rot` for pairs that are halves."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


def apply_rot_embed(x: Tensor, sin_emb: Tensor, cos_emb: Tensor, half: bool = False) -> Tensor:
    """Turn the pairs of x (..., N, dim); `half` says how they lie. The result has x's type."""
    turned = rope_rotate_half(x) if half else rot(x)
    return (x * cos_emb + turned * sin_emb).to(x.dtype)


def apply_rot_embed_list(
    x: Tensor | list[Tensor], sin_emb: Tensor, cos_emb: Tensor, half: bool = False
) -> list[Tensor]:
    """`apply_rot_embed` to each of several."""
    return [apply_rot_embed(t, sin_emb, cos_emb, half) for t in ([x] if isinstance(x, Tensor) else x)]


def apply_rot_embed_cat(x: Tensor, emb: Tensor, half: bool = False) -> Tensor:
    """`apply_rot_embed` with sines and cosines in one, (..., N, 2 * dim)."""
    sin, cos = emb.chunk(2, -1)
    return apply_rot_embed(x, sin, cos, half)


def apply_keep_indices_nlc(
    x: Tensor, pos_embed: Tensor, keep_indices: Tensor, pos_embed_has_batch: bool = False
) -> Tensor:
    """The embedding of those positions that patch dropout kept of each image.

    Args:
        x: Any tensor of the batch.
        pos_embed: (..., N, C), or (B, ..., N, C) where `pos_embed_has_batch`.
        keep_indices: (B, kept).

    Returns:
        (B, ..., kept, C).
    """
    if not pos_embed_has_batch:
        pos_embed = pos_embed.unsqueeze(0).expand(x.shape[0], *(-1,) * pos_embed.ndim)
    index = keep_indices.view(keep_indices.shape[0], *(1,) * (pos_embed.ndim - 3), keep_indices.shape[1], 1)
    return pos_embed.gather(-2, index.expand(*pos_embed.shape[:-2], -1, pos_embed.shape[-1]))


# modules


class _Rotary(nn.Module):
    """What rotary embeddings share: frequencies, which stay in float32; training's random coordinates; the interface.

    A subclass computes its `frequencies`, a buffer's name or None, and embeddings by `build`.
    """

    frequencies: str | None = None
    rotate_half = False

    def compute_frequencies(self) -> Tensor:
        raise NotImplementedError

    def get_embed(self, shape: Size | None = None, dtype: torch.dtype | None = None) -> Any:
        raise NotImplementedError

    def set_up(self, feat_shape: Size | None, shift: float | None, jitter: float | None, rescale: float | None) -> None:
        if shift is not None and not 0 <= shift < math.inf:
            raise ValueError(f"shift_coords is a number of 0 or more, not {shift}")
        for name, value in (("jitter_coords", jitter), ("rescale_coords", rescale)):
            if value is not None and not 1 <= value < math.inf:
                raise ValueError(f"{name} is a factor of 1 or more, not {value}")
        self.feat_shape = feat_shape
        self.augmentation = (shift, jitter, rescale)

    @property
    def augments(self) -> bool:
        """Whether the next embedding has random coordinates."""
        return self.training and any(amount is not None for amount in self.augmentation)

    def _apply(self, fn: Any, *args: Any, **kwargs: Any) -> nn.Module:
        super()._apply(fn, *args, **kwargs)  # type: ignore[no-untyped-call]
        if self.frequencies is not None:
            values = getattr(self, self.frequencies)
            if values.dtype.itemsize < 4:  # half precision spoils angles at far positions
                values = self.compute_frequencies().to(values.device) if not values.is_meta else values.float()
                self.register_buffer(self.frequencies, values, persistent=False)
        return self

    def get_batch_embeds(
        self, shapes: Sequence[Size], seq_len: int | None = None, dtype: torch.dtype | None = None
    ) -> Tensor | list[Tensor]:
        """Embeddings of several grids; with `seq_len` as one tensor, filled up with zeros to so many positions."""
        embeds = [self.get_embed(list(shape), dtype) for shape in shapes]
        if seq_len is None or not embeds:
            return embeds
        if max(embed.shape[-2] for embed in embeds) > seq_len:
            raise ValueError(f"seq_len {seq_len} is less than the positions of a grid")
        return torch.stack([nn.functional.pad(embed, (0, 0, 0, seq_len - embed.shape[-2])) for embed in embeds])

    def forward(self, x: Tensor) -> Tensor:
        """Turn the channels of a map (B, dim, H, W)."""
        turned = self.rotate(x.flatten(2).transpose(1, 2), self.get_embed(x.shape[2:]))
        return turned.transpose(1, 2).reshape(x.shape)

    def rotate(self, x: Tensor, embed: Any) -> Tensor:
        return apply_rot_embed_cat(x, embed, self.rotate_half)


class FourierEmbed(nn.Module):
    """A map and the Fourier embedding of its positions, side by side; no keys.

    Shapes: (B, C, H, W) -> (B, H * W, C'), or (B, C', H, W) with `keep_spatial`; C' is C + 4 * num_bands, and 2 more
    with `concat_grid`.

    Args:
        max_res, num_bands: See `pixel_freq_bands`.
        concat_grid: The coordinates, too.
        keep_spatial: A map as output.
    """

    bands: Tensor

    @placeable
    def __init__(
        self, max_res: int = 224, num_bands: int = 64, concat_grid: bool = True, keep_spatial: bool = False
    ) -> None:
        super().__init__()
        self.max_res = max_res
        self.num_bands = num_bands
        self.concat_grid = concat_grid
        self.keep_spatial = keep_spatial
        self.register_buffer("bands", torch.empty(num_bands), persistent=False)
        if not self.bands.is_meta:
            self.init_non_persistent_buffers()

    def init_non_persistent_buffers(self) -> None:
        self.bands.copy_(pixel_freq_bands(self.num_bands, self.max_res))

    def forward(self, x: Tensor) -> Tensor:
        waves = build_fourier_pos_embed(
            x.shape[2:], self.bands, include_grid=self.concat_grid, dtype=x.dtype, device=x.device)
        embed = torch.cat(waves, dim=-1).transpose(-1, -2).flatten(2).permute(2, 0, 1)  # (C' - C, H, W)
        x = torch.cat((x, embed.to(x.dtype).expand(x.shape[0], -1, -1, -1)), dim=1)
        return x if self.keep_spatial else x.flatten(2).transpose(1, 2)


class RotaryEmbeddingCat(_Rotary):
    """Rotary embedding of rows and columns, (N, 2 * dim); no keys.

    Arguments as `build_rotary_pos_embed`. With a `feat_shape` the embedding is computed once, for that grid; otherwise
    for the shape that `get_embed` is given. Random coordinates are for training alone.
    """

    bands: Tensor
    frequencies = "bands"
    caches: tuple[str, ...] = ("pos_embed",)

    @placeable
    def __init__(
        self,
        dim: int,
        max_res: int = 224,
        temperature: float = 10000,
        in_pixels: bool = True,
        linear_bands: bool = False,
        feat_shape: Size | None = None,
        ref_feat_shape: Size | None = None,
        grid_offset: float = 0.0,
        grid_indexing: str = "ij",
        rotate_half: bool = False,
        grid_type: str | None = None,
        normalize_coords: str = "separate",
        shift_coords: float | None = None,
        jitter_coords: float | None = None,
        rescale_coords: float | None = None,
    ) -> None:
        super().__init__()
        self.set_up(feat_shape, shift_coords, jitter_coords, rescale_coords)
        self.dim = dim
        self.rotate_half = rotate_half
        self.band_args = (dim // 4, in_pixels, max_res, temperature, linear_bands)
        self.grid_args: dict[str, Any] = dict(
            ref_feat_shape=ref_feat_shape, grid_offset=grid_offset, grid_indexing=grid_indexing,
            grid_type=grid_type or ("pixel" if in_pixels else "index"), normalize_coords=normalize_coords)
        self._register()

    def _register(self) -> None:
        self.register_buffer(self.frequencies, torch.empty(self.dim // 4), persistent=False)
        count = None if self.feat_shape is None else math.prod(self.feat_shape)
        for name in self.caches:
            value = None if count is None else torch.empty(count, 2 * self.dim // len(self.caches))
            self.register_buffer(name, value, persistent=False)
        if not getattr(self, self.frequencies).is_meta:
            self.init_non_persistent_buffers()

    def compute_frequencies(self) -> Tensor:
        return _bands(*self.band_args, device="cpu")

    def init_non_persistent_buffers(self) -> None:
        getattr(self, self.frequencies).copy_(self.compute_frequencies())
        if self.feat_shape is not None:
            for name, value in zip(self.caches, self._in_parts(self.build(self.feat_shape, None))):
                old = getattr(self, name)
                self.register_buffer(name, value.to(old.device, old.dtype), persistent=False)

    def build(
        self, shape: Size, dtype: torch.dtype | None, augmentation: tuple[Any, ...] = (None,) * 3
    ) -> tuple[Tensor, Tensor]:
        return build_rotary_pos_embed(
            list(shape), self.bands, dtype=dtype or torch.float32, rotate_half=self.rotate_half, **self.grid_args,
            **dict(zip(("shift_coords", "jitter_coords", "rescale_coords"), augmentation)))

    def _in_parts(self, waves: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        return (torch.cat(waves, dim=-1),)

    def update_feat_shape(self, feat_shape: Size) -> None:
        """Change the grid that the embedding is computed for, where it is."""
        if self.feat_shape is not None and list(feat_shape) != list(self.feat_shape):
            self.feat_shape = feat_shape
            self.init_non_persistent_buffers()

    def get_embed(self, shape: Size | None = None, dtype: torch.dtype | None = None) -> Any:
        """The embedding, (N, 2 * dim), of a grid of `shape`; where there is a `feat_shape`, of that grid.

        Raises:
            ValueError: There is neither.
        """
        if self.feat_shape is not None:
            shape = self.feat_shape
            if not self.augments:
                parts = tuple(getattr(self, name) for name in self.caches)
                return self._out(parts if dtype is None else tuple(part.to(dtype) for part in parts))
        if shape is None:
            raise ValueError("the shape of the grid is needed, here or as feat_shape")
        return self._out(self._in_parts(self.build(shape, dtype, self.augmentation if self.augments else (None,) * 3)))

    def _out(self, parts: tuple[Tensor, ...]) -> Any:
        return parts[0] if len(parts) == 1 else parts

    def get_batch_embeds(
        self, shapes: Sequence[Size], seq_len: int | None = None, dtype: torch.dtype | None = None
    ) -> Tensor | list[Tensor]:
        if shapes and self.feat_shape is not None:
            raise RuntimeError("an embedding that is made for one feat_shape has none for others")
        return super().get_batch_embeds(shapes, seq_len, dtype)


class RotaryEmbedding(RotaryEmbeddingCat):
    """`RotaryEmbeddingCat` whose embedding is a pair: sines and cosines, each (N, dim)."""

    caches = ("pos_embed_sin", "pos_embed_cos")

    def _in_parts(self, waves: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        return waves

    def rotate(self, x: Tensor, embed: Any) -> Tensor:
        sin, cos = embed
        return apply_rot_embed(x, sin, cos, self.rotate_half)


class RotaryEmbeddingDinoV3(RotaryEmbeddingCat):
    """DINOv3's rotary embedding (N, 2 * dim): wavelengths in grids, coordinates of patches' middles; no keys.

    Args:
        dim: Channels of a head.
        temperature: Wavelengths grow geometrically from 1 towards it;
        min_period, max_period: or, where both are given, from one to the other.
        feat_shape: Grid that the embedding is computed once for; `get_embed` with another shape computes that.
        Others: As `build_fourier_pos_embed`.

    Raises:
        ValueError: There is neither a temperature nor both periods.
    """

    periods: Tensor
    frequencies = "periods"
    caches = ("pos_embed_cached",)

    @placeable
    def __init__(
        self,
        dim: int,
        temperature: float | None = 100.0,
        min_period: float | None = None,
        max_period: float | None = None,
        feat_shape: Size | None = None,
        normalize_coords: str = "separate",
        grid_offset: float = 0.0,
        grid_indexing: str = "ij",
        rotate_half: bool = True,
        shift_coords: float | None = None,
        jitter_coords: float | None = None,
        rescale_coords: float | None = None,
    ) -> None:
        nn.Module.__init__(self)
        self.set_up(feat_shape, shift_coords, jitter_coords, rescale_coords)
        if temperature is None and (min_period is None or max_period is None):
            raise ValueError("wavelengths need a temperature, or min_period and max_period")
        self.dim = dim
        self.rotate_half = rotate_half
        self.period_args: tuple[Any, ...] = (temperature, min_period, max_period)
        self.grid_args = dict(
            grid_type="centered", grid_offset=grid_offset, grid_indexing=grid_indexing,
            normalize_coords=normalize_coords)
        self._register()

    def compute_frequencies(self) -> Tensor:
        temperature, low, high = self.period_args
        count = self.dim // 4
        if low is not None and high is not None:
            return low * (high / low) ** torch.linspace(0, 1, count, dtype=torch.float32, device="cpu")
        exponents = 2.0 * torch.arange(count, dtype=torch.float32, device="cpu") / (self.dim // 2)
        return float(temperature) ** exponents

    def build(
        self, shape: Size, dtype: torch.dtype | None, augmentation: tuple[Any, ...] = (None,) * 3
    ) -> tuple[Tensor, Tensor]:
        grid = _grid(list(shape), device="cpu", **self.grid_args)  # type: ignore[arg-type]  # or its name
        coords = _augment(grid.flatten(0, -2), *augmentation)
        angles = (2 * math.pi * coords.unsqueeze(-1).to(self.periods) / self.periods).flatten(1)
        sin, cos = (_for_pairs(wave, self.rotate_half).to(dtype or wave.dtype) for wave in (angles.sin(), angles.cos()))
        return sin, cos

    def get_embed(self, shape: Size | None = None, dtype: torch.dtype | None = None) -> Tensor:
        if shape is None:
            return super().get_embed(None, dtype)
        return torch.cat(self.build(shape, dtype, self.augmentation if self.augments else (None,) * 3), dim=-1)

    def get_batch_embeds(
        self, shapes: Sequence[Size], seq_len: int | None = None, dtype: torch.dtype | None = None
    ) -> Tensor | list[Tensor]:
        return _Rotary.get_batch_embeds(self, shapes, seq_len, dtype)


class RotaryEmbeddingMRope(_Rotary):
    """Rotary embedding whose frequencies serve time, rows and columns in turns, (N, 2 * dim); no keys.

    An image's time is 0: the channels of time are not turned. Pairs are halves.
    Source: Wang et al., "Qwen2-VL: Enhancing Vision-Language Model's Perception of the World at Any Resolution", 2024.

    Args:
        dim: Channels of a head.
        mrope_section: Turns that time (of no effect), rows and columns get; time has what the two leave.
        temperature: See `freq_bands`.
        grid_indexing: "ij".
        shift_coords, jitter_coords, rescale_coords: See `build_fourier_pos_embed`.

    Raises:
        ValueError: The channels are odd, a section is negative, or the indexing is another.
    """

    inv_freq: Tensor
    axis: Tensor
    frequencies = "inv_freq"
    rotate_half = True

    @placeable
    def __init__(
        self,
        dim: int,
        mrope_section: tuple[int, int, int] = (8, 12, 12),
        temperature: float = 10000.0,
        grid_indexing: str = "ij",
        shift_coords: float | None = None,
        jitter_coords: float | None = None,
        rescale_coords: float | None = None,
    ) -> None:
        super().__init__()
        if dim % 2 or min(mrope_section) < 0 or grid_indexing != "ij":
            raise ValueError(f"dim {dim} is even, mrope_section {mrope_section} not negative, and grid_indexing "
                             f"{grid_indexing!r} 'ij'")
        self.set_up(None, shift_coords, jitter_coords, rescale_coords)
        self.dim = dim
        self.mrope_section = mrope_section
        self.temperature = temperature
        self.grid_indexing = grid_indexing
        self.register_buffer("inv_freq", torch.empty(dim // 2), persistent=False)
        self.register_buffer("axis", torch.empty(dim // 2, dtype=torch.long), persistent=False)
        if not self.inv_freq.is_meta:
            self.init_non_persistent_buffers()

    def compute_frequencies(self) -> Tensor:
        return freq_bands(self.dim, float(self.temperature), 2, "cpu")

    def init_non_persistent_buffers(self) -> None:
        self.inv_freq.copy_(self.compute_frequencies())
        _, rows, columns = self.mrope_section
        self.axis.zero_()  # time
        self.axis[1:3 * rows:3] = 1
        self.axis[2:3 * columns:3] = 2

    def get_embed(self, shape: Size | None = None, dtype: torch.dtype | None = None) -> Tensor:
        """The embedding of a grid of `shape`.

        Raises:
            ValueError: There is none.
        """
        if shape is None:
            raise ValueError("the shape of the grid is needed")
        grid = _grid(list(shape), device=self.inv_freq.device).flatten(0, -2)
        grid = _augment(grid, *self.augmentation) if self.augments else grid
        angles = nn.functional.pad(grid, (1, 0))[:, self.axis] * self.inv_freq
        waves = torch.cat((_for_pairs(angles.sin(), True), _for_pairs(angles.cos(), True)), dim=-1)
        return waves if dtype is None else waves.to(dtype)


class RotaryEmbeddingMixed(_Rotary):
    """Rotary embeddings with frequencies for rows and columns learned by each block and head; key `freqs`.

    Args:
        dim: Channels of all heads.
        depth: Blocks.
        num_heads: Heads of a block.
        temperature: Frequencies fall geometrically from 1 towards 1 / this at first, in random directions.
        feat_shape: Grid that embeddings are for unless `get_embed` is given another.
        grid_indexing: "xy": the first of `freqs` is for columns; "ij": for rows.
        shift_coords, jitter_coords, rescale_coords: See `build_fourier_pos_embed`.

    Raises:
        ValueError: A head's channels are no multiple of 4.
    """

    @placeable
    def __init__(
        self,
        dim: int,
        depth: int,
        num_heads: int,
        temperature: float = 10.0,
        feat_shape: Size | None = None,
        grid_indexing: str = "xy",
        shift_coords: float | None = None,
        jitter_coords: float | None = None,
        rescale_coords: float | None = None,
    ) -> None:
        super().__init__()
        if dim // num_heads % 4:
            raise ValueError(f"a head has a multiple of 4 channels, not {dim // num_heads}")
        self.set_up(feat_shape, shift_coords, jitter_coords, rescale_coords)
        self.dim = dim
        self.depth = depth
        self.num_heads = num_heads
        self.temperature = temperature
        self.grid_indexing = grid_indexing
        self.freqs = nn.Parameter(torch.empty(2, depth, num_heads, dim // num_heads // 2))
        if not self.freqs.is_meta:
            self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        self.freqs.copy_(init_random_2d_freqs(
            self.dim // self.num_heads, self.depth, self.num_heads, self.temperature, device=self.freqs.device))

    def update_feat_shape(self, feat_shape: Size) -> None:
        """Change the grid that embeddings are for, where there is one."""
        if self.feat_shape is not None:
            self.feat_shape = feat_shape

    def get_embed(self, shape: Size | None = None, dtype: torch.dtype | None = None) -> Tensor:
        """Embeddings of all blocks and heads: (depth, num_heads, N, 2 * head_dim).

        Raises:
            ValueError: There is neither a shape here nor `feat_shape`.
        """
        shape = self.feat_shape if shape is None else shape
        if shape is None:
            raise ValueError("the shape of the grid is needed, here or as feat_shape")
        coords = _grid(list(shape), grid_indexing=self.grid_indexing, device=self.freqs.device).flatten(0, -2)
        if self.augments:
            coords = _augment(coords, *self.augmentation)
            dtype = dtype or torch.promote_types(self.freqs.dtype, torch.float32)
        t_x, t_y = coords.unbind(-1)
        return get_mixed_freqs(self.freqs, t_x, t_y, dtype)

    def forward(self, x: Tensor, block_index: int = 0) -> Tensor:
        """Turn the channels of a map (B, dim, H, W), by the frequencies of one block."""
        heads = x.unflatten(1, (self.num_heads, -1)).flatten(3).transpose(-2, -1)
        turned = apply_rot_embed_cat(heads, self.get_embed(x.shape[2:])[block_index])
        return turned.transpose(-2, -1).reshape(x.shape)

    def no_weight_decay(self) -> set[str]:
        return {"freqs"}


def init_random_2d_freqs(
    head_dim: int, depth: int, num_heads: int, temperature: float = 10.0, rotate: bool = True, *, device: Device = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Frequencies for rows and columns, (2, depth, num_heads, head_dim / 2): in random directions where `rotate`."""
    size = 1.0 / temperature ** (torch.arange(0, head_dim, 4, device=device, dtype=dtype) / head_dim)
    shape = (depth, num_heads, 1)
    angle = torch.rand(shape, device=device, dtype=dtype) * 2 * torch.pi if rotate else size.new_zeros(shape)
    both = torch.cat([(angle + turn).expand(-1, -1, len(size)) for turn in (0.0, torch.pi / 2)], dim=-1)
    return torch.stack((both.cos(), both.sin())) * size.repeat(2)


def get_mixed_grid(
    shape: Size, grid_indexing: str = "ij", device: Device = None, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """The two coordinates of each position of a grid, (N,) each, as `get_mixed_freqs` takes them."""
    grid = _grid(list(shape), grid_indexing=grid_indexing, device=device)  # type: ignore[arg-type]  # or its name
    first, second = grid.flatten(0, -2).to(dtype).unbind(-1)
    return first.contiguous(), second.contiguous()


def make_coords_dinov3(
    height: int,
    width: int,
    normalize_coords: str = "separate",
    grid_indexing: str = "ij",
    grid_offset: float = 0.0,
    device: Device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Coordinates of patches' middles, from -1 to 1, (height * width, 2); see `build_fourier_pos_embed`."""
    grid = _grid(
        [height, width], "centered", None, grid_offset, grid_indexing, normalize_coords, device)  # type: ignore[arg-type]  # or its name
    return grid.flatten(0, 1).to(dtype)


def get_mixed_freqs(freqs: Tensor, t_x: Tensor, t_y: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Sines and cosines (..., N, 2 * dim) of positions (N,) at frequencies (2, ..., dim / 2); pairs are neighbours."""
    first, second = freqs.float().unsqueeze(-2)
    angles = t_x.float().unsqueeze(-1) * first + t_y.float().unsqueeze(-1) * second
    waves = torch.cat((_for_pairs(angles.sin(), False), _for_pairs(angles.cos(), False)), dim=-1)
    return waves.to(freqs.dtype if dtype is None else dtype)


def create_rope_embed(rope_type: str = "cat", dim: int = 768, num_heads: int = 12, **kwargs: Any) -> nn.Module:
    """A rotary embedding for heads of `dim` / `num_heads` channels: "base", "cat", "mixed", "dinov3" or "mrope".

    The last three are given `in_pixels` and `ref_feat_shape` in vain, the last `feat_shape`, too.

    Raises:
        ValueError: The type is unknown, or "mixed" is to rotate halves, or "mrope" neighbours.
    """
    kinds: dict[str, Callable[..., nn.Module]] = {
        "base": RotaryEmbedding, "cat": RotaryEmbeddingCat, "mixed": RotaryEmbeddingMixed,
        "dinov3": RotaryEmbeddingDinoV3, "mrope": RotaryEmbeddingMRope}
    if rope_type not in kinds:
        raise ValueError(f"unknown rope_type {rope_type!r}; known: {', '.join(kinds)}")
    if rope_type in ("mixed", "dinov3", "mrope"):
        kwargs.pop("in_pixels", None)
        kwargs.pop("ref_feat_shape", None)
    if rope_type == "mrope":
        kwargs.pop("feat_shape", None)
        if not kwargs.pop("rotate_half", True):
            raise ValueError("mrope rotary embeddings have halves as pairs, no neighbours")
    if rope_type == "mixed":
        if kwargs.pop("rotate_half", False):
            raise ValueError("mixed rotary embeddings have neighbours as pairs, no halves")
        return RotaryEmbeddingMixed(dim, num_heads=num_heads, **kwargs)
    return kinds[rope_type](dim // num_heads, **kwargs)
