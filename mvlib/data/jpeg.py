"""JPEG files straight to tensors. torchvision's decoder is used without importing torchvision, which takes seconds."""

from __future__ import annotations

import glob
import importlib.util
import io
import os
from collections.abc import Iterable
from functools import lru_cache
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .images import ORIENTATION, ORIENTED_INFO, turn_upright

__all__ = ["JpegHeader", "decode_jpeg", "read_jpeg"]

Source = str | os.PathLike[str] | bytes | BinaryIO

_RGB = 3  # torchvision.io.ImageReadMode.RGB


class JpegHeader:
    """What a JPEG says of itself.

    Attributes:
        height, width: Of the stored pixels.
        orientation: EXIF's, from 1 (upright) to 8.
    """

    def __init__(self, image: Image.Image, orientation: int) -> None:
        self._image = image
        self.height, self.width = image.height, image.width
        self.orientation = orientation

    @property
    def is_upright(self) -> bool:
        return self.orientation == 1

    @property
    def is_sideways(self) -> bool:
        """Whether height and width change places when the image is turned upright."""
        return self.orientation >= 5

    def decode(self, shrink: int = 1) -> Image.Image:
        """The RGB image by PIL, at 1, 1/2, 1/4 or 1/8 of its size, upright. OSError where the file is damaged."""
        if shrink > 1:
            self._image.draft(None, (self.width // shrink, self.height // shrink))
        return turn_upright(self._image).convert("RGB")


def read_jpeg(source: Source) -> tuple[bytearray, JpegHeader] | None:
    """Content and header of a JPEG from which `open_image` makes nothing but its RGB pixels, turned upright.

    None for everything else: other formats, CMYK, several pictures in one file, more pixels than PIL's limit, what
    cannot be read. A file object is read from its start.
    """
    data = _content(source)
    header = data and _header(data)
    return (data, header) if header else None


def _content(source: Source) -> bytearray | None:
    if isinstance(source, (str, os.PathLike)):
        if not os.path.isfile(source):
            return None
        try:
            with open(source, "rb") as stream:
                data = stream.read()
        except OSError:
            return None
    elif isinstance(source, (bytes, bytearray, memoryview)):
        data = source
    else:
        source.seek(0)
        data = source.read()
    return bytearray(data) if data[:3] == b"\xff\xd8\xff" else None


def _header(data: bytearray) -> JpegHeader | None:
    try:
        image = Image.open(io.BytesIO(data))
        orientation = 1 if image.info.keys().isdisjoint(ORIENTED_INFO) else image.getexif().get(ORIENTATION, 1)
    except Exception:  # see open_image
        return None
    limit = Image.MAX_IMAGE_PIXELS
    if image.format != "JPEG" or image.mode not in ("RGB", "L") or (limit and image.width * image.height > limit):
        return None
    return JpegHeader(image, orientation if orientation in range(1, 9) else 1)


def decode_jpeg(data: bytearray, header: JpegHeader) -> Tensor:
    """uint8 RGB pixels (height, width, 3), upright.

    Raises:
        RuntimeError, OSError: The file is damaged.
    """
    if _load_decoder():
        pixels = torch.ops.image.decode_jpeg(torch.frombuffer(data, dtype=torch.uint8), _RGB).permute(1, 2, 0)
        return _upright(pixels, header.orientation)
    return torch.from_numpy(np.array(header.decode()))


def _upright(pixels: Tensor, orientation: int) -> Tensor:
    """As `images.turn_upright`, of (height, width, channels)."""
    if orientation >= 5:
        pixels = pixels.transpose(0, 1)
    axes = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}.get(orientation)
    return pixels.flip(axes) if axes else pixels


@lru_cache(maxsize=1)
def _load_decoder() -> bool:
    """Whether torchvision's decoder can be had; it comes in a library beside the package."""
    if _has_decoder():
        return True
    spec = importlib.util.find_spec("torchvision")
    for path in _libraries(spec.submodule_search_locations or () if spec else ()):
        try:
            torch.ops.load_library(path)
        except OSError:
            continue
        if _has_decoder():
            return True
    return False


def _libraries(folders: Iterable[str]) -> list[str]:
    return [path for folder in folders for pattern in ("image*.so", "image*.pyd", "image*.dylib")
            for path in sorted(glob.glob(os.path.join(glob.escape(folder), pattern)))]


def _has_decoder() -> bool:
    return hasattr(torch.ops.image, "decode_jpeg")
