"""The objects that put a schedule's learning rates into an optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ..errors import ConfigError
from .schedules import Cosine, MultiStep, Poly, Schedule, Step, Tanh, WarmupStableDecay

__all__ = [
    "CosineLRScheduler", "MultiStepLRScheduler", "PlateauLRScheduler", "PolyLRScheduler", "Scheduler",
    "StepLRScheduler", "TanhLRScheduler", "WSDLRScheduler",
]


class Scheduler:
    """Sets the learning rate of every parameter group to what a schedule says.

    Call `step(epoch + 1)` after each epoch and `step_update(num_updates)` after each update, counts including the one
    just done; of the two, the one that is not the schedule's unit of progress does nothing. A group's base learning
    rate is its `initial_lr` (its `lr` where that is not set yet), and its `lr_scale` (layer decay) multiplies what the
    schedule says.

    Args:
        optimizer: Anything with torch's `param_groups`.
        schedule: Progress and base learning rate to learning rate.
        t_in_epochs: Progress counts epochs; otherwise updates.
        initialize: Note the groups' present learning rates as their base; otherwise they must have an `initial_lr`.

    Attributes:
        base_values: Base learning rate of each group.

    Raises:
        ConfigError: A group has no learning rate, or a negative one.
    """

    def __init__(
        self, optimizer: Optimizer, schedule: Schedule, t_in_epochs: bool = True, initialize: bool = True
    ) -> None:
        self.optimizer = optimizer
        self.schedule = schedule
        self.t_in_epochs = t_in_epochs
        self.metric: float | None = None
        self._t: int | None = None
        self.base_values = [_base_lr(group, number, initialize) for number, group in enumerate(optimizer.param_groups)]
        self._set_all(map(schedule.start, self.base_values))

    def step(self, epoch: int, metric: float | None = None) -> None:
        """Go to the learning rates of `epoch`, where the schedule counts epochs."""
        self.metric = metric
        if self.t_in_epochs:
            self._go_to(epoch)

    def step_update(self, num_updates: int, metric: float | None = None) -> None:
        """Go to the learning rates after `num_updates` updates, where the schedule counts updates."""
        self.metric = metric
        if not self.t_in_epochs:
            self._go_to(num_updates)

    def go_to(self, epoch: int, num_updates: int, metric: float | None = None) -> None:
        """Go to the start of an epoch, `num_updates` into training, in a run whose scheduler left no state.

        As timm's script resumes: a group's base learning rate is what its `initial_lr` is by now.

        Args:
            metric: Of the epoch before.
        """
        self.base_values = [float(group.setdefault("initial_lr", base_lr))
                            for group, base_lr in zip(self.optimizer.param_groups, self.base_values)]
        self._t = None
        self._set_all(map(self.schedule.start, self.base_values))
        if epoch > 0:
            self.step(epoch, metric)
            self.step_update(num_updates, metric)

    def get_last_lr(self) -> list[float]:
        """Learning rate of each group, as the optimizer has it now."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def get_cycle_length(self) -> int | None:
        """Total length of the schedule in its unit, None where it has no end."""
        return self.schedule.length()

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on: numbers and lists of numbers."""
        return {"t": self._t, "base_values": list(self.base_values)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where another scheduler stood; the learning rates of the optimizer are set again.

        Raises:
            ConfigError: The state is of an optimizer with another number of groups.
        """
        base_values = list(state_dict["base_values"])
        if len(base_values) != len(self.optimizer.param_groups):
            raise ConfigError(f"the scheduler's state has {len(base_values)} parameter groups, the optimizer has "
                              f"{len(self.optimizer.param_groups)}")
        self.base_values = base_values
        self._t = state_dict["t"]
        if self._t is None:
            self._set_all(map(self.schedule.start, base_values))
        else:
            self._go_to(self._t)

    def _go_to(self, t: int) -> None:
        self._t = t
        self._set_all(self.schedule(t, base_lr) for base_lr in self.base_values)

    def _set_all(self, values: Any) -> None:
        for group, value in zip(self.optimizer.param_groups, values):
            _set_lr(group, value * group.get("lr_scale", 1.0))


class PlateauLRScheduler(Scheduler):
    """Times `decay_rate` when the metric has not improved for more than `patience_t` epochs.

    The one scheduler with a memory: torch's ReduceLROnPlateau, after warmup and under noise. `step` wants the metric of
    the epoch just done, and without one it leaves the learning rate as it is. The arguments are timm's.

    Raises:
        ConfigError: An argument is out of its range.
    """

    def __init__(
        self, optimizer: Optimizer, decay_rate: float = 0.1, patience_t: int = 10, threshold: float = 1e-4,
        cooldown_t: int = 0, warmup_t: int = 0, warmup_lr_init: float = 0.0, lr_min: float = 0.0, mode: str = "max",
        noise_range_t: float | Sequence[float] | None = None, noise_pct: float = 0.67, noise_std: float = 1.0,
        noise_seed: int | None = None, initialize: bool = True, **warmup: Any,
    ) -> None:
        schedule = Schedule(
            warmup_t=warmup_t, warmup_lr_init=warmup_lr_init, noise_range_t=noise_range_t, noise_pct=noise_pct,
            noise_std=noise_std, noise_seed=noise_seed, **warmup)
        super().__init__(optimizer, schedule, initialize=initialize)
        try:
            self._plateau = ReduceLROnPlateau(
                optimizer, mode=mode, factor=decay_rate, patience=patience_t, threshold=threshold, cooldown=cooldown_t,
                min_lr=lr_min)
        except ValueError as error:
            raise ConfigError(f"plateau schedule: {error}") from None
        self._before_noise: list[float] | None = None

    def step(self, epoch: int, metric: float | None = None) -> None:
        """Go to the learning rates of `epoch`, given the metric of the one before."""
        self.metric = metric
        self._t = epoch
        if self.schedule.warmup_t and epoch <= self.schedule.warmup_t:
            self._set_all(self.schedule.without_noise(epoch, base_lr) for base_lr in self.base_values)
            return
        if self._before_noise is not None:
            self._write(self._before_noise)
            self._before_noise = None
        if metric is not None:
            self._plateau.step(metric)
        if self.schedule.is_noisy(epoch):
            factor = 1.0 + self.schedule.noise(epoch)
            self._before_noise = self.get_last_lr()
            self._write(lr * factor for lr in self._before_noise)

    def go_to(self, epoch: int, num_updates: int, metric: float | None = None) -> None:
        """As `Scheduler.go_to`, but after warmup the groups keep the rates that they were left with."""
        before = self.get_last_lr()
        super().go_to(0, 0)
        if epoch > 0:
            first = self.get_last_lr()
            self._set_all(self.base_values)
            self._write(old if old != start else base for old, start, base in zip(before, first, self.get_last_lr()))
            self.step(epoch, metric)

    def state_dict(self) -> dict[str, Any]:
        memory = {name: getattr(self._plateau, name)
                  for name in ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")}
        return {**super().state_dict(), **memory, "lr": self.get_last_lr(), "lr_before_noise": self._before_noise}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        for name in ("best", "num_bad_epochs", "cooldown_counter", "last_epoch"):
            setattr(self._plateau, name, state_dict[name])
        self._before_noise = state_dict["lr_before_noise"]
        self._write(state_dict["lr"])

    def _write(self, values: Any) -> None:
        for group, value in zip(self.optimizer.param_groups, values):
            _set_lr(group, value)


class _NamedScheduler(Scheduler):
    """A schedule and its scheduler in one call, the way that timm's classes are built: `CosineLRScheduler(optimizer,
    t_initial=300, warmup_t=5, t_in_epochs=True)`. The first arguments of the schedule may be given by position.
    """

    kind: ClassVar[type[Schedule]]
    positional: ClassVar[tuple[str, ...]]

    def __init__(
        self, optimizer: Optimizer, *args: Any, t_in_epochs: bool = True, initialize: bool = True, **kwargs: Any
    ) -> None:
        if len(args) > len(self.positional):
            raise TypeError(f"{type(self).__name__} takes only {', '.join(self.positional)} by position")
        schedule = self.kind(**dict(zip(self.positional, args)), **kwargs)
        super().__init__(optimizer, schedule, t_in_epochs, initialize)


class CosineLRScheduler(_NamedScheduler):
    """`Scheduler` of a `Cosine`."""

    kind = Cosine
    positional = ("t_initial", "lr_min", "cycle_mul", "cycle_decay", "cycle_limit")


class TanhLRScheduler(_NamedScheduler):
    """`Scheduler` of a `Tanh`."""

    kind = Tanh
    positional = ("t_initial", "lb", "ub", "lr_min")


class PolyLRScheduler(_NamedScheduler):
    """`Scheduler` of a `Poly`."""

    kind = Poly
    positional = ("t_initial", "power", "lr_min")


class StepLRScheduler(_NamedScheduler):
    """`Scheduler` of a `Step`."""

    kind = Step
    positional = ("decay_t", "decay_rate")


class MultiStepLRScheduler(_NamedScheduler):
    """`Scheduler` of a `MultiStep`."""

    kind = MultiStep
    positional = ("decay_t", "decay_rate")


class WSDLRScheduler(_NamedScheduler):
    """`Scheduler` of a `WarmupStableDecay`."""

    kind = WarmupStableDecay
    positional = ("t_initial", "decay_t", "lr_min")


def _base_lr(group: dict[str, Any], number: int, initialize: bool) -> float:
    if initialize and "lr" in group:
        group.setdefault("initial_lr", float(group["lr"]))
    if "initial_lr" not in group:
        raise ConfigError(f"parameter group {number} has no {'lr' if initialize else 'initial_lr'}")
    base_lr = float(group["initial_lr"])
    if not base_lr >= 0:
        raise ConfigError(f"the learning rate of parameter group {number} is {base_lr}, not a number from 0 on")
    return base_lr


def _set_lr(group: dict[str, Any], value: float) -> None:
    if isinstance(group["lr"], torch.Tensor):  # a capturable or compiled step reads this very tensor
        group["lr"].fill_(value)
    else:
        group["lr"] = value
