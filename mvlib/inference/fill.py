"""Shards of an output folder through a model, into parts. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .folder import ResultFolder
from .inputs import as_input, batched
from .pipeline import Answer, Job
from .session import Session

__all__ = ["Part", "fill"]


class Part(Protocol):
    """A file of results that is written batch by batch."""

    def add(self, files: Sequence[str], output: Any) -> None: ...

    def close(self) -> None: ...


def fill(
    folder: ResultFolder, session: Session, compute: Callable[[np.ndarray], Any], open_part: Callable[[Path], Part]
) -> Iterator[Answer]:
    """Do the shards of a folder that are not done and that no other process is doing; yields what was answered."""
    jobs = (Job([as_input(name) for name in names], (shard, number * session.batch_size))
            for shard in folder.claim() for number, names in enumerate(batched(shard.files, session.batch_size)))
    with ExitStack() as stack:
        part, failures = None, []
        for answer in session.answers(jobs, compute):
            shard, first = answer.job.tag
            if part is None:
                failures = []
                part = open_part(stack.enter_context(folder.part(shard, failures)))
            if answer.read:
                part.add([shard.files[first + position] for position in answer.read], answer.output)
            failures += [(first + position, reason) for position, reason in answer.failures]
            if first + len(answer.job.files) == len(shard.files):
                part.close()
                stack.close()  # the part is there
                part = None
            yield answer
