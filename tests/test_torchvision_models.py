"""torchvision's classes as its builders give them here: as theirs without weights, filled by our loader with them, and
state dicts that go from theirs to ours and back."""

import copy
import functools
import pickle
import re
import warnings

import pytest
import torch
import torchvision
from torch import nn

import mvlib
from mvlib import models, registry
from mvlib.engines.subject import Subject
from mvlib.torchvision_models import note_classes
from tests.parity.test_torchvision import FLOAT, QUANTIZED, THEIRS, serve
from tests.skeleton import uninitialised

from .hub_server import HubServer

SMALL = ("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3", "maxvit_t",
         "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_y_400mf", "resnet18", "shufflenet_v2_x0_5",
         "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11", "vit_b_32")  # one of each class
LARGE = ("alexnet", "convnext_tiny", "maxvit_t", "swin_v2_t", "vgg11", "vit_b_32")  # whose files take a while

INCEPTIONS = ("googlenet", "inception_v3")


def same(model, state):
    own = model.state_dict()
    return list(own) == list(state) and all(torch.equal(own[key], state[key]) for key in state)


@pytest.fixture
def publish(hub: HubServer, monkeypatch, tmp_path):
    """Serves a state dict as torchvision's default weights of a builder. Returns our member."""
    return lambda builder, state: serve(hub, monkeypatch, THEIRS.get_model_weights(builder).DEFAULT, state, tmp_path)


@functools.lru_cache(2)
def their_model(builder):
    with uninitialised():
        model = THEIRS.get_model(builder, **({"init_weights": False} if builder in INCEPTIONS else {}))
    generator = torch.Generator().manual_seed(0)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator))
    return model


@pytest.mark.parametrize("builder", [
    pytest.param(b, marks=[] if b.endswith(("resnet18", "mobilenet_v3_small")) else pytest.mark.slow)
    for b in (*FLOAT, *QUANTIZED)])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_without_weights_it_is_torchvisions_to_the_bit(builder):
    torch.manual_seed(3)
    theirs = THEIRS.get_model(builder)
    torch.manual_seed(3)
    ours = models.get_model(builder)
    assert type(ours) is type(theirs) and same(ours, theirs.state_dict()) and repr(ours) == repr(theirs)


@pytest.mark.sample(6)
@pytest.mark.parametrize("builder", [
    pytest.param(b, marks=pytest.mark.slow if b in LARGE else []) for b in SMALL])
def test_with_weights_it_is_torchvisions_with_a_new_head_if_asked(builder, publish):
    """The head is what torchvision's constructor makes: the same distribution, and no other tensor is drawn."""
    theirs = their_model(builder)
    member = publish(builder, theirs.state_dict())
    kwargs = {"aux_logits": True} if builder == "inception_v3" else {}
    ours = models.get_model(builder, weights=member, num_classes=11)
    assert type(ours) is type(theirs) and not any(value.is_meta for value in ours.state_dict().values())
    (path, *_), whole = ours.classifier_paths, theirs.state_dict()
    fresh = THEIRS.get_model(builder, num_classes=11, **kwargs).state_dict() if builder not in INCEPTIONS else None
    for key, value in ours.state_dict().items():
        if key.rpartition(".")[0] not in ours.classifier_paths:
            assert torch.equal(value, whole[key]), key
        elif fresh is not None:
            assert value.shape == fresh[key].shape
            assert value.std().item() == pytest.approx(fresh[key].std().item(), rel=0.5), key
    assert ours.num_classes == 11 and ours.get_submodule(path).weight.shape[0] == 11
    images = torch.rand(2, 3, *ours.pretrained_cfg["input_size"][1:])
    assert ours.eval()(images).shape == (2, 11)


EXCHANGED = [b for b in FLOAT if b in SMALL or b in ("efficientnet_v2_s", "regnet_x_400mf", "mobilenet_v3_large")]


@pytest.mark.sample(3)
@pytest.mark.parametrize("builder", [
    pytest.param(b, marks=[] if b in EXCHANGED else pytest.mark.slow) for b in FLOAT])
def test_state_dicts_go_both_ways(builder):
    """theirs -> our architecture -> torchvision's class again: nothing is lost, and the classes' tensors are equal."""
    theirs = their_model(builder)
    state = {key: value for key, value in theirs.state_dict().items() if not key.startswith(("aux", "Aux"))}
    architecture = registry.resolve_name(builder)[0]
    with uninitialised():
        ours = mvlib.create_model(architecture, pretrained=False, num_classes=1000)
        back = models.get_model(builder, **({"aux_logits": False} if builder in INCEPTIONS else {}))
    ours.load_state_dict(state)
    assert back.structure == "torchvision" and ours.structure == "mvlib"
    for value in back.state_dict().values():
        value.zero_()
    back.load_state_dict(ours.state_dict())
    if builder.startswith("swin_v2"):  # torchvision holds a bias of the keys, which it zeroes
        for key in state:
            if key.endswith("qkv.bias"):
                state[key].chunk(3)[1].zero_()
    computed = ("relative_position_index", "relative_coords_table")
    found = back.state_dict()
    assert all(torch.equal(found[key], state[key]) for key in state if not key.endswith(computed))
    assert list(found) == list(state)


@pytest.mark.parametrize(("builder", "arguments"), [
    ("efficientnet_v2_s", {"bn_eps": 0.001}), pytest.param("vgg11", {"fixed_grid": True}, marks=pytest.mark.slow)])
def test_what_a_state_dict_does_not_tell_is_said(builder, arguments, tmp_path):
    """Where torchvision's model is ours by another argument than the default, outputs differ."""
    architecture, (said,) = registry.resolve_name(builder)[0], (f"{k}={v}" for k, v in arguments.items())
    with uninitialised():
        theirs, ours = models.get_model(builder), mvlib.create_model(architecture)
        alike = mvlib.create_model(architecture, **arguments)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    other = rf"torchvision's model is '{architecture}' with {said}, as this one is not: outputs can differ; build it " \
        rf"by mvlib.create_model\('{architecture}', {said}\)"
    with pytest.warns(UserWarning, match=other) as caught:
        ours.load_state_dict(theirs.state_dict())
    assert [warning.filename for warning in caught] == [__file__]
    with pytest.warns(UserWarning, match=other):
        mvlib.load_checkpoint(ours, tmp_path / "theirs.pth")
    with pytest.warns(UserWarning, match=f"mvlib's layout, which does not say whether '{architecture}' was built with "
                                         f"{said}, as torchvision's is: if it was not, outputs can differ"):
        theirs.load_state_dict(ours.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alike.load_state_dict(theirs.state_dict())
        theirs.load_state_dict(theirs.state_dict())


@pytest.mark.parametrize("builder", [
    "resnet18", "efficientnet_b0", *(pytest.param(b, marks=pytest.mark.slow) for b in ("vgg11", "swin_v2_t"))])
def test_a_file_of_ours_loads(builder, tmp_path):
    ours = mvlib.create_model(registry.resolve_name(builder)[0], pretrained=False, num_classes=1000)
    torch.save(ours.state_dict(), tmp_path / "ours.pth")
    model = models.get_model(builder)
    mvlib.load_checkpoint(model, tmp_path / "ours.pth")
    image = torch.rand(2, 3, *ours.pretrained_cfg["input_size"][1:])
    with torch.inference_mode():
        assert torch.allclose(model.eval()(image), ours.eval()(image), atol=1e-4)


def test_what_of_ours_does_not_fit_is_named():
    model = models.mobilenet_v2(num_classes=7)
    state = mvlib.create_model("mobilenetv2_100", pretrained=False, num_classes=1000).state_dict()
    with pytest.raises(RuntimeError, match=r"size mismatch for classifier.1.weight: .*\[1000, 1280\].*\[7, 1280\]"):
        model.load_state_dict(state)
    state = mvlib.create_model("mobilenetv2_100", pretrained=False, num_classes=7).state_dict()
    del state["bn1.weight"]
    with pytest.raises(RuntimeError, match=r'MobileNetV2:\s+Missing key\(s\) in state_dict: "features.0.1.weight". $'):
        model.load_state_dict(state)
    state = {**mvlib.create_model("mobilenetv2_100", num_classes=7).state_dict(), "extra": torch.ones(1)}
    with pytest.raises(RuntimeError, match=r"(?s)Unexpected key\(s\) in state_dict: \"extra\""):
        model.load_state_dict(state)


def test_users_edit_it():
    """What torchvision's users do with its models, in a line each."""
    def logits(model, size=64):
        return model.eval()(torch.rand(2, 3, size, size))

    resnet = models.resnet18(zero_init_residual=True, norm_layer=lambda chs: nn.GroupNorm(4, chs))
    assert not resnet.layer1[0].bn2.weight.any() and models.regnet_y_400mf().fc.in_features == 440
    with torch.device("meta"):
        vgg = models.vgg11(weights=None)
        vgg.classifier[6] = nn.Linear(4096, 3)
        assert logits(vgg).shape == (2, 3)
        mobile = models.mobilenet_v2()
        mobile.classifier[1] = nn.Linear(mobile.last_channel, 3)
        assert logits(mobile).shape == (2, 3) and mobile.features(torch.rand(1, 3, 64, 64)).shape == (1, 1280, 2, 2)
        vit = models.vit_b_32(image_size=64)
        vit.heads = nn.Sequential(nn.Linear(768, 3))
        assert logits(vit).shape == (2, 3)
        resnet = models.resnet18()
        resnet.relu = nn.Identity()
        resnet.fc = nn.Identity()
        assert logits(resnet).shape == (2, 512)
        for stages in ([False, True, False], [True, True, True], [False, True, True]):
            assert logits(models.resnet50(replace_stride_with_dilation=stages)).shape == (2, 1000)
        assert models.swin_t().head.in_features == 768 and models.convnext_tiny().classifier[2].in_features == 768
        assert models.mobilenet_v2(norm_layer=lambda chs: nn.BatchNorm2d(chs, eps=0.5)).features[0][1].eps == 0.5
        assert models.DenseNet(32, (1, 1), 64).classifier.out_features == 1000
        with pytest.raises(TypeError, match="unexpected keyword argument 'dropuot'"):
            models.resnet18(dropuot=0.1)
        with pytest.raises(TypeError, match=r"torchvision's ResNet.__init__\(\) got an unexpected keyword argument "
                                            r"'in_chans'; mvlib.create_model\('resnet18', in_chans=...\) takes it"):
            models.resnet18(in_chans=1)


def test_what_it_says_of_itself(publish):
    member = publish("resnet18", their_model("resnet18").state_dict())
    model = models.resnet18(weights=member)
    assert (model.structure, model.architecture, model.num_classes) == ("torchvision", "resnet18", 1000)
    assert model.weights_config is model.base_weights is member.value.config
    assert mvlib.resolve_data_config(model=model)["crop_pct"] == pytest.approx(224 / 256)
    image = torch.randint(0, 256, (3, 300, 400), dtype=torch.uint8)
    pil = torchvision.transforms.functional.to_pil_image(image)
    assert torch.equal(mvlib.create_transform(**mvlib.resolve_data_config(model=model))(pil), member.transforms()(pil))
    plain = models.resnet18()
    assert plain.base_weights is None and plain.pretrained_cfg == model.pretrained_cfg
    model.fc = nn.Linear(512, 5)
    note_classes(model)
    assert model.num_classes == 5
    copied = pickle.loads(pickle.dumps(model))
    assert type(copied) is torchvision.models.ResNet and same(copied, model.state_dict())
    assert same(copy.deepcopy(model), model.state_dict())
    assert torch.jit.script(model.eval())(torch.rand(1, 3, 64, 64)).shape == (1, 5)


def test_image_sizes_of_vision_transformers(publish):
    state = their_model("vit_b_32").state_dict()
    member = publish("vit_b_32", state)
    assert models.vit_b_32(weights=member).pretrained_cfg["input_size"] == (3, 224, 224)
    model = models.vit_b_32(weights=member, image_size=96, num_classes=11)
    fitted = torchvision.models.vision_transformer.interpolate_embeddings(96, 32, dict(state))
    assert model.heads.head.weight.shape == (11, 768) and not model.heads.head.weight.any()  # as torchvision begins
    model.heads.head = nn.Linear(768, 1000)
    model.heads.load_state_dict({"head.weight": state["heads.head.weight"], "head.bias": state["heads.head.bias"]})
    assert same(model, {key: fitted[key] for key in state}) and model.img_size == (96, 96)
    assert mvlib.resolve_data_config(model=model)["input_size"] == (3, 96, 96)


def test_weights_that_torchvision_does_not_have_build_ours(hub, monkeypatch, tmp_path):
    from safetensors.torch import save_file

    member = models.ResNet18_Weights.A1_IN1K
    ours = mvlib.create_model("resnet18")
    save_file(ours.state_dict(), tmp_path / "w.safetensors")
    monkeypatch.setattr(member.value, "config", member.value.config.replace(
        sources=(f"file:{tmp_path / 'w.safetensors'}",)))
    model = models.resnet18(weights="A1_IN1K", drop_rate=0.25)
    assert model.structure == "mvlib" and same(model, ours.state_dict()) and model.drop_rate == 0.25
    assert re.search(r"build the same network of mvlib's.*\bResNet18_Weights.A1_IN1K\b", models.resnet18.__doc__, re.S)
    assert "IMAGENET1K_V1" not in models.resnet18.__doc__.partition("Args:")[0]
    assert models.resnet18(weights=None).structure == "torchvision"
    assert models.convnextv2_atto(num_classes=3).structure == "mvlib"


@pytest.mark.parametrize("device", ["meta"])
def test_the_callers_device(device, publish):
    state = their_model("squeezenet1_1").state_dict()
    member = publish("squeezenet1_1", state)
    with torch.device(device):
        for model in (models.squeezenet1_1(), models.squeezenet1_1(weights=member, num_classes=3)):
            assert {value.device.type for value in model.state_dict().values()} == {device}


def test_a_strangers_layer_is_built_as_it_is(publish):
    """Which may compute with what it holds, so that it cannot be built empty."""
    class Norm(nn.BatchNorm2d):
        def __init__(self, chs):
            super().__init__(chs)
            self.register_buffer("steps", torch.ones(chs).cumsum(0) / 2, persistent=False)
            self.scale = float(self.steps.max())

    member = publish("resnet18", their_model("resnet18").state_dict())
    model = models.resnet18(weights=member, norm_layer=Norm)
    assert model.bn1.scale == 32 and same(model, their_model("resnet18").state_dict())


def test_a_file_that_does_not_fit_is_refused(publish):
    state = their_model("resnet18").state_dict()
    del state["layer1.0.conv1.weight"]
    with pytest.raises(mvlib.CheckpointError,
                       match=r"missing \(1\): layer1.0.conv1.weight"):
        models.resnet18(weights=publish("resnet18", state))


def test_it_is_exported_as_it_is_now(tmp_path):
    """With the head that it has been given, not with that which it was built with."""
    model = models.resnet18()
    model.fc = nn.Linear(512, 5)
    subject = Subject(model, None, None, None, False)
    described = subject.describe(tmp_path, "openvino", [torch.zeros(1, 3, 224, 224).numpy()],
                                 [[torch.zeros(1, 5).numpy()]], {})
    assert described.num_classes == 5 and described.model == "resnet18"
    assert described.data_config["resize_size"] == 256 and not described.weights_config.label_names
    assert subject.other_sizes()
    with pytest.raises(mvlib.ConfigError, match=r"torchvision's ResNet, .* export create_model\('resnet18'\) for feat"):
        Subject(model, None, "pooled", None, False)
    with pytest.raises(mvlib.ConfigError, match=r"ResNet is torchvision's class, .*create_model\('resnet18', pre"):
        mvlib.save_for_hub(model, tmp_path)
