"""The line that ends a run whose results go to a file: how many, how fast, what was skipped, where. No torch."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..inference.folder import ResultFolder
    from ..inference.pipeline import Answer

__all__ = ["Tally"]


class Tally:
    """Counts what is done, from when it is made.

    Args:
        unit: What is counted; of images it says how many a second.
        before: How many were done by an earlier run.
        left: How many there are to do, where that is known.

    Attributes:
        done: How many have results.
        skipped: How many could not be read.
    """

    def __init__(self, unit: str = "image", before: int = 0, left: int | None = None) -> None:
        self.unit, self.before, self.left = unit, before, left
        self.done = self.skipped = 0
        self._started = time.perf_counter()

    @classmethod
    def of_folder(cls, folder: ResultFolder) -> Tally:
        """Of what is left to do in a folder of results."""
        left = folder.images_to_do()
        return cls(before=folder.image_count - left, left=left)

    def add(self, answer: Answer) -> None:
        """Count a batch."""
        self.done += len(answer.read)
        self.skipped += len(answer.failures)

    def report(self, path: str | os.PathLike[str]) -> None:
        """Say on standard error what has become of it, and that it is at `path`."""
        print(f"mvlib: {self.line(path, time.perf_counter() - self._started)}", file=sys.stderr)

    def line(self, path: str | os.PathLike[str], seconds: float) -> str:
        """The same, of a run of so many seconds."""
        if self.before and self.left == 0:
            return f"{os.fspath(path)} is complete already"
        text = f"{self._count(self.done)} in {_duration(seconds)}"
        if self.done and seconds > 0 and self.unit == "image":
            rate = self.done / seconds
            text += f" ({rate:,.0f} a second)" if rate >= 10 else f" ({rate:.2g} a second)"
        text += f", {self.skipped:,} skipped" if self.skipped else ""
        text += f", {self.before:,} done before" if self.before else ""
        return f"{text}: {os.fspath(path)}"

    def _count(self, count: int) -> str:
        return f"{count:,} {self.unit}{'' if count == 1 else 's'}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"
