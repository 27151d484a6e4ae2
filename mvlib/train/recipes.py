"""Recipes: training arguments in YAML, with their source and what they are published to give. Imports no torch."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..cli.options import add_option, group
from ..errors import ConfigError
from ..names import closest_path
from .arguments import DIALECTS, Option, add_options, find_option, finish_arguments, is_ignored

__all__ = ["Recipe", "add_recipe_arguments", "add_train_arguments", "parse_train_arguments", "read_recipe"]

ARGUMENTS_FILE = "args.yaml"  # of a run, in its folder; timm's name
_ABOUT = ("title", "description", "source", "published", "command", "extends", "dialect", "config")


@dataclass
class Recipe:
    """A recipe file, with those that it extends.

    Attributes:
        arguments: {option: value}, an extended recipe's first and this one's over them.
        dialect: Whose defaults hold for the rest: "timm" or "torchvision".
        about: `title`, `source`, `published` figures and so on, of this file alone.
    """

    arguments: dict[str, Any] = field(default_factory=dict)
    dialect: str | None = None
    about: dict[str, Any] = field(default_factory=dict)


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read a recipe: a YAML mapping of training arguments, by timm's names or torchvision's.

    Keys besides arguments: `extends` (another recipe, relative to this file, whose arguments hold where this one says
    nothing), `dialect`, and `title`, `description`, `source`, `command`, `published`, which are for readers.

    Raises:
        ConfigError: Not YAML, not a mapping, an unknown key, a value of the wrong kind, or a circle of extensions.
        FileNotFoundError: There is no such file.
    """
    return _read(Path(path), ())


def _read(path: Path, above: tuple[Path, ...]) -> Recipe:
    path = path.resolve()
    if path in above:
        raise ConfigError(f"{path} extends itself, by way of {', '.join(p.name for p in above)}")
    if not path.is_file():
        by = f" (extended by {above[-1]})" if above else ""
        raise FileNotFoundError(f"there is no recipe {path}{by}{closest_path(path)}")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} is not a mapping of arguments")
    recipe = _read(path.parent / data["extends"], (*above, path)) if data.get("extends") else Recipe()
    recipe.about = {key: data[key] for key in _ABOUT if key in data}
    dialect = data.get("dialect", recipe.dialect)
    if dialect is not None and dialect not in DIALECTS:
        raise ConfigError(f"{path}: dialect '{dialect}' is not one of {', '.join(DIALECTS)}")
    own, foreign = _own_arguments(path, data)
    recipe.arguments.update(own)
    recipe.dialect = dialect or ("torchvision" if foreign else None)
    return recipe


def _own_arguments(path: Path, data: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    own, foreign = {}, False
    for key, value in data.items():
        if key in _ABOUT or is_ignored(str(key)):
            continue
        try:
            option, is_foreign = find_option(str(key))
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
        own[option.dest] = checked_value(path, option, value)
        foreign |= is_foreign
    return own, foreign


def checked_value(where: object, option: Option, value: Any) -> Any:
    """The value of an argument that comes as data, not as text, of the type that a command line gives it.

    Args:
        where: What the error begins with.
        option: The argument.
        value: Plain data.

    Raises:
        ConfigError: It is of another kind, or out of range.
    """
    kind: Any = option.kwargs.get("type")
    many = option.kwargs.get("nargs")
    choices = option.kwargs.get("choices")
    if value is None or isinstance(option.default, dict):
        return value
    try:
        if many == "+" or isinstance(many, int):
            values = list(value) if isinstance(value, (list, tuple)) else [value]
            if many not in ("+", len(values)):
                raise argparse.ArgumentTypeError(f"{many} values, not {value!r}")
            return [kind(item) for item in values]
        if kind is not None:
            if isinstance(value, (list, dict)):
                raise ValueError
            value = kind(value)
        elif not isinstance(value, bool):
            raise ValueError
    except argparse.ArgumentTypeError as error:
        raise ConfigError(f"{where}: {option.dest}: {error}") from None
    except ValueError:
        raise ConfigError(f"{where}: {option.dest}: {value!r} is not {'a text' if kind else 'true or false'}") from None
    if choices and value not in choices:
        raise ConfigError(f"{where}: {option.dest}: {value!r} is none of {', '.join(map(repr, choices))}")
    return value


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mvlib train` and scripts/train.py."""
    group(parser, "data").add_argument("data", nargs="?", metavar="DATA", default=None, help="folder of the data set")
    add_recipe_arguments(parser)
    add_options(parser)


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """`--config` and `--dialect`."""
    recipe = group(parser, "recipe")
    add_option(recipe, "--config")
    recipe.add_argument("--dialect", choices=tuple(DIALECTS), default=None,
                        help="whose defaults hold (default: seen from the flags)")


def parse_train_arguments(
    argv: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
) -> argparse.Namespace:
    """Arguments of training from a command line (or one that is parsed already): flags, then the recipe, then those of
    the run that `--resume` goes on with, then defaults.

    Raises:
        ConfigError: The recipe or the arguments cannot be used, or contradict each other.
        FileNotFoundError: There is no such recipe, or nothing to resume.
    """
    if namespace is None:
        parser = argparse.ArgumentParser(prog="train.py", description="Train an image model.")
        add_train_arguments(parser)
        namespace = parser.parse_args(argv)
    recipe = read_recipe(namespace.config) if namespace.config else Recipe()
    given = {option: value for option, value in vars(namespace).items() if option in DIALECTS["timm"]}
    if namespace.data is not None:
        if given.get("data_dir", namespace.data) != namespace.data:
            raise ConfigError(f"the data set is {namespace.data}, and by --data-dir {given['data_dir']}: give one of "
                              f"them")
        given["data_dir"] = namespace.data
    given = {**recipe.arguments, **given}
    run = _resumed_run(given)
    spoken = namespace.dialect or recipe.dialect or run.dialect or \
        ("torchvision" if namespace.foreign_flags else "timm")
    args = finish_arguments({**run.arguments, **given}, spoken)
    args.config = namespace.config
    return args


# Of a run's arguments, those that say where it was and how it began, not what it is.
_OF_ONE_START = ("resume", "output", "experiment", "start_epoch", "no_resume_opt", "test_only")


def _resumed_run(given: Mapping[str, Any]) -> Recipe:
    """The arguments of the run that is to go on, as far as its folder has them."""
    where = given.get("resume")
    if not where:
        return Recipe()
    if where == "auto":
        folder = Path(given.get("output") or "output/train", given.get("experiment") or "")
    elif Path(where).exists():
        folder = Path(where) if Path(where).is_dir() else Path(where).parent
    else:
        raise FileNotFoundError(f"there is no checkpoint {where}{closest_path(where)}")
    if not (folder / ARGUMENTS_FILE).is_file():
        return Recipe()
    recipe = read_recipe(folder / ARGUMENTS_FILE)
    recipe.arguments = {key: value for key, value in recipe.arguments.items() if key not in _OF_ONE_START}
    return recipe
