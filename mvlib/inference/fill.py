"""Shards of an output folder through a model, into parts. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .folder import ResultFolder, Shard
from .inputs import as_input, batched
from .parts import read_rows
from .pipeline import Answer, Job
from .session import Session

__all__ = ["Part", "fill", "read_again"]


class Part(Protocol):
    """A file of results that is written batch by batch."""

    def add(self, files: Sequence[str], output: Any) -> None: ...

    def close(self) -> None: ...


def fill(
    folder: ResultFolder, session: Session, compute: Callable[[np.ndarray], Any], open_part: Callable[[Path], Part]
) -> Iterator[Answer]:
    """Do the shards of a folder that are to be done and that no other process is doing; yields what was answered."""
    jobs = (Job([as_input(shard.files[position]) for position in positions], (shard, positions))
            for shard in folder.claim() for positions in batched(shard.to_do, session.batch_size))
    with ExitStack() as stack:
        part, failures = None, []
        for answer in session.answers(jobs, compute):
            shard, positions = answer.job.tag
            if part is None:
                failures = list(shard.failures)
                part = _Rows(open_part(stack.enter_context(folder.part(shard, failures))), shard,
                             folder.part_of(shard.number))
            if answer.read:
                part.add([positions[place] for place in answer.read], answer.output)
            failures += [(positions[place], reason) for place, reason in answer.failures]
            if positions[-1] == shard.to_do[-1]:
                part.close()
                stack.close()  # the part is there
                part = None
            yield answer


class _Rows:
    """A part with the rows of images that are done and, in their places, those that an older part has of others."""

    def __init__(self, part: Part, shard: Shard, older: Path) -> None:
        self.part, self.shard = part, shard
        left_out = {*shard.to_do, *(position for position, _ in shard.failures)}
        kept = (position for position in range(len(shard.files)) if position not in left_out)
        self.older = zip(kept, read_rows(older)) if shard.again is not None else iter(())
        self.next = next(self.older, None)

    def add(self, positions: Sequence[int], output: Any) -> None:
        if self.shard.again is None:
            self.part.add([self.shard.files[position] for position in positions], output)
            return
        for number, position in enumerate(positions):
            self._catch_up(position)
            self.part.add([self.shard.files[position]], output[number:number + 1])

    def _catch_up(self, end: int) -> None:
        while self.next is not None and self.next[0] < end:
            position, row = self.next
            self.part.add([self.shard.files[position]], row)
            self.next = next(self.older, None)

    def close(self) -> None:
        self._catch_up(len(self.shard.files))
        self.part.close()


def read_again(
    session: Session, failures: Sequence[Mapping[str, Any]]
) -> tuple[list[Mapping[str, Any]], dict[int, str]]:
    """Try to read what could not be read.

    Args:
        session: What reads.
        failures: Of `ResultFolder.failures`.

    Returns:
        Those of them that can be read now; and for the others {index: reason}, for it may be another one.
    """
    jobs = (Job([as_input(failure["file"]) for failure in batch], batch)
            for batch in batched(failures, session.batch_size))
    readable: list[Mapping[str, Any]] = []
    reasons: dict[int, str] = {}
    for answer in session.answers(jobs, len) if failures else ():
        readable += [answer.job.tag[place] for place in answer.read]
        reasons.update((answer.job.tag[place]["index"], reason) for place, reason in answer.failures)
    return readable, reasons
