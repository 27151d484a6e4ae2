"""VGG against timm and torchvision: taps, pruning, options, other image sizes, torchvision's checkpoints."""

import re

import pytest
import timm
import torch
import torchvision
from timm.models import vgg as timm_vgg

from mvlib.loading import load_weights
from mvlib.models.vgg import VGG
from mvlib.registry import load_entrypoint
from tests.parity import harness
from tests.skeleton import skeletons

from .pairs import assert_same_models

NAMES = timm.list_models(module="vgg")
SMALL = dict(cfg=(8, "M", 12, 12, "M", 16, "M", 16, "M", 20, "M"), mlp_ratio=0.0625)


@pytest.mark.parametrize(("size", "kwargs"), [
    (32, {}),
    (224, {}),
    (288, {}),  # hidden layers at several positions
    (75, dict(norm_layer=torch.nn.BatchNorm2d, in_chans=5)),
    (288, dict(global_pool="catavgmax")),
    (288, dict(global_pool="max", num_classes=0)),
    (288, dict(global_pool="", num_classes=0)),
])
def test_arguments_have_timms_effect(size, kwargs):
    assert_same_models(timm_vgg.VGG, VGG, size, **SMALL, **kwargs)


def test_a_new_head_keeps_the_hidden_layers():
    ours, image = VGG(**SMALL).eval(), harness.random_image(64)
    before = ours.forward_head(ours.forward_features(image), pre_logits=True)
    ours.reset_classifier(3, "catavgmax")
    assert ours(image).shape == (2, 3) and ours.head_hidden_size == 2 * 4096
    ours.reset_classifier(0, "avg")
    assert torch.equal(ours(image), before)


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(output_stride=16), "output_stride is 32 for a VGG, not 16"),
    (dict(norm_layer="norm"), "unknown norm layer 'norm'"),
    (dict(act_layer="rely"), "unknown activation 'rely'"),
    (dict(global_pool="mean"), "unknown global_pool 'mean'"),
])
def test_bad_arguments_are_named(kwargs, message):
    with torch.device("meta"), pytest.raises(ValueError, match=re.escape(message)):
        VGG(**kwargs)


# --- torchvision


def torchvision_pair(builder, **kwargs):
    """torchvision's model with random weights and ours, which shares them."""
    with skeletons():
        theirs, ours = getattr(torchvision.models, builder)(), load_entrypoint(builder)(**kwargs)
    theirs.to_empty(device="cpu")
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
    harness.randomize(theirs, harness.random_image(64))
    load_weights(ours, theirs.state_dict())
    return theirs, ours.eval()


@pytest.mark.parametrize("builder", [
    pytest.param(name, marks=[] if name == "vgg11_bn" else pytest.mark.slow) for name in NAMES])
def test_torchvisions_grid_and_dropout(builder):
    theirs, ours = torchvision_pair(builder, drop_rate=0.5, fixed_grid=True)
    with torch.inference_mode():
        for side in (64, 288):
            image = harness.random_image(side, batch=1)
            expected = theirs(image)
            assert expected.std() > 1e-3 and harness.relative_difference(ours(image), expected) < 1e-5
        theirs.train(), ours.train()
        for module in (*theirs.modules(), *ours.modules()):
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        image = harness.random_image(64, batch=1)
        outputs = []
        for model in (theirs, ours):  # dropout stands in the same places
            torch.manual_seed(0)
            outputs.append(model(image))
        assert harness.relative_difference(*outputs) < 1e-5


