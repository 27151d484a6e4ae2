"""An export, run by its own library. Imports no torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data.pil_transform import PILTransform
from ..engines.folder import EngineFolder
from ..engines.runtime import backend_of, open_engine, require, run_filled
from ..errors import ConfigError
from ..precisions import precision_name
from ..threads import compute_threads
from .options import BATCH_SIZES, PRECISIONS
from .pipeline import lanes_of
from .session import Session, Settings

__all__ = ["EngineSession"]


class EngineSession(Session):
    """See `Session`.

    Args:
        folder: What runs.
        settings: How to run it.
        features: Of `open_session`.

    Attributes:
        folder: The same.
        engine: Opened.

    Raises:
        ConfigError: The settings ask for something else than what was exported.
        MissingPackageError, CheckpointError: Of `open_engine`.
    """

    def __init__(self, folder: EngineFolder, settings: Settings, features: str | None = None) -> None:
        self.folder, self.settings = folder, settings
        self._check(features)
        self.name, self.num_classes, self.class_names = folder.model, folder.num_classes, folder.class_names
        self.features, self.data_config = folder.features, dict(folder.data_config)
        self.precision = self._precision()
        self.read = PILTransform(self.data_config, settings.decode).from_file
        device, cores = self._device(), compute_threads()
        self.lanes, threads = lanes_of(cores, settings.count) if device == "cpu" else (1, cores)
        fixed = folder.input.shape[0]
        self.batch_size = fixed if isinstance(fixed, int) else settings.batch_size or self._share(device)
        self.engine = open_engine(folder, lanes=self.lanes, threads=threads, precision=self.precision, device=device)

    def _check(self, features: str | None) -> None:
        folder, settings, path = self.folder, self.settings, self.folder.path
        if settings.checkpoint:
            raise ConfigError(f"{path} is an export, which has its weights within it: leave out --checkpoint, or name "
                              f"the model that the checkpoint is of")
        if settings.compile == "on":
            raise ConfigError(f"{path} is an export, compiled already: --compile is for models that torch runs")
        if not folder.has_dynamic_batch and settings.batch_size not in (None, folder.input.shape[0]):
            raise ConfigError(f"{path} was exported for batches of {folder.input.shape[0]}: leave out --batch-size, or "
                              f"export it again with a dynamic batch")
        if features is None and folder.features is not None:
            raise ConfigError(f"{path} is an export of features ('{folder.features}'), which predicts no classes: "
                              f"export {folder.made_of} without --features")
        if features is not None and folder.features is None:
            raise ConfigError(f"{path} is an export of a classifier, without features: export {folder.made_of} with "
                              f"{_option(features)}")
        if features is not None and len(folder.outputs) > 1:
            raise ConfigError(f"{path} gives {len(folder.outputs)} maps of features, of which one alone can be kept: "
                              f"export {folder.made_of} with --level")
        if features not in (None, "auto", folder.features):
            raise ConfigError(f"{path} is an export of the features '{folder.features}', not of '{features}': leave "
                              f"that out, or export {folder.made_of} with {_option(features)}")

    def _precision(self) -> str:
        """What is computed in: a float32 engine can do so in fewer bits."""
        made = self.folder.precision
        wanted = precision_name(self.settings.precision or made, PRECISIONS)
        if wanted != made and (made != "float32" or wanted == "int8"):
            raise ConfigError(f"{self.folder.path} is an export in {made}, and cannot compute in {wanted}: export "
                              f"{self.folder.made_of} with --precision {wanted}")
        return wanted

    def _device(self) -> str:
        if backend_of(self.folder) != "torch":
            return "cpu" if self.settings.device == "auto" else self.settings.device
        require("torch")
        made_for = self.folder.versions.get("machine")  # of machine code
        if made_for and self.settings.device == "auto":
            return "cuda" if made_for.startswith("cuda") else "cpu"
        from .model import resolve_device

        return str(resolve_device(self.settings.device))

    def _share(self, device: str) -> int:
        """Images in a batch, so that few are not all one lane's."""
        most, count = BATCH_SIZES.get(device.partition(":")[0], 16), self.settings.count
        return most if count is None else min(max(-(-count // self.lanes), 1), most)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return run_filled(self.engine, images)[0]

    def warm_up(self) -> None:
        self.engine.warm_up()

    def describe(self) -> dict[str, Any]:
        folder = self.folder
        return {"model": folder.model, "weights": folder.weights, "precision": self.precision,
                "decode": self.settings.decode, "preprocessing": self.data_config,
                "engine": {"format": folder.format, "precision": folder.precision, "digest": folder.digest}}


def _option(features: str) -> str:
    return f"--features {features}" if features in ("pooled", "tokens") else \
        "--features pooled" if features == "auto" else f"--level {features}"
