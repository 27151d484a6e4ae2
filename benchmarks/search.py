"""How long `mvlib search` over all weights takes, as a process, beside `import torch`: in turn, as ratios of medians.

    python benchmarks/search.py [--runs 9]
"""

from __future__ import annotations

import argparse
import compileall
from pathlib import Path

from startup import in_turn

SEARCH = ["-m", "mvlib", "search"]
ROWS = (
    ("conditions, table", [*SEARCH, "top1>80 params<30M gmacs<5 license=bsd-3-clause input=224"]),
    ("all weights, table", SEARCH),
    ("all weights, JSON", [*SEARCH, "--format", "json"]),
    ("with a look into the cache", [*SEARCH, "cached=no"]),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=9, help="counted runs of each command")
    runs = parser.parse_args().runs
    compileall.compile_dir(Path(__file__).parents[1] / "mvlib", quiet=1)
    print("| `mvlib search` | mvlib | `import torch` | share of it |\n| --- | --- | --- | --- |")
    for what, command in ROWS:
        own, torch = in_turn(command, ["-c", "import torch"], runs)
        print(f"| {what} | {own * 1e3:.0f} ms | {torch * 1e3:.0f} ms | {own / torch:.3f} |", flush=True)


if __name__ == "__main__":
    main()
