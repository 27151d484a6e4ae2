"""`mvlib schedule`: the learning rates of a training recipe, as a table and a picture. Only noise imports torch."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ..charts import line_panels, need_matplotlib, save_figure
from ..errors import ConfigError
from ..scheduler import create_schedule, scale_learning_rate, scheduler_kwargs
from ..scheduler.schedules import Schedule
from ..train.arguments import OPTIONS, add_options
from ..train.recipes import add_recipe_arguments, parse_train_arguments
from .argument_types import natural
from .options import add_option, group
from .output import check_output, format_table

_ROWS = 30  # about a screen
_POINTS = 4000  # more than a picture has columns


@dataclass(frozen=True)
class Plan:
    """The learning rates of a run.

    Attributes:
        schedule: None where the learning rate stays as it is.
        lr: Base learning rate.
        epochs: Epochs to train.
        updates_per_epoch: Updates of an epoch where each has its learning rate, else 1.
    """

    schedule: Schedule | None
    lr: float
    epochs: int
    updates_per_epoch: int = 1

    def at(self, t: int) -> float:
        """The learning rate of epoch or update `t`."""
        if self.schedule is None:
            return self.lr
        return self.schedule(t, self.lr) if t else self.schedule.start(self.lr)


COMMON = {
    "recipe": "--config --batch-size --opt",
    "schedule": "--sched --epochs --lr --lr-base --warmup-epochs --warmup-lr --min-lr --decay-epochs --decay-rate "
                "--sched-on-updates",
    "results": "--updates-per-epoch --all --plot",
}
EXAMPLES = (
    "mvlib schedule --sched cosine --epochs 100 --lr 0.5 --plot lr.png",
    "mvlib schedule --config recipe.yaml --all",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe_arguments(parser)
    results = group(parser, "results")
    results.add_argument("--updates-per-epoch", type=natural, default=0, metavar="N",
                         help="a learning rate for each update, with so many in an epoch")
    add_option(results, "--all", note="a row for every epoch, not only for about a screen of them")
    add_option(results, "--plot", note=".png")
    options = [name for name, option in OPTIONS.items() if option.group == "schedule" and name != "start_epoch"]
    add_options(parser, only=[*options, "batch_size", "grad_accum_steps", "opt", "seed"])
    parser.set_defaults(data=None)


def run(arguments: argparse.Namespace) -> int:
    if arguments.plot:
        check_output(arguments.plot, (".png",), "--plot")
        need_matplotlib()
    plan = make_plan(parse_train_arguments(namespace=arguments), arguments.updates_per_epoch)
    if arguments.plot:
        draw(plan, arguments.plot)
    print(table(plan, everything=arguments.all))
    return 0


def make_plan(args: argparse.Namespace, updates_per_epoch: int = 0) -> Plan:
    """The learning rates that these arguments of training mean, on one process.

    Args:
        args: As `parse_train_arguments` gives them.
        updates_per_epoch: Updates in an epoch, for a learning rate an update; 0 for one an epoch.

    Raises:
        ConfigError: They mean none, or one that is not known beforehand.
    """
    if args.sched_on_updates and not updates_per_epoch:
        raise ConfigError("--sched-on-updates needs --updates-per-epoch, the number of updates in an epoch")
    lr = args.lr
    if lr is None:
        lr = scale_learning_rate(args.lr_base, args.batch_size * args.grad_accum_steps, args.lr_base_size,
                                 args.lr_base_scale, args.opt)
    kwargs = scheduler_kwargs(args)
    kwargs.update(step_on_epochs=not updates_per_epoch, updates_per_epoch=updates_per_epoch)
    if args.dialect == "torchvision":  # its --epochs count the warmup, and the schedule has the rest
        kwargs["num_epochs"] = max(args.epochs - args.warmup_epochs, 1)
    schedule, epochs = create_schedule(**kwargs)
    if args.dialect == "torchvision":
        epochs = args.epochs
    return Plan(schedule, lr, int(epochs), updates_per_epoch or 1)


def table(plan: Plan, everything: bool = False) -> str:
    """Epochs and their learning rates; epochs in a row that share one make one row.

    Args:
        everything: All rows; otherwise about a screen of them, turning points included.
    """
    runs = list(_runs(plan))
    if len(runs) > _ROWS and not everything:
        turns = {i for i, (a, b, c) in enumerate(zip(runs, runs[1:], runs[2:]), start=1)
                 if (b.lr - a.lr) * (c.lr - b.lr) < 0}
        keep = {*range(0, len(runs), -(-len(runs) // _ROWS)), len(runs) - 1, *(turns if len(turns) < _ROWS else ())}
        runs = [runs[i] for i in sorted(keep)]
    epochs = [f"{run.first}" if run.first == run.last else f"{run.first}-{run.last}" for run in runs]
    rates = [f"{run.lr:.6g}" for run in runs]
    if plan.updates_per_epoch == 1:
        return format_table(list(zip(epochs, rates)), ("epoch", "lr"))
    updates = [run.first * plan.updates_per_epoch for run in runs]
    return format_table(list(zip(epochs, updates, rates)), ("epoch", "update", "lr from there"))


class _Run(NamedTuple):
    first: int
    last: int
    lr: float


def _runs(plan: Plan) -> Iterator[_Run]:
    """Epochs in a row whose first updates have the same learning rate."""
    rates = (plan.at(epoch * plan.updates_per_epoch) for epoch in range(plan.epochs))
    for lr, run in itertools.groupby(enumerate(rates), key=lambda numbered: numbered[1]):
        epochs = [epoch for epoch, _ in run]
        yield _Run(epochs[0], epochs[-1], lr)


def draw(plan: Plan, path: str) -> None:
    """Draw the learning rate over the epochs as a PNG.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    total = plan.epochs * plan.updates_per_epoch
    steps = sorted({*range(0, total, -(-total // _POINTS)), total - 1})
    # Each epoch (or update) keeps its learning rate to its end.
    points = [(t / plan.updates_per_epoch, plan.at(t)) for t in steps]
    figure = line_panels("Learning rate", [("learning rate", {"lr": [*points, (plan.epochs, points[-1][1])]})],
                         steps=True, subtitle=f"{plan.schedule or 'constant'}, base learning rate {plan.lr:.4g}")
    figure.axes[0].set_xlim(0, plan.epochs)
    figure.axes[0].set_ylim(bottom=0)
    save_figure(figure, path)
