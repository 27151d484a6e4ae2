"""Eager forward passes against timm: interleaved runs of the same model with the same weights, as ratios of medians.

    python benchmarks/forward.py [--models resnet50 ...] [--batch-sizes 1 16] [--seconds 20] [--device cpu]

A ratio above 1 means that mvlib is faster.
"""

from __future__ import annotations

import argparse
import statistics
import time

import timm
import torch

import mvlib

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
    images = torch.randn(batch_size, 3, 224, 224, device=device)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--seconds", type=float, default=20, help="time for each comparison")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    print("| model | batch | mvlib | timm | timm / mvlib | pairs |\n| --- | --- | --- | --- | --- | --- |")
    for name in arguments.models:
        for batch_size in arguments.batch_sizes:
            own, peer, count = compare(name, batch_size, arguments.seconds, arguments.device)
            print(f"| {name} | {batch_size} | {own * 1e3:.1f} ms | {peer * 1e3:.1f} ms | {peer / own:.2f} | {count} |",
                  flush=True)


if __name__ == "__main__":
    main()
