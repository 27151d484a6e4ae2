"""Microsoft's EfficientViT: windows that are no larger than their map, and biases for other windows."""

import copy

import pytest
import torch
from timm.models import efficientvit_msra

import mvlib
from mvlib.models.efficientvit_msra import CascadedGroupAttention, EfficientVitStage, LocalWindowAttention

from .pairs import assert_same, assert_same_effect, pair

NARROW = dict(embed_dim=(16, 32, 48), num_heads=(2, 2, 3), depth=(1, 1, 1), num_classes=10)


@pytest.mark.parametrize("options", [
    dict(img_size=(96, 64), key_dim=(8, 4, 16), window_size=(3, 1, 2), kernels=(3, 5, 7), global_pool="catavgmax"),
    dict(down_ops=(("subsample", 2), ("", 1), ("subsample", 2)), embed_dim=(16, 16, 24)),
    dict(global_pool="", num_classes=0),
])
def test_arguments_have_timms_effect(options):
    assert_same_effect("efficientvit_m0", 96, **NARROW | options)


def test_images_of_any_shape():
    """Windows do not divide their maps."""
    assert_same(*pair("efficientvit_m0", (231, 101), **NARROW))


def test_another_size_resamples_the_biases_that_it_shrinks():
    ours, theirs, x = pair("efficientvit_m0", 224, **NARROW)
    for model in (ours, theirs):
        model.set_input_size((160, 96))
    assert ours.model_args["img_size"] == ours.img_size == (160, 96)
    assert_same(ours, theirs, x)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}


def test_weights_for_another_size_are_resampled(tmp_path):
    _, theirs, x = pair("efficientvit_m0", 224, **NARROW)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    loaded = mvlib.create_model("efficientvit_m0", checkpoint_path=str(tmp_path / "weights.pth"), img_size=96, **NARROW)
    expected = efficientvit_msra.EfficientVitMsra(img_size=96, **NARROW)
    expected.load_state_dict(efficientvit_msra.checkpoint_filter_fn(theirs.state_dict(), expected))
    assert_same(loaded.eval(), expected.eval(), x)


def test_the_classifier_is_a_layer_behind_a_norm():
    ours, theirs, _ = pair("efficientvit_m0", 64, **NARROW)
    assert isinstance(ours.get_classifier(), torch.nn.Linear) and isinstance(theirs.get_classifier(), torch.nn.Linear)
    assert ours.get_classifier() is ours.head.linear
    ours.reset_classifier(0)
    assert isinstance(ours.get_classifier(), torch.nn.Identity)


def test_norms_are_merged():
    ours, _, x = pair("efficientvit_m0", 64, **NARROW)
    merged = copy.deepcopy(ours)
    mvlib.layers.reparameterize(merged)
    assert not any(isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d) for module in merged.modules())
    assert_same(merged, ours, x)


@pytest.mark.parametrize(("arguments", "message"), [
    (dict(depth=(1, 1)), "embed_dim, key_dim, depth, num_heads, window_size and down_ops are one for each stage"),
    (dict(global_pool=""), "a classifier needs pooled features: global_pool '' goes with num_classes=0"),
    (dict(kernels=(3,)), r"kernels \(3,\) are a number for each of the 2 heads"),
])
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        mvlib.model_entrypoint("efficientvit_m0")(**NARROW | arguments)


def test_bad_parts():
    with pytest.raises(ValueError, match="window_resolution 0 is not positive"):
        LocalWindowAttention(8, 4, 2, window_resolution=0)
    with pytest.raises(ValueError, match="a stage without downsample keeps its 8 channels, they cannot become 16"):
        EfficientVitStage(8, 16, 4)
    with pytest.raises(ValueError, match="are a number for each of the 5 heads"):
        CascadedGroupAttention(10, 4, 5)
    with pytest.raises(ValueError, match="2 heads that give 16 channels each cannot read 8 in groups of as many"):
        CascadedGroupAttention(8, 4, 2)
