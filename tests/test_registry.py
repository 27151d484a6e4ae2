"""The registry: its functions give timm's results, a user's own models stand beside ours, errors say what to do."""

import functools
import importlib
import inspect
import itertools
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import timm
from timm.models import _registry as timm_registry

import mvlib
from mvlib import registry
from mvlib.arguments import arguments_of
from mvlib.errors import ConfigError, UnknownNameError

MODULES = mvlib.list_modules()
ARCHITECTURES = {name for name in mvlib.list_models() if timm.is_model(name)}
# timm has only a description of these; torchvision has weights, which are the default then.
NEWLY_PRETRAINED = {
    name for name in ARCHITECTURES if mvlib.is_model_pretrained(name) and not timm.is_model_pretrained(name)
}


def is_ours_alone(name):
    """Whether timm does not have this name: torchvision's tags, those of other packages, further architectures."""
    architecture, tag = registry.split_model_name_tag(name)
    return architecture not in ARCHITECTURES or tag.startswith("imagenet1k_") or tag == "pip_in1k"


@pytest.fixture
def fresh(fresh_registry):
    return fresh_registry


def run(code):
    """Output of some code in a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


# Results as timm's ---------------------------------------------------------------------------------------------------

FILTERS = ("", "*", "resnet*", "*resne*t*", "vit_*_224", "resnet50.*", "resnet50.", "*.in1k", ["*b0*", "swin_*"],
           "no_such_model", "RESNET50", "resnet[13]*", iter(()))
EXCLUDES = ("", "*50*", ["*_in21k", "*_b?"], "*.a?_in1k")
ARGUMENTS = [
    dict(filter=filter, module=module, pretrained=pretrained, exclude_filters=exclude, name_matches_cfg=matches,
         include_tags=tags)
    for filter, module, pretrained, exclude, matches, tags in itertools.product(
        FILTERS, ("", "resnet", ["efficientnet", "vision_transformer"]), (False, True), EXCLUDES, (False, True),
        (None, False, True))
]


@pytest.mark.sample(3)
@pytest.mark.parametrize("pretrained", [False, True])
@pytest.mark.parametrize("include_tags", [None, False, True])
def test_list_models_gives_what_timm_gives(pretrained, include_tags):
    cases = [a for a in ARGUMENTS if a["pretrained"] == pretrained and a["include_tags"] == include_tags]
    for arguments in cases:
        theirs = [n for n in timm.list_models(**arguments) if registry.get_arch_name(n) in ARCHITECTURES]
        ours = [n for n in mvlib.list_models(**arguments) if not is_ours_alone(n)]
        if pretrained:
            ours = [n for n in ours if n not in NEWLY_PRETRAINED]
        assert ours == theirs, arguments


def test_list_models_takes_arguments_in_timms_order():
    arguments = ("*18*", "resnet", True, "*gluon*", True, True)
    assert [n for n in mvlib.list_models(*arguments) if not is_ours_alone(n)] == timm.list_models(*arguments) != []


def test_list_pretrained_gives_what_timm_gives():
    for filter, exclude in itertools.product(FILTERS, EXCLUDES):
        theirs = [n for n in timm.list_pretrained(filter, exclude) if registry.get_arch_name(n) in ARCHITECTURES]
        assert [n for n in mvlib.list_pretrained(filter, exclude) if not is_ours_alone(n)] == theirs, (filter, exclude)


def test_every_tag_of_timm_is_listed():
    theirs = [n for n in timm.list_models(include_tags=True) if registry.get_arch_name(n) in ARCHITECTURES]
    assert len(theirs) > 450
    assert set(theirs) <= set(mvlib.list_models(include_tags=True))


def test_an_unknown_module_offers_the_closest():
    with pytest.raises(UnknownNameError, match="no module 'resnett' has models; did you mean 'resnet'"):
        mvlib.list_models(module=["regnet", "resnett"])


def test_list_modules_and_membership():
    ours_alone = {"alexnet", "detection", "googlenet", "optical_flow", "quantization", "segmentation", "shufflenetv2",
                  "squeezenet", "video"}  # torchvision's
    assert set(MODULES) - ours_alone <= set(timm.list_modules()) and MODULES == sorted(MODULES)
    for name, module in itertools.product((*sorted(ARCHITECTURES), "nothing", "tv_resnet50"), ("resnet", "deit")):
        expected = timm_registry.is_model_in_modules(name, module)
        assert mvlib.is_model_in_modules(name, module) == expected, (name, module)
        assert mvlib.is_model_in_modules(f"{name}.tag", [module, "nothing"]) == expected, (name, module)


def test_order_is_natural():
    names = mvlib.list_models("efficientnet_b?")
    assert names[:3] == ["efficientnet_b0", "efficientnet_b1", "efficientnet_b2"]
    resnets = mvlib.list_models("resnet1*", module="resnet")
    assert resnets.index("resnet18") < resnets.index("resnet101")


def test_names_are_known_as_timm_knows_them():
    with_tags = mvlib.list_models(include_tags=True)
    names = [n for n in (*with_tags, *ARCHITECTURES) if not is_ours_alone(n)]
    for name in (*names, "resnet50.no_such_tag", "no_such_model", "", "RESNET50"):
        assert mvlib.is_model(name) == timm.is_model(name), name
        assert mvlib.is_model_pretrained(name) == (timm.is_model_pretrained(name) or name in NEWLY_PRETRAINED), name
        assert mvlib.get_arch_name(name) == timm_registry.get_arch_name(name)
        for no_tag in ("", "none"):
            assert mvlib.split_model_name_tag(name, no_tag) == timm_registry.split_model_name_tag(name, no_tag)


def test_arch_pretrained_cfgs_have_timms_names():
    for name in ARCHITECTURES:
        ours = mvlib.get_arch_pretrained_cfgs(name)
        theirs = timm_registry.get_arch_pretrained_cfgs(name)
        if name not in NEWLY_PRETRAINED:
            assert [n for n in ours if not is_ours_alone(n)] == list(theirs)
        assert {n for n in ours if not is_ours_alone(n)} == set(theirs)
        assert all(config.name == n for n, config in ours.items())
    assert mvlib.get_arch_pretrained_cfgs("no_such_model") == {}


def test_pretrained_cfg_value():
    assert mvlib.get_pretrained_cfg_value("resnet50.a1_in1k", "crop_pct") == 0.95
    assert mvlib.get_pretrained_cfg_value("resnet50", "no_such_field") is None
    with pytest.raises(UnknownNameError, match="unknown architecture 'nothing_like_it'"):
        mvlib.get_pretrained_cfg_value("nothing_like_it", "crop_pct")


def test_pretrained_cfg_of_an_unknown_architecture():
    assert mvlib.get_pretrained_cfg("no_such_model") is None
    with pytest.raises(UnknownNameError, match="unknown architecture 'resnet51'; did you mean '.*resnet50"):
        mvlib.get_pretrained_cfg("resnet51", allow_unregistered=False)


# Unknown names -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("typo", "meant"), [("RepVGG-A0", "repvgg_a0"), ("ResNeXt50_32x4d", "resnext50_32x4d")])
def test_capitals_are_no_difference_between_names(typo, meant):
    with pytest.raises(UnknownNameError, match=f"unknown architecture '{typo}'; did you mean '{meant}'"):
        mvlib.model_entrypoint(typo)


def test_unknown_architecture_offers_the_closest():
    with pytest.raises(UnknownNameError) as error:
        mvlib.model_entrypoint("resnet5o")
    assert str(error.value).startswith("unknown architecture 'resnet5o'; did you mean ")
    assert "'resnet50'" in str(error.value)
    with pytest.raises(UnknownNameError, match=r"unknown architecture 'qqqq'; list_models\(\) has all that are known"):
        mvlib.model_entrypoint("qqqq")


def test_as_near_as_each_other_are_offered_in_the_order_of_a_list():
    with pytest.raises(UnknownNameError, match="mean 'tf_efficientnet_lite0', 'tf_efficientnet_lite1' or"):
        mvlib.create_model("tf_efficientnet_lite")


def test_unknown_tag_offers_the_closest():
    message = "unknown tag 'a1_in1kk' of the architecture 'resnet50'; did you mean 'a1_in1k'"
    with pytest.raises(UnknownNameError, match=message):
        mvlib.get_pretrained_cfg("resnet50.a1_in1kk")
    message = "unknown tag 'zzzz' of the architecture 'resnet10t'; known tags: c3_in1k"
    with pytest.raises(UnknownNameError, match=message):
        registry.resolve_name("resnet10t.zzzz")


def test_entrypoint_outside_of_the_module_asked_for():
    with pytest.raises(UnknownNameError, match="'resnet50' is not in the module 'deit'; it is in 'resnet'"):
        mvlib.model_entrypoint("resnet50", module_filter="deit")


# Aliases and deprecated names ----------------------------------------------------------------------------------------

def test_torchvisions_builder_names_are_aliases():
    assert registry.resolve_name("mobilenet_v2") == ("mobilenetv2_100", "imagenet1k_v2")
    assert registry.resolve_name("mobilenet_v2.imagenet1k_v1") == ("mobilenetv2_100", "imagenet1k_v1")
    assert mvlib.is_model("mobilenet_v2") and mvlib.is_model_pretrained("mobilenet_v2")
    assert mvlib.get_pretrained_cfg("mobilenet_v2").preprocessing == "torchvision"
    assert "mobilenet_v2" not in mvlib.list_models()


@pytest.mark.parametrize("module", MODULES)
def test_deprecated_names_are_timms(module):
    corrected = {"ig_resnext101_32x16d", "ig_resnext101_32x32d", "vit_base_patch32_224_sam", "vit_base_patch16_224_sam"}
    ours, theirs = mvlib.get_deprecated_models(module), timm_registry.get_deprecated_models(module)
    theirs = {k: v for k, v in theirs.items() if v is None or mvlib.get_arch_name(v) in ARCHITECTURES}
    assert set(ours) == set(theirs)
    assert {old for old in ours if ours[old] != theirs[old]} == corrected & set(ours)
    for old, new in ours.items():
        with pytest.warns(FutureWarning, match=f"the model name '{old}' is deprecated; write '{new}' instead"):
            resolved = registry.resolve_name(old)  # also proves that the tag exists
        assert resolved == mvlib.split_model_name_tag(new)
        assert mvlib.is_model(old) and not set(mvlib.list_models(old))


def test_the_warning_points_at_the_users_line():
    with pytest.warns(FutureWarning) as caught:
        config = mvlib.get_pretrained_cfg("tv_resnet50")
    assert caught[0].filename == __file__
    assert config.name == "resnet50.tv_in1k"
    with pytest.warns(FutureWarning):
        assert mvlib.get_pretrained_cfg("tv_resnet50.a1_in1k").name == "resnet50.a1_in1k"


def test_users_deprecations(fresh):
    mvlib.register_model_deprecations("their.nets", {"their_old": "resnet50.a1_in1k", "their_gone": None})
    with pytest.warns(FutureWarning, match="'their_old' is deprecated; write 'resnet50.a1_in1k'"):
        assert registry.resolve_name("their_old") == ("resnet50", "a1_in1k")
    with pytest.raises(UnknownNameError, match="the model 'their_gone' was removed and nothing takes its place"):
        mvlib.model_entrypoint("their_gone")
    assert not mvlib.is_model_pretrained("their_gone")
    assert "nets" in mvlib.list_modules()
    with pytest.raises(UnknownNameError, match="unknown architecture 'resnet5000'"):
        mvlib.register_model_deprecations("their.nets", {"older": "resnet5000"})
    with pytest.raises(ConfigError, match="'resnet18' cannot stand for 'resnet50': it is registered, by"):
        mvlib.register_model_deprecations("their.nets", {"resnet18": "resnet50"})


# Users' own models ---------------------------------------------------------------------------------------------------

def net(name, module="their.nets"):
    def function(**kwargs):
        return kwargs

    function.__name__ = function.__qualname__ = name
    function.__module__ = module
    return function


def test_a_users_model_stands_beside_ours(fresh):
    fn = net("zz_net")
    assert mvlib.register_model(fn) is fn
    assert mvlib.is_model("zz_net") and mvlib.list_models("zz*") == ["zz_net"] and "nets" in mvlib.list_modules()
    assert mvlib.model_entrypoint("zz_net")(num_classes=3) == {"num_classes": 3}
    assert not mvlib.is_model_pretrained("zz_net") and mvlib.get_pretrained_cfg("zz_net") is None
    assert mvlib.list_models("zz*", include_tags=True) == ["zz_net"]
    assert mvlib.list_models("zz*", name_matches_cfg=True) == []
    with pytest.raises(UnknownNameError, match="no weights config is registered for the architecture 'zz_net'"):
        mvlib.get_pretrained_cfg("zz_net", allow_unregistered=False)
    with pytest.raises(UnknownNameError, match="unknown tag 'x' of the architecture 'zz_net': it has no tags"):
        registry.resolve_name("zz_net.x")


def test_weights_given_to_the_decorator(fresh):
    weights = {"b_tag": {"sources": ["hf-hub:them/"], "crop_pct": 0.9}, "a_tag": mvlib.WeightsConfig(num_classes=5)}
    mvlib.register_model(net("zz_net"), weights=weights)
    assert mvlib.list_models("zz_net", include_tags=True) == ["zz_net.a_tag", "zz_net.b_tag"]
    assert mvlib.list_pretrained("zz*") == ["zz_net.b_tag"]
    assert mvlib.get_pretrained_cfg("zz_net").hf_hub_id == "them/zz_net.b_tag"
    assert mvlib.get_pretrained_cfg("zz_net.a_tag").num_classes == 5
    with pytest.raises(ConfigError, match="unknown field 'crop_pc' in a weights config; did you mean 'crop_pct'"):
        mvlib.register_model(net("zz_other"), weights={"t": {"crop_pc": 1.0}})
    assert not mvlib.is_model("zz_other")


def test_a_name_registered_twice(fresh):
    mvlib.register_model(net("zz_net", "one.nets"))
    with pytest.raises(ConfigError) as error:
        mvlib.register_model(net("zz_net", "two.nets"))
    assert "'zz_net' is registered twice: by one.nets.zz_net (" in str(error.value)
    assert "and by two.nets.zz_net (" in str(error.value) and "override=True" in str(error.value)
    with pytest.raises(ConfigError, match=r"'resnet50' is registered twice: by mvlib.models.resnet.*and by their.nets"):
        mvlib.register_model(net("resnet50"))
    with pytest.raises(ConfigError, match="'tv_resnet50' is taken: it stands for 'resnet50.tv_in1k'"):
        mvlib.register_model(net("tv_resnet50"))


TABLE = """
import mvlib

class Net:
    def __init__(self, depth):
        self.depth = depth

mvlib.register_model.variants(__name__, Net, {{"zz_reloaded": dict(depth={result})}})
"""


def test_a_table_that_is_reloaded(fresh, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    path = tmp_path / "zz_table.py"
    path.write_text(TABLE.format(result=1))
    module = importlib.import_module("zz_table")
    path.write_text(TABLE.format(result=23))
    importlib.reload(module)
    assert mvlib.model_entrypoint("zz_reloaded") is module.zz_reloaded and module.zz_reloaded().depth == 23
    del sys.modules["zz_table"]


MODULE = """
import mvlib

@mvlib.register_model({weights})
def zz_reloaded(**kwargs):
    return {result}
"""


def write_module(path, weights, result, more=""):
    path.write_text("#\n" * result + MODULE.format(weights=weights, result=result) + more)  # on other lines than before


def test_a_module_that_is_reloaded(fresh, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    path = tmp_path / "zz_edited.py"
    (tmp_path / "more.yaml").write_text("architectures: {resnet18: {tags: {zz: {num_classes: 4}}}}")
    more = f"mvlib.register_catalog('{tmp_path}/more.yaml')\n"
    write_module(path, "weights={'a': {'num_classes': 3}}", 1, more)
    module = importlib.import_module("zz_edited")
    for weights, result, tags in (("weights={'b': {}, 'c': {}}", 2, ["b", "c"]), ("", 2, []), ("", 3, [])):
        write_module(path, weights, result, more)
        importlib.reload(module)
        assert mvlib.model_entrypoint("zz_reloaded") is module.zz_reloaded and module.zz_reloaded() == result
        assert mvlib.list_models("zz_*", include_tags=True) == \
            ([f"zz_reloaded.{tag}" for tag in tags] or ["zz_reloaded"])
        assert mvlib.get_pretrained_cfg("resnet18.zz").num_classes == 4
    del sys.modules["zz_edited"]
    fresh_import = importlib.import_module("zz_edited")
    assert mvlib.model_entrypoint("zz_reloaded") is fresh_import.zz_reloaded
    write_module(path, "", 4, MODULE.format(weights="", result=5))
    with pytest.raises(ConfigError, match="'zz_reloaded' is registered twice"):
        importlib.reload(fresh_import)
    del sys.modules["zz_edited"]


def test_tags_from_a_catalog_outlive_a_reload(fresh, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    write_module(tmp_path / "zz_kept.py", "", 1)
    module = importlib.import_module("zz_kept")
    (tmp_path / "more.yaml").write_text("architectures: {zz_reloaded: {tags: {mine: {sources: ['file:/w.pth']}}}}")
    mvlib.register_catalog(tmp_path / "more.yaml")
    write_module(tmp_path / "zz_kept.py", "weights={'own': {}}", 2)
    importlib.reload(module)
    assert mvlib.list_models("zz_*", include_tags=True) == ["zz_reloaded.mine", "zz_reloaded.own"]
    assert mvlib.list_pretrained("zz_*") == ["zz_reloaded.mine"]
    del sys.modules["zz_kept"]


def test_override(fresh):
    ours = net("resnet50")
    mvlib.register_model(override=True)(ours)
    assert mvlib.model_entrypoint("resnet50") is ours
    assert not mvlib.list_pretrained("resnet50") and "resnet50" not in mvlib.list_models(module="resnet")
    mvlib.register_model(net("tv_resnet50"), override=True)
    assert mvlib.list_models("tv_resnet50") == ["tv_resnet50"]
    assert "tv_resnet50" not in mvlib.get_deprecated_models() | mvlib.get_deprecated_models("resnet")


@pytest.mark.slow
def test_an_override_outlives_the_import_of_the_family():
    run("""
        import mvlib
        def mine(**kwargs): return "mine"
        mvlib.register_model(mine, name="efficientnet_b0", override=True)
        import mvlib.models.efficientnet
        assert mvlib.model_entrypoint("efficientnet_b0") is mine
        from mvlib import registry
        assert registry.load_entrypoint("efficientnet_b8") is mvlib.models.efficientnet.efficientnet_b8
    """)


def test_typing_a_model_in_again_at_a_prompt():
    done = subprocess.run(
        [sys.executable, "-i", "-q"], capture_output=True, text=True, timeout=120,
        input="import mvlib\n" + 2 * "@mvlib.register_model\ndef net(**kwargs):\n    return 1\n\n"
              + "print(mvlib.list_models('net'))\n")
    assert "['net']" in done.stdout and "Error" not in done.stderr


@pytest.mark.parametrize("name", ["a.b", "a/b", "a:b", "a b", "a*"])
def test_a_name_that_would_not_be_found_again(fresh, name):
    with pytest.raises(ConfigError, match="cannot name a model"):
        mvlib.register_model(net("fine"), name=name)


def test_a_partial_is_no_function(fresh):
    with pytest.raises(ConfigError, match="register_model takes a function or a class, not functools.partial"):
        mvlib.register_model(functools.partial(net("fine")), name="mine")


class Net:
    def __init__(self, depth: int = 1, width: int = 8, act: type | None = None) -> None:
        self.numbers = depth, width, act


def deepened(more: int = 1, **kwargs) -> Net:
    net = Net(**kwargs)
    net.numbers = net.numbers[0] + more, *net.numbers[1:]
    return net


_DEEP, _WIDE = dict(depth=9), dict(width=32)


def test_a_table_of_variants(fresh):
    here = sys.modules[__name__]
    mvlib.register_model.variants(__name__, Net, {
        "zz_net": {},
        "zz_deep": _DEEP,
        "zz_both": (_DEEP, _WIDE, dict(depth=3, act=Net)),
        "zz_told": (_WIDE, "Wide, and nothing else."),
    })
    assert [mvlib.model_entrypoint(f"zz_{name}")().numbers for name in ("net", "deep", "both", "told")] == \
        [(1, 8, None), (9, 8, None), (3, 32, Net), (1, 32, None)]
    assert here.zz_both(width=4).numbers == (3, 4, Net) and _DEEP == dict(depth=9)
    assert here.zz_both.__doc__ == "Net, depth=3, width=32, act=Net."
    assert inspect.getdoc(here.zz_told) == "Wide, and nothing else.\n\nNet, width=32."
    assert here.zz_net.__doc__ == "Net, as it is by default."
    assert pickle.loads(pickle.dumps(here.zz_deep)) is here.zz_deep is mvlib.model_entrypoint("zz_deep")
    assert (here.zz_deep.__qualname__, here.zz_deep.__module__) == ("zz_deep", __name__)
    assert inspect.signature(here.zz_deep).return_annotation is Net and inspect.isfunction(here.zz_deep)
    assert set(arguments_of(here.zz_deep)) == {"depth", "width", "act"}
    with pytest.raises(TypeError) as error:
        here.zz_deep(dept=2)
    frame = error.traceback[-1]  # the table's
    assert (frame.path.name, frame.name) == ("test_registry.py", "zz_deep") and "variants" in str(frame.statement)
    with pytest.raises(ConfigError, match=rf"'zz_deep' is registered twice: by .*zz_deep \(.*{Path(__file__).name}:"):
        mvlib.register_model.variants("json", Net, {"zz_deep": {}})
    mvlib.register_model.variants("json", Net, {"zz_deep": {}}, override=True)
    assert mvlib.model_entrypoint("zz_deep")().numbers == (1, 8, None)


def test_variants_of_a_function(fresh):
    mvlib.register_model.variants(__name__, deepened, {"zz_net": dict(more=2, depth=3)})
    entrypoint = mvlib.model_entrypoint("zz_net")
    assert entrypoint().numbers == (5, 8, None) and entrypoint(more=0, width=1).numbers == (3, 1, None)
    assert set(arguments_of(entrypoint)) == {"more", "depth", "width", "act"}


@pytest.mark.parametrize(("row", "message"), [
    (dict(dept=3), "the row 'zz_b' has the argument 'dept', which Net does not know; did you mean 'depth'"),
    ((_DEEP, 3), "the row 'zz_b' is made of mappings of arguments and a text at most, not of 3"),
    (3, "the row 'zz_b' is made of .*, not of 3"),
    (("One.", "Two."), "the row 'zz_b' is made of .*, not of 'Two.'"),
])
def test_a_bad_row_registers_nothing(fresh, row, message):
    with pytest.raises(ConfigError, match=message):
        mvlib.register_model.variants(__name__, Net, {"zz_a": {}, "zz_b": row})
    assert not mvlib.list_models("zz_*")


def test_variants_of_what_cannot_be(fresh):
    with pytest.raises(ConfigError, match="a class or a function that makes models, not functools.partial"):
        mvlib.register_model.variants(__name__, functools.partial(Net), {"zz_a": {}})
    with pytest.raises(ConfigError, match="takes the __name__ of its module, not 'no.such'"):
        mvlib.register_model.variants("no.such", Net, {"zz_a": {}})


CATALOG = """
aliases: {zz_alias: resnet18.mine}
deprecated: {zz_old: resnet18.mine}
architectures:
  resnet18:
    tags:
      mine: {sources: ["file:/weights/mine.pth"], num_classes: 7}
  zz_net:
    tags:
      first: {sources: ["hf-hub:them/"]}
"""


def test_register_catalog(fresh, tmp_path):
    mvlib.register_model(net("zz_net"), weights={"described": {"crop_pct": 0.9, "classifier": "head"}})
    path = tmp_path / "mine.yaml"
    path.write_text(CATALOG)
    default = mvlib.get_pretrained_cfg("resnet18").tag
    assert mvlib.register_catalog(path) == ["resnet18.mine", "zz_net.first"]
    assert mvlib.get_pretrained_cfg("resnet18").tag == default
    config = mvlib.get_pretrained_cfg("zz_alias")
    assert (config.name, config.num_classes, config.classifier, config.file) == \
        ("resnet18.mine", 7, "fc", "/weights/mine.pth")
    assert mvlib.get_pretrained_cfg("zz_net").tag == "first", "the only weights are the default"
    assert mvlib.get_pretrained_cfg("zz_net").classifier == "head"
    assert mvlib.list_pretrained("resnet18.mine") == ["resnet18.mine"]
    with pytest.warns(FutureWarning, match="write 'resnet18.mine'"):
        registry.resolve_name("zz_old")
    with pytest.raises(ConfigError, match="mine.yaml: 'resnet18.mine' is registered already"):
        mvlib.register_catalog(path)


@pytest.mark.parametrize(("text", "message"), [
    ("architectures: {resnet5000: {tags: {x: {}}}}", "unknown architecture 'resnet5000'"),
    ("architectures: {resnet18: {tags: {a1_in1k: {}}}}", "'resnet18.a1_in1k' is registered already"),
    ("architectures: {resnet18: {tags: {zz: {}}}}\naliases: {resnet34: resnet18}", "'resnet34' cannot stand for"),
    ("architectures: {resnet18: {tags: {zz: {}}}}\naliases: {zz: nothing_like_it}", "unknown architecture"),
])
def test_a_bad_catalog_registers_nothing(fresh, tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    before = mvlib.list_models(include_tags=True)
    with pytest.raises((ConfigError, UnknownNameError), match=message):
        mvlib.register_catalog(path)
    assert mvlib.list_models(include_tags=True) == before and not mvlib.is_model("zz")


# Cost ----------------------------------------------------------------------------------------------------------------

def test_no_function_imports_torch():
    output = run("""
        import sys, tempfile, pathlib, warnings
        warnings.simplefilter("ignore")
        import mvlib
        from mvlib import registry
        assert not [m for m in sys.modules if m.split(".")[0] in ("torch", "torchvision", "timm", "numpy", "PIL")]

        def mine(**kwargs): return 1
        catalog = pathlib.Path(tempfile.mkdtemp()) / "c.yaml"
        catalog.write_text("architectures: {mine: {tags: {x: {crop_pct: 0.9}}}}")
        calls = dict(
            register_model=(mine,), register_catalog=(catalog,),
            register_model_deprecations=("m", {"older": "resnet50"}), model_entrypoint=("resnet50",),
            get_arch_name=("resnet50.a1_in1k",), get_arch_pretrained_cfgs=("resnet50",), get_deprecated_models=(),
            get_module=("resnet50",), get_arch_tags=("resnet50",),
            builder_facts=("resnet50",), count_models=(), list_builders=(), torchvision_builder=("resnet50",),
            torchvision_arguments=("efficientnet_b5",),
            get_pretrained_cfg=("resnet50",), is_model=("resnet50",),
            get_pretrained_cfg_value=("tv_resnet50", "url"), is_model_in_modules=("resnet50", "resnet"),
            check_is_classifier=("resnet50", "this"), task_of=("s3d",), is_model_pretrained=("resnet50",),
            list_models=("*resne*t*",), list_modules=(), list_pretrained=(),
            match_models=(["resnet50", "resnet18*"],), resolve_name=("older",), split_model_name_tag=("resnet50.x",))
        assert set(calls) == set(registry.__all__), set(calls) ^ set(registry.__all__)
        for name, arguments in calls.items():
            found = getattr(registry, name)(*arguments)
            assert found is not None or name in ("register_model_deprecations", "check_is_classifier"), name
            loaded = [m for m in sys.modules if m.split(".")[0] in ("torch", "torchvision", "timm", "numpy", "PIL")]
            assert not loaded, (name, loaded[:3])
        print("none")
    """)
    assert output == "none\n"


def test_listing_reads_no_catalog():
    assert run("""
        import sys, mvlib
        mvlib.list_models("*resne*t*"); mvlib.list_pretrained("vit*"); mvlib.is_model_pretrained("resnet50")
        print([m for m in ("yaml", "mvlib.weights", "dataclasses") if m in sys.modules])
    """) == "[]\n"


def test_match_models():
    assert registry.match_models("resnet50") == ["resnet50"]
    assert registry.match_models(["resnet18d", "resnet18*", "vit_b_16"], pretrained=True) == [
        "resnet18d", *(name for name in mvlib.list_models("resnet18*") if name != "resnet18d"), "vit_b_16"]
    assert registry.match_models("resnet50.a*") == mvlib.list_pretrained("resnet50.a*")
    with pytest.raises(UnknownNameError, match=r"no model with weights matches 'resnet5o\*'; did you mean 'resnet50'"):
        registry.match_models("resnet5o*", pretrained=True)
    with pytest.raises(UnknownNameError, match="unknown architecture 'resnet5o'; did you mean 'resnet50'"):
        registry.match_models(["resnet50", "resnet5o"])
