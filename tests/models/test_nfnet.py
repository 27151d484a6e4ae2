"""NFNets: variance that is kept without norms, options, initial weights, standardised kernels made plain."""

from functools import partial

import pytest
import timm
import torch

import mvlib
from mvlib.layers import StdConv2d, reparameterize
from mvlib.models.nfnet import NormFreeNet
from tests.parity import harness

from .pairs import assert_initialised_alike, assert_same_effect, build

SMALL = dict(depths=(1, 1, 2, 1), width_factor=0.125)


def create(name="test_nfnet", **kwargs):
    torch.manual_seed(0)
    return mvlib.create_model(name, pretrained=False, **kwargs).eval()


@pytest.mark.parametrize(("name", "kwargs"), [
    ("test_nfnet", dict(output_stride=8, global_pool="catavgmax", in_chans=5)),
    ("test_nfnet", dict(output_stride=16, gamma_in_act=True, skipinit=True, act_layer="relu6")),
    ("test_nfnet", dict(stem_type="deep", same_padding=True, num_features=0)),
    ("test_nfnet", dict(stem_type="deep_tiered", alpha=0.5, attn_gain=1.5)),
    ("test_nfnet", dict(stem_type="deep_pool", output_stride=8, std_conv_eps=0.1)),
    ("nf_regnet_b0", dict(depths=(1, 2, 1, 1), stem_type="3x3_pool", ch_div=4, attn_layer=None)),
    ("nf_seresnet26", dict(SMALL, stem_type="7x7", act_layer="tanh", extra_conv=True, group_size=4)),
])
def test_arguments_have_timms_effect(name, kwargs):
    assert_same_effect(name, 70, **kwargs)


@pytest.mark.parametrize("gamma_in_act", [False, True])
def test_the_variance_is_what_the_scales_assume(gamma_in_act):
    """Noise through blocks whose branches are fresh: each adds alpha squared to the variance."""
    model = create(depths=(1, 1, 4, 1), channels=(64, 128, 256, 256), group_size=None, bottle_ratio=0.5,
                   attn_layer=None, gamma_in_act=gamma_in_act, alpha=0.5)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, StdConv2d):
                module.gain.fill_(1.0)
        x = torch.randn(8, 256, 8, 8)
        for number, block in enumerate(model.stages[2][1:], start=1):  # the first block leaves 1 + alpha**2
            assert block.beta == pytest.approx((1 + number * 0.25) ** -0.5)
            branch = (block(x / block.beta) - x / block.beta) / block.alpha
            assert branch.var() == pytest.approx(1.0, rel=0.25)


@pytest.mark.parametrize(("name", "kwargs"), [
    ("nf_seresnet26", dict(SMALL, num_classes=500)), ("test_nfnet", dict(skipinit=True, zero_init_fc=True)),
])
def test_initial_weights_are_distributed_as_timms(name, kwargs):
    assert_initialised_alike(partial(build, name), partial(timm.create_model, name), **kwargs)


def test_kernels_are_made_plain_for_inference():
    model, image = create("dm_nfnet_f0", **SMALL, group_size=16), harness.random_image(64)
    harness.randomize(model, image)
    with torch.no_grad():
        expected = model(image)
        count = sum(isinstance(module, StdConv2d) for module in model.modules())
        assert reparameterize(model) == count > 20
        assert not any(isinstance(module, StdConv2d) for module in model.modules())
        assert harness.relative_difference(model(image), expected) < 1e-5


@pytest.mark.parametrize(("kwargs", "message"), [
    (dict(output_stride=4), "unknown output_stride 4; known: 8, 16, 32"),
    (dict(stem_type="5x5"), "unknown stem_type '5x5'"),
    (dict(act_layer="mish"), "unknown act_layer 'mish'; known: 'identity', "),
    (dict(attn_layer="sa"), "unknown attention layer 'sa'"),
])
def test_bad_arguments_are_named(kwargs, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        NormFreeNet(depths=(1, 1), channels=(8, 8), **kwargs)
