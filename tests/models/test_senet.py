"""SENet: arguments of its class."""

import pytest

from mvlib.models.senet import legacy_seresnet18

from .pairs import assert_same_effect

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
