"""WebDataset shards: tars in which the files of a sample share a name, "0001.jpg" and "0001.cls".

Shards on disk are indexed and read in place; those behind URLs are streamed by the package `webdataset`.
"""

from __future__ import annotations

import gzip
import json
import logging
import os
import random
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ...errors import ConfigError, DataError, MvlibError
from ...names import natural_key
from .base import NamedBytes, Names, Reader, Sample, StreamReader, require_package, shuffled
from .class_map import NO_LABEL, UNMAPPED, ClassMap, drop_unmapped, index_labels, load_class_map, map_label
from .fields import LABEL_FIELDS, get_target, has_field, target_fields
from .img_extensions import is_img_extension
from .splits import EVAL_SPLITS, TRAIN_SPLITS, find_split, synonyms
from .tar import Files, Member, index_tar, list_tars, read_member

__all__ = ["WdsReader", "WdsStreamReader", "create_wds_reader"]

_logger = logging.getLogger("mvlib")

_INFO_FILES = ("_info.json", "info.json", "_info.yaml", "info.yaml", "_info.yml", "info.yml")
_KEY_AND_FIELD = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")
_URL = re.compile(r"^(pipe:|[A-Za-z][A-Za-z0-9+\-]+://)")
_SHUFFLE_BUFFER = 1024  # undecoded samples, in each process


class Shards(NamedTuple):
    """Shards of a split: paths or URLs; samples in each, in all, and the json field of the label, where known."""

    paths: list[str]
    lengths: Sequence[int] = ()
    num_samples: int | None = None
    label_field: str | None = None


def create_wds_reader(
    name: str, root: str | os.PathLike[str] | None = None, split: str = "train", class_map: ClassMap | None = None,
    input_key: str | None = None, target_key: str | None = None, shuffle_size: int | None = None,
    need_classes: bool = False,
) -> WdsReader | WdsStreamReader:
    """The reader of WebDataset shards.

    Args:
        name: Anything, or the root if that is None.
        root: Folder or URL of the shards.
        split: A split of the root's `_info.json` (info.yaml, ...), a pattern such as "train-{0000..0003}.tar", to which
            "|1000" adds the number of samples, or otherwise a part of the names of the shards ("train").
        class_map: See `load_class_map`; samples of other classes are left out.
        input_key: Fields of the image, in the order in which to look for them, such as "jpg;png;webp".
        target_key: Field of the .json file that has the label, in place of the .cls file; "a/b" of a nested one; of
            several, comma-separated, those above zero are the labels.
        shuffle_size: Undecoded samples to draw from, when a stream is shuffled.

    Raises:
        ConfigError: The split is not there.
        DataError: There are no shards or no samples, or one is cut off or lacks a label.
        MissingPackageError: URLs without `webdataset`.
    """
    where = os.fspath(root) if root is not None else name
    shards = _find_shards(where, split)
    keys = target_fields(target_key or shards.label_field)
    fields = [field.strip().lower().lstrip(".") for field in (input_key or "").split(";") if field.strip()]
    if any(_URL.match(path) for path in shards.paths):
        return WdsStreamReader(shards, f"wds/{where}", class_map, fields, keys, shuffle_size)
    return WdsReader(shards, where, class_map, fields, keys, need_classes)


# shards


def _find_shards(root: str, split: str) -> Shards:
    if ".." in split or ".tar" in split.lower() or _URL.match(split):
        pattern, _, count = split.partition("|")
        if count and not count.isdecimal():
            raise ConfigError(f"split '{split}': behind '|' stands the number of samples, not '{count}'")
        paths = [_join(root, path) for part in pattern.split("::") for path in expand_braces(part)]
        return _existing(Shards(paths, num_samples=int(count) if count else None), split)
    if _URL.match(root):
        info = _read_info(f"{root.rstrip('/')}/{_INFO_FILES[0]}")
    elif os.path.isfile(root):
        return Shards([root])
    elif os.path.isdir(root):
        path = next((path for name in _INFO_FILES if os.path.isfile(path := os.path.join(root, name))), None)
        if path is None:
            return Shards([os.path.join(root, name) for name in _shards_by_name(root, split)])
        info = _read_info(path)
    else:
        raise DataError(f"'wds/': {root or 'no root is given, and the current folder'} is neither a folder nor a URL")
    splits = info.get("splits") or {}
    found = find_split(split, splits)
    if found is None:
        raise ConfigError(f"{root} has no split '{split}'; its info names {', '.join(splits) or 'none'}")
    entry = splits[found]
    try:
        names = [entry["filenames"]] if isinstance(entry["filenames"], str) else list(entry["filenames"])
    except (KeyError, TypeError) as error:
        raise DataError(f"the info of {root} has no filenames for the split '{found}'") from error
    paths = [_join(root, path) for name in names for path in expand_braces(name)]
    return _existing(Shards(paths, tuple(entry.get("shard_lengths") or ()), entry.get("num_samples") or None,
                            entry.get("alt_label") or None), found)


def _existing(shards: Shards, split: str) -> Shards:
    missing = [path for path in shards.paths if not _URL.match(path) and not os.path.isfile(path)]
    if missing:
        raise DataError(f"split '{split}': {len(missing)} of {len(shards.paths)} shards are not there, the first: "
                        f"{missing[0]}")
    return shards


def _shards_by_name(root: str, split: str) -> list[str]:
    """The shards whose name has the split for a part; all of them if they name no split at all."""
    tars = list_tars(root)
    if not tars:
        raise DataError(f"{root} has no shards: no .tar files, and none of {', '.join(_INFO_FILES[:2])}")
    parts = {tar: set(re.split(r"[^A-Za-z]+", tar.lower())) for tar in tars}
    for name in synonyms(split):
        if found := [tar for tar in tars if name.lower() in parts[tar]]:
            return found
    if split not in (*TRAIN_SPLITS, *EVAL_SPLITS) or any(
            parts[tar] & {*TRAIN_SPLITS, *EVAL_SPLITS, "test"} for tar in tars):
        raise ConfigError(f"{root} has no shards of the split '{split}', such as {split}-0000.tar; there is {tars[0]}")
    return tars


def _join(root: str, path: str) -> str:
    if _URL.match(path) or os.path.isabs(path) or not root:
        return path
    return f"{root.rstrip('/')}/{path}" if _URL.match(root) else os.path.join(root, path)


def _read_info(path: str) -> Mapping[str, Any]:
    try:
        if _URL.match(path):
            with require_package("webdataset", "wds/ of a URL").gopen(path) as stream:
                text = stream.read().decode()
        else:
            with open(path, encoding="utf-8") as stream:
                text = stream.read()
        if path.endswith(".json"):
            info = json.loads(text)
        else:
            import yaml

            try:
                info = yaml.safe_load(text)
            except yaml.YAMLError as error:
                raise ValueError(error) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(info, dict):
        raise DataError(f"{path} is no mapping with 'splits'")
    return info


def expand_braces(pattern: str) -> list[str]:
    """"a{0..2}" to a0, a1, a2, with leading zeros as in the first number; "{x,y}" to x and y."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if found is None:
        return [pattern]
    content = found.group(1)
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", content)
    if numbers:
        first, last = numbers.groups()
        choices = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    else:
        choices = content.split(",")
    before, after = pattern[:found.start()], pattern[found.end():]
    return [path for choice in choices for path in expand_braces(before + choice + after)]


# samples


def _split_key(name: str) -> tuple[str, str] | None:
    """(key, field) of a file: up to the first dot of its base name, and what follows."""
    base = name.rpartition("/")[2]
    match = None if base.startswith((".", "__")) else _KEY_AND_FIELD.fullmatch(name)
    return (match.group(1), match.group(2).lower()) if match else None


def _image_field(fields: Mapping[str, Any], wanted: Sequence[str]) -> str | None:
    """The field of a sample's image: the first that is wanted, or without a wish the first image format."""
    if wanted:
        return next((field for field in wanted if field in fields), None)
    return next((field for field in fields if is_img_extension(f".{field}")), None)


def _label_field(fields: Mapping[str, Any], keys: Sequence[str]) -> str | None:
    return "json" if "json" in fields and (keys or "cls" not in fields) else "cls" if "cls" in fields else None


def _label(name: str, field: str | None, content: bytes, keys: Sequence[str]) -> Any:
    """What a .cls or .json file says: an int, a class name, a list, or None if it says nothing.

    Raises:
        DataError: The file is damaged, or lacks the fields asked for.
    """
    if keys and field != "json":
        raise DataError(f"{name}: the label field '{', '.join(keys)}' is to stand in a .json file, and there is none")
    if field is None:
        return None
    try:
        if field == "cls":
            text = content.decode().strip()
            return int(text) if re.fullmatch(r"-?\d+", text) else text or None
        record = json.loads(content)
    except ValueError as error:
        raise DataError(f"{name}.{field} cannot be read: {error}") from error
    keys = keys or [key for key in ("cls", *LABEL_FIELDS) if has_field(record, key)][:1]
    for key in keys:
        if not has_field(record, key):
            raise DataError(f"{name}.json has no field '{key}'; its fields are {', '.join(record)}")
    return get_target(record, keys) if keys else None


class WdsReader(Reader):
    """Samples of shards on disk, in the order of the shards, read in place. Made by `create_wds_reader`.

    Labels are read when the reader is made; samples with a label below 0 are left out, as in timm.
    """

    def __init__(self, shards: Shards, root: str, class_map: ClassMap | None, image_fields: Sequence[str],
                 keys: Sequence[str], need_classes: bool) -> None:
        self.root = root
        self.name = f"wds/{root}"
        self._shards = shards.paths
        self._files = Files()
        names, places, values = [], [], []
        for number, path in enumerate(self._shards):
            before = len(names)
            for key, fields in self._samples(path).items():
                image = _image_field(fields, image_fields)
                if image is None:
                    continue
                name = f"{os.path.basename(path)}/{key}"
                member, field = fields[image], _label_field(fields, keys)
                content = b"" if field is None else self._files.read(path, fields[field].offset, fields[field].size)
                names.append(f"{name}.{image}")
                places.append((number, member.offset, member.size))
                values.append(_label(name, field, content, keys))
            if number < len(shards.lengths) and len(names) - before != shards.lengths[number]:
                _logger.warning("%s has %d samples, and %d by its info file", path, len(names) - before,
                                shards.lengths[number])
        if not names:
            raise DataError(f"{self.name}: {len(self._shards)} shard(s) have no images"
                            + (f" in the fields {', '.join(image_fields)}" if image_fields else ""))
        kept = self._number(names, values, load_class_map(class_map, root if os.path.isdir(root) else ""),
                            list(keys) if len(keys) > 1 else None, need_classes)
        self._names = Names(names[i] for i in kept)
        self._places = np.array([places[i] for i in kept], np.int64)

    def _samples(self, path: str) -> dict[str, dict[str, Member]]:
        def counted(name: str) -> bool:
            return is_img_extension(os.path.splitext(name)[1].lower())

        samples: dict[str, dict[str, Member]] = {}
        for member in index_tar(path, counted):
            found = _split_key(member.name)
            if found is not None:
                samples.setdefault(found[0], {})[found[1]] = member
        return samples

    def _number(self, names: Sequence[str], values: list[Any], class_map: dict[str, int] | None,
                label_names: list[str] | None, need_classes: bool) -> Sequence[int]:
        """Set labels and classes; gives the numbers of the samples that are kept."""
        self._targets: Any = np.full(len(names), NO_LABEL)
        without = next((i for i, value in enumerate(values) if value is None), None)
        if without is not None and (need_classes or any(value is not None for value in values)):
            raise DataError(f"{self.name}: sample {names[without]} has no label: neither a .cls nor a .json says it")
        if without is not None:
            return range(len(names))
        if any(isinstance(value, list) for value in values):
            self.class_to_idx = class_map or (
                {name: index for index, name in enumerate(label_names)} if label_names else None)
            if class_map is not None:
                values = [_mapped(value, class_map, label_names) for value in values]
            self._targets = values
            return range(len(names))
        labels, self.class_to_idx = index_labels(values, class_map)
        kept = drop_unmapped(self.name, labels)
        kept = kept[labels[kept] >= 0]
        if not len(kept):
            raise DataError(f"{self.name}: all labels are below 0")
        self._targets = labels[kept]
        return kept

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> tuple[NamedBytes, Any]:
        name = self._names[index]
        target = self._targets[index]
        if not isinstance(target, list):
            target = None if target == NO_LABEL else int(target)
        return read_member(self._files, self._shards, self._places[index], name), target

    def targets(self) -> Sequence[Any]:
        return self._targets

    def _path(self, index: int) -> str:
        return self._names[index]


def _mapped(values: list[Any], class_map: Mapping[Any, int], names: Sequence[str] | None) -> list[int]:
    found = [map_label(value, class_map, names) for value in values]
    return [label for label in found if label != UNMAPPED]


class WdsStreamReader(StreamReader):
    """Samples of shards from URLs ("https://...", "pipe:..."), fetched one after the other by `webdataset`.

    Made by `create_wds_reader`. Shuffling draws the order of the shards, and then samples from a buffer.
    """

    def __init__(self, shards: Shards, name: str, class_map: ClassMap | None, image_fields: Sequence[str],
                 keys: Sequence[str], shuffle_size: int | None) -> None:
        require_package("webdataset", "wds/ of a URL")
        self.name = name
        self.num_samples = shards.num_samples
        self._urls = sorted(shards.paths, key=natural_key) if not shards.lengths else shards.paths
        self._class_map = load_class_map(class_map)
        self._label_names = list(keys) if len(keys) > 1 else None
        self.class_to_idx = self._class_map or (
            {key: index for index, key in enumerate(self._label_names)} if self._label_names else None)
        self._image_fields = image_fields
        self._keys = keys
        self._shuffle_size = shuffle_size or _SHUFFLE_BUFFER

    def stream(self, seed: int | None) -> Iterator[Sample]:
        if seed is None:
            return self._read(self._urls)
        urls = list(self._urls)
        random.Random(seed).shuffle(urls)
        return shuffled(self._read(urls), self._shuffle_size, seed)

    def _read(self, urls: Sequence[str]) -> Iterator[Sample]:
        for url in urls:
            count = 0
            try:
                for key, fields in _fetch_samples(url):
                    count += 1
                    sample = self._sample(f"{url.rpartition('/')[2]}/{key}", fields)
                    if sample is not None:
                        yield sample
            except MvlibError:
                raise
            except Exception as error:  # those of tarfile, of the network, and of the program behind a pipe
                raise DataError(f"{url} cannot be read to its end ({error}); "
                                f"{count} samples before that were read") from error

    def _sample(self, name: str, fields: Mapping[str, bytes]) -> Sample | None:
        image = _image_field(fields, self._image_fields)
        if image is None:
            return None
        field = _label_field(fields, self._keys)
        target = _label(name, field, fields.get(field, b""), self._keys)
        if self._class_map is not None and target is not None:
            target = _mapped(target, self._class_map, self._label_names) if isinstance(target, list) \
                else map_label(target, self._class_map)
        if isinstance(target, str):
            raise DataError(f"{name}: label '{target}' is a name, and a stream cannot know them all: give a class_map")
        if isinstance(target, int) and target < 0:
            return None
        name = f"{name}.{image}"
        return Sample(name, NamedBytes(fields[image], name), target)


def _fetch_samples(url: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(key, contents of its fields) of the samples of a shard; an error where it is cut off."""
    key, fields = None, {}
    for name, content in _fetch_files(url):
        found = _split_key(name)
        if found is None:
            continue
        if found[0] != key and key is not None:
            yield key, fields
            fields = {}
        key = found[0]
        fields[found[1]] = content
    if key is not None:
        yield key, fields


def _fetch_files(url: str) -> Iterator[tuple[str, bytes]]:
    with require_package("webdataset", "wds/ of a URL").gopen(url) as stream:
        if url.lower().endswith((".gz", ".tgz")):
            stream = gzip.GzipFile(fileobj=stream)
        tail = _Tail(stream)
        with tarfile.open(fileobj=tail, mode="r|") as tar:
            while (info := tar.next()) is not None:
                tar.members = []
                if info.isreg():
                    yield info.name, tar.extractfile(info).read()
            # Of a damaged header or the stream's end, tarfile makes an ordinary end.
            if not (block := tail.at(tar.offset, tarfile.BLOCKSIZE)) or block.strip(b"\0"):
                raise tarfile.ReadError(f"cut off or damaged at byte {tar.offset}")


class _Tail:
    """A stream that remembers what was read last."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._end = 0
        self._last = b""

    def read(self, size: int) -> bytes:
        content = self._stream.read(size)
        self._end += len(content)
        self._last = (self._last + content)[-2 * max(size, tarfile.BLOCKSIZE):]
        return content

    def at(self, offset: int, size: int) -> bytes:
        start = offset - self._end + len(self._last)
        return self._last[start:start + size] if start >= 0 else b""
