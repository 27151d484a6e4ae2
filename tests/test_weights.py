"""Weights configs and catalogs as data: what they say, how they are completed, what they refuse."""

import dataclasses
import json

import pytest
import timm
from timm.models import PretrainedCfg

import mvlib
from mvlib.errors import ConfigError
from mvlib.weights import OWN_FIELDS, WeightsConfig, as_configs, load_catalog, read_entries


def write(tmp_path, text):
    path = tmp_path / "catalog.yaml"
    path.write_text(text)
    return path


# WeightsConfig -------------------------------------------------------------------------------------------------------

def test_it_has_timms_fields_and_defaults():
    own, config = {f.name for f in dataclasses.fields(WeightsConfig)}, WeightsConfig()
    for field in dataclasses.fields(PretrainedCfg):
        if field.name == "state_dict":  # a config holds no tensors
            continue
        assert field.name in own or isinstance(getattr(WeightsConfig, field.name), property), field.name
        assert getattr(config, field.name) == field.default, field.name


def test_it_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        WeightsConfig().crop_pct = 1.0
    assert WeightsConfig().replace(crop_pct=1.0).crop_pct == 1.0
    assert hash(WeightsConfig(metrics={"x": {"y": 1.0}})) == hash(WeightsConfig(metrics={"x": {"y": 1.0}}))


@pytest.mark.parametrize("name", ["resnet50.a1_in1k", "vit_base_patch16_224.dino", "deit_base_distilled_patch16_224"])
@pytest.mark.parametrize("remove_source", [False, True])
@pytest.mark.parametrize("remove_null", [False, True])
def test_to_dict_says_what_timms_says(name, remove_source, remove_null):
    theirs = timm.get_pretrained_cfg(name).to_dict(remove_source, remove_null)
    ours = mvlib.get_pretrained_cfg(name).to_dict(remove_source, remove_null)
    for key in ("source", "state_dict"):
        theirs.pop(key, None)
    assert {key: ours[key] for key in theirs} == theirs
    if remove_source:
        assert not {"url", "file", "hf_hub_id", "hf_hub_filename", "sources", "sha256"} & set(ours)


def test_to_dict_is_json():
    config = mvlib.get_pretrained_cfg("resnet50.imagenet1k_v2")
    read = WeightsConfig.from_dict(json.loads(json.dumps(config.to_dict())) | {"url": None})
    assert read == config


def test_sources_are_tried_in_timms_order():
    config = WeightsConfig.from_dict({"url": "https://x/a.pth", "hf_hub_id": "o/n@rev", "file": "/f.pth"})
    assert config.sources == ("file:/f.pth", "hf-hub:o/n@rev", "https://x/a.pth")
    assert (config.file, config.hf_hub_id, config.url) == ("/f.pth", "o/n@rev", "https://x/a.pth")
    assert config.source == "file"
    assert config.has_weights and not WeightsConfig().has_weights and WeightsConfig().source is None
    named = WeightsConfig.from_dict({"url": ["https://x/a", "a.pth"]})
    assert named.sources == ("https://x/a",) and named.filename == "a.pth" and named.hf_hub_filename is None
    assert WeightsConfig.from_dict({"hf_hub_id": "o/n", "hf_hub_filename": "w.bin"}).hf_hub_filename == "w.bin"
    assert WeightsConfig.from_dict({"sources": "file:/f.pth"}).sources == ("file:/f.pth",)


def test_null_stands_for_the_default():
    config = WeightsConfig.from_dict({"crop_pct": None, "metrics": None, "license": None, "sources": None})
    assert config == WeightsConfig()


def test_unknown_fields():
    with pytest.raises(ConfigError, match="unknown field 'input_sise' in a weights config; did you mean 'input_size'"):
        WeightsConfig.from_dict({"input_sise": (3, 224, 224)})
    assert WeightsConfig.from_dict({"input_sise": 1, "crop_pct": 1.0}, strict=False) == WeightsConfig(crop_pct=1.0)


@pytest.mark.parametrize(("fields", "message"), [
    ({"input_size": 224}, "input_size 224 is not 3 values, each an int"),
    ({"input_size": [3, 224]}, "is not"),
    ({"input_size": [3, 224, 10**9]}, "of a possible image"),
    ({"test_input_size": [0, 224, 224]}, "test_input_size"),
    ({"num_classes": "many"}, "num_classes 'many' is not an int"),
    ({"num_classes": True}, "num_classes True is not an int"),
    ({"paper_ids": {"arxiv": 1}}, "paper_ids .* is not a str or a list, each item a str"),
    ({"label_offset": -1}, "label_offset -1 is not a number of classes"),
    ({"resize_size": [256, 0]}, r"resize_size \(256, 0\) is not a size in pixels"),
    ({"interpolation": "nicest"}, "interpolation 'nicest' is none of nearest, bilinear"),
    ({"num_classes": 10**9}, "num_classes"),
    ({"mean": 0.5}, "mean 0.5 is not a list, each item a number"),
    ({"std": ["a"]}, "std"),
    ({"crop_pct": 0}, "crop_pct 0 is not a share of the image"),
    ({"crop_mode": "middle"}, "crop_mode 'middle' is none of center, squash, border"),
    ({"preprocessing": "keras"}, "preprocessing 'keras' is none of timm, torchvision"),
    ({"metrics": 80.1}, "metrics 80.1 is not a mapping"),
    ({"model_args": "x"}, "model_args 'x' is not a mapping"),
    ({"sources": ["ftp://x/y"]}, "'ftp://x/y' is not a source of weights; one begins with hf-hub:, https://"),
    ({"sources": [5]}, "5 is not a source of weights"),
])
def test_values_that_cannot_be(fields, message):
    with pytest.raises(ConfigError, match=message):
        WeightsConfig.from_dict(fields)


def test_own_fields_are_fields():
    assert set(OWN_FIELDS) <= {f.name for f in dataclasses.fields(WeightsConfig)}


def test_as_configs():
    configs = as_configs("net", {"a": {"sources": ["hf-hub:them/", "hf-hub:them/other"]}, "": WeightsConfig()})
    assert configs["a"].sources == ("hf-hub:them/net.a", "hf-hub:them/other")
    assert (configs["a"].architecture, configs["a"].tag, configs[""].tag, configs[""].name) == ("net", "a", None, "net")
    assert as_configs("net", [WeightsConfig(tag="b"), WeightsConfig()]).keys() == {"b", ""}


# Catalogs ------------------------------------------------------------------------------------------------------------

def test_an_entry_says_only_what_is_its_own(tmp_path):
    catalog = load_catalog(write(tmp_path, """
        defaults: {license: mit, crop_pct: 0.9, first_conv: stem}
        aliases: {other: net.a}
        deprecated: {old: net, gone: null}
        architectures:
          net:
            defaults: {crop_pct: 0.8, mean: [0.5, 0.5, 0.5]}
            tags:
              a: {sources: ["hf-hub:them/", "https://x/y.pth"]}
              b: {crop_pct: 1.0, license: null}
              2024: {}
              '': {}
          bare: {}
    """))
    a, b = catalog.configs["net"]["a"], catalog.configs["net"]["b"]
    assert list(catalog.configs["net"]) == ["a", "b", "2024", ""]
    assert a.sources == ("hf-hub:them/net.a", "https://x/y.pth")
    assert (a.license, a.crop_pct, a.mean, a.first_conv) == ("mit", 0.8, (0.5, 0.5, 0.5), "stem")
    assert (b.license, b.crop_pct) == (None, 1.0)
    assert catalog.configs["net"][""].name == "net" and catalog.configs["bare"] == {}
    assert catalog.aliases == {"other": "net.a"} and catalog.deprecated == {"old": "net", "gone": None}
    assert [config.name for config in catalog] == ["net.a", "net.b", "net.2024", "net"]
    assert read_entries(catalog.path)[0]["net"]["b"] == \
        {"license": None, "crop_pct": 1.0, "first_conv": "stem", "mean": [0.5, 0.5, 0.5]}


@pytest.mark.parametrize(("text", "message"), [
    ("[1, 2]", "the catalog is a list, not a mapping"),
    ("a: [", "not valid YAML"),
    ("architecture: {}", "unknown key 'architecture' in the catalog; known: defaults, aliases, deprecated"),
    ("architectures: [net]", "'architectures' of the catalog is a list"),
    ("architectures: {net: {tag: {}}}", "unknown key 'tag' in 'net'; known: defaults, tags"),
    ("architectures: {net: {tags: {a: 5}}}", "'net.a' is a int, not a mapping"),
    ("architectures: {net: {tags: {a: {crop: 1}}}}", "net.a: unknown field 'crop'"),
    ("architectures: {net: {tags: {a: {sources: [x]}}}}", "net.a: 'x' is not a source"),
    ("defaults: {mean: 1}\narchitectures: {net: {tags: {a: {}}}}", "net.a: mean 1 is not a list"),
    ("aliases: {x: null}", "aliases: 'x' stands for None, which is not a model name"),
    ("deprecated: {x: 5}", "deprecated: 'x' stands for 5"),
    ("!!python/object/apply:os.system ['true']", "not valid YAML"),
])
def test_what_is_no_catalog(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=message) as error:
        load_catalog(path)
    assert str(path) in str(error.value)


def test_a_catalog_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="none.yaml: cannot read the catalog: No such file"):
        load_catalog(tmp_path / "none.yaml")
