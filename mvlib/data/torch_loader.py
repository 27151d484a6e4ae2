"""torch's DataLoader, and what timm lays around it: for code that takes a loader apart.

Samples come in the order, and with the draws, that torch's seeds and workers give them. `loader.create_loader` makes
loaders whose batches depend on neither, and that can go on within an epoch.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, default_collate, get_worker_info
from torch.utils.data.distributed import DistributedSampler

from ..errors import ConfigError
from .collate import fast_collate
from .constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from .mixup import FastCollateMixup
from .normalizer import Normalizer
from .random_erasing import RandomErasing
from .samplers import OrderedDistributedSampler, RepeatAugSampler
from .side_stream import SideStream

__all__ = ["MultiEpochsDataLoader", "PrefetchLoader", "create_torch_loader"]


def create_torch_loader(
    dataset: Any,
    batch_size: int,
    is_training: bool = False,
    use_prefetcher: bool = True,
    num_aug_repeats: float = 0,
    num_workers: int = 1,
    distributed: bool = False,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    pin_memory: bool = False,
    use_multi_epochs_loader: bool = False,
    persistent_workers: bool = True,
    worker_seeding: str | Callable[[Any], int] = "all",
    make_batch_sampler: Callable[[Any], Any] | None = None,
) -> DataLoader[Any]:
    """A DataLoader as timm makes one: shuffled and in whole batches for training, otherwise every sample in order.

    Args:
        use_prefetcher: Whether batches are of 8-bit images, for a `PrefetchLoader`.
        distributed: Whether the samples are divided among the processes of torch.distributed; those of evaluation are
            filled up to equal shares.
        worker_seeding: "all" seeds numpy's generator of a worker, beside Python's and torch's; "part" leaves it to
            torch; a function of the worker's info gives one seed for all.
        make_batch_sampler: Makes a `batch_sampler` of the sampler.

    The others are those of `create_loader`.

    Raises:
        ConfigError: Arguments that contradict each other or the data set.
    """
    if not callable(worker_seeding) and worker_seeding not in ("all", "part"):
        raise ConfigError(f"worker_seeding {worker_seeding!r} is none of 'all', 'part' and a function")
    is_stream = isinstance(dataset, IterableDataset)
    if num_aug_repeats and (is_stream or not is_training):
        raise ConfigError(f"num_aug_repeats={num_aug_repeats} needs is_training=True, and samples that have numbers")
    if hasattr(dataset, "set_loader_cfg"):
        dataset.set_loader_cfg(num_workers=num_workers, batch_size=batch_size)
    sampler: Any = None
    if num_aug_repeats:
        sampler = RepeatAugSampler(dataset, num_repeats=num_aug_repeats)
    elif distributed and not is_stream:
        sampler = DistributedSampler(dataset) if is_training else OrderedDistributedSampler(dataset)
    batches: dict[str, Any] = {"batch_size": batch_size, "sampler": sampler, "drop_last": is_training,
                               "shuffle": is_training and not is_stream and sampler is None}
    if make_batch_sampler is not None:
        batches = {"batch_sampler": make_batch_sampler(sampler or RandomSampler(dataset))}
    kind = _StreamLoader if is_stream else MultiEpochsDataLoader if use_multi_epochs_loader else DataLoader
    return kind(dataset, **batches, num_workers=num_workers, pin_memory=pin_memory,
                collate_fn=collate_fn or (fast_collate if use_prefetcher else default_collate),
                persistent_workers=persistent_workers and num_workers > 0,
                worker_init_fn=partial(seed_worker, worker_seeding=worker_seeding))


def seed_worker(worker_id: int, worker_seeding: str | Callable[[Any], int]) -> None:
    info: Any = get_worker_info()
    if callable(worker_seeding):
        seed = worker_seeding(info)
        random.seed(seed)
        torch.manual_seed(seed)
    elif worker_seeding == "part":
        return
    else:
        seed = info.seed
    np.random.seed(seed % (2 ** 32 - 1))


def describe_loader(loader: Any, batches: DataLoader[Any], parts: Sequence[Any] = (), **facts: Any) -> str:
    """How a loader of ours is shown: its length, `facts` and workers in one line, its data set and other parts in one
    each."""
    try:
        count = f"{len(loader)} batches"
    except TypeError:  # of a stream
        count = "a stream of batches"
    known = ", ".join(f"{name}={value}" for name, value in {**facts, "num_workers": batches.num_workers}.items())
    lines = ",".join(f"\n    {part}" for part in (loader.dataset, *parts))
    return f"{type(loader).__name__}({count}, {known},{lines})"


class MultiEpochsDataLoader(DataLoader[Any]):
    """A DataLoader whose workers live on from one epoch to the next."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "persistent_workers": kwargs.get("num_workers", 0) > 0})


class _StreamLoader(DataLoader[Any]):
    """Of a stream, whose length is that of all processes together."""

    def __len__(self) -> int:
        dataset: Any = self.dataset
        ranks, batch_size = getattr(dataset, "num_replicas", 1), self.batch_size or 1
        if self.drop_last:
            return len(dataset) // ranks // batch_size
        return math.ceil(len(range(getattr(dataset, "rank", 0), len(dataset), ranks)) / batch_size)


class DeviceLoader:
    """Batches of `loader`, each as `_prepare` moves it to `device`, on CUDA while the one before is worked with.

    To be derived from.
    """

    def __init__(self, loader: DataLoader[Any], device: str | torch.device | None) -> None:
        self.loader = loader
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._side = SideStream(self.device)

    def __iter__(self) -> Iterator[Any]:
        return (prepared for _, prepared in self._side.ahead(self.loader, self._prepare))

    def _prepare(self, batch: Any) -> Any:
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.loader)

    def __repr__(self) -> str:
        return describe_loader(self, self.loader, batch_size=self.loader.batch_size, device=self.device)

    @property
    def sampler(self) -> Any:
        return self.loader.sampler

    @property
    def batch_sampler(self) -> Any:
        return self.loader.batch_sampler

    @property
    def dataset(self) -> Any:
        return self.loader.dataset


class PrefetchLoader(DeviceLoader):
    """Batches of 8-bit images from `loader`, moved to the device, normalised and erased there.

    On CUDA each is made ready while the one before is worked with.

    Args:
        loader: Gives (images, targets).
        mean, std: One value a channel, of intensities in [0, 1].
        channels: Of the images.
        device: Of the batches given; None for CUDA where there is one, else CPU.
        img_dtype: Of the images given, None for float32.
        fp16: Short for `img_dtype=torch.float16`.
        re_prob, re_mode, re_count, re_num_splits: Of `RandomErasing`.
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
        std: Sequence[float] = IMAGENET_DEFAULT_STD,
        channels: int = 3,
        device: str | torch.device | None = None,
        img_dtype: torch.dtype | None = None,
        fp16: bool = False,
        re_prob: float = 0.0,
        re_mode: str = "const",
        re_count: int = 1,
        re_num_splits: int = 0,
    ) -> None:
        super().__init__(loader, device)
        self.img_dtype = torch.float16 if fp16 else img_dtype or torch.float32
        self._normalize = Normalizer(mean, std, channels, self.device, self.img_dtype)
        self.mean, self.std = (values.view(1, -1, 1, 1) for values in (self._normalize.mean, self._normalize.std))
        self.random_erasing: RandomErasing | None = None
        if re_prob > 0:
            self.random_erasing = RandomErasing(re_prob, mode=re_mode, max_count=re_count, num_splits=re_num_splits,
                                                device=self.device)

    def _prepare(self, batch: Any) -> tuple[Tensor, Tensor]:
        images, targets = batch
        images = self._normalize(images.to(self.device, non_blocking=True))
        if self.random_erasing is not None:
            images = self.random_erasing(images)
        return images, targets.to(self.device, non_blocking=True)

    @property
    def mixup_enabled(self) -> bool:
        """Whether batches are mixed by a `FastCollateMixup`; can be set."""
        mixup = self.loader.collate_fn
        return isinstance(mixup, FastCollateMixup) and mixup.mixup_enabled

    @mixup_enabled.setter
    def mixup_enabled(self, enabled: bool) -> None:
        if isinstance(self.loader.collate_fn, FastCollateMixup):
            self.loader.collate_fn.mixup_enabled = enabled
