"""PIL's antialiased resizing of 8-bit images, on torch's matrix products: within one step of PIL, and faster.

PIL resizes in two passes, and rounds and clips to 8 bits after each, with coefficients of 22 bits. So does this, with
coefficients of float32. Only where a sum of the first pass is so near to the edge between two steps that PIL may have
rounded it the other way, it is left unrounded: half a step at most, weighted by coefficients whose absolute values sum
to 1.4 at most. So results differ by less than one step before the last rounding, and by one step at most after it; of a
photograph's, a few in a hundred thousand do. Only pixels that the caller wants are computed.

Where both sides shrink and no coefficient is negative (bilinear), or shrink a lot, torch's 8-bit kernels do the same
several times sooner, with coefficients of 16 bits: a value in a few hundred differs by one step. Two steps are possible
in theory, but want patterns that no photograph has (of noise and grids made for it, one value in fifty million).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .geometry import takes_rows_first

__all__ = ["FILTERS", "resample"]

_BLOCK = 8  # results computed by one matrix product: it reads as many inputs as all of them need
_KERNEL_SHRINK = {"bilinear": 1.0, "bicubic": 3.5}  # times, from where on torch's kernels are taken
_EDGE = 0.4998  # of a step: what is rounded by more may be rounded the other way by PIL


def _box(x: np.ndarray) -> np.ndarray:
    return ((x > -0.5) & (x <= 0.5)).astype(np.float64)


def _bilinear(x: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(x), 0)


def _hamming(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < 1, np.sinc(x) * (0.54 + 0.46 * np.cos(np.pi * x)), 0)


def _bicubic(x: np.ndarray, a: float = -0.5) -> np.ndarray:
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _lanczos(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)


# What PIL convolves with, and how far it reaches.
FILTERS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float]] = {
    "box": (_box, 0.5), "bilinear": (_bilinear, 1.0), "hamming": (_hamming, 1.0), "bicubic": (_bicubic, 2.0),
    "lanczos": (_lanczos, 3.0),
}


class _Window(NamedTuple):
    """Results from `first` on, and before `last`, of an axis that is resized from `old` to `new` pixels."""

    old: int
    new: int
    first: int
    last: int

    @property
    def shrink(self) -> float:
        return self.old / self.new


class _Band(NamedTuple):
    """How a window is computed: results in blocks, each a product of weights with the inputs that the block reads.

    Block k reads `width` inputs from `first` + k * `step` on; behind the last input there are `padding` zeros.

    Attributes:
        first, last: The inputs that are read, first and last.
        weights: (blocks, results of a block, width).
        count: Results; those of the last block that go beyond are void.
    """

    first: int
    last: int
    step: int
    padding: int
    weights: Tensor
    count: int

    @property
    def width(self) -> int:
        return self.weights.shape[2]


@lru_cache(maxsize=64)
def _interleaved(window: _Window, name: str, channels: int) -> Tensor:
    """Weights of a band, for pixels whose channels lie side by side: (blocks, width * channels, results * channels).

    Most of them are zeros, whose products take less time than parting the channels would.
    """
    weights = _band(window, name).weights
    blocks, results, width = weights.shape
    wide = weights.new_zeros(blocks, width, channels, results, channels)
    for channel in range(channels):
        wide[:, :, channel, :, channel] = weights.transpose(1, 2)
    return wide.view(blocks, width * channels, results * channels)


@lru_cache(maxsize=256)
def _band(window: _Window, name: str) -> _Band:
    kernel, reach = FILTERS[name]
    scale = window.shrink
    wide = max(scale, 1.0)
    centres = (np.arange(window.first, window.last) + 0.5) * scale
    low = np.maximum((centres - reach * wide + 0.5).astype(int), 0)  # PIL's rounding: towards zero
    high = np.minimum((centres + reach * wide + 0.5).astype(int), window.old)
    starts, ends = low[::_BLOCK], np.maximum.reduceat(high, np.arange(0, len(high), _BLOCK))
    first, step, width = _even_reads(starts, ends)
    order = np.repeat(np.arange(len(starts)), _BLOCK)[:len(centres), None]
    inputs = first + order * step + np.arange(width)
    inside = (inputs >= low[:, None]) & (inputs < high[:, None])
    weights = np.zeros((len(starts) * _BLOCK, width))
    weights[:len(centres)] = kernel((inputs - centres[:, None] + 0.5) / wide) * inside
    weights[:len(centres)] /= weights[:len(centres)].sum(axis=1, keepdims=True)
    last = min(int(inputs.max()) + 1, window.old)
    padding = max(int(inputs.max()) + 1 - last, 0)
    return _Band(first, last, step, padding, torch.from_numpy(weights).float().view(-1, _BLOCK, width), len(centres))


def _even_reads(starts: np.ndarray, ends: np.ndarray) -> tuple[int, int, int]:
    """(first, step, width), so that first + k * step + [0, width) covers [starts[k], ends[k]), width at its least."""
    order = np.arange(len(starts))
    slope = (starts[-1] - starts[0]) // max(len(starts) - 1, 1)
    choices = []
    for step in {slope, slope + 1, ((starts[1:] - starts[0]) // order[1:]).min(initial=slope)}:
        first = (starts - order * step).min()
        if first >= 0:
            choices.append(((ends - order * step).max() - first, step, first))
    width, step, first = min(choices)
    return int(first), int(step), int(width)


def _rows(pixels: Tensor, band: _Band) -> Tensor:
    """Resize the first axis of (inputs, values): (results, values)."""
    if band.padding:
        pixels = torch.cat([pixels, pixels.new_zeros(band.padding, pixels.shape[1])])
    values = pixels.shape[1]
    read = pixels.as_strided((len(band.weights), band.width, values), (band.step * values, values, 1))
    return torch.bmm(band.weights, read).view(-1, values)[:band.count]


def _columns(pixels: Tensor, band: _Band, weights: Tensor) -> Tensor:
    """Resize the middle axis of (rows, inputs, channels), with `_interleaved` weights: (rows, results, channels)."""
    rows, _, channels = pixels.shape
    if band.padding:
        pixels = torch.cat([pixels, pixels.new_zeros(rows, band.padding, channels)], dim=1)
    blocks, width, results = weights.shape
    read = pixels.as_strided((blocks, rows, width), (band.step * channels, pixels.stride(0), 1))
    resized = pixels.new_empty(rows, blocks, results)
    torch.bmm(read, weights, out=resized.transpose(0, 1))
    return resized.view(rows, -1, channels)[:, :band.count]


def resample(
    pixels: Tensor, size: tuple[int, int], name: str, box: tuple[int, int, int, int], exact: bool = True
) -> Tensor:
    """Resize an image as PIL does, and cut a box out of the result.

    Args:
        pixels: uint8 (height, width, channels), best contiguous.
        size: (height, width) that the whole image gets.
        name: One of `FILTERS`.
        box: (top, left, bottom, right) in the resized image, not empty.
        exact: Whether bicubic results that shrink little have to be PIL's; torch's kernels are twice as fast, and of a
            photograph one value in three hundred thousand is off by two steps.

    Returns:
        Whole numbers from 0 to 255 as float32 or uint8 (channels, bottom - top, right - left), maybe not contiguous.
    """
    (height, width, _), (top, left, bottom, right) = pixels.shape, box
    vertical, horizontal = _Window(height, size[0], top, bottom), _Window(width, size[1], left, right)
    axis = 0 if _vertical_first(height, width, *size) else 1
    first, last = (horizontal, vertical) if axis else (vertical, horizontal)
    if first.old == first.new:  # PIL leaves out a pass that changes nothing
        pixels = _narrow(pixels, first.first, first.last, axis)
        return _whole(_pass(pixels, last, name, 1 - axis)) if last.old != last.new else \
            _narrow(pixels, last.first, last.last, 1 - axis).permute(2, 0, 1)
    if last.old == last.new:
        return _whole(_pass(_narrow(pixels, last.first, last.last, 1 - axis), first, name, axis))
    least = _KERNEL_SHRINK.get(name, math.inf)
    if min(first.shrink, last.shrink) >= (least if exact or least == math.inf else 1.0):
        return _by_kernels(pixels, size, name, axis)[:, top:bottom, left:right]
    band = _band(last, name)
    pixels = _narrow(pixels, band.first, band.last, 1 - axis)
    pixels = _rounded_between(_pass(pixels, first, name, axis))
    return _whole(_pass(pixels, last, name, 1 - axis, narrowed=True))


def _narrow(pixels: Tensor, first: int, last: int, axis: int) -> Tensor:
    return pixels.narrow(axis, first, last - first)


def _pass(pixels: Tensor, window: _Window, name: str, axis: int, narrowed: bool = False) -> Tensor:
    """Resize one axis of (height, width, channels), to floats; `narrowed`: inputs that are not read are cut off."""
    band = _band(window, name)
    if not narrowed:
        pixels = _narrow(pixels, band.first, band.last, axis)
    pixels = pixels.float().contiguous()
    height, width, channels = pixels.shape
    if axis == 1:
        return _columns(pixels, band, _interleaved(window, name, channels))
    return _rows(pixels.view(height, -1), band).view(-1, width, channels)


def _by_kernels(pixels: Tensor, size: tuple[int, int], name: str, first_axis: int) -> Tensor:
    image = pixels[None].permute(0, 3, 1, 2)  # torch sees that channels are last, and is quick
    if first_axis == 0:  # torch itself begins with the other
        image = F.interpolate(image, (size[0], image.shape[3]), mode=name, antialias=True)
    return F.interpolate(image, size, mode=name, antialias=True)[0]


def _rounded(pixels: Tensor) -> Tensor:
    """Round as PIL does: half a step up, and cut off."""
    return pixels.add_(0.5).clamp_(0, 255).floor_()


def _rounded_between(pixels: Tensor) -> Tensor:
    """Rounded and cut off, but for what lies on the edge between two steps."""
    pixels = pixels.clamp_(0, 255)
    whole = (pixels + 0.5).floor_()
    return whole.add_(F.hardshrink(pixels.sub_(whole), _EDGE))


def _whole(pixels: Tensor) -> Tensor:
    return _rounded(pixels).permute(2, 0, 1)


def _vertical_first(height: int, width: int, new_height: int, new_width: int) -> bool:
    """Whether PIL resizes the vertical axis first, which bicubic and lanczos show at sharp edges."""
    return takes_rows_first(height, width, new_height, new_width) and _pil_chooses_its_order()


@lru_cache(maxsize=1)
def _pil_chooses_its_order() -> bool:
    """Whether this PIL does (13 does); before, the horizontal axis always came first."""
    pixels = np.random.RandomState(0).choice(np.array([0, 255], np.uint8), (64, 8))
    found = np.asarray(Image.fromarray(pixels).resize((6, 40), Image.Resampling.BICUBIC)).astype(int)
    vertical, horizontal = _Window(64, 40, 0, 40), _Window(8, 6, 0, 6)
    image = torch.from_numpy(pixels)[..., None]
    guesses = (_whole(_pass(_rounded_between(_pass(image, one, "bicubic", axis)), other, "bicubic", 1 - axis))
               for one, other, axis in ((vertical, horizontal, 0), (horizontal, vertical, 1)))
    tall, wide = (np.abs(guess[0].numpy() - found).max() for guess in guesses)
    return bool(tall < wide)
