"""mvlib/benchmark.py and `mvlib benchmark`."""

import csv
import itertools
import json
import math
import socket
import sys
import time

import pytest
import torch
from torch import nn

import mvlib
from mvlib import benchmark
from mvlib.benchmark import _loss, _resident_growth, benchmark_models, count_gmacs, describe_machine, machine_line
from mvlib.cli import main
from mvlib.optimization import Report

QUICK = dict(seconds=0.05, batch_sizes=(1, 2))


class Probe(nn.Module):
    """A small model that notes what it is given."""

    in_chans = 3

    def __init__(self, seen=None, error=None):
        super().__init__()
        self.fc = nn.Linear(3, 4)
        self.seen = [] if seen is None else seen
        self.error = error

    def forward(self, x):
        if self.error is not None:
            raise self.error
        self.seen.append((self.training, torch.is_grad_enabled(), x.dtype, tuple(x.shape)))
        return self.fc(x.mean((2, 3)))


class Weather:
    """Instead of the calibration: the disturbance that it measures, one after another, the last for good."""

    def __init__(self, *disturbances):
        self.coming = list(disturbances)
        self.last = 1.0

    def measure(self):
        self.last = self.coming.pop(0) if len(self.coming) > 1 else self.coming[0]
        return self.last


@pytest.fixture(autouse=True)
def weather(monkeypatch):
    """An idle machine, and how to have another."""
    def become(*disturbances):
        found = Weather(*disturbances)
        monkeypatch.setattr(benchmark, "calibration", lambda device: found)
        return found

    become(1.0)
    monkeypatch.setattr(benchmark, "_UNSTEADY", math.inf)  # steps of microseconds are
    return become


@pytest.fixture
def probe(fresh_registry):
    """What the model `probe` is given."""
    seen = []
    mvlib.register_model(lambda **kwargs: Probe(seen), name="probe")
    return seen


def register_failing(error, name="failing"):
    mvlib.register_model(lambda **kwargs: Probe(error=error), name=name)


def test_a_measurement_for_each_configuration(probe):
    found = benchmark_models("probe", precisions=("float32", "bf16"), img_size=16, force=True, **QUICK)
    assert [(m.task, m.precision, m.batch_size) for m in found] == [
        ("inference", "float32", 1), ("inference", "float32", 2), ("inference", "bfloat16", 1),
        ("inference", "bfloat16", 2), ("training", "float32", 2), ("training", "bfloat16", 2)]
    for m in found:
        assert m.error is None and m.steps >= 1 and m.latency_ms > 0
        assert m.images_per_second == pytest.approx(1000 * m.batch_size / m.latency_ms, rel=2e-3)
        assert (m.model, m.mode, m.device, m.img_size, m.params) == ("probe", "eager", "cpu", 16, 0)


def test_what_the_model_is_given(probe):
    benchmark_models("probe", tasks=("inference",), precisions=("bfloat16",), batch_sizes=(2,), img_size=16, force=True,
                     seconds=0.01)
    assert set(probe) == {(False, False, torch.bfloat16, (2, 3, 16, 16))}
    probe.clear()
    benchmark_models("probe", tasks=("training",), batch_sizes=(1, 4), seconds=0.01)
    assert set(probe) == {(True, True, torch.float32, (4, 3, 224, 224))}


def test_configurations_take_turns(probe):
    benchmark_models("probe", tasks=("inference",), batch_sizes=(1, 2), img_size=8, seconds=0.3)
    sizes = [shape[0] for *_, shape in probe]
    changes = sum(a != b for a, b in zip(sizes, sizes[1:]))
    assert changes >= 5


def test_models_take_turns(fresh_registry):
    order = []
    for name in ("first", "second"):
        mvlib.register_model(lambda name=name, **kwargs: Probe(_Log(order, name)), name=name)
    benchmark_models(["first", "second"], tasks=("inference",), batch_sizes=(1,), img_size=8, seconds=0.1, together=2)
    assert sum(a != b for a, b in zip(order, order[1:])) >= 5
    order.clear()
    benchmark_models(["first", "second"], tasks=("inference",), batch_sizes=(1,), img_size=8, seconds=0.1)
    assert sum(a != b for a, b in zip(order, order[1:])) == 1


class _Log:
    def __init__(self, order, name):
        self.order, self.name = order, name

    def append(self, item):
        self.order.append(self.name)


def seconds_as(monkeypatch, weather):
    """Steps take what the weather makes of 10 ms."""
    monkeypatch.setattr(benchmark._Case, "_timed", lambda case: time.sleep(0.002) or 0.01 * weather.last ** 2)


def test_steps_of_a_busy_time_do_not_count(probe, monkeypatch, weather):
    """Others are made in their place, though the time is up."""
    seconds_as(monkeypatch, weather(*[3.0] * 7, 1.0))
    found, = benchmark_models("probe", tasks=("inference",), batch_sizes=(1,), img_size=8, seconds=0.1)
    assert (found.latency_ms, found.latency_iqr_ms, found.disturbed, found.disturbance) == (10, 0, False, 1)
    assert found.steps >= 5


def test_what_was_never_measured_undisturbed_says_so(probe, monkeypatch, weather, capsys, tmp_path):
    seconds_as(monkeypatch, weather(3.0))
    command = ("probe", "--bench", "inference", "-b", 1, "--img-size", 8, "--seconds", 0.05, "--results-file")
    status, out, err = run(capsys, *command, tmp_path / "busy.csv")
    header, row = (line.split() for line in out.splitlines()[2:4])
    assert (status, header[-1], row[-1]) == (0, "disturbed", "3.0x") and "90.0" in row
    assert "images/s (disturbed)" in err
    assert "mvlib: 1 of 1 measurements were disturbed by what else the machine does, and are too long: probe." in err
    with open(tmp_path / "busy.csv", newline="") as stream:
        assert [(row["disturbed"], row["disturbance"]) for row in csv.DictReader(stream)] == [("True", "3.0")]
    run(capsys, *command, tmp_path / "busy.json")
    assert [row["disturbed"] for row in json.loads((tmp_path / "busy.json").read_text())["results"]] == [True]


def test_steps_that_differ_were_disturbed(probe, monkeypatch):
    monkeypatch.setattr(benchmark, "_UNSTEADY", 0.25)
    taken = itertools.cycle([0.01, 0.01, 0.02, 0.02])
    monkeypatch.setattr(benchmark._Case, "_timed", lambda case: time.sleep(0.001) or next(taken))
    found, = benchmark_models("probe", tasks=("inference",), batch_sizes=(1,), img_size=8, seconds=0.05)
    assert found.disturbed and found.disturbance == 1


def test_the_calibration_is_a_share_of_its_own_least(monkeypatch):
    calibration = benchmark._Calibration(torch.device("cpu"))
    assert calibration.last >= 1
    calibration.least = 10 * calibration.least
    least = calibration.least
    assert calibration.measure() >= 1 and calibration.least < least, "a new least is taken up"
    calibration.least /= 100
    assert calibration.measure() > 50


def test_training_changes_the_weights(fresh_registry):
    built = []
    mvlib.register_model(lambda **kwargs: built.append(Probe()) or built[-1], name="probe")
    torch.manual_seed(0)
    benchmark_models("probe", tasks=("training",), batch_sizes=(4,), img_size=8, seconds=0.01)
    torch.manual_seed(0)
    assert not torch.equal(built[0].fc.weight, Probe().fc.weight)
    assert built[0].fc.weight.grad is None  # gradients are part of a step's memory


def test_the_loss_reaches_auxiliary_classifiers_and_features():
    main_logits, aux = torch.randn(2, 5, requires_grad=True), torch.randn(2, 5, requires_grad=True)
    _loss((main_logits, aux, None)).backward()
    assert main_logits.grad.abs().sum() > 0 and aux.grad.abs().sum() > 0
    features = torch.randn(2, 3, 4, 4, requires_grad=True)
    _loss(features).backward()
    assert features.grad.abs().sum() > 0


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", ["googlenet", "inception_v3", "resnet18.fb_swsl_ig1b_ft_in1k",
                                  "vit_tiny_patch16_224"])
def test_models_of_ours_in_training(name):
    size = 96 if not name.startswith("vit") else None
    found = benchmark_models(name, tasks=("training",), batch_sizes=(2,), img_size=size, seconds=0.01)
    assert [m.error for m in found] == [None]


@pytest.mark.slow
def test_sizes_of_evaluation_and_of_training():
    config = mvlib.get_pretrained_cfg("resnet18.a1_in1k")
    assert config.input_size[1] != config.test_input_size[1]
    found = benchmark_models("resnet18.a1_in1k", batch_sizes=(1,), seconds=0.01)
    assert {m.task: m.img_size for m in found} == {"inference": config.test_input_size[1],
                                                   "training": config.input_size[1]}


def test_a_model_that_fails_is_listed_and_the_others_go_on(probe):
    register_failing(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore"), "large")
    register_failing(mvlib.ConfigError("no such input"), "picky")
    found = benchmark_models(["large", "picky", "probe", "alexnet"], tasks=("inference",), img_size=16, **QUICK)
    errors = {m.model: m.error for m in found}
    assert errors["large"] == "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"
    assert errors["picky"] == "no such input"
    assert errors["probe"] is None
    assert "Output size is too small" in errors["alexnet"]
    assert len(found) == 8 and all(m.latency_ms is None for m in found if m.error)


def test_a_model_that_fails_later(fresh_registry):
    class Tired(Probe):
        def forward(self, x):
            if len(self.seen) > 20:
                raise RuntimeError("enough")
            return super().forward(x)

    mvlib.register_model(lambda **kwargs: Tired(), name="tired")
    found, = benchmark_models("tired", tasks=("inference",), batch_sizes=(1,), img_size=8, seconds=0.5)
    assert (found.error, found.latency_ms) == ("RuntimeError: enough", None)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel of other systems does not tell the peak")
def test_peak_memory(fresh_registry):
    class Wasteful(Probe):
        def forward(self, x):
            torch.ones(32 * 2**20 // 4).sum()
            return super().forward(x)

    mvlib.register_model(lambda **kwargs: Wasteful(), name="wasteful")
    found, = benchmark_models("wasteful", tasks=("inference",), batch_sizes=(4,), img_size=512, seconds=0.01)
    if found.peak_memory_mib is None:
        pytest.skip("/proc/self/clear_refs cannot be written here")
    images = 4 * 3 * 512 * 512 * 4 / 2**20
    assert images + 31 < found.peak_memory_mib < images + 48


def test_memory_that_the_allocator_keeps_does_not_hide_what_a_step_takes():
    if _resident_growth(lambda: None) is None:
        pytest.skip("this system does not tell the peak")
    step = lambda: torch.ones(64 * 2**20 // 4).sum()  # noqa: E731
    for _ in range(2):
        assert 60 * 2**20 < _resident_growth(step) < 80 * 2**20


def test_packed_weights_are_memory_too():
    eager, optimized = mvlib.benchmark_models("squeezenet1_1", tasks=["inference"], modes=["eager", "optimized"],
                                              batch_sizes=[1], img_size=64, device="cpu", seconds=0.05)
    weights = 4 * eager.params * 1e6 / 2**20
    assert eager.peak_memory_mib > weights and optimized.peak_memory_mib > 0.98 * weights


def test_modes(probe, monkeypatch):
    calls = []
    monkeypatch.setattr(torch, "compile", lambda model, **kwargs: calls.append(("compile", kwargs)) or model)
    monkeypatch.setattr(mvlib, "optimize", lambda model, example, **kwargs: calls.append(
        ("optimize", model.training, tuple(example.shape), kwargs)) or (model.bfloat16(), Report("cpu", "bfloat16")),
                        raising=False)
    monkeypatch.setattr(Probe, "forward", lambda self, x: self.fc(x.mean((2, 3)).to(self.fc.weight.dtype)))
    lines = []
    found = benchmark_models("probe", modes=("eager", "compiled", "optimized"), precisions=("bfloat16",),
                             batch_sizes=(2,), img_size=8, force=True, seconds=0.05, on_progress=lines.append)
    assert [(m.task, m.mode, m.error) for m in found] == [
        ("inference", "eager", None), ("inference", "compiled", None), ("inference", "optimized", None),
        ("training", "eager", None), ("training", "compiled", None)]
    assert calls == [("compile", {"dynamic": False}),
                     ("optimize", False, (2, 3, 8, 8), {"dtype": torch.bfloat16, "force": True, "backend": "torch"}),
                     ("compile", {"dynamic": False})]
    assert lines[0] == "probe, inference, compiled, bfloat16, cpu, batch 2: preparing"


def test_multiply_accumulates_of_another_size():
    assert count_gmacs("resnet18", (3, 224, 224)) == pytest.approx(1.814, rel=0.01)
    assert count_gmacs("resnet18", (3, 448, 448)) == pytest.approx(4 * 1.814, rel=0.01)


def test_the_machine_without_its_name():
    machine = describe_machine("cpu")
    assert machine["torch"] == torch.__version__ and machine["threads"] == torch.get_num_threads()
    assert machine["cpu"] and machine["cores"] >= 1 and "gpu" not in machine
    assert len(socket.gethostname()) < 4 or socket.gethostname() not in json.dumps(machine)
    assert machine["cpu"] in machine_line(machine) and "\n" not in machine_line(machine)


@pytest.mark.parametrize(("arguments", "text"), [
    (dict(modes=("fast",)), "unknown mode 'fast'; known: eager, compiled, optimized"),
    (dict(precisions=("int8",)), "unknown precision 'int8'; known: float32, bfloat16, float16"),
    (dict(batch_sizes=(0,)), "0 is neither a batch size nor an image size"),
    (dict(device="cuda:99"), "the device 'cuda:99' cannot be used: "),
    (dict(tasks=("training",), modes=("optimized",)), "nothing to measure: optimized models are for inference"),
])
def test_what_is_refused(arguments, text):
    with pytest.raises(mvlib.ConfigError, match=text):
        benchmark_models("resnet18", **arguments)


# the command


def run(capsys, *arguments):
    status = main(["benchmark", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_command_and_its_files(probe, capsys, tmp_path):
    for ending in ("json", "csv", "md"):
        path = tmp_path / f"results.{ending}"
        status, out, err = run(capsys, "probe", "--seconds", 0.02, "-b", 2, "--img-size", 8, "--results-file", path)
        assert status == 0
        assert "[1/1] probe, inference, eager, float32, cpu, batch 1: " in err and "images/s" in err
        assert len(out.splitlines()) == 6 and out.splitlines()[0] == machine_line(describe_machine("cpu"))
        assert out.splitlines()[2].split() == ["model", "task", "mode", "precision", "batch", "px", "ms", "IQR", "ms",
                                               "images/s", "peak", "MiB", "steps"]
    rows = json.loads((tmp_path / "results.json").read_text())
    assert rows["machine"] == describe_machine("cpu")
    assert [row["batch_size"] for row in rows["results"]] == [1, 2, 2]
    with open(tmp_path / "results.csv", newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [row["task"] for row in table] == ["inference", "inference", "training"]
    assert table[0]["machine"] == machine_line(describe_machine("cpu"))
    lines = (tmp_path / "results.md").read_text().splitlines()
    assert lines[0] == machine_line(describe_machine("cpu")) and lines[3].startswith("| --- | --- |")


def test_one_that_fails_has_its_error_in_the_table(probe, capsys):
    register_failing(torch.OutOfMemoryError("out of memory"))
    status, out, err = run(capsys, "failing", "probe", "--bench", "inference", "--img-size", 8, "--seconds", 0.02,
                           "--format", "json")
    rows = json.loads(out)["results"]
    assert status == 1
    assert [row["error"] for row in rows] == ["OutOfMemoryError: out of memory"] * 2 + [None] * 2
    assert "[1/2] failing, inference, eager, float32, cpu, batch 1: OutOfMemoryError: out of memory" in err


def test_an_interrupted_run_keeps_what_it_has(probe, capsys, tmp_path):
    register_failing(KeyboardInterrupt())
    path = tmp_path / "results.csv"
    status, _, err = run(capsys, "probe", "failing", "--bench", "inference", "--img-size", 8, "--seconds", 0.02,
                         "--results-file", path)
    assert status == 130 and err.endswith("mvlib: interrupted\n")
    with open(path, newline="") as stream:
        assert [row["model"] for row in csv.DictReader(stream)] == ["probe", "probe"]


@pytest.mark.parametrize(("arguments", "text"), [
    (["resnet5o"], "unknown architecture 'resnet5o'; did you mean"),
    (["nothing_*"], "no model matches 'nothing_*'"),
    (["resnet18", "--results-file", "{tmp}/none/results.csv"],
     "{tmp}/none/results.csv cannot be written: there is no folder {tmp}/none"),
    (["resnet18", "--results-file", "{tmp}/folder.csv"], "{tmp}/folder.csv cannot be written: it is a folder"),
    (["resnet18", "--results-file", "{tmp}/results.xlsx"], "results cannot be written as 'xlsx'; known: csv, json, md"),
])
def test_bad_input(arguments, text, capsys, tmp_path, monkeypatch):
    (tmp_path / "folder.csv").mkdir()
    monkeypatch.setattr("mvlib.benchmark.benchmark_models", None)  # refused before the work begins
    status, out, err = run(capsys, *(argument.replace("{tmp}", str(tmp_path)) for argument in arguments))
    assert (status, out) == (2, "")
    assert text.replace("{tmp}", str(tmp_path)) in err
