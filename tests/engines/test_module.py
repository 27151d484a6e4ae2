"""An engine as a torch module: the model's outputs, and errors where it is no model."""

import copy
import gc
import pickle
import tempfile
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

import mvlib
from mvlib.engines import EngineModule, read_export
from mvlib.engines.module import convert_module
from mvlib.errors import CheckpointError, ConfigError

pytest.importorskip("openvino")


def images(count, size=64):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(count))


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return mvlib.create_model("test_resnet", pretrained=False, num_classes=4).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def module(model):
    return convert_module(model, images(1), "openvino")


@pytest.fixture(scope="module")
def exports(model, tmp_path_factory):
    """{whether the batch is dynamic: folder}."""
    folder = tmp_path_factory.mktemp("exports")
    for dynamic in (True, False):
        mvlib.export(model, folder / str(dynamic), dynamic_batch=dynamic)
    return {dynamic: folder / str(dynamic) for dynamic in (True, False)}


def test_it_answers_as_the_model(model, module):
    for count in (1, 2, 5):
        same(module(images(count)), model(images(count)))
    x = images(2)
    same(module(x.contiguous(memory_format=torch.channels_last)), model(x))
    same(module(x.double()), model(x))
    assert module(x).dtype == torch.float32 and module(images(1)[:0]).shape == (0, 4)
    assert module.num_classes == 4 and module.feature_info == model.feature_info
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        str(module.nothing)


def test_images_of_another_size_run_in_torch(model, module):
    same(module(images(2, 96)), model(images(2, 96)))


@pytest.mark.parametrize("dynamic", [True, False])
def test_an_export_without_its_model(model, exports, dynamic):
    module = EngineModule(exports[dynamic])
    size = module.data_config["input_size"]
    assert (module.folder.input.shape[0] == 1) == (not dynamic)
    for count in (1, 3):
        x = images(count, size[1])
        same(module(x), model(x))
    assert (module.num_classes, module.in_chans, module.architecture) == (4, 3, "test_resnet")
    assert mvlib.resolve_data_config(model=module) == mvlib.resolve_data_config(model=model)
    with pytest.raises(ConfigError, match=f"images of {'batch' if dynamic else 1} x 3 x 160 x 160, not"):
        module(images(1, 96))


def test_outputs_in_the_model_s_structure():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 1)

        def forward(self, x):
            x = self.conv(x)
            return [x, x.mean((2, 3))]

    model = Two().eval()
    found = convert_module(model, images(1), "openvino")(images(3))
    assert type(found) is list
    for own, other in zip(found, model(images(3)), strict=True):
        same(own, other.detach())


def test_threads_are_torch_s(module):
    before = torch.get_num_threads()
    try:
        engines = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            engines.append(module.engine())
            assert module.engine() is engines[-1]
            assert engines[-1].compiled(False).get_property("INFERENCE_NUM_THREADS") == threads
    finally:
        torch.set_num_threads(before)


def test_calls_from_several_threads(model, module):
    batches = [images(count) for count in range(1, 9)]
    found = [None] * len(batches)

    def work(index):
        for _ in range(3):
            found[index] = module(batches[index])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for x, own in zip(batches, found):
        same(own, model(x))


@pytest.mark.parametrize(("use", "error", "text"), [
    (lambda module: module.train(), RuntimeError, "an engine cannot be trained: train the model that it was made from"),
    (lambda module: module.state_dict(), RuntimeError, "an engine has no weights that torch could save or load"),
    (lambda module: module.load_state_dict({}), RuntimeError, "an engine has no weights that torch could save or load"),
    (lambda module: module.to("cuda"), RuntimeError, "an engine runs on the CPU and cannot be moved to cuda"),
    (lambda module: module.cuda(), RuntimeError, "an engine runs on the CPU and cannot be moved to cuda"),
    (lambda module: module.to("meta"), RuntimeError, "an engine runs on the CPU and cannot be moved to meta"),
    (lambda module: nn.Sequential(module).half(), RuntimeError, "part of it and cannot be changed to .*float16"),
    (lambda module: module(images(1)[0]), ConfigError, r"takes a floating tensor of images .* not \(3, 64, 64\) of"),
    (lambda module: module(images(1).int()), ConfigError, "takes a floating tensor of images .* of torch.int32"),
    (lambda module: module(images(1).to("meta")), ConfigError, "runs on the CPU, and the images are on meta"),
    (pickle.dumps, TypeError, "an engine cannot be pickled: keep its export"),
])
def test_what_a_module_can_and_an_engine_cannot(module, use, error, text):
    with pytest.raises(error, match=text):
        use(module)


def test_what_changes_nothing(module):
    assert module.eval() is module.float() is module.to("cpu") is module.to(memory_format=torch.channels_last) is module
    assert copy.deepcopy(module) is module and not list(module.parameters())


def test_another_precision(exports):
    with pytest.raises(ConfigError, match="is an export in float32, and cannot compute in int8: export"):
        EngineModule(exports[True], precision="int8")


def test_a_damaged_export(exports, tmp_path):
    import shutil

    shutil.copytree(exports[True], tmp_path / "copy")
    with open(tmp_path / "copy" / "model.bin", "r+b") as stream:
        stream.write(b"x")
    with pytest.raises(CheckpointError, match="is damaged: model.bin is not what was exported"):
        EngineModule(tmp_path / "copy")
    with pytest.raises(ConfigError, match="holds no engine.json: it is not an export"):
        EngineModule(tmp_path)


def test_a_temporary_engine_goes_with_its_module(model):
    module = convert_module(model, images(1), "openvino")
    place = module.folder.path
    assert read_export(place).format == "openvino" and place.parent.parent == Path(tempfile.gettempdir())
    del module
    gc.collect()
    assert not place.parent.exists()
    before = set(Path(tempfile.gettempdir()).glob("mvlib-engine-*"))
    with pytest.raises(KeyError):
        convert_module(model, images(1), "nothing")
    assert set(Path(tempfile.gettempdir()).glob("mvlib-engine-*")) <= before
