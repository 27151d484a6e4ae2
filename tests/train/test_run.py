"""Whole runs: what they leave behind, what they refuse, and that nothing stops them for good."""

import csv
import json
import logging
import os
import random
import re
import shlex
import shutil
import signal
import sys
import time

import pytest
import torch
from PIL import Image

import mvlib
from mvlib.cli import main
from mvlib.errors import CheckpointError, ConfigError, DataError
from mvlib.threads import cpu_count
from mvlib.train import engine, newest_checkpoint, parse_train_arguments, read_checkpoint
from mvlib.train.distributed import _meeting_place
from mvlib.train.run import EXIT_STOPPED, _Stop, train

from .conftest import NAMES, QUICK

HARD = ("--model-ema --model-ema-decay 0.9 --mixup 0.2 --cutmix 1.0 --reprob 0.5 --aa rand-m9-mstd0.5-inc1 -j 2 "
        "--drop 0.2 --recovery-interval 3 --epochs 3").split()
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
PLAIN = "--model test_vit --smoothing 0 --opt sgd --no-aug".split()  # a model without batch norm


def arguments(data, folder, *flags):
    return parse_train_arguments([str(data), *QUICK, "--output", str(folder), "--experiment", "run", *flags])


def weights(folder) -> dict:
    return newest_checkpoint(folder)[1]


def assert_same_run(one, other) -> None:
    """Weights, averages, optimizer and schedule are equal to the bit."""
    assert (one["epoch"], one["batch"], one["updates"]) == (other["epoch"], other["batch"], other["updates"])
    for key in ("state_dict", "state_dict_ema"):
        assert one[key].keys() == other[key].keys()
        assert all(torch.equal(value, other[key][name]) for name, value in one[key].items())
    assert one["optimizer"]["param_groups"] == other["optimizer"]["param_groups"]
    for index, state in one["optimizer"]["state"].items():
        for name, value in state.items():
            theirs = other["optimizer"]["state"][index][name]
            assert torch.equal(value, theirs) if isinstance(value, torch.Tensor) else value == theirs
    assert one["scheduler"] == other["scheduler"]
    strip = [{k: v for k, v in row.items() if k != "images_per_second"} for row in one["history"]]
    assert strip == [{k: v for k, v in row.items() if k != "images_per_second"} for row in other["history"]]


def test_what_a_run_leaves_behind(digits, tmp_path, capsys):
    args = arguments(digits, tmp_path, "--model-ema", "--epochs", "2")
    args.no_export = False
    assert train(args) == 0
    folder = tmp_path / "run"
    assert {path.name for path in folder.iterdir()} == {
        "args.yaml", "summary.csv", "curves.png", "checkpoint-0.pth.tar", "checkpoint-1.pth.tar", "last.pth.tar",
        "model_best.pth.tar", "export"}
    rows = list(csv.DictReader(open(folder / "summary.csv")))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert {"train_loss", "eval_loss", "eval_top1", "eval_top5", "ema_top1", "lr"} <= rows[0].keys()
    assert Image.open(folder / "curves.png").size[0] > 500
    checkpoint = read_checkpoint(folder / "last.pth.tar")
    assert checkpoint["classes"] == sorted(NAMES) and checkpoint["arch"] == "test_resnet"
    image = next((digits / "validation" / "one").iterdir())
    assert main(["predict", "--model", f"local-dir:{folder / 'export'}", str(image)]) == 0
    assert set(re.findall(r"%  (\w+)", capsys.readouterr().out)) == set(NAMES)
    again = parse_train_arguments(["--config", str(folder / "args.yaml")])
    assert vars(again) | {"config": None} == vars(args) | {"config": None}


def test_the_export_is_what_was_measured_best(digits, tmp_path):
    """At the size of the training, not at that of published weights; the average though it is kept on the CPU; over
    all sessions."""
    flags = ["--model", "resnet10t", "--model-ema", "--model-ema-force-cpu", "--model-ema-decay", "0.5", "--epochs"]
    args = arguments(digits, tmp_path, *flags, "1")
    args.no_export = False
    assert train(args) == 0
    folder = tmp_path / "run"
    first = read_checkpoint(folder / "checkpoint-0.pth.tar")
    row = first["history"][0]
    assert row["ema_loss"] != row["eval_loss"] and first["metric"] == row["ema_top1"]
    assert main(["validate", str(digits), "--model", f"local-dir:{folder / 'export'}", "-j", "0", "--results-file",
                 str(tmp_path / "r.json")]) == 0
    measured, = json.loads((tmp_path / "r.json").read_text())
    assert (measured["img_size"], measured["top1"]) == (32, pytest.approx(row["ema_top1"]))
    assert measured["loss"] == pytest.approx(row["ema_loss"], rel=1e-3)

    row["ema_top1"] = first["metric"] = 99.0  # better than what follows
    torch.save(first, folder / "checkpoint-0.pth.tar")
    assert main(["train", "--resume", str(folder), "--epochs", "2"]) == 0
    config = json.loads((folder / "export" / "config.json").read_text())
    assert config["mvlib"]["trained"] == {"epoch": 0, "epochs": 2, "eval_metric": "top1", "average": True}
    assert config["mvlib"]["metrics"]["validation"]["top1"] == 99 and "base_model" not in config["mvlib"]
    assert not {"tag", "license", "test_input_size"} & config["pretrained_cfg"].keys()
    assert config["pretrained_cfg"]["pool_size"] == [1, 1]
    exported = mvlib.create_model(f"local-dir:{folder / 'export'}").state_dict()
    assert all(torch.equal(value, exported[key]) for key, value in first["state_dict_ema"].items())


def test_a_run_that_begins_with_a_repository(digits, tmp_path):
    """Its architecture decides what the model is told; its name stays in what is exported."""
    for name, size in (("test_resnet", 32), ("test_vit", 48)):
        base = mvlib.save_for_hub(mvlib.create_model(name), tmp_path / name, license="cc-by-4.0")
        text = (base / "config.json").read_text().replace('"input_size"', '"tag": "mine", "input_size"')
        (base / "config.json").write_text(text)
        args = arguments(digits, tmp_path / "runs", "--model", f"local-dir:{base}", "--pretrained", "--epochs", "1",
                         "--img-size", str(size))
        args.no_export, args.experiment = False, name
        assert train(args) == 0
        export = tmp_path / "runs" / name / "export"
        config = mvlib.create_model(f"local-dir:{export}").weights_config
        assert config.input_size == (3, size, size) and config.tag is None
        assert config.base_model == {"name": f"{name}.mine", "license": "cc-by-4.0"}
        assert main(["validate", str(digits), "--model", f"local-dir:{export}", "--img-size", "64", "-j", "0"]) == 0


def test_a_run_is_a_function_of_its_arguments(digits, tmp_path):
    """Not of the number of workers, and not of what the process drew before."""
    for name, workers in (("a", "0"), ("b", "2")):
        torch.manual_seed(random.randrange(10**6))
        args = arguments(digits, tmp_path, *HARD, "--epochs", "1", "-j", workers)
        args.experiment = name
        assert train(args) == 0
    assert_same_run(weights(tmp_path / "a"), weights(tmp_path / "b"))


def kill_later(process, folder, number) -> int:
    """Wait for a random number of updates, then send a signal. How far the run came is seen from its output."""
    wanted, seen = random.randrange(1, 20), 0
    for line in process.stdout:
        seen += "batch" in line and "loss" in line
        if seen >= wanted:
            break
    time.sleep(random.random() / 20)
    process.send_signal(number)
    return wanted


@pytest.fixture(scope="module")
def whole(digits, tmp_path_factory):
    """The last checkpoint of a run that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    assert train(arguments(digits, folder, *HARD, "-j", "0")) == 0
    return weights(folder / "run")


def test_kill_and_resume(start, run_here, tmp_path, whole):
    process = start(*HARD, experiment="killed")
    at = kill_later(process, tmp_path / "killed", signal.SIGKILL)
    process.wait()
    status, text = run_here(*HARD, "--resume", experiment="killed")
    assert status == 0, f"killed after {at} updates: {text}"
    assert_same_run(whole, weights(tmp_path / "killed"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_saved(start, tmp_path, capsys, number, whole):
    flags = [*HARD, "-j", "0", "--recovery-interval", "0"]
    process = start(*flags, experiment="stopped")
    kill_later(process, tmp_path / "stopped", number)
    rest = process.stdout.read()
    assert process.wait() == EXIT_STOPPED, rest
    assert f"stopped by {signal.Signals(number).name}" in rest
    assert main(shlex.split(re.search(r"'mvlib (train --resume .*)' goes on", rest)[1])) == 0
    assert "going on from" in capsys.readouterr().err
    assert_same_run(whole, weights(tmp_path / "stopped"))


@pytest.mark.sample(2)
@pytest.mark.parametrize("dialect", ["timm", "torchvision"])
def test_a_run_goes_on_by_its_folder_alone(digits, tmp_path, dialect):
    """Wherever that is now, from its first epoch too; flags go before a recipe, and that before the run's arguments."""
    flags = ["--dialect", dialect, "--epochs", "1", "--model-ema", "--start-epoch", "0"]
    data = digits
    if dialect == "torchvision":
        data = copy(digits, tmp_path / "data")
        (data / "validation").rename(data / "val")
        flags += ["--val-crop-size", "32", "--val-resize-size", "32"]
    assert train(arguments(data, tmp_path, *flags)) == 0
    (tmp_path / "run").rename(tmp_path / "moved")
    (tmp_path / "recipe.yaml").write_text("seed: 7\nepochs: 5\n")
    args = parse_train_arguments(["--resume", str(tmp_path / "moved"), "--config", str(tmp_path / "recipe.yaml"),
                                  "--epochs", "2"])
    assert (args.dialect, args.model_ema, args.seed, args.epochs, args.lr) == (dialect, True, 7, 2, 0.02)
    assert train(args) == 0
    assert not (tmp_path / "run").exists()
    assert (weights(tmp_path / "moved")["epoch"], len(weights(tmp_path / "moved")["history"])) == (2, 2)
    for checkpoint in (tmp_path / "moved").glob("*.pth.tar"):
        checkpoint.unlink()
    assert main(["train", "--resume", str(tmp_path / "moved"), "--epochs", "1"]) == 0
    assert weights(tmp_path / "moved")["epoch"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [(), pytest.param(TORCHRUN, marks=pytest.mark.slow)])
def test_a_signal_to_the_group_ends_the_run_saved(start, tmp_path, launcher):
    """As terminals, timeout, SLURM and systemd send it: the workers get it, too."""
    process = start(*PLAIN, "-j", "1", "-b", "4", "--epochs", "99", experiment="stopped", launcher=launcher,
                    start_new_session=True)
    for line in process.stdout:
        if "batch 5/" in line:
            break
    os.killpg(process.pid, signal.SIGTERM)
    rest = process.stdout.read()
    assert process.wait() == (1 if launcher else EXIT_STOPPED), rest  # torchrun has no way to tell
    assert "stopped by SIGTERM in epoch 0" in rest and "died" not in rest
    assert len(list((tmp_path / "stopped").glob("recovery-0-*"))) == 1
    if not launcher:
        assert "Traceback" not in rest


@pytest.mark.slow
def test_a_signal_in_the_validation_ends_the_run_saved(digits, tmp_path, monkeypatch, capsys):
    """The epoch that was trained is not trained again, and measured all the same."""
    flags = ["--model-ema", "--epochs", "2"]
    assert train(arguments(digits, tmp_path / "whole", *flags)) == 0
    once = iter([signal.SIGINT])

    def validate(*args, **kwargs):
        for number in once:
            os.kill(os.getpid(), number)
        return engine.validate(*args, **kwargs)

    monkeypatch.setattr("mvlib.train.run.validate", validate)
    assert train(arguments(digits, tmp_path, *flags)) == EXIT_STOPPED
    assert "stopped by SIGINT" in capsys.readouterr().err
    stopped = weights(tmp_path / "run")
    assert (stopped["epoch"], stopped["batch"], stopped["history"]) == (0, stopped["updates"], [])
    assert train(arguments(digits, tmp_path, *flags, "--resume")) == 0
    assert_same_run(weights(tmp_path / "whole" / "run"), weights(tmp_path / "run"))


def test_what_cannot_do_what_it_says_is_a_line(digits, tmp_path, capsys, recwarn):
    assert train(arguments(digits, tmp_path, "--epochs", "1", "--warmup-epochs", "5", "-j", "99")) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "warmup" in line or "workers" in line]
    assert [line.partition(" ")[2] for line in lines] == [
        "1 epochs of training, all of them warmup (--warmup-epochs 5): the learning rate never reaches --lr; "
        "--warmup-epochs 0 begins with it",
        f"--workers 99 on {cpu_count()} cores: as many workers as cores"]
    assert not [warning for warning in recwarn if "DataLoader" in str(warning.message)]


def test_one_interrupt_that_comes_twice_is_one(monkeypatch):
    now = iter([10.0, 10.1, 12.0])
    monkeypatch.setattr("mvlib.train.run.time.monotonic", lambda: next(now))
    stop = _Stop()
    stop(signal.SIGINT, None)
    stop(signal.SIGINT, None)  # timeout's, to the process and to its group
    with pytest.raises(KeyboardInterrupt):
        stop(signal.SIGINT, None)


def test_a_damaged_checkpoint_gives_way(digits, tmp_path, capsys):
    assert train(arguments(digits, tmp_path, "--epochs", "2")) == 0
    newest = tmp_path / "run" / "checkpoint-1.pth.tar"
    newest.write_bytes(newest.read_bytes()[:-500])
    capsys.readouterr()
    assert train(arguments(digits, tmp_path, "--epochs", "2", "--resume")) == 0
    assert capsys.readouterr().err.count("going on from the checkpoint before it") == 1
    assert weights(tmp_path / "run")["epoch"] == 2
    logger = logging.getLogger("mvlib")
    assert (logger.handlers, logger.level, logger.propagate) == ([], logging.NOTSET, True), "left as it was found"


@pytest.mark.slow
def test_a_resumed_optimizer_s_own_values_are_said_to_stay(digits, tmp_path, capfd):
    assert train(arguments(digits, tmp_path, "--epochs", "1")) == 0
    first = str(tmp_path / "run" / "last.pth.tar")
    for number, flags in enumerate(([], ["--no-resume-opt"])):
        capfd.readouterr()
        assert train(arguments(digits, tmp_path / str(number), "--epochs", "2", "--lr", "0.001", "--momentum", "0.5",
                               "--resume", first, *flags)) == 0
        out = "".join(capfd.readouterr())
        assert "lr: 0.02 -> 0.001" in out
        said = "the optimizer goes on with the checkpoint's lr, momentum; --no-resume-opt begins with those given"
        assert (said in out) == (not flags)


def test_what_resume_refuses(digits, tmp_path):
    assert train(arguments(digits, tmp_path, "--epochs", "1")) == 0
    with pytest.raises(ConfigError, match="already holds a run: --resume goes on with it"):
        train(arguments(digits, tmp_path))
    with pytest.raises(ConfigError, match="is a checkpoint of 'test_resnet', and this run trains 'test_vit'"):
        train(arguments(digits, tmp_path, "--resume", "--model", "test_vit"))
    with pytest.raises(ConfigError, match=r"does not fit the model: 'conv1.*' is .* in the checkpoint and"):
        train(arguments(digits, tmp_path, "--resume", "--in-chans", "1"))
    with pytest.raises(FileNotFoundError, match="there is no checkpoint .*nowhere"):
        train(arguments(digits, tmp_path, "--resume", str(tmp_path / "nowhere")))
    (tmp_path / "run" / "bad.pth.tar").write_bytes(b"no checkpoint")
    shutil.copy(tmp_path / "run" / "bad.pth.tar", tmp_path / "alone.pth.tar")
    with pytest.raises(CheckpointError, match="no checkpoint in .* is whole"):
        train(arguments(digits, tmp_path, "--resume", str(tmp_path / "alone.pth.tar")))


def test_a_checkpoint_within_an_epoch_wants_as_many_images_a_step(digits, tmp_path):
    assert train(arguments(digits, tmp_path, "--epochs", "1")) == 0
    path = tmp_path / "run" / "checkpoint-0.pth.tar"
    data = read_checkpoint(path)
    torch.save({**data, "epoch": 0, "batch": 3, "world_size": 2, "images_per_batch": 16}, path)
    with pytest.raises(ConfigError, match="in the middle of an epoch, by 2 processes with 8 images each; this run has "
                                          "1 with 8"):
        train(arguments(digits, tmp_path, "--resume"))


def copy(digits, folder):
    shutil.copytree(digits, folder)
    return folder


def test_classes_that_differ(digits, tmp_path):
    data = copy(digits, tmp_path / "data")
    shutil.rmtree(data / "validation" / "two")
    (data / "validation" / "zero").rename(data / "validation" / "zzz")
    with pytest.raises(DataError) as error:
        train(arguments(data, tmp_path))
    assert "two" in str(error.value) and "zzz" in str(error.value)


def test_empty_folder(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="no images"):
        train(arguments(tmp_path, tmp_path))


def test_too_few_classes_in_the_model(digits, tmp_path):
    with pytest.raises(ConfigError, match="--num-classes 3, and the data set has 4 classes"):
        train(arguments(digits, tmp_path, "--num-classes", "3"))


def test_too_large_a_batch(digits, tmp_path):
    with pytest.raises(ConfigError, match="batch_size 100 is larger than the 64 samples of an epoch"):
        train(arguments(digits, tmp_path, "-b", "100"))


@pytest.mark.parametrize(("flags", "text"), [
    (["--opt", "admaw"], "adamw"),
    (["--sched", "cosin"], "cosine"),
    (["--aa", "rond-m9"], "rand"),
    (["--freeze", "layer9"], "has no such module"),
    (["--bn-eps", "0.01"], "'test_resnet' has no such argument"),
    (["--freeze-stages", "9"], "has 4 stages"),
    (["--device", "cuda"], "there is no GPU that torch can use"),
])
def test_names_that_do_not_exist(digits, tmp_path, flags, text):
    if flags[-1] == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError) as error:
        train(arguments(digits, tmp_path, *flags))
    assert text in str(error.value)


def test_unreadable_images_are_named_and_left_out(digits, tmp_path, run_here):
    data = copy(digits, tmp_path / "data")
    for name in ("train/one/3.png", "validation/two/17.png"):
        (data / name).write_bytes(b"broken")
    status, text = run_here("--epochs", "1", data=data)
    assert status == 0, text
    assert "1 training images could not be read in this epoch" in text and "one/3.png: not an image" in text
    assert "1 validation images could not be read in this epoch" in text and "two/17.png: not an image" in text


def test_infinite_loss_names_the_last_good_checkpoint(run_here):
    status, text = run_here("--lr", "1e30", "--epochs", "3", "--sched", "constant")
    assert status == 2
    assert re.search(r"the loss is (nan|inf) in epoch \d, batch \d+ \(update \d+\), at learning rate 1e\+30; "
                     r"the last good checkpoint is", text), text


def test_amp_without_a_gpu_is_said(run_here):
    status, text = run_here("--amp", "--force", "--epochs", "1")
    assert status == 0
    assert text.count("--amp on a CPU: bfloat16 autocast, which needs no loss scaling") == 1


def test_freezing_and_layer_decay(digits, tmp_path):
    assert train(arguments(digits, tmp_path, "--freeze-stages", "2", "--layer-decay", "0.7", "--epochs", "1")) == 0
    saved = weights(tmp_path / "run")["state_dict"]
    torch.manual_seed(42)
    fresh = mvlib.create_model("test_resnet", pretrained=False, num_classes=4).state_dict()
    assert torch.equal(fresh["layer2.0.conv1.weight"], saved["layer2.0.conv1.weight"])
    assert not torch.equal(fresh["layer3.0.conv1.weight"], saved["layer3.0.conv1.weight"])


def test_a_teacher(digits, tmp_path):
    assert train(arguments(digits, tmp_path, "--epochs", "1")) == 0
    args = arguments(digits, tmp_path, "--teacher", "test_resnet", "--epochs", "1", "--teacher-checkpoint",
                     str(tmp_path / "run" / "last.pth.tar"))
    args.experiment = "student"
    assert train(args) == 0


def test_two_processes_are_one_with_the_joint_batch(run, run_here, tmp_path):
    status, text = run(*PLAIN, "-b", "4", experiment="two", launcher=TORCHRUN)
    assert status == 0 and "Warning" not in text, text
    status, text = run_here(*PLAIN, "-b", "8", experiment="one")
    assert status == 0, text
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for key, value in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][key], value, rtol=1e-4, atol=1e-6)
    for a, b in zip(one["history"], two["history"]):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-5)
        assert (a["eval_top1"], a["eval_top5"]) == (b["eval_top1"], b["eval_top5"])


def test_a_restarted_group_does_not_meet_the_dead(monkeypatch):
    """torchrun's store outlives its processes, and so do the addresses in it."""
    server = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True)
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": server.port, "RANK": 1, "WORLD_SIZE": 2,
                        "GROUP_WORLD_SIZE": 1, "TORCHELASTIC_USE_AGENT_STORE": True,
                        "TORCHELASTIC_RESTART_COUNT": 0}.items():
        monkeypatch.setenv(name, str(value))
    _meeting_place(0).set("rank 0", "its address")
    assert _meeting_place(0).get("rank 0") == b"its address"
    assert not _meeting_place(1).check(["rank 0"])


@pytest.mark.slow  # by default: runs of two processes, a kill, TORCHELASTIC_RESTART_COUNT (test_timm_checkpoints.py)
def test_a_killed_rank_is_started_again(start, run, tmp_path):
    flags = [*PLAIN, "-b", "4", "--recovery-interval", "2", "--model-ema"]
    status, text = run(*flags, experiment="whole", launcher=TORCHRUN)
    assert status == 0, text
    process = start(*flags, experiment="hurt", launcher=(*TORCHRUN, "--max-restarts", "2"))
    for line in process.stdout:
        if "batch 5/8" in line:
            break
    children = open(f"/proc/{process.pid}/task/{process.pid}/children").read().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    rest = process.stdout.read()
    assert process.wait() == 0, rest
    assert "going on from" in rest
    assert_same_run(weights(tmp_path / "whole"), weights(tmp_path / "hurt"))


@pytest.mark.parametrize(("flags", "message"), [
    (["--batch-size", "1000"], "batch_size 1000 is larger than the 64 samples of an epoch"),
    (["--model-kwargs", "nosuch=1"], "nosuch"),
    (["--opt-kwargs", "nosuch=1"], "nosuch"),
    (["--opt", "adam", "--opt-betas", "2", "3"], "optimizer 'adam': Invalid beta"),
    (["--interpolation", "bilinearr"], "interpolation 'bilinearr' is none of"),
    (["--log-wandb"], "wandb"),
    ([], "mvlib: No space left on device"),
])
def test_a_start_that_fails_leaves_no_folder(digits, tmp_path, capsys, monkeypatch, flags, message):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mvlib.train.run.train_one_epoch", fail)  # the first batch
    monkeypatch.setitem(sys.modules, "wandb", None)
    runs = tmp_path / "new" / "runs"
    assert main(["train", str(digits), *QUICK, "--output", str(runs), *flags]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    runs.mkdir(parents=True)  # what was there before stays
    assert main(["train", str(digits), *QUICK, "--output", str(runs), *flags]) == 2
    assert list(tmp_path.rglob("*")) == [runs.parent, runs]
