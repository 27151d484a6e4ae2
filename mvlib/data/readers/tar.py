"""Images in tars, read where they lie: a tar is indexed once, and then an image is one read at its offset."""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from ...errors import BadImageError, DataError
from ...names import natural_text
from .base import NamedBytes, Names, Reader, parse_extensions
from .class_map import ClassMap, label_by_folder, load_class_map
from .img_extensions import get_img_extensions

__all__ = ["Files", "Member", "TarReader", "index_tar", "list_tars"]

_BLOCK = 512
_CACHE_FROM = 10_000  # files in a tar, that take longer to find anew than to look up
_CACHE_FORMAT = 1
_OPEN_FILES = 64
_COMPRESSED = (".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz", ".zst")


class Member(NamedTuple):
    """A file in a tar: `name` is its path, behind the names of the tars within that hold it; offset, size in bytes."""

    name: str
    offset: int
    size: int


def index_tar(path: str | os.PathLike[str], counted: Callable[[str], bool] = bool) -> list[Member]:
    """The files of a tar, and of tars within it, in their order.

    The index of a tar of many files is kept in the user's cache, for as long as the tar's size and time are the same.

    Args:
        counted: Which names are samples, for the message when the tar is damaged.

    Raises:
        DataError: The file is no tar, compressed, cut off or damaged. Names the file, and how many samples there are
            before the damage.
    """
    path = os.fspath(path)
    members: list[Member] = []
    try:
        status = os.stat(path)
        key = np.array([_CACHE_FORMAT, status.st_size, status.st_mtime_ns], np.int64)
        cache = _cache_path(path)
        found = _read_cache(cache, key)
        if found is not None:
            return found
        with open(path, "rb") as stream:
            _scan(stream, "", 0, status.st_size, members)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except _Damaged as error:
        if not members and path.lower().endswith(_COMPRESSED):
            raise DataError(f"{path} is compressed, and cannot be read in place: decompress it") from error
        readable = sum(counted(member.name) for member in members)
        raise DataError(f"{path} {error}; {readable} samples before that can be read") from error
    if len(members) >= _CACHE_FROM:
        with suppress(OSError):  # a cache that cannot be written costs time, no more
            _write_cache(cache, key, members)
    return members


class _Damaged(Exception):
    """What is wrong with a tar."""


def _scan(stream: BinaryIO, prefix: str, start: int, size: int, members: list[Member]) -> None:
    """Append the files of the tar in `stream`, whose `size` bytes begin at byte `start` of the outermost tar."""
    where = f"(in it, {prefix[:-1]}) " if prefix else ""
    try:
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            while (info := tar.next()) is not None:
                tar.members = []  # they would pile up
                if not info.isreg() or info.issparse():
                    continue
                offset = start + info.offset_data
                if info.name.lower().endswith(".tar"):
                    _scan(tar.extractfile(info), f"{prefix}{info.name}/", offset, info.size, members)
                else:
                    members.append(Member(prefix + info.name, offset, info.size))
            # Of a damaged header or the file's end, tarfile makes an ordinary end.
            stream.seek(tar.offset)
            if not (block := stream.read(_BLOCK)) or block.strip(b"\0"):
                raise _Damaged(f"{where}is cut off or damaged at byte {start + tar.offset}")
    except (tarfile.TarError, ValueError, EOFError) as error:
        if members and members[-1].offset + members[-1].size > start + size:
            members.pop()
        raise _Damaged(f"{where}is cut off or damaged ({error})") from error


def _cache_path(path: str) -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    name = sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:32]
    return Path(home) / "mvlib" / "tars" / f"{name}.npz"


def _read_cache(cache: Path, key: np.ndarray) -> list[Member] | None:
    """The index, None if it is of another state of the tar, damaged, or not there."""
    try:
        with np.load(cache, allow_pickle=False) as stored:
            if not np.array_equal(stored["key"], key):
                return None
            names = os.fsdecode(stored["names"].tobytes()).split("\0")
            offsets, sizes = stored["offsets"].tolist(), stored["sizes"].tolist()
    except Exception:  # zipfile and numpy meet damage with many errors
        return None
    if not len(names) == len(offsets) == len(sizes):
        return None
    return [Member(*values) for values in zip(names, offsets, sizes)]


def _write_cache(cache: Path, key: np.ndarray, members: Sequence[Member]) -> None:
    names, offsets, sizes = zip(*members)
    if any("\0" in name for name in names):
        return
    cache.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=cache.parent, suffix=".part", delete=False) as stream:
        try:
            np.savez(stream, key=key, offsets=np.array(offsets, np.int64), sizes=np.array(sizes, np.int64),
                     names=np.frombuffer(os.fsencode("\0".join(names)), np.uint8))
            stream.close()
            os.replace(stream.name, cache)
        except BaseException:
            stream.close()
            os.unlink(stream.name)
            raise


class Files:
    """Reads pieces of files, a few of which it keeps open. Each process opens its own after pickling; after a fork,
    reading at an offset moves no position that processes share."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, BinaryIO] = OrderedDict()

    def __reduce__(self) -> tuple[type[Files], tuple[()]]:
        return Files, ()

    def read(self, path: str, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on; OSError where the file cannot be read or is too short."""
        if not hasattr(os, "pread"):  # Windows
            with open(path, "rb") as stream:
                stream.seek(offset)
                content = stream.read(size)
        else:
            content = self._pread(path, offset, size)
        if len(content) != size:
            raise OSError(f"{path} has changed: it ended at byte {offset + len(content)}")
        return content

    def _pread(self, path: str, offset: int, size: int) -> bytes:
        stream = self._open.get(path)
        if stream is None:
            stream = self._open[path] = open(path, "rb", buffering=0)
            while len(self._open) > _OPEN_FILES:
                self._open.popitem(last=False)  # closed when no thread reads from it any more
        parts = []
        while size and (part := os.pread(stream.fileno(), size, offset)):
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        return b"".join(parts)


def list_tars(folder: str) -> list[str]:
    """Names of the tars in a folder, in natural order."""
    tars = [name for name in os.listdir(folder) if name.lower().endswith(".tar") and not name.startswith(".")]
    return sorted(sorted(tars), key=natural_text)


class TarReader(Reader):
    """Images in a tar, or in the tars of a folder; the class of each is the folder that it lies in.

    Where a folder of tars, or a tar of tars, has images outside of folders, their class is the name of their tar.
    Hidden files are left out. Samples are in the natural order of their names, "a.tar/n01/1.jpg" (in a single tar
    "n01/1.jpg", as in timm).

    Args:
        root: The tar or the folder.
        class_map, need_classes: As of `FolderReader`.
        input_key: Extensions of image files, such as ".jpg;.png"; None for `get_img_extensions()`.

    Raises:
        DataError: There are no images or no classes, or a tar is damaged.
    """

    def __init__(self, root: str | os.PathLike[str], class_map: ClassMap | None = None, input_key: str | None = None,
                 need_classes: bool = False) -> None:
        self.root = self.name = os.fspath(root)
        types = frozenset(parse_extensions(input_key) or get_img_extensions())
        self._single = not os.path.isdir(self.root)
        self._tars = [self.root]
        if not self._single:
            self._tars = [os.path.join(self.root, name) for name in list_tars(self.root)]
            if not self._tars:
                raise DataError(f"{self.root} has no .tar files")

        def is_image(name: str) -> bool:
            base = name.rsplit("/", 1)[-1]
            return os.path.splitext(base)[1].lower() in types and not base.startswith(".")

        found = []  # (name, number of the tar, offset, size)
        for number, tar in enumerate(self._tars):
            prefix = "" if self._single else f"{os.path.basename(tar)}/"
            found += [(prefix + _plain(member.name), number, member.offset, member.size)
                      for member in index_tar(tar, is_image) if is_image(member.name)]
        if not found:
            raise DataError(f"{self.root} has no images: no file in {len(self._tars)} tar(s) ends in "
                            f"{', '.join(sorted(types))}")
        found.sort()
        found.sort(key=lambda row: natural_text(row[0]))
        names = [row[0] for row in found]
        kept, self._targets, self.class_to_idx = label_by_folder(
            self.root, names, [_class_of(name) for name in names],
            load_class_map(class_map, os.path.dirname(self.root) if self._single else self.root),
            need_classes=need_classes)
        self._names = Names(names[i] for i in kept)
        self._places = np.array([found[i][1:] for i in kept], np.int64)
        self._files = Files()

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> tuple[NamedBytes, int | None]:
        name = self._names[index]
        if self._single:
            name = f"{os.path.basename(self.root)}/{name}"
        return read_member(self._files, self._tars, self._places[index], name), \
            None if self.class_to_idx is None else int(self._targets[index])

    def targets(self) -> Sequence[int]:
        return self._targets

    def _path(self, index: int) -> str:
        return self._names[index]


def read_member(files: Files, tars: Sequence[str], place: Sequence[int], name: str) -> NamedBytes:
    """The content of a file at (number of its tar, offset, size).

    Raises:
        BadImageError: It cannot be read any more.
    """
    number, offset, size = (int(value) for value in place)
    try:
        return NamedBytes(files.read(tars[number], offset, size), name)
    except OSError as error:
        raise BadImageError(f"{name}: {error.strerror or error}") from error


def _plain(name: str) -> str:
    return name[2:] if name.startswith("./") else name


def _class_of(name: str) -> str:
    folder = name.rpartition("/")[0].rpartition("/")[2]
    return folder[:-len(".tar")] if folder.lower().endswith(".tar") else folder
