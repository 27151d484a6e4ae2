"""timm's face: classes that take a config, configs, and those of the architectures."""

import copy
import dataclasses
import functools
import importlib
import pickle
import re

import pytest
import torch

import mvlib
import mvlib.timm as timm
from tests.models import pairs

FAMILIES = "byoanet byobnet cspnet hrnet levit maxxvit mvitv2 nfnet regnet vovnet".split()


def configs(family, root="timm"):
    module = importlib.import_module(f"{root}.models.{family}")
    return module.cfg_cls if family == "hrnet" else module.model_cfgs


@pytest.mark.parametrize("family", FAMILIES)
def test_configs_of_architectures_say_what_timms_say(family):
    ours, theirs = configs(family, "mvlib.timm"), configs(family)
    assert {name: plain(cfg) for name, cfg in ours.items()} == {name: plain(cfg) for name, cfg in theirs.items()}


def plain(value):
    """A value as plain data: nothing is None, 0, "" or {}; group sizes by function as what they are; without what is
    ours alone, or says a block's default."""
    if dataclasses.is_dataclass(value):
        value = {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
        if callable(value.get("gs")):
            value["gs"] = [value["gs"](64, i) for i in range(4)]
        kernel_size = (value.get("block_kwargs") or {}).get("kernel_size")
        if kernel_size == 3:
            value["block_kwargs"] = {key: item for key, item in value["block_kwargs"].items() if key != "kernel_size"}
    if isinstance(value, dict):
        found = {key: plain(item) for key, item in value.items() if key not in ("shortcut_proj", "scale_dim")}
        return {key: item for key, item in found.items() if item} or None
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, functools.partial):
        return value.func.__name__, plain(value.keywords)
    return getattr(value, "__name__", value) or None


def small():
    return timm.models.regnet.RegNet(timm.models.regnet.RegNetCfg(depth=6, w0=8, wa=9.0, wm=2.0, group_size=4))


def test_what_an_architecture_makes_is_of_the_class():
    from mvlib.models.regnet import RegNet

    made = mvlib.create_model("regnetx_002", pretrained=False)
    assert isinstance(made, timm.models.RegNet) and isinstance(small(), RegNet)
    assert issubclass(RegNet, timm.models.RegNet)
    assert not isinstance(made, timm.models.ByobNet) and not issubclass(timm.models.ByobNet, timm.models.RegNet)

    class Own(timm.models.RegNet):
        def forward(self, x):
            return 2 * super().forward(x)

    assert not isinstance(made, Own) and not isinstance(small(), Own)
    own, image = Own(timm.models.RegNetCfg(depth=6, w0=8, wa=9.0, wm=2.0), num_classes=2).eval(), pairs.image(32)
    assert isinstance(own, Own) and isinstance(own, timm.models.RegNet)
    assert torch.equal(own(image), 2 * own.forward_head(own.forward_features(image)))


def test_a_model_from_a_config_is_copied_and_pickled_and_scripted():
    model, image = small().eval(), pairs.image(32)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.jit.script(model)):
        assert torch.equal(other(image), model(image))
    assert type(pickle.loads(pickle.dumps(model))) is timm.models.RegNet


def test_a_changed_config_is_what_a_creator_builds(monkeypatch):
    byobnet = timm.models.byobnet
    cfg = dataclasses.replace(byobnet.model_cfgs["gernet_s"], num_features=64)
    monkeypatch.setitem(byobnet.model_cfgs, "gernet_s", cfg)
    monkeypatch.setitem(byobnet.model_cfgs, "my_net", dataclasses.replace(cfg, stem_chs=24))
    with torch.device("meta"):
        assert byobnet._create_byobnet("gernet_s", num_classes=2).head.fc.in_features == 64
        model = byobnet._create_byobnet("my_net")
        assert model.stem.conv.out_channels == 24 and isinstance(model, byobnet.ByobNet)
        assert byobnet._create_byobnet("gernet_m").num_features == 2560


@pytest.mark.parametrize("family, name", [("byoanet", "lambda_resnet26t"), ("cspnet", "cs3darknet_s"),
                                          ("hrnet", "hrnet_w18_small"), ("maxxvit", "coatnet_pico_rw"),
                                          ("nfnet", "nf_regnet_b0"), ("regnet", "regnetz_005"),
                                          ("vovnet", "ese_vovnet19b_slim_dw")])
def test_a_class_makes_an_architecture_of_its_config(family, name):
    classes = dict(byoanet="ByobNet", cspnet="CspNet", hrnet="HighResolutionNet", maxxvit="MaxxVit",
                   nfnet="NormFreeNet", regnet="RegNet", vovnet="VovNet")
    with torch.device("meta"):
        made = getattr(timm.models, classes[family])(configs(family, "mvlib.timm")[name])
        named = mvlib.create_model({"coatnet_pico_rw": "coatnet_pico_rw_224"}.get(name, name), pretrained=False)
    assert {key: value.shape for key, value in made.state_dict().items()} == {
        key: value.shape for key, value in named.state_dict().items()}


@pytest.mark.parametrize("path, args", [
    *(("byobnet.create_byob_stem", (3, 16, *kinds)) for kinds in (
        ("", ""), ("7x7", "maxpool"), ("deep", ""), ("tiered", "avg"), ("quad2", "max2"), ("rep", ""), ("one", ""))),
    ("cspnet.create_csp_stem", (3, (8, 8, 16), 3, 4)), ("cspnet.create_csp_stem", (3, 16, 7, 4, "max"))])
def test_stems_do_what_timms_do(path, args):
    family, name = path.split(".")
    (own, found), (other, expected) = (
        getattr(importlib.import_module(f"{root}.models.{family}"), name)(*args) for root in ("mvlib.timm", "timm"))
    own.load_state_dict(other.state_dict())
    assert found == expected
    pairs.assert_same(own.eval(), other.eval(), pairs.image(32))


HRNET = configs("hrnet")["hrnet_w18"]


@pytest.mark.parametrize("make, error, text", [
    (lambda: timm.models.RegNet(timm.models.RegNetCfg(), depths=3), TypeError, "unexpected keyword argument 'depths'"),
    (lambda: timm.models.RegNet(timm.models.RegNetCfg(), *range(8)), TypeError,
     "RegNet takes 7 arguments after cfg by position, not 8"),
    (lambda: timm.models.RegNet(timm.models.RegNetCfg(), 3, in_chans=3), TypeError,
     "RegNet got in_chans twice, by position and by name"),
    (lambda: timm.models.MaxxVit(timm.models.MaxxVitCfg(), conv_atn_ratio=1.0), TypeError,
     "MaxxVit's config has no conv_atn_ratio"),
    (lambda: timm.models.cspnet.CspStagesCfg(depth=(1, 1)), ValueError,
     "depth and out_chs have a number for each stage, not 2 and 4"),
    (lambda: timm.models.HighResolutionNet(HRNET, output_stride=16), ValueError,
     "HighResolutionNet takes no output_stride but 32"),
    (lambda: timm.models.HighResolutionNet({**HRNET, "stem_width": 32}), ValueError,
     "HighResolutionNet is not made of stem_width=32; of the other numbers follows 64"),
    (lambda: timm.models.HighResolutionNet(HRNET, width=18), TypeError, "HighResolutionNet's config has no width"),
    (lambda: timm.models.SelecSls(dict(block=torch.nn.Conv2d)), ValueError,
     "SelecSls is made of SelecSlsBlock, not of Conv2d"),
])
def test_errors(make, error, text):
    with pytest.raises(error, match=re.escape(text)):
        make()
