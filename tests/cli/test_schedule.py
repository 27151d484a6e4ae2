"""`mvlib schedule`."""

import subprocess
import sys

import pytest
import timm.scheduler
import torch
from PIL import Image

from mvlib.cli import main


def run(capsys, *arguments):
    status = main(["schedule", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def rows(text):
    return [line.split() for line in text.splitlines()[1:]]


def timms_rates(steps, on_updates=False, **kwargs):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=kwargs.pop("lr"))
    scheduler, _ = timm.scheduler.create_scheduler_v2(optimizer, **kwargs)
    found = [optimizer.param_groups[0]["lr"]]
    for t in range(1, steps):
        (scheduler.step_update if on_updates else scheduler.step)(t)
        found.append(optimizer.param_groups[0]["lr"])
    return found


def test_a_row_for_every_epoch(capsys):
    status, out, _ = run(capsys, "--sched", "cosine", "--epochs", 60, "--lr", 0.5, "--warmup-epochs", 5, "--all")
    expected = timms_rates(60, lr=0.5, num_epochs=60, warmup_epochs=5)
    assert status == 0
    assert rows(out) == [[str(epoch), f"{rate:.6g}"] for epoch, rate in enumerate(expected)]


def test_the_first_epoch_has_the_learning_rate_that_training_begins_with(capsys):
    _, out, _ = run(capsys, "--sched", "multistep", "--decay-milestones", 1, 3, "--epochs", 4, "--lr", 0.1,
                    "--warmup-epochs", 0)
    expected = timms_rates(4, lr=0.1, sched="multistep", num_epochs=4, decay_milestones=[1, 3])
    assert expected == pytest.approx([0.1, 0.01, 1e-3, 1e-3])
    assert rows(out) == [["0", "0.1"], ["1", "0.01"], ["2-3", "0.001"]]


def test_a_long_table_keeps_its_ends_and_its_turning_points(capsys):
    _, out, _ = run(capsys, "--epochs", 100, "--lr", 0.5, "--warmup-epochs", 5, "--lr-cycle-limit", 3)
    epochs = [int(row[0]) for row in rows(out)]
    assert len(epochs) < 45
    assert {0, 5, 99, 100, 199, 200, 299} <= set(epochs)


def test_epochs_with_one_learning_rate_make_one_row(capsys):
    _, out, _ = run(capsys, "--sched", "step", "--decay-epochs", 30, "--epochs", 90, "--lr", 0.1, "--warmup-epochs", 0)
    assert rows(out) == [["0-29", "0.1"], ["30-59", "0.01"], ["60-89", "0.001"]]


def test_a_learning_rate_for_each_update(capsys):
    _, out, _ = run(capsys, "--epochs", 6, "--lr", 0.5, "--warmup-epochs", 2, "--updates-per-epoch", 10)
    expected = timms_rates(60, on_updates=True, lr=0.5, num_epochs=6, warmup_epochs=2, step_on_epochs=False,
                           updates_per_epoch=10)
    assert rows(out) == [[str(epoch), str(10 * epoch), f"{expected[10 * epoch]:.6g}"] for epoch in range(6)]


def test_cooldown_is_part_of_the_run(capsys):
    _, out, _ = run(capsys, "--epochs", 4, "--lr", 0.5, "--warmup-epochs", 0, "--cooldown-epochs", 3, "--min-lr", 0.01)
    assert rows(out)[-1] == ["4-6", "0.01"]


def test_torchvisions_flags_have_torchvisions_meaning(capsys):
    _, out, _ = run(capsys, "--lr", 0.5, "--lr-scheduler", "cosineannealinglr", "--lr-warmup-epochs", 5,
                    "--lr-warmup-method", "linear", "--epochs", 20, "--all")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    schedulers = torch.optim.lr_scheduler
    with pytest.warns(UserWarning):  # torch's own
        peer = schedulers.SequentialLR(optimizer, milestones=[5], schedulers=[
            schedulers.LinearLR(optimizer, start_factor=0.01, total_iters=5),
            schedulers.CosineAnnealingLR(optimizer, T_max=15)])
        expected = []
        for _ in range(20):
            expected.append(optimizer.param_groups[0]["lr"])
            peer.step()
    assert [float(rate) for _, rate in rows(out)] == pytest.approx(expected, rel=1e-5)


def test_a_recipe_and_a_flag_over_it(capsys, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("sched: step\nlr: 0.4\nepochs: 4\nwarmup_epochs: 0\ndecay_epochs: 2\nmodel: resnet18\n")
    assert rows(run(capsys, "--config", recipe)[1]) == [["0-1", "0.4"], ["2-3", "0.04"]]
    assert rows(run(capsys, "--config", recipe, "--lr", 1)[1]) == [["0-1", "1"], ["2-3", "0.1"]]


def test_the_learning_rate_follows_the_batch_size(capsys):
    _, out, _ = run(capsys, "--sched", "none", "--lr-base", 0.1, "-b", 64, "--grad-accum-steps", 2, "--opt", "sgd",
                    "--epochs", 3)
    assert rows(out) == [["0-2", "0.05"]]


def test_a_picture(capsys, tmp_path):
    path = tmp_path / "lr.png"
    status, out, _ = run(capsys, "--epochs", 20, "--lr", 0.5, "--plot", path)
    assert status == 0
    assert len(rows(out)) == 20
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        colours = picture.convert("RGB").getcolors(1 << 20)
    assert any(blue > red + 60 for _, (red, green, blue) in colours)  # a curve stands in it


def test_a_picture_needs_matplotlib(capsys, tmp_path, monkeypatch):
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.backends", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    status, _, err = run(capsys, "--plot", tmp_path / "lr.png")
    assert status == 2
    assert err == ("mvlib: --plot needs the package 'matplotlib': pip install matplotlib (or pip install "
                   "'mvlib[plot]')\n")


@pytest.mark.parametrize("arguments, message", [
    (["--sched", "cosin"], "unknown scheduler 'cosin'; did you mean 'cosine'?"),
    (["--sched", "plateau"], "the plateau schedule follows the metric that is measured"),
    (["--sched-on-updates"], "--sched-on-updates needs --updates-per-epoch, the number of updates in an epoch"),
    (["--plot", "lr.pdf"], "--plot writes .png, and 'lr.pdf' ends in none of them"),
    (["--plot", "/nowhere/lr.png"], "/nowhere/lr.png cannot be written: there is no folder /nowhere"),
    (["--config", "/nowhere.yaml"], "there is no recipe /nowhere.yaml"),
], ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_errors_are_said(capsys, arguments, message):
    status, _, err = run(capsys, *arguments)
    assert status == 2
    assert message in err


@pytest.mark.parametrize("arguments", [["--help"], ["--epochs", "9"]], ids=" ".join)
def test_no_torch_is_imported(arguments):
    code = """if True:
        import sys, mvlib.cli
        try:
            mvlib.cli.main(["schedule", *sys.argv[1:]])
        except SystemExit:
            pass
        sys.exit("torch" in sys.modules)
    """
    assert subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True).returncode == 0
