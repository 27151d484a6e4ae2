"""OpenVINO as it is needed to run models: imported in half the time, its converter when somebody asks for it, and
without harm to the thread that loads it.

    with quick_import():
        import openvino
    with own_signal_stack():
        openvino.Core().compile_model(model, "CPU")

Imports no torch.
"""

from __future__ import annotations

import ctypes
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .quiet import no_telemetry

__all__ = ["own_signal_stack", "quick_import"]

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


@contextmanager
def own_signal_stack() -> Iterator[None]:
    """What handles signals in this thread keeps the stack that it has, whatever is loaded within.

    OpenVINO's plugin for the CPU, which each `Core` loads when it is first used, puts a stack of its own in the place
    (larger, for AMX). When the plugin goes, in whatever thread drops its last model, that memory goes with it, and the
    first signal that the loading thread has a handler for (SIGCHLD has one, where a DataLoader ever had workers) would
    end the process. Without it, Python's is large enough.
    """
    if not sys.platform.startswith("linux"):  # elsewhere it does no such thing
        yield
        return
    sigaltstack = ctypes.CDLL(None).sigaltstack
    before = _SignalStack()
    sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        sigaltstack(ctypes.byref(before), None)


class _SignalStack(ctypes.Structure):
    """stack_t."""

    _fields_ = [("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]
