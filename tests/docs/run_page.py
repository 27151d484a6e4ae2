"""Runs the blocks of a page one after the other, in the folder where it is started: `run_page PAGE [--slow]`.

Python's share their names. Says where it fails, and why, and ends with status 1.
"""

from __future__ import annotations

import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import yaml

from .blocks import Block, commands, read_blocks, same_output


def main() -> int:
    page, slow = sys.argv[1], "--slow" in sys.argv
    names: dict[str, Any] = {"__name__": "__main__"}
    failures = 0
    for block in read_blocks(page):
        if block.why_not is None and (slow or not block.is_slow):
            problem = run(block, names)
            if problem:
                failures += 1
                print(f"{block.where}: {problem}", flush=True)
    return int(failures > 0)


def run(block: Block, names: dict[str, Any]) -> str | None:
    """What is wrong with a block; None if nothing."""
    if block.title:
        Path(block.title).write_text(block.code, encoding="utf-8")
    try:
        if block.language == "python":
            exec(compile("\n" * (block.line - 1) + block.code, block.page, "exec"), names)
        elif block.language == "yaml":
            yaml.safe_load(block.code)
        elif block.language == "bash":
            done = shell(block.code)
            if done.returncode:
                return f"status {done.returncode}\n{done.stdout}"
        elif block.language == "console":
            for command, shown in commands(block.code):
                printed = shell(command).stdout
                if not same_output(shown, printed):
                    return f"$ {command}\nprints\n{printed}"
    except BaseException:
        return traceback.format_exc()
    return None


def shell(code: str) -> subprocess.CompletedProcess[str]:
    sys.stdout.flush()
    return subprocess.run(["bash", "-euo", "pipefail", "-c", code], text=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


if __name__ == "__main__":
    sys.exit(main())
