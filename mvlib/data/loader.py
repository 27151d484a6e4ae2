"""Batches of a data set: read by workers, normalised, erased and mixed on the device.

Every random draw is seeded by what it belongs to: the order by (seed, epoch), a sample's augmentation by (seed, epoch,
index, copy), mixing by (seed, epoch, batch number). So the batches are the same bits for any number of workers, and
from any batch on.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, default_collate

from ..errors import ConfigError, DataError
from .collate import fast_collate
from .constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from .mixup import Mixup
from .normalizer import Normalizer
from .random_erasing import TORCHVISION_ERASING, RandomErasing
from .randomness import sample_seed
from .samplers import BatchKeys, Epochs, OrderedSampler, RepeatAugSampler, ScheduledBatchKeys, ShuffledSampler
from .side_stream import SideStream
from .torch_loader import describe_loader
from .transform_factory import create_transform
from .workers import Batch, BatchReader, SampleReader, StreamBatches, end_with_parent, signals_held

__all__ = ["Loader", "create_loader"]

_logger = logging.getLogger("mvlib")

_DEAD_WORKER = re.compile(r"DataLoader worker \(pid")
_MIXING = 1  # sets the seeds of mixing apart from those of samples

T = TypeVar("T")


def create_loader(
    dataset: Any,
    input_size: int | tuple[int, ...],
    batch_size: int,
    is_training: bool = False,
    no_aug: bool = False,
    re_prob: float = 0.0,
    re_mode: str = "const",
    re_count: int = 1,
    re_split: bool = False,
    train_crop_mode: str | None = None,
    scale: tuple[float, float] | None = None,
    ratio: tuple[float, float] | None = None,
    hflip: float = 0.5,
    vflip: float = 0.0,
    color_jitter: float | tuple[float, ...] = 0.4,
    color_jitter_prob: float | None = None,
    grayscale_prob: float = 0.0,
    gaussian_blur_prob: float = 0.0,
    auto_augment: str | None = None,
    num_aug_repeats: float = 0,
    num_aug_splits: int = 0,
    interpolation: str = "bilinear",
    mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
    std: Sequence[float] = IMAGENET_DEFAULT_STD,
    num_workers: int = 1,
    distributed: bool = False,
    crop_pct: float | None = None,
    crop_mode: str | None = None,
    crop_border_pixels: int | None = None,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    pin_memory: bool | None = None,
    fp16: bool = False,
    img_dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    use_prefetcher: bool = True,
    use_multi_epochs_loader: bool = False,
    persistent_workers: bool = True,
    worker_seeding: str | Callable[[Any], int] = "all",
    tf_preprocessing: bool = False,
    input_size_choices: Sequence[int | tuple[int, ...]] | None = None,
    batch_size_choices: Sequence[int] | None = None,
    batch_choice_weights: Sequence[float] | None = None,
    batch_choice_seed: int = 0,
    batch_choice_schedule: str = "constant",
    batch_schedule_epochs: int | None = None,
    batch_schedule_spread: float = 0.65,
    batch_schedule_random_mix: float = 0.1,
    num_batches: int | None = None,
    *,
    seed: int = 42,
    max_bad: int = 50,
    mixup: Mixup | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    multiprocessing_context: Any = None,
    preprocessing: str = "timm",
    resize_size: int | Sequence[int] | None = None,
    antialias: bool = True,
    backend: str = "reference",
    decode: str = "full",
) -> Loader:
    """Set the transform of `dataset`, and give a loader of its batches. Arguments have timm's names and order.

    Those that are not listed go to `create_transform`.

    Args:
        dataset: Of images; its `transform` is replaced. `AugMixDataset` if `num_aug_splits`.
        batch_size: Samples a batch, of this process.
        is_training: Random order and augmentation, and no incomplete last batch; otherwise every sample once, in
            order.
        no_aug: Train without augmentation.
        re_prob, re_mode, re_count: Random erasing, see `RandomErasing`.
        re_split: Whether a part of the batch is not erased: the first split of `num_aug_splits`, otherwise the first
            half.
        num_aug_repeats: Copies of a sample in an epoch, see `RepeatAugSampler`.
        num_aug_splits: Splits of `AugMixDataset`.
        num_workers: Processes that read samples; 0 reads them in this one.
        distributed: Whether the samples are divided among the processes of torch.distributed.
        collate_fn: Makes a batch of a list of samples, in place of `fast_collate`. A `Mixup` is taken as `mixup`.
        pin_memory: Whether batches are read into page-locked memory; None where the device is CUDA.
        fp16: Short for `img_dtype=torch.float16`.
        img_dtype: Of the images given, None for float32.
        device: Of the batches given; None for CUDA where there is one, else CPU.
        use_prefetcher: Workers pass 8-bit images on, which are normalised and erased on the device. Otherwise the
            transform does that, and batches stay on the CPU.
        use_multi_epochs_loader, persistent_workers: Either keeps the workers from one epoch to the next.
        worker_seeding: Taken for timm's sake: samples are seeded one by one, whatever worker reads them.
        input_size_choices: Sizes of images, one of which is drawn for each batch; `batch_size_choices`, None for
            `batch_size`, go with them. What follows, to `num_batches`, see `ScheduledBatchKeys`.
        seed: Of everything random.
        max_bad: Unreadable samples in a row that are left out; one more stops the run.
        mixup: Applied to every batch, whose targets become (batch, num_classes).
        rank, world_size: Place in a distributed run, None to ask torch.distributed.
        multiprocessing_context: Way to start workers, such as "spawn"; None for the platform's.

    Raises:
        ConfigError: Arguments that contradict each other.
        DataError: The data set is empty.
    """
    is_stream = isinstance(dataset, IterableDataset)
    _check(dataset, is_training, num_aug_repeats=num_aug_repeats, num_aug_splits=num_aug_splits,
           input_size_choices=input_size_choices, batch_size_choices=batch_size_choices)
    if not callable(worker_seeding) and worker_seeding not in ("all", "part"):
        raise ConfigError(f"worker_seeding {worker_seeding!r} is none of 'all', 'part' and a function")
    if isinstance(collate_fn, Mixup):
        if mixup is not None:
            raise ConfigError("collate_fn and mixup are two Mixups; one is enough")
        collate_fn, mixup = None, collate_fn
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    channels = input_size[0] if isinstance(input_size, (tuple, list)) and len(input_size) == 3 else len(mean)
    sizes = [image_size(size, channels) for size in input_size_choices or ()]

    re_num_splits = (num_aug_splits or 2) if re_split else 0
    transforms = [create_transform(
        size, is_training=is_training, no_aug=no_aug, train_crop_mode=train_crop_mode, scale=scale, ratio=ratio,
        hflip=hflip, vflip=vflip, color_jitter=color_jitter, color_jitter_prob=color_jitter_prob,
        grayscale_prob=grayscale_prob, gaussian_blur_prob=gaussian_blur_prob, auto_augment=auto_augment,
        interpolation=interpolation, mean=mean, std=std, re_prob=re_prob, re_mode=re_mode, re_count=re_count,
        re_num_splits=re_num_splits, crop_pct=crop_pct, crop_mode=crop_mode, crop_border_pixels=crop_border_pixels,
        tf_preprocessing=tf_preprocessing, use_prefetcher=use_prefetcher, separate=num_aug_splits > 0,
        preprocessing=preprocessing, resize_size=resize_size, antialias=antialias, backend=backend,
        decode=decode) for size in sizes or [input_size]]
    erasing = normalize = None
    if use_prefetcher:
        normalize = Normalizer(mean, std, channels, device, torch.float16 if fp16 else img_dtype or torch.float32)
        if is_training and not no_aug and re_prob > 0:
            limits = TORCHVISION_ERASING if preprocessing == "torchvision" else {}
            erasing = RandomErasing(re_prob, mode=re_mode, max_count=re_count, num_splits=re_num_splits, device=device,
                                    **limits)
    collate = collate_fn or (fast_collate if use_prefetcher else default_collate)
    place = (world_size, rank) if distributed else (1, 0)
    if is_stream:
        reader: BatchReader = StreamBatches(dataset, batch_size, is_training, *place, collate=collate, seed=seed,
                                            transforms=transforms, erasing=erasing)
        batches: dict[str, Any] = {"batch_size": None}
    else:
        sampler = _sampler(dataset, is_training, num_aug_repeats, seed, *place)
        keys = BatchKeys(sampler, batch_size, drop_last=is_training) if not sizes else ScheduledBatchKeys(
            sampler, batch_size_choices or [batch_size] * len(sizes), batch_choice_weights, batch_choice_seed,
            num_batches, batch_choice_schedule, batch_schedule_epochs, batch_schedule_spread, batch_schedule_random_mix)
        if is_training and not len(keys):
            raise ConfigError(f"batch_size {batch_size} is larger than the {len(sampler)} samples of an epoch, "
                              "so that there would be no batch: give a smaller one")
        reader = SampleReader(dataset, keys, tries=min(max_bad + 1, len(dataset)) if is_training else 0,
                              collate=collate, seed=seed, transforms=transforms, erasing=erasing)
        batches = {"batch_sampler": keys}
    batches = DataLoader(
        reader, **batches, num_workers=num_workers, collate_fn=as_it_is,
        pin_memory=device.type == "cuda" if pin_memory is None else pin_memory,
        persistent_workers=num_workers > 0 and (persistent_workers or use_multi_epochs_loader),
        multiprocessing_context=multiprocessing_context if num_workers else None,
        worker_init_fn=end_with_parent if num_workers else None,
        generator=torch.Generator())  # its own, or it would draw from the training process's
    loader = Loader(batches, batch_size, device, normalize, mixup, max_bad)
    loader.input_sizes = sizes or [image_size(input_size, channels)]
    return loader


def _check(dataset: Any, is_training: bool, **special: Any) -> None:
    """Refuse arguments that contradict each other or the data set."""
    is_stream = isinstance(dataset, IterableDataset)
    if is_stream and not hasattr(dataset, "iterate"):
        raise ConfigError(f"{type(dataset).__name__} has no method iterate, by which a loader reads a stream "
                          "(see IterableImageDataset)")
    for name, value in special.items():
        if value and is_stream:
            raise ConfigError(f"{name}={value} needs a data set whose samples have numbers, and this one is a stream")
        if value and not is_training:
            raise ConfigError(f"{name}={value} needs is_training=True")
    splits, sizes, batch_sizes = (special[name] for name in ("num_aug_splits", "input_size_choices",
                                                             "batch_size_choices"))
    if splits and getattr(dataset, "num_splits", None) != splits:
        raise ConfigError(f"num_aug_splits={splits} needs AugMixDataset(dataset, num_splits={splits})")
    if splits and sizes:
        raise ConfigError("input_size_choices and num_aug_splits do not go together")
    if batch_sizes and len(batch_sizes) != len(sizes or ()):
        raise ConfigError(f"{len(batch_sizes)} batch_size_choices for {len(sizes or ())} input_size_choices")


def _sampler(dataset: Any, is_training: bool, num_aug_repeats: float, seed: int, world_size: int | None,
             rank: int | None) -> OrderedSampler | RepeatAugSampler | ShuffledSampler:
    if not is_training:
        return OrderedSampler(dataset, world_size, rank, seed=seed)
    if num_aug_repeats:
        return RepeatAugSampler(dataset, world_size, rank, num_repeats=num_aug_repeats, seed=seed)
    return ShuffledSampler(dataset, world_size, rank, seed=seed)


def image_size(size: int | tuple[int, ...], channels: int) -> tuple[int, ...]:
    """(channels, height, width) of one of `input_size_choices`."""
    full = (channels, size, size) if isinstance(size, int) else (channels, *size) if len(size) == 2 else tuple(size)
    if len(full) != 3 or full[0] != channels or min(full) < 1:
        raise ConfigError(f"input_size_choices {size} is not the size of an image of {channels} channels")
    return full


def as_it_is(batch: T) -> T:
    return batch


class Loader:
    """Iterates over the batches of an epoch: images and targets, on the device. Made by `create_loader`.

    Iterating again without `set_epoch` goes on to the next epoch in training.

    Attributes:
        sampler: Of the keys (epoch, index, copy) that this process reads; of a stream, its epochs.
        mixup: The `Mixup` that is applied, or None.
        input_sizes: Sizes (channels, height, width) of the images of a batch, as far as they are known.
    """

    input_sizes: Sequence[tuple[int, ...]] = ()

    def __init__(self, batches: DataLoader, batch_size: int, device: torch.device,
                 normalize: Normalizer | None = None, mixup: Mixup | None = None, max_bad: int = 50) -> None:
        self._batches = batches
        self._reader: BatchReader = batches.dataset
        self.sampler: Epochs = self._reader.epochs
        self.dataset = self._reader.dataset
        self.batch_size = batch_size
        self.device = device
        self.mixup = mixup
        self.max_bad = max_bad
        self._normalize = normalize
        self._side = SideStream(device, enabled=normalize is not None)
        self._bad: dict[str, str] = {}
        self._warned: set[str] = set()
        self._bad_run = 0

    def __len__(self) -> int:
        """Batches of a whole epoch. TypeError for a stream whose length is not known."""
        return self._reader.batches()

    def __repr__(self) -> str:
        """How many batches of what size, by how many workers, and of what."""
        sizes = {"input_size": " or ".join(map(str, self.input_sizes))} if self.input_sizes else {}
        return describe_loader(self, self._batches, [self.mixup] if self.mixup is not None else [],
                               batch_size=self.batch_size, **sizes, device=self.device)

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Say which epoch comes next, and from which batch on: those before it are not read."""
        self.sampler.set_epoch(epoch, start_batch)

    @property
    def bad_samples(self) -> list[tuple[str, str]]:
        """(name, reason) of the samples of this epoch that could not be read, so far, sorted."""
        return sorted(self._bad.items())

    @property
    def mixup_enabled(self) -> bool:
        return self.mixup is not None and self.mixup.mixup_enabled

    @mixup_enabled.setter
    def mixup_enabled(self, enabled: bool) -> None:
        if self.mixup is not None:
            self.mixup.mixup_enabled = enabled

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        epoch, start = self._reader.begin()
        self._bad, self._bad_run = {}, 0
        with signals_held(self._batches.multiprocessing_context) if self._batches.num_workers else \
                contextlib.nullcontext():
            batches = iter(self._batches)
        return _watched(self._iterate(batches, epoch, start))

    def _iterate(self, batches: Iterator[Batch], epoch: int, start: int) -> Iterator[tuple[Any, Any]]:
        def prepare(numbered: tuple[int, Batch]) -> Any:
            number, batch = numbered
            if batch.data is None:
                return None
            on_cpu = not self._side.is_active
            with _one_thread() if on_cpu and self._batches.num_workers else contextlib.nullcontext():
                return self._finish(batch, epoch, number)

        nothing = True
        for (_, batch), data in self._side.ahead(enumerate(batches, start), prepare):
            self._note(batch)
            if data is not None:
                nothing = False
                yield data
        if nothing and not start:
            if self._bad:
                self._give_up(f"none of {len(self._bad)} samples can be read")
            if self.sampler.advance:  # training; a rank may have nothing to evaluate
                name = getattr(self.dataset, "name", None) or type(self.dataset).__name__
                raise DataError(f"the data set {name} has no {self.batch_size} samples for one batch")

    def _finish(self, batch: Batch, epoch: int, number: int) -> Any:
        if self._normalize is None and self.mixup is None:
            return batch.data
        images, targets = batch.data
        if self._normalize is not None:
            images = self._normalize(images.to(self.device, non_blocking=True))
            targets = targets.to(self.device, non_blocking=True)
        if self.mixup is not None and self.mixup.before_erasing:
            images, targets = self._mix(images, targets, epoch, number)
        for image, boxes in zip(images, batch.boxes):
            if boxes:
                self._reader.erasing.erase_(image, boxes)
        if self.mixup is not None and not self.mixup.before_erasing:
            images, targets = self._mix(images, targets, epoch, number)
        return images, targets

    def _mix(self, images: Tensor, targets: Tensor, epoch: int, number: int) -> tuple[Tensor, Tensor]:
        seed = sample_seed(self._reader.seed, epoch, number, self.sampler.rank, _MIXING)
        return self.mixup(images, targets, np.random.RandomState([seed & 0xFFFFFFFF, seed >> 32]))

    def _note(self, batch: Batch) -> None:
        """Keep, and warn of, what a batch could not read."""
        last = -1
        for attempt, name, reason in batch.bad:
            self._bad_run = self._bad_run + 1 if attempt == last + 1 else 1
            last = attempt
            self._bad.pop(name, None)  # so that the last is the last
            self._bad[name] = reason
            if name not in self._warned:
                self._warned.add(name)
                _logger.warning("left out an unreadable sample: %s: %s", name, reason)
            if self._bad_run > self.max_bad:
                self._give_up(f"{self._bad_run} unreadable samples in a row")
        if last + 1 < batch.attempts:
            self._bad_run = 0
        if batch.is_last_resort:
            self._give_up(f"none of {len(self._bad)} samples can be read")

    def _give_up(self, what: str) -> None:
        name, reason = list(self._bad.items())[-1]
        raise DataError(f"{what}, the last: {name}: {reason}")


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one core: the others belong to the workers, and idle threads of torch's spin on them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _watched(batches: Iterator[T]) -> Iterator[T]:
    """The same batches; says what may help when a worker dies."""
    try:
        yield from batches
    except RuntimeError as error:
        if not _DEAD_WORKER.search(str(error)):
            raise
        raise DataError(f"a worker that reads the data died: {error}. If it was killed, memory may be short: try fewer "
                        "workers (--workers), or more shared memory (/dev/shm; docker run --shm-size=...)") from error
