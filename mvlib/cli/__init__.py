"""The command line, one thin module a command. Parsing, `list`, `info`, `search` and `cache` import no torch."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TextIO

from ..threads import let_waiting_threads_sleep
from .colours import BOLD_RED, paint, wants_colours
from .parser import Parser

__all__ = ["guard", "main", "make_parser"]

_COMMANDS = {
    "list": "names of models",
    "info": "what is known of a model and its weights",
    "search": "weights that meet conditions: accuracy, size, cost, licence",
    "predict": "classify photographs",
    "embed": "photographs to features",
    "merge": "one file of the parts that predict or embed wrote",
    "finetune": "published weights on your own pictures, in a folder a class",
    "train": "train a model",
    "validate": "accuracy and speed of models on a data set",
    "inference": "the likeliest classes of a data set's images, as a file",
    "average": "the mean of a run's best checkpoints",
    "clean": "the weights of a training checkpoint alone",
    "schedule": "learning rates of a recipe, as a table or a picture",
    "benchmark": "time and memory of models, in inference and training",
    "compare": "error, time and size of models: a table, a chart, a page",
    "export": "a model as a folder that OpenVINO, ONNX Runtime, ... run",
    "cache": "downloaded weights and engines: list, remove, path",
    "completion": "what bash, zsh or fish need to complete commands and models",
}

# The first command of each group, in the list of commands, and the group's title.
_TITLES = {"list": "find a model", "predict": "classify, or take features", "finetune": "train and measure",
           "benchmark": "choose and deploy", "cache": "this machine"}
_EXAMPLES = ("mvlib predict photo.jpg                # what is on a photograph",
             "mvlib search 'top1>80 params<10M'      # which model",
             "mvlib help predict                     # what a command takes")

# Of mvlib itself. What runs exports and answers from the catalogs does without, after pip install --no-deps.
_DEPENDENCIES = ("PIL", "huggingface_hub", "numpy", "safetensors", "torch", "torchvision", "yaml")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status.

    0: done; 1: done in part, or nothing found; 2: wrong usage or an error, said on standard error; 130: interrupted;
    141: whoever reads the output has closed it; 143: ended by SIGTERM; 75 (`train`, `finetune`): stopped by a signal
    and saved, to be gone on with.
    """
    let_waiting_threads_sleep()
    is_program = argv is None  # or it is called within one, whose streams are its own
    argv = sys.argv[1:] if argv is None else list(argv)
    return guard("mvlib", lambda: _run(argv, is_program))


def _run(argv: list[str], is_program: bool) -> int:
    if argv[:1] == ["help"]:
        argv = [*argv[1:], "--help"]
    parser = make_parser(next((word for word in argv if not word.startswith("-")), None))
    if not argv:
        parser.print_help()
        return 0
    arguments = parser.parse_args(argv, argparse.Namespace(is_program=is_program))
    return arguments.run(arguments)


def make_parser(chosen: str | None) -> Parser:
    """The parser of command lines, with the arguments of one command: only what runs pays for its own."""
    parser = Parser(prog="mvlib", description="Image models by name.")
    parser.titles, parser.examples = _TITLES, _EXAMPLES
    parser.add_argument("--version", "-V", action="version", version=f"mvlib {_version()}", help="the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in _COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name == chosen:
            module = importlib.import_module(f"{__name__}.{name}_command")
            module.add_arguments(command)
            command.common, command.examples = getattr(module, "COMMON", {}), getattr(module, "EXAMPLES", ())
            command.signed = getattr(module, "SIGNED", ())
            command.set_defaults(run=module.run)
    commands.add_parser("help", help="what a command does and takes")
    return parser


def guard(program: str, run: Callable[[], int]) -> int:
    """The exit status of `run`; what a user can mend, and what the machine lacks, is one line on standard error and 2.

    Args:
        program: What the line begins with.
        run: The command. Its own errors, the system's (OSError) and memory's are caught; others are faults of ours.
    """
    sys.stdout, sys.stderr = (stream or open(os.devnull, "w") for stream in (sys.stdout, sys.stderr))  # 2>&-
    from ..errors import MvlibError
    from ..memory import is_out_of_memory

    try:
        try:
            with _sigterm_as_interrupt():
                return run()
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt as stop:
        status, message = (143, "terminated") if isinstance(stop, _Terminated) else (130, "interrupted")
        message += f": {stop}" if stop.args else ""  # what has become of the work
    except MvlibError as error:
        status, message = 2, str(error)
    except ModuleNotFoundError as error:
        if error.name is None or (package := error.name.partition(".")[0]) not in _DEPENDENCIES:
            raise
        status, message = 2, (f"this needs the package '{package}', without which mvlib was installed: pip install "
                              f"mvlib (an export, of 'mvlib export', is run with numpy, Pillow and its own library)")
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _is_closed(sys.stdout):  # the reader (head, less) has what it wanted
            status, message = 141, ""
        else:
            status, message = 2, _one_line(error)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        status, message = 2, f"not enough memory: {str(error).strip().partition(chr(10))[0] or 'for this input'}"
    finally:
        _let_go(sys.stdout)
    if message:
        with contextlib.suppress(OSError):
            prefix = f"{program}:"
            print(paint(prefix, BOLD_RED) if wants_colours(sys.stderr) else prefix, message, file=sys.stderr)
    _let_go(sys.stderr)
    return status


class _Terminated(KeyboardInterrupt):
    """SIGTERM came: what is under way is put in order, as after Ctrl-C."""


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    def end(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # timeout sends two
        raise _Terminated

    try:
        before = signal.signal(signal.SIGTERM, end)
    except ValueError:  # not the main thread: signals are the caller's business
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _one_line(error: OSError) -> str:
    if error.filename is None or error.strerror is None:
        return " ".join((error.strerror or str(error) or type(error).__name__).split())
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if name is not None
             and not isinstance(name, int)]
    return f"{' -> '.join(names)}: {error.strerror}"


def _is_closed(stream: TextIO) -> bool:
    """Whether a pipe has lost its reader; of another pipe than standard output somebody has to hear."""
    try:
        poll = select.poll()
        poll.register(stream, 0)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    except (AttributeError, OSError, ValueError):  # Windows; a stream that is no file
        return True


def _let_go(stream: TextIO) -> None:
    """Give up what cannot be written, which Python would try again, and complain of, at its end."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _version() -> str:
    from .. import __version__

    return __version__
