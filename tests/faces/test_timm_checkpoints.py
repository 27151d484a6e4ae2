"""Checkpoints and optimizers' states go from timm's runs to ours and back; training goes on as if nothing had been."""

import argparse
import copy
import re

import pytest
import timm.models
import timm.optim
import timm.utils
import torch
from torch import nn

import mvlib.timm as face
from mvlib.train.checkpoint import read_checkpoint

SIDES = [(face, timm), (timm, face)]
BOTH_WAYS = pytest.mark.parametrize("source, target", SIDES, ids=["from mvlib", "from timm"])
NAME = "resnet10t"
COMMON = ["sgd", "adamw", "lamb", "lion", "adopt", "muon", "adan", "laprop", "adafactor", "adafactorbv"]
OTHERS = ["momentum", "adam", "nadamw", "mars", "rmsproptf", "madgrad", "lars", "adamp", "sgdp", "sgdw", "novograd",
          "lookahead_adamw", "adamuon", "cadamw"]
OPTIMIZERS = [*COMMON, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]


class Run:
    """A model in training, as timm's script goes about it."""

    def __init__(self, side, opt="adamw", seed=0, folder=""):
        self.side = side
        torch.manual_seed(seed)
        self.model = timm.create_model(NAME, num_classes=3, stem_width=8, channels=(8, 8, 16, 16))
        if side is face:
            ours = face.create_model(NAME, num_classes=3, stem_width=8, channels=(8, 8, 16, 16))
            ours.load_state_dict(self.model.state_dict())
            self.model = ours
        self.optimizer = side.optim.create_optimizer_v2(self.model, opt, lr=0.01, weight_decay=0.05)
        self.ema = side.utils.ModelEmaV3(self.model, decay=0.9)
        self.scaler = side.utils.NativeScaler("cpu")
        self.args = argparse.Namespace(model=NAME, lr=0.01, opt=opt)
        self.saver = side.utils.CheckpointSaver(
            self.model, self.optimizer, args=self.args, model_ema=self.ema, amp_scaler=self.scaler,
            checkpoint_dir=str(folder), recovery_dir=str(folder), max_history=2)

    def train(self, steps, first=0):
        self.model.train()
        for step in range(first, first + steps):
            generator = torch.Generator().manual_seed(step)
            loss = self.model(torch.randn(4, 3, 32, 32, generator=generator)).square().mean()
            self.optimizer.zero_grad()
            self.scaler(loss, self.optimizer)
            self.ema.update(self.model, step=step)
        return self


def same(mine, theirs, rtol=1e-4, atol=1e-5):
    mine, theirs = mine.state_dict(), theirs.state_dict()
    assert mine.keys() == theirs.keys()
    torch.testing.assert_close(mine, theirs, rtol=rtol, atol=atol)


def small(seed):
    torch.manual_seed(seed)
    wide = nn.Sequential(nn.Linear(6 * 36, 136), nn.Linear(136, 140))  # so wide that Adafactor factors it
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.Tanh(), nn.Flatten(), wide, nn.Linear(140, 5))


def steps(model, optimizer, numbers):
    for number in numbers:
        generator = torch.Generator().manual_seed(number)
        optimizer.zero_grad()
        (model(torch.randn(4, 3, 8, 8, generator=generator)) - 1).square().mean().backward()
        optimizer.step()


@pytest.mark.sample(3)
@BOTH_WAYS
@pytest.mark.parametrize("opt", OPTIMIZERS)
def test_an_optimizers_state_goes_on_in_the_other(source, target, opt):
    models = [small(0), small(1), small(2)]
    optimizers = [side.optim.create_optimizer_v2(model, opt, lr=0.01, weight_decay=0.05)
                  for side, model in zip((source, target, target), models)]
    steps(models[0], optimizers[0], range(7))
    for model in models[1:]:
        model.load_state_dict(models[0].state_dict())
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    for model, optimizer in zip(models, optimizers):
        steps(model, optimizer, range(7, 12))
    same(models[1], models[0])
    with pytest.raises(AssertionError):  # without the state it is another way
        same(models[2], models[0])


@BOTH_WAYS
def test_a_run_resumes_from_the_others_checkpoint(source, target, tmp_path):
    run = Run(source, folder=tmp_path).train(4)
    run.saver.save_checkpoint(0, metric=0.5)
    run.saver.save_recovery(1, 7)
    other = Run(target, seed=1)
    epoch = target.models.resume_checkpoint(
        other.model, str(tmp_path / "last.pth.tar"), other.optimizer, other.scaler)
    target.models.load_checkpoint(other.ema.module, str(tmp_path / "last.pth.tar"), use_ema=True)
    assert epoch == 1
    assert other.scaler.state_dict() == run.scaler.state_dict()
    same(other.ema.module, run.ema.module, rtol=0, atol=0)
    for one in (run, other):
        one.train(3, first=4)
    same(other.model, run.model)
    same(other.ema, run.ema)
    assert target.models.resume_checkpoint(other.model, str(tmp_path / "recovery-1-7.pth.tar"), log_info=False) == 2


@BOTH_WAYS
def test_a_task_resumes_from_the_others_checkpoint(source, target, tmp_path):
    import timm.task  # noqa: F401

    run = Run(source)
    task = source.task.ClassificationTask(run.model)
    task.setup_ema(decay=0.5)
    saver = source.utils.CheckpointSaver(
        None, run.optimizer, amp_scaler=run.scaler, checkpoint_dir=str(tmp_path), task=task)
    run.train(2)
    task.update_ema(step=1)
    run.train(1, first=2)
    saver.save_checkpoint(3)
    other = Run(target, seed=1)
    resumed = target.task.ClassificationTask(other.model)
    path = str(tmp_path / "checkpoint-3.pth.tar")
    assert target.task.resume_task_checkpoint(resumed, path, other.optimizer, other.scaler) == 4
    resumed.setup_ema(decay=0.5)
    target.task.load_task_ema_checkpoint(resumed, path)
    same(resumed.get_trainable_module(ema=True), task.get_trainable_module(ema=True), rtol=0, atol=0)
    for one in (run, other):
        one.train(2, first=3)
    same(other.model, run.model)


def test_our_training_reads_what_timms_saver_wrote_and_what_the_faces_did(tmp_path):
    for side in (face, timm):
        (folder := tmp_path / side.__name__).mkdir()
        Run(side, folder=folder).train(1).saver.save_checkpoint(5, metric=0.25)
    ours, timms = (read_checkpoint(tmp_path / side.__name__ / "last.pth.tar") for side in (face, timm))
    assert ours.keys() == timms.keys()
    for key in ("epoch", "arch", "version", "metric", "args"):
        assert ours[key] == timms[key], key
    assert timms["saver"] == ours["saver"]
    assert list(ours["state_dict_ema"]) == list(timms["state_dict_ema"])
    metadata = face.utils.load_checkpoint_metadata(tmp_path / "timm" / "last.pth.tar")
    assert metadata["args"].model == NAME and metadata["epoch"] == 5


@pytest.mark.parametrize("decreasing", [False, True])
@pytest.mark.parametrize("metrics", [
    [1.0, 3.0, 2.0, 2.0, 5.0, 4.0, 0.0], [None] * 5, [None, 1.0, None, 2.0, None, 3.0, None, 0.5], [3.0, 2.0, 1.0, 1.0],
], ids=str)
def test_the_same_checkpoints_are_kept_and_said(metrics, decreasing, tmp_path, caplog):
    caplog.set_level("INFO")
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    savers = []
    for side in (face, timm):
        (folder := tmp_path / side.__name__).mkdir()
        savers.append(side.utils.CheckpointSaver(model, optimizer, checkpoint_dir=str(folder), recovery_dir=str(folder),
                                                 decreasing=decreasing, max_history=2))
    for epoch, metric in enumerate(metrics):
        with torch.no_grad():
            model.bias.fill_(epoch)
        assert savers[0].save_checkpoint(epoch, metric) == savers[1].save_checkpoint(epoch, metric)
        for saver in savers:
            saver.save_recovery(epoch, 10)
        assert savers[0].state_dict() == savers[1].state_dict()
    said = [[re.findall(r"checkpoint-\d+", record.getMessage()) for record in caplog.records
             if record.name.startswith(side) and record.getMessage().startswith("Current checkpoints:")]
            for side in ("mvlib", "timm")]
    assert said[0] == said[1] != []
    assert savers[0].save_milestone(3).endswith("milestone-3.pth.tar") and savers[1].save_milestone(3)
    kept = [{path.name: torch.load(path)["epoch"] for path in (tmp_path / side.__name__).iterdir()}
            for side in (face, timm)]
    assert kept[0] == kept[1]
    assert [saver.find_recovery().rsplit("/")[-1] for saver in savers] == [min(
        name for name in kept[0] if name.startswith("recovery"))] * 2

    # a new process goes on, each with the other's files
    resumed = [side.utils.CheckpointSaver(model, optimizer, checkpoint_dir=str(tmp_path / other.__name__),
                                          decreasing=decreasing, max_history=2) for side, other in SIDES]
    for saver in resumed:
        assert saver.load_state_dict_from_checkpoint(f"{saver.checkpoint_dir}/last.pth.tar")
    assert resumed[0].state_dict() == resumed[1].state_dict()
    assert resumed[0].save_checkpoint(9, 1.5) == resumed[1].save_checkpoint(9, 1.5)
    assert resumed[0].state_dict() == resumed[1].state_dict()


def test_a_checkpoint_that_knows_of_no_others(tmp_path, caplog):
    torch.save({"state_dict": {}}, tmp_path / "x.pth.tar")
    saver = face.utils.CheckpointSaver(nn.Linear(1, 1), None)
    assert not saver.load_state_dict_from_checkpoint(str(tmp_path / "x.pth.tar"))
    assert "says nothing of the run's other checkpoints: the ranking starts anew" in caplog.text
    with pytest.raises(ValueError, match="CheckpointSaver keeps 1 checkpoint or more, not 0"):
        face.utils.CheckpointSaver(nn.Linear(1, 1), None, max_history=0)


def test_a_resumed_optimizer_finds_its_parameters_by_name(tmp_path):
    """A model that has them in another order than the one that was saved."""
    def net(order):
        torch.manual_seed(0)
        layers = {"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)}
        return nn.ModuleDict({name: layers[name] for name in order})

    before, after = net("ab"), net("ba")
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9) for model in (before, after)]
    (before["a"](torch.ones(4)).sum() + before["b"](2 * torch.ones(4)).sum()).backward()
    optimizers[0].step()
    face.utils.CheckpointSaver(before, optimizers[0], checkpoint_dir=str(tmp_path)).save_checkpoint(0)
    face.models.resume_checkpoint(after, str(tmp_path / "last.pth.tar"), optimizers[1])
    momentum = [optimizer.state[model["a"].weight]["momentum_buffer"] for model, optimizer in
                zip((before, after), optimizers)]
    assert torch.equal(*momentum)
