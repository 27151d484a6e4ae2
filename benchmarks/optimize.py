"""Forward passes of `mvlib.optimize` against timm's eager float32: two processes that take turns, ratios of medians.

    python benchmarks/optimize.py [--models resnet50 ...] [--dtypes float32 bfloat16] [--compile on] [--rounds 9]

A ratio above 1 means that mvlib is faster. timm has a process of its own, because `optimize` sets the allocator of the
whole process, which speeds timm up, too. The limit beside each ratio is what it would be if every multiplication ran
at the machine's measured peak and nothing else took time.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

MODELS = ("resnet50", "efficientnet_b0", "convnext_tiny", "vit_small_patch16_224")


def images(batch_size: int) -> torch.Tensor:
    return torch.randn(batch_size, 3, 224, 224, generator=torch.Generator().manual_seed(0))


def seconds(model: torch.nn.Module, batch: torch.Tensor) -> float:
    """Wall-clock seconds of one forward pass."""
    started = time.perf_counter()
    model(batch)
    return time.perf_counter() - started


def run_peer(batch_size: int, threads: int) -> None:
    """timm's side: a model's name on standard input loads it, an empty line runs it once."""
    import timm

    torch.set_num_threads(threads)
    model, batch = None, images(batch_size)
    with torch.inference_mode():
        for line in sys.stdin:
            if name := line.strip():
                torch.manual_seed(0)
                model = timm.create_model(name).eval()
                seconds(model, batch)
                print("ready", flush=True)
            else:
                print(seconds(model, batch), flush=True)


class Peer:
    def __init__(self, batch_size: int, threads: int) -> None:
        command = [sys.executable, __file__, "--peer", "--batch-size", str(batch_size), "--threads", str(threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, line: str = "") -> str:
        print(line, file=self.process.stdin, flush=True)
        return self.process.stdout.readline().strip()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def peak(dtype: torch.dtype) -> float:
    """Most multiplications and additions a second, of a large matrix product in MKL or oneDNN: the machine's peak."""
    a, b = (torch.randn(2048, 2048).to(dtype) for _ in range(2))
    packed = torch.ops.mkldnn._reorder_linear_weight(b, 2048)
    best = float("inf")
    with torch.inference_mode():
        for _ in range(8):
            for product in (lambda: a @ b, lambda: torch.ops.mkldnn._linear_pointwise(a, packed, None, "none", [], "")):
                started = time.perf_counter()
                product()
                best = min(best, time.perf_counter() - started)
    return 2 * 2048**3 / best


def compare(name: str, arguments: argparse.Namespace, peer: Peer, peaks: dict[str, float]) -> list[tuple]:
    """A row for each type: (type, median seconds of timm, of mvlib, limit of the ratio, difference, how compiled)."""
    import mvlib

    peer.ask(name)
    torch.manual_seed(0)
    model = mvlib.create_model(name, pretrained=False).eval()
    batch = images(arguments.batch_size)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(batch[:1])
    work = counter.get_total_flops() * len(batch)
    optimized = {}
    for dtype in arguments.dtypes:
        optimized[dtype], report = mvlib.optimize(model, batch, dtype=dtype, compile=arguments.compile)
        if arguments.verbose:
            print(name, report, sep="\n", file=sys.stderr, flush=True)
        seconds(optimized[dtype], batch)
    times: dict[str, list[float]] = {side: [] for side in ("timm", *optimized)}
    for number in range(arguments.rounds):
        order = list(times) if number % 2 else list(times)[::-1]
        for side in order:
            times[side].append(float(peer.ask()) if side == "timm" else seconds(optimized[side], batch))
    timm, *_ = medians = {side: statistics.median(values) for side, values in times.items()}
    return [(dtype, medians[timm], medians[dtype], medians[timm] / (work / peaks[dtype]),
             optimized[dtype].report.difference, work / peaks[dtype] / medians[dtype]) for dtype in optimized]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--dtypes", nargs="+", help="default: float32, and bfloat16 where the CPU has it")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--compile", choices=("on", "off"), default="off")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--verbose", action="store_true", help="print what was done to each model")
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        return run_peer(arguments.batch_size, arguments.threads)
    from mvlib.optimization import supported_dtypes

    if arguments.dtypes is None:
        known = supported_dtypes(torch.device("cpu"))
        arguments.dtypes = ["float32", *(["bfloat16"] if torch.bfloat16 in known else [])]
    torch.set_num_threads(arguments.threads)
    peaks = {dtype: peak(getattr(torch, dtype)) for dtype in arguments.dtypes}
    print("measured peak: " + ", ".join(f"{dtype} {value / 1e9:.0f} GFLOP/s" for dtype, value in peaks.items())
          + f" ({arguments.threads} threads)\n")
    print("| model | type | timm eager float32 | mvlib.optimize | timm / mvlib | limit of that | of the peak "
          "| difference |\n| --- | --- | --- | --- | --- | --- | --- | --- |")
    ratios: dict[str, list[tuple[float, float]]] = {dtype: [] for dtype in arguments.dtypes}
    peer = Peer(arguments.batch_size, arguments.threads)
    for name in arguments.models:
        for dtype, timm, own, limit, difference, share in compare(name, arguments, peer, peaks):
            ratios[dtype].append((timm / own, limit))
            print(f"| {name} | {dtype} | {timm * 1e3:.0f} ms | {own * 1e3:.0f} ms | {timm / own:.2f} | {limit:.2f} "
                  f"| {share:.0%} | {difference:.0e} |", flush=True)
    peer.close()
    for dtype, found in ratios.items():
        reached, limit = (math.exp(statistics.fmean(map(math.log, column))) for column in zip(*found))
        print(f"\n{dtype}: geometric mean {reached:.2f}, limit {limit:.2f}")


if __name__ == "__main__":
    main()
