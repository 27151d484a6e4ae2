"""JPEG files: what their headers say, and their pixels at a fraction of the size. Imports no torch."""

from __future__ import annotations

import io
import os
import stat
import struct
from dataclasses import dataclass
from typing import BinaryIO

from PIL import Image

from .images import ORIENTATION, ORIENTED_INFO, turn_upright

__all__ = ["JpegHeader", "Source", "decode_scaled", "read_jpeg"]

Source = str | os.PathLike[str] | bytes | BinaryIO

_EXIF, _PICTURES, _ADOBE = 0xE1, 0xE2, 0xEE  # APP1, APP2 (several pictures in one file), APP14
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15 but tables and what is reserved


@dataclass(frozen=True)
class JpegHeader:
    """What a JPEG says of itself.

    Attributes:
        height, width: Of the stored pixels.
        orientation: EXIF's, from 1 (upright) to 8.
    """

    height: int
    width: int
    orientation: int = 1

    @property
    def is_upright(self) -> bool:
        return self.orientation == 1

    @property
    def upright_size(self) -> tuple[int, int]:
        """(height, width) after turning."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)


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
        try:
            if not stat.S_ISREG(os.stat(source).st_mode):  # a pipe would be waited for
                return None
            with open(source, "rb", buffering=0) as stream:
                data = bytearray(os.fstat(stream.fileno()).st_size)
                if stream.readinto(data) != len(data):
                    return None
        except OSError:
            return None
    elif isinstance(source, (bytes, bytearray, memoryview)):
        data = bytearray(source)
    else:
        source.seek(0)
        data = bytearray(source.read())
    return data if data[:3] == b"\xff\xd8\xff" else None


def _header(data: bytearray) -> JpegHeader | None:
    """Read markers up to the frame's; PIL is asked where they say more than the picture's size."""
    orientation, place = 1, 2
    while place + 9 < len(data):
        if data[place] != 0xFF:
            return None
        marker, length = data[place + 1], int.from_bytes(data[place + 2:place + 4], "big")
        if marker in _FRAMES:
            height, width, channels = struct.unpack_from(">HHB", data, place + 5)
            limit = Image.MAX_IMAGE_PIXELS
            plain = data[place + 4] == 8 and height and width and channels in (1, 3)
            return JpegHeader(height, width, orientation) \
                if plain and (limit is None or height * width <= limit) else None
        if marker == _PICTURES and data[place + 4:place + 8] == b"MPF\0":
            return None
        if marker == _EXIF and orientation == 1:
            orientation = _orientation(data)
        if marker == 0xFF:  # padding
            place += 1
        else:
            place += 2 + length
    return None


def _orientation(data: bytearray) -> int:
    """By PIL, which knows EXIF and XMP; 1 where it finds none, or nothing sensible."""
    try:
        image = Image.open(io.BytesIO(data))
        turn = 1 if image.info.keys().isdisjoint(ORIENTED_INFO) else image.getexif().get(ORIENTATION, 1)
    except Exception:  # see open_image
        return 1
    return turn if turn in range(1, 9) else 1


def decode_scaled(data: bytearray, shrink: int) -> Image.Image:
    """The RGB image by PIL, upright, at 1, 1/2, 1/4 or 1/8 of its size.

    Raises:
        OSError: The file is damaged.
    """
    try:
        image = Image.open(io.BytesIO(data))
        if shrink > 1:
            image.draft(None, (image.width // shrink, image.height // shrink))
        image.load()
        upright = turn_upright(image)
        return upright if upright.mode == "RGB" else upright.convert("RGB")
    except Exception as error:  # see open_image
        raise OSError(str(error)) from error
