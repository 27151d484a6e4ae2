"""Decoding beside the model, results in order, memory that does not grow with the number of images.

Two pools of threads. Readers decode one image each, straight into its place in a batch. Lanes take one whole batch
each through the model. On a CPU there are several lanes of one core instead of one of all cores: a lane waits for
nobody, while the cores of a shared operation wait for each other after every layer, and for whoever decodes. On two
cores that is the faster way with a quiet machine, and three times faster with a busy one.

Imports no torch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import BadImageError, NoAnswerError
from .inputs import Input

__all__ = ["NO_ANSWER", "Answer", "Job", "lanes_of", "run_pipeline"]

NO_ANSWER = "no answer: "  # begins the reasons of failures that are the model's, not the files'
_MAX_LANES = 8  # beyond it, lanes would wait for Python more than cores wait for each other

Read = Callable[[Any], np.ndarray]  # of an Input, or what stands for it
Compute = Callable[[np.ndarray], Any]
Allocate = Callable[[tuple[int, ...], type], np.ndarray]


@dataclass(frozen=True)
class Job:
    """Images of one batch, and whatever tells where they belong."""

    files: Sequence[Input]
    tag: Any = None


@dataclass(frozen=True)
class Answer:
    """What became of a job.

    Attributes:
        job: The job.
        read: Positions, in the job, of the images that could be read, and that the model has an answer for.
        output: What the model made of them; None if there were none.
        failures: (position, reason) of the others.
    """

    job: Job
    read: Sequence[int]
    output: Any
    failures: Sequence[tuple[int, str]] = ()


@dataclass
class _Batch:
    job: Job
    images: np.ndarray
    reads: list[Future] = field(default_factory=list)


def lanes_of(cores: int, count: int | None = None) -> tuple[int, int]:
    """How many batches go through a model on the CPU at once, and by how many of the cores each.

    Args:
        cores: In all.
        count: Images in all, if that is known: few have several cores each.
    """
    lanes = min(cores, _MAX_LANES, count or cores)
    return lanes, cores // lanes


def run_pipeline(
    jobs: Iterable[Job],
    read: Read,
    compute: Compute,
    *,
    image_shape: tuple[int, int, int],
    batch_size: int,
    workers: int,
    lanes: int = 1,
    allocate: Allocate = np.empty,
    warm_up: Callable[[], None] | None = None,
) -> Iterator[Answer]:
    """Take jobs through `read` and `compute`, in their order; no more than a few of them are in memory.

    Args:
        jobs: Of `batch_size` images at most; drawn as they are needed, in the caller's thread.
        read: File to uint8 pixels of `image_shape`, (height, width, channels); called from `workers` threads.
            BadImageError and OSError make a failure, anything else ends the run.
        compute: uint8 images (n, height, width, channels) to an answer that shares no memory with them; called from
            `lanes` threads. The images of a NoAnswerError are failures; the others are computed again without them.
        allocate: What gives the memory of a batch: (shape, type) -> array.
        warm_up: What the first `compute` would have to do, done while its images are read. What it raises is left to
            `compute` to raise.

    Raises:
        Whatever `jobs`, `read` and `compute` raise.
    """
    depth = lanes + 1 + -(-workers // batch_size)
    free = [allocate((batch_size, *image_shape), np.uint8) for _ in range(depth)]
    readers = ThreadPoolExecutor(workers, thread_name_prefix="mvlib-read")
    models = ThreadPoolExecutor(lanes, thread_name_prefix="mvlib-model")
    waiting: deque[tuple[_Batch, Future]] = deque()
    jobs = iter(jobs)
    try:
        if warm_up is not None:
            models.submit(warm_up)
        while True:
            while free and (job := next(jobs, None)) is not None:
                batch = _Batch(job, free.pop())
                batch.reads = [readers.submit(_place, read, path, slot) for path, slot in zip(job.files, batch.images)]
                waiting.append((batch, models.submit(_answer, batch, compute)))
            if not waiting:
                return
            batch, answer = waiting.popleft()
            result = answer.result()
            free.append(batch.images)
            yield result
    finally:  # of an error or an interrupt, too: nothing that has not begun is begun
        for pool in (readers, models):
            pool.shutdown(wait=False, cancel_futures=True)


def _place(read: Read, path: Input, slot: np.ndarray) -> str | None:
    """Read an image into its place in a batch; the reason if it cannot be read."""
    try:
        slot[...] = read(path)
    except (BadImageError, OSError) as error:
        return str(error).removeprefix(f"{path}: ")
    return None


def _answer(batch: _Batch, compute: Compute) -> Answer:
    reasons = [read.result() for read in batch.reads]
    good = [position for position, reason in enumerate(reasons) if reason is None]
    failures = [(position, reason) for position, reason in enumerate(reasons) if reason is not None]
    images = batch.images[:len(reasons)]
    while good:
        try:
            output = compute(images[good] if failures else images)
        except NoAnswerError as error:
            failures = sorted(failures + [(good[row], reason) for row, reason in error.rows.items()])
            good = [position for row, position in enumerate(good) if row not in error.rows]
        else:
            return Answer(batch.job, good, output, failures)
    return Answer(batch.job, good, None, failures)
