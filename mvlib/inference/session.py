"""A model, ready to be given files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..data.config import resolve_data_config
from ..errors import ConfigError
from ..optimization.precision import check_precision
from ..precisions import precision_name
from ..threads import cpu_count
from .model import Engine, class_names_of, create_read, digest_of, load_model, name_of, prepare, resolve_device
from .options import PRECISIONS
from .pipeline import Answer, Job, cpu_lanes, run_pipeline, use_threads

_BATCH_SIZE = {"cpu": 4, "cuda": 64}

__all__ = ["Session", "Settings", "classify"]


@dataclass(frozen=True)
class Settings:
    """What a command is told of model and machine; see `mvlib predict --help`.

    Attributes:
        batch_size: Images at once, in each of the model's threads; None for what suits the device. Few are best on a
            CPU: what a layer writes is still in the cache when the next one reads it.
        count: How many images there will be, as far as that is known; what compiling has to pay for.
    """

    model: str | None = None
    checkpoint: str | None = None
    device: str = "auto"
    precision: str = "float32"
    force: bool = False
    compile: str = "auto"
    decode: str = "full"
    batch_size: int | None = None
    workers: int | None = None
    count: int | None = None


class Session:
    """A loaded model and the threads that feed it.

    Args:
        settings: What to load, and how to run it.
        adapt: From the loaded model to what is run, if that is not the model itself: (model) -> module.
        with_digest: Whether `describe` tells weights by what is in them.

    Attributes:
        model: The model as it was loaded.
        data_config: How its inputs are prepared.
        class_names: Of its outputs.
        batch_size: Images in a job, at most.
        engine: What runs.
    """

    def __init__(self, settings: Settings, adapt: Callable[[nn.Module], nn.Module] | None = None,
                 with_digest: bool = False) -> None:
        self.settings = settings = replace(settings, precision=precision_name(settings.precision, PRECISIONS))
        self.device = resolve_device(settings.device)
        if settings.precision != "int8":  # before anything is loaded
            check_precision(getattr(torch, settings.precision), self.device, settings.force)
        self.batch_size = settings.batch_size or _BATCH_SIZE.get(self.device.type, 16)
        self.lanes, self.threads = cpu_lanes() if self.device.type == "cpu" else (1, torch.get_num_threads())
        self.model = load_model(settings.model, settings.checkpoint, self.device, settings.precision)
        self.data_config = resolve_data_config(model=self.model, use_test_size=False)
        self.class_names = class_names_of(self.model)
        self.digest = digest_of(self.model) if with_digest else None
        self.read = create_read(self.data_config, settings.decode)
        with use_threads(self.threads):  # what is compiled is compiled for so many
            self.engine: Engine = prepare(
                adapt(self.model) if adapt else self.model, self.data_config, self.device,
                precision=settings.precision, compile=settings.compile, batch_size=self.batch_size,
                count=settings.count, force=True)

    def describe(self) -> dict[str, Any]:
        """What results depend on, as JSON has it."""
        return {"model": name_of(self.model), "weights": self.digest, "precision": self.settings.precision,
                "decode": self.settings.decode, "preprocessing": self.data_config}

    def try_out(self, compute: Callable[[Tensor], Any]) -> Any:
        """What `compute` gives for one black image."""
        with use_threads(self.threads), torch.inference_mode():
            return compute(torch.zeros((1, *self.data_config["input_size"]), dtype=torch.uint8))

    def answers(self, jobs: Iterable[Job], compute: Callable[[Tensor], Any]) -> Iterator[Answer]:
        """Run `compute`, which calls `engine`, over the images of `jobs`, in order; see `run_pipeline`."""
        with use_threads(self.threads):
            yield from run_pipeline(
                jobs, self.read, compute, input_size=self.data_config["input_size"],
                batch_size=self.batch_size, workers=self.settings.workers or cpu_count(), lanes=self.lanes,
                pin_memory=self.device.type == "cuda")


def classify(session: Session, topk: int) -> Callable[[Tensor], list[list[tuple[int, str, float]]]]:
    """What turns images into their likeliest classes: uint8 (n, C, H, W) -> n lists of (number, name, probability).

    Raises:
        ConfigError: The model has no classes.
    """
    if session.model.num_classes < 1:
        raise ConfigError(f"'{session.settings.model}' has no classes to predict: its weights are for features")
    names, topk = session.class_names, min(topk, session.model.num_classes)

    def compute(images: Tensor) -> list[list[tuple[int, str, float]]]:
        values, indices = session.engine(images).float().softmax(dim=-1).topk(topk)
        return [[(index, names[index], value) for index, value in zip(*row)]
                for row in zip(indices.tolist(), values.tolist())]

    return compute
