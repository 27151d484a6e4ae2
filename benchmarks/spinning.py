"""What it brings that OpenMP's waiting threads sleep soon (mvlib/threads.py): training steps in two processes that
take turns, one with OpenMP's own setting and one with mvlib's, on the machine as it is and with a spinning process a
core beside it.

    python benchmarks/spinning.py [--model resnet18] [--batch-size 16] [--steps 12]

A ratio above 1 means that mvlib's setting is faster. Idle, the best steps are compared, busy, all of them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

from mvlib.threads import let_waiting_threads_sleep

STEP = str(Path(__file__).with_name("train_step.py"))
WARM_UP = 2  # steps


def compare(arguments: argparse.Namespace, environments: list[dict[str, str]]) -> list[list[float]]:
    """Seconds of the steps in each environment."""
    command = [sys.executable, STEP, "--models", arguments.model, "--dtypes", "float32", "--batch-size",
               str(arguments.batch_size), "--serve", "mvlib"]
    sides = [subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
             for environment in environments]
    seconds: list[list[float]] = [[] for _ in sides]
    for step in range(arguments.steps + WARM_UP):
        for index in (0, 1) if step % 2 else (1, 0):
            sides[index].stdin.write("\n")
            sides[index].stdin.flush()
            took = float(sides[index].stdout.readline())
            if step >= WARM_UP:
                seconds[index].append(took)
    for side in sides:
        side.stdin.close()
        side.wait()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=12)
    arguments = parser.parse_args()
    own = dict(os.environ)
    if not let_waiting_threads_sleep():
        parser.error("the environment sets GOMP_SPINCOUNT, KMP_BLOCKTIME or OMP_WAIT_POLICY already")
    environments = [dict(os.environ), own]
    cores = os.cpu_count() or 1
    print("| beside it | what of the steps | mvlib's images/s | OpenMP's images/s | ratio |\n"
          "| --- | --- | --- | --- | --- |")
    for load, name, of in ((0, "nothing", min), (cores, f"{cores} spinning processes", statistics.fmean)):
        spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(load)]
        try:
            mine, theirs = (arguments.batch_size / of(seconds) for seconds in compare(arguments, environments))
        finally:
            for process in spinning:
                process.kill()
                process.wait()
        print(f"| {name} | {'best' if of is min else 'mean'} | {mine:.1f} | {theirs:.1f} | {mine / theirs:.2f} |",
              flush=True)


if __name__ == "__main__":
    main()
