"""timm's distribution as `importlib.metadata` finds it once the face is installed. Imports no torch."""

from __future__ import annotations

from importlib.metadata import Distribution
from typing import Any, NoReturn

from . import __version__

__all__ = ["FaceDistribution"]


class FaceDistribution(Distribution):
    """Says timm's name and the release that the face follows."""

    def read_text(self, filename: str) -> str | None:
        return f"Metadata-Version: 2.1\nName: timm\nVersion: {__version__}\n" if filename == "METADATA" else None

    def locate_file(self, path: Any) -> NoReturn:
        raise FileNotFoundError(f"mvlib stands for timm, and has no file {path} of it")
