"""TResNet: its authors' files, of norms that activate in place."""

import re

import pytest
import timm
import torch
from timm.models.tresnet import checkpoint_filter_fn

from mvlib.models.tresnet import SpaceToDepth, tresnet_m

from .pairs import assert_same, assert_same_effect, build, image

SMALL = dict(layers=(1, 2, 1, 1), width_factor=0.25, num_classes=5)
BLURRED = re.compile(r"layer(2\.0\.conv1|[34]\.0\.conv2)\.(conv|bn)")  # which had one more container around them


def authors(state_dict):
    """Their names for the same layers, and scales of both signs; they count no batches."""
    theirs = {}
    for key, value in state_dict.items():
        if key.endswith("bn.weight"):
            value = value * torch.randn(value.shape).sign()
        if not key.endswith("num_batches_tracked"):
            key = BLURRED.sub(r"layer\1.0.\2", key)
            theirs[key.replace(".conv.", ".0.").replace(".bn.", ".1.")] = value
    return theirs


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
def test_authors_files(tmp_path, wrapper):
    theirs = timm.create_model("tresnet_m", **SMALL).eval()
    file = authors(theirs.state_dict())
    assert {"body.conv1.0.weight", "body.layer2.0.conv1.0.1.weight", "body.layer2.0.downsample.1.0.weight",
            "body.layer4.0.conv3.1.running_var", "body.layer1.0.se.fc1.bias", "head.fc.weight"} <= file.keys()
    torch.save({wrapper: file} if wrapper else file, tmp_path / "tresnet.pth")
    ours = build("tresnet_m", checkpoint_path=tmp_path / "tresnet.pth", **SMALL)
    theirs.load_state_dict(checkpoint_filter_fn(file, theirs))
    for key, value in theirs.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(ours.state_dict()[key], value), key
    assert_same(ours, theirs, image())


@pytest.mark.parametrize("kwargs", [
    dict(v2=True, width_factor=0.3), dict(width_factor=0.3, in_chans=1), dict(global_pool="fastcatavgmax"),
])
def test_arguments_have_timms_effect(kwargs):
    assert_same_effect("tresnet_m", 64, **{**SMALL, **kwargs})


def test_pixels_become_channels():
    x = torch.arange(2 * 3 * 8 * 12.0).view(2, 3, 8, 12)
    out = SpaceToDepth()(x)
    assert out.shape == (2, 48, 2, 3) and torch.equal(out[1, 3 * (4 * 2 + 1):3 * (4 * 2 + 1) + 3, 1, 2], x[1, :, 6, 9])


def test_each_of_a_square_s_pixels_is_adapted_to_other_channels(tmp_path):
    source = build("tresnet_m", **SMALL)
    torch.save(source.state_dict(), tmp_path / "tresnet.pth")
    ours = build("tresnet_m", checkpoint_path=tmp_path / "tresnet.pth", in_chans=6, **SMALL)
    x = image()
    assert_same(lambda six: ours(six), lambda six: source(six[:, :3]), torch.cat([x, x], dim=1))


def test_sides_that_are_no_multiples_of_4_are_refused():
    with pytest.raises(ValueError, match="the input is 66 x 64, not multiples of 4 x 4; resize the images$"):
        build("tresnet_m", **SMALL)(image((66, 64)))


def test_bad_pooling_is_named():
    with torch.device("meta"), pytest.raises(ValueError, match="unknown global_pool 'mean'"):
        tresnet_m(global_pool="mean")
