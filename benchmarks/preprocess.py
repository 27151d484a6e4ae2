"""One JPEG to a float32 tensor, one thread, against timm's transform on PIL: interleaved, as ratios of medians.

    python benchmarks/preprocess.py [--rounds 30] [--interpolation bicubic]

timm's side opens the file with PIL, converts to RGB and applies its transform; mvlib's is
`create_transform(..., backend="fast").from_file(path)`. Both resize to 256 and cut out 224 x 224. The limit is what
decoding alone takes, by the same decoder. A ratio above 1 means that mvlib is faster.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import skimage.data
import timm.data
import torch
from PIL import Image

import mvlib
from mvlib.data.jpeg import decode_jpeg, read_jpeg

SIZES = ((500, 375), (1280, 960), (4000, 3000))


def milliseconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return 1000 * (time.perf_counter() - started)


def write_photographs(folder: Path, size: tuple[int, int]) -> list[Path]:
    paths = []
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        photograph = Image.fromarray(getattr(skimage.data, name)())
        paths.append(folder / f"{name}{size[0]}.jpg")
        photograph.resize(size, Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--interpolation", default="bicubic", choices=("bilinear", "bicubic"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    options = {"input_size": (3, 224, 224), "crop_pct": 0.875, "interpolation": arguments.interpolation}
    peer = timm.data.create_transform(**options)
    fast, scaled = (mvlib.create_transform(**options, backend="fast", decode=decode) for decode in ("full", "scaled"))

    def by_timm(path: Path) -> torch.Tensor:
        with open(path, "rb") as stream:
            return peer(Image.open(stream).convert("RGB"))

    print("| photograph | timm | mvlib | times faster | scaled decoding | times faster | decoding alone |\n"
          "| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            paths = write_photographs(Path(folder), size)
            sides: list[Callable[[Path], object]] = [
                by_timm, fast.from_file, scaled.from_file, lambda path: decode_jpeg(*read_jpeg(path))]
            times: list[list[float]] = [[] for _ in sides]
            for number in range(arguments.rounds + 2):
                for path in paths:
                    for side, function in enumerate(sides):
                        elapsed = milliseconds(lambda: function(path))  # noqa: B023
                        if number >= 2:
                            times[side].append(elapsed)
            theirs, ours, small, limit = map(statistics.median, times)
            print(f"| {size[0]} x {size[1]} | {theirs:.2f} ms | {ours:.2f} ms | {theirs / ours:.2f} | {small:.2f} ms | "
                  f"{theirs / small:.2f} | {limit:.2f} ms |", flush=True)


if __name__ == "__main__":
    main()
