"""GoogLeNet against torchvision: a step of training with both auxiliary heads, odd sizes of image, its features."""

import copy

import pytest
import torch
import torchvision

from mvlib.models.googlenet import GoogLeNet, GoogLeNetOutputs
from tests.parity import harness

DIFFERENCE = harness.relative_difference


@pytest.fixture(scope="module")
def theirs():
    """torchvision's model with random weights, both heads, no dropout."""
    model = torchvision.models.googlenet(aux_logits=True, init_weights=False, dropout=0.0, dropout_aux=0.0)
    harness.randomize(model, harness.random_image(128))
    return model


def build(theirs, **kwargs):
    model = GoogLeNet(**{"drop_rate": 0.0, "aux_drop_rate": 0.0, **kwargs})
    model.load_state_dict(model.fit_state_dict(theirs.state_dict()))
    return model


def step(model, image):
    """One step of training: what the model returned, and what the step left in gradients and running statistics."""
    model.train().zero_grad()
    outputs = model(image)
    sum(weight * output.square().mean() for weight, output in zip((1.0, 0.3, 0.7), outputs)).backward()
    return outputs, {name: p.grad.clone() for name, p in model.named_parameters()}, dict(model.named_buffers())


def test_a_step_of_training_is_torchvisions(theirs):
    image = torch.randn(3, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    ours, reference = build(theirs, aux_logits=True), copy.deepcopy(theirs)
    outputs, gradients, buffers = step(ours, image)
    expected, their_gradients, their_buffers = step(reference, image)
    assert isinstance(outputs, GoogLeNetOutputs) and outputs._fields == expected._fields
    for output, other in zip(outputs, expected):
        assert other.std(0).mean() > 1e-3 and DIFFERENCE(output, other) < 1e-5
    assert gradients.keys() == their_gradients.keys() and buffers.keys() == their_buffers.keys()
    assert max(DIFFERENCE(gradients[name], their_gradients[name]) for name in gradients) < 1e-4
    assert max(DIFFERENCE(buffers[name].float(), their_buffers[name].float()) for name in buffers) < 1e-5


@pytest.mark.parametrize(("head", "position"), [("aux1", 2), ("aux2", 1), ("fc", 0)])
def test_each_head_has_its_place_in_the_outputs(theirs, head, position):
    model = build(theirs, aux_logits=True).train()
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before = model(image)
        classifier = getattr(model, head) if head == "fc" else getattr(model, head).fc2
        classifier.bias.add_(1.0)
        changed = [not torch.equal(a, b) for a, b in zip(model(image), before)]
    assert changed == [i == position for i in range(3)]


@pytest.mark.parametrize("size", [(15, 15), (37, 61), (97, 130), (225, 224)])
@pytest.mark.parametrize("transform_input", [False, True])
def test_outputs_at_odd_sizes_are_torchvisions(theirs, size, transform_input, monkeypatch):
    """Pools round up, and torchvision takes 15 pixels and more."""
    monkeypatch.setattr(theirs, "transform_input", transform_input)
    image = torch.randn(2, 3, *size)
    with torch.inference_mode():
        expected = theirs.eval()(image)
        assert DIFFERENCE(build(theirs, transform_input=transform_input).eval()(image), expected) < 1e-5
    assert expected.std(0).mean() > 1e-5


def test_features_are_what_torchvisions_modules_give(theirs):
    model = build(theirs).eval()
    taken = {}
    modules = [info["module"] for info in model.feature_info]
    handles = [theirs.get_submodule(name).register_forward_hook(lambda m, i, out, name=name: taken.update({name: out}))
               for name in modules]
    image = torch.randn(1, 3, 96, 96)
    with torch.inference_mode():
        theirs.eval()(image)
        final, features = model.forward_intermediates(image)
    for handle in handles:
        handle.remove()
    for info, feature in zip(model.feature_info, features, strict=True):
        assert DIFFERENCE(feature, taken[info["module"]]) < 1e-5
        assert feature.shape[1] == info["num_chs"] and 96 // feature.shape[2] == info["reduction"]
    assert torch.equal(final, features[-1])


def test_layers_for_learning_rates_follow_depth():
    from timm.models._manipulate import group_parameters

    layers = group_parameters(GoogLeNet(aux_logits=True), GoogLeNet().group_matcher())
    depth = {name: i for i, names in layers.items() for name in names}
    order = ["conv1.conv.weight", "inception3a.branch1.conv.weight", "inception4d.branch1.conv.weight",
             "inception5b.branch1.conv.weight", "fc.weight"]
    assert [depth[name] for name in order] == sorted({depth[name] for name in order})
    assert depth["conv3.conv.weight"] == depth["conv1.conv.weight"]
