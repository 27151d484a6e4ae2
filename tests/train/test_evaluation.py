"""Validation of models, inference over data sets, averaged and cleaned checkpoints."""

import csv
import json
import math
import subprocess
import sys

import pytest
import torch
from torch import nn

import mvlib
from mvlib.cli import main
from mvlib.errors import CheckpointError, ConfigError
from mvlib.optimization.folding import fold_batch_norms
from mvlib.train import parse_train_arguments, read_checkpoint
from mvlib.train.averaging import (
    average_checkpoints,
    choose_checkpoints,
    clean_checkpoint,
    common_facts,
    rank_checkpoints,
    write_weights,
)
from mvlib.train.checkpoint import CheckpointStore
from mvlib.train.engine import logits_of, validate
from mvlib.train.evaluation import expand_models, read_label_lists
from mvlib.train.run import train

from .conftest import NAMES, QUICK


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    """The folder of a run of four epochs, with averaged weights."""
    folder = tmp_path_factory.mktemp("trained")
    args = parse_train_arguments([str(digits), *QUICK, "--epochs", "4", "--lr", "0.1", "--model-ema",
                                  "--model-ema-decay", "0.8", "--output", str(folder), "--experiment", "run",
                                  "--split-bn", "--aug-splits", "2", "--resplit"])
    args.no_export = False
    assert train(args) == 0
    return folder / "run"


def results(path) -> list[dict]:
    return list(csv.DictReader(open(path)))


def test_a_checkpoint_is_measured_as_training_measured_it(digits, trained, tmp_path):
    out = tmp_path / "r.csv"
    assert main(["validate", str(digits), "--checkpoint", str(trained / "last.pth.tar"), "-j", "0", "-b", "7",
                 "--results-file", str(out)]) == 0
    row, = results(out)
    last = read_checkpoint(trained / "last.pth.tar")["history"][-1]
    assert float(row["top1"]) == pytest.approx(last["ema_top1"], abs=1e-3)
    assert float(row["loss"]) == pytest.approx(last["ema_loss"], rel=1e-3)
    assert (row["images"], row["img_size"]) == ("20", "32")
    assert main(["validate", str(digits), "--checkpoint", str(trained / "last.pth.tar"), "-j", "0", "-b", "7",
                 "--preprocess", "fast", "--results-file", str(out)]) == 0
    assert float(results(out)[0]["loss"]) == pytest.approx(last["ema_loss"], rel=1e-2)


def test_answers_that_are_no_numbers_are_wrong(digits, trained, monkeypatch, tmp_path, capsys):
    """The first class would be the likeliest: NaN is the largest number."""
    command = ["validate", str(digits), "--checkpoint", str(trained / "last.pth.tar"), "-j", "0", "-b", "20",
               "--results-file", str(tmp_path / "r.csv")]

    def measure(bad):
        def spoiled(*args):
            outputs = logits_of(*args)
            outputs[:bad] = float("nan")
            return outputs

        monkeypatch.setattr("mvlib.train.evaluation.logits_of", spoiled)
        monkeypatch.setattr("mvlib.train.engine.logits_of", spoiled)
        return main(command)

    assert measure(0) == 0
    whole, = results(tmp_path / "r.csv")
    assert measure(5) == 0  # those of the first class
    row, = results(tmp_path / "r.csv")
    assert 0 <= float(row["top1"]) <= 75 and float(row["top1"]) <= float(whole["top1"]) and float(row["loss"]) > 0
    assert ("the model gives NaN or infinity for 5 of 20 images, which count as wrong, and not in the loss"
            in capsys.readouterr().err)
    assert measure(20) == 2
    assert (f"'{trained / 'last.pth.tar'}' gives NaN or infinity for every image: its weights are damaged, or its "
            f"numbers too large for the precision") in capsys.readouterr().err
    model = mvlib.create_model("test_resnet", num_classes=4)
    model.fc.weight.data[0, 0] = float("nan")
    found = validate(model, [(torch.rand(4, 3, 32, 32), torch.zeros(4, dtype=torch.long))])
    assert found["top1"] == found["top5"] == 0 and math.isnan(found["loss"])


def test_the_export_is_measured_alike(digits, trained, tmp_path):
    rows = []
    for number, flags in enumerate((["--fold-bn"], ["--no-fold-bn"])):
        out = tmp_path / f"{number}.json"
        assert main(["validate", str(digits), "--model", f"local-dir:{trained / 'export'}", "-j", "0", *flags,
                     "--results-file", str(out)]) == 0
        rows += json.loads(out.read_text())
    best = max(read_checkpoint(trained / "last.pth.tar")["history"], key=lambda row: (row["ema_top1"], row["epoch"]))
    assert rows[0]["top1"] == rows[1]["top1"] == pytest.approx(best["ema_top1"])
    assert rows[0]["loss"] == pytest.approx(best["ema_loss"], rel=1e-3)
    config = json.loads((trained / "export" / "config.json").read_text())
    assert config["mvlib"]["trained"] == {"epoch": best["epoch"], "epochs": 4, "eval_metric": "top1", "average": True}
    assert (f"- Weights: epoch {best['epoch']} (counted from 0) of 4, the best by top1; the moving average of the "
            f"weights") in (trained / "export" / "README.md").read_text()
    assert rows[0]["loss"] == pytest.approx(rows[1]["loss"], rel=1e-4)


def test_several_models_and_one_that_fails(digits, trained, tmp_path, capsys):
    out = tmp_path / "r.md"
    status = main(["validate", str(digits), "--model", "test_resnet,test_vit", "--no-pretrained", "--num-classes", "4",
                   "--img-size", "32", "-j", "0", "--results-file", str(out), "--model-kwargs", "stem_type=deep"])
    assert status == 1
    table = out.read_text().splitlines()
    assert table[0].startswith("| model | top1 |") and len(table) == 4
    assert "test_resnet" in table[2] and "does not know the argument 'stem_type'" in table[3]
    assert "test_vit" in capsys.readouterr().out


def test_an_export_is_no_folder_of_checkpoints(digits, trained, capsys):
    assert main(["validate", str(digits), "--checkpoint", str(trained / "export")]) == 2
    assert f"is a repository, which says all of its model: --model local-dir:{trained / 'export'}" in \
        capsys.readouterr().err


def test_a_folder_of_checkpoints(digits, trained, capsys):
    assert main(["validate", str(digits), "--checkpoint", str(trained), "-j", "0"]) == 0
    assert capsys.readouterr().out.count("checkpoint-") == 4


def test_real_labels(digits, trained, tmp_path):
    names = mvlib.create_dataset("", root=digits, split="validation").filenames()
    labels = {name: [0, 1, 2, 3] for name in names}
    labels[names[0]] = []  # counts for nothing
    (tmp_path / "real.json").write_text(json.dumps(labels))
    out = tmp_path / "r.json"
    assert main(["validate", str(digits), "--checkpoint", str(trained / "last.pth.tar"), "-j", "0", "--real-labels",
                 str(tmp_path / "real.json"), "--results-file", str(out)]) == 0
    row, = json.loads(out.read_text())
    assert (row["top1"], row["images"]) == (100.0, 19)


def test_real_labels_that_miss_an_image(tmp_path):
    path = tmp_path / "real.json"
    path.write_text(json.dumps([[1], [2]]))
    assert read_label_lists(str(path), ["a/ILSVRC2012_val_00000002.JPEG"]) == [{2}]
    with pytest.raises(ConfigError, match="has no labels for x.png and 1 more"):
        read_label_lists(str(path), ["x.png", "y.png"])
    path.write_text("no")
    with pytest.raises(ConfigError, match="is not JSON"):
        read_label_lists(str(path), ["x.png"])
    for text in ('"x.png"', '{"x.png": 1}', '{"x.png": ["one"]}', '[[1], null]'):
        path.write_text(text)
        with pytest.raises(ConfigError, match="does not give a list of labels, which are numbers, for each image"):
            read_label_lists(str(path), ["x.png"])


def test_a_subset_of_the_outputs(digits, tmp_path):
    (tmp_path / "labels.txt").write_text("5\n2\n0\n9\n")
    flags = ["validate", str(digits), "--model", "test_resnet", "--no-pretrained", "--img-size", "32", "-j", "0"]
    assert main([*flags, "--num-classes", "10", "--valid-labels", str(tmp_path / "labels.txt")]) == 0
    (tmp_path / "labels.txt").write_text("5\n12\n0\n9\n")
    assert main([*flags, "--num-classes", "10", "--valid-labels", str(tmp_path / "labels.txt")]) == 2


@pytest.mark.parametrize(("flags", "text"), [
    (["--num-classes", "10", "--model", "test_resnet"], "test_resnet has 10 classes and the data set 4"),
    (["--model", "nothing_like*"], "no model matches 'nothing_like*'"),
    ([], "no model: --model names one"),
    (["--model", "test_resnet", "--split", "nowhere"], "nowhere"),
    (["--model", "test_resnet", "--num-classes", "4", "--results-file", "x.xls"], "cannot be written as 'xls'"),
])
def test_what_validation_refuses(digits, capsys, flags, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["validate", str(digits), "--no-pretrained", "--img-size", "32", "-j", "0", *flags]) == 2
    assert text in capsys.readouterr().err


def test_models_by_wildcard_list_and_file(tmp_path):
    assert ("resnet50.imagenet1k_v2", None) in expand_models("resnet50*")
    assert expand_models("a, b") == [("a", None), ("b", None)]
    (tmp_path / "names.txt").write_text("one\n\ntwo\n")
    assert expand_models(str(tmp_path / "names.txt")) == [("one", None), ("two", None)]
    (tmp_path / "names.txt").write_text("\n")
    with pytest.raises(ConfigError, match="names no models"):
        expand_models(str(tmp_path / "names.txt"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no checkpoints in"):
        expand_models("a", str(tmp_path / "empty"))


def test_out_of_memory_halves_the_batch(digits, trained, monkeypatch, tmp_path, caplog):
    import mvlib.train.evaluation as evaluation

    prepare = evaluation.prepare_model

    def small(model, *args):
        model = prepare(model, *args)
        forward = model.forward

        def refuse(images):
            if len(images) > 5:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
            return forward(images)

        model.forward = refuse
        return model

    monkeypatch.setattr(evaluation, "prepare_model", small)
    out = tmp_path / "r.json"
    assert main(["validate", str(digits), "--checkpoint", str(trained / "last.pth.tar"), "-j", "0", "-b", "16",
                 "--results-file", str(out)]) == 0
    row, = json.loads(out.read_text())
    assert (row["batch_size"], row["images"]) == (4, 20)


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "densenet121", "vit_tiny_patch16_224",
                                  "resnetv2_50" if mvlib.is_model("resnetv2_50") else "regnety_002"])
def test_folding_changes_nothing_but_rounding(name):
    torch.manual_seed(0)
    model = mvlib.create_model(name, pretrained=False, **({"img_size": 64} if "vit" in name else {})).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2.0)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.uniform_(-0.2, 0.2)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = model(images)
        count = fold_batch_norms(model, images)
        torch.testing.assert_close(model(images), expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())
    assert (count == 0) == ("vit" in name)
    before_convolutions = name in ("densenet121", "resnetv2_50")
    assert count == 0 or before_convolutions or not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())


def test_folding_gives_up_on_weights_that_are_made_anew():
    class Standardized(nn.Conv2d):
        def forward(self, x):
            weight = self.weight / self.weight.norm()
            return nn.functional.conv2d(x, weight, self.bias)

    model = nn.Sequential(Standardized(3, 4, 1), nn.BatchNorm2d(4)).eval()
    model[1].weight.data.fill_(3.0)
    images = torch.randn(2, 3, 4, 4)
    expected = model(images)
    assert fold_batch_norms(model, images) == 0
    assert torch.equal(model(images), expected) and isinstance(model[1], nn.BatchNorm2d)


def test_inference(digits, trained, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ["inference", str(digits), "--checkpoint", str(trained / "last.pth.tar"), "-j", "0"]
    assert main([*flags, "--topk", "2", "--label-type", "name", "--results-file", str(tmp_path / "i.csv")]) == 0
    rows = results(tmp_path / "i.csv")
    assert len(rows) == 20 and set(rows[0]) == {"filename", "index_0", "index_1", "label_0", "label_1", "prob_0",
                                                "prob_1"}
    assert rows[0]["label_0"] == sorted(NAMES)[int(rows[0]["index_0"])]
    assert capsys.readouterr().out == ""
    assert main([*flags, "--results-format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["filename"] == rows[0]["filename"]
    by_name = json.loads((tmp_path / "test_resnet-32.json").read_text())
    assert by_name[rows[0]["filename"]]["index"] == int(rows[0]["index_0"])


def test_predict_of_a_checkpoint_says_the_user_s_names(digits, trained, capsys):
    image = next((digits / "validation" / "two").iterdir())
    assert main(["predict", "--checkpoint", str(trained / "model_best.pth.tar"), str(image), "--topk", "4"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in NAMES)


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
@pytest.mark.parametrize("command", ["clean", "average"])
def test_what_the_commands_write_is_read_back_whole(digits, trained, tmp_path, capsys, command, ending):
    path = tmp_path / f"mine.{ending}"
    source = [trained / "last.pth.tar"] if command == "clean" else [trained, "-n", 1]
    assert main([command, *map(str, source), "--output", str(path)]) == 0
    assert [file.name for file in tmp_path.iterdir()] == [path.name], "the name that was asked for, and no other"
    if command == "average":
        best = read_checkpoint(trained / "model_best.pth.tar")
        epoch = best["history"][-1]["epoch"]
        out, err = capsys.readouterr()
        assert f"checkpoint-{epoch}.pth.tar (epoch {epoch}, top1 {best['metric']:.6g})\n" in out
        assert "of one checkpoint the mean is itself: a run keeps --checkpoint-hist" in err
    model = mvlib.create_model("test_resnet", checkpoint_path=path)
    assert model.num_classes == 4 and model.weights_config.label_names == tuple(sorted(NAMES))
    checkpoint = read_checkpoint(trained / ("last.pth.tar" if command == "clean" else "model_best.pth.tar"))
    config = mvlib.resolve_data_config(model=model, use_test_size=True)
    assert {key: list(value) if isinstance(value, tuple) else value for key, value in config.items()} == \
        checkpoint["data_config"]
    assert main(["validate", str(digits), "--checkpoint", str(path), "-j", "0", "--results-file",
                 str(tmp_path / "r.csv")]) == 0
    row, = results(tmp_path / "r.csv")
    measured = checkpoint["history"][-1]
    assert float(row["loss"]) == pytest.approx(measured["ema_loss"], rel=1e-3) and row["img_size"] == "32"
    capsys.readouterr()
    image = next((digits / "validation" / "two").iterdir())
    assert main(["predict", "--checkpoint", str(path), str(image), "--topk", "4"]) == 0
    assert all(name in capsys.readouterr().out for name in [NAMES[0]])
    mvlib.save_for_hub(model, tmp_path / "saved")
    assert mvlib.create_model(f"local-dir:{tmp_path / 'saved'}").weights_config.label_names == tuple(sorted(NAMES))


@pytest.mark.parametrize(("command", "message"), [
    ("clean {run}/last.pth.tar --output {run}/last.pth.tar", "last.pth.tar is a checkpoint of training"),
    ("clean {run}/last.pth.tar --output {run}/model_best.pth.tar", "a checkpoint of training, which a run is gone"),
    ("average {run} -n 1 --output {run}/model_best.pth.tar", "model_best.pth.tar is a checkpoint of training"),
    ("average {run} --filter=", "'' is no pattern of files in a folder"),
    ("average {run} --filter /*", "'/*' is no pattern of files in a folder"),
    ("average {run} --no-sort -n 2", "-n takes the best, and --no-sort all"),
    ("average {run} --output /dev/null", "/dev/null is a device or a pipe"),
    ("clean {run}/last.pth.tar --output /dev/null", "/dev/null is a device or a pipe"),
    ("average {run} --filter *.nothing --no-sort", "match '*.nothing'"),
    ("average {run} --filter *.nothing", "match '*.nothing'"),
])
def test_a_run_is_not_lost_to_what_is_made_of_it(trained, tmp_path, monkeypatch, capsys, command, message):
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in trained.iterdir()}
    assert main([word.format(run=trained) for word in command.split()]) == 2
    assert message in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in trained.iterdir()} and not list(tmp_path.iterdir())


def test_a_checkpoint_of_a_loop_of_one_s_own(tmp_path):
    model = mvlib.create_model("test_vit", num_classes=3, in_chans=1, img_size=64, global_pool="avg")
    optimizer = mvlib.optim.create_optimizer_v2(model, opt="adamw", lr=1e-3)
    torch.save(mvlib.train.TrainState(model, optimizer).state_dict(), tmp_path / "checkpoint.pth")
    assert main(["clean", str(tmp_path / "checkpoint.pth"), "--output", str(tmp_path / "w.safetensors")]) == 0
    image = torch.randn(1, 1, 64, 64)
    files = [tmp_path / "checkpoint.pth", tmp_path / "w.safetensors"]
    assert common_facts(files) == common_facts(files[:1]), "whatever the format"
    for name in ("checkpoint.pth", "w.safetensors"):
        again = mvlib.create_model("test_vit", checkpoint_path=tmp_path / name).eval()
        assert torch.equal(again(image), model.eval()(image))
        assert mvlib.create_model("test_vit", checkpoint_path=tmp_path / name, num_classes=5).num_classes == 5


def test_averaging(trained, tmp_path):
    best = choose_checkpoints(trained, count=2)
    assert len(best) == 2
    metrics = [read_checkpoint(path)["metric"] for path in best]
    assert metrics == sorted((read_checkpoint(path)["metric"] for path in trained.glob("checkpoint*")),
                             reverse=True)[:2]
    plain, = choose_checkpoints(trained, count=1, use_ema=False)
    history = read_checkpoint(trained / "last.pth.tar")["history"]
    assert read_checkpoint(plain)["history"][-1]["eval_top1"] == max(row["eval_top1"] for row in history)
    mean = average_checkpoints(best)
    states = [read_checkpoint(path)["state_dict_ema"] for path in best]
    key = next(iter(states[0]))
    torch.testing.assert_close(mean[key], (states[0][key] + states[1][key]) / 2)
    path = write_weights(clean(mean), tmp_path / "mean.safetensors")
    mvlib.create_model("test_resnet", num_classes=4, checkpoint_path=path)


def clean(state):
    return {key: value for key, value in state.items() if ".aux_bn." not in key}


def test_all_are_each_averaged_once_whatever_their_names(trained, tmp_path):
    """last and model_best are other names of two of them."""
    assert main(["average", str(trained), "--no-sort", "--output", str(tmp_path / "all.PTH")]) == 0
    states = [read_checkpoint(path)["state_dict_ema"] for path in sorted(trained.glob("checkpoint-*"))]
    mean = torch.load(tmp_path / "all.PTH")["state_dict"]
    for key in (key for key, value in mean.items() if value.is_floating_point()):
        torch.testing.assert_close(mean[key], sum(state[key] for state in states) / len(states))


def altered(trained, folder, **changes):
    """Two checkpoints of a run, the second changed."""
    for number, path in enumerate(sorted(trained.glob("checkpoint-*"))[:2]):
        data = read_checkpoint(path)
        torch.save({**data, **changes} if number else data, folder / path.name)
    return sorted(folder.glob("checkpoint-*"))


def test_a_mean_of_averages_and_weights_is_refused(trained, tmp_path):
    files = altered(trained, tmp_path, state_dict_ema=None)
    with pytest.raises(CheckpointError, match="holds an average of the weights, and .* none: --no-use-ema"):
        average_checkpoints(files)
    assert average_checkpoints(files, use_ema=False)


def test_nan_is_left_out_or_said(trained, tmp_path, caplog):
    files = altered(trained, tmp_path, metric=math.nan)
    assert choose_checkpoints(tmp_path) == files[:1]
    assert f"{files[1]} is left out: its metric is NaN" in caplog.text
    state = {key: value * math.nan if value.is_floating_point() else value
             for key, value in read_checkpoint(files[0])["state_dict_ema"].items()}
    files = altered(trained, tmp_path, state_dict_ema=state)
    with pytest.raises(CheckpointError, match="holds NaN, in .*: a mean with it is NaN"):
        average_checkpoints(files)
    written = tmp_path / "clean.SAFETENSORS"
    assert main(["clean", str(files[1]), "--output", str(written)]) == 0
    assert "holds NaN, in" in caplog.text
    assert mvlib.loading.read_state_dict(written).keys() == clean(state).keys()


def test_damaged_weights_are_not_made_into_others(trained, tmp_path, capsys):
    path = altered(trained, tmp_path)[1]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    for words in (["clean", path], ["average", tmp_path], ["average", tmp_path, "--no-sort"]):
        assert main([*map(str, words), "--output", str(tmp_path / "x.pth")]) == 2
        assert "the checksum of" in capsys.readouterr().err and not (tmp_path / "x.pth").exists()


def test_a_metric_without_the_average_is_that_of_the_weights(trained):
    history = read_checkpoint(trained / "last.pth.tar")["history"]
    ranked, = rank_checkpoints(trained, count=1, use_ema=False)
    assert ranked.value == history[ranked.epoch]["eval_top1"] and f"checkpoint-{ranked.epoch}." in str(ranked)


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_a_disk_that_is_full_is_said_in_a_line(trained, tmp_path, ending):
    code = ("import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); import torch; "
            "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)); from mvlib.cli import main; "
            f"print(main(['clean', '{trained}/last.pth.tar', '--output', 'x.{ending}']))")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "2\n" and f"x.{ending}" in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not list(tmp_path.iterdir())


def test_cleaning(trained, tmp_path):
    state = clean_checkpoint(trained / "last.pth.tar")
    assert not any("aux_bn" in key for key in state)
    path = write_weights(state, tmp_path / "w.pth", add_hash=True)
    import hashlib
    assert path.stem == f"w-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"
    mvlib.create_model("test_resnet", num_classes=4, checkpoint_path=path)
    with pytest.raises(ConfigError, match="exists"):
        write_weights(state, tmp_path / "w.pth", add_hash=True, overwrite=False)


@pytest.mark.parametrize("metric", ["top1", "loss"])
def test_averaging_ranks_as_a_run_does(metric, tmp_path):
    store = CheckpointStore(tmp_path, decreasing=metric == "loss")
    for epoch, value in enumerate([math.nan, 2.0, 2.0, 1.0, 2.0]):
        store.save_epoch({"state_dict": {"w": torch.zeros(1)}, "epoch": epoch + 1, "metric": value,
                          "args": {"eval_metric": metric}}, epoch, value)
    best = [int(path.name.split(".")[0].partition("-")[2]) for path in choose_checkpoints(tmp_path, "checkpoint-*")]
    assert best == ([3, 4, 2, 1] if metric == "loss" else [4, 2, 1, 3]) and best[0] == store.best_epoch


def test_what_averaging_refuses(trained, tmp_path):
    with pytest.raises(ConfigError, match="no checkpoints in .* match"):
        choose_checkpoints(tmp_path)
    with pytest.raises(ConfigError, match="there are no checkpoints to average"):
        average_checkpoints([])
    torch.save({"w": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="is not of the same model as"):
        average_checkpoints([trained / "last.pth.tar", tmp_path / "other.pth"])
    data = read_checkpoint(trained / "last.pth.tar")
    for key, value in (("arch", "test_vit"), ("classes", ["a", "b", "c", "d"])):
        torch.save({**data, key: value}, tmp_path / "other.pth")
        with pytest.raises(CheckpointError, match=f"is not of the same model as .*: '{key}' is"):
            average_checkpoints([trained / "last.pth.tar", tmp_path / "other.pth"])
    (tmp_path / "bad.pth").write_bytes(b"nothing")
    with pytest.raises(CheckpointError):
        clean_checkpoint(tmp_path / "bad.pth")
