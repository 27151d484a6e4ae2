"""One JPEG to a float32 tensor, one thread, against timm's transform on PIL: interleaved, as ratios of medians.

    python benchmarks/preprocess.py [--rounds 10] [--interpolation bicubic]

timm's side opens the file with PIL, converts to RGB and applies its transform; mvlib's is
`create_transform(..., backend="fast").from_file(path)`. Both resize to 256 and cut out 224 x 224. The sides take turns
of a dozen files each, as a loop over files has them. The limit is what decoding alone takes, by the same decoder. A
ratio above 1 means that mvlib is faster.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import skimage.data
import torch
from PIL import Image

SIZES = ((500, 375), (1280, 960), (4000, 3000))


class Peer:
    """timm in a process of its own: the fast backend sets the allocator of its process, which speeds PIL up, too."""

    def __init__(self, options: dict[str, object]) -> None:
        command = [sys.executable, __file__, "--peer", json.dumps(options)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def turn(self, paths: Sequence[Path]) -> list[float]:
        print(json.dumps([str(path) for path in paths]), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def run_peer(options: dict[str, object]) -> None:
    """timm's side: names of files on standard input, the times that they took on standard output."""
    import timm.data

    torch.set_num_threads(1)
    transform = timm.data.create_transform(**options)

    def read(path: str) -> torch.Tensor:
        with open(path, "rb") as stream:
            return transform(Image.open(stream).convert("RGB"))

    for line in sys.stdin:
        print(milliseconds(read, json.loads(line)), flush=True)


def milliseconds(function: Callable[[Any], object], paths: Sequence[Any]) -> list[float]:
    """Of each file."""
    times = []
    for path in paths:
        started = time.perf_counter()
        function(path)
        times.append(1000 * (time.perf_counter() - started))
    return times


def write_photographs(folder: Path, size: tuple[int, int]) -> list[Path]:
    paths = []
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        photograph = Image.fromarray(getattr(skimage.data, name)())
        paths.append(folder / f"{name}{size[0]}.jpg")
        photograph.resize(size, Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--interpolation", default="bicubic", choices=("bilinear", "bicubic"))
    parser.add_argument("--peer", metavar="OPTIONS", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        return run_peer(json.loads(arguments.peer))
    import mvlib
    from mvlib.data.jpeg import read_jpeg
    from mvlib.data.torch_jpeg import decode_jpeg

    torch.set_num_threads(1)
    options = {"input_size": (3, 224, 224), "crop_pct": 0.875, "interpolation": arguments.interpolation}
    peer = Peer(options)
    fast, scaled = (mvlib.create_transform(**options, backend="fast", decode=decode) for decode in ("full", "scaled"))
    sides: list[Callable[[Sequence[Path]], list[float]]] = [
        peer.turn, partial(milliseconds, fast.from_file), partial(milliseconds, scaled.from_file),
        partial(milliseconds, lambda path: decode_jpeg(*read_jpeg(path)))]
    print("| photograph | timm | mvlib | times faster | scaled decoding | times faster | decoding alone |\n"
          "| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            paths = write_photographs(Path(folder), size)
            times: list[list[float]] = [[] for _ in sides]
            for number in range(arguments.rounds + 1):
                for side, take_turn in enumerate(sides):
                    elapsed = take_turn(3 * paths)
                    if number:
                        times[side] += elapsed
            theirs, ours, small, limit = map(statistics.median, times)
            print(f"| {size[0]} x {size[1]} | {theirs:.2f} ms | {ours:.2f} ms | {theirs / ours:.2f} | {small:.2f} ms | "
                  f"{theirs / small:.2f} | {limit:.2f} ms |", flush=True)
    peer.close()


if __name__ == "__main__":
    main()
