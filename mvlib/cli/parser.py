"""The parser of command lines: an error is one line, with what may have been meant. Imports no torch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, NoReturn, TextIO

from ..names import closest

__all__ = ["Parser"]


class Parser(argparse.ArgumentParser):
    """argparse's, whose errors name the closest option, command or value, and where the help is, not all of the usage.

    Options may be shortened as long as it is clear which one is meant.
    """

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")

    def parse_known_args(
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse's, but what is unknown is an error, and said before what is missing."""
        for word in takewhile(lambda word: word != "--", args or ()):
            if self._subparsers is not None and not word.startswith("-"):
                break  # the other words are the command's
            flag = word.partition("=")[0]
            if flag.startswith("--") and " " not in word and \
                    not any(known.startswith(flag) for known in self._option_string_actions):
                self.error(f"there is no option {flag}{closest(flag, self._flags())}")
        namespace, left = super().parse_known_args(args, namespace)
        if left:
            self.error(f"not understood: {' '.join(left)}")
        return namespace, left

    def _print_message(self, message: str, file: TextIO | None = None) -> None:
        (file or sys.stderr).write(message)  # argparse overlooks that it could not be written

    def _flags(self) -> list[str]:
        return [flag for flag, action in self._option_string_actions.items() if action.help != argparse.SUPPRESS]

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = list(map(str, action.choices))
            meant = closest(str(value), known) or f"; known: {', '.join(known)}"
            raise argparse.ArgumentError(action, f"'{value}' is unknown{meant}")
