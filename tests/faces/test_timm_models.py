"""timm's face: family modules. Their names mean what timm's do, and their models have what model code touches."""

import functools
import importlib
import inspect

import pytest
import timm as real
import torch
from torch import nn

import mvlib
import mvlib.timm as timm
from mvlib.errors import UnknownNameError
from mvlib.timm import tables
from mvlib.timm.tables import models as table
from tests.models import pairs
from tests.parity.harness import TOLERANCE, relative_difference
from tests.parity.representatives import FIRST, REPRESENTATIVES

FAMILIES = [path.removeprefix("models.") for path in table.NAMES if path.startswith("models.") and "._" not in path]


def theirs(family):
    return importlib.import_module(f"timm.models.{family}")


def ours(family):
    return importlib.import_module(f"mvlib.timm.models.{family}")


def own_names(family):
    """What timm's module defines and offers besides entrypoints."""
    module = theirs(family)
    return {name: value for name, value in vars(module).items()
            if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__ and
            callable(value) and not real.is_model(name)}


def parameters(function):
    function = function.__init__ if inspect.isclass(function) else function
    return [p for p in inspect.signature(function).parameters.values() if p.name not in ("self", "device", "dtype")]


# names


@pytest.mark.parametrize("family", FAMILIES)
def test_names_are_there_or_said_to_be_absent(family):
    offered = {name.partition("=")[0] for row in table.NAMES[f"models.{family}"].values() for name in row.split()}
    absent = {path.rpartition(".")[2] for path in tables.absences() if path.rpartition(".")[0] == f"models.{family}"}
    assert not offered & absent and (offered | absent) <= set(dir(theirs(family)))
    if family != "_efficientnet_builder":
        assert set(own_names(family)) <= offered | absent
    for name in offered:
        value, expected = getattr(ours(family), name), getattr(theirs(family), name)
        assert inspect.isclass(value) == inspect.isclass(expected) and callable(value) == callable(expected), name
    for name in absent:
        with pytest.raises(AttributeError, match=f"has no '{name}': "):
            getattr(ours(family), name)


# Arguments of constructors that are not here.
LACKING = {
    "CoaT": "out_features return_interm_layers",
    "FastVit": "fork_feat",
    "PoolingVisionTransformer": "distilled", "Twins": "block_cls",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_constructors_are_timms(family):
    """The same arguments by position, and by name; further ones come last."""
    for name, expected in own_names(family).items():
        if tables.absent(f"models.{family}.{name}") or family == "_efficientnet_builder":
            continue
        found = parameters(getattr(ours(family), name))
        known = [p.name for p in found]
        takes_more = any(p.kind is p.VAR_KEYWORD for p in found)
        wanted = [p.name for p in parameters(expected) if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
        lacking = [key for key in wanted if key not in known]
        assert takes_more or lacking == sorted(LACKING.get(name, "").split(), key=wanted.index), name
        by_position = [p.name for p in found if p.kind is p.POSITIONAL_OR_KEYWORD]
        agreed = wanted[:wanted.index(lacking[0])] if lacking else wanted
        assert by_position[:len(agreed)] == agreed[:len(by_position)], name
        assert takes_more or len(by_position) >= len(agreed), name


def test_a_familys_module_has_what_timms_imports():
    from mvlib.timm.models.resnet import DropBlock2d, build_model_with_cfg, register_model
    from mvlib.timm.models.vision_transformer import (
        IMAGENET_DEFAULT_MEAN,
        Attention,
        DropPath,
        Mlp,
        PatchEmbed,
        _cfg,
        lecun_normal_,
        trunc_normal_,
    )

    assert PatchEmbed is timm.layers.PatchEmbed and DropPath is timm.layers.DropPath and Mlp is timm.layers.Mlp
    assert Attention is timm.layers.Attention and DropBlock2d is timm.layers.DropBlock2d
    assert IMAGENET_DEFAULT_MEAN == real.data.IMAGENET_DEFAULT_MEAN and callable(lecun_normal_)
    assert register_model is timm.models.register_model and callable(build_model_with_cfg) and callable(trunc_normal_)
    assert _cfg()["first_conv"] == "patch_embed.proj"
    with pytest.raises(AttributeError, match="has no 'NoSuchLayer'"):
        _ = ours("resnet").NoSuchLayer


# configs, building, loading


@pytest.mark.parametrize("family", [name for name in FAMILIES if hasattr(theirs(name), "_cfg")])
def test_cfg(family):
    given = dict(url="https://example.com/x.pth", num_classes=5)
    found, expected = ours(family)._cfg(**given), theirs(family)._cfg(**given)
    if family == "nest":
        expected["pool_size"] = tuple(expected["pool_size"])
    for key in ("mean", "std"):  # DPN's are fractions
        assert found.pop(key) == pytest.approx(expected.pop(key))
    assert found == expected


@pytest.mark.parametrize("family", ["resnet", "vision_transformer", "convnext"])
def test_default_cfgs(family):
    found, expected = ours(family).default_cfgs, theirs(family).default_cfgs
    for name, default in expected.items():
        if real.is_model(name):
            assert default.cfgs.keys() <= found[name].cfgs.keys(), name
            assert found[name].default_with_tag[0] == default.default_with_tag[0]
            for key in ("input_size", "mean", "crop_pct", "interpolation", "num_classes", "classifier", "first_conv"):
                assert getattr(found[name].default, key) == getattr(default.default, key), (name, key)


def test_creators():
    """`_create_resnet` and its like: a name of one's own, timm's arguments, features."""
    kwargs = dict(block=ours("resnet").BasicBlock, layers=[1, 1, 1, 1], channels=(8, 8, 16, 16), num_classes=3)
    model = ours("resnet")._create_resnet("resnet18", pretrained=False, **kwargs)
    assert isinstance(model, ours("resnet").ResNet) and model.fc.weight.shape == (3, 16)
    assert model.pretrained_cfg["architecture"] == "resnet18"
    features = ours("resnet")._create_resnet("resnet18", features_only=True, **kwargs)
    assert features.feature_info.channels() == [64, 8, 8, 16, 16]
    vit = ours("vision_transformer")._create_vision_transformer(
        "vit_tiny_patch16_224", img_size=32, embed_dim=24, depth=1, num_heads=3, num_classes=4)
    assert vit(torch.zeros(1, 3, 32, 32)).shape == (1, 4)
    distilled = ours("deit")._create_deit(
        "deit_tiny_distilled_patch16_224", distilled=True, img_size=32, embed_dim=24, depth=1, num_heads=3)
    assert isinstance(distilled, ours("deit").VisionTransformerDistilled)
    regnet = ours("regnet")._create_regnet("regnetx_002", False, num_classes=7)
    assert regnet.head.fc.weight.shape[0] == 7


@pytest.mark.parametrize(("variant", "kwargs"), [
    ("levit_128s", {}), ("levit_conv_128s", dict(use_conv=True, distilled=False)),
    ("levit_128", dict(cfg_variant="levit_128s", features_only=True, out_indices=(0, 2))),
    ("levit_conv_128s", dict(use_conv=True, features_only=True)),
], ids=str)
def test_create_levit(variant, kwargs):
    kwargs = dict(kwargs, img_size=64, num_classes=3, depth=(1, 1, 1))
    found, expected = (package.create_levit(variant, **kwargs).eval() for package in (ours("levit"), theirs("levit")))
    if not kwargs.get("features_only"):
        assert type(found).__name__ == type(expected).__name__
    found.load_state_dict(dict(zip(found.state_dict(), expected.state_dict().values(), strict=True)))
    x = torch.randn(1, 3, 64, 64)
    for own, other in zip(*(out if isinstance(out, list) else [out] for out in (found(x), expected(x))), strict=True):
        torch.testing.assert_close(own, other)


def test_an_unknown_levit():
    with pytest.raises(UnknownNameError, match="no LeViT has the name 'levit_129'; did you mean"):
        ours("levit").create_levit("levit_129")


def test_ones_own_network_of_efficientnets_blocks():
    """Decoded, built and initialised by timm's functions, as repositories that forked EfficientNet do it."""
    made = []
    for root in ("mvlib.timm", "timm"):
        builder = importlib.import_module(f"{root}.models._efficientnet_builder")
        build = builder.EfficientNetBuilder(
            16, "same", functools.partial(builder.round_channels, multiplier=0.5), act_layer=nn.SiLU,
            norm_layer=nn.BatchNorm2d, drop_path_rate=0.2, feature_location="expansion")
        model = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), *build(16, builder.decode_arch_def(
            [["ds_r2_k3_s1_c32_se0.25"], ["ir_r1_k3_s2_e2_c48_cc2"], ["uir_r1_a3_k5_s2_e2_c96"]])))
        features, chs = build.features, build.in_chs
        model.extend(builder.EfficientNetBuilder(act_layer=nn.ReLU, norm_layer=nn.BatchNorm2d, se_layer="gc")(
            chs, builder.decode_arch_def(
                [["ds_r1_k3_s1_c64_se0.25"], ["mqa_r1_k3_h2_s1_d8_c64", "er_r1_k3_s2_e2_c64"]])))
        nn.init.zeros_(model[1][0].bn1.weight)
        torch.manual_seed(0)
        builder.efficientnet_init_weights(model)
        builder.efficientnet_init_weights(model, lambda module, name: name == "0" and nn.init.ones_(module.bias))
        made.append((model.eval(), features, [block.drop_path for block in model[1]], chs))
    (own, *about), (other, *expected) = made
    assert about[0] == expected[0] and about[2] == expected[2] == 48
    assert [getattr(drop, "drop_prob", 0.0) for drop in about[1]] == [
        getattr(drop, "drop_prob", 0.0) for drop in expected[1]]
    for (key, value), (other_key, wanted) in zip(own.state_dict().items(), other.state_dict().items(), strict=True):
        assert key == other_key and torch.equal(value, wanted)  # the same numbers are drawn, in the same order
    pairs.assert_same(own, other, pairs.image(32))


def test_an_efficientnet_of_ones_own():
    """By timm's builder functions, as EfficientNet's own module does it."""
    models = []
    for root in ("mvlib.timm", "timm"):
        builder, family = (importlib.import_module(f"{root}.models.{name}")
                           for name in ("_efficientnet_builder", "efficientnet"))
        models.append(family.EfficientNet(
            builder.decode_arch_def([["ds_r1_k3_s1_e1_c16_se0.25"], ["ir_r2_k3_s2_e4_c24_noskip"]], 1.5), 5, 64,
            stem_size=24, round_chs_fn=functools.partial(builder.round_channels, multiplier=0.5),
            act_layer=nn.SiLU, norm_layer=functools.partial(nn.BatchNorm2d, eps=1e-3)))
    own, other = (model.eval() for model in models)
    own.load_state_dict(other.state_dict())
    assert own.conv_stem.out_channels == 16 and own.blocks[1][1].bn1.eps == 1e-3
    pairs.assert_same(own, other, pairs.image(32))


def test_checkpoint_filter_fn():
    small = dict(num_classes=5, embed_dim=24, depth=1, num_heads=3)
    source = real.models.VisionTransformer(img_size=32, patch_size=8, **small)
    sizes = dict(img_size=64, patch_size=16, **small)
    own, other = ours("vision_transformer").VisionTransformer(**sizes), real.models.VisionTransformer(**sizes)
    for options in ({}, dict(interpolation="bilinear", antialias=False)):
        found = ours("vision_transformer").checkpoint_filter_fn({"model": source.state_dict()}, own, **options)
        expected = theirs("vision_transformer").checkpoint_filter_fn(source.state_dict(), other, **options)
        assert found.keys() == expected.keys()
        assert all(relative_difference(found[key], value) < TOLERANCE for key, value in expected.items())
    assert own.resampling["interpolation"] == "bicubic"


# functions


@pytest.mark.parametrize("mode", ["", "jax", "jax_nlhb", "moco", "reset"])
def test_initial_weights_of_vision_transformers(mode):
    """Of the same distributions as timm's, and the same layers."""
    model = nn.Sequential()
    for name, layer in (("head", nn.Linear(100, 90)), ("qkv", nn.Linear(100, 90)), ("mlp", nn.Linear(100, 400)),
                        ("conv", nn.Conv2d(30, 40, 3)), ("norm", nn.LayerNorm(6))):
        model.add_module(name, layer)
    drawn = []
    for module in (ours("vision_transformer"), theirs("vision_transformer")):
        torch.manual_seed(0)
        for parameter in model.parameters():
            nn.init.constant_(parameter, 0.7)
        real.models.named_apply(module.get_init_weights_vit(mode, head_bias=-2.0), model)
        drawn.append({key: value.clone() for key, value in model.state_dict().items()})
    for key, value in drawn[1].items():
        found = drawn[0][key]
        assert found.std().item() == pytest.approx(value.std().item(), rel=0.2, abs=1e-9), key
        assert found.mean().item() == pytest.approx(value.mean().item(), rel=1e-6, abs=0.2 * value.std().item()), key


def test_helpers_of_families():
    for name, family, arguments in (
            ("get_relative_position_index", "swin_transformer", (3, 5)),
            ("window_reverse", "swin_transformer_v2", (torch.randn(8, 2, 3, 5), (2, 3), (4, 6))),
            ("window_reverse", "maxxvit", (torch.randn(8, 2, 3, 5), (2, 3), (4, 6))),
            ("global_pool_nlc", "vision_transformer", (torch.randn(2, 5, 8), "avg"))):
        assert torch.equal(*(getattr(module, name)(*arguments) for module in (ours(family), theirs(family)))), name
    embedding, new = torch.randn(1, 17, 8), torch.empty(1, 26, 8)
    found, expected = (module.resize_pos_embed(embedding, new)
                       for module in (ours("vision_transformer"), theirs("vision_transformer")))
    assert relative_difference(found, expected) < TOLERANCE
    assert ours("vgg").cfgs == {name: tuple(cfg) for name, cfg in theirs("vgg").cfgs.items()}


def test_google_s_arrays_load(tmp_path):
    import numpy

    sizes = dict(img_size=32, patch_size=16, num_classes=5, embed_dim=8, depth=1, num_heads=2)
    own, other = ours("vision_transformer").VisionTransformer(**sizes), real.models.VisionTransformer(**sizes)
    generator = numpy.random.default_rng(0)
    block = "Transformer/encoderblock_0/"
    attention = f"{block}MultiHeadDotProductAttention_1/"
    shapes = {
        "embedding/kernel": (16, 16, 3, 8), "embedding/bias": (8,), "cls": (1, 1, 8),
        "Transformer/posembed_input/pos_embedding": (1, 5, 8), "Transformer/encoder_norm/scale": (8,),
        "Transformer/encoder_norm/bias": (8,), f"{attention}out/kernel": (2, 4, 8), f"{attention}out/bias": (8,),
        **{f"{attention}{part}/kernel": (8, 2, 4) for part in ("query", "key", "value")},
        **{f"{attention}{part}/bias": (2, 4) for part in ("query", "key", "value")},
        **{f"{block}LayerNorm_{i}/{kind}": (8,) for i in (0, 2) for kind in ("scale", "bias")},
        f"{block}MlpBlock_3/Dense_0/kernel": (8, 32), f"{block}MlpBlock_3/Dense_0/bias": (32,),
        f"{block}MlpBlock_3/Dense_1/kernel": (32, 8), f"{block}MlpBlock_3/Dense_1/bias": (8,),
        "head/kernel": (8, 5), "head/bias": (5,),
    }
    path = tmp_path / "arrays.npz"
    numpy.savez(path, **{key: generator.standard_normal(shape).astype("float32") for key, shape in shapes.items()})
    ours("vision_transformer")._load_weights(own, str(path))
    theirs("vision_transformer")._load_weights(other, str(path))
    pairs.assert_same(own.eval(), other.eval(), pairs.image(32))
    with pytest.raises(ValueError, match="save them as float32"):
        ours("vision_transformer")._load_weights(own, str(path), load_bfloat16=True)


# what model code touches

# Attributes of a model and of the modules in it, by the class that has them in timm; methods, by their arguments.
OTHERWISE = {
    "pretrained_model_args": "the model's own `model_args` are what builds it again",
    "as_sequential": "an old export of convolutional models; `flow` says the order",
    "load_pretrained": "meanings.families reads .npz files",
    "feature_ends": "as `stage_ends`", "use_norm": "VGG's norms are modules of `features`",
    "stage_ends": "where EfficientNet's features stand; `feature_info` says it",
    "T_destination": "torch's",
}
# Methods whose arguments are those that each family of timm's has: ours take them all, or what they share.
DIFFERENT = ("reset_classifier", "forward_intermediates", "init_weights", "_init_weights")
TOUCHED = ("resnet", "vision_transformer", "deit", "swin_transformer", "convnext", "efficientnet", "mobilenetv3", "vgg",
           "densenet", "regnet")


@pytest.mark.parametrize("family", [pytest.param(family, marks=() if family in TOUCHED else pytest.mark.slow)
                                    for family in FIRST if FIRST[family] in real.list_models()])
def test_models_have_timms_attributes_and_methods(family):
    own, other = skeletons(family)
    missing = [name for name in public(other) if not hasattr(own, name) and name not in OTHERWISE]
    if family in TOUCHED:
        assert not missing
    for name in set(public(other)) & set(public(own)):
        value = getattr(other, name)
        if inspect.ismethod(value) and name not in DIFFERENT:
            coats = {"x0": "x", "x_feat": "x"}
            wanted = [coats.get(p.name, p.name) for p in parameters(value) if p.name != "extra_blocks"]
            assert [p.name for p in parameters(getattr(own, name))][:len(wanted)] == wanted, name
        elif isinstance(value, (bool, int, float, str)) and name != "training":
            found = getattr(own, name)  # our sizes are always (height, width); timm's EfficientViT keeps the shorter
            assert found == value or name == "img_size" and min(found) == value, name


@functools.cache
def skeletons(family):
    name = FIRST[family]
    arguments = REPRESENTATIVES[family][name]
    try:
        with torch.device("meta"):
            other = real.create_model(name, **arguments)
    except TypeError:  # timm takes a config in their place
        arguments = {}
        with torch.device("meta"):
            other = real.create_model(name)
    with torch.device("meta"):
        return mvlib.create_model(name, pretrained=False, **arguments), other


def public(model):
    known = set(dir(nn.Module))
    return [name for name in dir(model)
            if name not in known and (not name.startswith("_") or name in ("_pos_embed", "_init_weights")) and
            name not in (*model._modules, *model._parameters, *model._buffers)]


ATTENTIONS = {"vit_tiny_patch16_224": "num_heads head_dim scale fused_attn attn_dim",
              "swin_tiny_patch4_window7_224": "dim num_heads scale window_size window_area"}


@pytest.mark.parametrize("name", ATTENTIONS)
def test_attentions_have_timms_attributes(name):
    family = next(family for family, members in REPRESENTATIVES.items() if name in members)
    own, other = skeletons(family)
    for path, module in other.named_modules():
        if type(module).__name__ in ("Attention", "WindowAttention"):
            for key in ATTENTIONS[name].split():
                assert getattr(own.get_submodule(path), key) == getattr(module, key), (path, key)
