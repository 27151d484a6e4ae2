"""`mvlib finetune`: published weights on a person's own pictures, with defaults that are fitted to them."""

from __future__ import annotations

import argparse

from ..errors import ConfigError
from ..train.arguments import OPTIONS, finish_arguments
from ..train.fine_tuning import DEFAULT_MODEL, OUTPUT, plan, resume, run_plan, say
from ..train.messages import messages_on_terminal
from ..train.recipes import add_train_arguments, read_recipe
from .train_command import check_start


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true",
                        help="print the line of 'mvlib train' that this stands for, and stop")
    add_train_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    given = {key: value for key, value in vars(arguments).items() if key in OPTIONS}
    if arguments.config:
        given = {**read_recipe(arguments.config).arguments, **given}
    if arguments.dialect == "torchvision":
        raise ConfigError("finetune has defaults of its own, beside timm's: --dialect torchvision goes with mvlib train")
    if arguments.data is None and not given.get("resume"):
        raise ConfigError("no pictures: give the folder that holds a folder for each class (mvlib finetune DATA)")
    check_start(finish_arguments({"model": DEFAULT_MODEL, "output": OUTPUT, **given}, "timm"))
    with messages_on_terminal():
        found = resume(given.pop("resume"), given) if given.get("resume") else plan(arguments.data, given)
        say(found)
    if not found.args.resume:
        found.write()
    print(found.command, flush=True)
    if arguments.dry_run:
        return 0
    result = run_plan(found)
    if result.accuracy:
        print(result.summary())
    return result.status
