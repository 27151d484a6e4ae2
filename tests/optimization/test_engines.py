"""`mvlib.optimize` with another library: its outputs and report, and what becomes of what fails."""

import tempfile
from pathlib import Path

import pytest
import torch
from torch import nn

import mvlib
from mvlib.engines import EngineModule
from mvlib.engines.module import convert_module
from mvlib.errors import ConfigError, MissingPackageError
from mvlib.layers import RepVggBlock
from mvlib.optimization import OptimizedModel, pipeline
from mvlib.optimization.precision import supported_dtypes
from mvlib.optimization.wiring import relative_difference

pytest.importorskip("openvino")


def images(count):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(count))


def small():
    torch.manual_seed(0)
    return mvlib.create_model("test_resnet", pretrained=False, num_classes=4).eval()


@pytest.fixture(autouse=True)
def enabled(monkeypatch):
    monkeypatch.setenv("MVLIB_ENGINES", "on")


@pytest.fixture
def no_engine(monkeypatch):
    """Engines that cannot be made."""
    def refuse(model, example, format):
        raise RuntimeError("no conversion rule for aten::nothing\nand more")

    monkeypatch.setattr(pipeline, "convert_module", refuse)


def test_openvino():
    model = small()
    engine, report = mvlib.optimize(model, images(4), backend="openvino")
    assert isinstance(engine, EngineModule) and engine.report is report
    for count in (1, 4, 7):
        assert relative_difference(engine(images(count)), model(images(count))) <= 1e-4
    assert (report.backend, report.dtype) == ("openvino", "float32") and 0 < report.difference <= 1e-4
    assert report["engine"].done and "for images of 32 x 32; others run in torch" in report["engine"].note
    assert str(report).startswith("float32 on cpu, openvino: outputs differ by")
    assert mvlib.optimize(engine, images(1), backend="openvino") == (engine, report)
    with pytest.raises(ConfigError, match="is optimized with openvino already: optimize the model that it was made"):
        mvlib.optimize(engine, images(1))
    with pytest.raises(ConfigError, match="is optimized for float32 already"):
        mvlib.optimize(engine, images(1), backend="openvino", dtype="bfloat16")


def test_branches_are_merged_first():
    torch.manual_seed(0)
    model = nn.Sequential(RepVggBlock(3, 3), nn.Flatten(), nn.Linear(3072, 4)).eval()
    keys = list(model.state_dict())
    engine, report = mvlib.optimize(model, images(1), backend="openvino")
    assert report["reparameterize"].done and list(model.state_dict()) == keys
    assert relative_difference(engine(images(3)), model(images(3))) <= 1e-4


@pytest.mark.skipif(torch.bfloat16 not in supported_dtypes(torch.device("cpu")), reason="no bfloat16 here")
def test_bfloat16():
    model = small()
    engine, report = mvlib.optimize(model, images(2), backend="openvino", dtype="bf16")
    assert engine(images(2)).dtype == torch.float32 and report["convert"].done and report.dtype == "bfloat16"
    assert 1e-5 < relative_difference(engine(images(2)), model(images(2))) < 0.1


def test_torch_is_the_default():
    optimized, report = mvlib.optimize(small(), images(1))
    assert isinstance(optimized, OptimizedModel) and report.backend == "torch"
    with pytest.raises(ConfigError, match="is optimized with torch already"):
        mvlib.optimize(optimized, images(1), backend="openvino")
    assert mvlib.optimize(optimized, images(1), backend="auto")[0] is optimized


@pytest.mark.parametrize(("times", "kind", "said"), [
    ((2.0, 1.0), EngineModule, None),
    ((1.0, 2.0), OptimizedModel, "undone: with openvino a batch takes 2000 ms, and 1000 ms with torch"),
])
def test_auto_takes_the_faster(monkeypatch, times, kind, said):
    monkeypatch.setattr(pipeline, "time_both", lambda own, engine: times)
    model = small()
    optimized, report = mvlib.optimize(model, images(2), backend="auto")
    assert type(optimized) is kind and optimized.report is report
    assert relative_difference(optimized(images(3)), model(images(3))) <= 1e-4
    if said:
        assert (report["engine"].done, report["engine"].note) == (False, said)


def test_auto_goes_on_with_torch(no_engine):
    optimized, report = mvlib.optimize(small(), images(2), backend="auto")
    assert isinstance(optimized, OptimizedModel)
    assert report["engine"].note == "openvino cannot take the model: no conversion rule for aten::nothing"


def test_auto_does_not_convert_where_it_may_not(monkeypatch):
    monkeypatch.setenv("MVLIB_ENGINES", "off")
    optimized, report = mvlib.optimize(small(), images(2), backend="auto")
    assert isinstance(optimized, OptimizedModel) and report["engine"].note == "MVLIB_ENGINES is off"


def test_what_was_asked_for_and_cannot_be(no_engine):
    with pytest.raises(ConfigError, match="^openvino cannot take the model: no conversion rule for aten::nothing$"):
        mvlib.optimize(small(), images(2), backend="openvino")


class Wrong(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return 1.001 * self.model(x)


def test_other_outputs_are_no_engine(monkeypatch):
    monkeypatch.setattr(pipeline, "convert_module",
                        lambda model, example, format: convert_module(Wrong(model), example, format))
    with pytest.raises(ConfigError, match="undone: with openvino, outputs change by 1.0e-03 of the largest"):
        mvlib.optimize(small(), images(2), backend="openvino")
    optimized, report = mvlib.optimize(small(), images(2), backend="auto")
    assert isinstance(optimized, OptimizedModel) and "outputs change by 1.0e-03" in report["engine"].note


def test_a_model_traced_for_its_batch_alone_is_no_engine(monkeypatch):
    """Outputs are compared on other batches than the one that a model was converted with."""
    class First(Wrong):
        def forward(self, x):
            return self.model(x)[:1].expand(len(x), -1)

    monkeypatch.setattr(pipeline, "convert_module",
                        lambda model, example, format: convert_module(First(model), example, format))
    with pytest.raises(ConfigError, match="undone: with openvino, outputs change by"):
        mvlib.optimize(small(), images(2), backend="openvino")


def test_without_the_library(monkeypatch):
    monkeypatch.setattr(pipeline, "is_installed", lambda package: False)
    optimized, report = mvlib.optimize(small(), images(1), backend="auto")
    assert isinstance(optimized, OptimizedModel)
    assert report["engine"].note == "no library for it is installed: pip install 'mvlib[openvino]'"
    monkeypatch.setattr("mvlib.engines.runtime.is_installed", lambda package: False)
    with pytest.raises(MissingPackageError, match=r"which is not installed: pip install 'mvlib\[openvino\]'"):
        mvlib.optimize(small(), images(1), backend="openvino")


@pytest.mark.parametrize(("options", "text"), [
    ({"backend": "tensorrt"}, "backend 'tensorrt' is not one of auto, torch, openvino, onnxruntime"),
    ({"backend": "openvino", "dtype": "int8"}, r"int8 is calibrated on pictures: mvlib.export\(model, folder"),
    ({"backend": "openvino", "compile": "on"}, "compile='on' is torch's, and backend='openvino' runs no torch"),
])
def test_what_it_refuses(options, text):
    with pytest.raises(ConfigError, match=text):
        mvlib.optimize(small(), images(1), **options)


def test_a_model_on_another_device():
    model = small().to("meta")
    with pytest.raises(ConfigError, match="backend 'openvino': engines run on the CPU, and the model is on meta"):
        mvlib.optimize(model, images(1).to("meta"), backend="openvino")


def test_nothing_is_left_behind():
    before = set(Path(tempfile.gettempdir()).glob("mvlib-engine-*"))
    mvlib.optimize(small(), images(1), backend="openvino")
    assert set(Path(tempfile.gettempdir()).glob("mvlib-engine-*")) <= before
