"""A contact sheet: pictures, each with its likeliest classes below it."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from PIL import Image, ImageDraw, ImageFont

from ..data.images import open_image
from ..data.jpeg import Source, decode_scaled, read_jpeg
from ..errors import ConfigError, MvlibError
from ..files import replacing
from .inputs import Url
from .options import SHEETS
from .writers import Prediction

__all__ = ["SHEETS", "ContactSheet", "check_sheet"]

_COLUMNS, _PAGE = 6, 60  # at most; further pictures go to further pages, so that memory has a bound
_WIDTH, _HEIGHT = 240, 180  # of a picture, in pixels
_GAP, _LINE, _CLASSES = 18, 19, 3
_PAPER, _FRAME, _INK, _QUIET, _BAR, _ALARM = "#ffffff", "#eef1f4", "#1f2933", "#66737f", "#cfe3f2", "#b3261e"


class _Tile(NamedTuple):
    picture: Image.Image | None
    name: str
    predictions: Sequence[Prediction]
    reason: str | None


def check_sheet(path: str | os.PathLike[str]) -> None:
    """Refuse a sheet that could not be written.

    Raises:
        ConfigError: The file's name has another ending than one of `SHEETS`.
    """
    if Path(path).suffix.lower() not in SHEETS:
        raise ConfigError(f"--sheet draws {', '.join(SHEETS)}, and '{path}' ends in none of them")


class ContactSheet:
    """Collects pictures and writes them to a file, a page of 60 at a time: NAME.png, NAME-2.png, ...

    Args:
        path: Of the first page; see `check_sheet`. Pages are written whole or not at all.

    Attributes:
        pages: Files written so far.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        check_sheet(path)
        self.path = Path(path)
        self.pages: list[Path] = []
        self._tiles: list[_Tile] = []
        self._small: dict[str, Image.Image | str] = {}

    def keep(self, name: str, content: BinaryIO) -> None:
        """Keep a small copy of a picture that is in no file until `add` asks for it; from any thread."""
        self._small[name] = _try_to_read(content, name)

    def add(self, path: str | os.PathLike[str], predictions: Sequence[Prediction], reason: str | None = None) -> None:
        """A picture.

        Args:
            path: Its file, or the name under which it is kept.
            predictions: The likeliest classes, best first; three are shown.
            reason: Why the file could not be read, if so.
        """
        kept = self._small.pop(os.fspath(path), None)
        picture = None
        if reason is None:
            found = _try_to_read(path, path) if kept is None else kept
            picture, reason = (None, found) if isinstance(found, str) else (found, None)
        self._tiles.append(_Tile(picture, _short_name(path), predictions[:_CLASSES], reason))
        if len(self._tiles) == _PAGE:
            self._write()

    def close(self) -> list[Path]:
        """Write what is left; gives the files of all pages."""
        if self._tiles:
            self._write()
        return self.pages

    def _write(self) -> None:
        number = len(self.pages) + 1
        path = self.path if number == 1 else self.path.with_name(f"{self.path.stem}-{number}{self.path.suffix}")
        kind = Image.registered_extensions()[path.suffix.lower()]
        with replacing(path) as temporary:
            _draw(self._tiles).save(temporary, kind, quality=90)
        self.pages.append(path)
        self._tiles = []


def _try_to_read(source: Source, name: str | os.PathLike[str]) -> Image.Image | str:
    """A small picture, or why it cannot be read: it may be gone or changed since it was classified."""
    try:
        return read_small(source)
    except (MvlibError, OSError) as error:
        return str(error).removeprefix(f"{os.fspath(name)}: ")


def _short_name(path: str | os.PathLike[str]) -> str:
    if isinstance(path, Url):
        path = path.partition("?")[0].partition("#")[0].rstrip("/")
    return os.path.basename(path)


def read_small(path: Source) -> Image.Image:
    """An image, upright, no larger than a tile; JPEGs are decoded at the scale that is enough.

    Raises:
        BadImageError: The file cannot be read.
    """
    jpeg = read_jpeg(path)
    image = None
    if jpeg is not None:
        data, header = jpeg
        height, width = header.upright_size
        spare = max(width / _WIDTH, height / _HEIGHT) / 2
        try:
            image = decode_scaled(data, next((shrink for shrink in (8, 4, 2) if spare >= shrink), 1))
        except OSError:  # damaged: the reference says how, or overlooks it
            image = None
    image = open_image(path) if image is None else image
    scale = min(_WIDTH / image.width, _HEIGHT / image.height)
    size = max(round(image.width * scale), 1), max(round(image.height * scale), 1)
    return image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST)


def _draw(tiles: Sequence[_Tile]) -> Image.Image:
    columns = min(_COLUMNS, len(tiles))
    lines = max(len(tile.predictions) for tile in tiles)
    width, height = _WIDTH + _GAP, _HEIGHT + _LINE * (lines + 1) + 6 + _GAP
    page = Image.new("RGB", (columns * width + _GAP, -(-len(tiles) // columns) * height + _GAP), _PAPER)
    draw, font = ImageDraw.Draw(page), _font(14)
    for number, tile in enumerate(tiles):
        left, top = _GAP + number % columns * width, _GAP + number // columns * height
        draw.rectangle((left, top, left + _WIDTH - 1, top + _HEIGHT - 1), fill=_FRAME)
        if tile.picture is not None:
            page.paste(tile.picture, (left + (_WIDTH - tile.picture.width) // 2,
                                      top + (_HEIGHT - tile.picture.height) // 2))
        elif tile.reason:
            reason = "\n".join(_shortened(draw, line, font, _WIDTH - 16) for line in textwrap.wrap(tile.reason, 28)[:6])
            draw.text((left + _WIDTH // 2, top + _HEIGHT // 2), reason, _ALARM, font, anchor="mm", align="center")
        y = top + _HEIGHT + 5
        draw.text((left, y), _shortened(draw, tile.name, font, _WIDTH), _QUIET, font)
        for _, name, probability in tile.predictions:
            y += _LINE
            draw.rectangle((left, y, left + round(probability * (_WIDTH - 1)), y + _LINE - 3), fill=_BAR)
            draw.text((left + _WIDTH, y), f"{probability:.0%}", _INK, font, anchor="ra")
            draw.text((left + 3, y), _shortened(draw, name, font, _WIDTH - 48), _INK, font)
    return page


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    try:
        return ImageFont.load_default(size)
    except (TypeError, OSError):  # Pillow before 10.1, or without FreeType
        return ImageFont.load_default()


def _shortened(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """A text that fits, its middle left out if need be: names differ at their ends."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    for kept in range(min(len(text), 200), 1, -1):
        shown = text if kept == len(text) else f"{text[:kept - kept // 2]}...{text[len(text) - kept // 2:]}"
        if draw.textlength(shown, font) <= width:
            return shown
    return text[:1]
