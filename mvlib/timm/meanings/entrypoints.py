"""timm's entrypoints: `timm.models.resnet50(pretrained=True, num_classes=10)`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from torch import nn

from ...registry import model_entrypoint

__all__ = ["entrypoint"]


@cache
def entrypoint(name: str) -> Callable[..., nn.Module]:
    """The function of an architecture of ours, or of a deprecated name, that builds it as timm's does."""
    from ...factory import create_model

    def build(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        return create_model(name, pretrained=pretrained, **kwargs)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = model_entrypoint(name).__doc__
    return build


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return entrypoint(name)
