"""timm's descriptions of weights, which may be changed, beside our `WeightsConfig`. Imports no torch."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...registry import get_arch_pretrained_cfgs, is_model
from ...weights import WeightsConfig

__all__ = ["DefaultCfg", "PretrainedCfg", "config_of", "filter_pretrained_cfg", "pretrained_cfg_of"]

_SOURCES = ("url", "file", "hf_hub_id", "hf_hub_filename", "source", "sources")
_NULLABLE = ("pool_size", "first_conv", "classifier")


@dataclass
class _Ours:
    """What we know of weights beyond timm's fields; None where nothing is said."""

    sha256: str | None = None
    key_map: str | None = None
    model_args: Mapping[str, Any] | None = None
    preprocessing: str | None = None
    resize_size: int | tuple[int, ...] | None = None
    antialias: bool | None = None
    label_set: str | None = None
    recipe: str | None = None
    docs: str | None = None
    metrics: Mapping[str, Any] | None = None
    num_params: int | None = None
    gmacs: float | None = None
    file_size: float | None = None
    backend: str | None = None
    unquantized: str | None = None
    base_model: Mapping[str, Any] | None = None
    trained: Mapping[str, Any] | None = None


@dataclass
class _Theirs:
    url: str | tuple[str, str] | None = None
    file: str | None = None
    state_dict: dict[str, Any] | None = None
    hf_hub_id: str | None = None
    hf_hub_filename: str | None = None
    source: str | None = None
    architecture: str | None = None
    tag: str | None = None
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
    num_classes: int = 1000
    label_offset: int | None = None
    label_names: tuple[str, ...] | None = None
    label_descriptions: Mapping[str, str] | None = None
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


@dataclass
class PretrainedCfg(_Ours, _Theirs):
    """A set of weights by timm's fields (in its order, then ours): where they lie, and how their inputs are prepared.

    Instances may be changed; those that the registry gives are copies.
    """

    @property
    def has_weights(self) -> Any:
        """Whether a place is known where the weights lie."""
        return self.url or self.file or self.hf_hub_id

    def to_dict(self, remove_source: bool = False, remove_null: bool = True) -> dict[str, Any]:
        """The fields as a dict, without sources or without what is None if that is asked for."""
        return filter_pretrained_cfg(dataclasses.asdict(self), remove_source, remove_null)


def filter_pretrained_cfg(
    cfg: Mapping[str, Any], remove_source: bool = False, remove_null: bool = True
) -> dict[str, Any]:
    """A config's fields without those that say where the weights lie, and without what is None (but for three)."""
    return {key: value for key, value in cfg.items()
            if not (remove_source and key in _SOURCES) and
            (value is not None or not remove_null or key in _NULLABLE)}


@dataclass
class DefaultCfg:
    """The weights of an architecture: {tag: config}, and the tags in their order, the default first."""

    tags: deque[str] = field(default_factory=deque)
    cfgs: dict[str, PretrainedCfg] = field(default_factory=dict)
    is_pretrained: bool = False

    @property
    def default(self) -> PretrainedCfg:
        return self.cfgs[self.tags[0]]

    @property
    def default_with_tag(self) -> tuple[str, PretrainedCfg]:
        return self.tags[0], self.default


def pretrained_cfg_of(config: WeightsConfig) -> PretrainedCfg:
    """One of our configs as timm's."""
    cfg = PretrainedCfg(**_shared(config.to_dict()))
    cfg.source = "local-dir" if config.source == "local-dir" else None
    return cfg


def config_of(cfg: Mapping[str, Any] | PretrainedCfg | WeightsConfig, architecture: str) -> WeightsConfig:
    """Our config of what a config of any kind says; the registry's own where nothing in it was changed."""
    if isinstance(cfg, WeightsConfig):
        return cfg
    values = dict(cfg) if isinstance(cfg, Mapping) else vars(cfg)
    fields = {key: value for key, value in values.items() if value is not None}
    name = f"{architecture}.{fields['tag']}" if fields.get("tag") else architecture
    if is_model(architecture) and (known := get_arch_pretrained_cfgs(architecture).get(name)) is not None:
        if PretrainedCfg(**_shared(fields)) == pretrained_cfg_of(known):
            return known
    if fields.get("source") == "local-dir" and fields.get("file"):
        fields["sources"] = (f"local-dir:{fields.pop('file')}",)
    elif fields.get("sources"):  # of our own dict: what timm's fields say holds where the two differ
        known = WeightsConfig(sources=tuple(fields["sources"]))
        if all(fields.get(key) == getattr(known, key) for key in ("url", "file", "hf_hub_id")):
            fields = {key: value for key, value in fields.items() if key not in ("url", "file", "hf_hub_id")}
        else:
            del fields["sources"]
    return WeightsConfig.from_dict(fields, strict=False).replace(architecture=architecture)


def _shared(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key in {f.name for f in dataclasses.fields(PretrainedCfg)}}
