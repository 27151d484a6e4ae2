"""Images in folders that are named as their classes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ...errors import DataError
from ...names import natural_text
from .base import Names, Reader, parse_extensions
from .class_map import ClassMap, index_classes, label_by_folder, load_class_map
from .img_extensions import get_img_extensions

__all__ = ["FolderReader", "find_images_and_targets"]


class FolderReader(Reader):
    """Image files below `root`; the class of each is the name of the folder that it lies in, at any depth.

    Classes and samples are in natural order, and numbered as timm and, with names that sort alike, torchvision do.
    Links are followed. Hidden files and folders are left out, and so are images that lie in `root` itself beside
    class folders (timm makes them a class without a name). A folder with nothing in it is a class too, so that
    training and validation number the others alike; a warning names it.

    Args:
        root: The folder.
        class_map: Labels by class name, see `load_class_map`; images of other classes are left out.
        input_key: Extensions of image files, such as ".jpg;.png"; None for `get_img_extensions()`.
        need_classes: Whether images without class folders are an error; otherwise their target is None.

    Raises:
        DataError: There are no images, or no classes.
    """

    def __init__(self, root: str | os.PathLike[str], class_map: ClassMap | None = None,
                 input_key: str | None = None, need_classes: bool = False) -> None:
        self.root = self.name = os.fspath(root)
        types = frozenset(parse_extensions(input_key) or get_img_extensions())
        if not os.path.isdir(self.root):
            raise DataError(f"{self.root} is not a folder")
        found, classes, empty = _scan(self.root, types)
        if not found:
            raise DataError(f"{self.root} has no images: no file in it or its folders ends in "
                            f"{', '.join(sorted(types))}")
        kept, self._targets, self.class_to_idx = label_by_folder(
            self.root, found, classes, load_class_map(class_map, self.root), empty, need_classes)
        self._paths = Names(found[i] for i in kept)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[str, int | None]:
        return os.path.join(self.root, self._paths[index]), \
            None if self.class_to_idx is None else int(self._targets[index])

    @property
    def samples(self) -> list[tuple[str, int | None]]:
        """(path, label) of every image."""
        return [self[index] for index in range(len(self))]

    def targets(self) -> Sequence[int]:
        return self._targets

    def _path(self, index: int) -> str:
        return self._paths[index]


def find_images_and_targets(
    folder: str | os.PathLike[str], types: Iterable[str] | None = None, class_to_idx: Mapping[str, int] | None = None,
    leaf_name_only: bool = True, sort: bool = True,
) -> tuple[list[tuple[str, int]], dict[str, int]]:
    """([(path, label)], {class name: label}) of the images below a folder, by the folders that they lie in.

    Args:
        types: Extensions of image files, None for `get_img_extensions()`.
        class_to_idx: Labels; images of other classes are left out. None numbers the classes in natural order.
        leaf_name_only: Classes are named as the folder itself; otherwise by its path below `folder`, "_" for "/".
        sort: As timm has it; they are in natural order in any case.
    """
    root = os.fspath(folder)
    paths, classes, _ = _scan(root, frozenset(types or get_img_extensions()))
    if not leaf_name_only:
        classes = [os.path.dirname(path).replace(os.sep, "_") for path in paths]
    labels = dict(class_to_idx) if class_to_idx is not None else index_classes(classes)
    return [(os.path.join(root, path), labels[name]) for path, name in zip(paths, classes) if name in labels], labels


def _scan(root: str, types: frozenset[str]) -> tuple[list[str], list[str], list[str]]:
    """Paths of images below the root, sorted, the name of the folder of each, and those of folders with nothing."""
    found: list[tuple[str, str]] = []
    empty: list[str] = []
    for folder, files, folders in _walk(root, "", frozenset()):
        prefix, name = os.path.join(folder, ""), os.path.basename(folder)
        found += [(prefix + file, name) for file in files if file[file.rfind("."):].lower() in types]
        if folder and not files and not folders:
            empty.append(name)
    found.sort()  # decides between names that are alike in natural order
    found.sort(key=lambda row: natural_text(row[0]))
    return [path for path, _ in found], [name for _, name in found], empty


def _walk(root: str, folder: str, above: frozenset[tuple[int, int]]) -> Iterator[tuple[str, list[str], list[str]]]:
    """(path below the root, files, folders) of a folder and those in it, but for links back to one `above`."""
    path = os.path.join(root, folder) if folder else root
    try:
        status = os.stat(path)
        here = (status.st_dev, status.st_ino)
        if here in above:
            return
        with os.scandir(path) as entries:
            listed = [(entry.name, os.path.isdir(entry) if entry.is_symlink() else entry.is_dir())
                      for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{path} cannot be listed: {error.strerror}") from error
    folders = [name for name, is_folder in listed if is_folder]
    yield folder, [name for name, is_folder in listed if not is_folder], folders
    for name in folders:
        yield from _walk(root, os.path.join(folder, name), above | {here})
