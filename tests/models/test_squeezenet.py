"""SqueezeNet's classifier, a convolution that scores positions before they are pooled.

tests/parity/test_torchvision.py compares the rest with torchvision's.
"""

import pytest
import torch

from mvlib.models.squeezenet import SqueezeNet
from tests.parity.harness import random_image, randomize


@pytest.mark.parametrize(("pool", "reduce"), [
    ("avg", lambda x: x.mean((2, 3))), ("max", lambda x: x.amax((2, 3))),
    ("avgmax", lambda x: (x.mean((2, 3)) + x.amax((2, 3))) / 2), ("", lambda x: x),
])
@torch.no_grad()
def test_head_scores_positions_then_pools(pool, reduce):
    model, image = SqueezeNet("1_1", num_classes=7, global_pool=pool), random_image(95)
    randomize(model, image)
    features = model.forward_features(image)
    scores = model.get_classifier()(features).relu()
    assert scores.std() > 0.01 and torch.allclose(model(image), reduce(scores), atol=1e-6)
    assert torch.allclose(model.forward_head(features, pre_logits=True), reduce(features), atol=1e-6)
    model.reset_classifier(0, pool)
    assert torch.allclose(model(image), reduce(features), atol=1e-6)


def test_a_new_classifier_is_a_fresh_convolution():
    model = SqueezeNet("1_0", num_classes=7)
    model.reset_classifier(100)
    assert model.classifier[1] is model.get_classifier() and model.get_classifier().weight.shape == (100, 512, 1, 1)
    assert model.get_classifier().weight.std().item() == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(version="2_0"), "unknown SqueezeNet version '2_0'; known: 1_0, 1_1"),
    (dict(global_pool="catavgmax"), "global_pool 'catavgmax' would give several scores a class"),
    (dict(global_pool="mean"), "unknown global_pool 'mean'"),
])
def test_bad_arguments_are_reported(kwargs, message):
    with pytest.raises(ValueError, match=message):
        SqueezeNet(**kwargs)
