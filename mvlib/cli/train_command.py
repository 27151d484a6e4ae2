"""`mvlib train`: train a model; the same as scripts/train.py."""

from __future__ import annotations

import argparse

from ..train.recipes import add_train_arguments, parse_train_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_train_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    from ..errors import ConfigError

    args = parse_train_arguments(namespace=arguments)
    if not args.data_dir and not args.dataset:
        missing = f"; there is no args.yaml of a run by {args.resume}" if args.resume not in ("", "auto") else ""
        raise ConfigError(f"no data set: give its folder (mvlib train DATA ...), or --dataset{missing}")
    from ..train.run import train

    return train(args)
