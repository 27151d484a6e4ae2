"""Feed-forward blocks against timm's."""

import pytest
import torch
from timm.layers import ConvMlp as TimmConvMlp
from timm.layers import LayerNorm2d as TimmLayerNorm2d

from mvlib.layers import ConvMlp, LayerNorm2d


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("kwargs", [
    {}, dict(hidden_features=7, out_features=5, bias=(False, True)), dict(act_layer=torch.nn.GELU, bias=False),
], ids=str)
def test_conv_mlp_is_timms(kwargs, norm):
    theirs = TimmConvMlp(4, norm_layer=TimmLayerNorm2d if norm else None, **kwargs)
    ours = ConvMlp(4, norm_layer=LayerNorm2d if norm else None, **kwargs)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 4, 3, 5)
    torch.testing.assert_close(ours(x), theirs(x))


def test_conv_mlp_drops_in_training_alone():
    mlp, x = ConvMlp(4, 64, drop=0.5), torch.randn(2, 4, 3, 5)
    assert not torch.equal(mlp(x), mlp(x))
    assert torch.equal(mlp.eval()(x), mlp(x))
