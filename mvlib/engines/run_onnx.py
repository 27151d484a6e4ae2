"""Exports run by ONNX Runtime, on the CPU. Imports no torch."""

from __future__ import annotations

import numpy as np
import onnxruntime

from ..data.config import per_channel
from ..errors import CheckpointError, ConfigError
from .folder import EngineFolder
from .runtime import check_images

__all__ = ["OnnxEngine", "open_engine"]


class OnnxEngine:
    """See `runtime.Engine`; a session may be run from several threads."""

    def __init__(self, folder: EngineFolder, session: onnxruntime.InferenceSession, lanes: int) -> None:
        self.folder = folder
        self.session = session
        self.lanes = lanes
        channels = folder.data_config["input_size"][0]
        mean, std = (255 * np.array(per_channel(folder.data_config[key], channels)) for key in ("mean", "std"))
        self._factor, self._shift = (1 / std).astype(np.float32), (-mean / std).astype(np.float32)

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        check_images(self.folder, images)
        if images.dtype == np.uint8:
            images = np.ascontiguousarray((images * self._factor + self._shift).transpose(0, 3, 1, 2))
        names = [output.name for output in self.folder.outputs]
        return self.session.run(names, {self.folder.input.name: images})

    def warm_up(self) -> None:
        pass


def open_engine(folder: EngineFolder, *, lanes: int, threads: int, precision: str) -> OnnxEngine:
    """See `runtime.open_engine`."""
    if precision not in ("float32", "int8"):
        raise ConfigError(f"ONNX Runtime computes in float32 or int8 on a CPU, not in {precision}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(folder.engine_file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors derive from nothing of Python's but Exception
        raise CheckpointError(f"{folder.path}: ONNX Runtime {onnxruntime.__version__} cannot read the engine: "
                              f"{str(error).splitlines()[0]}; export it again") from error
    return OnnxEngine(folder, session, lanes)
