"""`mvlib predict`, as a user runs it: processes, real photographs, real weights."""

import contextlib
import csv
import fcntl
import io
import json
import os
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
import skimage
from PIL import Image

PHOTOS = Path(skimage.__file__).parent / "data"


def mvlib(*arguments, stdin=None):
    return subprocess.run([sys.executable, "-m", "mvlib", *map(str, arguments)], capture_output=True, text=True,
                          input=stdin)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photographs among files that are none, in nested folders."""
    root = tmp_path_factory.mktemp("photos")
    (root / "a" / "b").mkdir(parents=True)
    Image.open(PHOTOS / "chelsea.png").save(root / "cat.jpg", quality=95)
    Image.open(PHOTOS / "coffee.png").save(root / "a" / "b" / "coffee.webp", quality=95)
    rotated = Image.open(PHOTOS / "chelsea.png").rotate(90, expand=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn 90 degrees clockwise to view
    rotated.save(root / "a" / "rotated.jpg", quality=95, exif=exif)
    (root / "empty.jpg").touch()
    (root / "a" / "text.jpg").write_text("not a photograph")
    data = (root / "cat.jpg").read_bytes()
    (root / "cut.jpg").write_bytes(data[:len(data) // 2])
    return root


def test_a_cat_is_a_cat_and_a_coffee_an_espresso():
    done = mvlib("predict", PHOTOS / "chelsea.png", PHOTOS / "coffee.png", "--format", "json", "--topk", 3)
    assert done.returncode == 0, done.stderr
    cat, coffee = json.loads(done.stdout)
    assert cat["predictions"][0]["class"] in ("Egyptian cat", "tabby", "tiger cat")
    assert coffee["predictions"][0]["class"] == "espresso"
    assert len(cat["predictions"]) == 3


def test_the_demo_agrees_with_timm_with_the_same_weights():
    import timm
    import torch

    import mvlib as library

    model = library.create_model("tf_efficientnet_lite0.pip_in1k").eval()
    peer = timm.create_model("tf_efficientnet_lite0").eval()
    peer.load_state_dict(model.state_dict())
    config = library.resolve_data_config(model=model)
    transform = timm.data.create_transform(**config)
    done = mvlib("predict", PHOTOS / "chelsea.png", PHOTOS / "coffee.png", "--format", "jsonl")
    for line in done.stdout.splitlines():
        record = json.loads(line)
        image = Image.open(record["file"]).convert("RGB")
        with torch.no_grad():
            probabilities = peer(transform(image)[None]).softmax(-1)[0]
        for prediction in record["predictions"]:
            assert abs(prediction["probability"] - probabilities[prediction["index"]].item()) < 1e-3


def test_a_folder_with_bad_files_delivers_the_others_and_exits_1(folder):
    done = mvlib("predict", folder, "--format", "jsonl")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert {Path(r["file"]).name for r in records} == {"cat.jpg", "coffee.webp", "rotated.jpg"}
    assert done.returncode == 1
    report = done.stderr.strip().splitlines()
    assert report[-1] == "mvlib: 3 of 6 images could not be read"
    assert {Path(line.split(": ")[2]).name for line in report[:-1]} == {"empty.jpg", "text.jpg", "cut.jpg"}
    assert all(len(line.split(": ", 3)) == 4 for line in report[:-1])  # each with its reason


def test_orientation_is_applied(folder):
    done = mvlib("predict", folder / "cat.jpg", folder / "a" / "rotated.jpg", "--format", "json")
    upright, rotated = ({p["class"]: p["probability"] for p in record["predictions"]}
                        for record in json.loads(done.stdout))
    for name in ("tiger cat", "Egyptian cat", "tabby"):  # the second file was compressed another way up
        assert abs(upright[name] - rotated[name]) < 0.05


def test_a_list_on_standard_input(folder):
    done = mvlib("predict", "-", "--format", "csv", "--topk", 2, stdin=f"{folder}/cat.jpg\n\n{folder}/a/rotated.jpg\n")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["rank"] for row in rows] == ["1", "2", "1", "2"]
    assert done.returncode == 0


def test_a_table_and_no_progress_bar_in_a_pipe(folder):
    done = mvlib("predict", folder / "cat.jpg")
    assert done.stdout.splitlines()[0] == str(folder / "cat.jpg")
    assert "%  " in done.stdout.splitlines()[1]
    assert not done.stderr


def test_a_progress_bar_on_a_terminal(folder):
    pty = pytest.importorskip("pty")
    reader, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    done = subprocess.run([sys.executable, "-m", "mvlib", "predict", folder / "cat.jpg", "--format", "jsonl"],
                          stdout=subprocess.PIPE, stderr=terminal, text=True)
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # the end of a terminal's output
        while chunk := os.read(reader, 4096):
            shown += chunk
    assert b"1/1" in shown and b"image" in shown
    assert len(done.stdout.splitlines()) == 1


def test_batches_give_what_single_images_give(folder):
    files = [folder / "cat.jpg", folder / "a" / "b" / "coffee.webp", folder / "a" / "rotated.jpg"]
    one = json.loads(mvlib("predict", *files, "--format", "json", "--batch-size", 1).stdout)
    three = json.loads(mvlib("predict", *files, "--format", "json", "--batch-size", 3).stdout)
    for a, b in zip(one, three):
        assert a["file"] == b["file"]
        for p, q in zip(a["predictions"], b["predictions"]):
            assert p["class"] == q["class"] and abs(p["probability"] - q["probability"]) < 1e-4


@pytest.mark.parametrize(("arguments", "message"), [
    (["nowhere.jpg"], "nowhere.jpg"),
    ([PHOTOS / "chelsea.png", "--model", "tf_efficientnet_lite9"], "did you mean"),
    ([PHOTOS / "chelsea.png", "--topk", "0"], "0 is not a positive number"),
    ([PHOTOS / "chelsea.png", "--format", "xml"], "invalid choice"),
])
def test_mistakes(arguments, message):
    done = mvlib("predict", *arguments)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_an_empty_folder(tmp_path):
    done = mvlib("predict", tmp_path)
    assert done.returncode == 2
    assert f"no images in {tmp_path}" in done.stderr
