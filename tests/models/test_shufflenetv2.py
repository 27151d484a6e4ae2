"""ShuffleNetV2 against torchvision, and its contract: taps, pruning, dilation, heads."""

import pytest
import torch
import torchvision

from mvlib.loading import load_weights
from mvlib.models import shufflenetv2
from mvlib.models.shufflenetv2 import ShuffleNetV2, shuffle_channels
from tests.parity.harness import randomize, relative_difference
from tests.skeleton import skeletons

NAMES = ["shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0"]
SMALL = NAMES[0]


def image(size=72, batch=2, chans=3):
    return torch.randn(batch, chans, size, size, generator=torch.Generator().manual_seed(0))


def build(name=SMALL, **kwargs):
    return getattr(shufflenetv2, name)(**{"num_classes": 7, **kwargs})


def pair(name=SMALL, **kwargs):
    """Our model and torchvision's, with the same random weights."""
    theirs = getattr(torchvision.models, name)(num_classes=7)
    randomize(theirs, image())
    ours = build(name, **kwargs)
    load_weights(ours, theirs.state_dict())
    return ours.eval(), theirs.eval()


@pytest.mark.parametrize("name", NAMES)
def test_keys_and_outputs_are_torchvisions(name):
    ours, theirs = pair(name)
    assert [(key, value.shape) for key, value in ours.state_dict().items()] == \
        [(key, value.shape) for key, value in theirs.state_dict().items()]
    with torch.inference_mode():
        for size in (72, 111):
            assert relative_difference(ours(image(size)), theirs(image(size))) < 1e-5


def test_gradients_equal_torchvisions():
    ours, theirs = pair()
    for model in (ours, theirs):
        model.double().train()(image().double()).square().sum().backward()
    for (key, own), (_, other) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert relative_difference(own.grad, other.grad) < 1e-5, key


def test_shuffle_interleaves_the_halves():
    x = torch.arange(6.0).reshape(1, 6, 1, 1)
    assert shuffle_channels(x).flatten().tolist() == [0, 3, 1, 4, 2, 5]
    assert shuffle_channels(x, 3).flatten().tolist() == [0, 2, 4, 1, 3, 5]


@pytest.mark.parametrize("name", NAMES)
def test_taps_are_torchvisions_stages(name):
    ours, theirs = pair(name)
    y, stages = image(), []
    with torch.inference_mode():
        final, taps = ours.forward_intermediates(image())
        for stage in (theirs.conv1, theirs.maxpool, theirs.stage2, theirs.stage3, theirs.stage4):
            y = stage(y)
            stages.append(y)
        assert relative_difference(final, theirs.conv5(y)) < 1e-5
    for tap, expected, info in zip(taps, stages, ours.feature_info, strict=True):
        assert relative_difference(tap, expected) < 1e-5
        assert (tap.shape[1], -(-72 // info["reduction"])) == (info["num_chs"], tap.shape[-1])
    assert [info["reduction"] for info in ours.feature_info] == [2, 4, 8, 16, 32]


@pytest.mark.parametrize(("output_stride", "side"), [(32, 3), (16, 6), (8, 12)])
def test_output_stride_becomes_dilation(output_stride, side):
    ours, _ = pair(output_stride=output_stride)
    with torch.inference_mode():
        dense = ours.forward_features(image(96))
    assert dense.shape[-2:] == (side, side)
    assert ours.feature_info[-1]["reduction"] == output_stride


def test_dilation_sees_what_the_strides_saw():
    # Between the strides nothing but dilated kernels: a dense map holds the strided map's values at its even positions.
    strided, _ = pair()
    dense, _ = pair(output_stride=16)
    with torch.inference_mode():
        x = strided.stage3(strided.stage2(strided.maxpool(strided.conv1(image(96)))))
        expected, found = strided.stage4(x), dense.stage4(x)
    assert relative_difference(found[:, :, ::2, ::2], expected) < 1e-5


def test_built_on_meta_it_initialises_like_torchvision():
    with skeletons():
        ours = build()
    ours.to_empty(device="cpu")
    ours.init_weights()
    expected = torchvision.models.shufflenet_v2_x0_5(num_classes=7).state_dict()
    for key, value in ours.state_dict().items():
        spread = expected[key].float().std(correction=0)
        assert torch.equal(value, expected[key]) if spread == 0 \
            else abs(value.std(correction=0) / spread - 1) < 0.1 + 5 / value.numel() ** 0.5, key


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(layers=(4, 8)), "3 stages and 5 channel counts, not 2 and 5"),
    (dict(channels=(24, 48, 96)), "3 stages and 5 channel counts, not 3 and 3"),
    (dict(output_stride=4), "output_stride is 8, 16 or 32, not 4"),
    (dict(global_pool="mean"), "unknown global_pool 'mean'"),
])
def test_bad_arguments_are_reported(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ShuffleNetV2(**kwargs)
