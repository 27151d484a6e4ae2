"""A person's own pictures, looked through before training: which there are, of what classes, in what split, and what is
wrong with them. Imports no torch.

The result is a table of paths, labels and splits, which `mvlib train` reads as it reads any other.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from ..data.images import IMAGE_EXTENSIONS, find_images, open_image
from ..data.readers.class_map import index_classes, is_number
from ..data.readers.factory import MANIFESTS
from ..data.readers.fields import IMAGE_FIELDS, LABEL_FIELDS, find_field
from ..data.readers.manifest import read_table
from ..data.readers.splits import EVAL_SPLITS, TRAIN_SPLITS
from ..errors import BadImageError, DataError
from ..files import csv_writer
from ..names import closest_path
from ..threads import cpu_count

__all__ = ["Pictures", "read_pictures"]

SPLITS = ("train", "validation", "test")
_SPLIT_NAMES = {**dict.fromkeys(TRAIN_SPLITS, "train"), **dict.fromkeys(EVAL_SPLITS, "validation"),
                **dict.fromkeys(("test", "testing"), "test")}
_SHOWN = 5  # pictures or classes that a line names


@dataclass
class Pictures:
    """What was found.

    Attributes:
        root: The folder, or the table, that was read.
        classes: Names, in the order of their labels.
        splits: {"train" | "validation" | "test": [(absolute path, class)]}; no test where there is none.
        notes: What was seen that its owner should know, a line each.
        side: Median of the pictures' shorter sides, in pixels.
        is_divided: Whether validation pictures were taken out of those for training.
        digest: SHA-256 of what is in the files, in the order of `splits`.
    """

    root: Path
    classes: list[str]
    splits: dict[str, list[tuple[str, str]]]
    notes: list[str] = field(default_factory=list)
    side: int = 0
    is_divided: bool = False
    digest: str = ""

    def counts(self, split: str) -> Counter[str]:
        """Pictures a class."""
        return Counter(label for _, label in self.splits.get(split, ()))

    def table(self, repeats: Mapping[str, int] | None = None) -> str:
        """CSV of path, label and split.

        Args:
            repeats: How often the training pictures of a class are listed; once unless it says otherwise.
        """
        text = io.StringIO()
        writer = csv_writer(text)
        writer.writerow(("path", "label", "split"))
        for split, rows in self.splits.items():
            for path, label in rows:
                times = (repeats or {}).get(label, 1) if split == "train" else 1
                writer.writerows([(path, label, split)] * times)
        return text.getvalue()

    def class_map(self) -> str | None:
        """JSON of the class names where the table alone would not tell them: names that are all numbers are read as
        labels."""
        return json.dumps(self.classes) if all(map(is_number, self.classes)) else None


@dataclass(frozen=True)
class _Looked:
    """A picture that was read: what it is known by, its shorter side; or why it could not be."""

    digest: str = ""
    side: int = 0
    reason: str = ""


def read_pictures(data: str | os.PathLike[str], share: float = 0.2) -> Pictures:
    """List, read and divide the pictures of a data set.

    Args:
        data: A folder with a folder a class; one with such folders for training and validation (train, val, test and
            their synonyms, in any case); or a table (.csv, .tsv, .parquet) of paths and labels, perhaps with splits.
        share: Of the pictures of each class that go to validation where the data set has no split for it: those whose
            contents have the least SHA-256, so that names, order and other classes change nothing, and copies of a
            picture stay together. One at least of each class that has two.

    Raises:
        DataError: There are no pictures, a single class, a folder for each picture, or other classes in validation or
            test than in training; or a table says two classes of a picture.
    """
    path = Path(os.path.expanduser(os.fspath(data)))
    if not path.exists():
        raise DataError(f"there is no data set {path}{closest_path(path)}")
    notes: list[str] = []
    if path.is_file():
        if not path.name.lower().endswith(MANIFESTS):
            raise DataError(f"{path} is a file; the data set is a folder with a folder a class, or a table "
                            f"({', '.join(MANIFESTS)})")
        splits = _from_table(path)
    else:
        path, splits = _from_folder(path, notes)
    _check_classes(path, splits)
    splits, looked = _read_all(path, splits, notes)
    classes = _check_classes(path, splits)
    _note_copies(splits, looked, notes)
    found = Pictures(path, classes, splits, notes, is_divided="validation" not in splits)
    if found.is_divided:
        found.splits = _divided(splits, looked, share)
    found.side = int(statistics.median(looked[picture].side for rows in splits.values() for picture, _ in rows))
    found.digest = hashlib.sha256("".join(
        looked[picture].digest for rows in found.splits.values() for picture, _ in rows).encode()).hexdigest()
    _note_counts(found)
    return found


# where they lie


def _from_table(path: Path) -> dict[str, list[tuple[str, str]]]:
    columns = read_table(os.fspath(path))
    paths = columns[find_field(None, IMAGE_FIELDS, columns, "path", str(path))]
    labels = columns[find_field(None, LABEL_FIELDS, columns, "label", str(path))]
    column = next((columns[name] for name in columns if name.strip().lower() == "split"), ["train"] * len(paths))
    splits: dict[str, list[tuple[str, str]]] = {}
    known: dict[str, tuple[int, str]] = {}
    for number, (file, label, split) in enumerate(zip(paths, labels, column), 1):
        if not file or label in (None, ""):
            raise DataError(f"{path}: row {number} has no {'label' if file else 'path'}")
        name = _SPLIT_NAMES.get(str(split).strip().lower())
        if name is None:
            raise DataError(f"{path}: row {number} is of the split '{split}', which is none of "
                            f"{', '.join(_SPLIT_NAMES)}")
        picture, label = os.path.abspath(path.parent / file), str(label)
        before, other = known.setdefault(picture, (number, label))
        if other != label:
            raise DataError(f"{path}: {file} is of the class '{other}' in row {before} and of '{label}' in row "
                            f"{number}: a picture has one class")
        splits.setdefault(name, []).append((picture, label))
    if not splits:
        raise DataError(f"{path} has no rows")
    if "train" not in splits:
        raise DataError(f"{path} has no rows of the split 'train'; there is {', '.join(splits)}")
    return {name: splits[name] for name in SPLITS if name in splits}


def _from_folder(root: Path, notes: list[str]) -> tuple[Path, dict[str, list[tuple[str, str]]]]:
    while True:
        folders, loose = _list(root)
        splits: dict[str, Path] = {}
        for folder in folders:
            name = _SPLIT_NAMES.get(folder.name.lower())
            if name and _list(folder)[0]:  # and is not a class that is called "test"
                if name in splits:
                    raise DataError(f"{root} has two folders for {name}: {splits[name].name} and {folder.name}")
                splits[name] = folder
        if len(folders) == 1 and not loose and not splits and _list(folders[0])[0] and not _list(folders[0])[1]:
            root = folders[0]  # what unpacking an archive makes: DATA/flowers/{daisy,rose,...}
            continue
        break
    if not splits:
        return root, {"train": _classes_in(root, notes)}
    if "train" not in splits:
        raise DataError(f"{root} has no folder for training ({', '.join(TRAIN_SPLITS)}); there is "
                        f"{', '.join(folder.name for folder in splits.values())}")
    if others := [folder.name for folder in folders if folder not in splits.values()]:
        notes.append(f"{root}: left out {_listed(others)}, beside the folders "
                     f"{', '.join(folder.name for folder in splits.values())}")
    return root, {name: _classes_in(splits[name], notes) for name in SPLITS if name in splits}


def _list(folder: Path) -> tuple[list[Path], int]:
    """The folders in a folder, but for hidden ones, and how many pictures are beside them."""
    try:
        with os.scandir(folder) as entries:
            names = [(entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder} cannot be listed: {error.strerror}") from None
    pictures = sum(not is_folder and os.path.splitext(name)[1].lower() in IMAGE_EXTENSIONS for name, is_folder in names)
    return sorted(folder / name for name, is_folder in names if is_folder), pictures


def _classes_in(root: Path, notes: list[str]) -> list[tuple[str, str]]:
    """(path, class) of the pictures below a folder; the class is the first folder's name, however deep they lie."""
    root = Path(os.path.abspath(root))
    rows, loose, deep, empty = [], [], [], []
    written: dict[str, set[str]] = defaultdict(set)  # a table has no blanks around a name
    for path in find_images(root):
        first, *rest = path.relative_to(root).parts
        if not rest:
            loose.append(path.name)
            continue
        deep += [path] if len(rest) > 1 else []
        written[first.strip()].add(first)
        rows.append((os.fspath(path), first.strip()))
    if loose and not rows:
        raise DataError(f"{root} has no class folders: its {len(loose)} pictures lie in it directly, and should lie in "
                        f"{root.name}/CLASS/{loose[0]}")
    if not rows:
        raise DataError(f"{root} has no pictures: no file in its folders is one by its name (.jpg, .png, ...)")
    if blank := written.get(""):
        raise DataError(f"{root}: a class folder has a name of blanks alone, '{min(blank)}'")
    for name, folders in written.items():
        if len(folders) > 1:
            notes.append(f"{root}: the folders {_listed(sorted(folders))} are one class, '{name}'")
    if loose:
        notes.append(f"{root}: left out {len(loose)} pictures that lie in no class folder, such as {loose[0]}")
    if deep:
        example = deep[0].relative_to(root)
        notes.append(f"{root}: {len(deep)} pictures lie deeper than CLASS/picture, such as {example}: their class is "
                     f"the first folder's, '{example.parts[0]}'")
    if empty := [folder.name for folder in _list(root)[0] if folder.name.strip() not in {label for _, label in rows}]:
        notes.append(f"{root}: no pictures in {_listed(empty)}: no class of that name is learned")
    return rows


def _check_classes(root: Path, splits: Mapping[str, Sequence[tuple[str, str]]]) -> list[str]:
    """The classes of the training pictures, in natural order.

    Raises:
        DataError: They are too few, or one a picture, or others than elsewhere, or one has a name that no repository
            keeps.
    """
    counts = Counter(label for _, label in splits["train"])
    if odd := next((label for label in counts if re.search(r"[\x00-\x1f\x7f-\x9f]", label)), None):
        raise DataError(f"{root}: the name of the class {odd!r} has a control character: rename it")
    if not counts:
        raise DataError(f"{root} has no pictures to train on")
    if len(counts) == 1:
        raise DataError(f"{root} has one class alone, '{next(iter(counts))}': there is nothing to tell apart. Give "
                        f"the folder that holds the folders of all classes")
    single = sum(count == 1 for count in counts.values())
    if single == len(counts):
        raise DataError(f"{root} has a single picture of each of its {len(counts)} classes: a class is learned from "
                        f"several. Is each picture in a folder of its own?")
    if single > 20 and 2 * single > len(counts):
        raise DataError(f"{root} has {len(counts)} classes, and {single} of them a single picture, such as "
                        f"{_listed(label for label, count in counts.items() if count == 1)}: the folders seem to be "
                        f"no classes")
    for split, rows in splits.items():
        if unknown := sorted({label for _, label in rows} - set(counts)):
            raise DataError(f"{root}: {split} has pictures of {_listed(unknown)}, and train has none; its classes are "
                            f"{_listed(index_classes(counts))}")
    return list(index_classes(counts))


# what they are


def _read_all(
    root: Path, splits: Mapping[str, Sequence[tuple[str, str]]], notes: list[str]
) -> tuple[dict[str, list[tuple[str, str]]], dict[str, _Looked]]:
    """The splits without what cannot be read, and what each picture is."""
    paths = list(dict.fromkeys(path for rows in splits.values() for path, _ in rows))
    looked = dict(zip(paths, _look_at_all(paths)))
    bad = [(path, looked[path].reason) for path in paths if looked[path].reason]
    if len(bad) == len(paths):
        raise DataError(f"none of the {len(paths)} pictures of {root} can be read; the first: {bad[0][0]}: "
                        f"{bad[0][1]}")
    if bad:
        shown = "; ".join(f"{os.path.relpath(path, root if root.is_dir() else root.parent)} ({reason})"
                          for path, reason in bad[:_SHOWN])
        notes.append(f"left out {_number(len(bad), 'picture')} that cannot be read: {shown}{_more(bad)}")
    kept = {name: [row for row in rows if not looked[row[0]].reason] for name, rows in splits.items()}
    return {name: rows for name, rows in kept.items() if rows or name == "train"}, looked


def _look_at_all(paths: Sequence[str]) -> Iterator[_Looked]:
    from tqdm import tqdm

    with ThreadPoolExecutor(cpu_count()) as pool:  # decoders let go of the interpreter
        yield from tqdm(pool.map(_look_at, paths), total=len(paths), desc="reading the pictures", unit="picture",
                        disable=None, leave=False)


def _look_at(path: str) -> _Looked:
    try:
        path.encode()
        content = Path(path).read_bytes()
        image = open_image(content, None)
    except UnicodeEncodeError:
        return _Looked(reason="its name is not UTF-8")
    except OSError as error:
        return _Looked(reason=error.strerror or str(error))
    except BadImageError as error:
        return _Looked(reason=str(error).removeprefix("<bytes>: "))
    return _Looked(hashlib.sha256(content).hexdigest(), min(image.size))


def _note_copies(
    splits: Mapping[str, Sequence[tuple[str, str]]], looked: Mapping[str, _Looked], notes: list[str]
) -> None:
    """The same content under two classes cannot be learned; in training and validation it flatters."""
    places: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for split, rows in splits.items():
        for path, label in rows:
            places[looked[path].digest].append((split, label, path))
    several = [found for found in places.values() if len(found) > 1]
    mixed = [found for found in several if len({label for _, label, _ in found}) > 1]
    leaks = [found for found in several if len({split for split, _, _ in found}) > 1]
    flatters = "in more than one split, which flatters the result"
    for found, text in ((mixed, "in more than one class"), (leaks, flatters)):
        if found:
            notes.append(f"the same content lies {text}: {_number(len(found), 'picture')}, such as {found[0][0][2]} "
                         f"and {found[0][1][2]}")


def _divided(
    splits: Mapping[str, Sequence[tuple[str, str]]], looked: Mapping[str, _Looked], share: float
) -> dict[str, list[tuple[str, str]]]:
    """The splits with a validation split out of that for training."""
    by_class: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for path, label in splits["train"]:
        by_class[label][looked[path].digest].append(path)
    held: set[str] = set()
    for groups in by_class.values():
        count = sum(map(len, groups.values()))
        wanted = max(1, round(count * share))
        taken = 0
        for digest in sorted(groups)[:-1]:  # one of the pictures stays, at least
            if taken >= wanted:
                break
            if taken and taken + len(groups[digest]) > wanted:
                continue
            taken += len(groups[digest])
            held.update(groups[digest])
    divided = {"train": [row for row in splits["train"] if row[0] not in held],
               "validation": [row for row in splits["train"] if row[0] in held]}
    return {**divided, **{name: list(rows) for name, rows in splits.items() if name == "test"}}


def _note_counts(found: Pictures) -> None:
    train, validation = found.counts("train"), found.counts("validation")
    if single := [name for name in found.classes if train[name] + validation[name] == 1]:
        found.notes.append(f"a single picture of {_listed(single)}: it is trained on, and nothing measures that class")
    if missing := [name for name in found.classes if not validation[name] and name not in single]:
        found.notes.append(f"validation has no picture of {_listed(missing)}: nothing measures "
                           f"{'that class' if len(missing) == 1 else 'those classes'}")


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(f"'{name}'" for name in names[:_SHOWN]) + _more(names)


def _more(items: Sequence[object]) -> str:
    return f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
