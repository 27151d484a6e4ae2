"""Types of command-line arguments: numbers of a range. No option takes a bare int or float, which let NaN and -1 by."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

__all__ = ["Number", "finite", "natural", "nonnegative", "positive", "positive_float", "seed", "share"]


@dataclass(frozen=True)
class Number:
    """A type of finite numbers: from a text, or from a number of a recipe, to the number.

    Attributes:
        kind: int or float.
        sign: "any", "nonnegative" or "positive".
        most: The greatest allowed.
    """

    kind: type[int] | type[float]
    sign: str = "any"
    most: float = math.inf

    def __call__(self, given: str | float) -> float:
        """The number.

        Raises:
            argparse.ArgumentTypeError: It is none of this type.
        """
        try:
            value = self.kind(given)
        except (TypeError, ValueError, OverflowError):
            value = math.nan
        if not -math.inf < value < math.inf or isinstance(given, float) and given != value:
            raise argparse.ArgumentTypeError(f"'{given}' is not a {'whole ' if self.kind is int else ''}number")
        if self.sign == "positive" and value <= 0:
            raise argparse.ArgumentTypeError(f"{given} is not a positive number")
        if self.sign == "nonnegative" and value < 0:
            raise argparse.ArgumentTypeError(f"{given} is negative")
        if value > self.most:
            raise argparse.ArgumentTypeError(f"{given} is more than {self.most}")
        return value


positive, natural = Number(int, "positive", 2**31 - 1), Number(int, "nonnegative", 2**31 - 1)
seed = Number(int, "nonnegative", 2**63 - 1)
finite, nonnegative, positive_float = Number(float), Number(float, "nonnegative"), Number(float, "positive")
share = Number(float, "nonnegative", 1)
