"""Parity of mvlib's models with timm's and torchvision's, from the command line.

    python -m tests.parity                                  keys of every architecture, no figures
    python -m tests.parity --all                            the same, then how much of timm is here, by its modules
    python -m tests.parity resnet                           a family, all checks
    python -m tests.parity 'vit_*' 'deit_*' --checks keys   architectures by pattern, on the meta device alone
    python -m tests.parity '*' --module resnet --checks outputs,gradients --max-gib 16
    python -m tests.parity --torchvision resnet50 'swin_*'  torchvision's builders, through our key maps

One row an architecture: parameters, the largest relative difference of each check, seconds, "ok" or what differs. A
check whose models would exceed --max-gib of memory is left out, and the row says so. An architecture that timm does
not have is skipped, with that reason. Checks: see harness.py. Exit status: 1 where something differs, 2 for bad
arguments.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable

import timm

from . import harness

_COLUMNS = ("logits", "pre_logits", "intermediates", "features", "gradients")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patterns", nargs="*", metavar="PATTERN_OR_FAMILY", help="fnmatch pattern, or a family's name")
    parser.add_argument("--all", action="store_true", help="every architecture; ends with what timm has and we lack")
    parser.add_argument("--module", action="append", default=[], help="only architectures of this family; repeatable")
    parser.add_argument("--checks", help=f"comma-separated: {','.join(harness.CHECKS)} (default: all; keys alone where "
                                         f"nothing is named)")
    parser.add_argument("--max-gib", type=float, default=4.0, help="memory that a check may take (default: 4)")
    parser.add_argument("--torchvision", action="store_true", help="patterns are torchvision's builders")
    args = parser.parse_args(argv)
    if args.all and (args.patterns or args.module or args.torchvision):
        parser.error("--all takes no patterns, modules or builders")
    checks = args.checks.split(",") if args.checks else harness.CHECKS if args.patterns or args.module else ("keys",)
    unknown = [check for check in checks if check not in harness.CHECKS]
    if unknown:
        parser.error(f"unknown check '{unknown[0]}'; known: {', '.join(harness.CHECKS)}")
    try:
        if args.torchvision:
            builders = harness.list_builders(args.patterns or ["*"])
            return show(harness.compare_torchvision(builder, args.max_gib) for builder in builders)
        names = harness.list_architectures(args.patterns, args.module)
        for family, reason in harness.import_families()[1].items():
            print(f"the family {family} cannot be imported and is left out: {reason}", file=sys.stderr)
    except ValueError as error:
        parser.error(str(error))
    status = show(harness.compare(name, checks, args.max_gib) if timm.is_model(name) else not_in_timm(name)
                  for name in names)
    return max(status, show_coverage(set(names))) if args.all else status


def show_coverage(names: set[str]) -> int:
    """Print which of timm's architectures are here, of the modules of which any is. Returns 1 where one is missing."""
    modules = {module: set(timm.list_models(module=module)) for module in timm.list_modules()}
    begun = {module: theirs for module, theirs in modules.items() if theirs & names}
    wanted = set().union(*begun.values())
    print(f"{len(wanted & names)} of {len(wanted)} architectures of {len(begun)} of timm's modules are here; its other "
          f"{len(modules) - len(begun)} modules have {len(set(timm.list_models()) - wanted)} more")
    for module, theirs in begun.items():
        if theirs - names:
            print(f"    {module}: {', '.join(sorted(theirs - names))}")
    return int(bool(wanted - names))


def not_in_timm(name: str) -> harness.Report:
    return harness.Report(name, notes=["skipped: timm has no such architecture"])


def show(reports: Iterable[harness.Report]) -> int:
    """Print a row a report, as they come, and a summary. Returns the exit status."""
    heads = " ".join(f"{column:>13}" for column in _COLUMNS)
    print(f"{'architecture':44} {'M par.':>8} {heads}   time", flush=True)
    counts = {"same": 0, "differ": 0, "skipped": 0}
    for report in reports:
        figures = [f"{report.differences[c]:.1e}" if c in report.differences else "" for c in _COLUMNS]
        status = "differs" if not report.ok else f"ok: {', '.join(report.passed)}" if report.passed else "skipped"
        counts["differ" if not report.ok else "same" if report.passed else "skipped"] += 1
        print(f"{report.name:44} {report.parameters / 1e6:8.2f} " + " ".join(f"{figure:>13}" for figure in figures)
              + f" {report.seconds:5.1f}s  {status}", flush=True)
        for line in (*report.problems, *(f"({note})" for note in report.notes)):
            print(f"    {line}", flush=True)
    print(", ".join(f"{count} {kind}" for kind, count in counts.items()))
    return 1 if counts["differ"] else 0


if __name__ == "__main__":
    sys.exit(main())
