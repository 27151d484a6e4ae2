"""Loaders of images as patches: a budget of patches a batch in training, one length in evaluation.

As all loaders here, they seed every draw by what it belongs to: batches are the same bits for any number of workers,
and from any batch on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from ..errors import ConfigError
from .config import per_channel
from .constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from .loader import Loader, as_it_is
from .naflex_dataset import SEQ_LENS, NaFlexCollator, TokenSchedule, resolve_patch_sizes
from .naflex_mixup import NaFlexMixup
from .naflex_random_erasing import PatchRandomErasing
from .naflex_transforms import Patchify, Size
from .randomness import reseed, sample_seed
from .samplers import BatchKeys, OrderedSampler, ShuffledSampler, process_place
from .torch_loader import DeviceLoader
from .transform_factory import create_transform
from .workers import Batch, SampleReader, end_with_parent

__all__ = ["NaFlexLoader", "NaFlexPrefetchLoader", "create_naflex_loader", "naflex_transforms"]

_MIXING = 1  # sets the seeds of mixing apart from those of samples
_OF_TRAINING = (
    "no_aug", "train_crop_mode", "scale", "ratio", "hflip", "vflip", "color_jitter", "color_jitter_prob",
    "grayscale_prob", "gaussian_blur_prob", "auto_augment", "crop_pct", "crop_mode", "crop_border_pixels", "re_prob",
    "re_mode", "re_count",
)
_OF_ALL = ("interpolation", "mean", "std", "use_prefetcher", "patchify_channels_last")


def naflex_transforms(options: dict[str, Any]) -> Callable[..., Any]:
    """What makes the transform for a `max_seq_len` and a `patch_size`, of a loader's arguments."""
    is_training = options["is_training"]
    names = (*_OF_ALL, *(_OF_TRAINING if is_training else ()))
    return partial(create_transform, is_training=is_training, naflex=True, **{name: options[name] for name in names})


def create_naflex_loader(
    dataset: Any,
    patch_size: Size | None = None,
    patch_size_choices: Sequence[int] | None = None,
    patch_size_choice_probs: Sequence[float] | None = None,
    train_seq_lens: Sequence[int] = SEQ_LENS,
    max_seq_len: int = 576,
    batch_size: int = 32,
    is_training: bool = False,
    mixup_fn: NaFlexMixup | None = None,
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
    channels: int = 3,
    crop_pct: float | None = None,
    crop_mode: str | None = None,
    crop_border_pixels: int | None = None,
    num_workers: int = 4,
    distributed: bool = False,
    rank: int | None = None,
    world_size: int | None = None,
    seed: int = 42,
    epoch: int = 0,
    use_prefetcher: bool = True,
    pin_memory: bool | None = None,
    img_dtype: torch.dtype = torch.float32,
    device: str | torch.device | None = None,
    persistent_workers: bool = True,
    worker_seeding: str = "all",
    patchify_channels_last: bool = True,
    *,
    max_bad: int = 50,
    multiprocessing_context: Any = None,
) -> NaFlexLoader:
    """Set the transform of `dataset`, and give a loader of its batches of patches. Arguments have timm's order.

    Batches are (dict of "patches", "patch_coord", "patch_valid" and "seq_len"; targets). What an epoch's batches are,
    is timm's; random draws within them are our own.

    Args:
        patch_size, patch_size_choices, patch_size_choice_probs: See `NaFlexMapDatasetWrapper`.
        train_seq_lens: Lengths of which one is drawn for each batch of training.
        max_seq_len: Length of those of evaluation.
        batch_size: Images of a batch of evaluation, or of the greatest length in training: shorter ones have more.
        is_training: Random order and augmentation; otherwise every sample once, in order.
        mixup_fn: Mixes images before they are cut into patches.
        re_prob, re_mode, re_count: Of `PatchRandomErasing`.
        re_split, worker_seeding, crop_pct, crop_mode: Without effect, as in timm.
        channels: Of the images.
        rank, world_size: Place in a distributed run, None to ask torch.distributed.
        epoch: The first.
        patchify_channels_last: See `patchify_image`.

    The others are those of `create_loader`.

    Raises:
        ConfigError: Arguments that contradict each other, or the data set is a stream.
        DataError: The data set is empty.
    """
    options = locals()
    if isinstance(dataset, IterableDataset):
        raise ConfigError("patches need a data set whose samples have numbers, and this one is a stream")
    for name in ("num_aug_repeats", "num_aug_splits"):
        if options[name]:
            raise ConfigError(f"{name}={options[name]} and batches of patches do not go together")
    if patch_size_choices is not None and not is_training:
        raise ConfigError("patch_size_choices needs is_training=True: evaluation has patches of one size")
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    sizes, weights = resolve_patch_sizes(patch_size, patch_size_choices, patch_size_choice_probs)
    place = process_place(world_size, rank) if distributed else (1, 0)
    sampler: Any = ShuffledSampler if is_training else OrderedSampler
    sampler = sampler(dataset, *place, seed=seed)
    sampler.set_epoch(epoch)
    if is_training:
        schedule = TokenSchedule(
            len(dataset), train_seq_lens, batch_size * max(train_seq_lens), seed, True, place[1], place[0],
            patch_weights=weights)
        lengths = schedule.seq_lens
        keys: BatchKeys = _TokenBatchKeys(sampler, schedule, len(sizes))
    else:
        lengths, keys = [max_seq_len], BatchKeys(sampler, batch_size, drop_last=False)
    erasing = PatchRandomErasing(re_prob, mode=re_mode, max_count=re_count) \
        if is_training and use_prefetcher and not no_aug and re_prob > 0 else None
    make = naflex_transforms(options)
    reader = _PatchReader(
        dataset, keys, min(max_bad + 1, len(dataset)) if is_training else 0,
        lengths=[length for length in lengths for _ in sizes],
        patchifiers=[Patchify(size, patch_size_choices is None, patchify_channels_last) for size in sizes],
        mixup=mixup_fn, seed=seed, erasing=erasing,
        transforms=[make(max_seq_len=length, patch_size=size) for length in lengths for size in sizes])
    batches: DataLoader[Any] = DataLoader(
        reader, batch_sampler=keys, num_workers=num_workers, collate_fn=as_it_is,
        pin_memory=device.type == "cuda" if pin_memory is None else pin_memory,
        persistent_workers=num_workers > 0 and persistent_workers,
        multiprocessing_context=multiprocessing_context if num_workers else None,
        worker_init_fn=end_with_parent if num_workers else None, generator=torch.Generator())
    normalize: Any = PatchNormalizer(mean, std, channels, device, img_dtype, patchify_channels_last)
    return NaFlexLoader(batches, batch_size, device, normalize if use_prefetcher else None, max_bad=max_bad)


class _TokenBatchKeys(BatchKeys):
    """(choice, keys) of the batches of a `TokenSchedule`; a choice is a length and a patch size."""

    def __init__(self, sampler: Any, schedule: TokenSchedule, patch_sizes: int) -> None:
        self.sampler, self.schedule, self.patch_sizes = sampler, schedule, patch_sizes

    def __len__(self) -> int:
        return len(self.schedule)

    def __iter__(self) -> Iterator[Any]:
        epoch, start = self.sampler.epoch, self.sampler.start_batch
        order = {length: i * self.patch_sizes for i, length in enumerate(self.schedule.seq_lens)}
        return ((order[batch.seq_len] + batch.patch,
                 [(epoch, *key) for key in zip(batch.indices, batch.copies)])
                for batch in self.schedule.batches(epoch)[start:])


class _PatchReader(SampleReader):
    """A `SampleReader` whose images are mixed, cut into patches, and padded to the length of their batch's choice.

    Args:
        lengths: Of the sequences, of each choice.
        patchifiers: Of the patch sizes, which are the choices in turns.
        mixup: Mixes the images of a batch.
    """

    def __init__(
        self, dataset: Any, keys: BatchKeys, tries: int, lengths: Sequence[int], patchifiers: Sequence[Patchify],
        mixup: NaFlexMixup | None, **options: Any,
    ) -> None:
        super().__init__(dataset, keys, tries, collate=self._join, **options)
        self.lengths, self.patchifiers, self.mixup = lengths, patchifiers, mixup
        self._choice, self._first = 0, (0, 0, 0)

    def __getitems__(self, keys: Any) -> Batch:
        self._choice, numbers = keys if isinstance(keys, tuple) else (0, keys)
        self._first = numbers[0]
        return super().__getitems__(keys)

    @property
    def _patchify(self) -> Patchify:
        return self.patchifiers[self._choice % len(self.patchifiers)]

    def _draw_boxes(self, image: Tensor) -> list[Any]:
        if self.erasing is None:
            return []
        rows, columns = (-(-side // patch) for side, patch in zip(image.shape[-2:], self._patchify.patch_size))
        return [self.erasing.draw(rows, columns)]

    def _join(self, samples: list[Any]) -> Any:
        images: Sequence[Tensor] = [sample[0] for sample in samples]
        labels: Sequence[Any] = [sample[1] for sample in samples]
        if self.mixup is not None:
            reseed(sample_seed(self.seed, *self._first, _MIXING))
            self.mixup.set_epoch(self._first[0])
            images, labels = self.mixup(images, labels)
        return NaFlexCollator(self.lengths[self._choice], dtype=None)(list(zip(map(self._patchify, images), labels)))


class PatchNormalizer:
    """Patches, of intensities from 0 to 255, to (patch - mean) / std.

    Args:
        mean, std: One value a channel, of intensities in [0, 1]; where there are more or fewer than `channels`, their
            average serves all.
        dtype: Of the result.
        channels_last: Whether a patch runs over (height, width, channels) or (channels, height, width).
    """

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], channels: int, device: torch.device, dtype: torch.dtype,
        channels_last: bool,
    ) -> None:
        shape = (1, channels) if channels_last else (channels, 1)
        self.mean, self.std = (torch.tensor([255 * value for value in per_channel(values, channels)], device=device,
                                            dtype=dtype).view(shape) for values in (mean, std))
        self.channels, self.dtype, self.channels_last = channels, dtype, channels_last

    def by_channel(self, patches: Tensor) -> Tensor:
        """Patches (B, N, ...) as (B, N, pixels, channels), or (B, N, channels, pixels): a view."""
        if patches.ndim not in (3, 5):
            raise ConfigError(f"patches are (B, N, numbers) or (B, N, height, width, channels), not "
                              f"{tuple(patches.shape)}")
        return patches.view(*patches.shape[:2], *((-1, self.channels) if self.channels_last else (self.channels, -1)))

    def __call__(self, patches: Tensor) -> Tensor:
        return self.by_channel(patches.to(self.dtype)).sub(self.mean).div(self.std).view(patches.shape)

    def to_erase(self, patches: Tensor) -> Tensor:
        """Patches with the channels behind the pixels: a view."""
        view = self.by_channel(patches)
        return view if self.channels_last else view.transpose(-2, -1)


def _moved(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {key: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
            for key, value in batch.items()}


class NaFlexLoader(Loader):
    """Iterates over the batches of an epoch: dicts of patches, and targets, on the device."""

    def _finish(self, batch: Batch, epoch: int, number: int) -> Any:
        if self._normalize is None:
            return batch.data
        normalize: Any = self._normalize
        given, targets = batch.data
        given = _moved(given, self.device)
        given["patches"] = normalize(given["patches"])
        rows = normalize.to_erase(given["patches"])
        for patches, coord, valid, boxes in zip(rows, given["patch_coord"], given["patch_valid"], batch.boxes):
            if boxes:
                erasing: Any = self._reader.erasing
                erasing.erase_(patches, coord, valid, boxes)
        return given, targets.to(self.device, non_blocking=True)


class NaFlexPrefetchLoader(DeviceLoader):
    """Batches of patches from `loader`, moved to the device, normalised and erased there.

    On CUDA each is made ready while the one before is worked with.

    Args:
        loader: Gives (dict of patches, targets), such as a DataLoader of `NaFlexMapDatasetWrapper`.
        mean, std, channels: See `PatchNormalizer`.
        device: Of the batches given; None for CUDA where there is one, else CPU.
        img_dtype: Of the patches given, None for float32.
        re_prob, re_mode, re_count, re_num_splits: Of `PatchRandomErasing`.
        patchify_channels_last: See `patchify_image`.
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
        std: Sequence[float] = IMAGENET_DEFAULT_STD,
        channels: int = 3,
        device: str | torch.device | None = None,
        img_dtype: torch.dtype | None = None,
        re_prob: float = 0.0,
        re_mode: str = "const",
        re_count: int = 1,
        re_num_splits: int = 0,
        patchify_channels_last: bool = True,
    ) -> None:
        super().__init__(loader, device)
        self.img_dtype = img_dtype or torch.float32
        self._normalize = PatchNormalizer(mean, std, channels, self.device, self.img_dtype, patchify_channels_last)
        self.random_erasing: PatchRandomErasing | None = None
        if re_prob > 0:
            self.random_erasing = PatchRandomErasing(re_prob, mode=re_mode, max_count=re_count,
                                                     num_splits=re_num_splits)

    def _prepare(self, batch: Any) -> tuple[dict[str, Any], Tensor]:
        given = _moved(batch[0], self.device)
        given["patches"] = self._normalize(given["patches"])
        if self.random_erasing is not None:
            self.random_erasing(self._normalize.to_erase(given["patches"]), given["patch_coord"],
                                given.get("patch_valid"))
        return given, batch[1].to(self.device, non_blocking=True)
