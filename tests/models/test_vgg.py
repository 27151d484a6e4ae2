"""VGG against timm and torchvision: taps, pruning, options, other image sizes, torchvision's checkpoints."""

import re

import pytest
import timm
import torch
import torchvision
from timm.models import vgg as timm_vgg
from timm.models._manipulate import group_parameters

from mvlib import registry
from mvlib.loading import load_weights
from mvlib.models import vgg
from mvlib.models.vgg import VGG
from tests.parity import harness
from tests.skeleton import skeletons

NAMES = timm.list_models(module="vgg")
SMALL = dict(cfg=(8, "M", 12, 12, "M", 16, "M", 16, "M", 20, "M"), mlp_ratio=0.0625, num_classes=7)


def small(**kwargs):
    return VGG(**{**SMALL, **kwargs}).eval()


def pair(size=64, **kwargs):
    """timm's small model and ours with the same random weights, in eval mode, and an image for them."""
    norm = dict(norm_layer=torch.nn.BatchNorm2d) if "norm_layer" in kwargs else {}
    theirs, ours = timm_vgg.VGG(**{**SMALL, **kwargs, **norm}), small(**kwargs)
    image = harness.random_image(size, theirs.in_chans)
    harness.randomize(theirs, image)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours, image


def layout(model):
    return {key: value.shape for key, value in model.state_dict().items()}


def same(one, other):
    return harness.relative_difference(one, other) < 1e-5


def test_every_architecture_of_timm_is_here():
    assert len(NAMES) == 8 and NAMES == registry.list_models(module="vgg")


@pytest.mark.parametrize(("size", "kwargs"), [
    (32, {}),
    (224, {}),
    (288, {}),  # hidden layers at several positions
    (75, dict(norm_layer="batchnorm2d", in_chans=5)),
    (288, dict(global_pool="catavgmax")),
    (288, dict(global_pool="max", num_classes=0)),
    (288, dict(global_pool="", num_classes=0)),
])
def test_arguments_have_timms_effect(size, kwargs):
    theirs, ours, image = pair(size, **kwargs)
    with torch.no_grad():
        assert same(ours(image), theirs(image))
        features = ours.forward_features(image)
        assert same(ours.forward_head(features, pre_logits=True), theirs.forward_head(features, pre_logits=True))
        taps = [model.forward_intermediates(image, intermediates_only=True) for model in (ours, theirs)]
        assert all(same(one, other) for one, other in zip(*taps, strict=True))
    assert [{**info, "index": i} for i, info in enumerate(theirs.feature_info)] == ours.feature_info
    assert (ours.num_features, ours.head_hidden_size) == (theirs.num_features, theirs.head_hidden_size)


@pytest.mark.parametrize("key", [
    "features.0.weight", "features.5.running_var", "features.8.bias", "pre_logits.fc1.weight", "pre_logits.fc2.bias",
    "head.fc.weight",
])
def test_the_comparison_notices_every_kind_of_weight(key):
    theirs, ours, image = pair(norm_layer="batchnorm2d")
    ours.state_dict()[key].mul_(1.05)
    with torch.no_grad():
        assert not same(ours(image), theirs(image))


def test_gradients_are_timms():
    theirs, ours, image = pair(norm_layer="batchnorm2d")
    for model in (theirs.double(), ours.double()):
        model.train()(image.double()).square().sum().backward()
    expected = dict(theirs.named_parameters())
    scale = max(parameter.grad.abs().max() for parameter in expected.values())
    for name, parameter in ours.named_parameters():
        assert (parameter.grad - expected[name].grad).abs().max() < 1e-10 * scale, name


@pytest.mark.parametrize("arguments", [
    dict(indices=[0]), dict(indices=[1, 4]), dict(indices=1), dict(indices=1, prune_head=False),
    dict(indices=[2], prune_head=False),
])
def test_pruning_to_features_equals_timms(arguments):
    theirs, ours, image = pair(norm_layer="batchnorm2d")
    assert ours.prune_intermediate_layers(**arguments) == theirs.prune_intermediate_layers(**arguments)
    assert layout(ours) == layout(theirs)
    assert (ours.num_features, ours.head_hidden_size) == (theirs.num_features, theirs.head_hidden_size)
    with torch.no_grad():
        assert same(ours(image), theirs(image))
    if arguments.get("prune_head", True):
        ours.reset_classifier(5, "avg")
        assert ours(image).shape == (2, 5)


def test_a_new_head_keeps_the_hidden_layers():
    _, ours, image = pair()
    before = ours.forward_head(ours.forward_features(image), pre_logits=True)
    ours.reset_classifier(3, "catavgmax")
    assert ours(image).shape == (2, 3) and ours.head_hidden_size == 2 * 4096
    ours.reset_classifier(0, "avg")
    assert torch.equal(ours(image), before)


@pytest.mark.parametrize("act_layer", ["relu", "silu"])  # in place: recomputing must begin before a convolution
def test_checkpointing_changes_nothing_but_memory(act_layer):
    plain, checkpointed = small(act_layer=act_layer), small(act_layer=act_layer)
    image, stored = harness.random_image(96), []
    checkpointed.load_state_dict(plain.state_dict())
    checkpointed.set_grad_checkpointing()
    for model in (plain, checkpointed):
        count = [0]

        def pack(tensor, count=count):
            count[0] += 0 if isinstance(tensor, torch.nn.Parameter) else tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            features = model.forward_features(image)
        model.forward_head(features).square().sum().backward()
        stored.append(count[0])
    assert stored[1] < stored[0] / 2
    for (key, one), other in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad), key


def test_traces_compiles_and_exports():
    model, image = small(norm_layer="batchnorm2d"), harness.random_image(64)
    harness.randomize(model, image)
    with torch.no_grad():
        expected = model(image)
        assert torch.equal(torch.fx.symbolic_trace(model)(image), expected)
        assert torch.equal(torch.compile(model, fullgraph=True, backend="eager")(image), expected)
        exported = torch.export.export(model, (image,), strict=False).module()
        assert torch.allclose(exported(image), expected, rtol=1e-5, atol=1e-6)


def test_layer_groups_cover_every_parameter():
    model = small()
    groups = group_parameters(model, model.group_matcher())
    assert sum(map(len, groups.values())) == len(list(model.parameters()))
    assert len(groups) == 7  # six convolutions and the head


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(output_stride=16), "output_stride is 32 for a VGG, not 16"),
    (dict(norm_layer="norm"), "unknown norm layer 'norm'"),
    (dict(act_layer="rely"), "unknown activation 'rely'"),
    (dict(global_pool="mean"), "unknown global_pool 'mean'"),
])
def test_bad_arguments_are_named(kwargs, message):
    with torch.device("meta"), pytest.raises(ValueError, match=re.escape(message)):
        VGG(**kwargs)


def test_a_model_from_the_meta_device_is_complete():
    with skeletons():
        model = small(norm_layer="batchnorm2d", num_classes=1000)
    model.to_empty(device="cpu")
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data.fill_(-7)
    model.init_weights()
    assert not any((tensor == -7).any() for tensor in (*model.parameters(), *model.buffers()))
    assert model.head.fc.weight.std().item() == pytest.approx(0.01, rel=0.01) and not model.head.fc.bias.any()
    assert model.pre_logits.fc2.weight.std().item() == pytest.approx((2 / 4096) ** 0.5, rel=0.01)


# --- torchvision


def torchvision_pair(builder, **kwargs):
    """torchvision's model with random weights and ours, which shares them."""
    with skeletons():
        theirs, ours = getattr(torchvision.models, builder)(), getattr(vgg, builder)(**kwargs)
    theirs.to_empty(device="cpu")
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
    harness.randomize(theirs, harness.random_image(64))
    load_weights(ours, theirs.state_dict())
    return theirs, ours.eval()


@pytest.mark.parametrize("builder", [
    pytest.param(name, marks=[] if name == "vgg11_bn" else pytest.mark.slow) for name in NAMES])
def test_torchvision_has_the_same_outputs(builder):
    theirs, ours = torchvision_pair(builder, drop_rate=0.5, fixed_grid=True)
    with torch.inference_mode():
        for side in (64, 224, 288):
            image = harness.random_image(side, batch=1)
            expected = theirs(image)
            assert expected.std() > 1e-3 and same(ours(image), expected)
        theirs.train(), ours.train()
        for module in (*theirs.modules(), *ours.modules()):
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        image = harness.random_image(64, batch=1)
        outputs = []
        for model in (theirs, ours):  # dropout stands in the same places
            torch.manual_seed(0)
            outputs.append(model(image))
        assert same(*outputs)


@pytest.mark.parametrize("builder", torchvision.models.list_models(include="vgg*", module=torchvision.models))
def test_torchvisions_keys_become_ours(builder):
    with skeletons():
        theirs, ours = getattr(torchvision.models, builder)().state_dict(), getattr(vgg, builder)()
    key_map, = VGG.key_maps
    assert key_map.matches(theirs) and not key_map.matches(ours.state_dict())
    converted = key_map.convert(theirs, ours)
    assert {key: value.shape for key, value in converted.items()} == layout(ours)
    assert {key: value.shape for key, value in timm_vgg._filter_fn(theirs).items()} == layout(ours)
