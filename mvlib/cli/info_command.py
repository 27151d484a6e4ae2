"""`mvlib info`: one page about a model and its weights."""

from __future__ import annotations

import argparse
import json
import os
import re
from typing import Any

from .. import hub, registry
from ..costs import costs_of, sides
from ..engines.folder import EngineFolder, is_export, read_export
from ..errors import ConfigError, UnknownNameError
from ..names import parse_model_name
from ..query import FIGURES
from ..tasks import CLASSIFICATION, TASKS
from ..weights import WeightsConfig
from .options import add_option
from .output import format_size, format_table

EXAMPLES = (
    "mvlib info resnet50                  # the architecture and all its tags",
    "mvlib info resnet50.a1_in1k          # these weights",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="MODEL",
                        help="an architecture ('resnet50'), weights ('resnet50.a1_in1k') or the folder of an export")
    parser.add_argument("--compare", nargs=2, metavar=("OLD", "NEW"),
                        help="top-1 of all models (or of the pattern MODEL) that have weights of two versions, 'V1 V2'")
    add_option(parser, "--json")


def run(arguments: argparse.Namespace) -> int:
    if arguments.compare:
        return _compare(*arguments.compare, arguments.name or "*", arguments.json)
    if not arguments.name:
        raise ConfigError("info needs the name of a MODEL, or --compare OLD NEW")
    if is_export(arguments.name):
        facts = _export_facts(read_export(arguments.name))
        if not arguments.json:
            facts["files"] = {path: format_size(size) for path, size in facts["files"].items()}
        return _show(facts, arguments.json)
    name = parse_model_name(arguments.name)
    if name.source is not None:
        raise UnknownNameError(f"info knows the registry's names; '{arguments.name}' names a repository, whose own "
                               f"page or config.json describes it")
    architecture, tag = registry.resolve_name(arguments.name)
    config = registry.get_pretrained_cfg(f"{architecture}.{tag}" if tag else architecture)
    facts = _facts(architecture, config)
    _show(facts, arguments.json)
    if facts["tags"] and not arguments.json:
        print(f"\ntags of {architecture} (the first is the default)\n")
        print(format_table([list(row.values()) for row in facts["tags"]], header=list(facts["tags"][0])))
    return 0


def _show(facts: dict[str, Any], as_json: bool) -> int:
    if as_json:
        print(json.dumps(facts, indent=2))
        return 0
    print(facts["name"], end="\n\n")
    print(format_table([(key, _text(value)) for key, value in facts.items() if key not in ("name", "tags")]))
    return 0


def _export_facts(folder: EngineFolder) -> dict[str, Any]:
    """Of an export, by its own word."""
    config = folder.weights_config
    facts: dict[str, Any] = {
        "name": str(folder.path), "model": folder.model, "architecture": folder.config.get("architecture"),
        "format": folder.format, "precision": folder.precision,
        "input": " x ".join(map(str, folder.input.shape)),
        "outputs": [f"{output.name} {' x '.join(map(str, output.shape))}" for output in folder.outputs],
        "features": folder.features, **folder.measured, "preprocessing": _preprocessing(config), "mean": config.mean,
        "std": config.std,
    }
    if folder.features is None:
        names = folder.class_names
        facts["labels"] = f"{len(names)} classes: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
    facts["licence"] = config.license
    facts["base"] = config.base_model and f"{config.base_model['name']} ({config.base_model.get('source')})"
    facts["files"] = {path: (folder.path / path).stat().st_size for path in folder.files}
    facts["versions"] = dict(folder.versions)
    return {key: value for key, value in facts.items() if value is not None}


def _compare(old: str, new: str, pattern: str, as_json: bool) -> int:
    """Old and new accuracy side by side, of all models that have both versions of their weights."""
    rows = []
    for name in registry.list_models(pattern, task=CLASSIFICATION):
        configs = registry.get_arch_pretrained_cfgs(name)
        for config in configs.values():
            other = configs.get(f"{name}.{_other_version(config.tag, old, new)}")
            if other is not None and config.metrics and other.metrics:
                before, after = _accuracy(config), _accuracy(other)
                rows.append({"model": registry.torchvision_builder(name) or name, old: before, new: after,
                             "gain": round(after - before, 3)})
    if not rows:
        raise ConfigError(f"no model that matches '{pattern}' has weights of both '{old}' and '{new}' with published "
                          f"accuracies; tags are shown by mvlib info NAME")
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        print(format_table([[row["model"], f"{row[old]:.3f}", f"{row[new]:.3f}", f"{row['gain']:+.3f}"]
                            for row in rows], header=list(rows[0])))
    return 0


def _other_version(tag: str | None, old: str, new: str) -> str | None:
    """The tag of the new version where `tag` is of the old: "imagenet1k_v1" -> "imagenet1k_v2"."""
    old, new = old.lower(), new.lower()
    if tag == old:
        return new
    return tag.removesuffix(f"_{old}") + f"_{new}" if tag and tag.endswith(f"_{old}") else None


def _accuracy(config: WeightsConfig) -> float:
    return next(row["acc@1"] for row in config.metrics.values() if "acc@1" in row)


def _facts(architecture: str, config: WeightsConfig | None) -> dict[str, Any]:
    costs = costs_of(config or WeightsConfig(architecture=architecture))
    module = registry.get_module(architecture)
    facts: dict[str, Any] = {"name": config.name if config else architecture, "architecture": architecture,
                             "module": module}
    params = costs.get("params") or (config.num_params if config else None)
    facts["parameters"] = f"{params / 1e6:.2f} M" if params else None
    if costs:
        size = "{} x {}".format(*sides(costs["size"]))
        facts["GMACs"] = f"{costs['gmacs']:.2f} at {size}"
        facts["activations"] = f"{costs['activations']:.2f} M at {size}"
    if config is not None:
        facts.update(_weights_facts(config))
    facts = {key: value for key, value in facts.items() if value is not None}
    facts["tags"] = [_tag_row(c) for c in registry.get_arch_pretrained_cfgs(architecture).values() if c.has_weights]
    return facts


def _weights_facts(config: WeightsConfig) -> dict[str, Any]:
    channels, height, width = config.input_size
    fixed = " (fixed)" if config.fixed_input_size else ""
    least = " at least" if config.input_size == config.min_input_size else ""
    labels = f"{config.num_classes} classes" if config.num_classes else \
        "none (features)" if config.task == CLASSIFICATION else "none"
    facts: dict[str, Any] = {"task": config.task.replace("_", " "),
                             "input": f"{channels} x {height} x {width}{fixed or least}"}
    if config.test_input_size:
        facts["test input"] = " x ".join(map(str, config.test_input_size))
    facts.update({
        "preprocessing": _preprocessing(config),
        "mean": config.mean,
        "std": config.std,
        "labels": f"{labels} ({config.label_set})" if config.label_set else labels,
    })
    if config.metrics:
        facts["metrics"] = "; ".join(f"{data}: " + ", ".join(f"{k} {v}" for k, v in row.items())
                                     for data, row in config.metrics.items())
    facts["licence"] = config.license
    facts["sources"] = config.sources or "nothing is published"
    for key in ("origin_url", "paper_ids", "paper_name", "recipe", "docs", "description", "notes"):
        value = getattr(config, key)
        facts[key.partition("_")[0] if key != "paper_name" else "title"] = _without_markup(value) \
            if isinstance(value, str) else value
    if config.has_weights:
        cached = hub.is_cached(config.sources, filename=config.filename)
        facts["cached"] = str(cached) if cached else "no"
    return facts


def _without_markup(text: str) -> str:
    """reStructuredText, as torchvision describes its weights, as plain text: links are their text (and address)."""
    text = re.sub(r"`([^`<]+?) *<([^`>]+)>`__?", r"\1 (\2)", text)
    return re.sub(r"(`+)([^`]+)\1", r"\2", text)


def _preprocessing(config: WeightsConfig) -> str:
    if config.task != CLASSIFICATION:
        steps = [f"resize {' x '.join(map(str, _as_list(config.resize_size)))} ({config.interpolation})"] \
            if config.resize_size else []
        if config.task == "video_classification":
            steps.append(f"crop {config.input_size[-1]}")
        return ", ".join([*steps, f"as torchvision's {TASKS[config.task].preset}"])
    if config.preprocessing == "torchvision":
        return f"resize {config.resize_size} ({config.interpolation}), crop {config.input_size[-1]}, as torchvision"
    test = f", {config.test_crop_pct} at test size" if config.test_crop_pct else ""
    return f"crop {config.crop_pct}{test} ({config.crop_mode}, {config.interpolation}), as timm"


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (tuple, list)) else [value]


def _tag_row(config: WeightsConfig) -> dict[str, Any]:
    size = config.test_input_size or config.input_size
    figure, *_ = TASKS[config.task].columns
    data_set, key = FIGURES[figure]
    value = config.metrics.get(data_set, {}).get(key)
    cached = hub.is_cached(config.sources, filename=config.filename)
    return {"tag": config.tag, "train": config.input_size[-1], "test": size[-1], "classes": config.num_classes,
            "labels": config.label_set, key: value, "licence": config.license,
            "cached": format_size(os.path.getsize(cached)) if cached else None}


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {number}" for key, number in value.items())
    return ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
