"""What worker processes do: they read the samples of a batch, and put up with those that cannot be read."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import groupby
from multiprocessing import forkserver
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from ..errors import BadImageError, ConfigError
from .random_erasing import RandomErasing
from .randomness import reseed, sample_seed, seeded
from .samplers import BatchKeys, Epochs, Key

__all__ = ["BadSample", "Batch", "BatchReader", "SampleReader", "StreamBatches", "end_with_parent", "signals_held"]

Sample = tuple[Any, ...]
Candidate = tuple[Callable[[], Sample], Callable[[], str]]  # reads a sample, and says its name
Request = tuple[int, Iterable[Candidate]]  # seed of a place in the batch, and what may fill it

_LOOK_FOR_PARENT = 1.0  # seconds


@contextlib.contextmanager
def signals_held(context: Any = None) -> Iterator[None]:
    """Start workers (of a multiprocessing context) within: SIGTERM and SIGINT reach none of them.

    Both often go to the whole process group (a terminal, timeout, SLURM, systemd, torchrun). What they end is the main
    process's business, which gets them when all are started, and needs its workers meanwhile.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    if (context or multiprocessing).get_start_method() == "forkserver":
        forkserver.ensure_running()  # not within: it may start what is not ours
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent(worker: int) -> None:
    """In a worker: leave SIGINT, and SIGTERM of others than the parent; end when the parent asks, or is no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not hasattr(signal, "sigtimedwait"):  # macOS does not tell who sent a signal: the parent's has to work
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # of a fork server's children, not yet
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # in threads that do not block it; a blocked one can be waited for
    threading.Thread(target=_wait_for_end, args=(os.getppid(),), daemon=True).start()


def _wait_for_end(parent: int) -> None:
    asks = multiprocessing.parent_process().pid  # of a fork server's children, not the parent that the system knows
    while os.getppid() == parent:
        sent = signal.sigtimedwait({signal.SIGTERM}, _LOOK_FOR_PARENT)
        if sent is not None and sent.si_pid == asks:
            break
    os._exit(0)


class BadSample(NamedTuple):
    """A sample that cannot be read, and the how-manieth attempt of its batch it was."""

    attempt: int
    name: str
    reason: str


class Batch(NamedTuple):
    """What a worker hands over.

    Attributes:
        data: What collating gave, None if not one sample can be read.
        boxes: Of each image, what `RandomErasing.draw` gave.
        bad: In the order in which they were met.
        attempts: To read a sample.
        is_last_resort: Whether there is no sample left to try, in this batch or another.
    """

    data: Any
    boxes: list[Any]
    bad: list[BadSample]
    attempts: int
    is_last_resort: bool = False


class BatchReader:
    """What both kinds of data sets share.

    Args:
        dataset: Of images.
        epochs: Says which epoch is read, from which batch on, and by which rank.
        transforms: One for each choice that a batch may name; the first one is the data set's to begin with.
        collate: Makes a batch of a list of samples.
        seed: Of the samples' augmentation.
        erasing: Draws boxes, which are erased on the device.
    """

    def __init__(self, dataset: Any, epochs: Epochs, transforms: Sequence[Any], collate: Callable[[list[Any]], Any],
                 seed: int, erasing: RandomErasing | None = None) -> None:
        self.dataset = dataset
        self.epochs = epochs
        self.transforms = transforms
        self.collate = collate
        self.seed = seed
        self.erasing = erasing
        _set_transform(dataset, transforms[0])
        # Our data sets say what is unreadable; of others, any error that a decoder raises may mean it.
        own = any(hasattr(part, name) for part in (dataset, getattr(dataset, "dataset", None))
                  for name in ("load", "iterate"))
        self.unreadable = (BadImageError,) if own else (BadImageError, OSError, ValueError, SyntaxError)

    def batches(self) -> int:
        """Batches of a whole epoch."""
        raise NotImplementedError

    def begin(self) -> tuple[int, int]:
        """Called in the main process when an epoch is iterated over; gives the epoch and its first batch."""
        return self.epochs.begin()

    def _read(self, requests: Iterable[Request], replace: bool) -> Batch:
        """Fill each place with the first of its candidates that can be read; without `replace` try but one."""
        # A worker's own states are nobody's; in the main process, training goes on with them.
        with seeded(0) if get_worker_info() is None else nullcontext():
            return self._fill(requests, replace)

    def _fill(self, requests: Iterable[Request], replace: bool) -> Batch:
        samples, boxes, bad, attempts = [], [], [], 0
        for seed, candidates in requests:
            for read, name in candidates:
                attempts += 1
                try:
                    reseed(seed)
                    sample = read()
                except self.unreadable as error:
                    if isinstance(error, ConfigError):
                        raise
                    bad.append(_describe(attempts - 1, name(), error))
                else:
                    samples.append(sample)
                    boxes.append(self._draw_boxes(sample[0]))
                    break
            else:
                if replace:
                    return Batch(None, [], bad, attempts)
        return Batch(self.collate(samples) if samples else None, self._arrange(boxes), bad, attempts)

    def _draw_boxes(self, image: Any) -> list[Any]:
        """Boxes to erase, of each split of an image."""
        if self.erasing is None:
            return []
        splits = image if isinstance(image, (tuple, list)) else (image,)
        return [self.erasing.draw(*split.shape[-2:]) for split in splits]

    def _arrange(self, boxes: list[list[Any]]) -> list[Any]:
        """In the order of the batch: all samples' first splits, then all second ones; the clean share has none."""
        rows = [row for split in zip(*boxes) for row in split]
        splits = self.erasing.num_splits if self.erasing is not None else 0
        clean = len(rows) // splits if splits > 1 else 0
        return [[]] * clean + rows[clean:]


def _set_transform(dataset: Any, transform: Any) -> None:
    """Set the transform of the data set that has one, within those that wrap it (torch's Subset)."""
    while not hasattr(dataset, "transform") and hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    dataset.transform = transform


def _describe(attempt: int, name: str, error: Exception) -> BadSample:
    reason = " ".join(str(error).split()) or type(error).__name__
    head, colon, tail = reason.partition(": ")  # ours begin with the name, maybe with the folder
    return BadSample(attempt, name, tail if colon and head.endswith(name) else reason)


class SampleReader(BatchReader, Dataset):
    """A data set whose samples have numbers, as the workers see it: keys of a batch in, `Batch` out.

    Args:
        keys: Of the batches.
        tries: Samples to try until one can be read, beginning with the one asked for; 0 leaves it out.
        options: Of `BatchReader`.
    """

    def __init__(self, dataset: Any, keys: BatchKeys, tries: int, **options: Any) -> None:
        super().__init__(dataset, keys.sampler, **options)
        self.keys = keys
        self.tries = tries

    def __len__(self) -> int:
        return len(self.dataset)

    def batches(self) -> int:
        return len(self.keys)

    def __getitems__(self, keys: list[Key] | tuple[int, list[Key]]) -> Batch:
        if isinstance(keys, tuple):
            choice, keys = keys
            _set_transform(self.dataset, self.transforms[choice])
        requests = ((sample_seed(self.seed, *key), self._candidates(key[1])) for key in keys)
        batch = self._read(requests, replace=self.tries > 0)
        return batch._replace(is_last_resort=batch.data is None and self.tries > 0)

    def _candidates(self, index: int) -> Iterator[Candidate]:
        for number in range(index, index + max(self.tries, 1)):
            number %= len(self)
            yield (lambda number=number: self.dataset[number]), (lambda number=number: self._name(number))

    def _name(self, index: int) -> str:
        try:
            return str(self.dataset.filename(index))
        except Exception:  # data sets of others have no such method, or one that cannot be called
            return f"sample {index}"


class StreamBatches(BatchReader, IterableDataset):
    """A data set that is a stream, as the workers see it: `Batch` after `Batch` of those that are a worker's own.

    In training a sample that cannot be read is replaced by the next one of its batch.

    Args:
        dataset: `IterableImageDataset`, or another with its method `iterate`.
        batch_size, is_training: As of `create_loader`.
        num_replicas, rank: Place in a distributed run, None to ask torch.distributed.
        options: Of `BatchReader`.
    """

    def __init__(self, dataset: Any, batch_size: int, is_training: bool, num_replicas: int | None = None,
                 rank: int | None = None, **options: Any) -> None:
        super().__init__(dataset, Epochs(num_replicas, rank, advance=is_training), **options)
        self.batch_size = batch_size
        self.is_training = is_training
        self.place = torch.zeros(2, dtype=torch.int64).share_memory_()  # what workers that live on begin next

    def batches(self) -> int:
        total, rank, ranks = len(self.dataset), self.epochs.rank, self.epochs.num_replicas
        if self.is_training:
            return total // ranks // self.batch_size
        return math.ceil(len(range(rank, total, ranks)) / self.batch_size)

    def begin(self) -> tuple[int, int]:
        epoch, start = super().begin()
        self.place.copy_(torch.tensor((epoch, start)))
        return epoch, start

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        number, count = (0, 1) if info is None else (info.id, info.num_workers)
        epoch, start = self.place.tolist()
        ranks = self.epochs.num_replicas
        # The first batch is asked of worker 0, whichever its number is.
        samples = self.dataset.iterate(epoch, (number + start) % count, count, self.batch_size, self.epochs.rank,
                                       ranks, start)
        for _, group in groupby(samples, key=lambda sample: sample[0][1] // ranks // self.batch_size):
            batch = list(group)
            if len(batch) == self.batch_size or not self.is_training:
                yield self._read(self._requests(batch), replace=self.is_training)

    def _requests(self, batch: list[tuple[Key, Any]]) -> Iterator[Request]:
        candidates = [(read, lambda read=read: read.name) for _, read in batch]
        tries = len(batch) if self.is_training else 1
        for place, (key, _) in enumerate(batch):
            yield sample_seed(self.seed, *key), (candidates[(place + step) % len(batch)] for step in range(tries))
