"""Image files, as they come, to RGB images."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import BadImageError
from ..names import natural_text

__all__ = ["IMAGE_EXTENSIONS", "find_images", "open_image"]

# Formats in which photographs are kept, of those that PIL reads.
IMAGE_EXTENSIONS = frozenset((
    ".apng", ".avif", ".bmp", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm", ".pgm", ".png",
    ".pnm", ".ppm", ".qoi", ".tga", ".tif", ".tiff", ".webp",
))

ORIENTATION = 0x0112  # the EXIF tag; its values from 2 on say what turns the stored image upright
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ORIENTED_INFO = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif", "Raw profile type APP1")


def open_image(source: str | os.PathLike[str] | bytes | BinaryIO, mode: str | None = "RGB") -> Image.Image:
    """Read an image as 8-bit RGB, upright.

    An ordinary file gives what `Image.open(path).convert("RGB")` gives. Beyond that:

    - EXIF orientation is applied, and then no longer stands in `info`. An EXIF block that cannot be read is ignored.
    - More than 8 bits a pixel (modes I;16, I, F) are scaled, where PIL would cut off at 255. Integers by the 16-bit
      range; floats by the least of the ranges 1, 255 and 65535 that holds them; if values are negative or larger
      still, from the least to the greatest. What is not finite becomes 0.
    - Transparency (RGBA, LA, palettes) is dropped and the colours beneath are kept, as PIL's conversion does, so that
      networks see what they saw in training.
    - Of an animation, the first frame.

    May be called from several threads. Changes no setting of PIL.

    Args:
        source: Path, content of a file, or file object opened for reading bytes, read from its start and left open.
        mode: PIL's mode of the result: "RGB", "L", "RGBA", ...; None or "" for the mode of the file.

    Raises:
        BadImageError: The file cannot be read, is empty, damaged, not an image, or has more pixels than
            `PIL.Image.MAX_IMAGE_PIXELS`. The message is one line, "path: reason".
    """
    name = _name(source)
    try:
        if isinstance(source, (str, os.PathLike)):
            _check_regular_file(source)
            with open(source, "rb") as stream:
                return _decode(stream, mode)
        return _decode(io.BytesIO(source) if isinstance(source, (bytes, bytearray, memoryview)) else source, mode)
    except Exception as error:  # decoders meet damage with anything: SyntaxError, struct.error, IndexError, ...
        raise BadImageError(f"{name}: {_reason(error)}") from error


def _name(source: object) -> str:
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else "<bytes>"


class _Refused(Exception):
    """A reason of our own."""


def _check_regular_file(path: str | os.PathLike[str]) -> None:
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise _Refused("is a folder, not an image file")
    if not stat.S_ISREG(mode):  # a pipe would be waited for, a device never ends
        raise _Refused("is not a regular file")


def _reason(error: Exception) -> str:
    """One line, without the address of a stream that PIL's messages name."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image in a format that PIL reads"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"too many pixels: {error}"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def _decode(stream: BinaryIO, mode: str | None) -> Image.Image:
    stream.seek(0)  # as Image.open does
    if not stream.read(1):
        raise _Refused("file is empty")
    with Image.open(stream) as image:
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and image.width * image.height > limit:  # PIL itself only warns up to twice the limit
            raise _Refused(f"too many pixels: {image.width} x {image.height} exceeds the limit of {limit} "
                           "(PIL.Image.MAX_IMAGE_PIXELS)")
        image.load()
        return _convert(turn_upright(image), mode)


def turn_upright(image: Image.Image) -> Image.Image:
    """The image as its EXIF orientation wants it to be seen."""
    try:
        turn = _UPRIGHT.get(image.getexif().get(ORIENTATION))
    except Exception:  # a damaged EXIF block does not make a bad photograph
        return image
    if turn is None:
        return image
    upright = image.transpose(turn)
    upright.info = {key: value for key, value in upright.info.items() if key not in ORIENTED_INFO}
    return upright


def _convert(image: Image.Image, mode: str | None) -> Image.Image:
    if not mode:
        return image.copy()  # a picture in memory, that no longer knows its file
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_to_8_bits(np.asarray(image))).convert(mode)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the same colours, without a warning
    return image.convert(mode)


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    """Intensities (height, width) of a wider type, scaled to 0..255 and rounded."""
    low, ranges = 0.0, (1, 255, 65535) if values.dtype.kind == "f" else (65535,)
    values = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    least, greatest = values.min(), values.max()
    high = next((top for top in ranges if greatest <= top), None)
    if least < 0 or high is None:
        low, high = least, greatest
    return np.rint((values - low) / (high - low or 1.0) * 255).astype(np.uint8)


def find_images(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> Iterator[Path]:
    """Image files among files and folders.

    Args:
        paths: Files, which are passed on as they are, whether they exist or not (`open_image` says what is wrong with
            them), and folders, which are searched recursively for `IMAGE_EXTENSIONS`. Hidden files and folders in
            them are skipped. Links are followed, each folder being searched once.

    Yields:
        Paths in the order of `paths`; in a folder in natural order ("2.jpg" before "10.jpg"). A folder that cannot
        be listed stands for itself.
    """
    for path in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
        path = Path(path)
        if os.path.isdir(path):
            yield from _search(path, set())
        else:
            yield path


def _search(folder: Path, searched: set[tuple[int, int]]) -> Iterator[Path]:
    try:
        status = os.stat(folder)
        names, folders = _list(folder)
    except OSError:
        yield folder
        return
    if (status.st_dev, status.st_ino) in searched:  # a link back, or a second one
        return
    searched.add((status.st_dev, status.st_ino))
    for name in names:
        if name in folders:
            yield from _search(folder / name, searched)
        else:
            yield folder / name


def _list(folder: Path) -> tuple[list[str], set[str]]:
    """Names of the images and folders in a folder, in order, and which of them are folders."""
    names, folders = [], set()
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                folders.add(entry.name)
            elif os.path.splitext(entry.name)[1].lower() not in IMAGE_EXTENSIONS:
                continue
            names.append(entry.name)
    names.sort()
    names.sort(key=natural_text)
    return names, folders


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
