"""`mvlib finetune`: what it makes of pictures, what it refuses, and that its line of `train` is the same run."""

import csv
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from sklearn.datasets import load_digits

import mvlib
from mvlib.cli import main
from mvlib.errors import ConfigError, DataError
from mvlib.train import finetune, parse_train_arguments, read_checkpoint, read_pictures
from mvlib.train.fine_tuning import command_line, plan, resume

QUICK = ("--img-size", "32", "--epochs", "2", "-j", "0")  # as flags, and as keywords:
QUICKLY = dict(img_size=32, epochs=2, workers=0)


def picture(path: Path, number: int = 0, mode: str = "RGB", side: int = 8) -> Path:
    """A picture like no other of another number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(number).randint(0, 255, (side, side, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def folder(root: Path, counts: dict[str, int]) -> Path:
    """So many pictures a class ("train/cat": 3)."""
    number = 0
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            number += 1
            picture(root / name / f"{index}.png", number)
    return root


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Two classes of ten handwritten digits each, grey, of 8 x 8 pixels."""
    root = tmp_path_factory.mktemp("pictures") / "digits"
    data = load_digits()
    for label, name in enumerate(("zero", "one")):
        (root / name).mkdir(parents=True)
        for index in np.flatnonzero(data.target == label)[:10]:
            Image.fromarray((data.images[index] * 15.9).astype(np.uint8)).save(root / name / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    """A run that was left alone, by Python."""
    return finetune(digits, output=tmp_path_factory.mktemp("runs"), **QUICKLY)


def weights(run: Path) -> dict:
    return read_checkpoint(run / "last.pth.tar")["state_dict"]


def assert_same_weights(one: Path, other: Path) -> None:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_folder_to_predictions(digits, trained, capsys):
    assert trained.status == 0 and set(trained.accuracy) == {"validation"}
    assert {"args.yaml", "summary.csv", "curves.png", "pictures.csv", "predictions.csv", "export"} <= \
        {path.name for path in trained.folder.iterdir()}
    splits = Counter((row["label"], row["split"]) for row in csv.DictReader(open(trained.folder / "pictures.csv")))
    assert splits == {(name, split): count for name in ("one", "zero")
                      for split, count in (("train", 8), ("validation", 2))}
    rows = list(csv.DictReader(open(trained.folder / "predictions.csv")))
    assert len(rows) == 4 and {row["split"] for row in rows} == {"validation"}
    right = sum(row["label"] == row["predicted"] for row in rows)
    assert trained.accuracy["validation"] == 25 * right
    model = mvlib.create_model(f"local-dir:{trained.export}").eval()
    transform = mvlib.create_transform(**mvlib.resolve_data_config(model=model))
    for row in rows:  # the table is of the exported weights
        with torch.inference_mode():
            outputs = model(transform(Image.open(row["path"]).convert("RGB"))[None]).softmax(-1)[0]
        assert ("one", "zero")[int(outputs.argmax())] == row["predicted"]
        assert float(outputs.max()) == pytest.approx(float(row["probability"]), abs=2e-3)
    lines = trained.summary().splitlines()
    assert lines[0].startswith(f"validation: {right} of 4 pictures are told right, {25 * right}.0%")
    assert lines[-2] == "next:"
    words = shlex.split(lines[-1].replace("photo.jpg", str(digits / "one" / "1.png")))
    assert words[0] == "mvlib" and main(words[1:]) == 0
    assert set(re.findall(r"%  (\w+)", capsys.readouterr().out)) == {"one", "zero"}


def test_the_line_is_the_same_run(digits, trained, tmp_path, capsys):
    assert main(["finetune", str(digits), *QUICK, "--output", str(tmp_path), "--experiment", "a b", "--dry-run"]) == 0
    line = capsys.readouterr().out.strip()
    assert "\n" not in line and line.startswith("mvlib train ")
    assert {path.name for path in (tmp_path / "a b").iterdir()} == {"pictures.csv", "pictures.sha256"}  # nothing was
    assert main(shlex.split(line)[1:]) == 0
    assert_same_weights(tmp_path / "a b", trained.folder)
    assert trained.command.replace(str(trained.folder.parent), str(tmp_path)) \
        .replace("/digits/", "/a b/").replace("--experiment digits", "--experiment 'a b'") \
        .replace(f"{tmp_path}/a b/pictures.csv", f"'{tmp_path}/a b/pictures.csv'") == line


@pytest.mark.slow
def test_killed_and_called_again(digits, trained, tmp_path, capsys):
    flags = [str(digits), *QUICK, "--output", str(tmp_path), "--recovery-interval", "1"]
    process = subprocess.Popen([sys.executable, "-m", "mvlib", "finetune", *flags], stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    run = tmp_path / "digits"
    until = time.monotonic() + 600
    while not list(run.glob("*.pth.tar")) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    printed = process.communicate()[0].decode()
    assert list(run.glob("*.pth.tar")), printed
    assert main(["finetune", *flags]) == 0
    out, error = capsys.readouterr()
    assert out.startswith(f"mvlib train --resume {run}\n") and "going on from" in error
    assert "pictures are told right" in out
    assert_same_weights(run, trained.folder)


@pytest.mark.slow
def test_a_finished_run_is_told_again(digits, trained, capsys):
    before = (trained.folder / "last.pth.tar").stat().st_mtime_ns
    assert main(["finetune", str(digits), *QUICK, "--output", str(trained.folder.parent)]) == 0
    out, error = capsys.readouterr()
    assert out.endswith(trained.summary() + "\n") and "this run is complete; --epochs" in error
    assert main(["finetune", "--resume", str(trained.folder)]) == 0
    assert capsys.readouterr().out.endswith(trained.summary() + "\n")
    assert (trained.folder / "last.pth.tar").stat().st_mtime_ns == before
    assert {path.name for path in trained.folder.parent.iterdir()} == {"digits"}


def test_another_run_takes_another_folder(digits, trained):
    output = str(trained.folder.parent)
    assert plan(digits, {**QUICKLY, "output": output}).folder == trained.folder
    other = plan(digits, {**QUICKLY, "output": output, "lr": 1e-4})
    assert (other.folder.name, other.args.lr, other.args.resume) == ("digits-2", 1e-4, "")
    assert other.notes[-1] == (f"{trained.folder} holds another run (--lr 0.001, not 0.0001): this one's folder is "
                               f"{other.folder}")
    with pytest.raises(ConfigError, match=r"digits holds another run \(--lr 0.001, not 0.0001\): --experiment NAME"):
        plan(digits, {**QUICKLY, "output": output, "lr": 1e-4, "experiment": "digits"})


def test_the_line_of_a_run_that_goes_on_says_what_was_changed(trained):
    found = resume(trained.folder, {"epochs": 5, "lr": 0.2})
    assert found.command == f"mvlib train --resume {trained.folder} --lr 0.2 --epochs 5"
    assert resume(trained.folder, {"lr": None, "lr_base": 0.3}).command == \
        f"mvlib train --resume {trained.folder} --lr-base 0.3", "lr follows from it"
    assert resume(trained.folder, {}).command == f"mvlib train --resume {trained.folder}"


def test_other_weights_of_the_same_name_are_another_run(digits, tmp_path):
    weights = tmp_path / "weights.pth"
    given = {**QUICKLY, "output": str(tmp_path / "runs"), "experiment": "a", "initial_checkpoint": str(weights)}
    torch.save({"a": torch.zeros(1)}, weights)
    found = plan(digits, given)
    found.write()
    (found.folder / "args.yaml").write_text(yaml.safe_dump(vars(found.args)))
    assert plan(digits, given).args.resume
    torch.save({"a": torch.ones(1)}, weights)
    with pytest.raises(ConfigError, match=r"holds another run \(begun with other weights of the same name\)"):
        plan(digits, given)


def test_where_no_run_has_begun_another_may(digits, tmp_path):
    """After a --dry-run, a picture is removed."""
    data = shutil.copytree(digits, tmp_path / "digits")
    given = {**QUICKLY, "output": str(tmp_path / "runs"), "experiment": "a"}
    found = plan(data, given)
    found.write()
    Path(found.pictures.splits["train"][0][0]).unlink()
    again = plan(data, given)
    assert again.folder == found.folder and again.table != found.table and not again.args.resume
    assert plan(data, {**given, "experiment": ""}).folder.name == "digits"


def test_more_pictures_are_another_run(digits, trained, tmp_path):
    data = tmp_path / "digits"
    shutil.copytree(digits, data)
    picture(data / "one" / "more.png", 5)
    output = str(trained.folder.parent)
    with pytest.raises(ConfigError, match="digits holds another run .of other pictures."):
        plan(data, {**QUICKLY, "output": output, "experiment": "digits"})


def test_flags_go_before_the_defaults(digits, tmp_path):
    args = plan(digits, {"output": str(tmp_path), "batch_size": 4, "opt": "sgd", "momentum": 0.5, "epochs": 7}).args
    assert (args.batch_size, args.opt, args.momentum, args.epochs) == (4, "sgd", 0.5, 7)
    assert (args.weight_decay, args.lr) == (2e-5, None)  # AdamW's are not SGD's
    with pytest.raises(ConfigError, match="training has no argument 'epoch'; did you mean 'epochs'"):
        finetune(digits, output=tmp_path, epoch=3)
    with pytest.raises(ConfigError, match="finetune: epochs: '0.5' is not a whole number"):
        finetune(digits, output=tmp_path, epochs=0.5)


@pytest.mark.parametrize("flags", [
    "--model resnet50 --model-kwargs block_args={'a':1} act=relu --mean 0.1 -0.2 0.3 --no-channels-last -b 4",
    "--opt-betas 0.9 0.95 --no-filter-bias-and-bn --torchcompile --scale 0.3 0.9 --dist-bn= --head-init-bias=-3",
    "--amp --amp-dtype bf16 --freeze stem blocks.0 --weights IMAGENET1K_V1 --dialect timm --class-map 'a b.txt'"])
def test_arguments_as_flags(flags):
    args = parse_train_arguments(["data", *shlex.split(flags)])
    assert vars(parse_train_arguments(["data", *command_line(args)])) == vars(args)


def test_what_was_trained_is_trained_on(digits, trained, tmp_path):
    other = finetune(digits, str(trained.export), output=tmp_path, **QUICKLY | {"epochs": 1, "lr": 0.0})
    ours, theirs = (mvlib.create_model(f"local-dir:{run.export}").classifier.weight for run in (other, trained))
    assert torch.equal(ours, theirs) and ours.any()  # with nothing learned, it is the classifier that it began with
    assert "--head-init-scale" not in other.command and "--head-init-scale" in trained.command


@pytest.mark.parametrize("model, rate", [("resnet50", 1e-3), ("vit_small_patch16_224", 1e-4), ("swin_t", 1e-4)])
def test_the_learning_rate_is_the_models(digits, tmp_path, model, rate):
    assert plan(digits, {"output": str(tmp_path), "model": model}).args.lr == rate


def test_large_models_take_small_batches(tmp_path):
    root = folder(tmp_path / "data", {"a": 60, "b": 60})
    sizes = {model: plan(root, {"output": str(tmp_path), "model": model}).args.batch_size
             for model in ("tf_efficientnet_lite0.pip_in1k", "vit_giant_patch14_224")}
    assert sizes["tf_efficientnet_lite0.pip_in1k"] == 16 or torch.cuda.is_available()
    assert 1 <= sizes["vit_giant_patch14_224"] <= sizes["tf_efficientnet_lite0.pip_in1k"]


def test_more_pictures_and_classes_take_more_updates(tmp_path):
    def updates(counts: dict[str, int]) -> int:
        root = folder(tmp_path / str(len(list(tmp_path.iterdir()))), counts)
        found = plan(root, {"output": str(tmp_path / "runs")})
        return found.args.epochs * (len(found.pictures.splits["train"]) // found.args.batch_size)

    small = updates({"a": 40, "b": 40})
    assert 160 <= small <= 240
    assert 1.3 * small < updates({"a": 160, "b": 160}) < 3 * small
    assert 1.3 * small < updates({str(index): 5 for index in range(16)}) < 3 * small


# pictures


def test_the_split_does_not_depend_on_names_or_other_classes(tmp_path):
    one = read_pictures(folder(tmp_path / "one", {"a": 20, "b": 5, "c": 2}))
    assert one.counts("validation") == {"a": 4, "b": 1, "c": 1} and one.counts("train") == {"a": 16, "b": 4, "c": 1}
    held = {Path(path).read_bytes() for path, _ in one.splits["validation"]}
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    shutil.rmtree(tmp_path / "two" / "c")
    for path in (tmp_path / "two" / "a").iterdir():
        path.rename(path.with_name(f"renamed-{path.name}"))
    picture(tmp_path / "two" / "d" / "0.png", 100)
    picture(tmp_path / "two" / "d" / "1.png", 101)
    two = read_pictures(tmp_path / "two")
    again = {Path(path).read_bytes() for path, label in two.splits["validation"] if label in "ab"}
    assert again == {content for content in held if content in again} and len(again) == 5


def test_copies_stay_together_and_are_told(tmp_path):
    root = folder(tmp_path / "data", {"a": 6, "b": 6})
    for path in list((root / "a").iterdir()):
        for number in range(3):
            shutil.copy(path, path.with_name(f"{path.stem}-{number}.png"))
    shutil.copy(root / "a" / "0.png", root / "b" / "same.png")
    found = read_pictures(root)
    kinds = {split: {Path(path).stem.partition("-")[0] for path, label in rows if label == "a"}
             for split, rows in found.splits.items()}
    assert not kinds["train"] & kinds["validation"] and kinds["validation"]
    assert any(note.startswith("the same content lies in more than one class: 1 picture") for note in found.notes)


@pytest.mark.parametrize("mode, ending", [("L", "png"), ("RGBA", "png"), ("1", "png"), ("P", "gif"), ("CMYK", "jpg"),
                                          ("I", "tif"), ("LA", "png")])
def test_pictures_of_any_kind(tmp_path, mode, ending):
    root = folder(tmp_path / "data", {"a": 3, "b": 3})
    picture(root / "a" / f"odd.{ending}", 50, mode, side=1)
    found = read_pictures(root)
    assert not found.notes and sum(map(len, found.splits.values())) == 7


def test_what_cannot_be_read_is_named_and_left_out(tmp_path):
    root = folder(tmp_path / "data", {"a": 3, "b": 3})
    (root / "a" / "empty.jpg").touch()
    (root / "b" / "text.png").write_text("no picture")
    whole = picture(root / "a" / "cut.png", 60, side=64).read_bytes()
    (root / "a" / "cut.png").write_bytes(whole[:200])
    found = read_pictures(root)
    assert len(found.notes) == 1 and found.notes[0].startswith("left out 3 pictures that cannot be read: a/cut.png (")
    assert "a/empty.jpg (file is empty); b/text.png (not an image in a format that PIL reads)" in found.notes[0]
    assert sum(map(len, found.splits.values())) == 6


def test_names_that_are_numbers_are_names(tmp_path):
    root = folder(tmp_path / "data", {"10": 4, "2": 4})
    found = plan(root, {"output": str(tmp_path / "runs"), **QUICKLY})
    assert found.pictures.classes == ["2", "10"]
    found.write()
    result = finetune(root, output=tmp_path / "runs", **QUICKLY)
    assert {name for pair in result.confusion["validation"] for name in pair} <= {"2", "10"}
    assert mvlib.create_model(f"local-dir:{result.export}").weights_config.label_names == ("2", "10")


@pytest.mark.parametrize("names", [
    ("+1", "0"), ("-1", "0", "1"), ("-1", "-2"), ("1_000", "2"), ("\u0663", "2"), ("07", "7")])
def test_names_like_numbers_are_the_classes_of_what_is_trained(tmp_path, names):
    root = folder(tmp_path / "data", dict.fromkeys(names, 3))
    found = plan(root, {"output": str(tmp_path / "runs"), **QUICKLY})
    found.write()
    data = mvlib.create_dataset("", found.args.data_dir, split="train", class_map=found.args.class_map)
    assert data.classes == found.pictures.classes and set(data.classes) == set(names)
    assert [Path(data.filename(i)).parent.name for i in range(len(data))] == [data.classes[i] for i in data.targets()]


def test_ends_of_lines_in_names(tmp_path):
    root = folder(tmp_path / "data", {"a": 4, "b": 4})
    picture(root / "a" / "x\ry\nz.png", 40)
    found = plan(root, {"output": str(tmp_path), "experiment": "run", **QUICKLY})
    found.write()
    data = mvlib.create_dataset("", found.args.data_dir, split="train")
    assert data.classes == ["a", "b"]
    rows = [row for row in found.pictures.splits["train"] if row[1] == "a"]
    assert {data.filename(i, absolute=True) for i in range(len(data)) if data.targets()[i] == 0} == {p for p, _ in rows}
    (tmp_path / "run" / "args.yaml").write_text(yaml.safe_dump(vars(found.args)))
    assert plan(root, {"output": str(tmp_path), "experiment": "run", **QUICKLY}).args.resume  # it is the same run
    assert resume(tmp_path / "run", {}).table == found.table


def test_pictures_that_were_overwritten_are_others(digits, trained, tmp_path):
    data = shutil.copytree(digits, tmp_path / "digits")
    wanted = {**QUICKLY, "output": str(trained.folder.parent), "experiment": "digits"}
    shutil.copytree(trained.folder, tmp_path / "runs" / "digits")
    found = read_pictures(data)
    table = found.table()
    (tmp_path / "runs" / "digits" / "pictures.csv").write_text(table)
    given = {**wanted, "output": str(tmp_path / "runs")}
    assert plan(data, given).args.resume
    path = Path(found.splits["train"][-1][0])
    for number in range(100):  # until it is one that stays in its split, and the table as it is
        picture(path, number, "L")
        if read_pictures(data).table() == table:
            break
    with pytest.raises(ConfigError, match=r"digits holds another run \(of the pictures as they were before\)"):
        plan(data, given)
    (tmp_path / "runs" / "digits" / "pictures.sha256").unlink()  # a run of before they were kept
    assert plan(data, given).args.resume


def test_folders_that_differ_in_blanks(tmp_path):
    root = folder(tmp_path / "data", {"a": 3, "a ": 3, "b": 3})
    picture(root / "a " / "0.png", 90)
    found = read_pictures(root)
    assert found.classes == ["a", "b"] and found.notes == [f"{root}: the folders 'a', 'a ' are one class, 'a'"]
    folder(root, {" ": 2})
    with pytest.raises(DataError, match="a class folder has a name of blanks alone, ' '"):
        read_pictures(root)


def test_a_number_of_classes_that_the_pictures_do_not_have(tmp_path):
    root = folder(tmp_path / "data", {"a": 3, "b": 3})
    given = {"output": str(tmp_path), **QUICKLY}
    with pytest.raises(ConfigError, match="--num-classes 7, and .*data has 2 classes: leave it out"):
        plan(root, {**given, "num_classes": 7})
    assert plan(root, {**given, "num_classes": 2}).args.num_classes == 2


def test_an_experiment_may_lie_deeper(tmp_path):
    root = folder(tmp_path / "data", {"a": 3, "b": 3})
    given = {"output": str(tmp_path / "runs"), "experiment": "a/b", **QUICKLY}
    found = plan(root, given)
    found.write()
    assert found.folder == tmp_path / "runs" / "a" / "b" == Path(found.args.output, found.args.experiment)
    (found.folder / "args.yaml").write_text(yaml.safe_dump({**vars(found.args), "experiment": "b"}))  # of a --resume
    assert plan(root, given).args.resume == str(found.folder)


def test_split_folders_of_any_case(tmp_path):
    root = folder(tmp_path / "data", {"Training/a": 4, "Training/b": 4, "Val/a": 2, "Val/b": 1, "TEST/a": 3})
    found = read_pictures(root)
    assert {split: len(rows) for split, rows in found.splits.items()} == {"train": 8, "validation": 3, "test": 3}
    assert not found.is_divided
    only = read_pictures(folder(tmp_path / "other", {"train/a": 5, "train/b": 5, "test/a": 2, "test/b": 2}))
    assert {split: len(rows) for split, rows in only.splits.items()} == {"train": 8, "validation": 2, "test": 4}


def test_a_table(tmp_path):
    folder(tmp_path, {"x": 4, "y": 4})
    rows = [f"{name}/{index}.png,{name}" for name in "xy" for index in range(4)]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["file,class", *rows]))
    assert read_pictures(table).counts("validation") == {"x": 1, "y": 1}
    table.write_text("\n".join(["path,label,split", *(f"{row},{'val' if '3' in row else 'train'}" for row in rows)]))
    assert [Path(path).name for path, _ in read_pictures(table).splits["validation"]] == ["3.png", "3.png"]
    table.write_text("path,label,split\nx/0.png,x,training\nx/1.png,x,elsewhere")
    with pytest.raises(DataError, match="row 2 is of the split 'elsewhere', which is none of train"):
        read_pictures(table)
    table.write_text("\n".join(["file,class", *rows, "x/../x/1.png,y"]))
    with pytest.raises(DataError, match="x/../x/1.png is of the class 'x' in row 2 and of 'y' in row 9"):
        read_pictures(table)
    table.write_text("\n".join(["file,class", *rows, "x/1.png,x"]))  # which is to weigh more
    assert sum(map(len, read_pictures(table).splits.values())) == 9


def test_a_small_class_is_taken_more_often(tmp_path):
    root = folder(tmp_path / "data", {"a": 50, "b": 5})
    found = plan(root, {"output": str(tmp_path / "runs"), **QUICKLY})
    assert any("the largest class has 40 training pictures" in note and "'b' (4) 3 times" in note
               for note in found.notes)
    rows = Counter((row["label"], row["split"]) for row in csv.DictReader(found.table.splitlines()))
    assert rows == {("a", "train"): 40, ("a", "validation"): 10, ("b", "train"): 12, ("b", "validation"): 1}


@pytest.mark.parametrize("counts, message", [
    ({}, "has no pictures: no file in its folders is one by its name"),
    ({".": 3}, "has no class folders: its 3 pictures lie in it directly, and should lie in data/CLASS/0.png"),
    ({"a": 5}, "has one class alone, 'a': there is nothing to tell apart"),
    ({"a": 1, "b": 1, "c": 1}, "a single picture of each of its 3 classes.* Is each picture in a folder of its own"),
    ({**{f"IMG{i}": 1 for i in range(30)}, "b": 4}, "has 31 classes, and 30 of them a single picture, such as 'IMG0'"),
    ({"train/a": 2, "train/b": 2, "val/a": 1, "val/bb": 1}, "validation has pictures of 'bb', and train has none"),
    ({"train/a": 2, "train/b": 2, "training/a": 2}, "has two folders for train: train and training"),
    ({"a": 2, "b\rc": 2}, r"the name of the class 'b\\rc' has a control character: rename it"),
    ({"val/a": 2, "val/b": 2}, r"has no folder for training \(train, training\); there is val"),
])
def test_folders_that_cannot_be_used(tmp_path, counts, message):
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match=message):
        read_pictures(folder(tmp_path / "data", counts))


@pytest.mark.parametrize("counts, note", [
    ({"a": 4, "b": 4, "c": 1}, "a single picture of 'c': it is trained on, and nothing measures that class"),
    ({"a": 4, "b": 4, ".": 2}, "left out 2 pictures that lie in no class folder, such as 0.png"),
    ({"a": 4, "b": 4, "b/deep": 2}, "2 pictures lie deeper than CLASS/picture, such as b/deep/0.png: their class is "
                                    "the first folder's, 'b'"),
    ({"a": 4, "b": 4, "c": 0}, "no pictures in 'c': no class of that name is learned"),
    ({"train/a": 2, "train/b": 2, "val/a": 1}, "validation has no picture of 'b': nothing measures that class"),
    ({"train/a": 2, "train/b": 2, "val/a": 1, "val/b": 1, "extra": 1}, "left out 'extra', beside the folders"),
])
def test_folders_with_something_to_tell(tmp_path, counts, note):
    notes = read_pictures(folder(tmp_path / "data", counts)).notes
    assert len(notes) == 1 and note in notes[0]


def test_a_folder_around_the_folder(tmp_path):
    folder(tmp_path / "data" / "flowers", {"daisy": 3, "rose": 3})
    assert read_pictures(tmp_path / "data").classes == ["daisy", "rose"]


@pytest.mark.parametrize("words, message", [
    ([], "no pictures: give the folder that holds a folder for each class (mvlib finetune DATA)"),
    (["nowhere"], "there is no data set nowhere"),
    (["--resume", "nowhere"], "there is no run nowhere"),
    (["nowhere", "--resume", "."], ". is a run that has its pictures: leave out nowhere, or --resume"),
    ([".", "--model", "resnet5"], "did you mean"),
    ([".", "--dataset", "hfds/x"], "--dataset goes with mvlib train"),
    ([".", "--dialect", "torchvision"], "--dialect torchvision goes with 'mvlib train'"),
])
def test_wrong_usage_is_a_line(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert main(["finetune", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_several_processes_are_sent_to_train(digits, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="finetune is one process: --dry-run prints the line"):
        plan(digits, {"output": str(tmp_path)})
