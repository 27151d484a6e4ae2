"""Options that several commands have: one spelling, one text, wherever they stand. Imports no torch.

A command adds to the text what is its own, behind a semicolon or as the default:

    add_option(parser, "--batch-size", note="when timed", default=1)
"""

from __future__ import annotations

import argparse
from typing import Any

from ..precisions import canonical_precision
from .argument_types import natural, positive, positive_float, seed

__all__ = ["add_option", "add_precision_options", "group", "words"]

# Option and its other spelling: its text, and what argparse is told of it.
_SHARED: dict[str, tuple[str, dict[str, Any]]] = {
    "--all": ("show everything", dict(action="store_true")),
    "--backend": ("what runs the model", {}),
    "--batch-size -b": ("images at once", dict(type=positive, metavar="N")),
    "--calibrate": ("pictures like those that the model will see, for int8", dict(metavar="FOLDER")),
    "--channels-last": ("channels last in memory", {}),
    "--checkpoint": ("weights in place of the published ones", dict(metavar="FILE")),
    "--class-map": ("file of class names, one a line, in the order of the labels", dict(metavar="FILE")),
    "--compile": ("compile the model", {}),
    "--config -c": ("recipe (YAML); flags go before what it says", dict(metavar="FILE")),
    "--data-dir": ("folder of the data set", dict(metavar="FOLDER")),
    "--device": ("where the model runs", dict(metavar="DEVICE")),
    "--features": ("which features: pooled, one vector an image", {}),
    "--force": ("take a precision that is slower here, too", dict(action="store_true")),
    "--format": ("format of the results", {}),
    "--img-size": ("side of the images in pixels", dict(type=positive, metavar="N")),
    "--json": ("JSON in the place of text", dict(action="store_true")),
    "--level": ("features of a level of the model, by number or name", dict(metavar="LEVEL")),
    "--mode": ("as it is, by torch.compile, or by mvlib.optimize", dict(choices=("eager", "compiled", "optimized"))),
    "--model -m": ("name of the model", dict(metavar="MODEL")),
    "--no-use-ema": ("the weights themselves, not the average of them that a checkpoint holds",
                     dict(action="store_true")),
    "--output": ("where the results go", dict(metavar="PATH")),
    "--plot": ("draw a chart", dict(metavar="FILE")),
    "--precision": ("numbers that the model computes with", dict(type=canonical_precision)),
    "--pretrained": ("load the published weights", {}),
    "--results-file": ("file for the results", dict(metavar="FILE")),
    "--results-format": ("format of the results file", {}),
    "--seconds": ("time for a model's steps", dict(type=positive_float, metavar="S")),
    "--seed": ("of everything random", dict(type=seed, metavar="N")),
    "--sort": ("order of the rows", {}),
    "--split": ("split of the data set", dict(metavar="NAME")),
    "--task": ("only what is for this task", dict(metavar="TASK")),
    "--threads": ("threads on the CPU", dict(type=positive, metavar="N")),
    "--topk": ("classes an image", dict(type=positive, metavar="K")),
    "--valid-labels": ("the model's outputs that count, one number a line, in the order of the data set's labels",
                       dict(metavar="FILE")),
    "--workers -j": ("workers that read images", dict(type=natural, metavar="N")),
}
_FLAGS = {flags.split()[0]: flags for flags in _SHARED}


def words(option: str, note: str = "", default: str = "") -> str:
    """The text of a shared option: the same beginning in every command, then what is a command's own.

    Args:
        option: Its long spelling, such as "--model".
        note: The command's own words, behind a semicolon.
        default: What holds where the option is not given, in words.

    Raises:
        KeyError: It is no shared option.
    """
    text = _SHARED[_FLAGS[option]][0]
    return text + (f"; {note}" if note else "") + (f" (default: {default})" if default else "")


def add_option(
    parser: argparse._ActionsContainer, option: str, *, note: str = "", default_is: str = "", **options: Any
) -> argparse.Action:
    """Add a shared option to a parser, or a group of one.

    Args:
        parser: The parser or group.
        option: Its long spelling; `-b` and the like come with it.
        note: The command's own words, behind the shared ones.
        default_is: The default in words; unless given, `default` is shown, if it is a value.
        options: For argparse, over what is the option's own.

    Raises:
        KeyError: It is no shared option.
    """
    flags = _FLAGS[option]
    default = options.get("default")
    if not default_is and default not in (None, "") and not isinstance(default, bool):
        default_is = "%(default)s"
    return parser.add_argument(*flags.split(), help=words(option, note, default_is), **{**_SHARED[flags][1], **options})


def add_precision_options(
    parser: argparse._ActionsContainer, choices: tuple[str, ...], *, note: str = "", default_is: str = "float32",
    **options: Any
) -> None:
    """`--precision`, in any spelling, and `--force`."""
    add_option(parser, "--precision", choices=choices, note=note, default_is=default_is, **options)
    add_option(parser, "--force")


def group(parser: argparse.ArgumentParser, title: str) -> argparse._ArgumentGroup:
    """The parser's group of arguments of this title, which is made if it is not there."""
    return next((known for known in parser._action_groups if known.title == title), None) or \
        parser.add_argument_group(title)
