"""Which files of a folder, a tar or a shard are images. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from ...errors import ConfigError
from ..images import IMAGE_EXTENSIONS

__all__ = ["add_img_extensions", "del_img_extensions", "get_img_extensions", "is_img_extension", "set_img_extensions"]

IMG_EXTENSIONS: tuple[str, ...] = tuple(sorted(IMAGE_EXTENSIONS))


def get_img_extensions(as_set: bool = False) -> tuple[str, ...] | set[str]:
    """Extensions such as ".png", in lower case, by which readers that are made from now on know images."""
    return set(IMG_EXTENSIONS) if as_set else IMG_EXTENSIONS


def is_img_extension(ext: str) -> bool:
    return ext in IMG_EXTENSIONS


def set_img_extensions(extensions: Iterable[str]) -> None:
    """Know images by these alone.

    Raises:
        ConfigError: There are none, or one does not begin with a dot.
    """
    global IMG_EXTENSIONS
    known = tuple(dict.fromkeys(extensions))
    for extension in known:
        if not isinstance(extension, str) or len(extension) < 2 or extension[0] != ".":
            raise ConfigError(f"extension {extension!r} of images does not begin with a dot, as '.png' does")
    if not known:
        raise ConfigError("no extension of images is left")
    IMG_EXTENSIONS = known


def add_img_extensions(ext: str | Iterable[str]) -> None:
    set_img_extensions((*IMG_EXTENSIONS, *_several(ext)))


def del_img_extensions(ext: str | Iterable[str]) -> None:
    gone = set(_several(ext))
    set_img_extensions(known for known in IMG_EXTENSIONS if known not in gone)


def _several(ext: str | Iterable[str]) -> tuple[str, ...]:
    return (ext,) if isinstance(ext, str) else tuple(ext)
