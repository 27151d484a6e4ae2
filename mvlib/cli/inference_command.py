"""`mvlib inference`: the likeliest classes of every image of a data set, as a file; the same as scripts/inference.py.

`mvlib predict` is for photographs and people; this is for whole data sets and programs: it reads what `create_dataset`
reads, by several processes, and writes one row an image.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..files import csv_text, replacing
from ..inference.parts import require_parquet
from .checks import check_new_folder
from .options import add_option, group
from .output import check_output, write_text
from .tally import Tally
from .validate_command import add_source_arguments, complete

_FORMATS = ("csv", "json", "json-record", "parquet")


COMMON = {
    "data": "DATA --dataset --split",
    "model": "--model --checkpoint --num-classes --img-size",
    "results": "--topk --label-type --results-file --results-dir --results-format",
    "computation": "--batch-size --workers --device --amp",
}
EXAMPLES = (
    "mvlib inference DATA --model tf_efficientnet_lite0.pip_in1k --topk 5",
    "mvlib inference DATA --checkpoint last.pth.tar --results-file found.csv",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser)
    results = group(parser, "results")
    add_option(results, "--topk", default=1)
    results.add_argument("--fullname", action="store_true", help="whole paths, not those below the data set")
    for option, default, what in (("--filename-col", "filename", "file"), ("--index-col", "index", "class"),
                                  ("--label-col", "label", "class's name"), ("--output-col", "prob", "output")):
        results.add_argument(option, default=default, metavar="NAME",
                             help=f"column of the {what} (default: %(default)s)")
    results.add_argument("--output-type", choices=("prob", "logit"), default="prob",
                         help="probabilities or logits (default: %(default)s)")
    results.add_argument("--label-type", choices=("none", "name"), default="none",
                         help="also write class names (default: %(default)s)")
    results.add_argument("--exclude-output", action="store_true", help="do not write the outputs")
    results.add_argument("--no-console-results", action="store_true",
                         help="do not print the rows, as is done unless --results-file or --results-dir is given")
    results.add_argument("--results-dir", metavar="FOLDER", help="folder of the results")
    add_option(results, "--results-file", default_is="MODEL-SIZE.FORMAT")
    add_option(results, "--results-format", choices=_FORMATS, default_is="what its ending says, else csv")


def run(arguments: argparse.Namespace) -> int:
    args = complete(arguments, several=False)
    args.results_format = args.results_format or _format_of(args.results_file)
    folder = Path(args.results_dir or "", args.results_file or "").parent if args.results_file else args.results_dir
    check_new_folder(folder or ".", "--results-dir" if args.results_dir else "--results-file")
    if args.results_file and Path(folder).is_dir():
        check_output(Path(args.results_dir or "", args.results_file))
    if args.results_format == "parquet":
        require_parquet()
    from ..train.evaluation import infer
    from ..train.messages import messages_on_terminal

    tally = Tally()
    with messages_on_terminal():
        model, config, found, tally.skipped = infer(args)
    rows = [_row(args, *item) for item in found]
    path = Path(args.results_file or f"{model}-{config['input_size'][-1]}.{args.results_format.partition('-')[0]}")
    if args.results_dir:
        path = Path(args.results_dir, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(rows, path, args)
    tally.done = len(rows)
    tally.report(path)
    if not (args.no_console_results or args.results_file or args.results_dir):
        print(json.dumps(rows, indent=2))
    return 0


def _format_of(path: str | None) -> str:
    ending = Path(path or "").suffix.lower()
    if ending not in ("", ".txt", *(f".{name}" for name in _FORMATS)):
        raise ConfigError(f"--results-file writes {', '.join(_FORMATS)}, and '{path}' ends in none of them; or say "
                          f"--results-format")
    return ending[1:] if ending[1:] in _FORMATS else "csv"


def _row(
    args: argparse.Namespace, name: str, indices: list[int], outputs: list[float], labels: list[str]
) -> dict[str, Any]:
    row: dict[str, Any] = {args.filename_col: name}
    single = args.topk == 1
    columns = [(args.index_col, indices)]
    if args.label_type == "name":
        columns.append((args.label_col, labels))
    if not args.exclude_output:
        columns.append((args.output_col, outputs))
    for column, values in columns:
        row[column] = values[0] if single else values
    return row


def _write(rows: list[dict[str, Any]], path: Path, args: argparse.Namespace) -> None:
    if args.results_format == "parquet":
        arrow = require_parquet()
        with replacing(path) as temporary:
            arrow.parquet.write_table(arrow.Table.from_pylist(rows), temporary)
    elif args.results_format == "csv":
        flat = [{f"{key}_{i}" if isinstance(value, list) else key: item for key, value in row.items()
                 for i, item in enumerate(value if isinstance(value, list) else [value])} for row in rows]
        write_text(path, csv_text(list(flat[0]) if flat else [args.filename_col], flat))
    elif args.results_format == "json":
        by_name = {row[args.filename_col]: {k: v for k, v in row.items() if k != args.filename_col} for row in rows}
        write_text(path, json.dumps(by_name, indent=2))
    else:
        write_text(path, json.dumps(rows, indent=2))
