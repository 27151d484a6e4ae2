"""OpenVINO and NNCF without reports home: as they come, each import and conversion sends one. Imports no torch.

    with no_telemetry():
        import openvino

Else a process waits for the network at its end, and leaves an identity in the user's home.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["no_telemetry"]

_PACKAGE = "openvino_telemetry"
_lock = threading.Lock()
_within = 0  # blocks that threads are in
_put_back: Any = None


@contextmanager
def no_telemetry() -> Iterator[None]:
    """What is imported within does without the package that reports, for good; what was imported before (by the user's
    own program) sends nothing within."""
    global _within, _put_back
    with _lock:
        if _within == 0:
            _put_back = _hide()
        _within += 1
    try:
        yield
    finally:
        with _lock:
            _within -= 1
            if _within == 0:
                _put_back()


def _hide() -> Any:
    """Gives what undoes it."""
    sender = getattr(sys.modules.get(f"{_PACKAGE}.utils.sender"), "TelemetrySender", None)
    if sender is None:
        modules: dict[str, Any] = sys.modules
        modules[_PACKAGE] = None  # Python's way to say that there is no such package
        return lambda: modules.pop(_PACKAGE, None)
    send = sender.send
    sender.send = lambda *_: None
    return lambda: setattr(sender, "send", send)
