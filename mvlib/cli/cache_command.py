"""`mvlib cache`: downloaded weights, and engines that were made of them."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from .. import hub
from ..engines.cache import engine_entries, engines_dir, remove_engines
from .output import format_size, format_table

EXAMPLES = (
    "mvlib cache list                   # what is there, and how large it is",
    "mvlib cache remove 'resnet50.*'    # it is fetched again when it is needed",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="what is there, and how large it is")
    listing.add_argument("patterns", nargs="*", metavar="PATTERN", help="names or wildcards")
    remove = actions.add_parser("remove", help="delete files; they are fetched or made again when they are needed")
    remove.add_argument("patterns", nargs="+", metavar="PATTERN", help="names or wildcards, as `list` shows them")
    actions.add_parser("path", help="the folders")


def run(arguments: argparse.Namespace) -> int:
    if arguments.action == "path":
        paths = {**hub.cache_paths(), "engine": engines_dir()}
        print("\n".join(f"{kind}\t{path}" for kind, path in paths.items()))
        return 0
    entries: Sequence[hub.CacheEntry]
    if arguments.action == "remove":
        entries, verb = [*hub.remove_cached(arguments.patterns), *remove_engines(arguments.patterns)], "removed"
    else:
        entries, verb = [*hub.cache_entries(), *engine_entries()], "in all"
        if arguments.patterns:
            import fnmatch

            entries = [e for e in entries if any(fnmatch.fnmatch(e.name, p) for p in arguments.patterns)]
    if not entries:
        print("mvlib: nothing in the cache matches" if arguments.patterns else "mvlib: the cache is empty",
              file=sys.stderr)
        return 1 if arguments.patterns else 0
    rows = [(e.name, " ".join(filter(None, (e.kind, getattr(e, "about", "")))), format_size(e.size),
             time.strftime("%Y-%m-%d", time.localtime(e.last_used))) for e in entries]
    print(format_table(rows, header=("name", "kind", "size", "last used")))
    print(f"{len(entries)} {verb}, {format_size(sum(e.size for e in entries))}")
    return 0
