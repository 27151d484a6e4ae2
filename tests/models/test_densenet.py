"""DenseNet against timm and torchvision: options, pruning, recomputation, initial weights, foreign checkpoints."""

import re

import pytest
import torch
import torchvision
from timm.layers import BlurPool2d as TimmBlur
from timm.models.densenet import _filter_torchvision_pretrained
from torch import nn

from mvlib.loading import load_weights
from mvlib.models.densenet import DenseLayer, DenseNet
from tests.parity import harness
from tests.skeleton import skeletons

from .pairs import assert_same_effect, build, pair

SMALL = dict(growth_rate=16, block_config=(2, 3, 2, 2), num_classes=7)
GROUPED = dict(growth_rate=32, block_config=(2, 2, 2, 2), num_classes=7, norm_layer="groupnorm")  # multiples of 32


def dense_layers(model):
    return [module for module in model.modules() if isinstance(module, DenseLayer)]


# --- timm's architectures


@pytest.mark.parametrize(("name", "size", "kwargs"), [
    ("densenet121", 75, dict(SMALL, global_pool="catavgmax", in_chans=5)),
    ("densenet121", 64, dict(SMALL, stem_type="deep_tiered", act_layer="silu", bn_size=2)),
    ("densenet121", 64, dict(SMALL, stem_type="deep_tiered_narrow", global_pool="avgmax")),
    ("densenet121", 75, dict(SMALL, aa_layer=TimmBlur, aa_stem_only=False)),
    ("densenet121", 64, GROUPED),
    ("densenet121", 128, dict(SMALL, block_config=(2, 1, 2), num_classes=0, global_pool="")),
    ("densenetblur121d", 75, dict(SMALL, stem_type="")),
    ("densenet264d", 64, dict(SMALL, num_classes=0)),
])
def test_arguments_have_timms_effect(name, size, kwargs):
    assert_same_effect(name, size, **kwargs)


def test_layers_drop_in_training_alone():
    model = build("densenet121", proj_drop_rate=0.5, **GROUPED)  # batch norm would change as it runs
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


def test_recomputation_changes_nothing_but_memory():
    arguments = dict(SMALL, block_config=(12, 12, 12, 12))
    plain = build("densenet121", **arguments).eval()
    frugal = build("densenet121", **arguments, memory_efficient=True).eval()
    assert all(layer.grad_checkpointing for layer in dense_layers(frugal))
    frugal.load_state_dict(plain.state_dict())
    image = harness.random_image(64)
    assert backward_bytes(frugal, image) < 0.6 * backward_bytes(plain, image)
    for (key, one), other in zip(plain.named_parameters(), frugal.parameters()):
        assert torch.equal(one.grad, other.grad), key
    frugal.set_grad_checkpointing(False)
    assert not any(layer.grad_checkpointing for layer in dense_layers(frugal))


def test_recomputation_equals_timms_in_training():
    ours, theirs, image = pair("densenet121", **SMALL, memory_efficient=True)
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


def test_files_that_torchvision_publishes():
    theirs, image = torchvision.models.densenet121(num_classes=7), harness.random_image(64)
    harness.randomize(theirs, image)
    with skeletons():
        ours = build("densenet121", num_classes=7)
    state_dict = as_published(theirs.state_dict())
    assert "features.denseblock1.denselayer1.norm.1.weight" in state_dict
    assert any(key_map.name == "torchvision" and key_map.matches(state_dict) for key_map in DenseNet.key_maps)
    timms = _filter_torchvision_pretrained(dict(state_dict))  # a copy, because it changes what it is given
    assert set(DenseNet.key_maps[0].convert(state_dict, ours)) == set(timms)
    load_weights(ours, state_dict)
    with torch.inference_mode():
        expected = theirs(image)
        assert expected.std() > 1e-3
        assert harness.relative_difference(ours.eval()(image), expected) < 1e-5


def test_our_own_keys_are_left_alone():
    state_dict = build("densenet121", **SMALL).state_dict()
    assert not any(key_map.matches(state_dict) for key_map in DenseNet.key_maps)
    assert DenseNet.key_maps[0].convert(state_dict, nn.Identity()) == state_dict
