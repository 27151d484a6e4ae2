"""Which backend answers, and what becomes of the engines: commands as users run them."""

import errno
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image

import mvlib as library
from mvlib.engines import cache, calibration, choose, exporter
from mvlib.engines.convert import CONVERTERS
from mvlib.engines.folder import read_export, write_description
from mvlib.engines.runtime import ENGINES
from mvlib.errors import ConfigError
from mvlib.inference.session import Settings

from ..cli.command import here
from .test_cache import build, names

pytest.importorskip("openvino")

PREPARED = "mvlib: prepared for next time: "


@pytest.fixture(autouse=True)
def own_cache(place, monkeypatch):
    monkeypatch.setenv("MVLIB_ENGINES", "on")
    monkeypatch.setattr(choose, "has_gpu", lambda: False)


@pytest.fixture(scope="session")
def exported(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "tiny.ov"
    exporter.export(f"local-dir:{tiny}", path)
    return path


@pytest.fixture
def quick(exported, monkeypatch):
    """Conversions of the tiny model are copies of one."""
    def export(model, path, precision, calibrate, **kwargs):
        shutil.copytree(exported, path)
        if precision == "int8":
            (path / "ranges.txt").write_text(repr(calibrate))  # another engine for other pictures
            measured = {"agreement": 0.984, "calibrated_on": len(calibrate)}
            write_description(replace(read_export(path), precision="int8", measured=measured))

    monkeypatch.setattr(exporter, "export", export)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number, image in enumerate(np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)):
        Image.fromarray(image).resize((200, 180)).save(folder / f"{number}.png")
    return folder


def predict(*arguments, **environment):
    return here("predict", *arguments, "--format", "jsonl", **environment)


def local(repository):
    return "--model", f"local-dir:{repository}"


def probabilities(done):
    assert done.returncode == 0, done.stderr
    return [{item["class"]: item["probability"] for item in json.loads(line)["predictions"]}
            for line in done.stdout.splitlines()]


def process(*arguments, before="", **environment):
    """A process in which torch cannot be imported, unless `before` is something else."""
    before = before or "sys.modules['torch'] = None"
    code = f"import sys\n{before}\nfrom mvlib.cli import main\nsys.exit(main())"
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], text=True, stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **environment})


# auto

def test_the_second_run_does_without_torch(place, photos, repository):
    first = predict(photos, *local(repository))
    assert first.stderr.startswith(PREPARED) and first.stderr.endswith(" s\n") and first.stderr.count("\n") == 1
    second = process("predict", photos, *local(repository), "--format", "jsonl")
    out, err = second.communicate()
    assert (second.returncode, err) == (0, "")
    again = subprocess.CompletedProcess((), 0, out, err)
    for have, want in zip(probabilities(again), probabilities(first), strict=True):
        assert have == pytest.approx(want, abs=0.01)
    torchs = predict(photos, *local(repository), "--backend", "torch")
    assert probabilities(torchs) == probabilities(first)


def test_each_kind_of_features_has_an_engine_of_its_own(place, photos, repository, tmp_path):
    for level in ([], ["--level", "1"]):
        arrays = []
        for number in range(2):
            path = tmp_path / f"{number}{'-'.join(level)}.npy"
            done = here("embed", photos, *local(repository), "--output", path, *level)
            assert (done.returncode, PREPARED in done.stderr) == (0, number == 0), done.stderr
            arrays.append(np.load(path))
        assert arrays[0].shape == arrays[1].shape
        assert np.abs(arrays[0] - arrays[1]).max() < 0.1 * np.abs(arrays[0]).max()
    assert [entry.about for entry in cache.engine_entries()] == ["openvino float32 level 1", "openvino float32 pooled"]


@pytest.mark.parametrize("arguments", [("--backend", "torch"), ("--device", "cpu", "--compile", "on"),
                                       ("--precision", "bfloat16", "--force")], ids=" ".join)
def test_what_engines_do_not_do_torch_does(arguments, place, photos, repository, monkeypatch, quick):
    monkeypatch.setattr("mvlib.inference.torch_session.prepare", lambda model, *args, **kwargs: _Plain(model))
    done = predict(photos / "0.png", *local(repository), *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert not place.exists()


class _Plain:
    def __init__(self, model):
        self.model = model

    def __call__(self, images):
        return self.model(images.float())


@pytest.mark.parametrize("value", ["off", "0", "no", "False"])
def test_engines_that_are_off_are_neither_made_nor_used(value, place, photos, repository, quick):
    predict(photos / "0.png", *local(repository))
    before = {path: path.stat().st_mtime_ns for path in place.iterdir()}
    done = predict(photos / "0.png", *local(repository), MVLIB_ENGINES=value)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path: path.stat().st_mtime_ns for path in place.iterdir()} == before
    message = ("mvlib: --backend openvino makes and uses engines, which MVLIB_ENGINES=off forbids: leave out one of "
               "them\n")
    done = predict(photos / "0.png", *local(repository), "--backend", "openvino", MVLIB_ENGINES=value)
    assert (done.returncode, done.stderr) == (2, message)


def test_with_a_gpu_torch_answers(place, photos, repository, monkeypatch, quick):
    monkeypatch.setattr(choose, "has_gpu", lambda: True)
    assert predict(photos / "0.png", *local(repository)).stderr == ""
    assert not place.exists()
    assert predict(photos / "0.png", *local(repository), "--device", "cpu").stderr.startswith(PREPARED)


@pytest.mark.parametrize(("version", "devices", "expected"), [
    ("2.9.0", 1, True), ("2.9.0", 0, False), ("2.9.0+cu128", 2, True), ("2.9.0+cpu", 1, False), ("2.9.0", None, False),
    ("2.9.0+rocm6.4", None, True), (None, 1, False)])
def test_a_gpu_is_found_without_torch(version, devices, expected, monkeypatch):
    class Driver:
        def __init__(self, name):
            if devices is None:
                raise OSError(f"{name}: cannot open shared object file")

        def cuInit(self, flags):
            return 0

        def cuDeviceGetCount(self, count):
            count._obj.value = devices
            return 0

    def installed(name):
        if version is None:
            raise choose.metadata.PackageNotFoundError
        return version

    monkeypatch.undo()
    monkeypatch.setattr(choose.metadata, "version", installed)
    monkeypatch.setattr(choose.ctypes, "CDLL", Driver)
    assert choose.has_gpu() is expected


def test_without_openvino_its_use_is_said_once(place, photos, repository, monkeypatch):
    monkeypatch.setattr(choose, "is_installed", lambda package: package == "torch")
    runs = [predict(photos / "0.png", *local(repository)) for _ in range(2)]
    assert [run.stderr for run in runs] == [
        "mvlib: with OpenVINO this model would answer sooner, without torch's start: pip install 'mvlib[openvino]' "
        "(said once)\n", ""]
    assert predict(photos / "0.png", *local(repository), MVLIB_ENGINES="off", MVLIB_CACHE="/new").stderr == ""
    assert predict(photos / "0.png", *local(repository), MVLIB_CACHE="/proc/nowhere").stderr == ""


def test_many_images_are_worth_a_conversion_first(place, photos, repository, monkeypatch, quick):
    monkeypatch.setattr(choose, "_ENOUGH", 6)
    files = sorted(photos.iterdir())
    assert predict(*files[:5], *local(repository)).stderr.startswith(PREPARED)
    here("cache", "remove", "*")
    for inputs in ([photos], files):
        done = predict(*inputs, *local(repository))
        assert done.stderr.startswith("mvlib: converted first, for this time and the next: ")
        here("cache", "remove", "*")

    done = here("predict", "-", *local(repository), stdin="".join(f"{path}\n" for path in files))
    assert done.stderr.startswith(PREPARED)  # who knows how many


@pytest.mark.parametrize(("size", "count", "options", "expected"), [
    ((4000, 3000), 160, {}, True), ((4000, 3000), 140, {}, False), ((4000, 3000), 160, dict(decode="scaled"), False),
    ((2000, 1500), 400, {}, False), ((2000, 1500), 900, {}, True), ((500, 375), 100_000, {}, False),
    ((4000, 3000), 160, dict(workers=4), False), ((4000, 3000), 160, dict(files=None), False)])
def test_many_large_photographs_are_torchs(size, count, options, expected, tmp_path, monkeypatch):
    """Which reads each of them sooner."""
    monkeypatch.setattr(choose, "cpu_count", lambda: 2)
    Image.new("L", size).save(tmp_path / "first.jpg")
    settings = Settings(**{"files": lambda: repeat(tmp_path / "first.jpg", count), **options})
    assert choose._is_reading_most(settings) == expected
    (tmp_path / "first.jpg").write_text("none")
    assert not choose._is_reading_most(settings)


def test_a_model_of_ones_own_has_no_engine(place, photos, fresh_registry, tmp_path):
    model = library.create_model("test_vit", num_classes=2)
    library.save_for_hub(model, tmp_path / "own")

    @library.register_model(weights={"x": {"sources": [f"local-dir:{tmp_path}/own"], "num_classes": 2}})
    def own_model(**kwargs):
        return library.create_model("test_vit", **kwargs)

    for _ in range(2):
        assert predict(photos / "0.png", "--model", "own_model.x").stderr == ""
    assert cache.engine_entries() == []
    done = predict(photos / "0.png", "--model", "own_model.x", "--backend", "openvino")
    assert done.returncode == 0
    assert done.stderr.startswith("mvlib: converted for this time: ")
    assert done.stderr.endswith(" s; an engine of a model of one's own is not kept\n")


def test_an_old_name_warns_from_an_engine_too(place, photos, repository, fresh_registry, monkeypatch, quick):
    library.register_model_deprecations(__name__, {"old_tiny": "test_efficientnet.x"})
    library.registry.get_arch_pretrained_cfgs("test_efficientnet")
    fresh_registry.entries["test_efficientnet"].set_configs({"x": library.WeightsConfig(
        architecture="test_efficientnet", tag="x", sources=(f"local-dir:{repository}",), num_classes=3,
        input_size=(3, 160, 160))})
    for _ in range(2):
        with pytest.warns(FutureWarning, match="'old_tiny' is deprecated"):
            done = predict(photos / "0.png", "--model", "old_tiny")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_newer_revision_on_the_hub_is_asked_for(photos, repository, hub, monkeypatch, place):
    files = {name: (repository / name).read_bytes() for name in ("config.json", "model.safetensors")}
    hub.add_repo("me/tiny", files)
    run = lambda **environment: predict(photos / "0.png", "--model", "hf-hub:me/tiny", **environment)  # noqa: E731
    assert run().stderr.startswith(PREPARED)
    first = run()
    assert first.stderr == ""
    config = json.loads(files["config.json"])
    hub.add_repo("me/tiny", {**files, "config.json": json.dumps({**config, "label_names": ["x", "y", "z"]}).encode()})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert run().stdout == first.stdout  # as it was
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    newer = run()
    assert newer.stderr.startswith(PREPARED)
    assert set(probabilities(newer)[0]) == {"x", "y", "z"}
    assert run().stderr == ""
    assert set(probabilities(run())[0]) == {"x", "y", "z"}
    hub.add_repo("me/tiny", {**files, "config.json": json.dumps({**config, "label_names": ["u", "v", "w"]}).encode()})
    told = predict(photos / "0.png", "--model", "hf-hub:me/tiny", "--backend", "openvino")
    assert told.stderr.startswith("mvlib: converted for this time and the next: ")
    assert set(probabilities(told)[0]) == {"u", "v", "w"}


def test_weights_that_change_are_noticed(place, photos, repository):
    predict(photos / "0.png", *local(repository))
    model = library.create_model("test_efficientnet", num_classes=3)
    library.save_for_hub(model, repository, label_names=["ant", "bee", "cat"])
    second, third = (predict(photos / "0.png", *local(repository)) for _ in range(2))
    assert second.stderr.startswith(PREPARED) and third.stderr == ""
    want = probabilities(predict(photos / "0.png", *local(repository), "--backend", "torch"))
    assert probabilities(second) == want
    assert probabilities(third)[0] == pytest.approx(want[0], abs=0.01)


def test_weights_that_change_during_a_conversion_make_no_engine(place, photos, repository, exported, monkeypatch):
    def export(model, path, **kwargs):
        shutil.copytree(exported, path)
        os.utime(repository / "model.safetensors")

    monkeypatch.setattr(exporter, "export", export)
    done = predict(photos / "0.png", *local(repository))
    assert done.returncode == 0 and len(probabilities(done)) == 1
    assert done.stderr == (f"mvlib: no engine was kept for next time: {repository}/model.safetensors was changed while "
                           f"an engine was made of it (MVLIB_ENGINES=off does without)\n")
    assert names(place) == []


def test_a_checkpoint_without_a_model_is_known_the_second_time(place, photos, tmp_path, repository):
    import torch

    model = library.create_model(f"local-dir:{repository}")
    path = tmp_path / "last.pth"
    torch.save({"state_dict": model.state_dict(), "arch": "test_efficientnet", "num_classes": 3, "model_args": {},
                "classes": ["ant", "bee", "cat"]}, path)
    assert predict(photos / "0.png", "--checkpoint", path).stderr.startswith(PREPARED)
    assert [entry.name for entry in cache.engine_entries()] == [f"test_efficientnet {path}"]  # none of its tags
    run = process("predict", photos / "0.png", "--checkpoint", path, "--format", "jsonl")
    assert "bee" in run.communicate()[0]
    assert run.returncode == 0


# as told

@pytest.mark.slow
@pytest.mark.parametrize("backend", [backend for backend, format in ENGINES.items() if format in CONVERTERS])
def test_a_backend_that_is_named_answers_at_once(backend, place, photos, repository):
    pytest.importorskip(backend)
    done = predict(photos / "0.png", *local(repository), "--backend", backend)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("mvlib: converted for this time and the next: ")
    run = process("predict", photos / "0.png", *local(repository), "--format", "jsonl", "--backend", backend)
    assert run.communicate() == (done.stdout, "")
    assert run.returncode == 0


@pytest.mark.parametrize(("arguments", "message"), [
    (["--device", "cuda"], "--backend openvino runs on the CPU, not on the device 'cuda': leave out one of them"),
    (["--compile", "on"], "--compile on is for torch, and --backend openvino compiles by itself: leave out one of "
                          "them"),
])
def test_what_the_named_backend_cannot_do_is_an_error(arguments, message, photos, repository, place):
    done = predict(photos / "0.png", *local(repository), "--backend", "openvino", *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"mvlib: {message}\n")
    assert not place.exists()


@pytest.mark.parametrize(("backend", "package", "extra"), [("openvino", "openvino", "openvino"),
                                                           ("onnxruntime", "onnxruntime", "onnx")])
def test_a_backend_that_is_not_installed_says_how(backend, package, extra, photos, repository, monkeypatch):
    monkeypatch.setattr("mvlib.engines.runtime.is_installed", lambda name: name != package)
    done = predict(photos / "0.png", *local(repository), "--backend", backend)
    assert (done.returncode, done.stderr) == (2, f"mvlib: this needs the package '{package}', which is not installed: "
                                                 f"pip install 'mvlib[{extra}]'\n")


def test_without_torch_no_engine_can_be_made(photos, repository, monkeypatch):
    monkeypatch.setattr(choose, "is_installed", lambda name: name != "torch")
    done = predict(photos / "0.png", *local(repository), "--backend", "openvino")
    assert (done.returncode, done.stderr) == (2, "mvlib: torch, which makes engines for --backend openvino, is not "
                                                 "installed: pip install torch torchvision\n")


def test_an_export_runs_by_its_own_backend_alone(photos, exported):
    done = predict(photos / "0.png", "--model", exported, "--backend", "torch")
    assert (done.returncode, done.stderr) == (2, f"mvlib: {exported} is an export that openvino runs, not "
                                                 f"torch: leave out --backend, or name the model 'test_efficientnet' "
                                                 f"(with the same weights)\n")
    assert predict(photos / "0.png", "--model", exported, MVLIB_ENGINES="off").returncode == 0


def test_a_variable_that_is_neither_on_nor_off_is_refused(photos, repository):
    done = predict(photos / "0.png", *local(repository), MVLIB_ENGINES="maybe")
    assert (done.returncode, done.stderr) == (2, "mvlib: MVLIB_ENGINES is 'maybe': set it to on or off\n")


# what goes wrong

@pytest.mark.parametrize("damage", ["changed", "truncated", "description"])
def test_a_damaged_engine_is_said_and_made_anew(damage, place, photos, repository, quick):
    torchs = predict(photos, *local(repository))
    path = cache.engine_entries()[0].path / ("engine.json" if damage == "description" else "model.bin")
    data = path.read_bytes()
    path.write_bytes(data[:1000] if damage == "truncated" else data[:1000] + b"abcd" + data[1004:])
    done = predict(photos, *local(repository))
    assert probabilities(done) == probabilities(torchs)
    first, second = done.stderr.splitlines()
    assert first.startswith(f"mvlib: the engine of {repository} in the cache is damaged: ")
    assert second.startswith(PREPARED)
    assert predict(photos, *local(repository)).stderr == ""


@pytest.mark.parametrize("backend", ["auto", "openvino"])
def test_an_engine_that_its_library_does_not_take_is_made_anew(backend, place, photos, repository, quick):
    key = cache.key_of(cache.find_source(f"local-dir:{repository}"), format="openvino", read=True)
    cache.make(key, build)
    done = predict(photos / "0.png", *local(repository), "--backend", backend)
    assert len(probabilities(done)) == 1
    lines = done.stderr.splitlines()
    assert "cannot read the engine" in lines[0]
    assert lines[1].startswith(PREPARED if backend == "auto" else "mvlib: converted for this time and the next: ")
    assert predict(photos / "0.png", *local(repository)).stderr == ""


def test_a_library_that_cannot_be_imported_leaves_it_to_torch(place, photos, repository, monkeypatch, quick):
    predict(photos / "0.png", *local(repository))
    monkeypatch.setitem(sys.modules, "mvlib.engines.run_openvino", None)
    done = predict(photos / "0.png", *local(repository))
    assert len(probabilities(done)) == 1 and "run_openvino" in done.stderr
    assert len(cache.engine_entries()) == 1


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_cache_that_takes_nothing_costs_a_line(code, place, photos, repository, monkeypatch, quick):
    def refuse(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(cache, "locked", refuse)
    done = predict(photos / "0.png", *local(repository))
    assert len(probabilities(done)) == 1
    assert done.stderr == (f"mvlib: no engine was kept for next time: {os.strerror(code)} (MVLIB_ENGINES=off does "
                           f"without)\n")
    told = predict(photos / "0.png", *local(repository), "--backend", "openvino")
    assert len(probabilities(told)) == 1
    assert told.stderr.startswith("mvlib: converted for this time: ")
    assert told.stderr.endswith(f" s; it cannot be kept: {os.strerror(code)}\n")


@pytest.mark.slow
def test_files_that_may_not_grow_cost_a_line(place, photos, repository):
    """RLIMIT_FSIZE, which the engine's library meets too."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"
    run = process("predict", photos / "0.png", *local(repository), "--format", "jsonl", before=limit)
    out, err = run.communicate()
    assert run.returncode == 0 and len(out.splitlines()) == 1
    assert "\n" not in err.strip() and err.startswith("mvlib: no engine "), err
    assert cache.engine_entries() == []


def test_a_model_that_cannot_be_converted_is_tried_once(place, photos, repository, monkeypatch):
    tried = []

    def export(*args, **kwargs):
        tried.append(args)
        raise ConfigError("openvino has no complex numbers")

    monkeypatch.setattr(exporter, "export", export)
    runs = [predict(photos / "0.png", *local(repository)) for _ in range(2)]
    assert [len(probabilities(run)) for run in runs] == [1, 1]
    assert [run.stderr for run in runs] == [
        "mvlib: no engine can be made of this model, so torch goes on answering for it: openvino has no complex "
        "numbers\n", ""]
    assert len(tried) == 1
    told = predict(photos / "0.png", *local(repository), "--backend", "openvino")
    assert (told.returncode, told.stderr) == (2, "mvlib: openvino has no complex numbers\n")


WAITING = """
import mvlib.engines.choose as choose
choose.has_gpu = lambda: False
build = choose._Wanted._build
def wait(self, path, key):
    sys.stderr.write("waiting\\n")
    sys.stderr.flush()
    sys.stdin.readline()
    build(self, path, key)
choose._Wanted._build = wait
"""


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupt_after_the_answers_changes_nothing_of_them(number, place, photos, repository):
    run = process("predict", photos / "0.png", *local(repository), "--format", "jsonl", before=WAITING)
    assert "predictions" in run.stdout.readline()
    assert run.stdout.read() == ""  # the pipe is closed, and the process is there
    assert run.stderr.readline() == "waiting\n"
    assert run.poll() is None
    run.send_signal(number)
    _, err = run.communicate()
    assert (run.returncode, err) == (0, "")
    assert names(place) == []


def test_a_terminal_says_what_is_being_waited_for(place, photos, repository, monkeypatch, quick):
    monkeypatch.setattr("io.StringIO", type("Terminal", (io.StringIO,), {"isatty": lambda self: True}))
    lines = predict(photos / "0.png", *local(repository)).stderr.splitlines()
    assert lines[-2] == "mvlib: preparing an engine for next time; Ctrl-C is safe" and lines[-1].startswith(PREPARED)


def test_a_kill_after_the_answers_leaves_nothing_that_is_used(place, photos, repository, quick):
    run = process("predict", photos / "0.png", *local(repository), "--format", "jsonl", before=WAITING)
    assert run.stderr.readline() == "waiting\n"
    assert predict(photos / "0.png", *local(repository)).stderr == ""  # another one is at it
    run.kill()
    assert "predictions" in run.communicate()[0]
    assert cache.engine_entries() == []
    assert predict(photos / "0.png", *local(repository)).stderr.startswith(PREPARED)
    assert not [name for name in names(place) if name.startswith(".")]


# int8

def described(where, count):
    return (f"mvlib: int8 as calibrated on {where} ({count} pictures; 98.4% of the same class as in float32); "
            f"--calibrate FOLDER takes others")


def test_int8_is_calibrated_once_and_says_on_what(place, photos, repository, tmp_path, monkeypatch, quick):
    monkeypatch.setattr(calibration, "LEAST", 6)
    run = lambda *inputs: predict(*inputs, *local(repository), "--precision", "int8")  # noqa: E731
    first, second = run(photos), run(photos / "0.png")
    converted, said = first.stderr.splitlines()
    assert converted.startswith("mvlib: converted first, for this time and the next: ")
    assert said == described(photos, 6)
    assert (second.returncode, second.stderr) == (0, f"{described(photos, 6)}\n")
    others = tmp_path / "others"
    shutil.copytree(photos, others)
    (others / "0.png").unlink()
    assert run(photos / "0.png", "--calibrate", others).stderr.splitlines()[1] == described(others, 5)
    assert run(photos / "0.png", "--calibrate", others).stderr == f"{described(others, 5)}\n"
    assert run(photos).stderr == f"{described(others, 5)}\n"  # the last one
    assert run(photos, "--calibrate", photos).stderr == f"{described(photos, 6)}\n"
    (others / "1.png").unlink()
    assert run(photos / "0.png", "--calibrate", others).stderr.splitlines()[1] == described(others, 4)
    assert len(cache.engine_entries()) == 3


def test_results_in_int8_are_gone_on_with_by_the_engine_that_began_them(place, photos, repository, tmp_path, quick,
                                                                        monkeypatch):
    monkeypatch.setattr(calibration, "LEAST", 6)
    arguments = ("predict", photos, *local(repository), "--precision", "int8", "--output", f"{tmp_path}/out/",
                 "--shard-size", "2")
    assert here(*arguments).returncode == 0
    (tmp_path / "out" / "part-00001.jsonl").unlink()
    shutil.copytree(photos, tmp_path / "others")
    predict(photos / "0.png", *local(repository), "--precision", "int8", "--calibrate", tmp_path / "others")
    assert len(cache.engine_entries()) == 2
    done = here(*arguments)
    assert done.returncode == 0 and done.stderr.startswith(f"{described(photos, 6)}\nmvlib: 2 images in ")


@pytest.mark.slow
def test_int8_of_real_weights(place, photos, tmp_path):
    pytest.importorskip("nncf")
    for name in ("chelsea.png", "coffee.png", "astronaut.png", "rocket.jpg"):
        photo = Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB")
        for number in range(6):  # looked at from nearer and nearer
            side = min(photo.size) * (10 - number) // 10
            photo.crop((0, 0, side, side)).resize((300, 300)).save(tmp_path / f"{number}-{name}")
    first = predict(tmp_path, "--precision", "int8", "--calibrate", tmp_path)
    torchs = predict(tmp_path, "--backend", "torch")
    likeliest = [[max(item, key=item.get) for item in probabilities(done)] for done in (first, torchs)]
    assert sum(map(str.__eq__, *likeliest)) >= 22
    assert f"int8 as calibrated on {tmp_path} (24 pictures; " in first.stderr
    assert predict(tmp_path, "--precision", "int8").stdout == first.stdout


@pytest.mark.slow
def test_killed_at_any_moment_of_a_conversion(place, photos, repository):
    chance, answers, left = random.Random(0), set(), 0
    for _ in range(12):
        run = process("predict", photos / "0.png", *local(repository), "--format", "jsonl",
                      before="import mvlib.engines.choose as choose; choose.has_gpu = lambda: False")
        answers.add(run.stdout.read())
        time.sleep(chance.uniform(0, 1.5))
        run.kill()
        run.communicate()
        left += bool(cache.engine_entries())
        here("cache", "remove", "*")
    assert len(answers) == 1 and 0 < left < 12
    assert predict(photos / "0.png", *local(repository)).stderr.startswith(PREPARED)
    assert predict(photos / "0.png", *local(repository)).stderr == ""
    assert not [name for name in names(place) if name.startswith(".")]


def test_few_pictures_are_torchs_in_int8(place, photos, repository, quick):
    done = predict(photos / "0.png", *local(repository), "--precision", "int8")
    assert done.returncode == 2 and "has no int8 weights, and its linear layers" in done.stderr
    assert not place.exists()


def test_int8_weights_that_are_published_stay_torchs(place):
    assert choose.choose(Settings(model="resnet50.imagenet1k_v2", precision="int8", count=999)) == choose.Choice()


@pytest.mark.parametrize(("arguments", "message"), [
    (["--calibrate", "."], "--calibrate goes with --precision int8"),
    (["--calibrate", ".", "--precision", "int8", "--backend", "torch"],
     "--calibrate is for engines, and here torch answers, which makes no use of it: give --backend openvino, too, "
     "which says what it lacks, or leave out --calibrate"),
    (["--precision", "int8", "--backend", "onnxruntime"],
     "--backend onnxruntime computes in float32, and not in int8: give --backend openvino"),
])
def test_what_does_not_go_with_int8(arguments, message, photos, repository, place):
    done = predict(photos / "0.png", *local(repository), *arguments)
    assert (done.returncode, done.stderr) == (2, f"mvlib: {message}\n")


def test_an_export_is_calibrated_already(photos, exported):
    done = predict(photos / "0.png", "--model", exported, "--calibrate", photos)
    assert (done.returncode, done.stderr) == (2, f"mvlib: {exported} is an export, made already: leave out "
                                                 f"--calibrate, or name the model 'test_efficientnet' "
                                                 f"(with the same weights)\n")


# results that are gone on with

def manifest(output):
    return json.loads((output / "_manifest.json").read_text())["settings"]


def test_what_torch_has_begun_torch_goes_on_with(place, photos, repository, tmp_path, quick):
    """Killed, and the engine made meanwhile."""
    output = tmp_path / "parts"
    stop = """
import mvlib.inference.fill as fill
real = fill.ResultFolder.part
def part(self, shard, failures):
    if shard.number == 1:
        sys.stderr.write("here\\n")
        sys.stderr.flush()
        sys.stdin.readline()
    return real(self, shard, failures)
fill.ResultFolder.part = part
"""
    arguments = ("predict", photos, *local(repository), "--output", f"{output}/", "--shard-size", "2")
    run = process(*arguments, before=stop)
    assert run.stderr.readline() == "here\n"
    run.kill()
    run.communicate()
    assert "engine" not in manifest(output) and len(list(output.glob("part-*"))) == 1
    predict(photos / "0.png", *local(repository))
    assert len(cache.engine_entries()) == 1
    done = here(*arguments)
    assert done.returncode == 0 and done.stderr.startswith("mvlib: ") and done.stderr.count("\n") == 1
    assert " done before: " in done.stderr
    assert len(list(output.glob("part-*"))) == 3
    told = here(*arguments, "--backend", "openvino")
    assert told.returncode == 2 and "was begun otherwise" in told.stderr
    other = here(*arguments[:-3], f"{tmp_path}/other/", *arguments[-2:])
    assert other.returncode == 0 and "engine" in manifest(tmp_path / "other")


def test_what_an_engine_has_begun_the_same_goes_on_with(place, photos, repository, tmp_path, monkeypatch, quick):
    predict(photos / "0.png", *local(repository))
    output = tmp_path / "parts"
    arguments = ("predict", photos, *local(repository), "--output", f"{output}/", "--shard-size", "2")
    assert here(*arguments).returncode == 0
    assert manifest(output)["engine"]["format"] == "openvino"
    (output / "part-00001.jsonl").unlink()
    torchs = here(*arguments, "--backend", "torch")
    assert torchs.returncode == 2 and "runs the model: openvino before, torch itself now" in torchs.stderr
    done = here(*arguments)
    assert done.returncode == 0 and done.stderr.startswith("mvlib: ") and done.stderr.count("\n") == 1
    assert " done before: " in done.stderr
    (output / "part-00001.jsonl").unlink()
    here("cache", "remove", "*")
    gone = here(*arguments)
    assert gone.returncode == 2 and "runs the model: openvino before, torch" in gone.stderr
    assert "was begun otherwise; give the same to go on, --overwrite to begin anew, or another --output" in gone.stderr


def test_features_that_are_complete_stay_so(place, photos, repository, tmp_path):
    output = tmp_path / "features.npy"
    first, second = (here("embed", photos, *local(repository), "--output", output) for _ in range(2))
    assert first.stderr.splitlines()[1].startswith(PREPARED)
    assert (second.returncode, second.stderr) == (0, f"mvlib: {output} is complete already\n")
    other = tmp_path / "other.npy"
    for expected in ("mvlib: 6 images in ", f"mvlib: {other} is complete already\n"):
        done = here("embed", photos, *local(repository), "--output", other)
        assert done.returncode == 0 and done.stderr.startswith(expected) and done.stderr.count("\n") == 1
