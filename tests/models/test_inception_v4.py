"""Inception-v4 and Inception-ResNet-v2; their blocks are compared in tests/faces, the networks in slow tests."""


import pytest

import mvlib

NAMES = ("inception_v4", "inception_resnet_v2")


@pytest.mark.parametrize("name", NAMES)
def test_their_stride_is_32(name):
    with pytest.raises(ValueError, match="output_stride is 32 for an Inception, not 16"):
        mvlib.model_entrypoint(name)(output_stride=16)
