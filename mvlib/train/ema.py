"""An exponential moving average of a model's weights, on torch's AveragedModel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ..layers.helpers import unwrap

__all__ = ["ModelEma"]


class ModelEma(AveragedModel):
    """average <- decay * average + (1 - decay) * weights, of parameters and floating-point buffers alike.

    The first update copies the weights, as timm's and torch's do; integer buffers (batch norm's counts) are always
    copied. `module` is the averaged model, in evaluation mode.

    Args:
        model: The model to follow.
        decay: As published with the weights (0.9999 for timm's EfficientNets).
        warmup: Begin with smaller decays: 1 - (1 + t) ** (-2 / 3) at update t, until that exceeds `decay`.
        device: Where the average is kept, if not with the model.
    """

    def __init__(
        self, model: nn.Module, decay: float = 0.9999, warmup: bool = False, device: torch.device | str | None = None
    ) -> None:
        super().__init__(unwrap(model), device, multi_avg_fn=self._average, use_buffers=True)
        self.decay = decay
        self.warmup = warmup
        self.n_averaged = self.n_averaged.cpu()  # read at every update: on a GPU that would wait for it
        self.module.requires_grad_(False)
        self.module.eval()

    def decay_at(self, update: int) -> float:
        """The decay of an update, counted from 0; that of the first is not used."""
        return min(self.decay, 1 - (1 + update) ** (-2 / 3)) if self.warmup else self.decay

    @torch.no_grad()
    def _average(self, averages: Sequence[Tensor], weights: Sequence[Tensor], count: Tensor | int) -> None:
        if averages[0].is_floating_point():
            torch._foreach_lerp_(list(averages), list(weights), 1 - self.decay_at(int(self.n_averaged)))
        else:
            torch._foreach_copy_(list(averages), list(weights))

    def restart(self) -> None:
        """Let the next update copy the weights, as torchvision does throughout warmup."""
        self.n_averaged.zero_()
