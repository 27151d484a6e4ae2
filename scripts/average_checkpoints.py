#!/usr/bin/env python
"""Average a run's best checkpoints: `python scripts/average_checkpoints.py --input RUN --output FILE`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mvlib.cli import guard
from mvlib.loading import read_training_facts
from mvlib.train.averaging import average_checkpoints, choose_checkpoints, common_facts, write_weights


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--input", required=True, metavar="DIR", help="the run's folder")
    parser.add_argument("--filter", default="*.pth.tar", metavar="PATTERN", help="which files (default: %(default)s)")
    parser.add_argument("--output", default="./averaged.safetensors", metavar="FILE",
                        help="safetensors, or torch's format by another ending (default: %(default)s)")
    parser.add_argument("--no-use-ema", action="store_true", help="not the averages that the checkpoints hold")
    parser.add_argument("--no-sort", action="store_true", help="all files, whatever their metrics")
    parser.add_argument("-n", type=int, default=10, metavar="N", help="how many of the best (default: %(default)s)")
    parser.add_argument("--safetensors", action="store_true", help="accepted: the ending of --output decides")
    args = parser.parse_args()
    files = sorted(Path(args.input).glob(args.filter)) if args.no_sort else \
        choose_checkpoints(args.input, args.filter, args.n, use_ema=not args.no_use_ema)
    for path in files:
        print(path, epoch_of(path))
    mean = average_checkpoints(files, not args.no_use_ema)
    print("averaged:", write_weights(mean, args.output, facts=common_facts(files)))
    return 0


def epoch_of(path: Path) -> str:
    """Which epoch's weights a checkpoint holds, and how good they were, as far as it says."""
    facts = read_training_facts(path)
    words = [f"{key} {facts[key]:{form}}" for key, form in (("epoch", "d"), ("metric", ".6g")) if key in facts]
    return f"({', '.join(words)})" if words else ""


if __name__ == "__main__":
    if status := guard("average_checkpoints", main):
        sys.exit(status)
