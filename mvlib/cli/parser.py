"""The parser of command lines: help of a screen, and errors of one line with what may have been meant. No torch."""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any, NoReturn, TextIO

from ..names import closest
from .colours import BOLD, BOLD_RED, CYAN, paint, wants_colours

__all__ = ["Parser"]


class Parser(argparse.ArgumentParser):
    """argparse's, with help that fits a screen, and errors of one line that name the closest option, command or value.

    `--help` shows the options that people use, and examples; `--help-all` shows all options. Options may be shortened
    as long as it is clear which one is meant.

    Attributes:
        common: What `--help` shows, {title: "--option --option METAVAR ..."}; empty for all, as they are grouped.
        examples: Command lines that end the help, each with a comment (# ...) or without.
        signed: Options whose values may begin with a minus and a letter.
        titles: {command: title} of the commands that begin a group of them.
    """

    def __init__(self, **options: Any) -> None:
        if sys.version_info >= (3, 14):
            options["color"] = False  # ours are the same in every Python
        super().__init__(**{"formatter_class": _Formatter, **options, "add_help": False})
        self.common: Mapping[str, str] = {}
        self.examples: Sequence[str] = ()
        self.signed: Sequence[str] = ()
        self.titles: Mapping[str, str] = {}
        self.add_argument("--help", "-h", action=_Help, help="this page")
        self.add_argument("--help-all", action=_Help, const=True, help="all options")

    def format_usage(self) -> str:
        """One line, or two: positionals and what is required."""
        formatter: Any = self._get_formatter()
        wanted = [action for action in self._actions if action.help != argparse.SUPPRESS]
        words = [formatter._format_args(action, _metavar(action)) for action in wanted if not action.option_strings]
        words += [f"{action.option_strings[0]} {formatter._format_args(action, _metavar(action))}"
                  for action in wanted if action.option_strings and action.required]
        if self._subparsers is None:
            words.append("[OPTION ...]")
        prefix = f"usage: {self.prog} "
        return textwrap.fill(" ".join(words), initial_indent=prefix, width=formatter._width,
                             subsequent_indent=" " * len(prefix), break_on_hyphens=False) + "\n"

    def format_help(self) -> str:
        """What `--help` prints, without colours."""
        return self._help(everything=False, colours=False)

    def print_help(self, file: Any = None, everything: bool = False) -> None:
        """Print the help, with colours on a terminal.

        Args:
            file: Standard output unless given.
            everything: Show all options, not the common ones alone.
        """
        file = file or sys.stdout
        self._print_message(self._help(everything, wants_colours(file)), file)

    def error(self, message: str) -> NoReturn:
        missing = re.search(r"are required: (-\S+)$", message)
        examples = (example.partition("#")[0].strip() for example in self.examples)
        if missing and (example := next((one for one in examples if f" {missing[1]} " in one), None)):
            message += f"; for example: {example}"
        prog = f"{self.prog}:"
        prog = paint(prog, BOLD_RED) if wants_colours(sys.stderr) else prog
        self.exit(2, f"{prog} {message} (see {self.prog} --help)\n")

    def parse_known_args(
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse's, but what is unknown is an error, and said before what is missing; and options may stand among
        the words of an argument that takes several."""
        for word in takewhile(lambda word: word != "--", args or ()):
            if self._subparsers is not None and not word.startswith("-"):
                break  # the other words are the command's
            flag = word.partition("=")[0]
            if flag.startswith("--") and " " not in word and \
                    not any(known.startswith(flag) for known in self._option_string_actions):
                self.error(f"there is no option {flag}{closest(flag, self._flags())}")
        namespace, left = super().parse_known_args(self._joined(args), namespace)
        several = next((one for one in self._actions if not one.option_strings and one.nargs in ("*", "+")), None)
        if several is not None and not any(word.startswith("-") for word in left):
            setattr(namespace, several.dest, [*getattr(namespace, several.dest), *left])
        elif left:
            self.error(f"not understood: {' '.join(left)}")
        return namespace, []

    def _joined(self, args: Sequence[str] | None) -> Sequence[str] | None:
        """The words, with --sort=-gmacs for --sort -gmacs."""
        if not self.signed or args is None:
            return args
        words: list[str] = []
        for word in args:
            if words and words[-1] in self.signed and re.match("-[a-z]", word, re.IGNORECASE):
                words[-1] += f"={word}"
            else:
                words.append(word)
        return words

    def _help(self, everything: bool, colours: bool) -> str:
        formatter = self._get_formatter()
        titles, shown = [], 0
        for title, actions in self._sections(everything):
            formatter.start_section(title)
            formatter.add_arguments(actions)
            formatter.end_section()
            titles.append(title)
            shown += sum(action.help != argparse.SUPPRESS for action in actions)
        usage, body = self.format_usage(), formatter.format_help()
        formatter = self._get_formatter()
        formatter.add_text(self.description)
        parts = [usage, formatter.format_help(), body]
        if self.epilog:
            formatter = self._get_formatter()
            formatter.add_text(self.epilog)
            parts.append(formatter.format_help())
        if self.examples:
            titles.append("examples")
            parts.append("examples:\n" + "".join(f"  {line}\n" for line in self.examples))
        hidden = sum(action.help != argparse.SUPPRESS for action in self._actions) - shown
        if self.common and not everything and hidden:
            parts.append(f"{hidden} more options: {self.prog} --help-all\n")
        if colours:
            parts = [_paint(part, titles) for part in parts]
        return "\n".join(filter(None, parts))

    def _sections(self, everything: bool) -> Iterator[tuple[str, list[argparse.Action]]]:
        """Titles of groups of arguments, and what stands under them."""
        if self.common and not everything:
            for title, names in self.common.items():
                yield title, [self._find(name) for name in names.split()]
            return
        for group in self._action_groups:
            actions = [action for action in group._group_actions
                       if not isinstance(action, _Help) or not action.const or self.common]  # else it is --help
            commands = next((a for a in actions if isinstance(a, argparse._SubParsersAction)), None)
            if commands is not None:
                yield from self._groups_of_commands(commands)
            elif actions:
                yield {"positional arguments": "arguments"}.get(group.title or "", group.title or ""), actions

    def _groups_of_commands(self, commands: Any) -> Iterator[tuple[str, list[argparse.Action]]]:
        title, below = "commands", list[argparse.Action]()
        for command in commands._choices_actions:
            if command.dest in self.titles:
                if below:
                    yield title, below
                title, below = self.titles[command.dest], []
            below.append(command)
        yield title, below

    def _find(self, name: str) -> argparse.Action:
        """The argument that an option string or a positional's name in usage names."""
        if name.startswith("-"):
            return self._option_string_actions[name]
        return next(action for action in self._actions if not action.option_strings and _metavar(action) == name)

    def _print_message(self, message: str, file: TextIO | None = None) -> None:
        (file or sys.stderr).write(message)  # argparse overlooks that it could not be written

    def _flags(self) -> list[str]:
        return [flag for flag, action in self._option_string_actions.items() if action.help != argparse.SUPPRESS]

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = list(map(str, action.choices))
            meant = closest(str(value), known) or f"; known: {', '.join(known)}"
            raise argparse.ArgumentError(action, f"'{value}' is unknown{meant}")


class _Help(argparse.Action):
    """Print the help and end; `const` is whether all of it."""

    def __init__(self, option_strings: Sequence[str], dest: str, const: bool = False, help: str | None = None) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, const=const, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        parser.print_help(everything=self.const)
        parser.exit()


class _Formatter(argparse.HelpFormatter):
    """The same text in every Python: "--batch-size, -b N", and no default that the text gives itself."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, **{"max_help_position": 26, **options})

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        flags = list(action.option_strings)
        if isinstance(action, argparse.BooleanOptionalAction):
            positive = [flag for flag in flags if not flag.startswith("--no-")]
            flags = [re.sub("^--", "--[no-]", flag) for flag in positive]
        values = "" if action.nargs == 0 else f" {self._format_args(action, _metavar(action))}"
        return ", ".join(flags) + values

    def _expand_help(self, action: argparse.Action) -> str:
        text = super()._expand_help(action)
        if isinstance(action, argparse.BooleanOptionalAction):  # until Python 3.12, it appends one
            text = re.sub(r"(\(default.*\)) \(default: .*?\)$", r"\1", text)
        return text

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Paragraphs are filled, indented lines stay as they are."""
        paragraphs = text.strip("\n").split("\n\n")
        return "\n\n".join(part if part.startswith(" ") else textwrap.fill(
            part, width, initial_indent=indent, subsequent_indent=indent) for part in paragraphs)


def _metavar(action: argparse.Action) -> Any:
    """How an argument's value is called."""
    if action.metavar is not None:
        return action.metavar
    if action.choices is not None:
        return f"{{{','.join(map(str, action.choices))}}}"
    return action.dest.upper() if action.option_strings else action.dest


def _paint(text: str, titles: Sequence[str]) -> str:
    """Help with its titles and the names of options and commands set off."""
    text = re.sub(r"^usage:", lambda match: paint(match[0], BOLD), text)
    for title in titles:
        text = re.sub(rf"^{re.escape(title)}:$", lambda match: paint(match[0], BOLD), text, flags=re.MULTILINE)
    flags = r"^(?:  |    )(?=[-a-z])(?!mvlib )(?:(?:, )?(?:--?[\w\[\]-]+|[a-z]+(?=  |$)))+"
    return re.sub(flags, lambda match: re.sub(r"[\w\[\]-]+", lambda word: paint(word[0], CYAN), match[0]), text,
                  flags=re.MULTILINE)
