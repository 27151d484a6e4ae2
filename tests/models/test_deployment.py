"""What leaves Python, or is built without memory: every family, for one small model of each type of block.

The first architecture of a family stands for it by default, the others are slow tests.
"""

import functools
import io

import pytest
import torch
from torch import nn

import mvlib

from ..parity.representatives import REPRESENTATIVES

FAMILIES = {
    **REPRESENTATIVES,
    "alexnet": {"alexnet": {}},  # torchvision's alone
    "googlenet": {"googlenet": {}},
    "shufflenetv2": {"shufflenet_v2_x0_5": {}},
    "squeezenet": {"squeezenet1_1": {}},
}
ARGUMENTS = {name: dict(arguments) for family in FAMILIES.values() for name, arguments in family.items()}
ARGUMENTS["swin_tiny_patch4_window7_224"] |= {"img_size": 112}
ARGUMENTS["swinv2_tiny_window8_256"] |= {"img_size": 128}
FIRST = {next(iter(family)) for family in FAMILIES.values()}
every_block = pytest.mark.parametrize("name", [
    pytest.param(name, marks=() if name in FIRST else pytest.mark.slow) for name in ARGUMENTS])


def create(name, **kwargs):
    return mvlib.create_model(name, pretrained=False, num_classes=10, **{**ARGUMENTS[name], **kwargs})


@functools.lru_cache(2)
def built(name):
    torch.manual_seed(0)
    return create(name).eval()


def images(name, count):
    size = getattr(getattr(built(name), "patch_embed", None), "img_size", None)
    size = size or ARGUMENTS[name].get("img_size") or {"inception_v3": 96, "alexnet": 224}.get(name, 64)
    height, width = (size, size) if isinstance(size, int) else size
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def check(name, other):
    """`other` answers as the model does, for one image and for four."""
    for count in (1, 4):
        x = images(name, count)
        expected = built(name)(x)
        with torch.jit.optimized_execution(False):  # which takes longer than the model
            torch.testing.assert_close(other(x), expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


def test_every_family_has_a_representative():
    assert set(mvlib.list_modules()) - {"quantization"} == set(FAMILIES)


@every_block
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit:FutureWarning")
def test_trace_of_one_image_takes_four(name):
    with torch.no_grad():
        check(name, torch.jit.trace(built(name), images(name, 1), check_trace=False))


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=() if name in ("resnetblur18", "swin_tiny_patch4_window7_224") else pytest.mark.slow)
    for name in ARGUMENTS if not name.startswith("vgg")])  # ONNX has no pooling to a larger map
@pytest.mark.filterwarnings("ignore")
def test_onnx_of_one_image_takes_four(name):
    """The older exporter, which traces."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    file = io.BytesIO()
    torch.onnx.export(built(name), (images(name, 1),), file, dynamo=False, input_names=["x"], output_names=["y"],
                      dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}})
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    check(name, lambda x: torch.from_numpy(session.run(None, {"x": x.numpy()})[0]))


@every_block
def test_built_on_meta(name):
    """The protocol of transformers and accelerate, for models without memory."""
    with torch.device("meta"):
        model = create(name)
    assert all(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    model.to_empty(device="cpu")
    with torch.no_grad():
        for buffer in model.buffers():
            buffer.fill_(7)  # what lies in memory
    model.load_state_dict(built(name).state_dict())
    for module in model.modules():
        if hasattr(module, "init_non_persistent_buffers"):
            module.init_non_persistent_buffers()
    x = images(name, 2)
    with torch.no_grad():
        assert torch.equal(model.eval()(x), built(name)(x))


@every_block
def test_parameters_on_meta_buffers_in_memory(name, monkeypatch):
    """accelerate's `init_empty_weights` moves each parameter as it is registered."""
    register = nn.Module.register_parameter

    def register_on_meta(module, key, parameter):
        register(module, key, None if parameter is None else nn.Parameter(
            parameter.to("meta"), parameter.requires_grad))

    with monkeypatch.context() as patch:
        patch.setattr(nn.Module, "register_parameter", register_on_meta)
        model = create(name)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert not any(buffer.is_meta for buffer in model.buffers())
    model.load_state_dict(built(name).state_dict(), assign=True)
    x = images(name, 2)
    with torch.no_grad():
        assert torch.equal(model.eval()(x), built(name)(x))
