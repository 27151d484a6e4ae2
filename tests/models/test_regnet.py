"""RegNet against timm and torchvision: widths, options, pruning, initial weights, foreign checkpoints."""

import math
import re

import pytest
import timm
import torch
import torchvision
from timm.models.regnet import _filter_fn

from mvlib import registry
from mvlib.layers.drop import DropPath
from mvlib.loading import load_weights
from mvlib.models import regnet
from mvlib.models.regnet import PreBottleneck, RegNet, block_widths, fit_to_groups
from tests.parity import harness
from tests.skeleton import skeletons

TIMM_NAMES = timm.list_models(module="regnet")
TORCHVISION = {  # builder -> architecture
    "regnet_x_400mf": "regnetx_004_tv", "regnet_x_800mf": "regnetx_008", "regnet_x_1_6gf": "regnetx_016",
    "regnet_x_3_2gf": "regnetx_032", "regnet_x_8gf": "regnetx_080", "regnet_x_16gf": "regnetx_160",
    "regnet_x_32gf": "regnetx_320", "regnet_y_400mf": "regnety_004", "regnet_y_800mf": "regnety_008_tv",
    "regnet_y_1_6gf": "regnety_016", "regnet_y_3_2gf": "regnety_032", "regnet_y_8gf": "regnety_080_tv",
    "regnet_y_16gf": "regnety_160", "regnet_y_32gf": "regnety_320", "regnet_y_128gf": "regnety_1280",
}
SMALL = ("400mf", "800mf", "1_6gf", "3_2gf", "_8gf")


def build(name, **kwargs):
    return getattr(regnet, name)(**kwargs)


def pair(name, size=64, **kwargs):
    """timm's model and ours with the same random weights, in eval mode, and an image for them."""
    theirs, ours = timm.create_model(name, **kwargs), build(name, **kwargs).eval()
    image = harness.random_image(size, theirs.in_chans)
    harness.randomize(theirs, image)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours, image


def layout(model):
    return {key: value.shape for key, value in model.state_dict().items()}


def widths_of(model):
    return model.num_features, model.head_hidden_size


# --- timm's architectures


def test_every_architecture_of_timm_is_here():
    assert len(TIMM_NAMES) == 36
    assert set(TIMM_NAMES) <= set(registry.list_models(module="regnet"))


@pytest.mark.parametrize(("name", "size", "kwargs"), [
    ("regnetx_002", 75, dict(output_stride=16)),
    ("regnety_002", 64, dict(output_stride=8, global_pool="catavgmax", in_chans=5)),
    ("regnety_002", 65, dict(output_stride=8, downsample="avg")),  # pooled shortcuts that keep the size
    ("regnety_002", 75, dict(downsample="avg", act_layer="silu", stem_width=24)),
    ("regnety_002", 64, dict(downsample="", linear_out=True, bottle_ratio=2.0)),
    ("regnetx_004", 64, dict(group_min_ratio=0.9, w0=32, group_size=24)),
    ("regnety_002", 64, dict(num_features=48, global_pool="avgmax")),
    ("regnety_002", 64, dict(preact=True, downsample="avg", output_stride=8)),
    ("regnety_002", 64, dict(preact=True, num_features=48, num_classes=0)),
    ("regnety_002", 64, dict(num_classes=0, global_pool="")),
])
def test_arguments_have_timms_effect(name, size, kwargs):
    theirs, ours, image = pair(name, size, **kwargs)
    with torch.no_grad():
        assert harness.relative_difference(ours(image), theirs(image)) < 1e-5
        taps = [model.forward_intermediates(image, intermediates_only=True) for model in (ours, theirs)]
        for one, other in zip(*taps, strict=True):
            assert harness.relative_difference(one, other) < 1e-5
    assert [info["reduction"] for info in ours.feature_info] == [info["reduction"] for info in theirs.feature_info]
    assert widths_of(ours) == widths_of(theirs)


@pytest.mark.parametrize("key", [
    "stem.bn.running_mean", "s1.b1.downsample.conv.weight", "s2.b1.conv2.conv.weight", "s3.b2.se.fc1.bias",
    "s4.b1.downsample.bn.weight", "s4.b2.conv3.bn.running_var", "head.fc.bias",
])
def test_the_comparison_notices_every_kind_of_weight(key):
    theirs, ours, image = pair("regnety_002")
    state_dict = ours.state_dict()
    state_dict[key] = state_dict[key] * 1.05
    ours.load_state_dict(state_dict)
    with torch.no_grad():
        assert harness.relative_difference(ours(image), theirs(image)) > 1e-5


def test_stochastic_depth_is_timms():
    kwargs = dict(drop_path_rate=0.3, drop_rate=0.2)
    theirs, ours = timm.create_model("regnetz_005", **kwargs), build("regnetz_005", **kwargs)
    rates = [[(name, m.drop_prob) for name, m in model.named_modules() if type(m).__name__ == "DropPath"]
             for model in (ours, theirs)]
    assert [name for name, _ in rates[0]] == [name for name, _ in rates[1]]
    assert [rate for _, rate in rates[0]] == pytest.approx([rate for _, rate in rates[1]])
    assert isinstance(ours.s4.b1.drop_path, DropPath) and ours.head.drop.p == 0.2


@pytest.mark.parametrize("name", ["regnety_002", "regnetz_005", "regnetv_040"])
@pytest.mark.parametrize("indices", [[0], [1], [0, 2], 2])
def test_stopping_early_gives_timms_features(name, indices):
    theirs, ours, image = pair(name)
    with torch.no_grad():
        (final, taps), (expected, expected_taps) = [
            model.forward_intermediates(image, indices=indices, stop_early=True) for model in (ours, theirs)]
    assert harness.relative_difference(final, expected) < 1e-5
    for one, other in zip(taps, expected_taps, strict=True):
        assert harness.relative_difference(one, other) < 1e-5


@pytest.mark.parametrize("name", ["regnety_002", "regnetz_005", "regnetv_040"])  # behind s4: nothing, conv, activation
@pytest.mark.parametrize("arguments", [
    dict(indices=[0]), dict(indices=[1, 3]), dict(indices=1), dict(indices=1, prune_head=False),
    dict(indices=1, prune_norm=True, prune_head=False), dict(indices=[2], prune_head=False),
])
def test_pruning_to_features_equals_timms(name, arguments):
    theirs, ours, image = pair(name)
    assert ours.prune_intermediate_layers(**arguments) == theirs.prune_intermediate_layers(**arguments)
    assert layout(ours) == layout(theirs)
    assert widths_of(ours) == widths_of(theirs)
    with torch.no_grad():
        assert harness.relative_difference(ours(image), theirs(image)) < 1e-5


@pytest.mark.parametrize("name", ["regnety_002", "regnetv_040"])
def test_checkpointing_changes_nothing_but_memory(name):
    plain, checkpointed = build(name, num_classes=7).eval(), build(name, num_classes=7).eval()
    checkpointed.load_state_dict(plain.state_dict())
    checkpointed.set_grad_checkpointing()
    image, stored = harness.random_image(64), []
    for model in (plain, checkpointed):
        count = [0]

        def pack(tensor, count=count):
            count[0] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            out = model(image)
        out.square().sum().backward()
        stored.append(count[0])
    assert stored[1] < stored[0] / 2
    for (key, one), other in zip(plain.named_parameters(), checkpointed.parameters()):
        assert torch.equal(one.grad, other.grad), key


@pytest.mark.parametrize("name", ["regnetx_002", "regnetz_005", "regnetv_064"])
def test_traces_and_exports(name):
    model, image = build(name, num_classes=7).eval(), harness.random_image(64)
    harness.randomize(model, image)
    with torch.no_grad():
        expected = model(image)
        assert torch.equal(torch.fx.symbolic_trace(model)(image), expected)
        exported = torch.export.export(model, (image,), strict=False).module()
        assert torch.allclose(exported(image), expected, rtol=1e-5, atol=1e-6)


# --- widths and initial weights


def test_widths_are_the_papers():
    assert block_widths(13, 24, 36.44, 2.49) == [24, 56, *[152] * 4, *[368] * 7]  # RegNetX-200MF
    assert fit_to_groups(72, 16, 1.0, 0.0) == (64, 16)  # half of the way, to the even multiple
    assert fit_to_groups(72, 16, 1.0, 0.9) == (80, 16)  # where 64 would be less than nine tenths
    assert fit_to_groups(40, 120, 1.0, 0.0) == (40, 40)


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(output_stride=4), "output_stride is 8, 16 or 32, not 4"),
    (dict(downsample="max"), "unknown downsample 'max'; known: 'conv1x1', 'avg'"),
    (dict(depth=3), "RegNet has 4 stages, but depth=3, w0=80, wa=42.63, wm=2.66 make "),
    (dict(w0=81), "needs wa >= 0, wm > 1 and w0 a multiple of 8, not wa=42.63, wm=2.66, w0=81"),
    (dict(wm=1.0), "not wa=42.63, wm=1.0, w0=80"),
    (dict(global_pool="mean"), "unknown global_pool 'mean'"),
    (dict(act_layer="rely"), "unknown activation 'rely'"),
])
def test_bad_arguments_are_named(kwargs, message):
    with torch.device("meta"), pytest.raises(ValueError, match=re.escape(message)):
        RegNet(**kwargs)


def test_initial_weights_are_timms_distributions():
    model = build("regnety_040", num_classes=2000)
    conv = model.s4.b2.conv2.conv
    fan_out = 9 * conv.out_channels // conv.groups
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.01)
    assert model.head.fc.weight.std().item() == pytest.approx(0.01, rel=0.01)
    assert not model.head.fc.bias.any() and not model.s1.b1.se.fc1.bias.any()
    blocks = [block for stage in (model.s1, model.s2, model.s3, model.s4) for block in stage]
    assert all((block.conv3.bn.weight == 0).all() and (block.conv2.bn.weight == 1).all() for block in blocks)
    assert all((block.conv3.bn.weight == 1).all() for block in build("regnetz_005").s4)
    preact = build("regnetv_040").s4
    assert all(isinstance(block, PreBottleneck) and (block.norm3.weight == 1).all() for block in preact)


@pytest.mark.parametrize("name", ["regnetx_002", "regnetz_005", "regnetv_040"])
def test_a_model_from_the_meta_device_is_complete(name):
    with skeletons():
        model = build(name)
    model.to_empty(device="cpu")
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data.fill_(-7)
    model.init_weights()
    assert not any((tensor == -7).any() for tensor in (*model.parameters(), *model.buffers()))


# --- torchvision


def torchvision_pair(builder, image):
    theirs = getattr(torchvision.models, builder)()
    harness.randomize(theirs, image)
    with skeletons():
        ours = build(TORCHVISION[builder])
    load_weights(ours, theirs.state_dict())  # shares memory with theirs
    return theirs, ours.eval()


@pytest.fixture
def meta_torchvision(monkeypatch):
    """Builders that work on the meta device: torchvision computes widths with tensors and reads them."""
    def build_on_meta(*args, whole=torchvision.models.RegNet, **kwargs):
        with skeletons():
            return whole(*args, **kwargs)

    monkeypatch.setattr(torchvision.models.regnet, "RegNet", build_on_meta)
    return torchvision.models.get_model


@pytest.mark.parametrize("builder", TORCHVISION)
def test_torchvisions_keys_become_ours(meta_torchvision, builder):
    theirs = meta_torchvision(builder)
    with skeletons():
        ours = build(TORCHVISION[builder])
    key_map = regnet.RegNet.key_maps[0]
    assert key_map.name == "torchvision" and key_map.matches(theirs.state_dict())
    assert not any(other.matches(theirs.state_dict()) for other in regnet.RegNet.key_maps[1:])
    assert not any(other.matches(ours.state_dict()) for other in regnet.RegNet.key_maps)
    converted = key_map.convert(theirs.state_dict(), ours)
    assert {key: value.shape for key, value in converted.items()} == layout(ours)
    assert list(_filter_fn(theirs.state_dict())) == list(converted)


def test_all_of_torchvisions_builders_are_named():
    assert sorted(TORCHVISION) == torchvision.models.list_models(include="regnet_*", module=torchvision.models)


@pytest.mark.parametrize("builder", [
    pytest.param(builder, marks=[] if builder.endswith(SMALL) else pytest.mark.slow) for builder in TORCHVISION])
def test_torchvision_has_the_same_outputs(builder):
    image = harness.random_image(64)
    theirs, ours = torchvision_pair(builder, image)
    with torch.inference_mode():
        expected = theirs(image)
        assert expected.std() > 1e-3
        assert harness.relative_difference(ours(image), expected) < 1e-5


# --- ClassyVision and VISSL


def to_classy(state_dict):
    """torchvision's state dict as trunk and heads of a SEER checkpoint."""
    trunk, heads = {}, {"0.projection_head.weight": torch.ones(1), "0.prototypes0.weight": torch.ones(1)}
    for key, value in state_dict.items():
        if key.startswith("fc."):
            heads[key.replace("fc.", "0.clf.0.")] = value
            continue
        key = re.sub(r"^trunk_output\.block(\d)", lambda match: f"_feature_blocks.res{int(match[1]) + 1}", key)
        for old, new in ((r"^stem", "_feature_blocks.conv1.stem"), (r"\.proj\.0", ".proj"), (r"\.proj\.1", ".bn"),
                         (r"\.f\.c\.0", ".f.c"), (r"\.f\.c\.1", ".f.final_bn"), (r"\.se\.fc1", ".se.excitation.0"),
                         (r"\.se\.fc2", ".se.excitation.2")):
            key = re.sub(old, new, key)
        trunk[key] = value
    return trunk, heads


def as_checkpoint(trunk, heads):
    return {"classy_state_dict": {"base_model": {"model": {"trunk": trunk, "heads": heads}}}, "iteration": 7}


def as_prefixed(trunk, heads):
    return {**{f"trunk.{key}": value for key, value in trunk.items()},
            **{f"heads.{key}": value for key, value in heads.items()}}


@pytest.mark.parametrize("form", [
    as_checkpoint, as_prefixed, lambda trunk, heads: dict(trunk=trunk, heads=heads),
    lambda trunk, heads: {**trunk, **heads},
], ids=["checkpoint", "prefixed", "nested", "flat"])
def test_classy_checkpoints_load(form):
    image = harness.random_image(64)
    theirs, _ = torchvision_pair("regnet_y_400mf", image)
    trunk, heads = to_classy(theirs.state_dict())
    assert "_feature_blocks.res2.block1-0.f.final_bn.weight" in trunk
    with skeletons():
        ours = build("regnety_004")
    load_weights(ours, form(trunk, heads))
    assert list(ours.state_dict()) == list(build("regnety_004").state_dict())
    assert set(_filter_fn(as_checkpoint(trunk, heads))) == set(ours.state_dict())
    with torch.inference_mode():
        assert harness.relative_difference(ours.eval()(image), theirs(image)) < 1e-5


def test_a_pretrained_trunk_has_no_classifier(meta_torchvision):
    trunk, _ = to_classy(meta_torchvision("regnet_y_400mf").state_dict())
    with skeletons():
        ours = build("regnety_004", num_classes=0)
    load_weights(ours, {key: torch.zeros(value.shape) for key, value in trunk.items()})
    assert not any(parameter.is_meta for parameter in ours.parameters())
