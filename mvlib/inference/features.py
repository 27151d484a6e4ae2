"""What a model sees in images, in the place of classes."""

from __future__ import annotations

from torch import Tensor, nn

from ..errors import ConfigError

__all__ = ["Features"]


class Features(nn.Module):
    """A model cut off where its features are.

    Args:
        model: With `forward_features` and `forward_head`; for a level, with `forward_intermediates`.
        kind: "pooled": one vector an image, what the classifier reads; "tokens": the final features before pooling,
            in the family's own layout; or a level of `feature_info`: its number (negative ones count from the end) or
            the name of its module.

    Raises:
        ConfigError: The model has no such features.
    """

    def __init__(self, model: nn.Module, kind: str = "pooled") -> None:
        super().__init__()
        name = getattr(model, "architecture", type(model).__name__)
        needed = ("forward_features", "forward_head") if kind in ("pooled", "tokens") else ("forward_intermediates",)
        if lacking := [method for method in needed if not hasattr(model, method)]:
            raise ConfigError(f"'{name}' cannot give features: it has no {lacking[0]}")
        self.model = model
        self.kind = kind
        self.level = None if kind in ("pooled", "tokens") else _level(model, name, kind)

    def forward(self, x: Tensor) -> Tensor:
        """Image (B, C, H, W) -> features (B, ...)."""
        if self.level is not None:
            return self.model.forward_intermediates(x, indices=[self.level], intermediates_only=True)[0]
        x = self.model.forward_features(x)
        return self.model.forward_head(x, pre_logits=True) if self.kind == "pooled" else x


def _level(model: nn.Module, name: str, kind: str) -> int:
    modules = [info["module"] for info in model.feature_info]
    if kind in modules:
        return modules.index(kind)
    number = int(kind) if kind.removeprefix("-").isdecimal() else None
    if number is None or not -len(modules) <= number < len(modules):
        raise ConfigError(f"'{name}' has no level '{kind}'; it has " +
                          ", ".join(f"{i} ({module})" for i, module in enumerate(modules)))
    return number % len(modules)
