"""Training and validation on batches of patches."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from mvlib.cli import main
from mvlib.errors import ConfigError
from mvlib.train import parse_train_arguments, read_checkpoint, run
from mvlib.train.engine import StepOptions, TrainState, train_one_epoch
from mvlib.train.naflex import loss_scale
from mvlib.train.run import train

MODEL = ("--model naflexvit_base_patch16_gap --model-kwargs depth=1 embed_dim=24 num_heads=2 patch_size=4 "
         "enable_patch_interpolator=True").split()
NAFLEX = [*MODEL, *("--naflex-loader --naflex-train-seq-lens 9 20 36 --naflex-max-seq-len 25 -b 8 --epochs 2 --lr 0.02 "
                    "--warmup-epochs 0 -j 0 --no-export --opt adamw --log-interval 1").split()]


def arguments(data, folder, *flags):
    return parse_train_arguments([str(data), *NAFLEX, "--output", str(folder), "--experiment", "run", *flags])


def state(folder):
    return read_checkpoint(folder / "run" / "last.pth.tar")


def test_a_run_that_is_stopped_goes_on_to_the_same_end(digits, tmp_path, monkeypatch):
    flags = ("--mixup", "0.5", "--cutmix", "0.5", "--reprob", "0.5", "--naflex-patch-sizes", "4", "6",
             "--naflex-patch-size-probs", "2", "1", "--mixup-off-epoch", "1")
    assert train(arguments(digits, tmp_path / "whole", *flags)) == 0
    asked = iter([False, False, True])
    with monkeypatch.context() as patch:
        patch.setattr(run._Stop, "on_any_rank", lambda self: next(asked))
        assert train(arguments(digits, tmp_path / "parts", *flags)) == run.EXIT_STOPPED
    saved, = (tmp_path / "parts" / "run").glob("*.pth.tar")
    assert read_checkpoint(saved)["batch"] == 3
    assert train(arguments(digits, tmp_path / "parts", *flags, "-j", "2", "--resume", str(saved))) == 0
    whole, parts = (state(tmp_path / name) for name in ("whole", "parts"))
    assert parts["updates"] == whole["updates"] and parts["history"][-1]["eval_loss"] == whole["history"][-1][
        "eval_loss"]
    assert all(torch.equal(value, parts["state_dict"][key]) for key, value in whole["state_dict"].items())


def test_validation_measures_what_training_measured(digits, tmp_path):
    assert train(arguments(digits, tmp_path)) == 0
    last = tmp_path / "run" / "last.pth.tar"
    row = read_checkpoint(last)["history"][-1]
    out = tmp_path / "r.json"
    assert main(["validate", str(digits), "--checkpoint", str(last), "-j", "0", "-b", "7", "--naflex-loader",
                 "--naflex-max-seq-len", "25", "--results-file", str(out)]) == 0
    found, = json.loads(out.read_text())
    assert found["images"] == 20 and found["top1"] == pytest.approx(row["eval_top1"], abs=1e-3)
    assert found["loss"] == pytest.approx(row["eval_loss"], rel=1e-4)


class Batches:
    """Two batches of patches, of 2 and of 6 images."""

    def __len__(self):
        return 2

    def __iter__(self):
        generator = torch.Generator().manual_seed(0)
        for size in (2, 6):
            yield {"patches": torch.randn(size, 3, 4, generator=generator), "seq_len": 3}, torch.zeros(size).long()

    def set_epoch(self, epoch, start_batch=0):
        pass


class Patches(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 2)
        nn.init.zeros_(self.fc.weight)

    def forward(self, given):
        return self.fc(given["patches"].mean(1))


@pytest.mark.parametrize("kind, factors", [("none", (1.0, 1.0)), ("linear", (0.5, 1.5)),
                                           ("sqrt", (0.5 ** 0.5, 1.5 ** 0.5))])
def test_the_loss_grows_with_the_batch_and_its_mean_is_of_images(kind, factors):
    """Gradients are those of the scaled losses; what is reported is the mean over images, unscaled."""
    args = parse_train_arguments(["data", *NAFLEX, "--naflex-loss-scale", kind, "-b", "4"])
    models = Patches(), Patches()
    models[1].load_state_dict(models[0].state_dict())
    state = TrainState(models[0], torch.optim.SGD(models[0].parameters(), lr=0.1))
    measured = train_one_epoch(state, Batches(), nn.functional.cross_entropy,
                               StepOptions(loss_scale=loss_scale(args)))
    optimizer, losses = torch.optim.SGD(models[1].parameters(), lr=0.1), []
    for (given, targets), factor in zip(Batches(), factors):
        loss = nn.functional.cross_entropy(models[1](given), targets)
        optimizer.zero_grad()
        (loss * factor).backward()
        optimizer.step()
        losses.append(loss.item() * len(targets))
    assert measured["loss"] == pytest.approx(sum(losses) / 8, rel=1e-6)
    for ours, expected in zip(models[0].parameters(), models[1].parameters()):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("flags, text", [
    (["--aug-splits", "3"], "--naflex-loader and --aug-splits contradict each other"),
    (["--aug-repeats", "3"], "--naflex-loader and --aug-repeats contradict each other"),
    (["--teacher", "resnet18"], "--naflex-loader and --teacher contradict each other"),
    (["--cutmix-minmax", "0.2", "0.5"], "--naflex-loader and --cutmix-minmax contradict each other"),
    (["--mixup", "1", "--mixup-mode", "elem"], "not by --mixup-mode elem"),
    (["--naflex-patch-sizes", "4", "8", "--naflex-patch-size-probs", "1"], "gives 1 numbers for 2 sizes"),
])
def test_contradictions(flags, text):
    with pytest.raises(ConfigError) as caught:
        parse_train_arguments(["data", *NAFLEX, *flags])
    assert text in str(caught.value)


@pytest.mark.parametrize("flags, text", [
    (["--model", "test_vit", "--model-kwargs", "depth=1"], "takes patches, such as naflexvit_base_patch16_gap; test_"),
    (["--model-kwargs", "depth=1", "--naflex-patch-sizes", "8"], "enable_patch_interpolator=True"),
    (["--model-kwargs", "depth=1", "embed_proj_type=conv"], "embed_proj_type='linear'"),
    (["--naflex-patchify-channels-first"], "the model takes patches with the channels last"),
])
def test_models_that_take_no_such_patches(digits, tmp_path, flags, text):
    args = arguments(digits, tmp_path, *flags)
    if "depth=1" in flags:
        args.model_kwargs = {"depth": 1, **{k: v for k, v in args.model_kwargs.items() if k == "embed_proj_type"}}
    with pytest.raises(ConfigError) as caught:
        train(args)
    assert text in str(caught.value)


def test_engines_take_no_patches(digits, capsys):
    assert main(["validate", str(digits), "--model", "test_vit", "--naflex-loader", "--backend", "openvino"]) != 0
    assert "--naflex-loader gives patches, which torch alone takes" in capsys.readouterr().err
