"""What leaves Python, or is built without memory: every family, for one small model of each type of block.

The first architecture of a family stands for it by default, the others are slow tests.
"""

import functools
import io

import pytest
import torch
from torch import nn

import mvlib
from mvlib.factory import known_arguments
from mvlib.models.feature_extraction import create_feature_extractor, get_graph_node_names

from ..parity.representatives import REPRESENTATIVES

FAMILIES = {
    **REPRESENTATIVES,
    "alexnet": {"alexnet": {}},  # torchvision's alone
    "googlenet": {"googlenet": {}},
    "shufflenetv2": {"shufflenet_v2_x0_5": {}},
    "squeezenet": {"squeezenet1_1": {}},
}
ARGUMENTS = {name: dict(arguments) for family in FAMILIES.values() for name, arguments in family.items()}
ARGUMENTS["densenet121"] |= {"block_config": (2, 2, 2, 2)}
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
    pytest.param(name, marks=() if name in ("resnetblur18", "swin_tiny_patch4_window7_224", "test_vit4")
                 else pytest.mark.slow)
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
def test_fx(name):
    model = built(name)
    check(name, torch.fx.symbolic_trace(model))
    _, nodes = get_graph_node_names(model)  # traces in training, too
    last = create_feature_extractor(model, {nodes[-1]: "last"})
    check(name, lambda x: last(x)["last"])


@every_block
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_script(name):
    rates = {"drop_rate", "drop_path_rate", "attn_drop_rate"} & set(known_arguments(name))
    model = create(name, **dict.fromkeys(rates, 0.2)).eval()
    model.load_state_dict(built(name).state_dict())
    script = torch.jit.script(model)
    check(name, script)
    kept = [key for key in script.state_dict() if key in model.state_dict()]  # TorchScript keeps every buffer
    assert kept == list(model.state_dict())
    x, answers = images(name, 4), []
    for trained in (model.train(), script.train()):
        torch.manual_seed(0)
        with torch.no_grad(), torch.jit.optimized_execution(False):
            answers.append(trained(x))
    assert torch.equal(*answers)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_script_that_torch_optimizes():
    """As users run it; padding "same" is what it lost in its loops."""
    model = mvlib.create_model("tf_mobilenetv3_small_minimal_100", num_classes=3).eval()
    script = torch.jit.script(model)
    with torch.no_grad():
        for x in torch.randn(3, 2, 3, 65, 50):  # it optimizes after the first
            torch.testing.assert_close(script(x), model(x))


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_script_of_what_returns_more_in_training():
    model = create("deit_tiny_distilled_patch16_224", img_size=32, depth=1)
    model.set_distilled_training()
    x = torch.randn(2, 3, 32, 32)
    script = torch.jit.script(model.eval())
    with torch.no_grad():
        assert torch.equal(script(x), model(x))
        for own, other in zip(script.train()(x), model.train()(x), strict=True):
            assert torch.equal(own, other)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_script_keeps_frozen_parts_and_the_model():
    model = create("test_efficientnet").train()
    frozen = model.blocks.eval()
    before = [module.training for module in model.modules()], list(model.state_dict())
    script = torch.jit.script(model)
    assert ([module.training for module in model.modules()], list(model.state_dict())) == before
    statistics = [buffer.clone() for buffer in frozen.buffers()]
    with torch.no_grad():
        script(torch.randn(4, 3, 64, 64))
    assert all(map(torch.equal, statistics, frozen.buffers()))
    assert model.bn1.num_batches_tracked == 1


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
@pytest.mark.parametrize("feature_cls", [None, "dict"])
def test_script_of_features(name, feature_cls):
    model = mvlib.create_model(name, pretrained=False, features_only=True, feature_cls=feature_cls).eval()
    script = torch.jit.script(model)
    x = images(name, 2)
    with torch.no_grad():
        own, other = script(x), model(x)
    assert type(own) is type(other) and len(own) == len(other) > 1
    pairs = zip(own, other) if feature_cls is None else [(own[key], other[key]) for key in other]
    assert all(torch.equal(*pair) for pair in pairs)


def test_tracing_counts_no_batch():
    """Batch norm with an activation counts as the graph runs, in training alone."""
    model = create("test_efficientnet").train()
    traced = torch.fx.symbolic_trace(model)
    assert model.bn1.num_batches_tracked == 0
    with torch.no_grad():
        traced(torch.randn(2, 3, 64, 64))
    assert traced.bn1.num_batches_tracked == 1


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
