"""Modules side by side that become one convolution."""

import pytest
import torch
from torch import nn

from mvlib.layers import ConvNormAct, merge_branches


def norm(channels):
    layer = nn.BatchNorm2d(channels)
    layer.running_mean.uniform_(-1, 1)
    for tensor in (layer.running_var, layer.weight.data, layer.bias.data):
        tensor.uniform_(0.3, 2)
    return layer


def conv(kernel, chs=8, bias=False, **kwargs):
    return nn.Conv2d(8, chs, kernel, padding=tuple((k - 1) // 2 for k in kernel), bias=bias, **kwargs)


@pytest.mark.parametrize(("branches", "stride", "groups"), [
    (lambda **k: [conv((5, 3), **k), nn.Sequential(conv((3, 3), bias=True, **k), norm(8)), None], 2, 1),
    (lambda **k: [nn.Sequential(conv((5, 3), **k), norm(8)), conv((1, 3), **k), norm(8), nn.Identity()], 1, 4),
    (lambda **k: [ConvNormAct(8, 8, (5, 3), apply_act=False, **k), nn.Sequential(norm(8), norm(8)), nn.Sequential()],
     1, 8),
])
def test_a_sum_is_one_convolution(branches, stride, groups):
    torch.manual_seed(0)
    parts = branches(stride=stride, groups=groups)
    like = next(m for m in parts[0].modules() if isinstance(m, nn.Conv2d))
    x = torch.randn(2, 8, 9, 7)
    with torch.no_grad():
        expected = sum(part.eval()(x) for part in parts if part is not None)
        merged = merge_branches(parts, like)
        assert merged.kernel_size == (5, 3) and not merged.weight.requires_grad
        torch.testing.assert_close(merged(x), expected, rtol=1e-4, atol=1e-4)


def test_a_dilated_kernel_takes_small_ones_in():
    like = nn.Conv2d(8, 8, 3, padding=2, dilation=2)
    x = torch.randn(1, 8, 9, 9)
    torch.testing.assert_close(merge_branches([like, conv((1, 1)), nn.Identity()][::2], like)(x), like(x) + x)
    with pytest.raises(ValueError, match="cannot become part of"):
        merge_branches([conv((3, 3))], like)  # not dilated


@pytest.mark.parametrize(("branch", "message"), [
    (nn.Sequential(conv((3, 3)), nn.ReLU()), "no ReLU"), (nn.Sequential(conv((3, 3)), conv((1, 1))), "no Conv2d"),
    (nn.AvgPool2d(3, 1, 1), "no AvgPool2d"), (conv((3, 3), stride=2), "cannot become part of"),
    (nn.Conv2d(8, 8, 3), "cannot become part of"), (conv((5, 5)), "cannot become part of"),
    (nn.Conv2d(8, 8, 2), "cannot become part of"), (conv((3, 3), groups=2), "cannot become part of"),
])
def test_what_is_no_branch(branch, message):
    with pytest.raises(ValueError, match=message):
        merge_branches([branch], conv((3, 3)))


def test_an_identity_keeps_its_channels():
    with pytest.raises(ValueError, match="cannot become part of"):
        merge_branches([nn.Identity()], conv((3, 3), chs=4))
