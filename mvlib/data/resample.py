"""PIL's antialiased resizing of 8-bit images, on torch's matrix products: within one step of PIL, and faster.

PIL resizes in two passes, and rounds and clips to 8 bits after each, with coefficients of 22 bits. So does this, with
coefficients of float32: sums that lie on the edge between two steps may fall to the other side, a few in a hundred
thousand of a photograph's pixels. What that changes after the first pass is weighted by the coefficients of the second,
so results differ by one step at most, unless many such pixels lie side by side with opposite signs: no test has met it.
Only pixels that the caller wants are computed.

Images that become `_KERNEL_SHRINK` times smaller, or more, take torch's 8-bit kernels, which round in between, with
coarser weights: differences of two steps are then possible, but want patterns that no photograph has (on chessboards
made for it, fewer than one value in a million).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

__all__ = ["FILTERS", "resample"]

_BLOCK = 16  # results computed by one matrix product: it reads as many inputs as all of them need
_KERNEL_SHRINK = 3.5
_KERNELS = ("bilinear", "bicubic")


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
    pixels = pixels.contiguous()
    if band.padding:
        pixels = torch.cat([pixels, pixels.new_zeros(band.padding, pixels.shape[1])])
    values = pixels.shape[1]
    read = pixels.as_strided((len(band.weights), band.width, values), (band.step * values, values, 1))
    return torch.bmm(band.weights, read).view(-1, values)[:band.count]


def _columns(pixels: Tensor, band: _Band) -> Tensor:
    """Resize the last axis of (values, inputs): (values, results)."""
    pixels = pixels.contiguous()
    if band.padding:
        pixels = torch.cat([pixels, pixels.new_zeros(pixels.shape[0], band.padding)], dim=1)
    values, inputs = pixels.shape
    blocks = len(band.weights)
    read = pixels.as_strided((blocks, values, band.width), (band.step, inputs, 1))
    results = pixels.new_empty(values, blocks, _BLOCK)
    torch.bmm(read, band.weights.transpose(1, 2), out=results.transpose(0, 1))
    return results.view(values, -1)[:, :band.count]


def resample(pixels: Tensor, size: tuple[int, int], name: str, box: tuple[int, int, int, int]) -> Tensor:
    """Resize an image as PIL does, and cut a box out of the result.

    Args:
        pixels: uint8 (height, width, channels), best contiguous.
        size: (height, width) that the whole image gets.
        name: One of `FILTERS`.
        box: (top, left, bottom, right) in the resized image, not empty.

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
    if min(first.shrink, last.shrink) >= _KERNEL_SHRINK and name in _KERNELS:
        return _by_kernels(pixels, size, name, axis)[:, top:bottom, left:right]
    band = _band(last, name)
    pixels = _narrow(pixels, band.first, band.last, 1 - axis)
    pixels = _rounded(_pass(pixels, first, name, axis))
    return _whole(_pass(pixels, last, name, 1 - axis, narrowed=True))


def _narrow(pixels: Tensor, first: int, last: int, axis: int) -> Tensor:
    return pixels.narrow(axis, first, last - first)


def _pass(pixels: Tensor, window: _Window, name: str, axis: int, narrowed: bool = False) -> Tensor:
    """Resize one axis of (height, width, channels), to floats; `narrowed`: inputs that are not read are cut off."""
    band = _band(window, name)
    if not narrowed:
        pixels = _narrow(pixels, band.first, band.last, axis)
    height, width, channels = pixels.shape
    if axis == 1:  # each channel of a line by itself; the results stay in that order
        lines = pixels.permute(0, 2, 1).reshape(height * channels, width).float()
        return _columns(lines, band).view(height, channels, -1).permute(0, 2, 1)
    if pixels.dtype == torch.uint8:  # the first pass, or the only one
        return _rows(pixels.reshape(height, -1).float(), band).view(-1, width, channels)
    return _rows(pixels.permute(0, 2, 1).reshape(height, -1), band).view(-1, channels, width).permute(0, 2, 1)


def _by_kernels(pixels: Tensor, size: tuple[int, int], name: str, first_axis: int) -> Tensor:
    image = pixels[None].permute(0, 3, 1, 2)  # torch sees that channels are last, and is quick
    if first_axis == 0:  # torch itself begins with the other
        image = interpolate(image, (size[0], image.shape[3]), mode=name, antialias=True)
    return interpolate(image, size, mode=name, antialias=True)[0]


def _rounded(pixels: Tensor) -> Tensor:
    """Round as PIL does: half a step up, and cut off."""
    return pixels.add_(0.5).clamp_(0, 255).floor_()


def _whole(pixels: Tensor) -> Tensor:
    return _rounded(pixels).permute(2, 0, 1)


def _vertical_first(height: int, width: int, new_height: int, new_width: int) -> bool:
    """Whether PIL resizes the vertical axis first, which bicubic and lanczos show at sharp edges."""
    return (new_height < height and height - new_height > 2 * (width - new_width)) and _pil_chooses_its_order()


@lru_cache(maxsize=1)
def _pil_chooses_its_order() -> bool:
    """Whether this PIL does (13 does); before, the horizontal axis always came first."""
    pixels = np.random.RandomState(0).choice(np.array([0, 255], np.uint8), (64, 8))
    found = np.asarray(Image.fromarray(pixels).resize((6, 40), Image.Resampling.BICUBIC)).astype(int)
    vertical, horizontal = _Window(64, 40, 0, 40), _Window(8, 6, 0, 6)
    image = torch.from_numpy(pixels)[..., None]
    guesses = (_whole(_pass(_rounded(_pass(image, one, "bicubic", axis)), other, "bicubic", 1 - axis))
               for one, other, axis in ((vertical, horizontal, 0), (horizontal, vertical, 1)))
    tall, wide = (np.abs(guess[0].numpy() - found).max() for guess in guesses)
    return bool(tall < wide)
