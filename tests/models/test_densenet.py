"""DenseNet against timm and torchvision: options, pruning, recomputation, initial weights, foreign checkpoints."""

import math
import re

import pytest
import timm
import torch
import torchvision
from timm.layers import BlurPool2d as TimmBlur
from timm.models.densenet import _filter_torchvision_pretrained
from torch import nn

from mvlib import registry
from mvlib.loading import load_weights
from mvlib.models import densenet
from mvlib.models.densenet import DenseLayer, DenseNet
from tests.parity import harness
from tests.skeleton import skeletons

TIMM_NAMES = timm.list_models(module="densenet")
TORCHVISION = ["densenet121", "densenet161", "densenet169", "densenet201"]
SMALL = dict(growth_rate=16, block_config=(2, 3, 2, 2), num_classes=7)
GROUPED = dict(growth_rate=32, block_config=(2, 2, 2, 2), num_classes=7, norm_layer="groupnorm")  # multiples of 32


def build(name="densenet121", **kwargs):
    return getattr(densenet, name)(**kwargs)


def pair(name="densenet121", size=64, **kwargs):
    """timm's model and ours with the same random weights, in eval mode, and an image for them."""
    blur = dict(aa_layer=TimmBlur) if kwargs.get("aa_layer") == "blur" else {}
    theirs, ours = timm.create_model(name, **{**kwargs, **blur}), build(name, **kwargs).eval()
    image = harness.random_image(size, theirs.in_chans)
    harness.randomize(theirs, image)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours, image


def layout(model):
    return {key: value.shape for key, value in model.state_dict().items()}


def widths_of(model):
    return model.num_features, model.head_hidden_size


def dense_layers(model):
    return [module for module in model.modules() if isinstance(module, DenseLayer)]


# --- timm's architectures


def test_every_architecture_of_timm_is_here():
    assert len(TIMM_NAMES) == 6
    assert set(TIMM_NAMES) <= set(registry.list_models(module="densenet"))


@pytest.mark.parametrize(("name", "size", "kwargs"), [
    ("densenet121", 75, dict(SMALL, global_pool="catavgmax", in_chans=5)),
    ("densenet121", 64, dict(SMALL, stem_type="deep_tiered", act_layer="silu", bn_size=2)),
    ("densenet121", 64, dict(SMALL, stem_type="deep_tiered_narrow", global_pool="avgmax")),
    ("densenet121", 75, dict(SMALL, aa_layer="blur", aa_stem_only=False)),
    ("densenet121", 64, GROUPED),
    ("densenet121", 128, dict(SMALL, block_config=(2, 1, 2), num_classes=0, global_pool="")),
    ("densenetblur121d", 75, dict(SMALL, stem_type="")),
    ("densenet264d", 64, dict(SMALL, num_classes=0)),
])
def test_arguments_have_timms_effect(name, size, kwargs):
    theirs, ours, image = pair(name, size, **kwargs)
    with torch.no_grad():
        assert harness.relative_difference(ours(image), theirs(image)) < 1e-5
        taps = [model.forward_intermediates(image, intermediates_only=True) for model in (ours, theirs)]
        for one, other in zip(*taps, strict=True):
            assert harness.relative_difference(one, other) < 1e-5
    described = [[(info["num_chs"], info["reduction"], info["module"]) for info in model.feature_info]
                 for model in (ours, theirs)]
    assert described[0] == described[1]
    assert widths_of(ours) == widths_of(theirs)


@pytest.mark.parametrize("key", [
    "features.conv0.weight", "features.norm0.running_mean", "features.denseblock1.denselayer1.norm1.bias",
    "features.denseblock2.denselayer3.conv2.weight", "features.transition2.conv.weight",
    "features.transition3.norm.running_var", "features.norm5.weight", "classifier.bias",
])
def test_the_comparison_notices_every_kind_of_weight(key):
    theirs, ours, image = pair(**SMALL)
    state_dict = ours.state_dict()
    state_dict[key] = state_dict[key] * 1.05
    ours.load_state_dict(state_dict)
    with torch.no_grad():
        assert harness.relative_difference(ours(image), theirs(image)) > 1e-5


@pytest.mark.parametrize("indices", [[0], [1], [0, 2], 1])  # 0 lies before the stem's pool, which is left out
def test_stopping_early_gives_timms_features(indices):
    theirs, ours, image = pair(**SMALL)
    with torch.no_grad():
        (final, taps), (expected, expected_taps) = [
            model.forward_intermediates(image, indices=indices, stop_early=True) for model in (ours, theirs)]
    assert harness.relative_difference(final, expected) < 1e-5
    for one, other in zip(taps, expected_taps, strict=True):
        assert harness.relative_difference(one, other) < 1e-5


@pytest.mark.parametrize("arguments", [
    dict(indices=[0]), dict(indices=[1, 3]), dict(indices=1), dict(indices=1, prune_head=False),
    dict(indices=1, prune_norm=True, prune_head=False), dict(indices=[2], prune_head=False),
])
def test_pruning_to_features_equals_timms(arguments):
    theirs, ours, image = pair("densenetblur121d", **SMALL)
    assert ours.prune_intermediate_layers(**arguments) == theirs.prune_intermediate_layers(**arguments)
    assert layout(ours) == layout(theirs)
    assert widths_of(ours) == widths_of(theirs)
    with torch.no_grad():
        assert harness.relative_difference(ours(image), theirs(image)) < 1e-5


@pytest.mark.parametrize("name", ["densenet121", "densenetblur121d"])
def test_traces_and_exports(name):
    model, image = build(name, **SMALL).eval(), harness.random_image(64)
    harness.randomize(model, image)
    with torch.no_grad():
        expected = model(image)
        assert torch.equal(torch.fx.symbolic_trace(model)(image), expected)
        exported = torch.export.export(model, (image,), strict=False).module()
        assert torch.allclose(exported(image), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kwargs", [dict(drop_rate=0.5), dict(proj_drop_rate=0.5)])
def test_dropping_happens_in_training_alone(kwargs):
    model = build(**GROUPED, **kwargs)  # batch norm would change as it runs
    image = harness.random_image(64)
    with torch.no_grad():
        model.train()
        assert not torch.equal(model(image), model(image))
        model.eval()
        assert torch.equal(model(image), model(image))


# --- recomputation


def backward_bytes(model, image):
    """Bytes that the forward pass stores for the backward pass; leaves gradients behind."""
    sizes = {}

    def pack(tensor):
        sizes[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model(image)
    out.square().sum().backward()
    return sum(sizes.values())


@pytest.mark.parametrize("switch", ["memory_efficient", "set_grad_checkpointing"])
def test_recomputation_changes_nothing_but_memory(switch):
    arguments = dict(SMALL, block_config=(12, 12, 12, 12))
    plain = build(**arguments).eval()
    frugal = build(**arguments, memory_efficient=switch == "memory_efficient").eval()
    if switch == "set_grad_checkpointing":
        frugal.set_grad_checkpointing()
    assert all(layer.grad_checkpointing for layer in dense_layers(frugal))
    frugal.load_state_dict(plain.state_dict())
    image = harness.random_image(64)
    assert backward_bytes(frugal, image) < 0.6 * backward_bytes(plain, image)
    for (key, one), other in zip(plain.named_parameters(), frugal.parameters()):
        assert torch.equal(one.grad, other.grad), key
    frugal.set_grad_checkpointing(False)
    assert not any(layer.grad_checkpointing for layer in dense_layers(frugal))


def test_recomputation_equals_timms_in_training():
    theirs, ours, image = pair(**SMALL, memory_efficient=True)
    for model in (ours, theirs):
        model.double().train()(image.double()).square().sum().backward()
    largest = max(parameter.grad.abs().max() for parameter in theirs.parameters())
    for (key, one), other in zip(sorted(ours.named_parameters()), [p for _, p in sorted(theirs.named_parameters())]):
        assert (one.grad - other.grad).abs().max() < 1e-8 * largest, key
    # Inside a layer the first norm runs twice, and its statistics with it; transitions and second norms once.
    counts = [{key: value.item() for key, value in model.state_dict().items() if key.endswith("num_batches_tracked")}
              for model in (ours, theirs)]
    assert counts[0] == counts[1]


# --- initial weights, bad input


def test_initial_weights_are_timms_distributions():
    model = build(num_classes=2000)
    conv = model.features.denseblock4.denselayer16.conv1
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / conv.in_channels), rel=0.02)
    assert not model.classifier.bias.any()
    assert model.classifier.weight.std().item() == pytest.approx(1 / math.sqrt(3 * model.num_features), rel=0.02)


def test_a_model_from_the_meta_device_is_complete():
    with skeletons():
        model = build("densenetblur121d", **SMALL)
    model.to_empty(device="cpu")
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data.fill_(-7)
    model.init_weights()
    assert not any((tensor == -7).any() for tensor in (*model.parameters(), *model.buffers()))


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(stem_type="wide"), "unknown stem_type 'wide'; known: '', 'deep', 'deep_tiered', 'deep_tiered_narrow'"),
    (dict(aa_layer="sharp"), "unknown anti-aliasing layer 'sharp'; known: avg"),
    (dict(act_layer="rely"), "unknown activation 'rely'"),
    (dict(global_pool="mean"), "unknown global_pool 'mean'"),
])
def test_bad_arguments_are_named(kwargs, message):
    with torch.device("meta"), pytest.raises(ValueError, match=re.escape(message)):
        DenseNet(**kwargs)


# --- torchvision


def as_published(state_dict):
    """The keys of the files that torchvision publishes, which are older than its code; they have no counters."""
    return {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", key): value
            for key, value in state_dict.items() if not key.endswith("num_batches_tracked")}


@pytest.mark.parametrize("builder", TORCHVISION)
@pytest.mark.parametrize("published", [False, True])
def test_torchvision_has_the_same_outputs(builder, published):
    theirs, image = getattr(torchvision.models, builder)(num_classes=7), harness.random_image(64)
    harness.randomize(theirs, image)
    with skeletons():
        ours = build(builder, num_classes=7)
    state_dict = theirs.state_dict()
    if published:
        state_dict = as_published(state_dict)
        assert "features.denseblock1.denselayer1.norm.1.weight" in state_dict
        assert any(key_map.name == "torchvision" and key_map.matches(state_dict) for key_map in DenseNet.key_maps)
        timms = _filter_torchvision_pretrained(dict(state_dict))  # a copy, because it changes what it is given
        assert set(DenseNet.key_maps[0].convert(state_dict, ours)) == set(timms)
    load_weights(ours, state_dict)
    with torch.inference_mode():
        expected = theirs(image)
        assert expected.std() > 1e-3
        assert harness.relative_difference(ours.eval()(image), expected) < 1e-5


def test_all_of_torchvisions_builders_are_named():
    assert sorted(TORCHVISION) == torchvision.models.list_models(include="densenet*", module=torchvision.models)


def test_our_own_keys_are_left_alone():
    state_dict = build(**SMALL).state_dict()
    assert not any(key_map.matches(state_dict) for key_map in DenseNet.key_maps)
    assert DenseNet.key_maps[0].convert(state_dict, nn.Identity()) == state_dict
