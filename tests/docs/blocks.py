"""The blocks of code of a page, and how they are run.

A comment just before a block says what is otherwise: `<!-- not run: needs a hub -->` (one of REASONS),
`<!-- slow -->` (run with -m slow alone). A block with a title, ```yaml title="FILE", is that file.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(path.relative_to(ROOT).as_posix()
                                                 for path in (ROOT / "docs").rglob("*.md"))]
LANGUAGES = ("bash", "console", "python", "text", "yaml")
REASONS = ("needs a hub", "needs a GPU", "needs several machines", "minutes of training", "minutes of measuring",
           "an installation", "names files of yours", "these are the tests",
           "lines of a class")

_BLOCK = re.compile(r"(?: *<!-- (?P<mark>[^\n]*?) -->\n(?:[ \t]*\n)?)?^(?P<indent> *)```(?P<language>\w*)"
                    r"(?:[ {]*title=\"(?P<title>[^\"]*)\"[^\n]*)?[ \t]*\n"
                    r"(?P<code>.*?)^(?P=indent)```[ \t]*$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, the line of its first line of code, and what its comment says."""

    page: str
    line: int
    language: str
    code: str
    mark: str
    title: str = ""

    @property
    def why_not(self) -> str | None:
        return self.mark[len("not run: "):] if self.mark.startswith("not run: ") else None

    @property
    def is_slow(self) -> bool:
        return self.mark == "slow"

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


def read_blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [Block(page, text[:found.start("code")].count("\n") + 1, found["language"], textwrap.dedent(found["code"]),
                  found["mark"] or "", found["title"] or "") for found in _BLOCK.finditer(text)]


def commands(code: str) -> list[tuple[str, str]]:
    """The commands of a block that shows what they print, `$ command`, each with its output."""
    parts = re.split(r"^\$ ((?:.*\\\n)*.*)\n", code, flags=re.MULTILINE)
    assert not parts[0].strip(), f"output before the first command: {parts[0]!r}"
    return list(zip(parts[1::2], parts[2::2]))


def same_output(shown: str, printed: str) -> bool:
    """Whether a page shows what was printed; `...` stands for anything in a line, a line of `...` for any lines."""
    lines = (r"(?:.*\n)*?" if line == "..." else ".*?".join(map(re.escape, line.split("..."))) + r"\n"
             for line in shown.splitlines())
    return re.fullmatch("".join(lines), printed.rstrip("\n") + "\n" if printed else "") is not None
