"""`mvlib completion`: real shells complete commands, options, values, models and files."""

import argparse
import os
import re
import select
import shlex
import shutil
import subprocess
import sys
import time

import pytest

import mvlib
from mvlib.cli import _COMMANDS, make_parser
from mvlib.cli.completion_command import script
from mvlib.registry import list_builders

from .command import here

SHELLS = ("bash", "zsh", "fish")
needs = {shell: pytest.mark.skipif(shutil.which(shell) is None, reason=f"no {shell} here") for shell in SHELLS}


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scripts")
    for shell in SHELLS:
        (folder / shell).write_text(script(shell))
    (folder / "docs").mkdir()
    (folder / "photo.jpg").touch()
    return folder


@pytest.mark.parametrize("shell", SHELLS)
def test_the_command_prints_the_script(shell, scripts):
    done = here("completion", shell)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout == (scripts / shell).read_text()
    head = done.stdout[:900]
    assert f"completion of mvlib {mvlib.__version__}. To install it" in head and f"mvlib completion {shell}" in head


def test_the_help_says_how_to_install_it():
    shown = here("completion", "--help").stdout
    for shell in SHELLS:
        assert f"\n    mvlib completion {shell} > " in shown
    wrong = here("completion", "tcsh")
    assert wrong.returncode == 2 and "'tcsh' is unknown; known: bash, zsh, fish" in wrong.stderr


def test_it_imports_no_torch():
    code = "import sys; from mvlib.cli import main; main(['completion', 'bash']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


def options(command):
    """Visible flags of a command, by its parser."""
    words = command.split()
    parser = make_parser(words[0])
    for word in words:
        parser = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction)).choices[word]
    return {flag for action in parser._actions if action.help != argparse.SUPPRESS for flag in action.option_strings}


ADAM = set(mvlib.list_optimizers("adamw*"))
# The words of a line, the last to be completed; and what it may become. None: files.
CASES = [
    (["tra"], {"train"}),
    (["help", "tra"], {"train"}),
    (["--vers"], {"--version"}),
    (["cache", ""], {"list", "remove", "path"}),
    (["cache", "list", "--hel"], {"--help", "--help-all"}),
    (["completion", ""], set(SHELLS)),
    (["train", "--lr-sch"], {"--lr-scheduler"}),  # torchvision's
    (["train", "--synchronize"], set()),  # accepted, and said nowhere
    (["validate", "--no-fold"], {"--no-fold-bn"}),
    (["predict", "--format", ""], {"table", "json", "jsonl", "csv"}),
    (["train", "--opt", "adamw"], ADAM),
    (["train", "--lr-scheduler", "cos"], {"cosine", "cosineannealinglr"}),
    (["list", "--module", "mobilenet"], {name for name in mvlib.list_modules() if name.startswith("mobilenet")}),
    (["list", "--task", "det"], {"detection"}),
    (["info", ""], {*mvlib.list_models(), *filter(mvlib.is_model, list_builders())}),
    (["info", "x_nothing"], set()),
    (["info", "resnet50_cl"], {"resnet50_clip", "resnet50_clip_gap"}),
    (["info", "resnet50.a1_"], {"resnet50.a1_in1k"}),
    (["info", "vit_b_1"], {"vit_b_16"}),  # torchvision's builder
    (["train", "--amp", "--model", "resnet50_cl"], {"resnet50_clip", "resnet50_clip_gap"}),
    (["train", "--teacher", "resnet50_cl"], {"resnet50_clip", "resnet50_clip_gap"}),
    (["validate", "DATA", "-m", "resnet18.tv_"], {"resnet18.tv_in1k"}),
    (["compare", "resnet18", "resnet50_cl"], {"resnet50_clip", "resnet50_clip_gap"}),
    (["benchmark", "--seconds", "3", "resnet50_cl"], {"resnet50_clip", "resnet50_clip_gap"}),
    (["export", "resnet18.tv_"], {"resnet18.tv_in1k"}),
    (["predict", "--sheet", "pho"], None),
    (["predict", "--topk", "3", "pho"], None),
]


@pytest.fixture(scope="module")
def in_bash(scripts):
    """COMPREPLY after each line of CASES, and of each command's options, of one bash."""
    lines = [words for words, _ in CASES] + [[*command.split(), "-"] for command in [*_COMMANDS, "cache list"]]
    calls = "".join(f"COMP_WORDS=(mvlib {shlex.join(words)}) COMP_CWORD={len(words)}; _mvlib; "
                    f"printf '%s\\n' \"${{COMPREPLY[@]}}\"; echo @\n" for words in lines)
    done = subprocess.run(["bash", "--norc", "--noprofile", "-c", f"source ./bash\n{calls}"], cwd=scripts, text=True,
                          capture_output=True)
    assert done.stderr == ""
    answers = done.stdout.split("@\n")[:-1]
    return {" ".join(words): set(answer.split()) for words, answer in zip(lines, answers, strict=True)}


@needs["bash"]
@pytest.mark.parametrize(("words", "expected"), CASES, ids=[" ".join(words) for words, _ in CASES])
def test_bash(words, expected, in_bash):
    assert in_bash[" ".join(words)] == (expected or set())  # files are readline's, where there is nothing else


@needs["bash"]
@pytest.mark.parametrize("command", [*_COMMANDS, "cache list"])
def test_bash_knows_all_options(command, in_bash):
    assert in_bash[f"{command} -"] == options(command)


@pytest.fixture(scope="module")
def in_fish(scripts):
    lines = [words for words, _ in CASES] + [[*command.split(), "-"] for command in [*_COMMANDS, "cache list"]]
    calls = "".join(f"complete -C {shlex.quote('mvlib ' + ' '.join(words))}; echo @\n" for words in lines)
    done = subprocess.run(["fish", "--no-config", "-c", f"source ./fish\n{calls}"], cwd=scripts, text=True,
                          capture_output=True)
    assert done.stderr == ""
    answers = done.stdout.split("@\n")[:-1]
    return {" ".join(words): {line.partition("\t")[0] for line in answer.splitlines()}
            for words, answer in zip(lines, answers, strict=True)}


@needs["fish"]
@pytest.mark.parametrize(("words", "expected"), CASES, ids=[" ".join(words) for words, _ in CASES])
def test_fish(words, expected, in_fish):
    assert in_fish[" ".join(words)] == ({"photo.jpg"} if expected is None else expected)


@needs["fish"]
@pytest.mark.parametrize("command", [*_COMMANDS, "cache list"])
def test_fish_knows_all_options(command, in_fish):
    short = {flag for flag in options(command) if len(flag) == 2 or not flag.startswith("--")}
    assert in_fish[f"{command} -"] >= options(command) - short
    assert {flag for flag in in_fish[f"{command} -"] if flag.startswith("--")} <= options(command)


def type_into(shell, scripts, start, typed):
    """What an interactive shell makes of what is typed, key by key: [(typed, screen)]."""
    import pty

    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("BASH", "ZDOT"))}
    process = subprocess.Popen(shell, stdin=theirs, stdout=theirs, stderr=theirs, cwd=scripts, start_new_session=True,
                               env={**environment, "TERM": "dumb", "PS1": "> ", "HOME": str(scripts)})
    os.close(theirs)

    def send(text, until):
        os.write(ours, text.encode())
        seen, end = b"", time.monotonic() + 60
        while not re.search(until.encode(), seen) and time.monotonic() < end:
            if select.select([ours], [], [], 0.5)[0]:
                seen += os.read(ours, 65536)
        return seen.decode()

    try:
        assert "ready" in send(f"{start}; echo re''ady\n", "ready\r\n")
        for text, until in typed:
            assert re.search(until, send(text, until)), text
            send("\x15echo e''nd\n", "end\r\n")
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@needs["bash"]
def test_bash_at_the_keyboard(scripts):
    type_into(["bash", "--norc", "--noprofile", "-i"], scripts, "bind 'set bell-style none'; source ./bash", [
        ("mvlib exp\t", "mvlib export "),
        ("mvlib train --model=resnet50_clip_\t", "=resnet50_clip_gap "),
        ("mvlib predict --model local-dir:do\t", "local-dir:docs/"),
        ("mvlib predict pho\t", "photo.jpg "),
        ("mvlib export --output do\t", "docs/"),
    ])


@needs["zsh"]
@pytest.mark.parametrize("installed", ["eval", "fpath"])
def test_zsh_at_the_keyboard(scripts, installed):
    (scripts / "functions").mkdir(exist_ok=True)
    shutil.copy(scripts / "zsh", scripts / "functions" / "_mvlib")
    load = "autoload -U compinit; compinit -u -d dump"
    load = f"{load}; eval \"$(cat zsh)\"" if installed == "eval" else f"fpath=($PWD/functions $fpath); {load}"
    type_into(["zsh", "-f", "-i"], scripts, f"PROMPT_EOL_MARK=; unsetopt beep; {load}", [
        ("mvlib exp\t", "mvlib export "),
        ("mvlib help tra\t", "help train"),
        ("mvlib cache rem\t", "cache remove "),
        ("mvlib train --lr-sch\t", "--lr-scheduler"),
        ("mvlib train -b 3 --model resnet50_clip_\t", "--model resnet50_clip_gap "),
        ("mvlib train --model=resnet50_clip_\t", "--model=resnet50_clip_gap "),
        ("mvlib compare resnet18 resnet50.a1_\t", "resnet50.a1_in1k "),
        ("mvlib predict --model local-dir:do\t", "local-dir:docs/"),
        ("mvlib predict --format jsonl pho\t", "photo.jpg "),
        ("mvlib predict --format t\t", "table "),
        ("mvlib info resnet50_cl\t\t", r"(?s)resnet50_clip .*resnet50_clip_gap"),
        ("mvlib validate --results\t\t", "(?s)--results-file .*-- file for the results.*--results-format"),
    ])


@needs["zsh"]
def test_zsh_reads_it_without_complaint(scripts):
    done = subprocess.run(["zsh", "-n", "zsh"], cwd=scripts, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
