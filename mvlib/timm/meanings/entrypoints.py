"""timm's entrypoints: `timm.models.resnet50(pretrained=True, num_classes=10)`. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

__all__ = ["entrypoint"]


@cache
def entrypoint(name: str) -> Callable[..., nn.Module]:
    """The function of an architecture of ours, or of a deprecated name, that builds it as timm's does."""

    def build(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        from ...factory import create_model

        return create_model(name, pretrained=pretrained, **kwargs)

    build.__name__ = build.__qualname__ = name
    return build


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return entrypoint(name)
