#!/usr/bin/env python
"""Bring the weights catalogs (mvlib/catalog/*.yaml) up to date with the installed timm and torchvision.

    python scripts/sync_catalog.py                  rewrite the catalogs of all families
    python scripts/sync_catalog.py --check          write nothing; report what is missing or differs, exit 1 if anything
    python scripts/sync_catalog.py convnext         one family; before it is written, all that timm's module defines

A catalog holds, for every architecture that the family registers, the weights of three origins in this order: timm's
tags, torchvision's (DEFAULT first), and what is written by hand in scripts/catalog_extra/FAMILY.yaml, a catalog like
any other. The latter adds tags, and fields of tags that are there already; its `deprecated` wins over timm's.
The families of other tasks (detection, ...) are torchvision's packages, and their catalogs what its Enums say.
After a sync, scripts/build_index.py has to be run.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import functools
import importlib
import inspect
import math
import pkgutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
import yaml
from timm.data import infer_imagenet_subset
from timm.models import _registry as timm_registry
from torchvision.models import _api as torchvision_registry
from torchvision.transforms import _presets
from torchvision.transforms._presets import ImageClassification

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import mvlib.models
from mvlib import registry
from mvlib.errors import ConfigError
from mvlib.weights import Catalog, WeightsConfig, as_configs, load_catalog, read_entries

CATALOGS = Path(registry.CATALOG_DIR)
EXTRAS = Path(__file__).resolve().parent / "catalog_extra"
# Of timm's results/results-imagenet.csv of August 2024: what its authors measured with their validate.py.
PUBLISHED = Path(__file__).resolve().parent / "published" / "timm_imagenet.csv"

# torchvision's builders whose architecture has another name here; all others have the same.
ARCHITECTURES = {
    **{f"regnet_{kind}_{flops}": f"regnet{kind}_{number}" for kind in "xy" for flops, number in {
        "400mf": "004", "800mf": "008", "1_6gf": "016", "3_2gf": "032", "8gf": "080", "16gf": "160", "32gf": "320",
        "128gf": "1280"}.items()},
    # What torchvision rounds otherwise than the paper's authors, timm has beside their network.
    "regnet_x_400mf": "regnetx_004_tv",
    "regnet_y_800mf": "regnety_008_tv",
    "regnet_y_8gf": "regnety_080_tv",
    "efficientnet_v2_s": "efficientnetv2_s",
    "efficientnet_v2_m": "efficientnetv2_m",
    "efficientnet_v2_l": "efficientnetv2_l",
    "mnasnet0_5": "mnasnet_050",
    "mnasnet0_75": "mnasnet_075",
    "mnasnet1_0": "mnasnet_100",
    "mnasnet1_3": "mnasnet_130",
    "mobilenet_v2": "mobilenetv2_100",
    "swin_t": "swin_tiny_patch4_window7_224",
    "swin_s": "swin_small_patch4_window7_224",
    "swin_b": "swin_base_patch4_window7_224",
    "swin_v2_t": "swinv2_tiny_window8_256",
    "swin_v2_s": "swinv2_small_window8_256",
    "swin_v2_b": "swinv2_base_window8_256",
    "vit_b_16": "vit_base_patch16_224",
    "vit_b_32": "vit_base_patch32_224",
    "vit_l_16": "vit_large_patch16_224",
    "vit_l_32": "vit_large_patch32_224",
    "vit_h_14": "vit_huge_patch14_224",
}
# Arguments under which the architecture is torchvision's exactly: some builders take TensorFlow's BatchNorm eps, others
# normalise their inputs once more.
MODEL_ARGS: dict[str, dict[str, Any]] = {
    **{builder: {"bn_eps": 0.001}
       for builder in ("efficientnet_b5", "efficientnet_b6", "efficientnet_b7", "efficientnet_v2_s",
                       "efficientnet_v2_m", "efficientnet_v2_l")},
    **{builder: {"transform_input": True}
       for builder in ("googlenet", "inception_v3", "quantized_googlenet", "quantized_inception_v3")},
    **{f"vgg{depth}{norm}": {"fixed_grid": True}  # maps of any size are pooled to 7 x 7
       for depth in (11, 13, 16, 19) for norm in ("", "_bn")},
}
# First convolution and classifier of the families that timm does not have.
PLACES = {"alexnet": ("features.0", "classifier.6"), "googlenet": ("conv1.conv", "fc"), "quantization": (None, None),
          "shufflenetv2": ("conv1.0", "fc"), "squeezenet": ("features.0", "classifier.1")}
# torchvision's modules whose state-dict keys are ours.
SAME_KEYS = {f"torchvision.models.{name}"
             for name in ("alexnet", "googlenet", "inception", "resnet", "shufflenetv2", "squeezenet")}

# torchvision's packages of models for other tasks: {package: what its models are for, and what their outputs mean}.
OTHER_TASKS = {"detection": ("detection", "coco"), "optical_flow": ("optical_flow", None),
               "segmentation": ("segmentation", "voc"), "video": ("video_classification", "kinetics-400")}
# Of single models by the beginning of their names.
OWN_TASKS = {"maskrcnn": ("instance_segmentation", "coco"), "keypointrcnn": ("keypoint_detection", "coco-person")}

# What an architecture or a whole file may say once for its entries. Locations, names and figures stay with the entry.
SHAREABLE = (
    "task", "input_size", "test_input_size", "fixed_input_size", "interpolation", "crop_pct", "test_crop_pct",
    "crop_mode", "mean", "std", "num_classes", "label_set", "label_names", "pool_size",
    "first_conv", "classifier", "license",
)
DEFAULTS = WeightsConfig()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help="catalogs to bring up to date (default: all)")
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if something is out of date")
    args = parser.parse_args()
    registry._registry.clear()  # the index may be stale: families are asked themselves
    findings = []
    for family in args.families or our_families():
        catalog, path = compose(family), CATALOGS / f"{family}.yaml"
        current = load_catalog(path) if path.exists() else Catalog(path, {}, {}, {})
        found = list(differences(current, catalog))
        findings += found
        if not args.check:
            path.write_text(render(catalog), encoding="utf-8")
            print(f"{path.name}: {len(catalog.configs)} architectures, {sum(1 for _ in catalog)} weights configs, "
                  f"{len(found)} changes")
    if args.check:
        print(*findings or ["the catalogs are up to date"], sep="\n")
    return int(args.check and bool(findings))


def our_families() -> list[str]:
    """Names of the modules in mvlib.models that register architectures."""
    names = [m.name for m in pkgutil.iter_modules(mvlib.models.__path__) if not m.name.startswith("_")]
    return [*(name for name in names if our_architectures(name)), *OTHER_TASKS]


@functools.cache
def our_architectures(family: str) -> tuple[str, ...]:
    """Architectures that a family registers: timm's in timm's order, then our own. Empty where it does not exist."""
    try:
        importlib.import_module(f"mvlib.models.{family}")
    except ModuleNotFoundError as error:
        if error.name != f"mvlib.models.{family}":
            raise
        return ()
    ours = registry.list_models(module=family) if family in registry.list_modules() else []
    known = [name for name in timm_registry._model_entrypoints if name in ours]
    return (*known, *(name for name in ours if name not in known))


def timm_architectures(family: str) -> tuple[str, ...]:
    """Architectures of timm's module, in the order of definition."""
    members = timm_registry._module_to_models.get(family, set()) - timm_registry._deprecated_models.keys()
    return tuple(name for name in timm_registry._model_entrypoints if name in members)


def compose(family: str) -> Catalog:
    """The catalog that a family should have."""
    if family in OTHER_TASKS:
        return compose_task(family)
    architectures = our_architectures(family) or timm_architectures(family)
    if not architectures:
        raise SystemExit(f"neither mvlib nor timm has a family '{family}'")
    path = EXTRAS / f"{family}.yaml"
    extra, aliases, deprecated, _ = read_entries(path) if path.exists() else ({}, {}, {}, {})
    for architecture in extra:
        if architecture not in architectures:
            raise SystemExit(f"{path}: the family '{family}' has no architecture '{architecture}'")

    first_conv, classifier = PLACES.get(family, (None, None))
    described = next(iter(from_timm(architectures[0]).values()),
                     DEFAULTS.replace(first_conv=first_conv, classifier=classifier))
    configs = {}
    for name in architectures:
        tags = from_timm(name)
        tags |= from_torchvision(name, next(iter(tags.values()), described))
        configs[name] = weights_first(add_by_hand(name, tags, extra.get(name, {})))
    # A name that only torchvision uses means torchvision's network: its default weights, and the arguments they need.
    built = {builder: f"{name}.{enum_of(builder).DEFAULT.name.lower()}" for name in architectures
             for builder in builders_of(name) if builder != name}
    old = timm_registry.get_deprecated_models(family)
    return Catalog(
        CATALOGS / f"{family}.yaml", configs, {**built, **aliases},
        {name: target for name, target in {**old, **deprecated}.items()
         if target is None or target.partition(".")[0] in architectures},
        {builder: builder_facts(builder) for name in architectures for builder in builders_of(name)},
    )


def compose_task(package: str) -> Catalog:
    """The catalog of torchvision's models for another task than classification."""
    names = torchvision_registry.list_models(module=importlib.import_module(f"torchvision.models.{package}"))
    configs = {}
    for name in names:
        own = next((facts for start, facts in OWN_TASKS.items() if name.startswith(start)), OTHER_TASKS[package])
        members = enum_of(name)
        configs[name] = as_configs(name, {
            member.name.lower(): task_config(name, member, *own)
            for member in sorted(members, key=lambda member: member is not members.DEFAULT)})
    return Catalog(CATALOGS / f"{package}.yaml", configs, {}, {},
                   {name: {"weights": enum_of(name).__name__} for name in names})


def task_config(builder: str, weights: Any, task: str, label_set: str | None) -> WeightsConfig:
    """torchvision's weights of a model for another task."""
    preset, meta = weights.transforms(), weights.meta
    images, categories = vars(preset), meta.get("categories")
    is_detector = isinstance(preset, _presets.ObjectDetection)
    resize = images.get("resize_size")
    mean, std = ((0.0,) * 3, (1.0,) * 3) if is_detector else ((0.5,) * 3,) * 2  # flow's preset has them in its code
    size = inner_size(builder) if is_detector else images.get("crop_size") or \
        ([resize[0]] * 2 if resize else meta["min_size"])
    is_theirs = meta["recipe"].startswith("https://github.com/pytorch/vision")
    return WeightsConfig(
        task=task,
        sources=(weights.url,),
        input_size=(3, *size),
        min_input_size=(3, *meta["min_size"]),
        min_temporal_size=meta.get("min_temporal_size"),
        interpolation="bilinear",
        mean=tuple(images.get("mean", mean)),
        std=tuple(images.get("std", std)),
        preprocessing="torchvision",
        resize_size=resize and (resize[0] if task == "segmentation" else tuple(resize)),
        num_classes=len(categories or ()),
        label_set=label_set,
        label_names=categories and tuple(categories),
        keypoint_names=tuple(meta["keypoint_names"]) if "keypoint_names" in meta else None,
        classifier=tuple(heads(builder)) or None,
        license="bsd-3-clause" if is_theirs else None,  # weights of others', whose licence torchvision does not name
        origin_url="https://github.com/pytorch/vision",
        recipe=meta["recipe"],
        docs=" ".join(meta["_docs"].split()),
        metrics=meta["_metrics"],
        num_params=meta["num_params"],
        gmacs=meta["_ops"],
        file_size=meta["_file_size"],
    )


@functools.cache
def plain_model(builder: str, **arguments: Any) -> Any:
    """A model of another task's, without weights."""
    call = torchvision_registry.get_model_builder(builder)
    if "weights_backbone" in inspect.signature(call).parameters:
        arguments = {"weights_backbone": None, **arguments}
    if "aux_loss" in inspect.signature(call).parameters:
        arguments = {"aux_loss": True, **arguments}
    return call(**arguments)


def inner_size(builder: str) -> tuple[int, int]:
    """Height and width to which a detector brings its images: both sides, or the shorter one."""
    transform = plain_model(builder).transform
    return transform.fixed_size or (transform.min_size[-1],) * 2


@functools.cache
def heads(builder: str) -> list[str]:
    """Paths of the layers whose shapes follow the number of classes, or of keypoints."""
    wanted = inspect.signature(torchvision_registry.get_model_builder(builder)).parameters
    if builder.startswith("raft"):
        return []
    others = [{"num_classes": 5}, *([{"num_keypoints": 5}] if "num_keypoints" in wanted else [])]
    shapes = {key: value.shape for key, value in plain_model(builder).state_dict().items()}
    return list(dict.fromkeys(
        key.rpartition(".")[0] for key in shapes for other in others
        if plain_model(builder, **other).state_dict()[key].shape != shapes[key]))


def builder_facts(builder: str) -> dict[str, Any]:
    """What a catalog says of one of torchvision's builders: the name of its Enum."""
    return {"weights": enum_of(builder).__name__}


def is_quantized(builder: str) -> bool:
    return torchvision_registry.get_model_builder(builder).__module__.startswith("torchvision.models.quantization.")


def from_timm(architecture: str) -> dict[str, WeightsConfig]:
    """timm's tags, the default first."""
    published = timm_registry._model_default_cfgs.get(architecture)
    configs = {}
    for tag in published.tags if published else ():
        name = f"{architecture}.{tag}" if tag else architecture
        theirs = dataclasses.asdict(timm_registry._model_pretrained_cfgs[name])
        fields = {key: value for key, value in theirs.items() if value is not None and key != "state_dict"}
        # from_dict lists the sources as timm resolves them: a file, then the hub, then a URL. The URLs of weights with
        # `custom_load` (JAX arrays, .npz) come last, so they matter only to those who cannot reach the hub.
        configs[tag] = WeightsConfig.from_dict({
            **fields, "label_set": infer_imagenet_subset(theirs), "metrics": published_accuracy(name, fields)})
    return as_configs(architecture, configs)


@functools.cache
def accuracies() -> dict[str, list[dict[str, float]]]:
    """timm's results on ImageNet-1K by the name of the weights: best first, one for each way they were measured."""
    found: dict[str, list[dict[str, float]]] = {}
    with open(PUBLISHED, newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            found.setdefault(row.pop("model"), []).append({key: float(value) for key, value in row.items()})
    return found


def published_accuracy(name: str, fields: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """`metrics` of timm's weights, with the size of images where it was not that of training.

    Of several results the one at the size and crop of evaluation, or at the size alone, or else the best.
    """
    rows = accuracies().get(name)
    if not rows:
        return {}
    size = (fields.get("test_input_size") or fields["input_size"])[-1]
    crop = fields.get("test_crop_pct") or fields["crop_pct"]
    row = max(rows, key=lambda row: (row["img_size"] == size, row["crop_pct"] == crop))
    metrics: dict[str, float] = {"acc@1": row["top1"], "acc@5": row["top5"]}
    if row["img_size"] != fields["input_size"][-1]:
        metrics |= {"img_size": int(row["img_size"])}
    if row["crop_pct"] != fields["crop_pct"]:
        metrics |= {"crop_pct": row["crop_pct"]}
    return {"ImageNet-1K": metrics}


def builders_of(architecture: str) -> list[str]:
    """torchvision's builders of an architecture."""
    return [name for name, builder in torchvision_registry.BUILTIN_MODELS.items()
            if ARCHITECTURES.get(name, name) == architecture
            and (builder.__module__.count(".") == 2 or is_quantized(name))]


def enum_of(builder: str) -> Any:
    """The Enum of a builder's weights."""
    return torchvision_registry.get_model_weights(builder)


def from_torchvision(architecture: str, described: WeightsConfig) -> dict[str, WeightsConfig]:
    """torchvision's weights of an architecture under the lower-cased names of their Enum, its DEFAULT first.

    Args:
        architecture: Our name.
        described: A config that names the head and the first convolution of such an architecture.
    """
    configs = {}
    for builder in builders_of(architecture):
        members = enum_of(builder)
        for member in sorted(members, key=lambda member: member is not getattr(members, "DEFAULT", None)):
            configs[member.name.lower()] = torchvision_config(builder, member, described)
    return as_configs(architecture, configs)


def torchvision_config(builder: str, weights: Any, described: WeightsConfig) -> WeightsConfig:
    """One of torchvision's weights; `described` names what torchvision does not, head and first convolution."""
    preset, meta = weights.transforms, weights.meta
    if preset.func is not ImageClassification:
        raise ConfigError(f"{weights}: unknown preprocessing {preset.func}")
    call = inspect.signature(ImageClassification).bind(**preset.keywords)
    call.apply_defaults()
    images = call.arguments
    crop, resize = images["crop_size"], images["resize_size"]
    is_swag = "SWAG" in weights.name
    classes = len(meta["categories"] or range(1000))  # VGG-16's features have a classifier that means nothing
    builder_module = torchvision_registry.get_model_builder(builder).__module__
    backend, unquantized = meta.get("backend"), meta.get("unquantized")
    return WeightsConfig(
        sources=(weights.url,),
        key_map=None if builder_module in SAME_KEYS or "backend" in meta else "torchvision",
        model_args=MODEL_ARGS.get(builder, {}) | ({"quantize": True, "backend": backend} if backend else {}),
        input_size=(3, crop, crop),
        min_input_size=(3, *meta["min_size"]),
        fixed_input_size=described.fixed_input_size,
        interpolation=images["interpolation"].value,
        crop_pct=crop_share(crop, resize),
        mean=tuple(images["mean"]),
        std=tuple(images["std"]),
        preprocessing="torchvision",
        resize_size=resize,
        antialias=images["antialias"],
        num_classes=classes,
        label_set=infer_imagenet_subset({"num_classes": classes}) if meta["categories"] else None,
        pool_size=pool_size(builder, crop, described),
        first_conv=described.first_conv,
        classifier=described.classifier,
        license="cc-by-nc-4.0" if is_swag else "bsd-3-clause",  # https://github.com/facebookresearch/SWAG
        origin_url="https://github.com/facebookresearch/SWAG" if is_swag else "https://github.com/pytorch/vision",
        recipe=meta["recipe"],
        docs=" ".join(meta["_docs"].split()),
        metrics={data: row for data, row in meta["_metrics"].items() if not any(map(math.isnan, row.values()))},
        num_params=meta["num_params"],
        gmacs=meta["_ops"],
        file_size=meta["_file_size"],
        backend=backend,
        unquantized=unquantized and registry_name(unquantized),
    )


def pool_size(builder: str, crop: int, described: WeightsConfig) -> tuple[int, ...] | None:
    """Rows and columns of the last feature map: timm's, for its image size; counted where timm lacks the network."""
    if described.pool_size and crop == described.input_size[-1]:
        return described.pool_size
    if described.pool_size or described.fixed_input_size:
        return described.pool_size and (-(-crop // 32),) * 2
    with torch.device("meta"):
        model = registry.model_entrypoint(ARCHITECTURES.get(builder, builder))().eval()
        return tuple(model.forward_features(torch.empty(1, 3, crop, crop)).shape[-2:])


def registry_name(weights: Any) -> str:
    """Our name of torchvision's weights: ResNet50_Weights.IMAGENET1K_V2 is resnet50.imagenet1k_v2."""
    builder = type(weights).__name__.removesuffix("_Weights").lower()
    return f"{ARCHITECTURES.get(builder, builder)}.{weights.name.lower()}"


def crop_share(crop: int, resize: int) -> float:
    """crop / resize, rounded down so that timm's floor(crop / share) is `resize` again."""
    for digits in range(3, 9):
        share = int(crop / resize * 10**digits) / 10**digits
        if int(crop / share) == resize:
            return share
    raise ConfigError(f"no share of the image makes a crop of {crop} from {resize} pixels")


def add_by_hand(
    architecture: str, tags: Mapping[str, WeightsConfig], extra: Mapping[str, Mapping[str, Any]]
) -> dict[str, WeightsConfig]:
    """Tags with those that are written by hand; of a tag that is there already, fields are replaced."""
    merged = dict(tags)
    for tag, fields in extra.items():
        config = WeightsConfig.from_dict(fields)
        if tag in tags:
            config = tags[tag].replace(**{name: getattr(config, name) for name in fields})
        merged[tag] = config
    return as_configs(architecture, merged)


def weights_first(configs: dict[str, WeightsConfig]) -> dict[str, WeightsConfig]:
    """The tags, with one that has weights as the default: where timm has only a description, torchvision may have."""
    first = next((tag for tag, config in configs.items() if config.has_weights), None)
    return configs if first is None else {first: configs[first], **configs}


def differences(current: Catalog, wanted: Catalog) -> Iterator[str]:
    """What the current catalog lacks, has wrongly, or has in excess; a line each."""
    where = wanted.path.name
    for part in ("aliases", "deprecated", "builders"):
        ours, theirs = getattr(current, part), getattr(wanted, part)
        for name in {**theirs, **ours}:
            if ours.get(name, "") != theirs.get(name, ""):
                yield f"{where}: {part}: {name}: ours {_shown(ours, name)}, theirs {_shown(theirs, name)}"
    for architecture, tags in wanted.configs.items():
        ours = current.configs.get(architecture, {})
        for tag, config in tags.items():
            if tag not in ours:
                yield f"{where}: {config.name}: missing"
                continue
            for field in dataclasses.fields(config):
                mine, their = getattr(ours[tag], field.name), getattr(config, field.name)
                if mine != their:
                    yield f"{where}: {config.name}: {field.name}: ours {mine!r}, theirs {their!r}"
        if [tag for tag in ours if tag in tags] != [tag for tag in tags if tag in ours]:
            yield f"{where}: {architecture}: order of tags: ours {', '.join(ours)}; theirs {', '.join(tags)}"
    for config in current:
        if config.tag not in {c.tag for c in wanted.configs.get(config.architecture, {}).values()}:
            yield f"{where}: {config.name}: published by nobody, and not in {EXTRAS.name}/{where}"


def _shown(names: Mapping[str, str | None], name: str) -> str:
    return repr(names[name]) if name in names else "absent"


def render(catalog: Catalog) -> str:
    """The catalog as YAML in which an entry says only what is its own."""
    entries = {name: {tag: plain(config) for tag, config in tags.items()} for name, tags in catalog.configs.items()}
    shared = {
        name: value for name in SHAREABLE
        for value, count in [most_common(fields[name] for tags in entries.values() for fields in tags.values())]
        if 2 * count > sum(map(len, entries.values())) and value != plain(DEFAULTS)[name]
    }
    architectures: dict[str, Any] = {}
    for name, tags in entries.items():
        base = {**plain(DEFAULTS), **shared}
        own = {}
        for field in SHAREABLE:
            value, count = most_common(fields[field] for fields in tags.values())
            unchanged = sum(fields[field] == base[field] for fields in tags.values())
            if value != base[field] and count > unchanged + 1:  # saves more lines than the one that it takes
                own[field] = value
        body = {"defaults": own} if own else {}
        body["tags"] = {
            tag: {field: value for field, value in fields.items() if value != {**base, **own}[field]}
            for tag, fields in tags.items()
        }
        architectures[name] = body
    header = (f"# Generated by scripts/sync_catalog.py from timm {timm.__version__} and torchvision "
              f"{torchvision.__version__.partition('+')[0]}: facts only.\n"
              f"# Do not edit: what is written by hand stands in scripts/catalog_extra. mvlib/weights.py explains the "
              f"format.\n")
    document = {"defaults": shared, "aliases": catalog.aliases, "deprecated": catalog.deprecated,
                "builders": {name: {key: _Line(value) if isinstance(value, Mapping) else value
                                    for key, value in facts.items()} for name, facts in catalog.builders.items()}}
    parts = {key: value for key, value in document.items() if value}
    return header + dump(parts) + dump({"architectures": architectures})


def plain(config: WeightsConfig) -> dict[str, Any]:
    """A config's fields as YAML has them, names left out, sources shortened to what a catalog completes."""
    fields = {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}
    completed = f"/{fields.pop('architecture')}.{fields.pop('tag')}"
    fields["sources"] = [s.removesuffix(completed) + "/" if s.startswith("hf-hub:") and s.endswith(completed) else s
                         for s in fields["sources"]]
    return fields


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _Line((key, _plain(item)) for key, item in value.items())
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


class _Line(dict):
    """A mapping that is written on one line."""


def most_common(values: Iterable[Any]) -> tuple[Any, int]:
    """The most frequent value and its count; the first of equals."""
    seen: dict[str, Any] = {}
    counts = Counter(repr(value) for value in values if not seen.setdefault(repr(value), value) or True)
    key, count = counts.most_common(1)[0]
    return seen[key], count


class _Dumper(yaml.SafeDumper):
    """Blocks for mappings, one line for lists and for what entries hold; no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(
    list, lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True))
_Dumper.add_representer(
    _Line, lambda dumper, data: dumper.represent_mapping("tag:yaml.org,2002:map", data, flow_style=True))


def dump(data: Mapping[str, Any]) -> str:
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, default_flow_style=False, width=1 << 16, allow_unicode=True)


if __name__ == "__main__":
    sys.exit(main())
