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

import mvlib as library

from .command import here as mvlib

PHOTOS = Path(skimage.__file__).parent / "data"


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
    """From a list on standard input, with a progress bar on the terminal."""
    pty = pytest.importorskip("pty")
    reader, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    done = subprocess.run([sys.executable, "-m", "mvlib", "predict", "-", "--format", "json", "--topk", "3"],
                          input=f"{PHOTOS}/chelsea.png\n\n{PHOTOS}/coffee.png\n", stdout=subprocess.PIPE,
                          stderr=terminal, text=True)
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # the end of a terminal's output
        while chunk := os.read(reader, 4096):
            shown += chunk
    assert done.returncode == 0, shown
    assert b"2image [" in shown
    cat, coffee = json.loads(done.stdout)
    assert cat["predictions"][0]["class"] in ("Egyptian cat", "tabby", "tiger cat")
    assert coffee["predictions"][0]["class"] == "espresso"
    assert len(cat["predictions"]) == 3


def test_the_demo_agrees_with_timm_with_the_same_weights():
    import timm
    import torch

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
    names = f"{folder}/cat.jpg\n\n{folder}/a/rotated.jpg\n"
    done = mvlib("predict", "-", "--format", "csv", "--topk", 2, stdin=names)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["rank"] for row in rows] == ["1", "2", "1", "2"]
    assert done.returncode == 0


def test_a_table_and_no_progress_bar_in_a_pipe(folder):
    done = mvlib("predict", folder / "cat.jpg")
    assert done.stdout.splitlines()[0] == str(folder / "cat.jpg")
    assert "%  " in done.stdout.splitlines()[1]
    assert not done.stderr


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
    ([PHOTOS / "chelsea.png", "--format", "xml"], "'xml' is unknown; known: table, json, jsonl, csv"),
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


# many images

@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """12 pictures, the sixth damaged."""
    root = tmp_path_factory.mktemp("many")
    photograph = Image.open(PHOTOS / "coffee.png").resize((300, 200))
    for number in range(12):
        photograph.rotate(20 * number).save(root / f"{number}.jpg", quality=90)
    (root / "5.jpg").write_text("not a photograph")
    return root


@pytest.fixture(scope="module")
def whole(many):
    """What one run over them prints."""
    done = mvlib("predict", many, "--format", "jsonl", "--topk", 2)
    assert done.returncode == 1 and "1 of 12 images could not be read" in done.stderr
    return done.stdout


def same(found, expected):
    """Predictions of the same files, alike but for the order of additions in other batches."""
    found, expected = ([json.loads(line) for line in text.splitlines()] for text in (found, expected))
    assert [item["file"] for item in found] == [item["file"] for item in expected]
    for one, other in zip(found, expected):
        assert [p["index"] for p in one["predictions"]] == [p["index"] for p in other["predictions"]]
        assert [p["probability"] for p in one["predictions"]] == pytest.approx(
            [p["probability"] for p in other["predictions"]], abs=1e-4)


def test_a_file_by_its_ending_and_a_list_of_names(many, whole, tmp_path):
    (tmp_path / "list.txt").write_text("".join(f"{many}/{number}.jpg\n" for number in range(12)))
    done = mvlib("predict", "--files-from", tmp_path / "list.txt", "--output", tmp_path / "out.jsonl", "--topk", 2)
    assert done.returncode == 1 and not done.stdout
    same((tmp_path / "out.jsonl").read_text(), whole)
    mvlib("predict", many / "0.jpg", "--output", tmp_path / "out.csv", "--workers", 1, "--batch-size", 2)
    assert (tmp_path / "out.csv").read_text().startswith("file,rank,index,class,probability\n")


def test_a_list_that_names_missing_files(many, tmp_path):
    (tmp_path / "list.txt").write_text(f"{many}/0.jpg\n{tmp_path}/gone.jpg\n{many}/1.jpg\n")
    done = mvlib("predict", "--files-from", tmp_path / "list.txt", "--format", "jsonl")
    assert [Path(json.loads(line)["file"]).name for line in done.stdout.splitlines()] == ["0.jpg", "1.jpg"]
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"mvlib: not read: {tmp_path}/gone.jpg: No such file or directory",
                                        "mvlib: 1 of 3 images could not be read"]


def test_a_folder_of_parts_is_gone_on_with_and_merged(many, whole, tmp_path):
    command = ("predict", many, "--output", f"{tmp_path}/parts/", "--shard-size", 5, "--topk", 2)
    assert mvlib(*command).returncode == 1
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("parts/part-*")}
    assert len(written) == 3
    (tmp_path / "parts" / "part-00001.jsonl").unlink()
    done = mvlib(*command)
    assert done.returncode == 1 and "1 of 12 images could not be read" in done.stderr
    again = {path: path.stat().st_mtime_ns for path in tmp_path.glob("parts/part-*")}
    assert [path.name for path in sorted(again) if again[path] != written[path]] == ["part-00001.jsonl"]
    assert mvlib("merge", tmp_path / "parts", "--output", tmp_path / "all.jsonl").returncode == 1
    same((tmp_path / "all.jsonl").read_text(), whole)
    mvlib("merge", tmp_path / "parts", "--output", tmp_path / "all.csv")
    mvlib("merge", tmp_path / "parts", "--output", tmp_path / "all.json")
    with open(tmp_path / "all.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 22 and {row["rank"] for row in rows} == {"1", "2"}
    assert len(json.loads((tmp_path / "all.json").read_text())) == 11
    import pyarrow.parquet

    mvlib("merge", tmp_path / "parts", "--output", tmp_path / "all.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "all.parquet")
    assert table.column_names == ["file", "rank", "index", "class", "probability"] and len(table) == 22
    assert table["index"].to_pylist() == [int(row["index"]) for row in rows]
    done = mvlib(*command[:-1], 3)
    assert done.returncode == 2 and "topk: 2 before, 3 now" in done.stderr


@pytest.mark.slow
def test_under_torchrun(many, whole, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "mvlib",
         "predict", *(str(many / f"{n}.jpg") for n in range(12) if n != 5), "--output", f"{tmp_path}/parts/",
         "--shard-size", "3", "--topk", "2"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert mvlib("merge", tmp_path / "parts", "--output", tmp_path / "all.jsonl").returncode == 0
    same((tmp_path / "all.jsonl").read_text(), whole)


def test_several_processes_need_a_folder(many, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    done = mvlib("predict", many, "--output", "x.csv")
    assert done.returncode == 2
    assert "mvlib: 2 processes need a folder (--output NAME/); 'mvlib merge' makes one file of it" in done.stderr


def test_a_contact_sheet(many, tmp_path):
    done = mvlib("predict", many, "--sheet", tmp_path / "sheet.png", "--format", "csv")
    assert done.returncode == 1
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.size == (6 * 258 + 18, 2 * (180 + 4 * 19 + 6 + 18) + 18)
        colours = {colour for _, colour in image.getcolors(1 << 24)}
    assert (207, 227, 242) in colours and (179, 38, 30) in colours  # a bar, the reason of the damaged one


# ways of computing

def probabilities(done):
    assert done.returncode == 0, done.stderr
    return [{p["index"]: p["probability"] for p in json.loads(line)["predictions"]}
            for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def two(folder):
    return folder / "cat.jpg", folder / "a" / "b" / "coffee.webp"


@pytest.mark.slow
def test_decodings(two):
    command = ("predict", *two, "--format", "jsonl", "--topk", 1000, "--decode")
    reference, full, scaled = (probabilities(mvlib(*command, how)) for how in ("reference", "full", "scaled"))
    for image in (0, 1):
        for other in (full, scaled):
            assert max(abs(other[image][index] - p) for index, p in reference[image].items()) < 0.02


@pytest.mark.slow
def test_compiled_or_not(two, tmp_path):
    library.save_for_hub(library.create_model("test_resnet"), tmp_path)
    command = ("predict", *two, "--model", f"local-dir:{tmp_path}", "--format", "jsonl", "--topk", 1000)
    off = probabilities(mvlib(*command, "--compile", "off"))
    done = mvlib(*command, "--compile", "on", "--batch-size", 2)
    for one, other in zip(off, probabilities(done)):
        assert max(abs(other[index] - p) for index, p in one.items()) < 1e-3


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_narrow_numbers_where_the_processor_has_them(two, precision):
    import torch

    from mvlib.optimization import supported_dtypes

    done = mvlib("predict", *two, "--format", "jsonl", "--topk", 1000, "--precision", precision, "--device", "cpu")
    if getattr(torch, precision) not in supported_dtypes(torch.device("cpu")):
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1 and "float32 is the type to take (--force" in done.stderr
        return
    wide = probabilities(mvlib("predict", *two, "--format", "jsonl", "--topk", 1000, "--device", "cpu"))
    for one, other in zip(wide, probabilities(done)):
        assert max(abs(other[index] - p) for index, p in one.items()) < 0.05


def test_int8_needs_weights_that_can_be_int8(two):
    done = mvlib("predict", *two, "--precision", "int8")
    assert done.returncode == 2
    assert done.stderr == ("mvlib: 'tf_efficientnet_lite0.pip_in1k' has no int8 weights, and its linear layers, which "
                           "could be quantized on the fly, are but 28% of it: take another precision, a "
                           "quantized_* model, or an engine that is calibrated on 16 pictures or more, "
                           "--calibrate FOLDER\n")


@pytest.mark.parametrize(("arguments", "message"), [
    ([], "mvlib: no images: name files, folders, URLs, or - for a list on standard input"),
    (["{photo}", "--files-from", "{tmp}/none.txt"], "mvlib: the list {tmp}/none.txt cannot be read: No such file"),
    (["--files-from", "{tmp}/empty.txt"], "mvlib: no images in {tmp}/empty.txt"),
    (["{photo}", "--output", "{tmp}/nowhere/x.csv"],
     "mvlib: {tmp}/nowhere/x.csv cannot be written: there is no folder {tmp}/nowhere"),
    (["{photo}", "--output", "{tmp}/nowhere/x/"],
     "mvlib: {tmp}/nowhere/x cannot be written: there is no folder {tmp}/nowhere"),
    (["{photo}", "--output", "{tmp}/x/", "--format", "csv"],
     "mvlib: parts are jsonl, not csv; 'mvlib merge' makes one file of them"),
    (["{photo}", "--output", "{tmp}/x/", "--sheet", "{tmp}/s.png"], "mvlib: --sheet goes with an output that is not a"),
    (["{photo}", "--sheet", "{tmp}/s.gif"], "--sheet writes .png, .jpg, .jpeg, .webp, and '{tmp}/s.gif' ends in none"),
    (["{photo}", "--sheet", "{tmp}/nowhere/s.png"], "s.png cannot be written: there is no folder {tmp}/nowhere"),
    (["{photo}", "--device", "nowhere"], "mvlib: the device 'nowhere' cannot be used: "),
    (["{photo}", "--workers", "0"], "0 is not a positive number"),
])
def test_mistakes_of_many(arguments, message, tmp_path):
    (tmp_path / "empty.txt").touch()
    places = {"tmp": tmp_path, "photo": PHOTOS / "coffee.png"}
    done = mvlib("predict", *(argument.format(**places) for argument in arguments))
    assert done.returncode == 2
    assert message.format(**places) in done.stderr and "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.txt"]


def test_what_is_no_number_is_not_written(folder, tmp_path):
    model = library.create_model("test_resnet", num_classes=3, pretrained=False)
    model.fc.bias.data[1] = float("nan")
    library.save_for_hub(model, tmp_path / "repository", label_names=["a", "b", "c"])
    photos = [folder / "cat.jpg", folder / "empty.jpg", folder / "a" / "rotated.jpg"]
    options = ("--model", f"local-dir:{tmp_path}/repository")
    done = mvlib("predict", *photos, *options, "--format", "json")
    assert done.returncode == 1 and json.loads(done.stdout) == []
    no_answer = "no answer: the model gives NaN or infinity for it"
    assert done.stderr.splitlines() == [
        f"mvlib: {photos[0]}: {no_answer}", f"mvlib: not read: {photos[1]}: file is empty",
        f"mvlib: {photos[2]}: {no_answer}", "mvlib: 1 of 3 images could not be read",
        "mvlib: 2 of 3 images got no answer"]
    done = mvlib("inference", folder / "a", *options, "--results-file", tmp_path / "found.csv", "--workers", 0)
    assert done.returncode == 2 and "'test_resnet' gives NaN or infinity for every image" in done.stderr
    assert not (tmp_path / "found.csv").exists()
    model.conv1[0].weight.data[:] = float("nan")
    library.save_for_hub(model, tmp_path / "repository", label_names=["a", "b", "c"])
    done = mvlib("embed", *photos, *options, "--output", tmp_path / "found.npy")
    assert done.returncode == 1 and "mvlib: 2 of 3 images got no answer" in done.stderr
    assert f"{tmp_path / 'found.npy'} is not written" in done.stderr
