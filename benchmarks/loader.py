"""Training and validation loaders against timm: the same JPEGs, interleaved runs, as ratios of medians.

    python benchmarks/loader.py [--images 256] [--batch-size 64] [--workers 2] [--rounds 5] [--device cpu]

Training: RandAugment (rand-m9-mstd0.5-inc1), horizontal flip and random erasing of pixels; validation: resize and
centre crop. Images are scikit-image's photographs, stretched to 500 x 375 pixels by various amounts. A ratio above 1
means that mvlib is faster.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import skimage.data
import timm.data
import torch
from PIL import Image, ImageOps

import mvlib.data

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
TRAINING = {"is_training": True, "auto_augment": "rand-m9-mstd0.5-inc1", "re_prob": 0.5, "re_mode": "pixel"}


def write_images(folder: Path, count: int) -> None:
    """`count` JPEGs of 500 x 375 pixels in two classes."""
    draw = random.Random(0)
    photographs = [Image.fromarray(getattr(skimage.data, name)()) for name in PHOTOGRAPHS]
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        left, top = (draw.uniform(0, 0.3) * side for side in photograph.size)
        right, bottom = (draw.uniform(0.7, 1) * side for side in photograph.size)
        image = photograph.resize((500, 375), Image.Resampling.BICUBIC, (left, top, right, bottom))
        path = folder / f"class{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        image.save(path, quality=90)


def seconds(loader: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> tuple[float, int]:
    """Wall-clock seconds of one epoch after the workers are awake, and the images in it."""
    count, started = 0, 0.0
    for images, _ in loader:
        if started:
            count += len(images)
        else:  # the first batch waits for the workers
            started = time.perf_counter()
    if images.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started, count


def compare(folder: Path, arguments: argparse.Namespace, **options: object) -> tuple[float, float]:
    """Images a second of mvlib and of timm, medians of interleaved epochs."""
    options |= {"num_workers": arguments.workers, "device": torch.device(arguments.device), "persistent_workers": True}
    loaders = [data.create_loader(data.create_dataset("", root=str(folder)), (3, 224, 224), arguments.batch_size,
                                  **options) for data in (mvlib.data, timm.data)]
    for loader in loaders:
        seconds(loader)
    speeds: list[list[float]] = [[], []]
    for number in range(arguments.rounds):
        for side in (0, 1) if number % 2 else (1, 0):  # neither always follows the other
            elapsed, count = seconds(loaders[side])
            speeds[side].append(count / elapsed)
    return tuple(statistics.median(speed) for speed in speeds)


def repair_posterize() -> None:
    """timm's RandAugment may posterize to 0 bits, which Pillow 13 refuses, and its loader would stop."""
    posterize = ImageOps.posterize
    ImageOps.posterize = lambda image, bits: posterize(image, max(bits, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=768)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="epochs of each side")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    repair_posterize()
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), arguments.images)
        print("| loader | mvlib | timm | mvlib / timm |\n| --- | --- | --- | --- |")
        for name, options in (("training", TRAINING), ("validation", {"crop_pct": 0.875, "interpolation": "bicubic"})):
            own, peer = compare(Path(folder), arguments, **options)
            print(f"| {name} | {own:.0f} images/s | {peer:.0f} images/s | {own / peer:.2f} |", flush=True)


if __name__ == "__main__":
    main()
