"""A model as a repository: config.json in timm's layout, safetensors, and a model card."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from . import hub
from .data.config import image_mode, resolve_data_config
from .data.labels import known_names
from .errors import ConfigError
from .factory import build_empty, describe_inputs
from .files import replacing
from .layers.helpers import unwrap
from .models.base import ImageModel
from .names import closest
from .tasks import check_classifies
from .weights import INPUT_FIELDS, OWN_FIELDS, WeightsConfig

__all__ = ["describe_model", "hub_config", "push_to_hub", "save_for_hub"]

# The fields that timm's PretrainedCfg has: it refuses a config.json with others, so ours (OWN_FIELDS) go under "mvlib".
_TIMM_FIELDS = (
    "tag", "input_size", "test_input_size", "min_input_size", "fixed_input_size", "interpolation", "crop_pct",
    "test_crop_pct", "crop_mode", "mean", "std", "num_classes", "pool_size", "test_pool_size", "first_conv",
    "classifier", "license", "description", "origin_url", "paper_name", "paper_ids", "notes",
)


def save_for_hub(
    model: ImageModel,
    directory: str | os.PathLike[str],
    *,
    label_names: Sequence[str] | None = None,
    label_descriptions: Mapping[str, str] | None = None,
    license: str | None = None,
    metrics: Mapping[str, Mapping[str, float]] | None = None,
    description: str | None = None,
    model_args: Mapping[str, Any] | None = None,
    data_config: Mapping[str, Any] | None = None,
    repo_id: str | None = None,
    trained: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model as a repository that `create_model("local-dir:...")`, here and in timm, reads back.

    The folder says what is true of the model as it is now. Of the weights that it was loaded from, if it was, it keeps
    the class names (with the same number of classes), the licence unless another is given, and the preprocessing as far
    as neither the model nor `data_config` changes it; the rest is said of the base model. A model that began at random
    says nothing of published weights.

    Args:
        model: A model of ours, as `create_model` returns it (trained further or not).
        directory: Folder to write, created where it is missing: config.json, model.safetensors, README.md.
        label_names: Class names, one an output.
        label_descriptions: {class name: description}.
        license: Licence of the weights; that of the weights which the model was loaded from unless given.
        metrics: Measured figures, {data set: {metric: value}}.
        description: A paragraph for the model card.
        model_args: Arguments to rebuild the model with, besides those that it was built with.
        data_config: Preprocessing that the model is to be used with ("input_size", "mean", "crop_pct", ...; as
            `resolve_data_config` gives it, or a part). What follows from it (test sizes, ...) is adapted.
        repo_id: Repository that the card's example names; the folder itself unless given.
        trained: How the weights came about: "epoch" of "epochs", "eval_metric", "average" (whether they are one).

    Returns:
        The folder.

    Raises:
        ConfigError: The model has no name to be rebuilt by, an argument is not plain data, the arguments do not build
            a model like this one, or the number of class names is not that of the model's outputs.
    """
    model = unwrap(model)
    check_classifies(model, "save_for_hub", "torch.save(model.state_dict(), path) keeps it, and create_model(..., "
                                            "checkpoint_path=path) reads it")
    if getattr(model, "is_quantized", False):
        raise ConfigError(f"'{model.architecture}' is int8, and safetensors cannot hold its packed weights; torch.save("
                          f"model.state_dict(), path) can, and create_model(..., checkpoint_path=path) reads it")
    if getattr(model, "architecture", None) is None:
        raise ConfigError("only a model that create_model built can be saved: it has the name to be rebuilt by")
    if getattr(model, "structure", None) == "torchvision":
        raise ConfigError(f"{type(model).__name__} is torchvision's class, and a repository describes mvlib's: load "
                          f"its state dict into create_model('{model.architecture}', pretrained=False, "
                          f"num_classes={model.num_classes}), and save that")
    if not isinstance(model, ImageModel):
        raise ConfigError(f"{type(model).__name__} cannot be saved for the hub: derive it from mvlib.ImageModel, which "
                          f"says what a config.json has to")
    if label_names is not None and len(label_names) != model.num_classes:
        raise ConfigError(f"{len(label_names)} label_names for a model with {model.num_classes} outputs")
    config = _current_config(model)
    if data_config is not None:
        config = config.with_inputs(**_inputs(data_config))
    if label_names is not None:
        config = config.replace(label_set=None, label_names=tuple(label_names), label_descriptions=None)
    given = dict(license=license, label_descriptions=label_descriptions, metrics=metrics, description=description,
                 trained=trained)
    config = config.replace(**{name: value for name, value in given.items() if value is not None})
    arguments = {**current_arguments(model), **(model_args or {})}
    for key, value in arguments.items():
        if not is_plain(value):
            raise ConfigError(f"the argument {key}={value!r} that the model was built with is not plain data; pass "
                              f"model_args={{'{key}': ...}} with a name for it")
    _check_rebuilds(model, arguments)
    contents = _config_json(model, config, arguments)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tensors, places = {}, set()
    for key, value in model.state_dict().items():
        value = value.detach().cpu().contiguous()
        is_shared = value.numel() > 0 and value.data_ptr() in places  # safetensors takes no memory twice
        tensors[key] = value.clone() if is_shared else value
        places.add(value.data_ptr())
    with replacing(directory / "model.safetensors") as path:
        save_file(tensors, path, metadata={"format": "pt"})
    texts = {"config.json": json.dumps(contents, indent=2),
             "README.md": _model_card(model, config, repo_id)}
    for name, text in texts.items():
        with replacing(directory / name) as path:
            path.write_text(text, encoding="utf-8")
    return directory


def push_to_hub(
    model: ImageModel,
    repo_id: str,
    *,
    private: bool = False,
    token: str | None = None,
    commit_message: str = "Add model",
    revision: str | None = None,
    create_pr: bool = False,
    **kwargs: Any,
) -> str:
    """Save a model as `save_for_hub` does (whose keyword arguments this takes too) and upload it to the hub.

    Returns:
        URL of the commit, or of the pull request.

    Raises:
        ConfigError: The model cannot be saved.
        DownloadError: The hub refused, or cannot be reached.
    """
    with tempfile.TemporaryDirectory() as folder:
        save_for_hub(model, folder, repo_id=repo_id, **kwargs)
        return hub.push_folder(folder, repo_id, private=private, token=token, commit_message=commit_message,
                               revision=revision, create_pr=create_pr)


def hub_config(model: ImageModel, data_config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What config.json says of a model as it is now, with the names of its classes where they are known.

    It describes the model; whether its arguments build it again is not looked at.

    Args:
        data_config: As of `save_for_hub`.
    """
    config = _current_config(model)
    if data_config is not None:
        config = config.with_inputs(**_inputs(data_config))
    names = known_names(config, model.num_classes)
    arguments = {key: value for key, value in current_arguments(model).items() if is_plain(value)}
    return _config_json(model, config.replace(label_names=tuple(names)) if names else config, arguments)


def describe_model(model: ImageModel) -> dict[str, Any]:
    """What a checkpoint says of its model, so that it is read back whole: `FACTS` of `mvlib.loading`, plain data."""
    config = _current_config(model)
    facts = {
        "arch": model.architecture, "num_classes": model.num_classes,
        "classes": config.label_names and list(config.label_names), "label_set": config.label_set,
        "model_args": {key: value for key, value in current_arguments(model).items() if is_plain(value)},
        "data_config": resolve_data_config(pretrained_cfg=config), "license": config.license,
        "base": config.base_model,
    }
    return {key: value for key, value in facts.items() if value is not None}


def _current_config(model: ImageModel) -> WeightsConfig:
    """The config of the weights as the model holds them now, not of those that it began with."""
    base = getattr(model, "base_weights", None)
    described = describe_inputs(model, model.weights_config)
    changes: dict[str, Any] = {"num_classes": model.num_classes}
    if base is not None:
        changes.update(license=base.license, base_model=base.describe_base())
        if model.num_classes == base.num_classes:
            names = ["label_set", "label_names", "label_descriptions"]
            if described == base:  # nothing was changed that can be seen
                names += ["test_input_size", "test_crop_pct", "test_pool_size"]
            changes.update({name: getattr(base, name) for name in names})
    if described.label_names and len(described.label_names) == model.num_classes:  # said when the model was created
        changes.update(label_set=None, label_names=described.label_names,
                       label_descriptions=described.label_descriptions)
    stride = model.model_args.get("output_stride")
    if stride and described.pool_size:
        changes["pool_size"] = tuple(-(-side // stride) for side in described.input_size[1:])
    return described.of_other_weights().replace(**changes)


def _inputs(data_config: Mapping[str, Any]) -> dict[str, Any]:
    known = (*INPUT_FIELDS, "min_input_size", "test_input_size", "test_crop_pct")
    for key in data_config:
        if key not in known:
            raise ConfigError(f"unknown field '{key}' in data_config{closest(key, known)}")
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data_config.items()}


def current_arguments(model: ImageModel) -> dict[str, Any]:
    """The arguments that build a model like this one; those that only training uses are left out."""
    arguments = {key: value for key, value in model.model_args.items() if not re.search(r"drop.*_rate$", key)}
    arguments.update(in_chans=model.in_chans, num_classes=model.num_classes)
    if model.img_size and "img_size" in arguments:
        arguments["img_size"] = model.img_size
    pool = _pool_type(model)
    if pool is not None:
        arguments["global_pool"] = pool
    return arguments


def is_plain(value: Any) -> bool:
    """Whether JSON can hold it."""
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True


def _config_json(model: ImageModel, config: WeightsConfig, arguments: Mapping[str, Any]) -> dict[str, Any]:
    fields = config.to_dict(remove_source=True)
    data = {
        "architecture": model.architecture,
        "num_classes": model.num_classes,
        "num_features": model.num_features,
        "global_pool": arguments.get("global_pool"),
        "label_names": config.label_names,
        "label_descriptions": config.label_descriptions,
        "model_args": arguments,
        "pretrained_cfg": {"custom_load": False, **{k: fields[k] for k in _TIMM_FIELDS if k in fields}},
        "mvlib": {k: fields[k] for k in OWN_FIELDS if k in fields},
    }
    return {key: value for key, value in data.items() if value not in (None, {})}


def _check_rebuilds(model: ImageModel, arguments: Mapping[str, Any]) -> None:
    """What is written must be what is read: raise ConfigError where the arguments build a model of other tensors."""
    own = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    empty = build_empty(model.architecture, arguments)
    rebuilt = {key: tuple(value.shape) for key, value in empty.state_dict().items()}
    if own != rebuilt:
        key = next(key for key in [*own, *rebuilt] if own.get(key) != rebuilt.get(key))
        raise ConfigError(
            f"'{model.architecture}' was changed after it was built: its arguments give '{key}' the shape "
            f"{rebuilt.get(key, 'of nothing')}, and the model has {own.get(key, 'none')}; pass model_args={{...}} with "
            f"what builds it as it is")


def _pool_type(model: ImageModel) -> str | None:
    pool = getattr(model, "global_pool", None)
    if isinstance(pool, str):
        return pool
    try:
        return getattr(model.get_submodule(model.pool_path), "pool_type", None)
    except AttributeError:
        return None


def _model_card(model: ImageModel, config: WeightsConfig, repo_id: str | None) -> str:
    name = repo_id.rpartition("/")[2] if repo_id else config.name
    source = f"hf-hub:{repo_id}" if repo_id else "local-dir:."
    base = config.base_model
    source_of_base = (base or {}).get("source") or ""
    base_id = source_of_base.removeprefix("hf-hub:").partition("@")[0] if source_of_base.startswith("hf-hub:") else None
    params = sum(p.numel() for p in model.parameters())
    try:
        mode = image_mode(config.input_size[0])
    except ConfigError:  # no file has so many channels
        mode = None
    label_count = f"{model.num_classes} classes"
    labels = label_count + (f" of {config.label_set}" if config.label_set else "")
    if config.label_names:
        shown = ", ".join(config.label_names[:10])
        labels = f"{label_count}: {shown}{', ...' if len(config.label_names) > 10 else ''}"
    lines = [
        "---",
        "library_name: timm",
        "pipeline_tag: image-classification",
        *([f"license: {config.license}"] if config.license else []),
        *([f"base_model: {base_id}"] if base_id else []),
        "tags: [image-classification, timm, mvlib]",
        "---",
        "",
        f"# {name}",
        "",
        config.description or f"An image classification model of the architecture `{model.architecture}`.",
        "",
        f"- Parameters: {params / 1e6:.1f} M",
        f"- Image size: {config.input_size[1]} x {config.input_size[2]}, {config.input_size[0]} channels",
        f"- Labels: {labels}",
        f"- Licence: {config.license or 'not stated'}",
    ]
    if base:
        facts = [base_id and f"https://huggingface.co/{base_id}", base.get("license"), base.get("paper_ids"),
                 base.get("origin_url")]
        shown = ", ".join(fact if isinstance(fact, str) else ", ".join(fact) for fact in facts if fact)
        lines.append(f"- Base model: {base['name']}{f' ({shown})' if shown else ''}")
    if config.trained:
        lines.append(f"- Weights: {_training(config.trained)}")
    if config.metrics:
        lines += ["", "| data set | metric | value |", "| --- | --- | --- |"]
        lines += [f"| {data} | {metric} | {value} |" for data, row in config.metrics.items()
                  for metric, value in row.items()]
    lines += ["", "## Use", ""]
    if not repo_id:
        lines += ["Run in this folder:", ""]
    if mode and model.num_classes:
        lines += ["```bash", f'mvlib predict photo.jpg --model "{source}"', "```", ""]
    lines += [
        "```python",
        "import mvlib",
        "import torch",
        "from PIL import Image",
        "",
        f'model = mvlib.create_model("{source}").eval()',
        "transform = mvlib.create_transform(**mvlib.resolve_data_config(model=model))",
        f'image = Image.new("{mode}", (640, 480))  # or Image.open("photo.jpg").convert("{mode}")' if mode else
        f"image = torch.rand({config.input_size[0]}, 480, 640)  # intensities in [0, 1]",
        "with torch.inference_mode():",
        "    probabilities = model(transform(image)[None]).softmax(dim=-1)",
        "print(probabilities.topk(min(5, probabilities.shape[-1])))",
        "```",
        "",
    ]
    return "\n".join(lines)


def _training(facts: Mapping[str, Any]) -> str:
    words = ["the moving average of the weights"] if facts.get("average") else []
    if "epoch" in facts:
        words.insert(0, f"epoch {facts['epoch']} (counted from 0)" +
                     (f" of {facts['epochs']}" if "epochs" in facts else "") +
                     (f", the best by {facts['eval_metric']}" if "eval_metric" in facts else ""))
    return "; ".join(words)
