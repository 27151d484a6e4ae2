"""Models with a second classifier that learns from a teacher (DeiT, https://arxiv.org/abs/2012.12877)."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from .base import ImageModel

__all__ = ["Distilled"]


class Distilled(ImageModel):
    """Mixin that gives a family a second classifier, `head_dist`; it stands before the family among the bases.

    Shapes: as the family's, the mean of both classifiers; in training after `set_distilled_training()`, a pair of both.
    """

    classifier_path: ClassVar[tuple[str, ...]] = ("head", "head_dist")
    distilled_training: bool = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.head_dist = self.make_classifier(self.num_classes)
        self.init_modules(name for name, _ in self.named_modules() if name.partition(".")[0] == "head_dist")

    def set_distilled_training(self, enable: bool = True) -> None:
        """Whether training returns both classifiers' logits, for a loss of each."""
        self.distilled_training = enable

    def classifier_inputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Final features -> what each classifier takes: both the pooled ones, unless a family says otherwise."""
        x = super().forward_head(x, pre_logits=True)
        return x, x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        if self._modules["head_dist"] is None:  # a family may do without
            return super().forward_head(x, pre_logits)
        own, distilled = self.classifier_inputs(x)
        if pre_logits:
            return own if distilled is own else (own + distilled) / 2
        own, distilled = self.head(own), self.head_dist(distilled)
        if self.distilled_training and self.training:
            return own, distilled
        return (own + distilled) / 2
