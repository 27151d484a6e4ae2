"""Checkpoints that timm's CheckpointSaver wrote: the next epoch's learning rates and averages are timm's."""

import json

import pytest
import timm.optim
import timm.scheduler
import timm.utils
import torch
from timm.models import load_checkpoint, resume_checkpoint

from mvlib.errors import ConfigError
from mvlib.train import engine, parse_train_arguments
from mvlib.train.run import train

from .conftest import QUICK

UPDATES = 8  # an epoch of the digits


class Enough(Exception):
    """An epoch has been seen."""


def arguments(data, folder, *flags):
    return parse_train_arguments([
        str(data), *QUICK, "--output", str(folder), "--experiment", "run", "--epochs", "6", "--warmup-epochs", "2",
        "--model-ema", *flags])


class TimmRun:
    """As timm's training script goes about it, with random images."""

    def __init__(self, args, resume=None):
        torch.manual_seed(0)
        self.args = args
        self.model = timm.create_model(args.model, num_classes=4, **args.model_kwargs)
        self.optimizer = timm.optim.create_optimizer_v2(self.model, **timm.optim.optimizer_kwargs(args))
        epoch = resume_checkpoint(self.model, resume, None if args.no_resume_opt else self.optimizer) if resume else 0
        self.ema = timm.utils.ModelEmaV3(self.model, args.model_ema_decay, use_warmup=args.model_ema_warmup)
        if resume:
            load_checkpoint(self.ema.module, str(resume), use_ema=True)
        self.scheduler, _ = timm.scheduler.create_scheduler_v2(
            self.optimizer, **timm.scheduler.scheduler_kwargs(args), updates_per_epoch=UPDATES)
        self.epoch = epoch if args.start_epoch is None else args.start_epoch
        if self.epoch > 0 and self.scheduler is not None:
            if args.sched_on_updates:
                self.scheduler.step_update(self.epoch * UPDATES)
            else:
                self.scheduler.step(self.epoch)

    def train_one_epoch(self):
        """Learning rates and decays, one an update."""
        seen, updates = [], self.epoch * UPDATES
        self.model.train()
        for _ in range(UPDATES):
            self.optimizer.zero_grad()
            self.model(torch.randn(2, 3, 32, 32)).square().mean().backward()
            rates = [group["lr"] for group in self.optimizer.param_groups]
            self.optimizer.step()
            updates += 1
            self.ema.update(self.model, step=updates)
            seen.append((rates, self.ema.get_decay(updates)))
            if self.scheduler is not None:
                self.scheduler.step_update(updates, 0.0)
        return seen

    def train(self, epochs, folder, ema=True):
        saver = timm.utils.CheckpointSaver(
            self.model, self.optimizer, self.args, self.ema if ema else None, checkpoint_dir=str(folder))
        for self.epoch in range(epochs):
            self.train_one_epoch()
            saver.save_checkpoint(self.epoch, metric=float(self.epoch))
            if self.scheduler is not None:
                self.scheduler.step(self.epoch + 1, float(self.epoch))
        return folder / f"checkpoint-{epochs - 1}.pth.tar"


@pytest.fixture
def seen_by_us(monkeypatch):
    """Learning rates and decays of the first epoch of a run, and the average that it began with."""
    def seen(args):
        rows, averages = [], []
        update = engine._update

        def record(state, options, parameters):
            averages.append({key: value.clone() for key, value in state.ema.module.state_dict().items()})
            count = int(state.ema.n_averaged)
            rows.append(([group["lr"] for group in state.optimizer.param_groups],
                         state.ema.decay_at(count) if count else 0.0))  # the first copies
            update(state, options, parameters)
            if len(rows) == UPDATES:
                raise Enough

        with monkeypatch.context() as patch:
            patch.setattr(engine, "_update", record)
            with pytest.raises(Enough):
                train(args)
        return rows, averages[0]

    return seen


def assert_same(ours, theirs):
    for (rates, decay), (expected_rates, expected_decay) in zip(ours, theirs, strict=True):
        assert rates == pytest.approx(expected_rates) and decay == pytest.approx(expected_decay)


@pytest.mark.sample(6)
@pytest.mark.parametrize(("epochs", "flags"), [
    (1, ""), (4, ""), (1, "--sched-on-updates"), (4, "--sched-on-updates --warmup-prefix --model-ema-warmup"),
    (4, "--sched step --decay-epochs 2 --opt adamw --layer-decay 0.7"), (4, "--sched none"),
    (1, "--no-resume-opt --sched-on-updates"), (1, "--start-epoch 5"),
])
def test_the_next_epoch_is_timms(epochs, flags, digits, tmp_path, seen_by_us):
    path = TimmRun(arguments(digits, tmp_path, *flags.split())).train(epochs, tmp_path)
    args = arguments(digits, tmp_path, *flags.split(), "--resume", str(path))
    expected = TimmRun(args, path)
    ours, average = seen_by_us(args)
    assert_same(ours, expected.train_one_epoch())
    saved = torch.load(path, weights_only=False)["state_dict_ema"]
    assert all(torch.equal(average[key], value) for key, value in saved.items())


def test_what_timm_has_saved_otherwise(digits, tmp_path, seen_by_us, capsys):
    """Before version 2 the number was the next epoch's; a compiled model's keys; no average, no optimizer."""
    path = TimmRun(arguments(digits, tmp_path)).train(3, tmp_path, ema=False)
    data = torch.load(path, weights_only=False)
    data.update(epoch=3, state_dict={f"_orig_mod.{key}": value for key, value in data["state_dict"].items()})
    del data["version"], data["optimizer"]
    torch.save(data, path)
    args = arguments(digits, tmp_path, "--resume", str(path))
    expected = TimmRun(args, path)
    assert expected.epoch == 3
    ours, average = seen_by_us(args)
    assert_same(ours, expected.train_one_epoch())
    assert all(torch.equal(average[key.removeprefix("_orig_mod.")], value) for key, value in data["state_dict"].items())
    assert "holds no optimizer's state" in capsys.readouterr().err
    assert train(arguments(digits, tmp_path, "--test-only", "--resume", str(path))) == 0
    assert "top1" in json.loads(capsys.readouterr().out)


def test_the_plateau_schedule_keeps_its_rate(digits, tmp_path, seen_by_us):
    """Where timm's falls back to that of the warmup's start, for good."""
    flags = ("--sched", "plateau", "--warmup-epochs", "1")
    path = TimmRun(arguments(digits, tmp_path, *flags)).train(3, tmp_path)
    data = torch.load(path, weights_only=False)
    data["optimizer"]["param_groups"][0]["lr"] = data["optimizer"]["param_groups"][1]["lr"] = 0.002
    torch.save(data, path)
    ours, _ = seen_by_us(arguments(digits, tmp_path, *flags, "--resume", str(path)))
    assert ours[0][0] == [0.002, 0.002]


@pytest.mark.parametrize(("then", "now", "message"), [
    ("--opt adamw", "", r"another optimizer, with(out)? (betas|momentum).*'adamw' -> 'sgd'"),
    ("", "--opt lamb", r"another optimizer.*'sgd' -> 'lamb'"),
    ("--layer-decay 0.7", "", r"other parameter groups: 12 \(.* and learning rate times 0\.\d+.*and 8 more groups\), "
                              r"and this run's 2 \(.*layer_decay: 0.7 -> None"),
    ("", "--weight-decay 0", "other parameter groups: 2 .*, and this run's 1 .*weight_decay: 2e-05 -> 0"),
])
def test_other_groups_are_an_error_that_names_them(then, now, message, digits, tmp_path):
    path = TimmRun(arguments(digits, tmp_path, *then.split())).train(1, tmp_path)
    args = arguments(digits, tmp_path, *now.split(), "--resume", str(path))
    with pytest.raises(ConfigError, match=message) as error_info:
        train(args)
    assert str(path) in str(error_info.value) and "--no-resume-opt" in str(error_info.value)


def test_the_first_epoch_may_have_another_number(digits, tmp_path, seen_by_us):
    args = arguments(digits, tmp_path, "--start-epoch", "2", "--sched-on-updates", "--model-ema-warmup")
    assert_same(seen_by_us(args)[0], TimmRun(args).train_one_epoch())


def test_what_the_first_start_asked_for_does_not_hold_for_a_restart(digits, tmp_path, seen_by_us, capsys, monkeypatch):
    """Neither --start-epoch, nor --no-resume-opt: the group goes on where it was."""
    assert train(arguments(digits, tmp_path, "--start-epoch", "5")) == 0
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    capsys.readouterr()
    seen_by_us(arguments(digits, tmp_path, "--start-epoch", "5", "--no-resume-opt", "--epochs", "7"))
    assert "epoch 6, batch 1/8" in capsys.readouterr().err
