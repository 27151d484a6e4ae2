"""Many images through one model: decoding beside the model, results in order, in files that can be gone on with.

    session = open_session(Settings(model="lite0.ov"))      # a name, or an export, which runs without torch
    compute = classify(session, topk=5)
    compute(session.read("photo.jpg")[None])                # of a batch: [[(number, name, probability), ...]]

Names are resolved on first use; `class_names_of`, of a model that `create_model` built, alone imports torch.
"""

from __future__ import annotations

from ..lazy import attach

_NAMES = {
    "session": ("Session", "Settings", "classify", "embed", "open_session"),
    "sheet": ("ContactSheet",),
    "model": ("class_names_of",),
}

__getattr__, __dir__, __all__ = attach(__name__, _NAMES)
