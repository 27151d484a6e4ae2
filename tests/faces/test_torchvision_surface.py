"""torchvision's face against the installed torchvision: every name is there, signatures and Enums are torchvision's."""

import importlib
import inspect
import os
import pickle
import pkgutil
import re
import subprocess
import sys
from enum import Enum
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torchvision import models as theirs

import mvlib
import mvlib.torchvision as face
from mvlib import models as ours
from mvlib import registry
from mvlib.mirror import is_mirrored
from mvlib.running import run

ROOT = Path(__file__).parents[2]
TASKS = ("detection", "optical_flow", "segmentation", "video")
MODULES = [name for _, name, _ in pkgutil.walk_packages(theirs.__path__, "torchvision.models.")]
CLASSIFICATION = [name for name in MODULES if name.split(".")[2] not in TASKS]
BUILDERS = [*theirs.list_models(module=theirs), *theirs.list_models(module=theirs.quantization)]
# What of a family's module of torchvision has another meaning in mvlib's module of that name, which is timm's as well:
# the classes and blocks of our architectures. mvlib.torchvision.models has torchvision's.
FAMILIES = ("alexnet", "convnext", "densenet", "efficientnet", "googlenet", "mobilenetv3", "regnet", "resnet",
            "shufflenetv2", "squeezenet", "swin_transformer", "vgg", "vision_transformer")


def public(module):
    return [name for name in vars(module) if not name.startswith("_")]


def is_replaced(value):
    """Whether ours stands for it: an Enum, a builder, a module of models, a function about these or over them."""
    return (isinstance(value, type) and issubclass(value, theirs.WeightsEnum)) or inspect.ismodule(value) or \
        inspect.isfunction(value) and value.__module__ in ("torchvision.models._api", "torchvision.models._utils") or \
        inspect.isfunction(value) and is_mirrored(value.__module__) or \
        value in theirs._api.BUILTIN_MODELS.values() if value.__hash__ else False


@pytest.mark.parametrize("name", ["torchvision.models", *MODULES])
def test_every_name_is_in_the_face(name):
    module, real = importlib.import_module(f"mvlib.{name}"), importlib.import_module(name)
    assert set(vars(real)) - set(vars(module)) <= {"__cached__"}
    assert module.__name__ == f"mvlib.{name}" and not hasattr(module, "no_such_name")
    for key in public(real):
        value, found = getattr(real, key), getattr(module, key)
        if inspect.isfunction(value) and is_mirrored(value.__module__):
            assert inspect.unwrap(found).__name__ == inspect.unwrap(value).__name__, key
        if not is_replaced(value) and value is not theirs.Weights and value is not theirs._api.BUILTIN_MODELS:
            assert found is value or key in ("WeightsEnum", "W", "M"), key
    imported = importlib.import_module(name.replace("torchvision", "mvlib", 1))  # mvlib.models.x has them, too
    assert all(hasattr(imported, key) for key in public(real))


def test_no_module_hides_the_builder_of_its_name():
    hidden = [name for name in MODULES
              if inspect.isfunction(getattr(sys.modules[name.rpartition(".")[0]], name.rpartition(".")[2], None))]
    assert {"torchvision.models.alexnet", "torchvision.models.quantization.googlenet",
            "torchvision.models.video.s3d"} <= set(hidden)
    for home in ("mvlib.models", "mvlib.torchvision.models"):
        for name in hidden:
            package, _, builder = name.replace("torchvision.models", home).rpartition(".")
            assert inspect.ismodule(importlib.import_module(f"{package}.{builder}"))
            assert inspect.isfunction(getattr(sys.modules[package], builder)), f"{package}.{builder}"


@pytest.mark.parametrize("name", ["torchvision.models", *CLASSIFICATION])
def test_what_mvlib_models_has_is_the_faces_but_for_our_families(name):
    module = importlib.import_module(name.replace("torchvision", "mvlib", 1))
    real = importlib.import_module(f"mvlib.{name}")
    other = {key for key in public(real) if getattr(module, key) is not getattr(real, key)}
    family = name.rpartition(".")[2]
    if family in FAMILIES and name.count(".") == 2:
        home = module.__name__
        mine = {key for key in other if getattr(getattr(module, key), "__module__", "").startswith("mvlib.")}
        shared = {key for key in other - mine if key in vars(module)}  # Tensor, partial, nn, ...
        assert home == f"mvlib.models.{family}" and other == mine | shared
        assert not any(issubclass(getattr(real, key), Enum) for key in other if isinstance(getattr(real, key), type))
    elif name == "torchvision.models":  # our families in the place of theirs, and lists of all our models
        assert other <= {*FAMILIES, "list_models", "quantization", "feature_extraction", "inception", *TASKS}
    elif name == "torchvision.models.quantization":
        assert other <= {"mobilenetv3", "resnet"} | {"googlenet"}
    else:
        assert not other


def test_a_familys_module_has_torchvisions_builders():
    """`from mvlib.models.resnet import resnet50`: what `from mvlib.models` gives."""
    for builder in theirs.list_models(module=theirs):
        home = theirs.get_model_builder(builder).__module__.replace("torchvision", "mvlib")
        enum = theirs.get_model_weights(builder).__name__
        for name in {home, f"mvlib.models.{registry.get_module(builder)}"}:
            module = importlib.import_module(name)
            assert getattr(module, builder) is getattr(ours, builder), (name, builder)
            assert getattr(module, enum) is getattr(ours, enum)
    from mvlib.models.alexnet import AlexNet, alexnet
    from mvlib.models.resnet import ResNet, resnet50d

    with torch.device("meta"):
        assert type(alexnet()) is theirs.AlexNet and type(mvlib.create_model("alexnet")) is AlexNet
        assert type(resnet50d()) is type(registry.load_entrypoint("resnet50")()) is ResNet
    for function in (registry.load_entrypoint("resnet50"), ours.resnet50, resnet50d):
        assert pickle.loads(pickle.dumps(function)) is function


@pytest.mark.parametrize("builder", BUILDERS)
def test_builders_and_enums_are_torchvisions(builder):
    mine, other = face.models.get_model_builder(builder), theirs.get_model_builder(builder)
    assert mine is ours.get_model_builder(builder) and mine.__name__ in (builder, other.__name__)
    assert getattr(importlib.import_module(f"mvlib.{other.__module__}"), other.__name__) is mine

    def described(function):
        return [(p.name, p.kind, p.default, re.sub(r"[\w.]+\.models\.([a-z_0-9]+\.)*", "", str(p.annotation)))
                for p in inspect.signature(function).parameters.values()]

    assert described(mine) == described(other)
    enum = theirs.get_model_weights(builder)
    my_enum = face.models.get_model_weights(builder)
    assert my_enum.__name__ == enum.__name__ and getattr(importlib.import_module(f"mvlib.{enum.__module__}"),
                                                         enum.__name__) is my_enum
    for name, member in enum.__members__.items():  # meta: tests/test_enums.py
        assert my_enum[name].url == member.url and my_enum[name].name == member.name
        preset, other_preset = my_enum[name].transforms(), member.transforms()
        assert vars(preset).keys() >= vars(other_preset).keys() - {"training"}
        assert all(getattr(preset, key) == value for key, value in vars(other_preset).items() if key[0] != "_")


def test_lists_are_torchvisions():
    assert face.models.list_models(module=face.models) == theirs.list_models(module=theirs)
    assert face.models.list_models(module=face.models.quantization) == theirs.list_models(module=theirs.quantization)
    assert face.models.list_models(include="res*", exclude="*1*") == theirs.list_models(include="res*", exclude="*1*")
    assert set(face.models.list_models(module=ours)) == set(theirs.list_models(module=theirs))


def test_what_is_not_models_is_torchvision_itself():
    import mvlib.torchvision.transforms.functional
    from mvlib.torchvision.transforms import v2

    from mvlib.torchvision import datasets, io, ops, transforms, utils

    assert transforms is torchvision.transforms and transforms.functional is torchvision.transforms.functional
    assert mvlib.torchvision.transforms.functional is torchvision.transforms.functional
    assert (datasets, io, ops, utils) == (torchvision.datasets, torchvision.io, torchvision.ops, torchvision.utils)
    assert v2 is torchvision.transforms.v2 and face.__version__ == torchvision.__version__
    assert set(public(torchvision)) <= set(dir(face)) and all(hasattr(face, name) for name in public(torchvision))
    with pytest.raises(ModuleNotFoundError, match="mvlib.torchvision.transfroms"):
        importlib.import_module("mvlib.torchvision.transfroms")
    with pytest.raises(ImportError, match="mvlib.models.mobilenetv1"):
        importlib.import_module("mvlib.models.mobilenetv1")


def test_a_star_gives_what_torchvisions_gives():
    spaces = {}, {}
    for space, package in zip(spaces, ("torchvision.models", "mvlib.models")):
        exec(f"from {package} import *", space)
    assert {name for name in spaces[0] if name != "feature_extraction"} - {"__builtins__"} <= set(spaces[1])
    assert spaces[1]["resnet50"] is ours.resnet50 and spaces[1]["ResNet"] is theirs.ResNet


def test_the_list_of_names_in_pytorchs_example():
    def names(models):
        return sorted(name for name in models.__dict__
                      if name.islower() and not name.startswith("__") and callable(models.__dict__[name]))

    assert set(names(theirs)) <= set(names(ours)) and set(names(theirs)) == set(names(face.models))
    assert ours.__dict__["resnet18"] is ours.resnet18 is vars(ours)["resnet18"]
    assert ours.__dict__["resnet18"]().fc.out_features == 1000


def test_a_new_model_is_in_the_dict(fresh_registry):
    assert "house_net" not in ours.__dict__

    @mvlib.register_model
    def house_net(**kwargs):
        raise NotImplementedError

    assert ours.__dict__["house_net"].__name__ == "house_net"
    del vars(ours)["house_net"]


def test_the_package_can_still_be_reloaded_and_looked_at():
    done = subprocess.run([sys.executable, "-c", """if True:
        import importlib, inspect, sys
        import mvlib.models as models
        importlib.reload(models)
        assert models.resnet50.__name__ == "resnet50" and inspect.getsource(models)
        assert inspect.getmodule(models.resnet50) is models and "torch" not in sys.modules
        models.mine = 1
        assert models.__dict__["mine"] == 1 and "torch" not in sys.modules
    """], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# a user's own builder

def test_a_users_builder_and_enum():
    from mvlib.torchvision.models._api import Weights, WeightsEnum, register_model
    from mvlib.torchvision.models._utils import handle_legacy_interface

    known = dict(mvlib.builders.registered)

    class Tiny_Weights(WeightsEnum):
        V1 = Weights(url="https://example.com/tiny.pth", transforms=nn.Identity, meta={"categories": ["a"]})
        DEFAULT = V1

    try:
        @register_model()
        @handle_legacy_interface(weights=("pretrained", Tiny_Weights.V1))
        def tiny(*, weights: Tiny_Weights | None = None, progress: bool = True, width: int = 1):
            return Tiny_Weights.verify(weights), width

        assert ours.get_model("tiny", weights="DEFAULT", width=2) == (Tiny_Weights.V1, 2)
        assert face.models.get_model_builder("Tiny") is tiny and face.models.get_model_weights("tiny") is Tiny_Weights
        assert "tiny" in face.models.list_models() and "tiny" in ours.list_models()
        assert "tiny" not in face.models.list_models(module=face.models)
        assert ours.get_weight("Tiny_Weights.V1") is Tiny_Weights.V1
        with pytest.warns(UserWarning) as caught:
            assert tiny(True) == (Tiny_Weights.V1, 1)
        assert [str(w.message)[:14] for w in caught] == ["Using 'weights", "Arguments othe"]
        with pytest.warns(UserWarning, match="'pretrained' is deprecated"):
            assert tiny(pretrained=False) == (None, 1)
        with pytest.raises(ValueError, match="registered under the name 'tiny' already"):
            register_model()(tiny)
        with pytest.raises(ValueError, match="registered under the name 'resnet18' already"):
            register_model("resnet18")(tiny)
    finally:
        mvlib.builders.registered.clear()
        mvlib.builders.registered.update(known)


# `import torchvision`

IMPORTS = """
import sys, torch
import torchvision
import torchvision.transforms as T
from torchvision import models, tv_tensors
from torchvision.models import resnet18, ResNet18_Weights
from torchvision.models.resnet import BasicBlock
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor, resnet_fpn_backbone
from torchvision.models import feature_extraction
import torchvision.ops
print(models.__name__, ResNet18_Weights.__module__, len(sys.argv))
assert ResNet18_Weights.DEFAULT.meta["categories"][0] == "tench" and torchvision.__file__.count("mvlib") == 0
"""
USES = """
model = resnet18()
assert type(model) is models.ResNet and isinstance(model.layer1[0], BasicBlock) and model.structure == "torchvision"
body = _resnet_fpn_extractor(model, 3)
assert list(body(torch.zeros(1, 3, 64, 64))) == ["0", "1", "2", "3", "pool"]
assert resnet_fpn_backbone(backbone_name="resnet18", weights=None).out_channels == 256
backbone = models.mobilenet_v2().features
backbone.out_channels = 1280
anchors = models.detection.rpn.AnchorGenerator(((32,),), ((1.0,),))
pool = torchvision.ops.MultiScaleRoIAlign(["0"], 7, 2)
detector = models.detection.FasterRCNN(backbone, 2, rpn_anchor_generator=anchors, box_roi_pool=pool).eval()
assert list(detector([torch.rand(3, 64, 64)])[0]) == ["boxes", "labels", "scores"]
assert models.resnet.ResNet50_Weights.A1_IN1K.name == "A1_IN1K" and T is torchvision.transforms
import pickle
assert type(pickle.loads(pickle.dumps(model))) is models.ResNet
assert pickle.loads(pickle.dumps(ResNet18_Weights.DEFAULT)) is ResNet18_Weights.DEFAULT
"""


def python(*arguments, cwd=None):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, cwd=cwd,
                          env=environment)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["script", "install", "late"])
def test_somebody_elses_import_finds_the_face(way, tmp_path):
    script = tmp_path / "train.py"
    first = {"script": "", "install": "import mvlib.torchvision; mvlib.torchvision.install()\n",
             "late": "import torchvision, torchvision.ops, mvlib; real = torchvision\n"
                     "import mvlib.torchvision as face; face.install(); face.install(); assert face.is_installed()\n"}
    script.write_text(first[way] + IMPORTS + (USES if way != "late" else ""))
    done = python(*(["-m", "mvlib.torchvision"] if way == "script" else []), script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "mvlib.torchvision.models mvlib.models 1\n"


def test_what_cannot_be_run_is_said(capsys):
    with pytest.raises(SystemExit, match="2"):
        run("mvlib.torchvision", ["no.py"])
    assert capsys.readouterr().err == "python -m mvlib.torchvision: there is no script 'no.py'\n"


def test_images_go_through_either(tmp_path):
    """The face's model, and torchvision's, of one state dict: equal to the bit."""
    state = theirs.squeezenet1_1().state_dict()
    model = face.models.squeezenet1_1()
    model.load_state_dict(state)
    other = theirs.squeezenet1_1()
    other.load_state_dict(model.state_dict())
    image = torch.rand(2, 3, 64, 64)
    assert torch.equal(model.eval()(image), other.eval()(image))
