"""timm's face: its modules, names, signatures and meanings, over what mvlib has.

    import mvlib.timm as timm                      in one's own code
    python -m mvlib.timm train.py ...              somebody else's: its `import timm` finds this face
    mvlib.timm.install()                           the same from Python

The modules below are made from `tables`; names are resolved on first use, so that importing this imports no torch.
Where timm means something else by a name than mvlib, a thin function in `meanings` translates.
"""

from __future__ import annotations

from typing import Any

from .finder import directory as _directory
from .finder import get as _get
from .finder import install, is_installed
from .finder import names as _names

__version__ = "1.0.31"  # the release of timm that this follows; mvlib's own is mvlib.__version__
__all__ = ["__version__", "install", "is_installed", *_names("")]


def __getattr__(name: str) -> Any:
    value = _get("", name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_directory("")})
