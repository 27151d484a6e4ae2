"""AOTInductor's packages, compiled for the machine; on a GPU they are the engine, here they run on the CPU."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mvlib.cli import main
from mvlib.engines.convert import convert
from mvlib.engines.exporter import export
from mvlib.engines.folder import EngineFolder, Tensor
from mvlib.engines.run_torch import machine_of, open_engine
from mvlib.errors import ConfigError
from mvlib.inference.session import Settings, open_session

SIZE = (3, 8, 8)
DATA = {"input_size": SIZE, "mean": (0.5,) * 3, "std": (0.25,) * 3}

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    path = tmp_path_factory.mktemp("package")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()
    versions = convert("aotinductor", model, torch.randn(2, *SIZE), path / "model.aoti.pt2", names=["logits"])
    return model, EngineFolder(path, "aotinductor", "mine", None, "float32", None, 5, DATA,
                               Tensor("images", ("batch", *SIZE)), (Tensor("logits", ("batch", 5)),), versions=versions)


def open_here(folder):
    return open_engine(folder, lanes=1, threads=1, precision="float32")


@pytest.mark.slow
def test_a_package_gives_the_models_outputs_for_any_batch(package):
    model, folder = package
    engine = open_here(folder)
    for count in (1, 2, 5):
        images = torch.randn(count, *SIZE)
        with torch.no_grad():
            np.testing.assert_allclose(engine(images.numpy())[0], model(images).numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_raw_images_are_normalised(package):
    model, folder = package
    raw = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    with torch.no_grad():
        expected = model((torch.from_numpy(raw).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25)
    np.testing.assert_allclose(open_here(folder)(raw)[0], expected.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_machine_code_for_another_machine_is_refused(package):
    _, folder = package
    other = replace(folder, versions={**folder.versions, "machine": f"{machine_of(torch.device('cpu'))} avx9000"})
    with pytest.raises(ConfigError, match=r"compiled for \S+ with avx9000, and this is \S+ without: export it again"):
        open_here(other)
    gpu = replace(folder, versions={**folder.versions, "machine": "cuda 9.0"})
    with pytest.raises(ConfigError, match="was compiled for cuda with 9.0, cuda, and this is"):
        open_here(gpu)


def test_without_a_compiler_nothing_is_packaged(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match=r"'Linear' cannot be converted to AOTInductor: it compiles ahead of time, "
                                          r"and there is no C\+\+ compiler \(no-such-compiler\)"):
        convert("aotinductor", nn.Linear(3, 3), torch.randn(2, 3), tmp_path / "model.aoti.pt2")


def test_other_formats_are_for_any_device(capsys, monkeypatch, tmp_path):
    assert main(["export", "resnet18.a1_in1k", "--device", "cuda", "--output", str(tmp_path / "export")]) == 2
    assert capsys.readouterr().err == ("mvlib: --device goes with --format aotinductor: the other formats are for any "
                                       "device that their library runs on\n")
    monkeypatch.setattr("mvlib.engines.exporter.find_device", lambda device: torch.device(device))
    with pytest.raises(ConfigError, match="device='cuda' goes with the format aotinductor: what is exported as onnx is "
                                          "for any device that its library runs on"):
        export("resnet18", tmp_path / "export", format="onnx", device="cuda")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_models_package_answers(tmp_path):
    """Through the command, and by predict, which needs no device to be named."""
    export("tf_efficientnet_lite0.pip_in1k", tmp_path / "export", format="aotinductor")
    session = open_session(Settings(model=str(tmp_path / "export")))
    assert session(np.zeros((3, 224, 224, 3), np.uint8)).shape == (3, 1000)
