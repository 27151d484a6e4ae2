"""Data sets of images: a reader, and what is done with each sample that it gives."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch.utils.data
from PIL import Image

from ..errors import BadImageError, ConfigError
from .images import open_image
from .randomness import sample_seed, seeded
from .readers import Reader, Sample, StreamReader, create_reader
from .readers.base import class_names
from .samplers import process_place

__all__ = ["AugMixDataset", "ImageDataset", "IterableImageDataset", "StreamedSample"]

Transform = Callable[[Any], Any]
Key = tuple[int, int, int]


class _Described:
    """What data sets tell of their reader."""

    reader: Any

    @property
    def name(self) -> str:
        return self.reader.name

    @property
    def class_to_idx(self) -> dict[str, int] | None:
        return self.reader.class_to_idx

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes by label, None where they have none."""
        return class_names(self.reader.class_to_idx)

    def __repr__(self) -> str:
        """How many images of how many classes, and where they are."""
        try:
            count = f"{len(self)} images"  # type: ignore[arg-type]
        except TypeError:  # of a stream
            count = "a stream of images"
        classes = self.classes
        labels = f" in {len(classes)} classes" if classes else ""
        return f"{type(self).__name__}({count}{labels}, {self.name or type(self.reader).__name__})"


class ImageDataset(_Described, torch.utils.data.Dataset):
    """Images by their number: `dataset[i]` is (transform(image), label).

    A label is an int, -1 where there is none, or what `target_transform` makes of it. Can be pickled, and used in
    several processes at once.

    Args:
        root: Of the reader, if `reader` is a name.
        reader: A `Reader`, or the name of one, see `create_dataset`.
        split, class_map: Of the reader, if `reader` is a name.
        load_bytes: Give the content of the file to the transform, undecoded.
        input_img_mode: PIL's mode of the images ("RGB", "L", "RGBA", ...); "" for the mode of each file.
        transform: From an upright PIL image to the sample; None gives the image. Can be set at any time.
        target_transform: Of labels.
        additional_features: Names of more columns, given behind the label (hfds/).
        kwargs: More arguments of the reader.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        reader: Reader | str | None = None,
        split: str = "train",
        class_map: Any = None,
        load_bytes: bool = False,
        input_img_mode: str = "RGB",
        transform: Transform | None = None,
        target_transform: Transform | None = None,
        additional_features: Sequence[str] | str | None = None,
        **kwargs: Any,
    ) -> None:
        if reader is None or isinstance(reader, str):
            reader = create_reader(reader or "", root=root, split=split, class_map=class_map,
                                   additional_features=additional_features, **kwargs)
        self.reader: Reader = reader
        self.load_bytes = load_bytes
        self.input_img_mode = input_img_mode
        self.transform = transform
        self.target_transform = target_transform
        self.additional_features = additional_features

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """Read a sample.

        Raises:
            BadImageError: It cannot be read; the message begins with its name.
        """
        source, target, *features = self.reader[index]
        image = _apply(self.transform, source, self.input_img_mode, self.load_bytes)
        return image, _label(target, self.target_transform), *features

    def load(self, index: int) -> tuple[Image.Image, Any]:
        """(PIL image, label) of a sample, without the transform.

        Raises:
            BadImageError: It cannot be read.
        """
        source, target, *_ = self.reader[index]
        return _open(source, self.input_img_mode), _label(target, self.target_transform)

    def targets(self) -> Sequence[Any] | None:
        """Labels of all samples as the reader has them, without reading images; None where that cannot be had."""
        return self.reader.targets()

    def filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        """Name of a sample: its path below the root, the whole path if `absolute`, its last part if `basename`."""
        return self.reader.filename(index, basename, absolute)

    def filenames(self, basename: bool = False, absolute: bool = False) -> list[str]:
        return self.reader.filenames(basename, absolute)


def _open(source: Any, mode: str) -> Image.Image:
    if isinstance(source, Image.Image):
        return source.convert(mode) if mode and source.mode != mode else source
    return open_image(source, mode)


def _apply(transform: Transform | None, source: Any, mode: str, load_bytes: bool) -> Any:
    if load_bytes:
        image = _content(source)
    elif mode == "RGB" and hasattr(transform, "from_file") and not isinstance(source, Image.Image):
        return transform.from_file(source)
    else:
        image = _open(source, mode)
    return image if transform is None else transform(image)


def _content(source: Any) -> bytes:
    if isinstance(source, bytes):
        return source
    if isinstance(source, Image.Image):
        raise ConfigError("load_bytes: this data set has no files, its images come decoded")
    if not isinstance(source, (str, os.PathLike)):
        return source.read()
    try:
        with open(source, "rb") as stream:
            return stream.read()
    except OSError as error:
        raise BadImageError(f"{os.fspath(source)}: {error.strerror}") from error


def _label(target: Any, target_transform: Transform | None) -> Any:
    if target is None:
        return -1
    return target if target_transform is None else target_transform(target)


class StreamedSample:
    """A sample that a stream has come to; calling it decodes it.

    Attributes:
        name: For messages.
    """

    def __init__(self, sample: Sample, dataset: IterableImageDataset) -> None:
        self.name = sample.name
        self._sample = sample
        self._dataset = dataset

    def __call__(self) -> tuple[Any, Any]:
        """(transform(image), label).

        Raises:
            BadImageError: The image cannot be read.
        """
        dataset = self._dataset
        image = _apply(dataset.transform, self._sample.source, dataset.input_img_mode, load_bytes=False)
        return image, _label(self._sample.target, dataset.target_transform)


class IterableImageDataset(_Described, torch.utils.data.IterableDataset):
    """Images of a stream, in an order that (seed, epoch) decides.

    Every process walks the whole stream and decodes what is its own, so that batches do not depend on the number of
    workers. How a loader uses it:

        dataset.iterate(epoch, worker, num_workers, batch_size, rank, world_size, start_batch)

    yields (key, read) for the samples of this worker's batches, in order. Sample p of the epoch's order belongs to
    rank p % world_size, as the q-th of that rank, q = p // world_size; to its batch b = q // batch_size; to worker
    b % num_workers. Batches before `start_batch` are passed over undecoded. `key` is (epoch, p, 0): seed the
    augmentation with it and call `read()`, which gives (transform(image), label) or raises BadImageError; `read.name`
    names the sample. The last batch may have fewer samples. In training all ranks get equally many samples: up to
    world_size - 1 at the end of the stream are left out.

    `len(dataset)` is the number of samples of an epoch, of all ranks together; TypeError where it is not known.

    Plain iteration gives the samples of `self.epoch` that belong to this worker and to this process, whose place among
    those of torch.distributed is asked for when the data set is made.

    Args:
        root, reader, split, class_map: As of `ImageDataset`; the reader is a `StreamReader` or the name of one.
        is_training: Shuffle, and end epochs at `num_samples` by force: a shorter stream begins anew.
        batch_size: Of plain iteration.
        num_samples: Samples of a pass, if the reader does not know or another number is wanted.
        seed: Of the order.
        repeats: Passes an epoch, in training.
        input_img_mode, transform, target_transform: As of `ImageDataset`.
        kwargs: More arguments of the reader.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        reader: StreamReader | str | None = None,
        split: str = "train",
        class_map: Any = None,
        is_training: bool = False,
        batch_size: int = 1,
        num_samples: int | None = None,
        seed: int = 42,
        repeats: int = 0,
        download: bool = False,
        input_img_mode: str = "RGB",
        transform: Transform | None = None,
        target_transform: Transform | None = None,
        **kwargs: Any,
    ) -> None:
        if reader is None or isinstance(reader, str):
            reader = create_reader(reader or "", root=root, split=split, class_map=class_map, download=download,
                                   **kwargs)
        self.reader: StreamReader = reader
        self.is_training = is_training
        self.batch_size = batch_size
        self.num_samples = num_samples or reader.num_samples
        self._limited = num_samples is not None
        self.seed = seed
        self.repeats = max(repeats, 1) if is_training else 1
        self.input_img_mode = input_img_mode
        self.transform = transform
        self.target_transform = target_transform
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # workers that live on see it change
        self.num_replicas, self.rank = process_place()

    @property
    def epoch(self) -> int:
        """That plain iteration is in."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch plain iteration is in, in workers that run, too."""
        self._epoch.fill_(epoch)

    def set_loader_cfg(self, num_workers: int | None = None, batch_size: int | None = None) -> None:
        """Say how plain iteration is divided: the workers take turns by batches of `batch_size`; their number is known
        to each."""
        self.batch_size = batch_size or self.batch_size

    def __len__(self) -> int:
        if self.num_samples is None:
            raise TypeError(f"the number of samples of {self.name} is not known; num_samples=... says it")
        return self.num_samples * self.repeats

    def targets(self) -> None:
        """Labels cannot be had without reading the stream."""
        return None

    def filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        raise ConfigError(f"{self.name} is a stream: its samples have no numbers; filenames() names them in order")

    def filenames(self, basename: bool = False, absolute: bool = False) -> list[str]:
        """Names of the samples in the order of `self.epoch`, from one pass over the stream."""
        names = [sample.name for sample in self._walk(self.epoch)]
        return [os.path.basename(name) for name in names] if basename else names

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """(transform(image), label) of this worker's share; draws are seeded by the sample."""
        worker = torch.utils.data.get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        place = self.rank, self.num_replicas
        for key, read in self.iterate(self.epoch, number, count, self.batch_size, *place):
            with seeded(sample_seed(self.seed, *key)):
                sample = read()
            yield sample

    def iterate(
        self, epoch: int, worker: int = 0, num_workers: int = 1, batch_size: int = 1, rank: int = 0,
        world_size: int = 1, start_batch: int = 0,
    ) -> Iterator[tuple[Key, StreamedSample]]:
        """(key, read) of the samples that this worker of this rank decodes: see the class."""
        own: tuple[Key, StreamedSample] | None = None
        for position, sample in enumerate(self._walk(epoch)):
            place, owner = divmod(position, world_size)
            batch = place // batch_size
            if owner == rank and batch >= start_batch and batch % max(num_workers, 1) == worker:
                own = (epoch, position, 0), StreamedSample(sample, self)
            # In training a sample waits until all ranks have one of the same place.
            if own is not None and (owner == world_size - 1 or not self.is_training):
                yield own
                own = None

    def _walk(self, epoch: int) -> Iterator[Sample]:
        """All samples of an epoch, in order."""
        limit = len(self) if self._limited else None
        count = turn = 0
        while turn < self.repeats or (self.is_training and limit is not None):
            before = count
            shuffle_seed = sample_seed(self.seed, epoch, turn) if self.is_training else None
            for sample in self.reader.stream(shuffle_seed):
                if count == limit:
                    return
                count += 1
                yield sample
            if count == before or count == limit:
                return
            turn += 1


class AugMixDataset(torch.utils.data.Dataset):
    """Several versions of each image: `dataset[i]` is ((clean, augmented, augmented, ...), label).

    `transform` is the triple of `create_transform(separate=True)`: the first is applied once, the second to each
    version but the clean one, the third to each. (AugMix, Hendrycks et al., https://arxiv.org/abs/1912.02781.)

    Args:
        dataset: An `ImageDataset`; its transform is replaced by the first of the triple.
        num_splits: Versions of an image, the clean one included.
    """

    def __init__(self, dataset: Any, num_splits: int = 2) -> None:
        if num_splits < 2:
            raise ConfigError(f"num_splits={num_splits}: a clean version and at least one that is augmented are needed")
        self.dataset = dataset
        self.num_splits = num_splits
        self.augmentation: Transform | None = None
        self.normalize: Transform | None = None
        if dataset.transform is not None:
            self.transform = dataset.transform

    @property
    def transform(self) -> Transform | None:
        """The first of the triple; setting takes all three."""
        return self.dataset.transform

    @transform.setter
    def transform(self, transforms: Sequence[Transform | None]) -> None:
        if not isinstance(transforms, (list, tuple)) or len(transforms) != 3:
            raise ConfigError("AugMixDataset takes the three transforms of create_transform(separate=True), got "
                              f"{type(transforms).__name__}")
        self.dataset.transform, self.augmentation, self.normalize = transforms

    def __getattr__(self, name: str) -> Any:
        if name in ("classes", "class_to_idx", "name", "filename", "filenames", "load", "targets", "reader"):
            return getattr(self.dataset, name)
        raise AttributeError(f"'{type(self).__name__}' has no attribute '{name}'")

    def __len__(self) -> int:
        return len(self.dataset)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.dataset}, num_splits={self.num_splits})"

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        image, *rest = self.dataset[index]
        versions = [image] + [_maybe(self.augmentation, image) for _ in range(self.num_splits - 1)]
        return tuple(_maybe(self.normalize, version) for version in versions), *rest


def _maybe(transform: Transform | None, image: Any) -> Any:
    return image if transform is None else transform(image)
