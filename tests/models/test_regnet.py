"""RegNet against timm and torchvision: widths, options, pruning, initial weights, foreign checkpoints."""

import re

import pytest
import torch
import torchvision
from timm.models.regnet import _filter_fn

from mvlib.loading import load_weights
from mvlib.models.regnet import RegNet, adjust_widths_groups_comp, generate_regnet
from tests.parity import harness
from tests.skeleton import skeletons

from .pairs import assert_same_effect, build


@pytest.mark.sample(2)
@pytest.mark.parametrize(("name", "size", "kwargs"), [
    ("regnetx_002", 75, dict(output_stride=16)),
    ("regnety_002", 64, dict(output_stride=8, global_pool="catavgmax", in_chans=5)),
    ("regnety_002", 65, dict(output_stride=8, downsample="avg")),  # pooled shortcuts that keep the size
    ("regnety_002", 75, dict(downsample="avg", act_layer="silu", stem_width=24)),
    ("regnety_002", 64, dict(downsample="", linear_out=True, bottle_ratio=2.0)),
    ("regnetx_004", 64, dict(group_min_ratio=0.9, w0=32, group_size=24)),
    ("regnety_002", 64, dict(num_features=48, global_pool="avgmax")),
    ("regnety_002", 64, dict(preact=True, downsample="avg", output_stride=8)),
    ("regnety_002", 64, dict(preact=True, num_features=48, num_classes=0)),
    ("regnety_002", 64, dict(num_classes=0, global_pool="")),
])
def test_arguments_have_timms_effect(name, size, kwargs):
    assert_same_effect(name, size, **kwargs)


# --- widths


def test_widths_are_the_papers():
    assert generate_regnet(36.44, 24, 2.49, 13, 8)[0] == [24, 56, *[152] * 4, *[368] * 7]  # RegNetX-200MF
    assert adjust_widths_groups_comp([72], [1.0], [16], 0.0) == ([64], [16])  # half of the way, to the even multiple
    assert adjust_widths_groups_comp([72], [1.0], [16], 0.9) == ([80], [16])  # where 64 would be less than nine tenths
    assert adjust_widths_groups_comp([40], [1.0], [120], 0.0) == ([40], [40])


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(output_stride=4), "output_stride is 8, 16 or 32, not 4"),
    (dict(downsample="max"), "unknown downsample 'max'; known: 'conv1x1', 'avg'"),
    (dict(depth=3), "RegNet has 4 stages, but depth=3, w0=80, wa=42.63, wm=2.66 make "),
    (dict(w0=81), "needs wa >= 0, wm > 1 and w0 a multiple of 8, not wa=42.63, wm=2.66, w0=81"),
    (dict(wm=1.0), "not wa=42.63, wm=1.0, w0=80"),
    (dict(global_pool="mean"), "unknown global_pool 'mean'"),
    (dict(act_layer="rely"), "unknown activation 'rely'"),
])
def test_bad_arguments_are_named(kwargs, message):
    with torch.device("meta"), pytest.raises(ValueError, match=re.escape(message)):
        RegNet(**kwargs)


# --- ClassyVision and VISSL


def to_classy(state_dict):
    """torchvision's state dict as trunk and heads of a SEER checkpoint."""
    trunk, heads = {}, {"0.projection_head.weight": torch.ones(1), "0.prototypes0.weight": torch.ones(1)}
    for key, value in state_dict.items():
        if key.startswith("fc."):
            heads[key.replace("fc.", "0.clf.0.")] = value
            continue
        key = re.sub(r"^trunk_output\.block(\d)", lambda match: f"_feature_blocks.res{int(match[1]) + 1}", key)
        for old, new in ((r"^stem", "_feature_blocks.conv1.stem"), (r"\.proj\.0", ".proj"), (r"\.proj\.1", ".bn"),
                         (r"\.f\.c\.0", ".f.c"), (r"\.f\.c\.1", ".f.final_bn"), (r"\.se\.fc1", ".se.excitation.0"),
                         (r"\.se\.fc2", ".se.excitation.2")):
            key = re.sub(old, new, key)
        trunk[key] = value
    return trunk, heads


def as_checkpoint(trunk, heads):
    return {"classy_state_dict": {"base_model": {"model": {"trunk": trunk, "heads": heads}}}, "iteration": 7}


def as_prefixed(trunk, heads):
    return {**{f"trunk.{key}": value for key, value in trunk.items()},
            **{f"heads.{key}": value for key, value in heads.items()}}


@pytest.mark.parametrize("form", [
    as_checkpoint, as_prefixed, lambda trunk, heads: dict(trunk=trunk, heads=heads),
    lambda trunk, heads: {**trunk, **heads},
], ids=["checkpoint", "prefixed", "nested", "flat"])
def test_classy_checkpoints_load(form):
    theirs, image = torchvision.models.regnet_y_400mf(), harness.random_image(64)
    harness.randomize(theirs, image)
    trunk, heads = to_classy(theirs.state_dict())
    assert "_feature_blocks.res2.block1-0.f.final_bn.weight" in trunk
    with skeletons():
        ours = build("regnety_004")
    load_weights(ours, form(trunk, heads))
    assert list(ours.state_dict()) == list(build("regnety_004").state_dict())
    assert set(_filter_fn(as_checkpoint(trunk, heads))) == set(ours.state_dict())
    with torch.inference_mode():
        assert harness.relative_difference(ours.eval()(image), theirs(image)) < 1e-5


def test_a_pretrained_trunk_has_no_classifier():
    trunk, _ = to_classy(torchvision.models.regnet_y_400mf().state_dict())
    with skeletons():
        ours = build("regnety_004", num_classes=0)
    load_weights(ours, {key: torch.zeros(value.shape) for key, value in trunk.items()})
    assert not any(parameter.is_meta for parameter in ours.parameters())
