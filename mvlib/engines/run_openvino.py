"""Exports run by OpenVINO, on the CPU. Imports no torch."""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

import numpy as np

from ..data.config import per_channel
from ..errors import CheckpointError, ConfigError
from .folder import EngineFolder
from .openvino_runtime import own_signal_stack, quick_import
from .runtime import check_images, size_error

with quick_import():
    import openvino as ov
    from openvino.preprocess import PrePostProcessor

__all__ = ["OpenVINOEngine", "open_engine"]

# Its bindings set up what they know of numpy when an array is first asked for, waiting for Python's lock with a lock of
# their own held: two threads that are the first stop each other for good. Modules are imported by one.
_ = [ov.Tensor(np.zeros(1, dtype)).data for dtype in (np.float32, np.uint8)]

_HINTS = {"float32": "f32", "int8": "f32", "bfloat16": "bf16", "float16": "f16"}  # what is not quantized stays float32


class OpenVINOEngine:
    """See `runtime.Engine`; each thread has a request of its own."""

    def __init__(self, folder: EngineFolder, model: ov.Model, options: dict[str, Any], lanes: int) -> None:
        self.folder = folder
        self.lanes = lanes
        self._model, self._options = model, options
        self._compiled: dict[bool, ov.CompiledModel] = {}
        self._lock = threading.Lock()
        self._local = threading.local()
        self._sizes: set[tuple[int, ...]] = set()  # of images, in pixels, that the model is known to take

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        check_images(self.folder, images)
        raw = images.dtype == np.uint8
        if not len(images):  # of none, a request gives again what it gave last
            return [output[:0] for output in self(np.zeros((1, *images.shape[1:]), images.dtype))]
        if self.folder.has_dynamic_size:
            self._check_size(images, images.shape[1:3] if raw else images.shape[2:])
        request = getattr(self._local, images.dtype.name, None)
        if request is None:
            request = self.compiled(raw).create_infer_request()
            setattr(self._local, images.dtype.name, request)
        request.infer([images])
        return [np.array(request.get_output_tensor(index).data) for index in range(len(self.folder.outputs))]

    def warm_up(self) -> None:
        self.compiled(raw=True)

    def _check_size(self, images: np.ndarray, size: tuple[int, ...]) -> None:
        """Refuse images that the model does not take. OpenVINO loses that error when it runs on one thread, and gives
        some answer, or ends the process."""
        if size in self._sizes:
            return
        model = self._model.clone()
        try:
            model.reshape(ov.PartialShape([*model.input().get_partial_shape()][:2] + [ov.Dimension(n) for n in size]))
        except RuntimeError as error:
            raise size_error(self.folder, images, _first_line(error)) from error
        self._sizes.add(size)

    def compiled(self, raw: bool) -> ov.CompiledModel:
        """For uint8 images, or for normalised ones; compiled when first asked for."""
        with self._lock:
            if raw not in self._compiled:
                model = self._with_normalization() if raw else self._model
                with own_signal_stack():
                    self._compiled[raw] = _core().compile_model(model, "CPU", self._options)
            return self._compiled[raw]

    def _with_normalization(self) -> ov.Model:
        config, model = self.folder.data_config, self._model.clone()
        channels = config["input_size"][0]
        mean, std = ([255 * value for value in per_channel(config[key], channels)] for key in ("mean", "std"))
        steps = PrePostProcessor(model)
        image = steps.input()
        image.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
        image.model().set_layout(ov.Layout("NCHW"))
        image.preprocess().convert_element_type(ov.Type.f32).mean(mean).scale(std)
        return steps.build()


def open_engine(folder: EngineFolder, *, lanes: int, threads: int, precision: str) -> OpenVINOEngine:
    """See `runtime.open_engine`."""
    options = {"INFERENCE_PRECISION_HINT": _HINTS[precision], "NUM_STREAMS": lanes,
               "INFERENCE_NUM_THREADS": lanes * threads}
    core = _core()
    with own_signal_stack():
        capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bfloat16" and "BF16" not in capabilities or precision == "float16" and "FP16" not in capabilities:
        raise ConfigError(f"this processor has no instructions for {precision}: take float32 or int8")
    try:
        model = core.read_model(folder.engine_file)
    except RuntimeError as error:
        raise CheckpointError(f"{folder.path}: OpenVINO {ov.__version__} cannot read the engine, which "
                              f"OpenVINO {folder.versions.get('openvino', '?')} made: {_first_line(error)}; export it "
                              f"again") from error
    return OpenVINOEngine(folder, model, options, lanes)


@cache
def _core() -> ov.Core:
    """One for all engines: each loads what runs models anew."""
    return ov.Core()


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
