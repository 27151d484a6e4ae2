"""`mvlib merge`: the parts of an output folder as one file."""

from __future__ import annotations

import argparse

from .options import add_option
from .output import check_output
from .predict_command import report_failures

EXAMPLES = (
    "mvlib merge parts/ --output classes.csv          # of predict --output parts/",
    "mvlib merge features/ --output features.parquet  # of embed --output features/",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="what 'mvlib predict' or 'mvlib embed' wrote, --output NAME/")
    add_option(parser, "--output", required=True,
               note="of predictions: .csv, .json, .jsonl or .parquet; of features: .parquet or .npy (the names of its "
                    "rows go to a .json file beside it)")


def run(arguments: argparse.Namespace) -> int:
    from ..inference.folder import read_manifest
    from ..inference.merge import check_names, merge

    check_output(arguments.output)
    check_names(arguments.output)
    failures = merge(arguments.folder, arguments.output)
    return report_failures(((failure["file"], failure["error"]) for failure in failures),
                           read_manifest(arguments.folder)["inputs"]["count"])
