"""`mvlib average`: the mean of a run's best checkpoints."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..errors import ConfigError
from ..names import closest_path
from .argument_types import positive
from .options import add_option
from .output import WEIGHTS, check_output

EXAMPLES = (
    "mvlib average output/train/first --output mean.safetensors",
    "mvlib average output/train/first -n 3 --output mean.safetensors",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="the run's, with its checkpoints")
    add_option(parser, "--output", default="./averaged.safetensors",
               note="safetensors, or torch's format where it ends in .pth")
    parser.add_argument("-n", type=positive, default=10, metavar="N",
                        help="how many of the best (default: %(default)s)")
    parser.add_argument("--filter", default="*.pth.tar", metavar="PATTERN", help="which files (default: %(default)s)")
    add_option(parser, "--no-use-ema")
    parser.add_argument("--no-sort", action="store_true", help="all files, whatever their metrics")


def run(arguments: argparse.Namespace) -> int:
    folder, use_ema = Path(arguments.folder), not arguments.no_use_ema
    if not folder.is_dir():
        raise ConfigError(f"{folder} is a file; a run's folder is averaged" if folder.exists() else
                          f"there is no folder {folder}{closest_path(folder, files=False)}")
    check_output(arguments.output, WEIGHTS)
    from ..train.averaging import average_checkpoints, choose_checkpoints, common_facts, write_weights

    files = sorted(folder.glob(arguments.filter)) if arguments.no_sort else \
        choose_checkpoints(folder, arguments.filter, arguments.n, use_ema=use_ema)
    _refuse_input(arguments.output, files)
    if len(files) == 1:
        print("mvlib: of one checkpoint the mean is itself: a run keeps --checkpoint-hist of its best", file=sys.stderr)
    for path in files:
        print(path, _epoch_of(path))
    mean = average_checkpoints(files, use_ema)
    print("averaged:", write_weights(mean, arguments.output, facts=common_facts(files)))
    return 0


def _refuse_input(output: str, files: list[Path]) -> None:
    if Path(output).exists() and any(path.samefile(output) for path in files):
        raise ConfigError(f"--output {output} is a checkpoint that is averaged: the run could not be gone on with")


def _epoch_of(path: Path) -> str:
    """Which epoch's weights a checkpoint holds, and how good they were, as far as it says."""
    from ..loading import read_training_facts

    facts = read_training_facts(path)
    known = [f"{key} {facts[key]:{form}}" for key, form in (("epoch", "d"), ("metric", ".6g")) if key in facts]
    return f"({', '.join(known)})" if known else ""
