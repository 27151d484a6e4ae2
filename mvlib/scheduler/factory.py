"""Schedules by name, with the arguments of timm's training script. Imports no torch before it meets an optimizer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..names import closest
from .schedules import Cosine, Exponential, MultiStep, Poly, Schedule, Step, Tanh, WarmupStableDecay

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from .scheduler import Scheduler

__all__ = [
    "create_schedule", "create_scheduler", "create_scheduler_v2", "list_schedulers", "scale_learning_rate",
    "scheduler_kwargs", "scheduler_name",
]

_ALIASES = {"cosineannealinglr": "cosine", "exponentiallr": "exponential", "steplr": "step"}


def create_scheduler_v2(
    optimizer: Optimizer,
    sched: str = "cosine",
    num_epochs: int = 300,
    decay_epochs: float | None = None,
    decay_milestones: Sequence[int] = (90, 180, 270),
    cooldown_epochs: int = 0,
    patience_epochs: int = 10,
    decay_rate: float = 0.1,
    min_lr: float = 0.0,
    warmup_lr: float = 1e-5,
    warmup_epochs: int = 0,
    warmup_prefix: bool = False,
    noise: float | Sequence[float] | None = None,
    noise_pct: float = 0.67,
    noise_std: float = 1.0,
    noise_seed: int | None = 42,
    cycle_mul: float = 1.0,
    cycle_decay: float = 0.1,
    cycle_limit: int = 1,
    k_decay: float = 1.0,
    decay_fn: str | None = None,
    stable_timescale: float | None = None,
    plateau_mode: str = "max",
    step_on_epochs: bool = True,
    updates_per_epoch: int = 0,
    *,
    warmup_method: str = "linear",
    warmup_factor: float | None = None,
) -> tuple[Scheduler | None, int]:
    """A learning rate scheduler by name.

    Arguments, defaults and learning rates are timm 1.0.31's; the last two arguments, "exponential" and torch's names
    ("steplr", "cosineannealinglr", "exponentiallr") are ours. torchvision's SequentialLR of warmup and one of these is
    `warmup_prefix=True` with `num_epochs` less the warmup.

    Args:
        optimizer: Whose groups are scheduled; `lr_scale` and `initial_lr` of a group are respected.
        sched: "cosine", "tanh", "poly", "step", "multistep", "exponential", "plateau", "wsd", "rsqrt", "constant", or
            "none" for no scheduler.
        num_epochs: Length, without a warmup prefix and without cooldown; of the first cycle where there are several.
        decay_epochs: Epochs between steps (None: 90); length of the decay of wsd and rsqrt, as a share of the schedule
            where it is below 1 (None: 0.2).
        decay_milestones: Epochs of the decays of "multistep".
        cooldown_epochs: Epochs at `min_lr` after cosine, tanh, poly, wsd and rsqrt.
        patience_epochs: Epochs without gain that "plateau" bears.
        decay_rate: Factor of a decay (step, multistep, plateau), of each epoch (exponential), exponent (poly).
        min_lr: Least learning rate of the schedules that fall to one.
        warmup_lr: Learning rate at the start of warmup.
        warmup_epochs: Length of warmup.
        warmup_prefix: The schedule begins when warmup ends.
        noise: Share of the schedule from which the learning rate is noisy, or shares (from, to).
        noise_pct: Greatest relative noise.
        noise_std: Standard deviation of relative noise.
        noise_seed: Seed of the noise.
        cycle_mul: Factor between lengths of cycles (cosine, tanh, poly).
        cycle_decay: Factor between heights of cycles.
        cycle_limit: Number of cycles.
        k_decay: k of k-decay (cosine, poly).
        decay_fn: Shape of the decay of wsd (None: "1-sqrt") and rsqrt (None: "linear").
        stable_timescale: Timescale of rsqrt in epochs; None for the warmup's length.
        plateau_mode: "max" where a higher metric is better, "min" where a lower one is.
        step_on_epochs: A learning rate for each epoch; otherwise for each update.
        updates_per_epoch: Updates of an epoch, needed unless `step_on_epochs`.
        warmup_method: "linear" or "constant".
        warmup_factor: Start of warmup as a share of each group's learning rate, in place of `warmup_lr`.

    Returns:
        The scheduler (None for "none"), and the epochs to train: warmup prefix, cycles and cooldown included.

    Raises:
        ConfigError: Unknown name, or an argument out of its range.
    """
    arguments = dict(locals())
    del arguments["optimizer"]
    if scheduler_name(sched) != "plateau":
        schedule, num_epochs = _plan(arguments)
        if schedule is None:
            return None, num_epochs
        from .scheduler import follow

        return follow(optimizer, schedule, t_in_epochs=step_on_epochs), num_epochs

    from .scheduler import PlateauLRScheduler

    if not step_on_epochs:
        raise ConfigError("the plateau schedule goes by the metric of an epoch and cannot count updates")
    _check_lengths(arguments)
    shared = _shared(arguments)
    del shared["warmup_prefix"]
    scheduler = PlateauLRScheduler(
        optimizer, decay_rate=decay_rate, patience_t=patience_epochs, lr_min=min_lr, mode=plateau_mode, **shared)
    return scheduler, num_epochs + (warmup_epochs if warmup_prefix else 0)


def create_scheduler(args: Any, optimizer: Optimizer, updates_per_epoch: int = 0) -> tuple[Scheduler | None, int]:
    """`create_scheduler_v2` with the arguments of a training script, as `scheduler_kwargs` reads them."""
    return create_scheduler_v2(optimizer, **scheduler_kwargs(args), updates_per_epoch=updates_per_epoch)


def create_schedule(sched: str = "cosine", num_epochs: int = 300, **kwargs: Any) -> tuple[Schedule | None, int]:
    """The pure schedule that `create_scheduler_v2` would follow, with its arguments; needs no optimizer and no torch.

    Returns:
        The schedule (None for "none"), and the epochs to train.

    Raises:
        ConfigError: As there; and for "plateau", which depends on what is measured.
    """
    bound = inspect.signature(create_scheduler_v2).bind(None, sched, num_epochs, **kwargs)
    bound.apply_defaults()
    if scheduler_name(sched) == "plateau":
        raise ConfigError("the plateau schedule follows the metric that is measured and is not known beforehand")
    return _plan(bound.arguments)


def list_schedulers() -> list[str]:
    """Names that `create_scheduler_v2` takes, torch's aliases included."""
    return sorted([*_BUILDERS, "none", "plateau", *_ALIASES])


_CFG_NAMES = {  # keyword: (attribute of a training script's arguments, value where it has none)
    "num_epochs": ("epochs", 100),
    "decay_epochs": ("decay_epochs", 30),
    "decay_milestones": ("decay_milestones", [30, 60]),
    "warmup_epochs": ("warmup_epochs", 5),
    "cooldown_epochs": ("cooldown_epochs", 0),
    "patience_epochs": ("patience_epochs", 10),
    "decay_rate": ("decay_rate", 0.1),
    "min_lr": ("min_lr", 0.0),
    "warmup_lr": ("warmup_lr", 1e-5),
    "warmup_prefix": ("warmup_prefix", False),
    "noise": ("lr_noise", None),
    "noise_pct": ("lr_noise_pct", 0.67),
    "noise_std": ("lr_noise_std", 1.0),
    "noise_seed": ("seed", 42),
    "cycle_mul": ("lr_cycle_mul", 1.0),
    "cycle_decay": ("lr_cycle_decay", 0.1),
    "cycle_limit": ("lr_cycle_limit", 1),
    "k_decay": ("lr_k_decay", 1.0),
    "decay_fn": ("lr_decay_fn", None),
    "stable_timescale": ("lr_stable_timescale", None),
}


def scheduler_kwargs(cfg: Any, decreasing_metric: bool | None = None) -> dict[str, Any]:
    """Keywords of `create_scheduler_v2` from a training script's arguments (argparse or any object with attributes).

    Names and defaults are timm's; `warmup_method` and `warmup_factor`, which are ours, are read where `cfg` has them.

    Args:
        decreasing_metric: Whether a lower metric is better; None to see it from `cfg.eval_metric`.
    """
    if decreasing_metric is None:
        decreasing_metric = "loss" in getattr(cfg, "eval_metric", "top1")
    kwargs = {"sched": cfg.sched}
    kwargs.update({key: getattr(cfg, name, default) for key, (name, default) in _CFG_NAMES.items()})
    kwargs["plateau_mode"] = "min" if decreasing_metric else "max"
    kwargs["step_on_epochs"] = not getattr(cfg, "sched_on_updates", False)
    kwargs.update({name: getattr(cfg, name) for name in ("warmup_method", "warmup_factor") if hasattr(cfg, name)})
    return kwargs


def scale_learning_rate(
    lr_base: float, images: int, lr_base_size: int = 256, lr_base_scale: str = "", opt: str = "sgd"
) -> float:
    """The learning rate for `images` an update, where `lr_base` is right for `lr_base_size`; timm's `--lr-base`.

    Args:
        lr_base_scale: "linear" or "sqrt" in the number of images; "" for "sqrt" with optimizers of the Ada and Lamb
            kind and "linear" with others.

    Raises:
        ConfigError: `lr_base_scale` is neither.
    """
    scale = lr_base_scale or ("sqrt" if any(kind in opt.lower() for kind in ("ada", "lamb")) else "linear")
    if scale not in ("linear", "sqrt"):
        raise ConfigError(f"--lr-base-scale '{scale}' is neither 'linear' nor 'sqrt'")
    ratio = images / lr_base_size
    return lr_base * (ratio if scale == "linear" else ratio ** 0.5)


def scheduler_name(sched: str) -> str:
    """Our name of a schedule.

    Raises:
        ConfigError: It is none.
    """
    name = _ALIASES.get(str(sched).lower(), str(sched).lower())
    known = list_schedulers()
    if name not in known:
        raise ConfigError(f"unknown scheduler '{sched}'{closest(name, known) or '; known: ' + ', '.join(known)}")
    return name


def _plan(arguments: dict[str, Any]) -> tuple[Schedule | None, int]:
    """Schedule and total epochs, from all arguments of `create_scheduler_v2` but the optimizer."""
    num_epochs, name = arguments["num_epochs"], scheduler_name(arguments["sched"])
    prefix = arguments["warmup_epochs"] if arguments["warmup_prefix"] else 0
    if name == "none":
        return None, num_epochs + prefix
    _check_lengths(arguments)
    schedule = _BUILDERS[name](arguments)
    length = schedule.length()
    if length is None:
        return schedule, num_epochs + prefix
    unit = _unit(arguments)
    total = length + arguments["cooldown_epochs"] * unit
    return schedule, total if arguments["step_on_epochs"] else total // unit


def _check_lengths(arguments: dict[str, Any]) -> None:
    if arguments["num_epochs"] <= 0:
        raise ConfigError(f"a schedule of {arguments['num_epochs']} epochs; it needs more than 0")
    for name in ("cooldown_epochs", "min_lr", "warmup_epochs", "warmup_lr"):
        if arguments[name] < 0:
            raise ConfigError(f"{name} is negative, {arguments[name]}")
    if not arguments["step_on_epochs"] and not arguments["updates_per_epoch"] > 0:
        raise ConfigError("a schedule that counts updates needs updates_per_epoch, the number of updates in an epoch")


def _unit(arguments: dict[str, Any]) -> int:
    """Length of an epoch in the unit of progress."""
    return 1 if arguments["step_on_epochs"] else arguments["updates_per_epoch"]


def _shared(arguments: dict[str, Any]) -> dict[str, Any]:
    """What every schedule takes: warmup and noise."""
    noise, total = arguments["noise"], arguments["num_epochs"] * _unit(arguments)
    if isinstance(noise, (list, tuple)):
        noise = noise[0] if len(noise) == 1 else tuple(noise)
    if noise is not None:
        noise = tuple(share * total for share in noise) if isinstance(noise, tuple) else noise * total
    return dict(
        warmup_t=arguments["warmup_epochs"] * _unit(arguments), warmup_lr_init=arguments["warmup_lr"],
        warmup_prefix=arguments["warmup_prefix"], warmup_method=arguments["warmup_method"],
        warmup_factor=arguments["warmup_factor"], noise_range_t=noise, noise_pct=arguments["noise_pct"],
        noise_std=arguments["noise_std"], noise_seed=arguments["noise_seed"])


def _cyclic(kind: type[Schedule], arguments: dict[str, Any], **own: Any) -> Schedule:
    return kind(
        t_initial=arguments["num_epochs"] * _unit(arguments), lr_min=arguments["min_lr"],
        cycle_mul=arguments["cycle_mul"], cycle_decay=arguments["cycle_decay"], cycle_limit=arguments["cycle_limit"],
        **own, **_shared(arguments))


def _cosine(arguments: dict[str, Any]) -> Schedule:
    return _cyclic(Cosine, arguments, k_decay=arguments["k_decay"])


def _tanh(arguments: dict[str, Any]) -> Schedule:
    return _cyclic(Tanh, arguments)


def _poly(arguments: dict[str, Any]) -> Schedule:
    return _cyclic(Poly, arguments, k_decay=arguments["k_decay"], power=arguments["decay_rate"])


def _step(arguments: dict[str, Any]) -> Schedule:
    epochs = 90 if arguments["decay_epochs"] is None else arguments["decay_epochs"]
    return Step(decay_t=epochs * _unit(arguments), decay_rate=arguments["decay_rate"], **_shared(arguments))


def _multistep(arguments: dict[str, Any]) -> Schedule:
    milestones = [epoch * _unit(arguments) for epoch in arguments["decay_milestones"]]
    return MultiStep(decay_t=milestones, decay_rate=arguments["decay_rate"], **_shared(arguments))


def _exponential(arguments: dict[str, Any]) -> Schedule:
    return Exponential(decay_t=_unit(arguments), decay_rate=arguments["decay_rate"], **_shared(arguments))


def _constant(arguments: dict[str, Any]) -> Schedule:
    return Step(decay_t=1, decay_rate=1.0, **_shared(arguments))


def _wsd(arguments: dict[str, Any], stable_fn: str = "constant", decay_fn: str = "1-sqrt") -> Schedule:
    unit, shared = _unit(arguments), _shared(arguments)
    if not shared.pop("warmup_prefix"):  # warmup is a prefix in any case; here it is taken from the epochs
        t_initial = arguments["num_epochs"] * unit - shared["warmup_t"]
    else:
        t_initial = arguments["num_epochs"] * unit
    decay = 0.2 if arguments["decay_epochs"] is None else arguments["decay_epochs"]
    decay_t = round(decay * (t_initial if 0 < decay < 1 else unit))
    if not 0 < decay_t <= t_initial:
        raise ConfigError(f"the {arguments['sched']} schedule decays for {decay_t} of {t_initial} "
                          f"{'epochs' if arguments['step_on_epochs'] else 'updates'} after warmup; decay_epochs must "
                          f"be above 0 and fit into them")
    timescale = arguments["stable_timescale"]
    return WarmupStableDecay(
        t_initial=t_initial, decay_t=decay_t, lr_min=arguments["min_lr"], stable_fn=stable_fn,
        stable_timescale=None if timescale is None else timescale * unit,
        decay_fn=arguments["decay_fn"] or decay_fn, **shared)


def _rsqrt(arguments: dict[str, Any]) -> Schedule:
    return _wsd(arguments, "rsqrt", "linear")


_BUILDERS: dict[str, Callable[[dict[str, Any]], Schedule]] = {
    "constant": _constant, "cosine": _cosine, "exponential": _exponential, "multistep": _multistep, "poly": _poly,
    "rsqrt": _rsqrt, "step": _step, "tanh": _tanh, "wsd": _wsd,
}
