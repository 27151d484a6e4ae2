"""Engines against timm and torch alone, each row interleaved with its peer in one run, as ratios of medians. Markdown.

    python benchmarks/engines.py [--rows start photographs forward tensorflow first validate] [--rounds 5] [--short]

start        whole process, one photograph, engine in the cache, against timm's recipe (predict.py) and `import torch`
photographs  whole process, photographs of 500 x 375, engine in the cache and an int8 export, against the same recipe
forward      batch 16: torch's and OpenVINO's float32 with the share of the measured peak, and int8, against timm eager
tensorflow   the same for TensorFlow's padding
first        the first use of a model, with the conversion behind it, against the same without engines
validate     `mvlib validate` by OpenVINO in float32 and int8, against the recipe of timm's validate.py (validate.py)

A ratio above 1 means that mvlib is faster. "load" is what a fixed work took between the runs over the least that it
ever took, on average: 1.0 on an idle machine; figures with much more are not the machine's. Models without weights that
need no network are given a classifier that tells the photographs apart, so that agreement between int8 and float32
means something.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from optimize import MODELS, Peer, images, peak
from optimize import seconds as forward_seconds
from predict import NAME, TOPK, changes, limits, top1, write_images
from predict import seconds as process_seconds
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import mvlib
from mvlib.benchmark import calibration, describe_machine, machine_line

WEIGHTS = f"{NAME}.pip_in1k"
PREDICT = str(Path(__file__).with_name("predict.py"))
VALIDATE = str(Path(__file__).with_name("validate.py"))
CLASSES = 6  # the photographs that images are cut out of
BATCH = 16


def take_turns(sides: dict[str, Callable[[], float]], rounds: int, warm: bool = True) -> tuple[dict[str, float], float]:
    """Median seconds of each side, whose runs take turns in changing order, and the load meanwhile."""
    work, times = calibration(torch.device("cpu")), {side: [] for side in sides}
    loads = []
    for number in range(rounds + warm):
        for side in list(sides) if number % 2 else list(sides)[::-1]:
            elapsed = sides[side]()
            if number or not warm:  # the first fills caches
                times[side].append(elapsed)
                loads.append(work.measure())
    return {side: statistics.median(values) for side, values in times.items()}, statistics.fmean(loads)


def print_table(title: str, heads: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    heads = list(heads)
    print(f"\n{title}\n\n| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |", flush=True)


def mean(values: Iterable[float]) -> float:
    """Geometric."""
    return math.exp(statistics.fmean(map(math.log, values)))


class Place:
    """A folder with what the rows share, each made when it is first asked for."""

    def __init__(self, folder: Path, arguments: argparse.Namespace) -> None:
        self.folder, self.arguments = folder, arguments
        self.rounds = arguments.rounds
        os.environ["MVLIB_CACHE"] = str(folder / "cache")

    def photographs(self, count: int) -> Path:
        folder = self.folder / f"photographs{count}"
        if not folder.exists():
            write_images(folder, (500, 375), count)
        return folder

    def checkpoint(self) -> Path:
        """The weights as timm's recipe reads them."""
        from safetensors.torch import save_file

        path = self.folder / "weights.safetensors"
        if not path.exists():
            save_file(mvlib.create_model(WEIGHTS).state_dict(), path)
        return path

    def int8(self, name: str) -> Path:
        """An int8 export; kept where --keep says, as quantizing takes a minute or two."""
        folder = Path(self.arguments.keep or self.folder) / f"{name}-int8.ov"
        if not folder.exists():
            print(f"quantizing {name}", file=sys.stderr, flush=True)
            model = mvlib.create_model(WEIGHTS) if name == NAME else self.telling(name)
            mvlib.export(model, folder, format="openvino", precision="int8", calibrate=self.photographs(96),
                         calibrate_count=64, force=True)
        return folder

    def telling(self, name: str) -> nn.Module:
        """A model with random weights, but for a classifier that tells which photograph an image is cut out of; an
        EfficientNet-B0 with the convolutions of its relative that has weights, for what a deep network of SiLUs makes
        at random hardly depends on the image."""
        from mvlib.data.images import open_image

        torch.manual_seed(0)
        model = mvlib.create_model(name, pretrained=False, num_classes=CLASSES)
        if name.endswith("efficientnet_b0"):
            own = model.state_dict()
            model.load_state_dict({key: value for key, value in mvlib.create_model(WEIGHTS).state_dict().items()
                                   if key in own and own[key].shape == value.shape}, strict=False)
        transform = mvlib.create_transform(**mvlib.resolve_data_config(model=model))
        paths = sorted(self.photographs(96).iterdir())
        pictures = torch.stack([transform(open_image(path, "RGB")) for path in paths])
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = None  # the plain average
        with torch.no_grad():
            model.train(bool(norms))
            for batch in pictures[:32].split(16):
                model(batch)
            model.eval()
            features = torch.cat([model.forward_head(model.forward_features(batch), pre_logits=True)
                                  for batch in pictures.split(16)])
            centred = (features - features.mean(0)).double()
            scale = centred.std() + 1e-12
            labels = nn.functional.one_hot(torch.arange(len(paths)) % CLASSES, CLASSES).double() - 1 / CLASSES
            kernel = centred @ centred.T / scale ** 2
            weight = (torch.linalg.solve(kernel + kernel.trace() / len(paths) * 1e-2 * torch.eye(len(paths)), labels).T
                      @ centred / scale ** 2).float()
            head = model.get_classifier()
            head.weight.copy_(weight)
            head.bias.copy_(-weight @ features.mean(0))
        return model


def timm_recipe(place: Place, folder: Path, output: Path) -> Callable[[], float]:
    return lambda: process_seconds([PREDICT, "--peer", str(place.checkpoint()), str(folder), str(output)])


def predict(folder: Path, output: Path, *flags: str, model: str = WEIGHTS) -> Callable[[], float]:
    return lambda: process_seconds(["-m", "mvlib", "predict", str(folder), "--model", model, "--topk", str(TOPK),
                                    "--output", str(output), *flags])


def run_start(place: Place) -> None:
    folder = place.photographs(1)
    place.checkpoint()
    predict(folder, place.folder / "own.csv")()  # which prepares the engine
    found, load = take_turns({
        "mvlib": predict(folder, place.folder / "own.csv"),
        "timm": timm_recipe(place, folder, place.folder / "timm.csv"),
        "import torch": lambda: process_seconds(["-c", "import torch"])}, place.rounds)
    same = changes(top1(place.folder / "own.csv"), top1(place.folder / "timm.csv")) == 0
    heads = ("mvlib predict", "timm's recipe", "times faster", "import torch alone", "times faster", "same top-1",
             "load")
    print_table(f"Whole process, one photograph, {NAME}, engine in the cache", heads, [(
            f"{found['mvlib']:.2f} s", f"{found['timm']:.2f} s", f"**{found['timm'] / found['mvlib']:.1f}**",
            f"{found['import torch']:.2f} s", f"**{found['import torch'] / found['mvlib']:.1f}**", same,
            f"{load:.2f}")])


def run_photographs(place: Place) -> None:
    count = place.arguments.images
    folder = place.photographs(count)
    outputs = {side: place.folder / f"{side}.csv" for side in ("timm", "torch", "float32", "int8")}
    int8 = str(place.int8(NAME))
    place.checkpoint()
    predict(place.photographs(1), outputs["float32"])()
    found, load = take_turns({
        "timm": timm_recipe(place, folder, outputs["timm"]),
        "torch": predict(folder, outputs["torch"], "--backend", "torch"),
        "float32": predict(folder, outputs["float32"]),
        "int8": predict(folder, outputs["int8"], model=int8)}, place.rounds)
    expected = top1(outputs["timm"])
    rows = [(side, f"{found[side]:.2f} s", f"**{found['timm'] / found[side]:.2f}**",
             f"{1 - changes(top1(outputs[side]), expected) / len(expected):.1%}", f"{load:.2f}")
            for side in ("torch", "float32", "int8")]
    heads = ("mvlib predict", "whole process", "times faster", "same top-1 as timm", "load")
    print_table(f"Whole process, {count} photographs of 500 x 375, {NAME}, engine in the cache: "
                f"timm {found['timm']:.2f} s", heads, rows)
    print("\nlimits: " + ", ".join(f"{what} {value:.2f} s" for what, value in limits(folder, count).items()))


def run_forward(place: Place, names: Iterable[str] | None = None, int8: bool = True) -> None:
    from mvlib.engines import EngineModule, read_export

    speed, batch = peak(torch.float32), images(BATCH)
    peer = Peer(BATCH, torch.get_num_threads())
    rows, ratios = [], {"torch": [], "float32": [], "int8": []}
    for name in names or place.arguments.models:
        peer.ask(name)
        torch.manual_seed(0)
        model = mvlib.create_model(name, pretrained=False).eval()
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            model(batch[:1])
        work = counter.get_total_flops() * BATCH
        runs = {"torch": mvlib.optimize(model, batch)[0],
                "openvino": mvlib.optimize(model, batch, backend="openvino")[0]}
        agreement = ""
        if int8:
            export = read_export(place.int8(name))
            runs["int8"], agreement = EngineModule(export), f"{export.measured['agreement']:.1%}"
        found, load = take_turns({"timm": lambda: float(peer.ask()), **{
            side: (lambda run=run: forward_seconds(run, batch)) for side, run in runs.items()}}, place.rounds)
        best, speed = min(found["torch"], found["openvino"]), max(speed, peak(torch.float32))
        ratios["torch"].append(found["timm"] / found["torch"])
        ratios["float32"].append(found["timm"] / best)
        row = [name, f"{found['timm'] * 1e3:.0f} ms", f"{found['timm'] / found['torch']:.2f}",
               f"{found['timm'] / found['openvino']:.2f}", f"**{found['timm'] / best:.2f}**",
               f"{work / speed / best:.0%}"]
        if int8:
            ratios["int8"].append(found["timm"] / found["int8"])
            row += [f"**{found['timm'] / found['int8']:.2f}**", agreement]
        rows.append([*row, f"{load:.2f}"])
        del model, runs
    peer.close()
    heads = ["model", "timm eager", "mvlib.optimize", "OpenVINO float32", "best in float32", "of the peak"]
    print_table(f"Forward, batch {BATCH}, times faster than timm eager ({torch.get_num_threads()} threads, measured "
                f"peak {speed / 1e9:.0f} GFLOP/s in float32)",
                [*heads, *(["OpenVINO int8", "agreement"] if int8 else []), "load"], rows)
    print("\ngeometric means: " + ", ".join(f"{what} {mean(values):.2f}" for what, values in ratios.items() if values))


def run_tensorflow(place: Place) -> None:
    run_forward(place, ("tf_efficientnet_lite0", "tf_efficientnet_b0"), int8=False)


def run_first(place: Place) -> None:
    folder, said, times = place.photographs(1), [], {"without": [], "with": []}
    work, loads = calibration(torch.device("cpu")), []

    def run(*flags: str) -> tuple[float, str]:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as cache:
            done = subprocess.run(
                [sys.executable, "-m", "mvlib", "predict", str(folder), "--model", WEIGHTS, "--output",
                 str(place.folder / "first.csv"), *flags], capture_output=True, text=True,
                env={**os.environ, "MVLIB_CACHE": cache})
        if done.returncode:
            raise SystemExit(done.stderr)
        return time.perf_counter() - started, done.stderr

    for number in range(place.rounds + 1):
        for side in list(times) if number % 2 else list(times)[::-1]:
            elapsed, text = run(*(["--backend", "torch"] if side == "without" else []))
            if number:
                times[side].append(elapsed)
                loads.append(work.measure())
                if side == "with":
                    line = re.search(r"prepared for next time: ([0-9.]+) s", text)
                    if line is None:
                        raise SystemExit(f"no engine was prepared:\n{text}")
                    said.append(float(line[1]))
    without, own, line = (statistics.median(values) for values in (times["without"], times["with"], said))
    print_table(f"First use of a model, one photograph, {NAME}", (
        "--backend torch", "auto, with conversion", "longer by", "the line says", "load"), [(
            f"{without:.2f} s", f"{own:.2f} s", f"{own - without:.2f} s", f"{line:.2f} s",
            f"{statistics.fmean(loads):.2f}")])


def run_validate(place: Place) -> None:
    from loader import write_images as write_classes

    name, count = "resnet50", place.arguments.images
    data = place.folder / "classes"
    if not data.exists():
        data.mkdir()
        write_classes(data, count)
    results = place.folder / "validate.json"
    int8 = Path(place.arguments.keep or place.folder) / f"{name}-2-int8.ov"
    if not int8.exists():
        torch.manual_seed(0)
        mvlib.export(mvlib.create_model(name, pretrained=False, num_classes=2), int8, format="openvino",
                     precision="int8", calibrate=data, calibrate_count=64, force=True)
    random = ("--model", name, "--no-pretrained", "--num-classes", "2")
    sides = {"torch": random, "float32": (*random, "--backend", "openvino"), "int8": ("--model", str(int8))}

    def own(flags: Iterable[str]) -> float:
        """Seconds an image, by the loader's clock, as validate.py measures both sides."""
        subprocess.run([sys.executable, "-m", "mvlib", "validate", str(data), *flags, "-b", "32", "-j", "2",
                        "--results-file", str(results)], check=True, capture_output=True)
        return 1 / json.loads(results.read_text())[0]["images_per_second"]

    def timm() -> float:
        done = subprocess.run([sys.executable, VALIDATE, "--batch-size", "32", "--workers", "2", "--peer", name,
                               str(data)], check=True, capture_output=True, text=True)
        return 1 / float(done.stdout.split()[-1])

    found, load = take_turns({"timm": timm, **{
        side: (lambda flags=flags: own(flags)) for side, flags in sides.items()}}, place.rounds)
    print_table(f"`mvlib validate` of {name}, {count} JPEGs of 500 x 375, batches of 32, 2 workers: timm "
                f"{1 / found['timm']:.1f} images/s", ("mvlib validate", "images/s", "times faster", "load"), [
                    (side, f"{1 / found[side]:.1f}", f"**{found['timm'] / found[side]:.2f}**", f"{load:.2f}")
                    for side in sides])


ROWS = {"start": run_start, "photographs": run_photographs, "forward": run_forward, "tensorflow": run_tensorflow,
        "first": run_first, "validate": run_validate}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="+", choices=tuple(ROWS), default=list(ROWS))
    parser.add_argument("--models", nargs="+", default=MODELS, help="of the row `forward`")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--short", action="store_true", help="one round of few images: does it work?")
    parser.add_argument("--keep", metavar="FOLDER", help="keep int8 exports here, and use those that are here")
    arguments = parser.parse_args()
    if arguments.short:
        arguments.rounds, arguments.images = 1, 32
    print(machine_line(describe_machine("cpu")), flush=True)
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder), arguments)
        for row in arguments.rows:
            try:
                ROWS[row](place)
            except (Exception, SystemExit) as error:  # the other rows are to be measured all the same
                failed.append(f"{row}: {type(error).__name__}: {error}")
                print(f"\n{failed[-1]}", file=sys.stderr, flush=True)
    sys.exit("\n".join(["failed:", *failed]) if failed else 0)


if __name__ == "__main__":
    main()
