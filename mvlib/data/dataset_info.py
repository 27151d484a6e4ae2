"""What the classes of a data set are called: its own, or those of ImageNet's subsets. Imports no torch."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ConfigError
from ..names import closest

__all__ = ["CustomDatasetInfo", "DatasetInfo", "DatasetInfoLabelMapper", "ImageNetInfo", "LabelMappingCoverage",
           "LabelNames", "infer_imagenet_subset"]

LabelNames = Sequence[str] | Mapping[Any, str]  # in the order of the labels, or by label


def read_info(name: str) -> str:
    """The text of a file of the folder `info`."""
    import lzma

    return lzma.decompress((Path(__file__).parent / "info" / f"{name}.xz").read_bytes()).decode()


class DatasetInfo(ABC):
    """Names of the classes, and what they stand for."""

    @abstractmethod
    def num_classes(self) -> int: ...

    @abstractmethod
    def label_names(self) -> Any: ...

    def label_indices(self) -> tuple[int, ...]:
        """Labels that have a name."""
        return tuple(range(self.num_classes()))

    def has_label(self, index: int) -> bool:
        return int(index) in self.label_indices()

    @abstractmethod
    def label_descriptions(self, detailed: bool = False, as_dict: bool = False) -> Any: ...

    @abstractmethod
    def index_to_label_name(self, index: int) -> str: ...

    def index_to_description(self, index: int, detailed: bool = False) -> str:
        return self.label_name_to_description(self.index_to_label_name(index), detailed)

    @abstractmethod
    def label_name_to_description(self, label: str, detailed: bool = False) -> str: ...


class CustomDatasetInfo(DatasetInfo):
    """Of names that are given.

    Args:
        label_names: In the order of the labels, or {label: name}, where labels may be missing, and be strings.
        label_descriptions: {name: description}, None where names speak for themselves.

    Raises:
        ValueError: No names, a label that is no number from 0 on or stands twice, or a name without description.
        TypeError: A name that is no string, or descriptions that are no dict.
    """

    def __init__(self, label_names: LabelNames, label_descriptions: Mapping[str, str] | None = None) -> None:
        if not isinstance(label_names, (list, tuple, dict)) or not label_names:
            raise ConfigError("label_names is neither a list of names nor a dict {label: name}, or it is empty")
        self._given = label_names
        self._names: dict[int, str] = {}
        for key, name in label_names.items() if isinstance(label_names, dict) else enumerate(label_names):
            index = _label(key)
            if index in self._names:
                raise ConfigError(f"label {index} stands twice in label_names")
            if not isinstance(name, str):
                raise TypeError(f"the name of label {index} is {name!r}, not a string")
            self._names[index] = name
        if label_descriptions is not None and not isinstance(label_descriptions, dict):
            raise TypeError(f"label_descriptions are {type(label_descriptions).__name__}, not a dict {{name: text}}")
        described = self._names.values() if label_descriptions is None else label_descriptions
        if missing := [name for name in self._names.values() if name not in described]:
            raise ConfigError(f"label_descriptions say nothing of {', '.join(missing[:3])}")
        self._descriptions = label_descriptions

    def num_classes(self) -> int:
        return len(self._names)

    def label_names(self) -> LabelNames:
        return self._given

    def label_indices(self) -> tuple[int, ...]:
        return tuple(self._names)

    def has_label(self, index: int) -> bool:
        return int(index) in self._names

    def label_descriptions(self, detailed: bool = False, as_dict: bool = False) -> Mapping[str, str] | None:
        return self._descriptions

    def index_to_label_name(self, index: int) -> str:
        return self._names[int(index)]

    def label_name_to_description(self, label: str, detailed: bool = False) -> str:
        return self._descriptions[label] if self._descriptions else label


def _label(key: Any) -> int:
    if isinstance(key, str) and not re.fullmatch(r"-?\d+", key.strip()) or not isinstance(key, str) and key != int(key):
        raise ConfigError(f"label {key!r} is not a number")
    if int(key) < 0:
        raise ConfigError(f"label {key!r} is below 0")
    return int(key)


class LabelMappingCoverage(NamedTuple):
    """How many of a classifier's outputs have a name, how many have none, and how many names have no output."""

    mapped: int
    missing: int
    extra: int


class DatasetInfoLabelMapper:
    """From labels to what is shown of them.

    Args:
        label_type: "name", "description", or "detail" (also "detailed").
        fallback_format: Of labels without a name, with {index}; None for a KeyError.
    """

    def __init__(self, dataset_info: DatasetInfo, label_type: str = "description",
                 fallback_format: str | None = "<unmapped:{index}>") -> None:
        if label_type not in ("name", "description", "detail", "detailed"):
            raise ConfigError(f"label_type {label_type!r} is none of name, description, detail")
        self.dataset_info = dataset_info
        self.label_type = label_type
        self.fallback_format = fallback_format

    def __call__(self, index: int) -> str:
        index = int(index)
        if self.fallback_format is not None and not self.dataset_info.has_label(index):
            return self.fallback_format.format(index=index)
        if self.label_type == "name":
            return self.dataset_info.index_to_label_name(index)
        return self.dataset_info.index_to_description(index, detailed=self.label_type.startswith("detail"))

    def coverage(self, num_classes: int) -> LabelMappingCoverage:
        """Of a classifier of so many outputs."""
        if num_classes < 0:
            raise ConfigError(f"num_classes {num_classes} is below 0")
        labels = self.dataset_info.label_indices()
        mapped = sum(0 <= index < num_classes for index in labels)
        return LabelMappingCoverage(mapped, num_classes - mapped, len(labels) - mapped)


_SUBSET_OF = {1000: "imagenet-1k", 11221: "imagenet-21k-miil", 11821: "imagenet-12k", 21841: "imagenet-22k",
              21842: "imagenet-22k-ms", 21843: "imagenet-21k-goog"}
_ALIASES = {"imagenet": "imagenet1k", "imagenet21k": "imagenet21kgoog"}


def infer_imagenet_subset(model_or_cfg: Any) -> str | None:
    """The subset that has as many classes as a model or a config; None where none has."""
    if isinstance(model_or_cfg, Mapping):
        return _SUBSET_OF.get(model_or_cfg.get("num_classes") or 0)
    count = getattr(model_or_cfg, "num_classes", None)
    return _SUBSET_OF.get(count) if count else infer_imagenet_subset(dict(getattr(model_or_cfg, "pretrained_cfg", {})))


@cache
def _subsets() -> dict[str, list[str]]:
    rows = (line.split() for line in read_info("imagenet_subsets.txt").splitlines())
    return {name: synsets for name, *synsets in rows}


@cache
def _wordnet() -> dict[str, tuple[str, str]]:
    """(words, definition) of synsets."""
    rows = (line.split("\t") for line in read_info("wordnet.tsv").splitlines())
    return {synset: (words, meaning) for synset, words, meaning in rows}


class ImageNetInfo(DatasetInfo):
    """Of a subset of ImageNet, whose classes are named by WordNet's synsets and described by its words.

    Args:
        subset: "imagenet-1k", "-12k", "-22k", "-21k" (also "-21k-goog"), "-21k-miil" or "-22k-ms"; upper case, "-",
            "_" and blanks do not matter.

    Raises:
        ConfigError: There is no such subset.
    """

    def __init__(self, subset: str = "imagenet-1k") -> None:
        plain = re.sub(r"[-_\s]", "", subset.lower())
        known = {name.replace("-", ""): name for name in _subsets()}
        name = known.get(_ALIASES.get(plain, plain))
        if name is None:
            raise ConfigError(f"unknown subset of ImageNet '{subset}'{closest(subset, known.values())}; subsets: "
                              f"{', '.join(known.values())}")
        self._synsets = _subsets()[name]

    def num_classes(self) -> int:
        return len(self._synsets)

    def label_names(self) -> list[str]:
        return list(self._synsets)

    def label_descriptions(self, detailed: bool = False, as_dict: bool = False) -> list[str] | dict[str, str]:
        described = {name: self.label_name_to_description(name, detailed) for name in self._synsets}
        return described if as_dict else list(described.values())

    def has_label(self, index: int) -> bool:
        return 0 <= int(index) < len(self._synsets)

    def index_to_label_name(self, index: int) -> str:
        if not self.has_label(index):
            raise IndexError(f"label {index} is none of {len(self._synsets)} classes")
        return self._synsets[index]

    def label_name_to_description(self, label: str, detailed: bool = False) -> str:
        words, meaning = _wordnet()[label]
        return f"{words}: {meaning}" if detailed else words
