"""A model, loaded and run by torch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.config import resolve_data_config
from ..errors import ConfigError
from ..optimization.precision import check_precision
from ..precisions import precision_name
from ..threads import cpu_count
from .features import Features
from .model import Engine, class_names_of, create_read, digest_of, load_model, name_of, prepare, resolve_device
from .options import BATCH_SIZES, PRECISIONS
from .pipeline import Answer, Job, lanes_of
from .session import Session, Settings

__all__ = ["TorchSession"]


class TorchSession(Session):
    """See `Session`, and `open_session` for the arguments.

    Attributes:
        device: Where the model runs.
        engine: What runs.
    """

    def __init__(self, settings: Settings, features: str | None = None, with_digest: bool = False) -> None:
        precision = precision_name(settings.precision or "float32", PRECISIONS)
        self.settings = settings = replace(settings, precision=precision)
        self.device = resolve_device(settings.device)
        if precision != "int8":  # before anything is loaded
            check_precision(getattr(torch, precision), self.device, settings.force)
        self.batch_size = settings.batch_size or BATCH_SIZES.get(self.device.type, 16)
        threads = torch.get_num_threads()
        self.lanes, self.threads = lanes_of(min(threads, cpu_count())) if self.device.type == "cpu" else (1, threads)
        model: Any = load_model(settings.model, settings.checkpoint, self.device, precision, what="predict")
        self.name, self.num_classes = name_of(model), model.num_classes
        self.class_names, self.features = class_names_of(model), features
        self.data_config = resolve_data_config(model=model, use_test_size=False)
        self.digest = digest_of(model) if with_digest else None
        read = create_read(self.data_config, settings.decode)
        self.read = lambda path: read(path).permute(1, 2, 0).numpy()
        if self.device.type == "cuda":
            self.allocate = _pinned
        with _use_threads(self.threads):  # what is compiled is compiled for so many
            self.engine: Engine = prepare(
                Features(model, features) if features else model, self.data_config, self.device, precision=precision,
                compile=settings.compile, batch_size=self.batch_size, count=settings.count, force=True)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            outputs = self.engine(torch.from_numpy(images).permute(0, 3, 1, 2))
            if not isinstance(outputs, Tensor):
                raise ConfigError(f"features of {type(outputs).__name__} cannot be kept: they are no array")
            return outputs.cpu().float().numpy()

    def describe(self) -> dict[str, Any]:
        return {"model": self.name, "weights": self.digest, "precision": self.settings.precision,
                "decode": self.settings.decode, "preprocessing": self.data_config}

    def try_out(self, compute: Callable[[np.ndarray], Any]) -> Any:
        with _use_threads(self.threads):
            return super().try_out(compute)

    def answers(self, jobs: Iterable[Job], compute: Callable[[np.ndarray], Any]) -> Iterator[Answer]:
        with _use_threads(self.threads):
            yield from super().answers(jobs, compute)


def _pinned(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """Memory from which a GPU fetches by itself."""
    return torch.empty(shape, dtype=torch.uint8, pin_memory=True).numpy()


@contextlib.contextmanager
def _use_threads(count: int) -> Iterator[None]:
    """Have operations of torch use `count` cores each."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
