"""HGNet: configs of users' own, and what it refuses."""

import pytest
import timm
import torch

from mvlib.models.hgnet import HighPerfGpuNet, hgnetv2_b0, model_cfgs
from tests.parity import harness


def tiny(stem_type, chs=8):
    stages = {f"stage{i}": [chs * i, chs, chs * (i + 1), 2, i > 1, i > 2, 3, 2] for i in range(1, 5)}
    return dict(stem_type=stem_type, stem_chs=[chs, chs], **stages)


@pytest.mark.parametrize("stem_type", ["v1", "v2"])
@pytest.mark.parametrize("kwargs", [dict(use_lab=True), dict(head_hidden_size=None), dict(head_hidden_size=24)])
def test_a_config_makes_timms_model(stem_type, kwargs):
    theirs = timm.models.hgnet.HighPerfGpuNet(tiny(stem_type), num_classes=3, **kwargs).eval()
    ours = HighPerfGpuNet(tiny(stem_type), num_classes=3, **kwargs).eval()
    image = torch.randn(2, 3, 64, 64)
    harness.randomize(theirs, image)
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        assert harness.relative_difference(ours(image), theirs(image)) < harness.TOLERANCE


def test_configs_are_timms():
    assert model_cfgs == timm.models.hgnet.model_cfgs


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(cfg=dict(tiny("v1"), stem_type="v3")), "stem_type is 'v1' or 'v2', not 'v3'"),
    (dict(global_pool="catavgmax"), "global_pool 'catavgmax' changes the width, which the layers in this head"),
    (dict(global_pool="med"), "unknown global_pool 'med'"),
    (dict(global_pool=""), "a classifier needs pooling: num_classes is 0 where global_pool is ''"),
])
def test_bad_arguments_are_reported(kwargs, message):
    with pytest.raises(ValueError, match=message):
        hgnetv2_b0(**kwargs)
