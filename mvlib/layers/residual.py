"""A block of a transformer: attention, then an MLP, each beside a shortcut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn

from .drop import DropPath
from .helpers import Module
from .mlp import LayerScale

__all__ = ["PreNormBlock", "ResidualBlock"]


class ResidualBlock(Module):
    """Attention, then an MLP, each on a residual branch behind a norm, with layer scale and stochastic depth.

    Keys `norm1`, `attn`, `ls1`, `norm2`, `mlp`, `ls2`; a family may have other `names` for attention and MLP. What is
    shared goes to the attention alone. A family derives its block from this one, whose constructor calls
    `add_branches`.
    """

    names: ClassVar[tuple[str, str]] = ("attn", "mlp")
    one_drop_path: ClassVar[bool] = False  # timm has one module for both branches there, `drop_path`
    attn: Any
    mlp: Any
    ls1: Any
    ls2: Any

    def add_branches(
        self, dim: int, norm_layer: Callable[[int], nn.Module], attn: nn.Module, mlp: nn.Module,
        init_values: float | None = None, drop_path: float = 0.0, dim_in: int | None = None,
    ) -> None:
        """Make both branches of `dim` channels, the first behind `dim_in`; `init_values` None is no layer scale."""
        def scale() -> nn.Module:
            return nn.Identity() if init_values is None else LayerScale(dim, init_values)

        self.norm1 = norm_layer(dim_in or dim)
        self.add_module(self.names[0], attn)
        drop = DropPath(drop_path)
        if self.one_drop_path:
            self.drop_path = drop
        self.ls1, self.drop_path1 = scale(), drop
        self.norm2 = norm_layer(dim)
        self.add_module(self.names[1], mlp)
        self.ls2, self.drop_path2 = scale(), drop if self.one_drop_path else DropPath(drop_path)

    def skip(self, x: Tensor, normed: Tensor) -> Tensor:
        """What the attention is added to, of the block's input and its norm."""
        return x

    def attend(self, x: Tensor, *shared: Any, **options: Any) -> Tensor:
        """The attention of what is normed."""
        return getattr(self, self.names[0])(x, *shared, **options)

    def forward(self, x: Tensor, *shared: Any, **options: Any) -> Tensor:
        normed = self.norm1(x)
        x = self.skip(x, normed) + self.drop_path1(self.ls1(self.attend(normed, *shared, **options)))
        return x + self.drop_path2(self.ls2(getattr(self, self.names[1])(self.norm2(x))))


class PreNormBlock(ResidualBlock):
    """The same without layer scale, of parts that a subclass gives to the constructor."""

    def __init__(
        self, dim: int, attn: nn.Module, mlp: nn.Module, norm_layer: Callable[[int], nn.Module], drop_path: float
    ) -> None:
        super().__init__()
        self.add_branches(dim, norm_layer, attn, mlp, drop_path=drop_path)
