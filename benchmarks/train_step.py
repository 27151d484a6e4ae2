"""One training step (forward, backward, update) against timm's: processes that take turns, as ratios of medians.

    python benchmarks/train_step.py [--models resnet50 ...] [--batch-size 32] [--dtypes float32 bfloat16] [--steps 8]

Both sides train the same architecture by SGD with Nesterov momentum and label smoothing, on images that lie in
memory. timm's side is the step of its train.py: its model, optimizer and loss, contiguous memory. mvlib's side is
`mvlib.train.train_one_epoch`, prepared as `mvlib train` prepares it. Each side has a process of its own, because
mvlib's sets the allocator of its process. A ratio above 1 means that mvlib is faster.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import torch

MODELS = ("resnet50", "efficientnet_b0", "vit_small_patch16_224")


def timm_steps(name: str, batch_size: int, dtype: str, device: torch.device) -> Iterator[float]:
    import timm
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2

    model = timm.create_model(name).to(device).train()
    optimizer = create_optimizer_v2(model, "sgd", lr=0.01, momentum=0.9, weight_decay=2e-5)
    loss_fn = LabelSmoothingCrossEntropy(0.1)
    images, targets = make_batch(batch_size, device)
    while True:
        started = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16) if dtype == "bfloat16" else contextlib.nullcontext():
            loss = loss_fn(model(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
        yield time.perf_counter() - started


class Repeat:
    """A loader of one batch, again and again; notes how long each step took."""

    def __init__(self, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        yield self.batch

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        pass


def mvlib_steps(name: str, batch_size: int, dtype: str, device: torch.device) -> Iterator[float]:
    import mvlib
    from mvlib.loss import LabelSmoothingCrossEntropy
    from mvlib.optim import create_optimizer_v2
    from mvlib.train import StepOptions, TrainState, train_one_epoch
    from mvlib.train.model import prepare_model
    from mvlib.train.precision import autocast_for

    autocast = autocast_for(device, dtype, force=True)[0] if dtype != "float32" else contextlib.nullcontext
    model = prepare_model(mvlib.create_model(name, pretrained=False), device, mixed=dtype != "float32")
    optimizer = create_optimizer_v2(model, "sgd", lr=0.01, momentum=0.9, weight_decay=2e-5)
    state = TrainState(model, optimizer)
    images, targets = make_batch(batch_size, device)
    images = images.contiguous(memory_format=torch.channels_last)  # as mvlib's loader gives them
    loss_fn, loader = LabelSmoothingCrossEntropy(0.1), Repeat((images, targets))
    while True:
        started = time.perf_counter()
        train_one_epoch(state, loader, loss_fn, StepOptions(autocast=autocast))
        yield time.perf_counter() - started


def make_batch(batch_size: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(batch_size, 3, 224, 224, generator=generator).to(device),
            torch.randint(0, 1000, (batch_size,), generator=generator).to(device))


def serve(arguments: argparse.Namespace) -> None:
    """Make a step for each line that comes in, and print its seconds."""
    make = {"timm": timm_steps, "mvlib": mvlib_steps}[arguments.serve]
    steps = make(arguments.models[0], arguments.batch_size, arguments.dtypes[0], torch.device(arguments.device))
    for _ in sys.stdin:
        print(next(steps), flush=True)


def compare(name: str, dtype: str, arguments: argparse.Namespace) -> tuple[float, float]:
    """Median seconds of a step of mvlib and of timm."""
    command = [sys.executable, __file__, "--models", name, "--dtypes", dtype, "--batch-size",
               str(arguments.batch_size), "--device", arguments.device, "--serve"]
    sides = [subprocess.Popen([*command, side], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
             for side in ("mvlib", "timm")]
    seconds: tuple[list[float], list[float]] = ([], [])
    for step in range(arguments.steps + 2):
        for index in (0, 1) if step % 2 else (1, 0):
            sides[index].stdin.write("\n")
            sides[index].stdin.flush()
            took = float(sides[index].stdout.readline())
            if step >= 2:  # the first two warm up
                seconds[index].append(took)
    for side in sides:
        side.stdin.close()
        side.wait()
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--serve", choices=("timm", "mvlib"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return serve(arguments)
    print("| model | type | mvlib images/s | timm images/s | mvlib / timm |\n| --- | --- | --- | --- | --- |")
    ratios = []
    for name in arguments.models:
        for dtype in arguments.dtypes:
            own, peer = compare(name, dtype, arguments)
            ratios.append(peer / own)
            print(f"| {name} | {dtype} | {arguments.batch_size / own:.1f} | {arguments.batch_size / peer:.1f} "
                  f"| {peer / own:.2f} |", flush=True)
    print(f"\ngeometric mean: {math.exp(statistics.fmean(map(math.log, ratios))):.2f}")


if __name__ == "__main__":
    main()
