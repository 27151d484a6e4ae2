"""Data sets by name."""

from __future__ import annotations

import logging
import os
from typing import Any

from ..errors import DataError
from .dataset import ImageDataset, IterableImageDataset
from .readers import StreamReader, create_reader
from .readers.factory import split_name
from .readers.splits import EVAL_SPLITS, TRAIN_SPLITS, synonyms

__all__ = ["create_dataset"]

_logger = logging.getLogger(__name__)
_undivided: dict[str, str] = {}  # {folder without folders for splits: the first split that it was read for}


def create_dataset(
    name: str,
    root: str | os.PathLike[str] | None = None,
    split: str = "validation",
    search_split: bool = True,
    class_map: Any = None,
    load_bytes: bool = False,
    is_training: bool = False,
    download: bool = False,
    batch_size: int = 1,
    num_samples: int | None = None,
    seed: int = 42,
    repeats: int = 0,
    input_img_mode: str = "RGB",
    trust_remote_code: bool = False,
    **kwargs: Any,
) -> ImageDataset | IterableImageDataset:
    """A data set of images. Names, arguments and their order are timm's.

        ""              what `root` is: a folder of class folders, a tar, a folder of tars, a manifest; also "folder"
        tar             a tar or a folder of tars, read in place
        csv:PATH        a manifest of path and label: .csv, .tsv or .parquet; also a name or root that ends so
        torch/cifar10   torchvision's data sets; `root` is torchvision's
        hfds/NAME       Hugging Face datasets; NAME may be a folder. `root` is their cache
        hfids/NAME      the same as a stream
        tfds/NAME       TensorFlow datasets; `root` is their data folder
        wds/            WebDataset shards in `root`, by index where they lie on disk, as a stream from URLs

    Args:
        name: See above. The prefix may be in upper or lower case.
        root: Where the data lies.
        split: "train", "validation" and their synonyms (training; val, valid, eval, evaluation), or a name that the
            data set knows.
        search_split: Take the folder of `root` that is named as the split, if there is one.
        class_map: Labels by class name: a dict or a file, see `load_class_map`.
        load_bytes: Give the transform the undecoded file.
        is_training: Shuffle streams; and images without a class are an error.
        download: Fetch what is not there, where the source can.
        batch_size, num_samples, seed, repeats: Of streams, see `IterableImageDataset`; otherwise not used.
        input_img_mode: PIL's mode of the images; "" for that of each file.
        trust_remote_code: Of hfds/ and hfids/, for versions before 4.
        kwargs: More arguments of the reader or the data set: input_key, target_key, ...

    Returns:
        `ImageDataset`, or `IterableImageDataset` for hfids/, for wds/ from URLs, and for tfds/ that were not prepared
        for random access.

    Raises:
        ConfigError: An argument or a name is unknown.
        DataError: The data cannot be used: there is none, it is cut off, the split is missing.
        MissingPackageError: A package is needed that is not installed.
    """
    kwargs = {key: value for key, value in kwargs.items() if value is not None}
    prefix, _ = split_name(name)
    if search_split and root is not None and os.path.isdir(root) and _has_split_folders(prefix, name):
        root = _search_split(os.fspath(root), split)
    of_dataset = {key: kwargs.pop(key) for key in ("transform", "target_transform") if key in kwargs}
    reader = create_reader(
        name, root=root, split=split, class_map=class_map or None, is_training=is_training, download=download,
        need_classes=is_training, repeats=repeats, trust_remote_code=trust_remote_code, **kwargs)
    if isinstance(reader, StreamReader):
        return IterableImageDataset(reader=reader, is_training=is_training, batch_size=batch_size,
                                    num_samples=num_samples, seed=seed, repeats=repeats,
                                    input_img_mode=input_img_mode, **of_dataset)
    return ImageDataset(reader=reader, load_bytes=load_bytes, input_img_mode=input_img_mode,
                        additional_features=kwargs.get("additional_features"), **of_dataset)


def _has_split_folders(prefix: str, name: str) -> bool:
    return prefix in ("", "wds") or prefix == "torch" and name.lower() in ("torch/image_folder", "torch/folder",
                                                                             "torch/imagefolder")


def _search_split(root: str, split: str) -> str:
    """The folder or file of `root` for a split: of its very name, else of a synonym; `root` if it has none at all.

    Raises:
        DataError: `root` has folders for other splits alone, so that reading all of it would mix them.
    """
    for found in synonyms(split.partition("[")[0]):
        for candidate in (os.path.join(root, found), os.path.join(root, f"{found}.tar")):
            if os.path.exists(candidate):
                return candidate
    names = (*TRAIN_SPLITS, *EVAL_SPLITS, "test")
    others = sorted(found for found in names if _holds_classes(os.path.join(root, found)))
    if others:
        raise DataError(f"{root} has no folder for the split '{split}'; there is {', '.join(others)}")
    before = _undivided.setdefault(os.path.realpath(root), split)
    if (before.partition("[")[0] in TRAIN_SPLITS) != (split.partition("[")[0] in TRAIN_SPLITS):
        _logger.warning("%s has no folders for splits: '%s' is the same images as '%s'", root, split, before)
    return root


def _holds_classes(folder: str) -> bool:
    """Whether a folder is of a split, and not of a class that is called "train" or "test"."""
    if not os.path.isdir(folder):
        return False
    with os.scandir(folder) as entries:
        return any(entry.is_dir() for entry in entries if not entry.name.startswith("."))
