"""How long and how much memory a model with its weights takes, read and mapped, against timm and torchvision.

    python benchmarks/load.py [--peer timm] [--models resnet50 ...] [--runs 5]
    python benchmarks/load.py --peer torchvision [--models resnet50 vit_l_16]

Each run is a fresh interpreter that has imported its library; it times building the model with the file's weights, then
the first logits, and reads how far its peak resident memory grew. mvlib and its peer take turns. Against timm it is
`create_model` with a local safetensors file; against torchvision, `get_model(name, weights=...)` with a `.pth`
checkpoint, named as torchvision publishes it, that lies in the download cache of both.

There are two roads: a file of the user's (`checkpoint_path`) is read into memory of the model's own; one in a cache of
downloads is mapped, and so is any file with `mmap=True`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

MODELS = {"timm": ("resnet50", "vit_large_patch16_224", "swin_base_patch4_window7_224"),
          "torchvision": ("resnet50", "vit_l_16")}

RUN = """
import json, resource, sys, time
import torch
library, name, path, peer, road = sys.argv[1:6]
if library == "mvlib" and (peer, road) != ("torchvision", "mapped"):
    import mvlib, mvlib.factory as _, mvlib.registry
    create = lambda: mvlib.create_model(name, checkpoint_path=path, mmap=road == "mapped")
    mvlib.registry.model_entrypoint(name)
elif peer == "torchvision":
    url = "https://download.pytorch.org/models/" + path.rpartition("/")[2]
    if library == "mvlib":
        import mvlib.models as models, mvlib.torchvision_models as _, torchvision.models
        weights = models.get_model_weights(name).IMAGENET1K_V1
        weights.value.config = weights.value.config.replace(sources=(url,))
    else:
        import torchvision.models as models
        weights = models.get_model_weights(name).IMAGENET1K_V1
        weights.value.url = url
    create = lambda: models.get_model(name, weights=weights)
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


def run(library: str, name: str, path: Path, peer: str, road: str) -> dict[str, float]:
    """One fresh interpreter's figures: seconds to the model and to its first logits, MiB of peak memory growth."""
    command = [sys.executable, "-c", RUN, library, name, str(path), peer, road]
    environment = {**os.environ, "TORCH_HOME": str(path.parents[2])}
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


SAVE = {
    "timm": "import sys, timm; from safetensors.torch import save_file;"
            "save_file(timm.create_model(sys.argv[1]).state_dict(), sys.argv[2], metadata={'format': 'pt'})",
    "torchvision": "import sys, torch, torchvision;"
                   "torch.save(torchvision.models.get_model(sys.argv[1]).state_dict(), sys.argv[2])",
}


def save_weights(name: str, folder: Path, peer: str) -> Path:
    """The peer's weights, as they are published; in a process of its own, so that none stays in ours."""
    path = folder / f"{name}.{'safetensors' if peer == 'timm' else 'pth'}"
    subprocess.run([sys.executable, "-c", SAVE[peer], name, str(path)], check=True)
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256") if sys.version_info >= (3, 11) else hashlib.sha256(file.read())
    return path.rename(path.with_stem(f"{name}-{digest.hexdigest()[:8]}"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", choices=MODELS, default="timm", help="the library to compare with")
    parser.add_argument("--models", nargs="+", help="names of models")
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each library")
    arguments = parser.parse_args()
    peer_name = arguments.peer
    print(f"| model | weights | load: mvlib | {peer_name} | times faster | to first logits, times faster "
          f"| peak memory growth: mvlib | {peer_name} | ratio | ratio at first logits |\n{'| --- ' * 10}|")
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home, "hub", "checkpoints")  # where TORCH_HOME has downloads
        folder.mkdir(parents=True)
        for name in arguments.models or MODELS[peer_name]:
            path = save_weights(name, folder, peer_name)
            for road in ("read", "mapped"):
                rows = [(run("mvlib", name, path, peer_name, road), run(peer_name, name, path, peer_name, road))
                        for _ in range(arguments.runs + 1)]
                pairs = rows[1:]  # the first ones warm the file cache
                own, peer = ({key: statistics.median(row[side][key] for row in pairs) for key in pairs[0][0]}
                             for side in (0, 1))
                print(f"| {name} | {road} | {own['load'] * 1e3:.0f} ms | {peer['load'] * 1e3:.0f} ms "
                      f"| {peer['load'] / own['load']:.1f} | {peer['logits'] / own['logits']:.1f} "
                      f"| {own['memory']:.0f} MiB | {peer['memory']:.0f} MiB | {own['memory'] / peer['memory']:.2f} "
                      f"| {own['memory_logits'] / peer['memory_logits']:.2f} |",
                      flush=True)
            path.unlink()


if __name__ == "__main__":
    main()
