"""ResNet and its relatives against timm and torchvision: keys, values, options, pruned widths, initial weights."""

import inspect
import math

import pytest
import timm
import torch
import torchvision
from timm.layers import BlurPool2d as TimmBlur
from timm.layers import create_attn as timm_create_attn
from timm.models import group_parameters
from torch import nn

import mvlib
from mvlib.layers.channel_attention import EcaModule, SEModule, create_attn, get_attn
from mvlib.models import efficientnet, pruning, resnet
from mvlib.models.pruning import prune_to_widths, pruned_widths
from mvlib.models.resnet import BasicBlock, Bottleneck, ResNet
from tests.skeleton import skeletons

TIMM_NAMES = timm.list_models(module="resnet")
PRUNED = ["ecaresnet50d_pruned", "ecaresnet101d_pruned"]
ONE_EACH = dict(layers=(1, 1, 1, 1))
# One small member for every kind of stem, pool, shortcut, block, norm, attention and anti-aliasing.
SMALL = [
    ("test_resnet", {}), ("resnet10t", {}), ("resnet14t", {}), ("resnet18", {}), ("resnet26d", {}),
    ("resnet50c", ONE_EACH), ("resnet50s", ONE_EACH), ("resnet50_gn", ONE_EACH), ("wide_resnet50_2", ONE_EACH),
    ("resnext50_32x4d", ONE_EACH), ("seresnet18", {}), ("seresnext26t_32x4d", {}), ("senet154", ONE_EACH),
    ("ecaresnet26t", {}), ("ecaresnetlight", ONE_EACH), ("ecaresnet50d_pruned", {}), ("resnetblur18", {}),
    ("resnetblur50d", ONE_EACH), ("resnetaa34d", {}), ("resnetaa50", ONE_EACH), ("seresnetaa50d", ONE_EACH),
    ("resnetrs50", ONE_EACH),
]


def build(name, **kwargs):
    return getattr(resnet, name)(**kwargs)


def randomize(model, seed=0):
    """Random values everywhere, so that equal outputs mean equal use of each; returns the state dict."""
    generator = torch.Generator().manual_seed(seed)
    state_dict = {}
    for key, value in model.state_dict().items():
        noise = torch.randn(value.shape, generator=generator)
        if not value.is_floating_point():
            state_dict[key] = value
        elif key.endswith("running_var"):
            state_dict[key] = 0.5 + noise.abs()
        elif value.ndim > 1:
            state_dict[key] = noise * (1.5 / value[0].numel()) ** 0.5
        else:
            state_dict[key] = noise * 0.2 + (0.0 if key.endswith(("bias", "running_mean")) else 1.0)
    model.load_state_dict(state_dict)
    return state_dict


def pair(name, **kwargs):
    """timm's model and ours with the same random weights, in eval mode."""
    theirs, ours = timm.create_model(name, **kwargs).eval(), build(name, **kwargs).eval()
    ours.load_state_dict(randomize(theirs))
    return theirs, ours


def image(size=64, batch=2, chans=3):
    return torch.randn(batch, chans, size, size, generator=torch.Generator().manual_seed(1))


def difference(ours, theirs):
    assert ours.shape == theirs.shape
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def described(model):
    return [(info["num_chs"], info["reduction"], info["module"]) for info in model.feature_info]


def layout(model):
    return {key: value.shape for key, value in model.state_dict().items()}


# --- timm's architectures


@pytest.mark.parametrize("name", TIMM_NAMES)
def test_same_keys_shapes_features_and_groups_as_timm(name):
    with skeletons():
        theirs, ours = timm.create_model(name), build(name)
    assert layout(ours) == layout(theirs)
    assert described(ours) == described(theirs)
    assert (ours.num_features, ours.head_hidden_size) == (theirs.num_features, theirs.head_hidden_size)
    epsilons = [[m.eps for m in model.modules() if hasattr(m, "eps")] for model in (ours, theirs)]
    assert epsilons[0] == epsilons[1]
    for coarse in (False, True):
        groups = [group_parameters(model, model.group_matcher(coarse)) for model in (ours, theirs)]
        assert groups[0] == groups[1]


def test_every_architecture_of_timm_is_here():
    assert len(TIMM_NAMES) == 81
    assert set(TIMM_NAMES) <= set(mvlib.list_models(module="resnet"))
    assert "pretrained" not in inspect.signature(ResNet).parameters


@pytest.mark.parametrize(("name", "kwargs"), SMALL, ids=[name for name, _ in SMALL])
def test_same_outputs_and_features_as_timm(name, kwargs):
    theirs, ours = pair(name, num_classes=7, **kwargs)
    x = image()
    with torch.no_grad():
        assert difference(ours(x), theirs(x)) < 1e-5
        for one, other in zip(ours.forward_intermediates(x)[1], theirs.forward_intermediates(x)[1], strict=True):
            assert difference(one, other) < 1e-5


@pytest.mark.parametrize("name", ["test_resnet", "seresnet18", "ecaresnet26t", "resnetblur18"])
def test_same_gradients_as_timm(name):
    theirs, ours = pair(name, num_classes=7)
    for model in (ours, theirs):
        model.double().train()(image().double()).square().sum().backward()  # float64: batch norm amplifies rounding
    expected = {key: p.grad for key, p in theirs.named_parameters()}
    largest = max(gradient.abs().max() for gradient in expected.values())
    for key, parameter in ours.named_parameters():
        assert (parameter.grad - expected[key]).abs().max() < 1e-8 * largest, key


@pytest.mark.parametrize("key", [
    "conv1.0.weight", "bn1.running_mean", "layer1.0.bn1.bias", "layer2.0.downsample.1.weight", "layer3.0.conv2.weight",
    "layer4.0.bn2.weight", "layer4.0.se.conv.weight", "fc.bias",
])
def test_the_comparison_notices_every_kind_of_weight(key):
    theirs, ours = pair("ecaresnet26t", num_classes=7)
    state_dict = ours.state_dict()
    state_dict[key] = state_dict[key] * 1.05
    ours.load_state_dict(state_dict)
    with torch.no_grad():
        assert difference(ours(image()), theirs(image())) > 1e-5


@pytest.mark.parametrize(("name", "size", "kwargs"), [
    ("resnet18", 75, dict(output_stride=16)),
    ("resnet26", 64, dict(output_stride=8)),
    ("resnet26d", 65, dict(output_stride=8)),  # pooled shortcuts that keep the size
    ("senet154", 64, dict(output_stride=8, **ONE_EACH)),  # dilated 3x3 shortcuts
    ("resnetblur18", 64, dict(output_stride=16)),
    ("resnetaa50", 64, dict(output_stride=8, **ONE_EACH)),
    ("resnetrs50", 64, dict(aa_layer=None, output_stride=16, **ONE_EACH)),
    ("resnet10t", 64, dict(global_pool="catavgmax", in_chans=5)),
    ("resnet18", 64, dict(global_pool="avgmax", act_layer="silu", norm_layer="groupnorm")),
    ("resnet10t", 64, dict(num_classes=0, global_pool="")),
    ("test_resnet", 64, dict(channels=(16, 32, 32, 48), stem_type="deep_tiered", block_reduce_first=2)),
    ("resnet10t", 64, dict(block_args=dict(attn_layer="ese"))),
    ("ecaresnet50d_pruned", 64, dict(output_stride=8, global_pool="catavgmax", in_chans=1)),
    ("ecaresnet50d_pruned", 64, dict(num_classes=0)),
])
def test_arguments_have_timms_effect(name, size, kwargs):
    theirs, ours = pair(name, **kwargs)
    x = image(size, chans=kwargs.get("in_chans", 3))
    with torch.no_grad():
        assert difference(ours(x), theirs(x)) < 1e-5
    assert described(ours) == described(theirs)
    assert (ours.num_features, ours.head_hidden_size) == (theirs.num_features, theirs.head_hidden_size)


class TimmBlurZeros(TimmBlur):
    def __init__(self, **kwargs):
        super().__init__(pad_mode="constant", **kwargs)


@pytest.mark.parametrize(("name", "timm_class"), [("blur", TimmBlur), ("blurpc", TimmBlurZeros), ("avg", nn.AvgPool2d)])
@pytest.mark.parametrize("replace_stem_pool", [False, True])
def test_anti_aliasing_by_name_equals_timms_by_class(name, timm_class, replace_stem_pool):
    kwargs = dict(replace_stem_pool=replace_stem_pool, num_classes=7)
    theirs = timm.create_model("resnet10t", aa_layer=timm_class, **kwargs).eval()
    ours = build("resnet10t", aa_layer=name, **kwargs).eval()
    ours.load_state_dict(randomize(theirs))
    with torch.no_grad():
        assert difference(ours(image()), theirs(image())) < 1e-5


def _rates(model):
    return [getattr(block.drop_path, "drop_prob", 0.0) for i in range(1, 5) for block in getattr(model, f"layer{i}")]


def test_stochastic_depth_and_drop_block_are_timms():
    kwargs = dict(drop_path_rate=0.3, drop_block_rate=0.1)
    theirs, ours = timm.create_model("resnet26", **kwargs), build("resnet26", **kwargs)
    assert _rates(ours) == _rates(theirs) and _rates(ours)[-1] == 0.3
    drops = [[(name, m.drop_prob, m.block_size, m.gamma_scale) for name, m in model.named_modules()
              if type(m).__name__ == "DropBlock2d"] for model in (ours, theirs)]
    assert drops[0] == drops[1] and len(drops[0]) == 4


@pytest.mark.parametrize("kwargs", [dict(drop_path_rate=0.5), dict(drop_block_rate=0.5), dict(drop_rate=0.5)])
def test_dropping_happens_in_training_alone(kwargs):
    model = build("resnet26", num_classes=7, norm_layer="groupnorm", **kwargs)  # batch norm would change as it runs
    randomize(model)
    torch.manual_seed(0)
    with torch.no_grad():
        assert not torch.equal(model(image()), model(image()))
        model.eval()
        assert torch.equal(model(image()), model(image()))


# --- features, heads, checkpointing


@pytest.mark.parametrize(("name", "kwargs"), [
    ("resnet10t", {}), ("resnetrs50", ONE_EACH), ("resnetaa50", ONE_EACH), ("ecaresnet50d_pruned", {}),
])
def test_stopping_early_gives_timms_features(name, kwargs):
    theirs, ours = pair(name, **kwargs)
    for indices in ([0], [1], [0, 2], 2):  # 0 lies within the stem, which is finished all the same
        with torch.no_grad():
            results = [m.forward_intermediates(image(), indices=indices, stop_early=True) for m in (ours, theirs)]
        (final, taps), (expected, expected_taps) = results
        assert difference(final, expected) < 1e-5
        for one, other in zip(taps, expected_taps, strict=True):
            assert difference(one, other) < 1e-5


@pytest.mark.parametrize("arguments", [
    dict(indices=[0]), dict(indices=1), dict(indices=[1, 3]), dict(indices=1, prune_head=False), dict(indices=[2]),
])
@pytest.mark.parametrize(("name", "kwargs"), [("resnetrs50", ONE_EACH), ("ecaresnet50d_pruned", {})])
def test_pruning_to_features_equals_timms(name, kwargs, arguments):
    theirs, ours = pair(name, **kwargs)
    assert ours.prune_intermediate_layers(**arguments) == theirs.prune_intermediate_layers(**arguments)
    assert layout(ours) == layout(theirs)
    assert (ours.num_features, ours.head_hidden_size) == (theirs.num_features, theirs.head_hidden_size)
    with torch.no_grad():
        assert difference(ours(image()), theirs(image())) < 1e-5


def test_features_only_gives_timms_maps():
    theirs = timm.create_model("ecaresnet50d_pruned", features_only=True, out_indices=(0, 2, 4)).eval()
    ours = mvlib.create_model("ecaresnet50d_pruned", pretrained=False, features_only=True, out_indices=(0, 2, 4)).eval()
    assert ours.feature_info.channels() == theirs.feature_info.channels()
    whole = build("ecaresnet50d_pruned")
    state_dict = randomize(whole)
    for features in (theirs, ours):
        own = features.state_dict()
        strip = {key: key.removeprefix("model.") for key in own}
        features.load_state_dict({key: state_dict[plain] for key, plain in strip.items()})
    with torch.no_grad():
        for one, other in zip(ours(image()), theirs(image()), strict=True):
            assert difference(one, other) < 1e-5


def test_checkpointing_changes_nothing():
    plain, checkpointed = build("test_resnet", num_classes=7), build("test_resnet", num_classes=7)
    checkpointed.load_state_dict(randomize(plain))
    checkpointed.set_grad_checkpointing()
    for model in (plain, checkpointed):
        model.double().train()(image().double()).square().sum().backward()
    for (key, one), other in zip(checkpointed.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad), key
    # Under checkpointing a stage runs a second time; its running statistics tell.
    assert checkpointed.layer4[0].bn1.num_batches_tracked == 2 and plain.layer4[0].bn1.num_batches_tracked == 1


@pytest.mark.parametrize("name", ["seresnet18", "ecaresnet26t", "resnetblur18", "resnet26d"])
def test_traces_and_exports(name):
    ours = build(name, num_classes=7).eval()
    randomize(ours)
    with torch.no_grad():
        expected = ours(image())
        assert torch.equal(torch.fx.symbolic_trace(ours)(image()), expected)
        exported = torch.export.export(ours, (image(),), strict=False).module()
        assert torch.allclose(exported(image()), expected, rtol=1e-5, atol=1e-6)


# --- torchvision


@pytest.mark.parametrize("name", [
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x8d",
    "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2",
])
def test_torchvision_has_the_same_keys(name):
    with skeletons():
        assert layout(build(name)) == layout(getattr(torchvision.models, name)())


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d"])
def test_torchvision_has_the_same_outputs(name):
    theirs, ours = getattr(torchvision.models, name)(num_classes=7).eval(), build(name, num_classes=7).eval()
    ours.load_state_dict(randomize(theirs))
    with torch.no_grad():
        assert difference(ours(image()), theirs(image())) < 1e-5


# --- pruned widths


@pytest.mark.parametrize(("name", "base"), [
    ("efficientnet_b1_pruned", "tf_efficientnet_b1"), ("efficientnet_b2_pruned", "tf_efficientnet_b2"),
    ("efficientnet_b3_pruned", "tf_efficientnet_b3"),
])
def test_widths_of_another_family(name, base):
    with skeletons():
        theirs, ours = timm.create_model(name), prune_to_widths(getattr(efficientnet, base)(), name)
    assert layout(ours) == layout(theirs)
    assert described(ours) == described(theirs)


def test_pruned_model_is_initialised_and_takes_a_new_head():
    model = build("ecaresnet50d_pruned").eval()
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    assert model.num_features == pruned_widths("ecaresnet50d_pruned")["fc"][0] == 2022
    model.reset_classifier(5, "catavgmax")
    assert model.fc.weight.shape == (5, 4044)
    assert model(image()).shape == (2, 5)


def test_widths_name_the_layer_that_they_do_not_fit():
    name = "ecaresnet50d_pruned"
    with pytest.raises(ValueError, match="are for a model with a layer 'conv1.0'"):
        prune_to_widths(build("resnet50"), name)
    with pytest.raises(ValueError, match="do not fit its layer 'conv1.1', a GroupNorm"):
        build(name, norm_layer="groupnorm")
    with pytest.raises(ValueError, match="do not fit its layer 'layer1.0.se.fc1', a Conv2d"):
        build(name, block_args=dict(attn_layer="se"))
    with pytest.raises(FileNotFoundError, match="resnet50_pruned"):
        pruned_widths("resnet50_pruned")


def test_widths_cannot_be_changed():
    with pytest.raises(TypeError):
        pruning.pruned_widths("ecaresnet50d_pruned")["fc"] = (1,)


# --- initial weights


def test_initial_weights_are_timms_distributions():
    model = build("seresnet50", num_classes=7)
    conv = model.layer4[1].conv2
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * conv.out_channels)), rel=0.01)  # fan out
    blocks = [module for module in model.modules() if isinstance(module, (BasicBlock, Bottleneck))]
    assert len(blocks) == 16 and all((block.last_norm.weight == 0).all() for block in blocks)
    assert all((block.bn2.weight == 1).all() for block in blocks)
    assert all((block.last_norm.weight == 1).all() for block in build("resnet18", zero_init_last=False).layer3)


@pytest.mark.parametrize("name", ["resnetblur18", "ecaresnet50d_pruned", "resnetrs50"])
def test_a_model_from_the_meta_device_is_complete(name):
    with skeletons():
        model = build(name)
    model.to_empty(device="cpu")
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data.fill_(-7)
    model.init_weights()
    assert not any((tensor == -7).any() for tensor in (*model.parameters(), *model.buffers()))
    built = build(name).eval()
    built.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(model.eval()(image()), built(image()))


# --- channel attention


@pytest.mark.parametrize("attn", ["se", "ese", "eca", "ceca", "gc", "gca", True])
@pytest.mark.parametrize("channels", [64, 1024])
def test_channel_attention_equals_timms(attn, channels):
    theirs, ours = timm_create_attn(attn, channels), create_attn(attn, channels)
    ours.load_state_dict(randomize(theirs))
    x = torch.randn(2, channels, 7, 5)
    with torch.no_grad():
        assert difference(ours(x), theirs(x)) < 1e-5


@pytest.mark.parametrize("kwargs", [
    dict(add_maxpool=True), dict(rd_channels=10, bias=False), dict(norm_layer=nn.BatchNorm2d, act_layer=nn.SiLU),
])
def test_squeeze_and_excitation_takes_timms_options(kwargs):
    theirs, ours = timm_create_attn("se", 64, **kwargs).eval(), SEModule(64, **kwargs).eval()
    ours.load_state_dict(randomize(theirs))
    x = torch.randn(2, 64, 7, 5)
    with torch.no_grad():
        assert difference(ours(x), theirs(x)) < 1e-5


def test_attention_by_name_class_or_not_at_all():
    assert get_attn(None) is None and get_attn(False) is None and get_attn(EcaModule) is EcaModule
    assert create_attn("", 8) is None


# --- bad input


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(output_stride=4), "output_stride is 8, 16 or 32, not 4"),
    (dict(stem_type="wide"), "unknown stem_type 'wide'; known: '', 'deep', 'deep_tiered'"),
    (dict(cardinality=32), "a BasicBlock has one group and base_width 64, not 32 and 64"),
    (dict(aa_layer="sharp"), "unknown anti-aliasing layer 'sharp'; known: avg"),
    (dict(act_layer="rely"), "unknown activation 'rely'"),
    (dict(global_pool="mean"), "unknown global_pool 'mean'"),
    (dict(block_args=dict(attn_layer="sey")), "unknown attention layer 'sey'; known: ceca, eca"),
])
def test_bad_arguments_are_named(kwargs, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        build("resnet18", **kwargs)


def test_even_kernels_have_no_centre():
    with pytest.raises(ValueError, match="kernel_size must be odd, to have a centre; it is 4"):
        EcaModule(kernel_size=4)
