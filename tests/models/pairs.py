"""Ours and timm's of the same random weights, for what a family's own file compares."""

from functools import partial

import torch

import mvlib
from mvlib.loading import load_weights
from tests.parity import harness


def image(size=64, batch=2, chans=3):
    height, width = (size, size) if isinstance(size, int) else size
    return torch.randn(batch, chans, height, width, generator=torch.Generator().manual_seed(1))


def build(name, **kwargs):
    return mvlib.create_model(name, pretrained=False, **kwargs).eval()


def pair(name, size=64, **kwargs):
    """Our architecture, timm's with the same random weights, both in eval mode, and an image for them."""
    return pair_of(partial(harness.create_timm, name), partial(build, name), size, **kwargs)


def pair_of(build_timm, build_ours, size=64, **kwargs):
    """The same of what two classes or functions build."""
    theirs, ours = build_timm(**kwargs), build_ours(**kwargs)
    x = image(size, chans=theirs.in_chans)
    harness.randomize(theirs, x)
    ours.load_state_dict(theirs.state_dict())
    return ours.eval(), theirs, x


def assert_same(ours, theirs, x):
    with torch.inference_mode():
        assert harness.relative_difference(ours(x), theirs(x)) < harness.TOLERANCE


def assert_same_effect(name, size=64, **kwargs):
    """Arguments have timm's effect: on logits, features, the classifier's input, taps and what is said of them."""
    assert_same_models(partial(harness.create_timm, name), partial(build, name), size, **kwargs)


def assert_same_models(build_timm, build_ours, size=64, **kwargs):
    ours, theirs, x = pair_of(build_timm, build_ours, size, **kwargs)
    assert_same(ours, theirs, x)
    with torch.inference_mode():
        features = theirs.forward_features(x)
        results = [[*_listed(model.forward_features(x)), model.forward_head(features, pre_logits=True),
                    *model.forward_intermediates(x, intermediates_only=True)] for model in (ours, theirs)]
    for own, other in zip(*results, strict=True):
        assert harness.relative_difference(own, other) < harness.TOLERANCE
    found, expected = map(harness.described, (ours, theirs))
    assert all(found[part] == expected[part] for part in ("state", "taps", "widths", "norms"))


def _listed(features):
    return features if isinstance(features, list) else [features]  # CoaT's are of several scales


def assert_same_resized(ours, theirs, **change):
    """`set_input_size` leaves timm's state dict and outputs."""
    for model in (ours, theirs):
        model.set_input_size(**change)
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value, rtol=1e-4, atol=1e-5, msg=key)
    ours.load_state_dict(theirs.state_dict())
    assert_same(ours, theirs, image(getattr(theirs, "patch_embed", theirs).img_size))


def assert_fitted(state_dict, expected, ours, theirs):
    """Weights of another size are resampled to what timm's filter made of them, and give its outputs."""
    fitted = ours.fit_state_dict(state_dict)
    assert fitted.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(fitted[key], value, rtol=1e-4, atol=1e-5, msg=key)
    load_weights(ours, state_dict)
    theirs.load_state_dict(expected)
    assert_same(ours.eval(), theirs.eval(), image(getattr(theirs, "patch_embed", theirs).img_size))


def assert_initialised_alike(build_ours, build_timm, **kwargs):
    """Means, deviations, and where the values end."""
    torch.manual_seed(0)
    ours, theirs, report = build_ours(**kwargs), build_timm(**kwargs), harness.Report(str(kwargs))
    harness.check_init(report, ours, theirs)
    assert report.ok, report.problems
    for key, expected in theirs.named_parameters():
        if expected.numel() > 1000:
            largest = expected.abs().max()
            assert abs(ours.get_parameter(key).abs().max() - largest) <= 0.4 * largest, key
