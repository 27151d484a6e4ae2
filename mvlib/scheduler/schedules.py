"""Schedules: pure functions from progress and base learning rate to learning rate. Imports no torch.

    schedule = Cosine(t_initial=300, warmup_t=5, warmup_lr_init=1e-4)
    schedule(120, 0.5)      the learning rate of epoch 120 where the base is 0.5

Progress `t` counts epochs or updates, whichever the lengths of the schedule count. The base class does warmup and
noise, `_Cyclic` adds cycles, and a schedule is the few lines that say how it decays. Fields have timm's names and
defaults, and values are timm's. Only noise needs torch, for the numbers that its generator draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

from ..errors import ConfigError
from ..names import closest

__all__ = [
    "DECAY_SHAPES", "WARMUP_METHODS", "Cosine", "Exponential", "MultiStep", "Poly", "Schedule", "Step", "Tanh",
    "WarmupStableDecay",
]

WARMUP_METHODS = ("linear", "constant")


@dataclass(frozen=True, kw_only=True, repr=False)
class Schedule:
    """Warmup, then the base learning rate; what the others derive from.

    Attributes:
        warmup_t: Length of warmup, in epochs or updates.
        warmup_lr_init: Learning rate at the start of warmup.
        warmup_prefix: The decay begins when warmup ends; without it warmup hides the decay's first steps.
        warmup_method: "linear" climbs to the base learning rate, "constant" stays at the start until warmup ends.
        warmup_factor: Start of warmup as a share of the base learning rate, in place of `warmup_lr_init`.
        noise_range_t: Noise from this t on, or within (from, to); None for none.
        noise_pct: Greatest relative noise; a draw beyond it is drawn again.
        noise_std: Standard deviation of the relative noise.
        noise_seed: Noise is a function of this seed and t.
        noise_type: "normal", or any other name for noise that is uniform up to `noise_pct`.

    Raises:
        ConfigError: An argument is out of its range.
    """

    warmup_t: float = 0
    warmup_lr_init: float = 0.0
    warmup_prefix: bool = False
    warmup_method: str = "linear"
    warmup_factor: float | None = None
    noise_range_t: float | Sequence[float] | None = None
    noise_pct: float = 0.67
    noise_std: float = 1.0
    noise_seed: int | None = 42
    noise_type: str = "normal"

    def __post_init__(self) -> None:
        _require(self.warmup_t >= 0, f"warmup has a negative length, {self.warmup_t}")
        _require(self.warmup_lr_init >= 0, f"the learning rate of warmup is negative, {self.warmup_lr_init}")
        _require(self.warmup_method in WARMUP_METHODS,
                 f"unknown warmup method '{self.warmup_method}'{closest(str(self.warmup_method), WARMUP_METHODS)}; "
                 f"known: {', '.join(WARMUP_METHODS)}")
        _require(self.warmup_factor is None or self.warmup_factor >= 0,
                 f"the warmup factor is negative, {self.warmup_factor}")
        if isinstance(self.noise_range_t, Sequence):
            object.__setattr__(self, "noise_range_t", tuple(self.noise_range_t))
            _require(len(self.noise_range_t) == 2,
                     f"learning rate noise has one bound or two, not {len(self.noise_range_t)}")
        if self.noise_range_t is not None:
            _require(self.noise_pct > 0, f"learning rate noise has a limit above 0, not {self.noise_pct}")

    def __repr__(self) -> str:
        """The fields that are not what they are by default."""
        return f"{type(self).__name__}({', '.join(self.differences())})"

    def differences(self) -> Iterator[str]:
        """"name=value" of each field that is not what it is by default; those of a kind of schedule first."""
        shared = {field.name for field in fields(Schedule)}
        for field in sorted(fields(self), key=lambda field: field.name in shared):
            value = getattr(self, field.name)
            if value != field.default and (self.noise_range_t is not None or not field.name.startswith("noise_")):
                yield f"{field.name}={value}"

    def __call__(self, t: float, base_lr: float) -> float:
        """The learning rate at `t`, noise included."""
        lr = self.without_noise(t, base_lr)
        return lr * (1.0 + self.noise(t)) if self.is_noisy(t) else lr

    def start(self, base_lr: float) -> float:
        """The learning rate before the first step: the start of warmup, or the base."""
        return self.warmup_start(base_lr) if self.warmup_t else base_lr

    def length(self) -> int | None:
        """Total length, cycles and a warmup prefix included; None where the decay has no end."""
        return None

    def decay(self, t: float, base_lr: float) -> float:
        """The learning rate after warmup, `t` counting from the end of a warmup prefix."""
        return base_lr

    def without_noise(self, t: float, base_lr: float) -> float:
        """The learning rate at `t` as it is before noise."""
        if t < self.warmup_t:
            return self._warmup(t, base_lr)
        return self.decay(t - self.warmup_t if self.warmup_prefix else t, base_lr)

    def warmup_start(self, base_lr: float) -> float:
        """The learning rate at which warmup starts."""
        return self.warmup_lr_init if self.warmup_factor is None else base_lr * self.warmup_factor

    def warmup_target(self, base_lr: float) -> float:
        """The learning rate that linear warmup climbs to."""
        return base_lr

    def _warmup(self, t: float, base_lr: float) -> float:
        start = self.warmup_start(base_lr)
        if self.warmup_method == "constant":
            return start
        return start + t * ((self.warmup_target(base_lr) - start) / self.warmup_t)

    def is_noisy(self, t: float) -> bool:
        """Whether `t` lies in the range of noise."""
        if self.noise_range_t is None:
            return False
        if isinstance(self.noise_range_t, tuple):
            return self.noise_range_t[0] <= t < self.noise_range_t[1]
        return t >= self.noise_range_t

    def noise(self, t: float) -> float:
        """The relative noise at `t`: the first normal draw within the limit, of a generator for this t alone."""
        std = self.noise_std if self.noise_type == "normal" else None
        return _draw((42 if self.noise_seed is None else self.noise_seed) + int(t), std, self.noise_pct)


@dataclass(frozen=True, kw_only=True, repr=False)
class _Cyclic(Schedule):
    """A decay that ends at `lr_min` and may start again, longer (`cycle_mul`) and lower (`cycle_decay`) each time.

    Attributes:
        t_initial: Length of the first cycle.
        lr_min: Learning rate at the end of a cycle and after the last.
        cycle_mul: Factor from a cycle's length to the next one's.
        cycle_decay: Factor from a cycle's highest learning rate to the next one's.
        cycle_limit: Number of cycles.
    """

    t_initial: float
    lr_min: float = 0.0
    cycle_mul: float = 1.0
    cycle_decay: float = 1.0
    cycle_limit: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_end(self.t_initial, self.lr_min)
        _require(self.cycle_mul > 0, f"the factor between lengths of cycles is above 0, not {self.cycle_mul}")
        _require(self.cycle_limit >= 0, f"the number of cycles is negative, {self.cycle_limit}")

    def length(self, cycles: int = 0) -> int:
        cycles = max(1, cycles or self.cycle_limit)
        if self.cycle_mul == 1.0:
            total = self.t_initial * cycles
        else:
            total = math.floor(self.t_initial * (self.cycle_mul ** cycles - 1) / (self.cycle_mul - 1))
        return total + self.warmup_t if self.warmup_prefix else total

    def decay(self, t: float, base_lr: float) -> float:
        cycle, elapsed, length = self._position(t)
        if cycle >= self.cycle_limit:
            return self.lr_min
        span = base_lr * self.cycle_decay ** cycle - self.lr_min
        return self.lr_min + span * self.shape(elapsed, length)

    def shape(self, elapsed: float, length: float) -> float:
        """Height over `lr_min`, from 1 at the start of a cycle to 0 at its end."""
        raise NotImplementedError

    def _position(self, t: float) -> tuple[float, float, float]:
        """Number of the cycle, time since its start, its length. Lengths are a geometric series."""
        if self.cycle_mul == 1.0:
            cycle = t // self.t_initial
            return cycle, t - self.t_initial * cycle, self.t_initial
        grown = 1 - t / self.t_initial * (1 - self.cycle_mul)
        if grown <= 0:  # shrinking cycles have a finite sum, and it is behind us
            return math.inf, 0.0, 1.0
        cycle = math.floor(math.log(grown, self.cycle_mul))
        power = self.cycle_mul ** cycle
        start = (1 - power) / (1 - self.cycle_mul) * self.t_initial
        return cycle, max(t - start, 0.0), power * self.t_initial


@dataclass(frozen=True, kw_only=True, repr=False)
class Cosine(_Cyclic):
    """Half a cosine wave (SGDR, arXiv 1608.03983), with the k of k-decay (arXiv 2004.05909)."""

    k_decay: float = 1.0

    def shape(self, elapsed: float, length: float) -> float:
        return 0.5 * (1 + math.cos(math.pi * elapsed ** self.k_decay / length ** self.k_decay))


@dataclass(frozen=True, kw_only=True, repr=False)
class Tanh(_Cyclic):
    """Hyperbolic tangent between `lb` and `ub` (arXiv 1806.01593); it begins and ends near 1 and 0, not at them."""

    lb: float = -7.0
    ub: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.lb < self.ub, f"the lower bound of tanh, {self.lb}, is not below the upper, {self.ub}")

    def shape(self, elapsed: float, length: float) -> float:
        share = elapsed / length
        return 0.5 * (1 - math.tanh(self.lb * (1 - share) + self.ub * share))

    def warmup_target(self, base_lr: float) -> float:
        # Without a prefix the curve has gone on under the warmup; warmup meets it.
        return base_lr if self.warmup_prefix else self.decay(self.warmup_t, base_lr)


@dataclass(frozen=True, kw_only=True, repr=False)
class Poly(_Cyclic):
    """A power of the time that is left, with the k of k-decay (arXiv 2004.05909)."""

    power: float = 0.5
    k_decay: float = 1.0

    def shape(self, elapsed: float, length: float) -> float:
        left = 1 - elapsed ** self.k_decay / length ** self.k_decay
        return max(left, 0.0) ** self.power


@dataclass(frozen=True, kw_only=True, repr=False)
class Step(Schedule):
    """Times `decay_rate` after every `decay_t`, which need not be whole."""

    decay_t: float
    decay_rate: float = 1.0
    warmup_prefix: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.decay_t > 0, f"the time between decays is above 0, not {self.decay_t}")

    def decay(self, t: float, base_lr: float) -> float:
        return base_lr * self.decay_rate ** (t // self.decay_t)


@dataclass(frozen=True, kw_only=True, repr=False)
class MultiStep(Schedule):
    """Times `decay_rate` at each milestone of `decay_t`.

    As in timm a milestone of 10 acts at t = 9, one earlier than in torch's MultiStepLR.
    """

    decay_t: Sequence[float]
    decay_rate: float = 1.0
    warmup_prefix: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "decay_t", tuple(self.decay_t))
        _require(list(self.decay_t) == sorted(self.decay_t), f"milestones do not increase: {list(self.decay_t)}")

    def decay(self, t: float, base_lr: float) -> float:
        return base_lr * self.decay_rate ** sum(milestone <= t + 1 for milestone in self.decay_t)


@dataclass(frozen=True, kw_only=True, repr=False)
class Exponential(Schedule):
    """Times `decay_rate` in every `decay_t`, smoothly; torch's ExponentialLR where `decay_t` is 1."""

    decay_rate: float
    decay_t: float = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.decay_t > 0, f"the time of a decay is above 0, not {self.decay_t}")
        _require(self.decay_rate > 0, f"the factor of an exponential decay is above 0, not {self.decay_rate}")

    def decay(self, t: float, base_lr: float) -> float:
        return base_lr * self.decay_rate ** (t / self.decay_t)


DECAY_SHAPES: dict[str, Callable[[WarmupStableDecay, float], float]] = {
    "linear": lambda schedule, share: 1 - share,
    "1-sqrt": lambda schedule, share: 1 - math.sqrt(share),
    "cosine": lambda schedule, share: 0.5 * (1 + math.cos(math.pi * share)),
    "power": lambda schedule, share: 1 - share ** schedule.decay_power,
    "exp": lambda schedule, share: (schedule.decay_ratio ** share - schedule.decay_ratio) / (1 - schedule.decay_ratio),
}
_STABLE_POWERS = {"constant": 0.0, "rsqrt": 0.5, "power": None}  # None: the field `stable_power`


@dataclass(frozen=True, kw_only=True, repr=False)
class WarmupStableDecay(Schedule):
    """Warmup, a long plateau, a short decay at the end (WSD, arXiv 2404.06395; 1-sqrt: arXiv 2405.18392).

    With stable_fn="rsqrt" the plateau falls as 1 / sqrt(1 + t / timescale) (arXiv 2106.04560). Warmup is always a
    prefix.

    Attributes:
        t_initial: Length of plateau and decay together.
        decay_t: Length of the decay.
        lr_min: Learning rate after it.
        stable_fn: "constant", "rsqrt" or "power" (the exponent is `stable_power`).
        stable_timescale: Timescale of a falling plateau; None for the length of warmup.
        decay_fn: "linear", "1-sqrt", "cosine", "power" (of `decay_power`), "exp" (to `decay_ratio`, shifted to end
            at `lr_min`), or a function from a share in [0, 1] to a factor from 1 to 0.
    """

    t_initial: float
    decay_t: float
    lr_min: float = 0.0
    warmup_prefix: bool = True
    stable_fn: str = "constant"
    stable_timescale: float | None = None
    stable_power: float = 0.5
    decay_fn: str | Callable[[float], float] = "1-sqrt"
    decay_power: float = 0.5
    decay_ratio: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_end(self.t_initial, self.lr_min)
        _require(0 < self.decay_t <= self.t_initial,
                 f"a decay of {self.decay_t} does not fit into a schedule of {self.t_initial} (warmup excluded)")
        _check_name("plateau", self.stable_fn, _STABLE_POWERS)
        if not callable(self.decay_fn):
            _check_name("decay function", self.decay_fn, DECAY_SHAPES)
        _require(0 < self.decay_ratio < 1, f"the decay ratio lies between 0 and 1, not at {self.decay_ratio}")
        _require(self.decay_power > 0 and self.stable_power > 0, "powers of plateau and decay are above 0")
        if self.stable_fn != "constant" and self.stable_timescale is None:
            object.__setattr__(self, "stable_timescale", self.warmup_t)
        _require(self.stable_fn == "constant" or self.stable_timescale > 0,
                 f"a plateau that falls ('{self.stable_fn}') needs warmup or a stable_timescale above 0")

    def length(self) -> int:
        return self.warmup_t + self.t_initial

    def decay(self, t: float, base_lr: float) -> float:
        stable = max(base_lr * self._stable(t), self.lr_min)
        share = (t - (self.t_initial - self.decay_t)) / self.decay_t
        if share <= 0:
            return stable
        share = min(share, 1.0)
        left = self.decay_fn(share) if callable(self.decay_fn) else DECAY_SHAPES[self.decay_fn](self, share)
        return self.lr_min + (stable - self.lr_min) * left

    def _stable(self, t: float) -> float:
        if self.stable_fn == "constant":
            return 1.0
        power = _STABLE_POWERS[self.stable_fn] or self.stable_power
        return (1 + t / self.stable_timescale) ** -power


@lru_cache(maxsize=8)  # every parameter group asks for the same draw
def _draw(seed: int, std: float | None, limit: float) -> float:
    import torch  # timm's runs are repeated only with the numbers of torch's generator

    generator = torch.Generator().manual_seed(seed)
    if std is None:
        return (2 * torch.rand(1, generator=generator).item() - 1) * limit
    while True:
        drawn = torch.randn(1, generator=generator).item() * std
        if abs(drawn) < limit:
            return drawn


def _check_end(t_initial: float, lr_min: float) -> None:
    _require(t_initial > 0, f"a schedule has a length above 0, not {t_initial}")
    _require(lr_min >= 0, f"the least learning rate is negative, {lr_min}")


def _check_name(what: str, name: str, known: dict) -> None:
    _require(name in known, f"unknown {what} '{name}'{closest(str(name), known)}; known: {', '.join(known)}")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ConfigError(message)
