"""The head with norm and hidden layer, against timm's."""

import pytest
import torch
from timm.layers import NormMlpClassifierHead as TimmHead
from torch import nn

from mvlib.layers import NormMlpClassifierHead, create_pool2d

MAP = torch.randn(2, 8, 3, 4, generator=torch.Generator().manual_seed(0))


def pair(**kwargs):
    theirs, ours = TimmHead(8, **kwargs).eval(), NormMlpClassifierHead(8, **kwargs).eval()
    nn.init.normal_(theirs.norm.weight)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.mark.parametrize("kwargs", [
    dict(num_classes=5),
    dict(num_classes=5, hidden_size=6),
    dict(num_classes=5, hidden_size=6, pool_type="", act_layer="gelu"),
    dict(num_classes=0, hidden_size=6, pool_type="max"),
    dict(num_classes=0, pool_type="avgmax", norm_layer="layernorm2d"),
], ids=str)
def test_head_is_timms(kwargs):
    ours, theirs = pair(**kwargs)
    torch.testing.assert_close(ours(MAP), theirs(MAP))
    torch.testing.assert_close(ours(MAP, pre_logits=True), theirs(MAP, pre_logits=True))
    assert ours.num_features == theirs.num_features


def test_pooling_changes_the_kind_of_layers_but_not_their_weights():
    ours, theirs = pair(num_classes=0, hidden_size=6)
    before = ours(MAP)
    for pool in ("", "avg"):
        ours.set_global_pool(pool)
        theirs.reset(0, pool)
        assert [p.shape for p in ours.parameters()] == [p.shape for p in theirs.parameters()]
        torch.testing.assert_close(ours(MAP), theirs(MAP))
    assert torch.equal(ours(MAP), before)


def test_without_norm_and_hidden_layer():
    head = NormMlpClassifierHead(8, 0, hidden_size=6)
    head.cut(8)
    assert not list(head.parameters())
    assert head.make_classifier(3).weight.shape == (3, 8)
    torch.testing.assert_close(head(MAP), MAP.mean((2, 3)))


def test_a_classifier_without_bias():
    assert NormMlpClassifierHead(8, 3, bias=False).fc.bias is None


@pytest.mark.parametrize(("pool", "message"), [
    ("catavgmax", "global_pool 'catavgmax' changes the width"), ("median", "unknown global_pool 'median'")])
def test_pooling_that_does_not_fit(pool, message):
    with pytest.raises(ValueError, match=message):
        NormMlpClassifierHead(8, 3, pool_type=pool)


def test_an_unknown_local_pool():
    with pytest.raises(ValueError, match="pool_type 'median' is not one of avg, max"):
        create_pool2d("median", 3)
