"""torchvision's data sets for classification."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import BadImageError, ConfigError, DataError
from ...names import closest
from .base import Reader
from .splits import EVAL_SPLITS, TRAIN_SPLITS, synonyms

__all__ = ["TorchvisionReader"]

_NAMES = (
    "CIFAR10", "CIFAR100", "CLEVRClassification", "Caltech101", "Caltech256", "Country211", "DTD", "EMNIST", "EuroSAT",
    "FER2013", "FGVCAircraft", "FakeData", "FashionMNIST", "Flowers102", "Food101", "GTSRB", "INaturalist",
    "ImageFolder", "ImageNet", "Imagenette", "KMNIST", "LFWPeople", "MNIST", "Omniglot", "OxfordIIITPet", "PCAM",
    "Places365", "QMNIST", "RenderedSST2", "SEMEION", "STL10", "SUN397", "SVHN", "StanfordCars", "USPS",
)
_ALIASES = {"folder": "ImageFolder", "inat": "INaturalist"}
# Beside its synonyms, what a split is called where it goes by another name.
_OTHER_NAMES = {"train": ("train-standard", "trainval"), "validation": ("test",)}
_UNKNOWN_SPLIT = re.compile(r"Unknown value .* for argument split")


class TorchvisionReader(Reader):
    """Samples of a data set of `torchvision.datasets`, named without regard to case, "_" and "-".

    A split is passed on as the data set takes it: by `train=`, `split=` (under a synonym if it knows only that; where
    there is no validation split, "validation" is "test"), `version=` (INaturalist: "2021_train" for "train";
    "kingdom/train" for its labels), `background=` (Omniglot). EMNIST: "letters/train", else "balanced".

    Args:
        name: Without "torch/".
        root: Of torchvision's data set.
        split: As of `create_dataset`.
        download: Fetch it if it is not there.
        extra: More arguments of the data set's class.

    Raises:
        ConfigError: Name, split or an argument is unknown.
        DataError: The data is not there.
    """

    def __init__(self, name: str, root: str | os.PathLike[str] | None, split: str = "train", download: bool = False,
                 extra: Mapping[str, Any] | None = None) -> None:
        from torchvision import datasets

        made = self._class_name(name)
        self.name = f"torch/{made}"
        self.root = None if root is None else os.fspath(root)
        make = getattr(datasets, made)
        known = _parameters(make)
        arguments = dict(extra or {})
        for key in arguments:
            if key not in known:
                raise ConfigError(f"{self.name} does not take the argument '{key}'{closest(key, known)}")
        if "root" in known:
            if root is None:
                raise ConfigError(f"{self.name} needs a root: torchvision's folder of data")
            arguments["root"] = self.root
        if "download" in known and made != "ImageNet":
            arguments["download"] = download
        if "loader" in known:  # so that files are read as everywhere in mvlib, and errors name them
            arguments.setdefault("loader", as_path)
        self.dataset = self._make(make, arguments, list(_split_arguments(known, split)), split)
        self.class_to_idx = _classes(self.dataset)

    @staticmethod
    def _class_name(name: str) -> str:
        plain = re.sub(r"[_-]", "", name.lower())
        found = {known.lower(): known for known in _NAMES}.get(plain) or _ALIASES.get(plain)
        if found is None:
            raise ConfigError(f"'torch/{name}' is not one of torchvision's data sets for classification"
                              f"{closest(plain, [known.lower() for known in _NAMES])}")
        return found

    def _make(self, make: Any, arguments: dict[str, Any], choices: list[dict[str, Any]], split: str) -> Any:
        refusal: Exception | None = None
        for choice in choices:
            try:
                return make(**choice, **arguments)
            except ValueError as error:
                if not _UNKNOWN_SPLIT.search(str(error)):
                    raise
                refusal = refusal or error
            except (RuntimeError, OSError) as error:
                raise DataError(f"{self.name}, split '{split}': {' '.join(str(error).split())}") from error
        raise ConfigError(f"{self.name} has no split '{split}': {refusal}") from refusal

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} samples")
        try:
            image, target = self.dataset[index]
        except (OSError, ValueError, SyntaxError) as error:
            raise BadImageError(f"{self.filename(index, absolute=True)}: {error}") from error
        return image, target if isinstance(target, (tuple, list, dict)) else int(target)

    def targets(self) -> Sequence[Any] | None:
        for name in ("targets", "_targets", "labels", "_labels", "y"):
            values = getattr(self.dataset, name, None)
            if values is not None and len(values) == len(self):
                return np.asarray(values)
        pairs = self._files()
        return None if pairs is None or isinstance(pairs[0], str) else np.array([target for _, target in pairs])

    def _files(self) -> list[Any] | None:
        """Paths, or pairs of path and label, where the data set keeps them."""
        for name in ("samples", "_samples", "imgs", "_image_files", "_images"):
            values = getattr(self.dataset, name, None)
            if isinstance(values, (list, tuple)) and len(values) == len(self) and len(values):
                entry = values[0]
                first = entry[0] if isinstance(entry, (list, tuple)) else entry
                if isinstance(first, (str, os.PathLike)):
                    return list(values)
        return None

    def _path(self, index: int) -> str:
        files = self._files()
        if files is None:
            return f"{self.name.partition('/')[2]}/{index}"
        entry = files[index]
        path = os.fspath(entry[0] if isinstance(entry, (list, tuple)) else entry)
        return os.path.relpath(path, self.root) if self.root else path


def as_path(path: Any) -> Any:
    """The `loader` of torchvision's data sets, in the place of one that opens the image."""
    return path


def _parameters(make: type) -> set[str]:
    """Arguments of a class, those that it passes on to its base too."""
    names: set[str] = set()
    for base in make.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters.values()
        names.update(p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL))
        if not any(p.kind == p.VAR_KEYWORD for p in parameters):
            break
    return names - {"self"}


def _split_arguments(known: set[str], split: str) -> Iterator[dict[str, Any]]:
    """Arguments to try, one after the other, for a split."""
    kind, slash, rest = split.rpartition("/")
    training = rest in TRAIN_SPLITS
    if "version" in known:
        version = "2021_train" if training else "2021_valid" if rest in EVAL_SPLITS else rest
        levels = kind.split("_") if slash else ["full"]
        yield {"version": version, "target_type": levels if len(levels) > 1 else levels[0]}
    elif {"train", "split"} <= known:
        yield {"train": training, "split": kind or "balanced"}
    elif "what" in known:  # QMNIST
        usual = training or split in EVAL_SPLITS
        yield {"train": training} if usual else {"what": split}
    elif "train" in known or "background" in known:
        if split not in (*TRAIN_SPLITS, *EVAL_SPLITS, "test"):
            raise ConfigError(f"split '{split}' is none of train, validation and test{closest(split, _OTHER_NAMES)}")
        yield {"train" if "train" in known else "background": training}
    elif "split" in known:
        other = "train" if training else "validation" if split in EVAL_SPLITS else ""
        yield from ({"split": name} for name in (*synonyms(split), *_OTHER_NAMES.get(other, ())))
    else:
        yield {}


def _classes(dataset: Any) -> dict[str, int] | None:
    names = next((values for name in ("wnids", "classes", "categories")
                  if isinstance(values := getattr(dataset, name, None), (list, tuple)) and values), None)
    if names is None:
        return None
    names = [", ".join(name) if isinstance(name, (list, tuple)) else str(name) for name in names]
    repeated = {name for name in names if names.count(name) > 1}
    return {f"{name} ({index})" if name in repeated else name: index for index, name in enumerate(names)}
