"""torchvision's face: torchvision, with our builders and weights in `torchvision.models`.

    import mvlib.torchvision as torchvision           in one's own code
    python -m mvlib.torchvision train.py ...          somebody else's: its `import torchvision` finds this face
    mvlib.torchvision.install()                       the same from Python

All but `models` is torchvision itself, and so are the classes of the models; see `mvlib.torchvision_modules`.
`mvlib.models` is the same with all of mvlib's models beside torchvision's.
"""

from __future__ import annotations

import importlib
from typing import Any

from ..torchvision_modules import install, is_installed, real

__all__ = ["install", "is_installed"]


def __getattr__(name: str) -> Any:
    if name == "models":
        return importlib.import_module(f"{__name__}.models")
    if name.startswith("__") and name != "__version__":
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(real("torchvision"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(real("torchvision"))})
