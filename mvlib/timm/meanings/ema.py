"""timm.utils.model_ema: moving averages of a model's weights as timm's scripts build, update and save them.

`mvlib.train.ema.ModelEma` is the one that `mvlib train` uses.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from ...train.checkpoint import read_checkpoint

__all__ = ["ModelEma", "ModelEmaV2", "ModelEmaV3"]


def _averaged(model: nn.Module, device: Any) -> nn.Module:
    copy = deepcopy(model).eval()
    return copy.to(device=device) if device else copy


class ModelEma:
    """The first of timm's three, which is no module: `ema` is the averaged model, and names need not agree on a
    wrapper's "module.".

    Args:
        model: The model to follow.
        decay: Share of the average that an update keeps.
        device: Where the average is kept, if not with the model.
        resume: A training checkpoint, whose `state_dict_ema` (of none, the model's weights) the average begins with.
    """

    def __init__(self, model: nn.Module, decay: float = 0.9999, device: Any = "", resume: str = "") -> None:
        self.ema = _averaged(model, device)
        self.decay = decay
        self.device = device
        self.ema_has_module = hasattr(self.ema, "module")
        if resume and (saved := read_checkpoint(resume).get("state_dict_ema")):
            plain = {key.removeprefix("module."): value for key, value in saved.items()}
            self.ema.load_state_dict({f"module.{key}" if self.ema_has_module else key: value
                                      for key, value in plain.items()})
        self.ema.requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Go the way of `1 - decay` from the average to the model's present weights."""
        prefix = "module." if hasattr(model, "module") and not self.ema_has_module else ""
        weights = model.state_dict()
        for key, average in self.ema.state_dict().items():
            _blend(average, weights[prefix + key].to(average.device), self.decay)


class ModelEmaV2(nn.Module):
    """The second of timm's three: `module` is the averaged model, entries go by their order.

    Integers (batch norm's counts) are averaged, too, and cut to integers.

    Args:
        model, decay, device: As of `ModelEma`.
    """

    def __init__(self, model: nn.Module, decay: float = 0.9999, device: Any = None) -> None:
        super().__init__()
        self.module = _averaged(model, device)
        self.decay = decay
        self.device = device

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Go the way of `1 - decay` from the average to the model's present weights."""
        for average, weight in _pairs(self.module, model):
            _blend(average, weight, self.decay)

    @torch.no_grad()
    def set(self, model: nn.Module) -> None:
        """Take the model's present weights as the average."""
        for average, weight in _pairs(self.module, model):
            average.copy_(weight)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)


class ModelEmaV3(nn.Module):
    """The third of timm's three, which timm's training script uses: floating-point entries are averaged, integers
    copied, in a few operations on lists of tensors.

    Args:
        model: The model to follow.
        decay: Share of the average that an update keeps.
        min_decay: Least decay of warmup.
        update_after_step: Updates of the model before the average begins.
        use_warmup: The decay of a step is 1 - (1 + step / warmup_gamma) ** -warmup_power, up to `decay`.
        warmup_gamma, warmup_power: Of that.
        device: Where the average is kept, if not with the model.
        dtype: Its type, if not the model's.
        stochastic_rounding: bfloat16 entries are rounded up or down by chance, so that small steps are not lost.
        stochastic_rounding_seed: Seed of that, by a generator of its own.
        foreach: Operations on lists of tensors, where devices agree.
        exclude_buffers: Only parameters are averaged; buffers are copied.
    """

    def __init__(
        self, model: nn.Module, decay: float = 0.9999, min_decay: float = 0.0, update_after_step: int = 0,
        use_warmup: bool = False, warmup_gamma: float = 1.0, warmup_power: float = 2 / 3,
        device: torch.device | str | None = None, dtype: torch.dtype | None = None, stochastic_rounding: bool = True,
        stochastic_rounding_seed: int = 0, foreach: bool = True, exclude_buffers: bool = False,
    ) -> None:
        super().__init__()
        self.module = _averaged(model, device)
        if dtype is not None:
            self.module.to(dtype)
        self.decay = decay
        self.min_decay = min_decay
        self.update_after_step = update_after_step
        self.use_warmup = use_warmup
        self.warmup_gamma = warmup_gamma
        self.warmup_power = warmup_power
        self.device = device
        self.dtype = dtype
        self.stochastic_rounding = stochastic_rounding
        self.stochastic_rounding_seed = stochastic_rounding_seed
        where = next(self.module.parameters()).device
        self.foreach = foreach and next(model.parameters()).device == where
        self.exclude_buffers = exclude_buffers
        self._generator = torch.Generator(where).manual_seed(stochastic_rounding_seed)

    def get_decay(self, step: int | None = None) -> float:
        """The decay of a step; None for the decay without warmup."""
        if step is None:
            return self.decay
        step = step - self.update_after_step - 1
        if step <= 0:
            return 0.0
        if not self.use_warmup:
            return self.decay
        return max(min(1 - (1 + step / self.warmup_gamma) ** -self.warmup_power, self.decay), self.min_decay)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int | None = None) -> None:
        """Go the way of `1 - get_decay(step)` from the average to the model's present weights."""
        averages, weights = [], []
        for average, weight in self._averaged_pairs(model):
            if average.is_floating_point():
                averages.append(average)
                weights.append(weight)
            else:
                average.copy_(weight)
        share = 1.0 - self.get_decay(step)
        by_chance = [self.stochastic_rounding and average.dtype == torch.bfloat16 for average in averages]
        for average, weight in (pair for pair, chosen in zip(zip(averages, weights), by_chance) if chosen):
            average.copy_(_round_by_chance(torch.lerp(average.float(), weight.float(), share), self._generator))
        rest = [pair for pair, chosen in zip(zip(averages, weights), by_chance) if not chosen]
        if self.foreach and rest:
            averages, weights = map(list, zip(*rest))
            torch._foreach_lerp_(averages, [w.to(a.dtype) for a, w in rest], share)
        else:
            for average, weight in rest:
                average.lerp_(weight.to(average.dtype), share)

    def _averaged_pairs(self, model: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
        if not self.exclude_buffers:
            yield from _pairs(self.module, model)
            return
        for average, buffer in zip(self.module.buffers(), model.buffers()):
            average.copy_(buffer)
        for average, weight in zip(self.module.parameters(), model.parameters()):
            yield average, weight.to(average.device)

    @torch.no_grad()
    def set(self, model: nn.Module) -> None:
        """Take the model's present weights as the average."""
        for average, weight in _pairs(self.module, model):
            average.copy_(weight)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)


def _pairs(averaged: nn.Module, model: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    for average, weight in zip(averaged.state_dict().values(), model.state_dict().values()):
        yield average, weight.to(average.device)


def _blend(average: Tensor, weight: Tensor, decay: float) -> None:
    average.copy_(decay * average + (1.0 - decay) * weight)


def _round_by_chance(x: Tensor, generator: torch.Generator) -> Tensor:
    """float32 to bfloat16, up with the probability of what would be cut off: bfloat16 is float32 without 16 bits."""
    bits = x.view(torch.int32)
    bits = bits + torch.randint(2 ** 16, bits.shape, dtype=torch.int32, device=x.device, generator=generator)
    return (bits & -2 ** 16).view(torch.float32).to(torch.bfloat16)
