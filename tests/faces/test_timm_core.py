"""What timm means by the names of its core: create_model, the registry, the builder, checkpoints, features."""

import sys
import warnings
from types import ModuleType

import pytest
import timm as real
import timm.models
import torch
from mvlib.timm.models import (
    FeatureDictNet,
    FeatureListNet,
    PretrainedCfg,
    build_model_with_cfg,
    checkpoint_seq,
    generate_default_cfgs,
    load_checkpoint,
    load_pretrained,
    named_apply,
    register_model,
)
from mvlib.timm.models._features import FeatureGetterNet, FeatureHookNet
from torch import nn

import mvlib
import mvlib.timm as timm
from mvlib.models.resnet import BasicBlock, ResNet

TINY = dict(layers=(1, 1, 1, 1), channels=(8, 16, 24, 32), stem_width=8)


@pytest.fixture(autouse=True)
def registry_as_it_was(monkeypatch):
    from mvlib.registry import _registry
    from mvlib.timm.meanings import registry

    monkeypatch.setattr(_registry, "entries", dict(_registry.entries))
    monkeypatch.setattr(_registry, "deprecated", dict(_registry.deprecated))
    monkeypatch.setattr(_registry, "aliases", dict(_registry.aliases))
    monkeypatch.setattr(registry, "_foreign", {})
    monkeypatch.setattr(registry, "hidden", {})


@pytest.fixture
def module(monkeypatch):
    """A user's module."""
    made = ModuleType("user_models")
    monkeypatch.setitem(sys.modules, "user_models", made)

    def define(code):
        exec(code, made.__dict__)
        return made

    return define


# create_model

def test_a_tag_alone_is_random():
    torch.manual_seed(0)
    first, second = (timm.create_model("resnet10t.c3_in1k", checkpoint_path="", drop_rate=None) for _ in range(2))
    assert first.base_weights is None
    assert not torch.equal(first.fc.weight, second.fc.weight)
    assert first.default_cfg["tag"] == "c3_in1k"


@pytest.mark.parametrize("call, kind, text", [
    (lambda: timm.create_model("resnet18", stem_typ="deep"), TypeError,
     r"'resnet18' got an unexpected keyword argument 'stem_typ'; did you mean 'stem_type'"),
    (lambda: timm.create_model("resnet17"), RuntimeError, r"Unknown model \(resnet17\); did you mean "),
    (lambda: timm.create_model("timm/resnet18"), ValueError, "write 'hf-hub:timm/resnet18'"),
    (lambda: timm.create_model("resnet18.nothing"), RuntimeError, "unknown tag 'nothing' of the architecture"),
    (lambda: timm.create_model("hf-hub:a/b", pretrained_cfg="x"), ValueError, "brings its own config"),
    (lambda: build_model_with_cfg(Plain, "no_such", True), RuntimeError, "no weights are known for 'no_such'"),
    (lambda: build_model_with_cfg(nn.Module, "x", False, pretrained_cfg_overlay={"a": 1}), TypeError, "no field 'a'"),
])
def test_what_is_refused(call, kind, text):
    with pytest.raises(kind, match=text):
        call()


def test_pretrained_cfg_goes_before_the_tag():
    assert timm.create_model("resnet18.a1_in1k", pretrained_cfg="a2_in1k").default_cfg["tag"] == "a2_in1k"
    cfg = timm.get_pretrained_cfg("resnet18.a3_in1k")
    cfg.num_classes, cfg.mean = 7, (0.0, 0.0, 0.0)
    assert timm.get_pretrained_cfg("resnet18.a3_in1k").num_classes == 1000
    for given in (cfg, cfg.to_dict()):
        model = timm.create_model("resnet18.a1_in1k", pretrained_cfg=given)
        assert model.fc.out_features == 7 and model.default_cfg["mean"] == (0.0, 0.0, 0.0)


def test_tensors_in_the_config():
    source = timm.create_model("resnet18", num_classes=10, **TINY)
    model = timm.create_model("resnet18", pretrained=True, num_classes=10, **TINY,
                              pretrained_cfg_overlay={"state_dict": source.state_dict(), "num_classes": 10})
    assert all(torch.equal(a, b) for a, b in zip(source.state_dict().values(), model.state_dict().values()))


@pytest.mark.parametrize("name", ["resnet18", "resnet18.a1_in1k", "resnet18.imagenet1k_v1"])
def test_a_file_in_the_overlay(name, tmp_path):
    source = timm.create_model("resnet18", **TINY)
    torch.save(source.state_dict(), tmp_path / "mine.pth")
    file = {"file": str(tmp_path / "mine.pth")}
    model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=file, **TINY)
    assert torch.equal(model.fc.weight, source.fc.weight)
    cfg = timm.get_pretrained_cfg(name)
    cfg.file = str(tmp_path / "mine.pth")
    assert torch.equal(timm.create_model(name, True, pretrained_cfg=cfg, **TINY).fc.weight, source.fc.weight)


def test_a_users_model_in_a_folder(tmp_path):
    def plain_net(pretrained=False, **kwargs):
        return build_model_with_cfg(Plain, "plain_net", pretrained, **kwargs)

    plain_net.__module__ = __name__
    register_model(plain_net)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = timm.create_model("plain_net", num_classes=3, width=4)
        timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
        again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    same(again, model, torch.randn(1, 3, 32, 32))


def test_checkpoint_path(tmp_path):
    source = timm.create_model("resnet18", num_classes=10, **TINY)
    torch.save({"state_dict": {f"module.{k}": v for k, v in source.state_dict().items()}}, tmp_path / "last.pth.tar")
    model = timm.create_model("resnet18", num_classes=10, checkpoint_path=tmp_path / "last.pth.tar", **TINY)
    assert torch.equal(model.fc.weight, source.fc.weight)


def test_a_folder_through_a_scripts_options(tmp_path):
    theirs = real.create_model("resnet18", num_classes=5, **TINY).eval()
    real.models.save_for_hf(theirs, tmp_path, safe_serialization=True)
    arguments = timm.models.resolve_model_input_args(f"local-dir:{tmp_path}", {})
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(timm.create_model(**arguments, pretrained=True).eval()(x), theirs(x))


def test_a_folder_that_timm_wrote(tmp_path):
    theirs = real.create_model("resnet18", num_classes=5, **TINY).eval()
    real.models.save_for_hf(theirs, tmp_path, safe_serialization=True)
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(model(x), theirs(x))
    assert timm.create_model(f"local-dir:{tmp_path}").fc.out_features == 5  # random


@pytest.mark.parametrize("safe", [False, True, "both"])
def test_a_folder_for_timm(tmp_path, safe):
    model = timm.create_model("resnet18", num_classes=5, drop_rate=0.5, **TINY).eval()
    timm.models.save_for_hf(model, tmp_path, model_config={"label_names": list("abcde")}, safe_serialization=safe)
    theirs = real.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(model(x), theirs(x))
    assert theirs.pretrained_cfg["label_names"] == list("abcde")
    assert {path.name for path in tmp_path.iterdir()} == {"config.json"} | (
        {"model.safetensors"} if safe else set()) | ({"pytorch_model.bin"} if safe is not True else set())


@pytest.mark.parametrize("name, args, kwargs", [
    ("resnet18.a1_in1k", {"in_chans": 4, "img_size": 128}, {}),
    ("resnet18", None, {"in_chans": 2, "num_classes": None}),
    ("vit_tiny_patch16_224", {"input_size": (1, 96, 96)}, {"num_classes": 3}), ("vit_tiny_patch16_224", {}, {}),
    ("vit_tiny_patch16_224", {"img_size": 96}, {"img_size": 128, "dynamic_img_size": True}),
], ids=str)
def test_options_of_scripts_become_arguments(name, args, kwargs):
    ours, theirs = (library.models.resolve_model_input_args(name, args, **kwargs) for library in (timm, real))
    cfg = theirs.pop("pretrained_cfg")
    for key in ("tag", "input_size", "hf_hub_id"):
        assert ours["pretrained_cfg"][key] == cfg[key]
    made = timm.create_model(**ours)
    assert made.in_chans == theirs.get("in_chans", 3)
    del ours["pretrained_cfg"]
    assert ours == theirs


@pytest.mark.parametrize("args, kwargs", [
    ({"in_chans": 4, "chans": 3}, {}), ({"input_size": (3, 96, 96), "img_size": 64}, {}),
    ({"img_size": 96}, {"img_size": 128}), ({"img_size": 0}, {}),
])
def test_options_that_contradict_each_other(args, kwargs):
    for library in (timm, real):
        with pytest.raises(ValueError):
            library.models.resolve_model_input_args("vit_tiny_patch16_224", args, **kwargs)


# registry

def test_names_and_configs_are_timms():
    theirs = set(real.list_models("resnet*", pretrained=True))
    assert theirs <= set(timm.list_models("resnet*", pretrained=True))
    assert timm.list_models("*", module="no_such_module") == real.list_models("*", module="no_such_module") == []
    assert timm.get_pretrained_cfg("no_such_model") is real.get_pretrained_cfg("no_such_model") is None
    for name in ("resnet50", "resnet50.a1_in1k", "vit_base_patch16_224.augreg_in21k"):
        ours, cfg = timm.get_pretrained_cfg(name), real.get_pretrained_cfg(name)
        for key, value in vars(cfg).items():
            if key not in ("source", "license", "origin_url", "paper_ids", "paper_name", "description", "notes"):
                assert getattr(ours, key) == value, key
    ours, theirs = (library.models.get_arch_pretrained_cfgs("resnet18") for library in (timm, real))
    assert [name for name in ours if name in theirs] == list(theirs)  # torchvision's weights are there, too


def test_only_image_classifiers_are_models_of_timm():
    name = "fasterrcnn_resnet50_fpn"
    assert mvlib.is_model(name) and not timm.is_model(name) and timm.is_model("tv_resnet34")
    assert name not in timm.list_models() and not hasattr(timm.models, name)
    assert not timm.list_models("quantized*") and not timm.list_pretrained(["quantized*", "quantized*.*"])
    assert set(timm.list_modules()) < set(mvlib.list_modules())
    with pytest.raises(RuntimeError, match="Unknown model \\(fasterrcnn_resnet50_fpn\\)"):
        timm.create_model(name)


def test_a_function_gets_what_timm_passes(module):
    code = """if True:
        from FACE.models import register_model
        seen = []
        @register_model
        def a_net(pretrained=False, **kwargs):
            seen.append((pretrained, kwargs))
            from torch import nn
            net = nn.Linear(2, 2)
            net.default_cfg = {"mine": 1}
            return net
    """
    passed = []
    for library, name in ((real, "timm"), (timm, "mvlib.timm")):
        found = module(code.replace("FACE", name))
        model = library.create_model("a_net", pretrained=True, num_classes=3, drop_rate=None, features_only=True)
        assert model.default_cfg == {"mine": 1}
        assert found.__all__ == ["a_net"] and library.model_entrypoint("a_net") is found.a_net
        passed += found.seen
        del found.__all__
    assert passed[0] == passed[1]
    assert "a_net" in timm.list_models() and timm.list_models(module="user_models") == ["a_net"]


def test_registered_twice_the_last_wins_with_a_warning(module):
    def a_net(pretrained=False, **kwargs):
        return nn.Identity()

    register_model(a_net)
    with pytest.warns(UserWarning, match="takes the place of the model 'a_net' that was registered before"):
        module("""if True:
            from mvlib.timm.models import register_model
            @register_model
            def a_net(pretrained=False, **kwargs):
                from torch import nn
                return nn.Flatten()
        """)
    assert isinstance(timm.create_model("a_net"), nn.Flatten)


def test_ours_is_built_by_its_entrypoint_when_a_user_took_its_name():
    def resnet18(pretrained=False, **kwargs):
        return nn.Sequential(timm.models.resnet18(pretrained, **kwargs))

    with pytest.warns(UserWarning, match="resnet18"):
        register_model(resnet18)
    inner = timm.create_model("resnet18", num_classes=4, **TINY)[0]
    assert type(inner) is ResNet
    assert inner.fc.out_features == 4 and inner.default_cfg["architecture"] == "resnet18"


def test_default_cfgs_of_a_users_module(module):
    code = """if True:
        from FACE.models import register_model, generate_default_cfgs, register_model_deprecations
        default_cfgs = generate_default_cfgs({
            "a_net.first": dict(num_classes=3), "a_net.second": dict(file="x.pth"), "a_net.third*": dict(file="y.pth"),
            "b_net.one": dict(hf_hub_id="timm/"),
        })
        default_cfgs["c_net"] = dict(url="https://x/c.pth")
        @register_model
        def a_net(pretrained=False, **kwargs): pass
        @register_model
        def b_net(pretrained=False, **kwargs): pass
        @register_model
        def c_net(pretrained=False, **kwargs): pass
        register_model_deprecations(__name__, {"old_net": "a_net.second"})
    """
    answers = []
    for library, name in ((real, "timm"), (timm, "mvlib.timm")):
        found = module(code.replace("FACE", name))
        answers.append((
            library.list_models("?_net", pretrained=True), library.get_pretrained_cfg("a_net").tag,
            library.get_pretrained_cfg("b_net").hf_hub_id, library.get_pretrained_cfg("c_net").url,
            list(found.default_cfgs["a_net"].tags), sorted(found.__all__), library.list_models("old*"),
            library.is_model("old_net")))
        del found.__all__
    assert answers[0] == answers[1]


@pytest.mark.parametrize("cfgs", [
    {"a.x": {}, "a.y": {"url": "u"}, "a.z": {"url": "u"}}, {"a.x": {"url": "u"}, "a": {"url": "u"}},
    {"a.x": {}, "a.y*": {}, "a.z*": {"url": "u"}},
])
def test_generate_default_cfgs(cfgs):
    ours, theirs = generate_default_cfgs(cfgs)["a"], real.models.generate_default_cfgs(cfgs)["a"]
    assert (ours.tags, ours.is_pretrained) == (theirs.tags, theirs.is_pretrained)
    assert [vars(c) for c in theirs.cfgs.values()] == [
        {key: getattr(c, key) for key in vars(next(iter(theirs.cfgs.values())))} for c in ours.cfgs.values()]


def test_entrypoints():
    assert timm.models.resnet18 is timm.models.resnet.resnet18 is timm.model_entrypoint("resnet18")
    features = timm.models.resnet18(pretrained=False, features_only=True, out_indices=(1, 2), **TINY)
    assert features.feature_info.channels() == [8, 16]
    with pytest.warns(FutureWarning, match="'tv_resnet34' is deprecated") as caught:
        assert timm.models.tv_resnet34(num_classes=2, **TINY).default_cfg["tag"] == "tv_in1k"
    assert len(caught) == 1 and caught[0].filename == __file__
    with pytest.raises(TypeError, match="unexpected keyword argument 'nothing'"):
        timm.models.resnet18(nothing=1)


# the builder

class Plain(nn.Module):
    """A user's model, which keeps none of our contract."""

    def __init__(self, num_classes=1000, in_chans=3, width=8, global_pool="avg"):
        super().__init__()
        self.num_classes = num_classes
        self.stem = nn.Conv2d(in_chans, width, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(nn.Conv2d(width, width, 1), nn.Conv2d(width, 2 * width, 3, stride=2, padding=1))
        self.head = nn.Linear(2 * width, num_classes)
        self.feature_info = [dict(num_chs=width, reduction=2, module="stem"),
                             dict(num_chs=2 * width, reduction=4, module="blocks.1")]

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))

    def reset_classifier(self, num_classes):
        self.head = nn.Linear(self.head.in_features, num_classes) if num_classes else nn.Identity()


def build(library, **kwargs):
    cfg = dict(first_conv="stem", classifier="head", num_classes=5, input_size=(3, 32, 32), **kwargs.pop("cfg", {}))
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return library.models.build_model_with_cfg(Plain, "plain", kwargs.pop("pretrained", False), cfg, **kwargs)


def same(ours, theirs, x):
    ours, theirs = ours(x), theirs(x)
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        ours, theirs = list(ours.values()), list(theirs.values())
    if not isinstance(theirs, list):
        ours, theirs = [ours], [theirs]
    assert len(ours) == len(theirs) and all(torch.equal(a, b) for a, b in zip(ours, theirs))


@pytest.mark.parametrize("kwargs", [
    {}, {"num_classes": 3}, {"in_chans": 1}, {"in_chans": 6, "num_classes": 5},
    {"width": 4, "kwargs_filter": ("width",)},
    {"pretrained_filter_fn": lambda state_dict: {k.removeprefix("x."): v for k, v in state_dict.items()}},
    {"pretrained_filter_fn": lambda state_dict, model: {**state_dict, "head.bias": torch.ones(5)}},
    {"features_only": True, "out_indices": (0, 1), "feature_cfg": {"flatten_sequential": True}},
], ids=" ".join)
def test_a_users_model_with_weights(tmp_path, kwargs):
    source = Plain(5)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    cfg = {"file": str(tmp_path / "weights.pth")}
    ours, theirs = (build(library, pretrained=True, cfg=cfg, **kwargs) for library in (timm, real))
    same(ours, theirs, torch.randn(2, kwargs.get("in_chans", 3), 32, 32))
    assert {k: v for k, v in theirs.default_cfg.items() if ours.default_cfg.get(k) != v} == {}


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "vit_tiny_patch16_224.augreg_in21k", "nobodys"])
def test_a_config_completes_a_models_arguments(name):
    completed = []
    for library in (timm, real):
        kwargs = {"num_classes": 3, "global_pool": None, "width": 4}
        cfg = library.models._builder.resolve_pretrained_cfg(*name.split(".")).to_dict()
        assert library.models._builder._update_default_model_kwargs(cfg, kwargs, ("width",)) is None
        completed.append(kwargs)
    assert completed[0] == completed[1]


def test_weights_that_do_not_fit_are_refused(tmp_path):
    torch.save({k: v for k, v in Plain(5).state_dict().items() if "stem" not in k}, tmp_path / "weights.pth")
    cfg = {"file": str(tmp_path / "weights.pth")}
    with pytest.raises(RuntimeError, match="stem.weight"):
        build(timm, pretrained=True, cfg=cfg)
    build(timm, pretrained=True, cfg=cfg, pretrained_strict=False)


@pytest.mark.parametrize("feature_cls", ["list", "dict", "hook", "fx"])
def test_features_of_a_users_model(feature_cls):
    flat = {"flatten_sequential": True} if feature_cls in ("list", "dict") else {}
    ours, theirs = (build(library, features_only=True, out_indices=(0, 1), feature_cls=feature_cls, feature_cfg=flat)
                    for library in (timm, real))
    same(ours, theirs, torch.randn(1, 3, 32, 32))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert ours.feature_info.channels() == theirs.feature_info.channels() == [8, 16]
    assert type(ours).__name__ == type(theirs).__name__


def test_ours_by_the_builder(tmp_path):
    source = timm.create_model("resnet18", num_classes=5, **TINY)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    model = build_model_with_cfg(ResNet, "a_resnet", True, dict(file=str(tmp_path / "weights.pth"), num_classes=5,
                                 first_conv="conv1", classifier="fc"), block=BasicBlock, **TINY)
    assert all(torch.equal(a, b) for a, b in zip(source.state_dict().values(), model.state_dict().values()))
    model.reset_classifier(2)
    load_pretrained(model, num_classes=2)
    assert torch.equal(model.conv1.weight, source.conv1.weight)


@pytest.mark.parametrize("feature_cls, classes", [
    (None, {FeatureListNet, FeatureDictNet}), ("dict", {FeatureListNet, FeatureDictNet}), ("hook", {FeatureHookNet}),
    ("getter", {FeatureGetterNet}), (FeatureHookNet, {FeatureHookNet}),
])
def test_features_are_instances_of_timms_classes(feature_cls, classes):
    features = timm.create_model("resnet18", features_only=True, feature_cls=feature_cls, out_indices=(1, 2), **TINY)
    assert {cls for cls in (FeatureListNet, FeatureDictNet, FeatureHookNet, FeatureGetterNet)
            if isinstance(features, cls)} == classes
    assert len(features(torch.randn(1, 3, 64, 64))) == 2


def test_an_extractor_made_by_its_class():
    theirs = real.models.FeatureDictNet(real.create_model("resnet18", **TINY), (1, 3), out_map=["a", "b"])
    ours = FeatureDictNet(timm.create_model("resnet18", **TINY), (1, 3), out_map=["a", "b"])
    ours.load_state_dict(theirs.state_dict())
    same(ours, theirs, torch.randn(2, 3, 64, 64))


# checkpoints

def test_checkpoints(tmp_path):
    model = Plain(5)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    torch.save({"state_dict": {f"_orig_mod.module.{k}": v for k, v in Plain(5).state_dict().items()},
                "optimizer": torch.optim.SGD(model.parameters(), 0.7).state_dict(), "epoch": 4, "version": 2},
               tmp_path / "last.pth.tar")
    theirs = Plain(5)
    assert timm.models.resume_checkpoint(model, tmp_path / "last.pth.tar", optimizer) == \
        real.models.resume_checkpoint(theirs, tmp_path / "last.pth.tar") == 5
    assert optimizer.param_groups[0]["lr"] == 0.7
    x = torch.randn(2, 3, 32, 32)
    same(model, theirs, x)
    renamed = {f"x{i}": v for i, v in enumerate(Plain(5).state_dict().values())}
    torch.save(renamed, tmp_path / "other.pth")
    load_checkpoint(model, tmp_path / "other.pth", remap=True)
    real.models.load_checkpoint(theirs, str(tmp_path / "other.pth"), remap=True)
    same(model, theirs, x)
    load_checkpoint(model, tmp_path / "last.pth.tar", filter_fn=lambda s, m: {k: 0 * v for k, v in s.items()})
    assert not model(x).any()
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        timm.models.resume_checkpoint(model, tmp_path / "none.pth")
    with pytest.raises(AssertionError, match="cannot become 'stem.weight'"):
        timm.models.remap_state_dict({"a": torch.ones(1)}, model)


# modules

def test_walks_over_modules():
    ours, theirs = [], []
    model = Plain()
    named_apply(lambda module, name: ours.append(name), model, include_root=True)
    real.models.named_apply(lambda module, name: theirs.append(name), model, include_root=True)
    assert ours == theirs
    for walk in ("named_modules", "named_modules_with_params"):
        for first in (True, False):
            assert list(getattr(timm.models, walk)(model, depth_first=first, include_root=True)) == \
                list(getattr(real.models, walk)(model, depth_first=first, include_root=True))
    mine, his = timm.models._manipulate, real.models._manipulate
    for depth, prefix in ((1, ""), (2, ("a",)), (0, "b")):
        assert list(mine.flatten_modules(model.named_children(), depth, prefix)) == \
            list(his.flatten_modules(model.named_children(), depth, prefix))
    matcher = {"stem": r"^stem", "blocks": [(r"^blocks\.(\d+)", None), (r"^head", (99999,))]}
    for reverse in (True, False):
        assert mine.group_parameters(model, matcher, reverse=reverse) == \
            his.group_parameters(model, matcher, reverse=reverse)
    assert mine.group_modules(model, matcher) == his.group_modules(model, matcher)


@pytest.mark.parametrize("arguments", [{}, {"every": 2}, {"skip_last": True}, {"every": 3, "skip_last": True}], ids=str)
def test_checkpoint_seq(arguments):
    layers = nn.Sequential(*(nn.Linear(4, 4) for _ in range(4)))
    x = torch.randn(2, 4, requires_grad=True)
    calls = []
    for layer in layers:
        layer.register_forward_pre_hook(lambda *_: calls.append(1))
    result = checkpoint_seq(layers, x, **arguments)
    assert torch.equal(result, nn.Sequential(*layers)(x))
    calls.clear()
    result.sum().backward()
    ours = len(calls)
    calls.clear()
    real.models.checkpoint_seq(layers, x, **arguments).sum().backward()
    assert len(calls) - 4 == ours > 0


@pytest.mark.parametrize("channels", [1, 3, 4, 6])
def test_adapt_input_conv(channels):
    weight = torch.randn(4, 3, 3, 3)
    ours, theirs = (library.models.adapt_input_conv(channels, weight) for library in (timm, real))
    assert torch.allclose(ours, theirs)
    with pytest.raises(NotImplementedError, match="2 dimensions"):
        timm.models.adapt_input_conv(channels, torch.ones(2, 2))


@pytest.mark.parametrize("num_classes", [5, 0])
def test_a_model_is_narrowed_by_a_string_of_shapes(num_classes):
    def build(face, channels):
        torch.manual_seed(0)
        kinds = face.models.resnet
        model = kinds.ResNet(kinds.BasicBlock, (1, 1, 1, 1), channels=channels, stem_width=8, num_classes=num_classes)
        model.pretrained_cfg = {"first_conv": "conv1"}
        return model

    narrow = build(real, (4, 6, 10, 12))
    text = "***".join(f"{key}:{list(value.shape)}" for key, value in narrow.state_dict().items())
    wide, expected = build(timm, (8, 16, 24, 32)), real.models.adapt_model_from_string(
        build(real, (8, 16, 24, 32)), text)
    found = timm.models.adapt_model_from_string(wide, text)
    assert not found.training and wide.layer4[0].conv2.out_channels == 32
    assert {key: value.shape for key, value in found.state_dict().items()} == \
        {key: value.shape for key, value in narrow.state_dict().items()}
    found.load_state_dict(expected.state_dict())
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(found(x), expected(x))
    assert [info["num_chs"] for info in found.feature_info] == [info["num_chs"] for info in expected.feature_info]
    assert found.num_features == expected.num_features
    with pytest.raises(ValueError, match="^the string of widths lacks the layer 'layer1.0.conv1'$"):
        timm.models.adapt_model_from_string(wide, "conv1.weight:[8, 3, 7, 7]***bn1.weight:[8]")


def test_a_change_of_size_is_noted():
    for face in (timm, real):
        inputs = face.models._input
        model = nn.Linear(2, 2)
        model.in_chans = 3
        inputs.update_model_input_size(model, 64, patch_size=8, window_size=None)
        assert inputs.get_model_traits(model)["img_size"] == (64, 64)
        assert inputs.get_model_input_config(model)["input_size"] == (3, 64, 64)
        args = inputs.get_model_args(model)
        assert (args["img_size"], args["patch_size"], "window_size" in args) == ((64, 64), 8, False)
        inputs.update_model_input_size(model, None)
        assert "img_size" not in inputs.get_model_args(model)
        assert inputs.get_model_input_config(model)["input_size"] == (3, 224, 224)


def test_what_modules_say_of_themselves():
    from mvlib.timm.layers import fast_norm
    from mvlib.timm.utils import cuda

    assert (fast_norm.has_apex, fast_norm.has_torch_rms_norm, cuda.amp) == (False, True, None)
    for module in ("layers", "utils", "optim", "data"):  # `from timm.utils import *` must not bring `amp`
        assert not [name for name in dir(getattr(timm, module)) if name.startswith("has_") or name == "amp"]


def test_old_paths_warn():
    for path in ("layers", "registry", "helpers", "features", "hub", "factory"):
        sys.modules.pop(f"mvlib.timm.models.{path}", None)
        with pytest.warns(FutureWarning, match=f"timm.models.{path} is deprecated, please import via") as caught:
            __import__(f"mvlib.timm.models.{path}")
        assert [warning.filename for warning in caught] == [__file__]


def test_a_config_of_weights():
    ours, theirs = PretrainedCfg(url="u", num_classes=3), real.models.PretrainedCfg(url="u", num_classes=3)
    assert ours.to_dict() == theirs.to_dict()
    assert ours.to_dict(remove_source=True) == theirs.to_dict(remove_source=True)
    assert mvlib.create_model("resnet18", pretrained_cfg=ours, **TINY).num_classes == 3
