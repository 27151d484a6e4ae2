"""How long it takes to start: whole processes, mvlib and timm in turn, as ratios of medians.

    python benchmarks/startup.py [--runs 7]
"""

from __future__ import annotations

import argparse
import compileall
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

LISTING = "import {0}; {0}.list_models('*resne*t*')"
ROWS = (
    # what, mvlib's command, the peer's command
    ("import and list_models('*resne*t*')", ["-c", LISTING.format("mvlib")], ["-c", LISTING.format("timm")]),
    ("`mvlib list` / `import timm`", ["-m", "mvlib", "list"], ["-c", "import timm"]),
    ("`mvlib --help` / `import timm`", ["-m", "mvlib", "--help"], ["-c", "import timm"]),
    ("`mvlib info resnet50` / `import timm`", ["-m", "mvlib", "info", "resnet50"], ["-c", "import timm"]),
)


def seconds(arguments: list[str]) -> float:
    """Wall-clock seconds of one fresh interpreter."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, env=ENVIRONMENT)
    return time.perf_counter() - started


def in_turn(ours: list[str], theirs: list[str], runs: int) -> tuple[float, float]:
    """Median seconds of two commands that are run one after the other, time and again."""
    seconds(ours), seconds(theirs)  # warm the file cache
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(runs)]
    own, peer = (statistics.median(column) for column in zip(*pairs))
    return own, peer


# An installed package has its bytecode; let neither side compile at each start.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7, help="counted runs of each command")
    runs = parser.parse_args().runs
    compileall.compile_dir(Path(__file__).parents[1] / "mvlib", quiet=1)
    print("| what | mvlib | timm | times faster |\n| --- | --- | --- | --- |")
    for what, ours, theirs in ROWS:
        own, peer = in_turn(ours, theirs, runs)
        print(f"| {what} | {own * 1e3:.0f} ms | {peer * 1e3:.0f} ms | {peer / own:.1f} |", flush=True)


if __name__ == "__main__":
    main()
