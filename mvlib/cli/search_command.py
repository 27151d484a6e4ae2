"""`mvlib search`: weights that meet conditions."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from typing import Any

from ..query import FIELDS, Record, find_field, search
from ..tasks import CLASSIFICATION, TASKS, find_task
from .argument_types import positive
from .options import add_option
from .output import format_table

_FIGURES = TASKS[CLASSIFICATION].columns
_COLUMNS = ("name", *_FIGURES, "params", "gmacs", "activations", "input", "license")
_DESCRIPTION = """\
Weights that meet conditions, best first.

Conditions stand side by side and must all hold; `or` and parentheses make alternatives. A word alone is a wildcard for
the name, or a part of it. Numbers: = != < <= > >=; they are in the unit of the table, or absolute with an ending k, M
or G. Texts: = != and ~ !~ for wildcards or parts. Weights of which a field is not known meet no condition on it.
"""
EXAMPLES = (
    "mvlib search 'top1>80 params<30M gmacs<5 license=apache-2.0 input=224'",
    "mvlib search 'resnet* or convnext*' --sort gmacs --limit 10",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = _DESCRIPTION
    parser.epilog = f"fields: {', '.join(FIELDS)}"
    parser.add_argument("query", nargs="*", metavar="CONDITION", help="quote them: the shell takes < and > for itself")
    add_option(parser, "--task", note=", ".join(TASKS))
    add_option(parser, "--sort", metavar="FIELD[,FIELD]",
               note="accuracies from the highest, costs from the least; --sort=-params turns it round",
               default_is="the task's first figure, top1")
    parser.add_argument("--limit", type=positive, metavar="N", help="show this many at most")
    parser.add_argument("--columns", metavar="FIELD[,FIELD]",
                        help="columns of the table (default: accuracies, params, gmacs, activations, input, license; "
                             "JSON: all)")
    add_option(parser, "--format", choices=("table", "json", "csv"), default="table")
    add_option(parser, "--all", note="also architectures whose weights nobody publishes")


def run(arguments: argparse.Namespace) -> int:
    columns = [find_field(name) for name in arguments.columns.split(",")] if arguments.columns else None
    if columns is None and arguments.task and arguments.format != "json":
        figures = TASKS[find_task(arguments.task)].columns
        columns = [_COLUMNS[0], *figures, *(name for name in _COLUMNS[1:] if name not in (*_FIGURES, "activations"))]
    found = search(" ".join(arguments.query), sort=arguments.sort, published=not arguments.all, task=arguments.task)
    shown = found[:arguments.limit]
    _WRITERS[arguments.format](shown, columns)
    if not found:
        print("mvlib: no weights meet these conditions", file=sys.stderr)
        return 1
    if arguments.format == "table" and len(shown) < len(found):
        print(f"mvlib: {len(shown)} of {len(found)} are shown", file=sys.stderr)
    return 0


def _write_json(records: list[Record], columns: list[str] | None) -> None:
    print(json.dumps([record.as_dict(columns) for record in records], indent=2))


def _write_csv(records: list[Record], columns: list[str] | None) -> None:
    writer = csv.DictWriter(sys.stdout, columns or list(_COLUMNS), lineterminator="\n")
    writer.writeheader()
    writer.writerows(record.as_dict(writer.fieldnames) for record in records)


def _write_table(records: list[Record], columns: list[str] | None) -> None:
    columns = columns or list(_COLUMNS)
    if records:
        print(format_table([[_cell(record, name) for name in columns] for record in records],
                           header=[FIELDS[name].heading or name for name in columns]))


def _cell(record: Record, name: str) -> Any:
    value, field = getattr(record, name), FIELDS[name]
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.{field.digits}f}" if field.kind == "number" and value is not None else value


_WRITERS = {"table": _write_table, "json": _write_json, "csv": _write_csv}
