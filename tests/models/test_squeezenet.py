"""SqueezeNet against torchvision, and the contract where its classifier, a convolution, differs from others'."""

import pytest
import torch
import torchvision
from torch import nn

from mvlib.loading import load_weights
from mvlib.models import squeezenet
from mvlib.models.squeezenet import SqueezeNet
from tests.parity.harness import randomize, relative_difference
from tests.skeleton import skeletons

every_version = pytest.mark.parametrize("name", ["squeezenet1_0", "squeezenet1_1"])


def image(size=95, batch=2, chans=3):
    return torch.randn(batch, chans, size, size, generator=torch.Generator().manual_seed(0))


def build(name, **kwargs):
    return getattr(squeezenet, name)(**{"num_classes": 7, **kwargs})


def pair(name, **kwargs):
    """Our model and torchvision's, with the same random weights."""
    theirs = getattr(torchvision.models, name)(num_classes=7)
    randomize(theirs, image())
    with torch.no_grad():  # else the ReLU after the classifier leaves too little to compare
        theirs.classifier[1].bias += 1.0
    ours = build(name, **kwargs)
    load_weights(ours, theirs.state_dict())
    return ours.eval(), theirs.eval()


@every_version
def test_outputs_and_gradients_equal_torchvisions(name):
    ours, theirs = pair(name)
    for size in (64, 95, 224):
        with torch.inference_mode():
            assert relative_difference(ours(image(size)), theirs(image(size))) < 1e-5
    assert theirs(image()).std() > 0.01
    for model in (ours, theirs):
        model(image()).square().sum().backward()
    for (key, own), (_, other) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert relative_difference(own.grad, other.grad) < 1e-5, key


@every_version
def test_keys_and_shapes_are_torchvisions(name):
    with skeletons():
        ours, theirs = getattr(squeezenet, name)(), getattr(torchvision.models, name)()
    assert [(key, value.shape) for key, value in ours.state_dict().items()] == \
        [(key, value.shape) for key, value in theirs.state_dict().items()]
    assert ours.drop_rate == ours.classifier[0].p == theirs.classifier[0].p


@every_version
def test_there_is_a_tap_at_every_resolution(name):
    ours, theirs = pair(name)
    x, resolutions = image(224), {}
    with torch.inference_mode():
        final, taps = ours.forward_intermediates(x)
        y = x
        for layer in theirs.features:  # the last map of each size is a tap
            y = layer(y)
            resolutions[y.shape[-1]] = y.clone()
    for tap, expected, info in zip(taps, resolutions.values(), ours.feature_info, strict=True):
        assert relative_difference(tap, expected) < 1e-5
        assert tap.shape[1] == info["num_chs"]
        assert 0 <= 224 / info["reduction"] - tap.shape[-1] < 3.1  # the stem is not padded
        ours.get_submodule(info["module"])
    assert torch.equal(final, taps[-1])
    assert [info["reduction"] for info in ours.feature_info] == [2, 4, 8, 16]


def test_head_scores_positions_then_pools():
    ours, _ = pair("squeezenet1_1")
    with torch.inference_mode():
        features = ours.forward_features(image())
        vector = ours.forward_head(features, pre_logits=True)
        assert torch.equal(vector, features.mean((2, 3)))
        assert vector.shape == (2, ours.head_hidden_size) == (2, 512)
        scores = ours.get_classifier()(features).relu()
        assert torch.equal(ours(image()), scores.mean((2, 3)))
        ours.reset_classifier(0)
        assert torch.equal(ours(image()), vector)
        assert isinstance(ours.get_classifier(), nn.Identity)


@pytest.mark.parametrize(("pool", "reduce"), [
    ("max", lambda x: x.amax((2, 3))), ("avgmax", lambda x: (x.mean((2, 3)) + x.amax((2, 3))) / 2), ("", lambda x: x),
])
def test_pooling_can_be_chosen(pool, reduce):
    ours, _ = pair("squeezenet1_1", global_pool=pool)
    with torch.inference_mode():
        features = ours.forward_features(image())
        assert torch.allclose(ours(image()), reduce(ours.get_classifier()(features).relu()), atol=1e-6)
        assert torch.allclose(ours.forward_head(features, pre_logits=True), reduce(features), atol=1e-6)
    changed = build("squeezenet1_1")
    changed.reset_classifier(5, pool)
    assert changed.eval()(image()).shape[:2] == (2, 5)


def test_reset_classifier_makes_a_fresh_convolution():
    ours, _ = pair("squeezenet1_0")
    before = ours.forward_features(image())
    ours.reset_classifier(100)
    assert ours(image()).shape == (2, 100)
    assert ours.get_classifier().weight.shape == (100, 512, 1, 1)
    assert ours.get_classifier().weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert ours.classifier[1] is ours.get_classifier() and not ours.training
    assert torch.equal(ours.forward_features(image()), before)


def test_built_on_meta_it_initialises_like_torchvision():
    with skeletons():
        ours = build("squeezenet1_0")
    ours.to_empty(device="cpu")
    ours.init_weights()
    expected = torchvision.models.squeezenet1_0(num_classes=7).state_dict()
    for key, value in ours.state_dict().items():
        spread = expected[key].std()
        assert not value.any() if spread == 0 else abs(value.std() / spread - 1) < 5 / value.numel() ** 0.5, key


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(version="2_0"), "unknown SqueezeNet version '2_0'; known: 1_0, 1_1"),
    (dict(global_pool="catavgmax"), "global_pool 'catavgmax' would give several scores a class"),
    (dict(global_pool="mean"), "unknown global_pool 'mean'"),
])
def test_bad_arguments_are_reported(kwargs, message):
    with pytest.raises(ValueError, match=message):
        SqueezeNet(**kwargs)
