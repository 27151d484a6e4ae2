"""Exports in torch's own formats, run by torch: on the CPU, or on a GPU."""

from __future__ import annotations

import logging
import platform
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.normalizer import Normalizer
from ..devices import find_device
from ..errors import CheckpointError, ConfigError
from ..precisions import processor_features
from .folder import EngineFolder
from .runtime import check_images, size_error

__all__ = ["TorchEngine", "machine_of", "open_engine"]

Run = Callable[[Tensor], Any]


class TorchEngine:
    """See `runtime.Engine`.

    Attributes:
        device: Where it runs.
    """

    def __init__(self, folder: EngineFolder, run: Run, device: torch.device, lanes: int, threads: int) -> None:
        self.folder = folder
        self.device = device
        self.lanes = lanes
        self._run, self._threads = run, threads
        config = folder.data_config
        self._normalize = Normalizer(config["mean"], config["std"], config["input_size"][0], device, torch.float32)

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        check_images(self.folder, images)
        batch = torch.from_numpy(images).to(self.device)
        if images.dtype == np.uint8:
            batch = self._normalize(batch.permute(0, 3, 1, 2))
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)  # of the thread that calls
        try:
            outputs = self._run(batch)
        except AssertionError as error:  # of torch.export's programs
            if not self.folder.has_dynamic_size:
                raise
            raise size_error(self.folder, images, str(error)) from error
        finally:
            torch.set_num_threads(before)
        return [output.cpu().numpy().copy() for output in ([outputs] if isinstance(outputs, Tensor) else outputs)]

    def warm_up(self) -> None:
        pass


def open_engine(folder: EngineFolder, *, lanes: int, threads: int, precision: str, device: str = "cpu") -> TorchEngine:
    """See `runtime.open_engine`."""
    if precision != folder.precision:
        raise ConfigError(f"{folder.path} computes in {folder.precision}, in which it was exported, not in {precision}")
    place = find_device(device)
    try:
        run = _LOADERS[folder.format](folder, place)
    except ConfigError:
        raise
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise CheckpointError(f"{folder.path}: torch {torch.__version__} cannot read the engine, which torch "
                              f"{folder.versions.get('torch', '?')} made: {reason}; export it again") from error
    return TorchEngine(folder, run, place, lanes, threads)


def _load_program(folder: EngineFolder, device: torch.device) -> Run:
    program = torch.export.load(folder.engine_file)
    if device.type != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    return program.module()


def _load_script(folder: EngineFolder, device: torch.device) -> Run:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # deprecated, says torch: so be it
        return torch.jit.load(folder.engine_file, map_location=device)


def _load_package(folder: EngineFolder, device: torch.device) -> Run:
    made, here = folder.versions.get("machine", ""), machine_of(device)
    if lacking := set(made.split()) - set(here.split()):
        raise ConfigError(f"{folder.path} was compiled for {made.partition(' ')[0]} with {', '.join(sorted(lacking))}, "
                          f"and this is {here.partition(' ')[0]} without: export it again here")
    index = -1 if device.index is None else device.index
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it looks for a compiler that nobody needs
    package = torch._inductor.aoti_load_package(str(folder.engine_file), device_index=index)
    return lambda images: package(images.contiguous())  # it reads memory as the example's lay, and does not look


# Instructions that a compiler may use of its own accord, as the system names them.
_INSTRUCTIONS = ("amx", "avx", "bf16", "fma", "asimd", "sve", "f16c")


def machine_of(device: torch.device) -> str:
    """What machine code has to be made for: words, all of which the machine that runs it needs."""
    if device.type == "cuda":
        return f"cuda {'.'.join(map(str, torch.cuda.get_device_capability(device)))}"
    features = sorted(name for name in processor_features() or () if name.startswith(_INSTRUCTIONS))
    return " ".join([platform.machine(), *features])


_LOADERS: dict[str, Callable[[EngineFolder, torch.device], Run]] = {
    "torch-export": _load_program, "torchscript": _load_script, "aotinductor": _load_package}
