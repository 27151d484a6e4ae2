"""`mvlib search`: weights that meet conditions."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from ..files import csv_text
from ..query import FIELDS, Record, Survey, find_field, survey
from ..tasks import CLASSIFICATION, TASKS
from .argument_types import positive
from .options import add_option
from .output import format_table

_FIGURES = TASKS[CLASSIFICATION].columns
# The costs stand beside the size of the images that they are of; accuracies are at the size of the test.
_COLUMNS = ("name", *_FIGURES, "params", "gmacs", "input", "test_gmacs", "test", "license")
_DESCRIPTION = """\
Weights that meet conditions, best first.

Conditions stand side by side and must all hold; `or` and parentheses make alternatives. A word alone is a wildcard for
the name, or a part of it. Numbers: = != < <= > >=; they are in the unit of the table, or absolute with an ending k, M
or G. Texts: = != and ~ !~ for wildcards or parts. What is not known meets no condition. Accuracies are at the test
size (test, test_gmacs), gmacs at the input size.
"""
SIGNED = ("--sort",)
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
               note="accuracies from the highest, costs from the least; -params turns it round",
               default_is="the task's first figure, top1")
    parser.add_argument("--limit", type=positive, metavar="N", help="show this many at most")
    parser.add_argument("--columns", metavar="FIELD[,FIELD]",
                        help="columns of the table (default: accuracies, costs, sizes, license; JSON: all)")
    add_option(parser, "--format", choices=("table", "json", "csv"), default="table")
    add_option(parser, "--all", note="also architectures whose weights nobody publishes")


def run(arguments: argparse.Namespace) -> int:
    columns = [*dict.fromkeys(map(find_field, arguments.columns.split(",")))] if arguments.columns else None
    found = survey(" ".join(arguments.query), sort=arguments.sort, published=not arguments.all, task=arguments.task)
    figures = TASKS[found.task].columns
    if columns is None and figures != _FIGURES and arguments.format != "json":
        others = {*_FIGURES, "test", "test_gmacs"}  # theirs are tested at one size
        columns = [_COLUMNS[0], *figures, *(name for name in _COLUMNS[1:] if name not in others)]
    shown = found.found[:arguments.limit]
    _WRITERS[arguments.format](shown, columns)
    for line in _remarks(found, shown, columns or _COLUMNS, arguments.format == "table"):
        print(f"mvlib: {line}", file=sys.stderr)
    return 0 if found.found else 1


def _remarks(found: Survey, shown: list[Record], columns: Sequence[str], is_table: bool) -> Iterator[str]:
    """What the rows do not say."""
    if not found.found:
        yield "no weights meet these conditions"
    elif is_table and len(shown) < len(found.found):
        yield f"{len(shown)} of {len(found.found)} are shown"
    yield from found.hints
    if found.unsorted:
        yield f"{found.unsorted} of {len(found.found)} come last: their {found.sort} is not known"
    if found.left_out:
        yield f"{found.left_out} more may meet the conditions: their {' or '.join(found.unknown)} is not known"
    if is_table and {"top1", "top5"} & {*columns} and {"gmacs", "input"} & {*columns} and \
            any(record.test != record.input for record in shown):
        yield "accuracies are at the test size, gmacs at the input size: ask for test_gmacs<5, or for test=224"


def _write_json(records: list[Record], columns: list[str] | None) -> None:
    print(json.dumps([record.as_dict(columns) for record in records], indent=2))


def _write_csv(records: list[Record], columns: list[str] | None) -> None:
    columns = columns or list(_COLUMNS)
    sys.stdout.write(csv_text(columns, (record.as_dict(columns) for record in records)))


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
