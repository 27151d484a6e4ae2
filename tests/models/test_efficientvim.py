"""EfficientViM: features of several parts, two sets of classifiers, branches that merge, the authors' files."""

import copy

import pytest
import torch
from timm.models import efficientvim
from timm.utils import reparameterize_model

import mvlib
from mvlib.models.efficientvim import EfficientViMBlock, EfficientViMStage

from .pairs import assert_same, assert_same_effect, build, pair

NARROW = dict(embed_dim=(16, 24, 32), depths=(1, 1, 2), state_dim=(5, 4, 3), num_classes=10)


@pytest.mark.parametrize("name", ["efficientvim_m1", "efficientvim_m1_dist"])
def test_arguments_have_timms_effect(name):
    assert_same_effect(name, 64, **NARROW, mlp_ratio=2.0, ssd_expand=2.0)


def test_features_are_timms_parts():
    ours, theirs, x = pair("efficientvim_m1", (64, 96), **NARROW)
    with torch.inference_mode():
        for found, expected in zip(ours.forward_features(x), theirs.forward_features(x), strict=True):
            torch.testing.assert_close(found, expected)
        for options in (dict(norm=True), dict(indices=[1], stop_early=True)):
            found, expected = (model.forward_intermediates(x, **options) for model in (ours, theirs))
            for own, other in zip(found[0] + found[1], expected[0] + expected[1], strict=True):
                torch.testing.assert_close(own, other)


def test_a_pair_of_logits_in_training_that_is_distilled():
    model = build("efficientvim_m1_dist", **NARROW)
    model.set_distilled_training()
    x = torch.randn(2, 3, 64, 64)
    assert model.eval()(x).shape == (2, 10)
    assert [logits.shape for logits in model.train()(x)] == [(2, 10), (2, 10)]
    model.reset_classifier(0)
    assert model(x).shape == (2, 104)
    assert not (model.weights.requires_grad or model.weights_dist.requires_grad)


def test_branches_are_merged_as_timm_merges_them():
    ours, theirs, x = pair("efficientvim_m1", 64, **NARROW)
    merged = copy.deepcopy(ours.double())
    mvlib.layers.reparameterize(merged)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in merged.modules())
    assert_same(merged, ours, x.double())
    assert merged.state_dict().keys() == reparameterize_model(theirs).state_dict().keys()
    with pytest.raises(RuntimeError, match=r"EfficientViMBlock is merged for evaluation: call eval\(\) first"):
        EfficientViMBlock(8).train().reparameterize()


def test_the_authors_files_load_without_the_teachers_classifiers(tmp_path):
    _, theirs, x = pair("efficientvim_m1_dist", 64, **NARROW)
    state = {key: value.view(1, -1, 1, 1) if ".norm.weight" in key and "dwconv" not in key and "conv." not in key
             and "fc" not in key else value for key, value in theirs.state_dict().items()}
    assert sum(value.dim() == 4 and value.shape[0] == 1 for value in state.values()) == 4
    torch.save({"model": {}, "model_ema": state}, tmp_path / "vim.pth")
    path = tmp_path / "vim.pth"
    assert_same(build("efficientvim_m1_dist", checkpoint_path=path, **NARROW), theirs, x)
    plain = efficientvim.EfficientViM(**NARROW).eval()
    plain.load_state_dict(efficientvim.checkpoint_filter_fn(dict(state), plain))
    assert_same(build("efficientvim_m1", checkpoint_path=path, **NARROW), plain, x)


@pytest.mark.parametrize(("arguments", "message"), [
    (dict(depths=(1, 1)), "are one for each stage"),
    (dict(global_pool="max"), "unknown global_pool 'max'; known: 'avg', ''"),
    (dict(global_pool=""), "a classifier needs pooled features: global_pool '' goes with num_classes=0"),
])
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        mvlib.model_entrypoint("efficientvim_m1")(**NARROW | arguments)


def test_what_it_refuses():
    with pytest.raises(ValueError, match="a stage has blocks, not depth 0"):
        EfficientViMStage(8, 8, 0)
    with pytest.raises(ValueError, match="the classifiers read all stages: prune_head has to be True where some go"):
        build("efficientvim_m1", **NARROW).prune_intermediate_layers([0], prune_head=False)
