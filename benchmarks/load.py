"""How long and how much memory `create_model` takes from a local safetensors file, against timm, as ratios.

    python benchmarks/load.py [--models resnet50 ...] [--runs 5]

Each run is a fresh interpreter that has imported its library; it times building the model with the file's weights, then
the first logits, and reads how far its peak resident memory grew. mvlib and timm take turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

MODELS = ("resnet50", "vit_large_patch16_224", "swin_base_patch4_window7_224")

RUN = """
import json, resource, sys, time
import torch
library, name, path = sys.argv[1:4]
if library == "mvlib":
    import mvlib, mvlib.factory as _, mvlib.registry
    create = lambda: mvlib.create_model(name, checkpoint_path=path)
    mvlib.registry.model_entrypoint(name)
else:
    import timm
    create = lambda: timm.create_model(name, checkpoint_path=path)
torch.set_num_threads(2)
image = torch.zeros(1, 3, 224, 224)
torch.nn.functional.conv2d(image, torch.zeros(8, 3, 3, 3))  # the math libraries' own start
torch.nn.functional.linear(torch.zeros(8, 64), torch.zeros(64, 64))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
started = time.perf_counter()
model = create()
loaded = time.perf_counter()
after = peak()
with torch.inference_mode():
    model.eval()(image)
done = time.perf_counter()
print(json.dumps({"load": loaded - started, "logits": done - started, "memory": after - before,
                  "memory_logits": peak() - before}))
"""


def run(library: str, name: str, path: Path) -> dict[str, float]:
    """One fresh interpreter's figures: seconds to the model and to its first logits, MiB of peak memory growth."""
    command = [sys.executable, "-c", RUN, library, name, str(path)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def save_weights(name: str, path: Path) -> None:
    """Weights of timm's, as a hub repository holds them; in a process of its own, so that none stays in ours."""
    code = ("import sys, timm; from safetensors.torch import save_file;"
            "save_file(timm.create_model(sys.argv[1]).state_dict(), sys.argv[2], metadata={'format': 'pt'})")
    subprocess.run([sys.executable, "-c", code, name, str(path)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each library")
    arguments = parser.parse_args()
    print("| model | load: mvlib | timm | times faster | to first logits, times faster | peak memory growth: mvlib "
          "| timm | ratio | ratio at first logits |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.models:
            path = Path(folder) / f"{name}.safetensors"
            save_weights(name, path)
            run("mvlib", name, path), run("timm", name, path)  # warm the file cache
            pairs = [(run("mvlib", name, path), run("timm", name, path)) for _ in range(arguments.runs)]
            own, peer = ({key: statistics.median(row[side][key] for row in pairs) for key in pairs[0][0]}
                         for side in (0, 1))
            print(f"| {name} | {own['load'] * 1e3:.0f} ms | {peer['load'] * 1e3:.0f} ms "
                  f"| {peer['load'] / own['load']:.1f} | {peer['logits'] / own['logits']:.1f} "
                  f"| {own['memory']:.0f} MiB | {peer['memory']:.0f} MiB | {own['memory'] / peer['memory']:.2f} "
                  f"| {own['memory_logits'] / peer['memory_logits']:.2f} |",
                  flush=True)
            path.unlink()


if __name__ == "__main__":
    main()
