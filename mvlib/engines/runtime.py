"""Engines that run: an export opened by its library, behind one call. Imports no torch where the format needs none."""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import Protocol

import numpy as np

from ..errors import ConfigError, MissingPackageError
from .folder import FORMATS, EngineFolder, read_export

__all__ = ["BACKENDS", "ENGINES", "Engine", "backend_of", "is_installed", "open_engine", "require",
           "require_backend", "require_for_export", "run_filled"]

BACKENDS = ("auto", "torch", "openvino", "onnxruntime")
ENGINES = {known.backend: name for name, known in FORMATS.items() if known.backend != "torch"}  # and their format
_EXTRAS = {"openvino": "mvlib[openvino]", "nncf": "mvlib[openvino]", "onnx": "mvlib[onnx]",
           "onnxscript": "mvlib[onnx]", "onnxruntime": "mvlib[onnx]"}


def backend_of(folder: EngineFolder) -> str:
    """What runs an export, by the name that `BACKENDS` have for it."""
    return FORMATS[folder.format].backend


class Engine(Protocol):
    """An export that answers. May be called from several threads at once.

    Attributes:
        folder: The export.
        lanes: How many calls are best under way at once.
    """

    folder: EngineFolder
    lanes: int

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        """Images to outputs, in the folder's order, as arrays of their own.

        Args:
            images: uint8 (batch, height, width, channels), which are normalised within; or float32
                (batch, channels, height, width), normalised already.
        """

    def warm_up(self) -> None:
        """What the first call with uint8 images would have to do before it computes."""


def is_installed(package: str) -> bool:
    """Whether a package could be imported; it is not."""
    return importlib.util.find_spec(package) is not None


def install_command(package: str) -> str:
    return f"pip install '{_EXTRAS.get(package, package)}'"


def require(package: str) -> None:
    """Refuse to go on without a package.

    Raises:
        MissingPackageError: It is not installed; says how to install it.
    """
    if not is_installed(package):
        raise MissingPackageError(f"this needs the package '{package}', which is not installed: "
                                  f"{install_command(package)}")


def require_backend(backend: str | None) -> None:
    """Refuse a backend whose package is missing; none is missing of "auto" and "torch".

    Raises:
        MissingPackageError: It is not installed; says how to install it.
    """
    if backend in ENGINES:
        require(FORMATS[ENGINES[backend]].package)


def require_for_export(format: str) -> None:
    """Refuse to export without the packages that write a format and run it.

    Raises:
        MissingPackageError: One is not installed; says how to install it.
    """
    for package in ("torch", *FORMATS[format].writers):
        require(package)


def open_engine(
    folder: EngineFolder | str | os.PathLike[str], *, lanes: int = 1, threads: int = 1, precision: str | None = None,
    device: str = "cpu",
) -> Engine:
    """Open an export for inference.

    Args:
        folder: Of `read_export`, or its path.
        lanes: Calls that will be under way at once.
        threads: Cores for each of them.
        precision: What is computed in, where it is not what the folder says: "bfloat16" of a float32 engine.
        device: "cpu"; of torch's own formats, a GPU, too: "cuda", "cuda:1".

    Raises:
        MissingPackageError: The format's library is not installed.
        CheckpointError: The engine is damaged, or its library does not take it.
        ConfigError: It is no export, or the precision or the device cannot be had.
    """
    if not isinstance(folder, EngineFolder):
        folder = read_export(folder)
    known = FORMATS[folder.format]
    require(known.package)
    folder.check_files()
    module = importlib.import_module(f"{__package__}.{known.module}")
    more = {"device": device} if known.package == "torch" else {}
    if device != "cpu" and not more:
        raise ConfigError(f"{folder.path}: engines in the format {folder.format} run on the CPU, not on {device}")
    return module.open_engine(folder, lanes=lanes, threads=threads, precision=precision or folder.precision, **more)


def run_filled(engine: Engine, images: np.ndarray) -> list[np.ndarray]:
    """What an engine gives for images, be they none, or fewer than the batch that it was exported for."""
    count, fixed = len(images), engine.folder.input.shape[0]
    size = fixed if isinstance(fixed, int) else max(count, 1)
    if count < size:
        images = np.concatenate([images, np.zeros((size - count, *images.shape[1:]), images.dtype)])
    return [output if count == size else output[:count] for output in engine(images)]


def check_images(folder: EngineFolder, images: np.ndarray) -> None:
    """Refuse images that the engine was not made for.

    Raises:
        ConfigError: Their shape or type.
    """
    if not isinstance(images, np.ndarray):
        raise ConfigError(f"{folder.path} takes images as an array of numpy's, not as a "
                          f"{type(images).__name__}: pass numpy.stack(images)")
    if images.dtype not in (np.uint8, np.float32):
        raise ConfigError(f"{folder.path} takes images of uint8, or normalised ones of float32, not of {images.dtype}")
    raw, wanted = images.dtype == np.uint8, folder.input.shape
    batch, channels, *sides = wanted
    shown = " x ".join(map(str, (batch, *sides, channels) if raw else wanted))
    given = " x ".join(map(str, images.shape)) or "none"
    takes = f"{folder.path} takes {'uint8' if raw else 'normalised float32'} images of {shown}, not {given}"
    if images.ndim == len(wanted) - 1:
        raise ConfigError(f"{takes}: a batch dimension is missing; pass images[None]")
    if images.ndim != len(wanted):
        raise ConfigError(takes)
    found = (len(images), images.shape[-1], *images.shape[1:-1]) if raw else images.shape
    different = [isinstance(want, int) and want != have for want, have in zip(wanted, found)]
    if different[1]:
        raise ConfigError(f"{takes}: uint8 images have their channels last, float32 ones first")
    if any(different):
        size = "a dynamic batch" if different[0] else "--img-size or a dynamic size"
        raise ConfigError(f"{takes}: export it with {size}")


def size_error(folder: EngineFolder, images: np.ndarray, reason: str) -> ConfigError:
    """Of images of a size that an engine for any size fails on."""
    height, width = images.shape[1:3] if images.dtype == np.uint8 else images.shape[2:]
    return ConfigError(f"{folder.path} does not take images of {height} x {width} pixels: {reason}")
