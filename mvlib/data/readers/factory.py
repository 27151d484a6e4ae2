"""A reader by name."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable
from typing import Any

from ...errors import ConfigError, DataError
from ...names import closest, closest_path
from .base import Reader, StreamReader

__all__ = ["MANIFESTS", "PREFIXES", "create_reader", "is_of_files", "split_name"]

MANIFESTS = (".csv", ".tsv", ".parquet")
_READERS = {  # module and what makes the reader
    "hfds": ("hf", "HuggingFaceReader"),
    "hfids": ("hf", "HuggingFaceStreamReader"),
    "tfds": ("tfds", "create_tfds_reader"),
    "wds": ("wds", "create_wds_reader"),
}
PREFIXES = ("torch", *_READERS)
_FOLDER_NAMES = ("", "folder", "image_folder", "imagefolder")
_TAR_NAMES = ("tar", "image_tar", "imagetar", "image_in_tar")
_FILE_NAMES = (*_FOLDER_NAMES, *_TAR_NAMES, "csv", "tsv", "parquet")


def split_name(name: str) -> tuple[str, str]:
    """("hfds", "user/set") of "hfds/user/set", ("csv", "path") of "csv:path"; ("", name) of a name without prefix.

    Case does not matter in a prefix.

    Raises:
        ConfigError: The prefix is unknown.
    """
    if name.lower().startswith("csv:"):
        return "csv", name[4:]
    prefix, slash, rest = name.partition("/")
    if slash and prefix.lower() in PREFIXES:
        return prefix.lower(), rest
    if not slash or not prefix or prefix.startswith(".") or os.path.exists(name) or _is_manifest(name):
        return "", name
    raise ConfigError(f"data set '{name}': '{prefix}/' is none of {', '.join(known + '/' for known in PREFIXES)}, and "
                      f"there is no such file or folder{closest(prefix, PREFIXES)}")


def is_of_files(name: str) -> bool:
    """Whether a data set is read from the files of its root, which have to be there.

    Raises:
        ConfigError: The name has an unknown prefix.
    """
    prefix, rest = split_name(name)
    return not prefix and rest.lower() in _FILE_NAMES


def create_reader(name: str = "", root: str | os.PathLike[str] | None = None, split: str = "train",
                  **kwargs: Any) -> Reader | StreamReader:
    """The reader of a data set that is named as in `create_dataset`.

    Raises:
        ConfigError: Name, split or an argument is not known.
        DataError: The data set cannot be used.
        MissingPackageError: The reader needs a package that is not installed.
    """
    kwargs = {key: value for key, value in kwargs.items() if value is not None}
    prefix, rest = split_name(name)
    if prefix == "torch":
        from .torchvision_reader import TorchvisionReader

        if kwargs.get("class_map"):
            raise ConfigError(f"data set '{name}' takes no class_map: torchvision numbers its classes")
        extra = {key: value for key, value in kwargs.items() if key not in _OF_SOME}
        return TorchvisionReader(rest, root, split, bool(kwargs.get("download")), extra)
    if prefix in _READERS:
        module, make = _READERS[prefix]
        make = getattr(importlib.import_module(f".{module}", __package__), make)
        return _call(make, name, name=rest, root=root, split=split, **kwargs)
    return _from_files(prefix, rest, root, split, kwargs)


def _from_files(prefix: str, name: str, root: str | os.PathLike[str] | None, split: str,
                kwargs: dict[str, Any]) -> Reader:
    kind = name.lower()
    if _is_manifest(name) or prefix == "csv" and name:
        path: str | os.PathLike[str] = name if root is None or os.path.exists(name) else os.path.join(root, name)
    elif root is None:
        if not name or kind in _FILE_NAMES:
            raise ConfigError(f"data set '{name}' needs a root: the folder, tar or manifest to read")
        if not os.path.exists(name):
            raise ConfigError(f"data set '{name}' is neither a file or folder, nor a known name"
                              f"{closest(kind, [*_FILE_NAMES[1:], *PREFIXES])}")
        path, kind = name, ""
    else:
        path = root
    path = os.fspath(path)
    if not os.path.exists(path):
        raise DataError(f"{path} does not exist{closest_path(path)}")
    if prefix == "csv" or kind in ("csv", "tsv", "parquet") or _is_manifest(path):
        from .manifest import ManifestReader

        return _call(ManifestReader, path, path=path, split=split, **kwargs)
    if kind in _TAR_NAMES or os.path.isfile(path) or kind not in _FOLDER_NAMES[1:] and _only_tars(path):
        from .tar import TarReader

        return _call(TarReader, path, root=path, **kwargs)
    from .folder import FolderReader

    return _call(FolderReader, path, root=path, **kwargs)


def _is_manifest(path: str) -> bool:
    return path.lower().endswith(MANIFESTS)


def _only_tars(folder: str) -> bool:
    """Whether a folder holds tars, and neither folders nor other data files."""
    with os.scandir(folder) as entries:
        listed = [entry for entry in entries if not entry.name.startswith((".", "_"))]
    return any(entry.name.lower().endswith(".tar") for entry in listed) and not any(entry.is_dir() for entry in listed)


def _call(make: Callable[..., Any], what: str, **kwargs: Any) -> Any:
    """Make a reader; what is meant for other readers (seed, batch_size, ...) is dropped, what is unknown refused."""
    known = inspect.signature(make).parameters
    for key in set(kwargs) - set(known):
        if key not in _OF_SOME:
            raise ConfigError(f"data set '{what}' does not take the argument '{key}'{closest(key, known)}")
        del kwargs[key]
    return make(**kwargs)


# Arguments that create_dataset offers for all data sets, and that mean nothing for some.
_OF_SOME = frozenset(("class_map", "download", "is_training", "need_classes", "batch_size", "repeats", "seed",
                      "num_samples", "trust_remote_code", "input_key", "target_key", "split", "input_img_mode"))
