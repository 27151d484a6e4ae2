"""Operations of augmentation policies on images, with PIL's results to the bit and mostly sooner than PIL.

An image is a uint8 array (height, width, channels) or a PIL image: each operation takes and gives whichever of the two
it is quicker on, and `to_array` and `to_pil` lead from one to the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter
from torch import Tensor

__all__ = [
    "auto_contrast", "blend", "blur", "brightness", "color", "contrast", "desaturate", "equalize", "invert", "like",
    "posterize", "rotate", "sharpness", "shear_x", "shear_y", "solarize", "solarize_add", "to_array", "to_pil",
    "translate_x", "translate_x_rel", "translate_y", "translate_y_rel",
]

Picture = Image.Image | np.ndarray
_NEAREST, _BICUBIC = Image.Resampling.NEAREST, Image.Resampling.BICUBIC


def to_array(image: Picture | Tensor) -> np.ndarray:
    """uint8 (height, width, channels), in order in memory; of a tensor (channels, height, width) that shares it."""
    if isinstance(image, Tensor):
        return np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    if isinstance(image, np.ndarray):
        return image
    pixels = np.array(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def to_pil(image: Picture | Tensor) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    pixels = to_array(image)
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def like(result: Picture, image: Picture | Tensor) -> Any:
    """`result` as what `image` is: PIL image, array, or uint8 tensor (channels, height, width), last in memory."""
    if isinstance(image, Tensor):
        return torch.from_numpy(to_array(result)).permute(2, 0, 1)
    return to_pil(result) if isinstance(image, Image.Image) else to_array(result)


# On values, one by one.

def invert(pixels: np.ndarray) -> np.ndarray:
    return ~pixels


def posterize(pixels: np.ndarray, bits: int) -> np.ndarray:
    """Keep the highest `bits` of each value; 0 gives black, where new releases of Pillow refuse."""
    return pixels & np.uint8(256 - (1 << 8 - bits)) if bits < 8 else pixels


def solarize(pixels: np.ndarray, threshold: int) -> np.ndarray:
    """Invert the values from `threshold` on."""
    return pixels ^ _mask(pixels >= threshold)


def solarize_add(pixels: np.ndarray, add: int) -> np.ndarray:
    """Add to the values below 128 `add`, at most 128."""
    return pixels + (_mask(pixels < 128) & np.uint8(add))


def _mask(condition: np.ndarray) -> np.ndarray:
    """255 where the condition holds, else 0."""
    return -condition.view(np.uint8)


def blend(start: np.ndarray | int, end: np.ndarray, share: float) -> np.ndarray:
    """`start` + `share` * (`end` - `start`), cut off at 0 and 255."""
    values = end.astype(np.float32)
    values -= start
    values *= np.float32(share)
    values += start
    return values.clip(0, 255, out=values).astype(np.uint8)


def brightness(pixels: np.ndarray, factor: float) -> np.ndarray:
    return blend(0, pixels, factor)


def contrast(pixels: np.ndarray, factor: float) -> np.ndarray:
    average = int(np.asarray(to_pil(pixels).convert("L")).mean() + 0.5)
    return blend(average, pixels, factor)


def color(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Color(image).enhance(factor)


def desaturate(image: Image.Image, amount: float) -> Image.Image:
    return color(image, min(1.0, max(0.0, 1.0 - amount)))


# On values, by a table for each channel that depends on how often each value occurs.

def auto_contrast(image: Image.Image) -> Image.Image:
    """Stretch each channel from 0 to 255."""
    return _map(image, _stretch)


def equalize(image: Image.Image) -> Image.Image:
    """Spread each channel's values so that all intensities are about as frequent."""
    return _map(image, _spread)


def _map(image: Image.Image, make_table: Callable[[np.ndarray], np.ndarray | None]) -> Image.Image:
    counts = np.array(image.histogram()).reshape(-1, 256)
    tables = [make_table(band) for band in counts]
    return image.point(np.concatenate([_SAME if table is None else table for table in tables]).tolist())


_SAME = np.arange(256)


def _stretch(counts: np.ndarray) -> np.ndarray | None:
    used = counts.nonzero()[0]
    if len(used) < 2:
        return None
    scale = 255.0 / int(used[-1] - used[0])
    return (_SAME * scale - used[0] * scale).clip(0, 255).astype(int)


def _spread(counts: np.ndarray) -> np.ndarray | None:
    used = counts.nonzero()[0]
    step = int(counts.sum() - counts[used[-1]]) // 255
    if len(used) < 2 or not step:
        return None
    below = counts.cumsum() - counts
    return ((step // 2 + below) // step).clip(max=255)


# On neighbourhoods.

def sharpness(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Away from the mean of 3 x 3 pixels, of which the middle one counts 5 times; towards it if `factor` is below 1."""
    wide = pixels.astype(np.uint16)
    columns = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
    total = columns[:-2] + columns[1:-1] + columns[2:] + 4 * wide[1:-1, 1:-1]
    smooth = pixels.copy()  # pixels at the edge stay
    smooth[1:-1, 1:-1] = (2 * total + 13) // 26  # of 13, rounded
    return blend(smooth, pixels, factor)


def blur(image: Image.Image, radius: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(radius))


# On places. What moves in from outside has the colour `fill`.

def rotate(image: Image.Image, degrees: float, resample: int, fill: Sequence[int]) -> Image.Image:
    return image.rotate(degrees, resample=resample, fillcolor=tuple(fill))


def shear_x(pixels: np.ndarray, factor: float, resample: int, fill: Sequence[int]) -> np.ndarray:
    return _move(pixels, 1, factor, 0.0, resample, fill)


def shear_y(pixels: np.ndarray, factor: float, resample: int, fill: Sequence[int]) -> np.ndarray:
    return _move(pixels, 0, factor, 0.0, resample, fill)


def translate_x(pixels: np.ndarray, distance: float, resample: int, fill: Sequence[int]) -> np.ndarray:
    return _move(pixels, 1, 0.0, distance, resample, fill)


def translate_y(pixels: np.ndarray, distance: float, resample: int, fill: Sequence[int]) -> np.ndarray:
    return _move(pixels, 0, 0.0, distance, resample, fill)


def translate_x_rel(pixels: np.ndarray, share: float, resample: int, fill: Sequence[int]) -> np.ndarray:
    return translate_x(pixels, share * pixels.shape[1], resample, fill)


def translate_y_rel(pixels: np.ndarray, share: float, resample: int, fill: Sequence[int]) -> np.ndarray:
    return translate_y(pixels, share * pixels.shape[0], resample, fill)


def _move(pixels: np.ndarray, axis: int, slope: float, distance: float, resample: int,
          fill: Sequence[int]) -> np.ndarray:
    """Move each row (`axis` 1) or column (`axis` 0) back by `slope` times its place, and `distance`, in pixels.

    PIL's affine transform interpolates in two dimensions; here it is one. Both cut off what follows the point. Where
    a result is an integer but for float64's rounding, as it happens with round numbers only, PIL itself is asked; and
    of what is not interpolated.
    """
    if resample == _NEAREST or all(abs(round(number, 9) - number) < 1e-12 for number in (slope, distance)):
        matrix = (1, slope, distance, 0, 1, 0) if axis else (1, 0, 0, slope, 1, distance)
        image = to_pil(pixels)
        return to_array(image.transform(image.size, Image.Transform.AFFINE, matrix, resample, fillcolor=tuple(fill)))
    length, channels = pixels.shape[axis], pixels.shape[2]
    shifts = slope * (np.arange(pixels.shape[1 - axis]) + 0.5) + distance
    whole = np.floor(shifts)
    offsets = range(-1, 3) if resample == _BICUBIC else range(2)  # of the pixels that are interpolated between
    values = _take_shifted(pixels, axis, whole.astype(int), offsets).astype(np.float64)
    # The middles of pixels from `first` up to `end` come from inside the image.
    bounds = np.ceil([-0.5 - shifts, length - 0.5 - shifts]).clip(0, length).astype(np.int16)
    place = np.arange(length, dtype=np.int16)
    # From here on lines of channels side by side: long ones, which numpy is quick on.
    values = values.reshape(len(values), -1)
    if axis:
        taps = [values[:, step * channels:(step + length) * channels] for step in range(len(offsets))]
        part, (first, end), place = (shifts - whole)[:, None], bounds[..., None], place.repeat(channels)
    else:
        taps = [values[step:step + length] for step in range(len(offsets))]
        part, (first, end), place = (shifts - whole).repeat(channels), bounds.repeat(channels, -1), place[:, None]
    moved = (_cubic if resample == _BICUBIC else _linear)(*taps, part).astype(np.uint8)
    known = _mask((place >= first) & (place < end))
    outside = np.tile(np.array(fill, np.uint8), pixels.shape[1])
    return (moved & known | outside & ~known).reshape(pixels.shape)


def _take_shifted(pixels: np.ndarray, axis: int, shifts: np.ndarray, offsets: range) -> np.ndarray:
    """Each row or column from `shifts` + offsets[0] on, longer by what further offsets need.

    Within two pixels of an edge its last pixel is repeated; what lies beyond is left undefined.
    """
    def rows(array: np.ndarray) -> np.ndarray:
        return array if axis else array.swapaxes(0, 1)

    def empty(more: int) -> np.ndarray:
        height, width, channels = pixels.shape
        return np.empty((height, width + more, channels) if axis else (height + more, width, channels), np.uint8)

    source, padded = rows(pixels), rows(empty(4))
    padded[:, 2:-2] = source
    padded[:, :2], padded[:, -2:] = source[:, :1], source[:, -1:]
    taken = empty(len(offsets) - 1)
    target = rows(taken)
    starts = np.flatnonzero(np.diff(shifts, prepend=shifts[0] - 1))  # neighbours with the same shift go together
    for top, bottom, shift in zip(starts, [*starts[1:], len(shifts)], shifts[starts] + (2 + offsets[0])):
        first, end = max(0, -shift), min(target.shape[1], padded.shape[1] - shift)
        if first < end:
            target[top:bottom, first:end] = padded[top:bottom, first + shift:end + shift]
    return taken


def _linear(here: np.ndarray, after: np.ndarray, part: np.ndarray) -> np.ndarray:
    values = after - here
    values *= part
    values += here
    return values


def _cubic(before: np.ndarray, here: np.ndarray, after: np.ndarray, beyond: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution with a = -1, by Horner's rule."""
    rise, fall = before - here, after - beyond
    values = -(rise + fall)
    values *= part
    values += rise
    values += rise
    values += fall
    values *= part
    values += after
    values -= before
    values *= part
    values += here
    return values.clip(0, 255, out=values)
