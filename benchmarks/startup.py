"""How long it takes to start: whole processes, mvlib and timm in turn, as ratios of medians.

    python benchmarks/startup.py [--runs 7]
"""

from __future__ import annotations

import argparse
import compileall
import functools
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

LISTING = "import {0}; {0}.list_models('*resne*t*')"
# A name of a model, by a bash that has just started and reads the script.
COMPLETE = "source /dev/stdin; COMP_WORDS=(mvlib train --model resnet50_cl) COMP_CWORD=3; _mvlib; [[ $COMPREPLY ]]"
ROWS = (
    # what, mvlib's command, the peer's command; Python's arguments, or a line of bash
    ("import and list_models('*resne*t*')", ["-c", LISTING.format("mvlib")], ["-c", LISTING.format("timm")]),
    ("`mvlib list` / `import timm`", ["-m", "mvlib", "list"], ["-c", "import timm"]),
    ("`mvlib --help` / `import timm`", ["-m", "mvlib", "--help"], ["-c", "import timm"]),
    ("`mvlib info resnet50` / `import timm`", ["-m", "mvlib", "info", "resnet50"], ["-c", "import timm"]),
    ("completion of a model's name in bash / `import timm`", COMPLETE, ["-c", "import timm"]),
)


def seconds(arguments: list[str] | str) -> float:
    """Wall-clock seconds of one fresh interpreter."""
    command = ["bash", "-c", arguments] if isinstance(arguments, str) else [sys.executable, *arguments]
    script = completion()
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=ENVIRONMENT, input=script, text=True)
    return time.perf_counter() - started


@functools.cache
def completion() -> str:
    """The script of `mvlib completion bash`."""
    command = [sys.executable, "-m", "mvlib", "completion", "bash"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def in_turn(ours: list[str] | str, theirs: list[str], runs: int) -> tuple[float, float]:
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
