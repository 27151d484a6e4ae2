"""An engine as a torch module: for programs and commands that work with torch anyway."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from ..errors import ConfigError
from .folder import FORMATS, EngineFolder, read_export, write_description
from .folder import Tensor as Described
from .runtime import Engine, backend_of, open_engine, run_filled

if TYPE_CHECKING:
    from ..optimization.report import Report

__all__ = ["EngineModule", "convert_module", "temporary_module"]


class EngineModule(nn.Module):
    """An engine in the place of the model that it was made from: for inference, on the CPU.

    Normalised images (B, C, H, W) of any floating type -> float32 outputs as the model gives them; of an export, one
    tensor, or a list where it has several outputs. Batches of any size: where the engine takes but one, they are cut
    and filled up. Threads are those of `torch.get_num_threads()` at the time of the call, which may come from several
    threads at once. Copies share the engine.

    Args:
        export: The folder of an export, or its description.
        precision: What is computed in, where it is not what the export says: "bfloat16" of a float32 engine.
        model: The model that the engine was made from, if there is one, in evaluation mode on the CPU: attributes that
            this lacks are its own, and it runs images of a size that the engine does not take.

    Attributes:
        folder: The export.
        model: As given.
        num_classes, in_chans, architecture, data_config: Of the model.
        weights_config: What the export says of its weights; `pretrained_cfg` and `default_cfg`: the same as a dict.
        report: What `mvlib.optimize` has done; None for an export.

    Raises:
        ConfigError: There is no such export, or the precision cannot be had.
        CheckpointError: The engine is damaged.
        MissingPackageError: The library that runs it is not installed.
    """

    report: Report | None = None

    def __init__(self, export: EngineFolder | str | os.PathLike[str], *, precision: str | None = None,
                 model: nn.Module | None = None) -> None:
        super().__init__()
        self.folder = export if isinstance(export, EngineFolder) else read_export(export)
        made = self.folder.precision
        self.precision = precision or made
        if self.precision != made and (made != "float32" or precision == "int8"):
            raise ConfigError(f"{self.folder.path} is an export in {made}, and cannot compute in {precision}: export "
                              f"{self.folder.made_of} with --precision {precision}")
        self._source = (model,)  # no child: its weights are not this module's
        self._arrange: Callable[[list[Tensor]], Any] = _plain
        self._engines: dict[int, Engine] = {}
        self._lock = threading.Lock()
        if model is None:
            self._describe()
        self.engine()  # whatever is wrong with it is said now
        self.eval()

    def _describe(self) -> None:
        folder = self.folder
        self.num_classes, self.in_chans = folder.num_classes, int(folder.input.shape[1])
        self.architecture = folder.config.get("architecture", folder.model)
        self.data_config = {key: tuple(value) if isinstance(value, list) else value
                            for key, value in folder.data_config.items()}
        self.weights_config = folder.weights_config
        self.pretrained_cfg = self.default_cfg = self.weights_config.to_dict()

    @property
    def backend(self) -> str:
        """What runs it, by the name that `mvlib.optimize` and --backend have for it."""
        return backend_of(self.folder)

    @property
    def model(self) -> nn.Module | None:
        return self._source[0]

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            model = self.__dict__.get("_source", (None,))[0]
            if model is None or name.startswith("__"):
                raise
            return getattr(model, name)

    def engine(self) -> Engine:
        """The engine for as many threads as torch has now."""
        threads = torch.get_num_threads()
        with self._lock:
            if threads not in self._engines:
                self._engines[threads] = open_engine(self.folder, threads=threads, precision=self.precision)
            return self._engines[threads]

    def compute_in(self, precision: str) -> None:
        """Have what is not quantized computed in another type from now on.

        Raises:
            ConfigError: The precision cannot be had.
        """
        self.precision = precision
        with self._lock:
            self._engines.clear()
        self.engine()

    def forward(self, x: Tensor) -> Any:
        """Images (B, C, H, W) to outputs.

        Raises:
            ConfigError: The images are not such as the engine takes.
        """
        if not isinstance(x, Tensor) or x.dim() != 4 or not x.is_floating_point():
            shown = f"{tuple(x.shape)} of {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
            raise ConfigError(f"an engine takes a floating tensor of images (B, C, H, W), not {shown}")
        if x.device.type != "cpu":
            raise ConfigError(f"an engine runs on the CPU, and the images are on {x.device}")
        x = x.detach().to(torch.float32)
        if self.model is not None and not self.fits(x):
            with torch.inference_mode():
                return self.model(x)
        images = x.contiguous().numpy()
        engine, fixed = self.engine(), self.folder.input.shape[0]
        size = fixed if isinstance(fixed, int) else _PER_THREAD * torch.get_num_threads()
        parts = [run_filled(engine, images[start:start + size]) for start in range(0, max(len(images), 1), size)]
        outputs = parts[0] if len(parts) == 1 else [np.concatenate(column) for column in zip(*parts)]
        return self._arrange([torch.from_numpy(output) for output in outputs])

    def fits(self, x: Tensor) -> bool:
        """Whether the engine takes images of this size."""
        _, *wanted = self.folder.input.shape
        return all(isinstance(want, str) or want == have for want, have in zip(wanted, x.shape[1:]))

    def train(self, mode: bool = True) -> EngineModule:
        """Only `train(False)`.

        Raises:
            RuntimeError: Training was asked for.
        """
        if mode:
            raise RuntimeError("an engine cannot be trained: train the model that it was made from, then export it")
        return super().train(False)

    def to(self, *args: Any, **kwargs: Any) -> EngineModule:
        """Itself.

        Raises:
            RuntimeError: Another device or type was asked for.
        """
        device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
        if device is not None and device.type != "cpu":
            raise RuntimeError(f"an engine runs on the CPU and cannot be moved to {device}")
        if dtype not in (None, torch.float32):
            raise RuntimeError(f"an engine's type is part of it and cannot be changed to {dtype}: export the model in "
                               f"another precision")
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> EngineModule:
        """Of `cuda()`, `half()` and their like."""
        probe = fn(torch.zeros(1, device="cpu"))
        return self.to(probe.device, probe.dtype)

    def cuda(self, device: Any = None) -> EngineModule:
        return self.to("cuda")

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Raises RuntimeError: there are no weights."""
        raise RuntimeError(_NO_WEIGHTS)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Raises RuntimeError: there are no weights."""
        raise RuntimeError(_NO_WEIGHTS)

    def __deepcopy__(self, memo: dict[int, Any]) -> EngineModule:
        return self  # nothing in it changes

    def __reduce__(self) -> Any:
        raise TypeError("an engine cannot be pickled: keep its export, and open that again")

    def extra_repr(self) -> str:
        return f"{self.folder.model}, {self.folder.format}, {self.precision}"


_PER_THREAD = 4  # images at once; of many, what a layer writes has left the cache when the next one reads it
_NO_WEIGHTS = ("an engine has no weights that torch could save or load: keep its export, or the weights of the model "
               "that it was made from")


def _plain(outputs: list[Tensor]) -> Any:
    return outputs[0] if len(outputs) == 1 else outputs


def temporary_module(make: Callable[[Path], object], model: nn.Module) -> EngineModule:
    """An engine that lives as long as its module, in a temporary folder.

    Args:
        make: Writes an export to a folder that is not there yet.
        model: What it is made from.
    """
    place = Path(tempfile.mkdtemp(prefix="mvlib-engine-"))
    try:
        make(place / "engine")
        module = EngineModule(place / "engine", model=model)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    weakref.finalize(module, shutil.rmtree, place, ignore_errors=True)  # at the interpreter's end, at the latest
    return module


def convert_module(model: nn.Module, example: Tensor, format: str) -> EngineModule:
    """Any module as an engine in float32.

    Args:
        model: In evaluation mode, on the CPU.
        example: Images (B, C, H, W) such as those to come; other batch sizes will do.
        format: One of `FORMATS`.

    Raises:
        MissingPackageError: The format's library is not installed.
        ConfigError: It cannot take the model.
    """
    from .convert import convert

    size = tuple(example.shape[1:])
    with torch.inference_mode():
        outputs, structure = tree_flatten(model(example[:1]))
    names = [f"output{i}" for i in range(len(outputs))]

    def make(place: Path) -> None:
        place.mkdir()
        versions = convert(format, model, torch.cat([example[:1]] * 2), place / FORMATS[format].file, names=names)
        write_description(EngineFolder(
            path=place, format=format, model=getattr(model, "architecture", type(model).__name__), weights=None,
            precision="float32", features=None, num_classes=getattr(model, "num_classes", 0),
            data_config={"input_size": size, "mean": 0.0, "std": 1.0}, input=Described("images", ("batch", *size)),
            outputs=tuple(Described(name, ("batch", *value.shape[1:])) for name, value in zip(names, outputs)),
            versions=versions))

    module = temporary_module(make, model)
    module._arrange = lambda found: tree_unflatten(found, structure)
    return module
