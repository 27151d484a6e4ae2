"""PP-LCNetV2: branches that are merged, and what it refuses."""

import pytest
import torch

from mvlib.layers import reparameterize
from mvlib.models.lcnetv2 import LCNetV2
from tests.parity import harness

TINY = dict(scale=0.25, depths=(1, 1, 2, 2), num_classes=3)


def test_merged_branches_give_the_same_and_have_the_keys_of_inference_mode():
    model, image = LCNetV2(**TINY).eval(), torch.randn(2, 3, 64, 64)
    harness.randomize(model, image)
    with torch.no_grad():
        before = model(image)
        assert reparameterize(model) == 4
        assert harness.relative_difference(model(image), before) < 1e-4
    merged = LCNetV2(inference_mode=True, **TINY)
    assert model.state_dict().keys() == merged.state_dict().keys()


def test_bad_arguments_are_reported():
    with pytest.raises(ValueError, match="global_pool 'catavgmax' changes the width, which this head does not fit"):
        LCNetV2(global_pool="catavgmax", **TINY)
