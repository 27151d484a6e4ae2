"""`mvlib train`: train a model; the same as scripts/train.py."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import ConfigError
from ..train.recipes import add_train_arguments, parse_train_arguments
from .checks import check_data, check_file, check_model, check_new_folder

COMMON = {
    "data and model": "DATA --config --model --pretrained --num-classes --img-size",
    "recipe": "--batch-size --epochs --lr --sched --warmup-epochs --opt --weight-decay --aa --mixup --model-ema",
    "run": "--amp --workers --output --experiment --resume",
}
EXAMPLES = (
    "mvlib train DATA --model resnet50 --pretrained --epochs 20 --lr 0.01 --amp",
    "mvlib train DATA --config recipe.yaml --output runs --experiment first",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_train_arguments(parser)
    parser.epilog = "The flags of torchvision's script are taken, too, and bring its defaults."


def check_start(args: argparse.Namespace) -> None:
    """Refuse what can be seen to be wrong before torch is there and the data are listed.

    Raises:
        ConfigError, DataError, UnknownNameError, WeightsError: What is wrong.
    """
    from ..optim.registry import get_optimizer_info
    from ..scheduler.factory import scheduler_name

    check_data(args)
    check_model(args.model, "train", weights=args.pretrained and not args.weights)
    if args.teacher:
        check_model(args.teacher, "train", weights=not args.teacher_checkpoint)
    for option in ("pretrained_path", "initial_checkpoint", "teacher_checkpoint"):
        check_file(getattr(args, option), f"--{option.replace('_', '-')}")
    name = args.opt.lower().removeprefix("lookahead_")
    if args.dialect != "torchvision" or name != "sgd_nesterov":  # its script's own name
        get_optimizer_info(name)
    scheduler_name(args.sched)
    check_new_folder(Path(args.output or "output/train", args.experiment), "--output")


def run(arguments: argparse.Namespace) -> int:
    args = parse_train_arguments(namespace=arguments)
    if not args.data_dir and not args.dataset:
        missing = f"; there is no args.yaml of a run by {args.resume}" if args.resume not in ("", "auto") else ""
        raise ConfigError(f"no data set: give its folder (mvlib train DATA ...), or --dataset{missing}")
    check_start(args)
    from ..train.run import train

    return train(args)
