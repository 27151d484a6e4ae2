"""What the README shows of quick commands is what they print."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
QUICK = ("search",)  # whose output depends on the catalogs alone


def shown() -> list[tuple[str, str]]:
    """(command, its output) of the quick commands in blocks of code."""
    found = []
    for _, block in re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL):
        parts = re.split(r"^\$ mvlib (.*)\n", block, flags=re.MULTILINE)[1:]
        found += [(command, output) for command, output in zip(parts[::2], parts[1::2]) if command.startswith(QUICK)]
    return found


def test_there_are_some():
    assert len(shown()) >= 2


@pytest.mark.parametrize("command, output", shown(), ids=[command for command, _ in shown()])
def test_the_output_is_the_commands(command, output):
    done = subprocess.run([sys.executable, "-m", "mvlib", *shlex.split(command)], text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    assert done.stdout == output
