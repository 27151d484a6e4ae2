"""Ours and timm's of the same random weights, for what a family's own file compares."""

from functools import partial

import timm
import torch

import mvlib
from tests.parity import harness


def build(name, **kwargs):
    return mvlib.create_model(name, pretrained=False, **kwargs).eval()


def pair(name, size=64, **kwargs):
    """Our architecture, timm's with the same random weights, both in eval mode, and an image for them."""
    return pair_of(partial(timm.create_model, name), partial(build, name), size, **kwargs)


def pair_of(build_timm, build_ours, size=64, **kwargs):
    """The same of what two classes or functions build."""
    theirs, ours = build_timm(**kwargs), build_ours(**kwargs)
    height, width = (size, size) if isinstance(size, int) else size
    image = torch.randn(2, theirs.in_chans, height, width, generator=torch.Generator().manual_seed(1))
    harness.randomize(theirs, image)
    ours.load_state_dict(theirs.state_dict())
    return ours.eval(), theirs, image


def assert_same(ours, theirs, image):
    with torch.inference_mode():
        assert harness.relative_difference(ours(image), theirs(image)) < harness.TOLERANCE


def assert_same_effect(name, size=64, **kwargs):
    """Arguments have timm's effect: on logits, features, the classifier's input, taps and what is said of them."""
    assert_same_models(partial(timm.create_model, name), partial(build, name), size, **kwargs)


def assert_same_models(build_timm, build_ours, size=64, **kwargs):
    ours, theirs, image = pair_of(build_timm, build_ours, size, **kwargs)
    assert_same(ours, theirs, image)
    with torch.inference_mode():
        features = theirs.forward_features(image)
        results = [[model.forward_features(image), model.forward_head(features, pre_logits=True),
                    *model.forward_intermediates(image, intermediates_only=True)] for model in (ours, theirs)]
    for own, other in zip(*results, strict=True):
        assert harness.relative_difference(own, other) < harness.TOLERANCE
    found, expected = map(harness.described, (ours, theirs))
    assert all(found[part] == expected[part] for part in ("state", "taps", "widths", "norms"))
