"""What is known of a set of weights, as data. Imports no torch.

A catalog is a YAML file in which an entry says only what is its own:

    defaults:                       # of every entry in the file
      first_conv: conv1
      classifier: fc
    aliases: {resnet50_v1b: resnet50}             # other names of the same architecture, or architecture.tag
    deprecated: {gluon_resnet50_v1b: resnet50.gluon_in1k}   # names that keep working with a warning
    builders:                       # torchvision's: the name of its Enum
      resnet50: {weights: ResNet50_Weights}
    architectures:
      resnet50:
        defaults: {input_size: [3, 224, 224]}     # of every tag of the architecture
        tags:                                     # the first is the default
          a1_in1k:
            sources: [hf-hub:timm/, https://...]  # tried in order; "hf-hub:owner/" is completed with architecture.tag
            crop_pct: 0.95

A tag "" describes inputs and head of an architecture for which nothing is published.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from .arguments import accepts, describe, shorten
from .data.config import per_channel
from .errors import ConfigError
from .names import closest
from .tasks import CLASSIFICATION, TASKS

__all__ = ["INPUT_FIELDS", "OWN_FIELDS", "Catalog", "WeightsConfig", "as_configs", "load_catalog", "read_entries"]

_SOURCE_FIELDS = ("url", "file", "hf_hub_id", "hf_hub_filename", "source", "sources", "sha256", "filename")
# What a config.json keeps under "mvlib", because timm refuses fields that it does not have.
OWN_FIELDS = ("preprocessing", "resize_size", "antialias", "label_set", "metrics", "recipe", "docs", "base_model",
              "trained")
SOURCE_PREFIXES = ("hf-hub:", "https://", "http://", "file:", "local-dir:", "pkg:")
_CHOICES = {"crop_mode": ("center", "squash", "border"), "preprocessing": ("timm", "torchvision"),
            "interpolation": ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos", "random"),
            "task": tuple(TASKS)}
# How inputs are prepared: all of it, but for what holds in tests alone.
INPUT_FIELDS = ("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std", "preprocessing", "resize_size",
                "antialias")
# What is true of any weights of an architecture that are used as these are.
_OF_ANY_WEIGHTS = (
    "architecture", "task", *INPUT_FIELDS, "min_input_size", "fixed_input_size", "num_classes", "pool_size",
    "first_conv", "classifier",
)
_NULLABLE = ("pool_size", "first_conv", "classifier")  # timm's config.json keeps these even where they are null


@dataclass(frozen=True)
class WeightsConfig:
    """One published (or local) set of weights. Field names are timm's where timm has the field.

    Attributes:
        architecture: Name of the architecture.
        tag: Tag of the weights, None for an untagged description.
        task: What the model does (`tasks.TASKS`).
        sources: Where the file lies, tried in order: "hf-hub:owner/name[@revision]", "https://...", "file:/path",
            "local-dir:/path", "pkg:python_package/path/inside".
        sha256: Checksum of the file, if known beyond what its name carries.
        filename: Name of the weights file in a repository, or in the cache, where it is not the usual one.
        key_map: Name of the foreign state-dict layout that the file has (`ImageModel.key_maps`), if any.
        model_args: Arguments that the architecture needs for these weights.
        input_size: (channels, height, width) in training; `test_input_size` for evaluation, `min_input_size` the least.
        fixed_input_size: Whether the model must be built for its input size.
        crop_pct: Share of the resized image that the crop keeps; `test_crop_pct` at `test_input_size`.
        crop_mode: "center", "squash" or "border".
        preprocessing: Whose pipeline prepares the inputs: "timm" or "torchvision".
        resize_size: torchvision's resize: the shorter side, in pixels; timm derives it from `crop_pct`.
        antialias: Whether tensors are resized with antialiasing.
        label_set: What the outputs mean: "imagenet-1k", "imagenet-21k-goog", ...
        label_offset: Leading outputs of the file's classifier to drop (a background class).
        keypoint_names: Of a model that finds keypoints.
        min_temporal_size: Of a model of videos: frames that a clip has at least.
        first_conv, classifier: Paths of the modules that depend on `in_chans` and `num_classes`.
        metrics: Published figures, {data set: {metric: value}}.
        num_params: Parameters of the published model; `gmacs` its multiply-accumulates in 1e9, `file_size` in MiB.
        recipe: URL of how it was trained; `docs` a sentence about it.
        backend, unquantized: Of quantised weights: the engine, and the tag that they were made from.
        base_model: Of weights that were trained from others: those, as `describe_base` gives them.
        trained: How they were trained here: {"epoch": ..., "average": ..., ...}.
    """

    architecture: str | None = None
    tag: str | None = None
    task: str = CLASSIFICATION

    sources: tuple[str, ...] = ()
    sha256: str | None = None
    filename: str | None = None
    key_map: str | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict, hash=False)
    custom_load: bool | str = False

    input_size: tuple[int, int, int] = (3, 224, 224)
    test_input_size: tuple[int, int, int] | None = None
    min_input_size: tuple[int, int, int] | None = None
    fixed_input_size: bool = False
    interpolation: str = "bicubic"
    crop_pct: float = 0.875
    test_crop_pct: float | None = None
    crop_mode: str = "center"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    preprocessing: str = "timm"
    resize_size: int | tuple[int, ...] | None = None
    antialias: bool = True

    num_classes: int = 1000
    label_set: str | None = None
    label_offset: int | None = None
    label_names: tuple[str, ...] | None = None
    label_descriptions: Mapping[str, str] | None = field(default=None, hash=False)
    keypoint_names: tuple[str, ...] | None = None
    min_temporal_size: int | None = None

    pool_size: tuple[int, ...] | None = None
    test_pool_size: tuple[int, ...] | None = None
    first_conv: str | tuple[str, ...] | None = None
    classifier: str | tuple[str, ...] | None = None

    license: str | None = None
    description: str | None = None
    origin_url: str | None = None
    paper_name: str | None = None
    paper_ids: str | tuple[str, ...] | None = None
    notes: str | tuple[str, ...] | None = None
    recipe: str | None = None
    docs: str | None = None
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict, hash=False)
    num_params: int | None = None
    gmacs: float | None = None
    file_size: float | None = None
    backend: str | None = None
    unquantized: str | None = None
    base_model: Mapping[str, Any] | None = field(default=None, hash=False)
    trained: Mapping[str, Any] | None = field(default=None, hash=False)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, strict: bool = True) -> WeightsConfig:
        """A config from plain data: our field names, and timm's `url`, `file`, `hf_hub_id`, `hf_hub_filename`.

        Args:
            values: Fields; lists become tuples.
            strict: Whether an unknown field is an error (our catalogs) or dropped (somebody's config.json).

        Raises:
            ConfigError: A field is unknown, or a value cannot be what its field holds.
        """
        values = {key: _as_tuple(value) for key, value in values.items()}
        sources = values.pop("sources", None) or ()
        sources = [sources] if isinstance(sources, str) else list(sources)
        filename = values.pop("hf_hub_filename", None) or values.pop("filename", None)
        for key, prefix in (("file", "file:"), ("hf_hub_id", "hf-hub:"), ("url", "")):
            location = values.pop(key, None)
            if isinstance(location, tuple) and len(location) == 2:  # timm's (url, file name)
                location, filename = location
            if location:
                sources.append(f"{prefix}{location}")
        values.pop("source", None)
        for source in sources:
            if not isinstance(source, str) or (strict and not source.startswith(SOURCE_PREFIXES)):
                raise ConfigError(f"{shorten(source)} is not a source of weights; one begins with "
                                  f"{', '.join(SOURCE_PREFIXES)}")
        known = {f.name for f in dataclasses.fields(cls)}
        for key in [key for key in values if key not in known]:
            if strict:
                raise ConfigError(f"unknown field '{key}' in a weights config{closest(key, known)}")
            del values[key]
        values["filename"] = filename
        values = {key: value for key, value in values.items() if value is not None}  # null stands for the default
        config = cls(**values, sources=tuple(sources))
        config._check(values)
        return config

    def _check(self, fields: Iterable[str]) -> None:
        """Raise ConfigError where one of `fields` has not its type, or any field a value that cannot be."""
        types = _field_types()
        for name in fields:
            if not accepts(types[name], getattr(self, name)):
                raise ConfigError(f"{name} {shorten(getattr(self, name))} is not {describe(types[name])}")
        for name in ("input_size", "test_input_size", "min_input_size"):
            size = getattr(self, name)
            if size is not None and not (0 < size[0] <= 4096 and 0 < min(size[1:]) and max(size[1:]) <= 16384):
                raise ConfigError(f"{name} {shorten(size)} is not (channels, height, width) of a possible image")
        if not -1 <= self.num_classes <= 10_000_000:
            raise ConfigError(f"num_classes {shorten(self.num_classes)} is not a possible number of classes")
        for name in ("mean", "std"):
            if not getattr(self, name) or not all(
                    abs(value) <= sys.float_info.max for value in getattr(self, name)):  # an int may be larger
                raise ConfigError(f"{name} {shorten(getattr(self, name))} is not a list of numbers")
        if min(self.std) <= 0:
            raise ConfigError(f"std {shorten(self.std)} is not above zero")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name} {shorten(getattr(self, name))} is none of {', '.join(choices)}")
        for key, value in {"name": None, **self.base_model}.items() if self.base_model is not None else ():
            words = value if isinstance(value, (list, tuple)) and key != "name" else [value]
            if not all(isinstance(word, str) for word in words):
                raise ConfigError(f"base_model {shorten(self.base_model)} does not describe weights by their name")
        for name in ("crop_pct", "test_crop_pct"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 16:
                raise ConfigError(f"{name} {shorten(value)} is not a share of the image")
        sides = _as_sides(self.resize_size) if self.resize_size is not None else (1,)
        if not (1 <= len(sides) <= 2 and 0 < min(sides) and max(sides) <= 16384):
            raise ConfigError(f"resize_size {shorten(self.resize_size)} is not a size in pixels")
        if self.label_offset is not None and not 0 <= self.label_offset <= 10_000_000:
            raise ConfigError(f"label_offset {shorten(self.label_offset)} is not a number of classes")

    def replace(self, **changes: Any) -> WeightsConfig:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def of_other_weights(self) -> WeightsConfig:
        """What of this still holds where the weights are others: inputs and head, and nothing of their origin."""
        return WeightsConfig(**{name: getattr(self, name) for name in _OF_ANY_WEIGHTS})

    def with_inputs(self, **changes: Any) -> WeightsConfig:
        """A copy with other preprocessing: what is given, and what follows from it for the rest.

        Mean and std are averaged for another number of channels. Sizes and crops for tests go, as they were found for
        the inputs that were. torchvision's `resize_size` and `crop_pct` follow each other, `pool_size` is that of the
        new image where the old one tells.

        Raises:
            ConfigError: A value cannot be what its field holds.
        """
        new = self.replace(**changes)
        new._check(changes)
        old_size, size = self.input_size[1:], new.input_size[1:]
        channels = new.input_size[:1]
        values = {name: per_channel(getattr(new, name), channels[0]) for name in ("mean", "std")}
        if set(changes) == {"input_size"} and size == old_size:  # but for the channels all is as it was
            return new.replace(**values, **{
                name: (*channels, *value[1:]) for name in ("test_input_size", "min_input_size")
                if (value := getattr(self, name))})
        follows: dict[str, Any] = {"test_input_size": None, "test_crop_pct": None, "test_pool_size": None}
        resize = self.resize_size
        if "resize_size" in changes:
            if new.resize_size and "crop_pct" not in changes:
                follows["crop_pct"] = min(size) / min(_as_sides(new.resize_size))
        elif resize and "crop_pct" in changes:
            follows["resize_size"] = math.floor(min(size) / new.crop_pct)
        elif resize and size != old_size:  # the same share of the image is cut away
            sides = [round(side * min(size) / min(old_size)) for side in _as_sides(resize)]
            follows["resize_size"] = sides[0] if isinstance(resize, int) else tuple(sides)
        if size != old_size:
            follows["pool_size"] = _pool_size(self.pool_size, old_size, size)
            least = self.min_input_size
            if least is not None:
                fits = least[1] <= size[0] and least[2] <= size[1]
                follows["min_input_size"] = (*channels, *least[1:]) if fits else None
        return new.replace(**{**follows, **changes, **values})

    def describe_base(self) -> dict[str, Any] | None:
        """What weights that are trained from these say of them; from weights without a public name, of theirs."""
        name = self.name if self.tag else (self.hf_hub_id or "").partition("@")[0]
        if not name:
            return dict(self.base_model) if self.base_model else None
        public = next((s for s in self.sources if not s.startswith(("local-dir:", "file:"))), None)
        papers = list(self.paper_ids) if isinstance(self.paper_ids, tuple) else self.paper_ids
        facts = {"name": name, "source": public, "license": self.license, "paper_ids": papers,
                 "origin_url": self.origin_url}
        return {key: value for key, value in facts.items() if value}

    @property
    def name(self) -> str:
        """The model name, architecture.tag."""
        return f"{self.architecture}.{self.tag}" if self.tag else str(self.architecture)

    def __repr__(self) -> str:
        """What tells weights apart; `to_dict` has the rest."""
        known = {
            "input_size": self.input_size,
            "num_classes": self.num_classes,
            "params": self.num_params and f"{self.num_params / 1e6:.2f} M",
            "file": self.file_size and f"{self.file_size:.1f} MiB",
            "metrics": ", ".join(f"{place} {' '.join(f'{name} {value:g}' for name, value in figures.items())}"
                                 for place, figures in self.metrics.items()) or None,
            "license": self.license,
            "source": next(iter(self.sources), "none"),
        }
        facts = "".join(f", {name}={value}" for name, value in known.items() if value is not None)
        return f"{type(self).__name__}({self.name}{facts})"

    @property
    def has_weights(self) -> bool:
        """Whether a source is known."""
        return bool(self.sources)

    def _first(self, *prefixes: str) -> str | None:
        return next((s for s in self.sources if s.startswith(prefixes)), None)

    @property
    def url(self) -> str | None:
        """The first https source."""
        return self._first("https://", "http://")

    @property
    def hf_hub_id(self) -> str | None:
        """The first hub repository, "owner/name[@revision]"."""
        source = self._first("hf-hub:")
        return source.removeprefix("hf-hub:") if source else None

    @property
    def hf_hub_filename(self) -> str | None:
        """Name of the weights file in the repository, where it is not the usual one."""
        return self.filename if self.hf_hub_id else None

    @property
    def file(self) -> str | None:
        """The first local file or folder."""
        source = self._first("file:", "local-dir:")
        return source.partition(":")[2] if source else None

    @property
    def source(self) -> str | None:
        """Kind of the first source: "hf-hub", "https", "file", "local-dir" or "pkg"."""
        return self.sources[0].partition(":")[0] if self.sources else None

    def to_dict(self, remove_source: bool = False, remove_null: bool = True) -> dict[str, Any]:
        """The config as timm lays it out: a plain dict, sources as `url`, `hf_hub_id`, `hf_hub_filename`, `file`."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values.update(url=self.url, hf_hub_id=self.hf_hub_id, hf_hub_filename=self.hf_hub_filename, file=self.file)
        for name in ("model_args", "metrics"):
            values[name] = dict(values[name]) or None
        if remove_source:
            values = {k: v for k, v in values.items() if k not in _SOURCE_FIELDS}
        if remove_null:
            values = {k: v for k, v in values.items() if v is not None or k in _NULLABLE}
        return values


@functools.cache
def _field_types() -> dict[str, Any]:
    return get_type_hints(WeightsConfig)


def _as_sides(size: Any) -> tuple[Any, ...]:
    return size if isinstance(size, tuple) else (size,)


def _pool_size(
    known: tuple[int, ...] | None, old: tuple[int, int], new: tuple[int, int]
) -> tuple[int, ...] | None:
    """The last map's size for another image; None where the known size does not come from a plain reduction."""
    if known is None:
        return None
    sides = []
    for pool, side, wanted in zip(known, old, new):
        factors = (8, 16, 32, 64, *([side // pool] if side % pool == 0 else []))
        fitting = [factor for factor in factors if math.ceil(side / factor) == pool and wanted % factor == 0]
        if not fitting:
            return None
        sides.append(wanted // fitting[0])
    return tuple(sides)


@dataclass(frozen=True)
class Catalog:
    """A parsed catalog file.

    Attributes:
        path: The file.
        configs: {architecture: {tag: config}}, the default tag first.
        aliases: {alias: architecture or architecture.tag}.
        deprecated: {old name: current architecture[.tag], or None where it is gone}.
        builders: {torchvision's builder: {"weights": name of its Enum}}.
    """

    path: Path
    configs: dict[str, dict[str, WeightsConfig]]
    aliases: dict[str, str]
    deprecated: dict[str, str | None]
    builders: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __iter__(self) -> Iterator[WeightsConfig]:
        for tags in self.configs.values():
            yield from tags.values()


def load_catalog(path: str | os.PathLike[str]) -> Catalog:
    """Read a catalog.

    Raises:
        ConfigError: The file is missing, not YAML, or says something that a catalog cannot say; the message names
            the file and the entry.
    """
    path = Path(path)
    entries, aliases, deprecated, builders = read_entries(path)
    configs: dict[str, dict[str, WeightsConfig]] = {}
    for architecture, tags in entries.items():
        configs[architecture] = {}
        for tag, fields in tags.items():
            try:
                configs[architecture][tag] = _config(architecture, tag, fields)
            except (ConfigError, TypeError) as error:
                raise ConfigError(f"{path}: {architecture}.{tag}: {error}") from None
    return Catalog(path, configs, aliases, deprecated, builders)


def read_entries(
    path: str | os.PathLike[str],
) -> tuple[dict[str, dict[str, dict[str, Any]]], dict[str, str], dict[str, str | None], dict[str, dict[str, Any]]]:
    """A catalog as plain data, defaults merged in: {architecture: {tag: fields}}, aliases, deprecated names, builders.

    Raises:
        ConfigError: The file is missing, not YAML, or not laid out as a catalog.
    """
    path = Path(path)

    def section(data: Mapping[str, Any], where: str, *allowed: str) -> dict[str, dict[Any, Any]]:
        parts = _mapping(path, data, where)
        for key in parts:
            if key not in allowed:
                raise ConfigError(f"{path}: unknown key '{key}' in {where}; known: {', '.join(allowed)}")
        return {key: _mapping(path, parts.get(key), f"'{key}' of {where}") for key in allowed}

    catalog = section(_read(path), "the catalog", "defaults", "aliases", "deprecated", "builders", "architectures")
    entries: dict[str, dict[str, dict[str, Any]]] = {}
    for architecture, body in catalog["architectures"].items():
        own = section(body, f"'{architecture}'", "defaults", "tags")
        entries[str(architecture)] = {
            "" if tag is None else str(tag): {**catalog["defaults"], **own["defaults"],
                                              **_mapping(path, fields, f"'{architecture}.{tag}'")}
            for tag, fields in own["tags"].items()
        }
    for part in ("aliases", "deprecated"):
        for name, target in catalog[part].items():
            if not isinstance(target, str) and not (part == "deprecated" and target is None):
                raise ConfigError(f"{path}: {part}: '{name}' stands for {target!r}, which is not a model name")
    return entries, catalog["aliases"], catalog["deprecated"], catalog["builders"]


def as_configs(architecture: str, weights: Mapping[str, Any] | Iterable[WeightsConfig]) -> dict[str, WeightsConfig]:
    """Configs by tag, from {tag: config or dict of fields} or from a sequence of configs.

    Raises:
        ConfigError: A field is unknown, or a value cannot be what its field holds.
    """
    pairs = weights.items() if isinstance(weights, Mapping) else ((config.tag, config) for config in weights)
    return {tag or "": _config(architecture, tag or "", config) for tag, config in pairs}


def _config(architecture: str, tag: str, fields: WeightsConfig | Mapping[str, Any]) -> WeightsConfig:
    """The config of a name, sources completed ("hf-hub:owner/" -> "hf-hub:owner/architecture.tag")."""
    config = fields if isinstance(fields, WeightsConfig) else WeightsConfig.from_dict(fields)
    name = f"{architecture}.{tag}" if tag else architecture
    sources = [f"{s}{name}" if s.startswith("hf-hub:") and s.endswith("/") else s for s in config.sources]
    return config.replace(architecture=architecture, tag=tag or None, sources=tuple(sources))


def _mapping(path: Path, value: Any, where: str) -> dict[Any, Any]:
    if value is not None and not isinstance(value, dict):
        raise ConfigError(f"{path}: {where} is a {type(value).__name__}, not a mapping")
    return value or {}


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(v) for v in value) if isinstance(value, (list, tuple)) else value


def _read(path: Path) -> Any:
    """A catalog's data; our own come as JSON too, which is read many times faster."""
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8"))
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        with open(path, encoding="utf-8") as stream:
            return yaml.load(stream, Loader=loader)
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the catalog: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
