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
    """The function of an architecture of ours, or of a deprecated name, that builds it as timm's does.

    It builds ours where a user has registered a model of the name, too: his may call it.
    """
    def build(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        from .registry import hidden

        if name not in hidden:
            from .factory import create_model

            return create_model(name, pretrained=pretrained, **kwargs)
        from .builder import build_model_with_cfg

        maker, configs = hidden[name]
        cfg = kwargs.pop("pretrained_cfg", None)
        if not cfg or isinstance(cfg, str):
            cfg = configs.get(f"{name}.{cfg}") if cfg else next(iter(configs.values()), None)
        return build_model_with_cfg(maker, name, pretrained, pretrained_cfg=cfg, **kwargs)

    build.__name__ = build.__qualname__ = name
    return build


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return entrypoint(name)
