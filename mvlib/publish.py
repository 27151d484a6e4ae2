"""A model as a repository: config.json in timm's layout, safetensors, and a model card."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from . import hub
from .errors import ConfigError
from .factory import describe_inputs
from .files import replacing
from .models.base import ImageModel
from .weights import OWN_FIELDS, WeightsConfig

__all__ = ["push_to_hub", "save_for_hub"]

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
) -> Path:
    """Write a model as a repository that `create_model("local-dir:...")`, here and in timm, reads back.

    Args:
        model: A model of ours, as `create_model` returns it (trained further or not).
        directory: Folder to write, created where it is missing: config.json, model.safetensors, README.md.
        label_names: Class names, one an output.
        label_descriptions: {class name: description}.
        license: Licence of the weights; that of the weights which the model was loaded from unless given.
        metrics: Measured figures, {data set: {metric: value}}.
        description: A paragraph for the model card.
        model_args: Arguments to rebuild the model with, besides those that it was built with.
        data_config: Preprocessing fields to replace ("input_size", "mean", "crop_pct", ...).
        repo_id: Repository that the card's example names; the folder itself unless given.

    Returns:
        The folder.

    Raises:
        ConfigError: The model has no name to be rebuilt by, an argument is not plain data, or the number of class
            names is not that of the model's outputs.
    """
    if getattr(model, "is_quantized", False):
        raise ConfigError(f"'{model.architecture}' is int8, and safetensors cannot hold its packed weights; torch.save("
                          f"model.state_dict(), path) can, and create_model(..., checkpoint_path=path) reads it")
    if not isinstance(model, ImageModel) or getattr(model, "architecture", None) is None:
        raise ConfigError("only a model that create_model built can be saved: it has the name to be rebuilt by")
    if label_names is not None and len(label_names) != model.num_classes:
        raise ConfigError(f"{len(label_names)} label_names for a model with {model.num_classes} outputs")
    config = _current_config(model, label_names, label_descriptions, license, metrics, description, data_config)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    with replacing(directory / "model.safetensors") as path:
        save_file(tensors, path, metadata={"format": "pt"})
    texts = {"config.json": json.dumps(_config_json(model, config, model_args), indent=2),
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


def _current_config(
    model: ImageModel,
    label_names: Sequence[str] | None,
    label_descriptions: Mapping[str, str] | None,
    license: str | None,
    metrics: Mapping[str, Mapping[str, float]] | None,
    description: str | None,
    data_config: Mapping[str, Any] | None,
) -> WeightsConfig:
    """The config of the weights as the model holds them now, not of those that it began with."""
    config = describe_inputs(model, model.weights_config)
    changes: dict[str, Any] = {"num_classes": model.num_classes, "label_offset": None}
    if model.num_classes != config.num_classes:
        changes.update(label_set=None, label_names=None, label_descriptions=None, metrics={})
    if model.in_chans not in (1, len(config.mean)):
        changes.update(mean=(sum(config.mean) / len(config.mean),) * model.in_chans,
                       std=(sum(config.std) / len(config.std),) * model.in_chans)
    for name, value in (("label_names", label_names and tuple(label_names)), ("license", license),
                        ("label_descriptions", label_descriptions), ("metrics", metrics),
                        ("description", description)):
        if value is not None:
            changes[name] = value
    if label_names is not None:
        changes["label_set"] = None
    known = {f.name for f in dataclasses.fields(WeightsConfig)}
    return config.replace(**{**changes, **{k: v for k, v in (data_config or {}).items() if k in known}})


def _config_json(model: ImageModel, config: WeightsConfig, model_args: Mapping[str, Any] | None) -> dict[str, Any]:
    arguments = {**model.model_args, **(model_args or {})}
    arguments = {key: value for key, value in arguments.items() if not key.endswith("drop_rate")}
    arguments.update(in_chans=model.in_chans, num_classes=model.num_classes)
    if "img_size" in arguments and _image_size(model):
        arguments["img_size"] = _image_size(model)
    pool = _pool_type(model)
    if pool is not None:
        arguments["global_pool"] = pool
    for key, value in arguments.items():
        try:
            json.dumps(value)
        except TypeError:
            raise ConfigError(f"the argument {key}={value!r} that the model was built with is not plain data; pass "
                              f"model_args={{'{key}': ...}} with a name for it") from None
    fields = config.to_dict(remove_source=True)
    data = {
        "architecture": model.architecture,
        "num_classes": model.num_classes,
        "num_features": model.num_features,
        "global_pool": pool,
        "label_names": config.label_names,
        "label_descriptions": config.label_descriptions,
        "model_args": arguments,
        "pretrained_cfg": {"custom_load": False, **{k: fields[k] for k in _TIMM_FIELDS if k in fields}},
        "mvlib": {k: fields[k] for k in OWN_FIELDS if k in fields},
    }
    return {key: value for key, value in data.items() if value not in (None, {})}


def _image_size(model: nn.Module) -> tuple[int, int] | None:
    return getattr(getattr(model, "patch_embed", model), "img_size", None)


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
    params = sum(p.numel() for p in model.parameters())
    label_count = f"{model.num_classes} classes"
    labels = label_count + (f" of {config.label_set}" if config.label_set else "")
    if config.label_names:
        shown = ", ".join(config.label_names[:10])
        labels = f"{label_count}: {shown}{', ...' if len(config.label_names) > 10 else ''}"
    lines = [
        "---",
        "library_name: timm",
        "pipeline_tag: image-classification",
        f"license: {config.license or 'other'}",
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
    for key, title in (("origin_url", "Origin"), ("paper_ids", "Paper"), ("recipe", "Recipe")):
        value = getattr(config, key)
        if value:
            lines.append(f"- {title}: {value if isinstance(value, str) else ', '.join(value)}")
    if config.metrics:
        lines += ["", "| data set | metric | value |", "| --- | --- | --- |"]
        lines += [f"| {data} | {metric} | {value} |" for data, row in config.metrics.items()
                  for metric, value in row.items()]
    lines += ["", "## Use", ""]
    if not repo_id:
        lines += ["Run in this folder:", ""]
    lines += [
        "```python",
        "import mvlib",
        "import torch",
        "from PIL import Image",
        "",
        f'model = mvlib.create_model("{source}").eval()',
        "transform = mvlib.create_transform(**mvlib.resolve_data_config(model=model))",
        'image = Image.new("RGB", (640, 480))  # or Image.open("photo.jpg").convert("RGB")',
        "with torch.inference_mode():",
        "    probabilities = model(transform(image)[None]).softmax(dim=-1)",
        "print(probabilities.topk(min(5, probabilities.shape[-1])))",
        "```",
        "",
    ]
    return "\n".join(lines)
