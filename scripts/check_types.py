#!/usr/bin/env python
"""Check the types of mvlib with mypy: no module may have more errors of a kind than scripts/type_errors.txt allows it.

    python scripts/check_types.py              say what is new, exit 1 if anything is
    python scripts/check_types.py --update     lower the numbers that can be lowered, unless one is exceeded
    python scripts/check_types.py --all        print every error that there is

The file has a line for each module that has errors; a module without one may have none. For another release of mypy,
remove the file: --update then writes it anew. The settings, and the modules with which mypy is stricter, are in
pyproject.toml. The first run takes half a minute, the next ones a second or two.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = ROOT / "scripts" / "type_errors.txt"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="lower the numbers of allowed errors")
    parser.add_argument("--all", action="store_true", help="print allowed errors, too")
    args = parser.parse_args()
    errors = run_mypy()
    found = {path: Counter(code for _, code in lines) for path, lines in errors.items()}
    allowed = read_allowed() if ALLOWED.exists() or not args.update else found
    more = {path: counts - allowed.get(path, Counter()) for path, counts in found.items()}
    for path, lines in errors.items():
        for line, code in lines:
            if args.all or more[path][code]:
                print(line)
    print(f"types: {total(found)} errors, {total(allowed)} are allowed")
    for path, counts in more.items():
        for code, number in counts.items():
            print(f"types: {path}: {found[path][code]} of [{code}], {number} more than it may have")
    if total(more):
        return 1
    if args.update:
        ALLOWED.write_text("".join(
            f"{path}  {' '.join(f'{code}:{number}' for code, number in sorted(counts.items()))}\n"
            for path, counts in sorted(found.items())), encoding="utf-8")
    elif total(found) < total(allowed):
        print("types: scripts/check_types.py --update lowers the numbers of allowed errors")
    return 0


def run_mypy() -> dict[str, list[tuple[str, str]]]:
    """Its errors by module: lines with their codes."""
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode not in (0, 1):  # it could not check: a syntax error, a wrong setting
        raise SystemExit(done.stdout + done.stderr)
    errors = defaultdict(list)
    for line in done.stdout.splitlines():
        found = re.match(r"(.+?):\d+: error: .*\[(.+)\]$", line)
        if found:
            errors[found[1].replace("\\", "/")].append((line, found[2]))
    return errors


def read_allowed() -> dict[str, Counter[str]]:
    allowed = {}
    for line in ALLOWED.read_text(encoding="utf-8").splitlines():
        path, *counts = line.split()
        allowed[path] = Counter({code: int(number) for code, _, number in (count.partition(":") for count in counts)})
    return allowed


def total(counts: dict[str, Counter[str]]) -> int:
    return sum(count.total() for count in counts.values())


if __name__ == "__main__":
    sys.exit(main())
