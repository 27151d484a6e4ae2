"""Split and synchronised batch norm, and the moving average of weights, against timm."""

import pytest
import timm
import torch
from timm.layers import convert_splitbn_model as timm_split
from timm.utils import ModelEmaV3
from torch import nn

import mvlib
from mvlib.layers.norm import BatchNormAct2d
from mvlib.train import ModelEma, SplitBatchNorm2d, convert_splitbn_model, convert_sync_batchnorm
from mvlib.train.precision import keep_slow_convolutions_in_float32


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050"])
def test_split_batch_norm_is_timm_s(name):
    peer = timm.create_model(name, num_classes=4)
    own = mvlib.create_model(name, pretrained=False, num_classes=4)
    own.load_state_dict(peer.state_dict())
    own, peer = convert_splitbn_model(own, 3).train(), timm_split(peer, 3).train()
    assert own.state_dict().keys() == peer.state_dict().keys()
    images = torch.randn(6, 3, 64, 64)
    if own.drop_rate:
        own.drop_rate = peer.drop_rate = 0.0
    torch.testing.assert_close(own(images), peer(images), rtol=1e-4, atol=1e-5)
    for key, value in peer.state_dict().items():
        torch.testing.assert_close(own.state_dict()[key], value, rtol=1e-5, atol=1e-6)
    own.eval(), peer.eval()
    torch.testing.assert_close(own(images), peer(images), rtol=1e-4, atol=1e-5)


def test_batch_that_does_not_divide():
    with pytest.raises(ValueError, match="a batch of 4 does not divide into 3 augmentation splits"):
        SplitBatchNorm2d(2, num_splits=3)(torch.zeros(4, 2, 1, 1))


def test_sync_batch_norm_keeps_activations():
    model = mvlib.create_model("efficientnet_b0", pretrained=False, num_classes=4).eval()
    images = torch.randn(1, 3, 64, 64)
    expected, keys = model(images), model.state_dict().keys()
    convert_sync_batchnorm(model)
    assert not any(isinstance(module, BatchNormAct2d) for module in model.modules())
    assert any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())
    assert model.state_dict().keys() == keys
    torch.testing.assert_close(model(images), expected)


@pytest.mark.parametrize("warmup", [False, True])
def test_average_is_timm_s(warmup):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    own, peer = ModelEma(model, 0.95, warmup), ModelEmaV3(model, decay=0.95, use_warmup=warmup)
    for update in range(1, 30):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        model(torch.randn(5, 3))
        own.update_parameters(model)
        peer.update(model, step=update)
    for key, value in peer.module.state_dict().items():
        torch.testing.assert_close(own.module.state_dict()[key], value, rtol=1e-5, atol=1e-6)


def test_slow_convolutions_stay_in_float32():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 4, 5, 2, 2, groups=4), nn.Conv2d(4, 8, 1))
    images = torch.randn(1, 4, 9, 9)
    expected = model[0](images)
    keep_slow_convolutions_in_float32(model)
    with torch.autocast("cpu", torch.bfloat16):
        inner = model[0](images)
        assert inner.dtype == torch.bfloat16
        assert model(images).dtype == torch.bfloat16
    torch.testing.assert_close(inner, expected.bfloat16())
    assert torch.equal(model[0](images), expected)
