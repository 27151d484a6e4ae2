"""The preprocessing that torchvision's weights carry, as a module that can be scripted and exported."""

from __future__ import annotations

from typing import List, Optional, Tuple  # noqa: UP035  (TorchScript reads these annotations)

import torch
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from .constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

__all__ = ["ImageClassification"]

_CROP_MODES = ("center", "squash", "border")


class ImageClassification(nn.Module):
    """Resize, cut the centre out, scale to [0, 1], normalise: torchvision's result to the bit.

    Takes a PIL image, or a uint8 or float tensor (..., 3, H, W); returns float32 (..., 3, crop, crop).

    Args:
        crop_size: Side of the result in pixels, or (height, width).
        resize_size: Shorter side after resizing, or (height, width) that the resized image has to cover.
        mean, std: One value a channel, of intensities in [0, 1].
        interpolation: `InterpolationMode` or its value, "bilinear".
        antialias: Whether tensors are antialiased, as PIL images always are.
        crop_mode: "center"; "squash" gives the aspect ratio up; "border" fits the longer side and fills with `mean`.

    Raises:
        ValueError: A size or a crop mode that does not exist, or a std of 0.
    """

    def __init__(
        self,
        *,
        crop_size: int | Tuple[int, int],  # noqa: UP006
        resize_size: int | Tuple[int, int] = 256,  # noqa: UP006
        mean: Tuple[float, ...] = IMAGENET_DEFAULT_MEAN,  # noqa: UP006
        std: Tuple[float, ...] = IMAGENET_DEFAULT_STD,  # noqa: UP006
        interpolation: InterpolationMode | str = InterpolationMode.BILINEAR,
        antialias: Optional[bool] = True,  # noqa: UP045
        crop_mode: str = "center",
    ) -> None:
        super().__init__()
        if crop_mode not in _CROP_MODES:
            raise ValueError(f"crop_mode {crop_mode!r} is none of {', '.join(_CROP_MODES)}")
        if len(mean) != len(std) or min(std) <= 0:
            raise ValueError(f"mean {mean} and std {std} do not normalise: one value a channel each, std above 0")
        self.crop_size = _sides(crop_size, "crop_size")
        self.resize_size = _sides(resize_size, "resize_size")
        self.mean = list(mean)
        self.std = list(std)
        self.interpolation = InterpolationMode(interpolation)
        self.antialias = antialias
        self.crop_mode = crop_mode
        self.fill = [float(round(255 * value)) for value in mean]

    def forward(self, img: Tensor) -> Tensor:
        size = self._resized(F.get_dimensions(img))
        img = F.resize(img, size, interpolation=self.interpolation, antialias=self.antialias)
        if self.crop_mode == "border":
            img = self._pad(img)
        img = F.center_crop(img, self.crop_size)
        if not isinstance(img, Tensor):
            img = F.pil_to_tensor(img)
        img = F.convert_image_dtype(img, torch.float)
        mean, std = torch.tensor(self.mean, device=img.device), torch.tensor(self.std, device=img.device)
        return (img - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)  # F.normalize asks for std's values: no export

    def _resized(self, dimensions: List[int]) -> List[int]:  # noqa: UP006
        """What `F.resize` is asked for: one number for the shorter side, or (height, width)."""
        to = self.resize_size
        if self.crop_mode == "squash":
            return [to[0], to[-1]]
        if self.crop_mode == "center" and (len(to) == 1 or to[0] == to[1]):
            return [to[0]]
        height, width = dimensions[1], dimensions[2]
        rows, columns = height / to[0], width / to[-1]
        ratio = max(rows, columns) if self.crop_mode == "border" else min(rows, columns)
        return [max(int(round(height / ratio)), 1), max(int(round(width / ratio)), 1)]

    def _pad(self, img: Tensor) -> Tensor:
        """Surround an image that is smaller than the crop with the mean colour."""
        _, height, width = F.get_dimensions(img)
        rows, columns = max(self.crop_size[0] - height, 0), max(self.crop_size[-1] - width, 0)
        border = [columns // 2, rows // 2, (columns + 1) // 2, (rows + 1) // 2]
        if not isinstance(img, Tensor):
            return F.pad(img, border, fill=tuple(int(value) for value in self.fill))
        fill = torch.tensor(self.fill, device=img.device)
        if img.is_floating_point():
            fill = fill / 255
        shape = list(img.shape)
        shape[-2] += rows
        shape[-1] += columns
        padded = fill.to(img.dtype).reshape(-1, 1, 1).expand(shape).clone()
        padded[..., border[1]:border[1] + height, border[0]:border[0] + width] = img
        return padded

    def __repr__(self) -> str:
        lines = [f"{name}={getattr(self, name)}" for name in ("crop_size", "resize_size", "mean", "std")]
        lines.append(f"interpolation={self.interpolation}")
        if not self.antialias:
            lines.append(f"antialias={self.antialias}")
        if self.crop_mode != "center":
            lines.append(f"crop_mode={self.crop_mode!r}")
        return "\n    ".join([f"{type(self).__name__}(", *lines]) + "\n)"

    def describe(self) -> str:
        """The steps in words, as documentation shows them."""
        shorter = "x".join(map(str, self.resize_size))
        return (f"Takes a PIL image or a tensor (..., 3, H, W). It is resized to {shorter} pixels "
                f"({self.interpolation.value}), the central {'x'.join(map(str, self.crop_size))} are cut out, values "
                f"are scaled to [0, 1] and normalised with mean={self.mean} and std={self.std}.")


def _sides(size: int | Tuple[int, ...], name: str) -> List[int]:  # noqa: UP006
    sides = [size] if isinstance(size, int) else list(size)
    if len(sides) not in (1, 2) or min(sides) < 1:
        raise ValueError(f"{name} {size!r} is not a size in pixels")
    return sides
