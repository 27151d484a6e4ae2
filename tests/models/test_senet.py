"""SENet: arguments of its class, and a block of a user's."""

import pytest
import timm.models.senet as timms
import torch
from torch import nn

import mvlib.models.senet as ours
from mvlib.models.senet import legacy_seresnet18

from .pairs import assert_same, assert_same_effect

ONE_EACH = dict(layers=(1, 1, 1, 1))


@pytest.mark.parametrize(("name", "kwargs"), [
    ("legacy_seresnet18", dict(ONE_EACH, input_3x3=True, inplanes=48, reduction=4, in_chans=1)),
    ("legacy_seresnet18", dict(ONE_EACH, groups=2, downsample_kernel_size=3, downsample_padding=1)),
])
def test_arguments_have_timms_effect(name, kwargs):
    assert_same_effect(name, 65, **kwargs)


def test_other_than_four_stages_are_refused():
    with pytest.raises(ValueError, match="layers are the blocks of 4 stages, not of 3"):
        legacy_seresnet18(layers=(1, 1, 1))


def with_a_users_block(module):
    class Narrow(module.Bottleneck):
        expansion = 2

        def __init__(self, inplanes, planes, groups, reduction, stride=1, downsample=None, **_):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(inplanes, planes // 2, 1), nn.BatchNorm2d(planes // 2)
            self.conv2, self.bn2 = nn.Conv2d(planes // 2, planes // 2, 3, stride, 1), nn.BatchNorm2d(planes // 2)
            self.conv3, self.bn3 = nn.Conv2d(planes // 2, planes * 2, 1), nn.BatchNorm2d(planes * 2)
            self.relu, self.se_module, self.downsample = nn.ReLU(), module.SEModule(planes * 2, reduction), downsample

    return module.SENet(Narrow, (1, 2, 1, 1), 1, 16, num_classes=5).eval()


def test_a_block_of_a_user_by_timms_base_class():
    mine, theirs = map(with_a_users_block, (ours, timms))
    mine.load_state_dict(theirs.state_dict())
    assert_same(mine, theirs, torch.randn(1, 3, 65, 65))
