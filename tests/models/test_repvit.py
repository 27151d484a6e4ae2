"""RepViT: options, two classifiers, what becomes plain convolutions, files with and without branches."""

import copy

import pytest
import torch
from torch.testing import assert_close

import mvlib
from mvlib.layers import reparameterize
from mvlib.loading import load_weights
from mvlib.models.repvit import RepVit
from tests.parity import harness

from .pairs import assert_same, assert_same_effect, build, pair

TINY = dict(embed_dim=(16, 24), depth=(2, 1))


def test_arguments_have_timms_effect():
    assert_same_effect("repvit_m0_9", (70, 90), **TINY, mlp_ratio=(2, 3), kernel_size=5, distillation=False, in_chans=5)


@pytest.mark.parametrize("name", ["repvit_m0_9", "repvit_m1"])
def test_what_is_merged_is_what_timm_merges(name):
    model, theirs, x = pair(name, **TINY, num_classes=7)
    expected, merged = model(x), copy.deepcopy(model)
    assert merged.fuse() is merged and reparameterize(merged) == 0
    assert not any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in merged.modules())
    assert harness.relative_difference(merged(x), expected) < 1e-5
    assert_close(dict(merged.state_dict()), dict(theirs.fuse().state_dict()), rtol=1e-4, atol=1e-5)

    optimized, report = mvlib.optimize(model, x, compile="off")
    assert report["reparameterize"].done and harness.relative_difference(optimized(x), expected) < 1e-4
    assert torch.equal(model(x), expected)

    fresh, fresh_merged = build(name, **TINY, num_classes=7), build(name, **TINY, num_classes=7).fuse()
    for loaded in (fresh, fresh_merged):  # the file of a merged model
        load_weights(loaded, dict(merged.state_dict()))
        assert harness.relative_difference(loaded(x), expected) < 1e-5


def test_two_classifiers():
    ours, theirs, x = pair("repvit_m0_9", **TINY)
    for model in (ours, theirs):
        model.set_distilled_training(True)
        model.train()
    for own, other in zip(ours(x), theirs(x), strict=True):
        assert harness.relative_difference(own, other) < 1e-5
    for distillation in (True, False):
        for model in (ours, theirs):
            model.reset_classifier(5, distillation=distillation)
        assert ours.model_args["distillation"] == distillation
        ours.load_state_dict(theirs.state_dict())
        assert_same(ours.eval(), theirs.eval(), x)
    torch.manual_seed(0)
    ours.reset_classifier(500)
    assert abs(ours.head.head.l.weight.std() - 0.02) < 0.002 and not ours.head.head.l.bias.any()


def test_mlps_begin_with_0_however_the_model_is_made():
    with torch.device("meta"):
        model = RepVit(**TINY)
    model.to_empty(device="cpu").init_weights()
    for made in (model, RepVit(**TINY)):
        weights = [value for key, value in made.named_parameters()
                   if key.endswith(("mixer.conv2.bn.weight", "ffn.conv2.bn.weight"))]
        assert len(weights) == 5 and not any(weight.any() for weight in weights)


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(global_pool="max"), "unknown global_pool 'max'; known: 'avg', ''"),
    (dict(depth=(1,)), "depth and mlp_ratio are for 1 and 2 stages, embed_dim for 2"),
])
def test_bad_arguments_are_named(kwargs, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        RepVit(**{**TINY, **kwargs})
