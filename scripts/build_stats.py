#!/usr/bin/env python3
"""Write mvlib/catalog/stats.json: what each architecture costs, for `mvlib search`, `mvlib info` and comparisons.

    python scripts/build_stats.py            measure what the file lacks, drop what is gone
    python scripts/build_stats.py resnet     the same, and measure this family anew
    python scripts/build_stats.py --all      measure all anew
    python scripts/build_stats.py --check    exit 1 where the file lacks or has too many, or parameters differ

A row says, for one image of `size` pixels, [height, width] if not square (of a model with `classes` outputs):

    params        parameters
    gmacs         multiply-accumulates of convolutions, matrix products and attention, in 1e9
    activations   elements that the same operators put out (attention: its scores and its result), in 1e6
    test          [size, gmacs, activations] at the size of evaluation, where the weights have one

A row named after an architecture holds for its default weights, and for those that agree with them in classes and
sizes; other weights have a row of their own, "architecture.tag". Models are built and run on the meta device, nothing
is allocated; operations are counted with the formulas of torch's FlopCounterMode. Figures are torchvision's `_ops` and
timm's "macts"; timm's "gmacs" are higher by operations on norms, up to 8% in small models (tests/test_costs.py).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import mvlib
from mvlib.weights import WeightsConfig

PATH = Path(mvlib.__file__).parent / "catalog" / "stats.json"
_NO_COST = ("quantize", "backend")  # arguments under which a model computes the same, in integers


class CostCounter(TorchDispatchMode):
    """Counts, while it is active, what torch's flop counter has a formula for.

    Attributes:
        macs: Multiply-accumulates, half of the floating-point operations.
        activations: Elements of the operators' outputs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs = self.activations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = flop_registry.get(func._overloadpacket)
        if "attention" in func._overloadpacket.__name__:  # whether or not this torch has a formula for it
            raise TypeError(f"{func} is a fused operator, whose inner products cannot be counted")
        if formula is not None:
            self.macs += formula(*args, **kwargs, out_val=out) // 2
            self.activations += out.numel()
        return out


def build(config: WeightsConfig, size: Sequence[int] | None = None) -> torch.nn.Module:
    """The model of a config on the meta device, for images of its input size or another."""
    arguments = {key: value for key, value in config.model_args.items() if key not in _NO_COST}
    if config.fixed_input_size:
        arguments["img_size"] = tuple(size or config.input_size)[1:]
    if config.num_classes >= 0:
        arguments["num_classes"] = config.num_classes
    with torch.device("meta"):
        return mvlib.model_entrypoint(config.architecture)(**arguments).eval()


def count(model: torch.nn.Module, size: Sequence[int]) -> tuple[float, float]:
    """(multiply-accumulates in 1e9, activations in 1e6) of one image of (channels, height, width)."""
    with torch.no_grad(), CostCounter() as counter:
        model(torch.empty(1, *size, device="meta"))
    return round(counter.macs / 1e9, 4), round(counter.activations / 1e6, 4)


def count_parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _side(input_size: Sequence[int]) -> int | list[int]:
    """One number for a square image, else [height, width]."""
    height, width = input_size[1:]
    return height if height == width else [height, width]


def measure(config: WeightsConfig) -> dict[str, Any]:
    model = build(config)
    gmacs, activations = count(model, config.input_size)
    row = {"params": count_parameters(model), "gmacs": gmacs, "activations": activations,
           "size": _side(config.input_size), "classes": config.num_classes}
    test = config.test_input_size
    if test and test != config.input_size:
        row["test"] = [_side(test), *count(build(config, test) if config.fixed_input_size else model, test)]
    return row


def same_costs(config: WeightsConfig, other: WeightsConfig) -> bool:
    return all(getattr(config, key) == getattr(other, key) for key in
               ("num_classes", "input_size", "test_input_size"))


def rows() -> Iterator[tuple[str, WeightsConfig]]:
    """What the file has rows for: every architecture, and weights that differ from its default ones."""
    for name in mvlib.list_models(task="classification"):
        default = mvlib.get_pretrained_cfg(name) or WeightsConfig(architecture=name)
        yield name, default
        for full, config in mvlib.get_arch_pretrained_cfgs(name).items():
            if not same_costs(config, default):
                yield full, config


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", metavar="FAMILY", help="families to measure anew")
    parser.add_argument("--all", action="store_true", help="measure all anew")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the file is stale")
    arguments = parser.parse_args()
    known = json.loads(PATH.read_text()) if PATH.exists() else {}
    wanted = dict(rows())
    if arguments.check:
        stale = sorted(set(wanted) ^ set(known))
        stale += [name for name, config in wanted.items()
                  if name in known and count_parameters(build(config)) != known[name]["params"]]
        print("\n".join(f"stale: {name}" for name in stale) or f"{PATH.name} is up to date")
        return 1 if stale else 0
    if unknown := set(arguments.families) - set(mvlib.list_modules()):
        parser.error(f"no family {', '.join(sorted(unknown))}; known: {', '.join(mvlib.list_modules())}")
    changed = {name for family in arguments.families for name in mvlib.list_models(module=family)}
    for name, config in wanted.items():
        if arguments.all or name not in known or config.architecture in changed:
            known[name] = measure(config)
            print(name, known[name], flush=True)
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(known[name])}" for name in wanted)
    PATH.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
