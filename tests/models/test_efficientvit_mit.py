"""MIT's EfficientViT: attention in float32, and a head that needs pooling."""

import pytest
import torch

import mvlib
from mvlib.models.efficientvit_mit import LiteMLA, build_local_block, get_same_padding

from .pairs import assert_same, assert_same_effect, pair

NARROW = dict(widths=(8, 8, 16, 16, 32), depths=(1, 1, 1, 1, 1), head_widths=(32, 48))


@pytest.mark.parametrize(("name", "options"), [
    ("efficientvit_b0", dict(head_dim=8, expand_ratio=2, act_layer=torch.nn.ReLU, global_pool="max")),
    ("efficientvit_l1", dict(head_dim=8, norm_eps=0.1, norm_layer=torch.nn.BatchNorm2d)),
])
def test_arguments_have_timms_effect(name, options):
    assert_same_effect(name, 64, **NARROW, **options)


def test_images_of_any_shape():
    assert_same(*pair("efficientvit_b0", (71, 101), **NARROW))


def test_sums_over_pixels_leave_autocast():
    """In bfloat16 a sum of many numbers of one size is far off."""
    torch.manual_seed(0)
    layer, x = LiteMLA(16, 16).eval(), 30 * torch.randn(1, 16, 48, 48)
    sums = []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        layer.kernel_func.register_forward_hook(lambda module, args, out: sums.append(out))
        from mvlib.models.efficientvit_mit import attend_linearly
        layer(x)
        q, k = sums
        found = attend_linearly(q, k, k, 1e-5)
    assert q.dtype == found.dtype == torch.bfloat16
    expected = attend_linearly(q.double(), k.double(), k.double(), 1e-5)
    torch.testing.assert_close(found, expected.to(torch.bfloat16))


@pytest.mark.parametrize(("arguments", "message"), [
    (dict(depths=(1, 1)), "are a number for the stem and for each stage"),
    (dict(head_widths=()), "head_widths .* are two numbers"),
    (dict(global_pool=""), "this head's hidden layer needs pooling that keeps the width, not ''"),
    (dict(global_pool="catavgmax"), "needs pooling that keeps the width, not 'catavgmax'"),
])
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        mvlib.model_entrypoint("efficientvit_b0")(**NARROW | arguments)


def test_bad_blocks():
    with pytest.raises(ValueError, match="unknown block_type 'wide'; known: 'default', 'large', 'fused'"):
        build_local_block(8, 8, 1, 1, torch.nn.BatchNorm2d, torch.nn.ReLU, block_type="wide")
    with pytest.raises(ValueError, match="kernels have odd sides, not 4"):
        get_same_padding((3, 4))
