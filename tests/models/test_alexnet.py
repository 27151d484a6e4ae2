"""AlexNet against torchvision: outputs at several sizes, taps, head, pruning, gradients."""

import re

import pytest
import torch
import torchvision

from mvlib.models.alexnet import AlexNet, GridPool, alexnet
from tests.parity import harness
from tests.skeleton import skeletons


def small(**kwargs):
    return alexnet(**{"num_classes": 5, **kwargs}).eval()


@pytest.fixture(scope="module")
def pair():
    """torchvision's model and ours with the same random weights, in eval mode."""
    theirs = torchvision.models.alexnet()
    harness.randomize(theirs, harness.random_image(64))
    with skeletons():
        ours = alexnet()
    ours.load_state_dict(theirs.state_dict(), assign=True)
    return theirs, ours.eval()


@pytest.mark.parametrize("side", [63, 64, 200, 224, 256, 319])
def test_torchvision_has_the_same_outputs(pair, side):
    theirs, ours = pair
    image = harness.random_image(side)
    with torch.inference_mode():
        expected = theirs(image)
        assert expected.std() > 1e-3 and harness.relative_difference(ours(image), expected) < 1e-5


def test_state_dicts_and_modules_are_torchvisions(pair):
    theirs, ours = pair
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [(m.kernel_size, m.stride, m.padding) for m in ours.features if hasattr(m, "stride")] == \
        [(m.kernel_size, m.stride, m.padding) for m in theirs.features if hasattr(m, "stride")]


def test_training_drops_the_same_and_gives_the_same_gradients(pair):
    theirs, ours = pair
    image, gradients = harness.random_image(64), []
    for model in pair:
        torch.manual_seed(0)
        model.train()(image).square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
        model.zero_grad()
        model.eval()
    for name, expected in gradients[0].items():
        assert expected.any() and harness.relative_difference(gradients[1][name], expected) < 1e-5, name


def test_taps_have_the_channels_and_strides_that_they_say():
    model, image = small(num_classes=0), harness.random_image(224)
    assert [info["module"] for info in model.feature_info] == ["features.1", "features.4", "features.11", "features.12"]
    with torch.no_grad():
        for info, tap in zip(model.feature_info, model.forward_intermediates(image, intermediates_only=True)):
            assert tap.shape[1] == info["num_chs"]
            assert 224 / info["reduction"] - 1 <= tap.shape[-1] <= 224 / info["reduction"]


@pytest.mark.parametrize("pool", ["avg", "max", "avgmax"])
def test_reset_classifier(pool):
    model, image = small(), harness.random_image(128)
    model.reset_classifier(3, pool)
    assert model(image).shape == (2, 3) and model.num_classes == 3 and model.get_classifier().out_features == 3
    model.reset_classifier(0)
    assert model(image).shape == (2, 4096)
    model.reset_classifier(0, "")
    assert torch.equal(model(image), model.forward_features(image)) and model.head_hidden_size == 256


def test_grids():
    x = torch.randn(2, 3, 12, 12)
    tiles = x.unflatten(3, (6, 2)).unflatten(2, (6, 2)).transpose(3, 4).flatten(4)
    avg, peak = tiles.mean(-1), tiles.amax(-1)
    assert torch.allclose(GridPool(6)(x), avg, atol=1e-6) and torch.equal(GridPool(6, "max")(x), peak)
    assert torch.allclose(GridPool(6, "avgmax")(x), (avg + peak) / 2, atol=1e-6)


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(global_pool=""), "global_pool '' goes with num_classes=0: without pooling there are no hidden layers"),
    (dict(global_pool="catavgmax"), "global_pool 'catavgmax' is not one of 'avg', 'max', 'avgmax', ''"),
])
def test_bad_arguments_are_named(kwargs, message):
    with torch.device("meta"), pytest.raises(ValueError, match=re.escape(message)):
        AlexNet(**kwargs)
