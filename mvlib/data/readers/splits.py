"""Names of splits that mean the same."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["EVAL_SPLITS", "TRAIN_SPLITS", "find_split", "synonyms"]

TRAIN_SPLITS = ("train", "training")
EVAL_SPLITS = ("val", "valid", "validation", "eval", "evaluation")


def synonyms(split: str) -> tuple[str, ...]:
    """Names under which to look for a split, itself first."""
    same = next((names for names in (TRAIN_SPLITS, EVAL_SPLITS) if split in names), ())
    return (split, *(name for name in same if name != split))


def find_split(split: str, known: Iterable[str]) -> str | None:
    """The one of `known` that a split means, None if there is none."""
    known = set(known)
    return next((name for name in synonyms(split) if name in known), None)
