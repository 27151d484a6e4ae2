"""Eager forward passes against timm: interleaved runs of the same model with the same weights, as ratios of medians.

    python benchmarks/forward.py [--models resnet50 ...] [--batch-sizes 1 16] [--seconds 20] [--device cpu]
    python benchmarks/forward.py --families [cait ...]      # one model of each family that timm has, too

A ratio above 1 means that mvlib is faster. Images have the size that the default weights ask for. A family's model is
the one whose cost comes nearest to 2 GMACs.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time

import timm
import torch

import mvlib
from mvlib.costs import read_stats

MODELS = ("resnet50", "efficientnet_b0", "vit_small_patch16_224", "swin_tiny_patch4_window7_224")


def seconds(model: torch.nn.Module, images: torch.Tensor) -> float:
    """Wall-clock seconds of one forward pass."""
    started = time.perf_counter()
    model(images)
    if images.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def compare(name: str, batch_size: int, budget: float, device: str) -> tuple[float, float, int]:
    """Median seconds of a forward pass of mvlib and of timm, and the number of interleaved pairs."""
    peer = timm.create_model(name).eval().to(device)
    own = mvlib.create_model(name, pretrained=False).eval().to(device)
    own.load_state_dict(peer.state_dict())
    images = torch.randn(batch_size, *mvlib.resolve_data_config(model=own)["input_size"], device=device)
    pairs: list[tuple[float, float]] = []
    with torch.inference_mode():
        for _ in range(2):
            seconds(own, images), seconds(peer, images)
        deadline = time.perf_counter() + budget
        while len(pairs) < 5 or time.perf_counter() < deadline:
            if len(pairs) % 2:  # neither side always follows the other
                late = seconds(peer, images)
                pairs.append((seconds(own, images), late))
            else:
                pairs.append((seconds(own, images), seconds(peer, images)))
    own_median, peer_median = (statistics.median(column) for column in zip(*pairs))
    return own_median, peer_median, len(pairs)


SHARED = [family for family in mvlib.list_modules() if family in timm.list_modules()]


def of_family(family: str) -> str:
    """Its model nearest to 2 GMACs."""
    return min(timm.list_models(module=family), key=lambda name: abs(read_stats()[name]["gmacs"] - 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--families", nargs="*", metavar="FAMILY", choices=SHARED,
                        help="one model of each family, or of these")
    parser.add_argument("--batch-sizes", nargs="+", type=int, help="default: 1 16; 1 8 with --families")
    parser.add_argument("--seconds", type=float, default=20, help="time for each comparison")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    by_family = arguments.families is not None
    names = [of_family(family) for family in arguments.families or SHARED] if by_family else arguments.models
    ratios: dict[str, float] = {}
    print("| model | batch | mvlib | timm | timm / mvlib | pairs |\n| --- | --- | --- | --- | --- | --- |")
    for name in names:
        for batch_size in arguments.batch_sizes or ([1, 8] if by_family else [1, 16]):
            own, peer, count = compare(name, batch_size, arguments.seconds, arguments.device)
            ratios[f"{name}, batch {batch_size}"] = peer / own
            print(f"| {name} | {batch_size} | {own * 1e3:.1f} ms | {peer * 1e3:.1f} ms | {peer / own:.2f} | {count} |",
                  flush=True)
    worst = min(ratios, key=ratios.__getitem__)
    mean = math.exp(statistics.fmean(map(math.log, ratios.values())))
    print(f"\ngeometric mean {mean:.3f}; lowest {ratios[worst]:.2f} ({worst})")


if __name__ == "__main__":
    main()
