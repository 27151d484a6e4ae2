"""`mvlib average`: the mean of a run's best checkpoints."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..errors import ConfigError
from ..names import closest_path
from .argument_types import positive
from .options import add_option
from .output import check_weights_output

EXAMPLES = (
    "mvlib average output/train/first --output mean.safetensors",
    "mvlib average output/train/first -n 3 --output mean.safetensors",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="the run's, with its checkpoints")
    add_option(parser, "--output", default="./averaged.safetensors",
               note="safetensors, or torch's format where it ends in .pth")
    parser.add_argument("-n", type=positive, metavar="N", help="how many of the best (default: 10)")
    parser.add_argument("--filter", default="*.pth.tar", metavar="PATTERN", help="which files (default: %(default)s)")
    add_option(parser, "--no-use-ema")
    parser.add_argument("--no-sort", action="store_true", help="all files, whatever their metrics")


def run(arguments: argparse.Namespace) -> int:
    folder, use_ema = Path(arguments.folder), not arguments.no_use_ema
    if not folder.is_dir():
        raise ConfigError(f"{folder} is a file; a run's folder is averaged" if folder.exists() else
                          f"there is no folder {folder}{closest_path(folder, files=False)}")
    if arguments.no_sort and arguments.n:
        raise ConfigError("-n takes the best, and --no-sort all: give one of them")
    check_weights_output(arguments.output)
    from ..train.averaging import average_checkpoints, common_facts, list_checkpoints, rank_checkpoints, write_weights

    ranked = [] if arguments.no_sort else \
        rank_checkpoints(folder, arguments.filter, arguments.n or 10, use_ema=use_ema)
    files = [found.path for found in ranked] or list_checkpoints(folder, arguments.filter)
    if len(files) == 1:
        print("mvlib: of one checkpoint the mean is itself: a run keeps --checkpoint-hist of its best", file=sys.stderr)
    print(*(ranked or files), sep="\n")
    mean = average_checkpoints(files, use_ema)
    print("averaged:", write_weights(mean, arguments.output, facts=common_facts(files)))
    return 0
