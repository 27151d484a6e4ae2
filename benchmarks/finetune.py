"""Are `mvlib finetune`'s defaults as good as the best flags that were set by hand? Accuracy on pictures held out.

    python benchmarks/finetune.py [--seeds 3] [--sets textures ...] [--configs "defaults" ...] [--work FOLDER]

Three sets of four classes (scripts/make_demo_data.py), 32 pictures a class to train on, 8 to choose the epoch by, 60 to
measure: textures and scenes from other halves of the photographs than those of training. All runs see the same pictures
in the same split, at the same size, and as many times, unless a row says otherwise. Each row is what a person may set
over the defaults; "as timm's train.py" has that script's own defaults for all but the model, batch size and epochs.

Hours on two cores: what was measured is kept in FOLDER/results.jsonl, and the same command goes on with the rest.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from mvlib.train import finetune

SETS = ("textures", "scenes", "lookalikes")
SIDE = 96  # of the images: the model's own 224 would take five times as long, and the pictures have 8 to 64
TIMM = dict(opt="sgd", lr_base=0.1, weight_decay=2e-5, head_init_scale=None, scale=[0.08, 1.0], color_jitter=0.4,
            sched_on_updates=False, warmup_epochs=5)
HALF = dict(epochs=0.5)  # a factor; hours, instead of days, for all that follow
CONFIGS: dict[str, dict] = {
    "defaults": {},
    "as timm's train.py": TIMM,
    "twice the epochs": dict(epochs=2),
    "no flip": dict(hflip=0.0),
    "half the epochs": HALF,
    "as timm's train.py, half the epochs": {**TIMM, **HALF},
    "half the epochs, lr 0.0005": dict(HALF, lr=5e-4),
    "half the epochs, lr 0.002": dict(HALF, lr=2e-3),
    "half the epochs, sgd, lr 0.02": dict(HALF, opt="sgd", lr=0.02, weight_decay=1e-4),
    "half the epochs, stem and 3 stages frozen": dict(HALF, freeze_stages=3),
    "half the epochs, no augmentation": dict(HALF, no_aug=True),
    "half the epochs, crops from 25%": dict(HALF, scale=[0.25, 1.0]),
    "half the epochs, no flip": dict(HALF, hflip=0.0),
    "half the epochs, best by loss": dict(HALF, eval_metric="loss"),
    "half the epochs, batches of 8": dict(HALF, batch_size=8),
    "half the epochs, lr 0.002, crops from 25%": dict(HALF, lr=2e-3, scale=[0.25, 1.0]),
    "half the epochs, lr 0.002, no flip": dict(HALF, lr=2e-3, hflip=0.0),
    "half the epochs, lr 0.002, no label smoothing": dict(HALF, lr=2e-3, smoothing=0.0),
    "half the epochs, lr 0.002, averaged weights": dict(HALF, lr=2e-3, model_ema=True, model_ema_decay=0.9),
}


def measure(data: Path, work: Path, name: str, seed: int) -> dict:
    config = dict(CONFIGS[name])
    if "epochs" in config:
        config["epochs"] = round(config["epochs"] * default_epochs(data, work))
    started = time.perf_counter()
    found = finetune(data, output=work / "runs", experiment=f"{data.name}-{name}-{seed}".replace(" ", "_"),
                     img_size=SIDE, workers=0, seed=seed, **config)
    seconds = time.perf_counter() - started
    if found.status:
        sys.exit(found.status)
    for path in found.folder.glob("*.pth.tar"):
        path.unlink()
    return {"set": data.name, "config": name, "seed": seed, **found.accuracy, "seconds": round(seconds)}


def default_epochs(data: Path, work: Path) -> int:
    from mvlib.train.fine_tuning import plan

    return plan(data, {"img_size": SIDE, "output": str(work / "plans")}).args.epochs


def table(rows: list[dict]) -> str:
    lines = [f"| flags over the defaults | {' | '.join(SETS)} | mean | seeds |",
             "| --- |" + " ---: |" * (len(SETS) + 2)]
    for name in CONFIGS:
        cells = [[row["test"] for row in rows if (row["set"], row["config"]) == (data, name)] for data in SETS]
        if not any(cells):
            continue
        means = [statistics.mean(cell) if cell else None for cell in cells]
        known = [mean for mean in means if mean is not None]
        mean = f"{statistics.mean(known):.1f}%" if len(known) == len(SETS) else ""
        seeds = "/".join(str(len(cell)) for cell in cells)
        lines.append(f"| {name} | {' | '.join('' if m is None else f'{m:.1f}%' for m in means)} | {mean} | {seeds} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--configs", nargs="+", choices=tuple(CONFIGS), default=tuple(CONFIGS))
    parser.add_argument("--work", type=Path, default=Path("output/benchmark-finetune"))
    arguments = parser.parse_args()
    results = arguments.work / "results.jsonl"
    for seed in range(arguments.seeds):
        for name in arguments.configs:
            for kind in arguments.sets:
                data = arguments.work / kind
                if not data.exists():
                    script = Path(__file__).parents[1] / "scripts/make_demo_data.py"
                    subprocess.run([sys.executable, str(script), kind, str(data)], check=True)
                rows = read(results)
                if any((row["set"], row["config"], row["seed"]) == (kind, name, seed) for row in rows):
                    continue
                row = measure(data, arguments.work, name, seed)
                with open(results, "a") as stream:
                    stream.write(json.dumps(row) + "\n")
                print(row, flush=True)
    print(table(read(results)))


def read(results: Path) -> list[dict]:
    return [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []


if __name__ == "__main__":
    main()
