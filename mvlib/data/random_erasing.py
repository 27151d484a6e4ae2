"""Random erasing: rectangles of normalised images are replaced by zeros or noise.

Zhong et al., "Random Erasing Data Augmentation" (https://arxiv.org/abs/1708.04896), with timm's modes and draws.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import ConfigError
from ..names import closest

__all__ = ["ErasedBox", "RandomErasing"]

MODES = ("const", "rand", "pixel")
TORCHVISION_ERASING = {"min_area": 0.02, "max_area": 0.33, "min_aspect": 0.3, "max_aspect": 3.3}
_ATTEMPTS = 10  # to find a box that is smaller than the image


class ErasedBox(NamedTuple):
    """A rectangle to erase, in pixels, and the seed of its noise; without one, noise is from torch's generator."""

    top: int
    left: int
    height: int
    width: int
    noise_seed: int | None = None


class RandomErasing:
    """Erase boxes of normalised images, in place.

    All at once when called, as timm does it: boxes are drawn from Python's `random`, noise from torch's generator.
    Or in two halves, so that the place where an image is read draws, and the device where it is used fills:
    `erase_(image, draw(height, width))`. Then a seed is drawn for each box too, and its noise depends on that alone.

    Args:
        probability: That an image is erased at all.
        min_area, max_area: Share of the image that a box covers; several boxes divide it between them.
        min_aspect, max_aspect: Height over width of a box, drawn uniformly on a logarithmic scale; `max_aspect` None
            for 1 / `min_aspect`.
        mode: "const": zeros, which are the mean of normalised images; "rand": one normally distributed colour a box;
            "pixel": one a pixel.
        min_count, max_count: Boxes an image; `max_count` None for `min_count`.
        num_splits: From 2 on, the first of so many equal parts of a batch is left as it is.
        device: Taken for timm's sake; noise is made where the image is.

    Raises:
        ConfigError: A mode that does not exist.
    """

    def __init__(
        self,
        probability: float = 0.5,
        min_area: float = 0.02,
        max_area: float = 1 / 3,
        min_aspect: float = 0.3,
        max_aspect: float | None = None,
        mode: str = "const",
        min_count: int = 1,
        max_count: int | None = None,
        num_splits: int = 0,
        device: str | torch.device | None = None,
    ) -> None:
        self.mode = (mode or "const").lower()
        if self.mode not in MODES:
            raise ConfigError(f"random erasing has no mode '{mode}', only {', '.join(MODES)}"
                              f"{closest(self.mode, MODES)}")
        self.probability = probability
        self.min_area = min_area
        self.max_area = max_area
        self.log_aspect_ratio = (math.log(min_aspect), math.log(max_aspect or 1 / min_aspect))
        self.min_count = min_count
        self.max_count = max_count or min_count
        self.num_splits = num_splits
        self.device = device

    def draw(self, height: int, width: int) -> list[ErasedBox]:
        """Boxes to erase of one image of `height` and `width` pixels; none with probability 1 - `probability`."""
        boxes = self._draw_boxes(height, width)
        if self.mode == "const":
            return boxes
        return [box._replace(noise_seed=random.getrandbits(63)) for box in boxes]

    def _draw_boxes(self, height: int, width: int) -> list[ErasedBox]:
        if random.random() > self.probability:
            return []
        count = self.min_count
        if count != self.max_count:
            count = random.randint(self.min_count, self.max_count)
        return [box for _ in range(count) if (box := self._draw_box(height, width, count))]

    def _draw_box(self, height: int, width: int, count: int) -> ErasedBox | None:
        for _ in range(_ATTEMPTS):
            area = random.uniform(self.min_area, self.max_area) * height * width / count
            aspect = math.exp(random.uniform(*self.log_aspect_ratio))
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if h < height and w < width:
                return ErasedBox(random.randint(0, height - h), random.randint(0, width - w), h, w)
        return None

    def erase_(self, image: Tensor, boxes: Iterable[ErasedBox | tuple[int, int, int, int, int | None]]) -> Tensor:
        """Erase `boxes` (top, left, height, width, noise seed) of an image (channels, height, width), in place."""
        for top, left, height, width, seed in boxes:
            box = image[:, top:top + height, left:left + width]
            if self.mode == "const":
                box.zero_()
                continue
            size = (height, width) if self.mode == "pixel" else (1, 1)
            generator = None if seed is None else torch.Generator(image.device).manual_seed(seed)
            noise = torch.empty(len(image), *size, dtype=image.dtype, device=image.device)
            box.copy_(noise.normal_(generator=generator))
        return image

    def __call__(self, images: Tensor) -> Tensor:
        """Erase an image (channels, height, width), or a batch of them, in place."""
        if images.ndim == 3:
            return self.erase_(images, self._draw_boxes(*images.shape[-2:]))
        clean = len(images) // self.num_splits if self.num_splits > 1 else 0
        for image in images[clean:]:
            self.erase_(image, self._draw_boxes(*image.shape[-2:]))
        return images

    def __repr__(self) -> str:
        counts = f"({self.min_count}, {self.max_count})"
        return f"{type(self).__name__}(p={self.probability}, mode={self.mode}, count={counts})"
