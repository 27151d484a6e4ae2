"""timm's functions for repositories of the Hugging Face hub, over ours."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import nn

from ... import hub, publish
from ...errors import ConfigError, DownloadError
from ...layers.helpers import unwrap
from ...models.base import ImageModel
from .checkpoints import load_state_dict
from .inputs import get_model_args
from .pretrained import filter_pretrained_cfg

__all__ = [
    "HF_OPEN_CLIP_SAFE_WEIGHTS_NAME", "HF_OPEN_CLIP_WEIGHTS_NAME", "HF_SAFE_WEIGHTS_NAME", "HF_WEIGHTS_NAME",
    "check_cached_file", "download_cached_file", "download_from_hf", "generate_readme", "get_cache_dir", "has_hf_hub",
    "hf_split", "load_cfg_from_json", "load_custom_from_hf", "load_model_config_from_hf",
    "load_model_config_from_path", "load_state_dict_from_hf", "load_state_dict_from_path", "push_to_hf_hub",
    "save_config_for_hf", "save_for_hf",
]

PathLike = str | os.PathLike[str]

HF_WEIGHTS_NAME = "pytorch_model.bin"
HF_SAFE_WEIGHTS_NAME = "model.safetensors"
HF_OPEN_CLIP_WEIGHTS_NAME = "open_clip_pytorch_model.bin"
HF_OPEN_CLIP_SAFE_WEIGHTS_NAME = "open_clip_model.safetensors"
_SAFE = {HF_WEIGHTS_NAME: HF_SAFE_WEIGHTS_NAME, HF_OPEN_CLIP_WEIGHTS_NAME: HF_OPEN_CLIP_SAFE_WEIGHTS_NAME}


def get_cache_dir(child_dir: str = "") -> str:
    """The folder of weights that came from plain addresses, or one in it; created where it is missing."""
    folder = hub.torch_checkpoints_dir() / child_dir
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)


def _place(url: Any) -> tuple[str, str | None]:
    return (url[0], url[1]) if isinstance(url, (list, tuple)) else (url, None)


def download_cached_file(
    url: str | list[str] | tuple[str, str], check_hash: bool = True, progress: bool = False,
    cache_dir: PathLike | None = None,
) -> str:
    """The local file of an address, or (address, file name), downloaded unless it is there; a checksum in its name is
    checked always."""
    source, filename = _place(url)
    return str(hub.fetch(source, filename=filename, cache_dir=cache_dir, progress=progress))


def check_cached_file(
    url: str | list[str] | tuple[str, str], check_hash: bool = True, cache_dir: PathLike | None = None
) -> bool:
    """Whether the file of an address has been downloaded."""
    source, filename = _place(url)
    return hub.is_cached(source, filename=filename, cache_dir=cache_dir) is not None


def has_hf_hub(necessary: bool = False) -> bool:
    """Whether huggingface_hub is there; mvlib needs it."""
    return True


def hf_split(hf_id: str) -> tuple[str, str | None]:
    """("owner/name", revision or None) of "owner/name@revision"."""
    name, *revision = hf_id.split("@")
    if not name or len(revision) > 1:
        raise AssertionError(f"'{hf_id}' is no repository: owner/name[@revision]")
    return name, revision[0] if revision else None


def load_cfg_from_json(json_file: PathLike) -> Any:
    """What a file of JSON says."""
    return json.loads(Path(json_file).read_text(encoding="utf-8"))


def download_from_hf(model_id: str, filename: str, cache_dir: PathLike | None = None) -> str:
    """The local copy of a repository's file."""
    return str(hub.fetch_file(model_id, filename, cache_dir=cache_dir))


def load_model_config_from_hf(
    model_id: str, cache_dir: PathLike | None = None
) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """(config of the weights, architecture, arguments of the model) of a repository."""
    return _parsed(hub.fetch_config(f"hf-hub:{model_id}", cache_dir=cache_dir), hf_hub_id=model_id, source="hf-hub")


def load_model_config_from_path(model_path: PathLike) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """The same of a folder.

    Raises:
        FileNotFoundError: There is no config.json in it.
    """
    if not (Path(model_path) / "config.json").is_file():
        raise FileNotFoundError(f"there is no config.json in {model_path}")
    return _parsed(hub.fetch_config(f"local-dir:{model_path}"), file=str(model_path), source="local-dir")


def _parsed(data: dict[str, Any], **place: str) -> tuple[dict[str, Any], str, dict[str, Any]]:
    nested = data.get("pretrained_cfg")
    cfg = dict(nested) if isinstance(nested, dict) else dict(data)
    architecture = data.get("architecture", cfg.get("architecture"))
    if not isinstance(architecture, str):
        raise ConfigError("config.json names no 'architecture'; it is not a timm-style repository")
    if nested is None:
        cfg = {key: value for key, value in cfg.items() if key not in ("architecture", "num_features")}
        if "labels" in cfg:
            cfg["label_names"] = cfg.pop("labels")
    cfg.update({key: data[key] for key in ("num_classes", "label_names", "label_descriptions") if key in data}, **place)
    arguments = data.get("model_args") or {}
    if arguments.get("dynamic_img_size") or arguments.get("strict_img_size") is False:
        cfg["fixed_input_size"] = False
    chans, *size = cfg.get("input_size") or (3, 224, 224)
    if arguments.get("img_size") is not None and cfg.get("fixed_input_size"):
        side = arguments["img_size"]
        size = [side, side] if isinstance(side, int) else list(side)
        cfg["input_size"] = (chans, *size)
    if arguments.get("in_chans") is not None:
        cfg["input_size"] = (arguments["in_chans"], *size)
        for key in ("test_input_size", "min_input_size"):
            if cfg.get(key):
                cfg[key] = (arguments["in_chans"], *cfg[key][1:])
    return cfg, architecture, arguments


def load_state_dict_from_hf(
    model_id: str, filename: str = HF_WEIGHTS_NAME, weights_only: bool = True, cache_dir: PathLike | None = None
) -> dict[str, Any]:
    """The tensors of a repository's file, of its safetensors rather than of a pickle."""
    safe = _SAFE.get(filename) or (f"{filename[:-4]}.safetensors" if filename.endswith(".bin") else filename)
    try:
        path = hub.fetch_file(model_id, safe, cache_dir=cache_dir)
    except DownloadError:
        if safe == filename:
            raise
        path = hub.fetch_file(model_id, filename, cache_dir=cache_dir)
    return load_state_dict(path)


def load_state_dict_from_path(path: PathLike, weights_only: bool = True) -> dict[str, Any]:
    """The tensors of the weights file in a folder."""
    return load_state_dict(hub.fetch(f"local-dir:{path}"))


def load_custom_from_hf(model_id: str, filename: str, model: Any, cache_dir: PathLike | None = None) -> None:
    """Have a model load a repository's file of another format by its own `load_pretrained`."""
    model.load_pretrained(download_from_hf(model_id, filename, cache_dir))


def save_config_for_hf(
    model: nn.Module,
    config_path: PathLike,
    model_config: Mapping[str, Any] | None = None,
    model_args: Mapping[str, Any] | None = None,
    data_config: Mapping[str, Any] | None = None,
) -> None:
    """Write a model's config.json.

    Args:
        model: The model.
        config_path: The file.
        model_config: Fields of config.json that go before those of the model: `label_names`, `pretrained_cfg`, ...
        model_args: Arguments that build the model, where those that it was built with are not plain data.
        data_config: How its inputs are prepared.
    """
    Path(config_path).write_text(json.dumps(_config(model, model_config, model_args, data_config), indent=2),
                                 encoding="utf-8")


def _config(
    model: Any, model_config: Mapping[str, Any] | None, model_args: Mapping[str, Any] | None,
    data_config: Mapping[str, Any] | None,
) -> dict[str, Any]:
    model = unwrap(model)
    given = dict(model_config or {})
    if "labels" in given:
        given.setdefault("label_names", given.pop("labels"))
    overrides = {**given.pop("model_args", {}), **(model_args or {})}
    if given.get("num_classes", model.num_classes) != model.num_classes:
        raise ValueError(f"num_classes={given['num_classes']} of a model that has {model.num_classes}")
    data: dict[str, Any]
    if isinstance(model, ImageModel):
        data = publish.hub_config(model, data_config)
    else:
        cfg = filter_pretrained_cfg(getattr(model, "pretrained_cfg", {}), remove_source=True)
        cfg.update({**(data_config or {}), "num_classes": model.num_classes, "state_dict": None})
        data = {"architecture": cfg.pop("architecture", None) or type(model).__name__,
                "num_classes": model.num_classes, "num_features": getattr(model, "num_features", None)}
        data["pretrained_cfg"] = {key: value for key, value in cfg.items() if value is not None}
    arguments = get_model_args(model, overrides)
    for key, value in arguments.items():
        if not publish.is_plain(value):
            raise ValueError(f"the model's argument {key} is not plain data; pass model_args={{'{key}': ...}}")
    data["model_args"] = arguments
    data["pretrained_cfg"] = {**data.get("pretrained_cfg", {}), **given.pop("pretrained_cfg", {})}
    return {**data, **given}


def save_for_hf(
    model: nn.Module,
    save_directory: PathLike,
    model_config: Mapping[str, Any] | None = None,
    model_args: Mapping[str, Any] | None = None,
    safe_serialization: bool | Literal["both"] = False,
    data_config: Mapping[str, Any] | None = None,
) -> None:
    """Write a model's weights and config.json into a folder.

    Args:
        model: The model.
        save_directory: The folder, created where it is missing.
        model_config, model_args, data_config: As of `save_config_for_hf`.
        safe_serialization: True writes safetensors, False torch's format, "both" both.
    """
    folder = Path(save_directory)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = model.state_dict()
    if safe_serialization:
        save_file({key: value.detach().clone().contiguous() for key, value in tensors.items()},
                  folder / HF_SAFE_WEIGHTS_NAME, metadata={"format": "pt"})
    if safe_serialization in (False, "both"):
        torch.save(tensors, folder / HF_WEIGHTS_NAME)
    save_config_for_hf(model, folder / "config.json", model_config, model_args, data_config)


def push_to_hf_hub(
    model: nn.Module,
    repo_id: str,
    commit_message: str = "Add model",
    token: str | None = None,
    revision: str | None = None,
    private: bool = False,
    create_pr: bool = False,
    model_config: Mapping[str, Any] | None = None,
    model_card: Mapping[str, Any] | None = None,
    model_args: Mapping[str, Any] | None = None,
    task_name: str = "image-classification",
    safe_serialization: bool | Literal["both"] = "both",
    data_config: Mapping[str, Any] | None = None,
) -> str:
    """Write a model as `save_for_hf` does, with a card, and upload it.

    Args:
        model: The model.
        repo_id: Repository, created where it is missing.
        commit_message, token, revision, private, create_pr: As of `mvlib.push_to_hub`.
        model_config, model_args, data_config, safe_serialization: As of `save_for_hf`.
        model_card: What `generate_readme` takes.
        task_name: The card's task.

    Returns:
        URL of the commit, or of the pull request.
    """
    with tempfile.TemporaryDirectory() as folder:
        save_for_hf(model, folder, model_config, model_args, safe_serialization, data_config)
        card = generate_readme(dict(model_card or {}), repo_id.rpartition("/")[2], task_name)
        (Path(folder) / "README.md").write_text(card, encoding="utf-8")
        return hub.push_folder(folder, repo_id, private=private, token=token, commit_message=commit_message,
                               revision=revision, create_pr=create_pr)


def generate_readme(model_card: Mapping[str, Any], model_name: str, task_name: str = "image-classification") -> str:
    """A model's card.

    Args:
        model_card: `tags`, `license`, `license_name`, `license_link`, `library_name`, `description`, `details`
            ({name: value, values or {name: value}}), `usage`, `comparison`, `citation` (one or several).
        model_name: Its title.
        task_name: Its task.
    """
    card = dict(model_card)
    details = card.get("details", {})
    lines = ["---", "tags:", *(f"- {tag}" for tag in card.get("tags") or (task_name, "timm", "transformers")),
             f"pipeline_tag: {task_name}", f"library_name: {card.get('library_name', 'timm')}",
             f"license: {card.get('license', 'apache-2.0')}"]
    lines += [f"{key}: {card[key]}" for key in ("license_name", "license_link") if key in card]
    if "Dataset" in details:
        found = [name for key in ("Dataset", "Pretrain Dataset") for name in _listed(details.get(key, ()))]
        lines += ["datasets:", *(f"- {name.lower()}" for name in found)]
    lines += ["---", f"# Model card for {model_name}"]
    if "description" in card:
        lines += ["", card["description"]]
    if details:
        lines += ["", "## Model Details"]
    for key, value in details.items():
        inner = [f"{name}: {item}" for name, item in value.items()] if isinstance(value, dict) else \
            list(value) if isinstance(value, (list, tuple)) else None
        lines += [f"- **{key}:** {value}"] if inner is None else [f"- **{key}:**", *(f"  - {item}" for item in inner)]
    for key, title in (("usage", "Model Usage"), ("comparison", "Model Comparison")):
        if key in card:
            lines += ["", f"## {title}", card[key]]
    if "citation" in card:
        lines += ["", "## Citation", *(f"```bibtex\n{text}\n```" for text in _listed(card["citation"]))]
    return "\n".join((*lines, ""))


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]
