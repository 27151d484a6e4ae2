"""Photographs to a CSV of classes, as whole processes: `mvlib predict` against what timm's inference.py does, in turn.

    python benchmarks/predict.py [--rounds 5] [--sizes 500x375:256 4000x3000:64] [--precisions float32 bfloat16]

Both run tf_efficientnet_lite0 with the same ImageNet weights over the same JPEGs, cut out of scikit-image's and
scikit-learn's photographs, and write the five likeliest classes of each to a CSV file. timm's side is its script with
its defaults: create_model with a checkpoint, its dataset, loader (2 workers, batches of 256) and prefetcher, inference
mode, softmax, topk, one table. A ratio above 1 means that mvlib is faster. Below each table stand the limits: what
decoding alone would take on all cores, what the multiplications alone would at the machine's measured peak, and what
starting Python with torch takes.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NAME = "tf_efficientnet_lite0"
TOPK = 5


def run_timm(checkpoint: str, folder: str, output: str) -> None:
    """The recipe of timm's inference.py with --topk 5 --results-format csv, on the CPU."""
    import pandas
    import timm
    import torch
    from timm.data import create_dataset, create_loader, resolve_data_config

    model = timm.create_model(NAME, checkpoint_path=checkpoint).eval()
    config = resolve_data_config({}, model=model)
    dataset = create_dataset(root=folder, name="", split="validation", class_map="")
    loader = create_loader(dataset, batch_size=256, use_prefetcher=True, num_workers=2, device=torch.device("cpu"),
                           **config)
    indices, values = [], []
    with torch.inference_mode():
        for images, _ in loader:
            found, index = model(images).softmax(-1).topk(TOPK, dim=1)
            values.append(found.numpy())
            indices.append(index.numpy())
    rows = []
    for row, chosen, found in zip(dataset.filenames(basename=True), _joined(indices), _joined(values)):
        rows.append({"filename": row, **{f"label_{k}": v for k, v in enumerate(chosen)},
                     **{f"prob_{k}": v for k, v in enumerate(found)}})
    pandas.DataFrame(rows).set_index("filename").to_csv(output)


def _joined(parts: list) -> list:
    return [row for part in parts for row in part]


def write_images(folder: Path, size: tuple[int, int], count: int) -> None:
    """JPEGs of this size: parts of real photographs, no two alike."""
    import skimage.data
    import sklearn.datasets
    from PIL import Image

    photographs = [Image.fromarray(getattr(skimage.data, name)()) for name in
                   ("astronaut", "chelsea", "coffee", "rocket")]
    photographs += [Image.fromarray(image) for image in sklearn.datasets.load_sample_images().images]
    draw = random.Random(0)
    folder.mkdir()
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        part = draw.uniform(0.5, 1)
        width = min(photograph.width, photograph.height * size[0] / size[1]) * part
        height = width * size[1] / size[0]
        left, top = draw.uniform(0, photograph.width - width), draw.uniform(0, photograph.height - height)
        image = photograph.resize(size, Image.Resampling.BICUBIC, (left, top, left + width, top + height))
        if number % 2:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        image.save(folder / f"{number:03d}.jpg", quality=90)


def seconds(command: list[str]) -> float:
    """Wall-clock seconds of one fresh process."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return time.perf_counter() - started


def top1(path: Path) -> dict[str, int]:
    """{file name: number of the likeliest class}, of either side's CSV."""
    with open(path, newline="") as stream:
        rows = list(csv.DictReader(stream))
    if "rank" in rows[0]:
        return {os.path.basename(row["file"]): int(row["index"]) for row in rows if row["rank"] == "1"}
    return {row["filename"]: int(row["label_0"]) for row in rows}


def changes(found: dict[str, int], expected: dict[str, int]) -> int:
    """How many images have another likeliest class."""
    return sum(found[name] != index for name, index in expected.items())


def limits(folder: Path, count: int) -> dict[str, float]:
    """Seconds that decoding, arithmetic and starting would take if nothing else took any."""
    code = """if True:
        import json, sys, time, torch
        from pathlib import Path
        sys.path.insert(0, sys.argv[2])
        from optimize import peak
        from mvlib.costs import read_stats
        from mvlib.data.jpeg import read_jpeg
        from mvlib.data.torch_jpeg import decode_jpeg
        threads, paths = torch.get_num_threads(), sorted(Path(sys.argv[1]).iterdir())
        speed = peak(torch.float32)
        torch.set_num_threads(1)
        decode_jpeg(*read_jpeg(paths[0]))
        started = time.perf_counter()
        for path in paths:
            decode_jpeg(*read_jpeg(path))
        decoding = (time.perf_counter() - started) / threads
        print(json.dumps([decoding, 2e9 * read_stats()["tf_efficientnet_lite0"]["gmacs"] * len(paths) / speed]))
    """
    done = subprocess.run([sys.executable, "-c", code, str(folder), str(Path(__file__).parent)], capture_output=True,
                          text=True, check=True)
    decoding, arithmetic = json.loads(done.stdout)
    return {"decoding": decoding, "arithmetic": arithmetic, "import torch": seconds(["-c", "import torch"])}


def compare(size: tuple[int, int], count: int, arguments: argparse.Namespace, root: Path, checkpoint: Path) -> None:
    folder = root / f"{size[0]}x{size[1]}"
    write_images(folder, size, count)
    output = {}
    commands = {"timm": [__file__, "--peer", str(checkpoint), str(folder), str(root / "timm.csv")]}
    for precision in arguments.precisions:
        for decode in arguments.decode:
            side = f"{precision}, {decode} decoding"
            output[side] = root / f"{precision}-{decode}.csv"
            commands[side] = ["-m", "mvlib", "predict", str(folder), "--precision", precision, "--decode", decode,
                              "--backend", arguments.backend, "--topk", str(TOPK), "--output", str(output[side])]
    times: dict[str, list[float]] = {side: [] for side in commands}
    for number in range(arguments.rounds + 1):
        for side in list(commands) if number % 2 else list(commands)[::-1]:
            elapsed = seconds(commands[side])
            if number:  # the first fills the file cache
                times[side].append(elapsed)
    peer, expected = statistics.median(times["timm"]), top1(root / "timm.csv")
    print(f"{count} photographs of {size[0]} x {size[1]}: timm {peer:.2f} s\n\n"
          "| mvlib predict | whole process | times faster | pairs, least to most | same top-1 as timm "
          "| changed by scaled decoding |\n| --- | --- | --- | --- | --- | --- |")
    for side, path in output.items():
        found = top1(path)
        same = 1 - changes(found, expected) / len(expected)
        full = side.replace("scaled", "full")
        changed = changes(found, top1(output[full])) if full in output and full != side else ""
        pairs = [a / b for a, b in zip(times["timm"], times[side])]
        print(f"| {side} | {statistics.median(times[side]):.2f} s | {peer / statistics.median(times[side]):.2f} | "
              f"{min(pairs):.2f} to {max(pairs):.2f} | {same:.1%} | {changed} |")
    found = limits(folder, count)
    print("\nlimits: " + ", ".join(f"{what} {value:.2f} s" for what, value in found.items()) + "\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", nargs="+", default=["500x375:256", "4000x3000:64"], metavar="WxH:COUNT")
    parser.add_argument("--precisions", nargs="+", help="default: float32, and bfloat16 where the CPU has it")
    parser.add_argument("--decode", nargs="+", default=["full", "scaled"])
    parser.add_argument("--backend", default="torch", help="of mvlib (default: %(default)s; engines.py has the others)")
    parser.add_argument("--peer", nargs=3, metavar=("CHECKPOINT", "FOLDER", "OUTPUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        return run_timm(*arguments.peer)
    import torch
    from safetensors.torch import save_file

    import mvlib
    from mvlib.optimization import supported_dtypes

    if arguments.precisions is None:
        known = supported_dtypes(torch.device("cpu"))
        arguments.precisions = ["float32", *(["bfloat16"] if torch.bfloat16 in known else [])]
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "weights.safetensors"
        save_file(mvlib.create_model(f"{NAME}.pip_in1k").state_dict(), checkpoint)
        for item in arguments.sizes:
            size, _, count = item.partition(":")
            width, _, height = size.partition("x")
            compare((int(width), int(height)), int(count), arguments, Path(folder), checkpoint)


if __name__ == "__main__":
    main()
