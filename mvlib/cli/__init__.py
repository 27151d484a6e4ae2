"""The command line, one thin module a command. Parsing, `list`, `info`, `search` and `cache` import no torch."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

__all__ = ["main"]

_COMMANDS = {
    "list": "names of models",
    "info": "what is known of a model and its weights",
    "search": "weights that meet conditions: accuracy, size, cost, licence, ...",
    "predict": "classify photographs",
    "embed": "photographs to features",
    "merge": "one file of the parts that predict or embed wrote",
    "train": "train a model",
    "validate": "accuracy and speed of models on a data set",
    "inference": "the likeliest classes of a data set's images, as a file",
    "schedule": "learning rates of a recipe, as a table or a picture",
    "benchmark": "time and memory of models, in inference and training",
    "compare": "which model: error, time and size side by side, as a table, a chart, a page",
    "cache": "downloaded weights: list, remove, path",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status.

    0: done; 1: done in part, or nothing found; 2: wrong usage or an error, said on standard error; 130: interrupted;
    75 (`train` alone): stopped by a signal and saved, to be gone on with.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = argparse.ArgumentParser(prog="mvlib", description="Image models by name.")
    parser.add_argument("--version", action="version", version=f"mvlib {_version()}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = next((word for word in argv if not word.startswith("-")), None)
    for name, summary in _COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name == chosen:  # only the command that runs pays for its arguments
            module = importlib.import_module(f"{__name__}.{name}_command")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    arguments = parser.parse_args(argv)
    return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    from ..errors import MvlibError

    try:
        status = arguments.run(arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader (head, less) has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (MvlibError, FileNotFoundError, PermissionError) as error:
        print(f"mvlib: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("mvlib: interrupted", file=sys.stderr)
        return 130


def _version() -> str:
    from .. import __version__

    return __version__
