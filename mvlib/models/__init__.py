"""Model families, one module each; `mvlib.models.resnet50` is the function that builds it, resolved on first use."""

from __future__ import annotations

from typing import Any

from .. import registry


def __getattr__(name: str) -> Any:
    if not name.startswith("_") and registry.is_model(name) and "." not in name:
        return registry.load_entrypoint(name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *registry.list_models()})
