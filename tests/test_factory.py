"""create_model: names, sources, arguments, and what is said of each mistake."""

import functools
import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import timm
import torch
from safetensors.torch import save

import mvlib
from mvlib.errors import ConfigError, MvlibError, UnknownNameError, WeightsError
from mvlib.layers.attention import Attention

from .parity.representatives import FIRST


@functools.cache
def weights_of(name, **kwargs):
    torch.manual_seed(1)
    return timm.create_model(name, **kwargs).eval()


def repository(model, **changes):
    config = {"architecture": "resnet18", "num_classes": 1000, "num_features": 512,
              "pretrained_cfg": {"tag": "mine", "custom_load": False, "input_size": [3, 160, 160], "crop_pct": 0.95,
                                 "interpolation": "bicubic", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5],
                                 "num_classes": 1000, "first_conv": "conv1", "classifier": "fc"}}
    return {"config.json": json.dumps(config | changes).encode(), "model.safetensors": save(model.state_dict())}


def same(own, peer):
    """Whether outputs are equal but for the order of additions, which follows the weights' place in memory."""
    return (own - peer).abs().max() <= 1e-5 * peer.abs().max()


IMAGE = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)


# what a name means

def test_an_architecture_is_initialised_at_random():
    model = mvlib.create_model("resnet18", num_classes=10)
    assert model(IMAGE).shape == (1, 10)
    assert not any(p.is_meta for p in model.parameters())
    assert model.conv1.weight.std() > 0.01
    assert (model.bn1.weight == 1).all()


def test_a_tag_loads_its_weights(hub):
    reference = weights_of("resnet18")
    hub.add_repo("timm/resnet18.a1_in1k", repository(reference))
    assert same(mvlib.create_model("resnet18.a1_in1k").eval()(IMAGE), reference(IMAGE))


def test_pretrained_false_wins_over_a_tag(hub):
    mvlib.create_model("resnet18.a1_in1k", pretrained=False)
    assert not hub.requests


def test_a_checkpoint_wins_over_a_tag(hub, tmp_path):
    reference = weights_of("resnet18")
    (tmp_path / "w.safetensors").write_bytes(save(reference.state_dict()))
    model = mvlib.create_model("resnet18.a1_in1k", checkpoint_path=tmp_path / "w.safetensors").eval()
    assert same(model(IMAGE), reference(IMAGE))
    assert not hub.requests


def test_pretrained_takes_the_default_tag(hub):
    reference = weights_of("resnet18")
    hub.add_repo("timm/resnet18.a1_in1k", repository(reference))
    model = mvlib.create_model("resnet18", pretrained=True, num_classes=5)
    assert model.weights_config.tag == mvlib.get_pretrained_cfg("resnet18").tag
    assert model.fc.weight.shape == (5, 512)
    assert torch.equal(model.conv1.weight, reference.conv1.weight)


def test_a_hub_repository_is_what_its_config_says(hub):
    reference = weights_of("resnet18", num_classes=4)
    hub.add_repo("someone/birds", repository(reference, num_classes=4, label_names=["a", "b", "c", "d"]))
    model = mvlib.create_model("hf-hub:someone/birds").eval()
    assert same(model(IMAGE), reference(IMAGE))
    assert model.weights_config.label_names == ("a", "b", "c", "d")
    by_class = {"10": "k", "2": "c", "0": "a"}  # timm's other form, sorted as texts are
    hub.add_repo("someone/sparse", repository(weights_of("resnet18", num_classes=11), num_classes=11,
                                              label_names=by_class))
    names = mvlib.create_model("hf-hub:someone/sparse").weights_config.label_names
    assert (names[0], names[1], names[2], names[10], len(names)) == ("a", "class 1", "c", "k", 11)
    assert mvlib.resolve_data_config(model=model)["input_size"] == (3, 160, 160)
    assert model.pretrained_cfg["mean"] == (0.5, 0.5, 0.5)


def test_a_hub_repository_that_has_moved_on(hub, monkeypatch):
    from huggingface_hub import constants

    old, new = weights_of("resnet18", num_classes=4), weights_of("resnet18", num_classes=5)
    hub.add_repo("someone/birds", repository(old, num_classes=4))
    mvlib.create_model("hf-hub:someone/birds")
    hub.add_repo("someone/birds", repository(new, num_classes=5))
    hub.fault("*/model.safetensors", status=404, times=None)
    with pytest.raises(WeightsError):
        mvlib.create_model("hf-hub:someone/birds")
    hub.faults.clear()
    with monkeypatch.context() as patch:  # what is here whole serves on
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert mvlib.create_model("hf-hub:someone/birds").num_classes == 4
    model = mvlib.create_model("hf-hub:someone/birds")
    assert torch.equal(model.fc.weight, new.fc.weight)
    assert model.weights_config.sources == ("hf-hub:someone/birds",)
    hub.stop()
    assert mvlib.create_model("hf-hub:someone/birds").num_classes == 5


def test_weights_of_our_catalogs_that_are_cached_ask_no_network(hub, monkeypatch):
    hub.add_repo("timm/resnet18.a1_in1k", repository(weights_of("resnet18")))
    mvlib.create_model("resnet18.a1_in1k")
    folder = mvlib.hub.torch_checkpoints_dir()
    folder.mkdir(parents=True)
    torch.save(weights_of("resnet18").state_dict(), folder / "resnet18-f37072fd.pth")
    monkeypatch.setattr("mvlib.hub._sha256", lambda path: "f37072fd" + 56 * "0")
    hub.add_repo("timm/resnet18.a1_in1k", repository(weights_of("resnet18")), revision="main")
    hub.requests.clear()
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(f"socket.socket.{name}", None)
    monkeypatch.setattr("socket.getaddrinfo", None)
    mvlib.create_model("resnet18.a1_in1k")
    mvlib.create_model("resnet18.imagenet1k_v1")
    mvlib.create_model("resnet18", pretrained=True, num_classes=3)
    assert not hub.requests


def test_a_hub_repository_without_its_weights(hub):
    hub.add_repo("someone/birds", repository(weights_of("resnet18")))
    mvlib.create_model("hf-hub:someone/birds", pretrained=False)
    assert not any("safetensors" in path for path in hub.requests)


def test_a_local_folder(tmp_path):
    reference = weights_of("resnet18")
    for name, data in repository(reference).items():
        (tmp_path / name).write_bytes(data)
    assert same(mvlib.create_model(f"local-dir:{tmp_path}").eval()(IMAGE), reference(IMAGE))


def test_features_only_never_needs_the_pruned_layers(hub):
    reference = weights_of("resnet18", features_only=True, out_indices=(1, 2))
    hub.add_repo("timm/resnet18.a1_in1k", repository(weights_of("resnet18")))
    model = mvlib.create_model("resnet18.a1_in1k", features_only=True, out_indices=(1, 2)).eval()
    assert model.feature_info.channels() == reference.feature_info.channels() == [64, 128]
    assert model.feature_info.reduction() == [4, 8]
    for own, peer in zip(model(IMAGE), reference(IMAGE)):
        assert same(own, peer)
    assert not any("layer3" in key or "fc" in key for key in model.state_dict())


@pytest.mark.parametrize("name", ["resnet18", "swin_tiny_patch4_window7_224", "vit_tiny_patch16_224"])
def test_timm_s_feature_extractors_checkpoints_load(name):
    reference = timm.create_model(name, features_only=True)
    model = mvlib.create_model(name, features_only=True)
    model.load_state_dict(reference.state_dict())


def test_a_dict_of_features():
    model = mvlib.create_model("resnet18", features_only=True, feature_cls="dict", out_indices=(-1,))
    assert list(model(IMAGE)) == ["-1"]  # as timm names it


@pytest.mark.slow
def test_building_on_meta_imports_no_compiler():
    """It takes a second, and is imported where the first random number is drawn on the meta device."""
    code = ("import sys, mvlib\n"
            "for name in sys.argv[1:]:\n"
            "    mvlib.create_model(name, pretrained=False, device='meta')\n"
            "    assert 'torch._dynamo' not in sys.modules, name")
    names = [name for family, name in FIRST.items()
             if family not in ("vision_transformer_hybrid", "vitamin")]  # they run their backbone there, for its map
    names += ["repvgg_a0", "mobileone_s0", "gcresnext26ts", "botnet26t_256", "lambda_resnet26t"]
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]


def test_none_arguments_are_left_out():
    assert mvlib.create_model("resnet18", num_classes=None, drop_rate=None).num_classes == 1000


def test_no_checkpoint_is_timms_empty_text():
    assert mvlib.create_model("resnet18", num_classes=2, checkpoint_path="").base_weights is None


def test_timms_own_config(hub):
    config = timm.models.get_pretrained_cfg("resnet18.a2_in1k")
    assert mvlib.create_model("resnet18", pretrained_cfg=config).weights_config.tag == "a2_in1k"
    for name in ("pretrained_cfg", "pretrained_cfg_overlay"):
        with pytest.raises(ConfigError, match=f"^{name} is a dict of a config's fields, not 3"):
            mvlib.create_model("resnet18", **{name: 3})


def test_a_config_of_one_s_own(hub):
    reference = weights_of("resnet18")
    hub.add_file("/x/mine.safetensors", save(reference.state_dict()))
    config = {"url": hub.url("/x/mine.safetensors"), "mean": (0.1, 0.2, 0.3)}
    model = mvlib.create_model("resnet18", pretrained=True, pretrained_cfg=config).eval()
    assert same(model(IMAGE), reference(IMAGE))
    assert model.pretrained_cfg["mean"] == (0.1, 0.2, 0.3)


def test_an_overlay_replaces_fields(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(save(weights_of("resnet18").state_dict()))
    overlay = {"file": str(tmp_path / "w.safetensors"), "crop_pct": 0.5}
    model = mvlib.create_model("resnet18", pretrained=True, pretrained_cfg_overlay=overlay)
    assert model.pretrained_cfg["crop_pct"] == 0.5
    assert model.pretrained_cfg["interpolation"] == mvlib.get_pretrained_cfg("resnet18").interpolation


def test_a_user_s_model_with_a_user_s_catalog(tmp_path, fresh_registry):
    (tmp_path / "w.safetensors").write_bytes(save(weights_of("resnet18").state_dict()))
    (tmp_path / "mine.yaml").write_text(
        f"architectures: {{resnet18: {{tags: {{mine_2026: {{sources: ['file:{tmp_path}/w.safetensors']}}}}}}}}")
    assert mvlib.register_catalog(tmp_path / "mine.yaml") == ["resnet18.mine_2026"]
    assert mvlib.list_models("resnet18.mine*", pretrained=True) == ["resnet18.mine_2026"]
    mvlib.create_model("resnet18.mine_2026")


def test_deprecated_names_work_offline_and_name_the_new_one(hub, fresh_registry):
    with pytest.warns(FutureWarning, match=r"'resnet18d_deprecated_here' is deprecated; write 'resnet18' instead"):
        mvlib.register_model_deprecations(__name__, {"resnet18d_deprecated_here": "resnet18"})
        mvlib.create_model("resnet18d_deprecated_here")
    with pytest.warns(FutureWarning, match="write 'resnet50.gluon_in1k' instead"):
        mvlib.create_model("gluon_resnet50_v1b", pretrained=False)
    assert not hub.requests


# mistakes

def test_unknown_architecture():
    with pytest.raises(UnknownNameError, match=r"unknown architecture 'resnet5'; did you mean .*'resnet50'"):
        mvlib.create_model("resnet5")


def test_unknown_tag():
    with pytest.raises(UnknownNameError, match=r"unknown tag 'a1_in1' of .* 'resnet50'; did you mean .*'a1_in1k'"):
        mvlib.create_model("resnet50.a1_in1")


def test_unknown_source():
    with pytest.raises(UnknownNameError, match=r"unknown source 'hf-hubb:' .* did you mean 'hf-hub'"):
        mvlib.create_model("hf-hubb:timm/resnet18.a1_in1k")


def test_a_repository_without_its_prefix():
    with pytest.raises(UnknownNameError, match="write 'hf-hub:timm/resnet18.a1_in1k' to load it from the hub"):
        mvlib.create_model("timm/resnet18.a1_in1k")


def test_nothing_is_published():
    name = next(n for n in mvlib.list_models() if not mvlib.is_model_pretrained(n))
    with pytest.raises(WeightsError, match=f"no weights are published for '{name}'"):
        mvlib.create_model(name, pretrained=True)


def test_a_tag_and_another_tag():
    with pytest.raises(ConfigError, match="name different weights; give one of them"):
        mvlib.create_model("resnet50.a1_in1k", pretrained_cfg="a2_in1k")


def test_a_repository_and_a_config(hub):
    with pytest.raises(ConfigError, match="brings its own config; pretrained_cfg contradicts it"):
        mvlib.create_model("hf-hub:someone/birds", pretrained_cfg="a1_in1k")


def test_as_many_means_as_channels():
    for options in ({}, {"pretrained_cfg_overlay": {"input_size": (1, 32, 32)}}):
        model = mvlib.create_model("resnet18", in_chans=1, pretrained=False, **options)
        config = mvlib.resolve_data_config(model=model)
        assert (config["input_size"][0], len(config["mean"]), len(config["std"])) == (1, 1, 1)


def test_types_by_their_usual_names():
    for name, dtype in (("bf16", torch.bfloat16), ("half", torch.float16), ("float32", torch.float32)):
        assert {p.dtype for p in mvlib.create_model("squeezenet1_1", dtype=name).parameters()} == {dtype}
    with pytest.raises(ConfigError, match="unknown precision 'bf17'; known: float32, bfloat16, float16"):
        mvlib.create_model("squeezenet1_1", dtype="bf17")


def test_out_indices_without_features_only():
    with pytest.raises(ConfigError, match="out_indices goes with features_only=True"):
        mvlib.create_model("resnet18", out_indices=(1,))


def test_feature_indices_out_of_range():
    with pytest.raises(ValueError, match=r"feature indices \[7\] are out of range: the model has 5 features, 0 to 4"):
        mvlib.create_model("resnet18", features_only=True, out_indices=(7,))


@pytest.mark.parametrize("indices", ["1", 1.5, [1.5], (1, "2"), {}])
def test_feature_indices_that_are_no_integers(indices):
    with pytest.raises(ConfigError, match="out_indices is an int or several, not "):
        mvlib.create_model("resnet18", features_only=True, out_indices=indices)


def test_unknown_arguments_name_the_known_ones():
    with pytest.raises(ConfigError) as caught:
        mvlib.create_model("resnet18", drop_paht_rate=0.1)
    text = str(caught.value)
    assert "'resnet18' does not know the argument 'drop_paht_rate'; did you mean 'drop_path_rate'" in text
    assert "It takes: " in text and "num_classes" in text


@pytest.mark.parametrize("name", ["resnet18", "fasterrcnn_resnet50_fpn"])
def test_torchvisions_argument_for_weights_is_explained(name):
    with pytest.raises(ConfigError) as caught:
        mvlib.create_model(name, weights="DEFAULT")
    tagged = mvlib.get_pretrained_cfg(name).name
    assert str(caught.value) == (
        f"'{name}' does not know the argument 'weights': pretrained=True loads the default weights, "
        f"create_model('{tagged}') those of a tag, and mvlib.models.get_model('{name}', weights=...) takes "
        f"torchvision's Enums")


@pytest.mark.parametrize(("arguments", "message"), [
    ({"num_classes": "10"}, "wants num_classes to be an int, not '10'"),
    ({"num_classes": 10.0}, "wants num_classes to be an int, not 10.0"),
    ({"num_classes": -5}, "wants num_classes to be at least 0, not -5"),
    ({"num_classes": True}, "wants num_classes to be an int, not True"),
    ({"in_chans": 0}, "wants in_chans to be at least 1, not 0"),
    ({"in_chans": numpy.int64(0)}, "wants in_chans to be at least 1, not "),
    ({"drop_rate": numpy.float32("nan")}, "wants drop_rate to be a finite number, not "),
    ({"drop_rate": "0.1"}, "wants drop_rate to be a number, not '0.1'"),
    ({"drop_path_rate": 1.5}, "wants drop_path_rate to be at most 1, not 1.5"),
    ({"drop_path_rate": float("nan")}, "wants drop_path_rate to be a finite number, not nan"),
    ({"layers": [2, "2", 2, 2]}, "wants layers to be a list, each item an int, not"),
    ({"global_pool": ["avg"]}, r"wants global_pool to be a str, not \['avg'\]"),
    ({"avg_down": "no"}, "wants avg_down to be a bool, not 'no'"),
])
def test_values_that_the_signature_rules_out(arguments, message):
    with pytest.raises(ConfigError, match=f"^'resnet18' {message}"):
        mvlib.create_model("resnet18", **arguments)


def test_whatever_counts_as_a_value_is_taken():
    model = mvlib.create_model(
        "vit_tiny_patch16_224", img_size=torch.Size((32, 48)), num_classes=numpy.int64(7), in_chans=torch.tensor(1),
        depth=1, drop_path_rate=numpy.float32(0.1), qkv_bias=numpy.True_, init_values=-1, mlp_ratio=2,
        norm_layer=functools.partial(torch.nn.LayerNorm, eps=1e-5), act_layer=torch.nn.SiLU,
        attn_layer=functools.partial(Attention))
    assert model(torch.zeros(1, 1, 32, 48)).shape == (1, 7)
    assert mvlib.create_model("coatnet_nano_cc_224", conv_attn_layer=False, transformer_window_size=(7, 7))


@pytest.mark.parametrize("name", [50, None, b"resnet18", Path("resnet18")])
def test_a_name_is_a_text(name):
    with pytest.raises(UnknownNameError, match="a model name is a str, such as 'resnet50', not "):
        mvlib.create_model(name)


def test_an_error_of_a_user_s_layer_is_not_the_caller_s():
    class Norm(torch.nn.LayerNorm):
        def __init__(self, dim):
            super().__init__(dim, wrong=True)

    with pytest.raises(TypeError, match="LayerNorm.__init__.* unexpected keyword argument 'wrong'") as caught:
        mvlib.create_model("vit_tiny_patch16_224", depth=1, norm_layer=Norm)
    assert not isinstance(caught.value, MvlibError)


class KeepsOptions(torch.nn.Module):
    def __init__(self, num_classes=3, **options):
        super().__init__()
        self.options = options


class PassesOptions(KeepsOptions):
    def __init__(self, width=1, **kwargs):
        super().__init__(**kwargs)


def test_only_a_signature_that_tells_is_believed(fresh_registry):
    def keeps(**kwargs) -> PassesOptions:
        return PassesOptions(**kwargs)

    def plain(num_classes: "Unknown" = 3, width: int = None) -> KeepsOptions:  # noqa: F821
        return KeepsOptions(num_classes)

    mvlib.register_model(keeps)
    assert mvlib.create_model("keeps", anything=1).options == {"anything": 1}
    mvlib.register_model(plain)
    mvlib.create_model("plain", num_classes="any", width="wide")  # the user's own annotations are the user's affair
    with pytest.raises(ConfigError, match="'plain' does not know the argument 'widht'; did you mean 'width'"):
        mvlib.create_model("plain", widht=1)


@pytest.mark.parametrize(("changes", "message"), [
    ({"architecture": "resnet_from_mars"}, "names the unknown architecture 'resnet_from_mars'"),
    ({"architecture": "../../etc/passwd"}, "names the unknown architecture '../../etc/passwd'"),
    ({"architecture": None}, "names no 'architecture'"),
    ({"architecture": ["resnet18"]}, "names no 'architecture'"),
    ({"num_classes": 10**12}, r"num_classes=1000000000000: a repository can give numbers of at most 1048576"),
    ({"num_classes": "many"}, "config.json: num_classes 'many' is not an int"),
    ({"model_args": {"stem_width": 10**9}}, "asks for stem_width=1000000000"),
    ({"model_args": [1, 2]}, "model_args in config.json is not an object"),
    ({"pretrained_cfg": {"input_size": [3, 10**8, 10**8]}}, "of a possible image"),
    ({"pretrained_cfg": {"input_size": "big"}}, "input_size 'big' is not 3 values, each an int"),
    ({"pretrained_cfg": {"mean": "dark"}}, "mean 'dark' is not a list, each item a number"),
    ({"pretrained_cfg": {"crop_pct": -3}}, "not a share of the image"),
    ({"pretrained_cfg": {"hf_hub_filename": "../../../etc/passwd"}}, r"\.\."),
])
def test_hostile_configs(changes, message, hub):
    hub.add_repo("evil/model", repository(torch.nn.Linear(1, 1), **changes))  # which is not looked at
    with pytest.raises(MvlibError, match=message):
        mvlib.create_model("hf-hub:evil/model")


@pytest.mark.parametrize(("changes", "message"), [
    ({"pretrained_cfg": {"hf_hub_filename": {}}}, "filename {} is not a str"),
    ({"pretrained_cfg": {"interpolation": "nicest"}}, "interpolation 'nicest' is none of nearest"),
    ({"pretrained_cfg": {"std": [0.5, float("nan"), 1]}}, "not a list of numbers"),
    ({"pretrained_cfg": {"std": [0.5, 0, 0.5]}}, r"std \(0.5, 0, 0.5\) is not above zero"),
    ({"label_names": {"a": "cat", "b": "dog"}}, "the keys of label_names are not numbers of the model's classes"),
    ({"label_names": {"0": "cat", "5": "dog"}}, "the keys of label_names are not numbers of the model's classes"),
    ({"model_args": {"global_pool": ["avg"]}}, r"asks for global_pool=\['avg'\]: 'resnet18' wants a str"),
    ({"model_args": {"global_pool": 3}}, "asks for global_pool=3: 'resnet18' wants a str"),
    ({"model_args": {"global_pool": "best"}}, "global_pool='best': 'resnet18' cannot be built so: unknown global_pool"),
    ({"model_args": {"global_pool": "x" * 5000}}, "texts of at most 1000 characters"),
    ({"model_args": {"in_chans": [3]}}, r"asks for in_chans=\[3\]: 'resnet18' wants an int"),
    ({"model_args": {"channels": {"a": 1}}}, "asks for channels={'a': 1}: 'resnet18' wants a list, each item an int"),
    ({"model_args": {"base_width": 1e308}}, r"asks for base_width=1e\+308"),
    ({"model_args": {"stem_width": 10**400}}, "asks for stem_width=1000"),
    ({"model_args": {"drop_rate": float("nan")}}, "asks for drop_rate=nan"),
    ({"model_args": {"layers": [10**6, 2, 2, 2]}}, r"asks for layers=\[1000000"),
    ({"model_args": {"layers": [60] * 4}}, "'resnet18' cannot be built so: the model has too many layers"),
    ({"model_args": {"layers": 500 * [1] + [[1]]}}, "asks for layers="),
    ({"model_args": {"stem_width": 16, "output_stride": 7}}, "asks for output_stride=7: 'resnet18' cannot be built so"),
    ({"model_args": {"block": "os.system"}}, "asks for block='os.system': 'resnet18' wants a class or function"),
    ({"model_args": {"cardinality": 0}}, "asks for cardinality=0: 'resnet18' wants at least 1"),
    ({"model_args": {"channels": [60000] * 4, "stem_width": 60000}}, "the model has [0-9]+ parameters"),
])
def test_hostile_values_are_named_before_anything_is_loaded(changes, message, tmp_path, monkeypatch):
    monkeypatch.setattr(mvlib.factory, "_MAX_CALLS", 1500)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18", "num_classes": 5} | changes))
    with pytest.raises(ConfigError, match=f"local-dir:{tmp_path}: config.json.*{message}"):
        mvlib.create_model(f"local-dir:{tmp_path}")


def test_a_config_cannot_point_elsewhere(hub, tmp_path):
    (tmp_path / "secret.safetensors").write_bytes(b"secret")
    config = {"file": str(tmp_path / "secret.safetensors"), "url": hub.url("/elsewhere.pth"), "hf_hub_id": "other/repo"}
    reference = weights_of("resnet18")
    hub.add_repo("evil/model", repository(reference, pretrained_cfg=config))
    assert same(mvlib.create_model("hf-hub:evil/model").eval()(IMAGE), reference(IMAGE))
    assert not any("elsewhere" in path or "other" in path for path in hub.requests)


def test_a_config_that_is_no_object(tmp_path):
    (tmp_path / "config.json").write_text("null")
    with pytest.raises(ConfigError, match="is not a JSON object"):
        mvlib.create_model(f"local-dir:{tmp_path}")


def test_a_config_that_is_not_json(hub):
    hub.add_repo("evil/model", {"config.json": b"<html>", "model.safetensors": b""})
    with pytest.raises(ConfigError, match="config.json"):
        mvlib.create_model("hf-hub:evil/model")


def test_loading_says_where_from(hub, caplog):
    hub.add_repo("timm/resnet18.a1_in1k", repository(weights_of("resnet18")))
    with caplog.at_level(logging.INFO, logger="mvlib"):
        mvlib.create_model("resnet18.a1_in1k")
    assert "loading 'resnet18.a1_in1k' from hf-hub:timm/resnet18.a1_in1k" in caplog.text


def test_what_is_registered_builds_a_model(fresh_registry):
    mvlib.register_model(lambda **kwargs: None, name="forgetful")
    with pytest.raises(ConfigError, match="what is registered as 'forgetful' returned None, not a model"):
        mvlib.create_model("forgetful")


class Plain(torch.nn.Module):
    def __init__(self, num_classes=5):
        super().__init__()
        self.conv, self.head = torch.nn.Conv2d(3, 8, 3), torch.nn.Linear(8, num_classes)

    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3)))


def test_a_plain_module_of_a_user_s(fresh_registry, tmp_path):
    def my_net(**kwargs):
        return Plain(**kwargs)

    weights = Plain().state_dict()
    (tmp_path / "w.safetensors").write_bytes(save(weights))
    fields = {"sources": [f"file:{tmp_path}/w.safetensors"], "num_classes": 5, "classifier": "head"}
    mvlib.register_model(weights={"v1": fields})(my_net)
    model = mvlib.create_model("my_net.v1")
    assert torch.equal(model.head.weight, weights["head.weight"]) and (model.num_classes, model.in_chans) == (5, 3)
    assert mvlib.create_model("my_net.v1", num_classes=3)(IMAGE).shape == (1, 3)
    with pytest.raises(ConfigError, match="Plain, has no forward_intermediates; a class derived from mvlib.ImageModel"):
        mvlib.create_model("my_net.v1", features_only=True)
    with pytest.raises(ConfigError, match="Plain cannot be saved for the hub: derive it from mvlib.ImageModel"):
        mvlib.save_for_hub(model, tmp_path / "out")


def test_what_default_weights_need_holds_for_weights_alone():
    def eps(**kwargs):
        with torch.device("meta"):
            return {module.eps for module in mvlib.create_model(**kwargs).modules()
                    if isinstance(module, torch.nn.BatchNorm2d)}

    assert eps(model_name="fbnetc_100") == {1e-5}
    assert eps(model_name="fbnetc_100.rmsp_in1k", pretrained=False) == {1e-3}
    assert eps(model_name="fbnetc_100", bn_eps=1e-2) == {1e-2}
