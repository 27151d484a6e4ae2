"""AlexNet: pooling to a grid, a head without pooling. The rest is in tests/parity/test_torchvision.py."""

import re

import pytest
import torch

from mvlib.models.alexnet import AlexNet, GridPool
from tests.parity import harness


def test_without_pooling_there_are_no_hidden_layers():
    model, image = AlexNet(num_classes=5).eval(), harness.random_image(128)
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
