"""`mvlib finetune`: published weights on a person's own pictures, with defaults that are fitted to them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..engines.folder import full_name
from ..errors import ConfigError
from ..names import closest_path
from ..train.arguments import OPTIONS, finish_arguments
from ..train.fine_tuning import DEFAULT_MODEL, OUTPUT, plan, resume, run_plan, say
from ..train.messages import messages_on_terminal
from ..train.recipes import add_train_arguments, read_recipe
from .options import group, words
from .train_command import check_start

COMMON = {
    "what to learn": "DATA --model",
    "how": "--epochs --lr --batch-size --img-size --dry-run --config",
    "where": "--output --experiment --resume --device --workers",
}
EXAMPLES = (
    "mvlib finetune flowers/     # flowers/daisy/1.jpg, flowers/rose/7.jpg, ...",
    "mvlib finetune flowers/ --model resnet50 --epochs 20",
    "mvlib predict --model output/finetune/flowers/export photo.jpg",
)


# Where train's help says train's default.
_HELP = {
    "data": "a folder with a folder a class (a fifth is validated on); or with train, validation and test folders of "
            "such folders; or a table (.csv, ...) of paths and labels",
    "model": words("--model", "its published weights are taken", DEFAULT_MODEL),
    "epochs": "epochs to train (default: by the number of pictures)",
    "lr": "learning rate (default: 0.001, of AdamW; 0.0001 for models without batch norms)",
    "batch_size": words("--batch-size", default="by the number of pictures, and memory"),
    "img_size": words("--img-size", default="the model's"),
    "output": words("--output", "a folder of runs", OUTPUT),
    "experiment": "name of this run's folder (default: the data's, with a number where that holds another run)",
    "resume": "go on with the run of this folder; the same command as before does so, too",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group(parser, "recipe").add_argument("--dry-run", action="store_true",
                                         help="print the line of 'mvlib train' that this stands for, write the table "
                                              "of pictures that it reads, and stop")
    add_train_arguments(parser)
    for action in parser._actions:
        if action.dest in _HELP and not str(action.help).startswith("torchvision's name"):
            action.help = _HELP[action.dest]


def run(arguments: argparse.Namespace) -> int:
    given = {key: value for key, value in vars(arguments).items() if key in OPTIONS}
    if arguments.config:
        given = {**read_recipe(arguments.config).arguments, **given}
    if arguments.dialect == "torchvision":
        raise ConfigError("finetune has defaults of its own, beside timm's: --dialect torchvision goes with 'mvlib "
                          "train'")
    folder = _folder_to_resume(arguments, given.pop("resume", None), given)
    if arguments.data is not None and folder is not None:
        raise ConfigError(f"{folder} is a run that has its pictures: leave out {arguments.data}, or --resume (the same "
                          f"command as before goes on, too)")
    if arguments.data is None and folder is None:
        raise ConfigError("no pictures: give the folder that holds a folder for each class (mvlib finetune DATA)")
    if given.get("model"):
        given["model"] = full_name(given["model"])
    check_start(finish_arguments({"model": DEFAULT_MODEL, "output": OUTPUT, **given}, "timm"))
    with messages_on_terminal():
        found = plan(arguments.data, given) if folder is None else resume(folder, given)
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


def _folder_to_resume(arguments: argparse.Namespace, where: str | None, given: dict[str, Any]) -> Path | None:
    """The folder that --resume names; None where DATA does, or nothing."""
    if not where or where == "auto" and arguments.data is not None:
        return None
    if where == "auto":
        if not given.get("experiment"):
            raise ConfigError("--resume without a path goes on with an --experiment, or with DATA's run")
        where = str(Path(given.get("output") or OUTPUT, given["experiment"]))
    path = Path(where)
    if not path.exists():
        raise ConfigError(f"there is no run {path}{closest_path(path)}")
    return path if path.is_dir() else path.parent
