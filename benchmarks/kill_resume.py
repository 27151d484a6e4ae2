"""kill -9 at a random step, then --resume: is the end the same, bit for bit?

    python benchmarks/kill_resume.py [--kills 10]

One run with averaged weights, mixup, CutMix, random erasing, RandAugment, dropout and 2 workers is left alone. The
others, with the same arguments, are killed at a moment of chance (SIGKILL to the whole process group), resumed, and
compared with it: weights, averaged weights, optimizer and schedule.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from mvlib.train import newest_checkpoint

FLAGS = ("--model test_resnet --img-size 32 -b 16 --epochs 4 --lr 0.05 --warmup-epochs 1 --model-ema --model-ema-decay "
         "0.99 --mixup 0.2 --cutmix 1.0 --reprob 0.4 --aa rand-m9-mstd0.5-inc1 --drop 0.1 -j 2 --recovery-interval 10 "
         "--no-export").split()


def start(data: Path, output: Path, name: str, *flags: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "mvlib", "train", str(data), *FLAGS, "--output", str(output), "--experiment", name]
    return subprocess.Popen([*command, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                            start_new_session=True)


def equal(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        data, output = Path(folder, "digits"), Path(folder, "runs")
        subprocess.run([sys.executable, str(Path(__file__).parents[1] / "scripts/make_demo_data.py"), "digits",
                        str(data)],
                       check=True, stdout=subprocess.DEVNULL)
        started = time.perf_counter()
        start(data, output, "whole").wait()
        length = time.perf_counter() - started
        whole = newest_checkpoint(output / "whole")[1]
        print(f"uninterrupted: {whole['updates']} updates in {length:.0f} s\n")
        print("| killed after | found | updates done | equal |\n| --- | --- | --- | --- |")
        good = 0
        for number in range(arguments.kills):
            name = f"killed-{number}"
            process = start(data, output, name)
            moment = chance.uniform(0.25, 0.95) * length
            time.sleep(moment)
            ended = process.poll() is not None
            if not ended:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            found = newest_checkpoint(output / name) if (output / name).exists() else None
            start(data, output, name, "--resume").wait()
            resumed = newest_checkpoint(output / name)[1]
            same = all(equal(whole[key], resumed[key]) for key in (
                "state_dict", "state_dict_ema", "optimizer", "scheduler", "updates", "epoch"))
            good += same
            print(f"| {'(it had ended)' if ended else f'{moment:.1f} s'} | {found[0].name if found else 'nothing'} "
                  f"| {found[1]['updates'] if found else 0} | {'yes' if same else 'NO'} |", flush=True)
        print(f"\n{good} of {arguments.kills} equal")
        sys.exit(good != arguments.kills)


if __name__ == "__main__":
    main()
