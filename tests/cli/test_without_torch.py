"""The commands that need no torch, where nothing is installed but numpy, Pillow and the library of an export."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ..inference.test_web import serving
from .command import here as mvlib

ROOT = Path(__file__).parents[2]
NEEDLESS = ("torch", "torchvision", "yaml", "tqdm", "huggingface_hub", "safetensors", "click", "filelock", "pyarrow",
            "timm", "scipy", "matplotlib", "skimage")
ENTRY = f"""if True:
    import sys
    sys.modules.update(dict.fromkeys({NEEDLESS}))  # to Python, they are not installed
    from mvlib.cli import main
    sys.exit(main())
"""


def blocked(*arguments):
    return subprocess.run([sys.executable, "-c", ENTRY, *map(str, arguments)], capture_output=True, text=True)


def check(run, exports, tmp_path):
    """All that an installation without torch answers; `run` runs a command in it."""
    done = run("predict", exports, "--model", exports / "classifier.ov", "--format", "jsonl", "--topk", 2)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"mvlib: not read: {exports}/2.png: not an image in a format that PIL reads",
        "mvlib: 1 of 5 images could not be read"]
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(record["file"]).name for record in records] == ["0.png", "1.png", "3.png", "4.png"]
    expected = mvlib("predict", exports, "--model", f"local-dir:{exports}/repository", "--format", "jsonl", "--topk", 2,
                     "--decode", "reference").stdout.splitlines()
    for record, line in zip(records, expected, strict=True):
        for found, wanted in zip(record["predictions"], json.loads(line)["predictions"], strict=True):
            assert found["class"] == wanted["class"]
            assert found["probability"] == pytest.approx(wanted["probability"], abs=1e-4)

    photograph = exports / "0.png"
    done = run("embed", photograph, "--model", exports / "pooled.ov", "--output", tmp_path / "x.npy")
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "x.npy").shape == (1, 96)
    assert json.loads((tmp_path / "x.json").read_text()) == [str(photograph)]
    command = "predict", photograph, "--output", f"{tmp_path}/parts/", "--model"
    assert run(*command, exports / "classifier.ov").returncode == 0
    done = mvlib(*command, f"local-dir:{exports}/repository", "--backend", "torch")
    assert done.returncode == 2 and "runs the model: openvino before, torch itself now" in done.stderr
    done = run("predict", photograph, "--model", exports / "classifier.ov", "--sheet", tmp_path / "sheet.png")
    assert done.returncode == 0 and (tmp_path / "sheet.png").is_file(), done.stderr
    with serving() as server:
        server.answers["/0.png"] = 200, {}, photograph.read_bytes()
        done = run("predict", server.url("/0.png"), "--model", exports / "classifier.ov", "--allow-local-urls")
        assert done.returncode == 0 and "kind" in done.stdout, done.stderr

    assert "resnet50" in run("list", "resnet*").stdout.splitlines()
    assert "25.56 M" in run("info", "resnet50.imagenet1k_v2").stdout
    assert "swinv2_base_window12" in run("search", "top1>86 license=mit").stdout
    assert run("cache", "path").returncode == 0

    for arguments, message in (
            (["predict", photograph, "--model", "resnet50"], "torch, which runs models, is not installed: pip install "
             "torch torchvision; or name an export, which runs without it: --model FOLDER, of 'mvlib export'"),
            (["validate", exports, "--model", "resnet18"], "this needs the package 'torch', without which mvlib was "
             "installed: pip install mvlib (an export, of 'mvlib export', is run with numpy, Pillow and its own "
             "library)"),
            (["embed", photograph, "--model", exports / "pooled.ov", "--output", tmp_path / "x.parquet"],
             "Parquet files need the package 'pyarrow': pip install pyarrow (or 'mvlib[train]'); --output NAME.npy "
             "does without")):
        done = run(*arguments)
        assert (done.returncode, done.stderr) == (2, f"mvlib: {message}\n")


def test_what_is_not_needed_is_not_imported(exports, tmp_path):
    check(blocked, exports, tmp_path)


@pytest.mark.parametrize(("file", "change", "message"), [
    ("model.bin", lambda data: data[:-1], "is damaged: model.bin is not what was exported"),
    ("model.bin", None, "is damaged: model.bin is missing; export it again"),
    ("config.json", None, "is damaged: config.json is missing; export it again"),
    ("engine.json", lambda data: data[:40], "engine.json is not JSON: "),
    ("config.json", lambda data: data.replace(b'"kind 6"', b'"kind 6", "kind 7"'),
     "config.json: label_names has 8 names, and the engine has 7 classes"),
    ("config.json", lambda data: data.replace(b'"center"', b'"squash"'), "config.json was changed after the export"),
])
def test_damaged_exports(file, change, message, exports, tmp_path):
    path = shutil.copytree(exports / "classifier.ov", tmp_path / "export") / file
    data = path.read_bytes()
    path.unlink()
    if change is not None:
        assert change(data) != data
        path.write_bytes(change(data))
    done = mvlib("predict", exports / "0.png", "--model", tmp_path / "export")
    assert done.returncode == 2 and done.stdout == ""
    assert message in done.stderr and done.stderr.count("\n") == 1


def test_a_fault_of_ours_is_not_taken_for_a_missing_package():
    code = ENTRY.replace("from mvlib.cli import main", "from mvlib.cli import main, list_command\n"
                         "    list_command.run = lambda _: __import__('nowhere')")
    done = subprocess.run([sys.executable, "-c", code, "list"], capture_output=True, text=True)
    assert done.returncode == 1 and "ModuleNotFoundError: No module named 'nowhere'" in done.stderr


@pytest.mark.slow  # installs packages
def test_a_wheel_without_its_dependencies(exports, tmp_path):
    def call(*command):
        subprocess.run([*map(str, command)], check=True, capture_output=True, text=True)

    call(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", tmp_path / "wheels", ROOT)
    call(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    call(python, "-m", "pip", "install", "--no-deps", *(tmp_path / "wheels").glob("mvlib-*.whl"))
    call(python, "-m", "pip", "install", "--no-deps", "openvino", "numpy", "pillow")
    assert subprocess.run([python, "-c", "import torch"], capture_output=True).returncode == 1
    check(lambda *arguments: subprocess.run([python.with_name("mvlib"), *map(str, arguments)], capture_output=True,
                                            text=True, cwd=tmp_path), exports, tmp_path)
