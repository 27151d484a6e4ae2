"""What is wrong with a command line is said in one line, with status 2, before torch is imported or a model loaded."""

import importlib
import json
import os
import subprocess
import sys

import pytest
from PIL import Image

from mvlib.cli import _COMMANDS
from mvlib.cli.parser import Parser

from .test_main import options

# Command lines on standard input (JSON: lists of words) to [status, standard error], where torch cannot be imported:
# "torch" is the status of one that was taken, and went on to what takes time.
RUN = """
import contextlib, io, json, sys
sys.modules["torch"] = None
from mvlib.cli import main

def outcome(words):
    err = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
        try:
            status = main(words)
        except SystemExit as exit:
            status = exit.code
        except ModuleNotFoundError as error:
            status = "torch" if "torch" in str(error) else repr(error)
        except Exception as error:
            status = repr(error)
    lacks = ("torch, which runs models, is not installed", "this needs the package 'torch'")
    is_taken = status == 2 and err.getvalue().startswith(tuple(f"mvlib: {text}" for text in lacks))
    return "torch" if is_taken else status, err.getvalue()

print(json.dumps([outcome(words) for words in json.load(sys.stdin)]))
"""


def outcomes(lines, folder):
    lines = [[str(word) for word in line] for line in lines]
    done = subprocess.run([sys.executable, "-c", RUN], input=json.dumps(lines), capture_output=True, text=True,
                          cwd=folder)
    assert done.returncode == 0, done.stderr
    return [(" ".join(line), *outcome) for line, outcome in zip(lines, json.loads(done.stdout))]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A folder to work in: photo.png, data/, parts/ (results), folder.csv/ and the like."""
    root = tmp_path_factory.mktemp("work")
    Image.new("RGB", (32, 32), "red").save(root / "photo.png")
    for split in ("train", "validation"):
        for name in ("a", "b"):
            (root / "data" / split / name).mkdir(parents=True)
            Image.new("RGB", (32, 32), "blue").save(root / "data" / split / name / "1.png")
    (root / "parts").mkdir()
    (root / "parts" / "_manifest.json").write_text(json.dumps({
        "part_suffix": ".jsonl", "settings": {"command": "predict"},
        "inputs": {"shards": 1, "count": 1, "shard_size": 1}}))
    (root / "parts" / "part-00000.jsonl").write_text('{"file": "photo.png", "predictions": []}\n')
    (root / "names.json").write_text("[1, 2]")
    for ending in (".csv", ".png", ".npy", ".html"):
        (root / f"folder{ending}").mkdir()
    return root


# Command lines that are taken: all other words are added to them.
TAKEN = {
    "list": [], "info": ["resnet18"], "search": [], "schedule": [], "cache": ["path"],
    "predict": ["photo.png"], "embed": ["photo.png", "--output", "x.npy"], "merge": ["parts", "--output", "x.csv"],
    "train": ["data", "--model", "resnet18", "--output", "runs"], "benchmark": ["resnet18"], "compare": ["alexnet"],
    "validate": ["data", "--model", "resnet18", "--no-pretrained"],
    "inference": ["data", "--model", "resnet18", "--no-pretrained"],
    "average": ["data", "--output", "mean.safetensors"], "clean": ["photo.png"],
    "export": ["tf_efficientnet_lite0.pip_in1k", "--output", "export"],
}
# What options (and positionals) name, by their dest; all whose metavar is a path stand here.
FILES_TO_READ = {"files_from", "checkpoint", "config", "class_map", "pretrained_path", "initial_checkpoint",
                 "teacher_checkpoint", "real_labels", "valid_labels"}
TO_READ = {"data", "data_dir", "resume", "folder", "inputs", "calibrate", "labels"}  # files or folders
FILES_TO_WRITE = {"output": {"embed": ".npy"}, "sheet": ".png", "plot": ".png", "html": ".html", "results_file": ".csv"}
FOLDERS_TO_MAKE = {"results_dir", ("train", "output"), ("export", "output")}
SEVERAL = {("validate", "checkpoint")}  # a folder of checkpoints


def bad_paths(command, dest):
    if dest in FILES_TO_READ:
        return ["nowhere", "photo.png/below", *([] if (command, dest) in SEVERAL else ["data"])]
    if dest in TO_READ:
        return ["nowhere", "photo.png/below"]
    if {dest, (command, dest)} & FOLDERS_TO_MAKE:
        return ["photo.png", "photo.png/below"]
    if (command, dest) == ("inference", "results_file"):  # makes the folders above it
        return ["photo.png/x.csv", "photo.png/x/y.csv", "folder.csv", "out.xyz"]
    ending = FILES_TO_WRITE[dest]
    ending = ending.get(command, ".csv") if isinstance(ending, dict) else ending
    wrong = ["out.xyz"] if dest != "html" else []
    folder = [] if (command, dest) in (("embed", "output"), ("predict", "output")) else [f"folder{ending}"]
    return [f"nowhere/x{ending}", f"photo.png/x{ending}", *folder, *wrong]


def path_options():
    for command in _COMMANDS:
        if command == "finetune":  # it looks at the pictures as train does, with torch: tests/train/test_finetune.py
            continue
        parser = Parser(prog=command)
        importlib.import_module(f"mvlib.cli.{command}_command").add_arguments(parser)
        for action in options(parser):
            if str(action.metavar) in ("FILE", "PATH", "DIR", "FOLDER", "DATA", "INPUT"):
                yield command, action


def test_all_paths_are_looked_at_first(places):
    lines, where = [[command, *words] for command, words in TAKEN.items()], []
    for command, action in path_options():
        for path in bad_paths(command, action.dest):
            if action.option_strings:
                words = TAKEN[command][1:] if action.dest == "data_dir" else TAKEN[command]
                lines.append([command, *words, action.option_strings[-1], path])
            else:
                lines.append([command, path, *TAKEN[command][1:]])
            where.append(path)
    results = outcomes(lines, places)
    taken, refused = results[:len(TAKEN)], results[len(TAKEN):]
    assert all(status in ("torch", 0) for _, status, _ in taken), taken
    assert len(refused) > 100
    wrong = [(line, status, err) for (line, status, err), path in zip(refused, where)
             if status != 2 or not err.startswith("mvlib") or err.count("\n") != 1 or path.partition("/")[0] not in err
             and "as 'xyz'; known" not in err]
    assert not wrong, "\n".join(map(str, wrong))
    assert sorted(os.listdir(places)) == ["data", "folder.csv", "folder.html", "folder.npy", "folder.png", "names.json",
                                          "parts", "photo.png", "x.csv"]


REFUSED = [
    ("predict photo.png --model resnet5o", "unknown architecture 'resnet5o'; did you mean 'resnet50"),
    ("predict photo.png --model resnet50.a1", "unknown tag 'a1' of the architecture 'resnet50'"),
    ("predict photo.png --model resnet50:a1", "unknown source 'resnet50:'"),
    ("predict photo.png --model local-dir:nowhere", "there is no folder nowhere, which 'local-dir:nowhere' names"),
    ("embed photo.png --output x.npy --model vit_giant_patch14_224", "no weights are published for 'vit_giant_patch14"),
    ("predict photo.png --output out.xyz", "--output writes .json, .jsonl, .csv, .txt, and 'out.xyz' ends in none of"),
    ("predict photo.png --output out", "--output writes .json, .jsonl, .csv, .txt, and 'out' ends in none of them; or"),
    ("predict photo.png --sheet out.gif", "--sheet writes .png, .jpg, .jpeg, .webp, and 'out.gif' ends in none of"),
    ("predict --files-from photo.png", "the list photo.png cannot be read: it is not a text file"),
    ("validate data --model resnet5o", "unknown architecture 'resnet5o'"),
    ("validate data --model photo.png", "photo.png is not a text file (in UTF-8)"),
    ("validate data --model resnet18 --class-map photo.png", "class map photo.png: format .png is none of"),
    ("validate data --model resnet18 --dataset hfdss/x", "data set 'hfdss/x': 'hfdss/' is none of"),
    ("inference data --model resnet18,resnet34", "unknown architecture 'resnet18,resnet34'"),
    ("inference data --model resnet18 --results-file x.xyz", "--results-file writes csv, json, json-record, parquet"),
    ("compare alexnet --plot x.jpg", "--plot draws .png, .svg, .pdf"),
    ("compare resnet5o", "unknown architecture 'resnet5o'"),
    ("benchmark resnet5o", "unknown architecture 'resnet5o'"),
    ("schedule --plot x.pdf", "--plot writes .png, and 'x.pdf' ends in none of them"),
    ("train data --model resnet5o", "unknown architecture 'resnet5o'"),
    ("train data --resume nosuch", "there is no checkpoint nosuch"),
    ("train data --opt adamww", "unknown optimizer 'adamww'; did you mean 'adamw'"),
    ("train data --opt lookahead_adamww", "unknown optimizer 'adamww'; did you mean 'adamw'"),
    ("train data --sched cosin", "unknown scheduler 'cosin'; did you mean 'cosine'"),
    ("train data --teacher resnet5o", "unknown architecture 'resnet5o'"),
    ("train data --config photo.png", "photo.png is not YAML"),
    ("train", "no data set: give its folder"),
    ("train data --data-dir parts", "the data set is data, and by --data-dir parts: give one of them"),
    ("validate data --data-dir parts --model resnet18", "the data set is data, and by --data-dir parts: give one of"),
]


def test_what_is_wrong_is_said_before_torch_is_imported(places):
    for (line, message), (_, status, err) in zip(REFUSED, outcomes([line.split() for line, _ in REFUSED], places)):
        assert status == 2 and message in err and err.count("\n") == 1, (line, status, err)
    assert not (places / "runs").exists() and not (places / "output").exists()
