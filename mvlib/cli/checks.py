"""What a command line names, looked for before anything is loaded. Imports no torch."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

from ..engines.folder import CONFIG_FILE, is_export
from ..errors import ConfigError, DataError, UnknownNameError, WeightsError
from ..files import read_text
from ..names import closest_path, parse_model_name
from ..tasks import CLASSIFICATION

__all__ = ["check_data", "check_file", "check_folder", "check_model", "check_new_folder", "expand_models"]


def check_model(name: str, what: str, weights: bool = False) -> None:
    """Refuse a model that is not known here, or does not classify images.

    Args:
        name: Of a model, or the path of an export; whether a repository of the hub exists is seen when it is fetched.
        what: The command that takes it.
        weights: Whether published weights of it are wanted.

    Raises:
        UnknownNameError: There is no such architecture, tag or source.
        ConfigError: There is no such folder, or it is another kind of file or folder; or the model is for another task.
        WeightsError: Nothing is published for it.
    """
    if is_export(name):
        return
    try:
        source, place, _ = parse_model_name(name)
    except UnknownNameError:
        if os.path.isdir(name):
            inner = os.path.join(name, "export")
            raise ConfigError(f"{name} is a folder, but neither an export nor a repository"
                              f"{f'; {inner} is one' if os.path.isfile(os.path.join(inner, CONFIG_FILE)) else ''}") \
                from None
        if os.path.isfile(name):
            raise ConfigError(f"{name} is a file, not the name of a model: weights are read by --checkpoint FILE") \
                from None
        raise
    if source == "local-dir" and not os.path.isdir(place):
        raise ConfigError(f"there is no folder {place}, which '{name}' names{closest_path(place, files=False)}")
    if source is not None:
        return
    from ..registry import (  # reads its index, which an export needs not
        check_is_classifier,
        is_model_pretrained,
        resolve_name,
    )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of an old name, which whoever builds the model gives
        architecture, _ = resolve_name(name)
        check_is_classifier(name, what)
        if weights and not is_model_pretrained(name):
            raise WeightsError(f"no weights are published for '{name}'; see list_models('{architecture}.*', "
                               f"pretrained=True), or give a file of weights")


def check_file(path: str | os.PathLike[str] | None, option: str) -> None:
    """Refuse a file to read (if one is named) that is not there, is a folder, or may not be read.

    Raises:
        ConfigError: So it is.
    """
    if path is None or path == "":
        return
    reason = "there is no such file" if not os.path.exists(path) else "it is a folder" if os.path.isdir(path) else \
        "reading it is not permitted" if not os.access(path, os.R_OK) else None
    if reason:
        near = "" if os.path.exists(path) else closest_path(path)
        raise ConfigError(f"{option} {path} cannot be read: {reason}{near}")


def check_folder(path: str | os.PathLike[str] | None, option: str) -> None:
    """Refuse a folder to read (if one is named) that is not there.

    Raises:
        ConfigError: So it is.
    """
    if path is not None and not os.path.isdir(path):
        raise ConfigError(f"{option}: there is no folder {path}{closest_path(path, files=False)}")


def check_new_folder(path: str | os.PathLike[str], option: str) -> None:
    """Refuse a folder that could not be made, with those above it, or not be written.

    Raises:
        ConfigError: So it is.
    """
    above = Path(os.path.abspath(path))
    try:
        while not above.exists():
            above = above.parent
    except OSError as error:
        raise ConfigError(f"{option} {path} cannot be made: {error.strerror}") from None
    reason = f"{above} is a file" if not above.is_dir() else \
        None if os.access(above, os.W_OK) else f"writing to {above} is not permitted"
    if reason:
        raise ConfigError(f"{option} {path} cannot be written: {reason}")


def check_data(args: Any) -> None:
    """Refuse a data set of files that are not there, and a class map that cannot be used.

    Args:
        args: With `data_dir`, `dataset` and `class_map`.

    Raises:
        ConfigError: Its kind is unknown, or its class map is wrong.
        DataError: It is not there.
    """
    from ..data.readers.class_map import load_class_map
    from ..data.readers.factory import is_of_files

    if args.data_dir and is_of_files(args.dataset) and not os.path.exists(args.data_dir):
        raise DataError(f"there is no data set {args.data_dir}{closest_path(args.data_dir)}")
    load_class_map(args.class_map, args.data_dir or "")


def expand_models(model: str, checkpoint: str | None = None, pretrained: bool = True) -> list[tuple[str, str | None]]:
    """(name, checkpoint) of all that a `--model` and a `--checkpoint` name.

    Args:
        model: A name, several with commas between them, a wildcard ("resnet*", of models with weights), or a text file
            of names, one a line.
        checkpoint: A file, or a folder of files, each measured.
        pretrained: Whether wildcards find only models with weights.

    Raises:
        ConfigError: A wildcard that nothing matches, or an empty file or folder.
    """
    if checkpoint is not None and Path(checkpoint).is_dir():
        if Path(checkpoint, "config.json").is_file():
            raise ConfigError(f"{checkpoint} is a repository, which says all of its model: --model local-dir:"
                              f"{checkpoint}")
        files = sorted(path for path in Path(checkpoint).iterdir()
                       if path.name.endswith((".pth", ".pth.tar", ".pt", ".safetensors")))
        if not files:
            raise ConfigError(f"no checkpoints in {checkpoint}")
        return [(model, str(path)) for path in files]
    if checkpoint is not None:
        return [(model, checkpoint)]
    if Path(model).is_file():
        names = [line.strip() for line in read_text(model).splitlines() if line.strip()]
        if not names:
            raise ConfigError(f"{model} names no models")
    elif any(character in model for character in "*?["):
        from ..registry import list_models

        names = list_models(model, pretrained=pretrained, task=CLASSIFICATION)
        if not names:
            raise ConfigError(f"no model {'with weights ' if pretrained else ''}matches '{model}'")
    else:
        names = [name.strip() for name in model.split(",") if name.strip()]
    return [(name, None) for name in names]
