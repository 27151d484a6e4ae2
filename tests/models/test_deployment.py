"""What leaves Python, where it has more to it than an answer; tests/models/test_families.py has every family's."""

import pytest
import torch

import mvlib

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")


def create(name, **kwargs):
    return mvlib.create_model(name, pretrained=False, num_classes=3, **kwargs)


def images(count, side=64):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_script_that_torch_optimizes():
    """As users run it; padding "same" is what it lost in its loops."""
    model = create("tf_mobilenetv3_small_minimal_100").eval()
    script = torch.jit.script(model)
    with torch.no_grad():
        for x in torch.randn(3, 2, 3, 65, 50):  # it optimizes after the first
            torch.testing.assert_close(script(x), model(x))


def test_script_of_what_returns_more_in_training():
    model = create("deit_tiny_distilled_patch16_224", img_size=32, depth=1)
    model.set_distilled_training()
    x = torch.randn(2, 3, 32, 32)
    script = torch.jit.script(model.eval())
    with torch.no_grad():
        assert torch.equal(script(x), model(x))
        for own, other in zip(script.train()(x), model.train()(x), strict=True):
            assert torch.equal(own, other)


def test_script_keeps_frozen_parts_and_the_model():
    model = create("test_efficientnet").train()
    frozen = model.blocks.eval()
    before = [module.training for module in model.modules()], list(model.state_dict())
    script = torch.jit.script(model)
    assert ([module.training for module in model.modules()], list(model.state_dict())) == before
    statistics = [buffer.clone() for buffer in frozen.buffers()]
    with torch.no_grad():
        script(torch.randn(4, 3, 64, 64))
    assert all(map(torch.equal, statistics, frozen.buffers()))
    assert model.bn1.num_batches_tracked == 1


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
@pytest.mark.parametrize("feature_cls", [None, "dict"])
def test_script_of_features(name, feature_cls):
    model = mvlib.create_model(name, pretrained=False, features_only=True, feature_cls=feature_cls).eval()
    script = torch.jit.script(model)
    x = images(2)
    with torch.no_grad():
        own, other = script(x), model(x)
    assert type(own) is type(other) and len(own) == len(other) > 1
    pairs = zip(own, other) if feature_cls is None else [(own[key], other[key]) for key in other]
    assert all(torch.equal(*pair) for pair in pairs)


def test_tracing_counts_no_batch():
    """Batch norm with an activation counts as the graph runs, in training alone."""
    model = create("test_efficientnet").train()
    traced = torch.fx.symbolic_trace(model)
    assert model.bn1.num_batches_tracked == 0
    with torch.no_grad():
        traced(torch.randn(2, 3, 64, 64))
    assert traced.bn1.num_batches_tracked == 1
