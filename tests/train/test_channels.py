"""Models of one, two and four channels, from training to every command that reads images; arguments of a checkpoint."""

import argparse
import csv
import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.utils import CheckpointSaver

import mvlib
from mvlib.cli import main
from mvlib.errors import ConfigError
from mvlib.train import parse_train_arguments
from mvlib.train.run import train

from .conftest import NAMES, QUICK


@pytest.fixture(scope="module", params=[1, *(pytest.param(count, marks=pytest.mark.slow) for count in (2, 4))])
def run(request, digits, tmp_path_factory):
    """The folder of a run of one epoch, for so many channels, with pooling of its own."""
    folder = tmp_path_factory.mktemp("channels")
    args = parse_train_arguments([str(digits), *QUICK, "--epochs", "1", "--lr", "0.02",
                                  "--in-chans", str(request.param), "--gp", "max", "--output", str(folder),
                                  "--experiment", "run"])
    args.no_export = False
    assert train(args) == 0
    return request.param, folder / "run"


def sources(folder):
    return [["--checkpoint", str(folder / "model_best.pth.tar")],
            ["--checkpoint", str(folder / "model_best.pth.tar"), "--model", "test_resnet"],
            ["--checkpoint", str(folder / "model_best.pth.tar"), "--model", "test_resnet.r160_in1k"],
            ["--model", f"local-dir:{folder / 'export'}"]]


@pytest.mark.sample(2)
def test_every_command_reads_images_of_its_channels(run, digits, tmp_path, capsys):
    channels, folder = run
    image = str(next((digits / "validation" / "one").iterdir()))
    history = list(csv.DictReader(open(folder / "summary.csv")))
    best = max(float(row["eval_top1"]) for row in history)
    for number, source in enumerate(sources(folder)):
        out = tmp_path / f"{number}.json"
        assert main(["validate", str(digits), *source, "-j", "0", "-b", "8", "--results-file", str(out)]) == 0
        assert json.loads(out.read_text())[0]["top1"] == pytest.approx(best, abs=1e-3), source
    predicted = []
    for source in (sources(folder)[0], sources(folder)[-1]):
        capsys.readouterr()
        assert main(["predict", image, *source, "--format", "json", "--topk", "4"]) == 0
        predicted.append(json.loads(capsys.readouterr().out)[0]["predictions"])
        assert {row["class"] for row in predicted[-1]} == set(NAMES)
        assert main(["embed", image, *source, "--output", str(tmp_path / "e.npy")]) == 0
        assert np.load(tmp_path / "e.npy").shape == (1, 96)
        (tmp_path / "e.npy").unlink()
        (tmp_path / "e.json").unlink()
        assert main(["inference", str(digits), *source, "-j", "0", "--no-console-results", "--results-file",
                     str(tmp_path / "i.json"), "--results-format", "json", "--label-type", "name"]) == 0
        rows = json.loads((tmp_path / "i.json").read_text())
        assert len(rows) == 20 and {row["label"] for row in rows.values()} <= set(NAMES)
    assert [row["class"] for row in predicted[0]] == [row["class"] for row in predicted[1]]


def test_the_user_s_word_goes_before_the_checkpoint_s(run, digits, capsys):
    channels, folder = run
    checkpoint = str(folder / "model_best.pth.tar")
    model = mvlib.create_model("test_resnet", checkpoint_path=checkpoint)
    assert (model.in_chans, model.num_classes, model.global_pool.pool_type) == (channels, 4, "max")
    assert mvlib.create_model("test_resnet", checkpoint_path=checkpoint, global_pool="avg").global_pool.pool_type == \
        "avg"
    assert main(["validate", str(digits), "--checkpoint", checkpoint, "-j", "0", "--input-img-mode",
                 "RGB"]) == 2
    assert f"images of mode RGB have 3 channels, and the model takes {channels}" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["predict", "embed", "validate", "inference", "train"])
def test_channels_that_no_image_has_are_refused(command, digits, tmp_path, capsys):
    mvlib.save_for_hub(mvlib.create_model("test_resnet", in_chans=5, num_classes=4, pretrained=False), tmp_path / "hub")
    model = ["--model", f"local-dir:{tmp_path / 'hub'}"]
    image = str(next((digits / "validation" / "one").iterdir()))
    flags = {"predict": [image, *model], "embed": [image, *model, "--output", str(tmp_path / "e.npy")],
             "validate": [str(digits), *model, "-j", "0"], "inference": [str(digits), *model, "-j", "0"],
             "train": [str(digits), *QUICK, "--in-chans", "5", "--output", str(tmp_path)]}[command]
    assert main([command, *flags]) == 2
    assert capsys.readouterr().err.strip().endswith(
        "the model takes 5 channels, and no image file has so many (L 1, LA 2, RGB 3, RGBA 4): give it tensors of your "
        "own in Python, or build it with another in_chans (--in-chans)")


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("LA", 2), ("RGB", 3), ("RGBA", 4)])
def test_hub_models_read_images_as_they_are_meant(mode, channels, tmp_path, capsys):
    """predict gives what the model gives for the image in the mode of its channels."""
    torch.manual_seed(0)
    model = mvlib.create_model("test_resnet", in_chans=channels, num_classes=3, pretrained=False).eval()
    mvlib.save_for_hub(model, tmp_path / "hub", label_names=["a", "b", "c"])
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (160, 160, 4), dtype=np.uint8), "RGBA")
    image.save(tmp_path / "image.png")
    transform = mvlib.create_transform(**mvlib.resolve_data_config(model=model))
    pixels = transform(mvlib.data.open_image(tmp_path / "image.png", mode))
    assert pixels.shape[0] == channels
    with torch.inference_mode():
        expected = model(pixels[None]).softmax(-1)[0]
    assert main(["predict", str(tmp_path / "image.png"), "--model", f"local-dir:{tmp_path / 'hub'}", "--format", "json",
                 "--decode", "reference"]) == 0
    rows = json.loads(capsys.readouterr().out)[0]["predictions"]
    for row in rows:
        assert row["probability"] == pytest.approx(expected["abc".index(row["class"])].item(), abs=1e-4)


def test_a_checkpoint_of_timms_says_its_arguments(digits, tmp_path):
    torch.manual_seed(0)
    theirs = timm.create_model("test_resnet", in_chans=1, num_classes=4, global_pool="max").eval()
    args = argparse.Namespace(model="test_resnet", in_chans=1, num_classes=4, gp="max", img_size=64, input_size=None,
                              mean=[0.25], std=[0.5], interpolation="bilinear", crop_pct=1.0, model_kwargs={})
    saver = CheckpointSaver(theirs, torch.optim.SGD(theirs.parameters(), lr=0.1), args=args, checkpoint_dir=tmp_path,
                            recovery_dir=tmp_path)
    saver.save_checkpoint(0, metric=1.0)
    path = tmp_path / "last.pth.tar"
    ours = mvlib.create_model("test_resnet", checkpoint_path=path).eval()
    images = torch.randn(2, 1, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs(images))
    config = mvlib.resolve_data_config(model=ours)
    assert config == timm.data.resolve_data_config(vars(args) | {"input_size": (1, 64, 64)}, model=theirs)
    assert main(["validate", str(digits), "--checkpoint", str(path), "-j", "0"]) == 0


# classes by name


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("names")
    args = parse_train_arguments([str(digits), *QUICK, "--epochs", "8", "--lr", "0.03", "--output", str(folder),
                                  "--experiment", "run", "--no-aug"])
    args.no_export = False
    assert train(args) == 0
    return folder / "run"


def renamed(digits, folder, names):
    """The same images under other names of their classes."""
    for split in ("train", "validation"):
        (folder / split).mkdir(parents=True)
        for old, new in names.items():
            (folder / split / new).symlink_to(digits / split / old)
    return folder


def top1(arguments, tmp_path):
    out = tmp_path / "out.json"
    assert main(["validate", *map(str, arguments), "-j", "0", "--results-file", str(out)]) == 0
    return json.loads(out.read_text())[0]["top1"]


@pytest.mark.slow
def test_other_classes_are_not_measured(digits, trained, tmp_path, capsys):
    data = renamed(digits, tmp_path / "data", {"zero": "a", "one": "b", "two": "c", "three": "three"})
    for source in sources(trained):
        assert main(["validate", str(data), *source, "-j", "0"]) == 2
        assert ("the model's classes are not the data set's: only the model has 'one', 'two', 'zero'; only the data "
                "set has 'a', 'b', 'c'; --valid-labels names") in capsys.readouterr().err


@pytest.mark.slow
def test_the_same_classes_in_another_order_are_mapped(digits, trained, tmp_path):
    expected = top1([digits, "--checkpoint", trained / "model_best.pth.tar"], tmp_path)
    assert expected > 70
    order = tmp_path / "order.json"
    order.write_text(json.dumps({"zero": 0, "one": 1, "two": 2, "three": 3}))
    for source in sources(trained):
        assert top1([digits, "--class-map", order, *source], tmp_path) == expected
    data = renamed(digits, tmp_path / "data", {name: name.upper() for name in NAMES})
    assert top1([data, "--checkpoint", trained / "model_best.pth.tar"], tmp_path) == expected


def resumed(*arguments):
    args = parse_train_arguments([*map(str, arguments)])
    return train(args)


def test_training_goes_on_with_the_same_classes_alone(digits, trained, tmp_path, caplog):
    data = renamed(digits, tmp_path / "data", {"zero": "a", "one": "b", "two": "c", "three": "d"})
    last = trained / "last.pth.tar"
    with pytest.raises(ConfigError, match=r"last.pth.tar was trained on other classes: .*only the model has 'one', "
                                          r"'three', 'two', 'zero'; only the data set has 'a', 'b', 'c', 'd'"):
        resumed(data, *QUICK, "--epochs", "5", "--resume", last, "--output", tmp_path, "--experiment", "other")


def test_training_goes_on_with_the_numbers_that_it_began_with(digits, trained, tmp_path):
    order = tmp_path / "order.json"
    order.write_text(json.dumps({"zero": 0, "one": 1, "two": 2, "three": 3}))
    for flag, epochs in (("--resume", 9), ("--initial-checkpoint", 1)):
        run = flag.strip("-")
        assert resumed(digits, *QUICK, "--lr", "1e-6", "--epochs", epochs, flag, trained / "last.pth.tar",
                       "--class-map", order, "--output", tmp_path, "--experiment", run) == 0
        row = list(csv.DictReader(open(tmp_path / run / "summary.csv")))[-1]
        assert float(row["eval_top1"]) > 70  # under other numbers one class of four would be left
        assert top1([digits, "--checkpoint", tmp_path / run / "last.pth.tar"], tmp_path) == \
            pytest.approx(float(row["eval_top1"]), abs=1e-3)
