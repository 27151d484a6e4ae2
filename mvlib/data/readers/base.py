"""What a reader is, and the small pieces that readers share."""

from __future__ import annotations

import importlib
import io
import os
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from types import ModuleType
from typing import Any, NamedTuple, TypeVar, overload

import numpy as np

from ...errors import MissingPackageError

__all__ = ["NamedBytes", "Names", "Reader", "Sample", "StreamReader", "class_names",
           "parse_extensions", "require_package", "shuffled"]

T = TypeVar("T")


class NamedBytes(io.BytesIO):
    """The content of an image file, which knows the name that errors should say."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name


class Names(Sequence[str]):
    """Strings in one block of memory.

    A list of a million strings is a million objects, whose reference counts make every worker process copy, page by
    page, what fork lets it share.
    """

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [os.fsencode(name) for name in names]
        self._text = b"".join(encoded)
        self._ends = np.fromiter(accumulate(map(len, encoded), initial=0), np.int64, len(encoded) + 1)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} samples")
        index %= len(self)
        return os.fsdecode(self._text[self._ends[index]:self._ends[index + 1]])


class Reader:
    """Samples by their number, undecoded.

    Indexing gives (source, target, *features): source is what `open_image` takes (a path, or a stream with a name)
    or a PIL image, target an int label, or None where there is none. A reader can be pickled and used in several
    processes at once: files are opened by the process that reads.

    Attributes:
        name: For people.
        class_to_idx: Label of each class name; None where classes have no names.
    """

    name: str = ""
    class_to_idx: dict[str, int] | None = None

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        raise NotImplementedError

    def targets(self) -> Sequence[Any] | None:
        """All targets, read without the images; None where that cannot be had."""
        return None

    def _path(self, index: int) -> str:
        """Path of a sample below `self.root`, or its name where it is no file."""
        raise NotImplementedError

    def filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        """Name of a sample, below the root unless `absolute`; its last part if `basename`."""
        return self._filename(index, basename, absolute)

    def _filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        """The same; what readers written for timm define."""
        path = self._path(index)
        if basename:
            return os.path.basename(path)
        return os.path.join(getattr(self, "root", None) or "", path) if absolute else path

    def filenames(self, basename: bool = False, absolute: bool = False) -> list[str]:
        return [self.filename(index, basename, absolute) for index in range(len(self))]


class Sample(NamedTuple):
    """A sample of a stream, undecoded: `source` and `target` as a `Reader` gives them."""

    name: str
    source: Any
    target: Any


class StreamReader:
    """Samples one after the other, in an order that the seed alone decides.

    Attributes:
        name, class_to_idx: As of `Reader`.
        num_samples: Of one pass, None if that is not known.
    """

    name: str = ""
    class_to_idx: dict[str, int] | None = None
    num_samples: int | None = None

    def stream(self, seed: int | None) -> Iterator[Sample]:
        """One pass over all samples, in every process the same one: shuffled by `seed`, in their own order if None."""
        raise NotImplementedError


def parse_extensions(input_key: str | None) -> list[str] | None:
    """Extensions from timm's `input_key`, such as ".jpg;png"."""
    parts = [part.strip().lower() for part in (input_key or "").split(";")]
    return [part if part.startswith(".") else f".{part}" for part in parts if part] or None


def class_names(class_to_idx: Mapping[str, int] | None) -> list[str] | None:
    """Names by label. Of several names of a label the first; a label without one is named by its number."""
    if not class_to_idx:
        return None
    names: dict[int, str] = {}
    for name, index in class_to_idx.items():
        names.setdefault(index, name)
    return [names.get(index, str(index)) for index in range(max(names) + 1)]


def require_package(module: str, needed_by: str, package: str | None = None) -> ModuleType:
    """Import an optional package.

    Raises:
        MissingPackageError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = package or module.partition(".")[0]
        raise MissingPackageError(f"'{needed_by}' needs the package '{package}': pip install {package} "
                                  f"(or pip install 'mvlib[train]')") from error


def shuffled(items: Iterable[T], size: int, seed: int) -> Iterator[T]:
    """The same items in an order that `seed` decides: each is drawn from a buffer of the next `size`."""
    draw = random.Random(seed)
    buffer: list[T] = []
    for item in items:
        if len(buffer) < size:
            buffer.append(item)
            continue
        place = draw.randrange(size)
        item, buffer[place] = buffer[place], item
        yield item
    draw.shuffle(buffer)
    yield from buffer
