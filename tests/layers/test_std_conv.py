"""Standardised convolutions: timm's results, and plain convolutions of their kernels where weights do not change."""

import pytest
import timm.layers
import torch
from torch import nn

import mvlib
from mvlib import layers
from mvlib.optimization.folding import fold_batch_norms
from mvlib.optimization.prepacking import PackedConv2d, can_prepack, prepack

NAMES = ("StdConv2d", "StdConv2dSame", "ScaledStdConv2d", "ScaledStdConv2dSame")


def random_conv(name, *args, library=layers, **kwargs):
    conv = getattr(library, name)(*args, **kwargs)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator) + 0.3)  # a mean that does not vanish
    return conv


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kwargs", [
    dict(kernel_size=3), dict(kernel_size=3, stride=2, groups=2, bias=True), dict(kernel_size=(1, 3), dilation=2),
    dict(kernel_size=4, stride=3, eps=0.1), dict(kernel_size=1, stride=2)])
def test_outputs_and_gradients_are_timms(name, kwargs):
    found = []
    for library in (layers, timm.layers):
        conv = random_conv(name, 4, 6, library=library, **kwargs).double()
        x = torch.linspace(-1, 1, 2 * 4 * 11 * 10, dtype=torch.float64).sin().view(2, 4, 11, 10).requires_grad_()
        out = conv(x)
        out.square().sum().backward()
        found.append([out, x.grad, *(parameter.grad for parameter in conv.parameters())])
    for own, other in zip(*found, strict=True):
        torch.testing.assert_close(own, other)
    assert found[0][2].abs().max() > 0


def test_gain_and_gamma_scale():
    plain, scaled = random_conv("StdConv2d", 4, 6, 3), random_conv("ScaledStdConv2d", 4, 6, 3, gamma=2.0, bias=False)
    with torch.no_grad():
        scaled.gain.fill_(0.5)
        torch.testing.assert_close(scaled.standardised(), plain.standardised() * 0.5 * 2.0 / 36**0.5)
    conv = layers.ScaledStdConv2d(4, 6, 3, gain_init=0.25)
    assert (conv.gain == 0.25).all() and list(conv.state_dict()) == ["weight", "bias", "gain"]


@pytest.mark.parametrize("name", NAMES)
def test_a_plain_convolution_of_the_kernels(name):
    conv, x = random_conv(name, 4, 6, 3, stride=2, groups=2, bias=True), torch.randn(2, 4, 12, 12)
    model = nn.Sequential(conv, nn.ReLU())
    expected = model(x)
    assert layers.reparameterize(model) == 1
    assert list(model.state_dict()) == ["0.weight", "0.bias"] and not isinstance(model[0], layers.StdConv2d)
    torch.testing.assert_close(model(x), expected)
    assert layers.reparameterize(model) == 0


@pytest.mark.parametrize("name", NAMES)
def test_no_step_takes_the_raw_weights_for_the_kernels(name):
    norm, x = nn.BatchNorm2d(6), torch.randn(2, 4, 12, 12)
    nn.init.uniform_(norm.running_var, 0.5, 2.0)
    model = nn.Sequential(random_conv(name, 4, 6, 3, stride=2, groups=2), norm, nn.ReLU()).eval()
    expected = model(x)
    assert fold_batch_norms(model, x) == 0 and model[1] is norm
    if can_prepack():
        assert prepack(model, x) == (0, 0)
    torch.testing.assert_close(model(x), expected)

    optimized, report = mvlib.optimize(model, x, compile="off")
    assert report["reparameterize"].done and report["fold"].note.startswith("1 batch norm")
    assert isinstance(optimized.model[0], PackedConv2d) == (can_prepack() and not name.endswith("Same"))
    torch.testing.assert_close(optimized(x), expected, rtol=1e-5, atol=1e-5)
    assert model[0].weight.requires_grad and torch.equal(model(x), expected)
