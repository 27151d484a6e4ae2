"""ShuffleNetV2: shuffling, dilation. tests/parity/test_torchvision.py compares it with torchvision's."""

import pytest
import torch

import mvlib
from mvlib.models.shufflenetv2 import ShuffleNetV2, shuffle_channels
from tests.parity.harness import random_image, randomize, relative_difference


def test_shuffle_interleaves_the_halves():
    x = torch.arange(6.0).reshape(1, 6, 1, 1)
    assert shuffle_channels(x).flatten().tolist() == [0, 3, 1, 4, 2, 5]
    assert shuffle_channels(x, 3).flatten().tolist() == [0, 2, 4, 1, 3, 5]


def test_dilation_sees_what_the_strides_saw():
    # Between the strides nothing but dilated kernels: a dense map holds the strided map's values at its even positions.
    strided, dense = (mvlib.create_model("shufflenet_v2_x0_5", output_stride=stride).eval() for stride in (32, 16))
    randomize(strided, random_image(96))
    dense.load_state_dict(strided.state_dict())
    with torch.inference_mode():
        x = strided.stage3(strided.stage2(strided.maxpool(strided.conv1(random_image(96)))))
        expected, found = strided.stage4(x), dense.stage4(x)
    assert relative_difference(found[:, :, ::2, ::2], expected) < 1e-5


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(layers=(4, 8)), "3 stages and 5 channel counts, not 2 and 5"),
    (dict(channels=(24, 48, 96)), "3 stages and 5 channel counts, not 3 and 3"),
    (dict(output_stride=4), "output_stride is 8, 16 or 32, not 4"),
    (dict(global_pool="mean"), "unknown global_pool 'mean'"),
])
def test_bad_arguments_are_reported(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ShuffleNetV2(**kwargs)
