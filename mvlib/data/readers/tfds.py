"""TensorFlow datasets: by index where they were prepared for that, and then without TensorFlow, else as a stream."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from ...errors import ConfigError, DataError
from .base import NamedBytes, Reader, Sample, StreamReader, require_package, shuffled
from .class_map import UNMAPPED, ClassMap, load_class_map, map_label
from .fields import find_field, get_target, target_fields
from .splits import find_split

__all__ = ["TfdsReader", "TfdsStreamReader", "create_tfds_reader"]

_SHUFFLE_BUFFER = 1024
_NAME_FIELDS = ("file_name", "filename", "image/filename", "id")


def create_tfds_reader(
    name: str, root: str | os.PathLike[str] | None = None, split: str = "train", class_map: ClassMap | None = None,
    input_key: str | None = None, target_key: str | None = None, download: bool = False, repeats: int = 0,
    is_training: bool = False, shuffle_size: int | None = None,
) -> TfdsReader | TfdsStreamReader:
    """The reader of a TensorFlow dataset.

    Args:
        name: Of the data set, with its configuration and version if wanted ("mnist:3.0.1").
        root: The data folder (TFDS_DATA_DIR).
        split: As TFDS reads it ("train[:10%]"), or a synonym.
        class_map: See `load_class_map`. Samples of other classes are left out of a stream; by index they are an error.
        input_key: Feature of the image, "image" by itself.
        target_key: Feature of the label, "label" by itself; "a/b" of a nested one; several, comma-separated.
        download: Prepare the data set if it is not there, for access by index.
        repeats: Passes of a training epoch.
        shuffle_size: Samples to draw from, when a stream is shuffled.

    Raises:
        ConfigError: Split or feature is not there.
        DataError: The data set is unknown or not prepared.
        MissingPackageError: `tensorflow-datasets` is not installed.
    """
    tfds = require_package("tensorflow_datasets", f"tfds/{name}", "tensorflow-datasets")
    data_dir = None if root is None else os.fspath(root)
    try:
        builder = tfds.builder(name, data_dir=data_dir)
        if download and not builder.is_prepared():
            builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
            builder.download_and_prepare()
    except Exception as error:  # tfds has an error of its own for each thing
        raise DataError(f"'tfds/{name}' cannot be had: {' '.join(str(error).split())[:300]}") from error
    if not builder.info.splits:
        raise DataError(f"'tfds/{name}' is not prepared in {builder.data_dir}: download=True, or "
                        f"'tfds build {name} --file_format=array_record', does it")
    base, bracket, rest = split.partition("[")
    found = find_split(base, builder.info.splits) or (base if "+" in base else None)
    if found is None:
        raise ConfigError(f"'tfds/{name}' has no split '{split}'; its splits are {', '.join(builder.info.splits)}")
    fields = _Fields(f"tfds/{name}", builder.info.features, input_key, target_key, class_map)
    split = found + bracket + rest
    if builder.info.file_format is not None and builder.info.file_format.value == "array_record":
        return TfdsReader(builder, split, fields, max(repeats, 1) if is_training else 1)
    return TfdsStreamReader(builder, split, fields, shuffle_size)


class _Fields:
    """Which features are image and label, and how a record is read."""

    def __init__(self, name: str, features: Any, input_key: str | None, target_key: str | None,
                 class_map: ClassMap | None) -> None:
        self.name = name
        known = list(features)
        self.image = input_key if input_key and "/" in input_key and input_key not in known else \
            find_field(input_key, ("image",), known, "image", name)
        self.keys = target_fields(target_key)
        if not self.keys and "label" in known:
            self.keys = ("label",)
        for key in self.keys:
            find_field(key if key in known else key.partition("/")[0], (), known, "label", name)
        self.names = list(self.keys) if len(self.keys) > 1 else self._class_names(features)
        self.class_map = load_class_map(class_map)
        self.class_to_idx = self.class_map or (
            {label: index for index, label in enumerate(self.names)} if self.names else None)

    def _class_names(self, features: Any) -> list[str] | None:
        for part in ([self.keys[0]] if self.keys and self.keys[0] in features else
                     self.keys[0].split("/") if self.keys else ()):
            while part not in features and hasattr(features, "feature"):
                features = features.feature
            features = features[part]
        while hasattr(features, "feature"):
            features = features.feature
        return getattr(features, "names", None) if self.keys else None

    def decoders(self, tfds: Any) -> dict[str, Any]:
        """That leave the image's file as it is."""
        decoders: Any = tfds.decode.SkipDecoding()
        parts = [self.image] if "/" not in self.image else self.image.split("/")
        for part in reversed(parts):
            decoders = {part: decoders}
        return decoders

    def target(self, record: Mapping[str, Any]) -> Any:
        if not self.keys:
            return None
        return self._map(get_target(record, self.keys))

    def _map(self, value: Any) -> Any:
        if np.ndim(value):
            return [label for label in map(self._map, value) if label != UNMAPPED]
        value = value.decode() if isinstance(value, bytes) else int(value)
        if self.class_map is not None:
            return map_label(value, self.class_map, self.names)
        return value

    def source(self, record: Mapping[str, Any], name: str) -> Any:
        value = record
        for part in ([self.image] if self.image in record else self.image.split("/")):
            value = value[part]
        if isinstance(value, np.ndarray) and value.ndim >= 2:
            return Image.fromarray(value[..., 0] if value.ndim == 3 and value.shape[-1] == 1 else value)
        return NamedBytes(value.item() if isinstance(value, np.ndarray) else bytes(value), name)

    def sample_name(self, record: Mapping[str, Any], number: int) -> str:
        for field in _NAME_FIELDS:
            if field in record:
                value = record[field]
                return value.decode() if isinstance(value, bytes) else str(value)
        return str(number)


class _Lazy:
    """Opens a builder's data in the process that reads it."""

    def __init__(self, builder: Any, split: str, fields: _Fields) -> None:
        self._builder = builder
        self._folder = os.fspath(builder.data_dir)
        self._split = split
        self._fields = fields
        self.name = fields.name
        self.class_to_idx = fields.class_to_idx
        self._count = builder.info.splits[split].num_examples
        if not self._count:
            raise DataError(f"{self.name}, split '{split}', is empty")

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key not in ("_builder", "_records")}

    def _current(self) -> Any:
        """The builder, read again after pickling."""
        if not hasattr(self, "_builder"):
            tfds = require_package("tensorflow_datasets", self.name, "tensorflow-datasets")
            self._builder = tfds.builder_from_directory(self._folder)
        return self._builder


class TfdsReader(_Lazy, Reader):
    """Samples of a data set in the array_record format, by index. Made by `create_tfds_reader`.

    The format's C++ library dies in a process that was forked from one that has read with it. So nothing is read
    before it is asked for, and a fork that comes too late is a DataError that says so.
    """

    _read_in: int | None = None  # the process that first read, of whichever data set

    def __init__(self, builder: Any, split: str, fields: _Fields, repeats: int = 1) -> None:
        super().__init__(builder, split, fields)
        self._repeats = repeats

    def __len__(self) -> int:
        return self._count * self._repeats

    def _record(self, index: int) -> Mapping[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} samples")
        process = os.getpid()
        if TfdsReader._read_in not in (None, process):
            raise DataError(f"{self.name} was read in the process that this one was forked from, after which it cannot "
                            "be read here: start workers by multiprocessing_context='spawn'")
        TfdsReader._read_in = process
        if not hasattr(self, "_records"):
            tfds = require_package("tensorflow_datasets", self.name, "tensorflow-datasets")
            self._records = self._current().as_data_source(self._split, decoders=self._fields.decoders(tfds))
        return self._records[index % self._count]

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        record = self._record(index)
        name = f"{self.name}/{self._fields.sample_name(record, index)}"
        target = self._fields.target(record)
        if np.array_equal(target, UNMAPPED):
            raise DataError(f"{name}: its class is not in the class map")
        return self._fields.source(record, name), target

    def _path(self, index: int) -> str:
        return self._fields.sample_name(self._record(index), index)


class TfdsStreamReader(_Lazy, StreamReader):
    """Samples of a data set in another format, one after the other by TensorFlow. Made by `create_tfds_reader`."""

    def __init__(self, builder: Any, split: str, fields: _Fields, shuffle_size: int | None = None) -> None:
        super().__init__(builder, split, fields)
        self.num_samples = self._count
        self._shuffle_size = shuffle_size or _SHUFFLE_BUFFER

    def stream(self, seed: int | None) -> Iterator[Sample]:
        return self._read(None) if seed is None else shuffled(self._read(seed), self._shuffle_size, seed)

    def _read(self, seed: int | None) -> Iterator[Sample]:
        tfds = require_package("tensorflow_datasets", self.name, "tensorflow-datasets")
        require_package("tensorflow", f"{self.name} (not in the array_record format)", "tensorflow")
        config = tfds.ReadConfig(shuffle_seed=None if seed is None else seed & 0x7FFFFFFF, try_autocache=False,
                                 interleave_cycle_length=1)
        records = self._current().as_dataset(split=self._split, shuffle_files=seed is not None, read_config=config,
                                             decoders=self._fields.decoders(tfds))
        for number, record in enumerate(tfds.as_numpy(records)):
            target = self._fields.target(record)
            if not np.array_equal(target, UNMAPPED):
                name = f"{self.name}/{self._fields.sample_name(record, number)}"
                yield Sample(name, self._fields.source(record, name), target)
