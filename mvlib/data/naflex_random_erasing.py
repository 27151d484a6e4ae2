"""Random erasing of whole patches: rectangles of them, or single ones, become zeros or noise."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from ..errors import ConfigError
from .random_erasing import MODES, ErasedBox

__all__ = ["PatchRandomErasing"]

_ATTEMPTS = 10  # to find a box of patches


class PatchRandomErasing:
    """Erase patches of normalised images, in place; results and draws are timm's.

    All at once when called. Or in two halves, as `RandomErasing`: `erase_(patches, coord, valid, draw(rows, columns))`.

    Args:
        erase_prob: That an image is erased at all.
        patch_drop_prob: 0; patches that are taken away are not supported.
        min_count, max_count: Boxes an image; `max_count` None for `min_count`. Of single patches a factor on their
            number.
        min_area, max_area: Share of the patches that a box covers.
        min_aspect, max_aspect: Height over width of a box, drawn uniformly on a logarithmic scale; `max_aspect` None
            for 1 / `min_aspect`.
        mode: "const": `value`; "rand": one normally distributed colour a box; "pixel": one a pixel.
        value: A number, or one a channel.
        spatial_mode: "region" for boxes, "patch" for single patches.
        num_splits: From 2 on, the first of so many equal parts of a batch is left as it is.
        device: Taken for timm's sake; noise is made where the patches are.

    Raises:
        ConfigError: A mode that does not exist, or patches are to be taken away.
    """

    def __init__(
        self,
        erase_prob: float = 0.5,
        patch_drop_prob: float = 0.0,
        min_count: int = 1,
        max_count: int | None = None,
        min_area: float = 0.02,
        max_area: float = 1 / 3,
        min_aspect: float = 0.3,
        max_aspect: float | None = None,
        mode: str = "const",
        value: float | Sequence[float] = 0.0,
        spatial_mode: str = "region",
        num_splits: int = 0,
        device: str | torch.device | None = None,
    ) -> None:
        self.erase_mode = mode.lower()
        if self.erase_mode not in MODES:
            raise ConfigError(f"random erasing has no mode '{mode}', only {', '.join(MODES)}")
        if spatial_mode not in ("patch", "region"):
            raise ConfigError(f"spatial_mode {spatial_mode!r} is none of 'region' and 'patch'")
        if patch_drop_prob:
            raise ConfigError("patch_drop_prob: patches can be erased, not taken away; a model's patch_drop_rate does")
        self.erase_prob, self.patch_drop_prob = erase_prob, patch_drop_prob
        self.min_count, self.max_count = min_count, max_count or min_count
        self.min_area, self.max_area = min_area, max_area
        self.log_aspect_ratio = (math.log(min_aspect), math.log(max_aspect or 1 / min_aspect))
        self.const_value = value
        self.spatial_mode = spatial_mode
        self.num_splits = num_splits
        self.device = device

    def draw(self, rows: int, columns: int) -> list[ErasedBox]:
        """Boxes to erase of an image of so many patches, in patches; none with probability 1 - `erase_prob`."""
        if random.random() > self.erase_prob:
            return []
        boxes = [self._draw_box(rows, columns, lambda box: box.height * box.width > 0)
                 for _ in range(random.randint(self.min_count, self.max_count))]
        found = [box for box in boxes if box is not None]
        return found if self.erase_mode == "const" else [
            box._replace(noise_seed=random.getrandbits(63)) for box in found]

    def _draw_box(self, rows: int, columns: int, covers: Callable[[ErasedBox], bool]) -> ErasedBox | None:
        for _ in range(_ATTEMPTS):
            area = random.uniform(self.min_area, self.max_area) * (rows * columns)
            aspect = math.exp(random.uniform(*self.log_aspect_ratio))
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if h <= rows and w <= columns:
                box = ErasedBox(random.randint(0, rows - h), random.randint(0, columns - w), h, w)
                if covers(box):
                    return box
        return None

    def erase_(
        self, patches: Tensor, patch_coord: Tensor, patch_valid: Tensor,
        boxes: Iterable[ErasedBox | tuple[int, int, int, int, int | None]],
    ) -> Tensor:
        """Erase boxes of one image's patches (N, ..., channels), in place."""
        for box in boxes:
            box = ErasedBox(*box)
            seed = box.noise_seed
            generator = None if seed is None else torch.Generator(patches.device).manual_seed(seed)
            self._fill_(patches, _covered(box, patch_coord) & patch_valid, generator)
        return patches

    def _fill_(self, patches: Tensor, which: Tensor, generator: torch.Generator | None = None) -> None:
        """Fill patches, by a mask or by their numbers."""
        colour = (1,) * (patches.ndim - 2) + patches.shape[-1:]
        if self.erase_mode == "const":
            value = torch.tensor(self.const_value, dtype=patches.dtype, device=patches.device)
            patches[which] = value.expand(colour)
            return
        shape = patches[which].shape if self.erase_mode == "pixel" else colour
        noise = torch.empty(shape, dtype=patches.dtype, device=patches.device)
        patches[which] = noise.normal_(generator=generator)

    def _erase_region(self, patches: Tensor, patch_coord: Tensor, patch_valid: Tensor) -> None:
        if random.random() > self.erase_prob or not patch_valid.any():
            return
        rows, columns = (int(last) + 1 for last in patch_coord[patch_valid].amax(dim=0))
        for _ in range(random.randint(self.min_count, self.max_count)):
            box = self._draw_box(rows, columns, lambda box: bool((_covered(box, patch_coord) & patch_valid).any()))
            if box is not None:
                self._fill_(patches, _covered(box, patch_coord) & patch_valid)

    def _erase_patches(self, patches: Tensor, patch_coord: Tensor, patch_valid: Tensor) -> None:
        numbers = patch_valid.nonzero()[:, 0] if random.random() <= self.erase_prob else patch_valid.nonzero()[:0, 0]
        if not len(numbers):
            return
        factor = len(numbers) * random.randint(self.min_count, self.max_count)
        most = min(len(numbers), max(1, int(factor * self.max_area)))
        count = random.randint(max(1, int(factor * self.min_area)), most)
        self._fill_(patches, numbers[torch.randperm(len(numbers), device=patches.device)[:count]])

    def __call__(self, patches: Tensor, patch_coord: Tensor, patch_valid: Tensor | None = None) -> Tensor:
        """Erase a batch of patches (B, N, pixels, channels) or (B, N, height, width, channels), in place.

        Args:
            patch_coord: Row and column of each, (B, N, 2).
            patch_valid: Which are patches and no padding, (B, N); all unless given.
        """
        if patches.ndim not in (4, 5):
            raise ConfigError(f"patches to erase are (B, N, pixels, channels) or (B, N, height, width, channels), not "
                              f"{tuple(patches.shape)}")
        valid = torch.ones_like(patch_coord[..., 0], dtype=torch.bool) if patch_valid is None else patch_valid
        erase = self._erase_region if self.spatial_mode == "region" else self._erase_patches
        for i in range(len(patches) // self.num_splits if self.num_splits > 1 else 0, len(patches)):
            erase(patches[i], patch_coord[i], valid[i])
        return patches

    def __repr__(self) -> str:
        return (f"{type(self).__name__}(p={self.erase_prob}, mode={self.erase_mode}, spatial={self.spatial_mode}, "
                f"area=({self.min_area}, {self.max_area}), count=({self.min_count}, {self.max_count}))")


def _covered(box: ErasedBox, patch_coord: Tensor) -> Tensor:
    y, x = patch_coord.unbind(-1)
    return (y >= box.top) & (y < box.top + box.height) & (x >= box.left) & (x < box.left + box.width)
