"""torchvision's int8 models: older files, files that do not fit, the contract as far as int8 can hold it.

That the files torchvision publishes give its outputs is in tests/parity/test_torchvision.py.
"""

import copy
import io
from collections import OrderedDict

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torch.ao import quantization as ao
from torchvision.models import quantization as tv
from torchvision.models.quantization.utils import quantize_model

import mvlib
from mvlib.errors import CheckpointError, ConfigError
from mvlib.loading import load_checkpoint, load_weights
from mvlib.models import quantization

BACKENDS = torch.backends.quantized.supported_engines
pytestmark = [
    pytest.mark.skipif(not {"fbgemm", "qnnpack"} <= set(BACKENDS), reason="needs fbgemm and qnnpack"),
    pytest.mark.filterwarnings("ignore:.*torch.ao.quantization is deprecated", "ignore:.*must run observer",
                               "ignore:.*default weight initialization", "ignore:.*quantized tensor creation",
                               "ignore:.*torch.jit", "ignore:Scripted Quant"),
]

INCEPTIONS = ("googlenet", "inception_v3")


def first_of(first, *others):
    """By default the first stands for all."""
    return [first, *(pytest.param(other, marks=pytest.mark.slow) for other in others)]


@pytest.fixture(autouse=True)
def engine():
    """Quantizing sets a global; other tests get back what they had."""
    before = torch.backends.quantized.engine
    torch.manual_seed(0)
    yield
    torch.backends.quantized.engine = before


def images(name, batch=2):
    size = 96 if name == "inception_v3" else 64
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


def build(name, **kwargs):
    return getattr(quantization, f"quantized_{name}")(**kwargs).eval()


def trained(name, **kwargs):
    """torchvision's float model, every norm with statistics and scales of its own."""
    with_init = {"init_weights": False} if name in INCEPTIONS else {}
    model = getattr(tv, name)(weights=None, **with_init, **kwargs)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model.eval()


def published(name):
    """An int8 state dict as torchvision publishes it."""
    model = trained(name)
    if name != "mobilenet_v3_large":
        quantize_model(model, "qnnpack" if name == "mobilenet_v2" else "fbgemm")
        return model.state_dict()
    model.train()
    model.fuse_model(is_qat=True)
    model.qconfig = ao.get_default_qat_qconfig("qnnpack")
    ao.prepare_qat(model, inplace=True)
    for _ in range(2):  # the observers see something, the norms move
        model(torch.rand(4, 3, 64, 64))
    return model.state_dict()


@pytest.fixture(scope="module")
def resnet18_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("quantized") / "resnet18_fbgemm.pth"
    before = torch.backends.quantized.engine
    torch.manual_seed(0)
    torch.save(published("resnet18"), path)
    torch.backends.quantized.engine = before
    return path


def load(model, path):
    load_checkpoint(model, path)
    return model.eval()


@pytest.mark.parametrize("name", INCEPTIONS)
def test_auxiliary_heads_can_be_kept(name, tmp_path):
    source = trained(name, aux_logits=True)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    ours = load(build(name, aux_logits=True), tmp_path / "w.pth")
    assert ours.state_dict().keys() == source.state_dict().keys()
    outputs = ours.train()(torch.rand(2, 3, 299, 299))
    assert all(logits.shape == (2, 1000) for logits in outputs) and len(outputs) == (3 if name == "googlenet" else 2)


# layouts of the file

def as_older(state_dict, version):
    """The state dict as torch wrote it when linear layers had `version`, and the versions it wrote beside it."""
    older = OrderedDict(state_dict)
    weight, bias = older.pop("fc._packed_params._packed_params")
    dtype = older.pop("fc._packed_params.dtype")
    if version == 1:
        older.update({"fc.weight": weight, "fc.bias": bias})
    else:
        older.update({"fc._packed_params.weight": weight, "fc._packed_params.bias": bias,
                      "fc._packed_params.dtype": dtype})
    for key in [key for key in older if key.endswith((".scale", ".zero_point"))]:
        older[key] = older[key].reshape(1)
    older._metadata = OrderedDict((path, {"version": version if path.startswith("fc") else 1})
                                  for path in state_dict._metadata)
    return older


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["first", "second", "legacy file", "no versions", "wrapped"])
def test_older_layouts_load(layout, resnet18_file, tmp_path):
    state_dict = torch.load(resnet18_file)
    if layout in ("first", "second"):
        state_dict = as_older(state_dict, 1 if layout == "first" else 2)
    elif layout == "no versions":
        state_dict = dict(state_dict)
    elif layout == "wrapped":
        state_dict = {"model": state_dict, "epoch": 3}
    path = tmp_path / "older.pth"
    torch.save(state_dict, path, _use_new_zipfile_serialization=layout != "legacy file")
    expected = load(build("resnet18", quantize=True), resnet18_file)(images("resnet18"))
    assert torch.equal(load(build("resnet18", quantize=True), path)(images("resnet18")), expected)


@pytest.mark.slow
@pytest.mark.parametrize("has_versions", [True, False])
def test_older_layouts_of_training_load(has_versions, tmp_path):
    """Before torchvision 0.10, squeeze-and-excitation observed no gates; before torch 1.7, observers had no epsilon."""
    current = published("mobilenet_v3_large")
    older = OrderedDict((key, value) for key, value in current.items()
                        if "scale_activation" not in key and not key.endswith(".eps"))
    assert len(older) < len(current)
    if has_versions:
        older._metadata = OrderedDict((path, {"version": 1}) for path in current._metadata)
    outputs = []
    for state_dict in (current, older):
        torch.save(state_dict, tmp_path / "w.pth")
        outputs.append(load(build("mobilenet_v3_large", quantize=True), tmp_path / "w.pth")(torch.ones(1, 3, 64, 64)))
    assert torch.equal(*outputs)


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "mobilenet_v2", "mobilenet_v3_large"])
def test_int8_models_can_be_saved_and_loaded(name, tmp_path):
    model = build(name, quantize=True, num_classes=7)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    other = load(build(name, quantize=True, num_classes=7), tmp_path / "w.pth")
    assert torch.equal(other(images(name)), model(images(name)))


def test_the_factory_builds_and_loads_them(resnet18_file):
    model = mvlib.create_model("quantized_resnet18", quantize=True, checkpoint_path=resnet18_file)
    assert torch.equal(model(images("resnet18")),
                       load(build("resnet18", quantize=True), resnet18_file)(images("resnet18")))
    with pytest.raises(ConfigError, match="does not know the argument 'num_clases'"):
        mvlib.create_model("quantized_resnet18", num_clases=3)


# files that do not fit

def without(key):
    return lambda state_dict: {k: v for k, v in state_dict.items() if k != key}


@pytest.mark.sample(2)
@pytest.mark.parametrize(("change", "kwargs", "messages"), [
    (lambda _: trained("resnet18").state_dict(), {}, [
        "w.pth: does not fit the model 'QuantizedResNet'",
        "the file holds float weights, the model is int8: pass quantize=False to load them"]),
    (dict, dict(num_classes=10), ["fc.weight (file (1000, 512), model (10, 512))", "pass num_classes=1000 to keep it"]),
    (without("conv1.weight"), {}, ["missing (1): conv1.weight"]),
    (without("fc._packed_params._packed_params"), {}, ["missing (2): fc.weight, fc.bias"]),
    (lambda state_dict: state_dict | {"extra.scale": torch.ones(1)}, {}, ["unexpected (1): extra.scale"]),
    (lambda state_dict: state_dict | {"conv1.weight": state_dict["conv1.weight"].dequantize()}, {}, [
        "'QuantizedResNet': conv1.weight is torch.float32, not torch.qint8"]),
], ids=["float", "classes", "conv", "linear", "extra", "type"])
def test_what_does_not_fit_is_named(change, kwargs, messages, resnet18_file, tmp_path):
    torch.save(change(torch.load(resnet18_file)), tmp_path / "w.pth")
    model = build("resnet18", quantize=True, **kwargs)
    before = model(images("resnet18"))
    with pytest.raises(CheckpointError) as caught:
        load(model, tmp_path / "w.pth")
    assert all(message in str(caught.value) for message in messages), str(caught.value)
    assert torch.equal(model(images("resnet18")), before)  # all or nothing


def test_an_int8_file_in_a_float_model(resnet18_file):
    for model in (build("resnet18"), mvlib.create_model("resnet18")):
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint(model, resnet18_file)
        assert "a quantized_* model takes them, with quantize=True" in str(caught.value)


@pytest.mark.slow
def test_training_s_weights_of_another_number_of_classes(tmp_path):
    torch.save(published("mobilenet_v3_large"), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"classifier.3.weight \(file \(1000, 1280\), model \(10, 1280\)\)"):
        load(build("mobilenet_v3_large", quantize=True, num_classes=10), tmp_path / "w.pth")


@pytest.mark.slow
def test_training_s_weights_without_an_observer(tmp_path):
    state_dict = published("mobilenet_v3_large")
    del state_dict["features.1.skip_add.activation_post_process.scale"]
    torch.save(state_dict, tmp_path / "w.pth")
    model = build("mobilenet_v3_large", quantize=True)
    before = model(images("mobilenet_v3_large"))
    with pytest.raises(CheckpointError, match="(?s)'QuantizedMobileNetV3': .*skip_add.activation_post_process.scale"):
        load(model, tmp_path / "w.pth")
    assert torch.equal(model(images("mobilenet_v3_large")), before)


# arguments

def test_a_backend_that_is_not_there():
    with pytest.raises(ConfigError, match=f"backend 'abacus' is not available here; supported: .*{BACKENDS[0]}"):
        build("resnet18", quantize=True, backend="abacus")


def test_a_backend_is_not_needed_by_a_float_model():
    assert build("shufflenet_v2_x0_5", backend="abacus").is_quantized is False


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", first_of("resnet18", "shufflenet_v2_x0_5", "mobilenet_v2"))
@pytest.mark.parametrize("quantize", [True, False])
@pytest.mark.parametrize("train", [False, True])
def test_small_images(name, quantize, train):
    """The last map is 1 x 1."""
    model, x = build(name, quantize=quantize, num_classes=7).train(train), torch.rand(2, 3, 32, 32)
    assert model(x).shape == (2, 7)
    assert model.forward_head(model.forward_features(x)).shape == (2, 7)
    assert torch.jit.script(model)(x).shape == (2, 7)


@pytest.mark.parametrize("backend", [engine for engine in BACKENDS if engine != "none"])
def test_every_backend(backend):
    model = build("shufflenet_v2_x0_5", quantize=True, backend=backend)
    assert model.backend == torch.backends.quantized.engine == backend
    assert model(images("shufflenet_v2_x0_5")).unique().numel() > 20


def test_weights_are_packed_for_the_model_s_own_engine(resnet18_file):
    expected = load(build("resnet18", quantize=True), resnet18_file)(images("resnet18"))
    model = build("resnet18", quantize=True)
    build("mobilenet_v2", quantize=True)
    assert torch.backends.quantized.engine == "qnnpack"
    assert torch.equal(load(model, resnet18_file)(images("resnet18")), expected)
    assert torch.backends.quantized.engine == model.backend == "fbgemm"


def test_input_channels():
    with pytest.raises(ConfigError, match="images of 3 channels, not in_chans=1"):
        build("resnet18", in_chans=1)
    assert build("shufflenet_v2_x0_5", in_chans=3).in_chans == 3


def test_unknown_arguments():
    with pytest.raises(ConfigError, match=r"does not know the argument 'dropuot'\. It takes: dropout, .*round_nearest"):
        build("mobilenet_v2", dropuot=0.1)


@pytest.mark.parametrize(("name", "kwargs"), [
    ("resnet50", {"replace_stride_with_dilation": (False, False, True)}), ("mobilenet_v2", {"width_mult": 0.5}),
    ("mobilenet_v3_large", {"reduced_tail": True, "dilated": True}), ("mobilenet_v3_large", {"width_mult": 0.5})])
def test_torchvision_s_arguments(name, kwargs):
    theirs = getattr(tv, name)(weights=None, **kwargs).eval()
    ours = build(name, **kwargs)
    load_weights(ours, theirs.state_dict())
    assert torch.equal(ours(images(name)), theirs(images(name)))


# habits

@pytest.mark.parametrize("quantize", [True, False], ids=["int8", "float"])
@pytest.mark.parametrize("name", first_of("resnet18", "mobilenet_v2", "mobilenet_v3_large", "shufflenet_v2_x0_5",
                                          *INCEPTIONS))
def test_features_and_head(name, quantize):
    model = build(name, quantize=quantize, **({"transform_input": True} if name in INCEPTIONS else {}))
    x = images(name)
    features = model.forward_features(x)
    assert features.shape[1] == model.num_features and features.is_quantized is quantize
    assert torch.equal(model.forward_head(features), model(x))
    pooled = model.forward_head(features, pre_logits=True)
    assert pooled.shape == (2, model.head_hidden_size) and not pooled.is_quantized
    model.reset_classifier(0)
    assert isinstance(model.get_classifier(), nn.Identity) and model.num_classes == 0
    assert torch.equal(model(x), pooled)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "mobilenet_v3_large", "googlenet"])
def test_reset_classifier(name):
    model = build(name, num_classes=0)
    model.reset_classifier(7, "avg")
    assert model(images(name)).shape == (2, 7) and model.get_classifier().weight.std() > 0
    with pytest.raises(ConfigError, match="pools by average alone"):
        model.reset_classifier(7, "max")


def test_an_int8_model_gets_no_new_classifier():
    with pytest.raises(ConfigError, match="is int8 and cannot learn a classifier of 7 classes"):
        build("shufflenet_v2_x0_5", quantize=True).reset_classifier(7)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_large"])
def test_a_model_without_classifier_takes_the_rest(name, tmp_path):
    torch.save(published(name), tmp_path / "w.pth")
    whole = load(build(name, quantize=True), tmp_path / "w.pth")
    headless = load(build(name, quantize=True, num_classes=0), tmp_path / "w.pth")
    x = images(name)
    assert torch.equal(headless(x), whole.forward_head(whole.forward_features(x), pre_logits=True))


def test_float_weights_get_another_classifier(tmp_path):
    torch.save(trained("googlenet", aux_logits=True).state_dict(), tmp_path / "w.pth")
    model = mvlib.create_model("quantized_googlenet", checkpoint_path=tmp_path / "w.pth", num_classes=7,
                               aux_logits=True, quantize=False)
    assert [model.get_submodule(path).out_features for path in model.classifier_paths] == [7, 7, 7]
    assert torch.equal(model.conv1.conv.weight, torch.load(tmp_path / "w.pth")["conv1.conv.weight"])


def test_an_int8_model_stays_on_the_cpu():
    model = build("shufflenet_v2_x0_5", quantize=True)
    assert model.to("cpu").float() is model
    for move in (lambda: model.to("meta"), model.half, lambda: model.to(torch.bfloat16)):
        with pytest.raises(ConfigError, match="is int8: it runs on the CPU"):
            move()


@pytest.mark.parametrize("quantize", [True, False], ids=["int8", "float"])
@pytest.mark.parametrize("name", first_of("resnet18", "mobilenet_v2", "mobilenet_v3_large", "shufflenet_v2_x0_5",
                                          "googlenet"))
def test_copies_and_scripts(name, quantize):
    model = build(name, quantize=quantize)
    x = images(name)
    assert torch.equal(copy.deepcopy(model)(x), model(x))
    scripted = torch.jit.script(model)
    buffer = io.BytesIO()
    torch.jit.save(scripted, buffer)
    buffer.seek(0)
    outputs = torch.jit.load(buffer)(x)
    assert torch.equal(outputs[0] if isinstance(outputs, tuple) else outputs, model(x))


def test_safetensors_cannot_hold_int8_models(tmp_path):
    with pytest.raises((ValueError, TypeError, KeyError, AttributeError)):
        save_file(build("shufflenet_v2_x0_5", quantize=True).state_dict(), tmp_path / "w.safetensors")


# names

def test_torchvision_s_names():
    import mvlib.models

    names = [name.removeprefix("quantized_") for name in torchvision.models.list_models(module=tv)]
    for name in names:
        assert getattr(quantization, name) is getattr(mvlib.models, f"quantized_{name}")
    assert quantization.ResNet50_QuantizedWeights is mvlib.models.ResNet50_QuantizedWeights
    assert quantization.QuantizableResNet is tv.QuantizableResNet
    assert issubclass(quantization.QuantizedResNet, tv.QuantizableResNet)
    with pytest.raises(AttributeError, match="resnet34"):
        quantization.resnet34  # noqa: B018
