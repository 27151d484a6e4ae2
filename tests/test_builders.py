"""torchvision's builders: the statements of its documentation, its old calls with their warnings, its errors."""

import functools
import inspect
import pickle
import warnings

import pytest
import torch
import torchvision

import mvlib
from mvlib import models, registry
from mvlib.builders import get_builder
from mvlib.models import ResNet18_Weights, ResNet50_Weights

from .hub_server import HubServer

IMAGENET = "https://download.pytorch.org/models/"


@pytest.fixture
def published(hub: HubServer, monkeypatch, tmp_path):
    """Random weights of torchvision's in the place of the published ones: {Enum's member: state dict}."""
    import hashlib

    def publish(builder, *members):
        states = {}
        for seed, member in enumerate(members):
            torch.manual_seed(seed)
            model = torchvision.models.get_model(builder)
            states[member] = model.state_dict()
            path = tmp_path / "weights.pth"
            torch.save(states[member], path)
            data = path.read_bytes()
            name = f"{builder}-{hashlib.sha256(data).hexdigest()[:8]}.pth"
            config = member.value.config.replace(sources=(hub.add_file(f"/{name}", data),))
            monkeypatch.setattr(member.value, "config", config)
        return states

    return publish


def same(model, state):
    own = model.state_dict()
    return set(own) == set(state) and all(torch.equal(own[key], state[key]) for key in state)


def test_the_statements_of_the_documentation(published):
    v1, v2 = ResNet18_Weights.IMAGENET1K_V1, ResNet18_Weights.A1_IN1K
    states = published("resnet18", v1)
    assert v2 is not v1
    for weights in (v1, ResNet18_Weights.DEFAULT, "IMAGENET1K_V1", "DEFAULT", "ResNet18_Weights.IMAGENET1K_V1",
                    torchvision.models.ResNet18_Weights.IMAGENET1K_V1):
        assert same(models.resnet18(weights=weights), states[v1])
    model = models.resnet18(weights=None)
    assert not same(model, states[v1]) and isinstance(model, models.ResNet)
    assert mvlib.get_weight("ResNet50_Weights.DEFAULT") is ResNet50_Weights.IMAGENET1K_V2
    assert models.get_weight("ResNet50_Weights.DEFAULT") is ResNet50_Weights.IMAGENET1K_V2


def test_the_script_of_torchvisions_documentation(published):
    published("resnet18", ResNet18_Weights.IMAGENET1K_V1)
    script = """if True:
        from torchvision.models import resnet18, ResNet18_Weights, get_model, get_model_weights, get_weight, list_models

        weights = ResNet18_Weights.DEFAULT
        model = resnet18(weights=weights)
        model.eval()
        preprocess = weights.transforms()
        batch = preprocess(img).unsqueeze(0)
        prediction = model(batch).squeeze(0).softmax(0)
        class_id = prediction.argmax().item()
        score = prediction[class_id].item()
        category_name = weights.meta["categories"][class_id]

        model = get_model("resnet18", weights="DEFAULT")
        model = get_model("resnet18", weights=None)
        weights_enum = get_model_weights("resnet18")
        assert weights_enum is get_model_weights(resnet18)
        assert [weight for weight in weights_enum][0] is get_weight("ResNet18_Weights.IMAGENET1K_V1")
        classification_models = list_models(module=torchvision.models)
    """
    image = torch.randint(0, 256, (3, 240, 320), dtype=torch.uint8)
    found = []
    for code, module in ((script, torchvision), (script.replace("torchvision.models", "mvlib.models"), mvlib)):
        names = {"img": image, "torchvision": torchvision, "mvlib": mvlib}
        if module is torchvision:
            code = code.replace("weights=weights", "weights=None").replace('weights="DEFAULT"', "weights=None")
        exec(code, names)
        found.append(names)
    theirs, ours = found
    assert ours["category_name"] in theirs["weights"].meta["categories"] and 0 < ours["score"] <= 1
    assert torch.equal(ours["preprocess"](image), theirs["preprocess"](image))
    assert set(theirs["classification_models"]) <= set(ours["classification_models"])


@pytest.mark.slow
def test_the_state_dict_goes_into_the_model(published):
    member = models.ViT_B_32_Weights.IMAGENET1K_V1
    state = published("vit_b_32", member)[member]
    found = member.get_state_dict(progress=False, check_hash=True)
    assert set(found) == set(state)  # in the file's own layout
    model = models.vit_b_32()
    model.load_state_dict(found)
    assert same(model, state)
    with pytest.raises(TypeError, match="get_state_dict does not know the argument 'check'; did you mean 'check_hash'"):
        member.get_state_dict(check=True)


# old calls

def warned(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = call()
    assert all(w.category is UserWarning and w.filename == __file__ for w in caught)
    return model, [str(w.message) for w in caught]


OLD = "Arguments other than a weight enum or `None` for 'weights' are deprecated"


def test_pretrained_true(published):
    state = published("resnet18", ResNet18_Weights.IMAGENET1K_V1).popitem()[1]
    model, messages = warned(lambda: models.resnet18(pretrained=True))
    assert same(model, state)
    assert messages[0].startswith("The parameter 'pretrained' is deprecated, please use 'weights' instead")
    assert messages[1].startswith(OLD)
    assert "equivalent to passing `weights=ResNet18_Weights.IMAGENET1K_V1`" in messages[1]
    assert "`weights=ResNet18_Weights.DEFAULT` gives the most up-to-date weights" in messages[1]
    assert len(messages) == 2

    model, messages = warned(lambda: models.resnet18(True))
    assert same(model, state)
    assert messages[0].startswith("Using 'weights' as positional parameter(s) is deprecated")
    assert messages[1].startswith(OLD) and len(messages) == 2

    model, messages = warned(lambda: models.resnet18(weights=True))
    assert same(model, state) and len(messages) == 1


def test_pretrained_true_is_the_first_version(monkeypatch):
    import mvlib.builders as builders

    asked = []
    monkeypatch.setattr(builders, "_build", lambda name, enum, **arguments: asked.append((name, arguments)))
    warned(lambda: models.resnet50(pretrained=True, num_classes=1000))
    warned(lambda: models.resnet50d(pretrained=True))
    warned(lambda: models.quantization.resnet50(pretrained=True, quantize=True))
    warned(lambda: models.quantization.resnet50(True, False, False))
    assert asked == [
        ("resnet50", {"weights": ResNet50_Weights.IMAGENET1K_V1, "num_classes": 1000}),
        ("resnet50d", {"weights": models.Resnet50d_Weights.DEFAULT}),
        ("quantized_resnet50", {"weights": models.quantization.ResNet50_QuantizedWeights.IMAGENET1K_FBGEMM_V1,
                                "quantize": True}),
        ("quantized_resnet50", {"weights": ResNet50_Weights.IMAGENET1K_V1, "progress": False, "quantize": False}),
    ]


def test_pretrained_false():
    model, messages = warned(lambda: models.resnet18(pretrained=False))
    assert isinstance(model, models.ResNet)
    assert "'pretrained' is deprecated" in messages[0] and "equivalent to passing `weights=None`" in messages[1]
    assert "DEFAULT" not in messages[1]
    _, messages = warned(lambda: models.resnet18(None))
    assert len(messages) == 1 and "positional" in messages[0]
    _, messages = warned(lambda: models.resnet18(None, False))
    assert messages[0].startswith("Using 'weights' and 'progress' as positional")
    assert warned(lambda: models.resnet18())[1] == []
    assert warned(lambda: models.resnet18(weights=None, progress=False))[1] == []


@pytest.mark.parametrize("arguments", [(True,), (False,), (None,), (None, True)])
def test_as_many_warnings_as_torchvision(arguments, published, monkeypatch):
    published("resnet18", ResNet18_Weights.IMAGENET1K_V1)
    from torchvision.models._api import WeightsEnum

    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda self, **_: torchvision.models.resnet18().state_dict())
    with warnings.catch_warnings(record=True) as theirs:
        warnings.simplefilter("always")
        torchvision.models.resnet18(*arguments)
    assert len(warned(lambda: models.resnet18(*arguments))[1]) == len(theirs)


# wrong calls

@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: models.resnet18(weights=ResNet50_Weights.IMAGENET1K_V1), TypeError,
     r"expected ResNet18_Weights but received ResNet50_Weights\.IMAGENET1K_V1"),
    (lambda: models.resnet18(weights="IMAGENET1K_V3"), KeyError,
     "ResNet18_Weights has no weights 'IMAGENET1K_V3'; did you mean 'IMAGENET1K_V1'"),
    (lambda: models.resnet18(weights=[1]), TypeError,
     r"expected weights, a member of its Enum or the name of one, as 'weights' but received \[1\]"),
    (lambda: models.resnet18(weights=None, pretrained=True), TypeError, "both 'weights' and 'pretrained'"),
    (lambda: models.resnet18(None, weights=None), TypeError, "two values for the argument 'weights'"),
    (lambda: models.resnet18(None, True, 3), TypeError, "takes at most 2 positional arguments"),
    (lambda: models.resnet9001, AttributeError, "no attribute 'resnet9001'; did you mean"),
    (lambda: models.get_model("resnet5"), ValueError, "unknown model 'resnet5'; did you mean 'resnet50'"),
    (lambda: models.get_model("resnet50.a1_in1k"), ValueError, "a builder's name has no tag"),
    (lambda: models.get_model_weights(print), ValueError, "'print' is no model builder"),
    (lambda: models.list_models("resnet*"), TypeError, "a pattern goes to include="),
    (lambda: mvlib.create_model("quantized_resnet18", features_only=True), ValueError, "cannot give features"),
])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_wrong_calls(call, error, message):
    with pytest.raises(error, match=message):
        call()


# what builders are

def test_lists():
    theirs = torchvision.models
    assert set(theirs.list_models(module=theirs)) <= set(models.list_models(module=models))
    assert models.list_models(module=models.quantization) == theirs.list_models(module=theirs.quantization)
    assert models.list_models(include="quantized_*") == theirs.list_models(include="quantized_*")
    assert models.list_models(include=["vit_b_*", "resnet18"], exclude="*32") == ["resnet18", "vit_b_16"]
    everything = models.list_models()
    assert everything == sorted(everything) and {"vit_b_16", "vit_base_patch16_224", "resnet50d"} <= set(everything)
    import mvlib.models.resnet as family

    assert set(models.list_models(module=family)) == set(registry.list_models(module="resnet"))


def test_builders_can_be_looked_at_and_pickled():
    builder = models.resnet50
    assert builder is models.get_model_builder("ResNet50") is get_builder("resnet50")
    parameters = inspect.signature(builder).parameters
    assert [p.kind for p in parameters.values()] == [inspect.Parameter.KEYWORD_ONLY] * 2 + [
        inspect.Parameter.VAR_KEYWORD]
    assert "IMAGENET1K_V2" in builder.__doc__ and builder.__module__ == "mvlib.models"
    assert pickle.loads(pickle.dumps(functools.partial(builder, num_classes=3))).func is builder
    assert models.get_model_weights(builder) is ResNet50_Weights


def test_help_and_completion_show_them(capsys):
    names = dir(models)
    assert {"resnet50", "ResNet50_Weights", "vit_b_16", "Swin_Tiny_Patch4_Window7_224_Weights", "list_models",
            "quantization", "quantized_resnet50", "ResNet"} <= set(names)
    help(models.resnet50)
    assert "ResNet50_Weights: IMAGENET1K_V1, IMAGENET1K_V2" in capsys.readouterr().out
    help(ResNet50_Weights)
    assert "IMAGENET1K_V2" in capsys.readouterr().out


def test_a_family_named_like_its_model_does_not_hide_it():
    from mvlib.models.alexnet import AlexNet

    assert models.alexnet.__name__ == "alexnet" and callable(models.alexnet)
    assert issubclass(AlexNet, mvlib.ImageModel)


def test_what_callers_of_timm_and_torchvision_import():
    from mvlib.models import create_model, is_model, register_model  # noqa: F401
    from mvlib.models.feature_extraction import create_feature_extractor, get_graph_node_names

    model = models.resnet18().eval()
    assert get_graph_node_names(model) == get_graph_node_names(torchvision.models.resnet18())
    features = create_feature_extractor(model, {"layer2": "mid", "flatten": "flat"})(torch.zeros(1, 3, 64, 64))
    assert features["mid"].shape == (1, 128, 8, 8) and features["flat"].shape == (1, 512)
    ours = mvlib.create_model("resnet18").eval()
    assert create_feature_extractor(ours, ["layer2"])(torch.zeros(1, 3, 64, 64))["layer2"].shape == (1, 128, 8, 8)
