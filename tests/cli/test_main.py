"""What all commands share: help, typing errors, and errors that are one line and status 2."""

import argparse
import errno
import importlib
import os
import signal
import subprocess
import sys

import pytest
import torch

import mvlib
from mvlib.cli import _COMMANDS, guard
from mvlib.cli.argument_types import Number
from mvlib.cli.parser import Parser
from mvlib.precisions import canonical_precision

from .command import here


@pytest.mark.parametrize(("arguments", "line"), [
    (["predct"], "mvlib: argument COMMAND: 'predct' is unknown; did you mean 'predict'? (see mvlib --help)"),
    (["help", "trian"], "mvlib: argument COMMAND: 'trian' is unknown; did you mean 'train'? (see mvlib --help)"),
    (["--versoin"], "mvlib: there is no option --versoin; did you mean '--version'? (see mvlib --help)"),
    (["predict", "--topkk", "3"], "mvlib predict: there is no option --topkk; did you mean '--topk'? (see "),
    (["train", "--modl", "x"], "mvlib train: there is no option --modl; did you mean '--model', "),
    (["train", "--batch_size=4"], "mvlib train: there is no option --batch_size; did you mean '--batch-size'"),
    (["embed", "--outpt", "x.npy"], "mvlib embed: there is no option --outpt; did you mean '--output'?"),
    (["search", "--format", "jsn"], "mvlib search: argument --format: 'jsn' is unknown; did you mean 'json'?"),
    (["search", "--format", "x"], "mvlib search: argument --format: 'x' is unknown; known: table, json, csv (see "),
    (["cache", "lits"], "mvlib cache: argument ACTION: 'lits' is unknown; did you mean 'list'?"),
    (["info", "a", "b"], "mvlib info: not understood: b (see mvlib info --help)"),
    (["inference", "--output", "x"], "mvlib inference: ambiguous option: --output could match --output-col, --output-"),
])
def test_errors_of_a_command_line_are_one_line(arguments, line):
    done = here(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(line) and done.stderr.count("\n") == 1


@pytest.mark.parametrize(("words", "found"), [
    ("a b --number 1", "ab"), ("--number 1 a b", "ab"), ("a --number 1 b c --flag d", "abcd"),
    ("--flag a --number 1", "a"), ("--number 1", "")])
def test_options_may_stand_among_inputs(words, found):
    parser = Parser(prog="x")
    parser.add_argument("inputs", nargs="*")
    parser.add_argument("--number", type=int)
    parser.add_argument("--flag", action="store_true")
    parsed = parser.parse_args(words.split())
    assert (parsed.inputs, parsed.number, parsed.flag) == ([*found], 1, "--flag" in words)


def test_options_may_be_shortened():
    assert here("list", "resnet18", "--json", "resnet34").stdout == '["resnet18", "resnet34"]\n'
    assert here("list", "resnet18", "--js").stdout == '["resnet18"]\n'
    assert here("list", "--", "--nosuch").stderr.startswith("mvlib: no model matches --nosuch")


@pytest.mark.parametrize(("arguments", "same"), [
    (["help"], ["--help"]), (["help", "search"], ["search", "-h"]),
    (["help", "cache", "list"], ["cache", "list", "-h"]),
])
def test_help(arguments, same):
    asked = here(*arguments)
    assert (asked.returncode, asked.stderr) == (0, "") and asked.stdout.startswith("usage: mvlib")
    assert asked.stdout == here(*same).stdout


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_version(flag):
    assert here(flag).stdout == f"mvlib {mvlib.__version__}\n"


def options(parser):
    """All options and positionals of a parser and of those below it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from options(below)
        else:
            yield action


@pytest.fixture(scope="module")
def all_options():
    found = {}
    for command in _COMMANDS:
        parser = Parser(prog=command)
        importlib.import_module(f"mvlib.cli.{command}_command").add_arguments(parser)
        found.update({(command, *action.option_strings): action for action in options(parser)})
    assert len(found) > 300
    return found


def test_numbers_have_ranges(all_options):
    """NaN and the like never get by, nor what is negative where the type does not say that it may be."""
    numbers = {where: action for where, action in all_options.items() if action.type is not None}
    assert not [where for where, action in numbers.items() if action.type not in (str, canonical_precision) and
                not isinstance(action.type, Number)]
    for where, action in numbers.items():
        if not isinstance(action.type, Number):
            continue
        wrong = ["nan", "inf", "-inf", "1e999", "x", "", *(["1.5"] if action.type.kind is int else [])]
        wrong += {"any": [], "nonnegative": ["-1"], "positive": ["-1", "0"]}[action.type.sign]
        for text in [*wrong, *(["2"] if action.type.most == 1 else ["9" * 400])]:
            with pytest.raises(argparse.ArgumentTypeError):
                pytest.fail(f"{where} takes {text!r} for {action.type(text)}")
        if isinstance(action.default, (int, float)):
            assert action.type(action.default) == action.default, where
    assert {where[1] for where, action in numbers.items() if getattr(action.type, "sign", "") == "any"} == \
        {"--mean", "--head-init-scale", "--head-init-bias", "--opt-betas", "--bce-target-thresh",
         "--out-indices"}


@pytest.mark.parametrize(("arguments", "message"), [
    (["train", "data", "--lr", "-1"], "mvlib train: argument --lr: -1 is negative (see mvlib train --help)"),
    (["train", "data", "--epochs", "0"], "argument --epochs: 0 is not a positive number"),
    (["train", "data", "--scale", "0.5"], "argument --scale: expected 2 arguments"),
    (["train", "data", "--reprob", "1.5"], "argument --reprob: 1.5 is more than 1"),
    (["schedule", "--updates-per-epoch", "-3"], "argument --updates-per-epoch: -3 is negative"),
    (["search", "--limit", "0"], "argument --limit: 0 is not a positive number"),
    (["validate", "data", "-b", "many"], "argument --batch-size/-b: 'many' is not a whole number"),
    (["benchmark", "resnet18", "--seconds", "nan"], "argument --seconds: 'nan' is not a number"),
])
def test_numbers_out_of_range(arguments, message):
    done = here(*arguments)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(("error", "line"), [
    (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
    (PermissionError(errno.EACCES, "Permission denied", "x.csv"), "x.csv: Permission denied"),
    (FileNotFoundError(errno.ENOENT, "No such file", "a", None, "b"), "a -> b: No such file"),
    (FileNotFoundError("there is no recipe x"), "there is no recipe x"),
    (BrokenPipeError(errno.EPIPE, "Broken pipe"), "Broken pipe"),  # of a worker: standard output has its reader
    (MemoryError(), "not enough memory: for this input"),
    (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to\nmore"),
     "not enough memory: [enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to"),
    (torch.OutOfMemoryError("CUDA out of memory. Tried"), "not enough memory: CUDA out of memory. Tried"),
    (mvlib.ConfigError("a field"), "a field"),
])
def test_what_a_user_can_mend_is_one_line(error, line, capfd):
    def fail():
        raise error

    assert guard("mvlib", fail) == 2
    assert capfd.readouterr().err == f"mvlib: {line}\n"


@pytest.mark.parametrize("error", [ValueError("x"), RuntimeError("x"), KeyError("x")])
def test_faults_of_ours_are_not_hidden(error):
    def fail():
        raise error

    with pytest.raises(type(error)):
        guard("mvlib", fail)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
@pytest.mark.parametrize(("arguments", "unbuffered"), [("list", ""), ("--help", ""), ("-V", "1")])
def test_full_standard_output(arguments, unbuffered):
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "mvlib", arguments], stdout=full, stderr=subprocess.PIPE,
                              text=True, env={**os.environ, "PYTHONUNBUFFERED": unbuffered})
    assert (done.returncode, done.stderr) == (2, "mvlib: No space left on device\n")


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of Unix")
def test_closed_streams():
    command = f"{sys.executable} -m mvlib list nosuch >&- 2>&-; echo $?; {sys.executable} -m mvlib list >&-; echo $?"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("1\n0\n", "")


@pytest.mark.parametrize(("number", "status", "word"), [
    (signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")])
def test_a_signal_ends_a_command_in_order(capsys, number, status, word):
    tidied = []

    def work():
        try:
            os.kill(os.getpid(), number)
            raise AssertionError("went on")
        finally:
            if number == signal.SIGTERM:
                os.kill(os.getpid(), number)  # timeout sends two
            tidied.append(True)

    usual = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}[number]
    inherited = signal.signal(number, usual)  # what runs in a shell's background ignores SIGINT
    try:
        assert guard("mvlib", work) == status
        assert (tidied, capsys.readouterr().err) == ([True], f"mvlib: {word}\n")
        assert signal.getsignal(number) is usual
    finally:
        signal.signal(number, inherited)


