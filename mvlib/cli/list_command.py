"""`mvlib list`: names of models."""

from __future__ import annotations

import argparse
import fnmatch
import sys
from collections.abc import Sequence
from typing import Any

from .. import registry
from ..errors import ConfigError
from ..names import closest
from ..tasks import TASKS
from .options import add_option

EXAMPLES = (
    "mvlib list 'vit_*' --pretrained      # names of weights",
    "mvlib list --modules                 # families",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("patterns", nargs="*", metavar="PATTERN",
                        help="wildcards, e.g. 'vit_*'; with a dot for tags, too: 'resnet50.*'; for families: --modules")
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
        if arguments.module or arguments.tags or arguments.pretrained:
            raise ConfigError("--modules lists families, and --module, --tags and --pretrained choose models")
        known = [name for name in registry.list_modules(arguments.task) if not _is_like(name, arguments.exclude)]
        names = [name for name in known if not arguments.patterns or _is_like(name, arguments.patterns)]
    else:
        has_tags = arguments.tags or any("." in pattern for pattern in arguments.patterns + arguments.exclude)
        options: dict[str, Any] = {
            "module": arguments.module, "pretrained": arguments.pretrained, "task": arguments.task,
            "exclude_filters": arguments.exclude, "include_tags": True if has_tags else None}
        names = registry.list_models(arguments.patterns, **options)
        known = registry.list_models(**options) if not names else []
    if arguments.json:
        import json

        print(json.dumps(names))
    elif names:
        print("\n".join(names))
    if not names:
        wanted = " ".join(arguments.patterns) or "these conditions"
        hint = closest(wanted.strip("*"), known)
        print(f"mvlib: no {'family' if arguments.modules else 'model'} matches {wanted}{hint}", file=sys.stderr)
        return 1
    return 0


def _is_like(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
