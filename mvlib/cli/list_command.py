"""`mvlib list`: names of models."""

from __future__ import annotations

import argparse
import sys

from .. import registry
from ..names import closest
from ..tasks import TASKS
from .options import add_option

EXAMPLES = (
    "mvlib list 'vit_*' --pretrained      # names of weights",
    "mvlib list --modules                 # families",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("patterns", nargs="*", metavar="PATTERN", help="wildcards, e.g. 'vit_*' or 'resnet50.*'")
    parser.add_argument("--pretrained", action="store_true", help="only names that have weights, with their tags")
    parser.add_argument("--tags", action="store_true", help="with tags, also of models without weights")
    parser.add_argument("--module", action="append", default=[], metavar="FAMILY",
                        help="only models of this family (repeatable)")
    add_option(parser, "--task", note=", ".join(TASKS))
    parser.add_argument("--exclude", action="append", default=[], metavar="PATTERN", help="leave these out again")
    parser.add_argument("--modules", action="store_true", help="list the families instead")
    add_option(parser, "--json")


def run(arguments: argparse.Namespace) -> int:
    if arguments.modules:
        names = registry.list_modules(arguments.task)
    else:
        names = registry.list_models(
            arguments.patterns, module=arguments.module, pretrained=arguments.pretrained,
            exclude_filters=arguments.exclude, include_tags=True if arguments.tags else None,
            task=arguments.task)
    if arguments.json:
        import json

        print(json.dumps(names))
    elif names:
        print("\n".join(names))
    if not names:
        wanted = " ".join(arguments.patterns) or "these conditions"
        hint = closest(wanted.strip("*"), registry.list_models())
        print(f"mvlib: no model matches {wanted}{hint}", file=sys.stderr)
        return 1
    return 0
