"""Errors that mvlib raises. Imports no torch.

They derive from the built-in exceptions that timm and torchvision raise in the same places, so that code written for
those catches them too.
"""

__all__ = [
    "BadImageError", "CheckpointError", "ChecksumError", "ConfigError", "DataError", "DownloadError",
    "ExportError", "MissingPackageError", "MvlibError", "NoAnswerError", "NotCachedError",
    "UnknownNameError", "WeightsError",
]


class MvlibError(Exception):
    """Base of every error of mvlib's own."""


class UnknownNameError(MvlibError, RuntimeError):
    """A model name, tag or source prefix that is not known."""


class ConfigError(MvlibError, ValueError):
    """A configuration (catalog, config.json, arguments) that cannot be used."""


class WeightsError(MvlibError, RuntimeError):
    """Weights that cannot be had or used."""


class DownloadError(WeightsError):
    """A weights file could not be fetched from any of its sources."""


class NotCachedError(DownloadError):
    """A weights file is not in the cache, and the network cannot be used."""


class ChecksumError(WeightsError):
    """A weights file is not the one that was published."""


class CheckpointError(WeightsError):
    """A weights file is damaged, unsafe, or does not fit the model."""


class BadImageError(MvlibError, ValueError):
    """An image file that cannot be read."""


class DataError(MvlibError, RuntimeError):
    """A data set that cannot be used."""


class NoAnswerError(DataError):
    """A model that gives NaN or infinity in the place of an answer.

    Attributes:
        rows: {number of an image of the batch: why there is no answer}.
    """

    def __init__(self, rows: dict[int, str]) -> None:
        super().__init__(f"image {min(rows)} of the batch: {rows[min(rows)]}" if rows else "")
        self.rows = rows


class MissingPackageError(MvlibError, ImportError):
    """An optional package that is asked for and not installed."""


class ExportError(MvlibError, RuntimeError):
    """An engine that does not answer as the model does that it was made from."""
