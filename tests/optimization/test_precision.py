"""Which types pay on a processor: by its features and by a measured probe, and what says so to the user."""

import builtins
import io
import logging
import sys

import pytest
import torch
from PIL import Image

import mvlib
from mvlib.benchmark import benchmark_models
from mvlib.cli import main
from mvlib.errors import ConfigError
from mvlib.optimization import precision, supported_dtypes
from mvlib.precisions import canonical_precision, precision_name, processor_features
from mvlib.train.precision import autocast_for

CPU = torch.device("cpu")
PLAIN = {"sse2", "avx2", "avx512f", "avx512_vnni"}


@pytest.fixture
def machine(monkeypatch):
    """A CPU with these features, on which a narrow type takes so many times as long; notes what was measured."""
    measured = []

    def become(features, slowdown=0.5):
        monkeypatch.setattr(precision, "processor_features", lambda: None if features is None else frozenset(features))
        monkeypatch.setattr(precision, "slowdown", lambda dtype: measured.append(dtype) or slowdown)
        return measured

    precision._say_once.cache_clear()
    yield become
    precision._say_once.cache_clear()


@pytest.mark.parametrize(("given", "name"), [
    ("fp16", "float16"), ("half", "float16"), ("torch.float16", "float16"), ("BF16", "bfloat16"), ("fp32", "float32"),
    ("single", "float32"), ("float", "float32"), ("float32", "float32")])
def test_spellings(given, name):
    assert canonical_precision(given) == precision_name(given) == name


def test_spellings_that_are_none():
    assert canonical_precision("fp8") == "fp8"
    with pytest.raises(ConfigError, match="unknown precision 'floot16'; known: float32, bfloat16, float16; did you "):
        precision_name("floot16")


@pytest.mark.parametrize(("features", "slowdown", "found"), [
    ({*PLAIN}, 0.1, ()),  # oneDNN says that it computes in bfloat16 here
    ({*PLAIN, "avx512_bf16"}, 0.5, ("bfloat16",)),
    ({*PLAIN, "avx512_bf16"}, 2.5, ()),
    ({*PLAIN, "amx_bf16", "amx_fp16", "avx512_fp16"}, 0.5, ("bfloat16", "float16")),
    ({"fp", "asimdhp"}, 0.5, ("float16",)),
    ({"fp", "asimdhp", "bf16"}, 0.9, ("bfloat16", "float16")),
    ({"feat_bf16", "feat_fp16"}, 0.9, ("bfloat16", "float16")),
    (None, 0.9, ("bfloat16", "float16")),
    (None, 30.0, ()),
])
def test_what_pays(machine, features, slowdown, found):
    measured = machine(features, slowdown)
    assert supported_dtypes(CPU) == tuple(getattr(torch, name) for name in ("float32", *found))
    if features == PLAIN:
        assert not measured, "what it has no instructions for may take minutes"


def test_everything_refuses_what_does_not_pay(machine, tmp_path, capsys, monkeypatch):
    machine(PLAIN)
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (32, 32)).save("x.jpg")
    why = r"the processor has no instructions for bfloat16 \(avx512_bf16, amx_bf16\); float32 is the type to take"
    model, images = mvlib.create_model("test_resnet"), torch.zeros(1, 3, 32, 32)
    for attempt in (lambda: mvlib.optimize(model, images, dtype="bf16"), lambda: autocast_for(CPU, "half"),
                    lambda: benchmark_models("test_resnet", precisions=("bf16",), device="cpu"),
                    lambda: mvlib.compare_models("test_resnet", precision="bf16", devices=("cpu",))):
        with pytest.raises(ConfigError, match=why):
            attempt()
    for command in ("predict x.jpg --precision bf16", "embed x.jpg --precision bf16 --output x.npy",
                    "benchmark test_resnet --precision bf16", "compare resnet18 --precision bf16",
                    "validate --amp -b 1 --model test_resnet --amp-dtype half --data-dir",
                    "inference --amp --model test_resnet --data-dir", "train --amp --model test_resnet --data-dir"):
        words = [*command.split(), *([str(tmp_path)] if command.endswith("dir") else ["--device", "cpu"])]
        if words[0] == "compare":
            words = words[:-2]
        if words[-1] == str(tmp_path):
            words += ["--device", "cpu"]
        assert main(words) == 2
        assert "no instructions for bfloat16" in capsys.readouterr().err, words


def test_who_insists_gets_a_line(machine, caplog):
    machine(PLAIN)
    model, images = mvlib.create_model("test_resnet").eval(), torch.randn(1, 3, 32, 32)
    with caplog.at_level(logging.WARNING, "mvlib"):
        optimized, _ = mvlib.optimize(model, images, dtype="bf16", compile="off", force=True)
        found, = benchmark_models("test_resnet", tasks=("inference",), precisions=("bf16",), batch_sizes=(1,),
                                  img_size=32, seconds=0.01, device="cpu", force=True)
    assert optimized.dtype is torch.bfloat16 and (found.precision, found.error) == ("bfloat16", None)
    assert [record.message for record in caplog.records] == [
        "the processor has no instructions for bfloat16 (avx512_bf16, amx_bf16): going on, as asked"]


def test_a_measured_reason_says_how_much(machine):
    machine(None, 2.54)
    with pytest.raises(ConfigError, match="computing in float16 takes 2.5 times as long as in float32 on this proc"):
        precision.check_precision(torch.float16, CPU)


def test_the_probe_measures(monkeypatch):
    """What it calls comes from the work itself; the threads are put back."""
    threads = torch.get_num_threads()
    precision.slowdown.cache_clear()
    calls = []
    monkeypatch.setattr(precision, "time_both", lambda narrow, wide, repeats: calls.append(
        [[part.dtype for part in work()] for work in (narrow, wide)]) or (3.0, 2.0))
    assert precision.slowdown(torch.bfloat16) == precision.slowdown(torch.bfloat16) == 1.5
    assert calls == [[[torch.bfloat16] * 2, [torch.float32] * 2]] and torch.get_num_threads() == threads
    precision.slowdown.cache_clear()


@pytest.mark.parametrize(("text", "found"), [
    ("processor\t: 0\nflags\t\t: fpu AVX2 avx512_bf16\n", {"fpu", "avx2", "avx512_bf16"}),
    ("processor\t: 0\nFeatures\t: fp asimd asimdhp bf16\n", {"fp", "asimd", "asimdhp", "bf16"}),
    ("processor\t: 0\n", None)])
def test_features_of_the_processor(monkeypatch, text, found):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(builtins, "open", lambda *_, **__: io.StringIO(text))
    assert processor_features() == found


def test_features_of_a_mac(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    monkeypatch.setattr("subprocess.check_output", lambda *_, **__: (
        "hw.optional.arm.FEAT_BF16: 1\nhw.optional.arm.FEAT_FP16: 1\nhw.optional.arm.FEAT_SME: 0\n"))
    assert processor_features() == {"feat_bf16", "feat_fp16"}
