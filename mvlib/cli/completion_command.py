"""`mvlib completion`: what a shell needs to complete commands, options, their values, and names of models.

The script knows all of it by itself: nothing is started when the key is pressed. It is made anew after an update.
"""

from __future__ import annotations

import argparse
import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

EXAMPLES = (
    "mvlib completion bash > ~/.local/share/bash-completion/completions/mvlib",
    "mvlib completion fish > ~/.config/fish/completions/mvlib.fish",
)
_INSTALL = {
    "bash": (EXAMPLES[0], "or, in ~/.bashrc:  eval \"$(mvlib completion bash)\""),
    "zsh": ("mvlib completion zsh > DIRECTORY/_mvlib", "with a DIRECTORY of $fpath",
            "or, in ~/.zshrc, after compinit:  eval \"$(mvlib completion zsh)\""),
    "fish": (EXAMPLES[1],),
}
_DESCRIPTION = """\
Print a script that completes commands, options, their values and names of models. Make it anew after an update.

""" + "\n".join(f"    {line}" for lines in _INSTALL.values() for line in lines)


@dataclass(frozen=True)
class Argument:
    """What a shell has to know of an argument.

    Attributes:
        flags: Its spellings; none for a positional.
        most: How many values it takes at most; 0 for a switch, infinity for any number.
        optional: Whether it goes without a value, too.
        kind: "models", "files", "folders", "words", or "" where nothing is known of the value.
        words: The values, of the kind "words".
        name: What help calls the value.
        text: What it is, in few words.
    """

    flags: tuple[str, ...]
    most: float
    optional: bool
    kind: str
    words: tuple[str, ...]
    name: str
    text: str


@dataclass(frozen=True)
class Command:
    """A command, "" for mvlib itself.

    Attributes:
        name: Its words: "train", "cache list".
        options: Its options.
        positional: What stands without a flag, if anything does.
        below: {command: summary} of those that may follow.
    """

    name: str
    options: tuple[Argument, ...]
    positional: Argument | None
    below: dict[str, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = _DESCRIPTION
    parser.add_argument("shell", metavar="SHELL", choices=tuple(_WRITERS), help=", ".join(_WRITERS))


def run(arguments: argparse.Namespace) -> int:
    print(script(arguments.shell), end="")
    return 0


def script(shell: str) -> str:
    """The completion script of a shell.

    Args:
        shell: "bash", "zsh" or "fish".

    Raises:
        KeyError: Another shell.
    """
    from .. import __version__
    from ..registry import is_model, list_builders, list_models

    models = sorted({*list_models(), *filter(is_model, list_builders())})
    weights = list_models(pretrained=True)
    comment = [f"{shell} completion of mvlib {__version__}. To install it:", *_INSTALL[shell],
               "Made by a command, and to be made anew after an update: what is changed here is lost."]
    return _WRITERS[shell](comment, models, weights, list(_commands()))


def _commands() -> Iterator[Command]:
    from . import make_parser

    top = make_parser(None)
    summaries, names = _below(top)
    yield Command("", tuple(_options(top)), None, summaries)
    yield Command("help", (), None, {name: text for name, text in summaries.items() if name != "help"})
    for name in names:
        if name != "help":
            parser = _below(make_parser(name))[1][name]
            summaries, below = _below(parser)
            yield Command(name, tuple(_options(parser)), _positional(parser), summaries)
            for word, under in below.items():
                yield Command(f"{name} {word}", tuple(_options(under)), _positional(under), {})


def _below(parser: argparse.ArgumentParser) -> tuple[dict[str, str], dict[str, argparse.ArgumentParser]]:
    """Summaries and parsers of a parser's commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return {str(choice.dest): str(choice.help) for choice in action._choices_actions}, dict(action.choices)
    return {}, {}


def _options(parser: argparse.ArgumentParser) -> Iterator[Argument]:
    for action in parser._actions:
        if action.option_strings and action.help != argparse.SUPPRESS:
            yield _argument(action)


def _positional(parser: argparse.ArgumentParser) -> Argument | None:
    found = [a for a in parser._actions if not a.option_strings and not isinstance(a, argparse._SubParsersAction)]
    return _argument(found[0]) if found else None


def _argument(action: argparse.Action) -> Argument:
    kind, words = _kind(action)
    most = action.nargs if isinstance(action.nargs, int) else math.inf if action.nargs in ("*", "+") else 1
    name = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    text = re.split(r"; | \(|: ", (action.help or "") % {"default": action.default, "prog": "mvlib"})[0]
    return Argument(tuple(action.option_strings), most, action.nargs in ("?", "*"), kind, words, name, text)


def _kind(action: argparse.Action) -> tuple[str, tuple[str, ...]]:
    """What values an argument takes, by what help calls them."""
    from ..optim.registry import list_optimizers
    from ..query import FIELDS
    from ..registry import list_modules
    from ..scheduler import list_schedulers
    from ..tasks import TASKS

    if action.choices is not None:
        return "words", tuple(str(choice) for choice in action.choices if choice != "")
    name = action.metavar if isinstance(action.metavar, str) else ""
    words: dict[str, Callable[[], Iterable[str]]] = {
        "TASK": lambda: TASKS, "FAMILY": list_modules, "OPTIMIZER": list_optimizers,
        "SCHEDULE": list_schedulers, "FIELD[,FIELD]": lambda: FIELDS}
    if name in words:
        return "words", tuple(words[name]())
    kinds = {"MODEL": "models", "PATTERN": "models", "FILE": "files", "PATH": "files", "INPUT": "files",
             "DATA": "files", "FOLDER": "folders"}
    return kinds.get(name, ""), ()


def _nested(commands: Iterable[Command]) -> list[str]:
    """Names of the commands that have commands of their own."""
    return [command.name for command in commands if command.below and command.name not in ("", "help")]


# --- bash ---

def _bash(comment: Sequence[str], models: Sequence[str], weights: Sequence[str], commands: Sequence[Command]) -> str:
    cases = []
    for command in commands:
        flags = [flag for option in command.options for flag in option.flags]
        lines = [f"options={_lines(flags)}"]
        if command.below:
            lines.append(f"kind=words values={_lines(command.below)}")
        elif command.positional is not None:
            lines.append(_bash_kind(command.positional))
        takes = [f"{'|'.join(option.flags)}) most={min(option.most, 999):.0f} {_bash_kind(option, 'of_')} ;;"
                 for option in command.options if option.most]
        if takes:
            lines += ["case $before in", *(f"    {line}" for line in takes), "esac"]
        cases.append(f"    {command.name or '-'!r}) # {command.name or 'mvlib'}\n" +
                     "".join(f"        {line}\n" for line in lines) + "        ;;\n")
    nested = " ".join(_nested(commands))
    names = "".join(f"_mvlib_{kind}_{letter}={_lines(group)}\n" for kind, known in (("models", models),
                    ("weights", weights)) for letter, group in itertools.groupby(sorted(known), lambda name: name[0]))
    return _BASH % {"comment": _comment(comment), "names": names, "cases": "".join(cases), "nested": nested}


def _bash_kind(argument: Argument, prefix: str = "") -> str:
    values = f" {prefix}values={_lines(argument.words)}" if argument.words else ""
    return f"{prefix}kind={argument.kind}{values}"


def _lines(words: Iterable[str]) -> str:
    return "'" + "\n".join(words) + "'"


_BASH = """\
%(comment)s
# Names by their first letter: bash takes its time to go through a thousand
%(names)s
# What the word under the cursor may be: options, and by the word's place a kind and values.
_mvlib_facts() {
    case $command in
%(cases)s    esac
}

_mvlib() {
    local IFS=$'\\n' cur=${COMP_WORDS[COMP_CWORD]} command=- before= most=0 distance=0 i word
    local options= kind= values= of_kind= of_values= models=_mvlib_models_${cur:0:1} weights=_mvlib_weights_${cur:0:1}
    COMPREPLY=()
    # bash takes --option=value and hf-hub:name for three words each
    [[ $cur == : || ${COMP_WORDS[COMP_CWORD-1]} == : ]] && return
    [[ $cur == = ]] && cur=
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        case $word in
            =) ;;
            -?*) before=$word distance=0 ;;
            *)
                if [[ $command == - ]]; then
                    command=$word before=
                elif [[ -z $before && " %(nested)s " == *" $command "* ]]; then
                    command="$command $word"
                else
                    ((distance++))
                fi ;;
        esac
    done
    _mvlib_facts
    if [[ -n $before ]] && ((distance < most)); then
        kind=$of_kind values=$of_values
    elif [[ $cur == -* ]]; then
        kind=words values=$options
    fi
    case $kind in
        words) COMPREPLY=($(compgen -W "$values" -- "$cur")) ;;
        models)
            case $cur in
                "") COMPREPLY=($(for models in ${!_mvlib_models_@}; do echo "${!models}"; done)) ;;
                [!a-z]* | */*) ;;
                *.*) COMPREPLY=($(compgen -W "${!weights}" -- "$cur")) ;;
                *) COMPREPLY=($(compgen -W "${!models}" -- "$cur"; compgen -W "${!weights}" -- "$cur.")) ;;
            esac ;;
    esac
}
complete -o default -F _mvlib mvlib  # files, where there is nothing else
"""


# --- zsh ---

def _zsh(comment: Sequence[str], models: Sequence[str], weights: Sequence[str], commands: Sequence[Command]) -> str:
    cases = []
    for command in commands:
        if not command.name:
            continue
        specs = [_zsh_option(option) for option in command.options]
        if command.below:
            specs += ["'1:command:((" + " ".join(_zsh_pair(*pair) for pair in command.below.items()) + "))'",
                      "'*::argument:->below'"]
        elif command.positional is not None:
            place = "*" if command.positional.most > 1 else "1"
            specs.append(f"'{place}:{command.positional.name}:{_zsh_action(command.positional)}'")
        lines = " \\\n            ".join(specs)
        cases.append(f"        '{command.name}')\n            _arguments -C -S : {lines} ;;\n")
    top = commands[0]
    return _ZSH % {"comment": _comment(comment), "models": " ".join(models), "weights": " ".join(weights),
                   "top": " \\\n            ".join(_zsh_option(option) for option in top.options),
                   "commands": " ".join("'" + _quoted(f"{name}:{text}") + "'" for name, text in top.below.items()),
                   "cases": "".join(cases), "nested": "|".join(_nested(commands))}


def _zsh_option(option: Argument) -> str:
    text = re.sub(r"([\[\]:])", r"\\\1", option.text)
    if not option.most:
        flags = list(option.flags)
        values = ""
    else:
        flags = [f"{flag}=" if flag.startswith("--") else f"{flag}+" for flag in option.flags]
        count = 1 if option.most == math.inf else int(option.most)
        colon = "::" if option.optional else ":"
        values = f"{colon}{option.name.replace(':', '')}:{_zsh_action(option)}" * count
    rest = f"'[{_quoted(text)}]{values}'"
    return f"'*'{flags[0]}{rest}" if len(flags) == 1 else f"'*'{{{','.join(flags)}}}{rest}"


def _zsh_action(argument: Argument) -> str:
    return {"models": "_mvlib_models", "files": "_files", "folders": "_files -/", "": " ",
            "words": f"({' '.join(argument.words)})"}[argument.kind]


def _zsh_pair(name: str, text: str) -> str:
    text = re.sub(r"(\W)", r"\\\1", text)  # zsh evaluates it once more
    return _quoted(f"{name}\\:{text}")


def _quoted(text: str) -> str:
    """For within single quotes."""
    return text.replace("'", "'\\''")


_ZSH = """\
#compdef mvlib
%(comment)s
typeset -ga _mvlib_names _mvlib_weights
_mvlib_names=(%(models)s)
_mvlib_weights=(%(weights)s)

_mvlib_models() {
    case $PREFIX in
        (*[/:]*) compset -P '*:'; _files ;;
        (*.*) compadd -a _mvlib_weights ;;
        (*) compadd -a _mvlib_names; compadd -- ${(M)_mvlib_weights:#$PREFIX.*}
            [[ -n $PREFIX ]] && _files ;;
    esac
}

_mvlib() {
    local curcontext=$curcontext context state state_descr line command
    local -a commands
    typeset -A opt_args
    _arguments -C -S : %(top)s '1:command:->command' '*::argument:->arguments'
    case $state in
        (command) commands=(%(commands)s); _describe command commands ;;
        (arguments) command=$words[1]; _mvlib_arguments ;;
    esac
}

_mvlib_arguments() {
    state=
    case $command in
%(cases)s    esac
    if [[ $state == below && $command == (%(nested)s) ]]; then
        command="$command $words[1]"; _mvlib_arguments
    fi
}

if [[ $funcstack[1] == _mvlib ]]; then _mvlib "$@"; else compdef _mvlib mvlib; fi
"""


# --- fish ---

def _fish(comment: Sequence[str], models: Sequence[str], weights: Sequence[str], commands: Sequence[Command]) -> str:
    lines = []
    for command in commands:
        start = f"complete -c mvlib -n '__mvlib_at {command.name}'"
        for name, text in command.below.items():
            lines.append(f"{start} -f -a {name} -d {_fish_quoted(text)}")
        if command.positional is not None and command.positional.kind not in ("files", "folders"):
            lines.append(f"{start} -f {_fish_values(command.positional)}".rstrip())
        for option in command.options:
            flags = " ".join(map(_fish_flag, option.flags))
            value = ""
            if option.most and not option.optional:
                value = " -rF" if option.kind in ("files", "folders") else f" -x {_fish_values(option)}".rstrip()
            lines.append(f"{start} {flags}{value} -d {_fish_quoted(option.text)}")
    return _FISH % {"comment": _comment(comment), "models": " ".join(models), "weights": " ".join(weights),
                    "nested": " ".join(_nested(commands)), "lines": "\n".join(lines)}


def _fish_flag(flag: str) -> str:
    """--long, -s, or -old, of several letters behind one dash."""
    return f"-l {flag[2:]}" if flag.startswith("--") else f"-{'s' if len(flag) == 2 else 'o'} {flag[1:]}"


def _fish_values(argument: Argument) -> str:
    if argument.kind == "models":
        return "-a '(__mvlib_models)'"
    return f"-a {_fish_quoted(' '.join(argument.words))}" if argument.words else ""


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


_FISH = """\
%(comment)s
set -g __mvlib_names %(models)s
set -g __mvlib_weights %(weights)s

function __mvlib_models
    set -l word (commandline -ct | string replace -r '^--?[^=]*=' '')
    switch $word
        case '*:*'
            set -l parts (string split -m 1 : $word)
            string replace -r '^' "$parts[1]:" (__fish_complete_path $parts[2])
        case '*/*'
            __fish_complete_path $word
        case '*.*'
            printf '%%s\\n' $__mvlib_weights
        case '*'
            printf '%%s\\n' $__mvlib_names
            string match -- "$word.*" $__mvlib_weights
            test -n "$word"; and __fish_complete_path $word
    end
end

# Whether the words so far are of this command
function __mvlib_at
    set -l words
    for word in (commandline -opc)[2..-1]
        string match -q -- '-*' $word; or set -a words $word
    end
    if not contains -- "$words[1]" %(nested)s
        set words $words[1]
    end
    test "$words[1..2]" = "$argv[1..2]"
end

%(lines)s
"""


def _comment(lines: Sequence[str]) -> str:
    return "".join(f"# {'    ' if 0 < number < len(lines) - 1 else ''}{line}\n" for number, line in enumerate(lines))


_WRITERS = {"bash": _bash, "zsh": _zsh, "fish": _fish}
