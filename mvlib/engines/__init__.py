"""Models exported once and run by other libraries: what an export is, how it is made and how it answers.

Names are resolved on first use: an export is read and run without torch.
"""

from __future__ import annotations

from ..lazy import attach

_NAMES = {
    "folder": ("EngineFolder", "is_export", "read_export"),
    "runtime": ("Engine", "open_engine"),
    "module": ("EngineModule",),
    "exporter": ("ExportReport", "export"),
}

__getattr__, __dir__, __all__ = attach(__name__, _NAMES)
