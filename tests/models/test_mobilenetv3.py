"""What is special to MobileNetV3 and its relatives: the head after pooling, options, torchvision's checkpoints.

Keys, outputs, features and gradients are compared with timm's in tests/parity.
"""

from functools import partial

import pytest
import timm
import torch
import torchvision
from torch import nn

from mvlib.layers import GroupNormAct
from mvlib.loading import load_weights
from tests.parity.harness import randomize, relative_difference

from .pairs import assert_same_effect, build, image

SMALL, HYBRID = "mobilenetv3_small_050", "mobilenetv4_hybrid_medium_075"


# options


@pytest.mark.parametrize(("name", "kwargs"), [
    (SMALL, dict(num_classes=0)),
    (SMALL, dict(num_classes=0, global_pool="")),
    (SMALL, dict(global_pool="max")),
    (SMALL, dict(global_pool="catavgmax")),
    ("mobilenetv3_small_075", dict(group_size=8, depth_multiplier=1.4, bn_eps=1e-2, pad_type="same", in_chans=3)),
    ("mobilenetv4_conv_small_035", dict(act_layer="silu", aa_layer="avg", num_classes=0, global_pool="catavgmax")),
])
def test_arguments_have_timms_effect(name, kwargs):
    assert_same_effect(name, 75, **kwargs)


@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "tf_mobilenetv3_small_075", HYBRID])
def test_dilated_features_equal_timms_extractor(name, output_stride):
    theirs = timm.create_model(name, features_only=True, output_stride=output_stride)
    randomize(theirs, image(96))
    ours = build(name, output_stride=output_stride)
    ours.prune_intermediate_layers(None)
    ours.load_state_dict(theirs.state_dict())
    with torch.inference_mode():
        for own, other in zip(ours.forward_intermediates(image(96), intermediates_only=True), theirs(image(96))):
            assert relative_difference(own, other) < 1e-5
    assert [step.reduction for step in ours.flow.taps] == theirs.feature_info.reduction()


def test_class_takes_what_the_entrypoints_set():
    model = build(SMALL, num_classes=7, head_bias=False, stem_size=24, fix_stem=True, num_features=64, se_layer="gc",
                  norm_layer=partial(GroupNormAct, group_size=8), stem_kernel_size=5, head_scaling="scale")
    assert (model.conv_stem.out_channels, model.conv_head.out_channels, model.conv_head.bias) == (24, 32, None)
    assert model.conv_stem.kernel_size == (5, 5)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert model(image()).shape == (2, 7)


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(output_stride=4), "output_stride is 8, 16 or 32, not 4"),
    (dict(global_pool="mean"), "unknown global_pool 'mean'"),
    (dict(block_args=[["xx_r1"]]), "unknown block 'xx'"),
    (dict(depth_multiplier=(1.0, 2.0)), "2 depth multipliers do not fit 6 stages"),
])
def test_bad_arguments_are_reported(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(SMALL, **kwargs)


# the head


def test_pooling_changes_only_where_the_head_convolution_fits():
    model = build(SMALL, num_classes=7)
    model.reset_classifier(3, "max")
    assert model(image()).shape == (2, 3)
    with pytest.raises(ValueError, match="'catavgmax' gives 576 channels, and the head convolution takes 288"):
        model.reset_classifier(3, "catavgmax")
    model.reset_classifier(0, "")
    assert model(image()).shape == (2, 1024, 2, 2)
    model.prune_intermediate_layers(1)
    model.reset_classifier(3, "catavgmax")
    assert model.head_hidden_size == 576
    assert model(image()).shape == (2, 3)


# torchvision's


def test_torchvision_weights_serve_another_number_of_classes():
    theirs, ours = torchvision.models.mobilenet_v3_small(num_classes=5), build("mobilenet_v3_small", num_classes=7)
    load_weights(ours, theirs.state_dict(), fit_head=True)
    assert torch.equal(ours.conv_head.weight.flatten(1), theirs.classifier[0].weight)
    assert ours.classifier.weight.shape == (7, 1024)
