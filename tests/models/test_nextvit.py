"""Next-ViT: norms that are merged, the authors' files, and what it refuses."""

import pytest
import torch

from mvlib.layers import reparameterize
from mvlib.models.nextvit import NextConvBlock, NextViT
from tests.parity import harness

TINY = dict(depths=(1, 2, 5, 1), num_classes=3)


def test_merged_norms_give_the_same():
    model, image = NextViT(**TINY).eval(), torch.randn(1, 3, 64, 64)
    harness.randomize(model, image)
    with torch.no_grad():
        before = model(image)
        assert reparameterize(model) == 9
        assert harness.relative_difference(model(image), before) < 1e-4
    assert not [key for key in model.state_dict() if key.startswith("stages.") and ".norm1" in key]


def test_the_authors_files_load_by_order():
    model = NextViT(**TINY)
    theirs = {}
    for key, value in model.state_dict().items():
        for ours, other in (("stages.0.blocks.0.", "features.0."), (".fc1.", ".conv1."), (".fc2.", ".conv2."),
                            ("head.fc.", "proj_head.0.")):
            key = key.replace(ours, other)
        theirs[key] = value + 1
    other = NextViT(**TINY)
    other.load_state_dict(theirs)
    assert all(torch.equal(value, model.state_dict()[key] + 1) for key, value in other.state_dict().items())


def test_bad_arguments_are_reported():
    with pytest.raises(ValueError, match="40 channels cannot be divided into heads of 32"):
        NextConvBlock(16, 40)
