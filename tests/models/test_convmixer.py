"""ConvMixer: options of timm's; what stays when later blocks are cut, and what is kept for the backward pass."""

import pytest
import torch

import mvlib

from .pairs import assert_same_effect

SMALL = dict(dim=16, depth=2)


@pytest.mark.parametrize("kwargs", [
    dict(kernel_size=4, patch_size=5, global_pool="catavgmax", in_chans=4),  # torch pads even kernels on one side more
    dict(act_layer=torch.nn.Tanh, drop_rate=0.5, num_classes=0),
], ids=str)
def test_arguments_have_timms_effect(kwargs):
    assert_same_effect("convmixer_768_32", **SMALL, **kwargs)


def test_the_head_fits_every_block():
    model = mvlib.create_model("convmixer_768_32", pretrained=False, **SMALL).eval()
    x = torch.randn(2, 3, 28, 28)
    expected = model.head(model.blocks[0](model.stem(x)).mean((2, 3)))
    model.prune_intermediate_layers([0], prune_head=False)
    torch.testing.assert_close(model(x), expected)


def test_checkpointing_keeps_one_tensor_a_block():
    """Whose size is that of its input; each of its layers would keep one otherwise."""
    model = mvlib.create_model("convmixer_768_32", pretrained=False, **SMALL)
    model.set_grad_checkpointing()
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        model.blocks(torch.randn(2, 16, 8, 8, requires_grad=True))
    assert sizes.count(2 * 16 * 8 * 8) == 2
