"""The objects that put a schedule's learning rates into an optimizer.

`Scheduler` is what a scheduler of one's own derives from; `_Following` is one that follows a `Schedule`.
"""

from __future__ import annotations

import dataclasses
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ..errors import ConfigError
from .schedules import Cosine, Exponential, MultiStep, Poly, Schedule, Step, Tanh, WarmupStableDecay

__all__ = [
    "CosineLRScheduler", "ExponentialLRScheduler", "MultiStepLRScheduler", "PlateauLRScheduler", "PolyLRScheduler",
    "Scheduler", "StepLRScheduler", "TanhLRScheduler", "WSDLRScheduler", "follow",
]


class _Field:
    """A field of a scheduler's schedule, to read and to change as the scheduler's own attribute."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, scheduler: Scheduler | None, owner: type | None = None) -> Any:
        return self if scheduler is None else getattr(scheduler.schedule, self.name)

    def __set__(self, scheduler: Scheduler, value: Any) -> None:
        scheduler.schedule = dataclasses.replace(scheduler.schedule, **{self.name: value})


class Scheduler(ABC):
    """Sets a field of every parameter group, the learning rate as a rule, to what `_get_lr` says.

    Call `step(epoch + 1)` after each epoch and `step_update(num_updates)` after each update, counts including the one
    just done; of the two, the one that is not the scheduler's unit of progress does nothing. A group's base value is
    its `initial_lr` (its `lr` where that is not set yet), and its `lr_scale` (layer decay) multiplies what is set.

    A scheduler of one's own defines `_get_lr(t)`, the value of each group; the constructor's arguments are timm's.

    Args:
        optimizer: Anything with torch's `param_groups`.
        param_group_field: What is set; the base is that of "initial_" and this name.
        t_in_epochs: Progress counts epochs; otherwise updates.
        noise_range_t, noise_type, noise_pct, noise_std, noise_seed: Noise, as the fields of `Schedule` say.
        initialize: Note the groups' present values as their base; otherwise they must have an `initial_lr`.

    Attributes:
        base_values: Base value of each group.

    Raises:
        ConfigError: A group has no learning rate, or a negative one.
    """

    noise_range_t = _Field()
    noise_type = _Field()
    noise_pct = _Field()
    noise_std = _Field()
    noise_seed = _Field()

    def __init__(
        self, optimizer: Optimizer, param_group_field: str, t_in_epochs: bool = True,
        noise_range_t: float | Sequence[float] | None = None, noise_type: str = "normal", noise_pct: float = 0.67,
        noise_std: float = 1.0, noise_seed: int | None = None, initialize: bool = True,
    ) -> None:
        self.schedule = Schedule(
            noise_range_t=noise_range_t, noise_type=noise_type, noise_pct=noise_pct, noise_std=noise_std,
            noise_seed=42 if noise_seed is None else noise_seed)
        self._begin(optimizer, param_group_field, t_in_epochs, initialize)

    def _begin(self, optimizer: Optimizer, field: str, t_in_epochs: bool, initialize: bool) -> None:
        self.optimizer = optimizer
        self.param_group_field = field
        self.t_in_epochs = t_in_epochs
        self.metric: float | None = None
        self.t: int | None = None
        self.base_values = [
            _base_value(group, number, field, initialize) for number, group in enumerate(optimizer.param_groups)]
        self.update_groups([self.schedule.start(base) for base in self.base_values])

    def __repr__(self) -> str:
        """The schedule, and where it stands."""
        unit = "epoch" if self.t_in_epochs else "update"
        field = self.param_group_field
        now = [group[field] for group in self.optimizer.param_groups]
        facts = [*self._facts(), f"in {unit}s", f"base {field} {_span(self.base_values)}",
                 f"now {_span(now)}{f' at {unit} {self.t}' if self.t is not None else ''}"]
        return f"{type(self).__name__}({', '.join(facts)})"

    def _facts(self) -> Iterable[str]:
        """What the schedule is, for people."""
        return self.schedule.differences()

    @abstractmethod
    def _get_lr(self, t: int) -> list[float]:
        """The value of each group at `t`, without noise and `lr_scale`."""

    def _get_values(self, t: int, on_epoch: bool = True) -> list[float] | None:
        """`_get_lr`, where `t` is in the unit of progress."""
        return self._get_lr(t) if on_epoch == self.t_in_epochs else None

    def step(self, epoch: int, metric: float | None = None) -> None:
        """Go to the values of `epoch`, where progress counts epochs."""
        self._go_to(epoch, metric, on_epoch=True)

    def step_update(self, num_updates: int, metric: float | None = None) -> None:
        """Go to the values after `num_updates` updates, where progress counts updates."""
        self._go_to(num_updates, metric, on_epoch=False)

    def _go_to(self, t: int, metric: float | None, on_epoch: bool) -> None:
        self.metric = metric
        values = self._get_values(t, on_epoch=on_epoch)
        if values is not None:
            self.t = t
            self.update_groups(self._add_noise(values, t))

    def _add_noise(self, lrs: list[float], t: int) -> list[float]:
        if not self.schedule.is_noisy(t):
            return lrs
        factor = 1.0 + self.schedule.noise(t)
        return [lr * factor for lr in lrs]

    def update_groups(self, values: float | Iterable[float]) -> None:
        """Set the field of every group: one value for all or one for each, times the group's `lr_scale`."""
        groups = self.optimizer.param_groups
        values = list(values) if isinstance(values, Iterable) else [values] * len(groups)
        self._write(value * group.get("lr_scale", 1.0) for group, value in zip(groups, values))

    def _write(self, values: Iterable[float]) -> None:
        for group, value in zip(self.optimizer.param_groups, values):
            old = group.get(self.param_group_field)
            if isinstance(old, torch.Tensor):  # a capturable or compiled step reads this very tensor
                old.fill_(value)
            else:
                group[self.param_group_field] = value

    def go_to(self, epoch: int, num_updates: int, metric: float | None = None) -> None:
        """Go to the start of an epoch, `num_updates` into training, in a run whose scheduler left no state.

        As timm's script resumes: a group's base learning rate is what its `initial_lr` is by now.

        Args:
            metric: Of the epoch before.
        """
        initial = f"initial_{self.param_group_field}"
        self.base_values = [float(group.setdefault(initial, base))
                            for group, base in zip(self.optimizer.param_groups, self.base_values)]
        self.t = None
        self.update_groups([self.schedule.start(base) for base in self.base_values])
        if epoch > 0:
            self.step(epoch, metric)
            self.step_update(num_updates, metric)

    def get_last_lr(self) -> list[float]:
        """Learning rate of each group, as the optimizer has it now."""
        return [float(group[self.param_group_field]) for group in self.optimizer.param_groups]

    def progress(self) -> dict[str, Any]:
        """Where the scheduler stands, for `load_state_dict` of one with another schedule: numbers and lists of them."""
        return {"t": self.t, "base_values": list(self.base_values)}

    def state_dict(self) -> dict[str, Any]:
        """All but the optimizer, under timm's names: the schedule itself and where it stands."""
        own = {name: value for name, value in vars(self).items() if name not in ("optimizer", "schedule")}
        fields = {name: getattr(self, name) for name in sorted(self._fields())}
        fields = {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
        return {**fields, **own, **self.progress()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what the state holds, of ours or of timm's scheduler of this name.

        The learning rates of the optimizer are set again, where the state says (timm's does not) where it stands.

        Raises:
            ConfigError: The state is of an optimizer with another number of groups.
        """
        state = dict(state_dict)
        base_values = list(state.pop("base_values", self.base_values))
        if len(base_values) != len(self.optimizer.param_groups):
            raise ConfigError(f"the scheduler's state has {len(base_values)} parameter groups, the optimizer has "
                              f"{len(self.optimizer.param_groups)}")
        self.base_values = base_values
        known = self._fields()
        self.schedule = dataclasses.replace(self.schedule, **{name: state.pop(name) for name in known & state.keys()})
        vars(self).update(state)
        if "t" in state:
            self._resume()

    def _resume(self) -> None:
        if self.t is None:
            self.update_groups([self.schedule.start(base) for base in self.base_values])
        else:
            self._go_to(self.t, self.metric, on_epoch=self.t_in_epochs)

    @classmethod
    def _fields(cls) -> set[str]:
        return {name for kind in cls.__mro__ for name, value in vars(kind).items() if isinstance(value, _Field)}


def _span(values: Sequence[Any]) -> str:
    """One value of all parameter groups, or from the least to the greatest."""
    least, greatest = float(min(values, default=0)), float(max(values, default=0))
    return f"{least:.4g}" if least == greatest else f"{least:.4g} to {greatest:.4g}"


_SHARED = ("warmup_t", "warmup_lr_init", "warmup_prefix", "t_in_epochs", "noise_range_t", "noise_pct", "noise_std",
           "noise_seed")


class _Following(Scheduler):
    """A schedule and its scheduler in one call, the way that timm's classes are built: `CosineLRScheduler(optimizer,
    t_initial=300, warmup_t=5, t_in_epochs=True)`. Fields of the schedule are attributes of the scheduler.
    """

    kind: ClassVar[type[Schedule]]
    schedule: Any  # of that kind

    def __init_subclass__(cls, kind: type[Schedule] | None = None, order: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if kind is not None:
            cls.kind = kind
            for field in dataclasses.fields(kind):
                setattr(cls, field.name, attribute := _Field())
                attribute.__set_name__(cls, field.name)
        if order:
            cls.__init__ = _constructor(cls.kind, order)  # type: ignore[method-assign]

    def _get_lr(self, t: int) -> list[float]:
        return [self.schedule.without_noise(t, base_lr) for base_lr in self.base_values]

    @property
    def warmup_steps(self) -> list[float]:
        """What linear warmup adds in a unit of progress, for each group; 1 where there is no warmup."""
        schedule = self.schedule
        return [(schedule.warmup_target(base) - schedule.warmup_start(base)) / schedule.warmup_t
                if schedule.warmup_t else 1 for base in self.base_values]

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "warmup_steps": self.warmup_steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({name: value for name, value in state_dict.items() if name != "warmup_steps"})


def _constructor(kind: type[Schedule], order: Sequence[str]) -> Callable[..., None]:
    """The `__init__` of a schedule's scheduler: the fields by timm's order, then by keyword those that timm lacks."""
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    defaults = {name: inspect.Parameter.empty if value is dataclasses.MISSING else value
                for name, value in defaults.items()} | {"t_in_epochs": True, "initialize": True}
    signature = inspect.Signature([
        inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD),
        inspect.Parameter("optimizer", inspect.Parameter.POSITIONAL_OR_KEYWORD),
        *(inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=defaults[name])
          for name in (*order, "initialize")),
        *(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
          for name, default in defaults.items() if name not in (*order, "initialize")),
    ])

    def __init__(*args: Any, **kwargs: Any) -> None:
        try:
            bound = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{type(args[0]).__name__}: {error}") from None
        self, optimizer = bound.pop("self"), bound.pop("optimizer")
        t_in_epochs, initialize = bound.pop("t_in_epochs", True), bound.pop("initialize", True)
        self.schedule = kind(**bound)
        self._begin(optimizer, "lr", t_in_epochs, initialize)

    __init__.__signature__ = signature  # type: ignore[attr-defined]
    return __init__


class _Cyclic(_Following):
    def get_cycle_length(self, cycles: int = 0) -> int:
        """Length of so many cycles (0: of all there are), a warmup prefix included."""
        return self.schedule.length(cycles)


_CYCLES = ("cycle_mul", "cycle_decay", "cycle_limit")


class CosineLRScheduler(_Cyclic, kind=Cosine, order=("t_initial", "lr_min", *_CYCLES, *_SHARED, "k_decay")):
    """`Scheduler` of a `Cosine`."""


class TanhLRScheduler(_Cyclic, kind=Tanh, order=("t_initial", "lb", "ub", "lr_min", *_CYCLES, *_SHARED)):
    """`Scheduler` of a `Tanh`."""


class PolyLRScheduler(_Cyclic, kind=Poly, order=("t_initial", "power", "lr_min", *_CYCLES, *_SHARED, "k_decay")):
    """`Scheduler` of a `Poly`."""


class StepLRScheduler(_Following, kind=Step, order=("decay_t", "decay_rate", *_SHARED)):
    """`Scheduler` of a `Step`."""


class MultiStepLRScheduler(_Following, kind=MultiStep, order=("decay_t", "decay_rate", *_SHARED)):
    """`Scheduler` of a `MultiStep`."""


class ExponentialLRScheduler(_Following, kind=Exponential, order=("decay_rate", "decay_t", *_SHARED)):
    """`Scheduler` of an `Exponential`."""


class WSDLRScheduler(
    _Following, kind=WarmupStableDecay,
    order=("t_initial", "decay_t", "lr_min", "stable_fn", "stable_timescale", "stable_power", "decay_fn", "decay_power",
           "decay_ratio", *(name for name in _SHARED if name != "warmup_prefix")),
):
    """`Scheduler` of a `WarmupStableDecay`."""

    def get_cycle_length(self, cycles: int = 0) -> int:
        """Total length, warmup included; there is one cycle."""
        return self.schedule.length()


class PlateauLRScheduler(_Following, kind=Schedule):
    """Times `decay_rate` when the metric has not improved for more than `patience_t` epochs.

    The one scheduler with a memory: torch's ReduceLROnPlateau, after warmup and under noise. `step` wants the metric of
    the epoch just done, and without one it leaves the learning rate as it is. The arguments are timm's.

    Raises:
        ConfigError: An argument is out of its range.
    """

    def __init__(
        self, optimizer: Optimizer, decay_rate: float = 0.1, patience_t: int = 10, threshold: float = 1e-4,
        cooldown_t: int = 0, warmup_t: int = 0, warmup_lr_init: float = 0.0, lr_min: float = 0.0, mode: str = "max",
        noise_range_t: float | Sequence[float] | None = None, noise_type: str = "normal", noise_pct: float = 0.67,
        noise_std: float = 1.0, noise_seed: int | None = None, initialize: bool = True, **warmup: Any,
    ) -> None:
        self.schedule = Schedule(
            warmup_t=warmup_t, warmup_lr_init=warmup_lr_init, noise_range_t=noise_range_t, noise_type=noise_type,
            noise_pct=noise_pct, noise_std=noise_std, noise_seed=noise_seed, **warmup)
        self._begin(optimizer, "lr", True, initialize)
        try:
            self.lr_scheduler = ReduceLROnPlateau(
                optimizer, mode=mode, factor=decay_rate, patience=patience_t, threshold=threshold, cooldown=cooldown_t,
                min_lr=lr_min)
        except ValueError as error:
            raise ConfigError(f"plateau schedule: {error}") from None
        self.restore_lr: list[float] | None = None  # as they are without the present noise

    def _facts(self) -> Iterable[str]:
        plateau = self.lr_scheduler
        return [f"decay_rate={plateau.factor}", f"patience_t={plateau.patience}", f"mode={plateau.mode}",
                *self.schedule.differences()]

    def step(self, epoch: int, metric: float | None = None) -> None:
        """Go to the learning rates of `epoch`, given the metric of the one before."""
        self.metric = metric
        self.t = epoch
        if self.schedule.warmup_t and epoch <= self.schedule.warmup_t:
            self.update_groups(self._get_lr(epoch))
            return
        if self.restore_lr is not None:
            self._write(self.restore_lr)
            self.restore_lr = None
        if metric is not None:
            self.lr_scheduler.step(metric)
        if self.schedule.is_noisy(epoch):
            factor = 1.0 + self.schedule.noise(epoch)
            self.restore_lr = self.get_last_lr()
            self._write(lr * factor for lr in self.restore_lr)

    def go_to(self, epoch: int, num_updates: int, metric: float | None = None) -> None:
        """As `Scheduler.go_to`, but after warmup the groups keep the rates that they were left with."""
        before = self.get_last_lr()
        super().go_to(0, 0)
        if epoch > 0:
            first = self.get_last_lr()
            self.update_groups(self.base_values)
            self._write(old if old != start else base for old, start, base in zip(before, first, self.get_last_lr()))
            self.step(epoch, metric)

    def progress(self) -> dict[str, Any]:
        memory = {name: getattr(self.lr_scheduler, name) for name in _MEMORY}
        return {**super().progress(), **memory, "lr": self.get_last_lr(), "lr_before_noise": self.restore_lr}

    def state_dict(self) -> dict[str, Any]:
        return self.progress()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where another stood: one of ours to the bit, one of timm's with its best metric and nothing else."""
        for name in _MEMORY:
            setattr(self.lr_scheduler, name, state_dict.get(name, getattr(self.lr_scheduler, name)))
        if "t" in state_dict:
            super().load_state_dict({name: state_dict[name] for name in ("t", "base_values")})
            self.restore_lr = state_dict["lr_before_noise"]
            self._write(state_dict["lr"])

    def _resume(self) -> None:
        pass  # the learning rates are in the state


_MEMORY = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")


def follow(optimizer: Optimizer, schedule: Schedule, t_in_epochs: bool = True) -> Scheduler:
    """The scheduler that follows a schedule."""
    kind = next(kind for kind in _KINDS if kind.kind is type(schedule))
    fields = {field.name: getattr(schedule, field.name) for field in dataclasses.fields(schedule)}
    return kind(optimizer, t_in_epochs=t_in_epochs, **fields)


_KINDS = (CosineLRScheduler, TanhLRScheduler, PolyLRScheduler, StepLRScheduler, MultiStepLRScheduler,
          ExponentialLRScheduler, WSDLRScheduler)


def _base_value(group: dict[str, Any], number: int, field: str, initialize: bool) -> float:
    initial = f"initial_{field}"
    if initialize and field in group:
        group.setdefault(initial, float(group[field]))
    if initial not in group:
        raise ConfigError(f"parameter group {number} has no {field if initialize else initial}")
    base = float(group[initial])
    if not base >= 0:
        raise ConfigError(f"the {'learning rate' if field == 'lr' else field} of parameter group {number} is {base}, "
                          f"not a number from 0 on")
    return base
