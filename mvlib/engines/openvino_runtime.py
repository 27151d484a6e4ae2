"""OpenVINO as it is needed to run models: imported in half the time, its converter when somebody asks for it.

    with quick_import():
        import openvino

Imports no torch.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .quiet import no_telemetry

__all__ = ["quick_import"]

_CONVERTER = "openvino.tools.ovc"


@contextmanager
def quick_import() -> Iterator[None]:
    """The package does without its converter where that is not installed; here it seems so while it is imported.

    `openvino.convert_model` is there all the same, for whoever uses it later. Nothing is reported (`no_telemetry`).
    """
    modules: dict[str, Any] = sys.modules
    with no_telemetry():
        if "openvino" in modules:
            yield
            return
        modules[_CONVERTER] = None  # Python's way to say that there is no such module
        try:
            yield
        finally:
            del modules[_CONVERTER]
    package = modules["openvino"]
    if not hasattr(package, "convert_model") and not hasattr(package, "__getattr__"):
        package.__getattr__ = _convert_model


def _convert_model(name: str) -> Any:
    """`__getattr__` of the package: what its `__init__` would have imported."""
    if name != "convert_model":
        raise AttributeError(f"module 'openvino' has no attribute '{name}'")
    value = importlib.import_module(_CONVERTER).convert_model
    setattr(sys.modules["openvino"], name, value)
    return value
