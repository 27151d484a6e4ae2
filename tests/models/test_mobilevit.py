"""MobileViT: maps that patches do not divide, options of its blocks."""

import pytest

from .pairs import assert_same_effect


@pytest.mark.parametrize("name", ["mobilevit_xxs", "mobilevitv2_050"])
def test_maps_that_patches_do_not_divide(name):
    assert_same_effect(name, (70, 104), in_chans=1)
