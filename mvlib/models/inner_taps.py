"""Models with taps within blocks: such a block is two steps of the flow.

Its method `begin` gives the tap and what the shortcut takes, `finish` makes the output of both, and `beginning` is the
block without what `begin` can do without.
"""

from __future__ import annotations

from .base import ImageModel, Indices, Step

__all__ = ["InnerTaps", "inner_tap"]


def inner_tap(name: str, chs: int, reduction: int, module: str) -> list[Step]:
    """The two steps of a block; `module` is what `feature_info` calls the tap."""
    return [Step(name, chs, reduction, module, gives=("skip",), method="begin"),
            Step(name, takes=("skip",), method="finish")]


class InnerTaps(ImageModel):
    """What is cut off at a tap loses the rest of the tap's block, too."""

    def prune_intermediate_layers(
        self, indices: Indices = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        taken = super().prune_intermediate_layers(indices, prune_norm, prune_head)
        last = self.flow.body[-1]
        if last.method == "begin":
            self.set_submodule(last.name, self._at(last.name).beginning())
        return taken
