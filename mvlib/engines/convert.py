"""From a torch module to the file of another library."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

from .quiet import no_telemetry

__all__ = ["CONVERTERS"]


def to_openvino(model: nn.Module, example: Tensor, path: Path, dynamic_batch: bool) -> dict[str, str]:
    """By tracing; gives the versions of what was used."""
    with no_telemetry():
        import openvino as ov

        converted = ov.convert_model(model, example_input=example)
    shape = list(example.shape)
    converted.reshape([-1 if dynamic_batch else 1, *shape[1:]])
    converted.input().get_tensor().set_names({"images"})
    ov.save_model(converted, path, compress_to_fp16=False)
    return {"openvino": ov.__version__}


CONVERTERS: dict[str, Callable[[nn.Module, Tensor, Path, bool], dict[str, str]]] = {"openvino": to_openvino}
