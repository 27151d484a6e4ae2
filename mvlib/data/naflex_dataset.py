"""Batches of images as patches: as many images as a budget of patches allows, padded to one length.

Which lengths an epoch's batches have, which patches and which images, follows from the seed and the epoch, and is
timm's for the same arguments. All ranks have the same lengths and sizes at the same time.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from ..errors import BadImageError, ConfigError
from .collate import batch_targets
from .naflex_transforms import Patchify, Size, patch_sides

__all__ = ["NaFlexCollator", "NaFlexMapDatasetWrapper", "TokenBatch", "TokenSchedule", "calculate_naflex_batch_size"]

SEQ_LENS = (128, 256, 576, 784, 1024)


def calculate_naflex_batch_size(
    tokens_per_batch: int, seq_len: int, max_size: int | None = None, divisor: int = 1, rounding: str = "floor"
) -> int:
    """Images of `seq_len` patches that a batch of so many patches has room for: at least one, at most `max_size`.

    Args:
        divisor: The number is a multiple of this,
        rounding: by "floor", "ceil" or (else) to the nearest.
    """
    fitting = tokens_per_batch / seq_len
    if divisor > 1:
        nearest = {"floor": math.floor, "ceil": math.ceil}.get(rounding, round)
        size = nearest(fitting / divisor) * divisor
    else:
        size = int(fitting)
    size = max(size, 1)
    return size if max_size is None else min(size, max_size)


class TokenBatch(NamedTuple):
    """A batch that is to be read.

    Attributes:
        seq_len: Patches that there is room for in each of its sequences.
        patch: Number of its patch size.
        indices: Its images.
        copies: How many times each has been read in the epoch before; filling up makes copies.
    """

    seq_len: int
    patch: int
    indices: list[int]
    copies: list[int]


class TokenSchedule:
    """The batches of each epoch.

    Args:
        length: Images of the data set.
        seq_lens: Lengths, one of which is drawn for each batch.
        max_tokens: Patches of a batch.
        seed: Of everything random.
        shuffle: Whether images and batches are in random order, another one in each epoch.
        rank, world_size: Place in a distributed run.
        divisor: Sizes of batches are multiples of this, as far as there are images.
        patch_weights: How often each patch size is taken.

    Raises:
        ConfigError: There are no lengths, or one has no room.
    """

    def __init__(
        self, length: int, seq_lens: Sequence[int], max_tokens: int, seed: int = 42, shuffle: bool = True,
        rank: int = 0, world_size: int = 1, divisor: int = 8, patch_weights: Sequence[float] = (1.0,),
    ) -> None:
        self.seq_lens = sorted(set(seq_lens))
        if not self.seq_lens or self.seq_lens[0] < 1:
            raise ConfigError(f"seq_lens {list(seq_lens)} are not numbers of patches")
        self.length, self.seed, self.shuffle = length, seed, shuffle
        self.rank, self.world_size = rank, world_size
        self.per_rank = math.ceil(length / world_size)
        self.patch_weights = torch.tensor(list(patch_weights))
        self.sizes: list[tuple[int, int]] = []  # length and size of each batch
        generator, left = torch.Generator().manual_seed(seed), self.per_rank
        while left:
            seq_len = self.seq_lens[int(torch.randint(0, len(self.seq_lens), (1,), generator=generator))]
            size = calculate_naflex_batch_size(max_tokens, seq_len, left, divisor)
            self.sizes.append((seq_len, size))
            left -= size

    def __len__(self) -> int:
        return len(self.sizes)

    def batches(self, epoch: int) -> list[TokenBatch]:
        """Of an epoch, those of this rank."""
        generator = torch.Generator().manual_seed(self.seed + epoch)
        order = torch.randperm(self.length, generator=generator) if self.shuffle else torch.arange(self.length)
        places = torch.arange(self.rank, self.per_rank * self.world_size, self.world_size)
        indices, copies = order[places % self.length].tolist(), (places // self.length).tolist()
        sizes = self.sizes
        if self.shuffle:
            sizes = [sizes[i] for i in torch.randperm(len(sizes), generator=generator).tolist()]
        found, start = [], 0
        for seq_len, size in sizes:
            patch = 0
            if len(self.patch_weights) > 1:
                patch = int(torch.multinomial(self.patch_weights, 1, generator=generator))
            rows = slice(start, start + size)
            found.append(TokenBatch(seq_len, patch, indices[rows], copies[rows]))
            start += size
        return found


def resolve_patch_sizes(
    patch_size: Size | None, choices: Sequence[Size] | None, weights: Sequence[float] | None
) -> tuple[list[tuple[int, int]], list[float]]:
    """Patch sizes, (height, width) each, and how often each is taken.

    Raises:
        ConfigError: One size and several are given, or the weights do not fit the sizes.
    """
    if choices is None:
        return [patch_sides(16 if patch_size is None else patch_size)], [1.0]
    if patch_size is not None:
        raise ConfigError("patch_size is for one size of patches, patch_size_choices for several: give one of them")
    sizes = [patch_sides(size) for size in choices]
    if weights is None:
        return sizes, [1.0 / len(sizes)] * len(sizes)
    if len(weights) != len(sizes) or min(weights) < 0 or sum(weights) <= 0:
        raise ConfigError(f"patch_size_choice_probs {list(weights)} are not {len(sizes)} weights, one a patch size")
    return sizes, [weight / float(sum(weights)) for weight in weights]


class NaFlexCollator:
    """Samples (dict of `Patchify`, label) to a batch, padded or cut off to one length.

    Args:
        max_seq_len: Patches of each; None for 576.
        dtype: Of the patches; None for their own.
    """

    def __init__(self, max_seq_len: int | None = None, *, dtype: torch.dtype | None = torch.float32) -> None:
        self.max_seq_len = max_seq_len or 576
        self.dtype = dtype

    def __call__(self, batch: Sequence[tuple[dict[str, Tensor], Any]]) -> tuple[dict[str, Any], Tensor]:
        """A dict of "patches" (B, max_seq_len, ...), "patch_coord", "patch_valid", "seq_len"; and labels."""
        samples, length = [sample for sample, _ in batch], self.max_seq_len
        first = samples[0]["patches"]
        patches = torch.zeros(len(samples), length, *first.shape[1:], dtype=self.dtype or first.dtype)
        coord = torch.zeros(len(samples), length, 2, dtype=torch.int64)
        valid = torch.zeros(len(samples), length, dtype=torch.bool)
        for i, sample in enumerate(samples):
            for target, key in ((patches, "patches"), (coord, "patch_coord"), (valid, "patch_valid")):
                values = sample[key][:length]
                target[i, :len(values)] = values
        labels = batch_targets([label for _, label in batch])
        return {"patches": patches, "patch_coord": coord, "patch_valid": valid, "seq_len": length}, labels


class NaFlexMapDatasetWrapper(IterableDataset[Any]):
    """A stream of batches out of a data set whose samples have numbers, for torch's DataLoader (`batch_size=None`).

    Samples that cannot be read are left out, with a warning. `create_naflex_loader` makes loaders that replace them,
    and that can go on within an epoch.

    Args:
        base_dataset: Gives (image, label).
        patch_size: Side, or (height, width); or several, `patch_size_choices`, one of which is drawn for each batch,
            by `patch_size_choice_probs`. Patches of several sizes keep their sides.
        seq_lens, max_tokens_per_batch, seed, shuffle, batch_divisor: See `TokenSchedule`.
        transform_factory: (max_seq_len=, patch_size=) -> what makes a tensor (C, H, W) of an image.
        mixup_fn: (images, labels) -> the same mixed, such as `NaFlexMixup`.
        distributed, rank, world_size: Place in a distributed run.
        epoch: The first.
        patchify_channels_last: See `patchify_image`.
    """

    def __init__(
        self, base_dataset: Any, patch_size: Size | None = None, patch_size_choices: list[int] | None = None,
        patch_size_choice_probs: list[float] | None = None, seq_lens: tuple[int, ...] = SEQ_LENS,
        max_tokens_per_batch: int = 4096 * 4, transform_factory: Callable[..., Any] | None = None,
        mixup_fn: Callable[..., Any] | None = None, seed: int = 42, shuffle: bool = True, distributed: bool = False,
        rank: int = 0, world_size: int = 1, epoch: int = 0, batch_divisor: int = 8, patchify_channels_last: bool = True,
    ) -> None:
        super().__init__()
        if not hasattr(base_dataset, "__len__") or not hasattr(base_dataset, "__getitem__"):
            raise TypeError(f"{type(base_dataset).__name__} has no numbered samples: it needs __len__ and __getitem__")
        self.base_dataset = base_dataset
        self.mixup_fn: Any = mixup_fn
        self.patch_sizes, self.patch_size_probs = resolve_patch_sizes(
            patch_size, patch_size_choices, patch_size_choice_probs)
        self.variable_patch_size = patch_size_choices is not None
        place = (rank, world_size) if distributed else (0, 1)
        weights = self.patch_size_probs if self.variable_patch_size else [1.0]
        self.schedule = TokenSchedule(
            len(base_dataset), seq_lens, max_tokens_per_batch, seed, shuffle, *place, batch_divisor, weights)
        self.seq_lens = self.schedule.seq_lens
        self.patchifiers = [Patchify(size, not self.variable_patch_size, patchify_channels_last)
                            for size in self.patch_sizes]
        self.transforms = {
            (seq_len, i): transform_factory and transform_factory(max_seq_len=seq_len, patch_size=size)
            for seq_len in self.seq_lens for i, size in enumerate(self.patch_sizes)}
        self.collate_fns = {seq_len: NaFlexCollator(seq_len) for seq_len in self.seq_lens}
        self._epoch = torch.tensor(epoch).share_memory_()  # workers that live on read it, too

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.schedule)

    def __iter__(self) -> Iterator[tuple[dict[str, Any], Tensor]]:
        info = get_worker_info()
        number, count = (0, 1) if info is None else (info.id, info.num_workers)
        epoch = int(self._epoch)
        if hasattr(self.mixup_fn, "set_epoch"):
            self.mixup_fn.set_epoch(epoch)
        for batch in self.schedule.batches(epoch)[number::count]:
            samples = [sample for index in batch.indices for sample in self._read(index, batch)]
            if not samples:
                continue
            images, labels = zip(*samples)
            if self.mixup_fn is not None:
                images, labels = self.mixup_fn(list(images), list(labels))
            patchify = self.patchifiers[batch.patch]
            yield self.collate_fns[batch.seq_len](list(zip(map(patchify, images), labels)))

    def _read(self, index: int, batch: TokenBatch) -> list[tuple[Any, Any]]:
        transform = self.transforms[batch.seq_len, batch.patch]
        try:
            image, label = self.base_dataset[index]
            return [(transform(image) if transform else image, label)]
        except (BadImageError, OSError, ValueError, SyntaxError) as error:  # what decoders raise
            if isinstance(error, ConfigError):
                raise
            warnings.warn(f"left out sample {index}, which cannot be read: {error}", stacklevel=2)
            return []
