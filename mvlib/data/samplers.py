"""Which samples an epoch reads, in which order, and by which process of a distributed run.

A sampler yields indices, as torch's do; its `keys` are (epoch, index, copy), from which our loader seeds a sample's
augmentation. `copy` counts the times that a sample has stood in the epoch before, so that its copies are augmented
differently.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence, Sized
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from ..errors import ConfigError, DataError
from .randomness import sample_seed

__all__ = [
    "BatchKeys", "Key", "OrderedDistributedSampler", "OrderedSampler", "RepeatAugSampler", "ScheduledBatchKeys",
    "ScheduledBatchSampler", "ScheduledTransformDataset", "ShuffledSampler", "process_place",
]

Key = tuple[int, int, int]


def process_place(num_replicas: int | None = None, rank: int | None = None) -> tuple[int, int]:
    """(number of processes, number of this one); what is None comes from torch.distributed, 1 and 0 without it.

    Raises:
        ConfigError: `rank` is not one of `num_replicas`.
    """
    running = dist.is_available() and dist.is_initialized()
    if num_replicas is None:
        num_replicas = dist.get_world_size() if running else 1
    if rank is None:
        rank = dist.get_rank() if running else 0
    if not 0 <= rank < num_replicas:
        raise ConfigError(f"rank {rank} is none of {num_replicas} processes, which are counted from 0")
    return num_replicas, rank


class Epochs:
    """Which epoch is read next, from which batch on, and by which process.

    Args:
        num_replicas, rank: See `process_place`.
        advance: Whether an epoch that is read again is the next one.
    """

    def __init__(self, num_replicas: int | None = None, rank: int | None = None, advance: bool = True) -> None:
        self.num_replicas, self.rank = process_place(num_replicas, rank)
        self.advance = advance
        self.set_epoch(0)

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Say which epoch comes next, and how many of its batches are left out."""
        self.epoch = epoch
        self.start_batch = start_batch
        self._begun = False

    def begin(self) -> tuple[int, int]:
        """The epoch that is read now, and its first batch; what was set serves once."""
        if self._begun:
            self.set_epoch(self.epoch + self.advance)
        self._begun = True
        return self.epoch, self.start_batch


class _KeySampler(Epochs, Sampler[int]):
    """What the samplers share; each says in `order` what its rank reads."""

    def __init__(self, dataset: Sized, num_replicas: int | None = None, rank: int | None = None, *,
                 seed: int | None = 42, advance: bool = True) -> None:
        super().__init__(num_replicas, rank, advance)
        self.length = len(dataset)
        if not self.length:
            raise DataError(f"the data set {getattr(dataset, 'name', None) or type(dataset).__name__} is empty")
        self.seed = seed

    def order(self) -> tuple[Tensor, Tensor]:
        """Indices and copies, both of `len(self)`, that this rank reads in `self.epoch`."""
        raise NotImplementedError

    def _positions(self) -> Tensor:
        """Where this rank reads in the order that all ranks share: every n-th place."""
        return torch.arange(len(self)) * self.num_replicas + self.rank

    def __iter__(self) -> Iterator[int]:
        return iter(self.order()[0].tolist())

    def keys(self) -> list[Key]:
        indices, copies = self.order()
        return [(self.epoch, *key) for key in zip(indices.tolist(), copies.tolist())]

    def _permutation(self) -> Tensor:
        seed = self.epoch if self.seed is None else sample_seed(self.seed, self.epoch) >> 1
        generator = torch.Generator().manual_seed(seed)
        return torch.randperm(self.length, generator=generator)


class ShuffledSampler(_KeySampler):
    """Every sample once, shuffled by (seed, epoch); of several processes, each takes every n-th of the same order.

    So the batches of all ranks together hold what one process would read in a batch as large as all of them. Where
    the processes do not divide the samples, the order starts anew to fill up, as in torch's DistributedSampler.
    """

    def __len__(self) -> int:
        return math.ceil(self.length / self.num_replicas)

    def order(self) -> tuple[Tensor, Tensor]:
        positions = self._positions()
        return self._permutation()[positions % self.length], positions // self.length


class OrderedSampler(_KeySampler):
    """Samples in their order, for evaluation: each is read by exactly one process.

    timm's OrderedDistributedSampler reads some twice to give all processes as many; here some have one less.
    """

    def __init__(self, dataset: Sized, num_replicas: int | None = None, rank: int | None = None, *,
                 seed: int = 42) -> None:
        super().__init__(dataset, num_replicas, rank, seed=seed, advance=False)  # every evaluation is the same

    def __len__(self) -> int:
        return len(range(self.rank, self.length, self.num_replicas))

    def order(self) -> tuple[Tensor, Tensor]:
        indices = self._positions()
        return indices, torch.zeros_like(indices)


class OrderedDistributedSampler(OrderedSampler):
    """Samples in their order, and the first ones again, so that all processes have as many: timm's for evaluation.

    Attributes:
        num_valid_samples: Of this process, without those that were read elsewhere already.
    """

    def __len__(self) -> int:
        return math.ceil(self.length / self.num_replicas)

    @property
    def num_samples(self) -> int:
        return len(self)

    @property
    def total_size(self) -> int:
        return len(self) * self.num_replicas

    @property
    def num_valid_samples(self) -> int:
        return super().__len__()

    def order(self) -> tuple[Tensor, Tensor]:
        positions = self._positions()
        return positions % self.length, positions // self.length


class RepeatAugSampler(_KeySampler):
    """Repeated augmentation (Hoffer et al. 2020, arXiv:1901.09335), as DeiT (arXiv:2012.12877), torchvision and timm
    do it: in the shuffled order each sample stands `num_repeats` times in a row, so that the copies go to different
    processes, and the epoch ends when about as many were read as there are samples.

    Args:
        num_repeats: Copies of a sample; 1.5 is every second sample twice.
        selected_round: The epoch's length is rounded down to a multiple of this, unless there are fewer samples; 0
            for no rounding.
        selected_ratio: The epoch's length is divided by this among the processes; 0 for their number.
        seed: Of the order; None for timm's, which depends on the epoch alone.

    Raises:
        ConfigError: `num_repeats` is below 1.
    """

    def __init__(self, dataset: Sized, num_replicas: int | None = None, rank: int | None = None, shuffle: bool = True,
                 num_repeats: float = 3, selected_round: int = 256, selected_ratio: float = 0, *,
                 seed: int | None = None) -> None:
        super().__init__(dataset, num_replicas, rank, seed=seed)
        if num_repeats < 1:
            raise ConfigError(f"num_repeats {num_repeats} is below 1")
        self.shuffle = shuffle
        self.num_repeats = num_repeats
        ratio = selected_ratio or self.num_replicas
        if selected_round and self.length >= selected_round:
            selected = math.floor(self.length // selected_round * selected_round / ratio)
        else:
            selected = math.ceil(self.length / ratio)
        self.num_selected_samples = min(selected, math.ceil(self.length * num_repeats / self.num_replicas))

    def __len__(self) -> int:
        return self.num_selected_samples

    def order(self) -> tuple[Tensor, Tensor]:
        repeated = math.ceil(self.length * self.num_repeats)
        owners = (torch.arange(repeated, dtype=torch.float64) / self.num_repeats).long()  # whose copy stands where
        copies = torch.arange(repeated) - torch.searchsorted(owners, owners)  # minus where its first copy stands
        positions = self._positions()
        rounds, positions = positions // repeated, positions % repeated
        owners, copies = owners[positions], copies[positions] + rounds * math.ceil(self.num_repeats)
        return (self._permutation()[owners] if self.shuffle else owners), copies


class BatchKeys(Sampler[Any]):
    """The keys of one batch after the other, from the sampler's `start_batch` on; `len` counts a whole epoch's."""

    def __init__(self, sampler: _KeySampler, batch_size: int, drop_last: bool) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last

    def __len__(self) -> int:
        batches = len(self.sampler) / self.batch_size
        return math.floor(batches) if self.drop_last else math.ceil(batches)

    def __iter__(self) -> Iterator[list[Key]]:
        # the epoch is fixed now, not when the first batch is asked for
        epoch, start, (indices, copies) = self.sampler.epoch, self.sampler.start_batch, self.sampler.order()
        slices = (slice(batch * self.batch_size, (batch + 1) * self.batch_size) for batch in range(start, len(self)))
        return ([(epoch, *key) for key in zip(indices[rows].tolist(), copies[rows].tolist())] for rows in slices)


class ScheduledBatchKeys(BatchKeys):
    """Batches of several sizes, each with a choice among as many image sizes: (choice, keys of a batch).

    Which choices an epoch has, and in which order, follows from `seed` and the epoch, and is timm's for the same
    arguments. It is the same on all ranks.

    Args:
        batch_sizes: Of the choices.
        choice_weights: How often each choice is taken, None for equally often, 0 for never.
        num_batches: Of an epoch; the samples' order starts anew when it is too short. None for as many as the samples
            fill.
        schedule: "constant", or "progressive": a window over the choices moves from the first to the last.
        schedule_epochs: In which the window moves.
        spread: Standard deviation of the window, in choices; 0 takes the closest choice alone.
        random_mix: Share of the batches whose choice is not the window's.

    Raises:
        ConfigError: Arguments that are out of range or contradict each other.
    """

    def __init__(self, sampler: _KeySampler, batch_sizes: Sequence[int], choice_weights: Sequence[float] | None = None,
                 seed: int = 0, num_batches: int | None = None, schedule: str = "constant",
                 schedule_epochs: int | None = None, spread: float = 0.65, random_mix: float = 0.1) -> None:
        super().__init__(sampler, max(batch_sizes), drop_last=True)
        self.batch_sizes = list(batch_sizes)
        weights = torch.tensor(choice_weights or [1.0] * len(batch_sizes), dtype=torch.float64)
        _check_schedule(self.batch_sizes, weights, num_batches, schedule, schedule_epochs, spread, random_mix)
        self.weights = weights / weights.sum()
        self.seed = seed
        self.schedule_epochs = schedule_epochs if schedule == "progressive" else None
        self.spread = spread
        self.random_mix = random_mix
        self.num_batches = num_batches
        if num_batches is None and self.schedule_epochs is not None:
            self.num_batches = int(len(sampler) / self._average_batch_size())
        self._filled = self._fill() if self.num_batches is None else []
        if not len(self):
            raise ConfigError(f"the {len(sampler)} samples of an epoch fill no batch of {self.batch_sizes}")

    def __len__(self) -> int:
        return len(self._filled) if self.num_batches is None else self.num_batches

    def __iter__(self) -> Iterator[Any]:
        epoch, start, (indices, copies) = self.sampler.epoch, self.sampler.start_batch, self.sampler.order()
        again = int(copies.max()) + 1  # copies of one round through the samples
        first, batches = 0, []
        for choice in self.choices(epoch):
            batches.append((choice, torch.arange(first, first + self.batch_sizes[choice])))
            first += self.batch_sizes[choice]
        for choice, rows in batches[start:]:
            rounds, rows = rows // len(indices), rows % len(indices)
            keys = zip(indices[rows].tolist(), (copies[rows] + rounds * again).tolist())
            yield choice, [(epoch, *key) for key in keys]

    def choices(self, epoch: int, shuffle: bool = True) -> list[int]:
        """The choice of each batch of an epoch."""
        choices = self._filled
        if self.num_batches is not None:
            generator, weights = torch.Generator().manual_seed(self.seed + 2 * epoch), self.weights_of(epoch)
            choices = [_draw(weights, generator) for _ in range(self.num_batches)]
        if not shuffle:
            return choices
        generator = torch.Generator().manual_seed(self.seed + 2 * epoch + 1)
        order = torch.randperm(len(choices), generator=generator).tolist() if len(choices) > 1 else [0]
        return [choices[place] for place in order]

    def weights_of(self, epoch: int) -> Tensor:
        """Probabilities of the choices in an epoch."""
        count = len(self.batch_sizes)
        if self.schedule_epochs is None or count == 1:
            return self.weights
        progress = 1.0 if self.schedule_epochs == 1 else min(max(epoch / (self.schedule_epochs - 1), 0.0), 1.0)
        distances = (torch.arange(count, dtype=torch.float64) - progress * (count - 1)).abs()
        if self.spread:
            window = torch.exp(-0.5 * (distances / self.spread) ** 2)
        else:
            window = (distances == distances.min()).double()
        window = window * self.weights
        if window.sum() <= 0:  # the closest choice that may be taken
            window = torch.zeros_like(window)
            window[distances.masked_fill(self.weights == 0, math.inf).argmin()] = 1
        uniform = (self.weights > 0).double()
        mixed = (1 - self.random_mix) * window / window.sum() + self.random_mix * uniform / uniform.sum()
        return mixed / mixed.sum()

    def _average_batch_size(self) -> float:
        if len(set(self.batch_sizes)) == 1:
            return self.batch_sizes[0]
        sizes = torch.tensor(self.batch_sizes, dtype=torch.float64)
        return float(torch.stack([self.weights_of(epoch) @ sizes for epoch in range(self.schedule_epochs)]).mean())

    def _fill(self) -> list[int]:
        """Choices, drawn one by one among those that still fit into the epoch."""
        generator, left, chosen = torch.Generator().manual_seed(self.seed), len(self.sampler), []
        sizes = torch.tensor(self.batch_sizes)
        while True:
            fitting = torch.nonzero((self.weights > 0) & (sizes <= left)).flatten()
            if not len(fitting):
                return chosen
            chosen.append(int(fitting[_draw(self.weights[fitting], generator)]))
            left -= self.batch_sizes[chosen[-1]]


class ScheduledBatchSampler(ScheduledBatchKeys):
    """The same for torch's DataLoader, with timm's arguments: batches of (index, choice) out of any sampler.

    Raises:
        ConfigError: As `ScheduledBatchKeys`; or `drop_last` is False.
    """

    def __init__(self, sampler: Any, batch_sizes: Sequence[int], choice_weights: Sequence[float] | None = None,
                 seed: int = 0, drop_last: bool = True, shuffle_schedule: bool = True, num_batches: int | None = None,
                 choice_schedule: str = "constant", schedule_epochs: int | None = None, schedule_spread: float = 0.65,
                 schedule_random_mix: float = 0.1) -> None:
        if not drop_last:
            raise ConfigError("batches of scheduled sizes are whole ones: drop_last=False is not supported")
        super().__init__(sampler, batch_sizes, choice_weights, seed, num_batches, choice_schedule, schedule_epochs,
                         schedule_spread, schedule_random_mix)
        self.shuffle_schedule = shuffle_schedule
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next, to the sampler as well."""
        self.epoch = epoch
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        indices = self._indices()
        for choice in self.choices(self.epoch, self.shuffle_schedule):
            batch = [(index, choice) for index in islice(indices, self.batch_sizes[choice])]
            if len(batch) < self.batch_sizes[choice]:
                return
            yield batch

    def _indices(self) -> Iterator[Any]:
        """The sampler's; again and again where the number of batches is given."""
        yield from self.sampler
        while self.num_batches is not None:
            yield from self.sampler


class ScheduledTransformDataset(Dataset[Any]):
    """A data set whose samples are asked for as (index, choice), and transformed by the `transforms` of the choice."""

    def __init__(self, dataset: Any, transforms: Sequence[Callable[[Any], Any]]) -> None:
        if not transforms:
            raise ConfigError("transforms are to be at least one")
        self.dataset = dataset
        self.transforms = tuple(transforms)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, scheduled_index: tuple[Any, int]) -> tuple[Any, ...]:
        index, choice = scheduled_index
        image, *rest = self.dataset[index]
        return self.transforms[choice](image), *rest

    def __getattr__(self, name: str) -> Any:
        if name in ("filename", "filenames", "set_epoch"):
            return getattr(self.dataset, name)
        raise AttributeError(f"'{type(self).__name__}' has no attribute '{name}'")


def _draw(weights: Tensor, generator: torch.Generator) -> int:
    return int(torch.multinomial(weights, 1, generator=generator))


def _check_schedule(batch_sizes: list[int], weights: Tensor, num_batches: int | None, schedule: str,
                    schedule_epochs: int | None, spread: float, random_mix: float) -> None:
    if any(size != int(size) or size < 1 for size in batch_sizes):
        raise ConfigError(f"batch_size_choices {batch_sizes} are not numbers of samples")
    if len(weights) != len(batch_sizes) or not weights.isfinite().all() or weights.min() < 0 or weights.sum() <= 0:
        raise ConfigError(f"batch_choice_weights {weights.tolist()} are not {len(batch_sizes)} weights, one a choice")
    if num_batches is not None and num_batches < 1:
        raise ConfigError(f"num_batches {num_batches} is not a number of batches")
    if schedule not in ("constant", "progressive"):
        raise ConfigError(f"batch_choice_schedule {schedule!r} is none of 'constant' and 'progressive'")
    if schedule == "progressive" and (len(batch_sizes) < 2 or not schedule_epochs or schedule_epochs < 1):
        raise ConfigError("a progressive schedule needs two choices or more, and batch_schedule_epochs")
    if spread < 0 or not 0 <= random_mix <= 1:
        raise ConfigError(f"batch_schedule_spread {spread} is negative, or batch_schedule_random_mix {random_mix} is "
                          "not a share")
