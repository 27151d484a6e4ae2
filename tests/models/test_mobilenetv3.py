"""What is special to MobileNetV3 and its relatives: the head after pooling, options, torchvision's checkpoints.

Keys, outputs, features and gradients are compared with timm's in tests/parity.
"""

import inspect
from functools import partial

import pytest
import timm
import torch
import torchvision
from torch import nn

from mvlib.layers import GroupNormAct
from mvlib.loading import load_weights
from mvlib.models import mobilenetv3
from mvlib.models.mobilenetv3 import MobileNetV3
from tests.parity.harness import randomize, relative_difference
from tests.skeleton import skeletons

SMALL, HYBRID = "mobilenetv3_small_050", "mobilenetv4_hybrid_medium_075"
TIMM_NAMES = timm.list_models(module="mobilenetv3")


def image(size=64, batch=2):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))


def build(name, **kwargs):
    return getattr(mobilenetv3, name)(**{"num_classes": 7, **kwargs})


def pair(name, size=64, **kwargs):
    """Our model and timm's, with the same random weights."""
    theirs, ours = timm.create_model(name, **{"num_classes": 7, **kwargs}), build(name, **kwargs)
    randomize(theirs, image(size))
    ours.load_state_dict(theirs.state_dict())
    return ours.eval(), theirs.eval()


def assert_same(ours, theirs):
    for own, other in zip(ours, theirs, strict=True):
        assert relative_difference(own, other) < 1e-5


def described(infos):
    return [(info["num_chs"], info["reduction"], info["module"]) for info in infos]


# options


@pytest.mark.parametrize(("name", "kwargs"), [
    (SMALL, dict(num_classes=0)),
    (SMALL, dict(num_classes=0, global_pool="")),
    (SMALL, dict(global_pool="max")),
    (SMALL, dict(global_pool="catavgmax")),
    ("mobilenetv3_small_075", dict(group_size=8, depth_multiplier=1.4, bn_eps=1e-2, pad_type="same", in_chans=3)),
    ("mobilenetv4_conv_small_035", dict(act_layer="silu", aa_layer="avg", num_classes=0, global_pool="catavgmax")),
])
def test_arguments_have_timms_effect(name, kwargs):
    ours, theirs = pair(name, 75, **kwargs)
    with torch.inference_mode():
        assert_same([ours(image(75))], [theirs(image(75))])
        features = ours.forward_features(image(75)), theirs.forward_features(image(75))
        assert_same(features[:1], features[1:])
        assert_same([ours.forward_head(features[0], pre_logits=True)], [theirs.forward_head(features[1], True)])
    assert (ours.num_features, ours.head_hidden_size) == (theirs.num_features, theirs.head_hidden_size)


@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "tf_mobilenetv3_small_075", HYBRID])
def test_dilated_features_equal_timms_extractor(name, output_stride):
    theirs = timm.create_model(name, features_only=True, output_stride=output_stride)
    randomize(theirs, image(96))
    ours = build(name, output_stride=output_stride)
    ours.prune_intermediate_layers(None)
    ours.load_state_dict(theirs.state_dict())
    with torch.inference_mode():
        assert_same(ours.eval().forward_intermediates(image(96), intermediates_only=True), theirs.eval()(image(96)))
    assert [step.reduction for step in ours.flow.taps] == theirs.feature_info.reduction()


def test_stochastic_depth_grows_as_timms():
    theirs, ours = (make(HYBRID, drop_path_rate=0.3) for make in (timm.create_model, build))
    rates = [[getattr(block.drop_path, "drop_prob", 0.0) for stage in model.blocks for block in stage]
             for model in (ours, theirs)]
    assert rates[0] == pytest.approx(rates[1])
    assert rates[0][-1] > 0


def test_class_takes_what_the_entrypoints_set():
    model = build(SMALL, head_bias=False, stem_size=24, fix_stem=True, num_features=64, se_layer="gc",
                  norm_layer=partial(GroupNormAct, group_size=8), stem_kernel_size=5, head_scaling="scale")
    assert (model.conv_stem.out_channels, model.conv_head.out_channels, model.conv_head.bias) == (24, 32, None)
    assert model.conv_stem.kernel_size == (5, 5)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert model.eval()(image()).shape == (2, 7)


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(output_stride=4), "output_stride is 8, 16 or 32, not 4"),
    (dict(global_pool="mean"), "unknown global_pool 'mean'"),
    (dict(block_args=[["xx_r1"]]), "unknown block 'xx'"),
    (dict(depth_multiplier=(1.0, 2.0)), "2 depth multipliers do not fit 6 stages"),
])
def test_bad_arguments_are_reported(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(SMALL, **kwargs)


def test_every_entrypoint_says_what_it_is():
    for name in [*TIMM_NAMES, "mobilenet_v3_large", "mobilenet_v3_small"]:
        entrypoint = getattr(mobilenetv3, name)
        assert entrypoint.__doc__ and entrypoint.__annotations__["return"] is MobileNetV3
    assert "pretrained" not in inspect.signature(MobileNetV3).parameters


# the head


@pytest.mark.parametrize("arguments", [
    dict(indices=1), dict(indices=(0, 2)), dict(indices=(0,)), dict(indices=1, prune_head=False),
    dict(indices=(1,), prune_head=False), dict(indices=2, prune_norm=True, prune_head=False),
])
@pytest.mark.parametrize("global_pool", ["avg", "catavgmax"])
def test_pruning_to_features_equals_timms(arguments, global_pool):
    theirs, ours = (make(SMALL, global_pool=global_pool) for make in (timm.create_model, build))
    taken = ours.prune_intermediate_layers(**arguments)
    assert taken == theirs.prune_intermediate_layers(**arguments)
    theirs.reset_classifier(ours.num_classes)
    randomize(theirs, image())
    ours.load_state_dict(theirs.state_dict())
    assert (ours.num_features, ours.head_hidden_size) == (theirs.num_features, theirs.head_hidden_size)
    with torch.inference_mode():
        assert_same([ours.eval()(image())], [theirs.eval()(image())])


def test_pooling_changes_only_where_the_head_convolution_fits():
    model = build(SMALL).eval()
    model.reset_classifier(3, "max")
    assert model(image()).shape == (2, 3)
    with pytest.raises(ValueError, match="'catavgmax' gives 576 channels, and the head convolution takes 288"):
        model.reset_classifier(3, "catavgmax")
    model.reset_classifier(0, "")
    assert model(image()).shape == (2, 1024, 2, 2)
    model.prune_intermediate_layers(1)
    model.reset_classifier(3, "catavgmax")
    assert model.head_hidden_size == 576
    assert model(image()).shape == (2, 3)


def test_stopping_early_gives_the_last_tap_that_was_asked_for():
    ours, theirs = pair("lcnet_035")
    with torch.inference_mode():
        arguments = dict(indices=[1, 2], stop_early=True, intermediates_only=True)
        expected = theirs.forward_intermediates(image(), **arguments)
        assert_same(ours.forward_intermediates(image(), **arguments), expected)
        last, _ = ours.forward_intermediates(image(), indices=[1, 2], stop_early=True)
    assert torch.equal(last, ours.forward_intermediates(image(), **arguments)[-1])


# initialisation, training, export


@pytest.mark.parametrize("name", [SMALL, "fbnetv3_b", HYBRID])
def test_built_on_meta_it_initialises_like_timm(name):
    with skeletons():
        ours = build(name)
    ours.to_empty(device="cpu")
    ours.init_weights()
    expected = timm.create_model(name, num_classes=7).state_dict()
    for key, value in ours.state_dict().items():
        spread = expected[key].float().std(correction=0)
        assert torch.equal(value, expected[key]) if spread == 0 \
            else abs(value.std(correction=0) / spread - 1) < 0.5 + 5 / value.numel() ** 0.5, key
    assert ours.eval()(image()).isfinite().all()


def test_checkpointing_changes_nothing():
    model = build("mobilenetv4_conv_small_035")
    gradients = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model(image()).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients))


@pytest.mark.parametrize("name", [SMALL, "tf_mobilenetv3_small_075", HYBRID])
def test_fx_compile_and_export_take_it(name):
    model = build(name).eval()
    torch._dynamo.reset()
    with torch.no_grad():
        expected = model(image())
        assert torch.equal(torch.fx.symbolic_trace(model)(image()), expected)
        assert relative_difference(torch.compile(model, fullgraph=True, backend="eager")(image()), expected) < 1e-6
        exported = torch.export.export(model, (image(),), strict=False)
        assert relative_difference(exported.module()(image()), expected) < 1e-6


# torchvision's


@pytest.mark.parametrize(("builder", "timm_name"), [
    ("mobilenet_v3_large", "mobilenetv3_large_100"), ("mobilenet_v3_small", "mobilenetv3_small_100"),
])
def test_torchvision_weights_give_torchvisions_outputs(builder, timm_name):
    theirs = getattr(torchvision.models, builder)(num_classes=7)
    randomize(theirs, image(96))
    shuffled = {key: theirs.state_dict()[key] for key in sorted(theirs.state_dict())}  # as safetensors has them
    variant, adapted = build(builder).eval(), build(timm_name, bn_eps=1e-3).eval()
    for ours in (variant, adapted):
        (key_map,) = [m for m in ours.key_maps if m.matches(shuffled)]
        assert key_map.name == "torchvision"
        ours.load_state_dict(key_map.convert(shuffled, ours))
        with torch.inference_mode():
            assert_same([ours(image(96))], [theirs.eval()(image(96))])
    norms = [[(m.eps, m.momentum) for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
             for model in (variant, theirs)]
    assert norms[0] == norms[1]
    assert variant.drop_rate == theirs.classifier[2].p
    with torch.inference_mode():  # the epsilon matters: timm's architecture, as it is, computes something else
        timms = build(timm_name).eval()
        timms.load_state_dict(adapted.state_dict())
        assert relative_difference(timms(image(96)), theirs(image(96))) > 1e-4


def test_torchvision_weights_serve_another_number_of_classes():
    theirs, ours = torchvision.models.mobilenet_v3_small(num_classes=5), build("mobilenet_v3_small")
    load_weights(ours, theirs.state_dict(), fit_head=True)
    assert torch.equal(ours.conv_head.weight.flatten(1), theirs.classifier[0].weight)
    assert ours.classifier.weight.shape == (7, 1024)
