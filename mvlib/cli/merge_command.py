"""`mvlib merge`: the parts of an output folder as one file."""

from __future__ import annotations

import argparse

from .output import check_output
from .predict_command import report_failures


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="what 'mvlib predict' or 'mvlib embed' wrote, --output NAME/")
    parser.add_argument("--output", required=True, metavar="FILE",
                        help="predictions: .csv, .json, .jsonl or .parquet; features: .parquet or .npy (the names of "
                             "its rows go to a .json file beside it)")


def run(arguments: argparse.Namespace) -> int:
    from ..inference.folder import read_manifest
    from ..inference.merge import merge

    check_output(arguments.output)
    failures = merge(arguments.folder, arguments.output)
    return report_failures(((failure["file"], failure["error"]) for failure in failures),
                           read_manifest(arguments.folder)["inputs"]["count"])
