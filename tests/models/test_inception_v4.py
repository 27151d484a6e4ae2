"""Inception-v4 and Inception-ResNet-v2: each kind of block beside timm's; the networks are compared in slow tests."""

from functools import partial
from importlib import import_module

import pytest
from timm.layers import ConvNormAct

import mvlib
from mvlib.models.inception_blocks import ConvNorm
from tests.parity import harness

from .pairs import assert_same, image

NAMES = ("inception_v4", "inception_resnet_v2")
our_v4, our_resnet = (import_module(f"mvlib.models.{name}") for name in NAMES)
their_v4, their_resnet = (import_module(f"timm.models.{name}") for name in NAMES)
V4 = {
    "Mixed3a": lambda conv: our_v4.stem_blocks(conv)[0], "Mixed4a": lambda conv: our_v4.stem_blocks(conv)[1],
    "Mixed5a": lambda conv: our_v4.stem_blocks(conv)[2], "InceptionA": our_v4.grid_35, "ReductionA": our_v4.reduce_35,
    "InceptionB": our_v4.grid_17, "ReductionB": our_v4.reduce_17, "InceptionC": our_v4.grid_8,
}
RESNET = {
    "Mixed_5b": our_resnet.entry, "Block35": our_resnet.grid_35, "Mixed_6a": our_resnet.reduce_35,
    "Block17": our_resnet.grid_17, "Mixed_7a": our_resnet.reduce_17, "Block8": our_resnet.grid_8,
}
SCALES = {"Block35": 0.17, "Block17": 0.1, "Block8": 0.2}


@pytest.mark.parametrize(("module", "name", "build"), [
    *((their_v4, name, build) for name, build in V4.items()),
    *((their_resnet, name, build) for name, build in RESNET.items()),
], ids=lambda value: value if isinstance(value, str) else "")
def test_blocks_are_timms(module, name, build):
    scale = dict(scale=SCALES[name]) if name in SCALES else {}
    conv = partial(ConvNormAct, padding=0, norm_kwargs=dict(eps=1e-3))
    theirs, ours = getattr(module, name)(conv_block=conv, **scale), build(ConvNorm).eval()
    x = image(9, chans=next(theirs.parameters()).shape[1]).relu()
    harness.randomize(theirs, x)
    ours.load_state_dict(theirs.state_dict())
    assert_same(ours, theirs, x)
    assert ours(x).shape[1] == ours.out_chs


@pytest.mark.parametrize("name", NAMES)
def test_their_stride_is_32(name):
    with pytest.raises(ValueError, match="output_stride is 32 for an Inception, not 16"):
        mvlib.model_entrypoint(name)(output_stride=16)
