"""What timm's architectures are made of, as digests: tests/parity/timm.json.

    python -m tests.parity.record            write the file anew, from the installed timm
    python -m tests.parity.record --check    exit 1 where the file and the installed timm differ

A test compares an architecture of ours with the file and builds nothing of timm's, so that a family is tested from the
day on which it registers. A row holds a digest for each of these, "-" where timm has none:

    state    names, kinds (parameter or buffer) and shapes of the state dict, in order
    taps     `feature_info`
    widths   `num_features`, `head_hidden_size`
    norms    epsilons and momenta, in the order of the modules
    decay    `no_weight_decay`
    groups   layer groups for layer-wise learning rates, fine and coarse (of rdnet there are no coarse ones)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import timm
from torch import nn

from ..skeleton import skeletons
from . import harness

PATH = Path(__file__).with_name("timm.json")
PARTS = ("state", "taps", "widths", "norms", "decay", "groups")
NONE = "-"


def read() -> dict[str, dict[str, str]]:
    """{architecture of timm's: {part: digest}}."""
    rows = json.loads(PATH.read_text(encoding="utf-8"))["architectures"]
    return {name: dict(zip(PARTS, row.split(), strict=True)) for name, row in rows.items()}


def digests(model: nn.Module) -> dict[str, str]:
    """Digests of what a model itself is, ours or timm's; it may be on the meta device."""
    return {part: _digest(value) for part, value in harness.described(model).items()}


def _digest(value: Any) -> str:
    if value is None or None in value:
        return NONE
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=int).encode()).hexdigest()[:10]


def measure(name: str) -> dict[str, str]:
    """The row of an architecture of timm's, built on the meta device."""
    with skeletons():
        return digests(timm.create_model(name))


def stale(names: Sequence[str]) -> Iterator[str]:
    """What differs between the file and timm's `names`, in words."""
    known = read()
    for name in names:
        found = measure(name)
        parts = [part for part in PARTS if known.get(name, {}).get(part) != found[part]]
        if parts:
            yield f"{name}: {', '.join(parts)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the file is stale")
    names = timm.list_models()
    if parser.parse_args().check:
        found = [*stale(names), *(f"{name}: timm does not have it" for name in read() if name not in set(names))]
        print("\n".join(found) or f"{PATH.name} is up to date")
        return 1 if found else 0
    rows = (f"{json.dumps(name)}: {json.dumps(' '.join(measure(name)[part] for part in PARTS))}" for name in names)
    text = ",\n".join(rows)
    PATH.write_text(f'{{"timm": {json.dumps(timm.__version__)}, "architectures": {{\n{text}\n}}}}\n', encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
