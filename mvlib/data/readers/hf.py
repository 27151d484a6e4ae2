"""Hugging Face datasets, by index or as a stream."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...errors import ConfigError, DataError
from .base import NamedBytes, Reader, Sample, StreamReader, require_package
from .class_map import UNMAPPED, ClassMap, drop_unmapped, index_classes, load_class_map, map_label
from .fields import find_field, get_target, target_fields
from .splits import find_split

__all__ = ["HuggingFaceReader", "HuggingFaceStreamReader"]

_SHUFFLE_BUFFER = 1024  # undecoded samples, in each process
_SHARDS = 64


class _Labels:
    """From what a record says to labels.

    Args:
        where: Name of the data set.
        features: Of the columns, by name.
        target_key: Column, "a/b" of a nested one, or several (comma-separated), each of which is one label's switch.
        names: Classes of a column of text, if known.
    """

    def __init__(self, where: str, features: Mapping[str, Any], target_key: str | None, class_map: ClassMap | None,
                 need_classes: bool) -> None:
        self.keys = target_fields(target_key)
        if not self.keys:
            found = _only(features, "ClassLabel", ("label", "labels"))
            if found is None and need_classes:
                found = find_field(None, ("label", "labels"), features, "label", where)
            self.keys = (found,) if found else ()
        for key in self.keys:
            find_field(key.partition("/")[0] if key not in features else key, (), features, "label", where)
        self.names: list[str] | None = list(self.keys) if len(self.keys) > 1 else self._names(features)
        self.class_map = load_class_map(class_map)
        self.class_to_idx = self.class_map or (
            {name: index for index, name in enumerate(self.names)} if self.names else None)

    def _names(self, features: Any) -> list[str] | None:
        for part in (self.keys[0].split("/") if self.keys and self.keys[0] not in features else self.keys):
            features = _unwrap(features)
            features = features.get(part) if isinstance(features, Mapping) else None
        return getattr(_unwrap(features), "names", None) if self.keys else None

    def __call__(self, record: Mapping[str, Any]) -> Any:
        if not self.keys:
            return None
        return self.map(get_target(record, self.keys))

    def map(self, value: Any) -> Any:
        """Label of a value, UNMAPPED if the class map lacks it; of a list, those that it has."""
        if isinstance(value, (list, tuple, np.ndarray)):
            return [label for label in map(self.map, value) if label != UNMAPPED]
        if self.class_map is not None:
            return map_label(value, self.class_map, self.names)
        if isinstance(value, str):
            return (self.class_to_idx or {}).get(value, value)
        return value


def _unwrap(feature: Any) -> Any:
    """The feature in lists of it."""
    while not isinstance(feature, Mapping) and hasattr(feature, "feature"):
        feature = feature.feature
    return feature[0] if isinstance(feature, list) and feature else feature


def _only(features: Mapping[str, Any], kind: str, usual: Sequence[str]) -> str | None:
    """One of the usual columns, otherwise the only one of a kind of feature."""
    found = [name for name in usual if name in features] or \
        [name for name, feature in features.items() if type(feature).__name__ == kind]
    return found[0] if len(found) == 1 or found and found[0] in usual else None


def _image_column(where: str, features: Mapping[str, Any], input_key: str | None) -> str:
    found = None if input_key else _only(features, "Image", ("image",))
    return found or find_field(input_key, ("image", "img"), features, "image", where)


def _source(value: Any, name: str) -> Any:
    """What `open_image` takes, of an undecoded image column."""
    if isinstance(value, Mapping):
        content, path = value.get("bytes"), value.get("path")
        if content is not None:
            return NamedBytes(content, name)
        value = path
    if isinstance(value, (bytes, bytearray)):
        return NamedBytes(bytes(value), name)
    if isinstance(value, (str, Image.Image)):
        return value
    return NamedBytes(b"", name)  # nothing there, which is an error for the one that decodes it


def _undecoded(data: Any, column: str) -> Any:
    datasets = require_package("datasets", "hfds/...")
    if isinstance((data.features or {}).get(column), datasets.Image):
        return data.cast_column(column, datasets.Image(decode=False))
    return data


def _options(prefix: str, trust_remote_code: bool) -> dict[str, Any]:
    """Keyword arguments of `load_dataset` that only some versions take."""
    if not trust_remote_code:
        return {}
    datasets = require_package("datasets", f"{prefix}/...")
    if "trust_remote_code" not in inspect.signature(datasets.load_dataset).parameters:
        raise ConfigError(f"datasets {datasets.__version__} runs no code of a data set, so that trust_remote_code "
                          "cannot be asked for: leave it out, or install datasets<4")
    return {"trust_remote_code": True}


def _load(prefix: str, name: str, root: str | None, split: str, trust_remote_code: bool, config: str | None,
          streaming: bool = False) -> Any:
    """The split of a data set: of the hub, of a folder of files, or of one that `save_to_disk` wrote."""
    datasets = require_package("datasets", f"{prefix}/{name}")
    path = name
    if not path:
        if root is None:
            raise ConfigError(f"'{prefix}/' needs a name, '{prefix}/user/data', or a root that is the data's folder")
        path, root = root, None
    options = _options(prefix, trust_remote_code)
    try:
        saved = Path(path)
        if (saved / "dataset_dict.json").is_file() or (saved / "state.json").is_file():
            return _load_saved(datasets, prefix, path, split)

        def load(part: str) -> Any:
            return datasets.load_dataset(path, config, split=part, cache_dir=root, streaming=streaming, **options)

        try:
            return load(split)
        except ValueError as error:
            known = datasets.get_dataset_split_names(path, config, **options)
            base, bracket, rest = split.partition("[")
            found = find_split(base, known)
            if found == base:
                raise ConfigError(f"'{prefix}/{name}', split '{split}': {error}") from error
            if found is None:
                raise ConfigError(f"'{prefix}/{name}' has no split '{split}'; its splits are "
                                  f"{', '.join(known)}") from error
            return load(found + bracket + rest)
    except ConfigError:
        raise
    except (OSError, ValueError, RuntimeError) as error:  # hub's and datasets' errors are of these kinds
        raise DataError(f"'{prefix}/{name}' cannot be loaded: {' '.join(str(error).split())}") from error


def _load_saved(datasets: Any, prefix: str, path: str, split: str) -> Any:
    data = datasets.load_from_disk(path)
    if not isinstance(data, datasets.DatasetDict):
        return data
    found = find_split(split, data)
    if found is None:
        raise ConfigError(f"'{prefix}/{path}' has no split '{split}'; its splits are {', '.join(data)}")
    return data[found]


class HuggingFaceReader(Reader):
    """Samples of a Hugging Face dataset by index.

    Args:
        name: On the hub, or a local folder.
        root: The cache; without a name, the data's folder.
        split: May be of the form "train[:10%]".
        input_key: Column of the images; by itself "image", or the only one of images.
        target_key: Column of the labels; by itself "label", or the only one of classes. "a/b" names a nested column;
            of several columns, comma-separated, those above zero are the labels.
        class_map: See `load_class_map`; samples of other classes are left out.
        additional_features: More columns, given behind the label.
        config: Name of the configuration, where there are several.

    Raises:
        ConfigError: Split or column is not there.
        DataError: The data cannot be loaded.
        MissingPackageError: `datasets` is not installed.
    """

    def __init__(self, name: str, root: str | os.PathLike[str] | None = None, split: str = "train",
                 class_map: ClassMap | None = None, input_key: str | None = None, target_key: str | None = None,
                 additional_features: Sequence[str] | str | None = None, trust_remote_code: bool = False,
                 config: str | None = None, need_classes: bool = False) -> None:
        self.root = None
        self.name = f"hfds/{name or root}"
        data = _load("hfds", name, None if root is None else os.fspath(root), split, trust_remote_code, config)
        self._image = _image_column(self.name, data.features, input_key)
        self._labels = _Labels(self.name, data.features, target_key, class_map, need_classes)
        self._more = [additional_features] if isinstance(additional_features, str) else list(additional_features or ())
        for column in self._more:
            find_field(column, (), data.features, "additional", self.name)
        self._data = _undecoded(data, self._image)
        if not len(self._data):
            raise DataError(f"{self.name}, split '{split}', is empty")
        self._number_texts()
        self.class_to_idx = self._labels.class_to_idx
        self._rows: np.ndarray | None = None
        if self._labels.class_map is not None:
            targets = self.targets()
            if isinstance(targets, np.ndarray):
                kept = drop_unmapped(self.name, targets)
                self._rows = kept if len(kept) < len(targets) else None

    def _number_texts(self) -> None:
        """Give labels to a column of class names."""
        keys = self._labels.keys
        if self._labels.class_to_idx is None and len(keys) == 1 and keys[0] in self._data.features and \
                getattr(self._data.features[keys[0]], "dtype", None) in ("string", "large_string"):
            self._labels.class_to_idx = index_classes(self._data.unique(keys[0]))

    def _row(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} samples")
        return index if self._rows is None else int(self._rows[index])

    def __len__(self) -> int:
        return len(self._data) if self._rows is None else len(self._rows)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        record = self._data[self._row(index)]
        name = f"{self.name}/{_path_of(record[self._image], index)}"
        return _source(record[self._image], name), self._labels(record), *(record[key] for key in self._more)

    def targets(self) -> Sequence[Any] | None:
        if not self._labels.keys:
            return None
        columns = list(dict.fromkeys(key if key in self._data.features else key.partition("/")[0]
                                     for key in self._labels.keys))
        data = self._data.select_columns(columns)
        rows = self._rows if self._rows is not None else range(len(data))
        if len(self._labels.keys) == 1 and self._labels.keys[0] in columns:  # one look at a column of numbers
            values = data[:][columns[0]]
            found = [self._labels.map(values[row]) for row in rows]
        else:
            found = [self._labels(data[int(row)]) for row in rows]
        return found if found and isinstance(found[0], list) else np.array(found)

    def _path(self, index: int) -> str:
        return _path_of(self._data[self._row(index)][self._image], index)


def _path_of(image: Any, number: int) -> str:
    path = image.get("path") if isinstance(image, Mapping) else image if isinstance(image, str) else None
    return path or str(number)


class HuggingFaceStreamReader(StreamReader):
    """Samples of a Hugging Face dataset one after the other, as they are fetched.

    Args:
        name, root, split, class_map, input_key, target_key, trust_remote_code, config: As of `HuggingFaceReader`.
        download: Fetch all of it first, and stream it from disk.
        shuffle_size: Undecoded samples to draw from, in training.
    """

    def __init__(self, name: str, root: str | os.PathLike[str] | None = None, split: str = "train",
                 class_map: ClassMap | None = None, input_key: str | None = None, target_key: str | None = None,
                 download: bool = False, shuffle_size: int | None = None, trust_remote_code: bool = False,
                 config: str | None = None, need_classes: bool = False) -> None:
        self.name = f"hfids/{name or root}"
        root = None if root is None else os.fspath(root)
        data = _load("hfids", name, root, split, trust_remote_code, config, streaming=not download)
        if hasattr(data, "to_iterable_dataset"):  # it lies on disk
            self.num_samples = len(data)
            data = data.to_iterable_dataset(num_shards=max(1, min(_SHARDS, len(data))))
        else:
            known = (data.info.splits or {}).get(str(data.split)) if data.info is not None else None
            self.num_samples = getattr(known, "num_examples", None) or None
        features = data.features or dict.fromkeys(next(iter(data.take(1)), {}))
        self._image = _image_column(self.name, features, input_key)
        self._labels = _Labels(self.name, features, target_key, class_map, need_classes)
        self.class_to_idx = self._labels.class_to_idx
        self._data = _undecoded(data, self._image)
        self._shuffle_size = shuffle_size or _SHUFFLE_BUFFER

    def stream(self, seed: int | None) -> Iterator[Sample]:
        data = self._data
        if seed is not None:
            options = {"max_buffer_input_shards": 1}  # several are read by threads, which end after seconds of sleep
            known = inspect.signature(data.shuffle).parameters
            data = data.shuffle(seed=seed, buffer_size=self._shuffle_size,
                                **{key: value for key, value in options.items() if key in known})
        # Plain iteration would divide the shards among the loader's workers.
        for number, batch in enumerate(data.iter(batch_size=1)):
            record = {column: values[0] for column, values in batch.items()}
            target = self._labels(record)
            if isinstance(target, str):
                raise DataError(f"{self.name}: label '{target}' is a name, and a stream cannot know them all: "
                                "give a class_map")
            if not np.array_equal(target, UNMAPPED):
                image = record[self._image]
                name = f"{self.name}/{_path_of(image, number)}"
                yield Sample(name, _source(image, name), target)
