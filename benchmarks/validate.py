"""Validation end to end, images a second, against timm's: whole processes that take turns, as ratios of medians.

    python benchmarks/validate.py [--models resnet50 ...] [--images 256] [--batch-size 32] [--rounds 3]

timm's side is what its validate.py does: create_model, its loader with prefetcher, inference mode, top-1 and top-5.
mvlib's side is `mvlib validate`. The same JPEGs of 500 x 375 pixels, random weights, 2 workers; both clocks run from
the loader's start to the last batch, with waking the workers. A ratio above 1 means that mvlib is faster.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODELS = ("resnet50", "efficientnet_b0", "vit_small_patch16_224")


def run_timm(name: str, folder: str, batch_size: int, workers: int) -> float:
    import timm
    import torch
    from timm.data import create_dataset, create_loader, resolve_data_config
    from timm.utils import accuracy

    model = timm.create_model(name, num_classes=2).eval()
    config = resolve_data_config({}, model=model, use_test_size=True)
    dataset = create_dataset("", root=folder)
    loader = create_loader(
        dataset, input_size=config["input_size"], batch_size=batch_size, interpolation=config["interpolation"],
        mean=config["mean"], std=config["std"], num_workers=workers, crop_pct=config["crop_pct"],
        crop_mode=config["crop_mode"], device=torch.device("cpu"))
    loss_fn = torch.nn.CrossEntropyLoss()
    count, started = 0, time.perf_counter()
    with torch.inference_mode():
        for images, targets in loader:
            outputs = model(images)
            loss_fn(outputs, targets).item()
            accuracy(outputs, targets, topk=(1, 2))
            count += len(images)
    return count / (time.perf_counter() - started)


def run_mvlib(name: str, folder: str, batch_size: int, workers: int) -> float:
    with tempfile.NamedTemporaryFile(suffix=".json") as results:
        subprocess.run([sys.executable, "-m", "mvlib", "validate", folder, "--model", name, "--no-pretrained",
                        "--num-classes", "2", "-b", str(batch_size), "-j", str(workers), "--results-file",
                        results.name], check=True, capture_output=True)
        return json.loads(Path(results.name).read_text())[0]["images_per_second"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", nargs=2, metavar=("MODEL", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        return print(run_timm(*arguments.peer, arguments.batch_size, arguments.workers))
    from loader import write_images

    ratios = []
    print("| model | mvlib images/s | timm images/s | mvlib / timm |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), arguments.images)
        for name in arguments.models:
            speeds: tuple[list[float], list[float]] = ([], [])
            for number in range(arguments.rounds):
                for side in (0, 1) if number % 2 else (1, 0):
                    if side == 0:
                        speed = run_mvlib(name, folder, arguments.batch_size, arguments.workers)
                    else:
                        command = [sys.executable, __file__, "--batch-size", str(arguments.batch_size), "--workers",
                                   str(arguments.workers), "--peer", name, folder]
                        done = subprocess.run(command, check=True, capture_output=True, text=True)
                        speed = float(done.stdout.split()[-1])
                    speeds[side].append(speed)
            own, peer = map(statistics.median, speeds)
            ratios.append(own / peer)
            print(f"| {name} | {own:.1f} | {peer:.1f} | {own / peer:.2f} |", flush=True)
    print(f"\ngeometric mean: {math.exp(statistics.fmean(map(math.log, ratios))):.2f}")


if __name__ == "__main__":
    main()
