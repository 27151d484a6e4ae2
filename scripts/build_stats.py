#!/usr/bin/env python3
"""Write mvlib/catalog/stats.json: parameters and multiply-accumulates of each architecture, for `mvlib info`.

    python scripts/build_stats.py            measure the architectures that the file lacks, drop those that are gone
    python scripts/build_stats.py --all      measure all anew
    python scripts/build_stats.py --check    exit 1 where the file lacks or has too many, or parameters differ

Models are built and run on the meta device: nothing is allocated. Multiply-accumulates (1e9) are half of the
floating-point operations of convolutions, matrix products and attention that torch's FlopCounterMode counts for one
image of the default weights' input size.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

import mvlib

PATH = Path(mvlib.__file__).parent / "catalog" / "stats.json"


def build(name: str) -> tuple[torch.nn.Module, tuple[int, int, int]]:
    """A model on the meta device, and the image size of its default weights."""
    config = mvlib.get_pretrained_cfg(name)
    size = config.input_size if config else (3, 224, 224)
    arguments = {"img_size": size[1:]} if config and config.fixed_input_size else {}
    classes = {"num_classes": config.num_classes} if config and config.num_classes >= 0 else {}
    with torch.device("meta"):
        return mvlib.model_entrypoint(name)(**arguments, **classes).eval(), size


def count_parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def measure(name: str) -> dict[str, Any]:
    model, size = build(name)
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, *size, device="meta"))
    return {"params": count_parameters(model), "gmacs": round(counter.get_total_flops() / 2e9, 4), "size": size[-1]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="measure all anew")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the file is stale")
    arguments = parser.parse_args()
    known = json.loads(PATH.read_text()) if PATH.exists() else {}
    names = mvlib.list_models()
    if arguments.check:
        stale = sorted(set(names) ^ set(known))
        stale += [name for name in names if name in known and count_parameters(build(name)[0]) != known[name]["params"]]
        print("\n".join(f"stale: {name}" for name in stale) or f"{PATH.name} is up to date")
        return 1 if stale else 0
    stats = {}
    for name in names:
        if arguments.all or name not in known:
            known[name] = measure(name)
            print(name, known[name], flush=True)
        stats[name] = known[name]
    rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in stats.items())
    PATH.write_text(f"{{\n{rows}\n}}\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
