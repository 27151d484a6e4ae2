"""Help that fits a screen, its examples, its colours; the same words for the same option in every command."""

import argparse
import importlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections import defaultdict

import pytest

from mvlib.cli import _COMMANDS, _TITLES
from mvlib.cli.colours import wants_colours
from mvlib.cli.options import _SHARED
from mvlib.cli.parser import Parser, _metavar

from .command import here

ESCAPES = re.compile(r"\033\[[\d;]*m")
MODULES = {command: importlib.import_module(f"mvlib.cli.{command}_command") for command in _COMMANDS}


def parser_of(command):
    parser = Parser(prog=f"mvlib {command}")
    MODULES[command].add_arguments(parser)
    parser.common = getattr(MODULES[command], "COMMON", {})
    return parser


def visible(parser):
    """All arguments that help may show, of a parser and of those below it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from visible(below)
        elif action.help != argparse.SUPPRESS:
            yield action


@pytest.mark.parametrize("command", ["", *_COMMANDS])
def test_help_fits_a_screen(command):
    shown = here(*command.split(), "--help", COLUMNS="80").stdout
    assert 10 <= shown.count("\n") <= 44 - 4 * bool(command)
    assert [line for line in shown.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("command", _COMMANDS)
def test_common_arguments_are_shown_and_all_in_the_long_help(command):
    parser = parser_of(command)
    short, long = (here(command, flag).stdout for flag in ("--help", "--help-all"))
    listed = " ".join(parser.common.values()).split()
    assert len(listed) == len(set(listed))
    for name in listed:
        assert re.search(rf"^  .*(?<![\w-]){re.escape(name)}\b", short, re.MULTILINE), name
    own = [action for action in parser._actions if action.option_strings and action.help != argparse.SUPPRESS]
    for action in own if parser.common else [a for a in own if a.dest != argparse.SUPPRESS]:
        # "--[no-]name" is both
        pattern = "|".join(re.escape(flag) for flag in (action.option_strings[0],
                                                        action.option_strings[0].replace("--", "--[no-]", 1)))
        assert re.search(rf"^  ({pattern})\b", long, re.MULTILINE), action.option_strings
    hidden = re.search(r"^(\d+) more options: (mvlib \w+ --help-all)$", short, re.MULTILINE)
    count = sum(action.help != argparse.SUPPRESS for action in parser._actions)
    assert (int(hidden[1]) if hidden else 0) == (count - len(listed) if parser.common else 0)


@pytest.mark.parametrize("command", [command for command in _COMMANDS if hasattr(MODULES[command], "COMMON")])
def test_every_option_has_a_group(command):
    loose = next(group for group in parser_of(command)._action_groups if group.title == "options")
    assert {flag for action in loose._group_actions if action.help != argparse.SUPPRESS
            for flag in action.option_strings} == {"--help", "-h", "--help-all"}


def test_mvlib_alone_lists_the_commands_by_job():
    alone = here()
    assert (alone.returncode, alone.stderr) == (0, "") and alone.stdout == here("--help").stdout
    assert re.findall(r"^  ([a-z]+) ", alone.stdout, re.MULTILINE)[:len(_COMMANDS)] == list(_COMMANDS)
    for command, title in _TITLES.items():
        assert f"\n{title}:\n  {command} " in alone.stdout


def test_unknown_names_are_faults():
    parser = Parser(prog="x")
    parser.common = {"some": "--nosuch"}
    with pytest.raises(KeyError):
        parser.format_help()


EXAMPLES = [line for command in _COMMANDS for line in MODULES[command].EXAMPLES]


def split(line):
    """The words of an example, without what it redirects."""
    return shlex.split(line.partition(" > ")[0], comments=True)


@pytest.mark.parametrize("command", _COMMANDS)
def test_there_are_two_examples(command):
    examples = MODULES[command].EXAMPLES
    assert len(examples) >= 2 and all(line.startswith(f"mvlib {command} ") for line in examples[:2])
    assert here(command, "--help").stdout.count("\n  mvlib ") == len(examples)


@pytest.mark.sample(2)
@pytest.mark.parametrize("line", EXAMPLES)
def test_examples_are_command_lines(line):
    mvlib, command, *words = split(line)
    assert mvlib == "mvlib"
    parser_of(command).parse_args(words)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with what the examples name: photographs, a data set, the parts of a run."""
    from PIL import Image
    from skimage import data

    folder = tmp_path_factory.mktemp("examples")
    (folder / "photos").mkdir()
    for name in ("chelsea", "coffee"):
        Image.fromarray(getattr(data, name)()).save(folder / "photos" / f"{name}.jpg")
    Image.fromarray(data.chelsea()).save(folder / "photo.jpg")
    for split in ("train", "validation"):
        for name, number in (("chelsea", 0), ("coffee", 1)):
            (folder / "DATA" / split / f"{number}").mkdir(parents=True)
            Image.fromarray(getattr(data, name)()).resize((96, 96)).save(folder / f"DATA/{split}/{number}/{name}.jpg")
    (folder / "labels.txt").write_text("285\n967\n")  # Egyptian cat, espresso
    (folder / "recipe.yaml").write_text("sched: step\nepochs: 6\nlr: 0.1\n")
    return folder


# What trains, or needs a checkpoint or what another command made; each is parsed above.
NOT_RUN = ("mvlib train ", "mvlib finetune ", "--model output/", "mvlib merge ", "--checkpoint ", "mvlib cache remove ",
           "mvlib average ", "mvlib clean ")


QUICK = {"compare": "--seconds 0.1 --img-size 64", "benchmark": "--seconds 0.1 --img-size 64 --batch-size 2",
         "inference": "--workers 0", "validate": "--workers 0 --batch-size 2 --valid-labels labels.txt"}
SLOW = {"onnx": pytest.mark.slow}  # tests/engines exports to it, a smaller model


@pytest.mark.sample(4)
@pytest.mark.parametrize("line", [
    pytest.param(line, marks=[mark for word, mark in SLOW.items() if word in line])
    for line in EXAMPLES if not any(part in line for part in NOT_RUN)])
def test_examples_run(line, place, monkeypatch):
    monkeypatch.chdir(place)
    words = split(line)[1:]
    more = "--valid-labels labels.txt" if "--data" in words else ""
    done = here(*words, *QUICK.get(words[0], "").split(), *more.split(), MVLIB_ENGINES="off")
    assert done.returncode == 0, done.stderr
    assert done.stdout or done.stderr or os.path.exists(words[words.index("--output") + 1])


def test_merge_takes_what_predict_wrote(place, monkeypatch):
    monkeypatch.chdir(place)
    assert here("predict", "photos", "--output", "parts/", MVLIB_ENGINES="off").returncode == 0
    line = next(line for line in MODULES["merge"].EXAMPLES if "classes.csv" in line)
    assert here(*shlex.split(line, comments=True)[1:]).returncode == 0
    assert (place / "classes.csv").read_text().startswith("file,rank,")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("stream", "environment", "wanted"), [
    (Terminal(), {}, True), (io.StringIO(), {}, False), (object(), {}, False),
    (Terminal(), {"NO_COLOR": "1"}, False), (Terminal(), {"NO_COLOR": ""}, True), (Terminal(), {"TERM": "dumb"}, False),
    (io.StringIO(), {"FORCE_COLOR": "1"}, True), (io.StringIO(), {"FORCE_COLOR": "1", "TERM": "dumb"}, True),
    (Terminal(), {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
])
@pytest.mark.skipif(sys.platform == "win32", reason="asks for more there")
def test_who_wants_colours(stream, environment, wanted, monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert wants_colours(stream) is wanted


@pytest.mark.parametrize("arguments", [[], ["train", "--help"], ["validate", "--help-all"], ["cache", "-h"]])
def test_colours_of_help(arguments):
    plain = here(*arguments, NO_COLOR="1", FORCE_COLOR="1").stdout
    coloured = here(*arguments, NO_COLOR="", FORCE_COLOR="1").stdout
    assert "\033" not in plain and ESCAPES.sub("", coloured) == plain
    assert coloured.startswith("\033[1musage:\033[0m")
    assert "\n  \033[36m" in coloured and "\033[1mexamples:\033[0m" in coloured


def test_flags_and_titles_are_set_off():
    coloured = here("validate", "--help-all", NO_COLOR="", FORCE_COLOR="1").stdout
    for piece in ("\033[1mdata:\033[0m", "  \033[36m--batch-size\033[0m, \033[36m-b\033[0m N  ",
                  "  \033[36m--[no-]pretrained\033[0m  "):
        assert piece in coloured


def test_colours_of_errors():
    for arguments in (["predict", "--nosuch"], ["info", "resnet5o"]):
        coloured = here(*arguments, NO_COLOR="", FORCE_COLOR="1").stderr
        assert coloured.startswith("\033[1;31mmvlib") and coloured.count("\033") == 2
        assert ESCAPES.sub("", coloured) == here(*arguments).stderr


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal of Unix")
@pytest.mark.parametrize(("environment", "coloured"), [
    ({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_on_a_terminal(environment, coloured):
    import pty

    ours, theirs = pty.openpty()
    clean = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    with subprocess.Popen([sys.executable, "-m", "mvlib", "cache", "--help"], stdout=theirs,
                          env={**clean, "TERM": "xterm", **environment}) as process:
        os.close(theirs)
        text = b""
        try:
            while piece := os.read(ours, 4096):
                text += piece
        except OSError:  # how a terminal of Linux ends
            pass
        os.close(ours)
    assert process.returncode == 0 and b"usage:" in text
    assert (b"\033[1musage:" in text) is coloured and (b"\033" in text) is coloured


# The same spelling, and rightly another meaning.
OTHER_TEXTS = {
    ("list", "--pretrained"): "a condition on names; nothing is loaded",
    ("export", "--force"): "overrules the check of outputs, not the one of speed",
    ("search", "--sort"): "takes several fields",
}


def test_one_option_one_text():
    """Up to a command's own words, behind a semicolon or as the default; and one name of its value."""
    texts, values = defaultdict(lambda: defaultdict(set)), defaultdict(lambda: defaultdict(set))
    for command in _COMMANDS:
        for action in visible(parser_of(command)):
            for flag in action.option_strings:
                if (command, flag) not in OTHER_TEXTS:
                    texts[flag][re.split(r"; | \(", action.help)[0]].add(command)
                    value = "choices" if action.choices and not action.metavar else str(_metavar(action))
                    values[flag][value if action.nargs != 0 else ""].add(command)
    assert len(texts) > 200
    assert {flag: dict(found) for flag, found in texts.items() if len(found) > 1} == {}
    differing = {flag: dict(found) for flag, found in values.items() if len(found) > 1}
    assert set(differing) == {"--compile"}, differing  # a mode, or a backend


def test_exceptions_are_needed():
    for command, flag in OTHER_TEXTS:
        assert flag in parser_of(command)._option_string_actions


def test_shared_options_are_shared():
    """Each is in two commands at least, and has its short spelling in all of them."""
    owners = defaultdict(set)
    for command in _COMMANDS:
        for action in visible(parser_of(command)):
            for flag in action.option_strings:
                owners[flag].add(command)
    for flags in _SHARED:
        long, *short = flags.split()
        assert len(owners[long]) >= 2, long
        assert [owners[flag] for flag in short] == [owners[long]] * len(short), long
