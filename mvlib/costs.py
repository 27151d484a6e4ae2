"""What models cost for one image, as scripts/build_stats.py measured it. Imports no torch."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from .registry import CATALOG_DIR
from .weights import WeightsConfig

__all__ = ["costs_of", "gmacs_at", "read_stats", "sides"]


@functools.cache
def read_stats() -> Mapping[str, Mapping[str, Any]]:
    """All rows: {architecture or weights: {params, gmacs, activations, size, classes[, test]}}."""
    try:
        with open(os.path.join(CATALOG_DIR, "stats.json"), encoding="utf-8") as stream:
            return json.load(stream)
    except FileNotFoundError:  # a source tree that has not been measured yet
        return {}


def costs_of(config: WeightsConfig) -> Mapping[str, Any]:
    """What was measured of these weights, at their own sizes and with their classes; empty if nothing was.

    Returns:
        `params` (a count), `gmacs` (1e9) and `activations` (1e6) at `size` pixels ([height, width] where these differ)
        and with `classes` outputs; `test` is [size, gmacs, activations] at the size of evaluation, where that is
        another.
    """
    stats = read_stats()
    row = stats.get(config.name) or stats.get(str(config.architecture), {})
    return row if row and _fits(row, config) else {}


def gmacs_at(config: WeightsConfig, size: Sequence[int]) -> float | None:
    """Multiply-accumulates for an image of (channels, height, width), in 1e9; None where they were not measured."""
    costs = costs_of(config)
    if costs and tuple(size) == config.input_size:
        return costs["gmacs"]
    return costs["test"][1] if "test" in costs and tuple(size) == config.test_input_size else None


def _fits(row: Mapping[str, Any], config: WeightsConfig) -> bool:
    """Whether a row, perhaps of its architecture's default weights, is true of these, too."""
    size, test = sides(row["size"]), sides(row.get("test", [row["size"]])[0])
    return config.num_classes == row["classes"] and config.input_size == (3, *size) \
        and (config.test_input_size or config.input_size)[1:] == test


def sides(size: int | Sequence[int]) -> tuple[int, ...]:
    """(height, width) of a row's `size`."""
    return (size, size) if isinstance(size, int) else tuple(size)
