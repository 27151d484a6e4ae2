"""What all commands share: help, typing errors, and errors that are one line and status 2."""

import errno
import os
import subprocess
import sys

import pytest
import torch

import mvlib
from mvlib.cli import guard

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
    ([], "mvlib: the following arguments are required: COMMAND (see mvlib --help)"),
])
def test_errors_of_a_command_line_are_one_line(arguments, line):
    done = here(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(line) and done.stderr.count("\n") == 1


def test_options_may_be_shortened():
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
